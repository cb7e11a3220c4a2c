/* Extradata and a packet of any bytes through the parser of picture headers. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "worker/media/picture.h"

#define EXTRADATA_MAX 64u

/* A copy of exactly the right size: what is read past a packet's end must not pass for the rest of the input. */
static uint8_t *exact(const uint8_t *bytes, size_t len)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);

	FUZZ_CHECK(copy);
	if (len > 0)
		memcpy(copy, bytes, len);
	return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct fuzz_input in = {bytes, len};
	uint8_t choice = fuzz_u8(&in);
	enum kx_picture_codec codec = (enum kx_picture_codec)(choice % (KX_PICTURE_INTRA + 1));
	struct kx_picture_parser parser;
	struct kx_picture picture;
	size_t extradata_len;
	const uint8_t *extradata = fuzz_bytes(&in, EXTRADATA_MAX, &extradata_len);
	uint8_t *own_extradata = exact(extradata, extradata_len);
	uint8_t *packet = exact(in.bytes, in.len);

	kx_picture_parser_init(&parser, codec, extradata_len > 0 ? own_extradata : NULL, extradata_len);
	FUZZ_CHECK(parser.length_size <= 4);
	picture = kx_picture_parse(&parser, packet, in.len, choice & 0x80);
	FUZZ_CHECK(codec != KX_PICTURE_NONE || !picture.known);
	if (picture.known) {
		FUZZ_CHECK(!picture.independent || picture.starts);
		/* Where decoding starts is where what follows gets its references from, unless each stands alone. */
		FUZZ_CHECK(!picture.starts || !picture.droppable || codec == KX_PICTURE_INTRA);
		FUZZ_CHECK(!picture.params || !picture.droppable);
	}
	free(own_extradata);
	free(packet);
	return 0;
}
