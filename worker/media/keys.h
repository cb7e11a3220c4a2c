/* Key frames alone to picked frames: each grid point gets the nearest one, and no other packet is decoded, nor read
 * where the container says which they are. Layer: worker/media.
 *
 * A key frame that is the nearest to no grid point is not decoded either. Times are those of the packets; where a
 * container has none of presentation (AVI), those of decoding, which for key frames are off by a frame or two. */
#ifndef KX_MEDIA_KEYS_H
#define KX_MEDIA_KEYS_H

#include "worker/media/picker.h"
#include "worker/media/video.h"

struct kx_keys;

/* All pointers are borrowed. */
kx_status kx_keys_new(struct kx_video *video, struct kx_picker *picker, struct kx_keys **ret_keys,
		      struct kx_error *error) KX_MUST_CHECK;
void kx_keys_free(struct kx_keys *keys);

/* Takes the packet's reference. KX_ENOMEM, or what the picker's emit returned. */
kx_status kx_keys_push(struct kx_keys *keys, AVPacket *packet, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_keys_finish(struct kx_keys *keys, struct kx_error *error) KX_MUST_CHECK;

/* After a push, where nothing but the pictures is read: goes on at the next key frame if the index knows it. */
kx_status kx_keys_skip(struct kx_keys *keys, struct kx_packets *packets, struct kx_error *error) KX_MUST_CHECK;

/* As of kx_gop: how far the packets cover the video, and whether nothing to come can be wanted. */
int64_t kx_keys_end_us(const struct kx_keys *keys);
bool kx_keys_satisfied(const struct kx_keys *keys);

#endif
