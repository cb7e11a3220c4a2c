#include "shard/index/plan.h"

/* A record is rewritten when changes are this part of it at least, so that large cells are not written over and over. */
#define FOLD_PART 8u
#define MERGE_PART 8u
#define REFIT_PART 8u    /* of its rows came or went */
#define REFIT_LEAST 16u  /* and of a cell as it should be */
#define DRIFT_MOST 1.35
#define GROWTH_MOST 8u
#define CELLS_MOST (1u << 20)

enum kx_plan_step kx_plan_cell(const struct kx_plan_limits *limits, const struct kx_plan_cell *cell, bool trained,
			       uint32_t cells)
{
	uint32_t fold = cell->rows / FOLD_PART > limits->fold_changes ? cell->rows / FOLD_PART : limits->fold_changes;

	if (trained && cell->rows > 2 * limits->cell_rows)
		return KX_PLAN_SPLIT;
	if (trained && cells > 1 && cell->rows < limits->cell_rows / MERGE_PART)
		return KX_PLAN_MERGE;
	if (trained && cell->since >= cell->rows / REFIT_PART && cell->since > limits->cell_rows / REFIT_LEAST)
		return KX_PLAN_REFIT;
	return cell->changes >= fold ? KX_PLAN_FOLD : KX_PLAN_NOTHING;
}

double kx_plan_drift(const struct kx_plan_space *space)
{
	if (!space->trained || !(space->trained_distance2 > 0) || !(space->recent_distance2 > 0))
		return 0;
	return space->recent_distance2 / space->trained_distance2;
}

bool kx_plan_train(const struct kx_plan_limits *limits, const struct kx_plan_space *space)
{
	if (!space->trained)
		return space->rows >= limits->train_rows;
	if (space->rows < limits->train_rows)
		return false;
	if (space->rows / GROWTH_MOST >= space->trained_rows)
		return true;
	/* As many as half of all rows: each costs a share of a training that is a part of what placing them cost. */
	return kx_plan_drift(space) > DRIFT_MOST && space->placed >= space->rows / 2;
}

uint32_t kx_plan_cells(const struct kx_plan_limits *limits, uint64_t rows)
{
	uint64_t cells = (rows + limits->cell_rows - 1) / limits->cell_rows;

	if (cells > CELLS_MOST)
		return CELLS_MOST;
	return cells ? (uint32_t)cells : 1;
}
