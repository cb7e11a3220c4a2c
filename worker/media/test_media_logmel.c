/* Log-mel against a plain double-precision DFT of the definition, and its behaviour in streaming. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/media/logmel.h"

/* The FFT is in floats: what it rounds off the loudest bin shows in bands that are silent but for it. */
#define TOLERANCE 5e-3
#define PATCHES_MAX 64

struct patches {
	size_t count;
	float rows[PATCHES_MAX][KX_PATCH_HOPS][KX_PATCH_BANDS];
};

static kx_status keep(void *ctx, uint64_t index, const float *patch)
{
	struct patches *patches = ctx;
	assert_int_equal(index, patches->count);
	assert_true(patches->count < PATCHES_MAX);
	memcpy(patches->rows[patches->count++], patch, KX_PATCH_BYTES);
	return KX_OK;
}

static struct patches *run(const float *samples, size_t count, size_t piece)
{
	struct kx_logmel *logmel = NULL;
	struct patches *patches = calloc(1, sizeof(*patches));
	assert_non_null(patches);
	assert_int_equal(kx_logmel_new(keep, patches, &logmel), KX_OK);
	for (size_t at = 0; at < count; at += piece)
		assert_int_equal(kx_logmel_push(logmel, samples + at, count - at < piece ? count - at : piece), KX_OK);
	assert_int_equal(kx_logmel_finish(logmel), KX_OK);
	kx_logmel_free(logmel);
	return patches;
}

static float *sound(size_t count)
{
	float *samples = malloc(count * sizeof(*samples));
	uint32_t state = 12345;
	assert_non_null(samples);
	for (size_t i = 0; i < count; i++) {
		double t = (double)i / 16000;
		state = state * 1664525u + 1013904223u;
		samples[i] = (float)(0.4 * sin(2 * M_PI * 440 * t) + 0.2 * sin(2 * M_PI * (200 + 900 * t) * t) +
				     0.1 * ((double)(state >> 8) / (1 << 24) - 0.5) * (i % 9000 > 4500));
	}
	return samples;
}

static double hz_to_mel(double hz)
{
	return 1127.0 * log(1.0 + hz / 700.0);
}

/* One row by the definition: Hann, DFT, magnitude, HTK triangles, log. */
static void reference_row(const float *samples, double *row)
{
	double magnitude[257];
	for (int bin = 0; bin < 257; bin++) {
		double re = 0;
		double im = 0;
		for (int n = 0; n < 400; n++) {
			double x = samples[n] * (0.5 - 0.5 * cos(2 * M_PI * n / 400));
			re += x * cos(2 * M_PI * bin * n / 512);
			im -= x * sin(2 * M_PI * bin * n / 512);
		}
		magnitude[bin] = sqrt(re * re + im * im);
	}
	double low = hz_to_mel(125);
	double high = hz_to_mel(7500);
	for (int band = 0; band < 64; band++) {
		double left = low + (high - low) * band / 65;
		double centre = low + (high - low) * (band + 1) / 65;
		double right = low + (high - low) * (band + 2) / 65;
		double sum = 0;
		for (int bin = 1; bin < 257; bin++) {
			double mel = hz_to_mel(bin * 16000.0 / 512);
			double up = (mel - left) / (centre - left);
			double down = (right - mel) / (right - centre);
			sum += magnitude[bin] * fmax(0, fmin(up, down));
		}
		row[band] = log(sum + 0.001);
	}
}

static void test_reference(void **state)
{
	(void)state;
	size_t count = 16000 * 2;
	float *samples = sound(count);
	struct patches *patches = run(samples, count, count);
	double worst = 0;
	assert_int_equal(patches->count, 3);
	for (size_t p = 0; p < patches->count; p++) {
		for (size_t hop = 0; hop < KX_PATCH_HOPS; hop += 5) {
			double row[64];
			reference_row(samples + (p * 48 + hop) * 160, row);
			for (int band = 0; band < 64; band++)
				worst = fmax(worst, fabs(row[band] - patches->rows[p][hop][band]));
		}
	}
	printf("log-mel: largest difference from the double DFT %.2g (tolerance %.2g)\n", worst, TOLERANCE);
	assert_true(worst < TOLERANCE);
	free(patches);
	free(samples);
}

static void test_pieces(void **state)
{
	(void)state;
	const size_t pieces[] = {1, 7, 160, 1519, 1520, 1521, 4096};
	size_t count = 16000 * 3 + 123;
	float *samples = sound(count);
	struct patches *whole = run(samples, count, count);
	for (size_t i = 0; i < KX_ARRAY_LEN(pieces); i++) {
		struct patches *parts = run(samples, count, pieces[i]);
		assert_int_equal(parts->count, whole->count);
		assert_memory_equal(parts->rows, whole->rows, sizeof(whole->rows));
		free(parts);
	}
	free(whole);
	free(samples);
}

static void test_silence(void **state)
{
	(void)state;
	float *samples = calloc(16000, sizeof(*samples));
	assert_non_null(samples);
	struct patches *patches = run(samples, 16000, 16000);
	assert_int_equal(patches->count, 1);
	for (size_t hop = 0; hop < KX_PATCH_HOPS; hop++)
		for (size_t band = 0; band < KX_PATCH_BANDS; band++)
			assert_true(patches->rows[0][hop][band] == logf(0.001f));
	free(patches);
	free(samples);
}

/* Of a damaged file: what comes out is finite, and as loud as can be where that was asked for. */
static void test_samples_that_are_none(void **state)
{
	static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f};
	const size_t count = 2 * KX_LOGMEL_PATCH_SAMPLES;
	float *samples = sound(count), *bounded = sound(count);
	(void)state;
	for (size_t i = 0; i < count; i += 7) {
		samples[i] = odd[i % 6];
		bounded[i] = isnan(odd[i % 6]) ? 0.0f : fminf(fmaxf(odd[i % 6], -KX_LOGMEL_LOUDEST), KX_LOGMEL_LOUDEST);
	}
	struct patches *patches = run(samples, count, 4096);
	struct patches *wanted = run(bounded, count, 4096);
	assert_true(patches->count > 0);
	for (size_t i = 0; i < patches->count * KX_PATCH_HOPS; i++)
		for (size_t band = 0; band < KX_PATCH_BANDS; band++)
			assert_true(isfinite(patches->rows[i / KX_PATCH_HOPS][i % KX_PATCH_HOPS][band]));
	assert_memory_equal(patches->rows, wanted->rows, patches->count * KX_PATCH_BYTES);
	free(patches);
	free(wanted);
	free(samples);
	free(bounded);
}

static void test_ends(void **state)
{
	(void)state;
	static const struct {
		size_t samples;
		size_t patches;
	} ends[] = {
		{0, 0}, {1600, 0}, {1601, 1}, {15599, 1}, {15600, 1}, {15600 + 7679, 1}, {15600 + 7680, 2}, {160000, 19},
	};
	float *samples = sound(160000);
	for (size_t i = 0; i < KX_ARRAY_LEN(ends); i++) {
		struct patches *patches = run(samples, ends[i].samples, 1000);
		assert_int_equal(patches->count, ends[i].patches);
		free(patches);
	}
	free(samples);
}

static kx_status refuse(void *ctx, uint64_t index, const float *patch)
{
	(void)ctx;
	(void)index;
	(void)patch;
	return KX_ECANCELED;
}

static void test_refusal(void **state)
{
	(void)state;
	struct kx_logmel *logmel = NULL;
	float *samples = sound(16000);
	assert_int_equal(kx_logmel_new(refuse, NULL, &logmel), KX_OK);
	assert_int_equal(kx_logmel_push(logmel, samples, 16000), KX_ECANCELED);
	kx_logmel_free(logmel);
	free(samples);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reference), cmocka_unit_test(test_pieces),  cmocka_unit_test(test_silence),
		cmocka_unit_test(test_samples_that_are_none),
		cmocka_unit_test(test_ends),      cmocka_unit_test(test_refusal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
