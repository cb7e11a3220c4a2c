#include "shard/query/moments.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "common/learn/learn.h"
#include "shard/query/page.h"

#define TRIM_FACTOR 4u /* how much more than a page is kept before the worst go */

struct moment_hit {
	struct kx_candidate at; /* its row is the place of the id in the list */
	uint64_t end_us;
	double share[KX_ANN_MODALITIES];
	bool has[KX_ANN_MODALITIES];
};

/* One modality of the video that is being read: its moments in the query's space. */
struct track {
	uint32_t count, cap;
	uint32_t *index;
	float *cosine;
};

struct scan {
	const struct kx_query_context *context;
	const struct kx_mirror_query *query;
	struct kx_cursor cursor;
	struct kx_id_list ids;
	struct track tracks[KX_ANN_MODALITIES];
	struct moment_hit *hits;
	size_t count, cap;
	uint64_t read; /* moments */
	float values[KX_DIM_MAX];
};

static void scan_done(struct scan *scan)
{
	kx_cursor_done(&scan->cursor);
	kx_id_list_done(&scan->ids);
	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		free(scan->tracks[m].index);
		free(scan->tracks[m].cosine);
	}
	free(scan->hits);
	free(scan);
}

static kx_status track_add(struct track *track, uint32_t index, float cosine)
{
	if (track->count == track->cap) {
		uint32_t cap = track->cap ? track->cap * 2 : 64;
		uint32_t *indices = realloc(track->index, cap * sizeof(*indices));
		float *cosines;

		if (!indices)
			return KX_ENOMEM;
		track->index = indices;
		cosines = realloc(track->cosine, cap * sizeof(*cosines));
		if (!cosines)
			return KX_ENOMEM;
		track->cosine = cosines;
		track->cap = cap;
	}
	track->index[track->count] = index;
	track->cosine[track->count++] = cosine;
	return KX_OK;
}

static const struct kx_ann_vector *vector_for(const struct scan *scan, const struct kx_summary *summary)
{
	for (size_t i = 0; i < scan->query->count; i++) {
		const struct kx_ann_vector *vector = &scan->query->vectors[i];

		if (vector->modality == summary->modality && vector->dim == summary->dim &&
		    strcmp(vector->space, summary->space) == 0)
			return vector;
	}
	return NULL;
}

static kx_status take_summary(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	struct scan *scan = ctx;
	const struct kx_ann_vector *vector = vector_for(scan, summary);

	if (++scan->read > KX_QUERY_SCAN_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "more than %u moments would have to be compared; let a filter leave fewer videos",
				    KX_QUERY_SCAN_MAX);
	if (!vector)
		return KX_OK;
	kx_learn_dequantize_i8(summary->embedding, summary->dim, summary->scale, scan->values);
	if (kx_learn_normalize(scan->values, summary->dim) <= 0.0f)
		return KX_OK;
	if (track_add(&scan->tracks[summary->modality - KX_VISUAL], summary->index,
		      kx_learn_dot(vector->values, scan->values, summary->dim)))
		return kx_error_nomem(error);
	return KX_OK;
}

/* Rounded as alignment rounds, so that equal moments tie. */
static double rounded(double value)
{
	return round(value * 1e6) / 1e6;
}

static int by_order(const void *a, const void *b)
{
	const struct kx_candidate *one = &((const struct moment_hit *)a)->at, *two = &((const struct moment_hit *)b)->at;

	return kx_hit_order(one->score, one->id, one->moment_us, two->score, two->id, two->moment_us);
}

static bool is_wanted(const struct scan *scan, const struct kx_candidate *at)
{
	const struct kx_similar_query *query = scan->query->query;

	if (query->has_min_score && at->score < query->min_score)
		return false;
	/* Groups need those before the page, too, to know which were told. */
	return !scan->cursor.video_id || query->group != KX_GROUP_NONE ||
	       kx_hit_order(scan->cursor.score, scan->cursor.video_id, scan->cursor.moment_us, at->score, at->id,
			    at->moment_us) < 0;
}

static kx_status keep(struct scan *scan, const struct moment_hit *hit)
{
	size_t page = scan->query->query->k + 1u;

	if (scan->query->query->group == KX_GROUP_NONE && scan->count >= TRIM_FACTOR * page) {
		qsort(scan->hits, scan->count, sizeof(*scan->hits), by_order);
		scan->count = page;
	}
	if (scan->count == scan->cap) {
		size_t cap = scan->cap ? scan->cap * 2 : 256;
		struct moment_hit *hits = realloc(scan->hits, cap * sizeof(*hits));

		if (!hits)
			return KX_ENOMEM;
		scan->hits = hits;
		scan->cap = cap;
	}
	scan->hits[scan->count++] = *hit;
	return KX_OK;
}

/* at[m]: the place of the index in track m, or past its end. */
static struct moment_hit score(const struct scan *scan, uint32_t index, const uint32_t *at)
{
	const double weight[KX_ANN_MODALITIES] = {scan->query->query->weight_visual, scan->query->query->weight_audio};
	struct moment_hit hit = {0};
	double weights = 0.0;

	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		const struct track *track = &scan->tracks[m];

		hit.has[m] = at[m] < track->count && track->index[at[m]] == index && weight[m] > 0.0;
		if (!hit.has[m])
			continue;
		hit.share[m] = weight[m] * (double)track->cosine[at[m]];
		weights += weight[m];
	}
	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		hit.share[m] = weights > 0.0 ? rounded(hit.share[m] / weights) : 0.0;
		hit.at.score += hit.share[m];
	}
	return hit;
}

static void set_span(struct moment_hit *hit, uint32_t index, const struct kx_video_result *result)
{
	hit->at.moment_us = index * result->moment_us;
	hit->end_us = hit->at.moment_us + result->moment_us;
	if (result->duration_us > hit->at.moment_us && result->duration_us < hit->end_us)
		hit->end_us = result->duration_us;
}

/* The moments of the video that was read. Grouped, the best alone counts. */
static kx_status take_video(struct scan *scan, uint32_t number, const struct kx_video_result *result)
{
	const struct track *tracks = scan->tracks;
	bool grouped = scan->query->query->group != KX_GROUP_NONE, any = false;
	uint32_t at[KX_ANN_MODALITIES] = {0};
	struct moment_hit best = {0};

	while (at[0] < tracks[0].count || at[1] < tracks[1].count) {
		uint32_t a = at[0] < tracks[0].count ? tracks[0].index[at[0]] : UINT32_MAX;
		uint32_t b = at[1] < tracks[1].count ? tracks[1].index[at[1]] : UINT32_MAX, index = a < b ? a : b;
		struct moment_hit hit = score(scan, index, at);

		at[0] += a == index;
		at[1] += b == index;
		if (!hit.has[0] && !hit.has[1])
			continue;
		hit.at.row = number;
		hit.at.id = scan->ids.ids[number];
		set_span(&hit, index, result);
		if (grouped && (!any || hit.at.score > best.at.score))
			best = hit;
		any = true;
		if (!grouped && is_wanted(scan, &hit.at) && keep(scan, &hit))
			return KX_ENOMEM;
	}
	return grouped && any && is_wanted(scan, &best.at) ? keep(scan, &best) : KX_OK;
}

/* One that was replaced or removed in the meantime counts as it is now, or not at all. */
static kx_status scan_video(struct scan *scan, uint32_t number, struct kx_error *error)
{
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	kx_status status = kx_store_video(scan->context->store, scan->ids.ids[number], &record, error);

	if (status)
		return status == KX_ENOTFOUND ? KX_OK : status;
	scan->tracks[0].count = scan->tracks[1].count = 0;
	status = kx_store_each_summary(scan->context->store, scan->ids.ids[number], record->generation, take_summary, scan,
				       error);
	if (!status && take_video(scan, number, &record->result))
		status = kx_error_nomem(error);
	return status;
}

static kx_status scan_all(struct scan *scan, struct kx_error *error)
{
	for (size_t i = 0; i < scan->ids.count; i++) {
		kx_status status;

		if (scan->context->stop && kx_stop_asked(scan->context->stop))
			return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "the shard is stopping");
		status = scan_video(scan, (uint32_t)i, error);
		if (status)
			return status;
	}
	qsort(scan->hits, scan->count, sizeof(*scan->hits), by_order);
	return KX_OK;
}

static char *group_of(const void *ctx, const struct kx_candidate *candidate)
{
	const struct scan *scan = ctx;
	struct kx_similar_hit hit = {.video_id = (char *)(uintptr_t)candidate->id};
	char *key = NULL;

	if (scan->query->query->group == KX_GROUP_SOURCE)
		return kx_strdup(candidate->id);
	if (!kx_mirror_describe(scan->context->mirror, scan->query, &hit, NULL))
		key = kx_strdup(hit.group_key ? hit.group_key : candidate->id);
	hit.video_id = NULL; /* not ours */
	kx_similar_hit_done(&hit);
	return key;
}

static kx_status copy_hit(const struct scan *scan, const struct moment_hit *from, struct kx_similar_hit *hit,
			  struct kx_error *error)
{
	kx_status status;

	*hit = (struct kx_similar_hit){
		.video_id = kx_strdup(from->at.id),
		.score = from->at.score,
		.visual = from->share[0],
		.audio = from->share[1],
		.has_visual = from->has[0],
		.has_audio = from->has[1],
		.has_moment = true,
		.moment_start_us = from->at.moment_us,
		.moment_end_us = from->end_us,
	};
	if (!hit->video_id)
		return kx_error_nomem(error);
	status = kx_mirror_describe(scan->context->mirror, scan->query, hit, error);
	if (!status && scan->query->query->group == KX_GROUP_SOURCE && kx_str_set(&hit->group_key, from->at.id))
		status = kx_error_nomem(error);
	return status;
}

static kx_status set_next(const struct scan *scan, struct kx_similar_answer *answer)
{
	const struct kx_similar_hit *last = &answer->hits[answer->hit_count - 1];
	struct kx_cursor cursor = {.fingerprint = kx_similar_query_fingerprint(scan->query->query),
				   .epoch = scan->ids.epoch,
				   .score = last->score,
				   .moment_us = last->moment_start_us,
				   .video_id = last->video_id};

	answer->next = kx_cursor_encode(&cursor);
	return answer->next ? KX_OK : KX_ENOMEM;
}

static kx_status choose(const struct scan *scan, uint32_t *chosen, uint32_t *ret_count, bool *ret_more)
{
	const struct kx_similar_query *query = scan->query->query;
	struct kx_page_rules rules = {.k = query->k,
				      .has_min_score = query->has_min_score,
				      .min_score = query->min_score,
				      .cursor = scan->cursor.video_id ? &scan->cursor : NULL,
				      .group = query->group != KX_GROUP_NONE ? group_of : NULL,
				      .ctx = scan};
	struct kx_candidate *candidates = calloc(scan->count + 1u, sizeof(*candidates));
	bool more_needed;
	kx_status status;

	if (!candidates)
		return KX_ENOMEM;
	for (size_t i = 0; i < scan->count; i++)
		candidates[i] = scan->hits[i].at;
	status = kx_page_take(&rules, candidates, scan->count, true, chosen, ret_count, ret_more, &more_needed);
	free(candidates);
	return status;
}

static kx_status answer_page(const struct scan *scan, struct kx_similar_answer *answer, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) uint32_t *chosen = calloc(scan->query->query->k, sizeof(*chosen));
	uint32_t count = 0;
	bool more = false;
	kx_status status = KX_OK;

	if (!chosen || choose(scan, chosen, &count, &more))
		return kx_error_nomem(error);
	answer->hits = calloc(count ? count : 1, sizeof(*answer->hits));
	if (!answer->hits)
		return kx_error_nomem(error);
	for (uint32_t i = 0; !status && i < count; i++) {
		answer->hit_count = i + 1;
		status = copy_hit(scan, &scan->hits[chosen[i]], &answer->hits[i], error);
	}
	if (!status && more && set_next(scan, answer))
		status = kx_error_nomem(error);
	answer->exact = true;
	answer->recall = 1.0;
	answer->work.rows = answer->work.refined = scan->read;
	answer->work.matching = scan->ids.count;
	answer->changed = scan->cursor.epoch && scan->cursor.epoch != scan->ids.epoch;
	answer->shards_asked = answer->shards_answered = 1;
	return status;
}

kx_status kx_query_moments(const struct kx_query_context *context, const struct kx_mirror_query *query,
			   struct kx_similar_answer *answer, struct kx_error *error)
{
	struct scan *scan = calloc(1, sizeof(*scan));
	kx_status status;

	if (!scan)
		return kx_error_nomem(error);
	scan->context = context;
	scan->query = query;
	status = kx_mirror_matching(context->mirror, query, &scan->ids, error);
	if (!status && query->query->cursor && query->query->cursor[0])
		status = kx_cursor_decode(query->query->cursor, kx_similar_query_fingerprint(query->query), &scan->cursor,
					  error);
	if (!status)
		status = scan_all(scan, error);
	if (!status)
		status = answer_page(scan, answer, error);
	scan_done(scan);
	return status;
}
