/* The contiguous finished prefix, against a plain model of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "common/bus/progress.h"

static void prefix_moves_only_without_gaps(void **state)
{
	struct kx_bus_progress progress = {0};
	bool advanced = true;

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(kx_bus_progress_received(&progress, i, 10), KX_OK);
	assert_int_equal(progress.in_flight_bytes, 40);
	assert_int_equal(kx_bus_progress_finished(&progress, 1, &advanced), KX_OK);
	assert_false(advanced);
	assert_int_equal(progress.next, 0);
	assert_int_equal(progress.in_flight_bytes, 30);
	assert_int_equal(progress.held, 4);
	assert_int_equal(kx_bus_progress_finished(&progress, 0, &advanced), KX_OK);
	assert_true(advanced);
	assert_int_equal(progress.next, 2);
	assert_int_equal(progress.held, 2);
	kx_bus_progress_done(&progress);
}

static void offsets_with_gaps_are_fine(void **state)
{
	struct kx_bus_progress progress = {0};
	bool advanced;

	(void)state;
	kx_bus_progress_reset(&progress, -1);
	assert_int_equal(kx_bus_progress_received(&progress, 7, 1), KX_OK);
	assert_int_equal(kx_bus_progress_received(&progress, 19, 1), KX_OK);
	assert_int_equal(kx_bus_progress_finished(&progress, 8, &advanced), KX_EINVAL);
	assert_int_equal(kx_bus_progress_finished(&progress, 7, &advanced), KX_OK);
	assert_int_equal(progress.next, 8);
	assert_int_equal(kx_bus_progress_finished(&progress, 19, &advanced), KX_OK);
	assert_int_equal(progress.next, 20);
	kx_bus_progress_done(&progress);
}

static void oddities_are_told(void **state)
{
	struct kx_bus_progress progress = {0};
	bool advanced;

	(void)state;
	kx_bus_progress_reset(&progress, 5);
	assert_int_equal(kx_bus_progress_received(&progress, 4, 1), KX_EEXIST);
	assert_int_equal(kx_bus_progress_received(&progress, 5, 1), KX_OK);
	assert_int_equal(kx_bus_progress_received(&progress, 5, 1), KX_EEXIST);
	assert_int_equal(kx_bus_progress_finished(&progress, 6, &advanced), KX_EINVAL);
	assert_int_equal(kx_bus_progress_finished(&progress, -1, &advanced), KX_EINVAL);
	assert_int_equal(kx_bus_progress_finished(&progress, 5, &advanced), KX_OK);
	assert_true(advanced);
	assert_int_equal(kx_bus_progress_finished(&progress, 5, &advanced), KX_OK); /* again */
	assert_false(advanced);
	assert_int_equal(progress.in_flight_bytes, 0);
	kx_bus_progress_reset(&progress, 2);
	assert_int_equal(kx_bus_progress_received(&progress, 2, 1), KX_OK);
	kx_bus_progress_done(&progress);
}

#define MODEL 5000

static void random_orders_agree_with_a_model(void **state)
{
	static bool finished[MODEL];
	struct kx_bus_progress progress = {0};
	uint32_t x = 20240917; /* the seed */
	int offered = 0, done = 0, prefix = 0;

	(void)state;
	while (done < MODEL) {
		bool advanced;

		x = x * 1664525 + 1013904223;
		if (offered < MODEL && x >> 31) {
			assert_int_equal(kx_bus_progress_received(&progress, offered, 1), KX_OK);
			offered++;
			continue;
		}
		for (int i = prefix + (int)(x >> 16) % 200; i >= prefix; i--) { /* somewhere in the last 200 */
			if (i >= offered || finished[i])
				continue;
			assert_int_equal(kx_bus_progress_finished(&progress, i, &advanced), KX_OK);
			finished[i] = true;
			done++;
			break;
		}
		while (prefix < MODEL && finished[prefix])
			prefix++;
		assert_int_equal(progress.next, prefix);
		assert_int_equal(progress.in_flight_bytes, offered - done);
	}
	assert_int_equal(progress.held, 0);
	kx_bus_progress_done(&progress);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prefix_moves_only_without_gaps),
		cmocka_unit_test(offsets_with_gaps_are_fine),
		cmocka_unit_test(oddities_are_told),
		cmocka_unit_test(random_orders_agree_with_a_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
