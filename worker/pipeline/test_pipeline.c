/* The whole pipeline on real clips and real bundles: what comes out, and that it comes out the same however the work
 * was cut and spread. Needs bundles/lite0 and bundles/yamnet, which scripts/test makes first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/macros.h"
#include "worker/pipeline/testkit.h"

static char *folder;
static struct kx_bundle *visual, *audio;

static struct kx_pipeline *pipeline_of(size_t decoders, size_t streams, size_t batch)
{
	const struct kx_pipeline_options options = {
		.program = KX_TEST_PROGRAM,
		.run_dir = folder,
		.visual = visual,
		.audio = audio,
		.decoders = decoders,
		.streams = streams,
		.batch = batch,
		.queue_max = 16,
	};
	struct kx_pipeline *pipeline = NULL;
	struct kx_error error = {0};

	if (kx_pipeline_new(&options, &pipeline, &error) != KX_OK)
		fail_msg("%s", error.message);
	return pipeline;
}

static void assert_went_well(const struct kx_test_result *result)
{
	if (result->reason != KX_REASON_NONE)
		fail_msg("%s: %s", kx_reason_name(result->reason), result->message);
	assert_int_equal(result->done, 1);
}

static void run_job(struct kx_pipeline *pipeline, const struct kx_job *job, struct kx_test_result *result)
{
	kx_test_result_init(result);
	kx_test_submit(pipeline, job, result);
	kx_test_wait(result);
}

static void clip_gives_its_moments(void **state)
{
	struct kx_pipeline *pipeline = pipeline_of(1, 1, 0);
	KX_CLEANUP(kx_cleanup_free) char *clip = kx_test_clip_av(folder, 23);
	struct kx_job job = kx_test_job(clip);
	struct kx_test_result result;

	(void)state;
	run_job(pipeline, &job, &result);
	assert_went_well(&result);
	assert_int_equal(result.moments[0], 5);
	assert_int_equal(result.moments[1], 5);
	assert_int_equal(result.end.frames, 23);
	assert_in_range(result.end.patches, 45, 48);
	assert_in_range(result.end.visual_us, 22900000, 23100000);
	assert_in_range(result.end.audio_us, 22000000, 23100000);
	assert_true(result.end.has_visual && result.end.has_audio);
	assert_false(result.end.truncated);
	assert_int_equal(result.end.parts, 1);
	assert_int_equal(result.end.moment_us, 5000000);
	assert_int_equal(result.width, 320);
	assert_int_equal(result.height, 240);
	assert_true(result.decode_cpu_us > 0);
	kx_test_result_done(&result);
	kx_pipeline_free(pipeline);
}

static void silent_clip_has_no_audio(void **state)
{
	struct kx_pipeline *pipeline = pipeline_of(1, 1, 0);
	KX_CLEANUP(kx_cleanup_free) char *clip =
		kx_test_clip(folder, "silent.mp4", "-f lavfi -i testsrc2=size=160x120:rate=10 -t 3 -c:v libx264");
	struct kx_job job = kx_test_job(clip);
	struct kx_test_result result;

	(void)state;
	run_job(pipeline, &job, &result);
	assert_went_well(&result);
	assert_int_equal(result.moments[0], 1);
	assert_int_equal(result.moments[1], 0);
	assert_true(result.end.has_visual);
	assert_false(result.end.has_audio);
	kx_test_result_done(&result);
	kx_pipeline_free(pipeline);
}

#define CLIPS 3
#define RUNS 6

/* Several clips at once, so that batches mix them. */
static void run_all(size_t decoders, size_t streams, size_t batch, struct kx_test_result results[RUNS])
{
	struct kx_pipeline *pipeline = pipeline_of(decoders, streams, batch);
	const int seconds[CLIPS] = {23, 11, 40};

	for (size_t i = 0; i < RUNS; i++) {
		KX_CLEANUP(kx_cleanup_free) char *clip = kx_test_clip_av(folder, seconds[i % CLIPS]);
		struct kx_job job = kx_test_job(clip);

		job.fps = i < CLIPS ? 1 : 3;
		kx_test_result_init(&results[i]);
		kx_test_submit(pipeline, &job, &results[i]);
	}
	for (size_t i = 0; i < RUNS; i++) {
		kx_test_wait(&results[i]);
		assert_went_well(&results[i]);
	}
	kx_pipeline_free(pipeline);
}

static void bytes_do_not_depend_on_how_work_is_spread(void **state)
{
	struct kx_test_result alone[RUNS], mixed[RUNS];

	(void)state;
	run_all(1, 1, 1, alone);
	run_all(3, 2, 8, mixed);
	for (size_t i = 0; i < RUNS; i++) {
		kx_test_assert_same(&alone[i], &mixed[i]);
		kx_test_result_done(&mixed[i]);
	}
	run_all(2, 2, 0, mixed);
	for (size_t i = 0; i < RUNS; i++) {
		kx_test_assert_same(&alone[i], &mixed[i]);
		kx_test_result_done(&alone[i]);
		kx_test_result_done(&mixed[i]);
	}
}

static void append_packed(struct kx_test_result *to, const struct kx_test_result *from)
{
	for (size_t t = 0; t < 2; t++) {
		if (from->packed[t].len > 0)
			assert_int_equal(kx_buf_append(&to->packed[t], from->packed[t].data, from->packed[t].len), KX_OK);
	}
}

static void split_gives_the_bytes_of_the_whole(void **state)
{
	struct kx_pipeline *pipeline = pipeline_of(2, 1, 0);
	KX_CLEANUP(kx_cleanup_free) char *clip = kx_test_clip_av(folder, 40);
	struct kx_job job = kx_test_job(clip);
	struct kx_test_result whole, joined;
	uint64_t visual_us = 0;

	(void)state;
	job.fps = 2;
	run_job(pipeline, &job, &whole);
	assert_went_well(&whole);
	kx_test_result_init(&joined);
	job.parts = 3;
	for (job.part = 0; job.part < job.parts; job.part++) {
		struct kx_test_result part;

		job.start_us = job.part * 15000000ull;
		job.end_us = job.part == 2 ? 0 : job.start_us + 15000000;
		job.tracks = job.part == 0 ? KX_TRACK_VISUAL | KX_TRACK_AUDIO : KX_TRACK_VISUAL;
		run_job(pipeline, &job, &part);
		assert_went_well(&part);
		assert_int_equal(part.end.part, job.part);
		visual_us += part.end.visual_us;
		append_packed(&joined, &part);
		kx_test_result_done(&part);
	}
	kx_test_assert_same(&whole, &joined);
	assert_int_equal(visual_us, whole.end.visual_us);
	kx_test_result_done(&whole);
	kx_test_result_done(&joined);
	kx_pipeline_free(pipeline);
}

static void assert_fails(struct kx_pipeline *pipeline, const struct kx_job *job, enum kx_reason reason)
{
	struct kx_test_result result;

	run_job(pipeline, job, &result);
	if (result.reason != reason)
		fail_msg("%s, not %s: %s", kx_reason_name(result.reason), kx_reason_name(reason), result.message);
	assert_int_equal(result.done, 1);
	assert_false(result.retriable);
	assert_true(strlen(result.message) > 0);
	kx_test_result_done(&result);
}

static void bad_sources_have_their_reasons(void **state)
{
	struct kx_pipeline *pipeline = pipeline_of(1, 1, 0);
	KX_CLEANUP(kx_cleanup_free) char *clip = kx_test_clip_av(folder, 11);
	KX_CLEANUP(kx_cleanup_free) char *text = kx_fs_join(folder, "letter.mp4");
	struct kx_job missing = kx_test_job("/nonexistent/clip.mp4");
	struct kx_job changed = kx_test_job(clip);
	struct kx_job place = kx_test_job(folder);
	struct kx_job no_media;

	(void)state;
	assert_int_equal(kx_fs_write(text, "dear all", 8, NULL), KX_OK);
	no_media = kx_test_job(text);
	changed.content_bytes++;
	assert_fails(pipeline, &missing, KX_REASON_NOT_FOUND);
	assert_fails(pipeline, &changed, KX_REASON_CHANGED);
	assert_fails(pipeline, &place, KX_REASON_CHANGED);
	assert_fails(pipeline, &no_media, KX_REASON_NOT_MEDIA);
	kx_pipeline_free(pipeline);
}

static void jobs_that_nobody_can_do_are_refused(void **state)
{
	struct kx_pipeline *pipeline = pipeline_of(1, 1, 0);
	struct kx_job no_tracks = kx_test_job("/x"), no_grid = kx_test_job("/x"), huge = kx_test_job("/x");
	struct kx_test_result result;
	struct kx_pipeline_sink sink = kx_test_sink(&result);

	(void)state;
	no_tracks.tracks = 0;
	no_grid.fps = 0;
	huge.moment_us = UINT64_MAX / 2;
	assert_int_equal(kx_pipeline_submit(pipeline, &no_tracks, &sink, NULL), KX_EINVAL);
	assert_int_equal(kx_pipeline_submit(pipeline, &no_grid, &sink, NULL), KX_EINVAL);
	assert_int_equal(kx_pipeline_submit(pipeline, &huge, &sink, NULL), KX_EINVAL);
	kx_pipeline_free(pipeline);
}

static struct kx_pipeline *lazy_pipeline_of(size_t batch)
{
	const struct kx_pipeline_options options = {
		.program = KX_TEST_PROGRAM,
		.run_dir = folder,
		.visual = visual,
		.audio = audio,
		.decoders = 1,
		.streams = 1,
		.batch = batch,
		.queue_max = 1,
		.lazy = true,
	};
	struct kx_pipeline *pipeline = NULL;
	struct kx_error error = {0};

	if (kx_pipeline_new(&options, &pipeline, &error) != KX_OK)
		fail_msg("%s", error.message);
	return pipeline;
}

static void lazy_one_gives_the_same(void **state)
{
	struct kx_pipeline *eager = pipeline_of(1, 1, 0), *lazy = lazy_pipeline_of(0), *idle = lazy_pipeline_of(0);
	KX_CLEANUP(kx_cleanup_free) char *clip = kx_test_clip_av(folder, 11);
	struct kx_job job = kx_test_job(clip);
	struct kx_sampling sampling = kx_job_sampling(&job);
	struct kx_test_result wanted, got;
	uint8_t recipes[2][KX_SHA_LEN];

	(void)state;
	assert_string_equal(kx_pipeline_spaces(lazy), kx_pipeline_spaces(eager));
	kx_pipeline_recipe(eager, &sampling, recipes[0]);
	kx_pipeline_recipe(lazy, &sampling, recipes[1]);
	assert_memory_equal(recipes[0], recipes[1], KX_SHA_LEN);
	kx_pipeline_cancel(lazy, NULL);
	run_job(eager, &job, &wanted);
	run_job(lazy, &job, &got);
	assert_went_well(&got);
	kx_test_assert_same(&wanted, &got);
	kx_test_result_done(&wanted);
	kx_test_result_done(&got);
	kx_pipeline_free(idle);
	kx_pipeline_free(lazy);
	kx_pipeline_free(eager);
}

static void lazy_one_tells_of_bad_models_with_every_job(void **state)
{
	struct kx_pipeline *pipeline = lazy_pipeline_of(KX_TEST_BATCH_TOO_LARGE);
	KX_CLEANUP(kx_cleanup_free) char *clip = kx_test_clip_av(folder, 11);
	struct kx_job job = kx_test_job(clip);
	struct kx_test_result result;
	struct kx_pipeline_sink sink = kx_test_sink(&result);

	(void)state;
	kx_test_result_init(&result);
	for (size_t i = 0; i < 2; i++) {
		struct kx_error error = {0};

		assert_int_equal(kx_pipeline_submit(pipeline, &job, &sink, &error), KX_EINVAL);
		assert_int_equal(error.class, KX_ERROR_FATAL);
		assert_non_null(strstr(error.message, "batch"));
	}
	kx_pipeline_free(pipeline);
	assert_int_equal(result.done, 0);
	kx_test_result_done(&result);
}

static void recipe_tells_samplings_apart(void **state)
{
	struct kx_pipeline *pipeline = pipeline_of(1, 1, 0);
	const struct kx_sampling samplings[] = {
		{1, KX_DECODE_EXACT, 0, 5000000},          {2, KX_DECODE_EXACT, 0, 5000000},
		{1, KX_DECODE_EXACT, 0, 10000000},         {1, KX_DECODE_KEYFRAME, 0, 5000000},
		{1, KX_DECODE_TOLERANT, 500000, 5000000}, {1, KX_DECODE_TOLERANT, 250000, 5000000},
	};
	uint8_t a[KX_SHA_LEN], b[KX_SHA_LEN];

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(samplings); i++) {
		for (size_t j = 0; j < KX_ARRAY_LEN(samplings); j++) {
			kx_pipeline_recipe(pipeline, &samplings[i], a);
			kx_pipeline_recipe(pipeline, &samplings[j], b);
			assert_int_equal(memcmp(a, b, sizeof(a)) == 0, i == j);
		}
	}
	assert_non_null(strstr(kx_pipeline_spaces(pipeline), "visual/lite0/"));
	assert_non_null(strstr(kx_pipeline_spaces(pipeline), "audio/yamnet/"));
	kx_pipeline_free(pipeline);
}

static int set_up(void **state)
{
	(void)state;
	folder = kx_test_folder();
	visual = kx_test_bundle("lite0");
	audio = kx_test_bundle("yamnet");
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	kx_bundle_free(visual);
	kx_bundle_free(audio);
	kx_test_folder_remove(folder);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clip_gives_its_moments),
		cmocka_unit_test(silent_clip_has_no_audio),
		cmocka_unit_test(bytes_do_not_depend_on_how_work_is_spread),
		cmocka_unit_test(split_gives_the_bytes_of_the_whole),
		cmocka_unit_test(bad_sources_have_their_reasons),
		cmocka_unit_test(jobs_that_nobody_can_do_are_refused),
		cmocka_unit_test(recipe_tells_samplings_apart),
		cmocka_unit_test(lazy_one_gives_the_same),
		cmocka_unit_test(lazy_one_tells_of_bad_models_with_every_job),
	};
	int status;

	if (kx_test_is_host(argc, argv, &status))
		return status;
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
