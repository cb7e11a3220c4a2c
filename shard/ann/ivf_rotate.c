#include "shard/ann/ivf_rotate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS_WHOLE 3u /* the window is all of it */
#define ROUNDS_PARTS 4u

uint64_t kx_ivf_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static uint32_t window_at(const struct kx_ivf_rotation *rotation, uint32_t round)
{
	return round % 2 ? rotation->padded - rotation->window : 0;
}

kx_status kx_ivf_rotation_init(struct kx_ivf_rotation *rotation, uint32_t dim, uint64_t seed)
{
	uint32_t padded = (dim + KX_IVF_PADDING - 1) / KX_IVF_PADDING * KX_IVF_PADDING;
	uint64_t state = seed;
	float scale;

	*rotation = (struct kx_ivf_rotation){.dim = dim, .padded = padded, .window = KX_IVF_PADDING};
	while (rotation->window * 2 <= padded)
		rotation->window *= 2;
	rotation->rounds = rotation->window == padded ? ROUNDS_WHOLE : ROUNDS_PARTS;
	rotation->factors = malloc(sizeof(float) * rotation->rounds * padded);
	if (!rotation->factors)
		return KX_ENOMEM;
	scale = 1.0f / sqrtf((float)rotation->window);
	for (uint32_t round = 0; round < rotation->rounds; round++) {
		uint32_t first = window_at(rotation, round);

		for (uint32_t i = 0; i < padded; i++) {
			float size = i - first < rotation->window ? scale : 1.0f;

			rotation->factors[round * padded + i] = kx_ivf_random(&state) >> 63 ? -size : size;
		}
	}
	return KX_OK;
}

void kx_ivf_rotation_done(struct kx_ivf_rotation *rotation)
{
	free(rotation->factors);
	rotation->factors = NULL;
}

static void mix_halves(float *x, uint32_t n)
{
	const float root = 0.70710678118654752f;
	uint32_t half = n / 2;

	for (uint32_t i = 0; i < half; i++) {
		float a = x[i];
		float b = x[half + i];

		x[i] = (a + b) * root;
		x[half + i] = (a - b) * root;
	}
}

void kx_ivf_rotate(const struct kx_ivf_rotation *rotation, const struct kx_ivf_kernels *kernels, const float *in,
		   float *out)
{
	uint32_t padded = rotation->padded;

	memcpy(out, in, rotation->dim * sizeof(*out));
	memset(out + rotation->dim, 0, (padded - rotation->dim) * sizeof(*out));
	for (uint32_t round = 0; round < rotation->rounds; round++) {
		const float *factors = rotation->factors + (size_t)round * padded;

		for (uint32_t i = 0; i < padded; i++)
			out[i] *= factors[i];
		kernels->fht(out + window_at(rotation, round), rotation->window);
		if (rotation->window != padded)
			mix_halves(out, padded);
	}
}
