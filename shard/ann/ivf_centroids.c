/* Finding the centroids near a query. They are kept rotated, since rotated ones have no element that towers over the
 * others, in 8 bits: their order is off only among those that are as good as equally far. */
#include "shard/ann/ivf_impl.h"

#include <stdlib.h>

#include "common/learn/learn.h"

#define ZERO 128
#define STEPS 127.0f

void kx_ivf_centroids_done(struct kx_ivf_centroids *centroids)
{
	free(centroids->codes);
	free(centroids->scale);
	free(centroids->norm2);
	free(centroids->slots);
	*centroids = (struct kx_ivf_centroids){0};
}

static kx_status centroids_init(struct kx_ivf_centroids *centroids, uint32_t count, uint32_t dim)
{
	size_t lanes = (count + KX_IVF_LANES - 1) / KX_IVF_LANES * KX_IVF_LANES;

	*centroids = (struct kx_ivf_centroids){.dim = dim};
	if (!lanes)
		return KX_OK;
	centroids->codes = aligned_alloc(64, lanes * dim);
	centroids->scale = calloc(lanes, sizeof(float));
	centroids->norm2 = calloc(lanes, sizeof(float));
	centroids->slots = calloc(lanes, sizeof(uint32_t));
	if (!centroids->codes || !centroids->scale || !centroids->norm2 || !centroids->slots) {
		kx_ivf_centroids_done(centroids);
		return KX_ENOMEM;
	}
	memset(centroids->codes, ZERO, lanes * dim);
	return KX_OK;
}

static void put(struct kx_ivf_centroids *centroids, const float *rotated, float norm2, uint32_t slot)
{
	uint32_t at = centroids->count++, lane = at % KX_IVF_LANES;
	uint8_t *codes = centroids->codes + (size_t)(at - lane) * centroids->dim;
	int8_t values[KX_IVF_PADDED_MAX];

	kx_learn_quantize_i8(rotated, centroids->dim, values, &centroids->scale[at]);
	for (uint32_t i = 0; i < centroids->dim; i++)
		codes[(i / 4 * KX_IVF_LANES + lane) * 4 + i % 4] = (uint8_t)(values[i] + ZERO);
	centroids->norm2[at] = norm2;
	centroids->slots[at] = slot;
}

kx_status kx_ivf_centroids_build(struct kx_ivf *ivf)
{
	struct kx_ivf_centroids made;
	kx_status status = centroids_init(&made, ivf->cell_count, ivf->rotation.padded);

	if (status)
		return status;
	for (uint32_t slot = 0; slot < ivf->slot_count; slot++) {
		float rotated[KX_IVF_PADDED_MAX];

		if (ivf->cells[slot].id == KX_IVF_NO_CELL)
			continue;
		kx_ivf_rotate(&ivf->rotation, ivf->kernels, ivf->cells[slot].centroid, rotated);
		put(&made, rotated, ivf->cells[slot].norm2, slot);
	}
	kx_ivf_centroids_done(&ivf->centroids);
	ivf->centroids = made;
	return KX_OK;
}

kx_status kx_ivf_cells_ready(struct kx_ivf *ivf)
{
	kx_status status = ivf->ready ? KX_OK : kx_ivf_centroids_build(ivf);

	ivf->ready = !status;
	return status;
}

static int by_key(const void *a, const void *b)
{
	const struct kx_ivf_near *one = a, *two = b;

	if (one->key != two->key)
		return one->key < two->key ? -1 : 1;
	return (one->slot > two->slot) - (one->slot < two->slot);
}

size_t kx_ivf_centroids_order(const struct kx_ivf *ivf, const float *rotated, struct kx_ivf_near *ret, size_t most)
{
	const struct kx_ivf_centroids *centroids = &ivf->centroids;
	float norm_part = ivf->recipe.metric == KX_METRIC_COSINE ? 0.5f : 0.0f;
	int8_t query[KX_IVF_PADDED_MAX];
	int32_t sum = 0;
	float scale;

	kx_learn_quantize_i8(rotated, centroids->dim, query, &scale);
	for (uint32_t i = 0; i < centroids->dim; i++)
		sum += query[i];
	for (uint32_t from = 0; from < centroids->count; from += KX_IVF_LANES) {
		int32_t products[KX_IVF_LANES];

		ivf->kernels->dots(centroids->codes + (size_t)from * centroids->dim, query, centroids->dim, products);
		for (uint32_t at = from; at < centroids->count && at < from + KX_IVF_LANES; at++) {
			float product = scale * centroids->scale[at] * (float)(products[at - from] - ZERO * sum);

			ret[at] = (struct kx_ivf_near){norm_part * centroids->norm2[at] - product, product,
						       centroids->slots[at]};
		}
	}
	qsort(ret, centroids->count, sizeof(*ret), by_key);
	return most < centroids->count ? most : centroids->count;
}

static float distance2(const float *a, const float *b, uint32_t dim)
{
	float lanes[8] = {0}, sum = 0;
	uint32_t i = 0;

	for (; i + 8 <= dim; i += 8)
		for (uint32_t j = 0; j < 8; j++)
			lanes[j] += (a[i + j] - b[i + j]) * (a[i + j] - b[i + j]);
	for (; i < dim; i++)
		sum += (a[i] - b[i]) * (a[i] - b[i]);
	for (uint32_t j = 0; j < 8; j++)
		sum += lanes[j];
	return sum;
}

#define MORE 8u /* candidates beyond what is asked for, whose distance is measured */

size_t kx_ivf_nearest_cells(const struct kx_ivf *ivf, const float *vector, size_t n, uint32_t *ret_cells,
			    float *ret_distance2)
{
	KX_CLEANUP(kx_cleanup_free) struct kx_ivf_near *near = malloc((ivf->cell_count + 1u) * sizeof(*near));
	float rotated[KX_IVF_PADDED_MAX];
	size_t count;

	if (!near)
		return 0;
	kx_ivf_rotate(&ivf->rotation, ivf->kernels, vector, rotated);
	count = kx_ivf_centroids_order(ivf, rotated, near, ivf->cell_count);
	for (size_t i = 0; i < count; i++)
		near[i].key = distance2(vector, ivf->cells[near[i].slot].centroid, ivf->recipe.dim);
	qsort(near, count, sizeof(*near), by_key);
	count = n < count ? n : count;
	for (size_t i = 0; i < count; i++) {
		ret_cells[i] = ivf->cells[near[i].slot].id;
		ret_distance2[i] = near[i].key;
	}
	return count;
}

kx_status kx_ivf_assign(const struct kx_ivf *ivf, const float *vectors, size_t n, uint32_t *ret_cells)
{
	if (!ivf->cell_count || !ivf->ready)
		return KX_EINVAL;
	for (size_t i = 0; i < n; i++) {
		float distance;

		if (kx_ivf_nearest_cells(ivf, vectors + i * ivf->recipe.dim, 1, &ret_cells[i], &distance) != 1)
			return KX_ENOMEM;
	}
	return KX_OK;
}
