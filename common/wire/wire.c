#include "common/wire/wire.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/base/clock.h"
#include "common/base/fault.h"

#define HEARTBEAT_MS 5000          /* how often an idle connection is tried */
#define HEARTBEAT_TIMEOUT_MS 20000 /* and after how much silence the peer counts as gone */
#define LOOK_MS 50 /* how long a send waits before it looks whether the peer is still there */
#define ENDPOINT_MAX 1024

struct kx_wire {
	void *context;
};

enum kind { SERVER, CLIENT, CLIENT_CONNECTED };

struct kx_wire_socket {
	void *zmq;
	bool server;
	char endpoint[ENDPOINT_MAX];
};

/* A point in time that a call may last until. */
struct deadline {
	bool forever;
	uint64_t at_us;
};

static struct deadline deadline_after(int timeout_ms)
{
	return (struct deadline){
		.forever = timeout_ms < 0,
		.at_us = kx_clock_mono_us() + (timeout_ms > 0 ? (uint64_t)timeout_ms * 1000 : 0),
	};
}

/* What is left, as ZeroMQ counts: -1 for ever, 0 nothing. Rounded up, so that waiting makes progress. */
static int deadline_left_ms(const struct deadline *deadline)
{
	uint64_t now = kx_clock_mono_us();

	if (deadline->forever)
		return -1;
	return now < deadline->at_us ? (int)((deadline->at_us - now + 999) / 1000) : 0;
}

/* ZeroMQ has errno values of its own, which strerror() doesn't know. */
static kx_status fail(struct kx_error *error, const char *what, const char *endpoint)
{
	switch (errno) {
	case EADDRINUSE:
		return kx_error_set(error, KX_EBUSY, KX_ERROR_FATAL, "%s %s: another program listens there", what,
				    endpoint);
	case EINVAL:
	case ENODEV:
	case EPROTONOSUPPORT:
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "%s %s: not an endpoint of this host (ipc:///path, tcp://host:port)", what,
				    endpoint);
	case ENOMEM:
		return kx_error_nomem(error);
	default:
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "%s %s: %s", what, endpoint, zmq_strerror(errno));
	}
}

kx_status kx_wire_new(struct kx_wire **ret, struct kx_error *error)
{
	struct kx_wire *wire = calloc(1, sizeof(*wire));

	if (!wire)
		return kx_error_nomem(error);
	wire->context = zmq_ctx_new();
	if (!wire->context) {
		kx_status status = fail(error, "message sockets", "");

		free(wire);
		return status;
	}
	*ret = wire;
	return KX_OK;
}

void kx_wire_free(struct kx_wire *wire)
{
	if (!wire)
		return;
	while (zmq_ctx_term(wire->context) && errno == EINTR)
		continue;
	free(wire);
}

static bool set_int(void *zmq, int option, int value)
{
	return zmq_setsockopt(zmq, option, &value, sizeof(value)) == 0;
}

static bool set_options(void *zmq, enum kind kind, int queue_max)
{
	int64_t message_max = KX_WIRE_MESSAGE_MAX;
	bool beats = kind != CLIENT_CONNECTED; /* a missed one would break a connection that can't be made again */

	/* Without MANDATORY a server's messages to a peer that is gone or full would vanish without a word. */
	if (kind == SERVER && !set_int(zmq, ZMQ_ROUTER_MANDATORY, 1))
		return false;
	if (kind == CLIENT_CONNECTED && !set_int(zmq, ZMQ_IMMEDIATE, 1))
		return false;
	return zmq_setsockopt(zmq, ZMQ_MAXMSGSIZE, &message_max, sizeof(message_max)) == 0 &&
	       set_int(zmq, ZMQ_SNDHWM, queue_max) && set_int(zmq, ZMQ_RCVHWM, queue_max) &&
	       set_int(zmq, ZMQ_LINGER, 0) && set_int(zmq, ZMQ_HEARTBEAT_IVL, beats ? HEARTBEAT_MS : 0) &&
	       set_int(zmq, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS);
}

static bool listen_at(struct kx_wire_socket *socket, const char *endpoint)
{
	size_t len = sizeof(socket->endpoint);

	return zmq_bind(socket->zmq, endpoint) == 0 &&
	       zmq_getsockopt(socket->zmq, ZMQ_LAST_ENDPOINT, socket->endpoint, &len) == 0;
}

static bool connect_to(struct kx_wire_socket *socket, const char *endpoint)
{
	strcpy(socket->endpoint, endpoint);
	return zmq_connect(socket->zmq, endpoint) == 0;
}

static kx_status open_kind(struct kx_wire *wire, const char *endpoint, enum kind kind, int queue_max,
			   struct kx_wire_socket **ret, struct kx_error *error)
{
	bool server = kind == SERVER;
	const char *what = server ? "listening at" : "connecting to";
	struct kx_wire_socket *socket;
	kx_status status;

	if (queue_max < 1) /* ZeroMQ takes 0 for "without bound" */
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s %s: a queue of %d messages", what, endpoint,
				    queue_max);
	if (strlen(endpoint) >= ENDPOINT_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s %.40s...: the endpoint is too long", what,
				    endpoint);
	socket = calloc(1, sizeof(*socket));
	if (!socket)
		return kx_error_nomem(error);
	socket->server = server;
	socket->zmq = zmq_socket(wire->context, server ? ZMQ_ROUTER : ZMQ_DEALER);
	if (!socket->zmq || !set_options(socket->zmq, kind, queue_max) ||
	    !(server ? listen_at(socket, endpoint) : connect_to(socket, endpoint))) {
		status = fail(error, what, endpoint);
		kx_wire_socket_close(socket, 0);
		return status;
	}
	*ret = socket;
	return KX_OK;
}

kx_status kx_wire_server(struct kx_wire *wire, const char *endpoint, int queue_max, struct kx_wire_socket **ret,
			 struct kx_error *error)
{
	return open_kind(wire, endpoint, SERVER, queue_max, ret, error);
}

kx_status kx_wire_client(struct kx_wire *wire, const char *endpoint, int queue_max, struct kx_wire_socket **ret,
			 struct kx_error *error)
{
	return open_kind(wire, endpoint, CLIENT, queue_max, ret, error);
}

/* With IMMEDIATE a socket has room for messages only once it is connected. */
static bool wait_connected(void *zmq, int timeout_ms)
{
	struct deadline deadline = deadline_after(timeout_ms);
	zmq_pollitem_t item = {.socket = zmq, .events = ZMQ_POLLOUT};
	int got;

	do {
		got = zmq_poll(&item, 1, deadline_left_ms(&deadline));
	} while (got < 0 && errno == EINTR);
	return got > 0;
}

kx_status kx_wire_client_connected(struct kx_wire *wire, const char *endpoint, int queue_max, int timeout_ms,
				   struct kx_wire_socket **ret, struct kx_error *error)
{
	struct kx_wire_socket *socket = NULL;
	kx_status status = open_kind(wire, endpoint, CLIENT_CONNECTED, queue_max, &socket, error);

	if (status != KX_OK)
		return status;
	if (!wait_connected(socket->zmq, timeout_ms)) {
		kx_wire_socket_close(socket, 0);
		return kx_error_set(error, KX_ETIMEDOUT, KX_ERROR_RETRY, "connecting to %s: nobody answers", endpoint);
	}
	*ret = socket;
	return KX_OK;
}

void kx_wire_socket_close(struct kx_wire_socket *socket, int linger_ms)
{
	if (!socket)
		return;
	if (socket->zmq) {
		(void)set_int(socket->zmq, ZMQ_LINGER, linger_ms);
		(void)zmq_close(socket->zmq);
	}
	free(socket);
}

const char *kx_wire_endpoint(const struct kx_wire_socket *socket)
{
	return socket->endpoint;
}

/* ZeroMQ calls a peer that died with a full queue "full" until the socket looks for messages, which is when it comes
 * upon the end of that peer's. So a server that waits to send looks now and then. */
static void look_for_ends(void *zmq)
{
	int events;
	size_t len = sizeof(events);

	(void)zmq_getsockopt(zmq, ZMQ_EVENTS, &events, &len);
}

/* zmq_send() with flags, again after signals, until the deadline. */
static kx_status send_frame(struct kx_wire_socket *socket, const void *bytes, size_t len, int flags,
			    const struct deadline *deadline, struct kx_error *error)
{
	for (;;) {
		int left = deadline_left_ms(deadline);

		if (!set_int(socket->zmq, ZMQ_SNDTIMEO, left < 0 || left > LOOK_MS ? LOOK_MS : left))
			return fail(error, "sending to", socket->endpoint);
		if (zmq_send(socket->zmq, bytes, len, flags) >= 0)
			return KX_OK;
		if (errno == EHOSTUNREACH)
			return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_RETRY, "sending from %s: the peer is gone",
					    socket->endpoint);
		if (errno == EAGAIN) {
			if (socket->server)
				look_for_ends(socket->zmq);
			if (left == 0)
				return KX_EAGAIN;
		} else if (errno != EINTR) {
			return fail(error, "sending to", socket->endpoint);
		}
	}
}

kx_status kx_wire_send(struct kx_wire_socket *socket, const struct kx_wire_peer *peer, const void *bytes, size_t len,
		       int timeout_ms, struct kx_error *error)
{
	struct deadline deadline = deadline_after(timeout_ms);
	kx_status status = KX_OK;

	assert(!socket->server || peer);
	if (len > KX_WIRE_MESSAGE_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "sending to %s: %zu bytes, and %u are the most",
				    socket->endpoint, len, KX_WIRE_MESSAGE_MAX);
	if (kx_fault("wire.send"))
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "sending to %s: failed (injected)",
				    socket->endpoint);
	/* Only the first frame can wait: where it has room, the message has. */
	if (socket->server)
		status = send_frame(socket, peer->name, peer->len, ZMQ_SNDMORE, &deadline, error);
	if (!status)
		status = send_frame(socket, bytes, len, 0, &deadline, error);
	return status;
}

void kx_wire_message_done(struct kx_wire_message *message)
{
	if (message->owner) {
		(void)zmq_msg_close(message->owner);
		free(message->owner);
	}
	memset(message, 0, sizeof(*message));
}

/* One frame of a message that is there; only signals can come between. */
static int recv_frame(void *zmq, zmq_msg_t *frame)
{
	int len;

	do
		len = zmq_msg_recv(frame, zmq, ZMQ_DONTWAIT);
	while (len < 0 && errno == EINTR);
	return len;
}

/* Takes and drops what is left of a message. */
static void skip_frames(void *zmq)
{
	bool more = true;

	while (more) {
		zmq_msg_t frame;

		(void)zmq_msg_init(&frame);
		more = recv_frame(zmq, &frame) >= 0 && zmq_msg_more(&frame);
		(void)zmq_msg_close(&frame);
	}
}

static bool recv_peer(void *zmq, struct kx_wire_peer *peer)
{
	zmq_msg_t name;
	bool ok;

	(void)zmq_msg_init(&name);
	ok = recv_frame(zmq, &name) >= 0;
	if (ok) {
		peer->len = (uint8_t)zmq_msg_size(&name); /* ZeroMQ allows 255 bytes */
		memcpy(peer->name, zmq_msg_data(&name), peer->len);
		ok = zmq_msg_more(&name);
		if (!ok)
			errno = EAGAIN;
	}
	(void)zmq_msg_close(&name);
	return ok;
}

/* KX_EAGAIN when there is none yet. */
static kx_status take_message(struct kx_wire_socket *socket, struct kx_wire_message *ret, struct kx_error *error)
{
	struct kx_wire_message message = {0};
	zmq_msg_t *body;
	kx_status status = KX_OK;

	if (socket->server && !recv_peer(socket->zmq, &message.peer))
		return errno == EAGAIN ? KX_EAGAIN : fail(error, "receiving at", socket->endpoint);
	body = malloc(sizeof(*body));
	if (!body) {
		if (socket->server)
			skip_frames(socket->zmq);
		return kx_error_nomem(error);
	}
	(void)zmq_msg_init(body);
	message.owner = body;
	if (recv_frame(socket->zmq, body) < 0) {
		status = errno == EAGAIN ? KX_EAGAIN : fail(error, "receiving at", socket->endpoint);
	} else if (zmq_msg_more(body)) {
		/* Ours have one part. A stranger's message must not stop a server: it is as if it hadn't come. */
		skip_frames(socket->zmq);
		status = KX_EAGAIN;
	}
	if (status) {
		kx_wire_message_done(&message);
		return status;
	}
	message.bytes = zmq_msg_data(body);
	message.len = zmq_msg_size(body);
	*ret = message;
	return KX_OK;
}

kx_status kx_wire_recv(struct kx_wire_socket *socket, int timeout_ms, int wake_fd, struct kx_wire_message *ret,
		       struct kx_error *error)
{
	struct deadline deadline = deadline_after(timeout_ms);
	zmq_pollitem_t items[] = {
		{.socket = socket->zmq, .events = ZMQ_POLLIN},
		{.fd = wake_fd, .events = ZMQ_POLLIN},
	};

	if (kx_fault("wire.recv"))
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "receiving at %s: failed (injected)",
				    socket->endpoint);
	for (;;) {
		int left = deadline_left_ms(&deadline);
		int ready = zmq_poll(items, wake_fd >= 0 ? 2 : 1, left);

		if (ready < 0 && errno != EINTR)
			return fail(error, "receiving at", socket->endpoint);
		/* First, so that a stream of messages can't keep a thread from being told to end. */
		if (ready > 0 && wake_fd >= 0 && items[1].revents)
			return KX_ECANCELED;
		if (ready > 0 && items[0].revents) {
			kx_status status = take_message(socket, ret, error);

			if (status != KX_EAGAIN)
				return status;
		}
		if (left == 0)
			return KX_EAGAIN;
	}
}
