/* What the index has to change when a video's moments do. */
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/str.h"
#include "common/learn/learn.h"
#include "shard/query/moments_changes.h"

#define COMMIT_AT_ONCE 4096u

void kx_moments_changes_done(struct kx_moments_changes *changes)
{
	for (size_t i = 0; i < changes->count; i++)
		free(changes->blocks[i]);
	free(changes->blocks);
	free(changes->list);
	*changes = (struct kx_moments_changes){0};
}

static kx_status changes_reserve(struct kx_moments_changes *changes)
{
	size_t cap = changes->cap ? changes->cap * 2 : 64;
	struct kx_index_change *list;
	void **blocks;

	if (changes->count < changes->cap)
		return KX_OK;
	list = realloc(changes->list, cap * sizeof(*list));
	if (!list)
		return KX_ENOMEM;
	changes->list = list;
	blocks = realloc(changes->blocks, cap * sizeof(*blocks));
	if (!blocks)
		return KX_ENOMEM;
	changes->blocks = blocks;
	changes->cap = cap;
	return KX_OK;
}

/* A change with room for a vector of dim, key and attributes, which the caller fills. NULL: no memory. */
static struct kx_index_change *add_change(struct kx_moments_changes *changes, uint32_t space, uint32_t dim, const void *key,
					  size_t key_len)
{
	const size_t vector = dim * sizeof(float);
	struct kx_index_change *change;
	uint8_t *block;

	if (changes_reserve(changes))
		return NULL;
	block = malloc(vector + KX_MOMENTS_ATTRIBUTES + key_len);
	if (!block)
		return NULL;
	memcpy(block + vector + KX_MOMENTS_ATTRIBUTES, key, key_len);
	change = &changes->list[changes->count];
	*change = (struct kx_index_change){
		.space = space, .key = block + vector + KX_MOMENTS_ATTRIBUTES, .key_len = key_len};
	if (dim) {
		change->vector = (const float *)(const void *)block;
		change->dim = dim;
		change->attributes = block + vector;
		change->attributes_len = KX_MOMENTS_ATTRIBUTES;
	}
	changes->blocks[changes->count++] = block;
	changes->bytes += vector;
	return change;
}

/* --- The moments of a record, as the store has them -------------------------------------------------------------- */

void kx_moment_items_done(struct kx_moment_items *items)
{
	for (size_t i = 0; i < items->count; i++)
		free(items->list[i].vector);
	free(items->list);
	*items = (struct kx_moment_items){0};
}

static kx_status items_reserve(struct kx_moment_items *items)
{
	size_t cap = items->cap ? items->cap * 2 : 32;
	struct kx_moment_item *list;

	if (items->count < items->cap)
		return KX_OK;
	list = realloc(items->list, cap * sizeof(*list));
	if (!list)
		return KX_ENOMEM;
	items->list = list;
	items->cap = cap;
	return KX_OK;
}

static kx_status take_item(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	struct kx_moment_items *items = ctx;
	float *vector = malloc(summary->dim * sizeof(*vector));
	struct kx_moment_item *item;

	if (!vector || items_reserve(items)) {
		free(vector);
		return kx_error_nomem(error);
	}
	kx_learn_dequantize_i8(summary->embedding, summary->dim, summary->scale, vector);
	if (kx_learn_normalize(vector, summary->dim) <= 0.0f) {
		free(vector);
		return KX_OK;
	}
	item = &items->list[items->count++];
	*item = (struct kx_moment_item){
		.modality = summary->modality, .number = summary->index, .dim = summary->dim, .vector = vector};
	memcpy(item->space, summary->space, sizeof(item->space));
	return KX_OK;
}

/* Both modalities stand in order, the picture first. */
static void pair_items(struct kx_moment_items *items)
{
	struct kx_moment_item *a = items->list, *end = a + items->count, *b = a;

	while (b < end && b->modality == KX_VISUAL)
		b++;
	for (struct kx_moment_item *middle = b; a < middle && b < end;) {
		a->paired = b->paired = a->number == b->number;
		if (a->paired)
			a++, b++;
		else if (a->number < b->number)
			a++;
		else
			b++;
	}
}

kx_status kx_moment_items_read(struct kx_store *store, const char *id, uint64_t generation,
			       struct kx_moment_items *ret, struct kx_error *error)
{
	kx_status status = kx_store_each_summary(store, id, generation, take_item, ret, error);

	pair_items(ret);
	return status;
}

/* --- What the index has of a video ------------------------------------------------------------------------------- */

struct held {
	uint32_t space;
	uint64_t generation;
	bool wanted;
	size_t key_len;
	uint8_t *key;
};

struct holding {
	struct kx_index *index;
	uint32_t space;
	struct held *list;
	size_t count, cap;
};

static void holding_done(struct holding *holding)
{
	for (size_t i = 0; i < holding->count; i++)
		free(holding->list[i].key);
	free(holding->list);
}

static uint64_t generation_of(struct kx_index *index, uint32_t space, const void *key, size_t key_len)
{
	struct kx_buf held = {.max = KX_INDEX_ATTRIBUTES_MAX};
	uint64_t generation = 0;

	if (!kx_index_get(index, space, key, key_len, NULL, NULL, &held, NULL) && held.len == KX_MOMENTS_ATTRIBUTES)
		generation = kx_be64_get(held.data);
	kx_buf_done(&held);
	return generation;
}

static kx_status hold(void *ctx, const void *key, size_t key_len, uint32_t row, struct kx_error *error)
{
	struct holding *holding = ctx;
	uint8_t *copy;

	(void)row;
	if (holding->count == holding->cap) {
		size_t cap = holding->cap ? holding->cap * 2 : 32;
		struct held *list = realloc(holding->list, cap * sizeof(*list));

		if (!list)
			return kx_error_nomem(error);
		holding->list = list;
		holding->cap = cap;
	}
	copy = malloc(key_len);
	if (!copy)
		return kx_error_nomem(error);
	memcpy(copy, key, key_len);
	holding->list[holding->count++] =
		(struct held){holding->space, generation_of(holding->index, holding->space, key, key_len), false, key_len, copy};
	return KX_OK;
}

/* By space, then key: the order that they are walked in. */
static kx_status find_held(struct kx_index *index, const char *id, struct holding *holding, struct kx_error *error)
{
	uint8_t prefix[KX_ID_MAX + 1];
	size_t len = kx_moment_prefix(id, prefix);
	kx_status status = KX_OK;

	holding->index = index;
	for (uint32_t i = 0; !status && i < kx_index_space_count(index); i++) {
		holding->space = i;
		if (kx_moments_are_in(index, i))
			status = kx_index_each_key(index, i, prefix, len, hold, holding, error);
	}
	return status;
}

static struct held *held_at(const struct holding *holding, uint32_t space, const uint8_t *key, size_t key_len)
{
	size_t low = 0, high = holding->count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		struct held *at = &holding->list[middle];
		/* A video's keys are all of one length. */
		int order = at->space != space ? (at->space < space ? -1 : 1)
					       : memcmp(at->key, key, at->key_len < key_len ? at->key_len : key_len);

		if (!order)
			return at;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* --- Changes ----------------------------------------------------------------------------------------------------- */

kx_status kx_moments_space_of(struct kx_index *index, const struct kx_moment_item *item, uint32_t *ret,
			      struct kx_error *error)
{
	char name[KX_MOMENTS_NAME_MAX];
	struct kx_error why = {0};
	kx_status status;

	*ret = KX_INDEX_SPACES_MAX;
	if (item->dim < KX_IVF_DIM_MIN || item->dim > KX_IVF_DIM_MAX)
		return KX_OK;
	kx_moments_space_name(item->modality, item->space, name);
	status = kx_index_space(index, name, item->dim, KX_METRIC_COSINE, ret, &why);
	if (status && status != KX_EINVAL && status != KX_ETOOBIG) {
		if (error)
			*error = why;
		return status;
	}
	if (!status)
		return KX_OK;
	kx_log(KX_LOG_WARN, "space %s can't be indexed: %s; its moments are read one by one", name, why.message);
	*ret = KX_INDEX_SPACES_MAX;
	return KX_OK;
}

kx_status kx_moments_change_item(struct kx_moments_changes *changes, uint32_t space, const struct kx_moment_item *item,
				 const uint8_t *key, size_t key_len, uint64_t generation)
{
	struct kx_index_change *change = add_change(changes, space, item->dim, key, key_len);
	uint8_t *attributes;

	if (!change)
		return KX_ENOMEM;
	memcpy((float *)(uintptr_t)change->vector, item->vector, item->dim * sizeof(float));
	attributes = (uint8_t *)(uintptr_t)change->attributes;
	kx_be64_put(attributes, generation);
	attributes[8] = item->paired ? KX_MOMENTS_FLAG_PAIRED : 0;
	return KX_OK;
}

static kx_status put_item(struct kx_index *index, const struct holding *holding, const struct kx_moment_item *item,
			  const struct kx_video_record *record, struct kx_moments_changes *changes,
			  struct kx_error *error)
{
	uint8_t key[KX_INDEX_KEY_MAX];
	size_t key_len = kx_moment_place_key(record->result.video_id, item->modality, item->number, key);
	struct held *held;
	uint32_t space;
	kx_status status = kx_moments_space_of(index, item, &space, error);

	if (status || space == KX_INDEX_SPACES_MAX || !key_len)
		return status;
	held = held_at(holding, space, key, key_len);
	if (held)
		held->wanted = true;
	if (held && held->generation == record->generation)
		return KX_OK;
	return kx_moments_change_item(changes, space, item, key, key_len, record->generation) ? kx_error_nomem(error)
											       : KX_OK;
}

static kx_status remove_unwanted(const struct holding *holding, struct kx_moments_changes *changes,
				 struct kx_error *error)
{
	for (size_t i = 0; i < holding->count; i++) {
		const struct held *held = &holding->list[i];

		if (!held->wanted && !add_change(changes, held->space, 0, held->key, held->key_len))
			return kx_error_nomem(error);
	}
	return KX_OK;
}

kx_status kx_moments_change_put(struct kx_index *index, struct kx_store *store, const struct kx_video_record *record,
				struct kx_moments_changes *changes, struct kx_error *error)
{
	const char *id = record->result.video_id;
	struct kx_moment_items items = {0};
	struct holding holding = {0};
	kx_status status = kx_moment_items_read(store, id, record->generation, &items, error);

	if (!status)
		status = find_held(index, id, &holding, error);
	for (size_t i = 0; !status && i < items.count; i++)
		status = put_item(index, &holding, &items.list[i], record, changes, error);
	if (!status)
		status = remove_unwanted(&holding, changes, error);
	holding_done(&holding);
	kx_moment_items_done(&items);
	return status;
}

kx_status kx_moments_change_remove(struct kx_index *index, const char *id, struct kx_moments_changes *changes,
				   struct kx_error *error)
{
	struct holding holding = {0};
	kx_status status = find_held(index, id, &holding, error);

	if (!status)
		status = remove_unwanted(&holding, changes, error);
	holding_done(&holding);
	return status;
}

kx_status kx_moments_change_drop(struct kx_moments_changes *changes, uint32_t space, const void *key, size_t key_len)
{
	return add_change(changes, space, 0, key, key_len) ? KX_OK : KX_ENOMEM;
}

kx_status kx_moments_commit(struct kx_index *index, struct kx_moments_changes *changes, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (size_t from = 0; !status && from < changes->count; from += COMMIT_AT_ONCE) {
		size_t count = changes->count - from;

		status = kx_index_commit(index, changes->list + from, count < COMMIT_AT_ONCE ? count : COMMIT_AT_ONCE, error);
	}
	kx_moments_changes_done(changes);
	return status;
}

/* --- Comparing --------------------------------------------------------------------------------------------------- */

static kx_status compare_item(struct kx_index *index, const struct kx_moment_item *item,
			      const struct kx_video_record *record, struct kx_moments_compared *ret,
			      struct kx_error *error)
{
	uint8_t key[KX_INDEX_KEY_MAX];
	size_t key_len = kx_moment_place_key(record->result.video_id, item->modality, item->number, key);
	float held[KX_IVF_DIM_MAX];
	double cosine;
	uint32_t space;
	kx_status status;

	if (!key_len || item->dim < KX_IVF_DIM_MIN || item->dim > KX_IVF_DIM_MAX)
		return KX_OK;
	if (!kx_moments_find_space(index, item->modality, item->space, item->dim, &space) ||
	    generation_of(index, space, key, key_len) != record->generation) {
		ret->missing++;
		return KX_OK;
	}
	status = kx_index_get(index, space, key, key_len, NULL, held, NULL, error);
	if (status)
		return status;
	(void)kx_learn_normalize(held, item->dim);
	cosine = (double)kx_learn_dot(held, item->vector, item->dim);
	ret->least_cosine = cosine < ret->least_cosine ? cosine : ret->least_cosine;
	ret->held++;
	return KX_OK;
}

kx_status kx_moments_compare(struct kx_index *index, struct kx_store *store, const struct kx_video_record *record,
			     struct kx_moments_compared *ret, struct kx_error *error)
{
	struct kx_moment_items items = {0};
	kx_status status = kx_moment_items_read(store, record->result.video_id, record->generation, &items, error);

	*ret = (struct kx_moments_compared){.least_cosine = 1.0};
	for (size_t i = 0; !status && i < items.count; i++)
		status = compare_item(index, &items.list[i], record, ret, error);
	kx_moment_items_done(&items);
	return status;
}
