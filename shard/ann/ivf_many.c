/* The nearest cell of each of many vectors: 16 centroids are brought near once and held against all of the vectors, so that a
 * batch of inserts reads the centroids once and not once a vector. */
#include <stdlib.h>

#include "shard/ann/ivf_impl.h"

#define AT_ONCE 128u /* vectors whose codes are in 8 bits at the same time */
#define KEPT 8u      /* candidates of each, by 8 bits */
#define SURE 6.0f    /* deviations of the error that rounding to 8 bits makes, beyond which a candidate is none */

/* A vector on its way. */
struct one {
	float norm2;
	uint32_t count;
	float keys[KEPT]; /* rising */
	uint32_t lanes[KEPT];
};

struct many {
	const struct kx_ivf *ivf;
	struct one *ones;               /* [AT_ONCE] */
	struct kx_ivf_eighth *eighths;  /* [AT_ONCE] */
	int8_t *codes;                  /* [AT_ONCE and some][padded] */
	uint32_t count;
};

static void many_done(struct many *many)
{
	free(many->ones);
	free(many->eighths);
	free(many->codes);
}

static kx_status many_init(struct many *many, const struct kx_ivf *ivf, size_t n)
{
	const size_t most = n < AT_ONCE ? n : AT_ONCE;

	*many = (struct many){
		.ivf = ivf,
		.ones = malloc((most + 1) * sizeof(*many->ones)),
		.eighths = malloc((most + 1) * sizeof(*many->eighths)),
		.codes = aligned_alloc(KX_IVF_PADDING, (most + KX_IVF_SOME) * ivf->rotation.padded),
	};
	if (many->ones && many->eighths && many->codes)
		return KX_OK;
	many_done(many);
	return KX_ENOMEM;
}

static void take(struct many *many, const float *vector)
{
	const struct kx_ivf *ivf = many->ivf;
	const uint32_t padded = ivf->rotation.padded;
	int8_t *codes = many->codes + (size_t)many->count * padded;
	struct kx_ivf_eighth *eighth = &many->eighths[many->count];
	struct one *one = &many->ones[many->count++];
	float rotated[KX_IVF_PADDED_MAX];

	kx_ivf_rotate(&ivf->rotation, ivf->kernels, vector, rotated);
	*eighth = kx_ivf_to_eighth(rotated, padded, 1.0f, codes);
	one->norm2 = 0.0f;
	for (uint32_t i = 0; i < padded; i++)
		one->norm2 += rotated[i] * rotated[i];
	one->count = 0;
}

static void keep(struct one *one, float key, uint32_t lane)
{
	uint32_t at = one->count < KEPT ? one->count++ : KEPT - 1;

	for (; at && one->keys[at - 1] > key; at--) {
		one->keys[at] = one->keys[at - 1];
		one->lanes[at] = one->lanes[at - 1];
	}
	one->keys[at] = key;
	one->lanes[at] = lane;
}

static void keep_some(struct one *one, const float *keys, float least, uint32_t first)
{
	float most = one->count < KEPT ? INFINITY : one->keys[KEPT - 1];

	if (least >= most)
		return;
	for (uint32_t i = 0; i < KX_IVF_LANES; i++) {
		if (keys[i] < most) {
			keep(one, keys[i], first + i);
			most = one->count < KEPT ? INFINITY : one->keys[KEPT - 1];
		}
	}
}

static void hold_against_all(struct many *many)
{
	const struct kx_ivf_lanes *lanes = &many->ivf->centroids.lanes;
	float keys[AT_ONCE * KX_IVF_LANES], least[AT_ONCE];
	const struct kx_ivf_keys ret = {keys, KX_IVF_LANES, least, 1};

	for (uint32_t group = 0; group < lanes->groups; group++) {
		const struct kx_ivf_sixteen centroids = kx_ivf_lanes_sixteen(lanes, group);

		if (!lanes->used[group])
			continue;
		many->ivf->kernels->near_some(&centroids, 1, many->eighths, many->count, &ret);
		for (uint32_t i = 0; i < many->count; i++)
			keep_some(&many->ones[i], keys + (size_t)i * KX_IVF_LANES, least[i], group * KX_IVF_LANES);
	}
}

/* How much greater a key may be than the least one's and its centroid still be the nearest: both products are off by what was
 * rounded, evenly within a step, of the vector's elements and of the centroid's. */
static float slack(const struct many *many, const struct one *one, const struct kx_ivf_eighth *eighth)
{
	const struct kx_ivf_lanes *lanes = &many->ivf->centroids.lanes;
	const float ours = eighth->scale, its = lanes->scale[one->lanes[0]];
	const float norm2 = 2.0f * lanes->offset[one->lanes[0]];
	const float both = (float)eighth->dim * ours * ours * its * its / 12.0f;

	return SURE * sqrtf(2.0f * (ours * ours * norm2 + its * its * one->norm2 + both) / 12.0f);
}

static kx_status decide(const struct many *many, size_t number, const float *vector, uint32_t *ret_cell, float *ret_distance2)
{
	const struct kx_ivf *ivf = many->ivf;
	const struct one *one = &many->ones[number];
	const float most = one->keys[0] + slack(many, one, &many->eighths[number]);
	bool found = false;

	for (uint32_t i = 0; i < one->count && one->keys[i] <= most; i++) {
		const struct kx_ivf_cell *cell = &ivf->cells[ivf->centroids.lanes.number[one->lanes[i]]];
		float distance2 = kx_ivf_distance2(vector, cell->centroid, ivf->recipe.dim);

		if (found && (distance2 > *ret_distance2 || (distance2 == *ret_distance2 && cell->id > *ret_cell)))
			continue;
		*ret_cell = cell->id;
		*ret_distance2 = distance2;
		found = true;
	}
	return found ? KX_OK : KX_EINVAL;
}

kx_status kx_ivf_nearest_each(const struct kx_ivf *ivf, const float *vectors, size_t n, uint32_t *ret_cells,
			      float *ret_distance2)
{
	const uint32_t dim = ivf->recipe.dim;
	struct many many;
	kx_status status;

	if (!ivf->cell_count || ivf->unplaced)
		return KX_EINVAL;
	status = many_init(&many, ivf, n);
	if (status)
		return status;
	for (size_t from = 0; !status && from < n; from += many.count) {
		many.count = 0;
		while (many.count < AT_ONCE && from + many.count < n)
			take(&many, vectors + (from + many.count) * dim);
		hold_against_all(&many);
		for (size_t i = 0; !status && i < many.count; i++)
			status = decide(&many, i, vectors + (from + i) * dim, &ret_cells[from + i],
					&ret_distance2[from + i]);
	}
	many_done(&many);
	return status;
}
