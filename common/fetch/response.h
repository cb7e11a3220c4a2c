/* What the head of an HTTP answer says. Pure. Layer: fetch, private. */
#ifndef KX_FETCH_RESPONSE_H
#define KX_FETCH_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/fetch/fetch.h"

#define KX_ETAG_MAX 512

struct kx_response {
	long status;
	bool has_length, has_range, has_total;
	uint64_t length;             /* Content-Length */
	uint64_t range_first, total; /* Content-Range */
	char etag[KX_ETAG_MAX];      /* with its quotes; "": none, or one too long to be kept */
	char modified[64];           /* Last-Modified as it was written; "" */
	char region[64];             /* x-amz-bucket-region; "" */
};

/* One line of the head. A status line begins anew, since an answer may be preceded by others (redirects). */
void kx_response_line(struct kx_response *response, const char *line, size_t len);

/* May be sent back in If-Match: there is one, and it is not weak. */
bool kx_etag_is_strong(const char *etag);

/* KX_ENOMEM only. name: the address as it is shown; modified counts where there is no ETag. */
kx_status kx_fingerprint(const char *name, uint64_t size, const char *etag, const char *modified,
			 struct kx_fetch_info *ret) KX_MUST_CHECK;

#endif
