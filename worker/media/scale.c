#include "worker/media/scale.h"

#include <stdlib.h>
#include <string.h>

#include <libavutil/pixdesc.h>

#define HD_LINES 720
/* libswscale may write past a row's end. */
#define ROW_PAD 64u

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

kx_status kx_scaler_init(struct kx_scaler *scaler, unsigned width, unsigned height, struct kx_orientation orientation)
{
	*scaler = (struct kx_scaler){.width = width, .height = height, .orientation = orientation, .from_format = -1};
	scaler->stride = ((orientation.transpose ? height : width) * 3 + ROW_PAD - 1) / ROW_PAD * ROW_PAD + ROW_PAD;
	scaler->scaled = malloc((size_t)scaler->stride * (orientation.transpose ? width : height));
	return scaler->scaled ? KX_OK : KX_ENOMEM;
}

void kx_scaler_done(struct kx_scaler *scaler)
{
	sws_freeContext(scaler->sws);
	scaler->sws = NULL;
	free(scaler->scaled);
	scaler->scaled = NULL;
}

/* The J formats are the plain ones with full range; libswscale warns about them and means the same. */
static int plain_format(int format, int *range)
{
	static const int pairs[][2] = {
		{AV_PIX_FMT_YUVJ420P, AV_PIX_FMT_YUV420P}, {AV_PIX_FMT_YUVJ422P, AV_PIX_FMT_YUV422P},
		{AV_PIX_FMT_YUVJ444P, AV_PIX_FMT_YUV444P}, {AV_PIX_FMT_YUVJ440P, AV_PIX_FMT_YUV440P},
		{AV_PIX_FMT_YUVJ411P, AV_PIX_FMT_YUV411P},
	};
	for (size_t i = 0; i < KX_ARRAY_LEN(pairs); i++) {
		if (pairs[i][0] == format) {
			*range = 1;
			return pairs[i][1];
		}
	}
	return format;
}

static int matrix_of(const AVFrame *frame)
{
	switch (frame->colorspace) {
	case AVCOL_SPC_BT709:
		return SWS_CS_ITU709;
	case AVCOL_SPC_FCC:
		return SWS_CS_FCC;
	case AVCOL_SPC_BT470BG:
	case AVCOL_SPC_SMPTE170M:
		return SWS_CS_ITU601;
	case AVCOL_SPC_SMPTE240M:
		return SWS_CS_SMPTE240M;
	case AVCOL_SPC_BT2020_NCL:
	case AVCOL_SPC_BT2020_CL:
		return SWS_CS_BT2020;
	default:
		return frame->height >= HD_LINES ? SWS_CS_ITU709 : SWS_CS_ITU601;
	}
}

/* Makes the converter anew when the frame is of another kind than the one before. */
static bool prepare(struct kx_scaler *scaler, const AVFrame *frame, int format, int range)
{
	int space = matrix_of(frame);
	if (scaler->sws && frame->width == scaler->from_width && frame->height == scaler->from_height &&
	    format == scaler->from_format && space == scaler->from_space && range == scaler->from_range)
		return true;
	int width = (int)(scaler->orientation.transpose ? scaler->height : scaler->width);
	int height = (int)(scaler->orientation.transpose ? scaler->width : scaler->height);
	sws_freeContext(scaler->sws);
	scaler->sws = sws_getContext(frame->width, frame->height, (enum AVPixelFormat)format, width, height,
				     AV_PIX_FMT_RGB24,
				     SWS_AREA | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT,
				     NULL, NULL, NULL);
	if (!scaler->sws)
		return false;
	/* Fails for formats without a matrix (RGB), which need none. */
	(void)sws_setColorspaceDetails(scaler->sws, sws_getCoefficients(space), range,
				       sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
	scaler->from_width = frame->width;
	scaler->from_height = frame->height;
	scaler->from_format = format;
	scaler->from_space = space;
	scaler->from_range = range;
	return true;
}

static void turn(const struct kx_scaler *scaler, uint8_t *rgb)
{
	struct kx_orientation orientation = scaler->orientation;
	for (unsigned y = 0; y < scaler->height; y++) {
		unsigned from_y = orientation.flip_y ? scaler->height - 1 - y : y;
		for (unsigned x = 0; x < scaler->width; x++) {
			unsigned from_x = orientation.flip_x ? scaler->width - 1 - x : x;
			unsigned row = orientation.transpose ? from_x : from_y;
			unsigned column = orientation.transpose ? from_y : from_x;
			memcpy(rgb, scaler->scaled + (size_t)row * scaler->stride + (size_t)column * 3, 3);
			rgb += 3;
		}
	}
}

static void copy(const struct kx_scaler *scaler, uint8_t *rgb)
{
	size_t row = (size_t)scaler->width * 3;
	for (unsigned y = 0; y < scaler->height; y++)
		memcpy(rgb + y * row, scaler->scaled + (size_t)y * scaler->stride, row);
}

kx_status kx_scaler_run(struct kx_scaler *scaler, const AVFrame *frame, uint8_t *rgb, struct kx_error *error)
{
	int range = frame->color_range == AVCOL_RANGE_JPEG;
	int format = plain_format(frame->format, &range);
	if (!prepare(scaler, frame, format, range))
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON, "can't scale %dx%d %s to %ux%u",
				    frame->width, frame->height, av_get_pix_fmt_name(frame->format), scaler->width,
				    scaler->height);
	uint8_t *out[4] = {scaler->scaled};
	int stride[4] = {(int)scaler->stride};
	int rows = sws_scale(scaler->sws, (const uint8_t *const *)frame->data, frame->linesize, 0, frame->height, out,
			     stride);
	if (rows <= 0)
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON, "scaling %dx%d %s failed", frame->width,
				    frame->height, av_get_pix_fmt_name(frame->format));
	if (scaler->orientation.transpose || scaler->orientation.flip_x || scaler->orientation.flip_y)
		turn(scaler, rgb);
	else
		copy(scaler, rgb);
	return KX_OK;
}
