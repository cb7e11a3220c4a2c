#include "common/fetch/cache.h"

#include <stdlib.h>

/* Demuxers step back a little now and then. */
#define BEFORE ((uint64_t)32 << 10)

static void drop(struct kx_cache *cache, struct kx_span *span)
{
	struct kx_span **at = &cache->spans;
	while (*at != span)
		at = &(*at)->next;
	*at = span->next;
	cache->bytes -= span->len;
	free(span->data);
	free(span);
}

void kx_cache_done(struct kx_cache *cache)
{
	while (cache->spans)
		drop(cache, cache->spans);
}

struct kx_span *kx_cache_at(const struct kx_cache *cache, uint64_t offset)
{
	for (struct kx_span *span = cache->spans; span; span = span->next) {
		if (offset >= span->start && offset - span->start < span->len)
			return span;
	}
	return NULL;
}

const uint8_t *kx_cache_read(struct kx_cache *cache, uint64_t offset, size_t *ret_len)
{
	struct kx_span *span = kx_cache_at(cache, offset);
	if (!span || offset - span->start >= span->filled)
		return NULL;
	span->used = ++cache->tick;
	*ret_len = span->filled - (size_t)(offset - span->start);
	return span->data + (offset - span->start);
}

static struct kx_span *ending_at(const struct kx_cache *cache, uint64_t offset)
{
	for (struct kx_span *span = cache->spans; span; span = span->next) {
		if (span->start + span->len == offset)
			return span;
	}
	return NULL;
}

/* Where a span that has nothing before it begins: not inside another. */
static uint64_t begin_before(const struct kx_cache *cache, uint64_t offset)
{
	uint64_t start = offset > BEFORE ? offset - BEFORE : 0;
	for (const struct kx_span *span = cache->spans; span; span = span->next) {
		if (span->start < offset && span->start + span->len > start)
			start = span->start + span->len;
	}
	return start;
}

/* offset lies in [start, the result). */
static uint64_t end_of(const struct kx_cache *cache, uint64_t start, uint64_t offset, size_t window, uint64_t size)
{
	uint64_t end = size - start <= window + window / 2 ? size : start + window;
	for (const struct kx_span *span = cache->spans; span; span = span->next) {
		if (span->start > offset && span->start < end)
			end = span->start;
	}
	return end;
}

/* The least lately read go first. No span is being fetched now. */
static void make_room(struct kx_cache *cache, size_t len)
{
	while (cache->spans && cache->bytes + len > KX_CACHE_MAX) {
		struct kx_span *oldest = cache->spans;
		for (struct kx_span *span = cache->spans; span; span = span->next) {
			if (span->used < oldest->used)
				oldest = span;
		}
		drop(cache, oldest);
	}
}

static void insert(struct kx_cache *cache, struct kx_span *span)
{
	struct kx_span **at = &cache->spans;
	while (*at && (*at)->start < span->start)
		at = &(*at)->next;
	span->next = *at;
	*at = span;
	cache->bytes += span->len;
}

struct kx_span *kx_cache_add(struct kx_cache *cache, uint64_t offset, uint64_t size)
{
	const struct kx_span *before = ending_at(cache, offset);
	size_t window = before ? 2 * before->window : KX_WINDOW_MIN;
	if (window > KX_WINDOW_MAX)
		window = KX_WINDOW_MAX;
	uint64_t start = before ? offset : begin_before(cache, offset);
	size_t len = (size_t)(end_of(cache, start, offset, window, size) - start);
	struct kx_span *span = calloc(1, sizeof(*span));
	if (span)
		span->data = malloc(len);
	if (!span || !span->data) {
		free(span);
		return NULL;
	}
	make_room(cache, len);
	span->start = start;
	span->len = len;
	span->window = window;
	span->used = ++cache->tick;
	insert(cache, span);
	return span;
}

void kx_cache_settle(struct kx_cache *cache, struct kx_span *span)
{
	if (span->filled == 0) {
		drop(cache, span);
		return;
	}
	if (span->filled < span->len) {
		uint8_t *less = realloc(span->data, span->filled);
		span->data = less ? less : span->data;
	}
	cache->bytes -= span->len - span->filled;
	span->len = span->filled;
}

uint64_t kx_cache_ahead(const struct kx_cache *cache, uint64_t offset, uint64_t size)
{
	const struct kx_span *span = offset > 0 ? kx_cache_at(cache, offset - 1) : NULL;
	if (!span || span->window == KX_WINDOW_MIN || offset - span->start < span->len / 2)
		return UINT64_MAX;
	uint64_t next = span->start + span->len;
	return next < size && !kx_cache_at(cache, next) ? next : UINT64_MAX;
}
