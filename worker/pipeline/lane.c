#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "worker/pipeline/internal.h"
#include "worker/pipeline/verdict.h"

/* Between a child's exit and its last message: what it sent is in our socket already, and only has to be read. A child
 * that ended well surely sent END, and a crowded machine may let ZeroMQ's thread wait for seconds; one that was killed
 * hardly ever did. */
#define GRACE_DONE_US 60000000u
#define GRACE_CRASHED_US 100000u

kx_status kx_lane_prepare(struct kx_pipeline *pipeline, struct kx_lane *lane, struct kx_error *error)
{
	if (lane->stale) {
		kx_ring_free(lane->ring);
		lane->ring = NULL;
		lane->stale = false;
	}
	if (!lane->busy) {
		lane->busy = calloc(pipeline->ring_slots, sizeof(*lane->busy));
		if (!lane->busy)
			return kx_error_nomem(error);
	}
	for (uint32_t i = 0; i < pipeline->ring_slots; i++)
		lane->busy[i] = false;
	if (!lane->ring)
		return kx_ring_new(pipeline->ring_slots, pipeline->slot_bytes, &lane->ring, error);
	kx_ring_reset(lane->ring);
	return KX_OK;
}

void kx_lane_done(struct kx_lane *lane)
{
	kx_fetch_stream_free(lane->stream);
	kx_ring_free(lane->ring);
	free(lane->busy);
}

uint64_t kx_lane_deadline_us(const struct kx_lane *lane)
{
	uint64_t waited_us = lane->stream ? kx_fetch_stream_waited_us(lane->stream) : 0;

	return waited_us < UINT64_MAX - lane->deadline_us ? lane->deadline_us + waited_us : UINT64_MAX;
}

struct kx_lane *kx_lane_find(struct kx_pipeline *pipeline, uint64_t ticket)
{
	for (size_t i = 0; i < pipeline->lane_count; i++) {
		struct kx_lane *lane = &pipeline->lanes[i];

		if (lane->run && lane->ticket == ticket)
			return lane;
	}
	return NULL;
}

static bool same_peer(const struct kx_wire_peer *a, const struct kx_wire_peer *b)
{
	if (a->len != b->len)
		return false;
	for (size_t i = 0; i < a->len; i++) {
		if (a->name[i] != b->name[i])
			return false;
	}
	return true;
}

/* The first who knows the ticket is the child it was given to. */
static bool from_its_child(struct kx_lane *lane, const struct kx_wire_peer *peer)
{
	if (!lane->bound) {
		lane->bound = true;
		lane->peer = *peer;
	}
	return same_peer(&lane->peer, peer);
}

static void broke_protocol(struct kx_pipeline *pipeline, struct kx_run *run, const char *how)
{
	kx_run_fail(pipeline, run, KX_REASON_CRASHED, true, how);
}

static void on_opened(struct kx_pipeline *pipeline, struct kx_run *run, const struct kx_probe_info *info)
{
	if (run->opened)
		broke_protocol(pipeline, run, "the decoder opened its file twice");
	else if (kx_probe_info_copy(info, &run->info) != KX_OK)
		kx_run_fail(pipeline, run, KX_REASON_INTERNAL, true, "out of memory");
	else
		run->opened = true;
}

static void take_slot(struct kx_pipeline *pipeline, struct kx_lane *lane, uint32_t slot, uint64_t now_us)
{
	lane->busy[slot] = true;
	if (++lane->used == pipeline->ring_slots)
		lane->full_since_us = now_us;
}

void kx_lane_release(struct kx_lane *lane, uint32_t slot, uint64_t now_us)
{
	lane->busy[slot] = false;
	lane->used--;
	if (lane->full_since_us != 0) { /* the time that it waited for us is not its own */
		if (lane->deadline_us != UINT64_MAX)
			lane->deadline_us += now_us - lane->full_since_us;
		lane->full_since_us = 0;
	}
	kx_ring_release(lane->ring, slot);
}

static void queue_item(struct kx_pipeline *pipeline, struct kx_lane *lane, size_t track, struct kx_row *row,
		       uint32_t slot)
{
	struct kx_run *run = lane->run;
	struct kx_work *work = calloc(1, sizeof(*work));
	uint64_t now_us = kx_clock_mono_us();

	if (!work) {
		kx_run_fail(pipeline, run, KX_REASON_INTERNAL, true, "out of memory");
		return;
	}
	work->item.owner = run;
	work->run = run;
	work->row = row;
	work->slot = slot;
	run->items++;
	take_slot(pipeline, lane, slot, now_us);
	kx_batcher_push(&pipeline->batcher, track, &work->item, now_us);
	pthread_cond_signal(&pipeline->work);
}

static void on_sample(struct kx_pipeline *pipeline, struct kx_lane *lane, enum kx_modality modality,
		      const struct kx_sample *sample)
{
	struct kx_run *run = lane->run;
	size_t track = kx_track_index(modality);
	uint32_t wanted = modality == KX_VISUAL ? KX_TRACK_VISUAL : KX_TRACK_AUDIO;
	struct kx_error error = {0};
	struct kx_row *row = NULL;

	if (!run->opened || !(run->job->tracks & wanted)) {
		broke_protocol(pipeline, run, "the decoder sent what nobody asked for");
		return;
	}
	if (sample->slot >= pipeline->ring_slots || lane->busy[sample->slot]) {
		broke_protocol(pipeline, run, "the decoder named a slot that is not its own");
		return;
	}
	if (kx_assembler_expect(&run->track[track], sample, &row, &error) != KX_OK) {
		/* Times that no grid reaches stand in the file; all else is the child's fault, or ours. */
		enum kx_reason reason = error.class == KX_ERROR_POISON ? KX_REASON_TOO_LARGE : KX_REASON_INTERNAL;

		kx_run_fail(pipeline, run, reason, error.class == KX_ERROR_RETRY, error.message);
		return;
	}
	queue_item(pipeline, lane, track, row, sample->slot);
	kx_run_kick(pipeline, run);
}

static void on_end(struct kx_pipeline *pipeline, struct kx_lane *lane, const struct kx_decode_end *end)
{
	struct kx_run *run = lane->run;

	if (end->reason != KX_REASON_NONE) {
		kx_run_fail(pipeline, run, end->reason, end->retriable, end->message);
	} else if (!run->opened) {
		broke_protocol(pipeline, run, "the decoder ended before it opened its file");
	} else {
		run->end = *end;
		run->end.message = NULL;
		run->ended = true;
		for (size_t i = 0; i < KX_TRACKS; i++)
			kx_assembler_end(&run->track[i]);
	}
	if (!lane->alive) { /* its exit came first */
		lane->grace_us = 0;
		run->gone = true;
	}
	pthread_cond_signal(&pipeline->work); /* the last batch need not wait */
	kx_run_kick(pipeline, run);
}

void kx_lane_event(struct kx_pipeline *pipeline, const struct kx_wire_peer *peer, const struct kx_decode_event *event)
{
	struct kx_lane *lane = kx_lane_find(pipeline, event->ticket);

	/* Late words of a child whose job is settled. */
	if (!lane || lane->run->failed || lane->run->ended || !from_its_child(lane, peer))
		return;
	switch (event->kind) {
	case KX_DECODE_OPENED:
		on_opened(pipeline, lane->run, &event->opened);
		break;
	case KX_DECODE_FRAME:
		on_sample(pipeline, lane, KX_VISUAL, &event->sample);
		break;
	case KX_DECODE_PATCH:
		on_sample(pipeline, lane, KX_AUDIO, &event->sample);
		break;
	case KX_DECODE_END:
		on_end(pipeline, lane, &event->end);
		break;
	case KX_DECODE_DETAIL: /* of inspections only, which are no jobs */
		break;
	}
}

void kx_lane_exit(struct kx_pipeline *pipeline, const struct kx_host_exit *exit)
{
	struct kx_lane *lane = kx_lane_find(pipeline, exit->header.ticket);

	if (!lane || !lane->alive)
		return;
	lane->alive = false;
	lane->exit = *exit;
	lane->run->decode_cpu_us = exit->cpu_us;
	lane->run->decode_rss_bytes = exit->max_rss_bytes;
	if (exit->words_len > 0) /* NULL, then there are none to be read */
		lane->run->words = kx_strndup(exit->words, exit->words_len);
	pipeline->running--;
	pthread_cond_broadcast(&pipeline->work); /* streams may be waiting for more of it */
	if (lane->run->failed || lane->run->ended) {
		kx_run_gone(pipeline, lane->run);
		return;
	}
	lane->grace_us = kx_clock_mono_us() + (exit->wait_status == 0 ? GRACE_DONE_US : GRACE_CRASHED_US);
}

void kx_lane_host_died(struct kx_pipeline *pipeline, struct kx_lane *lane)
{
	struct kx_run *run = lane->run;

	if (!run || !lane->alive)
		return;
	lane->alive = false;
	lane->stale = true;
	pipeline->running--;
	pthread_cond_broadcast(&pipeline->work);
	if (!run->ended)
		kx_run_fail(pipeline, run, KX_REASON_CRASHED, true, "the decoder host died");
	kx_run_gone(pipeline, run);
}

static void give_up(struct kx_pipeline *pipeline, struct kx_lane *lane)
{
	struct kx_verdict verdict;

	lane->grace_us = 0;
	kx_verdict_of(&lane->exit, &lane->limits, lane->wall_killed, &verdict);
	kx_run_fail(pipeline, lane->run, verdict.reason, verdict.retriable, verdict.message);
	kx_run_gone(pipeline, lane->run);
}

static void kill_child(struct kx_pipeline *pipeline, struct kx_lane *lane)
{
	lane->told_to_die = true;
	/* A host that does not take it is dead, and so will the child be. */
	if (kx_host_kill(&pipeline->channel.host, lane->ticket) != KX_OK)
		kx_log(KX_LOG_DEBUG, "decoder host took no kill");
}

uint64_t kx_lane_tick(struct kx_pipeline *pipeline, struct kx_lane *lane, uint64_t now_us)
{
	if (!lane->run)
		return UINT64_MAX;
	if (!lane->alive) {
		if (lane->grace_us == 0)
			return UINT64_MAX;
		if (now_us < lane->grace_us && !lane->run->failed)
			return lane->grace_us;
		give_up(pipeline, lane);
		return UINT64_MAX;
	}
	if (lane->told_to_die)
		return UINT64_MAX;
	if (lane->run->failed) {
		kill_child(pipeline, lane);
		return UINT64_MAX;
	}
	if (lane->full_since_us != 0) /* the clock stands; who gives a slot back lets it run */
		return UINT64_MAX;
	if (now_us < kx_lane_deadline_us(lane))
		return kx_lane_deadline_us(lane);
	lane->wall_killed = true;
	kill_child(pipeline, lane);
	return UINT64_MAX;
}
