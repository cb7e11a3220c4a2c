#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/testkit.h"
#include "common/wire/wire.h"

#define WAIT_MS 60000 /* for what must happen; only a failing test waits that long */

struct fixture {
	struct kx_wire *wire;
	struct kx_wire_socket *sockets[4]; /* open ones */
	char folder[96];
	char ipc[112];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)snprintf(f->folder, sizeof(f->folder), "%s/kx-wire-XXXXXX", kx_test_tmp());
	assert_non_null(mkdtemp(f->folder));
	(void)snprintf(f->ipc, sizeof(f->ipc), "ipc://%s/socket", f->folder);
	assert_int_equal(kx_wire_new(&f->wire, NULL), KX_OK);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	kx_fault_clear();
	for (size_t i = 0; i < KX_ARRAY_LEN(f->sockets); i++)
		kx_wire_socket_close(f->sockets[i], 0);
	kx_wire_free(f->wire);
	assert_int_equal(kx_fs_remove_tree(f->folder, NULL), KX_OK);
	free(f);
	return 0;
}

static struct kx_wire_socket *keep(struct fixture *f, struct kx_wire_socket *socket)
{
	size_t i = 0;

	while (f->sockets[i])
		assert_true(++i < KX_ARRAY_LEN(f->sockets));
	return f->sockets[i] = socket;
}

static void shut(struct fixture *f, struct kx_wire_socket *socket, int linger_ms)
{
	for (size_t i = 0; i < KX_ARRAY_LEN(f->sockets); i++)
		if (f->sockets[i] == socket)
			f->sockets[i] = NULL;
	kx_wire_socket_close(socket, linger_ms);
}

static struct kx_wire_socket *server(struct fixture *f, const char *endpoint, int queue_max)
{
	struct kx_wire_socket *socket = NULL;
	struct kx_error error = {0};

	if (kx_wire_server(f->wire, endpoint, queue_max, &socket, &error))
		fail_msg("%s", error.message);
	return keep(f, socket);
}

static struct kx_wire_socket *client(struct fixture *f, const char *endpoint, int queue_max)
{
	struct kx_wire_socket *socket = NULL;
	struct kx_error error = {0};

	if (kx_wire_client(f->wire, endpoint, queue_max, &socket, &error))
		fail_msg("%s", error.message);
	return keep(f, socket);
}

static void say(struct kx_wire_socket *socket, const struct kx_wire_peer *peer, const char *text)
{
	struct kx_error error = {0};

	if (kx_wire_send(socket, peer, text, strlen(text), WAIT_MS, &error))
		fail_msg("%s", error.message);
}

/* Receives exactly this text; returns who sent it. */
static struct kx_wire_peer hear(struct kx_wire_socket *socket, const char *text)
{
	struct kx_wire_message message = {0};
	struct kx_wire_peer peer;

	assert_int_equal(kx_wire_recv(socket, WAIT_MS, -1, &message, NULL), KX_OK);
	assert_int_equal(message.len, strlen(text));
	assert_memory_equal(message.bytes, text, message.len);
	peer = message.peer;
	kx_wire_message_done(&message);
	assert_null(message.owner);
	return peer;
}

static void two_clients(struct fixture *f, const char *endpoint)
{
	struct kx_wire_socket *s = server(f, endpoint, 100);
	struct kx_wire_socket *a = client(f, kx_wire_endpoint(s), 100);
	struct kx_wire_socket *b = client(f, kx_wire_endpoint(s), 100);
	struct kx_wire_message none = {0};
	struct kx_wire_peer from_a, from_b;

	say(a, NULL, "I am a");
	from_a = hear(s, "I am a");
	say(b, NULL, "I am b");
	from_b = hear(s, "I am b");
	say(a, NULL, "");
	assert_memory_equal(hear(s, "").name, from_a.name, from_a.len);
	say(s, &from_b, "for b");
	say(s, &from_a, "for a");
	(void)hear(a, "for a");
	(void)hear(b, "for b");
	assert_int_equal(kx_wire_recv(a, 0, -1, &none, NULL), KX_EAGAIN);
	shut(f, a, 0);
	shut(f, b, 0);
	shut(f, s, 0);
}

static void talks_over_every_transport(void **state)
{
	struct fixture *f = *state;

	two_clients(f, "inproc://here");
	two_clients(f, f->ipc);
	two_clients(f, "tcp://127.0.0.1:*");
}

static void client_may_come_first(void **state)
{
	struct fixture *f = *state;
	struct kx_wire_socket *c = client(f, f->ipc, 10);
	struct kx_wire_socket *s;

	say(c, NULL, "early");
	s = server(f, f->ipc, 10);
	(void)hear(s, "early");
}

static void client_finds_a_server_that_came_back(void **state)
{
	struct fixture *f = *state;
	struct kx_wire_socket *c = client(f, f->ipc, 100);

	for (int life = 0; life < 2; life++) {
		struct fixture other = {0};
		struct kx_wire_message message = {0};
		struct kx_wire_socket *s;
		uint64_t deadline = kx_clock_mono_us() + WAIT_MS * 1000;

		assert_int_equal(kx_wire_new(&other.wire, NULL), KX_OK);
		s = server(&other, f->ipc, 10);
		/* What was under way to the first server may be lost with it. */
		do
			say(c, NULL, "are you there?");
		while (kx_wire_recv(s, 100, -1, &message, NULL) == KX_EAGAIN && kx_clock_mono_us() < deadline);
		assert_int_equal(message.len, 14);
		say(s, &message.peer, life ? "second" : "first");
		(void)hear(c, life ? "second" : "first");
		kx_wire_message_done(&message);
		shut(&other, s, 0);
		kx_wire_free(other.wire);
	}
}

static void lingers_when_asked(void **state)
{
	struct fixture *f = *state;
	struct kx_wire_socket *s = server(f, f->ipc, 10);
	struct kx_wire_socket *c = client(f, f->ipc, 10);

	say(c, NULL, "last words");
	shut(f, c, WAIT_MS);
	(void)hear(s, "last words");
}

static void refuses_bad_endpoints(void **state)
{
	struct fixture *f = *state;
	struct kx_wire_socket *s = server(f, "tcp://127.0.0.1:*", 1);
	struct kx_wire_socket *other = NULL;
	struct kx_error error = {0};

	assert_int_equal(kx_wire_server(f->wire, kx_wire_endpoint(s), 1, &other, &error), KX_EBUSY);
	assert_non_null(strstr(error.message, kx_wire_endpoint(s)));
	assert_int_equal(kx_wire_server(f->wire, "carrier://pigeon", 1, &other, &error), KX_EINVAL);
	assert_int_equal(kx_wire_client(f->wire, "nonsense", 1, &other, &error), KX_EINVAL);
	assert_int_equal(kx_wire_client(f->wire, f->ipc, 0, &other, &error), KX_EINVAL);
	assert_null(other);
}

/* A client that is not ours, and what happens to its connection. */
struct stranger {
	void *context;
	void *socket;
	void *events;
};

static void stranger_start(struct stranger *stranger, const char *endpoint)
{
	stranger->context = zmq_ctx_new();
	stranger->socket = zmq_socket(stranger->context, ZMQ_DEALER);
	assert_int_equal(zmq_socket_monitor(stranger->socket, "inproc://events", ZMQ_EVENT_DISCONNECTED), 0);
	stranger->events = zmq_socket(stranger->context, ZMQ_PAIR);
	assert_int_equal(zmq_connect(stranger->events, "inproc://events"), 0);
	assert_int_equal(zmq_connect(stranger->socket, endpoint), 0);
}

static void stranger_end(struct stranger *stranger)
{
	int linger = 0;

	assert_int_equal(zmq_setsockopt(stranger->socket, ZMQ_LINGER, &linger, sizeof(linger)), 0);
	assert_int_equal(zmq_close(stranger->socket), 0);
	assert_int_equal(zmq_close(stranger->events), 0);
	assert_int_equal(zmq_ctx_term(stranger->context), 0);
}

static void messages_have_a_maximum(void **state)
{
	struct fixture *f = *state;
	struct kx_wire_socket *s = server(f, f->ipc, 10);
	struct kx_wire_socket *c = client(f, f->ipc, 10);
	struct kx_wire_message message = {0};
	struct stranger stranger;
	zmq_pollitem_t closed;
	char *big = calloc(1, KX_WIRE_MESSAGE_MAX + 1);

	assert_non_null(big);
	assert_int_equal(kx_wire_send(c, NULL, big, KX_WIRE_MESSAGE_MAX + 1, 0, NULL), KX_ETOOBIG);
	assert_int_equal(kx_wire_send(c, NULL, big, KX_WIRE_MESSAGE_MAX, WAIT_MS, NULL), KX_OK);
	assert_int_equal(kx_wire_recv(s, WAIT_MS, -1, &message, NULL), KX_OK);
	assert_int_equal(message.len, KX_WIRE_MESSAGE_MAX);
	kx_wire_message_done(&message);

	stranger_start(&stranger, f->ipc);
	closed = (zmq_pollitem_t){.socket = stranger.events, .events = ZMQ_POLLIN};
	assert_int_equal(zmq_send(stranger.socket, big, KX_WIRE_MESSAGE_MAX + 1, 0), KX_WIRE_MESSAGE_MAX + 1);
	assert_int_equal(zmq_poll(&closed, 1, WAIT_MS), 1);
	assert_int_equal(kx_wire_recv(s, 0, -1, &message, NULL), KX_EAGAIN);
	say(c, NULL, "still here");
	(void)hear(s, "still here");
	stranger_end(&stranger);
	free(big);
}

static void messages_of_many_parts_are_dropped(void **state)
{
	struct fixture *f = *state;
	struct kx_wire_socket *s = server(f, f->ipc, 10);
	struct stranger stranger;

	stranger_start(&stranger, f->ipc);
	assert_int_equal(zmq_send(stranger.socket, "1", 1, ZMQ_SNDMORE), 1);
	assert_int_equal(zmq_send(stranger.socket, "2", 1, ZMQ_SNDMORE), 1);
	assert_int_equal(zmq_send(stranger.socket, "3", 1, 0), 1);
	assert_int_equal(zmq_send(stranger.socket, "whole", 5, 0), 5);
	(void)hear(s, "whole");
	stranger_end(&stranger);
}

/* Sends without waiting until it is refused; what could be sent. */
static int send_until_full(struct kx_wire_socket *socket, const struct kx_wire_peer *peer)
{
	static const char bytes[64 << 10];
	int sent = 0;
	kx_status status;

	/* A moment's wait each, for the I/O thread to move what a queue holds into the kernel's buffers. */
	while ((status = kx_wire_send(socket, peer, bytes, sizeof(bytes), 100, NULL)) == KX_OK)
		assert_true(++sent < 1000);
	assert_int_equal(status, KX_EAGAIN);
	return sent;
}

static void receive_all(struct kx_wire_socket *socket, int count)
{
	for (int i = 0; i < count; i++) {
		struct kx_wire_message message = {0};

		assert_int_equal(kx_wire_recv(socket, WAIT_MS, -1, &message, NULL), KX_OK);
		assert_int_equal(message.len, 64 << 10);
		kx_wire_message_done(&message);
	}
}

static void slow_receivers_are_felt(void **state)
{
	struct fixture *f = *state;
	const char *endpoints[] = {"inproc://slow", f->ipc};

	for (size_t i = 0; i < KX_ARRAY_LEN(endpoints); i++) {
		struct kx_wire_socket *s = server(f, endpoints[i], 2);
		struct kx_wire_socket *c = client(f, endpoints[i], 2);
		struct kx_wire_peer peer;
		int sent;

		say(c, NULL, "hello");
		peer = hear(s, "hello");
		sent = send_until_full(c, NULL);
		receive_all(s, sent);
		say(c, NULL, "room again");
		(void)hear(s, "room again");
		sent = send_until_full(s, &peer);
		receive_all(c, sent);
		say(s, &peer, "room again");
		(void)hear(c, "room again");
		shut(f, c, 0);
		shut(f, s, 0);
	}
}

static void a_peer_that_went_is_not_found(void **state)
{
	struct fixture *f = *state;
	struct kx_wire_socket *s = server(f, f->ipc, 10);
	struct kx_wire_socket *c = client(f, f->ipc, 10);
	struct kx_wire_peer unknown = {.len = 3, .name = "who"};
	uint64_t deadline = kx_clock_mono_us() + WAIT_MS * 1000;
	struct kx_error error = {0};
	struct kx_wire_peer peer;
	kx_status status;

	assert_int_equal(kx_wire_send(s, &unknown, "x", 1, WAIT_MS, &error), KX_ENOTFOUND);
	say(c, NULL, "hello");
	peer = hear(s, "hello");
	shut(f, c, 0);
	do
		status = kx_wire_send(s, &peer, "x", 1, 1, &error);
	while (status != KX_ENOTFOUND && kx_clock_mono_us() < deadline);
	assert_int_equal(status, KX_ENOTFOUND);
	assert_int_equal(error.class, KX_ERROR_RETRY);
}

static void a_peer_that_went_with_a_full_queue_is_not_found(void **state)
{
	struct fixture *f = *state;
	struct kx_wire_socket *s = server(f, f->ipc, 2);
	struct kx_wire_socket *c = client(f, f->ipc, 2);
	struct kx_wire_peer peer;
	kx_status status;

	say(c, NULL, "hello");
	peer = hear(s, "hello");
	(void)send_until_full(s, &peer);
	shut(f, c, 0);
	/* The I/O thread may have made room meanwhile, but not for ever. */
	do
		status = kx_wire_send(s, &peer, "x", 1, WAIT_MS, NULL);
	while (status == KX_OK);
	assert_int_equal(status, KX_ENOTFOUND);
}

static void wakes_for_a_descriptor(void **state)
{
	struct fixture *f = *state;
	struct kx_wire_socket *s = server(f, f->ipc, 10);
	struct kx_wire_socket *c = client(f, f->ipc, 10);
	struct kx_wire_message message = {0};
	int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int ends[2];
	uint64_t count;

	assert_true(event >= 0);
	assert_int_equal(eventfd_write(event, 7), 0);
	say(c, NULL, "hello");
	/* First the descriptor, as often as it is readable; then the message. */
	assert_int_equal(kx_wire_recv(s, -1, event, &message, NULL), KX_ECANCELED);
	assert_int_equal(kx_wire_recv(s, -1, event, &message, NULL), KX_ECANCELED);
	assert_int_equal(read(event, &count, sizeof(count)), sizeof(count));
	assert_int_equal(count, 7);
	assert_int_equal(kx_wire_recv(s, -1, event, &message, NULL), KX_OK);
	kx_wire_message_done(&message);
	assert_int_equal(kx_wire_recv(s, 1, event, &message, NULL), KX_EAGAIN);
	(void)close(event);

	assert_int_equal(pipe(ends), 0);
	(void)close(ends[1]);
	assert_int_equal(kx_wire_recv(s, -1, ends[0], &message, NULL), KX_ECANCELED);
	(void)close(ends[0]);
}

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
	(void)number;
	signals++;
}

static void survives_signals(void **state)
{
	struct fixture *f = *state;
	struct kx_wire_socket *s = server(f, f->ipc, 2);
	struct kx_wire_socket *c = client(f, f->ipc, 2);
	struct sigaction action = {.sa_handler = count_signal}, before;
	struct itimerval every = {{0, 500}, {0, 500}}, never = {0};
	struct kx_wire_message message = {0};
	uint64_t start = kx_clock_mono_us();
	struct kx_wire_peer peer;

	assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
	assert_int_equal(kx_wire_recv(s, 50, -1, &message, NULL), KX_EAGAIN);
	assert_true(kx_clock_mono_us() - start >= 50000);
	assert_true(signals > 0);
	for (int i = 0; i < 500; i++) {
		say(c, NULL, "hello");
		peer = hear(s, "hello");
		say(s, &peer, "back");
		(void)hear(c, "back");
	}
	(void)send_until_full(c, NULL);
	assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
	assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
}

static void injected_failures_are_reported(void **state)
{
	struct fixture *f = *state;
	struct kx_wire_socket *s = server(f, f->ipc, 2);
	struct kx_wire_socket *c = client(f, f->ipc, 2);
	struct kx_wire_message message = {0};

	kx_fault_arm("wire.send", 1);
	assert_int_equal(kx_wire_send(c, NULL, "x", 1, 0, NULL), KX_EIO);
	kx_fault_arm("wire.recv", 1);
	assert_int_equal(kx_wire_recv(s, 0, -1, &message, NULL), KX_EIO);
	say(c, NULL, "goes on");
	(void)hear(s, "goes on");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(talks_over_every_transport, setup, teardown),
		cmocka_unit_test_setup_teardown(client_may_come_first, setup, teardown),
		cmocka_unit_test_setup_teardown(client_finds_a_server_that_came_back, setup, teardown),
		cmocka_unit_test_setup_teardown(lingers_when_asked, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_bad_endpoints, setup, teardown),
		cmocka_unit_test_setup_teardown(messages_have_a_maximum, setup, teardown),
		cmocka_unit_test_setup_teardown(messages_of_many_parts_are_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(slow_receivers_are_felt, setup, teardown),
		cmocka_unit_test_setup_teardown(a_peer_that_went_is_not_found, setup, teardown),
		cmocka_unit_test_setup_teardown(a_peer_that_went_with_a_full_queue_is_not_found, setup, teardown),
		cmocka_unit_test_setup_teardown(wakes_for_a_descriptor, setup, teardown),
		cmocka_unit_test_setup_teardown(survives_signals, setup, teardown),
		cmocka_unit_test_setup_teardown(injected_failures_are_reported, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
