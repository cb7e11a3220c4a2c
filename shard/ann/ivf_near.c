/* Which cells are near a vector. */
#include <stdlib.h>

#include "shard/ann/ivf_impl.h"

/* What all centroids are put into lanes from. */
struct placing {
	float *rotated, *offsets;
	uint32_t *slots, *lanes;
};

static void placing_done(struct placing *placing)
{
	free(placing->rotated);
	free(placing->offsets);
	free(placing->slots);
	free(placing->lanes);
}

static kx_status place_all(struct kx_ivf *ivf, struct placing *placing)
{
	const uint32_t padded = ivf->rotation.padded;
	uint32_t count = 0;
	kx_status status;

	placing->rotated = malloc(((size_t)ivf->cell_count * padded + 1) * sizeof(float));
	placing->offsets = malloc((ivf->cell_count + 1u) * sizeof(float));
	placing->slots = malloc((ivf->cell_count + 1u) * sizeof(uint32_t));
	placing->lanes = malloc((ivf->cell_count + 1u) * sizeof(uint32_t));
	if (!placing->rotated || !placing->offsets || !placing->slots || !placing->lanes)
		return KX_ENOMEM;
	for (uint32_t slot = 0; slot < ivf->slot_count; slot++) {
		const struct kx_ivf_cell *cell = &ivf->cells[slot];

		if (cell->id == KX_IVF_NO_CELL)
			continue;
		kx_ivf_rotate(&ivf->rotation, ivf->kernels, cell->centroid, placing->rotated + (size_t)count * padded);
		placing->offsets[count] = cell->norm2 / 2;
		placing->slots[count++] = slot;
	}
	status = kx_ivf_centroids_build(&ivf->centroids, placing->rotated, placing->offsets, placing->slots, count, padded,
					ivf->recipe.seed, placing->lanes);
	for (uint32_t i = 0; !status && i < count; i++)
		ivf->cells[placing->slots[i]].lane = placing->lanes[i];
	return status;
}

static kx_status place_new(struct kx_ivf *ivf)
{
	for (uint32_t slot = 0; ivf->unplaced && slot < ivf->slot_count; slot++) {
		struct kx_ivf_cell *cell = &ivf->cells[slot];
		float rotated[KX_IVF_PADDED_MAX];
		kx_status status;

		if (cell->id == KX_IVF_NO_CELL || cell->lane != KX_IVF_NO_LANE)
			continue;
		kx_ivf_rotate(&ivf->rotation, ivf->kernels, cell->centroid, rotated);
		status = kx_ivf_centroids_add(&ivf->centroids, ivf->kernels, rotated, cell->norm2 / 2, slot,
					      &cell->lane);
		if (status)
			return status;
		ivf->unplaced--;
	}
	return KX_OK;
}

kx_status kx_ivf_cells_ready(struct kx_ivf *ivf)
{
	struct placing placing = {0};
	kx_status status;

	if (!kx_ivf_centroids_stale(&ivf->centroids) && ivf->unplaced < KX_IVF_LANES + ivf->cell_count / 8)
		return place_new(ivf);
	status = place_all(ivf, &placing);
	placing_done(&placing);
	ivf->unplaced = status ? ivf->unplaced : 0;
	ivf->version++; /* lanes are others, which maps of filters name */
	return status;
}

float kx_ivf_distance2(const float *a, const float *b, uint32_t dim)
{
	float lanes[16] = {0}, sum = 0;
	uint32_t i = 0;

	for (; i + 16 <= dim; i += 16)
		for (uint32_t j = 0; j < 16; j++)
			lanes[j] += (a[i + j] - b[i + j]) * (a[i + j] - b[i + j]);
	for (; i < dim; i++)
		sum += (a[i] - b[i]) * (a[i] - b[i]);
	for (uint32_t j = 0; j < 16; j++)
		sum += lanes[j];
	return sum;
}

struct far {
	float distance2;
	uint32_t cell;
};

static int by_distance(const void *a, const void *b)
{
	const struct far *one = a, *two = b;

	if (one->distance2 != two->distance2)
		return one->distance2 < two->distance2 ? -1 : 1;
	return (one->cell > two->cell) - (one->cell < two->cell);
}

static struct far far_of(const struct kx_ivf *ivf, const struct kx_ivf_cell *cell, const float *vector)
{
	return (struct far){kx_ivf_distance2(vector, cell->centroid, ivf->recipe.dim), cell->id};
}

#define MORE 8u /* candidates beyond what is asked for, whose distance is measured */

/* Those whose order by 8 bits is the best, and a few more. */
static size_t candidates(const struct kx_ivf *ivf, const float *vector, size_t n, struct kx_ivf_order *order,
			 struct far *ret)
{
	float rotated[KX_IVF_PADDED_MAX];
	size_t count = 0;
	uint32_t given;

	kx_ivf_rotate(&ivf->rotation, ivf->kernels, vector, rotated);
	if (kx_ivf_order_start(order, &ivf->centroids, ivf->kernels, rotated, 1.0f, true))
		return 0;
	while (count < n + MORE && (given = kx_ivf_order_next(order)) > 0) {
		for (uint32_t i = 0; i < given && count < n + MORE; i++) {
			uint32_t slot = ivf->centroids.lanes.number[(uint32_t)order->numbers[i]];

			ret[count++] = far_of(ivf, &ivf->cells[slot], vector);
		}
	}
	return count;
}

size_t kx_ivf_nearest_cells(const struct kx_ivf *ivf, const float *vector, size_t n, uint32_t *ret_cells,
			    float *ret_distance2)
{
	KX_CLEANUP(kx_cleanup_free) struct far *found = malloc((ivf->cell_count + MORE) * sizeof(*found));
	struct kx_ivf_order order = {0};
	size_t count;

	if (!found || ivf->unplaced)
		return 0;
	n = n < ivf->cell_count ? n : ivf->cell_count;
	count = candidates(ivf, vector, n, &order, found);
	kx_ivf_order_done(&order);
	qsort(found, count, sizeof(*found), by_distance);
	count = n < count ? n : count;
	for (size_t i = 0; i < count; i++) {
		ret_cells[i] = found[i].cell;
		ret_distance2[i] = found[i].distance2;
	}
	return count;
}
