/* What the mirror adds up to, and will after changes. */
#include <stdlib.h>
#include <string.h>

#include "shard/query/indexed.h"
#include "shard/query/mirror_internal.h"

static void take_totals(const struct kx_mirror *mirror, struct kx_totals *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->videos = mirror->stats.videos;
	ret->moments = mirror->stats.moments;
	ret->media_us = mirror->stats.media_us;
	ret->epoch = mirror->epoch;
	kx_indexed_totals(mirror->ann, ret);
}

static bool changes_record(const struct kx_store_change *change)
{
	return change->kind == KX_STORE_STORED || change->kind == KX_STORE_REMOVED;
}

/* The last change of a video is what it is afterwards. */
static bool is_last(const struct kx_store_change *changes, size_t count, size_t at)
{
	for (size_t i = at + 1; i < count; i++)
		if (changes_record(&changes[i]) && strcmp(changes[i].id, changes[at].id) == 0)
			return false;
	return true;
}

static kx_status follow(const struct kx_mirror *mirror, const struct kx_store_change *change, struct kx_totals *totals)
{
	const struct mirror_row *row = kx_mirror_row(mirror, change->id);
	struct kx_totals_video video;
	kx_status status;

	if (row) {
		video = (struct kx_totals_video){.moments = row->moments, .media_us = row->media_us, .mark = row->mark};
		kx_indexed_video_totals(mirror->ann, row->number, &video);
		kx_totals_add(totals, &video, -1);
	}
	if (change->kind == KX_STORE_REMOVED)
		return KX_OK;
	status = kx_totals_of_record(totals, change->record, &video);
	if (status)
		return status;
	video.loose = !kx_indexed_takes(mirror->index, change->record);
	kx_totals_add(totals, &video, 1);
	return KX_OK;
}

kx_status kx_mirror_totals_after(struct kx_mirror *mirror, const struct kx_store_change *changes, size_t count,
				 struct kx_buf *out, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) struct kx_totals *totals = NULL;
	kx_status status = KX_OK;

	if (!mirror->indexed)
		return KX_OK;
	totals = malloc(sizeof(*totals));
	if (!totals)
		return kx_error_nomem(error);
	pthread_rwlock_rdlock(&mirror->lock);
	take_totals(mirror, totals);
	for (size_t i = 0; !status && i < count; i++)
		if (changes_record(&changes[i]) && is_last(changes, count, i))
			status = follow(mirror, &changes[i], totals);
	pthread_rwlock_unlock(&mirror->lock);
	/* One space too many: nobody can rely on them, and the commit takes them away. */
	if (status == KX_ETOOBIG)
		return KX_OK;
	if (!status)
		status = kx_totals_encode(totals, out);
	return status ? kx_error_nomem(error) : KX_OK;
}
