/* Answers before everything is loaded: from a second mirror, of the videos that searches found so far. What it adds up to is
 * known (totals.h), the index finds by itself, and a video that it finds is read when it is not there yet. Nothing changes
 * meanwhile: whoever changes the store has loaded everything before. */
#include <stdlib.h>
#include <string.h>

#include "shard/query/indexed.h"
#include "shard/query/mirror_internal.h"

#define ATTEMPTS 64 /* of one search; each reads what the one before lacked */

static kx_status read_totals(struct kx_store *store, struct kx_totals *ret)
{
	struct kx_buf bytes = {.max = SIZE_MAX / 2};
	kx_status status = kx_store_totals(store, &bytes, NULL);

	if (!status)
		status = kx_totals_decode(bytes.data, bytes.len, ret);
	kx_buf_done(&bytes);
	return status;
}

static kx_status fill_early(struct kx_mirror *early, const struct kx_mirror *mirror, struct kx_index *index,
			    const struct kx_totals *totals)
{
	kx_status status = kx_mirror_use_index(early, index, mirror->store, true);

	if (!status)
		status = kx_indexed_preset(early->ann, totals);
	early->partial = true;
	early->recall = mirror->recall;
	early->stats.videos = totals->videos;
	early->stats.moments = totals->moments;
	early->stats.media_us = totals->media_us;
	early->epoch = totals->epoch;
	return status;
}

/* *ret NULL: everything must be loaded. */
static kx_status make_early(struct kx_mirror *mirror, struct kx_index *index, struct kx_mirror **ret,
			    struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) struct kx_totals *totals = malloc(sizeof(*totals));
	struct kx_mirror *early = NULL;
	kx_status status;

	*ret = NULL;
	if (!totals)
		return kx_error_nomem(error);
	/* Totals that don't read back are as none: loading makes them anew. */
	if (!index || read_totals(mirror->store, totals) || totals->loose || totals->videos > UINT32_MAX)
		return KX_OK;
	if (kx_mirror_new(&early))
		return kx_error_nomem(error);
	status = fill_early(early, mirror, index, totals);
	if (status) {
		kx_mirror_free(early);
		return status == KX_EBUSY ? KX_OK : kx_error_nomem(error);
	}
	*ret = early;
	return kx_mirror_kept_make(mirror, index, totals, error);
}

kx_status kx_mirror_defer(struct kx_mirror *mirror, struct kx_store *store, struct kx_index *index,
			  const struct kx_stop *stop, struct kx_error *error)
{
	kx_status status;

	mirror->store = store;
	mirror->stop = stop;
	status = make_early(mirror, index, &mirror->early, error);
	if (status)
		return status;
	if (!mirror->early)
		return kx_mirror_load(mirror, store, error);
	atomic_store(&mirror->loaded, false);
	return KX_OK;
}

static bool is_set(const char *text)
{
	return text && text[0];
}

static bool needs_all(const struct kx_similar_query *query)
{
	return is_set(query->filter) || query->not_id_count || query->group == KX_GROUP_DUPLICATES ||
	       query->level != KX_LEVEL_VIDEOS;
}

/* KX_EBUSY: the index and the records do not agree after all. */
static kx_status read_video(struct kx_mirror *early, struct kx_store *store, const char *id, struct kx_error *error)
{
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	kx_status status;

	if (kx_mirror_row(early, id))
		return KX_EBUSY;
	status = kx_store_video(store, id, &record, error);
	if (status)
		return status == KX_ENOTFOUND ? KX_EBUSY : status;
	return kx_mirror_put(early, record, error);
}

static kx_status read_missing(struct kx_mirror *early, struct kx_store *store, struct kx_error *error)
{
	struct kx_buf ids = {.max = SIZE_MAX / 2};
	bool all;
	kx_status status = kx_indexed_missing(early->ann, &ids, &all);

	if (status)
		status = kx_error_nomem(error);
	else if (all)
		status = KX_EBUSY;
	for (size_t at = 0; !status && at < ids.len; at += strlen((const char *)ids.data + at) + 1)
		/* Both lists may name it; the first was not there, or the search would want it for ever. */
		if (!at || !kx_mirror_row(early, (const char *)ids.data + at))
			status = read_video(early, store, (const char *)ids.data + at, error);
	kx_buf_done(&ids);
	return status;
}

/* What is left out must be known for that. KX_EBUSY: there is no such video. */
static kx_status read_excluded(struct kx_mirror *early, struct kx_store *store, const struct kx_mirror_query *query,
			       struct kx_error *error)
{
	kx_status status = KX_OK;

	if (query->exclude && !kx_mirror_row(early, query->exclude))
		status = read_video(early, store, query->exclude, error);
	return status == KX_EBUSY ? KX_OK : status;
}

/* Those that are left over, with KX_EBUSY, need everything. */
static void search(struct kx_mirror *early, struct kx_store *store, struct kx_mirror_asked **asked, size_t n)
{
	struct kx_error error = {0};
	kx_status status = KX_OK;
	size_t known = 0;

	for (size_t i = 0; i < n; i++) {
		asked[i]->status = read_excluded(early, store, &asked[i]->query, &asked[i]->error);
		if (!asked[i]->status)
			asked[known++] = asked[i];
	}
	n = known;
	for (int i = 0; !status && n && i < ATTEMPTS; i++) {
		kx_mirror_search_here(early, asked, n);
		n = kx_mirror_still_asked(asked, n, asked);
		status = n ? read_missing(early, store, &error) : KX_OK;
	}
	for (size_t i = 0; i < n; i++) {
		asked[i]->status = status ? status : KX_EBUSY;
		asked[i]->error = error;
	}
}

/* Those that need all videos, by the snapshot. */
static void search_kept(struct kx_mirror *mirror, struct kx_mirror_asked *const *asked, size_t n)
{
	struct kx_mirror *kept = kx_mirror_kept_begin(mirror, false);

	if (!kept)
		return;
	kx_mirror_search_here(kept, asked, n);
	kx_mirror_kept_answered(mirror);
	if (!kx_mirror_kept_end(mirror, KX_OK))
		return;
	for (size_t i = 0; i < n; i++) {
		kx_similar_answer_done(asked[i]->answer);
		asked[i]->status = KX_EBUSY;
		asked[i]->error = (struct kx_error){0};
	}
}

void kx_mirror_search_early(struct kx_mirror *mirror, struct kx_mirror_asked *const *asked, size_t n)
{
	KX_CLEANUP(kx_cleanup_free) struct kx_mirror_asked **open = malloc((n + 1) * sizeof(struct kx_mirror_asked *));
	size_t count = 0, all = n;

	for (size_t i = 0; i < n; i++)
		asked[i]->status = KX_EBUSY;
	if (!open)
		return;
	for (size_t i = 0; i < n; i++)
		if (!needs_all(asked[i]->query.query))
			open[count++] = asked[i];
		else if (asked[i]->query.query->group != KX_GROUP_DUPLICATES)
			open[--all] = asked[i];
	pthread_mutex_lock(&mirror->early_lock);
	if (count && mirror->early)
		search(mirror->early, mirror->store, open, count);
	pthread_mutex_unlock(&mirror->early_lock);
	if (all < n)
		search_kept(mirror, open + all, n - all);
}
