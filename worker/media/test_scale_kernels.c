/* Every SIMD path of this CPU against the plain C reference, bit for bit, on memory that ends where it should; and
 * the weights of an axis against what they mean. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/media/scale_kernels.h"

#define ROUNDS 3000

static uint64_t random_state = 1;

static uint32_t next_random(void)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(random_state >> 33);
}

/* From low to high, both included. */
static unsigned pick(unsigned low, unsigned high)
{
	return low + next_random() % (high - low + 1);
}

/* Random bytes, often at their limits, in an allocation of just that size. */
static void *random_bytes(size_t len)
{
	uint8_t *bytes = malloc(len);
	assert_non_null(bytes);
	unsigned kind = pick(0, 3);
	for (size_t i = 0; i < len; i++)
		bytes[i] = kind == 0 ? 255 : kind == 1 ? (uint8_t)(next_random() & 1 ? 255 : 0) : (uint8_t)next_random();
	return bytes;
}

static struct kx_axis_shape random_shape(int64_t samples)
{
	static const struct kx_axis_shape kinds[] = {
		{0, 0, 0, 2}, {0, 0, 0, 4}, {0, 0, 0, 8}, {0, 0, -1, 4}, {0, 0, 1, 4}, {0, 0, -2, 8}, {0, 0, 2, 8}};
	struct kx_axis_shape shape = kinds[pick(0, KX_ARRAY_LEN(kinds) - 1)];
	shape.samples = samples;
	shape.extent = shape.samples * shape.step2 / 2;
	/* An odd side: the last sample stands for less than the others. */
	shape.extent -= shape.extent > 1 && shape.step2 > 2 ? pick(0, 1) : 0;
	return shape;
}

static void check_rows(const struct kx_scale_kernels *kernels, bool wide)
{
	struct kx_axis axis;
	unsigned width = pick(1, pick(0, 1) ? 70 : 300);
	unsigned samples = pick(1, 40);
	unsigned depth = wide ? pick(9, 16) : 8;
	unsigned bytes = wide ? 2 : 1;
	unsigned shift = KX_AXIS_BITS + depth - KX_SAMPLE_BITS;
	assert_int_equal(kx_axis_init(&axis, random_shape(samples), pick(1, 60), KX_ROW_TAPS), KX_OK);
	uint8_t *lines[40];
	const uint8_t **taps = calloc(axis.taps, sizeof(*taps));
	int16_t *want = calloc(width, sizeof(*want));
	int16_t *got = calloc(width, sizeof(*got));
	assert_true(taps && want && got);
	for (unsigned i = 0; i < samples; i++)
		lines[i] = random_bytes((size_t)width * bytes);
	for (unsigned k = 0; k < axis.count; k++) {
		for (unsigned t = 0; t < axis.taps; t++)
			taps[t] = lines[axis.first[k] + t < samples ? axis.first[k] + t : samples - 1];
		const int16_t *weights = axis.weights + (size_t)k * axis.taps;
		(wide ? kx_scale_c.rows16 : kx_scale_c.rows8)(taps, weights, axis.taps, width, shift, want);
		(wide ? kernels->rows16 : kernels->rows8)(taps, weights, axis.taps, width, shift, got);
		assert_memory_equal(got, want, width * sizeof(*want));
	}
	for (unsigned i = 0; i < samples; i++)
		free(lines[i]);
	free(taps);
	free(want);
	free(got);
	kx_axis_done(&axis);
}

static void check_columns(const struct kx_scale_kernels *kernels)
{
	struct kx_axis axis;
	unsigned samples = pick(1, 300);
	struct kx_axis_shape shape = random_shape(samples);
	unsigned count = pick(1, pick(0, 1) ? 20 : 300);
	assert_int_equal(kx_axis_init(&axis, shape, count, kx_column_taps(kx_axis_taps(&shape, count))), KX_OK);
	assert_true(axis.taps == 4 || axis.taps == 8 || axis.taps % KX_COLUMN_TAPS == 0);
	size_t len = (size_t)samples + axis.taps;
	uint16_t *in = random_bytes(len * sizeof(*in));
	int16_t *want = calloc(count, sizeof(*want));
	int16_t *got = calloc(count, sizeof(*got));
	assert_true(want && got);
	for (size_t i = 0; i < len; i++)
		in[i] &= KX_SAMPLE_MAX;
	kx_scale_c.columns((const int16_t *)in, &axis, want);
	kernels->columns((const int16_t *)in, &axis, got);
	assert_memory_equal(got, want, count * sizeof(*want));
	free(in);
	free(want);
	free(got);
	kx_axis_done(&axis);
}

static void check_apart(const struct kx_scale_kernels *kernels)
{
	unsigned step = pick(1, 6);
	unsigned count = pick(1, pick(0, 1) ? 70 : 300);
	int16_t *in = random_bytes(((size_t)(count - 1) * step + 1) * sizeof(*in));
	int16_t *want = calloc(count, sizeof(*want));
	int16_t *got = calloc(count, sizeof(*got));
	assert_true(want && got);
	kx_scale_c.apart(in, step, count, want);
	kernels->apart(in, step, count, got);
	assert_memory_equal(got, want, count * sizeof(*want));
	free(in);
	free(want);
	free(got);
}

static int16_t random_coefficient(void)
{
	return (int16_t)((int)pick(0, 40000) - 20000);
}

static void check_matrix(const struct kx_scale_kernels *kernels)
{
	struct kx_matrix matrix;
	int16_t *parts[3];
	unsigned width = pick(1, 100);
	for (unsigned i = 0; i < 3; i++) {
		/* No two large ones: their sum has to stay in 32 bits, as it does for real ones. */
		matrix.c[i][0] = (int16_t)pick(8000, 9600);
		matrix.c[i][1] = random_coefficient();
		matrix.c[i][2] = (int16_t)(random_coefficient() / 2);
		matrix.bias[i] = -(int32_t)((matrix.c[i][1] + matrix.c[i][2]) * 16384) + (1 << (KX_MATRIX_SHIFT - 1));
		parts[i] = random_bytes((size_t)width * sizeof(int16_t));
		for (unsigned x = 0; x < width; x++)
			parts[i][x] &= KX_SAMPLE_MAX;
	}
	uint8_t *want = random_bytes((size_t)width * 3);
	uint8_t *got = random_bytes((size_t)width * 3);
	kx_scale_c.matrix((const int16_t *const *)parts, width, &matrix, want);
	kernels->matrix((const int16_t *const *)parts, width, &matrix, got);
	assert_memory_equal(got, want, (size_t)width * 3);
	for (unsigned i = 0; i < 3; i++)
		free(parts[i]);
	free(want);
	free(got);
}

static void test_equal(void **state)
{
	const struct kx_scale_kernels *const paths[] = {kx_scale_avx2(), kx_scale_avx512(), kx_scale_neon()};
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(paths); i++) {
		if (!paths[i])
			continue;
		printf("%s\n", paths[i]->name);
		for (unsigned round = 0; round < ROUNDS; round++) {
			random_state = round + 1; /* what fails is found again by its round */
			check_rows(paths[i], false);
			check_rows(paths[i], true);
			check_columns(paths[i]);
			check_apart(paths[i]);
			check_matrix(paths[i]);
		}
	}
}

/* How much of [low, high) sample i covers: what the weights are made from, in doubles. */
static double coverage(const struct kx_axis_shape *shape, int64_t i, double low, double high)
{
	double from = i == 0 ? -1e9 : (double)(shape->origin2 + i * shape->step2) / 2;
	double to = i == shape->samples - 1 ? 1e9 : (double)(shape->origin2 + (i + 1) * shape->step2) / 2;
	double part = fmin(to, high) - fmax(from, low);
	return part > 0 ? part / (high - low) : 0;
}

/* The two samples beside the middle of an output, nearer ones more. */
static double between(const struct kx_axis_shape *shape, int64_t i, double middle)
{
	double at = (middle * 2 - (double)shape->origin2) / (double)shape->step2 - 0.5;
	at = fmin(fmax(at, 0), (double)(shape->samples - 1));
	return fmax(0, 1 - fabs(at - (double)i));
}

static void check_axis(void)
{
	struct kx_axis axis;
	struct kx_axis_shape shape = random_shape(pick(1, 600));
	unsigned count = pick(1, 300);
	assert_int_equal(kx_axis_init(&axis, shape, count, pick(1, 16)), KX_OK);
	double size = (double)shape.extent / count;
	bool dense = (double)shape.step2 / 2 <= size;
	for (unsigned k = 0; k < count; k++) {
		int sum = 0;
		assert_in_range(axis.first[k], 0, shape.samples - 1);
		for (unsigned t = 0; t < axis.taps; t++) {
			int weight = axis.weights[(size_t)k * axis.taps + t];
			int64_t i = axis.first[k] + (int64_t)t;
			double want = i >= shape.samples ? 0
				      : dense		 ? coverage(&shape, i, k * size, (k + 1) * size)
							 : between(&shape, i, (k + 0.5) * size);
			if (weight < 0 || fabs(weight - want * KX_AXIS_ONE) > 1.0001)
				fail_msg("%lld samples to %u, output %u, tap %u: %d, not %.3f",
					 (long long)shape.samples, count, k, t, weight, want * KX_AXIS_ONE);
			sum += weight;
		}
		assert_int_equal(sum, KX_AXIS_ONE);
	}
	kx_axis_done(&axis);
}

static void test_weights(void **state)
{
	(void)state;
	for (unsigned round = 0; round < ROUNDS; round++) {
		random_state = round + 1;
		check_axis();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_weights),
		cmocka_unit_test(test_equal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
