/* Bad input ends with a typed reason; odd but good input is read as it should. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "worker/media/testkit.h"

#define X264 "-c:v libx264 -preset ultrafast -pix_fmt yuv420p "
#define PICTURE "-f lavfi -i testsrc2=size=160x120:rate=25:duration=6 "
#define SOUND "-f lavfi -i sine=frequency=440:sample_rate=44100:duration=6 "

static void expect_reason(const char *path, kx_status status, enum kx_reason reason)
{
	struct kit_run run;
	struct kx_probe_info info = {0};
	enum kx_reason probed = KX_REASON_NONE;
	kit_sample(path, (struct kit_want){0}, &run);
	if (run.status != status || run.end.reason != reason)
		fail_msg("%s: %s, reason %s: %s", path, kx_status_name(run.status), kx_reason_name(run.end.reason),
			 run.error.message);
	assert_non_null(run.end.message);
	assert_non_null(strstr(run.end.message, strrchr(path, '/') + 1));
	assert_int_equal(run.frame_count, 0);
	/* The probe says the same, unless only decoding can tell. */
	kx_status of_probe = kit_probe(path, &info, &probed);
	if (of_probe)
		assert_int_equal(probed, reason);
	else
		kx_probe_info_done(&info);
	kit_done(&run);
}

static const char *file_of(const char *name, const char *text)
{
	const char *path = kit_path(name);
	kit_write(path, text, strlen(text));
	return path;
}

static void test_not_media(void **state)
{
	(void)state;
	expect_reason(file_of("empty.mp4", ""), KX_ECORRUPT, KX_REASON_EMPTY_FILE);
	expect_reason(file_of("notes.txt", "Buy milk.\nCall home.\n"), KX_ECORRUPT, KX_REASON_NOT_MEDIA);
	expect_reason(file_of("one.mp4", "x"), KX_ECORRUPT, KX_REASON_NOT_MEDIA);
	expect_reason(file_of("page.mp4", "<html><body>404</body></html>\n"), KX_ECORRUPT, KX_REASON_NOT_MEDIA);
	expect_reason(kit_clip("picture.mp4", PICTURE "-frames:v 1 -f image2 -c:v png -update 1"), KX_ECORRUPT,
		      KX_REASON_NOT_MEDIA);
	for (unsigned seed = 1; seed <= 5; seed++) {
		enum { BYTES = 1 << 20 };
		uint8_t *noise = malloc(BYTES);
		assert_non_null(noise);
		srand(seed);
		for (size_t i = 0; i < BYTES; i++)
			noise[i] = (uint8_t)(rand() >> 7);
		const char *path = kit_path("noise.mp4");
		kit_write(path, noise, BYTES);
		free(noise);
		expect_reason(path, KX_ECORRUPT, KX_REASON_NOT_MEDIA);
	}
}

/* What names other files must not make us read them. */
static void test_lists_of_files(void **state)
{
	(void)state;
	char text[1024];
	const char *secret = kit_clip("secret.ts", PICTURE X264);
	snprintf(text, sizeof(text), "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n%s\n#EXT-X-ENDLIST\n", secret);
	expect_reason(file_of("playlist.mp4", text), KX_EUNSUPPORTED, KX_REASON_UNSUPPORTED);
	snprintf(text, sizeof(text), "ffconcat version 1.0\nfile '%s'\n", secret);
	expect_reason(file_of("concat.mp4", text), KX_EUNSUPPORTED, KX_REASON_UNSUPPORTED);
}

static void test_unsupported(void **state)
{
	(void)state;
	expect_reason(kit_clip("jpeg2000.mkv", PICTURE "-c:v jpeg2000 -frames:v 2"), KX_EUNSUPPORTED,
		      KX_REASON_UNSUPPORTED);
	expect_reason(file_of("bomb.y4m", "YUV4MPEG2 W16000 H16000 F25:1 Ip A1:1 C420\nFRAME\n"), KX_ETOOBIG,
		      KX_REASON_TOO_LARGE);
	const char *srt = file_of("words.srt", "1\n00:00:00,000 --> 00:00:02,000\nHello\n");
	char arguments[600];
	snprintf(arguments, sizeof(arguments), "-i %s -c:s srt", srt);
	expect_reason(kit_clip("words.mkv", arguments), KX_EUNSUPPORTED, KX_REASON_NO_STREAMS);
}

static void test_truncated(void **state)
{
	(void)state;
	struct kit_run run;
	const char *late_index = kit_clip("whole.mp4", PICTURE SOUND X264 "-g 25 -c:a aac");
	expect_reason(kit_cut(late_index, "nomoov.mp4", 0.6), KX_ECORRUPT, KX_REASON_TRUNCATED);
	const char *early_index = kit_clip("faststart.mp4", PICTURE SOUND X264 "-g 25 -c:a aac -movflags +faststart");
	/* The index is there, the pictures end half-way. */
	kit_sample(kit_cut(early_index, "half.mp4", 0.5), (struct kit_want){0}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_true(run.end.truncated);
	assert_in_range(run.frame_count, 2, 4);
	assert_in_range(run.end.visual_us, 1500000, 4500000);
	assert_in_range(run.end.audio_us, 1500000, 4500000);
	kit_done(&run);
	/* A span before the cut is whole; one after it is not, and is no failure. */
	struct kit_want head = {.tracks = KX_TRACK_VISUAL, .end_us = 1000000};
	kit_sample(kit_path("half.mp4"), head, &run);
	assert_int_equal(run.status, KX_OK);
	assert_false(run.end.truncated);
	assert_int_equal(run.end.visual_us, 1000000);
	kit_done(&run);
	struct kit_want tail = {.tracks = KX_TRACK_VISUAL, .start_us = 5000000};
	kit_sample(kit_path("half.mp4"), tail, &run);
	assert_int_equal(run.status, KX_OK);
	assert_true(run.end.truncated);
	assert_int_equal(run.frame_count, 0);
	assert_int_equal(run.end.visual_us, 0);
	kit_done(&run);
	/* Nothing but the index. */
	struct kx_probe_info info;
	enum kx_reason reason;
	assert_int_equal(kit_probe(early_index, &info, &reason), KX_OK);
	kx_probe_info_done(&info);
	kit_shell("head -c $(($(grep -abo mdat '%s' | head -1 | cut -d: -f1) + 4)) '%s' > '%s'", early_index, early_index,
		  kit_path("onlymoov.mp4"));
	expect_reason(kit_path("onlymoov.mp4"), KX_ECORRUPT, KX_REASON_TRUNCATED);
	const char *mkv = kit_clip("whole.mkv", PICTURE X264 "-g 25");
	kit_sample(kit_cut(mkv, "half.mkv", 0.5), (struct kit_want){0}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_true(run.end.truncated);
	kit_done(&run);
	kit_sample(mkv, (struct kit_want){0}, &run);
	assert_false(run.end.truncated);
	assert_int_equal(run.end.visual_us, 6000000);
	kit_done(&run);
}

static void test_tracks(void **state)
{
	(void)state;
	struct kit_run run;
	kit_sample(kit_clip("sound.m4a", SOUND "-c:a aac"), (struct kit_want){0}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_false(run.info.has_visual);
	assert_true(run.info.has_audio);
	assert_int_equal(run.frame_count, 0);
	assert_int_equal(run.patch_count, 11);
	assert_in_range(run.end.audio_us, 5990000, 6060000);
	assert_false(run.end.truncated);
	kit_done(&run);
	kit_sample(kit_path("sound.m4a"), (struct kit_want){.tracks = KX_TRACK_VISUAL}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_int_equal(run.frame_count + run.patch_count, 0);
	kit_done(&run);
	kit_sample(kit_clip("silent.mp4", PICTURE X264), (struct kit_want){0}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_false(run.info.has_audio);
	assert_int_equal(run.frame_count, 6);
	assert_int_equal(run.end.visual_us, 6000000);
	kit_done(&run);
	/* Cover art is no video. */
	kit_clip("cover.png", PICTURE "-frames:v 1 -update 1");
	char arguments[600];
	snprintf(arguments, sizeof(arguments), SOUND "-i %s -map 0 -map 1 -c:a libmp3lame -c:v copy "
		 "-disposition:v:0 attached_pic", kit_path("cover.png"));
	kit_sample(kit_clip("song.mp3", arguments), (struct kit_want){0}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_false(run.info.has_visual);
	assert_int_equal(run.patch_count, 11);
	kit_done(&run);
}

/* Each track alone gives what it gives beside the other. */
static void test_one_pass(void **state)
{
	(void)state;
	struct kit_run both;
	struct kit_run visual;
	struct kit_run audio;
	const char *path = kit_clip("both.mp4", PICTURE SOUND X264 "-g 25 -bf 2 -c:a aac");
	kit_sample(path, (struct kit_want){0}, &both);
	kit_sample(path, (struct kit_want){.tracks = KX_TRACK_VISUAL}, &visual);
	kit_sample(path, (struct kit_want){.tracks = KX_TRACK_AUDIO}, &audio);
	assert_int_equal(visual.patch_count, 0);
	assert_int_equal(audio.frame_count, 0);
	visual.patches = audio.patches;
	visual.patch_count = audio.patch_count;
	kit_assert_same(&both, &visual, "both tracks or one");
	visual.patches = NULL;
	visual.patch_count = 0;
	kit_done(&both);
	kit_done(&visual);
	kit_done(&audio);
}

static void expect_frames(const char *name, const char *arguments, size_t count)
{
	struct kit_run run;
	kit_sample(kit_clip(name, arguments), (struct kit_want){0}, &run);
	if (run.status || run.frame_count != count)
		fail_msg("%s: %zu frames, %s", name, run.frame_count, run.error.message);
	kit_done(&run);
}

static void test_odd_pictures(void **state)
{
	(void)state;
	expect_frames("one.mp4", PICTURE "-frames:v 1 " X264, 1);
	expect_frames("one.mkv", PICTURE "-frames:v 1 -c:v ffv1", 1);
	expect_frames("1x1.mkv", "-f lavfi -i color=red:size=16x16:rate=5:duration=2 -vf scale=1:1 -c:v ffv1 -pix_fmt yuv444p", 2);
	expect_frames("2x2.mp4", "-f lavfi -i color=red:size=2x2:rate=5:duration=2 " X264, 2);
	expect_frames("3x1000.mkv", "-f lavfi -i color=red:size=16x16:rate=5:duration=2 -vf scale=3:1000 -c:v ffv1 -pix_fmt yuv420p", 2);
	expect_frames("alpha.mov", "-f lavfi -i testsrc2=size=64x64:rate=5:duration=2 -c:v png -pix_fmt rgba", 2);
	expect_frames("gray.mkv", "-f lavfi -i testsrc2=size=65x33:rate=5:duration=2 -c:v ffv1 -pix_fmt gray", 2);
	expect_frames("gray12.mkv", "-f lavfi -i testsrc2=size=65x33:rate=5:duration=2 -c:v ffv1 -pix_fmt gray12le", 2);
	expect_frames("slow.mp4", "-f lavfi -i testsrc2=size=64x64:rate=1/4:duration=20 " X264, 17);
}

static void test_sample_aspect(void **state)
{
	(void)state;
	struct kx_probe_info info;
	enum kx_reason reason;
	assert_int_equal(kit_probe(kit_clip("wide.mp4", PICTURE "-vf setsar=2/1 " X264), &info, &reason), KX_OK);
	assert_int_equal(info.width, 320);
	assert_int_equal(info.height, 120);
	assert_true(fabs(info.frame_rate - 25) < 0.01);
	assert_int_equal(info.duration_us, 6000000);
	assert_string_equal(info.container, "mp4");
	assert_string_equal(info.video_codec, "h264");
	assert_string_equal(info.audio_codec, "");
	kx_probe_info_done(&info);
}

/* The picture's size changes in the middle of the stream. */
static void test_size_change(void **state)
{
	(void)state;
	struct kit_run joined;
	struct kit_run second;
	const char *a = kit_clip("a.h264", "-f lavfi -i testsrc2=size=320x180:rate=25:duration=2 " X264);
	const char *b = kit_clip("b.h264", "-f lavfi -i mandelbrot=size=176x144:rate=25 -t 2 " X264);
	kit_shell("cat '%s' '%s' > '%s'", a, b, kit_path("joined.h264"));
	kit_sample(kit_path("joined.h264"), (struct kit_want){0}, &joined);
	kit_sample(b, (struct kit_want){0}, &second);
	assert_int_equal(joined.status, KX_OK);
	assert_int_equal(joined.frame_count, 4);
	assert_int_equal(second.frame_count, 2);
	assert_true(joined.frames[3].hash == second.frames[1].hash);
	kit_done(&joined);
	kit_done(&second);
}

static double patch_level(const struct kit_run *run, size_t index)
{
	const float *rows = (const void *)run->patches[index].bytes;
	double sum = 0;
	for (size_t i = 0; i < KX_PATCH_HOPS * KX_PATCH_BANDS; i++)
		sum += rows[i];
	return sum / (KX_PATCH_HOPS * KX_PATCH_BANDS);
}

static void test_audio_clock(void **state)
{
	(void)state;
	const double silent = log(0.001);
	struct kit_run run;
	/* Sound that starts 2 s after the picture. */
	kit_sample(kit_clip("late.mkv", PICTURE "-itsoffset 2 " SOUND X264 "-c:a pcm_s16le -t 8"),
		   (struct kit_want){.keep_bytes = true}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_true(run.patch_count >= 14);
	assert_true(fabs(patch_level(&run, 0) - silent) < 1e-3);
	assert_true(patch_level(&run, 5) > silent + 1);
	assert_in_range(run.end.audio_us, 7900000, 8100000);
	kit_done(&run);
	/* Two seconds are missing in the middle. */
	kit_sample(kit_clip("gap.mkv", SOUND "-af \"aselect='not(between(t,2,4))'\" -c:a pcm_s16le"),
		   (struct kit_want){.keep_bytes = true}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_in_range(run.end.audio_us, 5900000, 6100000);
	assert_true(patch_level(&run, 0) > silent + 1);
	assert_true(fabs(patch_level(&run, 5) - silent) < 1e-3); /* 2.4 to 3.4 s */
	assert_true(patch_level(&run, 9) > silent + 1);          /* 4.3 to 5.3 s */
	kit_done(&run);
	/* Too short for anything; long enough to be filled up. */
	kit_sample(kit_clip("short.wav", "-f lavfi -i sine=duration=0.09:sample_rate=16000"), (struct kit_want){0}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_int_equal(run.patch_count, 0);
	kit_done(&run);
	kit_sample(kit_clip("brief.wav", "-f lavfi -i sine=duration=0.3:sample_rate=16000"), (struct kit_want){0}, &run);
	assert_int_equal(run.patch_count, 1);
	kit_done(&run);
}

/* Spans count for pictures only: sound is whole in every request that asks for it. */
static void test_span_with_sound(void **state)
{
	(void)state;
	struct kit_run run;
	const char *path = kit_clip("spans.mp4", PICTURE SOUND X264 "-g 25 -bf 2 -c:a aac");
	kit_sample(path, (struct kit_want){.start_us = 2000000, .end_us = 4000000}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_int_equal(run.frame_count, 2);
	assert_int_equal(run.frames[0].sample.index, 2);
	assert_int_equal(run.end.visual_us, 2000000);
	assert_int_equal(run.patch_count, 11);
	assert_false(run.end.truncated);
	kit_done(&run);
}

static void test_failures(void **state)
{
	(void)state;
	struct kit_run run;
	const char *path = kit_clip("good.mp4", PICTURE SOUND X264 "-g 25 -c:a aac");
	for (uint64_t nth = 1; nth <= 3; nth++) {
		kx_fault_arm("media.read", nth);
		kit_sample(path, (struct kit_want){0}, &run);
		kx_fault_clear();
		assert_int_equal(run.status, KX_EIO);
		assert_int_equal(run.end.reason, KX_REASON_READ_FAILED);
		assert_true(run.end.retriable);
		kit_done(&run);
	}
	kit_sample(path, (struct kit_want){.fail_at = 3}, &run);
	assert_int_equal(run.status, KX_ECANCELED);
	assert_int_equal(run.end.frames_sampled, 2);
	assert_int_equal(run.frame_count, 2);
	kit_done(&run);
	kit_sample(path, (struct kit_want){.start_us = 5, .end_us = 4}, &run);
	assert_int_equal(run.status, KX_EINVAL);
	kit_done(&run);
	assert_non_null(strstr(kx_media_software(), "libavcodec "));
}

/* Flipped bytes all over: whatever comes of it, it ends and does no harm. */
static void test_damage(void **state)
{
	(void)state;
	const char *names[] = {"d.mp4", "d.mkv", "d.ts", "d.avi"};
	for (size_t n = 0; n < KX_ARRAY_LEN(names); n++) {
		kit_clip(names[n], PICTURE SOUND X264 "-g 25 -bf 2 -c:a aac -strict -2");
		for (unsigned seed = 1; seed <= 6; seed++) {
			struct kit_run run;
			kit_shell("cp '%s' '%s'", kit_path(names[n]), kit_path("damaged"));
			FILE *file = fopen(kit_path("damaged"), "r+b");
			assert_non_null(file);
			assert_int_equal(fseek(file, 0, SEEK_END), 0);
			long size = ftell(file);
			srand(seed);
			for (int i = 0; i < 40; i++) {
				assert_int_equal(fseek(file, rand() % size, SEEK_SET), 0);
				assert_true(fputc(rand() & 255, file) != EOF);
			}
			assert_int_equal(fclose(file), 0);
			kit_sample(kit_path("damaged"), (struct kit_want){.fps = 3}, &run);
			assert_true(!run.status == (run.end.reason == KX_REASON_NONE));
			assert_true(run.frame_count <= 100);
			kit_done(&run);
		}
	}
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static long peak_kib(void)
{
	struct rusage usage;
	assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
	return usage.ru_maxrss;
}

static void test_flat_memory(void **state)
{
	(void)state;
	struct kit_run run;
	char arguments[600];
	const char *minute = kit_clip("minute.mp4", "-f lavfi -i testsrc2=size=160x120:rate=25:duration=60 -f lavfi "
						    "-i sine=duration=60 " X264 "-g 50 -bf 2 -c:a aac");
	snprintf(arguments, sizeof(arguments), "-stream_loop 29 -i %s -c copy", minute);
	const char *half_hour = kit_clip("halfhour.mp4", arguments);
	kit_sample(minute, (struct kit_want){0}, &run);
	assert_int_equal(run.frame_count, 60);
	kit_done(&run);
	long before = peak_kib();
	kit_sample(half_hour, (struct kit_want){0}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_in_range(run.frame_count, 1795, 1805);
	long after = peak_kib();
	kit_done(&run);
	printf("peak memory: %ld KiB after a minute, %ld KiB after half an hour\n", before, after);
	/* The container's index grows, 24 bytes a sample; nothing else may. */
	assert_true(after - before < 16 * 1024);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		cmocka_unit_test(test_flat_memory), /* first: the peak is the process's */
#endif
		cmocka_unit_test(test_not_media),   cmocka_unit_test(test_lists_of_files),
		cmocka_unit_test(test_unsupported), cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_tracks),      cmocka_unit_test(test_one_pass),
		cmocka_unit_test(test_odd_pictures), cmocka_unit_test(test_sample_aspect),
		cmocka_unit_test(test_size_change), cmocka_unit_test(test_audio_clock),
		cmocka_unit_test(test_span_with_sound), cmocka_unit_test(test_failures),
		cmocka_unit_test(test_damage),
	};
	return cmocka_run_group_tests(tests, kit_enter, kit_leave);
}
