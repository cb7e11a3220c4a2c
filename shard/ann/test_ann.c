#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "shard/ann/ann.h"

#define DIM_V 48u
#define DIM_A 24u
#define ROWS 3000u /* more than two blocks */

static void random_unit(uint64_t *state, float *out, uint32_t dim)
{
	for (uint32_t i = 0; i < dim; i++)
		out[i] = (float)(kx_test_random(state) >> 40) / (float)(1 << 23) - 1.0f;
	(void)kx_learn_normalize(out, dim);
}

struct row {
	bool has[2];
	float v[DIM_V], a[DIM_A];
};

struct world {
	struct kx_ann *ann;
	struct row rows[ROWS];
	uint64_t random;
};

static size_t vectors_of(const struct row *row, struct kx_ann_vector out[2])
{
	size_t count = 0;

	if (row->has[0])
		out[count++] = (struct kx_ann_vector){KX_VISUAL, "v", DIM_V, row->v};
	if (row->has[1])
		out[count++] = (struct kx_ann_vector){KX_AUDIO, "a", DIM_A, row->a};
	return count;
}

static void put_random(struct world *world, uint32_t number)
{
	struct row *row = &world->rows[number];
	struct kx_ann_vector vectors[2];
	uint64_t kind = kx_test_random(&world->random) % 8;

	row->has[0] = kind != 0;
	row->has[1] = kind > 2;
	random_unit(&world->random, row->v, DIM_V);
	random_unit(&world->random, row->a, DIM_A);
	assert_int_equal(kx_ann_put(world->ann, number, vectors, vectors_of(row, vectors), NULL), KX_OK);
}

static int set_up(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	assert_non_null(world);
	world->random = kx_test_seed();
	assert_int_equal(kx_ann_exact_new(NULL, NULL, &world->ann), KX_OK);
	*state = world;
	return 0;
}

static int tear_down(void **state)
{
	struct world *world = *state;

	kx_ann_free(world->ann);
	free(world);
	return 0;
}

static double naive_dot(const float *a, const float *b, uint32_t dim)
{
	double sum = 0;

	for (uint32_t i = 0; i < dim; i++)
		sum += (double)a[i] * (double)b[i];
	return sum;
}

static bool naive_score(const struct row *query, const struct row *row, const double *weight, double *ret)
{
	double sum = 0, weights = 0;

	if (query->has[0] && row->has[0]) {
		sum += weight[0] * naive_dot(query->v, row->v, DIM_V);
		weights += weight[0];
	}
	if (query->has[1] && row->has[1]) {
		sum += weight[1] * naive_dot(query->a, row->a, DIM_A);
		weights += weight[1];
	}
	*ret = weights > 0 ? sum / weights : 0;
	return weights > 0;
}

static void compare_with_naive(struct world *world, const struct row *query, size_t k, uint32_t exclude)
{
	struct kx_ann_vector vectors[2];
	struct kx_ann_query ask = {.vectors = vectors, .weight = {0.6, 0.4}, .exclude = exclude, .k = k};
	struct kx_ann_hit *hits = calloc(k, sizeof(*hits));
	size_t count, possible = 0;

	assert_non_null(hits);
	ask.count = vectors_of(query, vectors);
	assert_int_equal(kx_ann_search(world->ann, &ask, hits, &count, NULL, NULL), KX_OK);
	for (uint32_t i = 0; i < ROWS; i++) {
		double score;
		bool found = false;

		if (i == exclude || !naive_score(query, &world->rows[i], ask.weight, &score))
			continue;
		possible++;
		for (size_t j = 0; j < count; j++)
			found |= hits[j].row == i;
		/* Who was left out is no better than the worst that was kept. */
		if (!found)
			assert_true(score <= hits[count - 1].score + 1e-12);
	}
	assert_int_equal(count, possible < k ? possible : k);
	for (size_t j = 0; j < count; j++) {
		const struct row *row = &world->rows[hits[j].row];
		double score;

		assert_int_not_equal(hits[j].row, exclude);
		assert_true(naive_score(query, row, ask.weight, &score));
		assert_true(fabs(score - hits[j].score) < 1e-9);
		assert_true(fabs(hits[j].share[0] + hits[j].share[1] - hits[j].score) < 1e-12);
		assert_int_equal(hits[j].has[0], query->has[0] && row->has[0]);
		assert_int_equal(hits[j].has[1], query->has[1] && row->has[1]);
		assert_true(j == 0 || hits[j - 1].score >= hits[j].score);
	}
	free(hits);
}

static void compare_some(struct world *world)
{
	for (int i = 0; i < 20; i++) {
		struct row query = {.has = {i % 3 != 1, i % 3 != 2}};

		random_unit(&world->random, query.v, DIM_V);
		random_unit(&world->random, query.a, DIM_A);
		compare_with_naive(world, &query, i % 2 ? 10 : 1, i % 4 ? KX_ANN_NO_ROW : 5);
	}
	compare_with_naive(world, &world->rows[17], ROWS + 5, 17);
}

static void test_as_naive_through_changes(void **state)
{
	struct world *world = *state;

	for (uint32_t i = 0; i < ROWS; i++)
		put_random(world, i);
	compare_some(world);
	for (int i = 0; i < 1500; i++) {
		uint32_t number = (uint32_t)(kx_test_random(&world->random) % ROWS);

		if (kx_test_random(&world->random) % 2) {
			put_random(world, number);
			continue;
		}
		kx_ann_remove(world->ann, number);
		world->rows[number].has[0] = world->rows[number].has[1] = false;
	}
	compare_some(world);
	for (uint32_t i = 0; i < ROWS; i++) {
		kx_ann_remove(world->ann, i);
		world->rows[i].has[0] = world->rows[i].has[1] = false;
	}
	kx_ann_remove(world->ann, ROWS * 10);
	compare_some(world);
}

static bool in_every_third(uint32_t row)
{
	return row % 3 == 1;
}

/* With a bitmap and a ceiling: as the naive answer, with what they leave out left out. */
static void test_rows_and_ceiling(void **state)
{
	struct world *world = *state;
	uint64_t bits[ROWS / 64 + 1] = {0};
	struct kx_ann_vector vectors[2];
	struct kx_ann_query ask = {.vectors = vectors, .weight = {0.6, 0.4}, .exclude = 4, .k = ROWS, .rows = bits,
				   .row_count = ROWS / 64 * 64};
	struct kx_ann_hit *all = calloc(ROWS, sizeof(*all)), *below = calloc(ROWS, sizeof(*below));
	struct row query = {.has = {true, true}};
	struct kx_ann_work work;
	size_t count, rest, possible = 0, compared = 0;

	assert_non_null(all);
	assert_non_null(below);
	for (uint32_t i = 0; i < ROWS; i++) {
		put_random(world, i);
		bits[i / 64] |= (uint64_t)in_every_third(i) << (i % 64);
		compared += world->rows[i].has[0] || world->rows[i].has[1];
		possible += (world->rows[i].has[0] || world->rows[i].has[1]) && in_every_third(i) && i != 4 &&
			    i < ROWS / 64 * 64;
	}
	random_unit(&world->random, query.v, DIM_V);
	random_unit(&world->random, query.a, DIM_A);
	ask.count = vectors_of(&query, vectors);
	assert_int_equal(kx_ann_search(world->ann, &ask, all, &count, &work, NULL), KX_OK);
	assert_true(work.exact && work.rows == compared);
	assert_int_equal(count, possible);
	for (size_t i = 0; i < count; i++)
		assert_true(in_every_third(all[i].row) && all[i].row < ask.row_count && all[i].row != 4);
	ask.has_ceiling = true;
	ask.ceiling = all[count / 2].score;
	assert_int_equal(kx_ann_search(world->ann, &ask, below, &rest, NULL, NULL), KX_OK);
	assert_int_equal(rest, count - count / 2);
	assert_memory_equal(below, all + count / 2, rest * sizeof(*all));
	memset(bits, 0, sizeof(bits));
	assert_int_equal(kx_ann_search(world->ann, &ask, below, &rest, NULL, NULL), KX_OK);
	assert_int_equal(rest, 0);
	assert_true(kx_ann_likeness(world->ann, all[0].row, all[0].row, ask.weight) > 0.999);
	assert_true(kx_ann_likeness(world->ann, all[0].row, all[1].row, ask.weight) < 0.999);
	free(all);
	free(below);
}

/* Equal vectors stand in different places of their blocks and must tie all the same. */
static void test_equal_rows_tie(void **state)
{
	struct world *world = *state;
	struct kx_ann_vector vectors[2];
	struct kx_ann_query ask = {.vectors = vectors, .weight = {1, 1}, .exclude = KX_ANN_NO_ROW, .k = 50};
	struct kx_ann_hit hits[50];
	struct row query = {.has = {true, true}};
	size_t count;

	for (uint32_t i = 0; i < ROWS; i++)
		put_random(world, i);
	random_unit(&world->random, query.v, DIM_V);
	random_unit(&world->random, query.a, DIM_A);
	ask.count = vectors_of(&query, vectors);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(kx_ann_put(world->ann, (i * 29) % ROWS, vectors, ask.count, NULL), KX_OK);
	assert_int_equal(kx_ann_search(world->ann, &ask, hits, &count, NULL, NULL), KX_OK);
	assert_int_equal(count, 50);
	for (uint32_t i = 0; i < 50; i++) {
		assert_int_equal(hits[i].row, i * 29);
		assert_true(hits[i].score == hits[0].score);
	}
}

static void test_spaces_are_never_mixed(void **state)
{
	struct world *world = *state;
	struct row one = {.has = {true, false}};
	struct kx_ann_vector vectors[2], other;
	struct kx_ann_query ask = {.vectors = &other, .count = 1, .weight = {1, 1}, .exclude = KX_ANN_NO_ROW, .k = 3};
	struct kx_ann_hit hits[3];
	struct kx_error error = {0};
	size_t count;

	random_unit(&world->random, one.v, DIM_V);
	assert_int_equal(kx_ann_put(world->ann, 0, vectors, vectors_of(&one, vectors), NULL), KX_OK);
	other = (struct kx_ann_vector){KX_VISUAL, "other", DIM_V, one.v};
	assert_int_equal(kx_ann_search(world->ann, &ask, hits, &count, NULL, &error), KX_EINVAL);
	assert_non_null(strstr(error.message, "space other"));
	assert_non_null(strstr(error.message, "is in v"));
	/* Rows of both spaces: the query meets those of its own. */
	assert_int_equal(kx_ann_put(world->ann, 1, &other, 1, NULL), KX_OK);
	assert_int_equal(kx_ann_search(world->ann, &ask, hits, &count, NULL, NULL), KX_OK);
	assert_int_equal(count, 1);
	assert_int_equal(hits[0].row, 1);
	/* The same name with another dimension is no vector of that space. */
	other.dim = DIM_V - 1;
	assert_int_equal(kx_ann_put(world->ann, 2, &other, 1, &error), KX_EINVAL);
	assert_int_equal(kx_ann_search(world->ann, &ask, hits, &count, NULL, &error), KX_EINVAL);
	/* Nobody has sound: nothing is found, and nothing is wrong. */
	other = (struct kx_ann_vector){KX_AUDIO, "a", DIM_A, one.v};
	assert_int_equal(kx_ann_search(world->ann, &ask, hits, &count, NULL, NULL), KX_OK);
	assert_int_equal(count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_as_naive_through_changes),
		TEST(test_rows_and_ceiling),
		TEST(test_equal_rows_tie),
		TEST(test_spaces_are_never_mixed),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
