/* The reference that all SIMD must equal. It is also what SIMD code calls for what is too narrow for it. */
#include <string.h>

#include "worker/media/scale_kernels.h"

#define BLOCK 256u

static int16_t narrow(int32_t sum, unsigned shift)
{
	int32_t value = (sum + (1 << (shift - 1))) >> shift;
	return (int16_t)(value > KX_SAMPLE_MAX ? KX_SAMPLE_MAX : value);
}

static void rows8(const uint8_t *const *rows, const int16_t *weights, unsigned count, unsigned width, unsigned shift,
		  int16_t *out)
{
	for (unsigned from = 0; from < width; from += BLOCK) {
		int32_t sums[BLOCK] = {0};
		unsigned len = width - from < BLOCK ? width - from : BLOCK;
		for (unsigned t = 0; t < count; t += 2) {
			const uint8_t *a = rows[t] + from;
			const uint8_t *b = rows[t + 1] + from;
			for (unsigned x = 0; x < len; x++)
				sums[x] += weights[t] * a[x] + weights[t + 1] * b[x];
		}
		for (unsigned x = 0; x < len; x++)
			out[from + x] = narrow(sums[x], shift);
	}
}

static void rows16(const uint8_t *const *rows, const int16_t *weights, unsigned count, unsigned width, unsigned shift,
		   int16_t *out)
{
	for (unsigned from = 0; from < width; from += BLOCK) {
		int32_t sums[BLOCK] = {0};
		unsigned len = width - from < BLOCK ? width - from : BLOCK;
		for (unsigned t = 0; t < count; t += 2) {
			uint16_t a[BLOCK];
			uint16_t b[BLOCK];
			memcpy(a, rows[t] + (size_t)from * 2, (size_t)len * 2);
			memcpy(b, rows[t + 1] + (size_t)from * 2, (size_t)len * 2);
			for (unsigned x = 0; x < len; x++)
				sums[x] += weights[t] * a[x] + weights[t + 1] * b[x];
		}
		for (unsigned x = 0; x < len; x++)
			out[from + x] = narrow(sums[x], shift);
	}
}

static void columns(const int16_t *in, const struct kx_axis *axis, int16_t *out)
{
	const int16_t *weights = axis->weights;
	for (unsigned k = 0; k < axis->count; k++) {
		const int16_t *from = in + axis->first[k];
		int32_t sum = 1 << (KX_AXIS_BITS - 1);
		for (unsigned t = 0; t < axis->taps; t++)
			sum += weights[t] * from[t];
		out[k] = (int16_t)(sum >> KX_AXIS_BITS);
		weights += axis->taps;
	}
}

static void apart(const int16_t *in, unsigned step, unsigned count, int16_t *out)
{
	for (unsigned x = 0; x < count; x++)
		out[x] = in[(size_t)x * step];
}

static void matrix(const int16_t *const in[3], unsigned width, const struct kx_matrix *m, uint8_t *rgb)
{
	for (unsigned x = 0; x < width; x++) {
		for (unsigned i = 0; i < 3; i++) {
			int32_t sum = m->c[i][0] * in[0][x] + m->c[i][1] * in[1][x] + m->c[i][2] * in[2][x] + m->bias[i];
			int32_t value = sum >> KX_MATRIX_SHIFT;
			*rgb++ = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
		}
	}
}

const struct kx_scale_kernels kx_scale_c = {"c", rows8, rows16, columns, apart, matrix};

const struct kx_scale_kernels *kx_scale_best(void)
{
	const struct kx_scale_kernels *const all[] = {kx_scale_avx512(), kx_scale_avx2(), kx_scale_neon()};
	for (unsigned i = 0; i < KX_ARRAY_LEN(all); i++) {
		if (all[i])
			return all[i];
	}
	return &kx_scale_c;
}
