/* Similar videos and the moments that match. Internal to shard/query. Layer: shard/query. */
#ifndef KX_SHARD_QUERY_SIMILAR_H
#define KX_SHARD_QUERY_SIMILAR_H

#include "shard/query/query.h"

kx_status kx_query_similar(const struct kx_query_context *context, const struct kx_similar_query *query,
			   struct kx_similar_answer *answer, struct kx_error *error) KX_MUST_CHECK;

/* Each as kx_query_similar() answers it: a query that fails is an answer with its status and message. answers: [n], zeroed.
 * Those of the nearest videos share what they look at. KX_ENOMEM, and kx_query_ended(), fail all. */
kx_status kx_query_similar_many(const struct kx_query_context *context, const struct kx_similar_query *queries, size_t n,
				struct kx_similar_answer *answers, struct kx_error *error) KX_MUST_CHECK;

/* KX_ENOTFOUND with a message that names the id and those that may have been meant. */
kx_status kx_query_not_found(const struct kx_query_context *context, const char *id, struct kx_error *error);

#endif
