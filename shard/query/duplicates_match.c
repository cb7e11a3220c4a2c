/* Which moments are alike: as the index tells, and by comparing what it does not hold. */
#include <stdlib.h>
#include <string.h>

#include "common/learn/learn.h"
#include "shard/query/duplicates_internal.h"

#define ROWS_BLOCK 256u
#define COLS_BLOCK 1024u
#define SLACK 0.1f /* a moment that is off the other's grid is less alike than its frames are */

/* --- Pairs of moments -------------------------------------------------------------------------------------------- */

static bool are_comparable(const struct kx_dup_video *a, const struct kx_dup_video *b)
{
	return a->modality == b->modality && a->dim == b->dim && strcmp(a->space, b->space) == 0;
}

static int by_moments(const void *one, const void *two)
{
	const struct kx_dup_near *a = one, *b = two;

	if (a->a != b->a)
		return a->a < b->a ? -1 : 1;
	return (a->b > b->b) - (a->b < b->b);
}

void kx_dup_nears_unite(struct kx_dup_nears *nears)
{
	size_t kept = 0;

	if (nears->count)
		qsort(nears->list, nears->count, sizeof(*nears->list), by_moments);
	for (size_t i = 0; i < nears->count; i++)
		if (!kept || by_moments(&nears->list[kept - 1], &nears->list[i]) != 0)
			nears->list[kept++] = nears->list[i];
	nears->count = kept;
}

/* Many are found from both sides: before there is no more room, each is kept once. */
static kx_status nears_reserve(struct kx_dup_nears *nears, struct kx_error *error)
{
	size_t cap = nears->cap ? nears->cap * 2 : 1024;
	struct kx_dup_near *list;

	if (nears->count < nears->cap)
		return KX_OK;
	if (nears->cap == KX_DUPLICATES_MATCHES_MAX) {
		kx_dup_nears_unite(nears);
		if (nears->count <= KX_DUPLICATES_MATCHES_MAX / 10 * 9)
			return KX_OK;
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "more than %u moments are alike; raise the threshold", KX_DUPLICATES_MATCHES_MAX);
	}
	cap = cap < KX_DUPLICATES_MATCHES_MAX ? cap : KX_DUPLICATES_MATCHES_MAX;
	list = realloc(nears->list, cap * sizeof(*list));
	if (!list)
		return kx_error_nomem(error);
	nears->list = list;
	nears->cap = cap;
	return KX_OK;
}

kx_status kx_dup_near_add(const struct kx_dup_set *set, struct kx_dup_nears *nears, uint32_t i, uint32_t j,
			  struct kx_error *error)
{
	uint32_t a = set->video_of[i], b = set->video_of[j];
	kx_status status;

	if (a == b || !are_comparable(&set->videos[a], &set->videos[b]))
		return KX_OK;
	status = nears_reserve(nears, error);
	if (!status)
		nears->list[nears->count++] = (struct kx_dup_near){i < j ? i : j, i < j ? j : i};
	return status;
}

/* --- Each with each ---------------------------------------------------------------------------------------------- */

struct comparing {
	const struct kx_dup_set *set;
	float least;
	uint32_t *list; /* moments that have codes, rising */
	uint32_t count;
	float *rows, *cols, *scores;
	struct kx_dup_nears *nears;
};

/* Unit vectors of places [from, to) of the list, each `dim` wide; those of another width are zero. */
static void unpack(const struct comparing *with, uint32_t from, uint32_t to, uint32_t dim, float *out)
{
	const struct kx_dup_set *set = with->set;

	for (uint32_t i = from; i < to; i++, out += dim) {
		uint32_t moment = with->list[i];

		if (set->videos[set->video_of[moment]].dim != dim) {
			memset(out, 0, dim * sizeof(*out));
			continue;
		}
		kx_learn_dequantize_i8(set->codes[moment], dim, set->scale[moment], out);
		(void)kx_learn_normalize(out, dim);
	}
}

static kx_status compare_blocks(struct comparing *with, uint32_t rows_from, uint32_t rows_to, uint32_t cols_from,
				uint32_t cols_to, uint32_t dim, struct kx_error *error)
{
	uint32_t rows = rows_to - rows_from, cols = cols_to - cols_from;

	unpack(with, cols_from, cols_to, dim, with->cols);
	kx_learn_gemm_nt(with->rows, rows, with->cols, cols, dim, with->scores);
	for (uint32_t i = 0; i < rows; i++)
		for (uint32_t j = 0; j < cols; j++) {
			kx_status status;

			if (with->scores[(size_t)i * cols + j] < with->least || cols_from + j <= rows_from + i)
				continue;
			status = kx_dup_near_add(with->set, with->nears, with->list[rows_from + i], with->list[cols_from + j],
						 error);
			if (status)
				return status;
		}
	return KX_OK;
}

static kx_status compare_dim(struct comparing *with, uint32_t dim, const struct kx_stop *stop, struct kx_error *error)
{
	uint32_t count = with->count;

	for (uint32_t row = 0; row < count; row += ROWS_BLOCK) {
		uint32_t rows_to = count - row < ROWS_BLOCK ? count : row + ROWS_BLOCK;

		if (stop && kx_stop_asked(stop))
			return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopped");
		unpack(with, row, rows_to, dim, with->rows);
		for (uint32_t col = row; col < count; col += COLS_BLOCK) {
			uint32_t cols_to = count - col < COLS_BLOCK ? count : col + COLS_BLOCK;
			kx_status status = compare_blocks(with, row, rows_to, col, cols_to, dim, error);

			if (status)
				return status;
		}
	}
	return KX_OK;
}

/* Each width that there is, once. */
static kx_status compare_all(struct comparing *with, const struct kx_stop *stop, struct kx_error *error)
{
	const struct kx_dup_set *set = with->set;
	bool done[KX_DIM_MAX + 1] = {false};
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < with->count; i++) {
		uint32_t dim = set->videos[set->video_of[with->list[i]]].dim;

		if (done[dim])
			continue;
		done[dim] = true;
		status = compare_dim(with, dim, stop, error);
	}
	return status;
}

kx_status kx_dup_compare(const struct kx_dup_set *set, const struct kx_duplicates_options *options, float least,
			 struct kx_dup_nears *nears, uint64_t *ret_count, struct kx_error *error)
{
	struct comparing with = {.set = set, .least = least, .nears = nears};
	kx_status status = KX_OK;

	with.list = malloc((set->moment_count + 1u) * sizeof(*with.list));
	with.rows = malloc((size_t)ROWS_BLOCK * KX_DIM_MAX * sizeof(float));
	with.cols = malloc((size_t)COLS_BLOCK * KX_DIM_MAX * sizeof(float));
	with.scores = malloc((size_t)ROWS_BLOCK * COLS_BLOCK * sizeof(float));
	if (!with.list || !with.rows || !with.cols || !with.scores)
		status = kx_error_nomem(error);
	for (uint32_t i = 0; !status && i < set->moment_count; i++)
		if (set->codes[i])
			with.list[with.count++] = i;
	if (!status)
		status = compare_all(&with, options->stop, error);
	*ret_count = with.count;
	free(with.list);
	free(with.rows);
	free(with.cols);
	free(with.scores);
	return status;
}

/* --- Votes ------------------------------------------------------------------------------------------------------- */

static struct kx_dup_match match_of(const struct kx_dup_set *set, const struct kx_dup_near *near)
{
	uint32_t a = set->video_of[near->a], b = set->video_of[near->b];

	return (struct kx_dup_match){.a = a,
				     .b = b,
				     .offset_us = (int64_t)(set->index[near->b] * set->videos[b].moment_us) -
						  (int64_t)(set->index[near->a] * set->videos[a].moment_us)};
}

static int by_pair(const void *one, const void *two)
{
	const struct kx_dup_match *a = one, *b = two;

	if (a->a != b->a)
		return a->a < b->a ? -1 : 1;
	if (a->b != b->b)
		return a->b < b->b ? -1 : 1;
	return (a->offset_us > b->offset_us) - (a->offset_us < b->offset_us);
}

kx_status kx_dup_match(struct kx_store *store, struct kx_dup_set *set, const struct kx_duplicates_options *options,
		       struct kx_dup_match **ret, size_t *ret_count, uint64_t *ret_compared, struct kx_error *error)
{
	const float least = (float)options->threshold - SLACK;
	struct kx_dup_nears nears = {0};
	struct kx_dup_match *list = NULL;
	kx_status status = options->index ? kx_dup_ask(store, options, set, least, &nears, error) : KX_OK;

	if (!status)
		status = kx_dup_compare(set, options, least, &nears, ret_compared, error);
	kx_dup_nears_unite(&nears);
	if (!status) {
		list = malloc((nears.count + 1) * sizeof(*list));
		if (!list)
			status = kx_error_nomem(error);
	}
	for (size_t i = 0; !status && i < nears.count; i++)
		list[i] = match_of(set, &nears.list[i]);
	free(nears.list);
	if (status)
		return status;
	if (nears.count)
		qsort(list, nears.count, sizeof(*list), by_pair);
	*ret = list;
	*ret_count = nears.count;
	return KX_OK;
}
