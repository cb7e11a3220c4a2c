/* When a cell is to be folded, split or dissolved, and when a space wants new centroids. Pure. Layer: shard/index. */
#ifndef KX_SHARD_INDEX_PLAN_H
#define KX_SHARD_INDEX_PLAN_H

#include <stdbool.h>
#include <stdint.h>

struct kx_plan_limits {
	uint32_t cell_rows;    /* aimed at */
	uint32_t fold_changes;
	uint32_t train_rows;
};

struct kx_plan_cell {
	uint32_t rows;
	uint32_t changes; /* not folded yet */
	uint32_t since;   /* rows that came or went since its centroid was looked at */
};

enum kx_plan_step {
	KX_PLAN_NOTHING,
	KX_PLAN_FOLD,
	KX_PLAN_SPLIT,
	KX_PLAN_REFIT, /* whether its centroid is still amid its rows is to be looked at */
	KX_PLAN_MERGE, /* its rows go to the cells around it */
};

/* trained: its space has centroids that were trained; only then cells are split and dissolved. cells: how many the space
 * has. A split or a merge folds, too. */
enum kx_plan_step kx_plan_cell(const struct kx_plan_limits *limits, const struct kx_plan_cell *cell, bool trained,
			       uint32_t cells);

struct kx_plan_space {
	bool trained;
	uint64_t rows;
	uint64_t trained_rows;
	uint64_t placed;          /* rows put or moved to another cell since training */
	double trained_distance2; /* mean, of a vector to its centroid, at training */
	double recent_distance2;  /* the same of vectors put lately; 0: too few to say */
};

/* New centroids are wanted: the first, or others because the vectors that come lie elsewhere than those they were made
 * of (drift), and enough of them came since that it would help; or because the space is many times what it was. */
bool kx_plan_train(const struct kx_plan_limits *limits, const struct kx_plan_space *space);
uint32_t kx_plan_cells(const struct kx_plan_limits *limits, uint64_t rows); /* how many to train */
double kx_plan_drift(const struct kx_plan_space *space);                   /* 1: none; 0: unknown */

#endif
