/* Many queries at once, together in rounds where they share cells: in each round a query names the cells that come next for it
 * and that are worth it by what was found so far; then each cell that anybody named is looked into for all that did. Where they
 * share few, only centroids are gone through for many at once. */
#include "shard/ann/ivf_batch.h"

#include <stdlib.h>

#include "common/base/fault.h"
#include "common/base/macros.h"

#define WAVE 512u        /* queries that are on their way at the same time, at most, */
#define KEYS_MOST ((size_t)1 << 18) /* and groups of centroids that are known for all of them */
#define APART_LEAST 8u    /* queries for which centroids are worth being gone through at once, */
#define APART_GROUPS 16u  /* or one for so many groups of those, since a single query looks at the near ones only; */
#define TOGETHER_LEAST 24u /* for which cells may be, */
#define PART_LEAST 8u      /* and are if each query wants one in so many: then it is the scan that it waits for, and others share it */
#define KEPT_FIRST 128u    /* groups of centroids near a query that are known, until more of them turn out to be wanted */
#define ALONE_PART 8u     /* of the queries of a wave, which tells that more groups should be known */
#define GROUPS_MOST 1024u /* of an index: where there are more, looking only into near regions is less work than all for many */

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

static kx_status reserve(struct kx_ivf_batch *batch, const struct kx_ivf *ivf, size_t count)
{
	const size_t padded = ivf->rotation.padded, groups = ivf->centroids.lanes.groups, kept = batch->kept;
	const struct {
		void *at;
		size_t bytes;
	} parts[] = {
		{&batch->ones, count * sizeof(*batch->ones)},
		{&batch->eighths, count * sizeof(*batch->eighths)},
		{&batch->codes, (count + KX_IVF_SOME) * padded},
		{&batch->luts, count * ivf->lead * 4},
		{&batch->rest, count * (padded - ivf->lead) * sizeof(float) + 1},
		{&batch->keys, count * kept * KX_IVF_LANES * sizeof(float)},
		{&batch->least, count * kept * sizeof(float)},
		{&batch->groups, count * kept * sizeof(uint32_t)},
		{&batch->near_keys, KX_IVF_NEAR * groups * KX_IVF_LANES * sizeof(float)},
		{&batch->near_least, KX_IVF_NEAR * groups * sizeof(float)},
		{&batch->rotated, KX_IVF_NEAR * padded * sizeof(float)},
		{&batch->numbers, (kept + 1) * KX_IVF_LANES * sizeof(uint64_t)},
		{&batch->sorting, 2 * count * sizeof(uint64_t)},
		{&batch->order, count * sizeof(uint32_t)},
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

/* --- Rounds --------------------------------------------------------------------------------------------------- */

/* Pairs as wishes, those of a cell behind one another: of batch->slots[i] up to batch->wanted[of it]. */
static void group_pairs(struct kx_ivf_batch *batch)
{
	size_t at = 0;

	batch->slot_count = 0;
	if (!batch->pair_count)
		return;
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

/* The nearest cell that was not looked into, for each that has found too few. */
static kx_status name_firsts(struct kx_ivf_batch *batch)
{
	kx_status status = KX_OK;

	batch->pair_count = 0;
	for (uint32_t i = 0; !status && i < batch->count; i++) {
		const struct kx_ivf_one *one = &batch->ones[batch->order[i]];

		if (!one->enough && one->best.count < one->best.k)
			status = kx_ivf_name_first(batch, batch->order[i]);
	}
	return status;
}

static kx_status name_all(struct kx_ivf_batch *batch)
{
	kx_status status = KX_OK;

	batch->pair_count = 0;
	for (uint32_t i = 0; !status && i < batch->count; i++)
		if (!batch->ones[batch->order[i]].enough)
			status = kx_ivf_name_next(batch, batch->order[i]);
	return status;
}

static kx_status run(struct kx_ivf_batch *batch)
{
	kx_status status;

	kx_ivf_batch_prepare(batch);
	kx_ivf_batch_order(batch);
	do {
		status = name_firsts(batch);
		if (!status)
			status = kx_ivf_look_first(batch, batch->pairs, batch->pair_count);
	} while (!status && batch->pair_count);
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

/* Whether centroids are gone through for a query and others at once. */
static bool goes_along(const struct kx_ivf_query *query)
{
	return !query->filter && query->k && query->recall > 0.0 && query->recall < 1.0;
}

static bool is_fit(const struct kx_ivf *ivf)
{
	return !ivf->unplaced && ivf->vectors && ivf->cell_count && ivf->centroids.lanes.groups <= GROUPS_MOST;
}

/* Whether cells are looked into for so many queries at once, too. */
static bool is_shared(const struct kx_ivf_batch *batch, size_t count)
{
	const struct kx_ivf *ivf = batch->ivf;

	return count >= TOGETHER_LEAST && ivf->recipe.metric == KX_METRIC_COSINE && !ivf->cold_count && ivf->entry_count &&
	       batch->cells * PART_LEAST >= (float)ivf->cell_count;
}

/* What is asked of many. */
struct asked {
	const struct kx_ivf *ivf;
	const struct kx_ivf_query *queries;
	size_t n;
	struct kx_ivf_scratch *scratch;
	struct kx_ivf_answer *answers;
	struct kx_error *error;
};

static kx_status ask_alone(const struct asked *asked, size_t i)
{
	struct kx_ivf_answer *answer = &asked->answers[i];

	return kx_ivf_search(asked->ivf, &asked->queries[i], asked->scratch, answer->hits, &answer->count, &answer->work,
			     asked->error);
}

/* For an index at a time. */
static void choose_wave(struct kx_ivf_batch *batch, const struct kx_ivf *ivf)
{
	const uint32_t groups = ivf->centroids.lanes.groups ? ivf->centroids.lanes.groups : 1;

	if (batch->ivf_id != ivf->id) {
		batch->want_kept = KEPT_FIRST;
		batch->cells = 0.0f;
	}
	batch->ivf_id = ivf->id;
	batch->kept = batch->want_kept && batch->want_kept < groups ? batch->want_kept : groups;
	batch->wave = KEYS_MOST / batch->kept < WAVE ? (uint32_t)(KEYS_MOST / batch->kept) : WAVE;
}

static kx_status batch_of(const struct asked *asked, struct kx_ivf_batch **ret)
{
	struct kx_ivf_batch *batch = asked->scratch->batch;

	if (!batch)
		batch = asked->scratch->batch = kx_fault("ann.scratch") ? NULL : calloc(1, sizeof(*batch));
	if (!batch)
		return KX_ENOMEM;
	batch->ivf = asked->ivf;
	batch->coming_count = 0;
	for (size_t i = 0; i < 2; i++) {
		batch->looks[i].count = 0;
		batch->looks[i].used = 0;
	}
	*ret = batch;
	return KX_OK;
}

static void add_one(struct kx_ivf_batch *batch, const struct kx_ivf_query *query, struct kx_ivf_answer *answer)
{
	const struct kx_ivf_one *before = batch->count ? &batch->ones[batch->count - 1] : NULL;
	struct kx_ivf_one *one = &batch->ones[batch->count++];

	*one = (struct kx_ivf_one){
		.query = query,
		.work = &answer->work,
		.best = {answer->hits, query->k, 0},
		.above = -INFINITY,
		.how = before && before->query->recall == query->recall ? before->how : kx_ivf_how_of(&batch->ivf->tuning, query->recall),
	};
	answer->work = (struct kx_ivf_work){0};
}

/* Queries from `from` on until so many go together; to where they were looked through. */
static size_t add_some(struct kx_ivf_batch *batch, const struct asked *asked, size_t from, size_t most)
{
	batch->count = 0;
	for (; from < asked->n && batch->count < most; from++)
		if (goes_along(&asked->queries[from]))
			add_one(batch, &asked->queries[from], &asked->answers[from]);
	return from;
}

static kx_status answer_all(struct kx_ivf_batch *batch, const struct asked *asked)
{
	uint32_t alone = 0;
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < batch->count; i++) {
		const struct kx_ivf_one *one = &batch->ones[i];
		const size_t at = (size_t)(one->query - asked->queries);

		asked->answers[at].count = one->best.count;
		alone += one->alone;
		if (one->alone)
			status = ask_alone(asked, at);
	}
	if (alone > batch->count / ALONE_PART)
		batch->want_kept *= 2;
	return status;
}

/* One after another, each with the keys of its centroids. */
static kx_status ask_apart(struct kx_ivf_batch *batch, const struct asked *asked)
{
	const struct kx_ivf *ivf = batch->ivf;
	const size_t padded = ivf->rotation.padded, groups = ivf->centroids.lanes.groups;
	kx_status status = KX_OK;

	for (uint32_t i = 0; i < batch->count; i++) {
		float *rotated = batch->rotated + i * padded;

		kx_ivf_rotate(&ivf->rotation, ivf->kernels, batch->ones[i].query->vector, rotated);
		batch->eighths[i] =
			kx_ivf_to_eighth(rotated, (uint32_t)padded, kx_ivf_norm_weight(ivf), batch->codes + i * padded);
	}
	kx_ivf_batch_near(batch, 0, batch->count);
	for (uint32_t i = 0; !status && i < batch->count; i++) {
		const struct kx_ivf_given given = {batch->rotated + i * padded, batch->near_keys + i * groups * KX_IVF_LANES,
						   batch->near_least + i * groups};
		const struct kx_ivf_query *query = batch->ones[i].query;

		status = kx_ivf_search_given(ivf, query, &given, asked->scratch, &asked->answers[query - asked->queries],
					     asked->error);
	}
	return status;
}

static void note_cells(struct kx_ivf_batch *batch)
{
	uint64_t cells = 0;

	for (uint32_t i = 0; i < batch->count; i++)
		cells += batch->ones[i].work->cells;
	batch->cells = (float)cells / (float)batch->count;
}

/* So many of the queries, together or apart. */
static kx_status ask_wave(struct kx_ivf_batch *batch, const struct asked *asked, size_t *from, size_t left)
{
	bool shared;
	size_t most;

	choose_wave(batch, asked->ivf);
	most = left < batch->wave ? left : batch->wave;
	shared = is_shared(batch, most);
	most = shared || most < KX_IVF_NEAR ? most : KX_IVF_NEAR;
	if (reserve(batch, asked->ivf, most))
		return kx_error_nomem(asked->error);
	*from = add_some(batch, asked, *from, most);
	if (!shared)
		return ask_apart(batch, asked);
	if (run(batch))
		return kx_error_nomem(asked->error);
	return answer_all(batch, asked);
}

static kx_status ask_along(const struct asked *asked, size_t left)
{
	struct kx_ivf_batch *batch;
	kx_status status = KX_OK;

	if (batch_of(asked, &batch))
		return kx_error_nomem(asked->error);
	for (size_t from = 0; !status && left; left -= batch->count) {
		batch->count = 0;
		status = ask_wave(batch, asked, &from, left);
		if (!status)
			note_cells(batch);
	}
	return status;
}

kx_status kx_ivf_search_many(const struct kx_ivf *ivf, const struct kx_ivf_query *queries, size_t n,
			     struct kx_ivf_scratch *scratch, struct kx_ivf_answer *ret, struct kx_error *error)
{
	const struct asked asked = {ivf, queries, n, scratch, ret, error};
	kx_status status = KX_OK;
	size_t along = 0;

	for (size_t i = 0; is_fit(ivf) && i < n; i++)
		along += goes_along(&queries[i]);
	if (along < APART_LEAST || (along < KX_IVF_NEAR && along * APART_GROUPS < ivf->centroids.lanes.groups))
		along = 0;
	if (along)
		status = ask_along(&asked, along);
	for (size_t i = 0; !status && i < n; i++)
		if (!along || !goes_along(&queries[i]))
			status = ask_alone(&asked, i);
	return status;
}
