/* What the audit finds, and what its digest stands for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shard/store/testkit.h"

static const struct kx_kit_video clip = {
	.id = "clip", .generation = 3, .parts = 3, .visual_moments = 7, .audio_moments = 4, .content = 11};

struct fixture {
	char *folder;
	struct kx_store *store;
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

	kx_store_close(fixture->store);
	kx_kit_folder_done(fixture->folder);
	free(fixture);
	return 0;
}

static void apply_video(struct fixture *fixture, const struct kx_kit_video *video)
{
	struct kx_kit_stream stream = {0};
	struct kx_error error = {0};

	kx_kit_stream_add(&stream, video);
	if (kx_kit_apply(fixture->store, &stream, &error))
		fail_msg("%s", error.message);
	kx_kit_stream_done(&stream);
}

static void audit_is_good(struct kx_store *store, struct kx_store_audit *ret)
{
	struct kx_error error = {0};

	if (kx_store_audit(store, ret, &error))
		fail_msg("audit: %s", error.message);
}

#define KEYS_MAX 32u

/* No iterator stays open while a test may fail. */
static size_t keys_of(struct kx_store *store, enum kx_store_family family, struct kx_key keys[KEYS_MAX])
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	size_t count = 0;

	assert_int_equal(kx_kv_iter_new(kx_store_kv(store), family, NULL, 0, &iter), KX_OK);
	for (; kx_kv_iter_valid(iter) && count < KEYS_MAX; kx_kv_iter_next(iter)) {
		const void *key = kx_kv_iter_key(iter, &keys[count].len);

		memcpy(keys[count].bytes, key, keys[count].len);
		count++;
	}
	return count;
}

/* Each record of each family in turn: a bit turned over in its value, or the record gone. */
static void damage_all(struct fixture *fixture, enum kx_store_family family, bool flip)
{
	struct kx_kv *kv = kx_store_kv(fixture->store);
	struct kx_key keys[KEYS_MAX];
	size_t count = keys_of(fixture->store, family, keys);

	assert_true(count > 0);
	for (size_t i = 0; i < count; i++) {
		struct kx_buf value = {.max = KX_RECORD_MAX};
		struct kx_store_audit audit;
		struct kx_error error = {0};

		assert_int_equal(kx_kv_get(kv, family, keys[i].bytes, keys[i].len, &value, NULL), KX_OK);
		if (flip) {
			value.data[value.len - 9] ^= 4;
			kx_kit_put(fixture->store, family, keys[i].bytes, keys[i].len, value.data, value.len);
			value.data[value.len - 9] ^= 4;
		} else {
			kx_kit_put(fixture->store, family, keys[i].bytes, keys[i].len, NULL, 0);
		}
		assert_int_equal(kx_store_audit(fixture->store, &audit, &error), KX_ECORRUPT);
		assert_true(strlen(error.message) > 10);
		kx_kit_put(fixture->store, family, keys[i].bytes, keys[i].len, value.data, value.len);
		kx_buf_done(&value);
	}
}

static void test_the_audit_sees_damage(void **state)
{
	struct fixture *fixture = *state;
	struct kx_store_audit before, after;

	apply_video(fixture, &clip);
	audit_is_good(fixture->store, &before);
	damage_all(fixture, KX_STORE_MOMENTS, true);
	damage_all(fixture, KX_STORE_MOMENTS, false);
	damage_all(fixture, KX_STORE_FEATURES, true);
	damage_all(fixture, KX_STORE_FEATURES, false);
	damage_all(fixture, KX_STORE_VIDEOS, false);
	audit_is_good(fixture->store, &after);
	assert_memory_equal(after.digest, before.digest, sizeof(before.digest));
}

/* Damage by one who also mends the digest that ties the summary to the whole. */
static void damage_moment(struct fixture *fixture, const struct kx_key *key, const struct kx_buf *good,
			  void (*damage)(struct kx_moment *moment), const char *says)
{
	KX_CLEANUP(kx_moment_cleanup) struct kx_moment *moment = NULL;
	struct kx_buf whole = {.max = KX_RECORD_MAX}, packed = {.max = KX_SUMMARY_MAX}, before = {.max = KX_SUMMARY_MAX};
	struct kx_kv *kv = kx_store_kv(fixture->store);
	struct kx_store_audit audit;
	struct kx_summary summary;
	struct kx_error error = {0};

	assert_int_equal(kx_moment_unpack(good->data, good->len, &moment, NULL), KX_OK);
	damage(moment);
	assert_int_equal(kx_moment_pack(moment, &whole), KX_OK);
	assert_int_equal(kx_summary_of(moment, whole.data, whole.len, &summary), KX_OK);
	assert_int_equal(kx_summary_pack(&summary, &packed), KX_OK);
	assert_int_equal(kx_kv_get(kv, KX_STORE_MOMENTS, key->bytes, key->len, &before, NULL), KX_OK);
	kx_kit_put(fixture->store, KX_STORE_FEATURES, key->bytes, key->len, whole.data, whole.len);
	kx_kit_put(fixture->store, KX_STORE_MOMENTS, key->bytes, key->len, packed.data, packed.len);
	assert_int_equal(kx_store_audit(fixture->store, &audit, &error), KX_ECORRUPT);
	if (!strstr(error.message, says))
		fail_msg("\"%s\" does not say \"%s\"", error.message, says);
	kx_kit_put(fixture->store, KX_STORE_FEATURES, key->bytes, key->len, good->data, good->len);
	kx_kit_put(fixture->store, KX_STORE_MOMENTS, key->bytes, key->len, before.data, before.len);
	kx_buf_done(&whole);
	kx_buf_done(&packed);
	kx_buf_done(&before);
}

static void flip_feature(struct kx_moment *moment)
{
	moment->features[moment->dim + 1] ^= 1;
}

static void move_row(struct kx_moment *moment)
{
	moment->pts_us[1] += KX_KIT_MOMENT_US;
}

static void hide_error(struct kx_moment *moment)
{
	moment->max_time_error_us += 1000;
}

static void test_the_audit_sees_damage_with_a_good_digest(void **state)
{
	struct fixture *fixture = *state;
	struct kx_key keys[KEYS_MAX];
	struct kx_store_audit audit;
	size_t count;

	apply_video(fixture, &clip);
	count = keys_of(fixture->store, KX_STORE_FEATURES, keys);
	assert_int_equal(count, 11);
	for (size_t i = 0; i < count; i++) {
		struct kx_buf good = {.max = KX_RECORD_MAX};

		assert_int_equal(kx_kv_get(kx_store_kv(fixture->store), KX_STORE_FEATURES, keys[i].bytes, keys[i].len, &good,
					   NULL),
				 KX_OK);
		damage_moment(fixture, &keys[i], &good, flip_feature, "embedding is not what its features say");
		damage_moment(fixture, &keys[i], &good, move_row, "outside its moment");
		damage_moment(fixture, &keys[i], &good, hide_error, "time error");
		kx_buf_done(&good);
	}
	audit_is_good(fixture->store, &audit);
}

static void test_the_audit_reads_meta_and_outbox(void **state)
{
	struct fixture *fixture = *state;
	static const uint8_t short_value[3];
	struct kx_buf event = {.max = KX_RECORD_MAX};
	struct kx_store_audit audit;
	struct kx_key key;

	apply_video(fixture, &clip);
	audit_is_good(fixture->store, &audit);
	kx_kit_put(fixture->store, KX_STORE_META, "offset/bus/results/7", 20, short_value, sizeof(short_value));
	assert_int_equal(kx_store_audit(fixture->store, &audit, NULL), KX_ECORRUPT);
	kx_kit_put(fixture->store, KX_STORE_META, "offset/bus/results/7", 20, NULL, 0);
	kx_kit_put(fixture->store, KX_STORE_META, "nothing known", 13, "\0\0\0\0\0\0\0\1", 8);
	assert_int_equal(kx_store_audit(fixture->store, &audit, NULL), KX_ECORRUPT);
	kx_kit_put(fixture->store, KX_STORE_META, "nothing known", 13, NULL, 0);
	kx_key_event(&key, "clip", 3, KX_STORE_STORED);
	assert_int_equal(kx_kv_get(kx_store_kv(fixture->store), KX_STORE_OUTBOX, key.bytes, key.len, &event, NULL), KX_OK);
	kx_key_event(&key, "clip", 4, KX_STORE_STORED);
	kx_kit_put(fixture->store, KX_STORE_OUTBOX, key.bytes, key.len, event.data, event.len);
	assert_int_equal(kx_store_audit(fixture->store, &audit, NULL), KX_ECORRUPT);
	kx_kit_put(fixture->store, KX_STORE_OUTBOX, key.bytes, key.len, NULL, 0);
	kx_buf_done(&event);
	audit_is_good(fixture->store, &audit);
}

static void test_the_digest_knows_no_generation(void **state)
{
	struct fixture *fixture = *state;
	struct kx_kit_video again = clip;
	struct kx_store_audit before, after;

	apply_video(fixture, &clip);
	audit_is_good(fixture->store, &before);
	again.generation = 77;
	apply_video(fixture, &again);
	audit_is_good(fixture->store, &after);
	assert_memory_equal(after.digest, before.digest, sizeof(before.digest));
	again.generation = 78;
	again.content = 5;
	apply_video(fixture, &again);
	audit_is_good(fixture->store, &after);
	assert_memory_not_equal(after.digest, before.digest, sizeof(before.digest));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_the_audit_sees_damage),
		TEST(test_the_audit_sees_damage_with_a_good_digest),
		TEST(test_the_audit_reads_meta_and_outbox),
		TEST(test_the_digest_knows_no_generation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
