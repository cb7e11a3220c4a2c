#include "cli/query.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "common/learn/learn.h"

static kx_status merge_moment(struct kx_merge *merge, const struct kx_moment *moment, struct kx_summary *scratch,
			      struct kx_error *error)
{
	/* The digest ties a summary to its stored bytes; there are none here. */
	kx_status status = kx_summary_of(moment, "", 0, scratch);
	return status == KX_OK ? kx_merge_add(merge, scratch, error) : status;
}

static kx_status merge_modality(struct kx_merge *merge, const struct kx_embedded *embedded, enum kx_modality modality,
				struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) struct kx_summary *scratch = malloc(sizeof(*scratch));
	kx_status status = scratch != NULL ? KX_OK : kx_error_nomem(error);
	for (uint32_t i = 0; i < embedded->moment_count && status == KX_OK; i++)
		if (embedded->moments[i]->modality == modality)
			status = merge_moment(merge, embedded->moments[i], scratch, error);
	return status;
}

kx_status kx_embedded_merge(const struct kx_embedded *embedded, struct kx_merge **ret_merge,
			    struct kx_modality_result ret[2], uint32_t *ret_count, struct kx_error *error)
{
	KX_CLEANUP(kx_merge_cleanup) struct kx_merge *merge = NULL;
	kx_status status = kx_merge_new(&merge);
	if (status == KX_OK)
		status = merge_modality(merge, embedded, KX_VISUAL, error);
	if (status == KX_OK)
		status = merge_modality(merge, embedded, KX_AUDIO, error);
	if (status == KX_OK)
		status = kx_merge_modalities(merge, ret, ret_count, error);
	if (status == KX_OK)
		*ret_merge = KX_STEAL(merge);
	return status;
}

static kx_status set_vector(struct kx_query_vector *vector, enum kx_modality modality, const char *space, uint32_t dim)
{
	vector->modality = modality;
	vector->space = kx_strdup(space);
	vector->dim = dim;
	vector->values = calloc(dim, sizeof(float));
	return vector->space != NULL && vector->values != NULL ? KX_OK : KX_ENOMEM;
}

static kx_status whole_vectors(const struct kx_embedded *embedded, struct kx_vectors *out, struct kx_error *error)
{
	KX_CLEANUP(kx_merge_cleanup) struct kx_merge *merge = NULL;
	struct kx_modality_result modalities[2];
	uint32_t count;
	kx_status status = kx_embedded_merge(embedded, &merge, modalities, &count, error);
	if (status != KX_OK)
		return status;
	out->vectors = calloc(2, sizeof(struct kx_query_vector));
	if (out->vectors == NULL)
		return kx_error_nomem(error);
	out->vector_count = count;
	for (uint32_t i = 0; i < count; i++) {
		const struct kx_modality_result *from = &modalities[i];
		if (set_vector(&out->vectors[i], from->modality, from->space, from->dim) != KX_OK)
			return kx_error_nomem(error);
		memcpy(out->vectors[i].values, from->embedding, from->dim * sizeof(float));
	}
	return KX_OK;
}

static kx_status moment_vectors(const struct kx_embedded *embedded, struct kx_vectors *out, struct kx_error *error)
{
	out->moments = calloc(embedded->moment_count, sizeof(struct kx_query_vector));
	if (out->moments == NULL)
		return kx_error_nomem(error);
	out->moment_count = embedded->moment_count;
	for (uint32_t i = 0; i < embedded->moment_count; i++) {
		const struct kx_moment *from = embedded->moments[i];
		if (set_vector(&out->moments[i], from->modality, from->space, from->dim) != KX_OK)
			return kx_error_nomem(error);
		out->moments[i].moment = from->index;
		kx_learn_dequantize_i8(from->embedding, from->dim, from->embedding_scale, out->moments[i].values);
	}
	return KX_OK;
}

kx_status kx_vectors_of(const struct kx_embedded *embedded, bool with_moments, struct kx_vectors *ret,
			struct kx_error *error)
{
	struct kx_vectors vectors = {0};
	kx_status status = whole_vectors(embedded, &vectors, error);
	if (status == KX_OK && with_moments && embedded->moment_count > 0)
		status = moment_vectors(embedded, &vectors, error);
	if (status == KX_OK)
		*ret = vectors;
	else
		kx_vectors_done(&vectors);
	return status;
}

static void free_vectors(struct kx_query_vector *vectors, uint32_t count)
{
	for (uint32_t i = 0; vectors != NULL && i < count; i++) {
		free(vectors[i].space);
		free(vectors[i].values);
	}
	free(vectors);
}

void kx_vectors_done(struct kx_vectors *vectors)
{
	free_vectors(vectors->vectors, vectors->vector_count);
	free_vectors(vectors->moments, vectors->moment_count);
	*vectors = (struct kx_vectors){0};
}
