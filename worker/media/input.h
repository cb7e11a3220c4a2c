/* A container opened over a borrowed descriptor, with nothing reachable but that descriptor: demuxers, codecs and
 * protocols are whitelisted, opening further files is refused. Layer: worker/media. */
#ifndef KX_MEDIA_INPUT_H
#define KX_MEDIA_INPUT_H

#include <libavformat/avformat.h>

#include "common/record/media.h"
#include "worker/media/io.h"

/* Over these a file is refused or read only so far. */
#define KX_PIXELS_MAX (8192 * 8192)
#define KX_STREAMS_MAX 128

struct kx_input {
	AVFormatContext *format;
	AVIOContext *io;
	struct kx_io source;
	int64_t pos;
	const char *name;  /* borrowed, for messages */
	bool looked_inside;
	AVStream *video;   /* NULL: none; borrowed from format */
	AVStream *audio;   /* also NULL beside a video when there is no decoder for it */
};

/* Opens and chooses the streams. On failure *ret_reason says why; nothing is left open. */
kx_status kx_input_open(struct kx_input *input, int fd, const char *name, enum kx_reason *ret_reason,
			struct kx_error *error) KX_MUST_CHECK;
void kx_input_done(struct kx_input *input);

/* Decodes a little, so that the streams' parameters say also what the headers don't; once, however often it is called.
 * What can't be found out shows up later. KX_ENOMEM. */
kx_status kx_input_look_inside(struct kx_input *input, struct kx_error *error) KX_MUST_CHECK;

/* The whitelisted decoder for a stream, NULL when there is none. */
const AVCodec *kx_input_decoder(const AVStream *stream);

/* Streams that are NULL here are neither read nor returned, as far as the container allows. */
void kx_input_discard_others(struct kx_input *input, const AVStream *video, const AVStream *audio);

/* The demuxer's own short name is this one's or one of its aliases. */
bool kx_input_is(const struct kx_input *input, const char *demuxer);

/* libav's word for an error, in a buffer of the caller's. */
#define KX_AV_TEXT(code) av_make_error_string((char[AV_ERROR_MAX_STRING_SIZE]){0}, AV_ERROR_MAX_STRING_SIZE, code)

#endif
