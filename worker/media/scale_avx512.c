/* AVX-512 (F and BW): rows, columns whose taps come in groups, and taking components apart. The matrix has too few
 * pixels a row to gain by it. */
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

/* The `count` first of 32 samples. */
TARGET static inline __mmask32 first_of(size_t count)
{
	return count >= 32 ? UINT32_MAX : (__mmask32)((UINT32_C(1) << count) - 1);
}

/* wide: the samples fill two registers. */
TARGET static inline void group_columns(const int16_t *in, const struct kx_axis_group *group, unsigned pairs, bool wide,
					int16_t *out)
{
	const int16_t *from = in + group->first;
	__m512i low = _mm512_maskz_loadu_epi16(first_of(group->span), from);
	__m512i high = wide && group->span > 32 ? _mm512_maskz_loadu_epi16(first_of(group->span - 32), from + 32) : low;
	__m512i sum = _mm512_set1_epi32(1 << (KX_AXIS_BITS - 1));
	for (unsigned p = 0; p < pairs; p++) {
		__m512i pick = _mm512_loadu_si512(group->pick[p]);
		__m512i taps = wide ? _mm512_permutex2var_epi16(low, pick, high) : _mm512_permutexvar_epi16(pick, low);
		sum = madd_to(sum, taps, _mm512_loadu_si512(group->weights[p]));
	}
	_mm256_storeu_si256((void *)(out + group->at), _mm512_cvtsepi32_epi16(_mm512_srai_epi32(sum, KX_AXIS_BITS)));
}

TARGET static void columns(const int16_t *in, const struct kx_axis *axis, int16_t *out)
{
	const struct kx_axis_group *end = axis->groups + (axis->groups ? kx_axis_groups(axis) : 0);
	if (!axis->groups) {
		kx_scale_avx2()->columns(in, axis, out);
		return;
	}
	if (axis->taps == 4 && axis->span <= 32) {
		for (const struct kx_axis_group *group = axis->groups; group < end; group++)
			group_columns(in, group, 2, false, out);
	} else {
		for (const struct kx_axis_group *group = axis->groups; group < end; group++)
			group_columns(in, group, axis->taps / 2, true, out);
	}
}

/* 32 samples from `at` on, zeros past `end`. */
TARGET static inline __m512i load_until(const int16_t *in, size_t at, size_t end)
{
	return at < end ? _mm512_maskz_loadu_epi16(first_of(end - at), in + at) : _mm512_setzero_si512();
}

/* 32 outputs lie in 32 x step samples: those of the first two registers are picked, then one register's more at a time. */
TARGET static inline void apart_by(const int16_t *in, unsigned step, unsigned count, int16_t *out)
{
	static const uint16_t order[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
					   16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
	const __m512i place = _mm512_loadu_si512(order);
	const __m512i at = _mm512_mullo_epi16(place, _mm512_set1_epi16((short)step));
	const size_t end = (size_t)(count - 1) * step + 1;
	for (unsigned x = 0; x < count; x += 32) {
		size_t from = (size_t)x * step;
		__m512i picked = _mm512_permutex2var_epi16(load_until(in, from, end), at, load_until(in, from + 32, end));
		for (unsigned r = 2; r < step; r++) {
			const __m512i start = _mm512_set1_epi16((short)(r * 32));
			__mmask32 here = _mm512_cmpge_epu16_mask(at, start);
			/* Those of this register follow the 32 that are picked already. */
			__m512i index = _mm512_mask_sub_epi16(place, here, at, _mm512_set1_epi16((short)(r * 32 - 32)));
			picked = _mm512_permutex2var_epi16(picked, index, load_until(in, from + (size_t)r * 32, end));
		}
		_mm512_mask_storeu_epi16(out + x, first_of(count - x), picked);
	}
}

TARGET static void apart(const int16_t *in, unsigned step, unsigned count, int16_t *out)
{
	if (step == 2)
		apart_by(in, 2, count, out);
	else if (step == 3)
		apart_by(in, 3, count, out);
	else if (step == 4)
		apart_by(in, 4, count, out);
	else
		kx_scale_c.apart(in, step, count, out);
}

static void matrix(const int16_t *const in[3], unsigned width, const struct kx_matrix *m, uint8_t *rgb)
{
	kx_scale_avx2()->matrix(in, width, m, rgb);
}

static const struct kx_scale_kernels kernels = {"avx512", rows8, rows16, columns, apart, matrix};

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
