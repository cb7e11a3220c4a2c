/* A worker between a local bus and a real pipeline: what it takes, what it gives, and when it acknowledges. Needs the
 * bundles, which scripts/test makes first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/macros.h"
#include "common/bus/topics.h"
#include "common/record/event.h"
#include "worker/pipeline/testkit.h"
#include "worker/run/worker.h"

#define PARTITIONS 2
#define SMALL_TOPIC (48u << 10) /* bytes; a few moments */
#define STOP_US 2000000u
#define STOPS 8 /* of which one is that quick: a crowded machine does not let each be */

static char *folder;
static char *clip;
static struct kx_bundle *visual, *audio;
static struct kx_pipeline *pipeline;

/* One test's bus, worker and ears. */
struct world {
	struct kx_bus *bus;
	struct kx_topics topics;
	struct kx_bus_consumer *results, *events;
	struct kx_worker *worker;
};

static struct kx_bus_consumer *listen_to(struct world *world, enum kx_topic topic)
{
	const struct kx_bus_subscription subscription = {.group = "test", .topic = world->topics.name[topic]};
	struct kx_bus_consumer *consumer = NULL;

	assert_int_equal(kx_bus_subscribe(world->bus, &subscription, &consumer, NULL), KX_OK);
	return consumer;
}

static void start_worker(struct world *world)
{
	const struct kx_worker_options options = {.bus = world->bus, .ns = "t", .pipeline = pipeline};
	struct kx_error error = {0};

	if (kx_worker_start(&options, &world->worker, &error) != KX_OK)
		fail_msg("%s", error.message);
}

static void world_init(struct world *world, size_t topic_bytes)
{
	const struct kx_bus_local_options options = {.topic_bytes_max = topic_bytes};

	*world = (struct world){0};
	assert_int_equal(kx_bus_local_new(&options, &world->bus, NULL), KX_OK);
	kx_topics_init(&world->topics, "t");
	for (size_t i = 0; i < KX_TOPIC_COUNT; i++)
		assert_int_equal(kx_bus_topic(world->bus, world->topics.name[i], PARTITIONS, 0, NULL, NULL), KX_OK);
	world->results = listen_to(world, KX_TOPIC_RESULTS);
	world->events = listen_to(world, KX_TOPIC_RUNS);
	start_worker(world);
}

static void world_done(struct world *world)
{
	kx_worker_stop(world->worker);
	kx_bus_consumer_close(world->results);
	kx_bus_consumer_close(world->events);
	kx_bus_free(world->bus);
}

static void set_recipe(struct kx_job *job)
{
	struct kx_sampling sampling = kx_job_sampling(job);

	kx_pipeline_recipe(pipeline, &sampling, job->recipe_sha256);
}

static struct kx_job job_of(const char *path, const char *id)
{
	struct kx_job job = kx_test_job(path);

	job.video_id = (char *)id;
	set_recipe(&job);
	return job;
}

static void publish_job(struct world *world, const struct kx_job *job)
{
	struct kx_buf packed = {.max = 1 << 20};

	assert_int_equal(kx_job_pack(job, &packed), KX_OK);
	assert_int_equal(kx_bus_publish(world->bus, world->topics.name[KX_TOPIC_JOBS], KX_BUS_KEYED, job->video_id,
					strlen(job->video_id), packed.data, packed.len, NULL, NULL, NULL),
			 KX_OK);
	kx_buf_done(&packed);
}

/* The next message, acknowledged; fails the test when none comes. */
static void next_message(struct kx_bus_consumer *consumer, struct kx_bus_message *ret)
{
	uint64_t end_us = kx_clock_mono_us() + KX_TEST_WAIT_MS * 1000u;
	kx_status status;

	do {
		status = kx_bus_receive(consumer, 1000, ret, NULL);
	} while (status == KX_EAGAIN && kx_clock_mono_us() < end_us);
	assert_int_equal(status, KX_OK);
	assert_int_equal(kx_bus_ack(consumer, ret->partition, ret->offset, ret->epoch), KX_OK);
}

static struct kx_event *next_event(struct world *world)
{
	struct kx_bus_message message = {0};
	struct kx_event *event = NULL;
	struct kx_error error = {0};

	next_message(world->events, &message);
	if (kx_event_unpack(message.payload, message.len, &event, &error) != KX_OK)
		fail_msg("%s", error.message);
	kx_bus_message_done(&message);
	return event;
}

static struct kx_result *next_result(struct world *world)
{
	struct kx_bus_message message = {0};
	struct kx_result *result = NULL;
	struct kx_error error = {0};

	next_message(world->results, &message);
	if (kx_result_unpack(message.payload, message.len, &result, &error) != KX_OK)
		fail_msg("%s", error.message);
	assert_int_equal(message.key_len, strlen(result->video_id));
	assert_memory_equal(message.key, result->video_id, message.key_len);
	kx_bus_message_done(&message);
	return result;
}

/* Takes results up to a part's end; returns the moments of it. */
static size_t drain_part(struct world *world, struct kx_part_end *ret_end)
{
	size_t moments = 0;

	for (;;) {
		KX_CLEANUP(kx_result_cleanup) struct kx_result *result = next_result(world);

		if (result->kind == KX_RESULT_PART_END) {
			*ret_end = result->part_end;
			return moments;
		}
		assert_int_equal(result->kind, KX_RESULT_MOMENT);
		moments++;
	}
}

static bool quiet(struct kx_bus_consumer *consumer)
{
	struct kx_bus_message message = {0};
	kx_status status = kx_bus_receive(consumer, 0, &message, NULL);

	kx_bus_message_done(&message);
	return status == KX_EAGAIN;
}

static void assert_event_failed(struct world *world, enum kx_reason reason, bool retriable, const char *says)
{
	KX_CLEANUP(kx_event_cleanup) struct kx_event *event = next_event(world);

	assert_int_equal(event->kind, KX_EVENT_FAILED);
	if (event->reason != reason)
		fail_msg("%s: %s", kx_reason_name(event->reason), event->message);
	assert_int_equal(event->retriable, retriable);
	if (!strstr(event->message, says))
		fail_msg("\"%s\" does not say \"%s\"", event->message, says);
}

static void job_becomes_results_and_an_event(void **state)
{
	struct world world;
	struct kx_job job = job_of(clip, "a");
	struct kx_part_end end;
	struct kx_event *event;

	(void)state;
	world_init(&world, 64u << 20);
	publish_job(&world, &job);
	assert_int_equal(drain_part(&world, &end), 3 + 2); /* the last second holds no whole patch */
	assert_memory_equal(end.recipe_sha256, job.recipe_sha256, sizeof(end.recipe_sha256));
	event = next_event(&world);
	assert_int_equal(event->kind, KX_EVENT_FINISHED);
	assert_string_equal(event->video_id, "a");
	assert_int_equal(event->attempt, 1);
	assert_int_equal(event->media_us, end.visual_us);
	assert_true(event->decode_cpu_us > 0);
	kx_event_free(event);
	assert_int_equal(kx_worker_health(world.worker, NULL), KX_OK);
	world_done(&world);
}

/* A worker that joins later finds nothing of what was acknowledged, and all that was not. */
static void acknowledged_jobs_do_not_come_again(void **state)
{
	struct world world;
	struct kx_job first = job_of(clip, "a"), second = job_of(clip, "b");
	struct kx_part_end end;

	(void)state;
	world_init(&world, 64u << 20);
	publish_job(&world, &first);
	drain_part(&world, &end);
	kx_event_free(next_event(&world));
	kx_worker_stop(world.worker);
	start_worker(&world);
	publish_job(&world, &second);
	for (;;) {
		KX_CLEANUP(kx_result_cleanup) struct kx_result *result = next_result(&world);

		/* "a" may come again only when the stop came between its event and its acknowledgement. */
		if (result->kind == KX_RESULT_PART_END && strcmp(result->video_id, "b") == 0)
			break;
	}
	world_done(&world);
}

static void stopped_job_comes_again(void **state)
{
	struct world world;
	struct kx_job job = job_of(clip, "a");
	struct kx_part_end end;
	struct kx_event *event;
	uint64_t took_us = UINT64_MAX;

	(void)state;
	world_init(&world, SMALL_TOPIC); /* results are not taken: the job can't end */
	job.fps = 10;
	set_recipe(&job);
	publish_job(&world, &job);
	for (int i = 0; i < STOPS && took_us > STOP_US; i++) {
		uint64_t begun_us;

		kx_result_free(next_result(&world));
		begun_us = kx_clock_mono_us();
		kx_worker_stop(world.worker);
		took_us = kx_clock_mono_us() - begun_us;
		assert_true(quiet(world.events));
		start_worker(&world);
	}
	assert_in_range(took_us, 0, STOP_US);
	drain_part(&world, &end);
	event = next_event(&world);
	assert_int_equal(event->kind, KX_EVENT_FINISHED);
	kx_event_free(event);
	world_done(&world);
}

static void full_bus_holds_back_and_loses_nothing(void **state)
{
	struct world world;
	struct kx_job job = job_of(clip, "a");
	struct kx_part_end end;

	(void)state;
	world_init(&world, SMALL_TOPIC);
	job.fps = 10;
	job.moment_us = 1000000;
	set_recipe(&job);
	publish_job(&world, &job);
	assert_int_equal(drain_part(&world, &end), 11 + 10);
	assert_int_equal(end.frames, 110);
	assert_int_equal(end.moment_us, job.moment_us);
	world_done(&world);
}

static void same_job_twice_gives_the_same_results(void **state)
{
	struct world world;
	struct kx_job job = job_of(clip, "a");
	struct kx_part_end first, second;

	(void)state;
	world_init(&world, 64u << 20);
	publish_job(&world, &job);
	publish_job(&world, &job);
	drain_part(&world, &first);
	drain_part(&world, &second);
	kx_event_free(next_event(&world));
	kx_event_free(next_event(&world));
	assert_int_equal(first.frames, second.frames);
	assert_int_equal(first.visual_us, second.visual_us);
	world_done(&world);
}

static void another_recipe_is_refused_for_good(void **state)
{
	struct world world;
	struct kx_job job = job_of(clip, "a");

	(void)state;
	world_init(&world, 64u << 20);
	job.recipe_sha256[0] ^= 1;
	publish_job(&world, &job);
	assert_event_failed(&world, KX_REASON_UNSUPPORTED, false, "visual/lite0/");
	assert_true(quiet(world.results));
	world_done(&world);
}

static void missing_file_is_told(void **state)
{
	struct world world;
	struct kx_job job = job_of("/nonexistent/a.mp4", "a");

	(void)state;
	world_init(&world, 64u << 20);
	publish_job(&world, &job);
	assert_event_failed(&world, KX_REASON_NOT_FOUND, false, "/nonexistent/a.mp4");
	world_done(&world);
}

static void noise_on_the_topic_is_passed_over(void **state)
{
	struct world world;
	struct kx_job job = job_of("/nonexistent/a.mp4", "a");

	(void)state;
	world_init(&world, 64u << 20);
	assert_int_equal(kx_bus_publish(world.bus, world.topics.name[KX_TOPIC_JOBS], KX_BUS_KEYED, "a", 1, "\377\1noise", 7,
					NULL, NULL, NULL),
			 KX_OK);
	publish_job(&world, &job);
	assert_event_failed(&world, KX_REASON_NOT_FOUND, false, "");
	assert_int_equal(kx_worker_health(world.worker, NULL), KX_OK);
	world_done(&world);
}

static void result_that_is_lost_makes_the_job_fail(void **state)
{
	struct world world;
	struct kx_job job = job_of(clip, "a");

	(void)state;
	world_init(&world, 64u << 20);
	kx_fault_arm("worker.result", 2);
	publish_job(&world, &job);
	assert_event_failed(&world, KX_REASON_INTERNAL, true, "bus");
	kx_fault_clear();
	world_done(&world);
}

/* Without events nothing can be told or acknowledged: the worker ends, and says so. */
static void bus_without_events_ends_the_worker(void **state)
{
	struct world world;
	struct kx_job job = job_of("/nonexistent/a.mp4", "a");
	uint64_t end_us = kx_clock_mono_us() + KX_TEST_WAIT_MS * 1000u;
	struct kx_error error = {0};

	(void)state;
	world_init(&world, 64u << 20);
	kx_fault_arm("worker.event", 1);
	publish_job(&world, &job);
	while (kx_worker_health(world.worker, &error) == KX_OK) {
		assert_true(kx_clock_mono_us() < end_us);
		assert_true(quiet(world.events));
	}
	assert_int_equal(error.status, KX_EIO);
	kx_fault_clear();
	kx_worker_stop(world.worker);
	start_worker(&world);
	assert_event_failed(&world, KX_REASON_NOT_FOUND, false, ""); /* it was not acknowledged */
	world_done(&world);
}

static struct kx_pipeline *pipeline_of(bool lazy, size_t batch)
{
	const struct kx_pipeline_options options = {
		.program = KX_TEST_PROGRAM,
		.run_dir = folder,
		.visual = visual,
		.audio = audio,
		.decoders = 2,
		.streams = 2,
		.batch = batch,
		.lazy = lazy,
		.queue_max = 4,
	};
	struct kx_pipeline *made = NULL;
	struct kx_error error = {0};

	if (kx_pipeline_new(&options, &made, &error) != KX_OK)
		fail_msg("%s", error.message);
	return made;
}

/* Models that are no good are no fault of a file's: another worker may have better ones. */
static void models_that_do_not_load_end_the_worker(void **state)
{
	struct kx_pipeline *usual = pipeline;
	struct world world;
	struct kx_job job = job_of("/nonexistent/a.mp4", "a");
	uint64_t end_us = kx_clock_mono_us() + KX_TEST_WAIT_MS * 1000u;
	struct kx_error error = {0};

	(void)state;
	pipeline = pipeline_of(true, KX_TEST_BATCH_TOO_LARGE);
	world_init(&world, 64u << 20);
	publish_job(&world, &job);
	while (kx_worker_health(world.worker, &error) == KX_OK) {
		assert_true(kx_clock_mono_us() < end_us);
		assert_true(quiet(world.events));
	}
	assert_int_equal(error.status, KX_EINVAL);
	kx_worker_stop(world.worker);
	kx_pipeline_free(pipeline);
	pipeline = usual;
	start_worker(&world);
	assert_event_failed(&world, KX_REASON_NOT_FOUND, false, ""); /* it was not acknowledged */
	world_done(&world);
}

static int set_up(void **state)
{
	(void)state;
	folder = kx_test_folder();
	clip = kx_test_clip_av(folder, 11);
	visual = kx_test_bundle("lite0");
	audio = kx_test_bundle("yamnet");
	kx_log_set_level(KX_LOG_ERROR);
	pipeline = pipeline_of(false, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	kx_pipeline_free(pipeline);
	kx_bundle_free(visual);
	kx_bundle_free(audio);
	free(clip);
	kx_test_folder_remove(folder);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(job_becomes_results_and_an_event),
		cmocka_unit_test(acknowledged_jobs_do_not_come_again),
		cmocka_unit_test(stopped_job_comes_again),
		cmocka_unit_test(full_bus_holds_back_and_loses_nothing),
		cmocka_unit_test(same_job_twice_gives_the_same_results),
		cmocka_unit_test(another_recipe_is_refused_for_good),
		cmocka_unit_test(missing_file_is_told),
		cmocka_unit_test(noise_on_the_topic_is_passed_over),
		cmocka_unit_test(result_that_is_lost_makes_the_job_fail),
		cmocka_unit_test(bus_without_events_ends_the_worker),
		cmocka_unit_test(models_that_do_not_load_end_the_worker),
	};
	int status;

	if (kx_test_is_host(argc, argv, &status))
		return status;
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
