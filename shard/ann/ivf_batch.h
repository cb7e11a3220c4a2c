/* Many queries on their way at once. Layer: shard/ann, and nobody outside this folder's ivf_batch files. */
#ifndef KX_SHARD_ANN_IVF_BATCH_H
#define KX_SHARD_ANN_IVF_BATCH_H

#include "shard/ann/ivf_search.h"

#define KX_IVF_TOGETHER 64u /* queries that a cell is scanned for at a time */
#define KX_IVF_NEAR 32u     /* queries whose keys are made at a time */
#define KX_IVF_AHEAD 256u   /* vectors that are on their way: so many that each comes in time, so few that all stay in the cache */

/* An allocation that is used again. */
struct kx_ivf_room {
	void *data;
	size_t bytes;
};

/* A query on its way. */
struct kx_ivf_one {
	const struct kx_ivf_query *query;
	struct kx_ivf_work *work;
	struct kx_ivf_best best;
	struct kx_ivf_how how;
	struct kx_ivf_lut lut;         /* of the sums by its table, */
	struct kx_ivf_lut eighth;      /* and of those by its codes in 8 bits */
	float norm2;
	float nearest;   /* the least key of a centroid */
	float below;     /* keys that are less were kept, others were not */
	float above;     /* cells with keys up to this were thought of */
	uint32_t groups; /* kept */
	uint32_t round;  /* after the first cells */
	bool enough;
	bool alone;      /* what was kept was not enough: it is to be asked by itself */
};

/* A query wants a cell. */
struct kx_ivf_wish {
	uint32_t one;
	float product; /* of the query and the centroid */
};
struct kx_ivf_pair {
	uint32_t slot; /* of the cell */
	struct kx_ivf_wish wish;
};

/* What a cell has for one query. */
struct kx_ivf_finding {
	struct kx_ivf_one *one;
	uint32_t number; /* of the query */
	const struct kx_ivf_cell *cell;
	struct kx_ivf_slack slack;
	uint32_t count, some; /* found; of these so many are dealt with first, */
	uint32_t first;       /* and so many of them whatever else is found */
	uint32_t *slots;
	float *bounds;
};
/* Some of those, made one after another, then dealt with: what that needs of memory comes meanwhile. */
struct kx_ivf_look {
	struct kx_ivf_finding findings[KX_IVF_TOGETHER];
	uint32_t count;
	size_t used; /* of the room, in slots */
	struct kx_ivf_room slots, bounds;
};

/* A vector on its way, for a query that it is compared with. */
struct kx_ivf_coming {
	uint32_t one, row;
	float bound;
};

struct kx_ivf_batch {
	const struct kx_ivf *ivf;
	uint32_t count;
	struct kx_ivf_one *ones;      /* [count] */
	struct kx_ivf_eighth *eighths; /* [count] */
	int8_t *codes;                /* [count and some][padded] */
	uint8_t *luts;                /* [count][lead / 4][16] */
	float *rest;                  /* [count][padded - lead]: of the rotated queries */
	uint64_t ivf_id;              /* of the index that it was used with last; there */
	uint32_t want_kept;           /* so many groups of centroids of each query should be known, */
	float cells;                  /* and so many cells a query looks into */
	uint32_t kept;                /* how many it does, at most, */
	uint32_t wave;                /* and of how many queries at a time */
	float *keys, *least;          /* [count][kept][16], [count][kept] */
	uint32_t *groups;             /* [count][kept] */
	float *near_keys, *near_least; /* of all groups, of some queries, */
	float *rotated;                /* and those themselves; where they are asked apart */
	uint64_t *numbers, *sorting;
	uint32_t *order;              /* [count]: queries in the order that they are gone through */
	struct kx_ivf_room rooms[15]; /* of these, in this order, and more */
	struct kx_ivf_pair *pairs;    /* of a round, and as wishes of one cell after the other */
	size_t pair_count, pair_room;
	struct kx_ivf_wish *wishes;
	uint32_t *slots;              /* that anybody wants, */
	uint32_t slot_count;
	uint32_t *wanted;             /* [slots of the index]: by how many */
	struct kx_ivf_look looks[2];
	uint32_t turn;
	struct kx_ivf_room spread, gathered;
	struct kx_ivf_coming coming[KX_IVF_AHEAD];
	uint32_t first_coming, coming_count;
};

/* Room for so many bytes; what was there is lost unless there is enough already. */
bool kx_ivf_room(struct kx_ivf_room *room, size_t bytes);

/* --- ivf_batch_cells.c --- */

/* Of each what codes and centroids are held against, and the centroids near it. */
void kx_ivf_batch_prepare(struct kx_ivf_batch *batch);
/* The keys of all lanes for so many of the queries in 8 bits, KX_IVF_NEAR at most, into batch->near_keys and near_least. */
void kx_ivf_batch_near(struct kx_ivf_batch *batch, uint32_t from, uint32_t count);
/* Those near each other behind one another: what cells hold for one of them is at hand for the next. */
void kx_ivf_batch_order(struct kx_ivf_batch *batch);
/* Adds to the pairs the nearest cell of a query that it did not name yet; all that are worth it, or as many as are good for one
 * round. Sets one->enough when there are no more. KX_ENOMEM. */
kx_status kx_ivf_name_first(struct kx_ivf_batch *batch, uint32_t number) KX_MUST_CHECK;
kx_status kx_ivf_name_next(struct kx_ivf_batch *batch, uint32_t number) KX_MUST_CHECK;

/* --- ivf_batch_look.c --- */

/* What a cell has for those that want it; the one looked into before is dealt with meanwhile. next: the cell that comes next, or
 * NULL. KX_ENOMEM. */
kx_status kx_ivf_look_into(struct kx_ivf_batch *batch, const struct kx_ivf_cell *cell, const struct kx_ivf_wish *wishes,
			   size_t count, const struct kx_ivf_cell *next) KX_MUST_CHECK;
/* Deals with what is left. */
void kx_ivf_look_end(struct kx_ivf_batch *batch);
/* The first cells of queries that have not found as many as they are to find: each is looked into for one query, and the best by
 * their bounds are compared before all others. */
kx_status kx_ivf_look_first(struct kx_ivf_batch *batch, const struct kx_ivf_pair *pairs, size_t count) KX_MUST_CHECK;

#endif
