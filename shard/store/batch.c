/* The life of a batch: its writes, its changes, the events they are told by. What messages do to it is apply.c. */
#include "shard/store/batch.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"

kx_status kx_store_batch_new(struct kx_store *store, uint64_t now_ms, struct kx_store_batch **ret,
			     struct kx_error *error)
{
	KX_CLEANUP(kx_store_batch_cleanup) struct kx_store_batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return kx_error_nomem(error);
	batch->store = store;
	batch->now_ms = now_ms;
	if (kx_kv_batch_new(store->kv, &batch->write))
		return kx_error_nomem(error);
	*ret = KX_STEAL(batch);
	return KX_OK;
}

static void change_done(struct kx_store_change *change)
{
	free(change->id);
	kx_video_record_free(change->record);
	kx_buf_done(&change->event);
}

void kx_store_batch_free(struct kx_store_batch *batch)
{
	if (!batch)
		return;
	for (size_t i = 0; i < batch->change_count; i++)
		change_done(&batch->changes[i]);
	free(batch->changes);
	kx_entities_done(&batch->entities);
	kx_kv_batch_free(batch->write);
	free(batch);
}

void kx_store_batch_cleanup(struct kx_store_batch **batch)
{
	kx_store_batch_free(*batch);
	*batch = NULL;
}

void kx_store_batch_offset(struct kx_store_batch *batch, const char *bus, const char *topic, int partition,
			   int64_t next)
{
	char *key = kx_store_offset_key(bus, topic, partition);
	uint8_t value[8];

	/* Without memory for the key the offset stays behind: messages come again, and that is harmless. */
	if (!key)
		return;
	kx_be64_put(value, (uint64_t)next);
	kx_kv_batch_put(batch->write, KX_STORE_META, key, strlen(key), value, sizeof(value));
	free(key);
}

void kx_store_batch_delivered(struct kx_store_batch *batch, const char *id, uint64_t generation,
			      enum kx_store_change_kind kind)
{
	struct kx_key key;

	kx_key_event(&key, id, generation, kind);
	kx_kv_batch_delete(batch->write, KX_STORE_OUTBOX, key.bytes, key.len);
}

kx_status kx_batch_flush(struct kx_store_batch *batch, struct kx_error *error)
{
	kx_status status = kx_entities_write(&batch->entities, batch->write, error);

	if (status || !kx_kv_batch_count(batch->write))
		return status;
	batch->unsynced = true;
	kx_kv_batch_delete(batch->write, KX_STORE_META, kx_store_totals_key, strlen(kx_store_totals_key));
	return kx_kv_write(batch->store->kv, batch->write, false, error);
}

void kx_store_batch_totals(struct kx_store_batch *batch, const void *bytes, size_t len)
{
	batch->totals = bytes;
	batch->totals_len = len;
}

static bool changes_records(const struct kx_store_batch *batch)
{
	for (size_t i = 0; i < batch->change_count; i++)
		if (batch->changes[i].kind == KX_STORE_STORED || batch->changes[i].kind == KX_STORE_REMOVED)
			return true;
	return batch->unsynced;
}

/* What is told of again is the same record, but its index entry may be mended. */
static void note_changes(struct kx_store_batch *batch)
{
	for (size_t i = 0; i < batch->change_count; i++)
		if (batch->changes[i].kind == KX_STORE_STORED || batch->changes[i].kind == KX_STORE_REMOVED)
			kx_store_note_change(batch->store, batch->write, batch->changes[i].id);
}

static void put_totals(struct kx_store_batch *batch)
{
	const size_t len = strlen(kx_store_totals_key);

	if (!changes_records(batch))
		return;
	if (batch->totals)
		kx_kv_batch_put(batch->write, KX_STORE_META, kx_store_totals_key, len, batch->totals, batch->totals_len);
	else
		kx_kv_batch_delete(batch->write, KX_STORE_META, kx_store_totals_key, len);
}

kx_status kx_store_commit(struct kx_store_batch *batch, struct kx_error *error)
{
	kx_status status = kx_entities_write(&batch->entities, batch->write, error);

	if (status || (!kx_kv_batch_count(batch->write) && !batch->unsynced))
		return status;
	put_totals(batch);
	note_changes(batch);
	batch->unsynced = false;
	return kx_kv_write(batch->store->kv, batch->write, true, error);
}

struct kx_kv_batch *kx_store_batch_write(struct kx_store_batch *batch)
{
	return batch->write;
}

const struct kx_store_change *kx_store_changes(const struct kx_store_batch *batch, size_t *ret_count)
{
	*ret_count = batch->change_count;
	return batch->changes;
}

static kx_status changes_reserve(struct kx_store_batch *batch)
{
	size_t cap = batch->change_cap ? batch->change_cap * 2 : 16;
	struct kx_store_change *changes;

	if (batch->change_count < batch->change_cap)
		return KX_OK;
	changes = realloc(batch->changes, cap * sizeof(*changes));
	if (!changes)
		return KX_ENOMEM;
	batch->changes = changes;
	batch->change_cap = cap;
	return KX_OK;
}

static kx_status add_change(struct kx_store_batch *batch, enum kx_store_change_kind kind, const char *id,
			    uint64_t generation, struct kx_store_change **ret, struct kx_error *error)
{
	char *copy = kx_strdup(id);

	if (!copy || changes_reserve(batch)) {
		free(copy);
		return kx_error_nomem(error);
	}
	*ret = &batch->changes[batch->change_count++];
	**ret = (struct kx_store_change){
		.kind = kind, .id = copy, .generation = generation, .event = {.max = KX_RECORD_MAX}};
	return KX_OK;
}

static kx_status put_event(struct kx_store_batch *batch, struct kx_store_change *change, const struct kx_event *event,
			   struct kx_error *error)
{
	kx_status status = kx_event_pack(event, &change->event);
	struct kx_key key;

	if (status)
		return kx_error_set(error, status, KX_ERROR_FATAL, "event of %s: %s", change->id, kx_status_name(status));
	kx_key_event(&key, change->id, change->generation, change->kind);
	kx_kv_batch_put(batch->write, KX_STORE_OUTBOX, key.bytes, key.len, change->event.data, change->event.len);
	return KX_OK;
}

static struct kx_event event_of(const struct kx_store_change *change, enum kx_event_kind kind, const char *run_id)
{
	/* Packing only reads the strings. */
	return (struct kx_event){
		.run_id = (char *)(uintptr_t)run_id,
		.video_id = change->id,
		.generation = change->generation,
		.kind = kind,
	};
}

bool kx_batch_is_announced(const struct kx_store_batch *batch, const char *id, uint64_t generation)
{
	for (size_t i = batch->change_count; i-- > 0;) {
		const struct kx_store_change *change = &batch->changes[i];

		if (change->kind == KX_STORE_STORED && change->generation == generation && strcmp(change->id, id) == 0)
			return true;
	}
	return false;
}

static kx_status count_bytes(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	uint64_t *bytes = ctx;

	(void)error;
	*bytes += summary->moment_bytes;
	return KX_OK;
}

kx_status kx_batch_announce(struct kx_store_batch *batch, struct kx_video_record *record, const char *run_id,
			    struct kx_error *error)
{
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *owned = record;
	const char *id = record->result.video_id;
	struct kx_store_change *change = NULL;
	struct kx_event event;
	uint64_t bytes = 0;
	kx_status status = kx_store_each_summary(batch->store, id, record->generation, count_bytes, &bytes, error);

	if (!status)
		status = add_change(batch, KX_STORE_STORED, id, record->generation, &change, error);
	if (status)
		return status;
	change->record = KX_STEAL(owned);
	event = event_of(change, KX_EVENT_STORED, run_id);
	event.visual_us = record->result.visual_us;
	event.audio_us = record->result.audio_us;
	event.duration_us = record->result.duration_us;
	event.truncated = record->result.truncated;
	event.stored_bytes = bytes;
	return put_event(batch, change, &event, error);
}

kx_status kx_batch_missing(struct kx_store_batch *batch, const struct kx_result *copy, struct kx_error *error)
{
	struct kx_store_change *change = NULL;
	struct kx_event event;
	kx_status status =
		add_change(batch, KX_STORE_MISSING, copy->video_id, copy->generation, &change, error);

	if (status)
		return status;
	event = event_of(change, KX_EVENT_STORED, copy->info.run_id);
	event.missing_source = true;
	return put_event(batch, change, &event, error);
}

kx_status kx_batch_deleted(struct kx_store_batch *batch, const char *id, uint64_t generation, bool was_stored,
			   struct kx_error *error)
{
	struct kx_store_change *change = NULL;
	struct kx_event event;
	kx_status status = add_change(batch, was_stored ? KX_STORE_REMOVED : KX_STORE_ABSENT, id, generation, &change,
					   error);

	if (status)
		return status;
	/* It tells of no run: whoever asked knows it by video and generation. */
	event = event_of(change, KX_EVENT_DELETED, "");
	return put_event(batch, change, &event, error);
}
