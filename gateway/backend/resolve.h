/* A query that names a video, for shards that do not have it: the video's own vectors in its place. Layer: gateway/backend. */
#ifndef KX_GATEWAY_BACKEND_RESOLVE_H
#define KX_GATEWAY_BACKEND_RESOLVE_H

#include "gateway/backend/backend.h"

struct kx_resolved_query; /* what one query got */

struct kx_resolved {
	struct kx_query_request request; /* to be sent; borrows from what was resolved and from the fields below */
	struct kx_query_reply *refusal;  /* instead: nothing is to be sent */
	uint32_t asked, answered;
	struct kx_answer found;
	uint32_t count;
	struct kx_resolved_query *queries; /* [count] */
	struct kx_similar_query *sent;     /* of a batch: those whose video was found */
};

typedef kx_status kx_resolve_ask(void *ctx, const struct kx_query_request *request, uint64_t deadline_us,
				 struct kx_answer *ret, struct kx_error *error);

/* SIMILAR or SIMILAR_BATCH. Asks once for all the videos that are named, if any. The queries
 * leave out the video itself; what they become is the same for every page, so that cursors fit. A single one whose video nobody has becomes a refusal; KX_ETIMEDOUT when a shard
 * that may have it did not answer. Of a batch there may be nothing left to send (batch_count 0). */
kx_status kx_resolve(const struct kx_query_request *request, kx_resolve_ask *ask, void *ctx, uint64_t deadline_us,
		     struct kx_resolved *ret, struct kx_error *error) KX_MUST_CHECK;
/* Puts "not found" into the places of a batch's reply whose video nobody had. */
kx_status kx_resolved_restore(struct kx_resolved *resolved, struct kx_query_reply *reply,
			      struct kx_error *error) KX_MUST_CHECK;
void kx_resolved_done(struct kx_resolved *resolved);

#endif
