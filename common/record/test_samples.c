#include "common/record/test_samples.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "proto/event.pb-c.h"
#include "proto/job.pb-c.h"
#include "proto/media.pb-c.h"
#include "proto/query.pb-c.h"
#include "proto/record.pb-c.h"
#include "proto/result.pb-c.h"

#define CONTENT_SHA {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, [31] = 32}
#define RECIPE_SHA {0xff, 0xfe, [31] = 1}

static char *labels[] = {"cat", "gr\xc3\xbc\xc3\x9f", "a longer label, with a comma"};
static uint64_t pts_us[] = {15000000, 16000123, 17000000};
static uint64_t time_error_us[] = {0, 123, 20000};
static uint8_t features[] = {0, 255, 3, 4, 128, 6, 7, 8, 9, 10, 11, 12};
static float lo[] = {-1.5f, 0.25f, -3e-5f};
static float step[] = {0.01f, 0.002f, 1.0f};
static uint32_t class_ids[] = {281, 9, 999};
static float class_scores[] = {0.75f, 0.2f, 1e-4f};
static int8_t codes[] = {127, -127, 1, -1};
static float unit[] = {0.5f, -0.5f, 0.5f, -0.5f};

static struct kx_attribute user_attributes[] = {
	{.name = "Season", .type = KX_ATTRIBUTE_NUMBER, .number = 3.5, .text = ""},
	{.name = "league", .type = KX_ATTRIBUTE_TEXT, .text = "premier"},
	{.name = "live", .type = KX_ATTRIBUTE_BOOL, .flag = true, .text = ""}};

#define EXTRAS                                                                                          \
	{.language = "en", .visibility = "public", .attribute_count = 3, .attributes = user_attributes}

#define INFO                                                                                            \
	{.title = "A title", .label_count = 3, .labels = labels, .source = "/videos/\xe4 bytes.mp4",    \
	 .content_sha256 = CONTENT_SHA, .content_bytes = 123456789, .duration_us = 61000000, .width = 1920, \
	 .height = 1080, .container = "mov,mp4", .video_codec = "h264", .audio_codec = "aac", .run_id = "run-1", \
	 .planned_at_ms = 1700000000000, .recipe_sha256 = RECIPE_SHA, .extras = EXTRAS}

#define MOMENT                                                                                          \
	{.modality = KX_AUDIO, .index = 3, .space = "lite0/1234/5678/mean", .count = 3, .dim = 4,       \
	 .pts_us = pts_us, .features = features, .lo = lo, .step = step, .class_count = 3, .class_ids = class_ids, \
	 .class_scores = class_scores, .embedding = codes, .embedding_scale = 0.0039f, .max_time_error_us = 20000, \
	 .time_error_us = time_error_us}

#define PART_END(number)                                                                                \
	{.part = (number), .parts = 4, .tracks = KX_TRACK_VISUAL | KX_TRACK_AUDIO, .frames = 300, .patches = 625, \
	 .visual_us = 300000000, .audio_us = 299000000, .has_visual = true, .has_audio = true, .truncated = true, \
	 .decode_mode = KX_DECODE_TOLERANT, .decode_tolerance_us = 500000, .max_time_error_us = 33366, \
	 .recipe_sha256 = RECIPE_SHA, \
	 .moment_us = 5000000}

#define MODALITY(which)                                                                                 \
	{.modality = (which), .space = "lite0/1234/5678/mean", .moments = 13, .rows = 61, .dim = 4,     \
	 .embedding = unit, .class_count = 3, .class_ids = class_ids, .class_scores = class_scores}

#define VIDEO_RESULT                                                                                    \
	{.video_id = "folder/clip.mp4", .modality_count = 2, .modalities = {MODALITY(KX_VISUAL), MODALITY(KX_AUDIO)}, \
	 .visual_us = 61000000, .audio_us = 60900000, .duration_us = 61000001, .truncated = true,       \
	 .decode_mode = KX_DECODE_TOLERANT, .decode_tolerance_us = 700, .max_time_error_us = 33366, \
	 .moment_us = 5000000,                                                                           \
	 .recipe_sha256 = RECIPE_SHA}

#define VIDEO_RECORD                                                                                    \
	{.generation = 7, .stored_at_ms = 1700000001000, .info = INFO, .result = VIDEO_RESULT}

#define SAMPLE {.index = 12, .pts_us = 12000123, .error_us = 123, .slot = 5}

struct kx_job sample_job = {
	.run_id = "run-1",
	.video_id = "folder/clip.mp4",
	.generation = 7,
	.part = 1,
	.parts = 3,
	.tracks = KX_TRACK_VISUAL,
	.source = "/videos/\xe4 bytes.mp4",
	.content_sha256 = CONTENT_SHA,
	.content_bytes = 123456789,
	.start_us = 300000000,
	.end_us = 600000000,
	.fps = 1.0,
	.decode_mode = KX_DECODE_TOLERANT,
	.decode_tolerance_us = 250000,
	.moment_us = 5000000,
	.recipe_sha256 = RECIPE_SHA,
	.attempt = 2,
	.wall_limit_ms = 600000,
	.cpu_limit_ms = 300000,
	.memory_limit_bytes = 1 << 30,
};

struct kx_moment sample_moment = MOMENT;

struct kx_result sample_plan = {
	.video_id = "folder/clip.mp4", .generation = 7, .kind = KX_RESULT_PLAN, .parts = 4, .info = INFO};
struct kx_result sample_result_moment = {
	.video_id = "folder/clip.mp4", .generation = 7, .kind = KX_RESULT_MOMENT, .moment = MOMENT};
struct kx_result sample_part_end = {
	.video_id = "folder/clip.mp4", .generation = 7, .kind = KX_RESULT_PART_END, .part_end = PART_END(2)};
struct kx_result sample_delete = {
	.video_id = "folder/clip.mp4", .generation = 7, .kind = KX_RESULT_DELETE};
struct kx_result sample_copy = {
	.video_id = "copy.mp4", .generation = 8, .kind = KX_RESULT_COPY, .copy_from = "folder/clip.mp4", .info = INFO};

struct kx_event sample_finished = {
	.run_id = "run-1", .video_id = "folder/clip.mp4", .generation = 7, .kind = KX_EVENT_FINISHED, .part = 2,
	.attempt = 1, .decode_cpu_us = 1234567, .media_us = 300000000, .wall_us = 2345678};
struct kx_event sample_failed = {
	.run_id = "run-1", .video_id = "folder/clip.mp4", .generation = 7, .kind = KX_EVENT_FAILED, .part = 2,
	.attempt = 3, .decode_cpu_us = 1234567, .reason = KX_REASON_CRASHED, .retriable = true,
	.message = "the decoder died of signal 11"};
struct kx_event sample_stored = {
	.run_id = "run-1", .video_id = "folder/clip.mp4", .generation = 7, .kind = KX_EVENT_STORED,
	.visual_us = 61000000, .audio_us = 60900000, .duration_us = 61000001, .truncated = true,
	.stored_bytes = 98765, .missing_source = true};

struct kx_event sample_deleted = {
	.run_id = "run-1", .video_id = "folder/clip.mp4", .generation = 7, .kind = KX_EVENT_DELETED};

struct kx_dead_letter sample_dead_letter = {
	.video_id = "noise.mp4", .source = "/videos/noise.mp4", .reason = KX_REASON_NOT_MEDIA,
	.message = "no demuxer knows it", .attempts = 1, .generation = 7, .at_ms = 1700000000000, .run_id = "run-1",
	.software = "kinodex 0.1.0"};

struct kx_video_result sample_video_result = VIDEO_RESULT;
struct kx_video_record sample_video_record = VIDEO_RECORD;

static struct kx_part_end part_ends[] = {PART_END(3), PART_END(1)};

struct kx_pending_video sample_pending = {
	.generation = 7, .parts = 4, .info = INFO, .part_end_count = 2, .part_ends = part_ends};

struct kx_input sample_input = {
	.video_id = "folder/clip.mp4", .root = "/videos", .source = "/videos/folder/clip.mp4",
	.content_bytes = 123456789, .modified_ns = 1700000000123456789, .content_sha256 = CONTENT_SHA,
	.state = KX_INPUT_PARTIAL, .reason = KX_REASON_TRUNCATED, .message = "cut after 20 s", .generation = 7,
	.duration_us = 61000000, .covered_us = 20000000, .updated_at_ms = 1700000001000,
	.recipe_sha256 = RECIPE_SHA, .copy_of = "other.mp4", .title = "A title", .label_count = 3, .labels = labels,
	.attempts = 2, .extras = EXTRAS};

static struct kx_query_vector vectors[] = {
	{.modality = KX_VISUAL, .space = "v", .moment = 1, .dim = 4, .values = unit},
	{.modality = KX_AUDIO, .space = "a", .moment = 1, .dim = 3, .values = unit},
};
static struct kx_query_vector moments[] = {
	{.modality = KX_VISUAL, .space = "v", .moment = 1, .dim = 4, .values = unit},
	{.modality = KX_VISUAL, .space = "v", .moment = 2, .dim = 4, .values = unit},
	{.modality = KX_AUDIO, .space = "a", .moment = 2, .dim = 3, .values = unit},
};

static char *not_ids[] = {"not/this.mp4", "nor/this.mp4"};

#define SIMILAR                                                                                         \
	{.video_id = "folder/clip.mp4", .vector_count = 2, .vectors = vectors, .moment_count = 3, .moments = moments, \
	 .moment_us = 5000000, .k = 10, .weight_visual = 0.6, .weight_audio = 0.4, .with_moments = true, \
	 .filter = "label:cat and duration < 600", .has_min_score = true, .min_score = -0.5, .cursor = "0a1b2c", \
	 .group = KX_GROUP_DUPLICATES, .diversity = 0.25, .not_id_count = 2, .not_ids = not_ids,        \
	 .level = KX_LEVEL_MOMENTS, .recall = 0.97, .explain = true}

static struct kx_similar_query batch[] = {SIMILAR, SIMILAR};

struct kx_query_request sample_similar = {.request_id = 42, .kind = KX_QUERY_SIMILAR, .similar = SIMILAR};
struct kx_query_request sample_batch = {
	.request_id = 45, .kind = KX_QUERY_SIMILAR_BATCH, .batch_count = 2, .batch = batch};
struct kx_query_request sample_videos = {
	.request_id = 46, .kind = KX_QUERY_VIDEOS, .video_id_count = 2, .video_ids = not_ids, .with_moments = true};
struct kx_query_request sample_care = {
	.request_id = 48, .kind = KX_QUERY_CARE, .care = {.work = KX_CARE_CHECKPOINT, .path = "/copies/of/today"}};
struct kx_query_request sample_schema = {.request_id = 47, .kind = KX_QUERY_SCHEMA};
struct kx_query_request sample_video_query = {
	.request_id = 43, .kind = KX_QUERY_VIDEO, .video_id = "folder/clip.mp4", .with_moments = true};
struct kx_query_request sample_stats_query = {.request_id = 44, .kind = KX_QUERY_STATS};

static struct kx_moment_match matches[] = {
	{.ours_us = 5000000, .theirs_us = 10000000, .score = 0.875, .visual = 0.5, .audio = 0.375},
	{.ours_us = 10000000, .theirs_us = 15000000, .score = -0.25, .visual = -0.5, .audio = 0.25},
};
static struct kx_filter_clause clauses[] = {
	{.clause = "label:cat", .passed = true, .value = "cat, gr\xc3\xbc\xc3\x9f"},
	{.clause = "duration < 600", .passed = true, .value = "61"},
};
static struct kx_similar_hit hits[] = {
	{.video_id = "other.mp4", .title = "Other", .score = 0.9, .visual = 0.5, .audio = 0.4, .has_visual = true,
	 .has_audio = true, .duration_us = 1000000, .match_count = 2, .matches = matches, .source = "/videos/\xe4.mp4",
	 .label_count = 3, .labels = labels, .group_key = "first.mp4", .clause_count = 2, .clauses = clauses,
	 .has_moment = true, .moment_start_us = 5000000, .moment_end_us = 10000000},
	{.video_id = "third.mp4", .title = "Third", .score = 0.1, .visual = 0.2, .audio = -0.1, .has_visual = true,
	 .has_audio = true, .duration_us = 2000000, .match_count = 1, .matches = matches, .source = "/videos/third.mp4",
	 .label_count = 1, .labels = labels, .group_key = "third.mp4", .clause_count = 1, .clauses = clauses,
	 .has_moment = true, .moment_start_us = 1, .moment_end_us = 2},
};
static struct kx_moment_classes classes[] = {
	{.modality = KX_VISUAL, .index = 1, .class_count = 3, .class_ids = class_ids, .class_scores = class_scores},
	{.modality = KX_AUDIO, .index = 2, .class_count = 2, .class_ids = class_ids, .class_scores = class_scores},
};
static struct kx_video_record video = VIDEO_RECORD;

#define WORK {.rows = 1000000, .matching = 5000, .cells = 12, .codes = 4000, .refined = 60, .took_us = 123}
#define ANSWER                                                                                          \
	{.status = KX_EBUSY, .message = "a message", .hit_count = 2, .hits = hits, .next = "0a1b2c", .exact = true, \
	 .recall = 0.95, .work = WORK, .partial = true, .shards_asked = 4, .shards_answered = 3, .changed = true}

static struct kx_similar_answer answers[] = {ANSWER, ANSWER};
#define FOUND {.video_id = "folder/clip.mp4", .video = &video, .moment_count = 3, .moments = moments}
static struct kx_found_video found[] = {FOUND, FOUND};
static struct kx_attribute_value attribute_values[] = {{.value = "en", .videos = 12}, {.value = "de", .videos = 3}};
static struct kx_attribute_info attributes[] = {
	{.name = "language", .type = KX_ATTRIBUTE_TEXT, .user = true, .videos = 15, .distinct = 2, .has_range = true,
	 .min = 1.0, .max = 2.0, .value_count = 2, .values = attribute_values}};

struct kx_query_reply sample_reply = {
	.request_id = 42, .status = KX_EBUSY, .message = "a message",
	.similar = {.hit_count = 2, .hits = hits, .next = "0a1b2c", .exact = true, .recall = 0.95, .work = WORK,
		    .partial = true, .shards_asked = 4, .shards_answered = 3, .changed = true},
	.video = &video, .moment_count = 2, .moments = classes,
	.stats = {.videos = 10, .pending = 1, .moments = 1000, .media_us = 36000000000, .disk_bytes = 12345678,
		  .index_vectors = 19, .index_cells = 2, .index_recall = 0.97, .index_recall_wanted = 0.95,
		  .index_recall_samples = 7, .part = 1, .parts = 3},
	.answer_count = 2, .answers = answers, .found_count = 2, .found = found, .attribute_count = 1,
	.attributes = attributes, .care = {.bytes_before = 1000, .bytes_after = 999}};

struct kx_decode_request sample_decode_request = {
	.ticket = 99, .purpose = KX_DECODE_SAMPLE, .tracks = KX_TRACK_AUDIO, .fps = 23.976,
	.decode_mode = KX_DECODE_TOLERANT, .decode_tolerance_us = 1, .start_us = 5000000, .end_us = 10000000, .width = 224, .height = 224,
	.ring_slots = 32, .slot_bytes = 150528, .wall_limit_ms = 1000, .cpu_limit_ms = 900,
	.memory_limit_bytes = 1 << 29, .endpoint = "ipc:///tmp/x", .name = "clip.mp4"};

struct kx_decode_event sample_opened = {
	.ticket = 99, .kind = KX_DECODE_OPENED,
	.opened = {.container = "mov,mp4", .duration_us = 61000000, .video_codec = "h264", .width = 1920,
		   .height = 1080, .frame_rate = 29.97, .audio_codec = "aac", .sample_rate = 48000, .channels = 2,
		   .splittable = true, .has_visual = true, .has_audio = true}};
static struct kx_probe_stream streams[] = {
	{.index = 7, .kind = "kind", .codec = "codec", .profile = "profile", .chosen = true, .note = "note",
	 .duration_us = 5000000, .start_us = -40000, .bit_rate = 1000, .packets = 1000, .key_packets = 1000, .width =
	 7, .height = 7, .aspect_num = 7, .aspect_den = 7, .rotation = 7, .mirrored = true, .frame_rate = 29.97,
	 .pixel_format = "pixel_format", .range = "range", .matrix = "matrix", .primaries = "primaries", .transfer =
	 "transfer", .field_order = "field_order", .sample_rate = 7, .channels = 7, .layout = "layout",
	 .sample_format = "sample_format"},
	{.index = 7, .kind = "kind", .codec = "codec", .profile = "profile", .chosen = true, .note = "note",
	 .duration_us = 5000000, .start_us = -40000, .bit_rate = 1000, .packets = 1000, .key_packets = 1000, .width =
	 7, .height = 7, .aspect_num = 7, .aspect_den = 7, .rotation = 7, .mirrored = true, .frame_rate = 29.97,
	 .pixel_format = "pixel_format", .range = "range", .matrix = "matrix", .primaries = "primaries", .transfer =
	 "transfer", .field_order = "field_order", .sample_rate = 7, .channels = 7, .layout = "layout",
	 .sample_format = "sample_format"},
};
struct kx_decode_event sample_detail = {
	.ticket = 99, .kind = KX_DECODE_DETAIL,
	.detail = {.stream_count = 2, .streams = streams, .packets_us = 61000000, .plan = "a plan"}};
struct kx_decode_event sample_frame = {.ticket = 99, .kind = KX_DECODE_FRAME, .sample = SAMPLE};
struct kx_decode_event sample_patch = {.ticket = 99, .kind = KX_DECODE_PATCH, .sample = SAMPLE};
struct kx_decode_event sample_end = {
	.ticket = 99, .kind = KX_DECODE_END,
	.end = {.reason = KX_REASON_TRUNCATED, .retriable = true, .message = "moov atom not found",
		.visual_us = 61000000, .audio_us = 60900000, .truncated = true, .frames_decoded = 1830,
		.frames_sampled = 61, .patches = 127}};

#define THUNKS(type)                                                                                    \
	static kx_status type##_pack_any(const void *record, struct kx_buf *out)                        \
	{                                                                                               \
		return type##_pack(record, out);                                                        \
	}                                                                                               \
	static kx_status type##_unpack_any(const void *bytes, size_t len, void **ret, struct kx_error *error) \
	{                                                                                               \
		struct type *record = NULL;                                                             \
		kx_status status = type##_unpack(bytes, len, &record, error);                           \
                                                                                                        \
		*ret = record;                                                                          \
		return status;                                                                          \
	}                                                                                               \
	static void type##_free_any(void *record)                                                       \
	{                                                                                               \
		type##_free(record);                                                                    \
	}                                                                                               \
	_Static_assert(1, "takes the semicolon")

THUNKS(kx_job);
THUNKS(kx_moment);
THUNKS(kx_result);
THUNKS(kx_event);
THUNKS(kx_dead_letter);
THUNKS(kx_video_result);
THUNKS(kx_video_record);
THUNKS(kx_pending_video);
THUNKS(kx_input);
THUNKS(kx_query_request);
THUNKS(kx_query_reply);
THUNKS(kx_decode_request);
THUNKS(kx_decode_event);

#define CASE(type, record, message)                                                                     \
	{#record, &(record), &kinodex__v1__##message##__descriptor, type##_pack_any, type##_unpack_any, type##_free_any}

const struct record_case record_cases[] = {
	CASE(kx_job, sample_job, job),
	CASE(kx_moment, sample_moment, moment),
	CASE(kx_result, sample_plan, result),
	CASE(kx_result, sample_result_moment, result),
	CASE(kx_result, sample_part_end, result),
	CASE(kx_result, sample_delete, result),
	CASE(kx_result, sample_copy, result),
	CASE(kx_event, sample_finished, event),
	CASE(kx_event, sample_failed, event),
	CASE(kx_event, sample_stored, event),
	CASE(kx_event, sample_deleted, event),
	CASE(kx_dead_letter, sample_dead_letter, dead_letter),
	CASE(kx_video_result, sample_video_result, video_result),
	CASE(kx_video_record, sample_video_record, video_record),
	CASE(kx_pending_video, sample_pending, pending_video),
	CASE(kx_input, sample_input, input),
	CASE(kx_query_request, sample_similar, query_request),
	CASE(kx_query_request, sample_batch, query_request),
	CASE(kx_query_request, sample_videos, query_request),
	CASE(kx_query_request, sample_schema, query_request),
	CASE(kx_query_request, sample_video_query, query_request),
	CASE(kx_query_request, sample_stats_query, query_request),
	CASE(kx_query_reply, sample_reply, query_reply),
	CASE(kx_decode_request, sample_decode_request, decode_request),
	CASE(kx_decode_event, sample_opened, decode_event),
	CASE(kx_decode_event, sample_frame, decode_event),
	CASE(kx_decode_event, sample_detail, decode_event),
	CASE(kx_decode_event, sample_patch, decode_event),
	CASE(kx_decode_event, sample_end, decode_event),
	CASE(kx_query_request, sample_care, query_request), /* last: corpora name the others by their place */
};

const size_t record_case_count = KX_ARRAY_LEN(record_cases);

struct kx_buf sample_pack(const struct record_case *c, const void *record)
{
	struct kx_buf out = {.max = KX_RECORD_MAX};

	assert_int_equal(c->pack(record, &out), KX_OK);
	return out;
}

const struct record_case *sample_case_of(const void *sample)
{
	for (size_t i = 0; i < record_case_count; i++) {
		if (record_cases[i].sample == sample)
			return &record_cases[i];
	}
	fail_msg("no such sample");
	return NULL;
}

void sample_assert_refused(const struct record_case *c, const void *bytes, size_t len, kx_status want,
			   const char *said)
{
	struct kx_error error = {0};
	void *record = NULL;
	kx_status status = c->unpack(bytes, len, &record, &error);

	if (status != want || error.status != want || strstr(error.message, said) == NULL)
		fail_msg("%s: got %d \"%s\", expected %d \"%s\"", c->name, status, error.message, want, said);
	assert_int_equal(error.class, KX_ERROR_POISON);
	assert_null(record);
	/* The error object is optional. */
	assert_int_equal(c->unpack(bytes, len, &record, NULL), want);
}
