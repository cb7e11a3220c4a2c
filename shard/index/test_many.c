/* Many queries in one call: each is answered as when it is asked alone. */
#include <math.h>
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
#define ROWS 3000u
#define MOST 700u /* queries; more than are asked at once, some times over */
#define SEED 20261127u

static void check(kx_status status, const struct kx_error *error)
{
	if (status)
		fail_msg("%s: %s", kx_status_name(status), error->message);
}

static void vector_of(uint32_t number, float *ret)
{
	uint64_t random = number + 1;

	kx_kit_vector(&random, DIM, 30, ret);
}

static void put_many(struct kx_kit_index *kit, uint32_t from, uint32_t to)
{
	static char keys[ROWS][16];
	static float vectors[ROWS][DIM];
	static struct kx_index_change changes[ROWS];
	struct kx_error error = {0};

	for (uint32_t i = from; i < to; i++) {
		vector_of(i, vectors[i - from]);
		changes[i - from] = (struct kx_index_change){.key = keys[i - from], .vector = vectors[i - from], .dim = DIM};
		changes[i - from].key_len = (size_t)snprintf(keys[i - from], sizeof(keys[0]), "v%u", i);
	}
	check(kx_index_commit(kit->index, changes, to - from, &error), &error);
}

static void drain(struct kx_kit_index *kit)
{
	struct kx_error error = {0};
	uint32_t done;

	check(kx_index_maintain(kit->index, UINT32_MAX, &done, &error), &error);
}

static void open_index(struct kx_kit_index *kit)
{
	struct kx_error error = {0};
	uint32_t space;

	check(kx_kit_index_open(kit, &error), &error);
	check(kx_index_space(kit->index, "a", DIM, KX_METRIC_COSINE, &space, &error), &error);
	assert_int_equal(space, 0);
}

static int setup(void **state)
{
	struct kx_kit_index *kit = calloc(1, sizeof(*kit));

	assert_non_null(kit);
	kx_kit_index_init(kit);
	open_index(kit);
	put_many(kit, 0, ROWS);
	drain(kit);
	*state = kit;
	return 0;
}

static int teardown(void **state)
{
	kx_kit_index_done(*state);
	free(*state);
	return 0;
}

/* Queries of all kinds, and room for their answers: together, and one by one. */
struct batch {
	float vectors[MOST][DIM];
	char excluded[MOST][16];
	struct kx_index_query queries[MOST];
	struct kx_index_hits together[MOST], alone[MOST];
	struct kx_index_filter *filters[2];
};

static struct batch *batch_new(void)
{
	struct batch *batch = calloc(1, sizeof(*batch));

	assert_non_null(batch);
	return batch;
}

static void batch_free(struct batch *batch)
{
	for (uint32_t i = 0; i < MOST; i++) {
		kx_index_hits_done(&batch->together[i]);
		kx_index_hits_done(&batch->alone[i]);
	}
	kx_index_filter_free(batch->filters[0]);
	kx_index_filter_free(batch->filters[1]);
	free(batch);
}

/* One that leaves many rows, one that leaves few. */
static void make_filters(struct kx_kit_index *kit, struct batch *batch)
{
	uint64_t bits[2][(ROWS + 63) / 64] = {{0}};
	struct kx_error error = {0};

	for (uint32_t row = 0; row < ROWS; row++) {
		bits[0][row / 64] |= (uint64_t)(row % 3 != 0) << row % 64;
		bits[1][row / 64] |= (uint64_t)(row % 97 == 0) << row % 64;
	}
	for (int i = 0; i < 2; i++)
		check(kx_index_filter_new(kit->index, 0, bits[i], ROWS, &batch->filters[i], &error), &error);
}

static void make_query(struct batch *batch, uint32_t i, double recall, uint64_t *random)
{
	struct kx_index_query *query = &batch->queries[i];
	uint32_t number = (uint32_t)kx_test_below(random, 2 * ROWS);
	const char *excluded = batch->excluded[i];

	vector_of(number, batch->vectors[i]);
	*query = (struct kx_index_query){
		.vector = batch->vectors[i], .dim = DIM, .k = 1 + (uint32_t)kx_test_below(random, 40), .recall = recall};
	if (kx_test_below(random, 3) == 0) {
		query->exclude_len = (size_t)snprintf(batch->excluded[i], sizeof(batch->excluded[i]), "v%u", number);
		query->exclude = excluded;
	}
	if (kx_test_below(random, 2) == 0)
		query->filter = batch->filters[kx_test_below(random, 2)];
	if (kx_test_below(random, 50) == 0)
		query->k = KX_INDEX_K_MAX;
}

static void make_queries(struct batch *batch, uint32_t count, double recall, uint64_t *random)
{
	for (uint32_t i = 0; i < count; i++)
		make_query(batch, i, recall, random);
}

static void ask_both(struct kx_kit_index *kit, struct batch *batch, uint32_t count)
{
	struct kx_error error = {0};

	check(kx_index_search_many(kit->index, 0, batch->queries, count, batch->together, &error), &error);
	for (uint32_t i = 0; i < count; i++)
		check(kx_index_search(kit->index, 0, &batch->queries[i], &batch->alone[i], &error), &error);
}

static void expect_same(const struct kx_index_hits *one, const struct kx_index_hits *two)
{
	assert_int_equal(one->count, two->count);
	for (uint32_t i = 0; i < one->count; i++) {
		assert_int_equal(one->list[i].row, two->list[i].row);
		assert_int_equal(kx_kit_number(&one->list[i]), kx_kit_number(&two->list[i]));
		assert_float_equal(one->list[i].score, two->list[i].score, 1e-6);
	}
}

static void exact_answers_are_the_same(void **state)
{
	struct kx_kit_index *kit = *state;
	struct batch *batch = batch_new();
	uint64_t random = SEED;

	make_filters(kit, batch);
	for (uint32_t count = 0; count <= MOST; count = 1 + 3 * count) {
		make_queries(batch, count, 1.0, &random);
		ask_both(kit, batch, count);
		for (uint32_t i = 0; i < count; i++) {
			expect_same(&batch->together[i], &batch->alone[i]);
			assert_true(batch->together[i].work.exact);
		}
	}
	batch_free(batch);
}

static uint32_t found_of(const struct kx_index_hits *truth, const struct kx_index_hits *hits)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < truth->count; i++)
		for (uint32_t j = 0; j < hits->count; j++)
			found += truth->list[i].row == hits->list[j].row;
	return found;
}

/* What is approximate may differ, but finds as much. */
static void approximate_answers_find_as_much(void **state)
{
	struct kx_kit_index *kit = *state;
	struct batch *batch = batch_new();
	uint64_t random = SEED + 1, again = SEED + 1;
	uint32_t found = 0, there = 0, wanted = 0;
	struct kx_error error = {0};

	make_filters(kit, batch);
	make_queries(batch, MOST, 0.9, &random);
	check(kx_index_search_many(kit->index, 0, batch->queries, MOST, batch->together, &error), &error);
	make_queries(batch, MOST, 1.0, &again);
	for (uint32_t i = 0; i < MOST; i++) {
		check(kx_index_search(kit->index, 0, &batch->queries[i], &batch->alone[i], &error), &error);
		assert_true(batch->together[i].count <= batch->queries[i].k);
		found += found_of(&batch->alone[i], &batch->together[i]);
		there += batch->alone[i].count;
		wanted += batch->together[i].work.codes > 0 || batch->together[i].work.refined > 0;
	}
	assert_true(found >= 0.88 * there);
	assert_int_equal(wanted, MOST); /* each says what it did */
	batch_free(batch);
}

static void expect_refused(struct kx_kit_index *kit, struct batch *batch, uint32_t count, const char *says)
{
	struct kx_error error = {0};

	assert_int_equal(kx_index_search_many(kit->index, 0, batch->queries, count, batch->together, &error), KX_EINVAL);
	assert_non_null(strstr(error.message, says));
	for (uint32_t i = 0; i < count; i++)
		assert_int_equal(batch->together[i].count, 0);
}

static void a_bad_query_is_named(void **state)
{
	struct kx_kit_index *kit = *state;
	struct batch *batch = batch_new();
	uint64_t random = SEED + 2;
	struct kx_error error = {0};

	make_queries(batch, 300, 0.9, &random);
	check(kx_index_search_many(kit->index, 0, batch->queries, 300, batch->together, &error), &error);
	batch->queries[291].k = KX_INDEX_K_MAX + 1;
	expect_refused(kit, batch, 300, "query 291: k of");
	batch->queries[257].recall = NAN;
	expect_refused(kit, batch, 300, "query 257: a recall of");
	batch->queries[7].dim = DIM + 1;
	expect_refused(kit, batch, 300, "query 7: space a: a vector of 17 dimensions");
	memset(batch->vectors[0], 0, sizeof(batch->vectors[0]));
	expect_refused(kit, batch, 300, "query 0: space a: the vector is all zero");
	assert_int_equal(kx_index_search_many(kit->index, 0, batch->queries, 1, batch->together, &error), KX_EINVAL);
	assert_string_equal(error.message, "space a: the vector is all zero"); /* there is but one */
	assert_int_equal(kx_index_search_many(kit->index, 3, batch->queries, 2, batch->together, &error), KX_ENOTFOUND);
	batch_free(batch);
}

/* Every third cell is rotten: the first query that reaches one has it made again, and all of them are answered. */
static void rotten_cells_are_made_again(void **state)
{
	struct kx_kit_index *kit = *state;
	struct batch *batch = batch_new();
	struct kx_index_stats stats;
	uint64_t random = SEED + 3;

	(void)kx_kit_rot_cells(kit);
	kx_kit_index_close(kit);
	open_index(kit);
	make_queries(batch, 200, 1.0, &random);
	ask_both(kit, batch, 200);
	for (uint32_t i = 0; i < 200; i++)
		expect_same(&batch->together[i], &batch->alone[i]);
	assert_int_equal(kx_index_stats(kit->index, 0, &stats, NULL), KX_OK);
	assert_true(stats.repairs > 0);
	drain(kit);
	kx_kit_verify(kit);
	batch_free(batch);
}

/* A reader whose mapped vectors a writer changes under it: it still finds what was there when it opened. */
static void vectors_that_changed_are_given_up(void **state)
{
	struct kx_kit_index *kit = *state;
	struct batch *batch = batch_new();
	struct kx_kit_index reader;
	struct kx_error error = {0};
	uint64_t random = SEED + 4;

	kx_kit_index_close(kit);
	reader = *kit;
	reader.options.read_only = true;
	check(kx_kit_index_open(&reader, &error), &error);
	make_queries(batch, 200, 1.0, &random);
	for (uint32_t i = 0; i < 200; i++)
		check(kx_index_search(reader.index, 0, &batch->queries[i], &batch->alone[i], &error), &error);
	open_index(kit);
	for (uint32_t i = 0; i < ROWS; i += 2)
		check(kx_kit_put(kit, 0, i, NULL, 0, &error), &error);
	put_many(kit, ROWS, 2 * ROWS);
	check(kx_index_search_many(reader.index, 0, batch->queries, 200, batch->together, &error), &error);
	for (uint32_t i = 0; i < 200; i++)
		expect_same(&batch->together[i], &batch->alone[i]);
	kx_kit_index_close(&reader);
	batch_free(batch);
}

/* Batches alone tell as much of live recall as single queries would. */
static void batches_are_samples_too(void **state)
{
	struct kx_kit_index *kit = *state;
	struct batch *batch = batch_new();
	struct kx_error error = {0};
	struct kx_index_stats stats;
	uint64_t random = SEED + 5;

	kx_kit_index_close(kit);
	kit->options.recall_share = 1e9;
	open_index(kit);
	drain(kit);
	for (uint32_t i = 0; i < 60; i++) {
		make_queries(batch, 20, 0.9, &random);
		check(kx_index_search_many(kit->index, 0, batch->queries, 20, batch->together, &error), &error);
		drain(kit);
	}
	assert_int_equal(kx_index_stats(kit->index, 0, &stats, NULL), KX_OK);
	assert_true(stats.recall_samples >= 50);
	assert_true(stats.recall >= 0.8 && stats.recall <= 1);
	batch_free(batch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(exact_answers_are_the_same, setup, teardown),
		cmocka_unit_test_setup_teardown(approximate_answers_find_as_much, setup, teardown),
		cmocka_unit_test_setup_teardown(a_bad_query_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(rotten_cells_are_made_again, setup, teardown),
		cmocka_unit_test_setup_teardown(vectors_that_changed_are_given_up, setup, teardown),
		cmocka_unit_test_setup_teardown(batches_are_samples_too, setup, teardown),
	};

	return cmocka_run_group_tests_name("index_many", tests, NULL, NULL);
}
