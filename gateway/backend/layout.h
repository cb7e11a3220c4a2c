/* Whether the shards that were named are one catalogue, each part of it once. Pure. Layer: gateway/backend. */
#ifndef KX_GATEWAY_BACKEND_LAYOUT_H
#define KX_GATEWAY_BACKEND_LAYOUT_H

#include "gateway/backend/call.h"

struct kx_layout_gap {
	char parts[64];   /* "part 1 of 2", or more of them; "": none is missing, or it can't be told as a shard is silent */
	char reason[128];
};

/* A replica that holds something else than the first of its shard's endpoints that told. */
struct kx_layout_stray {
	unsigned shard, copy;
	const char *endpoint; /* of the fan-out */
	char reason[192];
};
/* results: of kx_call_copies() of KX_QUERY_STATS. How many there are; ret: room for KX_LAYOUT_STRAYS_MAX. */
#define KX_LAYOUT_STRAYS_MAX (KX_FANOUT_SHARDS_MAX * (KX_FANOUT_COPIES_MAX - 1))
unsigned kx_layout_strays(const struct kx_call_result *results, unsigned count, struct kx_layout_stray *ret);

/* results: of KX_QUERY_STATS, in the order in which the shards were named. The reply of one that has a part which an
 * earlier one has, or a part of another division, is freed and becomes a failure that says so and what to do. Shards
 * that hold a whole catalogue each, or do not tell, may stand beside each other. */
void kx_layout_check(struct kx_call_result *results, unsigned count, struct kx_layout_gap *ret);

#endif
