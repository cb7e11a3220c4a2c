/* Memory for cells in huge pages, so that a search does not wait for page tables. Layer: shard/ann.
 *
 * Pieces are multiples of KX_IVF_PIECE; what is given back is used again for pieces of its size. A piece over
 * KX_IVF_SIZES units is malloc's: too few to matter. */
#ifndef KX_SHARD_ANN_IVF_PAGES_H
#define KX_SHARD_ANN_IVF_PAGES_H

#include <stddef.h>
#include <stdint.h>

#define KX_IVF_PIECE 1024u   /* bytes */
#define KX_IVF_SIZES 512u    /* units that a piece in huge pages has at most */

struct kx_ivf_region;

/* Zeroed memory is valid. */
struct kx_ivf_pages {
	struct kx_ivf_region *regions;
	void *free[KX_IVF_SIZES + 1]; /* by size in units: lists */
	uint8_t *at, *end;            /* what is left of the newest region */
};

/* Every piece is gone then, but for those of malloc, which are given back first. */
void kx_ivf_pages_done(struct kx_ivf_pages *pages);

/* 64-byte aligned, not zeroed; NULL: out of memory. bytes: rounded up by the caller's kx_ivf_piece_bytes(). */
void *kx_ivf_pages_take(struct kx_ivf_pages *pages, size_t bytes);
void kx_ivf_pages_give(struct kx_ivf_pages *pages, void *piece, size_t bytes); /* NULL is nothing */

static inline size_t kx_ivf_piece_bytes(size_t bytes)
{
	return (bytes + KX_IVF_PIECE - 1) / KX_IVF_PIECE * KX_IVF_PIECE;
}

#endif
