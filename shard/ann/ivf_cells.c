/* Cells: the table of them, and what each holds. */
#include "shard/ann/ivf_impl.h"

#include <stdlib.h>

#include "common/base/fault.h"

struct kx_ivf_cell *kx_ivf_cell_of(const struct kx_ivf *ivf, uint32_t id)
{
	uint32_t slot = id < ivf->slot_of_len ? ivf->slot_of[id] : KX_IVF_NO_SLOT;

	return slot == KX_IVF_NO_SLOT ? NULL : &ivf->cells[slot];
}

/* Doubles an array until `need` fit. */
static kx_status grow(void **array, uint32_t *capacity, size_t item, uint32_t need)
{
	uint32_t next = *capacity ? *capacity : 64;
	void *bigger;

	while (next < need)
		next *= 2;
	if (next == *capacity)
		return KX_OK;
	bigger = kx_fault("ann.grow") ? NULL : realloc(*array, (size_t)next * item);
	if (!bigger)
		return KX_ENOMEM;
	memset((uint8_t *)bigger + (size_t)*capacity * item, 0xff, (size_t)(next - *capacity) * item);
	*array = bigger;
	*capacity = next;
	return KX_OK;
}

static void entries_free(struct kx_ivf *ivf, struct kx_ivf_cell *cell)
{
	ivf->cell_bytes -= cell->bytes;
	kx_ivf_pages_give(&ivf->pages, cell->place.blocks, cell->bytes);
	cell->place = (struct kx_ivf_place){0};
	cell->bytes = 0;
	cell->capacity = 0;
	cell->count = 0;
	cell->mul_sum = 0;
}

void kx_ivf_cells_done(struct kx_ivf *ivf)
{
	for (uint32_t i = 0; i < ivf->slot_count; i++) {
		if (ivf->cells[i].id == KX_IVF_NO_CELL)
			continue;
		entries_free(ivf, &ivf->cells[i]);
		free(ivf->cells[i].centroid);
	}
	kx_ivf_pages_done(&ivf->pages);
	free(ivf->cells);
	free(ivf->slot_of);
	free(ivf->present);
}

/* A slot that is free, behind the others when there is none between them. */
static kx_status take_slot(struct kx_ivf *ivf, uint32_t *ret)
{
	kx_status status;

	for (uint32_t i = 0; ivf->cell_count < ivf->slot_count && i < ivf->slot_count; i++) {
		if (ivf->cells[i].id == KX_IVF_NO_CELL) {
			*ret = i;
			return KX_OK;
		}
	}
	status = grow((void **)&ivf->cells, &ivf->slot_capacity, sizeof(*ivf->cells), ivf->slot_count + 1);
	if (status)
		return status;
	*ret = ivf->slot_count;
	return KX_OK;
}

kx_status kx_ivf_cell_add(struct kx_ivf *ivf, uint32_t cell, const float *centroid, bool cold)
{
	struct kx_ivf_cell made = {.id = cell, .cold = cold, .lane = KX_IVF_NO_LANE, .version = ++ivf->version};
	uint32_t slot;
	kx_status status;

	if (cell >= KX_IVF_CELL_MAX || kx_ivf_cell_of(ivf, cell) || (cold && !ivf->load))
		return KX_EINVAL;
	status = grow((void **)&ivf->slot_of, &ivf->slot_of_len, sizeof(*ivf->slot_of), cell + 1);
	if (!status)
		status = take_slot(ivf, &slot);
	if (status)
		return status;
	made.centroid = malloc(ivf->recipe.dim * sizeof(float));
	if (!made.centroid)
		return KX_ENOMEM;
	memcpy(made.centroid, centroid, ivf->recipe.dim * sizeof(float));
	for (uint32_t i = 0; i < ivf->recipe.dim; i++)
		made.norm2 += centroid[i] * centroid[i];
	ivf->cells[slot] = made;
	ivf->slot_of[cell] = slot;
	ivf->slot_count += slot == ivf->slot_count;
	ivf->cell_count++;
	ivf->cold_count += cold;
	ivf->unplaced++;
	return KX_OK;
}

static void forget_rows(struct kx_ivf *ivf, const struct kx_ivf_cell *cell)
{
	for (uint32_t i = 0; i < cell->count; i++)
		ivf->present[cell->place.rows[i] / 64] &= ~(UINT64_C(1) << cell->place.rows[i] % 64);
	ivf->entry_count -= cell->count;
}

void kx_ivf_cell_remove(struct kx_ivf *ivf, uint32_t id)
{
	struct kx_ivf_cell *cell = kx_ivf_cell_of(ivf, id);

	if (!cell)
		return;
	forget_rows(ivf, cell);
	entries_free(ivf, cell);
	free(cell->centroid);
	ivf->cold_count -= cell->cold;
	ivf->cell_count--;
	ivf->slot_of[id] = KX_IVF_NO_SLOT;
	if (cell->lane == KX_IVF_NO_LANE)
		ivf->unplaced--;
	else
		kx_ivf_centroids_remove(&ivf->centroids, cell->lane);
	*cell = (struct kx_ivf_cell){.id = KX_IVF_NO_CELL};
	ivf->version++;
}

uint32_t kx_ivf_cell_count(const struct kx_ivf *ivf)
{
	return ivf->cell_count;
}

/* Room for count entries, and `slack` more blocks. */
static kx_status entries_reserve(struct kx_ivf *ivf, struct kx_ivf_cell *cell, size_t count, size_t slack)
{
	const size_t each = kx_ivf_place_bytes(ivf, 1);
	size_t blocks = (count + KX_IVF_BLOCK - 1) / KX_IVF_BLOCK, bytes;
	struct kx_ivf_place place;
	uint8_t *memory;

	if (blocks <= cell->capacity)
		return KX_OK;
	bytes = kx_ivf_piece_bytes((blocks + slack) * each);
	blocks = bytes / each;
	if (blocks > UINT32_MAX / KX_IVF_BLOCK)
		return KX_ETOOBIG;
	memory = kx_ivf_pages_take(&ivf->pages, bytes);
	if (!memory)
		return KX_ENOMEM;
	memset(memory, 0, bytes);
	place = kx_ivf_place_at(ivf, memory, blocks);
	if (cell->count) {
		memcpy(place.blocks, cell->place.blocks, cell->capacity * kx_ivf_lead_block_bytes(ivf));
		memcpy(place.tails, cell->place.tails, cell->count * kx_ivf_tail_bytes(ivf));
		memcpy(place.rows, cell->place.rows, cell->count * sizeof(uint32_t));
	}
	kx_ivf_pages_give(&ivf->pages, cell->place.blocks, cell->bytes);
	ivf->cell_bytes += bytes - cell->bytes;
	cell->place = place;
	cell->bytes = bytes;
	cell->capacity = (uint32_t)blocks;
	return KX_OK;
}

/* The bitmap reaches every row of the entries. */
static kx_status present_reserve(struct kx_ivf *ivf, const uint8_t *entries, size_t count)
{
	const size_t entry_bytes = kx_ivf_entry_bytes(ivf);
	uint32_t most = 0;
	size_t words;
	uint64_t *bigger;

	for (size_t i = 0; i < count; i++) {
		uint32_t row = kx_ivf_entry_head(entries + i * entry_bytes).row;

		if (row >= KX_IVF_ROW_MAX)
			return KX_ETOOBIG;
		most = row > most ? row : most;
	}
	if (most / 64 < ivf->present_words)
		return KX_OK;
	words = most / 64 + 1u + ivf->present_words / 2;
	bigger = kx_fault("ann.grow") ? NULL : realloc(ivf->present, words * sizeof(*bigger));
	if (!bigger)
		return KX_ENOMEM;
	memset(bigger + ivf->present_words, 0, (words - ivf->present_words) * sizeof(*bigger));
	ivf->present = bigger;
	ivf->present_words = words;
	return KX_OK;
}

/* Behind what is there; there is room. */
static void entries_add(struct kx_ivf *ivf, struct kx_ivf_cell *cell, const uint8_t *entries, size_t count)
{
	uint32_t from = cell->count;

	kx_ivf_place_write(ivf, cell, &cell->place, from, entries, count);
	cell->count += (uint32_t)count;
	for (uint32_t i = from; i < cell->count; i++)
		ivf->present[cell->place.rows[i] / 64] |= UINT64_C(1) << cell->place.rows[i] % 64;
	for (size_t i = 0; i < count; i++)
		cell->mul_sum += (double)kx_ivf_entry_head(entries + i * kx_ivf_entry_bytes(ivf)).mul;
	ivf->entry_count += count;
	cell->version = ++ivf->version;
}

kx_status kx_ivf_append(struct kx_ivf *ivf, uint32_t id, const void *entries, size_t count)
{
	struct kx_ivf_cell *cell = kx_ivf_cell_of(ivf, id);
	kx_status status;

	if (!cell || cell->cold)
		return KX_EINVAL;
	status = present_reserve(ivf, entries, count);
	if (!status)
		status = entries_reserve(ivf, cell, cell->count + count, (cell->count + count) / (KX_IVF_BLOCK * 8));
	if (!status && count)
		entries_add(ivf, cell, entries, count);
	return status;
}

kx_status kx_ivf_cell_fill(struct kx_ivf *ivf, uint32_t id, const void *entries, size_t count)
{
	struct kx_ivf_cell *cell = kx_ivf_cell_of(ivf, id);
	struct kx_ivf_cell filled;
	kx_status status;

	if (!cell)
		return KX_EINVAL;
	filled = *cell;
	filled.count = filled.capacity = 0;
	filled.bytes = 0;
	filled.mul_sum = 0;
	filled.place = (struct kx_ivf_place){0};
	filled.cold = false;
	status = present_reserve(ivf, entries, count);
	if (!status)
		status = entries_reserve(ivf, &filled, count, 0);
	if (status)
		return status;
	forget_rows(ivf, cell);
	ivf->cold_count -= cell->cold;
	entries_free(ivf, cell);
	*cell = filled;
	if (count)
		entries_add(ivf, cell, entries, count);
	cell->version = ++ivf->version;
	return KX_OK;
}

void kx_ivf_cell_cool(struct kx_ivf *ivf, uint32_t id)
{
	struct kx_ivf_cell *cell = kx_ivf_cell_of(ivf, id);

	if (!cell || cell->cold)
		return;
	forget_rows(ivf, cell);
	entries_free(ivf, cell);
	cell->cold = true;
	ivf->cold_count++;
	cell->version = ++ivf->version;
}

bool kx_ivf_remove(struct kx_ivf *ivf, uint32_t id, uint32_t row)
{
	struct kx_ivf_cell *cell = kx_ivf_cell_of(ivf, id);
	uint8_t gone[sizeof(struct kx_ivf_entry_head) + KX_IVF_PADDED_MAX / 8];
	uint8_t last[sizeof(struct kx_ivf_entry_head) + KX_IVF_PADDED_MAX / 8];
	uint32_t at = 0;

	while (cell && at < cell->count && cell->place.rows[at] != row)
		at++;
	if (!cell || at == cell->count)
		return false;
	kx_ivf_place_read(ivf, &cell->place, at, gone);
	kx_ivf_place_read(ivf, &cell->place, cell->count - 1, last);
	cell->mul_sum -= (double)kx_ivf_entry_head(gone).mul;
	kx_ivf_place_write(ivf, cell, &cell->place, at, last, 1);
	cell->count--;
	ivf->entry_count--;
	ivf->present[row / 64] &= ~(UINT64_C(1) << row % 64);
	cell->version = ++ivf->version;
	return true;
}

kx_status kx_ivf_cell_entries(const struct kx_ivf *ivf, uint32_t id, struct kx_buf *out)
{
	const struct kx_ivf_cell *cell = kx_ivf_cell_of(ivf, id);
	const size_t entry_bytes = kx_ivf_entry_bytes(ivf);
	kx_status status;

	if (!cell || cell->cold)
		return KX_EINVAL;
	status = kx_buf_reserve(out, cell->count * entry_bytes);
	if (status)
		return status;
	for (uint32_t i = 0; i < cell->count; i++) {
		uint8_t entry[sizeof(struct kx_ivf_entry_head) + KX_IVF_PADDED_MAX / 8];

		kx_ivf_place_read(ivf, &cell->place, i, entry);
		status = kx_buf_append(out, entry, entry_bytes);
		if (status)
			return status;
	}
	return KX_OK;
}

const uint32_t *kx_ivf_cell_rows(const struct kx_ivf *ivf, uint32_t id, uint32_t *ret_count)
{
	const struct kx_ivf_cell *cell = kx_ivf_cell_of(ivf, id);

	*ret_count = cell ? cell->count : 0;
	return cell ? cell->place.rows : NULL;
}

const float *kx_ivf_cell_centroid(const struct kx_ivf *ivf, uint32_t id)
{
	const struct kx_ivf_cell *cell = kx_ivf_cell_of(ivf, id);

	return cell ? cell->centroid : NULL;
}
