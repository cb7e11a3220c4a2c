/* Cells that grew too large are split, those whose rows have others beside them now get the mean of them all as centroid, and
 * rows around that a new centroid is nearer to move there; cells that shrank are dissolved into those around (LIRE of SPFresh:
 * Xu et al., SOSP 2023; centroids that follow their rows are a step of k-means where data drifts). Each is one batch. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shard/index/internal.h"

#define ROUNDS 8u            /* of 2-means */
#define SIDE_LEAST 8u        /* a side has at least one part in so many */
#define NEIGHBOURS 32u       /* cells around each new centroid that are looked at */
#define MOVES_MOST 768u      /* after one split or refit */
#define MOVES_AT_ONCE 16u    /* under the space's lock: some microseconds */
#define SHIFT_LEAST 0.015    /* squared, of the rows' own from their mean: a centroid less far off stays */
#define NEARER 0.995f        /* of the squared distance it has, before a row moves */

/* --- Moves ---------------------------------------------------------------------------------------------------- */

kx_status kx_imoves_stage(struct kx_igen *gen, const struct kx_imove *moves, uint32_t count, struct kx_kv_batch *batch,
			  struct kx_buf *ret_entries, struct kx_error *error)
{
	struct kx_ispace *space = gen->space;
	float vector[KX_IVF_DIM_MAX];
	uint8_t entry[KX_DELTA_MAX];

	for (uint32_t i = 0; i < count; i++) {
		kx_status status;

		kx_ihalves_to_floats(kx_ivectors_row(&space->vectors, moves[i].row), space->record.recipe.dim, vector);
		status = kx_ivf_encode(gen->ivf, moves[i].to, moves[i].row, vector, entry);
		if (status)
			return kx_error_set(error, status, KX_ERROR_FATAL, "space %s: row %u has no code",
					    space->record.name, moves[i].row);
		if (kx_buf_append(ret_entries, entry, space->entry_bytes))
			return kx_error_nomem(error);
		kx_icell_put_delta(gen, moves[i].from, moves[i].row, NULL, batch);
		kx_icell_put_delta(gen, moves[i].to, moves[i].row, entry, batch);
	}
	return KX_OK;
}

static void apply_move(struct kx_igen *gen, const struct kx_imove *move, const void *entry)
{
	struct kx_icell *from = &gen->cells[move->from], *to = &gen->cells[move->to];

	if (from->present) { /* else it is being dissolved */
		(void)kx_ivf_remove(gen->ivf, move->from, move->row);
		from->rows--;
		from->changes++;
		from->since++;
		gen->changes++;
	}
	if (to->hot && kx_ivf_append(gen->ivf, move->to, entry, 1)) {
		kx_ivf_cell_cool(gen->ivf, move->to);
		to->hot = false;
	}
	to->rows++;
	to->changes++;
	to->since++;
	gen->changes++;
	gen->where[move->row] = move->to + 1;
}

void kx_imoves_apply(struct kx_igen *gen, const struct kx_imove *moves, uint32_t count, const uint8_t *entries)
{
	for (uint32_t i = 0; i < count; i++)
		apply_move(gen, &moves[i], entries + (size_t)i * gen->space->entry_bytes);
	gen->space->moved += count;
	gen->space->placed += count;
}

static void look_at_moved(struct kx_igen *gen, const struct kx_imove *moves, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		kx_icell_look(gen, moves[i].from);
		kx_icell_look(gen, moves[i].to);
	}
}

/* --- Split and refit -------------------------------------------------------------------------------------------- */

/* A cell in whose place others come: two, or one with another centroid. */
struct split {
	struct kx_igen *gen;
	uint32_t cell;
	int parts;
	uint32_t dim;
	uint32_t count;
	uint32_t *rows;   /* [count] */
	float *vectors;   /* [count][dim] */
	bool *right;      /* [count] which side each goes to */
	float *centroids[2];
	uint32_t ids[2];
	uint32_t sizes[2];
};

static void split_done(struct split *split)
{
	free(split->rows);
	free(split->vectors);
	free(split->right);
	free(split->centroids[0]);
	free(split->centroids[1]);
}

static kx_status split_take(struct split *split)
{
	struct kx_ispace *space = split->gen->space;
	const uint32_t *rows = kx_ivf_cell_rows(split->gen->ivf, split->cell, &split->count);

	split->rows = malloc(split->count * sizeof(*split->rows));
	split->vectors = malloc((size_t)split->count * split->dim * sizeof(float));
	split->right = calloc(split->count, sizeof(*split->right));
	split->centroids[0] = calloc(split->dim, sizeof(float));
	split->centroids[1] = calloc(split->dim, sizeof(float));
	if (!split->rows || !split->vectors || !split->right || !split->centroids[0] || !split->centroids[1])
		return KX_ENOMEM;
	memcpy(split->rows, rows, split->count * sizeof(*rows));
	for (uint32_t i = 0; i < split->count; i++)
		kx_ihalves_to_floats(kx_ivectors_row(&space->vectors, rows[i]), split->dim,
				     split->vectors + (size_t)i * split->dim);
	return KX_OK;
}

static const float *vector_of(const struct split *split, uint32_t i)
{
	return split->vectors + (size_t)i * split->dim;
}

static uint32_t farthest(const struct split *split, const float *from)
{
	uint32_t best = 0;
	float most = -1;

	for (uint32_t i = 0; i < split->count; i++) {
		float distance = kx_idistance2(vector_of(split, i), from, split->dim);

		if (distance > most) {
			most = distance;
			best = i;
		}
	}
	return best;
}

static void take_means(struct split *split)
{
	for (int side = 0; side < 2; side++) {
		memset(split->centroids[side], 0, split->dim * sizeof(float));
		split->sizes[side] = 0;
	}
	for (uint32_t i = 0; i < split->count; i++) {
		float *centroid = split->centroids[split->right[i]];

		split->sizes[split->right[i]]++;
		for (uint32_t j = 0; j < split->dim; j++)
			centroid[j] += vector_of(split, i)[j];
	}
	for (int side = 0; side < 2; side++)
		for (uint32_t j = 0; split->sizes[side] && j < split->dim; j++)
			split->centroids[side][j] /= (float)split->sizes[side];
}

static void take_sides(struct split *split)
{
	for (uint32_t i = 0; i < split->count; i++)
		split->right[i] = kx_idistance2(vector_of(split, i), split->centroids[1], split->dim) <
				  kx_idistance2(vector_of(split, i), split->centroids[0], split->dim);
}

/* Copies of one vector, or one far from all others: halves by number. Both centroids may then be the same. */
static void halve(struct split *split)
{
	for (uint32_t i = 0; i < split->count; i++)
		split->right[i] = i >= split->count / 2;
	take_means(split);
}

/* A centroid is worth writing a cell anew for. */
static bool has_shifted(const struct split *split)
{
	double own = 0, shift = (double)kx_idistance2(split->centroids[0], kx_ivf_cell_centroid(split->gen->ivf, split->cell),
						      split->dim);

	for (uint32_t i = 0; i < split->count; i++)
		own += (double)kx_idistance2(vector_of(split, i), split->centroids[0], split->dim);
	return shift * split->count > SHIFT_LEAST * own;
}

static void two_means(struct split *split)
{
	uint32_t one = farthest(split, kx_ivf_cell_centroid(split->gen->ivf, split->cell));
	uint32_t other = farthest(split, vector_of(split, one));
	uint32_t least = split->count / SIDE_LEAST;

	memcpy(split->centroids[0], vector_of(split, one), split->dim * sizeof(float));
	memcpy(split->centroids[1], vector_of(split, other), split->dim * sizeof(float));
	for (uint32_t i = 0; i < ROUNDS; i++) {
		take_sides(split);
		take_means(split);
	}
	if (split->sizes[0] < least || split->sizes[1] < least)
		halve(split);
}

static kx_status encode_side(struct split *split, struct kx_ivf *codes, int side, struct kx_buf *out)
{
	const uint32_t entry_bytes = split->gen->space->entry_bytes;
	uint8_t entry[KX_DELTA_MAX];
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < split->count; i++) {
		if (split->right[i] != (side == 1))
			continue;
		status = kx_ivf_encode(codes, (uint32_t)side, split->rows[i], vector_of(split, i), entry);
		if (!status)
			status = kx_buf_append(out, entry, entry_bytes);
	}
	return status;
}

/* An index of the two new cells alone, to make codes before the real one has them. */
static kx_status encode_sides(struct split *split, struct kx_buf sides[2], struct kx_error *error)
{
	struct kx_ivf_options options = {.recipe = split->gen->space->record.recipe};
	KX_CLEANUP(kx_ivf_cleanup) struct kx_ivf *codes = NULL;
	kx_status status = kx_ivf_new(&options, &codes, error);

	for (int side = 0; !status && side < split->parts; side++) {
		status = kx_ivf_cell_add(codes, (uint32_t)side, split->centroids[side], false);
		if (!status)
			status = encode_side(split, codes, side, &sides[side]);
		if (status)
			status = kx_error_set(error, status, KX_ERROR_FATAL, "space %s: cell %u can't be split: %s",
					      split->gen->space->record.name, split->cell, kx_status_name(status));
	}
	return status;
}

static kx_status write_split(struct split *split, const struct kx_buf sides[2], struct kx_error *error)
{
	struct kx_igen *gen = split->gen;
	struct kx_index *index = gen->space->index;
	const struct kx_icentroid changes[] = {
		{split->cell, NULL}, {split->ids[0], split->centroids[0]}, {split->ids[1], split->centroids[1]}};
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	struct kx_buf record = {.max = KX_INDEX_VALUE_MAX};
	kx_status status = KX_OK;

	if (kx_kv_batch_new(index->options.kv, &batch))
		return kx_error_nomem(error);
	status = kx_icell_drop_changes(gen, split->cell, batch, error);
	kx_idelete(index, batch, KX_INDEX_CELLS, kx_ikey_cell(gen->space->number, gen->number, split->cell));
	for (int side = 0; !status && side < 2 && side < split->parts; side++) {
		if (kx_icell_encode_record(gen, split->ids[side], sides[side].data, split->sizes[side], &record))
			status = kx_error_nomem(error);
		else
			kx_icell_put_record(gen, split->ids[side], batch, &record);
	}
	if (!status)
		status = kx_igen_put_centroids(gen, batch, changes, 1 + (size_t)split->parts, error);
	if (!status)
		status = kx_kv_write(index->options.kv, batch, false, error);
	kx_buf_done(&record);
	return status;
}

static kx_status swap_split(struct split *split, const struct kx_buf sides[2])
{
	struct kx_igen *gen = split->gen;
	kx_status status = KX_OK;

	pthread_rwlock_wrlock(&gen->space->lock);
	kx_igen_remove(gen, split->cell);
	for (int side = 0; !status && side < split->parts; side++) {
		status = kx_igen_add(gen, split->ids[side], split->centroids[side], false);
		if (!status)
			status = kx_ivf_cell_fill(gen->ivf, split->ids[side], sides[side].data, split->sizes[side]);
	}
	if (!status)
		status = kx_ivf_cells_ready(gen->ivf);
	if (status) {
		gen->space->broken = "split";
		pthread_rwlock_unlock(&gen->space->lock);
		return status;
	}
	for (uint32_t i = 0; i < split->count; i++)
		gen->where[split->rows[i]] = split->ids[split->right[i]] + 1;
	for (int side = 0; side < split->parts; side++)
		gen->cells[split->ids[side]].rows = split->sizes[side];
	pthread_rwlock_unlock(&gen->space->lock);
	return KX_OK;
}

/* --- Around a split ------------------------------------------------------------------------------------------- */

/* Rows of a neighbour that one of the new centroids is nearer to. */
static uint32_t moves_of(struct split *split, uint32_t neighbour, struct kx_imove *moves, uint32_t room)
{
	struct kx_igen *gen = split->gen;
	const float *centroid = kx_ivf_cell_centroid(gen->ivf, neighbour);
	uint32_t count = 0, found = 0;
	const uint32_t *rows = kx_ivf_cell_rows(gen->ivf, neighbour, &count);
	float vector[KX_IVF_DIM_MAX];

	for (uint32_t i = 0; i < count && found < room; i++) {
		float has, to[2] = {INFINITY, INFINITY};

		kx_ihalves_to_floats(kx_ivectors_row(&gen->space->vectors, rows[i]), split->dim, vector);
		has = kx_idistance2(vector, centroid, split->dim) * NEARER;
		for (int side = 0; side < split->parts; side++)
			to[side] = kx_idistance2(vector, split->centroids[side], split->dim);
		if (to[0] < has || to[1] < has)
			moves[found++] = (struct kx_imove){rows[i], neighbour, split->ids[to[1] < to[0]]};
	}
	return found;
}

/* Rows of the new cells that a neighbour is nearer to. */
static uint32_t moves_out(struct split *split, const uint32_t *around, uint32_t around_count, struct kx_imove *moves,
			  uint32_t room)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < split->count && found < room; i++) {
		uint32_t from = split->ids[split->right[i]], to = from;
		float best = kx_idistance2(vector_of(split, i), split->centroids[split->right[i]], split->dim) * NEARER;

		for (uint32_t j = 0; j < around_count; j++) {
			float distance = kx_idistance2(vector_of(split, i),
						       kx_ivf_cell_centroid(split->gen->ivf, around[j]), split->dim);

			if (distance < best) {
				best = distance;
				to = around[j];
			}
		}
		if (to != from)
			moves[found++] = (struct kx_imove){split->rows[i], from, to};
	}
	return found;
}

static kx_status write_moves(struct kx_igen *gen, const struct kx_imove *moves, uint32_t count, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	struct kx_buf entries = {.max = KX_INDEX_VALUE_MAX};
	kx_status status = kx_kv_batch_new(gen->space->index->options.kv, &batch) ? kx_error_nomem(error) : KX_OK;

	if (!status)
		status = kx_imoves_stage(gen, moves, count, batch, &entries, error);
	if (!status)
		status = kx_kv_write(gen->space->index->options.kv, batch, false, error);
	for (uint32_t from = 0; !status && from < count; from += MOVES_AT_ONCE) {
		const uint32_t some = count - from < MOVES_AT_ONCE ? count - from : MOVES_AT_ONCE;

		pthread_rwlock_wrlock(&gen->space->lock);
		kx_imoves_apply(gen, moves + from, some, entries.data + (size_t)from * gen->space->entry_bytes);
		pthread_rwlock_unlock(&gen->space->lock);
	}
	if (!status)
		look_at_moved(gen, moves, count);
	kx_buf_done(&entries);
	return status;
}

/* Cells near the new centroids, but for those themselves; how many. */
static uint32_t list_around(const struct split *split, uint32_t around[2 * (NEIGHBOURS + 2)])
{
	uint32_t count = 0;

	for (int side = 0; side < split->parts; side++) {
		uint32_t cells[NEIGHBOURS + 2], near;
		float distances[NEIGHBOURS + 2];

		near = (uint32_t)kx_ivf_nearest_cells(split->gen->ivf, split->centroids[side], NEIGHBOURS + 2, cells, distances);
		for (uint32_t i = 0; i < near; i++) {
			bool known = cells[i] == split->ids[0] || cells[i] == split->ids[1];

			for (uint32_t j = 0; j < count; j++)
				known = known || around[j] == cells[i];
			if (!known)
				around[count++] = cells[i];
		}
	}
	return count;
}

static kx_status move_around(struct split *split, struct kx_error *error)
{
	struct kx_igen *gen = split->gen;
	uint32_t around[2 * (NEIGHBOURS + 2)], count = list_around(split, around), found;
	struct kx_imove moves[MOVES_MOST];
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < count; i++)
		status = kx_icell_warm(gen, around[i], error);
	if (status)
		return status;
	found = moves_out(split, around, count, moves, MOVES_MOST / 2);
	for (uint32_t i = 0; i < count; i++)
		found += moves_of(split, around[i], moves + found, MOVES_MOST - found);
	return found ? write_moves(gen, moves, found, error) : KX_OK;
}

/* False: nothing has to be done. */
static bool divide(struct split *split)
{
	split->ids[0] = kx_igen_free_id(split->gen, KX_IVF_NO_CELL);
	split->ids[1] = KX_IVF_NO_CELL;
	if (split->parts == 1) {
		take_means(split);
		return has_shifted(split);
	}
	split->ids[1] = kx_igen_free_id(split->gen, split->ids[0]);
	two_means(split);
	return true;
}

static kx_status write_parts(struct split *split, struct kx_error *error)
{
	struct kx_ispace *space = split->gen->space;
	struct kx_buf sides[2] = {{.max = KX_INDEX_VALUE_MAX}, {.max = KX_INDEX_VALUE_MAX}};
	kx_status status = kx_ivectors_sync(&space->vectors, error);

	if (!status)
		status = encode_sides(split, sides, error);
	if (!status)
		status = write_split(split, sides, error);
	if (!status && swap_split(split, sides))
		status = kx_ibroken(space, error);
	kx_buf_done(&sides[0]);
	kx_buf_done(&sides[1]);
	return status;
}

static kx_status split_locked(struct split *split, struct kx_error *error)
{
	struct kx_ispace *space = split->gen->space;
	kx_status status = kx_icell_warm(split->gen, split->cell, error);

	if (!status && split_take(split))
		status = kx_error_nomem(error);
	if (status)
		return status;
	split->gen->cells[split->cell].since = 0;
	if (split->count < 2)
		return KX_OK;
	if (!divide(split)) {
		kx_icell_look(split->gen, split->cell);
		return KX_OK;
	}
	status = write_parts(split, error);
	if (status)
		return status;
	space->splits += split->parts == 2;
	space->refits += split->parts == 1;
	for (int side = 0; side < split->parts; side++)
		kx_icell_look(split->gen, split->ids[side]);
	return move_around(split, error);
}

static kx_status replace_cell(struct kx_ispace *space, uint32_t cell, int parts, struct kx_error *error)
{
	struct split split = {.cell = cell, .parts = parts, .dim = space->record.recipe.dim};
	kx_status status = kx_ivectors_sync(&space->vectors, error);

	if (status)
		return status;
	kx_iwriter_lock(space->index);
	split.gen = space->gen;
	status = kx_ibroken(space, error);
	if (!status && cell < split.gen->bound && split.gen->cells[cell].present)
		status = split_locked(&split, error);
	kx_iwriter_unlock(space->index);
	split_done(&split);
	return status;
}

kx_status kx_isplit(struct kx_ispace *space, uint32_t cell, struct kx_error *error)
{
	return replace_cell(space, cell, 2, error);
}

kx_status kx_irefit(struct kx_ispace *space, uint32_t cell, struct kx_error *error)
{
	return replace_cell(space, cell, 1, error);
}

/* --- Merge ---------------------------------------------------------------------------------------------------- */

/* Where each row of a cell goes when the cell is no more. */
static kx_status plan_merge(struct kx_igen *gen, uint32_t cell, struct kx_imove **ret, uint32_t *ret_count,
			    struct kx_error *error)
{
	float vector[KX_IVF_DIM_MAX], distances[2];
	uint32_t count, near[2];
	const uint32_t *rows = kx_ivf_cell_rows(gen->ivf, cell, &count);
	struct kx_imove *moves = calloc(count + 1, sizeof(*moves));
	kx_status status = moves ? KX_OK : kx_error_nomem(error);

	for (uint32_t i = 0; !status && i < count; i++) {
		kx_ihalves_to_floats(kx_ivectors_row(&gen->space->vectors, rows[i]), gen->space->record.recipe.dim,
				     vector);
		if (kx_ivf_nearest_cells(gen->ivf, vector, 2, near, distances) != 2)
			status = kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "space %s: row %u is near no cell",
					      gen->space->record.name, rows[i]);
		else
			moves[i] = (struct kx_imove){rows[i], cell, near[near[0] == cell]};
	}
	for (uint32_t i = 0; !status && i < count; i++)
		status = kx_icell_warm(gen, moves[i].to, error);
	if (status) {
		free(moves);
		return status;
	}
	*ret = moves;
	*ret_count = count;
	return KX_OK;
}

static kx_status merge_locked(struct kx_igen *gen, uint32_t cell, struct kx_error *error)
{
	struct kx_ispace *space = gen->space;
	const struct kx_icentroid gone = {cell, NULL};
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	KX_CLEANUP(kx_cleanup_free) struct kx_imove *moves = NULL;
	struct kx_buf entries = {.max = KX_INDEX_VALUE_MAX};
	uint32_t count = 0;
	kx_status status = kx_icell_warm(gen, cell, error);

	if (!status)
		status = plan_merge(gen, cell, &moves, &count, error);
	if (!status && kx_kv_batch_new(space->index->options.kv, &batch))
		status = kx_error_nomem(error);
	if (!status)
		status = kx_imoves_stage(gen, moves, count, batch, &entries, error);
	if (!status)
		status = kx_icell_drop_changes(gen, cell, batch, error);
	for (uint32_t i = 0; !status && i < count; i++) /* what staging the moves put there */
		kx_idelete(space->index, batch, KX_INDEX_DELTA,
			   kx_ikey_delta(space->number, gen->number, cell, moves[i].row));
	if (!status) {
		kx_idelete(space->index, batch, KX_INDEX_CELLS, kx_ikey_cell(space->number, gen->number, cell));
		status = kx_igen_put_centroids(gen, batch, &gone, 1, error);
	}
	if (!status)
		status = kx_kv_write(space->index->options.kv, batch, false, error);
	if (!status) {
		pthread_rwlock_wrlock(&space->lock);
		kx_igen_remove(gen, cell);
		kx_imoves_apply(gen, moves, count, entries.data);
		if (kx_ivf_cells_ready(gen->ivf)) {
			space->broken = "merge";
			status = KX_ENOMEM;
		}
		pthread_rwlock_unlock(&space->lock);
		space->merges++;
		look_at_moved(gen, moves, count);
	}
	kx_buf_done(&entries);
	return status == KX_ENOMEM && space->broken ? kx_ibroken(space, error) : status;
}

kx_status kx_imerge(struct kx_ispace *space, uint32_t cell, struct kx_error *error)
{
	struct kx_igen *gen;
	kx_status status = kx_ivectors_sync(&space->vectors, error);

	if (status)
		return status;
	kx_iwriter_lock(space->index);
	gen = space->gen;
	status = kx_ibroken(space, error);
	if (!status && gen->present > 1 && cell < gen->bound && gen->cells[cell].present)
		status = merge_locked(gen, cell, error);
	kx_iwriter_unlock(space->index);
	return status;
}
