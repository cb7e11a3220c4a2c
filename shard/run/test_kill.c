/* A shard is killed at random points; whatever it had announced is stored, and the rest is made up for by sending it
 * again. The parent only starts, kills and counts: everything with threads runs in children. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/testkit.h"
#include "common/bus/topics.h"
#include "common/record/event.h"
#include "shard/run/shard.h"
#include "shard/store/testkit.h"

#define NS "kill"
#define VIDEOS 24u
#define MOMENTS 13u /* of each */
#define ROUNDS 12
#define NEW_ROUNDS 20
#define WAIT_US 120000000u

static void need(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "child: %s\n", what);
	_exit(9);
}

struct child {
	struct kx_bus *bus;
	struct kx_topics topics;
	struct kx_shard *shard;
	struct kx_bus_consumer *events;
	int announce_fd;
	bool heard[VIDEOS];
	unsigned announced; /* different ones: what an earlier child committed and did not tell is told twice */
};

static void child_start(struct child *child, const char *folder)
{
	struct kx_bus_local_options bus = {.topic_bytes_max = 64u << 20};
	struct kx_bus_subscription events = {.group = "watcher"};
	struct kx_shard_options shard = {.data_dir = folder, .ns = NS};

	kx_topics_init(&child->topics, NS);
	need(!kx_bus_local_new(&bus, &child->bus, NULL), "bus");
	need(!kx_bus_topic(child->bus, child->topics.name[KX_TOPIC_RESULTS], 3, 0, NULL, NULL), "topic");
	need(!kx_bus_topic(child->bus, child->topics.name[KX_TOPIC_RUNS], 1, 0, NULL, NULL), "topic");
	events.topic = child->topics.name[KX_TOPIC_RUNS];
	need(!kx_bus_subscribe(child->bus, &events, &child->events, NULL), "subscribe");
	shard.bus = child->bus;
	need(!kx_shard_start(&shard, &child->shard, NULL), "start");
}

/* Hears at most one event and says so to the parent: one byte, the video's number. */
static void child_hear(struct child *child, int timeout_ms)
{
	KX_CLEANUP(kx_event_cleanup) struct kx_event *event = NULL;
	struct kx_bus_message message = {0};
	uint8_t number;

	if (kx_bus_receive(child->events, timeout_ms, &message, NULL))
		return;
	need(!kx_event_unpack(message.payload, message.len, &event, NULL), "event");
	need(!kx_bus_ack(child->events, message.partition, message.offset, message.epoch), "ack");
	kx_bus_message_done(&message);
	number = (uint8_t)atoi(event->video_id);
	need(number < VIDEOS, "an event of a video that is not there");
	need(write(child->announce_fd, &number, 1) == 1, "pipe");
	child->announced += !child->heard[number];
	child->heard[number] = true;
}

static void child_send(struct child *child, unsigned number)
{
	struct kx_kit_stream stream = {0};
	char id[8];

	snprintf(id, sizeof(id), "%u", number);
	kx_kit_stream_add(&stream, &(struct kx_kit_video){.id = id, .generation = 1, .parts = 3, .visual_moments = MOMENTS - 4,
							  .audio_moments = 4, .content = number});
	for (size_t i = 0; i < stream.count; i++)
		need(!kx_bus_publish(child->bus, child->topics.name[KX_TOPIC_RESULTS], KX_BUS_KEYED, id, strlen(id),
				     stream.messages[i].data, stream.messages[i].len, NULL, NULL, NULL),
		     "publish");
	kx_kit_stream_done(&stream);
}

static void child_index(const char *folder, int announce_fd)
{
	struct child child = {.announce_fd = announce_fd};
	uint64_t until = kx_clock_mono_us() + WAIT_US;

	child_start(&child, folder);
	for (unsigned i = 0; i < VIDEOS; i++) {
		child_send(&child, i);
		child_hear(&child, 0);
	}
	while (child.announced < VIDEOS) {
		need(kx_clock_mono_us() < until, "not all were announced");
		child_hear(&child, 50);
	}
	kx_shard_stop(child.shard);
	kx_bus_consumer_close(child.events);
	kx_bus_free(child.bus);
	_exit(0);
}

static kx_status mark_video(void *ctx, const struct kx_video_record *video, struct kx_error *error)
{
	bool *stored = ctx;

	(void)error;
	stored[atoi(video->result.video_id)] = true;
	return KX_OK;
}

/* orderly: nothing was killed since the last start, so that the index has just what the records have. */
static void child_check(const char *folder, const bool *announced, bool orderly)
{
	bool stored[VIDEOS] = {false};
	struct kx_shard_visitor visitor = {.ctx = stored, .video = mark_video};
	struct kx_shard_verify report;
	struct kx_error error = {0};
	kx_status status = kx_shard_verify(folder, &report, &error);

	/* Killed before it had made a store: then nothing was announced either. */
	if (status != KX_ENOTFOUND) {
		need(!status, error.message);
		need(!kx_shard_each(folder, &visitor, &error), error.message);
		need(!orderly || (report.index_rows == (2 + MOMENTS) * VIDEOS && !report.index_missing && !report.index_extra),
		     "the index is not that of the records");
	}
	for (unsigned i = 0; i < VIDEOS; i++)
		need(stored[i] || !announced[i], "a video was announced and is not stored");
	_exit(0);
}

static void check(const char *folder, const bool *announced, bool orderly)
{
	pid_t pid;
	int status;

	fflush(NULL); /* or each child would print it again */
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		child_check(folder, announced, orderly);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Runs an indexing child and kills it after so many announcements, and a little later still; returns its status. */
static int run_and_kill(const char *folder, unsigned after, unsigned spin, bool *announced)
{
	int fds[2], status;
	uint8_t number;
	unsigned heard = 0;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(fds[0]);
		child_index(folder, fds[1]);
	}
	close(fds[1]);
	while (heard < after && read(fds[0], &number, 1) == 1) {
		announced[number] = true;
		heard++;
	}
	for (uint64_t until = kx_clock_mono_us() + spin; kx_clock_mono_us() < until;)
		continue; /* some point between two announcements, not a wait for anything */
	if (after <= VIDEOS)
		kill(pid, SIGKILL);
	while (read(fds[0], &number, 1) == 1)
		announced[number] = true;
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_what_was_announced_is_kept(void **state)
{
	uint64_t random = kx_test_seed();
	bool announced[VIDEOS] = {false};
	char *folder = kx_kit_folder();
	int status;

	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		(void)run_and_kill(folder, (unsigned)(kx_test_random(&random) % 8),
				   (unsigned)(kx_test_random(&random) % 30000), announced);
		check(folder, announced, false);
	}
	status = run_and_kill(folder, VIDEOS + 1, 0, announced);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	memset(announced, true, sizeof(announced));
	check(folder, announced, true);
	kx_kit_folder_done(folder);
}

static void test_killed_while_it_makes_its_store(void **state)
{
	uint64_t random = kx_test_seed();
	bool announced[VIDEOS] = {false};

	(void)state;
	for (int round = 0; round < NEW_ROUNDS; round++) {
		char *folder = kx_kit_folder();

		(void)run_and_kill(folder, 0, (unsigned)(kx_test_random(&random) % 30000), announced);
		check(folder, announced, false);
		kx_kit_folder_done(folder);
		memset(announced, 0, sizeof(announced));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed_while_it_makes_its_store),
		cmocka_unit_test(test_what_was_announced_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
