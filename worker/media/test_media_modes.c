/* tol=SECONDS and keyframe: every frame is the very one that full decoding has at that time, near enough, the same at
 * any split, and cheaper to get. What the key frames are is asked of ffprobe. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "worker/media/testkit.h"

#define PICTURE "-f lavfi -i testsrc2=size=160x120:rate=25:duration=12 "
#define X264 "-c:v libx264 -preset veryfast -pix_fmt yuv420p "
#define X265 "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params log-level=none:pools=1:frame-threads=1"
#define RATE 25
#define FRAMES_MAX 1000u

struct clip {
	const char *name;
	const char *arguments;
	bool tolerates; /* references are read: within a tolerance less is decoded than for exact frames */
};

static const struct clip clips[] = {
	{"closed.mp4", PICTURE X264 "-g 50 -bf 2", true},
	{"sound.mp4", PICTURE "-f lavfi -i sine=duration=12 " X264 "-g 50 -bf 3 -c:a aac", true},
	{"opengop.mp4", PICTURE X264 "-g 25 -bf 3 -x264-params open-gop=1:keyint=25:min-keyint=25", false},
	{"cut.mkv", PICTURE X264 "-g 60 -bf 2 -output_ts_offset 3", true},
	{"fragmented.mp4", PICTURE X264 "-g 50 -bf 2 -movflags frag_keyframe+empty_moov", true},
	{"late.ts", PICTURE X264 "-g 50 -bf 2", true},
	{"hevc-open.mp4", PICTURE X265 ":keyint=50:min-keyint=50:open-gop=1:bframes=4", true},
	{"mpeg2.ts", PICTURE "-c:v mpeg2video -g 50 -bf 2 -sc_threshold 1000000000", true},
	{"mpeg4.mp4", PICTURE "-c:v mpeg4 -g 40 -bf 2", true},
	{"vp9.webm", PICTURE "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 50", false},
	{"vp8.webm", PICTURE "-c:v libvpx -deadline realtime -cpu-used 8 -g 50", false},
	{"one-key.mp4", PICTURE X264 "-g 1000 -bf 2", false},
	{"vfr.mp4", PICTURE "-vf \"select='not(mod(n,7))+not(mod(n,5))'\" -vsync vfr " X264 "-g 20 -bf 2", true},
};

static const struct kit_item *frame_at(const struct kit_run *all, uint64_t pts_us)
{
	for (size_t i = 0; i < all->frame_count; i++)
		if (all->frames[i].sample.pts_us == pts_us)
			return &all->frames[i];
	return NULL;
}

/* Right time, right error, right bytes, and as many as exact sampling has. */
static void check_frames(const struct kit_run *run, const struct kit_run *exact, const struct kit_run *all,
			 const char *what)
{
	if (run->status)
		fail_msg("%s: %s", what, run->error.message);
	if (run->frame_count != exact->frame_count || run->end.visual_us != exact->end.visual_us)
		fail_msg("%s: %zu frames over %llu us, exact %zu over %llu", what, run->frame_count,
			 (unsigned long long)run->end.visual_us, exact->frame_count,
			 (unsigned long long)exact->end.visual_us);
	for (size_t i = 0; i < run->frame_count; i++) {
		const struct kx_sample *sample = &run->frames[i].sample;
		const struct kit_item *same = frame_at(all, sample->pts_us);
		uint64_t grid = i * 1000000;
		uint64_t off = sample->pts_us > grid ? sample->pts_us - grid : grid - sample->pts_us;
		if (sample->index != i || sample->error_us != off)
			fail_msg("%s: frame %zu: index %llu at %llu us, off by %llu", what, i,
				 (unsigned long long)sample->index, (unsigned long long)sample->pts_us,
				 (unsigned long long)sample->error_us);
		if (!same || same->hash != run->frames[i].hash)
			fail_msg("%s: the frame at %llu us is not that of full decoding", what,
				 (unsigned long long)sample->pts_us);
	}
}

static void check_splits(const char *path, struct kit_want want, const struct kit_run *whole, const char *what)
{
	size_t seen = 0;
	want.tracks = KX_TRACK_VISUAL;
	for (uint64_t start = 0; start < whole->end.visual_us; start += 3000000) {
		struct kit_run part;
		want.start_us = start;
		want.end_us = start + 3000000;
		kit_sample(path, want, &part);
		if (part.status || seen + part.frame_count > whole->frame_count)
			fail_msg("%s: span from %llu us: %s, %zu frames", what, (unsigned long long)start,
				 part.error.message, part.frame_count);
		struct kit_run same = {.frames = whole->frames + seen, .frame_count = part.frame_count};
		kit_assert_same(&part, &same, what);
		seen += part.frame_count;
		kit_done(&part);
	}
	assert_int_equal(seen, whole->frame_count);
}

/* Times of the key frames from the video's first, as ffprobe says. */
static size_t key_times(const char *path, double *times)
{
	char command[1024];
	double first = 1e9;
	double pts;
	char flags[16];
	size_t count = 0;
	snprintf(command, sizeof(command),
		 "ffprobe -v error -select_streams v:0 -show_entries packet=pts_time,flags -of csv=p=0 '%s'", path);
	FILE *pipe = popen(command, "r");
	assert_non_null(pipe);
	while (fscanf(pipe, "%lf,%15s", &pts, flags) == 2) {
		if (pts < first)
			first = pts;
		if (flags[0] == 'K' && count < FRAMES_MAX)
			times[count++] = pts;
	}
	assert_int_equal(pclose(pipe), 0);
	for (size_t i = 0; i < count; i++)
		times[i] -= first;
	return count;
}

static void check_nearest(const char *path, const struct kit_run *run, const char *what)
{
	double times[FRAMES_MAX];
	size_t count = key_times(path, times);
	assert_true(count > 0);
	for (size_t i = 0; i < run->frame_count; i++) {
		double best = 1e9;
		for (size_t n = 0; n < count; n++) {
			double off = times[n] > (double)i ? times[n] - (double)i : (double)i - times[n];
			best = off < best ? off : best;
		}
		double got = (double)run->frames[i].sample.error_us / 1e6;
		if (got > best + 0.0015 || got < best - 0.0015) /* Matroska rounds to a millisecond */
			fail_msg("%s: frame %zu is off by %.6f s, the nearest key frame by %.6f", what, i, got, best);
	}
}

static void check_clip(const struct clip *clip)
{
	const uint64_t tolerances[] = {20000, 100000, 300000, 500000, 2000000};
	char what[128];
	struct kit_run exact;
	struct kit_run all;
	const char *path = kit_clip(clip->name, clip->arguments);
	kit_sample(path, (struct kit_want){.side = 64}, &exact);
	/* Twice as often as there are frames, so that each of them is there. */
	kit_sample(path, (struct kit_want){.tracks = KX_TRACK_VISUAL, .fps = 2 * RATE, .side = 64, .decode_all = true}, &all);
	for (size_t i = 0; i < KX_ARRAY_LEN(tolerances); i++) {
		struct kit_run run;
		struct kit_want want = {.mode = KX_DECODE_TOLERANT, .tolerance_us = tolerances[i], .side = 64};
		snprintf(what, sizeof(what), "%s, tol=%g", clip->name, (double)tolerances[i] / 1e6);
		kit_sample(path, want, &run);
		check_frames(&run, &exact, &all, what);
		/* 25 frames a second, so that there always is one near enough; VFR has gaps of 0.2 s. */
		for (size_t f = 0; f < run.frame_count; f++)
			if (run.frames[f].sample.error_us > (tolerances[i] > 200000 ? tolerances[i] : 200000) ||
			    (tolerances[i] >= 100000 && strncmp(clip->name, "vfr", 3) != 0 &&
			     run.frames[f].sample.error_us > tolerances[i]))
				fail_msg("%s: frame %zu is off by %llu us", what, f,
					 (unsigned long long)run.frames[f].sample.error_us);
		check_splits(path, want, &run, what);
		if (clip->tolerates && tolerances[i] == 500000 && run.end.frames_decoded * 10 > exact.end.frames_decoded * 9)
			fail_msg("%s: decoded %llu frames, exact %llu", what,
				 (unsigned long long)run.end.frames_decoded,
				 (unsigned long long)exact.end.frames_decoded);
		printf("%-28s decoded %4llu frames (exact %llu, all %llu)\n", what,
		       (unsigned long long)run.end.frames_decoded, (unsigned long long)exact.end.frames_decoded,
		       (unsigned long long)all.end.frames_decoded);
		kit_done(&run);
	}
	struct kit_run keys;
	struct kit_want want = {.mode = KX_DECODE_KEYFRAME, .side = 64};
	snprintf(what, sizeof(what), "%s, keyframe", clip->name);
	kit_sample(path, want, &keys);
	check_frames(&keys, &exact, &all, what);
	check_nearest(path, &keys, what);
	check_splits(path, want, &keys, what);
	printf("%-28s decoded %4llu frames\n", what, (unsigned long long)keys.end.frames_decoded);
	/* Each at most once. */
	double times[FRAMES_MAX];
	assert_in_range(keys.end.frames_decoded, 1, key_times(path, times));
	kit_done(&keys);
	kit_done(&exact);
	kit_done(&all);
}

static void test_clips(void **state)
{
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(clips); i++)
		check_clip(&clips[i]);
}

/* In AVI the same packets have no times of presentation; those they get must be the ones that MP4 had for them. */
static void test_times_of_avi(void **state)
{
	(void)state;
	char arguments[1024];
	const char *mp4 = kit_clip("timed.mp4", PICTURE "-c:v mpeg4 -g 40 -bf 2");
	snprintf(arguments, sizeof(arguments), "-i %s -c copy", mp4);
	const char *avi = kit_clip("timed.avi", arguments);
	const struct kit_want wants[] = {
		{.fps = 1},
		{.fps = 1, .mode = KX_DECODE_TOLERANT, .tolerance_us = 400000},
		{.fps = 1, .mode = KX_DECODE_KEYFRAME},
	};
	for (size_t i = 0; i < KX_ARRAY_LEN(wants); i++) {
		struct kit_run timed;
		struct kit_run untimed;
		kit_sample(mp4, wants[i], &timed);
		kit_sample(avi, wants[i], &untimed);
		kit_assert_same(&timed, &untimed, "MPEG-4 in AVI");
		kit_done(&timed);
		kit_done(&untimed);
	}
}

/* H.264 in AVI has times of decoding alone: tolerances fall back on exact frames, key frames are found all the same. */
static void test_without_times(void **state)
{
	(void)state;
	struct kit_run exact;
	struct kit_run run;
	const char *path = kit_clip("order.avi", PICTURE X264 "-g 25 -bf 2");
	kit_sample(path, (struct kit_want){0}, &exact);
	kit_sample(path, (struct kit_want){.mode = KX_DECODE_TOLERANT, .tolerance_us = 400000}, &run);
	kit_assert_same(&exact, &run, "tol over AVI");
	kit_done(&run);
	kit_sample(path, (struct kit_want){.mode = KX_DECODE_KEYFRAME}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_int_equal(run.frame_count, exact.frame_count);
	assert_true(run.end.frames_decoded * 10 < exact.end.frames_decoded);
	for (size_t i = 0; i < run.frame_count; i++)
		assert_true(run.frames[i].sample.error_us <= 600000);
	kit_done(&run);
	kit_done(&exact);
	/* No times at all: decoding everything is what is left. */
	path = kit_clip("none.h264", PICTURE X264 "-g 25 -bf 2");
	kit_sample(path, (struct kit_want){0}, &exact);
	kit_sample(path, (struct kit_want){.mode = KX_DECODE_KEYFRAME}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_int_equal(run.frame_count, exact.frame_count);
	kit_done(&run);
	kit_done(&exact);
}

/* What is cut off is not covered, in any mode; what is there is. */
static void test_cut(void **state)
{
	(void)state;
	struct kit_run exact;
	struct kit_run run;
	const char *path = kit_clip("front.mp4", PICTURE X264 "-g 25 -bf 2 -movflags +faststart");
	path = kit_cut(path, "half.mp4", 0.5);
	kit_sample(path, (struct kit_want){0}, &exact);
	assert_true(exact.end.truncated);
	const struct kit_want wants[] = {{.mode = KX_DECODE_KEYFRAME},
					 {.mode = KX_DECODE_TOLERANT, .tolerance_us = 500000}};
	for (size_t i = 0; i < KX_ARRAY_LEN(wants); i++) {
		kit_sample(path, wants[i], &run);
		assert_int_equal(run.status, KX_OK);
		assert_true(run.end.truncated);
		assert_int_equal(run.frame_count, exact.frame_count);
		/* The last packet is only half there: whether its frame counts is the decoder's to say. */
		assert_in_range(run.end.visual_us, exact.end.visual_us - 200000, exact.end.visual_us + 200000);
		kit_done(&run);
	}
	kit_done(&exact);
}

/* Bytes that this process has read so far. */
static unsigned long long bytes_read(void)
{
	unsigned long long bytes = 0;
	FILE *file = fopen("/proc/self/io", "re");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "rchar: %llu", &bytes), 1);
	assert_int_equal(fclose(file), 0);
	return bytes;
}

/* Where nothing is wanted for long, the container's index leads on: the same frames, and most of the file is not read.
 * Beside sound everything is read, which is what it is compared with. */
static void test_index_jumps(void **state)
{
	(void)state;
	const struct kit_want wants[] = {
		{.fps = 0.1},
		{.fps = 0.07, .mode = KX_DECODE_TOLERANT, .tolerance_us = 1500000},
		{.fps = 1, .mode = KX_DECODE_KEYFRAME},
		{.fps = 0.1, .mode = KX_DECODE_KEYFRAME},
	};
	const char *names[] = {"large.mp4", "large.mkv"};
	for (size_t n = 0; n < KX_ARRAY_LEN(names); n++) {
		const char *path = kit_clip(names[n], "-f lavfi -i testsrc2=size=320x240:rate=25:duration=40 -f lavfi -i "
						      "sine=duration=40 -vf noise=alls=60:allf=t -c:v libx264 -preset ultrafast "
						      "-pix_fmt yuv420p -qp 18 -g 25 -bf 2 -c:a aac");
		struct kx_buf file = {0};
		assert_int_equal(kx_fs_read(path, 1 << 30, &file, NULL), KX_OK);
		for (size_t i = 0; i < KX_ARRAY_LEN(wants); i++) {
			struct kit_run beside;
			struct kit_run alone;
			struct kit_want want = wants[i];
			want.side = 64;
			kit_sample(path, want, &beside);
			want.tracks = KX_TRACK_VISUAL;
			unsigned long long before = bytes_read();
			kit_sample(path, want, &alone);
			unsigned long long took = bytes_read() - before;
			assert_int_equal(alone.status, KX_OK);
			assert_int_equal(alone.frame_count, beside.frame_count);
			assert_int_equal(alone.end.visual_us, beside.end.visual_us);
			struct kit_run same = {.frames = beside.frames, .frame_count = beside.frame_count};
			kit_assert_same(&alone, &same, names[n]);
			printf("%s: read %llu of %zu KiB\n", names[n], took / 1024, file.len / 1024);
			assert_true(took < file.len * 3 / 4);
			kit_done(&beside);
			kit_done(&alone);
		}
		kx_buf_done(&file);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clips),
		cmocka_unit_test(test_times_of_avi),
		cmocka_unit_test(test_without_times),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_index_jumps),
	};
	return cmocka_run_group_tests(tests, kit_enter, kit_leave);
}
