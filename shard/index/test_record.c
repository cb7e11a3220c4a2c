#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/testkit.h"
#include "shard/index/keys.h"
#include "shard/index/record.h"

#define ENTRY 20u /* of 64 dimensions */

static void make_entry(uint8_t *entry, uint32_t row)
{
	const float factors[2] = {0.25f, -1.5f};

	kx_le32_put(entry, row);
	memcpy(entry + 4, factors, sizeof(factors));
	memset(entry + 12, (int)row, 8);
}

static void checksum_is_the_known_one(void **state)
{
	static const uint8_t zeroes[32];

	(void)state;
	assert_int_equal(kx_crc32c(0, "123456789", 9), 0xe3069283u);
	assert_int_equal(kx_crc32c(0, zeroes, 32), 0x8a9136aau); /* RFC 3720, B.4 */
	assert_int_equal(kx_crc32c(kx_crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
}

static void keys_stand_in_order(void **state)
{
	struct kx_ikey a = kx_ikey_delta(1, 2, 3, 0xffffffffu), b = kx_ikey_delta(1, 2, 4, 0);
	struct kx_ikey cell = kx_ikey_cell(1, 2, 3);
	uint32_t space, generation, number, row;

	(void)state;
	assert_true(memcmp(a.bytes, b.bytes, a.len) < 0);
	assert_memory_equal(a.bytes, cell.bytes, cell.len);
	assert_true(kx_ikey_parse_delta(a.bytes, a.len, &space, &generation, &number, &row));
	assert_int_equal(space, 1);
	assert_int_equal(generation, 2);
	assert_int_equal(number, 3);
	assert_int_equal(row, 0xffffffffu);
	assert_false(kx_ikey_parse_delta(a.bytes, a.len - 1, &space, &generation, &number, &row));
	assert_true(kx_ikey_parse_cell(cell.bytes, cell.len, &space, &generation, &number));
	assert_false(kx_ikey_parse_row(cell.bytes, cell.len, &space, &row));
}

/* Every flipped bit and every length but the right one is refused. */
static void expect_guarded(const struct kx_buf *good, kx_status (*decode)(const uint8_t *bytes, size_t len))
{
	uint8_t *copy = malloc(good->len + 1);

	assert_non_null(copy);
	memcpy(copy, good->data, good->len);
	copy[good->len] = 0;
	assert_int_equal(decode(copy, good->len), KX_OK);
	for (size_t bit = 0; bit < good->len * 8; bit++) {
		copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_not_equal(decode(copy, good->len), KX_OK);
		copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (size_t len = 0; len < good->len; len++)
		assert_int_not_equal(decode(copy, len), KX_OK);
	assert_int_not_equal(decode(copy, good->len + 1), KX_OK);
	free(copy);
}

static kx_status decode_cell(const uint8_t *bytes, size_t len)
{
	struct kx_cell_view view;

	return kx_cell_decode("key", 3, bytes, len, ENTRY, &view, NULL);
}

static void cell_comes_back_or_is_refused(void **state)
{
	struct kx_buf out = {.max = 4096};
	struct kx_cell_view view;
	struct kx_error error = {0};
	uint8_t entries[5 * ENTRY];

	(void)state;
	for (uint32_t i = 0; i < 5; i++)
		make_entry(entries + i * ENTRY, i * 100);
	assert_int_equal(kx_cell_encode("key", 3, entries, 5, ENTRY, &out), KX_OK);
	assert_int_equal(kx_cell_decode("key", 3, out.data, out.len, ENTRY, &view, &error), KX_OK);
	assert_int_equal(view.count, 5);
	assert_memory_equal(view.entries, entries, sizeof(entries));
	expect_guarded(&out, decode_cell);
	assert_int_equal(kx_cell_decode("kez", 3, out.data, out.len, ENTRY, &view, &error), KX_ECORRUPT);
	assert_int_equal(kx_cell_decode("key", 3, out.data, out.len, ENTRY + 8, &view, &error), KX_ECORRUPT);
	out.data[0] = 2;
	assert_int_equal(kx_cell_decode("key", 3, out.data, out.len, ENTRY, &view, &error), KX_EVERSION);
	kx_buf_clear(&out);
	assert_int_equal(kx_cell_encode("key", 3, NULL, 0, ENTRY, &out), KX_OK);
	assert_int_equal(kx_cell_decode("key", 3, out.data, out.len, ENTRY, &view, &error), KX_OK);
	assert_int_equal(view.count, 0);
	kx_buf_done(&out);
}

static void entries_that_are_none_are_refused(void **state)
{
	struct kx_buf out = {.max = 4096};
	struct kx_cell_view view;
	uint8_t entry[ENTRY];
	const float none = NAN;

	(void)state;
	make_entry(entry, KX_INDEX_ROWS_MAX);
	assert_int_equal(kx_cell_encode("key", 3, entry, 1, ENTRY, &out), KX_OK);
	assert_int_equal(kx_cell_decode("key", 3, out.data, out.len, ENTRY, &view, NULL), KX_ECORRUPT);
	make_entry(entry, 1);
	memcpy(entry + 4, &none, sizeof(none));
	kx_buf_clear(&out);
	assert_int_equal(kx_cell_encode("key", 3, entry, 1, ENTRY, &out), KX_OK);
	assert_int_equal(kx_cell_decode("key", 3, out.data, out.len, ENTRY, &view, NULL), KX_ECORRUPT);
	kx_buf_done(&out);
}

static kx_status decode_delta(const uint8_t *bytes, size_t len)
{
	const uint8_t *entry;

	return kx_delta_decode("key", 3, bytes, len, ENTRY, &entry, NULL);
}

static void delta_comes_back_or_is_refused(void **state)
{
	struct kx_buf out = {.max = 4096};
	uint8_t bytes[KX_DELTA_MAX], entry[ENTRY];
	const uint8_t *back;
	size_t len;

	(void)state;
	make_entry(entry, 77);
	len = kx_delta_encode("key", 3, entry, ENTRY, bytes);
	assert_int_equal(kx_buf_append(&out, bytes, len), KX_OK);
	assert_int_equal(kx_delta_decode("key", 3, bytes, len, ENTRY, &back, NULL), KX_OK);
	assert_memory_equal(back, entry, ENTRY);
	expect_guarded(&out, decode_delta);
	kx_buf_clear(&out);
	len = kx_delta_encode("key", 3, NULL, ENTRY, bytes);
	assert_int_equal(kx_buf_append(&out, bytes, len), KX_OK);
	assert_int_equal(kx_delta_decode("key", 3, bytes, len, ENTRY, &back, NULL), KX_OK);
	assert_null(back);
	expect_guarded(&out, decode_delta);
	kx_buf_done(&out);
}

static kx_status decode_chunk(const uint8_t *bytes, size_t len)
{
	struct kx_chunk_view view;

	return kx_chunk_decode("key", 3, bytes, len, 8, &view, NULL);
}

static void chunk_comes_back_or_is_refused(void **state)
{
	struct kx_buf out = {.max = 4096};
	struct kx_chunk_view view;
	const float one[8] = {1, 2, 3, 4, 5, 6, 7, 8}, two[8] = {-1, 0.5f};
	const float *centroids[KX_CHUNK_CELLS] = {[3] = one, [15] = two};
	float back[16];

	(void)state;
	assert_int_equal(kx_chunk_encode("key", 3, 1u << 3 | 1u << 15, centroids, 8, &out), KX_OK);
	assert_int_equal(kx_chunk_decode("key", 3, out.data, out.len, 8, &view, NULL), KX_OK);
	assert_int_equal(view.mask, 1u << 3 | 1u << 15);
	memcpy(back, view.floats, sizeof(back));
	assert_memory_equal(back, one, sizeof(one));
	assert_memory_equal(back + 8, two, sizeof(two));
	expect_guarded(&out, decode_chunk);
	kx_buf_done(&out);
}

static void small_records_come_back(void **state)
{
	struct kx_space_record space = {.name = "clip/visual", .generation = 7, .trained = true, .trained_rows = 1000,
					.recipe = {256, KX_METRIC_COSINE, UINT64_C(0x123456789abcdef0)},
					.trained_distance2 = 0.125};
	struct kx_space_record space_back;
	struct kx_counts_record counts = {1000, 999}, counts_back;
	struct kx_ivf_tuning tuning = {.count = 2, .recall = {0.9f, 0.99f}, .effort = {1, 4}, .spread = 0.125f}, tuning_back;
	struct kx_row_view row = {(const uint8_t *)"id", 2, (const uint8_t *)"attr", 4}, row_back;
	struct kx_buf out = {.max = 100};
	uint8_t bytes[KX_SPACE_RECORD_MAX], tuned[KX_TUNING_BYTES], counted[KX_COUNTS_BYTES];
	float scale;
	size_t len = kx_space_encode(&space, bytes);

	(void)state;
	assert_int_equal(kx_space_decode(bytes, len, &space_back, NULL), KX_OK);
	assert_string_equal(space_back.name, space.name);
	assert_int_equal(space_back.recipe.seed, space.recipe.seed);
	assert_int_equal(space_back.generation, 7);
	assert_true(space_back.trained && !space_back.filling);
	bytes[20] ^= 1;
	assert_int_equal(kx_space_decode(bytes, len, &space_back, NULL), KX_ECORRUPT);

	kx_counts_encode(&counts, counted);
	assert_int_equal(kx_counts_decode(counted, sizeof(counted), &counts_back, NULL), KX_OK);
	assert_int_equal(counts_back.rows, 999);
	counts.rows = 1001;
	kx_counts_encode(&counts, counted);
	assert_int_equal(kx_counts_decode(counted, sizeof(counted), &counts_back, NULL), KX_ECORRUPT);

	kx_tuning_encode(&tuning, 1.5f, tuned);
	assert_int_equal(kx_tuning_decode(tuned, sizeof(tuned), &tuning_back, &scale, NULL), KX_OK);
	assert_true(tuning_back.effort[1] == 4.0f && tuning_back.spread == 0.125f && scale == 1.5f);
	tuning.effort[1] = 0.5f; /* falls */
	kx_tuning_encode(&tuning, 1.5f, tuned);
	assert_int_equal(kx_tuning_decode(tuned, sizeof(tuned), &tuning_back, &scale, NULL), KX_ECORRUPT);

	assert_int_equal(kx_row_encode(&row, &out), KX_OK);
	assert_int_equal(kx_row_decode(out.data, out.len, &row_back, NULL), KX_OK);
	assert_int_equal(row_back.attributes_len, 4);
	assert_memory_equal(row_back.attributes, "attr", 4);
	assert_int_equal(kx_row_decode(out.data, 5, &row_back, NULL), KX_ECORRUPT);
	kx_buf_done(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(checksum_is_the_known_one),
		cmocka_unit_test(keys_stand_in_order),
		cmocka_unit_test(cell_comes_back_or_is_refused),
		cmocka_unit_test(entries_that_are_none_are_refused),
		cmocka_unit_test(delta_comes_back_or_is_refused),
		cmocka_unit_test(chunk_comes_back_or_is_refused),
		cmocka_unit_test(small_records_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
