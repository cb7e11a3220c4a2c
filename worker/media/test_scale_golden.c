/* Decoded pictures against the ffmpeg tool's: pixel formats by its scaler in accurate mode, interlaced ones by its
 * deinterlacer and by the pictures that they were made from, HDR by zimg's transfer functions and matrices and
 * BT.2390 in doubles. Prints what it measured. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "worker/media/test_tone.h"
#include "worker/media/testkit.h"

#define SIDE 224
#define PIXELS ((size_t)SIDE * SIDE)
#define FRAME_BYTES (PIXELS * 3)
#define PSNR_MIN 45.0
#define AREA "scale=224:224:flags=area+accurate_rnd+full_chroma_int+full_chroma_inp"

static double psnr(const uint8_t *a, const uint8_t *b, size_t len)
{
	double sum = 0;
	for (size_t i = 0; i < len; i++) {
		double d = (double)a[i] - b[i];
		sum += d * d;
	}
	return sum > 0 ? 10 * log10(255.0 * 255.0 * (double)len / sum) : 99;
}

/* What ffmpeg makes of every picture of a clip, as raw video. */
static void reference(const char *path, const char *filter, const char *format, struct kx_buf *ret)
{
	const char *raw = kit_path("reference.raw");
	kit_shell("ffmpeg -nostdin -v error -y -i '%s' -map 0:v:0 -an -vf \"%s\" -vsync passthrough -pix_fmt %s "
		  "-f rawvideo '%s'", path, filter, format, raw);
	assert_int_equal(kx_fs_read(raw, 1 << 30, ret, NULL), KX_OK);
}

static void ours(const char *path, double fps, struct kit_run *ret)
{
	kit_sample(path, (struct kit_want){.fps = fps, .tracks = KX_TRACK_VISUAL, .keep_bytes = true}, ret);
	if (ret->status)
		fail_msg("%s: %s", path, ret->error.message);
	assert_true(ret->frame_count > 0);
}

/* The lowest PSNR of our frames against every `apart`th of the reference's. */
static double lowest(const struct kit_run *run, const struct kx_buf *frames, size_t apart)
{
	double worst = 99;
	for (size_t i = 0; i < run->frame_count; i++) {
		assert_true((i * apart + 1) * FRAME_BYTES <= frames->len);
		worst = fmin(worst, psnr(run->frames[i].bytes, frames->data + i * apart * FRAME_BYTES, FRAME_BYTES));
	}
	return worst;
}

struct format {
	const char *name;
	const char *arguments;
	const char *scale; /* options of the reference's scaler */
};

#define TESTSRC(size) "-f lavfi -i testsrc2=size=" size ":rate=2:duration=1 "
#define ALPHA TESTSRC("320x240") "-vf \"format=rgba,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='X'\" "

static const struct format formats[] = {
	{"yuv422p.mkv", TESTSRC("320x240") "-c:v ffv1 -pix_fmt yuv422p", "in_color_matrix=bt601"},
	{"yuv411p.mkv", TESTSRC("320x240") "-c:v ffv1 -pix_fmt yuv411p", "in_color_matrix=bt601"},
	{"yuv410p.mkv", TESTSRC("320x240") "-c:v ffv1 -pix_fmt yuv410p", "in_color_matrix=bt601"},
	{"yuv422p10.mov", TESTSRC("1280x720") "-c:v prores_ks -pix_fmt yuv422p10le", "in_color_matrix=bt709"},
	{"yuv444p12.mkv", TESTSRC("320x240") "-c:v ffv1 -pix_fmt yuv444p12le", "in_color_matrix=bt601"},
	{"hevc12.mkv", TESTSRC("320x240") "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv422p12le",
	 "in_color_matrix=bt601"},
	{"full10.mkv", TESTSRC("320x240") "-vf scale=out_range=full -c:v ffv1 -pix_fmt yuv420p10le -color_range pc",
	 "in_color_matrix=bt601:in_range=full"},
	{"bt2020.mkv", TESTSRC("320x240") "-c:v libx264 -preset ultrafast -pix_fmt yuv420p10le -colorspace bt2020nc "
	 "-color_primaries bt2020 -color_trc bt2020-10", "in_color_matrix=bt2020"},
	{"fcc.mkv", TESTSRC("320x240") "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -colorspace fcc",
	 "in_color_matrix=fcc"},
	{"gray.mkv", TESTSRC("320x240") "-c:v ffv1 -pix_fmt gray", "in_range=full"},
	{"gray16.mkv", TESTSRC("320x240") "-c:v ffv1 -pix_fmt gray16le", "in_range=full"},
	{"yuva420p.mkv", ALPHA "-c:v ffv1 -pix_fmt yuva420p", "in_color_matrix=bt601"},
	{"yuva444p10.mov", ALPHA "-c:v prores_ks -pix_fmt yuva444p10le", "in_color_matrix=bt601"},
	{"rgb24.mov", TESTSRC("322x242") "-c:v png -pix_fmt rgb24", "in_range=full"},
	{"rgb48.mov", TESTSRC("322x242") "-c:v png -pix_fmt rgb48be", "in_range=full"},
	{"pal8.mov", TESTSRC("322x242") "-c:v png -pix_fmt pal8", "in_range=full"},
	{"gbrp.mkv", TESTSRC("320x240") "-c:v libx264rgb -preset ultrafast -pix_fmt rgb24", "in_range=full"},
	{"bgr0.mkv", TESTSRC("320x240") "-c:v ffv1 -pix_fmt bgr0", "in_range=full"},
	/* Rows from the bottom up. */
	{"bgr24.avi", TESTSRC("322x242") "-c:v rawvideo -pix_fmt bgr24", "in_range=full"},
	{"yuyv422.avi", TESTSRC("320x240") "-c:v rawvideo -pix_fmt yuyv422", "in_color_matrix=bt601"},
	{"nv12.avi", TESTSRC("320x240") "-c:v rawvideo -pix_fmt nv12", "in_color_matrix=bt601"},
	/* testsrc2 makes even sides only. */
	{"odd.mkv", "-f lavfi -i mandelbrot=size=321x405:rate=2 -t 1 -c:v ffv1 -pix_fmt yuv420p", "in_color_matrix=bt601"},
	{"odd410.mkv", "-f lavfi -i mandelbrot=size=287x223:rate=2 -t 1 -c:v ffv1 -pix_fmt yuv410p",
	 "in_color_matrix=bt601"},
	{"1x1.mkv", TESTSRC("16x16") "-vf scale=1:1 -c:v ffv1 -pix_fmt yuv420p", "in_color_matrix=bt601"},
};

static void test_formats(void **state)
{
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(formats); i++) {
		char filter[256];
		struct kx_buf frames = {0};
		struct kit_run run;
		const char *path = kit_clip(formats[i].name, formats[i].arguments);
		snprintf(filter, sizeof(filter), AREA ":%s", formats[i].scale);
		reference(path, filter, "rgb24", &frames);
		ours(path, 2, &run);
		assert_int_equal(run.frame_count, frames.len / FRAME_BYTES);
		double worst = lowest(&run, &frames, 1);
		printf("%-16s PSNR %.1f dB (wanted %.1f)\n", formats[i].name, worst, PSNR_MIN);
		assert_true(worst >= PSNR_MIN);
		kit_done(&run);
		kx_buf_done(&frames);
	}
}

/* --- interlaced ---------------------------------------------------------------------------------------------- */

struct interlaced {
	const char *name;
	const char *source;
	const char *weave; /* options of the filter that makes one picture of two */
	const char *encoder;
};

#define SOURCE(size) "-f lavfi -i testsrc2=size=" size ":rate=50 -t 0.4 "
#define ZOOM "-f lavfi -i mandelbrot=size=1280x720:rate=50:end_scale=0.002:end_pts=60 -t 0.3 "
#define MPEG2 "-c:v mpeg2video -q:v 2 -flags +ildct+ilme "
#define H264 "-c:v libx264 -preset ultrafast -crf 12 -pix_fmt yuv420p "

static const struct interlaced interlaced[] = {
	{"tff.ts", SOURCE("720x576"), "scan=tff", MPEG2 "-top 1 -pix_fmt yuv420p"},
	{"bff.ts", SOURCE("720x576"), "scan=bff", MPEG2 "-top 0 -pix_fmt yuv420p"},
	{"tff422.ts", SOURCE("720x576"), "scan=tff", MPEG2 "-top 1 -pix_fmt yuv422p"},
	{"bff.mkv", SOURCE("720x576"), "scan=bff", H264 "-x264-params bff=1"},
	{"hd.ts", ZOOM, "scan=tff", H264 "-x264-params tff=1"},
	/* Fewer lines in a field than in the output. */
	{"small.ts", SOURCE("352x288"), "scan=tff", MPEG2 "-top 1 -pix_fmt yuv420p"},
};

static void check_interlaced(const struct interlaced *clip)
{
	char arguments[1024];
	char filter[512];
	struct kx_buf first = {0};
	struct kx_buf yadif = {0};
	struct kx_buf woven = {0};
	struct kit_run run;
	bool hd = strstr(clip->source, "720:") != NULL;
	const char *matrix = hd ? "bt709" : "bt601";
	/* What was interlaced: of its pictures, every second gave the first field. */
	snprintf(arguments, sizeof(arguments), "%s -c:v ffv1 -pix_fmt %s", clip->source,
		 strstr(clip->encoder, "422p") ? "yuv422p" : "yuv420p");
	const char *source = kit_clip("source.mkv", arguments);
	snprintf(arguments, sizeof(arguments), "-i '%s' -vf interlace=%s:lowpass=off %s", source, clip->weave,
		 clip->encoder);
	const char *path = kit_clip(clip->name, arguments);
	snprintf(filter, sizeof(filter), "select='not(mod(n,2))'," AREA ":in_color_matrix=%s", matrix);
	reference(source, filter, "rgb24", &first);
	snprintf(filter, sizeof(filter), "yadif=deint=interlaced," AREA ":in_color_matrix=%s", matrix);
	reference(path, filter, "rgb24", &yadif);
	snprintf(filter, sizeof(filter), AREA ":in_color_matrix=%s", matrix);
	reference(path, filter, "rgb24", &woven);
	ours(path, 25, &run);
	struct kit_run shown = run;
	shown.frame_count -= 1; /* yadif knows nothing after the last picture */
	double to_source = lowest(&shown, &first, 1);
	double to_yadif = lowest(&shown, &yadif, 1);
	double yadif_to_source = 99;
	double woven_to_source = 99;
	for (size_t i = 0; i < shown.frame_count; i++) {
		size_t at = i * FRAME_BYTES;
		yadif_to_source = fmin(yadif_to_source, psnr(yadif.data + at, first.data + at, FRAME_BYTES));
		woven_to_source = fmin(woven_to_source, psnr(woven.data + at, first.data + at, FRAME_BYTES));
	}
	printf("%-10s %zu frames: PSNR against what was interlaced %.1f dB (yadif %.1f, no deinterlacing %.1f); "
	       "against yadif %.1f\n", clip->name, shown.frame_count, to_source, yadif_to_source, woven_to_source, to_yadif);
	/* One field knows less than three frames; the wrong one, or both, are far off where things move. */
	assert_true(to_source >= woven_to_source + 1.5);
	assert_true(to_source >= yadif_to_source - 5);
	assert_true(to_yadif >= 29);
	kit_done(&run);
	kx_buf_done(&first);
	kx_buf_done(&yadif);
	kx_buf_done(&woven);
}

static void test_interlaced(void **state)
{
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(interlaced); i++)
		check_interlaced(&interlaced[i]);
}

/* --- HDR ----------------------------------------------------------------------------------------------------- */

/* From zimg's light (planes G, B, R in floats, 1.0 is 203 nits) to levels. What it makes of HLG is the power of 1.2
 * of each of R, G and B for themselves, where BT.2100 takes it of their luminance: undone, and done as written. */
static void from_light(const float *planes, bool hlg, uint8_t *rgb)
{
	static const size_t order[3] = {2, 0, 1};
	for (size_t i = 0; i < PIXELS; i++) {
		double light[3];
		double scene[3];
		double out[3];
		for (unsigned c = 0; c < 3; c++) {
			light[c] = fmax(0, 203.0 * (double)planes[order[c] * PIXELS + i]);
			scene[c] = pow(light[c] / 1000, 1 / 1.2);
		}
		if (hlg)
			hlg_display(scene, light);
		reference_tone(light, out);
		for (unsigned c = 0; c < 3; c++)
			rgb[i * 3 + c] = (uint8_t)(out[c] + 0.5);
	}
}

static void check_hdr(const char *name, const char *transfer, const char *encoder)
{
	char arguments[1024];
	char filter[512];
	struct kx_buf light = {0};
	struct kit_run run;
	double worst = 99;
	uint8_t *want = malloc(FRAME_BYTES);
	assert_non_null(want);
	snprintf(arguments, sizeof(arguments), "-f lavfi -i mandelbrot=size=640x360:rate=2:end_scale=0.05 -t 1 -vf "
		 "scale=out_color_matrix=bt2020,format=yuv420p10le %s -colorspace bt2020nc -color_primaries bt2020 "
		 "-color_trc %s", encoder, transfer);
	const char *path = kit_clip(name, arguments);
	snprintf(filter, sizeof(filter), AREA ":in_color_matrix=bt2020,format=gbrp16le,zscale=tin=%s:pin=bt2020:min=gbr:"
		 "rin=full:t=linear:p=bt2020:m=gbr:npl=203", transfer);
	reference(path, filter, "gbrpf32le", &light);
	ours(path, 1, &run);
	for (size_t i = 0; i < run.frame_count; i++) {
		assert_true((2 * i + 1) * PIXELS * 12 <= light.len);
		from_light((const float *)(const void *)(light.data + 2 * i * PIXELS * 12), !strcmp(transfer, "arib-std-b67"), want);
		worst = fmin(worst, psnr(run.frames[i].bytes, want, FRAME_BYTES));
	}
	printf("%-10s PSNR %.1f dB (wanted %.1f)\n", name, worst, PSNR_MIN);
	assert_true(worst >= PSNR_MIN);
	free(want);
	kit_done(&run);
	kx_buf_done(&light);
}

static void test_hdr(void **state)
{
	(void)state;
	check_hdr("pq.mkv", "smpte2084", "-c:v libx264 -preset ultrafast");
	check_hdr("hlg.mkv", "arib-std-b67", "-c:v libx264 -preset ultrafast");
	check_hdr("pq.mp4", "smpte2084", "-c:v libx265 -preset ultrafast -x265-params log-level=none");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_interlaced),
		cmocka_unit_test(test_hdr),
	};
	return cmocka_run_group_tests(tests, kit_enter, kit_leave);
}
