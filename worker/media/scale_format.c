#include "worker/media/scale_format.h"

#include <math.h>
#include <string.h>

#include <libavutil/pixdesc.h>

#define HD_LINES 720

/* Not what their descriptors say of them: XYZ is no YUV, and luma that does not lie at even steps. */
static bool is_odd_one(enum AVPixelFormat format)
{
	return format == AV_PIX_FMT_XYZ12LE || format == AV_PIX_FMT_XYZ12BE || format == AV_PIX_FMT_UYYVYY411;
}

/* A sample has to be a whole one of 8 or 16 bits, with nothing else in it. */
static bool describe_part(const AVComponentDescriptor *comp, bool wide, struct kx_component *ret)
{
	int bytes = wide ? 2 : 1;
	if (comp->depth < 8 || comp->depth > bytes * 8 || comp->step % bytes || comp->offset % bytes)
		return false;
	if (comp->shift && comp->shift + comp->depth != bytes * 8)
		return false;
	*ret = (struct kx_component){
		.plane = (unsigned)comp->plane,
		.step = (unsigned)(comp->step / bytes),
		.offset = (unsigned)(comp->offset / bytes),
		.depth = (unsigned)comp->depth,
		.raise = (unsigned)comp->shift,
	};
	return true;
}

bool kx_pixels_describe(enum AVPixelFormat format, struct kx_pixels *ret_pixels)
{
	const AVPixFmtDescriptor *desc = av_pix_fmt_desc_get(format);
	const uint64_t others = AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_BITSTREAM | AV_PIX_FMT_FLAG_HWACCEL |
				AV_PIX_FMT_FLAG_BAYER | AV_PIX_FMT_FLAG_FLOAT;
	if (!desc || (desc->flags & others) || is_odd_one(format))
		return false;
	struct kx_pixels pixels = {
		.parts = desc->nb_components < 3 ? 1 : 3,
		.chroma_x = desc->log2_chroma_w,
		.chroma_y = desc->log2_chroma_h,
		.wide = desc->comp[0].depth > 8,
		.rgb = desc->flags & AV_PIX_FMT_FLAG_RGB,
	};
	if (pixels.wide && !(desc->flags & AV_PIX_FMT_FLAG_BE) != !AV_HAVE_BIGENDIAN)
		return false;
	for (unsigned i = 0; i < pixels.parts; i++) {
		if (!describe_part(&desc->comp[i], pixels.wide, &pixels.part[i]) ||
		    pixels.part[i].depth != pixels.part[0].depth || pixels.part[i].raise != pixels.part[0].raise)
			return false;
		pixels.part[i].chroma = i > 0 && !pixels.rgb;
		if (pixels.planes <= pixels.part[i].plane)
			pixels.planes = pixels.part[i].plane + 1;
	}
	*ret_pixels = pixels;
	return true;
}

enum AVPixelFormat kx_pixels_instead(enum AVPixelFormat format)
{
	const AVPixFmtDescriptor *desc = av_pix_fmt_desc_get(format);
	if (!desc || (desc->flags & AV_PIX_FMT_FLAG_HWACCEL))
		return AV_PIX_FMT_NONE;
	bool deep = desc->comp[0].depth > 8;
	if (desc->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_BAYER) ||
	    format == AV_PIX_FMT_XYZ12LE || format == AV_PIX_FMT_XYZ12BE)
		return deep ? AV_PIX_FMT_RGB48 : AV_PIX_FMT_RGB24;
	if (desc->nb_components < 3)
		return deep ? AV_PIX_FMT_GRAY16 : AV_PIX_FMT_GRAY8;
	return deep ? AV_PIX_FMT_YUV444P16 : AV_PIX_FMT_YUV444P;
}

static bool is_full_format(enum AVPixelFormat format)
{
	switch (format) {
	case AV_PIX_FMT_YUVJ420P:
	case AV_PIX_FMT_YUVJ422P:
	case AV_PIX_FMT_YUVJ444P:
	case AV_PIX_FMT_YUVJ440P:
	case AV_PIX_FMT_YUVJ411P:
		return true;
	default:
		return false;
	}
}

struct kx_colour kx_colour_of(const AVFrame *frame)
{
	const AVPixFmtDescriptor *desc = av_pix_fmt_desc_get(frame->format);
	struct kx_colour colour = {
		.matrix = frame->colorspace,
		.full_range = frame->color_range == AVCOL_RANGE_JPEG || is_full_format(frame->format),
	};
	/* Gray is mostly from still pictures, where nobody says what everybody does. libswscale thinks so, too. */
	if (desc && desc->nb_components < 3 && frame->color_range == AVCOL_RANGE_UNSPECIFIED)
		colour.full_range = true;
	switch (frame->colorspace) {
	case AVCOL_SPC_BT709:
	case AVCOL_SPC_FCC:
	case AVCOL_SPC_BT470BG:
	case AVCOL_SPC_SMPTE170M:
	case AVCOL_SPC_SMPTE240M:
	case AVCOL_SPC_BT2020_NCL:
	case AVCOL_SPC_YCGCO:
		break;
	case AVCOL_SPC_BT2020_CL: /* read as if its luminance were not constant, as libswscale does */
		colour.matrix = AVCOL_SPC_BT2020_NCL;
		break;
	default:
		colour.matrix = frame->height >= HD_LINES ? AVCOL_SPC_BT709 : AVCOL_SPC_SMPTE170M;
		/* BT.2100 knows PQ and HLG with this matrix only (but for ICtCp, which is not read). */
		if (frame->color_trc == AVCOL_TRC_SMPTE2084 || frame->color_trc == AVCOL_TRC_ARIB_STD_B67)
			colour.matrix = AVCOL_SPC_BT2020_NCL;
	}
	return colour;
}

/* ITU-T H.273, table 4: what red and blue weigh in luma. */
static void luma_weights(enum AVColorSpace matrix, double *ret_red, double *ret_blue)
{
	switch (matrix) {
	case AVCOL_SPC_BT709:
		*ret_red = 0.2126;
		*ret_blue = 0.0722;
		break;
	case AVCOL_SPC_FCC:
		*ret_red = 0.30;
		*ret_blue = 0.11;
		break;
	case AVCOL_SPC_SMPTE240M:
		*ret_red = 0.212;
		*ret_blue = 0.087;
		break;
	case AVCOL_SPC_BT2020_NCL:
		*ret_red = 0.2627;
		*ret_blue = 0.0593;
		break;
	default:
		*ret_red = 0.299;
		*ret_blue = 0.114;
	}
}

/* R, G, B of 0..1 from Y' of 0..1 and colour differences of -1/2..1/2. */
static void yuv_rows(enum AVColorSpace matrix, double rows[3][3])
{
	static const double ycgco[3][3] = {{1, -1, 1}, {1, 1, 0}, {1, -1, -1}};
	double red;
	double blue;
	luma_weights(matrix, &red, &blue);
	double green = 1 - red - blue;
	const double others[3][3] = {
		{1, 0, 2 * (1 - red)},
		{1, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green},
		{1, 2 * (1 - blue), 0},
	};
	for (unsigned i = 0; i < 9; i++)
		rows[i / 3][i % 3] = matrix == AVCOL_SPC_YCGCO ? ycgco[i / 3][i % 3] : others[i / 3][i % 3];
}

void kx_colour_matrix(struct kx_colour colour, const struct kx_pixels *pixels, struct kx_matrix *ret_matrix)
{
	static const double as_it_is[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
	static const double all_of_one[3][3] = {{1, 0, 0}, {1, 0, 0}, {1, 0, 0}};
	double rows[3][3];
	if (!pixels->rgb && pixels->parts == 3)
		yuv_rows(colour.matrix, rows);
	else
		memcpy(rows, pixels->rgb ? as_it_is : all_of_one, sizeof(rows));
	*ret_matrix = (struct kx_matrix){0};
	for (unsigned part = 0; part < pixels->parts; part++) {
		const struct kx_component *component = &pixels->part[part];
		const int32_t unit = 1 << (KX_SAMPLE_BITS - 8); /* a step of an 8-bit sample */
		int32_t zero = 0;
		double reach = (double)((1 << component->depth) - 1) * (1 << KX_SAMPLE_BITS) / (1 << component->depth);
		if (!colour.full_range && !pixels->rgb) {
			zero = component->chroma ? 0 : 16 * unit;
			reach = (component->chroma ? 224 : 219) * unit;
		}
		if (component->chroma)
			zero = 128 * unit;
		for (unsigned i = 0; i < 3; i++) {
			double c = rows[i][part] * 255 * unit / reach * (1 << KX_MATRIX_BITS);
			ret_matrix->c[i][part] = (int16_t)lrint(c);
			ret_matrix->bias[i] -= ret_matrix->c[i][part] * zero;
		}
	}
	for (unsigned i = 0; i < 3; i++)
		ret_matrix->bias[i] += 1 << (KX_MATRIX_SHIFT - 1);
}
