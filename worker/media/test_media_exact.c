/* Whatever the container, codec, GOP structure or clock: selective decoding gives the frames of full decoding, and
 * split jobs the frames of the unsplit one, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/media/testkit.h"

#define PICTURE "-f lavfi -i testsrc2=size=160x120:rate=25:duration=12 "
#define BOTH PICTURE "-f lavfi -i sine=frequency=440:sample_rate=44100:duration=12 "
#define X264 "-c:v libx264 -preset veryfast -pix_fmt yuv420p "
#define X265 "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params log-level=none:pools=1:frame-threads=1"

struct clip {
	const char *name;
	const char *arguments;
	bool split;     /* the probe has to say splittable */
	bool skips;     /* at 1 frame/s selective decoding has to decode less */
};

static const struct clip clips[] = {
	{"plain.mp4", BOTH X264 "-g 50 -bf 2 -c:a aac", true, true},
	{"noaudio.mp4", PICTURE X264 "-g 12 -bf 3", true, true},
	{"pyramid.mp4", PICTURE X264 "-g 60 -bf 4 -b_strategy 2 -x264-params b-pyramid=normal:ref=4", true, true},
	{"opengop.mp4", PICTURE X264 "-g 25 -bf 3 -x264-params open-gop=1:keyint=25:min-keyint=25", true, true},
	{"longgop.mp4", PICTURE X264 "-g 1000", false, false},
	{"intra-refresh.mp4", PICTURE X264 "-x264-params intra-refresh=1:keyint=30", true, false},
	{"noedits.mp4", PICTURE X264 "-g 25 -bf 2 -use_editlist 0", true, true},
	{"fragmented.mp4", PICTURE X264 "-g 25 -movflags frag_keyframe+empty_moov", false, true},
	{"vfr.mp4", PICTURE "-vf \"select='not(mod(n,7))+not(mod(n,5))'\" -vsync vfr " X264 "-g 20 -bf 2", true, true},
	{"late.mp4", PICTURE X264 "-g 25 -bf 2 -output_ts_offset 3.3", true, true},
	{"faststart.mp4", BOTH X264 "-g 50 -bf 2 -c:a aac -movflags +faststart", true, true},
	{"h264.mkv", BOTH X264 "-g 50 -bf 2 -c:a libvorbis", true, true},
	{"h264.ts", BOTH X264 "-g 50 -bf 2 -c:a aac", false, true},
	{"h264.avi", BOTH X264 "-g 50 -bf 2 -c:a mp3", false, false},
	{"h264.flv", BOTH X264 "-g 50 -bf 2 -c:a aac", false, true},
	{"raw.h264", PICTURE X264 "-g 50 -bf 2", false, false},
	{"interlaced.mp4", PICTURE X264 "-g 50 -bf 2 -flags +ildct+ilme -x264-params tff=1", true, true},
	{"interlaced.ts", PICTURE X264 "-g 50 -bf 2 -flags +ildct+ilme -x264-params tff=1", false, true},
	{"hevc-open.mp4", PICTURE X265 ":keyint=25:min-keyint=25:open-gop=1:bframes=4", true, true},
	{"hevc-closed.mkv", PICTURE X265 ":keyint=25:min-keyint=25:open-gop=0:bframes=3", true, true},
	{"hevc-layers.mp4", PICTURE X265 ":keyint=40:temporal-layers=1:bframes=4:b-pyramid=1", true, true},
	{"hevc-open.ts", PICTURE X265 ":keyint=25:min-keyint=25:open-gop=1:bframes=4", false, true},
	{"mpeg4.mp4", BOTH "-c:v mpeg4 -g 30 -bf 2 -c:a aac", true, true},
	{"mpeg4.avi", BOTH "-c:v mpeg4 -g 30 -bf 2 -c:a mp3", false, true},
	{"mpeg4-packed.avi", BOTH "-c:v libxvid -g 30 -bf 2 -c:a mp3", false, true},
	{"mpeg4.mkv", PICTURE "-c:v mpeg4 -g 30 -bf 2", true, true},
	{"mpeg2.ts", BOTH "-c:v mpeg2video -g 15 -bf 2 -c:a mp2", false, true},
	{"mpeg2.mpg", BOTH "-c:v mpeg2video -g 15 -bf 2 -c:a mp2", false, false},
	{"mpeg2-closed.ts", PICTURE "-c:v mpeg2video -g 15 -bf 2 -flags +cgop -sc_threshold 1000000000", false, true},
	{"mpeg2.mkv", PICTURE "-c:v mpeg2video -g 15 -bf 2", false, true},
	{"vp9.webm", BOTH "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25 -c:a libopus", true, true},
	{"vp9.mp4", PICTURE "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 25", true, true},
	{"vp8.webm", PICTURE "-c:v libvpx -deadline realtime -cpu-used 8 -g 25", false, false},
	{"mjpeg.avi", PICTURE "-c:v mjpeg -pix_fmt yuvj420p", false, true},
	{"wmv.asf", BOTH "-c:v wmv2 -c:a wmav2", false, false},
	{"theora.ogg", BOTH "-c:v libtheora -g 30 -c:a libvorbis", false, false},
	{"raw.y4m", "-f lavfi -i testsrc2=size=64x48:rate=5:duration=5 -pix_fmt yuv420p", false, true},
	{"vp9-altref.webm", PICTURE "-c:v libvpx-vp9 -deadline good -cpu-used 5 -g 60 -auto-alt-ref 1 -lag-in-frames 16", true, true},
	{"vp9-10bit.mkv", PICTURE "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 50 -pix_fmt yuv420p10le", true, true},
	{"av1-svt.mp4", PICTURE "-c:v libsvtav1 -preset 11 -g 50 -svtav1-params lp=1", true, true},
	{"av1-svt.mkv", PICTURE "-c:v libsvtav1 -preset 10 -g 75 -svtav1-params lp=1", true, true},
	{"av1-aom.webm", PICTURE "-c:v libaom-av1 -usage realtime -cpu-used 8 -g 40", true, true},
	{"av1-aom.mp4", PICTURE "-frames:v 100 -c:v libaom-av1 -cpu-used 8 -g 40 -lag-in-frames 19", true, true},
	{"mjpeg.mov", PICTURE "-c:v mjpeg -pix_fmt yuvj420p", false, true},
	{"prores.mov", PICTURE "-c:v prores_ks -profile:v 0", false, true},
	{"dv.avi", "-f lavfi -i testsrc2=size=720x576:rate=25:duration=3 -c:v dvvideo -pix_fmt yuv420p", false, true},
};

static void compare_with_all(const char *path, const char *name, double fps, uint64_t *ret_decoded, uint64_t *ret_all)
{
	char what[128];
	struct kit_run fast;
	struct kit_run all;
	snprintf(what, sizeof(what), "%s at %g/s, selective or all", name, fps);
	kit_sample(path, (struct kit_want){.fps = fps, .side = 64}, &fast);
	kit_sample(path, (struct kit_want){.fps = fps, .side = 64, .decode_all = true}, &all);
	if (fast.status || all.status)
		fail_msg("%s: %s / %s", what, fast.error.message, all.error.message);
	assert_true(all.frame_count > 0);
	kit_assert_same(&fast, &all, what);
	assert_int_equal(fast.end.visual_us, all.end.visual_us);
	*ret_decoded = fast.end.frames_decoded;
	*ret_all = all.end.frames_decoded;
	kit_done(&fast);
	kit_done(&all);
}

/* Frames are numbered from 0 without holes, each the last one not after its grid time. */
static void check_grid(const struct kit_run *run, const char *name, double fps)
{
	for (size_t i = 0; i < run->frame_count; i++) {
		const struct kx_sample *sample = &run->frames[i].sample;
		uint64_t grid = (uint64_t)((double)i * 1e6 / fps + 0.5);
		if (sample->index != i || (i && sample->pts_us > grid) || sample->error_us != (i ? grid - sample->pts_us : sample->pts_us))
			fail_msg("%s: frame %zu: index %llu at %llu us, off by %llu us", name, i,
				 (unsigned long long)sample->index, (unsigned long long)sample->pts_us,
				 (unsigned long long)sample->error_us);
	}
}

static void compare_with_split(const char *path, const char *name, double fps, uint64_t step_us)
{
	char what[128];
	struct kit_run whole;
	size_t seen = 0;
	uint64_t covered = 0;
	kit_sample(path, (struct kit_want){.tracks = KX_TRACK_VISUAL, .fps = fps, .side = 64}, &whole);
	check_grid(&whole, name, fps);
	/* One span past the end, too: it holds nothing. */
	for (uint64_t start = 0; start < whole.end.visual_us + step_us; start += step_us) {
		struct kit_run part;
		struct kit_want want = {
			.tracks = KX_TRACK_VISUAL,
			.fps = fps,
			.side = 64,
			.start_us = start,
			.end_us = start + step_us,
		};
		snprintf(what, sizeof(what), "%s at %g/s, span from %llu us", name, fps, (unsigned long long)start);
		kit_sample(path, want, &part);
		if (part.status || seen + part.frame_count > whole.frame_count)
			fail_msg("%s: %s, %zu frames", what, part.error.message, part.frame_count);
		struct kit_run same = {.frames = whole.frames + seen, .frame_count = part.frame_count};
		kit_assert_same(&part, &same, what);
		seen += part.frame_count;
		covered += part.end.visual_us;
		kit_done(&part);
	}
	if (seen != whole.frame_count)
		fail_msg("%s: %zu frames in spans, %zu in one", name, seen, whole.frame_count);
	assert_int_equal(covered, whole.end.visual_us);
	kit_done(&whole);
}

static void check_clip(const struct clip *clip)
{
	const double rates[] = {1, 2.7, 40};
	const char *path = kit_clip(clip->name, clip->arguments);
	for (size_t i = 0; i < KX_ARRAY_LEN(rates); i++) {
		uint64_t decoded = 0;
		uint64_t all = 0;
		compare_with_all(path, clip->name, rates[i], &decoded, &all);
		if (i)
			continue;
		printf("%-20s %5llu of %5llu frames decoded\n", clip->name, (unsigned long long)decoded,
		       (unsigned long long)all);
		if (clip->skips && decoded * 10 > all * 9)
			fail_msg("%s: nothing was left out", clip->name);
	}
	struct kx_probe_info info;
	enum kx_reason reason;
	assert_int_equal(kit_probe(path, &info, &reason), KX_OK);
	if (info.splittable != clip->split)
		fail_msg("%s: splittable is %d", clip->name, info.splittable);
	kx_probe_info_done(&info);
	/* Spans are right for every file; only what they cost differs. */
	compare_with_split(path, clip->name, 1, 5000000);
	compare_with_split(path, clip->name, 2.7, 3100000);
	if (clip->split)
		compare_with_split(path, clip->name, 25, 1700000);
}

static void test_clips(void **state)
{
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(clips); i++)
		check_clip(&clips[i]);
}

/* Over the cap of packets in a group, then back to short ones. */
static void test_long_group(void **state)
{
	(void)state;
	check_clip(&(struct clip){
		"endless.mp4",
		"-f lavfi -i testsrc2=size=64x48:rate=25:duration=62 " X264 "-bf 2 -g 5000 -sc_threshold 0 "
		"-force_key_frames 50,51,53,60",
		true,
		false,
	});
}

/* The same stream gives the same frames at the same times, whatever it is packed in. */
static void test_containers_agree(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		const char *options;
	} packings[] = {
		{"same.mkv", "-c copy"},
		{"same.ts", "-c copy"},
		{"same.flv", "-c copy"},
		{"same.avi", "-c copy"},
		{"same.h264", "-c copy -an"},
		{"same.mov", "-c copy -output_ts_offset 7"},
	};
	const double rates[] = {1, 2.7};
	const char *path = kit_clip("same.mp4", PICTURE X264 "-g 50 -bf 2");
	for (size_t i = 0; i < KX_ARRAY_LEN(packings); i++) {
		char arguments[1024];
		snprintf(arguments, sizeof(arguments), "-i '%s' %s", path, packings[i].options);
		const char *packed = kit_clip(packings[i].name, arguments);
		for (size_t r = 0; r < KX_ARRAY_LEN(rates); r++) {
			struct kit_want want = {.tracks = KX_TRACK_VISUAL, .fps = rates[r], .side = 64};
			struct kit_run a;
			struct kit_run b;
			kit_sample(path, want, &a);
			kit_sample(packed, want, &b);
			kit_assert_same(&a, &b, packings[i].name);
			kit_done(&a);
			kit_done(&b);
		}
	}
}

/* -ss with -c copy leaves pictures before the start in the file and an edit list that hides them. */
static void test_edit_list(void **state)
{
	(void)state;
	char arguments[1024];
	const char *path = kit_clip("uncut.mp4", BOTH X264 "-g 50 -bf 2 -c:a aac");
	snprintf(arguments, sizeof(arguments), "-ss 3.3 -i %s -c copy", path);
	check_clip(&(struct clip){"edited.mp4", arguments, true, true});
}

static void test_cut_transport_stream(void **state)
{
	(void)state;
	char arguments[1024];
	/* A recording starts anywhere: its first pictures need some that are not there. */
	kit_clip("whole.ts", PICTURE "-c:v mpeg2video -g 15 -bf 2");
	const char *path = kit_path("tail.ts");
	kit_shell("tail -c +%d '%s' > '%s'", 188 * 300 + 1, kit_path("whole.ts"), path);
	snprintf(arguments, sizeof(arguments), "-i %s -c copy -copyts -copyinkf", path);
	check_clip(&(struct clip){"started-late.ts", arguments, false, true});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clips),
		cmocka_unit_test(test_long_group),
		cmocka_unit_test(test_containers_agree),
		cmocka_unit_test(test_edit_list),
		cmocka_unit_test(test_cut_transport_stream),
	};
	return cmocka_run_group_tests(tests, kit_enter, kit_leave);
}
