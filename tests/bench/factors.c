#include "tests/bench/factors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/testkit.h"
#include "common/learn/learn.h"

#define FACTORS 20u
#define CENTRES 300u
#define SPREAD 0.65f     /* of a cluster, where the centres' is 1 */
#define NOISE 0.18f      /* length of it, where a vector's is 1 */
#define NEAR 0.045f      /* what a near duplicate is off by */
#define ONE_IN 50u       /* is one */
#define DUPLICATE_OF 37u /* rows before */
#define SEED 20261127u
#define QUERIES_FROM (UINT64_C(1) << 40)

float kx_bench_normal(uint64_t *random)
{
	double a = (double)(kx_test_random(random) >> 11) / 9007199254740992.0;
	double b = (double)(kx_test_random(random) >> 11) / 9007199254740992.0;

	return (float)(sqrt(-2.0 * log(a + 1e-300)) * cos(6.283185307179586 * b));
}

void kx_bench_mix(const float *factors, const float *matrix, uint32_t count, uint32_t dim, float *ret)
{
	memset(ret, 0, dim * sizeof(*ret));
	for (uint32_t f = 0; f < count; f++)
		for (uint32_t i = 0; i < dim; i++)
			ret[i] += factors[f] * matrix[f * dim + i];
}

static float *normals(uint64_t *random, size_t count)
{
	float *list = malloc(count * sizeof(*list));

	if (!list) {
		fprintf(stderr, "no memory for made-up vectors\n");
		exit(1);
	}
	for (size_t i = 0; i < count; i++)
		list[i] = kx_bench_normal(random);
	return list;
}

void kx_bench_draw_init(struct kx_bench_draw *draw, uint32_t dim)
{
	uint64_t random = SEED;

	draw->dim = dim;
	draw->matrix = normals(&random, (size_t)FACTORS * dim);
	draw->centres = normals(&random, (size_t)CENTRES * FACTORS);
}

void kx_bench_draw_done(struct kx_bench_draw *draw)
{
	free(draw->matrix);
	free(draw->centres);
}

static void thicken(const struct kx_bench_draw *draw, uint64_t *random, float length, float *values)
{
	const float each = length / sqrtf((float)draw->dim);

	for (uint32_t i = 0; i < draw->dim; i++)
		values[i] += each * kx_bench_normal(random);
	(void)kx_learn_normalize(values, draw->dim);
}

static void draw_one(const struct kx_bench_draw *draw, uint64_t number, float *ret)
{
	uint64_t random = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
	const float *centre = draw->centres + kx_test_below(&random, CENTRES) * FACTORS;
	float factors[FACTORS];

	for (uint32_t f = 0; f < FACTORS; f++)
		factors[f] = centre[f] + SPREAD * kx_bench_normal(&random);
	kx_bench_mix(factors, draw->matrix, FACTORS, draw->dim, ret);
	(void)kx_learn_normalize(ret, draw->dim);
	thicken(draw, &random, NOISE, ret);
}

void kx_bench_draw_row(const struct kx_bench_draw *draw, uint64_t number, float *ret)
{
	uint64_t random = ~number;

	if (number % ONE_IN != ONE_IN - 1) {
		draw_one(draw, number, ret);
		return;
	}
	draw_one(draw, number - DUPLICATE_OF, ret);
	thicken(draw, &random, NEAR, ret);
}

void kx_bench_draw_query(const struct kx_bench_draw *draw, uint64_t number, float *ret)
{
	draw_one(draw, QUERIES_FROM + number, ret);
}
