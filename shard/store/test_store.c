#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/testkit.h"
#include "shard/store/testkit.h"

static const struct kx_kit_video clip = {
	.id = "clip", .generation = 3, .parts = 3, .visual_moments = 7, .audio_moments = 4, .content = 11};

struct fixture {
	char *folder;
	struct kx_store *store;
	struct kx_kit_stream stream;
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	fixture->folder = kx_kit_folder();
	fixture->store = kx_kit_open(fixture->folder);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	kx_fault_clear();
	kx_store_close(fixture->store);
	kx_kit_folder_done(fixture->folder);
	kx_kit_stream_done(&fixture->stream);
	free(fixture);
	return 0;
}

static void reopen(struct fixture *fixture)
{
	kx_store_close(fixture->store);
	fixture->store = kx_kit_open(fixture->folder);
}

static void apply(struct fixture *fixture)
{
	struct kx_error error = {0};

	if (kx_kit_apply(fixture->store, &fixture->stream, &error))
		fail_msg("%s", error.message);
	kx_kit_stream_done(&fixture->stream);
}

static void apply_video(struct fixture *fixture, const struct kx_kit_video *video)
{
	kx_kit_stream_add(&fixture->stream, video);
	apply(fixture);
}

static uint64_t generation_of(struct fixture *fixture, const char *id)
{
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	kx_status status = kx_store_video(fixture->store, id, &record, NULL);

	assert_true(status == KX_OK || status == KX_ENOTFOUND);
	return record ? record->generation : 0;
}

static void audit_is_good(struct kx_store *store, struct kx_store_audit *ret)
{
	struct kx_error error = {0};

	if (kx_store_audit(store, ret, &error))
		fail_msg("audit: %s", error.message);
}

static void test_a_video_completes(void **state)
{
	struct fixture *fixture = *state;
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	struct kx_store_audit audit;

	apply_video(fixture, &clip);
	assert_int_equal(kx_store_video(fixture->store, "clip", &record, NULL), KX_OK);
	assert_int_equal(record->generation, 3);
	assert_string_equal(record->info.title, "a title");
	assert_int_equal(record->result.modality_count, 2);
	assert_int_equal(record->result.modalities[0].moments, 7);
	assert_int_equal(record->result.modalities[1].rows, 4 * KX_KIT_ROWS);
	assert_int_equal(record->result.visual_us, 7 * (uint64_t)KX_KIT_MOMENT_US);
	assert_int_equal(record->result.max_time_error_us, 102);
	assert_int_equal(record->result.moment_us, KX_KIT_MOMENT_US);
	audit_is_good(fixture->store, &audit);
	assert_int_equal(audit.videos, 1);
	assert_int_equal(audit.moments, 11);
	assert_int_equal(audit.rows, 11 * KX_KIT_ROWS);
	assert_int_equal(audit.pending, 0);
	assert_int_equal(kx_kit_count(fixture->store, KX_STORE_OUTBOX), 1);
}

/* Applies the stream in batches of random lengths; now and then one is lost before its commit and comes again, and
 * now and then the store is opened anew. */
static void apply_roughly(struct fixture *fixture, uint64_t *random)
{
	size_t from = 0;

	while (from < fixture->stream.count) {
		struct kx_kit_stream part = {0};
		size_t len = 1 + kx_test_random(random) % 9;

		for (size_t i = from; i < fixture->stream.count && part.count < len; i++)
			part.messages[part.count++] = fixture->stream.messages[i];
		if (kx_test_random(random) % 4 == 0)
			kx_fault_arm("kv.write", 1 + kx_test_random(random) % 2);
		if (!kx_kit_apply(fixture->store, &part, NULL))
			from += len;
		kx_fault_clear();
		if (kx_test_random(random) % 16 == 0)
			reopen(fixture);
	}
}

static void test_any_order_and_number_gives_the_same_bytes(void **state)
{
	struct fixture *fixture = *state;
	uint64_t random = kx_test_seed();
	uint8_t want[KX_SHA_LEN], have[KX_SHA_LEN];

	apply_video(fixture, &clip);
	kx_kit_digest(fixture->store, want);
	for (int round = 0; round < 40; round++) {
		struct fixture other = {.folder = kx_kit_folder()};

		other.store = kx_kit_open(other.folder);
		kx_kit_stream_add(&other.stream, &clip);
		kx_kit_stream_repeat(&other.stream, kx_test_random(&random) % 30, &random);
		kx_kit_stream_shuffle(&other.stream, &random);
		apply_roughly(&other, &random);
		kx_kit_digest(other.store, have);
		assert_memory_equal(have, want, sizeof(want));
		kx_store_close(other.store);
		kx_kit_stream_done(&other.stream);
		kx_kit_folder_done(other.folder);
	}
}

static void test_the_newest_generation_wins_in_any_order(void **state)
{
	struct fixture *fixture = *state;
	struct kx_kit_video newer = clip;
	uint64_t random = kx_test_seed();
	uint8_t want[KX_SHA_LEN], have[KX_SHA_LEN];

	newer.generation = 4;
	newer.parts = 1;
	newer.visual_moments = 2;
	apply_video(fixture, &newer);
	kx_kit_digest(fixture->store, want);
	for (int round = 0; round < 20; round++) {
		struct fixture other = {.folder = kx_kit_folder()};

		other.store = kx_kit_open(other.folder);
		kx_kit_stream_add(&other.stream, &clip);
		kx_kit_stream_add(&other.stream, &newer);
		kx_kit_stream_shuffle(&other.stream, &random);
		apply_roughly(&other, &random);
		kx_kit_digest(other.store, have);
		assert_memory_equal(have, want, sizeof(want));
		kx_store_close(other.store);
		kx_kit_stream_done(&other.stream);
		kx_kit_folder_done(other.folder);
	}
}

static void test_the_old_one_stays_until_the_new_one_is_whole(void **state)
{
	struct fixture *fixture = *state;
	struct kx_kit_video newer = clip;
	struct kx_store_audit audit;

	newer.generation = 4;
	apply_video(fixture, &clip);
	kx_kit_stream_add(&fixture->stream, &newer);
	kx_buf_done(&fixture->stream.messages[--fixture->stream.count]); /* the last part end */
	apply(fixture);
	assert_int_equal(generation_of(fixture, "clip"), 3);
	audit_is_good(fixture->store, &audit);
	assert_int_equal(audit.pending, 1);
	apply_video(fixture, &newer);
	assert_int_equal(generation_of(fixture, "clip"), 4);
	assert_int_equal(kx_kit_count(fixture->store, KX_STORE_FEATURES), 11);
}

static void test_delete(void **state)
{
	struct fixture *fixture = *state;
	struct kx_kit_video newer = clip;

	apply_video(fixture, &clip);
	kx_kit_stream_delete(&fixture->stream, "clip", 2);
	apply(fixture);
	assert_int_equal(generation_of(fixture, "clip"), 3);
	kx_kit_stream_delete(&fixture->stream, "clip", 3);
	kx_kit_stream_delete(&fixture->stream, "never seen", 9);
	apply(fixture);
	assert_int_equal(generation_of(fixture, "clip"), 0);
	assert_int_equal(kx_kit_count(fixture->store, KX_STORE_MOMENTS), 0);
	assert_int_equal(kx_kit_count(fixture->store, KX_STORE_FEATURES), 0);
	/* What comes late must not bring it back. */
	apply_video(fixture, &clip);
	assert_int_equal(generation_of(fixture, "clip"), 0);
	assert_int_equal(kx_kit_count(fixture->store, KX_STORE_FEATURES), 0);
	assert_int_equal(kx_kit_count(fixture->store, KX_STORE_PENDING), 0);
	newer.generation = 4;
	apply_video(fixture, &newer);
	assert_int_equal(generation_of(fixture, "clip"), 4);
}

/* Applies the stream in one batch, commits it and leaves it open. */
static struct kx_store_batch *apply_and_look(struct fixture *fixture)
{
	struct kx_store_batch *batch = NULL;

	assert_int_equal(kx_store_batch_new(fixture->store, 1, &batch, NULL), KX_OK);
	for (size_t i = 0; i < fixture->stream.count; i++) {
		KX_CLEANUP(kx_result_cleanup) struct kx_result *result = NULL;
		const struct kx_buf *message = &fixture->stream.messages[i];

		assert_int_equal(kx_result_unpack(message->data, message->len, &result, NULL), KX_OK);
		assert_int_equal(kx_store_apply(batch, result, NULL), KX_OK);
	}
	kx_kit_stream_done(&fixture->stream);
	assert_int_equal(kx_store_commit(batch, NULL), KX_OK);
	return batch;
}

/* Deletes; there is one change, and its event says so. */
static void delete_is_confirmed(struct fixture *fixture, const char *id, uint64_t generation,
				enum kx_store_change_kind kind)
{
	KX_CLEANUP(kx_store_batch_cleanup) struct kx_store_batch *batch = NULL;
	KX_CLEANUP(kx_event_cleanup) struct kx_event *event = NULL;
	const struct kx_store_change *changes;
	size_t count;

	kx_kit_stream_delete(&fixture->stream, id, generation);
	batch = apply_and_look(fixture);
	changes = kx_store_changes(batch, &count);
	assert_int_equal(count, 1);
	assert_int_equal(changes[0].kind, kind);
	assert_int_equal(kx_event_unpack(changes[0].event.data, changes[0].event.len, &event, NULL), KX_OK);
	assert_int_equal(event->kind, KX_EVENT_DELETED);
	assert_string_equal(event->video_id, id);
	assert_string_equal(event->run_id, "");
	assert_int_equal(event->generation, generation);
}

static void test_deletions_are_confirmed(void **state)
{
	struct fixture *fixture = *state;
	struct kx_kit_video newer = clip;

	apply_video(fixture, &clip);
	delete_is_confirmed(fixture, "clip", 3, KX_STORE_REMOVED);
	assert_int_equal(kx_kit_count(fixture->store, KX_STORE_OUTBOX), 2);
	delete_is_confirmed(fixture, "clip", 3, KX_STORE_ABSENT);
	delete_is_confirmed(fixture, "never seen", 9, KX_STORE_ABSENT);
	newer.generation = 5;
	kx_kit_stream_add(&fixture->stream, &newer);
	kx_buf_done(&fixture->stream.messages[--fixture->stream.count]);
	apply(fixture);
	delete_is_confirmed(fixture, "clip", 5, KX_STORE_ABSENT); /* it had only begun to arrive */
	assert_int_equal(kx_kit_count(fixture->store, KX_STORE_PENDING), 0);
	newer.generation = 6;
	apply_video(fixture, &newer);
	delete_is_confirmed(fixture, "clip", 3, KX_STORE_ABSENT); /* of an old one */
	assert_int_equal(generation_of(fixture, "clip"), 6);
}

static kx_status remember_kind(void *ctx, const struct kx_store_event *told, struct kx_error *error)
{
	enum kx_store_change_kind *kind = ctx;

	(void)error;
	*kind = told->kind;
	return KX_OK;
}

/* The events of one generation leave the outbox each by its own confirmation. */
static void test_confirmations_are_of_one_event(void **state)
{
	struct fixture *fixture = *state;
	KX_CLEANUP(kx_store_batch_cleanup) struct kx_store_batch *batch = NULL;
	enum kx_store_change_kind left = 0;

	apply_video(fixture, &clip);
	kx_kit_stream_delete(&fixture->stream, "clip", 3);
	batch = apply_and_look(fixture);
	kx_store_batch_delivered(batch, "clip", 3, KX_STORE_STORED);
	assert_int_equal(kx_store_commit(batch, NULL), KX_OK);
	assert_int_equal(kx_kit_count(fixture->store, KX_STORE_OUTBOX), 1);
	assert_int_equal(kx_store_each_outbox(fixture->store, remember_kind, &left, NULL), KX_OK);
	assert_int_equal(left, KX_STORE_REMOVED);
	kx_store_batch_delivered(batch, "clip", 3, KX_STORE_REMOVED);
	assert_int_equal(kx_store_commit(batch, NULL), KX_OK);
	assert_int_equal(kx_kit_count(fixture->store, KX_STORE_OUTBOX), 0);
}

static void test_copy(void **state)
{
	struct fixture *fixture = *state;
	struct kx_kit_video copy = clip, other = clip;
	struct kx_store_audit audit;
	uint8_t have[KX_SHA_LEN], want[KX_SHA_LEN];

	copy.id = "copy";
	copy.generation = 8;
	apply_video(fixture, &clip);
	kx_kit_stream_copy(&fixture->stream, &copy, "clip");
	apply(fixture);
	assert_int_equal(generation_of(fixture, "copy"), 8);
	audit_is_good(fixture->store, &audit);
	assert_int_equal(audit.videos, 2);
	assert_int_equal(audit.moments, 22);
	/* The same bytes as if it had been indexed. */
	kx_kit_digest(fixture->store, have);
	kx_kit_stream_delete(&fixture->stream, "copy", 8);
	copy.generation = 9;
	kx_kit_stream_add(&fixture->stream, &copy);
	apply(fixture);
	audit_is_good(fixture->store, &audit);
	memcpy(want, audit.digest, sizeof(want));
	kx_kit_stream_delete(&fixture->stream, "copy", 9);
	copy.generation = 10;
	kx_kit_stream_copy(&fixture->stream, &copy, "clip");
	apply(fixture);
	audit_is_good(fixture->store, &audit);
	assert_memory_equal(audit.digest, want, sizeof(want));
	/* Of what has other content by now, or is not there: said, not done. */
	other.id = "other";
	other.content = 12;
	kx_kit_stream_copy(&fixture->stream, &other, "clip");
	kx_kit_stream_copy(&fixture->stream, &(struct kx_kit_video){.id = "third", .generation = 1}, "nobody");
	apply(fixture);
	assert_int_equal(generation_of(fixture, "other"), 0);
	assert_int_equal(generation_of(fixture, "third"), 0);
}

static kx_status apply_one(struct fixture *fixture, struct kx_error *error)
{
	kx_status status = kx_kit_apply(fixture->store, &fixture->stream, error);

	kx_kit_stream_done(&fixture->stream);
	return status;
}

static void test_parts_that_disagree_are_refused(void **state)
{
	struct fixture *fixture = *state;
	struct kx_kit_video other = clip;
	struct kx_kit_stream wrong = {0};
	struct kx_error error = {0};

	kx_kit_stream_add(&fixture->stream, &clip);
	kx_buf_done(&fixture->stream.messages[--fixture->stream.count]);
	apply(fixture);
	other.recipe = 2;
	kx_kit_stream_add(&wrong, &other);
	/* Only its last part end. */
	fixture->stream.messages[fixture->stream.count++] = wrong.messages[--wrong.count];
	assert_int_equal(apply_one(fixture, &error), KX_ECORRUPT);
	assert_int_equal(error.class, KX_ERROR_POISON);
	assert_non_null(strstr(error.message, "recipe"));
	kx_kit_stream_done(&wrong);
	other = clip;
	other.moment_us = KX_KIT_MOMENT_US / 2;
	kx_kit_stream_add(&wrong, &other);
	fixture->stream.messages[fixture->stream.count++] = wrong.messages[--wrong.count];
	assert_int_equal(apply_one(fixture, &error), KX_ECORRUPT);
	assert_int_equal(error.class, KX_ERROR_POISON);
	assert_non_null(strstr(error.message, "moments of different lengths"));
	kx_kit_stream_done(&wrong);
	apply_video(fixture, &clip);
	assert_int_equal(generation_of(fixture, "clip"), 3);
}

static void test_each_video_has_its_own_grid(void **state)
{
	struct fixture *fixture = *state;
	struct kx_kit_video fine = clip;
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	struct kx_store_audit audit;

	fine.id = "fine";
	fine.moment_us = 2000000;
	apply_video(fixture, &clip);
	apply_video(fixture, &fine);
	assert_int_equal(kx_store_video(fixture->store, "fine", &record, NULL), KX_OK);
	assert_int_equal(record->result.moment_us, 2000000);
	audit_is_good(fixture->store, &audit);
}

static void test_missing_moments_keep_it_pending(void **state)
{
	struct fixture *fixture = *state;
	struct kx_buf lost;

	kx_log_set_level(KX_LOG_ERROR);
	kx_kit_stream_add(&fixture->stream, &clip);
	lost = fixture->stream.messages[2];
	memmove(&fixture->stream.messages[2], &fixture->stream.messages[3],
		(--fixture->stream.count - 2) * sizeof(fixture->stream.messages[0]));
	apply(fixture);
	assert_int_equal(generation_of(fixture, "clip"), 0);
	assert_int_equal(kx_kit_count(fixture->store, KX_STORE_PENDING), 1);
	fixture->stream.messages[fixture->stream.count++] = lost;
	apply(fixture);
	assert_int_equal(generation_of(fixture, "clip"), 3);
}

static void test_told_again_when_asked_again(void **state)
{
	struct fixture *fixture = *state;
	KX_CLEANUP(kx_store_batch_cleanup) struct kx_store_batch *batch = NULL;
	KX_CLEANUP(kx_event_cleanup) struct kx_event *event = NULL;
	const struct kx_store_change *changes;
	size_t count;

	apply_video(fixture, &clip);
	kx_kit_stream_add(&fixture->stream, &clip);
	batch = apply_and_look(fixture);
	changes = kx_store_changes(batch, &count);
	assert_int_equal(count, 1); /* once a batch is enough */
	assert_int_equal(changes[0].kind, KX_STORE_STORED);
	assert_int_equal(kx_event_unpack(changes[0].event.data, changes[0].event.len, &event, NULL), KX_OK);
	assert_int_equal(event->kind, KX_EVENT_STORED);
	assert_string_equal(event->video_id, "clip");
	assert_string_equal(event->run_id, "run-1");
	assert_int_equal(event->generation, 3);
	assert_int_equal(event->audio_us, 4 * (uint64_t)KX_KIT_MOMENT_US);
	assert_true(event->stored_bytes > 11 * KX_KIT_ROWS * KX_KIT_AUDIO_DIM);
}

static void test_offsets_belong_to_their_bus(void **state)
{
	struct fixture *fixture = *state;
	int64_t next = 0;

	apply_video(fixture, &clip);
	reopen(fixture);
	assert_int_equal(kx_store_offset(fixture->store, "bus", "results", 0, &next, NULL), KX_OK);
	assert_int_equal(next, 15);
	assert_int_equal(kx_store_offset(fixture->store, "bus", "results", 1, &next, NULL), KX_OK);
	assert_int_equal(next, -1);
	assert_int_equal(kx_store_offset(fixture->store, "other", "results", 0, &next, NULL), KX_OK);
	assert_int_equal(next, -1);
}

static int64_t offset_of(struct fixture *fixture, const char *bus)
{
	int64_t next = 0;

	assert_int_equal(kx_store_offset(fixture->store, bus, "results", 0, &next, NULL), KX_OK);
	return next;
}

static void test_offsets_of_local_buses_that_are_gone(void **state)
{
	static const char *const kept[] = {"local-00112233445566778899aabbccddeeff", "MkU3OEVBNTcwNTJENDM2Qg",
					   "local-is how somebody calls a cluster", "local-00112233445566778899aabbccddee"};
	static const char gone[] = "local-ff112233445566778899aabbccddeeff";
	struct fixture *fixture = *state;
	KX_CLEANUP(kx_store_batch_cleanup) struct kx_store_batch *batch = NULL;
	uint64_t before = kx_kit_count(fixture->store, KX_STORE_META);

	assert_int_equal(kx_store_batch_new(fixture->store, 1, &batch, NULL), KX_OK);
	for (size_t i = 0; i < KX_ARRAY_LEN(kept); i++)
		kx_store_batch_offset(batch, kept[i], "results", 0, (int64_t)i + 1);
	for (int i = 0; i < 3; i++)
		kx_store_batch_offset(batch, gone, "results", i, 9);
	assert_int_equal(kx_store_commit(batch, NULL), KX_OK);
	assert_int_equal(kx_store_drop_offsets(fixture->store, kept[0], NULL), KX_OK);
	assert_int_equal(kx_kit_count(fixture->store, KX_STORE_META), before + KX_ARRAY_LEN(kept));
	assert_int_equal(offset_of(fixture, gone), -1);
	for (size_t i = 0; i < KX_ARRAY_LEN(kept); i++)
		assert_int_equal(offset_of(fixture, kept[i]), (int64_t)i + 1);
}

static void test_failed_writes_change_nothing_for_good(void **state)
{
	struct fixture *fixture = *state;
	struct kx_store_audit audit;

	for (uint64_t nth = 1;; nth++) {
		struct kx_error error = {0};
		kx_status status;

		kx_kit_stream_add(&fixture->stream, &clip);
		kx_kit_stream_copy(&fixture->stream, &(struct kx_kit_video){.id = "copy", .generation = 1, .content = 11},
				   "clip");
		kx_fault_arm("kv.write", nth);
		status = kx_kit_apply(fixture->store, &fixture->stream, &error);
		kx_fault_clear();
		kx_kit_stream_done(&fixture->stream);
		reopen(fixture);
		audit_is_good(fixture->store, &audit);
		if (!status) {
			assert_true(nth > 2);
			break;
		}
		assert_int_equal(status, KX_EFULL);
		assert_int_equal(error.class, KX_ERROR_FATAL);
	}
	assert_int_equal(audit.videos, 2);
	assert_int_equal(audit.pending, 0);
}

static bool has_totals(struct fixture *fixture, const char *text)
{
	struct kx_buf totals = {.max = 64};
	kx_status status = kx_store_totals(fixture->store, &totals, NULL);
	bool has = text ? !status && totals.len == strlen(text) && memcmp(totals.data, text, totals.len) == 0
			: status == KX_ENOTFOUND;

	kx_buf_done(&totals);
	return has;
}

/* Totals are those of the records that are there, or none are. */
static void test_totals_go_with_what_they_count(void **state)
{
	struct fixture *fixture = *state;
	struct kx_store_batch *batch = NULL;

	assert_true(has_totals(fixture, NULL));
	assert_int_equal(kx_store_set_totals(fixture->store, "none", 4, NULL), KX_OK);
	assert_int_equal(kx_store_batch_new(fixture->store, 1, &batch, NULL), KX_OK);
	kx_store_batch_offset(batch, "bus", "topic", 0, 1); /* changes no record */
	kx_store_batch_totals(batch, "other", 5);
	assert_int_equal(kx_store_commit(batch, NULL), KX_OK);
	kx_store_batch_cleanup(&batch);
	assert_true(has_totals(fixture, "none"));

	kx_kit_stream_add(&fixture->stream, &clip);
	apply(fixture); /* says nothing of totals */
	assert_true(has_totals(fixture, NULL));
	kx_kit_stream_delete(&fixture->stream, clip.id, clip.generation);
	assert_int_equal(kx_store_set_totals(fixture->store, "one", 3, NULL), KX_OK);
	apply(fixture);
	assert_true(has_totals(fixture, NULL));
}

/* Part of a batch is on disk before its commit, which may never come. */
static void test_totals_of_half_a_batch(void **state)
{
	struct fixture *fixture = *state;
	struct kx_store_batch *batch = NULL;
	struct kx_result *result = NULL;

	assert_int_equal(kx_store_set_totals(fixture->store, "none", 4, NULL), KX_OK);
	assert_int_equal(kx_store_batch_new(fixture->store, 1, &batch, NULL), KX_OK);
	kx_kit_stream_add(&fixture->stream, &clip);
	for (size_t i = 0; i < fixture->stream.count; i++) {
		const struct kx_buf *message = &fixture->stream.messages[i];

		assert_int_equal(kx_result_unpack(message->data, message->len, &result, NULL), KX_OK);
		assert_int_equal(kx_store_apply(batch, result, NULL), KX_OK);
		kx_result_free(result);
	}
	assert_true(has_totals(fixture, NULL));
	kx_store_batch_totals(batch, "one", 3);
	assert_int_equal(kx_store_commit(batch, NULL), KX_OK);
	kx_store_batch_cleanup(&batch);
	assert_true(has_totals(fixture, "one"));
	reopen(fixture);
	assert_true(has_totals(fixture, "one"));
}

static uint64_t format_of(struct fixture *fixture)
{
	struct kx_buf value = {.max = 8};
	uint64_t format;

	assert_int_equal(kx_kv_get(kx_store_kv(fixture->store), KX_STORE_META, "format", 6, &value, NULL), KX_OK);
	format = kx_be64_get(value.data);
	kx_buf_done(&value);
	return format;
}

/* Of before there were totals, or snapshots. */
static void test_the_formats_before_open(void **state)
{
	struct fixture *fixture = *state;
	struct kx_store_options reading = {.data_dir = fixture->folder, .read_only = true};
	struct kx_error error = {0};
	uint8_t format[8];

	for (uint64_t before = 1; before < KX_STORE_FORMAT; before++) {
		kx_be64_put(format, before);
		kx_kit_put(fixture->store, KX_STORE_META, "format", 6, format, sizeof(format));
		kx_store_cleanup(&fixture->store);
		assert_int_equal(kx_store_open(&reading, &fixture->store, &error), KX_OK);
		assert_int_equal(format_of(fixture), before);
		reopen(fixture);
		assert_int_equal(format_of(fixture), KX_STORE_FORMAT);
	}
}

/* Ids of what changed, one after another. */
static kx_status list_changed(void *ctx, const char *id, struct kx_error *error)
{
	char *list = ctx;

	(void)error;
	strcat(strcat(list, id), " ");
	return KX_OK;
}

static void changed_are(struct fixture *fixture, const char *should)
{
	char list[256] = "";

	assert_int_equal(kx_store_each_changed(fixture->store, list_changed, list, NULL), KX_OK);
	assert_string_equal(list, should);
}

/* What changes after a snapshot is noted in the write that changes it; what a newer snapshot has is not. */
static void test_changes_since_a_snapshot(void **state)
{
	static const char *const ids[] = {"b", "a/1", "c"};
	struct fixture *fixture = *state;
	struct kx_buf snapshot = {.max = 64};

	for (uint64_t round = 0; round < 3; round++) {
		struct kx_kit_stream *stream = calloc(1, sizeof(*stream));

		assert_non_null(stream);
		for (size_t i = 0; i < 3; i++)
			if (i != 1 || round < 2)
				kx_kit_stream_add(stream, &(struct kx_kit_video){.id = ids[i], .generation = round + 1, .parts = 1,
										.visual_moments = 2, .content = round});
			else
				kx_kit_stream_delete(stream, ids[i], 2);
		assert_int_equal(kx_kit_apply(fixture->store, stream, NULL), KX_OK);
		assert_int_equal(kx_kit_apply(fixture->store, stream, NULL), KX_OK); /* said again */
		kx_kit_stream_done(stream);
		free(stream);
		changed_are(fixture, round ? "a/1 b c " : "");
		reopen(fixture);
		changed_are(fixture, round ? "a/1 b c " : "");
		assert_int_equal(kx_store_has_snapshot(fixture->store), round > 0);
		assert_int_equal(kx_store_changed(fixture->store), round ? 3 : 0);
		assert_int_equal(kx_store_set_snapshot(fixture->store, ids[round], strlen(ids[round]), NULL), KX_OK);
		changed_are(fixture, "");
		kx_buf_clear(&snapshot);
		assert_int_equal(kx_store_snapshot(fixture->store, &snapshot, NULL), KX_OK);
		assert_string_equal((const char *)snapshot.data, ids[round]);
	}
	/* Totals that are taken away take it along: store and index do not agree. */
	assert_int_equal(kx_store_set_totals(fixture->store, NULL, 0, NULL), KX_OK);
	assert_false(kx_store_has_snapshot(fixture->store));
	assert_int_equal(kx_store_snapshot(fixture->store, &snapshot, NULL), KX_ENOTFOUND);
	kx_buf_done(&snapshot);
}

static void test_another_format_is_refused(void **state)
{
	struct fixture *fixture = *state;
	struct kx_store_options options = {.data_dir = fixture->folder};
	struct kx_error error = {0};
	uint8_t format[8];
	struct kx_store *store = NULL;

	kx_be64_put(format, KX_STORE_FORMAT + 1);
	kx_kit_put(fixture->store, KX_STORE_META, "format", 6, format, sizeof(format));
	kx_store_close(fixture->store);
	fixture->store = NULL;
	assert_int_equal(kx_store_open(&options, &store, &error), KX_EVERSION);
	assert_non_null(strstr(error.message, fixture->folder));
	assert_null(strchr(error.message, '\n'));
}

static void test_a_store_that_is_not_there(void **state)
{
	struct kx_store_options options = {.data_dir = "/nonexistent/kinodex", .read_only = true};
	struct kx_store *store = NULL;

	(void)state;
	assert_int_equal(kx_store_open(&options, &store, NULL), KX_ENOTFOUND);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_video_completes),
		TEST(test_any_order_and_number_gives_the_same_bytes),
		TEST(test_the_newest_generation_wins_in_any_order),
		TEST(test_the_old_one_stays_until_the_new_one_is_whole),
		TEST(test_delete),
		TEST(test_deletions_are_confirmed),
		TEST(test_confirmations_are_of_one_event),
		TEST(test_copy),
		TEST(test_parts_that_disagree_are_refused),
		TEST(test_each_video_has_its_own_grid),
		TEST(test_missing_moments_keep_it_pending),
		TEST(test_told_again_when_asked_again),
		TEST(test_offsets_belong_to_their_bus),
		TEST(test_offsets_of_local_buses_that_are_gone),
		TEST(test_failed_writes_change_nothing_for_good),
		TEST(test_totals_go_with_what_they_count),
		TEST(test_totals_of_half_a_batch),
		TEST(test_the_formats_before_open),
		TEST(test_another_format_is_refused),
		TEST(test_changes_since_a_snapshot),
		TEST(test_a_store_that_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
