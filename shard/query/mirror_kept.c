/* Answers before everything is loaded, by a snapshot: of what needs all videos, as filters do. It is a second mirror, whose rows
 * are those of the snapshot and behind them, put as ever, the videos that changed since. What a row is, beside where its vectors
 * are, is brought in when it is asked for. Nothing changes meanwhile: whoever changes the store has loaded everything before.
 *
 * One question at a time: early_lock is held. */
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/str.h"
#include "shard/query/indexed.h"
#include "shard/query/kept.h"
#include "shard/query/mirror_internal.h"
#include "shard/query/moments_index.h"

/* --- Rows ------------------------------------------------------------------------------------------------------ */

static struct mirror_row *bring(const struct kx_mirror *mirror, uint32_t number)
{
	const struct kx_kept_facts *facts =
		kx_snapshot_see(mirror->snapshot, mirror->kept_facts, number * (uint64_t)sizeof(*facts), sizeof(*facts));
	const char *id = facts ? kx_columns_kept_text(mirror->columns, KX_BUILTIN_ID, number) : NULL;
	struct mirror_row *row = id ? calloc(1, sizeof(*row)) : NULL;

	if (!row)
		return NULL;
	*row = (struct mirror_row){.id = kx_strdup(id),
				   .duration_us = facts->duration_us,
				   .media_us = facts->media_us,
				   .moments = facts->moments,
				   .mark = kx_totals_mark(id, facts->generation),
				   .generation = facts->generation,
				   .number = number};
	if (!row->id) {
		free(row);
		return NULL;
	}
	mirror->rows[number] = row;
	return row;
}

struct mirror_row *kx_mirror_bring(const struct kx_mirror *mirror, uint32_t number)
{
	struct mirror_row *row = bring(mirror, number);

	if (!row) /* also without memory: an answer without it would be wrong */
		kx_snapshot_spoil(mirror->snapshot);
	return row;
}

struct mirror_row *kx_mirror_kept_row(const struct kx_mirror *mirror, const char *id)
{
	uint32_t low = 0, high = mirror->kept_rows;

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;
		const char *is = kx_columns_kept_text(mirror->columns, KX_BUILTIN_ID, middle);
		const int order = is ? strcmp(is, id) : 0;

		if (!is)
			return NULL;
		if (order == 0)
			return kx_bitmap_has(&mirror->columns->live, middle) ? kx_mirror_at(mirror, middle) : NULL;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* --- Opening --------------------------------------------------------------------------------------------------- */

struct changed {
	char **ids;
	uint32_t count, cap;
};

static void changed_done(struct changed *changed)
{
	for (uint32_t i = 0; i < changed->count; i++)
		free(changed->ids[i]);
	free(changed->ids);
}

static kx_status add_changed(void *ctx, const char *id, struct kx_error *error)
{
	struct changed *changed = ctx;

	if (changed->count == changed->cap) {
		uint32_t cap = changed->cap ? changed->cap * 2 : 64;
		char **ids = realloc(changed->ids, cap * sizeof(char *));

		if (!ids)
			return kx_error_nomem(error);
		changed->ids = ids;
		changed->cap = cap;
	}
	changed->ids[changed->count] = kx_strdup(id);
	return changed->ids[changed->count++] ? KX_OK : kx_error_nomem(error);
}

static kx_status restore(struct kx_mirror *kept, const struct kx_kept_head *head, uint32_t more)
{
	const uint64_t room = head->rows + (uint64_t)more + 1;
	kx_status status;

	kept->rows = calloc(room, sizeof(struct mirror_row *));
	kept->free_rows = malloc(room * sizeof(*kept->free_rows));
	if (!kept->rows || !kept->free_rows)
		return KX_ENOMEM;
	kept->cap = (uint32_t)room;
	kept->count = kept->kept_rows = head->rows;
	kept->stats.videos = head->videos;
	kept->stats.moments = head->moments;
	kept->stats.media_us = head->media_us;
	kept->epoch = head->epoch;
	kept->kept_facts = kx_snapshot_find(kept->snapshot, KX_KEPT_FACTS, 0);
	if (!kept->kept_facts)
		return KX_ECORRUPT;
	status = kx_columns_restore(kept->columns, kept->snapshot, head, more);
	return status ? status : kx_indexed_restore(kept->ann, kept->snapshot, head, more);
}

static kx_status put_changed(struct kx_mirror *kept, const char *id, struct kx_error *error)
{
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	kx_status status = kx_store_video(kept->store, id, &record, error);

	if (status)
		return status == KX_ENOTFOUND ? KX_OK : status;
	return kx_mirror_put(kept, record, error);
}

/* First all go, then all come: a row of the index may have gone from one to another. */
static kx_status follow(struct kx_mirror *kept, const struct changed *changed, struct kx_error *error)
{
	kx_status status = changed->count ? kx_columns_need_words(kept->columns) : KX_OK;

	for (uint32_t i = 0; i < changed->count; i++)
		kx_mirror_remove(kept, changed->ids[i]);
	for (uint32_t i = 0; !status && i < changed->count; i++)
		status = put_changed(kept, changed->ids[i], error);
	return status;
}

/* Snapshot and changes are the records, unless somebody changed these who does not know of it; and which type an attribute has
 * may go by the order of reading. */
static kx_status check(const struct kx_mirror *kept, struct kx_error *error)
{
	if (kx_snapshot_is_damaged(kept->snapshot))
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "it is damaged");
	if (kept->epoch != kept->kept_epoch || kept->stats.videos != kept->kept_videos)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "it is not of these videos");
	if (kept->columns->told_type)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "attributes of one name have several types");
	return KX_OK;
}

static kx_status make_ready(struct kx_mirror *kept, struct kx_error *error)
{
	const struct kx_kept_head *head = kx_kept_array(kept->snapshot, KX_KEPT_HEAD, 0, 1, sizeof(*head));
	struct changed changed = {0};
	kx_status status = kx_store_each_changed(kept->store, add_changed, &changed, error);

	if (!status)
		status = head ? restore(kept, head, changed.count) : KX_ECORRUPT;
	if (!status)
		status = follow(kept, &changed, error);
	if (!status)
		status = check(kept, error);
	changed_done(&changed);
	kept->kept_ready = !status;
	return status;
}

/* Rows that are no more go there, too, and those that came are put again, to be looked up. */
static kx_status make_moments_ready(struct kx_mirror *kept, struct kx_error *error)
{
	const struct kx_kept_head *head = kx_kept_array(kept->snapshot, KX_KEPT_HEAD, 0, 1, sizeof(*head));
	kx_status status = head ? kx_moments_new(kept, kept->index, kept->store, true, &kept->moments) : KX_ECORRUPT;

	if (!status)
		status = kx_moments_restore(kept->moments, kept->snapshot, head, kept->cap - kept->kept_rows);
	for (uint32_t row = 0; !status && row < kept->kept_rows; row++)
		if (!kx_bitmap_has(&kept->columns->live, row))
			kx_moments_remove(kept->moments, row);
	for (uint32_t row = kept->kept_rows; !status && row < kept->count; row++)
		if (kept->rows[row]->id)
			status = put_changed(kept, kept->rows[row]->id, error);
	return status;
}

/* With the lock held. */
static void give_up(struct kx_mirror *mirror, const char *why)
{
	if (why)
		atomic_store(&mirror->has_snapshot, false);
	if (why)
		kx_log(KX_LOG_WARN, "the snapshot of the records can't be used, they are all read instead: %s", why);
	kx_mirror_free(KX_STEAL(mirror->kept));
}

static bool is_ready(struct kx_mirror *mirror, bool moments)
{
	struct kx_mirror *kept = mirror->kept;
	struct kx_error error = {0};
	kx_status status = kept->kept_ready ? KX_OK : make_ready(kept, &error);

	if (!status && moments && !kept->moments)
		status = make_moments_ready(kept, &error);
	if (!status)
		return true;
	/* One of a shard that had no moments in the index is as good for all else. */
	if (status == KX_ENOTFOUND && kept->kept_ready) {
		kx_moments_free(KX_STEAL(kept->moments));
		return false;
	}
	give_up(mirror, error.message[0] ? error.message : kx_status_name(status));
	return false;
}

struct kx_mirror *kx_mirror_kept_begin(struct kx_mirror *mirror, bool moments)
{
	if (atomic_load(&mirror->loaded))
		return NULL;
	pthread_mutex_lock(&mirror->early_lock);
	if (!atomic_load(&mirror->loaded) && mirror->kept && is_ready(mirror, moments))
		return mirror->kept;
	pthread_mutex_unlock(&mirror->early_lock);
	return NULL;
}

static void *warm(void *arg)
{
	struct kx_error error = {0};
	kx_status status = kx_mirror_need(arg, &error);

	if (status && status != KX_ECANCELED)
		kx_log_failure(&error);
	return NULL;
}

void kx_mirror_kept_answered(struct kx_mirror *mirror)
{
	if (mirror->warming || !mirror->warm_after || ++mirror->kept_answers < mirror->warm_after)
		return;
	mirror->warming = !kx_thread_start(&mirror->warmer, "kx-mirror-warm", warm, mirror, NULL);
}

void kx_mirror_end_warming(struct kx_mirror *mirror)
{
	if (mirror->warming)
		(void)pthread_join(mirror->warmer, NULL);
}

/* Once everything is loaded the store may have changed under the question. */
kx_status kx_mirror_kept_end(struct kx_mirror *mirror, kx_status status)
{
	const bool damaged = kx_snapshot_is_damaged(mirror->kept->snapshot);

	if (damaged)
		give_up(mirror, "it is damaged");
	pthread_mutex_unlock(&mirror->early_lock);
	return damaged || atomic_load(&mirror->loaded) ? KX_EBUSY : status;
}

void kx_mirror_kept_drop(struct kx_mirror *mirror)
{
	pthread_mutex_lock(&mirror->early_lock);
	give_up(mirror, NULL);
	pthread_mutex_unlock(&mirror->early_lock);
}

/* --- At the start ---------------------------------------------------------------------------------------------- */

static kx_status open_snapshot(const struct kx_mirror *mirror, struct kx_snapshot **ret, struct kx_error *error)
{
	struct kx_buf bytes = {.max = SIZE_MAX / 2};
	struct kx_snapshot_ref ref;
	kx_status status = kx_store_snapshot(mirror->store, &bytes, NULL);

	if (!status && kx_snapshot_ref_decode(bytes.data, bytes.len, &ref))
		status = kx_error_set(error, KX_EVERSION, KX_ERROR_FATAL, "it is of another program");
	kx_buf_done(&bytes);
	return status ? status : kx_snapshot_open(mirror->keep_dir, &ref, ret, error);
}

static kx_status fill(struct kx_mirror *kept, const struct kx_mirror *mirror, struct kx_index *index,
		      const struct kx_totals *totals)
{
	kept->store = mirror->store;
	kept->recall = mirror->recall;
	kept->kept_videos = totals->videos;
	kept->kept_epoch = totals->epoch;
	if (kx_attributes_copy_classes(mirror->columns->attributes, kept->columns->attributes))
		return KX_ENOMEM;
	return kx_mirror_use_index(kept, index, mirror->store, true);
}

kx_status kx_mirror_kept_make(struct kx_mirror *mirror, struct kx_index *index, const struct kx_totals *totals,
			      struct kx_error *error)
{
	struct kx_snapshot *snapshot = NULL;
	struct kx_error why = {0};
	kx_status status = mirror->keep_dir ? open_snapshot(mirror, &snapshot, &why) : KX_ENOTFOUND;

	if (status) {
		if (why.message[0])
			kx_log(status == KX_ENOTFOUND ? KX_LOG_INFO : KX_LOG_WARN,
			       "a filter waits until all records are read, for want of their snapshot: %s", why.message);
		return KX_OK;
	}
	if (kx_mirror_new(&mirror->kept)) {
		kx_snapshot_close(snapshot);
		return kx_error_nomem(error);
	}
	mirror->kept->snapshot = snapshot;
	atomic_store(&mirror->has_snapshot, true);
	return fill(mirror->kept, mirror, index, totals) ? kx_error_nomem(error) : KX_OK;
}
