#include "worker/pipeline/assemble.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/learn/learn.h"
#include "worker/media/media.h"

void kx_assembler_init(struct kx_assembler *assembler, const struct kx_track_shape *shape)
{
	*assembler = (struct kx_assembler){.shape = *shape};
}

void kx_assembler_done(struct kx_assembler *assembler)
{
	while (assembler->head) {
		struct kx_cell *cell = assembler->head;

		assembler->head = cell->next;
		kx_cell_free(cell);
	}
	assembler->last = NULL;
}

uint64_t kx_grid_us(const struct kx_track_shape *shape, uint64_t index)
{
	if (shape->modality == KX_AUDIO)
		return index * KX_PATCH_STEP_US;
	return (uint64_t)llround((double)index * 1e6 / shape->fps);
}

/* Its time fits all that is computed from it. */
static bool grid_has(const struct kx_track_shape *shape, uint64_t index)
{
	if (shape->modality == KX_AUDIO)
		return index <= KX_MEDIA_US_MAX / KX_PATCH_STEP_US;
	return (double)index * 1e6 / shape->fps <= (double)KX_MEDIA_US_MAX;
}

static struct kx_row *row_new(const struct kx_track_shape *shape, const struct kx_sample *sample)
{
	size_t scores_bytes = shape->class_count * sizeof(float);
	struct kx_row *row = malloc(sizeof(*row) + scores_bytes + shape->dim);

	if (!row)
		return NULL;
	*row = (struct kx_row){.pts_us = sample->pts_us, .error_us = sample->error_us};
	row->scores = (float *)(row + 1);
	row->codes = (uint8_t *)(row + 1) + scores_bytes;
	return row;
}

static kx_status cell_add(struct kx_cell *cell, struct kx_row *row)
{
	if (cell->count == KX_MOMENT_ROWS_MAX)
		return KX_ETOOBIG;
	if (cell->count == cell->cap) {
		size_t cap = cell->cap ? cell->cap * 2 : 16;
		struct kx_row **rows = realloc(cell->rows, cap * sizeof(*rows));

		if (!rows)
			return KX_ENOMEM;
		cell->rows = rows;
		cell->cap = cap;
	}
	cell->rows[cell->count++] = row;
	row->cell = cell;
	return KX_OK;
}

/* The cell that an item of moment `index` goes to; closes the one before. NULL: out of memory. */
static struct kx_cell *cell_for(struct kx_assembler *assembler, uint32_t index)
{
	struct kx_cell *cell = assembler->last;

	if (cell && !cell->closed && cell->index == index)
		return cell;
	cell = calloc(1, sizeof(*cell));
	if (!cell)
		return NULL;
	cell->index = index;
	if (assembler->last) {
		assembler->last->closed = true;
		assembler->last->next = cell;
	} else {
		assembler->head = cell;
	}
	assembler->last = cell;
	return cell;
}

kx_status kx_assembler_expect(struct kx_assembler *assembler, const struct kx_sample *sample, struct kx_row **ret_row,
			      struct kx_error *error)
{
	struct kx_cell *cell;
	struct kx_row *row;
	uint64_t moment;
	kx_status status;

	if (sample->index < assembler->next_index || !grid_has(&assembler->shape, sample->index))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_RETRY, "%s item %" PRIu64 " is out of order",
				    kx_modality_name(assembler->shape.modality), sample->index);
	moment = kx_grid_us(&assembler->shape, sample->index) / assembler->shape.moment_us;
	if (moment >= KX_MOMENTS_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%s item %" PRIu64 " is too far out",
				    kx_modality_name(assembler->shape.modality), sample->index);
	cell = cell_for(assembler, (uint32_t)moment);
	row = cell ? row_new(&assembler->shape, sample) : NULL;
	if (!row)
		return kx_error_nomem(error);
	status = cell_add(cell, row);
	if (status != KX_OK) {
		free(row);
		return kx_error_set(error, status, KX_ERROR_POISON, "%s moment %" PRIu64 ": %s",
				    kx_modality_name(assembler->shape.modality), moment, kx_status_name(status));
	}
	assembler->next_index = sample->index + 1;
	assembler->row_count++;
	if (sample->error_us > assembler->max_error_us)
		assembler->max_error_us = sample->error_us;
	*ret_row = row;
	return KX_OK;
}

static bool all_finite(const float *values, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!isfinite(values[i]))
			return false;
	}
	return true;
}

kx_status kx_row_fill(const struct kx_track_shape *shape, struct kx_row *row, const float *features,
		      const float *scores)
{
	if (!all_finite(features, shape->dim) || !all_finite(scores, shape->class_count))
		return KX_EINVAL;
	kx_learn_quantize(features, shape->dim, row->codes, &row->lo, &row->step);
	memcpy(row->scores, scores, shape->class_count * sizeof(*scores));
	return KX_OK;
}

void kx_row_settle(struct kx_row *row)
{
	assert(!row->settled);
	row->settled = true;
	row->cell->settled++;
}

void kx_assembler_end(struct kx_assembler *assembler)
{
	if (assembler->last)
		assembler->last->closed = true;
}

static bool cell_ready(const struct kx_cell *cell)
{
	return cell && cell->closed && cell->settled == cell->count;
}

bool kx_assembler_ready(const struct kx_assembler *assembler)
{
	return cell_ready(assembler->head);
}

size_t kx_assembler_ready_count(const struct kx_assembler *assembler)
{
	size_t count = 0;

	for (const struct kx_cell *cell = assembler->head; cell_ready(cell); cell = cell->next)
		count++;
	return count;
}

struct kx_cell *kx_assembler_take(struct kx_assembler *assembler)
{
	struct kx_cell *cell = assembler->head;

	if (!cell_ready(cell))
		return NULL;
	assembler->head = cell->next;
	if (!assembler->head)
		assembler->last = NULL;
	cell->next = NULL;
	return cell;
}

/* The arrays of a moment, in one piece of memory. */
struct arrays {
	uint64_t *pts_us, *time_error_us;
	float *lo, *step;
	float *mean;       /* [class_count] */
	float *class_scores;
	uint32_t *class_ids;
	uint8_t *features; /* [count][dim] */
	int8_t *embedding;
};

static kx_status arrays_new(struct kx_cell *cell, const struct kx_track_shape *shape, struct arrays *ret)
{
	size_t count = cell->count, dim = shape->dim, classes = shape->class_count;
	size_t floats = 2 * count + classes + KX_MOMENT_CLASSES;
	uint64_t *at = malloc(2 * count * sizeof(uint64_t) + floats * sizeof(float) +
			      KX_MOMENT_CLASSES * sizeof(uint32_t) + count * dim + dim);

	if (!at)
		return KX_ENOMEM;
	cell->arrays = at;
	ret->pts_us = at;
	ret->time_error_us = at + count;
	ret->lo = (float *)(at + 2 * count);
	ret->step = ret->lo + count;
	ret->mean = ret->step + count;
	ret->class_scores = ret->mean + classes;
	ret->class_ids = (uint32_t *)(ret->class_scores + KX_MOMENT_CLASSES);
	ret->features = (uint8_t *)(ret->class_ids + KX_MOMENT_CLASSES);
	ret->embedding = (int8_t *)(ret->features + count * dim);
	return KX_OK;
}

static uint64_t copy_rows(const struct kx_cell *cell, size_t dim, const struct arrays *to)
{
	uint64_t max_error_us = 0;

	for (size_t i = 0; i < cell->count; i++) {
		const struct kx_row *row = cell->rows[i];

		to->pts_us[i] = row->pts_us;
		to->time_error_us[i] = row->error_us;
		to->lo[i] = row->lo;
		to->step[i] = row->step;
		memcpy(to->features + i * dim, row->codes, dim);
		if (row->error_us > max_error_us)
			max_error_us = row->error_us;
	}
	return max_error_us;
}

/* Summed in the order of the rows: floating-point sums in another order are other numbers. */
static size_t mean_classes(const struct kx_cell *cell, size_t classes, const struct arrays *to)
{
	size_t kept;

	for (size_t c = 0; c < classes; c++) {
		double sum = 0;

		for (size_t i = 0; i < cell->count; i++)
			sum += (double)cell->rows[i]->scores[c];
		to->mean[c] = (float)(sum / (double)cell->count);
	}
	kept = kx_learn_topk(to->mean, classes, KX_MOMENT_CLASSES, to->class_ids);
	for (size_t i = 0; i < kept; i++)
		to->class_scores[i] = to->mean[to->class_ids[i]];
	return kept;
}

kx_status kx_cell_moment(struct kx_cell *cell, const struct kx_track_shape *shape, struct kx_moment *ret_moment,
			 struct kx_error *error)
{
	struct arrays to;
	struct kx_moment moment = {
		.modality = shape->modality,
		.index = cell->index,
		.space = (char *)shape->space,
		.count = (uint32_t)cell->count,
		.dim = (uint32_t)shape->dim,
	};

	if (arrays_new(cell, shape, &to) != KX_OK)
		return kx_error_nomem(error);
	moment.max_time_error_us = copy_rows(cell, shape->dim, &to);
	if (kx_learn_embed_moment(to.features, to.lo, to.step, cell->count, shape->dim, to.embedding,
				  &moment.embedding_scale) != KX_OK)
		return kx_error_nomem(error);
	moment.class_count = (uint32_t)mean_classes(cell, shape->class_count, &to);
	moment.pts_us = to.pts_us;
	moment.time_error_us = moment.max_time_error_us > 0 ? to.time_error_us : NULL;
	moment.features = to.features;
	moment.lo = to.lo;
	moment.step = to.step;
	moment.class_ids = to.class_ids;
	moment.class_scores = to.class_scores;
	moment.embedding = to.embedding;
	*ret_moment = moment;
	return KX_OK;
}

void kx_cell_free(struct kx_cell *cell)
{
	if (!cell)
		return;
	for (size_t i = 0; i < cell->count; i++)
		free(cell->rows[i]);
	free(cell->rows);
	free(cell->arrays);
	free(cell);
}
