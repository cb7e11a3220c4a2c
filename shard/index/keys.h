/* How the index's keys are laid out: big-endian, so that the order of bytes is the order of things. Layer: shard/index.
 *
 *   ann_meta       kind(1) [space(2)]                     see enum kx_meta_kind
 *   ann_cells      space(2) generation(4) cell(4)         -> cell record
 *   ann_delta      space(2) generation(4) cell(4) row(4)  -> delta record
 *   ann_vectors    space(2) row(4)                        -> fp16[dim], little-endian
 *   ann_rows       space(2) row(4)                        -> row record
 *   ann_keys       space(2) key                           -> row(4), little-endian
 *   ann_centroids  space(2) generation(4) chunk(4)        -> chunk record
 */
#ifndef KX_SHARD_INDEX_KEYS_H
#define KX_SHARD_INDEX_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shard/index/index.h"

enum kx_index_family {
	KX_INDEX_META,
	KX_INDEX_CELLS,
	KX_INDEX_DELTA,
	KX_INDEX_VECTORS,
	KX_INDEX_ROWS,
	KX_INDEX_KEYS,
	KX_INDEX_CENTROIDS,
};

enum kx_meta_kind {
	KX_META_FORMAT = 'f',  /* of the whole index */
	KX_META_SPACE = 's',   /* what a space is, and which generation of centroids counts */
	KX_META_COUNTS = 'c',  /* how many rows it has, and the bound of their numbers */
	KX_META_TUNING = 't',
	KX_META_SESSION = 'v', /* which mapped file of vectors belongs to it */
};

#define KX_IKEY_FIXED_MAX 14u

/* A key of fixed length. */
struct kx_ikey {
	size_t len;
	uint8_t bytes[KX_IKEY_FIXED_MAX];
};

struct kx_ikey kx_ikey_format(void);
struct kx_ikey kx_ikey_meta(enum kx_meta_kind kind, uint32_t space);
struct kx_ikey kx_ikey_space(uint32_t space); /* what all keys of a space begin with, but for ann_meta's */
struct kx_ikey kx_ikey_row(uint32_t space, uint32_t row);
struct kx_ikey kx_ikey_generation(uint32_t space, uint32_t generation);
struct kx_ikey kx_ikey_cell(uint32_t space, uint32_t generation, uint32_t cell); /* or chunk */
struct kx_ikey kx_ikey_delta(uint32_t space, uint32_t generation, uint32_t cell, uint32_t row);

/* What a key says. False: it is none. */
bool kx_ikey_parse_row(const void *bytes, size_t len, uint32_t *ret_space, uint32_t *ret_row);
bool kx_ikey_parse_cell(const void *bytes, size_t len, uint32_t *ret_space, uint32_t *ret_generation,
			uint32_t *ret_cell);
bool kx_ikey_parse_delta(const void *bytes, size_t len, uint32_t *ret_space, uint32_t *ret_generation,
			 uint32_t *ret_cell, uint32_t *ret_row);

/* The key of a caller's key; out has room for 2 + KX_INDEX_KEY_MAX bytes. Returns its length. */
#define KX_IKEY_KEY_MAX (2u + KX_INDEX_KEY_MAX)
size_t kx_ikey_key(uint32_t space, const void *key, size_t key_len, uint8_t *out);

#endif
