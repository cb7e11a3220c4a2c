#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/error.h"
#include "common/base/str.h"

static void set_and_prefix(void **state)
{
	(void)state;
	struct kx_error error = {0};

	assert_int_equal(kx_error_set(&error, KX_ECORRUPT, KX_ERROR_POISON, "byte %d", 7), KX_ECORRUPT);
	assert_int_equal(kx_error_prefix(&error, KX_EIO, "%s", "a.mp4"), KX_ECORRUPT);
	assert_string_equal(error.message, "a.mp4: byte 7");
	assert_int_equal(kx_error_prefix(&error, KX_EIO, "%s: ", "index"), KX_ECORRUPT);
	assert_string_equal(error.message, "index: a.mp4: byte 7");
	assert_int_equal(error.status, KX_ECORRUPT);
	assert_int_equal(error.class, KX_ERROR_POISON);
}

static void null_and_empty(void **state)
{
	(void)state;
	struct kx_error error = {0};

	assert_int_equal(kx_error_set(NULL, KX_EIO, KX_ERROR_FATAL, "x"), KX_EIO);
	assert_int_equal(kx_error_prefix(NULL, KX_EBUSY, "x"), KX_EBUSY);
	assert_int_equal(kx_error_from_errno(NULL, ENOENT, "x"), KX_ENOTFOUND);
	assert_int_equal(kx_error_nomem(NULL), KX_ENOMEM);
	assert_int_equal(kx_error_prefix(&error, KX_EBUSY, "store"), KX_EBUSY);
	assert_int_equal(error.status, KX_EBUSY);
	assert_string_equal(error.message, "store");
}

static void errno_decides_status_and_class(void **state)
{
	(void)state;
	static const struct {
		int number;
		kx_status status;
		enum kx_error_class class;
	} CASES[] = {
		{ENOSPC, KX_EFULL, KX_ERROR_FATAL},	{EDQUOT, KX_EFULL, KX_ERROR_FATAL},
		{ENOMEM, KX_ENOMEM, KX_ERROR_RETRY},	{ENOENT, KX_ENOTFOUND, KX_ERROR_POISON},
		{EACCES, KX_EPERM, KX_ERROR_POISON},	{EPERM, KX_EPERM, KX_ERROR_POISON},
		{ECONNRESET, KX_EIO, KX_ERROR_RETRY},
	};

	for (size_t i = 0; i < KX_ARRAY_LEN(CASES); i++) {
		struct kx_error error = {0};
		assert_int_equal(kx_error_from_errno(&error, CASES[i].number, "f"), CASES[i].status);
		assert_int_equal(error.status, CASES[i].status);
		assert_int_equal(error.class, CASES[i].class);
	}
}

static void errno_message(void **state)
{
	(void)state;
	struct kx_error error = {0};

	assert_int_equal(kx_error_from_errno(&error, ENOENT, "%s", "a b"), KX_ENOTFOUND);
	assert_string_equal(error.message, "a b: No such file or directory");
}

static void an_error_may_be_made_of_itself(void **state)
{
	(void)state;
	struct kx_error error = {0};

	assert_int_equal(kx_error_set(&error, KX_EIO, KX_ERROR_RETRY, "inner"), KX_EIO);
	assert_int_equal(kx_error_set(&error, KX_EFULL, KX_ERROR_FATAL, "<%s>", error.message), KX_EFULL);
	assert_string_equal(error.message, "<inner>");
}

static void long_messages_are_cut_between_characters(void **state)
{
	(void)state;
	char text[800];

	for (size_t shift = 0; shift < 4; shift++) {
		struct kx_error error = {0};

		memset(text, 'a', shift);
		for (size_t i = 0; i < 150; i++)
			memcpy(text + shift + 4 * i, "\xf0\x9f\x8e\xac", 4);
		text[shift + 600] = '\0';
		assert_int_equal(kx_error_set(&error, KX_EIO, KX_ERROR_RETRY, "%s", text), KX_EIO);
		assert_int_equal(kx_error_prefix(&error, KX_EIO, "p"), KX_EIO);
		assert_true(strlen(error.message) > sizeof(error.message) - 8);
		assert_true(kx_utf8_valid(error.message, strlen(error.message)));
	}
}

static void every_status_has_a_name(void **state)
{
	(void)state;

	for (int status = KX_EPERM; status <= KX_OK; status++) {
		assert_non_null(kx_status_name((kx_status)status));
		assert_string_not_equal(kx_status_name((kx_status)status), "unknown status");
	}
	assert_string_equal(kx_status_name(KX_ENOTFOUND), "not found");
	assert_string_equal(kx_status_name((kx_status)-99), "unknown status");
	assert_string_equal(kx_status_name((kx_status)1), "unknown status");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_and_prefix),
		cmocka_unit_test(null_and_empty),
		cmocka_unit_test(errno_decides_status_and_class),
		cmocka_unit_test(errno_message),
		cmocka_unit_test(an_error_may_be_made_of_itself),
		cmocka_unit_test(long_messages_are_cut_between_characters),
		cmocka_unit_test(every_status_has_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
