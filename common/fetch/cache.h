/* The parts of an object that are in memory, and which part to fetch next. Pure. Layer: fetch, private. */
#ifndef KX_FETCH_CACHE_H
#define KX_FETCH_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

#define KX_WINDOW_MIN ((size_t)256 << 10)
#define KX_WINDOW_MAX ((size_t)4 << 20)
#define KX_CACHE_MAX ((size_t)12 << 20) /* bytes of all spans of one cache */

/* Bytes [start, start + len) of the object, of which the first `filled` are there. */
struct kx_span {
	struct kx_span *next;
	uint64_t start;
	size_t len, filled;
	size_t window; /* how much was to be fetched at a time; the span that goes on from here doubles it */
	uint64_t used; /* the tick of the last reading */
	uint8_t *data;
};

/* Zeroed memory is an empty one. Owned by one thread. */
struct kx_cache {
	struct kx_span *spans; /* by start; they do not overlap */
	size_t bytes;
	uint64_t tick;
};
void kx_cache_done(struct kx_cache *cache);

/* The bytes at offset that are there, at least one; NULL: none. Valid until something is added. */
const uint8_t *kx_cache_read(struct kx_cache *cache, uint64_t offset, size_t *ret_len);
/* The span that holds offset, whether filled so far or not; NULL: none. */
struct kx_span *kx_cache_at(const struct kx_cache *cache, uint64_t offset);

/* Makes room and adds the span to be fetched for what is missing at offset (below size, in no span): it goes on where
 * another ends, twice as large, or begins a little before offset; it ends before the next one, and takes a small rest
 * of the object along. NULL when out of memory. */
struct kx_span *kx_cache_add(struct kx_cache *cache, uint64_t offset, uint64_t size);
/* Its fetching is over: it keeps what is there. */
void kx_cache_settle(struct kx_cache *cache, struct kx_span *span);

/* Where to read ahead: after the span that was read last, once half of it was and it was one that went on.
 * UINT64_MAX: nowhere. offset: the end of the last reading. */
uint64_t kx_cache_ahead(const struct kx_cache *cache, uint64_t offset, uint64_t size);

#endif
