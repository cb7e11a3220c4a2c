/* What unpack refuses: absent, out of range, too long, of another version. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/macros.h"
#include "common/record/test_samples.h"

static char *long_text(size_t len)
{
	char *text = malloc(len + 1);

	assert_non_null(text);
	memset(text, 'x', len);
	text[len] = '\0';
	return text;
}

static void assert_spoilt(const void *sample, const void *spoilt, kx_status want, const char *field)
{
	const struct record_case *c = sample_case_of(sample);
	struct kx_buf bytes = sample_pack(c, spoilt);

	sample_assert_refused(c, bytes.data, bytes.len, want, field);
	kx_buf_done(&bytes);
}

/* Packs a copy `r` of the sample after `change`, and expects unpack to refuse it and to name the field. */
#define REFUSES(sample, change, want, field)                   \
	do {                                                   \
		__typeof__(sample) copy = (sample);            \
		__typeof__(*copy) r = *copy;                   \
                                                               \
		change;                                        \
		assert_spoilt(copy, &r, want, field);          \
	} while (0)

static void jobs_out_of_range(void **state)
{
	char *id = long_text(KX_ID_MAX + 1);
	char *path = long_text(KX_PATH_MAX + 1);

	(void)state;
	REFUSES(&sample_job, r.run_id = NULL, KX_ECORRUPT, "Job.run_id: absent");
	REFUSES(&sample_job, r.video_id = NULL, KX_ECORRUPT, "Job.video_id: absent");
	REFUSES(&sample_job, r.video_id = id, KX_ETOOBIG, "Job.video_id: 4097 bytes, at most 4096");
	REFUSES(&sample_job, r.source = NULL, KX_ECORRUPT, "Job.source: absent");
	REFUSES(&sample_job, r.source = path, KX_ETOOBIG, "Job.source");
	REFUSES(&sample_job, r.parts = 0, KX_ECORRUPT, "Job.parts: 0 is not in 1..65536");
	REFUSES(&sample_job, r.parts = KX_PARTS_MAX + 1, KX_ECORRUPT, "Job.parts");
	REFUSES(&sample_job, r.part = 3, KX_ECORRUPT, "Job.part: 3 is not in 0..2");
	REFUSES(&sample_job, r.tracks = 0, KX_ECORRUPT, "Job.tracks");
	REFUSES(&sample_job, r.tracks = 4, KX_ECORRUPT, "Job.tracks");
	REFUSES(&sample_job, r.fps = 0.0, KX_ECORRUPT, "Job.fps");
	REFUSES(&sample_job, r.fps = -1.0, KX_ECORRUPT, "Job.fps");
	REFUSES(&sample_job, r.fps = 240.5, KX_ECORRUPT, "Job.fps");
	REFUSES(&sample_job, r.fps = __builtin_nan(""), KX_ECORRUPT, "Job.fps");
	REFUSES(&sample_job, r.decode_mode = 0, KX_ECORRUPT, "Job.decode_mode");
	REFUSES(&sample_job, r.decode_mode = KX_DECODE_KEYFRAME + 1, KX_ECORRUPT, "Job.decode_mode");
	REFUSES(&sample_job, r.decode_mode = KX_DECODE_EXACT, KX_ECORRUPT, "Job.decode_tolerance_us: of a mode");
	REFUSES(&sample_job, r.decode_tolerance_us = 0, KX_ECORRUPT, "Job.decode_tolerance_us: 0 is not in 1..");
	REFUSES(&sample_job, r.decode_tolerance_us = KX_TOLERANCE_US_MAX + 1, KX_ECORRUPT, "Job.decode_tolerance_us");
	REFUSES(&sample_job, r.moment_us = 0, KX_ECORRUPT, "Job.moment_us");
	REFUSES(&sample_job, r.moment_us = KX_MEDIA_US_MAX + 1, KX_ECORRUPT, "Job.moment_us");
	REFUSES(&sample_job, r.start_us++, KX_ECORRUPT, "Job.start_us: not a multiple");
	REFUSES(&sample_job, r.end_us = r.start_us, KX_ECORRUPT, "Job.end_us: not after");
	REFUSES(&sample_job, memset(r.recipe_sha256, 0, KX_SHA_LEN), KX_ECORRUPT, "Job.recipe_sha256: absent");
	REFUSES(&sample_job, r.attempt = 0, KX_ECORRUPT, "Job.attempt");
	free(id);
	free(path);
}

static void moments_out_of_range(void **state)
{
	float bad[] = {0.5f, __builtin_nanf(""), 0.1f};
	float negative[] = {0.5f, -0.1f, 0.1f};
	float over[] = {1.5f, 0.2f, 0.1f};
	float infinite[] = {0.5f, 0.4f, -__builtin_inff()};
	uint64_t late[] = {1, 2, KX_MEDIA_US_MAX + 1};
	char *space = long_text(KX_SPACE_MAX);

	(void)state;
	REFUSES(&sample_moment, r.modality = 0, KX_ECORRUPT, "Moment.modality");
	REFUSES(&sample_moment, r.modality = 3, KX_ECORRUPT, "Moment.modality");
	REFUSES(&sample_moment, r.index = KX_MOMENTS_MAX, KX_ECORRUPT, "Moment.index");
	REFUSES(&sample_moment, r.space = NULL, KX_ECORRUPT, "Moment.space: absent");
	REFUSES(&sample_moment, r.space = space, KX_ETOOBIG, "Moment.space");
	REFUSES(&sample_moment, r.count = 0, KX_ECORRUPT, "Moment.count");
	REFUSES(&sample_moment, r.dim = 0, KX_ECORRUPT, "Moment.dim");
	REFUSES(&sample_moment, r.pts_us = late, KX_ECORRUPT, "Moment.pts_us");
	REFUSES(&sample_moment, r.lo = bad, KX_ECORRUPT, "Moment.lo");
	REFUSES(&sample_moment, r.lo = infinite, KX_ECORRUPT, "Moment.lo");
	REFUSES(&sample_moment, r.step = negative, KX_ECORRUPT, "Moment.step");
	REFUSES(&sample_moment, r.class_scores = over, KX_ECORRUPT, "Moment.class_scores");
	REFUSES(&sample_moment, r.class_scores = bad, KX_ECORRUPT, "Moment.class_scores");
	REFUSES(&sample_moment, r.embedding_scale = -1.0f, KX_ECORRUPT, "Moment.embedding_scale");
	REFUSES(&sample_moment, r.embedding_scale = __builtin_inff(), KX_ECORRUPT, "Moment.embedding_scale");
	REFUSES(&sample_moment, r.max_time_error_us = UINT64_MAX, KX_ECORRUPT, "Moment.max_time_error_us");
	free(space);
}

/* Counts that do not fit each other can't come from pack: they are written here by hand. */
static void moments_with_counts_that_disagree(void **state)
{
	const struct record_case *c = sample_case_of(&sample_moment);
	static const uint8_t more_features[] = {0x42, 3, 1, 2, 3};   /* field 8: 3 bytes, in place of 12 */
	static const uint8_t more_pts[] = {0x3a, 1, 1};              /* field 7: one more */
	static const uint8_t more_scores[] = {0x62, 4, 0, 0, 0, 0};  /* field 12: one more */
	static const uint8_t half_a_float[] = {0x4a, 2, 0, 0};       /* field 9: 2 bytes */
	static const uint8_t other_dim[] = {0x30, 5};                /* field 6 */
	static const uint8_t more_errors[] = {0x82, 0x01, 1, 1};     /* field 16: one more */
	static const uint8_t giant_count[] = {0x28, 0x81, 0x20};     /* field 5: 4097 */
	static const struct {
		const uint8_t *bytes;
		size_t len;
		const char *said;
	} additions[] = {
		{more_features, sizeof(more_features), "Moment.features: 3 elements where 12 belong"},
		{more_pts, sizeof(more_pts), "Moment.pts_us: 4 elements where 3 belong"},
		{more_scores, sizeof(more_scores), "Moment.class_scores: 4 elements where 3 belong"},
		{more_errors, sizeof(more_errors), "Moment.time_error_us: 4 elements where 3 belong"},
		{half_a_float, sizeof(half_a_float), "no message"},
		{other_dim, sizeof(other_dim), "Moment.features: 12 elements where 15 belong"},
		{giant_count, sizeof(giant_count), "Moment.count: 4097 is not in 1..4096"},
	};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(additions); i++) {
		struct kx_buf bytes = sample_pack(c, c->sample);

		assert_int_equal(kx_buf_append(&bytes, additions[i].bytes, additions[i].len), KX_OK);
		sample_assert_refused(c, bytes.data, bytes.len, KX_ECORRUPT, additions[i].said);
		kx_buf_done(&bytes);
	}
}

static void class_lists_have_a_maximum(void **state)
{
	uint32_t ids[KX_CLASSES_MAX + 1] = {0};
	float scores[KX_CLASSES_MAX + 1] = {0};

	(void)state;
	REFUSES(&sample_moment, (r.class_ids = ids, r.class_scores = scores, r.class_count = KX_CLASSES_MAX + 1),
		KX_ETOOBIG, "Moment.class_ids: 65 elements, at most 64");
}

static void results_out_of_range(void **state)
{
	char *too_many[KX_LABELS_MAX + 1];

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(too_many); i++)
		too_many[i] = "label";
	REFUSES(&sample_plan, r.video_id = NULL, KX_ECORRUPT, "Result.video_id: absent");
	REFUSES(&sample_plan, r.parts = 0, KX_ECORRUPT, "Result.body.parts");
	REFUSES(&sample_plan, r.info.source = "", KX_ECORRUPT, "Result.body.info.source: absent");
	REFUSES(&sample_plan, r.info.duration_us = UINT64_MAX, KX_ECORRUPT, "Result.body.info.duration_us");
	REFUSES(&sample_plan, memset(r.info.recipe_sha256, 0, KX_SHA_LEN), KX_ECORRUPT, "info.recipe_sha256: absent");
	REFUSES(&sample_plan, (r.info.labels = too_many, r.info.label_count = KX_LABELS_MAX + 1), KX_ETOOBIG,
		"Result.body.info.labels");
	REFUSES(&sample_part_end, r.part_end.part = 4, KX_ECORRUPT, "Result.body.part: 4 is not in 0..3");
	REFUSES(&sample_part_end, r.part_end.parts = 0, KX_ECORRUPT, "Result.body.parts");
	REFUSES(&sample_part_end, r.part_end.tracks = 7, KX_ECORRUPT, "Result.body.tracks");
	REFUSES(&sample_part_end, r.part_end.audio_us = UINT64_MAX, KX_ECORRUPT, "Result.body.audio_us");
	REFUSES(&sample_part_end, r.part_end.moment_us = 0, KX_ECORRUPT, "Result.body.moment_us");
	REFUSES(&sample_part_end, r.part_end.moment_us = KX_MEDIA_US_MAX + 1, KX_ECORRUPT, "Result.body.moment_us");
	REFUSES(&sample_copy, r.copy_from = "", KX_ECORRUPT, "Result.body.from_video_id: absent");
	REFUSES(&sample_result_moment, r.moment.dim = 0, KX_ECORRUPT, "Result.body.dim");
}

static void events_out_of_range(void **state)
{
	char *text = long_text(KX_TEXT_MAX + 1);

	(void)state;
	REFUSES(&sample_finished, r.video_id = NULL, KX_ECORRUPT, "Event.video_id: absent");
	REFUSES(&sample_finished, r.part = KX_PARTS_MAX, KX_ECORRUPT, "Event.body.part");
	REFUSES(&sample_finished, r.attempt = 0, KX_ECORRUPT, "Event.body.attempt");
	REFUSES(&sample_failed, r.reason = KX_REASON_NONE, KX_ECORRUPT, "Event.body.reason");
	REFUSES(&sample_failed, r.reason = KX_REASON_COUNT, KX_ECORRUPT, "Event.body.reason");
	REFUSES(&sample_failed, r.message = text, KX_ETOOBIG, "Event.body.message");
	REFUSES(&sample_stored, r.duration_us = UINT64_MAX, KX_ECORRUPT, "Event.body.duration_us");
	REFUSES(&sample_dead_letter, r.video_id = NULL, KX_ECORRUPT, "DeadLetter.video_id: absent");
	REFUSES(&sample_dead_letter, r.reason = 0, KX_ECORRUPT, "DeadLetter.reason");
	free(text);
}

static void videos_out_of_range(void **state)
{
	struct kx_part_end twice[] = {sample_part_end.part_end, sample_part_end.part_end};
	float infinite[] = {0.5f, __builtin_inff(), 0.5f, 0.5f};
	static float wide[KX_DIM_MAX + 1];

	(void)state;
	REFUSES(&sample_video_result, r.video_id = NULL, KX_ECORRUPT, "VideoResult.video_id: absent");
	REFUSES(&sample_video_result, r.modality_count = 0, KX_ECORRUPT, "VideoResult.modalities");
	REFUSES(&sample_video_result, r.modalities[0].modality = KX_AUDIO, KX_ECORRUPT, "modalities[1].modality: twice");
	REFUSES(&sample_video_result, r.modalities[1].space = NULL, KX_ECORRUPT, "modalities[1].space: absent");
	REFUSES(&sample_video_result, r.modalities[0].dim = 0, KX_ECORRUPT, "modalities[0].embedding");
	REFUSES(&sample_video_result, (r.modalities[0].embedding = wide, r.modalities[0].dim = KX_DIM_MAX + 1),
		KX_ECORRUPT, "modalities[0].embedding: 4097 is not in 1..4096");
	REFUSES(&sample_video_result, r.modalities[0].embedding = infinite, KX_ECORRUPT, "modalities[0].embedding");
	REFUSES(&sample_video_result, r.moment_us = 0, KX_ECORRUPT, "VideoResult.moment_us");
	REFUSES(&sample_video_record, r.result.decode_mode = 9, KX_ECORRUPT, "VideoRecord.result.decode_mode");
	REFUSES(&sample_video_record, r.info.source = NULL, KX_ECORRUPT, "VideoRecord.info.source: absent");
	REFUSES(&sample_pending, r.part_ends = twice, KX_ECORRUPT, "PendingVideo.part_ends[1].part: 2 is there twice");
	REFUSES(&sample_pending, r.parts = KX_PARTS_MAX + 1, KX_ECORRUPT, "PendingVideo.plan.parts");
	REFUSES(&sample_input, r.state = 0, KX_ECORRUPT, "Input.state");
	REFUSES(&sample_input, r.state = KX_INPUT_DELETED + 1, KX_ECORRUPT, "Input.state");
	REFUSES(&sample_input, r.reason = 0, KX_ECORRUPT, "Input.reason");
	REFUSES(&sample_input, r.source = NULL, KX_ECORRUPT, "Input.source: absent");
}

static void extras_out_of_range(void **state)
{
	struct kx_attribute one = {.name = "a", .type = KX_ATTRIBUTE_TEXT, .text = "x"};
	struct kx_attribute twice[] = {one, one};
	static struct kx_attribute many[KX_ATTRIBUTES_MAX + 1];
	char *text = long_text(KX_TEXT_MAX + 1);

	(void)state;
	REFUSES(&sample_plan, (r.info.extras.attributes = twice, r.info.extras.attribute_count = 2), KX_ECORRUPT,
		"Result.body.info.attributes[1].name: twice");
	one.name = "9";
	REFUSES(&sample_plan, (r.info.extras.attributes = &one, r.info.extras.attribute_count = 1), KX_ECORRUPT,
		"attributes[0].name: not of letters");
	one = (struct kx_attribute){.name = "a", .type = KX_ATTRIBUTE_NUMBER, .number = __builtin_inf()};
	REFUSES(&sample_input, (r.extras.attributes = &one, r.extras.attribute_count = 1), KX_ECORRUPT,
		"Input.attributes[0].number");
	one = (struct kx_attribute){.name = "a", .type = KX_ATTRIBUTE_TEXT, .text = text};
	REFUSES(&sample_input, (r.extras.attributes = &one, r.extras.attribute_count = 1), KX_ETOOBIG,
		"Input.attributes[0].text");
	text[KX_WORD_MAX + 1] = '\0';
	REFUSES(&sample_input, r.extras.language = text, KX_ETOOBIG, "Input.language");
	REFUSES(&sample_input, r.extras.visibility = text, KX_ETOOBIG, "Input.visibility");
	for (size_t i = 0; i < KX_ARRAY_LEN(many); i++)
		many[i] = (struct kx_attribute){.name = "a", .type = KX_ATTRIBUTE_BOOL};
	REFUSES(&sample_input, (r.extras.attributes = many, r.extras.attribute_count = KX_ATTRIBUTES_MAX + 1), KX_ETOOBIG,
		"Input.attributes: 65 elements, at most 64");
	free(text);
}

static void queries_out_of_range(void **state)
{
	struct kx_query_vector alike[] = {sample_similar.similar.vectors[0], sample_similar.similar.vectors[0]};
	struct kx_similar_hit hit = sample_reply.similar.hits[0];

	(void)state;
	REFUSES(&sample_similar, r.similar.k = 0, KX_ECORRUPT, "QueryRequest.body.k");
	REFUSES(&sample_similar, r.similar.k = KX_QUERY_K_MAX + 1, KX_ECORRUPT, "QueryRequest.body.k");
	REFUSES(&sample_similar, r.similar.weight_audio = -0.5, KX_ECORRUPT, "QueryRequest.body.weight_audio");
	REFUSES(&sample_similar, r.similar.weight_audio = __builtin_inf(), KX_ECORRUPT, "QueryRequest.body.weight_audio");
	REFUSES(&sample_similar, r.similar.weight_audio = r.similar.weight_visual = 0.0, KX_ECORRUPT, "both weights are 0");
	REFUSES(&sample_similar, r.similar.vectors = alike, KX_ECORRUPT, "QueryRequest.body.vectors: two of one modality");
	REFUSES(&sample_similar, (r.similar.video_id = NULL, r.similar.vector_count = 0), KX_ECORRUPT, "body.video_id: absent");
	REFUSES(&sample_similar, (r.similar.vectors = r.similar.moments, r.similar.vector_count = 3), KX_ETOOBIG, "QueryRequest.body.vectors");
	REFUSES(&sample_similar, r.similar.moment_us = 0, KX_ECORRUPT, "QueryRequest.body.moment_us");
	REFUSES(&sample_similar, r.similar.moment_us = KX_MEDIA_US_MAX + 1, KX_ECORRUPT, "QueryRequest.body.moment_us");
	REFUSES(&sample_video_query, r.video_id = NULL, KX_ECORRUPT, "QueryRequest.body.video_id: absent");
	REFUSES(&sample_reply, r.status = 1, KX_ECORRUPT, "QueryReply.status");
	REFUSES(&sample_reply, r.status = KX_EPERM - 1, KX_ECORRUPT, "QueryReply.status");
	hit.score = 1.5;
	REFUSES(&sample_reply, (r.similar.hits = &hit, r.similar.hit_count = 1), KX_ECORRUPT, "QueryReply.hits[0].score");
}

static void query_options_out_of_range(void **state)
{
	char *empty_id = "";
	struct kx_similar_query bad = sample_similar.similar;
	char *text = long_text(KX_QUERY_FILTER_BYTES_MAX + 1);

	(void)state;
	REFUSES(&sample_similar, r.similar.filter = text, KX_ETOOBIG, "QueryRequest.body.filter");
	text[KX_QUERY_CURSOR_MAX + 1] = '\0';
	REFUSES(&sample_similar, r.similar.cursor = text, KX_ETOOBIG, "QueryRequest.body.cursor");
	REFUSES(&sample_similar, r.similar.min_score = 1.5, KX_ECORRUPT, "QueryRequest.body.min_score");
	REFUSES(&sample_similar, r.similar.min_score = __builtin_nan(""), KX_ECORRUPT, "QueryRequest.body.min_score");
	REFUSES(&sample_similar, r.similar.diversity = 1.01, KX_ECORRUPT, "QueryRequest.body.diversity");
	REFUSES(&sample_similar, r.similar.diversity = __builtin_nan(""), KX_ECORRUPT, "QueryRequest.body.diversity");
	REFUSES(&sample_similar, r.similar.recall = -0.1, KX_ECORRUPT, "QueryRequest.body.recall");
	REFUSES(&sample_similar, r.similar.group = KX_GROUP_DUPLICATES + 1, KX_ECORRUPT, "QueryRequest.body.group");
	REFUSES(&sample_similar, r.similar.level = KX_LEVEL_MOMENTS + 1, KX_ECORRUPT, "QueryRequest.body.level");
	REFUSES(&sample_similar, (r.similar.not_ids = &empty_id, r.similar.not_id_count = 1), KX_ECORRUPT, "body.not_ids");
	bad.k = 0;
	REFUSES(&sample_batch, (r.batch = &bad, r.batch_count = 1), KX_ECORRUPT, "QueryRequest.body.queries[0].k");
	REFUSES(&sample_batch, r.batch_count = 0, KX_ECORRUPT, "QueryRequest.body.queries: absent");
	REFUSES(&sample_videos, r.video_id_count = 0, KX_ECORRUPT, "QueryRequest.body.video_ids: absent");
	REFUSES(&sample_videos, (r.video_ids = &empty_id, r.video_id_count = 1), KX_ECORRUPT, "body.video_ids: absent");
	free(text);
}

static void lists_of_queries_have_a_maximum(void **state)
{
	char **ids = calloc(KX_QUERY_NOT_IDS_MAX + 1, sizeof(*ids));
	struct kx_similar_query *many = calloc(KX_QUERY_BATCH_MAX + 1, sizeof(*many));

	(void)state;
	assert_non_null(ids);
	assert_non_null(many);
	for (size_t i = 0; i <= KX_QUERY_NOT_IDS_MAX; i++)
		ids[i] = "id";
	for (size_t i = 0; i <= KX_QUERY_BATCH_MAX; i++)
		many[i] = (struct kx_similar_query){.video_id = "a", .k = 1, .weight_visual = 1.0};
	REFUSES(&sample_similar, (r.similar.not_ids = ids, r.similar.not_id_count = KX_QUERY_NOT_IDS_MAX + 1), KX_ETOOBIG,
		"QueryRequest.body.not_ids: 10001 elements, at most 10000");
	REFUSES(&sample_videos, (r.video_ids = ids, r.video_id_count = KX_QUERY_VIDEOS_MAX + 1), KX_ETOOBIG,
		"QueryRequest.body.video_ids: 1001 elements, at most 1000");
	REFUSES(&sample_batch, (r.batch = many, r.batch_count = KX_QUERY_BATCH_MAX + 1), KX_ETOOBIG,
		"QueryRequest.body.queries: 1001 elements, at most 1000");
	free(ids);
	free(many);
}

static void replies_out_of_range(void **state)
{
	struct kx_similar_hit hit = sample_reply.similar.hits[0];
	struct kx_similar_answer answer = sample_reply.answers[0];
	struct kx_attribute_info attribute = sample_reply.attributes[0];
	struct kx_found_video nameless = {.video_id = ""};

	(void)state;
	hit.moment_end_us = hit.moment_start_us;
	REFUSES(&sample_reply, (r.similar.hits = &hit, r.similar.hit_count = 1), KX_ECORRUPT,
		"QueryReply.hits[0].moment.end_us");
	answer.status = 1;
	REFUSES(&sample_reply, (r.answers = &answer, r.answer_count = 1), KX_ECORRUPT, "QueryReply.answers[0].status");
	answer.status = KX_OK;
	answer.hits = &hit;
	answer.hit_count = 1;
	REFUSES(&sample_reply, (r.answers = &answer, r.answer_count = 1), KX_ECORRUPT,
		"QueryReply.answers[0].hits[0].moment.end_us");
	attribute.type = KX_ATTRIBUTE_CLASS + 1;
	REFUSES(&sample_reply, r.attributes = &attribute, KX_ECORRUPT, "QueryReply.attributes[0].type");
	REFUSES(&sample_reply, r.similar.recall = 1.5, KX_ECORRUPT, "QueryReply.recall");
	REFUSES(&sample_reply, (r.found = &nameless, r.found_count = 1), KX_ECORRUPT, "QueryReply.videos[0].video_id");
}

static void media_out_of_range(void **state)
{
	(void)state;
	REFUSES(&sample_decode_request, r.purpose = 0, KX_ECORRUPT, "DecodeRequest.purpose");
	REFUSES(&sample_decode_request, r.purpose = KX_DECODE_INSPECT + 1, KX_ECORRUPT, "DecodeRequest.purpose");
	REFUSES(&sample_decode_request, r.tracks = 0, KX_ECORRUPT, "DecodeRequest.tracks");
	REFUSES(&sample_decode_request, r.fps = 1000.0, KX_ECORRUPT, "DecodeRequest.fps");
	REFUSES(&sample_decode_request, r.end_us = 1, KX_ECORRUPT, "DecodeRequest.end_us");
	REFUSES(&sample_decode_request, r.width = KX_FRAME_SIDE_MAX + 1, KX_ECORRUPT, "DecodeRequest.width");
	REFUSES(&sample_decode_request, r.ring_slots = 0, KX_ECORRUPT, "DecodeRequest.ring_slots");
	REFUSES(&sample_decode_request, r.slot_bytes = UINT32_MAX, KX_ECORRUPT, "DecodeRequest.slot_bytes");
	REFUSES(&sample_decode_request, r.endpoint = NULL, KX_ECORRUPT, "DecodeRequest.endpoint: absent");
	REFUSES(&sample_opened, r.opened.frame_rate = -1.0, KX_ECORRUPT, "DecodeEvent.body.frame_rate");
	REFUSES(&sample_opened, r.opened.duration_us = UINT64_MAX, KX_ECORRUPT, "DecodeEvent.body.duration_us");
	REFUSES(&sample_frame, r.sample.pts_us = UINT64_MAX, KX_ECORRUPT, "DecodeEvent.body.pts_us");
	REFUSES(&sample_patch, r.sample.slot = KX_DECODE_SLOTS_MAX, KX_ECORRUPT, "DecodeEvent.body.slot");
	REFUSES(&sample_end, r.end.reason = 0, KX_ECORRUPT, "DecodeEvent.body.reason");
}

static void a_kind_that_is_missing_or_unknown(void **state)
{
	static const uint8_t only_id[] = {0x08, 1, 0x12, 1, 'a'}; /* version, video_id of a Result */
	struct kx_result strange = {.video_id = "a", .kind = 0};
	struct kx_buf bytes = {.max = KX_RECORD_MAX};

	(void)state;
	sample_assert_refused(sample_case_of(&sample_plan), only_id, sizeof(only_id), KX_ECORRUPT, "Result.body: neither");
	assert_int_equal(kx_result_pack(&strange, &bytes), KX_EINVAL);
	assert_int_equal(bytes.len, 0);
}

static void paths_and_hashes_by_hand(void **state)
{
	const struct record_case *c = sample_case_of(&sample_job);
	static const uint8_t zero_in_path[] = {0x42, 3, 'a', 0, 'b'}; /* field 8, source */
	static const uint8_t short_hash[] = {0x4a, 2, 1, 2};          /* field 9, content_sha256 */
	struct kx_buf bytes = sample_pack(c, c->sample);
	size_t len = bytes.len;

	(void)state;
	assert_int_equal(kx_buf_append(&bytes, zero_in_path, sizeof(zero_in_path)), KX_OK);
	sample_assert_refused(c, bytes.data, bytes.len, KX_ECORRUPT, "Job.source: a path with a zero byte");
	bytes.len = len;
	assert_int_equal(kx_buf_append(&bytes, short_hash, sizeof(short_hash)), KX_OK);
	sample_assert_refused(c, bytes.data, bytes.len, KX_ECORRUPT, "Job.content_sha256: 2 bytes, a SHA-256 has 32");
	kx_buf_done(&bytes);
}

static void other_versions_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < record_case_count; i++) {
		const struct record_case *c = &record_cases[i];
		struct kx_buf bytes = sample_pack(c, c->sample);

		assert_int_equal(bytes.data[0], 0x08); /* field 1, a varint */
		bytes.data[1] = 2;
		sample_assert_refused(c, bytes.data, bytes.len, KX_EVERSION, ".version: 2, this program reads 1");
		sample_assert_refused(c, NULL, 0, KX_EVERSION, ".version: 0");
		kx_buf_done(&bytes);
	}
}

static void noise_and_giants_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < record_case_count; i++) {
		const struct record_case *c = &record_cases[i];

		sample_assert_refused(c, "\xff\xff\xff\xff\xff", 5, KX_ECORRUPT, "5 bytes that are no message");
		/* Refused by its length alone: nothing behind the first byte is there to be read. */
		sample_assert_refused(c, "", (size_t)KX_RECORD_MAX + 1, KX_ETOOBIG, "at most");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jobs_out_of_range),
		cmocka_unit_test(moments_out_of_range),
		cmocka_unit_test(moments_with_counts_that_disagree),
		cmocka_unit_test(class_lists_have_a_maximum),
		cmocka_unit_test(results_out_of_range),
		cmocka_unit_test(events_out_of_range),
		cmocka_unit_test(videos_out_of_range),
		cmocka_unit_test(extras_out_of_range),
		cmocka_unit_test(queries_out_of_range),
		cmocka_unit_test(query_options_out_of_range),
		cmocka_unit_test(lists_of_queries_have_a_maximum),
		cmocka_unit_test(replies_out_of_range),
		cmocka_unit_test(media_out_of_range),
		cmocka_unit_test(a_kind_that_is_missing_or_unknown),
		cmocka_unit_test(paths_and_hashes_by_hand),
		cmocka_unit_test(other_versions_are_refused),
		cmocka_unit_test(noise_and_giants_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
