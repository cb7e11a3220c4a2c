/* A decoded frame to RGB rows of a fixed size, in one pass: area filter, the frame's own matrix and range, one field
 * of an interlaced frame, HDR brought down to SDR, rotated as presented. Layer: worker/media. The same frame gives the
 * same bytes on any machine: integers, whatever SIMD does the work (docs/decisions/0007-scaler.md).
 *
 * Alpha is left out, as everything that reads video does. Chroma samples are taken to lie in the middle of the pixels
 * they stand for, as libswscale's do. */
#ifndef KX_MEDIA_SCALE_H
#define KX_MEDIA_SCALE_H

#include <stdbool.h>
#include <stdint.h>

#include <libavutil/frame.h>

#include "common/base/error.h"

struct kx_scale_kernels;
struct kx_scale_plan;

/* How the decoded picture has to be turned: first mirrored about its diagonal, then about its axes. */
struct kx_orientation {
	bool transpose;
	bool flip_x;
	bool flip_y;
};

/* From a display matrix (9 x 16.16 fixed point, libavutil/display.h); NULL, or an odd angle: as it is. */
struct kx_orientation kx_orientation_from_matrix(const int32_t *matrix);

/* One target. Several models at different sizes have one each, and may run them on the same frame. */
struct kx_scaler {
	unsigned width; /* of the output */
	unsigned height;
	struct kx_orientation orientation;
	const struct kx_scale_kernels *kernels; /* the fastest there are; tests put others here */
	struct kx_scale_plan *plan;             /* for frames like the last one */
	uint8_t *scaled;                        /* where the picture is turned: scaled, not yet turned */
};

/* KX_ENOMEM. Not thread-safe: a scaler has one user at a time. */
kx_status kx_scaler_init(struct kx_scaler *scaler, unsigned width, unsigned height, struct kx_orientation orientation)
	KX_MUST_CHECK;
void kx_scaler_done(struct kx_scaler *scaler); /* zeroed memory, too */

/* Writes width*height*3 bytes. Frames of other sizes and formats may follow each other. Of the frame's planes only
 * samples inside the picture are read. KX_EUNSUPPORTED: a pixel format or a size that can't be scaled; KX_ENOMEM. */
kx_status kx_scaler_run(struct kx_scaler *scaler, const AVFrame *frame, uint8_t *rgb, struct kx_error *error)
	KX_MUST_CHECK;

#endif
