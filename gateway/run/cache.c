#include "gateway/run/cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"

#define ENTRIES 512u

struct entry {
	char *key;
	uint8_t *bytes;
	size_t len;
	uint64_t used;
};

/* Few enough to be looked through. */
struct kx_cache_lru {
	pthread_mutex_t lock;
	size_t bytes, bytes_max;
	uint64_t clock;
	size_t count;
	struct entry entries[ENTRIES];
};

kx_status kx_cache_lru_new(size_t bytes_max, struct kx_cache_lru **ret, struct kx_error *error)
{
	struct kx_cache_lru *cache = calloc(1, sizeof(*cache));

	if (cache == NULL)
		return kx_error_nomem(error);
	cache->bytes_max = bytes_max;
	pthread_mutex_init(&cache->lock, NULL);
	*ret = cache;
	return KX_OK;
}

static void drop(struct kx_cache_lru *cache, size_t i)
{
	cache->bytes -= cache->entries[i].len;
	free(cache->entries[i].key);
	free(cache->entries[i].bytes);
	cache->entries[i] = cache->entries[--cache->count];
}

void kx_cache_lru_free(struct kx_cache_lru *cache)
{
	if (cache == NULL)
		return;
	while (cache->count > 0)
		drop(cache, 0);
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

static size_t find(const struct kx_cache_lru *cache, const char *key)
{
	size_t i = 0;

	while (i < cache->count && strcmp(cache->entries[i].key, key) != 0)
		i++;
	return i;
}

kx_status kx_cache_lru_get(struct kx_cache_lru *cache, const char *key, struct kx_buf *out)
{
	kx_status status = KX_ENOTFOUND;

	pthread_mutex_lock(&cache->lock);
	size_t i = find(cache, key);
	if (i < cache->count) {
		cache->entries[i].used = ++cache->clock;
		status = kx_buf_append(out, cache->entries[i].bytes, cache->entries[i].len);
	}
	pthread_mutex_unlock(&cache->lock);
	return status;
}

static void make_room(struct kx_cache_lru *cache, size_t len)
{
	while (cache->count == ENTRIES || (cache->count > 0 && cache->bytes + len > cache->bytes_max)) {
		size_t oldest = 0;

		for (size_t i = 1; i < cache->count; i++)
			if (cache->entries[i].used < cache->entries[oldest].used)
				oldest = i;
		drop(cache, oldest);
	}
}

void kx_cache_lru_put(struct kx_cache_lru *cache, const char *key, const void *bytes, size_t len)
{
	struct entry entry = {.key = kx_strdup(key), .bytes = malloc(len > 0 ? len : 1), .len = len};

	if (entry.key == NULL || entry.bytes == NULL || len > cache->bytes_max) {
		free(entry.key);
		free(entry.bytes);
		return;
	}
	memcpy(entry.bytes, bytes, len);
	pthread_mutex_lock(&cache->lock);
	size_t same = find(cache, key);
	if (same < cache->count)
		drop(cache, same);
	make_room(cache, len);
	entry.used = ++cache->clock;
	cache->bytes += len;
	cache->entries[cache->count++] = entry;
	pthread_mutex_unlock(&cache->lock);
}
