/* The approximate index against brute force: what it finds, and that it stays right through every change. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/testkit.h"
#include "common/base/thread.h"
#include "common/learn/learn.h"
#include "shard/ann/ivf_half.h"
#include "shard/ann/ivf_impl.h"

#define LATENT 12u
#define K 10u

struct world {
	uint64_t random;
	uint32_t dim, rows, cells;
	enum kx_metric metric;
	float *map;       /* [LATENT][dim] */
	float *values;    /* [rows][dim], what the halves stand for */
	uint16_t *halves; /* [rows][dim] */
	uint32_t *cell_of; /* [rows]; KX_IVF_NO_CELL: it is not in the index */
	struct kx_ivf *ivf;
	struct kx_ivf_scratch *scratch;
};

static float uniform(uint64_t *random)
{
	return (float)(kx_test_random(random) >> 40) / (float)(1 << 24);
}

static float normal(uint64_t *random)
{
	float sum = 0;

	for (int i = 0; i < 12; i++)
		sum += uniform(random);
	return sum - 6.0f;
}

/* Of low intrinsic dimension, as embeddings are. */
static void random_vector(struct world *world, float *out)
{
	float latent[LATENT];

	for (uint32_t i = 0; i < LATENT; i++)
		latent[i] = normal(&world->random);
	for (uint32_t j = 0; j < world->dim; j++) {
		out[j] = normal(&world->random) * 0.02f;
		for (uint32_t i = 0; i < LATENT; i++)
			out[j] += latent[i] * world->map[i * world->dim + j];
	}
	if (world->metric == KX_METRIC_COSINE)
		(void)kx_learn_normalize(out, world->dim);
}

static void set_row(struct world *world, uint32_t row, const float *values)
{
	for (uint32_t i = 0; i < world->dim; i++) {
		uint16_t half = kx_half_of_float(values[i]);

		world->halves[(size_t)row * world->dim + i] = half;
		world->values[(size_t)row * world->dim + i] = kx_half_to_float(half);
	}
}

static const float *row_of(const struct world *world, uint32_t row)
{
	return world->values + (size_t)row * world->dim;
}

static void add_row(struct world *world, uint32_t row)
{
	uint8_t entry[sizeof(struct kx_ivf_entry_head) + KX_IVF_PADDED_MAX / 8];
	uint32_t cell;
	float distance;

	assert_int_equal(kx_ivf_nearest_cells(world->ivf, row_of(world, row), 1, &cell, &distance), 1);
	assert_int_equal(kx_ivf_encode(world->ivf, cell, row, row_of(world, row), entry), KX_OK);
	assert_int_equal(kx_ivf_append(world->ivf, cell, entry, 1), KX_OK);
	world->cell_of[row] = cell;
}

static void make_cells(struct world *world)
{
	const struct kx_ivf_recipe recipe = {world->dim, world->metric, 7};
	float *centroids = calloc((size_t)world->cells * world->dim, sizeof(float));

	assert_non_null(centroids);
	assert_int_equal(kx_ivf_train(&recipe, world->values, world->rows, world->cells, centroids, NULL), KX_OK);
	for (uint32_t i = 0; i < world->cells; i++)
		assert_int_equal(kx_ivf_cell_add(world->ivf, 3 * i + 1, centroids + (size_t)i * world->dim, false),
				 KX_OK);
	assert_int_equal(kx_ivf_cells_ready(world->ivf), KX_OK);
	free(centroids);
}

static kx_status load(void *ctx, uint32_t cell, struct kx_buf *out, struct kx_error *error)
{
	struct world *world = ctx;

	(void)error;
	for (uint32_t row = 0; row < world->rows; row++) {
		uint8_t entry[sizeof(struct kx_ivf_entry_head) + KX_IVF_PADDED_MAX / 8];

		if (world->cell_of[row] != cell)
			continue;
		if (kx_ivf_encode(world->ivf, cell, row, row_of(world, row), entry) ||
		    kx_buf_append(out, entry, kx_ivf_entry_bytes(world->ivf)))
			return KX_EIO;
	}
	return KX_OK;
}

/* An index of rows made by chance; the cells are there and empty. */
static struct world *world_new(uint32_t dim, uint32_t rows, uint32_t cells, enum kx_metric metric)
{
	struct world *world = calloc(1, sizeof(*world));
	struct kx_ivf_options options = {{dim, metric, 7}, load, world};
	float *v = calloc(dim, sizeof(float));

	assert_true(world && v);
	*world = (struct world){.random = kx_test_seed(), .dim = dim, .rows = rows, .cells = cells, .metric = metric};
	world->map = calloc((size_t)LATENT * dim, sizeof(float));
	world->values = calloc((size_t)rows * dim, sizeof(float));
	world->halves = calloc((size_t)rows * dim, sizeof(uint16_t));
	world->cell_of = calloc(rows, sizeof(uint32_t));
	assert_true(world->map && world->values && world->halves && world->cell_of);
	for (uint32_t i = 0; i < LATENT * dim; i++)
		world->map[i] = normal(&world->random);
	for (uint32_t row = 0; row < rows; row++) {
		random_vector(world, v);
		set_row(world, row, v);
		world->cell_of[row] = KX_IVF_NO_CELL;
	}
	free(v);
	assert_int_equal(kx_ivf_new(&options, &world->ivf, NULL), KX_OK);
	assert_int_equal(kx_ivf_scratch_new(&world->scratch), KX_OK);
	kx_ivf_set_vectors(world->ivf, world->halves, dim * sizeof(uint16_t));
	make_cells(world);
	return world;
}

static struct world *world_full(uint32_t dim, uint32_t rows, uint32_t cells, enum kx_metric metric)
{
	struct world *world = world_new(dim, rows, cells, metric);

	for (uint32_t row = 0; row < rows; row++)
		add_row(world, row);
	return world;
}

static void world_free(struct world *world)
{
	kx_ivf_free(world->ivf);
	kx_ivf_scratch_free(world->scratch);
	free(world->map);
	free(world->values);
	free(world->halves);
	free(world->cell_of);
	free(world);
}

static bool row_may(const struct world *world, const struct kx_ivf_query *query, uint32_t row)
{
	return world->cell_of[row] != KX_IVF_NO_CELL && row != query->exclude &&
	       (!query->filter || kx_ivf_filter_has(query->filter, row));
}

static int by_score(const void *a, const void *b)
{
	const struct kx_ivf_hit *one = a, *two = b;

	if (one->score != two->score)
		return one->score > two->score ? -1 : 1;
	return (one->row > two->row) - (one->row < two->row);
}

/* Every row that may be found, best first; the caller frees. */
static struct kx_ivf_hit *brute_force(const struct world *world, const struct kx_ivf_query *query, uint32_t *ret_count)
{
	struct kx_ivf_hit *hits = calloc(world->rows + 1, sizeof(*hits));
	uint32_t count = 0;

	assert_non_null(hits);
	for (uint32_t row = 0; row < world->rows; row++) {
		if (!row_may(world, query, row))
			continue;
		hits[count].row = row;
		hits[count++].score = kx_ivf_kernels_c.dot(world->halves + (size_t)row * world->dim, query->vector,
							   world->dim);
	}
	qsort(hits, count, sizeof(*hits), by_score);
	*ret_count = count;
	return hits;
}

/* Searches and holds what comes against brute force: only what may be found, with its score, in order. Returns how many
 * of the best it has. */
static uint32_t check(struct world *world, const struct kx_ivf_query *query, uint32_t *ret_best)
{
	struct kx_ivf_hit *hits = calloc(query->k + 1, sizeof(*hits));
	uint32_t count = 0, there, found = 0;
	struct kx_ivf_hit *truth = brute_force(world, query, &there);
	struct kx_ivf_work work;

	assert_non_null(hits);
	assert_int_equal(kx_ivf_search(world->ivf, query, world->scratch, hits, &count, &work, NULL), KX_OK);
	*ret_best = query->k < there ? query->k : there;
	assert_int_equal(count, *ret_best);
	for (uint32_t i = 0; i < count; i++) {
		assert_true(row_may(world, query, hits[i].row));
		assert_true(hits[i].score == kx_ivf_kernels_c.dot(world->halves + (size_t)hits[i].row * world->dim,
								  query->vector, world->dim));
		assert_true(i == 0 || by_score(&hits[i - 1], &hits[i]) < 0);
		found += hits[i].score >= truth[*ret_best - 1].score;
		if (query->recall >= 1.0)
			assert_int_equal(hits[i].row, truth[i].row);
	}
	free(hits);
	free(truth);
	return found;
}

/* Recall over queries that are not in the index. */
static double recall_of(struct world *world, struct kx_ivf_query query, unsigned queries)
{
	float *v = calloc(world->dim, sizeof(float));
	uint32_t found = 0, there = 0;

	assert_non_null(v);
	query.vector = v;
	for (unsigned i = 0; i < queries; i++) {
		uint32_t best;

		random_vector(world, v);
		found += check(world, &query, &best);
		there += best;
	}
	free(v);
	return there ? (double)found / there : 1.0;
}

static const struct kx_ivf_query usual = {.k = K, .recall = 0.99, .exclude = KX_IVF_NO_ROW};
static const struct kx_ivf_query exact = {.k = K, .recall = 1.0, .exclude = KX_IVF_NO_ROW};

static void tune(struct world *world)
{
	struct kx_ivf_tuning tuning;
	float *queries = calloc((size_t)100 * world->dim, sizeof(float));

	assert_non_null(queries);
	for (uint32_t i = 0; i < 100; i++)
		random_vector(world, queries + (size_t)i * world->dim);
	assert_int_equal(kx_ivf_tune(world->ivf, queries, 100, &tuning, NULL), KX_OK);
	assert_true(tuning.count > 0);
	for (uint32_t i = 1; i < tuning.count; i++) {
		assert_true(tuning.recall[i] > tuning.recall[i - 1]);
		assert_true(tuning.effort[i] > tuning.effort[i - 1]);
	}
	kx_ivf_set_tuning(world->ivf, &tuning);
	free(queries);
}

static void test_recall(void **state)
{
	static const uint32_t dims[] = {8, 64, 100, 256, 1280, 2048};
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(dims); i++) {
		for (int metric = KX_METRIC_COSINE; metric <= KX_METRIC_INNER_PRODUCT; metric++) {
			uint32_t rows = dims[i] > 1000 ? 500 : 2500;
			struct world *world = world_full(dims[i], rows, rows / 50, (enum kx_metric)metric);
			double guessed = recall_of(world, usual, 100), tuned;

			tune(world);
			tuned = recall_of(world, usual, 200);
			printf("%u dimensions, metric %d: recall %.3f, tuned %.3f\n", dims[i], metric, guessed, tuned);
			assert_true(guessed > 0.96);
			assert_true(tuned > 0.95);
			assert_true(recall_of(world, exact, 5) >= 1.0);
			world_free(world);
		}
	}
}

/* What is asked for is what is got, by queries that it was not tuned with. */
static void test_asked_is_got(void **state)
{
	static const double wanted[] = {0.9, 0.95, 0.98};
	struct world *world = world_full(128, 8000, 80, KX_METRIC_COSINE);
	struct kx_ivf_tuning tuning;
	uint32_t rows[1000];

	(void)state;
	for (uint32_t i = 0; i < KX_ARRAY_LEN(rows); i++)
		rows[i] = i;
	assert_int_equal(kx_ivf_tune_rows(world->ivf, world->values, rows, KX_ARRAY_LEN(rows), &tuning, NULL), KX_OK);
	kx_ivf_set_tuning(world->ivf, &tuning);
	for (size_t i = 0; i < KX_ARRAY_LEN(wanted); i++) {
		struct kx_ivf_query query = usual;
		double got;

		query.recall = wanted[i];
		got = recall_of(world, query, 400);
		printf("asked %.3f, got %.4f\n", wanted[i], got);
		assert_true(fabs(got - wanted[i]) < 0.02);
	}
	world_free(world);
}

static struct kx_ivf_filter *random_filter(struct world *world, double share)
{
	uint64_t *bits = calloc(world->rows / 64 + 1, sizeof(*bits));
	struct kx_ivf_filter *filter;

	assert_non_null(bits);
	for (uint32_t row = 0; row < world->rows; row++)
		if ((double)uniform(&world->random) < share)
			bits[row / 64] |= UINT64_C(1) << row % 64;
	assert_int_equal(kx_ivf_filter_new(bits, world->rows, &filter), KX_OK);
	free(bits);
	return filter;
}

static void test_filters(void **state)
{
	static const double shares[] = {0.5, 0.1, 0.01, 0.001, 0.0001, 0};
	struct world *world = world_full(64, 15000, 150, KX_METRIC_COSINE);

	(void)state;
	tune(world);
	for (size_t i = 0; i < KX_ARRAY_LEN(shares); i++) {
		struct kx_ivf_query query = usual, all = exact;
		struct kx_ivf_filter *filter = random_filter(world, shares[i]);
		double recall;

		query.filter = all.filter = filter;
		recall = recall_of(world, query, 100);
		printf("filter of %g: %llu rows, recall %.3f\n", shares[i],
		       (unsigned long long)kx_ivf_filter_matches(filter), recall);
		assert_true(recall > 0.95);
		assert_true(recall_of(world, all, 5) >= 1.0);
		kx_ivf_filter_free(filter);
	}
	world_free(world);
}

/* Rows that match stand in few cells, as a label's do. */
static void test_filter_follows_changes(void **state)
{
	struct world *world = world_full(64, 15000, 150, KX_METRIC_COSINE);
	struct kx_ivf_query query = usual;
	struct kx_ivf_filter *filter = random_filter(world, 0.5);
	uint32_t matches = (uint32_t)kx_ivf_filter_matches(filter);

	(void)state;
	tune(world);
	query.filter = filter;
	for (int round = 0; round < 5; round++) {
		assert_true(recall_of(world, query, 60) > 0.95);
		for (int i = 0; i < 300; i++) {
			uint32_t row = (uint32_t)kx_test_below(&world->random, world->rows);
			bool had = kx_ivf_filter_has(filter, row);

			assert_int_equal(kx_ivf_filter_set(filter, row, !had), KX_OK);
			matches = had ? matches - 1 : matches + 1;
			row = (uint32_t)kx_test_below(&world->random, world->rows);
			if (world->cell_of[row] == KX_IVF_NO_CELL) {
				add_row(world, row);
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
	world_free(world);
}

/* Rows of a few cells, as a label's are, and one that lies elsewhere. */
static struct kx_ivf_filter *filter_of_cells(struct world *world, uint32_t cells, uint32_t far)
{
	uint64_t *bits = calloc(world->rows / 64 + 1, sizeof(*bits));
	uint32_t near[16];
	float distances[16];
	struct kx_ivf_filter *filter;

	assert_non_null(bits);
	assert_int_equal(kx_ivf_nearest_cells(world->ivf, row_of(world, 0), cells, near, distances), cells);
	for (uint32_t row = 0; row < world->rows; row++)
		for (uint32_t i = 0; i < cells; i++)
			if (row == far || world->cell_of[row] == near[i])
				bits[row / 64] |= UINT64_C(1) << row % 64;
	assert_int_equal(kx_ivf_filter_new(bits, world->rows, &filter), KX_OK);
	free(bits);
	return filter;
}

static uint32_t far_row(struct world *world)
{
	uint32_t row = 0, far = 0;

	for (float least = INFINITY; row < world->rows; row++) {
		float score = kx_ivf_kernels_c.dot(world->halves + (size_t)row * world->dim, row_of(world, 0), world->dim);

		far = score < least ? row : far;
		least = score < least ? score : least;
	}
	return far;
}

/* What a filter is used for again goes through its cells alone, and stays right when things change. */
static void test_filter_of_few_cells(void **state)
{
	struct world *world = world_full(64, 15000, 150, KX_METRIC_COSINE);
	uint32_t far = far_row(world), found = 0, there = 0, best;
	struct kx_ivf_filter *filter = filter_of_cells(world, 12, far);
	struct kx_ivf_query query = usual;
	struct kx_ivf_hit hits[K];
	uint32_t count;

	(void)state;
	query.filter = filter;
	for (int round = 0; round < 30; round++) {
		struct kx_ivf_work work;

		query.vector = row_of(world, (uint32_t)kx_test_below(&world->random, world->rows));
		found += check(world, &query, &best);
		there += best;
		assert_int_equal(kx_ivf_search(world->ivf, &query, world->scratch, hits, &count, &work, NULL), KX_OK);
		assert_false(work.exact);
		assert_true(work.cells <= 13);
	}
	assert_true(found > 0.95 * there);
	/* The row that lies apart is there, until it is taken out; another one comes in its place. */
	query.vector = row_of(world, far);
	assert_int_equal(kx_ivf_search(world->ivf, &query, world->scratch, hits, &count, NULL, NULL), KX_OK);
	assert_int_equal(hits[0].row, far);
	assert_true(kx_ivf_remove(world->ivf, world->cell_of[far], far));
	world->cell_of[far] = KX_IVF_NO_CELL;
	assert_true(check(world, &query, &best) > 0);
	add_row(world, far);
	for (int round = 0; round < 30; round++) {
		assert_int_equal(kx_ivf_search(world->ivf, &query, world->scratch, hits, &count, NULL, NULL), KX_OK);
		assert_int_equal(hits[0].row, far);
	}
	kx_ivf_filter_free(filter);
	world_free(world);
}

/* The copy of what matches in a cell says what the cell says. */
static void test_filter_copies(void **state)
{
	struct world *world = world_full(256, 6000, 20, KX_METRIC_COSINE);
	struct kx_ivf_filter *filter = random_filter(world, 0.3);
	struct kx_ivf_query query = usual;
	struct kx_ivf_hit first[20][K], hits[K];
	struct kx_ivf_work work = {0};
	uint32_t count;

	(void)state;
	query.filter = filter;
	query.vector = row_of(world, 0);
	assert_int_equal(kx_ivf_search(world->ivf, &query, world->scratch, hits, &count, NULL, NULL), KX_OK);
	for (uint32_t round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < 20; i++) {
			query.vector = row_of(world, i);
			assert_int_equal(kx_ivf_search(world->ivf, &query, world->scratch, hits, &count, &work, NULL), KX_OK);
			assert_int_equal(count, K);
			if (!round)
				memcpy(first[i], hits, sizeof(hits));
			for (uint32_t j = 0; j < K; j++)
				assert_true(hits[j].row == first[i][j].row && hits[j].score == first[i][j].score);
		}
	}
	assert_false(work.exact);
	assert_true(work.cells && work.codes < work.cells * (world->rows / world->cells) / 2);
	kx_ivf_filter_free(filter);
	world_free(world);
}

/* Also of what a filter leaves, whichever share that is. */
static void test_asked_is_got_of_filters(void **state)
{
	static const double shares[] = {0.5, 0.25};
	struct world *world = world_full(64, 25000, 200, KX_METRIC_COSINE);
	struct kx_ivf_tuning tuning;
	uint32_t rows[250];

	(void)state;
	for (uint32_t i = 0; i < KX_ARRAY_LEN(rows); i++)
		rows[i] = i;
	assert_int_equal(kx_ivf_tune_rows(world->ivf, world->values, rows, KX_ARRAY_LEN(rows), &tuning, NULL), KX_OK);
	assert_true(tuning.spread > 0.0f && tuning.spread <= KX_IVF_SPREAD_MAX);
	kx_ivf_set_tuning(world->ivf, &tuning);
	for (size_t i = 0; i < KX_ARRAY_LEN(shares); i++) {
		struct kx_ivf_filter *filter = random_filter(world, shares[i]);
		struct kx_ivf_query query = usual;
		double got;

		query.recall = 0.95;
		query.filter = filter;
		got = recall_of(world, query, 120);
		printf("a filter of %g, spread %.3f: asked %.3f, got %.4f\n", shares[i], (double)tuning.spread, query.recall,
		       got);
		assert_true(fabs(got - query.recall) < 0.025);
		kx_ivf_filter_free(filter);
	}
	world_free(world);
}

static void test_excluded_and_few(void **state)
{
	struct world *world = world_new(64, 300, 4, KX_METRIC_COSINE);
	struct kx_ivf_query query = usual, all = exact;
	uint32_t best;

	(void)state;
	query.vector = all.vector = row_of(world, 5);
	/* Nothing is there. */
	assert_int_equal(check(world, &query, &best), 0);
	assert_int_equal(check(world, &all, &best), 0);
	add_row(world, 5);
	assert_int_equal(check(world, &query, &best), 1);
	query.exclude = all.exclude = 5;
	assert_int_equal(check(world, &query, &best), 0);
	for (uint32_t row = 0; row < world->rows; row++)
		if (row != 5)
			add_row(world, row);
	/* More are wanted than there are. */
	query.k = all.k = 1000;
	assert_int_equal(check(world, &query, &best), 299);
	assert_int_equal(check(world, &all, &best), 299);
	query.k = all.k = 0;
	assert_int_equal(check(world, &query, &best), 0);
	query.k = 1;
	query.recall = 1.5;
	assert_int_equal(kx_ivf_search(world->ivf, &query, world->scratch, NULL, &best, NULL, NULL), KX_EINVAL);
	world_free(world);
}

static void test_equal_vectors(void **state)
{
	struct world *world = world_new(64, 2000, 80, KX_METRIC_COSINE);
	struct kx_ivf_query query = usual, all = exact;
	float *same = calloc(world->dim, sizeof(float)), *centroids = calloc((size_t)80 * world->dim, sizeof(float));
	uint32_t best;

	(void)state;
	assert_true(same && centroids);
	random_vector(world, same);
	for (uint32_t row = 0; row < world->rows; row++)
		set_row(world, row, same);
	/* Training lives with it, whichever level it is. */
	for (uint32_t cells = 1; cells <= 80; cells += 79) {
		const struct kx_ivf_recipe recipe = {world->dim, world->metric, 1};

		assert_int_equal(kx_ivf_train(&recipe, world->values, world->rows, cells, centroids, NULL), KX_OK);
		for (uint32_t i = 0; i < cells * world->dim; i++)
			assert_true(fabsf(centroids[i] - row_of(world, 0)[i % world->dim]) < 1e-5f);
	}
	for (uint32_t row = 0; row < world->rows; row++)
		add_row(world, row);
	query.vector = all.vector = same;
	query.k = all.k = 50;
	assert_int_equal(check(world, &all, &best), 50);
	assert_int_equal(check(world, &query, &best), 50);
	free(same);
	free(centroids);
	world_free(world);
}

/* What a cell gives is what it was given, in any state that it goes through. */
static void test_entries(void **state)
{
	static const uint32_t dims[] = {8, 100, 256};
	(void)state;
	for (size_t d = 0; d < KX_ARRAY_LEN(dims); d++) {
		struct world *world = world_new(dims[d], 1000, 1, KX_METRIC_COSINE);
		const size_t bytes = kx_ivf_entry_bytes(world->ivf);
		struct kx_buf in = {.max = 1 << 24}, out = {.max = 1 << 24};
		uint32_t count;

		for (uint32_t row = 0; row < 1000; row++) {
			uint8_t entry[sizeof(struct kx_ivf_entry_head) + KX_IVF_PADDED_MAX / 8];

			assert_int_equal(kx_ivf_encode(world->ivf, 1, row, row_of(world, row), entry), KX_OK);
			assert_int_equal(kx_buf_append(&in, entry, bytes), KX_OK);
		}
		for (uint32_t from = 0; from < 1000; from += 77)
			assert_int_equal(kx_ivf_append(world->ivf, 1, in.data + from * bytes,
						       from + 77 < 1000 ? 77 : 1000 - from), KX_OK);
		assert_int_equal(kx_ivf_cell_entries(world->ivf, 1, &out), KX_OK);
		assert_int_equal(out.len, in.len);
		assert_memory_equal(out.data, in.data, in.len);
		/* The last takes the place of what is removed. */
		assert_true(kx_ivf_remove(world->ivf, 1, 33));
		assert_false(kx_ivf_remove(world->ivf, 1, 33));
		memcpy(in.data + 33 * bytes, in.data + 999 * bytes, bytes);
		kx_buf_clear(&out);
		assert_int_equal(kx_ivf_cell_entries(world->ivf, 1, &out), KX_OK);
		assert_int_equal(out.len, in.len - bytes);
		assert_memory_equal(out.data, in.data, out.len);
		assert_int_equal(kx_ivf_cell_rows(world->ivf, 1, &count)[33], 999);
		assert_int_equal(count, 999);
		kx_ivf_cell_cool(world->ivf, 1);
		assert_int_equal(kx_ivf_cell_entries(world->ivf, 1, &out), KX_EINVAL);
		assert_int_equal(kx_ivf_append(world->ivf, 1, in.data, 1), KX_EINVAL);
		assert_int_equal(kx_ivf_cell_fill(world->ivf, 1, in.data, 500), KX_OK);
		kx_buf_clear(&out);
		assert_int_equal(kx_ivf_cell_entries(world->ivf, 1, &out), KX_OK);
		assert_int_equal(out.len, 500 * bytes);
		assert_memory_equal(out.data, in.data, out.len);
		kx_buf_done(&in);
		kx_buf_done(&out);
		world_free(world);
	}
}

static void test_cold_cells(void **state)
{
	struct world *world = world_full(64, 5000, 50, KX_METRIC_COSINE);
	struct kx_ivf_query query = usual, all = exact;
	struct kx_ivf_filter *filter = random_filter(world, 0.05);
	uint64_t warm = kx_ivf_hot_bytes(world->ivf);

	(void)state;
	tune(world);
	for (uint32_t i = 0; i < world->cells; i += 2)
		kx_ivf_cell_cool(world->ivf, 3 * i + 1);
	assert_true(kx_ivf_hot_bytes(world->ivf) < warm);
	assert_true(recall_of(world, query, 60) > 0.96);
	assert_true(recall_of(world, all, 10) >= 1.0);
	query.filter = all.filter = filter;
	assert_true(recall_of(world, query, 60) > 0.8);
	assert_true(recall_of(world, all, 10) >= 1.0);
	kx_ivf_filter_free(filter);
	world_free(world);
}

/* Cells come and go; what was in them stands elsewhere then. */
static void test_cells_change(void **state)
{
	struct world *world = world_full(64, 3000, 30, KX_METRIC_COSINE);

	(void)state;
	for (int round = 0; round < 40; round++) {
		uint32_t old = 3 * (uint32_t)round + 1, count;
		const uint32_t *rows;

		if (round >= 30)
			old = 1000 + (uint32_t)round - 30;
		rows = kx_ivf_cell_rows(world->ivf, old, &count);
		assert_int_equal(kx_ivf_cell_add(world->ivf, old, row_of(world, 0), false), KX_EINVAL);
		for (uint32_t i = 0; i < count; i++)
			world->cell_of[rows[i]] = KX_IVF_NO_CELL;
		assert_int_equal(kx_ivf_cell_add(world->ivf, 1000 + (uint32_t)round,
						 row_of(world, (uint32_t)round * 7), false), KX_OK);
		kx_ivf_cell_remove(world->ivf, old);
		kx_ivf_cell_remove(world->ivf, old);
		assert_int_equal(kx_ivf_cells_ready(world->ivf), KX_OK);
		assert_int_equal(kx_ivf_cell_count(world->ivf), 30);
		for (uint32_t row = 0; row < world->rows; row++)
			if (world->cell_of[row] == KX_IVF_NO_CELL)
				add_row(world, row);
		assert_true(recall_of(world, exact, 1) >= 1.0);
		assert_true(recall_of(world, usual, 20) > 0.8);
	}
	world_free(world);
}

/* Assignment in bulk is that of one by one, and that is brute force. */
static void test_assign(void **state)
{
	struct world *world = world_new(100, 3000, 300, KX_METRIC_COSINE);
	uint32_t *cells = calloc(world->rows, sizeof(*cells)), right = 0;

	(void)state;
	assert_non_null(cells);
	assert_int_equal(kx_ivf_assign(world->ivf, world->values, world->rows, cells), KX_OK);
	for (uint32_t row = 0; row < world->rows; row++) {
		float best = INFINITY;
		uint32_t nearest = 0, near[3];
		float distances[3];

		for (uint32_t i = 0; i < world->cells; i++) {
			const float *centroid = kx_ivf_cell_centroid(world->ivf, 3 * i + 1);
			float distance = 0;

			for (uint32_t j = 0; j < world->dim; j++)
				distance += (row_of(world, row)[j] - centroid[j]) * (row_of(world, row)[j] - centroid[j]);
			nearest = distance < best ? 3 * i + 1 : nearest;
			best = distance < best ? distance : best;
		}
		assert_int_equal(kx_ivf_nearest_cells(world->ivf, row_of(world, row), 3, near, distances), 3);
		assert_true(distances[0] <= distances[1] && distances[1] <= distances[2]);
		right += cells[row] == nearest && near[0] == nearest;
	}
	printf("%u of %u rows in the nearest cell\n", right, world->rows);
	assert_true(right >= world->rows * 98 / 100);
	assert_null(kx_ivf_cell_centroid(world->ivf, 0));
	free(cells);
	world_free(world);
}

/* Of many at once it is the same, by whatever kernel, for numbers of vectors that fill no register, and none is farther than
 * the one that a search one by one finds. */
static void test_nearest_of_many(void **state)
{
	static const size_t counts[] = {1, 7, 8, 129, 3000};
	struct world *world = world_new(100, 3000, 300, KX_METRIC_COSINE);
	const struct kx_ivf_kernels *best = world->ivf->kernels;
	uint32_t *cells = calloc(2 * world->rows, sizeof(*cells));
	float *distances = calloc(2 * world->rows, sizeof(*distances));

	(void)state;
	assert_non_null(cells);
	assert_non_null(distances);
	for (uint32_t c = 0; c < KX_ARRAY_LEN(counts); c++) {
		world->ivf->kernels = best;
		assert_int_equal(kx_ivf_nearest_each(world->ivf, world->values, counts[c], cells, distances), KX_OK);
		world->ivf->kernels = &kx_ivf_kernels_c;
		assert_int_equal(kx_ivf_nearest_each(world->ivf, world->values, counts[c], cells + world->rows,
						     distances + world->rows), KX_OK);
		assert_memory_equal(cells, cells + world->rows, counts[c] * sizeof(*cells));
		assert_memory_equal(distances, distances + world->rows, counts[c] * sizeof(*distances));
	}
	world->ivf->kernels = best;
	for (uint32_t row = 0; row < world->rows; row++) {
		uint32_t near;
		float distance;

		assert_int_equal(kx_ivf_nearest_cells(world->ivf, row_of(world, row), 1, &near, &distance), 1);
		assert_true(distances[row] <= distance);
	}
	free(cells);
	free(distances);
	world_free(world);
}

/* Over many vectors the estimate is right in the mean, and the bound holds about as often as it should. */
static void test_estimate(void **state)
{
	struct world *world = world_new(256, 4000, 1, KX_METRIC_INNER_PRODUCT);
	const struct kx_ivf_cell *cell = kx_ivf_cell_of(world->ivf, 1);
	float rotated[256], query[256], distance = 0;
	_Alignas(64) uint8_t lut[256 * 4];
	struct kx_ivf_lut table;
	double sum = 0, deviation = 0;
	uint32_t within = 0;

	(void)state;
	random_vector(world, query);
	kx_ivf_rotate(&world->ivf->rotation, world->ivf->kernels, query, rotated);
	kx_ivf_lut_make(rotated, 256, world->ivf->kernels, lut, &table);
	for (uint32_t i = 0; i < 256; i++)
		distance += (query[i] - cell->centroid[i]) * (query[i] - cell->centroid[i]);
	for (uint32_t row = 0; row < world->rows; row++) {
		uint8_t entry[sizeof(struct kx_ivf_entry_head) + 32];
		struct kx_ivf_entry_head head;
		double exactly = 0, error;
		float estimate;
		int32_t codes = 0;

		assert_int_equal(kx_ivf_encode(world->ivf, 1, row, row_of(world, row), entry), KX_OK);
		head = kx_ivf_entry_head(entry);
		for (uint32_t i = 0; i < 64; i++)
			codes += lut[i * 16 + (entry[sizeof(head) + i / 2] >> i % 2 * 4 & 15)];
		estimate = head.add + head.mul * (table.scale * (float)codes + table.offset);
		for (uint32_t i = 0; i < 256; i++) {
			estimate += query[i] * cell->centroid[i];
			exactly += (double)query[i] * (double)row_of(world, row)[i];
		}
		/* In deviations, as the search takes them. */
		error = ((double)estimate - exactly) / ((double)head.mul * 0.6 * sqrt((double)(distance + table.variance)));
		sum += error;
		deviation += error * error;
		within += fabs(error) <= 2.0;
	}
	deviation = sqrt(deviation / world->rows);
	printf("estimates: mean error %.3f, deviation %.3f, %.3f within two\n", sum / world->rows, deviation,
	       (double)within / world->rows);
	assert_true(fabs(sum / world->rows) < 0.2);
	assert_true(deviation > 0.6 && deviation < 1.3);
	assert_true(within >= world->rows * 93 / 100);
	world_free(world);
}

/* So it does by the leading part of a code, which is what decides first. */
static void test_estimate_by_lead(void **state)
{
	struct world *world = world_full(256, 4000, 1, KX_METRIC_COSINE);
	const struct kx_ivf *ivf = world->ivf;
	const struct kx_ivf_cell *cell = kx_ivf_cell_of(ivf, 1);
	float rotated[256], query[256], distance = 0, product = 0;
	_Alignas(64) uint8_t lut[256 * 4];
	struct kx_ivf_lut table;
	double sum = 0, deviation = 0;

	(void)state;
	random_vector(world, query);
	kx_ivf_rotate(&ivf->rotation, ivf->kernels, query, rotated);
	kx_ivf_lut_make(rotated, ivf->lead, ivf->kernels, lut, &table);
	for (uint32_t i = 0; i < 256; i++) {
		distance += (query[i] - cell->centroid[i]) * (query[i] - cell->centroid[i]);
		product += query[i] * cell->centroid[i];
	}
	for (uint32_t slot = 0; slot < cell->count; slot++) {
		const uint8_t *block = cell->place.blocks + slot / KX_IVF_BLOCK * kx_ivf_lead_block_bytes(ivf);
		const uint16_t *factors = (const uint16_t *)(const void *)block + slot % KX_IVF_BLOCK;
		uint8_t entry[sizeof(struct kx_ivf_entry_head) + 32];
		float mul = kx_ivf_factor(factors[KX_IVF_BLOCK]);
		double exactly = 0, error;
		int32_t codes = 0;

		kx_ivf_place_read(ivf, &cell->place, slot, entry);
		for (uint32_t i = 0; i < ivf->lead / 4; i++)
			codes += lut[i * 16 + (entry[sizeof(struct kx_ivf_entry_head) + i / 2] >> i % 2 * 4 & 15)];
		for (uint32_t i = 0; i < 256; i++)
			exactly += (double)query[i] * (double)row_of(world, cell->place.rows[slot])[i];
		error = (double)(product + kx_ivf_factor(factors[0]) + mul * (table.scale * (float)codes + table.offset)) -
			exactly;
		error /= (double)mul * 0.626 * sqrt((double)(distance + table.variance));
		sum += error;
		deviation += error * error;
	}
	deviation = sqrt(deviation / cell->count);
	printf("estimates by the leading part: mean error %.3f, deviation %.3f\n", sum / cell->count, deviation);
	assert_true(fabs(sum / cell->count) < 0.2);
	assert_true(deviation > 0.6 && deviation < 1.3);
	world_free(world);
}

static void test_rotation(void **state)
{
	static const uint32_t dims[] = {8, 64, 100, 192, 256, 320, 1280, 2048};
	uint64_t random = kx_test_seed();

	(void)state;
	for (size_t d = 0; d < KX_ARRAY_LEN(dims); d++) {
		struct kx_ivf_rotation rotation;
		float in[2048] = {0}, out[2048];
		double before = 0, after = 0, most = 0;

		assert_int_equal(kx_ivf_rotation_init(&rotation, dims[d], 5), KX_OK);
		/* The worst there is: all of it in one element. */
		in[kx_test_below(&random, dims[d])] = 3.0f;
		kx_ivf_rotate(&rotation, &kx_ivf_kernels_c, in, out);
		for (uint32_t i = 0; i < rotation.padded; i++) {
			before += i < dims[d] ? (double)in[i] * (double)in[i] : 0;
			after += (double)out[i] * (double)out[i];
			most = fmax(most, fabs((double)out[i]));
		}
		assert_true(fabs(before - after) < 1e-4 * before);
		assert_true(most < 3.0 * 6.0 / sqrt(rotation.padded));
		kx_ivf_rotation_done(&rotation);
	}
}

struct searcher {
	struct world *world;
	const struct kx_ivf_filter *filter;
	const float *queries;
	uint32_t found;
};

static void *search_many(void *arg)
{
	struct searcher *searcher = arg;
	struct kx_ivf_scratch *scratch;

	if (kx_ivf_scratch_new(&scratch))
		return NULL;
	for (uint32_t i = 0; i < 100; i++) {
		struct kx_ivf_query query = usual;
		struct kx_ivf_hit hits[K];
		uint32_t count;

		query.vector = searcher->queries + (size_t)i * searcher->world->dim;
		query.filter = i % 2 ? searcher->filter : NULL;
		if (kx_ivf_search(searcher->world->ivf, &query, scratch, hits, &count, NULL, NULL) == KX_OK)
			searcher->found += count;
	}
	kx_ivf_scratch_free(scratch);
	return NULL;
}

static void test_searches_at_once(void **state)
{
	struct world *world = world_full(64, 15000, 150, KX_METRIC_COSINE);
	struct kx_ivf_filter *filter = random_filter(world, 0.4);
	float *queries = calloc((size_t)100 * world->dim, sizeof(float));
	struct searcher searchers[4];
	pthread_t threads[4];

	(void)state;
	assert_non_null(queries);
	for (uint32_t i = 0; i < 100; i++)
		random_vector(world, queries + (size_t)i * world->dim);
	for (int i = 0; i < 4; i++) {
		searchers[i] = (struct searcher){world, filter, queries, 0};
		assert_int_equal(kx_thread_start(&threads[i], "search", search_many, &searchers[i], NULL), KX_OK);
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(searchers[i].found, 100 * K);
	}
	free(queries);
	kx_ivf_filter_free(filter);
	world_free(world);
}

/* Whichever allocation fails: it is said, nothing is half done, and the next try is right. */
static void test_out_of_memory(void **state)
{
	static const char *const points[] = {"ann.grow", "ann.pages", "ann.view", "ann.scratch"};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(points); i++) {
		for (uint64_t nth = 1; nth < 12; nth++) {
			struct world *world = world_new(64, 600, 3, KX_METRIC_COSINE);
			struct kx_ivf_filter *filter = random_filter(world, 0.5);
			struct kx_ivf_query query = usual, all = exact;
			struct kx_buf entries = {.max = 1 << 20};
			struct kx_ivf_hit hits[K];
			uint32_t count, best;
			kx_status status;

			for (uint32_t row = 0; row < world->rows; row++)
				world->cell_of[row] = 4;
			assert_int_equal(load(world, 4, &entries, NULL), KX_OK);
			kx_fault_arm(points[i], nth);
			status = kx_ivf_append(world->ivf, 4, entries.data, world->rows);
			(void)kx_ivf_cell_rows(world->ivf, 4, &count);
			assert_true(status == KX_OK || status == KX_ENOMEM);
			assert_int_equal(count, status ? 0 : world->rows);
			if (status)
				assert_int_equal(kx_ivf_append(world->ivf, 4, entries.data, world->rows), KX_OK);
			query.vector = all.vector = row_of(world, 3);
			query.filter = filter;
			for (int search = 0; search < 3; search++) { /* one by one, with a map, with all it needs */
				status = kx_ivf_search(world->ivf, &query, world->scratch, hits, &count, NULL, NULL);
				assert_true(status == KX_OK || status == KX_ENOMEM);
			}
			(void)check(world, &query, &best);
			status = kx_ivf_cell_add(world->ivf, 5000, row_of(world, 9), false);
			assert_true(status == KX_OK || status == KX_ENOMEM);
			assert_int_equal(kx_ivf_cell_count(world->ivf), status ? 3 : 4);
			status = kx_ivf_cells_ready(world->ivf);
			kx_fault_clear();
			assert_true(status == KX_OK || status == KX_ENOMEM);
			assert_int_equal(kx_ivf_cells_ready(world->ivf), KX_OK);
			assert_int_equal(check(world, &all, &best), K);
			kx_buf_done(&entries);
			kx_ivf_filter_free(filter);
			world_free(world);
		}
	}
}

static void test_halves(void **state)
{
	(void)state;
	for (uint32_t bits = 0; bits < 0x10000; bits++) {
		float value = kx_half_to_float((uint16_t)bits);

		if (isnan(value))
			assert_true(isnan(kx_half_to_float(kx_half_of_float(value))));
		else
			assert_int_equal(kx_half_of_float(value), bits);
	}
	assert_int_equal(kx_half_of_float(1.0f), 0x3c00);
	assert_int_equal(kx_half_of_float(65520.0f), 0x7c00);
	assert_int_equal(kx_half_of_float(65519.0f), 0x7bff);
	assert_int_equal(kx_half_of_float(0x1.002p0f), 0x3c00);  /* half way: to even */
	assert_int_equal(kx_half_of_float(0x1.006p0f), 0x3c02);
	assert_int_equal(kx_half_of_float(0x1p-25f), 0);
	assert_int_equal(kx_half_of_float(0x1.8p-25f), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_halves),
		cmocka_unit_test(test_rotation),
		cmocka_unit_test(test_estimate),
		cmocka_unit_test(test_estimate_by_lead),
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_excluded_and_few),
		cmocka_unit_test(test_equal_vectors),
		cmocka_unit_test(test_assign),
		cmocka_unit_test(test_nearest_of_many),
		cmocka_unit_test(test_out_of_memory),
		cmocka_unit_test(test_cold_cells),
		cmocka_unit_test(test_cells_change),
		cmocka_unit_test(test_filter_follows_changes),
		cmocka_unit_test(test_searches_at_once),
		cmocka_unit_test(test_filters),
		cmocka_unit_test(test_filter_of_few_cells),
		cmocka_unit_test(test_filter_copies),
		cmocka_unit_test(test_asked_is_got_of_filters),
		cmocka_unit_test(test_recall),
		cmocka_unit_test(test_asked_is_got),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
