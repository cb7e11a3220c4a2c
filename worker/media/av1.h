/* The bits of AV1's headers that say who needs a frame ("AV1 Bitstream & Decoding Process Specification", 5.5 and
 * 5.9). Layer: worker/media, pure.
 *
 * In AV1 all that a frame leaves to others stands in the slots that it refreshes: one that refreshes none can be left
 * out, and so can one whose slots no wanted frame names. */
#ifndef KX_MEDIA_AV1_H
#define KX_MEDIA_AV1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kx_av1_sequence {
	bool known; /* frame headers can be read as far as is needed; the rest holds only then */
	unsigned screen_content, integer_mv; /* 0, 1, or 2: each frame says */
	unsigned frame_id_bits, frame_id_delta_bits, order_hint_bits;
};

#define KX_AV1_SLOTS 8u
#define KX_AV1_REFS 7u
#define KX_AV1_FRAMES_MAX 16u /* of a temporal unit; more are only counted */

struct kx_av1_frame {
	bool shown;
	bool again; /* nothing coded: what is in slot refs[0] is shown */
	bool key;
	bool odd; /* what it refers to does not follow from what is read here */
	uint8_t fills; /* slots, a bit each */
	uint8_t ref_count;
	uint8_t refs[KX_AV1_REFS]; /* slots */
};

/* What a temporal unit holds. */
struct kx_av1_unit {
	unsigned frames; /* that are coded, or shown again */
	unsigned shown;
	unsigned needed; /* of frames: later ones may refer to them */
	bool key;        /* the first is a key frame that is shown: everything before it is forgotten */
	bool bad;        /* not understood */
	struct kx_av1_frame frame[KX_AV1_FRAMES_MAX];
};

/* From the container's configuration record (av1C). */
void kx_av1_sequence_init(struct kx_av1_sequence *sequence, const uint8_t *extradata, size_t len);
struct kx_av1_unit kx_av1_unit_read(const struct kx_av1_sequence *sequence, const uint8_t *bytes, size_t len);

/* Copies a temporal unit that was read so, without the frames that keep[] (one for each of them) does not want. ret has
 * room for len bytes. Returns how many it took. */
size_t kx_av1_unit_strip(const uint8_t *bytes, size_t len, const bool *keep, size_t frames, uint8_t *ret);

#endif
