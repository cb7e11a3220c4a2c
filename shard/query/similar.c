#include "shard/query/similar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/learn/learn.h"
#include "shard/query/align.h"

#define LOAD_ATTEMPTS 3 /* a video may be replaced between reading its record and its moments */

/* What others are compared with: a stored video, or vectors that came with the query. */
struct subject {
	struct kx_video_record *record; /* NULL: vectors */
	struct kx_ann_vector vectors[KX_ANN_MODALITIES];
	float *values[KX_ANN_MODALITIES]; /* behind the vectors, of unit length */
	size_t count;
	struct kx_align_side side;
};

static void subject_done(struct subject *subject)
{
	kx_video_record_free(subject->record);
	for (int m = 0; m < KX_ANN_MODALITIES; m++)
		free(subject->values[m]);
	kx_align_side_done(&subject->side);
}

static kx_status invalid(struct kx_error *error, const char *what)
{
	return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%s", what);
}

/* Records check what came over the wire; a caller in the process could still pass anything. */
static kx_status check_request(const struct kx_similar_query *query_in, struct kx_error *error)
{
	double visual = query_in->weight_visual, audio = query_in->weight_audio;

	if (query_in->k < 1 || query_in->k > KX_QUERY_K_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "k is %u, it must be 1 to %u", query_in->k,
				    KX_QUERY_K_MAX);
	if (!isfinite(visual) || !isfinite(audio) || visual < 0.0 || audio < 0.0 || visual + audio <= 0.0)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "weights visual=%g audio=%g: they must not be negative, and one must be over 0",
				    visual, audio);
	if (query_in->vector_count > KX_ANN_MODALITIES ||
	    (query_in->vector_count == 2 && query_in->vectors[0].modality == query_in->vectors[1].modality))
		return invalid(error, "a query has at most one vector of each modality");
	if (query_in->moment_count > KX_QUERY_MOMENTS_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%u moments came with the query, at most %u may",
				    query_in->moment_count, KX_QUERY_MOMENTS_MAX);
	if (query_in->with_moments && query_in->moment_count &&
	    (!query_in->moment_us || query_in->moment_us > KX_MEDIA_US_MAX))
		return invalid(error, "a query that brings moments says how long they are: moment_us");
	return KX_OK;
}

static kx_status check_vector(const struct kx_query_vector *vector, struct kx_error *error)
{
	if ((vector->modality != KX_VISUAL && vector->modality != KX_AUDIO) || !vector->space || !vector->space[0])
		return invalid(error, "a query vector without modality or space");
	if (!vector->dim || vector->dim > KX_DIM_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "the query's %s vector has %u dimensions",
				    kx_modality_name(vector->modality), vector->dim);
	for (uint32_t i = 0; i < vector->dim; i++)
		if (!isfinite(vector->values[i]))
			return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
					    "the query's %s vector holds a value that is no number",
					    kx_modality_name(vector->modality));
	return KX_OK;
}

static kx_status add_vector(struct subject *subject, enum kx_modality modality, const char *space, uint32_t dim,
			    const float *values, struct kx_error *error)
{
	float *copy = malloc(dim * sizeof(*copy));

	if (!copy)
		return kx_error_nomem(error);
	subject->values[subject->count] = copy;
	memcpy(copy, values, dim * sizeof(*copy));
	if (kx_learn_normalize(copy, dim) <= 0.0f)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "the query's %s vector is zero: it points nowhere",
				    kx_modality_name(modality));
	subject->vectors[subject->count++] = (struct kx_ann_vector){modality, space, dim, copy};
	return KX_OK;
}

static kx_status subject_from_vectors(struct subject *subject, const struct kx_similar_query *query_in,
				      struct kx_error *error)
{
	kx_status status = KX_OK;

	if (!query_in->vector_count)
		return invalid(error, "a query names a video or brings vectors");
	for (uint32_t i = 0; !status && i < query_in->vector_count; i++) {
		const struct kx_query_vector *vector = &query_in->vectors[i];

		status = check_vector(vector, error);
		if (!status)
			status = add_vector(subject, vector->modality, vector->space, vector->dim, vector->values, error);
	}
	return status;
}

static kx_status subject_from_store(const struct kx_query_context *context, struct subject *subject, const char *id,
				    struct kx_error *error)
{
	kx_status status = kx_store_video(context->store, id, &subject->record, error);

	if (status == KX_ENOTFOUND)
		return kx_query_not_found(context, id, error);
	for (uint32_t i = 0; !status && i < subject->record->result.modality_count; i++) {
		const struct kx_modality_result *part = &subject->record->result.modalities[i];

		/* Digital silence or blackness may embed as zero: it is compared by the rest. */
		if (kx_learn_dot(part->embedding, part->embedding, part->dim) > 0.0f)
			status = add_vector(subject, part->modality, part->space, part->dim, part->embedding, error);
	}
	return status;
}

static kx_status check_weights(const struct subject *subject, const double *weight, struct kx_error *error)
{
	for (size_t i = 0; i < subject->count; i++)
		if (weight[subject->vectors[i].modality - KX_VISUAL] > 0.0)
			return KX_OK;
	if (!subject->count)
		return invalid(error, "the query's embedding is zero in picture and sound: it points nowhere");
	return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
			    "the query has only the %s part and its weight is 0: nothing is left to compare; "
			    "give it a weight",
			    kx_modality_name(subject->vectors[0].modality));
}

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

static kx_status load_ours(const struct kx_query_context *context, const struct kx_similar_query *query_in,
			   struct subject *subject, uint64_t *ret_moment_us, struct kx_error *error)
{
	kx_status status = KX_OK;

	if (subject->record)
		return load_side(context, subject->record->result.video_id, &subject->side, ret_moment_us, error);
	*ret_moment_us = query_in->moment_us;
	for (uint32_t i = 0; !status && i < query_in->moment_count; i++) {
		const struct kx_query_vector *moment = &query_in->moments[i];

		status = check_vector(moment, error);
		if (!status && moment->moment > KX_MEDIA_US_MAX / query_in->moment_us)
			status = invalid(error, "a moment of the query is later than any video is long");
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

static kx_status align_hits(const struct kx_query_context *context, const struct kx_similar_query *query_in,
			    struct subject *subject, const double *weight, struct kx_similar_answer *answer,
			    struct kx_error *error)
{
	uint64_t moment_us = 0;
	kx_status status = load_ours(context, query_in, subject, &moment_us, error);

	for (uint32_t i = 0; !status && i < answer->hit_count; i++) {
		if (context->stop && kx_stop_asked(context->stop))
			return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "the shard is stopping");
		status = align_hit(context, &subject->side, moment_us, weight, &answer->hits[i], error);
	}
	return status;
}

kx_status kx_query_similar(const struct kx_query_context *context, const struct kx_similar_query *query_in,
			   struct kx_similar_answer *answer, struct kx_error *error)
{
	double weight[KX_ANN_MODALITIES] = {query_in->weight_visual, query_in->weight_audio};
	bool stored = query_in->video_id && query_in->video_id[0];
	struct kx_mirror_query query = {.weight = {weight[0], weight[1]}, .k = query_in->k};
	struct subject subject = {0};
	kx_status status = check_request(query_in, error);

	if (!status)
		status = stored ? subject_from_store(context, &subject, query_in->video_id, error)
				: subject_from_vectors(&subject, query_in, error);
	if (!status)
		status = check_weights(&subject, weight, error);
	if (!status) {
		query.vectors = subject.vectors;
		query.count = subject.count;
		query.exclude = stored ? query_in->video_id : NULL;
		status = kx_mirror_search(context->mirror, &query, &answer->hits, &answer->hit_count, error);
	}
	if (!status && query_in->with_moments)
		status = align_hits(context, query_in, &subject, weight, answer, error);
	subject_done(&subject);
	return status;
}
