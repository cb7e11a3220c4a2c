/* Where the index has the moments of videos, into a snapshot and back. */
#include <stdlib.h>
#include <string.h>

#include "shard/query/kept.h"
#include "shard/query/moments_index_internal.h"

static void keep_space(const struct moments_space *space, uint32_t number, const struct kx_kept_order *order,
		       struct kx_snapshot_writer *writer)
{
	kx_snapshot_begin(writer, KX_KEPT_MOMENT_ROWS, number);
	for (uint32_t i = 0; i < space->cap; i++) {
		const uint32_t row = space->row_of[i] < order->old_count ? order->now[space->row_of[i]] : KX_ANN_NO_ROW;

		kx_snapshot_add(writer, &row, sizeof(row));
	}
	kx_snapshot_begin(writer, KX_KEPT_MOMENT_ALONE, number);
	kx_snapshot_add(writer, space->alone.words, space->cap / 64u * sizeof(uint64_t));
}

void kx_moments_keep(const struct kx_moments *moments, const struct kx_kept_order *order, struct kx_snapshot_writer *writer)
{
	uint64_t word = 0;

	if (!moments->settled)
		return;
	kx_snapshot_begin(writer, KX_KEPT_MOMENT_FACTS, 0);
	for (uint32_t i = 0; i < order->count; i++) {
		const struct moments_row *row = &moments->rows[order->order[i]];
		const struct kx_kept_moments kept = {row->moment_us, row->count};

		kx_snapshot_add(writer, &kept, sizeof(kept));
	}
	for (uint32_t i = 0; i < KX_INDEX_SPACES_MAX; i++)
		if (moments->spaces[i].cap)
			keep_space(&moments->spaces[i], i, order, writer);
	kx_snapshot_begin(writer, KX_KEPT_MOMENT_LOOSE, 0);
	for (uint32_t i = 0; i < order->count; i++) {
		word |= (uint64_t)kx_bitmap_has(&moments->loose, order->order[i]) << i % 64;
		if (i % 64 < 63 && i + 1 < order->count)
			continue;
		kx_snapshot_add(writer, &word, sizeof(word));
		word = 0;
	}
}

/* --- And back -------------------------------------------------------------------------------------------------- */

static kx_status restore_space(struct kx_moments *moments, uint32_t number, const struct kx_snapshot_section *section,
			       struct kx_snapshot *snapshot)
{
	struct moments_space *space = &moments->spaces[number];
	const uint64_t cap = section->len / sizeof(uint32_t);
	const uint32_t *rows = kx_kept_array(snapshot, KX_KEPT_MOMENT_ROWS, number, cap, sizeof(*rows));
	const uint64_t *alone = kx_kept_array(snapshot, KX_KEPT_MOMENT_ALONE, number, cap / 64, sizeof(*alone));

	if (!rows || !alone || cap % 64 || cap > UINT32_MAX)
		return KX_ECORRUPT;
	space->row_of = malloc(cap * sizeof(*rows));
	if (!space->row_of || kx_bitmap_reserve(&space->alone, (uint32_t)cap))
		return KX_ENOMEM;
	memcpy(space->row_of, rows, cap * sizeof(*rows));
	memcpy(space->alone.words, alone, cap / 64 * sizeof(*alone));
	space->cap = (uint32_t)cap;
	return KX_OK;
}

static kx_status restore_rows(struct kx_moments *moments, struct kx_snapshot *snapshot, uint32_t rows, uint32_t more)
{
	const struct kx_kept_moments *facts = kx_kept_array(snapshot, KX_KEPT_MOMENT_FACTS, 0, rows, sizeof(*facts));
	const uint64_t *loose = kx_kept_array(snapshot, KX_KEPT_MOMENT_LOOSE, 0, (rows + 63ull) / 64, sizeof(*loose));

	if (kx_snapshot_is_damaged(snapshot))
		return KX_ECORRUPT;
	moments->rows = calloc(rows + more + 1ull, sizeof(*moments->rows));
	if (!moments->rows || kx_bitmap_reserve(&moments->loose, rows + more))
		return KX_ENOMEM;
	moments->row_count = rows + more;
	for (uint32_t i = 0; i < rows; i++)
		moments->rows[i] =
			(struct moments_row){.present = true, .moment_us = facts[i].moment_us, .count = facts[i].count};
	if (rows)
		memcpy(moments->loose.words, loose, (rows + 63ull) / 64 * sizeof(*loose));
	return KX_OK;
}

kx_status kx_moments_restore(struct kx_moments *moments, struct kx_snapshot *snapshot, const struct kx_kept_head *head,
			     uint32_t more)
{
	kx_status status;

	if (!kx_snapshot_find(snapshot, KX_KEPT_MOMENT_FACTS, 0))
		return KX_ENOTFOUND;
	status = restore_rows(moments, snapshot, head->rows, more);
	for (uint32_t i = 0; !status && i < KX_INDEX_SPACES_MAX; i++) {
		const struct kx_snapshot_section *section = kx_snapshot_find(snapshot, KX_KEPT_MOMENT_ROWS, i);

		if (section && section->len)
			status = restore_space(moments, i, section, snapshot);
	}
	if (status == KX_ECORRUPT)
		kx_snapshot_spoil(snapshot);
	moments->settled = !status;
	return status;
}
