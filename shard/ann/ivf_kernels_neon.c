/* NEON, which every 64-bit ARM has. */
#include "shard/ann/ivf_kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define HALF_BLOCK 16u
#define LINE 64u
#define NIBBLES_MOST 256u /* sums of so many stay under 2^16 */

static void fht(float *x, uint32_t n)
{
	static const uint32_t upper_one[4] = {0, UINT32_MAX, 0, UINT32_MAX};
	static const uint32_t upper_two[4] = {0, 0, UINT32_MAX, UINT32_MAX};
	const uint32x4_t one = vld1q_u32(upper_one), two = vld1q_u32(upper_two);

	for (uint32_t i = 0; i < n; i += 4) {
		float32x4_t v = vld1q_f32(x + i), partner = vrev64q_f32(v);

		v = vbslq_f32(one, vsubq_f32(partner, v), vaddq_f32(v, partner));
		partner = vextq_f32(v, v, 2);
		vst1q_f32(x + i, vbslq_f32(two, vsubq_f32(partner, v), vaddq_f32(v, partner)));
	}
	for (uint32_t half = 4; half < n; half *= 2) {
		for (uint32_t i = 0; i < n; i += 2 * half) {
			for (uint32_t j = i; j < i + half; j += 4) {
				float32x4_t a = vld1q_f32(x + j), b = vld1q_f32(x + j + half);

				vst1q_f32(x + j, vaddq_f32(a, b));
				vst1q_f32(x + j + half, vsubq_f32(a, b));
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

	for (uint32_t i = 0; i < code_bytes; i++, to += 2 * (size_t)HALF_BLOCK) {
		to[0] = (uint8_t)((to[0] & ~(15u << shift)) | (code[i] & 15u) << shift);
		to[HALF_BLOCK] = (uint8_t)((to[HALF_BLOCK] & ~(15u << shift)) | (unsigned)(code[i] >> 4) << shift);
	}
}

static void unpack(const uint8_t *codes, uint32_t code_bytes, uint32_t slot, uint8_t *ret_code)
{
	unsigned shift = slot < HALF_BLOCK ? 0 : 4;
	const uint8_t *from = codes + slot % HALF_BLOCK;

	for (uint32_t i = 0; i < code_bytes; i++, from += 2 * (size_t)HALF_BLOCK)
		ret_code[i] = (uint8_t)((from[0] >> shift & 15) | (from[HALF_BLOCK] >> shift & 15) << 4);
}

/* Adds the sums of 32 vectors over some bytes of the codes, 16 bits each meanwhile. */
static void sum_some(const uint8_t *codes, const uint8_t *lut_at, uint32_t count, uint32x4_t sums[8])
{
	const uint8x16_t mask = vdupq_n_u8(15);
	uint16x8_t part[4];

	for (unsigned i = 0; i < 4; i++)
		part[i] = vdupq_n_u16(0);
	for (uint32_t i = 0; i < 2 * count; i++) {
		uint8x16_t bytes = vld1q_u8(codes + (size_t)HALF_BLOCK * i);
		uint8x16_t table = vld1q_u8(lut_at + (size_t)HALF_BLOCK * i);
		uint8x16_t low = vqtbl1q_u8(table, vandq_u8(bytes, mask));
		uint8x16_t high = vqtbl1q_u8(table, vshrq_n_u8(bytes, 4));

		part[0] = vaddw_u8(part[0], vget_low_u8(low));
		part[1] = vaddw_high_u8(part[1], low);
		part[2] = vaddw_u8(part[2], vget_low_u8(high));
		part[3] = vaddw_high_u8(part[3], high);
	}
	for (size_t i = 0; i < 4; i++) {
		sums[2 * i] = vaddw_u16(sums[2 * i], vget_low_u16(part[i]));
		sums[2 * i + 1] = vaddw_high_u16(sums[2 * i + 1], part[i]);
	}
}

static void sum_block(const uint8_t *codes, const uint8_t *lut_at, uint32_t code_bytes, uint32x4_t sums[8])
{
	for (unsigned i = 0; i < 8; i++)
		sums[i] = vdupq_n_u32(0);
	for (uint32_t from = 0; from < code_bytes; from += NIBBLES_MOST / 2) {
		uint32_t count = code_bytes - from < NIBBLES_MOST / 2 ? code_bytes - from : NIBBLES_MOST / 2;

		sum_some(codes + 32 * (size_t)from, lut_at + 32 * (size_t)from, count, sums);
	}
}

static inline float32x4_t factors(const uint16_t *at)
{
	return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(at), 16));
}

static void bound_block(const struct kx_ivf_scan *scan, const uint32x4_t sums[8], const uint16_t *add, float *ret)
{
	const float32x4_t scale = vdupq_n_f32(scan->scale), offset = vdupq_n_f32(scan->offset);

	for (size_t i = 0; i < 8; i++) {
		float32x4_t sum = vcvtq_f32_s32(vreinterpretq_s32_u32(sums[i]));
		float32x4_t estimate = vaddq_f32(vmulq_f32(scale, sum), offset);

		vst1q_f32(ret + 4 * i,
			  vaddq_f32(factors(add + 4 * i), vmulq_f32(factors(add + KX_IVF_BLOCK + 4 * i), estimate)));
	}
}

static uint32_t scan(const struct kx_ivf_scan *scan, const uint8_t *blocks, uint32_t count, const uint32_t *masks,
		     struct kx_ivf_found found)
{
	const size_t block_bytes = kx_ivf_block_bytes(scan->code_bytes);
	const uint8_t *next = scan->next;
	uint32_t len = 0;

	for (uint32_t slot = 0; slot < count; slot += KX_IVF_BLOCK, blocks += block_bytes) {
		uint32_t mask = masks ? masks[slot / KX_IVF_BLOCK] : UINT32_MAX;
		float bounds[KX_IVF_BLOCK];
		uint32x4_t sums[8];

		for (size_t i = 0; next && i < block_bytes; i += LINE)
			__builtin_prefetch(next + i, 0, 2);
		next = next ? next + block_bytes : NULL;
		if (count - slot < KX_IVF_BLOCK)
			mask &= (1u << (count - slot)) - 1;
		if (!mask)
			continue;
		sum_block(blocks + KX_IVF_FACTOR_BYTES, scan->lut, scan->code_bytes, sums);
		bound_block(scan, sums, (const uint16_t *)(const void *)blocks, bounds);
		for (; mask; mask &= mask - 1) {
			uint32_t at = (uint32_t)__builtin_ctz(mask);

			found.slots[len] = slot + at;
			found.bounds[len] = bounds[at];
			len += bounds[at] >= scan->floor;
		}
	}
	return len;
}

static void multiply(const struct kx_ivf_sixteen *centroids, const struct kx_ivf_eighth *query, int32_t ret[16])
{
	const uint8_t *codes = centroids->codes;
	int32x4_t sums[8];

	for (unsigned i = 0; i < 8; i++)
		sums[i] = vdupq_n_s32(0);
	for (uint32_t i = 0; i < query->dim; i += 4, codes += 64) {
		const int8_t *q = query->codes + i;
		const int16_t four[4] = {q[0], q[1], q[2], q[3]};
		int16x4_t of_query = vld1_s16(four);

		/* Two centroids in each eight. */
		for (size_t j = 0; j < 8; j++) {
			int16x8_t eight = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(codes + 8 * j)));
			int32x4_t first = vmull_s16(vget_low_s16(eight), of_query);
			int32x4_t second = vmull_s16(vget_high_s16(eight), of_query);

			sums[j] = vaddq_s32(sums[j], vpaddq_s32(first, second));
		}
	}
	for (size_t j = 0; j < 4; j++)
		vst1q_s32(ret + 4 * j, vpaddq_s32(sums[2 * j], sums[2 * j + 1]));
}

static float near(const struct kx_ivf_sixteen *centroids, const struct kx_ivf_eighth *query, float *ret_keys,
		  float *ret_products)
{
	int32_t sums[KX_IVF_LANES];
	float least = __builtin_inff();

	multiply(centroids, query, sums);
	for (size_t i = 0; i < KX_IVF_LANES; i += 4) {
		float32x4_t sum = vcvtq_f32_s32(vsubq_s32(vld1q_s32(sums + i), vdupq_n_s32(query->zero)));
		float32x4_t scale = vmulq_f32(vdupq_n_f32(query->scale), vld1q_f32(centroids->scale + i));
		float32x4_t products = vmulq_f32(scale, sum);
		float32x4_t offsets = vmulq_f32(vdupq_n_f32(query->weight), vld1q_f32(centroids->offset + i));

		vst1q_f32(ret_products + i, products);
		vst1q_f32(ret_keys + i, vsubq_f32(offsets, products));
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

static float32x4_t product(const uint8_t *halves, const float *v)
{
	return vmulq_f32(vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(halves))), vld1q_f32(v));
}

static float dot(const void *halves, const float *v, uint32_t dim)
{
	const uint8_t *from = halves;
	float32x4_t sums[8];
	float32x2_t two;

	if (dim % KX_IVF_DOT_LANES)
		return kx_ivf_kernels_c.dot(halves, v, dim);
	for (unsigned j = 0; j < 8; j++)
		sums[j] = vdupq_n_f32(0.0f);
	for (uint32_t i = 0; i < dim; i += KX_IVF_DOT_LANES)
		for (size_t j = 0; j < 8; j++)
			sums[j] = vaddq_f32(sums[j], product(from + 2 * (i + 4 * j), v + i + 4 * j));
	for (unsigned width = 4; width; width /= 2)
		for (unsigned j = 0; j < width; j++)
			sums[j] = vaddq_f32(sums[j], sums[j + width]);
	two = vadd_f32(vget_low_f32(sums[0]), vget_high_f32(sums[0]));
	return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

static void near_some(const struct kx_ivf_sixteen *first, uint32_t groups, const struct kx_ivf_eighth *queries, uint32_t count,
		      const struct kx_ivf_keys *ret);

static const struct kx_ivf_kernels kernels = {
	"neon", fht, lut, pack, unpack, scan, near, near_some, least_above, pick, sort, dot, kx_ivf_signed_sum_c, NULL, NULL,
};

static void near_some(const struct kx_ivf_sixteen *first, uint32_t groups, const struct kx_ivf_eighth *queries, uint32_t count,
		      const struct kx_ivf_keys *ret)
{
	kx_ivf_near_each(&kernels, first, groups, queries, count, ret);
}

const struct kx_ivf_kernels *kx_ivf_kernels_neon(void)
{
	return &kernels;
}

#else

const struct kx_ivf_kernels *kx_ivf_kernels_neon(void)
{
	return NULL;
}

#endif
