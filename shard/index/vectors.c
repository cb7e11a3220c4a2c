#include "shard/index/vectors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fault.h"
#include "common/base/str.h"

#define HEAD_BYTES 4096u /* a page, so that rows begin on one */
#define GROW_ROWS 1024u

void *kx_reserve(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

void kx_reserve_huge(void *memory, size_t bytes)
{
	if (bytes >= KX_HUGE_BYTES)
		(void)madvise(memory, bytes / KX_HUGE_BYTES * KX_HUGE_BYTES, MADV_HUGEPAGE);
}

void kx_unreserve(void *memory, size_t bytes)
{
	if (memory)
		(void)munmap(memory, bytes);
}

/* The map begins where a huge page could: pages of a file are as large as that only where address and place in the file
 * begin alike. */
static bool reserve_map(struct kx_ivectors *vectors)
{
	vectors->reserved_bytes = vectors->map_bytes + KX_HUGE_BYTES;
	vectors->reserved = kx_reserve(vectors->reserved_bytes);
	if (!vectors->reserved)
		return false;
	vectors->map = vectors->reserved + (KX_HUGE_BYTES - (uintptr_t)vectors->reserved % KX_HUGE_BYTES) % KX_HUGE_BYTES;
	return true;
}

static kx_status fail(const struct kx_ivectors *vectors, const char *what, struct kx_error *error)
{
	return kx_error_from_errno(error, errno, "vectors %s: %s", vectors->path, what);
}

static kx_status write_head(struct kx_ivectors *vectors, const struct kx_file_record *head, struct kx_error *error)
{
	uint8_t bytes[KX_FILE_RECORD_BYTES];

	kx_file_encode(head, bytes);
	if (kx_fault("index.file") || pwrite(vectors->fd, bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return fail(vectors, "its head can't be written", error);
	if (kx_fault("index.file") || fdatasync(vectors->fd))
		return fail(vectors, "can't be synced", error);
	return KX_OK;
}

uint64_t kx_ivectors_file_bytes(const struct kx_ivectors *vectors, uint64_t rows)
{
	return HEAD_BYTES + rows * vectors->stride;
}

/* What the file is to this store. */
static enum kx_ivectors_state judge(const struct kx_ivectors *vectors, uint32_t rows)
{
	uint8_t bytes[KX_FILE_RECORD_BYTES];
	struct kx_file_record head;
	struct stat info;

	if (kx_fault("index.file") || pread(vectors->fd, bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return KX_IVECTORS_FOREIGN;
	if (kx_file_decode(bytes, sizeof(bytes), &head) || head.dim != vectors->dim || !vectors->session ||
	    fstat(vectors->fd, &info) || (uint64_t)info.st_size < kx_ivectors_file_bytes(vectors, rows))
		return KX_IVECTORS_FOREIGN;
	if (head.session == vectors->session)
		return head.clean && !head.next_session ? KX_IVECTORS_GOOD : KX_IVECTORS_DIRTY;
	return head.next_session == vectors->session && head.session ? KX_IVECTORS_DIRTY : KX_IVECTORS_FOREIGN;
}

static kx_status open_file(struct kx_ivectors *vectors, uint32_t rows, struct kx_error *error)
{
	struct kx_file_record head = {.dim = vectors->dim};
	enum kx_ivectors_state state;

	vectors->fd = open(vectors->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (vectors->fd < 0)
		return fail(vectors, "can't be opened", error);
	state = judge(vectors, rows);
	atomic_store(&vectors->state, (int)state);
	return state == KX_IVECTORS_FOREIGN ? write_head(vectors, &head, error) : KX_OK;
}

/* Maps what the file has behind what is mapped already; that stays where it is. */
static kx_status map_rows(struct kx_ivectors *vectors, uint32_t rows, struct kx_error *error)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t from = kx_ivectors_file_bytes(vectors, atomic_load(&vectors->rows)) / page * page;
	size_t to = (kx_ivectors_file_bytes(vectors, rows) + page - 1) / page * page;

	if (!atomic_load(&vectors->rows))
		from = 0;
	if (mmap(vectors->map + from, to - from, PROT_READ, MAP_SHARED | MAP_FIXED, vectors->fd, (off_t)from) == MAP_FAILED)
		return fail(vectors, "can't be mapped", error);
	return KX_OK;
}

static kx_status grow_file(struct kx_ivectors *vectors, uint32_t rows, struct kx_error *error)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	off_t bytes = (off_t)((kx_ivectors_file_bytes(vectors, rows) + page - 1) / page * page);
	struct stat info;
	int failed;

	if (fstat(vectors->fd, &info))
		return fail(vectors, "can't be looked at", error);
	/* Also when it is long enough: another may have made it so, with holes. */
	failed = kx_fault("index.file") ? ENOSPC : posix_fallocate(vectors->fd, 0, info.st_size > bytes ? info.st_size : bytes);
	if (failed) {
		errno = failed;
		return fail(vectors, "can't grow", error);
	}
	return map_rows(vectors, rows, error);
}

kx_status kx_ivectors_reserve(struct kx_ivectors *vectors, uint32_t rows, struct kx_error *error)
{
	uint32_t have = atomic_load(&vectors->rows), want;
	kx_status status;

	if (rows <= have)
		return KX_OK;
	if (rows > KX_INDEX_ROWS_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_FATAL, "a space of more than %u rows", KX_INDEX_ROWS_MAX);
	want = have + have / 8 + GROW_ROWS;
	want = want < rows ? rows : want;
	want = want > KX_INDEX_ROWS_MAX ? KX_INDEX_ROWS_MAX : want;
	status = vectors->path ? grow_file(vectors, want, error) : KX_OK;
	if (!status)
		atomic_store(&vectors->rows, want);
	return status;
}

kx_status kx_ivectors_open(struct kx_ivectors *vectors, const char *path, uint32_t dim, uint32_t rows, uint64_t session,
			   struct kx_error *error)
{
	kx_status status = KX_OK;

	*vectors = (struct kx_ivectors){.fd = -1, .dim = dim, .stride = dim * sizeof(uint16_t), .session = session};
	if (pthread_mutex_init(&vectors->fill, NULL))
		return kx_error_nomem(error);
	vectors->map_bytes = kx_ivectors_file_bytes(vectors, KX_INDEX_ROWS_MAX);
	(void)reserve_map(vectors);
	vectors->known = kx_reserve(KX_INDEX_ROWS_MAX / 8);
	vectors->path = kx_strdup(path);
	atomic_store(&vectors->state, KX_IVECTORS_FOREIGN);
	if (!vectors->map || !vectors->known || (path && !vectors->path))
		status = kx_error_nomem(error);
	if (!status && path)
		status = open_file(vectors, rows, error);
	if (!status)
		status = kx_ivectors_reserve(vectors, rows ? rows : 1, error);
	if (status)
		kx_ivectors_close(vectors);
	return status;
}

static bool is_clean(const struct kx_ivectors *vectors, const void *bytes)
{
	struct kx_file_record head;

	return vectors->session && kx_file_decode(bytes, KX_FILE_RECORD_BYTES, &head) == KX_OK && head.dim == vectors->dim &&
	       head.session == vectors->session && head.clean && !head.next_session;
}

static bool borrow(struct kx_ivectors *vectors, const char *path, uint32_t rows)
{
	const size_t bytes = (size_t)kx_ivectors_file_bytes(vectors, rows);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat info;
	bool mapped = fd >= 0 && fstat(fd, &info) == 0 && (uint64_t)info.st_size >= bytes && !kx_fault("index.file") &&
		      mmap(vectors->map, bytes, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;

	if (fd >= 0)
		(void)close(fd);
	if (mapped)
		(void)madvise(vectors->map, bytes, MADV_RANDOM);
	atomic_store(&vectors->borrowed, mapped && is_clean(vectors, vectors->map));
	return atomic_load(&vectors->borrowed);
}

kx_status kx_ivectors_open_reader(struct kx_ivectors *vectors, const char *path, uint32_t dim, uint32_t rows,
				  uint64_t session, struct kx_error *error)
{
	kx_status status = kx_ivectors_open(vectors, NULL, dim, rows, session, error);

	if (status)
		return status;
	if (!borrow(vectors, path, rows))
		return kx_ivectors_give_up(vectors, error);
	atomic_store(&vectors->state, KX_IVECTORS_GOOD);
	return KX_OK;
}

bool kx_ivectors_hold(const struct kx_ivectors *vectors)
{
	uint8_t bytes[KX_FILE_RECORD_BYTES];

	if (!atomic_load_explicit(&vectors->borrowed, memory_order_relaxed))
		return true;
	atomic_thread_fence(memory_order_acquire); /* rows before the head */
	memcpy(bytes, vectors->map, sizeof(bytes));
	return is_clean(vectors, bytes);
}

kx_status kx_ivectors_give_up(struct kx_ivectors *vectors, struct kx_error *error)
{
	atomic_store(&vectors->borrowed, false);
	atomic_store(&vectors->state, KX_IVECTORS_FOREIGN);
	if (mmap(vectors->map, vectors->map_bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		return kx_error_nomem(error);
	return KX_OK;
}

static void mark_clean(struct kx_ivectors *vectors)
{
	struct kx_file_record head = {.dim = vectors->dim, .session = vectors->session, .clean = true};

	if (vectors->fd < 0 || !vectors->session || atomic_load(&vectors->state) != KX_IVECTORS_GOOD)
		return;
	/* Unmarked it is dirty the next time, which costs time and is right. */
	if (!kx_ivectors_sync(vectors, NULL))
		(void)write_head(vectors, &head, NULL);
}

void kx_ivectors_close(struct kx_ivectors *vectors)
{
	if (!vectors->map && !vectors->known && !vectors->path)
		return;
	mark_clean(vectors);
	kx_unreserve(vectors->reserved, vectors->reserved_bytes);
	kx_unreserve((void *)(uintptr_t)vectors->known, KX_INDEX_ROWS_MAX / 8);
	if (vectors->fd >= 0)
		(void)close(vectors->fd);
	free(vectors->path);
	pthread_mutex_destroy(&vectors->fill);
	*vectors = (struct kx_ivectors){.fd = -1};
}

const void *kx_ivectors_base(const struct kx_ivectors *vectors)
{
	return vectors->map + HEAD_BYTES;
}

const uint16_t *kx_ivectors_row(const struct kx_ivectors *vectors, uint32_t row)
{
	return (const uint16_t *)(const void *)(vectors->map + HEAD_BYTES + row * vectors->stride);
}

bool kx_ivectors_ends_page(const struct kx_ivectors *vectors, uint32_t row)
{
	return kx_ivectors_file_bytes(vectors, row) / KX_HUGE_BYTES != kx_ivectors_file_bytes(vectors, row + 1u) / KX_HUGE_BYTES;
}

bool kx_ivectors_is_known(const struct kx_ivectors *vectors, uint32_t row)
{
	return atomic_load_explicit(&vectors->known[row / 64], memory_order_acquire) >> row % 64 & 1u;
}

/* Not through the map: a page that is written there is written as a whole, and none of its size is mapped any more. */
static kx_status write_file(const struct kx_ivectors *vectors, uint32_t row, const uint8_t *bytes, size_t len,
			    struct kx_error *error)
{
	off_t at = (off_t)kx_ivectors_file_bytes(vectors, row);

	while (len) {
		ssize_t wrote = kx_fault("index.file") ? -1 : pwrite(vectors->fd, bytes, len, at);

		if (wrote <= 0)
			return fail(vectors, "can't be written", error);
		bytes += wrote;
		len -= (size_t)wrote;
		at += wrote;
	}
	return KX_OK;
}

kx_status kx_ivectors_write(struct kx_ivectors *vectors, uint32_t row, uint32_t count, const uint16_t *halves,
			    struct kx_error *error)
{
	const uint8_t *bytes = (const uint8_t *)halves;
	kx_status status = KX_OK;

	if (vectors->fd >= 0)
		status = write_file(vectors, row, bytes, count * vectors->stride, error);
	else
		memcpy(vectors->map + kx_ivectors_file_bytes(vectors, row), bytes, count * vectors->stride);
	if (status)
		return status;
	for (uint32_t i = row; i < row + count; i++)
		atomic_fetch_or_explicit(&vectors->known[i / 64], UINT64_C(1) << i % 64, memory_order_release);
	atomic_fetch_add(&vectors->written, count);
	return KX_OK;
}

kx_status kx_ivectors_begin(struct kx_ivectors *vectors, uint64_t session, struct kx_error *error)
{
	struct kx_file_record head = {.dim = vectors->dim, .session = vectors->session, .next_session = session};

	if (vectors->fd < 0 || !vectors->session || atomic_load(&vectors->state) == KX_IVECTORS_FOREIGN)
		return KX_OK;
	return write_head(vectors, &head, error);
}

kx_status kx_ivectors_begun(struct kx_ivectors *vectors, uint64_t session, struct kx_error *error)
{
	struct kx_file_record head = {.dim = vectors->dim, .session = session};
	kx_status status = KX_OK;

	if (vectors->fd >= 0 && atomic_load(&vectors->state) != KX_IVECTORS_FOREIGN)
		status = write_head(vectors, &head, error);
	/* The store has it in any case; a head without it makes the file foreign, no more. */
	vectors->session = session;
	vectors->begun = true;
	return status;
}

kx_status kx_ivectors_sync(struct kx_ivectors *vectors, struct kx_error *error)
{
	uint64_t written = atomic_load(&vectors->written);

	if (vectors->fd < 0 || atomic_load(&vectors->synced) >= written)
		return KX_OK;
	if (kx_fault("index.file") || fdatasync(vectors->fd))
		return fail(vectors, "can't be synced", error);
	atomic_store(&vectors->synced, written);
	return KX_OK;
}

kx_status kx_ivectors_settle(struct kx_ivectors *vectors, struct kx_error *error)
{
	struct kx_file_record head = {.dim = vectors->dim, .session = vectors->session};
	int state = atomic_load(&vectors->state);
	kx_status status;

	if (state == KX_IVECTORS_GOOD)
		return KX_OK;
	status = kx_ivectors_sync(vectors, error);
	if (!status && vectors->fd >= 0 && vectors->session && state == KX_IVECTORS_FOREIGN)
		status = write_head(vectors, &head, error);
	if (!status)
		atomic_store(&vectors->state, KX_IVECTORS_GOOD);
	return status;
}
