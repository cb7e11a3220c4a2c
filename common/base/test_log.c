#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/log.h"
#include "common/base/str.h"

#define CAPTURE_MAX (1 << 20)

struct capture {
	FILE *file;
	int real_stderr;
	char text[CAPTURE_MAX];
};

static int start_capture(void **state)
{
	struct capture *capture = calloc(1, sizeof(*capture));

	if (!capture)
		return -1;
	capture->file = tmpfile();
	capture->real_stderr = dup(STDERR_FILENO);
	*state = capture;
	kx_log_set_level(KX_LOG_WARN);
	return capture->file && dup2(fileno(capture->file), STDERR_FILENO) >= 0 ? 0 : -1;
}

static int end_capture(void **state)
{
	struct capture *capture = *state;

	dup2(capture->real_stderr, STDERR_FILENO);
	close(capture->real_stderr);
	fclose(capture->file);
	free(capture);
	return 0;
}

/* All that was logged since the last call. */
static const char *logged(struct capture *capture)
{
	int fd = fileno(capture->file);
	ssize_t len = pread(fd, capture->text, CAPTURE_MAX - 1, 0);

	assert_true(len >= 0);
	capture->text[len] = '\0';
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return capture->text;
}

static void text_lines_and_levels(void **state)
{
	kx_log(KX_LOG_ERROR, "no %s", "disk");
	kx_log(KX_LOG_WARN, "slow");
	kx_log(KX_LOG_INFO, "unseen");
	assert_string_equal(logged(*state), "error: no disk\nwarning: slow\n");
	kx_log_set_level(KX_LOG_DEBUG);
	kx_log(KX_LOG_INFO, "a");
	kx_log(KX_LOG_DEBUG, "b");
	assert_string_equal(logged(*state), "info: a\ndebug: b\n");
	kx_log_set_level(KX_LOG_ERROR);
	kx_log(KX_LOG_WARN, "unseen");
	assert_string_equal(logged(*state), "");
}

static void text_is_one_harmless_line(void **state)
{
	kx_log(KX_LOG_ERROR, "a\nb \x1b[2J \xc2\x9b \xff \"caf\xc3\xa9\" \\");
	assert_string_equal(logged(*state), "error: a\\nb \\x1b[2J \\xc2\\x9b \\xff \"caf\xc3\xa9\" \\\n");
}

static void long_messages_are_cut(void **state)
{
	char *text KX_CLEANUP(kx_cleanup_free) = malloc(10001);

	assert_non_null(text);
	memset(text, '\x01', 10000);
	text[10000] = '\0';
	kx_log(KX_LOG_ERROR, "%s", text);
	const char *line = logged(*state);
	size_t len = strlen(line);
	assert_int_equal(len, strlen("error: ") + 4 * KX_LOG_MESSAGE_MAX + 1);
	assert_true(kx_str_ends(line, "\\x01\n"));
}

static void failures_by_class(void **state)
{
	struct kx_error error = {.status = KX_EIO, .class = KX_ERROR_RETRY, .message = "broker away"};
	struct kx_error empty = {.status = KX_EFULL, .class = KX_ERROR_FATAL};

	kx_log_failure(&error);
	error.class = KX_ERROR_POISON;
	kx_log_failure(&error);
	kx_log_failure(&empty);
	assert_string_equal(logged(*state), "warning: broker away\nerror: broker away\nerror: full\n");
}

static void before(void *ctx)
{
	(void)ctx;
	assert_int_equal(write(STDERR_FILENO, "<", 1), 1);
}

static void after(void *ctx)
{
	++*(int *)ctx;
	assert_int_equal(write(STDERR_FILENO, ">", 1), 1);
}

static void hooks_stand_around_a_line(void **state)
{
	int calls = 0;

	kx_log_set_hooks(before, after, &calls);
	errno = EDOM;
	kx_log(KX_LOG_ERROR, "x");
	assert_int_equal(errno, EDOM);
	kx_log(KX_LOG_DEBUG, "unseen");
	kx_log_set_hooks(NULL, NULL, NULL);
	kx_log(KX_LOG_ERROR, "y");
	assert_int_equal(calls, 1);
	assert_string_equal(logged(*state), "<error: x\n>error: y\n");
}

#define LINES_PER_THREAD 500

static void *log_often(void *name)
{
	for (int i = 0; i < LINES_PER_THREAD; i++)
		kx_log(KX_LOG_ERROR, "%s%s%s", (char *)name, (char *)name, (char *)name);
	return NULL;
}

static void lines_do_not_mix(void **state)
{
	static char NAMES[4][8] = {"aaaa", "bbbb", "cccc", "dddd"};
	pthread_t threads[4];
	size_t lines = 0;

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, log_often, NAMES[i]), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	for (const char *line = logged(*state); *line; line = strchr(line, '\n') + 1, lines++) {
		assert_true(kx_str_starts(line, "error: "));
		assert_int_equal(strspn(line + 7, (char[]){line[7], '\0'}), 12);
		assert_int_equal(line[19], '\n');
	}
	assert_int_equal(lines, 4 * LINES_PER_THREAD);
}

#define CAPTURED_TEST(test) cmocka_unit_test_setup_teardown(test, start_capture, end_capture)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CAPTURED_TEST(text_lines_and_levels),
		CAPTURED_TEST(text_is_one_harmless_line),
		CAPTURED_TEST(long_messages_are_cut),
		CAPTURED_TEST(failures_by_class),
		CAPTURED_TEST(hooks_stand_around_a_line),
		CAPTURED_TEST(lines_do_not_mix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
