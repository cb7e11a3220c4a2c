/* What the parts of the approximate index share. Layer: shard/ann, and nobody outside this folder's ivf files. */
#ifndef KX_SHARD_ANN_IVF_IMPL_H
#define KX_SHARD_ANN_IVF_IMPL_H

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "shard/ann/ivf.h"
#include "shard/ann/ivf_kernels.h"
#include "shard/ann/ivf_rotate.h"

#define KX_IVF_ROW_MAX (1u << 30)  /* rows are small numbers: a bitmap over them is kept */
#define KX_IVF_CELL_MAX (1u << 24) /* and cells: a table over them */
#define KX_IVF_PADDED_MAX KX_IVF_DIM_MAX
#define KX_IVF_NO_SLOT UINT32_MAX

/* A cell. Its place in the table is its slot, used again after it was removed. */
struct kx_ivf_cell {
	uint32_t id;       /* KX_IVF_NO_CELL: the slot is free */
	uint32_t count;    /* entries */
	uint32_t capacity; /* in blocks */
	bool cold;
	float norm2;       /* squared length of the centroid */
	float *centroid;   /* [dim] */
	uint8_t *blocks;   /* [capacity], with rows behind them in one allocation */
	uint32_t *rows;    /* [capacity * KX_IVF_BLOCK] */
	uint64_t version;  /* another one whenever the entries are others; never 0, never used twice */
};

/* Rotated centroids in 8 bits, in groups as the kernels want them. */
struct kx_ivf_centroids {
	uint32_t count;
	uint32_t dim;      /* padded */
	uint8_t *codes;    /* [groups][dim / 4][16][4] */
	int32_t *zero;     /* what 128 more an element adds to a product is this times the query's sum: unused lanes 0 */
	float *scale;      /* [groups * 16]: centroid = scale * (code - 128) */
	float *norm2;      /* [groups * 16]; of unused lanes infinite */
	uint32_t *slots;   /* [groups * 16] */
};

/* A centroid as a query sees it. */
struct kx_ivf_near {
	float key;     /* what they are ordered by, nearest first */
	float product; /* of query and centroid */
	uint32_t slot;
};

struct kx_ivf {
	struct kx_ivf_recipe recipe;
	kx_ivf_load load;
	void *load_ctx;
	const struct kx_ivf_kernels *kernels;
	struct kx_ivf_rotation rotation;
	uint32_t code_bytes;
	uint64_t id;      /* of this index in this process */
	uint64_t version; /* the last one given */
	const uint8_t *vectors;
	size_t stride;
	struct kx_ivf_cell *cells;
	uint32_t slot_count, slot_capacity, cell_count, cold_count;
	uint32_t *slot_of; /* by cell id */
	uint32_t slot_of_len;
	uint64_t *present; /* rows of warm cells, as a bitmap */
	size_t present_words;
	uint64_t entry_count; /* in warm cells */
	uint64_t cell_bytes;
	struct kx_ivf_centroids centroids;
	bool ready;
	struct kx_ivf_tuning tuning;
};

/* --- ivf_code.c --- */

struct kx_ivf_entry_head {
	uint32_t row;
	float add, mul;
};
static inline struct kx_ivf_entry_head kx_ivf_entry_head(const uint8_t *entry)
{
	struct kx_ivf_entry_head head;

	memcpy(&head, entry, sizeof(head));
	return head;
}

/* A query made ready to be held against codes. */
struct kx_ivf_lut {
	float scale, offset;  /* <signs, rotated query> is about scale * sum + offset */
	float variance;       /* of the error by which it is about that */
};
/* lut: [padded / 4][16]. */
void kx_ivf_lut_make(const float *rotated, uint32_t padded, uint8_t *lut, struct kx_ivf_lut *ret);

/* Writes entries into blocks and rows from slot `at` on; there is room. */
void kx_ivf_blocks_write(const struct kx_ivf *ivf, uint8_t *blocks, uint32_t *rows, uint32_t at, const uint8_t *entries,
			 size_t count);
/* Writes slot `at` as an entry. */
void kx_ivf_blocks_read(const struct kx_ivf *ivf, const uint8_t *blocks, const uint32_t *rows, uint32_t at,
			uint8_t *ret_entry);

/* --- ivf_cells.c --- */

struct kx_ivf_cell *kx_ivf_cell_of(const struct kx_ivf *ivf, uint32_t id); /* NULL: there is none */
void kx_ivf_cells_done(struct kx_ivf *ivf);
static inline size_t kx_ivf_ivf_block_bytes(const struct kx_ivf *ivf)
{
	return kx_ivf_block_bytes(ivf->code_bytes);
}

/* --- ivf_centroids.c --- */

kx_status kx_ivf_centroids_build(struct kx_ivf *ivf) KX_MUST_CHECK;
void kx_ivf_centroids_done(struct kx_ivf_centroids *centroids);
/* query: rotated, [padded]. ret: room for every cell; all of them, nearest first by the metric. */
size_t kx_ivf_centroids_order(const struct kx_ivf *ivf, const float *rotated, struct kx_ivf_near *ret, size_t most);

/* --- ivf_filter.c --- */

bool kx_ivf_filter_has(const struct kx_ivf_filter *filter, uint32_t row);
/* The filter's words, and how many there are. */
const uint64_t *kx_ivf_filter_words(const struct kx_ivf_filter *filter, size_t *ret_count);
/* Writes which slots match; how many do. masks: a word a block. */
uint32_t kx_ivf_filter_masks(const struct kx_ivf_filter *filter, const uint32_t *rows, uint32_t count, uint32_t *masks);

/* --- ivf_tune.c --- */

float kx_ivf_effort(const struct kx_ivf *ivf, double recall);

/* --- ivf_search.c --- */

/* As kx_ivf_search(), with the effort given: 0 is exact. */
kx_status kx_ivf_search_with(const struct kx_ivf *ivf, const struct kx_ivf_query *query, float effort,
			     struct kx_ivf_scratch *scratch, struct kx_ivf_hit *ret, uint32_t *ret_count,
			     struct kx_ivf_work *work, struct kx_error *error) KX_MUST_CHECK;

#endif
