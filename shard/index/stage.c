/* Changes on their way into a batch: which rows and cells they take, what the store is told. */
#include "shard/index/stage.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"

#define TOGETHER 128u /* vectors whose cells are looked for at once */

/* Keys of a set of changes, to find those that a later change makes void. */
struct seen {
	const struct kx_index_change *changes;
	uint32_t *slots; /* [mask + 1]: 1 + number of a change; 0: free */
	uint32_t mask;
};

static uint32_t hash_of(const struct kx_index_change *change)
{
	return kx_crc32c(change->space * 0x9e3779b9u, change->key, change->key_len) * 0x85ebca6bu;
}

static bool same_key(const struct kx_index_change *a, const struct kx_index_change *b)
{
	return a->space == b->space && a->key_len == b->key_len && memcmp(a->key, b->key, a->key_len) == 0;
}

/* False: it was there. */
static bool seen_add(struct seen *seen, uint32_t number)
{
	const struct kx_index_change *change = &seen->changes[number];
	uint32_t at = hash_of(change);

	for (at ^= at >> 15; seen->slots[at & seen->mask]; at++)
		if (same_key(change, &seen->changes[seen->slots[at & seen->mask] - 1]))
			return false;
	seen->slots[at & seen->mask] = number + 1;
	return true;
}

static kx_status mark_last(struct kx_index_staged *staged, const struct kx_index_change *changes)
{
	struct seen seen = {.changes = changes, .mask = 63};

	while (seen.mask < 2 * staged->count)
		seen.mask = 2 * seen.mask + 1;
	seen.slots = calloc((size_t)seen.mask + 1, sizeof(*seen.slots));
	if (!seen.slots)
		return KX_ENOMEM;
	for (size_t i = staged->count; i-- > 0;)
		staged->steps[i].counts = seen_add(&seen, (uint32_t)i);
	free(seen.slots);
	return KX_OK;
}

static kx_status check_change(struct kx_index *index, const struct kx_index_change *change, struct kx_error *error)
{
	struct kx_ispace *space;
	kx_status status = kx_ispace_get(index, change->space, &space, error);

	if (status)
		return status;
	if (!change->key_len || change->key_len > KX_INDEX_KEY_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "a key of %zu bytes; it can have 1 to %u",
				    change->key_len, KX_INDEX_KEY_MAX);
	if (change->attributes_len > KX_INDEX_ATTRIBUTES_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON, "%zu bytes of attributes; %u are the most",
				    change->attributes_len, KX_INDEX_ATTRIBUTES_MAX);
	return KX_OK;
}

static kx_status check_changes(struct kx_index *index, const struct kx_index_change *changes, size_t count,
			       struct kx_error *error)
{
	kx_status status = kx_ineed_writer(index, error);

	if (!status && count > KX_INDEX_CHANGES_MAX)
		status = kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON, "%zu changes at once; %u are the most", count,
				      KX_INDEX_CHANGES_MAX);
	for (size_t i = 0; !status && i < count; i++)
		status = check_change(index, &changes[i], error);
	return status;
}

void kx_istaged_free(struct kx_index_staged *staged)
{
	if (!staged)
		return;
	for (size_t i = 0; staged->steps && i < staged->count; i++)
		free(staged->steps[i].memory);
	for (size_t i = 0; i < staged->garbage_count; i++)
		free(staged->garbage[i]);
	free(staged->garbage);
	free(staged->steps);
	kx_buf_done(&staged->entries);
	kx_buf_done(&staged->halves);
	free(staged);
}

static void staged_cleanup(struct kx_index_staged **staged)
{
	kx_istaged_free(*staged);
}

static struct kx_index_staged *staged_new(const struct kx_index_change *changes, size_t count)
{
	struct kx_index_staged *staged = calloc(1, sizeof(*staged));

	if (!staged)
		return NULL;
	staged->entries.max = staged->halves.max = SIZE_MAX / 2;
	staged->steps = calloc(count ? count : 1, sizeof(*staged->steps));
	staged->garbage = calloc(count ? 2 * count : 1, sizeof(*staged->garbage));
	staged->count = staged->steps ? count : 0;
	for (size_t i = 0; i < staged->count; i++)
		staged->steps[i] = (struct kx_istep){
			.change = &changes[i],
			.old_row = KX_IVF_NO_ROW,
			.old_cell = KX_IVF_NO_CELL,
			.row = KX_IVF_NO_ROW,
			.cell = KX_IVF_NO_CELL,
		};
	if (!staged->steps || !staged->garbage || mark_last(staged, changes)) {
		kx_istaged_free(staged);
		return NULL;
	}
	return staged;
}

/* Row of a key as stored; KX_IVF_NO_ROW: none. */
static kx_status stored_row(struct kx_ispace *space, const struct kx_index_change *change, uint32_t *ret,
			    struct kx_error *error)
{
	uint8_t key[KX_IKEY_KEY_MAX];
	size_t len = kx_ikey_key(space->number, change->key, change->key_len, key);
	struct kx_buf value = {.max = 64};
	kx_status status = KX_ENOTFOUND;

	*ret = KX_IVF_NO_ROW;
	if (kx_imaybe_has(&space->maybe, change->key, change->key_len))
		status = kx_kv_get(space->index->options.kv, kx_ifamily(space->index, KX_INDEX_KEYS), key, len, &value,
				   error);
	if (!status && (value.len != 4 || kx_le32_get(value.data) >= atomic_load(&space->rows_bound)))
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "space %s: the row of a key is none",
				      space->record.name);
	if (!status)
		*ret = kx_le32_get(value.data);
	kx_buf_done(&value);
	return status == KX_ENOTFOUND ? KX_OK : status;
}

static kx_status find_old(struct kx_istep *step, struct kx_error *error)
{
	struct kx_ispace *space = step->space;
	struct kx_igen *gen = space->gen;
	kx_status status = stored_row(space, step->change, &step->old_row, error);

	if (status || step->old_row == KX_IVF_NO_ROW)
		return status;
	if (!gen->where[step->old_row])
		status = kx_igen_see_all(gen, error);
	if (status)
		return status;
	if (!gen->where[step->old_row]) {
		kx_log(KX_LOG_WARN, "space %s: row %u is in no cell", space->record.name, step->old_row);
		return KX_OK;
	}
	step->old_cell = gen->where[step->old_row] - 1;
	return kx_icell_warm(gen, step->old_cell, error);
}

static kx_status take_row(struct kx_ispace *space, uint32_t *ret, struct kx_error *error)
{
	uint32_t bound = atomic_load(&space->rows_bound);
	kx_status status;

	/* While a generation is made, vectors are read where they lie: none comes in the place of one that was freed. */
	if (space->free_rows.count && (!space->logging || bound == KX_INDEX_ROWS_MAX)) {
		*ret = space->free_rows.list[--space->free_rows.count];
		return KX_OK;
	}
	if (bound == KX_INDEX_ROWS_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_FATAL, "space %s: more than %u rows",
				    space->record.name, KX_INDEX_ROWS_MAX);
	status = kx_ivectors_reserve(&space->vectors, bound + 1, error);
	if (status)
		return status;
	/* So that giving it back can't fail. */
	if (kx_ids_reserve(&space->free_rows, bound + 1 - space->free_rows.count))
		return kx_error_nomem(error);
	atomic_store(&space->rows_bound, bound + 1);
	*ret = bound;
	return KX_OK;
}

/* Before anything is held: checks the vector, and keeps it as the store will. */
static kx_status keep_vector(struct kx_index *index, struct kx_index_staged *staged, struct kx_istep *step,
			     struct kx_error *error)
{
	const struct kx_index_change *change = step->change;
	float vector[KX_IVF_DIM_MAX];
	struct kx_ispace *space;
	kx_status status = kx_ispace_get(index, change->space, &space, error);

	if (!status)
		status = kx_ivector_check(space, change->vector, change->dim, vector, error);
	if (status || !step->counts)
		return status;
	if (kx_buf_reserve(&staged->halves, change->dim * sizeof(uint16_t)))
		return kx_error_nomem(error);
	step->halves = staged->halves.len;
	kx_ifloats_to_halves(vector, change->dim, (uint16_t *)(void *)(staged->halves.data + staged->halves.len));
	staged->halves.len += change->dim * sizeof(uint16_t);
	return KX_OK;
}

static kx_status keep_vectors(struct kx_index *index, struct kx_index_staged *staged, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (size_t i = 0; !status && i < staged->count; i++)
		if (staged->steps[i].change->vector)
			status = keep_vector(index, staged, &staged->steps[i], error);
	return status;
}

static kx_status keep_key(struct kx_istep *step)
{
	const struct kx_index_change *change = step->change;

	step->memory = malloc(sizeof(*step->memory) + change->key_len);
	if (!step->memory)
		return KX_ENOMEM;
	step->memory->key_len = (uint32_t)change->key_len;
	memcpy(step->memory->key, change->key, change->key_len);
	return KX_OK;
}

static kx_status find_place(struct kx_index *index, struct kx_istep *step, struct kx_error *error)
{
	kx_status status = kx_ispace_get(index, step->change->space, &step->space, error);

	if (!status)
		status = kx_ibroken(step->space, error);
	if (!status)
		status = kx_ispace_begin(step->space, false, error);
	if (!status)
		status = find_old(step, error);
	if (!status)
		step->counts = step->change->vector || step->old_row != KX_IVF_NO_ROW;
	return status;
}

/* As it is kept, so that its code can be made again. */
static void kept_vector(const struct kx_index_staged *staged, const struct kx_istep *step, float *ret)
{
	kx_ihalves_to_floats((const uint16_t *)(const void *)(staged->halves.data + step->halves), step->change->dim, ret);
}

static bool is_put(const struct kx_istep *step)
{
	return step->counts && step->change->vector;
}

static kx_status encode(struct kx_index_staged *staged, struct kx_istep *step, const float *vector,
			struct kx_error *error)
{
	struct kx_ispace *space = step->space;
	kx_status status = kx_icell_warm(space->gen, step->cell, error);

	if (!status)
		status = take_row(space, &step->row, error);
	if (status)
		return status;
	if (keep_key(step))
		return kx_error_nomem(error);
	step->entry = staged->entries.len;
	if (kx_buf_reserve(&staged->entries, space->entry_bytes))
		return kx_error_nomem(error);
	status = kx_ivf_encode(space->gen->ivf, step->cell, step->row, vector, staged->entries.data + step->entry);
	staged->entries.len += space->entry_bytes;
	if (status)
		return kx_error_set(error, status, KX_ERROR_POISON, "space %s: the vector has no code",
				    space->record.name);
	status = kx_ivectors_write(&space->vectors, step->row, 1,
				   (const uint16_t *)(const void *)(staged->halves.data + step->halves), error);
	if (!status)
		kx_imaybe_add(&space->maybe, step->change->key, step->change->key_len);
	return status;
}

/* Steps of one space whose cells are looked for at once. */
struct together {
	struct kx_ispace *space;
	size_t steps[TOGETHER];
	size_t count;
	float *vectors; /* [TOGETHER][dim] */
};

static kx_status put_together(struct kx_index_staged *staged, struct together *together, struct kx_error *error)
{
	struct kx_ispace *space = together->space;
	uint32_t cells[TOGETHER];
	float distances[TOGETHER];
	kx_status status;

	if (!together->count)
		return KX_OK;
	status = kx_ivf_nearest_each(space->gen->ivf, together->vectors, together->count, cells, distances);
	if (status == KX_ENOMEM)
		return kx_error_nomem(error);
	if (status)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "space %s: a vector is near no cell",
				    space->record.name);
	for (size_t i = 0; !status && i < together->count; i++) {
		struct kx_istep *step = &staged->steps[together->steps[i]];

		step->cell = cells[i];
		step->distance2 = distances[i];
		status = encode(staged, step, together->vectors + i * space->record.recipe.dim, error);
	}
	together->count = 0;
	return status;
}

static kx_status put_all(struct kx_index_staged *staged, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) float *vectors = NULL;
	struct together together = {0};
	kx_status status = KX_OK;
	uint32_t most = 0;

	for (size_t i = 0; i < staged->count; i++)
		if (is_put(&staged->steps[i]) && staged->steps[i].change->dim > most)
			most = staged->steps[i].change->dim;
	if (!most)
		return KX_OK;
	vectors = malloc(TOGETHER * (size_t)most * sizeof(*vectors));
	if (!vectors)
		return kx_error_nomem(error);
	together.vectors = vectors;
	for (size_t i = 0; !status && i < staged->count; i++) {
		const struct kx_istep *step = &staged->steps[i];

		if (!is_put(step))
			continue;
		if (together.count == TOGETHER || together.space != step->space)
			status = put_together(staged, &together, error);
		together.space = step->space;
		kept_vector(staged, step, vectors + together.count * step->change->dim);
		together.steps[together.count++] = i;
	}
	return status ? status : put_together(staged, &together, error);
}

static kx_status stage_steps(struct kx_index *index, struct kx_index_staged *staged, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (size_t i = 0; !status && i < staged->count; i++)
		if (staged->steps[i].counts)
			status = find_place(index, &staged->steps[i], error);
	return status ? status : put_all(staged, error);
}

/* Gives back what no batch will take. */
static void unstage(struct kx_index_staged *staged)
{
	for (size_t i = 0; i < staged->count; i++) {
		struct kx_istep *step = &staged->steps[i];

		if (step->counts && step->row != KX_IVF_NO_ROW)
			step->space->free_rows.list[step->space->free_rows.count++] = step->row; /* room was made */
	}
}

/* --- Into the batch: nothing here fails ------------------------------------------------------------------------ */

static void emit_old(struct kx_index *index, const struct kx_istep *step, struct kx_kv_batch *batch)
{
	struct kx_ispace *space = step->space;
	struct kx_ikey row = kx_ikey_row(space->number, step->old_row);

	if (step->old_cell != KX_IVF_NO_CELL)
		kx_icell_put_delta(space->gen, step->old_cell, step->old_row, NULL, batch);
	kx_idelete(index, batch, KX_INDEX_VECTORS, row);
	kx_idelete(index, batch, KX_INDEX_ROWS, row);
}

static void emit_key(struct kx_index *index, const struct kx_istep *step, struct kx_kv_batch *batch)
{
	uint8_t key[KX_IKEY_KEY_MAX], row[4];
	size_t len = kx_ikey_key(step->space->number, step->change->key, step->change->key_len, key);

	kx_le32_put(row, step->row);
	if (step->row == KX_IVF_NO_ROW)
		kx_kv_batch_delete(batch, kx_ifamily(index, KX_INDEX_KEYS), key, len);
	else
		kx_kv_batch_put(batch, kx_ifamily(index, KX_INDEX_KEYS), key, len, row, sizeof(row));
}

static void emit_new(struct kx_index *index, const struct kx_index_staged *staged, const struct kx_istep *step,
		     struct kx_buf *record, struct kx_kv_batch *batch)
{
	struct kx_ispace *space = step->space;
	struct kx_ikey row = kx_ikey_row(space->number, step->row);
	const struct kx_row_view view = {step->change->key, step->change->key_len, step->change->attributes,
					 step->change->attributes_len};

	kx_buf_clear(record);
	(void)!kx_row_encode(&view, record); /* room was made */
	kx_icell_put_delta(space->gen, step->cell, step->row, staged->entries.data + step->entry, batch);
	kx_iput(index, batch, KX_INDEX_VECTORS, row, staged->halves.data + step->halves, space->vectors.stride);
	kx_iput(index, batch, KX_INDEX_ROWS, row, record->data, record->len);
}

static void emit_counts(struct kx_index *index, const struct kx_index_staged *staged, struct kx_kv_batch *batch)
{
	int64_t more[KX_INDEX_SPACES_MAX] = {0};
	bool touched[KX_INDEX_SPACES_MAX] = {0};

	for (size_t i = 0; i < staged->count; i++) {
		const struct kx_istep *step = &staged->steps[i];

		if (!step->counts)
			continue;
		touched[step->space->number] = true;
		more[step->space->number] += (step->row != KX_IVF_NO_ROW) - (step->old_row != KX_IVF_NO_ROW);
	}
	for (uint32_t i = 0; i < KX_INDEX_SPACES_MAX; i++)
		if (touched[i])
			kx_ispace_put_counts(index->spaces[i], batch, atomic_load(&index->spaces[i]->rows_bound),
					     atomic_load(&index->spaces[i]->rows) + (uint64_t)more[i]);
}

static void emit(struct kx_index *index, const struct kx_index_staged *staged, struct kx_buf *record,
		 struct kx_kv_batch *batch)
{
	for (size_t i = 0; i < staged->count; i++) {
		const struct kx_istep *step = &staged->steps[i];

		if (!step->counts)
			continue;
		if (step->old_row != KX_IVF_NO_ROW)
			emit_old(index, step, batch);
		emit_key(index, step, batch);
		if (step->row != KX_IVF_NO_ROW)
			emit_new(index, staged, step, record, batch);
	}
	emit_counts(index, staged, batch);
}

static bool has_damage(const struct kx_index *index, uint32_t *ret_space)
{
	for (uint32_t i = 0; i < atomic_load(&index->space_count); i++) {
		if (atomic_load(&index->spaces[i]->damaged)) {
			*ret_space = i;
			return true;
		}
	}
	return false;
}

static kx_status stage_once(struct kx_index *index, struct kx_kv_batch *batch, const struct kx_index_change *changes,
			    size_t count, struct kx_index_staged **ret, struct kx_error *error)
{
	KX_CLEANUP(staged_cleanup) struct kx_index_staged *staged = staged_new(changes, count);
	struct kx_buf record = {.max = SIZE_MAX / 2};
	kx_status status;

	if (!staged || kx_buf_reserve(&record, 16 + KX_INDEX_KEY_MAX + KX_INDEX_ATTRIBUTES_MAX)) {
		kx_buf_done(&record);
		return kx_error_nomem(error);
	}
	status = keep_vectors(index, staged, error);
	if (status) {
		kx_buf_done(&record);
		return status;
	}
	kx_iwriter_lock(index);
	status = stage_steps(index, staged, error);
	if (status) {
		unstage(staged);
		kx_iwriter_unlock(index);
	} else {
		emit(index, staged, &record, batch);
		*ret = KX_STEAL(staged);
	}
	kx_buf_done(&record);
	return status;
}

kx_status kx_index_stage(struct kx_index *index, struct kx_kv_batch *batch, const struct kx_index_change *changes,
			 size_t count, struct kx_index_staged **ret, struct kx_error *error)
{
	kx_status status = check_changes(index, changes, count, error);
	uint32_t damaged;

	if (!status)
		status = stage_once(index, batch, changes, count, ret, error);
	if (status == KX_ECORRUPT && has_damage(index, &damaged)) {
		status = kx_irepair(index->spaces[damaged], error);
		if (!status)
			status = stage_once(index, batch, changes, count, ret, error);
	}
	return status;
}

void kx_index_drop(struct kx_index *index, struct kx_index_staged *staged)
{
	unstage(staged);
	kx_iwriter_unlock(index);
	kx_istaged_free(staged);
}
