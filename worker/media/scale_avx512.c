/* AVX-512 (F and BW): only the rows, which are most of the work; the outputs of a row are too few to gain by it. */
#include "worker/media/scale_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw")))

#define ROWS8 64u
#define ROWS16 32u

TARGET static inline __m512i pair(const int16_t *weights)
{
	int32_t both;
	memcpy(&both, weights, sizeof(both));
	return _mm512_set1_epi32(both);
}

TARGET static inline __m512i madd_to(__m512i sum, __m512i samples, __m512i weights)
{
	return _mm512_add_epi32(sum, _mm512_madd_epi16(samples, weights));
}

TARGET static void block8(const uint8_t *const *rows, const int16_t *weights, unsigned count, size_t at, unsigned shift,
			  int16_t *out)
{
	const __m512i zero = _mm512_setzero_si512();
	const __m128i by = _mm_cvtsi32_si128((int)shift);
	/* Quarters of columns, as the two packs below leave them, in 64-bit parts. */
	const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
	const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
	__m512i sum0 = _mm512_set1_epi32(1 << (shift - 1));
	__m512i sum1 = sum0;
	__m512i sum2 = sum0;
	__m512i sum3 = sum0;
	for (unsigned t = 0; t < count; t += 2) {
		__m512i a = _mm512_loadu_si512(rows[t] + at);
		__m512i b = _mm512_loadu_si512(rows[t + 1] + at);
		__m512i w = pair(weights + t);
		__m512i low = _mm512_unpacklo_epi8(a, b);
		__m512i high = _mm512_unpackhi_epi8(a, b);
		sum0 = madd_to(sum0, _mm512_unpacklo_epi8(low, zero), w);
		sum1 = madd_to(sum1, _mm512_unpackhi_epi8(low, zero), w);
		sum2 = madd_to(sum2, _mm512_unpacklo_epi8(high, zero), w);
		sum3 = madd_to(sum3, _mm512_unpackhi_epi8(high, zero), w);
	}
	__m512i even = _mm512_packs_epi32(_mm512_sra_epi32(sum0, by), _mm512_sra_epi32(sum1, by));
	__m512i odd = _mm512_packs_epi32(_mm512_sra_epi32(sum2, by), _mm512_sra_epi32(sum3, by));
	_mm512_storeu_si512(out + at, _mm512_permutex2var_epi64(even, first, odd));
	_mm512_storeu_si512(out + at + 32, _mm512_permutex2var_epi64(even, second, odd));
}

TARGET static void rows8(const uint8_t *const *rows, const int16_t *weights, unsigned count, unsigned width,
			 unsigned shift, int16_t *out)
{
	if (width < ROWS8) {
		kx_scale_avx2()->rows8(rows, weights, count, width, shift, out);
		return;
	}
	/* The last block ends with the row, and does again some of the one before. */
	for (unsigned at = 0; at < width; at += ROWS8)
		block8(rows, weights, count, at + ROWS8 > width ? width - ROWS8 : at, shift, out);
}

/* As in AVX2: 2^15 off the samples is 2^29 off the sum. */
TARGET static void block16(const uint8_t *const *rows, const int16_t *weights, unsigned count, size_t at,
			   unsigned shift, int16_t *out)
{
	const __m512i sign = _mm512_set1_epi16(INT16_MIN);
	const __m128i by = _mm_cvtsi32_si128((int)shift);
	__m512i sum0 = _mm512_set1_epi32((1 << (KX_AXIS_BITS + 15)) + (1 << (shift - 1)));
	__m512i sum1 = sum0;
	for (unsigned t = 0; t < count; t += 2) {
		__m512i a = _mm512_xor_si512(_mm512_loadu_si512(rows[t] + at * 2), sign);
		__m512i b = _mm512_xor_si512(_mm512_loadu_si512(rows[t + 1] + at * 2), sign);
		__m512i w = pair(weights + t);
		sum0 = madd_to(sum0, _mm512_unpacklo_epi16(a, b), w);
		sum1 = madd_to(sum1, _mm512_unpackhi_epi16(a, b), w);
	}
	_mm512_storeu_si512(out + at, _mm512_packs_epi32(_mm512_sra_epi32(sum0, by), _mm512_sra_epi32(sum1, by)));
}

TARGET static void rows16(const uint8_t *const *rows, const int16_t *weights, unsigned count, unsigned width,
			  unsigned shift, int16_t *out)
{
	if (width < ROWS16) {
		kx_scale_avx2()->rows16(rows, weights, count, width, shift, out);
		return;
	}
	for (unsigned at = 0; at < width; at += ROWS16)
		block16(rows, weights, count, at + ROWS16 > width ? width - ROWS16 : at, shift, out);
}

static void columns(const int16_t *in, const struct kx_axis *axis, int16_t *out)
{
	kx_scale_avx2()->columns(in, axis, out);
}

static void matrix(const int16_t *const in[3], unsigned width, const struct kx_matrix *m, uint8_t *rgb)
{
	kx_scale_avx2()->matrix(in, width, m, rgb);
}

static const struct kx_scale_kernels kernels = {"avx512", rows8, rows16, columns, matrix};

const struct kx_scale_kernels *kx_scale_avx512(void)
{
	bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		   __builtin_cpu_supports("avx2");
	return has ? &kernels : NULL;
}

#else

const struct kx_scale_kernels *kx_scale_avx512(void)
{
	return NULL;
}

#endif
