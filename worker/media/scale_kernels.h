/* The loops of the scaler, once in plain C and once for each kind of SIMD; all of them give the same bytes, because
 * all of it is integers. Layer: worker/media.
 *
 * Between the steps a sample has 15 bits, whatever its depth was: an 8-bit one is stored x 128, a 10-bit one x 32. */
#ifndef KX_MEDIA_SCALE_KERNELS_H
#define KX_MEDIA_SCALE_KERNELS_H

#include <stdint.h>

#include "worker/media/scale_axis.h"

#define KX_SAMPLE_BITS 15
#define KX_SAMPLE_MAX ((1 << KX_SAMPLE_BITS) - 1)

/* Taps come in multiples of this: for rows, and for columns of an axis that needs so many. Columns have 4, 8, or a
 * multiple of 16. */
#define KX_ROW_TAPS 2u
#define KX_COLUMN_TAPS 16u
static inline unsigned kx_column_taps(unsigned needed)
{
	return needed <= 4 ? 4 : needed <= 8 ? 8 : KX_COLUMN_TAPS;
}

/* Three components to R, G, B: out = clip8((c . components + bias) >> KX_MATRIX_SHIFT). Coefficients have 13
 * fractional bits and are below 2.5 (times 2^13); the bias holds the components' zero points and the rounding. */
#define KX_MATRIX_BITS 13
#define KX_MATRIX_SHIFT (KX_MATRIX_BITS + KX_SAMPLE_BITS - 8)
struct kx_matrix {
	int16_t c[3][3];
	int32_t bias[3];
};

struct kx_scale_kernels {
	const char *name;
	/* out[x] = min((sum over t of weights[t] * rows[t][x] + half) >> shift, KX_SAMPLE_MAX) for x < width. `count`
	 * is even, the weights are of an axis (>= 0, of sum 2^14). Reads rows[t][0 .. width-1] and nothing else.
	 * rows16: samples of 16 bits in the machine's byte order, at any address. */
	void (*rows8)(const uint8_t *const *rows, const int16_t *weights, unsigned count, unsigned width,
		      unsigned shift, int16_t *out);
	void (*rows16)(const uint8_t *const *rows, const int16_t *weights, unsigned count, unsigned width,
		       unsigned shift, int16_t *out);
	/* out[k] = the axis' output k of in[], where taps that weigh 0 are read as well. */
	void (*columns)(const int16_t *in, const struct kx_axis *axis, int16_t *out);
	/* out[x] = in[x * step] for x < count; reads nothing past the last of them. */
	void (*apart)(const int16_t *in, unsigned step, unsigned count, int16_t *out);
	/* Writes 3 * width bytes. */
	void (*matrix)(const int16_t *const in[3], unsigned width, const struct kx_matrix *matrix, uint8_t *rgb);
};

extern const struct kx_scale_kernels kx_scale_c;
/* NULL where this CPU, or this build, has none. */
const struct kx_scale_kernels *kx_scale_avx2(void);
const struct kx_scale_kernels *kx_scale_avx512(void);
const struct kx_scale_kernels *kx_scale_neon(void);

/* The fastest that this CPU has. */
const struct kx_scale_kernels *kx_scale_best(void);

#endif
