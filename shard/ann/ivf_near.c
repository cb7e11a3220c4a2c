/* Which cells are near a vector. */
#include <stdlib.h>

#include "shard/ann/ivf_impl.h"

/* What all centroids are put into lanes from, and the lanes. */
struct kx_ivf_arranged {
	float *rotated, *offsets;
	uint32_t *slots, *lanes;
	uint32_t count;
	struct kx_ivf_centroids centroids;
};

static void arranged_free(struct kx_ivf_arranged *arranged)
{
	free(arranged->rotated);
	free(arranged->offsets);
	free(arranged->slots);
	free(arranged->lanes);
	kx_ivf_centroids_done(&arranged->centroids);
	free(arranged);
}

static kx_status arrange(const struct kx_ivf *ivf, bool flat, struct kx_ivf_arranged *to)
{
	const uint32_t padded = ivf->rotation.padded;

	to->rotated = malloc(((size_t)ivf->cell_count * padded + 1) * sizeof(float));
	to->offsets = malloc((ivf->cell_count + 1u) * sizeof(float));
	to->slots = malloc((ivf->cell_count + 1u) * sizeof(uint32_t));
	to->lanes = malloc((ivf->cell_count + 1u) * sizeof(uint32_t));
	if (!to->rotated || !to->offsets || !to->slots || !to->lanes)
		return KX_ENOMEM;
	for (uint32_t slot = 0; slot < ivf->slot_count; slot++) {
		const struct kx_ivf_cell *cell = &ivf->cells[slot];

		if (cell->id == KX_IVF_NO_CELL)
			continue;
		kx_ivf_rotate(&ivf->rotation, ivf->kernels, cell->centroid, to->rotated + (size_t)to->count * padded);
		to->offsets[to->count] = cell->norm2 / 2;
		to->slots[to->count++] = slot;
	}
	return kx_ivf_centroids_build(&to->centroids, to->rotated, to->offsets, to->slots, to->count, padded,
				      ivf->recipe.seed, flat, to->lanes);
}

static kx_status arranged_new(const struct kx_ivf *ivf, bool flat, struct kx_ivf_arranged **ret)
{
	struct kx_ivf_arranged *arranged = calloc(1, sizeof(*arranged));
	kx_status status = arranged ? arrange(ivf, flat, arranged) : KX_ENOMEM;

	if (!status)
		*ret = arranged;
	else if (arranged)
		arranged_free(arranged);
	return status;
}

kx_status kx_ivf_arrange(const struct kx_ivf *ivf, struct kx_ivf_arranged **ret)
{
	return arranged_new(ivf, false, ret);
}

void kx_ivf_arrange_apply(struct kx_ivf *ivf, struct kx_ivf_arranged *arranged)
{
	const struct kx_ivf_centroids were = ivf->centroids;

	for (uint32_t i = 0; i < arranged->count; i++)
		ivf->cells[arranged->slots[i]].lane = arranged->lanes[i];
	ivf->centroids = arranged->centroids;
	arranged->centroids = were;
	ivf->unplaced = 0;
	ivf->version++; /* lanes are others, which maps of filters name */
	arranged_free(arranged);
}

static kx_status place_all(struct kx_ivf *ivf, bool flat)
{
	struct kx_ivf_arranged *arranged;
	kx_status status = arranged_new(ivf, flat, &arranged);

	if (status)
		ivf->version++;
	else
		kx_ivf_arrange_apply(ivf, arranged);
	return status;
}

kx_status kx_ivf_cells_ready_soon(struct kx_ivf *ivf)
{
	return place_all(ivf, true);
}

bool kx_ivf_cells_flat(const struct kx_ivf *ivf)
{
	return ivf->centroids.flat;
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
	if (!kx_ivf_centroids_stale(&ivf->centroids) && ivf->unplaced < KX_IVF_LANES + ivf->cell_count / 8)
		return place_new(ivf);
	return place_all(ivf, false);
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
