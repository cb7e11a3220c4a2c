/* NEON, which every 64-bit ARM has. */
#include "worker/media/scale_kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define ROWS8 16u
#define ROWS16 8u
#define PIXELS 8u

static void block8(const uint8_t *const *rows, const int16_t *weights, unsigned count, size_t at, unsigned shift,
		   int16_t *out)
{
	const int32x4_t by = vdupq_n_s32(-(int32_t)shift);
	int32x4_t sums[4];
	for (unsigned i = 0; i < 4; i++)
		sums[i] = vdupq_n_s32(1 << (shift - 1));
	for (unsigned t = 0; t < count; t++) {
		uint8x16_t row = vld1q_u8(rows[t] + at);
		int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(row)));
		int16x8_t high = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(row)));
		sums[0] = vmlal_n_s16(sums[0], vget_low_s16(low), weights[t]);
		sums[1] = vmlal_n_s16(sums[1], vget_high_s16(low), weights[t]);
		sums[2] = vmlal_n_s16(sums[2], vget_low_s16(high), weights[t]);
		sums[3] = vmlal_n_s16(sums[3], vget_high_s16(high), weights[t]);
	}
	for (unsigned i = 0; i < 4; i++)
		vst1_s16(out + at + (size_t)i * 4, vqmovn_s32(vshlq_s32(sums[i], by)));
}

static void rows8(const uint8_t *const *rows, const int16_t *weights, unsigned count, unsigned width, unsigned shift,
		  int16_t *out)
{
	if (width < ROWS8) {
		kx_scale_c.rows8(rows, weights, count, width, shift, out);
		return;
	}
	/* The last block ends with the row, and does again some of the one before. */
	for (unsigned at = 0; at < width; at += ROWS8)
		block8(rows, weights, count, at + ROWS8 > width ? width - ROWS8 : at, shift, out);
}

static void block16(const uint8_t *const *rows, const int16_t *weights, unsigned count, size_t at, unsigned shift,
		    int16_t *out)
{
	const int32x4_t by = vdupq_n_s32(-(int32_t)shift);
	uint32x4_t low = vdupq_n_u32(1u << (shift - 1));
	uint32x4_t high = low;
	for (unsigned t = 0; t < count; t++) {
		/* Bytes, as a row may begin at an odd address. */
		uint16x8_t row = vreinterpretq_u16_u8(vld1q_u8(rows[t] + at * 2));
		low = vmlal_n_u16(low, vget_low_u16(row), (uint16_t)weights[t]);
		high = vmlal_n_u16(high, vget_high_u16(row), (uint16_t)weights[t]);
	}
	vst1_s16(out + at, vqmovn_s32(vshlq_s32(vreinterpretq_s32_u32(low), by)));
	vst1_s16(out + at + 4, vqmovn_s32(vshlq_s32(vreinterpretq_s32_u32(high), by)));
}

static void rows16(const uint8_t *const *rows, const int16_t *weights, unsigned count, unsigned width, unsigned shift,
		   int16_t *out)
{
	if (width < ROWS16) {
		kx_scale_c.rows16(rows, weights, count, width, shift, out);
		return;
	}
	for (unsigned at = 0; at < width; at += ROWS16)
		block16(rows, weights, count, at + ROWS16 > width ? width - ROWS16 : at, shift, out);
}

static void columns(const int16_t *in, const struct kx_axis *axis, int16_t *out)
{
	const int16_t *weights = axis->weights;
	for (unsigned k = 0; k < axis->count; k++) {
		const int16_t *from = in + axis->first[k];
		int32x4_t sum = vdupq_n_s32(0);
		for (unsigned t = 0; t < axis->taps; t += 4)
			sum = vmlal_s16(sum, vld1_s16(from + t), vld1_s16(weights + t));
		out[k] = (int16_t)((vaddvq_s32(sum) + (1 << (KX_AXIS_BITS - 1))) >> KX_AXIS_BITS);
		weights += axis->taps;
	}
}

static uint8x8_t colour(int16x8_t a, int16x8_t b, int16x8_t c, const struct kx_matrix *m, unsigned i)
{
	int32x4_t low = vdupq_n_s32(m->bias[i]);
	int32x4_t high = low;
	low = vmlal_n_s16(low, vget_low_s16(a), m->c[i][0]);
	high = vmlal_n_s16(high, vget_high_s16(a), m->c[i][0]);
	low = vmlal_n_s16(low, vget_low_s16(b), m->c[i][1]);
	high = vmlal_n_s16(high, vget_high_s16(b), m->c[i][1]);
	low = vmlal_n_s16(low, vget_low_s16(c), m->c[i][2]);
	high = vmlal_n_s16(high, vget_high_s16(c), m->c[i][2]);
	return vqmovun_s16(vcombine_s16(vqmovn_s32(vshrq_n_s32(low, KX_MATRIX_SHIFT)),
					vqmovn_s32(vshrq_n_s32(high, KX_MATRIX_SHIFT))));
}

static void matrix(const int16_t *const in[3], unsigned width, const struct kx_matrix *m, uint8_t *rgb)
{
	if (width < PIXELS) {
		kx_scale_c.matrix(in, width, m, rgb);
		return;
	}
	for (unsigned x = 0; x < width; x += PIXELS) {
		unsigned at = x + PIXELS > width ? width - PIXELS : x;
		int16x8_t a = vld1q_s16(in[0] + at);
		int16x8_t b = vld1q_s16(in[1] + at);
		int16x8_t c = vld1q_s16(in[2] + at);
		uint8x8x3_t out = {{colour(a, b, c, m, 0), colour(a, b, c, m, 1), colour(a, b, c, m, 2)}};
		vst3_u8(rgb + (size_t)at * 3, out);
	}
}

static void apart(const int16_t *in, unsigned step, unsigned count, int16_t *out)
{
	kx_scale_c.apart(in, step, count, out);
}

static const struct kx_scale_kernels kernels = {"neon", rows8, rows16, columns, apart, matrix};

const struct kx_scale_kernels *kx_scale_neon(void)
{
	return &kernels;
}

#else

const struct kx_scale_kernels *kx_scale_neon(void)
{
	return NULL;
}

#endif
