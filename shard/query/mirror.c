#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/str.h"
#include "shard/query/indexed.h"
#include "shard/query/mirror_internal.h"
#include "shard/query/moments_index.h"

#define SUGGEST_SCAN_MAX 200000u /* ids looked at for a misspelt one */
#define SUGGEST_LENGTH_MAX 256u  /* edit distance is quadratic */

static int compare_ids(const void *a, const void *b)
{
	const struct mirror_row *one = a, *two = b;

	return strcmp(one->id, two->id);
}

static int order_rows(const void *ctx, uint32_t a, uint32_t b)
{
	const struct kx_mirror *mirror = ctx;

	return strcmp(mirror->rows[a]->id, mirror->rows[b]->id);
}

kx_status kx_mirror_new(struct kx_mirror **ret)
{
	struct kx_mirror *mirror = calloc(1, sizeof(*mirror));

	if (!mirror)
		return KX_ENOMEM;
	atomic_store(&mirror->loaded, true);
	if (pthread_rwlock_init(&mirror->lock, NULL) || pthread_mutex_init(&mirror->need_lock, NULL) ||
	    pthread_mutex_init(&mirror->early_lock, NULL)) {
		free(mirror);
		return KX_ENOMEM;
	}
	if (kx_ann_exact_new(order_rows, mirror, &mirror->ann) || kx_columns_new(&mirror->columns) ||
	    kx_filter_cache_new(KX_FILTER_CACHE_COUNT, KX_FILTER_CACHE_BYTES, &mirror->cache)) {
		kx_mirror_free(mirror);
		return KX_ENOMEM;
	}
	*ret = mirror;
	return KX_OK;
}

static void keep_node(void *node)
{
	(void)node; /* rows are freed through the array */
}

static void row_clear(struct mirror_row *row)
{
	free(row->id);
	row->id = NULL;
}

void kx_mirror_free(struct kx_mirror *mirror)
{
	if (!mirror)
		return;
	kx_mirror_end_warming(mirror);
	tdestroy(mirror->by_id, keep_node);
	for (uint32_t i = 0; i < mirror->count; i++) {
		if (mirror->rows[i])
			row_clear(mirror->rows[i]);
		free(mirror->rows[i]);
	}
	kx_ann_free(mirror->ann);
	kx_moments_free(mirror->moments);
	kx_filter_cache_free(mirror->cache);
	kx_columns_free(mirror->columns);
	free(mirror->rows);
	free(mirror->free_rows);
	free(mirror->keep_dir);
	kx_mirror_free(mirror->early);
	kx_mirror_free(mirror->kept);
	kx_snapshot_close(mirror->snapshot);
	pthread_rwlock_destroy(&mirror->lock);
	pthread_mutex_destroy(&mirror->need_lock);
	pthread_mutex_destroy(&mirror->early_lock);
	free(mirror);
}

struct mirror_row *kx_mirror_row(const struct kx_mirror *mirror, const char *id)
{
	struct mirror_row key = {.id = (char *)(uintptr_t)id};
	struct mirror_row **node = tfind(&key, &mirror->by_id, compare_ids);

	if (!node && mirror->snapshot)
		return kx_mirror_kept_row(mirror, id);
	return node ? *node : NULL;
}

static kx_status rows_reserve(struct kx_mirror *mirror)
{
	uint32_t cap = mirror->cap ? mirror->cap * 2 : 64;
	struct mirror_row **rows;
	uint32_t *free_rows;

	if (mirror->count < mirror->cap)
		return KX_OK;
	rows = realloc(mirror->rows, cap * sizeof(struct mirror_row *));
	if (!rows)
		return KX_ENOMEM;
	mirror->rows = rows;
	free_rows = realloc(mirror->free_rows, cap * sizeof(*free_rows));
	if (!free_rows)
		return KX_ENOMEM;
	mirror->free_rows = free_rows;
	mirror->cap = cap;
	return KX_OK;
}

/* A row without an id, which goes back by being put on the free list. */
static struct mirror_row *take_row(struct kx_mirror *mirror)
{
	struct mirror_row *row;

	if (mirror->free_count)
		return mirror->rows[mirror->free_rows[--mirror->free_count]];
	if (rows_reserve(mirror))
		return NULL;
	row = calloc(1, sizeof(*row));
	if (!row)
		return NULL;
	row->number = mirror->count;
	mirror->rows[mirror->count++] = row;
	return row;
}

static void release_row(struct kx_mirror *mirror, struct mirror_row *row)
{
	row_clear(row);
	if (row->number >= mirror->kept_rows)
		mirror->free_rows[mirror->free_count++] = row->number;
}

static void count_row(struct kx_mirror *mirror, const struct mirror_row *row, bool add)
{
	uint64_t sign = add ? 1 : UINT64_MAX; /* adding UINT64_MAX takes one away */

	if (mirror->partial)
		return;
	mirror->stats.videos += sign;
	mirror->stats.moments += sign * row->moments;
	mirror->stats.media_us += sign * row->media_us;
	mirror->epoch += sign * row->mark;
}

static struct mirror_row *add_row(struct kx_mirror *mirror, const char *id)
{
	struct mirror_row *row = take_row(mirror);

	if (!row)
		return NULL;
	row->id = kx_strdup(id);
	if (!row->id || !tsearch(row, &mirror->by_id, compare_ids)) {
		release_row(mirror, row);
		return NULL;
	}
	row->duration_us = row->media_us = row->moments = row->mark = 0;
	count_row(mirror, row, true);
	return row;
}

static void drop_row(struct kx_mirror *mirror, struct mirror_row *row)
{
	count_row(mirror, row, false);
	kx_ann_remove(mirror->ann, row->number);
	if (mirror->moments)
		kx_moments_remove(mirror->moments, row->number);
	kx_columns_remove(mirror->columns, row->number);
	kx_filter_cache_changed(mirror->cache, mirror->columns, row->number);
	(void)tdelete(row, &mirror->by_id, compare_ids);
	release_row(mirror, row);
}

static bool is_zero(const float *values, uint32_t dim)
{
	for (uint32_t i = 0; i < dim; i++)
		if (values[i] != 0.0f)
			return false;
	return true;
}

/* A zero embedding points nowhere: the row is then found by its other modality only. */
static size_t record_vectors(const struct kx_video_result *result, struct kx_ann_vector ret[KX_ANN_MODALITIES])
{
	size_t count = 0;

	for (uint32_t i = 0; i < result->modality_count; i++) {
		const struct kx_modality_result *from = &result->modalities[i];

		if (!is_zero(from->embedding, from->dim))
			ret[count++] = (struct kx_ann_vector){from->modality, from->space, from->dim, from->embedding};
	}
	return count;
}

static kx_status fill_row(struct kx_mirror *mirror, struct mirror_row *row, const struct kx_video_record *video,
			  const struct kx_moments_found *found, struct kx_error *error)
{
	const struct kx_video_result *result = &video->result;
	struct kx_ann_vector vectors[KX_ANN_MODALITIES];
	size_t count = record_vectors(result, vectors);
	kx_status status;

	row->generation = video->generation;
	status = kx_ann_put(mirror->ann, row->number, vectors, count, error);
	if (!status && kx_columns_put(mirror->columns, row->number, video))
		status = kx_error_nomem(error);
	if (!status && mirror->moments && kx_moments_put(mirror->moments, row->number, video, found))
		status = kx_error_nomem(error);
	kx_filter_cache_changed(mirror->cache, mirror->columns, row->number);
	if (status)
		return status;
	count_row(mirror, row, false);
	row->duration_us = result->duration_us;
	row->media_us = result->visual_us > result->audio_us ? result->visual_us : result->audio_us;
	row->moments = 0;
	row->mark = kx_totals_mark(result->video_id, video->generation);
	for (uint32_t i = 0; i < result->modality_count; i++)
		row->moments += result->modalities[i].moments;
	count_row(mirror, row, true);
	return KX_OK;
}

kx_status kx_mirror_put(struct kx_mirror *mirror, const struct kx_video_record *video, struct kx_error *error)
{
	const char *id = video->result.video_id;
	struct kx_moments_found found = {0};
	struct mirror_row *row;
	bool added;
	kx_status status = mirror->moments ? kx_moments_look(mirror->moments, video, &found, error) : KX_OK;

	if (status) {
		kx_moments_found_done(&found);
		return kx_error_prefix(error, status, "video %s: ", id);
	}
	pthread_rwlock_wrlock(&mirror->lock);
	row = kx_mirror_row(mirror, id);
	added = !row;
	if (added)
		row = add_row(mirror, id);
	status = row ? fill_row(mirror, row, video, &found, error) : kx_error_nomem(error);
	if (status && row && added)
		drop_row(mirror, row);
	pthread_rwlock_unlock(&mirror->lock);
	kx_moments_found_done(&found);
	return status ? kx_error_prefix(error, status, "video %s: ", id) : KX_OK;
}

void kx_mirror_remove(struct kx_mirror *mirror, const char *id)
{
	struct mirror_row *row;

	pthread_rwlock_wrlock(&mirror->lock);
	row = kx_mirror_row(mirror, id);
	if (row)
		drop_row(mirror, row);
	pthread_rwlock_unlock(&mirror->lock);
}

static kx_status load_one(void *ctx, const struct kx_video_record *video, struct kx_error *error)
{
	struct kx_mirror *mirror = ctx;

	if (mirror->stop && kx_stop_asked(mirror->stop))
		return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "the shard is stopping");
	return kx_mirror_put(mirror, video, error);
}

static kx_status settle(struct kx_mirror *mirror, struct kx_error *error)
{
	struct kx_indexed_settled settled;
	kx_status status;

	pthread_rwlock_wrlock(&mirror->lock);
	status = kx_indexed_settle(mirror->ann, mirror->read_only, &settled, error);
	pthread_rwlock_unlock(&mirror->lock);
	if (status)
		return kx_error_prefix(error, status, "index: ");
	if (settled.added || settled.removed)
		kx_log(KX_LOG_INFO, "index: %llu vectors of stored videos were added, %llu of others removed",
		       (unsigned long long)settled.added, (unsigned long long)settled.removed);
	return KX_OK;
}

/* So that the next who opens the store need not read all of it. */
static kx_status keep_totals(struct kx_mirror *mirror, struct kx_store *store, struct kx_error *error)
{
	struct kx_buf is = {.max = SIZE_MAX / 2}, should = {.max = SIZE_MAX / 2};
	kx_status status = kx_mirror_totals_after(mirror, NULL, 0, &should, error);

	if (!status)
		status = kx_store_totals(store, &is, error);
	if (status == KX_ENOTFOUND)
		status = KX_OK;
	if (!status && (is.len != should.len || memcmp(is.data, should.data, is.len) != 0))
		status = kx_store_set_totals(store, should.data, should.len, error);
	kx_buf_done(&is);
	kx_buf_done(&should);
	return status;
}

/* Read-only it waits for the first query that needs it. */
static kx_status settle_moments(struct kx_mirror *mirror, struct kx_error *error)
{
	struct kx_moments_settled settled = {0};
	kx_status status;

	if (!mirror->moments || mirror->read_only)
		return KX_OK;
	pthread_rwlock_wrlock(&mirror->lock);
	status = kx_moments_settle(mirror->moments, &settled, error);
	pthread_rwlock_unlock(&mirror->lock);
	if (status)
		return kx_error_prefix(error, status, "index of moments: ");
	if (settled.added || settled.removed)
		kx_log(KX_LOG_INFO, "index: %llu moments of stored videos were added, %llu of others removed",
		       (unsigned long long)settled.added, (unsigned long long)settled.removed);
	return KX_OK;
}

kx_status kx_mirror_load(struct kx_mirror *mirror, struct kx_store *store, struct kx_error *error)
{
	kx_status status = kx_store_each_video(store, load_one, mirror, error);

	if (mirror->store != store) /* answers may read it meanwhile */
		mirror->store = store;
	if (!status && mirror->indexed)
		status = settle(mirror, error);
	if (!status && mirror->indexed && !mirror->read_only)
		status = keep_totals(mirror, store, error);
	if (!status)
		status = settle_moments(mirror, error);
	if (status)
		return status;
	atomic_store(&mirror->loaded, true);
	kx_mirror_kept_drop(mirror);
	return KX_OK;
}

kx_status kx_mirror_need(struct kx_mirror *mirror, struct kx_error *error)
{
	kx_status status = KX_OK;

	if (atomic_load(&mirror->loaded))
		return KX_OK;
	pthread_mutex_lock(&mirror->need_lock);
	if (!atomic_load(&mirror->loaded))
		status = kx_mirror_load(mirror, mirror->store, error);
	pthread_mutex_unlock(&mirror->need_lock);
	return status;
}

kx_status kx_mirror_use_snapshots(struct kx_mirror *mirror, const char *dir)
{
	return kx_str_set(&mirror->keep_dir, dir);
}

void kx_mirror_warm_after(struct kx_mirror *mirror, uint32_t answers)
{
	mirror->warm_after = answers;
}

kx_status kx_mirror_use_moments(struct kx_mirror *mirror, struct kx_index *index, struct kx_store *store,
				bool read_only)
{
	mirror->read_only = read_only;
	return kx_moments_new(mirror, index, store, read_only, &mirror->moments);
}

kx_status kx_mirror_use_index(struct kx_mirror *mirror, struct kx_index *index, struct kx_store *store, bool read_only)
{
	struct kx_ann *ann;
	kx_status status = kx_indexed_new(mirror, index, store, &ann);

	if (status)
		return status;
	kx_ann_free(mirror->ann);
	mirror->ann = ann;
	mirror->indexed = true;
	mirror->index = index;
	mirror->read_only = read_only;
	return KX_OK;
}

struct kx_moments *kx_mirror_moments(const struct kx_mirror *mirror)
{
	return mirror->moments;
}

void kx_mirror_set_recall(struct kx_mirror *mirror, double recall)
{
	mirror->recall = recall;
}

void kx_mirror_expect(struct kx_mirror *mirror, const char *id)
{
	const struct mirror_row *row;

	pthread_rwlock_wrlock(&mirror->lock);
	row = mirror->indexed || mirror->moments ? kx_mirror_row(mirror, id) : NULL;
	if (row && mirror->indexed)
		kx_indexed_expect(mirror->ann, row->number);
	if (row && mirror->moments)
		kx_moments_expect(mirror->moments, row->number);
	pthread_rwlock_unlock(&mirror->lock);
}

kx_status kx_mirror_set_classes(struct kx_mirror *mirror, const struct kx_class_names *names)
{
	kx_status status;

	pthread_rwlock_wrlock(&mirror->lock);
	status = kx_attributes_set_classes(mirror->columns->attributes, names);
	pthread_rwlock_unlock(&mirror->lock);
	return status;
}

kx_status kx_mirror_schema(struct kx_mirror *mirror, struct kx_query_reply *reply, struct kx_error *error)
{
	kx_status status = kx_mirror_need(mirror, error);

	if (status)
		return status;
	pthread_rwlock_rdlock(&mirror->lock);
	status = kx_columns_schema(mirror->columns, reply);
	pthread_rwlock_unlock(&mirror->lock);
	return status ? kx_error_nomem(error) : KX_OK;
}

void kx_mirror_stats(struct kx_mirror *mirror, struct kx_shard_stats *ret)
{
	if (!atomic_load(&mirror->loaded) && mirror->early)
		mirror = mirror->early;
	pthread_rwlock_rdlock(&mirror->lock);
	ret->videos = mirror->stats.videos;
	ret->moments = mirror->stats.moments;
	ret->media_us = mirror->stats.media_us;
	pthread_rwlock_unlock(&mirror->lock);
}

/* How far an id is from what was typed; SIZE_MAX: not at all alike. A part of the path that was typed exactly is
 * nearer than any misspelling. */
static size_t unlikeness(const char *typed, const char *id)
{
	size_t typed_len = strlen(typed), len = strlen(id), distance;

	if (typed_len && strstr(id, typed))
		return 1;
	if (typed_len > SUGGEST_LENGTH_MAX || len > SUGGEST_LENGTH_MAX)
		return SIZE_MAX;
	distance = kx_edit_distance(typed, id);
	return distance <= 2 + typed_len / 4 ? 1 + distance : SIZE_MAX;
}

size_t kx_mirror_suggest(struct kx_mirror *mirror, const char *id, char *ret[KX_MIRROR_SUGGESTIONS])
{
	size_t distances[KX_MIRROR_SUGGESTIONS], count = 0, kept = 0;
	const char *ids[KX_MIRROR_SUGGESTIONS];

	if (kx_mirror_need(mirror, NULL))
		return 0;
	pthread_rwlock_rdlock(&mirror->lock);
	for (uint32_t i = 0; i < mirror->count && i < SUGGEST_SCAN_MAX; i++) {
		const char *candidate = mirror->rows[i]->id;
		size_t distance = candidate ? unlikeness(id, candidate) : SIZE_MAX;
		size_t at = count;

		if (distance == SIZE_MAX)
			continue;
		while (at > 0 && distance < distances[at - 1])
			at--;
		if (at == KX_MIRROR_SUGGESTIONS)
			continue;
		if (count < KX_MIRROR_SUGGESTIONS)
			count++;
		for (size_t j = count - 1; j > at; j--) {
			ids[j] = ids[j - 1];
			distances[j] = distances[j - 1];
		}
		ids[at] = candidate;
		distances[at] = distance;
	}
	for (size_t i = 0; i < count; i++) {
		ret[kept] = kx_strdup(ids[i]);
		kept += ret[kept] != NULL;
	}
	pthread_rwlock_unlock(&mirror->lock);
	return kept;
}
