/* Data that drifts away from what the index was made of: cells follow, and what was asked for is still found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shard/index/testkit.h"

#define DIM 16u
#define OLD 6000u
#define NEW 6000u
#define OLD_CENTERS 20u
#define CENTERS 60u
#define QUERIES 400u
#define ASKED 0.95
#define AT_ONCE 100u
#define KEY_BYTES 16u

static int setup(void **state)
{
	struct kx_kit_index *kit = calloc(1, sizeof(*kit));

	assert_non_null(kit);
	kx_kit_index_init(kit);
	kit->options.train_rows = 4000;
	kit->options.cell_rows = 40;
	*state = kit;
	return 0;
}

static int teardown(void **state)
{
	kx_kit_index_done(*state);
	free(*state);
	return 0;
}

static void drain(struct kx_kit_index *kit)
{
	uint32_t done;

	assert_int_equal(kx_index_maintain(kit->index, UINT32_MAX, &done, NULL), KX_OK);
}

/* Rows of a number of centers, many at a time; each vector is used up by its commit. */
static void put(struct kx_kit_index *kit, uint32_t space, uint64_t *random, uint32_t from, uint32_t count, uint32_t centers)
{
	static char keys[AT_ONCE][KEY_BYTES];
	static float vectors[AT_ONCE][DIM];
	struct kx_index_change changes[AT_ONCE];

	for (uint32_t at = 0; at < count; at += AT_ONCE) {
		for (uint32_t i = 0; i < AT_ONCE; i++) {
			int len = snprintf(keys[i], KEY_BYTES, "v%u", from + at + i);

			kx_kit_vector(random, DIM, centers, vectors[i]);
			changes[i] = (struct kx_index_change){.space = space, .key = keys[i], .key_len = (size_t)len,
							      .vector = vectors[i], .dim = DIM};
		}
		assert_int_equal(kx_index_commit(kit->index, changes, AT_ONCE, NULL), KX_OK);
		drain(kit);
	}
}

static bool has(const struct kx_index_hits *hits, uint32_t row)
{
	for (uint32_t i = 0; i < hits->count; i++)
		if (hits->list[i].row == row)
			return true;
	return false;
}

static double recall_of(struct kx_kit_index *kit, uint32_t space, uint64_t *random, uint32_t centers)
{
	struct kx_index_hits right = {0}, found = {0};
	uint64_t there = 0, same = 0;
	float vector[DIM];

	for (uint32_t i = 0; i < QUERIES; i++) {
		struct kx_index_query query = {.vector = vector, .dim = DIM, .k = 10, .recall = 1};

		kx_kit_vector(random, DIM, centers, vector);
		assert_int_equal(kx_index_search(kit->index, space, &query, &right, NULL), KX_OK);
		query.recall = ASKED;
		assert_int_equal(kx_index_search(kit->index, space, &query, &found, NULL), KX_OK);
		there += right.count;
		for (uint32_t j = 0; j < right.count; j++)
			same += has(&found, right.list[j].row);
	}
	kx_index_hits_done(&right);
	kx_index_hits_done(&found);
	return (double)same / (double)there;
}

static void what_drifts_is_followed(void **state)
{
	struct kx_kit_index *kit = *state;
	uint64_t random = kx_test_seed();
	struct kx_index_stats stats;
	uint32_t space;
	double recall;

	assert_int_equal(kx_kit_index_open(kit, NULL), KX_OK);
	assert_int_equal(kx_index_space(kit->index, "a", DIM, KX_METRIC_COSINE, &space, NULL), KX_OK);
	put(kit, space, &random, 0, OLD, OLD_CENTERS);
	put(kit, space, &random, OLD, NEW, CENTERS);
	assert_int_equal(kx_index_stats(kit->index, space, &stats, NULL), KX_OK);
	printf("%llu splits, %llu refits, %llu rows moved, %llu tunings, %llu trainings\n", (unsigned long long)stats.splits,
	       (unsigned long long)stats.refits, (unsigned long long)stats.moved, (unsigned long long)stats.tunings,
	       (unsigned long long)stats.trainings);
	assert_true(stats.refits > 0);
	assert_true(stats.tunings > 0);
	recall = recall_of(kit, space, &random, CENTERS);
	printf("asked %.3f, got %.4f\n", ASKED, recall);
	assert_true(recall >= ASKED - 0.02);
	kx_kit_verify(kit);

	kx_kit_index_close(kit); /* and the tuning was kept */
	assert_int_equal(kx_kit_index_open(kit, NULL), KX_OK);
	drain(kit);
	assert_true(recall_of(kit, space, &random, CENTERS) >= ASKED - 0.02);
	kx_kit_verify(kit);
}

/* Rows of what it was made of come: there is nothing to follow. */
static void what_stays_is_left(void **state)
{
	struct kx_kit_index *kit = *state;
	uint64_t random = kx_test_seed();
	struct kx_index_stats before, stats;
	uint32_t space;

	assert_int_equal(kx_kit_index_open(kit, NULL), KX_OK);
	assert_int_equal(kx_index_space(kit->index, "a", DIM, KX_METRIC_COSINE, &space, NULL), KX_OK);
	put(kit, space, &random, 0, OLD, OLD_CENTERS);
	assert_int_equal(kx_index_stats(kit->index, space, &before, NULL), KX_OK);
	for (uint32_t i = 0; i < 100; i++) { /* the same vectors under the same keys */
		uint64_t again = i + 1;

		put(kit, space, &again, 0, AT_ONCE, OLD_CENTERS);
	}
	assert_int_equal(kx_index_stats(kit->index, space, &stats, NULL), KX_OK);
	printf("%llu refits and %llu tunings for 10,000 updates of %u rows\n", (unsigned long long)(stats.refits - before.refits),
	       (unsigned long long)(stats.tunings - before.tunings), OLD);
	assert_true(stats.refits - before.refits < stats.cells);
	assert_true(stats.tunings - before.tunings <= 2 * 10000 / 2000); /* an update takes one row and frees one */
	kx_kit_verify(kit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_drifts_is_followed, setup, teardown),
		cmocka_unit_test_setup_teardown(what_stays_is_left, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
