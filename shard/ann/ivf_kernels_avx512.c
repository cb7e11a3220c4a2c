/* AVX-512 with VBMI and VNNI. Four tables of a code's nibbles fill one register, in which a byte looks up 16 entries of
 * one of them; four such bytes of a vector are then summed into its 32 bits. */
#include "shard/ann/ivf_kernels_avx512.h"

#if defined(__x86_64__)
#include <stdbool.h>
#include <string.h>

#define LUT_BYTES 64u /* tables of four nibbles */
#define LINE 64u

/* In each stage the partner of element i is i ^ half: the lower of two gets the sum, the upper the difference. */
KX_IVF_AVX512 static inline __m512 butterfly(__m512 x, __m512 partner, __mmask16 upper)
{
	return _mm512_mask_sub_ps(_mm512_add_ps(x, partner), upper, partner, x);
}

KX_IVF_AVX512 static inline __m512 fht16(__m512 x)
{
	x = butterfly(x, _mm512_permute_ps(x, 0xb1), 0xaaaa);
	x = butterfly(x, _mm512_permute_ps(x, 0x4e), 0xcccc);
	x = butterfly(x, _mm512_shuffle_f32x4(x, x, 0xb1), 0xf0f0);
	return butterfly(x, _mm512_shuffle_f32x4(x, x, 0x4e), 0xff00);
}

KX_IVF_AVX512 static void fht(float *x, uint32_t n)
{
	for (uint32_t i = 0; i < n; i += 16)
		_mm512_storeu_ps(x + i, fht16(_mm512_loadu_ps(x + i)));
	for (uint32_t half = 16; half < n; half *= 2) {
		for (uint32_t i = 0; i < n; i += 2 * half) {
			for (uint32_t j = i; j < i + half; j += 16) {
				__m512 a = _mm512_loadu_ps(x + j);
				__m512 b = _mm512_loadu_ps(x + j + half);

				_mm512_storeu_ps(x + j, _mm512_add_ps(a, b));
				_mm512_storeu_ps(x + j + half, _mm512_sub_ps(a, b));
			}
		}
	}
}

/* Byte 4 v + j of each 64: nibble j of four, of vector v in the low half of the byte and of v + 16 in the high one. */
static void pack(uint8_t *codes, uint32_t code_bytes, uint32_t slot, const uint8_t *code)
{
	unsigned shift = slot < KX_IVF_HALF_BLOCK ? 0 : 4;
	uint8_t *to = codes + (size_t)(slot % KX_IVF_HALF_BLOCK) * 4;

	for (uint32_t i = 0; i < code_bytes; i += 2, to += LUT_BYTES) {
		for (unsigned j = 0; j < 4; j++) {
			unsigned nibble = code[i + j / 2] >> (j % 2 * 4) & 15u;

			to[j] = (uint8_t)((to[j] & ~(15u << shift)) | nibble << shift);
		}
	}
}

static void unpack(const uint8_t *codes, uint32_t code_bytes, uint32_t slot, uint8_t *ret_code)
{
	unsigned shift = slot < KX_IVF_HALF_BLOCK ? 0 : 4;
	const uint8_t *from = codes + (size_t)(slot % KX_IVF_HALF_BLOCK) * 4;

	for (uint32_t i = 0; i < code_bytes; i += 2, from += LUT_BYTES) {
		for (unsigned j = 0; j < 2; j++)
			ret_code[i + j] = (uint8_t)((from[2 * j] >> shift & 15) | (from[2 * j + 1] >> shift & 15) << 4);
	}
}

KX_IVF_AVX512 static void lut(const float *rotated, uint32_t dim, float step, uint8_t *ret)
{
	const __m512 half = _mm512_set1_ps(0.5f), by = _mm512_set1_ps(step);
	__mmask16 minus[4] = {0x5555, 0x3333, 0x0f0f, 0x00ff};
	const __m512 sign = _mm512_set1_ps(-0.0f);

	for (uint32_t i = 0; i < dim; i += 4, ret += 16) {
		__m512 sum = _mm512_setzero_ps(), least = _mm512_setzero_ps();

		for (unsigned j = 0; j < 4; j++) {
			__m512 v = _mm512_set1_ps(rotated[i + j]);

			sum = _mm512_add_ps(sum, _mm512_mask_xor_ps(v, minus[j], v, sign));
			least = _mm512_add_ps(least, _mm512_andnot_ps(sign, v));
		}
		sum = _mm512_add_ps(_mm512_mul_ps(_mm512_add_ps(sum, least), by), half);
		_mm_storeu_si128((__m128i *)(void *)ret, _mm512_cvtusepi32_epi8(_mm512_cvttps_epi32(sum)));
	}
}

struct sums {
	__m512i low, high; /* of vectors 0 to 15 and 16 to 31 */
};

KX_IVF_AVX512 static inline struct sums sum_block(const uint8_t *codes, const uint8_t *lut_at, uint32_t groups)
{
	const __m512i mask = _mm512_set1_epi8(15), place = _mm512_set1_epi32(0x30201000);
	const __m512i ones = _mm512_set1_epi8(1);
	struct sums even = {_mm512_setzero_si512(), _mm512_setzero_si512()}, odd = even;

	for (uint32_t i = 0; i < groups; i += 2, codes += 2 * (size_t)LUT_BYTES, lut_at += 2 * (size_t)LUT_BYTES) {
		__m512i a = _mm512_load_si512(codes), b = _mm512_load_si512(codes + LUT_BYTES);
		__m512i table_a = _mm512_load_si512(lut_at), table_b = _mm512_load_si512(lut_at + LUT_BYTES);
		/* (byte & mask) | place */
		__m512i low_a = _mm512_ternarylogic_epi32(a, mask, place, 0xea);
		__m512i high_a = _mm512_ternarylogic_epi32(_mm512_srli_epi16(a, 4), mask, place, 0xea);
		__m512i low_b = _mm512_ternarylogic_epi32(b, mask, place, 0xea);
		__m512i high_b = _mm512_ternarylogic_epi32(_mm512_srli_epi16(b, 4), mask, place, 0xea);

		even.low = _mm512_dpbusd_epi32(even.low, _mm512_permutexvar_epi8(low_a, table_a), ones);
		even.high = _mm512_dpbusd_epi32(even.high, _mm512_permutexvar_epi8(high_a, table_a), ones);
		odd.low = _mm512_dpbusd_epi32(odd.low, _mm512_permutexvar_epi8(low_b, table_b), ones);
		odd.high = _mm512_dpbusd_epi32(odd.high, _mm512_permutexvar_epi8(high_b, table_b), ones);
	}
	even.low = _mm512_add_epi32(even.low, odd.low);
	even.high = _mm512_add_epi32(even.high, odd.high);
	return even;
}

static inline void fetch(const uint8_t *at, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += LINE)
		_mm_prefetch(at + i, _MM_HINT_T1);
}

static inline void fetch_near(const uint8_t *at, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += LINE)
		_mm_prefetch(at + i, _MM_HINT_T0);
}

#define AHEAD 3u /* blocks of a cell that are on their way before they are needed; the first ones of the next cell, too */

KX_IVF_AVX512 static uint32_t scan(const struct kx_ivf_scan *scan, const uint8_t *blocks, uint32_t count,
			    const uint32_t *masks, struct kx_ivf_found found)
{
	const size_t block_bytes = kx_ivf_block_bytes(scan->code_bytes);
	const struct kx_ivf_avx512_bounds by = {_mm512_set1_ps(scan->scale), _mm512_set1_ps(scan->offset),
				  _mm512_set1_ps(scan->floor)};
	const uint8_t *next = scan->next;
	uint32_t len = 0;

	for (uint32_t slot = 0; slot < count; slot += KX_IVF_BLOCK, blocks += block_bytes) {
		const uint16_t *add = (const uint16_t *)(const void *)blocks;
		uint32_t mask = masks ? masks[slot / KX_IVF_BLOCK] : UINT32_MAX;
		struct sums sums;
		__m512 low, high;
		__mmask16 found_low, found_high;

		if (slot + AHEAD * KX_IVF_BLOCK < count)
			fetch_near(blocks + AHEAD * block_bytes, block_bytes);
		if (next && slot < AHEAD * KX_IVF_BLOCK) {
			fetch(next, block_bytes);
			next += block_bytes;
		}
		if (count - slot < KX_IVF_BLOCK)
			mask &= (1u << (count - slot)) - 1;
		if (!mask)
			continue;
		sums = sum_block(blocks + KX_IVF_FACTOR_BYTES, scan->lut, scan->code_bytes / 2);
		low = kx_ivf_avx512_bounds_of(&by, sums.low, kx_ivf_avx512_factors(add), kx_ivf_avx512_factors(add + KX_IVF_BLOCK));
		high = kx_ivf_avx512_bounds_of(&by, sums.high, kx_ivf_avx512_factors(add + KX_IVF_HALF_BLOCK),
					       kx_ivf_avx512_factors(add + KX_IVF_BLOCK + KX_IVF_HALF_BLOCK));
		found_low = _mm512_mask_cmp_ps_mask((__mmask16)mask, low, by.floor, _CMP_GE_OQ);
		found_high = _mm512_mask_cmp_ps_mask((__mmask16)(mask >> 16), high, by.floor, _CMP_GE_OQ);
		if (!(found_low | found_high))
			continue;
		len = kx_ivf_avx512_put(found, len, found_low, low, slot);
		len = kx_ivf_avx512_put(found, len, found_high, high, slot + KX_IVF_HALF_BLOCK);
	}
	return len;
}

KX_IVF_AVX512 static inline __m512i multiply(const uint8_t *codes, const struct kx_ivf_eighth *query)
{
	__m512i sums[4];

	for (unsigned i = 0; i < 4; i++)
		sums[i] = _mm512_setzero_si512();
	for (uint32_t i = 0; i < query->dim; i += 16, codes += 256) {
		for (unsigned j = 0; j < 4; j++) {
			int32_t four;

			memcpy(&four, query->codes + i + 4 * (size_t)j, sizeof(four));
			sums[j] = _mm512_dpbusd_epi32(sums[j], _mm512_load_si512(codes + 64 * (size_t)j),
						      _mm512_set1_epi32(four));
		}
	}
	return _mm512_add_epi32(_mm512_add_epi32(sums[0], sums[1]), _mm512_add_epi32(sums[2], sums[3]));
}

KX_IVF_AVX512 static float near(const struct kx_ivf_sixteen *centroids, const struct kx_ivf_eighth *query, float *ret_keys,
			 float *ret_products)
{
	__m512i sums = _mm512_sub_epi32(multiply(centroids->codes, query), _mm512_set1_epi32(query->zero));
	__m512 scale = _mm512_mul_ps(_mm512_set1_ps(query->scale), _mm512_loadu_ps(centroids->scale));
	__m512 products = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sums));
	__m512 offsets = _mm512_mul_ps(_mm512_set1_ps(query->weight), _mm512_loadu_ps(centroids->offset));
	__m512 keys = _mm512_sub_ps(offsets, products);

	_mm512_storeu_ps(ret_products, products);
	_mm512_storeu_ps(ret_keys, keys);
	return _mm512_reduce_min_ps(keys);
}

#define EIGHT 8u /* queries that a load of 16 centroids is held against */

KX_IVF_AVX512 static void near_eight(const struct kx_ivf_sixteen *centroids, const struct kx_ivf_eighth *queries, uint32_t count,
				     __m512 ret[EIGHT])
{
	const __m512 scale = _mm512_loadu_ps(centroids->scale), offset = _mm512_loadu_ps(centroids->offset);
	const int8_t *codes[EIGHT];
	__m512i sums[EIGHT];

	for (uint32_t j = 0; j < EIGHT; j++) {
		codes[j] = queries[j < count ? j : 0].codes;
		sums[j] = _mm512_setzero_si512();
	}
	for (uint32_t i = 0; i < queries->dim; i += 4) {
		const __m512i four = _mm512_load_si512(centroids->codes + (size_t)i * KX_IVF_LANES);

		for (uint32_t j = 0; j < EIGHT; j++) {
			int32_t of_one;

			memcpy(&of_one, codes[j] + i, sizeof(of_one));
			sums[j] = _mm512_dpbusd_epi32(sums[j], four, _mm512_set1_epi32(of_one));
		}
	}
	for (uint32_t j = 0; j < count; j++)
		ret[j] = kx_ivf_avx512_keys(&queries[j], sums[j], scale, offset);
}

KX_IVF_AVX512 static void near_some(const struct kx_ivf_sixteen *first, uint32_t groups, const struct kx_ivf_eighth *queries,
				    uint32_t count, const struct kx_ivf_keys *ret)
{
	for (uint32_t group = 0; group < groups; group++) {
		const struct kx_ivf_sixteen centroids = kx_ivf_sixteen_at(first, group, queries->dim);

		for (uint32_t i = 0; i < count; i += EIGHT) {
			uint32_t eight = count - i < EIGHT ? count - i : EIGHT;
			__m512 keys[EIGHT];

			near_eight(&centroids, queries + i, eight, keys);
			for (uint32_t j = i; j < i + eight; j++) {
				_mm512_storeu_ps(ret->keys + j * ret->keys_stride + (size_t)group * KX_IVF_LANES, keys[j - i]);
				ret->least[j * ret->least_stride + group] = _mm512_reduce_min_ps(keys[j - i]);
			}
		}
	}
}

KX_IVF_AVX512 static float least_above(const float *keys, float above)
{
	__m512 sixteen = _mm512_loadu_ps(keys);
	__mmask16 mask = _mm512_cmp_ps_mask(sixteen, _mm512_set1_ps(above), _CMP_GT_OQ);

	return mask ? _mm512_mask_reduce_min_ps(mask, sixteen) : __builtin_inff();
}

KX_IVF_AVX512 static uint32_t pick(const float *keys, float above, float most, uint32_t first, uint64_t *ret)
{
	const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	const __m512i top = _mm512_set1_epi32(INT32_MIN);
	__m512 sixteen = _mm512_loadu_ps(keys);
	__mmask16 mask = _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(sixteen, _mm512_set1_ps(above), _CMP_GT_OQ), sixteen,
						 _mm512_set1_ps(most), _CMP_LE_OQ);
	__m512i bits = _mm512_castps_si512(sixteen);
	__m512i flip = _mm512_or_si512(_mm512_srai_epi32(bits, 31), top);
	__m512i ordered = _mm512_maskz_compress_epi32(mask, _mm512_xor_si512(bits, flip));
	__m512i numbers = _mm512_maskz_compress_epi32(
		mask, _mm512_add_epi32(_mm512_set1_epi32((int)first), count));
	__m512i low = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(ordered));
	__m512i high = _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(ordered, 1));

	low = _mm512_or_si512(_mm512_slli_epi64(low, 32), _mm512_cvtepu32_epi64(_mm512_castsi512_si256(numbers)));
	high = _mm512_or_si512(_mm512_slli_epi64(high, 32),
			       _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(numbers, 1)));
	_mm512_storeu_si512(ret, low);
	_mm512_storeu_si512(ret + 8, high);
	return (uint32_t)__builtin_popcount(mask);
}

#define RANK_MAX 256u /* up to so many, counting who is smaller is faster than sorting */

KX_IVF_AVX512 static void sort(uint64_t *numbers, uint32_t count, uint64_t *room)
{
	__m512i eight[RANK_MAX / 8];
	uint32_t registers = (count + 7) / 8;

	if (count > RANK_MAX) {
		kx_ivf_kernels_c.sort(numbers, count, room);
		return;
	}
	for (uint32_t i = 0; i < registers; i++) {
		__mmask8 mask = (__mmask8)(count - 8 * i >= 8 ? 0xffu : (1u << (count - 8 * i)) - 1);

		eight[i] = _mm512_mask_loadu_epi64(_mm512_set1_epi64(-1), mask, numbers + 8 * (size_t)i);
	}
	for (uint32_t i = 0; i < count; i++) {
		__m512i number = _mm512_set1_epi64((long long)numbers[i]);
		uint32_t rank = 0;

		for (uint32_t j = 0; j < registers; j++)
			rank += (uint32_t)__builtin_popcount(_mm512_cmplt_epu64_mask(eight[j], number));
		room[rank] = numbers[i];
	}
	memcpy(numbers, room, count * sizeof(*numbers));
}

KX_IVF_AVX512 static inline __m512 product(const uint8_t *halves, const float *v)
{
	return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)halves)),
			     _mm512_loadu_ps(v));
}

KX_IVF_AVX512 static inline __m512 add_rest(__m512 sum, const uint8_t *halves, const float *v, uint32_t count)
{
	__mmask16 mask = (__mmask16)(count >= 16 ? 0xffffu : (1u << count) - 1);
	__m512 half = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, halves));

	return _mm512_mask_add_ps(sum, mask, sum, _mm512_mul_ps(half, _mm512_maskz_loadu_ps(mask, v)));
}

/* Half of the lanes onto the others until one is left, as the reference does. */
KX_IVF_AVX512 static inline float fold(__m512 sum)
{
	__m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
	__m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));

	four = _mm_add_ps(four, _mm_movehl_ps(four, four));
	return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

KX_IVF_AVX512 static float dot(const void *halves, const float *v, uint32_t dim)
{
	const uint8_t *from = halves;
	__m512 low = _mm512_setzero_ps(), high = low;
	uint32_t i = 0;

	for (; i + KX_IVF_DOT_LANES <= dim; i += KX_IVF_DOT_LANES) {
		low = _mm512_add_ps(low, product(from + (size_t)i * 2, v + i));
		high = _mm512_add_ps(high, product(from + (size_t)i * 2 + 32, v + i + 16));
	}
	if (i < dim)
		low = add_rest(low, from + (size_t)i * 2, v + i, dim - i);
	if (i + 16 < dim)
		high = add_rest(high, from + (size_t)i * 2 + 32, v + i + 16, dim - i - 16);
	return fold(_mm512_add_ps(low, high));
}

KX_IVF_AVX512 static float signed_sum(const uint8_t *code, const float *v, uint32_t dim)
{
	const __m512 sign = _mm512_set1_ps(-0.0f);
	__m512 sum = _mm512_setzero_ps();

	for (uint32_t i = 0; i < dim; i += KX_IVF_LANES, code += KX_IVF_LANES / 8) {
		__m512 values = _mm512_loadu_ps(v + i);
		uint16_t plus;

		memcpy(&plus, code, sizeof(plus));
		sum = _mm512_add_ps(sum, _mm512_mask_xor_ps(values, (__mmask16)~plus, values, sign));
	}
	return fold(sum);
}

static const struct kx_ivf_kernels kernels = {
	"avx512", fht, lut, pack, unpack, scan, near, near_some, least_above, pick, sort, dot, signed_sum, NULL, NULL,
};

static const struct kx_ivf_kernels with_tiles = {
	"amx", fht, lut, pack, unpack, scan, near, kx_ivf_amx_near_some, least_above, pick, sort, dot, signed_sum,
	kx_ivf_amx_spread, kx_ivf_amx_scan_some,
};

const struct kx_ivf_kernels *kx_ivf_kernels_avx512(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
			       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
			       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") &&
			       __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")
		       ? &kernels
		       : NULL;
}

const struct kx_ivf_kernels *kx_ivf_kernels_amx(void)
{
	return kx_ivf_kernels_avx512() && kx_ivf_amx_allowed() ? &with_tiles : NULL;
}

#else

const struct kx_ivf_kernels *kx_ivf_kernels_amx(void)
{
	return NULL;
}

const struct kx_ivf_kernels *kx_ivf_kernels_avx512(void)
{
	return NULL;
}

#endif
