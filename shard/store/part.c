/* Which part of a catalogue a store is for. */
#include <inttypes.h>
#include <string.h>

#include "shard/store/internal.h"

/* Numbers of the meta family. A store of the whole has none of them, as one of before there were parts. */
static const char part_key[] = "part/number";
static const char parts_key[] = "part/of";
static const char partitions_key[] = "part/partitions";

static kx_status read_number(struct kx_store *store, const char *key, uint32_t *ret, struct kx_error *error)
{
	uint64_t value = *ret;
	kx_status status = kx_store_number(store, key, &value, error);

	*ret = (uint32_t)value;
	return status == KX_ENOTFOUND ? KX_OK : status;
}

kx_status kx_store_part(struct kx_store *store, struct kx_store_part *ret, struct kx_error *error)
{
	*ret = (struct kx_store_part){.parts = 1};
	kx_status status = read_number(store, part_key, &ret->part, error);

	if (!status)
		status = read_number(store, parts_key, &ret->parts, error);
	return status ? status : read_number(store, partitions_key, &ret->partitions, error);
}

static void put_number(struct kx_kv_batch *batch, const char *key, uint32_t number)
{
	uint8_t value[8];

	kx_be64_put(value, number);
	kx_kv_batch_put(batch, KX_STORE_META, key, strlen(key), value, sizeof(value));
}

static kx_status write_part(struct kx_store *store, const struct kx_store_part *part, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;

	if (kx_kv_batch_new(store->kv, &batch))
		return kx_error_nomem(error);
	put_number(batch, part_key, part->part);
	put_number(batch, parts_key, part->parts);
	put_number(batch, partitions_key, part->partitions);
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
				    ": videos would be looked for on other shards. Use stores of that topic, or spread these anew",
				    has->partitions, wanted->partitions);
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
			    "the store holds part %" PRIu32 " of %" PRIu32 ", and part %" PRIu32 " of %" PRIu32
			    " was asked for. A store keeps its part (--shards %" PRIu32 " --shard %" PRIu32
			    "); kinodex shard spread makes stores of another number of shards",
			    has->part, has->parts, wanted->part, wanted->parts, has->parts, has->part);
}

kx_status kx_store_claim(struct kx_store *store, const struct kx_store_part *part, struct kx_error *error)
{
	struct kx_store_part has;
	bool empty = false;
	kx_status status = kx_store_part(store, &has, error);

	if (status || is_same(&has, part))
		return status;
	status = has.parts == 1 ? is_empty(store, &empty, error) : KX_OK;
	if (status)
		return status;
	return empty ? write_part(store, part, error) : refuse(&has, part, error);
}
