/* An inference stream: runs bursts, and sinks what they complete. */
#include <stdlib.h>

#include "common/base/clock.h"
#include "worker/pipeline/internal.h"

/* Moments that are complete and not sunk, over all runs, before streams stop adding to them: a sink that blocks holds
 * back inference, by that the rings, and by that the children. */
#define UNSUNK_MAX 64

/* ---- sinking ---- */

static struct kx_cell *next_cell(struct kx_run *run, const struct kx_track_shape **ret_shape)
{
	for (size_t i = 0; i < KX_TRACKS && !run->failed; i++) {
		struct kx_cell *cell = kx_assembler_take(&run->track[i]);

		if (cell) {
			*ret_shape = &run->track[i].shape;
			return cell;
		}
	}
	return NULL;
}

/* No lock. */
static kx_status sink_cell(struct kx_run *run, struct kx_cell *cell, const struct kx_track_shape *shape,
			   struct kx_error *error)
{
	struct kx_moment moment;
	kx_status status = kx_cell_moment(cell, shape, &moment, error);

	if (status == KX_OK)
		run->sink.moment(run->sink.ctx, run->job, &moment);
	kx_cell_free(cell);
	return status;
}

static void unlink_run(struct kx_pipeline *pipeline, struct kx_run *run)
{
	if (run->prev)
		run->prev->next = run->next;
	else
		pipeline->runs = run->next;
	if (run->next)
		run->next->prev = run->prev;
	pipeline->run_count--;
}

/* Lock held; let go for the call. */
static void finish(struct kx_pipeline *pipeline, struct kx_run *run)
{
	struct kx_outcome outcome;

	if (run->lane)
		run->lane->run = NULL;
	run->lane = NULL;
	kx_pipeline_wake(pipeline); /* the lane is free */
	pthread_mutex_unlock(&pipeline->lock);
	kx_run_outcome(run, &outcome);
	run->sink.done(run->sink.ctx, run->job, &outcome);
	pthread_mutex_lock(&pipeline->lock);
	unlink_run(pipeline, run);
	kx_run_free(run);
	kx_pipeline_wake(pipeline); /* it may wait for the last one */
	pthread_cond_broadcast(&pipeline->idle);
	pthread_cond_broadcast(&pipeline->work);
}

/* Lock held; let go for the sinks. */
static void deliver(struct kx_pipeline *pipeline, struct kx_run *run)
{
	const struct kx_track_shape *shape;
	struct kx_cell *cell;

	run->delivering = true;
	while ((cell = next_cell(run, &shape)) != NULL) {
		struct kx_error error = {0};
		kx_status status;

		pthread_mutex_unlock(&pipeline->lock);
		status = sink_cell(run, cell, shape, &error);
		pthread_mutex_lock(&pipeline->lock);
		pthread_cond_signal(&pipeline->work); /* for a stream that found too much unsunk */
		if (status != KX_OK)
			kx_run_fail(pipeline, run, KX_REASON_INTERNAL, true, error.message);
	}
	if (kx_run_finished(run))
		finish(pipeline, run);
	else
		run->delivering = false;
}

static struct kx_run *pop_listed(struct kx_pipeline *pipeline)
{
	struct kx_run *run = pipeline->listed;

	if (!run)
		return NULL;
	pipeline->listed = run->next_listed;
	if (!pipeline->listed)
		pipeline->listed_tail = &pipeline->listed;
	run->listed = false;
	return run;
}

/* ---- inference ---- */

/* Nobody who could fill up a batch will, until what there is was inferred. */
static bool nothing_to_wait_for(const struct kx_pipeline *pipeline)
{
	size_t free_lanes = 0;

	for (size_t i = 0; i < pipeline->lane_count; i++) {
		const struct kx_lane *lane = &pipeline->lanes[i];

		if (!lane->run)
			free_lanes++;
		else if (lane->used == pipeline->ring_slots)
			return true;
	}
	return pipeline->running == 0 && (!pipeline->waiting || free_lanes == 0);
}

static bool congested(const struct kx_pipeline *pipeline)
{
	size_t unsunk = 0;

	for (const struct kx_run *run = pipeline->runs; run; run = run->next) {
		if (run->failed)
			continue;
		for (size_t i = 0; i < KX_TRACKS; i++)
			unsunk += kx_assembler_ready_count(&run->track[i]);
	}
	return unsunk >= UNSUNK_MAX;
}

static void settle(struct kx_pipeline *pipeline, struct kx_work *work, kx_status status, const char *message,
		   bool retriable)
{
	struct kx_run *run = work->run;

	kx_lane_release(run->lane, work->slot, kx_clock_mono_us());
	run->items--;
	if (status == KX_OK)
		kx_row_settle(work->row);
	else
		kx_run_fail(pipeline, run, KX_REASON_MODEL_FAILED, retriable, message);
	kx_run_kick(pipeline, run);
	free(work);
}

/* No lock. Batch by batch into the stream's features and scores. */
static kx_status infer_burst(struct kx_stream *stream, size_t track, const void *const *inputs, size_t count,
			     struct kx_error *error)
{
	const struct kx_bundle *bundle = stream->pipeline->bundle[track];
	const size_t batch = kx_model_batch(stream->pipeline->model[track]);
	kx_status status = KX_OK;

	for (size_t i = 0; i < count && status == KX_OK; i += batch)
		status = kx_model_infer(stream->model[track], inputs + i, count - i < batch ? count - i : batch,
					stream->features + i * bundle->feature_dim,
					stream->scores + i * bundle->class_count, error);
	return status;
}

/* Lock held; let go while the model runs. */
static void infer(struct kx_stream *stream, size_t track, struct kx_item **items, size_t count)
{
	struct kx_pipeline *pipeline = stream->pipeline;
	const struct kx_bundle *bundle = pipeline->bundle[track];
	const void *inputs[KX_BURST_MAX];
	kx_status filled[KX_BURST_MAX] = {KX_OK};
	struct kx_error error = {0};
	kx_status status;

	for (size_t i = 0; i < count; i++) {
		const struct kx_work *work = (const struct kx_work *)items[i];

		inputs[i] = kx_ring_slot(work->run->lane->ring, work->slot);
	}
	pthread_mutex_unlock(&pipeline->lock);
	status = infer_burst(stream, track, inputs, count, &error);
	for (size_t i = 0; i < count && status == KX_OK; i++) {
		struct kx_work *work = (struct kx_work *)items[i];

		filled[i] = kx_row_fill(&work->run->track[track].shape, work->row,
					stream->features + i * bundle->feature_dim,
					stream->scores + i * bundle->class_count);
	}
	pthread_mutex_lock(&pipeline->lock);
	for (size_t i = 0; i < count; i++) {
		struct kx_work *work = (struct kx_work *)items[i];

		if (status != KX_OK)
			settle(pipeline, work, status, error.message, error.class == KX_ERROR_RETRY);
		else
			settle(pipeline, work, filled[i], "the model gave a number that is not finite", false);
	}
}

static bool infer_next(struct kx_stream *stream)
{
	struct kx_pipeline *pipeline = stream->pipeline;
	struct kx_item *items[KX_BURST_MAX];
	size_t track = 0, count;

	if (congested(pipeline))
		return false;
	count = kx_batcher_take(&pipeline->batcher, kx_clock_mono_us(), nothing_to_wait_for(pipeline), &track, items);
	if (count == 0)
		return false;
	infer(stream, track, items, count);
	return true;
}

/* ---- the thread ---- */

static void wait_for_work(struct kx_pipeline *pipeline)
{
	uint64_t due_us = kx_batcher_due_us(&pipeline->batcher);
	uint64_t now_us = kx_clock_mono_us();
	struct timespec deadline;

	if (due_us == UINT64_MAX || congested(pipeline)) { /* whoever sinks will tell */
		pthread_cond_wait(&pipeline->work, &pipeline->lock);
		return;
	}
	if (due_us <= now_us) /* it came due since we looked */
		return;
	deadline = kx_clock_deadline((due_us - now_us) / 1000u + 1);
	pthread_cond_timedwait(&pipeline->work, &pipeline->lock, &deadline);
}

void *kx_stream_main(void *arg)
{
	struct kx_stream *stream = arg;
	struct kx_pipeline *pipeline = stream->pipeline;

	pthread_mutex_lock(&pipeline->lock);
	while (!(pipeline->stopping && pipeline->run_count == 0)) {
		struct kx_run *run = pop_listed(pipeline);

		if (run)
			deliver(pipeline, run);
		else if (!infer_next(stream))
			wait_for_work(pipeline);
	}
	pthread_mutex_unlock(&pipeline->lock);
	return NULL;
}
