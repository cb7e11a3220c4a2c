/* The threads that answer on the wire, and the client's side of them. */
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "shard/run/internal.h"

#define SEND_MS 1000
#define CLIENT_QUEUE 4
#define ORDER_LOOK_MS 1000
#define ASK_LOOK_MS 100

/* What is wrong with a query as it came is the asker's to mend, whatever the record calls it. */
static struct kx_query_reply *refuse(struct kx_error *why)
{
	if (why->status == KX_ECORRUPT)
		why->status = KX_EINVAL;
	return kx_query_failure(0, why);
}

static struct kx_query_reply *carry_out(struct kx_shard_server *server, const struct kx_query_request *request)
{
	struct kx_query_reply *reply;
	struct kx_care_done done = {0};
	struct kx_error why = {0};
	kx_status status;

	if (server->takes_orders)
		status = kx_shard_take_care(server->shard->store, server->shard->index, &request->care, &done, &why);
	else
		status = kx_error_set(&why, KX_EPERM, KX_ERROR_POISON,
				      "a shard takes orders only by its data directory: kinodex shard compact|checkpoint --data");
	if (!status)
		why = (struct kx_error){0}; /* a reply with nothing in it, but for: */
	reply = kx_query_failure(request->request_id, &why);
	if (reply)
		reply->care = done;
	return reply;
}

static struct kx_query_reply *answer(struct kx_shard_server *server, const void *bytes, size_t len)
{
	KX_CLEANUP(kx_query_request_cleanup) struct kx_query_request *request = NULL;
	struct kx_query_reply *reply = NULL;
	struct kx_error why = {0};

	if (kx_query_request_unpack(bytes, len, &request, &why))
		return refuse(&why);
	if (request->kind == KX_QUERY_CARE)
		return carry_out(server, request);
	if (kx_shard_answer(server->shard, request, &reply, &why))
		return kx_query_failure(request->request_id, &why);
	return reply;
}

/* Packs the reply, or, when that is more than a message may hold, one that says so. */
static kx_status pack_reply(const struct kx_query_reply *reply, struct kx_buf *out)
{
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *failure = NULL;
	struct kx_error why = {0};
	kx_status status = kx_query_reply_pack(reply, out);

	if (status != KX_ETOOBIG)
		return status;
	(void)kx_error_set(&why, KX_ETOOBIG, KX_ERROR_POISON,
			   "the answer is more than %u MiB; ask for fewer videos or without moments",
			   KX_WIRE_MESSAGE_MAX >> 20);
	failure = kx_query_failure(reply->request_id, &why);
	kx_buf_clear(out);
	return failure ? kx_query_reply_pack(failure, out) : KX_ENOMEM;
}

static void serve_one(struct kx_shard_server *server, const struct kx_wire_message *message)
{
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply =
		answer(server, message->bytes, message->len);
	struct kx_buf packed = {.max = KX_WIRE_MESSAGE_MAX};
	struct kx_error error = {0};
	kx_status status = reply ? pack_reply(reply, &packed) : KX_ENOMEM;

	if (status)
		kx_log(KX_LOG_ERROR, "a query could not be answered: %s", kx_status_name(status));
	else
		status = kx_wire_send(server->socket, &message->peer, packed.data, packed.len, SEND_MS, &error);
	if (status && error.message[0]) /* the asker has gone, or takes nothing: its loss */
		kx_log(KX_LOG_DEBUG, "an answer was not taken: %s", error.message);
	kx_buf_done(&packed);
}

void *kx_shard_serve(void *arg)
{
	struct kx_shard_server *server = arg;
	struct kx_shard *shard = server->shard;

	while (!kx_stop_asked(&shard->stop)) {
		struct kx_wire_message message = {0};
		struct kx_error error = {0};
		kx_status status = kx_wire_recv(server->socket, -1, shard->stop.fd, &message, &error);

		if (!status)
			serve_one(server, &message);
		kx_wire_message_done(&message);
		if (status && status != KX_EAGAIN && status != KX_ECANCELED) {
			(void)kx_error_prefix(&error, status, "answering queries: ");
			kx_shard_fail(shard, status, &error);
			break;
		}
	}
	kx_wire_socket_close(KX_STEAL(server->socket), 0);
	return NULL;
}

/* One question on its way. */
struct asking {
	struct kx_wire_socket *socket;
	const char *endpoint;
	uint64_t request_id;
};

/* KX_EAGAIN, without a message: no reply by then. */
static kx_status receive_reply(const struct asking *asking, uint64_t until_us, struct kx_query_reply **ret,
			       struct kx_error *error)
{
	for (;;) {
		KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;
		struct kx_wire_message message = {0};
		uint64_t now = kx_clock_mono_us();
		kx_status status = KX_EAGAIN;

		if (now < until_us)
			status = kx_wire_recv(asking->socket, (int)((until_us - now) / 1000u) + 1, -1, &message, error);
		if (!status)
			status = kx_query_reply_unpack(message.bytes, message.len, &reply, error);
		kx_wire_message_done(&message);
		if (status == KX_EAGAIN)
			return status;
		if (status)
			return kx_error_prefix(error, status, "shard at %s: ", asking->endpoint);
		/* A query that could not be read has no number to answer to. */
		if (reply->request_id == asking->request_id || (reply->status && !reply->request_id)) {
			*ret = KX_STEAL(reply);
			return KX_OK;
		}
	}
}

static uint64_t next_request_id(void)
{
	static atomic_ullong last;

	return atomic_fetch_add(&last, 1) + 1;
}

/* Connects and sends. The socket is the caller's to close, also on failure. */
static kx_status send_request(struct asking *asking, struct kx_wire *wire, const struct kx_query_request *request,
			      int timeout_ms, struct kx_error *error)
{
	struct kx_query_request numbered = *request;
	struct kx_buf packed = {.max = KX_WIRE_MESSAGE_MAX};
	kx_status status;

	if (!numbered.request_id)
		numbered.request_id = next_request_id();
	asking->request_id = numbered.request_id;
	status = kx_query_request_pack(&numbered, &packed);
	if (status)
		status = kx_error_set(error, status, KX_ERROR_POISON, "query: %s", kx_status_name(status));
	if (!status)
		status = kx_wire_client(wire, asking->endpoint, CLIENT_QUEUE, &asking->socket, error);
	if (!status)
		status = kx_wire_send(asking->socket, NULL, packed.data, packed.len, timeout_ms, error);
	if (status == KX_EAGAIN)
		status = kx_error_set(error, KX_ETIMEDOUT, KX_ERROR_RETRY, "the shard at %s takes no queries",
				      asking->endpoint);
	kx_buf_done(&packed);
	return status;
}

kx_status kx_shard_ask(struct kx_wire *wire, const char *endpoint, const struct kx_query_request *request,
		       int timeout_ms, struct kx_query_reply **ret, struct kx_error *error)
{
	return kx_shard_ask_while(wire, endpoint, request, timeout_ms, NULL, NULL, ret, error);
}

kx_status kx_shard_ask_while(struct kx_wire *wire, const char *endpoint, const struct kx_query_request *request,
			     int timeout_ms, bool (*goes_on)(void *ctx), void *ctx, struct kx_query_reply **ret,
			     struct kx_error *error)
{
	uint64_t until_us = kx_clock_mono_us() + (uint64_t)timeout_ms * 1000u;
	struct asking asking = {.endpoint = endpoint};
	kx_status status = send_request(&asking, wire, request, timeout_ms, error);
	bool first = true;

	if (!status)
		status = KX_EAGAIN;
	while (status == KX_EAGAIN && (first || kx_clock_mono_us() < until_us)) {
		uint64_t look_us = kx_clock_mono_us() + ASK_LOOK_MS * 1000u;

		first = false;
		if (goes_on && !goes_on(ctx))
			status = kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "nobody waits for the answer of %s any more",
					      endpoint);
		else
			status = receive_reply(&asking, goes_on && look_us < until_us ? look_us : until_us, ret, error);
	}
	if (status == KX_EAGAIN)
		status = kx_error_set(error, KX_ETIMEDOUT, KX_ERROR_RETRY,
				      "no shard answers at %s; is it running? \"kinodex shard\" starts one", endpoint);
	kx_wire_socket_close(asking.socket, 0);
	return status;
}

kx_status kx_shard_order(struct kx_wire *wire, const char *control, const struct kx_care_order *order,
			 bool (*goes_on)(void *ctx), void *ctx, struct kx_care_done *ret, struct kx_error *error)
{
	const struct kx_query_request request = {.kind = KX_QUERY_CARE, .care = *order};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;
	struct asking asking = {.endpoint = control};
	kx_status status = send_request(&asking, wire, &request, ORDER_LOOK_MS, error);

	if (!status)
		status = KX_EAGAIN;
	while (status == KX_EAGAIN && goes_on(ctx))
		status = receive_reply(&asking, kx_clock_mono_us() + ORDER_LOOK_MS * 1000u, &reply, error);
	if (status == KX_EAGAIN)
		status = kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "nobody waits for the answer of %s any more",
				      control);
	kx_wire_socket_close(asking.socket, 0);
	if (status)
		return status;
	if (reply->status)
		return kx_error_set(error, reply->status, KX_ERROR_FATAL, "%s", reply->message);
	*ret = reply->care;
	return KX_OK;
}
