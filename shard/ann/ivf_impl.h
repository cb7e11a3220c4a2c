/* What the parts of the approximate index share. Layer: shard/ann, and nobody outside this folder's ivf files. */
#ifndef KX_SHARD_ANN_IVF_IMPL_H
#define KX_SHARD_ANN_IVF_IMPL_H

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "shard/ann/ivf.h"
#include "shard/ann/ivf_centroids.h"
#include "shard/ann/ivf_kernels.h"
#include "shard/ann/ivf_pages.h"
#include "shard/ann/ivf_rotate.h"

#define KX_IVF_ROW_MAX (1u << 30)  /* rows are small numbers: a bitmap over them is kept */
#define KX_IVF_CELL_MAX (1u << 24) /* and cells: a table over them */
#define KX_IVF_PADDED_MAX KX_IVF_DIM_MAX
#define KX_IVF_NO_SLOT UINT32_MAX

/* Where entries are held. A search goes through blocks, which have the leading part of each code: what it waits for is
 * memory. The tail, with the rest of a code, is looked at where the leading part's bound passes. */
struct kx_ivf_place {
	uint8_t *blocks; /* [capacity], with the others behind them in one allocation */
	uint8_t *tails;  /* [capacity * KX_IVF_BLOCK][kx_ivf_tail_bytes()] */
	uint32_t *rows;  /* [capacity * KX_IVF_BLOCK] */
};

/* A cell. Its place in the table is its slot, used again after it was removed. */
struct kx_ivf_cell {
	uint32_t id;       /* KX_IVF_NO_CELL: the slot is free */
	uint32_t count;    /* entries */
	uint32_t capacity; /* in blocks */
	uint32_t lane;     /* of its centroid; KX_IVF_NO_LANE: it has none yet */
	float norm2;       /* squared length of the centroid */
	bool cold;
	double mul_sum;    /* of its entries: how far they are from the centroid, in the mean */
	struct kx_ivf_place place;
	float *centroid;   /* [dim] */
	size_t bytes;      /* of the piece that holds the entries */
	uint64_t version;  /* another one whenever the entries are others; never 0, never used twice */
};

struct kx_ivf {
	struct kx_ivf_recipe recipe;
	kx_ivf_load load;
	void *load_ctx;
	const struct kx_ivf_kernels *kernels;
	struct kx_ivf_rotation rotation;
	uint32_t code_bytes;
	uint32_t lead;    /* dimensions of the leading part of a code; the rest are the tail's */
	uint64_t id;      /* of this index in this process */
	uint64_t version; /* the last one given */
	const uint8_t *vectors;
	size_t stride;
	kx_ivf_ahead ahead;
	void *ahead_ctx;
	struct kx_ivf_cell *cells;
	uint32_t slot_count, slot_capacity, cell_count, cold_count;
	uint32_t *slot_of; /* by cell id */
	uint32_t slot_of_len;
	uint64_t *present; /* rows of warm cells, as a bitmap */
	size_t present_words;
	uint64_t entry_count; /* in warm cells */
	uint64_t cell_bytes;
	struct kx_ivf_pages pages;
	struct kx_ivf_centroids centroids;
	uint32_t unplaced; /* cells without a lane */
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
void kx_ivf_lut_make(const float *rotated, uint32_t padded, const struct kx_ivf_kernels *kernels, uint8_t *lut,
		     struct kx_ivf_lut *ret);

/* What a tail starts with; the rest of the code is behind it. */
struct kx_ivf_tail {
	float add, mul;
};
static inline size_t kx_ivf_tail_bytes(const struct kx_ivf *ivf)
{
	return sizeof(struct kx_ivf_tail) + ivf->code_bytes - ivf->lead / 8;
}
static inline size_t kx_ivf_lead_block_bytes(const struct kx_ivf *ivf)
{
	return kx_ivf_block_bytes(ivf->lead / 8);
}
/* What so many blocks of entries take. */
static inline size_t kx_ivf_place_bytes(const struct kx_ivf *ivf, size_t blocks)
{
	return blocks * (kx_ivf_lead_block_bytes(ivf) + KX_IVF_BLOCK * (kx_ivf_tail_bytes(ivf) + sizeof(uint32_t)));
}
/* The place that begins at memory of so many bytes. */
static inline struct kx_ivf_place kx_ivf_place_at(const struct kx_ivf *ivf, void *memory, size_t blocks)
{
	uint8_t *tails = (uint8_t *)memory + blocks * kx_ivf_lead_block_bytes(ivf);
	uint8_t *rows = tails + blocks * KX_IVF_BLOCK * kx_ivf_tail_bytes(ivf);

	return (struct kx_ivf_place){memory, tails, (uint32_t *)(void *)rows};
}

/* Writes entries of a cell from slot `at` on; there is room. */
void kx_ivf_place_write(const struct kx_ivf *ivf, const struct kx_ivf_cell *cell, const struct kx_ivf_place *place,
			uint32_t at, const uint8_t *entries, size_t count);
/* Copies an entry, from slot to slot of two places of one cell. What is there must be zeros, or an entry. */
void kx_ivf_place_copy(const struct kx_ivf *ivf, const struct kx_ivf_place *from, uint32_t at,
		       const struct kx_ivf_place *to, uint32_t to_at);
/* Writes slot `at` as an entry. */
void kx_ivf_place_read(const struct kx_ivf *ivf, const struct kx_ivf_place *place, uint32_t at, uint8_t *ret_entry);

/* --- ivf_cells.c --- */

struct kx_ivf_cell *kx_ivf_cell_of(const struct kx_ivf *ivf, uint32_t id); /* NULL: there is none */
void kx_ivf_cells_done(struct kx_ivf *ivf);

/* --- ivf_near.c --- */

float kx_ivf_distance2(const float *a, const float *b, uint32_t dim);

/* --- ivf_filter.c --- */

bool kx_ivf_filter_has(const struct kx_ivf_filter *filter, uint32_t row);
/* The filter's words, and how many there are. */
const uint64_t *kx_ivf_filter_words(const struct kx_ivf_filter *filter, size_t *ret_count);
/* Writes which slots match; how many do. masks: a word a block. */
uint32_t kx_ivf_filter_masks(const struct kx_ivf_filter *filter, const uint32_t *rows, uint32_t count, uint32_t *masks);

/* What of a cell matches. Few are named, many are marked. */
struct kx_ivf_view {
	_Atomic uint64_t version; /* of the cell; 0: nothing is known */
	uint32_t count;
	uint32_t room;  /* words */
	bool named;     /* words: [count] rows; else [blocks] masks */
	uint32_t *words;
	_Atomic uint32_t visits;
	size_t copy_bytes;
	_Atomic(uint8_t *) copy; /* a place with nothing but what matches, where the cell is looked at often; or NULL */
};
/* What a filter remembers of an index; to be asked for at the start of each search. NULL: out of memory. */
struct kx_ivf_views;
struct kx_ivf_views *kx_ivf_filter_views(const struct kx_ivf_filter *filter, const struct kx_ivf *ivf);
/* Of a warm cell, by its slot. It stays until a change. NULL: out of memory. */
const struct kx_ivf_view *kx_ivf_view_of(struct kx_ivf_views *views, const struct kx_ivf *ivf, uint32_t slot);
/* The copy of the view's [count] matches, if it has one. */
bool kx_ivf_view_copy(const struct kx_ivf_view *view, const struct kx_ivf *ivf, struct kx_ivf_place *ret);
/* Asks memory for a view, and for the first block of its copy. */
void kx_ivf_view_fetch(struct kx_ivf_views *views, uint32_t slot);
void kx_ivf_view_fetch_copy(struct kx_ivf_views *views, const struct kx_ivf *ivf, uint32_t slot);

/* In which cells anything matches; of cold ones nobody knows. */
struct kx_ivf_map {
	uint16_t *lanes; /* [groups]: a bit for each lane whose cell has a match */
	uint32_t cells;  /* how many do */
	double crowd;    /* how many there would be if all had as many matches as where a match lies in the mean */
	bool sparse;     /* they are few enough for the map to be of use */
};
/* It stays until a change. NULL: nobody went through the entries yet, which a filter that is used again is worth. */
const struct kx_ivf_map *kx_ivf_filter_map(struct kx_ivf_views *views, const struct kx_ivf *ivf);
/* What a search without a map had to do: vectors compared, or cells passed by. */
void kx_ivf_filter_spent(struct kx_ivf_views *views, uint32_t spent);

/* --- ivf_tune.c --- */

/* How hard a search looks. */
struct kx_ivf_how {
	float effort;  /* 0: exact */
	float epsilon; /* deviations of an estimate below which one may be and is still looked at */
	float spread;  /* effort is made greater by this power of the share that a filter leaves over */
};
struct kx_ivf_how kx_ivf_how_of(const struct kx_ivf_tuning *tuning, double recall);

/* --- ivf_search.c --- */

/* As kx_ivf_search(), whatever recall the query asks for. */
kx_status kx_ivf_search_with(const struct kx_ivf *ivf, const struct kx_ivf_query *query, const struct kx_ivf_how *how,
			     struct kx_ivf_scratch *scratch, struct kx_ivf_hit *ret, uint32_t *ret_count,
			     struct kx_ivf_work *work, struct kx_error *error) KX_MUST_CHECK;

#endif
