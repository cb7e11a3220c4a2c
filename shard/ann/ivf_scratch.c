/* What a thread keeps between searches, so that none of them allocates. */
#include "shard/ann/ivf_search.h"

#include <stdlib.h>

#include "common/base/fault.h"

#define LOAD_MAX ((size_t)1 << 30)
#define APART 128u /* bytes between what two threads write; processors fetch lines in pairs */

kx_status kx_ivf_scratch_new(struct kx_ivf_scratch **ret)
{
	size_t bytes = (sizeof(struct kx_ivf_scratch) + APART - 1) / APART * APART;
	struct kx_ivf_scratch *scratch = kx_fault("ann.scratch") ? NULL : aligned_alloc(APART, bytes);

	if (!scratch)
		return KX_ENOMEM;
	memset(scratch, 0, bytes);
	scratch->loaded.max = LOAD_MAX;
	*ret = scratch;
	return KX_OK;
}

void kx_ivf_scratch_free(struct kx_ivf_scratch *scratch)
{
	if (!scratch)
		return;
	kx_ivf_order_done(&scratch->order);
	kx_ivf_batch_free(scratch->batch);
	free(scratch->rotated);
	free(scratch->lut);
	free(scratch->slots);
	free(scratch->masks);
	free(scratch->bounds);
	free(scratch->waiting);
	free(scratch->waiting_bounds);
	free(scratch->heap);
	free(scratch->cold);
	kx_buf_done(&scratch->loaded);
	free(scratch);
}

bool kx_ivf_again(void *array, size_t bytes)
{
	void *memory = kx_fault("ann.scratch") ? NULL : aligned_alloc(64, (bytes + 63) / 64 * 64);

	if (!memory)
		return false;
	free(*(void **)array);
	*(void **)array = memory;
	return true;
}

kx_status kx_ivf_reserve_found(struct kx_ivf_scratch *scratch, uint32_t count)
{
	uint32_t len = (count + KX_IVF_BLOCK) / KX_IVF_BLOCK * KX_IVF_BLOCK * 2;

	if (count + KX_IVF_BLOCK <= scratch->found_len)
		return KX_OK;
	scratch->found_len = 0;
	if (!kx_ivf_again(&scratch->slots, len * sizeof(uint32_t)) || !kx_ivf_again(&scratch->bounds, len * sizeof(float)) ||
	    !kx_ivf_again(&scratch->masks, len / KX_IVF_BLOCK * sizeof(uint32_t)))
		return KX_ENOMEM;
	scratch->found_len = len;
	return KX_OK;
}

kx_status kx_ivf_reserve_waiting(struct kx_ivf_scratch *scratch, uint32_t count)
{
	if (count <= scratch->waiting_len)
		return KX_OK;
	scratch->waiting_len = 0;
	if (!kx_ivf_again(&scratch->waiting, (size_t)count * 2 * sizeof(uint32_t)) ||
	    !kx_ivf_again(&scratch->waiting_bounds, (size_t)count * 2 * sizeof(float)))
		return KX_ENOMEM;
	scratch->waiting_len = count * 2;
	return KX_OK;
}

kx_status kx_ivf_scratch_reserve(struct kx_ivf_scratch *scratch, const struct kx_ivf *ivf, uint32_t k)
{
	uint32_t padded = ivf->rotation.padded;

	if (scratch->padded < padded) {
		scratch->padded = 0;
		if (!kx_ivf_again(&scratch->rotated, padded * sizeof(float)) || !kx_ivf_again(&scratch->lut, (size_t)padded * 4))
			return KX_ENOMEM;
		scratch->padded = padded;
	}
	if (scratch->heap_len < k) {
		scratch->heap_len = 0;
		if (!kx_ivf_again(&scratch->heap, (size_t)k * sizeof(*scratch->heap)))
			return KX_ENOMEM;
		scratch->heap_len = k;
	}
	return KX_OK;
}
