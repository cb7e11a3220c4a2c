/* Videos come that lie elsewhere than those the index was trained with: it trains anew by itself, in the background, and
 * answers stay right all the while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "shard/index/testkit.h"

#define DIM 8u
#define CENTERS 4u
#define TRAIN_ROWS 800u
#define FIRST_ROWS 1000u
#define ROWS_MOST 4000u /* fewer than would train anew for their number: eight times as many as were trained with */
#define BATCH 25u
#define K 10u
#define PATIENCE_US 120000000u

struct fixture {
	struct kx_kit_index kit;
	uint32_t space;
	uint32_t rows;
	uint64_t random;
	struct kx_index_hits exact, hits;
	uint64_t found, wanted; /* of the true nearest, by searches with less recall */
	float vectors[ROWS_MOST][DIM];
};

static struct fixture fixture;

static void check(kx_status status, const struct kx_error *error)
{
	if (status)
		fail_msg("%s", error->message);
}

/* Close around few places, as one kind of video would be. */
static void tight(uint64_t *random, float *ret)
{
	float around[DIM];
	uint64_t center = kx_test_below(random, CENTERS) * 7919 + 1;

	kx_kit_vector(&center, DIM, 1000, ret);
	kx_kit_vector(random, DIM, 1000, around);
	for (uint32_t i = 0; i < DIM; i++)
		ret[i] += 0.2f * around[i];
}

/* Anywhere. */
static void scattered(uint64_t *random, float *ret)
{
	kx_kit_vector(random, DIM, 1u << 30, ret);
}

static void add(void (*make)(uint64_t *random, float *ret))
{
	struct kx_index_change changes[BATCH];
	char keys[BATCH][16];
	struct kx_error error = {0};

	assert_true(fixture.rows + BATCH <= ROWS_MOST);
	for (uint32_t i = 0; i < BATCH; i++) {
		uint32_t number = fixture.rows + i;

		make(&fixture.random, fixture.vectors[number]);
		changes[i] = (struct kx_index_change){
			.space = fixture.space, .key = keys[i], .vector = fixture.vectors[number], .dim = DIM};
		changes[i].key_len = (size_t)snprintf(keys[i], sizeof(keys[i]), "v%u", number);
	}
	check(kx_index_commit(fixture.kit.index, changes, BATCH, &error), &error);
	fixture.rows += BATCH;
}

static void search(const float *vector, double recall, struct kx_index_hits *hits)
{
	const struct kx_index_query query = {.vector = vector, .dim = DIM, .k = K, .recall = recall};
	struct kx_error error = {0};

	check(kx_index_search(fixture.kit.index, fixture.space, &query, hits, &error), &error);
}

static bool has(const struct kx_index_hits *hits, uint32_t number)
{
	for (uint32_t i = 0; i < hits->count; i++)
		if (kx_kit_number(&hits->list[i]) == number)
			return true;
	return false;
}

/* A row finds itself first, and the nearest are those that comparing with all finds. */
static void ask(void)
{
	uint32_t number = (uint32_t)kx_test_below(&fixture.random, fixture.rows);

	search(fixture.vectors[number], 1, &fixture.exact);
	assert_int_equal(fixture.exact.count, K);
	assert_int_equal(kx_kit_number(&fixture.exact.list[0]), number);
	assert_true(fixture.exact.list[0].score > 0.999f);
	search(fixture.vectors[number], 0.9, &fixture.hits);
	for (uint32_t i = 0; i < K; i++)
		fixture.found += has(&fixture.hits, kx_kit_number(&fixture.exact.list[i]));
	fixture.wanted += K;
}

static struct kx_index_stats stats(void)
{
	struct kx_index_stats ret;
	struct kx_error error = {0};

	check(kx_index_stats(fixture.kit.index, fixture.space, &ret, &error), &error);
	return ret;
}

static uint64_t ask_until_trained(uint64_t trainings)
{
	uint64_t begun = kx_clock_mono_us(), asked = 0;

	for (; stats().trainings < trainings; asked++) {
		assert_true(kx_clock_mono_us() - begun < PATIENCE_US);
		ask();
	}
	return asked;
}

static void drift_trains_anew(void **state)
{
	uint32_t generation;
	double drift = 0;

	(void)state;
	while (fixture.rows < FIRST_ROWS)
		add(tight);
	ask_until_trained(1);
	generation = stats().generation;
	/* Once there are enough of the others; searches go on meanwhile. */
	while (stats().trainings == 1 && fixture.rows + BATCH <= ROWS_MOST) {
		double now = stats().drift;

		drift = now > drift ? now : drift;
		add(scattered);
		ask();
	}
	ask_until_trained(2);
	assert_true(drift > 1.35);
	assert_true(stats().generation > generation);
	for (int i = 0; i < 200; i++)
		ask();
	/* 0.9 was asked for, and is tuned by few queries here; by chance it would be less than 0.01. */
	assert_true(fixture.found >= fixture.wanted * 6 / 10);
	kx_kit_verify(&fixture.kit);
}

static int set_up(void **state)
{
	struct kx_error error = {0};

	(void)state;
	fixture.random = 12;
	kx_kit_index_init(&fixture.kit);
	fixture.kit.options.manual = false;
	fixture.kit.options.train_rows = TRAIN_ROWS;
	fixture.kit.options.cell_rows = 100;
	check(kx_kit_index_open(&fixture.kit, &error), &error);
	check(kx_index_space(fixture.kit.index, "drift", DIM, KX_METRIC_COSINE, &fixture.space, &error), &error);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	kx_index_hits_done(&fixture.exact);
	kx_index_hits_done(&fixture.hits);
	kx_kit_index_done(&fixture.kit);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(drift_trains_anew, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
