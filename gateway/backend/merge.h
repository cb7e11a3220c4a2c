/* Replies of several shards to one query, as one reply. Pure. Layer: gateway/backend. */
#ifndef KX_GATEWAY_BACKEND_MERGE_H
#define KX_GATEWAY_BACKEND_MERGE_H

#include "common/record/query.h"

/* replies: at least one, each KX_OK; what they hold is taken out of them. Hits stand by score, then id; a video that two
 * shards have counts once, as does a group. The first `skip` hits are left out. KX_ENOMEM. */
kx_status kx_replies_merge(const struct kx_query_request *request, uint32_t skip, struct kx_query_reply **replies,
			   unsigned count, struct kx_query_reply **ret, struct kx_error *error) KX_MUST_CHECK;

/* The page behind `skip` hits, as a cursor: pages over several shards count hits from the first. KX_EINVAL when the text is
 * no such cursor. "" is 0. */
kx_status kx_cursor_parse(const char *cursor, uint32_t *ret_skip, struct kx_error *error) KX_MUST_CHECK;
char *kx_cursor_make(uint32_t skip); /* NULL: no memory */

#endif
