/* A request as a handler sees it, and the response that it fills. Layer: gateway/http. */
#ifndef KX_GATEWAY_HTTP_MESSAGE_H
#define KX_GATEWAY_HTTP_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "gateway/http/target.h"

struct kx_http_server;

enum kx_http_method { KX_HTTP_OTHER, KX_HTTP_GET, KX_HTTP_HEAD, KX_HTTP_POST, KX_HTTP_OPTIONS };

/* Headers are NULL where they are absent. All of it is valid until the handler returns. */
struct kx_http_request {
	struct kx_http_server *server;
	enum kx_http_method method;
	struct kx_http_target target;
	const char *content_type;
	const char *range, *if_range, *if_none_match;
	const char *origin;
	const uint8_t *body; /* followed by a zero byte that body_len does not count */
	size_t body_len;
	uint64_t received_us; /* when its head was there; monotonic */
	uint64_t deadline_us; /* when it is to be answered; not set for quick() */
	unsigned label;       /* the handler's own, 0 at first: which route it took, for its counters */
};

#define KX_HTTP_HEADERS_MAX 8u
#define KX_HTTP_RESPONSE_MAX ((size_t)64 << 20) /* bytes of a body in memory */

struct kx_http_header {
	const char *name; /* a literal */
	char value[256];
};

/* Made by kx_http_response_init(). The body is `body`, or bytes of a file. */
struct kx_http_response {
	unsigned code;
	const char *type; /* of the content; a literal, NULL for none */
	struct kx_buf body;
	int fd;           /* -1: none; it is taken over */
	uint64_t offset, len;
	size_t header_count;
	struct kx_http_header headers[KX_HTTP_HEADERS_MAX];
};

void kx_http_response_init(struct kx_http_response *response);
void kx_http_response_done(struct kx_http_response *response);
/* Adds a header. Values that are too long are cut, headers past the maximum are the programmer's error. */
void kx_http_response_header(struct kx_http_response *response, const char *name, const char *format, ...)
	KX_PRINTF(3, 4);

#endif
