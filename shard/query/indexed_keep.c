/* Where the index has the videos' vectors, into a snapshot and back. */
#include <stdlib.h>
#include <string.h>

#include "shard/query/indexed_internal.h"
#include "shard/query/kept.h"

void kx_indexed_keep(const struct kx_ann *ann, const struct kx_kept_order *order, struct kx_kept_head *head,
		     struct kx_snapshot_writer *writer)
{
	const struct indexed *indexed = kx_indexed_of(ann);

	head->spaces = indexed->space_count;
	kx_snapshot_begin(writer, KX_KEPT_SPACES, 0);
	for (uint32_t i = 0; i < indexed->space_count; i++) {
		struct kx_kept_space space = {.modality = (uint32_t)indexed->spaces[i].modality, .dim = indexed->spaces[i].dim};

		memcpy(space.name, indexed->spaces[i].name, sizeof(space.name));
		kx_snapshot_add(writer, &space, sizeof(space));
	}
	kx_snapshot_begin(writer, KX_KEPT_PLACES, 0);
	for (uint32_t i = 0; i < order->count; i++) {
		const struct indexed_row *row = &indexed->rows[order->order[i]];
		struct kx_kept_place place;

		for (int m = 0; m < KX_ANN_MODALITIES; m++) {
			place.index_row[m] = row->index_row[m];
			place.space[m] = row->space[m] == KX_INDEXED_NO_SPACE ? KX_KEPT_NO_SPACE : row->space[m];
		}
		kx_snapshot_add(writer, &place, sizeof(place));
	}
}

/* --- And back -------------------------------------------------------------------------------------------------- */

static kx_status restore_space(struct indexed *indexed, const struct kx_kept_space *from)
{
	struct indexed_space *space = &indexed->spaces[indexed->space_count];
	struct kx_index_space_info info;

	if ((from->modality != KX_VISUAL && from->modality != KX_AUDIO) || from->name[KX_SPACE_MAX - 1])
		return KX_ECORRUPT;
	*space = (struct indexed_space){.modality = (enum kx_modality)from->modality, .dim = from->dim};
	memcpy(space->name, from->name, sizeof(space->name));
	indexed->space_count++;
	kx_indexed_look_up(indexed, space);
	if (!space->is_indexed)
		return KX_OK; /* no row is in it, or places will say so */
	if (kx_index_space_info(indexed->index, space->number, &info, NULL))
		return KX_ECORRUPT;
	space->row_at = malloc((info.rows_bound + 1u) * sizeof(*space->row_at));
	if (!space->row_at)
		return KX_ENOMEM;
	memset(space->row_at, 0xff, (info.rows_bound + 1u) * sizeof(*space->row_at)); /* KX_ANN_NO_ROW */
	space->row_at_cap = info.rows_bound;
	return KX_OK;
}

/* Each row of the index is of one video at most, and no row is loose. */
static bool restore_row(struct indexed *indexed, uint32_t row, const struct kx_kept_place *place)
{
	struct indexed_row *to = &indexed->rows[row];

	*to = (struct indexed_row){.present = true};
	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		const uint32_t at = place->index_row[m];
		struct indexed_space *space;

		to->space[m] = KX_INDEXED_NO_SPACE;
		to->index_row[m] = KX_ANN_NO_ROW;
		if (place->space[m] == KX_KEPT_NO_SPACE)
			continue;
		if (place->space[m] >= indexed->space_count)
			return false;
		space = &indexed->spaces[place->space[m]];
		if ((int)space->modality - KX_VISUAL != m || at >= space->row_at_cap ||
		    space->row_at[at] != KX_ANN_NO_ROW)
			return false;
		to->space[m] = (uint8_t)place->space[m];
		to->index_row[m] = at;
		space->row_at[at] = row;
		space->rows++;
	}
	if (to->space[0] != KX_INDEXED_NO_SPACE && to->space[1] != KX_INDEXED_NO_SPACE)
		indexed->both[to->space[0]][to->space[1]]++;
	indexed->present++;
	return true;
}

static void clear_row(struct indexed_row *row)
{
	*row = (struct indexed_row){.present = false};
	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		row->space[m] = KX_INDEXED_NO_SPACE;
		row->index_row[m] = KX_ANN_NO_ROW;
	}
}

static kx_status restore_rows(struct indexed *indexed, const struct kx_kept_place *places, uint32_t rows, uint32_t more)
{
	indexed->rows = malloc((rows + more + 1ull) * sizeof(*indexed->rows));
	if (!indexed->rows || kx_bitmap_reserve(&indexed->loose, rows + more))
		return KX_ENOMEM;
	indexed->row_count = rows + more;
	for (uint32_t row = rows; row < rows + more; row++)
		clear_row(&indexed->rows[row]);
	for (uint32_t row = 0; row < rows; row++)
		if (!restore_row(indexed, row, &places[row]))
			return KX_ECORRUPT;
	indexed->settled = true;
	return KX_OK;
}

kx_status kx_indexed_restore(struct kx_ann *ann, struct kx_snapshot *snapshot, const struct kx_kept_head *head, uint32_t more)
{
	struct indexed *indexed = kx_indexed_of(ann);
	const struct kx_kept_space *spaces = kx_kept_array(snapshot, KX_KEPT_SPACES, 0, head->spaces, sizeof(*spaces));
	const struct kx_kept_place *places = kx_kept_array(snapshot, KX_KEPT_PLACES, 0, head->rows, sizeof(*places));
	kx_status status = KX_OK;

	if (kx_snapshot_is_damaged(snapshot) || head->spaces > KX_ANN_SPACES_MAX)
		status = KX_ECORRUPT;
	for (uint32_t i = 0; !status && i < head->spaces; i++)
		status = restore_space(indexed, &spaces[i]);
	if (!status)
		status = restore_rows(indexed, places, head->rows, more);
	if (status == KX_ECORRUPT)
		kx_snapshot_spoil(snapshot);
	return status;
}
