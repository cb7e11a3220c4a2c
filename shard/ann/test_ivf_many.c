/* Many queries in one call find what each finds alone, whatever they are and whatever the CPU has. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/macros.h"
#include "common/base/testkit.h"
#include "common/base/thread.h"
#include "common/learn/learn.h"
#include "shard/ann/ivf_batch.h"
#include "shard/ann/testkit.h"

#define K_MOST 300u
#define SURE 0.9999 /* recall: of so few rows about all that there is is found */

/* Queries and their answers. */
struct batch {
	size_t n;
	float *vectors;
	struct kx_ivf_query *queries;
	struct kx_ivf_answer *answers;
	struct kx_ivf_hit *hits; /* [n][K_MOST] */
};

static struct batch batch_new(struct kx_world *world, size_t n, double recall)
{
	struct batch batch = {n, calloc(n + 1, world->dim * sizeof(float)), calloc(n + 1, sizeof(*batch.queries)),
			      calloc(n + 1, sizeof(*batch.answers)), calloc(n + 1, K_MOST * sizeof(*batch.hits))};

	assert_true(batch.vectors && batch.queries && batch.answers && batch.hits);
	for (size_t i = 0; i < n; i++) {
		float *vector = batch.vectors + i * world->dim;

		kx_world_random_vector(world, vector);
		batch.queries[i] = (struct kx_ivf_query){vector, KX_WORLD_K, recall, KX_IVF_NO_ROW, NULL};
		batch.answers[i].hits = batch.hits + i * K_MOST;
	}
	return batch;
}

static void batch_free(struct batch *batch)
{
	free(batch->vectors);
	free(batch->queries);
	free(batch->answers);
	free(batch->hits);
}

static void ask(const struct kx_world *world, struct batch *batch)
{
	assert_int_equal(kx_ivf_search_many(world->ivf, batch->queries, batch->n, world->scratch, batch->answers, NULL), KX_OK);
}

/* How many of the best each found, by all at once and each alone; returns how many there are. */
static uint32_t compare(struct kx_world *world, struct batch *batch, uint32_t *ret_together, uint32_t *ret_alone)
{
	uint32_t there = 0;

	ask(world, batch);
	*ret_together = *ret_alone = 0;
	for (size_t i = 0; i < batch->n; i++) {
		const struct kx_ivf_answer *answer = &batch->answers[i];
		uint32_t best;

		*ret_together += kx_world_check_hits(world, &batch->queries[i], answer->hits, answer->count, &best);
		*ret_alone += kx_world_check(world, &batch->queries[i], &best);
		there += best;
	}
	return there;
}

/* With loops of its own choice; rows are not in their cells yet. */
static struct kx_world *world_with(const struct kx_ivf_kernels *kernels, uint32_t dim, uint32_t rows, uint32_t cells)
{
	struct kx_world *world = kx_world_new(dim, rows, cells, KX_METRIC_COSINE);

	world->ivf->kernels = kernels;
	for (uint32_t row = 0; row < rows; row++)
		kx_world_add_row(world, row);
	return world;
}

/* Bounds hold with as much certainty as recall asks for, so that a search of nearly all misses nearly nothing; what the codes of
 * a query are rounded to differs between the two ways, and with it what they miss. */
static void test_as_alone(void **state)
{
	const struct kx_ivf_kernels *const all[] = {&kx_ivf_kernels_c, kx_ivf_kernels_avx2(), kx_ivf_kernels_avx512(),
						    kx_ivf_kernels_amx(), kx_ivf_kernels_neon()};
	static const uint32_t dims[] = {8, 100, 256, 1100};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(all); i++) {
		for (size_t j = 0; all[i] && j < KX_ARRAY_LEN(dims); j++) {
			const uint32_t rows = dims[j] > 1000 ? 500 : 2500;
			struct kx_world *world = world_with(all[i], dims[j], rows, rows / 60);
			struct batch batch = batch_new(world, 120, SURE);
			uint32_t together, alone, there = compare(world, &batch, &together, &alone);

			printf("%s, %u dimensions: of %u %u together, %u alone\n", all[i]->name, dims[j], there, together, alone);
			assert_true(together + there / 500 >= there);
			batch_free(&batch);
			kx_world_free(world);
		}
	}
}

/* As hard as alone: the recall asked for by the tuning, no less and not much more. */
static void test_asked_is_got(void **state)
{
	static const double wanted[] = {0.9, 0.95, 0.98};
	struct kx_world *world = kx_world_full(128, 8000, 80, KX_METRIC_COSINE);
	struct batch tuners = batch_new(world, 1000, SURE);
	struct kx_ivf_tuning tuning;

	(void)state;
	assert_int_equal(kx_ivf_tune(world->ivf, tuners.vectors, tuners.n, &tuning, NULL), KX_OK);
	kx_ivf_set_tuning(world->ivf, &tuning);
	for (size_t i = 0; i < KX_ARRAY_LEN(wanted); i++) {
		struct batch batch = batch_new(world, 400, wanted[i]);
		uint32_t together, alone, there = compare(world, &batch, &together, &alone);

		printf("asked %.3f, got %.4f together, %.4f alone\n", wanted[i], (double)together / there, (double)alone / there);
		assert_true((double)together / there > wanted[i] - 0.02);
		assert_true(together >= alone - there / 100 && together <= alone + there * 3 / 100);
		batch_free(&batch);
	}
	batch_free(&tuners);
	kx_world_free(world);
}

/* All sorts of queries in one call. */
static void vary(struct kx_world *world, struct batch *batch, const struct kx_ivf_filter *filter)
{
	static const uint32_t ks[] = {1, 10, 100, K_MOST, 0};

	for (size_t i = 0; i < batch->n; i++) {
		struct kx_ivf_query *query = &batch->queries[i];

		query->k = ks[kx_test_below(&world->random, KX_ARRAY_LEN(ks))];
		query->recall = kx_test_below(&world->random, 6) ? SURE : 1.0;
		query->filter = kx_test_below(&world->random, 3) ? NULL : filter;
		if (kx_test_below(&world->random, 2)) { /* a row that does not find itself */
			query->exclude = (uint32_t)kx_test_below(&world->random, world->rows);
			query->vector = kx_world_row(world, query->exclude);
		}
		if (i && !kx_test_below(&world->random, 8))
			*query = batch->queries[i - 1];
	}
}

static void test_all_sorts(void **state)
{
	(void)state;
	for (int metric = KX_METRIC_COSINE; metric <= KX_METRIC_INNER_PRODUCT; metric++) {
		struct kx_world *world = kx_world_full(64, 3000, 60, (enum kx_metric)metric);
		struct kx_ivf_filter *filter = kx_world_random_filter(world, 0.3);

		for (size_t n = 0; n < 300; n = n * 3 + 1) {
			struct batch batch = batch_new(world, n, SURE);
			uint32_t together, alone, there;

			vary(world, &batch, filter);
			there = compare(world, &batch, &together, &alone);
			printf("%zu queries: of %u %u together, %u alone\n", n, there, together, alone);
			assert_true(together + there / 200 >= there);
			batch_free(&batch);
		}
		kx_ivf_filter_free(filter);
		kx_world_free(world);
	}
}

/* Where a query wants more of the cells than those near it that are known, it is asked alone; and later calls know more. */
static void test_far_cells(void **state)
{
	struct kx_world *world = kx_world_full(16, 12000, 3000, KX_METRIC_COSINE);
	const struct kx_ivf_tuning everywhere = {.count = 1, .recall = {0.9f}, .effort = {20.0f}};
	struct batch batch = batch_new(world, 100, 0.99999);
	uint32_t known = 0;

	(void)state;
	kx_ivf_set_tuning(world->ivf, &everywhere);
	for (uint32_t round = 0; round < 3; round++) {
		uint32_t together, alone, there = compare(world, &batch, &together, &alone);

		assert_true(together + there / 500 >= there);
		known = round ? known : world->scratch->batch->kept;
	}
	assert_true(world->ivf->centroids.lanes.groups > known);
	printf("%.0f cells a query; of %u groups %u are known, then %u\n", (double)world->scratch->batch->cells, world->ivf->centroids.lanes.groups, known, world->scratch->batch->want_kept);
	assert_true(world->scratch->batch->want_kept >= world->ivf->centroids.lanes.groups);
	batch_free(&batch);
	kx_world_free(world);
}

static void test_nothing_there(void **state)
{
	struct kx_world *world = kx_world_new(32, 600, 3, KX_METRIC_COSINE);
	struct batch batch = batch_new(world, 50, 0.9);

	(void)state;
	ask(world, &batch);
	for (size_t i = 0; i < batch.n; i++)
		assert_int_equal(batch.answers[i].count, 0);
	kx_world_add_row(world, 7);
	ask(world, &batch);
	for (size_t i = 0; i < batch.n; i++) {
		assert_int_equal(batch.answers[i].count, 1);
		assert_int_equal(batch.answers[i].hits[0].row, 7);
	}
	batch.queries[3].recall = 2.0;
	assert_int_equal(kx_ivf_search_many(world->ivf, batch.queries, batch.n, world->scratch, batch.answers, NULL), KX_EINVAL);
	batch_free(&batch);
	kx_world_free(world);
}

static void test_cold_cells(void **state)
{
	struct kx_world *world = kx_world_full(32, 2000, 20, KX_METRIC_COSINE);
	struct batch batch = batch_new(world, 60, SURE);
	uint32_t together, alone, there;

	(void)state;
	kx_ivf_cell_cool(world->ivf, 4);
	there = compare(world, &batch, &together, &alone);
	assert_int_equal(together, alone);
	assert_true(together + there / 500 >= there);
	batch_free(&batch);
	kx_world_free(world);
}

/* Whichever allocation fails, it is said, and the next try is right. */
static void test_out_of_memory(void **state)
{
	struct kx_world *world = kx_world_full(64, 1500, 30, KX_METRIC_COSINE);
	struct batch batch = batch_new(world, 80, SURE);
	uint32_t failed = 0;

	(void)state;
	for (uint64_t nth = 1; nth < 40; nth++) {
		struct kx_ivf_scratch *scratch;
		kx_status status;

		assert_int_equal(kx_ivf_scratch_new(&scratch), KX_OK);
		kx_fault_arm("ann.scratch", nth);
		status = kx_ivf_search_many(world->ivf, batch.queries, batch.n, scratch, batch.answers, NULL);
		kx_fault_clear();
		assert_true(status == KX_OK || status == KX_ENOMEM);
		failed += status == KX_ENOMEM;
		assert_int_equal(kx_ivf_search_many(world->ivf, batch.queries, batch.n, scratch, batch.answers, NULL), KX_OK);
		for (size_t i = 0; i < batch.n; i++) {
			uint32_t best;

			(void)kx_world_check_hits(world, &batch.queries[i], batch.answers[i].hits, batch.answers[i].count, &best);
		}
		kx_ivf_scratch_free(scratch);
	}
	assert_true(failed > 15);
	batch_free(&batch);
	kx_world_free(world);
}

struct searcher {
	struct kx_world *world;
	struct batch batch;
	kx_status status;
};

static void *search_on(void *arg)
{
	struct searcher *searcher = arg;
	struct batch *batch = &searcher->batch;
	struct kx_ivf_scratch *scratch;

	searcher->status = kx_ivf_scratch_new(&scratch);
	if (searcher->status)
		return NULL;
	for (uint32_t round = 0; round < 5 && !searcher->status; round++)
		searcher->status =
			kx_ivf_search_many(searcher->world->ivf, batch->queries, batch->n, scratch, batch->answers, NULL);
	kx_ivf_scratch_free(scratch);
	return NULL;
}

static void test_side_by_side(void **state)
{
	struct kx_world *world = kx_world_full(64, 5000, 100, KX_METRIC_COSINE);
	struct kx_ivf_filter *filter = kx_world_random_filter(world, 0.3);
	struct searcher searchers[4];
	pthread_t threads[4];

	(void)state;
	for (int i = 0; i < 4; i++) {
		searchers[i] = (struct searcher){world, batch_new(world, 100, SURE), KX_OK};
		vary(world, &searchers[i].batch, filter);
	}
	for (int i = 0; i < 4; i++)
		assert_int_equal(kx_thread_start(&threads[i], "search", search_on, &searchers[i], NULL), KX_OK);
	for (int i = 0; i < 4; i++) {
		struct batch *batch = &searchers[i].batch;

		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(searchers[i].status, KX_OK);
		for (size_t j = 0; j < batch->n; j++) {
			uint32_t best;

			(void)kx_world_check_hits(world, &batch->queries[j], batch->answers[j].hits, batch->answers[j].count, &best);
		}
		batch_free(batch);
	}
	kx_ivf_filter_free(filter);
	kx_world_free(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_alone),
		cmocka_unit_test(test_asked_is_got),
		cmocka_unit_test(test_all_sorts),
		cmocka_unit_test(test_far_cells),
		cmocka_unit_test(test_nothing_there),
		cmocka_unit_test(test_cold_cells),
		cmocka_unit_test(test_out_of_memory),
		cmocka_unit_test(test_side_by_side),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
