/* Rows: where the index has the moments of each, which are loose. */
#include "shard/query/moments_index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "common/learn/learn.h"
#include "shard/query/moments_index_internal.h"

static const char name_prefix[] = "moments:";

void kx_moments_space_name(enum kx_modality modality, const char *space, char ret[KX_MOMENTS_NAME_MAX])
{
	snprintf(ret, KX_MOMENTS_NAME_MAX, "%s%s:%s", name_prefix, kx_modality_name(modality), space);
}

/* A space of videos begins with its modality. */
bool kx_moments_are_in(struct kx_index *index, uint32_t space)
{
	struct kx_index_space_info info;

	return !kx_index_space_info(index, space, &info, NULL) &&
	       strncmp(info.name, name_prefix, sizeof(name_prefix) - 1) == 0;
}

bool kx_moments_find_space(struct kx_index *index, enum kx_modality modality, const char *space, uint32_t dim,
			   uint32_t *ret)
{
	char name[KX_MOMENTS_NAME_MAX];
	struct kx_index_space_info info;

	kx_moments_space_name(modality, space, name);
	return !kx_index_find_space(index, name, ret, NULL) && !kx_index_space_info(index, *ret, &info, NULL) &&
	       info.dim == dim;
}

size_t kx_moment_prefix(const char *id, uint8_t *ret)
{
	size_t len = strlen(id) + 1;

	memcpy(ret, id, len);
	return len;
}

size_t kx_moment_place_key(const char *id, enum kx_modality modality, uint32_t number, uint8_t *ret)
{
	size_t len = strlen(id);

	if (len + KX_MOMENTS_KEY_MORE > KX_INDEX_KEY_MAX)
		return 0;
	memcpy(ret, id, len + 1);
	ret[len + 1] = (uint8_t)modality;
	for (int i = 0; i < 4; i++)
		ret[len + 2 + (size_t)i] = (uint8_t)(number >> (24 - 8 * i));
	return len + KX_MOMENTS_KEY_MORE;
}

bool kx_moment_place_parse(const void *key, size_t len, struct kx_moment_place *ret)
{
	const uint8_t *bytes = key, *behind;

	if (len <= KX_MOMENTS_KEY_MORE || memchr(bytes, 0, len) != bytes + len - KX_MOMENTS_KEY_MORE)
		return false;
	behind = bytes + len - KX_MOMENTS_KEY_MORE + 1;
	if (behind[0] != KX_VISUAL && behind[0] != KX_AUDIO)
		return false;
	ret->id = key;
	ret->modality = (enum kx_modality)behind[0];
	ret->number = (uint32_t)behind[1] << 24 | (uint32_t)behind[2] << 16 | (uint32_t)behind[3] << 8 | behind[4];
	return true;
}

kx_status kx_moments_new(struct kx_mirror *mirror, struct kx_index *index, struct kx_store *store, bool read_only,
			 struct kx_moments **ret)
{
	struct kx_moments *moments = calloc(1, sizeof(*moments));

	if (!moments)
		return KX_ENOMEM;
	if (pthread_mutex_init(&moments->lock, NULL)) {
		free(moments);
		return KX_ENOMEM;
	}
	moments->mirror = mirror;
	moments->index = index;
	moments->store = store;
	moments->read_only = read_only;
	*ret = moments;
	return KX_OK;
}

void kx_moments_free(struct kx_moments *moments)
{
	if (!moments)
		return;
	kx_moments_filters_done(moments);
	for (uint32_t i = 0; i < KX_INDEX_SPACES_MAX; i++) {
		free(moments->spaces[i].row_of);
		kx_bitmap_done(&moments->spaces[i].alone);
	}
	kx_bitmap_done(&moments->loose);
	free(moments->rows);
	pthread_mutex_destroy(&moments->lock);
	free(moments);
}

struct kx_store *kx_moments_store(const struct kx_moments *moments)
{
	return moments->store;
}

kx_status kx_moments_set(struct kx_moments *moments, const struct kx_moment_row *at, uint32_t row)
{
	struct moments_space *space = &moments->spaces[at->space];

	if (at->row >= space->cap) {
		uint32_t cap = (at->row + 64 + space->cap / 2) & ~63u;
		uint32_t *row_of = realloc(space->row_of, cap * sizeof(*row_of));

		if (!row_of)
			return KX_ENOMEM;
		for (uint32_t i = space->cap; i < cap; i++)
			row_of[i] = KX_ANN_NO_ROW;
		space->row_of = row_of;
		if (kx_bitmap_reserve(&space->alone, cap))
			return KX_ENOMEM;
		space->cap = cap;
	}
	space->row_of[at->row] = row;
	kx_bitmap_set(&space->alone, at->row, !at->paired);
	return KX_OK;
}

static kx_status rows_reserve(struct kx_moments *moments, uint32_t row)
{
	uint32_t count = row + 64 + moments->row_count / 2;
	struct moments_row *rows;

	if (row < moments->row_count)
		return KX_OK;
	rows = realloc(moments->rows, count * sizeof(*rows));
	if (!rows)
		return KX_ENOMEM;
	memset(rows + moments->row_count, 0, (count - moments->row_count) * sizeof(*rows));
	moments->rows = rows;
	moments->row_count = count;
	return kx_bitmap_reserve(&moments->loose, count);
}

kx_status kx_moments_put(struct kx_moments *moments, uint32_t row, const struct kx_video_record *record,
			 const struct kx_moments_found *found)
{
	struct moments_row *at;

	if (rows_reserve(moments, row))
		return KX_ENOMEM;
	at = &moments->rows[row];
	*at = (struct moments_row){.present = true, .moment_us = record->result.moment_us};
	for (uint32_t i = 0; i < record->result.modality_count; i++)
		at->count += record->result.modalities[i].moments;
	moments->version++;
	kx_bitmap_set(&moments->loose, row, true);
	for (size_t i = 0; i < found->count; i++)
		if (kx_moments_set(moments, &found->list[i], row))
			return KX_ENOMEM;
	kx_bitmap_set(&moments->loose, row, !found->complete);
	return KX_OK;
}

void kx_moments_remove(struct kx_moments *moments, uint32_t row)
{
	if (row >= moments->row_count)
		return;
	moments->rows[row].present = false;
	kx_bitmap_set(&moments->loose, row, false);
	moments->version++;
}

void kx_moments_expect(struct kx_moments *moments, uint32_t row)
{
	if (row < moments->row_count && moments->rows[row].present)
		kx_bitmap_set(&moments->loose, row, true);
}

/* --- Where a video's moments are -------------------------------------------------------------------------------- */

struct looking {
	struct kx_moments *moments;
	const struct kx_video_record *record;
	struct kx_moments_found *found;
	uint32_t space;
};

void kx_moments_found_done(struct kx_moments_found *found)
{
	free(found->list);
	*found = (struct kx_moments_found){0};
}

static kx_status found_add(struct kx_moments_found *found, const struct kx_moment_row *row)
{
	if (found->count == found->cap) {
		size_t cap = found->cap ? found->cap * 2 : 32;
		struct kx_moment_row *list = realloc(found->list, cap * sizeof(*list));

		if (!list)
			return KX_ENOMEM;
		found->list = list;
		found->cap = cap;
	}
	found->list[found->count++] = *row;
	return KX_OK;
}

/* What is of another generation is not counted. */
static kx_status look_at(void *ctx, const void *key, size_t key_len, uint32_t row, struct kx_error *error)
{
	struct looking *looking = ctx;
	struct kx_buf held = {.max = KX_INDEX_ATTRIBUTES_MAX};
	struct kx_moment_row at = {.space = looking->space, .row = row};
	kx_status status =
		kx_index_get(looking->moments->index, looking->space, key, key_len, &at.row, NULL, &held, error);

	if (!status && held.len == KX_MOMENTS_ATTRIBUTES && kx_be64_get(held.data) == looking->record->generation) {
		at.paired = held.data[8] & KX_MOMENTS_FLAG_PAIRED;
		if (found_add(looking->found, &at))
			status = kx_error_nomem(error);
	}
	kx_buf_done(&held);
	return status == KX_ENOTFOUND ? KX_OK : status;
}

/* Moments that any query could find: those that point somewhere. */
static kx_status count_wanted(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	size_t *wanted = ctx;
	bool zero = summary->scale <= 0.0f;

	(void)error;
	for (uint32_t i = 0; i < summary->dim && !zero; i++)
		if (summary->embedding[i]) {
			++*wanted;
			break;
		}
	return KX_OK;
}

kx_status kx_moments_look(struct kx_moments *moments, const struct kx_video_record *record,
			  struct kx_moments_found *ret, struct kx_error *error)
{
	struct looking looking = {.moments = moments, .record = record, .found = ret};
	const char *id = record->result.video_id;
	uint8_t prefix[KX_ID_MAX + 1];
	size_t len = kx_moment_prefix(id, prefix), wanted = 0;
	kx_status status = KX_OK;

	ret->count = 0;
	ret->complete = false;
	if (!moments->settled)
		return KX_OK;
	for (uint32_t i = 0; !status && i < kx_index_space_count(moments->index); i++) {
		looking.space = i;
		if (kx_moments_are_in(moments->index, i))
			status = kx_index_each_key(moments->index, i, prefix, len, look_at, &looking, error);
	}
	if (!status)
		status = kx_store_each_summary(moments->store, id, record->generation, count_wanted, &wanted, error);
	ret->complete = !status && ret->count == wanted;
	/* Reading it again at each query says so each time. */
	return status == KX_ECORRUPT ? KX_OK : status;
}

kx_status kx_moments_ready(struct kx_moments *moments, struct kx_error *error)
{
	struct kx_moments_settled settled;
	kx_status status = KX_OK;

	pthread_mutex_lock(&moments->lock);
	if (!moments->settled)
		status = kx_moments_settle(moments, &settled, error);
	pthread_mutex_unlock(&moments->lock);
	return status;
}
