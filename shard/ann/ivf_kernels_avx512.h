/* What the kernels of AVX-512 and those with tiles share: bounds from sums, and those that are found. Layer: shard/ann, kernels. */
#ifndef KX_SHARD_ANN_IVF_KERNELS_AVX512_H
#define KX_SHARD_ANN_IVF_KERNELS_AVX512_H

#include "shard/ann/ivf_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdbool.h>

#define KX_IVF_AVX512 \
	__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c,bmi2,popcnt")))

#define KX_IVF_HALF_BLOCK 16u

/* Those of ivf_kernels_amx.c; whether this process may call them. */
bool kx_ivf_amx_allowed(void);
void kx_ivf_amx_near_some(const struct kx_ivf_sixteen *first, uint32_t groups, const struct kx_ivf_eighth *queries, uint32_t count,
			  const struct kx_ivf_keys *ret);
void kx_ivf_amx_spread(const uint8_t *blocks, uint32_t code_bytes, uint32_t count, uint8_t *ret);
void kx_ivf_amx_scan_some(const struct kx_ivf_scan_some *some);

struct kx_ivf_avx512_bounds {
	__m512 scale, offset, floor;
};

KX_IVF_AVX512 static inline __m512 kx_ivf_avx512_factors(const uint16_t *at)
{
	__m512i upper = _mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i *)(const void *)at));

	return _mm512_castsi512_ps(_mm512_slli_epi32(upper, 16));
}

KX_IVF_AVX512 static inline __m512 kx_ivf_avx512_bounds_of(const struct kx_ivf_avx512_bounds *by, __m512i sums, __m512 add,
						     __m512 mul)
{
	__m512 estimate = _mm512_add_ps(_mm512_mul_ps(by->scale, _mm512_cvtepi32_ps(sums)), by->offset);

	return _mm512_add_ps(add, _mm512_mul_ps(mul, estimate));
}

/* Writes those of 16 that are found behind the len that are. */
KX_IVF_AVX512 static inline uint32_t kx_ivf_avx512_put(struct kx_ivf_found found, uint32_t len, __mmask16 mask, __m512 bounds,
					uint32_t slot)
{
	const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	__m512i slots = _mm512_add_epi32(_mm512_set1_epi32((int)slot), count);

	_mm512_storeu_si512(found.slots + len, _mm512_maskz_compress_epi32(mask, slots));
	_mm512_storeu_ps(found.bounds + len, _mm512_maskz_compress_ps(mask, bounds));
	return len + (uint32_t)__builtin_popcount(mask);
}

/* Keys of 16 centroids from their products in 8 bits with a query. */
KX_IVF_AVX512 static inline __m512 kx_ivf_avx512_keys(const struct kx_ivf_eighth *query, __m512i sums, __m512 scale, __m512 offset)
{
	__m512 sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, _mm512_set1_epi32(query->zero)));
	__m512 product = _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(query->scale), scale), sum);

	return _mm512_sub_ps(_mm512_mul_ps(_mm512_set1_ps(query->weight), offset), product);
}

#endif
#endif
