/* The best of what is found, by bounds and by scores. */
#include "shard/ann/ivf_search.h"

#include <stdlib.h>

#define PRODUCT_REACH 24.0f
#define LINE 64u       /* bytes that come from memory at once */
#define LEAD_FIRST 4u /* of those that are best by the leading part, one in so many is compared before all others */

static bool is_better(const struct kx_ivf_hit *a, const struct kx_ivf_hit *b)
{
	return a->score != b->score ? a->score > b->score : a->row < b->row;
}

static void sift_down(struct kx_ivf_hit *heap, uint32_t len, uint32_t at)
{
	struct kx_ivf_hit item = heap[at];

	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child + 1 < len && is_better(&heap[child], &heap[child + 1]))
			child++;
		if (child >= len || !is_better(&item, &heap[child]))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = item;
}

static void sift_up(struct kx_ivf_hit *heap, uint32_t at)
{
	struct kx_ivf_hit item = heap[at];

	while (at && is_better(&heap[(at - 1) / 2], &item)) {
		heap[at] = heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap[at] = item;
}

void kx_ivf_keep(struct kx_ivf_best *best, struct kx_ivf_hit hit)
{
	if (best->count < best->k) {
		best->hits[best->count] = hit;
		sift_up(best->hits, best->count++);
	} else if (is_better(&hit, &best->hits[0])) {
		best->hits[0] = hit;
		sift_down(best->hits, best->count, 0);
	}
}

static int by_score(const void *a, const void *b)
{
	return is_better(a, b) ? -1 : 1;
}

void kx_ivf_best_sort(struct kx_ivf_best *best)
{
	if (best->count)
		qsort(best->hits, best->count, sizeof(*best->hits), by_score);
}

/* Hoare's selection. */
void kx_ivf_select_best(uint32_t *slots, float *bounds, uint32_t count, uint32_t k)
{
	uint32_t low = 0, high = count;

	while (k < count && high - low > 1) {
		float pivot = bounds[low + (high - low) / 2];
		uint32_t i = low, j = high - 1;

		for (;;) {
			float bound;
			uint32_t slot;

			while (bounds[i] > pivot)
				i++;
			while (bounds[j] < pivot)
				j--;
			if (i >= j)
				break;
			bound = bounds[i];
			slot = slots[i];
			bounds[i] = bounds[j];
			slots[i++] = slots[j];
			bounds[j] = bound;
			slots[j--] = slot;
		}
		if (k <= i)
			high = i;
		else
			low = i;
		if (k == i)
			break;
	}
}

/* To the front what is a deviation better than the mean: of many, about the best sixth, without a branch that nobody can
 * foresee. Returns how many. */
static uint32_t gather_good(uint32_t *slots, float *bounds, uint32_t count)
{
	float sum = 0.0f, squares = 0.0f, mean, enough;
	uint32_t good = 0;

	for (uint32_t i = 0; i < count; i++) {
		sum += bounds[i];
		squares += bounds[i] * bounds[i];
	}
	mean = sum / (float)count;
	squares = squares / (float)count - mean * mean;
	enough = mean + sqrtf(squares > 0.0f ? squares : 0.0f);
	for (uint32_t i = 0; i < count; i++) {
		float bound = bounds[i];
		uint32_t slot = slots[i];

		bounds[i] = bounds[good];
		slots[i] = slots[good];
		bounds[good] = bound;
		slots[good] = slot;
		good += bound >= enough;
	}
	return good;
}

uint32_t kx_ivf_foremost(uint32_t *slots, float *bounds, uint32_t count, uint32_t first)
{
	uint32_t some = first * LEAD_FIRST, good;

	if (first >= count / LEAD_FIRST)
		return count;
	good = gather_good(slots, bounds, count);
	if (good >= first && good <= some)
		return good;
	kx_ivf_select_best(slots, bounds, good < first ? count : good, some);
	return some;
}

void kx_ivf_fetch(const void *at, size_t bytes)
{
	const uint8_t *end = (const uint8_t *)at + bytes;

	for (const uint8_t *line = (const uint8_t *)at - (uintptr_t)at % LINE; line < end; line += LINE)
		__builtin_prefetch(line, 0, 2);
}

float kx_ivf_bound_by_all(const struct kx_ivf *ivf, const struct kx_ivf_place *place, const struct kx_ivf_slack *slack,
			  const float *rest, uint32_t slot, float bound)
{
	const uint8_t *tail = place->tails + slot * kx_ivf_tail_bytes(ivf);
	const uint8_t *block = place->blocks + slot / KX_IVF_BLOCK * kx_ivf_lead_block_bytes(ivf);
	const uint16_t *factors = (const uint16_t *)(const void *)block + slot % KX_IVF_BLOCK;
	float mul = kx_ivf_factor(factors[KX_IVF_BLOCK]);
	float sum = mul > 0.0f ? (bound - kx_ivf_factor(factors[0])) / mul - slack->lead : 0.0f;
	struct kx_ivf_tail start;

	memcpy(&start, tail, sizeof(start));
	sum += ivf->kernels->signed_sum(tail + sizeof(start), rest, ivf->rotation.padded - ivf->lead);
	return slack->product + start.add + start.mul * (sum + slack->all);
}

/* How many deviations of a cell's vectors from its centroid the worst that is kept lies beyond it, in the query's
 * direction, is what tells by inner product whether a cell is worth it. */
static bool is_worth_by_product(const struct kx_ivf_judge *judge, const struct kx_ivf_cell *cell, float product)
{
	const float distance2 = judge->norm2 + cell->norm2 - 2.0f * product;
	float spread;

	if (!cell->count)
		return cell->cold;
	spread = sqrtf(distance2 > 0.0f ? distance2 : 0.0f) * (float)(cell->mul_sum / cell->count);
	return kx_ivf_least(judge->best) - product <= judge->effort * PRODUCT_REACH * spread;
}

/* By distance, how much farther a cell's centroid is than the nearest one, in squares of the distance of the worst that
 * is kept: the reach of the ball that holds the best grows and shrinks with the data around the query. The more cells
 * were looked into, the less: measured on clustered and on unclustered data, the fourth root of their number needs fewer
 * cells for a recall than either test alone. */
static bool is_worth_by_distance(const struct kx_ivf_judge *judge, float beyond)
{
	float radius2 = judge->norm2 + 1.0f - 2.0f * kx_ivf_least(judge->best);
	float reach = radius2 > 0.0f ? judge->effort * radius2 : 0.0f;

	return beyond * beyond * beyond * beyond * (float)judge->cells <= reach * reach * reach * reach;
}

bool kx_ivf_is_worth(const struct kx_ivf_judge *judge, const struct kx_ivf_cell *cell, float beyond, float product)
{
	if (judge->best->count < judge->best->k)
		return true;
	return judge->ivf->recipe.metric == KX_METRIC_COSINE ? is_worth_by_distance(judge, beyond)
							      : is_worth_by_product(judge, cell, product);
}
