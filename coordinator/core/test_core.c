/* The core against a simulated fleet: a virtual clock, workers and shards that lose, repeat, delay and fail, with a
 * printed seed. Whatever they do, every input ends in exactly one state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/core/core.h"
#include "coordinator/core/plan.h"

#define SECOND_US UINT64_C(1000000)
#define SEGMENT_US (300 * SECOND_US)
#define JOBS_AHEAD 8
#define ATTEMPTS 3

static const struct kx_core_options options = {
	.run_id = "run",
	.software = "test",
	.fps = 1,
	.segment_us = SEGMENT_US,
	.moment_us = 10 * SECOND_US,
	.decode_mode = KX_DECODE_EXACT,
	.recipe_sha256 = {1},
	.jobs_ahead = JOBS_AHEAD,
	.attempts_max = ATTEMPTS,
	.silence_us = 300 * SECOND_US,
};

static struct kx_input make_input(char *id)
{
	return (struct kx_input){.video_id = id,
				 .root = (char *)"/films",
				 .source = (char *)"/films/a.mp4",
				 .content_bytes = 1000,
				 .content_sha256 = {7},
				 .state = KX_INPUT_PLANNED,
				 .reason = KX_REASON_NONE};
}

static struct kx_probe_info make_info(uint64_t seconds, bool audio)
{
	return (struct kx_probe_info){.container = (char *)"mov",
				      .duration_us = seconds * SECOND_US,
				      .video_codec = (char *)"h264",
				      .width = 640,
				      .height = 360,
				      .frame_rate = 25,
				      .audio_codec = (char *)(audio ? "aac" : ""),
				      .splittable = true,
				      .has_visual = true,
				      .has_audio = audio};
}

struct bench {
	struct kx_core *core;
	struct kx_core_actions actions;
	uint64_t now_us;
};

static struct bench make_bench(void)
{
	struct bench bench = {.now_us = SECOND_US};
	assert_int_equal(kx_core_new(&options, &bench.core), KX_OK);
	return bench;
}

static void end_bench(struct bench *bench)
{
	kx_core_actions_done(&bench->actions);
	kx_core_free(bench->core);
}

static void step(struct bench *bench, struct kx_core_event event)
{
	event.now_us = bench->now_us;
	event.wall_ms = 1700000000000u + bench->now_us / 1000;
	kx_core_actions_clear(&bench->actions);
	assert_int_equal(kx_core_step(bench->core, &event, &bench->actions), KX_OK);
}

static void find(struct bench *bench, enum kx_core_event_kind kind, char *id, uint64_t seconds, bool audio)
{
	struct kx_input input = make_input(id);
	struct kx_probe_info info = make_info(seconds, audio);
	if (kind == KX_CORE_COPIED)
		input.copy_of = (char *)"original.mp4";
	step(bench, (struct kx_core_event){.kind = kind, .input = &input, .info = &info});
}

static void say(struct bench *bench, struct kx_event event)
{
	step(bench, (struct kx_core_event){.kind = KX_CORE_BUS, .bus = &event});
}

static const struct kx_core_action *action_of(const struct bench *bench, enum kx_core_action_kind kind, size_t nth)
{
	for (size_t i = 0; i < bench->actions.count; i++)
		if (bench->actions.items[i].kind == kind && nth-- == 0)
			return &bench->actions.items[i];
	return NULL;
}

static size_t count_of(const struct bench *bench, enum kx_core_action_kind kind)
{
	size_t count = 0;
	while (action_of(bench, kind, count) != NULL)
		count++;
	return count;
}

static struct kx_event event_of(const struct kx_job *job, enum kx_event_kind kind)
{
	return (struct kx_event){.run_id = (char *)"run",
				 .video_id = job->video_id,
				 .generation = job->generation,
				 .kind = kind,
				 .part = job->part,
				 .attempt = job->attempt,
				 .message = (char *)"",
				 .reason = KX_REASON_NONE};
}

static void a_short_video_is_one_job(void **state)
{
	(void)state;
	struct bench bench = make_bench();
	find(&bench, KX_CORE_FOUND, (char *)"a.mp4", 60, true);
	assert_int_equal(count_of(&bench, KX_CORE_PUBLISH_JOB), 1);
	const struct kx_job *job = action_of(&bench, KX_CORE_PUBLISH_JOB, 0)->job;
	assert_int_equal(job->parts, 1);
	assert_int_equal(job->tracks, KX_TRACK_VISUAL | KX_TRACK_AUDIO);
	assert_int_equal(job->end_us, 0);
	assert_int_equal(action_of(&bench, KX_CORE_PUBLISH_RESULT, 0)->result->kind, KX_RESULT_PLAN);
	assert_int_equal(action_of(&bench, KX_CORE_PUT_INPUT, 0)->input->state, KX_INPUT_PLANNED);
	end_bench(&bench);
}

static void a_long_video_is_split_and_its_sound_is_not(void **state)
{
	(void)state;
	struct bench bench = make_bench();
	find(&bench, KX_CORE_FOUND, (char *)"a.mp4", 1000, true);
	assert_int_equal(count_of(&bench, KX_CORE_PUBLISH_JOB), 5);
	for (uint32_t i = 0; i < 5; i++) {
		const struct kx_job *job = action_of(&bench, KX_CORE_PUBLISH_JOB, i)->job;
		assert_int_equal(job->part, i);
		assert_int_equal(job->parts, 5);
		assert_int_equal(job->tracks, i < 4 ? KX_TRACK_VISUAL : KX_TRACK_AUDIO);
		assert_int_equal(job->start_us, i < 4 ? i * SEGMENT_US : 0);
		assert_int_equal(job->end_us, i < 3 ? (i + 1) * SEGMENT_US : 0);
	}
	end_bench(&bench);
}

static void only_so_many_jobs_are_out(void **state)
{
	(void)state;
	struct bench bench = make_bench();
	find(&bench, KX_CORE_FOUND, (char *)"long.mp4", 20 * 300, false);
	assert_int_equal(count_of(&bench, KX_CORE_PUBLISH_JOB), JOBS_AHEAD);
	assert_false(kx_core_wants_more(bench.core));
	struct kx_event finished = event_of(action_of(&bench, KX_CORE_PUBLISH_JOB, 0)->job, KX_EVENT_FINISHED);
	finished.video_id = (char *)"long.mp4";
	say(&bench, finished);
	assert_int_equal(count_of(&bench, KX_CORE_PUBLISH_JOB), 1);
	assert_int_equal(action_of(&bench, KX_CORE_PUBLISH_JOB, 0)->job->part, JOBS_AHEAD);
	end_bench(&bench);
}

static void a_failure_is_tried_again_then_quarantined(void **state)
{
	(void)state;
	struct bench bench = make_bench();
	find(&bench, KX_CORE_FOUND, (char *)"a.mp4", 60, true);
	for (uint32_t attempt = 1; attempt <= ATTEMPTS; attempt++) {
		const struct kx_job *job = action_of(&bench, KX_CORE_PUBLISH_JOB, 0)->job;
		assert_int_equal(job->attempt, attempt);
		struct kx_event failed = event_of(job, KX_EVENT_FAILED);
		failed.video_id = (char *)"a.mp4";
		failed.reason = KX_REASON_CRASHED;
		failed.retriable = true;
		failed.message = (char *)"SIGSEGV";
		say(&bench, failed);
	}
	const struct kx_core_action *put = action_of(&bench, KX_CORE_PUT_INPUT, 0);
	assert_int_equal(put->input->state, KX_INPUT_QUARANTINED);
	assert_int_equal(put->letter->reason, KX_REASON_CRASHED);
	assert_int_equal(put->letter->attempts, ATTEMPTS);
	assert_int_equal(action_of(&bench, KX_CORE_PUBLISH_RESULT, 0)->result->kind, KX_RESULT_DELETE);
	assert_true(kx_core_idle(bench.core));
	end_bench(&bench);
}

static void poison_is_not_tried_again(void **state)
{
	(void)state;
	struct bench bench = make_bench();
	find(&bench, KX_CORE_FOUND, (char *)"a.mp4", 60, true);
	struct kx_event failed = event_of(action_of(&bench, KX_CORE_PUBLISH_JOB, 0)->job, KX_EVENT_FAILED);
	failed.video_id = (char *)"a.mp4";
	failed.reason = KX_REASON_NO_FRAMES;
	say(&bench, failed);
	assert_int_equal(kx_core_counts(bench.core)->reasons[KX_REASON_NO_FRAMES], 1);
	assert_true(kx_core_idle(bench.core));
	end_bench(&bench);
}

static void a_truncated_video_is_partial(void **state)
{
	(void)state;
	struct bench bench = make_bench();
	find(&bench, KX_CORE_FOUND, (char *)"a.mp4", 60, true);
	struct kx_event stored = event_of(action_of(&bench, KX_CORE_PUBLISH_JOB, 0)->job, KX_EVENT_STORED);
	stored.video_id = (char *)"a.mp4";
	stored.truncated = true;
	stored.visual_us = 20 * SECOND_US;
	say(&bench, stored);
	const struct kx_input *input = action_of(&bench, KX_CORE_PUT_INPUT, 0)->input;
	assert_int_equal(input->state, KX_INPUT_PARTIAL);
	assert_int_equal(input->covered_us, 20 * SECOND_US);
	assert_true(kx_core_idle(bench.core));
	end_bench(&bench);
}

static void a_copy_needs_no_job_unless_its_original_is_gone(void **state)
{
	(void)state;
	struct bench bench = make_bench();
	find(&bench, KX_CORE_COPIED, (char *)"b.mp4", 60, true);
	assert_int_equal(count_of(&bench, KX_CORE_PUBLISH_JOB), 0);
	const struct kx_result *copy = action_of(&bench, KX_CORE_PUBLISH_RESULT, 0)->result;
	assert_int_equal(copy->kind, KX_RESULT_COPY);
	assert_string_equal(copy->copy_from, "original.mp4");
	struct kx_event stored = {.run_id = (char *)"run",
				  .video_id = (char *)"b.mp4",
				  .generation = copy->generation,
				  .kind = KX_EVENT_STORED,
				  .missing_source = true};
	say(&bench, stored);
	assert_int_equal(count_of(&bench, KX_CORE_PUBLISH_JOB), 1);
	stored.missing_source = false;
	say(&bench, stored);
	assert_int_equal(kx_core_counts(bench.core)->done, 1);
	assert_true(kx_core_idle(bench.core));
	end_bench(&bench);
}

static void what_is_gone_is_deleted_when_the_shard_says_so(void **state)
{
	(void)state;
	struct bench bench = make_bench();
	struct kx_input input = make_input((char *)"a.mp4");
	input.state = KX_INPUT_DONE;
	input.generation = 5;
	step(&bench, (struct kx_core_event){.kind = KX_CORE_GONE, .input = &input});
	assert_int_equal(action_of(&bench, KX_CORE_PUBLISH_RESULT, 0)->result->kind, KX_RESULT_DELETE);
	assert_int_equal(count_of(&bench, KX_CORE_PUT_INPUT), 0);
	say(&bench, (struct kx_event){.video_id = (char *)"a.mp4", .generation = 5, .kind = KX_EVENT_DELETED});
	assert_int_equal(action_of(&bench, KX_CORE_PUT_INPUT, 0)->input->state, KX_INPUT_DELETED);
	assert_true(kx_core_idle(bench.core));
	end_bench(&bench);
}

static void what_no_shard_has_heard_of_is_deleted_at_once(void **state)
{
	(void)state;
	struct bench bench = make_bench();
	struct kx_input input = make_input((char *)"notes.txt");
	input.state = KX_INPUT_QUARANTINED;
	input.reason = KX_REASON_NOT_MEDIA;
	step(&bench, (struct kx_core_event){.kind = KX_CORE_GONE, .input = &input});
	assert_int_equal(count_of(&bench, KX_CORE_PUBLISH_RESULT), 0);
	assert_int_equal(action_of(&bench, KX_CORE_PUT_INPUT, 0)->input->state, KX_INPUT_DELETED);
	assert_int_equal(kx_core_counts(bench.core)->deleted, 1);
	assert_true(kx_core_idle(bench.core));
	end_bench(&bench);
}

static void a_generation_is_higher_than_any_before(void **state)
{
	(void)state;
	struct bench bench = make_bench();
	struct kx_input input = make_input((char *)"a.mp4");
	struct kx_probe_info info = make_info(60, false);
	input.generation = UINT64_C(1) << 50;
	step(&bench, (struct kx_core_event){.kind = KX_CORE_FOUND, .input = &input, .info = &info});
	assert_int_equal(action_of(&bench, KX_CORE_PUBLISH_JOB, 0)->job->generation, (UINT64_C(1) << 50) + 1);
	end_bench(&bench);
}

static void silence_is_not_waited_for_for_ever(void **state)
{
	(void)state;
	struct bench bench = make_bench();
	find(&bench, KX_CORE_FOUND, (char *)"a.mp4", 60, true);
	for (uint32_t attempt = 2; attempt <= ATTEMPTS; attempt++) {
		bench.now_us += 3600 * SECOND_US;
		step(&bench, (struct kx_core_event){.kind = KX_CORE_TICK});
		assert_int_equal(action_of(&bench, KX_CORE_PUBLISH_JOB, 0)->job->attempt, attempt);
	}
	bench.now_us += 3600 * SECOND_US;
	step(&bench, (struct kx_core_event){.kind = KX_CORE_TICK});
	assert_int_equal(kx_core_counts(bench.core)->reasons[KX_REASON_INTERNAL], 1);
	assert_true(kx_core_idle(bench.core));
	end_bench(&bench);
}

/* --- A fleet that misbehaves ---------------------------------------------------------------------------------- */

#define VIDEOS 60
#define LETTERS 512

struct fleet {
	struct bench bench;
	uint64_t random;
	struct kx_event post[LETTERS]; /* on their way to the core */
	size_t post_count;
	uint32_t finished[VIDEOS][64]; /* by the worker: at least once a part */
	uint32_t parts[VIDEOS];
	uint64_t generation[VIDEOS];
	enum kx_input_state ledger[VIDEOS];
	uint32_t ended[VIDEOS]; /* times that the ledger was told an end */
};

static uint64_t draw(struct fleet *fleet, uint64_t below)
{
	fleet->random = fleet->random * 6364136223846793005u + 1442695040888963407u;
	return (fleet->random >> 33) % below;
}

static void video_name(size_t i, char out[16])
{
	snprintf(out, 16, "%zu.mp4", i);
}

static void post(struct fleet *fleet, const struct kx_event *event)
{
	assert_true(fleet->post_count < LETTERS);
	struct kx_event *at = &fleet->post[fleet->post_count++];
	*at = *event;
	at->video_id = strdup(event->video_id);
}

static void post_stored(struct fleet *fleet, size_t i, uint64_t generation)
{
	char id[16];
	video_name(i, id);
	struct kx_event stored = {.video_id = id, .generation = generation, .kind = KX_EVENT_STORED,
				  .visual_us = 60 * SECOND_US};
	post(fleet, &stored);
}

/* A worker gets the job: it may vanish with it, fail, or finish, once or twice. */
static void do_job(struct fleet *fleet, const struct kx_job *job)
{
	size_t i = (size_t)atoi(job->video_id);
	uint64_t luck = draw(fleet, 100);
	struct kx_event event = event_of(job, KX_EVENT_FINISHED);
	fleet->parts[i] = job->parts;
	if (luck < 5)
		return;
	if (luck < 20) {
		event.kind = KX_EVENT_FAILED;
		event.reason = KX_REASON_CRASHED;
		event.retriable = luck < 18;
		post(fleet, &event);
		return;
	}
	fleet->finished[i][job->part]++;
	post(fleet, &event);
	if (luck < 30)
		post(fleet, &event);
	uint32_t whole = 0;
	for (uint32_t part = 0; part < job->parts; part++)
		whole += fleet->finished[i][part] > 0;
	if (whole == job->parts)
		post_stored(fleet, i, job->generation);
}

static void keep_ledger(struct fleet *fleet, const struct kx_input *input)
{
	size_t i = (size_t)atoi(input->video_id);
	fleet->ledger[i] = input->state;
	fleet->ended[i] += input->state != KX_INPUT_PLANNED;
}

static void carry_out(struct fleet *fleet)
{
	for (size_t i = 0; i < fleet->bench.actions.count; i++) {
		const struct kx_core_action *action = &fleet->bench.actions.items[i];
		if (action->kind == KX_CORE_PUBLISH_JOB)
			do_job(fleet, action->job);
		else if (action->kind == KX_CORE_PUT_INPUT)
			keep_ledger(fleet, action->input);
	}
}

static void deliver_one(struct fleet *fleet)
{
	size_t at = draw(fleet, fleet->post_count);
	struct kx_event event = fleet->post[at];
	fleet->post[at] = fleet->post[--fleet->post_count];
	say(&fleet->bench, event);
	carry_out(fleet);
	free(event.video_id);
}

static void simulate(uint64_t seed)
{
	struct fleet *fleet = calloc(1, sizeof(*fleet));
	assert_non_null(fleet);
	fleet->bench = make_bench();
	fleet->random = seed;
	size_t found = 0;
	while (found < VIDEOS || !kx_core_idle(fleet->bench.core)) {
		fleet->bench.now_us += draw(fleet, 60 * SECOND_US);
		if (found < VIDEOS && kx_core_wants_more(fleet->bench.core)) {
			char id[16];
			video_name(found++, id);
			find(&fleet->bench, KX_CORE_FOUND, id, 1 + draw(fleet, 1500), draw(fleet, 2) != 0);
		} else if (fleet->post_count > 0 && draw(fleet, 4) != 0) {
			deliver_one(fleet);
			continue;
		} else {
			step(&fleet->bench, (struct kx_core_event){.kind = KX_CORE_TICK});
		}
		carry_out(fleet);
	}
	const struct kx_core_counts *counts = kx_core_counts(fleet->bench.core);
	assert_int_equal(counts->done + counts->partial + counts->quarantined, VIDEOS);
	for (size_t i = 0; i < VIDEOS; i++) {
		assert_int_equal(fleet->ended[i], 1);
		assert_true(fleet->ledger[i] == KX_INPUT_DONE || fleet->ledger[i] == KX_INPUT_QUARANTINED);
	}
	while (fleet->post_count > 0)
		free(fleet->post[--fleet->post_count].video_id);
	end_bench(&fleet->bench);
	free(fleet);
}

static uint64_t seed_in_hand;

static int tell_seed(void **state)
{
	(void)state;
	print_message("last seed: %llu (KINODEX_TEST_SEED repeats one)\n", (unsigned long long)seed_in_hand);
	return 0;
}

static void every_input_ends_exactly_once(void **state)
{
	(void)state;
	const char *wanted = getenv("KINODEX_TEST_SEED");
	uint64_t first = wanted != NULL ? strtoull(wanted, NULL, 10) : 1;
	uint64_t last = wanted != NULL ? first : 200;
	for (uint64_t seed = first; seed <= last; seed++) {
		seed_in_hand = seed;
		simulate(seed);
	}
}

static void limits_grow_with_the_span(void **state)
{
	(void)state;
	const uint64_t film = 300u << 20;
	struct kx_limits short_job = kx_plan_limits(SECOND_US, film), long_job = kx_plan_limits(3600 * SECOND_US, film);
	struct kx_limits unknown = kx_plan_limits(0, film);
	assert_true(short_job.wall_ms < long_job.wall_ms && short_job.cpu_ms < long_job.cpu_ms);
	assert_int_equal(unknown.wall_ms, long_job.wall_ms);
}

static void a_small_file_that_claims_years_gets_minutes(void **state)
{
	(void)state;
	struct kx_limits liar = kx_plan_limits(UINT64_C(100) * 365 * 86400 * SECOND_US, 20000);
	struct kx_limits honest = kx_plan_limits(620 * SECOND_US, 20000);
	assert_int_equal(liar.wall_ms, honest.wall_ms);
	assert_int_equal(liar.cpu_ms, honest.cpu_ms);
}

static void a_file_that_cannot_be_split_is_one_job(void **state)
{
	(void)state;
	struct kx_probe_info info = make_info(10000, true);
	info.splittable = false;
	assert_int_equal(kx_plan_parts(&info, SEGMENT_US), 1);
	struct kx_span span = kx_plan_span(&info, SEGMENT_US, 0);
	assert_int_equal(span.tracks, KX_TRACK_VISUAL | KX_TRACK_AUDIO);
	assert_int_equal(kx_plan_span_us(&info, &span), 10000 * SECOND_US);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_short_video_is_one_job),
		cmocka_unit_test(a_long_video_is_split_and_its_sound_is_not),
		cmocka_unit_test(only_so_many_jobs_are_out),
		cmocka_unit_test(a_failure_is_tried_again_then_quarantined),
		cmocka_unit_test(poison_is_not_tried_again),
		cmocka_unit_test(a_truncated_video_is_partial),
		cmocka_unit_test(a_copy_needs_no_job_unless_its_original_is_gone),
		cmocka_unit_test(what_is_gone_is_deleted_when_the_shard_says_so),
		cmocka_unit_test(what_no_shard_has_heard_of_is_deleted_at_once),
		cmocka_unit_test(a_generation_is_higher_than_any_before),
		cmocka_unit_test(silence_is_not_waited_for_for_ever),
		cmocka_unit_test_teardown(every_input_ends_exactly_once, tell_seed),
		cmocka_unit_test(limits_grow_with_the_span),
		cmocka_unit_test(a_small_file_that_claims_years_gets_minutes),
		cmocka_unit_test(a_file_that_cannot_be_split_is_one_job),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
