/* What waits for inference, and when a burst of it is worth running. Pure: time comes in as a number, locks are the
 * caller's. Layer: worker/pipeline, private.
 *
 * A burst is some batches of a model, run one after the other. A batch has one fixed shape, so a part of one costs as
 * much as a whole, and a burst's first item pays for the caches that the others find warm. So a burst runs when it is
 * full; when nobody can add to it (flush); or when its oldest item has waited for `linger`.
 */
#ifndef KX_WORKER_PIPELINE_BATCHER_H
#define KX_WORKER_PIPELINE_BATCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/record/types.h"

#define KX_TRACKS 2
#define KX_BURST_MAX 64

/* Visual is 0, audio is 1, wherever both stand side by side. */
static inline size_t kx_track_index(enum kx_modality modality)
{
	return modality == KX_VISUAL ? 0 : 1;
}

/* The caller embeds or allocates it; it belongs to the batcher while it waits. */
struct kx_item {
	struct kx_item *next;
	const void *owner; /* for kx_batcher_drop() */
	uint64_t since_us;
};

struct kx_batch_queue {
	struct kx_item *head;
	struct kx_item **tail;
	size_t count;
	size_t burst;
};

struct kx_batcher {
	struct kx_batch_queue queue[KX_TRACKS];
	uint64_t linger_us;
};

/* burst[track]: 1 to KX_BURST_MAX. */
void kx_batcher_init(struct kx_batcher *batcher, const size_t burst[KX_TRACKS], uint64_t linger_us);
void kx_batcher_push(struct kx_batcher *batcher, size_t track, struct kx_item *item, uint64_t now_us);

/* Takes up to a burst of one track, oldest first, into items. 0: nothing is due. */
size_t kx_batcher_take(struct kx_batcher *batcher, uint64_t now_us, bool flush, size_t *ret_track,
		       struct kx_item *items[KX_BURST_MAX]);

/* When something will be due without anything new; UINT64_MAX when nothing waits. */
uint64_t kx_batcher_due_us(const struct kx_batcher *batcher);

/* Takes out all items of an owner, as a list. */
struct kx_item *kx_batcher_drop(struct kx_batcher *batcher, const void *owner);

#endif
