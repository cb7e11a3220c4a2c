/* What scaling a frame costs: each SIMD path of this CPU, the C reference, and libswscale as accurate as it gets.
 *
 *   kx_bench_scale [ROUNDS]
 *
 * A line of JSON for each kind of frame, in microseconds of CPU time a frame on one thread: the median of rounds, in
 * each of which all take turns. Frames come one after another from a ring larger than the caches next to the core, as
 * from a decoder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libswscale/swscale.h>

#include "worker/media/scale.h"
#include "worker/media/scale_kernels.h"

#define SIDE 224
#define RING 4
#define FRAMES 20
#define ROUNDS_MAX 101

struct kind {
	const char *name;
	int width;
	int height;
	enum AVPixelFormat format;
	enum AVColorTransferCharacteristic transfer;
	int interlaced;
};

static const struct kind kinds[] = {
	{"1080p yuv420p", 1920, 1080, AV_PIX_FMT_YUV420P, AVCOL_TRC_BT709, 0},
	{"1080i yuv420p", 1920, 1080, AV_PIX_FMT_YUV420P, AVCOL_TRC_BT709, 1},
	{"720p yuv420p", 1280, 720, AV_PIX_FMT_YUV420P, AVCOL_TRC_BT709, 0},
	{"360p yuv420p", 640, 360, AV_PIX_FMT_YUV420P, AVCOL_TRC_BT709, 0},
	{"2160p yuv420p", 3840, 2160, AV_PIX_FMT_YUV420P, AVCOL_TRC_BT709, 0},
	{"1080p yuv420p10", 1920, 1080, AV_PIX_FMT_YUV420P10, AVCOL_TRC_BT709, 0},
	{"1080p yuv420p10 PQ", 1920, 1080, AV_PIX_FMT_YUV420P10, AVCOL_TRC_SMPTE2084, 0},
	{"1080p nv12", 1920, 1080, AV_PIX_FMT_NV12, AVCOL_TRC_BT709, 0},
	{"720p rgb24", 1280, 720, AV_PIX_FMT_RGB24, AVCOL_TRC_BT709, 0},
};

static double cpu_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static AVFrame *make_frame(const struct kind *kind)
{
	AVFrame *frame = av_frame_alloc();
	if (!frame)
		return NULL;
	frame->width = kind->width;
	frame->height = kind->height;
	frame->format = kind->format;
	frame->color_trc = kind->transfer;
	frame->interlaced_frame = kind->interlaced;
	frame->top_field_first = 1;
	if (av_frame_get_buffer(frame, 0) < 0) {
		av_frame_free(&frame);
		return NULL;
	}
	/* What is in a frame changes nothing, but all of it has to be there. */
	for (unsigned p = 0; p < AV_NUM_DATA_POINTERS && frame->buf[p]; p++)
		memset(frame->buf[p]->data, 1, frame->buf[p]->size);
	return frame;
}

static double time_ours(const struct kind *kind, AVFrame *const frames[RING], const struct kx_scale_kernels *kernels,
			uint8_t *rgb)
{
	struct kx_scaler scaler;
	(void)kind;
	if (kx_scaler_init(&scaler, SIDE, SIDE, (struct kx_orientation){0}))
		return -1;
	scaler.kernels = kernels;
	kx_status status = kx_scaler_run(&scaler, frames[0], rgb, NULL); /* makes the plan */
	double from = cpu_us();
	for (unsigned i = 0; i < FRAMES && !status; i++)
		status = kx_scaler_run(&scaler, frames[i % RING], rgb, NULL);
	double took = (cpu_us() - from) / FRAMES;
	kx_scaler_done(&scaler);
	return status ? -1 : took;
}

static double time_swscale(const struct kind *kind, AVFrame *const frames[RING], uint8_t *rgb)
{
	struct SwsContext *sws = sws_getContext(kind->width, kind->height, kind->format, SIDE, SIDE, AV_PIX_FMT_RGB24,
						SWS_AREA | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT, NULL,
						NULL, NULL);
	uint8_t *out[4] = {rgb};
	int stride[4] = {SIDE * 3};
	if (!sws)
		return -1;
	(void)sws_scale(sws, (const uint8_t *const *)frames[0]->data, frames[0]->linesize, 0, kind->height, out, stride);
	double from = cpu_us();
	for (unsigned i = 0; i < FRAMES; i++) {
		const AVFrame *frame = frames[i % RING];
		(void)sws_scale(sws, (const uint8_t *const *)frame->data, frame->linesize, 0, kind->height, out, stride);
	}
	double took = (cpu_us() - from) / FRAMES;
	sws_freeContext(sws);
	return took;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static double median(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), compare);
	return values[count / 2];
}

static void bench(const struct kind *kind, AVFrame *const frames[RING], size_t rounds, uint8_t *rgb)
{
	static double times[5][ROUNDS_MAX];
	const struct kx_scale_kernels *const paths[] = {
		&kx_scale_c, kx_scale_neon(), kx_scale_avx2(), kx_scale_avx512()};
	for (size_t round = 0; round < rounds; round++) {
		for (size_t i = 0; i < KX_ARRAY_LEN(paths); i++) {
			if (paths[i])
				times[i][round] = time_ours(kind, frames, paths[i], rgb);
		}
		times[KX_ARRAY_LEN(paths)][round] = time_swscale(kind, frames, rgb);
	}
	printf("{\"frame\": \"%s\"", kind->name);
	for (size_t i = 0; i < KX_ARRAY_LEN(paths); i++) {
		if (paths[i])
			printf(", \"%s_us\": %.0f", paths[i]->name, median(times[i], rounds));
	}
	printf(", \"swscale_us\": %.0f}\n", median(times[KX_ARRAY_LEN(paths)], rounds));
}

int main(int argc, char **argv)
{
	static uint8_t rgb[SIDE * SIDE * 3 + 64];
	long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 11;
	if (rounds < 1 || rounds > ROUNDS_MAX) {
		fprintf(stderr, "kx_bench_scale: rounds are 1 to %d\n", ROUNDS_MAX);
		return 2;
	}
	for (size_t k = 0; k < KX_ARRAY_LEN(kinds); k++) {
		AVFrame *frames[RING] = {NULL};
		int failed = 0;
		for (size_t i = 0; i < RING; i++) {
			frames[i] = make_frame(&kinds[k]);
			failed |= !frames[i];
		}
		if (!failed)
			bench(&kinds[k], frames, (size_t)rounds, rgb);
		for (size_t i = 0; i < RING; i++)
			av_frame_free(&frames[i]);
		if (failed)
			return 1;
	}
	return 0;
}
