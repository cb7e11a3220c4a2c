/* Streams against a server of a few lines in this process, which is as it is told to be. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/fetch/fetch.h"
#include "common/fetch/stream.h"

/* ---- the server ---- */

struct server {
	int fd;
	char *url;
	uint64_t size;
	bool no_ranges;
	bool silent;    /* takes connections and says nothing */
	char etag[32];
	pthread_t threads[8]; /* as many connections are served at once */
	atomic_uint requests;
};

static uint8_t byte_at(uint64_t offset)
{
	return (uint8_t)((offset * 2654435761u) >> 13);
}

static bool send_all(int fd, const void *bytes, size_t len)
{
	for (const char *at = bytes; len > 0;) {
		ssize_t sent = send(fd, at, len, MSG_NOSIGNAL);
		if (sent <= 0)
			return false;
		at += sent;
		len -= (size_t)sent;
	}
	return true;
}

static bool send_bytes(int fd, uint64_t start, uint64_t end)
{
	uint8_t chunk[16384];
	while (start < end) {
		size_t len = end - start < sizeof(chunk) ? (size_t)(end - start) : sizeof(chunk);
		for (size_t i = 0; i < len; i++)
			chunk[i] = byte_at(start + i);
		if (!send_all(fd, chunk, len))
			return false;
		start += len;
	}
	return true;
}

/* "" when the client has gone. */
static void read_request(int fd, char *out, size_t out_len)
{
	size_t len = 0;
	out[0] = '\0';
	while (!strstr(out, "\r\n\r\n") && len + 1 < out_len) {
		ssize_t got = recv(fd, out + len, out_len - len - 1, 0);
		if (got <= 0) {
			out[0] = '\0';
			return;
		}
		len += (size_t)got;
		out[len] = '\0';
	}
}

static bool respond(struct server *server, int fd)
{
	char request[8192], head[512];
	read_request(fd, request, sizeof(request));
	if (!request[0])
		return false;
	atomic_fetch_add(&server->requests, 1);
	uint64_t start = 0, last = server->size - 1;
	const char *range = strcasestr(request, "\r\nrange: bytes=");
	bool partial = range && !server->no_ranges &&
		       sscanf(range + 15, "%" SCNu64 "-%" SCNu64, &start, &last) >= 1;
	if (last >= server->size)
		last = server->size - 1;
	int len = snprintf(head, sizeof(head), "HTTP/1.1 %s\r\nETag: %s\r\nContent-Length: %" PRIu64 "\r\n",
			   partial ? "206 Partial Content" : "200 OK", server->etag, last + 1 - start);
	if (partial)
		len += snprintf(head + len, sizeof(head) - (size_t)len, "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%"
				PRIu64 "\r\n", start, last, server->size);
	len += snprintf(head + len, sizeof(head) - (size_t)len, "\r\n");
	bool only_head = strncmp(request, "HEAD", 4) == 0;
	return send_all(fd, head, (size_t)len) && (only_head || send_bytes(fd, start, last + 1));
}

/* Until the socket is shut. */
static void *serve(void *arg)
{
	struct server *server = arg;
	for (int fd; (fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0;) {
		char byte;
		int on = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		while (server->silent ? recv(fd, &byte, 1, 0) > 0 : respond(server, fd))
			;
		close(fd);
	}
	return NULL;
}

static void start_server(struct server *server)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(at);
	if (!server->etag[0])
		strcpy(server->etag, "\"1\"");
	server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(server->fd >= 0);
	assert_int_equal(bind(server->fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(server->fd, 16), 0);
	assert_int_equal(getsockname(server->fd, (struct sockaddr *)&at, &len), 0);
	server->url = kx_strf("http://127.0.0.1:%u/a.mp4", ntohs(at.sin_port));
	assert_non_null(server->url);
	for (size_t i = 0; i < KX_ARRAY_LEN(server->threads); i++)
		assert_int_equal(kx_thread_start(&server->threads[i], "server", serve, server, NULL), KX_OK);
}

/* After the fetcher has let go of its connections. */
static void stop_server(struct server *server)
{
	shutdown(server->fd, SHUT_RDWR);
	for (size_t i = 0; i < KX_ARRAY_LEN(server->threads); i++)
		pthread_join(server->threads[i], NULL);
	close(server->fd);
	free(server->url);
}

/* ---- the reader ---- */

struct reader {
	struct kx_fetch *fetch;
	struct kx_fetch_stream *stream;
	int fd;
	struct kx_stream_answer head;
	uint8_t bytes[KX_STREAM_CHUNK];
};

static void open_reader(struct reader *reader, const char *url, const struct kx_fetch_options *options,
			const uint8_t *expected)
{
	assert_int_equal(kx_fetch_new(options, &reader->fetch, NULL), KX_OK);
	assert_int_equal(kx_fetch_open(reader->fetch, url, expected, &reader->stream, &reader->fd, NULL), KX_OK);
}

static void close_reader(struct reader *reader)
{
	close(reader->fd);
	kx_fetch_stream_free(reader->stream);
	kx_fetch_free(reader->fetch);
}

static void put(struct reader *reader, uint32_t verb, uint64_t offset, uint32_t len)
{
	const struct kx_stream_ask ask = {.verb = verb, .len = len, .offset = offset};
	assert_int_equal(send(reader->fd, &ask, sizeof(ask), MSG_NOSIGNAL), sizeof(ask));
}

/* False at the end of the stream. */
static bool get(struct reader *reader)
{
	struct {
		struct kx_stream_answer head;
		uint8_t bytes[KX_STREAM_CHUNK];
	} answer;
	ssize_t got = recv(reader->fd, &answer, sizeof(answer), 0);
	if (got == 0 || (got < 0 && errno == ECONNRESET))
		return false;
	assert_true(got >= (ssize_t)sizeof(answer.head));
	assert_int_equal(got, sizeof(answer.head) + answer.head.len);
	reader->head = answer.head;
	memcpy(reader->bytes, answer.bytes, answer.head.len);
	return true;
}

static bool ask(struct reader *reader, uint64_t offset, uint32_t len)
{
	put(reader, KX_STREAM_READ, offset, len);
	return get(reader);
}

static void read_well(struct reader *reader, uint64_t offset, uint32_t len)
{
	assert_true(ask(reader, offset, len));
	assert_int_equal(reader->head.status, KX_OK);
	assert_in_range(reader->head.len, 1, len);
	for (uint32_t i = 0; i < reader->head.len; i++)
		assert_int_equal(reader->bytes[i], byte_at(offset + i));
}

static void read_all(struct reader *reader, uint64_t size)
{
	uint64_t at = 0;
	while (at < size) {
		read_well(reader, at, 40000);
		at += reader->head.len;
	}
	assert_int_equal(at, size);
	assert_true(ask(reader, size, 1));
	assert_int_equal(reader->head.status, KX_OK);
	assert_int_equal(reader->head.len, 0);
}

static void expect_trouble(struct reader *reader, enum kx_reason reason, bool retriable, const char *word)
{
	assert_int_not_equal(reader->head.status, KX_OK);
	assert_int_equal(reader->head.reason, reason);
	assert_int_equal(reader->head.retriable, retriable);
	assert_in_range(reader->head.len, 1, 511);
	reader->bytes[reader->head.len] = '\0';
	if (!strstr((char *)reader->bytes, word))
		fail_msg("%s: no \"%s\"", (char *)reader->bytes, word);
	assert_false(get(reader)); /* and that was all */
}

/* ---- tests ---- */

static void bytes_come_as_they_are(void **state)
{
	(void)state;
	struct server server = {.size = 9876543};
	struct reader reader = {0};
	start_server(&server);
	open_reader(&reader, server.url, &(struct kx_fetch_options){0}, NULL);
	put(&reader, KX_STREAM_SIZE, 0, 0);
	assert_true(get(&reader));
	assert_int_equal(reader.head.size, server.size);
	read_all(&reader, server.size);
	assert_in_range(atomic_load(&server.requests), 4, 8);
	unsigned seed = 7;
	for (int i = 0; i < 60; i++)
		read_well(&reader, (uint64_t)rand_r(&seed) % server.size, 1 + (uint32_t)rand_r(&seed) % KX_STREAM_CHUNK);
	read_all(&reader, server.size);
	close_reader(&reader);
	stop_server(&server);
}

static void without_ranges_they_come_too(void **state)
{
	(void)state;
	struct server server = {.size = 3000000, .no_ranges = true};
	struct reader reader = {0};
	start_server(&server);
	open_reader(&reader, server.url, &(struct kx_fetch_options){0}, NULL);
	read_well(&reader, server.size - 5, 100);
	assert_int_equal(reader.head.len, 5);
	read_all(&reader, server.size);
	assert_int_equal(atomic_load(&server.requests), 1);
	close_reader(&reader);
	stop_server(&server);
}

static void a_whole_object_has_a_limit(void **state)
{
	(void)state;
	struct server server = {.size = 3000000, .no_ranges = true};
	struct reader reader = {0};
	start_server(&server);
	open_reader(&reader, server.url, &(struct kx_fetch_options){.spool_bytes_max = 2999999}, NULL);
	assert_true(ask(&reader, 0, 100));
	expect_trouble(&reader, KX_REASON_TOO_LARGE, false, "no ranges");
	close_reader(&reader);
	open_reader(&reader, server.url, &(struct kx_fetch_options){.spool_dir = "/nowhere"}, NULL);
	assert_true(ask(&reader, 0, 100));
	expect_trouble(&reader, KX_REASON_READ_FAILED, true, "/nowhere");
	close_reader(&reader);
	stop_server(&server);
}

/* A demuxer that jumps to and fro does not make us fetch for ever. */
static void bytes_are_capped(void **state)
{
	(void)state;
	struct server server = {.size = 16 << 20};
	struct reader reader = {0};
	unsigned count = 0;
	start_server(&server);
	open_reader(&reader, server.url, &(struct kx_fetch_options){0}, NULL);
	unsigned seed = 1;
	for (count = 0; count < 20000; count++) {
		assert_true(ask(&reader, (uint64_t)rand_r(&seed) % server.size, 1000));
		if (reader.head.status != KX_OK)
			break;
	}
	assert_in_range(count, 100, 19999);
	expect_trouble(&reader, KX_REASON_READ_FAILED, false, "times its size");
	close_reader(&reader);
	stop_server(&server);
}

static void only_what_was_planned_is_read(void **state)
{
	(void)state;
	struct server server = {.size = 100000};
	struct reader reader = {0};
	struct kx_fetch_info info = {0}, same = {0};
	enum kx_reason reason = KX_REASON_NONE;
	start_server(&server);
	open_reader(&reader, server.url, &(struct kx_fetch_options){0}, NULL);
	assert_int_equal(kx_fetch_stream_wait(reader.stream, &info, &reason, NULL), KX_OK);
	assert_int_equal(info.size, server.size);
	assert_true(info.versioned);
	close_reader(&reader);

	open_reader(&reader, server.url, &(struct kx_fetch_options){0}, info.fingerprint);
	read_all(&reader, server.size);
	close_reader(&reader);

	info.fingerprint[3] ^= 1;
	open_reader(&reader, server.url, &(struct kx_fetch_options){0}, info.fingerprint);
	assert_int_equal(kx_fetch_stream_wait(reader.stream, &same, &reason, NULL), KX_EINVAL);
	assert_int_equal(reason, KX_REASON_CHANGED);
	assert_true(ask(&reader, 0, 100));
	expect_trouble(&reader, KX_REASON_CHANGED, false, "index again");
	info.fingerprint[3] ^= 1;
	assert_int_equal(kx_fetch_stat(reader.fetch, server.url, &same, &reason, NULL), KX_OK);
	assert_memory_equal(same.fingerprint, info.fingerprint, sizeof(info.fingerprint));
	close_reader(&reader);
	stop_server(&server);
}

/* The process at the other end may have been taken over. */
static void a_reader_without_manners_is_left(void **state)
{
	(void)state;
	struct server server = {.size = 1000000};
	start_server(&server);
	static const struct kx_stream_ask bad[] = {
		{.verb = 0}, {.verb = 3, .len = 1}, {.verb = KX_STREAM_READ, .len = 0},
		{.verb = KX_STREAM_READ, .len = KX_STREAM_CHUNK + 1}, {.verb = KX_STREAM_SIZE, .len = UINT32_MAX},
	};
	for (size_t i = 0; i < KX_ARRAY_LEN(bad); i++) {
		struct reader reader = {0};
		open_reader(&reader, server.url, &(struct kx_fetch_options){0}, NULL);
		put(&reader, bad[i].verb, 0, bad[i].len);
		assert_false(get(&reader));
		close_reader(&reader);
	}
	struct reader reader = {0};
	open_reader(&reader, server.url, &(struct kx_fetch_options){0}, NULL);
	assert_int_equal(send(reader.fd, "short", 5, MSG_NOSIGNAL), 5);
	assert_false(get(&reader));
	close_reader(&reader);
	/* An offset beyond all is the end. */
	open_reader(&reader, server.url, &(struct kx_fetch_options){0}, NULL);
	assert_true(ask(&reader, UINT64_MAX, 100));
	assert_int_equal(reader.head.status, KX_OK);
	assert_int_equal(reader.head.len, 0);
	close_reader(&reader);
	stop_server(&server);
}

static void two_questions_at_once_are_one_too_many(void **state)
{
	(void)state;
	struct server server = {.size = 1, .silent = true};
	struct reader reader = {0};
	start_server(&server);
	open_reader(&reader, server.url, &(struct kx_fetch_options){0}, NULL);
	put(&reader, KX_STREAM_READ, 0, 1);
	put(&reader, KX_STREAM_READ, 0, 1);
	assert_false(get(&reader));
	close_reader(&reader);
	stop_server(&server);
}

static void a_silent_server_has_its_time(void **state)
{
	(void)state;
	struct server server = {.size = 1, .silent = true};
	struct reader reader = {0};
	start_server(&server);
	open_reader(&reader, server.url, &(struct kx_fetch_options){.timeout_ms = 1000, .backoff_ms = 1}, NULL);
	assert_true(ask(&reader, 0, 1));
	/* Two tries of a second, which is about what its reader has waited; the rest is the machine's. */
	assert_in_range(kx_fetch_stream_waited_us(reader.stream), 1000000, 60000000);
	expect_trouble(&reader, KX_REASON_READ_FAILED, true, "time limit");
	close_reader(&reader);
	stop_server(&server);
}

static void what_blocks_can_be_stopped(void **state)
{
	(void)state;
	struct server server = {.size = 1, .silent = true};
	struct reader reader = {0};
	struct kx_stop stop;
	struct kx_fetch_info info;
	enum kx_reason reason;
	start_server(&server);
	assert_int_equal(kx_stop_init(&stop, NULL), KX_OK);
	open_reader(&reader, server.url, &(struct kx_fetch_options){.stop = &stop}, NULL);
	kx_stop_ask(&stop);
	assert_int_equal(kx_fetch_stream_wait(reader.stream, &info, &reason, NULL), KX_ECANCELED);
	assert_int_equal(kx_fetch_stat(reader.fetch, server.url, &info, &reason, NULL), KX_ECANCELED);
	/* The fetcher goes, and its streams with it, though their readers have not. */
	kx_fetch_free(reader.fetch);
	assert_false(get(&reader));
	close(reader.fd);
	kx_fetch_stream_free(reader.stream);
	kx_stop_done(&stop);
	stop_server(&server);
}

static void many_read_at_once(void **state)
{
	(void)state;
	enum { COUNT = 8 };
	struct server server = {.size = 700000, .no_ranges = true};
	struct kx_fetch *fetch = NULL;
	struct reader *readers = calloc(COUNT, sizeof(*readers));
	assert_non_null(readers);
	start_server(&server);
	assert_int_equal(kx_fetch_new(&(struct kx_fetch_options){0}, &fetch, NULL), KX_OK);
	for (size_t i = 0; i < COUNT; i++)
		assert_int_equal(kx_fetch_open(fetch, server.url, NULL, &readers[i].stream, &readers[i].fd, NULL),
				 KX_OK);
	for (size_t i = 0; i < COUNT; i++) {
		read_well(&readers[i], 123456, 1000);
		close(readers[i].fd);
		kx_fetch_stream_free(readers[i].stream);
	}
	kx_fetch_free(fetch);
	free(readers);
	stop_server(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_come_as_they_are),
		cmocka_unit_test(without_ranges_they_come_too),
		cmocka_unit_test(a_whole_object_has_a_limit),
		cmocka_unit_test(bytes_are_capped),
		cmocka_unit_test(only_what_was_planned_is_read),
		cmocka_unit_test(a_reader_without_manners_is_left),
		cmocka_unit_test(two_questions_at_once_are_one_too_many),
		cmocka_unit_test(a_silent_server_has_its_time),
		cmocka_unit_test(what_blocks_can_be_stopped),
		cmocka_unit_test(many_read_at_once),
	};
	setenv("NO_PROXY", "*", 1);
	setenv("no_proxy", "*", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
