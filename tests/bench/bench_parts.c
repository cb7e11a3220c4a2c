/* The two parts of indexing, each alone: decoding without inference, inference without decoding. For
 * scripts/bench overhead, which compares their CPU time with that of the whole.
 *
 *   kx_bench_parts decode CLIP...
 *   kx_bench_parts sample visual|audio|both MODE FPS CLIP...
 *   kx_bench_parts infer BUNDLE auto|f32|bf16 THREADS ITEMS
 *
 * A line of JSON each: items and the CPU time of the work itself, without starting, compiling and warming up. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/macros.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "worker/media/media.h"
#include "worker/model/model.h"

#define SIDE 224u
#define FRAME_BYTES ((size_t)SIDE * SIDE * 3)
#define THREADS_MAX 64u

/* A sink that throws everything away. */
struct drain {
	union {
		uint8_t frame[FRAME_BYTES];
		float patch[KX_PATCH_BYTES / sizeof(float)];
	} memory;
	uint64_t frames;
	uint64_t patches;
};

static kx_status on_opened(void *ctx, const struct kx_probe_info *info)
{
	(void)ctx;
	(void)info;
	return KX_OK;
}

static kx_status on_acquire(void *ctx, void **ret_memory)
{
	struct drain *drain = ctx;
	*ret_memory = &drain->memory;
	return KX_OK;
}

static kx_status on_frame(void *ctx, const struct kx_sample *sample)
{
	struct drain *drain = ctx;
	(void)sample;
	drain->frames++;
	return KX_OK;
}

static kx_status on_patch(void *ctx, const struct kx_sample *sample)
{
	struct drain *drain = ctx;
	(void)sample;
	drain->patches++;
	return KX_OK;
}

static kx_status decode_clip(const char *path, const struct kx_decode_request *how, struct drain *drain,
			     struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kx_error_set(error, KX_EIO, KX_ERROR_POISON, "can't open %s", path);
	struct kx_decode_request request = *how;
	request.name = (char *)path;
	struct kx_media_sink sink = {drain, on_opened, on_acquire, on_frame, on_patch};
	struct kx_decode_end end;
	kx_status status = kx_media_sample(fd, &request, &sink, &end, error);
	kx_media_end_done(&end);
	return status;
}

static int decode(const struct kx_decode_request *how, int count, char **paths)
{
	KX_CLEANUP(kx_cleanup_free) struct drain *drain = calloc(1, sizeof(*drain));
	int failed = drain == NULL;
	kx_media_init();
	uint64_t from = kx_clock_cpu_us();
	for (int i = 0; i < count && drain != NULL; i++) {
		struct kx_error error = {0};
		if (decode_clip(paths[i], how, drain, &error) != KX_OK) {
			fprintf(stderr, "kx_bench_parts: %s\n", error.message);
			failed = 1;
		}
	}
	if (drain != NULL)
		printf("{\"cpu_s\": %.6f, \"frames\": %" PRIu64 ", \"patches\": %" PRIu64 "}\n",
		       (double)(kx_clock_cpu_us() - from) / 1e6, drain->frames, drain->patches);
	return failed;
}

static const struct kx_decode_request as_indexed = {
	.purpose = KX_DECODE_SAMPLE,
	.tracks = KX_TRACK_VISUAL | KX_TRACK_AUDIO,
	.fps = 1,
	.decode_mode = KX_DECODE_EXACT,
	.width = SIDE,
	.height = SIDE,
};

/* -1: wrong arguments. */
static int sample(int count, char **args)
{
	struct kx_decode_request how = as_indexed;
	double tolerance = 0;
	if (kx_str_eq(args[0], "visual"))
		how.tracks = KX_TRACK_VISUAL;
	else if (kx_str_eq(args[0], "audio"))
		how.tracks = KX_TRACK_AUDIO;
	else if (!kx_str_eq(args[0], "both"))
		return -1;
	if (kx_str_eq(args[1], "keyframe"))
		how.decode_mode = KX_DECODE_KEYFRAME;
	else if (kx_str_starts(args[1], "tol=") && kx_parse_double(args[1] + 4, &tolerance) == KX_OK && tolerance > 0)
		how.decode_mode = KX_DECODE_TOLERANT;
	else if (!kx_str_eq(args[1], "exact"))
		return -1;
	how.decode_tolerance_us = (uint64_t)(tolerance * 1e6);
	if (kx_parse_double(args[2], &how.fps) != KX_OK)
		return -1;
	/* What is loaded and made with the first use of a codec is not part of the work. */
	struct drain *drain = calloc(1, sizeof(*drain));
	struct kx_error error = {0};
	kx_media_init();
	if (drain != NULL && decode_clip(args[3], &how, drain, &error) != KX_OK)
		fprintf(stderr, "kx_bench_parts: %s\n", error.message);
	free(drain);
	return decode(&how, count - 3, args + 3);
}

struct lane {
	struct kx_model_stream *stream;
	pthread_t thread;
	const void **inputs; /* [batch], all the same item */
	float *features;
	float *scores;
	size_t batch;
	uint64_t items; /* to do */
	struct kx_error error;
};

static void *run_lane(void *arg)
{
	struct lane *lane = arg;
	for (uint64_t left = lane->items; left > 0;) {
		size_t take = left < lane->batch ? (size_t)left : lane->batch;
		if (kx_model_infer(lane->stream, lane->inputs, take, lane->features, lane->scores, &lane->error) != KX_OK)
			break;
		left -= take;
	}
	return NULL;
}

static void lane_done(struct lane *lane)
{
	kx_model_stream_free(lane->stream);
	free(lane->inputs);
	free(lane->features);
	free(lane->scores);
}

static kx_status lane_init(struct lane *lane, struct kx_model *model, const void *item, struct kx_error *error)
{
	const struct kx_bundle *bundle = kx_model_bundle(model);
	lane->batch = kx_model_batch(model);
	lane->inputs = calloc(lane->batch, sizeof(*lane->inputs));
	lane->features = calloc(lane->batch * bundle->feature_dim, sizeof(float));
	lane->scores = calloc(lane->batch * bundle->class_count, sizeof(float));
	if (lane->inputs == NULL || lane->features == NULL || lane->scores == NULL)
		return kx_error_nomem(error);
	for (size_t i = 0; i < lane->batch; i++)
		lane->inputs[i] = item;
	kx_status status = kx_model_stream_new(model, &lane->stream, error);
	/* The first run of a stream allocates and chooses; it is not part of the work. */
	return status == KX_OK ? kx_model_infer(lane->stream, lane->inputs, lane->batch, lane->features, lane->scores, error)
			       : status;
}

static kx_status run_lanes(struct lane *lanes, size_t count, uint64_t items, struct kx_error *error)
{
	kx_status status = KX_OK;
	size_t started = 0;
	uint64_t from = kx_clock_cpu_us();
	for (; started < count && status == KX_OK; started++) {
		lanes[started].items = items / count + (started < items % count);
		status = kx_thread_start(&lanes[started].thread, "infer", run_lane, &lanes[started], error);
		if (status != KX_OK)
			break;
	}
	for (size_t i = 0; i < started; i++) {
		pthread_join(lanes[i].thread, NULL);
		if (status == KX_OK && lanes[i].error.status != KX_OK) {
			status = lanes[i].error.status;
			*error = lanes[i].error;
		}
	}
	if (status == KX_OK)
		printf("{\"cpu_s\": %.6f, \"items\": %" PRIu64 "}\n", (double)(kx_clock_cpu_us() - from) / 1e6, items);
	return status;
}

static kx_status infer_model(struct kx_model *model, size_t threads, uint64_t items, struct kx_error *error)
{
	struct lane lanes[THREADS_MAX] = {0};
	/* What is in an item does not change what it costs. */
	KX_CLEANUP(kx_cleanup_free) void *item = calloc(1, kx_model_bundle(model)->input_bytes);
	kx_status status = item != NULL ? KX_OK : kx_error_nomem(error);
	for (size_t i = 0; i < threads && status == KX_OK; i++)
		status = lane_init(&lanes[i], model, item, error);
	if (status == KX_OK)
		status = run_lanes(lanes, threads, items, error);
	for (size_t i = 0; i < threads; i++)
		lane_done(&lanes[i]);
	return status;
}

static kx_status infer_bundle(const struct kx_bundle *bundle, enum kx_precision precision, size_t threads,
			      uint64_t items, struct kx_error *error)
{
	struct kx_runtime *runtime = NULL;
	struct kx_model *model = NULL;
	struct kx_model_options options = {.precision = precision, .streams = threads};
	kx_status status = kx_runtime_new(&runtime, error);
	if (status == KX_OK)
		status = kx_model_new(runtime, bundle, &options, &model, error);
	if (status == KX_OK)
		status = infer_model(model, threads, items, error);
	kx_model_free(model);
	kx_runtime_free(runtime);
	return status;
}

static bool parse_precision(const char *text, enum kx_precision *ret)
{
	if (kx_str_eq(text, "auto"))
		*ret = KX_PRECISION_AUTO;
	else if (kx_str_eq(text, "f32"))
		*ret = KX_PRECISION_F32;
	else if (kx_str_eq(text, "bf16"))
		*ret = KX_PRECISION_BF16;
	else
		return false;
	return true;
}

/* -1: wrong arguments. */
static int infer(char **args)
{
	enum kx_precision precision;
	uint64_t threads, items;
	struct kx_error error = {0};
	KX_CLEANUP(kx_bundle_cleanup) struct kx_bundle *bundle = NULL;
	if (!parse_precision(args[1], &precision) || kx_parse_u64(args[2], &threads) != KX_OK || threads < 1 ||
	    threads > THREADS_MAX || kx_parse_u64(args[3], &items) != KX_OK)
		return -1;
	kx_status status = kx_bundle_open(args[0], &bundle, &error);
	if (status == KX_OK)
		status = infer_bundle(bundle, precision, (size_t)threads, items, &error);
	if (status != KX_OK)
		fprintf(stderr, "kx_bench_parts: %s\n", error.message);
	return status == KX_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
	int status = -1;
	if (argc >= 3 && strcmp(argv[1], "decode") == 0)
		status = decode(&as_indexed, argc - 2, argv + 2);
	else if (argc >= 6 && strcmp(argv[1], "sample") == 0)
		status = sample(argc - 2, argv + 2);
	else if (argc == 6 && strcmp(argv[1], "infer") == 0)
		status = infer(argv + 2);
	if (status < 0) {
		fprintf(stderr, "usage: kx_bench_parts decode CLIP... | sample visual|audio|both MODE FPS CLIP... | infer BUNDLE auto|f32|bf16 THREADS ITEMS\n");
		return 2;
	}
	return status;
}
