#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/learn/learn.h"
#include "shard/store/merge.h"

#define DIM 4u

static struct kx_summary moment(enum kx_modality modality, uint32_t index, uint32_t count, const float *vector)
{
	struct kx_summary summary = {.modality = modality, .index = index, .count = count, .dim = DIM, .space = "s"};

	kx_learn_quantize_i8(vector, DIM, summary.embedding, &summary.scale);
	return summary;
}

static void add_class(struct kx_summary *summary, uint32_t id, float score)
{
	summary->class_ids[summary->class_count] = id;
	summary->class_scores[summary->class_count++] = score;
}

static const float x_axis[DIM] = {1, 0, 0, 0};
static const float y_axis[DIM] = {0, 1, 0, 0};

static void test_means_are_weighted_by_rows(void **state)
{
	KX_CLEANUP(kx_merge_cleanup) struct kx_merge *merge = NULL;
	struct kx_summary one = moment(KX_VISUAL, 0, 3, x_axis), two = moment(KX_VISUAL, 5, 4, y_axis);
	struct kx_modality_result result[2];
	uint32_t count;

	(void)state;
	add_class(&one, 7, 0.7f);
	add_class(&two, 9, 0.7f);
	add_class(&two, 7, 0.35f);
	assert_int_equal(kx_merge_new(&merge), KX_OK);
	assert_int_equal(kx_merge_add(merge, &one, NULL), KX_OK);
	assert_int_equal(kx_merge_add(merge, &two, NULL), KX_OK);
	assert_int_equal(kx_merge_modalities(merge, result, &count, NULL), KX_OK);
	assert_int_equal(count, 1);
	assert_int_equal(result[0].moments, 2);
	assert_int_equal(result[0].rows, 7);
	assert_true(fabsf(result[0].embedding[0] - 0.6f) < 1e-6f);
	assert_true(fabsf(result[0].embedding[1] - 0.8f) < 1e-6f);
	assert_int_equal(result[0].class_count, 2);
	/* Class 7: (3 x 0.7 + 4 x 0.35) / 7 = 0.5. Class 9 is not in the first moment: (0 + 4 x 0.7) / 7 = 0.4. */
	assert_int_equal(result[0].class_ids[0], 7);
	assert_true(fabsf(result[0].class_scores[0] - 0.5f) < 1e-6f);
	assert_int_equal(result[0].class_ids[1], 9);
	assert_true(fabsf(result[0].class_scores[1] - 0.4f) < 1e-6f);
}

static void test_best_classes_break_ties_by_id(void **state)
{
	KX_CLEANUP(kx_merge_cleanup) struct kx_merge *merge = NULL;
	struct kx_summary one = moment(KX_AUDIO, 0, 1, x_axis);
	struct kx_modality_result result[2];
	uint32_t count;

	(void)state;
	for (uint32_t i = 0; i < 40; i++)
		add_class(&one, 100 - i, i == 3 ? 0.9f : 0.5f);
	assert_int_equal(kx_merge_new(&merge), KX_OK);
	assert_int_equal(kx_merge_add(merge, &one, NULL), KX_OK);
	assert_int_equal(kx_merge_modalities(merge, result, &count, NULL), KX_OK);
	assert_int_equal(result[0].modality, KX_AUDIO);
	assert_int_equal(result[0].class_count, KX_MERGE_CLASSES);
	assert_int_equal(result[0].class_ids[0], 97);
	for (uint32_t i = 1; i < KX_MERGE_CLASSES; i++)
		assert_int_equal(result[0].class_ids[i], 60 + i);
}

static void test_full_scores_stay_in_range(void **state)
{
	KX_CLEANUP(kx_merge_cleanup) struct kx_merge *merge = NULL;
	struct kx_modality_result result[2];
	uint32_t count;

	(void)state;
	assert_int_equal(kx_merge_new(&merge), KX_OK);
	for (uint32_t i = 0; i < 49; i++) {
		struct kx_summary one = moment(KX_VISUAL, i, 3, x_axis);

		add_class(&one, 1, 1.0f);
		assert_int_equal(kx_merge_add(merge, &one, NULL), KX_OK);
	}
	assert_int_equal(kx_merge_modalities(merge, result, &count, NULL), KX_OK);
	assert_true(result[0].class_scores[0] <= 1.0f);
}

static void test_disorder_is_refused(void **state)
{
	KX_CLEANUP(kx_merge_cleanup) struct kx_merge *merge = NULL;
	struct kx_summary two = moment(KX_VISUAL, 2, 1, x_axis), three = moment(KX_VISUAL, 3, 1, x_axis);
	struct kx_summary sound = moment(KX_AUDIO, 0, 1, x_axis), other = moment(KX_VISUAL, 4, 1, x_axis);
	struct kx_error error = {0};

	(void)state;
	strcpy(other.space, "t");
	assert_int_equal(kx_merge_new(&merge), KX_OK);
	assert_int_equal(kx_merge_add(merge, &two, NULL), KX_OK);
	assert_int_equal(kx_merge_add(merge, &two, NULL), KX_ECORRUPT);
	assert_int_equal(kx_merge_add(merge, &other, &error), KX_ECORRUPT);
	assert_non_null(strstr(error.message, "space t"));
	assert_int_equal(kx_merge_add(merge, &sound, NULL), KX_OK);
	assert_int_equal(kx_merge_add(merge, &three, NULL), KX_ECORRUPT);
}

static struct kx_part_end part_end(uint32_t part, uint32_t frames, uint32_t patches)
{
	struct kx_part_end end = {.part = part, .parts = 2, .frames = frames, .patches = patches,
				  .visual_us = 1000, .audio_us = 300, .decode_mode = KX_DECODE_EXACT,
				  .truncated = part == 1, .max_time_error_us = 10 - part, .moment_us = 5};

	end.recipe_sha256[0] = 1;
	return end;
}

static kx_status merge_two_parts(uint32_t frames, uint32_t patches, uint8_t recipe, uint64_t moment_us,
				 struct kx_video_result *ret, struct kx_error *error)
{
	KX_CLEANUP(kx_merge_cleanup) struct kx_merge *merge = NULL;
	struct kx_part_end ends[2] = {part_end(0, frames, patches), part_end(1, 0, 0)};
	struct kx_video_info info = {.recipe_sha256 = {1}};
	struct kx_merge_source source = {"v", &info, ends, 2};
	struct kx_summary picture = moment(KX_VISUAL, 0, 4, x_axis), sound = moment(KX_AUDIO, 0, 2, y_axis);
	kx_status status;

	ends[1].recipe_sha256[0] = recipe;
	ends[1].moment_us = moment_us;
	assert_int_equal(kx_merge_new(&merge), KX_OK);
	assert_int_equal(kx_merge_add(merge, &picture, NULL), KX_OK);
	assert_int_equal(kx_merge_add(merge, &sound, NULL), KX_OK);
	status = kx_merge_video(merge, &source, ret, error);
	return status;
}

static void test_parts_add_up(void **state)
{
	struct kx_video_result video = {0};

	(void)state;
	assert_int_equal(merge_two_parts(4, 2, 1, 5, &video, NULL), KX_OK);
	assert_string_equal(video.video_id, "v");
	assert_int_equal(video.modality_count, 2);
	assert_int_equal(video.visual_us, 2000);
	assert_int_equal(video.audio_us, 600);
	assert_int_equal(video.duration_us, 2000); /* the container says nothing */
	assert_true(video.truncated);
	assert_int_equal(video.max_time_error_us, 10);
	assert_int_equal(video.moment_us, 5);
}

static void test_rows_must_fit_the_parts(void **state)
{
	struct kx_video_result video;
	struct kx_error error = {0};

	(void)state;
	assert_int_equal(merge_two_parts(5, 2, 1, 5, &video, &error), KX_EAGAIN);
	assert_non_null(strstr(error.message, "4 of 5 frames"));
	assert_int_equal(merge_two_parts(4, 3, 1, 5, &video, NULL), KX_EAGAIN);
	assert_int_equal(merge_two_parts(3, 2, 1, 5, &video, NULL), KX_ECORRUPT);
	assert_int_equal(merge_two_parts(4, 2, 2, 5, &video, &error), KX_ECORRUPT);
	assert_non_null(strstr(error.message, "recipe"));
	assert_int_equal(merge_two_parts(4, 2, 1, 6, &video, &error), KX_ECORRUPT);
	assert_non_null(strstr(error.message, "another length"));
}

static void test_a_moment_after_the_end_of_time(void **state)
{
	KX_CLEANUP(kx_merge_cleanup) struct kx_merge *merge = NULL;
	struct kx_part_end end = part_end(0, 1, 0);
	struct kx_video_info info = {.recipe_sha256 = {1}};
	struct kx_merge_source source = {"v", &info, &end, 1};
	struct kx_summary late = moment(KX_VISUAL, 3, 1, x_axis);
	struct kx_video_result video;
	struct kx_error error = {0};

	(void)state;
	end.moment_us = KX_MEDIA_US_MAX / 2;
	assert_int_equal(kx_merge_new(&merge), KX_OK);
	assert_int_equal(kx_merge_add(merge, &late, NULL), KX_OK);
	assert_int_equal(kx_merge_video(merge, &source, &video, &error), KX_ECORRUPT);
	assert_non_null(strstr(error.message, "visual moment 3 is later"));
}

static void test_nothing_is_no_video(void **state)
{
	KX_CLEANUP(kx_merge_cleanup) struct kx_merge *merge = NULL;
	struct kx_part_end end = part_end(0, 0, 0);
	struct kx_video_info info = {.recipe_sha256 = {1}};
	struct kx_merge_source source = {"v", &info, &end, 1};
	struct kx_video_result video;

	(void)state;
	assert_int_equal(kx_merge_new(&merge), KX_OK);
	assert_int_equal(kx_merge_video(merge, &source, &video, NULL), KX_ECORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_means_are_weighted_by_rows),
		cmocka_unit_test(test_best_classes_break_ties_by_id),
		cmocka_unit_test(test_full_scores_stay_in_range),
		cmocka_unit_test(test_disorder_is_refused),
		cmocka_unit_test(test_parts_add_up),
		cmocka_unit_test(test_rows_must_fit_the_parts),
		cmocka_unit_test(test_a_moment_after_the_end_of_time),
		cmocka_unit_test(test_nothing_is_no_video),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
