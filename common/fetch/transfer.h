/* The network's side of a stream: which range is on its way, what is there already, what went wrong.
 * Layer: fetch, private. Owned by the stream's thread; nothing here blocks. */
#ifndef KX_FETCH_TRANSFER_H
#define KX_FETCH_TRANSFER_H

#include "common/fetch/cache.h"
#include "common/fetch/request.h"

struct kx_transfer {
	struct kx_fetch *fetch;
	struct kx_target target;
	char *there;               /* where redirects led the last time; NULL: nowhere else */
	uint8_t expected[KX_SHA256_LEN];
	bool has_expected;
	CURLM *multi;
	struct kx_request request;
	struct kx_tries tries;
	struct kx_trouble trouble; /* status other than KX_OK: it is over */
	struct kx_trouble refused; /* why the answer that is coming in can't be used */

	bool running;
	bool checked;              /* the head of the answer that is coming in is as it should be */
	uint64_t headway;          /* bytes since the last failure */
	uint64_t received;         /* bytes in all */

	bool known;                /* what follows is */
	struct kx_fetch_info info;
	char etag[KX_ETAG_MAX];
	char modified[64];

	struct kx_cache cache;
	struct kx_span *span;      /* that is being filled */

	bool spooling;             /* the server has no ranges: all of it goes to a file without a name */
	bool spooled;              /* and is there */
	int spool_fd;
	uint64_t spool_len;
	uint64_t skip;             /* bytes of the answer that are there already */
};

/* expected may be NULL. */
kx_status kx_transfer_open(struct kx_transfer *transfer, struct kx_fetch *fetch, const char *url,
			   const uint8_t *expected, struct kx_error *error) KX_MUST_CHECK;
void kx_transfer_done(struct kx_transfer *transfer);

/* Lets what is under way go on, and draws the conclusions when it is over. */
void kx_transfer_drive(struct kx_transfer *transfer);
/* Begins, or turns to another place, so that the bytes at offset come in. Time: kx_clock_mono_us(). */
void kx_transfer_want(struct kx_transfer *transfer, uint64_t offset, uint64_t now_us);
/* With nothing else to do: the first range, all of a spool, or what may be wanted next after a reading that ended at
 * offset. */
void kx_transfer_idle(struct kx_transfer *transfer, uint64_t offset, uint64_t now_us);
/* Copies what is there at offset; 0 when nothing is, yet. */
size_t kx_transfer_read(struct kx_transfer *transfer, uint64_t offset, uint8_t *bytes, size_t len);
void kx_transfer_fail(struct kx_transfer *transfer, const struct kx_trouble *trouble);

#endif
