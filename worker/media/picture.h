/* What a coded picture's headers say about who needs it: reads a packet's bytes, knows nothing of libav.
 * Layer: worker/media, pure.
 *
 * Only the codecs whose rules for references are simple enough to rely on: H.264, HEVC, MPEG-1/2, MPEG-4 part 2, AV1;
 * VP9, of which only key frames count, since every frame leaves motion vectors and statistics to the next; and those
 * that code each picture alone. */
#ifndef KX_MEDIA_PICTURE_H
#define KX_MEDIA_PICTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/media/av1.h"
#include "worker/media/hevc.h"

enum kx_picture_codec {
	KX_PICTURE_NONE,
	KX_PICTURE_H264,
	KX_PICTURE_HEVC,
	KX_PICTURE_MPEG2,
	KX_PICTURE_MPEG4,
	KX_PICTURE_VP9,
	KX_PICTURE_AV1,
	KX_PICTURE_INTRA,
};

struct kx_picture_parser {
	enum kx_picture_codec codec;
	struct kx_av1_sequence sequence; /* AV1 */
	struct kx_hevc_params hevc;
	unsigned length_size; /* bytes before each NAL unit; 0: start codes */
};

struct kx_picture {
	bool known;       /* headers were found and make sense; nothing below holds otherwise */
	bool starts;      /* decoding may start here; only pictures shown before it may need what came earlier */
	bool independent; /* starts, and no picture after it in decoding order needs anything before it */
	bool droppable;   /* no other picture of its temporal layer needs it */
	bool reorders;    /* it may refer to pictures that are shown later and so come before it (B) */
	bool params;      /* carries parameter sets */
	uint8_t layer;    /* temporal layer (HEVC), else 0 */
};

/* The decoder configuration record says how NAL units are framed. */
void kx_picture_parser_init(struct kx_picture_parser *parser, enum kx_picture_codec codec, const uint8_t *extradata,
			    size_t len);

/* key: the container's word that this packet is a key frame. */
struct kx_picture kx_picture_parse(const struct kx_picture_parser *parser, const uint8_t *bytes, size_t len, bool key);

#endif
