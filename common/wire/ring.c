#include "common/wire/ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"

#define SLOT_ALIGN 64u
#define PAGE 4096u

enum { SLOT_FREE, SLOT_TAKEN };

/* A line of its own each: the two sides write neighbours at the same time. */
struct slot_state {
	_Alignas(64) _Atomic uint32_t word;
};

/* The memory: the state words, then from a page on the slots. */
struct kx_ring {
	int memory_fd;
	int wake_fd;   /* the writer's end of a pipe */
	int notify_fd; /* the reader's end; -1 on the writer's side */
	uint32_t slots;
	uint32_t slot_bytes;
	size_t len;
	struct slot_state *states;
	uint8_t *data;
	_Atomic uint32_t next; /* where the writer looks first */
};

static size_t states_bytes(uint32_t slots)
{
	size_t bytes = slots * sizeof(struct slot_state);

	return (bytes + PAGE - 1) / PAGE * PAGE;
}

static kx_status make_handle(uint32_t slots, uint32_t slot_bytes, struct kx_ring **ret, struct kx_error *error)
{
	struct kx_ring *ring;

	if (!slots || slots > KX_RING_SLOTS_MAX || !slot_bytes || slot_bytes > KX_RING_SLOT_BYTES_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "shared ring: %u slots of %u bytes; the most are %u of %u", slots, slot_bytes,
				    KX_RING_SLOTS_MAX, KX_RING_SLOT_BYTES_MAX);
	ring = calloc(1, sizeof(*ring));
	if (!ring)
		return kx_error_nomem(error);
	ring->memory_fd = ring->wake_fd = ring->notify_fd = -1;
	ring->slots = slots;
	ring->slot_bytes = (slot_bytes + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
	ring->len = states_bytes(slots) + (size_t)slots * ring->slot_bytes;
	*ret = ring;
	return KX_OK;
}

static kx_status map_memory(struct kx_ring *ring, struct kx_error *error)
{
	void *memory = mmap(NULL, ring->len, PROT_READ | PROT_WRITE, MAP_SHARED, ring->memory_fd, 0);

	if (memory == MAP_FAILED)
		return kx_error_from_errno(error, errno, "shared ring of %zu bytes", ring->len);
	ring->states = memory;
	ring->data = (uint8_t *)memory + states_bytes(ring->slots);
	return KX_OK;
}

/* The seals are for the reader: a writer that could cut the file short would have it die of SIGBUS, and one that
 * could add seals would lock out the next writer. */
static kx_status make_memory(struct kx_ring *ring, struct kx_error *error)
{
	ring->memory_fd = memfd_create("kx-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (ring->memory_fd < 0 || ftruncate(ring->memory_fd, (off_t)ring->len) ||
	    fcntl(ring->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return kx_error_from_errno(error, errno, "shared ring of %zu bytes", ring->len);
	return map_memory(ring, error);
}

kx_status kx_ring_new(uint32_t slots, uint32_t slot_bytes, struct kx_ring **ret, struct kx_error *error)
{
	struct kx_ring *ring = NULL;
	int ends[2];
	kx_status status = make_handle(slots, slot_bytes, &ring, error);

	if (status)
		return status;
	status = make_memory(ring, error);
	if (!status && pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		status = kx_error_from_errno(error, errno, "shared ring: a pipe");
	if (status) {
		kx_ring_free(ring);
		return status;
	}
	ring->wake_fd = ends[0];
	ring->notify_fd = ends[1];
	*ret = ring;
	return KX_OK;
}

static kx_status check_descriptors(const struct kx_ring *ring, struct kx_error *error)
{
	struct stat info;

	/* O_NONBLOCK again: the flag is shared with the writer before us, who may have had a mind to take it off. */
	if (fstat(ring->memory_fd, &info) || fcntl(ring->wake_fd, F_SETFL, O_NONBLOCK))
		return kx_error_from_errno(error, errno, "shared ring");
	if (info.st_size != (off_t)ring->len)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "shared ring: the memory has %jd bytes, %u slots of %u need %zu",
				    (intmax_t)info.st_size, ring->slots, ring->slot_bytes, ring->len);
	return KX_OK;
}

kx_status kx_ring_attach(int memory_fd, int wake_fd, uint32_t slots, uint32_t slot_bytes, struct kx_ring **ret,
			 struct kx_error *error)
{
	struct kx_ring *ring = NULL;
	kx_status status = make_handle(slots, slot_bytes, &ring, error);

	if (status) {
		(void)close(memory_fd);
		(void)close(wake_fd);
		return status;
	}
	ring->memory_fd = memory_fd;
	ring->wake_fd = wake_fd;
	status = check_descriptors(ring, error);
	if (!status)
		status = map_memory(ring, error);
	if (status) {
		kx_ring_free(ring);
		return status;
	}
	*ret = ring;
	return KX_OK;
}

void kx_ring_free(struct kx_ring *ring)
{
	if (!ring)
		return;
	if (ring->states)
		(void)munmap(ring->states, ring->len);
	kx_cleanup_close(&ring->memory_fd);
	kx_cleanup_close(&ring->wake_fd);
	kx_cleanup_close(&ring->notify_fd);
	free(ring);
}

int kx_ring_memory_fd(const struct kx_ring *ring)
{
	return ring->memory_fd;
}

int kx_ring_wake_fd(const struct kx_ring *ring)
{
	return ring->wake_fd;
}

uint32_t kx_ring_slots(const struct kx_ring *ring)
{
	return ring->slots;
}

static bool take_slot(struct kx_ring *ring, uint32_t *ret_slot)
{
	uint32_t first = atomic_load_explicit(&ring->next, memory_order_relaxed);

	for (uint32_t i = 0; i < ring->slots; i++) {
		uint32_t slot = (first + i) % ring->slots;
		uint32_t expected = SLOT_FREE;

		if (atomic_compare_exchange_strong_explicit(&ring->states[slot].word, &expected, SLOT_TAKEN,
							    memory_order_acquire, memory_order_relaxed)) {
			atomic_store_explicit(&ring->next, (slot + 1) % ring->slots, memory_order_relaxed);
			*ret_slot = slot;
			return true;
		}
	}
	return false;
}

/* Takes the wake-ups that are there. Before the last look at the slots, so that one that comes after stays. */
static void drain_wakes(int fd)
{
	uint8_t bytes[64];

	while (read(fd, bytes, sizeof(bytes)) == sizeof(bytes))
		continue;
}

kx_status kx_ring_acquire(struct kx_ring *ring, int timeout_ms, uint32_t *ret_slot, struct kx_error *error)
{
	uint64_t deadline = kx_clock_mono_us() + (timeout_ms > 0 ? (uint64_t)timeout_ms * 1000 : 0);
	struct pollfd wake = {.fd = ring->wake_fd, .events = POLLIN};

	for (;;) {
		uint64_t now;
		int left = -1;

		if (take_slot(ring, ret_slot))
			return KX_OK;
		drain_wakes(ring->wake_fd);
		if (take_slot(ring, ret_slot))
			return KX_OK;
		now = kx_clock_mono_us();
		if (timeout_ms >= 0) {
			if (now >= deadline)
				return kx_error_set(error, KX_ETIMEDOUT, KX_ERROR_RETRY,
						    "shared ring: no slot came free in %d ms", timeout_ms);
			left = (int)((deadline - now + 999) / 1000);
		}
		if (poll(&wake, 1, left) < 0 && errno != EINTR)
			return kx_error_from_errno(error, errno, "shared ring");
		if (wake.revents & (POLLHUP | POLLERR | POLLNVAL) && !(wake.revents & POLLIN))
			return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "shared ring: its reader is gone");
	}
}

void kx_ring_release(struct kx_ring *ring, uint32_t slot)
{
	static const uint8_t wake = 1;

	assert(slot < ring->slots && ring->notify_fd >= 0);
	atomic_store_explicit(&ring->states[slot].word, SLOT_FREE, memory_order_release);
	/* A pipe that is full holds wake-ups enough. */
	while (write(ring->notify_fd, &wake, sizeof(wake)) < 0 && errno == EINTR)
		continue;
}

void kx_ring_reset(struct kx_ring *ring)
{
	for (uint32_t slot = 0; slot < ring->slots; slot++)
		atomic_store_explicit(&ring->states[slot].word, SLOT_FREE, memory_order_release);
}

void *kx_ring_slot(struct kx_ring *ring, uint32_t slot)
{
	assert(slot < ring->slots);
	return ring->data + (size_t)slot * ring->slot_bytes;
}
