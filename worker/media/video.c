#include "worker/media/video.h"

#include <errno.h>

#include "worker/media/select.h"

#define ERRORS_A_CALL_MAX 64u

static kx_status video_nomem(const struct kx_video *video, struct kx_error *error)
{
	kx_error_nomem(error);
	return kx_error_prefix(error, KX_ENOMEM, "%s: video decoder", video->clock->input->name);
}

kx_status kx_video_open(struct kx_video *video, const struct kx_packets *packets, struct kx_error *error)
{
	AVStream *stream = packets->input->video;
	const AVCodec *decoder = kx_input_decoder(stream);
	AVRational rate = av_guess_frame_rate(packets->input->format, stream, NULL);
	*video = (struct kx_video){
		.codec = avcodec_alloc_context3(decoder),
		.clock = packets,
		.base = stream->time_base,
		.frame_us = rate.num > 0 && rate.den > 0 ? av_rescale(1000000, rate.den, rate.num) : 0,
		.last_us = KX_NO_TIME,
		.trust_pts = packets->has_pts,
	};
	if (!video->codec)
		return video_nomem(video, error);
	int code = avcodec_parameters_to_context(video->codec, stream->codecpar);
	if (code >= 0) {
		video->codec->pkt_timebase = stream->time_base;
		video->codec->thread_count = 1;
		video->codec->max_pixels = KX_PIXELS_MAX;
		/* Makes the H.264 decoder assume the longest reordering where the stream does not say: otherwise it
		 * finds out as it goes, drops the frames it learns from, and so depends on where decoding began. */
		if (decoder->id == AV_CODEC_ID_H264)
			video->codec->strict_std_compliance = FF_COMPLIANCE_STRICT;
		code = avcodec_open2(video->codec, decoder, NULL);
	}
	if (code >= 0)
		return KX_OK;
	kx_video_done(video);
	return kx_error_set(error, code == AVERROR(ENOMEM) ? KX_ENOMEM : KX_EUNSUPPORTED, KX_ERROR_POISON,
			    "%s: the %s decoder does not open: %s", packets->input->name, decoder->name,
			    KX_AV_TEXT(code));
}

void kx_video_done(struct kx_video *video)
{
	avcodec_free_context(&video->codec);
}

/* Some decoders take a failed allocation for damage and go on without the picture. malloc() has left its word in errno:
 * nothing else in here sets that to ENOMEM. */
static void note_starvation(struct kx_video *video)
{
	if (errno == ENOMEM)
		video->starved = true;
}

bool kx_video_refused_size(const struct kx_video *video)
{
	return video->errors && !video->frames && video->codec->width == 0 && video->codec->height == 0;
}

kx_status kx_video_send(struct kx_video *video, const AVPacket *packet, struct kx_error *error)
{
	errno = 0;
	int code = avcodec_send_packet(video->codec, packet);
	note_starvation(video);
	video->dirty = packet != NULL;
	if (code == AVERROR(ENOMEM))
		return video_nomem(video, error);
	if (code < 0 && code != AVERROR_EOF)
		video->errors++;
	return KX_OK;
}

/* Where the stream gives no presentation times: the decoder's best guess, else one frame on. */
static int64_t frame_time(struct kx_video *video, const AVFrame *frame)
{
	if (frame->pts != AV_NOPTS_VALUE && video->trust_pts)
		return kx_packets_time(video->clock, frame->pts, video->base);
	int64_t guess = kx_packets_time(video->clock, frame->best_effort_timestamp, video->base);
	if (guess != KX_NO_TIME && video->last_us == KX_NO_TIME && !video->clock->has_pts)
		video->shift_us = guess;
	if (guess != KX_NO_TIME)
		guess -= video->shift_us;
	if (guess != KX_NO_TIME && (video->last_us == KX_NO_TIME || guess > video->last_us))
		return guess;
	return video->last_us == KX_NO_TIME ? 0 : video->last_us + (video->frame_us ? video->frame_us : 40000);
}

kx_status kx_video_receive(struct kx_video *video, AVFrame *frame, int64_t *ret_pts_us, struct kx_error *error)
{
	for (unsigned errors = 0; errors < ERRORS_A_CALL_MAX;) {
		errno = 0;
		int code = avcodec_receive_frame(video->codec, frame);
		note_starvation(video);
		if (code == AVERROR(EAGAIN) || code == AVERROR_EOF)
			return KX_ENOTFOUND;
		if (code == AVERROR(ENOMEM))
			return video_nomem(video, error);
		if (code < 0) {
			/* While draining, an error is not the end: the frames after it are still to come. */
			video->errors++;
			errors++;
			continue;
		}
		int64_t pts = frame_time(video, frame);
		if (pts == KX_NO_TIME) {
			av_frame_unref(frame);
			continue;
		}
		video->frames++;
		video->last_us = pts;
		*ret_pts_us = pts;
		return KX_OK;
	}
	return KX_ENOTFOUND;
}

void kx_video_flush(struct kx_video *video)
{
	avcodec_flush_buffers(video->codec);
	video->dirty = false;
}
