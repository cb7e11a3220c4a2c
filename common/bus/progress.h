/* Which messages of one partition are finished, and up to where that holds without a gap. Pure: no locks, no I/O.
 * Layer: bus, private to this folder. */
#ifndef KX_BUS_PROGRESS_H
#define KX_BUS_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

struct kx_bus_pending;

/* Embedded. Zeroed memory is valid and stands at offset 0. Not thread-safe. */
struct kx_bus_progress {
	int64_t next;           /* everything below is finished: what to commit. -1: not known yet */
	size_t in_flight_bytes; /* received and not finished */
	struct kx_bus_pending *ring;
	size_t cap, head;
	size_t held; /* entries: unfinished ones, and finished ones behind an unfinished one */
};

/* Forgets what is in flight and stands at `next`. */
void kx_bus_progress_reset(struct kx_bus_progress *progress, int64_t next);
void kx_bus_progress_done(struct kx_bus_progress *progress);

/* Offsets rise, gaps are fine (a compacted topic has them). KX_EEXIST for one not above the last, KX_ENOMEM. */
kx_status kx_bus_progress_received(struct kx_bus_progress *progress, int64_t offset, size_t bytes) KX_MUST_CHECK;

/* Finishing twice is KX_OK and nothing. KX_EINVAL for an offset that was never received. *ret_advanced: `next`
 * moved. */
kx_status kx_bus_progress_finished(struct kx_bus_progress *progress, int64_t offset, bool *ret_advanced)
	KX_MUST_CHECK;

#endif
