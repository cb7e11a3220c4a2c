/* Memory of one conversion, given back at once. Internal to common/record. Layer: record.
 *
 * protobuf-c unpacks into it and writers build their messages in it: nothing to free one by one, nothing to leak
 * where protobuf-c gives up half way, and a hard limit on what a hostile message can make us allocate. */
#ifndef KX_RECORD_ARENA_H
#define KX_RECORD_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/macros.h"

struct kx_arena_block;

/* Embedded; zeroed memory plus `left` is valid. Owned by one thread. */
struct kx_arena {
	struct kx_arena_block *block; /* the newest */
	size_t left;                  /* bytes that may still be handed out; SIZE_MAX / 2 at most */
	bool refused;                 /* an allocation did not fit in `left` */
	bool failed;                  /* the heap had no more */
};

/* Aligned to 16, not zeroed, valid until kx_arena_done. NULL when over the limit or out of memory. */
void *kx_arena_alloc(struct kx_arena *arena, size_t bytes) KX_MUST_CHECK;
void kx_arena_done(struct kx_arena *arena);

#endif
