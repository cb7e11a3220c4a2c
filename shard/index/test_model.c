/* The index against a plain array: random changes, care, reopening and searches, which at recall 1 must say the same. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/learn/learn.h"
#include "shard/ann/ivf_half.h"
#include "shard/index/testkit.h"

#define DIM 24u
#define NUMBERS 700u
#define K 10u

struct model {
	uint64_t random;
	struct kx_kit_index kit;
	uint32_t space;
	bool cosine;
	bool has[NUMBERS];
	float vectors[NUMBERS][DIM]; /* as the index keeps them */
	struct kx_index_hits hits;
};

static void check(kx_status status, const struct kx_error *error)
{
	if (status)
		fail_msg("%s: %s", kx_status_name(status), error->message);
}

static void open_model(struct model *model)
{
	struct kx_error error = {0};

	check(kx_kit_index_open(&model->kit, &error), &error);
	check(kx_index_space(model->kit.index, "model", DIM, model->cosine ? KX_METRIC_COSINE : KX_METRIC_INNER_PRODUCT,
			     &model->space, &error),
	      &error);
}

static void keep(struct model *model, uint32_t number, const float *vector)
{
	float *kept = model->vectors[number];

	model->has[number] = vector != NULL;
	if (!vector)
		return;
	memcpy(kept, vector, DIM * sizeof(float));
	if (model->cosine)
		kx_learn_normalize(kept, DIM);
	for (uint32_t i = 0; i < DIM; i++)
		kept[i] = kx_half_to_float(kx_half_of_float(kept[i]));
}

/* One commit of some changes, perhaps with a key more than once. */
static void change(struct model *model)
{
	struct kx_index_change changes[12];
	float vectors[12][DIM];
	char keys[12][16];
	size_t count = 1 + kx_test_below(&model->random, 12);
	struct kx_error error = {0};

	for (size_t i = 0; i < count; i++) {
		uint32_t number = (uint32_t)kx_test_below(&model->random, NUMBERS);
		bool put = kx_test_below(&model->random, 10) < 6;

		kx_kit_vector(&model->random, DIM, 12, vectors[i]);
		changes[i] = (struct kx_index_change){.space = model->space, .key = keys[i]};
		changes[i].key_len = (size_t)snprintf(keys[i], sizeof(keys[i]), "v%u", number);
		changes[i].vector = put ? vectors[i] : NULL;
		changes[i].dim = DIM;
		keep(model, number, changes[i].vector);
	}
	check(kx_index_commit(model->kit.index, changes, count, &error), &error);
}

static double score_of(const struct model *model, uint32_t number, const float *query)
{
	double sum = 0;

	for (uint32_t i = 0; i < DIM; i++)
		sum += (double)model->vectors[number][i] * (double)query[i];
	return sum;
}

static int order(const void *a, const void *b)
{
	const double one = *(const double *)a, other = *(const double *)b;

	return one < other ? 1 : one > other ? -1 : 0;
}

/* Scores of the best k that may be found, best first. */
static uint32_t best_of(const struct model *model, const float *query, const bool *may, double *ret)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < NUMBERS; i++)
		if (model->has[i] && (!may || may[i]))
			ret[count++] = score_of(model, i, query);
	qsort(ret, count, sizeof(*ret), order);
	return count < K ? count : K;
}

static void compare(const struct model *model, const float *query, const bool *may)
{
	double best[NUMBERS];
	uint32_t count = best_of(model, query, may, best);

	assert_int_equal(model->hits.count, count);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t number = kx_kit_number(&model->hits.list[i]);

		assert_true(number < NUMBERS && model->has[number] && (!may || may[number]));
		assert_true(fabs((double)model->hits.list[i].score - best[i]) < 1e-4);
		assert_true(fabs(score_of(model, number, query) - best[i]) < 1e-4);
	}
}

static kx_status mark(void *ctx, uint32_t row, const void *key, size_t key_len, const void *attributes,
		      size_t attributes_len, struct kx_error *error)
{
	struct kx_index_hit as_hit = {.key = key, .key_len = key_len};
	uint64_t *bits = ctx;

	(void)attributes;
	(void)attributes_len;
	(void)error;
	if (kx_kit_number(&as_hit) % 3 == 0)
		bits[row / 64] |= UINT64_C(1) << row % 64;
	return KX_OK;
}

static void search(struct model *model, bool filtered)
{
	struct kx_index_space_info info;
	struct kx_index_filter *filter = NULL;
	struct kx_error error = {0};
	float vector[DIM];
	bool may[NUMBERS];
	struct kx_index_query query = {.vector = vector, .dim = DIM, .k = K, .recall = 1};
	uint64_t *bits;

	kx_kit_vector(&model->random, DIM, 12, vector);
	if (model->cosine)
		kx_learn_normalize(vector, DIM);
	check(kx_index_space_info(model->kit.index, model->space, &info, &error), &error);
	bits = calloc(info.rows_bound / 64 + 1, sizeof(*bits));
	assert_non_null(bits);
	if (filtered) {
		for (uint32_t i = 0; i < NUMBERS; i++)
			may[i] = i % 3 == 0;
		check(kx_index_each(model->kit.index, model->space, mark, bits, &error), &error);
		check(kx_index_filter_new(model->kit.index, model->space, bits, info.rows_bound, &filter, &error), &error);
		query.filter = filter;
	}
	check(kx_index_search(model->kit.index, model->space, &query, &model->hits, &error), &error);
	compare(model, vector, filtered ? may : NULL);
	query.recall = 0.9; /* whatever it finds is there and scored right */
	check(kx_index_search(model->kit.index, model->space, &query, &model->hits, &error), &error);
	for (uint32_t i = 0; i < model->hits.count; i++) {
		uint32_t number = kx_kit_number(&model->hits.list[i]);

		assert_true(number < NUMBERS && model->has[number] && (!filtered || may[number]));
		assert_true(fabs(score_of(model, number, vector) - (double)model->hits.list[i].score) < 1e-4);
	}
	kx_index_filter_free(filter);
	free(bits);
}

static void read_one(struct model *model)
{
	uint32_t number = (uint32_t)kx_test_below(&model->random, NUMBERS);
	float vector[DIM];
	char key[16];
	size_t len = (size_t)snprintf(key, sizeof(key), "v%u", number);
	kx_status status = kx_index_get(model->kit.index, model->space, key, len, NULL, vector, NULL, NULL);

	assert_int_equal(status, model->has[number] ? KX_OK : KX_ENOTFOUND);
	if (model->has[number])
		assert_memory_equal(vector, model->vectors[number], sizeof(vector));
}

/* Reopens, perhaps without the mapped file, with another's, or under a bound on memory. */
static void reopen(struct model *model)
{
	KX_CLEANUP(kx_cleanup_free) char *file = kx_strf("%s/vectors-0.f16", model->kit.dir);

	kx_kit_index_close(&model->kit);
	assert_non_null(file);
	switch (kx_test_below(&model->random, 4)) {
	case 0:
		check(kx_fs_remove_tree(model->kit.dir, NULL), &(struct kx_error){0});
		break;
	case 1:
		check(kx_fs_write(file, "junk", 4, NULL), &(struct kx_error){0});
		break;
	default:
		break;
	}
	model->kit.options.memory_bytes = kx_test_below(&model->random, 2) ? 20000 : 0;
	open_model(model);
}

static void step(struct model *model)
{
	size_t what = kx_test_below(&model->random, 100);
	struct kx_error error = {0};
	uint32_t done;

	if (what < 50)
		change(model);
	else if (what < 70)
		search(model, what < 58);
	else if (what < 80)
		read_one(model);
	else if (what < 94)
		check(kx_index_maintain(model->kit.index, 1 + (uint32_t)kx_test_below(&model->random, 20), &done, &error),
		      &error);
	else if (what < 95)
		check(kx_index_fold_all(model->kit.index, &error), &error);
	else if (what < 96)
		check(kx_index_retrain(model->kit.index, model->space, &error), &error);
	else if (what < 98)
		reopen(model);
	else
		kx_kit_verify(&model->kit);
}

static void run(bool cosine, uint32_t steps)
{
	static struct model model;
	struct kx_index_stats stats;
	uint32_t done;

	memset(&model, 0, sizeof(model));
	model.random = kx_test_seed();
	model.cosine = cosine;
	kx_kit_index_init(&model.kit);
	open_model(&model);
	for (uint32_t i = 0; i < steps; i++)
		step(&model);
	assert_int_equal(kx_index_maintain(model.kit.index, UINT32_MAX, &done, NULL), KX_OK);
	kx_kit_verify(&model.kit);
	for (uint32_t i = 0; i < 50; i++)
		search(&model, i % 2);
	assert_int_equal(kx_index_stats(model.kit.index, model.space, &stats, NULL), KX_OK);
	assert_true(stats.generation > 0 && stats.cells > 5);
	kx_index_hits_done(&model.hits);
	kx_kit_index_done(&model.kit);
}

static void cosine_says_what_an_array_says(void **state)
{
	(void)state;
	run(true, 1500);
}

static void inner_product_says_what_an_array_says(void **state)
{
	(void)state;
	run(false, 1500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cosine_says_what_an_array_says),
		cmocka_unit_test(inner_product_says_what_an_array_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
