#include "shard/ann/ivf_pages.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/fault.h"

#define HUGE_BYTES ((size_t)2 << 20)
#define REGION_FIRST HUGE_BYTES
#define REGION_MOST ((size_t)64 << 20)

/* At its own start. */
struct kx_ivf_region {
	struct kx_ivf_region *next;
	void *mapping;
	size_t bytes;
};

void kx_ivf_pages_done(struct kx_ivf_pages *pages)
{
	struct kx_ivf_region *region, *next;

	for (region = pages->regions; region; region = next) {
		next = region->next;
		(void)munmap(region->mapping, region->bytes);
	}
	*pages = (struct kx_ivf_pages){0};
}

/* Regions double, so that a small index is small. */
static int add_region(struct kx_ivf_pages *pages)
{
	size_t bytes = pages->regions ? (pages->regions->bytes - HUGE_BYTES) * 2 : REGION_FIRST;
	struct kx_ivf_region *region;
	uint8_t *mapping, *start;

	bytes = bytes < REGION_MOST ? bytes : REGION_MOST;
	mapping = kx_fault("ann.pages") ? MAP_FAILED
					: mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE,
					       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mapping == MAP_FAILED)
		return -1;
	start = mapping + (HUGE_BYTES - (uintptr_t)mapping % HUGE_BYTES) % HUGE_BYTES;
	(void)madvise(start, bytes, MADV_HUGEPAGE);
	region = (struct kx_ivf_region *)(void *)start;
	*region = (struct kx_ivf_region){pages->regions, mapping, bytes + HUGE_BYTES};
	pages->regions = region;
	pages->at = start + KX_IVF_PIECE;
	pages->end = start + bytes;
	return 0;
}

static void *take_free(struct kx_ivf_pages *pages, size_t size)
{
	void *piece = pages->free[size];

	if (piece)
		memcpy(&pages->free[size], piece, sizeof(void *));
	return piece;
}

static void put_free(struct kx_ivf_pages *pages, void *piece, size_t size)
{
	memcpy(piece, &pages->free[size], sizeof(void *));
	pages->free[size] = piece;
}

void *kx_ivf_pages_take(struct kx_ivf_pages *pages, size_t bytes)
{
	size_t size = bytes / KX_IVF_PIECE;
	void *piece;

	if (size > KX_IVF_SIZES)
		return kx_fault("ann.pages") ? NULL : aligned_alloc(KX_IVF_PIECE, bytes);
	piece = take_free(pages, size);
	if (piece)
		return piece;
	if ((size_t)(pages->end - pages->at) < bytes) {
		size_t rest = (size_t)(pages->end - pages->at) / KX_IVF_PIECE;

		if (rest && rest <= KX_IVF_SIZES)
			put_free(pages, pages->at, rest);
		pages->at = pages->end;
		if (add_region(pages))
			return NULL;
	}
	piece = pages->at;
	pages->at += bytes;
	return piece;
}

void kx_ivf_pages_give(struct kx_ivf_pages *pages, void *piece, size_t bytes)
{
	size_t size = bytes / KX_IVF_PIECE;

	if (!piece)
		return;
	if (size > KX_IVF_SIZES)
		free(piece);
	else
		put_free(pages, piece, size);
}
