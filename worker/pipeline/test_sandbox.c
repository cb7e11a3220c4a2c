/* A decoder child that does what no decoder has to do is killed for it, and that is told; the others work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/macros.h"
#include "common/base/str.h"
#include "worker/pipeline/frames.h"
#include "worker/pipeline/testkit.h"

static char *folder;
static char *clip;

/* A host reads what is armed, and whether it sandboxes, from its environment. */
static kx_status prober_with(const char *fault, const char *sandbox, struct kx_prober **ret, struct kx_error *error)
{
	kx_status status;

	if (fault)
		setenv("KINODEX_FAULT", fault, 1);
	if (sandbox)
		setenv("KINODEX_SANDBOX", sandbox, 1);
	status = kx_prober_new(KX_TEST_PROGRAM, folder, ret, error);
	unsetenv("KINODEX_FAULT");
	unsetenv("KINODEX_SANDBOX");
	return status;
}

static enum kx_reason probe(struct kx_prober *prober, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_close) int fd = open(clip, O_RDONLY | O_CLOEXEC);
	enum kx_reason reason = KX_REASON_NONE;
	struct kx_probe_info info = {0};

	assert_true(fd >= 0);
	if (kx_prober_probe(prober, fd, clip, &info, &reason, error) == KX_OK) {
		kx_probe_info_done(&info);
		return KX_REASON_NONE;
	}
	return reason;
}

static void assert_ends(const char *fault, enum kx_reason reason, const char *word)
{
	struct kx_prober *prober = NULL;
	struct kx_error error = {0};
	enum kx_reason got;

	assert_int_equal(prober_with(fault, NULL, &prober, &error), KX_OK);
	got = probe(prober, &error);
	if (got != reason)
		fail_msg("%s: %s instead of %s: %s", fault, kx_reason_name(got), kx_reason_name(reason), error.message);
	if (!strstr(error.message, word))
		fail_msg("%s: \"%s\" lacks \"%s\"", fault, error.message, word);
	kx_prober_free(prober);
}

static void what_no_decoder_does_ends_it(void **state)
{
	(void)state;
/* A sanitizer's report reads files. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	assert_ends("child.read:1", KX_REASON_SANDBOX, "system call");
#endif
	assert_ends("child.create:1", KX_REASON_SANDBOX, "system call");
	assert_ends("child.socket:1", KX_REASON_SANDBOX, "system call");
	assert_ends("child.exec:1", KX_REASON_SANDBOX, "system call");
	assert_ends("child.fork:1", KX_REASON_SANDBOX, "system call");
	assert_ends("child.kill:1", KX_REASON_SANDBOX, "system call");
	assert_ends("child.code:1", KX_REASON_SANDBOX, "system call");
	assert_int_equal(access("/tmp/kinodex-was-here", F_OK), -1);
}

static void a_crash_is_still_a_crash(void **state)
{
	(void)state;
	assert_ends("child.abort:1", KX_REASON_CRASHED, "SIGABRT");
}

struct seen {
	pid_t child;
	unsigned threads;
};

static unsigned long long field(const char *path, const char *name)
{
	KX_CLEANUP(kx_cleanup_fclose) FILE *file = fopen(path, "re");
	char line[512];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, name, strlen(name)) == 0)
			return strtoull(line + strlen(name), NULL, strcmp(name, "CapEff:") == 0 ? 16 : 10);
	}
	fail_msg("%s: no %s", path, name);
	return 0;
}

static void look_at_thread(struct seen *seen, const char *thread)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_strf("/proc/%d/task/%s/status", (int)seen->child, thread);

	assert_non_null(path);
	seen->threads++;
	assert_int_equal(field(path, "Seccomp:"), 2);
	assert_int_equal(field(path, "NoNewPrivs:"), 1);
	assert_int_equal(field(path, "CapEff:"), 0);
	assert_int_equal(field(path, "Uid:"), geteuid() == 0 ? 65534 : geteuid());
}

/* While a child decodes: of all its threads, since ZeroMQ's are older than the filter. */
static kx_status look(void *ctx, const struct kx_sample *sample, const uint8_t *rgb, struct kx_error *error)
{
	struct seen *seen = ctx;
	KX_CLEANUP(kx_cleanup_free) char *path = NULL;
	KX_CLEANUP(kx_cleanup_closedir) DIR *threads = NULL;
	struct dirent *thread;

	(void)sample;
	(void)rgb;
	(void)error;
	if (seen->child)
		return KX_OK;
	seen->child = kx_test_child_of(kx_test_child_of(getpid()));
	path = kx_strf("/proc/%d/task", (int)seen->child);
	assert_non_null(path);
	threads = opendir(path);
	assert_non_null(threads);
	while ((thread = readdir(threads)) != NULL) {
		if (thread->d_name[0] != '.')
			look_at_thread(seen, thread->d_name);
	}
	return KX_OK;
}

static void read_frames(struct kx_prober *prober, struct seen *seen)
{
	const struct kx_frames_request request = {.fps = 25, .width = 64, .height = 64};
	KX_CLEANUP(kx_cleanup_close) int fd = open(clip, O_RDONLY | O_CLOEXEC);
	enum kx_reason reason = KX_REASON_NONE;
	struct kx_error error = {0};

	if (kx_frames_read(prober, fd, clip, &request, look, seen, NULL, &reason, &error) != KX_OK)
		fail_msg("%s: %s", kx_reason_name(reason), error.message);
}

static void every_thread_of_a_child_is_locked_in(void **state)
{
	struct kx_prober *prober = NULL;
	struct kx_error error = {0};
	struct seen seen = {0};

	(void)state;
	assert_int_equal(prober_with(NULL, NULL, &prober, &error), KX_OK);
	read_frames(prober, &seen);
	assert_in_range(seen.threads, 3, 8); /* with ZeroMQ's two */
	kx_prober_free(prober);
}

/* Containers and codecs of the whitelists that ffmpeg can write: what their demuxers and decoders do must be allowed. Dates
 * and names are in, since reading them may want time zones and alphabets. */
static void every_kind_of_file_gets_through(void **state)
{
	static const char video[] = "-f lavfi -i testsrc2=size=64x64:rate=25";
	static const char sound[] = "-f lavfi -i sine=frequency=300:sample_rate=48000";
	static const struct {
		const char *name, *video, *audio;
	} kinds[] = {
		{"a.mp4", "libx264 -pix_fmt yuv420p", "aac"},
		{"b.mp4", "libx265 -x265-params log-level=none", "alac"},
		{"c.mov", "mjpeg", "pcm_s16le"},
		{"d.mov", "prores", "pcm_s24le"},
		{"e.webm", "libvpx", "libvorbis"},
		{"f.webm", "libvpx-vp9 -cpu-used 8", "libopus"},
		{"g.mkv", "libaom-av1 -cpu-used 8 -usage realtime", "flac"},
		{"h.mkv", "ffv1", "eac3"},
		{"i.avi", "mpeg4", "libmp3lame"},
		{"j.avi", "huffyuv", "adpcm_ms"},
		{"k.ts", "libx264 -pix_fmt yuv420p", "ac3"},
		{"l.ts", "mpeg2video", "mp2"},
		{"m.mpg", "mpeg1video", "mp2"},
		{"n.asf", "wmv2", "wmav2"},
		{"o.flv", "flv -ar 44100", "libmp3lame"},
		{"p.ogv", "libtheora", "libvorbis"},
		{"q.mxf", "mpeg2video", "pcm_s16le"},
		{"r.y4m", "wrapped_avframe -pix_fmt yuv420p", NULL},
		{"s.ivf", "libvpx", NULL},
		{"t.h264", "libx264 -pix_fmt yuv420p", NULL},
		{"u.hevc", "libx265 -x265-params log-level=none", NULL},
		{"v.m4v", "mpeg4", NULL},
		{"w.mp3", NULL, "libmp3lame"},
		{"x.flac", NULL, "flac"},
		{"y.aac", NULL, "aac"},
		{"z.wav", NULL, "pcm_f32le"},
		{"0.aiff", NULL, "pcm_s16be"},
		{"1.caf", NULL, "pcm_s16le"},
		{"2.au", NULL, "pcm_mulaw"},
	};
	struct kx_prober *prober = NULL;
	struct kx_error error = {0};

	(void)state;
	assert_int_equal(prober_with(NULL, NULL, &prober, &error), KX_OK);
	for (size_t i = 0; i < KX_ARRAY_LEN(kinds); i++) {
		bool has_video = kinds[i].video, has_audio = kinds[i].audio;
		KX_CLEANUP(kx_cleanup_free) char *command =
			kx_strf("%s %s -t 0.4 %s %s %s %s -metadata title=t\303\244st -metadata "
				"creation_time=2020-02-02T02:02:02Z -metadata service_name=t\303\244st",
				has_video ? video : "", has_audio ? sound : "", has_video ? "-c:v" : "",
				has_video ? kinds[i].video : "", has_audio ? "-c:a" : "", has_audio ? kinds[i].audio : "");
		KX_CLEANUP(kx_cleanup_free) char *path = kx_test_clip(folder, kinds[i].name, command);
		KX_CLEANUP(kx_cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
		KX_CLEANUP(kx_cleanup_free) char *message = NULL;
		enum kx_reason reason = KX_REASON_COUNT;
		const struct kx_decode_request request = {
			.purpose = KX_DECODE_SAMPLE,
			.tracks = KX_TRACK_VISUAL | KX_TRACK_AUDIO,
			.fps = 25,
			.decode_mode = KX_DECODE_EXACT,
			.width = 64,
			.height = 64,
			.slot_bytes = 64 * 96 * 4,
		};

		assert_int_equal(kx_prober_run(prober, fd, path, &request, &reason, &message, NULL, NULL), KX_OK);
		if (reason != KX_REASON_NONE)
			fail_msg("%s: %s: %s", kinds[i].name, kx_reason_name(reason), message);
	}
	kx_prober_free(prober);
}

static void a_kernel_without_filters_is_refused(void **state)
{
	struct kx_prober *prober = NULL;
	struct kx_error error = {0};

	(void)state;
	assert_int_equal(prober_with("sandbox.kernel:1", NULL, &prober, &error), KX_EUNSUPPORTED);
	assert_int_equal(error.class, KX_ERROR_FATAL);
	assert_non_null(strstr(error.message, "--sandbox off"));
}

static void off_is_for_those_who_ask_for_it(void **state)
{
	struct kx_prober *prober = NULL;
	struct kx_error error = {0};

	(void)state;
	assert_int_equal(prober_with("sandbox.kernel:1,child.socket:1", "off", &prober, &error), KX_OK);
	assert_int_equal(probe(prober, &error), KX_REASON_NONE);
	kx_prober_free(prober);
}

static int set_up(void **state)
{
	(void)state;
	folder = kx_test_folder();
	clip = kx_test_clip_av(folder, 8);
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
		cmocka_unit_test(what_no_decoder_does_ends_it),
		cmocka_unit_test(a_crash_is_still_a_crash),
		cmocka_unit_test(every_thread_of_a_child_is_locked_in),
		cmocka_unit_test(every_kind_of_file_gets_through),
		cmocka_unit_test(a_kernel_without_filters_is_refused),
		cmocka_unit_test(off_is_for_those_who_ask_for_it),
	};
	int status;

	if (kx_test_is_host(argc, argv, &status))
		return status;
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
