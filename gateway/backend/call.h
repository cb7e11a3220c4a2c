/* One query to all shards, and waiting for their replies: replicas, hedging, the deadline. Layer: gateway/backend. */
#ifndef KX_GATEWAY_BACKEND_CALL_H
#define KX_GATEWAY_BACKEND_CALL_H

#include <pthread.h>
#include <stdatomic.h>

#include "gateway/backend/fanout.h"
#include "gateway/backend/lane.h"

struct kx_fanout_shard {
	unsigned copies;
	struct kx_lane *lanes[KX_FANOUT_COPIES_MAX];
};

/* A call that can be woken: by a reply, or because all are cancelled. */
struct kx_call_wait {
	struct kx_call_wait *next, **at;
	pthread_cond_t changed;
};

struct kx_fanout {
	unsigned shard_count;
	struct kx_fanout_shard shards[KX_FANOUT_SHARDS_MAX];
	uint64_t hedge_us;
	pthread_mutex_t lock;
	struct kx_call_wait *waits; /* of the calls that run */
	bool cancelled;
	unsigned hedge_credit;   /* the lock's: KX_HEDGE_EVERY of it is one hedged request */
	atomic_ullong hedged, hedges_won, hedges_denied;
};

/* Which part of its catalogue a copy says that it holds. */
struct kx_call_copy {
	const char *endpoint; /* NULL: it was not asked, or did not tell */
	uint32_t part, parts;
};

/* What came of one shard: a reply, or why there is none. */
struct kx_call_result {
	struct kx_query_reply *reply; /* the caller frees */
	kx_status status;
	char message[256];
	const char *endpoint; /* that was asked last */
	struct kx_call_copy copies[KX_FANOUT_COPIES_MAX]; /* of kx_call_copies() */
};

/* Whether what came is enough, and nobody need be waited for any more. replies[i] is NULL where none came yet. Called
 * under the fan-out's lock. */
typedef bool kx_call_enough(const struct kx_query_reply *const *replies, unsigned count);

/* Asks each shard i < shard_count for packed[i] (NULL: that one is left out) and fills results[i]. Blocks, at most until
 * deadline_us. enough NULL: until all replied. */
void kx_call(struct kx_fanout *fanout, struct kx_packed *const *packed, uint64_t deadline_us, kx_call_enough *enough,
	     struct kx_call_result *results);
/* Asks one question of every copy of every shard at once, those that hold another part, too. The answer of the first copy that
 * has one counts; the others are waited for, once there is one, for at most half of the time. */
void kx_call_copies(struct kx_fanout *fanout, struct kx_packed *packed, uint64_t deadline_us,
		    struct kx_call_result *results);
/* Wakes and ends all calls, also those to come. */
void kx_call_cancel_all(struct kx_fanout *fanout);

#endif
