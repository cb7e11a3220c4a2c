#include "worker/media/scale.h"

#include <stdlib.h>
#include <string.h>

#include <libavutil/pixdesc.h>

#include "worker/media/scale_plan.h"

/* Rows are scaled in pieces of so many samples, between which more is asked for from memory. */
#define PIECE 256u
#define CACHE_LINE 64u

struct kx_orientation kx_orientation_from_matrix(const int32_t *matrix)
{
	struct kx_orientation orientation = {0};
	if (!matrix)
		return orientation;
	/* x' = m0 x + m3 y, y' = m1 x + m4 y: right angles have one pair at zero. */
	int64_t m0 = matrix[0];
	int64_t m1 = matrix[1];
	int64_t m3 = matrix[3];
	int64_t m4 = matrix[4];
	int64_t straight = llabs(m0) + llabs(m4);
	int64_t crossed = llabs(m1) + llabs(m3);
	if (crossed > straight) {
		orientation.transpose = true;
		orientation.flip_x = m3 < 0;
		orientation.flip_y = m1 < 0;
	} else {
		orientation.flip_x = m0 < 0;
		orientation.flip_y = m4 < 0;
	}
	return orientation;
}

static bool turned(const struct kx_scaler *scaler)
{
	struct kx_orientation orientation = scaler->orientation;
	return orientation.transpose || orientation.flip_x || orientation.flip_y;
}

kx_status kx_scaler_init(struct kx_scaler *scaler, unsigned width, unsigned height, struct kx_orientation orientation)
{
	*scaler = (struct kx_scaler){
		.width = width, .height = height, .orientation = orientation, .kernels = kx_scale_best()};
	if (!turned(scaler))
		return KX_OK;
	scaler->scaled = malloc((size_t)width * height * 3);
	return scaler->scaled ? KX_OK : KX_ENOMEM;
}

void kx_scaler_done(struct kx_scaler *scaler)
{
	kx_scale_plan_free(KX_STEAL(scaler->plan));
	free(KX_STEAL(scaler->scaled));
}

/* Makes the plan anew when the frame is of another kind than the one before. */
static kx_status prepare(struct kx_scaler *scaler, const AVFrame *frame)
{
	struct kx_scale_kind kind = kx_scale_kind_of(frame);
	if (scaler->plan && kx_scale_same_kind(&kind, &scaler->plan->kind))
		return KX_OK;
	bool transpose = scaler->orientation.transpose;
	kx_scale_plan_free(KX_STEAL(scaler->plan));
	return kx_scale_plan_new(&kind, transpose ? scaler->height : scaler->width,
				 transpose ? scaler->width : scaler->height, &scaler->plan);
}

/* Lines of a plane as the kind of frame has them: all, or one field's. */
struct lines {
	const uint8_t *first;
	ptrdiff_t stride;
	uint32_t last;
};

static struct lines lines_of(const struct kx_scale_plan *plan, const AVFrame *frame, unsigned plane)
{
	struct lines lines = {
		.first = frame->data[plane],
		.stride = frame->linesize[plane],
		.last = plan->samples[plan->plane_chroma[plane]] - 1,
	};
	if (plan->kind.field >= 0) {
		lines.first += lines.stride * plan->kind.field;
		lines.stride *= 2;
	}
	return lines;
}

static const uint8_t *line_at(const struct lines *lines, uint32_t line)
{
	return lines->first + lines->stride * (ptrdiff_t)(line < lines->last ? line : lines->last);
}

/* Asks for bytes [at, at + len) of the lines that row y + 1 of the output takes and row y does not. They lie far
 * from what is being read, so that the processor alone would not see them coming. */
static void fetch_next(const struct lines *lines, const struct kx_axis *axis, unsigned y, size_t at, size_t len)
{
	if (y + 1 >= axis->count)
		return;
	for (uint32_t line = axis->first[y] + axis->taps; line < axis->first[y + 1] + axis->taps; line++) {
		const uint8_t *from = line_at(lines, line) + at;
		for (size_t x = 0; x < len; x += CACHE_LINE)
			__builtin_prefetch(from + x);
	}
}

/* Row `y` of the output, of one plane at its own width. */
static void scale_rows(const struct kx_scaler *scaler, const AVFrame *frame, unsigned plane, unsigned y)
{
	const struct kx_scale_plan *plan = scaler->plan;
	const struct kx_axis *axis = &plan->rows[plan->plane_chroma[plane]];
	const struct lines lines = lines_of(plan, frame, plane);
	bool wide = plan->pixels.wide;
	unsigned shift = KX_AXIS_BITS + plan->pixels.part[0].depth + plan->pixels.part[0].raise - KX_SAMPLE_BITS;
	unsigned width = plan->plane_width[plane];
	for (unsigned at = 0, len; at < width; at += len) {
		len = width - at < 2 * PIECE ? width - at : PIECE;
		size_t offset = wide ? (size_t)at * 2 : at;
		fetch_next(&lines, axis, y, offset, wide ? (size_t)len * 2 : len);
		for (unsigned t = 0; t < axis->taps; t++)
			plan->lines[t] = line_at(&lines, axis->first[y] + t) + offset;
		(wide ? scaler->kernels->rows16 : scaler->kernels->rows8)(
			plan->lines, axis->weights + (size_t)y * axis->taps, axis->taps, len, shift,
			plan->plane_row[plane] + at);
	}
}

/* A component's own row, taken out from among others where it has to be. */
static const int16_t *take_part(const struct kx_scale_kernels *kernels, const struct kx_scale_plan *plan,
				const struct kx_component *part)
{
	const int16_t *row = plan->plane_row[part->plane] + part->offset;
	if (part->step == 1)
		return row;
	unsigned count = (plan->plane_width[part->plane] - part->offset - 1) / part->step + 1;
	kernels->apart(row, part->step, count, plan->apart);
	return plan->apart;
}

static void scale_row(const struct kx_scaler *scaler, const AVFrame *frame, unsigned y, uint8_t *rgb)
{
	const struct kx_scale_plan *plan = scaler->plan;
	const struct kx_pixels *pixels = &plan->pixels;
	for (unsigned plane = 0; plane < pixels->planes; plane++)
		scale_rows(scaler, frame, plane, y);
	for (unsigned i = 0; i < pixels->parts; i++) {
		const struct kx_component *part = &pixels->part[i];
		scaler->kernels->columns(take_part(scaler->kernels, plan, part), &plan->columns[part->chroma],
					 plan->part_row[i]);
	}
	/* Gray has no others, and the matrix gives them no weight. */
	bool one = pixels->parts == 1;
	const int16_t *const parts[3] = {
		plan->part_row[0],
		plan->part_row[one ? 0 : 1],
		plan->part_row[one ? 0 : 2],
	};
	if (plan->tone)
		kx_tone_row(plan->tone, parts, plan->width, &plan->matrix, rgb);
	else
		scaler->kernels->matrix(parts, plan->width, &plan->matrix, rgb);
}

static void turn(const struct kx_scaler *scaler, uint8_t *rgb)
{
	struct kx_orientation orientation = scaler->orientation;
	size_t stride = (size_t)scaler->plan->width * 3;
	for (unsigned y = 0; y < scaler->height; y++) {
		unsigned from_y = orientation.flip_y ? scaler->height - 1 - y : y;
		for (unsigned x = 0; x < scaler->width; x++) {
			unsigned from_x = orientation.flip_x ? scaler->width - 1 - x : x;
			unsigned row = orientation.transpose ? from_x : from_y;
			unsigned column = orientation.transpose ? from_y : from_x;
			memcpy(rgb, scaler->scaled + row * stride + (size_t)column * 3, 3);
			rgb += 3;
		}
	}
}

static bool has_planes(const AVFrame *frame, const struct kx_scale_plan *plan)
{
	for (unsigned plane = 0; plane < plan->pixels.planes; plane++) {
		if (!frame->data[plane])
			return false;
	}
	return true;
}

/* The frame in a format that is read as it is. */
static const AVFrame *make_plain(const struct kx_scale_plan *plan, const AVFrame *frame)
{
	if (!plan->sws)
		return frame;
	int rows = sws_scale(plan->sws, (const uint8_t *const *)frame->data, frame->linesize, 0, frame->height,
			     plan->plain->data, plan->plain->linesize);
	return rows == frame->height ? plan->plain : NULL;
}

kx_status kx_scaler_run(struct kx_scaler *scaler, const AVFrame *frame, uint8_t *rgb, struct kx_error *error)
{
	const char *name = av_get_pix_fmt_name(frame->format);
	kx_status status = prepare(scaler, frame);
	if (status == KX_ENOMEM)
		return kx_error_nomem(error);
	if (status)
		return kx_error_set(error, status, KX_ERROR_POISON, "can't scale %dx%d %s to %ux%u", frame->width,
				    frame->height, name ? name : "without a format", scaler->width, scaler->height);
	const struct kx_scale_plan *plan = scaler->plan;
	const AVFrame *plain = make_plain(plan, frame);
	if (!plain || !has_planes(plain, plan))
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON, "scaling %dx%d %s failed", frame->width,
				    frame->height, name);
	uint8_t *out = turned(scaler) ? scaler->scaled : rgb;
	for (unsigned y = 0; y < plan->height; y++)
		scale_row(scaler, plain, y, out + (size_t)y * plan->width * 3);
	if (turned(scaler))
		turn(scaler, rgb);
	return KX_OK;
}
