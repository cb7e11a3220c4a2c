/* Asks all shards at once over ZeroMQ and puts their answers together. Layer: gateway/backend.
 *
 * A shard is an endpoint, perhaps with replicas. When one takes longer than 95 of 100 of its last answers did, a replica
 * is asked the same, and the first answer counts (a hedged request, Dean and Barroso, The Tail at Scale, 2013). That is
 * done for one question in KX_HEDGE_EVERY and for KX_HEDGE_BURST beyond at a time, so that shards which are all slow are
 * not asked twice as much for it. What is missing at the deadline is missing from the answer, which says so.
 *
 * Threads it owns: one an endpoint (lane.h). */
#ifndef KX_GATEWAY_BACKEND_FANOUT_H
#define KX_GATEWAY_BACKEND_FANOUT_H

#include "common/wire/wire.h"
#include "gateway/backend/backend.h"

#define KX_FANOUT_SHARDS_MAX 64u
#define KX_FANOUT_COPIES_MAX 4u /* of one shard: the first and its replicas */

#define KX_HEDGE_EVERY 20u /* questions to a shard for each that is asked twice */
#define KX_HEDGE_BURST 10u

struct kx_fanout;

/* shards: "ENDPOINT[|REPLICA...],..."; an endpoint is ZeroMQ's, or HOST:PORT for tcp://HOST:PORT. hedge_ms: before the
 * first answers have told how long one takes. wire must outlive it. KX_EINVAL names what is wrong. */
kx_status kx_fanout_new(struct kx_wire *wire, const char *shards, unsigned hedge_ms, struct kx_fanout **ret,
			struct kx_error *error) KX_MUST_CHECK;
/* Of one shard, whose endpoint may hold any character. */
kx_status kx_fanout_new_one(struct kx_wire *wire, const char *endpoint, struct kx_fanout **ret,
			    struct kx_error *error) KX_MUST_CHECK;
void kx_fanout_free(struct kx_fanout *fanout); /* nobody asks any more; NULL is nothing */

/* As in kx_backend; ctx is the fan-out. */
kx_status kx_fanout_ask(void *fanout, const struct kx_query_request *request, uint64_t deadline_us,
			struct kx_answer *ret, struct kx_error *error) KX_MUST_CHECK;
void kx_fanout_cancel(void *fanout);
kx_status kx_fanout_metrics(void *fanout, struct kx_buf *out) KX_MUST_CHECK;

#endif
