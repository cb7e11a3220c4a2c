/* What is done to a store as a whole: compacting it and copying it. */
#include "common/base/fs.h"
#include "common/base/str.h"
#include "shard/run/internal.h"

static kx_status compact(struct kx_store *store, struct kx_index *index, struct kx_error *error)
{
	/* First: what is folded leaves its changes behind to be cleared away. */
	kx_status status = index ? kx_index_fold_all(index, error) : KX_OK;

	return status ? status : kx_kv_compact(kx_store_kv(store), error);
}

static kx_status checkpoint(struct kx_store *store, struct kx_index *index, const char *path, struct kx_error *error)
{
	kx_status status = index ? kx_index_checkpoint(index, path, error)
				 : kx_kv_checkpoint(kx_store_kv(store), path, error);

	/* What was there before is somebody else's. */
	if (status && status != KX_EEXIST)
		(void)!kx_fs_remove_tree(path, NULL);
	return status;
}

kx_status kx_shard_take_care(struct kx_store *store, struct kx_index *index, const struct kx_care_order *order,
			     struct kx_care_done *ret, struct kx_error *error)
{
	struct kx_care_done done = {.bytes_before = kx_store_disk_bytes(store)};
	kx_status status;

	switch (order->work) {
	case KX_CARE_COMPACT:
		status = compact(store, index, error);
		done.bytes_after = kx_store_disk_bytes(store);
		break;
	case KX_CARE_CHECKPOINT:
		status = checkpoint(store, index, order->path, error);
		done.bytes_after = kx_fs_tree_bytes(order->path);
		break;
	default:
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "work that a shard does not know: %d",
				    (int)order->work);
	}
	if (!status)
		*ret = done;
	return status;
}

kx_status kx_shard_care(const char *data_dir, const struct kx_care_order *order, struct kx_care_done *ret,
			struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(data_dir, "shard-0");
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = NULL;
	KX_CLEANUP(kx_index_cleanup) struct kx_index *index = NULL; /* closed before the store */
	kx_status status;

	if (!path)
		return kx_error_nomem(error);
	if (!kx_fs_exists(path)) /* opening to write would make one */
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_FATAL, "%s holds no store: nothing was indexed into it yet",
				    data_dir);
	status = kx_shard_store_open(data_dir, false, &store, error);
	if (!status)
		status = kx_shard_index_open(store, data_dir, false, true, 0, &index, error);
	return status ? status : kx_shard_take_care(store, index, order, ret, error);
}
