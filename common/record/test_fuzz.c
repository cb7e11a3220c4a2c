/* Packed records with bytes flipped, cut out, doubled and cut off: unpack never crashes, and what it accepts is in
 * range and packs again to something that it accepts. KINODEX_TEST_SEED repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/testkit.h"
#include "common/record/test_checks.h"

#define ROUNDS 20000 /* of every sample */

static void put(struct kx_buf *bytes, const void *what, size_t len)
{
	assert_int_equal(kx_buf_append(bytes, what, len), KX_OK);
}

static void mutated_records(void **state)
{
	static const uint8_t telling[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0xc0, 0x08, 0x0a};
	uint64_t random = kx_test_seed();
	unsigned accepted = 0;

	(void)state;
	for (size_t i = 0; i < record_case_count; i++) {
		const struct record_case *c = &record_cases[i];
		struct kx_buf whole = {.max = KX_RECORD_MAX};
		struct kx_buf bytes = {.max = KX_RECORD_MAX};

		assert_int_equal(c->pack(c->sample, &whole), KX_OK);
		for (unsigned round = 0; round < ROUNDS; round++) {
			kx_buf_clear(&bytes);
			put(&bytes, whole.data, whole.len);
			for (size_t n = 1 + kx_test_below(&random, 4); n > 0; n--)
				kx_test_mutate(&random, &bytes, telling, sizeof(telling));
			accepted += record_try_bytes(c, bytes.data, bytes.len);
		}
		kx_buf_done(&whole);
		kx_buf_done(&bytes);
	}
	print_message("%u of %zu mutants were accepted\n", accepted, record_case_count * ROUNDS);
	/* Else the mutants don't get past the parser, and the test shows nothing. */
	assert_in_range(accepted, record_case_count * ROUNDS / 100, record_case_count * ROUNDS);
}

static void every_truncation(void **state)
{
	(void)state;
	for (size_t i = 0; i < record_case_count; i++) {
		const struct record_case *c = &record_cases[i];
		struct kx_buf bytes = {.max = KX_RECORD_MAX};

		assert_int_equal(c->pack(c->sample, &bytes), KX_OK);
		assert_true(record_try_bytes(c, bytes.data, bytes.len));
		while (bytes.len > 1) {
			bytes.len--;
			(void)record_try_bytes(c, bytes.data, bytes.len);
		}
		kx_buf_done(&bytes);
	}
}

/* Bytes of one record given to the reader of another. */
static void each_as_every_other(void **state)
{
	(void)state;
	for (size_t i = 0; i < record_case_count; i++) {
		struct kx_buf bytes = {.max = KX_RECORD_MAX};

		assert_int_equal(record_cases[i].pack(record_cases[i].sample, &bytes), KX_OK);
		for (size_t j = 0; j < record_case_count; j++)
			(void)record_try_bytes(&record_cases[j], bytes.data, bytes.len);
		kx_buf_done(&bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mutated_records),
		cmocka_unit_test(every_truncation),
		cmocka_unit_test(each_as_every_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
