/* A moment: the cell of a video's fixed time grid, in one modality. It is stored as it travels. Layer: record. */
#ifndef KX_RECORD_MOMENT_H
#define KX_RECORD_MOMENT_H

#include "common/record/record.h"

struct kx_moment {
	enum kx_modality modality;
	uint32_t index;            /* covers [index, index+1) x moment_us */
	char *space;               /* typed embedding space of features and embedding */
	uint32_t count;            /* rows, at least 1 */
	uint32_t dim;
	uint64_t *pts_us;          /* [count] true presentation times */
	uint8_t *features;         /* [count][dim] u8 codes: value = lo[row] + code * step[row] */
	float *lo;                 /* [count] */
	float *step;               /* [count] */
	uint32_t class_count;
	uint32_t *class_ids;       /* [class_count] best first */
	float *class_scores;       /* [class_count] in [0, 1] */
	int8_t *embedding;         /* [dim] i8 codes, of unit length after scaling */
	float embedding_scale;
	uint64_t max_time_error_us;
	uint64_t *time_error_us;   /* [count] |grid time - pts|; NULL: all 0, or from before it was recorded */
};

KX_RECORD_FUNCTIONS(kx_moment);

#endif
