/* Full vectors of rows, out of the video records, and those that were read lately. */
#include <stdlib.h>
#include <string.h>

#include "shard/query/indexed_internal.h"

kx_status kx_indexed_cache_init(struct indexed_cache *cache)
{
	cache->slots = calloc(KX_INDEXED_CACHE_SLOTS, sizeof(*cache->slots));
	if (!cache->slots)
		return KX_ENOMEM;
	if (!pthread_mutex_init(&cache->lock, NULL))
		return KX_OK;
	free(cache->slots);
	return KX_ENOMEM;
}

void kx_indexed_cache_done(struct indexed_cache *cache)
{
	for (uint32_t i = 0; i < KX_INDEXED_CACHE_SLOTS; i++)
		free(cache->slots[i].values);
	free(cache->slots);
	pthread_mutex_destroy(&cache->lock);
}

static struct indexed_cached *slot_of(struct indexed *indexed, uint32_t row)
{
	return &indexed->cache.slots[row % KX_INDEXED_CACHE_SLOTS];
}

void kx_indexed_cache_forget(struct indexed *indexed, uint32_t row)
{
	struct indexed_cached *slot = slot_of(indexed, row);

	pthread_mutex_lock(&indexed->cache.lock);
	if (slot->row == row) {
		free(slot->values);
		slot->values = NULL;
	}
	pthread_mutex_unlock(&indexed->cache.lock);
}

static bool recall_row(struct indexed *indexed, uint32_t row, struct indexed_vectors *ret)
{
	const struct indexed_cached *slot = slot_of(indexed, row);
	const float *from;
	bool found;

	pthread_mutex_lock(&indexed->cache.lock);
	from = slot->values;
	found = from && slot->row == row;
	for (int m = 0; found && m < KX_ANN_MODALITIES; m++) {
		uint32_t dim = slot->space[m] != KX_INDEXED_NO_SPACE ? indexed->spaces[slot->space[m]].dim : 0;

		ret->space[m] = slot->space[m];
		memcpy(ret->values[m], from, dim * sizeof(float));
		from += dim;
	}
	pthread_mutex_unlock(&indexed->cache.lock);
	return found;
}

/* Without memory it is not kept: it will be read again. */
static void keep_row(struct indexed *indexed, uint32_t row, const struct indexed_vectors *vectors)
{
	struct indexed_cached *slot = slot_of(indexed, row);
	size_t dims[KX_ANN_MODALITIES], all = 1;
	float *values, *to;

	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		dims[m] = vectors->space[m] != KX_INDEXED_NO_SPACE ? indexed->spaces[vectors->space[m]].dim : 0;
		all += dims[m];
	}
	values = to = malloc(all * sizeof(*values));
	if (!values)
		return;
	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		memcpy(to, vectors->values[m], dims[m] * sizeof(float));
		to += dims[m];
	}
	pthread_mutex_lock(&indexed->cache.lock);
	free(slot->values);
	slot->row = row;
	slot->values = values;
	memcpy(slot->space, vectors->space, sizeof(slot->space));
	pthread_mutex_unlock(&indexed->cache.lock);
}

static void take_modality(const struct indexed *indexed, const struct kx_modality_result *from,
			  struct indexed_vectors *ret)
{
	uint8_t space = kx_indexed_find_space(indexed, from->modality, from->space);
	int m = (int)from->modality - KX_VISUAL;
	bool zero = true;

	for (uint32_t i = 0; i < from->dim && zero; i++)
		zero = from->embedding[i] == 0.0f;
	/* A space that no row had when the mirror changed last is not known yet. */
	if (zero || space == KX_INDEXED_NO_SPACE || indexed->spaces[space].dim != from->dim)
		return;
	ret->space[m] = space;
	memcpy(ret->values[m], from->embedding, from->dim * sizeof(float));
}

kx_status kx_indexed_vectors(struct indexed *indexed, uint32_t row, bool keep, struct indexed_vectors *ret,
			     struct kx_error *error)
{
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	kx_status status;

	if (recall_row(indexed, row, ret))
		return KX_OK;
	memset(ret->space, KX_INDEXED_NO_SPACE, sizeof(ret->space));
	status = kx_store_video(indexed->store, indexed->mirror->rows[row]->id, &record, error);
	if (status)
		return status;
	for (uint32_t i = 0; i < record->result.modality_count; i++)
		take_modality(indexed, &record->result.modalities[i], ret);
	if (keep)
		keep_row(indexed, row, ret);
	return KX_OK;
}
