/* A catalogue's stores made anew as another number of them, while no shard runs. Layer: shard/run. */
#ifndef KX_SHARD_RUN_SPREAD_H
#define KX_SHARD_RUN_SPREAD_H

#include "shard/store/spread.h"

#define KX_SPREAD_MAX 64u

struct kx_shard_spread {
	const char *const *from; /* data directories of all parts, that nobody writes to: the caller holds their locks */
	size_t from_count;       /* at most KX_SPREAD_MAX */
	const char *const *to;   /* folders, made when missing: each gets a new store, without FORMAT */
	uint32_t parts;          /* how many; at most KX_SPREAD_MAX */
	uint32_t partitions;     /* of the results topic: where a whole catalogue is spread. Parts know theirs */
	bool (*goes_on)(void *ctx);
	void *ctx;
};

/* See kx_spread_stores(). The stores are closed and on disk when it returns; after a failure the folders are to be removed. */
kx_status kx_shard_spread(const struct kx_shard_spread *options, struct kx_spread_counts *each,
			  struct kx_spread_counts *ret, struct kx_error *error) KX_MUST_CHECK;

#endif
