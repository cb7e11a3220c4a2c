#include "common/record/arena.h"

#include <stdlib.h>

#include "common/base/fault.h"

#define ALIGNMENT ((size_t)16)

/* Under AddressSanitizer every allocation gets a block of its own, so that one read past its end is seen. */
#if defined(__SANITIZE_ADDRESS__)
#define BLOCK_BYTES ((size_t)0)
#else
#define BLOCK_BYTES ((size_t)8192)
#endif

struct kx_arena_block {
	struct kx_arena_block *older;
	size_t free_bytes;
	_Alignas(16) unsigned char bytes[]; /* handed out from the end downwards */
};

static struct kx_arena_block *arena_grow(struct kx_arena *arena, size_t bytes)
{
	size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
	struct kx_arena_block *block = kx_fault("record.alloc") ? NULL : malloc(sizeof(*block) + size);

	if (block == NULL) {
		arena->failed = true;
		return NULL;
	}
	block->older = arena->block;
	block->free_bytes = size;
	arena->block = block;
	return block;
}

void *kx_arena_alloc(struct kx_arena *arena, size_t bytes)
{
	struct kx_arena_block *block = arena->block;

	if (bytes > arena->left) {
		arena->refused = true;
		return NULL;
	}
	bytes = (bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
	arena->left -= bytes < arena->left ? bytes : arena->left;
	if (block == NULL || block->free_bytes < bytes)
		block = arena_grow(arena, bytes);
	if (block == NULL)
		return NULL;
	block->free_bytes -= bytes;
	return block->bytes + block->free_bytes;
}

void kx_arena_done(struct kx_arena *arena)
{
	while (arena->block != NULL) {
		struct kx_arena_block *block = arena->block;

		arena->block = block->older;
		free(block);
	}
}
