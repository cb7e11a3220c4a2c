/* Which rows pass the filters that were asked last. Internal to shard/query. Layer: shard/query.
 *
 * By canonical text, the one longest unused goes first, bounded by count and bytes. Each change of a row is made in every
 * entry, so that none is ever stale. Looking up is thread-safe beside itself; changes need the columns' writer alone. */
#ifndef KX_SHARD_QUERY_FILTER_CACHE_H
#define KX_SHARD_QUERY_FILTER_CACHE_H

#include "shard/query/columns.h"

#define KX_FILTER_CACHE_COUNT 64u
#define KX_FILTER_CACHE_BYTES ((size_t)64 << 20)

struct kx_filter_cache;

/* One that was looked up: immutable until it is released, which must be before the columns change. */
struct kx_filter_entry {
	struct kx_filter *filter; /* owned */
	struct kx_bitmap rows;
	uint64_t count;           /* rows that pass */
};

kx_status kx_filter_cache_new(size_t count_max, size_t bytes_max, struct kx_filter_cache **ret) KX_MUST_CHECK;
void kx_filter_cache_free(struct kx_filter_cache *cache); /* NULL is nothing */

/* Takes the filter over in any case, which may come back as another with the same canonical text. KX_ENOMEM. */
kx_status kx_filter_cache_get(struct kx_filter_cache *cache, struct kx_filter *filter, const struct kx_columns *columns,
			      const struct kx_filter_entry **ret) KX_MUST_CHECK;
void kx_filter_cache_release(struct kx_filter_cache *cache, const struct kx_filter_entry *entry); /* NULL is nothing */

/* The row is not as it was, or no more. An entry that can't follow is forgotten. */
void kx_filter_cache_changed(struct kx_filter_cache *cache, const struct kx_columns *columns, uint32_t row);

struct kx_filter_cache_stats {
	uint64_t hits, misses;
	uint32_t count;
	size_t bytes;
};
void kx_filter_cache_stats(struct kx_filter_cache *cache, struct kx_filter_cache_stats *ret);

#endif
