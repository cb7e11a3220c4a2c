/* Which cells queries want: their centroids in the order of their keys, as far as the rule of kx_ivf_is_worth() says that they are
 * worth it. By distance the rule says up to which key, so that nothing needs to be put in order. */
#include "shard/ann/ivf_batch.h"

#include <stdlib.h>

#include "common/base/fault.h"

#define STEPS 128u         /* that keys are told apart by */
#define SECOND_ROUND 8u    /* cells of a query in it, */
#define THIRD_ROUND 32u    /* and in the third, if there are not many more; else */
#define THIRD_SHARE 0.7f   /* so much of them */
#define PAIRS_LEAST 1024u

/* --- Keys ----------------------------------------------------------------------------------------------------- */

static struct kx_ivf_lut eighth_of(const struct kx_ivf_eighth *eighth, uint32_t lead)
{
	int32_t all = 0;

	for (uint32_t i = 0; i < lead; i++)
		all += eighth->codes[i];
	/* Those that count plus are known by their sum, the others are the rest. */
	return (struct kx_ivf_lut){2.0f * eighth->scale, -eighth->scale * (float)all,
				   eighth->scale * eighth->scale * (float)lead / 12.0f};
}

static void prepare(struct kx_ivf_batch *batch, uint32_t number)
{
	const struct kx_ivf *ivf = batch->ivf;
	const uint32_t padded = ivf->rotation.padded, lead = ivf->lead;
	struct kx_ivf_one *one = &batch->ones[number];
	float rotated[KX_IVF_PADDED_MAX];

	kx_ivf_rotate(&ivf->rotation, ivf->kernels, one->query->vector, rotated);
	kx_ivf_lut_make(rotated, lead, ivf->kernels, batch->luts + (size_t)number * lead * 4, &one->lut);
	batch->eighths[number] = kx_ivf_to_eighth(rotated, padded, kx_ivf_norm_weight(ivf), batch->codes + (size_t)number * padded);
	one->eighth = eighth_of(&batch->eighths[number], lead);
	memcpy(batch->rest + (size_t)number * (padded - lead), rotated + lead, (padded - lead) * sizeof(float));
	for (uint32_t i = 0; i < padded; i++)
		one->norm2 += rotated[i] * rotated[i];
}

/* Of all keys of a query those of the groups near it. */
static void keep_near(struct kx_ivf_batch *batch, uint32_t number, const float *keys, const float *least)
{
	const uint32_t groups = batch->ivf->centroids.lanes.groups;
	const size_t at = (size_t)number * batch->kept;
	struct kx_ivf_one *one = &batch->ones[number];

	one->below = kx_ivf_least_below(least, groups, batch->kept, &one->nearest);
	one->groups = 0;
	for (uint32_t group = 0; group < groups && one->groups < batch->kept; group++) {
		if (least[group] >= one->below)
			continue;
		batch->groups[at + one->groups] = group;
		batch->least[at + one->groups] = least[group];
		memcpy(batch->keys + (at + one->groups++) * KX_IVF_LANES, keys + (size_t)group * KX_IVF_LANES,
		       KX_IVF_LANES * sizeof(float));
	}
}

void kx_ivf_batch_near(struct kx_ivf_batch *batch, uint32_t from, uint32_t count)
{
	const struct kx_ivf_lanes *lanes = &batch->ivf->centroids.lanes;
	const struct kx_ivf_sixteen first = kx_ivf_lanes_sixteen(lanes, 0);
	const struct kx_ivf_keys keys = {batch->near_keys, (size_t)lanes->groups * KX_IVF_LANES, batch->near_least, lanes->groups};

	batch->ivf->kernels->near_some(&first, lanes->groups, batch->eighths + from, count, &keys);
}

void kx_ivf_batch_prepare(struct kx_ivf_batch *batch)
{
	const struct kx_ivf_lanes *lanes = &batch->ivf->centroids.lanes;
	const size_t all = (size_t)lanes->groups * KX_IVF_LANES;

	for (uint32_t from = 0; from < batch->count; from += KX_IVF_NEAR) {
		uint32_t some = batch->count - from < KX_IVF_NEAR ? batch->count - from : KX_IVF_NEAR;

		for (uint32_t i = from; i < from + some; i++)
			prepare(batch, i);
		kx_ivf_batch_near(batch, from, some);
		for (uint32_t i = 0; i < some; i++)
			keep_near(batch, from + i, batch->near_keys + i * all, batch->near_least + (size_t)i * lanes->groups);
	}
}

void kx_ivf_batch_order(struct kx_ivf_batch *batch)
{
	for (uint32_t i = 0; i < batch->count; i++) {
		const size_t at = (size_t)i * batch->kept;
		uint32_t nearest = 0;

		for (uint32_t group = 1; group < batch->ones[i].groups; group++)
			nearest = batch->least[at + group] < batch->least[at + nearest] ? group : nearest;
		batch->sorting[i] = (uint64_t)(batch->ones[i].groups ? batch->groups[at + nearest] : 0) << 32 | i;
	}
	batch->ivf->kernels->sort(batch->sorting, batch->count, batch->sorting + batch->count);
	for (uint32_t i = 0; i < batch->count; i++)
		batch->order[i] = (uint32_t)batch->sorting[i];
}

/* --- Cells ---------------------------------------------------------------------------------------------------- */

static kx_status reserve_pairs(struct kx_ivf_batch *batch, size_t more)
{
	size_t room = batch->pair_room ? batch->pair_room : PAIRS_LEAST;
	void *pairs;

	if (batch->pair_count + more <= batch->pair_room)
		return KX_OK;
	while (room < batch->pair_count + more)
		room *= 2;
	pairs = kx_fault("ann.scratch") ? NULL : realloc(batch->pairs, room * (sizeof(*batch->pairs) + sizeof(*batch->wishes)));
	if (!pairs)
		return KX_ENOMEM;
	batch->pairs = pairs;
	batch->pair_room = room;
	return KX_OK;
}

/* Of so many keys, whose places are in batch->numbers, the cells of those up to `most`. */
static kx_status name_cells(struct kx_ivf_batch *batch, uint32_t number, uint32_t count, float most)
{
	const struct kx_ivf_lanes *lanes = &batch->ivf->centroids.lanes;
	const float *keys = batch->keys + (size_t)number * batch->kept * KX_IVF_LANES;
	const uint32_t *groups = batch->groups + (size_t)number * batch->kept;
	const float weight = kx_ivf_norm_weight(batch->ivf);
	size_t to = batch->pair_count;

	if (reserve_pairs(batch, count))
		return KX_ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t at = (uint32_t)batch->numbers[i];
		const uint32_t lane = groups[at / KX_IVF_LANES] * KX_IVF_LANES + at % KX_IVF_LANES;

		batch->pairs[to] = (struct kx_ivf_pair){lanes->number[lane], {number, weight * lanes->offset[lane] - keys[at]}};
		to += keys[at] <= most;
	}
	batch->ones[number].work->cells += (uint32_t)(to - batch->pair_count);
	batch->pair_count = to;
	return KX_OK;
}

/* Places of a query's keys above those that were thought of, up to `most`, into batch->numbers; how many. */
static uint32_t keys_up_to(struct kx_ivf_batch *batch, uint32_t number, float most)
{
	const struct kx_ivf_one *one = &batch->ones[number];
	const float *keys = batch->keys + (size_t)number * batch->kept * KX_IVF_LANES;
	const float *least = batch->least + (size_t)number * batch->kept;
	uint32_t count = 0;

	for (uint32_t group = 0; group < one->groups; group++)
		if (least[group] <= most)
			count += batch->ivf->kernels->pick(keys + (size_t)group * KX_IVF_LANES, one->above, most,
							   group * KX_IVF_LANES, batch->numbers + count);
	return count;
}

/* The least key of a query's above those that were thought of; INFINITY: there is none. */
static float next_key(const struct kx_ivf_batch *batch, uint32_t number)
{
	const struct kx_ivf_one *one = &batch->ones[number];
	const float *keys = batch->keys + (size_t)number * batch->kept * KX_IVF_LANES;
	float key = INFINITY;

	if (one->above < one->nearest)
		return one->nearest;
	for (uint32_t group = 0; group < one->groups; group++) {
		float of_group = batch->ivf->kernels->least_above(keys + (size_t)group * KX_IVF_LANES, one->above);

		key = of_group < key ? of_group : key;
	}
	return key;
}

kx_status kx_ivf_name_first(struct kx_ivf_batch *batch, uint32_t number)
{
	struct kx_ivf_one *one = &batch->ones[number];
	const float key = next_key(batch, number);
	uint32_t count;

	one->alone = one->below < INFINITY && key >= one->below;
	one->enough = one->alone || key == INFINITY;
	if (one->enough)
		return KX_OK;
	count = keys_up_to(batch, number, key);
	one->above = key;
	return name_cells(batch, number, count, key);
}

/* How far beyond the nearest key cells are worth it after so many. */
static float reach_of(const struct kx_ivf_one *one, uint32_t cells)
{
	float radius2 = one->norm2 + 1.0f - 2.0f * kx_ivf_least(&one->best);
	float reach = radius2 > 0.0f ? one->how.effort * radius2 : 0.0f;

	return reach / sqrtf(sqrtf((float)(cells ? cells : 1)));
}

/* The more was found, the fewer are worth it: the first cells of a query tell how good what it finds must be, and of many that then
 * seem to be worth it the last are judged again. */
static uint32_t may_have(const struct kx_ivf_one *one, uint32_t worth)
{
	if (one->round == 1)
		return SECOND_ROUND;
	return one->round == 2 && worth > THIRD_ROUND ? (uint32_t)((float)worth * THIRD_SHARE) : worth;
}

/* Up to which key cells are worth it, which is less the more there are: all of them, or so many as this round may have. Places of
 * count keys up to `most` are in batch->numbers. Where all that were kept are, nobody knows of the others: once a query knows how
 * good what it finds must be, it is let go alone. */
static float worth_up_to(struct kx_ivf_batch *batch, uint32_t number, uint32_t count, float most)
{
	struct kx_ivf_one *one = &batch->ones[number];
	const float *keys = batch->keys + (size_t)number * batch->kept * KX_IVF_LANES;
	const float step = (most - one->nearest) / (float)STEPS, steps = step > 0.0f ? 1.0f / step : 0.0f;
	uint32_t counts[STEPS + 1] = {0}, cells = 0, may, last = 0;

	for (uint32_t i = 0; i < count; i++)
		counts[(uint32_t)((keys[(uint32_t)batch->numbers[i]] - one->nearest) * steps)]++;
	while (last < STEPS && (float)last * step <= reach_of(one, one->work->cells + cells))
		cells += counts[last++];
	may = may_have(one, cells);
	one->alone = last == STEPS && most == one->below && (one->round > 1 || may >= cells);
	one->enough = one->alone || may >= cells;
	if (one->enough)
		return last < STEPS ? one->nearest + (float)last * step : most;
	for (last = 0, cells = 0; cells < may; last++)
		cells += counts[last];
	return one->nearest + (float)last * step;
}

kx_status kx_ivf_name_next(struct kx_ivf_batch *batch, uint32_t number)
{
	struct kx_ivf_one *one = &batch->ones[number];
	const float worth = one->nearest + reach_of(one, one->work->cells), most = worth < one->below ? worth : one->below;
	const uint32_t count = most > one->above ? keys_up_to(batch, number, most) : 0;

	one->round++;
	one->above = worth_up_to(batch, number, count, most);
	return one->alone ? KX_OK : name_cells(batch, number, count, one->above);
}
