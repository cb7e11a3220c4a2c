/* Round trips of every record, packing, memory. What unpack refuses is in test_refused.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/macros.h"
#include "common/record/test_samples.h"

/* Whether a field of a message has a value other than its default, found by protobuf-c's description of it. */
static bool field_is_set(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	const uint8_t *at = (const uint8_t *)message + field->offset;
	const uint8_t *quantifier = (const uint8_t *)message + field->quantifier_offset;

	if (field->label == PROTOBUF_C_LABEL_REPEATED)
		return *(const size_t *)(const void *)quantifier > 0;
	if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0)
		return *(const uint32_t *)(const void *)quantifier == field->id;
	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		return (*(char *const *)(const void *)at)[0] != '\0';
	case PROTOBUF_C_TYPE_BYTES:
		return ((const ProtobufCBinaryData *)(const void *)at)->len > 0;
	case PROTOBUF_C_TYPE_MESSAGE:
		return *(void *const *)(const void *)at != NULL;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return *(const uint64_t *)(const void *)at != 0;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_BOOL:
		return *(const uint32_t *)(const void *)at != 0;
	default:
		fail_msg("field %s has a type that this test does not know", field->name);
		return false;
	}
}

static void assert_all_set(const ProtobufCMessage *message);

static void assert_children_set(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	const uint8_t *at = (const uint8_t *)message + field->offset;
	const uint8_t *quantifier = (const uint8_t *)message + field->quantifier_offset;
	bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
	size_t count = repeated ? *(const size_t *)(const void *)quantifier : 1;
	ProtobufCMessage *const *list = repeated ? *(ProtobufCMessage ***)(uintptr_t)at
						 : (ProtobufCMessage *const *)(const void *)at;

	for (size_t i = 0; i < count; i++)
		assert_all_set(list[i]);
}

/* Every field, also of the messages inside; of a oneof, the one that was chosen. */
static void assert_all_set(const ProtobufCMessage *message)
{
	const ProtobufCMessageDescriptor *descriptor = message->descriptor;

	for (unsigned i = 0; i < descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
		bool is_set = field_is_set(message, field);

		if (!is_set && (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0)
			fail_msg("%s.%s is not converted, or the sample lacks it", descriptor->short_name, field->name);
		if (is_set && field->type == PROTOBUF_C_TYPE_MESSAGE)
			assert_children_set(message, field);
	}
}

static void every_field_is_written(void **state)
{
	(void)state;
	for (size_t i = 0; i < record_case_count; i++) {
		const struct record_case *c = &record_cases[i];
		struct kx_buf bytes = sample_pack(c, c->sample);
		ProtobufCMessage *message = protobuf_c_message_unpack(c->descriptor, NULL, bytes.len, bytes.data);

		assert_non_null(message);
		assert_all_set(message);
		protobuf_c_message_free_unpacked(message, NULL);
		kx_buf_done(&bytes);
	}
}

/* With every_field_is_written: what was unpacked packs to the same bytes, so nothing was lost on the way. */
static void every_field_is_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < record_case_count; i++) {
		const struct record_case *c = &record_cases[i];
		struct kx_buf first = sample_pack(c, c->sample);
		struct kx_error error = {0};
		void *record = NULL;

		if (c->unpack(first.data, first.len, &record, &error) != KX_OK)
			fail_msg("%s: %s", c->name, error.message);
		struct kx_buf second = sample_pack(c, record);
		assert_int_equal(first.len, second.len);
		assert_memory_equal(first.data, second.data, first.len);
		c->release(record);
		kx_buf_done(&first);
		kx_buf_done(&second);
	}
}

static void values_stand_where_they_should(void **state)
{
	struct kx_buf bytes = {.max = KX_RECORD_MAX};
	KX_CLEANUP(kx_result_cleanup) struct kx_result *result = NULL;
	const struct kx_moment *want = &sample_moment;

	(void)state;
	assert_int_equal(kx_result_pack(&sample_result_moment, &bytes), KX_OK);
	assert_int_equal(kx_result_unpack(bytes.data, bytes.len, &result, NULL), KX_OK);
	assert_int_equal(result->kind, KX_RESULT_MOMENT);
	assert_int_equal(result->generation, 7);
	assert_null(result->info.title); /* of another kind */
	assert_int_equal(result->moment.modality, KX_AUDIO);
	assert_int_equal(result->moment.index, 3);
	assert_string_equal(result->moment.space, want->space);
	assert_memory_equal(result->moment.pts_us, want->pts_us, 3 * sizeof(uint64_t));
	assert_memory_equal(result->moment.time_error_us, want->time_error_us, 3 * sizeof(uint64_t));
	assert_memory_equal(result->moment.features, want->features, 12);
	assert_memory_equal(result->moment.lo, want->lo, 3 * sizeof(float));
	assert_memory_equal(result->moment.step, want->step, 3 * sizeof(float));
	assert_memory_equal(result->moment.class_ids, want->class_ids, 3 * sizeof(uint32_t));
	assert_memory_equal(result->moment.embedding, want->embedding, 4);
	kx_buf_done(&bytes);
}

static void absent_strings_are_empty_and_absent_hashes_zero(void **state)
{
	static const uint8_t zero[KX_SHA_LEN];
	struct kx_input input = {.video_id = "a", .source = "/a", .state = KX_INPUT_PLANNED, .reason = KX_REASON_NONE};
	struct kx_buf bytes = {.max = KX_RECORD_MAX};
	KX_CLEANUP(kx_input_cleanup) struct kx_input *got = NULL;

	(void)state;
	assert_int_equal(kx_input_pack(&input, &bytes), KX_OK);
	assert_int_equal(kx_input_unpack(bytes.data, bytes.len, &got, NULL), KX_OK);
	assert_string_equal(got->root, "");
	assert_string_equal(got->message, "");
	assert_string_equal(got->copy_of, "");
	assert_int_equal(got->label_count, 0);
	assert_null(got->labels);
	assert_memory_equal(got->content_sha256, zero, KX_SHA_LEN);
	kx_buf_done(&bytes);
}

static void packing_is_deterministic_and_appends(void **state)
{
	(void)state;
	for (size_t i = 0; i < record_case_count; i++) {
		const struct record_case *c = &record_cases[i];
		struct kx_buf once = sample_pack(c, c->sample);
		struct kx_buf again = {.max = KX_RECORD_MAX};

		assert_int_equal(kx_buf_append(&again, "before", 6), KX_OK);
		assert_int_equal(c->pack(c->sample, &again), KX_OK);
		assert_int_equal(again.len, once.len + 6);
		assert_memory_equal(again.data, "before", 6);
		assert_memory_equal(again.data + 6, once.data, once.len);
		kx_buf_done(&once);
		kx_buf_done(&again);
	}
}

static void a_full_buffer_is_left_as_it_was(void **state)
{
	(void)state;
	for (size_t i = 0; i < record_case_count; i++) {
		const struct record_case *c = &record_cases[i];
		struct kx_buf bytes = sample_pack(c, c->sample);
		struct kx_buf small = {.max = bytes.len + 2};

		assert_int_equal(kx_buf_append(&small, "123", 3), KX_OK);
		assert_int_equal(c->pack(c->sample, &small), KX_ETOOBIG);
		assert_int_equal(small.len, 3);
		assert_memory_equal(small.data, "123", 3);
		kx_buf_done(&bytes);
		kx_buf_done(&small);
	}
}

static void unknown_fields_are_passed_over(void **state)
{
	static const uint8_t unknown[] = {0x80, 0x7d, 0x05}; /* field 2000, varint 5 */

	(void)state;
	for (size_t i = 0; i < record_case_count; i++) {
		const struct record_case *c = &record_cases[i];
		struct kx_buf bytes = sample_pack(c, c->sample);
		void *record = NULL;

		assert_int_equal(kx_buf_append(&bytes, unknown, sizeof(unknown)), KX_OK);
		assert_int_equal(c->unpack(bytes.data, bytes.len, &record, NULL), KX_OK);
		c->release(record);
		kx_buf_done(&bytes);
	}
}

static void a_probe_needs_nothing_to_sample(void **state)
{
	struct kx_decode_request probe = {.ticket = 5, .purpose = KX_DECODE_PROBE, .endpoint = "ipc:///tmp/x"};
	struct kx_buf bytes = {.max = KX_RECORD_MAX};
	KX_CLEANUP(kx_decode_request_cleanup) struct kx_decode_request *got = NULL;

	(void)state;
	assert_int_equal(kx_decode_request_pack(&probe, &bytes), KX_OK);
	assert_int_equal(kx_decode_request_unpack(bytes.data, bytes.len, &got, NULL), KX_OK);
	assert_int_equal(got->purpose, KX_DECODE_PROBE);
	assert_string_equal(got->name, "");
	kx_buf_done(&bytes);
}

/* A list of a million empty messages: two bytes each on the wire, more than a hundred in memory. */
static void memory_is_bounded_by_the_message(void **state)
{
	enum { ITEMS = 1000000 };
	struct kx_buf bytes = {.max = KX_RECORD_MAX};

	(void)state;
	assert_int_equal(kx_buf_append(&bytes, "\x08\x01", 2), KX_OK);
	for (size_t i = 0; i < ITEMS; i++)
		assert_int_equal(kx_buf_append(&bytes, "\x2a\x00", 2), KX_OK); /* field 5, hits */
	sample_assert_refused(sample_case_of(&sample_reply), bytes.data, bytes.len, KX_ETOOBIG, "unpack to more than 16 times");
	kx_buf_done(&bytes);
}

/* The smallest useful items, as many as are allowed, must still pass under that bound. */
static void long_lists_of_small_items_pass(void **state)
{
	enum { COUNT = 65536 };
	struct kx_part_end *ends = calloc(COUNT, sizeof(*ends));
	struct kx_moment_classes *small = calloc(COUNT, sizeof(*small));
	struct kx_pending_video pending = {.generation = 1, .part_end_count = COUNT, .part_ends = ends};
	struct kx_query_reply reply = {.request_id = 1, .moment_count = COUNT, .moments = small};
	KX_CLEANUP(kx_pending_video_cleanup) struct kx_pending_video *got_pending = NULL;
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *got_reply = NULL;
	struct kx_buf bytes = {.max = KX_RECORD_MAX};
	float one_score = 1.0f;
	uint32_t one_id = 1;

	(void)state;
	assert_non_null(ends);
	assert_non_null(small);
	for (uint32_t i = 0; i < COUNT; i++) {
		ends[i] = (struct kx_part_end){.part = i, .parts = COUNT, .tracks = KX_TRACK_VISUAL,
					       .decode_mode = KX_DECODE_EXACT, .moment_us = 1, .recipe_sha256 = {1}};
		small[i] = (struct kx_moment_classes){.modality = KX_VISUAL, .index = i, .class_count = 1,
						      .class_ids = &one_id, .class_scores = &one_score};
	}
	assert_int_equal(kx_pending_video_pack(&pending, &bytes), KX_OK);
	assert_int_equal(kx_pending_video_unpack(bytes.data, bytes.len, &got_pending, NULL), KX_OK);
	assert_int_equal(got_pending->part_end_count, COUNT);
	assert_int_equal(got_pending->parts, 0);
	kx_buf_clear(&bytes);
	assert_int_equal(kx_query_reply_pack(&reply, &bytes), KX_OK);
	assert_int_equal(kx_query_reply_unpack(bytes.data, bytes.len, &got_reply, NULL), KX_OK);
	assert_int_equal(got_reply->moments[COUNT - 1].index, COUNT - 1);
	kx_buf_done(&bytes);
	free(ends);
	free(small);
}

static void a_record_over_the_maximum_is_not_packed(void **state)
{
	enum { COUNT = 3000 }; /* of 16 KiB: 47 MiB */
	static float wide[KX_DIM_MAX];
	struct kx_query_vector *vectors = calloc(COUNT, sizeof(*vectors));
	struct kx_query_request request = {.kind = KX_QUERY_SIMILAR,
					   .similar = {.moment_count = COUNT, .moments = vectors}};
	struct kx_buf bytes = {.max = SIZE_MAX / 2};

	(void)state;
	assert_non_null(vectors);
	for (size_t i = 0; i < COUNT; i++)
		vectors[i] = (struct kx_query_vector){.modality = KX_VISUAL, .dim = KX_DIM_MAX, .values = wide};
	assert_int_equal(kx_query_request_pack(&request, &bytes), KX_ETOOBIG);
	assert_int_equal(bytes.len, 0);
	kx_buf_done(&bytes);
	free(vectors);
}

/* As a client made it before there were filters: none of the newer fields is on the wire. */
static void queries_of_older_clients_are_read(void **state)
{
	static const uint8_t old[] = {0x08, 1, 0x10, 7, 0x1a, 14, 0x0a, 1, 'a', 0x20, 5, 0x29, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f};
	KX_CLEANUP(kx_query_request_cleanup) struct kx_query_request *got = NULL;
	struct kx_error error = {0};

	(void)state;
	if (kx_query_request_unpack(old, sizeof(old), &got, &error) != KX_OK)
		fail_msg("%s", error.message);
	assert_int_equal(got->kind, KX_QUERY_SIMILAR);
	assert_string_equal(got->similar.video_id, "a");
	assert_int_equal(got->similar.k, 5);
	assert_string_equal(got->similar.filter, "");
	assert_string_equal(got->similar.cursor, "");
	assert_false(got->similar.has_min_score);
	assert_int_equal(got->similar.group, KX_GROUP_NONE);
	assert_int_equal(got->similar.level, KX_LEVEL_VIDEOS);
	assert_true(got->similar.recall == 0.0 && got->similar.diversity == 0.0);
	assert_false(got->similar.explain);
}

static void long_lists_of_small_queries_pass(void **state)
{
	struct kx_similar_query *many = calloc(KX_QUERY_BATCH_MAX, sizeof(*many));
	char **ids = calloc(KX_QUERY_NOT_IDS_MAX, sizeof(*ids));
	struct kx_query_request request = {
		.kind = KX_QUERY_SIMILAR_BATCH, .batch_count = KX_QUERY_BATCH_MAX, .batch = many};
	KX_CLEANUP(kx_query_request_cleanup) struct kx_query_request *got = NULL;
	struct kx_buf bytes = {.max = KX_RECORD_MAX};

	(void)state;
	assert_non_null(many);
	assert_non_null(ids);
	for (size_t i = 0; i < KX_QUERY_BATCH_MAX; i++)
		many[i] = (struct kx_similar_query){.video_id = "a", .k = 1, .weight_visual = 1.0};
	for (size_t i = 0; i < KX_QUERY_NOT_IDS_MAX; i++)
		ids[i] = "id";
	many[0].not_ids = ids;
	many[0].not_id_count = KX_QUERY_NOT_IDS_MAX;
	assert_int_equal(kx_query_request_pack(&request, &bytes), KX_OK);
	assert_int_equal(kx_query_request_unpack(bytes.data, bytes.len, &got, NULL), KX_OK);
	assert_int_equal(got->batch_count, KX_QUERY_BATCH_MAX);
	assert_string_equal(got->batch[KX_QUERY_BATCH_MAX - 1].video_id, "a");
	assert_int_equal(got->batch[0].not_id_count, KX_QUERY_NOT_IDS_MAX);
	kx_buf_done(&bytes);
	free(many);
	free(ids);
}

/* Fails each allocation in turn: nothing leaks (AddressSanitizer sees to it) and the answer is KX_ENOMEM. */
static void every_allocation_may_fail(void **state)
{
	(void)state;
	for (size_t i = 0; i < record_case_count; i++) {
		const struct record_case *c = &record_cases[i];
		struct kx_buf bytes = sample_pack(c, c->sample);
		kx_status status = KX_ENOMEM;

		for (uint64_t nth = 1; status != KX_OK; nth++) {
			struct kx_error error = {0};
			void *record = NULL;

			kx_fault_arm("record.alloc", nth);
			status = c->unpack(bytes.data, bytes.len, &record, &error);
			c->release(record);
			assert_true(status == KX_OK || status == KX_ENOMEM);
			assert_int_equal(error.status, status);
			assert_true(nth < 1000);
		}
		kx_fault_arm("record.alloc", 1);
		bytes.len = 0;
		assert_int_equal(c->pack(c->sample, &bytes), KX_ENOMEM);
		assert_int_equal(bytes.len, 0);
		kx_fault_clear();
		kx_buf_done(&bytes);
	}
}

static void probe_info_can_be_copied(void **state)
{
	struct kx_probe_info empty = {.width = 3};
	struct kx_probe_info copy = {0};

	(void)state;
	assert_int_equal(kx_probe_info_copy(&sample_opened.opened, &copy), KX_OK);
	assert_string_equal(copy.video_codec, "h264");
	assert_ptr_not_equal(copy.video_codec, sample_opened.opened.video_codec);
	assert_int_equal(copy.channels, 2);
	kx_probe_info_done(&copy);
	assert_null(copy.container);
	assert_int_equal(kx_probe_info_copy(&empty, &copy), KX_OK);
	assert_string_equal(copy.container, "");
	assert_int_equal(copy.width, 3);
	kx_probe_info_done(&copy);
}

static void names_and_help_are_there_for_all(void **state)
{
	(void)state;
	for (int reason = KX_REASON_NONE; reason < KX_REASON_COUNT; reason++) {
		const char *name = kx_reason_name((enum kx_reason)reason);
		const char *help = kx_reason_help((enum kx_reason)reason);

		assert_non_null(name);
		assert_string_not_equal(name, "unknown");
		assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz-"), strlen(name));
		assert_non_null(help);
		assert_int_equal(help[strlen(help) - 1], '.');
		for (int other = KX_REASON_NONE; other < reason; other++)
			assert_string_not_equal(name, kx_reason_name((enum kx_reason)other));
	}
	assert_string_equal(kx_reason_name(0), "unknown");
	assert_string_equal(kx_reason_name(KX_REASON_COUNT), "unknown");
	assert_non_null(kx_reason_help(KX_REASON_COUNT));
	assert_string_equal(kx_reason_name(KX_REASON_NOT_MEDIA), "not-media");
	assert_string_equal(kx_input_state_name(KX_INPUT_QUARANTINED), "quarantined");
	assert_string_equal(kx_input_state_name(0), "unknown");
	assert_string_equal(kx_modality_name(KX_AUDIO), "audio");
	assert_string_equal(kx_modality_name(3), "unknown");
	assert_string_equal(kx_decode_mode_name(KX_DECODE_EXACT), "exact");
	assert_string_equal(kx_decode_mode_name(KX_DECODE_TOLERANT), "tol");
	assert_string_equal(kx_decode_mode_name(KX_DECODE_KEYFRAME), "keyframe");
	assert_string_equal(kx_decode_mode_name(0), "unknown");
}

static void extras_can_be_copied(void **state)
{
	const struct kx_extras *from = &sample_input.extras;
	struct kx_extras nothing = {0}, empty = {0}, copy = {0};

	(void)state;
	assert_int_equal(kx_extras_copy(from, &copy), KX_OK);
	assert_true(kx_extras_equal(from, &copy));
	copy.attributes[0].number += 1.0;
	assert_false(kx_extras_equal(from, &copy));
	kx_extras_done(&copy);
	assert_null(copy.attributes);
	assert_int_equal(kx_extras_copy(&nothing, &empty), KX_OK);
	assert_string_equal(empty.language, "");
	assert_true(kx_extras_equal(&nothing, &empty));
	assert_false(kx_extras_equal(from, &empty));
	kx_extras_done(&empty);
	assert_true(kx_attribute_name_ok("season_2.x-y"));
	assert_false(kx_attribute_name_ok(""));
	assert_false(kx_attribute_name_ok("2x"));
	assert_false(kx_attribute_name_ok("a b"));
	assert_string_equal(kx_attribute_type_name(KX_ATTRIBUTE_CLASS), "class");
	assert_string_equal(kx_attribute_type_name(0), "unknown");
}

static void nothing_can_be_freed(void **state)
{
	(void)state;
	for (size_t i = 0; i < record_case_count; i++)
		record_cases[i].release(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_field_is_written),
		cmocka_unit_test(every_field_is_read),
		cmocka_unit_test(values_stand_where_they_should),
		cmocka_unit_test(absent_strings_are_empty_and_absent_hashes_zero),
		cmocka_unit_test(packing_is_deterministic_and_appends),
		cmocka_unit_test(a_full_buffer_is_left_as_it_was),
		cmocka_unit_test(unknown_fields_are_passed_over),
		cmocka_unit_test(a_probe_needs_nothing_to_sample),
		cmocka_unit_test(memory_is_bounded_by_the_message),
		cmocka_unit_test(long_lists_of_small_items_pass),
		cmocka_unit_test(a_record_over_the_maximum_is_not_packed),
		cmocka_unit_test(queries_of_older_clients_are_read),
		cmocka_unit_test(long_lists_of_small_queries_pass),
		cmocka_unit_test(every_allocation_may_fail),
		cmocka_unit_test(probe_info_can_be_copied),
		cmocka_unit_test(names_and_help_are_there_for_all),
		cmocka_unit_test(extras_can_be_copied),
		cmocka_unit_test(nothing_can_be_freed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
