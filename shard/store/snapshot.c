/* Which snapshot there is of the records, and which of them have changed since. */
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "shard/store/internal.h"

const char kx_store_snapshot_key[] = "snapshot";
const char kx_store_changed_prefix[] = "changed/";
static const char changed_end[] = "changed0"; /* behind every id */

#define PREFIX_MAX 16u

kx_status kx_store_snapshot(struct kx_store *store, struct kx_buf *out, struct kx_error *error)
{
	return kx_kv_get(store->kv, KX_STORE_META, kx_store_snapshot_key, strlen(kx_store_snapshot_key), out, error);
}

static kx_status count_change(void *ctx, const char *id, struct kx_error *error)
{
	(void)id, (void)error;
	++*(uint64_t *)ctx;
	return KX_OK;
}

kx_status kx_store_look_for_snapshot(struct kx_store *store, struct kx_error *error)
{
	struct kx_buf value = {.max = SIZE_MAX / 2};
	kx_status status = kx_store_snapshot(store, &value, error);

	kx_buf_done(&value);
	store->notes_changes = !status;
	if (status || store->read_only)
		return status == KX_ENOTFOUND ? KX_OK : status;
	return kx_store_each_changed(store, count_change, &store->changed, error);
}

kx_status kx_store_set_snapshot(struct kx_store *store, const void *bytes, size_t len, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	kx_status status;

	if (!len && !store->notes_changes)
		return KX_OK;
	if (kx_kv_batch_new(store->kv, &batch))
		return kx_error_nomem(error);
	kx_kv_batch_delete_range(batch, KX_STORE_META, kx_store_changed_prefix, strlen(kx_store_changed_prefix), changed_end,
				 strlen(changed_end));
	if (len)
		kx_kv_batch_put(batch, KX_STORE_META, kx_store_snapshot_key, strlen(kx_store_snapshot_key), bytes, len);
	else
		kx_kv_batch_delete(batch, KX_STORE_META, kx_store_snapshot_key, strlen(kx_store_snapshot_key));
	status = kx_kv_write(store->kv, batch, true, error);
	if (status)
		return status;
	store->notes_changes = len != 0;
	store->changed = 0;
	return KX_OK;
}

void kx_store_note_change(struct kx_store *store, struct kx_kv_batch *write, const char *id)
{
	uint8_t key[PREFIX_MAX + KX_ID_MAX];
	const size_t prefix = strlen(kx_store_changed_prefix), len = strlen(id);

	if (!store->notes_changes)
		return;
	memcpy(key, kx_store_changed_prefix, prefix);
	memcpy(key + prefix, id, len);
	kx_kv_batch_put(write, KX_STORE_META, key, prefix + len, "", 0);
	store->changed++;
}

kx_status kx_store_each_changed(struct kx_store *store,
				kx_status (*visit)(void *ctx, const char *id, struct kx_error *error), void *ctx,
				struct kx_error *error)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	const size_t prefix = strlen(kx_store_changed_prefix);

	if (kx_kv_iter_new(store->kv, KX_STORE_META, kx_store_changed_prefix, prefix, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t len;
		const char *key = kx_kv_iter_key(iter, &len);
		KX_CLEANUP(kx_cleanup_free) char *id = kx_strndup(key + prefix, len - prefix);
		kx_status status = id ? visit(ctx, id, error) : kx_error_nomem(error);

		if (status)
			return status;
	}
	return kx_kv_iter_error(iter, error);
}

bool kx_store_has_snapshot(const struct kx_store *store)
{
	return store->notes_changes;
}

uint64_t kx_store_changed(const struct kx_store *store)
{
	return store->changed;
}
