/* A decoded frame to RGB rows of a fixed size: area filter, the frame's own matrix and range, rotated as presented.
 * Layer: worker/media. The same pixels give the same bytes on any machine: no threads, bit-exact code paths. */
#ifndef KX_MEDIA_SCALE_H
#define KX_MEDIA_SCALE_H

#include <stdbool.h>
#include <stdint.h>

#include <libavutil/frame.h>
#include <libswscale/swscale.h>

#include "common/base/error.h"

/* How the decoded picture has to be turned: first mirrored about its diagonal, then about its axes. */
struct kx_orientation {
	bool transpose;
	bool flip_x;
	bool flip_y;
};

/* From a display matrix (9 x 16.16 fixed point, libavutil/display.h); NULL, or an odd angle: as it is. */
struct kx_orientation kx_orientation_from_matrix(const int32_t *matrix);

struct kx_scaler {
	unsigned width; /* of the output */
	unsigned height;
	struct kx_orientation orientation;
	struct SwsContext *sws;
	uint8_t *scaled; /* scaled, not yet turned */
	unsigned stride; /* of scaled, bytes */
	/* What sws was made for. */
	int from_width;
	int from_height;
	int from_format;
	int from_space;
	int from_range;
};

kx_status kx_scaler_init(struct kx_scaler *scaler, unsigned width, unsigned height, struct kx_orientation orientation)
	KX_MUST_CHECK;
void kx_scaler_done(struct kx_scaler *scaler);

/* Writes width*height*3 bytes. Frames of other sizes and formats may follow each other. KX_EUNSUPPORTED: a pixel
 * format or a size that can't be scaled. */
kx_status kx_scaler_run(struct kx_scaler *scaler, const AVFrame *frame, uint8_t *rgb, struct kx_error *error)
	KX_MUST_CHECK;

#endif
