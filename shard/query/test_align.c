#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/learn/learn.h"
#include "shard/query/align.h"

#define DIM 8u
static const double both[KX_ANN_MODALITIES] = {0.6, 0.4};

/* The unit vector of an axis, blended with the next one. */
static void put(struct kx_align_side *side, enum kx_modality modality, uint32_t index, uint32_t axis, float blend)
{
	float values[DIM] = {0};

	values[axis % DIM] = 1.0f - blend;
	values[(axis + 1) % DIM] += blend;
	assert_int_equal(kx_align_add(side, modality, modality == KX_VISUAL ? "v" : "a", DIM, index, values, NULL), KX_OK);
}

static void test_shifted_copy(void **state)
{
	struct kx_align_side ours = {0}, theirs = {0};
	struct kx_moment_match matches[KX_ALIGN_MATCHES];
	uint32_t count;

	(void)state;
	/* Theirs begins three moments earlier, and its last moments are of something else. */
	for (uint32_t i = 0; i < 7; i++) {
		put(&ours, KX_VISUAL, i, i, 0.0f);
		put(&ours, KX_AUDIO, i, i, 0.0f);
		put(&theirs, KX_VISUAL, i + 3, i, i < 4 ? 0.0f : 0.5f);
		put(&theirs, KX_AUDIO, i + 3, i, i < 4 ? 0.0f : 0.5f);
	}
	assert_int_equal(kx_align(&ours, &theirs, both, 10, 100, matches, &count), KX_OK);
	assert_int_equal(count, KX_ALIGN_MATCHES);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(matches[i].ours_us, 10 * i);
		assert_int_equal(matches[i].theirs_us, 100 * (i + 3));
		assert_true(fabs(matches[i].score - 1.0) < 1e-9);
		assert_true(fabs(matches[i].visual - 0.6) < 1e-9);
		assert_true(fabs(matches[i].audio - 0.4) < 1e-9);
	}
	assert_true(matches[4].score < 0.9);
	kx_align_side_done(&ours);
	kx_align_side_done(&theirs);
}

static void test_masks(void **state)
{
	struct kx_align_side ours = {0}, theirs = {0};
	struct kx_moment_match matches[KX_ALIGN_MATCHES];
	uint32_t count;

	(void)state;
	put(&ours, KX_VISUAL, 0, 0, 0.0f);
	put(&ours, KX_AUDIO, 1, 1, 0.0f);
	put(&theirs, KX_AUDIO, 5, 1, 0.0f);
	put(&theirs, KX_VISUAL, 6, 3, 0.0f);
	assert_int_equal(kx_align(&ours, &theirs, both, 1, 1, matches, &count), KX_OK);
	assert_int_equal(count, 2);
	/* Sound alone on both sides: all of the score is sound's. */
	assert_int_equal(matches[0].ours_us, 1);
	assert_int_equal(matches[0].theirs_us, 5);
	assert_true(fabs(matches[0].audio - 1.0) < 1e-9);
	assert_true(matches[0].visual == 0.0);
	assert_int_equal(matches[1].theirs_us, 6);
	/* With no weight on it there is nothing to say. */
	assert_int_equal(kx_align(&ours, &theirs, (double[]){1.0, 0.0}, 1, 1, matches, &count), KX_OK);
	assert_int_equal(count, 1);
	assert_int_equal(matches[0].theirs_us, 6);
	kx_align_side_done(&ours);
	kx_align_side_done(&theirs);
}

static void test_ties_go_to_the_earlier(void **state)
{
	struct kx_align_side ours = {0}, theirs = {0};
	struct kx_moment_match matches[KX_ALIGN_MATCHES];
	uint32_t count;

	(void)state;
	/* One still picture for the whole of both: 300 moments, so more than a block. */
	for (uint32_t i = 0; i < 300; i++) {
		put(&ours, KX_VISUAL, i, 0, 0.3f);
		put(&theirs, KX_VISUAL, i, 0, 0.3f);
	}
	assert_int_equal(kx_align(&ours, &theirs, both, 1, 1, matches, &count), KX_OK);
	assert_int_equal(count, KX_ALIGN_MATCHES);
	for (uint32_t i = 0; i < count; i++) {
		assert_int_equal(matches[i].ours_us, 0);
		assert_int_equal(matches[i].theirs_us, i);
	}
	kx_align_side_done(&ours);
	kx_align_side_done(&theirs);
}

static void test_far_in_a_long_one(void **state)
{
	struct kx_align_side ours = {0}, theirs = {0};
	struct kx_moment_match matches[KX_ALIGN_MATCHES];
	uint32_t count;

	(void)state;
	/* Only every third of ours has sound, so tracks and time axis run apart; the match is in the third block. */
	for (uint32_t i = 0; i < 700; i++) {
		put(&ours, KX_VISUAL, i, 0, 0.0f);
		if (i % 3 == 0)
			put(&ours, KX_AUDIO, i, i == 600 ? 4 : 0, 0.0f);
	}
	put(&theirs, KX_AUDIO, 9, 4, 0.0f);
	assert_int_equal(kx_align(&ours, &theirs, both, 1, 1, matches, &count), KX_OK);
	assert_int_equal(count, 1);
	assert_int_equal(matches[0].ours_us, 600);
	assert_true(fabs(matches[0].score - 1.0) < 1e-6);
	kx_align_side_done(&ours);
	kx_align_side_done(&theirs);
}

static void test_what_is_refused(void **state)
{
	struct kx_align_side side = {0};
	float zero[DIM] = {0}, one[DIM] = {1}, bad[DIM] = {NAN};
	struct kx_error error = {0};

	(void)state;
	assert_int_equal(kx_align_add(&side, KX_VISUAL, "v", DIM, 0, zero, NULL), KX_OK);
	assert_int_equal(side.tracks[0].count, 0);
	assert_int_equal(kx_align_add(&side, KX_VISUAL, "v", DIM, 4, one, NULL), KX_OK);
	assert_int_equal(kx_align_add(&side, KX_VISUAL, "v", DIM, 4, one, NULL), KX_EINVAL);
	assert_int_equal(kx_align_add(&side, KX_VISUAL, "v", DIM - 1, 5, one, NULL), KX_EINVAL);
	assert_int_equal(kx_align_add(&side, KX_VISUAL, "w", DIM, 5, one, &error), KX_EINVAL);
	assert_non_null(strstr(error.message, "space w"));
	assert_int_equal(kx_align_add(&side, KX_VISUAL, "v", DIM, 5, bad, NULL), KX_EINVAL);
	assert_int_equal(side.tracks[0].count, 1);
	kx_align_side_done(&side);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shifted_copy),
		cmocka_unit_test(test_masks),
		cmocka_unit_test(test_ties_go_to_the_earlier),
		cmocka_unit_test(test_far_in_a_long_one),
		cmocka_unit_test(test_what_is_refused),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
