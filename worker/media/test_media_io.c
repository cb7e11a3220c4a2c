#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "common/fetch/stream.h"
#include "worker/media/io.h"

/* A stream whose fetcher's answers are waiting already. */
struct stream {
	int near, far;
};

static void open_stream(struct stream *stream)
{
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	stream->near = pair[0];
	stream->far = pair[1];
}

static void close_stream(struct stream *stream)
{
	close(stream->near);
	close(stream->far);
}

static void answer(const struct stream *stream, const struct kx_stream_answer *head, const char *bytes)
{
	char packet[sizeof(*head) + 4096];
	size_t len = strlen(bytes);
	memcpy(packet, head, sizeof(*head));
	memcpy(packet + sizeof(*head), bytes, len);
	assert_int_equal(write(stream->far, packet, sizeof(*head) + len), sizeof(*head) + len);
}

static void good(const struct stream *stream, uint64_t size, const char *bytes)
{
	const struct kx_stream_answer head = {
		.status = KX_OK, .reason = KX_REASON_NONE, .len = (uint32_t)strlen(bytes), .size = size};
	answer(stream, &head, bytes);
}

static void expect_ask(const struct stream *stream, uint32_t verb, uint64_t offset, uint32_t len)
{
	struct kx_stream_ask ask;
	assert_int_equal(read(stream->far, &ask, sizeof(ask)), sizeof(ask));
	assert_int_equal(ask.verb, verb);
	assert_int_equal(ask.offset, offset);
	assert_int_equal(ask.len, len);
}

static void a_stream_is_asked_for_bytes(void **state)
{
	(void)state;
	struct stream stream;
	struct kx_io io;
	uint8_t bytes[100] = {0};
	open_stream(&stream);
	good(&stream, 7, "");
	assert_int_equal(kx_io_open(&io, stream.near), KX_OK);
	assert_true(io.remote);
	assert_int_equal(io.size, 7);
	expect_ask(&stream, KX_STREAM_SIZE, 0, 0);
	good(&stream, 7, "abcd");
	assert_int_equal(kx_io_read(&io, 3, bytes, sizeof(bytes)), 4);
	assert_memory_equal(bytes, "abcd", 4);
	expect_ask(&stream, KX_STREAM_READ, 3, sizeof(bytes));
	assert_int_equal(kx_io_read(&io, 7, bytes, sizeof(bytes)), 0); /* nobody is asked about the end */
	assert_int_equal(kx_io_read(&io, UINT64_MAX, bytes, sizeof(bytes)), 0);
	close_stream(&stream);
}

static void its_failure_is_told_in_its_words(void **state)
{
	(void)state;
	static const struct kx_stream_answer head = {
		.status = KX_ENOTFOUND, .reason = KX_REASON_NOT_FOUND, .len = 11};
	struct stream stream;
	struct kx_io io;
	struct kx_error error = {0};
	uint8_t bytes[10];
	open_stream(&stream);
	answer(&stream, &head, "it has left");
	assert_int_equal(kx_io_open(&io, stream.near), KX_EIO); /* KX_ENOTFOUND would pass for an end */
	assert_int_equal(io.reason, KX_REASON_NOT_FOUND);
	assert_int_equal(kx_io_fail(&io, "a.mp4", &error), KX_EIO);
	assert_int_equal(error.class, KX_ERROR_POISON);
	assert_string_equal(error.message, "it has left");
	assert_int_equal(kx_io_read(&io, 0, bytes, sizeof(bytes)), -1); /* and nobody is asked again */
	close_stream(&stream);
}

/* Each breaks the protocol in another way. */
static void answers_that_are_none(void **state)
{
	(void)state;
	static const struct kx_stream_answer heads[] = {
		{.status = KX_OK, .len = 9, .size = 100},         /* less follows than it says */
		{.status = KX_OK, .len = 11, .size = 100},        /* more than was asked for */
		{.status = KX_OK, .len = 0, .size = UINT64_MAX},
		{.status = KX_EIO, .len = 5},
	};
	static const char *const texts[] = {"abc", "abcdefghijk", "", "abc"};
	for (size_t i = 0; i < KX_ARRAY_LEN(heads); i++) {
		struct stream stream;
		struct kx_io io;
		struct kx_error error = {0};
		uint8_t bytes[10];
		open_stream(&stream);
		good(&stream, 100, "");
		assert_int_equal(kx_io_open(&io, stream.near), KX_OK);
		answer(&stream, &heads[i], texts[i]);
		assert_int_equal(kx_io_read(&io, 0, bytes, sizeof(bytes)), -1);
		assert_int_equal(io.reason, KX_REASON_READ_FAILED);
		assert_int_equal(kx_io_fail(&io, "a.mp4", &error), KX_EIO);
		assert_non_null(strstr(error.message, "a.mp4"));
		close_stream(&stream);
	}
}

static void a_fetcher_that_is_gone(void **state)
{
	(void)state;
	struct stream stream;
	struct kx_io io;
	uint8_t bytes[10];
	open_stream(&stream);
	good(&stream, 100, "");
	assert_int_equal(kx_io_open(&io, stream.near), KX_OK);
	shutdown(stream.far, SHUT_WR);
	assert_int_equal(kx_io_read(&io, 0, bytes, sizeof(bytes)), -1);
	assert_true(io.retriable);
	close_stream(&stream);
	open_stream(&stream);
	close(stream.far);
	assert_int_equal(kx_io_open(&io, stream.near), KX_EIO); /* without a signal */
	close(stream.near);
}

static void files_are_read_in_place(void **state)
{
	(void)state;
	struct kx_io io;
	uint8_t bytes[10];
	int pipes[2];
	int fd = memfd_create("io", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "abcdef", 6), 6);
	assert_int_equal(kx_io_open(&io, fd), KX_OK);
	assert_false(io.remote);
	assert_int_equal(io.size, 6);
	assert_int_equal(kx_io_read(&io, 4, bytes, sizeof(bytes)), 2);
	assert_memory_equal(bytes, "ef", 2);
	assert_int_equal(kx_io_read(&io, 6, bytes, sizeof(bytes)), 0);
	close(fd);
	assert_int_equal(kx_io_read(&io, 0, bytes, sizeof(bytes)), -1);
	assert_int_equal(io.reason, KX_REASON_READ_FAILED);
	assert_int_equal(kx_io_open(&io, fd), KX_EIO);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(kx_io_open(&io, pipes[0]), KX_EUNSUPPORTED);
	close(pipes[0]);
	close(pipes[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stream_is_asked_for_bytes),
		cmocka_unit_test(its_failure_is_told_in_its_words),
		cmocka_unit_test(answers_that_are_none),
		cmocka_unit_test(a_fetcher_that_is_gone),
		cmocka_unit_test(files_are_read_in_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
