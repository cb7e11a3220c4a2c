#include "shard/ann/ivf_centroids.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/fault.h"
#include "common/learn/learn.h"
#include "shard/ann/ivf_train.h"

#define ZERO 128
#define FEW 512u    /* so many need no regions */
#define ALIGNMENT 64u
#define HUGE_BYTES ((size_t)2 << 20)

static void lanes_done(struct kx_ivf_lanes *lanes)
{
	free(lanes->codes);
	free(lanes->scale);
	free(lanes->offset);
	free(lanes->number);
	free(lanes->next);
	free(lanes->used);
	*lanes = (struct kx_ivf_lanes){.dim = lanes->dim};
}

/* Into an allocation of its own; what is there stays. */
static bool enlarge(void *array, size_t old_bytes, size_t bytes)
{
	size_t alignment = bytes >= HUGE_BYTES / 4 ? HUGE_BYTES : ALIGNMENT;
	void *memory =
		kx_fault("ann.grow") ? NULL : aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);

	if (!memory)
		return false;
	if (alignment == HUGE_BYTES)
		(void)madvise(memory, bytes, MADV_HUGEPAGE);
	if (old_bytes)
		memcpy(memory, *(void **)array, old_bytes);
	free(*(void **)array);
	*(void **)array = memory;
	return true;
}

static kx_status lanes_reserve(struct kx_ivf_lanes *lanes, uint32_t groups)
{
	const size_t item = KX_IVF_LANES * sizeof(uint32_t), codes = (size_t)KX_IVF_LANES * lanes->dim;
	size_t old = lanes->groups, next = groups + groups / 8;

	if (groups <= lanes->capacity)
		return KX_OK;
	if (!enlarge(&lanes->codes, old * codes, next * codes) || !enlarge(&lanes->scale, old * item, next * item) ||
	    !enlarge(&lanes->offset, old * item, next * item) || !enlarge(&lanes->number, old * item, next * item) ||
	    !enlarge(&lanes->next, old * sizeof(uint32_t), next * sizeof(uint32_t)) ||
	    !enlarge(&lanes->used, old, next))
		return KX_ENOMEM;
	lanes->capacity = (uint32_t)next;
	return KX_OK;
}

/* There is room. */
static uint32_t add_group(struct kx_ivf_lanes *lanes)
{
	uint32_t group = lanes->groups++;

	memset(lanes->codes + (size_t)group * KX_IVF_LANES * lanes->dim, ZERO, (size_t)KX_IVF_LANES * lanes->dim);
	for (uint32_t i = group * KX_IVF_LANES; i < (group + 1) * KX_IVF_LANES; i++) {
		lanes->scale[i] = 0.0f;
		lanes->offset[i] = INFINITY;
	}
	lanes->next[group] = KX_IVF_NO_LANE;
	lanes->used[group] = 0;
	return group;
}

/* The first lane of a group that is free; there is one. */
static uint32_t put(struct kx_ivf_lanes *lanes, uint32_t group, const float *rotated, float offset, uint32_t number)
{
	uint8_t *codes = lanes->codes + (size_t)group * KX_IVF_LANES * lanes->dim;
	uint32_t lane = group * KX_IVF_LANES;
	int8_t *values;

	while (isfinite(lanes->offset[lane]))
		lane++;
	values = (int8_t *)malloc(lanes->dim);
	if (!values)
		return KX_IVF_NO_LANE;
	kx_learn_quantize_i8(rotated, lanes->dim, values, &lanes->scale[lane]);
	for (uint32_t i = 0; i < lanes->dim; i++)
		codes[(i / 4 * KX_IVF_LANES + lane % KX_IVF_LANES) * 4 + i % 4] = (uint8_t)(values[i] + ZERO);
	free(values);
	lanes->offset[lane] = offset;
	lanes->number[lane] = number;
	lanes->used[group]++;
	return lane;
}

struct kx_ivf_sixteen kx_ivf_lanes_sixteen(const struct kx_ivf_lanes *lanes, uint32_t group)
{
	return (struct kx_ivf_sixteen){
		lanes->codes + (size_t)group * KX_IVF_LANES * lanes->dim,
		lanes->scale + (size_t)group * KX_IVF_LANES,
		lanes->offset + (size_t)group * KX_IVF_LANES,
	};
}

void kx_ivf_centroids_done(struct kx_ivf_centroids *centroids)
{
	lanes_done(&centroids->lanes);
	lanes_done(&centroids->regions);
	free(centroids->values);
	free(centroids->first);
	*centroids = (struct kx_ivf_centroids){0};
}

static uint64_t lanes_bytes(const struct kx_ivf_lanes *lanes)
{
	return (uint64_t)lanes->capacity * (KX_IVF_LANES * (lanes->dim + 3 * sizeof(uint32_t)) + sizeof(uint32_t) + 1);
}

uint64_t kx_ivf_centroids_bytes(const struct kx_ivf_centroids *centroids)
{
	return lanes_bytes(&centroids->lanes) + lanes_bytes(&centroids->regions) +
	       (uint64_t)centroids->region_count * (centroids->lanes.dim + 1) * sizeof(float);
}

bool kx_ivf_centroids_stale(const struct kx_ivf_centroids *centroids)
{
	return !centroids->region_count || centroids->changed > centroids->built / 4 + KX_IVF_LANES;
}

/* Behind the region's groups a new one, when none of them has a lane left. There is room. */
static uint32_t group_with_room(struct kx_ivf_centroids *centroids, uint32_t region)
{
	struct kx_ivf_lanes *lanes = &centroids->lanes;
	uint32_t *at = &centroids->first[region];

	while (*at != KX_IVF_NO_LANE && lanes->used[*at] == KX_IVF_LANES)
		at = &lanes->next[*at];
	if (*at == KX_IVF_NO_LANE) {
		uint32_t group = add_group(lanes);

		*at = group;
		return group;
	}
	return *at;
}

static kx_status add_to(struct kx_ivf_centroids *centroids, uint32_t region, const float *rotated, float offset,
			uint32_t slot, uint32_t *ret_lane)
{
	kx_status status = lanes_reserve(&centroids->lanes, centroids->lanes.groups + 1);
	uint32_t lane;

	if (status)
		return status;
	lane = put(&centroids->lanes, group_with_room(centroids, region), rotated, offset, slot);
	if (lane == KX_IVF_NO_LANE)
		return KX_ENOMEM;
	centroids->count++;
	*ret_lane = lane;
	return KX_OK;
}

static float half_norm(const float *v, uint32_t dim)
{
	float sum = 0.0f;

	for (uint32_t i = 0; i < dim; i++)
		sum += v[i] * v[i];
	return sum / 2;
}

static kx_status make_regions(struct kx_ivf_centroids *made, const float *rotated, uint32_t count, uint32_t dim,
			      uint64_t seed, uint32_t *of)
{
	kx_status status;

	made->region_count = count > FEW && !made->flat ? (uint32_t)(2.0f * sqrtf((float)count)) : 1;
	made->values = calloc((size_t)made->region_count * dim, sizeof(float));
	made->first = malloc(made->region_count * sizeof(uint32_t));
	if (!made->values || !made->first)
		return KX_ENOMEM;
	if (made->region_count > 1) {
		status = kx_ivf_part(rotated, count, dim, seed, made->region_count, made->values, of);
		if (status)
			return status;
	}
	status = lanes_reserve(&made->regions, (made->region_count + KX_IVF_LANES - 1) / KX_IVF_LANES);
	for (uint32_t i = 0; !status && i < made->region_count; i++) {
		const float *values = made->values + (size_t)i * dim;

		made->first[i] = KX_IVF_NO_LANE;
		if (i % KX_IVF_LANES == 0)
			(void)add_group(&made->regions);
		if (put(&made->regions, i / KX_IVF_LANES, values, half_norm(values, dim), i) == KX_IVF_NO_LANE)
			status = KX_ENOMEM;
	}
	return status;
}

kx_status kx_ivf_centroids_build(struct kx_ivf_centroids *centroids, const float *rotated, const float *offsets,
				 const uint32_t *slots, uint32_t count, uint32_t dim, uint64_t seed, bool flat,
				 uint32_t *ret_lanes)
{
	struct kx_ivf_centroids made = {.lanes.dim = dim, .regions.dim = dim, .flat = flat && count > FEW};
	uint32_t *of = calloc(count + 1u, sizeof(*of));
	kx_status status = of ? make_regions(&made, rotated, count, dim, seed, of) : KX_ENOMEM;

	/* Region by region, so that the groups of each lie behind one another. */
	for (uint32_t region = 0; !status && region < made.region_count; region++)
		for (uint32_t i = 0; !status && i < count; i++)
			if (of[i] == region)
				status = add_to(&made, region, rotated + (size_t)i * dim, offsets[i], slots[i], &ret_lanes[i]);
	free(of);
	if (status) {
		kx_ivf_centroids_done(&made);
		return status;
	}
	made.built = count;
	kx_ivf_centroids_done(centroids);
	*centroids = made;
	return KX_OK;
}

kx_status kx_ivf_centroids_add(struct kx_ivf_centroids *centroids, const struct kx_ivf_kernels *kernels,
			       const float *rotated, float offset, uint32_t slot, uint32_t *ret_lane)
{
	uint32_t region = 0;
	kx_status status;

	if (centroids->region_count > 1) {
		struct kx_ivf_order order = {0};

		/* Regions are ordered by distance, whatever the metric. */
		status = kx_ivf_order_start(&order, centroids, kernels, rotated, 1.0f, false);
		region = status ? 0 : order.order[0];
		kx_ivf_order_done(&order);
		if (status)
			return status;
	}
	status = add_to(centroids, region, rotated, offset, slot, ret_lane);
	centroids->changed += !status;
	return status;
}

void kx_ivf_centroids_remove(struct kx_ivf_centroids *centroids, uint32_t lane)
{
	centroids->lanes.offset[lane] = INFINITY;
	centroids->lanes.scale[lane] = 0.0f;
	centroids->lanes.used[lane / KX_IVF_LANES]--;
	centroids->count--;
	centroids->changed++;
}

/* --- Order ---------------------------------------------------------------------------------------------------- */

#define FIRST_GIVE 10u
#define GIVEN_FIRST 64u /* groups nearest to a query whose keys are given, that are looked at before the others */
#define QUERY_STEPS 127.0f
#define SEEN_PART 8u  /* of all centroids, those that are looked at in any case */
#define SEEN_MORE 20u /* and for each that is given */

void kx_ivf_order_done(struct kx_ivf_order *order)
{
	free(order->codes);
	free(order->keys);
	free(order->products);
	free(order->numbers);
	free(order->room);
	free(order->groups);
	free(order->above);
	free(order->least);
	free(order->order);
	*order = (struct kx_ivf_order){0};
}

static kx_status order_reserve(struct kx_ivf_order *order, const struct kx_ivf_centroids *centroids)
{
	uint32_t groups = centroids->lanes.groups > centroids->regions.groups ? centroids->lanes.groups
									      : centroids->regions.groups;
	size_t lanes;

	if (order->dim < centroids->lanes.dim) {
		order->dim = 0;
		if (!enlarge(&order->codes, 0, centroids->lanes.dim))
			return KX_ENOMEM;
		order->dim = centroids->lanes.dim;
	}
	if (groups <= order->capacity)
		return KX_OK;
	order->capacity = 0;
	groups += groups / 4 + 1;
	lanes = (size_t)groups * KX_IVF_LANES;
	if (!enlarge(&order->keys, 0, lanes * sizeof(float)) || !enlarge(&order->products, 0, lanes * sizeof(float)) ||
	    !enlarge(&order->numbers, 0, (lanes + KX_IVF_LANES) * sizeof(uint64_t)) ||
	    !enlarge(&order->room, 0, (lanes + KX_IVF_LANES) * sizeof(uint64_t)) ||
	    !enlarge(&order->groups, 0, groups * sizeof(uint32_t)) || !enlarge(&order->above, 0, groups * sizeof(float)) ||
	    !enlarge(&order->least, 0, groups * sizeof(float)) || !enlarge(&order->order, 0, lanes * sizeof(uint32_t)))
		return KX_ENOMEM;
	order->capacity = groups;
	return KX_OK;
}

struct kx_ivf_eighth kx_ivf_to_eighth(const float *rotated, uint32_t dim, float weight, int8_t *codes)
{
	float most = 0.0f, steps;
	int32_t sum = 0;

	for (uint32_t i = 0; i < dim; i++)
		most = fabsf(rotated[i]) > most ? fabsf(rotated[i]) : most;
	steps = most > 0.0f ? QUERY_STEPS / most : 0.0f;
	for (uint32_t i = 0; i < dim; i++) {
		int32_t code = (int32_t)(rotated[i] * steps + 128.5f) - 128;

		codes[i] = (int8_t)code;
		sum += code;
	}
	return (struct kx_ivf_eighth){codes, dim, ZERO * sum, most / QUERY_STEPS, weight};
}

/* The others are as if nobody used them. Returns the least key. */
static float leave_only(float *keys, uint32_t only)
{
	float least = INFINITY;

	for (uint32_t i = 0; i < KX_IVF_LANES; i++) {
		keys[i] = only >> i & 1 ? keys[i] : INFINITY;
		least = keys[i] < least ? keys[i] : least;
	}
	return least;
}

static void visit(struct kx_ivf_order *order, uint32_t region)
{
	const struct kx_ivf_lanes *lanes = &order->centroids->lanes;

	for (uint32_t group = order->centroids->first[region]; group != KX_IVF_NO_LANE; group = lanes->next[group]) {
		struct kx_ivf_sixteen centroids = kx_ivf_lanes_sixteen(lanes, group);
		size_t at = (size_t)group * KX_IVF_LANES;
		float least;

		if (order->only && !order->only[group])
			continue;
		least = order->kernels->near(&centroids, &order->query, order->keys + at, order->products + at);
		if (order->only)
			least = leave_only(order->keys + at, order->only[group]);
		order->least[order->group_count] = least;
		order->above[order->group_count] = -INFINITY;
		order->groups[order->group_count++] = group;
		order->seen += order->only ? (uint32_t)__builtin_popcount(order->only[group]) : lanes->used[group];
	}
}

static void visit_until(struct kx_ivf_order *order, uint32_t enough)
{
	while (order->visited < order->regions && order->seen < enough)
		visit(order, order->order[order->visited++]);
}

static void order_regions(struct kx_ivf_order *order)
{
	const struct kx_ivf_lanes *regions = &order->centroids->regions;
	uint32_t count = 0;

	for (uint32_t group = 0; group < regions->groups; group++) {
		struct kx_ivf_sixteen centroids = kx_ivf_lanes_sixteen(regions, group);
		size_t at = (size_t)group * KX_IVF_LANES;

		(void)order->kernels->near(&centroids, &order->query, order->keys + at, order->products + at);
		count += order->kernels->pick(order->keys + at, -INFINITY, FLT_MAX, group * KX_IVF_LANES,
					      order->numbers + count);
	}
	order->kernels->sort(order->numbers, count, order->room);
	for (uint32_t i = 0; i < count; i++)
		order->order[i] = regions->number[(uint32_t)order->numbers[i]];
	order->regions = count;
}

static kx_status order_begin(struct kx_ivf_order *order, const struct kx_ivf_centroids *centroids,
			     const struct kx_ivf_kernels *kernels)
{
	kx_status status = order_reserve(order, centroids);

	order->centroids = centroids;
	order->kernels = kernels;
	order->only = NULL;
	order->given = NULL;
	order->count = centroids->count;
	order->group_count = order->visited = order->regions = order->seen = order->gave = 0;
	order->give = FIRST_GIVE;
	return status;
}

kx_status kx_ivf_order_start(struct kx_ivf_order *order, const struct kx_ivf_centroids *centroids,
			     const struct kx_ivf_kernels *kernels, const float *rotated, float weight, bool all)
{
	kx_status status = order_begin(order, centroids, kernels);

	if (status)
		return status;
	if (!centroids->region_count)
		return KX_OK;
	order->query = kx_ivf_to_eighth(rotated, centroids->lanes.dim, weight, order->codes);
	order_regions(order);
	if (all)
		visit_until(order, UINT32_MAX);
	return KX_OK;
}

#define BELOW_STEPS 128u /* that least keys are told apart by */

float kx_ivf_least_below(const float *least, uint32_t groups, uint32_t most, float *ret_nearest)
{
	uint32_t counts[BELOW_STEPS + 1] = {0}, count = 0, at = 0;
	float low = INFINITY, high = -INFINITY, steps;

	for (uint32_t i = 0; i < groups; i++) {
		low = least[i] < low ? least[i] : low;
		high = least[i] < INFINITY && least[i] > high ? least[i] : high;
	}
	*ret_nearest = low;
	if (groups <= most || low == INFINITY)
		return INFINITY;
	steps = high > low ? (float)BELOW_STEPS / (high - low) : 0.0f;
	for (uint32_t i = 0; i < groups; i++)
		if (least[i] < INFINITY)
			counts[(uint32_t)((least[i] - low) * steps)]++;
	while (at < BELOW_STEPS && count + counts[at] <= most)
		count += counts[at++];
	return low + (float)at * (high - low) / (float)BELOW_STEPS;
}

static void take_given(struct kx_ivf_order *order, float from, float below)
{
	const uint32_t groups = order->centroids->lanes.groups;

	for (uint32_t group = 0; group < groups; group++) {
		if (!(order->given_least[group] >= from && order->given_least[group] < below))
			continue;
		order->least[order->group_count] = order->given_least[group];
		order->above[order->group_count] = -INFINITY;
		order->groups[order->group_count++] = group;
	}
}

kx_status kx_ivf_order_given(struct kx_ivf_order *order, const struct kx_ivf_centroids *centroids,
			     const struct kx_ivf_kernels *kernels, float weight, const float *keys, const float *least)
{
	kx_status status = order_begin(order, centroids, kernels);
	float nearest;

	if (status)
		return status;
	order->query.weight = weight;
	order->given = keys;
	order->given_least = least;
	order->given_below = kx_ivf_least_below(least, centroids->lanes.groups, GIVEN_FIRST, &nearest);
	take_given(order, -INFINITY, order->given_below);
	return KX_OK;
}

void kx_ivf_order_only(struct kx_ivf_order *order, const uint16_t *lanes, uint32_t count)
{
	order->only = lanes;
	order->count = count;
}

/* The nth smallest (Hoare's selection); of few values, which it puts in another order. */
static float nth(float *values, uint32_t count, uint32_t n)
{
	uint32_t low = 0, high = count - 1;

	while (low < high) {
		float pivot = values[low + (high - low) / 2];
		uint32_t i = low, j = high;

		while (i <= j) {
			float value;

			while (values[i] < pivot)
				i++;
			while (values[j] > pivot)
				j--;
			if (i > j)
				break;
			value = values[i];
			values[i++] = values[j];
			values[j] = value;
			if (!j)
				break;
			j--;
		}
		if (n <= j && j < high)
			high = j;
		else if (n >= i)
			low = i;
		else
			break;
	}
	return values[n];
}

/* What the next ones reach up to: as many groups as are to be given begin below it. INFINITY: there is none. */
static float next_bound(struct kx_ivf_order *order)
{
	float *least = (float *)(void *)order->room;
	uint32_t count = 0, n = order->give;

	for (uint32_t i = 0; i < order->group_count; i++)
		if (order->least[i] < INFINITY)
			least[count++] = order->least[i];
	if (!count)
		return INFINITY;
	n = n < count / 2 ? n : count / 2;
	return nth(least, count, n);
}

uint32_t kx_ivf_order_next(struct kx_ivf_order *order)
{
	uint32_t count = 0;
	float most;

	visit_until(order, order->count / SEEN_PART + SEEN_MORE * (order->gave + order->give));
	most = next_bound(order);
	if (most == INFINITY && order->visited < order->regions) {
		visit_until(order, UINT32_MAX);
		most = next_bound(order);
	}
	if (most == INFINITY && order->given && order->given_below < INFINITY) {
		take_given(order, order->given_below, INFINITY);
		order->given_below = INFINITY;
		most = next_bound(order);
	}
	if (most == INFINITY)
		return 0;
	for (uint32_t i = 0; i < order->group_count; i++) {
		uint32_t group = order->groups[i];
		const float *keys = (order->given ? order->given : order->keys) + (size_t)group * KX_IVF_LANES;

		if (order->least[i] > most)
			continue;
		count += order->kernels->pick(keys, order->above[i], most, group * KX_IVF_LANES, order->numbers + count);
		order->above[i] = most;
		order->least[i] = order->kernels->least_above(keys, most);
	}
	order->kernels->sort(order->numbers, count, order->room);
	order->gave += count;
	order->give *= 2;
	return count;
}
