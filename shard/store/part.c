/* Which part of a catalogue a store is for. */
#include <inttypes.h>
#include <string.h>

#include "shard/store/internal.h"

#define PART_BYTES 24u

static const char part_key[] = "part";

/* A store of the whole has no such record, as one of before there were parts. */
static kx_status read_part(struct kx_store *store, struct kx_store_part *ret, struct kx_error *error)
{
	struct kx_buf value = {.max = 64};
	kx_status status = kx_kv_get(store->kv, KX_STORE_META, part_key, strlen(part_key), &value, error);

	*ret = (struct kx_store_part){.parts = 1};
	if (!status && value.len != PART_BYTES)
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "stored %s: %zu bytes", part_key, value.len);
	if (!status)
		*ret = (struct kx_store_part){.part = (uint32_t)kx_be64_get(value.data),
					      .parts = (uint32_t)kx_be64_get(value.data + 8),
					      .partitions = (uint32_t)kx_be64_get(value.data + 16)};
	kx_buf_done(&value);
	return status == KX_ENOTFOUND ? KX_OK : status;
}

static kx_status write_part(struct kx_store *store, const struct kx_store_part *part, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	uint8_t value[PART_BYTES];

	if (kx_kv_batch_new(store->kv, &batch))
		return kx_error_nomem(error);
	kx_be64_put(value, part->part);
	kx_be64_put(value + 8, part->parts);
	kx_be64_put(value + 16, part->partitions);
	kx_kv_batch_put(batch, KX_STORE_META, part_key, strlen(part_key), value, sizeof(value));
	return kx_kv_write(store->kv, batch, true, error);
}

static kx_status family_is_empty(struct kx_store *store, enum kx_store_family family, bool *ret, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;

	if (kx_kv_iter_new(store->kv, family, NULL, 0, &iter))
		return kx_error_nomem(error);
	*ret = !kx_kv_iter_valid(iter);
	return kx_kv_iter_error(iter, error);
}

static kx_status is_empty(struct kx_store *store, bool *ret, struct kx_error *error)
{
	kx_status status = family_is_empty(store, KX_STORE_VIDEOS, ret, error);

	return status || !*ret ? status : family_is_empty(store, KX_STORE_PENDING, ret, error);
}

static bool is_same(const struct kx_store_part *a, const struct kx_store_part *b)
{
	return a->parts == b->parts && a->part == b->part && (a->parts == 1 || a->partitions == b->partitions);
}

static kx_status refuse(const struct kx_store_part *has, const struct kx_store_part *wanted, struct kx_error *error)
{
	if (has->parts == wanted->parts && has->part == wanted->part)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "the store is of a results topic of %" PRIu32 " partitions, and this one has %" PRIu32
				    ": videos would be looked for on other shards. Start all shards on new data directories",
				    has->partitions, wanted->partitions);
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
			    "the store holds part %" PRIu32 " of %" PRIu32 ", and part %" PRIu32 " of %" PRIu32
			    " was asked for. A store keeps its part (--shards %" PRIu32 " --shard %" PRIu32
			    "); for another number of shards start all of them on new data directories",
			    has->part, has->parts, wanted->part, wanted->parts, has->parts, has->part);
}

kx_status kx_store_claim(struct kx_store *store, const struct kx_store_part *part, struct kx_error *error)
{
	struct kx_store_part has;
	bool empty = false;
	kx_status status = read_part(store, &has, error);

	if (status || is_same(&has, part))
		return status;
	status = has.parts == 1 ? is_empty(store, &empty, error) : KX_OK;
	if (status)
		return status;
	return empty ? write_part(store, part, error) : refuse(&has, part, error);
}
