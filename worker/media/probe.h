/* What an opened input holds, in the words of the contract. Layer: worker/media. */
#ifndef KX_MEDIA_PROBE_H
#define KX_MEDIA_PROBE_H

#include "worker/media/packets.h"
#include "worker/media/scale.h"

/* Strings are the caller's to free (kx_probe_info_done). May seek: the packets are not to be read afterwards unless
 * look_for_index is false, which leaves splittable false. */
kx_status kx_probe_describe(struct kx_packets *packets, bool look_for_index, struct kx_probe_info *ret_info,
			    struct kx_error *error) KX_MUST_CHECK;

/* Whether a seek gives the same frames as decoding from the start. *ret_moved: looking for the index moved the read
 * position, so that a seek has to follow. */
bool kx_probe_splittable(struct kx_packets *packets, bool *ret_moved);

struct kx_orientation kx_probe_orientation(const AVStream *video);

/* How long the stream says it is, counted from time 0; 0: it does not say. */
int64_t kx_probe_duration_us(const struct kx_packets *packets, const AVStream *stream);

#endif
