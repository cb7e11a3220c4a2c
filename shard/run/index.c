#include "shard/run/index.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/log.h"
#include "shard/query/moments_index.h"

#define MOMENTS_BYTES ((size_t)64 << 20) /* of vectors in one write; what is beyond follows in writes of its own */
#define MOMENTS_MAX (KX_INDEX_CHANGES_MAX / 2)

kx_status kx_shard_store_open(const char *data_dir, bool read_only, struct kx_store **ret, struct kx_error *error)
{
	struct kx_store_options options = {.data_dir = data_dir,
					   .read_only = read_only,
					   .more = kx_index_families,
					   .more_count = KX_INDEX_FAMILIES};

	return kx_store_open(&options, ret, error);
}

/* Everything in the index's families goes. */
static kx_status wipe(struct kx_kv *kv, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	uint8_t end[64];

	if (kx_kv_batch_new(kv, &batch))
		return kx_error_nomem(error);
	memset(end, 0xff, sizeof(end));
	for (size_t i = 0; i < KX_INDEX_FAMILIES; i++)
		kx_kv_batch_delete_range(batch, KX_STORE_FAMILIES + i, "", 0, end, sizeof(end));
	return kx_kv_write(kv, batch, true, error);
}

kx_status kx_shard_index_open(struct kx_store *store, const char *data_dir, bool read_only, bool manual,
			      uint64_t memory_bytes, struct kx_index **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *dir = kx_fs_join(data_dir, "index-0");
	struct kx_index_options options = {.kv = kx_store_kv(store),
					   .family = KX_STORE_FAMILIES,
					   .dir = dir,
					   .read_only = read_only,
					   .manual = manual,
					   .memory_bytes = memory_bytes};
	struct kx_error why = {0};
	kx_status status;

	*ret = NULL;
	if (!dir)
		return kx_error_nomem(error);
	if (!kx_store_has_more(store))
		return KX_OK;
	status = kx_index_open(&options, ret, &why);
	if (status && read_only) {
		kx_log(KX_LOG_WARN, "index: %s; every video is compared instead", why.message);
		return KX_OK;
	}
	if (status == KX_ECORRUPT || status == KX_EVERSION) {
		kx_log(KX_LOG_WARN, "index: %s; it is made anew from the stored videos", why.message);
		status = kx_store_set_totals(store, NULL, 0, error);
		if (!status)
			status = wipe(kx_store_kv(store), error);
		return status ? status : kx_index_open(&options, ret, error);
	}
	if (status && error)
		*error = why;
	return status ? kx_error_prefix(error, status, "index: ") : KX_OK;
}

/* Of the space that has most. */
static uint64_t most_rows(struct kx_index *index, bool moments)
{
	uint64_t rows = 0;

	for (uint32_t i = 0; i < kx_index_space_count(index); i++) {
		struct kx_index_space_info info;

		if (kx_moments_are_in(index, i) == moments && !kx_index_space_info(index, i, &info, NULL) && info.rows > rows)
			rows = info.rows;
	}
	return rows;
}

uint64_t kx_shard_index_rows(struct kx_index *index)
{
	return most_rows(index, false);
}

uint64_t kx_shard_index_moments(struct kx_index *index)
{
	return most_rows(index, true);
}

static kx_status collect(struct kx_store_batch *batch, struct kx_index *index, struct kx_mirror *mirror,
			 struct kx_indexed_changes *changes, struct kx_error *error)
{
	size_t count;
	const struct kx_store_change *list = kx_store_changes(batch, &count);
	kx_status status = KX_OK;

	for (size_t i = 0; !status && i < count; i++) {
		if (list[i].kind == KX_STORE_STORED)
			status = kx_indexed_change_put(index, list[i].record, changes, error);
		else if (list[i].kind == KX_STORE_REMOVED)
			status = kx_indexed_change_remove(index, list[i].id, changes, error);
		else
			continue;
		/* Before the index is held: a search that mends it holds the mirror. */
		kx_mirror_expect(mirror, list[i].id);
	}
	return status;
}

/* --- Moments ----------------------------------------------------------------------------------------------------- */

static bool touches(const struct kx_store_change *change)
{
	return change->kind == KX_STORE_STORED || change->kind == KX_STORE_REMOVED;
}

/* Of several changes of a video the last one counts: the store has its moments alone. */
static bool is_last(const struct kx_store_change *list, size_t count, size_t at)
{
	for (size_t i = at + 1; i < count; i++)
		if (touches(&list[i]) && strcmp(list[i].id, list[at].id) == 0)
			return false;
	return touches(&list[at]);
}

static kx_status change_moments(struct kx_index *index, struct kx_moments *moments, const struct kx_store_change *change,
				struct kx_moments_changes *changes, struct kx_error *error)
{
	if (change->kind == KX_STORE_REMOVED)
		return kx_moments_change_remove(index, change->id, changes, error);
	return kx_moments_change_put(index, kx_moments_store(moments), change->record, changes, error);
}

/* *ret_done: how many of the batch's changes are in. */
static kx_status collect_moments(struct kx_store_batch *batch, struct kx_index *index, struct kx_moments *moments, size_t most,
				 struct kx_moments_changes *changes, size_t *ret_done, struct kx_error *error)
{
	size_t count, i;
	const struct kx_store_change *list = kx_store_changes(batch, &count);
	kx_status status = KX_OK;

	for (i = 0; !status && i < count && changes->bytes < MOMENTS_BYTES && changes->count < most; i++)
		if (is_last(list, count, i))
			status = change_moments(index, moments, &list[i], changes, error);
	*ret_done = i;
	return status;
}

/* Until this is done the rest is found by reading, and a shard that is killed before puts it in when it opens. */
static kx_status commit_rest(struct kx_store_batch *batch, struct kx_index *index, struct kx_moments *moments, size_t from,
			     struct kx_error *error)
{
	size_t count;
	const struct kx_store_change *list = kx_store_changes(batch, &count);
	struct kx_moments_changes changes = {0};
	kx_status status = KX_OK;

	for (size_t i = from; !status && i < count; i++) {
		if (is_last(list, count, i))
			status = change_moments(index, moments, &list[i], &changes, error);
		if (!status && changes.count)
			status = kx_moments_commit(index, &changes, error);
	}
	kx_moments_changes_done(&changes);
	return status;
}

/* --- Committing -------------------------------------------------------------------------------------------------- */

static kx_status commit_both(struct kx_store_batch *batch, struct kx_index *index, const struct kx_index_change *changes,
			     size_t count, struct kx_error *error)
{
	struct kx_index_staged *staged = NULL;
	kx_status status = kx_index_stage(index, kx_store_batch_write(batch), changes, count, &staged, error);

	if (status)
		return kx_error_prefix(error, status, "index: ");
	status = kx_store_commit(batch, error);
	if (status)
		kx_index_drop(index, staged);
	else
		kx_index_apply(index, staged);
	return status;
}

static kx_status commit_all(struct kx_store_batch *batch, struct kx_index *index, const struct kx_indexed_changes *videos,
			    const struct kx_moments_changes *moments, struct kx_error *error)
{
	const size_t count = videos->count + moments->count;
	KX_CLEANUP(kx_cleanup_free) struct kx_index_change *list = NULL;

	if (!count)
		return kx_store_commit(batch, error);
	list = malloc(count * sizeof(*list));
	if (!list)
		return kx_error_nomem(error);
	if (videos->count)
		memcpy(list, videos->list, videos->count * sizeof(*list));
	if (moments->count)
		memcpy(list + videos->count, moments->list, moments->count * sizeof(*list));
	return commit_both(batch, index, list, count, error);
}

kx_status kx_shard_commit_most(struct kx_store_batch *batch, struct kx_index *index, struct kx_mirror *mirror,
			       size_t moments_most, struct kx_error *error)
{
	struct kx_moments *in_index = index ? kx_mirror_moments(mirror) : NULL;
	struct kx_indexed_changes videos = {0};
	struct kx_moments_changes moments = {0};
	struct kx_buf totals = {.max = SIZE_MAX / 2};
	size_t count, done = 0;
	const struct kx_store_change *list = kx_store_changes(batch, &count);
	kx_status status = index ? collect(batch, index, mirror, &videos, error) : KX_OK;

	if (!status && in_index)
		status = collect_moments(batch, index, in_index, moments_most, &moments, &done, error);
	if (!status && index)
		status = kx_mirror_totals_after(mirror, list, count, &totals, error);
	if (!status && totals.len)
		kx_store_batch_totals(batch, totals.data, totals.len);
	if (!status)
		status = commit_all(batch, index, &videos, &moments, error);
	kx_store_batch_totals(batch, NULL, 0);
	if (!status && in_index)
		status = commit_rest(batch, index, in_index, done, error);
	kx_buf_done(&totals);
	kx_indexed_changes_done(&videos);
	kx_moments_changes_done(&moments);
	return status;
}

kx_status kx_shard_commit(struct kx_store_batch *batch, struct kx_index *index, struct kx_mirror *mirror,
			  struct kx_error *error)
{
	return kx_shard_commit_most(batch, index, mirror, MOMENTS_MAX, error);
}
