#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/config/config.h"

enum { INDEX = 1, SIMILAR = 2 };

static const struct kx_option TABLE[] = {
	{"data", 'd', KX_OPTION_TEXT, "DIR", 0, 0, "kinodex-data", NULL, "The folder that holds all that is indexed.",
	 INDEX | SIMILAR},
	{"count", 'k', KX_OPTION_INT, NULL, 1, 1000, "10", NULL, "How many.", SIMILAR},
	{"fps", 0, KX_OPTION_REAL, "frames a second", 0.1, 60, "1", NULL,
	 "How often a frame is looked at, in every video of the catalogue, be it short or long.", INDEX},
	{"workers", 'w', KX_OPTION_INT, NULL, 1, INFINITY, NULL, NULL, "Workers to start.", INDEX},
	{"wait", 0, KX_OPTION_INT, "seconds", 0, 0, NULL, NULL, "How long.", INDEX},
	{"mode", 0, KX_OPTION_CHOICE, "MODE", 0, 0, "exact", "exact|tolerant|keyframe", "How to decode.", INDEX},
	{"audio", 0, KX_OPTION_FLAG, NULL, 0, 0, "true", NULL, "Sound too.", INDEX},
	{"json", 'j', KX_OPTION_FLAG, NULL, 0, 0, NULL, NULL, "For machines.", INDEX},
	{"an-option-with-a-long-name", 0, KX_OPTION_TEXT, NULL, 0, 0, NULL, NULL, "Caf\xc3\xa9.", INDEX},
	{"bare", 0, KX_OPTION_FLAG, NULL, 0, 0, NULL, NULL, NULL, INDEX},
};

static void help_is_aligned_and_wrapped(void **state)
{
	(void)state;
	static const char EXPECTED[] =
		"  -d, --data=DIR    The folder that holds all that is indexed.\n"
		"                    (default kinodex-data)\n"
		"      --fps=N       How often a frame is looked at, in every\n"
		"                    video of the catalogue, be it short or\n"
		"                    long. (0.1 to 60 frames a second; default\n"
		"                    1)\n"
		"  -w, --workers=N   Workers to start. (at least 1)\n"
		"      --wait=N      How long. (in seconds)\n"
		"      --mode=MODE   How to decode. (exact, tolerant or\n"
		"                    keyframe; default exact)\n"
		"      --[no-]audio  Sound too. (on unless turned off)\n"
		"  -j, --json        For machines.\n"
		"      --an-option-with-a-long-name=TEXT\n"
		"                    Caf\xc3\xa9.\n"
		"      --bare\n";
	struct kx_buf out KX_CLEANUP(kx_buf_done) = {.max = 1 << 16};

	assert_int_equal(kx_config_help(TABLE, KX_ARRAY_LEN(TABLE), INDEX, 63, &out), KX_OK);
	assert_string_equal((char *)out.data, EXPECTED);
}

static void only_the_commands_own_options(void **state)
{
	(void)state;
	struct kx_buf out KX_CLEANUP(kx_buf_done) = {.max = 1 << 16};

	assert_int_equal(kx_config_help(TABLE, KX_ARRAY_LEN(TABLE), SIMILAR, 200, &out), KX_OK);
	assert_string_equal((char *)out.data,
			    "  -d, --data=DIR  The folder that holds all that is indexed. (default kinodex-data)\n"
			    "  -k, --count=N   How many. (1 to 1000; default 10)\n");
}

static void no_line_is_wider_than_asked(void **state)
{
	(void)state;

	for (size_t width = 40; width < 120; width++) {
		struct kx_buf out KX_CLEANUP(kx_buf_done) = {.max = 1 << 16};

		assert_int_equal(kx_config_help(TABLE, KX_ARRAY_LEN(TABLE), INDEX, width, &out), KX_OK);
		for (char *line = (char *)out.data; *line; line += strcspn(line, "\n") + 1) {
			size_t len = strcspn(line, "\n");
			assert_true(len <= width);
			assert_true(len == 0 || line[len - 1] != ' ');
		}
	}
}

static void a_full_buffer_and_no_memory_are_told(void **state)
{
	(void)state;
	struct kx_buf small KX_CLEANUP(kx_buf_done) = {.max = 100};
	kx_status status = KX_ENOMEM;

	assert_int_equal(kx_config_help(TABLE, KX_ARRAY_LEN(TABLE), INDEX, 80, &small), KX_ETOOBIG);
	for (uint64_t nth = 1; status == KX_ENOMEM && nth < 1000; nth++) {
		struct kx_buf out KX_CLEANUP(kx_buf_done) = {.max = 1 << 16};

		kx_fault_arm("buf.grow", nth);
		status = kx_config_help(TABLE, KX_ARRAY_LEN(TABLE), INDEX, 80, &out);
	}
	kx_fault_clear();
	assert_int_equal(status, KX_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(help_is_aligned_and_wrapped),
		cmocka_unit_test(only_the_commands_own_options),
		cmocka_unit_test(no_line_is_wider_than_asked),
		cmocka_unit_test(a_full_buffer_and_no_memory_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
