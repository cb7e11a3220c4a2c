/* The bits of AV1's headers that say who needs a frame ("AV1 Bitstream & Decoding Process Specification", 5.5 and
 * 5.9). Layer: worker/media, pure.
 *
 * In AV1 all that a frame leaves to others stands in the slots that it refreshes: one that refreshes none can be left
 * out. */
#ifndef KX_MEDIA_AV1_H
#define KX_MEDIA_AV1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kx_av1_sequence {
	bool known; /* frame headers can be read as far as is needed; the rest holds only then */
	unsigned screen_content, integer_mv; /* 0, 1, or 2: each frame says */
	unsigned frame_id_bits, order_hint_bits;
};

/* What a temporal unit holds. */
struct kx_av1_unit {
	unsigned frames; /* that are coded, or shown again */
	unsigned shown;
	unsigned needed; /* of frames: later ones may refer to them */
	bool key;        /* the first is a key frame that is shown: everything before it is forgotten */
	bool bad;        /* not understood */
};

/* From the container's configuration record (av1C). */
void kx_av1_sequence_init(struct kx_av1_sequence *sequence, const uint8_t *extradata, size_t len);
struct kx_av1_unit kx_av1_unit_read(const struct kx_av1_sequence *sequence, const uint8_t *bytes, size_t len);

#endif
