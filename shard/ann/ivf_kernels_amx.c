/* AMX: a tile of 16 queries in 8 bits times one of 16 centroids or codes. Centroids lie as a tile wants them, four dimensions of
 * 16 of them in a row; bits of codes are spread so, a byte each. */
#include "shard/ann/ivf_kernels_avx512.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TILES \
	__attribute__((target("amx-tile,amx-int8,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c,bmi2,popcnt")))

#define ROW 64u             /* bytes of a tile's row */
#define TILE (16u * ROW)
#define PAIR (2u * KX_IVF_SOME) /* queries that two tiles hold */
#define CODES_BYTES 64u     /* that four nibbles of each of 32 codes lie in */
#define HAS_TILES (3u << 24) /* of feature leaf 7: tiles, and products of 8 bits; compilers do not all know their names */
#define REQUEST_PERMISSION 0x1023 /* ARCH_REQ_XCOMP_PERM */
#define TILE_DATA 18              /* XFEATURE_XTILEDATA */

bool kx_ivf_amx_allowed(void)
{
	uint32_t a, b, c, d = 0;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & HAS_TILES) == HAS_TILES &&
	       !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}

struct config {
	uint8_t palette, start, reserved[14];
	uint16_t row_bytes[16];
	uint8_t rows[16];
};

/* All eight tiles whole. To be ended with _tile_release(), so that threads are switched without what tiles hold. */
TILES static inline void tiles_begin(void)
{
	struct config config = {.palette = 1};

	for (unsigned i = 0; i < 8; i++) {
		config.row_bytes[i] = ROW;
		config.rows[i] = 16;
	}
	_tile_loadconfig(&config);
}

/* What is multiplied: 16 (two: 32) queries by 32 columns, half of which lie a tile's row after row from `low` on and half from `high`
 * on. */
struct factors {
	const int8_t *queries;
	size_t query_bytes;
	const uint8_t *low, *high;
	bool two;
};

TILES static inline void clear(void)
{
	_tile_zero(0);
	_tile_zero(1);
	_tile_zero(2);
	_tile_zero(3);
}

/* Adds the products of a tile's length of the queries. Sums stay in tiles until they are stored. */
TILES static inline void multiply(const struct factors *factors, size_t step)
{
	_tile_loadd(4, factors->queries + step * ROW, factors->query_bytes);
	_tile_loadd(6, factors->low + step * TILE, ROW);
	_tile_loadd(7, factors->high + step * TILE, ROW);
	_tile_dpbsud(0, 4, 6);
	_tile_dpbsud(1, 4, 7);
	if (factors->two) {
		_tile_loadd(5, factors->queries + KX_IVF_SOME * factors->query_bytes + step * ROW, factors->query_bytes);
		_tile_dpbsud(2, 5, 6);
		_tile_dpbsud(3, 5, 7);
	}
}

/* [16 or 32][32] */
TILES static inline void store(bool two, int32_t *ret)
{
	_tile_stored(0, ret, 2 * ROW);
	_tile_stored(1, ret + 16, 2 * ROW);
	if (two) {
		_tile_stored(2, ret + 32 * KX_IVF_SOME, 2 * ROW);
		_tile_stored(3, ret + 32 * KX_IVF_SOME + 16, 2 * ROW);
	}
}

TILES static void put_keys(const struct kx_ivf_sixteen *first, uint32_t group, uint32_t groups,
			   const struct kx_ivf_eighth *queries, uint32_t from, uint32_t count, const int32_t *sums,
			   const struct kx_ivf_keys *ret)
{
	for (uint32_t half = 0; half < groups; half++, group++) {
		const size_t at = (size_t)group * KX_IVF_LANES;
		const __m512 scale = _mm512_loadu_ps(first->scale + at), offset = _mm512_loadu_ps(first->offset + at);

		for (uint32_t i = 0; i < count; i++) {
			__m512i sum = _mm512_load_si512(sums + (size_t)i * 32 + (size_t)half * 16);
			__m512 keys = kx_ivf_avx512_keys(&queries[from + i], sum, scale, offset);

			_mm512_storeu_ps(ret->keys + (from + i) * ret->keys_stride + at, keys);
			ret->least[(from + i) * ret->least_stride + group] = _mm512_reduce_min_ps(keys);
		}
	}
}

TILES void kx_ivf_amx_near_some(const struct kx_ivf_sixteen *first, uint32_t groups, const struct kx_ivf_eighth *queries,
				uint32_t count, const struct kx_ivf_keys *ret)
{
	const uint32_t dim = queries->dim;
	_Alignas(64) int32_t sums[PAIR * 32];

	tiles_begin();
	for (uint32_t group = 0; group < groups; group += 2) {
		const uint32_t two = groups - group < 2 ? 1 : 2;
		const uint8_t *low = kx_ivf_sixteen_at(first, group, dim).codes;
		const uint8_t *high = kx_ivf_sixteen_at(first, group + two - 1, dim).codes;

		for (uint32_t i = 0; i < count; i += PAIR) {
			uint32_t some = count - i < PAIR ? count - i : PAIR;

			const struct factors factors = {queries->codes + (size_t)i * dim, dim, low, high, some > KX_IVF_SOME};

			clear();
			for (uint32_t step = 0; step < dim / ROW; step++)
				multiply(&factors, step);
			store(factors.two, sums);
			put_keys(first, group, two, queries, i, some, sums, ret);
		}
	}
	_tile_release();
}

/* Of four nibbles the one that is in byte `at` of each 32 bits: its bits a byte each, of those in the low halves and of those in the
 * high ones. */
TILES static inline void spread_nibble(__m512i codes, unsigned at, uint8_t *low, uint8_t *high)
{
	const __m512i one = _mm512_set1_epi8(1), place = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
	__m512i bytes = _mm512_shuffle_epi8(codes, _mm512_add_epi8(place, _mm512_set1_epi8((char)at)));
	__m512i of_low = _mm512_and_si512(bytes, _mm512_set1_epi32(0x08040201));
	__m512i of_high = _mm512_and_si512(bytes, _mm512_set1_epi32((int)0x80402010));

	_mm512_store_si512(low, _mm512_min_epu8(of_low, one));
	_mm512_store_si512(high, _mm512_min_epu8(of_high, one));
}

TILES void kx_ivf_amx_spread(const uint8_t *blocks, uint32_t code_bytes, uint32_t count, uint8_t *ret)
{
	const size_t half = kx_ivf_spread_bytes(code_bytes) / 2, used = (size_t)code_bytes * 2 * ROW;

	for (uint32_t slot = 0; slot < count; slot += KX_IVF_BLOCK, ret += 2 * half, blocks += kx_ivf_block_bytes(code_bytes)) {
		const uint8_t *codes = blocks + KX_IVF_FACTOR_BYTES;

		for (uint32_t i = 0; i < code_bytes / 2; i++) {
			__m512i four = _mm512_load_si512(codes + (size_t)i * CODES_BYTES);

			for (unsigned j = 0; j < 4; j++)
				spread_nibble(four, j, ret + (4 * (size_t)i + j) * ROW, ret + half + (4 * (size_t)i + j) * ROW);
		}
		memset(ret + used, 0, half - used);
		memset(ret + half + used, 0, half - used);
	}
}

/* Sums that were made, of a block and some queries. */
struct made {
	const uint16_t *factors;
	uint32_t slot, mask; /* of the block's slots those that there are */
	struct kx_ivf_scan_one *ones;
	uint32_t count;
};

/* Of queries [from, to). */
TILES static inline void bound_some(const struct made *made, uint32_t from, uint32_t to, const int32_t *sums)
{
	const __m512 add_low = kx_ivf_avx512_factors(made->factors);
	const __m512 add_high = kx_ivf_avx512_factors(made->factors + KX_IVF_HALF_BLOCK);
	const __m512 mul_low = kx_ivf_avx512_factors(made->factors + KX_IVF_BLOCK);
	const __m512 mul_high = kx_ivf_avx512_factors(made->factors + KX_IVF_BLOCK + KX_IVF_HALF_BLOCK);

	sums += (size_t)from * 32;
	for (uint32_t i = from; i < to; i++, sums += 32) {
		struct kx_ivf_scan_one *one = &made->ones[i];
		const struct kx_ivf_avx512_bounds by = {_mm512_set1_ps(one->scale), _mm512_set1_ps(one->offset),
							_mm512_set1_ps(one->floor)};
		__m512 low = kx_ivf_avx512_bounds_of(&by, _mm512_load_si512(sums), add_low, mul_low);
		__m512 high = kx_ivf_avx512_bounds_of(&by, _mm512_load_si512(sums + 16), add_high, mul_high);
		__mmask16 of_low = _mm512_mask_cmp_ps_mask((__mmask16)made->mask, low, by.floor, _CMP_GE_OQ);
		__mmask16 of_high = _mm512_mask_cmp_ps_mask((__mmask16)(made->mask >> 16), high, by.floor, _CMP_GE_OQ);

		if (!(of_low | of_high))
			continue;
		one->count = kx_ivf_avx512_put(one->found, one->count, of_low, low, made->slot);
		one->count = kx_ivf_avx512_put(one->found, one->count, of_high, high, made->slot + KX_IVF_HALF_BLOCK);
	}
}

/* The sums of `made`, while the bounds of those before it are made from theirs: a product takes its time, and not many steps are
 * on their way at once. */
TILES static inline void sum_some(const struct factors *factors, uint32_t steps, const struct made *before, const int32_t *sums)
{
	clear();
	for (uint32_t step = 0; step < steps; step++) {
		multiply(factors, step);
		bound_some(before, before->count * step / steps, before->count * (step + 1) / steps, sums);
	}
}

TILES void kx_ivf_amx_scan_some(const struct kx_ivf_scan_some *some)
{
	const size_t dim = kx_ivf_spread_dim(some->code_bytes), spread = kx_ivf_spread_bytes(some->code_bytes);
	_Alignas(64) int32_t sums[PAIR * 32];
	struct made before = {.factors = (const uint16_t *)(const void *)some->blocks};

	tiles_begin();
	for (uint32_t slot = 0; slot < some->count; slot += KX_IVF_BLOCK) {
		const size_t at = slot / KX_IVF_BLOCK;
		const uint8_t *block = some->blocks + at * kx_ivf_block_bytes(some->code_bytes);
		const uint8_t *low = some->spread + at * spread;
		const uint32_t left = some->count - slot;

		for (uint32_t i = 0; i < some->n; i += PAIR) {
			struct made made = {(const uint16_t *)(const void *)block, some->first + slot,
					    left < KX_IVF_BLOCK ? (1u << left) - 1 : UINT32_MAX, some->ones + i,
					    some->n - i < PAIR ? some->n - i : PAIR};
			struct factors factors = {some->codes + i * dim, dim, low, low + spread / 2, made.count > KX_IVF_SOME};

			sum_some(&factors, (uint32_t)(dim / ROW), &before, sums);
			store(factors.two, sums);
			before = made;
		}
	}
	bound_some(&before, 0, before.count, sums);
	_tile_release();
}

#endif
