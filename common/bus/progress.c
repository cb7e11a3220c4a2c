/* The contiguous finished prefix of a partition: a ring of what was received, in order of offsets. */
#include "common/bus/progress.h"

#include <stdlib.h>

#define RING_START 64

struct kx_bus_pending {
	int64_t offset;
	size_t bytes;
	bool finished;
};

static struct kx_bus_pending *at(const struct kx_bus_progress *progress, size_t index)
{
	return &progress->ring[(progress->head + index) & (progress->cap - 1)];
}

void kx_bus_progress_reset(struct kx_bus_progress *progress, int64_t next)
{
	progress->next = next;
	progress->in_flight_bytes = 0;
	progress->head = 0;
	progress->held = 0;
}

void kx_bus_progress_done(struct kx_bus_progress *progress)
{
	free(progress->ring);
	*progress = (struct kx_bus_progress){0};
}

static kx_status grow(struct kx_bus_progress *progress)
{
	size_t cap = progress->cap ? 2 * progress->cap : RING_START;
	struct kx_bus_pending *ring = calloc(cap, sizeof(*ring));

	if (!ring)
		return KX_ENOMEM;
	for (size_t i = 0; i < progress->held; i++)
		ring[i] = *at(progress, i);
	free(progress->ring);
	progress->ring = ring;
	progress->cap = cap;
	progress->head = 0;
	return KX_OK;
}

kx_status kx_bus_progress_received(struct kx_bus_progress *progress, int64_t offset, size_t bytes)
{
	int64_t least = progress->held ? at(progress, progress->held - 1)->offset + 1 : progress->next;

	if (offset < least)
		return KX_EEXIST;
	if (progress->held == progress->cap && grow(progress) != KX_OK)
		return KX_ENOMEM;
	*at(progress, progress->held++) = (struct kx_bus_pending){.offset = offset, .bytes = bytes};
	progress->in_flight_bytes += bytes;
	return KX_OK;
}

static struct kx_bus_pending *find(const struct kx_bus_progress *progress, int64_t offset)
{
	size_t low = 0, high = progress->held;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		struct kx_bus_pending *pending = at(progress, middle);

		if (pending->offset == offset)
			return pending;
		if (pending->offset < offset)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

kx_status kx_bus_progress_finished(struct kx_bus_progress *progress, int64_t offset, bool *ret_advanced)
{
	struct kx_bus_pending *pending = find(progress, offset);

	*ret_advanced = false;
	if (!pending)
		return offset >= 0 && offset < progress->next ? KX_OK : KX_EINVAL;
	if (pending->finished)
		return KX_OK;
	pending->finished = true;
	progress->in_flight_bytes -= pending->bytes;
	while (progress->held && at(progress, 0)->finished) {
		progress->next = at(progress, 0)->offset + 1;
		progress->head = (progress->head + 1) & (progress->cap - 1);
		progress->held--;
		*ret_advanced = true;
	}
	return KX_OK;
}
