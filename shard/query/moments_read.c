/* Moments as they are stored: reading a video's, comparing them with the query, scores and spans. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/learn/learn.h"
#include "shard/query/moments_internal.h"

void kx_moment_hits_done(struct kx_moment_hits *hits)
{
	free(hits->list);
	*hits = (struct kx_moment_hits){0};
}

kx_status kx_moment_hits_add(struct kx_moment_hits *hits, const struct kx_moment_hit *hit)
{
	if (hits->count == hits->cap) {
		size_t cap = hits->cap ? hits->cap * 2 : 256;
		struct kx_moment_hit *list = realloc(hits->list, cap * sizeof(*list));

		if (!list)
			return KX_ENOMEM;
		hits->list = list;
		hits->cap = cap;
	}
	hits->list[hits->count++] = *hit;
	return KX_OK;
}

int kx_moment_hit_compare(const void *a, const void *b)
{
	const struct kx_candidate *one = &((const struct kx_moment_hit *)a)->at;
	const struct kx_candidate *two = &((const struct kx_moment_hit *)b)->at;

	return kx_hit_order(one->score, one->id, one->moment_us, two->score, two->id, two->moment_us);
}

void kx_moment_reader_done(struct kx_moment_reader *reader)
{
	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		free(reader->tracks[m].index);
		free(reader->tracks[m].cosine);
	}
}

static kx_status track_add(struct kx_moment_track *track, uint32_t index, float cosine)
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

static const struct kx_ann_vector *vector_for(const struct kx_moment_reader *reader, const struct kx_summary *summary)
{
	for (size_t i = 0; i < reader->query->count; i++) {
		const struct kx_ann_vector *vector = &reader->query->vectors[i];

		if (vector->modality == summary->modality && vector->dim == summary->dim &&
		    strcmp(vector->space, summary->space) == 0)
			return vector;
	}
	return NULL;
}

static kx_status compare_summary(struct kx_moment_reader *reader, const struct kx_summary *summary,
				 struct kx_error *error)
{
	const struct kx_ann_vector *vector = vector_for(reader, summary);

	if (!vector)
		return KX_OK;
	kx_learn_dequantize_i8(summary->embedding, summary->dim, summary->scale, reader->values);
	if (kx_learn_normalize(reader->values, summary->dim) <= 0.0f)
		return KX_OK;
	if (track_add(&reader->tracks[summary->modality - KX_VISUAL], summary->index,
		      kx_learn_dot(vector->values, reader->values, summary->dim)))
		return kx_error_nomem(error);
	return KX_OK;
}

static kx_status take_summary(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	struct kx_moment_reader *reader = ctx;

	if (++reader->read > KX_QUERY_SCAN_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "more than %u moments would have to be compared; let a filter leave fewer videos",
				    KX_QUERY_SCAN_MAX);
	return compare_summary(reader, summary, error);
}

/* Rounded as alignment rounds, so that equal moments tie. */
static double rounded(double value)
{
	return round(value * 1e6) / 1e6;
}

bool kx_moment_is_wanted(const struct kx_moment_reader *reader, const struct kx_candidate *at)
{
	const struct kx_similar_query *query = reader->query->query;
	const struct kx_cursor *cursor = reader->cursor;

	if (query->has_min_score && at->score < query->min_score)
		return false;
	/* Groups need those before the page, too, to know which were told. */
	return !cursor || query->group != KX_GROUP_NONE ||
	       kx_hit_order(cursor->score, cursor->video_id, cursor->moment_us, at->score, at->id, at->moment_us) < 0;
}

/* at[m]: the place of the index in track m, or past its end. */
static struct kx_moment_hit score(const struct kx_moment_reader *reader, uint32_t index, const uint32_t *at)
{
	const struct kx_similar_query *query = reader->query->query;
	const double weight[KX_ANN_MODALITIES] = {query->weight_visual, query->weight_audio};
	struct kx_moment_hit hit = {0};
	double weights = 0.0;

	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		const struct kx_moment_track *track = &reader->tracks[m];

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

void kx_moment_set_span(struct kx_moment_hit *hit, uint32_t number, uint64_t moment_us, uint64_t duration_us)
{
	hit->at.moment_us = number * moment_us;
	hit->end_us = hit->at.moment_us + moment_us;
	if (duration_us > hit->at.moment_us && duration_us < hit->end_us)
		hit->end_us = duration_us;
}

static kx_status take_video(const struct kx_moment_reader *reader, const char *id, uint32_t row, bool one,
			    const struct kx_video_result *result, struct kx_moment_hits *ret)
{
	const struct kx_moment_track *tracks = reader->tracks;
	bool any = false;
	uint32_t at[KX_ANN_MODALITIES] = {0};
	struct kx_moment_hit best = {0};

	while (at[0] < tracks[0].count || at[1] < tracks[1].count) {
		uint32_t a = at[0] < tracks[0].count ? tracks[0].index[at[0]] : UINT32_MAX;
		uint32_t b = at[1] < tracks[1].count ? tracks[1].index[at[1]] : UINT32_MAX, index = a < b ? a : b;
		struct kx_moment_hit hit = score(reader, index, at);

		at[0] += a == index;
		at[1] += b == index;
		if (!hit.has[0] && !hit.has[1])
			continue;
		hit.at.row = row;
		hit.at.id = id;
		kx_moment_set_span(&hit, index, result->moment_us, result->duration_us);
		if (one && (!any || hit.at.score > best.at.score))
			best = hit;
		any = true;
		if (!one && kx_moment_is_wanted(reader, &hit.at) && kx_moment_hits_add(ret, &hit))
			return KX_ENOMEM;
	}
	return one && any && kx_moment_is_wanted(reader, &best.at) ? kx_moment_hits_add(ret, &best) : KX_OK;
}

/* One that was replaced or removed in the meantime counts as it is now, or not at all. */
kx_status kx_moment_read_video(struct kx_moment_reader *reader, const char *id, uint32_t row, bool one,
			       struct kx_moment_hits *ret, struct kx_error *error)
{
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	kx_status status = kx_store_video(reader->store, id, &record, error);

	if (status)
		return status == KX_ENOTFOUND ? KX_OK : status;
	reader->tracks[0].count = reader->tracks[1].count = 0;
	status = kx_store_each_summary(reader->store, id, record->generation, take_summary, reader, error);
	if (!status && take_video(reader, id, row, one, &record->result, ret))
		status = kx_error_nomem(error);
	return status;
}

kx_status kx_moment_read_one(struct kx_moment_reader *reader, const char *id, uint64_t generation, uint32_t number,
			     struct kx_moment_hit *ret, struct kx_error *error)
{
	const uint32_t at[KX_ANN_MODALITIES] = {0};
	struct kx_summary summary;

	reader->tracks[0].count = reader->tracks[1].count = 0;
	for (size_t i = 0; i < reader->query->count; i++) {
		kx_status status = kx_store_summary(reader->store, id, generation, reader->query->vectors[i].modality, number,
						    &summary, error);

		if (!status)
			status = compare_summary(reader, &summary, error);
		if (status && status != KX_ENOTFOUND)
			return status;
	}
	*ret = score(reader, number, at);
	return ret->has[0] || ret->has[1] ? KX_OK : KX_ENOTFOUND;
}
