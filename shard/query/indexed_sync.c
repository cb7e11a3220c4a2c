/* What the index has to change when records do, and making the two agree when a shard opens. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/str.h"
#include "shard/query/indexed_internal.h"
#include "shard/query/moments_index.h"

#define SETTLE_AT_ONCE 512u /* videos in one write */
#define FILL_LEAST 2000u    /* rows; fewer are as fast one by one */
#define UNIT_WITHIN 1e-4    /* squared length from 1 */

void kx_indexed_changes_done(struct kx_indexed_changes *changes)
{
	free(changes->list);
	free(changes->generations);
	*changes = (struct kx_indexed_changes){0};
}

static kx_status changes_reserve(struct kx_indexed_changes *changes)
{
	size_t cap = changes->cap ? changes->cap * 2 : 64;
	struct kx_index_change *list;
	uint8_t *generations;

	if (changes->count < changes->cap)
		return KX_OK;
	list = realloc(changes->list, cap * sizeof(*list));
	if (!list)
		return KX_ENOMEM;
	changes->list = list;
	generations = realloc(changes->generations, cap * KX_INDEXED_GENERATION_BYTES);
	if (!generations)
		return KX_ENOMEM;
	changes->generations = generations;
	changes->cap = cap;
	for (size_t i = 0; i < changes->count; i++)
		if (list[i].vector)
			list[i].attributes = generations + i * KX_INDEXED_GENERATION_BYTES;
	return KX_OK;
}

static kx_status add_change(struct kx_indexed_changes *changes, uint32_t space, const void *key, size_t key_len,
			    const struct kx_modality_result *from, uint64_t generation, struct kx_error *error)
{
	struct kx_index_change *change;

	if (changes_reserve(changes))
		return kx_error_nomem(error);
	change = &changes->list[changes->count];
	*change = (struct kx_index_change){.space = space, .key = key, .key_len = key_len};
	if (from) {
		change->vector = from->embedding;
		change->dim = from->dim;
		change->attributes = changes->generations + changes->count * KX_INDEXED_GENERATION_BYTES;
		change->attributes_len = KX_INDEXED_GENERATION_BYTES;
		kx_be64_put(changes->generations + changes->count * KX_INDEXED_GENERATION_BYTES, generation);
	}
	changes->count++;
	return KX_OK;
}

/* An embedding that the index can hold. It scales to unit length, so what is of another would have other scores there: that
 * is left out, too, and compared by its record. */
static bool is_indexable(const struct kx_modality_result *from)
{
	double squares = 0.0;

	for (uint32_t i = 0; i < from->dim; i++)
		squares += (double)from->embedding[i] * (double)from->embedding[i];
	return fabs(squares - 1.0) < UNIT_WITHIN && from->dim >= KX_IVF_DIM_MIN && from->dim <= KX_IVF_DIM_MAX;
}

/* KX_INDEX_SPACES_MAX: the index can't hold this space. Its rows are then loose. */
static kx_status space_of(struct kx_index *index, const struct kx_modality_result *from, uint32_t *ret,
			  struct kx_error *error)
{
	char name[KX_INDEXED_NAME_MAX];
	kx_status status;

	*ret = KX_INDEX_SPACES_MAX;
	if (!is_indexable(from))
		return KX_OK;
	kx_indexed_space_name(from->modality, from->space, name);
	status = kx_index_space(index, name, from->dim, KX_METRIC_COSINE, ret, error);
	if (status != KX_EINVAL && status != KX_ETOOBIG)
		return status;
	kx_log(KX_LOG_WARN, "space %s can't be indexed: %s; its videos are compared one by one", name,
	       error ? error->message : "");
	*ret = KX_INDEX_SPACES_MAX;
	return KX_OK;
}

static bool has_generation(struct kx_index *index, uint32_t space, const char *id, uint64_t generation)
{
	struct kx_buf held = {.max = KX_INDEX_ATTRIBUTES_MAX};
	bool has = !kx_index_get(index, space, id, strlen(id), NULL, NULL, &held, NULL) &&
		   held.len == KX_INDEXED_GENERATION_BYTES && kx_be64_get(held.data) == generation;

	kx_buf_done(&held);
	return has;
}

kx_status kx_indexed_change_put(struct kx_index *index, const struct kx_video_record *record,
				struct kx_indexed_changes *changes, struct kx_error *error)
{
	const char *id = record->result.video_id;
	bool in[KX_INDEX_SPACES_MAX + 1] = {false};
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < record->result.modality_count; i++) {
		const struct kx_modality_result *from = &record->result.modalities[i];
		uint32_t space;

		status = space_of(index, from, &space, error);
		if (status || space == KX_INDEX_SPACES_MAX)
			continue;
		in[space] = true;
		if (!has_generation(index, space, id, record->generation))
			status = add_change(changes, space, id, strlen(id), from, record->generation, error);
	}
	for (uint32_t space = 0; !status && space < kx_index_space_count(index); space++)
		if (!in[space] && !kx_moments_are_in(index, space))
			status = add_change(changes, space, id, strlen(id), NULL, 0, error);
	return status;
}

kx_status kx_indexed_change_remove(struct kx_index *index, const char *id, struct kx_indexed_changes *changes,
				   struct kx_error *error)
{
	kx_status status = KX_OK;

	for (uint32_t space = 0; !status && space < kx_index_space_count(index); space++)
		if (!kx_moments_are_in(index, space))
			status = add_change(changes, space, id, strlen(id), NULL, 0, error);
	return status;
}

bool kx_indexed_takes(struct kx_index *index, const struct kx_video_record *record)
{
	for (uint32_t i = 0; i < record->result.modality_count; i++) {
		const struct kx_modality_result *from = &record->result.modalities[i];
		char name[KX_INDEXED_NAME_MAX];
		struct kx_index_space_info info;
		uint32_t space;

		kx_indexed_space_name(from->modality, from->space, name);
		if (is_indexable(from) && !kx_index_find_space(index, name, &space, NULL) &&
		    !kx_index_space_info(index, space, &info, NULL) && info.dim == from->dim)
			continue;
		for (uint32_t j = 0; j < from->dim; j++)
			if (from->embedding[j] != 0.0f)
				return false;
	}
	return true;
}

static double cosine_of(const float *a, const float *b, uint32_t dim)
{
	double product = 0.0, one = 0.0, two = 0.0;

	for (uint32_t i = 0; i < dim; i++) {
		product += (double)a[i] * (double)b[i];
		one += (double)a[i] * (double)a[i];
		two += (double)b[i] * (double)b[i];
	}
	return one > 0.0 && two > 0.0 ? product / sqrt(one * two) : 0.0;
}

kx_status kx_indexed_compare(struct kx_index *index, const struct kx_video_record *record,
			     const struct kx_modality_result *of, enum kx_indexed_state *ret_state, double *ret_cosine,
			     struct kx_error *error)
{
	const char *id = record->result.video_id;
	char name[KX_INDEXED_NAME_MAX];
	struct kx_index_space_info info;
	float held[KX_IVF_DIM_MAX];
	uint32_t space;
	kx_status status = KX_OK;

	*ret_state = is_indexable(of) ? KX_INDEXED_MISSING : KX_INDEXED_NONE;
	kx_indexed_space_name(of->modality, of->space, name);
	if (*ret_state == KX_INDEXED_NONE || kx_index_find_space(index, name, &space, NULL))
		return KX_OK;
	status = kx_index_space_info(index, space, &info, error);
	if (status || info.dim != of->dim || !has_generation(index, space, id, record->generation))
		return status;
	status = kx_index_get(index, space, id, strlen(id), NULL, held, NULL, error);
	if (status)
		return status;
	*ret_state = KX_INDEXED_HELD;
	*ret_cosine = cosine_of(held, of->embedding, of->dim);
	return KX_OK;
}

/* --- Settling -------------------------------------------------------------------------------------------------- */

/* Keys that the index has and should not, one space's. */
struct stale {
	struct kx_buf keys;
	size_t *lens;
	size_t count, cap;
};

static void stale_done(struct stale *stale)
{
	kx_buf_done(&stale->keys);
	free(stale->lens);
}

static kx_status stale_add(struct stale *stale, const void *key, size_t len)
{
	if (stale->count == stale->cap) {
		size_t cap = stale->cap ? stale->cap * 2 : 64;
		size_t *lens = realloc(stale->lens, cap * sizeof(*lens));

		if (!lens)
			return KX_ENOMEM;
		stale->lens = lens;
		stale->cap = cap;
	}
	stale->lens[stale->count++] = len;
	return kx_buf_append(&stale->keys, key, len);
}

struct settle {
	struct indexed *indexed;
	uint8_t space; /* of the mirror's that the index's space is; or KX_INDEXED_NO_SPACE */
	struct stale stale;
	char id[KX_INDEX_KEY_MAX + 1];
};

static kx_status settle_row(void *ctx, uint32_t index_row, const void *key, size_t key_len, const void *attributes,
			    size_t attributes_len, struct kx_error *error)
{
	struct settle *settle = ctx;
	struct indexed *indexed = settle->indexed;
	const struct mirror_row *video;
	int m;

	memcpy(settle->id, key, key_len);
	settle->id[key_len] = '\0';
	video = kx_mirror_row(indexed->mirror, settle->id);
	if (video && settle->space != KX_INDEXED_NO_SPACE && attributes_len == KX_INDEXED_GENERATION_BYTES &&
	    kx_be64_get(attributes) == video->generation) {
		m = (int)indexed->spaces[settle->space].modality - KX_VISUAL;
		if (indexed->rows[video->number].space[m] == settle->space)
			return kx_indexed_set_row(indexed, video->number, m, index_row) ? kx_error_nomem(error) : KX_OK;
	}
	return stale_add(&settle->stale, key, key_len) ? kx_error_nomem(error) : KX_OK;
}

static uint8_t space_of_name(const struct indexed *indexed, const char *name, uint32_t dim)
{
	char other[KX_INDEXED_NAME_MAX];

	for (uint32_t i = 0; i < indexed->space_count; i++) {
		kx_indexed_space_name(indexed->spaces[i].modality, indexed->spaces[i].name, other);
		if (strcmp(name, other) == 0 && indexed->spaces[i].dim == dim)
			return (uint8_t)i;
	}
	return KX_INDEXED_NO_SPACE;
}

/* The two did not agree: until they do, the store says nothing of what they add up to. */
static kx_status forget_totals(struct indexed *indexed, struct kx_indexed_settled *settled, struct kx_error *error)
{
	if (settled->added || settled->removed)
		return KX_OK;
	return kx_store_set_totals(indexed->store, NULL, 0, error);
}

static kx_status drop_stale(struct indexed *indexed, uint32_t number, const struct stale *stale, struct kx_error *error)
{
	const uint8_t *key = stale->keys.data;
	kx_status status = KX_OK;

	for (size_t from = 0; !status && from < stale->count; from += SETTLE_AT_ONCE) {
		struct kx_index_change changes[SETTLE_AT_ONCE];
		size_t count = stale->count - from < SETTLE_AT_ONCE ? stale->count - from : SETTLE_AT_ONCE;

		for (size_t i = 0; i < count; i++) {
			changes[i] = (struct kx_index_change){.space = number, .key = key, .key_len = stale->lens[from + i]};
			key += stale->lens[from + i];
		}
		status = kx_index_commit(indexed->index, changes, count, error);
	}
	return status;
}

static kx_status settle_space(struct indexed *indexed, uint32_t number, bool read_only,
			      struct kx_indexed_settled *settled, struct kx_error *error)
{
	struct settle settle = {.indexed = indexed, .stale.keys.max = SIZE_MAX / 2};
	struct kx_index_space_info info;
	kx_status status = kx_index_space_info(indexed->index, number, &info, error);

	if (status)
		return status;
	settle.space = space_of_name(indexed, info.name, info.dim);
	if (settle.space != KX_INDEXED_NO_SPACE) {
		indexed->spaces[settle.space].is_indexed = true;
		indexed->spaces[settle.space].number = number;
	}
	status = kx_index_each(indexed->index, number, settle_row, &settle, error);
	if (!status && !read_only && settle.stale.count)
		status = forget_totals(indexed, settled, error);
	if (!status && !read_only) {
		status = drop_stale(indexed, number, &settle.stale, error);
		settled->removed += settle.stale.count;
	}
	stale_done(&settle.stale);
	return status;
}

/* Records of rows that the index lacks, and what it has to take in. */
struct adding {
	struct kx_video_record *records[SETTLE_AT_ONCE];
	uint32_t rows[SETTLE_AT_ONCE];
	uint32_t count;
	struct kx_indexed_changes changes;
};

static void adding_clear(struct adding *adding)
{
	for (uint32_t i = 0; i < adding->count; i++)
		kx_video_record_free(adding->records[i]);
	adding->count = 0;
	adding->changes.count = 0;
}

static kx_status find_added(struct indexed *indexed, uint32_t row, struct kx_error *error)
{
	const char *id = indexed->mirror->rows[row]->id;
	kx_status status = KX_OK;

	for (int m = 0; !status && m < KX_ANN_MODALITIES; m++) {
		uint8_t number = indexed->rows[row].space[m];
		struct indexed_space *space = &indexed->spaces[number == KX_INDEXED_NO_SPACE ? 0 : number];
		uint32_t index_row;

		if (number == KX_INDEXED_NO_SPACE || indexed->rows[row].index_row[m] != KX_ANN_NO_ROW)
			continue;
		kx_indexed_look_up(indexed, space);
		status = space->is_indexed ? kx_index_get(indexed->index, space->number, id, strlen(id), &index_row, NULL, NULL,
							  NULL)
					   : KX_ENOTFOUND;
		if (!status && kx_indexed_set_row(indexed, row, m, index_row))
			return kx_error_nomem(error);
		status = status == KX_ENOTFOUND ? KX_OK : status;
	}
	kx_indexed_set_loose(indexed, row);
	return status;
}

static kx_status commit_added(struct indexed *indexed, struct adding *adding, struct kx_indexed_settled *settled,
			      struct kx_error *error)
{
	kx_status status = adding->changes.count ? forget_totals(indexed, settled, error) : KX_OK;

	if (!status)
		status = kx_index_commit(indexed->index, adding->changes.list, adding->changes.count, error);
	for (size_t i = 0; i < adding->changes.count; i++)
		settled->added += adding->changes.list[i].vector != NULL;
	for (uint32_t i = 0; !status && i < adding->count; i++)
		status = find_added(indexed, adding->rows[i], error);
	adding_clear(adding);
	return status;
}

static kx_status add_missing(struct indexed *indexed, struct adding *adding, struct kx_indexed_settled *settled,
			     struct kx_error *error)
{
	kx_status status = KX_OK;

	for (uint32_t row = 0; !status && row < indexed->row_count; row++) {
		struct kx_video_record *record = NULL;

		if (!kx_bitmap_has(&indexed->loose, row))
			continue;
		status = kx_store_video(indexed->store, indexed->mirror->rows[row]->id, &record, error);
		if (status)
			break;
		adding->records[adding->count] = record;
		adding->rows[adding->count++] = row;
		status = kx_indexed_change_put(indexed->index, record, &adding->changes, error);
		if (!status && adding->count == SETTLE_AT_ONCE)
			status = commit_added(indexed, adding, settled, error);
	}
	return status || !adding->count ? status : commit_added(indexed, adding, settled, error);
}

/* --- A space that the index lacks as a whole: all at once -------------------------------------------------------- */

struct filling {
	struct indexed *indexed;
	uint8_t space;
	uint32_t row; /* of the mirror, to look at next */
	struct kx_video_record *record;
	uint8_t generation[KX_INDEXED_GENERATION_BYTES];
};

static const struct kx_modality_result *result_of(const struct kx_video_record *record, enum kx_modality modality)
{
	for (uint32_t i = 0; i < record->result.modality_count; i++)
		if (record->result.modalities[i].modality == modality)
			return &record->result.modalities[i];
	return NULL;
}

static kx_status next_video(void *ctx, struct kx_index_change *ret, struct kx_error *error)
{
	struct filling *filling = ctx;
	struct indexed *indexed = filling->indexed;
	const struct indexed_space *space = &indexed->spaces[filling->space];
	const int m = (int)space->modality - KX_VISUAL;

	while (filling->row < indexed->row_count) {
		const uint32_t row = filling->row++;
		const struct kx_modality_result *from;
		kx_status status;

		if (!indexed->rows[row].present || indexed->rows[row].space[m] != filling->space)
			continue;
		kx_video_record_free(KX_STEAL(filling->record));
		status = kx_store_video(indexed->store, indexed->mirror->rows[row]->id, &filling->record, error);
		if (status)
			return status == KX_ENOTFOUND ? kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "video %s is gone",
								     indexed->mirror->rows[row]->id)
						      : status;
		from = result_of(filling->record, space->modality);
		if (!from || !is_indexable(from) || strcmp(from->space, space->name) != 0)
			continue;
		kx_be64_put(filling->generation, filling->record->generation);
		*ret = (struct kx_index_change){.key = filling->record->result.video_id,
						.key_len = strlen(filling->record->result.video_id),
						.vector = from->embedding,
						.dim = from->dim,
						.attributes = filling->generation,
						.attributes_len = sizeof(filling->generation)};
		return KX_OK;
	}
	return KX_ENOTFOUND;
}

static kx_status build_space(struct indexed *indexed, uint8_t number, struct kx_indexed_settled *settled,
			     struct kx_error *error)
{
	struct indexed_space *space = &indexed->spaces[number];
	struct filling filling = {.indexed = indexed, .space = number};
	struct kx_index_build build = {.space = space->number, .count = space->rows, .next = next_video, .row_ctx = &filling};
	struct kx_index_space_info info;
	kx_status status = forget_totals(indexed, settled, error);

	if (!status)
		status = kx_index_build(indexed->index, &build, error);
	kx_video_record_free(filling.record);
	if (status) /* KX_ENOTFOUND: none of its vectors is one that the index takes */
		return status == KX_ENOTFOUND ? KX_OK : status;
	status = kx_index_space_info(indexed->index, space->number, &info, error);
	if (status)
		return status;
	settled->added += info.rows;
	return settle_space(indexed, space->number, true, settled, error);
}

static kx_status fill_spaces(struct indexed *indexed, struct kx_indexed_settled *settled, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < indexed->space_count; i++) {
		struct indexed_space *space = &indexed->spaces[i];
		struct kx_index_space_info info;
		char name[KX_INDEXED_NAME_MAX];

		if (space->rows < FILL_LEAST || space->dim < KX_IVF_DIM_MIN || space->dim > KX_IVF_DIM_MAX)
			continue;
		kx_indexed_space_name(space->modality, space->name, name);
		/* One that can't be made is told of where its videos are added one by one. */
		if (kx_index_space(indexed->index, name, space->dim, KX_METRIC_COSINE, &space->number, NULL))
			continue;
		space->is_indexed = true;
		status = kx_index_space_info(indexed->index, space->number, &info, error);
		if (!status && !info.rows)
			status = build_space(indexed, (uint8_t)i, settled, error);
	}
	return status;
}

kx_status kx_indexed_settle(struct kx_ann *ann, bool read_only, struct kx_indexed_settled *ret, struct kx_error *error)
{
	struct indexed *indexed = kx_indexed_of(ann);
	struct adding *adding = calloc(1, sizeof(*adding));
	kx_status status = adding ? KX_OK : kx_error_nomem(error);

	*ret = (struct kx_indexed_settled){0};
	for (uint32_t i = 0; !status && i < kx_index_space_count(indexed->index); i++)
		if (!kx_moments_are_in(indexed->index, i))
			status = settle_space(indexed, i, read_only, ret, error);
	if (!status && !read_only)
		status = fill_spaces(indexed, ret, error);
	for (uint32_t row = 0; !status && row < indexed->row_count; row++)
		kx_indexed_set_loose(indexed, row);
	if (!status && !read_only)
		status = add_missing(indexed, adding, ret, error);
	if (adding) {
		adding_clear(adding);
		kx_indexed_changes_done(&adding->changes);
		free(adding);
	}
	indexed->settled = !status;
	indexed->version += KX_INDEXED_CHANGES + 1; /* no filter can follow that */
	return status;
}
