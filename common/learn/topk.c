#include <assert.h>
#include <math.h>
#include <stdbool.h>

#include "common/learn/learn.h"

/* NaN ranks with -infinity, so that the order is total. */
static float rank_of(float score)
{
	return isnan(score) ? -INFINITY : score;
}

static bool is_better(const float *scores, uint32_t a, uint32_t b)
{
	float score_a = rank_of(scores[a]);
	float score_b = rank_of(scores[b]);

	return score_a != score_b ? score_a > score_b : a < b;
}

/* heap[0] is the worst of the len kept. Lets the item at `at` sink to where it belongs. */
static void sift_down(const float *scores, uint32_t *heap, size_t len, size_t at)
{
	uint32_t item = heap[at];

	for (;;) {
		size_t child = 2 * at + 1;

		if (child + 1 < len && is_better(scores, heap[child], heap[child + 1]))
			child++;
		if (child >= len || !is_better(scores, item, heap[child]))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = item;
}

size_t kx_learn_topk(const float *scores, size_t n, size_t k, uint32_t *ret_index)
{
	size_t len = k < n ? k : n;
	float bar; /* what the next one must be above */

	assert(n <= UINT32_MAX);
	if (len == 0)
		return 0;
	for (size_t i = 0; i < len; i++)
		ret_index[i] = (uint32_t)i;
	for (size_t i = len / 2; i-- > 0;)
		sift_down(scores, ret_index, len, i);
	bar = rank_of(scores[ret_index[0]]);
	for (size_t i = len; i < n; i++) {
		/* Of two equal ones the earlier stays, and a NaN is never greater. */
		if (!(scores[i] > bar))
			continue;
		ret_index[0] = (uint32_t)i;
		sift_down(scores, ret_index, len, 0);
		bar = rank_of(scores[ret_index[0]]);
	}
	/* Takes the worst away to the end until all stand best first. */
	for (size_t last = len; last-- > 1;) {
		uint32_t worst = ret_index[0];

		ret_index[0] = ret_index[last];
		ret_index[last] = worst;
		sift_down(scores, ret_index, last, 0);
	}
	return len;
}
