/* How many of the nearest the approximate index finds, also under filters: as many as are asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "shard/ann/testkit.h"

static void test_recall(void **state)
{
	static const uint32_t dims[] = {8, 64, 100, 256, 1280, 2048};
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(dims); i++) {
		for (int metric = KX_METRIC_COSINE; metric <= KX_METRIC_INNER_PRODUCT; metric++) {
			uint32_t rows = dims[i] > 1000 ? 500 : 2500;
			struct kx_world *world = kx_world_full(dims[i], rows, rows / 50, (enum kx_metric)metric);
			double guessed = kx_world_recall(world, kx_world_usual, 100), tuned;

			kx_world_tune(world);
			tuned = kx_world_recall(world, kx_world_usual, 200);
			printf("%u dimensions, metric %d: recall %.3f, tuned %.3f\n", dims[i], metric, guessed, tuned);
			assert_true(guessed > 0.96);
			assert_true(tuned > 0.95);
			assert_true(kx_world_recall(world, kx_world_exact, 5) >= 1.0);
			kx_world_free(world);
		}
	}
}

/* By the first rows; how. */
static struct kx_ivf_tuning tune_by_rows(struct kx_world *world, size_t count)
{
	uint32_t *rows = calloc(count, sizeof(*rows));
	struct kx_ivf_tuning tuning;

	assert_non_null(rows);
	for (uint32_t i = 0; i < count; i++)
		rows[i] = i;
	assert_int_equal(kx_ivf_tune_rows(world->ivf, world->values, rows, count, &tuning, NULL), KX_OK);
	kx_ivf_set_tuning(world->ivf, &tuning);
	free(rows);
	return tuning;
}

/* What is asked for is what is got, by queries that it was not tuned with. */
static void test_asked_is_got(void **state)
{
	static const double wanted[] = {0.9, 0.95, 0.98};
	struct kx_world *world = kx_world_full(128, 8000, 80, KX_METRIC_COSINE);

	(void)state;
	(void)tune_by_rows(world, 1000);
	for (size_t i = 0; i < KX_ARRAY_LEN(wanted); i++) {
		struct kx_ivf_query query = kx_world_usual;
		double got;

		query.recall = wanted[i];
		got = kx_world_recall(world, query, 400);
		printf("asked %.3f, got %.4f\n", wanted[i], got);
		assert_true(fabs(got - wanted[i]) < 0.02);
	}
	kx_world_free(world);
}

static void test_filters(void **state)
{
	static const double shares[] = {0.5, 0.1, 0.01, 0.001, 0.0001, 0};
	struct kx_world *world = kx_world_full(64, 15000, 150, KX_METRIC_COSINE);

	(void)state;
	kx_world_tune(world);
	for (size_t i = 0; i < KX_ARRAY_LEN(shares); i++) {
		struct kx_ivf_query query = kx_world_usual, all = kx_world_exact;
		struct kx_ivf_filter *filter = kx_world_random_filter(world, shares[i]);
		double recall;

		query.filter = all.filter = filter;
		recall = kx_world_recall(world, query, 100);
		printf("filter of %g: %llu rows, recall %.3f\n", shares[i],
		       (unsigned long long)kx_ivf_filter_matches(filter), recall);
		assert_true(recall > 0.95);
		assert_true(kx_world_recall(world, all, 5) >= 1.0);
		kx_ivf_filter_free(filter);
	}
	kx_world_free(world);
}

/* Rows that match stand in few cells, as a label's do. */
static void test_filter_follows_changes(void **state)
{
	struct kx_world *world = kx_world_full(64, 15000, 150, KX_METRIC_COSINE);
	struct kx_ivf_query query = kx_world_usual;
	struct kx_ivf_filter *filter = kx_world_random_filter(world, 0.5);
	uint32_t matches = (uint32_t)kx_ivf_filter_matches(filter);

	(void)state;
	kx_world_tune(world);
	query.filter = filter;
	for (int round = 0; round < 5; round++) {
		assert_true(kx_world_recall(world, query, 60) > 0.95);
		for (int i = 0; i < 300; i++) {
			uint32_t row = (uint32_t)kx_test_below(&world->random, world->rows);
			bool had = kx_ivf_filter_has(filter, row);

			assert_int_equal(kx_ivf_filter_set(filter, row, !had), KX_OK);
			matches = had ? matches - 1 : matches + 1;
			row = (uint32_t)kx_test_below(&world->random, world->rows);
			if (world->cell_of[row] == KX_IVF_NO_CELL) {
				kx_world_add_row(world, row);
			} else {
				assert_true(kx_ivf_remove(world->ivf, world->cell_of[row], row));
				world->cell_of[row] = KX_IVF_NO_CELL;
			}
		}
		assert_int_equal(kx_ivf_filter_matches(filter), matches);
	}
	/* A row behind the filter's end. */
	assert_int_equal(kx_ivf_filter_set(filter, 1000000, false), KX_OK);
	assert_int_equal(kx_ivf_filter_set(filter, 1000000, true), KX_OK);
	assert_true(kx_ivf_filter_has(filter, 1000000));
	assert_false(kx_ivf_filter_has(filter, 999999));
	assert_int_equal(kx_ivf_filter_matches(filter), matches + 1);
	kx_ivf_filter_free(filter);
	kx_world_free(world);
}

/* Rows of a few cells, as a label's are, and one that lies elsewhere. */
static struct kx_ivf_filter *filter_of_cells(struct kx_world *world, uint32_t cells, uint32_t far)
{
	uint64_t *bits = calloc(world->rows / 64 + 1, sizeof(*bits));
	uint32_t near[16];
	float distances[16];
	struct kx_ivf_filter *filter;

	assert_non_null(bits);
	assert_int_equal(kx_ivf_nearest_cells(world->ivf, kx_world_row(world, 0), cells, near, distances), cells);
	for (uint32_t row = 0; row < world->rows; row++)
		for (uint32_t i = 0; i < cells; i++)
			if (row == far || world->cell_of[row] == near[i])
				bits[row / 64] |= UINT64_C(1) << row % 64;
	assert_int_equal(kx_ivf_filter_new(bits, world->rows, &filter), KX_OK);
	free(bits);
	return filter;
}

static uint32_t far_row(struct kx_world *world)
{
	uint32_t row = 0, far = 0;

	for (float least = INFINITY; row < world->rows; row++) {
		float score = kx_ivf_kernels_c.dot(world->halves + (size_t)row * world->dim, kx_world_row(world, 0), world->dim);

		far = score < least ? row : far;
		least = score < least ? score : least;
	}
	return far;
}

/* What a filter is used for again goes through its cells alone, and stays right when things change. */
static void test_filter_of_few_cells(void **state)
{
	struct kx_world *world = kx_world_full(64, 15000, 150, KX_METRIC_COSINE);
	uint32_t far = far_row(world), found = 0, there = 0, best;
	struct kx_ivf_filter *filter = filter_of_cells(world, 12, far);
	struct kx_ivf_query query = kx_world_usual;
	struct kx_ivf_hit hits[KX_WORLD_K];
	uint32_t count;

	(void)state;
	query.filter = filter;
	for (int round = 0; round < 30; round++) {
		struct kx_ivf_work work;

		query.vector = kx_world_row(world, (uint32_t)kx_test_below(&world->random, world->rows));
		found += kx_world_check(world, &query, &best);
		there += best;
		assert_int_equal(kx_ivf_search(world->ivf, &query, world->scratch, hits, &count, &work, NULL), KX_OK);
		assert_false(work.exact);
		assert_true(work.cells <= 13);
	}
	assert_true(found > 0.95 * there);
	/* The row that lies apart is there, until it is taken out; another one comes in its place. */
	query.vector = kx_world_row(world, far);
	assert_int_equal(kx_ivf_search(world->ivf, &query, world->scratch, hits, &count, NULL, NULL), KX_OK);
	assert_int_equal(hits[0].row, far);
	assert_true(kx_ivf_remove(world->ivf, world->cell_of[far], far));
	world->cell_of[far] = KX_IVF_NO_CELL;
	assert_true(kx_world_check(world, &query, &best) > 0);
	kx_world_add_row(world, far);
	for (int round = 0; round < 30; round++) {
		assert_int_equal(kx_ivf_search(world->ivf, &query, world->scratch, hits, &count, NULL, NULL), KX_OK);
		assert_int_equal(hits[0].row, far);
	}
	kx_ivf_filter_free(filter);
	kx_world_free(world);
}

/* The copy of what matches in a cell says what the cell says. */
static void test_filter_copies(void **state)
{
	struct kx_world *world = kx_world_full(256, 6000, 20, KX_METRIC_COSINE);
	struct kx_ivf_filter *filter = kx_world_random_filter(world, 0.3);
	struct kx_ivf_query query = kx_world_usual;
	struct kx_ivf_hit first[20][KX_WORLD_K], hits[KX_WORLD_K];
	struct kx_ivf_work work = {0};
	uint32_t count;

	(void)state;
	query.filter = filter;
	query.vector = kx_world_row(world, 0);
	assert_int_equal(kx_ivf_search(world->ivf, &query, world->scratch, hits, &count, NULL, NULL), KX_OK);
	for (uint32_t round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < 20; i++) {
			query.vector = kx_world_row(world, i);
			assert_int_equal(kx_ivf_search(world->ivf, &query, world->scratch, hits, &count, &work, NULL), KX_OK);
			assert_int_equal(count, KX_WORLD_K);
			if (!round)
				memcpy(first[i], hits, sizeof(hits));
			for (uint32_t j = 0; j < KX_WORLD_K; j++)
				assert_true(hits[j].row == first[i][j].row && hits[j].score == first[i][j].score);
		}
	}
	assert_false(work.exact);
	assert_true(work.cells && work.codes < work.cells * (world->rows / world->cells) / 2);
	kx_ivf_filter_free(filter);
	kx_world_free(world);
}

/* Also of what a filter leaves, whichever share that is. */
static void test_asked_is_got_of_filters(void **state)
{
	static const double shares[] = {0.5, 0.25};
	struct kx_world *world = kx_world_full(64, 25000, 200, KX_METRIC_COSINE);
	const struct kx_ivf_tuning tuning = tune_by_rows(world, 250);

	(void)state;
	assert_true(tuning.spread > 0.0f && tuning.spread <= KX_IVF_SPREAD_MAX);
	for (size_t i = 0; i < KX_ARRAY_LEN(shares); i++) {
		struct kx_ivf_filter *filter = kx_world_random_filter(world, shares[i]);
		struct kx_ivf_query query = kx_world_usual;
		double got;

		query.recall = 0.95;
		query.filter = filter;
		got = kx_world_recall(world, query, 120);
		printf("a filter of %g, spread %.3f: asked %.3f, got %.4f\n", shares[i], (double)tuning.spread, query.recall,
		       got);
		assert_true(fabs(got - query.recall) < 0.025);
		kx_ivf_filter_free(filter);
	}
	kx_world_free(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recall),
		cmocka_unit_test(test_asked_is_got),
		cmocka_unit_test(test_filters),
		cmocka_unit_test(test_filter_follows_changes),
		cmocka_unit_test(test_filter_of_few_cells),
		cmocka_unit_test(test_filter_copies),
		cmocka_unit_test(test_asked_is_got_of_filters),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
