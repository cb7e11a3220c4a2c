#include "worker/media/av1.h"

#include <string.h>

#include "worker/media/bits.h"

#define CONFIG_BYTES 4u /* of av1C before its OBUs */

enum obu { OBU_SEQUENCE = 1, OBU_FRAME_HEADER = 3, OBU_TILES = 4, OBU_FRAME = 6, OBU_HEADER_AGAIN = 7 };
enum frame_type { FRAME_KEY, FRAME_INTER, FRAME_INTRA_ONLY, FRAME_SWITCH };

/* Timing: streams with a decoder model are left to full decoding. False: it has one. */
static bool skip_timing(struct kx_bits *bits)
{
	if (!kx_bits_take(bits, 1))
		return true;
	kx_bits_take(bits, 32);
	kx_bits_take(bits, 32);
	if (kx_bits_take(bits, 1)) { /* equal_picture_interval: uvlc */
		unsigned zeros = 0;
		while (zeros < 32 && !bits->over && !kx_bits_take(bits, 1))
			zeros++;
		kx_bits_take(bits, zeros < 32 ? zeros : 0);
	}
	return !kx_bits_take(bits, 1);
}

/* False: more than one operating point, that is layers. */
static bool skip_operating_point(struct kx_bits *bits)
{
	bool delay = kx_bits_take(bits, 1);
	if (kx_bits_take(bits, 5))
		return false;
	kx_bits_take(bits, 12);
	if (kx_bits_take(bits, 5) > 7)
		kx_bits_take(bits, 1);
	if (delay && kx_bits_take(bits, 1))
		kx_bits_take(bits, 4);
	return true;
}

static void read_size(struct kx_bits *bits, struct kx_av1_sequence *sequence)
{
	unsigned width_bits = kx_bits_take(bits, 4) + 1;
	unsigned height_bits = kx_bits_take(bits, 4) + 1;
	kx_bits_take(bits, width_bits);
	kx_bits_take(bits, height_bits);
	if (kx_bits_take(bits, 1)) {
		sequence->frame_id_delta_bits = kx_bits_take(bits, 4) + 2;
		sequence->frame_id_bits = sequence->frame_id_delta_bits + kx_bits_take(bits, 3) + 1;
	}
}

static void read_tools(struct kx_bits *bits, struct kx_av1_sequence *sequence)
{
	kx_bits_take(bits, 3); /* superblock, filter intra, intra edge */
	kx_bits_take(bits, 4); /* interintra, masked, warped, dual filter */
	bool order_hint = kx_bits_take(bits, 1);
	if (order_hint)
		kx_bits_take(bits, 2);
	sequence->screen_content = kx_bits_take(bits, 1) ? 2 : kx_bits_take(bits, 1);
	sequence->integer_mv = 2;
	if (sequence->screen_content > 0 && !kx_bits_take(bits, 1))
		sequence->integer_mv = kx_bits_take(bits, 1);
	if (order_hint)
		sequence->order_hint_bits = kx_bits_take(bits, 3) + 1;
}

static void read_sequence(struct kx_av1_sequence *sequence, const uint8_t *bytes, size_t len)
{
	struct kx_bits bits = {.bytes = bytes, .len = len};
	*sequence = (struct kx_av1_sequence){0};
	kx_bits_take(&bits, 3);
	/* Neither still pictures nor their reduced header. */
	if (kx_bits_take(&bits, 2) || !skip_timing(&bits) || !skip_operating_point(&bits))
		return;
	read_size(&bits, sequence);
	read_tools(&bits, sequence);
	sequence->known = !bits.over;
}

/* The seven slots that an inter frame names. */
static void read_refs(const struct kx_av1_sequence *sequence, struct kx_bits *bits, struct kx_av1_frame *frame)
{
	bool derived = sequence->order_hint_bits && kx_bits_take(bits, 1); /* by rules over all slots: frame_refs_short_signaling */
	frame->odd |= derived;
	if (derived)
		return;
	for (unsigned i = 0; i < KX_AV1_REFS; i++) {
		frame->refs[frame->ref_count++] = (uint8_t)kx_bits_take(bits, 3);
		if (sequence->frame_id_bits)
			kx_bits_take(bits, sequence->frame_id_delta_bits);
	}
}

/* From error_resilient_mode on. */
static void read_coded(const struct kx_av1_sequence *sequence, struct kx_bits *bits, enum frame_type type,
		       struct kx_av1_frame *frame)
{
	bool intra = type == FRAME_KEY || type == FRAME_INTRA_ONLY;
	bool resilient = kx_bits_take(bits, 1);
	kx_bits_take(bits, 1); /* disable_cdf_update */
	unsigned screen_content = sequence->screen_content == 2 ? kx_bits_take(bits, 1) : sequence->screen_content;
	if (screen_content && sequence->integer_mv == 2)
		kx_bits_take(bits, 1);
	kx_bits_take(bits, sequence->frame_id_bits);
	kx_bits_take(bits, 1); /* frame_size_override_flag */
	kx_bits_take(bits, sequence->order_hint_bits);
	if (!intra && !resilient)
		kx_bits_take(bits, 3); /* primary_ref_frame: one of those below */
	frame->fills = (uint8_t)kx_bits_take(bits, 8);
	/* It tells the order of what is in all slots, which a decoder may compare with what it has. */
	frame->odd = resilient && sequence->order_hint_bits && (!intra || frame->fills != UINT8_MAX);
	if (!intra && !frame->odd)
		read_refs(sequence, bits, frame);
}

static struct kx_av1_frame read_frame(const struct kx_av1_sequence *sequence, struct kx_bits *bits)
{
	if (kx_bits_take(bits, 1))
		return (struct kx_av1_frame){
			.shown = true, .again = true, .ref_count = 1, .refs = {(uint8_t)kx_bits_take(bits, 3)}};
	enum frame_type type = (enum frame_type)kx_bits_take(bits, 2);
	struct kx_av1_frame frame = {.key = type == FRAME_KEY, .shown = kx_bits_take(bits, 1)};
	if (!frame.shown)
		kx_bits_take(bits, 1);
	if (type == FRAME_SWITCH || (frame.key && frame.shown)) {
		frame.fills = UINT8_MAX;
		frame.odd = type == FRAME_SWITCH;
	} else {
		read_coded(sequence, bits, type, &frame);
	}
	return frame;
}

static void add_frame(const struct kx_av1_sequence *sequence, const uint8_t *bytes, size_t len, struct kx_av1_unit *unit)
{
	struct kx_bits bits = {.bytes = bytes, .len = len};
	struct kx_av1_frame frame = read_frame(sequence, &bits);
	if (unit->frames == 0 && frame.key && frame.shown)
		unit->key = true;
	if (unit->frames < KX_AV1_FRAMES_MAX)
		unit->frame[unit->frames] = frame;
	unit->frames++;
	unit->shown += frame.shown;
	unit->needed += frame.again || frame.fills != 0;
	unit->bad |= bits.over;
}

/* Calls for each OBU; false where the bytes are not a row of them. */
static bool next_obu(const uint8_t *bytes, size_t len, size_t *at, unsigned *ret_type, const uint8_t **ret_payload,
		     size_t *ret_len)
{
	uint8_t header = bytes[(*at)++];
	bool extended = header & 4u;
	bool sized = header & 2u;
	uint64_t size = 0;
	*ret_type = (header >> 3) & 15u;
	if (header & 0x80u || extended) /* layers are left to full decoding */
		return false;
	if (!sized)
		size = len - *at;
	for (unsigned i = 0; sized; i++) {
		if (*at == len || i == 8)
			return false;
		uint8_t byte = bytes[(*at)++];
		size |= (uint64_t)(byte & 127u) << (7 * i);
		if (!(byte & 128u))
			break;
	}
	if (size > len - *at)
		return false;
	*ret_payload = bytes + *at;
	*ret_len = (size_t)size;
	*at += (size_t)size;
	return true;
}

/* Encoders write headers into the container that are not quite those of the stream: what is read has to be the same. */
static bool same_sequence(const struct kx_av1_sequence *known, const uint8_t *bytes, size_t len)
{
	struct kx_av1_sequence other;
	read_sequence(&other, bytes, len);
	return other.known && other.screen_content == known->screen_content && other.integer_mv == known->integer_mv &&
	       other.frame_id_bits == known->frame_id_bits && other.frame_id_delta_bits == known->frame_id_delta_bits &&
	       other.order_hint_bits == known->order_hint_bits;
}

void kx_av1_sequence_init(struct kx_av1_sequence *sequence, const uint8_t *extradata, size_t len)
{
	*sequence = (struct kx_av1_sequence){0};
	/* Bare OBUs, where a demuxer took them from the stream, begin otherwise than a record (marker and version). */
	size_t at = len > CONFIG_BYTES && extradata[0] == 0x81 ? CONFIG_BYTES : 0;
	while (at < len) {
		const uint8_t *payload;
		size_t size;
		unsigned type;
		if (!next_obu(extradata, len, &at, &type, &payload, &size))
			return;
		if (type == OBU_SEQUENCE)
			read_sequence(sequence, payload, size);
	}
}

struct kx_av1_unit kx_av1_unit_read(const struct kx_av1_sequence *sequence, const uint8_t *bytes, size_t len)
{
	struct kx_av1_unit unit = {.bad = !sequence->known};
	for (size_t at = 0; at < len && !unit.bad;) {
		const uint8_t *payload;
		size_t size;
		unsigned type;
		if (!next_obu(bytes, len, &at, &type, &payload, &size)) {
			unit.bad = true;
			break;
		}
		if (type == OBU_SEQUENCE && !same_sequence(sequence, payload, size))
			unit.bad = true;
		if (type == OBU_FRAME || type == OBU_FRAME_HEADER)
			add_frame(sequence, payload, size, &unit);
	}
	return unit;
}

size_t kx_av1_unit_strip(const uint8_t *bytes, size_t len, const bool *keep, size_t frames, uint8_t *ret)
{
	size_t taken = 0;
	size_t frame = 0;
	bool wanted = true;
	for (size_t at = 0; at < len;) {
		const uint8_t *payload;
		size_t size;
		unsigned type;
		size_t from = at;
		if (!next_obu(bytes, len, &at, &type, &payload, &size))
			break;
		if (type == OBU_FRAME || type == OBU_FRAME_HEADER)
			wanted = frame >= frames || keep[frame];
		if (type == OBU_FRAME || type == OBU_FRAME_HEADER)
			frame++;
		bool of_frame = type == OBU_FRAME || type == OBU_FRAME_HEADER || type == OBU_TILES || type == OBU_HEADER_AGAIN;
		if (of_frame && !wanted)
			continue;
		memcpy(ret + taken, bytes + from, at - from);
		taken += at - from;
	}
	return taken;
}
