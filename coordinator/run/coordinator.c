#include "coordinator/run/coordinator.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/bus/topics.h"
#include "coordinator/core/core.h"
#include "coordinator/core/plan.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/run/scan.h"

#define JOBS_AHEAD 32
#define ATTEMPTS_MAX 3
#define SILENCE_US 300000000u /* of bus and shard, beyond what a job may take */
#define EVENT_WAIT_MS 50
#define TICK_US 200000u
#define HEALTH_US 1000000u
#define FLUSH_MS 60000
#define ROOM_MS 1000

struct coordinator {
	const struct kx_coordinator_options *options;
	struct kx_topics topics;
	char run_id[64];
	struct kx_ledger *ledger;
	struct kx_core *core;
	struct kx_core_actions actions;
	struct kx_scan *scan;
	struct kx_bus_consumer *events;
	int job_partitions;
	uint64_t jobs_published;
	uint64_t unchanged;
	double predicted_cpu_s;
	bool scanned;       /* the scan has ended and its finds are all taken */
	bool swept;         /* what was lost from the sources was told to the core */
	uint64_t begun_us, tick_us, health_us;
	atomic_int undelivered; /* a status from a delivery report, or KX_OK */
};

/* --- Actions -------------------------------------------------------------------------------------------------- */

static void delivered(void *ctx, kx_status status)
{
	struct coordinator *c = ctx;
	int none = KX_OK;
	if (status != KX_OK)
		atomic_compare_exchange_strong(&c->undelivered, &none, status);
}

static kx_status publish(struct coordinator *c, enum kx_topic topic, int partition, const char *key,
			 const struct kx_buf *bytes, struct kx_error *error)
{
	const char *name = c->topics.name[topic];
	for (;;) {
		kx_status status = kx_bus_publish(c->options->bus, name, partition, key, strlen(key),
						  bytes->data, bytes->len, delivered, c, error);
		if (status != KX_EAGAIN)
			return status;
		if (kx_stop_asked(c->options->stop))
			return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopped");
		status = kx_bus_wait_room(c->options->bus, name, ROOM_MS);
		if (status == KX_OK || status == KX_ETIMEDOUT)
			status = c->options->health != NULL ? c->options->health(c->options->ctx, error) : KX_OK;
		if (status != KX_OK)
			return status;
	}
}

static kx_status publish_job(struct coordinator *c, const struct kx_job *job, struct kx_error *error)
{
	struct kx_buf bytes = {.max = KX_RECORD_MAX};
	kx_status status = kx_job_pack(job, &bytes);
	/* In turn over the partitions: jobs of one video may run on many workers. */
	if (status == KX_OK)
		status = publish(c, KX_TOPIC_JOBS, (int)(c->jobs_published++ % (uint64_t)c->job_partitions),
				 job->video_id, &bytes, error);
	kx_buf_done(&bytes);
	return status;
}

static kx_status publish_result(struct coordinator *c, const struct kx_result *result, struct kx_error *error)
{
	struct kx_buf bytes = {.max = KX_RECORD_MAX};
	kx_status status = kx_result_pack(result, &bytes);
	if (status == KX_OK)
		status = publish(c, KX_TOPIC_RESULTS, KX_BUS_KEYED, result->video_id, &bytes, error);
	kx_buf_done(&bytes);
	return status;
}

static kx_status put_input(struct coordinator *c, const struct kx_core_action *action, struct kx_error *error)
{
	kx_status status = kx_ledger_put(c->ledger, action->input, action->letter, error);
	if (status != KX_OK || action->letter == NULL)
		return status;
	struct kx_buf bytes = {.max = KX_RECORD_MAX};
	status = kx_dead_letter_pack(action->letter, &bytes);
	if (status == KX_OK)
		status = publish(c, KX_TOPIC_DEAD, KX_BUS_KEYED, action->letter->video_id, &bytes, error);
	kx_buf_done(&bytes);
	return status;
}

static kx_status carry_out(struct coordinator *c, struct kx_error *error)
{
	kx_status status = KX_OK;
	for (size_t i = 0; i < c->actions.count && status == KX_OK; i++) {
		const struct kx_core_action *action = &c->actions.items[i];
		switch (action->kind) {
		case KX_CORE_PUT_INPUT:
			status = put_input(c, action, error);
			break;
		case KX_CORE_PUBLISH_RESULT:
			status = publish_result(c, action->result, error);
			break;
		case KX_CORE_PUBLISH_JOB:
			status = publish_job(c, action->job, error);
			break;
		}
	}
	kx_core_actions_clear(&c->actions);
	return status;
}

static kx_status step(struct coordinator *c, struct kx_core_event event, struct kx_error *error)
{
	event.now_us = kx_clock_mono_us();
	event.wall_ms = kx_clock_wall_ms();
	if (kx_core_step(c->core, &event, &c->actions) != KX_OK)
		return kx_error_nomem(error);
	return carry_out(c, error);
}

/* --- Events --------------------------------------------------------------------------------------------------- */

static kx_status take_find(struct coordinator *c, const struct kx_find *find, struct kx_error *error)
{
	struct kx_core_event event = {.input = find->input, .info = &find->info};
	switch (find->kind) {
	case KX_FIND_UNCHANGED:
		c->unchanged++;
		return KX_OK;
	case KX_FIND_TOUCHED:
		c->unchanged++;
		return kx_ledger_put(c->ledger, find->input, NULL, error);
	case KX_FIND_REFUSED:
		event.kind = KX_CORE_REFUSED;
		break;
	case KX_FIND_COPY:
		event.kind = KX_CORE_COPIED;
		break;
	case KX_FIND_NEW:
		event.kind = KX_CORE_FOUND;
		c->predicted_cpu_s += kx_plan_cpu_s(&find->info, c->options->fps);
		break;
	}
	return step(c, event, error);
}

static kx_status take_finds(struct coordinator *c, struct kx_error *error)
{
	while (!c->scanned && kx_core_wants_more(c->core)) {
		struct kx_find *find = NULL;
		kx_status status = kx_scan_take(c->scan, &find, error);
		if (status == KX_EAGAIN)
			return KX_OK;
		if (status == KX_ENOTFOUND) {
			c->scanned = true;
			return KX_OK;
		}
		if (status == KX_OK)
			status = take_find(c, find, error);
		kx_find_free(find);
		if (status != KX_OK)
			return status;
	}
	return KX_OK;
}

static kx_status take_message(struct coordinator *c, const struct kx_bus_message *message, struct kx_error *error)
{
	struct kx_event *event = NULL;
	struct kx_error bad = {0};
	kx_status status = kx_event_unpack(message->payload, message->len, &event, &bad);
	if (status == KX_ENOMEM)
		return kx_error_nomem(error);
	if (status != KX_OK) {
		kx_error_prefix(&bad, status, "skipping an event at offset %" PRId64 " of %s", message->offset,
				message->topic);
		kx_log_failure(&bad);
		return KX_OK;
	}
	status = step(c, (struct kx_core_event){.kind = KX_CORE_BUS, .bus = event}, error);
	kx_event_free(event);
	return status;
}

/* Waits a little for the first event, then takes what else is there. */
static kx_status take_events(struct coordinator *c, struct kx_error *error)
{
	int wait_ms = c->scanned && kx_core_idle(c->core) ? 0 : EVENT_WAIT_MS;
	for (int i = 0; i < 256; i++) {
		struct kx_bus_message message = {0};
		kx_status status = kx_bus_receive(c->events, i == 0 ? wait_ms : 0, &message, error);
		if (status == KX_EAGAIN)
			return KX_OK;
		if (status != KX_OK)
			return status;
		status = take_message(c, &message, error);
		/* A fenced acknowledgement means that the event comes again, and the core ignores what it knows. */
		(void)!kx_bus_ack(c->events, message.partition, message.offset, message.epoch);
		kx_bus_message_done(&message);
		if (status != KX_OK)
			return status;
	}
	return KX_OK;
}

static kx_status sweep_input(void *ctx, const struct kx_input *input, struct kx_error *error)
{
	struct coordinator *c = ctx;
	if (!kx_scan_lost(c->scan, input))
		return KX_OK;
	return step(c, (struct kx_core_event){.kind = KX_CORE_GONE, .input = input}, error);
}

/* Last, when every copy was made of what is to go. */
static kx_status sweep(struct coordinator *c, struct kx_error *error)
{
	if (c->swept || !c->scanned || !kx_core_idle(c->core))
		return KX_OK;
	c->swept = true;
	return kx_ledger_each(c->ledger, sweep_input, c, error);
}

/* --- The loop ------------------------------------------------------------------------------------------------- */

static void show_progress(struct coordinator *c, uint64_t now_us)
{
	const struct kx_core_counts *counts = kx_core_counts(c->core);
	struct kx_coordinator_progress progress = {
		.found = kx_scan_found(c->scan),
		.scanning = !c->scanned,
		.ended = counts->done + counts->partial + counts->quarantined + counts->copied,
		.unchanged = c->unchanged,
		.quarantined = counts->quarantined,
		.media_us = counts->media_us,
		.media_total_us = counts->media_planned_us,
		.elapsed_us = now_us - c->begun_us,
		.predicted_cpu_s = c->predicted_cpu_s,
	};
	if (progress.media_us > 0 && progress.media_total_us > progress.media_us)
		progress.eta_us = (uint64_t)((double)progress.elapsed_us *
					     (double)(progress.media_total_us - progress.media_us) /
					     (double)progress.media_us);
	if (c->options->progress != NULL)
		c->options->progress(c->options->ctx, &progress);
}

static kx_status check(struct coordinator *c, struct kx_error *error)
{
	uint64_t now_us = kx_clock_mono_us();
	kx_status status = KX_OK;
	if (now_us - c->tick_us >= TICK_US) {
		c->tick_us = now_us;
		show_progress(c, now_us);
		status = step(c, (struct kx_core_event){.kind = KX_CORE_TICK}, error);
	}
	if (status == KX_OK && now_us - c->health_us >= HEALTH_US && c->options->health != NULL) {
		c->health_us = now_us;
		status = c->options->health(c->options->ctx, error);
	}
	kx_status lost = (kx_status)atomic_load(&c->undelivered);
	if (status == KX_OK && lost != KX_OK)
		status = kx_error_set(error, lost, KX_ERROR_FATAL,
				      "the bus did not take a message (%s). Check the brokers and run again; what is done is kept",
				      kx_status_name(lost));
	if (status == KX_OK && kx_stop_asked(c->options->stop))
		status = kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopped");
	return status;
}

static bool is_finished(const struct coordinator *c)
{
	return c->scanned && c->swept && kx_core_idle(c->core);
}

static kx_status loop(struct coordinator *c, struct kx_error *error)
{
	kx_status status = KX_OK;
	while (status == KX_OK && !is_finished(c)) {
		status = check(c, error);
		if (status == KX_OK)
			status = take_finds(c, error);
		if (status == KX_OK)
			status = sweep(c, error);
		if (status == KX_OK)
			status = take_events(c, error);
	}
	return status == KX_OK ? kx_bus_flush(c->options->bus, FLUSH_MS, error) : status;
}

/* --- Begin and end -------------------------------------------------------------------------------------------- */

static void wake(void *ctx)
{
	struct coordinator *c = ctx;
	kx_bus_consumer_wake(c->events);
}

static kx_status start_core(struct coordinator *c, struct kx_error *error)
{
	const struct kx_coordinator_options *options = c->options;
	struct kx_core_options core = {
		.run_id = c->run_id,
		.software = options->software,
		.fps = options->fps,
		.segment_us = options->segment_us,
		.moment_us = options->moment_us,
		.decode_mode = options->decode_mode,
		.decode_tolerance_us = options->decode_tolerance_us,
		.jobs_ahead = options->jobs_ahead != 0 ? options->jobs_ahead : JOBS_AHEAD,
		.attempts_max = options->attempts_max != 0 ? options->attempts_max : ATTEMPTS_MAX,
		.wall_limit_ms = options->wall_limit_ms,
		.cpu_limit_ms = options->cpu_limit_ms,
		.memory_limit_bytes = options->memory_limit_bytes,
		.silence_us = SILENCE_US,
	};
	memcpy(core.recipe_sha256, options->recipe_sha256, KX_SHA_LEN);
	return kx_core_new(&core, &c->core) == KX_OK ? KX_OK : kx_error_nomem(error);
}

static kx_status start(struct coordinator *c, struct kx_error *error)
{
	const struct kx_coordinator_options *options = c->options;
	kx_topics_init(&c->topics, options->ns);
	snprintf(c->run_id, sizeof(c->run_id), "%" PRIu64 "-%d", kx_clock_wall_ms(), (int)getpid());
	kx_status status = kx_ledger_open(options->data_dir, false, &c->ledger, error);
	if (status == KX_OK)
		status = kx_bus_topic(options->bus, c->topics.name[KX_TOPIC_JOBS], 1, 0, &c->job_partitions, error);
	if (status == KX_OK)
		status = start_core(c, error);
	if (status != KX_OK)
		return status;
	char group[KX_NAMESPACE_MAX + 16];
	snprintf(group, sizeof(group), "%s.coordinator", options->ns);
	struct kx_bus_subscription subscription = {.group = group, .topic = c->topics.name[KX_TOPIC_RUNS]};
	status = kx_bus_subscribe(options->bus, &subscription, &c->events, error);
	if (status == KX_OK)
		status = kx_scan_start(options, c->ledger, wake, c, &c->scan, error);
	return status;
}

static void fill_report(const struct coordinator *c, struct kx_coordinator_report *ret)
{
	const struct kx_core_counts *counts = kx_core_counts(c->core);
	*ret = (struct kx_coordinator_report){
		.done = counts->done,
		.partial = counts->partial,
		.quarantined = counts->quarantined,
		.deleted = counts->deleted,
		.unchanged = c->unchanged,
		.copied = counts->copied,
		.media_us = counts->indexed_us,
		.decode_cpu_us = counts->decode_cpu_us,
		.stored_bytes = counts->stored_bytes,
		.wall_us = kx_clock_mono_us() - c->begun_us,
	};
	memcpy(ret->reasons, counts->reasons, sizeof(ret->reasons));
}

kx_status kx_coordinator_run(const struct kx_coordinator_options *options, struct kx_coordinator_report *ret,
			     struct kx_error *error)
{
	struct coordinator c = {.options = options, .begun_us = kx_clock_mono_us()};
	kx_status status = start(&c, error);
	if (status == KX_OK)
		status = loop(&c, error);
	if (status == KX_OK || status == KX_ECANCELED)
		fill_report(&c, ret);
	kx_scan_free(c.scan);
	kx_bus_consumer_close(c.events);
	kx_core_actions_done(&c.actions);
	kx_core_free(c.core);
	kx_ledger_close(c.ledger);
	return status;
}
