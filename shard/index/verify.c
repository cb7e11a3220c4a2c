/* Proves what the store holds, from nothing but what it holds; and copies of it. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shard/index/internal.h"

#define FACTOR_PART 1e-3f  /* factors of a code are equal to so much: they are sums of floats */

struct verify {
	struct kx_ispace *space;
	struct kx_igen *gen;
	struct kx_index_report *report;
	uint32_t bound;
	uint8_t *state; /* [bound]: of each row, which of these were seen */
	struct kx_buf value;
};

enum { HAS_KEY = 1, HAS_ROW = 2, HAS_VECTOR = 4, IN_CELL = 8 };

KX_PRINTF(2, 3) static void fault(struct verify *verify, const char *format, ...)
{
	struct kx_index_report *report = verify->report;
	va_list args;
	int len;

	if (report->faults++)
		return;
	len = snprintf(report->first, sizeof(report->first), "space %s: ", verify->space->record.name);
	va_start(args, format);
	(void)vsnprintf(report->first + len, sizeof(report->first) - (size_t)len, format, args);
	va_end(args);
}

/* Walks a family's keys of the space. */
typedef kx_status (*visit)(struct verify *verify, const void *key, size_t key_len, const void *value, size_t len,
			   struct kx_error *error);

static kx_status walk(struct verify *verify, enum kx_index_family family, visit look, struct kx_error *error)
{
	struct kx_index *index = verify->space->index;
	struct kx_ikey prefix = kx_ikey_space(verify->space->number);
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	kx_status status = KX_OK;

	if (kx_kv_iter_new(index->options.kv, kx_ifamily(index, family), prefix.bytes, prefix.len, &iter))
		return kx_error_nomem(error);
	for (; !status && kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t key_len, len;
		const void *key = kx_kv_iter_key(iter, &key_len);
		const void *value = kx_kv_iter_value(iter, &len);

		status = look(verify, key, key_len, value, len, error);
	}
	return status ? status : kx_kv_iter_error(iter, error);
}

static kx_status look_at_key(struct verify *verify, const void *key, size_t key_len, const void *value, size_t len,
			     struct kx_error *error)
{
	struct kx_row_view view;
	uint32_t row;
	kx_status status;

	if (len != 4 || kx_le32_get(value) >= verify->bound) {
		fault(verify, "the row of a key is none");
		return KX_OK;
	}
	row = kx_le32_get(value);
	if (verify->state[row] & HAS_KEY)
		fault(verify, "two keys have row %u", row);
	verify->state[row] |= HAS_KEY;
	kx_buf_clear(&verify->value);
	status = kx_iget(verify->space->index, KX_INDEX_ROWS, kx_ikey_row(verify->space->number, row), &verify->value,
			 error);
	if (!status)
		status = kx_row_decode(verify->value.data, verify->value.len, &view, error);
	if (status == KX_ENOTFOUND || status == KX_ECORRUPT)
		fault(verify, "row %u of a key is not there", row);
	else if (!status && (view.key_len != key_len - 2 || memcmp(view.key, (const uint8_t *)key + 2, view.key_len) != 0))
		fault(verify, "row %u has another key than the one that has it", row);
	return status == KX_ENOTFOUND || status == KX_ECORRUPT ? KX_OK : status;
}

static kx_status mark_row(struct verify *verify, const void *key, size_t key_len, int mark)
{
	uint32_t space, row;

	if (!kx_ikey_parse_row(key, key_len, &space, &row) || row >= verify->bound)
		fault(verify, "a key of a row is none");
	else
		verify->state[row] |= (uint8_t)mark;
	return KX_OK;
}

static kx_status look_at_row(struct verify *verify, const void *key, size_t key_len, const void *value, size_t len,
			     struct kx_error *error)
{
	(void)value;
	(void)len;
	(void)error;
	verify->report->rows++;
	return mark_row(verify, key, key_len, HAS_ROW);
}

static kx_status look_at_vector(struct verify *verify, const void *key, size_t key_len, const void *value, size_t len,
				struct kx_error *error)
{
	(void)value;
	(void)error;
	if (len != verify->space->vectors.stride)
		fault(verify, "a vector of %zu bytes", len);
	return mark_row(verify, key, key_len, HAS_VECTOR);
}

static bool same_entry(const void *a, const void *b, size_t bytes)
{
	float factors[2][2];

	memcpy(factors[0], (const uint8_t *)a + 4, 8);
	memcpy(factors[1], (const uint8_t *)b + 4, 8);
	for (int i = 0; i < 2; i++) {
		float size = fmaxf(fabsf(factors[0][i]), fabsf(factors[1][i]));

		if (fabsf(factors[0][i] - factors[1][i]) > FACTOR_PART * fmaxf(size, 1e-3f))
			return false;
	}
	return memcmp((const uint8_t *)a + KX_ENTRY_HEAD, (const uint8_t *)b + KX_ENTRY_HEAD, bytes - KX_ENTRY_HEAD) == 0;
}

static kx_status look_at_code(struct verify *verify, uint32_t cell, const uint8_t *entry, struct kx_error *error)
{
	struct kx_ispace *space = verify->space;
	const uint32_t row = kx_entry_row(entry);
	float vector[KX_IVF_DIM_MAX];
	uint8_t again[KX_DELTA_MAX];
	kx_status status;

	kx_buf_clear(&verify->value);
	status = kx_iget(space->index, KX_INDEX_VECTORS, kx_ikey_row(space->number, row), &verify->value, error);
	if (status == KX_ENOTFOUND || (!status && verify->value.len != space->vectors.stride))
		return KX_OK; /* told where vectors are looked at */
	if (status)
		return status;
	kx_ihalves_to_floats((const uint16_t *)(const void *)verify->value.data, space->record.recipe.dim, vector);
	if (kx_ivf_encode(verify->gen->ivf, cell, row, vector, again) || !same_entry(entry, again, space->entry_bytes))
		fault(verify, "the code of row %u in cell %u is not its vector's", row, cell);
	verify->report->codes_checked++;
	if (!atomic_load(&space->settled) || space->vectors.borrowed) /* a file that its writer may change now */
		return KX_OK;
	verify->report->file_rows_checked++;
	if (memcmp(kx_ivectors_row(&space->vectors, row), verify->value.data, space->vectors.stride) != 0)
		fault(verify, "row %u in the mapped file is another vector", row);
	return KX_OK;
}

static kx_status look_at_entries(struct verify *verify, uint32_t cell, const struct kx_buf *entries,
				 struct kx_error *error)
{
	kx_status status = KX_OK;

	for (size_t at = 0; !status && at < entries->len; at += verify->space->entry_bytes) {
		uint32_t row = kx_entry_row(entries->data + at);

		if (row >= verify->bound) {
			fault(verify, "row %u of cell %u is none", row, cell);
			continue;
		}
		if (verify->state[row] & IN_CELL)
			fault(verify, "row %u is in two cells, or twice in cell %u", row, cell);
		verify->state[row] |= IN_CELL;
		if (verify->gen->cells[cell].seen && verify->gen->where[row] != cell + 1)
			fault(verify, "row %u is in cell %u, and memory has it elsewhere", row, cell);
		status = look_at_code(verify, cell, entries->data + at, error);
	}
	return status;
}

static kx_status look_at_cell(struct verify *verify, uint32_t cell, struct kx_error *error)
{
	const struct kx_icell *at = &verify->gen->cells[cell];
	struct kx_buf entries = {.max = KX_INDEX_VALUE_MAX};
	struct kx_error why = {0};
	uint32_t changes;
	size_t changed;
	kx_status status = kx_icell_read_codes(verify->gen, cell, &entries, &changed, &changes, &why);

	if (!status)
		status = look_at_entries(verify, cell, &entries, error);
	else if (status != KX_ECORRUPT && error)
		*error = why;
	if (status == KX_ECORRUPT) {
		fault(verify, "%s", why.message);
		status = KX_OK;
	} else if (!status && at->seen &&
		   (at->rows != entries.len / verify->space->entry_bytes || at->changes < changes)) {
		fault(verify, "cell %u has %zu rows and %u changes; memory says %u and %u", cell,
		      entries.len / verify->space->entry_bytes, changes, at->rows, at->changes);
	}
	verify->report->cells++;
	verify->report->deltas += changes;
	kx_buf_done(&entries);
	return status;
}

static void look_at_owner(struct verify *verify, uint32_t generation, uint32_t cell, const char *what)
{
	const struct kx_igen *gen = verify->gen;

	if (generation != gen->number)
		fault(verify, "%s of generation %u is left", what, generation);
	else if (cell >= gen->bound || !gen->cells[cell].present)
		fault(verify, "%s of cell %u, which is none", what, cell);
}

static kx_status look_at_record(struct verify *verify, const void *key, size_t key_len, const void *value, size_t len,
				struct kx_error *error)
{
	uint32_t space, generation, cell;

	(void)value;
	(void)len;
	(void)error;
	if (kx_ikey_parse_cell(key, key_len, &space, &generation, &cell))
		look_at_owner(verify, generation, cell, "a record");
	else
		fault(verify, "a key of a cell is none");
	return KX_OK;
}

static kx_status look_at_delta(struct verify *verify, const void *key, size_t key_len, const void *value, size_t len,
			       struct kx_error *error)
{
	uint32_t space, generation, cell, row;

	(void)value;
	(void)len;
	(void)error;
	if (kx_ikey_parse_delta(key, key_len, &space, &generation, &cell, &row))
		look_at_owner(verify, generation, cell, "a change");
	else
		fault(verify, "a key of a change is none");
	return KX_OK;
}

static void look_at_rows(struct verify *verify, uint64_t before)
{
	uint64_t rows = verify->report->rows - before;

	for (uint32_t row = 0; row < verify->bound; row++) {
		uint8_t state = verify->state[row];

		if (state && state != (HAS_KEY | HAS_ROW | HAS_VECTOR | IN_CELL))
			fault(verify, "row %u:%s%s%s%s", row, state & HAS_KEY ? "" : " no key",
			      state & HAS_ROW ? "" : " no record", state & HAS_VECTOR ? "" : " no vector",
			      state & IN_CELL ? "" : " in no cell");
	}
	if (rows != atomic_load(&verify->space->rows))
		fault(verify, "%llu rows; the count says %llu", (unsigned long long)rows,
		      (unsigned long long)atomic_load(&verify->space->rows));
}

static kx_status verify_locked(struct verify *verify, struct kx_error *error)
{
	const uint64_t before = verify->report->rows;
	kx_status status = walk(verify, KX_INDEX_KEYS, look_at_key, error);

	if (!status)
		status = walk(verify, KX_INDEX_ROWS, look_at_row, error);
	if (!status)
		status = walk(verify, KX_INDEX_VECTORS, look_at_vector, error);
	if (!status)
		status = walk(verify, KX_INDEX_CELLS, look_at_record, error);
	if (!status)
		status = walk(verify, KX_INDEX_DELTA, look_at_delta, error);
	for (uint32_t cell = 0; !status && cell < verify->gen->bound; cell++)
		if (verify->gen->cells[cell].present)
			status = look_at_cell(verify, cell, error);
	if (!status)
		look_at_rows(verify, before);
	return status;
}

static kx_status verify_space(struct kx_ispace *space, struct kx_index_report *report, struct kx_error *error)
{
	struct verify verify = {.space = space, .report = report, .value = {.max = KX_INDEX_VALUE_MAX}};
	kx_status status;

	kx_iwriter_lock(space->index);
	verify.gen = space->gen;
	verify.bound = atomic_load(&space->rows_bound);
	verify.state = calloc((size_t)verify.bound + 1, 1);
	status = kx_ibroken(space, error);
	if (!status && space->sweep_due)
		status = kx_igen_sweep(space, space->gen->number, error);
	if (!status)
		status = verify.state ? verify_locked(&verify, error) : kx_error_nomem(error);
	kx_iwriter_unlock(space->index);
	free(verify.state);
	kx_buf_done(&verify.value);
	return status;
}

kx_status kx_index_verify(struct kx_index *index, struct kx_index_report *ret, struct kx_error *error)
{
	const uint32_t count = atomic_load(&index->space_count);
	struct kx_index_report report = {0};
	kx_status status = KX_OK;

	/* While new centroids are made, keys of two generations are there. */
	pthread_mutex_lock(&index->care_lock);
	for (uint32_t i = 0; !status && i < count; i++)
		status = verify_space(index->spaces[i], &report, error);
	pthread_mutex_unlock(&index->care_lock);
	if (!status)
		*ret = report;
	return status;
}

kx_status kx_index_tune(struct kx_index *index, uint32_t number, struct kx_error *error)
{
	struct kx_ispace *space;
	kx_status status = kx_ineed_writer(index, error);

	if (!status)
		status = kx_ispace_get(index, number, &space, error);
	return status ? status : kx_index_retrain(index, number, error);
}

kx_status kx_index_checkpoint(struct kx_index *index, const char *path, struct kx_error *error)
{
	const uint32_t count = atomic_load(&index->space_count);
	kx_status status = kx_ineed_writer(index, error);

	if (status)
		return status;
	kx_iwriter_lock(index);
	status = kx_kv_checkpoint(index->options.kv, path, error);
	/* So that this store's files are not taken for the copy's, should it come to stand in its place. */
	for (uint32_t i = 0; !status && i < count; i++)
		status = kx_ispace_begin(index->spaces[i], true, error);
	kx_iwriter_unlock(index);
	return status;
}
