/* Reduction finds the bytes that matter, never loses the property, and keeps to its number of tries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "cli/reduce.h"

struct oracle {
	const char *first, *second; /* both must be there, in this order */
	unsigned calls;
	unsigned stop_at; /* 0: never */
};

static enum kx_reduce_answer look(void *ctx, const uint8_t *bytes, size_t len)
{
	struct oracle *oracle = ctx;
	const uint8_t *first = memmem(bytes, len, oracle->first, strlen(oracle->first));

	oracle->calls++;
	if (oracle->stop_at != 0 && oracle->calls >= oracle->stop_at)
		return KX_REDUCE_STOP;
	if (!first || !memmem(first, len - (size_t)(first - bytes), oracle->second, strlen(oracle->second)))
		return KX_REDUCE_NO;
	return KX_REDUCE_YES;
}

static size_t fill(uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 7 % 251 + 1);
	memcpy(bytes + 1000, "CAUSE", 5);
	memcpy(bytes + 30000, "EFFECT", 6);
	return len;
}

static void what_matters_is_left(void **state)
{
	static uint8_t bytes[100000];
	struct oracle oracle = {.first = "CAUSE", .second = "EFFECT"};
	size_t len = fill(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(kx_reduce(bytes, &len, 1000, look, &oracle), KX_OK);
	assert_int_equal(look(&oracle, bytes, len), KX_REDUCE_YES);
	assert_in_range(len, 11, 40);
	assert_in_range(oracle.calls, 1, 1001);
}

static void tries_are_bounded(void **state)
{
	static uint8_t bytes[100000];
	struct oracle oracle = {.first = "CAUSE", .second = "EFFECT"};
	size_t len = fill(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(kx_reduce(bytes, &len, 20, look, &oracle), KX_OK);
	assert_int_equal(oracle.calls, 20);
	assert_int_equal(look(&oracle, bytes, len), KX_REDUCE_YES);
	assert_in_range(len, 11, 40000);
}

static void stopping_keeps_what_was_found(void **state)
{
	static uint8_t bytes[100000];
	struct oracle oracle = {.first = "CAUSE", .second = "EFFECT", .stop_at = 30};
	size_t len = fill(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(kx_reduce(bytes, &len, 1000, look, &oracle), KX_OK);
	assert_int_equal(oracle.calls, 30);
	oracle.stop_at = 0;
	assert_int_equal(look(&oracle, bytes, len), KX_REDUCE_YES);
}

static void nothing_is_reduced_to_nothing(void **state)
{
	uint8_t bytes[1] = {7};
	struct oracle oracle = {.first = "", .second = ""};
	size_t len = 0;

	(void)state;
	assert_int_equal(kx_reduce(bytes, &len, 100, look, &oracle), KX_OK);
	assert_int_equal(len, 0);
	assert_int_equal(oracle.calls, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_matters_is_left),
		cmocka_unit_test(tries_are_bounded),
		cmocka_unit_test(stopping_keeps_what_was_found),
		cmocka_unit_test(nothing_is_reduced_to_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
