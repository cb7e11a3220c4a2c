#include "shard/store/store.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "shard/store/internal.h"

#define LOCAL_BUS_HEX 32u
#define FAMILIES_MAX 32u

static const struct kx_kv_family families[KX_STORE_FAMILIES] = {
	[KX_STORE_META] = {.name = "meta"},
	[KX_STORE_PENDING] = {.name = "pending"},
	[KX_STORE_VIDEOS] = {.name = "videos"},
	[KX_STORE_MOMENTS] = {.name = "moments"},
	[KX_STORE_FEATURES] = {.name = "features", .compress = true},
	[KX_STORE_OUTBOX] = {.name = "outbox"},
};

static const char format_key[] = "format";
static const char offset_prefix[] = "offset/";
const char kx_store_totals_key[] = "totals";

static kx_status write_format(struct kx_store *store, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	uint8_t value[8];

	if (kx_kv_batch_new(store->kv, &batch))
		return kx_error_nomem(error);
	kx_be64_put(value, KX_STORE_FORMAT);
	kx_kv_batch_put(batch, KX_STORE_META, format_key, strlen(format_key), value, sizeof(value));
	return kx_kv_write(store->kv, batch, true, error);
}

static kx_status check_format(struct kx_store *store, const char *path, struct kx_error *error)
{
	struct kx_buf value = {.max = 64};
	kx_status status = kx_kv_get(store->kv, KX_STORE_META, format_key, strlen(format_key), &value, error);
	uint64_t format = !status && value.len == 8 ? kx_be64_get(value.data) : 0;

	kx_buf_done(&value);
	/* A new one, or one whose maker died before this first write: nothing is ever written before it. */
	if (status == KX_ENOTFOUND && !store->read_only)
		return write_format(store, error);
	if (status == KX_ENOTFOUND)
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_FATAL, "store %s: nothing is in it yet", path);
	if (status)
		return status;
	if (format && format < KX_STORE_FORMAT)
		return store->read_only ? KX_OK : write_format(store, error);
	if (format != KX_STORE_FORMAT)
		return kx_error_set(error, KX_EVERSION, KX_ERROR_FATAL,
				    "store %s: written in format %" PRIu64 ", this program has format %u; index into a new "
				    "data directory, or use the version that wrote it",
				    path, format, KX_STORE_FORMAT);
	return KX_OK;
}

static kx_status open_kv(struct kx_store *store, const char *path, const struct kx_store_options *options,
			 struct kx_error *error)
{
	struct kx_kv_family all[FAMILIES_MAX];
	struct kx_kv_options kv = {
		.families = all,
		.family_count = KX_STORE_FAMILIES + options->more_count,
		.read_only = options->read_only,
		.create = !options->read_only,
	};
	kx_status status;

	if (kv.family_count > FAMILIES_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "store %s: %zu families", path, kv.family_count);
	memcpy(all, families, sizeof(families));
	for (size_t i = 0; i < options->more_count; i++)
		all[KX_STORE_FAMILIES + i] = options->more[i];
	status = kx_kv_open(path, &kv, &store->kv, error);
	store->has_more = !status && options->more_count;
	if (status != KX_EVERSION || !options->read_only || !options->more_count)
		return status;
	if (error)
		*error = (struct kx_error){0};
	kv.family_count = KX_STORE_FAMILIES;
	return kx_kv_open(path, &kv, &store->kv, error);
}

kx_status kx_store_open(const struct kx_store_options *options, struct kx_store **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = calloc(1, sizeof(*store));
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(options->data_dir, "shard-0");
	kx_status status;

	if (!store || !path)
		return kx_error_nomem(error);
	store->read_only = options->read_only;
	status = open_kv(store, path, options, error);
	if (!status)
		status = check_format(store, path, error);
	if (!status)
		status = kx_store_look_for_snapshot(store, error);
	if (status)
		return status;
	*ret = KX_STEAL(store);
	return KX_OK;
}

void kx_store_close(struct kx_store *store)
{
	if (!store)
		return;
	kx_kv_close(store->kv);
	free(store);
}

void kx_store_cleanup(struct kx_store **store)
{
	kx_store_close(*store);
	*store = NULL;
}

bool kx_store_has_more(const struct kx_store *store)
{
	return store->has_more;
}

struct kx_kv *kx_store_kv(struct kx_store *store)
{
	return store->kv;
}

kx_status kx_store_totals(struct kx_store *store, struct kx_buf *out, struct kx_error *error)
{
	return kx_kv_get(store->kv, KX_STORE_META, kx_store_totals_key, strlen(kx_store_totals_key), out, error);
}

kx_status kx_store_set_totals(struct kx_store *store, const void *bytes, size_t len, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	kx_status status = len ? KX_OK : kx_store_set_snapshot(store, NULL, 0, error);

	if (status)
		return status;
	if (kx_kv_batch_new(store->kv, &batch))
		return kx_error_nomem(error);
	if (len)
		kx_kv_batch_put(batch, KX_STORE_META, kx_store_totals_key, strlen(kx_store_totals_key), bytes, len);
	else
		kx_kv_batch_delete(batch, KX_STORE_META, kx_store_totals_key, strlen(kx_store_totals_key));
	return kx_kv_write(store->kv, batch, true, error);
}

kx_status kx_store_video(struct kx_store *store, const char *id, struct kx_video_record **ret, struct kx_error *error)
{
	struct kx_buf value = {.max = KX_RECORD_MAX};
	struct kx_key key;
	kx_status status;

	if (strlen(id) > KX_ID_MAX)
		return KX_ENOTFOUND;
	kx_key_id(&key, id);
	status = kx_kv_get(store->kv, KX_STORE_VIDEOS, key.bytes, key.len, &value, error);
	if (!status) {
		status = kx_video_record_unpack(value.data, value.len, ret, error);
		if (status)
			(void)kx_error_prefix(error, status, "stored video %s: ", id);
	}
	kx_buf_done(&value);
	return status;
}

kx_status kx_store_each_video(struct kx_store *store,
			      kx_status (*visit)(void *ctx, const struct kx_video_record *video, struct kx_error *error),
			      void *ctx, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;

	if (kx_kv_iter_new(store->kv, KX_STORE_VIDEOS, NULL, 0, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *video = NULL;
		size_t key_len, len;
		const char *key = kx_kv_iter_key(iter, &key_len);
		const void *value = kx_kv_iter_value(iter, &len);
		kx_status status = kx_video_record_unpack(value, len, &video, error);

		if (status)
			return kx_error_prefix(error, status, "stored video %.*s: ", (int)key_len, key);
		if (strlen(video->result.video_id) != key_len || memcmp(video->result.video_id, key, key_len) != 0)
			return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON, "stored video %.*s: the record is of %s",
					    (int)key_len, key, video->result.video_id);
		status = visit(ctx, video, error);
		if (status)
			return status;
	}
	return kx_kv_iter_error(iter, error);
}

/* Walks one family of a generation's moments. The key of each is checked and handed over. */
static kx_status each_moment_record(struct kx_store *store, enum kx_store_family family, const char *id,
				    uint64_t generation,
				    kx_status (*visit)(void *ctx, const struct kx_moment_key *key, const void *value,
						       size_t len, struct kx_error *error),
				    void *ctx, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	struct kx_key prefix;

	kx_key_generation(&prefix, id, generation);
	if (kx_kv_iter_new(store->kv, family, prefix.bytes, prefix.len, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		struct kx_moment_key parsed;
		size_t key_len, len;
		const void *key = kx_kv_iter_key(iter, &key_len);
		const void *value = kx_kv_iter_value(iter, &len);
		kx_status status;

		if (!kx_moment_key_parse(key, key_len, &parsed))
			return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON, "stored video %s: a key that is no moment's",
					    id);
		status = visit(ctx, &parsed, value, len, error);
		if (status)
			return status;
	}
	return kx_kv_iter_error(iter, error);
}

static kx_status moment_prefix(struct kx_error *error, kx_status status, const struct kx_moment_key *key)
{
	return kx_error_prefix(error, status, "stored video %s, %s moment %" PRIu32 ": ", key->id,
			       kx_modality_name(key->modality), key->index);
}

static kx_status check_key(const struct kx_moment_key *key, enum kx_modality modality, uint32_t index,
			   struct kx_error *error)
{
	if (key->modality == modality && key->index == index)
		return KX_OK;
	(void)kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON, "the record is of %s moment %" PRIu32,
			   kx_modality_name(modality), index);
	return moment_prefix(error, KX_ECORRUPT, key);
}

struct summary_visit {
	kx_status (*visit)(void *ctx, const struct kx_summary *summary, struct kx_error *error);
	void *ctx;
};

static kx_status visit_summary(void *ctx, const struct kx_moment_key *key, const void *value, size_t len,
			       struct kx_error *error)
{
	const struct summary_visit *wanted = ctx;
	struct kx_summary summary;
	kx_status status = kx_summary_unpack(value, len, &summary, error);

	if (status)
		return moment_prefix(error, status, key);
	status = check_key(key, summary.modality, summary.index, error);
	return status ? status : wanted->visit(wanted->ctx, &summary, error);
}

kx_status kx_store_each_summary(struct kx_store *store, const char *id, uint64_t generation,
				kx_status (*visit)(void *ctx, const struct kx_summary *summary, struct kx_error *error),
				void *ctx, struct kx_error *error)
{
	struct summary_visit wanted = {visit, ctx};

	return each_moment_record(store, KX_STORE_MOMENTS, id, generation, visit_summary, &wanted, error);
}

kx_status kx_store_summary(struct kx_store *store, const char *id, uint64_t generation, enum kx_modality modality,
			   uint32_t index, struct kx_summary *ret, struct kx_error *error)
{
	const struct kx_moment_key of = {.id = id, .generation = generation, .modality = modality, .index = index};
	struct kx_buf value = {.max = KX_SUMMARY_MAX};
	struct kx_key key;
	kx_status status;

	kx_key_moment(&key, id, generation, modality, index);
	status = kx_kv_get(store->kv, KX_STORE_MOMENTS, key.bytes, key.len, &value, error);
	if (!status) {
		status = kx_summary_unpack(value.data, value.len, ret, error);
		if (status)
			status = moment_prefix(error, status, &of);
		else
			status = check_key(&of, ret->modality, ret->index, error);
	}
	kx_buf_done(&value);
	return status;
}

struct moment_visit {
	kx_status (*visit)(void *ctx, const struct kx_moment *moment, const void *bytes, size_t len,
			   struct kx_error *error);
	void *ctx;
};

static kx_status visit_moment(void *ctx, const struct kx_moment_key *key, const void *value, size_t len,
			      struct kx_error *error)
{
	const struct moment_visit *wanted = ctx;
	KX_CLEANUP(kx_moment_cleanup) struct kx_moment *moment = NULL;
	kx_status status = kx_moment_unpack(value, len, &moment, error);

	if (status)
		return moment_prefix(error, status, key);
	status = check_key(key, moment->modality, moment->index, error);
	return status ? status : wanted->visit(wanted->ctx, moment, value, len, error);
}

kx_status kx_store_each_moment(struct kx_store *store, const char *id, uint64_t generation,
			       kx_status (*visit)(void *ctx, const struct kx_moment *moment, const void *bytes,
						  size_t len, struct kx_error *error),
			       void *ctx, struct kx_error *error)
{
	struct moment_visit wanted = {visit, ctx};

	return each_moment_record(store, KX_STORE_FEATURES, id, generation, visit_moment, &wanted, error);
}

kx_status kx_store_pending_count(struct kx_store *store, uint64_t *ret, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	uint64_t count = 0;
	kx_status status;

	if (kx_kv_iter_new(store->kv, KX_STORE_PENDING, NULL, 0, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter))
		count++;
	status = kx_kv_iter_error(iter, error);
	if (!status)
		*ret = count;
	return status;
}

uint64_t kx_store_disk_bytes(struct kx_store *store)
{
	return kx_kv_disk_bytes(store->kv);
}

kx_status kx_store_number(struct kx_store *store, const char *key, uint64_t *ret, struct kx_error *error)
{
	struct kx_buf value = {.max = 64};
	kx_status status;

	if (!key)
		return kx_error_nomem(error);
	status = kx_kv_get(store->kv, KX_STORE_META, key, strlen(key), &value, error);
	if (!status && value.len != 8)
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "stored %s: %zu bytes", key, value.len);
	if (!status)
		*ret = kx_be64_get(value.data);
	kx_buf_done(&value);
	return status;
}

char *kx_store_offset_key(const char *bus, const char *topic, int partition)
{
	return kx_strf("%s%s/%s/%d", offset_prefix, bus, topic, partition);
}

kx_status kx_store_offset(struct kx_store *store, const char *bus, const char *topic, int partition, int64_t *ret,
			  struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *key = kx_store_offset_key(bus, topic, partition);
	uint64_t offset = 0;
	kx_status status = kx_store_number(store, key, &offset, error);

	if (status && status != KX_ENOTFOUND)
		return status;
	*ret = status == KX_OK ? (int64_t)offset : -1;
	return KX_OK;
}

/* As kx_bus_identity() names a local bus: no cluster's own id has this form. */
static bool is_local_bus(const char *name, size_t len)
{
	static const char prefix[] = "local-";
	const size_t prefix_len = sizeof(prefix) - 1;

	if (len != prefix_len + LOCAL_BUS_HEX || memcmp(name, prefix, prefix_len) != 0)
		return false;
	for (size_t i = prefix_len; i < len; i++)
		if (!memchr("0123456789abcdef", name[i], 16))
			return false;
	return true;
}

static bool is_gone(const char *key, size_t len, const char *bus)
{
	const char *name = key + strlen(offset_prefix);
	const char *end = memchr(name, '/', len - strlen(offset_prefix));
	size_t name_len = end ? (size_t)(end - name) : 0;

	return is_local_bus(name, name_len) && (strlen(bus) != name_len || memcmp(bus, name, name_len) != 0);
}

kx_status kx_store_drop_offsets(struct kx_store *store, const char *bus, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	kx_status status;

	if (kx_kv_batch_new(store->kv, &batch) ||
	    kx_kv_iter_new(store->kv, KX_STORE_META, offset_prefix, strlen(offset_prefix), &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t len;
		const char *key = kx_kv_iter_key(iter, &len);

		if (is_gone(key, len, bus))
			kx_kv_batch_delete(batch, KX_STORE_META, key, len);
	}
	status = kx_kv_iter_error(iter, error);
	if (status || !kx_kv_batch_count(batch))
		return status;
	/* Without a sync: what a crash brings back goes at the next start. */
	return kx_kv_write(store->kv, batch, false, error);
}

kx_status kx_store_each_outbox(struct kx_store *store,
			       kx_status (*visit)(void *ctx, const struct kx_store_event *event, struct kx_error *error),
			       void *ctx, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;

	if (kx_kv_iter_new(store->kv, KX_STORE_OUTBOX, NULL, 0, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t key_len;
		const void *key = kx_kv_iter_key(iter, &key_len);
		struct kx_store_event event = {0};
		struct kx_event_key parsed;
		kx_status status;

		if (!kx_event_key_parse(key, key_len, &parsed))
			return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "outbox: a key of %zu bytes", key_len);
		event.id = parsed.id;
		event.generation = parsed.generation;
		event.kind = (enum kx_store_change_kind)parsed.kind;
		event.bytes = kx_kv_iter_value(iter, &event.len);
		status = visit(ctx, &event, error);
		if (status)
			return status;
	}
	return kx_kv_iter_error(iter, error);
}
