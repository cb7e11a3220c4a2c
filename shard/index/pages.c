/* Huge pages for the mapped file of full vectors. A query compares some fifty vectors that lie anywhere: with pages of 4 KiB
 * the processor looks up an address for each, which takes longer than the vector does.
 *
 * The page cache has pieces of 2 MiB where the file system can (ext4 since Linux 6.16, XFS since 5.18) and is asked to when
 * it reads them (MADV_HUGEPAGE). That is not asked for at opening, where each vector would cost 2 MiB of disk, but here,
 * piece by piece in the background. A piece that lies in the cache in small pages is taken out and read again. What is
 * cached is given back when somebody else needs the memory. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shard/index/vectors.h"

#define LEAST_BYTES (8 * KX_HUGE_BYTES) /* of small pages so few, what the processor remembers is enough */
#define AT_ONCE 16u
#define FAILED_MOST 4u /* pieces one after another, after which the system is taken to have none */

#ifndef PAGEMAP_SCAN /* Linux 6.7; headers may be older */
struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct page_region {
	uint64_t start, end, categories;
};
#define PAGE_IS_HUGE (1 << 6)
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

static uint64_t number_in(const char *path, const char *before)
{
	FILE *file = fopen(path, "re");
	const size_t len = strlen(before);
	unsigned long long number = 0;
	char line[128];
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file))
		found = strncmp(line, before, len) == 0 && sscanf(line + len, "%llu", &number) == 1;
	if (file)
		(void)fclose(file);
	return found ? number : UINT64_MAX;
}

static uint64_t memory_left(void)
{
	uint64_t machine = number_in("/proc/meminfo", "MemAvailable:"), group = number_in("/sys/fs/cgroup/memory.max", "");

	machine = machine == UINT64_MAX ? 0 : machine << 10;
	return machine < group ? machine : group;
}

bool kx_ivectors_pages_begin(struct kx_ivectors *vectors, uint32_t rows, uint64_t room)
{
	struct kx_ivectors_pages *pages = &vectors->pages;
	const uint64_t bytes = kx_ivectors_file_bytes(vectors, rows);

	if ((vectors->fd < 0 && !atomic_load(&vectors->borrowed)) || bytes < LEAST_BYTES || rows <= pages->rows + pages->rows / 8)
		return false;
	*pages = (struct kx_ivectors_pages){.rows = rows, .to = bytes / KX_HUGE_BYTES * KX_HUGE_BYTES};
	if (bytes > room || bytes > memory_left() / 2 || madvise(vectors->map, pages->to, MADV_HUGEPAGE))
		pages->to = 0;
	/* Only what is on disk can be taken out of the cache. */
	if (pages->to && vectors->fd >= 0)
		(void)!kx_ivectors_sync(vectors, NULL);
	return pages->to != 0;
}

static bool is_huge(const uint8_t *at)
{
	struct page_region region = {0};
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = (uintptr_t)at,
		.end = (uintptr_t)at + KX_HUGE_BYTES,
		.vec = (uintptr_t)&region,
		.vec_len = 1,
		.category_mask = PAGE_IS_HUGE,
		.return_mask = PAGE_IS_HUGE,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	bool huge = fd >= 0 && ioctl(fd, PAGEMAP_SCAN, &scan) == 1 && region.end - region.start == KX_HUGE_BYTES;

	if (fd >= 0)
		(void)close(fd);
	return huge;
}

/* True: it is huge. */
static bool fill(const struct kx_ivectors *vectors, uint64_t at)
{
	uint8_t *piece = vectors->map + at;

	if (madvise(piece, KX_HUGE_BYTES, MADV_POPULATE_READ) == 0 && is_huge(piece))
		return true;
	/* Whoever borrows the file leaves it alone, and may give it up meanwhile: what is there then is more than a cache. */
	if (vectors->fd < 0 || madvise(piece, KX_HUGE_BYTES, MADV_DONTNEED) ||
	    posix_fadvise(vectors->fd, (off_t)at, (off_t)KX_HUGE_BYTES, POSIX_FADV_DONTNEED))
		return false;
	return madvise(piece, KX_HUGE_BYTES, MADV_POPULATE_READ) == 0 && is_huge(piece);
}

bool kx_ivectors_pages_step(struct kx_ivectors *vectors)
{
	struct kx_ivectors_pages *pages = &vectors->pages;

	for (uint32_t i = 0; i < AT_ONCE && pages->at < pages->to; i++, pages->at += KX_HUGE_BYTES) {
		pages->failed = fill(vectors, pages->at) ? 0 : pages->failed + 1;
		if (pages->failed == FAILED_MOST)
			pages->to = 0;
	}
	return pages->at < pages->to;
}

void kx_ivectors_ahead(void *ctx, uint32_t row)
{
	const struct kx_ivectors *vectors = ctx;
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t from = kx_ivectors_file_bytes(vectors, row) / page * page;

	(void)madvise(vectors->map + from, kx_ivectors_file_bytes(vectors, row + 1u) - from, MADV_WILLNEED);
}
