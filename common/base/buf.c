#include "common/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fault.h"

#define BUF_FIRST 64

void kx_buf_done(struct kx_buf *buf)
{
	free(buf->data);
	buf->data = NULL;
	buf->len = 0;
	buf->cap = 0;
}

void kx_buf_clear(struct kx_buf *buf)
{
	buf->len = 0;
	if (buf->data)
		buf->data[0] = 0;
}

/* At least `need`, at least twice what it was, never over the maximum. need <= max. */
static size_t buf_next_cap(const struct kx_buf *buf, size_t need)
{
	size_t cap = buf->cap > buf->max / 2 ? buf->max : buf->cap * 2;

	if (cap < BUF_FIRST)
		cap = BUF_FIRST < buf->max ? BUF_FIRST : buf->max;
	return cap < need ? need : cap;
}

kx_status kx_buf_reserve(struct kx_buf *buf, size_t more)
{
	if (buf->len > buf->max || more > buf->max - buf->len)
		return KX_ETOOBIG;
	if (buf->data && more <= buf->cap - buf->len)
		return KX_OK;

	size_t cap = buf_next_cap(buf, buf->len + more);
	if (cap == SIZE_MAX || kx_fault("buf.grow"))
		return KX_ENOMEM;
	uint8_t *data = realloc(buf->data, cap + 1);
	if (!data)
		return KX_ENOMEM;
	data[buf->len] = 0;
	buf->data = data;
	buf->cap = cap;
	return KX_OK;
}

kx_status kx_buf_append(struct kx_buf *buf, const void *bytes, size_t len)
{
	kx_status status = kx_buf_reserve(buf, len);

	if (status)
		return status;
	if (len)
		memcpy(buf->data + buf->len, bytes, len);
	buf->len += len;
	buf->data[buf->len] = 0;
	return KX_OK;
}

kx_status kx_buf_printf(struct kx_buf *buf, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	int len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (len < 0)
		return KX_EINVAL;

	kx_status status = kx_buf_reserve(buf, (size_t)len);
	if (status)
		return status;
	va_start(args, format);
	vsnprintf((char *)buf->data + buf->len, (size_t)len + 1, format, args);
	va_end(args);
	buf->len += (size_t)len;
	return KX_OK;
}
