#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/config/config.h"

enum { INDEX = 1, SIMILAR = 2 };

static const struct kx_option TABLE[] = {
	{"data-dir", 'd', KX_OPTION_TEXT, "DIR", 0, 0, "kinodex-data", NULL, "Where all is kept.", INDEX | SIMILAR},
	{"fps", 0, KX_OPTION_REAL, "frames a second", 0.1, 60, "1", NULL, "Frames sampled.", INDEX},
	{"segment", 0, KX_OPTION_INT, "seconds", 10, 3600, "600", NULL, "Segment length.", INDEX},
	{"workers", 'w', KX_OPTION_INT, NULL, 1, INFINITY, NULL, NULL, "Workers.", INDEX},
	{"offset", 0, KX_OPTION_INT, "seconds", 0, 0, NULL, NULL, "Any number.", INDEX},
	{"mode", 'm', KX_OPTION_CHOICE, NULL, 0, 0, "exact", "exact|tolerant|keyframe", "How.", INDEX},
	{"json", 'j', KX_OPTION_FLAG, NULL, 0, 0, NULL, NULL, "JSON.", INDEX | SIMILAR},
	{"quiet", 'q', KX_OPTION_FLAG, NULL, 0, 0, NULL, NULL, "Quiet.", INDEX | SIMILAR},
	{"audio", 0, KX_OPTION_FLAG, NULL, 0, 0, "true", NULL, "Sound too.", INDEX},
	{"count", 'k', KX_OPTION_INT, "videos", 1, 1000, "10", NULL, "Nearest.", SIMILAR},
	{"top", 0, KX_OPTION_INT, NULL, 1, 5, "5", NULL, "Same key, index.", INDEX},
	{"top", 0, KX_OPTION_INT, NULL, 1, 50, "50", NULL, "Same key, similar.", SIMILAR},
};

#define MAX_ARGS 16

/* args: words ending with NULL. */
static kx_status parse_for(unsigned command, const char *file, const char *const *args, struct kx_config **ret,
			   struct kx_error *error)
{
	char *argv[MAX_ARGS];
	int argc = 0;

	for (; args[argc]; argc++) {
		assert_true(argc < MAX_ARGS);
		argv[argc] = kx_strdup(args[argc]);
		assert_non_null(argv[argc]);
	}
	kx_status status = kx_config_parse(TABLE, KX_ARRAY_LEN(TABLE), command, file, argc, argv, ret, error);
	while (argc > 0)
		free(argv[--argc]);
	return status;
}

#define ARGS(...) (const char *const[]){__VA_ARGS__, NULL}
#define NO_ARGS ((const char *const[]){NULL})

static struct kx_config *parse(const char *file, const char *const *args)
{
	struct kx_config *config = NULL;
	struct kx_error error = {0};

	if (parse_for(INDEX, file, args, &config, &error))
		fail_msg("%s", error.message);
	return config;
}

static void assert_refused_for(unsigned command, const char *file, const char *const *args, const char *message)
{
	struct kx_config *config = NULL;
	struct kx_error error = {0};

	assert_int_equal(parse_for(command, file, args, &config, &error), KX_EINVAL);
	assert_string_equal(error.message, message);
	assert_int_equal(error.class, KX_ERROR_FATAL);
	assert_null(config);
}

static void assert_refused(const char *const *args, const char *message)
{
	assert_refused_for(INDEX, NULL, args, message);
}

static void defaults(void **state)
{
	(void)state;
	struct kx_config *config KX_CLEANUP(kx_config_cleanup) = parse(NULL, NO_ARGS);

	assert_string_equal(kx_config_text(config, "data-dir"), "kinodex-data");
	assert_true(kx_config_real(config, "fps") == 1);
	assert_int_equal(kx_config_int(config, "segment"), 600);
	assert_int_equal(kx_config_int(config, "workers"), 0);
	assert_string_equal(kx_config_text(config, "mode"), "exact");
	assert_false(kx_config_flag(config, "json"));
	assert_true(kx_config_flag(config, "audio"));
	assert_int_equal(kx_config_argc(config), 0);
}

static void every_way_to_write_an_option(void **state)
{
	(void)state;
	static const char *const WAYS[][4] = {
		{"-w", "5"}, {"-w5"}, {"--workers=5"}, {"--workers", "5"}, {"-jw5"}, {"-qjw", "5"}, {"-w1", "-w5"},
	};

	for (size_t i = 0; i < KX_ARRAY_LEN(WAYS); i++) {
		struct kx_config *config KX_CLEANUP(kx_config_cleanup) = parse(NULL, WAYS[i]);
		assert_int_equal(kx_config_int(config, "workers"), 5);
	}
}

static void flags(void **state)
{
	(void)state;
	static const struct {
		const char *words[4];
		bool json;
	} CASES[] = {
		{{"--json"}, true},		{{"-j"}, true},		     {{"--json=yes"}, true},
		{{"--json=false"}, false},	{{"--json=0"}, false},	     {{"--json", "--no-json"}, false},
		{{"--no-json", "--json"}, true},
	};

	for (size_t i = 0; i < KX_ARRAY_LEN(CASES); i++) {
		struct kx_config *config KX_CLEANUP(kx_config_cleanup) = parse(NULL, CASES[i].words);
		assert_int_equal(kx_config_flag(config, "json"), CASES[i].json);
		}
	struct kx_config *config KX_CLEANUP(kx_config_cleanup) = parse(NULL, ARGS("--no-audio"));
	assert_false(kx_config_flag(config, "audio"));
	assert_refused(ARGS("--json=maybe"), "--json: \"maybe\" is neither true nor false");
	assert_refused(ARGS("--no-json=true"), "option --no-json takes no value");
}

static void positional_arguments(void **state)
{
	(void)state;
	struct kx_config *config KX_CLEANUP(kx_config_cleanup) =
		parse(NULL, ARGS("a", "--json", "true", "-", "-w", "2", "", "--", "--json", "--", "-x"));
	static const char *const EXPECTED[] = {"a", "true", "-", "", "--json", "--", "-x"};

	assert_int_equal(kx_config_argc(config), KX_ARRAY_LEN(EXPECTED));
	for (size_t i = 0; i < KX_ARRAY_LEN(EXPECTED); i++)
		assert_string_equal(kx_config_arg(config, i), EXPECTED[i]);
}

static void values_that_begin_with_a_dash(void **state)
{
	(void)state;
	struct kx_config *config KX_CLEANUP(kx_config_cleanup) =
		parse(NULL, ARGS("--offset", "-5", "--data-dir=--odd", "-d", "-"));

	assert_int_equal(kx_config_int(config, "offset"), -5);
	assert_string_equal(kx_config_text(config, "data-dir"), "-");
	assert_refused(ARGS("--data-dir", "--json"), "option --data-dir needs a value: write --data-dir=VALUE");
	assert_refused(ARGS("-w"), "option --workers needs a value: write --workers=VALUE");
}

static void unknown_options_name_the_nearest(void **state)
{
	(void)state;

	assert_refused(ARGS("--segmant=5"), "unknown option --segmant: did you mean --segment?");
	assert_refused(ARGS("--data", "x"), "unknown option --data: did you mean --data-dir?");
	assert_refused(ARGS("--zzz"), "unknown option --zzz: see --help");
	assert_refused(ARGS("--no-fps"), "unknown option --no-fps: did you mean --fps?");
	assert_refused(ARGS("-jz"), "unknown option -z: see --help");
}

static void options_of_other_commands(void **state)
{
	(void)state;

	assert_refused(ARGS("--count=5"),
		       "option --count belongs to another command: see --help for the options of this one");
	assert_refused(ARGS("-k", "5"),
		       "option --count belongs to another command: see --help for the options of this one");
	assert_refused_for(SIMILAR, NULL, ARGS("--no-audio"),
			   "option --no-audio belongs to another command: see --help for the options of this one");
	assert_refused_for(SIMILAR, NULL, ARGS("--segmant=5"), "unknown option --segmant: see --help");
}

static void the_same_key_for_two_commands(void **state)
{
	(void)state;
	struct kx_error error = {0};
	struct kx_config *config KX_CLEANUP(kx_config_cleanup) = NULL;

	assert_refused(ARGS("--top=20"), "--top: 20 is out of range: 1 to 5");
	assert_int_equal(parse_for(SIMILAR, NULL, ARGS("--top=20"), &config, &error), KX_OK);
	assert_int_equal(kx_config_int(config, "top"), 20);
}

static void values_are_checked(void **state)
{
	(void)state;

	assert_refused(ARGS("--segment=5"), "--segment: 5 is out of range: 10 to 3600 seconds");
	assert_refused(ARGS("--segment=3601"), "--segment: 3601 is out of range: 10 to 3600 seconds");
	assert_refused(ARGS("--fps=0.05"), "--fps: 0.05 is out of range: 0.1 to 60 frames a second");
	assert_refused(ARGS("-w0"), "--workers: 0 is out of range: at least 1");
	assert_refused(ARGS("--segment=6.5"), "--segment: \"6.5\" is not a whole number");
	assert_refused(ARGS("--segment="), "--segment: \"\" is not a whole number");
	assert_refused(ARGS("--segment= 60"), "--segment: \" 60\" is not a whole number");
	assert_refused(ARGS("--offset=9223372036854775808"),
		       "--offset: \"9223372036854775808\" is too large a number");
	assert_refused(ARGS("--fps=fast"), "--fps: \"fast\" is not a number");
	assert_refused(ARGS("--fps=nan"), "--fps: \"nan\" is not a number");
	assert_refused(ARGS("--mode=exac"), "--mode: \"exac\" is none of exact, tolerant, keyframe");
	assert_refused(ARGS("--mode=exact|tolerant"), "--mode: \"exact|tolerant\" is none of exact, tolerant, keyframe");

	struct kx_config *config KX_CLEANUP(kx_config_cleanup) =
		parse(NULL, ARGS("--segment=3600", "--fps=0.1", "--mode=keyframe", "--offset=-9223372036854775808"));
	assert_int_equal(kx_config_int(config, "segment"), 3600);
	assert_true(kx_config_int(config, "offset") == INT64_MIN);
	assert_true(kx_config_real(config, "fps") == 0.1);
	assert_string_equal(kx_config_text(config, "mode"), "keyframe");
}

static void environment(void **state)
{
	(void)state;

	assert_int_equal(setenv("KINODEX_DATA_DIR", "/srv", 1), 0);
	assert_int_equal(setenv("KINODEX_FPS", "", 1), 0);
	assert_int_equal(setenv("KINODEX_TOP", "3", 1), 0);
	struct kx_config *config KX_CLEANUP(kx_config_cleanup) = parse(NULL, NO_ARGS);
	assert_string_equal(kx_config_text(config, "data-dir"), "/srv");
	assert_true(kx_config_real(config, "fps") == 1);
	assert_int_equal(kx_config_int(config, "top"), 3);
	assert_int_equal(setenv("KINODEX_FPS", "61", 1), 0);
	assert_refused(NO_ARGS, "KINODEX_FPS: 61 is out of range: 0.1 to 60 frames a second");
}

static int forget_environment(void **state)
{
	(void)state;
	return unsetenv("KINODEX_DATA_DIR") || unsetenv("KINODEX_FPS") || unsetenv("KINODEX_TOP") ? -1 : 0;
}

static int enter_folder(void **state)
{
	char *folder = kx_strdup("/tmp/kx-config-XXXXXX");

	if (!folder || !mkdtemp(folder) || chdir(folder))
		return -1;
	*state = folder;
	return 0;
}

static int leave_folder(void **state)
{
	int failed = chdir("/") || kx_fs_remove_tree(*state, NULL) || forget_environment(NULL);

	free(*state);
	return failed ? -1 : 0;
}

static const char *write_file(const char *text, size_t len)
{
	struct kx_error error = {0};

	if (kx_fs_write("k.conf", text, len, &error))
		fail_msg("%s", error.message);
	return "k.conf";
}

static void assert_file_refused(const char *text, const char *message)
{
	assert_refused_for(INDEX, write_file(text, strlen(text)), NO_ARGS, message);
}

static void file(void **state)
{
	(void)state;
	static const char TEXT[] = "# a comment\n"
				   "\r\n"
				   "  data-dir =  /srv/a b#c=d  # where\r\n"
				   "fps=5\n"
				   "fps = 6\n"
				   "count = 7\n" /* another command's */
				   "\tjson=yes";
	struct kx_config *config KX_CLEANUP(kx_config_cleanup) = parse(write_file(TEXT, strlen(TEXT)), NO_ARGS);

	assert_string_equal(kx_config_text(config, "data-dir"), "/srv/a b#c=d");
	assert_true(kx_config_real(config, "fps") == 6);
	assert_true(kx_config_flag(config, "json"));
}

static void file_errors_name_the_line(void **state)
{
	(void)state;

	assert_file_refused("fps = 1\nsegmant = 5\n", "k.conf:2: unknown key segmant: did you mean segment?");
	assert_file_refused("coun = 5", "k.conf:1: unknown key coun: did you mean count?");
	assert_file_refused("zzz = 5", "k.conf:1: unknown key zzz");
	assert_file_refused("\n\n\nfps = 99", "k.conf:4: fps: 99 is out of range: 0.1 to 60 frames a second");
	assert_file_refused("json\n", "k.conf:1: \"json\" has no value: write key = value");
	assert_file_refused("= 5\n", "k.conf:1: unknown key ");
	assert_refused_for(INDEX, write_file("fps\0= 1", 7), NO_ARGS, "configuration file k.conf: is not text");
	assert_refused_for(INDEX, "none.conf", NO_ARGS, "configuration file none.conf: No such file or directory");
}

static void later_sources_win(void **state)
{
	(void)state;
	static const char TEXT[] = "data-dir = file\nsegment = 20\nfps = 2\n";
	const char *path = write_file(TEXT, strlen(TEXT));

	assert_int_equal(setenv("KINODEX_DATA_DIR", "environment", 1), 0);
	assert_int_equal(setenv("KINODEX_FPS", "3", 1), 0);
	struct kx_config *config KX_CLEANUP(kx_config_cleanup) = parse(path, ARGS("--data-dir=line"));
	assert_string_equal(kx_config_text(config, "data-dir"), "line");
	assert_true(kx_config_real(config, "fps") == 3);
	assert_int_equal(kx_config_int(config, "segment"), 20);
}

static void a_bad_default_is_found(void **state)
{
	(void)state;
	static const struct kx_option BAD[] = {
		{"fps", 0, KX_OPTION_REAL, NULL, 1, 2, "3", NULL, "", INDEX},
	};
	struct kx_config *config = NULL;
	struct kx_error error = {0};

	assert_int_equal(kx_config_parse(BAD, 1, INDEX, NULL, 0, NULL, &config, &error), KX_EINVAL);
	assert_string_equal(error.message, "default of fps: 3 is out of range: 1 to 2");
}

/* Fails each allocation of a string in turn: no leak (the sanitizer's to say), no crash, the right status. */
static void out_of_memory(void **state)
{
	(void)state;
	static const char *const WORDS[] = {"a", "--data-dir=x", "--mode", "tolerant", "b", NULL};
	kx_status status = KX_ENOMEM;
	uint64_t nth = 0;

	while (status == KX_ENOMEM && nth < 1000) {
		struct kx_config *config KX_CLEANUP(kx_config_cleanup) = NULL;
		char *argv[KX_ARRAY_LEN(WORDS)];
		struct kx_error error = {0};

		memcpy(argv, WORDS, sizeof(argv));
		kx_fault_arm("str.alloc", ++nth);
		status = kx_config_parse(TABLE, KX_ARRAY_LEN(TABLE), INDEX, NULL, KX_ARRAY_LEN(WORDS) - 1, argv, &config,
					 &error);
		assert_int_equal(status == KX_OK, config != NULL);
	}
	kx_fault_clear();
	assert_int_equal(status, KX_OK);
	assert_true(nth > 10);
}

#define FOLDER_TEST(test) cmocka_unit_test_setup_teardown(test, enter_folder, leave_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(every_way_to_write_an_option),
		cmocka_unit_test(flags),
		cmocka_unit_test(positional_arguments),
		cmocka_unit_test(values_that_begin_with_a_dash),
		cmocka_unit_test(unknown_options_name_the_nearest),
		cmocka_unit_test(options_of_other_commands),
		cmocka_unit_test(the_same_key_for_two_commands),
		cmocka_unit_test(values_are_checked),
		cmocka_unit_test_teardown(environment, forget_environment),
		FOLDER_TEST(file),
		FOLDER_TEST(file_errors_name_the_line),
		FOLDER_TEST(later_sources_win),
		cmocka_unit_test(a_bad_default_is_found),
		cmocka_unit_test(out_of_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
