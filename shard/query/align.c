#include "shard/query/align.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/learn/learn.h"

#define BLOCK_ROWS 256u /* of ours at a time: bounds the score matrix */
#define ABSENT UINT32_MAX

void kx_align_side_done(struct kx_align_side *side)
{
	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		free(side->tracks[m].index);
		free(side->tracks[m].values);
	}
	*side = (struct kx_align_side){0};
}

static kx_status track_reserve(struct kx_align_track *track)
{
	uint32_t cap = track->cap ? track->cap * 2 : 32;
	uint32_t *index;
	float *values;

	if (track->count < track->cap)
		return KX_OK;
	index = realloc(track->index, cap * sizeof(*index));
	if (!index)
		return KX_ENOMEM;
	track->index = index;
	values = realloc(track->values, (size_t)cap * track->dim * sizeof(*values));
	if (!values)
		return KX_ENOMEM;
	track->values = values;
	track->cap = cap;
	return KX_OK;
}

static kx_status check_moment(const struct kx_align_track *track, enum kx_modality modality, const char *space,
			      uint32_t dim, uint32_t index, const float *values, struct kx_error *error)
{
	const char *name = kx_modality_name(modality);

	for (uint32_t i = 0; i < dim; i++)
		if (!isfinite(values[i]))
			return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
					    "%s moment %u holds a value that is no number", name, index);
	if (!track->cap)
		return KX_OK;
	if (strcmp(track->space, space) != 0 || track->dim != dim)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "%s moment %u is in space %s (%u dimensions), those before it in %s (%u)", name,
				    index, space, dim, track->space, track->dim);
	if (track->count && index <= track->index[track->count - 1])
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%s moment %u comes after %u", name, index,
				    track->index[track->count - 1]);
	return KX_OK;
}

kx_status kx_align_add(struct kx_align_side *side, enum kx_modality modality, const char *space, uint32_t dim,
		       uint32_t index, const float *values, struct kx_error *error)
{
	struct kx_align_track *track = &side->tracks[modality - KX_VISUAL];
	kx_status status = check_moment(track, modality, space, dim, index, values, error);
	float *to;

	if (status)
		return status;
	if (!track->cap) {
		track->dim = dim;
		strncpy(track->space, space, sizeof(track->space) - 1);
	}
	if (track_reserve(track))
		return kx_error_nomem(error);
	to = track->values + (size_t)track->count * track->dim;
	memcpy(to, values, dim * sizeof(*to));
	if (kx_learn_normalize(to, dim) > 0.0f)
		track->index[track->count++] = index;
	return KX_OK;
}

/* One modality of a comparison. Positions are those of the merged time axes below. */
struct pair {
	const struct kx_align_track *ours, *theirs;
	float weight; /* 0: not compared */
	float *scores; /* [rows of the block][theirs->count] */
};

/* The moments of a side in any modality, by rising index, and where each stands in its tracks. */
struct axis {
	uint32_t count;
	uint32_t *index;
	uint32_t *at[KX_ANN_MODALITIES]; /* ABSENT where the modality is not there */
};

static void axis_done(struct axis *axis)
{
	free(axis->index);
	free(axis->at[0]);
	free(axis->at[1]);
}

static kx_status axis_init(struct axis *axis, const struct kx_align_side *side)
{
	const struct kx_align_track *a = &side->tracks[0], *b = &side->tracks[1];
	size_t most = (size_t)a->count + b->count + 1;
	uint32_t i = 0, j = 0;

	axis->index = malloc(most * sizeof(uint32_t));
	axis->at[0] = malloc(most * sizeof(uint32_t));
	axis->at[1] = malloc(most * sizeof(uint32_t));
	if (!axis->index || !axis->at[0] || !axis->at[1])
		return KX_ENOMEM;
	while (i < a->count || j < b->count) {
		uint32_t next_a = i < a->count ? a->index[i] : ABSENT;
		uint32_t next_b = j < b->count ? b->index[j] : ABSENT;
		uint32_t next = next_a < next_b ? next_a : next_b;

		axis->index[axis->count] = next;
		axis->at[0][axis->count] = next_a == next ? i++ : ABSENT;
		axis->at[1][axis->count] = next_b == next ? j++ : ABSENT;
		axis->count++;
	}
	return KX_OK;
}

/* What an alignment works with. best[j]: the best match of their moment j so far. */
struct work {
	struct axis ours, theirs;
	struct pair pairs[KX_ANN_MODALITIES];
	struct kx_moment_match *best;
	bool *found;
};

static void work_done(struct work *work)
{
	axis_done(&work->ours);
	axis_done(&work->theirs);
	for (int m = 0; m < KX_ANN_MODALITIES; m++)
		free(work->pairs[m].scores);
	free(work->best);
	free(work->found);
}

static kx_status work_init(struct work *work, const struct kx_align_side *ours, const struct kx_align_side *theirs,
			   const double *weight)
{
	if (axis_init(&work->ours, ours) || axis_init(&work->theirs, theirs))
		return KX_ENOMEM;
	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		struct pair *pair = &work->pairs[m];

		pair->ours = &ours->tracks[m];
		pair->theirs = &theirs->tracks[m];
		if (!pair->ours->count || !pair->theirs->count || pair->ours->dim != pair->theirs->dim ||
		    strcmp(pair->ours->space, pair->theirs->space) != 0)
			continue;
		pair->weight = (float)weight[m];
		pair->scores = malloc((size_t)BLOCK_ROWS * pair->theirs->count * sizeof(float));
		if (!pair->scores)
			return KX_ENOMEM;
	}
	work->best = calloc(work->theirs.count + 1u, sizeof(*work->best));
	work->found = calloc(work->theirs.count + 1u, sizeof(*work->found));
	return work->best && work->found ? KX_OK : KX_ENOMEM;
}

static double rounded(double value)
{
	return round(value * 1e6) / 1e6;
}

/* first[m]: the row of our track m that scores row 0 is of. */
static bool match_pair(const struct work *work, const uint32_t *first, uint32_t i, uint32_t j,
		       struct kx_moment_match *ret)
{
	double share[KX_ANN_MODALITIES] = {0}, weights = 0.0;

	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		const struct pair *pair = &work->pairs[m];
		uint32_t a = work->ours.at[m][i], b = work->theirs.at[m][j];

		if (pair->weight <= 0.0f || a == ABSENT || b == ABSENT)
			continue;
		share[m] = (double)pair->weight * (double)pair->scores[(size_t)(a - first[m]) * pair->theirs->count + b];
		weights += (double)pair->weight;
	}
	if (weights <= 0.0)
		return false;
	ret->visual = rounded(share[0] / weights);
	ret->audio = rounded(share[1] / weights);
	ret->score = ret->visual + ret->audio;
	return true;
}

/* Products of our moments [from, to) of the axis with all of theirs. */
static void score_block(struct work *work, uint32_t from, uint32_t to, uint32_t *ret_first)
{
	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		const struct pair *pair = &work->pairs[m];
		uint32_t rows = 0;

		ret_first[m] = ABSENT;
		for (uint32_t i = from; i < to; i++) {
			if (work->ours.at[m][i] == ABSENT)
				continue;
			ret_first[m] = rows ? ret_first[m] : work->ours.at[m][i];
			rows++;
		}
		if (rows && pair->weight > 0.0f)
			kx_learn_gemm_nt(pair->ours->values + (size_t)ret_first[m] * pair->ours->dim, rows,
					 pair->theirs->values, pair->theirs->count, pair->ours->dim, pair->scores);
	}
}

static void match_all(struct work *work, uint64_t ours_moment_us, uint64_t theirs_moment_us)
{
	for (uint32_t from = 0; from < work->ours.count; from += BLOCK_ROWS) {
		uint32_t to = work->ours.count - from < BLOCK_ROWS ? work->ours.count : from + BLOCK_ROWS;
		uint32_t first[KX_ANN_MODALITIES];

		score_block(work, from, to, first);
		for (uint32_t i = from; i < to; i++) {
			for (uint32_t j = 0; j < work->theirs.count; j++) {
				struct kx_moment_match match = {0};

				if (!match_pair(work, first, i, j, &match))
					continue;
				if (work->found[j] && match.score <= work->best[j].score)
					continue;
				match.ours_us = work->ours.index[i] * ours_moment_us;
				match.theirs_us = work->theirs.index[j] * theirs_moment_us;
				work->best[j] = match;
				work->found[j] = true;
			}
		}
	}
}

static uint32_t pick(const struct work *work, struct kx_moment_match ret[KX_ALIGN_MATCHES])
{
	uint32_t count = 0;

	for (uint32_t j = 0; j < work->theirs.count; j++) {
		uint32_t at = count;

		if (!work->found[j])
			continue;
		while (at > 0 && work->best[j].score > ret[at - 1].score)
			at--;
		if (at == KX_ALIGN_MATCHES)
			continue;
		if (count < KX_ALIGN_MATCHES)
			count++;
		memmove(&ret[at + 1], &ret[at], (count - 1 - at) * sizeof(*ret));
		ret[at] = work->best[j];
	}
	return count;
}

kx_status kx_align(const struct kx_align_side *ours, const struct kx_align_side *theirs,
		   const double weight[KX_ANN_MODALITIES], uint64_t ours_moment_us, uint64_t theirs_moment_us,
		   struct kx_moment_match ret[KX_ALIGN_MATCHES], uint32_t *ret_count)
{
	struct work work = {0};
	kx_status status = work_init(&work, ours, theirs, weight);

	if (!status) {
		match_all(&work, ours_moment_us, theirs_moment_us);
		*ret_count = pick(&work, ret);
	}
	work_done(&work);
	return status;
}
