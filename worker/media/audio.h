/* Audio packets to 16 kHz mono on the file's clock, and on to log-mel. Layer: worker/media.
 *
 * Sample n of what comes out is at n / 16000 s after time 0: a late start and gaps are filled with silence, what
 * lies before 0 or overlaps is dropped. Constant memory. */
#ifndef KX_MEDIA_AUDIO_H
#define KX_MEDIA_AUDIO_H

#include <libavcodec/avcodec.h>
#include <libswresample/swresample.h>

#include "worker/media/logmel.h"
#include "worker/media/packets.h"

struct kx_audio {
	AVCodecContext *codec;
	const struct kx_packets *clock; /* borrowed */
	struct kx_logmel *logmel;       /* borrowed */
	AVRational base;
	AVFrame *frame;
	SwrContext *swr;
	/* What swr was made for. */
	int rate;
	enum AVSampleFormat format;
	AVChannelLayout layout;
	uint8_t **silence; /* PIECE samples of it, as swr takes them */
	float *out;
	int out_cap;
	/* The input's clock: samples at rate since anchor_us. */
	int64_t anchor_us;
	int64_t count;
	bool started;
	int64_t filled_us; /* silence put in so far */
	bool gap;          /* a jump in time was too long to fill */
	uint64_t samples;  /* that came out, at 16 kHz */
	uint64_t errors;
};

kx_status kx_audio_open(struct kx_audio *audio, const struct kx_packets *packets, struct kx_logmel *logmel,
			struct kx_error *error) KX_MUST_CHECK;
void kx_audio_done(struct kx_audio *audio);

/* NULL: the end. Bad data is counted and passed over. Returns what log-mel's emit returned when it failed. */
kx_status kx_audio_push(struct kx_audio *audio, const AVPacket *packet, struct kx_error *error) KX_MUST_CHECK;

#endif
