/* Parting vectors into clusters. Layer: shard/ann. */
#ifndef KX_SHARD_ANN_IVF_TRAIN_H
#define KX_SHARD_ANN_IVF_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

/* k-means in one level. values: [n][dim]; ret_centroids: [k][dim]; ret_of: [n], each vector's. 0 < k <= n. */
kx_status kx_ivf_part(const float *values, size_t n, uint32_t dim, uint64_t seed, uint32_t k, float *ret_centroids,
		      uint32_t *ret_of) KX_MUST_CHECK;

#endif
