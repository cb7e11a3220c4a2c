#include "shard/ann/ivf_impl.h"

#include <stdlib.h>

static atomic_uint_fast64_t last_id;

kx_status kx_ivf_new(const struct kx_ivf_options *options, struct kx_ivf **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_ivf_cleanup) struct kx_ivf *ivf = NULL;
	const struct kx_ivf_recipe *recipe = &options->recipe;

	if (recipe->dim < KX_IVF_DIM_MIN || recipe->dim > KX_IVF_DIM_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "an index of %u dimensions: from %u to %u can be",
				    recipe->dim, KX_IVF_DIM_MIN, KX_IVF_DIM_MAX);
	if (recipe->metric != KX_METRIC_COSINE && recipe->metric != KX_METRIC_INNER_PRODUCT)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "metric %d is none", (int)recipe->metric);
	ivf = calloc(1, sizeof(*ivf));
	if (!ivf || kx_ivf_rotation_init(&ivf->rotation, recipe->dim, recipe->seed))
		return kx_error_nomem(error);
	ivf->recipe = *recipe;
	ivf->load = options->load;
	ivf->load_ctx = options->load_ctx;
	ivf->kernels = kx_ivf_kernels_best();
	ivf->code_bytes = ivf->rotation.padded / 8;
	ivf->lead = (ivf->rotation.padded * 3 / 4 + 31) / 32 * 32;
	ivf->id = atomic_fetch_add(&last_id, 1) + 1;
	*ret = KX_STEAL(ivf);
	return KX_OK;
}

void kx_ivf_free(struct kx_ivf *ivf)
{
	if (!ivf)
		return;
	kx_ivf_cells_done(ivf);
	kx_ivf_centroids_done(&ivf->centroids);
	kx_ivf_rotation_done(&ivf->rotation);
	free(ivf);
}

void kx_ivf_cleanup(struct kx_ivf **ivf)
{
	kx_ivf_free(*ivf);
	*ivf = NULL;
}

void kx_ivf_set_vectors(struct kx_ivf *ivf, const void *base, size_t stride)
{
	ivf->vectors = base;
	ivf->stride = stride;
}

void kx_ivf_set_ahead(struct kx_ivf *ivf, kx_ivf_ahead ahead, void *ctx)
{
	ivf->ahead = ahead;
	ivf->ahead_ctx = ctx;
}

uint64_t kx_ivf_hot_bytes(const struct kx_ivf *ivf)
{
	uint64_t a_cell = sizeof(struct kx_ivf_cell) + ivf->recipe.dim * sizeof(float);

	return ivf->cell_bytes + ivf->cell_count * a_cell + kx_ivf_centroids_bytes(&ivf->centroids) +
	       ivf->slot_of_len * sizeof(uint32_t) + ivf->present_words * sizeof(uint64_t);
}
