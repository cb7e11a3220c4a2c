#include "common/record/test_checks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "common/base/str.h"

static bool is_finite(const float *values, size_t count, float min, float max)
{
	for (size_t i = 0; i < count; i++) {
		if (!isfinite(values[i]) || values[i] < min || values[i] > max)
			return false;
	}
	return true;
}

static void check_moment(const struct kx_moment *moment)
{
	assert_in_range(moment->modality, KX_VISUAL, KX_AUDIO);
	assert_in_range(moment->index, 0, KX_MOMENTS_MAX - 1);
	assert_in_range(strlen(moment->space), 1, KX_SPACE_MAX - 1);
	assert_in_range(moment->count, 1, KX_MOMENT_ROWS_MAX);
	assert_in_range(moment->dim, 1, KX_DIM_MAX);
	assert_in_range(moment->class_count, 0, KX_CLASSES_MAX);
	assert_true(is_finite(moment->lo, moment->count, -INFINITY, INFINITY));
	assert_true(is_finite(moment->step, moment->count, 0.0f, INFINITY));
	assert_true(is_finite(moment->class_scores, moment->class_count, 0.0f, 1.0f));
	assert_true(is_finite(&moment->embedding_scale, 1, 0.0f, INFINITY));
	for (size_t i = 0; i < (size_t)moment->count * moment->dim; i++)
		assert_true(moment->features[i] <= UINT8_MAX); /* reads all of it */
	for (size_t i = 0; i < moment->count; i++)
		assert_true(moment->pts_us[i] <= KX_MEDIA_US_MAX);
	for (size_t i = 0; i < moment->dim; i++)
		assert_true(moment->embedding[i] <= INT8_MAX);
}

static void check_job(const struct kx_job *job)
{
	assert_in_range(strlen(job->run_id), 1, KX_ID_MAX);
	assert_in_range(strlen(job->video_id), 1, KX_ID_MAX);
	assert_in_range(strlen(job->source), 1, KX_PATH_MAX);
	assert_in_range(job->parts, 1, KX_PARTS_MAX);
	assert_in_range(job->part, 0, job->parts - 1);
	assert_in_range(job->tracks, 1, 3);
	assert_true(job->fps > 0.0 && job->fps <= 240.0);
	assert_string_not_equal(kx_decode_mode_name(job->decode_mode), "unknown");
	assert_in_range(job->moment_us, 1, KX_MEDIA_US_MAX);
	assert_true(job->end_us == 0 || job->end_us > job->start_us);
	assert_true(job->end_us <= KX_MEDIA_US_MAX);
	assert_true(job->attempt > 0);
}

static void check_extras(const struct kx_extras *extras)
{
	assert_in_range(strlen(extras->language), 0, KX_WORD_MAX);
	assert_in_range(strlen(extras->visibility), 0, KX_WORD_MAX);
	assert_in_range(extras->attribute_count, 0, KX_ATTRIBUTES_MAX);
	for (uint32_t i = 0; i < extras->attribute_count; i++) {
		const struct kx_attribute *attribute = &extras->attributes[i];

		assert_true(kx_attribute_name_ok(attribute->name));
		assert_in_range(attribute->type, KX_ATTRIBUTE_TEXT, KX_ATTRIBUTE_BOOL);
		assert_true(isfinite(attribute->number));
		assert_true(i == 0 || strcmp(attribute[-1].name, attribute->name) < 0);
	}
}

static void check_info(const struct kx_video_info *info)
{
	check_extras(&info->extras);
	assert_in_range(strlen(info->source), 1, KX_PATH_MAX);
	assert_in_range(strlen(info->title), 0, KX_TEXT_MAX);
	assert_in_range(info->label_count, 0, KX_LABELS_MAX);
	for (uint32_t i = 0; i < info->label_count; i++)
		assert_in_range(strlen(info->labels[i]), 0, KX_TEXT_MAX);
	assert_true(info->duration_us <= KX_MEDIA_US_MAX);
}

static void check_part_end(const struct kx_part_end *end)
{
	assert_in_range(end->parts, 1, KX_PARTS_MAX);
	assert_in_range(end->part, 0, end->parts - 1);
	assert_in_range(end->tracks, 1, 3);
	assert_true(end->visual_us <= KX_MEDIA_US_MAX && end->audio_us <= KX_MEDIA_US_MAX);
	assert_string_not_equal(kx_decode_mode_name(end->decode_mode), "unknown");
	assert_in_range(end->moment_us, 1, KX_MEDIA_US_MAX);
}

static void check_result(const struct kx_result *result)
{
	assert_in_range(strlen(result->video_id), 1, KX_ID_MAX);
	switch (result->kind) {
	case KX_RESULT_PLAN:
		assert_in_range(result->parts, 1, KX_PARTS_MAX);
		check_info(&result->info);
		return;
	case KX_RESULT_MOMENT:
		check_moment(&result->moment);
		return;
	case KX_RESULT_PART_END:
		check_part_end(&result->part_end);
		return;
	case KX_RESULT_DELETE:
		return;
	case KX_RESULT_COPY:
		assert_in_range(strlen(result->copy_from), 1, KX_ID_MAX);
		check_info(&result->info);
		return;
	}
	fail_msg("kind %d", (int)result->kind);
}

static void check_video_result(const struct kx_video_result *result)
{
	assert_in_range(strlen(result->video_id), 1, KX_ID_MAX);
	assert_in_range(result->modality_count, 1, 2);
	assert_true(result->modality_count == 1 || result->modalities[0].modality < result->modalities[1].modality);
	for (uint32_t i = 0; i < result->modality_count; i++) {
		const struct kx_modality_result *one = &result->modalities[i];

		assert_in_range(one->modality, KX_VISUAL, KX_AUDIO);
		assert_in_range(one->dim, 1, KX_DIM_MAX);
		assert_in_range(one->moments, 1, KX_MOMENTS_MAX);
		assert_true(is_finite(one->embedding, one->dim, -INFINITY, INFINITY));
		assert_true(is_finite(one->class_scores, one->class_count, 0.0f, 1.0f));
	}
	assert_in_range(result->moment_us, 1, KX_MEDIA_US_MAX);
}

static void check_video_record(const struct kx_video_record *video)
{
	check_info(&video->info);
	check_video_result(&video->result);
}

static void check_pending(const struct kx_pending_video *pending)
{
	if (pending->parts > 0)
		check_info(&pending->info);
	for (uint32_t i = 0; i < pending->part_end_count; i++) {
		check_part_end(&pending->part_ends[i]);
		for (uint32_t j = 0; j < i; j++)
			assert_int_not_equal(pending->part_ends[i].part, pending->part_ends[j].part);
	}
}

static void check_similar(const struct kx_similar_query *query)
{
	assert_in_range(query->k, 1, KX_QUERY_K_MAX);
	assert_true(query->weight_visual >= 0.0 && query->weight_audio >= 0.0);
	assert_true(isfinite(query->weight_visual + query->weight_audio));
	assert_true(query->moment_count == 0 || (query->moment_us > 0 && query->moment_us <= KX_MEDIA_US_MAX));
	assert_true(query->weight_visual + query->weight_audio > 0.0);
	assert_in_range(query->vector_count, 0, 2);
	assert_true(query->vector_count > 0 || query->video_id[0] != '\0');
	for (uint32_t i = 0; i < query->moment_count; i++)
		assert_true(is_finite(query->moments[i].values, query->moments[i].dim, -INFINITY, INFINITY));
	assert_in_range(strlen(query->filter), 0, KX_QUERY_FILTER_BYTES_MAX);
	assert_in_range(strlen(query->cursor), 0, KX_QUERY_CURSOR_MAX);
	assert_true(fabs(query->min_score) < 1.01);
	assert_true(query->diversity >= 0.0 && query->diversity <= 1.0);
	assert_true(query->recall >= 0.0 && query->recall <= 1.0);
	assert_in_range(query->group, KX_GROUP_NONE, KX_GROUP_DUPLICATES);
	assert_in_range(query->level, KX_LEVEL_VIDEOS, KX_LEVEL_MOMENTS);
	for (uint32_t i = 0; i < query->not_id_count; i++)
		assert_in_range(strlen(query->not_ids[i]), 1, KX_ID_MAX);
}

static void check_request(const struct kx_query_request *request)
{
	assert_in_range(request->kind, KX_QUERY_SIMILAR, KX_QUERY_CARE);
	if (request->kind == KX_QUERY_CARE) {
		assert_in_range(request->care.work, KX_CARE_COMPACT, KX_CARE_CHECKPOINT);
		assert_int_equal(strlen(request->care.path) > 0, request->care.work == KX_CARE_CHECKPOINT);
	}
	assert_in_range(request->batch_count, 0, KX_QUERY_BATCH_MAX);
	assert_in_range(request->video_id_count, 0, KX_QUERY_VIDEOS_MAX);
	if (request->kind == KX_QUERY_SIMILAR)
		check_similar(&request->similar);
	for (uint32_t i = 0; i < request->batch_count; i++)
		check_similar(&request->batch[i]);
	for (uint32_t i = 0; i < request->video_id_count; i++)
		assert_in_range(strlen(request->video_ids[i]), 1, KX_ID_MAX);
}

static void check_hit(const struct kx_similar_hit *hit)
{
	assert_in_range(strlen(hit->video_id), 1, KX_ID_MAX);
	assert_true(fabs(hit->score) < 1.01);
	assert_true(!hit->has_moment || hit->moment_end_us > hit->moment_start_us);
	for (uint32_t i = 0; i < hit->match_count; i++)
		assert_true(fabs(hit->matches[i].score) < 1.01);
	for (uint32_t i = 0; i < hit->label_count; i++)
		assert_in_range(strlen(hit->labels[i]), 0, KX_TEXT_MAX);
	for (uint32_t i = 0; i < hit->clause_count; i++)
		assert_true(strlen(hit->clauses[i].clause) > 0);
}

static void check_answer(const struct kx_similar_answer *answer)
{
	assert_true(answer->status <= KX_OK && answer->status >= KX_EPERM);
	assert_in_range(answer->hit_count, 0, KX_QUERY_K_MAX);
	assert_true(answer->recall >= 0.0 && answer->recall <= 1.0);
	for (uint32_t i = 0; i < answer->hit_count; i++)
		check_hit(&answer->hits[i]);
}

static void check_reply(const struct kx_query_reply *reply)
{
	assert_true(reply->status <= KX_OK && reply->status >= KX_EPERM);
	check_answer(&reply->similar);
	for (uint32_t i = 0; i < reply->moment_count; i++)
		assert_true(is_finite(reply->moments[i].class_scores, reply->moments[i].class_count, 0.0f, 1.0f));
	if (reply->video != NULL)
		check_video_record(reply->video);
	for (uint32_t i = 0; i < reply->answer_count; i++)
		check_answer(&reply->answers[i]);
	for (uint32_t i = 0; i < reply->found_count; i++) {
		assert_in_range(strlen(reply->found[i].video_id), 1, KX_ID_MAX);
		if (reply->found[i].video != NULL)
			check_video_record(reply->found[i].video);
	}
	for (uint32_t i = 0; i < reply->attribute_count; i++) {
		assert_string_not_equal(kx_attribute_type_name(reply->attributes[i].type), "unknown");
		assert_true(isfinite(reply->attributes[i].min) && isfinite(reply->attributes[i].max));
	}
}

static void check_decode_request(const struct kx_decode_request *request)
{
	assert_in_range(request->purpose, KX_DECODE_PROBE, KX_DECODE_INSPECT);
	assert_in_range(strlen(request->endpoint), 1, KX_TEXT_MAX);
	if (request->purpose != KX_DECODE_SAMPLE)
		return;
	assert_in_range(request->tracks, 1, 3);
	assert_true(request->fps > 0.0 && request->fps <= 240.0);
	assert_in_range(request->ring_slots, 1, KX_DECODE_SLOTS_MAX);
	assert_in_range(request->slot_bytes, 1, KX_DECODE_SLOT_BYTES_MAX);
}

static void check_decode_event(const struct kx_decode_event *event)
{
	assert_in_range(event->kind, KX_DECODE_OPENED, KX_DECODE_DETAIL);
	assert_true(isfinite(event->opened.frame_rate) && event->opened.frame_rate >= 0.0);
	assert_true(event->sample.pts_us <= KX_MEDIA_US_MAX);
	assert_true(event->sample.slot < KX_DECODE_SLOTS_MAX);
	if (event->kind == KX_DECODE_END)
		assert_in_range(event->end.reason, KX_REASON_NONE, KX_REASON_COUNT - 1);
}

static void check_event(const struct kx_event *event)
{
	assert_in_range(event->kind, KX_EVENT_FINISHED, KX_EVENT_DELETED);
	assert_true(event->part < KX_PARTS_MAX);
	assert_true(event->kind != KX_EVENT_FAILED || event->reason > KX_REASON_NONE);
	assert_true(event->reason < KX_REASON_COUNT);
}

static void check_accepted(const struct record_case *c, const void *record)
{
	const char *type = c->descriptor->short_name;

	if (kx_str_eq(type, "Job"))
		check_job(record);
	else if (kx_str_eq(type, "Moment"))
		check_moment(record);
	else if (kx_str_eq(type, "Result"))
		check_result(record);
	else if (kx_str_eq(type, "Event"))
		check_event(record);
	else if (kx_str_eq(type, "VideoResult"))
		check_video_result(record);
	else if (kx_str_eq(type, "VideoRecord"))
		check_video_record(record);
	else if (kx_str_eq(type, "PendingVideo"))
		check_pending(record);
	else if (kx_str_eq(type, "QueryRequest"))
		check_request(record);
	else if (kx_str_eq(type, "QueryReply"))
		check_reply(record);
	else if (kx_str_eq(type, "DecodeRequest"))
		check_decode_request(record);
	else if (kx_str_eq(type, "DecodeEvent"))
		check_decode_event(record);
}

/* What was accepted packs to bytes that are accepted and pack to the same bytes. */
static void check_packs_again(const struct record_case *c, const void *record)
{
	struct kx_buf once = {.max = KX_RECORD_MAX};
	struct kx_buf twice = {.max = KX_RECORD_MAX};
	struct kx_error error = {0};
	void *again = NULL;

	assert_int_equal(c->pack(record, &once), KX_OK);
	if (c->unpack(once.data, once.len, &again, &error) != KX_OK)
		fail_msg("%s was accepted, packed, and refused: %s", c->name, error.message);
	assert_int_equal(c->pack(again, &twice), KX_OK);
	assert_int_equal(once.len, twice.len);
	assert_memory_equal(once.data, twice.data, once.len);
	c->release(again);
	kx_buf_done(&once);
	kx_buf_done(&twice);
}

bool record_try_bytes(const struct record_case *c, const void *bytes, size_t len)
{
	uint8_t *exact = malloc(len > 0 ? len : 1);
	struct kx_error error = {0};
	void *record = NULL;
	kx_status status;

	assert_non_null(exact);
	if (len > 0)
		memcpy(exact, bytes, len);
	status = c->unpack(exact, len, &record, &error);
	free(exact);
	assert_int_equal(error.status, status);
	if (status != KX_OK) {
		assert_true(status == KX_ECORRUPT || status == KX_EVERSION || status == KX_ETOOBIG);
		assert_null(record);
		assert_true(error.message[0] != '\0');
		return false;
	}
	check_accepted(c, record);
	check_packs_again(c, record);
	c->release(record);
	return true;
}
