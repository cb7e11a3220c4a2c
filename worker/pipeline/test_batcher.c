/* When a batch is worth running. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/macros.h"
#include "worker/pipeline/batcher.h"

#define LINGER 1000u

static const size_t sizes[KX_TRACKS] = {4, 2};
static const int owner_a, owner_b;

static void push(struct kx_batcher *batcher, size_t track, struct kx_item *item, const int *owner, uint64_t now)
{
	item->owner = owner;
	kx_batcher_push(batcher, track, item, now);
}

static void full_batch_runs_at_once_and_oldest_first(void **state)
{
	struct kx_item items[6] = {0};
	struct kx_item *taken[KX_BURST_MAX];
	struct kx_batcher batcher;
	size_t track = 9;

	(void)state;
	kx_batcher_init(&batcher, sizes, LINGER);
	for (size_t i = 0; i < 6; i++) {
		assert_int_equal(kx_batcher_take(&batcher, i, false, &track, taken), i == 4 ? 4 : 0);
		push(&batcher, 0, &items[i], &owner_a, i);
	}
	assert_int_equal(track, 0);
	for (size_t i = 0; i < 4; i++)
		assert_ptr_equal(taken[i], &items[i]);
	assert_int_equal(kx_batcher_due_us(&batcher), 4 + LINGER);
}

static void part_of_a_batch_waits_for_its_time_or_a_flush(void **state)
{
	struct kx_item items[3] = {0};
	struct kx_item *taken[KX_BURST_MAX];
	struct kx_batcher batcher;
	size_t track;

	(void)state;
	kx_batcher_init(&batcher, sizes, LINGER);
	assert_true(kx_batcher_due_us(&batcher) == UINT64_MAX);
	assert_int_equal(kx_batcher_take(&batcher, 0, true, &track, taken), 0);
	push(&batcher, 0, &items[0], &owner_a, 10);
	push(&batcher, 0, &items[1], &owner_a, 500);
	assert_int_equal(kx_batcher_due_us(&batcher), 10 + LINGER);
	assert_int_equal(kx_batcher_take(&batcher, 9 + LINGER, false, &track, taken), 0);
	assert_int_equal(kx_batcher_take(&batcher, 10 + LINGER, false, &track, taken), 2);
	push(&batcher, 0, &items[2], &owner_a, 2000);
	assert_int_equal(kx_batcher_take(&batcher, 2000, true, &track, taken), 1);
	assert_ptr_equal(taken[0], &items[2]);
}

static void older_track_goes_first(void **state)
{
	struct kx_item items[4] = {0};
	struct kx_item *taken[KX_BURST_MAX];
	struct kx_batcher batcher;
	size_t track = 9;

	(void)state;
	kx_batcher_init(&batcher, sizes, LINGER);
	push(&batcher, 0, &items[0], &owner_a, 3);
	push(&batcher, 1, &items[1], &owner_a, 1);
	push(&batcher, 1, &items[2], &owner_a, 4);
	push(&batcher, 1, &items[3], &owner_a, 5);
	assert_int_equal(kx_batcher_take(&batcher, 5, true, &track, taken), 2);
	assert_int_equal(track, 1);
	assert_int_equal(kx_batcher_take(&batcher, 5, true, &track, taken), 1);
	assert_int_equal(track, 0);
	assert_int_equal(kx_batcher_take(&batcher, 5, true, &track, taken), 1);
	assert_ptr_equal(taken[0], &items[3]);
}

/* A full batch of one track must not wait behind a half one of the other. */
static void older_track_that_is_not_due_does_not_block(void **state)
{
	struct kx_item items[3] = {0};
	struct kx_item *taken[KX_BURST_MAX];
	struct kx_batcher batcher;
	size_t track = 9;

	(void)state;
	kx_batcher_init(&batcher, sizes, LINGER);
	push(&batcher, 0, &items[0], &owner_a, 1);
	push(&batcher, 1, &items[1], &owner_a, 2);
	push(&batcher, 1, &items[2], &owner_a, 3);
	assert_int_equal(kx_batcher_take(&batcher, 3, false, &track, taken), 2);
	assert_int_equal(track, 1);
}

static void drop_takes_an_owners_and_leaves_the_rest_in_order(void **state)
{
	struct kx_item items[6] = {0};
	struct kx_item *taken[KX_BURST_MAX];
	struct kx_batcher batcher;
	size_t track, dropped = 0;

	(void)state;
	kx_batcher_init(&batcher, sizes, LINGER);
	push(&batcher, 0, &items[0], &owner_b, 0);
	push(&batcher, 0, &items[1], &owner_a, 0);
	push(&batcher, 0, &items[2], &owner_b, 0);
	push(&batcher, 1, &items[3], &owner_b, 0);
	for (struct kx_item *item = kx_batcher_drop(&batcher, &owner_b); item; item = item->next) {
		assert_ptr_equal(item->owner, &owner_b);
		dropped++;
	}
	assert_int_equal(dropped, 3);
	push(&batcher, 0, &items[4], &owner_a, 1); /* the tail is right again */
	push(&batcher, 1, &items[5], &owner_a, 1);
	assert_int_equal(kx_batcher_take(&batcher, 1, true, &track, taken), 2);
	assert_ptr_equal(taken[0], &items[1]);
	assert_ptr_equal(taken[1], &items[4]);
	assert_int_equal(kx_batcher_take(&batcher, 1, true, &track, taken), 1);
	assert_ptr_equal(taken[0], &items[5]);
	assert_null(kx_batcher_drop(&batcher, &owner_b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(full_batch_runs_at_once_and_oldest_first),
		cmocka_unit_test(part_of_a_batch_waits_for_its_time_or_a_flush),
		cmocka_unit_test(older_track_goes_first),
		cmocka_unit_test(older_track_that_is_not_due_does_not_block),
		cmocka_unit_test(drop_takes_an_owners_and_leaves_the_rest_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
