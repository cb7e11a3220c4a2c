/* Video packets to picked frames, a group of pictures at a time. Layer: worker/media.
 *
 * Holds two groups of packets: the one to decode and the one after it, which says until when the last frame of the
 * first stands, and whether pictures of the second need the first. Where select.h can plan, only what is needed is
 * decoded; where it can't (no presentation times, a codec whose references are not read, a group over the cap), all
 * of it is. The frames that come out are the same, byte for byte, for streams without damage.
 */
#ifndef KX_MEDIA_GOP_H
#define KX_MEDIA_GOP_H

#include "worker/media/picker.h"
#include "worker/media/video.h"

struct kx_gop;

/* selective: false decodes everything, which is what the tests compare with. All pointers are borrowed. */
kx_status kx_gop_new(struct kx_video *video, struct kx_picker *picker, bool selective, struct kx_gop **ret_gop,
		     struct kx_error *error) KX_MUST_CHECK;
void kx_gop_free(struct kx_gop *gop);

/* Takes the packet's reference. KX_ENOMEM, or what the picker's emit returned. */
kx_status kx_gop_push(struct kx_gop *gop, AVPacket *packet, struct kx_error *error) KX_MUST_CHECK;
/* The end of the file, or of what is wanted. */
kx_status kx_gop_finish(struct kx_gop *gop, struct kx_error *error) KX_MUST_CHECK;

/* Where the packets that were pushed last begin a group, and neither that nor the one before it is wanted: when the
 * next wanted frame is shown, and in *ret_at where the index has the group. KX_NO_TIME: otherwise. */
int64_t kx_gop_idle_until_us(const struct kx_gop *gop, int64_t *ret_at);
/* The packets to come begin another group than the one being collected: what is held is not needed. */
void kx_gop_restart(struct kx_gop *gop);

/* All that was pushed covers the video up to here: the end of the last frame presented, KX_NO_TIME for none. */
int64_t kx_gop_end_us(const struct kx_gop *gop);
/* Nothing that is still to come can be wanted. */
bool kx_gop_satisfied(const struct kx_gop *gop);

#endif
