/* Single similarity queries that come at a time, as one batch to a shard that answers one message after the other.
 * Layer: gateway/backend.
 *
 * One that finds nobody before it goes out at once and alone. Those that come while it is out wait, and the first of them
 * then takes all along: nobody waits for company. No threads of its own: the waiting are the askers themselves. */
#ifndef KX_GATEWAY_BACKEND_JOIN_H
#define KX_GATEWAY_BACKEND_JOIN_H

#include "gateway/backend/backend.h"

#define KX_JOIN_MAX 64u /* queries in a batch that was joined */

struct kx_join;

typedef kx_status kx_join_ask(void *ctx, const struct kx_query_request *request, uint64_t deadline_us, struct kx_answer *ret,
			      struct kx_error *error);

/* lanes: how many messages may be out at a time. */
kx_status kx_join_new(kx_join_ask *ask, void *ctx, unsigned lanes, struct kx_join **ret, struct kx_error *error)
	KX_MUST_CHECK;
void kx_join_free(struct kx_join *join); /* nobody asks any more; NULL is nothing */

/* As kx_backend's ask. Queries that are no single similarity query, or ask for moments, go straight on. Of a batch that fails as a whole each
 * gets the error. */
kx_status kx_join_answer(struct kx_join *join, const struct kx_query_request *request, uint64_t deadline_us,
			 struct kx_answer *ret, struct kx_error *error) KX_MUST_CHECK;

struct kx_join_stats {
	uint64_t batches; /* of more than one */
	uint64_t joined;  /* queries in them */
	unsigned waiting; /* now */
};
void kx_join_stats(struct kx_join *join, struct kx_join_stats *ret); /* thread-safe */

#endif
