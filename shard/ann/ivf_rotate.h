/* A random rotation in n log n steps: signs by chance, a fast Hadamard transform, and again. Layer: shard/ann.
 *
 * Where the dimension is no power of two, rounds take turns between a window at the start and one at the end, and pairs
 * across the halves are mixed in between, as Kac's walk does (the RaBitQ library's FhtKac). */
#ifndef KX_SHARD_ANN_IVF_ROTATE_H
#define KX_SHARD_ANN_IVF_ROTATE_H

#include "common/base/error.h"
#include "shard/ann/ivf_kernels.h"

struct kx_ivf_rotation {
	uint32_t dim;    /* of what comes in */
	uint32_t padded; /* of what goes out; a multiple of KX_IVF_PADDING */
	uint32_t window; /* a power of two */
	uint32_t rounds;
	float *factors;  /* [rounds][padded]: signs, and what makes the transform keep lengths */
};

kx_status kx_ivf_rotation_init(struct kx_ivf_rotation *rotation, uint32_t dim, uint64_t seed) KX_MUST_CHECK;
void kx_ivf_rotation_done(struct kx_ivf_rotation *rotation);

/* in: [dim], out: [padded]; lengths and angles stay. */
void kx_ivf_rotate(const struct kx_ivf_rotation *rotation, const struct kx_ivf_kernels *kernels, const float *in,
		   float *out);

/* The next of a seed's numbers (splitmix64): the same on any machine. */
uint64_t kx_ivf_random(uint64_t *state);

#endif
