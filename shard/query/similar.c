#include "shard/query/similar.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/learn/learn.h"
#include "shard/query/align.h"
#include "shard/query/moments.h"
#include "shard/query/subject.h"

#define AT_ONCE 128u
#define LOAD_ATTEMPTS 3 /* a video may be replaced between reading its record and its moments */

static kx_status add_summary(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	struct kx_align_side *side = ctx;
	float values[KX_DIM_MAX];

	if (side->tracks[summary->modality - KX_VISUAL].count == KX_QUERY_ALIGN_MAX)
		return KX_OK;
	kx_learn_dequantize_i8(summary->embedding, summary->dim, summary->scale, values);
	return kx_align_add(side, summary->modality, summary->space, summary->dim, summary->index, values, error);
}

static kx_status load_once(const struct kx_query_context *context, const char *id, struct kx_align_side *side,
			   uint64_t *ret_moment_us, bool *ret_any, struct kx_error *error)
{
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	kx_status status = kx_store_video(context->store, id, &record, error);

	if (!status) {
		*ret_moment_us = record->result.moment_us;
		status = kx_store_each_summary(context->store, id, record->generation, add_summary, side, error);
	}
	*ret_any = side->tracks[0].cap || side->tracks[1].cap;
	return status == KX_ENOTFOUND ? KX_OK : status;
}

/* The moments of a stored video; an empty side when it is gone. */
static kx_status load_side(const struct kx_query_context *context, const char *id, struct kx_align_side *side,
			   uint64_t *ret_moment_us, struct kx_error *error)
{
	kx_status status = KX_OK;
	bool any = false;

	for (int i = 0; !status && !any && i < LOAD_ATTEMPTS; i++)
		status = load_once(context, id, side, ret_moment_us, &any, error);
	return status;
}

static kx_status load_ours(const struct kx_query_context *context, const struct kx_similar_query *query,
			   struct kx_subject *subject, uint64_t *ret_moment_us, struct kx_error *error)
{
	kx_status status = KX_OK;

	if (subject->record)
		return load_side(context, subject->record->result.video_id, &subject->side, ret_moment_us, error);
	*ret_moment_us = query->moment_us;
	for (uint32_t i = 0; !status && i < query->moment_count; i++) {
		const struct kx_query_vector *moment = &query->moments[i];

		status = kx_subject_check_vector(moment, error);
		if (!status && moment->moment > KX_MEDIA_US_MAX / query->moment_us)
			status = kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
					      "a moment of the query is later than any video is long");
		if (!status && subject->side.tracks[moment->modality - KX_VISUAL].count < KX_QUERY_ALIGN_MAX)
			status = kx_align_add(&subject->side, moment->modality, moment->space, moment->dim,
					      moment->moment, moment->values, error);
	}
	return status;
}

static kx_status align_hit(const struct kx_query_context *context, const struct kx_align_side *ours,
			   uint64_t ours_moment_us, const double *weight, struct kx_similar_hit *hit,
			   struct kx_error *error)
{
	struct kx_align_side theirs = {0};
	uint64_t moment_us = 0;
	kx_status status = load_side(context, hit->video_id, &theirs, &moment_us, error);

	hit->matches = calloc(KX_ALIGN_MATCHES, sizeof(*hit->matches));
	if (!status && !hit->matches)
		status = kx_error_nomem(error);
	if (!status && kx_align(ours, &theirs, weight, ours_moment_us, moment_us, hit->matches, &hit->match_count))
		status = kx_error_nomem(error);
	kx_align_side_done(&theirs);
	return status;
}

static kx_status align_hits(const struct kx_query_context *context, const struct kx_similar_query *query,
			    struct kx_subject *subject, const double *weight, struct kx_similar_answer *answer,
			    struct kx_error *error)
{
	uint64_t moment_us = 0;
	kx_status status = load_ours(context, query, subject, &moment_us, error);

	for (uint32_t i = 0; !status && i < answer->hit_count; i++) {
		status = kx_query_ended(context, error);
		if (!status)
			status = align_hit(context, &subject->side, moment_us, weight, &answer->hits[i], error);
	}
	return status;
}

static bool asks_about_duplicates(const struct kx_similar_query *query)
{
	return query->group == KX_GROUP_DUPLICATES || (query->filter && strstr(query->filter, "duplicate_of"));
}

/* A query on its way to its answer. */
struct one {
	struct kx_subject subject;
	struct kx_mirror_asked asked;
};

static void one_done(struct one *one)
{
	kx_subject_done(&one->subject);
}

/* All that comes before the search. */
static kx_status begin(const struct kx_query_context *context, const struct kx_similar_query *query,
		       struct kx_similar_answer *answer, struct one *ret, struct kx_error *error)
{
	kx_status status = kx_subject_load(context, query, &ret->subject, error);

	ret->asked.answer = answer;
	ret->asked.query = (struct kx_mirror_query){.vectors = ret->subject.vectors,
						    .count = ret->subject.count,
						    .exclude = ret->subject.record ? query->video_id : NULL,
						    .query = query,
						    .now_s = (double)kx_clock_wall_ms() / 1e3};
	if (!status && context->duplicates && asks_about_duplicates(query))
		status = kx_duplicates_file_refresh(context->duplicates, context->mirror, error);
	return status;
}

static bool is_of_videos(const struct one *one)
{
	return !one->asked.status && one->asked.query.query->level == KX_LEVEL_VIDEOS;
}

/* What is left once the nearest videos are known; single moments are looked for here. */
static kx_status finish(const struct kx_query_context *context, struct one *one, struct kx_error *error)
{
	const struct kx_similar_query *query = one->asked.query.query;
	double weight[KX_ANN_MODALITIES] = {query->weight_visual, query->weight_audio};

	if (query->level == KX_LEVEL_MOMENTS)
		return kx_query_moments(context, &one->asked.query, one->asked.answer, error);
	return query->with_moments ? align_hits(context, query, &one->subject, weight, one->asked.answer, error) : KX_OK;
}

/* KX_OK: whatever became of each stands with it. */
static kx_status search_all(const struct kx_query_context *context, struct one *ones, size_t n, struct kx_error *error)
{
	struct kx_mirror_asked *of_videos[AT_ONCE];
	size_t count = 0;

	for (size_t i = 0; i < n; i++)
		if (is_of_videos(&ones[i]))
			of_videos[count++] = &ones[i].asked;
	for (size_t at = 0; at < count;) {
		kx_status status = kx_query_ended(context, error);

		if (status)
			return status;
		at += kx_mirror_search_many(context->mirror, of_videos + at, count - at);
	}
	for (size_t i = 0; i < n; i++)
		if (!ones[i].asked.status)
			ones[i].asked.status = finish(context, &ones[i], &ones[i].asked.error);
	return KX_OK;
}

kx_status kx_query_similar(const struct kx_query_context *context, const struct kx_similar_query *query,
			   struct kx_similar_answer *answer, struct kx_error *error)
{
	uint64_t begun = kx_clock_mono_us();
	struct one one = {0};
	kx_status status = kx_query_ended(context, error);

	if (status)
		return status;
	one.asked.status = begin(context, query, answer, &one, &one.asked.error);
	status = search_all(context, &one, 1, error);
	answer->work.took_us = kx_clock_mono_us() - begun;
	one_done(&one);
	if (status || !one.asked.status)
		return status;
	if (error)
		*error = one.asked.error;
	return one.asked.status;
}

/* --- Many at once --------------------------------------------------------------------------------------------- */

static kx_status tell(const struct one *one, struct kx_error *error)
{
	struct kx_similar_answer *answer = one->asked.answer;

	if (!one->asked.status)
		return KX_OK;
	kx_similar_answer_done(answer);
	answer->status = one->asked.status;
	answer->message = kx_strdup(one->asked.error.message);
	return answer->message ? KX_OK : kx_error_nomem(error);
}

/* n: at most AT_ONCE, as ones has room for. */
static kx_status answer_some(const struct kx_query_context *context, const struct kx_similar_query *queries, size_t n,
			     struct kx_similar_answer *answers, struct one *ones, struct kx_error *error)
{
	uint64_t begun = kx_clock_mono_us();
	kx_status status;

	memset(ones, 0, n * sizeof(*ones));
	for (size_t i = 0; i < n; i++)
		ones[i].asked.status = begin(context, &queries[i], &answers[i], &ones[i], &ones[i].asked.error);
	status = search_all(context, ones, n, error);
	for (size_t i = 0; i < n; i++) {
		answers[i].work.took_us = (kx_clock_mono_us() - begun) / n; /* of what they took together */
		if (!status)
			status = tell(&ones[i], error);
		one_done(&ones[i]);
	}
	return status;
}

kx_status kx_query_similar_many(const struct kx_query_context *context, const struct kx_similar_query *queries, size_t n,
				struct kx_similar_answer *answers, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) struct one *ones = malloc((n < AT_ONCE ? n + 1 : AT_ONCE) * sizeof(*ones));
	kx_status status = ones ? KX_OK : kx_error_nomem(error);

	for (size_t at = 0; !status && at < n; at += AT_ONCE) {
		const size_t count = n - at < AT_ONCE ? n - at : AT_ONCE;

		status = kx_query_ended(context, error);
		if (!status)
			status = answer_some(context, queries + at, count, answers + at, ones, error);
	}
	return status;
}
