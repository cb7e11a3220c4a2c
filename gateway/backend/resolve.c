#include "gateway/backend/resolve.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"

struct kx_resolved_query {
	const char *id; /* NULL: it came with vectors */
	bool missing;
	struct kx_query_vector vectors[2];
	char **not_ids; /* the query's and its own; the list only is ours */
};

static bool names_video(const struct kx_similar_query *query)
{
	return query->video_id != NULL && query->video_id[0] != '\0';
}

static const struct kx_similar_query *queries_of(const struct kx_query_request *request, uint32_t *ret_count)
{
	bool single = request->kind == KX_QUERY_SIMILAR;

	*ret_count = single ? 1 : request->batch_count;
	return single ? &request->similar : request->batch;
}

/* Asks for the videos that are named, each as often as it is. */
static kx_status find_videos(struct kx_resolved *resolved, bool with_moments, kx_resolve_ask *ask, void *ctx,
			     uint64_t deadline_us, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char **ids = calloc((size_t)resolved->count + 1, sizeof(*ids));
	struct kx_query_request request = {.kind = KX_QUERY_VIDEOS, .video_ids = ids};

	if (ids == NULL)
		return kx_error_nomem(error);
	for (uint32_t i = 0; i < resolved->count; i++)
		if (resolved->queries[i].id != NULL)
			ids[request.video_id_count++] = (char *)(uintptr_t)resolved->queries[i].id;
	request.with_moments = with_moments;
	if (request.video_id_count == 0)
		return KX_OK;
	kx_status status = ask(ctx, &request, deadline_us, &resolved->found, error);
	if (status != KX_OK)
		return status;
	resolved->asked = resolved->found.asked;
	resolved->answered = resolved->found.answered;
	if (resolved->found.reply->status != KX_OK)
		return kx_error_set(error, resolved->found.reply->status, KX_ERROR_POISON, "%s",
				    resolved->found.reply->message);
	if (resolved->found.reply->found_count != request.video_id_count)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_RETRY, "a shard answers other videos than it was asked for");
	return KX_OK;
}

static bool points_somewhere(const struct kx_modality_result *part)
{
	for (uint32_t i = 0; i < part->dim; i++)
		if (part->embedding[i] != 0.0f)
			return true;
	return false;
}

static kx_status rewrite(struct kx_similar_query *query, struct kx_resolved_query *by, const struct kx_found_video *found,
			 struct kx_error *error)
{
	const struct kx_video_record *video = found->video;

	query->video_id = NULL;
	query->vectors = by->vectors;
	query->vector_count = 0;
	query->moment_count = query->with_moments ? found->moment_count : 0;
	query->moments = found->moments;
	query->moment_us = video->result.moment_us;
	for (uint32_t i = 0; i < video->result.modality_count; i++) {
		const struct kx_modality_result *part = &video->result.modalities[i];

		if (points_somewhere(part))
			by->vectors[query->vector_count++] = (struct kx_query_vector){
				.modality = part->modality, .space = part->space, .dim = part->dim, .values = part->embedding};
	}
	if (query->vector_count == 0)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "the video's embedding is zero in picture and sound: it points nowhere");
	by->not_ids = calloc((size_t)query->not_id_count + 1, sizeof(*by->not_ids));
	if (by->not_ids == NULL)
		return kx_error_nomem(error);
	if (query->not_id_count > 0)
		memcpy(by->not_ids, query->not_ids, query->not_id_count * sizeof(*by->not_ids));
	by->not_ids[query->not_id_count++] = (char *)(uintptr_t)by->id;
	query->not_ids = by->not_ids;
	return KX_OK;
}

static kx_status refuse(struct kx_resolved *resolved, const char *id, struct kx_error *error)
{
	struct kx_query_reply *reply = calloc(1, sizeof(*reply));

	if (resolved->answered < resolved->asked) {
		free(reply);
		return kx_error_set(error, KX_ETIMEDOUT, KX_ERROR_RETRY,
				    "no shard that answered has the video, and %u of %u did not answer",
				    resolved->asked - resolved->answered, resolved->asked);
	}
	if (reply != NULL)
		reply->message = kx_strf("no video \"%s\" is indexed", id);
	if (reply == NULL || reply->message == NULL) {
		free(reply);
		return kx_error_nomem(error);
	}
	reply->status = KX_ENOTFOUND;
	resolved->refusal = reply;
	return KX_OK;
}

/* Fills `sent` with those whose video is there. */
static kx_status rewrite_all(struct kx_resolved *resolved, const struct kx_similar_query *queries, uint32_t *ret_sent,
			     struct kx_error *error)
{
	const struct kx_found_video *found = resolved->found.reply != NULL ? resolved->found.reply->found : NULL;
	uint32_t sent = 0;
	kx_status status = KX_OK;

	for (uint32_t i = 0; i < resolved->count && status == KX_OK; i++) {
		struct kx_resolved_query *by = &resolved->queries[i];
		struct kx_similar_query *query = &resolved->sent[sent];

		*query = queries[i];
		if (by->id != NULL) {
			by->missing = found->video == NULL;
			if (!by->missing)
				status = rewrite(query, by, found, error);
			found++;
		}
		sent += !by->missing;
	}
	*ret_sent = sent;
	return status;
}

static kx_status resolve(const struct kx_query_request *request, kx_resolve_ask *ask, void *ctx, uint64_t deadline_us,
			 struct kx_resolved *resolved, struct kx_error *error)
{
	const struct kx_similar_query *queries = queries_of(request, &resolved->count);
	uint32_t sent = 0;

	resolved->queries = calloc(resolved->count, sizeof(*resolved->queries));
	resolved->sent = calloc(resolved->count, sizeof(*resolved->sent));
	if (resolved->queries == NULL || resolved->sent == NULL)
		return kx_error_nomem(error);
	bool with_moments = false;
	for (uint32_t i = 0; i < resolved->count; i++) {
		resolved->queries[i].id = names_video(&queries[i]) ? queries[i].video_id : NULL;
		with_moments |= resolved->queries[i].id != NULL && queries[i].with_moments;
	}
	kx_status status = find_videos(resolved, with_moments, ask, ctx, deadline_us, error);
	if (status == KX_OK)
		status = rewrite_all(resolved, queries, &sent, error);
	if (status != KX_OK)
		return status;
	if (sent == 0 && request->kind == KX_QUERY_SIMILAR)
		return refuse(resolved, queries[0].video_id, error);
	resolved->request = (struct kx_query_request){.kind = request->kind};
	if (request->kind == KX_QUERY_SIMILAR) {
		resolved->request.similar = resolved->sent[0];
	} else {
		resolved->request.batch = resolved->sent;
		resolved->request.batch_count = sent;
	}
	return KX_OK;
}

kx_status kx_resolve(const struct kx_query_request *request, kx_resolve_ask *ask, void *ctx, uint64_t deadline_us,
		     struct kx_resolved *ret, struct kx_error *error)
{
	struct kx_resolved resolved = {0};
	kx_status status = resolve(request, ask, ctx, deadline_us, &resolved, error);

	if (status == KX_OK)
		*ret = resolved;
	else
		kx_resolved_done(&resolved);
	return status;
}

/* Where a shard that may have it did not answer, nobody can say that there is no such video. */
static void set_missing(const struct kx_resolved *resolved, uint32_t i, struct kx_similar_answer *answer)
{
	const char *id = resolved->queries[i].id != NULL ? resolved->queries[i].id : "";
	bool certain = resolved->answered == resolved->asked;

	answer->status = certain ? KX_ENOTFOUND : KX_ETIMEDOUT;
	answer->message = kx_strf(certain ? "no video \"%s\" is indexed" : "no shard that answered has the video \"%s\"", id);
}

kx_status kx_resolved_restore(struct kx_resolved *resolved, struct kx_query_reply *reply, struct kx_error *error)
{
	uint32_t at = 0;

	if (resolved->request.kind != KX_QUERY_SIMILAR_BATCH || reply->answer_count == resolved->count)
		return KX_OK;
	struct kx_similar_answer *answers = calloc(resolved->count, sizeof(*answers));
	bool whole = answers != NULL;
	for (uint32_t i = 0; i < resolved->count && whole; i++) {
		if (!resolved->queries[i].missing && at < reply->answer_count) {
			answers[i] = reply->answers[at];
			reply->answers[at++] = (struct kx_similar_answer){0};
			continue;
		}
		set_missing(resolved, i, &answers[i]);
		answers[i].next = kx_strdup("");
		whole = answers[i].message != NULL && answers[i].next != NULL;
	}
	for (uint32_t i = 0; i < reply->answer_count; i++)
		kx_similar_answer_done(&reply->answers[i]);
	free(reply->answers);
	reply->answers = answers;
	reply->answer_count = answers != NULL ? resolved->count : 0;
	return whole ? KX_OK : kx_error_nomem(error);
}

void kx_resolved_done(struct kx_resolved *resolved)
{
	for (uint32_t i = 0; resolved->queries != NULL && i < resolved->count; i++)
		free(resolved->queries[i].not_ids);
	free(resolved->queries);
	free(resolved->sent);
	kx_query_reply_free(resolved->refusal);
	kx_answer_done(&resolved->found);
	*resolved = (struct kx_resolved){0};
}
