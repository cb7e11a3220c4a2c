#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "shard/store/internal.h"

char *kx_store_tombstone_key(const char *id)
{
	return kx_strf("deleted/%s", id);
}

static kx_status load_tombstone(struct kx_store *store, struct kx_entity *entity, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *key = kx_store_tombstone_key(entity->id);
	kx_status status = kx_store_number(store, key, &entity->deleted_upto, error);

	return status == KX_ENOTFOUND ? KX_OK : status;
}

static kx_status load_pending(struct kx_store *store, struct kx_entity *entity, struct kx_error *error)
{
	struct kx_buf value = {.max = KX_RECORD_MAX};
	struct kx_key key;
	kx_status status;

	kx_key_id(&key, entity->id);
	status = kx_kv_get(store->kv, KX_STORE_PENDING, key.bytes, key.len, &value, error);
	if (!status)
		status = kx_pending_video_unpack(value.data, value.len, &entity->pending, error);
	kx_buf_done(&value);
	return status == KX_ENOTFOUND ? KX_OK : status;
}

static kx_status load_stored(struct kx_store *store, struct kx_entity *entity, struct kx_error *error)
{
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	kx_status status = kx_store_video(store, entity->id, &record, error);

	if (!status)
		entity->stored = record->generation;
	return status == KX_ENOTFOUND ? KX_OK : status;
}

static void entity_done(struct kx_entity *entity)
{
	free(entity->id);
	kx_pending_video_free(entity->pending);
}

static kx_status entity_load(struct kx_store *store, const char *id, struct kx_entity *ret, struct kx_error *error)
{
	struct kx_entity entity = {.id = kx_strdup(id)};
	kx_status status;

	if (!entity.id)
		return kx_error_nomem(error);
	status = load_tombstone(store, &entity, error);
	if (!status)
		status = load_pending(store, &entity, error);
	if (!status)
		status = load_stored(store, &entity, error);
	if (!status) {
		*ret = entity;
		return KX_OK;
	}
	/* What this store itself wrote does not read back: that is no fault of the message. */
	if (error)
		error->class = KX_ERROR_FATAL;
	status = kx_error_prefix(error, status, "stored state of %s: ", id);
	entity_done(&entity);
	return status;
}

static kx_status entities_reserve(struct kx_entities *all)
{
	size_t cap = all->cap ? all->cap * 2 : 16;
	struct kx_entity *list;

	if (all->count < all->cap)
		return KX_OK;
	list = realloc(all->list, cap * sizeof(*list));
	if (!list)
		return KX_ENOMEM;
	all->list = list;
	all->cap = cap;
	return KX_OK;
}

kx_status kx_entity_get(struct kx_store *store, struct kx_entities *all, const char *id, struct kx_entity **ret,
			struct kx_error *error)
{
	kx_status status;

	/* From the newest: messages of a video come together. */
	for (size_t i = all->count; i-- > 0;) {
		if (strcmp(all->list[i].id, id) == 0) {
			*ret = &all->list[i];
			return KX_OK;
		}
	}
	if (entities_reserve(all))
		return kx_error_nomem(error);
	status = entity_load(store, id, &all->list[all->count], error);
	if (status)
		return status;
	*ret = &all->list[all->count++];
	return KX_OK;
}

kx_status kx_entity_set_pending(struct kx_entity *entity, const struct kx_pending_video *pending,
				struct kx_error *error)
{
	struct kx_pending_video *copy = NULL;
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	kx_status status = KX_OK;

	/* Packing and unpacking is the copy: it owns its strings, and it is known to read back. */
	if (pending) {
		status = kx_pending_video_pack(pending, &packed);
		if (status)
			status = kx_error_set(error, status, KX_ERROR_FATAL, "state of %s: %s", entity->id,
					      kx_status_name(status));
		else
			status = kx_pending_video_unpack(packed.data, packed.len, &copy, error);
	}
	kx_buf_done(&packed);
	if (status)
		return status;
	kx_pending_video_free(entity->pending);
	entity->pending = copy;
	entity->pending_dirty = true;
	return KX_OK;
}

static kx_status entity_write(struct kx_entity *entity, struct kx_kv_batch *write, struct kx_error *error)
{
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	struct kx_key key;
	kx_status status;

	kx_key_id(&key, entity->id);
	if (!entity->pending) {
		kx_kv_batch_delete(write, KX_STORE_PENDING, key.bytes, key.len);
		return KX_OK;
	}
	status = kx_pending_video_pack(entity->pending, &packed);
	if (!status)
		kx_kv_batch_put(write, KX_STORE_PENDING, key.bytes, key.len, packed.data, packed.len);
	kx_buf_done(&packed);
	return status ? kx_error_set(error, status, KX_ERROR_FATAL, "state of %s: %s", entity->id,
				     kx_status_name(status))
		      : KX_OK;
}

kx_status kx_entities_write(struct kx_entities *all, struct kx_kv_batch *write, struct kx_error *error)
{
	for (size_t i = 0; i < all->count; i++) {
		kx_status status = KX_OK;

		if (all->list[i].pending_dirty)
			status = entity_write(&all->list[i], write, error);
		if (status)
			return status;
		all->list[i].pending_dirty = false;
	}
	return KX_OK;
}

void kx_entities_done(struct kx_entities *all)
{
	for (size_t i = 0; i < all->count; i++)
		entity_done(&all->list[i]);
	free(all->list);
	*all = (struct kx_entities){0};
}
