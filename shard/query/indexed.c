/* Rows: which spaces they have, where the index has them, which are loose. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "common/learn/learn.h"
#include "shard/query/indexed_internal.h"

void kx_indexed_space_name(enum kx_modality modality, const char *space, char ret[KX_INDEXED_NAME_MAX])
{
	snprintf(ret, KX_INDEXED_NAME_MAX, "%s:%s", kx_modality_name(modality), space);
}

uint8_t kx_indexed_find_space(const struct indexed *indexed, enum kx_modality modality, const char *space)
{
	for (uint32_t i = 0; i < indexed->space_count; i++)
		if (indexed->spaces[i].modality == modality && strcmp(indexed->spaces[i].name, space) == 0)
			return (uint8_t)i;
	return KX_INDEXED_NO_SPACE;
}

void kx_indexed_look_up(struct indexed *indexed, struct indexed_space *space)
{
	char name[KX_INDEXED_NAME_MAX];
	struct kx_index_space_info info;

	if (space->is_indexed)
		return;
	kx_indexed_space_name(space->modality, space->name, name);
	space->is_indexed = !kx_index_find_space(indexed->index, name, &space->number, NULL) &&
			    !kx_index_space_info(indexed->index, space->number, &info, NULL) && info.dim == space->dim;
}

static kx_status space_for(struct indexed *indexed, const struct kx_ann_vector *vector, uint8_t *ret,
			   struct kx_error *error)
{
	uint8_t number = kx_indexed_find_space(indexed, vector->modality, vector->space);
	struct indexed_space *space;

	if (number == KX_INDEXED_NO_SPACE) {
		if (indexed->space_count == KX_ANN_SPACES_MAX)
			return kx_error_set(error, KX_ETOOBIG, KX_ERROR_FATAL, "more than %d embedding spaces in one shard",
					    KX_ANN_SPACES_MAX);
		number = (uint8_t)indexed->space_count++;
		space = &indexed->spaces[number];
		*space = (struct indexed_space){.modality = vector->modality, .dim = vector->dim};
		snprintf(space->name, sizeof(space->name), "%s", vector->space);
	}
	space = &indexed->spaces[number];
	if (space->dim != vector->dim)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "space %s has %u dimensions, a vector came with %u",
				    space->name, space->dim, vector->dim);
	kx_indexed_look_up(indexed, space);
	*ret = number;
	return KX_OK;
}

static kx_status rows_reserve(struct indexed *indexed, uint32_t row)
{
	uint32_t count = indexed->row_count;
	struct indexed_row *rows;

	if (row < count)
		return KX_OK;
	count = row + 1 > count + count / 2 ? row + 64 : count + count / 2;
	rows = realloc(indexed->rows, count * sizeof(*rows));
	if (!rows)
		return KX_ENOMEM;
	indexed->rows = rows;
	for (uint32_t i = indexed->row_count; i < count; i++)
		for (int m = 0; m < KX_ANN_MODALITIES; m++) {
			rows[i].present = false;
			rows[i].space[m] = KX_INDEXED_NO_SPACE;
			rows[i].index_row[m] = KX_ANN_NO_ROW;
		}
	indexed->row_count = count;
	return kx_bitmap_reserve(&indexed->loose, count);
}

kx_status kx_indexed_set_row(struct indexed *indexed, uint32_t row, int m, uint32_t index_row)
{
	struct indexed_space *space = &indexed->spaces[indexed->rows[row].space[m]];

	if (index_row >= space->row_at_cap) {
		uint32_t cap = index_row + 64 + space->row_at_cap / 2;
		uint32_t *row_at = realloc(space->row_at, cap * sizeof(*row_at));

		if (!row_at)
			return KX_ENOMEM;
		for (uint32_t i = space->row_at_cap; i < cap; i++)
			row_at[i] = KX_ANN_NO_ROW;
		space->row_at = row_at;
		space->row_at_cap = cap;
	}
	space->row_at[index_row] = row;
	indexed->rows[row].index_row[m] = index_row;
	return KX_OK;
}

void kx_indexed_set_loose(struct indexed *indexed, uint32_t row)
{
	const struct indexed_row *at = &indexed->rows[row];
	bool loose = false;

	for (int m = 0; m < KX_ANN_MODALITIES; m++)
		loose = loose || (at->space[m] != KX_INDEXED_NO_SPACE && at->index_row[m] == KX_ANN_NO_ROW);
	kx_bitmap_set(&indexed->loose, row, at->present && loose);
}

void kx_indexed_expect(struct kx_ann *ann, uint32_t row)
{
	struct indexed *indexed = kx_indexed_of(ann);

	if (row < indexed->row_count && indexed->rows[row].present)
		kx_bitmap_set(&indexed->loose, row, true);
}

static void count_spaces(struct indexed *indexed, const struct indexed_row *row, uint32_t sign)
{
	if (indexed->partial)
		return;
	for (int m = 0; m < KX_ANN_MODALITIES; m++)
		if (row->space[m] != KX_INDEXED_NO_SPACE)
			indexed->spaces[row->space[m]].rows += sign;
	if (row->space[0] != KX_INDEXED_NO_SPACE && row->space[1] != KX_INDEXED_NO_SPACE)
		indexed->both[row->space[0]][row->space[1]] += sign;
	indexed->present += sign;
}

/* Before the row changes. */
static void note_change(struct indexed *indexed, uint32_t row)
{
	indexed->changes[indexed->version++ % KX_INDEXED_CHANGES] =
		(struct indexed_change){.row = row, .before = indexed->rows[row]};
}

static void indexed_remove(struct kx_ann *ann, uint32_t row)
{
	struct indexed *indexed = kx_indexed_of(ann);
	struct indexed_row *at = row < indexed->row_count ? &indexed->rows[row] : NULL;

	if (!at || !at->present)
		return;
	note_change(indexed, row);
	count_spaces(indexed, at, UINT32_MAX); /* one less */
	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		if (at->index_row[m] != KX_ANN_NO_ROW &&
		    indexed->spaces[at->space[m]].row_at[at->index_row[m]] == row)
			indexed->spaces[at->space[m]].row_at[at->index_row[m]] = KX_ANN_NO_ROW;
		at->space[m] = KX_INDEXED_NO_SPACE;
		at->index_row[m] = KX_ANN_NO_ROW;
	}
	at->present = false;
	kx_bitmap_set(&indexed->loose, row, false);
	kx_indexed_cache_forget(indexed, row);
}

/* Where the index has the row's vector, if it is of the generation that the mirror knows. */
static kx_status find_in_index(struct indexed *indexed, uint32_t row, int m, struct kx_error *error)
{
	const struct indexed_space *space = &indexed->spaces[indexed->rows[row].space[m]];
	const struct mirror_row *video = indexed->mirror->rows[row];
	struct kx_buf generation = {.max = KX_INDEX_ATTRIBUTES_MAX};
	uint32_t index_row = KX_ANN_NO_ROW;
	kx_status status = KX_ENOTFOUND;

	if (space->is_indexed)
		status = kx_index_get(indexed->index, space->number, video->id, strlen(video->id), &index_row, NULL,
				      &generation, error);
	if (!status && generation.len == KX_INDEXED_GENERATION_BYTES && kx_be64_get(generation.data) == video->generation &&
	    kx_indexed_set_row(indexed, row, m, index_row))
		status = kx_error_nomem(error);
	kx_buf_done(&generation);
	return status == KX_ENOTFOUND ? KX_OK : status;
}

static kx_status indexed_put(struct kx_ann *ann, uint32_t row, const struct kx_ann_vector *vectors, size_t count,
			     struct kx_error *error)
{
	struct indexed *indexed = kx_indexed_of(ann);
	uint8_t spaces[KX_ANN_MODALITIES] = {KX_INDEXED_NO_SPACE, KX_INDEXED_NO_SPACE};
	kx_status status = KX_OK;

	if (count > KX_ANN_MODALITIES)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%zu vectors for one row", count);
	if (rows_reserve(indexed, row))
		return kx_error_nomem(error);
	for (size_t i = 0; !status && i < count; i++)
		status = space_for(indexed, &vectors[i], &spaces[vectors[i].modality - KX_VISUAL], error);
	if (status)
		return status;
	indexed_remove(ann, row);
	note_change(indexed, row);
	indexed->rows[row].present = true;
	memcpy(indexed->rows[row].space, spaces, sizeof(spaces));
	count_spaces(indexed, &indexed->rows[row], 1);
	for (int m = 0; !status && indexed->settled && m < KX_ANN_MODALITIES; m++)
		if (spaces[m] != KX_INDEXED_NO_SPACE)
			status = find_in_index(indexed, row, m, error);
	kx_indexed_set_loose(indexed, row);
	return status;
}

static double indexed_likeness(const struct kx_ann *ann, uint32_t a, uint32_t b, const double *weight)
{
	struct indexed *indexed = kx_indexed_of(ann);
	struct indexed_vectors one, two;
	double sum = 0.0, weights = 0.0;

	/* One that is being deleted is like nothing. */
	if (kx_indexed_vectors(indexed, a, true, &one, NULL) || kx_indexed_vectors(indexed, b, true, &two, NULL))
		return 0.0;
	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		if (one.space[m] == KX_INDEXED_NO_SPACE || one.space[m] != two.space[m])
			continue;
		sum += weight[m] * (double)kx_learn_dot(one.values[m], two.values[m], indexed->spaces[one.space[m]].dim);
		weights += weight[m];
	}
	return weights > 0.0 ? sum / weights : 0.0;
}

static void indexed_free(struct kx_ann *ann)
{
	struct indexed *indexed = kx_indexed_of(ann);

	kx_indexed_filters_done(indexed);
	kx_indexed_cache_done(&indexed->cache);
	for (uint32_t i = 0; i < indexed->space_count; i++)
		free(indexed->spaces[i].row_at);
	kx_bitmap_done(&indexed->loose);
	kx_buf_done(&indexed->missing);
	free(indexed->rows);
	pthread_mutex_destroy(&indexed->filter_lock);
	free(indexed);
}

/* --- Totals ---------------------------------------------------------------------------------------------------- */

static bool is_loose(const struct indexed_row *row)
{
	for (int m = 0; m < KX_ANN_MODALITIES; m++)
		if (row->space[m] != KX_INDEXED_NO_SPACE && row->index_row[m] == KX_ANN_NO_ROW)
			return true;
	return false;
}

void kx_indexed_totals(const struct kx_ann *ann, struct kx_totals *totals)
{
	const struct indexed *indexed = kx_indexed_of(ann);

	totals->space_count = indexed->space_count;
	for (uint32_t i = 0; i < indexed->space_count; i++) {
		const struct indexed_space *from = &indexed->spaces[i];

		totals->spaces[i] = (struct kx_totals_space){.modality = from->modality, .dim = from->dim, .rows = from->rows};
		memcpy(totals->spaces[i].name, from->name, sizeof(from->name));
		for (uint32_t j = 0; j < indexed->space_count; j++)
			totals->both[i][j] = indexed->both[i][j];
	}
	/* A row that is expected to change is in the bitmap, too. */
	for (size_t i = 0; i < kx_bitmap_words(&indexed->loose); i++)
		for (uint64_t word = indexed->loose.words[i]; word; word &= word - 1)
			totals->loose += is_loose(&indexed->rows[i * 64 + (size_t)__builtin_ctzll(word)]);
}

void kx_indexed_video_totals(const struct kx_ann *ann, uint32_t row, struct kx_totals_video *ret)
{
	const struct indexed_row *at = &kx_indexed_of(ann)->rows[row];

	for (int m = 0; m < KX_ANN_MODALITIES; m++)
		ret->space[m] = at->space[m] == KX_INDEXED_NO_SPACE ? KX_TOTALS_NO_SPACE : at->space[m];
	ret->loose = is_loose(at);
}

kx_status kx_indexed_preset(struct kx_ann *ann, const struct kx_totals *totals)
{
	struct indexed *indexed = kx_indexed_of(ann);

	indexed->partial = indexed->settled = true;
	indexed->present = (uint32_t)totals->videos;
	indexed->space_count = totals->space_count;
	for (uint32_t i = 0; i < totals->space_count; i++) {
		struct indexed_space *space = &indexed->spaces[i];

		*space = (struct indexed_space){.modality = totals->spaces[i].modality,
						.dim = totals->spaces[i].dim,
						.rows = (uint32_t)totals->spaces[i].rows};
		memcpy(space->name, totals->spaces[i].name, sizeof(space->name));
		for (uint32_t j = 0; j < totals->space_count; j++)
			indexed->both[i][j] = (uint32_t)totals->both[i][j];
		kx_indexed_look_up(indexed, space);
		if (space->rows && !space->is_indexed)
			return KX_EBUSY;
	}
	return KX_OK;
}

kx_status kx_indexed_missing(struct kx_ann *ann, struct kx_buf *out, bool *ret_all)
{
	struct indexed *indexed = kx_indexed_of(ann);
	kx_status status = kx_buf_append(out, indexed->missing.data, indexed->missing.len);

	*ret_all = indexed->needs_all || !indexed->missing.len;
	kx_buf_clear(&indexed->missing);
	indexed->needs_all = false;
	return status;
}

static const struct kx_ann_ops indexed_ops = {
	.put = indexed_put,
	.remove = indexed_remove,
	.search = kx_indexed_search,
	.likeness = indexed_likeness,
	.free = indexed_free,
};

kx_status kx_indexed_new(struct kx_mirror *mirror, struct kx_index *index, struct kx_store *store, struct kx_ann **ret)
{
	struct indexed *indexed = calloc(1, sizeof(*indexed));

	if (!indexed)
		return KX_ENOMEM;
	indexed->ann.ops = &indexed_ops;
	indexed->mirror = mirror;
	indexed->index = index;
	indexed->store = store;
	indexed->missing.max = SIZE_MAX / 2;
	if (kx_indexed_cache_init(&indexed->cache)) {
		free(indexed);
		return KX_ENOMEM;
	}
	if (pthread_mutex_init(&indexed->filter_lock, NULL)) {
		kx_indexed_cache_done(&indexed->cache);
		free(indexed);
		return KX_ENOMEM;
	}
	*ret = &indexed->ann;
	return KX_OK;
}
