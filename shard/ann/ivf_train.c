/* k-means (Lloyd), in two levels where there are many cells: first about as many parts as the root of them, then each
 * part's share of the cells inside it. Products run through OpenBLAS. */
#include "shard/ann/ivf_train.h"

#include "shard/ann/ivf_impl.h"

#include <stdlib.h>

#include "common/learn/learn.h"

#define ONE_LEVEL 64u   /* so many cells and fewer are found at once */
#define ROUNDS 10u
#define POINTS 1024u    /* compared at a time */
#define POLISH 3u       /* rounds in one level after those in two */
#define PART_SAMPLE 128u /* points a part that the first level looks at */

/* Points that are to be parted. */
struct points {
	const float *values; /* [n][dim] */
	size_t n;
	uint32_t dim;
	uint64_t random;
};

struct work {
	float *products; /* [POINTS][k], of what is compared here; else NULL */
	float *norms;    /* [k], halved and squared */
	uint32_t *sizes; /* [k] */
	double *sums;    /* [k][dim] */
};

static void work_done(struct work *work)
{
	free(work->products);
	free(work->norms);
	free(work->sizes);
	free(work->sums);
}

static kx_status work_init(struct work *work, uint32_t k, uint32_t dim, bool compares)
{
	*work = (struct work){
		.products = compares ? malloc((size_t)POINTS * k * sizeof(float)) : NULL,
		.norms = malloc(k * sizeof(float)),
		.sizes = malloc(k * sizeof(uint32_t)),
		.sums = malloc((size_t)k * dim * sizeof(double)),
	};
	if ((work->products || !compares) && work->norms && work->sizes && work->sums)
		return KX_OK;
	work_done(work);
	return KX_ENOMEM;
}

static void measure(const float *centroids, uint32_t k, uint32_t dim, float *norms)
{
	for (uint32_t i = 0; i < k; i++) {
		double sum = 0;

		for (uint32_t j = 0; j < dim; j++)
			sum += (double)centroids[(size_t)i * dim + j] * (double)centroids[(size_t)i * dim + j];
		norms[i] = (float)(sum / 2);
	}
}

static uint32_t nearest(const float *products, const float *norms, uint32_t k)
{
	float most = products[0] - norms[0];
	uint32_t best = 0;

	for (uint32_t i = 1; i < k; i++) {
		float now = products[i] - norms[i];

		best = now > most ? i : best;
		most = now > most ? now : most;
	}
	return best;
}

static void assign(const struct points *points, const float *centroids, uint32_t k, struct work *work, uint32_t *of)
{
	measure(centroids, k, points->dim, work->norms);
	for (size_t from = 0; from < points->n; from += POINTS) {
		size_t count = points->n - from < POINTS ? points->n - from : POINTS;

		kx_learn_gemm_nt(points->values + from * points->dim, count, centroids, k, points->dim, work->products);
		for (size_t i = 0; i < count; i++)
			of[from + i] = nearest(work->products + i * k, work->norms, k);
	}
}

/* A centroid that nothing is near starts again at a point of the largest part. */
static void revive(struct points *points, uint32_t k, const struct work *work, const uint32_t *of, uint32_t empty,
		   float *centroids)
{
	uint32_t largest = 0;
	size_t at = (size_t)(kx_ivf_random(&points->random) % points->n);

	for (uint32_t i = 1; i < k; i++)
		largest = work->sizes[i] > work->sizes[largest] ? i : largest;
	while (of[at] != largest)
		at = at + 1 < points->n ? at + 1 : 0;
	memcpy(centroids + (size_t)empty * points->dim, points->values + at * points->dim,
	       points->dim * sizeof(float));
}

static void move(struct points *points, uint32_t k, struct work *work, const uint32_t *of, float *centroids)
{
	const uint32_t dim = points->dim;

	memset(work->sizes, 0, k * sizeof(*work->sizes));
	memset(work->sums, 0, (size_t)k * dim * sizeof(*work->sums));
	for (size_t i = 0; i < points->n; i++) {
		double *sum = work->sums + (size_t)of[i] * dim;

		work->sizes[of[i]]++;
		for (uint32_t j = 0; j < dim; j++)
			sum[j] += (double)points->values[i * dim + j];
	}
	for (uint32_t i = 0; i < k; i++) {
		if (!work->sizes[i]) {
			revive(points, k, work, of, i, centroids);
			continue;
		}
		for (uint32_t j = 0; j < dim; j++)
			centroids[(size_t)i * dim + j] = (float)(work->sums[(size_t)i * dim + j] / work->sizes[i]);
	}
}

/* k different points to start from. */
static kx_status start(struct points *points, uint32_t k, float *centroids)
{
	uint32_t *order = calloc(points->n + 1, sizeof(*order));

	if (!order)
		return KX_ENOMEM;
	for (size_t i = 0; i < points->n; i++)
		order[i] = (uint32_t)i;
	for (uint32_t i = 0; i < k; i++) {
		size_t other = i + (size_t)(kx_ivf_random(&points->random) % (points->n - i));
		uint32_t taken = order[other];

		order[other] = order[i];
		order[i] = taken;
		memcpy(centroids + (size_t)i * points->dim, points->values + (size_t)taken * points->dim,
		       points->dim * sizeof(float));
	}
	free(order);
	return KX_OK;
}

/* k <= n. of: [n], or NULL when nobody asks. */
static kx_status part(struct points *points, uint32_t k, uint32_t rounds, float *centroids, uint32_t *ret_of)
{
	KX_CLEANUP(kx_cleanup_free) uint32_t *of = calloc(points->n + 1, sizeof(*of));
	struct work work;

	if (!of || work_init(&work, k, points->dim, true))
		return KX_ENOMEM;
	if (start(points, k, centroids)) {
		work_done(&work);
		return KX_ENOMEM;
	}
	for (uint32_t round = 0; round < rounds; round++) {
		assign(points, centroids, k, &work, of);
		move(points, k, &work, of, centroids);
	}
	if (ret_of)
		assign(points, centroids, k, &work, ret_of);
	work_done(&work);
	return KX_OK;
}

kx_status kx_ivf_part(const float *values, size_t n, uint32_t dim, uint64_t seed, uint32_t k, float *ret_centroids,
		      uint32_t *ret_of)
{
	struct points points = {values, n, dim, seed};

	return part(&points, k, ROUNDS, ret_centroids, ret_of);
}

/* Every part that has points gets a cell, and whoever has the most points a cell the next, until all are given. */
static void share_out(const uint32_t *sizes, uint32_t parts, uint32_t cells, uint32_t *ret_cells)
{
	uint32_t given = 0;

	for (uint32_t i = 0; i < parts; i++)
		given += ret_cells[i] = sizes[i] > 0;
	for (; given < cells; given++) {
		uint32_t most = 0;
		double most_load = -1;

		for (uint32_t i = 0; i < parts; i++) {
			double load = (double)sizes[i] / (ret_cells[i] + 1e-9);

			if (ret_cells[i] < sizes[i] && load > most_load) {
				most = i;
				most_load = load;
			}
		}
		ret_cells[most]++;
	}
}

struct levels {
	struct points all;
	uint32_t parts;
	float *centroids; /* [parts][dim] */
	uint32_t *of;     /* [n] */
	float *values;    /* of one part */
	uint32_t *sizes, *cells; /* [parts] */
};

static void levels_done(struct levels *levels)
{
	free(levels->centroids);
	free(levels->of);
	free(levels->values);
	free(levels->sizes);
	free(levels->cells);
}

/* The first level is found on every so manieth point: it has few centroids to place. */
static kx_status first_level(struct levels *levels)
{
	const uint32_t dim = levels->all.dim;
	size_t n = levels->all.n, few = (size_t)levels->parts * PART_SAMPLE;
	struct points sample = levels->all;
	struct work work;
	kx_status status;

	sample.n = few < n ? few : n;
	for (size_t i = 0; i < sample.n; i++)
		memcpy(levels->values + i * dim, levels->all.values + i * n / sample.n * dim, dim * sizeof(float));
	sample.values = levels->values;
	status = part(&sample, levels->parts, ROUNDS, levels->centroids, NULL);
	if (status || work_init(&work, levels->parts, dim, true))
		return KX_ENOMEM;
	assign(&levels->all, levels->centroids, levels->parts, &work, levels->of);
	work_done(&work);
	for (size_t i = 0; i < n; i++)
		levels->sizes[levels->of[i]]++;
	return KX_OK;
}

static kx_status second_level(struct levels *levels, float *centroids)
{
	const uint32_t dim = levels->all.dim;

	for (uint32_t i = 0; i < levels->parts; i++) {
		struct points points = levels->all;
		kx_status status = KX_OK;

		points.n = 0;
		points.values = levels->values;
		for (size_t j = 0; j < levels->all.n; j++)
			if (levels->of[j] == i)
				memcpy(levels->values + points.n++ * dim, levels->all.values + j * dim,
				       dim * sizeof(float));
		points.random += i;
		if (levels->cells[i])
			status = part(&points, levels->cells[i], ROUNDS, centroids, NULL);
		if (status)
			return status;
		centroids += (size_t)levels->cells[i] * dim;
	}
	return KX_OK;
}

/* Each point's nearest of many centroids, through their codes in 8 bits (ivf_many.c): by products of floats it would be most of
 * what training costs. ret_distances: [n]. */
static kx_status assign_to_many(const struct points *points, const struct kx_ivf_recipe *recipe, const float *centroids,
				uint32_t cells, uint32_t *ret_of, float *ret_distances)
{
	const struct kx_ivf_options options = {.recipe = *recipe};
	KX_CLEANUP(kx_ivf_cleanup) struct kx_ivf *ivf = NULL;
	kx_status status = kx_ivf_new(&options, &ivf, NULL);

	for (uint32_t cell = 0; !status && cell < cells; cell++)
		status = kx_ivf_cell_add(ivf, cell, centroids + (size_t)cell * points->dim, false);
	if (!status)
		status = kx_ivf_cells_ready_soon(ivf); /* all centroids are gone through: regions of them would be of no use */
	return status ? status : kx_ivf_nearest_each(ivf, points->values, points->n, ret_of, ret_distances);
}

/* Borders between first-level parts are none of the data's: all centroids move once more, all points free to change. */
static kx_status polish(struct points *points, const struct kx_ivf_recipe *recipe, uint32_t cells, float *centroids)
{
	KX_CLEANUP(kx_cleanup_free) uint32_t *of = calloc(points->n + 1, sizeof(*of));
	KX_CLEANUP(kx_cleanup_free) float *distances = malloc((points->n + 1) * sizeof(*distances));
	kx_status status = KX_OK;
	struct work work;

	if (!of || !distances || work_init(&work, cells, points->dim, false))
		return KX_ENOMEM;
	for (uint32_t round = 0; !status && round < POLISH; round++) {
		status = assign_to_many(points, recipe, centroids, cells, of, distances);
		if (!status)
			move(points, cells, &work, of, centroids);
	}
	work_done(&work);
	return status;
}

static kx_status train_levels(const struct points *points, const struct kx_ivf_recipe *recipe, uint32_t cells, float *centroids)
{
	struct levels levels = {.all = *points, .parts = (uint32_t)(sqrtf((float)cells) + 0.5f)};
	kx_status status = KX_ENOMEM;

	levels.centroids = malloc((size_t)levels.parts * points->dim * sizeof(float));
	levels.of = malloc(points->n * sizeof(*levels.of));
	levels.values = malloc(points->n * points->dim * sizeof(float));
	levels.sizes = calloc(levels.parts, sizeof(*levels.sizes));
	levels.cells = calloc(levels.parts, sizeof(*levels.cells));
	if (levels.centroids && levels.of && levels.values && levels.sizes && levels.cells)
		status = first_level(&levels);
	if (!status) {
		share_out(levels.sizes, levels.parts, cells, levels.cells);
		status = second_level(&levels, centroids);
	}
	levels_done(&levels);
	return status ? status : polish(&levels.all, recipe, cells, centroids);
}

kx_status kx_ivf_train(const struct kx_ivf_recipe *recipe, const float *sample, size_t n, uint32_t cells,
		       float *ret_centroids, struct kx_error *error)
{
	struct points points = {sample, n, recipe->dim, recipe->seed};
	kx_status status;

	if (!cells || n < cells || n > UINT32_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%u cells can't be made of %zu vectors", cells, n);
	status = cells <= ONE_LEVEL ? part(&points, cells, ROUNDS, ret_centroids, NULL)
				    : train_levels(&points, recipe, cells, ret_centroids);
	return status ? kx_error_nomem(error) : KX_OK;
}
