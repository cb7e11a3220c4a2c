/* Filling an empty space at once. Until its end the record says `filling`: opening then empties the space. */
#include <stdlib.h>
#include <string.h>

#include "shard/index/internal.h"

struct filling {
	struct kx_ispace *space;
	const struct kx_index_build *build;
	struct kx_kv_bulk *vectors, *rows;
	struct kx_buf record;
	struct kx_buf halves; /* of rows from `written` on, to be written at once */
	uint32_t written;
	uint32_t count; /* that came */
};

/* To bring keys into order: most differ in their first bytes. */
struct ordered {
	uint64_t head;
	const struct kx_irow *key;
	uint32_t row;
};

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
	return KX_OK;
}

static kx_status write_vectors(struct filling *filling, uint32_t to, struct kx_error *error)
{
	kx_status status = kx_ivectors_write(&filling->space->vectors, filling->written, to - filling->written,
					     (const uint16_t *)(const void *)filling->halves.data, error);

	kx_buf_clear(&filling->halves);
	filling->written = to;
	return status;
}

static kx_status put_vector(struct filling *filling, uint32_t row, const struct kx_index_change *change,
			    struct kx_error *error)
{
	struct kx_ispace *space = filling->space;
	const uint32_t dim = space->record.recipe.dim;
	struct kx_ikey key = kx_ikey_row(space->number, row);
	float vector[KX_IVF_DIM_MAX];
	uint16_t halves[KX_IVF_DIM_MAX];
	kx_status status = kx_ivector_check(space, change->vector, change->dim, vector, error);

	if (status)
		return kx_error_prefix(error, status, "vector %u", row);
	kx_ifloats_to_halves(vector, dim, halves);
	if (kx_buf_append(&filling->halves, halves, space->vectors.stride))
		return kx_error_nomem(error);
	status = kx_kv_bulk_put(filling->vectors, key.bytes, key.len, halves, space->vectors.stride, error);
	if (!status && kx_ivectors_ends_page(&space->vectors, row))
		status = write_vectors(filling, row + 1, error);
	return status;
}

static kx_status next_row(struct filling *filling, uint32_t row, struct kx_index_change *ret, struct kx_error *error)
{
	const struct kx_index_build *build = filling->build;
	const uint32_t dim = filling->space->record.recipe.dim;

	if (build->next)
		return build->next(build->row_ctx, ret, error);
	build->row(build->row_ctx, row, ret);
	ret->vector = build->vectors + (size_t)row * dim;
	ret->dim = dim;
	return KX_OK;
}

static kx_status put_row(struct filling *filling, uint32_t row, const struct kx_index_change *change,
			 struct kx_error *error)
{
	struct kx_ikey key = kx_ikey_row(filling->space->number, row);
	kx_status status = put_vector(filling, row, change, error);

	if (!status)
		status = take_key(filling, row, change, error);
	if (status)
		return status;
	kx_buf_clear(&filling->record);
	if (kx_row_encode(&(struct kx_row_view){change->key, change->key_len, change->attributes, change->attributes_len},
			  &filling->record))
		return kx_error_nomem(error);
	return kx_kv_bulk_put(filling->rows, key.bytes, key.len, filling->record.data, filling->record.len, error);
}

static kx_status put_rows(struct filling *filling, struct kx_error *error)
{
	struct kx_index *index = filling->space->index;
	const uint32_t count = (uint32_t)filling->build->count;
	KX_CLEANUP(kx_kv_bulk_cleanup) struct kx_kv_bulk *vectors = NULL;
	KX_CLEANUP(kx_kv_bulk_cleanup) struct kx_kv_bulk *rows = NULL;
	kx_status status = kx_kv_bulk_new(index->options.kv, kx_ifamily(index, KX_INDEX_VECTORS), &vectors, error);

	if (!status)
		status = kx_kv_bulk_new(index->options.kv, kx_ifamily(index, KX_INDEX_ROWS), &rows, error);
	filling->vectors = vectors;
	filling->rows = rows;
	filling->record.max = filling->halves.max = SIZE_MAX / 2;
	while (!status && filling->count < count) {
		struct kx_index_change change = {0};

		status = next_row(filling, filling->count, &change, error);
		if (!status)
			status = put_row(filling, filling->count++, &change, error);
	}
	if (status == KX_ENOTFOUND && filling->count && filling->build->next)
		status = KX_OK;
	if (!status && filling->halves.len)
		status = write_vectors(filling, filling->count, error);
	kx_buf_done(&filling->record);
	kx_buf_done(&filling->halves);
	if (!status)
		status = kx_kv_bulk_finish(vectors, error);
	return status ? status : kx_kv_bulk_finish(rows, error);
}

static int compare(const void *a, const void *b)
{
	const struct ordered *one = a, *two = b;
	uint32_t len = one->key->key_len < two->key->key_len ? one->key->key_len : two->key->key_len;
	int order;

	if (one->head != two->head)
		return one->head < two->head ? -1 : 1;
	order = memcmp(one->key->key, two->key->key, len);
	if (order)
		return order;
	return (one->key->key_len > two->key->key_len) - (one->key->key_len < two->key->key_len);
}

static struct ordered *order_keys(const struct kx_ispace *space, uint32_t count)
{
	struct ordered *list = calloc(count, sizeof(*list));

	for (uint32_t row = 0; list && row < count; row++) {
		const struct kx_irow *key = atomic_load_explicit(&space->keys[row], memory_order_relaxed);

		list[row] = (struct ordered){.key = key, .row = row};
		for (uint32_t i = 0; i < key->key_len && i < 8; i++)
			list[row].head |= (uint64_t)key->key[i] << (56 - 8 * i);
	}
	if (list)
		qsort(list, count, sizeof(*list), compare);
	return list;
}

static kx_status put_keys(struct filling *filling, struct kx_error *error)
{
	struct kx_ispace *space = filling->space;
	struct kx_index *index = space->index;
	const uint32_t count = filling->count;
	KX_CLEANUP(kx_cleanup_free) struct ordered *list = order_keys(space, count);
	KX_CLEANUP(kx_kv_bulk_cleanup) struct kx_kv_bulk *keys = NULL;
	kx_status status = list ? KX_OK : kx_error_nomem(error);

	if (!status)
		status = kx_kv_bulk_new(index->options.kv, kx_ifamily(index, KX_INDEX_KEYS), &keys, error);
	for (uint32_t i = 0; !status && i < count; i++) {
		uint8_t key[KX_IKEY_KEY_MAX], row[4];
		size_t len = kx_ikey_key(space->number, list[i].key->key, list[i].key->key_len, key);

		kx_le32_put(row, list[i].row);
		if (i && compare(&list[i - 1], &list[i]) == 0)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "rows %u and %u have the same key",
					    list[i - 1].row, list[i].row);
		status = kx_kv_bulk_put(keys, key, len, row, sizeof(row), error);
	}
	return status ? status : kx_kv_bulk_finish(keys, error);
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
	if (!status)
		status = begin_filling(space, error);
	if (status)
		return status;
	space->free_rows.count = 0;
	kx_iforget_keys(space);
	kx_reserve_huge((void *)(uintptr_t)space->keys, count * sizeof(*space->keys));
	atomic_store(&space->rows_bound, count);
	status = put_rows(filling, error);
	if (!status)
		status = put_keys(filling, error);
	atomic_store(&space->rows_bound, status ? count : filling->count);
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
	}
	kx_iwriter_unlock(index);
	pthread_mutex_unlock(&index->care_lock);
	return status;
}
