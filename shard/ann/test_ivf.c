/* The approximate index against brute force: it stays right through every change. */
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
#include "shard/ann/testkit.h"

static void test_excluded_and_few(void **state)
{
	struct kx_world *world = kx_world_new(64, 300, 4, KX_METRIC_COSINE);
	struct kx_ivf_query query = kx_world_usual, all = kx_world_exact;
	uint32_t best;

	(void)state;
	query.vector = all.vector = kx_world_row(world, 5);
	/* Nothing is there. */
	assert_int_equal(kx_world_check(world, &query, &best), 0);
	assert_int_equal(kx_world_check(world, &all, &best), 0);
	kx_world_add_row(world, 5);
	assert_int_equal(kx_world_check(world, &query, &best), 1);
	query.exclude = all.exclude = 5;
	assert_int_equal(kx_world_check(world, &query, &best), 0);
	for (uint32_t row = 0; row < world->rows; row++)
		if (row != 5)
			kx_world_add_row(world, row);
	/* More are wanted than there are. */
	query.k = all.k = 1000;
	assert_int_equal(kx_world_check(world, &query, &best), 299);
	assert_int_equal(kx_world_check(world, &all, &best), 299);
	query.k = all.k = 0;
	assert_int_equal(kx_world_check(world, &query, &best), 0);
	query.k = 1;
	query.recall = 1.5;
	assert_int_equal(kx_ivf_search(world->ivf, &query, world->scratch, NULL, &best, NULL, NULL), KX_EINVAL);
	kx_world_free(world);
}

static void test_equal_vectors(void **state)
{
	struct kx_world *world = kx_world_new(64, 2000, 80, KX_METRIC_COSINE);
	struct kx_ivf_query query = kx_world_usual, all = kx_world_exact;
	float *same = calloc(world->dim, sizeof(float)), *centroids = calloc((size_t)80 * world->dim, sizeof(float));
	uint32_t best;

	(void)state;
	assert_true(same && centroids);
	kx_world_random_vector(world, same);
	for (uint32_t row = 0; row < world->rows; row++)
		kx_world_set_row(world, row, same);
	/* Training lives with it, whichever level it is. */
	for (uint32_t cells = 1; cells <= 80; cells += 79) {
		const struct kx_ivf_recipe recipe = {world->dim, world->metric, 1};

		assert_int_equal(kx_ivf_train(&recipe, world->values, world->rows, cells, centroids, NULL), KX_OK);
		for (uint32_t i = 0; i < cells * world->dim; i++)
			assert_true(fabsf(centroids[i] - kx_world_row(world, 0)[i % world->dim]) < 1e-5f);
	}
	for (uint32_t row = 0; row < world->rows; row++)
		kx_world_add_row(world, row);
	query.vector = all.vector = same;
	query.k = all.k = 50;
	assert_int_equal(kx_world_check(world, &all, &best), 50);
	assert_int_equal(kx_world_check(world, &query, &best), 50);
	free(same);
	free(centroids);
	kx_world_free(world);
}

/* What a cell gives is what it was given, in any state that it goes through. */
static void test_entries(void **state)
{
	static const uint32_t dims[] = {8, 100, 256};
	(void)state;
	for (size_t d = 0; d < KX_ARRAY_LEN(dims); d++) {
		struct kx_world *world = kx_world_new(dims[d], 1000, 1, KX_METRIC_COSINE);
		const size_t bytes = kx_ivf_entry_bytes(world->ivf);
		struct kx_buf in = {.max = 1 << 24}, out = {.max = 1 << 24};
		uint32_t count;

		for (uint32_t row = 0; row < 1000; row++) {
			uint8_t entry[sizeof(struct kx_ivf_entry_head) + KX_IVF_PADDED_MAX / 8];

			assert_int_equal(kx_ivf_encode(world->ivf, 1, row, kx_world_row(world, row), entry), KX_OK);
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
		kx_world_free(world);
	}
}

static void test_cold_cells(void **state)
{
	struct kx_world *world = kx_world_full(64, 5000, 50, KX_METRIC_COSINE);
	struct kx_ivf_query query = kx_world_usual, all = kx_world_exact;
	struct kx_ivf_filter *filter = kx_world_random_filter(world, 0.05);
	uint64_t warm = kx_ivf_hot_bytes(world->ivf);

	(void)state;
	kx_world_tune(world);
	for (uint32_t i = 0; i < world->cells; i += 2)
		kx_ivf_cell_cool(world->ivf, 3 * i + 1);
	assert_true(kx_ivf_hot_bytes(world->ivf) < warm);
	assert_true(kx_world_recall(world, query, 60) > 0.96);
	assert_true(kx_world_recall(world, all, 10) >= 1.0);
	query.filter = all.filter = filter;
	assert_true(kx_world_recall(world, query, 60) > 0.8);
	assert_true(kx_world_recall(world, all, 10) >= 1.0);
	kx_ivf_filter_free(filter);
	kx_world_free(world);
}

/* Cells come and go; what was in them stands elsewhere then. */
static void test_cells_change(void **state)
{
	struct kx_world *world = kx_world_full(64, 3000, 30, KX_METRIC_COSINE);

	(void)state;
	for (int round = 0; round < 40; round++) {
		uint32_t old = 3 * (uint32_t)round + 1, count;
		const uint32_t *rows;

		if (round >= 30)
			old = 1000 + (uint32_t)round - 30;
		rows = kx_ivf_cell_rows(world->ivf, old, &count);
		assert_int_equal(kx_ivf_cell_add(world->ivf, old, kx_world_row(world, 0), false), KX_EINVAL);
		for (uint32_t i = 0; i < count; i++)
			world->cell_of[rows[i]] = KX_IVF_NO_CELL;
		assert_int_equal(kx_ivf_cell_add(world->ivf, 1000 + (uint32_t)round,
						 kx_world_row(world, (uint32_t)round * 7), false), KX_OK);
		kx_ivf_cell_remove(world->ivf, old);
		kx_ivf_cell_remove(world->ivf, old);
		assert_int_equal(kx_ivf_cells_ready(world->ivf), KX_OK);
		assert_int_equal(kx_ivf_cell_count(world->ivf), 30);
		for (uint32_t row = 0; row < world->rows; row++)
			if (world->cell_of[row] == KX_IVF_NO_CELL)
				kx_world_add_row(world, row);
		assert_true(kx_world_recall(world, kx_world_exact, 1) >= 1.0);
		assert_true(kx_world_recall(world, kx_world_usual, 20) > 0.8);
	}
	kx_world_free(world);
}

/* Made ready in haste it finds no less than arranged later; adding a cell meanwhile is as ever. */
static void test_ready_soon(void **state)
{
	struct kx_world *world = kx_world_full(64, 6000, 600, KX_METRIC_COSINE);
	struct kx_ivf_arranged *arranged = NULL;
	double in_regions;

	(void)state;
	in_regions = kx_world_recall(world, kx_world_usual, 60);
	assert_false(kx_ivf_cells_flat(world->ivf));
	assert_int_equal(kx_ivf_cells_ready_soon(world->ivf), KX_OK);
	assert_true(kx_ivf_cells_flat(world->ivf));
	assert_true(kx_world_recall(world, kx_world_exact, 3) >= 1.0);
	assert_true(kx_world_recall(world, kx_world_usual, 60) > in_regions - 0.03);
	assert_int_equal(kx_ivf_cell_add(world->ivf, 5000, kx_world_row(world, 0), false), KX_OK);
	assert_int_equal(kx_ivf_cells_ready(world->ivf), KX_OK);
	assert_true(kx_ivf_cells_flat(world->ivf));
	assert_int_equal(kx_ivf_arrange(world->ivf, &arranged), KX_OK);
	kx_ivf_arrange_apply(world->ivf, arranged);
	assert_false(kx_ivf_cells_flat(world->ivf));
	assert_true(kx_world_recall(world, kx_world_exact, 3) >= 1.0);
	assert_true(kx_world_recall(world, kx_world_usual, 60) > in_regions - 0.03);
	kx_world_free(world);
}

/* Assignment in bulk is that of one by one, and that is brute force. */
static void test_assign(void **state)
{
	struct kx_world *world = kx_world_new(100, 3000, 300, KX_METRIC_COSINE);
	uint32_t *cells = calloc(world->rows, sizeof(*cells)), right = 0;
	float *measured = calloc(world->rows, sizeof(*measured));

	(void)state;
	assert_non_null(cells);
	assert_int_equal(kx_ivf_nearest_each(world->ivf, world->values, world->rows, cells, measured), KX_OK);
	for (uint32_t row = 0; row < world->rows; row++) {
		float best = INFINITY;
		uint32_t nearest = 0, near[3];
		float distances[3];

		for (uint32_t i = 0; i < world->cells; i++) {
			const float *centroid = kx_ivf_cell_centroid(world->ivf, 3 * i + 1);
			float distance = 0;

			for (uint32_t j = 0; j < world->dim; j++)
				distance += (kx_world_row(world, row)[j] - centroid[j]) * (kx_world_row(world, row)[j] - centroid[j]);
			nearest = distance < best ? 3 * i + 1 : nearest;
			best = distance < best ? distance : best;
		}
		assert_int_equal(kx_ivf_nearest_cells(world->ivf, kx_world_row(world, row), 3, near, distances), 3);
		assert_true(distances[0] <= distances[1] && distances[1] <= distances[2]);
		assert_true(fabsf(measured[row] - best) <= 1e-4f * best);
		right += cells[row] == nearest && near[0] == nearest;
	}
	printf("%u of %u rows in the nearest cell\n", right, world->rows);
	assert_true(right >= world->rows * 98 / 100);
	assert_null(kx_ivf_cell_centroid(world->ivf, 0));
	free(cells);
	free(measured);
	kx_world_free(world);
}

/* Of many at once it is the same, by whatever kernel, for numbers of vectors that fill no register, and none is farther than
 * the one that a search one by one finds. */
static void test_nearest_of_many(void **state)
{
	static const size_t counts[] = {1, 7, 8, 129, 3000};
	struct kx_world *world = kx_world_new(100, 3000, 300, KX_METRIC_COSINE);
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

		assert_int_equal(kx_ivf_nearest_cells(world->ivf, kx_world_row(world, row), 1, &near, &distance), 1);
		assert_true(distances[row] <= distance);
	}
	free(cells);
	free(distances);
	kx_world_free(world);
}

/* Over many vectors the estimate is right in the mean, and the bound holds about as often as it should. */
static void test_estimate(void **state)
{
	struct kx_world *world = kx_world_new(256, 4000, 1, KX_METRIC_INNER_PRODUCT);
	const struct kx_ivf_cell *cell = kx_ivf_cell_of(world->ivf, 1);
	float rotated[256], query[256], distance = 0;
	_Alignas(64) uint8_t lut[256 * 4];
	struct kx_ivf_lut table;
	double sum = 0, deviation = 0;
	uint32_t within = 0;

	(void)state;
	kx_world_random_vector(world, query);
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

		assert_int_equal(kx_ivf_encode(world->ivf, 1, row, kx_world_row(world, row), entry), KX_OK);
		head = kx_ivf_entry_head(entry);
		for (uint32_t i = 0; i < 64; i++)
			codes += lut[i * 16 + (entry[sizeof(head) + i / 2] >> i % 2 * 4 & 15)];
		estimate = head.add + head.mul * (table.scale * (float)codes + table.offset);
		for (uint32_t i = 0; i < 256; i++) {
			estimate += query[i] * cell->centroid[i];
			exactly += (double)query[i] * (double)kx_world_row(world, row)[i];
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
	kx_world_free(world);
}

/* So it does by the leading part of a code, which is what decides first. */
static void test_estimate_by_lead(void **state)
{
	struct kx_world *world = kx_world_full(256, 4000, 1, KX_METRIC_COSINE);
	const struct kx_ivf *ivf = world->ivf;
	const struct kx_ivf_cell *cell = kx_ivf_cell_of(ivf, 1);
	float rotated[256], query[256], distance = 0, product = 0;
	_Alignas(64) uint8_t lut[256 * 4];
	struct kx_ivf_lut table;
	double sum = 0, deviation = 0;

	(void)state;
	kx_world_random_vector(world, query);
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
			exactly += (double)query[i] * (double)kx_world_row(world, cell->place.rows[slot])[i];
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
	kx_world_free(world);
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
	struct kx_world *world;
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
		struct kx_ivf_query query = kx_world_usual;
		struct kx_ivf_hit hits[KX_WORLD_K];
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
	struct kx_world *world = kx_world_full(64, 15000, 150, KX_METRIC_COSINE);
	struct kx_ivf_filter *filter = kx_world_random_filter(world, 0.4);
	float *queries = calloc((size_t)100 * world->dim, sizeof(float));
	struct searcher searchers[4];
	pthread_t threads[4];

	(void)state;
	assert_non_null(queries);
	for (uint32_t i = 0; i < 100; i++)
		kx_world_random_vector(world, queries + (size_t)i * world->dim);
	for (int i = 0; i < 4; i++) {
		searchers[i] = (struct searcher){world, filter, queries, 0};
		assert_int_equal(kx_thread_start(&threads[i], "search", search_many, &searchers[i], NULL), KX_OK);
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(searchers[i].found, 100 * KX_WORLD_K);
	}
	free(queries);
	kx_ivf_filter_free(filter);
	kx_world_free(world);
}

/* Whichever allocation fails: it is said, nothing is half done, and the next try is right. */
static void test_out_of_memory(void **state)
{
	static const char *const points[] = {"ann.grow", "ann.pages", "ann.view", "ann.scratch"};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(points); i++) {
		for (uint64_t nth = 1; nth < 12; nth++) {
			struct kx_world *world = kx_world_new(64, 600, 3, KX_METRIC_COSINE);
			struct kx_ivf_filter *filter = kx_world_random_filter(world, 0.5);
			struct kx_ivf_query query = kx_world_usual, all = kx_world_exact;
			struct kx_buf entries = {.max = 1 << 20};
			struct kx_ivf_hit hits[KX_WORLD_K];
			uint32_t count, best;
			kx_status status;

			for (uint32_t row = 0; row < world->rows; row++)
				world->cell_of[row] = 4;
			assert_int_equal(kx_world_load(world, 4, &entries, NULL), KX_OK);
			kx_fault_arm(points[i], nth);
			status = kx_ivf_append(world->ivf, 4, entries.data, world->rows);
			(void)kx_ivf_cell_rows(world->ivf, 4, &count);
			assert_true(status == KX_OK || status == KX_ENOMEM);
			assert_int_equal(count, status ? 0 : world->rows);
			if (status)
				assert_int_equal(kx_ivf_append(world->ivf, 4, entries.data, world->rows), KX_OK);
			query.vector = all.vector = kx_world_row(world, 3);
			query.filter = filter;
			for (int search = 0; search < 3; search++) { /* one by one, with a map, with all it needs */
				status = kx_ivf_search(world->ivf, &query, world->scratch, hits, &count, NULL, NULL);
				assert_true(status == KX_OK || status == KX_ENOMEM);
			}
			(void)kx_world_check(world, &query, &best);
			status = kx_ivf_cell_add(world->ivf, 5000, kx_world_row(world, 9), false);
			assert_true(status == KX_OK || status == KX_ENOMEM);
			assert_int_equal(kx_ivf_cell_count(world->ivf), status ? 3 : 4);
			status = kx_ivf_cells_ready(world->ivf);
			kx_fault_clear();
			assert_true(status == KX_OK || status == KX_ENOMEM);
			assert_int_equal(kx_ivf_cells_ready(world->ivf), KX_OK);
			assert_int_equal(kx_world_check(world, &all, &best), KX_WORLD_K);
			kx_buf_done(&entries);
			kx_ivf_filter_free(filter);
			kx_world_free(world);
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
		cmocka_unit_test(test_ready_soon),
		cmocka_unit_test(test_searches_at_once),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
