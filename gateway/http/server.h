/* An HTTP/1.1 server with a bound on everything: connections, heads, bodies, time, and requests at work. Layer: gateway/http.
 *
 * Threads it owns: one that reads and writes all sockets (libmicrohttpd, epoll), a fixed pool that runs the handler, and
 * one that cuts connections which take too long. A request goes to the pool when all of it is there; when more wait than
 * queue_max, it is refused at once (503). Nothing here knows what is served.
 */
#ifndef KX_GATEWAY_HTTP_SERVER_H
#define KX_GATEWAY_HTTP_SERVER_H

#include <stdint.h>

#include "common/base/error.h"
#include "gateway/http/message.h"

struct kx_http_server;

struct kx_http_handler {
	void *ctx;
	/* On the thread of the sockets, before the body is looked at: answers what takes no time, and refuses what need not
	 * be read. False leaves it to handle(). Also sets what label may say. */
	bool (*quick)(void *ctx, struct kx_http_request *request, struct kx_http_response *response);
	/* On a thread of the pool; may block until request->deadline_us. */
	void (*handle)(void *ctx, struct kx_http_request *request, struct kx_http_response *response);
	/* Fills the response of what the server itself refuses: 400, 408, 413, 503. Any thread, no blocking. */
	void (*refuse)(void *ctx, unsigned code, const char *detail, struct kx_http_response *response);
	/* After the last byte went out, or the client left: then code is 0 when there was no response yet. label: as the
	 * handler left it. The thread of the sockets. */
	void (*finished)(void *ctx, unsigned label, unsigned code, uint64_t took_us);
};

struct kx_http_options {
	const char *listen;        /* 127.0.0.1:8080, [::1]:0; a name other than localhost is not looked up */
	bool anywhere;             /* other addresses than those of this host alone are allowed */
	unsigned threads;          /* of the pool */
	unsigned queue_max;        /* requests that wait for a thread */
	unsigned connections_max;
	size_t head_max;           /* bytes of a request's line and headers */
	size_t body_max;           /* bytes of a request's body; longer ones are 413 */
	size_t bodies_max;         /* bytes of all bodies that are held at a time; past it 503 */
	unsigned request_ms;       /* to answer, from when all of it was there */
	unsigned receive_ms;       /* for a body to arrive, and for a head with the silence before it */
	struct kx_http_handler handler;
};

/* What is going on; for counters. */
struct kx_http_now {
	unsigned connections;
	unsigned queued;
	unsigned at_work; /* in handle(), or being sent */
	size_t body_bytes;
};

/* KX_EINVAL for an address that is none, or is not this host's without `anywhere`; KX_EBUSY when somebody listens there. */
kx_status kx_http_start(const struct kx_http_options *options, struct kx_http_server **ret, struct kx_error *error)
	KX_MUST_CHECK;
/* "127.0.0.1:41234". Owned by the server. */
const char *kx_http_address(const struct kx_http_server *server);
void kx_http_now(struct kx_http_server *server, struct kx_http_now *ret); /* thread-safe */

/* Takes no more connections and requests, gives those at work at most grace_ms, then refuses those that still wait,
 * waits for handlers that run (which cancel() is to hurry: called then, may be NULL) and closes all. NULL is nothing. */
void kx_http_stop(struct kx_http_server *server, unsigned grace_ms, void (*cancel)(void *ctx), void *ctx);

#endif
