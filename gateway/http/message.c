#include "gateway/http/message.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void kx_http_response_init(struct kx_http_response *response)
{
	*response = (struct kx_http_response){.code = 500, .fd = -1, .body.max = KX_HTTP_RESPONSE_MAX};
}

void kx_http_response_done(struct kx_http_response *response)
{
	kx_buf_done(&response->body);
	if (response->fd >= 0)
		close(response->fd);
	response->fd = -1;
}

void kx_http_response_header(struct kx_http_response *response, const char *name, const char *format, ...)
{
	va_list args;

	assert(response->header_count < KX_HTTP_HEADERS_MAX);
	struct kx_http_header *header = &response->headers[response->header_count++];
	header->name = name;
	va_start(args, format);
	vsnprintf(header->value, sizeof(header->value), format, args);
	va_end(args);
}
