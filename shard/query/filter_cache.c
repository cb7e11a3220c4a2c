#include "shard/query/filter_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

struct slot {
	struct kx_filter_entry entry; /* first: an entry is its slot */
	TAILQ_ENTRY(slot) link;       /* the one used last first */
	unsigned users;
	bool kept;                    /* in the list; else freed by its last user */
};
TAILQ_HEAD(slots, slot);

struct kx_filter_cache {
	pthread_mutex_t lock;
	struct slots slots;
	size_t count_max, bytes_max;
	struct kx_filter_cache_stats stats;
};

kx_status kx_filter_cache_new(size_t count_max, size_t bytes_max, struct kx_filter_cache **ret)
{
	struct kx_filter_cache *cache = calloc(1, sizeof(*cache));

	if (!cache || pthread_mutex_init(&cache->lock, NULL)) {
		free(cache);
		return KX_ENOMEM;
	}
	TAILQ_INIT(&cache->slots);
	cache->count_max = count_max;
	cache->bytes_max = bytes_max;
	*ret = cache;
	return KX_OK;
}

static size_t slot_bytes(const struct slot *slot)
{
	return sizeof(*slot) + slot->entry.rows.rows / 8u + strlen(slot->entry.filter->canonical) +
	       slot->entry.filter->clause_count * sizeof(struct kx_filter_node);
}

static void slot_free(struct slot *slot)
{
	kx_filter_free(slot->entry.filter);
	kx_bitmap_done(&slot->entry.rows);
	free(slot);
}

/* Takes it out of the list; whoever still uses it frees it. */
static void forget(struct kx_filter_cache *cache, struct slot *slot)
{
	TAILQ_REMOVE(&cache->slots, slot, link);
	cache->stats.count--;
	cache->stats.bytes -= slot_bytes(slot);
	slot->kept = false;
	if (!slot->users)
		slot_free(slot);
}

void kx_filter_cache_free(struct kx_filter_cache *cache)
{
	if (!cache)
		return;
	while (!TAILQ_EMPTY(&cache->slots))
		forget(cache, TAILQ_FIRST(&cache->slots));
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

static struct slot *find(struct kx_filter_cache *cache, const char *canonical)
{
	struct slot *slot;

	TAILQ_FOREACH (slot, &cache->slots, link)
		if (strcmp(slot->entry.filter->canonical, canonical) == 0)
			return slot;
	return NULL;
}

static struct slot *look_up(struct kx_filter_cache *cache, const char *canonical)
{
	struct slot *slot;

	pthread_mutex_lock(&cache->lock);
	slot = find(cache, canonical);
	if (slot) {
		slot->users++;
		TAILQ_REMOVE(&cache->slots, slot, link);
		TAILQ_INSERT_HEAD(&cache->slots, slot, link);
		cache->stats.hits++;
	} else {
		cache->stats.misses++;
	}
	pthread_mutex_unlock(&cache->lock);
	return slot;
}

/* Two may have evaluated the same filter at once: both are right, and one is kept. */
static void keep(struct kx_filter_cache *cache, struct slot *slot)
{
	size_t bytes = slot_bytes(slot);

	pthread_mutex_lock(&cache->lock);
	if (!find(cache, slot->entry.filter->canonical) && cache->count_max && bytes <= cache->bytes_max) {
		TAILQ_INSERT_HEAD(&cache->slots, slot, link);
		slot->kept = true;
		cache->stats.count++;
		cache->stats.bytes += bytes;
		while (cache->stats.count > cache->count_max || cache->stats.bytes > cache->bytes_max)
			forget(cache, TAILQ_LAST(&cache->slots, slots));
	}
	pthread_mutex_unlock(&cache->lock);
}

kx_status kx_filter_cache_get(struct kx_filter_cache *cache, struct kx_filter *filter, const struct kx_columns *columns,
			      const struct kx_filter_entry **ret)
{
	struct slot *slot = look_up(cache, filter->canonical);

	if (slot) {
		kx_filter_free(filter);
		*ret = &slot->entry;
		return KX_OK;
	}
	slot = calloc(1, sizeof(*slot));
	if (!slot || kx_filter_evaluate(filter, columns, &slot->entry.rows)) {
		kx_filter_free(filter);
		free(slot);
		return KX_ENOMEM;
	}
	slot->entry.filter = filter;
	slot->entry.count = kx_bitmap_count(&slot->entry.rows);
	slot->users = 1;
	keep(cache, slot);
	*ret = &slot->entry;
	return KX_OK;
}

void kx_filter_cache_release(struct kx_filter_cache *cache, const struct kx_filter_entry *entry)
{
	struct slot *slot = (struct slot *)(uintptr_t)entry;
	bool last;

	if (!slot)
		return;
	pthread_mutex_lock(&cache->lock);
	last = --slot->users == 0 && !slot->kept;
	pthread_mutex_unlock(&cache->lock);
	if (last)
		slot_free(slot);
}

static kx_status follow(struct kx_filter_entry *entry, const struct kx_columns *columns, uint32_t row)
{
	bool had = kx_bitmap_has(&entry->rows, row), has = false;

	if (kx_bitmap_reserve(&entry->rows, columns->live.rows))
		return KX_ENOMEM;
	if (kx_bitmap_has(&columns->live, row) && kx_filter_matches(entry->filter->root, columns, row, &has))
		return KX_ENOMEM;
	if (row < entry->rows.rows)
		kx_bitmap_set(&entry->rows, row, has);
	entry->count = entry->count + has - had;
	return KX_OK;
}

void kx_filter_cache_changed(struct kx_filter_cache *cache, const struct kx_columns *columns, uint32_t row)
{
	struct slot *slot, *next;

	pthread_mutex_lock(&cache->lock);
	for (slot = TAILQ_FIRST(&cache->slots); slot; slot = next) {
		size_t before = slot_bytes(slot);

		next = TAILQ_NEXT(slot, link);
		if (!follow(&slot->entry, columns, row)) {
			cache->stats.bytes += slot_bytes(slot) - before;
			continue;
		}
		cache->stats.bytes += slot_bytes(slot) - before;
		forget(cache, slot);
	}
	while (cache->stats.bytes > cache->bytes_max && cache->stats.count)
		forget(cache, TAILQ_LAST(&cache->slots, slots));
	pthread_mutex_unlock(&cache->lock);
}

void kx_filter_cache_stats(struct kx_filter_cache *cache, struct kx_filter_cache_stats *ret)
{
	pthread_mutex_lock(&cache->lock);
	*ret = cache->stats;
	pthread_mutex_unlock(&cache->lock);
}
