#include "shard/ann/testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "shard/ann/ivf_half.h"

#define LATENT 12u

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

void kx_world_random_vector(struct kx_world *world, float *out)
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

void kx_world_set_row(struct kx_world *world, uint32_t row, const float *values)
{
	for (uint32_t i = 0; i < world->dim; i++) {
		uint16_t half = kx_half_of_float(values[i]);

		world->halves[(size_t)row * world->dim + i] = half;
		world->values[(size_t)row * world->dim + i] = kx_half_to_float(half);
	}
}

const float *kx_world_row(const struct kx_world *world, uint32_t row)
{
	return world->values + (size_t)row * world->dim;
}

void kx_world_add_row(struct kx_world *world, uint32_t row)
{
	uint8_t entry[sizeof(struct kx_ivf_entry_head) + KX_IVF_PADDED_MAX / 8];
	uint32_t cell;
	float distance;

	assert_int_equal(kx_ivf_nearest_cells(world->ivf, kx_world_row(world, row), 1, &cell, &distance), 1);
	assert_int_equal(kx_ivf_encode(world->ivf, cell, row, kx_world_row(world, row), entry), KX_OK);
	assert_int_equal(kx_ivf_append(world->ivf, cell, entry, 1), KX_OK);
	world->cell_of[row] = cell;
}

static void make_cells(struct kx_world *world)
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

kx_status kx_world_load(void *ctx, uint32_t cell, struct kx_buf *out, struct kx_error *error)
{
	struct kx_world *world = ctx;

	(void)error;
	for (uint32_t row = 0; row < world->rows; row++) {
		uint8_t entry[sizeof(struct kx_ivf_entry_head) + KX_IVF_PADDED_MAX / 8];

		if (world->cell_of[row] != cell)
			continue;
		if (kx_ivf_encode(world->ivf, cell, row, kx_world_row(world, row), entry) ||
		    kx_buf_append(out, entry, kx_ivf_entry_bytes(world->ivf)))
			return KX_EIO;
	}
	return KX_OK;
}

struct kx_world *kx_world_new(uint32_t dim, uint32_t rows, uint32_t cells, enum kx_metric metric)
{
	struct kx_world *world = calloc(1, sizeof(*world));
	struct kx_ivf_options options = {{dim, metric, 7}, kx_world_load, world};
	float *v = calloc(dim, sizeof(float));

	assert_true(world && v);
	*world = (struct kx_world){.random = kx_test_seed(), .dim = dim, .rows = rows, .cells = cells, .metric = metric};
	world->map = calloc((size_t)LATENT * dim, sizeof(float));
	world->values = calloc((size_t)rows * dim, sizeof(float));
	world->halves = calloc((size_t)rows * dim, sizeof(uint16_t));
	world->cell_of = calloc(rows, sizeof(uint32_t));
	assert_true(world->map && world->values && world->halves && world->cell_of);
	for (uint32_t i = 0; i < LATENT * dim; i++)
		world->map[i] = normal(&world->random);
	for (uint32_t row = 0; row < rows; row++) {
		kx_world_random_vector(world, v);
		kx_world_set_row(world, row, v);
		world->cell_of[row] = KX_IVF_NO_CELL;
	}
	free(v);
	assert_int_equal(kx_ivf_new(&options, &world->ivf, NULL), KX_OK);
	assert_int_equal(kx_ivf_scratch_new(&world->scratch), KX_OK);
	kx_ivf_set_vectors(world->ivf, world->halves, dim * sizeof(uint16_t));
	make_cells(world);
	return world;
}

struct kx_world *kx_world_full(uint32_t dim, uint32_t rows, uint32_t cells, enum kx_metric metric)
{
	struct kx_world *world = kx_world_new(dim, rows, cells, metric);

	for (uint32_t row = 0; row < rows; row++)
		kx_world_add_row(world, row);
	return world;
}

void kx_world_free(struct kx_world *world)
{
	kx_ivf_free(world->ivf);
	kx_ivf_scratch_free(world->scratch);
	free(world->map);
	free(world->values);
	free(world->halves);
	free(world->cell_of);
	free(world);
}

static bool row_may(const struct kx_world *world, const struct kx_ivf_query *query, uint32_t row)
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
static struct kx_ivf_hit *brute_force(const struct kx_world *world, const struct kx_ivf_query *query, uint32_t *ret_count)
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

uint32_t kx_world_check_hits(const struct kx_world *world, const struct kx_ivf_query *query, const struct kx_ivf_hit *hits,
			     uint32_t count, uint32_t *ret_best)
{
	uint32_t there, found = 0;
	struct kx_ivf_hit *truth = brute_force(world, query, &there);

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
	free(truth);
	return found;
}

uint32_t kx_world_check(struct kx_world *world, const struct kx_ivf_query *query, uint32_t *ret_best)
{
	struct kx_ivf_hit *hits = calloc(query->k + 1, sizeof(*hits));
	uint32_t count = 0, found;
	struct kx_ivf_work work;

	assert_non_null(hits);
	assert_int_equal(kx_ivf_search(world->ivf, query, world->scratch, hits, &count, &work, NULL), KX_OK);
	found = kx_world_check_hits(world, query, hits, count, ret_best);
	free(hits);
	return found;
}

double kx_world_recall(struct kx_world *world, struct kx_ivf_query query, unsigned queries)
{
	float *v = calloc(world->dim, sizeof(float));
	uint32_t found = 0, there = 0;

	assert_non_null(v);
	query.vector = v;
	for (unsigned i = 0; i < queries; i++) {
		uint32_t best;

		kx_world_random_vector(world, v);
		found += kx_world_check(world, &query, &best);
		there += best;
	}
	free(v);
	return there ? (double)found / there : 1.0;
}

const struct kx_ivf_query kx_world_usual = {.k = KX_WORLD_K, .recall = 0.99, .exclude = KX_IVF_NO_ROW};
const struct kx_ivf_query kx_world_exact = {.k = KX_WORLD_K, .recall = 1.0, .exclude = KX_IVF_NO_ROW};

void kx_world_tune(struct kx_world *world)
{
	struct kx_ivf_tuning tuning;
	float *queries = calloc((size_t)100 * world->dim, sizeof(float));

	assert_non_null(queries);
	for (uint32_t i = 0; i < 100; i++)
		kx_world_random_vector(world, queries + (size_t)i * world->dim);
	assert_int_equal(kx_ivf_tune(world->ivf, queries, 100, &tuning, NULL), KX_OK);
	assert_true(tuning.count > 0);
	for (uint32_t i = 1; i < tuning.count; i++) {
		assert_true(tuning.recall[i] > tuning.recall[i - 1]);
		assert_true(tuning.effort[i] > tuning.effort[i - 1]);
	}
	kx_ivf_set_tuning(world->ivf, &tuning);
	free(queries);
}


struct kx_ivf_filter *kx_world_random_filter(struct kx_world *world, double share)
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
