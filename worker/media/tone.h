/* HDR to what an SDR screen shows: PQ and HLG (ITU-R BT.2100) to BT.709. Layer: worker/media.
 *
 * Signal to light by SMPTE ST 2084, or by BT.2100's HLG with a display of 1000 cd/m2 (system gamma 1.2). Light up to
 * 1000 cd/m2 is brought down to 203 cd/m2, which BT.2408 calls white, by the EETF of ITU-R BT.2390 (5.4.1, black
 * left at 0) on the largest of R, G and B, so that hues stay. Then BT.2020 (or P3) primaries to BT.709's, what lies
 * outside clipped, and light to signal by the inverse of BT.1886 (gamma 2.4).
 *
 * What a stream says of its own mastering is not looked at: libav hands it out with some frames and not with others,
 * depending on where decoding began, and the same frame must always give the same bytes.
 *
 * The same bytes on any machine: single operations of IEEE 754 only, and powers of its own.
 */
#ifndef KX_MEDIA_TONE_H
#define KX_MEDIA_TONE_H

#include <stdbool.h>

#include <libavutil/frame.h>

#include "worker/media/scale_kernels.h"

struct kx_tone;

/* Whether frames of this transfer function need it. */
bool kx_tone_needed(enum AVColorTransferCharacteristic transfer);

/* Tables for PQ or HLG, about 100 KiB, made in a few ms. KX_ENOMEM. */
kx_status kx_tone_new(enum AVColorTransferCharacteristic transfer, enum AVColorPrimaries primaries,
		      struct kx_tone **ret_tone) KX_MUST_CHECK;
void kx_tone_free(struct kx_tone *tone);

/* In place of kx_scale_kernels.matrix, with the same arguments. */
void kx_tone_row(const struct kx_tone *tone, const int16_t *const in[3], unsigned width,
		 const struct kx_matrix *matrix, uint8_t *rgb);

#endif
