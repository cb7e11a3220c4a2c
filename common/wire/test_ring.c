#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/wire/ring.h"

#define WAIT_MS 60000 /* for what must happen; only a failing test waits that long */
#define SLOT_BYTES 5000

static struct kx_ring *new_ring(uint32_t slots)
{
	struct kx_ring *ring = NULL;
	struct kx_error error = {0};

	if (kx_ring_new(slots, SLOT_BYTES, &ring, &error))
		fail_msg("%s", error.message);
	assert_int_equal(kx_ring_slots(ring), slots);
	return ring;
}

/* A writer on copies of the reader's descriptors, as another process would get them. */
static struct kx_ring *attach(const struct kx_ring *reader)
{
	struct kx_ring *writer = NULL;
	int memory = dup(kx_ring_memory_fd(reader));
	int wake = dup(kx_ring_wake_fd(reader));

	assert_int_equal(kx_ring_attach(memory, wake, kx_ring_slots(reader), SLOT_BYTES, &writer, NULL), KX_OK);
	return writer;
}

static uint32_t must_acquire(struct kx_ring *writer)
{
	uint32_t slot = UINT32_MAX;
	struct kx_error error = {0};

	if (kx_ring_acquire(writer, WAIT_MS, &slot, &error))
		fail_msg("%s", error.message);
	assert_true(slot < kx_ring_slots(writer));
	return slot;
}

static void slots_go_out_once(void **state)
{
	struct kx_ring *ring = new_ring(4);
	struct kx_ring *writer = attach(ring);
	bool seen[4] = {false};
	struct kx_error error = {0};
	uint64_t start;
	uint32_t slot;

	(void)state;
	for (int i = 0; i < 4; i++) {
		slot = must_acquire(writer);
		assert_false(seen[slot]);
		seen[slot] = true;
		assert_int_equal((uintptr_t)kx_ring_slot(writer, slot) % 64, 0);
	}
	assert_int_equal(kx_ring_acquire(writer, 0, &slot, NULL), KX_ETIMEDOUT);
	start = kx_clock_mono_us();
	assert_int_equal(kx_ring_acquire(writer, 30, &slot, &error), KX_ETIMEDOUT);
	assert_true(kx_clock_mono_us() - start >= 30000);
	assert_int_equal(error.class, KX_ERROR_RETRY);

	/* Back in any order; and a wake-up that is old news is not a slot. */
	kx_ring_release(ring, 2);
	assert_int_equal(must_acquire(writer), 2);
	assert_int_equal(kx_ring_acquire(writer, 0, &slot, NULL), KX_ETIMEDOUT);
	kx_ring_release(ring, 3);
	kx_ring_release(ring, 0);
	seen[0] = seen[3] = false;
	seen[must_acquire(writer)] = true;
	seen[must_acquire(writer)] = true;
	assert_true(seen[0] && seen[3]);
	kx_ring_free(writer);

	kx_ring_reset(ring);
	writer = attach(ring);
	for (int i = 0; i < 4; i++)
		(void)must_acquire(writer);
	kx_ring_free(writer);
	kx_ring_free(ring);
}

/* In a process of its own: puts numbers into slots and says which. */
static int write_numbers(struct kx_ring *inherited, int output, uint32_t count)
{
	struct kx_ring *writer = attach(inherited);

	kx_ring_free(inherited);
	for (uint32_t number = 0; number < count; number++) {
		uint32_t slot;
		uint32_t *words;

		if (kx_ring_acquire(writer, WAIT_MS, &slot, NULL))
			return 1;
		words = kx_ring_slot(writer, slot);
		for (size_t i = 0; i < SLOT_BYTES / sizeof(*words); i++)
			words[i] = number;
		if (write(output, &slot, sizeof(slot)) != sizeof(slot))
			return 2;
	}
	kx_ring_free(writer);
	return 0;
}

static void check_slot(struct kx_ring *ring, uint32_t slot, uint32_t number)
{
	const uint32_t *words = kx_ring_slot(ring, slot);

	for (size_t i = 0; i < SLOT_BYTES / sizeof(*words); i++)
		assert_int_equal(words[i], number);
}

static void two_processes(void **state)
{
	enum { COUNT = 5000, HELD = 3 };
	struct kx_ring *ring = new_ring(HELD + 2);
	uint32_t held[HELD];
	uint32_t held_count = 0;
	int ends[2];
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(write_numbers(ring, ends[1], COUNT));
	(void)close(ends[1]);
	for (uint32_t number = 0; number < COUNT; number++) {
		uint32_t slot;

		assert_int_equal(read(ends[0], &slot, sizeof(slot)), sizeof(slot));
		assert_true(slot < kx_ring_slots(ring));
		check_slot(ring, slot, number);
		held[held_count++] = slot;
		if (held_count < HELD)
			continue;
		/* The reader is slow, and gives back what it took last first. */
		while (held_count)
			kx_ring_release(ring, held[--held_count]);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	(void)close(ends[0]);
	kx_ring_free(ring);
}

struct sharing {
	struct kx_ring *ring;
	int slots[2]; /* a pipe */
};

static void *release_all(void *arg)
{
	struct sharing *sharing = arg;
	uint32_t slot;

	while (read(sharing->slots[0], &slot, sizeof(slot)) == sizeof(slot))
		kx_ring_release(sharing->ring, slot);
	return NULL;
}

/* With so few slots the writer waits nearly each time: a wake-up lost would show as a time-out. */
static void no_wake_is_lost(void **state)
{
	struct sharing sharing = {.ring = new_ring(1)};
	struct kx_ring *writer = attach(sharing.ring);
	pthread_t thread;

	(void)state;
	assert_int_equal(pipe(sharing.slots), 0);
	assert_int_equal(pthread_create(&thread, NULL, release_all, &sharing), 0);
	for (int i = 0; i < 20000; i++) {
		uint32_t slot = must_acquire(writer);

		assert_int_equal(write(sharing.slots[1], &slot, sizeof(slot)), sizeof(slot));
	}
	(void)close(sharing.slots[1]);
	assert_int_equal(pthread_join(thread, NULL), 0);
	(void)close(sharing.slots[0]);
	kx_ring_free(writer);
	kx_ring_free(sharing.ring);
}

/* Everything a writer can do to what it was given. */
static void fill_wake_pipe(const struct kx_ring *writer)
{
	char path[64];
	uint8_t bytes[4096] = {0};
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", kx_ring_wake_fd(writer));
	fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(fd >= 0);
	while (write(fd, bytes, sizeof(bytes)) > 0)
		continue;
	(void)close(fd);
	assert_int_equal(fcntl(kx_ring_wake_fd(writer), F_SETFL, 0), 0);
}

static void hostile_writer_does_not_stop_the_reader(void **state)
{
	struct kx_ring *ring = new_ring(2);
	struct kx_ring *writer = attach(ring);
	int memory = kx_ring_memory_fd(writer);
	struct kx_ring *next;

	(void)state;
	assert_int_equal(ftruncate(memory, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(memory, 1 << 20), -1);
	assert_int_equal(fcntl(memory, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
	fill_wake_pipe(writer);
	memset((uint8_t *)kx_ring_slot(writer, 0) - 4096, 0xee, 4096); /* the state words */

	(void)alarm(WAIT_MS / 1000); /* what hangs is killed */
	kx_ring_release(ring, 0);
	kx_ring_release(ring, 1);
	kx_ring_free(writer);
	kx_ring_reset(ring);
	next = attach(ring);
	(void)must_acquire(next);
	(void)must_acquire(next);
	assert_int_equal(kx_ring_acquire(next, 1, &(uint32_t){0}, NULL), KX_ETIMEDOUT);
	(void)alarm(0);
	kx_ring_free(next);
	kx_ring_free(ring);
}

static void writer_notices_that_the_reader_went(void **state)
{
	struct kx_ring *ring = new_ring(1);
	struct kx_ring *writer = attach(ring);
	struct kx_error error = {0};
	uint32_t slot = must_acquire(writer);

	(void)state;
	kx_ring_free(ring);
	assert_int_equal(kx_ring_acquire(writer, WAIT_MS, &slot, &error), KX_EIO);
	assert_int_equal(error.class, KX_ERROR_FATAL);
	kx_ring_free(writer);
}

static void sizes_are_checked(void **state)
{
	struct kx_ring *ring = new_ring(2);
	struct kx_ring *other = NULL;
	int memory, wake;

	(void)state;
	assert_int_equal(kx_ring_new(0, 64, &other, NULL), KX_EINVAL);
	assert_int_equal(kx_ring_new(1, 0, &other, NULL), KX_EINVAL);
	assert_int_equal(kx_ring_new(KX_RING_SLOTS_MAX + 1, 64, &other, NULL), KX_EINVAL);
	assert_int_equal(kx_ring_new(1, KX_RING_SLOT_BYTES_MAX + 1, &other, NULL), KX_EINVAL);

	/* Both descriptors are taken, also on failure. */
	memory = dup(kx_ring_memory_fd(ring));
	wake = dup(kx_ring_wake_fd(ring));
	assert_int_equal(kx_ring_attach(memory, wake, 3, SLOT_BYTES, &other, NULL), KX_EINVAL);
	assert_int_equal(fcntl(memory, F_GETFD), -1);
	assert_int_equal(fcntl(wake, F_GETFD), -1);
	memory = dup(kx_ring_memory_fd(ring));
	wake = dup(kx_ring_wake_fd(ring));
	assert_int_equal(kx_ring_attach(memory, wake, 0, SLOT_BYTES, &other, NULL), KX_EINVAL);
	assert_int_equal(fcntl(memory, F_GETFD), -1);
	assert_int_equal(fcntl(wake, F_GETFD), -1);
	assert_null(other);
	kx_ring_free(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slots_go_out_once),
		cmocka_unit_test(two_processes),
		cmocka_unit_test(no_wake_is_lost),
		cmocka_unit_test(hostile_writer_does_not_stop_the_reader),
		cmocka_unit_test(writer_notices_that_the_reader_went),
		cmocka_unit_test(sizes_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
