/* The Range of a request (RFC 9110, 14.2). Pure. Layer: gateway/http. */
#ifndef KX_GATEWAY_HTTP_RANGE_H
#define KX_GATEWAY_HTTP_RANGE_H

#include <stdint.h>

enum kx_range_kind {
	KX_RANGE_ALL,  /* no range, or one that a server is to ignore: bad syntax, another unit, several ranges */
	KX_RANGE_PART, /* *ret_first and *ret_len, which is over 0 */
	KX_RANGE_NONE, /* 416: it holds no byte of these */
};

/* header: NULL when there is none. size: of the whole, in bytes. */
enum kx_range_kind kx_http_range(const char *header, uint64_t size, uint64_t *ret_first, uint64_t *ret_len);

#endif
