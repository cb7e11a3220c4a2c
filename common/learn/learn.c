#include "common/learn/learn.h"

#include <assert.h>
#include <cblas.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define U8_STEPS 255.0
#define I8_STEPS 127.0f
#define LANES 8

/* Of OpenBLAS's own threads, in builds that have them. Not in cblas.h, but what its handler of fork() calls. */
int blas_thread_shutdown_(void) __attribute__((weak));

void kx_learn_init(void)
{
	openblas_set_num_threads(1);
	/* It has started them by now, and each would look for work for some 30 ms before it sleeps. */
	if (blas_thread_shutdown_)
		(void)blas_thread_shutdown_();
}

void kx_learn_quantize(const float *in, size_t dim, uint8_t *codes, float *ret_lo, float *ret_step)
{
	float lo = dim > 0 ? in[0] : 0.0f;
	float hi = lo;
	float step;

	for (size_t i = 1; i < dim; i++) {
		lo = in[i] < lo ? in[i] : lo;
		hi = in[i] > hi ? in[i] : hi;
	}
	/* In double, since hi - lo of two floats can be more than a float holds. */
	step = (float)(((double)hi - (double)lo) / U8_STEPS);
	for (size_t i = 0; i < dim; i++) {
		double code = step > 0.0f ? ((double)in[i] - (double)lo) / (double)step : 0.0;

		codes[i] = (uint8_t)(code < U8_STEPS ? code + 0.5 : U8_STEPS);
	}
	*ret_lo = lo;
	*ret_step = step;
}

void kx_learn_dequantize(const uint8_t *codes, size_t dim, float lo, float step, float *out)
{
	for (size_t i = 0; i < dim; i++)
		out[i] = lo + (float)codes[i] * step;
}

void kx_learn_quantize_i8(const float *in, size_t dim, int8_t *codes, float *ret_scale)
{
	float most = 0.0f;
	float scale;

	for (size_t i = 0; i < dim; i++) {
		float size = fabsf(in[i]);

		most = size > most ? size : most;
	}
	scale = most / I8_STEPS;
	for (size_t i = 0; i < dim; i++) {
		float code = scale > 0.0f ? in[i] / scale : 0.0f;

		/* So that what is no number, out of features too large for a float, becomes one. */
		code = code < I8_STEPS ? code : I8_STEPS;
		code = code > -I8_STEPS ? code : -I8_STEPS;
		codes[i] = (int8_t)(code + (code < 0.0f ? -0.5f : 0.5f));
	}
	*ret_scale = scale;
}

void kx_learn_dequantize_i8(const int8_t *codes, size_t dim, float scale, float *out)
{
	for (size_t i = 0; i < dim; i++)
		out[i] = (float)codes[i] * scale;
}

/* Element i goes into lane i % LANES and the lanes are added in order: the same bits with vector units of any width
 * or none, and vector units can be used. */
static double sum_of_squares(const float *v, size_t dim)
{
	double lanes[LANES] = {0};
	double sum = 0.0;
	size_t i = 0;

	for (; i + LANES <= dim; i += LANES) {
		for (size_t j = 0; j < LANES; j++)
			lanes[j] += (double)v[i + j] * (double)v[i + j];
	}
	for (size_t j = 0; i + j < dim; j++)
		lanes[j] += (double)v[i + j] * (double)v[i + j];
	for (size_t j = 0; j < LANES; j++)
		sum += lanes[j];
	return sum;
}

float kx_learn_normalize(float *v, size_t dim)
{
	double length = sqrt(sum_of_squares(v, dim));

	if (length == 0.0)
		return 0.0f;
	for (size_t i = 0; i < dim; i++)
		v[i] = (float)((double)v[i] / length);
	return (float)length;
}

void kx_learn_power_normalize(float *v, size_t dim)
{
	for (size_t i = 0; i < dim; i++)
		v[i] = copysignf(sqrtf(fabsf(v[i])), v[i]);
	(void)kx_learn_normalize(v, dim);
}

kx_status kx_learn_pool(const uint8_t *codes, const float *lo, const float *step, size_t count, size_t dim,
			float *out)
{
	float *row = malloc(dim > 0 ? dim * sizeof(*row) : 1);

	if (row == NULL)
		return KX_ENOMEM;
	for (size_t i = 0; i < dim; i++)
		out[i] = 0.0f;
	for (size_t i = 0; i < count; i++) {
		kx_learn_dequantize(codes + i * dim, dim, lo[i], step[i], row);
		kx_learn_power_normalize(row, dim);
		kx_learn_accumulate(out, row, dim, 1.0f);
	}
	/* The mean's direction is the sum's. */
	(void)kx_learn_normalize(out, dim);
	free(row);
	return KX_OK;
}

kx_status kx_learn_embed_moment(const uint8_t *codes, const float *lo, const float *step, size_t count, size_t dim,
				int8_t *embedding, float *ret_scale)
{
	float *pooled = malloc(dim > 0 ? dim * sizeof(*pooled) : 1);
	kx_status status = pooled != NULL ? kx_learn_pool(codes, lo, step, count, dim, pooled) : KX_ENOMEM;

	if (status == KX_OK)
		kx_learn_quantize_i8(pooled, dim, embedding, ret_scale);
	free(pooled);
	return status;
}

void kx_learn_accumulate(float *acc, const float *v, size_t dim, float weight)
{
	for (size_t i = 0; i < dim; i++)
		acc[i] += weight * v[i];
}

void kx_learn_softmax(const float *logits, size_t n, float *out)
{
	float most = -INFINITY;
	double sum = 0.0;

	for (size_t i = 0; i < n; i++)
		most = logits[i] > most ? logits[i] : most;
	for (size_t i = 0; i < n; i++) {
		out[i] = expf(logits[i] - most);
		sum += (double)out[i];
	}
	for (size_t i = 0; i < n; i++)
		out[i] = (float)((double)out[i] / sum);
}

void kx_learn_sigmoid(const float *logits, size_t n, float *out)
{
	for (size_t i = 0; i < n; i++) {
		float e = expf(-fabsf(logits[i])); /* never overflows */

		out[i] = logits[i] >= 0.0f ? 1.0f / (1.0f + e) : e / (1.0f + e);
	}
}

/* OpenBLAS counts in int, and wants a leading dimension of at least 1. */
static blasint blas_size(size_t n)
{
	assert(n <= INT_MAX);
	return (blasint)n;
}

float kx_learn_dot(const float *a, const float *b, size_t dim)
{
	return cblas_sdot(blas_size(dim), a, 1, b, 1);
}

void kx_learn_gemv(const float *m, size_t rows, size_t dim, const float *v, float *out)
{
	if (dim == 0 && rows > 0)
		memset(out, 0, rows * sizeof(*out));
	if (dim == 0 || rows == 0)
		return;
	cblas_sgemv(CblasRowMajor, CblasNoTrans, blas_size(rows), blas_size(dim), 1.0f, m, blas_size(dim), v, 1,
		    0.0f, out, 1);
}

void kx_learn_gemm_nt(const float *a, size_t rows_a, const float *b, size_t rows_b, size_t dim, float *out)
{
	if (rows_a == 0 || rows_b == 0)
		return;
	if (dim == 0) {
		memset(out, 0, rows_a * rows_b * sizeof(*out));
		return;
	}
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, blas_size(rows_a), blas_size(rows_b), blas_size(dim),
		    1.0f, a, blas_size(dim), b, blas_size(dim), 0.0f, out, blas_size(rows_b));
}
