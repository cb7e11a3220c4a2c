#include "worker/media/picture.h"

#include <string.h>

/* What the walk over a packet's units has seen so far. */
struct seen {
	unsigned pictures; /* slices, or picture headers */
	unsigned needed;   /* of these: referenced by others */
	bool idr;
	bool irap;
	bool params;
	bool reorders;
	bool bad;
	uint8_t layer;
};

typedef void unit_fn(struct seen *seen, const uint8_t *unit, size_t len);

/* An Exp-Golomb number, and the bit after it; KX_LONG for one over 30 bits. */
#define KX_LONG UINT32_MAX
static uint32_t exp_golomb(const uint8_t *bytes, size_t len, size_t *at)
{
	unsigned zeros = 0;
	uint32_t value = 1;
	while (*at / 8 < len && !(bytes[*at / 8] >> (7 - *at % 8) & 1u) && zeros < 31) {
		zeros++;
		(*at)++;
	}
	if (zeros > 30 || (*at + zeros) / 8 >= len)
		return KX_LONG;
	(*at)++;
	for (; zeros > 0; zeros--, (*at)++)
		value = value << 1 | (bytes[*at / 8] >> (7 - *at % 8) & 1u);
	return value - 1;
}

static bool h264_is_b(const uint8_t *unit, size_t len)
{
	size_t at = 8;
	if (exp_golomb(unit, len, &at) == KX_LONG) /* first_mb_in_slice */
		return false;
	return exp_golomb(unit, len, &at) % 5 == 1;
}

static void h264_unit(struct seen *seen, const uint8_t *unit, size_t len)
{
	unsigned type = unit[0] & 31u;
	if (type == 7 || type == 8)
		seen->params = true;
	if (type < 1 || type > 5)
		return;
	seen->pictures++;
	if (unit[0] & 0x60u)
		seen->needed++;
	if (type == 5)
		seen->idr = true;
	else if (!seen->reorders)
		seen->reorders = h264_is_b(unit, len);
}

static void hevc_unit(struct seen *seen, const uint8_t *unit, size_t len)
{
	if (len < 2) {
		seen->bad = true;
		return;
	}
	unsigned type = (unit[0] >> 1) & 63u;
	if (type >= 32 && type <= 34)
		seen->params = true;
	if (type > 31)
		return;
	seen->pictures++;
	seen->layer = (uint8_t)((unit[1] & 7u) - 1u);
	/* Table 7-1: the even types below 16 are sub-layer non-reference pictures. */
	if (type >= 16 || (type & 1u))
		seen->needed++;
	if (type >= 16 && type <= 21)
		seen->irap = true;
	if (type == 19 || type == 20)
		seen->idr = true;
}

static void mpeg2_unit(struct seen *seen, const uint8_t *unit, size_t len)
{
	if (unit[0] == 0xb3)
		seen->params = true;
	if (unit[0] != 0x00)
		return;
	if (len < 3) {
		seen->bad = true;
		return;
	}
	unsigned type = (unit[2] >> 3) & 7u;
	seen->pictures++;
	if (type != 3)
		seen->needed++;
	else
		seen->reorders = true;
	if (type == 1 && seen->params && seen->pictures == 1)
		seen->irap = true;
}

static void mpeg4_unit(struct seen *seen, const uint8_t *unit, size_t len)
{
	if (unit[0] == 0xb0 || (unit[0] >= 0x20 && unit[0] <= 0x2f))
		seen->params = true;
	if (unit[0] != 0xb6)
		return;
	if (len < 2) {
		seen->bad = true;
		return;
	}
	unsigned type = unit[1] >> 6;
	seen->pictures++;
	if (type != 2)
		seen->needed++;
	else
		seen->reorders = true;
	if (type == 0)
		seen->irap = true;
	/* Two pictures in a packet ("packed bitstream"): the packet's time is not the picture's. */
	if (seen->pictures > 1)
		seen->bad = true;
}

static void walk_lengths(const uint8_t *bytes, size_t len, unsigned length_size, unit_fn *unit, struct seen *seen)
{
	size_t at = 0;
	while (len - at > length_size) {
		size_t size = 0;
		for (unsigned i = 0; i < length_size; i++)
			size = size << 8 | bytes[at + i];
		at += length_size;
		if (size > len - at) {
			seen->bad = true;
			return;
		}
		if (size)
			unit(seen, bytes + at, size);
		at += size;
	}
}

static void walk_start_codes(const uint8_t *bytes, size_t len, unit_fn *unit, struct seen *seen)
{
	size_t at = 0;
	while (at + 3 < len) {
		const uint8_t *one = memchr(bytes + at + 2, 1, len - at - 3);
		if (!one)
			return;
		size_t pos = (size_t)(one - bytes);
		if (bytes[pos - 1] == 0 && bytes[pos - 2] == 0)
			unit(seen, bytes + pos + 1, len - pos - 1);
		at = pos - 1;
	}
}

/* The sizes of a superframe's frames (VP9 specification, annex B); 1 frame where there is no index. 0: damaged. */
static unsigned vp9_frames(const uint8_t *bytes, size_t len, size_t sizes[8])
{
	uint8_t marker = bytes[len - 1];
	sizes[0] = len;
	if ((marker & 0xe0u) != 0xc0u)
		return 1;
	unsigned count = (marker & 7u) + 1u;
	unsigned width = ((marker >> 3) & 3u) + 1u;
	size_t index = 2 + (size_t)width * count;
	if (len < index || bytes[len - index] != marker)
		return 1;
	size_t left = len - index;
	for (unsigned i = 0; i < count; i++) {
		const uint8_t *at = bytes + len - index + 1 + (size_t)i * width;
		size_t size = 0;
		for (unsigned b = 0; b < width; b++)
			size |= (size_t)at[b] << (8 * b);
		if (!size || size > left)
			return 0;
		sizes[i] = size;
		left -= size;
	}
	return count;
}

static struct kx_picture vp9_picture(const uint8_t *bytes, size_t len)
{
	size_t sizes[8];
	unsigned count = len ? vp9_frames(bytes, len, sizes) : 0;
	unsigned shown = 0;
	bool key = false;
	bool bad = count == 0;
	for (unsigned i = 0; i < count && !bad; i++) {
		/* Marker, profile, show_existing_frame, frame_type, show_frame: one byte, two of profile 3. */
		unsigned head = (unsigned)bytes[0] << 8 | (sizes[i] > 1 ? bytes[1] : 0u);
		unsigned at = (bytes[0] & 0x30u) == 0x30u ? 10 : 11;
		bad = (bytes[0] & 0xc0u) != 0x80u;
		bool existing = head >> at & 1u;
		if (existing || (head >> (at - 2) & 1u))
			shown++;
		if (i == 0 && !existing && !(head >> (at - 1) & 1u))
			key = true;
		bytes += sizes[i];
	}
	/* A packet that shows nothing, or two frames, has not the time of a frame. */
	return (struct kx_picture){.known = !bad && shown == 1, .starts = key, .independent = key};
}

static struct kx_picture av1_picture(const struct kx_av1_sequence *sequence, const uint8_t *bytes, size_t len)
{
	struct kx_av1_unit unit = kx_av1_unit_read(sequence, bytes, len);
	return (struct kx_picture){
		.known = !unit.bad && unit.shown == 1,
		.starts = unit.key,
		.independent = unit.key,
		.droppable = !unit.needed,
	};
}

void kx_picture_parser_init(struct kx_picture_parser *parser, enum kx_picture_codec codec, const uint8_t *extradata,
			    size_t len)
{
	*parser = (struct kx_picture_parser){.codec = codec};
	if (codec == KX_PICTURE_AV1 && len > 0)
		kx_av1_sequence_init(&parser->sequence, extradata, len);
	if (codec == KX_PICTURE_HEVC && len > 0)
		kx_hevc_params_init(&parser->hevc, extradata, len);
	if (codec == KX_PICTURE_H264 && len >= 7 && extradata[0] == 1)
		parser->length_size = (extradata[4] & 3u) + 1u;
	if (codec == KX_PICTURE_HEVC && len >= 23 && (extradata[0] || extradata[1] || extradata[2] > 1))
		parser->length_size = (extradata[21] & 3u) + 1u;
}

struct kx_picture kx_picture_parse(const struct kx_picture_parser *parser, const uint8_t *bytes, size_t len, bool key)
{
	static unit_fn *const units[] = {
		[KX_PICTURE_H264] = h264_unit,
		[KX_PICTURE_HEVC] = hevc_unit,
		[KX_PICTURE_MPEG2] = mpeg2_unit,
		[KX_PICTURE_MPEG4] = mpeg4_unit,
	};
	struct seen seen = {0};
	if (parser->codec == KX_PICTURE_NONE)
		return (struct kx_picture){0};
	if (parser->codec == KX_PICTURE_VP9)
		return vp9_picture(bytes, len);
	if (parser->codec == KX_PICTURE_AV1)
		return av1_picture(&parser->sequence, bytes, len);
	if (parser->codec == KX_PICTURE_INTRA)
		return (struct kx_picture){
			.known = true, .starts = true, .independent = true, .droppable = true};
	if (parser->length_size)
		walk_lengths(bytes, len, parser->length_size, units[parser->codec], &seen);
	else
		walk_start_codes(bytes, len, units[parser->codec], &seen);
	bool starts = parser->codec == KX_PICTURE_H264 ? seen.idr : seen.irap && key;
	return (struct kx_picture){
		.known = seen.pictures && !seen.bad,
		.starts = starts,
		.independent = starts && seen.idr,
		/* An IDR picture that says of itself that nobody refers to it is damage: what follows refers to nothing else. */
		.droppable = !seen.needed && !seen.params && !starts,
		.params = seen.params,
		.reorders = seen.reorders,
		.layer = seen.layer,
	};
}
