/* The fan-out against shards that are threads here: slow ones, silent ones, some that die, and what they say together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "common/record/cursor.h"
#include "gateway/backend/fanout.h"

#define LONG_MS 120000u /* nobody is to wait for so long */
#define BRIEF_MS 200u   /* what a silent one costs at first: more, where one that answers had to wait for a CPU in it */

struct fake {
	struct kx_wire_socket *socket;
	pthread_t thread;
	struct kx_stop stop;
	char endpoint[64];
	/* How it behaves. */
	atomic_bool silent;
	atomic_bool stops_at_query; /* closes its socket in the place of an answer */
	atomic_uint delay_ms;
	kx_status excuse;
	atomic_uint part;
	uint32_t parts;
	const char *ids[4];         /* its videos, ids[0] with the best score */
	double scores[4];
	unsigned count;
	/* What it saw. */
	atomic_uint asked;
	atomic_bool saw_vectors;
	atomic_uint saw_moments;
};

static struct kx_wire *wire;

static int set_up(void **state)
{
	(void)state;
	return kx_wire_new(&wire, NULL);
}

static int tear_down(void **state)
{
	(void)state;
	kx_wire_free(wire);
	return 0;
}

static bool is_left_out(const struct kx_similar_query *query, const char *id)
{
	for (uint32_t i = 0; i < query->not_id_count; i++)
		if (strcmp(query->not_ids[i], id) == 0)
			return true;
	return false;
}

/* Behind the page before, as its cursor says. */
static bool is_behind(const struct kx_similar_query *query, double score, const char *id)
{
	struct kx_cursor cursor = {0};
	struct kx_error error = {0};

	if (query->cursor == NULL || query->cursor[0] == '\0')
		return true;
	if (kx_cursor_decode(query->cursor, kx_similar_query_fingerprint(query), &cursor, &error) != KX_OK)
		fail_msg("%s", error.message);
	bool behind = kx_hit_order(cursor.score, cursor.video_id, 0, score, id, 0) < 0;
	kx_cursor_done(&cursor);
	return behind;
}

static struct kx_similar_answer similar(struct fake *fake, const struct kx_similar_query *query)
{
	struct kx_similar_answer answer = {.hits = calloc(4, sizeof(struct kx_similar_hit)), .recall = 1, .exact = true};

	atomic_store(&fake->saw_vectors, query->vector_count > 0);
	atomic_store(&fake->saw_moments, query->moment_count);
	assert_true(query->moment_count == 0 || query->moment_us == 10000000);
	for (unsigned i = 0; i < fake->count && answer.hit_count < query->k; i++)
		if (!is_left_out(query, fake->ids[i]) && is_behind(query, fake->scores[i], fake->ids[i]))
			answer.hits[answer.hit_count++] = (struct kx_similar_hit){
				.video_id = (char *)(uintptr_t)fake->ids[i], .score = fake->scores[i], .duration_us = 1};
	answer.work.rows = fake->count;
	return answer;
}

static float embedding[2] = {1, 0};
static struct kx_query_vector moment_vectors[2] = {
	{.modality = KX_VISUAL, .space = (char *)(uintptr_t)"s", .moment = 0, .dim = 2, .values = embedding},
	{.modality = KX_VISUAL, .space = (char *)(uintptr_t)"s", .moment = 3, .dim = 2, .values = embedding}};

static struct kx_video_record record_of(const char *id)
{
	struct kx_video_record record = {.generation = 1};

	record.result = (struct kx_video_result){.video_id = (char *)(uintptr_t)id,
						 .modality_count = 1,
						 .duration_us = 1,
						 .visual_us = 1,
						 .decode_mode = KX_DECODE_EXACT,
						 .moment_us = 10000000};
	record.result.modalities[0] = (struct kx_modality_result){
		.modality = KX_VISUAL, .space = (char *)(uintptr_t)"s", .moments = 1, .rows = 1, .dim = 2, .embedding = embedding};
	record.info.source = (char *)(uintptr_t)"/x";
	record.info.recipe_sha256[0] = record.result.recipe_sha256[0] = 1;
	return record;
}

static bool has(const struct fake *fake, const char *id)
{
	for (unsigned i = 0; i < fake->count; i++)
		if (strcmp(fake->ids[i], id) == 0)
			return true;
	return false;
}

static void pack(const struct kx_query_reply *reply, struct kx_buf *out)
{
	assert_int_equal(kx_query_reply_pack(reply, out), KX_OK);
}

static void answer(struct fake *fake, const struct kx_query_request *request, struct kx_buf *out)
{
	struct kx_query_reply reply = {.request_id = request->request_id, .status = fake->excuse};
	struct kx_similar_answer answers[4] = {0};
	struct kx_found_video found[4] = {0};
	struct kx_video_record records[4];

	if (request->kind == KX_QUERY_SIMILAR)
		reply.similar = answers[0] = similar(fake, &request->similar);
	for (uint32_t i = 0; i < request->batch_count; i++)
		answers[i] = similar(fake, &request->batch[i]);
	reply.answers = answers;
	reply.answer_count = request->batch_count;
	for (uint32_t i = 0; i < request->video_id_count; i++) {
		records[i] = record_of(request->video_ids[i]);
		found[i] = (struct kx_found_video){.video_id = request->video_ids[i]};
		if (!has(fake, request->video_ids[i]))
			continue;
		found[i].video = &records[i];
		found[i].moments = moment_vectors;
		found[i].moment_count = request->with_moments ? KX_ARRAY_LEN(moment_vectors) : 0;
	}
	reply.found = found;
	reply.found_count = request->video_id_count;
	if (request->kind == KX_QUERY_VIDEO && has(fake, request->video_id)) {
		records[0] = record_of(request->video_id);
		reply.video = &records[0];
	} else if (request->kind == KX_QUERY_VIDEO) {
		reply.status = KX_ENOTFOUND;
	}
	reply.stats.part = atomic_load(&fake->part);
	reply.stats.parts = fake->parts;
	reply.stats.videos = fake->count;
	reply.stats.index_vectors = 2 * fake->count;
	reply.stats.index_recall = has(fake, "c") ? 1.0 : 0.5;
	reply.stats.index_recall_samples = has(fake, "c") ? 6 : 2;
	pack(&reply, out);
	for (size_t i = 0; i < 4; i++)
		free(answers[i].hits);
}

static void serve_one(struct fake *fake, const struct kx_wire_message *message)
{
	struct kx_query_request *request = NULL;
	struct kx_buf out = {.max = KX_WIRE_MESSAGE_MAX};
	struct pollfd stop = {.fd = fake->stop.fd, .events = POLLIN};
	struct kx_error error = {0};

	atomic_fetch_add(&fake->asked, 1);
	if (atomic_load(&fake->silent))
		return;
	if (kx_query_request_unpack(message->bytes, message->len, &request, &error) != KX_OK)
		fail_msg("%s", error.message);
	poll(&stop, 1, (int)atomic_load(&fake->delay_ms)); /* this is what slow means */
	answer(fake, request, &out);
	(void)!kx_wire_send(fake->socket, &message->peer, out.data, out.len, 0, NULL);
	kx_buf_done(&out);
	kx_query_request_free(request);
}

static void *run(void *arg)
{
	struct fake *fake = arg;

	while (!kx_stop_asked(&fake->stop)) {
		struct kx_wire_message message = {0};
		kx_status status = kx_wire_recv(fake->socket, -1, fake->stop.fd, &message, NULL);

		if (status == KX_OK && atomic_load(&fake->stops_at_query)) {
			atomic_fetch_add(&fake->asked, 1);
			kx_stop_ask(&fake->stop);
		} else if (status == KX_OK) {
			serve_one(fake, &message);
		}
		kx_wire_message_done(&message);
	}
	kx_wire_socket_close(KX_STEAL(fake->socket), 0);
	return NULL;
}

static void start(struct fake *fake)
{
	struct kx_error error = {0};

	assert_int_equal(kx_stop_init(&fake->stop, NULL), KX_OK);
	if (kx_wire_server(wire, "tcp://127.0.0.1:*", 100, &fake->socket, &error) != KX_OK)
		fail_msg("%s", error.message);
	snprintf(fake->endpoint, sizeof(fake->endpoint), "%s", kx_wire_endpoint(fake->socket));
	assert_int_equal(kx_thread_start(&fake->thread, "fake", run, fake, NULL), KX_OK);
}

static void stop(struct fake *fake)
{
	kx_stop_ask(&fake->stop);
	pthread_join(fake->thread, NULL);
	kx_stop_done(&fake->stop);
}

static struct kx_fanout *fan(const char *shards)
{
	struct kx_fanout *fanout = NULL;
	struct kx_error error = {0};

	if (kx_fanout_new(wire, shards, 20, &fanout, &error) != KX_OK)
		fail_msg("%s: %s", shards, error.message);
	return fanout;
}

static struct kx_fanout *fan_of(struct fake *fakes, unsigned count)
{
	char shards[1024] = "";

	for (unsigned i = 0; i < count; i++) {
		start(&fakes[i]);
		sprintf(shards + strlen(shards), "%s%s", i > 0 ? "," : "", fakes[i].endpoint);
	}
	return fan(shards);
}

static void end(struct kx_fanout *fanout, struct fake *fakes, unsigned count)
{
	kx_fanout_free(fanout);
	for (unsigned i = 0; i < count; i++)
		stop(&fakes[i]);
}

static float values[2] = {1, 0};
static struct kx_query_vector vector = {.modality = KX_VISUAL, .space = (char *)(uintptr_t)"s", .dim = 2, .values = values};

static struct kx_query_request by_vector(uint32_t k)
{
	return (struct kx_query_request){
		.kind = KX_QUERY_SIMILAR,
		.similar = {.vector_count = 1, .vectors = &vector, .k = k, .weight_visual = 1}};
}

static struct kx_query_request by_id(const char *id, uint32_t k)
{
	return (struct kx_query_request){
		.kind = KX_QUERY_SIMILAR, .similar = {.video_id = (char *)(uintptr_t)id, .k = k, .weight_visual = 1}};
}

static kx_status ask_within(struct kx_fanout *fanout, const struct kx_query_request *request, unsigned ms,
			    struct kx_answer *ret, struct kx_error *error)
{
	*ret = (struct kx_answer){0};
	return kx_fanout_ask(fanout, request, kx_clock_mono_us() + ms * UINT64_C(1000), ret, error);
}

static struct kx_answer ask(struct kx_fanout *fanout, const struct kx_query_request *request, unsigned ms)
{
	struct kx_answer answer;
	struct kx_error error = {0};

	if (ask_within(fanout, request, ms, &answer, &error) != KX_OK)
		fail_msg("%s", error.message);
	return answer;
}

/* Where some are silent the time is all used up: as little as lets so many answer. */
static struct kx_answer ask_until(struct kx_fanout *fanout, const struct kx_query_request *request, uint32_t answered)
{
	for (unsigned ms = BRIEF_MS; ms < LONG_MS; ms *= 2) {
		struct kx_answer answer;

		if (ask_within(fanout, request, ms, &answer, NULL) != KX_OK)
			continue;
		if (answer.answered == answered)
			return answer;
		assert_true(answer.answered < answered);
		kx_answer_done(&answer);
	}
	fail_msg("fewer than %u answered", (unsigned)answered);
	return (struct kx_answer){0};
}

static void expect_hits(const struct kx_answer *answer, const char *ids)
{
	char got[256] = "";

	for (uint32_t i = 0; i < answer->reply->similar.hit_count; i++)
		sprintf(got + strlen(got), "%s%s", i > 0 ? " " : "", answer->reply->similar.hits[i].video_id);
	assert_string_equal(got, ids);
}

static void test_puts_answers_together(void **state)
{
	struct fake fakes[3] = {{.ids = {"d", "a"}, .scores = {0.9, 0.5}, .count = 2},
				{.ids = {"b", "e"}, .scores = {0.8, 0.5}, .count = 2},
				{.ids = {"c", "b"}, .scores = {0.95, 0.8}, .count = 2}}; /* b moved and is in two */
	struct kx_fanout *fanout = fan_of(fakes, 3);
	struct kx_query_request request = by_vector(10);

	(void)state;
	struct kx_answer answer = ask(fanout, &request, LONG_MS);
	expect_hits(&answer, "c d b a e");
	assert_int_equal(answer.asked, 3);
	assert_int_equal(answer.answered, 3);
	assert_int_equal(answer.reply->similar.work.rows, 6);
	assert_true(answer.reply->similar.exact);
	kx_answer_done(&answer);
	request = by_vector(2);
	answer = ask(fanout, &request, LONG_MS);
	expect_hits(&answer, "c d");
	kx_answer_done(&answer);
	request = (struct kx_query_request){.kind = KX_QUERY_STATS};
	answer = ask(fanout, &request, LONG_MS);
	assert_int_equal(answer.reply->stats.videos, 6);
	assert_int_equal(answer.reply->stats.index_vectors, 12);
	assert_int_equal(answer.reply->stats.index_recall_samples, 10);
	assert_float_equal(answer.reply->stats.index_recall, 0.8, 1e-9); /* the shards' by their samples */
	kx_answer_done(&answer);
	end(fanout, fakes, 3);
}

static void expect_failure(const struct kx_answer *answer, uint32_t at, const char *shard, const char *reason)
{
	assert_true(at < answer->failure_count);
	assert_string_equal(answer->failures[at].shard, shard);
	if (strstr(answer->failures[at].message, reason) == NULL)
		fail_msg("%s", answer->failures[at].message);
}

static void test_a_part_named_twice_and_one_by_none(void **state)
{
	struct fake fakes[3] = {{.ids = {"a"}, .count = 1, .part = 2, .parts = 4},
				{.ids = {"a"}, .count = 1, .part = 2, .parts = 4},
				{.ids = {"b", "c"}, .count = 2, .part = 1, .parts = 3}};
	const struct kx_query_request request = {.kind = KX_QUERY_STATS};
	struct kx_fanout *fanout = fan_of(fakes, 3);

	(void)state;
	struct kx_answer answer = ask(fanout, &request, LONG_MS);
	assert_int_equal(answer.reply->stats.videos, 1); /* what is there twice is not counted twice */
	assert_int_equal(answer.asked, 4);
	assert_int_equal(answer.answered, 1);
	expect_failure(&answer, 0, fakes[1].endpoint, "part 2 of 4, as tcp://");
	expect_failure(&answer, 1, fakes[2].endpoint, "part 1 of 3, where tcp://");
	expect_failure(&answer, 2, "parts 0, 1, 3 of 4", "on no shard");
	kx_answer_done(&answer);
	atomic_store(&fakes[1].silent, true); /* it may be the one that seems to be missing */
	answer = ask_until(fanout, &request, 1);
	assert_int_equal(answer.asked, 3);
	assert_int_equal(answer.failure_count, 2);
	kx_answer_done(&answer);
	end(fanout, fakes, 3);
}

static void test_all_parts_once(void **state)
{
	struct fake fakes[3] = {{.ids = {"a"}, .count = 1, .part = 1, .parts = 2},
				{.ids = {"b"}, .count = 1, .part = 0, .parts = 2},
				{.ids = {"c"}, .count = 1, .parts = 1}}; /* another catalogue, whole */
	const struct kx_query_request request = {.kind = KX_QUERY_STATS};
	struct kx_fanout *fanout = fan_of(fakes, 3);

	(void)state;
	struct kx_answer answer = ask(fanout, &request, LONG_MS);
	assert_int_equal(answer.reply->stats.videos, 3);
	assert_int_equal(answer.asked, 3);
	assert_int_equal(answer.failure_count, 0);
	kx_answer_done(&answer);
	end(fanout, fakes, 3);
}

static struct kx_fanout *fan_of_two(struct fake fakes[2])
{
	char shards[256];

	start(&fakes[0]);
	start(&fakes[1]);
	sprintf(shards, "%s|%s", fakes[0].endpoint, fakes[1].endpoint);
	return fan(shards);
}

/* It is told, and asked for nothing else; until it holds the part that it should. */
static void test_a_replica_of_another_part(void **state)
{
	struct fake fakes[2] = {{.ids = {"a"}, .scores = {0.9}, .count = 1, .part = 0, .parts = 2},
				{.ids = {"b"}, .scores = {0.8}, .count = 1, .part = 1, .parts = 2}};
	struct kx_query_request request = {.kind = KX_QUERY_STATS};
	struct kx_fanout *fanout = fan_of_two(fakes);

	(void)state;
	struct kx_answer answer = ask(fanout, &request, LONG_MS);
	assert_int_equal(answer.reply->stats.videos, 1);
	assert_int_equal(answer.reply->stats.part, 0);
	assert_int_equal(answer.asked, 3); /* the shard, what no shard holds, and the replica */
	assert_int_equal(answer.answered, 1);
	expect_failure(&answer, 0, "part 1 of 2", "on no shard");
	expect_failure(&answer, 1, fakes[1].endpoint, "part 1 of 2, where tcp://");
	assert_non_null(strstr(answer.failures[1].message, "has part 0 of 2; it is left out"));
	kx_answer_done(&answer);

	const unsigned asked = atomic_load(&fakes[1].asked);
	struct kx_query_request query = by_vector(10);
	atomic_store(&fakes[0].delay_ms, 100); /* five times what a replica is asked after */
	answer = ask(fanout, &query, LONG_MS);
	expect_hits(&answer, "a");
	assert_int_equal(atomic_load(&fakes[1].asked), asked);
	kx_answer_done(&answer);

	atomic_store(&fakes[1].part, 0);
	answer = ask(fanout, &request, LONG_MS);
	assert_int_equal(answer.failure_count, 1); /* what no shard holds */
	kx_answer_done(&answer);
	atomic_store(&fakes[0].delay_ms, LONG_MS);
	answer = ask(fanout, &query, LONG_MS);
	expect_hits(&answer, "b");
	kx_answer_done(&answer);
	end(fanout, fakes, 2);
}

/* One that tells no part, and one that says nothing at all, are as good as any; what the silent one costs is half the time. */
static void test_replicas_that_do_not_tell(void **state)
{
	struct fake fakes[2] = {{.ids = {"a"}, .count = 1, .part = 0, .parts = 2}, {.ids = {"a"}, .count = 1}};
	struct kx_query_request request = {.kind = KX_QUERY_STATS};
	struct kx_fanout *fanout = fan_of_two(fakes);

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct kx_answer answer = ask_until(fanout, &request, 1);

		assert_int_equal(answer.failure_count, 1);
		expect_failure(&answer, 0, "part 1 of 2", "on no shard");
		kx_answer_done(&answer);
		atomic_store(&fakes[1].silent, true);
	}
	end(fanout, fakes, 2);
}

/* The first of a shard's endpoints is what counts, also where another answers sooner. */
static void test_the_first_copy_counts(void **state)
{
	struct fake fakes[2] = {{.ids = {"a", "b"}, .count = 2, .part = 1, .parts = 1},
				{.ids = {"a"}, .count = 1, .part = 1, .parts = 1}};
	struct kx_query_request request = {.kind = KX_QUERY_STATS};

	(void)state;
	atomic_store(&fakes[0].delay_ms, 50);
	struct kx_fanout *fanout = fan_of_two(fakes);
	struct kx_answer answer = ask(fanout, &request, LONG_MS);
	assert_int_equal(answer.failure_count, 0);
	assert_int_equal(answer.reply->stats.videos, 2);
	kx_answer_done(&answer);
	end(fanout, fakes, 2);
}

static void test_pages_over_shards(void **state)
{
	struct fake fakes[2] = {{.ids = {"a", "c", "e"}, .scores = {0.9, 0.7, 0.5}, .count = 3},
				{.ids = {"b", "d"}, .scores = {0.8, 0.6}, .count = 2}};
	static const char *const pages[] = {"a b", "c d", "e"};
	struct kx_fanout *fanout = fan_of(fakes, 2);
	struct kx_query_request request = by_vector(2);
	char *cursor = NULL;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		request.similar.cursor = cursor;
		struct kx_answer answer = ask(fanout, &request, LONG_MS);
		expect_hits(&answer, pages[i]);
		free(cursor);
		cursor = kx_strdup(answer.reply->similar.next);
		assert_int_equal(cursor[0] == '\0', i == 2);
		kx_answer_done(&answer);
	}
	free(cursor);
	end(fanout, fakes, 2);
}

static void test_asks_by_the_vectors_of_an_id(void **state)
{
	struct fake fakes[2] = {{.ids = {"a"}, .scores = {0.9}, .count = 1}, {.ids = {"q", "b"}, .scores = {1, 0.8}, .count = 2}};
	struct kx_fanout *fanout = fan_of(fakes, 2);
	struct kx_query_request request = by_id("q", 5);

	(void)state;
	struct kx_answer answer = ask(fanout, &request, LONG_MS);
	expect_hits(&answer, "a b"); /* and not itself */
	assert_true(atomic_load(&fakes[0].saw_vectors) && atomic_load(&fakes[1].saw_vectors));
	kx_answer_done(&answer);
	request = by_id("nobody", 5);
	answer = ask(fanout, &request, LONG_MS);
	assert_int_equal(answer.reply->status, KX_ENOTFOUND);
	assert_non_null(strstr(answer.reply->message, "nobody"));
	kx_answer_done(&answer);
	struct kx_similar_query batch[3] = {by_id("nobody", 2).similar, by_id("q", 1).similar, by_vector(1).similar};
	request = (struct kx_query_request){.kind = KX_QUERY_SIMILAR_BATCH, .batch = batch, .batch_count = 3};
	answer = ask(fanout, &request, LONG_MS);
	assert_int_equal(answer.reply->answer_count, 3);
	assert_int_equal(answer.reply->answers[0].status, KX_ENOTFOUND);
	assert_string_equal(answer.reply->answers[1].hits[0].video_id, "a");
	assert_string_equal(answer.reply->answers[2].hits[0].video_id, "q");
	kx_answer_done(&answer);
	request.batch_count = 1; /* nothing is left to be asked */
	answer = ask(fanout, &request, LONG_MS);
	assert_int_equal(answer.reply->answer_count, 1);
	assert_int_equal(answer.reply->answers[0].status, KX_ENOTFOUND);
	kx_answer_done(&answer);
	end(fanout, fakes, 2);
}

static void test_carries_the_moments_of_an_id(void **state)
{
	struct fake fakes[2] = {{.ids = {"a"}, .scores = {0.9}, .count = 1}, {.ids = {"q", "b"}, .scores = {1, 0.8}, .count = 2}};
	struct kx_fanout *fanout = fan_of(fakes, 2);
	struct kx_query_request request = by_id("q", 5);

	(void)state;
	for (unsigned asked = 0; asked < 2; asked++) {
		request.similar.with_moments = asked;
		struct kx_answer answer = ask(fanout, &request, LONG_MS);
		expect_hits(&answer, "a b");
		kx_answer_done(&answer);
		for (size_t i = 0; i < 2; i++)
			assert_int_equal(atomic_load(&fakes[i].saw_moments), asked ? 2 : 0);
	}
	end(fanout, fakes, 2);
}

/* What the query is about is known at once from one; the other must not use up the time, nor get that one a bad name. */
static void test_an_id_and_a_silent_shard(void **state)
{
	struct fake fakes[2] = {{.ids = {"q", "a"}, .scores = {1, 0.9}, .count = 2}, {.silent = true}};
	struct kx_fanout *fanout = fan_of(fakes, 2);
	struct kx_similar_query batch[2] = {by_id("q", 5).similar, by_id("gone", 5).similar};
	struct kx_query_request request = by_id("q", 5),
				many = {.kind = KX_QUERY_SIMILAR_BATCH, .batch = batch, .batch_count = 2};

	(void)state;
	for (int i = 0; i < 4; i++) {
		struct kx_answer answer = ask_until(fanout, &request, 1);

		expect_hits(&answer, "a");
		kx_answer_done(&answer);
		answer = ask_until(fanout, &many, 1);
		assert_string_equal(answer.reply->answers[0].hits[0].video_id, "a");
		assert_int_equal(answer.reply->answers[1].status, KX_ETIMEDOUT); /* it may be with the silent one */
		kx_answer_done(&answer);
	}
	end(fanout, fakes, 2);
}

static void test_a_video_is_with_one_of_them(void **state)
{
	struct fake fakes[2] = {{.ids = {"a"}, .count = 1}, {.ids = {"b"}, .count = 1}};
	struct kx_fanout *fanout = fan_of(fakes, 2);
	struct kx_query_request request = {.kind = KX_QUERY_VIDEO, .video_id = (char *)(uintptr_t)"b"};
	struct kx_error error = {0};

	(void)state;
	struct kx_answer answer = ask(fanout, &request, LONG_MS);
	assert_string_equal(answer.reply->video->result.video_id, "b");
	kx_answer_done(&answer);
	request.video_id = (char *)(uintptr_t)"c";
	answer = ask(fanout, &request, LONG_MS);
	assert_int_equal(answer.reply->status, KX_ENOTFOUND);
	kx_answer_done(&answer);
	/* Where one does not answer, nobody can say that there is no such video. */
	atomic_store(&fakes[0].silent, true);
	for (unsigned ms = BRIEF_MS; strstr(error.message, "no shard that answered has the video, and 1 of 2") == NULL; ms *= 2) {
		assert_true(ms < LONG_MS);
		assert_int_equal(ask_within(fanout, &request, ms, &answer, &error), KX_ETIMEDOUT);
	}
	char *ids[] = {(char *)(uintptr_t)"b", (char *)(uintptr_t)"c"};
	request = (struct kx_query_request){.kind = KX_QUERY_VIDEOS, .video_ids = ids, .video_id_count = 2};
	answer = ask_until(fanout, &request, 1);
	assert_non_null(answer.reply->found[0].video);
	assert_null(answer.reply->found[1].video);
	kx_answer_done(&answer);
	end(fanout, fakes, 2);
}

/* The first query waits for it until its time is over; those after it do not; when it answers again, it is asked again. */
static void test_a_silent_shard_is_left_out(void **state)
{
	struct fake fakes[2] = {{.ids = {"a"}, .scores = {0.9}, .count = 1}, {.ids = {"b"}, .scores = {0.8}, .count = 1}};
	struct kx_fanout *fanout = fan_of(fakes, 2);
	struct kx_query_request request = by_vector(10);
	uint64_t begun;

	(void)state;
	atomic_store(&fakes[1].silent, true);
	struct kx_answer answer = ask_until(fanout, &request, 1);
	expect_hits(&answer, "a");
	assert_int_equal(answer.asked, 2);
	assert_int_equal(answer.failure_count, 1);
	assert_string_equal(answer.failures[0].shard, fakes[1].endpoint);
	assert_int_equal(answer.failures[0].status, KX_ETIMEDOUT);
	kx_answer_done(&answer);
	begun = kx_clock_mono_us();
	do { /* until its lane has drawn the conclusion */
		assert_true(kx_clock_mono_us() - begun < LONG_MS * 1000u);
		answer = ask_until(fanout, &request, 1);
		kx_status status = answer.failures[0].status;
		kx_answer_done(&answer);
		if (status == KX_EBUSY)
			break;
	} while (true);
	begun = kx_clock_mono_us();
	answer = ask(fanout, &request, LONG_MS);
	assert_true(kx_clock_mono_us() - begun < LONG_MS * 1000u / 2);
	kx_answer_done(&answer);
	atomic_store(&fakes[1].silent, false);
	begun = kx_clock_mono_us();
	for (uint32_t answered = 1; answered < 2;) {
		assert_true(kx_clock_mono_us() - begun < LONG_MS * 1000u);
		if (ask_within(fanout, &request, BRIEF_MS, &answer, NULL) != KX_OK)
			continue;
		answered = answer.answered;
		kx_answer_done(&answer);
	}
	end(fanout, fakes, 2);
}

static void test_a_shard_that_dies_with_the_query(void **state)
{
	struct fake fakes[2] = {{.ids = {"a"}, .scores = {0.9}, .count = 1}, {.stops_at_query = true}};
	struct kx_fanout *fanout = fan_of(fakes, 2);
	struct kx_query_request request = by_vector(10);

	(void)state;
	struct kx_answer answer = ask_until(fanout, &request, 1);
	expect_hits(&answer, "a");
	assert_int_equal(atomic_load(&fakes[1].asked), 1);
	kx_answer_done(&answer);
	end(fanout, fakes, 2);
}

static void test_nobody_there(void **state)
{
	struct kx_fanout *fanout = fan("tcp://127.0.0.1:1,127.0.0.1:2");
	struct kx_query_request request = by_vector(10);
	struct kx_answer answer;
	struct kx_error error = {0};
	uint64_t begun = kx_clock_mono_us();

	(void)state;
	assert_int_equal(ask_within(fanout, &request, 50, &answer, &error), KX_ETIMEDOUT);
	assert_non_null(strstr(error.message, "127.0.0.1:1"));
	while (ask_within(fanout, &request, 50, &answer, &error) != KX_EBUSY)
		assert_true(kx_clock_mono_us() - begun < LONG_MS * 1000u);
	kx_fanout_free(fanout);
}

static void test_a_replica_answers_for_a_slow_one(void **state)
{
	struct fake fakes[2] = {{.ids = {"a"}, .scores = {0.9}, .count = 1}, {.ids = {"a"}, .scores = {0.9}, .count = 1}};
	struct kx_buf metrics = {.max = 1 << 16};
	struct kx_query_request request = by_vector(10);
	char shards[256];

	(void)state;
	atomic_store(&fakes[0].delay_ms, LONG_MS);
	start(&fakes[0]);
	start(&fakes[1]);
	sprintf(shards, "%s|%s", fakes[0].endpoint, fakes[1].endpoint);
	struct kx_fanout *fanout = fan(shards);
	uint64_t begun = kx_clock_mono_us();
	struct kx_answer answer = ask(fanout, &request, LONG_MS);
	assert_true(kx_clock_mono_us() - begun < LONG_MS * 1000u / 2);
	expect_hits(&answer, "a");
	assert_int_equal(answer.asked, 1);
	assert_int_equal(answer.answered, 1);
	kx_answer_done(&answer);
	assert_int_equal(kx_fanout_metrics(fanout, &metrics), KX_OK);
	assert_non_null(strstr((char *)metrics.data, "kinodex_shard_second_asks_total 1\n"));
	assert_non_null(strstr((char *)metrics.data, "kinodex_shard_replica_answers_total 1\n"));
	kx_buf_done(&metrics);
	end(fanout, fakes, 2);
}

/* Where every answer is slow, not every question is asked twice. */
static void test_hedging_has_a_budget(void **state)
{
	struct fake fakes[2] = {{.ids = {"a"}, .scores = {0.9}, .count = 1}, {.ids = {"a"}, .scores = {0.9}, .count = 1}};
	struct kx_buf metrics = {.max = 1 << 16};
	struct kx_query_request request = by_vector(10);
	const unsigned questions = 40, most = KX_HEDGE_BURST + questions / KX_HEDGE_EVERY;
	char shards[256];

	(void)state;
	/* Far more than the time after which the other is asked: or a slow machine makes these two one. */
	atomic_store(&fakes[0].delay_ms, 150);
	start(&fakes[0]);
	start(&fakes[1]);
	sprintf(shards, "%s|%s", fakes[0].endpoint, fakes[1].endpoint);
	struct kx_fanout *fanout = fan(shards);
	for (unsigned i = 0; i < questions; i++) {
		struct kx_answer answer = ask(fanout, &request, LONG_MS);

		expect_hits(&answer, "a");
		kx_answer_done(&answer);
	}
	assert_in_range(atomic_load(&fakes[1].asked), 1, most);
	assert_int_equal(kx_fanout_metrics(fanout, &metrics), KX_OK);
	assert_null(strstr((char *)metrics.data, "kinodex_shard_second_asks_denied_total 0\n"));
	assert_non_null(strstr((char *)metrics.data, "kinodex_shard_second_asks_denied_total "));
	kx_buf_done(&metrics);
	end(fanout, fakes, 2);
}

/* With a usual time known, a replica is asked only when that is over. */
static void test_a_replica_is_left_alone_by_a_fast_one(void **state)
{
	struct fake fakes[2] = {{.ids = {"a"}, .scores = {0.9}, .count = 1}, {.ids = {"a"}, .scores = {0.9}, .count = 1}};
	struct kx_query_request request = by_vector(10);
	struct kx_fanout *fanout = NULL;
	char shards[256];

	(void)state;
	start(&fakes[0]);
	start(&fakes[1]);
	sprintf(shards, "%s|%s", fakes[0].endpoint, fakes[1].endpoint);
	assert_int_equal(kx_fanout_new(wire, shards, LONG_MS, &fanout, NULL), KX_OK);
	for (int i = 0; i < 15; i++) {
		struct kx_answer answer = ask(fanout, &request, LONG_MS);
		kx_answer_done(&answer);
	}
	assert_int_equal(atomic_load(&fakes[1].asked), 0);
	end(fanout, fakes, 2);
}

static void test_a_replica_answers_for_one_that_stops(void **state)
{
	struct fake fakes[2] = {{.excuse = KX_ECANCELED}, {.ids = {"a"}, .scores = {0.9}, .count = 1}};
	struct kx_query_request request = by_vector(10);
	struct kx_fanout *fanout = NULL;
	char shards[256];

	(void)state;
	start(&fakes[0]);
	start(&fakes[1]);
	sprintf(shards, "%s|%s", fakes[0].endpoint, fakes[1].endpoint);
	assert_int_equal(kx_fanout_new(wire, shards, LONG_MS, &fanout, NULL), KX_OK);
	struct kx_answer answer = ask(fanout, &request, LONG_MS);
	expect_hits(&answer, "a");
	kx_answer_done(&answer);
	end(fanout, fakes, 2);
}

static void test_a_query_that_is_refused(void **state)
{
	struct fake fakes[2] = {{.excuse = KX_EINVAL}, {.ids = {"a"}, .scores = {0.9}, .count = 1}};
	struct kx_fanout *fanout = fan_of(fakes, 2);
	struct kx_query_request request = by_vector(10);

	(void)state;
	struct kx_answer answer = ask(fanout, &request, LONG_MS);
	expect_hits(&answer, "a");
	assert_int_equal(answer.answered, 1);
	assert_int_equal(answer.failures[0].status, KX_EINVAL);
	kx_answer_done(&answer);
	end(fanout, fakes, 2);
	struct fake both[2] = {{.excuse = KX_EINVAL}, {.excuse = KX_EINVAL}};
	fanout = fan_of(both, 2);
	answer = ask(fanout, &request, LONG_MS);
	assert_int_equal(answer.reply->status, KX_EINVAL);
	kx_answer_done(&answer);
	end(fanout, both, 2);
}

struct asking {
	struct kx_fanout *fanout;
	kx_status status;
};

static void *ask_long(void *arg)
{
	struct asking *asking = arg;
	struct kx_query_request request = by_vector(10);
	struct kx_answer answer;

	asking->status = ask_within(asking->fanout, &request, LONG_MS, &answer, NULL);
	return NULL;
}

static void test_cancelling_wakes(void **state)
{
	struct fake fake = {.silent = true};
	struct kx_fanout *fanout = fan_of(&fake, 1);
	struct asking asking = {.fanout = fanout};
	pthread_t thread;
	uint64_t begun = kx_clock_mono_us();

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, ask_long, &asking), 0);
	while (atomic_load(&fake.asked) == 0)
		assert_true(kx_clock_mono_us() - begun < LONG_MS * 1000u);
	kx_fanout_cancel(fanout);
	pthread_join(thread, NULL);
	assert_int_equal(asking.status, KX_ECANCELED);
	assert_true(kx_clock_mono_us() - begun < LONG_MS * 1000u);
	end(fanout, &fake, 1);
}

static void *ask_many(void *arg)
{
	struct asking *asking = arg;

	for (int i = 0; i < 100 && asking->status == KX_OK; i++) {
		struct kx_query_request request = i % 2 ? by_vector(10) : by_id("a", 10);
		struct kx_answer answer;

		asking->status = ask_within(asking->fanout, &request, LONG_MS, &answer, NULL);
		if (asking->status != KX_OK)
			break;
		if (answer.answered != 2 || answer.reply->similar.hit_count != (i % 2 ? 2 : 1))
			asking->status = KX_ECORRUPT;
		kx_answer_done(&answer);
	}
	return NULL;
}

static void test_many_at_a_time(void **state)
{
	struct fake fakes[2] = {{.ids = {"a"}, .scores = {0.9}, .count = 1}, {.ids = {"b"}, .scores = {0.8}, .count = 1}};
	struct kx_fanout *fanout = fan_of(fakes, 2);
	struct asking asking[6];
	pthread_t threads[6];

	(void)state;
	for (int i = 0; i < 6; i++) {
		asking[i] = (struct asking){.fanout = fanout};
		assert_int_equal(pthread_create(&threads[i], NULL, ask_many, &asking[i]), 0);
	}
	for (int i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(asking[i].status, KX_OK);
	}
	end(fanout, fakes, 2);
}

static void test_what_shards_are_refused(void **state)
{
	static const char *const bad[] = {"", ",", "|", "tcp://", "nonsense://x", "a|a|a|a|a"};
	char many[2048] = "127.0.0.1:1";

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(bad); i++) {
		struct kx_fanout *fanout = NULL;
		struct kx_error error = {0};

		if (kx_fanout_new(wire, bad[i], 20, &fanout, &error) == KX_OK)
			fail_msg("%s", bad[i]);
		assert_true(error.message[0] != '\0');
	}
	for (unsigned i = 0; i < KX_FANOUT_SHARDS_MAX; i++)
		strcat(many, ",127.0.0.1:1");
	struct kx_fanout *fanout = NULL;
	assert_int_equal(kx_fanout_new(wire, many, 20, &fanout, NULL), KX_EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_puts_answers_together),
		cmocka_unit_test(test_a_part_named_twice_and_one_by_none),
		cmocka_unit_test(test_all_parts_once),
		cmocka_unit_test(test_a_replica_of_another_part),
		cmocka_unit_test(test_replicas_that_do_not_tell),
		cmocka_unit_test(test_the_first_copy_counts),
		cmocka_unit_test(test_pages_over_shards),
		cmocka_unit_test(test_asks_by_the_vectors_of_an_id),
		cmocka_unit_test(test_carries_the_moments_of_an_id),
		cmocka_unit_test(test_an_id_and_a_silent_shard),
		cmocka_unit_test(test_a_video_is_with_one_of_them),
		cmocka_unit_test(test_a_silent_shard_is_left_out),
		cmocka_unit_test(test_a_shard_that_dies_with_the_query),
		cmocka_unit_test(test_nobody_there),
		cmocka_unit_test(test_a_replica_answers_for_a_slow_one),
		cmocka_unit_test(test_hedging_has_a_budget),
		cmocka_unit_test(test_a_replica_is_left_alone_by_a_fast_one),
		cmocka_unit_test(test_a_replica_answers_for_one_that_stops),
		cmocka_unit_test(test_a_query_that_is_refused),
		cmocka_unit_test(test_cancelling_wakes),
		cmocka_unit_test(test_many_at_a_time),
		cmocka_unit_test(test_what_shards_are_refused),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
