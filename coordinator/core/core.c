#include "coordinator/core/core.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/base/str.h"
#include "coordinator/core/actions.h"
#include "coordinator/core/plan.h"

enum part_state { PART_READY, PART_OUT, PART_FINISHED };

enum video_phase {
	VIDEO_RUNNING,
	VIDEO_COPYING,  /* no jobs: a shard was asked to copy */
	VIDEO_DELETING, /* no jobs: a shard was asked to forget it */
};

struct part {
	TAILQ_ENTRY(part) link; /* in core->ready or core->out; in none when finished */
	struct video *video;
	struct kx_span span;
	uint64_t span_us;
	uint32_t index;
	uint32_t attempt;       /* 1-based; of the job that is out, or the next one */
	uint64_t out_us;        /* when it was published */
	enum part_state state;
};
TAILQ_HEAD(part_list, part);

struct video {
	TAILQ_ENTRY(video) link;
	struct kx_input *input; /* as it will stand in the ledger */
	struct kx_probe_info info;
	enum video_phase phase;
	uint32_t part_count;
	struct part *parts;
	uint32_t finished;
	uint64_t media_us;      /* counted as finished so far */
	uint64_t quiet_since_us;/* nothing is out any more: waiting for the shard */
	uint64_t stored_bytes;
};
TAILQ_HEAD(video_list, video);

struct kx_core {
	struct kx_core_options options;
	char *run_id;
	char *software;
	struct video_list videos;
	struct part_list ready;
	struct part_list out; /* in the order of publishing */
	size_t ready_count;
	size_t out_count;
	struct kx_core_counts counts;
};

/* What every handler needs. */
struct step {
	struct kx_core *core;
	const struct kx_core_event *event;
	struct kx_core_actions *actions;
};

kx_status kx_core_new(const struct kx_core_options *options, struct kx_core **ret)
{
	KX_CLEANUP(kx_core_cleanup) struct kx_core *core = calloc(1, sizeof(*core));
	if (core == NULL)
		return KX_ENOMEM;
	TAILQ_INIT(&core->videos);
	TAILQ_INIT(&core->ready);
	TAILQ_INIT(&core->out);
	core->options = *options;
	core->run_id = kx_strdup(options->run_id);
	core->software = kx_strdup(options->software);
	if (core->run_id == NULL || core->software == NULL)
		return KX_ENOMEM;
	*ret = KX_STEAL(core);
	return KX_OK;
}

static void unlink_part(struct kx_core *core, struct part *part)
{
	if (part->state == PART_READY) {
		TAILQ_REMOVE(&core->ready, part, link);
		core->ready_count--;
	} else if (part->state == PART_OUT) {
		TAILQ_REMOVE(&core->out, part, link);
		core->out_count--;
	}
	part->state = PART_FINISHED;
}

static void drop_parts(struct kx_core *core, struct video *video)
{
	for (uint32_t i = 0; i < video->part_count; i++)
		unlink_part(core, &video->parts[i]);
	free(video->parts);
	video->parts = NULL;
	video->part_count = 0;
}

static void video_free(struct video *video)
{
	kx_input_free(video->input);
	kx_probe_info_done(&video->info);
	free(video->parts);
	free(video);
}

static void drop_video(struct kx_core *core, struct video *video)
{
	drop_parts(core, video);
	TAILQ_REMOVE(&core->videos, video, link);
	video_free(video);
}

void kx_core_free(struct kx_core *core)
{
	if (core == NULL)
		return;
	struct video *video;
	while (core->run_id != NULL && (video = TAILQ_FIRST(&core->videos)) != NULL)
		drop_video(core, video);
	free(core->run_id);
	free(core->software);
	free(core);
}

void kx_core_cleanup(struct kx_core **core)
{
	kx_core_free(*core);
}

/* Videos on their way are few: a list is enough. */
static struct video *find_video(struct kx_core *core, const char *id, uint64_t generation)
{
	struct video *video;
	TAILQ_FOREACH (video, &core->videos, link)
		if (video->input->generation == generation && strcmp(video->input->video_id, id) == 0)
			return video;
	return NULL;
}

static void describe(const struct kx_core *core, const struct video *video, uint64_t wall_ms,
		     struct kx_video_info *ret)
{
	const struct kx_input *input = video->input;
	const struct kx_probe_info *info = &video->info;
	*ret = (struct kx_video_info){
		.title = input->title,
		.label_count = input->label_count,
		.labels = input->labels,
		.source = input->source,
		.content_bytes = input->content_bytes,
		.duration_us = info->duration_us,
		.width = info->width,
		.height = info->height,
		.container = info->container,
		.video_codec = info->video_codec,
		.audio_codec = info->audio_codec,
		.run_id = core->run_id,
		.planned_at_ms = wall_ms,
		.extras = input->extras,
	};
	memcpy(ret->content_sha256, input->content_sha256, KX_SHA_LEN);
	memcpy(ret->recipe_sha256, core->options.recipe_sha256, KX_SHA_LEN);
}

static uint64_t or_default(uint64_t wanted, uint64_t fallback)
{
	return wanted != 0 ? wanted : fallback;
}

static void describe_job(const struct kx_core *core, const struct part *part, struct kx_job *ret)
{
	const struct kx_core_options *options = &core->options;
	const struct kx_input *input = part->video->input;
	struct kx_limits limits = kx_plan_limits(part->span_us, input->content_bytes);
	*ret = (struct kx_job){
		.run_id = core->run_id,
		.video_id = input->video_id,
		.generation = input->generation,
		.part = part->index,
		.parts = part->video->part_count,
		.tracks = part->span.tracks,
		.source = input->source,
		.content_bytes = input->content_bytes,
		.start_us = part->span.start_us,
		.end_us = part->span.end_us,
		.fps = options->fps,
		.decode_mode = options->decode_mode,
		.decode_tolerance_us = options->decode_tolerance_us,
		.moment_us = options->moment_us,
		.attempt = part->attempt,
		.wall_limit_ms = or_default(options->wall_limit_ms, limits.wall_ms),
		.cpu_limit_ms = or_default(options->cpu_limit_ms, limits.cpu_ms),
		.memory_limit_bytes = or_default(options->memory_limit_bytes, limits.memory_bytes),
	};
	memcpy(ret->content_sha256, input->content_sha256, KX_SHA_LEN);
	memcpy(ret->recipe_sha256, options->recipe_sha256, KX_SHA_LEN);
}

/* Publishes ready parts as far as jobs_ahead allows. */
static kx_status dispatch(struct step *step)
{
	struct kx_core *core = step->core;
	struct part *part;
	while (core->out_count < core->options.jobs_ahead && (part = TAILQ_FIRST(&core->ready)) != NULL) {
		struct kx_job job;
		describe_job(core, part, &job);
		kx_status status = kx_actions_job(step->actions, &job);
		if (status != KX_OK)
			return status;
		TAILQ_REMOVE(&core->ready, part, link);
		core->ready_count--;
		part->state = PART_OUT;
		part->out_us = step->event->now_us;
		TAILQ_INSERT_TAIL(&core->out, part, link);
		core->out_count++;
	}
	return KX_OK;
}

static kx_status put_input(struct step *step, struct video *video, enum kx_input_state state)
{
	video->input->state = state;
	video->input->updated_at_ms = step->event->wall_ms;
	return kx_actions_input(step->actions, video->input, NULL);
}

static kx_status publish_plan(struct step *step, struct video *video)
{
	struct kx_result result = {
		.video_id = video->input->video_id,
		.generation = video->input->generation,
		.kind = KX_RESULT_PLAN,
		.parts = video->part_count,
	};
	describe(step->core, video, step->event->wall_ms, &result.info);
	return kx_actions_result(step->actions, &result);
}

static kx_status plan_parts(struct step *step, struct video *video)
{
	struct kx_core *core = step->core;
	uint64_t segment_us = core->options.segment_us;
	uint32_t count = kx_plan_parts(&video->info, segment_us);
	video->parts = calloc(count, sizeof(struct part));
	if (video->parts == NULL)
		return KX_ENOMEM;
	video->part_count = count;
	for (uint32_t i = 0; i < count; i++) {
		struct part *part = &video->parts[i];
		part->video = video;
		part->index = i;
		part->attempt = 1;
		part->span = kx_plan_span(&video->info, segment_us, i);
		part->span_us = kx_plan_span_us(&video->info, &part->span);
		part->state = PART_READY;
		TAILQ_INSERT_TAIL(&core->ready, part, link);
		core->ready_count++;
	}
	return publish_plan(step, video);
}

static kx_status publish_copy(struct step *step, struct video *video)
{
	struct kx_result result = {
		.video_id = video->input->video_id,
		.generation = video->input->generation,
		.kind = KX_RESULT_COPY,
		.copy_from = video->input->copy_of,
	};
	describe(step->core, video, step->event->wall_ms, &result.info);
	video->phase = VIDEO_COPYING;
	video->quiet_since_us = step->event->now_us;
	return kx_actions_result(step->actions, &result);
}

/* A generation is higher than any before, also those of runs whose ledger was lost: Unix time serves. */
static uint64_t next_generation(const struct step *step)
{
	uint64_t last = step->event->input->generation;
	return step->event->wall_ms > last ? step->event->wall_ms : last + 1;
}

static struct video *new_video(struct step *step)
{
	struct video *video = calloc(1, sizeof(*video));
	if (video == NULL)
		return NULL;
	video->input = kx_input_clone(step->event->input);
	if (video->input == NULL || kx_probe_info_copy(step->event->info, &video->info) != KX_OK ||
	    kx_str_set(&video->input->message, "") != KX_OK) {
		video_free(video);
		return NULL;
	}
	struct kx_input *input = video->input;
	input->generation = next_generation(step);
	input->duration_us = video->info.duration_us;
	input->covered_us = 0;
	input->attempts = 0;
	input->reason = KX_REASON_NONE;
	memcpy(input->recipe_sha256, step->core->options.recipe_sha256, KX_SHA_LEN);
	return video;
}

static kx_status on_found(struct step *step)
{
	struct kx_core *core = step->core;
	struct video *video = new_video(step);
	if (video == NULL)
		return KX_ENOMEM;
	TAILQ_INSERT_TAIL(&core->videos, video, link);
	kx_status status = put_input(step, video, KX_INPUT_PLANNED);
	if (status == KX_OK)
		status = step->event->kind == KX_CORE_COPIED ? publish_copy(step, video) : plan_parts(step, video);
	if (status != KX_OK) {
		drop_video(core, video);
		return status;
	}
	core->counts.media_planned_us += video->info.duration_us;
	return KX_OK;
}

/* Tells the shard to forget what it has of the video up to its present generation. */
static kx_status publish_delete(struct step *step, const struct kx_input *input)
{
	struct kx_result result = {
		.video_id = input->video_id, .generation = input->generation, .kind = KX_RESULT_DELETE};
	return kx_actions_result(step->actions, &result);
}

static kx_status quarantine(struct step *step, struct kx_input *input, enum kx_reason reason, const char *message)
{
	struct kx_core *core = step->core;
	kx_status status = kx_str_set(&input->message, message);
	if (status != KX_OK)
		return status;
	input->state = KX_INPUT_QUARANTINED;
	input->reason = reason;
	input->covered_us = 0;
	input->updated_at_ms = step->event->wall_ms;
	struct kx_dead_letter letter = {
		.video_id = input->video_id,
		.source = input->source,
		.reason = reason,
		.message = input->message,
		.attempts = input->attempts,
		.generation = input->generation,
		.at_ms = step->event->wall_ms,
		.run_id = core->run_id,
		.software = core->software,
	};
	if (input->generation != 0)
		status = publish_delete(step, input);
	if (status == KX_OK)
		status = kx_actions_input(step->actions, input, &letter);
	if (status == KX_OK) {
		core->counts.quarantined++;
		core->counts.reasons[reason]++;
	}
	return status;
}

static kx_status on_refused(struct step *step)
{
	KX_CLEANUP(kx_input_cleanup) struct kx_input *input = kx_input_clone(step->event->input);
	if (input == NULL)
		return KX_ENOMEM;
	KX_CLEANUP(kx_cleanup_free) char *message = kx_strdup(input->message);
	if (message == NULL)
		return KX_ENOMEM;
	input->attempts = 1;
	memcpy(input->recipe_sha256, step->core->options.recipe_sha256, KX_SHA_LEN);
	return quarantine(step, input, input->reason, message);
}

static kx_status put_deleted(struct step *step, struct video *video)
{
	video->input->covered_us = 0;
	kx_status status = put_input(step, video, KX_INPUT_DELETED);
	if (status == KX_OK)
		step->core->counts.deleted++;
	return status;
}

/* Takes the video over. The ledger follows when the shard has confirmed: a crash in between must not leave a video that
 * is said to be gone. */
static kx_status forget(struct step *step, struct video *video)
{
	kx_status status = publish_delete(step, video->input);
	if (status != KX_OK) {
		video_free(video);
		return status;
	}
	video->phase = VIDEO_DELETING;
	video->quiet_since_us = step->event->now_us;
	TAILQ_INSERT_TAIL(&step->core->videos, video, link);
	return KX_OK;
}

static kx_status on_gone(struct step *step)
{
	struct video *video = calloc(1, sizeof(*video));
	if (video == NULL)
		return KX_ENOMEM;
	video->input = kx_input_clone(step->event->input);
	if (video->input != NULL && video->input->generation != 0)
		return forget(step, video);
	/* It was refused each time, so that no shard has heard of it. */
	kx_status status = video->input != NULL ? put_deleted(step, video) : KX_ENOMEM;
	video_free(video);
	return status;
}

static kx_status on_deleted(struct step *step, struct video *video)
{
	if (video->phase != VIDEO_DELETING)
		return KX_OK;
	kx_status status = put_deleted(step, video);
	if (status == KX_OK)
		drop_video(step->core, video);
	return status;
}

static void count_media(struct kx_core *core, struct video *video, uint64_t media_us)
{
	uint64_t left = video->info.duration_us > video->media_us ? video->info.duration_us - video->media_us : 0;
	uint64_t counted = media_us < left || video->info.duration_us == 0 ? media_us : left;
	video->media_us += counted;
	core->counts.media_us += counted;
}

static void on_finished(struct step *step, struct video *video, struct part *part)
{
	struct kx_core *core = step->core;
	unlink_part(core, part);
	video->finished++;
	video->quiet_since_us = step->event->now_us;
	core->counts.decode_cpu_us += step->event->bus->decode_cpu_us;
	count_media(core, video, step->event->bus->media_us);
}

static kx_status give_up(struct step *step, struct video *video, enum kx_reason reason, const char *message)
{
	kx_status status = quarantine(step, video->input, reason, message);
	if (status == KX_OK)
		drop_video(step->core, video);
	return status;
}

/* Back to the end of the queue, so that a bad part does not hold up good ones. */
static void retry(struct kx_core *core, struct part *part)
{
	unlink_part(core, part);
	part->attempt++;
	part->state = PART_READY;
	TAILQ_INSERT_TAIL(&core->ready, part, link);
	core->ready_count++;
}

static kx_status on_failed(struct step *step, struct video *video, struct part *part)
{
	const struct kx_event *bus = step->event->bus;
	step->core->counts.decode_cpu_us += bus->decode_cpu_us;
	video->input->attempts = part->attempt;
	if (bus->retriable && part->attempt < step->core->options.attempts_max) {
		retry(step->core, part);
		return KX_OK;
	}
	return give_up(step, video, bus->reason, bus->message);
}

static kx_status on_missing_source(struct step *step, struct video *video)
{
	video->phase = VIDEO_RUNNING;
	kx_status status = kx_str_set(&video->input->copy_of, "");
	return status == KX_OK ? plan_parts(step, video) : status;
}

static kx_status on_stored(struct step *step, struct video *video)
{
	struct kx_core *core = step->core;
	const struct kx_event *bus = step->event->bus;
	if (bus->missing_source)
		return on_missing_source(step, video);
	struct kx_input *input = video->input;
	input->covered_us = bus->visual_us > bus->audio_us ? bus->visual_us : bus->audio_us;
	if (bus->duration_us != 0)
		input->duration_us = bus->duration_us;
	kx_status status = put_input(step, video, bus->truncated ? KX_INPUT_PARTIAL : KX_INPUT_DONE);
	if (status != KX_OK)
		return status;
	count_media(core, video, video->info.duration_us); /* what is left of it */
	bool copied = video->phase == VIDEO_COPYING;
	core->counts.done += !bus->truncated && !copied;
	core->counts.partial += bus->truncated && !copied;
	core->counts.copied += copied;
	core->counts.indexed_us += copied ? 0 : input->covered_us;
	core->counts.stored_bytes += bus->stored_bytes;
	drop_video(core, video);
	return KX_OK;
}

static kx_status on_bus(struct step *step)
{
	const struct kx_event *bus = step->event->bus;
	struct video *video = find_video(step->core, bus->video_id, bus->generation);
	if (video == NULL)
		return KX_OK;
	if (bus->kind == KX_EVENT_STORED)
		return on_stored(step, video);
	if (bus->kind == KX_EVENT_DELETED)
		return on_deleted(step, video);
	if (bus->part >= video->part_count)
		return KX_OK;
	struct part *part = &video->parts[bus->part];
	/* The first word counts: an attempt that was taken for lost may still come in, and its results are the same. */
	if (bus->kind == KX_EVENT_FINISHED && part->state != PART_FINISHED)
		on_finished(step, video, part);
	else if (bus->kind == KX_EVENT_FAILED && part->state == PART_OUT && bus->attempt == part->attempt)
		return on_failed(step, video, part);
	return KX_OK;
}

static uint64_t patience_us(const struct kx_core *core, const struct part *part)
{
	struct kx_limits limits = kx_plan_limits(part->span_us, part->video->input->content_bytes);
	uint64_t wall_ms = or_default(core->options.wall_limit_ms, limits.wall_ms);
	return core->options.silence_us + 2 * wall_ms * 1000;
}

static kx_status check_part(struct step *step, struct part *part)
{
	struct kx_core *core = step->core;
	if (part->attempt < core->options.attempts_max) {
		retry(core, part);
		return KX_OK;
	}
	part->video->input->attempts = part->attempt;
	return give_up(step, part->video, KX_REASON_INTERNAL, "no worker said how its job went");
}

static kx_status check_video(struct step *step, struct video *video)
{
	if (video->phase == VIDEO_DELETING) {
		/* It stays in the ledger as it was, and the next run asks again. */
		drop_video(step->core, video);
		return KX_OK;
	}
	return give_up(step, video, KX_REASON_INTERNAL,
		       "its jobs are finished, but no shard confirmed that it is stored");
}

/* What nobody speaks of any more. At most one a tick: more would be the bus that is away, not jobs that are lost. */
static kx_status on_tick(struct step *step)
{
	struct kx_core *core = step->core;
	uint64_t now_us = step->event->now_us;
	struct part *part = TAILQ_FIRST(&core->out);
	if (part != NULL && now_us - part->out_us > patience_us(core, part))
		return check_part(step, part);
	struct video *video;
	TAILQ_FOREACH (video, &core->videos, link)
		if (video->finished == video->part_count && now_us - video->quiet_since_us > core->options.silence_us)
			return check_video(step, video);
	return KX_OK;
}

kx_status kx_core_step(struct kx_core *core, const struct kx_core_event *event, struct kx_core_actions *actions)
{
	struct step step = {.core = core, .event = event, .actions = actions};
	kx_status status = KX_OK;
	switch (event->kind) {
	case KX_CORE_FOUND:
	case KX_CORE_COPIED:
		status = on_found(&step);
		break;
	case KX_CORE_REFUSED:
		status = on_refused(&step);
		break;
	case KX_CORE_GONE:
		status = on_gone(&step);
		break;
	case KX_CORE_BUS:
		status = on_bus(&step);
		break;
	case KX_CORE_TICK:
		status = on_tick(&step);
		break;
	}
	return status == KX_OK ? dispatch(&step) : status;
}

bool kx_core_wants_more(const struct kx_core *core)
{
	return core->ready_count + core->out_count < 2 * core->options.jobs_ahead;
}

bool kx_core_idle(const struct kx_core *core)
{
	return TAILQ_EMPTY(&core->videos);
}

const struct kx_core_counts *kx_core_counts(const struct kx_core *core)
{
	return &core->counts;
}
