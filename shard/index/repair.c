/* Cells whose bytes don't say what they should, from what else the store knows: the rows that are in no other cell are
 * theirs, and codes follow from vectors. */
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "shard/index/internal.h"

struct repair {
	struct kx_igen *gen;
	struct kx_ids bad;    /* cells */
	uint32_t bound;       /* of rows */
	uint8_t *found;       /* [bound]: in a good cell */
	struct kx_buf *entries; /* [bad.count] */
};

static void repair_done(struct repair *repair)
{
	for (uint32_t i = 0; repair->entries && i < repair->bad.count; i++)
		kx_buf_done(&repair->entries[i]);
	free(repair->entries);
	free(repair->found);
	kx_ids_done(&repair->bad);
}

static kx_status look_at_cell(struct repair *repair, uint32_t cell, struct kx_error *error)
{
	struct kx_buf entries = {.max = KX_INDEX_VALUE_MAX};
	uint32_t changes;
	size_t changed;
	kx_status status = kx_icell_read_codes(repair->gen, cell, &entries, &changed, &changes, error);

	for (size_t at = 0; !status && at < entries.len; at += repair->gen->space->entry_bytes)
		if (kx_entry_row(entries.data + at) < repair->bound)
			repair->found[kx_entry_row(entries.data + at)] = 1;
	kx_buf_done(&entries);
	if (status != KX_ECORRUPT)
		return status;
	kx_log(KX_LOG_WARN, "%s; it is made again from vectors", error ? error->message : "a cell is damaged");
	return kx_ids_add(&repair->bad, cell) ? kx_error_nomem(error) : KX_OK;
}

static kx_status look_at_cells(struct repair *repair, struct kx_error *error)
{
	kx_status status = KX_OK;

	repair->bound = atomic_load(&repair->gen->space->rows_bound);
	repair->found = calloc((size_t)repair->bound + 1, 1);
	if (!repair->found)
		return kx_error_nomem(error);
	for (uint32_t cell = 0; !status && cell < repair->gen->bound; cell++)
		if (repair->gen->cells[cell].present)
			status = look_at_cell(repair, cell, error);
	if (status)
		return status;
	repair->entries = calloc((size_t)repair->bad.count + 1, sizeof(*repair->entries));
	return repair->entries ? KX_OK : kx_error_nomem(error);
}

/* Which of the bad cells a vector goes to. */
static uint32_t nearest_bad(const struct repair *repair, const float *vector)
{
	uint32_t best = 0;
	float least = 0;

	for (uint32_t i = 0; i < repair->bad.count; i++) {
		float distance = kx_idistance2(vector, kx_ivf_cell_centroid(repair->gen->ivf, repair->bad.list[i]),
					       repair->gen->space->record.recipe.dim);

		if (!i || distance < least) {
			least = distance;
			best = i;
		}
	}
	return best;
}

/* A row that only a change named may be lost in the file, and soon no change names it. */
static kx_status write_vector(struct kx_ispace *space, uint32_t row, const uint16_t *halves, struct kx_error *error)
{
	kx_status status = KX_OK;

	pthread_mutex_lock(&space->vectors.fill);
	if (atomic_load(&space->vectors.state) != KX_IVECTORS_GOOD && !kx_ivectors_is_known(&space->vectors, row))
		status = kx_ivectors_write(&space->vectors, row, 1, halves, error);
	pthread_mutex_unlock(&space->vectors.fill);
	return status;
}

static kx_status place_row(struct repair *repair, uint32_t row, struct kx_error *error)
{
	struct kx_ispace *space = repair->gen->space;
	struct kx_buf value = {.max = KX_INDEX_VALUE_MAX};
	float vector[KX_IVF_DIM_MAX];
	uint8_t entry[KX_DELTA_MAX];
	uint32_t bad;
	kx_status status = kx_iget(space->index, KX_INDEX_VECTORS, kx_ikey_row(space->number, row), &value, error);

	if (status == KX_ENOTFOUND || (!status && value.len != space->vectors.stride))
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "space %s: row %u has no vector",
				      space->record.name, row);
	if (!status)
		status = write_vector(space, row, (const uint16_t *)(const void *)value.data, error);
	if (!status) {
		kx_ihalves_to_floats((const uint16_t *)(const void *)value.data, space->record.recipe.dim, vector);
		bad = nearest_bad(repair, vector);
		repair->entries[bad].max = KX_INDEX_VALUE_MAX;
		status = kx_ivf_encode(repair->gen->ivf, repair->bad.list[bad], row, vector, entry);
		if (!status)
			status = kx_buf_append(&repair->entries[bad], entry, space->entry_bytes);
		if (status)
			status = kx_error_set(error, status, KX_ERROR_FATAL, "space %s: row %u has no code",
					      space->record.name, row);
	}
	kx_buf_done(&value);
	return status;
}

static kx_status place_rows(struct repair *repair, struct kx_error *error)
{
	struct kx_ispace *space = repair->gen->space;
	struct kx_index *index = space->index;
	struct kx_ikey prefix = kx_ikey_space(space->number);
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	kx_status status = KX_OK;

	if (kx_kv_iter_new(index->options.kv, kx_ifamily(index, KX_INDEX_ROWS), prefix.bytes, prefix.len, &iter))
		return kx_error_nomem(error);
	for (; !status && kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		uint32_t in, row;
		size_t len;
		const void *key = kx_kv_iter_key(iter, &len);

		if (!kx_ikey_parse_row(key, len, &in, &row) || row >= repair->bound)
			return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "a key among the rows is none");
		if (!repair->found[row])
			status = place_row(repair, row, error);
	}
	return status ? status : kx_kv_iter_error(iter, error);
}

static kx_status write_cells(struct repair *repair, struct kx_error *error)
{
	struct kx_igen *gen = repair->gen;
	struct kx_index *index = gen->space->index;
	struct kx_buf record = {.max = KX_INDEX_VALUE_MAX};
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	kx_status status = kx_kv_batch_new(index->options.kv, &batch) ? kx_error_nomem(error) : KX_OK;

	for (uint32_t i = 0; !status && i < repair->bad.count; i++) {
		uint32_t cell = repair->bad.list[i];
		struct kx_ikey from = kx_ikey_cell(gen->space->number, gen->number, cell);
		struct kx_ikey to = kx_ikey_cell(gen->space->number, gen->number, cell + 1);

		/* Whatever stands there: it may not even be readable. */
		kx_kv_batch_delete_range(batch, kx_ifamily(index, KX_INDEX_DELTA), from.bytes, from.len, to.bytes, to.len);
		if (kx_icell_encode_record(gen, cell, repair->entries[i].data,
					   (uint32_t)(repair->entries[i].len / gen->space->entry_bytes), &record))
			status = kx_error_nomem(error);
		else
			kx_icell_put_record(gen, cell, batch, &record);
	}
	if (!status)
		status = kx_ivectors_sync(&gen->space->vectors, error);
	if (!status)
		status = kx_kv_write(index->options.kv, batch, true, error);
	kx_buf_done(&record);
	return status;
}

/* They are read as after opening. */
static void forget_cells(struct repair *repair)
{
	struct kx_igen *gen = repair->gen;

	for (uint32_t i = 0; i < repair->bad.count; i++) {
		struct kx_icell *at = &gen->cells[repair->bad.list[i]];

		if (at->hot)
			kx_icell_cool(gen, repair->bad.list[i]);
		gen->unseen += at->seen;
		gen->changes -= at->changes;
		at->seen = false;
		at->changes = 0;
		gen->look = 0;
		pthread_rwlock_wrlock(&gen->space->lock);
		for (size_t entry = 0; entry < repair->entries[i].len; entry += gen->space->entry_bytes)
			gen->where[kx_entry_row(repair->entries[i].data + entry)] = 0;
		pthread_rwlock_unlock(&gen->space->lock);
	}
}

static kx_status repair_locked(struct kx_ispace *space, struct kx_error *error)
{
	struct repair repair = {.gen = space->gen};
	kx_status status = look_at_cells(&repair, error);

	if (!status && !repair.bad.count)
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL,
				      "space %s: its cells are good, and something they name is not; verify says what",
				      space->record.name);
	if (!status)
		status = place_rows(&repair, error);
	if (!status)
		status = write_cells(&repair, error);
	if (!status) {
		forget_cells(&repair);
		space->repairs += repair.bad.count;
		atomic_store(&space->damaged, false);
	}
	repair_done(&repair);
	return status;
}

kx_status kx_irepair(struct kx_ispace *space, struct kx_error *error)
{
	kx_status status = kx_ineed_writer(space->index, error);

	if (status)
		return status;
	kx_iwriter_lock(space->index);
	status = kx_ibroken(space, error);
	if (!status && atomic_load(&space->damaged)) {
		kx_iforget_keys(space); /* some are of rows that were in no cell */
		status = repair_locked(space, error);
	}
	kx_iwriter_unlock(space->index);
	return status;
}
