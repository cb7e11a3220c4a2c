#include "shard/ann/arena.h"

#include <stdlib.h>
#include <string.h>

void kx_ann_arena_init(struct kx_ann_arena *arena, const struct kx_ann_vector *vector)
{
	*arena = (struct kx_ann_arena){.modality = vector->modality, .dim = vector->dim};
	strncpy(arena->space, vector->space, sizeof(arena->space) - 1);
}

void kx_ann_arena_done(struct kx_ann_arena *arena)
{
	for (uint32_t i = 0; i < arena->block_count; i++)
		free(arena->blocks[i]);
	free(arena->blocks);
	free(arena->row_of);
}

bool kx_ann_arena_fits(const struct kx_ann_arena *arena, const struct kx_ann_vector *vector)
{
	return arena->modality == vector->modality && strcmp(arena->space, vector->space) == 0;
}

kx_status kx_ann_arena_reserve(struct kx_ann_arena *arena)
{
	size_t blocks = arena->block_count + 1u;
	float **list;
	uint32_t *row_of;

	if (arena->count < arena->block_count * KX_ANN_BLOCK_ROWS)
		return KX_OK;
	row_of = realloc(arena->row_of, blocks * KX_ANN_BLOCK_ROWS * sizeof(*row_of));
	if (!row_of)
		return KX_ENOMEM;
	arena->row_of = row_of;
	list = realloc(arena->blocks, blocks * sizeof(*list));
	if (!list)
		return KX_ENOMEM;
	arena->blocks = list;
	list[arena->block_count] = malloc((size_t)KX_ANN_BLOCK_ROWS * arena->dim * sizeof(float));
	if (!list[arena->block_count])
		return KX_ENOMEM;
	arena->block_count++;
	return KX_OK;
}

static float *slot_values(const struct kx_ann_arena *arena, uint32_t slot)
{
	return arena->blocks[slot / KX_ANN_BLOCK_ROWS] + (size_t)(slot % KX_ANN_BLOCK_ROWS) * arena->dim;
}

const float *kx_ann_arena_values(const struct kx_ann_arena *arena, uint32_t slot)
{
	return slot_values(arena, slot);
}

uint32_t kx_ann_arena_add(struct kx_ann_arena *arena, uint32_t row, const float *values)
{
	uint32_t slot = arena->count++;

	arena->row_of[slot] = row;
	memcpy(slot_values(arena, slot), values, arena->dim * sizeof(*values));
	return slot;
}

uint32_t kx_ann_arena_remove(struct kx_ann_arena *arena, uint32_t slot)
{
	uint32_t last = --arena->count;

	if (slot == last)
		return KX_ANN_NO_ROW;
	arena->row_of[slot] = arena->row_of[last];
	memcpy(slot_values(arena, slot), slot_values(arena, last), arena->dim * sizeof(float));
	return arena->row_of[slot];
}
