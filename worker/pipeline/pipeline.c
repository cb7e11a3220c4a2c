#include "worker/pipeline/pipeline.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "worker/media/media.h"
#include "worker/pipeline/internal.h"

#define LINGER_US 2000000u /* throughput is what counts: a slow child needs this long for a batch of its frames */
/* Items that a stream infers in one go. The network's weights and code then stay in the core's caches from one item to
 * the next; between two single ones a decoder that shares the core throws them out (docs/decisions/0005). */
#define BURST_ITEMS 16u
#define RING_BURSTS 3u    /* bursts that a ring has room for: one inferred, one waiting, one being decoded */
#define RING_SLOTS_MAX 192u

/* ---- models ---- */

static kx_status check_inputs(const struct kx_bundle *visual, const struct kx_bundle *audio, struct kx_error *error)
{
	if (!visual && !audio)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "a pipeline needs a bundle");
	if (visual && (visual->kind != KX_BUNDLE_VISUAL || !visual->input_u8 || visual->rank != 3 ||
		       visual->shape[2] != 3))
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_FATAL,
				    "bundle %s: frames are u8 [height][width][3], its input is another", visual->name);
	if (audio && (audio->kind != KX_BUNDLE_AUDIO || audio->input_u8 || audio->input_bytes != KX_PATCH_BYTES))
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_FATAL,
				    "bundle %s: patches are f32 [%d][%d], its input is another", audio->name,
				    KX_PATCH_HOPS, KX_PATCH_BANDS);
	return KX_OK;
}

static kx_status load_model(struct kx_pipeline *pipeline, size_t track, struct kx_error *error)
{
	const struct kx_bundle *bundle = pipeline->bundle[track];
	const struct kx_model_options options = {
		.precision = pipeline->precision,
		.streams = pipeline->stream_count,
		.batch = pipeline->batch,
		.cache_dir = pipeline->model_cache,
	};
	double cosine;
	kx_status status;

	if (!bundle)
		return KX_OK;
	status = kx_model_new(pipeline->runtime, bundle, &options, &pipeline->model[track], error);
	if (status == KX_OK)
		status = kx_model_check(pipeline->model[track], &cosine, error);
	if (status == KX_OK && kx_model_batch(pipeline->model[track]) > KX_BURST_MAX)
		status = kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "a batch is at most %d", KX_BURST_MAX);
	return status;
}

static kx_status load_models(struct kx_pipeline *pipeline, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (size_t i = 0; i < KX_TRACKS && status == KX_OK; i++)
		status = load_model(pipeline, i, error);
	return status;
}

/* What is known of the models before they are loaded. */
static kx_status name_spaces(struct kx_pipeline *pipeline, struct kx_error *error)
{
	kx_status status = kx_runtime_new(&pipeline->runtime, error);

	if (status != KX_OK)
		return status;
	pipeline->precision = kx_runtime_precision(pipeline->runtime, pipeline->precision);
	for (size_t i = 0; i < KX_TRACKS; i++) {
		if (pipeline->bundle[i] &&
		    kx_bundle_space(pipeline->bundle[i], KX_MEDIA_PREPROCESS, kx_precision_name(pipeline->precision),
				    pipeline->space[i]) != KX_OK)
			return kx_error_nomem(error);
	}
	snprintf(pipeline->spaces, sizeof(pipeline->spaces), "%s%s%s", pipeline->space[0],
		 pipeline->bundle[0] && pipeline->bundle[1] ? ", " : "", pipeline->space[1]);
	return KX_OK;
}

/* ---- streams and lanes ---- */

static size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

static size_t batch_of(const struct kx_pipeline *pipeline, size_t track)
{
	return pipeline->model[track] ? kx_model_batch(pipeline->model[track]) : 1;
}

/* Whole batches, at least BURST_ITEMS of items. */
static size_t burst_of(const struct kx_pipeline *pipeline, size_t track)
{
	size_t batch = batch_of(pipeline, track);

	return (BURST_ITEMS + batch - 1) / batch * batch;
}

static kx_status open_stream(struct kx_pipeline *pipeline, struct kx_stream *stream, struct kx_error *error)
{
	size_t features = 1, scores = 1; /* calloc() may answer NULL to 0 */

	stream->pipeline = pipeline;
	for (size_t i = 0; i < KX_TRACKS; i++) {
		kx_status status;

		if (!pipeline->model[i])
			continue;
		status = kx_model_stream_new(pipeline->model[i], &stream->model[i], error);
		if (status != KX_OK)
			return status;
		features = max_size(features, burst_of(pipeline, i) * pipeline->bundle[i]->feature_dim);
		scores = max_size(scores, burst_of(pipeline, i) * pipeline->bundle[i]->class_count);
	}
	stream->features = calloc(features, sizeof(float));
	stream->scores = calloc(scores, sizeof(float));
	return stream->features && stream->scores ? KX_OK : kx_error_nomem(error);
}

static kx_status open_streams(struct kx_pipeline *pipeline, struct kx_error *error)
{
	kx_status status = KX_OK;

	pipeline->streams = calloc(pipeline->stream_count, sizeof(*pipeline->streams));
	if (!pipeline->streams)
		return kx_error_nomem(error);
	for (size_t i = 0; i < pipeline->stream_count && status == KX_OK; i++)
		status = open_stream(pipeline, &pipeline->streams[i], error);
	return status;
}

static kx_status open_lanes(struct kx_pipeline *pipeline, struct kx_error *error)
{
	const struct kx_bundle *visual = pipeline->bundle[0], *audio = pipeline->bundle[1];
	const size_t burst[KX_TRACKS] = {burst_of(pipeline, 0), burst_of(pipeline, 1)};
	size_t slots = RING_BURSTS * max_size(burst[0], burst[1]);

	if (visual) {
		pipeline->height = (uint32_t)visual->shape[0];
		pipeline->width = (uint32_t)visual->shape[1];
	}
	pipeline->slot_bytes = (uint32_t)max_size(visual ? visual->input_bytes : 0, audio ? audio->input_bytes : 0);
	pipeline->ring_slots = (uint32_t)(slots < RING_SLOTS_MAX ? slots : RING_SLOTS_MAX);
	kx_batcher_init(&pipeline->batcher, burst, LINGER_US);
	pipeline->lanes = calloc(pipeline->lane_count, sizeof(*pipeline->lanes));
	return pipeline->lanes ? KX_OK : kx_error_nomem(error);
}

/* ---- threads and descriptors ---- */

static kx_status make_locks(struct kx_pipeline *pipeline, struct kx_error *error)
{
	if (pthread_mutex_init(&pipeline->lock, NULL) != 0)
		return kx_error_nomem(error);
	if (pthread_mutex_init(&pipeline->load_lock, NULL) != 0)
		goto no_load_lock;
	if (kx_cond_init(&pipeline->work) != KX_OK)
		goto no_work;
	if (kx_cond_init(&pipeline->idle) != KX_OK)
		goto no_idle;
	pipeline->locks_made = true;
	return KX_OK;
no_idle:
	pthread_cond_destroy(&pipeline->work);
no_work:
	pthread_mutex_destroy(&pipeline->load_lock);
no_load_lock:
	pthread_mutex_destroy(&pipeline->lock);
	return kx_error_nomem(error);
}

static kx_status watch(struct kx_pipeline *pipeline, int fd, struct kx_error *error)
{
	struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};

	if (epoll_ctl(pipeline->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		return kx_error_from_errno(error, errno, "watch the decoder host");
	return KX_OK;
}

static kx_status open_wakes(struct kx_pipeline *pipeline, struct kx_error *error)
{
	kx_status status;

	pipeline->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	pipeline->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (pipeline->epoll_fd < 0 || pipeline->wake_fd < 0)
		return kx_error_from_errno(error, errno, "wake-up descriptors");
	status = watch(pipeline, pipeline->wake_fd, error);
	if (status == KX_OK)
		status = watch(pipeline, pipeline->channel.host.fd, error);
	return status;
}

static kx_status start_threads(struct kx_pipeline *pipeline, struct kx_error *error)
{
	kx_status status = kx_thread_start(&pipeline->thread, "kx-decode", kx_feed_main, pipeline, error);

	pipeline->started = status == KX_OK;
	for (size_t i = 0; i < pipeline->stream_count && status == KX_OK; i++) {
		struct kx_stream *stream = &pipeline->streams[i];

		status = kx_thread_start(&stream->thread, "kx-infer", kx_stream_main, stream, error);
		stream->started = status == KX_OK;
	}
	return status;
}

/* ---- life ---- */

static kx_status open_channel(struct kx_pipeline *pipeline, const struct kx_pipeline_options *options,
			      struct kx_error *error)
{
	struct kx_channel *channel = &pipeline->channel;

	return options->beside ? kx_prober_open_beside(options->beside, channel, options->program, options->run_dir, error)
			       : kx_channel_open(channel, options->program, options->run_dir, NULL, error);
}

static kx_status load(struct kx_pipeline *pipeline, struct kx_error *error)
{
	kx_status status = load_models(pipeline, error);

	if (status == KX_OK)
		status = open_streams(pipeline, error);
	if (status == KX_OK)
		status = open_lanes(pipeline, error);
	if (status == KX_OK)
		status = start_threads(pipeline, error);
	return status;
}

/* Tried once. Another try would find what the first one left half made, and fail of the same. */
static kx_status load_once(struct kx_pipeline *pipeline, struct kx_error *error)
{
	kx_status status;

	pthread_mutex_lock(&pipeline->load_lock);
	if (!pipeline->loaded && pipeline->load_error.status == KX_OK)
		pipeline->loaded = load(pipeline, &pipeline->load_error) == KX_OK;
	status = pipeline->loaded ? KX_OK
				  : kx_error_set(error, pipeline->load_error.status, KX_ERROR_FATAL, "%s",
						 pipeline->load_error.message);
	pthread_mutex_unlock(&pipeline->load_lock);
	return status;
}

static kx_status open_all(struct kx_pipeline *pipeline, const struct kx_pipeline_options *options,
			  struct kx_error *error)
{
	kx_status status = make_locks(pipeline, error);

	/* The host first: it is loaded by another process while we compile. */
	if (status == KX_OK)
		status = open_channel(pipeline, options, error);
	if (status == KX_OK)
		status = open_wakes(pipeline, error);
	if (status == KX_OK)
		status = name_spaces(pipeline, error);
	if (status == KX_OK && options->model_cache && !(pipeline->model_cache = kx_strdup(options->model_cache)))
		status = kx_error_nomem(error);
	if (status == KX_OK && !options->lazy)
		status = load_once(pipeline, error);
	return status;
}

kx_status kx_pipeline_new(const struct kx_pipeline_options *options, struct kx_pipeline **ret, struct kx_error *error)
{
	kx_status status = check_inputs(options->visual, options->audio, error);
	struct kx_pipeline *pipeline;

	if (status != KX_OK)
		return status;
	if (options->decoders < 1 || options->decoders > KX_HOST_CHILDREN_MAX || options->streams < 1 ||
	    options->queue_max < 1)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "a pipeline needs 1 to %d decoders, a stream and a queue", KX_HOST_CHILDREN_MAX);
	pipeline = calloc(1, sizeof(*pipeline));
	if (!pipeline)
		return kx_error_nomem(error);
	pipeline->bundle[0] = options->visual;
	pipeline->bundle[1] = options->audio;
	pipeline->decoders = options->decoders;
	pipeline->lane_count = 2 * options->decoders;
	pipeline->stream_count = options->streams;
	pipeline->queue_max = options->queue_max;
	pipeline->precision = options->precision;
	pipeline->batch = options->batch;
	pipeline->fetch = options->fetch;
	pipeline->waiting_tail = &pipeline->waiting;
	pipeline->listed_tail = &pipeline->listed;
	pipeline->channel.host.fd = -1;
	pipeline->epoll_fd = pipeline->wake_fd = -1;
	status = open_all(pipeline, options, error);
	if (status != KX_OK) {
		kx_pipeline_free(pipeline);
		return status;
	}
	*ret = pipeline;
	return KX_OK;
}

static void fail_runs(struct kx_pipeline *pipeline, const void *owner, bool all)
{
	for (struct kx_run *run = pipeline->runs; run; run = run->next) {
		if (all || run->sink.owner == owner)
			kx_run_fail(pipeline, run, KX_REASON_INTERNAL, true, "stopped before it was done");
	}
}

static void stop_threads(struct kx_pipeline *pipeline)
{
	pthread_mutex_lock(&pipeline->lock);
	pipeline->stopping = true;
	fail_runs(pipeline, NULL, true);
	pthread_cond_broadcast(&pipeline->work);
	pthread_mutex_unlock(&pipeline->lock);
	if (pipeline->started) {
		kx_pipeline_wake(pipeline);
		pthread_join(pipeline->thread, NULL);
	}
	for (size_t i = 0; pipeline->streams && i < pipeline->stream_count; i++) {
		if (pipeline->streams[i].started)
			pthread_join(pipeline->streams[i].thread, NULL);
	}
}

static void free_streams(struct kx_pipeline *pipeline)
{
	for (size_t i = 0; pipeline->streams && i < pipeline->stream_count; i++) {
		struct kx_stream *stream = &pipeline->streams[i];

		for (size_t t = 0; t < KX_TRACKS; t++) {
			if (stream->model[t])
				kx_model_stream_free(stream->model[t]);
		}
		free(stream->features);
		free(stream->scores);
	}
	free(pipeline->streams);
}

static void free_models(struct kx_pipeline *pipeline)
{
	for (size_t i = 0; i < KX_TRACKS; i++) {
		if (pipeline->model[i])
			kx_model_free(pipeline->model[i]);
	}
	if (pipeline->runtime)
		kx_runtime_free(pipeline->runtime);
}

void kx_pipeline_free(struct kx_pipeline *pipeline)
{
	if (!pipeline)
		return;
	if (pipeline->locks_made)
		stop_threads(pipeline);
	kx_channel_close(&pipeline->channel);
	for (size_t i = 0; pipeline->lanes && i < pipeline->lane_count; i++)
		kx_lane_done(&pipeline->lanes[i]);
	free(pipeline->lanes);
	free_streams(pipeline);
	free_models(pipeline);
	kx_cleanup_close(&pipeline->epoll_fd);
	kx_cleanup_close(&pipeline->wake_fd);
	if (pipeline->locks_made) {
		pthread_cond_destroy(&pipeline->idle);
		pthread_cond_destroy(&pipeline->work);
		pthread_mutex_destroy(&pipeline->load_lock);
		pthread_mutex_destroy(&pipeline->lock);
	}
	free(pipeline->model_cache);
	free(pipeline);
}

/* ---- jobs ---- */

static kx_status check_job(const struct kx_pipeline *pipeline, const struct kx_job *job, struct kx_error *error)
{
	bool visual = job->tracks & KX_TRACK_VISUAL, audio = job->tracks & KX_TRACK_AUDIO;

	if ((!visual && !audio) || (visual && !pipeline->bundle[0]) || (audio && !pipeline->bundle[1]))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "no bundle for the tracks that are wanted");
	if (!(job->fps >= KX_FPS_MIN && job->fps <= KX_FPS_MAX) || job->moment_us == 0)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "fps must be from %g to %g, and a moment longer than nothing", KX_FPS_MIN,
				    KX_FPS_MAX);
	if (job->fps * (double)job->moment_us * 1e-6 + 1 > KX_MOMENT_ROWS_MAX ||
	    job->moment_us / KX_PATCH_STEP_US + 1 > KX_MOMENT_ROWS_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "a moment would hold more than %u samples",
				    KX_MOMENT_ROWS_MAX);
	return KX_OK;
}

/* Lock held. */
static kx_status admit(struct kx_pipeline *pipeline, struct kx_run *run)
{
	if (pipeline->stopping)
		return KX_ECANCELED;
	if (pipeline->waiting_count >= pipeline->queue_max)
		return KX_EAGAIN;
	kx_run_link(pipeline, run);
	return KX_OK;
}

kx_status kx_pipeline_submit(struct kx_pipeline *pipeline, const struct kx_job *job,
			     const struct kx_pipeline_sink *sink, struct kx_error *error)
{
	kx_status status = check_job(pipeline, job, error);
	struct kx_error why = {0};
	struct kx_run *run;

	if (status == KX_OK)
		status = load_once(pipeline, error);
	if (status != KX_OK)
		return status;
	run = kx_run_new(pipeline, job, sink, &why);
	if (!run)
		return kx_error_set(error, why.status, why.class, "%s", why.message);
	pthread_mutex_lock(&pipeline->lock);
	status = admit(pipeline, run);
	pthread_mutex_unlock(&pipeline->lock);
	if (status == KX_OK)
		return KX_OK;
	kx_run_free(run);
	return kx_error_set(error, status, KX_ERROR_RETRY, "%s",
			    status == KX_EAGAIN ? "the pipeline's queue is full" : "the pipeline is stopping");
}

static bool owns_any(const struct kx_pipeline *pipeline, const void *owner)
{
	for (const struct kx_run *run = pipeline->runs; run; run = run->next) {
		if (run->sink.owner == owner)
			return true;
	}
	return false;
}

void kx_pipeline_cancel(struct kx_pipeline *pipeline, const void *owner)
{
	pthread_mutex_lock(&pipeline->lock);
	fail_runs(pipeline, owner, false);
	while (owns_any(pipeline, owner))
		pthread_cond_wait(&pipeline->idle, &pipeline->lock);
	pthread_mutex_unlock(&pipeline->lock);
}

size_t kx_pipeline_decoders(const struct kx_pipeline *pipeline)
{
	return pipeline->decoders;
}

const char *kx_pipeline_spaces(const struct kx_pipeline *pipeline)
{
	return pipeline->spaces;
}
