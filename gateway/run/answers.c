/* What is answered as JSON. */
#include <stdlib.h>
#include <string.h>

#include "gateway/json/problem.h"
#include "gateway/run/internal.h"

#define TOP_DEFAULT 5u
#define TOP_MAX KX_CLASSES_MAX

static struct kx_json begin(struct kx_turn *turn)
{
	struct kx_json json = {.out = &turn->response->body};

	turn->response->code = 200;
	turn->response->type = "application/json";
	kx_json_open(&json, NULL, '{');
	return json;
}

static kx_status end(struct kx_turn *turn, struct kx_json *json)
{
	kx_json_close(json, '}');
	if (json->status == KX_ETOOBIG)
		return kx_error_set(&turn->error, KX_ETOOBIG, KX_ERROR_POISON,
				    "the answer is over %zu MiB; ask for less at a time", turn->response->body.max >> 20);
	return json->status == KX_OK ? KX_OK : kx_error_nomem(&turn->error);
}

/* "partial", and of several shards which answered. */
static void encode_shards(struct kx_json *json, const struct kx_answer *answer)
{
	kx_json_bool(json, "partial", answer->answered < answer->asked || answer->reply->similar.partial);
	kx_json_open(json, "shards", '{');
	kx_json_integer(json, "asked", answer->asked);
	kx_json_integer(json, "answered", answer->answered);
	if (answer->failure_count > 0) {
		kx_json_open(json, "failed", '[');
		for (uint32_t i = 0; i < answer->failure_count; i++) {
			kx_json_open(json, NULL, '{');
			kx_json_text(json, "shard", answer->failures[i].shard);
			kx_json_text(json, "reason", answer->failures[i].message);
			kx_json_close(json, '}');
		}
		kx_json_close(json, ']');
	}
	kx_json_close(json, '}');
}

static void note_recall(struct kx_turn *turn, const struct kx_similar_answer *answer)
{
	atomic_store(&turn->gateway->metrics.recall, answer->exact ? 1.0 : answer->recall);
}

/* Of a batch each answer stands in its place, and may be a problem of its own. */
static void encode_one(struct kx_json *json, const struct kx_similar_answer *answer, const struct kx_similar_query *query)
{
	kx_json_open(json, NULL, '{');
	if (answer->status != KX_OK) {
		kx_json_integer(json, "status", kx_problem_code(answer->status));
		kx_json_text(json, "detail", answer->message);
	} else {
		kx_encode_similar(json, answer, query->with_moments, query->explain);
	}
	kx_json_close(json, '}');
}

static kx_status respond_similar(struct kx_turn *turn, const struct kx_query_request *request)
{
	struct kx_answer answer = {0};
	kx_status status = kx_turn_ask(turn, request, &answer);

	if (status != KX_OK)
		return status;
	struct kx_json json = begin(turn);
	if (request->kind == KX_QUERY_SIMILAR) {
		kx_encode_similar(&json, &answer.reply->similar, request->similar.with_moments, request->similar.explain);
		note_recall(turn, &answer.reply->similar);
	} else {
		kx_json_open(&json, "results", '[');
		for (uint32_t i = 0; i < answer.reply->answer_count; i++)
			encode_one(&json, &answer.reply->answers[i], &request->batch[i]);
		kx_json_close(&json, ']');
		note_recall(turn, &answer.reply->answers[0]);
	}
	encode_shards(&json, &answer);
	kx_answer_done(&answer);
	return end(turn, &json);
}

static kx_status decode_args(struct kx_turn *turn, struct kx_query_request **ret)
{
	struct kx_decode_arg args[KX_TARGET_ARGS_MAX];
	const struct kx_http_target *target = &turn->request->target;

	for (size_t i = 0; i < target->arg_count; i++)
		args[i] = (struct kx_decode_arg){target->args[i].name, target->args[i].value};
	return kx_decode_similar_args(args, target->arg_count, &turn->gateway->limits, ret, &turn->error);
}

static kx_status decode_body(struct kx_turn *turn, enum kx_body body, struct kx_query_request **ret)
{
	static const char *const none[] = {NULL};
	kx_status status = kx_turn_args(turn, none);

	if (status != KX_OK)
		return status;
	return kx_decode_body(body, (const char *)turn->request->body, turn->request->body_len, &turn->gateway->limits, ret,
			      &turn->error);
}

kx_status kx_serve_similar(struct kx_turn *turn)
{
	KX_CLEANUP(kx_query_request_cleanup) struct kx_query_request *request = NULL;
	kx_status status = turn->request->method == KX_HTTP_POST ? decode_body(turn, KX_BODY_SIMILAR, &request)
								 : decode_args(turn, &request);

	return status == KX_OK ? respond_similar(turn, request) : status;
}

kx_status kx_serve_search(struct kx_turn *turn)
{
	KX_CLEANUP(kx_query_request_cleanup) struct kx_query_request *request = NULL;
	kx_status status = decode_body(turn, KX_BODY_SEARCH, &request);

	return status == KX_OK ? respond_similar(turn, request) : status;
}

kx_status kx_serve_video(struct kx_turn *turn)
{
	static const char *const names[] = {"embeddings", "top", NULL};
	struct kx_encode_video how = {.namer = &turn->gateway->namer, .top = TOP_DEFAULT};
	struct kx_answer answer = {0};
	kx_status status = kx_turn_args(turn, names);

	if (status == KX_OK)
		status = kx_turn_bool(turn, "embeddings", &how.embeddings);
	if (status == KX_OK)
		status = kx_turn_u32(turn, "top", 0, TOP_MAX, &how.top);
	if (status == KX_OK)
		status = kx_turn_video(turn, false, &answer);
	if (status != KX_OK)
		return status;
	struct kx_json json = begin(turn);
	kx_encode_video(&json, answer.reply->video, &how);
	kx_answer_done(&answer);
	return end(turn, &json);
}

kx_status kx_serve_batch(struct kx_turn *turn)
{
	KX_CLEANUP(kx_query_request_cleanup) struct kx_query_request *request = NULL;
	struct kx_encode_video how = {.namer = &turn->gateway->namer, .top = TOP_DEFAULT};
	struct kx_answer answer = {0};
	kx_status status = decode_body(turn, KX_BODY_VIDEOS, &request);

	if (status == KX_OK)
		status = kx_turn_ask(turn, request, &answer);
	if (status != KX_OK)
		return status;
	struct kx_json json = begin(turn);
	kx_json_open(&json, "videos", '[');
	for (uint32_t i = 0; i < answer.reply->found_count; i++) {
		if (answer.reply->found[i].video == NULL)
			continue;
		kx_json_open(&json, NULL, '{');
		kx_encode_video(&json, answer.reply->found[i].video, &how);
		kx_json_close(&json, '}');
	}
	kx_json_close(&json, ']');
	kx_json_open(&json, "not_found", '[');
	for (uint32_t i = 0; i < answer.reply->found_count; i++)
		if (answer.reply->found[i].video == NULL)
			kx_json_text(&json, NULL, answer.reply->found[i].video_id);
	kx_json_close(&json, ']');
	encode_shards(&json, &answer);
	kx_answer_done(&answer);
	return end(turn, &json);
}

kx_status kx_serve_classify(struct kx_turn *turn)
{
	static const char *const names[] = {"id", "moments", "top", NULL};
	struct kx_answer answer = {0};
	bool moments = false;
	uint32_t top = TOP_DEFAULT;
	kx_status status = kx_turn_args(turn, names);

	turn->id = kx_http_target_arg(&turn->request->target, "id");
	if (status == KX_OK && (turn->id == NULL || turn->id[0] == '\0'))
		status = kx_error_set(&turn->error, KX_EINVAL, KX_ERROR_POISON, "id: is missing");
	if (status == KX_OK)
		status = kx_turn_bool(turn, "moments", &moments);
	if (status == KX_OK)
		status = kx_turn_u32(turn, "top", 1, TOP_MAX, &top);
	if (status == KX_OK)
		status = kx_turn_video(turn, moments, &answer);
	if (status != KX_OK)
		return status;
	struct kx_json json = begin(turn);
	kx_json_text(&json, "id", turn->id);
	kx_encode_classes(&json, answer.reply->video, answer.reply->moments, answer.reply->moment_count, moments,
			  &turn->gateway->namer, top);
	kx_answer_done(&answer);
	return end(turn, &json);
}

static kx_status respond_plain(struct kx_turn *turn, enum kx_query_kind kind,
			       void (*encode)(struct kx_json *json, const struct kx_query_reply *reply),
			       void (*note)(struct kx_turn *turn, const struct kx_query_reply *reply))
{
	static const char *const none[] = {NULL};
	struct kx_query_request request = {.kind = kind};
	struct kx_answer answer = {0};
	kx_status status = kx_turn_args(turn, none);

	if (status == KX_OK)
		status = kx_turn_ask(turn, &request, &answer);
	if (status != KX_OK)
		return status;
	struct kx_json json = begin(turn);
	encode(&json, answer.reply);
	if (note != NULL)
		note(turn, answer.reply);
	encode_shards(&json, &answer);
	kx_answer_done(&answer);
	return end(turn, &json);
}

static void encode_stats(struct kx_json *json, const struct kx_query_reply *reply)
{
	kx_encode_stats(json, &reply->stats);
}

static void note_stats(struct kx_turn *turn, const struct kx_query_reply *reply)
{
	kx_metrics_stats(&turn->gateway->metrics, &reply->stats);
}

kx_status kx_serve_status(struct kx_turn *turn)
{
	return respond_plain(turn, KX_QUERY_STATS, encode_stats, note_stats);
}

kx_status kx_serve_schema(struct kx_turn *turn)
{
	return respond_plain(turn, KX_QUERY_SCHEMA, kx_encode_schema, NULL);
}
