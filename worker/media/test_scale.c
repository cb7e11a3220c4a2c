/* The scaler against one written in doubles that knows formats through libav alone, over random sizes, strides and
 * orientations; every SIMD path against the C one, byte for byte; and libswscale over every pixel format there is.
 * Planes end where the picture does, so that the sanitizers see a read past it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <libavutil/imgutils.h>
#include <libavutil/log.h>
#include <libavutil/pixdesc.h>
#include <libswscale/swscale.h>

#include "worker/media/scale.h"
#include "worker/media/scale_format.h"
#include "worker/media/test_tone.h"
#include "worker/media/tone.h"

#define SIDE_MAX 300
#define PSNR_MIN 48.0

static uint64_t random_state = 1;

static uint32_t next_random(void)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(random_state >> 33);
}

static unsigned pick(unsigned low, unsigned high)
{
	return low + next_random() % (high - low + 1);
}

/* A frame over memory of its own: exactly what the picture needs, rows maybe further apart, maybe bottom up. */
struct picture {
	AVFrame *frame;
	uint8_t *memory[4];
	int bytes[4]; /* of a row */
	int lines[4];
};

static void picture_done(struct picture *picture)
{
	for (unsigned p = 0; p < 4; p++)
		free(picture->memory[p]);
	av_frame_free(&picture->frame);
}

static void picture_init(struct picture *picture, enum AVPixelFormat format, int width, int height)
{
	const AVPixFmtDescriptor *desc = av_pix_fmt_desc_get(format);
	*picture = (struct picture){.frame = av_frame_alloc()};
	assert_non_null(picture->frame);
	picture->frame->format = format;
	picture->frame->width = width;
	picture->frame->height = height;
	for (int p = 0; p < av_pix_fmt_count_planes(format); p++) {
		bool chroma = (p == 1 || p == 2) && !(desc->flags & AV_PIX_FMT_FLAG_RGB);
		int bytes = av_image_get_linesize(format, width, p);
		int lines = chroma ? AV_CEIL_RSHIFT(height, desc->log2_chroma_h) : height;
		int stride = bytes + (pick(0, 1) ? (int)pick(0, 40) * 2 : 0);
		assert_true(bytes > 0);
		picture->bytes[p] = bytes;
		picture->lines[p] = lines;
		size_t size = (size_t)stride * (size_t)(lines - 1) + (size_t)bytes;
		picture->memory[p] = malloc(size);
		assert_non_null(picture->memory[p]);
		bool bottom_up = pick(0, 4) == 0;
		picture->frame->data[p] = picture->memory[p] + (bottom_up ? (size_t)stride * (size_t)(lines - 1) : 0);
		picture->frame->linesize[p] = bottom_up ? -stride : stride;
	}
}

/* Noise, or something smooth, up to the most that a component can hold. */
static void picture_fill(const struct picture *picture)
{
	AVFrame *frame = picture->frame;
	const AVPixFmtDescriptor *desc = av_pix_fmt_desc_get(frame->format);
	bool noise = pick(0, 1);
	uint16_t row[SIDE_MAX];
	for (int p = 0; p < 4; p++) {
		for (int y = 0; y < picture->lines[p]; y++)
			memset(frame->data[p] + (ptrdiff_t)y * frame->linesize[p], 0, (size_t)picture->bytes[p]);
	}
	for (int c = 0; c < desc->nb_components; c++) {
		bool chroma = (c == 1 || c == 2) && !(desc->flags & AV_PIX_FMT_FLAG_RGB);
		int width = chroma ? AV_CEIL_RSHIFT(frame->width, desc->log2_chroma_w) : frame->width;
		unsigned max = (1u << desc->comp[c].depth) - 1;
		unsigned slope = pick(1, max / 40 + 1);
		for (int y = 0; y < picture->lines[desc->comp[c].plane]; y++) {
			for (int x = 0; x < width; x++)
				row[x] = (uint16_t)((noise ? next_random() : (unsigned)(x + 2 * y) * slope) & max);
			av_write_image_line(row, frame->data, frame->linesize, desc, 0, y, c, width);
		}
	}
}

/* --- the reference ------------------------------------------------------------------------------------------- */

struct reference {
	const AVFrame *frame;
	int width; /* of the output, not turned */
	int height;
	double *samples; /* [lines][width] of the component at hand */
};

/* Weight of sample i of n, `step` pixels long each and the first beginning at `origin`, in output k of m. */
static double weight(double extent, int n, double origin, double step, int i, int m, int k)
{
	double size = extent / m;
	if (step > size) {
		double at = ((k + 0.5) * size - origin) / step - 0.5;
		at = fmin(fmax(at, 0), n - 1);
		return fmax(0, 1 - fabs(at - i));
	}
	double from = i == 0 ? -1e9 : origin + i * step;
	double to = i == n - 1 ? 1e9 : origin + (i + 1) * step;
	return fmax(0, fmin(to, (k + 1) * size) - fmax(from, k * size)) / size;
}

/* Component c scaled: out[height][width] in its own units. */
static void reference_component(const struct reference *ref, int c, double *out)
{
	const AVFrame *frame = ref->frame;
	const AVPixFmtDescriptor *desc = av_pix_fmt_desc_get(frame->format);
	bool chroma = (c == 1 || c == 2) && !(desc->flags & AV_PIX_FMT_FLAG_RGB);
	int log2x = chroma ? desc->log2_chroma_w : 0;
	int log2y = chroma ? desc->log2_chroma_h : 0;
	int columns = AV_CEIL_RSHIFT(frame->width, log2x);
	int lines = AV_CEIL_RSHIFT(frame->height, log2y);
	double step_y = 1 << log2y;
	int first = 0;
	int apart = 1;
	double origin_y = 0;
	if (frame->interlaced_frame && frame->height >= 8) {
		/* Line `first + 2 i` is in the middle of what it stands for. */
		first = frame->top_field_first ? 0 : 1;
		apart = 2;
		origin_y = (first + 0.5) * step_y - step_y;
		step_y *= 2;
	}
	int count = (lines - first + apart - 1) / apart;
	uint16_t row[SIDE_MAX];
	for (int i = 0; i < count; i++) {
		av_read_image_line2(row, (const uint8_t **)frame->data, frame->linesize, desc, 0, first + i * apart, c,
				    columns, 0, 2);
		for (int k = 0; k < ref->width; k++) {
			double sum = 0;
			for (int x = 0; x < columns; x++)
				sum += row[x] * weight(columns << log2x, columns, 0, 1 << log2x, x, ref->width, k);
			ref->samples[i * ref->width + k] = sum;
		}
	}
	for (int k = 0; k < ref->height; k++) {
		for (int x = 0; x < ref->width; x++)
			out[k * ref->width + x] = 0;
		for (int i = 0; i < count; i++) {
			double w = weight(lines << log2y, count, origin_y, step_y, i, ref->height, k);
			for (int x = 0; w > 0 && x < ref->width; x++)
				out[k * ref->width + x] += w * ref->samples[i * ref->width + x];
		}
	}
}

struct weights {
	enum AVColorSpace space;
	double red;
	double blue;
};

static void reference_rgb(const AVFrame *frame, const double in[3], double out[3])
{
	static const struct weights all[] = {
		{AVCOL_SPC_BT709, .2126, .0722},   {AVCOL_SPC_SMPTE170M, .299, .114}, {AVCOL_SPC_BT470BG, .299, .114},
		{AVCOL_SPC_FCC, .30, .11},	   {AVCOL_SPC_SMPTE240M, .212, .087}, {AVCOL_SPC_BT2020_NCL, .2627, .0593},
		{AVCOL_SPC_BT2020_CL, .2627, .0593}};
	const AVPixFmtDescriptor *desc = av_pix_fmt_desc_get(frame->format);
	double max = (1 << desc->comp[0].depth) - 1;
	double unit = 1 << (desc->comp[0].depth - 8);
	bool gray = desc->nb_components < 3;
	bool full = frame->color_range == AVCOL_RANGE_JPEG || !strncmp(desc->name, "yuvj", 4) ||
		    (gray && frame->color_range == AVCOL_RANGE_UNSPECIFIED);
	if (desc->flags & AV_PIX_FMT_FLAG_RGB) {
		for (int i = 0; i < 3; i++)
			out[i] = in[i] / max;
		return;
	}
	double y = full ? in[0] / max : (in[0] / unit - 16) / 219;
	double u = gray ? 0 : full ? (in[1] - 128 * unit) / max : (in[1] / unit - 128) / 224;
	double v = gray ? 0 : full ? (in[2] - 128 * unit) / max : (in[2] / unit - 128) / 224;
	if (frame->colorspace == AVCOL_SPC_YCGCO) {
		out[0] = y - u + v;
		out[1] = y + u;
		out[2] = y - u - v;
		return;
	}
	struct weights w = frame->height >= 720 ? all[0] : all[1];
	for (size_t i = 0; i < KX_ARRAY_LEN(all); i++) {
		if (all[i].space == frame->colorspace)
			w = all[i];
	}
	out[0] = y + 2 * (1 - w.red) * v;
	out[2] = y + 2 * (1 - w.blue) * u;
	out[1] = (y - w.red * out[0] - w.blue * out[2]) / (1 - w.red - w.blue);
}

/* Bytes in doubles, turned; the caller frees. */
static double *reference_scale(const AVFrame *frame, unsigned width, unsigned height, struct kx_orientation turn)
{
	struct reference ref = {
		.frame = frame,
		.width = (int)(turn.transpose ? height : width),
		.height = (int)(turn.transpose ? width : height),
	};
	size_t pixels = (size_t)width * height;
	double *parts[3];
	double *out = calloc(pixels * 3, sizeof(double));
	ref.samples = calloc((size_t)ref.width * (size_t)frame->height, sizeof(double));
	assert_true(out && ref.samples);
	for (int c = 0; c < 3; c++) {
		parts[c] = calloc(pixels, sizeof(double));
		assert_non_null(parts[c]);
		if (c < av_pix_fmt_desc_get(frame->format)->nb_components)
			reference_component(&ref, c, parts[c]);
	}
	for (unsigned y = 0; y < height; y++) {
		for (unsigned x = 0; x < width; x++) {
			unsigned from_x = turn.flip_x ? width - 1 - x : x;
			unsigned from_y = turn.flip_y ? height - 1 - y : y;
			size_t from = turn.transpose ? (size_t)from_x * height + from_y : (size_t)from_y * width + from_x;
			double rgb[3];
			reference_rgb(frame, (double[3]){parts[0][from], parts[1][from], parts[2][from]}, rgb);
			for (unsigned i = 0; i < 3; i++)
				out[((size_t)y * width + x) * 3 + i] = fmin(fmax(rgb[i] * 255, 0), 255);
		}
	}
	for (int c = 0; c < 3; c++)
		free(parts[c]);
	free(ref.samples);
	return out;
}

/* --- tests --------------------------------------------------------------------------------------------------- */

/* Scales by every path; all have to agree. The caller frees. */
static uint8_t *scale_all_ways(const AVFrame *frame, unsigned width, unsigned height, struct kx_orientation turn)
{
	const struct kx_scale_kernels *const paths[] = {
		&kx_scale_c, kx_scale_neon(), kx_scale_avx2(), kx_scale_avx512()};
	size_t len = (size_t)width * height * 3;
	uint8_t *first = malloc(len);
	uint8_t *other = malloc(len);
	assert_true(first && other);
	for (size_t i = 0; i < KX_ARRAY_LEN(paths); i++) {
		struct kx_scaler scaler;
		struct kx_error error = {0};
		if (!paths[i])
			continue;
		assert_int_equal(kx_scaler_init(&scaler, width, height, turn), KX_OK);
		scaler.kernels = paths[i];
		if (kx_scaler_run(&scaler, frame, i ? other : first, &error))
			fail_msg("%s", error.message);
		if (i && memcmp(first, other, len) != 0)
			fail_msg("%s and c differ: %dx%d %s to %ux%u", paths[i]->name, frame->width, frame->height,
				 av_get_pix_fmt_name(frame->format), width, height);
		kx_scaler_done(&scaler);
	}
	free(other);
	return first;
}

static const enum AVPixelFormat formats[] = {
	AV_PIX_FMT_YUV420P,	AV_PIX_FMT_YUV422P,	AV_PIX_FMT_YUV444P,	AV_PIX_FMT_YUV440P,	AV_PIX_FMT_YUV411P,
	AV_PIX_FMT_YUV410P,	AV_PIX_FMT_YUVJ420P,	AV_PIX_FMT_YUVJ422P,	AV_PIX_FMT_YUVJ444P,	AV_PIX_FMT_YUVJ440P,
	AV_PIX_FMT_YUVJ411P,	AV_PIX_FMT_NV12,	AV_PIX_FMT_NV21,	AV_PIX_FMT_NV16,	AV_PIX_FMT_NV24,
	AV_PIX_FMT_YUV420P9,	AV_PIX_FMT_YUV420P10,	AV_PIX_FMT_YUV420P12,	AV_PIX_FMT_YUV420P14,	AV_PIX_FMT_YUV420P16,
	AV_PIX_FMT_YUV422P10,	AV_PIX_FMT_YUV422P12,	AV_PIX_FMT_YUV444P10,	AV_PIX_FMT_YUV444P12,	AV_PIX_FMT_YUV444P16,
	AV_PIX_FMT_YUV440P10,	AV_PIX_FMT_P010,	AV_PIX_FMT_P016,	AV_PIX_FMT_P210,	AV_PIX_FMT_GRAY8,
	AV_PIX_FMT_GRAY10,	AV_PIX_FMT_GRAY12,	AV_PIX_FMT_GRAY16,	AV_PIX_FMT_YA8,		AV_PIX_FMT_YA16,
	AV_PIX_FMT_YUVA420P,	AV_PIX_FMT_YUVA444P,	AV_PIX_FMT_YUVA444P10,	AV_PIX_FMT_GBRP,	AV_PIX_FMT_GBRP10,
	AV_PIX_FMT_GBRP16,	AV_PIX_FMT_GBRAP,	AV_PIX_FMT_RGB24,	AV_PIX_FMT_BGR24,	AV_PIX_FMT_RGBA,
	AV_PIX_FMT_BGRA,	AV_PIX_FMT_ARGB,	AV_PIX_FMT_ABGR,	AV_PIX_FMT_0RGB,	AV_PIX_FMT_RGB48,
	AV_PIX_FMT_RGBA64,	AV_PIX_FMT_YUYV422,	AV_PIX_FMT_UYVY422,	AV_PIX_FMT_YVYU422,
};

static const enum AVColorSpace spaces[] = {
	AVCOL_SPC_UNSPECIFIED, AVCOL_SPC_BT709,	     AVCOL_SPC_SMPTE170M, AVCOL_SPC_BT470BG, AVCOL_SPC_FCC,
	AVCOL_SPC_SMPTE240M,   AVCOL_SPC_BT2020_NCL, AVCOL_SPC_BT2020_CL, AVCOL_SPC_YCGCO,   AVCOL_SPC_RGB,
};

/* Mean of squared differences; the largest has to be a level at most (of what is rounded: 1 and a half). */
static double compare(const AVFrame *frame, unsigned width, unsigned height, struct kx_orientation turn)
{
	uint8_t *got = scale_all_ways(frame, width, height, turn);
	double *want = reference_scale(frame, width, height, turn);
	double sum = 0;
	size_t len = (size_t)width * height * 3;
	for (size_t i = 0; i < len; i++) {
		double rounded = floor(want[i] + 0.5);
		sum += (got[i] - rounded) * (got[i] - rounded);
		if (fabs(got[i] - rounded) > 1)
			fail_msg("%dx%d %s, matrix %d, range %d, %s to %ux%u: byte %zu is %u, not %.3f", frame->width,
				 frame->height, av_get_pix_fmt_name(frame->format), frame->colorspace,
				 frame->color_range, frame->interlaced_frame ? "a field" : "all", width, height, i,
				 got[i], want[i]);
	}
	free(got);
	free(want);
	return sum / (double)len;
}

static double check_random(unsigned round)
{
	random_state = round + 1;
	struct picture picture;
	unsigned side = round % 4 ? 80 : SIDE_MAX;
	struct kx_orientation turn = {pick(0, 1), pick(0, 1), pick(0, 1)};
	picture_init(&picture, formats[round % KX_ARRAY_LEN(formats)], (int)pick(1, side), (int)pick(1, side));
	picture.frame->colorspace = spaces[pick(0, KX_ARRAY_LEN(spaces) - 1)];
	picture.frame->color_range = (enum AVColorRange)pick(0, 2);
	picture.frame->interlaced_frame = pick(0, 3) == 0;
	picture.frame->top_field_first = (int)pick(0, 1);
	picture_fill(&picture);
	double error = compare(picture.frame, pick(1, side / 2), pick(1, side / 2), turn);
	picture_done(&picture);
	return error;
}

static void test_reference(void **state)
{
	(void)state;
	const unsigned rounds = 6 * KX_ARRAY_LEN(formats);
	double worst = 0;
	double sum = 0;
	for (unsigned round = 0; round < rounds; round++) {
		double error = check_random(round);
		worst = fmax(worst, error);
		sum += error;
	}
	printf("%u pictures: PSNR %.1f dB, the worst %.1f (wanted %.1f), no byte off by more than 1\n", rounds,
	       10 * log10(255 * 255 * rounds / sum), 10 * log10(255 * 255 / worst), PSNR_MIN);
	assert_true(10 * log10(255 * 255 * rounds / sum) >= PSNR_MIN);
}

/* Sizes that people have, where rows are long enough for every path. */
static void test_usual_sizes(void **state)
{
	(void)state;
	static const int sizes[][2] = {{300, 280}, {299, 224}, {224, 224}, {225, 223}, {160, 120}, {1, 300}, {300, 1}, {2, 2}};
	for (size_t i = 0; i < KX_ARRAY_LEN(sizes); i++) {
		struct picture picture;
		random_state = i + 1;
		picture_init(&picture, AV_PIX_FMT_YUV420P, sizes[i][0], sizes[i][1]);
		picture_fill(&picture);
		double psnr = 10 * log10(255 * 255 / fmax(1e-5, compare(picture.frame, 224, 224, (struct kx_orientation){0})));
		printf("%dx%d to 224x224: PSNR %.1f dB (wanted %.1f)\n", sizes[i][0], sizes[i][1], psnr, PSNR_MIN);
		assert_true(psnr >= PSNR_MIN);
		picture_done(&picture);
	}
}

/* A smooth picture of many colours, in a format that libswscale made of it. */
static AVFrame *colourful(enum AVPixelFormat format, int width, int height)
{
	AVFrame *rgb = av_frame_alloc();
	AVFrame *frame = av_frame_alloc();
	assert_true(rgb && frame);
	rgb->format = AV_PIX_FMT_RGB24;
	frame->format = format;
	rgb->width = frame->width = width;
	rgb->height = frame->height = height;
	assert_true(av_frame_get_buffer(rgb, 0) >= 0);
	assert_true(av_frame_get_buffer(frame, 0) >= 0);
	for (int y = 0; y < height; y++) {
		uint8_t *row = rgb->data[0] + (ptrdiff_t)y * rgb->linesize[0];
		for (int x = 0; x < width; x++) {
			row[x * 3] = (uint8_t)(40 + 160 * x / width);
			row[x * 3 + 1] = (uint8_t)(40 + 160 * y / height);
			row[x * 3 + 2] = (uint8_t)(40 + 80 * (x + y) / (width + height));
		}
	}
	struct SwsContext *sws = sws_getContext(width, height, AV_PIX_FMT_RGB24, width, height, format,
						SWS_AREA | SWS_ACCURATE_RND | SWS_BITEXACT, NULL, NULL, NULL);
	assert_non_null(sws);
	(void)sws_scale(sws, (const uint8_t *const *)rgb->data, rgb->linesize, 0, height, frame->data, frame->linesize);
	sws_freeContext(sws);
	av_frame_free(&rgb);
	return frame;
}

static double against_swscale(const AVFrame *frame, unsigned side)
{
	uint8_t *got = scale_all_ways(frame, side, side, (struct kx_orientation){0});
	uint8_t *want = malloc((size_t)side * side * 3 + 64);
	assert_non_null(want);
	uint8_t *data[4] = {want};
	int stride[4] = {(int)side * 3};
	double sum = 0;
	struct SwsContext *sws = sws_getContext(frame->width, frame->height, frame->format, (int)side, (int)side,
						AV_PIX_FMT_RGB24,
						SWS_AREA | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT, NULL,
						NULL, NULL);
	assert_non_null(sws);
	(void)sws_scale(sws, (const uint8_t *const *)frame->data, frame->linesize, 0, frame->height, data, stride);
	sws_freeContext(sws);
	for (size_t i = 0; i < (size_t)side * side * 3; i++)
		sum += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
	free(got);
	free(want);
	return sum > 0 ? 10 * log10(255.0 * 255.0 * side * side * 3 / sum) : 99;
}

/* Also formats that only libswscale reads, and that take the way round through it. The farthest from it are those of
 * one bit and of floats: they are full range here, as what they hold; libswscale takes them for limited. */
static void test_every_format(void **state)
{
	(void)state;
	unsigned natively = 0;
	unsigned instead = 0;
	double worst = 99;
	const char *worst_name = "";
	for (const AVPixFmtDescriptor *desc = NULL; (desc = av_pix_fmt_desc_next(desc)) != NULL;) {
		struct kx_pixels pixels;
		enum AVPixelFormat format = av_pix_fmt_desc_get_id(desc);
		if (!sws_isSupportedInput(format) || !sws_isSupportedOutput(format))
			continue;
		AVFrame *frame = colourful(format, 96, 64);
		double psnr = against_swscale(frame, 48);
		*(kx_pixels_describe(format, &pixels) ? &natively : &instead) += 1;
		if (psnr < worst) {
			worst = psnr;
			worst_name = desc->name;
		}
		av_frame_free(&frame);
	}
	printf("%u formats as they are, %u through libswscale; against it at least %.1f dB (%s)\n", natively, instead,
	       worst, worst_name);
	assert_true(natively >= 80 && instead >= 50);
	assert_true(worst >= 30);
}

/* Frames of one kind after frames of another, and one frame to targets of two sizes. */
static void test_changes(void **state)
{
	(void)state;
	struct kx_scaler large;
	struct kx_scaler small;
	static uint8_t out[224 * 224 * 3];
	assert_int_equal(kx_scaler_init(&large, 224, 224, (struct kx_orientation){0}), KX_OK);
	assert_int_equal(kx_scaler_init(&small, 31, 17, (struct kx_orientation){.transpose = true}), KX_OK);
	for (unsigned round = 0; round < 60; round++) {
		struct picture picture;
		random_state = round + 1;
		picture_init(&picture, formats[pick(0, KX_ARRAY_LEN(formats) - 1)], (int)pick(1, 99), (int)pick(1, 99));
		picture.frame->interlaced_frame = (int)pick(0, 1);
		picture_fill(&picture);
		uint8_t *alone = scale_all_ways(picture.frame, 224, 224, (struct kx_orientation){0});
		assert_int_equal(kx_scaler_run(&large, picture.frame, out, NULL), KX_OK);
		assert_memory_equal(out, alone, sizeof(out));
		free(alone);
		alone = scale_all_ways(picture.frame, 31, 17, (struct kx_orientation){.transpose = true});
		assert_int_equal(kx_scaler_run(&small, picture.frame, out, NULL), KX_OK);
		assert_memory_equal(out, alone, 31 * 17 * 3);
		free(alone);
		picture_done(&picture);
	}
	kx_scaler_done(&large);
	kx_scaler_done(&small);
}

static void test_refusals(void **state)
{
	(void)state;
	struct kx_scaler scaler;
	struct kx_error error = {0};
	uint8_t out[4 * 4 * 3];
	AVFrame *frame = av_frame_alloc();
	assert_non_null(frame);
	assert_int_equal(kx_scaler_init(&scaler, 4, 4, (struct kx_orientation){0}), KX_OK);
	/* No size, no format, no planes, and a picture that is in another memory. */
	assert_int_equal(kx_scaler_run(&scaler, frame, out, &error), KX_EUNSUPPORTED);
	frame->width = frame->height = 8;
	assert_int_equal(kx_scaler_run(&scaler, frame, out, &error), KX_EUNSUPPORTED);
	frame->format = AV_PIX_FMT_YUV420P;
	assert_int_equal(kx_scaler_run(&scaler, frame, out, &error), KX_EUNSUPPORTED);
	assert_non_null(strstr(error.message, "8x8 yuv420p"));
	frame->format = AV_PIX_FMT_VAAPI;
	assert_int_equal(kx_scaler_run(&scaler, frame, out, &error), KX_EUNSUPPORTED);
	frame->format = AV_PIX_FMT_YUV420P;
	frame->width = frame->height = 1 << 20;
	assert_int_equal(kx_scaler_run(&scaler, frame, out, &error), KX_EUNSUPPORTED);
	frame->width = -1;
	assert_int_equal(kx_scaler_run(&scaler, frame, out, &error), KX_EUNSUPPORTED);
	assert_int_equal(error.class, KX_ERROR_POISON);
	kx_scaler_done(&scaler);
	kx_scaler_done(&scaler); /* nothing left to do */
	av_frame_free(&frame);
}

/* --- HDR ----------------------------------------------------------------------------------------------------- */

static double hlg_scene(double signal)
{
	return signal <= 0.5 ? signal * signal / 3 : (exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12;
}

/* Light in nits, from non-linear R, G, B of 0..1. */
static void reference_light(bool hlg, const double signal[3], double light[3])
{
	double scene[3];
	for (int i = 0; i < 3; i++) {
		scene[i] = hlg_scene(signal[i]);
		light[i] = pq_to_nits(signal[i]);
	}
	if (hlg)
		hlg_display(scene, light);
}

static void check_tone(enum AVColorTransferCharacteristic transfer, const char *name)
{
	enum { STEPS = 21, COUNT = STEPS * STEPS * STEPS };
	struct kx_tone *tone = NULL;
	static int16_t parts[3][COUNT];
	static uint8_t got[COUNT * 3];
	/* R, G, B of 15 bits as they are. */
	struct kx_matrix matrix = {.bias = {1 << 19, 1 << 19, 1 << 19}};
	double sum = 0;
	double worst = 0;
	for (unsigned i = 0; i < 3; i++)
		matrix.c[i][i] = (int16_t)lrint(255.0 * 128 / 32767 * 8192);
	for (unsigned i = 0; i < COUNT; i++) {
		parts[0][i] = (int16_t)(i % STEPS * 32767 / (STEPS - 1));
		parts[1][i] = (int16_t)(i / STEPS % STEPS * 32767 / (STEPS - 1));
		parts[2][i] = (int16_t)(i / STEPS / STEPS * 32767 / (STEPS - 1));
	}
	assert_true(kx_tone_needed(transfer));
	assert_int_equal(kx_tone_new(transfer, AVCOL_PRI_BT2020, &tone), KX_OK);
	kx_tone_row(tone, (const int16_t *const[3]){parts[0], parts[1], parts[2]}, COUNT, &matrix, got);
	for (unsigned i = 0; i < COUNT; i++) {
		double light[3];
		double want[3];
		reference_light(transfer == AVCOL_TRC_ARIB_STD_B67,
				(double[3]){parts[0][i] / 32767.0, parts[1][i] / 32767.0, parts[2][i] / 32767.0}, light);
		reference_tone(light, want);
		for (unsigned c = 0; c < 3; c++) {
			double off = fabs(got[i * 3 + c] - want[c]);
			sum += off * off;
			worst = fmax(worst, off);
		}
	}
	double psnr = 10 * log10(255.0 * 255 * COUNT * 3 / sum);
	printf("%s: %u colours, PSNR %.1f dB, off by at most %.2f levels before rounding\n", name, COUNT, psnr, worst);
	assert_true(psnr >= PSNR_MIN);
	assert_true(worst <= 2);
	kx_tone_free(tone);
}

static void test_tone(void **state)
{
	(void)state;
	assert_false(kx_tone_needed(AVCOL_TRC_BT709));
	assert_false(kx_tone_needed(AVCOL_TRC_UNSPECIFIED));
	check_tone(AVCOL_TRC_SMPTE2084, "PQ");
	check_tone(AVCOL_TRC_ARIB_STD_B67, "HLG");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reference), cmocka_unit_test(test_usual_sizes),
		cmocka_unit_test(test_every_format), cmocka_unit_test(test_changes),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_tone),
	};
	av_log_set_level(AV_LOG_QUIET);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
