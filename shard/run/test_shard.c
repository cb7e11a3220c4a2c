#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/bus/topics.h"
#include "common/learn/learn.h"
#include "common/record/event.h"
#include "common/record/result.h"
#include "shard/index/index.h"
#include "shard/run/index.h"
#include "shard/run/shard.h"
#include "shard/store/testkit.h"

#define NS "test"
#define WAIT_US 60000000u /* for what should come soon */
#define QUIET_MS 300      /* for what should not come */

struct fixture {
	char *folder;
	char *endpoint, *control;
	struct kx_bus *bus;
	struct kx_wire *wire;
	struct kx_shard *shard;
	struct kx_bus_consumer *events;
	struct kx_topics topics;
	bool without_moments;
	unsigned part, parts;
};

static kx_status try_start(struct fixture *fixture, struct kx_error *error)
{
	struct kx_shard_options options = {.data_dir = fixture->folder,
					   .part = fixture->part,
					   .parts = fixture->parts,
					   .bus = fixture->bus,
					   .ns = NS,
					   .wire = fixture->wire,
					   .endpoint = fixture->endpoint,
					   .control = fixture->control,
					   .without_moments = fixture->without_moments};

	return kx_shard_start(&options, &fixture->shard, error);
}

static void start(struct fixture *fixture)
{
	struct kx_error error = {0};

	if (try_start(fixture, &error))
		fail_msg("%s", error.message);
}

static void stop(struct fixture *fixture)
{
	kx_shard_stop(fixture->shard);
	fixture->shard = NULL;
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct kx_bus_local_options options = {.topic_bytes_max = 64u << 20};
	struct kx_bus_subscription events = {.group = "watcher"};

	assert_non_null(fixture);
	fixture->folder = kx_kit_folder();
	fixture->endpoint = kx_strf("ipc://%s/shard.sock", fixture->folder);
	fixture->control = kx_strf("ipc://%s/orders.sock", fixture->folder);
	kx_topics_init(&fixture->topics, NS);
	assert_int_equal(kx_bus_local_new(&options, &fixture->bus, NULL), KX_OK);
	assert_int_equal(kx_bus_topic(fixture->bus, fixture->topics.name[KX_TOPIC_RESULTS], 3, 0, NULL, NULL), KX_OK);
	assert_int_equal(kx_bus_topic(fixture->bus, fixture->topics.name[KX_TOPIC_RUNS], 1, 0, NULL, NULL), KX_OK);
	events.topic = fixture->topics.name[KX_TOPIC_RUNS];
	assert_int_equal(kx_bus_subscribe(fixture->bus, &events, &fixture->events, NULL), KX_OK);
	assert_int_equal(kx_wire_new(&fixture->wire, NULL), KX_OK);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	kx_fault_clear();
	kx_shard_stop(fixture->shard);
	kx_bus_consumer_close(fixture->events);
	kx_wire_free(fixture->wire);
	kx_bus_free(fixture->bus);
	free(fixture->endpoint);
	free(fixture->control);
	kx_kit_folder_done(fixture->folder);
	free(fixture);
	return 0;
}

static void publish(struct fixture *fixture, const char *id, const void *bytes, size_t len)
{
	struct kx_error error = {0};

	if (kx_bus_publish(fixture->bus, fixture->topics.name[KX_TOPIC_RESULTS], KX_BUS_KEYED, id, strlen(id), bytes,
			   len, NULL, NULL, &error))
		fail_msg("%s", error.message);
}

static void publish_stream(struct fixture *fixture, const char *id, struct kx_kit_stream *stream)
{
	for (size_t i = 0; i < stream->count; i++)
		publish(fixture, id, stream->messages[i].data, stream->messages[i].len);
	kx_kit_stream_done(stream);
}

static void publish_video(struct fixture *fixture, const char *id, uint64_t generation, uint64_t content)
{
	struct kx_kit_stream stream = {0};

	kx_kit_stream_add(&stream, &(struct kx_kit_video){.id = id, .generation = generation, .parts = 2,
							  .visual_moments = 6, .audio_moments = 3, .content = content});
	publish_stream(fixture, id, &stream);
}

/* The next event, or NULL when none comes within the time. */
static struct kx_event *next_event(struct fixture *fixture, uint64_t wait_us)
{
	uint64_t until = kx_clock_mono_us() + wait_us;
	struct kx_bus_message message = {0};
	struct kx_event *event = NULL;

	while (kx_bus_receive(fixture->events, 50, &message, NULL))
		if (kx_clock_mono_us() > until)
			return NULL;
	assert_int_equal(kx_event_unpack(message.payload, message.len, &event, NULL), KX_OK);
	assert_int_equal(kx_bus_ack(fixture->events, message.partition, message.offset, message.epoch), KX_OK);
	kx_bus_message_done(&message);
	return event;
}

static void await_stored(struct fixture *fixture, const char *id)
{
	KX_CLEANUP(kx_event_cleanup) struct kx_event *event = next_event(fixture, WAIT_US);

	assert_non_null(event);
	assert_int_equal(event->kind, KX_EVENT_STORED);
	assert_false(event->missing_source);
	assert_string_equal(event->video_id, id);
}

static void await_deleted(struct fixture *fixture, const char *id, uint64_t generation)
{
	KX_CLEANUP(kx_event_cleanup) struct kx_event *event = next_event(fixture, WAIT_US);

	assert_non_null(event);
	assert_int_equal(event->kind, KX_EVENT_DELETED);
	assert_string_equal(event->video_id, id);
	assert_int_equal(event->generation, generation);
}

static void await_silence(struct fixture *fixture)
{
	assert_null(next_event(fixture, QUIET_MS * 1000u));
}

static struct kx_query_reply *ask(struct fixture *fixture, const struct kx_query_request *request)
{
	struct kx_query_reply *reply = NULL;
	struct kx_error error = {0};

	if (kx_shard_ask(fixture->wire, fixture->endpoint, request, WAIT_US / 1000, &reply, &error))
		fail_msg("%s", error.message);
	return reply;
}

static struct kx_query_reply *ask_similar(struct fixture *fixture, const char *id, uint32_t k)
{
	struct kx_query_request request = {.kind = KX_QUERY_SIMILAR,
					   .similar = {.video_id = (char *)(uintptr_t)id,
						       .k = k,
						       .weight_visual = 0.6,
						       .weight_audio = 0.4,
						       .with_moments = true}};

	return ask(fixture, &request);
}

static void verify(struct fixture *fixture, struct kx_shard_verify *ret)
{
	struct kx_error error = {0};

	if (kx_shard_verify(fixture->folder, ret, &error))
		fail_msg("%s", error.message);
}

static void verify_index(const struct kx_shard_verify *report, uint64_t rows)
{
	assert_int_equal(report->index_rows, rows);
	assert_int_equal(report->index_missing, 0);
	assert_int_equal(report->index_extra, 0);
}

static kx_status count_video(void *ctx, const struct kx_video_record *video, struct kx_error *error)
{
	(void)video, (void)error;
	((uint32_t *)ctx)[0]++;
	return KX_OK;
}

static kx_status count_moment(void *ctx, const struct kx_video_record *video, const struct kx_moment *moment,
			      struct kx_error *error)
{
	(void)video, (void)error;
	((uint32_t *)ctx)[1] += moment->count;
	return KX_OK;
}

static void test_from_bus_to_answer(void **state)
{
	struct fixture *fixture = *state;
	struct kx_shard_verify first, second;
	uint32_t counts[2] = {0};
	struct kx_shard_visitor visitor = {counts, count_video, count_moment};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL, *again = NULL, *unknown = NULL;

	start(fixture);
	publish_video(fixture, "a", 1, 1);
	await_stored(fixture, "a");
	publish_video(fixture, "b", 1, 2);
	await_stored(fixture, "b");
	publish_video(fixture, "c", 1, 1);
	await_stored(fixture, "c");
	/* The event comes after the mirror: who heard it finds the video. */
	reply = ask_similar(fixture, "a", 5);
	assert_int_equal(reply->status, KX_OK);
	assert_int_equal(reply->similar.hit_count, 2);
	assert_string_equal(reply->similar.hits[0].video_id, "c");
	assert_int_equal(reply->similar.hits[0].match_count, 5);
	verify(fixture, &first); /* beside the writer */
	assert_int_equal(first.videos, 3);
	verify_index(&first, 6 + 27); /* with their moments */
	assert_int_equal(kx_shard_each(fixture->folder, &visitor, NULL), KX_OK);
	assert_int_equal(counts[0], 3);
	assert_int_equal(counts[1], 3 * 9 * KX_KIT_ROWS);
	stop(fixture);
	start(fixture);
	again = ask_similar(fixture, "a", 5);
	assert_int_equal(again->similar.hit_count, 2);
	assert_string_equal(again->similar.hits[0].video_id, "c");
	await_silence(fixture); /* nothing is consumed or told twice after an orderly stop */
	verify(fixture, &second);
	assert_memory_equal(first.digest, second.digest, sizeof(first.digest));
	unknown = ask_similar(fixture, "z", 5);
	assert_int_equal(unknown->status, KX_ENOTFOUND);
	assert_int_equal(kx_shard_health(fixture->shard, NULL), KX_OK);
}

static void test_deleted_videos_are_not_found(void **state)
{
	struct fixture *fixture = *state;
	struct kx_shard_verify report;
	struct kx_kit_stream stream = {0};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL, *again = NULL;

	start(fixture);
	publish_video(fixture, "a", 1, 1);
	await_stored(fixture, "a");
	publish_video(fixture, "b", 1, 1);
	await_stored(fixture, "b");
	kx_kit_stream_delete(&stream, "b", 1);
	kx_kit_stream_add(&stream, &(struct kx_kit_video){.id = "b", .generation = 1, .parts = 1, .visual_moments = 1});
	publish_stream(fixture, "b", &stream);
	await_deleted(fixture, "b", 1);
	reply = ask_similar(fixture, "a", 5);
	assert_int_equal(reply->similar.hit_count, 0);
	/* Asked again, or late, or of what never was: said again, and nothing else is lost. */
	kx_kit_stream_delete(&stream, "b", 1);
	publish_stream(fixture, "b", &stream);
	await_deleted(fixture, "b", 1);
	publish_video(fixture, "b", 2, 1);
	await_stored(fixture, "b");
	kx_kit_stream_delete(&stream, "b", 1);
	publish_stream(fixture, "b", &stream);
	await_deleted(fixture, "b", 1);
	again = ask_similar(fixture, "a", 5);
	assert_int_equal(again->similar.hit_count, 1);
	verify(fixture, &report);
	verify_index(&report, 4 + 18);
	kx_kit_stream_delete(&stream, "never seen", 7);
	publish_stream(fixture, "never seen", &stream);
	await_deleted(fixture, "never seen", 7);
	stop(fixture);
	start(fixture);
	await_silence(fixture);
}

/* Each index run in one process has a bus of its own; what it kept of the last one's is of no more use. */
static void test_offsets_of_gone_buses_are_dropped(void **state)
{
	struct fixture *fixture = *state;
	struct kx_store_options options = {.data_dir = fixture->folder};
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = NULL;
	KX_CLEANUP(kx_store_batch_cleanup) struct kx_store_batch *batch = NULL;
	int64_t next = 0;

	assert_int_equal(kx_store_open(&options, &store, NULL), KX_OK);
	assert_int_equal(kx_store_batch_new(store, 1, &batch, NULL), KX_OK);
	kx_store_batch_offset(batch, "local-00112233445566778899aabbccddeeff", "test.results", 0, 5);
	kx_store_batch_offset(batch, "MkU3OEVBNTcwNTJENDM2Qg", "test.results", 0, 5);
	assert_int_equal(kx_store_commit(batch, NULL), KX_OK);
	kx_store_batch_cleanup(&batch);
	kx_store_cleanup(&store);
	start(fixture);
	publish_video(fixture, "a", 1, 1);
	await_stored(fixture, "a");
	stop(fixture);
	assert_int_equal(kx_store_open(&options, &store, NULL), KX_OK);
	assert_int_equal(kx_store_offset(store, "MkU3OEVBNTcwNTJENDM2Qg", "test.results", 0, &next, NULL), KX_OK);
	assert_int_equal(next, 5);
	/* The format, the totals, the snapshot, that one, and where the bus at hand was read to. */
	assert_int_equal(kx_kit_count(store, KX_STORE_META), 5);
}

static void test_bad_messages_are_skipped(void **state)
{
	struct fixture *fixture = *state;
	struct kx_kit_stream stream = {0};
	struct kx_shard_verify report;

	start(fixture);
	publish(fixture, "a", "\xff\xff\xff no message", 14);
	publish(fixture, "a", "", 0);
	kx_kit_stream_add(&stream, &(struct kx_kit_video){.id = "a", .generation = 1, .parts = 5, .visual_moments = 0,
							  .recipe = 3});
	/* Part ends of another recipe before the plan: the plan is refused, and so is nothing else. */
	kx_buf_done(&stream.messages[0]);
	memmove(&stream.messages[0], &stream.messages[1], --stream.count * sizeof(stream.messages[0]));
	publish_stream(fixture, "a", &stream);
	publish_video(fixture, "a", 1, 1); /* a plan and two part ends, of 2 parts: three refused */
	publish_video(fixture, "a", 2, 1);
	await_stored(fixture, "a");
	assert_int_equal(kx_shard_skipped(fixture->shard), 5);
	assert_int_equal(kx_shard_health(fixture->shard, NULL), KX_OK);
	verify(fixture, &report);
	assert_int_equal(report.videos, 1);
	assert_int_equal(report.pending, 0);
}

static void test_a_full_disk_stops_it_and_loses_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct kx_shard_verify report;
	uint64_t until = kx_clock_mono_us() + WAIT_US;
	struct kx_error error = {0};

	start(fixture);
	kx_fault_arm("kv.write", 1);
	publish_video(fixture, "a", 1, 1);
	while (!kx_shard_health(fixture->shard, &error))
		assert_true(kx_clock_mono_us() < until);
	assert_int_equal(error.status, KX_EFULL);
	assert_non_null(strstr(error.message, "disk is full"));
	await_silence(fixture);
	stop(fixture);
	kx_fault_clear();
	start(fixture);
	await_stored(fixture, "a");
	verify(fixture, &report);
	assert_int_equal(report.videos, 1);
}

static void test_an_event_that_was_committed_is_told(void **state)
{
	struct fixture *fixture = *state;
	struct kx_store_options options = {.data_dir = fixture->folder};
	struct kx_kit_stream stream = {0};
	struct kx_store *store = NULL;

	/* As a shard leaves it that dies between commit and publish. */
	assert_int_equal(kx_store_open(&options, &store, NULL), KX_OK);
	kx_kit_stream_add(&stream, &(struct kx_kit_video){.id = "a", .generation = 1, .parts = 1, .visual_moments = 2});
	assert_int_equal(kx_kit_apply(store, &stream, NULL), KX_OK);
	kx_kit_stream_done(&stream);
	kx_store_close(store);
	start(fixture);
	await_stored(fixture, "a");
	stop(fixture);
	start(fixture);
	await_silence(fixture);
}

/* As an older version does, which knows of no index. */
static void apply_without_index(struct fixture *fixture, struct kx_kit_stream *stream)
{
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = kx_kit_open(fixture->folder);

	assert_int_equal(kx_kit_apply(store, stream, NULL), KX_OK);
	kx_kit_stream_done(stream);
}

static void add_video(struct kx_kit_stream *stream, const char *id, uint64_t generation, uint64_t content)
{
	kx_kit_stream_add(stream, &(struct kx_kit_video){.id = id, .generation = generation, .parts = 1, .visual_moments = 4,
							 .audio_moments = content % 3 ? 2 : 0, .content = content});
}

static void expect_nearest(struct kx_shard *shard, const char *id, const char *nearest, uint32_t count)
{
	struct kx_query_request request = {
		.kind = KX_QUERY_SIMILAR,
		.similar = {.video_id = (char *)(uintptr_t)id, .k = 10, .weight_visual = 0.6, .weight_audio = 0.4}};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;

	assert_int_equal(kx_shard_answer(shard, &request, &reply, NULL), KX_OK);
	assert_int_equal(reply->status, KX_OK);
	assert_int_equal(reply->similar.hit_count, count);
	assert_string_equal(reply->similar.hits[0].video_id, nearest);
	assert_true(reply->similar.hits[0].score > 0.999);
	assert_true(reply->similar.exact);
}

static void test_a_store_without_an_index(void **state)
{
	struct fixture *fixture = *state;
	struct kx_shard_options options = {.data_dir = fixture->folder, .read_only = true};
	struct kx_kit_stream stream = {0};
	struct kx_shard_verify report;
	struct kx_shard *other = NULL;

	add_video(&stream, "a", 1, 1);
	add_video(&stream, "b", 1, 2);
	add_video(&stream, "c", 1, 3);
	add_video(&stream, "d", 1, 1);
	apply_without_index(fixture, &stream);
	verify(fixture, &report);
	verify_index(&report, 0);
	assert_int_equal(kx_shard_start(&options, &other, NULL), KX_OK);
	expect_nearest(other, "a", "d", 3);
	kx_shard_stop(other);
	start(fixture);
	expect_nearest(fixture->shard, "a", "d", 3);
	verify(fixture, &report);
	verify_index(&report, 7 + 22);
	stop(fixture);
	/* The older version goes on for a while. */
	kx_kit_stream_delete(&stream, "d", 1);
	add_video(&stream, "b", 2, 1);
	add_video(&stream, "e", 1, 5);
	apply_without_index(fixture, &stream);
	verify(fixture, &report);
	assert_int_equal(report.index_missing, 4 + 12);
	assert_int_equal(report.index_extra, 4 + 12);
	start(fixture);
	expect_nearest(fixture->shard, "a", "b", 3);
	verify(fixture, &report);
	verify_index(&report, 7 + 22);
}

/* Every value of the index's first family. */
static void damage_index(struct fixture *fixture)
{
	struct kx_store_options options = {.data_dir = fixture->folder, .more = kx_index_families,
					   .more_count = KX_INDEX_FAMILIES};
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = NULL;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;

	assert_int_equal(kx_store_open(&options, &store, NULL), KX_OK);
	assert_int_equal(kx_kv_batch_new(kx_store_kv(store), &batch), KX_OK);
	assert_int_equal(kx_kv_iter_new(kx_store_kv(store), KX_STORE_FAMILIES, NULL, 0, &iter), KX_OK);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t len;
		const void *key = kx_kv_iter_key(iter, &len);

		kx_kv_batch_put(batch, KX_STORE_FAMILIES, key, len, "damage", 6);
	}
	assert_true(kx_kv_batch_count(batch) > 0);
	assert_int_equal(kx_kv_write(kx_store_kv(store), batch, true, NULL), KX_OK);
}

/* What can be made again is. */
static void test_an_index_that_is_damaged(void **state)
{
	struct fixture *fixture = *state;
	struct kx_kit_stream stream = {0};
	struct kx_shard_verify report;

	add_video(&stream, "a", 1, 1);
	add_video(&stream, "b", 1, 1);
	apply_without_index(fixture, &stream);
	start(fixture);
	stop(fixture);
	damage_index(fixture);
	start(fixture);
	expect_nearest(fixture->shard, "a", "b", 1);
	verify(fixture, &report);
	verify_index(&report, 4 + 12);
}

static struct kx_query_reply *ask_moments(struct kx_shard *shard, const char *id)
{
	struct kx_query_request request = {.kind = KX_QUERY_SIMILAR,
					   .similar = {.video_id = (char *)(uintptr_t)id, .k = 100, .weight_visual = 0.6,
						       .weight_audio = 0.4, .level = KX_LEVEL_MOMENTS}};
	struct kx_query_reply *reply = NULL;

	assert_int_equal(kx_shard_answer(shard, &request, &reply, NULL), KX_OK);
	assert_int_equal(reply->status, KX_OK);
	return reply;
}

static void same_moments(struct kx_shard *shard, const struct kx_query_reply *should)
{
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *is = ask_moments(shard, "a");

	assert_int_equal(is->similar.hit_count, should->similar.hit_count);
	for (uint32_t i = 0; i < is->similar.hit_count; i++) {
		assert_string_equal(is->similar.hits[i].video_id, should->similar.hits[i].video_id);
		assert_int_equal(is->similar.hits[i].moment_start_us, should->similar.hits[i].moment_start_us);
		assert_true(is->similar.hits[i].score == should->similar.hits[i].score);
	}
}

/* With them in the index, and in a shard that does without, the answer is the same; and they come back. */
static void test_moments_in_the_index_or_not(void **state)
{
	struct fixture *fixture = *state;
	struct kx_shard_verify report;
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *with = NULL;

	start(fixture);
	for (unsigned i = 0; i < 4; i++) {
		const char *const ids[] = {"a", "b", "c", "d"};

		publish_video(fixture, ids[i], 1, i);
		await_stored(fixture, ids[i]);
	}
	publish_video(fixture, "b", 2, 7); /* replaced */
	await_stored(fixture, "b");
	with = ask_moments(fixture->shard, "a");
	assert_int_equal(with->similar.hit_count, 3 * 6);
	assert_true(with->similar.work.rows > 0 && with->similar.exact);
	stop(fixture);
	fixture->without_moments = true;
	start(fixture);
	same_moments(fixture->shard, with);
	verify(fixture, &report);
	verify_index(&report, 8);
	stop(fixture);
	fixture->without_moments = false;
	start(fixture);
	same_moments(fixture->shard, with);
	verify(fixture, &report);
	verify_index(&report, 8 + 36);
	assert_int_equal(report.index_moments, 36);
}

static void apply_all(struct kx_store_batch *batch, struct kx_kit_stream *stream)
{
	for (size_t i = 0; i < stream->count; i++) {
		KX_CLEANUP(kx_result_cleanup) struct kx_result *result = NULL;

		assert_int_equal(kx_result_unpack(stream->messages[i].data, stream->messages[i].len, &result, NULL), KX_OK);
		assert_int_equal(kx_store_apply(batch, result, NULL), KX_OK);
	}
	kx_kit_stream_done(stream);
}

/* One write takes the moments of some videos; those of the rest, and what the last word on a video is, are in as well. */
static void test_more_moments_than_a_write_takes(void **state)
{
	struct fixture *fixture = *state;
	struct kx_store *store = NULL;
	struct kx_index *index = NULL;
	struct kx_mirror *mirror = NULL;
	struct kx_store_batch *batch = NULL;
	struct kx_kit_stream stream = {0};
	struct kx_shard_verify report;

	assert_int_equal(kx_shard_store_open(fixture->folder, false, &store, NULL), KX_OK);
	assert_int_equal(kx_shard_index_open(store, fixture->folder, false, true, 0, &index, NULL), KX_OK);
	assert_int_equal(kx_mirror_new(&mirror), KX_OK);
	assert_int_equal(kx_mirror_use_index(mirror, index, store, false), KX_OK);
	assert_int_equal(kx_mirror_use_moments(mirror, index, store, false), KX_OK);
	assert_int_equal(kx_mirror_load(mirror, store, NULL), KX_OK);
	for (uint64_t round = 0; round < 2; round++) {
		add_video(&stream, "a", 1 + round, 1);
		add_video(&stream, "b", 1 + 2 * round, 2);
		add_video(&stream, "c", 1 + round, 3);
		if (round) {
			kx_kit_stream_delete(&stream, "a", 2);
			add_video(&stream, "b", 4, 3); /* fewer moments than before */
		}
		assert_int_equal(kx_store_batch_new(store, 1, &batch, NULL), KX_OK);
		apply_all(batch, &stream);
		assert_int_equal(kx_shard_commit_most(batch, index, mirror, 5, NULL), KX_OK);
		kx_store_batch_free(batch);
		verify(fixture, &report);
		verify_index(&report, round ? 1 + 1 + 4 + 4 : 2 + 2 + 1 + 6 + 6 + 4);
	}
	kx_mirror_free(mirror);
	kx_index_close(index);
	kx_store_close(store);
}

static void test_readers_and_a_second_writer(void **state)
{
	struct fixture *fixture = *state;
	struct kx_shard_options options = {.data_dir = fixture->folder, .read_only = true};
	struct kx_query_request request = {.kind = KX_QUERY_STATS};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;
	struct kx_shard *other = NULL;

	assert_int_equal(kx_shard_start(&options, &other, NULL), KX_ENOTFOUND);
	start(fixture);
	publish_video(fixture, "a", 1, 1);
	await_stored(fixture, "a");
	assert_int_equal(kx_shard_start(&options, &other, NULL), KX_OK);
	assert_int_equal(kx_shard_answer(other, &request, &reply, NULL), KX_OK);
	assert_int_equal(reply->stats.videos, 1);
	kx_shard_stop(other);
	options.read_only = false;
	assert_int_equal(kx_shard_start(&options, &other, NULL), KX_EINVAL); /* without a bus */
	options.bus = fixture->bus;
	options.ns = NS;
	assert_int_equal(kx_shard_start(&options, &other, NULL), KX_EBUSY);
}

static void test_queries_that_nobody_can_answer(void **state)
{
	struct fixture *fixture = *state;
	struct kx_query_request request = {.kind = KX_QUERY_STATS};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL, *refused = NULL;
	struct kx_error error = {0};

	assert_int_equal(kx_shard_ask(fixture->wire, fixture->endpoint, &request, 100, &reply, &error), KX_ETIMEDOUT);
	assert_non_null(strstr(error.message, fixture->endpoint));
	start(fixture);
	refused = ask_similar(fixture, "a", 0);
	assert_int_equal(refused->status, KX_EINVAL);
	assert_true(strlen(refused->message) > 0);
}

static bool is_there(void *ctx)
{
	return ((struct fixture *)ctx)->shard != NULL;
}

static kx_status order(struct fixture *fixture, enum kx_care_work work, const char *path, struct kx_care_done *done,
		       struct kx_error *error)
{
	struct kx_care_order care = {.work = work, .path = (char *)(uintptr_t)path};

	if (!fixture->shard)
		return kx_shard_care(fixture->folder, &care, done, error);
	return kx_shard_order(fixture->wire, fixture->control, &care, is_there, fixture, done, error);
}

/* Three videos of which one was indexed many times. */
static void fill(struct fixture *fixture)
{
	start(fixture);
	for (uint64_t i = 0; i < 24; i++) {
		publish_video(fixture, "a", 1 + i, 1 + i % 8);
		await_stored(fixture, "a");
	}
	publish_video(fixture, "b", 1, 2);
	await_stored(fixture, "b");
	publish_video(fixture, "c", 1, 8);
	await_stored(fixture, "c");
}

static void test_compacting(void **state)
{
	struct fixture *fixture = *state;
	struct kx_shard_verify before, after;
	struct kx_care_done done = {0};
	struct kx_error error = {0};

	fill(fixture);
	verify(fixture, &before);
	if (order(fixture, KX_CARE_COMPACT, "", &done, &error)) /* beside the shard */
		fail_msg("%s", error.message);
	assert_true(done.bytes_after > 0 && done.bytes_after < done.bytes_before);
	expect_nearest(fixture->shard, "a", "c", 2);
	publish_video(fixture, "d", 1, 4);
	await_stored(fixture, "d");
	stop(fixture);
	assert_int_equal(order(fixture, KX_CARE_COMPACT, "", &done, &error), KX_OK); /* and without one */
	start(fixture);
	expect_nearest(fixture->shard, "a", "c", 3);
	verify(fixture, &after);
	verify_index(&after, before.index_rows + 2 + 9); /* of d, and of its moments */
	assert_int_equal(after.videos, before.videos + 1);
}

/* A second data directory, its store a checkpoint of the fixture's. */
struct copy {
	char *folder, *store;
};

static struct copy copy_new(void)
{
	struct copy copy = {.folder = kx_kit_folder()};

	copy.store = kx_strf("%s/shard-0", copy.folder);
	return copy;
}

static void copy_done(struct copy *copy)
{
	kx_kit_folder_done(copy->folder);
	free(copy->store);
}

static void expect_copy(const struct copy *copy, const struct kx_shard_verify *of, uint32_t hits)
{
	struct kx_shard_options options = {.data_dir = copy->folder, .read_only = true};
	struct kx_shard_verify report;
	struct kx_shard *shard = NULL;

	assert_int_equal(kx_shard_verify(copy->folder, &report, NULL), KX_OK);
	assert_memory_equal(report.digest, of->digest, sizeof(report.digest));
	verify_index(&report, of->index_rows);
	assert_int_equal(kx_shard_start(&options, &shard, NULL), KX_OK);
	expect_nearest(shard, "a", "c", hits);
	kx_shard_stop(shard);
}

static void test_a_checkpoint_answers_alike(void **state)
{
	struct fixture *fixture = *state;
	struct copy beside = copy_new(), without = copy_new();
	struct kx_shard_verify report;
	struct kx_care_done done = {0};
	struct kx_error error = {0};

	fill(fixture);
	verify(fixture, &report);
	if (order(fixture, KX_CARE_CHECKPOINT, beside.store, &done, &error))
		fail_msg("%s", error.message);
	assert_true(done.bytes_after > 0);
	assert_int_equal(order(fixture, KX_CARE_CHECKPOINT, beside.store, &done, &error), KX_EEXIST);
	stop(fixture);
	assert_int_equal(order(fixture, KX_CARE_CHECKPOINT, without.store, &done, &error), KX_OK);
	start(fixture); /* what comes later is not in them */
	publish_video(fixture, "d", 1, 20);
	await_stored(fixture, "d");
	expect_copy(&beside, &report, 2);
	expect_copy(&without, &report, 2);
	copy_done(&beside);
	copy_done(&without);
}

/* Whatever fails, and whenever: nothing is left, and the store is as good as before. */
static void test_a_checkpoint_that_fails_leaves_nothing(void **state)
{
	static const char *const points[] = {"kv.write", "kv.read", "index.file"};
	struct fixture *fixture = *state;
	struct copy copy = copy_new();
	struct kx_shard_verify before, after;
	size_t failed = 0;

	fill(fixture);
	verify(fixture, &before);
	stop(fixture);
	for (size_t i = 0; i < KX_ARRAY_LEN(points); i++) {
		kx_status status = KX_EIO;

		for (uint64_t nth = 1; status; nth++) {
			struct kx_care_done done = {0};

			kx_fault_arm(points[i], nth);
			status = order(fixture, KX_CARE_CHECKPOINT, copy.store, &done, NULL);
			kx_fault_arm(points[i], 0);
			failed += status != KX_OK;
			assert_int_equal(kx_fs_exists(copy.store), status == KX_OK);
		}
		assert_int_equal(kx_fs_remove_tree(copy.store, NULL), KX_OK);
	}
	assert_true(failed > KX_ARRAY_LEN(points));
	start(fixture);
	expect_nearest(fixture->shard, "a", "c", 2);
	verify(fixture, &after);
	assert_memory_equal(before.digest, after.digest, sizeof(before.digest));
	copy_done(&copy);
}

static void test_orders_are_the_owners(void **state)
{
	struct fixture *fixture = *state;
	struct kx_query_request request = {.kind = KX_QUERY_CARE, .care = {.work = KX_CARE_COMPACT, .path = (char *)""}};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;
	struct kx_care_done done = {0};
	struct kx_error error = {0};

	assert_int_equal(order(fixture, KX_CARE_COMPACT, "", &done, &error), KX_ENOTFOUND);
	start(fixture);
	reply = ask(fixture, &request); /* where queries come */
	assert_int_equal(reply->status, KX_EPERM);
	stop(fixture);
	struct kx_care_order care = request.care;
	assert_int_equal(kx_shard_order(fixture->wire, fixture->control, &care, is_there, fixture, &done, &error),
			 KX_ECANCELED); /* nobody is there */
}

static void refused(struct fixture *fixture, unsigned part, unsigned parts, const char *said)
{
	struct kx_error error = {0};

	fixture->part = part;
	fixture->parts = parts;
	assert_int_equal(try_start(fixture, &error), KX_EINVAL);
	if (!strstr(error.message, said))
		fail_msg("\"%s\" does not say \"%s\"", error.message, said);
}

static bool has_video(struct fixture *fixture, const char *id)
{
	struct kx_query_request request = {.kind = KX_QUERY_VIDEO, .video_id = (char *)(uintptr_t)id};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = ask(fixture, &request);

	assert_true(reply->status == KX_OK || reply->status == KX_ENOTFOUND);
	return reply->status == KX_OK;
}

/* A second shard on the same bus. */
static struct fixture beside(const struct fixture *first)
{
	struct fixture other = *first;

	other.shard = NULL;
	other.folder = kx_kit_folder();
	other.endpoint = kx_strf("ipc://%s/shard.sock", other.folder);
	other.control = kx_strf("ipc://%s/orders.sock", other.folder);
	return other;
}

static void beside_done(struct fixture *other)
{
	stop(other);
	free(other->endpoint);
	free(other->control);
	kx_kit_folder_done(other->folder);
}

static void test_a_catalogue_on_two_shards(void **state)
{
	static const char *const ids[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
	struct fixture *fixture = *state;
	struct fixture other = beside(fixture);
	struct kx_shard_verify report;
	size_t here = 0;

	fixture->parts = other.parts = 2;
	other.part = 1;
	start(fixture);
	for (size_t i = 0; i < KX_ARRAY_LEN(ids); i++) /* some before the other is there */
		publish_video(fixture, ids[i], 1, i + 1);
	start(&other);
	for (size_t i = 0; i < KX_ARRAY_LEN(ids); i++) {
		KX_CLEANUP(kx_event_cleanup) struct kx_event *event = next_event(fixture, WAIT_US);

		assert_non_null(event);
		assert_int_equal(event->kind, KX_EVENT_STORED);
	}
	for (size_t i = 0; i < KX_ARRAY_LEN(ids); i++) {
		here += has_video(fixture, ids[i]);
		assert_int_equal(has_video(fixture, ids[i]) + has_video(&other, ids[i]), 1);
	}
	assert_in_range(here, 1, KX_ARRAY_LEN(ids) - 1);
	verify(&other, &report);
	assert_int_equal(report.videos, KX_ARRAY_LEN(ids) - here);
	stop(fixture);
	stop(&other);
	publish_video(fixture, "i", 1, 9); /* while nobody is there */
	start(fixture);
	start(&other);
	await_stored(fixture, "i");
	await_silence(fixture); /* and nothing else: both go on where they stood */
	stop(fixture);
	stop(&other);
	refused(&other, 0, 2, "part 1 of 2");
	refused(&other, 0, 0, "part 1 of 2");
	refused(&other, 1, 3, "part 1 of 2");
	refused(&other, 1, 4, "it has 3"); /* partitions */
	beside_done(&other);
}

static void test_a_store_of_the_whole_is_no_part(void **state)
{
	struct fixture *fixture = *state;

	start(fixture);
	publish_video(fixture, "a", 1, 1);
	await_stored(fixture, "a");
	stop(fixture);
	refused(fixture, 0, 2, "part 0 of 1");
	fixture->parts = 1;
	start(fixture);
}

static kx_status answer_status(struct fixture *fixture, const struct kx_query_request *request, uint64_t deadline_us)
{
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;

	assert_int_equal(kx_shard_answer_by(fixture->shard, request, deadline_us, &reply, NULL), KX_OK);
	return reply->status;
}

static void test_answers_end_early(void **state)
{
	struct fixture *fixture = *state;
	struct kx_similar_query query = {.video_id = (char *)(uintptr_t)"a", .k = 1, .weight_visual = 1};
	struct kx_query_request single = {.kind = KX_QUERY_SIMILAR, .similar = query},
				batch = {.kind = KX_QUERY_SIMILAR_BATCH, .batch_count = 1, .batch = &query},
				videos = {.kind = KX_QUERY_VIDEOS, .video_id_count = 1, .video_ids = &query.video_id};
	const struct kx_query_request *const requests[] = {&single, &batch, &videos};

	start(fixture);
	publish_video(fixture, "a", 1, 1);
	await_stored(fixture, "a");
	for (size_t i = 0; i < KX_ARRAY_LEN(requests); i++) {
		assert_int_equal(answer_status(fixture, requests[i], kx_clock_mono_us() + WAIT_US), KX_OK);
		assert_int_equal(answer_status(fixture, requests[i], 1), KX_ETIMEDOUT);
	}
	kx_shard_cancel(fixture->shard);
	for (size_t i = 0; i < KX_ARRAY_LEN(requests); i++)
		assert_int_equal(answer_status(fixture, requests[i], 0), KX_ECANCELED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_from_bus_to_answer),
		TEST(test_deleted_videos_are_not_found),
		TEST(test_offsets_of_gone_buses_are_dropped),
		TEST(test_bad_messages_are_skipped),
		TEST(test_a_full_disk_stops_it_and_loses_nothing),
		TEST(test_an_event_that_was_committed_is_told),
		TEST(test_a_store_without_an_index),
		TEST(test_an_index_that_is_damaged),
		TEST(test_moments_in_the_index_or_not),
		TEST(test_more_moments_than_a_write_takes),
		TEST(test_readers_and_a_second_writer),
		TEST(test_queries_that_nobody_can_answer),
		TEST(test_compacting),
		TEST(test_a_checkpoint_answers_alike),
		TEST(test_a_checkpoint_that_fails_leaves_nothing),
		TEST(test_orders_are_the_owners),
		TEST(test_a_catalogue_on_two_shards),
		TEST(test_a_store_of_the_whole_is_no_part),
		TEST(test_answers_end_early),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
