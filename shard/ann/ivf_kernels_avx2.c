/* AVX2: as the fast scan of Andre et al. (VLDB 2015). A register looks up 16 entries of two nibbles of a code for 16
 * vectors each; sums have 16 bits for as many nibbles as can't overflow them. */
#include "shard/ann/ivf_kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define TARGET __attribute__((target("avx2,f16c,popcnt")))

#define HALF_BLOCK 16u
#define LINE 64u
#define NIBBLES_MOST 256u /* sums of so many stay under 2^16 */

TARGET static inline __m256 butterfly(__m256 x, __m256 partner, __m256 upper)
{
	return _mm256_blendv_ps(_mm256_add_ps(x, partner), _mm256_sub_ps(partner, x), upper);
}

TARGET static inline __m256 fht8(__m256 x)
{
	const __m256 one = _mm256_castsi256_ps(_mm256_setr_epi32(0, -1, 0, -1, 0, -1, 0, -1));
	const __m256 two = _mm256_castsi256_ps(_mm256_setr_epi32(0, 0, -1, -1, 0, 0, -1, -1));
	const __m256 four = _mm256_castsi256_ps(_mm256_setr_epi32(0, 0, 0, 0, -1, -1, -1, -1));

	x = butterfly(x, _mm256_permute_ps(x, 0xb1), one);
	x = butterfly(x, _mm256_permute_ps(x, 0x4e), two);
	return butterfly(x, _mm256_permute2f128_ps(x, x, 1), four);
}

TARGET static void fht(float *x, uint32_t n)
{
	for (uint32_t i = 0; i < n; i += 8)
		_mm256_storeu_ps(x + i, fht8(_mm256_loadu_ps(x + i)));
	for (uint32_t half = 8; half < n; half *= 2) {
		for (uint32_t i = 0; i < n; i += 2 * half) {
			for (uint32_t j = i; j < i + half; j += 8) {
				__m256 a = _mm256_loadu_ps(x + j);
				__m256 b = _mm256_loadu_ps(x + j + half);

				_mm256_storeu_ps(x + j, _mm256_add_ps(a, b));
				_mm256_storeu_ps(x + j + half, _mm256_sub_ps(a, b));
			}
		}
	}
}

static void lut(const float *rotated, uint32_t dim, float step, uint8_t *ret)
{
	kx_ivf_kernels_c.lut(rotated, dim, step, ret);
}

/* Byte v of each 32, for v under 16: the low nibble is nibble 2 i of vector v, the high one of vector v + 16; bytes 16 to
 * 31 are nibble 2 i + 1 of the same. */
static void pack(uint8_t *codes, uint32_t code_bytes, uint32_t slot, const uint8_t *code)
{
	unsigned shift = slot < HALF_BLOCK ? 0 : 4;
	uint8_t *to = codes + slot % HALF_BLOCK;

	for (uint32_t i = 0; i < code_bytes; i++, to += 2 * HALF_BLOCK) {
		to[0] = (uint8_t)((to[0] & ~(15u << shift)) | (code[i] & 15u) << shift);
		to[HALF_BLOCK] = (uint8_t)((to[HALF_BLOCK] & ~(15u << shift)) | (unsigned)(code[i] >> 4) << shift);
	}
}

static void unpack(const uint8_t *codes, uint32_t code_bytes, uint32_t slot, uint8_t *ret_code)
{
	unsigned shift = slot < HALF_BLOCK ? 0 : 4;
	const uint8_t *from = codes + slot % HALF_BLOCK;

	for (uint32_t i = 0; i < code_bytes; i++, from += 2 * HALF_BLOCK)
		ret_code[i] = (uint8_t)((from[0] >> shift & 15) | (from[HALF_BLOCK] >> shift & 15) << 4);
}

/* Sums of 32 vectors in 32 bits each, in order. */
struct sums {
	__m256i eight[4];
};

/* Adds the sums of 16 vectors that stand in 16 bits, even ones and odd ones, for the two nibbles in the two lanes. */
TARGET static inline void widen(__m256i even, __m256i odd, __m256i *low, __m256i *high)
{
	__m128i of_even = _mm_add_epi16(_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1));
	__m128i of_odd = _mm_add_epi16(_mm256_castsi256_si128(odd), _mm256_extracti128_si256(odd, 1));

	*low = _mm256_add_epi32(*low, _mm256_cvtepu16_epi32(_mm_unpacklo_epi16(of_even, of_odd)));
	*high = _mm256_add_epi32(*high, _mm256_cvtepu16_epi32(_mm_unpackhi_epi16(of_even, of_odd)));
}

TARGET static inline void sum_some(const uint8_t *codes, const uint8_t *lut_at, uint32_t count, struct sums *sums)
{
	const __m256i mask = _mm256_set1_epi8(15), low_byte = _mm256_set1_epi16(255);
	__m256i even[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()}, odd[2];

	odd[0] = odd[1] = even[0];
	for (uint32_t i = 0; i < count; i++) {
		__m256i bytes = _mm256_load_si256((const __m256i *)(const void *)(codes + 32 * (size_t)i));
		__m256i table = _mm256_load_si256((const __m256i *)(const void *)(lut_at + 32 * (size_t)i));
		__m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(bytes, mask));
		__m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask));

		even[0] = _mm256_add_epi16(even[0], _mm256_and_si256(low, low_byte));
		odd[0] = _mm256_add_epi16(odd[0], _mm256_srli_epi16(low, 8));
		even[1] = _mm256_add_epi16(even[1], _mm256_and_si256(high, low_byte));
		odd[1] = _mm256_add_epi16(odd[1], _mm256_srli_epi16(high, 8));
	}
	widen(even[0], odd[0], &sums->eight[0], &sums->eight[1]);
	widen(even[1], odd[1], &sums->eight[2], &sums->eight[3]);
}

TARGET static inline void sum_block(const uint8_t *codes, const uint8_t *lut_at, uint32_t code_bytes, struct sums *sums)
{
	for (unsigned i = 0; i < 4; i++)
		sums->eight[i] = _mm256_setzero_si256();
	for (uint32_t from = 0; from < code_bytes; from += NIBBLES_MOST / 2) {
		uint32_t count = code_bytes - from < NIBBLES_MOST / 2 ? code_bytes - from : NIBBLES_MOST / 2;

		sum_some(codes + 32 * (size_t)from, lut_at + 32 * (size_t)from, count, sums);
	}
}

TARGET static inline __m256 factors(const uint16_t *at)
{
	__m256i upper = _mm256_cvtepu16_epi32(_mm_load_si128((const __m128i *)(const void *)at));

	return _mm256_castsi256_ps(_mm256_slli_epi32(upper, 16));
}

/* Bounds of eight vectors, and which of them reach the floor. */
TARGET static inline uint32_t bound_eight(const struct kx_ivf_scan *scan, __m256i sums, const uint16_t *add, float *ret)
{
	__m256 estimate = _mm256_add_ps(_mm256_mul_ps(_mm256_set1_ps(scan->scale), _mm256_cvtepi32_ps(sums)),
					_mm256_set1_ps(scan->offset));
	__m256 bound = _mm256_add_ps(factors(add), _mm256_mul_ps(factors(add + KX_IVF_BLOCK), estimate));

	_mm256_storeu_ps(ret, bound);
	return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(bound, _mm256_set1_ps(scan->floor), _CMP_GE_OQ));
}

static inline void fetch(const uint8_t *at, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += LINE)
		_mm_prefetch(at + i, _MM_HINT_T1);
}

TARGET static uint32_t scan(const struct kx_ivf_scan *scan, const uint8_t *blocks, uint32_t count,
			    const uint32_t *masks, struct kx_ivf_found found)
{
	const size_t block_bytes = kx_ivf_block_bytes(scan->code_bytes);
	const uint8_t *next = scan->next;
	uint32_t len = 0;

	for (uint32_t slot = 0; slot < count; slot += KX_IVF_BLOCK, blocks += block_bytes) {
		uint32_t mask = masks ? masks[slot / KX_IVF_BLOCK] : UINT32_MAX, passed = 0;
		const uint16_t *add = (const uint16_t *)(const void *)blocks;
		float bounds[KX_IVF_BLOCK];
		struct sums sums;

		if (next) {
			fetch(next, block_bytes);
			next += block_bytes;
		}
		if (count - slot < KX_IVF_BLOCK)
			mask &= (1u << (count - slot)) - 1;
		if (!mask)
			continue;
		sum_block(blocks + KX_IVF_FACTOR_BYTES, scan->lut, scan->code_bytes, &sums);
		for (unsigned i = 0; i < 4; i++)
			passed |= bound_eight(scan, sums.eight[i], add + 8 * i, bounds + 8 * i) << 8 * i;
		for (passed &= mask; passed; passed &= passed - 1) {
			uint32_t at = (uint32_t)__builtin_ctz(passed);

			found.slots[len] = slot + at;
			found.bounds[len++] = bounds[at];
		}
	}
	return len;
}

/* Products of unsigned and signed bytes would overflow pairs of 16 bits: both are widened first. */
TARGET static void multiply(const uint8_t *codes, const struct kx_ivf_eighth *query, __m256i sums[4])
{
	for (unsigned i = 0; i < 4; i++)
		sums[i] = _mm256_setzero_si256();
	for (uint32_t i = 0; i < query->dim; i += 4, codes += 64) {
		int32_t four;
		__m256i of_query;

		memcpy(&four, query->codes + i, sizeof(four));
		of_query = _mm256_cvtepi8_epi16(_mm_set1_epi32(four));
		/* Four centroids at a time, each in 64 bits: two sums of pairs. */
		for (unsigned j = 0; j < 4; j++) {
			__m128i bytes = _mm_load_si128((const __m128i *)(const void *)(codes + 16 * (size_t)j));

			sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(_mm256_cvtepu8_epi16(bytes), of_query));
		}
	}
}

TARGET static float near(const struct kx_ivf_sixteen *centroids, const struct kx_ivf_eighth *query, float *ret_keys,
			 float *ret_products)
{
	const __m256i order = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
	float least = __builtin_inff();
	__m256i sums[4];

	multiply(centroids->codes, query, sums);
	for (unsigned i = 0; i < 2; i++) {
		__m256i pairs = _mm256_permutevar8x32_epi32(_mm256_hadd_epi32(sums[2 * i], sums[2 * i + 1]), order);
		__m256i whole = _mm256_sub_epi32(pairs, _mm256_set1_epi32(query->zero));
		__m256 scale = _mm256_mul_ps(_mm256_set1_ps(query->scale), _mm256_loadu_ps(centroids->scale + 8 * i));
		__m256 products = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(whole));

		__m256 offsets = _mm256_mul_ps(_mm256_set1_ps(query->weight), _mm256_loadu_ps(centroids->offset + 8 * i));

		_mm256_storeu_ps(ret_products + 8 * i, products);
		_mm256_storeu_ps(ret_keys + 8 * i, _mm256_sub_ps(offsets, products));
	}
	for (unsigned i = 0; i < KX_IVF_LANES; i++)
		least = ret_keys[i] < least ? ret_keys[i] : least;
	return least;
}

static float least_above(const float *keys, float above)
{
	return kx_ivf_kernels_c.least_above(keys, above);
}

static uint32_t pick(const float *keys, float above, float most, uint32_t first, uint64_t *ret)
{
	return kx_ivf_kernels_c.pick(keys, above, most, first, ret);
}

static void sort(uint64_t *numbers, uint32_t count, uint64_t *room)
{
	kx_ivf_kernels_c.sort(numbers, count, room);
}

TARGET static inline __m256 product(const uint8_t *halves, const float *v)
{
	return _mm256_mul_ps(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)halves)),
			     _mm256_loadu_ps(v));
}

TARGET static float dot(const void *halves, const float *v, uint32_t dim)
{
	const uint8_t *from = halves;
	__m256 sums[4];
	__m128 four;
	uint32_t whole = dim / KX_IVF_DOT_LANES * KX_IVF_DOT_LANES;

	if (whole != dim)
		return kx_ivf_kernels_c.dot(halves, v, dim);
	for (unsigned j = 0; j < 4; j++)
		sums[j] = _mm256_setzero_ps();
	for (uint32_t i = 0; i < whole; i += KX_IVF_DOT_LANES)
		for (unsigned j = 0; j < 4; j++)
			sums[j] = _mm256_add_ps(sums[j], product(from + 2 * (size_t)(i + 8 * j), v + i + 8 * j));
	sums[0] = _mm256_add_ps(_mm256_add_ps(sums[0], sums[2]), _mm256_add_ps(sums[1], sums[3]));
	four = _mm_add_ps(_mm256_castps256_ps128(sums[0]), _mm256_extractf128_ps(sums[0], 1));
	four = _mm_add_ps(four, _mm_movehl_ps(four, four));
	return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

static void near_some(const struct kx_ivf_sixteen *first, uint32_t groups, const struct kx_ivf_eighth *queries, uint32_t count,
		      const struct kx_ivf_keys *ret);

static const struct kx_ivf_kernels kernels = {
	"avx2", fht, lut, pack, unpack, scan, near, near_some, least_above, pick, sort, dot, kx_ivf_signed_sum_c, NULL, NULL,
};

static void near_some(const struct kx_ivf_sixteen *first, uint32_t groups, const struct kx_ivf_eighth *queries, uint32_t count,
		      const struct kx_ivf_keys *ret)
{
	kx_ivf_near_each(&kernels, first, groups, queries, count, ret);
}

const struct kx_ivf_kernels *kx_ivf_kernels_avx2(void)
{
	unsigned a, b, c = 0, d;

	__builtin_cpu_init();
	/* clang has no name for what turns halves into floats. */
	return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C ? &kernels : NULL;
}

#else

const struct kx_ivf_kernels *kx_ivf_kernels_avx2(void)
{
	return NULL;
}

#endif
