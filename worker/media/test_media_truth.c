/* Files as they are found, against the ffmpeg tool decoding everything: which frame stands for each grid point, when it
 * is presented, and its pixels. Prints PSNR and the error in time. For each, selective decoding must give what full
 * decoding gives, byte for byte; that also over every real clip there is (samples/). */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "worker/media/testkit.h"

#define SIDE 64
#define FRAME_BYTES ((size_t)SIDE * SIDE * 3)
#define FRAMES_MAX 4000u
#define PSNR_MIN 40.0
#define TIME_ERROR_MAX_US 1001 /* Matroska and FLV round to a millisecond */
#define SAMPLES KX_SOURCE_DIR "/samples"
#define SPAN_US 20000000u /* of large clips, as much as a test has time for */
#define LARGE_BYTES 4000000

#define PICTURE "-f lavfi -i testsrc2=size=160x120:rate=25:duration=4 "
#define FILM "-f lavfi -i mandelbrot=size=160x120:rate=25:end_scale=0.05 -t 4 "
#define X264 "-c:v libx264 -preset veryfast -pix_fmt yuv420p "

/* What ffmpeg makes of a file: every frame's time and pixels. */
struct truth {
	size_t count;
	double times[FRAMES_MAX];
	struct kx_buf pixels;
};

static void truth_times(struct truth *truth, const char *path)
{
	char command[1024];
	char line[256];
	double last = -1e9;
	snprintf(command, sizeof(command),
		 "ffprobe -v quiet -select_streams v:0 -show_entries frame=best_effort_timestamp_time -of csv=p=0 '%s'", path);
	FILE *pipe = popen(command, "r");
	assert_non_null(pipe);
	truth->count = 0;
	while (fgets(line, sizeof(line), pipe)) {
		char *end;
		double at = strtod(line, &end);
		if (strncmp(line, "N/A", 3) == 0) /* of streams without times, and of AVI's last frame: 25 a second */
			at = truth->count > 0 ? last + 1.0 / 25 : 0;
		else if (end == line) /* what hangs on a frame has lines of its own */
			continue;
		assert_in_range(truth->count, 0, FRAMES_MAX - 1);
		truth->times[truth->count++] = at;
		if (at < last)
			fail_msg("%s: ffprobe's frames are not in order", path);
		last = at;
	}
	assert_int_equal(pclose(pipe), 0);
	assert_true(truth->count > 0);
	for (size_t i = truth->count; i-- > 0;)
		truth->times[i] -= truth->times[0];
}

static void truth_of(struct truth *truth, const char *path)
{
	const char *raw = kit_path("truth.rgb");
	truth->pixels = (struct kx_buf){0};
	truth_times(truth, path);
	kit_shell("ffmpeg -nostdin -v quiet -y -i '%s' -map 0:v:0 -vf scale=%d:%d:flags=area+accurate_rnd+full_chroma_int+"
		  "full_chroma_inp:in_color_matrix=bt601 -vsync passthrough -pix_fmt rgb24 -f rawvideo '%s'", path, SIDE, SIDE, raw);
	assert_int_equal(kx_fs_read(raw, 1 << 30, &truth->pixels, NULL), KX_OK);
	if (truth->pixels.len / FRAME_BYTES != truth->count)
		fail_msg("%s: ffprobe has %zu frames, ffmpeg %zu", path, truth->count, truth->pixels.len / FRAME_BYTES);
}

static double psnr(const uint8_t *a, const uint8_t *b)
{
	double sum = 0;
	for (size_t i = 0; i < FRAME_BYTES; i++) {
		double d = (double)a[i] - b[i];
		sum += d * d;
	}
	return sum > 0 ? 10 * log10(255.0 * 255.0 * (double)FRAME_BYTES / sum) : 99;
}

struct expected {
	const char *name;
	const char *arguments;
	double fps;
	double psnr_min; /* 0: PSNR_MIN */
};

static void check_truth(const char *path, const struct expected *expected)
{
	struct kit_run run;
	struct kit_run all;
	static struct truth truth;
	double worst = 99;
	double worst_time = 0;
	double least = expected->psnr_min > 0 ? expected->psnr_min : PSNR_MIN;
	struct kit_want want = {.tracks = KX_TRACK_VISUAL, .fps = expected->fps, .side = SIDE, .keep_bytes = true};
	truth_of(&truth, path);
	kit_sample(path, want, &run);
	if (run.status)
		fail_msg("%s: %s", expected->name, run.error.message);
	want.decode_all = true;
	kit_sample(path, want, &all);
	kit_assert_same(&run, &all, expected->name);
	for (size_t k = 0, i = 0; k < run.frame_count; k++) {
		double at = (double)k / expected->fps;
		while (i + 1 < truth.count && truth.times[i + 1] <= at + 1e-6)
			i++;
		double off = fabs((double)run.frames[k].sample.pts_us / 1e6 - truth.times[i]);
		double got = psnr(run.frames[k].bytes, truth.pixels.data + i * FRAME_BYTES);
		if (got < least)
			fail_msg("%s: frame %zu (of %.3f s) is not ffmpeg's number %zu: %.1f dB", expected->name, k,
				 (double)run.frames[k].sample.pts_us / 1e6, i, got);
		worst = fmin(worst, got);
		worst_time = fmax(worst_time, off);
	}
	size_t count = (size_t)floor(truth.times[truth.count - 1] * expected->fps + 1e-6) + 1;
	printf("%-22s %3zu frames: PSNR at least %.1f dB (wanted %.1f), time off by at most %.0f us\n", expected->name,
	       run.frame_count, worst, least, worst_time * 1e6);
	assert_true(worst_time * 1e6 <= TIME_ERROR_MAX_US);
	assert_int_equal(run.frame_count, count);
	kit_done(&run);
	kit_done(&all);
	kx_buf_done(&truth.pixels);
}

static const struct expected made[] = {
	{"vfr.mp4", FILM "-vf \"select='not(mod(n,7))+not(mod(n,5))'\" -vsync vfr " X264 "-g 20 -bf 2", 3, 0},
	{"start.ts", FILM X264 "-g 25 -bf 2 -output_ts_offset 7", 3, 0},
	{"start.webm", FILM "-c:v libvpx-vp9 -pix_fmt yuv420p -deadline realtime -cpu-used 8 -g 25 -output_ts_offset 3.21", 3, 0},
	{"start.mkv", FILM X264 "-g 25 -bf 2 -output_ts_offset 3.217", 3, 0},
	{"drain.mp4", FILM "-frames:v 97 " X264 "-g 1000 -bf 8 -b_strategy 0", 25, 0},
	{"opengop.mp4", FILM X264 "-bf 3 -x264-params open-gop=1:keyint=25:min-keyint=25", 3, 0},
	{"opengop.mpg2.ts", FILM "-c:v mpeg2video -q:v 3 -g 12 -bf 2", 3, 0},
	{"order.avi", FILM "-c:v mpeg4 -q:v 3 -g 25 -bf 2", 3, 0},
	{"packed.avi", FILM "-c:v libxvid -q:v 3 -g 25 -bf 2", 3, 0},
	{"none.h264", FILM X264 "-g 25 -bf 2", 3, 0},
	{"aspect.mp4", FILM "-vf setsar=2/1 " X264, 2, 0},
	{"odd.mkv", "-f lavfi -i testsrc2=size=161x121:rate=10:duration=3 -c:v ffv1 -pix_fmt yuv444p", 2, 0},
	{"1x1.mkv", "-f lavfi -i color=orange:size=16x16:rate=5:duration=2 -vf scale=1:1 -c:v ffv1 -pix_fmt yuv444p", 2, 0},
	{"one.mp4", FILM "-frames:v 1 " X264, 2, 0},
	{"slow.mp4", "-f lavfi -i testsrc2=size=160x120:rate=1/3:duration=12 " X264 "-bf 2", 1, 0},
	{"fast.mp4", "-f lavfi -i mandelbrot=size=160x120:rate=240:end_scale=0.5 -t 1 " X264 "-bf 2", 7, 0},
};

static void test_made(void **state)
{
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(made); i++)
		check_truth(kit_clip(made[i].name, made[i].arguments), &made[i]);
}

/* -ss with -c copy: pictures before the start are in the file, and an edit list hides them. */
static void test_edits(void **state)
{
	(void)state;
	char arguments[1024];
	const struct expected expected = {"edited.mp4", arguments, 3, 0};
	const char *path = kit_clip("uncut.mp4", FILM X264 "-g 50 -bf 2");
	snprintf(arguments, sizeof(arguments), "-ss 1.3 -i %s -c copy", path);
	check_truth(kit_clip(expected.name, arguments), &expected);
}

/* Another size, and another pixel format, in the middle of the stream: frames are those of the pieces. (ffmpeg's own
 * output of the joined stream is no reference: it scales what changes to the first size before anything else.) */
static void test_changes(void **state)
{
	(void)state;
	static struct truth truth;
	struct kit_run run;
	const char *zoom = "-f lavfi -i mandelbrot=size=%s:rate=25:end_scale=0.5 -t 2 -c:v libx264 -preset veryfast -pix_fmt %s";
	const char *sizes[] = {"160x120", "320x180", "320x180"};
	const char *formats[] = {"yuv420p", "yuv420p", "yuv444p"};
	kit_shell("rm -f '%s'", kit_path("changes.h264"));
	for (size_t i = 0; i < KX_ARRAY_LEN(sizes); i++) {
		char arguments[256];
		snprintf(arguments, sizeof(arguments), zoom, sizes[i], formats[i]);
		kit_shell("cat '%s' >> '%s'", kit_clip("piece.h264", arguments), kit_path("changes.h264"));
	}
	kit_sample(kit_path("changes.h264"), (struct kit_want){.side = SIDE, .keep_bytes = true}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_int_equal(run.frame_count, 6);
	for (size_t i = 0; i < KX_ARRAY_LEN(sizes); i++) {
		char arguments[256];
		snprintf(arguments, sizeof(arguments), zoom, sizes[i], formats[i]);
		truth_of(&truth, kit_clip("piece.h264", arguments));
		for (size_t k = 0; k < 2; k++) {
			double got = psnr(run.frames[2 * i + k].bytes, truth.pixels.data + k * 25 * FRAME_BYTES);
			printf("changed to %s %s, frame %zu: PSNR %.1f dB\n", sizes[i], formats[i], k, got);
			assert_true(got >= PSNR_MIN);
		}
		kx_buf_done(&truth.pixels);
	}
	kit_done(&run);
}

/* The eight ways a picture can lie in a file: the matrix of an MP4's track header. */
static void test_orientation(void **state)
{
	static const struct {
		const char *name;
		int a, b, c, d;
		uint32_t width;
	} ways[] = {
		{"upright", 1, 0, 0, 1, 160},         {"turned by 90", 0, 1, -1, 0, 120},
		{"turned by 180", -1, 0, 0, -1, 160}, {"turned by 270", 0, -1, 1, 0, 120},
		{"mirrored", -1, 0, 0, 1, 160},       {"upside down", 1, 0, 0, -1, 160},
		{"transposed", 0, 1, 1, 0, 120},      {"transversed", 0, -1, -1, 0, 120},
	};
	struct kx_buf file = {0};
	const char *path = kit_clip("lies.mp4", FILM X264 "-bf 2");
	(void)state;
	assert_int_equal(kx_fs_read(path, 1 << 28, &file, NULL), KX_OK);
	uint8_t *header = memmem(file.data, file.len, "tkhd", 4);
	assert_non_null(header);
	for (size_t i = 0; i < KX_ARRAY_LEN(ways); i++) {
		const int values[4] = {ways[i].a, ways[i].b, ways[i].c, ways[i].d};
		const size_t at[4] = {0, 4, 12, 16};
		struct kx_probe_info info;
		enum kx_reason reason;
		for (size_t v = 0; v < 4; v++) {
			uint32_t fixed = (uint32_t)(values[v] * 65536);
			for (size_t b = 0; b < 4; b++)
				header[44 + at[v] + b] = (uint8_t)(fixed >> (24 - 8 * b));
		}
		kit_write(kit_path("lies.mp4"), file.data, file.len);
		/* ffmpeg turns subsampled chroma before it scales: not quite the same. */
		check_truth(kit_path("lies.mp4"), &(struct expected){ways[i].name, "", 2, 30});
		assert_int_equal(kit_probe(kit_path("lies.mp4"), &info, &reason), KX_OK);
		assert_int_equal(info.width, ways[i].width);
		kx_probe_info_done(&info);
	}
	kx_buf_done(&file);
}

/* The one marked as default, whatever its place; then the one with more data. */
static void test_several_streams(void **state)
{
	(void)state;
	struct kit_run run;
	const char *two = "-f lavfi -i testsrc2=size=320x240:rate=25:duration=3 -f lavfi -i testsrc2=size=64x48:rate=25:duration=3 "
			  "-f lavfi -i sine=duration=3:sample_rate=48000 -f lavfi -i sine=duration=3:sample_rate=22050 "
			  "-map 0 -map 1 -map 2 -map 3 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a pcm_s16le ";
	const struct {
		const char *marks;
		uint32_t width, rate;
	} cases[] = {
		{"-disposition:v:0 0 -disposition:v:1 default -disposition:a:0 0 -disposition:a:1 default", 64, 22050},
		{"-disposition:v:0 default -disposition:v:1 0 -disposition:a:0 default -disposition:a:1 0", 320, 48000},
	};
	for (size_t i = 0; i < KX_ARRAY_LEN(cases); i++) {
		char arguments[1024];
		snprintf(arguments, sizeof(arguments), "%s%s", two, cases[i].marks);
		kit_sample(kit_clip("several.mkv", arguments), (struct kit_want){0}, &run);
		assert_int_equal(run.status, KX_OK);
		assert_int_equal(run.info.width, cases[i].width);
		assert_int_equal(run.info.sample_rate, cases[i].rate);
		assert_int_equal(run.frame_count, 3);
		kit_done(&run);
	}
}

/* Matroska's duration is a number in its header: too small or too large, the frames are those that are there. */
static void test_duration_lies(void **state)
{
	(void)state;
	struct kx_buf file = {0};
	const double lies[] = {1000, 40000};
	const char *path = kit_clip("honest.mkv", FILM X264 "-g 25 -bf 2");
	assert_int_equal(kx_fs_read(path, 1 << 28, &file, NULL), KX_OK);
	uint8_t *element = memmem(file.data, file.len, "\x44\x89\x88", 3);
	assert_non_null(element);
	for (size_t i = 0; i < KX_ARRAY_LEN(lies); i++) {
		struct kit_run run;
		uint64_t bits;
		memcpy(&bits, &lies[i], sizeof(bits));
		for (size_t b = 0; b < 8; b++)
			element[3 + b] = (uint8_t)(bits >> (56 - 8 * b));
		kit_write(kit_path("lying.mkv"), file.data, file.len);
		check_truth(kit_path("lying.mkv"), &(struct expected){i ? "ten times too long" : "too short", "", 3, 0});
		kit_sample(kit_path("lying.mkv"), (struct kit_want){0}, &run);
		assert_in_range(run.end.visual_us, 3990000, 4010000);
		assert_int_equal(run.end.truncated, i == 1); /* it may as well have been cut */
		kit_done(&run);
	}
	kx_buf_done(&file);
}

/* Cut anywhere: the frames up to the last whole one, and coverage says how far that is. */
static void test_cut_tails(void **state)
{
	(void)state;
	static const char *const names[] = {"tail.mkv", "tail.ts", "tail.mp4", "tail.flv", "tail.avi"};
	const double parts[] = {0.93, 0.61, 0.37};
	for (size_t i = 0; i < KX_ARRAY_LEN(names); i++) {
		kit_clip(names[i], FILM X264 "-g 25 -bf 2 -movflags +faststart");
		for (size_t p = 0; p < KX_ARRAY_LEN(parts); p++) {
			struct kit_run run;
			struct kit_run all;
			struct kit_want want = {.tracks = KX_TRACK_VISUAL, .fps = 5, .side = SIDE};
			const char *path = kit_cut(kit_path(names[i]), "cut", parts[p]);
			kit_sample(path, want, &run);
			want.decode_all = true;
			kit_sample(path, want, &all);
			if (run.status || all.status)
				fail_msg("%s: %s", path, run.error.message);
			kit_assert_same(&run, &all, path);
			assert_int_equal(run.end.truncated, all.end.truncated);
			assert_int_equal(run.end.visual_us, all.end.visual_us);
			printf("%-10s cut to %2.0f %%: %zu frames, %.2f s%s\n", names[i], parts[p] * 100,
			       run.frame_count, (double)run.end.visual_us / 1e6, run.end.truncated ? ", truncated" : "");
			uint64_t last = run.frames[run.frame_count - 1].sample.pts_us;
			assert_in_range(run.end.visual_us, last, last + 400000);
			kit_done(&run);
			kit_done(&all);
		}
	}
}

static void compare_sample(const char *path, const char *name, double fps, bool large)
{
	char what[300];
	struct kit_run run;
	struct kit_run all;
	struct kit_want want = {.tracks = KX_TRACK_VISUAL, .fps = fps, .side = SIDE, .end_us = large ? SPAN_US : 0};
	snprintf(what, sizeof(what), "%s at %g a second", name, fps);
	kit_sample(path, want, &run);
	want.decode_all = true;
	kit_sample(path, want, &all);
	if (run.status || all.status)
		fail_msg("%s: %s", what, run.error.message);
	kit_assert_same(&run, &all, what);
	assert_int_equal(run.end.visual_us, all.end.visual_us);
	printf("%-70s %4zu frames, decoded %5llu of %5llu\n", what, run.frame_count,
	       (unsigned long long)run.end.frames_decoded, (unsigned long long)all.end.frames_decoded);
	kit_done(&run);
	kit_done(&all);
}

/* The invariant over every clip in samples/, where scripts/samples put any. */
static void test_samples(void **state)
{
	(void)state;
	size_t seen = 0;
	DIR *folder = opendir(SAMPLES);
	if (!folder)
		skip();
	for (struct dirent *entry; (entry = readdir(folder));) {
		char path[1024];
		struct stat st;
		snprintf(path, sizeof(path), "%s/%s", SAMPLES, entry->d_name);
		if (entry->d_name[0] == '.' || stat(path, &st) != 0 || !S_ISREG(st.st_mode))
			continue;
		compare_sample(path, entry->d_name, 1, st.st_size > LARGE_BYTES);
		compare_sample(path, entry->d_name, 2.7, st.st_size > LARGE_BYTES);
		seen++;
	}
	closedir(folder);
	if (!seen)
		skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_made),
		cmocka_unit_test(test_edits),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_orientation),
		cmocka_unit_test(test_several_streams),
		cmocka_unit_test(test_duration_lies),
		cmocka_unit_test(test_cut_tails),
		cmocka_unit_test(test_samples),
	};
	return cmocka_run_group_tests(tests, kit_enter, kit_leave);
}
