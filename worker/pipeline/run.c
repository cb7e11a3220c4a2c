#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "worker/pipeline/internal.h"

#define JOB_BYTES_MAX (64u << 10)

static kx_status copy_job(const struct kx_job *job, struct kx_job **ret, struct kx_error *error)
{
	struct kx_buf packed = {.max = JOB_BYTES_MAX};
	kx_status status = kx_job_pack(job, &packed);

	if (status == KX_OK)
		status = kx_job_unpack(packed.data, packed.len, ret, error);
	else
		kx_error_set(error, status, KX_ERROR_POISON, "job: %s", kx_status_name(status));
	kx_buf_done(&packed);
	return status;
}

static void init_track(struct kx_pipeline *pipeline, struct kx_run *run, enum kx_modality modality)
{
	size_t i = kx_track_index(modality);
	const struct kx_bundle *bundle = pipeline->bundle[i];
	struct kx_track_shape shape = {
		.modality = modality,
		.space = pipeline->space[i],
		.moment_us = run->job->moment_us,
		.fps = run->job->fps,
	};

	if (bundle) {
		shape.dim = bundle->feature_dim;
		shape.class_count = bundle->class_count;
	}
	kx_assembler_init(&run->track[i], &shape);
}

struct kx_run *kx_run_new(struct kx_pipeline *pipeline, const struct kx_job *job, const struct kx_pipeline_sink *sink,
			  struct kx_error *error)
{
	struct kx_run *run = calloc(1, sizeof(*run));

	if (!run) {
		kx_error_nomem(error);
		return NULL;
	}
	if (copy_job(job, &run->job, error) != KX_OK) {
		free(run);
		return NULL;
	}
	run->sink = *sink;
	run->reason = KX_REASON_NONE;
	init_track(pipeline, run, KX_VISUAL);
	init_track(pipeline, run, KX_AUDIO);
	return run;
}

void kx_run_free(struct kx_run *run)
{
	if (!run)
		return;
	for (size_t i = 0; i < KX_TRACKS; i++)
		kx_assembler_done(&run->track[i]);
	kx_probe_info_done(&run->info);
	kx_job_free(run->job);
	free(run->message);
	free(run->words);
	free(run);
}

void kx_run_link(struct kx_pipeline *pipeline, struct kx_run *run)
{
	run->next = pipeline->runs;
	if (run->next)
		run->next->prev = run;
	pipeline->runs = run;
	pipeline->run_count++;
	run->begun_us = kx_clock_mono_us();
	*pipeline->waiting_tail = run;
	pipeline->waiting_tail = &run->next_waiting;
	pipeline->waiting_count++;
	kx_pipeline_wake(pipeline);
}

static void drop_items(struct kx_pipeline *pipeline, struct kx_run *run)
{
	struct kx_item *item = kx_batcher_drop(&pipeline->batcher, run);

	while (item) {
		struct kx_item *next = item->next;

		run->items--;
		free(item);
		item = next;
	}
}

void kx_run_fail(struct kx_pipeline *pipeline, struct kx_run *run, enum kx_reason reason, bool retriable,
		 const char *message)
{
	if (run->failed)
		return;
	run->failed = true;
	run->reason = reason;
	run->retriable = retriable;
	run->message = kx_strdup(message); /* NULL, then the reason must say it */
	drop_items(pipeline, run);
	kx_pipeline_wake(pipeline);
	kx_run_kick(pipeline, run);
}

void kx_run_gone(struct kx_pipeline *pipeline, struct kx_run *run)
{
	run->gone = true;
	kx_run_kick(pipeline, run);
}

static bool has_moment(const struct kx_run *run)
{
	return !run->failed && (kx_assembler_ready(&run->track[0]) || kx_assembler_ready(&run->track[1]));
}

bool kx_run_finished(const struct kx_run *run)
{
	return run->gone && run->items == 0 && (run->failed || (run->ended && !has_moment(run)));
}

void kx_run_kick(struct kx_pipeline *pipeline, struct kx_run *run)
{
	if (run->listed || run->delivering || !(has_moment(run) || kx_run_finished(run)))
		return;
	run->listed = true;
	run->next_listed = NULL;
	*pipeline->listed_tail = run;
	pipeline->listed_tail = &run->next_listed;
	pthread_cond_signal(&pipeline->work);
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void part_end(const struct kx_run *run, struct kx_part_end *ret)
{
	const struct kx_job *job = run->job;
	const struct kx_assembler *visual = &run->track[0], *audio = &run->track[1];

	*ret = (struct kx_part_end){
		.part = job->part,
		.parts = job->parts,
		.tracks = job->tracks,
		.frames = (uint32_t)visual->row_count,
		.patches = (uint32_t)audio->row_count,
		.visual_us = run->end.visual_us,
		.audio_us = run->end.audio_us,
		.has_visual = (job->tracks & KX_TRACK_VISUAL) && run->info.has_visual,
		.has_audio = (job->tracks & KX_TRACK_AUDIO) && run->info.has_audio,
		.truncated = run->end.truncated,
		.decode_mode = job->decode_mode,
		.decode_tolerance_us = job->decode_tolerance_us,
		.moment_us = job->moment_us,
		.max_time_error_us = max_u64(visual->max_error_us, audio->max_error_us),
	};
	memcpy(ret->recipe_sha256, job->recipe_sha256, sizeof(ret->recipe_sha256));
}

static const struct kx_failure *failure_of(struct kx_run *run, const char *message)
{
	if (!run->failed || !run->had_child)
		return NULL;
	run->failure = (struct kx_failure){
		.name = run->job->video_id,
		.source = run->job->source,
		.fd = -1,
		.sha256 = run->job->content_sha256,
		.request = &run->request,
		.reason = run->reason,
		.retriable = run->retriable,
		.attempt = run->job->attempt,
		.message = message,
		.words = run->words ? run->words : "",
	};
	return &run->failure;
}

void kx_run_outcome(struct kx_run *run, struct kx_outcome *ret)
{
	*ret = (struct kx_outcome){
		.reason = run->reason,
		.retriable = run->retriable,
		.message = run->message ? run->message : run->failed ? kx_reason_help(run->reason) : "",
		.info = run->info,
		.decode_cpu_us = run->decode_cpu_us,
		.decode_rss_bytes = run->decode_rss_bytes,
		.wall_us = kx_clock_mono_us() - run->begun_us,
	};
	ret->failure = failure_of(run, ret->message);
	if (!run->failed)
		part_end(run, &ret->end);
}

void kx_pipeline_wake(struct kx_pipeline *pipeline)
{
	const uint64_t one = 1;

	/* It can only fail when the counter is full, and then the thread is awake. */
	if (write(pipeline->wake_fd, &one, sizeof(one)) < 0)
		return;
}
