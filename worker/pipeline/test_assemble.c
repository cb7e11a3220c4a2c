/* Items to moments: the same items give the same bytes, in whatever order they are inferred and wherever the video
 * was split. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/macros.h"
#include "worker/pipeline/assemble.h"

#define DIM 24
#define CLASSES 30
#define ITEMS_MAX 128

static struct kx_track_shape visual_shape(double fps)
{
	return (struct kx_track_shape){
		.modality = KX_VISUAL,
		.space = "visual/test/24/0",
		.dim = DIM,
		.class_count = CLASSES,
		.moment_us = 5000000,
		.fps = fps,
	};
}

static struct kx_track_shape audio_shape(void)
{
	struct kx_track_shape shape = visual_shape(0);

	shape.modality = KX_AUDIO;
	shape.space = "audio/test/24/0";
	return shape;
}

/* Numbers that depend on the index only. */
static void features_of(uint64_t index, float *features, float *scores)
{
	for (size_t i = 0; i < DIM; i++)
		features[i] = (float)((index * 31 + i * 17) % 101) / 7.0f;
	for (size_t i = 0; i < CLASSES; i++)
		scores[i] = (float)((index * 13 + i * 29) % 97) / 97.0f;
}

static struct kx_row *expect(struct kx_assembler *assembler, uint64_t index)
{
	struct kx_sample sample = {.index = index, .pts_us = index * 1000, .error_us = index % 7};
	struct kx_row *row = NULL;

	assert_int_equal(kx_assembler_expect(assembler, &sample, &row, NULL), KX_OK);
	return row;
}

static void fill(const struct kx_assembler *assembler, struct kx_row *row, uint64_t index)
{
	float features[DIM], scores[CLASSES];

	features_of(index, features, scores);
	assert_int_equal(kx_row_fill(&assembler->shape, row, features, scores), KX_OK);
	kx_row_settle(row);
}

/* Packs every complete moment, one after the other. Returns how many. */
static size_t drain(struct kx_assembler *assembler, struct kx_buf *out)
{
	struct kx_cell *cell;
	size_t count = 0;

	while ((cell = kx_assembler_take(assembler)) != NULL) {
		struct kx_moment moment;

		assert_int_equal(kx_cell_moment(cell, &assembler->shape, &moment, NULL), KX_OK);
		assert_int_equal(kx_moment_pack(&moment, out), KX_OK);
		kx_cell_free(cell);
		count++;
	}
	return count;
}

static void assert_same_bytes(const struct kx_buf *a, const struct kx_buf *b)
{
	assert_int_equal(a->len, b->len);
	assert_memory_equal(a->data, b->data, a->len);
}

/* Items [from, to) as one part, filled backwards when asked. */
static void run_part(const struct kx_track_shape *shape, uint64_t from, uint64_t to, bool backwards, struct kx_buf *out)
{
	struct kx_assembler assembler;
	struct kx_row *rows[ITEMS_MAX];
	size_t count = to - from;

	kx_assembler_init(&assembler, shape);
	for (size_t i = 0; i < count; i++)
		rows[i] = expect(&assembler, from + i);
	kx_assembler_end(&assembler);
	assert_false(kx_assembler_ready(&assembler));
	for (size_t i = 0; i < count; i++) {
		size_t at = backwards ? count - 1 - i : i;

		fill(&assembler, rows[at], from + at);
	}
	assert_true(drain(&assembler, out) > 0);
	assert_int_equal(assembler.row_count, count);
	kx_assembler_done(&assembler);
}

static void moment_is_complete_when_passed_and_filled(void **state)
{
	struct kx_track_shape shape = visual_shape(1);
	struct kx_assembler assembler;
	struct kx_row *rows[7];
	struct kx_buf out = {.max = 1 << 20};

	(void)state;
	kx_assembler_init(&assembler, &shape);
	for (uint64_t i = 0; i < 5; i++)
		rows[i] = expect(&assembler, i);
	for (uint64_t i = 0; i < 5; i++)
		fill(&assembler, rows[i], i);
	assert_false(kx_assembler_ready(&assembler)); /* filled and not passed */
	rows[5] = expect(&assembler, 5);
	assert_true(kx_assembler_ready(&assembler));
	assert_int_equal(drain(&assembler, &out), 1);
	kx_assembler_end(&assembler);
	assert_false(kx_assembler_ready(&assembler)); /* passed and not filled */
	fill(&assembler, rows[5], 5);
	assert_int_equal(kx_assembler_ready_count(&assembler), 1);
	assert_int_equal(drain(&assembler, &out), 1);
	assert_null(kx_assembler_take(&assembler));
	kx_assembler_done(&assembler);
	kx_buf_done(&out);
}

static void later_moment_waits_for_an_earlier_one(void **state)
{
	struct kx_track_shape shape = visual_shape(1);
	struct kx_assembler assembler;
	struct kx_row *first, *second;

	(void)state;
	kx_assembler_init(&assembler, &shape);
	first = expect(&assembler, 0);
	second = expect(&assembler, 5);
	kx_assembler_end(&assembler);
	fill(&assembler, second, 5);
	assert_false(kx_assembler_ready(&assembler));
	fill(&assembler, first, 0);
	assert_int_equal(kx_assembler_ready_count(&assembler), 2);
	kx_assembler_done(&assembler); /* frees what was not taken */
}

static void moment_says_what_its_rows_say(void **state)
{
	struct kx_track_shape shape = visual_shape(2);
	struct kx_assembler assembler;
	struct kx_moment moment;
	struct kx_cell *cell;
	double best = -1;

	(void)state;
	kx_assembler_init(&assembler, &shape);
	fill(&assembler, expect(&assembler, 33), 33); /* 16.5 s */
	fill(&assembler, expect(&assembler, 36), 36); /* 18.0 s; one was left out */
	kx_assembler_end(&assembler);
	cell = kx_assembler_take(&assembler);
	assert_non_null(cell);
	assert_int_equal(kx_cell_moment(cell, &shape, &moment, NULL), KX_OK);
	assert_int_equal(moment.index, 3);
	assert_int_equal(moment.count, 2);
	assert_int_equal(moment.pts_us[1], 36000);
	assert_int_equal(moment.max_time_error_us, 33 % 7);
	assert_int_equal(moment.class_count, KX_MOMENT_CLASSES);
	for (size_t c = 0; c < CLASSES; c++) {
		float f[DIM], a[CLASSES], b[CLASSES];

		features_of(33, f, a);
		features_of(36, f, b);
		best = fmax(best, ((double)a[c] + (double)b[c]) / 2);
	}
	assert_float_equal(moment.class_scores[0], best, 1e-6);
	for (size_t c = 1; c < moment.class_count; c++)
		assert_true(moment.class_scores[c] <= moment.class_scores[c - 1]);
	kx_cell_free(cell);
	assert_int_equal(assembler.max_error_us, 33 % 7);
	kx_assembler_done(&assembler);
}

static void order_of_inference_changes_nothing(void **state)
{
	const struct kx_track_shape shapes[] = {visual_shape(1), visual_shape(29.97), visual_shape(0.3), audio_shape()};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(shapes); i++) {
		struct kx_buf forwards = {.max = 1 << 24}, backwards = {.max = 1 << 24};

		run_part(&shapes[i], 0, 100, false, &forwards);
		run_part(&shapes[i], 0, 100, true, &backwards);
		assert_same_bytes(&forwards, &backwards);
		kx_buf_done(&forwards);
		kx_buf_done(&backwards);
	}
}

/* A part begins at a multiple of the moment, with the first item at or after it. */
static void split_changes_nothing(void **state)
{
	const double rates[] = {1, 2, 0.3, 3, 29.97 / 4};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(rates); i++) {
		struct kx_track_shape shape = visual_shape(rates[i]);
		struct kx_buf whole = {.max = 1 << 24}, parts = {.max = 1 << 24};

		run_part(&shape, 0, 100, false, &whole);
		for (uint64_t from = 0, to; from < 100; from = to) {
			uint64_t part_end_us = (kx_grid_us(&shape, from) / 10000000 + 1) * 10000000;

			for (to = from; to < 100 && kx_grid_us(&shape, to) < part_end_us; to++)
				;
			run_part(&shape, from, to, from % 2, &parts);
		}
		assert_same_bytes(&whole, &parts);
		kx_buf_done(&whole);
		kx_buf_done(&parts);
	}
}

static void grid_times_do_not_drift(void **state)
{
	struct kx_track_shape third = visual_shape(0.3), audio = audio_shape();

	(void)state;
	assert_int_equal(kx_grid_us(&third, 3), 10000000);       /* 3 / 0.3 is a little less than 10 in doubles */
	assert_int_equal(kx_grid_us(&third, 30000), 100000000000);
	assert_int_equal(kx_grid_us(&audio, 10) / 5000000, 0); /* starts at 4.8 s */
	assert_int_equal(kx_grid_us(&audio, 11) / 5000000, 1);
}

static void refuses_what_a_broken_decoder_may_say(void **state)
{
	struct kx_track_shape shape = visual_shape(1);
	struct kx_assembler assembler;
	struct kx_row *row = NULL;
	struct kx_sample again = {.index = 4}, back = {.index = 3};
	struct kx_sample absurd = {.index = UINT64_MAX}, far = {.index = 1ull << 40};

	(void)state;
	kx_assembler_init(&assembler, &shape);
	expect(&assembler, 4);
	assert_int_equal(kx_assembler_expect(&assembler, &again, &row, NULL), KX_EINVAL);
	assert_int_equal(kx_assembler_expect(&assembler, &back, &row, NULL), KX_EINVAL);
	assert_int_equal(kx_assembler_expect(&assembler, &absurd, &row, NULL), KX_EINVAL);
	assert_int_equal(kx_assembler_expect(&assembler, &far, &row, NULL), KX_EINVAL);
	assert_null(row);
	kx_assembler_done(&assembler);
}

static void refuses_too_many_rows_in_a_moment(void **state)
{
	struct kx_track_shape shape = visual_shape(240);
	struct kx_assembler assembler;
	struct kx_sample sample = {.index = KX_MOMENT_ROWS_MAX};
	struct kx_row *row = NULL;

	(void)state;
	shape.moment_us = 60000000;
	kx_assembler_init(&assembler, &shape);
	for (uint64_t i = 0; i < KX_MOMENT_ROWS_MAX; i++)
		expect(&assembler, i);
	assert_int_equal(kx_assembler_expect(&assembler, &sample, &row, NULL), KX_ETOOBIG);
	kx_assembler_done(&assembler);
}

static void refuses_numbers_that_are_not_finite(void **state)
{
	struct kx_track_shape shape = visual_shape(1);
	struct kx_assembler assembler;
	float features[DIM], scores[CLASSES];
	struct kx_row *row;

	(void)state;
	kx_assembler_init(&assembler, &shape);
	row = expect(&assembler, 0);
	features_of(0, features, scores);
	features[DIM - 1] = NAN;
	assert_int_equal(kx_row_fill(&shape, row, features, scores), KX_EINVAL);
	features[DIM - 1] = 0;
	scores[0] = INFINITY;
	assert_int_equal(kx_row_fill(&shape, row, features, scores), KX_EINVAL);
	kx_assembler_done(&assembler);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(moment_is_complete_when_passed_and_filled),
		cmocka_unit_test(later_moment_waits_for_an_earlier_one),
		cmocka_unit_test(moment_says_what_its_rows_say),
		cmocka_unit_test(order_of_inference_changes_nothing),
		cmocka_unit_test(split_changes_nothing),
		cmocka_unit_test(grid_times_do_not_drift),
		cmocka_unit_test(refuses_what_a_broken_decoder_may_say),
		cmocka_unit_test(refuses_too_many_rows_in_a_moment),
		cmocka_unit_test(refuses_numbers_that_are_not_finite),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
