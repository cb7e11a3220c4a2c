#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/testkit.h"
#include "common/record/cursor.h"
#include "common/record/test_samples.h"

static void a_cursor_comes_back(void **state)
{
	struct kx_cursor cursor = {.fingerprint = 0xfedcba9876543210, .epoch = 77, .score = 0.12345678901234567,
				   .moment_us = 15000000, .video_id = "fo\xc3\xbc/b\xff.mp4"};
	struct kx_cursor got = {0};
	char *text = kx_cursor_encode(&cursor);

	(void)state;
	assert_non_null(text);
	assert_int_equal(kx_cursor_decode(text, cursor.fingerprint, &got, NULL), KX_OK);
	assert_true(got.score == cursor.score);
	assert_int_equal(got.epoch, 77);
	assert_int_equal(got.moment_us, 15000000);
	assert_string_equal(got.video_id, cursor.video_id);
	kx_cursor_done(&got);
	free(text);
}

static void assert_none(const char *text, const char *said)
{
	struct kx_cursor got = {.epoch = 5};
	struct kx_error error = {0};

	assert_int_equal(kx_cursor_decode(text, 1, &got, &error), KX_EINVAL);
	assert_int_equal(error.class, KX_ERROR_POISON);
	assert_non_null(strstr(error.message, said));
	assert_int_equal(got.epoch, 5); /* written only on success */
}

static void what_is_no_cursor_is_refused(void **state)
{
	struct kx_cursor cursor = {.fingerprint = 2, .score = 0.5, .video_id = "a"};
	struct kx_cursor broken = {.fingerprint = 1, .score = NAN, .video_id = "a"};
	char *text = kx_cursor_encode(&cursor), *no_number = kx_cursor_encode(&broken);
	uint64_t random = kx_test_seed();
	size_t len;

	(void)state;
	assert_non_null(text);
	assert_non_null(no_number);
	assert_none(text, "another query");
	assert_none(no_number, "none that an answer gave");
	assert_none("", "none that an answer gave");
	assert_none("abc", "none that an answer gave");
	assert_none("zz", "none that an answer gave");
	len = strlen(text);
	for (int i = 0; i < 200; i++) {
		size_t at = kx_test_below(&random, len);
		char was = text[at];

		text[at] = "0123456789abcdefg"[kx_test_below(&random, 17)];
		if (text[at] != was)
			assert_none(text, "none that an answer gave");
		text[at] = was;
	}
	free(text);
	free(no_number);
}

static void the_fingerprint_tells_queries_apart(void **state)
{
	struct kx_similar_query query = sample_similar.similar;
	uint64_t first = kx_similar_query_fingerprint(&query);
	float values[4] = {0.5f, 0.5f, 0.5f, 0.5f};
	struct kx_query_vector vector = query.vectors[0];

	(void)state;
	query.k++;
	query.cursor = "other";
	query.explain = false;
	query.recall = 1.0;
	assert_true(kx_similar_query_fingerprint(&query) == first);
#define DIFFERS(change)                                                        \
	do {                                                                   \
		query = sample_similar.similar;                                \
		change;                                                        \
		assert_false(kx_similar_query_fingerprint(&query) == first);   \
	} while (0)
	DIFFERS(query.filter = "label:dog");
	DIFFERS(query.filter = NULL);
	DIFFERS(query.video_id = "folder/clip2.mp4");
	DIFFERS(query.weight_audio = 0.5);
	DIFFERS(query.has_min_score = false);
	DIFFERS(query.group = KX_GROUP_NONE);
	DIFFERS(query.level = KX_LEVEL_VIDEOS);
	DIFFERS(query.not_id_count = 1);
	vector.values = values;
	DIFFERS((query.vectors = &vector, query.vector_count = 1));
}

static void hits_have_one_order(void **state)
{
	(void)state;
	assert_true(kx_hit_order(0.9, "b", 0, 0.8, "a", 0) < 0);
	assert_true(kx_hit_order(0.8, "b", 0, 0.9, "a", 0) > 0);
	assert_true(kx_hit_order(0.9, "a", 9, 0.9, "b", 0) < 0);
	assert_true(kx_hit_order(0.9, "a", 9, 0.9, "a", 8) > 0);
	assert_int_equal(kx_hit_order(0.9, "a", 9, 0.9, "a", 9), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cursor_comes_back),
		cmocka_unit_test(what_is_no_cursor_is_refused),
		cmocka_unit_test(the_fingerprint_tells_queries_apart),
		cmocka_unit_test(hits_have_one_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
