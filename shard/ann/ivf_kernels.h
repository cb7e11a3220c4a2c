/* The loops of the approximate index, once in plain C and once for each kind of SIMD. All of them give the same bits:
 * sums of codes are integers, and sums of floats run in one fixed order without fused steps. Layer: shard/ann. */
#ifndef KX_SHARD_ANN_IVF_KERNELS_H
#define KX_SHARD_ANN_IVF_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KX_IVF_BLOCK 32u       /* vectors whose codes are interleaved */
#define KX_IVF_LANES 16u       /* centroids that are compared at a time */
#define KX_IVF_PADDING 64u     /* what rotated dimensions are a multiple of */
#define KX_IVF_DOT_LANES 32u   /* element i of a product goes into lane i % this */

/* A block: factors add[32], mul[32], then the codes as the kernel packs them. A factor is the upper half of a float: what a
 * scan is waiting for is memory, and its bound is wide enough. */
#define KX_IVF_FACTOR_BYTES (2u * KX_IVF_BLOCK * (unsigned)sizeof(uint16_t))
static inline uint16_t kx_ivf_factor_of(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static inline float kx_ivf_factor(uint16_t factor)
{
	uint32_t bits = (uint32_t)factor << 16;
	float value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

static inline size_t kx_ivf_block_bytes(uint32_t code_bytes)
{
	return KX_IVF_FACTOR_BYTES + (size_t)KX_IVF_BLOCK * code_bytes;
}

/* What the vectors of a cell are held against. A nibble of a code is a number n; lut[16 * nibble's place + n]. */
struct kx_ivf_scan {
	const uint8_t *lut;   /* [code_bytes * 2][16], 64-byte aligned */
	uint32_t code_bytes;
	float scale, offset;  /* bound = add + mul * (scale * sum + offset) */
	float floor;          /* found when bound >= floor */
	const uint8_t *next;  /* blocks that are scanned after these, fetched meanwhile; NULL: none. They are not read. */
};

struct kx_ivf_found {
	uint32_t *slots; /* both with room for count rounded up to blocks */
	float *bounds;
};

/* Centroids that are compared at once. */
struct kx_ivf_sixteen {
	const uint8_t *codes; /* [dim / 4][16][4], each 128 more than it means; 64-byte aligned */
	const float *scale;   /* [16] */
	const float *offset;  /* [16]: key = weight * offset - product */
};

/* So many groups behind. */
static inline struct kx_ivf_sixteen kx_ivf_sixteen_at(const struct kx_ivf_sixteen *first, uint32_t group, uint32_t dim)
{
	const size_t at = (size_t)group * KX_IVF_LANES;

	return (struct kx_ivf_sixteen){first->codes + at * dim, first->scale + at, first->offset + at};
}

/* A query in 8 bits. */
struct kx_ivf_eighth {
	const int8_t *codes; /* [dim] */
	uint32_t dim;        /* a multiple of KX_IVF_PADDING */
	int32_t zero;        /* what the centroids' 128 more come to */
	float scale;
	float weight;        /* of offsets; more than 0, so that infinite ones stay so */
};

/* Queries against which codes are held at once. */
struct kx_ivf_scan_one {
	float scale, offset, floor; /* as those of a scan; the sum is that of the query's codes where a bit is set */
	uint32_t count;             /* found, which what is found now comes behind */
	struct kx_ivf_found found;  /* with room for all slots that were held against it, rounded up to blocks */
};
struct kx_ivf_scan_some {
	const uint8_t *blocks;
	const uint8_t *spread;  /* what `spread` made of these blocks */
	uint32_t code_bytes;
	uint32_t first, count;  /* the slot that the first of the blocks begins with, and how many there are from there on */
	const int8_t *codes;    /* [n rounded up to KX_IVF_SOME][kx_ivf_spread_dim()] of queries in 8 bits, 64-byte aligned */
	uint32_t n;
	struct kx_ivf_scan_one *ones; /* [n] */
};
#define KX_IVF_SOME 16u
static inline uint32_t kx_ivf_spread_dim(uint32_t code_bytes)
{
	return (code_bytes * 8 + KX_IVF_PADDING - 1) / KX_IVF_PADDING * KX_IVF_PADDING;
}
/* What a block takes that was spread. */
static inline size_t kx_ivf_spread_bytes(uint32_t code_bytes)
{
	return (size_t)KX_IVF_BLOCK * kx_ivf_spread_dim(code_bytes);
}

/* Where keys of many centroids for several queries go: of query i and group g from keys[i * keys_stride + 16 g] on, and the least of
 * them to least[i * least_stride + g]. */
struct kx_ivf_keys {
	float *keys;
	size_t keys_stride;
	float *least;
	size_t least_stride;
};

/* The order of floats as that of numbers. */
static inline uint32_t kx_ivf_ordered(float key)
{
	uint32_t bits;

	memcpy(&bits, &key, sizeof(bits));
	return bits ^ (bits >> 31 ? UINT32_MAX : 0x80000000u);
}

struct kx_ivf_kernels {
	const char *name;
	/* Fast Hadamard transform in place, not scaled; n: a power of two, at least 64. */
	void (*fht)(float *x, uint32_t n);
	/* The table of a query: entry 16 i / 4 + n is the sum of four elements from i on, each less what the four can be at
	 * least: element j with a minus where bit j of n is 0. In steps, rounded. dim: a multiple of 4. */
	void (*lut)(const float *rotated, uint32_t dim, float step, uint8_t *ret);
	/* Puts a code into a block's codes, and takes one out. */
	void (*pack)(uint8_t *codes, uint32_t code_bytes, uint32_t slot, const uint8_t *code);
	void (*unpack)(const uint8_t *codes, uint32_t code_bytes, uint32_t slot, uint8_t *ret_code);
	/* Estimates count vectors in blocks one behind the other; those found are written in order, how many is
	 * returned. masks: bit i of word b: whether slot 32 b + i is looked at; NULL: all. */
	uint32_t (*scan)(const struct kx_ivf_scan *scan, const uint8_t *blocks, uint32_t count, const uint32_t *masks,
			 struct kx_ivf_found found);
	/* How near 16 centroids are to a query: keys and products are written, the least key is returned. */
	float (*near)(const struct kx_ivf_sixteen *centroids, const struct kx_ivf_eighth *query, float *ret_keys,
		      float *ret_products);
	/* The same keys of so many groups behind one another, for several queries whose codes lie behind one another, too: the
	 * first ones' are 64-byte aligned, and there is room for KX_IVF_SOME - 1 more. */
	void (*near_some)(const struct kx_ivf_sixteen *first, uint32_t groups, const struct kx_ivf_eighth *queries,
			  uint32_t count, const struct kx_ivf_keys *ret);
	/* The least of 16 keys above a bound; INFINITY when none is. */
	float (*least_above)(const float *keys, float above);
	/* Of 16 keys those in (above, most], with their numbers from `first` on, as one number whose order is theirs. ret
	 * has room for 16. */
	uint32_t (*pick)(const float *keys, float above, float most, uint32_t first, uint64_t *ret);
	/* Into rising order; no two are equal. */
	void (*sort)(uint64_t *numbers, uint32_t count, uint64_t *room);
	/* Inner product of a vector of halves with one of floats. */
	float (*dot)(const void *halves, const float *v, uint32_t dim);
	/* The sum of v's elements, each with a minus where its bit of the code is 0. dim: a multiple of KX_IVF_LANES. */
	float (*signed_sum)(const uint8_t *code, const float *v, uint32_t dim);
	/* For those that have no fast way to hold codes against several queries at once both are NULL. */
	void (*spread)(const uint8_t *blocks, uint32_t code_bytes, uint32_t count, uint8_t *ret);
	void (*scan_some)(const struct kx_ivf_scan_some *some);
};

extern const struct kx_ivf_kernels kx_ivf_kernels_c;
/* near_some() by a kind's near(): one query after another, while the 16 centroids are at hand. */
static inline void kx_ivf_near_each(const struct kx_ivf_kernels *kernels, const struct kx_ivf_sixteen *first, uint32_t groups,
				    const struct kx_ivf_eighth *queries, uint32_t count, const struct kx_ivf_keys *ret)
{
	float products[KX_IVF_LANES];

	for (uint32_t group = 0; group < groups; group++) {
		const struct kx_ivf_sixteen centroids = kx_ivf_sixteen_at(first, group, queries[0].dim);

		for (uint32_t i = 0; i < count; i++)
			ret->least[i * ret->least_stride + group] = kernels->near(
				&centroids, &queries[i], ret->keys + i * ret->keys_stride + (size_t)group * KX_IVF_LANES, products);
	}
}

/* For kinds that have no better. */
float kx_ivf_signed_sum_c(const uint8_t *code, const float *v, uint32_t dim);
/* NULL where this CPU, or this build, has none. */
const struct kx_ivf_kernels *kx_ivf_kernels_avx2(void);
const struct kx_ivf_kernels *kx_ivf_kernels_avx512(void);
/* Codes lie in blocks as those of AVX-512 do. Asks the kernel for leave to use the tiles; NULL if it is not given. */
const struct kx_ivf_kernels *kx_ivf_kernels_amx(void);
const struct kx_ivf_kernels *kx_ivf_kernels_neon(void);

/* The fastest that this CPU has. */
const struct kx_ivf_kernels *kx_ivf_kernels_best(void);

#endif
