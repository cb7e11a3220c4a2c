/* Exact search: matrix times vector over every arena that the query reaches, then the best are scored again.
 *
 * A product's last bits depend on where a row stands in its block, so rows of equal vectors could come in any order.
 * The best by product, and all within rounding of them, are scored again by one plain sum: the order is then that of
 * the scores alone, and of `order` among equals.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/learn/learn.h"
#include "shard/ann/arena.h"

#define ROUNDING 1e-4f /* more than two sums of KX_DIM_MAX products of unit vectors can differ by */

struct place {
	uint32_t arena; /* NO_ARENA: the row lacks this modality */
	uint32_t slot;
};
#define NO_ARENA UINT32_MAX

struct exact_row {
	struct place places[KX_ANN_MODALITIES];
};

struct exact {
	struct kx_ann ann;
	int (*order)(const void *ctx, uint32_t a, uint32_t b);
	const void *ctx;
	struct exact_row *rows;
	uint32_t row_count;
	struct kx_ann_arena arenas[KX_ANN_SPACES_MAX];
	uint32_t arena_count;
};

static const struct exact *exact_of(const struct kx_ann *ann)
{
	return (const struct exact *)ann;
}

static void exact_free(struct kx_ann *ann)
{
	struct exact *exact = (struct exact *)ann;

	for (uint32_t i = 0; i < exact->arena_count; i++)
		kx_ann_arena_done(&exact->arenas[i]);
	free(exact->rows);
	free(exact);
}

/* Finds the arena of a vector's space, or makes it. */
static kx_status arena_for(struct exact *exact, const struct kx_ann_vector *vector, uint32_t *ret,
			   struct kx_error *error)
{
	for (uint32_t i = 0; i < exact->arena_count; i++) {
		const struct kx_ann_arena *arena = &exact->arenas[i];

		if (!kx_ann_arena_fits(arena, vector))
			continue;
		if (arena->dim != vector->dim)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
					    "space %s has %u dimensions, a vector came with %u", arena->space, arena->dim,
					    vector->dim);
		*ret = i;
		return KX_OK;
	}
	if (exact->arena_count == KX_ANN_SPACES_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_FATAL, "more than %d embedding spaces in one shard",
				    KX_ANN_SPACES_MAX);
	kx_ann_arena_init(&exact->arenas[exact->arena_count], vector);
	*ret = exact->arena_count++;
	return KX_OK;
}

static kx_status rows_reserve(struct exact *exact, uint32_t row)
{
	uint32_t count = exact->row_count;
	struct exact_row *rows;

	if (row < count)
		return KX_OK;
	count = row + 1 > count + count / 2 ? row + 64 : count + count / 2;
	rows = realloc(exact->rows, count * sizeof(*rows));
	if (!rows)
		return KX_ENOMEM;
	for (uint32_t i = exact->row_count; i < count; i++)
		for (int m = 0; m < KX_ANN_MODALITIES; m++)
			rows[i].places[m].arena = NO_ARENA;
	exact->rows = rows;
	exact->row_count = count;
	return KX_OK;
}

static void exact_remove(struct kx_ann *ann, uint32_t row)
{
	struct exact *exact = (struct exact *)ann;

	for (int m = 0; row < exact->row_count && m < KX_ANN_MODALITIES; m++) {
		struct place *place = &exact->rows[row].places[m];
		uint32_t moved;

		if (place->arena == NO_ARENA)
			continue;
		moved = kx_ann_arena_remove(&exact->arenas[place->arena], place->slot);
		if (moved != KX_ANN_NO_ROW)
			exact->rows[moved].places[m].slot = place->slot;
		place->arena = NO_ARENA;
	}
}

static kx_status exact_put(struct kx_ann *ann, uint32_t row, const struct kx_ann_vector *vectors, size_t count,
			   struct kx_error *error)
{
	struct exact *exact = (struct exact *)ann;
	uint32_t arenas[KX_ANN_MODALITIES] = {0};

	if (count > KX_ANN_MODALITIES)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%zu vectors for one row", count);
	if (rows_reserve(exact, row))
		return kx_error_nomem(error);
	for (size_t i = 0; i < count; i++) {
		kx_status status = arena_for(exact, &vectors[i], &arenas[i], error);

		if (status)
			return status;
		if (kx_ann_arena_reserve(&exact->arenas[arenas[i]]))
			return kx_error_nomem(error);
	}
	exact_remove(ann, row);
	for (size_t i = 0; i < count; i++) {
		struct place *place = &exact->rows[row].places[vectors[i].modality - KX_VISUAL];

		place->arena = arenas[i];
		place->slot = kx_ann_arena_add(&exact->arenas[arenas[i]], row, vectors[i].values);
	}
	return KX_OK;
}

/* What a search works with, one cell a row. */
struct scratch {
	float *sum;    /* weighted cosines, then the score */
	float *weight; /* of the modalities that both have */
	float block[KX_ANN_BLOCK_ROWS];
	uint32_t *best;
};

static void scratch_done(struct scratch *scratch)
{
	free(scratch->sum);
	free(scratch->weight);
	free(scratch->best);
}

static const struct kx_ann_arena *reach(const struct exact *exact, const struct kx_ann_vector *vector)
{
	for (uint32_t i = 0; i < exact->arena_count; i++)
		if (kx_ann_arena_fits(&exact->arenas[i], vector) && exact->arenas[i].count)
			return &exact->arenas[i];
	return NULL;
}

/* No row is in the query's space. That is an error when rows are in another of the same modality. */
static kx_status check_unreached(const struct exact *exact, const struct kx_ann_vector *vector, struct kx_error *error)
{
	for (uint32_t i = 0; i < exact->arena_count; i++) {
		const struct kx_ann_arena *other = &exact->arenas[i];

		if (other->modality == vector->modality && other->count)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
					    "the query's %s vector is in space %s, what is indexed is in %s: they can't be "
					    "compared; embed the query with the bundle that the index was made with",
					    kx_modality_name(vector->modality), vector->space, other->space);
	}
	return KX_OK;
}

static void add_arena(const struct kx_ann_arena *arena, const float *values, float weight, struct scratch *scratch)
{
	for (uint32_t from = 0; from < arena->count; from += KX_ANN_BLOCK_ROWS) {
		uint32_t rows = arena->count - from < KX_ANN_BLOCK_ROWS ? arena->count - from : KX_ANN_BLOCK_ROWS;

		kx_learn_gemv(kx_ann_arena_values(arena, from), rows, arena->dim, values, scratch->block);
		for (uint32_t i = 0; i < rows; i++) {
			uint32_t row = arena->row_of[from + i];

			scratch->sum[row] += weight * scratch->block[i];
			scratch->weight[row] += weight;
		}
	}
}

static kx_status add_query(const struct exact *exact, const struct kx_ann_query *query, struct scratch *scratch,
			   struct kx_error *error)
{
	for (size_t i = 0; i < query->count; i++) {
		const struct kx_ann_vector *vector = &query->vectors[i];
		const struct kx_ann_arena *arena = reach(exact, vector);
		float weight = (float)query->weight[vector->modality - KX_VISUAL];
		kx_status status = KX_OK;

		if (!arena)
			status = check_unreached(exact, vector, error);
		else if (arena->dim != vector->dim)
			status = kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
					      "space %s has %u dimensions, the query's vector has %u", arena->space,
					      arena->dim, vector->dim);
		if (status)
			return status;
		if (arena && weight > 0.0f)
			add_arena(arena, vector->values, weight, scratch);
	}
	return KX_OK;
}

static struct kx_ann_hit score_row(const struct exact *exact, const struct kx_ann_query *query, uint32_t row)
{
	struct kx_ann_hit hit = {.row = row};

	for (size_t i = 0; i < query->count; i++) {
		const struct kx_ann_vector *vector = &query->vectors[i];
		int m = (int)vector->modality - KX_VISUAL;
		struct place place = exact->rows[row].places[m];

		if (place.arena == NO_ARENA || !kx_ann_arena_fits(&exact->arenas[place.arena], vector))
			continue;
		kx_ann_hit_share(&hit, query, vector, kx_ann_arena_values(&exact->arenas[place.arena], place.slot));
	}
	(void)kx_ann_hit_score(&hit, query); /* it shares something, or it would not be scored again */
	return hit;
}

static int compare_hits(const void *a, const void *b, void *ctx)
{
	const struct kx_ann_hit *one = a, *two = b;
	const struct exact *exact = ctx;

	if (one->score != two->score)
		return one->score > two->score ? -1 : 1;
	if (exact->order)
		return exact->order(exact->ctx, one->row, two->row);
	return (one->row > two->row) - (one->row < two->row);
}

/* Scores the rows that may be among the best k again, and writes the best. */
static kx_status pick(const struct exact *exact, const struct kx_ann_query *query, const struct scratch *scratch,
		      size_t found, struct kx_ann_hit *ret, size_t *ret_count)
{
	float least = scratch->sum[scratch->best[found - 1]] - ROUNDING;
	KX_CLEANUP(kx_cleanup_free) struct kx_ann_hit *hits = NULL;
	size_t count = 0, at = 0;

	for (uint32_t row = 0; row < exact->row_count; row++)
		count += scratch->sum[row] >= least;
	hits = malloc((count + 1) * sizeof(*hits));
	if (!hits)
		return KX_ENOMEM;
	for (uint32_t row = 0; row < exact->row_count; row++)
		if (scratch->sum[row] >= least)
			hits[at++] = score_row(exact, query, row);
	qsort_r(hits, count, sizeof(*hits), compare_hits, (void *)(uintptr_t)exact);
	*ret_count = count < query->k ? count : query->k;
	memcpy(ret, hits, *ret_count * sizeof(*hits));
	return KX_OK;
}

/* The score as it is told decides at the ceiling, not the product. */
static bool is_below(const struct exact *exact, const struct kx_ann_query *query, uint32_t row, float score)
{
	if (!query->has_ceiling || (double)(score + ROUNDING) <= query->ceiling)
		return true;
	return (double)(score - ROUNDING) <= query->ceiling && score_row(exact, query, row).score <= query->ceiling;
}

static bool may_be_found(const struct kx_ann_query *query, uint32_t row)
{
	if (row == query->exclude)
		return false;
	return !query->rows || (row < query->row_count && (query->rows[row / 64u] >> (row % 64u) & 1u));
}

/* Turns sums into scores, and rows that can't be found into -infinity. Returns how many can. */
static size_t finish_scores(const struct exact *exact, const struct kx_ann_query *query, struct scratch *scratch)
{
	size_t found = 0;

	for (uint32_t row = 0; row < exact->row_count; row++) {
		float score = scratch->weight[row] > 0.0f ? scratch->sum[row] / scratch->weight[row] : -INFINITY;
		bool found_one = scratch->weight[row] > 0.0f && may_be_found(query, row) &&
				 is_below(exact, query, row, score);

		scratch->sum[row] = found_one ? score : -INFINITY;
		found += found_one;
	}
	return found;
}

static void tell_work(const struct exact *exact, const struct scratch *scratch, struct kx_ann_work *work)
{
	*work = (struct kx_ann_work){.exact = true};
	for (uint32_t row = 0; row < exact->row_count; row++)
		work->rows += scratch->weight[row] > 0.0f;
	work->refined = work->rows;
}

static kx_status exact_search(const struct kx_ann *ann, const struct kx_ann_query *query, struct kx_ann_hit *ret,
			      size_t *ret_count, struct kx_ann_work *work, struct kx_error *error)
{
	const struct exact *exact = exact_of(ann);
	struct scratch scratch = {0};
	size_t rows = exact->row_count, found = 0;
	kx_status status = KX_OK;

	*ret_count = 0;
	if (work)
		*work = (struct kx_ann_work){.exact = true};
	if (!rows || !query->k)
		return KX_OK;
	scratch.sum = calloc(rows, sizeof(float));
	scratch.weight = calloc(rows, sizeof(float));
	scratch.best = malloc(rows * sizeof(uint32_t));
	if (!scratch.sum || !scratch.weight || !scratch.best)
		status = kx_error_nomem(error);
	if (!status)
		status = add_query(exact, query, &scratch, error);
	if (!status)
		found = finish_scores(exact, query, &scratch);
	if (!status && work)
		tell_work(exact, &scratch, work);
	if (!status && found) {
		found = kx_learn_topk(scratch.sum, rows, found < query->k ? found : query->k, scratch.best);
		if (pick(exact, query, &scratch, found, ret, ret_count))
			status = kx_error_nomem(error);
	}
	scratch_done(&scratch);
	return status;
}

static double exact_likeness(const struct kx_ann *ann, uint32_t a, uint32_t b, const double *weight)
{
	const struct exact *exact = exact_of(ann);
	double sum = 0.0, weights = 0.0;

	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		struct place one = exact->rows[a].places[m], two = exact->rows[b].places[m];
		const struct kx_ann_arena *arena = one.arena != NO_ARENA ? &exact->arenas[one.arena] : NULL;

		if (!arena || one.arena != two.arena)
			continue;
		sum += weight[m] * (double)kx_learn_dot(kx_ann_arena_values(arena, one.slot),
							kx_ann_arena_values(arena, two.slot), arena->dim);
		weights += weight[m];
	}
	return weights > 0.0 ? sum / weights : 0.0;
}

static const struct kx_ann_ops exact_ops = {
	.put = exact_put,
	.remove = exact_remove,
	.search = exact_search,
	.likeness = exact_likeness,
	.free = exact_free,
};

kx_status kx_ann_exact_new(int (*order)(const void *ctx, uint32_t a, uint32_t b), const void *ctx, struct kx_ann **ret)
{
	struct exact *exact = calloc(1, sizeof(*exact));

	if (!exact)
		return KX_ENOMEM;
	exact->ann.ops = &exact_ops;
	exact->order = order;
	exact->ctx = ctx;
	*ret = &exact->ann;
	return KX_OK;
}
