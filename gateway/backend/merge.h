/* Replies of several shards to one query, as one reply. Pure. Layer: gateway/backend. */
#ifndef KX_GATEWAY_BACKEND_MERGE_H
#define KX_GATEWAY_BACKEND_MERGE_H

#include "common/record/query.h"

/* replies to this very request: at least one, each KX_OK; what they hold is taken out of them. Hits stand as kx_hit_order()
 * has them; a video that two shards have counts once, as does a group. The cursor of the next page is made here. KX_ENOMEM. */
kx_status kx_replies_merge(const struct kx_query_request *request, struct kx_query_reply **replies, unsigned count,
			   struct kx_query_reply **ret, struct kx_error *error) KX_MUST_CHECK;

#endif
