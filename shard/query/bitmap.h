/* A set of rows, a bit each: bit r % 64 of word r / 64 is row r. Pure. Layer: shard/query. */
#ifndef KX_SHARD_QUERY_BITMAP_H
#define KX_SHARD_QUERY_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

/* Embedded; zeroed memory is the empty set. Rows beyond `rows` are not in it. */
struct kx_bitmap {
	uint64_t *words;
	uint32_t rows; /* a multiple of 64 */
};

void kx_bitmap_done(struct kx_bitmap *bitmap);
/* Room for rows 0 .. rows - 1; new ones are not in it. KX_ENOMEM leaves it as it was. */
kx_status kx_bitmap_reserve(struct kx_bitmap *bitmap, uint32_t rows) KX_MUST_CHECK;
kx_status kx_bitmap_copy(const struct kx_bitmap *from, struct kx_bitmap *to) KX_MUST_CHECK; /* to: any before */
uint64_t kx_bitmap_count(const struct kx_bitmap *bitmap);

static inline size_t kx_bitmap_words(const struct kx_bitmap *bitmap)
{
	return bitmap->rows / 64u;
}

static inline bool kx_bitmap_has(const struct kx_bitmap *bitmap, uint32_t row)
{
	return row < bitmap->rows && (bitmap->words[row / 64u] >> (row % 64u) & 1u);
}

/* row < rows */
static inline void kx_bitmap_set(struct kx_bitmap *bitmap, uint32_t row, bool in)
{
	uint64_t bit = UINT64_C(1) << (row % 64u);

	if (in)
		bitmap->words[row / 64u] |= bit;
	else
		bitmap->words[row / 64u] &= ~bit;
}

#endif
