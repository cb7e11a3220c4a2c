#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/fault.h"

/* Runs first: the environment is read once, on the first pass. */
static void armed_by_the_environment(void **state)
{
	(void)state;

	assert_int_equal(setenv("KINODEX_FAULT", "kv.write:2,media.read:1,colon:in:name:1", 1), 0);
	assert_false(kx_fault("kv.write"));
	assert_true(kx_fault("kv.write"));
	assert_false(kx_fault("kv.write"));
	assert_true(kx_fault("media.read"));
	assert_true(kx_fault("colon:in:name"));
	assert_false(kx_fault("other"));
}

static void only_the_nth_pass_fails(void **state)
{
	(void)state;

	kx_fault_arm("p", 3);
	kx_fault_arm("q", 1);
	assert_false(kx_fault("p"));
	assert_false(kx_fault("p"));
	errno = 0;
	assert_true(kx_fault("p"));
	assert_int_equal(errno, EIO);
	assert_false(kx_fault("p"));
	assert_true(kx_fault("q"));
}

static void disarm_and_clear(void **state)
{
	(void)state;

	kx_fault_arm("p", 1);
	kx_fault_arm("p", 0);
	assert_false(kx_fault("p"));
	kx_fault_arm("p", 1);
	kx_fault_arm("q", 1);
	kx_fault_clear();
	assert_false(kx_fault("p"));
	assert_false(kx_fault("q"));
	kx_fault_arm("p", 5);
	kx_fault_arm("p", 1);
	assert_true(kx_fault("p"));
}

static atomic_int fired;

static void *pass_often(void *arg)
{
	for (int i = 0; i < 1000; i++)
		if (kx_fault("shared"))
			atomic_fetch_add(&fired, 1);
	return arg;
}

static void fires_once_across_threads(void **state)
{
	(void)state;
	pthread_t threads[4];

	kx_fault_arm("shared", 3999);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, pass_often, NULL), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(atomic_load(&fired), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(armed_by_the_environment),
		cmocka_unit_test(only_the_nth_pass_fails),
		cmocka_unit_test(disarm_and_clear),
		cmocka_unit_test(fires_once_across_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
