/* Two videos side by side, frame by frame, at the offset that most moments vote for. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/learn/learn.h"
#include "shard/query/duplicates_internal.h"

#define FRAMES_MAX 32768u     /* the first of each video that are looked at: nine hours of one a second */
#define STEP_US 500000        /* of the offsets tried around the one voted for */
#define NEAR_US 600000        /* frames that stand for the same instant are no further apart */
#define GAP_COST 0.01         /* a second, in cosines */
#define SHARE_LEAST 0.5       /* of the shorter video that must be shown in both */
#define OFFSETS_TRIED 3u      /* of those voted for */

/* Sampled frames in time: unit vectors. */
struct frames {
	const struct kx_dup_video *video;
	uint32_t count, cap;
	uint64_t *pts_us;
	float *values; /* [cap][dim] */
};

static void frames_done(struct frames *frames)
{
	free(frames->pts_us);
	free(frames->values);
}

static kx_status frames_reserve(struct frames *frames)
{
	uint32_t cap = frames->cap ? frames->cap * 2 : 64;
	uint64_t *pts;
	float *values;

	if (frames->count < frames->cap)
		return KX_OK;
	pts = realloc(frames->pts_us, cap * sizeof(*pts));
	if (!pts)
		return KX_ENOMEM;
	frames->pts_us = pts;
	values = realloc(frames->values, (size_t)cap * frames->video->dim * sizeof(*values));
	if (!values)
		return KX_ENOMEM;
	frames->values = values;
	frames->cap = cap;
	return KX_OK;
}

static kx_status add_frames(void *ctx, const struct kx_moment *moment, const void *bytes, size_t len,
			    struct kx_error *error)
{
	struct frames *frames = ctx;
	const struct kx_dup_video *video = frames->video;

	(void)bytes, (void)len;
	if (moment->modality != video->modality || moment->dim != video->dim || strcmp(moment->space, video->space) != 0)
		return KX_OK;
	for (uint32_t i = 0; i < moment->count && frames->count < FRAMES_MAX; i++) {
		float *to;

		if (frames_reserve(frames))
			return kx_error_nomem(error);
		to = frames->values + (size_t)frames->count * video->dim;
		kx_learn_dequantize(moment->features + (size_t)i * video->dim, video->dim, moment->lo[i], moment->step[i], to);
		kx_learn_power_normalize(to, video->dim);
		frames->pts_us[frames->count++] = moment->pts_us[i];
	}
	return KX_OK;
}

struct trial {
	double sum;       /* of cosines */
	double gap_s;     /* of the times of frames that are alike */
	uint32_t matched; /* frames of a that have one of b at their time */
	uint64_t first_us, last_us; /* of those that are alike, on a's time line */
	uint32_t alike;
};

/* The frame of b nearest to a time, when there is one near enough. Both rise. */
static uint32_t advance(const struct frames *b, uint32_t from, int64_t time_us)
{
	while (from + 1 < b->count && llabs((int64_t)b->pts_us[from + 1] - time_us) <= llabs((int64_t)b->pts_us[from] - time_us))
		from++;
	return from;
}

static struct trial try_offset(const struct frames *a, const struct frames *b, int64_t offset_us, double threshold)
{
	struct trial trial = {0};
	uint32_t dim = a->video->dim, j = 0;

	for (uint32_t i = 0; i < a->count; i++) {
		int64_t time_us = (int64_t)a->pts_us[i] + offset_us;
		double cosine;

		j = advance(b, j, time_us);
		if (llabs((int64_t)b->pts_us[j] - time_us) > NEAR_US)
			continue;
		cosine = (double)kx_learn_dot(a->values + (size_t)i * dim, b->values + (size_t)j * dim, dim);
		trial.matched++;
		if (cosine < threshold)
			continue;
		if (!trial.alike++)
			trial.first_us = a->pts_us[i];
		trial.last_us = a->pts_us[i];
		trial.sum += cosine;
		trial.gap_s += (double)llabs((int64_t)b->pts_us[j] - time_us) / 1e6;
	}
	return trial;
}

/* How well a trial explains the two: the sum over frames that are alike, less what those that are not cost, and a little
 * for how far apart in time they are, which decides where neighbouring frames are all alike. */
static double worth(const struct trial *trial, double threshold)
{
	return trial->sum - threshold * (double)(trial->matched - trial->alike) - GAP_COST * trial->gap_s;
}

static void search_near(const struct frames *a, const struct frames *b, int64_t centre_us, int64_t reach_us, double threshold,
			struct trial *best, int64_t *best_offset_us, double *best_worth)
{
	for (int64_t offset = centre_us - reach_us; offset <= centre_us + reach_us; offset += STEP_US) {
		struct trial trial = try_offset(a, b, offset, threshold);
		double value = worth(&trial, threshold);

		if (!trial.alike || value <= *best_worth)
			continue;
		*best = trial;
		*best_offset_us = offset;
		*best_worth = value;
	}
}

static bool is_taken(int64_t offset_us, int64_t width_us, const int64_t *taken, size_t taken_count)
{
	for (size_t i = 0; i < taken_count; i++)
		if (llabs(taken[i] - offset_us) <= width_us)
			return true;
	return false;
}

/* The offset with most votes from it up to a moment on: one that is off the other's grid votes for both neighbours of the
 * truth. Not near one that is taken. False: there is none. matches rise by offset. */
static bool next_centre(const struct kx_dup_match *matches, size_t count, int64_t width_us, const int64_t *taken,
			size_t taken_count, int64_t *ret)
{
	size_t most = 0, to = 0;

	for (size_t i = 0; i < count; i++) {
		int64_t offset = matches[i].offset_us;

		while (to < count && matches[to].offset_us <= offset + width_us)
			to++;
		if (to - i <= most || is_taken(offset, width_us, taken, taken_count))
			continue;
		most = to - i;
		*ret = offset;
	}
	return most > 0;
}

static uint32_t shorter(const struct frames *a, const struct frames *b)
{
	return a->count < b->count ? a->count : b->count;
}

static bool judge(const struct frames *a, const struct frames *b, const struct kx_dup_match *matches, size_t count,
		  double threshold, struct kx_dup_pair *ret)
{
	int64_t width = (int64_t)(a->video->moment_us > b->video->moment_us ? a->video->moment_us : b->video->moment_us);
	int64_t taken[OFFSETS_TRIED] = {0}, offset_us = 0;
	struct trial best = {0};
	double best_worth = 0.0;

	for (size_t i = 0; i < OFFSETS_TRIED && next_centre(matches, count, width, taken, i, &taken[i]); i++)
		search_near(a, b, taken[i], width, threshold, &best, &offset_us, &best_worth);
	if (!best.alike || (double)best.alike < SHARE_LEAST * shorter(a, b))
		return false;
	*ret = (struct kx_dup_pair){.a = matches[0].a,
				 .b = matches[0].b,
				 .offset_us = offset_us,
				 .score = best.sum / best.alike,
				 .overlap_us = best.last_us - best.first_us +
					       (a->count > 1 ? (a->pts_us[a->count - 1] - a->pts_us[0]) / (a->count - 1)
							     : a->video->duration_us)};
	return true;
}

kx_status kx_dup_verify(struct kx_store *store, const struct kx_dup_set *set, const struct kx_duplicates_options *options,
		     const struct kx_dup_match *matches, size_t count, struct kx_dup_pair *ret, bool *ret_holds,
		     struct kx_error *error)
{
	struct frames a = {.video = &set->videos[matches[0].a]}, b = {.video = &set->videos[matches[0].b]};
	kx_status status = kx_store_each_moment(store, a.video->id, a.video->generation, add_frames, &a, error);

	if (!status)
		status = kx_store_each_moment(store, b.video->id, b.video->generation, add_frames, &b, error);
	*ret_holds = !status && a.count && b.count && judge(&a, &b, matches, count, options->threshold, ret);
	frames_done(&a);
	frames_done(&b);
	return status;
}
