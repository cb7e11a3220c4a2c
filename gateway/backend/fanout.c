#include "gateway/backend/fanout.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "gateway/backend/call.h"
#include "gateway/backend/layout.h"
#include "gateway/backend/merge.h"
#include "gateway/backend/resolve.h"

static kx_status add_copy(struct kx_wire *wire, struct kx_fanout_shard *shard, const char *text, struct kx_error *error)
{
	if (shard->copies == KX_FANOUT_COPIES_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "a shard has at most %u copies",
				    KX_FANOUT_COPIES_MAX);
	KX_CLEANUP(kx_cleanup_free) char *endpoint = strstr(text, "://") != NULL ? kx_strdup(text)
										  : kx_strf("tcp://%s", text);
	if (endpoint == NULL)
		return kx_error_nomem(error);
	kx_status status = kx_lane_start(wire, endpoint, &shard->lanes[shard->copies], error);
	shard->copies += status == KX_OK;
	return status;
}

static kx_status add_shard(struct kx_fanout *fanout, struct kx_wire *wire, char *text, struct kx_error *error)
{
	char *rest = NULL;
	kx_status status = KX_OK;

	if (fanout->shard_count == KX_FANOUT_SHARDS_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "at most %u shards", KX_FANOUT_SHARDS_MAX);
	struct kx_fanout_shard *shard = &fanout->shards[fanout->shard_count++];
	for (char *copy = strtok_r(text, "|", &rest); copy != NULL && status == KX_OK; copy = strtok_r(NULL, "|", &rest))
		status = add_copy(wire, shard, copy, error);
	if (status == KX_OK && shard->copies == 0)
		status = kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "a shard without an endpoint");
	return status;
}

static kx_status add_shards(struct kx_fanout *fanout, struct kx_wire *wire, const char *shards, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *copy = kx_strdup(shards);
	char *rest = NULL;
	kx_status status = KX_OK;

	if (copy == NULL)
		return kx_error_nomem(error);
	for (char *shard = strtok_r(copy, ",", &rest); shard != NULL && status == KX_OK; shard = strtok_r(NULL, ",", &rest))
		status = add_shard(fanout, wire, shard, error);
	if (status == KX_OK && fanout->shard_count == 0)
		status = kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				      "no shard is named; write ENDPOINT[|REPLICA],... as in tcp://10.0.0.1:7400");
	return status;
}

static kx_status allocate(struct kx_fanout **ret, struct kx_error *error)
{
	struct kx_fanout *fanout = calloc(1, sizeof(*fanout));

	if (fanout == NULL)
		return kx_error_nomem(error);
	pthread_mutex_init(&fanout->lock, NULL);
	fanout->hedge_credit = KX_HEDGE_BURST * KX_HEDGE_EVERY;
	*ret = fanout;
	return KX_OK;
}

kx_status kx_fanout_new(struct kx_wire *wire, const char *shards, unsigned hedge_ms, struct kx_fanout **ret,
			struct kx_error *error)
{
	struct kx_fanout *fanout = NULL;
	kx_status status = allocate(&fanout, error);

	if (status != KX_OK)
		return status;
	fanout->hedge_us = hedge_ms * UINT64_C(1000);
	status = add_shards(fanout, wire, shards, error);
	if (status == KX_OK)
		*ret = fanout;
	else
		kx_fanout_free(fanout);
	return status;
}

kx_status kx_fanout_new_one(struct kx_wire *wire, const char *endpoint, struct kx_fanout **ret, struct kx_error *error)
{
	struct kx_fanout *fanout = NULL;
	kx_status status = allocate(&fanout, error);

	if (status != KX_OK)
		return status;
	fanout->shard_count = 1;
	status = add_copy(wire, &fanout->shards[0], endpoint, error);
	if (status == KX_OK)
		*ret = fanout;
	else
		kx_fanout_free(fanout);
	return status;
}

void kx_fanout_free(struct kx_fanout *fanout)
{
	if (fanout == NULL)
		return;
	for (unsigned i = 0; i < fanout->shard_count; i++)
		for (unsigned copy = 0; copy < fanout->shards[i].copies; copy++)
			kx_lane_stop(fanout->shards[i].lanes[copy]);
	pthread_mutex_destroy(&fanout->lock);
	free(fanout);
}

void kx_fanout_cancel(void *fanout)
{
	kx_call_cancel_all(fanout);
}

static void add_failure(struct kx_answer *answer, const char *shard, kx_status status, const char *message)
{
	struct kx_shard_failure *failure = &answer->failures[answer->failure_count];

	failure->shard = kx_strdup(shard);
	failure->message = kx_strdup(message);
	failure->status = status;
	if (failure->shard != NULL && failure->message != NULL) {
		answer->failure_count++;
		return;
	}
	free(failure->shard);
	free(failure->message);
}

/* A reply that is only right for its own shard: another may have the video. */
static bool is_elsewhere(const struct kx_query_request *request, const struct kx_query_reply *reply)
{
	return reply->status == KX_ENOTFOUND && request->kind == KX_QUERY_VIDEO;
}

/* What the shards said, by what can be done with it. */
struct sorted {
	struct kx_query_reply *good[KX_FANOUT_SHARDS_MAX]; /* to be merged */
	unsigned good_count;
	struct kx_query_reply *refusal; /* one of those that refused, rather one that is more than "not here" */
};

/* A query that one shard answers and another refuses (it has no such attribute) is not wrong: that one is missing. */
static void add_refusals(const struct kx_query_request *request, struct kx_call_result *results, unsigned count,
			 struct sorted *sorted, struct kx_answer *answer)
{
	for (unsigned i = 0; i < count; i++) {
		struct kx_query_reply *reply = KX_STEAL(results[i].reply);

		if (reply == NULL)
			continue;
		if (sorted->good_count > 0 && !is_elsewhere(request, reply)) {
			snprintf(results[i].message, sizeof(results[i].message), "%s", reply->message);
			results[i].status = reply->status;
			answer->answered--;
			add_failure(answer, results[i].endpoint, results[i].status, results[i].message);
		}
		if (sorted->refusal == NULL || is_elsewhere(request, sorted->refusal)) {
			kx_query_reply_free(sorted->refusal);
			sorted->refusal = reply;
		} else {
			kx_query_reply_free(reply);
		}
	}
}

static void sort_out(const struct kx_query_request *request, struct kx_call_result *results, unsigned count,
		     struct sorted *sorted, struct kx_answer *answer)
{
	for (unsigned i = 0; i < count; i++) {
		if (results[i].endpoint == NULL)
			continue;
		answer->asked++;
		if (results[i].reply == NULL) {
			add_failure(answer, results[i].endpoint, results[i].status, results[i].message);
			continue;
		}
		answer->answered++;
		if (results[i].reply->status == KX_OK)
			sorted->good[sorted->good_count++] = KX_STEAL(results[i].reply);
	}
	add_refusals(request, results, count, sorted, answer);
}

static kx_status nobody(const struct kx_answer *answer, const struct kx_call_result *results, unsigned count,
			struct kx_error *error)
{
	for (unsigned i = 0; i < count; i++)
		if (results[i].endpoint != NULL && results[i].status != KX_OK)
			return kx_error_set(error, results[i].status, KX_ERROR_RETRY, "of %u shards none answered; %s: %s",
					    answer->asked, results[i].endpoint, results[i].message);
	return kx_error_set(error, KX_EBUSY, KX_ERROR_RETRY, "no shard was asked");
}

/* "Not here" counts only where everybody said so. */
static kx_status conclude(const struct kx_query_request *request, struct sorted *sorted, struct kx_answer *answer,
			  struct kx_error *error)
{
	if (sorted->good_count > 0)
		return kx_replies_merge(request, sorted->good, sorted->good_count, &answer->reply, error);
	if (is_elsewhere(request, sorted->refusal) && answer->answered < answer->asked)
		return kx_error_set(error, KX_ETIMEDOUT, KX_ERROR_RETRY,
				    "no shard that answered has the video, and %u of %u did not answer",
				    answer->asked - answer->answered, answer->asked);
	answer->reply = KX_STEAL(sorted->refusal);
	return KX_OK;
}

/* What is wrong with what was named as one catalogue, which becomes failures beside the shards' own. */
struct looked {
	struct kx_layout_gap gap;
	struct kx_layout_stray strays[KX_LAYOUT_STRAYS_MAX];
	unsigned stray_count;
};

static void add_layout(const struct looked *looked, struct kx_answer *answer)
{
	if (looked == NULL)
		return;
	if (looked->gap.parts[0] != '\0') {
		answer->asked++;
		add_failure(answer, looked->gap.parts, KX_ENOTFOUND, looked->gap.reason);
	}
	for (unsigned i = 0; i < looked->stray_count; i++) {
		answer->asked++;
		add_failure(answer, looked->strays[i].endpoint, KX_EINVAL, looked->strays[i].reason);
	}
}

static kx_status put_together(const struct kx_query_request *request, struct kx_call_result *results, unsigned count,
			      const struct looked *looked, struct kx_answer *answer, struct kx_error *error)
{
	struct sorted sorted = {.good_count = 0};

	answer->failures = calloc(count + 1 + (looked != NULL ? looked->stray_count : 0), sizeof(*answer->failures));
	if (answer->failures == NULL) {
		for (unsigned i = 0; i < count; i++)
			kx_query_reply_free(results[i].reply);
		return kx_error_nomem(error);
	}
	sort_out(request, results, count, &sorted, answer);
	add_layout(looked, answer);
	kx_status status = sorted.good_count == 0 && sorted.refusal == NULL ? nobody(answer, results, count, error)
									   : conclude(request, &sorted, answer, error);
	for (unsigned i = 0; i < sorted.good_count; i++)
		kx_query_reply_free(sorted.good[i]);
	kx_query_reply_free(sorted.refusal);
	return status;
}

static bool is_stray(const struct looked *looked, unsigned shard, unsigned copy)
{
	for (unsigned i = 0; i < looked->stray_count; i++)
		if (looked->strays[i].shard == shard && looked->strays[i].copy == copy)
			return true;
	return false;
}

/* Those that hold another part are not asked for anything but this until they hold the right one. */
static void look(struct kx_fanout *fanout, struct kx_packed *packed, uint64_t deadline_us, struct kx_call_result *results,
		 struct looked *ret)
{
	kx_call_copies(fanout, packed, deadline_us, results);
	ret->stray_count = kx_layout_strays(results, fanout->shard_count, ret->strays);
	for (unsigned i = 0; i < fanout->shard_count; i++)
		for (unsigned copy = 0; copy < fanout->shards[i].copies; copy++)
			if (results[i].copies[copy].endpoint != NULL)
				kx_lane_set_stray(fanout->shards[i].lanes[copy], is_stray(ret, i, copy));
	kx_layout_check(results, fanout->shard_count, &ret->gap);
}

static kx_status ask_all(struct kx_fanout *fanout, const struct kx_query_request *request, uint64_t deadline_us,
			 kx_call_enough *enough, struct kx_answer *answer, struct kx_error *error)
{
	struct kx_query_request numbered = *request;
	struct kx_packed *packed[KX_FANOUT_SHARDS_MAX], *one = NULL;
	struct kx_call_result results[KX_FANOUT_SHARDS_MAX];
	KX_CLEANUP(kx_cleanup_free) struct looked *looked = NULL;

	if (request->kind == KX_QUERY_STATS && (looked = calloc(1, sizeof(*looked))) == NULL)
		return kx_error_nomem(error);
	numbered.request_id = kx_ask_id();
	kx_status status = kx_packed_new(&numbered, &one, error);
	if (status != KX_OK)
		return status;
	for (unsigned i = 0; i < fanout->shard_count; i++)
		packed[i] = one;
	if (looked != NULL)
		look(fanout, one, deadline_us, results, looked);
	else
		kx_call(fanout, packed, deadline_us, enough, results);
	kx_packed_unref(one);
	return put_together(request, results, fanout->shard_count, looked, answer, error);
}

static kx_status ask_plain(void *ctx, const struct kx_query_request *request, uint64_t deadline_us,
			   struct kx_answer *ret, struct kx_error *error)
{
	struct kx_answer answer = {0};
	kx_status status = ask_all(ctx, request, deadline_us, NULL, &answer, error);

	if (status == KX_OK)
		*ret = answer;
	else
		kx_answer_done(&answer);
	return status;
}

/* Every video that was asked for has come from some shard. */
static bool all_found(const struct kx_query_reply *const *replies, unsigned count)
{
	const struct kx_query_reply *any = NULL;

	for (unsigned i = 0; i < count; i++)
		if (replies[i] != NULL && replies[i]->status == KX_OK)
			any = replies[i];
	for (uint32_t at = 0; any != NULL && at < any->found_count; at++) {
		bool found = false;

		for (unsigned i = 0; i < count && !found; i++)
			found = replies[i] != NULL && at < replies[i]->found_count && replies[i]->found[at].video != NULL;
		if (!found)
			return false;
	}
	return any != NULL;
}

/* What a query is about, first: a shard that does not answer must not take the time that the query itself needs. */
static kx_status ask_first(void *ctx, const struct kx_query_request *request, uint64_t deadline_us,
			   struct kx_answer *ret, struct kx_error *error)
{
	struct kx_answer answer = {0};
	uint64_t now = kx_clock_mono_us();
	uint64_t left_us = deadline_us > now ? deadline_us - now : 0;
	kx_status status = ask_all(ctx, request, now + left_us / 2, all_found, &answer, error);

	if (status == KX_OK)
		*ret = answer;
	else
		kx_answer_done(&answer);
	return status;
}

/* Of a batch of which no video was found: each query gets that for an answer. */
static kx_status answer_nothing(const struct kx_resolved *resolved, struct kx_answer *answer, struct kx_error *error)
{
	*answer = (struct kx_answer){
		.reply = calloc(1, sizeof(*answer->reply)), .asked = resolved->asked, .answered = resolved->answered};
	if (answer->reply != NULL)
		answer->reply->message = kx_strdup("");
	return answer->reply != NULL && answer->reply->message != NULL ? KX_OK : kx_error_nomem(error);
}

/* One query over several shards: by vectors, as each shard has only its own videos'. */
static kx_status ask_similar(struct kx_fanout *fanout, const struct kx_query_request *request, uint64_t deadline_us,
			     struct kx_answer *answer, struct kx_error *error)
{
	struct kx_resolved resolved = {0};
	kx_status status = kx_resolve(request, ask_first, fanout, deadline_us, &resolved, error);

	if (status == KX_OK && resolved.refusal != NULL)
		*answer = (struct kx_answer){
			.reply = KX_STEAL(resolved.refusal), .asked = resolved.asked, .answered = resolved.answered};
	else if (status == KX_OK && resolved.request.kind == KX_QUERY_SIMILAR_BATCH && resolved.request.batch_count == 0)
		status = answer_nothing(&resolved, answer, error);
	else if (status == KX_OK)
		status = ask_all(fanout, &resolved.request, deadline_us, NULL, answer, error);
	if (status == KX_OK && answer->reply->status == KX_OK)
		status = kx_resolved_restore(&resolved, answer->reply, error);
	kx_resolved_done(&resolved);
	return status;
}

kx_status kx_fanout_ask(void *ctx, const struct kx_query_request *request, uint64_t deadline_us,
			struct kx_answer *ret, struct kx_error *error)
{
	struct kx_fanout *fanout = ctx;
	struct kx_answer answer = {0};
	bool similar = request->kind == KX_QUERY_SIMILAR || request->kind == KX_QUERY_SIMILAR_BATCH;
	kx_status status = similar && fanout->shard_count > 1
				   ? ask_similar(fanout, request, deadline_us, &answer, error)
				   : ask_plain(fanout, request, deadline_us, &answer, error);

	if (status == KX_OK)
		*ret = answer;
	else
		kx_answer_done(&answer);
	return status;
}

struct lane_metric {
	const char *name, *help, *type;
};

static const struct lane_metric lane_metrics[] = {
	{"kinodex_shard_asks_total", "Queries sent to an endpoint.", "counter"},
	{"kinodex_shard_answers_total", "Replies of an endpoint.", "counter"},
	{"kinodex_shard_late_total", "Replies that nobody waited for any more.", "counter"},
	{"kinodex_shard_lost_total", "Queries without reply in time.", "counter"},
	{"kinodex_shard_answer_seconds_total", "Time until replies came.", "counter"},
	{"kinodex_shard_answer_p95_seconds", "What 95 of 100 of the last replies took at most; 0: not known.", "gauge"},
	{"kinodex_shard_up", "Whether the endpoint is asked.", "gauge"},
};

/* A path may hold what ends a label's value. */
static void escape_label(const char *text, char *out, size_t out_len)
{
	size_t len = 0;

	for (; *text != '\0' && len + 3 < out_len; text++) {
		if (*text == '"' || *text == '\\' || *text == '\n')
			out[len++] = '\\';
		out[len++] = (char)(*text == '\n' ? 'n' : *text);
	}
	out[len] = '\0';
}

static kx_status lane_metric(const struct kx_fanout *fanout, size_t which, struct kx_buf *out)
{
	const struct lane_metric *metric = &lane_metrics[which];
	kx_status status = kx_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help, metric->name,
					 metric->type);

	for (unsigned i = 0; i < fanout->shard_count; i++) {
		for (unsigned copy = 0; copy < fanout->shards[i].copies && status == KX_OK; copy++) {
			struct kx_lane *lane = fanout->shards[i].lanes[copy];
			struct kx_lane_stats stats;
			char endpoint[512];

			escape_label(kx_lane_endpoint(lane), endpoint, sizeof(endpoint));
			kx_lane_stats(lane, &stats);
			double values[] = {(double)stats.asked, (double)stats.answered,
					   (double)stats.late,  (double)stats.lost,
					   (double)stats.took_us / 1e6, (double)kx_lane_p95_us(lane) / 1e6,
					   stats.up};
			status = kx_buf_printf(out, "%s{shard=\"%u\",endpoint=\"%s\"} %.9g\n", metric->name, i, endpoint,
					       values[which]);
		}
	}
	return status;
}

kx_status kx_fanout_metrics(void *ctx, struct kx_buf *out)
{
	struct kx_fanout *fanout = ctx;
	kx_status status = KX_OK;

	for (size_t i = 0; i < KX_ARRAY_LEN(lane_metrics) && status == KX_OK; i++)
		status = lane_metric(fanout, i, out);
	if (status != KX_OK)
		return status;
	return kx_buf_printf(out,
			     "# HELP kinodex_shard_second_asks_total Queries that were also sent to a replica.\n"
			     "# TYPE kinodex_shard_second_asks_total counter\nkinodex_shard_second_asks_total %" PRIu64 "\n"
			     "# HELP kinodex_shard_second_asks_denied_total Queries that might have been and were not: too many "
			     "were lately.\n"
			     "# TYPE kinodex_shard_second_asks_denied_total counter\n"
			     "kinodex_shard_second_asks_denied_total %" PRIu64 "\n"
			     "# HELP kinodex_shard_replica_answers_total Answers that came from a replica first.\n"
			     "# TYPE kinodex_shard_replica_answers_total counter\nkinodex_shard_replica_answers_total %" PRIu64
			     "\n",
			     (uint64_t)atomic_load(&fanout->hedged), (uint64_t)atomic_load(&fanout->hedges_denied),
			     (uint64_t)atomic_load(&fanout->hedges_won));
}
