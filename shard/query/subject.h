/* What others are compared with: a stored video, or vectors that came with the query. Internal to shard/query. */
#ifndef KX_SHARD_QUERY_SUBJECT_H
#define KX_SHARD_QUERY_SUBJECT_H

#include "shard/query/align.h"
#include "shard/query/query.h"

struct kx_subject {
	struct kx_video_record *record; /* NULL: vectors */
	struct kx_ann_vector vectors[KX_ANN_MODALITIES];
	float *values[KX_ANN_MODALITIES]; /* behind the vectors, of unit length */
	size_t count;
	struct kx_align_side side;        /* moments, where they are asked for */
};
void kx_subject_done(struct kx_subject *subject); /* zeroed memory is an empty one */

/* Checks all of a query that needs no index, and loads or normalises its vectors. KX_EINVAL, KX_ENOTFOUND. */
kx_status kx_subject_load(const struct kx_query_context *context, const struct kx_similar_query *query,
			  struct kx_subject *subject, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_subject_check_vector(const struct kx_query_vector *vector, struct kx_error *error) KX_MUST_CHECK;

#endif
