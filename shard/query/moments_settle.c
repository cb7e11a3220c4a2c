/* Making the index agree with the records when a shard opens. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/str.h"
#include "shard/query/moments_changes.h"

#define CHANGES_AT_ONCE 4096u
#define BUILD_BYTES ((size_t)768 << 20) /* of vectors that a build holds; what is beyond is put in by changes */
#define TELL_FROM 100000u               /* moments to put in: that takes so long that it is worth a line */

struct settle {
	struct kx_moments *moments;
	struct kx_moments_settled *ret;
	struct kx_moments_changes changes;
	uint32_t space;
	uint64_t *seen; /* [row_count] moments of each row that the index has in its generation */
	const struct mirror_row *last; /* rows of a video stand together, mostly */
};

static const struct mirror_row *video_of(struct settle *settle, const char *id)
{
	if (!settle->last || strcmp(settle->last->id, id) != 0)
		settle->last = kx_mirror_row(settle->moments->mirror, id);
	return settle->last;
}

/* A snapshot says where the index has them. */
static kx_status forget_snapshot(struct settle *settle, struct kx_error *error)
{
	return kx_store_set_snapshot(settle->moments->store, NULL, 0, error);
}

static kx_status flush(struct settle *settle, size_t least, struct kx_error *error)
{
	kx_status status;

	if (settle->changes.count < least || !settle->changes.count)
		return KX_OK;
	status = forget_snapshot(settle, error);
	if (status)
		return status;
	for (size_t i = 0; i < settle->changes.count; i++)
		if (settle->changes.list[i].vector)
			settle->ret->added++;
		else
			settle->ret->removed++;
	return kx_moments_commit(settle->moments->index, &settle->changes, error);
}

/* Removals wait until the walk over the space is done: it sees the space as it was. */
static kx_status settle_row(void *ctx, uint32_t row, const void *key, size_t key_len, const void *attributes,
			    size_t attributes_len, struct kx_error *error)
{
	struct settle *settle = ctx;
	const uint8_t *held = attributes;
	struct kx_moment_place place;
	const struct mirror_row *video = NULL;
	struct kx_moment_row at = {.space = settle->space, .row = row};

	if (kx_moment_place_parse(key, key_len, &place))
		video = video_of(settle, place.id);
	if (video && attributes_len == KX_MOMENTS_ATTRIBUTES && kx_be64_get(held) == video->generation) {
		at.paired = held[8] & KX_MOMENTS_FLAG_PAIRED;
		settle->seen[video->number]++;
		return kx_moments_set(settle->moments, &at, video->number) ? kx_error_nomem(error) : KX_OK;
	}
	if (settle->moments->read_only)
		return KX_OK;
	return kx_moments_change_drop(&settle->changes, settle->space, key, key_len) ? kx_error_nomem(error) : KX_OK;
}

static kx_status walk_spaces(struct settle *settle, struct kx_error *error)
{
	struct kx_index *index = settle->moments->index;
	kx_status status = KX_OK;

	memset(settle->seen, 0, settle->moments->row_count * sizeof(*settle->seen));
	for (uint32_t i = 0; !status && i < kx_index_space_count(index); i++) {
		if (!kx_moments_are_in(index, i))
			continue;
		settle->space = i;
		status = kx_index_each(index, i, settle_row, settle, error);
		if (!status)
			status = flush(settle, 1, error);
	}
	return status;
}

/* --- What the index lacks ---------------------------------------------------------------------------------------- */

static bool lacks(const struct settle *settle, uint32_t row)
{
	return settle->moments->rows[row].present && settle->seen[row] != settle->moments->rows[row].count;
}

/* A video whose moments can't be read stays loose: a query that comes to it says what is wrong. */
static kx_status pass_over(kx_status status, const char *id, const struct kx_error *why, struct kx_error *error)
{
	if (status == KX_ECORRUPT) {
		kx_log(KX_LOG_WARN, "index: the moments of %s are left out: %s", id, why->message);
		return KX_OK;
	}
	if (status && error)
		*error = *why;
	return status;
}

static kx_status add_missing(struct settle *settle, struct kx_error *error)
{
	struct kx_moments *moments = settle->moments;
	kx_status status = KX_OK;

	for (uint32_t row = 0; !status && row < moments->row_count; row++) {
		KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
		const char *id = lacks(settle, row) ? moments->mirror->rows[row]->id : NULL;
		struct kx_error why = {0};

		if (!id)
			continue;
		status = kx_store_video(moments->store, id, &record, error);
		if (!status)
			status = pass_over(kx_moments_change_put(moments->index, moments->store, record, &settle->changes, &why), id,
					   &why, error);
		if (!status)
			status = flush(settle, CHANGES_AT_ONCE, error);
	}
	return status ? status : flush(settle, 1, error);
}

/* Where those that were lacking are now. What still is not there can't be. */
static kx_status look_again(struct settle *settle, struct kx_error *error)
{
	struct kx_moments *moments = settle->moments;
	struct kx_moments_found found = {0};
	kx_status status = KX_OK;

	for (uint32_t row = 0; !status && row < moments->row_count; row++) {
		struct kx_video_record key = {.generation = moments->rows[row].present ? moments->mirror->rows[row]->generation : 0};

		if (!moments->rows[row].present)
			continue;
		if (!lacks(settle, row)) {
			kx_bitmap_set(&moments->loose, row, false);
			continue;
		}
		key.result.video_id = moments->mirror->rows[row]->id;
		status = kx_moments_look(moments, &key, &found, error);
		for (size_t i = 0; !status && i < found.count; i++)
			if (kx_moments_set(moments, &found.list[i], row))
				status = kx_error_nomem(error);
		if (!status)
			kx_bitmap_set(&moments->loose, row, !found.complete);
	}
	kx_moments_found_done(&found);
	return status;
}

/* --- Filling spaces that are empty ------------------------------------------------------------------------------- */

/* The first moments of each space, as many as memory is meant to hold at once. */
struct filling {
	struct settle *settle;
	float *vectors[KX_INDEX_SPACES_MAX];
	struct kx_moments_changes keys[KX_INDEX_SPACES_MAX]; /* without their vectors, which stand in the array */
	size_t cap[KX_INDEX_SPACES_MAX];
	bool full[KX_INDEX_SPACES_MAX];
	size_t bytes;
};

static void filling_free(struct filling *filling)
{
	for (uint32_t i = 0; i < KX_INDEX_SPACES_MAX; i++) {
		free(filling->vectors[i]);
		kx_moments_changes_done(&filling->keys[i]);
	}
	free(filling);
}

/* false: it is full, or was not empty. */
static bool may_fill(struct filling *filling, uint32_t space)
{
	struct kx_index_space_info info;

	if (filling->keys[space].count || filling->full[space])
		return !filling->full[space];
	filling->full[space] = kx_index_space_info(filling->settle->moments->index, space, &info, NULL) || info.rows;
	return !filling->full[space];
}

static kx_status fill_item(struct filling *filling, uint32_t space, const struct kx_moment_item *item,
			   const struct kx_video_record *record, const uint8_t *key, size_t key_len)
{
	struct kx_moments_changes *keys = &filling->keys[space];
	uint8_t *attributes;

	if (filling->bytes + item->dim * sizeof(float) > BUILD_BYTES) {
		filling->full[space] = true;
		return KX_OK;
	}
	if (keys->count == filling->cap[space]) {
		size_t cap = filling->cap[space] ? filling->cap[space] * 2 : 1024;
		float *vectors = realloc(filling->vectors[space], cap * item->dim * sizeof(*vectors));

		if (!vectors)
			return KX_ENOMEM;
		filling->vectors[space] = vectors;
		filling->cap[space] = cap;
	}
	memcpy(filling->vectors[space] + keys->count * item->dim, item->vector, item->dim * sizeof(float));
	filling->bytes += item->dim * sizeof(float);
	if (kx_moments_change_drop(keys, space, key, key_len))
		return KX_ENOMEM;
	attributes = keys->blocks[keys->count - 1];
	kx_be64_put(attributes, record->generation);
	attributes[8] = item->paired ? KX_MOMENTS_FLAG_PAIRED : 0;
	return KX_OK;
}

static kx_status fill_video(struct filling *filling, uint32_t row, struct kx_error *error)
{
	struct kx_moments *moments = filling->settle->moments;
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	const char *id = moments->mirror->rows[row]->id;
	struct kx_moment_items items = {0};
	struct kx_error why = {0};
	uint8_t key[KX_INDEX_KEY_MAX];
	kx_status status = kx_store_video(moments->store, id, &record, error);

	if (!status)
		status = pass_over(kx_moment_items_read(moments->store, id, record->generation, &items, &why), id, &why, error);
	for (size_t i = 0; !status && i < items.count; i++) {
		const struct kx_moment_item *item = &items.list[i];
		size_t key_len = kx_moment_place_key(id, item->modality, item->number, key);
		uint32_t space;

		status = kx_moments_space_of(moments->index, item, &space, error);
		if (!status && key_len && space != KX_INDEX_SPACES_MAX && may_fill(filling, space) &&
		    fill_item(filling, space, item, record, key, key_len))
			status = kx_error_nomem(error);
	}
	kx_moment_items_done(&items);
	return status;
}

static void built_row(void *ctx, size_t i, struct kx_index_change *ret)
{
	const struct kx_moments_changes *keys = ctx;

	ret->key = keys->list[i].key;
	ret->key_len = keys->list[i].key_len;
	ret->attributes = keys->blocks[i];
	ret->attributes_len = KX_MOMENTS_ATTRIBUTES;
}

static kx_status build_spaces(struct filling *filling, struct kx_error *error)
{
	kx_status status = forget_snapshot(filling->settle, error);

	for (uint32_t i = 0; !status && i < KX_INDEX_SPACES_MAX; i++) {
		struct kx_index_build build = {.space = i, .count = filling->keys[i].count, .vectors = filling->vectors[i],
					       .row = built_row, .row_ctx = &filling->keys[i]};

		if (!build.count)
			continue;
		status = kx_index_build(filling->settle->moments->index, &build, error);
		filling->settle->ret->added += build.count;
	}
	return status;
}

static kx_status fill_empty(struct settle *settle, struct kx_error *error)
{
	struct filling *filling = calloc(1, sizeof(*filling));
	kx_status status = filling ? KX_OK : kx_error_nomem(error);

	if (filling)
		filling->settle = settle;
	for (uint32_t row = 0; !status && row < settle->moments->row_count && filling->bytes < BUILD_BYTES; row++)
		if (lacks(settle, row))
			status = fill_video(filling, row, error);
	if (!status)
		status = build_spaces(filling, error);
	if (filling)
		filling_free(filling);
	return status;
}

/* --- All of it --------------------------------------------------------------------------------------------------- */

static uint64_t count_lacking(const struct settle *settle, uint64_t *ret_moments)
{
	uint64_t videos = 0;

	*ret_moments = 0;
	for (uint32_t row = 0; row < settle->moments->row_count; row++) {
		videos += lacks(settle, row);
		*ret_moments += lacks(settle, row) ? settle->moments->rows[row].count : 0;
	}
	return videos;
}

static kx_status mend(struct settle *settle, struct kx_error *error)
{
	uint64_t moments, videos = count_lacking(settle, &moments);
	kx_status status = KX_OK;

	if (!videos)
		return KX_OK;
	if (moments >= TELL_FROM)
		kx_log(KX_LOG_INFO, "index: the moments of %" PRIu64 " videos are put in, %" PRIu64 " of them", videos, moments);
	if (moments >= CHANGES_AT_ONCE) {
		status = fill_empty(settle, error);
		if (!status)
			status = walk_spaces(settle, error);
	}
	if (!status)
		status = add_missing(settle, error);
	return status || settle->ret->added == 0 ? status : walk_spaces(settle, error);
}

kx_status kx_moments_settle(struct kx_moments *moments, struct kx_moments_settled *ret, struct kx_error *error)
{
	struct settle settle = {.moments = moments, .ret = ret};
	kx_status status;

	*ret = (struct kx_moments_settled){0};
	settle.seen = calloc(moments->row_count + 1u, sizeof(*settle.seen));
	status = settle.seen ? walk_spaces(&settle, error) : kx_error_nomem(error);
	if (!status && !moments->read_only)
		status = mend(&settle, error);
	moments->settled = !status;
	if (!status)
		status = look_again(&settle, error);
	kx_moments_changes_done(&settle.changes);
	free(settle.seen);
	moments->settled = !status;
	moments->version++;
	return status;
}

static kx_status drop_row(void *ctx, uint32_t row, const void *key, size_t key_len, const void *attributes,
			  size_t attributes_len, struct kx_error *error)
{
	struct settle *settle = ctx;

	(void)row, (void)attributes, (void)attributes_len;
	return kx_moments_change_drop(&settle->changes, settle->space, key, key_len) ? kx_error_nomem(error) : KX_OK;
}

kx_status kx_moments_drop(struct kx_index *index, uint64_t *ret_removed, struct kx_error *error)
{
	struct settle settle = {0};
	kx_status status = KX_OK;

	*ret_removed = 0;
	for (uint32_t i = 0; !status && i < kx_index_space_count(index); i++) {
		if (!kx_moments_are_in(index, i))
			continue;
		settle.space = i;
		status = kx_index_each(index, i, drop_row, &settle, error);
		*ret_removed += settle.changes.count;
		if (!status)
			status = kx_moments_commit(index, &settle.changes, error);
	}
	kx_moments_changes_done(&settle.changes);
	return status;
}
