/* A decoder child that says what it likes, when it likes: events of any kind for any job and slot, exits, a host that
 * dies, in any order with what the inference streams do meanwhile. The parent's books must balance after each step, and
 * each job must end, once.
 *
 * The channel thread and the streams are played here, as worker/pipeline/feed.c and stream.c do it, with one thread and
 * without decoders and models. */
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/macros.h"
#include "tests/fuzz/fuzz.h"
#include "worker/pipeline/internal.h"

#define LANES 2u
#define SLOTS 4u
#define DIM 4u
#define CLASSES 3u
#define STEPS_MAX 400u
#define JOBS_MAX 32u

static struct kx_bundle bundle = {.feature_dim = DIM, .class_count = CLASSES};
static struct kx_pipeline pipeline;
static unsigned begun, done;

static void on_moment(void *ctx, const struct kx_job *job, const struct kx_moment *moment)
{
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	struct kx_moment *read = NULL;

	(void)ctx;
	(void)job;
	/* What a shard takes. */
	FUZZ_CHECK(kx_moment_pack(moment, &packed) == KX_OK);
	FUZZ_CHECK(kx_moment_unpack(packed.data, packed.len, &read, NULL) == KX_OK);
	kx_moment_free(read);
	kx_buf_done(&packed);
}

static void on_done(void *ctx, const struct kx_job *job, const struct kx_outcome *outcome)
{
	(void)ctx;
	(void)job;
	FUZZ_CHECK(outcome->reason >= KX_REASON_NONE && outcome->reason < KX_REASON_COUNT);
	FUZZ_CHECK(outcome->reason == KX_REASON_NONE || outcome->message);
	done++;
}

/* ---- what feed.c does ---- */

static void begin(struct fuzz_input *in, size_t index)
{
	struct kx_lane *lane = &pipeline.lanes[index];
	struct kx_job job = {
		.run_id = (char *)"run",
		.video_id = (char *)"video",
		.generation = 1,
		.parts = 1,
		.tracks = 1u + fuzz_u8(in) % 3u,
		.source = (char *)"/clip.mp4",
		.content_bytes = 1,
		.fps = 1 + fuzz_u8(in) % 8,
		.decode_mode = KX_DECODE_EXACT,
		.moment_us = 1000000,
		.attempt = 1,
		.wall_limit_ms = 1000,
	};
	const struct kx_pipeline_sink sink = {.moment = on_moment, .done = on_done};
	struct kx_run *run;

	if (lane->run || begun == JOBS_MAX)
		return;
	memset(job.content_sha256, 7, sizeof(job.content_sha256));
	memset(job.recipe_sha256, 8, sizeof(job.recipe_sha256));
	run = kx_run_new(&pipeline, &job, &sink, NULL);
	FUZZ_CHECK(run);
	kx_run_link(&pipeline, run);
	pipeline.waiting = NULL;
	pipeline.waiting_tail = &pipeline.waiting;
	pipeline.waiting_count = 0;
	FUZZ_CHECK(kx_lane_prepare(&pipeline, lane, NULL) == KX_OK);
	*lane = (struct kx_lane){
		.run = run,
		.ring = lane->ring,
		.busy = lane->busy,
		.ticket = 1 + ++begun,
		.deadline_us = kx_clock_mono_us() + job.wall_limit_ms * 1000,
		.alive = true,
	};
	run->lane = lane;
	pipeline.running++;
}

/* ---- what stream.c does ---- */

static void infer(struct fuzz_input *in)
{
	struct kx_item *items[KX_BURST_MAX];
	size_t track = 0;
	size_t count = kx_batcher_take(&pipeline.batcher, kx_clock_mono_us(), true, &track, items);
	float features[DIM], scores[CLASSES] = {0.5f, 0.25f, 0.125f};

	for (size_t i = 0; i < DIM; i++)
		features[i] = (float)(int8_t)fuzz_u8(in) / 16.0f;
	for (size_t i = 0; i < count; i++) {
		struct kx_work *work = (struct kx_work *)items[i];
		struct kx_run *run = work->run;

		FUZZ_CHECK(kx_row_fill(&run->track[track].shape, work->row, features, scores) == KX_OK);
		kx_lane_release(run->lane, work->slot, kx_clock_mono_us());
		run->items--;
		kx_row_settle(work->row);
		kx_run_kick(&pipeline, run);
		free(work);
	}
}

static void finish(struct kx_run *run)
{
	struct kx_outcome outcome;

	FUZZ_CHECK(run->lane && !run->lane->alive);
	run->lane->run = NULL;
	run->lane = NULL;
	kx_run_outcome(run, &outcome);
	run->sink.done(run->sink.ctx, run->job, &outcome);
	if (run->prev)
		run->prev->next = run->next;
	else
		pipeline.runs = run->next;
	if (run->next)
		run->next->prev = run->prev;
	pipeline.run_count--;
	kx_run_free(run);
}

static void deliver_one(struct kx_run *run)
{
	run->listed = false;
	run->delivering = true;
	for (size_t i = 0; i < KX_TRACKS; i++) {
		struct kx_cell *cell;

		while (!run->failed && (cell = kx_assembler_take(&run->track[i])) != NULL) {
			struct kx_moment moment;

			FUZZ_CHECK(kx_cell_moment(cell, &run->track[i].shape, &moment, NULL) == KX_OK);
			run->sink.moment(run->sink.ctx, run->job, &moment);
			kx_cell_free(cell);
		}
	}
	if (kx_run_finished(run))
		finish(run);
	else
		run->delivering = false;
}

static void deliver(void)
{
	struct kx_run *run;

	while ((run = pipeline.listed) != NULL) {
		pipeline.listed = run->next_listed;
		if (!pipeline.listed)
			pipeline.listed_tail = &pipeline.listed;
		deliver_one(run);
	}
}

/* ---- the child ---- */

static void hear(const struct kx_wire_peer *peer, const void *bytes, size_t len)
{
	struct kx_decode_event *event = NULL;

	if (kx_decode_event_unpack(bytes, len, &event, NULL) != KX_OK)
		return;
	kx_lane_event(&pipeline, peer, event);
	kx_decode_event_free(event);
}

static struct kx_wire_peer any_peer(struct fuzz_input *in)
{
	return (struct kx_wire_peer){.len = 1, .name = {fuzz_u8(in) % 8u ? 1 : 2}};
}

static void say(struct fuzz_input *in)
{
	struct kx_wire_peer peer = any_peer(in);
	struct kx_buf packed = {.max = 64u << 10};
	struct kx_decode_event event = {0};

	event.ticket = pipeline.lanes[fuzz_u8(in) % LANES].ticket;
	event.kind = (enum kx_decode_event_kind)(KX_DECODE_OPENED + fuzz_u8(in) % 5u);
	if (event.kind == KX_DECODE_OPENED) {
		event.opened.has_visual = fuzz_u8(in) & 1;
		event.opened.has_audio = fuzz_u8(in) & 1;
	} else if (event.kind == KX_DECODE_END) {
		event.end.reason = (enum kx_reason)(fuzz_u8(in) % KX_REASON_COUNT);
		event.end.visual_us = fuzz_number(in);
		event.end.truncated = fuzz_u8(in) & 1;
	} else {
		event.sample.index = fuzz_number(in);
		event.sample.pts_us = fuzz_number(in);
		event.sample.error_us = fuzz_number(in);
		event.sample.slot = (uint32_t)fuzz_number(in);
	}
	if (kx_decode_event_pack(&event, &packed) == KX_OK)
		hear(&peer, packed.data, packed.len);
	kx_buf_done(&packed);
}

static void babble(struct fuzz_input *in)
{
	struct kx_wire_peer peer = any_peer(in);
	size_t len;
	const uint8_t *bytes = fuzz_bytes(in, 255, &len);

	hear(&peer, bytes, len);
}

static void exit_child(const struct kx_lane *lane, int wait_status)
{
	const struct kx_host_exit exit = {
		.header = {.verb = KX_HOST_EXIT, .ticket = lane->ticket},
		.wait_status = wait_status,
	};

	if (lane->run)
		kx_lane_exit(&pipeline, &exit);
}

/* ---- the books ---- */

static void check_lane(const struct kx_lane *lane, size_t *items)
{
	uint32_t busy = 0;

	for (uint32_t i = 0; lane->busy && i < SLOTS; i++)
		busy += lane->busy[i];
	FUZZ_CHECK(lane->used == busy || !lane->run);
	if (!lane->run)
		return;
	FUZZ_CHECK(lane->run->lane == lane);
	FUZZ_CHECK((lane->used == SLOTS) == (lane->full_since_us != 0));
	*items += lane->run->items;
}

static void check_books(void)
{
	size_t items = 0, alive = 0;

	for (size_t i = 0; i < LANES; i++) {
		check_lane(&pipeline.lanes[i], &items);
		alive += pipeline.lanes[i].alive;
	}
	FUZZ_CHECK(items == pipeline.batcher.queue[0].count + pipeline.batcher.queue[1].count);
	FUZZ_CHECK(alive == pipeline.running);
	FUZZ_CHECK(begun == done + pipeline.run_count);
}

static void step(struct fuzz_input *in)
{
	uint8_t what = fuzz_u8(in);
	size_t index = (what >> 4) % LANES;
	struct kx_lane *lane = &pipeline.lanes[index];

	switch (what & 15) {
	case 0:
	case 1:
		begin(in, index);
		break;
	case 2:
		babble(in);
		break;
	case 3:
		exit_child(lane, fuzz_u8(in) % 4u ? 0 : fuzz_u8(in));
		break;
	case 4:
		kx_lane_host_died(&pipeline, lane);
		break;
	case 5:
		(void)kx_lane_tick(&pipeline, lane, kx_clock_mono_us() + fuzz_u8(in) * UINT64_C(100000));
		break;
	case 6:
	case 7:
		infer(in);
		break;
	case 8:
	case 9:
		deliver();
		break;
	default:
		say(in);
	}
	check_books();
}

static void open_pipeline(void)
{
	static struct kx_lane lanes[LANES];
	const size_t batch[KX_TRACKS] = {3, 2};

	pipeline = (struct kx_pipeline){
		.decoders = LANES,
		.lane_count = LANES,
		.ring_slots = SLOTS,
		.slot_bytes = 64,
		.bundle = {&bundle, &bundle},
		.space = {"visual/fuzz", "audio/fuzz"},
		.channel = {.host = {.fd = -1}},
		.epoll_fd = -1,
		.wake_fd = -1,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.work = PTHREAD_COND_INITIALIZER,
		.idle = PTHREAD_COND_INITIALIZER,
		.lanes = lanes,
	};
	pipeline.waiting_tail = &pipeline.waiting;
	pipeline.listed_tail = &pipeline.listed;
	kx_batcher_init(&pipeline.batcher, batch, 1000);
	begun = done = 0;
}

/* Whatever was said, a child that is gone and streams that go on bring every job to its end. */
static void close_pipeline(struct fuzz_input *in)
{
	for (size_t i = 0; i < LANES; i++) {
		exit_child(&pipeline.lanes[i], 0);
		(void)kx_lane_tick(&pipeline, &pipeline.lanes[i], UINT64_MAX - 1);
	}
	while (pipeline.batcher.queue[0].count + pipeline.batcher.queue[1].count > 0)
		infer(in);
	deliver();
	check_books();
	FUZZ_CHECK(done == begun && pipeline.run_count == 0);
	for (size_t i = 0; i < LANES; i++)
		kx_lane_done(&pipeline.lanes[i]);
	memset(pipeline.lanes, 0, LANES * sizeof(*pipeline.lanes));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct fuzz_input in = {bytes, len};

	open_pipeline();
	for (unsigned i = 0; in.len > 0 && i < STEPS_MAX; i++)
		step(&in);
	close_pipeline(&in);
	return 0;
}
