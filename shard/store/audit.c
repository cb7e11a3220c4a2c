/* Reads the whole store back and proves that it says one thing. */
#include <inttypes.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/learn/learn.h"
#include "shard/store/internal.h"
#include "shard/store/merge.h"

struct audit {
	struct kx_store *store;
	struct kx_store_audit *sums;
	struct kx_sha256 *hash;
	uint64_t pending_moments;
};

/* Of one video. */
struct audited {
	struct audit *audit;
	const struct kx_video_record *record;
	struct kx_merge *merge;
	uint64_t max_time_error_us; /* of the moments so far */
};

/* With the length before it, so that no two lists of records look the same. */
static void hash_record(struct audit *audit, const void *bytes, size_t len)
{
	uint8_t size[8];

	kx_be64_put(size, len);
	kx_sha256_update(audit->hash, size, sizeof(size));
	kx_sha256_update(audit->hash, bytes, len);
}

static kx_status corrupt(struct kx_error *error, const char *id, const char *what)
{
	return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON,
			    "stored video %s: %s; remove the data directory's shard-0 and index again", id, what);
}

/* The summary that is stored must be the one that the whole moment gives. */
static kx_status check_summary(struct audited *video, const struct kx_summary *summary, struct kx_error *error)
{
	const struct kx_video_record *record = video->record;
	struct kx_buf want = {.max = KX_SUMMARY_MAX}, have = {.max = KX_SUMMARY_MAX};
	struct kx_key key;
	kx_status status = kx_summary_pack(summary, &want);

	kx_key_moment(&key, record->result.video_id, record->generation, summary->modality, summary->index);
	if (status)
		status = kx_error_nomem(error);
	else
		status = kx_kv_get(video->audit->store->kv, KX_STORE_MOMENTS, key.bytes, key.len, &have, error);
	if (status == KX_ENOTFOUND)
		status = corrupt(error, record->result.video_id, "a moment has features and no summary");
	else if (!status && (have.len != want.len || memcmp(have.data, want.data, want.len) != 0))
		status = corrupt(error, record->result.video_id, "a moment's summary is not what its features say");
	kx_buf_done(&want);
	kx_buf_done(&have);
	return status;
}

/* The embedding that is stored must be the one that the features give. */
static kx_status check_embedding(struct audited *video, const struct kx_moment *moment, struct kx_error *error)
{
	int8_t embedding[KX_DIM_MAX];
	float scale;

	if (kx_learn_embed_moment(moment->features, moment->lo, moment->step, moment->count, moment->dim, embedding, &scale))
		return kx_error_nomem(error);
	if (memcmp(embedding, moment->embedding, moment->dim) != 0 || scale != moment->embedding_scale)
		return corrupt(error, video->record->result.video_id,
			       "a moment's embedding is not what its features say");
	return KX_OK;
}

/* A row belongs to the moment that its grid time is in, and no row is further from its grid time than the moment says. */
static kx_status check_times(struct audited *video, const struct kx_moment *moment, struct kx_error *error)
{
	const struct kx_video_result *result = &video->record->result;
	uint64_t from_us = moment->index * result->moment_us, most_us = moment->max_time_error_us, found_us = 0;

	if (moment->index > KX_MEDIA_US_MAX / result->moment_us)
		return corrupt(error, result->video_id, "a moment is later than any video is long");
	for (uint32_t i = 0; i < moment->count; i++)
		if (moment->pts_us[i] + most_us < from_us || moment->pts_us[i] >= from_us + result->moment_us + most_us)
			return corrupt(error, result->video_id, "a row is of a time outside its moment");
	for (uint32_t i = 0; i < moment->count && moment->time_error_us != NULL; i++)
		if (moment->time_error_us[i] > found_us)
			found_us = moment->time_error_us[i];
	if (moment->time_error_us != NULL && found_us != most_us)
		return corrupt(error, result->video_id, "a moment's largest time error is not that of its rows");
	if (most_us > video->max_time_error_us)
		video->max_time_error_us = most_us;
	return KX_OK;
}

static kx_status audit_moment(void *ctx, const struct kx_moment *moment, const void *bytes, size_t len,
			      struct kx_error *error)
{
	struct audited *video = ctx;
	struct kx_summary summary;
	kx_status status = kx_summary_of(moment, bytes, len, &summary);

	if (status)
		return kx_error_nomem(error);
	status = check_summary(video, &summary, error);
	if (!status)
		status = check_embedding(video, moment, error);
	if (!status)
		status = check_times(video, moment, error);
	if (!status)
		status = kx_merge_add(video->merge, &summary, error);
	if (status)
		return status;
	video->audit->sums->moments++;
	video->audit->sums->rows += moment->count;
	hash_record(video->audit, bytes, len);
	return KX_OK;
}

static bool is_same_modality(const struct kx_modality_result *a, const struct kx_modality_result *b)
{
	return a->modality == b->modality && strcmp(a->space, b->space) == 0 && a->moments == b->moments &&
	       a->rows == b->rows && a->dim == b->dim && a->class_count == b->class_count &&
	       memcmp(a->embedding, b->embedding, a->dim * sizeof(a->embedding[0])) == 0 &&
	       (!a->class_count ||
		(memcmp(a->class_ids, b->class_ids, a->class_count * sizeof(a->class_ids[0])) == 0 &&
		 memcmp(a->class_scores, b->class_scores, a->class_count * sizeof(a->class_scores[0])) == 0));
}

static kx_status check_merge(struct audited *video, struct kx_error *error)
{
	const struct kx_video_result *result = &video->record->result;
	struct kx_modality_result merged[2];
	uint32_t count = 0;
	kx_status status = kx_merge_modalities(video->merge, merged, &count, error);

	if (status)
		return status;
	if (video->max_time_error_us != result->max_time_error_us)
		return corrupt(error, result->video_id, "its largest time error is not that of its moments");
	if (memcmp(result->recipe_sha256, video->record->info.recipe_sha256, KX_SHA_LEN) != 0)
		return corrupt(error, result->video_id, "it was planned by another recipe than it was made by");
	if (count != result->modality_count)
		return corrupt(error, result->video_id, "moments of a modality are missing");
	for (uint32_t i = 0; i < count; i++) {
		if (merged[i].moments != result->modalities[i].moments)
			return corrupt(error, result->video_id, "moments are missing");
		if (!is_same_modality(&merged[i], &result->modalities[i]))
			return corrupt(error, result->video_id, "embedding or classes are not what its moments say");
	}
	return KX_OK;
}

static kx_status audit_video(void *ctx, const struct kx_video_record *record, struct kx_error *error)
{
	KX_CLEANUP(kx_merge_cleanup) struct kx_merge *merge = NULL;
	struct audit *audit = ctx;
	struct audited video = {.audit = audit, .record = record};
	const char *id = record->result.video_id;
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	kx_status status = kx_video_result_pack(&record->result, &packed);

	if (!status)
		hash_record(audit, packed.data, packed.len);
	kx_buf_done(&packed);
	if (status || kx_merge_new(&merge))
		return kx_error_nomem(error);
	video.merge = merge;
	audit->sums->videos++;
	status = kx_store_each_moment(audit->store, id, record->generation, audit_moment, &video, error);
	if (status == KX_ECORRUPT)
		return kx_error_prefix(error, status, "store is damaged: ");
	return status ? status : check_merge(&video, error);
}

static kx_status count_moment(void *ctx, const struct kx_moment *moment, const void *bytes, size_t len,
			      struct kx_error *error)
{
	uint64_t *count = ctx;

	(void)moment, (void)bytes, (void)len, (void)error;
	(*count)++;
	return KX_OK;
}

static kx_status audit_pending(struct audit *audit, const char *key, size_t key_len, const void *value, size_t len,
			       struct kx_error *error)
{
	KX_CLEANUP(kx_pending_video_cleanup) struct kx_pending_video *pending = NULL;
	char id[KX_ID_MAX + 1];
	kx_status status;

	if (key_len > KX_ID_MAX)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON, "pending: a key of %zu bytes", key_len);
	memcpy(id, key, key_len);
	id[key_len] = 0;
	status = kx_pending_video_unpack(value, len, &pending, error);
	if (status)
		return kx_error_prefix(error, status, "pending video %s: ", id);
	audit->sums->pending++;
	return kx_store_each_moment(audit->store, id, pending->generation, count_moment, &audit->pending_moments, error);
}

static kx_status audit_all_pending(struct audit *audit, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;

	if (kx_kv_iter_new(audit->store->kv, KX_STORE_PENDING, NULL, 0, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t key_len, len;
		const char *key = kx_kv_iter_key(iter, &key_len);
		const void *value = kx_kv_iter_value(iter, &len);
		kx_status status = audit_pending(audit, key, key_len, value, len, error);

		if (status)
			return status;
	}
	return kx_kv_iter_error(iter, error);
}

/* All moments were seen as some video's: there are no more of them. */
static kx_status check_orphans(struct audit *audit, enum kx_store_family family, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	uint64_t want = audit->sums->moments + audit->pending_moments, have = 0;
	kx_status status;

	if (kx_kv_iter_new(audit->store->kv, family, NULL, 0, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter))
		have++;
	status = kx_kv_iter_error(iter, error);
	if (!status && have != want)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON,
				    "store is damaged: %" PRIu64 " %s records, videos account for %" PRIu64, have,
				    family == KX_STORE_MOMENTS ? "summary" : "feature", want);
	return status;
}

static kx_status check_event(void *ctx, const struct kx_store_event *told, struct kx_error *error)
{
	KX_CLEANUP(kx_event_cleanup) struct kx_event *event = NULL;
	kx_status status = kx_event_unpack(told->bytes, told->len, &event, error);

	(void)ctx;
	if (!status && (strcmp(event->video_id, told->id) != 0 || event->generation != told->generation))
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON, "the event is of %s, generation %" PRIu64,
				      event->video_id, event->generation);
	return status ? kx_error_prefix(error, status, "outbox, video %s: ", told->id) : KX_OK;
}

/* What is no number: what whoever makes them proves, and names of what changed. */
static bool is_of_others(const char *key, size_t key_len, size_t value_len)
{
	const char *const whole[] = {kx_store_totals_key, kx_store_snapshot_key};

	for (size_t i = 0; i < KX_ARRAY_LEN(whole); i++)
		if (key_len == strlen(whole[i]) && memcmp(key, whole[i], key_len) == 0)
			return true;
	return !value_len && key_len > strlen(kx_store_changed_prefix) &&
	       memcmp(key, kx_store_changed_prefix, strlen(kx_store_changed_prefix)) == 0;
}

/* Format, part, offsets and tombstones, each a number; totals, the snapshot, and what changed since. Nothing else. */
static kx_status check_meta(struct audit *audit, struct kx_error *error)
{
	static const char *const known[] = {"format", "part/", "offset/", "deleted/"};
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;

	if (kx_kv_iter_new(audit->store->kv, KX_STORE_META, NULL, 0, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t key_len, len;
		const char *key = kx_kv_iter_key(iter, &key_len);
		bool found = false;

		(void)kx_kv_iter_value(iter, &len);
		if (is_of_others(key, key_len, len))
			continue;
		for (size_t i = 0; i < KX_ARRAY_LEN(known); i++)
			found |= key_len >= strlen(known[i]) && memcmp(key, known[i], strlen(known[i])) == 0;
		if (!found || len != 8)
			return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON,
					    "store is damaged: \"%.*s\" is no number that a store keeps", (int)key_len, key);
	}
	return kx_kv_iter_error(iter, error);
}

kx_status kx_store_audit(struct kx_store *store, struct kx_store_audit *ret, struct kx_error *error)
{
	KX_CLEANUP(kx_sha256_cleanup) struct kx_sha256 *hash = NULL;
	struct kx_store_audit sums = {0};
	struct audit audit = {.store = store, .sums = &sums};
	kx_status status = kx_kv_verify(store->kv, error);

	if (status)
		return status;
	if (kx_sha256_new(&hash))
		return kx_error_nomem(error);
	audit.hash = hash;
	status = kx_store_each_video(store, audit_video, &audit, error);
	if (!status)
		status = audit_all_pending(&audit, error);
	if (!status)
		status = check_orphans(&audit, KX_STORE_FEATURES, error);
	if (!status)
		status = check_orphans(&audit, KX_STORE_MOMENTS, error);
	if (!status)
		status = check_meta(&audit, error);
	if (!status)
		status = kx_store_each_outbox(store, check_event, NULL, error);
	if (status)
		return status;
	kx_sha256_final(hash, sums.digest);
	*ret = sums;
	return KX_OK;
}
