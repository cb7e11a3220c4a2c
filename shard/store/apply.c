/* What each message does to the state of its video.
 *
 * A video is at most three things at once: a complete record, a newer generation that is still arriving (pending),
 * and a mark up to which it was deleted. A message of a generation that one of them has overtaken does nothing. All
 * else commutes: moments and part ends are put by their keys, and whichever message makes the generation whole
 * completes it.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "shard/store/batch.h"
#include "shard/store/merge.h"

#define COPY_FLUSH_BYTES ((size_t)4 << 20)

static bool is_overtaken(const struct kx_entity *entity, uint64_t generation)
{
	return generation <= entity->deleted_upto || generation < entity->stored ||
	       (entity->pending && generation < entity->pending->generation);
}

/* Deletes the moments of generations from..upto in both families. */
static void delete_moments(struct kx_store_batch *batch, const char *id, uint64_t from, uint64_t upto)
{
	struct kx_key first, last;

	kx_key_generation(&first, id, from);
	kx_key_after_generation(&last, id, upto);
	kx_kv_batch_delete_range(batch->write, KX_STORE_MOMENTS, first.bytes, first.len, last.bytes, last.len);
	kx_kv_batch_delete_range(batch->write, KX_STORE_FEATURES, first.bytes, first.len, last.bytes, last.len);
}

/* Makes this generation the pending one; an older one that was arriving is dropped. */
static kx_status open_generation(struct kx_store_batch *batch, struct kx_entity *entity, uint64_t generation,
				 struct kx_error *error)
{
	struct kx_pending_video pending = {.generation = generation};

	if (entity->pending && entity->pending->generation == generation)
		return KX_OK;
	if (entity->pending)
		delete_moments(batch, entity->id, entity->pending->generation, entity->pending->generation);
	return kx_entity_set_pending(entity, &pending, error);
}

/* The record becomes the truth, and everything older goes. Takes over the record. */
static kx_status store_record(struct kx_store_batch *batch, struct kx_entity *entity, struct kx_video_record *record,
			      const char *run_id, struct kx_error *error)
{
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *owned = record;
	KX_CLEANUP(kx_cleanup_free) char *tombstone = kx_store_tombstone_key(entity->id);
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	struct kx_key key;
	kx_status status = tombstone ? kx_video_record_pack(record, &packed) : KX_ENOMEM;

	kx_key_id(&key, entity->id);
	if (!status)
		kx_kv_batch_put(batch->write, KX_STORE_VIDEOS, key.bytes, key.len, packed.data, packed.len);
	kx_store_note_change(batch->store, batch->write, entity->id);
	kx_buf_done(&packed);
	if (status)
		return kx_error_set(error, status, KX_ERROR_FATAL, "record of %s: %s", entity->id,
				    kx_status_name(status));
	if (record->generation > 1)
		delete_moments(batch, entity->id, 0, record->generation - 1);
	if (entity->deleted_upto)
		kx_kv_batch_delete(batch->write, KX_STORE_META, tombstone, strlen(tombstone));
	entity->deleted_upto = 0;
	entity->stored = record->generation;
	status = kx_entity_set_pending(entity, NULL, error);
	return status ? status : kx_batch_announce(batch, KX_STEAL(owned), run_id, error);
}

static kx_status add_to_merge(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	return kx_merge_add(ctx, summary, error);
}

/* Merges what is there. Copies the result by packing it: a stored record is always one that reads back. */
static kx_status merge_pending(struct kx_store_batch *batch, const struct kx_entity *entity,
			       struct kx_video_record **ret, struct kx_error *error)
{
	const struct kx_pending_video *pending = entity->pending;
	KX_CLEANUP(kx_merge_cleanup) struct kx_merge *merge = NULL;
	struct kx_merge_source source = {entity->id, &pending->info, pending->part_ends, pending->part_end_count};
	struct kx_video_record view = {
		.generation = pending->generation, .stored_at_ms = batch->now_ms, .info = pending->info};
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	kx_status status = kx_merge_new(&merge);

	if (status)
		return kx_error_nomem(error);
	status = kx_store_each_summary(batch->store, entity->id, pending->generation, add_to_merge, merge, error);
	if (!status)
		status = kx_merge_video(merge, &source, &view.result, error);
	if (status)
		return status;
	status = kx_video_record_pack(&view, &packed);
	if (status)
		status = kx_error_set(error, status, KX_ERROR_FATAL, "its record: %s", kx_status_name(status));
	else
		status = kx_video_record_unpack(packed.data, packed.len, ret, error);
	kx_buf_done(&packed);
	return status;
}

static bool is_ready(const struct kx_pending_video *pending)
{
	return pending && pending->parts && pending->part_end_count == pending->parts;
}

/* Completes the pending generation if all of it is there. loud: say so when it should be and isn't. */
static kx_status try_complete(struct kx_store_batch *batch, struct kx_entity *entity, bool loud,
			      struct kx_error *error)
{
	struct kx_video_record *record = NULL;
	struct kx_error why = {0};
	kx_status status;

	if (!is_ready(entity->pending))
		return KX_OK;
	status = kx_batch_flush(batch, error);
	if (status)
		return status;
	status = merge_pending(batch, entity, &record, &why);
	if (!status)
		return store_record(batch, entity, record, record->info.run_id, error);
	if (status != KX_EAGAIN && why.class != KX_ERROR_POISON) {
		if (error)
			*error = why;
		return kx_error_prefix(error, status, "%s: ", entity->id);
	}
	if (loud)
		kx_log(KX_LOG_ERROR, "video %s, generation %" PRIu64 ": all parts have ended, but %s; it stays pending",
		       entity->id, entity->pending->generation, why.message);
	return KX_OK;
}

/* A complete generation is told of again: whoever sent the message again may not have heard. */
static kx_status announce_again(struct kx_store_batch *batch, const struct kx_entity *entity, const char *run_id,
				struct kx_error *error)
{
	struct kx_video_record *record = NULL;
	kx_status status;

	if (kx_batch_is_announced(batch, entity->id, entity->stored))
		return KX_OK;
	status = kx_store_video(batch->store, entity->id, &record, error);
	if (status)
		return kx_error_prefix(error, status, "stored video %s: ", entity->id);
	return kx_batch_announce(batch, record, run_id ? run_id : record->info.run_id, error);
}

static kx_status refuse(struct kx_error *error, const char *what, const struct kx_result *result)
{
	return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON, "result of video %s, generation %" PRIu64 ": %s",
			    result->video_id, result->generation, what);
}

static kx_status apply_plan(struct kx_store_batch *batch, struct kx_entity *entity, const struct kx_result *result,
			    struct kx_error *error)
{
	bool open = entity->pending && entity->pending->generation == result->generation;
	struct kx_pending_video pending = {.generation = result->generation};
	kx_status status;

	if (open)
		pending = *entity->pending;
	for (uint32_t i = 0; i < pending.part_end_count; i++) {
		if (pending.part_ends[i].parts != result->parts)
			return refuse(error, "the plan counts other parts than a part that ended", result);
		if (memcmp(pending.part_ends[i].recipe_sha256, result->info.recipe_sha256, KX_SHA_LEN) != 0)
			return refuse(error, "the plan's recipe is not that of a part that ended", result);
	}
	status = open_generation(batch, entity, result->generation, error);
	if (!status && !pending.parts) {
		pending.parts = result->parts;
		pending.info = result->info;
		status = kx_entity_set_pending(entity, &pending, error);
	}
	return status ? status : try_complete(batch, entity, true, error);
}

/* Everything that a part end must agree with: the plan, and the parts that ended before. */
static kx_status check_part_end(const struct kx_pending_video *pending, const struct kx_result *result,
				struct kx_error *error)
{
	const struct kx_part_end *end = &result->part_end;

	if (pending->parts && pending->parts != end->parts)
		return refuse(error, "a part end counts other parts than the plan", result);
	if (pending->parts && memcmp(pending->info.recipe_sha256, end->recipe_sha256, KX_SHA_LEN) != 0)
		return refuse(error, "a part was made by another recipe than the plan asks for", result);
	if (!pending->part_end_count)
		return KX_OK;
	if (pending->part_ends[0].parts != end->parts)
		return refuse(error, "two part ends count different parts", result);
	if (memcmp(pending->part_ends[0].recipe_sha256, end->recipe_sha256, KX_SHA_LEN) != 0 ||
	    pending->part_ends[0].decode_mode != end->decode_mode ||
	    pending->part_ends[0].decode_tolerance_us != end->decode_tolerance_us)
		return refuse(error, "two parts were made by different recipes", result);
	if (pending->part_ends[0].moment_us != end->moment_us)
		return refuse(error, "two parts have moments of different lengths", result);
	return KX_OK;
}

/* Puts the end among the others, which stand in order; one that is there already stays. */
static kx_status add_part_end(struct kx_entity *entity, const struct kx_part_end *end, struct kx_error *error)
{
	struct kx_pending_video pending = *entity->pending;
	KX_CLEANUP(kx_cleanup_free) struct kx_part_end *ends = NULL;
	uint32_t at = 0;

	while (at < pending.part_end_count && pending.part_ends[at].part < end->part)
		at++;
	if (at < pending.part_end_count && pending.part_ends[at].part == end->part)
		return KX_OK;
	ends = calloc(pending.part_end_count + 1u, sizeof(*ends));
	if (!ends)
		return kx_error_nomem(error);
	for (uint32_t i = 0; i < pending.part_end_count; i++)
		ends[i + (i >= at)] = pending.part_ends[i];
	ends[at] = *end;
	pending.part_ends = ends;
	pending.part_end_count++;
	return kx_entity_set_pending(entity, &pending, error);
}

static kx_status apply_part_end(struct kx_store_batch *batch, struct kx_entity *entity, const struct kx_result *result,
				struct kx_error *error)
{
	kx_status status = KX_OK;

	if (entity->pending && entity->pending->generation == result->generation)
		status = check_part_end(entity->pending, result, error);
	if (!status)
		status = open_generation(batch, entity, result->generation, error);
	if (!status)
		status = add_part_end(entity, &result->part_end, error);
	/* Also when the end was there before: it may be that only the completion was lost. */
	return status ? status : try_complete(batch, entity, true, error);
}

static void put_moment(struct kx_store_batch *batch, const struct kx_entity *entity, const struct kx_result *result,
		       const struct kx_buf *whole, const struct kx_buf *summary)
{
	struct kx_key key;

	kx_key_moment(&key, entity->id, result->generation, result->moment.modality, result->moment.index);
	kx_kv_batch_put(batch->write, KX_STORE_FEATURES, key.bytes, key.len, whole->data, whole->len);
	kx_kv_batch_put(batch->write, KX_STORE_MOMENTS, key.bytes, key.len, summary->data, summary->len);
}

static kx_status apply_moment(struct kx_store_batch *batch, struct kx_entity *entity, const struct kx_result *result,
			      struct kx_error *error)
{
	struct kx_buf whole = {.max = KX_RECORD_MAX}, packed = {.max = KX_SUMMARY_MAX};
	struct kx_summary summary;
	kx_status status = kx_moment_pack(&result->moment, &whole);

	if (!status)
		status = kx_summary_of(&result->moment, whole.data, whole.len, &summary);
	if (!status)
		status = kx_summary_pack(&summary, &packed);
	if (status)
		status = kx_error_set(error, status, KX_ERROR_FATAL, "moment of %s: %s", entity->id,
				      kx_status_name(status));
	else
		status = open_generation(batch, entity, result->generation, error);
	if (!status)
		put_moment(batch, entity, result, &whole, &packed);
	kx_buf_done(&whole);
	kx_buf_done(&packed);
	return status ? status : try_complete(batch, entity, false, error);
}

static kx_status apply_delete(struct kx_store_batch *batch, struct kx_entity *entity, const struct kx_result *result,
			      struct kx_error *error)
{
	uint64_t generation = result->generation;
	KX_CLEANUP(kx_cleanup_free) char *tombstone = kx_store_tombstone_key(entity->id);
	uint8_t value[8];
	kx_status status = KX_OK;

	if (!tombstone)
		return kx_error_nomem(error);
	/* A newer record already holds back everything as old as this. But whoever asks again may not have heard. */
	if (entity->stored > generation || entity->deleted_upto >= generation)
		return kx_batch_deleted(batch, entity->id, generation, false, error);
	if (entity->pending && entity->pending->generation <= generation)
		status = kx_entity_set_pending(entity, NULL, error);
	if (!status)
		status = kx_batch_deleted(batch, entity->id, generation, entity->stored != 0, error);
	if (status)
		return status;
	if (entity->stored)
		kx_kv_batch_delete(batch->write, KX_STORE_VIDEOS, entity->id, strlen(entity->id));
	kx_store_note_change(batch->store, batch->write, entity->id);
	delete_moments(batch, entity->id, 0, generation);
	kx_be64_put(value, generation);
	kx_kv_batch_put(batch->write, KX_STORE_META, tombstone, strlen(tombstone), value, sizeof(value));
	entity->stored = 0;
	entity->deleted_upto = generation;
	return KX_OK;
}

struct copying {
	struct kx_store_batch *batch;
	const char *id;
	uint64_t generation;
	size_t bytes;
};

static kx_status copy_bytes(struct copying *copying, enum kx_store_family family, enum kx_modality modality,
			    uint32_t index, const void *bytes, size_t len, struct kx_error *error)
{
	struct kx_key key;

	kx_key_moment(&key, copying->id, copying->generation, modality, index);
	kx_kv_batch_put(copying->batch->write, family, key.bytes, key.len, bytes, len);
	copying->bytes += len;
	if (copying->bytes < COPY_FLUSH_BYTES)
		return KX_OK;
	copying->bytes = 0;
	return kx_batch_flush(copying->batch, error);
}

static kx_status copy_moment(void *ctx, const struct kx_moment *moment, const void *bytes, size_t len,
			     struct kx_error *error)
{
	return copy_bytes(ctx, KX_STORE_FEATURES, moment->modality, moment->index, bytes, len, error);
}

static kx_status copy_summary(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	struct kx_buf packed = {.max = KX_SUMMARY_MAX};
	struct copying *copying = ctx;
	kx_status status = kx_summary_pack(summary, &packed);

	if (status)
		status = kx_error_nomem(error);
	else
		status = copy_bytes(copying, KX_STORE_MOMENTS, summary->modality, summary->index, packed.data,
				    packed.len, error);
	kx_buf_done(&packed);
	return status;
}

/* The original's record under the copy's name. */
static kx_status copy_record(struct kx_store_batch *batch, const struct kx_result *result,
			     const struct kx_video_record *original, struct kx_video_record **ret,
			     struct kx_error *error)
{
	struct kx_video_record view = {
		.generation = result->generation,
		.stored_at_ms = batch->now_ms,
		.info = result->info,
		.result = original->result,
	};
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	kx_status status;

	view.result.video_id = result->video_id;
	status = kx_video_record_pack(&view, &packed);
	if (status)
		status = kx_error_set(error, status, KX_ERROR_FATAL, "record of %s: %s", result->video_id,
				      kx_status_name(status));
	else
		status = kx_video_record_unpack(packed.data, packed.len, ret, error);
	kx_buf_done(&packed);
	return status;
}

static bool is_same_content(const struct kx_video_info *a, const struct kx_video_info *b)
{
	return memcmp(a->content_sha256, b->content_sha256, KX_SHA_LEN) == 0 &&
	       memcmp(a->recipe_sha256, b->recipe_sha256, KX_SHA_LEN) == 0;
}

static kx_status apply_copy(struct kx_store_batch *batch, struct kx_entity *entity, const struct kx_result *result,
			    struct kx_error *error)
{
	struct copying copying = {.batch = batch, .id = entity->id, .generation = result->generation};
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *original = NULL;
	struct kx_video_record *record = NULL;
	kx_status status = kx_batch_flush(batch, error);

	if (!status)
		status = kx_store_video(batch->store, result->copy_from, &original, error);
	/* The original may have been indexed anew since it was chosen. */
	if (status == KX_ENOTFOUND || (!status && !is_same_content(&original->info, &result->info)))
		return kx_batch_missing(batch, result, error);
	if (!status)
		status = open_generation(batch, entity, result->generation, error);
	if (status)
		return status;
	delete_moments(batch, entity->id, result->generation, result->generation);
	status = kx_store_each_moment(batch->store, result->copy_from, original->generation, copy_moment, &copying,
				      error);
	if (!status)
		status = kx_store_each_summary(batch->store, result->copy_from, original->generation, copy_summary,
					       &copying, error);
	if (!status)
		status = copy_record(batch, result, original, &record, error);
	if (!status)
		status = kx_batch_flush(batch, error);
	if (!status)
		return store_record(batch, entity, record, result->info.run_id, error);
	kx_video_record_free(record);
	return status;
}

static kx_status apply_to(struct kx_store_batch *batch, struct kx_entity *entity, const struct kx_result *result,
			  struct kx_error *error)
{
	if (result->kind == KX_RESULT_DELETE)
		return apply_delete(batch, entity, result, error);
	if (is_overtaken(entity, result->generation))
		return KX_OK;
	if (entity->stored == result->generation) {
		bool planned = result->kind == KX_RESULT_PLAN || result->kind == KX_RESULT_COPY;

		if (result->kind == KX_RESULT_MOMENT)
			return KX_OK;
		return announce_again(batch, entity, planned ? result->info.run_id : NULL, error);
	}
	switch (result->kind) {
	case KX_RESULT_PLAN:
		return apply_plan(batch, entity, result, error);
	case KX_RESULT_MOMENT:
		return apply_moment(batch, entity, result, error);
	case KX_RESULT_PART_END:
		return apply_part_end(batch, entity, result, error);
	case KX_RESULT_COPY:
		return apply_copy(batch, entity, result, error);
	case KX_RESULT_DELETE:
		break;
	}
	return refuse(error, "a kind that this program does not know", result);
}

kx_status kx_store_apply(struct kx_store_batch *batch, const struct kx_result *result, struct kx_error *error)
{
	struct kx_entity *entity = NULL;
	kx_status status;

	if (!result->generation)
		return refuse(error, "generations count from 1", result);
	status = kx_entity_get(batch->store, &batch->entities, result->video_id, &entity, error);
	return status ? status : apply_to(batch, entity, result, error);
}
