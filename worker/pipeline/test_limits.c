/* What holds a decoder child back, and how its end is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/macros.h"
#include "worker/pipeline/confine.h"
#include "worker/pipeline/verdict.h"

static const struct kx_decode_request limits = {
	.wall_limit_ms = 1500, .cpu_limit_ms = 2000, .memory_limit_bytes = 100u << 20};

static struct kx_verdict verdict_of(struct kx_host_exit exit, bool wall_killed)
{
	struct kx_verdict verdict;

	kx_verdict_of(&exit, &limits, wall_killed, &verdict);
	assert_true(strlen(verdict.message) > 0);
	return verdict;
}

/* Wait statuses as Linux lays them out: a signal's number, or an exit status times 256. */
static void every_end_has_its_reason(void **state)
{
	static const struct {
		struct kx_host_exit exit;
		bool wall_killed;
		enum kx_reason reason;
		bool retriable;
	} cases[] = {
		{{.wait_status = SIGXCPU}, false, KX_REASON_CPU_LIMIT, false},
		{{.wait_status = SIGKILL, .cpu_us = 2100000}, false, KX_REASON_CPU_LIMIT, false},
		{{.wait_status = SIGKILL, .cpu_us = 100000}, false, KX_REASON_CRASHED, true},
		{{.wait_status = SIGKILL}, true, KX_REASON_WALL_LIMIT, true},
		{{.wait_status = SIGALRM}, false, KX_REASON_WALL_LIMIT, true},
		{{.wait_status = SIGSEGV}, false, KX_REASON_CRASHED, true},
		{{.wait_status = SIGABRT, .max_rss_bytes = 90u << 20}, false, KX_REASON_MEMORY_LIMIT, false},
		{{.wait_status = SIGABRT, .max_rss_bytes = 20u << 20}, false, KX_REASON_CRASHED, true},
		{{.wait_status = KX_CHILD_NOMEM << 8}, false, KX_REASON_MEMORY_LIMIT, false},
		{{.wait_status = KX_CHILD_SETUP << 8}, false, KX_REASON_INTERNAL, true},
		{{.wait_status = KX_CHILD_LOST << 8}, false, KX_REASON_INTERNAL, true},
		{{.wait_status = 1 << 8}, false, KX_REASON_CRASHED, true},
		{{.wait_status = 0}, false, KX_REASON_CRASHED, true},
		{{.header = {.error = 11}}, false, KX_REASON_INTERNAL, true},
	};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(cases); i++) {
		struct kx_verdict verdict = verdict_of(cases[i].exit, cases[i].wall_killed);

		assert_int_equal(verdict.reason, cases[i].reason);
		assert_int_equal(verdict.retriable, cases[i].retriable);
	}
}

static void crash_names_its_signal(void **state)
{
	(void)state;
	assert_non_null(strstr(verdict_of((struct kx_host_exit){.wait_status = SIGSEGV}, false).message, "SIGSEGV"));
}

/* Runs body under limits in a child; returns its wait status. */
static int run_confined(const struct kx_decode_request *request, void (*body)(int fd))
{
	pid_t parent = getpid(), pid;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int wait_status;

	assert_true(fd >= 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (kx_confine(parent, request, &fd, 1) != KX_OK)
			_exit(99);
		body(fd);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &wait_status, 0), pid);
	close(fd);
	return wait_status;
}

static void count_fds(int fd)
{
	int open_count = 0;

	for (int i = 0; i < 256; i++)
		open_count += fcntl(i, F_GETFD) >= 0;
	_exit(open_count == 4 && fcntl(fd, F_GETFD) >= 0 ? 0 : 1);
}

static void only_what_was_handed_over_is_open(void **state)
{
	const struct kx_decode_request none = {0};
	int other = open("/dev/null", O_RDONLY);

	(void)state;
	assert_true(other >= 0);
	assert_int_equal(run_confined(&none, count_fds), 0);
	close(other);
}

static void spin(int fd)
{
	volatile int going = fd >= 0;

	while (going)
		;
}

static void cpu_time_ends(void **state)
{
	const struct kx_decode_request request = {.cpu_limit_ms = 1};
	int wait_status = run_confined(&request, spin);

	(void)state;
	assert_true(WIFSIGNALED(wait_status));
	assert_int_equal(WTERMSIG(wait_status), SIGXCPU);
}

static void rest(int fd)
{
	(void)fd;
	for (;;)
		pause();
}

/* The backstop comes two seconds after the limit that the pipeline holds. */
static void wall_time_ends_without_a_pipeline(void **state)
{
	const struct kx_decode_request request = {.wall_limit_ms = 1};
	int wait_status = run_confined(&request, rest);

	(void)state;
	assert_true(WIFSIGNALED(wait_status));
	assert_int_equal(WTERMSIG(wait_status), SIGALRM);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static void hoard(int fd)
{
	size_t chunks = 0;

	(void)fd;
	while (chunks < 4096 && malloc(1u << 20))
		chunks++;
	_exit(chunks > 16 && chunks < 64 ? 0 : 1);
}

static void memory_ends_at_its_limit(void **state)
{
	const struct kx_decode_request request = {.memory_limit_bytes = 40u << 20};

	(void)state;
	assert_int_equal(run_confined(&request, hoard), 0);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_end_has_its_reason),
		cmocka_unit_test(crash_names_its_signal),
		cmocka_unit_test(only_what_was_handed_over_is_open),
		cmocka_unit_test(cpu_time_ends),
		cmocka_unit_test(wall_time_ends_without_a_pipeline),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		cmocka_unit_test(memory_ends_at_its_limit),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
