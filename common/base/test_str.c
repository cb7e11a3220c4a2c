#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/str.h"

static void makes_strings(void **state)
{
	(void)state;
	char *text KX_CLEANUP(kx_cleanup_free) = kx_strf("%s/%d", "a", 5);
	char *part KX_CLEANUP(kx_cleanup_free) = kx_strndup("abcdef", 3);

	assert_string_equal(text, "a/5");
	assert_string_equal(part, "abc");
	assert_null(kx_strdup(NULL));
	for (int i = 0; i < 3; i++) {
		kx_fault_arm("str.alloc", 1);
		assert_null(i == 0 ? kx_strf("x") : i == 1 ? kx_strdup("x") : kx_strndup("x", 1));
	}
}

static void sets_strings(void **state)
{
	(void)state;
	char *text KX_CLEANUP(kx_cleanup_free) = NULL;

	assert_int_equal(kx_str_set(&text, "a"), KX_OK);
	assert_string_equal(text, "a");
	kx_fault_arm("str.alloc", 1);
	assert_int_equal(kx_str_set(&text, "b"), KX_ENOMEM);
	assert_string_equal(text, "a");
	assert_int_equal(kx_str_set(&text, NULL), KX_OK);
	assert_string_equal(text, "");
}

static void compares(void **state)
{
	(void)state;

	assert_true(kx_str_eq(NULL, NULL));
	assert_false(kx_str_eq(NULL, ""));
	assert_true(kx_str_eq("a", "a"));
	assert_true(kx_str_starts("abc", "ab"));
	assert_false(kx_str_starts("a", "ab"));
	assert_true(kx_str_ends("clip.mp4", ".mp4"));
	assert_false(kx_str_ends("4", ".mp4"));
	assert_true(kx_str_ends("x", ""));
}

static void utf8(void **state)
{
	(void)state;
	static const char *const GOOD[] = {"", "abc", "\xc3\xa9", "\xe2\x82\xac", "\xed\x9f\xbf", "\xee\x80\x80",
					   "\xf0\x9f\x8e\xac", "\xf4\x8f\xbf\xbf"};
	static const char *const BAD[] = {"\x80",		"\xc3",		    "\xc0\xaf",	       "\xc1\xbf",
					  "\xe0\x9f\xbf",	"\xed\xa0\x80",	    "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
					  "\xf5\x80\x80\x80",	"\xff",		    "a\xe2\x82",       "\xe2\x28\xa1"};

	for (size_t i = 0; i < KX_ARRAY_LEN(GOOD); i++)
		assert_true(kx_utf8_valid(GOOD[i], strlen(GOOD[i])));
	for (size_t i = 0; i < KX_ARRAY_LEN(BAD); i++)
		assert_false(kx_utf8_valid(BAD[i], strlen(BAD[i])));
	assert_int_equal(kx_utf8_step("\xe2\x82\xac", 3), 3);
	assert_int_equal(kx_utf8_step("\xe2\x82\xac", 2), 0);
	assert_int_equal(kx_utf8_step("x", 0), 0);
}

static void parses_whole_numbers(void **state)
{
	(void)state;
	static const char *const BAD[] = {"", " 1", "1 ", "-1", "+1", "1x", "0x10", "18446744073709551616", "1.0"};
	uint64_t value = 7;

	for (size_t i = 0; i < KX_ARRAY_LEN(BAD); i++)
		assert_int_equal(kx_parse_u64(BAD[i], &value), KX_EINVAL);
	assert_int_equal(value, 7);
	assert_int_equal(kx_parse_u64("18446744073709551615", &value), KX_OK);
	assert_true(value == UINT64_MAX);
	assert_int_equal(kx_parse_u64("007", &value), KX_OK);
	assert_int_equal(value, 7);
}

static void parses_real_numbers(void **state)
{
	(void)state;
	static const char *const BAD[] = {"", " 1", "1 ", "nan", "inf", "-inf", "0x1p3", "1e999", "1.2.3", "e", "-", "1,5"};
	double value = 7;

	for (size_t i = 0; i < KX_ARRAY_LEN(BAD); i++)
		assert_int_equal(kx_parse_double(BAD[i], &value), KX_EINVAL);
	assert_true(value == 7);
	assert_int_equal(kx_parse_double("-2.5e-1", &value), KX_OK);
	assert_true(value == -0.25);
	assert_int_equal(kx_parse_double(".5", &value), KX_OK);
	assert_true(value == 0.5);
}

static void hex_there_and_back(void **state)
{
	(void)state;
	static const uint8_t BYTES[] = {0x00, 0x9f, 0xff};
	uint8_t back[3];
	char text[7];

	kx_hex_encode(BYTES, 3, text);
	assert_string_equal(text, "009fff");
	assert_int_equal(kx_hex_decode("009FfF", back, 3), KX_OK);
	assert_memory_equal(back, BYTES, 3);
	assert_int_equal(kx_hex_decode("009ff", back, 3), KX_EINVAL);
	assert_int_equal(kx_hex_decode("009ff", back, 2), KX_EINVAL);
	assert_int_equal(kx_hex_decode("009fffaa", back, 3), KX_EINVAL);
	assert_int_equal(kx_hex_decode("009ffg", back, 3), KX_EINVAL);
}

static void formats_bytes(void **state)
{
	(void)state;
	static const struct {
		uint64_t bytes;
		const char *text;
	} CASES[] = {
		{0, "0 B"},
		{1023, "1023 B"},
		{1024, "1.0 KiB"},
		{1503238554, "1.4 GiB"},
		{150 << 20, "150 MiB"},
		{(1 << 20) - 1, "1.0 MiB"},
		{UINT64_MAX, "16.0 EiB"},
	};
	char out[32];

	for (size_t i = 0; i < KX_ARRAY_LEN(CASES); i++) {
		kx_format_bytes(CASES[i].bytes, out, sizeof(out));
		assert_string_equal(out, CASES[i].text);
	}
	kx_format_bytes(1024, out, 4);
	assert_string_equal(out, "1.0");
}

static void formats_durations(void **state)
{
	(void)state;
	static const struct {
		uint64_t ms;
		const char *text;
	} CASES[] = {
		{0, "0 ms"},	      {999, "999 ms"},		 {59999, "59.9 s"},	   {125000, "2 min 05 s"},
		{7440000, "2 h 04 min"}, {47 * 3600000, "47 h 00 min"}, {100 * 3600000, "4 d 04 h"},
	};
	char out[32];

	for (size_t i = 0; i < KX_ARRAY_LEN(CASES); i++) {
		kx_format_duration(CASES[i].ms, out, sizeof(out));
		assert_string_equal(out, CASES[i].text);
	}
}

static void edit_distance(void **state)
{
	(void)state;

	assert_int_equal(kx_edit_distance("", ""), 0);
	assert_int_equal(kx_edit_distance("", "abc"), 3);
	assert_int_equal(kx_edit_distance("abc", ""), 3);
	assert_int_equal(kx_edit_distance("kitten", "sitting"), 3);
	assert_int_equal(kx_edit_distance("segmant", "segment"), 1);
	assert_int_equal(kx_edit_distance("same", "same"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(makes_strings),
		cmocka_unit_test(sets_strings),
		cmocka_unit_test(compares),
		cmocka_unit_test(utf8),
		cmocka_unit_test(parses_whole_numbers),
		cmocka_unit_test(parses_real_numbers),
		cmocka_unit_test(hex_there_and_back),
		cmocka_unit_test(formats_bytes),
		cmocka_unit_test(formats_durations),
		cmocka_unit_test(edit_distance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
