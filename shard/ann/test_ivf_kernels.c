/* Every SIMD path of this CPU against the plain C reference, bit for bit, on memory that ends where it should. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/macros.h"
#include "common/base/testkit.h"
#include "shard/ann/ivf_half.h"
#include "shard/ann/ivf_kernels.h"

#define ROUNDS 300
#define ALIGNMENT 64u

static uint64_t random_state;

static uint32_t below(uint32_t n)
{
	return (uint32_t)kx_test_below(&random_state, n);
}

static float random_float(void)
{
	return ((float)below(1u << 24) / (float)(1 << 23) - 1.0f) * (below(8) ? 1.0f : 0x1p-18f);
}

/* An allocation of that size, which is a multiple of the alignment, filled by chance. */
static uint8_t *random_bytes(size_t len)
{
	uint8_t *bytes = aligned_alloc(ALIGNMENT, len);

	assert_non_null(bytes);
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)kx_test_random(&random_state);
	return bytes;
}

static float *random_floats(size_t len)
{
	float *floats = malloc(len * sizeof(*floats));

	assert_non_null(floats);
	for (size_t i = 0; i < len; i++)
		floats[i] = random_float();
	return floats;
}

static void check_fht(const struct kx_ivf_kernels *kernels)
{
	uint32_t n = 64u << below(6);
	float *want = random_floats(n), *got = malloc(n * sizeof(*got));

	assert_non_null(got);
	memcpy(got, want, n * sizeof(*got));
	kx_ivf_kernels_c.fht(want, n);
	kernels->fht(got, n);
	assert_memory_equal(got, want, n * sizeof(*got));
	free(want);
	free(got);
}

static void check_lut(const struct kx_ivf_kernels *kernels)
{
	uint32_t dim = 64 * (1 + below(8));
	float *rotated = random_floats(dim);
	uint8_t *want = calloc(dim, 4), *got = calloc(dim, 4);

	assert_true(want && got);
	kx_ivf_kernels_c.lut(rotated, dim, 255.0f / 8.0f, want);
	kernels->lut(rotated, dim, 255.0f / 8.0f, got);
	assert_memory_equal(got, want, dim * 4);
	free(rotated);
	free(want);
	free(got);
}

struct blocks {
	uint32_t count, code_bytes;
	uint8_t *want, *got; /* as the reference packs and as the kernel does */
	size_t bytes;
};

static struct blocks random_blocks(const struct kx_ivf_kernels *kernels)
{
	struct blocks blocks = {.count = 1 + below(100), .code_bytes = 4 * (1 + below(64))};
	size_t block_bytes = kx_ivf_block_bytes(blocks.code_bytes);

	blocks.bytes = (blocks.count + KX_IVF_BLOCK - 1) / KX_IVF_BLOCK * block_bytes;
	blocks.want = random_bytes(blocks.bytes);
	blocks.got = random_bytes(blocks.bytes);
	for (uint32_t slot = 0; slot < blocks.count; slot++) {
		uint8_t *code = random_bytes(256), back[256];
		size_t at = slot / KX_IVF_BLOCK * block_bytes;

		for (uint32_t i = 0; i < 2; i++) {
			uint32_t place = i * KX_IVF_BLOCK + slot % KX_IVF_BLOCK;

			((uint16_t *)(void *)(blocks.want + at))[place] = kx_ivf_factor_of(random_float());
			((uint16_t *)(void *)(blocks.got + at))[place] = ((uint16_t *)(void *)(blocks.want + at))[place];
		}
		at += KX_IVF_FACTOR_BYTES;
		kx_ivf_kernels_c.pack(blocks.want + at, blocks.code_bytes, slot % KX_IVF_BLOCK, code);
		kernels->pack(blocks.got + at, blocks.code_bytes, slot % KX_IVF_BLOCK, code);
		kernels->unpack(blocks.got + at, blocks.code_bytes, slot % KX_IVF_BLOCK, back);
		assert_memory_equal(back, code, blocks.code_bytes);
		free(code);
	}
	return blocks;
}

static void check_scan(const struct kx_ivf_kernels *kernels)
{
	struct blocks blocks = random_blocks(kernels);
	uint32_t room = (blocks.count + KX_IVF_BLOCK - 1) / KX_IVF_BLOCK * KX_IVF_BLOCK;
	size_t lut_bytes = (size_t)blocks.code_bytes * 32;
	uint8_t *lut = random_bytes(lut_bytes);
	struct kx_ivf_scan scan = {lut, blocks.code_bytes, 1.0f / 1024.0f, random_float(), random_float(), NULL};
	struct kx_ivf_found want = {calloc(room + 1, 4), calloc(room + 1, 4)}, got = {calloc(room + 1, 4), calloc(room + 1, 4)};
	uint32_t masks[4], count;

	if (!below(4))
		memset(lut, 255, lut_bytes);
	scan.floor = below(8) ? scan.floor : -1e30f;
	scan.next = below(2) ? blocks.got : NULL;
	for (unsigned i = 0; i < 4; i++)
		masks[i] = below(4) ? (uint32_t)kx_test_random(&random_state) : 0;
	for (int masked = 0; masked < 2; masked++) {
		count = kx_ivf_kernels_c.scan(&scan, blocks.want, blocks.count, masked ? masks : NULL, want);
		assert_int_equal(kernels->scan(&scan, blocks.got, blocks.count, masked ? masks : NULL, got), count);
		assert_memory_equal(got.slots, want.slots, count * sizeof(uint32_t));
		assert_memory_equal(got.bounds, want.bounds, count * sizeof(float));
	}
	free(lut);
	free(want.slots);
	free(want.bounds);
	free(got.slots);
	free(got.bounds);
	free(blocks.want);
	free(blocks.got);
}

static void check_near(const struct kx_ivf_kernels *kernels)
{
	uint32_t dim = 64 * (1 + below(32));
	uint8_t *codes = random_bytes((size_t)dim * KX_IVF_LANES), *query = random_bytes(dim);
	float *scale = random_floats(KX_IVF_LANES), *offset = random_floats(KX_IVF_LANES);
	struct kx_ivf_sixteen centroids = {codes, scale, offset};
	struct kx_ivf_eighth eighth = {(const int8_t *)query, dim, (int32_t)below(100000) - 50000, random_float(), 0.7f};
	float want[2][KX_IVF_LANES], got[2][KX_IVF_LANES];

	if (!below(4)) {
		memset(codes, 255, (size_t)dim * KX_IVF_LANES);
		memset(query, below(2) ? 127 : 129, dim);
	}
	offset[below(KX_IVF_LANES)] = INFINITY;
	assert_true(kx_ivf_kernels_c.near(&centroids, &eighth, want[0], want[1]) ==
		    kernels->near(&centroids, &eighth, got[0], got[1]));
	assert_memory_equal(got, want, sizeof(got));
	free(codes);
	free(query);
	free(scale);
	free(offset);
}

static struct kx_ivf_eighth *random_eighths(uint32_t count, uint32_t dim, uint8_t *codes)
{
	struct kx_ivf_eighth *eighths = malloc(count * sizeof(*eighths));

	assert_non_null(eighths);
	for (uint32_t i = 0; i < count; i++)
		eighths[i] = (struct kx_ivf_eighth){(const int8_t *)codes + (size_t)i * dim, dim, (int32_t)below(100000) - 50000,
						    random_float(), 0.5f};
	return eighths;
}

static void check_near_some(const struct kx_ivf_kernels *kernels)
{
	uint32_t dim = 64 * (1 + below(12)), groups = 1 + below(5), count = 1 + below(70), lanes = groups * KX_IVF_LANES;
	uint8_t *codes = random_bytes((size_t)dim * lanes), *queries = random_bytes((size_t)dim * (count + KX_IVF_SOME));
	float *scale = random_floats(lanes), *offset = random_floats(lanes);
	struct kx_ivf_sixteen first = {codes, scale, offset};
	struct kx_ivf_eighth *eighths = random_eighths(count, dim, queries);
	float *keys[2] = {calloc(count, lanes * sizeof(float)), calloc(count, lanes * sizeof(float))};
	float *least[2] = {calloc(count, groups * sizeof(float)), calloc(count, groups * sizeof(float))};

	assert_true(keys[0] && keys[1] && least[0] && least[1]);
	offset[below(lanes)] = INFINITY;
	kx_ivf_kernels_c.near_some(&first, groups, eighths, count, &(struct kx_ivf_keys){keys[0], lanes, least[0], groups});
	kernels->near_some(&first, groups, eighths, count, &(struct kx_ivf_keys){keys[1], lanes, least[1], groups});
	assert_memory_equal(keys[1], keys[0], (size_t)count * lanes * sizeof(float));
	assert_memory_equal(least[1], least[0], (size_t)count * groups * sizeof(float));
	for (uint32_t i = 0; i < count; i++) {
		float one[KX_IVF_LANES], products[KX_IVF_LANES];

		assert_true(kernels->near(&first, &eighths[i], one, products) == least[0][(size_t)i * groups]);
		assert_memory_equal(one, keys[0] + (size_t)i * lanes, sizeof(one));
	}
	for (uint32_t i = 0; i < 2; i++) {
		free(keys[i]);
		free(least[i]);
	}
	free(eighths);
	free(codes);
	free(queries);
	free(scale);
	free(offset);
}

/* Fills in what is found by some queries in blocks, of which the first two were looked at before. */
static void scan_some(const struct kx_ivf_kernels *kernels, const struct blocks *blocks, const uint8_t *packed,
		      const int8_t *codes, struct kx_ivf_scan_one *ones, uint32_t n)
{
	size_t spread_bytes = (blocks->count + KX_IVF_BLOCK - 1) / KX_IVF_BLOCK * kx_ivf_spread_bytes(blocks->code_bytes);
	uint8_t *spread = random_bytes(spread_bytes);
	struct kx_ivf_scan_some some = {packed, spread, blocks->code_bytes, 2 * KX_IVF_BLOCK, blocks->count, codes, n, ones};

	kernels->spread(packed, blocks->code_bytes, blocks->count, spread);
	kernels->scan_some(&some);
	free(spread);
}

static void check_scan_some(const struct kx_ivf_kernels *kernels)
{
	struct blocks blocks = random_blocks(kernels);
	uint32_t room = (blocks.count + 2 * KX_IVF_BLOCK) / KX_IVF_BLOCK * KX_IVF_BLOCK, n = 1 + below(70);
	uint8_t *codes = random_bytes((size_t)(n + KX_IVF_SOME) * kx_ivf_spread_dim(blocks.code_bytes));
	struct kx_ivf_scan_one *ones[2] = {calloc(n, sizeof(**ones)), calloc(n, sizeof(**ones))};

	assert_true(ones[0] && ones[1]);
	if (!kernels->scan_some)
		n = 0;
	for (uint32_t i = 0; i < n; i++) {
		ones[0][i] = (struct kx_ivf_scan_one){1.0f / 1024.0f, random_float(), below(8) ? random_float() : -1e30f, i % 2,
						      {calloc(room, 4), calloc(room, 4)}};
		ones[1][i] = ones[0][i];
		ones[1][i].found = (struct kx_ivf_found){calloc(room, 4), calloc(room, 4)};
	}
	if (n) {
		scan_some(&kx_ivf_kernels_c, &blocks, blocks.want, (const int8_t *)codes, ones[0], n);
		scan_some(kernels, &blocks, blocks.got, (const int8_t *)codes, ones[1], n);
	}
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(ones[1][i].count, ones[0][i].count);
		assert_memory_equal(ones[1][i].found.slots, ones[0][i].found.slots, ones[0][i].count * sizeof(uint32_t));
		assert_memory_equal(ones[1][i].found.bounds, ones[0][i].found.bounds, ones[0][i].count * sizeof(float));
		for (uint32_t j = 0; j < 2; j++) {
			free(ones[j][i].found.slots);
			free(ones[j][i].found.bounds);
		}
	}
	free(ones[0]);
	free(ones[1]);
	free(codes);
	free(blocks.want);
	free(blocks.got);
}

static void check_order(const struct kx_ivf_kernels *kernels)
{
	float *keys = random_floats(KX_IVF_LANES);
	float above = below(2) ? keys[below(KX_IVF_LANES)] : random_float(), most = keys[below(KX_IVF_LANES)];
	uint64_t want[KX_IVF_LANES], got[KX_IVF_LANES], numbers[2][400], room[400];
	uint32_t count = below(400);

	above = below(4) ? above : -INFINITY;
	keys[below(KX_IVF_LANES)] = INFINITY;
	keys[below(KX_IVF_LANES)] = keys[0];
	assert_true(kx_ivf_kernels_c.least_above(keys, above) == kernels->least_above(keys, above));
	assert_true(kernels->least_above(keys, INFINITY) == INFINITY);
	uint32_t picked = kx_ivf_kernels_c.pick(keys, above, most, 77, want);
	assert_int_equal(kernels->pick(keys, above, most, 77, got), picked);
	assert_memory_equal(got, want, picked * sizeof(*got));
	for (uint32_t i = 0; i < count; i++)
		numbers[0][i] = numbers[1][i] = kx_test_random(&random_state) << 10 | i;
	kx_ivf_kernels_c.sort(numbers[0], count, room);
	kernels->sort(numbers[1], count, room);
	assert_memory_equal(numbers[1], numbers[0], count * sizeof(uint64_t));
	free(keys);
}

static void check_dot(const struct kx_ivf_kernels *kernels)
{
	uint32_t dim = 8 + below(300);
	uint16_t *halves = malloc(dim * sizeof(*halves));
	float *v = random_floats(dim), want, got;

	assert_non_null(halves);
	for (uint32_t i = 0; i < dim; i++)
		halves[i] = kx_half_of_float(random_float());
	want = kx_ivf_kernels_c.dot(halves, v, dim);
	got = kernels->dot(halves, v, dim);
	assert_memory_equal(&got, &want, sizeof(got));
	free(halves);
	free(v);
}

static void check_signed_sum(const struct kx_ivf_kernels *kernels)
{
	uint32_t dim = KX_IVF_LANES * (1 + below(64));
	uint8_t *code = random_bytes(128);
	float *v = random_floats(dim), want = kx_ivf_kernels_c.signed_sum(code, v, dim), got = kernels->signed_sum(code, v, dim);
	double plainly = 0.0;

	for (uint32_t i = 0; i < dim; i++)
		plainly += code[i / 8] >> i % 8 & 1 ? (double)v[i] : -(double)v[i];
	assert_true(fabs(plainly - (double)want) < 1e-3);
	assert_memory_equal(&got, &want, sizeof(got));
	free(code);
	free(v);
}

static void test_equal(void **state)
{
	const struct kx_ivf_kernels *const paths[] = {kx_ivf_kernels_avx2(), kx_ivf_kernels_avx512(),
						      kx_ivf_kernels_amx(), kx_ivf_kernels_neon()};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(paths); i++) {
		if (!paths[i])
			continue;
		printf("%s\n", paths[i]->name);
		for (unsigned round = 0; round < ROUNDS; round++) {
			random_state = round + 1; /* what fails is found again by its round */
			check_fht(paths[i]);
			check_lut(paths[i]);
			check_scan(paths[i]);
			check_near(paths[i]);
			check_near_some(paths[i]);
			check_scan_some(paths[i]);
			check_order(paths[i]);
			check_dot(paths[i]);
			check_signed_sum(paths[i]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
