/* Targets and ranges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "gateway/http/range.h"
#include "gateway/http/target.h"

static void parses(const char *raw, struct kx_http_target *target)
{
	struct kx_error error = {0};

	if (kx_http_target_parse(raw, target, &error) != KX_OK)
		fail_msg("%s: %s", raw, error.message);
}

static void test_segments_are_split_before_they_are_decoded(void **state)
{
	struct kx_http_target target = {0};

	(void)state;
	parses("/v1/videos/films%2Fa%20%C3%A9+.mp4/media", &target);
	assert_int_equal(target.segment_count, 4);
	assert_string_equal(target.segments[2], "films/a \xc3\xa9+.mp4");
	assert_string_equal(target.segments[3], "media");
	kx_http_target_done(&target);
}

static void test_arguments(void **state)
{
	struct kx_http_target target = {0};

	(void)state;
	parses("http://host:80/a?id=x%26y+z&&k=3&flag&e=", &target);
	assert_int_equal(target.segment_count, 1);
	assert_int_equal(target.arg_count, 4);
	assert_string_equal(kx_http_target_arg(&target, "id"), "x&y z");
	assert_string_equal(kx_http_target_arg(&target, "k"), "3");
	assert_string_equal(kx_http_target_arg(&target, "flag"), "");
	assert_string_equal(kx_http_target_arg(&target, "e"), "");
	assert_null(kx_http_target_arg(&target, "none"));
	kx_http_target_done(&target);
}

static void test_empty_parts_stay(void **state)
{
	struct kx_http_target target = {0};

	(void)state;
	parses("/v1//x/#fragment?a=1", &target);
	assert_int_equal(target.segment_count, 4);
	assert_string_equal(target.segments[1], "");
	assert_string_equal(target.segments[3], "");
	assert_int_equal(target.arg_count, 0);
	kx_http_target_done(&target);
}

static void test_targets_that_are_refused(void **state)
{
	static const struct {
		const char *raw;
		kx_status status;
	} cases[] = {
		{"", KX_EINVAL},
		{"v1", KX_EINVAL},
		{"*", KX_EINVAL},
		{"http://host", KX_EINVAL},
		{"/a%", KX_EINVAL},
		{"/a%2", KX_EINVAL},
		{"/a%zz", KX_EINVAL},
		{"/a%00b", KX_EINVAL},
		{"/a%ff", KX_EINVAL},
		{"/a?b=%c3", KX_EINVAL},
		{"/a?%00=1", KX_EINVAL},
		{"/a?b=1&b=1", KX_EINVAL},
		{"/1/2/3/4/5/6/7/8/9", KX_ETOOBIG},
	};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(cases); i++) {
		struct kx_http_target target = {0};
		struct kx_error error = {0};

		if (kx_http_target_parse(cases[i].raw, &target, &error) != cases[i].status || error.message[0] == '\0')
			fail_msg("%s: %s", cases[i].raw, error.message);
		assert_null(target.memory);
	}
}

static void test_too_many_arguments(void **state)
{
	char raw[512] = "/a?";
	struct kx_http_target target = {0};

	(void)state;
	for (unsigned i = 0; i <= KX_TARGET_ARGS_MAX; i++)
		sprintf(raw + strlen(raw), "a%u=1&", i);
	assert_int_equal(kx_http_target_parse(raw, &target, NULL), KX_ETOOBIG);
}

static void test_ranges(void **state)
{
	static const struct {
		const char *header;
		uint64_t size;
		enum kx_range_kind kind;
		uint64_t first, len;
	} cases[] = {
		{NULL, 10, KX_RANGE_ALL, 0, 0},
		{"bytes=0-0", 10, KX_RANGE_PART, 0, 1},
		{"bytes=2-4", 10, KX_RANGE_PART, 2, 3},
		{"Bytes= 2-4 ", 10, KX_RANGE_PART, 2, 3},
		{"bytes=2-", 10, KX_RANGE_PART, 2, 8},
		{"bytes=2-99", 10, KX_RANGE_PART, 2, 8},
		{"bytes=9-99999999999999999999999", 10, KX_RANGE_PART, 9, 1},
		{"bytes=-3", 10, KX_RANGE_PART, 7, 3},
		{"bytes=-30", 10, KX_RANGE_PART, 0, 10},
		{"bytes=-0", 10, KX_RANGE_NONE, 0, 0},
		{"bytes=10-", 10, KX_RANGE_NONE, 0, 0},
		{"bytes=99999999999999999999999-", 10, KX_RANGE_NONE, 0, 0},
		{"bytes=0-", 0, KX_RANGE_NONE, 0, 0},
		{"bytes=-1", 0, KX_RANGE_NONE, 0, 0},
		{"bytes=4-2", 10, KX_RANGE_ALL, 0, 0},
		{"bytes=-", 10, KX_RANGE_ALL, 0, 0},
		{"bytes=", 10, KX_RANGE_ALL, 0, 0},
		{"bytes=a-b", 10, KX_RANGE_ALL, 0, 0},
		{"bytes=0-1,3-4", 10, KX_RANGE_ALL, 0, 0},
		{"bytes=+1-2", 10, KX_RANGE_ALL, 0, 0},
		{"bytes=0x1-2", 10, KX_RANGE_ALL, 0, 0},
		{"items=0-1", 10, KX_RANGE_ALL, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(cases); i++) {
		uint64_t first = 0, len = 0;
		enum kx_range_kind kind = kx_http_range(cases[i].header, cases[i].size, &first, &len);

		if (kind != cases[i].kind || first != cases[i].first || len != cases[i].len)
			fail_msg("%s of %lu: %d, %lu+%lu", cases[i].header, (unsigned long)cases[i].size, (int)kind,
				 (unsigned long)first, (unsigned long)len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_segments_are_split_before_they_are_decoded),
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_empty_parts_stay),
		cmocka_unit_test(test_targets_that_are_refused),
		cmocka_unit_test(test_too_many_arguments),
		cmocka_unit_test(test_ranges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
