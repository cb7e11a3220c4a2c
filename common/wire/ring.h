/* A ring of equal slots in memory that two processes share: one writes frames, the other gives slots back in any
 * order. Layer: wire.
 *
 * The reader creates it and passes both descriptors to the writer (SCM_RIGHTS). Which slot holds what travels in
 * messages; here are only bytes and one state word a slot. The writer is not trusted: the reader takes slot numbers
 * only below its own count, and copies or consumes a slot knowing that a hostile writer may change it meanwhile.
 */
#ifndef KX_WIRE_RING_H
#define KX_WIRE_RING_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

#define KX_RING_SLOTS_MAX 1024u
#define KX_RING_SLOT_BYTES_MAX (256u << 20)

struct kx_ring;

/* slot_bytes is rounded up to 64. Memory is a memfd sealed against a change of its length. A pipe wakes a writer that
 * waits; not an eventfd, because the two sides would share its O_NONBLOCK, and a hostile writer could make the
 * reader's wake-up block. Each handle is freed by whoever made it; descriptors are close-on-exec. */
kx_status kx_ring_new(uint32_t slots, uint32_t slot_bytes, struct kx_ring **ret, struct kx_error *error) KX_MUST_CHECK;
/* The writer's side; takes over both descriptors, also on failure. */
kx_status kx_ring_attach(int memory_fd, int wake_fd, uint32_t slots, uint32_t slot_bytes, struct kx_ring **ret,
			 struct kx_error *error) KX_MUST_CHECK;
void kx_ring_free(struct kx_ring *ring);
/* The two descriptors that the writer gets; borrowed. */
int kx_ring_memory_fd(const struct kx_ring *ring);
int kx_ring_wake_fd(const struct kx_ring *ring);
uint32_t kx_ring_slots(const struct kx_ring *ring);

/* Writer, any thread: a free slot, waiting for one up to timeout_ms (KX_ETIMEDOUT; -1: for ever). KX_EIO when the
 * reader has gone and none is free. */
kx_status kx_ring_acquire(struct kx_ring *ring, int timeout_ms, uint32_t *ret_slot,
			  struct kx_error *error) KX_MUST_CHECK;

/* Reader, any thread: gives a slot back. Never blocks, whatever the writer does. */
void kx_ring_release(struct kx_ring *ring, uint32_t slot);
/* Reader: everything free again, for the next writer. No writer may be attached. */
void kx_ring_reset(struct kx_ring *ring);

/* slot < slots is asserted. */
void *kx_ring_slot(struct kx_ring *ring, uint32_t slot);

#endif
