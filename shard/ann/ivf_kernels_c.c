/* The reference that all SIMD must equal. */
#include "shard/ann/ivf_kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/macros.h"
#include "shard/ann/ivf_half.h"

static void fht(float *x, uint32_t n)
{
	for (uint32_t half = 1; half < n; half *= 2) {
		for (uint32_t i = 0; i < n; i += 2 * half) {
			for (uint32_t j = i; j < i + half; j++) {
				float a = x[j];
				float b = x[j + half];

				x[j] = a + b;
				x[j + half] = a - b;
			}
		}
	}
}

/* What signs that are the bits of n make of four elements. */
static float signed_sum(const float *v, unsigned n)
{
	float sum = 0.0f;

	for (unsigned i = 0; i < 4; i++)
		sum += n >> i & 1 ? v[i] : -v[i];
	return sum;
}

static void lut(const float *rotated, uint32_t dim, float step, uint8_t *ret)
{
	for (uint32_t i = 0; i < dim; i += 4) {
		float least = 0.0f;

		for (unsigned j = 0; j < 4; j++)
			least += fabsf(rotated[i + j]);
		for (unsigned n = 0; n < 16; n++)
			*ret++ = (uint8_t)((signed_sum(rotated + i, n) + least) * step + 0.5f);
	}
}

static void pack(uint8_t *codes, uint32_t code_bytes, uint32_t slot, const uint8_t *code)
{
	memcpy(codes + (size_t)slot * code_bytes, code, code_bytes);
}

static void unpack(const uint8_t *codes, uint32_t code_bytes, uint32_t slot, uint8_t *ret_code)
{
	memcpy(ret_code, codes + (size_t)slot * code_bytes, code_bytes);
}

static int32_t sum_of(const uint8_t *lut, const uint8_t *code, uint32_t code_bytes)
{
	int32_t sum = 0;

	for (uint32_t i = 0; i < code_bytes; i++, lut += 32)
		sum += lut[code[i] & 15] + lut[16 + (code[i] >> 4)];
	return sum;
}

static uint32_t scan(const struct kx_ivf_scan *scan, const uint8_t *blocks, uint32_t count, const uint32_t *masks,
		     struct kx_ivf_found found)
{
	const size_t block_bytes = kx_ivf_block_bytes(scan->code_bytes);
	uint32_t len = 0;

	for (uint32_t slot = 0; slot < count; slot++) {
		const uint8_t *block = blocks + slot / KX_IVF_BLOCK * block_bytes;
		const uint16_t *add = (const uint16_t *)(const void *)block;
		uint32_t at = slot % KX_IVF_BLOCK;
		int32_t sum;
		float bound;

		if (masks && !(masks[slot / KX_IVF_BLOCK] >> at & 1))
			continue;
		sum = sum_of(scan->lut, block + KX_IVF_FACTOR_BYTES + (size_t)at * scan->code_bytes, scan->code_bytes);
		bound = kx_ivf_factor(add[at]) +
			kx_ivf_factor(add[KX_IVF_BLOCK + at]) * (scan->scale * (float)sum + scan->offset);
		if (bound >= scan->floor) {
			found.slots[len] = slot;
			found.bounds[len++] = bound;
		}
	}
	return len;
}

static void multiply(const struct kx_ivf_sixteen *centroids, const struct kx_ivf_eighth *query,
		     int32_t ret[KX_IVF_LANES])
{
	const uint8_t *codes = centroids->codes;

	memset(ret, 0, KX_IVF_LANES * sizeof(*ret));
	for (uint32_t i = 0; i < query->dim; i += 4)
		for (uint32_t lane = 0; lane < KX_IVF_LANES; lane++)
			for (uint32_t j = 0; j < 4; j++)
				ret[lane] += *codes++ * query->codes[i + j];
}

static float near(const struct kx_ivf_sixteen *centroids, const struct kx_ivf_eighth *query, float *ret_keys,
		  float *ret_products)
{
	float least = INFINITY;
	int32_t sums[KX_IVF_LANES];

	multiply(centroids, query, sums);
	for (uint32_t i = 0; i < KX_IVF_LANES; i++) {
		ret_products[i] = query->scale * centroids->scale[i] * (float)(sums[i] - query->zero);
		ret_keys[i] = query->weight * centroids->offset[i] - ret_products[i];
		least = ret_keys[i] < least ? ret_keys[i] : least;
	}
	return least;
}

static void near_some(const struct kx_ivf_sixteen *first, uint32_t groups, const struct kx_ivf_eighth *queries, uint32_t count,
		      const struct kx_ivf_keys *ret)
{
	kx_ivf_near_each(&kx_ivf_kernels_c, first, groups, queries, count, ret);
}

static float least_above(const float *keys, float above)
{
	float least = INFINITY;

	for (uint32_t i = 0; i < KX_IVF_LANES; i++)
		least = keys[i] > above && keys[i] < least ? keys[i] : least;
	return least;
}

static uint32_t pick(const float *keys, float above, float most, uint32_t first, uint64_t *ret)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < KX_IVF_LANES; i++)
		if (keys[i] > above && keys[i] <= most)
			ret[count++] = (uint64_t)kx_ivf_ordered(keys[i]) << 32 | (first + i);
	return count;
}

static int rising(const void *a, const void *b)
{
	uint64_t one = *(const uint64_t *)a, two = *(const uint64_t *)b;

	return (one > two) - (one < two);
}

static void sort(uint64_t *numbers, uint32_t count, uint64_t *room)
{
	(void)room;
	qsort(numbers, count, sizeof(*numbers), rising);
}

static float dot(const void *halves, const float *v, uint32_t dim)
{
	float lanes[KX_IVF_DOT_LANES] = {0};

	for (uint32_t i = 0; i < dim; i++) {
		uint16_t half;

		memcpy(&half, (const uint8_t *)halves + (size_t)i * 2, sizeof(half));
		lanes[i % KX_IVF_DOT_LANES] += kx_half_to_float(half) * v[i];
	}
	for (uint32_t width = KX_IVF_DOT_LANES / 2; width; width /= 2)
		for (uint32_t i = 0; i < width; i++)
			lanes[i] += lanes[i + width];
	return lanes[0];
}

float kx_ivf_signed_sum_c(const uint8_t *code, const float *v, uint32_t dim)
{
	float lanes[KX_IVF_LANES] = {0};

	for (uint32_t i = 0; i < dim; i += KX_IVF_LANES, code += KX_IVF_LANES / 8) {
		uint32_t bits = code[0] | (uint32_t)code[1] << 8;

		for (uint32_t j = 0; j < KX_IVF_LANES; j++)
			lanes[j] += bits >> j & 1 ? v[i + j] : -v[i + j];
	}
	for (uint32_t width = KX_IVF_LANES / 2; width; width /= 2)
		for (uint32_t i = 0; i < width; i++)
			lanes[i] += lanes[i + width];
	return lanes[0];
}

/* As they are packed, without the factors. */
static void spread(const uint8_t *blocks, uint32_t code_bytes, uint32_t count, uint8_t *ret)
{
	for (uint32_t slot = 0; slot < count; slot += KX_IVF_BLOCK, blocks += kx_ivf_block_bytes(code_bytes))
		memcpy(ret + slot / KX_IVF_BLOCK * kx_ivf_spread_bytes(code_bytes), blocks + KX_IVF_FACTOR_BYTES,
		       (size_t)KX_IVF_BLOCK * code_bytes);
}

static int32_t sum_set(const uint8_t *code, uint32_t code_bytes, const int8_t *values)
{
	int32_t sum = 0;

	for (uint32_t i = 0; i < code_bytes * 8; i++)
		sum += code[i / 8] >> i % 8 & 1 ? values[i] : 0;
	return sum;
}

static void scan_one(const struct kx_ivf_scan_some *some, struct kx_ivf_scan_one *one, const int8_t *values)
{
	for (uint32_t i = 0; i < some->count; i++) {
		size_t block = i / KX_IVF_BLOCK, at = i % KX_IVF_BLOCK;
		const uint16_t *add =
			(const uint16_t *)(const void *)(some->blocks + block * kx_ivf_block_bytes(some->code_bytes));
		const uint8_t *code =
			some->spread + block * kx_ivf_spread_bytes(some->code_bytes) + at * some->code_bytes;
		float sum = (float)sum_set(code, some->code_bytes, values);
		float bound = kx_ivf_factor(add[at]) +
			      kx_ivf_factor(add[KX_IVF_BLOCK + at]) * (one->scale * sum + one->offset);

		if (bound >= one->floor) {
			one->found.slots[one->count] = some->first + i;
			one->found.bounds[one->count++] = bound;
		}
	}
}

static void scan_some(const struct kx_ivf_scan_some *some)
{
	for (uint32_t i = 0; i < some->n; i++)
		scan_one(some, &some->ones[i], some->codes + (size_t)i * kx_ivf_spread_dim(some->code_bytes));
}

const struct kx_ivf_kernels kx_ivf_kernels_c = {
	"c", fht, lut, pack, unpack, scan, near, near_some, least_above, pick, sort, dot, kx_ivf_signed_sum_c, spread, scan_some,
};

const struct kx_ivf_kernels *kx_ivf_kernels_best(void)
{
	const struct kx_ivf_kernels *const all[] = {kx_ivf_kernels_amx(), kx_ivf_kernels_avx512(), kx_ivf_kernels_avx2(),
						    kx_ivf_kernels_neon()};

	for (unsigned i = 0; i < KX_ARRAY_LEN(all); i++) {
		if (all[i])
			return all[i];
	}
	return &kx_ivf_kernels_c;
}
