/* Videos that are not on this machine: http, https and s3 addresses, read in ranges. Layer: fetch.
 *
 * A stream is one object being read: a thread that fetches, and a descriptor over which a process without network asks
 * it for bytes (common/fetch/stream.h). It keeps at most 12 MiB in memory, reads ahead in growing ranges where reading
 * goes on, and holds on to the first validator it saw: an object that changes midway is a failure, not a mixture.
 * libcurl's and expat's types do not leave this folder. docs/decisions/0009-fetch.md says why it is as it is.
 *
 * s3://bucket/key: the key stands as it is, not percent-encoded. Credentials, region and endpoint come from the
 * environment and the profile files as other tools read them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
 * AWS_SESSION_TOKEN, AWS_PROFILE, AWS_REGION, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL,
 * AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE. Without credentials requests are not signed. Proxies as curl has them.
 */
#ifndef KX_FETCH_FETCH_H
#define KX_FETCH_FETCH_H

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/thread.h"
#include "common/record/types.h"

struct kx_fetch;        /* what streams share: limits and idle connections. Thread-safe */
struct kx_fetch_stream;
struct kx_fetch_list;

struct kx_fetch_options {
	uint64_t timeout_ms;      /* to connect, and with hardly a byte (under 1 KiB/s); 0: 30 s */
	uint64_t backoff_ms;      /* before the first of the retries, doubled for each further one; 0: 200 */
	const char *spool_dir;    /* where an object goes whose server has no ranges; NULL: TMPDIR, else /tmp */
	uint64_t spool_bytes_max; /* of one such object; 0: 8 GiB */
	const struct kx_stop *stop; /* ends what blocks with KX_ECANCELED; may be NULL. Not streams */
};

struct kx_fetch_info {
	uint64_t size;
	uint64_t modified_ns; /* 0: not said */
	bool versioned;       /* there is an ETag or a Last-Modified. Else nobody can tell whether it changed */
	/* Of address, size and ETag (else Last-Modified). Never a file's content hash. */
	uint8_t fingerprint[KX_SHA256_LEN];
};

kx_status kx_fetch_new(const struct kx_fetch_options *options, struct kx_fetch **ret, struct kx_error *error)
	KX_MUST_CHECK;
void kx_fetch_free(struct kx_fetch *fetch); /* NULL is nothing. Ends streams and waits for their threads */

/* Whether a source is an address of a kind that is read here. */
bool kx_fetch_is_url(const char *source);
/* The address as it may be shown and logged: without user, password and signature. NULL when out of memory. */
char *kx_fetch_name(const char *url);
/* The last part of its path, decoded: what a file of it would be called. NULL when out of memory. */
char *kx_fetch_file_name(const char *url);
/* An s3 address that ends in '/', or names a bucket only: its objects are meant. */
bool kx_fetch_is_prefix(const char *url);

/* Asks about an object without reading it. On failure *ret_reason says why in the ledger's terms. Blocks; retries. */
kx_status kx_fetch_stat(struct kx_fetch *fetch, const char *url, struct kx_fetch_info *ret_info,
			enum kx_reason *ret_reason, struct kx_error *error) KX_MUST_CHECK;

/* Begins to read; does not block. expected: what it must be (fingerprint), else reading fails with
 * KX_REASON_CHANGED; may be NULL. *ret_fd is the reader's end, the caller's to close: the stream ends when nobody has
 * it open. What goes wrong is told to the reader. KX_EINVAL for an address that can't be one. */
kx_status kx_fetch_open(struct kx_fetch *fetch, const char *url, const uint8_t *expected,
			struct kx_fetch_stream **ret, int *ret_fd, struct kx_error *error) KX_MUST_CHECK;
/* Lets go of the handle; the stream itself goes on. NULL is nothing. */
void kx_fetch_stream_free(struct kx_fetch_stream *stream);
void kx_fetch_stream_cleanup(struct kx_fetch_stream **stream);
/* Blocks until it is known what is read. */
kx_status kx_fetch_stream_wait(struct kx_fetch_stream *stream, struct kx_fetch_info *ret_info,
			       enum kx_reason *ret_reason, struct kx_error *error) KX_MUST_CHECK;
/* How long its reader has waited for bytes so far, to be left out of the reader's own limits. Bounded by the stream's:
 * the tries that a server has, a minute, and what 64 KiB/s would take. Any thread. */
uint64_t kx_fetch_stream_waited_us(struct kx_fetch_stream *stream);

/* An object of a listing. Strings are the caller's to free with kx_fetch_object_done(). */
struct kx_fetch_object {
	char *url;  /* s3://bucket/key */
	char *name; /* the key after the prefix */
	struct kx_fetch_info info;
};
void kx_fetch_object_done(struct kx_fetch_object *object);

/* All objects under s3://bucket/prefix, sorted by key, a page of 1000 at a time. Folder markers (keys that end in '/')
 * are left out. Both block. One thread at a time. */
kx_status kx_fetch_list_open(struct kx_fetch *fetch, const char *url, struct kx_fetch_list **ret,
			     struct kx_error *error) KX_MUST_CHECK;
/* KX_ENOTFOUND without a message after the last; other errors end the listing, which is then no whole one. */
kx_status kx_fetch_list_next(struct kx_fetch_list *list, struct kx_fetch_object *ret, struct kx_error *error)
	KX_MUST_CHECK;
void kx_fetch_list_free(struct kx_fetch_list *list); /* NULL is nothing */

#endif
