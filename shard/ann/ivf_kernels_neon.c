#include "shard/ann/ivf_kernels.h"

const struct kx_ivf_kernels *kx_ivf_kernels_neon(void)
{
	return NULL;
}
