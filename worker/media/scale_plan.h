/* All that scaling needs to know about frames of one kind before it sees their samples. Layer: worker/media. */
#ifndef KX_MEDIA_SCALE_PLAN_H
#define KX_MEDIA_SCALE_PLAN_H

#include <libavutil/frame.h>
#include <libswscale/swscale.h>

#include "worker/media/scale_format.h"
#include "worker/media/tone.h"

/* What makes frames one kind. */
struct kx_scale_kind {
	int width;
	int height;
	int format;
	struct kx_colour colour;
	enum AVColorTransferCharacteristic transfer; /* unspecified unless it is HDR */
	enum AVColorPrimaries primaries;             /* the same */
	int field; /* -1: all lines; 0, 1: the lines of the top or bottom field alone */
};

struct kx_scale_plan {
	struct kx_scale_kind kind;
	unsigned width; /* of the output, before it is turned */
	unsigned height;
	struct kx_pixels pixels;
	struct kx_matrix matrix;
	struct kx_tone *tone; /* NULL: SDR */
	/* [0] luma, or all; [1] chroma. Columns and rows of the output. */
	struct kx_axis columns[2];
	struct kx_axis rows[2];
	uint32_t samples[2]; /* down a plane: of the field, where there is one */
	/* Each plane's part of the frame for one row of the output, KX_SAMPLE_BITS a sample. */
	int16_t *plane_row[3];
	unsigned plane_width[3]; /* samples */
	unsigned plane_chroma[3];
	int16_t *apart;        /* one component of a plane that holds several */
	int16_t *part_row[3];  /* scaled */
	const uint8_t **lines; /* that a row of the output takes */
	/* For pixel formats that are not read as they are: to one that is, of the same size. */
	struct SwsContext *sws;
	AVFrame *plain;
};

/* The kind of a frame. */
struct kx_scale_kind kx_scale_kind_of(const AVFrame *frame);
bool kx_scale_same_kind(const struct kx_scale_kind *a, const struct kx_scale_kind *b);

/* KX_EUNSUPPORTED: no such picture can be scaled; KX_ENOMEM. */
kx_status kx_scale_plan_new(const struct kx_scale_kind *kind, unsigned width, unsigned height,
			    struct kx_scale_plan **ret_plan) KX_MUST_CHECK;
void kx_scale_plan_free(struct kx_scale_plan *plan);

#endif
