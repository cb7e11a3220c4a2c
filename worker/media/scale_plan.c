#include "worker/media/scale_plan.h"

#include <stdlib.h>
#include <string.h>

#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>

/* So short a picture has no lines of a field to choose among, chroma's included. */
#define FIELD_LINES_MIN 8

struct kx_scale_kind kx_scale_kind_of(const AVFrame *frame)
{
	struct kx_scale_kind kind = {
		.width = frame->width,
		.height = frame->height,
		.format = frame->format,
		.colour = kx_colour_of(frame),
		.transfer = AVCOL_TRC_UNSPECIFIED,
		.primaries = AVCOL_PRI_UNSPECIFIED,
		.field = -1,
	};
	if (kx_tone_needed(frame->color_trc)) {
		kind.transfer = frame->color_trc;
		kind.primaries = frame->color_primaries;
	}
	if (frame->interlaced_frame && frame->height >= FIELD_LINES_MIN)
		kind.field = frame->top_field_first ? 0 : 1;
	return kind;
}

bool kx_scale_same_kind(const struct kx_scale_kind *a, const struct kx_scale_kind *b)
{
	return a->width == b->width && a->height == b->height && a->format == b->format &&
	       a->colour.matrix == b->colour.matrix && a->colour.full_range == b->colour.full_range &&
	       a->transfer == b->transfer && a->primaries == b->primaries && a->field == b->field;
}

/* Samples along a side, each standing for 2^log2 pixels. Where the side is no multiple of that, chroma is spread over
 * all of it as if it were: half a sample off at the far end, but what libswscale does, and so where those who make
 * such pictures put it. */
static struct kx_axis_shape along(int side, unsigned log2)
{
	int64_t samples = AV_CEIL_RSHIFT((int64_t)side, log2);
	return (struct kx_axis_shape){
		.extent = samples << log2,
		.samples = samples,
		.step2 = INT64_C(2) << log2,
	};
}

/* Every second line, and each stands for two. A chroma line lies in the middle of its 2^log2 lines of the frame, or
 * in the same place of its own field where the standards mean interlaced pictures: that is the same place. */
static struct kx_axis_shape down(int side, unsigned log2, int field)
{
	struct kx_axis_shape shape = along(side, log2);
	if (field < 0)
		return shape;
	shape.origin2 = (2 * field - 1) * (INT64_C(1) << log2);
	shape.step2 *= 2;
	shape.samples = (shape.samples + 1 - field) / 2;
	return shape;
}

static kx_status make_axes(struct kx_scale_plan *plan)
{
	const struct kx_scale_kind *kind = &plan->kind;
	for (unsigned chroma = 0; chroma < 2; chroma++) {
		struct kx_axis_shape x = along(kind->width, chroma ? plan->pixels.chroma_x : 0);
		struct kx_axis_shape y = down(kind->height, chroma ? plan->pixels.chroma_y : 0, kind->field);
		unsigned taps = kx_column_taps(kx_axis_taps(&x, plan->width));
		kx_status status = kx_axis_init(&plan->columns[chroma], x, plan->width, taps);
		if (!status)
			status = kx_axis_init(&plan->rows[chroma], y, plan->height, KX_ROW_TAPS);
		if (status)
			return status;
		plan->samples[chroma] = (uint32_t)y.samples;
	}
	return KX_OK;
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

static kx_status make_buffers(struct kx_scale_plan *plan)
{
	const struct kx_pixels *pixels = &plan->pixels;
	/* Taps that weigh nothing are read past the end. */
	size_t spare = larger(plan->columns[0].taps, plan->columns[1].taps);
	for (unsigned i = 0; i < pixels->parts; i++) {
		const struct kx_component *part = &pixels->part[i];
		unsigned count = (unsigned)along(plan->kind.width, part->chroma ? pixels->chroma_x : 0).samples;
		unsigned width = (count - 1) * part->step + part->offset + 1;
		plan->plane_width[part->plane] = (unsigned)larger(plan->plane_width[part->plane], width);
		plan->plane_chroma[part->plane] = part->chroma;
		plan->part_row[i] = calloc(plan->width, sizeof(int16_t));
		if (!plan->part_row[i])
			return KX_ENOMEM;
	}
	for (unsigned p = 0; p < pixels->planes; p++) {
		plan->plane_row[p] = calloc(plan->plane_width[p] + spare, sizeof(int16_t));
		if (!plan->plane_row[p])
			return KX_ENOMEM;
	}
	plan->apart = calloc((size_t)plan->kind.width + spare, sizeof(int16_t));
	plan->lines = calloc(larger(plan->rows[0].taps, plan->rows[1].taps), sizeof(*plan->lines));
	return plan->apart && plan->lines ? KX_OK : KX_ENOMEM;
}

/* libswscale to `plain`, with no change but of the format. */
static kx_status make_plain(struct kx_scale_plan *plan, enum AVPixelFormat format)
{
	const struct kx_scale_kind *kind = &plan->kind;
	if (format == AV_PIX_FMT_NONE || !sws_isSupportedInput(kind->format))
		return KX_EUNSUPPORTED;
	plan->plain = av_frame_alloc();
	if (!plan->plain)
		return KX_ENOMEM;
	plan->plain->width = kind->width;
	plan->plain->height = kind->height;
	plan->plain->format = format;
	if (av_frame_get_buffer(plan->plain, 0) < 0)
		return KX_ENOMEM;
	plan->sws = sws_getContext(kind->width, kind->height, kind->format, kind->width, kind->height, format,
				   SWS_AREA | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT, NULL, NULL, NULL);
	if (!plan->sws)
		return KX_EUNSUPPORTED;
	/* Fails for formats without a matrix (RGB), which need none. */
	const int *matrix = sws_getCoefficients(SWS_CS_DEFAULT);
	int range = kind->colour.full_range;
	(void)sws_setColorspaceDetails(plan->sws, matrix, range, matrix, range, 0, 1 << 16, 1 << 16);
	return KX_OK;
}

static kx_status fill(struct kx_scale_plan *plan)
{
	const struct kx_scale_kind *kind = &plan->kind;
	kx_status status = KX_OK;
	if (kind->width <= 0 || kind->height <= 0 || av_image_check_size((unsigned)kind->width, (unsigned)kind->height, 0, NULL) < 0)
		return KX_EUNSUPPORTED;
	if (!kx_pixels_describe(kind->format, &plan->pixels)) {
		enum AVPixelFormat instead = kx_pixels_instead(kind->format);
		status = make_plain(plan, instead);
		if (!status && !kx_pixels_describe(instead, &plan->pixels))
			status = KX_EUNSUPPORTED;
	}
	if (!status)
		status = make_axes(plan);
	if (!status)
		status = make_buffers(plan);
	if (!status && kx_tone_needed(kind->transfer))
		status = kx_tone_new(kind->transfer, kind->primaries, &plan->tone);
	if (!status)
		kx_colour_matrix(kind->colour, &plan->pixels, &plan->matrix);
	return status;
}

kx_status kx_scale_plan_new(const struct kx_scale_kind *kind, unsigned width, unsigned height,
			    struct kx_scale_plan **ret_plan)
{
	struct kx_scale_plan *plan = calloc(1, sizeof(*plan));
	if (!plan)
		return KX_ENOMEM;
	plan->kind = *kind;
	plan->width = width;
	plan->height = height;
	kx_status status = fill(plan);
	if (status) {
		kx_scale_plan_free(plan);
		return status;
	}
	*ret_plan = plan;
	return KX_OK;
}

void kx_scale_plan_free(struct kx_scale_plan *plan)
{
	if (!plan)
		return;
	for (unsigned i = 0; i < 2; i++) {
		kx_axis_done(&plan->columns[i]);
		kx_axis_done(&plan->rows[i]);
	}
	for (unsigned i = 0; i < 3; i++) {
		free(plan->plane_row[i]);
		free(plan->part_row[i]);
	}
	free(plan->apart);
	free(plan->lines);
	kx_tone_free(plan->tone);
	sws_freeContext(plan->sws);
	av_frame_free(&plan->plain);
	free(plan);
}
