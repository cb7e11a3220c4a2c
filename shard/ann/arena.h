/* The vectors of one space, packed in blocks that never move, so that growing copies nothing. Layer: shard/ann. */
#ifndef KX_SHARD_ANN_ARENA_H
#define KX_SHARD_ANN_ARENA_H

#include "shard/ann/ann.h"

#define KX_ANN_BLOCK_ROWS 1024u

struct kx_ann_arena {
	enum kx_modality modality;
	char space[KX_SPACE_MAX];
	uint32_t dim;
	uint32_t count;       /* slots in use: 0..count, without holes */
	uint32_t *row_of;     /* [block_count * KX_ANN_BLOCK_ROWS] */
	float **blocks;       /* each [KX_ANN_BLOCK_ROWS][dim] */
	uint32_t block_count;
};

void kx_ann_arena_init(struct kx_ann_arena *arena, const struct kx_ann_vector *vector);
void kx_ann_arena_done(struct kx_ann_arena *arena);
bool kx_ann_arena_fits(const struct kx_ann_arena *arena, const struct kx_ann_vector *vector); /* modality and space */

/* Room for one more; then adding can't fail. */
kx_status kx_ann_arena_reserve(struct kx_ann_arena *arena) KX_MUST_CHECK;
uint32_t kx_ann_arena_add(struct kx_ann_arena *arena, uint32_t row, const float *values); /* its slot */
/* The last slot moves into the hole. Returns the row that now is in `slot`, or KX_ANN_NO_ROW. */
uint32_t kx_ann_arena_remove(struct kx_ann_arena *arena, uint32_t slot);
const float *kx_ann_arena_values(const struct kx_ann_arena *arena, uint32_t slot);

#endif
