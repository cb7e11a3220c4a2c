/* The way to one endpoint where a shard answers. Layer: gateway/backend.
 *
 * Thread it owns: one, for the socket. An endpoint that lets a query's time pass and has said nothing since counts as
 * down: it is not asked, but for a small question every second, until it says something. */
#ifndef KX_GATEWAY_BACKEND_LANE_H
#define KX_GATEWAY_BACKEND_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/record/query.h"
#include "common/wire/wire.h"

struct kx_lane;

/* A packed request that several lanes may send. */
struct kx_packed;
kx_status kx_packed_new(const struct kx_query_request *request, struct kx_packed **ret, struct kx_error *error)
	KX_MUST_CHECK; /* request_id must be unique in the process */
struct kx_packed *kx_packed_ref(struct kx_packed *packed);
void kx_packed_unref(struct kx_packed *packed); /* NULL is nothing */

/* Whoever waits for a reply. Called on the lane's thread, under its lock: must not call the lane. Takes reply over. */
struct kx_lane_waiter {
	void (*answered)(struct kx_lane_waiter *waiter, struct kx_query_reply *reply);
};

struct kx_lane_stats {
	uint64_t asked, answered, late, lost; /* late: nobody waited any more; lost: no reply in time */
	uint64_t took_us;                     /* sum over what was answered */
	bool up;
};

kx_status kx_lane_start(struct kx_wire *wire, const char *endpoint, struct kx_lane **ret, struct kx_error *error)
	KX_MUST_CHECK;
void kx_lane_stop(struct kx_lane *lane); /* nobody waits any more; NULL is nothing */

/* All thread-safe, and none blocks. KX_EAGAIN: too much waits there already. */
kx_status kx_lane_ask(struct kx_lane *lane, struct kx_packed *packed, uint64_t deadline_us, struct kx_lane_waiter *waiter)
	KX_MUST_CHECK;
/* After it the waiter is not called. A late reply still counts for the lane's time. */
void kx_lane_forget(struct kx_lane *lane, const struct kx_lane_waiter *waiter);
bool kx_lane_up(struct kx_lane *lane);
/* Whether it is a replica of nothing that is beside it, and to be left out; false at first. */
void kx_lane_set_stray(struct kx_lane *lane, bool stray);
bool kx_lane_is_stray(struct kx_lane *lane);
uint64_t kx_lane_p95_us(struct kx_lane *lane); /* of the last answers; 0: too few to say */
const char *kx_lane_endpoint(const struct kx_lane *lane);
void kx_lane_stats(struct kx_lane *lane, struct kx_lane_stats *ret);

/* For request_id. */
uint64_t kx_ask_id(void);

#endif
