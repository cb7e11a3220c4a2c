#include "shard/run/index.h"

#include <string.h>

#include "common/base/fs.h"
#include "common/base/log.h"

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

uint64_t kx_shard_index_rows(struct kx_index *index)
{
	uint64_t rows = 0;

	for (uint32_t i = 0; i < kx_index_space_count(index); i++) {
		struct kx_index_space_info info;

		if (!kx_index_space_info(index, i, &info, NULL) && info.rows > rows)
			rows = info.rows;
	}
	return rows;
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

static kx_status commit_both(struct kx_store_batch *batch, struct kx_index *index,
			     const struct kx_indexed_changes *changes, struct kx_error *error)
{
	struct kx_index_staged *staged = NULL;
	kx_status status =
		kx_index_stage(index, kx_store_batch_write(batch), changes->list, changes->count, &staged, error);

	if (status)
		return kx_error_prefix(error, status, "index: ");
	status = kx_store_commit(batch, error);
	if (status)
		kx_index_drop(index, staged);
	else
		kx_index_apply(index, staged);
	return status;
}

kx_status kx_shard_commit(struct kx_store_batch *batch, struct kx_index *index, struct kx_mirror *mirror,
			  struct kx_error *error)
{
	struct kx_indexed_changes changes = {0};
	struct kx_buf totals = {.max = SIZE_MAX / 2};
	size_t count;
	const struct kx_store_change *list = kx_store_changes(batch, &count);
	kx_status status = index ? collect(batch, index, mirror, &changes, error) : KX_OK;

	if (!status && index)
		status = kx_mirror_totals_after(mirror, list, count, &totals, error);
	if (!status && totals.len)
		kx_store_batch_totals(batch, totals.data, totals.len);
	if (!status)
		status = changes.count ? commit_both(batch, index, &changes, error) : kx_store_commit(batch, error);
	kx_store_batch_totals(batch, NULL, 0);
	kx_buf_done(&totals);
	kx_indexed_changes_done(&changes);
	return status;
}
