/* Probing: what a file says of itself, and that no file can do harm by it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/macros.h"
#include "common/base/thread.h"
#include "worker/pipeline/frames.h"
#include "worker/pipeline/host_client.h"
#include "worker/pipeline/testkit.h"

#define PROBERS 3

static char *folder;
static char *clip;

static struct kx_prober *prober_new(void)
{
	struct kx_prober *prober = NULL;
	struct kx_error error = {0};

	if (kx_prober_new(KX_TEST_PROGRAM, folder, &prober, &error) != KX_OK)
		fail_msg("%s", error.message);
	return prober;
}

static void assert_probes_clip(struct kx_prober *prober)
{
	KX_CLEANUP(kx_cleanup_close) int fd = open(clip, O_RDONLY | O_CLOEXEC);
	struct kx_probe_info info = {0};
	enum kx_reason reason = KX_REASON_NONE;
	struct kx_error error = {0};

	assert_true(fd >= 0);
	if (kx_prober_probe(prober, fd, clip, &info, &reason, &error) != KX_OK)
		fail_msg("%s: %s", kx_reason_name(reason), error.message);
	assert_in_range(info.duration_us, 10900000, 11200000);
	assert_int_equal(info.width, 320);
	assert_int_equal(info.height, 240);
	assert_true(info.has_visual && info.has_audio);
	assert_string_equal(info.video_codec, "h264");
	assert_string_equal(info.audio_codec, "aac");
	kx_probe_info_done(&info);
}

static void clip_is_described(void **state)
{
	struct kx_prober *prober = prober_new();

	(void)state;
	assert_probes_clip(prober);
	assert_probes_clip(prober);
	kx_prober_free(prober);
}

static void what_is_no_media_has_a_reason_and_is_named(void **state)
{
	struct kx_prober *prober = prober_new();
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(folder, "letter.txt");
	KX_CLEANUP(kx_cleanup_close) int fd = -1;
	struct kx_probe_info info = {0};
	enum kx_reason reason = KX_REASON_NONE;
	struct kx_error error = {0};

	(void)state;
	assert_int_equal(kx_fs_write(path, "dear all", 8, NULL), KX_OK);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_true(kx_prober_probe(prober, fd, path, &info, &reason, &error) != KX_OK);
	assert_int_equal(reason, KX_REASON_NOT_MEDIA);
	assert_int_equal(error.class, KX_ERROR_POISON);
	assert_non_null(strstr(error.message, "letter.txt"));
	assert_probes_clip(prober);
	kx_prober_free(prober);
}

static void inspection_tells_of_every_stream(void **state)
{
	struct kx_prober *prober = prober_new();
	KX_CLEANUP(kx_cleanup_close) int fd = open(clip, O_RDONLY | O_CLOEXEC);
	struct kx_probe_info info = {0};
	struct kx_probe_detail detail = {0};
	enum kx_reason reason = KX_REASON_NONE;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(kx_prober_inspect(prober, fd, clip, &info, &detail, &reason, NULL), KX_OK);
	assert_true(info.has_visual && info.has_audio);
	assert_int_equal(detail.stream_count, 2);
	assert_string_equal(detail.streams[0].kind, "video");
	assert_string_equal(detail.streams[0].codec, info.video_codec);
	assert_true(detail.streams[0].chosen && detail.streams[0].packets > 0);
	assert_string_equal(detail.streams[1].kind, "audio");
	assert_int_equal(detail.streams[1].sample_rate, info.sample_rate);
	assert_in_range(detail.packets_us, 10900000, 11100000);
	assert_non_null(strstr(detail.plan, "selective"));
	kx_probe_info_done(&info);
	kx_probe_detail_done(&detail);
	assert_probes_clip(prober);
	kx_prober_free(prober);
}

static void *probe_some(void *prober)
{
	for (int i = 0; i < 5; i++)
		assert_probes_clip(prober);
	return NULL;
}

static void threads_may_share_one(void **state)
{
	struct kx_prober *prober = prober_new();
	pthread_t threads[PROBERS];

	(void)state;
	for (size_t i = 0; i < PROBERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, probe_some, prober), 0);
	for (size_t i = 0; i < PROBERS; i++)
		pthread_join(threads[i], NULL);
	kx_prober_free(prober);
}

static void assert_dead_host_is_noticed(struct kx_prober *prober)
{
	KX_CLEANUP(kx_cleanup_close) int fd = open(clip, O_RDONLY | O_CLOEXEC);
	struct kx_probe_info info = {0};
	enum kx_reason reason = KX_REASON_NONE;
	struct kx_error error = {0};

	assert_true(fd >= 0);
	assert_int_equal(kill(kx_test_child_of(getpid()), SIGKILL), 0);
	assert_true(kx_prober_probe(prober, fd, clip, &info, &reason, &error) != KX_OK);
	assert_int_equal(error.class, KX_ERROR_RETRY);
}

static void dead_host_costs_a_probe_at_most(void **state)
{
	struct kx_prober *prober = prober_new();

	(void)state;
	assert_dead_host_is_noticed(prober);
	assert_probes_clip(prober);
	kx_prober_free(prober);
}

static void program_that_is_no_host_is_an_error(void **state)
{
	struct kx_prober *prober = NULL;
	struct kx_error error = {0};
	size_t fds = kx_test_open_fds();

	(void)state;
	assert_int_equal(kx_prober_new("/nonexistent/kinodex", folder, &prober, &error), KX_ENOTFOUND);
	assert_non_null(strstr(error.message, "/nonexistent/kinodex"));
	assert_int_equal(kx_prober_new("/bin/true", folder, &prober, &error), KX_EIO);
	assert_int_equal(kx_test_open_fds(), fds);
}

/* This program ends at once when its mark is not there, as if somebody had killed it, and leaves the mark. */
static void host_that_dies_while_it_starts_is_started_again(void **state)
{
	char script[256], mark[300], text[512], self[256];
	struct kx_prober *prober = NULL;
	struct kx_error error = {0};
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	FILE *file;

	(void)state;
	assert_true(len > 0);
	self[len] = '\0';
	snprintf(script, sizeof(script), "%s/host.sh", folder);
	snprintf(text, sizeof(text), "#!/bin/sh\nmkdir \"$0.started\" 2>/dev/null && exit 0\nexec \"%s\" \"$@\"\n", self);
	file = fopen(script, "we");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(script, 0700), 0);
	if (kx_prober_new(script, folder, &prober, &error) != KX_OK)
		fail_msg("%s", error.message);
	assert_probes_clip(prober);

	/* The same when another has to be started in the middle of the work. */
	snprintf(mark, sizeof(mark), "%s.started", script);
	assert_int_equal(rmdir(mark), 0);
	assert_dead_host_is_noticed(prober);
	assert_probes_clip(prober);
	assert_true(kx_fs_exists(mark));
	kx_prober_free(prober);
}

struct seen {
	uint64_t count, limit;
	uint64_t sum; /* of all bytes: the pictures are not empty */
	bool disorder;
};

static kx_status on_picture(void *ctx, const struct kx_sample *sample, const uint8_t *rgb, struct kx_error *error)
{
	struct seen *seen = ctx;

	seen->disorder |= sample->index != seen->count;
	seen->count++;
	for (size_t i = 0; i < 64 * 48 * 3; i++)
		seen->sum += rgb[i];
	if (seen->count == seen->limit)
		return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "seen enough");
	return KX_OK;
}

static kx_status read_frames(struct kx_prober *prober, struct seen *seen, struct kx_error *error)
{
	const struct kx_frames_request request = {.fps = 10, .width = 64, .height = 48};
	KX_CLEANUP(kx_cleanup_close) int fd = open(clip, O_RDONLY | O_CLOEXEC);
	enum kx_reason reason = KX_REASON_NONE;

	assert_true(fd >= 0);
	return kx_frames_read(prober, fd, clip, &request, on_picture, seen, NULL, &reason, error);
}

static void frames_come_in_order_and_all(void **state)
{
	struct kx_prober *prober = prober_new();
	struct kx_error error = {0};
	struct seen seen = {0};

	(void)state;
	if (read_frames(prober, &seen, &error) != KX_OK)
		fail_msg("%s", error.message);
	assert_int_equal(seen.count, 110);
	assert_false(seen.disorder);
	assert_true(seen.sum > 0);
	kx_prober_free(prober);
}

static void reading_ends_when_its_visitor_wants(void **state)
{
	struct kx_prober *prober = prober_new();
	struct kx_error error = {0};
	struct seen seen = {.limit = 3};

	(void)state;
	assert_int_equal(read_frames(prober, &seen, &error), KX_ECANCELED);
	assert_string_equal(error.message, "seen enough");
	assert_int_equal(seen.count, 3);
	assert_probes_clip(prober); /* the next one finds the prober as it was */
	kx_prober_free(prober);
}

static kx_status cancel_at_first(void *ctx, const struct kx_sample *sample, const uint8_t *rgb, struct kx_error *error)
{
	(void)sample, (void)rgb, (void)error;
	kx_prober_cancel(ctx);
	return KX_OK;
}

/* Though more frames lie ready, and nobody's time is over. */
static void cancelling_ends_what_runs_and_what_comes(void **state)
{
	const struct kx_frames_request request = {.fps = 10, .width = 64, .height = 48};
	struct kx_prober *prober = prober_new();
	KX_CLEANUP(kx_cleanup_close) int fd = open(clip, O_RDONLY | O_CLOEXEC);
	enum kx_reason reason = KX_REASON_NONE;
	struct kx_error error = {0};
	struct seen seen = {0};

	(void)state;
	assert_int_equal(kx_frames_read(prober, fd, clip, &request, cancel_at_first, prober, NULL, &reason, &error),
			 KX_ECANCELED);
	assert_int_equal(read_frames(prober, &seen, &error), KX_ECANCELED);
	assert_int_equal(seen.count, 0);
	kx_prober_free(prober);
}

/* What a host does with orders that no pipeline gives. */
static void host_refuses_what_it_does_not_understand(void **state)
{
	struct kx_decode_request request = {
		.ticket = 7, .purpose = KX_DECODE_SAMPLE, .tracks = KX_TRACK_VISUAL, .fps = 1,
		.decode_mode = KX_DECODE_EXACT, .width = 8, .height = 8, .ring_slots = 4, .slot_bytes = 192,
		.endpoint = (char *)"ipc:///nonexistent", .name = clip};
	KX_CLEANUP(kx_cleanup_close) int fd = open(clip, O_RDONLY | O_CLOEXEC);
	struct kx_host host;
	struct kx_host_exit exit;
	kx_status status;

	(void)state;
	assert_int_equal(kx_host_start(&host, KX_TEST_PROGRAM, NULL), KX_OK);
	assert_int_equal(kx_host_wait_ready(&host, KX_TEST_WAIT_MS, NULL), KX_OK);
	assert_int_equal(kx_host_run(&host, &request, &fd, 1, NULL), KX_OK); /* sampling needs a ring */
	assert_int_equal(kx_host_kill(&host, 99), KX_OK);                    /* nobody's */
	while ((status = kx_host_recv(&host, &exit)) == KX_EAGAIN)
		kx_test_wait_readable(host.fd);
	assert_int_equal(status, KX_OK);
	assert_int_equal(exit.header.ticket, 7);
	assert_true(exit.header.error != 0);
	kx_host_stop(&host);
	assert_int_equal(kx_host_run(&host, &request, &fd, 1, NULL), KX_EIO);
}

static void assert_next_exit(struct kx_host *host, uint64_t ticket)
{
	struct kx_host_exit exit;
	kx_status status;

	while ((status = kx_host_recv(host, &exit)) == KX_EAGAIN)
		kx_test_wait_readable(host->fd);
	assert_int_equal(status, KX_OK);
	assert_int_equal(exit.header.ticket, ticket);
}

static void clients_of_one_host_hear_of_their_own_children(void **state)
{
	const struct kx_decode_request request = {.ticket = 7, .purpose = KX_DECODE_PROBE,
						  .endpoint = (char *)"ipc:///nonexistent", .name = clip};
	KX_CLEANUP(kx_cleanup_close) int fd = open(clip, O_RDONLY | O_CLOEXEC);
	struct kx_host first, second;
	struct kx_host_exit exit;

	(void)state;
	assert_int_equal(kx_host_start(&first, KX_TEST_PROGRAM, NULL), KX_OK);
	assert_int_equal(kx_host_wait_ready(&first, KX_TEST_WAIT_MS, NULL), KX_OK);
	assert_int_equal(kx_host_join(&second, &first, NULL), KX_OK);
	assert_int_equal(kx_host_wait_ready(&second, KX_TEST_WAIT_MS, NULL), KX_OK);
	assert_int_equal(kx_host_run(&second, &request, &fd, 1, NULL), KX_OK); /* waits for somebody at its endpoint */
	assert_int_equal(kx_host_run(&first, &request, &fd, 1, NULL), KX_OK);
	assert_int_equal(kx_host_kill(&first, 7), KX_OK);
	assert_next_exit(&first, 7);
	assert_int_equal(kx_host_recv(&second, &exit), KX_EAGAIN);
	assert_int_equal(kx_host_kill(&second, 7), KX_OK);
	assert_next_exit(&second, 7);
	assert_int_equal(kx_host_recv(&first, &exit), KX_EAGAIN);
	kx_host_stop(&second);
	assert_int_equal(kx_host_run(&first, &request, &fd, 1, NULL), KX_OK);
	assert_int_equal(kx_host_kill(&first, 7), KX_OK);
	assert_next_exit(&first, 7);
	kx_host_stop(&first);
}

static void host_takes_no_more_clients_than_it_has_room_for(void **state)
{
	struct kx_host hosts[KX_HOST_CLIENTS_MAX + 1];
	struct kx_host_exit exit;

	(void)state;
	assert_int_equal(kx_host_start(&hosts[0], KX_TEST_PROGRAM, NULL), KX_OK);
	assert_int_equal(kx_host_wait_ready(&hosts[0], KX_TEST_WAIT_MS, NULL), KX_OK);
	for (size_t i = 1; i <= KX_HOST_CLIENTS_MAX; i++) {
		assert_int_equal(kx_host_join(&hosts[i], &hosts[0], NULL), KX_OK);
		assert_int_equal(kx_host_wait_ready(&hosts[i], KX_TEST_WAIT_MS, NULL),
				 i < KX_HOST_CLIENTS_MAX ? KX_OK : KX_EIO);
	}
	kx_host_stop(&hosts[0]);
	kx_test_wait_readable(hosts[1].fd);
	assert_int_equal(kx_host_recv(&hosts[1], &exit), KX_EIO);
	for (size_t i = 1; i <= KX_HOST_CLIENTS_MAX; i++)
		kx_host_stop(&hosts[i]);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* Around what a decoder needs it gets an allocation here and misses one there, and calls the rest damage. */
static void too_little_memory_never_passes_for_damage(void **state)
{
	KX_CLEANUP(kx_cleanup_free) char *path =
		kx_test_clip(folder, "wide.mp4", "-f lavfi -i testsrc2=size=1280x720:rate=25 -t 1 -c:v libx264 -pix_fmt yuv420p "
						 "-bf 2");
	KX_CLEANUP(kx_cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct kx_prober *prober = prober_new();
	unsigned good = 0, starved = 0;

	(void)state;
	for (uint64_t kib = 512; kib <= 64u << 10; kib += kib < 16384 ? 512 : 2048) {
		const struct kx_decode_request request = {
			.purpose = KX_DECODE_SAMPLE,
			.tracks = KX_TRACK_VISUAL,
			.fps = 25,
			.decode_mode = KX_DECODE_EXACT,
			.width = 64,
			.height = 64,
			.slot_bytes = 64 * 64 * 3,
			.memory_limit_bytes = kib << 10,
		};
		KX_CLEANUP(kx_cleanup_free) char *message = NULL;
		enum kx_reason reason = KX_REASON_COUNT;

		assert_int_equal(kx_prober_run(prober, fd, path, &request, &reason, &message, NULL, NULL), KX_OK);
		if (reason != KX_REASON_NONE && reason != KX_REASON_MEMORY_LIMIT)
			fail_msg("%u KiB: %s: %s", (unsigned)kib, kx_reason_name(reason), message);
		good += reason == KX_REASON_NONE;
		starved += reason == KX_REASON_MEMORY_LIMIT;
	}
	assert_in_range(good, 5, 1000);
	assert_in_range(starved, 5, 1000);
	kx_prober_free(prober);
}
#endif

static int set_up(void **state)
{
	(void)state;
	folder = kx_test_folder();
	clip = kx_test_clip_av(folder, 11);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(clip);
	kx_test_folder_remove(folder);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clip_is_described),
		cmocka_unit_test(what_is_no_media_has_a_reason_and_is_named),
		cmocka_unit_test(inspection_tells_of_every_stream),
		cmocka_unit_test(threads_may_share_one),
		cmocka_unit_test(dead_host_costs_a_probe_at_most),
		cmocka_unit_test(frames_come_in_order_and_all),
		cmocka_unit_test(reading_ends_when_its_visitor_wants),
		cmocka_unit_test(cancelling_ends_what_runs_and_what_comes),
		cmocka_unit_test(program_that_is_no_host_is_an_error),
		cmocka_unit_test(host_that_dies_while_it_starts_is_started_again),
		cmocka_unit_test(host_refuses_what_it_does_not_understand),
		cmocka_unit_test(clients_of_one_host_hear_of_their_own_children),
		cmocka_unit_test(host_takes_no_more_clients_than_it_has_room_for),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		cmocka_unit_test(too_little_memory_never_passes_for_damage),
#endif
	};
	int status;

	if (kx_test_is_host(argc, argv, &status))
		return status;
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
