/* The nearest cell of each of many vectors: 16 centroids are brought near once and held against eight of the vectors at a
 * time, so that a batch of inserts reads the centroids once and not once a vector. */
#include <stdlib.h>

#include "shard/ann/ivf_impl.h"

#define AT_ONCE 128u /* vectors whose codes are in 8 bits at the same time */
#define EIGHT 8u
#define KEPT 8u      /* candidates of each, by 8 bits */
#define SURE 6.0f    /* deviations of the error that rounding to 8 bits makes, beyond which a candidate is none */

/* A vector on its way. */
struct one {
	struct kx_ivf_eighth eighth;
	float norm2;
	uint32_t count;
	float keys[KEPT]; /* rising */
	uint32_t lanes[KEPT];
};

struct many {
	const struct kx_ivf *ivf;
	struct one *ones; /* [AT_ONCE] */
	int8_t *codes;    /* [AT_ONCE][padded] */
	uint32_t count;
};

static void many_done(struct many *many)
{
	free(many->ones);
	free(many->codes);
}

static kx_status many_init(struct many *many, const struct kx_ivf *ivf, size_t n)
{
	const size_t most = n < AT_ONCE ? n : AT_ONCE;

	*many = (struct many){
		.ivf = ivf,
		.ones = malloc((most + EIGHT) * sizeof(*many->ones)),
		.codes = malloc(most * ivf->rotation.padded),
	};
	if (many->ones && many->codes)
		return KX_OK;
	many_done(many);
	return KX_ENOMEM;
}

static void take(struct many *many, const float *vector)
{
	const struct kx_ivf *ivf = many->ivf;
	const uint32_t padded = ivf->rotation.padded;
	int8_t *codes = many->codes + (size_t)many->count * padded;
	struct one *one = &many->ones[many->count++];
	float rotated[KX_IVF_PADDED_MAX];

	kx_ivf_rotate(&ivf->rotation, ivf->kernels, vector, rotated);
	one->eighth = kx_ivf_to_eighth(rotated, padded, 1.0f, codes);
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

/* Keys of 16 centroids for each of up to eight vectors; the least of each. */
typedef void (*near_eight_fn)(const struct kx_ivf_kernels *kernels, const struct kx_ivf_sixteen *centroids,
			      const struct one *ones, uint32_t count, float keys[EIGHT][KX_IVF_LANES], float least[EIGHT]);

static void near_one_by_one(const struct kx_ivf_kernels *kernels, const struct kx_ivf_sixteen *centroids,
			    const struct one *ones, uint32_t count, float keys[EIGHT][KX_IVF_LANES], float least[EIGHT])
{
	float products[KX_IVF_LANES];

	for (uint32_t i = 0; i < count; i++)
		least[i] = kernels->near(centroids, &ones[i].eighth, keys[i], products);
}

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

TARGET static void near_eight(const struct kx_ivf_kernels *kernels, const struct kx_ivf_sixteen *centroids,
			      const struct one *ones, uint32_t count, float keys[EIGHT][KX_IVF_LANES], float least[EIGHT])
{
	const uint32_t dim = ones[0].eighth.dim;
	const __m512 scale = _mm512_loadu_ps(centroids->scale), offset = _mm512_loadu_ps(centroids->offset);
	const int8_t *codes[EIGHT];
	__m512i sums[EIGHT];

	(void)kernels;
	for (uint32_t j = 0; j < EIGHT; j++) {
		codes[j] = ones[j < count ? j : 0].eighth.codes;
		sums[j] = _mm512_setzero_si512();
	}
	for (uint32_t i = 0; i < dim; i += 4) {
		const __m512i four = _mm512_load_si512(centroids->codes + (size_t)i * KX_IVF_LANES);

		for (uint32_t j = 0; j < EIGHT; j++) {
			int32_t of_one;

			memcpy(&of_one, codes[j] + i, sizeof(of_one));
			sums[j] = _mm512_dpbusd_epi32(sums[j], four, _mm512_set1_epi32(of_one));
		}
	}
	for (uint32_t j = 0; j < count; j++) {
		const struct kx_ivf_eighth *one = &ones[j].eighth;
		__m512 sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[j], _mm512_set1_epi32(one->zero)));
		__m512 product = _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(one->scale), scale), sum);
		__m512 key = _mm512_sub_ps(_mm512_mul_ps(_mm512_set1_ps(one->weight), offset), product);

		_mm512_storeu_ps(keys[j], key);
		least[j] = _mm512_reduce_min_ps(key);
	}
}

static near_eight_fn near_fn(const struct kx_ivf_kernels *kernels)
{
	return kernels == kx_ivf_kernels_avx512() ? near_eight : near_one_by_one;
}
#else
static near_eight_fn near_fn(const struct kx_ivf_kernels *kernels)
{
	(void)kernels;
	return near_one_by_one;
}
#endif

static void hold_against_all(struct many *many)
{
	const struct kx_ivf_lanes *lanes = &many->ivf->centroids.lanes;
	const near_eight_fn near = near_fn(many->ivf->kernels);
	float keys[EIGHT][KX_IVF_LANES], least[EIGHT];

	for (uint32_t group = 0; group < lanes->groups; group++) {
		const struct kx_ivf_sixteen centroids = kx_ivf_lanes_sixteen(lanes, group);

		if (!lanes->used[group])
			continue;
		for (uint32_t i = 0; i < many->count; i += EIGHT) {
			uint32_t count = many->count - i < EIGHT ? many->count - i : EIGHT;

			near(many->ivf->kernels, &centroids, many->ones + i, count, keys, least);
			for (uint32_t j = 0; j < count; j++)
				keep_some(&many->ones[i + j], keys[j], least[j], group * KX_IVF_LANES);
		}
	}
}

/* How much greater a key may be than the least one's and its centroid still be the nearest: both products are off by what was
 * rounded, evenly within a step, of the vector's elements and of the centroid's. */
static float slack(const struct many *many, const struct one *one)
{
	const struct kx_ivf_lanes *lanes = &many->ivf->centroids.lanes;
	const float ours = one->eighth.scale, its = lanes->scale[one->lanes[0]];
	const float norm2 = 2.0f * lanes->offset[one->lanes[0]];
	const float both = (float)one->eighth.dim * ours * ours * its * its / 12.0f;

	return SURE * sqrtf(2.0f * (ours * ours * norm2 + its * its * one->norm2 + both) / 12.0f);
}

static kx_status decide(const struct many *many, const struct one *one, const float *vector, uint32_t *ret_cell,
			float *ret_distance2)
{
	const struct kx_ivf *ivf = many->ivf;
	bool found = false;

	for (uint32_t i = 0; i < one->count && one->keys[i] <= one->keys[0] + slack(many, one); i++) {
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
			status = decide(&many, &many.ones[i], vectors + (from + i) * dim, &ret_cells[from + i],
					&ret_distance2[from + i]);
	}
	many_done(&many);
	return status;
}
