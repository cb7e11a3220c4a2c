#include "worker/pipeline/batcher.h"

#include <assert.h>

void kx_batcher_init(struct kx_batcher *batcher, const size_t burst[KX_TRACKS], uint64_t linger_us)
{
	batcher->linger_us = linger_us;
	for (size_t i = 0; i < KX_TRACKS; i++) {
		struct kx_batch_queue *queue = &batcher->queue[i];

		assert(burst[i] >= 1 && burst[i] <= KX_BURST_MAX);
		*queue = (struct kx_batch_queue){.tail = &queue->head, .burst = burst[i]};
	}
}

void kx_batcher_push(struct kx_batcher *batcher, size_t track, struct kx_item *item, uint64_t now_us)
{
	struct kx_batch_queue *queue = &batcher->queue[track];

	item->next = NULL;
	item->since_us = now_us;
	*queue->tail = item;
	queue->tail = &item->next;
	queue->count++;
}

static bool due(const struct kx_batcher *batcher, const struct kx_batch_queue *queue, uint64_t now_us, bool flush)
{
	if (queue->count == 0)
		return false;
	return flush || queue->count >= queue->burst || now_us >= queue->head->since_us + batcher->linger_us;
}

static size_t take_from(struct kx_batch_queue *queue, struct kx_item **items)
{
	size_t count = 0;

	while (queue->head && count < queue->burst) {
		items[count++] = queue->head;
		queue->head = queue->head->next;
	}
	if (!queue->head)
		queue->tail = &queue->head;
	queue->count -= count;
	return count;
}

size_t kx_batcher_take(struct kx_batcher *batcher, uint64_t now_us, bool flush, size_t *ret_track,
		       struct kx_item *items[KX_BURST_MAX])
{
	struct kx_batch_queue *best = NULL;

	for (size_t i = 0; i < KX_TRACKS; i++) {
		struct kx_batch_queue *queue = &batcher->queue[i];

		if (due(batcher, queue, now_us, flush) && (!best || queue->head->since_us < best->head->since_us)) {
			best = queue;
			*ret_track = i;
		}
	}
	return best ? take_from(best, items) : 0;
}

uint64_t kx_batcher_due_us(const struct kx_batcher *batcher)
{
	uint64_t due_us = UINT64_MAX;

	for (size_t i = 0; i < KX_TRACKS; i++) {
		const struct kx_batch_queue *queue = &batcher->queue[i];

		if (queue->count > 0 && queue->head->since_us + batcher->linger_us < due_us)
			due_us = queue->head->since_us + batcher->linger_us;
	}
	return due_us;
}

static void drop_from(struct kx_batch_queue *queue, const void *owner, struct kx_item **dropped)
{
	struct kx_item **at = &queue->head;

	while (*at) {
		struct kx_item *item = *at;

		if (item->owner != owner) {
			at = &item->next;
			continue;
		}
		*at = item->next;
		item->next = *dropped;
		*dropped = item;
		queue->count--;
	}
	queue->tail = at;
}

struct kx_item *kx_batcher_drop(struct kx_batcher *batcher, const void *owner)
{
	struct kx_item *dropped = NULL;

	for (size_t i = 0; i < KX_TRACKS; i++)
		drop_from(&batcher->queue[i], owner, &dropped);
	return dropped;
}
