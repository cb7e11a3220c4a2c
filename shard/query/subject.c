#include "shard/query/subject.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/learn/learn.h"
#include "shard/query/similar.h"

void kx_subject_done(struct kx_subject *subject)
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
static kx_status check_basics(const struct kx_similar_query *query, struct kx_error *error)
{
	double visual = query->weight_visual, audio = query->weight_audio;

	if (query->k < 1 || query->k > KX_QUERY_K_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "k is %u, it must be 1 to %u", query->k,
				    KX_QUERY_K_MAX);
	if (!isfinite(visual) || !isfinite(audio) || visual < 0.0 || audio < 0.0 || visual + audio <= 0.0)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "weights visual=%g audio=%g: they must not be negative, and one must be over 0",
				    visual, audio);
	if (query->vector_count > KX_ANN_MODALITIES ||
	    (query->vector_count == 2 && query->vectors[0].modality == query->vectors[1].modality))
		return invalid(error, "a query has at most one vector of each modality");
	if (query->moment_count > KX_QUERY_MOMENTS_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%u moments came with the query, at most %u may",
				    query->moment_count, KX_QUERY_MOMENTS_MAX);
	if (query->with_moments && query->moment_count &&
	    (!query->moment_us || query->moment_us > KX_MEDIA_US_MAX))
		return invalid(error, "a query that brings moments says how long they are: moment_us");
	return KX_OK;
}

/* The same for what came later. Negated, so that NaN is outside too. */
static kx_status check_options(const struct kx_similar_query *query, struct kx_error *error)
{
	if (query->has_min_score && !(query->min_score >= -1.001 && query->min_score <= 1.001))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "min_score is %g, it must be -1 to 1", query->min_score);
	if (!(query->diversity >= 0.0 && query->diversity <= 1.0))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "diversity is %g, it must be 0 to 1", query->diversity);
	if (!(query->recall >= 0.0 && query->recall <= 1.0))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "recall is %g, it must be over 0 and at most 1",
				    query->recall);
	if (query->group > KX_GROUP_DUPLICATES || query->level > KX_LEVEL_MOMENTS)
		return invalid(error, "a group or a level that there is not");
	if (query->not_id_count > KX_QUERY_NOT_IDS_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%u ids to leave out, at most %u may be",
				    query->not_id_count, KX_QUERY_NOT_IDS_MAX);
	if (query->diversity > 0.0 && query->cursor && query->cursor[0])
		return invalid(error, "a diverse answer has one page: what is on it depends on all of it; ask for a larger k");
	if (query->diversity > 0.0 && query->level == KX_LEVEL_MOMENTS)
		return invalid(error, "diversity chooses among videos, not among moments; group moments by source instead");
	return KX_OK;
}

kx_status kx_subject_check_vector(const struct kx_query_vector *vector, struct kx_error *error)
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

static kx_status add_vector(struct kx_subject *subject, enum kx_modality modality, const char *space, uint32_t dim,
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

static kx_status subject_from_vectors(struct kx_subject *subject, const struct kx_similar_query *query,
				      struct kx_error *error)
{
	kx_status status = KX_OK;

	if (!query->vector_count)
		return invalid(error, "a query names a video or brings vectors");
	for (uint32_t i = 0; !status && i < query->vector_count; i++) {
		const struct kx_query_vector *vector = &query->vectors[i];

		status = kx_subject_check_vector(vector, error);
		if (!status)
			status = add_vector(subject, vector->modality, vector->space, vector->dim, vector->values, error);
	}
	return status;
}

static kx_status subject_from_store(const struct kx_query_context *context, struct kx_subject *subject, const char *id,
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

static kx_status check_weights(const struct kx_subject *subject, const double *weight, struct kx_error *error)
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

kx_status kx_subject_load(const struct kx_query_context *context, const struct kx_similar_query *query,
			  struct kx_subject *subject, struct kx_error *error)
{
	double weight[KX_ANN_MODALITIES] = {query->weight_visual, query->weight_audio};
	kx_status status = check_basics(query, error);

	if (!status)
		status = check_options(query, error);
	if (!status && query->video_id && query->video_id[0])
		status = subject_from_store(context, subject, query->video_id, error);
	else if (!status)
		status = subject_from_vectors(subject, query, error);
	return status ? status : check_weights(subject, weight, error);
}
