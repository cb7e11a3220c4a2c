/* The language: what it means, how it is printed, and how it says what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/str.h"
#include "common/base/testkit.h"
#include "shard/query/filter.h"

#define NOW 1795748520.0 /* 2026-11-27T03:02:00Z */

static const char *const visual_labels[] = {"tench", "soccer ball", "ice hockey", "Speech"};
static const char *const audio_labels[] = {"Speech", "Music"};

static int set_up(void **state)
{
	struct kx_attributes *attributes = NULL;
	uint32_t number;

	assert_int_equal(kx_attributes_new(&attributes), KX_OK);
	assert_int_equal(kx_attributes_set_classes(attributes, &(struct kx_class_names){KX_VISUAL, 4, visual_labels}), KX_OK);
	assert_int_equal(kx_attributes_set_classes(attributes, &(struct kx_class_names){KX_AUDIO, 2, audio_labels}), KX_OK);
	assert_int_equal(kx_attributes_declare(attributes, "season", KX_ATTRIBUTE_NUMBER, &number), KX_OK);
	assert_int_equal(kx_attributes_declare(attributes, "league", KX_ATTRIBUTE_TEXT, &number), KX_OK);
	assert_int_equal(kx_attributes_declare(attributes, "live", KX_ATTRIBUTE_BOOL, &number), KX_OK);
	*state = attributes;
	return 0;
}

static int tear_down(void **state)
{
	kx_attributes_free(*state);
	return 0;
}

static void prints(const struct kx_attributes *attributes, const char *text, const char *canonical)
{
	KX_CLEANUP(kx_filter_cleanup) struct kx_filter *filter = NULL, *again = NULL;
	struct kx_error error = {0};

	if (kx_filter_parse(text, attributes, NOW, &filter, NULL, &error))
		fail_msg("%s: %s", text, error.message);
	assert_string_equal(filter->canonical, canonical);
	if (kx_filter_parse(filter->canonical, attributes, NOW, &again, NULL, &error))
		fail_msg("%s: %s", filter->canonical, error.message);
	assert_string_equal(again->canonical, canonical);
}

static void canonical_texts(void **state)
{
	prints(*state, "", "");
	prints(*state, " \n ", "");
	prints(*state, "class:\"soccer ball\">0.5 and duration<600", "class:\"soccer ball\" > 0.5 and duration < 600");
	prints(*state, "class:\"ICE hockey\"", "class:\"ICE hockey\"");
	prints(*state, "class:#712 >= 0.25", "class:#712 >= 0.25");
	prints(*state, "class:audio#1<0.1", "class:audio#1 < 0.1");
	prints(*state, "label:cat", "label = cat");
	prints(*state, "label:cat OR lang=en", "label = cat or language = en");
}

static void more_canonical_texts(void **state)
{
	prints(*state, "duration:1h30m", "duration = 5400");
	prints(*state, "duration<=1.5m", "duration <= 90");
	prints(*state, "added>2026-11-27", "added > 2026-11-27");
	prints(*state, "added>=2026-11-27T03:00", "added >= 2026-11-27T03:00");
	prints(*state, "added>=2026-11-27T03:00:05Z", "added >= 2026-11-27T03:00:05Z");
	prints(*state, "added>now-7d", "added > 2026-11-20T03:02:00Z");
	prints(*state, "added<now", "added < 2026-11-27T03:02:00Z");
	prints(*state, "source:/videos/*.mp4", "source:/videos/*.mp4");
	prints(*state, "source=https://a/b?c", "source = https://a/b?c");
	prints(*state, "title ~ \"two \\\"words\\\"\\n\"", "title ~ \"two \\\"words\\\"\\n\"");
	prints(*state, "has:audio and has:lang", "has:audio and has:language");
	prints(*state, "season in (1, 2,3.50)", "season in (1, 2, 3.5)");
	prints(*state, "league != premier and live:TRUE", "league != premier and live = true");
	prints(*state, "visibility IN (public,\"not listed\")", "visibility in (public, \"not listed\")");
}

static void structure(void **state)
{
	prints(*state, "(label:a)", "label = a");
	prints(*state, "label:a and (label:b and label:c)", "label = a and label = b and label = c");
	prints(*state, "label:a or label:b and label:c", "label = a or label = b and label = c");
	prints(*state, "(label:a or label:b) and label:c", "(label = a or label = b) and label = c");
	prints(*state, "not (label:a and not label:b)", "not (label = a and not label = b)");
	prints(*state, "not not label:a", "label = a");
	prints(*state, "NOT (NOT (NOT label:a))", "not label = a");
	prints(*state, "label:and and label:or or label:not", "label = and and label = or or label = not");
}

static void refused(const struct kx_attributes *attributes, const char *text, size_t offset, const char *says)
{
	struct kx_filter *filter = NULL;
	struct kx_error error = {0};
	size_t at = SIZE_MAX;

	if (!kx_filter_parse(text, attributes, NOW, &filter, &at, &error))
		fail_msg("%s was taken", text);
	if (!strstr(error.message, says) || at != offset)
		fail_msg("%s: at %zu: %s", text, at, error.message);
	assert_int_equal(error.status, KX_EINVAL);
	assert_null(filter);
}

static void mistakes_are_pointed_at(void **state)
{
	refused(*state, "durtaion<600", 0, "no attribute \"durtaion\"; did you mean \"duration\"?");
	refused(*state, "label:a and seson=3", 12, "did you mean \"season\"?");
	refused(*state, "Label:a", 0, "did you mean \"label\"?");
	refused(*state, "quux=3", 0, "no attribute \"quux\"\n");
	refused(*state, "has:sound", 4, "no attribute \"sound\"");
	refused(*state, "class:soccer>0.5", 6, "no class \"soccer\"; did you mean \"soccer ball\"?");
	refused(*state, "class:musik", 6, "did you mean \"Music\"?");
	refused(*state, "class:tench>much", 12, "is no score");
	refused(*state, "class:tench~1", 11, "a class has a score");
	refused(*state, "class=tench", 5, "write class:NAME");
	refused(*state, "duration<long", 9, "\"long\" is no duration");
	refused(*state, "duration<30m1h", 9, "is no duration");
	refused(*state, "added>2026-02-31", 6, "is no date");
	refused(*state, "season=three", 7, "\"three\" is no number, and season is one");
	refused(*state, "live=maybe", 5, "write true or false");
	refused(*state, "live<true", 4, "live is a bool");
	refused(*state, "duration~5", 8, "does not compare");
	refused(*state, "label<a", 5, "does not compare");
	refused(*state, "season in 3", 10, "values in brackets");
	refused(*state, "season in (3", 12, "a , or a )");
}

static void mistakes_of_structure(void **state)
{
	refused(*state, "label:a label:b", 8, "\"and\" or \"or\" belongs here");
	refused(*state, "label:a and", 11, "ends where a clause belongs");
	refused(*state, "(label:a", 0, "a bracket that is not closed");
	refused(*state, "label:a)", 7, "a ) without its (");
	refused(*state, "label", 5, "an operator belongs here");
	refused(*state, "label:", 6, "a value is missing");
	refused(*state, "label:)", 6, "a value belongs here");
	refused(*state, "title=\"open", 6, "a quote that is not closed");
	refused(*state, "title=\"a\\q\"", 8, "an escape that is none");
	refused(*state, "season ! 3", 7, "write != or not");
	refused(*state, "label:a and %", 12, "this stands where");
	refused(*state, "()", 1, "a clause belongs here");
}

static void the_caret_stands_under_the_mistake(void **state)
{
	struct kx_filter *filter = NULL;
	struct kx_error error = {0};
	KX_CLEANUP(kx_cleanup_free) char *long_text = kx_strf("title = \"%0200d\" and seson = 3 and label:a", 7);

	assert_int_equal(kx_filter_parse("title=gr\xc3\xbc\xc3\x9f and seson=3", *state, NOW, &filter, NULL, &error), KX_EINVAL);
	assert_string_equal(error.message, "filter, character 16: no attribute \"seson\"; did you mean \"season\"?\n"
					   "  title=gr\xc3\xbc\xc3\x9f and seson=3\n"
					   "                 ^");
	assert_non_null(long_text);
	assert_int_equal(kx_filter_parse(long_text, *state, NOW, &filter, NULL, &error), KX_EINVAL);
	const char *line = strchr(error.message, '\n') + 1, *caret = strchr(line, '\n') + 1;
	assert_memory_equal(line, "  ...000", 8);
	assert_memory_equal(line + (strlen(caret) - 1), "seson", 5);
}

static void size_and_depth_are_bounded(void **state)
{
	struct kx_filter *filter = NULL;
	struct kx_error error = {0};
	char *text = malloc((1 << 20) + 1);

	assert_non_null(text);
	memset(text, '(', 1 << 20);
	text[1 << 20] = '\0';
	assert_int_equal(kx_filter_parse(text, *state, NOW, &filter, NULL, &error), KX_ETOOBIG);
	assert_non_null(strstr(error.message, "1048576 bytes, and at most 65536"));
	text[60000] = '\0';
	refused(*state, text, 64, "more than 64 brackets");
	for (size_t i = 0; i < 1000; i++)
		memcpy(text + 4 * i, "not ", 5);
	refused(*state, text, 256, "more than 64 brackets and nots");
	strcpy(text, "label:a");
	for (size_t i = 0; i < KX_FILTER_CLAUSES_MAX; i++)
		strcpy(text + 7 + 11 * i, " or label:a");
	refused(*state, text, 7 + 11 * KX_FILTER_CLAUSES_MAX - 7, "more than 1024 clauses");
	strcpy(text, "label in (a");
	for (size_t i = 0; i < KX_FILTER_VALUES_MAX; i++)
		strcpy(text + 11 + 2 * i, ",a");
	refused(*state, text, 10 + 2 * KX_FILTER_VALUES_MAX, "more than 10000 values");
	assert_int_equal(kx_filter_parse("label=\"\xff\"", *state, NOW, &filter, NULL, &error), KX_EINVAL);
	assert_non_null(strstr(error.message, "no UTF-8"));
	free(text);
}

static void classes_without_names(void **state)
{
	struct kx_attributes *attributes = NULL;

	(void)state;
	assert_int_equal(kx_attributes_new(&attributes), KX_OK);
	refused(attributes, "class:tench", 6, "class:#712");
	prints(attributes, "class:#3>0.5 or class:visual#3", "class:#3 > 0.5 or class:visual#3");
	kx_attributes_free(attributes);
}

static const char *random_word(uint64_t *random)
{
	static const char *const words[] = {
		"label", "title", "duration", "added", "class", "season", "live", "has", "in", "and", "or", "not", "(", ")",
		",", ":", "=", "!=", "<", ">=", "~", "tench", "3", "2026-11-27", "now-1d", "true", "\"a b\"", "1h30m", "#7",
		"label:a", "season > 2", "has:audio", "class:tench>0.5", "added<now", "\"\\\"\"", "source:/a*", " "};

	return words[kx_test_below(random, KX_ARRAY_LEN(words))];
}

/* Whatever is taken prints to something that is taken and prints the same. */
static void printing_is_stable(void **state)
{
	uint64_t random = kx_test_seed();
	unsigned taken = 0;

	for (int round = 0; round < 50000; round++) {
		KX_CLEANUP(kx_filter_cleanup) struct kx_filter *filter = NULL;
		struct kx_buf text = {.max = 4096};

		for (size_t n = 1 + kx_test_below(&random, 9); n; n--)
			assert_int_equal(kx_buf_printf(&text, "%s ", random_word(&random)), KX_OK);
		if (!kx_filter_parse((char *)text.data, *state, NOW, &filter, NULL, NULL)) {
			prints(*state, filter->canonical, filter->canonical);
			taken++;
		}
		kx_buf_done(&text);
	}
	print_message("%u of 50000 were taken\n", taken);
	assert_true(taken > 500);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(canonical_texts),
		TEST(more_canonical_texts),
		TEST(structure),
		TEST(mistakes_are_pointed_at),
		TEST(mistakes_of_structure),
		TEST(the_caret_stands_under_the_mistake),
		TEST(size_and_depth_are_bounded),
		TEST(classes_without_names),
		TEST(printing_is_stable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
