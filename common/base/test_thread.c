#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/thread.h"

static bool readable(int fd, int timeout_ms)
{
	struct pollfd poller = {.fd = fd, .events = POLLIN};

	return poll(&poller, 1, timeout_ms) == 1 && (poller.revents & POLLIN);
}

struct seen {
	struct kx_stop go;
	char name[16];
	bool sigint_blocked;
};

static void *look_at_itself(void *arg)
{
	struct seen *seen = arg;
	sigset_t mask;

	if (!readable(seen->go.fd, 10000)) /* the name is given after the start */
		return NULL;
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	seen->sigint_blocked = sigismember(&mask, SIGINT) == 1;
	pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
	return seen;
}

static void starts_named_and_deaf_to_signals(void **state)
{
	(void)state;
	struct kx_error error = {0};
	struct seen seen = {.sigint_blocked = false};
	pthread_t thread;
	sigset_t mask;
	void *result;

	assert_int_equal(kx_stop_init(&seen.go, &error), KX_OK);
	assert_int_equal(kx_thread_start(&thread, "a-name-that-is-too-long", look_at_itself, &seen, &error), KX_OK);
	kx_stop_ask(&seen.go);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_ptr_equal(result, &seen);
	assert_string_equal(seen.name, "a-name-that-is-");
	assert_true(seen.sigint_blocked);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
	assert_int_equal(sigismember(&mask, SIGINT), 0);
	kx_stop_done(&seen.go);
}

static void a_start_may_fail(void **state)
{
	(void)state;
	struct kx_error error = {0};
	pthread_t thread;

	kx_fault_arm("thread.start", 1);
	assert_int_equal(kx_thread_start(&thread, "x", look_at_itself, NULL, &error), KX_EIO);
	assert_int_equal(error.class, KX_ERROR_RETRY);
	assert_non_null(strstr(error.message, "starting thread x"));
}

static void stop_is_asked_once_and_for_ever(void **state)
{
	(void)state;
	struct kx_error error = {0};
	struct kx_stop stop;

	assert_int_equal(kx_stop_init(&stop, &error), KX_OK);
	assert_false(kx_stop_asked(&stop));
	assert_false(readable(stop.fd, 0));
	kx_stop_ask(&stop);
	kx_stop_ask(&stop);
	for (int i = 0; i < 3; i++) {
		assert_true(kx_stop_asked(&stop));
		assert_true(readable(stop.fd, 0));
	}
	kx_stop_done(&stop);
	assert_int_equal(stop.fd, -1);
	kx_stop_done(&stop);
}

static struct kx_stop from_handler;

static void on_signal(int number)
{
	(void)number;
	kx_stop_ask(&from_handler);
}

static void a_signal_handler_may_ask(void **state)
{
	(void)state;
	struct sigaction action = {.sa_handler = on_signal};
	struct kx_error error = {0};

	assert_int_equal(kx_stop_init(&from_handler, &error), KX_OK);
	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
	assert_int_equal(raise(SIGUSR1), 0);
	assert_true(kx_stop_asked(&from_handler));
	assert_true(readable(from_handler.fd, 10000));
	kx_stop_done(&from_handler);
}

static void conditions_wait_on_the_monotonic_clock(void **state)
{
	(void)state;
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond;
	int result = 0;

	assert_int_equal(kx_cond_init(&cond), KX_OK);
	pthread_mutex_lock(&mutex);
	uint64_t start = kx_clock_mono_us();
	struct timespec deadline = kx_clock_deadline(20);
	while (!result)
		result = pthread_cond_timedwait(&cond, &mutex, &deadline);
	pthread_mutex_unlock(&mutex);
	assert_int_equal(result, ETIMEDOUT);
	assert_true(kx_clock_mono_us() - start >= 20000);
	pthread_cond_destroy(&cond);
}

static void deadlines_are_well_formed(void **state)
{
	(void)state;
	static const uint64_t AFTER_MS[] = {0, 1, 999, 1000, 1001, 123456789};

	for (size_t i = 0; i < KX_ARRAY_LEN(AFTER_MS); i++) {
		uint64_t now = kx_clock_mono_us() / 1000;
		struct timespec at = kx_clock_deadline(AFTER_MS[i]);
		uint64_t at_ms = (uint64_t)at.tv_sec * 1000 + (uint64_t)at.tv_nsec / 1000000;

		assert_true(at.tv_nsec >= 0 && at.tv_nsec < 1000000000);
		assert_true(at_ms >= now + AFTER_MS[i] && at_ms < now + AFTER_MS[i] + 60000);
	}
}

static void burn_cpu_us(uint64_t amount)
{
	uint64_t end = kx_clock_cpu_us() + amount;

	while (kx_clock_cpu_us() < end)
		;
}

static void cpu_time_includes_children(void **state)
{
	(void)state;
	uint64_t start = kx_clock_cpu_us();
	int status;

	burn_cpu_us(20000);
	assert_true(kx_clock_cpu_us() - start >= 20000);
	start = kx_clock_cpu_us();
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		burn_cpu_us(50000);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(kx_clock_cpu_us() - start >= 40000); /* the kernel may count children in ticks */
	assert_true(kx_clock_wall_ms() > 1600000000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(starts_named_and_deaf_to_signals),
		cmocka_unit_test(a_start_may_fail),
		cmocka_unit_test(stop_is_asked_once_and_for_ever),
		cmocka_unit_test(a_signal_handler_may_ask),
		cmocka_unit_test(conditions_wait_on_the_monotonic_clock),
		cmocka_unit_test(deadlines_are_well_formed),
		cmocka_unit_test(cpu_time_includes_children),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
