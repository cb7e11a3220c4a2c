/* Moments into memory, and which of them are alike. */
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "common/learn/learn.h"
#include "shard/query/duplicates_internal.h"

#define ROWS_BLOCK 256u
#define COLS_BLOCK 1024u
#define SLACK 0.1f /* a moment that is off the other's grid is less alike than its frames are */

void kx_dup_set_done(struct kx_dup_set *set)
{
	for (uint32_t i = 0; i < set->video_count; i++)
		free(set->videos[i].id);
	for (uint32_t i = 0; i < set->moment_count; i++)
		free(set->codes[i]);
	free(set->videos);
	free(set->video_of);
	free(set->index);
	free(set->scale);
	free(set->codes);
	*set = (struct kx_dup_set){0};
}

struct loading {
	struct kx_store *store;
	struct kx_dup_set *set;
	const struct kx_duplicates_options *options;
};

static kx_status grow(void *array, size_t size, size_t count)
{
	void **at = array, *grown = realloc(*at, size * count);

	if (!grown)
		return KX_ENOMEM;
	*at = grown;
	return KX_OK;
}

static kx_status moments_reserve(struct kx_dup_set *set)
{
	uint32_t cap = set->moment_cap ? set->moment_cap * 2 : 1024;

	if (set->moment_count < set->moment_cap)
		return KX_OK;
	if (grow(&set->video_of, sizeof(uint32_t), cap) || grow(&set->index, sizeof(uint32_t), cap) ||
	    grow(&set->scale, sizeof(float), cap) || grow(&set->codes, sizeof(int8_t *), cap))
		return KX_ENOMEM;
	set->moment_cap = cap;
	return KX_OK;
}

/* The last video of the set is being loaded. */
static kx_status add_moment(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	struct kx_dup_set *set = ((struct loading *)ctx)->set;
	struct kx_dup_video *video = &set->videos[set->video_count - 1];
	uint32_t at = set->moment_count;

	if (summary->modality != video->modality || summary->dim != video->dim || strcmp(summary->space, video->space) != 0 ||
	    summary->scale <= 0.0f)
		return KX_OK;
	if (at == KX_DUPLICATES_MOMENTS_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "more than %u moments: that many are not compared with one another", KX_DUPLICATES_MOMENTS_MAX);
	if (moments_reserve(set))
		return kx_error_nomem(error);
	set->codes[at] = malloc(summary->dim);
	if (!set->codes[at])
		return kx_error_nomem(error);
	memcpy(set->codes[at], summary->embedding, summary->dim);
	set->scale[at] = summary->scale;
	set->index[at] = summary->index;
	set->video_of[at] = set->video_count - 1;
	set->moment_count++;
	video->count++;
	return KX_OK;
}

static kx_status add_video(void *ctx, const struct kx_video_record *record, struct kx_error *error)
{
	struct loading *loading = ctx;
	struct kx_dup_set *set = loading->set;
	const struct kx_modality_result *part = &record->result.modalities[0]; /* visual first */
	struct kx_dup_video *video;

	if (loading->options->stop && kx_stop_asked(loading->options->stop))
		return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopped");
	if (set->video_count == set->video_cap) {
		uint32_t cap = set->video_cap ? set->video_cap * 2 : 256;

		if (grow(&set->videos, sizeof(*set->videos), cap))
			return kx_error_nomem(error);
		set->video_cap = cap;
	}
	video = &set->videos[set->video_count];
	*video = (struct kx_dup_video){.id = kx_strdup(record->result.video_id),
				    .generation = record->generation,
				    .duration_us = record->result.duration_us,
				    .moment_us = record->result.moment_us,
				    .modality = part->modality,
				    .dim = part->dim,
				    .first = set->moment_count};
	if (!video->id)
		return kx_error_nomem(error);
	strncpy(video->space, part->space, sizeof(video->space) - 1);
	set->video_count++;
	return kx_store_each_summary(loading->store, record->result.video_id, record->generation, add_moment, loading, error);
}

kx_status kx_dup_load(struct kx_store *store, const struct kx_duplicates_options *options, struct kx_dup_set *set,
		   struct kx_error *error)
{
	struct loading loading = {store, set, options};

	return kx_store_each_video(store, add_video, &loading, error);
}

/* --- Moments that are alike ----------------------------------------------------------------------------------- */

struct matching {
	const struct kx_dup_set *set;
	float least;
	float *rows, *cols, *scores;
	struct kx_dup_match *list;
	size_t count, cap;
};

/* Unit vectors of moments [from, to), each `dim` wide; those of another width are zero. */
static void unpack(const struct kx_dup_set *set, uint32_t from, uint32_t to, uint32_t dim, float *out)
{
	for (uint32_t i = from; i < to; i++, out += dim) {
		if (set->videos[set->video_of[i]].dim != dim) {
			memset(out, 0, dim * sizeof(*out));
			continue;
		}
		kx_learn_dequantize_i8(set->codes[i], dim, set->scale[i], out);
		(void)kx_learn_normalize(out, dim);
	}
}

static bool are_comparable(const struct kx_dup_video *a, const struct kx_dup_video *b)
{
	return a->modality == b->modality && a->dim == b->dim && strcmp(a->space, b->space) == 0;
}

static kx_status add_match(struct matching *with, uint32_t i, uint32_t j, struct kx_error *error)
{
	const struct kx_dup_set *set = with->set;
	uint32_t a = set->video_of[i], b = set->video_of[j];

	if (a == b || !are_comparable(&set->videos[a], &set->videos[b]))
		return KX_OK;
	if (with->count == KX_DUPLICATES_MATCHES_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "more than %u moments are alike; raise the threshold", KX_DUPLICATES_MATCHES_MAX);
	if (with->count == with->cap) {
		size_t cap = with->cap ? with->cap * 2 : 1024;

		if (grow(&with->list, sizeof(*with->list), cap))
			return kx_error_nomem(error);
		with->cap = cap;
	}
	with->list[with->count++] =
		(struct kx_dup_match){.a = a,
				   .b = b,
				   .offset_us = (int64_t)(set->index[j] * set->videos[b].moment_us) -
						(int64_t)(set->index[i] * set->videos[a].moment_us)};
	return KX_OK;
}

static kx_status compare_blocks(struct matching *with, uint32_t rows_from, uint32_t rows_to, uint32_t cols_from,
				uint32_t cols_to, uint32_t dim, struct kx_error *error)
{
	uint32_t rows = rows_to - rows_from, cols = cols_to - cols_from;

	unpack(with->set, cols_from, cols_to, dim, with->cols);
	kx_learn_gemm_nt(with->rows, rows, with->cols, cols, dim, with->scores);
	for (uint32_t i = 0; i < rows; i++)
		for (uint32_t j = 0; j < cols; j++) {
			kx_status status;

			if (with->scores[(size_t)i * cols + j] < with->least || cols_from + j <= rows_from + i)
				continue;
			status = add_match(with, rows_from + i, cols_from + j, error);
			if (status)
				return status;
		}
	return KX_OK;
}

static kx_status compare_dim(struct matching *with, uint32_t dim, const struct kx_stop *stop, struct kx_error *error)
{
	uint32_t count = with->set->moment_count;

	for (uint32_t row = 0; row < count; row += ROWS_BLOCK) {
		uint32_t rows_to = count - row < ROWS_BLOCK ? count : row + ROWS_BLOCK;

		if (stop && kx_stop_asked(stop))
			return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopped");
		unpack(with->set, row, rows_to, dim, with->rows);
		for (uint32_t col = row; col < count; col += COLS_BLOCK) {
			uint32_t cols_to = count - col < COLS_BLOCK ? count : col + COLS_BLOCK;
			kx_status status = compare_blocks(with, row, rows_to, col, cols_to, dim, error);

			if (status)
				return status;
		}
	}
	return KX_OK;
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

/* Each width that there is, once. */
static kx_status compare_all(struct matching *with, const struct kx_stop *stop, struct kx_error *error)
{
	const struct kx_dup_set *set = with->set;

	for (uint32_t i = 0; i < set->video_count; i++) {
		uint32_t dim = set->videos[i].dim;
		bool is_first = set->videos[i].count > 0;
		kx_status status;

		for (uint32_t j = 0; is_first && j < i; j++)
			is_first = set->videos[j].dim != dim || !set->videos[j].count;
		if (!is_first)
			continue;
		status = compare_dim(with, dim, stop, error);
		if (status)
			return status;
	}
	return KX_OK;
}

kx_status kx_dup_match(const struct kx_dup_set *set, const struct kx_duplicates_options *options, struct kx_dup_match **ret,
		    size_t *ret_count, struct kx_error *error)
{
	struct matching with = {.set = set, .least = (float)options->threshold - SLACK};
	kx_status status = KX_OK;

	with.rows = malloc((size_t)ROWS_BLOCK * KX_DIM_MAX * sizeof(float));
	with.cols = malloc((size_t)COLS_BLOCK * KX_DIM_MAX * sizeof(float));
	with.scores = malloc((size_t)ROWS_BLOCK * COLS_BLOCK * sizeof(float));
	if (!with.rows || !with.cols || !with.scores)
		status = kx_error_nomem(error);
	if (!status)
		status = compare_all(&with, options->stop, error);
	free(with.rows);
	free(with.cols);
	free(with.scores);
	if (status) {
		free(with.list);
		return status;
	}
	if (with.count)
		qsort(with.list, with.count, sizeof(*with.list), by_pair);
	*ret = with.list;
	*ret_count = with.count;
	return KX_OK;
}
