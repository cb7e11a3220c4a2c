/* What a frame's samples are: where each component lies, and the matrix that makes R, G, B of them.
 * Layer: worker/media. */
#ifndef KX_MEDIA_SCALE_FORMAT_H
#define KX_MEDIA_SCALE_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include <libavutil/frame.h>

#include "worker/media/scale_kernels.h"

/* One of at most three components; alpha is none of them. */
struct kx_component {
	unsigned plane;
	unsigned step;   /* samples from one to the next; 1: the plane holds nothing else */
	unsigned offset; /* samples before the first */
	unsigned depth;  /* bits, 8 to 16 */
	unsigned raise;  /* bits by which it lies higher than that in its sample */
	bool chroma;     /* subsampled as the pixel format says */
};

struct kx_pixels {
	struct kx_component part[3]; /* Y, U, V or R, G, B or Y alone; all of one depth */
	unsigned parts;
	unsigned planes;
	unsigned chroma_x; /* log2 of pixels to a chroma sample */
	unsigned chroma_y;
	bool wide; /* samples of 16 bits, else of 8 */
	bool rgb;
};

/* How the components are to be read. */
struct kx_colour {
	enum AVColorSpace matrix; /* one that kx_colour_matrix() knows */
	bool full_range;
};

/* Formats of whole 8- or 16-bit samples in this machine's byte order. false: another one, which libswscale has to
 * turn into one of these first: kx_pixels_instead(). */
bool kx_pixels_describe(enum AVPixelFormat format, struct kx_pixels *ret_pixels);
/* A format that kx_pixels_describe() knows and that holds what `format` holds. AV_PIX_FMT_NONE: no such picture. */
enum AVPixelFormat kx_pixels_instead(enum AVPixelFormat format);

/* The frame's own word; without one, BT.709 from 720 lines, else BT.601 (BT.2020 for PQ and HLG); limited range, but
 * RGB and gray are full. */
struct kx_colour kx_colour_of(const AVFrame *frame);

/* R, G, B of 8 bits and full range from parts of KX_SAMPLE_BITS. */
void kx_colour_matrix(struct kx_colour colour, const struct kx_pixels *pixels, struct kx_matrix *ret_matrix);

#endif
