/* Filling an empty space at once. Until its end the record says `filling`: opening then empties the space. */
#include <stdlib.h>
#include <string.h>

#include "shard/ann/ivf_half.h"
#include "shard/index/internal.h"

#define ROWS_A_BATCH 1024u

struct filling {
	struct kx_ispace *space;
	const struct kx_index_build *build;
	uint32_t *slots; /* [mask + 1]: 1 + row, by hash of its key */
	uint32_t mask;
};

static const struct kx_irow *row_of(const struct filling *filling, uint32_t row)
{
	return atomic_load_explicit(&filling->space->keys[row], memory_order_relaxed);
}

/* False: the key was there. */
static bool add_key(struct filling *filling, uint32_t row)
{
	const struct kx_irow *key = row_of(filling, row);
	uint32_t at = kx_crc32c(0, key->key, key->key_len) * 0x85ebca6bu;

	for (at ^= at >> 15; filling->slots[at & filling->mask]; at++) {
		const struct kx_irow *other = row_of(filling, filling->slots[at & filling->mask] - 1);

		if (other->key_len == key->key_len && memcmp(other->key, key->key, key->key_len) == 0)
			return false;
	}
	filling->slots[at & filling->mask] = row + 1;
	return true;
}

static kx_status take_key(struct filling *filling, uint32_t row, const struct kx_index_change *change,
			  struct kx_error *error)
{
	struct kx_irow *memory;

	if (!change->key || !change->key_len || change->key_len > KX_INDEX_KEY_MAX ||
	    change->attributes_len > KX_INDEX_ATTRIBUTES_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "row %u: its key or its attributes are too long",
				    row);
	memory = malloc(sizeof(*memory) + change->key_len);
	if (!memory)
		return kx_error_nomem(error);
	memory->key_len = (uint32_t)change->key_len;
	memcpy(memory->key, change->key, change->key_len);
	atomic_store_explicit(&filling->space->keys[row], memory, memory_order_release);
	if (!add_key(filling, row))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "row %u: its key was there before", row);
	return KX_OK;
}

static kx_status put_row(struct filling *filling, uint32_t row, struct kx_kv_batch *batch, struct kx_buf *record,
			 struct kx_error *error)
{
	struct kx_ispace *space = filling->space;
	struct kx_index *index = space->index;
	const uint32_t dim = space->record.recipe.dim;
	struct kx_index_change change = {0};
	float vector[KX_IVF_DIM_MAX];
	uint16_t halves[KX_IVF_DIM_MAX];
	uint8_t key[KX_IKEY_KEY_MAX], number[4];
	kx_status status = kx_ivector_check(space, filling->build->vectors + (size_t)row * dim, dim, vector, error);

	if (status)
		return kx_error_prefix(error, status, "vector %u", row);
	filling->build->row(filling->build->row_ctx, row, &change);
	status = take_key(filling, row, &change, error);
	if (status)
		return status;
	for (uint32_t i = 0; i < dim; i++)
		halves[i] = kx_half_of_float(vector[i]);
	kx_ivectors_write(&space->vectors, row, halves);
	kx_buf_clear(record);
	if (kx_row_encode(&(struct kx_row_view){change.key, change.key_len, change.attributes, change.attributes_len},
			  record))
		return kx_error_nomem(error);
	kx_le32_put(number, row);
	kx_iput(index, batch, KX_INDEX_VECTORS, kx_ikey_row(space->number, row), halves, space->vectors.stride);
	kx_iput(index, batch, KX_INDEX_ROWS, kx_ikey_row(space->number, row), record->data, record->len);
	kx_kv_batch_put(batch, kx_ifamily(index, KX_INDEX_KEYS), key,
			kx_ikey_key(space->number, change.key, change.key_len, key), number, sizeof(number));
	return KX_OK;
}

static kx_status put_rows(struct filling *filling, struct kx_error *error)
{
	struct kx_kv *kv = filling->space->index->options.kv;
	const uint32_t count = (uint32_t)filling->build->count;
	struct kx_buf record = {.max = SIZE_MAX / 2};
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	kx_status status = kx_kv_batch_new(kv, &batch) ? kx_error_nomem(error) : KX_OK;

	for (uint32_t row = 0; !status && row < count; row++) {
		status = put_row(filling, row, batch, &record, error);
		if (!status && (row % ROWS_A_BATCH == ROWS_A_BATCH - 1 || row + 1 == count))
			status = kx_kv_write(kv, batch, false, error);
	}
	kx_buf_done(&record);
	return status;
}

static kx_status begin_filling(struct kx_ispace *space, struct kx_error *error)
{
	struct kx_space_record record = space->record;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;

	if (kx_kv_batch_new(space->index->options.kv, &batch))
		return kx_error_nomem(error);
	record.filling = true;
	kx_ispace_put_record(space, batch, &record);
	return kx_kv_write(space->index->options.kv, batch, true, error);
}

static kx_status fill_space(struct filling *filling, struct kx_error *error)
{
	struct kx_ispace *space = filling->space;
	const uint32_t count = (uint32_t)filling->build->count;
	kx_status status = kx_ispace_begin(space, false, error);

	if (!status)
		status = kx_ivectors_reserve(&space->vectors, count, error);
	filling->mask = 63;
	while (filling->mask / 2 < count)
		filling->mask = 2 * filling->mask + 1;
	filling->slots = calloc((size_t)filling->mask + 1, sizeof(*filling->slots));
	if (!status && !filling->slots)
		status = kx_error_nomem(error);
	if (!status)
		status = begin_filling(space, error);
	if (status)
		return status;
	space->free_rows.count = 0;
	atomic_store(&space->rows_bound, count);
	status = put_rows(filling, error);
	free(KX_STEAL(filling->slots));
	return status ? status : kx_itrain(space, true, error);
}

static kx_status check_build(struct kx_ispace *space, const struct kx_index_build *build, struct kx_error *error)
{
	kx_status status = kx_ineed_writer(space->index, error);

	if (!status)
		status = kx_ibroken(space, error);
	if (status)
		return status;
	if (!build->count || build->count > KX_INDEX_ROWS_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%zu vectors; it can be 1 to %u", build->count,
				    KX_INDEX_ROWS_MAX);
	if (atomic_load(&space->rows))
		return kx_error_set(error, KX_EEXIST, KX_ERROR_POISON, "space %s: it is not empty", space->record.name);
	return KX_OK;
}

kx_status kx_index_build(struct kx_index *index, const struct kx_index_build *build, struct kx_error *error)
{
	struct filling filling = {.build = build};
	kx_status status = kx_ispace_get(index, build->space, &filling.space, error);

	if (status)
		return status;
	pthread_mutex_lock(&index->care_lock);
	kx_iwriter_lock(index);
	status = check_build(filling.space, build, error);
	if (!status) {
		status = fill_space(&filling, error);
		if (status)
			(void)!kx_ispace_empty(filling.space, NULL); /* else opening does it */
		free(filling.slots);
	}
	kx_iwriter_unlock(index);
	pthread_mutex_unlock(&index->care_lock);
	return status;
}
