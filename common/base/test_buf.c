#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/fault.h"

static void grows_and_stays_terminated(void **state)
{
	(void)state;
	struct kx_buf buf = {.max = 100000};

	for (int i = 0; i < 5000; i++)
		assert_int_equal(kx_buf_append(&buf, "abcdefgh", 8), KX_OK);
	assert_int_equal(buf.len, 40000);
	assert_int_equal(buf.data[buf.len], 0);
	assert_memory_equal(buf.data + 39992, "abcdefgh", 8);
	assert_true(buf.cap <= buf.max);
	kx_buf_clear(&buf);
	assert_string_equal((char *)buf.data, "");
	kx_buf_done(&buf);
	assert_int_equal(buf.max, 100000);
	assert_null(buf.data);
}

static void refuses_to_pass_its_maximum(void **state)
{
	(void)state;
	struct kx_buf buf = {.max = 10};

	assert_int_equal(kx_buf_append(&buf, "0123456789", 10), KX_OK);
	assert_int_equal(kx_buf_append(&buf, "x", 1), KX_ETOOBIG);
	assert_int_equal(kx_buf_printf(&buf, "%d", 1), KX_ETOOBIG);
	assert_int_equal(kx_buf_reserve(&buf, SIZE_MAX), KX_ETOOBIG);
	assert_string_equal((char *)buf.data, "0123456789");
	assert_int_equal(kx_buf_append(&buf, NULL, 0), KX_OK);
	kx_buf_done(&buf);
}

static void empty_is_text(void **state)
{
	(void)state;
	struct kx_buf buf = {.max = 0};

	kx_buf_clear(&buf);
	assert_int_equal(kx_buf_append(&buf, NULL, 0), KX_OK);
	assert_string_equal((char *)buf.data, "");
	kx_buf_done(&buf);
}

static void prints(void **state)
{
	(void)state;
	struct kx_buf buf = {.max = 1000};

	assert_int_equal(kx_buf_printf(&buf, "%s-%d", "a", 7), KX_OK);
	assert_int_equal(kx_buf_printf(&buf, "%0200d", 1), KX_OK);
	assert_int_equal(buf.len, 203);
	assert_memory_equal(buf.data, "a-7000", 6);
	assert_int_equal(strlen((char *)buf.data), 203);
	kx_buf_done(&buf);
}

static void out_of_memory_leaves_it_as_it_was(void **state)
{
	(void)state;
	struct kx_buf buf = {.max = SIZE_MAX};

	assert_int_equal(kx_buf_append(&buf, "ab", 2), KX_OK);
	kx_fault_arm("buf.grow", 1);
	assert_int_equal(kx_buf_reserve(&buf, 1000), KX_ENOMEM);
	assert_string_equal((char *)buf.data, "ab");
	assert_int_equal(kx_buf_reserve(&buf, SIZE_MAX - 2), KX_ENOMEM);
	assert_int_equal(kx_buf_append(&buf, "cd", 2), KX_OK);
	assert_string_equal((char *)buf.data, "abcd");
	kx_buf_done(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(grows_and_stays_terminated),
		cmocka_unit_test(refuses_to_pass_its_maximum),
		cmocka_unit_test(empty_is_text),
		cmocka_unit_test(prints),
		cmocka_unit_test(out_of_memory_leaves_it_as_it_was),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
