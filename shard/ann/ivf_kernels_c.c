/* The reference that all SIMD must equal. */
#include "shard/ann/ivf_kernels.h"

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
		const float *add = (const float *)(const void *)block;
		uint32_t at = slot % KX_IVF_BLOCK;
		int32_t sum;
		float bound;

		if (masks && !(masks[slot / KX_IVF_BLOCK] >> at & 1))
			continue;
		sum = sum_of(scan->lut, block + KX_IVF_FACTOR_BYTES + (size_t)at * scan->code_bytes, scan->code_bytes);
		bound = add[at] + add[KX_IVF_BLOCK + at] * (scan->scale * (float)sum + scan->offset);
		if (bound >= scan->floor) {
			found.slots[len] = slot;
			found.bounds[len++] = bound;
		}
	}
	return len;
}

static void dots(const uint8_t *codes, const int8_t *query, uint32_t dim, int32_t ret[KX_IVF_LANES])
{
	memset(ret, 0, KX_IVF_LANES * sizeof(*ret));
	for (uint32_t i = 0; i < dim; i += 4)
		for (uint32_t lane = 0; lane < KX_IVF_LANES; lane++)
			for (uint32_t j = 0; j < 4; j++)
				ret[lane] += *codes++ * query[i + j];
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

const struct kx_ivf_kernels kx_ivf_kernels_c = {"c", fht, pack, unpack, scan, dots, dot};

const struct kx_ivf_kernels *kx_ivf_kernels_best(void)
{
	return &kx_ivf_kernels_c;
}
