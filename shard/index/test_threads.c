/* Searches, changes, care and live recall at the same time; what a commit returned for is found by the next search. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/thread.h"
#include "shard/index/testkit.h"

#define DIM 16u
#define WRITERS 3u
#define READERS 2u
#define EACH 240u /* numbers of a writer */

struct crowd {
	struct kx_kit_index kit;
	uint32_t space;
	atomic_uint next_writer;
	atomic_bool done;
	atomic_uint searches, failures;
	struct kx_index_filter *filter;
};

static void vector_of(uint32_t number, float *ret)
{
	uint64_t random = number + 1;

	kx_kit_vector(&random, DIM, 10, ret);
}

static bool finds(struct crowd *crowd, uint32_t number, double recall, struct kx_index_hits *hits)
{
	float vector[DIM];
	struct kx_index_query query = {.vector = vector, .dim = DIM, .k = 5, .recall = recall};

	vector_of(number, vector);
	if (kx_index_search(crowd->kit.index, crowd->space, &query, hits, NULL))
		return false;
	return hits->count && kx_kit_number(&hits->list[0]) == number;
}

static void *write_some(void *ctx)
{
	struct crowd *crowd = ctx;
	const uint32_t from = atomic_fetch_add(&crowd->next_writer, 1) * EACH;
	struct kx_index_hits hits = {0};
	float vector[DIM];

	for (uint32_t i = from; i < from + EACH; i++) {
		vector_of(i, vector);
		if (kx_kit_put(&crowd->kit, crowd->space, i, vector, DIM, NULL) || !finds(crowd, i, 1, &hits))
			atomic_fetch_add(&crowd->failures, 1);
		if (i % 3 == 2 && (kx_kit_put(&crowd->kit, crowd->space, i - 1, NULL, 0, NULL) ||
				   finds(crowd, i - 1, 1, &hits)))
			atomic_fetch_add(&crowd->failures, 1);
	}
	kx_index_hits_done(&hits);
	return NULL;
}

static void *read_some(void *ctx)
{
	struct crowd *crowd = ctx;
	struct kx_index_hits hits = {0};
	struct kx_index_stats stats;
	uint64_t random = 5;

	while (!atomic_load(&crowd->done)) {
		float vector[DIM];
		struct kx_index_query query = {.vector = vector, .dim = DIM, .k = 10, .recall = 0.9};

		kx_kit_vector(&random, DIM, 10, vector);
		query.filter = kx_test_below(&random, 3) ? NULL : crowd->filter;
		if (kx_index_search(crowd->kit.index, crowd->space, &query, &hits, NULL))
			atomic_fetch_add(&crowd->failures, 1);
		for (uint32_t i = 1; i < hits.count; i++)
			if (hits.list[i].score > hits.list[i - 1].score)
				atomic_fetch_add(&crowd->failures, 1);
		if (kx_index_stats(crowd->kit.index, crowd->space, &stats, NULL))
			atomic_fetch_add(&crowd->failures, 1);
		atomic_fetch_add(&crowd->searches, 1);
	}
	kx_index_hits_done(&hits);
	return NULL;
}

static void row_changed(void *ctx, uint32_t space, uint32_t row, const void *key, size_t key_len,
			const void *attributes, size_t attributes_len)
{
	struct crowd *crowd = ctx;

	(void)space;
	(void)key_len;
	(void)attributes;
	(void)attributes_len;
	if (crowd->filter && kx_index_filter_set(crowd->filter, row, key && row % 2))
		atomic_fetch_add(&crowd->failures, 1);
}

static void run(uint64_t memory_bytes)
{
	static struct crowd crowd;
	pthread_t threads[WRITERS + READERS];
	struct kx_index_stats stats;
	struct kx_error error = {0};
	uint32_t done;

	memset(&crowd, 0, sizeof(crowd));
	kx_kit_index_init(&crowd.kit);
	crowd.kit.options.manual = false;
	crowd.kit.options.recall_share = 10;
	crowd.kit.options.memory_bytes = memory_bytes;
	crowd.kit.options.row_changed = row_changed;
	crowd.kit.options.row_changed_ctx = &crowd;
	assert_int_equal(kx_kit_index_open(&crowd.kit, &error), KX_OK);
	assert_int_equal(kx_index_space(crowd.kit.index, "a", DIM, KX_METRIC_COSINE, &crowd.space, &error), KX_OK);
	assert_int_equal(kx_index_filter_new(crowd.kit.index, crowd.space, NULL, 0, &crowd.filter, &error), KX_OK);
	for (uint32_t i = 0; i < WRITERS + READERS; i++)
		assert_int_equal(kx_thread_start(&threads[i], "crowd", i < WRITERS ? write_some : read_some, &crowd, NULL),
				 KX_OK);
	for (uint32_t i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(kx_index_retrain(crowd.kit.index, crowd.space, &error), KX_OK);
	atomic_store(&crowd.done, true);
	for (uint32_t i = WRITERS; i < WRITERS + READERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&crowd.failures), 0);
	assert_true(atomic_load(&crowd.searches) > 0);
	assert_int_equal(kx_index_maintain(crowd.kit.index, UINT32_MAX, &done, &error), KX_OK);
	kx_kit_verify(&crowd.kit);
	assert_int_equal(kx_index_stats(crowd.kit.index, crowd.space, &stats, &error), KX_OK);
	assert_int_equal(stats.rows, WRITERS * EACH * 2 / 3);
	assert_true(stats.trainings >= 1 && stats.folds > 0);
	kx_kit_index_close(&crowd.kit);
	kx_index_filter_free(crowd.filter);
	kx_kit_index_done(&crowd.kit);
}

static void all_at_once(void **state)
{
	(void)state;
	run(0);
}

static void all_at_once_in_little_memory(void **state)
{
	(void)state;
	run(16000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_at_once),
		cmocka_unit_test(all_at_once_in_little_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
