/* Similar videos and the moments that match. Internal to shard/query. Layer: shard/query. */
#ifndef KX_SHARD_QUERY_SIMILAR_H
#define KX_SHARD_QUERY_SIMILAR_H

#include "shard/query/query.h"

kx_status kx_query_similar(const struct kx_query_context *context, const struct kx_similar_query *query,
			   struct kx_similar_answer *answer, struct kx_error *error) KX_MUST_CHECK;

/* KX_ENOTFOUND with a message that names the id and those that may have been meant. */
kx_status kx_query_not_found(const struct kx_query_context *context, const char *id, struct kx_error *error);

#endif
