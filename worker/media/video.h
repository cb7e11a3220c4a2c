/* One single-threaded decoder: packets in, frames with their times out. Layer: worker/media.
 *
 * One thread a decoder, many decoders a machine: frame and slice threads cost more CPU for the same frames. */
#ifndef KX_MEDIA_VIDEO_H
#define KX_MEDIA_VIDEO_H

#include <libavcodec/avcodec.h>

#include "worker/media/packets.h"

struct kx_video {
	AVCodecContext *codec;
	const struct kx_packets *clock; /* borrowed */
	AVRational base;
	int64_t frame_us; /* the nominal distance of frames, 0: unknown */
	int64_t last_us;  /* of the frame before, KX_NO_TIME: none */
	int64_t shift_us; /* taken off times that were guessed, so that the first frame is at 0 */
	uint64_t frames;
	uint64_t errors;
	bool trust_pts;   /* the time in a frame is that of its packet, and right */
	bool dirty;       /* packets went in since the last flush */
	bool starved;     /* an allocation failed, whatever the decoder made of it */
};

kx_status kx_video_open(struct kx_video *video, const struct kx_packets *packets,
			struct kx_error *error) KX_MUST_CHECK;
void kx_video_done(struct kx_video *video);

/* It gave nothing, and refuses the size that its stream says: over KX_PIXELS_MAX, or no size at all. */
bool kx_video_refused_size(const struct kx_video *video);

/* NULL drains. Bad data is counted, not returned. After each send, receive until KX_ENOTFOUND. */
kx_status kx_video_send(struct kx_video *video, const AVPacket *packet, struct kx_error *error) KX_MUST_CHECK;
/* The next frame in order of presentation with its time. KX_ENOTFOUND: none until more is sent. */
kx_status kx_video_receive(struct kx_video *video, AVFrame *frame, int64_t *ret_pts_us,
			   struct kx_error *error) KX_MUST_CHECK;
/* Forgets all references; after draining or before a packet that starts anew. */
void kx_video_flush(struct kx_video *video);

#endif
