/* Many queries at once, in rounds: in each a query names the cells that come next for it and that are worth it by what was found so
 * far, twice as many as in the round before; then each cell that anybody named is looked into for all of them. */
#include "shard/ann/ivf_batch.h"

#include <stdlib.h>

#include "common/base/fault.h"
#include "common/base/macros.h"

#define WAVE 256u                    /* queries that are on their way at the same time, at most, */
#define KEYS_BYTES ((size_t)16 << 20) /* and so many that all of their keys take no more */
#define WAVE_LEAST 2u                 /* for fewer a way of their own is faster */
#define NEAR 32u                      /* queries whose keys are made at a time */
#define SECOND_ROUND 8u               /* cells of a query in it */
#define THIRD_ROUND 32u               /* and in the third, if there are not many more; else */
#define THIRD_SHARE 0.7f              /* so much of them */
#define PAIRS_LEAST 1024u

bool kx_ivf_room(struct kx_ivf_room *room, size_t bytes)
{
	if (bytes <= room->bytes)
		return true;
	room->bytes = 0;
	if (!kx_ivf_again(&room->data, bytes + bytes / 4))
		return false;
	room->bytes = bytes + bytes / 4;
	return true;
}

void kx_ivf_batch_free(struct kx_ivf_batch *batch)
{
	if (!batch)
		return;
	for (size_t i = 0; i < KX_ARRAY_LEN(batch->rooms); i++)
		free(batch->rooms[i].data);
	for (size_t i = 0; i < 2; i++) {
		free(batch->looks[i].slots.data);
		free(batch->looks[i].bounds.data);
	}
	free(batch->spread.data);
	free(batch->gathered.data);
	free(batch->pairs);
	free(batch);
}

static size_t lanes_of(const struct kx_ivf *ivf)
{
	return (size_t)ivf->centroids.lanes.groups * KX_IVF_LANES;
}

/* How many queries may be on their way at once. */
static size_t wave_of(const struct kx_ivf *ivf)
{
	size_t wave = KEYS_BYTES / ((lanes_of(ivf) + 1) * sizeof(float));

	return wave < WAVE ? wave : WAVE;
}

static kx_status reserve(struct kx_ivf_batch *batch, const struct kx_ivf *ivf, size_t count)
{
	const size_t padded = ivf->rotation.padded, groups = ivf->centroids.lanes.groups, lanes = lanes_of(ivf);
	const struct {
		void *at;
		size_t bytes;
	} parts[] = {
		{&batch->ones, count * sizeof(*batch->ones)},
		{&batch->eighths, count * sizeof(*batch->eighths)},
		{&batch->codes, (count + KX_IVF_SOME) * padded},
		{&batch->luts, count * ivf->lead * 4},
		{&batch->rest, count * (padded - ivf->lead) * sizeof(float) + 1},
		{&batch->keys, count * lanes * sizeof(float)},
		{&batch->least, count * groups * sizeof(float)},
		{&batch->numbers, (lanes + KX_IVF_LANES) * sizeof(uint64_t)},
		{&batch->wanted, 2 * (size_t)ivf->slot_count * sizeof(uint32_t)},
	};

	_Static_assert(KX_ARRAY_LEN(parts) == KX_ARRAY_LEN(batch->rooms), "a room for each");
	for (size_t i = 0; i < KX_ARRAY_LEN(parts); i++) {
		if (!kx_ivf_room(&batch->rooms[i], parts[i].bytes))
			return KX_ENOMEM;
		*(void **)parts[i].at = batch->rooms[i].data;
	}
	batch->slots = batch->wanted + ivf->slot_count;
	memset(batch->wanted, 0, ivf->slot_count * sizeof(*batch->wanted));
	return KX_OK;
}

/* --- Before the first round ----------------------------------------------------------------------------------- */

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

static void find_keys(struct kx_ivf_batch *batch)
{
	const struct kx_ivf *ivf = batch->ivf;
	const struct kx_ivf_lanes *lanes = &ivf->centroids.lanes;
	const struct kx_ivf_sixteen first = kx_ivf_lanes_sixteen(lanes, 0);

	for (uint32_t from = 0; from < batch->count; from += NEAR) {
		uint32_t some = batch->count - from < NEAR ? batch->count - from : NEAR;
		struct kx_ivf_keys keys = {batch->keys + from * lanes_of(ivf), lanes_of(ivf),
					   batch->least + (size_t)from * lanes->groups, lanes->groups};

		for (uint32_t i = from; i < from + some; i++)
			prepare(batch, i);
		ivf->kernels->near_some(&first, lanes->groups, batch->eighths + from, some, &keys);
	}
}

/* --- Rounds --------------------------------------------------------------------------------------------------- */

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

/* Of so many lanes in batch->numbers those with keys up to `most`. */
static kx_status name_cells(struct kx_ivf_batch *batch, uint32_t number, uint32_t count, float most)
{
	const struct kx_ivf_lanes *lanes = &batch->ivf->centroids.lanes;
	const float *keys = batch->keys + number * lanes_of(batch->ivf), weight = kx_ivf_norm_weight(batch->ivf);
	struct kx_ivf_pair *pairs;
	size_t at = batch->pair_count;

	if (reserve_pairs(batch, count))
		return KX_ENOMEM;
	pairs = batch->pairs;
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t lane = (uint32_t)batch->numbers[i];

		pairs[at] = (struct kx_ivf_pair){lanes->number[lane], {number, weight * lanes->offset[lane] - keys[lane]}};
		at += keys[lane] <= most;
	}
	batch->ones[number].work->cells += (uint32_t)(at - batch->pair_count);
	batch->pair_count = at;
	return KX_OK;
}

/* Lanes of a query with keys above those that were thought of, up to `most`, into batch->numbers; how many. */
static uint32_t lanes_up_to(struct kx_ivf_batch *batch, uint32_t number, float most)
{
	const struct kx_ivf *ivf = batch->ivf;
	const uint32_t groups = ivf->centroids.lanes.groups;
	const float *keys = batch->keys + number * lanes_of(ivf), *least = batch->least + (size_t)number * groups;
	const float above = batch->ones[number].above;
	uint32_t count = 0;

	for (uint32_t group = 0; group < groups; group++)
		if (least[group] <= most)
			count += ivf->kernels->pick(keys + (size_t)group * KX_IVF_LANES, above, most, group * KX_IVF_LANES,
						    batch->numbers + count);
	return count;
}

/* The least key of a query's above those that were thought of; INFINITY: there is none. */
static float next_key(const struct kx_ivf_batch *batch, uint32_t number)
{
	const struct kx_ivf *ivf = batch->ivf;
	const uint32_t groups = ivf->centroids.lanes.groups;
	const float *keys = batch->keys + number * lanes_of(ivf), *least = batch->least + (size_t)number * groups;
	const float above = batch->ones[number].above;
	float key = INFINITY;

	for (uint32_t group = 0; group < groups; group++) {
		float of_group = least[group] > above
					 ? least[group]
					 : ivf->kernels->least_above(keys + (size_t)group * KX_IVF_LANES, above);

		key = of_group < key ? of_group : key;
	}
	return key;
}

/* The nearest cell that was not looked into, for each that has too few. */
static kx_status name_first(struct kx_ivf_batch *batch, uint32_t number)
{
	struct kx_ivf_one *one = &batch->ones[number];
	const float key = next_key(batch, number);
	const uint32_t count = key < INFINITY ? lanes_up_to(batch, number, key) : 0;

	one->nearest = one->nearest < key ? one->nearest : key;
	one->above = key;
	one->enough = !count;
	return name_cells(batch, number, count, key);
}

/* How far beyond the nearest key cells are worth it after so many. */
static float reach_of(const struct kx_ivf_one *one, uint32_t cells)
{
	float radius2 = one->norm2 + 1.0f - 2.0f * kx_ivf_least(&one->best);
	float reach = radius2 > 0.0f ? one->how.effort * radius2 : 0.0f;

	return reach / sqrtf(sqrtf((float)(cells ? cells : 1)));
}

#define STEPS 128u /* that keys are told apart by */

/* The more was found, the fewer are worth it: the first cells of a query tell how good what it finds must be, and of many that then
 * seem to be worth it the last are judged again. */
static uint32_t may_have(const struct kx_ivf_one *one, uint32_t worth)
{
	if (one->round == 1)
		return SECOND_ROUND;
	return one->round == 2 && worth > THIRD_ROUND ? (uint32_t)((float)worth * THIRD_SHARE) : worth;
}

/* By the rule of kx_ivf_is_worth() cells are worth it up to some key, which is less the more there are: the greatest up to which all
 * are, or so many of them as this round may have. */
static float worth_up_to(struct kx_ivf_batch *batch, uint32_t number, uint32_t count, float most)
{
	struct kx_ivf_one *one = &batch->ones[number];
	const float *keys = batch->keys + number * lanes_of(batch->ivf);
	const float step = (most - one->nearest) / (float)STEPS, steps = step > 0.0f ? 1.0f / step : 0.0f;
	uint32_t counts[STEPS + 1] = {0}, cells = 0, may, last = 0;

	for (uint32_t i = 0; i < count; i++)
		counts[(uint32_t)((keys[(uint32_t)batch->numbers[i]] - one->nearest) * steps)]++;
	while (last < STEPS && (float)last * step <= reach_of(one, one->work->cells + cells))
		cells += counts[last++];
	may = may_have(one, cells);
	one->enough = may >= cells;
	if (one->enough)
		return last < STEPS ? one->nearest + (float)last * step : most;
	for (last = 0, cells = 0; cells < may; last++)
		cells += counts[last];
	return one->nearest + (float)last * step;
}

/* Those of the next cells that are worth it. */
static kx_status name_by_distance(struct kx_ivf_batch *batch, uint32_t number)
{
	struct kx_ivf_one *one = &batch->ones[number];
	const float most = one->nearest + reach_of(one, one->work->cells);
	const uint32_t count = most > one->above ? lanes_up_to(batch, number, most) : 0;

	one->above = worth_up_to(batch, number, count, most);
	return name_cells(batch, number, count, one->above);
}

static kx_status name_all(struct kx_ivf_batch *batch)
{
	kx_status status = KX_OK;

	batch->pair_count = 0;
	for (uint32_t i = 0; !status && i < batch->count; i++) {
		struct kx_ivf_one *one = &batch->ones[i];

		if (one->enough)
			continue;
		one->round++;
		status = name_by_distance(batch, i);
	}
	return status;
}

static kx_status name_firsts(struct kx_ivf_batch *batch)
{
	kx_status status = KX_OK;

	batch->pair_count = 0;
	for (uint32_t i = 0; !status && i < batch->count; i++)
		if (!batch->ones[i].enough && batch->ones[i].best.count < batch->ones[i].best.k)
			status = name_first(batch, i);
	return status;
}

/* Pairs as wishes, those of a cell behind one another: of batch->slots[i] up to batch->wanted[of it]. */
static void group_pairs(struct kx_ivf_batch *batch)
{
	size_t at = 0;

	batch->slot_count = 0;
	for (size_t i = 0; i < batch->pair_count; i++)
		if (!batch->wanted[batch->pairs[i].slot]++)
			batch->slots[batch->slot_count++] = batch->pairs[i].slot;
	for (uint32_t i = 0; i < batch->slot_count; i++) {
		uint32_t *wanted = &batch->wanted[batch->slots[i]], count = *wanted;

		*wanted = (uint32_t)at;
		at += count;
	}
	batch->wishes = (struct kx_ivf_wish *)(void *)(batch->pairs + batch->pair_room);
	for (size_t i = 0; i < batch->pair_count; i++)
		batch->wishes[batch->wanted[batch->pairs[i].slot]++] = batch->pairs[i].wish;
}

static kx_status look_into_all(struct kx_ivf_batch *batch)
{
	const struct kx_ivf_cell *cells = batch->ivf->cells;
	kx_status status = KX_OK;
	size_t from = 0;

	group_pairs(batch);
	for (uint32_t i = 0; i < batch->slot_count; i++) {
		const uint32_t slot = batch->slots[i];
		const size_t to = batch->wanted[slot];
		const struct kx_ivf_cell *next = i + 1 < batch->slot_count ? &cells[batch->slots[i + 1]] : NULL;

		batch->wanted[slot] = 0;
		if (!status)
			status = kx_ivf_look_into(batch, &cells[slot], batch->wishes + from, to - from, next);
		from = to;
	}
	if (!status)
		kx_ivf_look_end(batch);
	return status;
}

/* Until each has as many as it is to find. */
static kx_status first_rounds(struct kx_ivf_batch *batch)
{
	kx_status status;

	do {
		status = name_firsts(batch);
		if (!status)
			status = kx_ivf_look_first(batch, batch->pairs, batch->pair_count);
	} while (!status && batch->pair_count);
	return status;
}

static kx_status run(struct kx_ivf_batch *batch)
{
	kx_status status;

	find_keys(batch);
	status = first_rounds(batch);
	do {
		if (!status)
			status = name_all(batch);
		if (!status)
			status = look_into_all(batch);
	} while (!status && batch->pair_count);
	for (uint32_t i = 0; i < batch->count; i++)
		kx_ivf_best_sort(&batch->ones[i].best);
	return status;
}

/* --- Which way ------------------------------------------------------------------------------------------------ */

static bool goes_together(const struct kx_ivf *ivf, const struct kx_ivf_query *query)
{
	return ivf->recipe.metric == KX_METRIC_COSINE && !query->filter && query->k && query->recall > 0.0 && query->recall < 1.0 && !ivf->cold_count && !ivf->unplaced &&
	       ivf->vectors && ivf->entry_count;
}

static kx_status batch_of(struct kx_ivf_scratch *scratch, struct kx_ivf_batch **ret)
{
	if (!scratch->batch)
		scratch->batch = kx_fault("ann.scratch") ? NULL : calloc(1, sizeof(*scratch->batch));
	*ret = scratch->batch;
	return *ret ? KX_OK : KX_ENOMEM;
}

static void add_one(struct kx_ivf_batch *batch, const struct kx_ivf_query *query, struct kx_ivf_answer *answer)
{
	const struct kx_ivf_one *before = batch->count ? &batch->ones[batch->count - 1] : NULL;
	struct kx_ivf_one *one = &batch->ones[batch->count++];

	*one = (struct kx_ivf_one){
		.query = query,
		.work = &answer->work,
		.best = {answer->hits, query->k, 0},
		.nearest = INFINITY,
		.above = -INFINITY,
		.how = before && before->query->recall == query->recall ? before->how : kx_ivf_how_of(&batch->ivf->tuning, query->recall),
	};
	answer->work = (struct kx_ivf_work){0};
}

/* Queries from `from` on until so many go together; to where they were looked through. */
static size_t add_some(struct kx_ivf_batch *batch, const struct kx_ivf_query *queries, size_t from, size_t n, size_t most,
		       struct kx_ivf_answer *ret)
{
	for (; from < n && batch->count < most; from++)
		if (goes_together(batch->ivf, &queries[from]))
			add_one(batch, &queries[from], &ret[from]);
	return from;
}

static kx_status search_together(const struct kx_ivf *ivf, const struct kx_ivf_query *queries, size_t n,
				 struct kx_ivf_scratch *scratch, size_t together, struct kx_ivf_answer *ret)
{
	const size_t most = together < wave_of(ivf) ? together : wave_of(ivf);
	struct kx_ivf_batch *batch;
	kx_status status = batch_of(scratch, &batch);

	if (!status) {
		batch->ivf = ivf;
		batch->coming_count = 0;
		batch->looks[0].count = batch->looks[1].count = 0;
		batch->looks[0].used = batch->looks[1].used = 0;
		status = reserve(batch, ivf, most);
	}
	for (size_t i = 0; !status && i < n;) {
		batch->count = 0;
		i = add_some(batch, queries, i, n, most, ret);
		status = batch->count ? run(batch) : KX_OK;
		for (uint32_t j = 0; j < batch->count; j++) {
			size_t answer = (size_t)(batch->ones[j].query - queries);

			ret[answer].count = batch->ones[j].best.count;
		}
	}
	return status;
}

kx_status kx_ivf_search_many(const struct kx_ivf *ivf, const struct kx_ivf_query *queries, size_t n,
			     struct kx_ivf_scratch *scratch, struct kx_ivf_answer *ret, struct kx_error *error)
{
	kx_status status = KX_OK;
	size_t together = 0;

	for (size_t i = 0; i < n; i++)
		together += goes_together(ivf, &queries[i]);
	if (together < WAVE_LEAST || wave_of(ivf) < WAVE_LEAST)
		together = 0;
	if (together && search_together(ivf, queries, n, scratch, together, ret))
		return kx_error_nomem(error);
	for (size_t i = 0; !status && i < n; i++)
		if (!together || !goes_together(ivf, &queries[i]))
			status = kx_ivf_search(ivf, &queries[i], scratch, ret[i].hits, &ret[i].count, &ret[i].work, error);
	return status;
}
