/* The server over real sockets: keep-alive, limits, slow clients, a full queue, stopping. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "gateway/http/server.h"

#define WAIT_MS 60000 /* for what must come; nothing waits that long */

/* Says what it was asked; /wait waits until gate is open. */
struct app {
	struct kx_http_server *server;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool open;
	unsigned waiting;
	unsigned finished;
	unsigned finished_without;
	unsigned in_the_way; /* of the thread that has the sockets */
};

/* As a crowded machine does. */
static void hold_up_the_sockets(struct app *app)
{
	pthread_mutex_lock(&app->lock);
	app->in_the_way++;
	pthread_cond_broadcast(&app->changed);
	pthread_mutex_unlock(&app->lock);
	poll(NULL, 0, 1000); /* this is what late means */
}

static bool quick(void *ctx, struct kx_http_request *request, struct kx_http_response *response)
{
	request->label = 7;
	if (strcmp(request->target.segments[0], "late") == 0)
		hold_up_the_sockets(ctx);
	if (strcmp(request->target.segments[0], "quick") != 0)
		return false;
	response->code = 200;
	response->type = "text/plain";
	return kx_buf_printf(&response->body, "quick") == KX_OK;
}

static void handle(void *ctx, struct kx_http_request *request, struct kx_http_response *response)
{
	struct app *app = ctx;

	pthread_mutex_lock(&app->lock);
	if (strcmp(request->target.segments[0], "wait") == 0) {
		app->waiting++;
		pthread_cond_broadcast(&app->changed);
		while (!app->open)
			pthread_cond_wait(&app->changed, &app->lock);
		app->waiting--;
	}
	pthread_mutex_unlock(&app->lock);
	response->code = 200;
	response->type = "text/plain";
	kx_http_response_header(response, "X-Label", "%u", request->label);
	assert_int_equal(kx_buf_printf(&response->body, "%s %zu", request->target.segments[0], request->body_len), KX_OK);
}

static void refuse(void *ctx, unsigned code, const char *detail, struct kx_http_response *response)
{
	(void)ctx;
	response->code = code;
	response->type = "text/plain";
	assert_int_equal(kx_buf_printf(&response->body, "%s", detail), KX_OK);
}

static void finished(void *ctx, unsigned label, unsigned code, uint64_t took_us)
{
	struct app *app = ctx;

	(void)took_us;
	assert_true(label == 7 || label == 0); /* 0: refused before anybody looked at its path */
	pthread_mutex_lock(&app->lock);
	app->finished++;
	app->finished_without += code == 0;
	pthread_cond_broadcast(&app->changed);
	pthread_mutex_unlock(&app->lock);
}

static void open_gate(void *ctx)
{
	struct app *app = ctx;

	pthread_mutex_lock(&app->lock);
	app->open = true;
	pthread_cond_broadcast(&app->changed);
	pthread_mutex_unlock(&app->lock);
}

static void wait_for(struct app *app, unsigned *counter, unsigned value)
{
	struct timespec until = kx_clock_deadline(WAIT_MS);

	pthread_mutex_lock(&app->lock);
	while (*counter < value)
		assert_int_equal(pthread_cond_timedwait(&app->changed, &app->lock, &until), 0);
	pthread_mutex_unlock(&app->lock);
}

static struct kx_http_options usual(struct app *app)
{
	return (struct kx_http_options){
		.listen = "127.0.0.1:0",
		.threads = 2,
		.queue_max = 4,
		.connections_max = 64,
		.head_max = 16384,
		.body_max = 1000,
		.bodies_max = 4000,
		.request_ms = WAIT_MS,
		.receive_ms = WAIT_MS,
		.handler = {app, quick, handle, refuse, finished},
	};
}

static void start(struct app *app, const struct kx_http_options *options)
{
	struct kx_error error = {0};

	*app = (struct app){.server = NULL};
	pthread_mutex_init(&app->lock, NULL);
	assert_int_equal(kx_cond_init(&app->changed), KX_OK);
	if (kx_http_start(options, &app->server, &error) != KX_OK)
		fail_msg("%s", error.message);
}

static void stop(struct app *app)
{
	kx_http_stop(app->server, 1000, open_gate, app);
	pthread_cond_destroy(&app->changed);
	pthread_mutex_destroy(&app->lock);
}

static int dial(const struct app *app)
{
	uint64_t port;
	const char *colon = strrchr(kx_http_address(app->server), ':');
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(kx_parse_u64(colon + 1, &port), KX_OK);
	to.sin_port = htons((uint16_t)port);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	size_t len = strlen(text);

	assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* One response, to the end of its body and no byte more: another may stand behind it. *ret_code 0: the connection ended
 * first. */
static char *hear(int fd, unsigned *ret_code)
{
	char *text = calloc(1, 65536);
	size_t len = 0;

	*ret_code = 0;
	while (text != NULL && len < 65535) {
		struct pollfd ready = {.fd = fd, .events = POLLIN};
		const char *body = strstr(text, "\r\n\r\n");
		const char *length = strstr(text, "Content-Length: ");

		if (body != NULL && length != NULL && strlen(body + 4) >= strtoul(length + 16, NULL, 10)) {
			*ret_code = (unsigned)strtoul(text + 9, NULL, 10);
			return text;
		}
		assert_int_equal(poll(&ready, 1, WAIT_MS), 1);
		ssize_t got = recv(fd, text + len, 1, 0);
		if (got <= 0)
			return text;
		len += (size_t)got;
	}
	return text;
}

static void expect(int fd, unsigned code, const char *words)
{
	unsigned got;
	char *text = hear(fd, &got);

	if (got != code || strstr(text, words) == NULL)
		fail_msg("wanted %u with %s, got %u: %s", code, words, got, text);
	free(text);
}

static void test_keeps_a_connection(void **state)
{
	struct app app;
	struct kx_http_options options = usual(&app);

	(void)state;
	start(&app, &options);
	int fd = dial(&app);
	say(fd, "GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n");
	expect(fd, 200, "quick");
	say(fd, "GET /a%2Fb HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n");
	expect(fd, 200, "a/b 0");
	say(fd, "POST /c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc");
	expect(fd, 200, "c 3");
	say(fd, "POST /d HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
	expect(fd, 200, "d 3");
	say(fd, "GET /e HTTP/1.1\r\nHost: localhost\r\n\r\nGET /f HTTP/1.1\r\nHost: localhost\r\n\r\n");
	expect(fd, 200, "e 0");
	expect(fd, 200, "f 0");
	close(fd);
	stop(&app);
	assert_int_equal(app.finished, 6);
	assert_int_equal(app.finished_without, 0);
}

static void test_refuses_what_is_too_long(void **state)
{
	struct app app;
	struct kx_http_options options = usual(&app);
	char body[2001] = {0};

	(void)state;
	memset(body, 'x', 2000);
	start(&app, &options);
	int fd = dial(&app);
	say(fd, "POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n");
	say(fd, body);
	expect(fd, 413, "longer"); /* and the connection goes on */
	say(fd, "POST /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n");
	say(fd, body);
	say(fd, "\r\n0\r\n\r\n");
	expect(fd, 413, "longer");
	say(fd, "POST /a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n");
	expect(fd, 413, "longer");
	close(fd);
	struct kx_http_now now;
	wait_for(&app, &app.finished, 3);
	kx_http_now(app.server, &now);
	assert_int_equal(now.body_bytes, 0);
	fd = dial(&app);
	say(fd, "GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
	for (int i = 0; i < 20; i++)
		(void)!send(fd, body, 2000, MSG_NOSIGNAL);
	unsigned code;
	free(hear(fd, &code));
	assert_true(code == 431 || code == 413 || code == 0); /* 0: reset, as we were still writing */
	close(fd);
	stop(&app);
}

static void test_bodies_have_a_bound_together(void **state)
{
	struct app app;
	struct kx_http_options options = usual(&app);

	(void)state;
	options.bodies_max = 50;
	start(&app, &options);
	int fd = dial(&app);
	say(fd, "POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 51\r\n\r\n"
		"123456789012345678901234567890123456789012345678901");
	expect(fd, 503, "bytes of requests");
	close(fd);
	stop(&app);
}

static void test_refuses_targets_and_hosts(void **state)
{
	struct app app;
	struct kx_http_options options = usual(&app);

	(void)state;
	start(&app, &options);
	int fd = dial(&app);
	say(fd, "GET /a%00 HTTP/1.1\r\nHost: localhost\r\n\r\n");
	expect(fd, 400, "escape");
	say(fd, "GET /a HTTP/1.1\r\nHost: evil.example\r\n\r\n");
	expect(fd, 421, "Host");
	say(fd, "GET /a HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n");
	expect(fd, 421, "Host");
	say(fd, "GET /a HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n");
	expect(fd, 421, "Host");
	close(fd);
	stop(&app);
}

static void test_a_full_queue_refuses_at_once(void **state)
{
	struct app app;
	struct kx_http_options options = usual(&app);
	int busy[2], waits, refused;

	(void)state;
	options.queue_max = 1;
	start(&app, &options);
	for (int i = 0; i < 2; i++) {
		busy[i] = dial(&app);
		say(busy[i], "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
	}
	wait_for(&app, &app.waiting, 2);
	waits = dial(&app);
	say(waits, "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
	for (struct kx_http_now now = {0}; now.queued < 1;)
		kx_http_now(app.server, &now);
	refused = dial(&app);
	say(refused, "GET /more HTTP/1.1\r\nHost: localhost\r\n\r\n");
	expect(refused, 503, "busy");
	say(refused, "GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n");
	expect(refused, 200, "quick"); /* what takes no time is answered nevertheless */
	open_gate(&app);
	expect(busy[0], 200, "wait");
	expect(busy[1], 200, "wait");
	expect(waits, 200, "later");
	for (int i = 0; i < 2; i++)
		close(busy[i]);
	close(waits);
	close(refused);
	stop(&app);
}

/* A byte now and then keeps no connection. */
static void test_slow_clients_are_cut(void **state)
{
	struct app app;
	struct kx_http_options options = usual(&app);

	(void)state;
	options.receive_ms = 300;
	start(&app, &options);
	int silent = dial(&app), slow = dial(&app), body = dial(&app);
	say(slow, "GET /a HTTP/1.1\r\nX: ");
	say(body, "POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nabc");
	uint64_t begun = kx_clock_mono_us();
	for (bool cut = false; !cut;) {
		struct pollfd ready = {.fd = slow, .events = POLLIN};

		assert_true(kx_clock_mono_us() - begun < WAIT_MS * 1000u);
		(void)!send(slow, "x", 1, MSG_NOSIGNAL);
		(void)!send(body, "x", 1, MSG_NOSIGNAL);
		cut = poll(&ready, 1, 50) == 1;
	}
	unsigned code;
	free(hear(slow, &code));
	assert_int_equal(code, 0);
	free(hear(silent, &code));
	assert_int_equal(code, 0);
	free(hear(body, &code));
	assert_int_equal(code, 0);
	close(silent);
	close(slow);
	close(body);
	stop(&app);
}

struct pushing {
	struct app *app;
	unsigned good;
};

static void *push(void *arg)
{
	struct pushing *pushing = arg;
	int fd = dial(pushing->app);

	for (int i = 0; i < 50; i++) {
		say(fd, "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nabcd");
		unsigned code;
		char *text = hear(fd, &code);
		pushing->good += code == 200 && strstr(text, "x 4") != NULL;
		free(text);
	}
	close(fd);
	return NULL;
}

static void test_many_at_a_time(void **state)
{
	struct app app;
	struct kx_http_options options = usual(&app);
	struct pushing pushing[8];
	pthread_t threads[8];

	(void)state;
	options.queue_max = 8;
	start(&app, &options);
	for (int i = 0; i < 8; i++) {
		pushing[i] = (struct pushing){.app = &app};
		assert_int_equal(pthread_create(&threads[i], NULL, push, &pushing[i]), 0);
	}
	for (int i = 0; i < 8; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(pushing[i].good, 50);
	}
	stop(&app);
	assert_int_equal(app.finished, 400);
}

static void test_stop_finishes_what_is_in_hand(void **state)
{
	struct app app;
	struct kx_http_options options = usual(&app);

	(void)state;
	options.threads = 1;
	start(&app, &options);
	int works = dial(&app), waits = dial(&app), idle = dial(&app);
	say(works, "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
	wait_for(&app, &app.waiting, 1);
	say(waits, "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
	for (struct kx_http_now now = {0}; now.queued < 1;)
		kx_http_now(app.server, &now);
	uint64_t begun = kx_clock_mono_us();
	kx_http_stop(app.server, 200, open_gate, &app); /* the grace time goes by, then the gate opens */
	assert_true(kx_clock_mono_us() - begun < WAIT_MS * 1000u / 2);
	expect(works, 200, "Connection: close");
	expect(waits, 503, "stopping");
	unsigned code;
	free(hear(idle, &code));
	assert_int_equal(code, 0);
	close(works);
	close(waits);
	close(idle);
	pthread_cond_destroy(&app.changed);
	pthread_mutex_destroy(&app.lock);
}

/* What handlers answered in the end goes out, however late the thread of the sockets is given a CPU. */
static void test_stop_waits_for_its_own_thread(void **state)
{
	struct app app;
	struct kx_http_options options = usual(&app);

	(void)state;
	start(&app, &options);
	int works = dial(&app), late = dial(&app);
	say(works, "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
	wait_for(&app, &app.waiting, 1);
	say(late, "GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n");
	wait_for(&app, &app.in_the_way, 1);
	kx_http_stop(app.server, 0, open_gate, &app);
	expect(works, 200, "Connection: close");
	close(works);
	close(late);
	pthread_cond_destroy(&app.changed);
	pthread_mutex_destroy(&app.lock);
}

static void test_a_client_that_leaves(void **state)
{
	struct app app;
	struct kx_http_options options = usual(&app);

	(void)state;
	start(&app, &options);
	int fd = dial(&app);
	say(fd, "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
	wait_for(&app, &app.waiting, 1);
	close(fd);
	open_gate(&app);
	wait_for(&app, &app.finished, 1);
	stop(&app);
}

static void test_addresses(void **state)
{
	static const char *const bad[] = {"", "127.0.0.1", "127.0.0.1:", ":80", "example.org:80", "127.0.0.1:99999", "[::1:80",
					  "::1:80", "0.0.0.0:0", "[::]:0"};
	struct app app = {0};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(bad); i++) {
		struct kx_http_options options = usual(&app);
		struct kx_http_server *server = NULL;
		struct kx_error error = {0};

		options.listen = bad[i];
		if (kx_http_start(&options, &server, &error) != KX_EINVAL)
			fail_msg("%s: %s", bad[i], error.message);
	}
	struct kx_http_options options = usual(&app);
	start(&app, &options);
	struct kx_http_options again = usual(&app);
	struct kx_http_server *second = NULL;
	again.listen = kx_http_address(app.server);
	assert_int_equal(kx_http_start(&again, &second, NULL), KX_EBUSY);
	stop(&app);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keeps_a_connection),
		cmocka_unit_test(test_refuses_what_is_too_long),
		cmocka_unit_test(test_bodies_have_a_bound_together),
		cmocka_unit_test(test_refuses_targets_and_hosts),
		cmocka_unit_test(test_a_full_queue_refuses_at_once),
		cmocka_unit_test(test_slow_clients_are_cut),
		cmocka_unit_test(test_many_at_a_time),
		cmocka_unit_test(test_stop_finishes_what_is_in_hand),
		cmocka_unit_test(test_stop_waits_for_its_own_thread),
		cmocka_unit_test(test_a_client_that_leaves),
		cmocka_unit_test(test_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
