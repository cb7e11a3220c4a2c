#include "shard/query/query.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/learn/learn.h"
#include "shard/index/index.h"
#include "shard/query/similar.h"

#define FIND_ATTEMPTS 3

struct kx_query_reply *kx_query_failure(uint64_t request_id, const struct kx_error *why)
{
	struct kx_query_reply *reply = calloc(1, sizeof(*reply));

	if (!reply)
		return NULL;
	reply->request_id = request_id;
	reply->status = why->status;
	reply->message = kx_strdup(why->message);
	if (!reply->message) {
		free(reply);
		return NULL;
	}
	return reply;
}

kx_status kx_query_ended(const struct kx_query_context *context, struct kx_error *error)
{
	if (context->stop && kx_stop_asked(context->stop))
		return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "the shard is stopping");
	if (context->deadline_us && kx_clock_mono_us() >= context->deadline_us)
		return kx_error_set(error, KX_ETIMEDOUT, KX_ERROR_RETRY, "the time for the answer is over");
	return KX_OK;
}

kx_status kx_query_not_found(const struct kx_query_context *context, const char *id, struct kx_error *error)
{
	char *near[KX_MIRROR_SUGGESTIONS];
	size_t count = kx_mirror_suggest(context->mirror, id, near);

	if (count)
		(void)kx_error_set(error, KX_ENOTFOUND, KX_ERROR_POISON, "no video \"%s\" is indexed; did you mean", id);
	else
		(void)kx_error_set(error, KX_ENOTFOUND, KX_ERROR_POISON,
				   "no video \"%s\" is indexed; \"kinodex status\" says what is", id);
	for (size_t i = 0; i < count; i++) {
		char said[sizeof(error->message)];

		if (error) {
			memcpy(said, error->message, sizeof(said));
			(void)kx_error_set(error, KX_ENOTFOUND, KX_ERROR_POISON, "%s%s \"%s\"", said,
					   i == 0 ? "" : i + 1 < count ? "," : " or", near[i]);
		}
		free(near[i]);
	}
	if (count && error && strlen(error->message) + 1 < sizeof(error->message))
		strcat(error->message, "?");
	return KX_ENOTFOUND;
}

struct class_list {
	struct kx_query_reply *reply;
	uint32_t cap;
};

static kx_status list_reserve(struct class_list *list, struct kx_error *error)
{
	uint32_t cap = list->cap ? list->cap * 2 : 64;
	struct kx_moment_classes *moments;

	if (list->reply->moment_count < list->cap)
		return KX_OK;
	if (list->reply->moment_count >= 2 * KX_QUERY_MOMENTS_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "the video has more than %u moments; ask for it without them",
				    2 * KX_QUERY_MOMENTS_MAX);
	moments = realloc(list->reply->moments, cap * sizeof(*moments));
	if (!moments)
		return kx_error_nomem(error);
	list->reply->moments = moments;
	list->cap = cap;
	return KX_OK;
}

static kx_status add_classes(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	struct class_list *list = ctx;
	struct kx_moment_classes classes = {
		.modality = summary->modality, .index = summary->index, .class_count = summary->class_count};
	size_t count = summary->class_count ? summary->class_count : 1;
	kx_status status = list_reserve(list, error);

	if (status)
		return status;
	classes.class_ids = malloc(count * sizeof(*classes.class_ids));
	classes.class_scores = malloc(count * sizeof(*classes.class_scores));
	if (!classes.class_ids || !classes.class_scores) {
		free(classes.class_ids);
		free(classes.class_scores);
		return kx_error_nomem(error);
	}
	memcpy(classes.class_ids, summary->class_ids, summary->class_count * sizeof(*classes.class_ids));
	memcpy(classes.class_scores, summary->class_scores, summary->class_count * sizeof(*classes.class_scores));
	list->reply->moments[list->reply->moment_count++] = classes;
	return KX_OK;
}

static kx_status answer_video(const struct kx_query_context *context, const struct kx_query_request *request,
			      struct kx_query_reply *reply, struct kx_error *error)
{
	struct class_list list = {.reply = reply};
	const char *id = request->video_id ? request->video_id : "";
	kx_status status = kx_store_video(context->store, id, &reply->video, error);

	if (status == KX_ENOTFOUND)
		return kx_query_not_found(context, id, error);
	if (status || !request->with_moments)
		return status;
	return kx_store_each_summary(context->store, id, reply->video->generation, add_classes, &list, error);
}

/* The moments of one video, on their way into a reply. */
struct moment_list {
	struct kx_found_video *found;
	uint32_t cap, counts[KX_ANN_MODALITIES];
	size_t *bytes; /* of the whole reply */
};

static kx_status add_moment(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	struct moment_list *list = ctx;
	struct kx_found_video *found = list->found;
	struct kx_query_vector vector = {.modality = summary->modality, .moment = summary->index, .dim = summary->dim};

	if (list->counts[summary->modality - KX_VISUAL]++ >= KX_QUERY_ALIGN_MAX)
		return KX_OK;
	*list->bytes += summary->dim * sizeof(float) + sizeof(summary->space);
	if (*list->bytes > KX_QUERY_FOUND_BYTES_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "the moments of what is asked for are over %u MiB; ask for fewer videos at once, or "
				    "without moments",
				    KX_QUERY_FOUND_BYTES_MAX >> 20);
	if (found->moment_count == list->cap) {
		uint32_t cap = list->cap ? 2 * list->cap : 64;
		struct kx_query_vector *grown = realloc(found->moments, cap * sizeof(*grown));

		if (!grown)
			return kx_error_nomem(error);
		found->moments = grown;
		list->cap = cap;
	}
	vector.space = kx_strdup(summary->space);
	vector.values = malloc(summary->dim * sizeof(float));
	if (vector.values)
		kx_learn_dequantize_i8(summary->embedding, summary->dim, summary->scale, vector.values);
	found->moments[found->moment_count++] = vector;
	return vector.space && vector.values ? KX_OK : kx_error_nomem(error);
}

/* Again when the video is replaced between reading its record and its moments. */
static kx_status find_video(const struct kx_query_context *context, struct kx_found_video *found, bool with_moments,
			    size_t *bytes, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (int i = 0; !status && !found->moment_count && i < FIND_ATTEMPTS; i++) {
		struct moment_list list = {.found = found, .bytes = bytes};

		kx_video_record_free(KX_STEAL(found->video));
		status = kx_store_video(context->store, found->video_id, &found->video, error);
		if (status || !with_moments)
			break;
		status = kx_store_each_summary(context->store, found->video_id, found->video->generation, add_moment, &list,
					       error);
	}
	return status == KX_ENOTFOUND ? KX_OK : status;
}

/* A reply must fit a message: videos beyond that are the asker's to ask for again. */
static kx_status answer_videos(const struct kx_query_context *context, const struct kx_query_request *request,
			       struct kx_query_reply *reply, struct kx_error *error)
{
	if (!request->video_id_count || request->video_id_count > KX_QUERY_VIDEOS_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%u ids, from 1 to %u may be asked for",
				    request->video_id_count, KX_QUERY_VIDEOS_MAX);
	size_t bytes = 0;

	reply->found = calloc(request->video_id_count, sizeof(*reply->found));
	if (!reply->found)
		return kx_error_nomem(error);
	for (uint32_t i = 0; i < request->video_id_count; i++) {
		struct kx_found_video *found = &reply->found[i];
		kx_status status;

		reply->found_count = i + 1;
		found->video_id = kx_strdup(request->video_ids[i]);
		if (!found->video_id)
			return kx_error_nomem(error);
		status = kx_query_ended(context, error);
		if (!status)
			status = find_video(context, found, request->with_moments, &bytes, error);
		if (status)
			return status;
	}
	return KX_OK;
}

static kx_status answer_batch(const struct kx_query_context *context, const struct kx_query_request *request,
			      struct kx_query_reply *reply, struct kx_error *error)
{
	if (!request->batch_count || request->batch_count > KX_QUERY_BATCH_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%u queries in a batch, from 1 to %u may be",
				    request->batch_count, KX_QUERY_BATCH_MAX);
	reply->answers = calloc(request->batch_count, sizeof(*reply->answers));
	if (!reply->answers)
		return kx_error_nomem(error);
	reply->answer_count = request->batch_count;
	return kx_query_similar_many(context, request->batch, request->batch_count, reply->answers, error);
}

/* Recall is the mean over the samples of all spaces. */
static void index_stats(struct kx_index *index, struct kx_shard_stats *ret)
{
	double found = 0.0, wanted = 0.0;

	for (uint32_t i = 0; i < kx_index_space_count(index); i++) {
		struct kx_index_stats stats;

		if (kx_index_stats(index, i, &stats, NULL))
			continue;
		ret->index_vectors += stats.rows;
		ret->index_cells += stats.cells;
		ret->index_recall_samples += stats.recall_samples;
		found += stats.recall * (double)stats.recall_samples;
		wanted += stats.recall_wanted * (double)stats.recall_samples;
	}
	if (!ret->index_recall_samples)
		return;
	ret->index_recall = found / (double)ret->index_recall_samples;
	ret->index_recall_wanted = wanted / (double)ret->index_recall_samples;
}

static kx_status answer_stats(const struct kx_query_context *context, struct kx_query_reply *reply,
			      struct kx_error *error)
{
	struct kx_store_part part = {0};
	kx_status status = kx_store_part(context->store, &part, error);

	kx_mirror_stats(context->mirror, &reply->stats);
	reply->stats.disk_bytes = kx_store_disk_bytes(context->store);
	reply->stats.part = part.part;
	reply->stats.parts = part.parts;
	if (context->index)
		index_stats(context->index, &reply->stats);
	return status ? status : kx_store_pending_count(context->store, &reply->stats.pending, error);
}

static kx_status answer(const struct kx_query_context *context, const struct kx_query_request *request,
			struct kx_query_reply *reply, struct kx_error *error)
{
	switch (request->kind) {
	case KX_QUERY_SIMILAR:
		return kx_query_similar(context, &request->similar, &reply->similar, error);
	case KX_QUERY_VIDEO:
		return answer_video(context, request, reply, error);
	case KX_QUERY_STATS:
		return answer_stats(context, reply, error);
	case KX_QUERY_SIMILAR_BATCH:
		return answer_batch(context, request, reply, error);
	case KX_QUERY_VIDEOS:
		return answer_videos(context, request, reply, error);
	case KX_QUERY_SCHEMA:
		return kx_mirror_schema(context->mirror, reply, error);
	case KX_QUERY_CARE:
		break; /* no question */
	}
	return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "a kind of query that this shard does not know: %d",
			    (int)request->kind);
}

kx_status kx_query_answer(const struct kx_query_context *context, const struct kx_query_request *request,
			  struct kx_query_reply **ret, struct kx_error *error)
{
	struct kx_query_reply *reply = calloc(1, sizeof(*reply));
	struct kx_error why = {0};
	kx_status status;

	if (!reply)
		return kx_error_nomem(error);
	reply->request_id = request->request_id;
	reply->message = kx_strdup("");
	status = reply->message ? answer(context, request, reply, &why) : kx_error_nomem(&why);
	if (!status) {
		*ret = reply;
		return KX_OK;
	}
	kx_query_reply_free(reply);
	why.status = status;
	reply = kx_query_failure(request->request_id, &why);
	if (!reply)
		return kx_error_nomem(error);
	*ret = reply;
	return KX_OK;
}
