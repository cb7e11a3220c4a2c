/* AVX2. Interleaving two rows and packing the sums again both work on 128-bit lanes and undo each other. */
#include "worker/media/scale_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2")))

#define ROWS8 32u
#define ROWS16 16u
#define COLUMNS 8u
#define PIXELS 16u

TARGET static inline __m256i load(const void *from)
{
	return _mm256_loadu_si256(from);
}

/* Two neighbouring weights in each 32 bits. */
TARGET static inline __m256i pair(const int16_t *weights)
{
	int32_t both;
	memcpy(&both, weights, sizeof(both));
	return _mm256_set1_epi32(both);
}

TARGET static inline __m256i madd_to(__m256i sum, __m256i samples, __m256i weights)
{
	return _mm256_add_epi32(sum, _mm256_madd_epi16(samples, weights));
}

TARGET static void block8(const uint8_t *const *rows, const int16_t *weights, unsigned count, size_t at, unsigned shift,
			  int16_t *out)
{
	const __m256i zero = _mm256_setzero_si256();
	const __m128i by = _mm_cvtsi32_si128((int)shift);
	__m256i sum0 = _mm256_set1_epi32(1 << (shift - 1));
	__m256i sum1 = sum0;
	__m256i sum2 = sum0;
	__m256i sum3 = sum0;
	for (unsigned t = 0; t < count; t += 2) {
		__m256i a = load(rows[t] + at);
		__m256i b = load(rows[t + 1] + at);
		__m256i w = pair(weights + t);
		__m256i low = _mm256_unpacklo_epi8(a, b);
		__m256i high = _mm256_unpackhi_epi8(a, b);
		sum0 = madd_to(sum0, _mm256_unpacklo_epi8(low, zero), w);
		sum1 = madd_to(sum1, _mm256_unpackhi_epi8(low, zero), w);
		sum2 = madd_to(sum2, _mm256_unpacklo_epi8(high, zero), w);
		sum3 = madd_to(sum3, _mm256_unpackhi_epi8(high, zero), w);
	}
	__m256i even = _mm256_packs_epi32(_mm256_sra_epi32(sum0, by), _mm256_sra_epi32(sum1, by));
	__m256i odd = _mm256_packs_epi32(_mm256_sra_epi32(sum2, by), _mm256_sra_epi32(sum3, by));
	_mm256_storeu_si256((void *)(out + at), _mm256_permute2x128_si256(even, odd, 0x20));
	_mm256_storeu_si256((void *)(out + at + 16), _mm256_permute2x128_si256(even, odd, 0x31));
}

TARGET static void rows8(const uint8_t *const *rows, const int16_t *weights, unsigned count, unsigned width,
			 unsigned shift, int16_t *out)
{
	if (width < ROWS8) {
		kx_scale_c.rows8(rows, weights, count, width, shift, out);
		return;
	}
	/* The last block ends with the row, and does again some of the one before. */
	for (unsigned at = 0; at < width; at += ROWS8)
		block8(rows, weights, count, at + ROWS8 > width ? width - ROWS8 : at, shift, out);
}

/* Samples become signed by taking off 2^15, which the weights' sum turns into 2^29. */
TARGET static void block16(const uint8_t *const *rows, const int16_t *weights, unsigned count, size_t at,
			   unsigned shift, int16_t *out)
{
	const __m256i sign = _mm256_set1_epi16(INT16_MIN);
	const __m128i by = _mm_cvtsi32_si128((int)shift);
	__m256i sum0 = _mm256_set1_epi32((1 << (KX_AXIS_BITS + 15)) + (1 << (shift - 1)));
	__m256i sum1 = sum0;
	for (unsigned t = 0; t < count; t += 2) {
		__m256i a = _mm256_xor_si256(load(rows[t] + at * 2), sign);
		__m256i b = _mm256_xor_si256(load(rows[t + 1] + at * 2), sign);
		__m256i w = pair(weights + t);
		sum0 = madd_to(sum0, _mm256_unpacklo_epi16(a, b), w);
		sum1 = madd_to(sum1, _mm256_unpackhi_epi16(a, b), w);
	}
	_mm256_storeu_si256((void *)(out + at),
			    _mm256_packs_epi32(_mm256_sra_epi32(sum0, by), _mm256_sra_epi32(sum1, by)));
}

TARGET static void rows16(const uint8_t *const *rows, const int16_t *weights, unsigned count, unsigned width,
			  unsigned shift, int16_t *out)
{
	if (width < ROWS16) {
		kx_scale_c.rows16(rows, weights, count, width, shift, out);
		return;
	}
	for (unsigned at = 0; at < width; at += ROWS16)
		block16(rows, weights, count, at + ROWS16 > width ? width - ROWS16 : at, shift, out);
}

TARGET static inline __m256i two_lanes(const int16_t *low, const int16_t *high)
{
	return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const void *)low)),
				       _mm_loadu_si128((const void *)high), 1);
}

/* Outputs k, k + 1, k + 4 and k + 5, of 4 taps each. */
TARGET static inline __m256i four_of_4(const int16_t *in, const uint32_t *first, const int16_t *weights)
{
	__m128i low = _mm_unpacklo_epi64(_mm_loadl_epi64((const void *)(in + first[0])),
					 _mm_loadl_epi64((const void *)(in + first[1])));
	__m128i high = _mm_unpacklo_epi64(_mm_loadl_epi64((const void *)(in + first[4])),
					  _mm_loadl_epi64((const void *)(in + first[5])));
	return _mm256_madd_epi16(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1),
				 two_lanes(weights, weights + 4 * 4));
}

/* Outputs k and k + 4, of 8 taps each. */
TARGET static inline __m256i two_of_8(const int16_t *in, const uint32_t *first, const int16_t *weights)
{
	return _mm256_madd_epi16(two_lanes(in + first[0], in + first[4]), two_lanes(weights, weights + 4 * 8));
}

TARGET static inline __m256i one_of_many(const int16_t *in, const int16_t *weights, unsigned taps)
{
	__m256i sum = _mm256_madd_epi16(load(in), load(weights));
	for (unsigned t = KX_COLUMN_TAPS; t < taps; t += KX_COLUMN_TAPS)
		sum = madd_to(sum, load(in + t), load(weights + t));
	return sum;
}

/* Four outputs, each as two halves in the two lanes. */
TARGET static inline __m256i four_of_many(const int16_t *in, const uint32_t *first, const int16_t *weights,
					  unsigned taps)
{
	__m256i v0 = one_of_many(in + first[0], weights, taps);
	__m256i v1 = one_of_many(in + first[1], weights + (size_t)taps, taps);
	__m256i v2 = one_of_many(in + first[2], weights + (size_t)taps * 2, taps);
	__m256i v3 = one_of_many(in + first[3], weights + (size_t)taps * 3, taps);
	return _mm256_hadd_epi32(_mm256_hadd_epi32(v0, v1), _mm256_hadd_epi32(v2, v3));
}

TARGET static void block_columns(const int16_t *in, const struct kx_axis *axis, unsigned k, int16_t *out)
{
	const uint32_t *first = axis->first + k;
	const int16_t *weights = axis->weights + (size_t)k * axis->taps;
	__m256i sum;
	if (axis->taps == 4) {
		sum = _mm256_hadd_epi32(four_of_4(in, first, weights), four_of_4(in, first + 2, weights + 2 * 4));
	} else if (axis->taps == 8) {
		__m256i v0 = two_of_8(in, first, weights);
		__m256i v1 = two_of_8(in, first + 1, weights + 8);
		__m256i v2 = two_of_8(in, first + 2, weights + 16);
		__m256i v3 = two_of_8(in, first + 3, weights + 24);
		sum = _mm256_hadd_epi32(_mm256_hadd_epi32(v0, v1), _mm256_hadd_epi32(v2, v3));
	} else {
		__m256i a = four_of_many(in, first, weights, axis->taps);
		__m256i b = four_of_many(in, first + 4, weights + (size_t)axis->taps * 4, axis->taps);
		sum = _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
	}
	sum = _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(1 << (KX_AXIS_BITS - 1))), KX_AXIS_BITS);
	_mm_storeu_si128((void *)(out + k),
			 _mm_packs_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1)));
}

TARGET static void columns(const int16_t *in, const struct kx_axis *axis, int16_t *out)
{
	if (axis->count < COLUMNS) {
		kx_scale_c.columns(in, axis, out);
		return;
	}
	for (unsigned k = 0; k < axis->count; k += COLUMNS)
		block_columns(in, axis, k + COLUMNS > axis->count ? axis->count - COLUMNS : k, out);
}

static void apart(const int16_t *in, unsigned step, unsigned count, int16_t *out)
{
	kx_scale_c.apart(in, step, count, out);
}

/* One of R, G, B for 16 pixels, as bytes in order. low and high: unpacked (0, 2) components and (1, nothing). */
TARGET static inline __m128i colour(const __m256i in[4], const struct kx_matrix *m, unsigned i)
{
	const __m256i c02 = _mm256_set1_epi32((int)((uint16_t)m->c[i][0] | (uint32_t)m->c[i][2] << 16));
	const __m256i c1 = _mm256_set1_epi32((uint16_t)m->c[i][1]);
	const __m256i bias = _mm256_set1_epi32(m->bias[i]);
	__m256i low = madd_to(madd_to(bias, in[0], c02), in[2], c1);
	__m256i high = madd_to(madd_to(bias, in[1], c02), in[3], c1);
	__m256i words = _mm256_packs_epi32(_mm256_srai_epi32(low, KX_MATRIX_SHIFT),
					   _mm256_srai_epi32(high, KX_MATRIX_SHIFT));
	return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

/* What goes where when three rows of 16 bytes become 16 triples; 128: nothing. */
#define NO ((char)-128)
TARGET static inline void store_rgb(__m128i r, __m128i g, __m128i b, uint8_t *rgb)
{
	const __m128i r0 = _mm_setr_epi8(0, NO, NO, 1, NO, NO, 2, NO, NO, 3, NO, NO, 4, NO, NO, 5);
	const __m128i g0 = _mm_setr_epi8(NO, 0, NO, NO, 1, NO, NO, 2, NO, NO, 3, NO, NO, 4, NO, NO);
	const __m128i b0 = _mm_setr_epi8(NO, NO, 0, NO, NO, 1, NO, NO, 2, NO, NO, 3, NO, NO, 4, NO);
	const __m128i r1 = _mm_setr_epi8(NO, NO, 6, NO, NO, 7, NO, NO, 8, NO, NO, 9, NO, NO, 10, NO);
	const __m128i g1 = _mm_setr_epi8(5, NO, NO, 6, NO, NO, 7, NO, NO, 8, NO, NO, 9, NO, NO, 10);
	const __m128i b1 = _mm_setr_epi8(NO, 5, NO, NO, 6, NO, NO, 7, NO, NO, 8, NO, NO, 9, NO, NO);
	const __m128i r2 = _mm_setr_epi8(NO, 11, NO, NO, 12, NO, NO, 13, NO, NO, 14, NO, NO, 15, NO, NO);
	const __m128i g2 = _mm_setr_epi8(NO, NO, 11, NO, NO, 12, NO, NO, 13, NO, NO, 14, NO, NO, 15, NO);
	const __m128i b2 = _mm_setr_epi8(10, NO, NO, 11, NO, NO, 12, NO, NO, 13, NO, NO, 14, NO, NO, 15);
	const __m128i *masks[3][3] = {{&r0, &g0, &b0}, {&r1, &g1, &b1}, {&r2, &g2, &b2}};
	for (unsigned i = 0; i < 3; i++) {
		__m128i bytes = _mm_or_si128(_mm_shuffle_epi8(r, *masks[i][0]), _mm_shuffle_epi8(g, *masks[i][1]));
		bytes = _mm_or_si128(bytes, _mm_shuffle_epi8(b, *masks[i][2]));
		_mm_storeu_si128((void *)(rgb + 16 * i), bytes);
	}
}

TARGET static void matrix(const int16_t *const in[3], unsigned width, const struct kx_matrix *m, uint8_t *rgb)
{
	const __m256i zero = _mm256_setzero_si256();
	if (width < PIXELS) {
		kx_scale_c.matrix(in, width, m, rgb);
		return;
	}
	for (unsigned x = 0; x < width; x += PIXELS) {
		unsigned at = x + PIXELS > width ? width - PIXELS : x;
		__m256i a = load(in[0] + at);
		__m256i b = load(in[1] + at);
		__m256i c = load(in[2] + at);
		const __m256i unpacked[4] = {
			_mm256_unpacklo_epi16(a, c),
			_mm256_unpackhi_epi16(a, c),
			_mm256_unpacklo_epi16(b, zero),
			_mm256_unpackhi_epi16(b, zero),
		};
		store_rgb(colour(unpacked, m, 0), colour(unpacked, m, 1), colour(unpacked, m, 2),
			  rgb + (size_t)at * 3);
	}
}

static const struct kx_scale_kernels kernels = {"avx2", rows8, rows16, columns, apart, matrix};

const struct kx_scale_kernels *kx_scale_avx2(void)
{
	return __builtin_cpu_supports("avx2") ? &kernels : NULL;
}

#else

const struct kx_scale_kernels *kx_scale_avx2(void)
{
	return NULL;
}

#endif
