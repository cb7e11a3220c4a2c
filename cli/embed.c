#include "cli/embed.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/sampling.h"
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/str.h"

#define FPS 1.0
#define MOMENTS_MAX KX_QUERY_MOMENTS_MAX
#define WAIT_MS 100

/* Filled on the pipeline's threads. */
struct collection {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool done;
	struct kx_embedded *embedded;
	struct kx_error failure; /* status KX_OK: none */
};

/* A moment is the pipeline's only during the call; going by its wire form is the copy that already exists. */
static kx_status copy_moment(const struct kx_moment *moment, struct kx_moment **ret, struct kx_error *error)
{
	struct kx_buf bytes = {.max = KX_RECORD_MAX};
	kx_status status = kx_moment_pack(moment, &bytes);
	if (status == KX_OK)
		status = kx_moment_unpack(bytes.data, bytes.len, ret, error);
	kx_buf_done(&bytes);
	return status;
}

static kx_status add_moment(struct kx_embedded *embedded, const struct kx_moment *moment, struct kx_error *error)
{
	if (embedded->moment_count == MOMENTS_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "longer than a query can be (%u moments of %u seconds). Index it instead",
				    MOMENTS_MAX, KX_CLI_MOMENT_US / 1000000u);
	struct kx_moment **grown =
		realloc(embedded->moments, (embedded->moment_count + 1u) * sizeof(struct kx_moment *));
	if (grown == NULL)
		return kx_error_nomem(error);
	embedded->moments = grown;
	kx_status status = copy_moment(moment, &grown[embedded->moment_count], error);
	if (status == KX_OK)
		embedded->moment_count++;
	return status;
}

static void on_moment(void *ctx, const struct kx_job *job, const struct kx_moment *moment)
{
	struct collection *collection = ctx;
	(void)job;
	pthread_mutex_lock(&collection->mutex);
	if (collection->failure.status == KX_OK)
		(void)!add_moment(collection->embedded, moment, &collection->failure);
	pthread_mutex_unlock(&collection->mutex);
}

static void on_done(void *ctx, const struct kx_job *job, const struct kx_outcome *outcome)
{
	struct collection *collection = ctx;
	pthread_mutex_lock(&collection->mutex);
	if (outcome->reason != KX_REASON_NONE)
		kx_error_set(&collection->failure, KX_ECORRUPT, KX_ERROR_POISON, "%s: %s (%s)", job->source,
			     outcome->message, kx_reason_name(outcome->reason));
	else if (kx_probe_info_copy(&outcome->info, &collection->embedded->info) != KX_OK)
		kx_error_nomem(&collection->failure);
	collection->done = true;
	pthread_cond_signal(&collection->changed);
	pthread_mutex_unlock(&collection->mutex);
}

static kx_status wait_for(struct collection *collection, struct kx_error *error)
{
	kx_status status = KX_OK;
	pthread_mutex_lock(&collection->mutex);
	while (!collection->done && status == KX_OK) {
		struct timespec deadline = kx_clock_deadline(WAIT_MS);
		pthread_cond_timedwait(&collection->changed, &collection->mutex, &deadline);
		if (kx_stop_asked(&kx_interrupted))
			status = kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopped");
	}
	if (status == KX_OK && collection->failure.status != KX_OK) {
		status = collection->failure.status;
		if (error != NULL)
			*error = collection->failure;
	}
	pthread_mutex_unlock(&collection->mutex);
	return status;
}

static kx_status look_at(struct kx_engine *engine, const char *path, struct kx_fetch_info *ret, struct kx_error *error)
{
	enum kx_reason reason;
	struct stat st;
	if (kx_fetch_is_url(path))
		return kx_fetch_stat(engine->fetch, path, ret, &reason, error);
	if (stat(path, &st) != 0)
		return kx_error_from_errno(error, errno, "opening %s", path);
	ret->size = (uint64_t)st.st_size;
	return KX_OK;
}

/* The recipe only has to be the pipeline's own; nothing is stored. */
static kx_status describe(const struct kx_config *config, struct kx_engine *engine, char *path, struct kx_job *ret,
			  struct kx_error *error)
{
	struct kx_fetch_info info = {0};
	struct kx_sampling sampling = {.fps = FPS, .moment_us = KX_CLI_MOMENT_US};
	kx_status status = kx_cli_decode(config, &sampling, error);
	if (status == KX_OK)
		status = look_at(engine, path, &info, error);
	if (status != KX_OK)
		return status;
	*ret = (struct kx_job){
		.run_id = (char *)"query",
		.video_id = path,
		.generation = 1,
		.parts = 1,
		.tracks = KX_TRACK_VISUAL | KX_TRACK_AUDIO,
		.source = path,
		.content_bytes = info.size,
		.fps = sampling.fps,
		.decode_mode = sampling.mode,
		.decode_tolerance_us = sampling.tolerance_us,
		.moment_us = sampling.moment_us,
		.attempt = 1,
	};
	memcpy(ret->content_sha256, info.fingerprint, KX_SHA_LEN);
	kx_pipeline_recipe(engine->pipeline, &sampling, ret->recipe_sha256);
	return KX_OK;
}

static kx_status run_job(const struct kx_config *config, struct kx_engine *engine, char *path,
			 struct collection *collection, struct kx_error *error)
{
	struct kx_job job;
	struct kx_pipeline_sink sink = {.ctx = collection, .moment = on_moment, .done = on_done};
	kx_status status = describe(config, engine, path, &job, error);
	if (status == KX_OK)
		status = kx_pipeline_submit(engine->pipeline, &job, &sink, error);
	if (status != KX_OK)
		return status;
	status = wait_for(collection, error);
	/* Freed, the pipeline calls no sink any more, so that the collection may leave the stack. */
	kx_pipeline_free(KX_STEAL(engine->pipeline));
	return status;
}

kx_status kx_embed_file(const struct kx_config *config, struct kx_engine *engine, const char *run_dir,
			const char *path, struct kx_embedded **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_embedded_cleanup) struct kx_embedded *embedded = calloc(1, sizeof(*embedded));
	KX_CLEANUP(kx_cleanup_free) char *absolute =
		kx_fetch_is_url(path) ? kx_strdup(path) : realpath(path, NULL);
	if (embedded == NULL)
		return kx_error_nomem(error);
	if (absolute == NULL)
		return kx_error_from_errno(error, errno, "opening %s", path);
	struct collection collection = {.embedded = embedded};
	pthread_mutex_init(&collection.mutex, NULL);
	kx_status status = kx_cond_init(&collection.changed);
	if (status == KX_OK)
		status = kx_engine_start(engine, config, run_dir, error);
	if (status == KX_OK)
		status = run_job(config, engine, absolute, &collection, error);
	pthread_cond_destroy(&collection.changed);
	pthread_mutex_destroy(&collection.mutex);
	if (status == KX_OK)
		*ret = KX_STEAL(embedded);
	return status;
}

void kx_embedded_free(struct kx_embedded *embedded)
{
	if (embedded == NULL)
		return;
	for (uint32_t i = 0; i < embedded->moment_count; i++)
		kx_moment_free(embedded->moments[i]);
	free(embedded->moments);
	kx_probe_info_done(&embedded->info);
	free(embedded);
}

void kx_embedded_cleanup(struct kx_embedded **embedded)
{
	kx_embedded_free(*embedded);
}
