#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/testkit.h"
#include "shard/store/keys.h"
#include "shard/store/testkit.h"

static void make(struct kx_summary *summary, struct kx_buf *packed)
{
	memset(summary, 0, sizeof(*summary));
	summary->modality = KX_AUDIO;
	summary->index = 0x01020304;
	summary->count = 20;
	summary->dim = 100;
	summary->moment_bytes = 4711;
	strcpy(summary->space, "audio/yamnet");
	summary->scale = 0.0078125f;
	summary->class_count = 2;
	summary->class_ids[0] = 500;
	summary->class_scores[0] = 0.5f;
	summary->class_scores[1] = 0.25f;
	for (int i = 0; i < 100; i++)
		summary->embedding[i] = (int8_t)(i - 50);
	memset(summary->digest, 0xab, sizeof(summary->digest));
	*packed = (struct kx_buf){.max = KX_SUMMARY_MAX};
	assert_int_equal(kx_summary_pack(summary, packed), KX_OK);
}

static void test_round_trip(void **state)
{
	struct kx_summary in, out;
	struct kx_buf packed, again = {.max = KX_SUMMARY_MAX};

	(void)state;
	make(&in, &packed);
	assert_int_equal(kx_summary_unpack(packed.data, packed.len, &out, NULL), KX_OK);
	assert_int_equal(out.index, in.index);
	assert_string_equal(out.space, in.space);
	assert_memory_equal(out.embedding, in.embedding, in.dim);
	assert_int_equal(kx_summary_pack(&out, &again), KX_OK);
	assert_int_equal(again.len, packed.len);
	assert_memory_equal(again.data, packed.data, packed.len);
	kx_buf_done(&packed);
	kx_buf_done(&again);
}

static void test_every_cut_is_refused(void **state)
{
	struct kx_summary in, out;
	struct kx_buf packed;

	(void)state;
	make(&in, &packed);
	for (size_t len = 0; len < packed.len; len++) {
		/* Of its own size, so that a sanitizer sees a read past the end. */
		uint8_t *cut = malloc(len ? len : 1);

		assert_non_null(cut);
		memcpy(cut, packed.data, len);
		assert_int_equal(kx_summary_unpack(cut, len, &out, NULL), KX_ECORRUPT);
		free(cut);
	}
	packed.data[0] = 9;
	assert_int_equal(kx_summary_unpack(packed.data, packed.len, &out, NULL), KX_EVERSION);
	kx_buf_done(&packed);
}

static void test_damage_is_survived(void **state)
{
	uint64_t random = kx_test_seed();
	struct kx_summary in, out;
	struct kx_buf packed, again = {.max = KX_SUMMARY_MAX};

	(void)state;
	make(&in, &packed);
	for (int i = 0; i < 20000; i++) {
		size_t at = kx_test_random(&random) % packed.len;
		uint8_t was = packed.data[at];

		packed.data[at] = (uint8_t)kx_test_random(&random);
		/* Refused, or a summary that packs to just these bytes. */
		if (!kx_summary_unpack(packed.data, packed.len, &out, NULL)) {
			kx_buf_clear(&again);
			assert_int_equal(kx_summary_pack(&out, &again), KX_OK);
			assert_int_equal(again.len, packed.len);
			assert_memory_equal(again.data, packed.data, packed.len);
		}
		packed.data[at] = was;
	}
	kx_buf_done(&packed);
	kx_buf_done(&again);
}

static int compare_keys(const struct kx_key *a, const struct kx_key *b)
{
	int order = memcmp(a->bytes, b->bytes, a->len < b->len ? a->len : b->len);

	return order ? order : (a->len > b->len) - (a->len < b->len);
}

static void test_keys_stand_in_order(void **state)
{
	struct kx_key keys[7];
	struct kx_moment_key parsed;

	(void)state;
	kx_key_moment(&keys[0], "a", 1, KX_VISUAL, 255);
	kx_key_moment(&keys[1], "a", 1, KX_VISUAL, 256);
	kx_key_moment(&keys[2], "a", 1, KX_AUDIO, 0);
	kx_key_after_generation(&keys[3], "a", 1);
	kx_key_moment(&keys[4], "a", UINT64_MAX, KX_AUDIO, UINT32_MAX);
	kx_key_after_generation(&keys[5], "a", UINT64_MAX);
	kx_key_moment(&keys[6], "aa", 0, KX_VISUAL, 0);
	for (int i = 1; i < 7; i++)
		assert_true(compare_keys(&keys[i - 1], &keys[i]) < 0);
	assert_true(kx_moment_key_parse(keys[1].bytes, keys[1].len, &parsed));
	assert_string_equal(parsed.id, "a");
	assert_int_equal(parsed.generation, 1);
	assert_int_equal(parsed.modality, KX_VISUAL);
	assert_int_equal(parsed.index, 256);
	for (size_t len = 0; len < keys[1].len; len++)
		assert_false(kx_moment_key_parse(keys[1].bytes, len, &parsed));
}

static void test_keys_of_events(void **state)
{
	struct kx_key key;
	struct kx_event_key parsed;

	(void)state;
	kx_key_event(&key, "a", UINT64_MAX, 4);
	assert_true(kx_event_key_parse(key.bytes, key.len, &parsed));
	assert_string_equal(parsed.id, "a");
	assert_true(parsed.generation == UINT64_MAX);
	assert_int_equal(parsed.kind, 4);
	for (size_t len = 0; len < key.len; len++)
		assert_false(kx_event_key_parse(key.bytes, len, &parsed));
	key.bytes[0] = 0;
	assert_false(kx_event_key_parse(key.bytes, key.len, &parsed));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_every_cut_is_refused),
		cmocka_unit_test(test_damage_is_survived),
		cmocka_unit_test(test_keys_stand_in_order),
		cmocka_unit_test(test_keys_of_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
