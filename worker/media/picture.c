#include "worker/media/picture.h"

#include <string.h>

/* What the walk over a packet's units has seen so far. */
struct seen {
	unsigned pictures; /* slices, or picture headers */
	unsigned needed;   /* of these: referenced by others */
	bool idr;
	bool irap;
	bool params;
	bool bad;
	uint8_t layer;
};

typedef void unit_fn(struct seen *seen, const uint8_t *unit, size_t len);

static void h264_unit(struct seen *seen, const uint8_t *unit, size_t len)
{
	(void)len;
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

void kx_picture_parser_init(struct kx_picture_parser *parser, enum kx_picture_codec codec, const uint8_t *extradata,
			    size_t len)
{
	*parser = (struct kx_picture_parser){.codec = codec};
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
		.layer = seen.layer,
	};
}
