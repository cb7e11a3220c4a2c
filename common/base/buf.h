/* A byte buffer that grows up to a maximum, and is then refused. Layer: base. */
#ifndef KX_BASE_BUF_H
#define KX_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

/* Embedded; zeroed memory plus a max is valid: struct kx_buf b = {.max = 1 << 20}. Owned by one thread. data is
 * always followed by a zero byte that len does not count, so text can be used as a C string. */
struct kx_buf {
	uint8_t *data;
	size_t len;
	size_t cap;
	size_t max; /* bytes; growing past it is KX_ETOOBIG and leaves the buffer as it was */
};

void kx_buf_done(struct kx_buf *buf); /* frees and zeroes len, cap, data; keeps max */
void kx_buf_clear(struct kx_buf *buf);
kx_status kx_buf_reserve(struct kx_buf *buf, size_t more) KX_MUST_CHECK;
kx_status kx_buf_append(struct kx_buf *buf, const void *bytes, size_t len) KX_MUST_CHECK;
kx_status kx_buf_printf(struct kx_buf *buf, const char *format, ...) KX_PRINTF(2, 3) KX_MUST_CHECK;

#endif
