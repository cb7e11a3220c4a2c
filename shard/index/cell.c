/* Cells between the store and memory. */
#include <stdlib.h>
#include <string.h>

#include "shard/index/internal.h"

/* Which rows a cell's changes name, rising; and the entries among them. */
struct changes {
	struct kx_ids rows;
	struct kx_buf entries;
};

static void changes_done(struct changes *changes)
{
	kx_ids_done(&changes->rows);
	kx_buf_done(&changes->entries);
}

static kx_status add_change(struct changes *changes, const struct kx_kv_iter *iter, uint32_t entry_bytes,
			    struct kx_error *error)
{
	uint32_t space, generation, cell, row;
	size_t key_len, len;
	const void *key = kx_kv_iter_key(iter, &key_len);
	const void *value = kx_kv_iter_value(iter, &len);
	const uint8_t *entry;
	kx_status status;

	if (!kx_ikey_parse_delta(key, key_len, &space, &generation, &cell, &row))
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "a key among the changes is none");
	status = kx_delta_decode(key, key_len, value, len, entry_bytes, &entry, error);
	if (!status && entry && kx_entry_row(entry) != row)
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "a change of row %u is of another", row);
	if (status)
		return status;
	status = kx_ids_add(&changes->rows, row);
	if (!status && entry)
		status = kx_buf_append(&changes->entries, entry, entry_bytes);
	return status ? kx_error_nomem(error) : KX_OK;
}

static kx_status read_changes(struct kx_igen *gen, uint32_t cell, struct changes *changes, struct kx_error *error)
{
	struct kx_index *index = gen->space->index;
	struct kx_ikey prefix = kx_ikey_cell(gen->space->number, gen->number, cell);
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	kx_status status = KX_OK;

	changes->entries.max = KX_INDEX_VALUE_MAX;
	if (kx_kv_iter_new(index->options.kv, kx_ifamily(index, KX_INDEX_DELTA), prefix.bytes, prefix.len, &iter))
		return kx_error_nomem(error);
	for (; !status && kx_kv_iter_valid(iter); kx_kv_iter_next(iter))
		status = add_change(changes, iter, gen->space->entry_bytes, error);
	return status ? status : kx_kv_iter_error(iter, error);
}

static bool is_named(const struct kx_ids *rows, uint32_t row)
{
	uint32_t low = 0, high = rows->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (rows->list[middle] < row)
			low = middle + 1;
		else
			high = middle;
	}
	return low < rows->count && rows->list[low] == row;
}

static kx_status append_record(const struct kx_igen *gen, const struct kx_cell_view *view,
			       const struct changes *changes, struct kx_buf *out)
{
	const uint32_t entry_bytes = gen->space->entry_bytes;
	kx_status status = KX_OK;

	if (!changes->rows.count)
		return kx_buf_append(out, view->entries, (size_t)view->count * entry_bytes);
	for (uint32_t i = 0; !status && i < view->count; i++) {
		const uint8_t *entry = view->entries + (size_t)i * entry_bytes;

		if (!is_named(&changes->rows, kx_entry_row(entry)))
			status = kx_buf_append(out, entry, entry_bytes);
	}
	return status;
}

static kx_status read_record(struct kx_igen *gen, uint32_t cell, const struct changes *changes, struct kx_buf *out,
			     struct kx_error *error)
{
	struct kx_ikey key = kx_ikey_cell(gen->space->number, gen->number, cell);
	struct kx_buf value = {.max = KX_INDEX_VALUE_MAX};
	struct kx_cell_view view = {0};
	kx_status status = kx_iget(gen->space->index, KX_INDEX_CELLS, key, &value, error);

	if (!status)
		status = kx_cell_decode(key.bytes, key.len, value.data, value.len, gen->space->entry_bytes, &view, error);
	if (status == KX_ENOTFOUND) /* not folded yet */
		status = KX_OK;
	if (!status && view.count && append_record(gen, &view, changes, out))
		status = kx_error_nomem(error);
	if (!status && changes->entries.len && kx_buf_append(out, changes->entries.data, changes->entries.len))
		status = kx_error_nomem(error);
	kx_buf_done(&value);
	return status;
}

/* A row's vector from the store into the mapped file. */
static kx_status fetch_vector(struct kx_ispace *space, uint32_t row, struct kx_buf *value, struct kx_error *error)
{
	kx_status status;

	kx_buf_clear(value);
	status = kx_iget(space->index, KX_INDEX_VECTORS, kx_ikey_row(space->number, row), value, error);
	if (status == KX_ENOTFOUND || (!status && value->len != space->vectors.stride))
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "space %s: row %u has no vector",
				    space->record.name, row);
	return status ? status
		      : kx_ivectors_write(&space->vectors, row, 1, (const uint16_t *)(const void *)value->data, error);
}

/* See vectors.h for which rows need it. from: the first entry that is a change. */
static kx_status fetch_vectors(struct kx_ispace *space, const struct kx_buf *entries, size_t begin, size_t from,
			       struct kx_error *error)
{
	const enum kx_ivectors_state state = (enum kx_ivectors_state)atomic_load(&space->vectors.state);
	struct kx_buf value = {.max = KX_INDEX_VALUE_MAX};
	kx_status status = KX_OK;

	if (state == KX_IVECTORS_GOOD)
		return KX_OK;
	pthread_mutex_lock(&space->vectors.fill);
	for (size_t at = state == KX_IVECTORS_DIRTY ? from : begin; !status && at < entries->len;
	     at += space->entry_bytes) {
		uint32_t row = kx_entry_row(entries->data + at);

		if (!kx_ivectors_is_known(&space->vectors, row))
			status = fetch_vector(space, row, &value, error);
	}
	pthread_mutex_unlock(&space->vectors.fill);
	kx_buf_done(&value);
	return status;
}

static kx_status check_rows(struct kx_ispace *space, const struct kx_buf *entries, size_t begin, struct kx_error *error)
{
	const uint32_t rows = atomic_load(&space->vectors.rows);

	for (size_t at = begin; at < entries->len; at += space->entry_bytes)
		if (kx_entry_row(entries->data + at) >= rows)
			return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "space %s: row %u of a cell is none",
					    space->record.name, kx_entry_row(entries->data + at));
	return KX_OK;
}

kx_status kx_icell_read_codes(struct kx_igen *gen, uint32_t cell, struct kx_buf *out, size_t *ret_changed,
			      uint32_t *ret_changes, struct kx_error *error)
{
	struct changes changes = {0};
	size_t begin = out->len;
	kx_status status = read_changes(gen, cell, &changes, error); /* before the record: see internal.h */

	if (!status)
		status = read_record(gen, cell, &changes, out, error);
	if (!status)
		status = check_rows(gen->space, out, begin, error);
	*ret_changed = out->len - changes.entries.len;
	*ret_changes = changes.rows.count;
	changes_done(&changes);
	return status ? kx_error_prefix(error, status, "space %s, cell %u", gen->space->record.name, cell) : KX_OK;
}

kx_status kx_icell_read(struct kx_igen *gen, uint32_t cell, struct kx_buf *out, uint32_t *ret_changes,
			struct kx_error *error)
{
	uint32_t changes;
	size_t begin = out->len, changed;
	kx_status status = kx_icell_read_codes(gen, cell, out, &changed, &changes, error);

	if (!status)
		status = fetch_vectors(gen->space, out, begin, changed, error);
	if (!status && ret_changes)
		*ret_changes = changes;
	if (status == KX_ECORRUPT)
		atomic_store(&gen->space->damaged, true);
	return status;
}

kx_status kx_icell_load(void *ctx, uint32_t cell, struct kx_buf *out, struct kx_error *error)
{
	return kx_icell_read(ctx, cell, out, NULL, error);
}

bool kx_igen_has_room(const struct kx_igen *gen)
{
	uint64_t most = gen->space->index->options.memory_bytes;

	return !most || kx_ivf_hot_bytes(gen->ivf) < most;
}

static void note_rows(struct kx_igen *gen, uint32_t cell, const struct kx_buf *entries)
{
	if (gen->cells[cell].seen)
		return;
	for (size_t at = 0; at < entries->len; at += gen->space->entry_bytes)
		gen->where[kx_entry_row(entries->data + at)] = cell + 1;
	gen->cells[cell].rows = (uint32_t)(entries->len / gen->space->entry_bytes);
	gen->cells[cell].seen = true;
	gen->unseen--;
}

/* Into memory: its entries when it is to be warm, and where its rows are. */
static kx_status take(struct kx_igen *gen, uint32_t cell, const struct kx_buf *entries, bool warm,
		      struct kx_error *error)
{
	kx_status status = KX_OK;

	pthread_rwlock_wrlock(&gen->space->lock);
	if (warm)
		status = kx_ivf_cell_fill(gen->ivf, cell, entries->data, entries->len / gen->space->entry_bytes);
	if (!status)
		note_rows(gen, cell, entries);
	pthread_rwlock_unlock(&gen->space->lock);
	if (status)
		return kx_error_set(error, status, KX_ERROR_FATAL, "space %s, cell %u: %s", gen->space->record.name,
				    cell, kx_status_name(status));
	gen->cells[cell].hot = warm;
	return KX_OK;
}

kx_status kx_icell_see(struct kx_igen *gen, uint32_t cell, bool warm, struct kx_error *error)
{
	struct kx_icell *at = &gen->cells[cell];
	struct kx_buf entries = {.max = KX_INDEX_VALUE_MAX};
	uint32_t changes;
	kx_status status;

	if (!at->present || (at->seen && (!warm || at->hot)))
		return KX_OK;
	status = kx_icell_read(gen, cell, &entries, &changes, error);
	if (!status)
		status = take(gen, cell, &entries, warm, error);
	if (!status) {
		gen->changes += (uint64_t)changes - at->changes;
		at->changes = changes;
		kx_icell_look(gen, cell);
	}
	kx_buf_done(&entries);
	return status;
}

kx_status kx_icell_warm(struct kx_igen *gen, uint32_t cell, struct kx_error *error)
{
	return kx_icell_see(gen, cell, true, error);
}

kx_status kx_igen_see_all(struct kx_igen *gen, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (; !status && gen->unseen && gen->look < gen->bound; gen->look++)
		status = kx_icell_see(gen, gen->look, kx_igen_has_room(gen), error);
	if (status)
		gen->look = 0;
	return status;
}

void kx_icell_cool(struct kx_igen *gen, uint32_t cell)
{
	pthread_rwlock_wrlock(&gen->space->lock);
	kx_ivf_cell_cool(gen->ivf, cell);
	pthread_rwlock_unlock(&gen->space->lock);
	gen->cells[cell].hot = false;
}

static void unsee_all(struct kx_igen *gen)
{
	for (uint32_t cell = 0; cell < gen->bound; cell++) {
		struct kx_icell *at = &gen->cells[cell];

		if (!at->present)
			continue;
		kx_ivf_cell_cool(gen->ivf, cell);
		gen->unseen += at->seen;
		at->hot = at->seen = false;
	}
	gen->look = 0;
}

kx_status kx_ispace_give_up_vectors(struct kx_ispace *space, struct kx_error *error)
{
	kx_status status = KX_OK;

	kx_iwriter_lock(space->index);
	if (!kx_ivectors_hold(&space->vectors)) {
		pthread_rwlock_wrlock(&space->lock);
		status = kx_ivectors_give_up(&space->vectors, error);
		unsee_all(space->gen);
		atomic_store(&space->settled, false);
		if (status)
			space->broken = "reading of vectors";
		pthread_rwlock_unlock(&space->lock);
	}
	kx_iwriter_unlock(space->index);
	return status;
}

kx_status kx_icell_entries(struct kx_igen *gen, uint32_t cell, struct kx_buf *out, struct kx_error *error)
{
	if (!gen->cells[cell].hot)
		return kx_icell_read(gen, cell, out, NULL, error);
	return kx_ivf_cell_entries(gen->ivf, cell, out) ? kx_error_nomem(error) : KX_OK;
}

void kx_icell_look(struct kx_igen *gen, uint32_t cell)
{
	struct kx_icell *at = &gen->cells[cell];
	struct kx_plan_cell plan = {at->rows, at->changes, at->since};
	struct kx_ispace *space = gen->space;

	if (gen != space->gen || !at->present || at->due ||
	    kx_plan_cell(&space->index->limits, &plan, space->record.trained, gen->present) == KX_PLAN_NOTHING)
		return;
	if (kx_ids_add(&space->due, cell) == KX_OK) /* else when it changes next */
		at->due = true;
}

kx_status kx_icell_drop_changes(struct kx_igen *gen, uint32_t cell, struct kx_kv_batch *batch, struct kx_error *error)
{
	struct kx_index *index = gen->space->index;
	struct kx_ikey prefix = kx_ikey_cell(gen->space->number, gen->number, cell);
	const size_t family = kx_ifamily(index, KX_INDEX_DELTA);
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;

	if (!gen->cells[cell].changes && gen->cells[cell].seen)
		return KX_OK;
	if (kx_kv_iter_new(index->options.kv, family, prefix.bytes, prefix.len, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t len;
		const void *key = kx_kv_iter_key(iter, &len);

		kx_kv_batch_delete(batch, family, key, len);
	}
	return kx_kv_iter_error(iter, error);
}

kx_status kx_icell_encode_record(struct kx_igen *gen, uint32_t cell, const void *entries, uint32_t count,
				 struct kx_buf *out)
{
	struct kx_ikey key = kx_ikey_cell(gen->space->number, gen->number, cell);

	kx_buf_clear(out);
	return kx_cell_encode(key.bytes, key.len, entries, count, gen->space->entry_bytes, out);
}

void kx_icell_put_record(struct kx_igen *gen, uint32_t cell, struct kx_kv_batch *batch, const struct kx_buf *record)
{
	kx_iput(gen->space->index, batch, KX_INDEX_CELLS, kx_ikey_cell(gen->space->number, gen->number, cell),
		record->data, record->len);
}

void kx_icell_put_delta(struct kx_igen *gen, uint32_t cell, uint32_t row, const void *entry, struct kx_kv_batch *batch)
{
	struct kx_ikey key = kx_ikey_delta(gen->space->number, gen->number, cell, row);
	uint8_t bytes[KX_DELTA_MAX];
	size_t len = kx_delta_encode(key.bytes, key.len, entry, gen->space->entry_bytes, bytes);

	kx_iput(gen->space->index, batch, KX_INDEX_DELTA, key, bytes, len);
}
