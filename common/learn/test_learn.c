/* Our linear algebra against naive references, and its edges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>

#include "common/base/hash.h"
#include "common/base/macros.h"
#include "common/base/str.h"
#include "common/learn/learn.h"

#define DIM 1280

/* Values in [-scale, scale), the same on every run. */
static void fill(float *v, size_t n, uint32_t start, float scale)
{
	uint32_t x = start * 2654435761u + 1u;

	for (size_t i = 0; i < n; i++) {
		x = x * 1664525u + 1013904223u;
		v[i] = scale * ((float)(x >> 8) / 8388608.0f - 1.0f);
	}
}

static float *values(size_t n, uint32_t start)
{
	float *v = malloc(n * sizeof(*v));

	assert_non_null(v);
	fill(v, n, start, 1.0f);
	return v;
}

static double length_of(const float *v, size_t n)
{
	double sum = 0.0;

	for (size_t i = 0; i < n; i++)
		sum += (double)v[i] * (double)v[i];
	return sqrt(sum);
}

static void assert_near(double got, double want, double tolerance)
{
	if (!(fabs(got - want) <= tolerance))
		fail_msg("%.9g where %.9g +- %g was expected", got, want, tolerance);
}

static void u8_codes_are_within_half_a_step(void **state)
{
	float in[DIM];
	float out[DIM];
	uint8_t codes[DIM];

	(void)state;
	for (uint32_t round = 0; round < 20; round++) {
		float lo;
		float step;
		uint8_t least = UINT8_MAX;
		uint8_t most = 0;

		fill(in, DIM, round, powf(10.0f, (float)round - 10.0f));
		kx_learn_quantize(in, DIM, codes, &lo, &step);
		kx_learn_dequantize(codes, DIM, lo, step, out);
		for (size_t i = 0; i < DIM; i++) {
			assert_true(in[i] >= lo);
			assert_near((double)out[i], (double)in[i], 0.5001 * (double)step);
			least = codes[i] < least ? codes[i] : least;
			most = codes[i] > most ? codes[i] : most;
		}
		assert_int_equal(least, 0);
		assert_int_equal(most, 255);
	}
}

static void u8_codes_of_known_values(void **state)
{
	const float in[] = {-1.0f, 0.0f, 0.25f, 1.0f, 101.0f, 254.0f};
	const uint8_t want[] = {0, 1, 1, 2, 102, 255};
	uint8_t codes[KX_ARRAY_LEN(in)];
	float out[KX_ARRAY_LEN(in)];
	float lo;
	float step;

	(void)state;
	kx_learn_quantize(in, KX_ARRAY_LEN(in), codes, &lo, &step);
	assert_true(lo == -1.0f && step == 1.0f);
	assert_memory_equal(codes, want, sizeof(want));
	kx_learn_dequantize(codes, KX_ARRAY_LEN(in), lo, step, out);
	assert_true(out[0] == -1.0f && out[5] == 254.0f);
}

static void u8_codes_of_rows_without_a_range(void **state)
{
	const float constant[] = {3.25f, 3.25f, 3.25f};
	const float extreme[] = {-FLT_MAX, FLT_MAX, 0.0f};
	const float tiny[] = {0.0f, FLT_TRUE_MIN, 0.0f};
	uint8_t codes[3] = {9, 9, 9};
	float out[3];
	float lo;
	float step;

	(void)state;
	kx_learn_quantize(constant, 3, codes, &lo, &step);
	assert_true(lo == 3.25f && step == 0.0f);
	assert_true(codes[0] == 0 && codes[1] == 0 && codes[2] == 0);
	kx_learn_dequantize(codes, 3, lo, step, out);
	assert_memory_equal(out, constant, sizeof(out));
	kx_learn_quantize(extreme, 3, codes, &lo, &step);
	assert_true(isfinite(step) && codes[0] == 0 && codes[1] == 255 && codes[2] == 128);
	kx_learn_quantize(tiny, 3, codes, &lo, &step);
	assert_true(lo == 0.0f && step == 0.0f && codes[1] == 0);
	kx_learn_quantize(constant, 0, codes, &lo, &step);
	assert_true(lo == 0.0f && step == 0.0f);
}

static void i8_codes_are_within_half_a_step(void **state)
{
	float in[DIM];
	float out[DIM];
	int8_t codes[DIM];
	float scale;
	int most = 0;

	(void)state;
	fill(in, DIM, 5, 1.0f);
	(void)kx_learn_normalize(in, DIM);
	kx_learn_quantize_i8(in, DIM, codes, &scale);
	kx_learn_dequantize_i8(codes, DIM, scale, out);
	for (size_t i = 0; i < DIM; i++) {
		assert_near((double)out[i], (double)in[i], 0.5001 * (double)scale);
		most = abs(codes[i]) > most ? abs(codes[i]) : most;
	}
	assert_int_equal(most, 127);
	assert_true((double)kx_learn_dot(in, out, DIM) / length_of(out, DIM) > 0.9999);
}

static void i8_codes_are_symmetric(void **state)
{
	const float in[] = {-1.0f, 1.0f, 0.5f, -0.5f, 0.0f, 0.002f, -0.002f};
	const int8_t want[] = {-127, 127, 64, -64, 0, 0, 0};
	const float zero[3] = {0};
	int8_t codes[KX_ARRAY_LEN(in)];
	float scale;

	(void)state;
	kx_learn_quantize_i8(in, KX_ARRAY_LEN(in), codes, &scale);
	assert_memory_equal(codes, want, sizeof(want));
	kx_learn_quantize_i8(zero, 3, codes, &scale);
	assert_true(scale == 0.0f && codes[0] == 0 && codes[1] == 0 && codes[2] == 0);
}

static void normalize_gives_unit_length(void **state)
{
	const size_t dims[] = {1, 2, 7, 8, 9, 15, 16, 17, DIM, DIM + 3};

	(void)state;
	for (size_t d = 0; d < KX_ARRAY_LEN(dims); d++) {
		float *v = values(dims[d], 77);
		double want = length_of(v, dims[d]);

		assert_near((double)kx_learn_normalize(v, dims[d]), want, 1e-6 * want);
		assert_near(length_of(v, dims[d]), 1.0, 1e-6);
		free(v);
	}
}

static void normalize_at_the_edges(void **state)
{
	float zero[5] = {0};
	float huge[] = {FLT_MAX, -FLT_MAX, 0.0f};
	float tiny[] = {FLT_TRUE_MIN, 0.0f, FLT_TRUE_MIN};

	(void)state;
	assert_true(kx_learn_normalize(zero, 5) == 0.0f);
	for (size_t i = 0; i < 5; i++)
		assert_true(zero[i] == 0.0f);
	(void)kx_learn_normalize(huge, 3);
	assert_near((double)huge[1], -sqrt(0.5), 1e-6);
	(void)kx_learn_normalize(tiny, 3);
	assert_near((double)tiny[2], sqrt(0.5), 1e-6);
	assert_true(kx_learn_normalize(zero, 0) == 0.0f);
}

static void power_normalize_is_signed_root_and_unit(void **state)
{
	float v[] = {4.0f, -9.0f, 0.0f, 16.0f};
	float zero[3] = {0};
	double length = sqrt(4.0 + 9.0 + 16.0);

	(void)state;
	kx_learn_power_normalize(v, 4);
	assert_near((double)v[0], 2.0 / length, 1e-6);
	assert_near((double)v[1], -3.0 / length, 1e-6);
	assert_true(v[2] == 0.0f);
	assert_near((double)v[3], 4.0 / length, 1e-6);
	kx_learn_power_normalize(zero, 3);
	assert_true(zero[0] == 0.0f && zero[1] == 0.0f && zero[2] == 0.0f);
}

enum { ROWS = 5 };

struct rows {
	uint8_t codes[ROWS * DIM];
	float lo[ROWS];
	float step[ROWS];
};

static void fill_rows(struct rows *rows)
{
	float in[DIM];

	for (size_t i = 0; i < ROWS; i++) {
		fill(in, DIM, (uint32_t)i + 100, 1.0f + (float)i);
		kx_learn_quantize(in, DIM, rows->codes + i * DIM, &rows->lo[i], &rows->step[i]);
	}
}

/* The definition, in double. */
static void pool_naively(const struct rows *rows, double *out)
{
	double sum = 0.0;

	memset(out, 0, DIM * sizeof(*out));
	for (size_t i = 0; i < ROWS; i++) {
		double row[DIM];
		double squares = 0.0;

		for (size_t j = 0; j < DIM; j++) {
			double x = (double)rows->lo[i] + rows->codes[i * DIM + j] * (double)rows->step[i];

			row[j] = x < 0.0 ? -sqrt(-x) : sqrt(x);
			squares += fabs(x);
		}
		for (size_t j = 0; j < DIM; j++)
			out[j] += row[j] / sqrt(squares) / ROWS;
	}
	for (size_t j = 0; j < DIM; j++)
		sum += out[j] * out[j];
	for (size_t j = 0; j < DIM; j++)
		out[j] /= sqrt(sum);
}

static void pool_is_its_definition(void **state)
{
	static struct rows rows;
	static double want[DIM];
	float got[DIM];

	(void)state;
	fill_rows(&rows);
	pool_naively(&rows, want);
	assert_int_equal(kx_learn_pool(rows.codes, rows.lo, rows.step, ROWS, DIM, got), KX_OK);
	for (size_t j = 0; j < DIM; j++)
		assert_near((double)got[j], want[j], 1e-6);
	assert_near(length_of(got, DIM), 1.0, 1e-6);
}

static void pool_gives_the_same_bytes_anywhere_in_memory(void **state)
{
	static struct rows rows;
	float want[DIM];

	(void)state;
	fill_rows(&rows);
	assert_int_equal(kx_learn_pool(rows.codes, rows.lo, rows.step, ROWS, DIM, want), KX_OK);
	for (size_t shift = 0; shift < 16; shift++) {
		uint8_t *codes = malloc(sizeof(rows.codes) + shift);
		float *out = malloc((DIM + shift) * sizeof(*out));

		assert_true(codes != NULL && out != NULL);
		memcpy(codes + shift, rows.codes, sizeof(rows.codes));
		assert_int_equal(kx_learn_pool(codes + shift, rows.lo, rows.step, ROWS, DIM, out + shift), KX_OK);
		assert_memory_equal(out + shift, want, sizeof(want));
		free(codes);
		free(out);
	}
}

/* Whatever the compiler, its flags or the vector units: these bytes are stored, and compared by their hash. */
static void pooled_bytes_never_change(void **state)
{
	static struct rows rows;
	float pooled[DIM];
	int8_t codes[DIM], embedding[DIM];
	uint8_t sha[KX_SHA256_LEN];
	char hex[2 * KX_SHA256_LEN + 1];
	float scale, embedding_scale;

	(void)state;
	fill_rows(&rows);
	assert_int_equal(kx_sha256_bytes(&rows, sizeof(rows), sha), KX_OK);
	kx_hex_encode(sha, sizeof(sha), hex);
	assert_string_equal(hex, "22eaba5d39d78512be333603ba4c76a302568380bbfa450c93c726725b3e99e7");
	assert_int_equal(kx_learn_pool(rows.codes, rows.lo, rows.step, ROWS, DIM, pooled), KX_OK);
	assert_int_equal(kx_sha256_bytes(pooled, sizeof(pooled), sha), KX_OK);
	kx_hex_encode(sha, sizeof(sha), hex);
	assert_string_equal(hex, "2af7acef4b6a14b38d44471cc9658bacf3147692f5f7b96f73e3229c582418d1");
	kx_learn_quantize_i8(pooled, DIM, codes, &scale);
	assert_int_equal(kx_sha256_bytes(codes, sizeof(codes), sha), KX_OK);
	kx_hex_encode(sha, sizeof(sha), hex);
	assert_string_equal(hex, "a68f5c53fbe2ebc23b0527d9cc395cd3b457ee7fc9d4620a0f0ed22548b41cf6");
	assert_int_equal(kx_learn_embed_moment(rows.codes, rows.lo, rows.step, ROWS, DIM, embedding, &embedding_scale),
			 KX_OK);
	assert_memory_equal(embedding, codes, sizeof(codes));
	assert_memory_equal(&embedding_scale, &scale, sizeof(scale));
}

static void pool_passes_over_rows_of_zeros(void **state)
{
	static struct rows rows;
	static uint8_t codes[(ROWS + 2) * DIM];
	float lo[ROWS + 2] = {0};
	float step[ROWS + 2] = {0};
	float want[DIM];
	float got[DIM];

	(void)state;
	fill_rows(&rows);
	memcpy(codes + DIM, rows.codes, sizeof(rows.codes));
	memcpy(lo + 1, rows.lo, sizeof(rows.lo));
	memcpy(step + 1, rows.step, sizeof(rows.step));
	assert_int_equal(kx_learn_pool(rows.codes, rows.lo, rows.step, ROWS, DIM, want), KX_OK);
	assert_int_equal(kx_learn_pool(codes, lo, step, ROWS + 2, DIM, got), KX_OK);
	assert_memory_equal(got, want, sizeof(want));
	/* Nothing but zeros, and nothing at all. */
	memset(step, 0, sizeof(step));
	memset(lo, 0, sizeof(lo));
	assert_int_equal(kx_learn_pool(codes, lo, step, 2, DIM, got), KX_OK);
	assert_true(length_of(got, DIM) == 0.0);
	assert_int_equal(kx_learn_pool(codes, lo, step, 0, DIM, got), KX_OK);
	assert_true(length_of(got, DIM) == 0.0);
}

/* A record may hold any finite lo and step; what they make need not fit a float. */
static void embedding_of_absurd_rows_is_made_of_numbers(void **state)
{
	static const uint8_t codes[DIM] = {255, 1};
	const float huge = 3e38f;
	int8_t embedding[DIM];
	float scale;

	(void)state;
	assert_int_equal(kx_learn_embed_moment(codes, &huge, &huge, 1, DIM, embedding, &scale), KX_OK);
	for (size_t i = 0; i < DIM; i++)
		assert_true(embedding[i] >= -127);
}

static void accumulate_adds_weighted(void **state)
{
	float acc[] = {1.0f, 2.0f, 3.0f};
	const float v[] = {1.0f, -1.0f, 0.5f};

	(void)state;
	kx_learn_accumulate(acc, v, 3, 2.0f);
	assert_true(acc[0] == 3.0f && acc[1] == 0.0f && acc[2] == 4.0f);
	kx_learn_accumulate(acc, v, 0, 2.0f);
	assert_true(acc[0] == 3.0f);
}

static void softmax_is_a_distribution(void **state)
{
	float logits[1000];
	float out[1000];
	double want = 0.0;
	double sum = 0.0;

	(void)state;
	fill(logits, 1000, 3, 10.0f);
	kx_learn_softmax(logits, 1000, out);
	for (size_t i = 0; i < 1000; i++)
		want += exp((double)logits[i]);
	for (size_t i = 0; i < 1000; i++) {
		assert_near((double)out[i], exp((double)logits[i]) / want, 1e-6);
		assert_true(out[i] >= 0.0f && out[i] <= 1.0f);
		sum += (double)out[i];
	}
	assert_near(sum, 1.0, 1e-5);
}

static void softmax_does_not_overflow(void **state)
{
	const float logits[] = {FLT_MAX, 0.0f, -FLT_MAX};
	const float one[] = {-1e30f};
	float out[3];

	(void)state;
	kx_learn_softmax(logits, 3, out);
	assert_true(out[0] == 1.0f && out[1] == 0.0f && out[2] == 0.0f);
	kx_learn_softmax(one, 1, out);
	assert_true(out[0] == 1.0f);
	kx_learn_softmax(logits, 0, out);
	assert_true(out[0] == 1.0f);
}

static void sigmoid_is_its_definition(void **state)
{
	const float logits[] = {0.0f, 1.0f, -1.0f, 20.0f, -20.0f, FLT_MAX, -FLT_MAX};
	float out[KX_ARRAY_LEN(logits)];

	(void)state;
	kx_learn_sigmoid(logits, KX_ARRAY_LEN(logits), out);
	for (size_t i = 0; i < KX_ARRAY_LEN(logits); i++) {
		assert_near((double)out[i], 1.0 / (1.0 + exp(-(double)logits[i])), 1e-7);
		assert_true(out[i] >= 0.0f && out[i] <= 1.0f);
	}
	assert_true(out[0] == 0.5f && out[5] == 1.0f && out[6] == 0.0f);
}

static double dot_naively(const float *a, const float *b, size_t n)
{
	double sum = 0.0;

	for (size_t i = 0; i < n; i++)
		sum += (double)a[i] * (double)b[i];
	return sum;
}

static void products_are_their_definitions(void **state)
{
	enum { A = 7, B = 13, D = 131 };
	float *a = values((size_t)A * D, 1);
	float *b = values((size_t)B * D, 2);
	float out[A * B];

	(void)state;
	assert_near((double)kx_learn_dot(a, b, D), dot_naively(a, b, D), 1e-4);
	kx_learn_gemv(b, B, D, a, out);
	for (size_t i = 0; i < B; i++)
		assert_near((double)out[i], dot_naively(b + i * D, a, D), 1e-4);
	kx_learn_gemm_nt(a, A, b, B, D, out);
	for (size_t i = 0; i < A; i++) {
		for (size_t j = 0; j < B; j++)
			assert_near((double)out[i * B + j], dot_naively(a + i * D, b + j * D, D), 1e-4);
	}
	free(a);
	free(b);
}

static void products_of_nothing(void **state)
{
	float a[] = {1.0f, 2.0f};
	float out[] = {5.0f, 5.0f};

	(void)state;
	assert_true(kx_learn_dot(a, a, 0) == 0.0f);
	kx_learn_gemv(a, 0, 2, a, out);
	kx_learn_gemm_nt(a, 0, a, 1, 2, out);
	kx_learn_gemm_nt(a, 1, a, 0, 2, out);
	assert_true(out[0] == 5.0f && out[1] == 5.0f);
	kx_learn_gemv(a, 2, 0, a, out);
	assert_true(out[0] == 0.0f && out[1] == 0.0f);
	out[0] = 5.0f;
	kx_learn_gemm_nt(a, 1, a, 1, 0, out);
	assert_true(out[0] == 0.0f);
}

struct ranked {
	float score;
	uint32_t index;
};

static int by_rank(const void *a, const void *b)
{
	const struct ranked *x = a;
	const struct ranked *y = b;

	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	return x->index < y->index ? -1 : 1;
}

/* levels: how many different scores there are; few make many ties. */
static void assert_topk_sorts(size_t n, size_t k, unsigned levels)
{
	float *scores = values(n, (uint32_t)(n * 31 + k));
	struct ranked *ranked = malloc(n * sizeof(*ranked));
	uint32_t *index = malloc((k + 1) * sizeof(*index));
	size_t want = k < n ? k : n;

	assert_true(ranked != NULL && index != NULL);
	for (size_t i = 0; i < n; i++) {
		scores[i] = floorf(scores[i] * (float)levels);
		ranked[i] = (struct ranked){scores[i], (uint32_t)i};
	}
	qsort(ranked, n, sizeof(*ranked), by_rank);
	index[want] = 12345;
	assert_int_equal(kx_learn_topk(scores, n, k, index), want);
	for (size_t i = 0; i < want; i++)
		assert_int_equal(index[i], ranked[i].index);
	assert_int_equal(index[want], 12345);
	free(scores);
	free(ranked);
	free(index);
}

static void topk_is_a_sort_cut_off(void **state)
{
	const size_t sizes[] = {1, 2, 3, 10, 100, 1000};
	const unsigned levels[] = {1, 3, 1000000};

	(void)state;
	for (size_t n = 0; n < KX_ARRAY_LEN(sizes); n++) {
		for (size_t k = 0; k < KX_ARRAY_LEN(sizes); k++) {
			for (size_t l = 0; l < KX_ARRAY_LEN(levels); l++)
				assert_topk_sorts(sizes[n], sizes[k], levels[l]);
		}
	}
}

static void topk_of_equal_scores_goes_by_index(void **state)
{
	const float scores[8] = {0};
	uint32_t index[3];

	(void)state;
	assert_int_equal(kx_learn_topk(scores, 8, 3, index), 3);
	assert_true(index[0] == 0 && index[1] == 1 && index[2] == 2);
	assert_int_equal(kx_learn_topk(scores, 8, 0, index), 0);
	assert_int_equal(kx_learn_topk(scores, 0, 3, index), 0);
}

static void topk_puts_nan_last(void **state)
{
	const float scores[] = {NAN, 1.0f, NAN, 3.0f, 2.0f, -1.0f};
	const uint32_t want[] = {3, 4, 1, 5, 0, 2};
	uint32_t index[6];

	(void)state;
	assert_int_equal(kx_learn_topk(scores, 6, 3, index), 3);
	assert_memory_equal(index, want, 3 * sizeof(*want));
	assert_int_equal(kx_learn_topk(scores, 6, 6, index), 6);
	assert_memory_equal(index, want, sizeof(want));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(u8_codes_are_within_half_a_step),
		cmocka_unit_test(u8_codes_of_known_values),
		cmocka_unit_test(u8_codes_of_rows_without_a_range),
		cmocka_unit_test(i8_codes_are_within_half_a_step),
		cmocka_unit_test(i8_codes_are_symmetric),
		cmocka_unit_test(normalize_gives_unit_length),
		cmocka_unit_test(normalize_at_the_edges),
		cmocka_unit_test(power_normalize_is_signed_root_and_unit),
		cmocka_unit_test(pool_is_its_definition),
		cmocka_unit_test(pool_gives_the_same_bytes_anywhere_in_memory),
		cmocka_unit_test(pooled_bytes_never_change),
		cmocka_unit_test(pool_passes_over_rows_of_zeros),
		cmocka_unit_test(embedding_of_absurd_rows_is_made_of_numbers),
		cmocka_unit_test(accumulate_adds_weighted),
		cmocka_unit_test(softmax_is_a_distribution),
		cmocka_unit_test(softmax_does_not_overflow),
		cmocka_unit_test(sigmoid_is_its_definition),
		cmocka_unit_test(products_are_their_definitions),
		cmocka_unit_test(products_of_nothing),
		cmocka_unit_test(topk_is_a_sort_cut_off),
		cmocka_unit_test(topk_of_equal_scores_goes_by_index),
		cmocka_unit_test(topk_puts_nan_last),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
