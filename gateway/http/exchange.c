/* One request from its first line to its last byte: what the library calls, on its own thread. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "gateway/http/internal.h"

#define SEND_MS 60000           /* to take a response, and then some for its length: */
#define SEND_BYTES_PER_MS 16    /* 16 kB/s */
/* Of a body that is not wanted so much is read nevertheless: a client that still writes when we close does not get to
 * read why (its kernel drops what came). */
#define DISCARD_MAX (64u << 20)

static uint64_t in_ms(uint64_t ms)
{
	return kx_clock_mono_us() + ms * 1000u;
}

/* Under the lock. Nobody else wants to know of each, and waking costs. */
static void tell_who_stops(struct kx_http_server *server)
{
	if (atomic_load(&server->stopping))
		pthread_cond_broadcast(&server->changed);
}

void kx_connection_phase(struct kx_connection *place, enum kx_phase phase, uint64_t until_us)
{
	pthread_mutex_lock(&place->server->lock);
	place->phase = phase;
	place->until_us = until_us;
	tell_who_stops(place->server);
	pthread_mutex_unlock(&place->server->lock);
}

static void connection_opened(struct kx_http_server *server, struct MHD_Connection *connection, void **ret)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct kx_connection *place = info != NULL ? calloc(1, sizeof(*place)) : NULL;

	*ret = place;
	if (place == NULL)
		return; /* its first request finds no place, and ends it */
	place->server = server;
	place->fd = info->connect_fd;
	place->until_us = in_ms(server->options.receive_ms);
	pthread_mutex_lock(&server->lock);
	place->next = server->connections;
	if (place->next != NULL)
		place->next->prev = place;
	server->connections = place;
	server->connection_count++;
	pthread_mutex_unlock(&server->lock);
}

/* The library closes the socket after this. */
static void connection_closed(struct kx_http_server *server, struct kx_connection *place)
{
	pthread_mutex_lock(&server->lock);
	if (place->prev != NULL)
		place->prev->next = place->next;
	else
		server->connections = place->next;
	if (place->next != NULL)
		place->next->prev = place->prev;
	server->connection_count--;
	pthread_mutex_unlock(&server->lock);
	free(place);
}

void kx_connection_changed(void *server, struct MHD_Connection *connection, void **place,
			   enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		connection_opened(server, connection, place);
	else if (*place != NULL)
		connection_closed(server, *place);
}

static enum kx_http_method method_of(const char *name)
{
	static const char *const names[] = {"", "GET", "HEAD", "POST", "OPTIONS"};

	for (size_t i = 1; i < KX_ARRAY_LEN(names); i++)
		if (strcmp(name, names[i]) == 0)
			return (enum kx_http_method)i;
	return KX_HTTP_OTHER;
}

void *kx_exchange_open(void *server, const char *uri, struct MHD_Connection *connection)
{
	struct kx_exchange *exchange = calloc(1, sizeof(*exchange));
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	if (exchange == NULL)
		return NULL;
	exchange->server = server;
	exchange->connection = connection;
	exchange->place = info != NULL ? info->socket_context : NULL;
	exchange->raw = kx_strdup(uri);
	exchange->body.max = exchange->server->options.body_max;
	kx_http_response_init(&exchange->response);
	return exchange;
}

static const char *header_of(struct kx_exchange *exchange, const char *name)
{
	return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, name);
}

static void read_head(struct kx_exchange *exchange, const char *method)
{
	struct kx_http_request *request = &exchange->request;

	request->server = exchange->server;
	request->method = method_of(method);
	request->content_type = header_of(exchange, "Content-Type");
	request->range = header_of(exchange, "Range");
	request->if_range = header_of(exchange, "If-Range");
	request->if_none_match = header_of(exchange, "If-None-Match");
	request->origin = header_of(exchange, "Origin");
	request->received_us = kx_clock_mono_us();
	kx_connection_phase(exchange->place, KX_PHASE_RECEIVE, in_ms(exchange->server->options.receive_ms));
}

static void refuse(struct kx_exchange *exchange, unsigned code, const char *detail)
{
	const struct kx_http_handler *handler = &exchange->server->options.handler;

	handler->refuse(handler->ctx, code, detail, &exchange->response);
	exchange->refused = exchange->answered = true;
}

/* A page elsewhere whose name was made to lead here (DNS rebinding) sends that name. Whoever reaches a server that
 * listens for its own host alone calls it by one of that host's. */
static bool host_is_ours(struct kx_exchange *exchange)
{
	static const char *const ours[] = {"localhost", "127.0.0.1", "[::1]"};
	const char *host = header_of(exchange, "Host");

	if (exchange->server->options.anywhere || host == NULL)
		return true;
	for (size_t i = 0; i < KX_ARRAY_LEN(ours); i++) {
		size_t len = strlen(ours[i]);

		if (strncasecmp(host, ours[i], len) == 0 && (host[len] == '\0' || host[len] == ':'))
			return true;
	}
	return host[0] != '[' && strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.:") == strlen(host);
}

static bool body_is_over(struct kx_exchange *exchange, uint64_t max)
{
	const char *length = header_of(exchange, "Content-Length");
	uint64_t bytes;

	return length != NULL && kx_parse_u64(length, &bytes) == KX_OK && bytes > max;
}

/* Whether to answer before the body came, after which the library closes the connection without reading it. */
static bool answers_early(struct kx_exchange *exchange)
{
	return exchange->answered && (header_of(exchange, "Expect") != NULL || body_is_over(exchange, DISCARD_MAX));
}

static void look_at_head(struct kx_exchange *exchange, const char *method)
{
	struct kx_http_server *server = exchange->server;
	const struct kx_http_handler *handler = &server->options.handler;
	struct kx_error error = {0};

	read_head(exchange, method);
	if (atomic_load(&server->stopping))
		refuse(exchange, 503, "the server is stopping");
	else if (!host_is_ours(exchange))
		refuse(exchange, 421, "the Host of the request is not this host, for which alone the server listens");
	else if (kx_http_target_parse(exchange->raw, &exchange->request.target, &error) != KX_OK)
		refuse(exchange, error.status == KX_ENOMEM ? 503 : 400, error.message);
	else if (handler->quick(handler->ctx, &exchange->request, &exchange->response))
		exchange->refused = exchange->answered = true;
	else if (body_is_over(exchange, exchange->body.max))
		refuse(exchange, 413, "the body is longer than this server takes");
}

/* False: cut the connection. */
static bool take_body(struct kx_exchange *exchange, const char *bytes, size_t len)
{
	struct kx_http_server *server = exchange->server;

	if (exchange->refused) {
		exchange->discarded += len;
		return exchange->discarded <= DISCARD_MAX;
	}
	if (atomic_fetch_add(&server->body_bytes, len) + len > server->options.bodies_max) {
		exchange->reserved += len;
		refuse(exchange, 503, "the server is busy: it holds as many bytes of requests as it may");
		return true;
	}
	exchange->reserved += len;
	kx_status status = kx_buf_append(&exchange->body, bytes, len);
	if (status == KX_ETOOBIG)
		refuse(exchange, 413, "the body is longer than this server takes");
	else if (status != KX_OK)
		refuse(exchange, 503, "out of memory");
	if (exchange->refused)
		kx_buf_done(&exchange->body);
	return true;
}

/* The body of a response is the library's from here on. NULL: no memory. */
static struct MHD_Response *response_of(struct kx_http_response *from, uint64_t *ret_bytes)
{
	struct MHD_Response *response;

	*ret_bytes = from->fd >= 0 ? from->len : from->body.len;
	if (from->fd >= 0) {
		response = MHD_create_response_from_fd_at_offset64(from->len, from->fd, from->offset);
		if (response != NULL)
			from->fd = -1;
	} else {
		response = MHD_create_response_from_buffer(from->body.len, from->body.data, MHD_RESPMEM_MUST_FREE);
		if (response != NULL)
			from->body = (struct kx_buf){.max = from->body.max};
	}
	if (response == NULL)
		return NULL;
	if (from->type != NULL)
		(void)MHD_add_response_header(response, "Content-Type", from->type);
	for (size_t i = 0; i < from->header_count; i++)
		(void)MHD_add_response_header(response, from->headers[i].name, from->headers[i].value);
	return response;
}

static enum MHD_Result send_response(struct kx_exchange *exchange)
{
	uint64_t bytes;
	struct MHD_Response *response = response_of(&exchange->response, &bytes);

	if (response == NULL)
		return MHD_NO;
	if (atomic_load(&exchange->server->stopping))
		(void)MHD_add_response_header(response, "Connection", "close");
	kx_connection_phase(exchange->place, KX_PHASE_SEND, in_ms(SEND_MS + bytes / SEND_BYTES_PER_MS));
	enum MHD_Result result = MHD_queue_response(exchange->connection, exchange->response.code, response);
	MHD_destroy_response(response);
	exchange->queued = result == MHD_YES;
	return result;
}

static enum MHD_Result submit(struct kx_exchange *exchange)
{
	struct kx_http_server *server = exchange->server;

	exchange->request.body = exchange->body.data != NULL ? exchange->body.data : (const uint8_t *)"";
	exchange->request.body_len = exchange->body.len;
	exchange->request.deadline_us = in_ms(server->options.request_ms);
	pthread_mutex_lock(&server->lock);
	server->in_hand++;
	exchange->in_hand = true;
	exchange->place->phase = KX_PHASE_WORK;
	pthread_mutex_unlock(&server->lock);
	if (kx_pool_submit(server, exchange))
		return MHD_YES;
	const struct kx_http_handler *handler = &server->options.handler;
	handler->refuse(handler->ctx, 503, "the server is busy: as many requests wait as may", &exchange->response);
	exchange->answered = true;
	return send_response(exchange);
}

enum MHD_Result kx_exchange_access(void *server, struct MHD_Connection *connection, const char *url,
				   const char *method, const char *version, const char *upload, size_t *upload_len,
				   void **at)
{
	struct kx_exchange *exchange = *at;

	(void)server, (void)connection, (void)url, (void)version;
	if (exchange == NULL || exchange->raw == NULL || exchange->place == NULL)
		return MHD_NO; /* no memory for even that */
	if (!exchange->begun) {
		exchange->begun = true;
		look_at_head(exchange, method);
		return answers_early(exchange) ? send_response(exchange) : MHD_YES;
	}
	if (*upload_len > 0) {
		size_t len = *upload_len;

		*upload_len = 0;
		return take_body(exchange, upload, len) ? MHD_YES : MHD_NO;
	}
	return exchange->answered ? send_response(exchange) : submit(exchange);
}

static void finish(struct kx_http_server *server, struct kx_exchange *exchange)
{
	const struct kx_http_handler *handler = &server->options.handler;

	if (exchange->begun)
		handler->finished(handler->ctx, exchange->request.label, exchange->queued ? exchange->response.code : 0,
				  kx_clock_mono_us() - exchange->request.received_us);
	pthread_mutex_lock(&server->lock);
	server->in_hand -= exchange->in_hand;
	if (exchange->place != NULL) {
		exchange->place->phase = KX_PHASE_RECEIVE;
		exchange->place->until_us = in_ms(server->options.receive_ms);
	}
	tell_who_stops(server);
	pthread_mutex_unlock(&server->lock);
}

void kx_exchange_completed(void *server, struct MHD_Connection *connection, void **at,
			   enum MHD_RequestTerminationCode code)
{
	struct kx_exchange *exchange = *at;

	(void)connection, (void)code;
	if (exchange == NULL)
		return;
	*at = NULL;
	finish(server, exchange);
	atomic_fetch_sub(&exchange->server->body_bytes, exchange->reserved);
	kx_http_target_done(&exchange->request.target);
	kx_http_response_done(&exchange->response);
	kx_buf_done(&exchange->body);
	free(exchange->raw);
	free(exchange);
}
