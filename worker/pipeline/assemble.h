/* From sampled items to moments, for one track of one job. Pure; locks are the caller's, and it says below what needs
 * none. Layer: worker/pipeline, private.
 *
 * Items are expected in the order of their grid index and filled in any order. A moment is complete when an item of a
 * later one was expected, or the end was told, and all its own items are filled. Nothing here depends on when things
 * happen: the same items give the same moments, byte for byte.
 */
#ifndef KX_WORKER_PIPELINE_ASSEMBLE_H
#define KX_WORKER_PIPELINE_ASSEMBLE_H

#include <stdbool.h>

#include "common/base/error.h"
#include "common/record/media.h"
#include "common/record/moment.h"

#define KX_MOMENT_CLASSES 20u

/* What all moments of a track have in common. space must outlive it. */
struct kx_track_shape {
	enum kx_modality modality;
	const char *space;
	size_t dim;
	size_t class_count;
	uint64_t moment_us;
	double fps; /* visual only */
};

/* One item. Made by expect; filled by whoever inferred it, without a lock; then settled. */
struct kx_row {
	struct kx_cell *cell;
	uint64_t pts_us;
	uint64_t error_us;
	float lo, step;
	bool settled;
	uint8_t *codes;  /* [dim] */
	float *scores;   /* [class_count] */
};

/* A moment while it is put together; when taken, it is the taker's. */
struct kx_cell {
	struct kx_cell *next;
	uint32_t index;
	bool closed;
	size_t count, cap, settled;
	struct kx_row **rows;
	void *arrays; /* of the moment made of it */
};

struct kx_assembler {
	struct kx_track_shape shape;
	struct kx_cell *head;
	struct kx_cell *last; /* takes further rows, unless closed */
	uint64_t next_index;  /* the smallest that may come */
	uint64_t row_count;
	uint64_t max_error_us;
};

void kx_assembler_init(struct kx_assembler *assembler, const struct kx_track_shape *shape);
void kx_assembler_done(struct kx_assembler *assembler); /* frees cells that were not taken, and their rows */

/* Grid time of an item: frame k at k / fps, patch k at k x 0.48 s. To the nearest microsecond. */
uint64_t kx_grid_us(const struct kx_track_shape *shape, uint64_t index);

/* KX_EINVAL: the index does not rise, or is absurd. KX_ETOOBIG: too many in one moment. KX_ENOMEM. */
kx_status kx_assembler_expect(struct kx_assembler *assembler, const struct kx_sample *sample, struct kx_row **ret_row,
			      struct kx_error *error) KX_MUST_CHECK;

/* Quantises the features and keeps the scores. KX_EINVAL when a number is not finite. No lock needed. */
kx_status kx_row_fill(const struct kx_track_shape *shape, struct kx_row *row, const float *features,
		      const float *scores) KX_MUST_CHECK;
void kx_row_settle(struct kx_row *row);

void kx_assembler_end(struct kx_assembler *assembler); /* nothing more is expected */

bool kx_assembler_ready(const struct kx_assembler *assembler); /* take would give one */
size_t kx_assembler_ready_count(const struct kx_assembler *assembler);
struct kx_cell *kx_assembler_take(struct kx_assembler *assembler); /* the earliest complete one, or NULL */

/* Pools a taken cell. *ret_moment points into the cell and the shape. No lock needed. KX_ENOMEM. */
kx_status kx_cell_moment(struct kx_cell *cell, const struct kx_track_shape *shape, struct kx_moment *ret_moment,
			 struct kx_error *error) KX_MUST_CHECK;
void kx_cell_free(struct kx_cell *cell);

#endif
