#include "cli/actions.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/learn/learn.h"
#include "worker/pipeline/frames.h"

#define CLIP_FPS 25.0
#define MOMENT_FRAMES 250u /* of 10 seconds at 25 a second */
#define TOP 20u

/* Scores of one moment's clip. */
struct action {
	uint32_t moment;
	float *scores;
};

struct actions {
	const struct kx_bundle *bundle;
	struct kx_runtime *runtime;
	struct kx_model *model;
	struct kx_model_stream *stream;
	size_t frames;     /* T of the clip */
	size_t height, width;
	uint8_t *clip;     /* [3][T][height][width] */
	size_t filled;     /* frames in clip */
	uint32_t moment;   /* that clip is of */
	float *features;
	struct action *done;
	size_t done_count;
};

static uint64_t first_frame(const struct actions *actions, uint32_t moment)
{
	return (uint64_t)moment * MOMENT_FRAMES + (MOMENT_FRAMES - actions->frames) / 2;
}

static void put_frame(struct actions *actions, size_t at, const uint8_t *rgb)
{
	size_t plane = actions->height * actions->width;
	for (size_t c = 0; c < 3; c++) {
		uint8_t *out = actions->clip + (c * actions->frames + at) * plane;
		for (size_t i = 0; i < plane; i++)
			out[i] = rgb[3 * i + c];
	}
}

/* A video that ends inside a clip goes on with its last frame. */
static void hold_last_frame(struct actions *actions)
{
	size_t plane = actions->height * actions->width;
	for (size_t c = 0; c < 3; c++) {
		const uint8_t *last = actions->clip + (c * actions->frames + actions->filled - 1) * plane;
		for (size_t at = actions->filled; at < actions->frames; at++)
			memcpy(actions->clip + (c * actions->frames + at) * plane, last, plane);
	}
}

static kx_status infer_clip(struct actions *actions, struct kx_error *error)
{
	if (actions->filled == 0)
		return KX_OK;
	hold_last_frame(actions);
	struct action *grown = realloc(actions->done, (actions->done_count + 1) * sizeof(*grown));
	if (grown == NULL)
		return kx_error_nomem(error);
	actions->done = grown;
	struct action *action = &grown[actions->done_count];
	action->moment = actions->moment;
	action->scores = calloc(actions->bundle->class_count, sizeof(float));
	if (action->scores == NULL)
		return kx_error_nomem(error);
	actions->done_count++;
	actions->filled = 0;
	const void *input = actions->clip;
	return kx_model_infer(actions->stream, &input, 1, actions->features, action->scores, error);
}

static kx_status on_frame(void *ctx, const struct kx_sample *sample, const uint8_t *rgb, struct kx_error *error)
{
	struct actions *actions = ctx;
	if (kx_stop_asked(&kx_interrupted))
		return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopped");
	uint32_t moment = (uint32_t)(sample->index / MOMENT_FRAMES);
	if (moment != actions->moment) {
		kx_status status = infer_clip(actions, error);
		if (status != KX_OK)
			return status;
		actions->moment = moment;
	}
	uint64_t first = first_frame(actions, moment);
	if (sample->index >= first && actions->filled < actions->frames)
		put_frame(actions, actions->filled++, rgb);
	return KX_OK;
}

static kx_status open_model(struct actions *actions, const struct kx_config *config, struct kx_error *error)
{
	const struct kx_bundle *bundle = actions->bundle;
	if (bundle->kind != KX_BUNDLE_CLIP || !bundle->input_u8 || bundle->rank != 4 ||
	    bundle->shape[1] > MOMENT_FRAMES)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "bundle %s does not take clips of up to 10 seconds in bytes", bundle->name);
	actions->frames = bundle->shape[1];
	actions->height = bundle->shape[2];
	actions->width = bundle->shape[3];
	actions->clip = calloc(1, bundle->input_bytes);
	actions->features = calloc(bundle->feature_dim, sizeof(float));
	if (actions->clip == NULL || actions->features == NULL)
		return kx_error_nomem(error);
	struct kx_model_options options = {.precision = kx_engine_precision(config), .streams = 1};
	kx_status status = kx_runtime_new(&actions->runtime, error);
	if (status == KX_OK)
		status = kx_model_new(actions->runtime, bundle, &options, &actions->model, error);
	if (status == KX_OK)
		status = kx_model_stream_new(actions->model, &actions->stream, error);
	return status;
}

static void close_model(struct actions *actions)
{
	kx_model_stream_free(actions->stream);
	kx_model_free(actions->model);
	kx_runtime_free(actions->runtime);
	for (size_t i = 0; i < actions->done_count; i++)
		free(actions->done[i].scores);
	free(actions->done);
	free(actions->features);
	free(actions->clip);
}

static kx_status open_source(const struct kx_engine *engine, const char *path, int *ret_fd, struct kx_error *error)
{
	KX_CLEANUP(kx_fetch_stream_cleanup) struct kx_fetch_stream *stream = NULL;
	if (kx_fetch_is_url(path))
		return kx_fetch_open(engine->fetch, path, NULL, &stream, ret_fd, error);
	*ret_fd = open(path, O_RDONLY | O_CLOEXEC);
	return *ret_fd >= 0 ? KX_OK : kx_error_from_errno(error, errno, "opening %s", path);
}

static kx_status read_clips(struct actions *actions, const struct kx_engine *engine, const char *run_dir,
			    const char *path, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_close) int fd = -1;
	struct kx_prober *prober = NULL;
	enum kx_reason reason;
	struct kx_frames_request request = {
		.fps = CLIP_FPS, .width = (uint32_t)actions->width, .height = (uint32_t)actions->height};
	kx_status status = open_source(engine, path, &fd, error);
	if (status == KX_OK)
		status = kx_prober_new(engine->program, run_dir, &prober, error);
	if (status == KX_OK)
		status = kx_frames_read(prober, fd, path, &request, on_frame, actions, NULL, &reason, error);
	if (status == KX_OK)
		status = infer_clip(actions, error);
	kx_prober_free(prober);
	return status;
}

static void tell(const struct actions *actions, const struct kx_actions_sink *sink, bool whole, uint32_t moment,
		 const float *scores)
{
	uint32_t ids[TOP];
	float best[TOP];
	size_t count = kx_learn_topk(scores, actions->bundle->class_count, TOP, ids);
	for (size_t i = 0; i < count; i++)
		best[i] = scores[ids[i]];
	sink->classes(sink->ctx, actions->bundle, whole, moment, (uint32_t)count, ids, best);
}

static kx_status tell_all(const struct actions *actions, const struct kx_actions_sink *sink, struct kx_error *error)
{
	float *mean = calloc(actions->bundle->class_count, sizeof(float));
	if (mean == NULL)
		return kx_error_nomem(error);
	for (size_t i = 0; i < actions->done_count; i++)
		kx_learn_accumulate(mean, actions->done[i].scores, actions->bundle->class_count,
				    1.0f / (float)actions->done_count);
	tell(actions, sink, true, 0, mean);
	for (size_t i = 0; i < actions->done_count; i++)
		tell(actions, sink, false, actions->done[i].moment, actions->done[i].scores);
	free(mean);
	return KX_OK;
}

kx_status kx_actions_run(const struct kx_config *config, const struct kx_engine *engine, const char *run_dir,
			 const char *path, const struct kx_actions_sink *sink, struct kx_error *error)
{
	struct kx_bundle *bundle = NULL;
	kx_status status = kx_engine_bundle(config, "i3d", &bundle, error);
	if (status == KX_ENOTFOUND)
		kx_error_prefix(error, status, "--actions needs the bundle i3d; make it with scripts/bundles i3d");
	if (status != KX_OK)
		return status;
	struct actions actions = {.bundle = bundle};
	status = open_model(&actions, config, error);
	if (status == KX_OK)
		status = read_clips(&actions, engine, run_dir, path, error);
	if (status == KX_OK)
		status = tell_all(&actions, sink, error);
	close_model(&actions);
	kx_bundle_free(bundle);
	return status;
}
