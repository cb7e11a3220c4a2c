#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/macros.h"
#include "shard/index/plan.h"

static const struct kx_plan_limits limits = {.cell_rows = 200, .fold_changes = 40, .train_rows = 5000};

static void what_a_cell_wants(void **state)
{
	static const struct {
		uint32_t rows, changes, since, cells;
		bool trained;
		enum kx_plan_step step;
	} cases[] = {
		{200, 0, 0, 10, true, KX_PLAN_NOTHING},
		{200, 39, 0, 10, true, KX_PLAN_NOTHING},
		{200, 40, 0, 10, true, KX_PLAN_FOLD},
		{400, 40, 0, 10, true, KX_PLAN_NOTHING}, /* an eighth of it at least */
		{400, 50, 0, 10, true, KX_PLAN_FOLD},
		{200, 0, 24, 10, true, KX_PLAN_NOTHING},
		{200, 0, 25, 10, true, KX_PLAN_REFIT}, /* an eighth of it */
		{200, 40, 25, 10, true, KX_PLAN_REFIT}, /* which folds, too, when it comes to that */
		{200, 40, 25, 10, false, KX_PLAN_FOLD},
		{64, 0, 12, 10, true, KX_PLAN_NOTHING}, /* a sixteenth of what is aimed at */
		{64, 0, 13, 10, true, KX_PLAN_REFIT},
		{401, 0, 100, 10, true, KX_PLAN_SPLIT},
		{24, 0, 100, 10, true, KX_PLAN_MERGE},
		{401, 0, 0, 10, true, KX_PLAN_SPLIT},
		{401, 500, 0, 10, true, KX_PLAN_SPLIT},
		{25, 0, 0, 10, true, KX_PLAN_NOTHING},
		{24, 0, 0, 10, true, KX_PLAN_MERGE},
		{0, 0, 0, 10, true, KX_PLAN_MERGE},
		{24, 0, 0, 1, true, KX_PLAN_NOTHING}, /* the last one stays */
		{4999, 0, 0, 1, false, KX_PLAN_NOTHING},
		{4999, 624, 0, 1, false, KX_PLAN_FOLD},
		{0, 40, 0, 1, false, KX_PLAN_FOLD},
	};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(cases); i++) {
		struct kx_plan_cell cell = {cases[i].rows, cases[i].changes, cases[i].since};

		assert_int_equal(kx_plan_cell(&limits, &cell, cases[i].trained, cases[i].cells), cases[i].step);
	}
}

static void when_a_space_is_trained(void **state)
{
	struct kx_plan_space space = {.rows = 4999};

	(void)state;
	assert_false(kx_plan_train(&limits, &space));
	space.rows = 5000;
	assert_true(kx_plan_train(&limits, &space));

	space = (struct kx_plan_space){.trained = true, .rows = 39999, .trained_rows = 5000, .placed = 39999,
				       .trained_distance2 = 1.0, .recent_distance2 = 1.0};
	assert_false(kx_plan_train(&limits, &space)); /* no drift */
	space.rows = 40000;
	assert_true(kx_plan_train(&limits, &space)); /* eight times what it was */

	space.rows = 20000;
	space.recent_distance2 = 1.4;
	space.placed = 9999;
	assert_false(kx_plan_train(&limits, &space)); /* too few came */
	space.placed = 10000;
	assert_true(kx_plan_train(&limits, &space));
	space.recent_distance2 = 1.3;
	assert_false(kx_plan_train(&limits, &space));
	space.recent_distance2 = 0; /* not known */
	assert_false(kx_plan_train(&limits, &space));
	space.recent_distance2 = 1.4;
	space.rows = 4000; /* it shrank: training would gain nothing */
	assert_false(kx_plan_train(&limits, &space));
}

static void how_many_cells(void **state)
{
	(void)state;
	assert_int_equal(kx_plan_cells(&limits, 0), 1);
	assert_int_equal(kx_plan_cells(&limits, 200), 1);
	assert_int_equal(kx_plan_cells(&limits, 201), 2);
	assert_int_equal(kx_plan_cells(&limits, 1000000), 5000);
	assert_int_equal(kx_plan_cells(&limits, UINT64_MAX / 2), 1u << 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_cell_wants),
		cmocka_unit_test(when_a_space_is_trained),
		cmocka_unit_test(how_many_cells),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
