#include "worker/media/audio.h"

#include <stdlib.h>
#include <string.h>

#include <libavutil/opt.h>

#include "worker/media/select.h"

#define PIECE 4096 /* samples that go into the resampler at a time */
#define RATE_MIN 1000
#define RATE_MAX 768000
#define CHANNELS_MAX 64
/* Containers round times to a millisecond or more, and clocks drift: less than this is no gap. */
#define TOLERANCE_US 100000
#define GAP_MAX_US (INT64_C(3600) * 1000000)
#define FILLED_MAX_US (4 * GAP_MAX_US)

static kx_status audio_nomem(const struct kx_audio *audio, struct kx_error *error)
{
	kx_error_nomem(error);
	return kx_error_prefix(error, KX_ENOMEM, "%s: audio decoder", audio->clock->input->name);
}

kx_status kx_audio_open(struct kx_audio *audio, const struct kx_packets *packets, struct kx_logmel *logmel,
			struct kx_error *error)
{
	AVStream *stream = packets->input->audio;
	const AVCodec *decoder = kx_input_decoder(stream);
	*audio = (struct kx_audio){
		.codec = avcodec_alloc_context3(decoder),
		.clock = packets,
		.logmel = logmel,
		.base = stream->time_base,
		.frame = av_frame_alloc(),
	};
	if (!audio->codec || !audio->frame) {
		kx_audio_done(audio);
		return audio_nomem(audio, error);
	}
	int code = avcodec_parameters_to_context(audio->codec, stream->codecpar);
	audio->codec->pkt_timebase = stream->time_base;
	audio->codec->thread_count = 1;
	if (code >= 0)
		code = avcodec_open2(audio->codec, decoder, NULL);
	if (code >= 0)
		return KX_OK;
	kx_audio_done(audio);
	return kx_error_set(error, code == AVERROR(ENOMEM) ? KX_ENOMEM : KX_EUNSUPPORTED, KX_ERROR_POISON,
			    "%s: the %s decoder does not open: %s", packets->input->name, decoder->name,
			    KX_AV_TEXT(code));
}

static void free_converter(struct kx_audio *audio)
{
	swr_free(&audio->swr);
	if (audio->silence)
		av_freep(&audio->silence[0]);
	av_freep(&audio->silence);
	free(audio->out);
	audio->out = NULL;
	av_channel_layout_uninit(&audio->layout);
}

void kx_audio_done(struct kx_audio *audio)
{
	free_converter(audio);
	av_frame_free(&audio->frame);
	avcodec_free_context(&audio->codec);
}

/* Where on the file's clock the input so far ends. */
static int64_t input_end(const struct kx_audio *audio)
{
	return audio->anchor_us + (audio->rate ? av_rescale(audio->count, 1000000, audio->rate) : 0);
}

/* in NULL: what the resampler still holds. */
static kx_status convert(struct kx_audio *audio, const uint8_t **in, int count)
{
	int got;
	do {
		uint8_t *out = (uint8_t *)audio->out;
		got = swr_convert(audio->swr, &out, audio->out_cap, in, count);
		if (got < 0) {
			audio->errors++;
			return KX_OK;
		}
		audio->samples += (uint64_t)got;
		kx_status status = kx_logmel_push(audio->logmel, audio->out, (size_t)got);
		if (status)
			return status;
	} while (!in && got > 0);
	return KX_OK;
}

static kx_status feed(struct kx_audio *audio, uint8_t *const *data, int from, int count)
{
	bool planar = av_sample_fmt_is_planar(audio->format);
	int channels = audio->layout.nb_channels;
	int step = av_get_bytes_per_sample(audio->format) * (planar ? 1 : channels);
	kx_status status = KX_OK;
	for (int at = from; at < from + count && !status; at += PIECE) {
		const uint8_t *piece[CHANNELS_MAX];
		for (int c = 0; c < (planar ? channels : 1); c++)
			piece[c] = data[c] + (ptrdiff_t)at * step;
		status = convert(audio, piece, from + count - at < PIECE ? from + count - at : PIECE);
	}
	audio->count += count;
	return status;
}

static kx_status feed_silence(struct kx_audio *audio, int64_t samples)
{
	kx_status status = KX_OK;
	while (samples > 0 && !status) {
		int piece = samples < PIECE ? (int)samples : PIECE;
		status = feed(audio, audio->silence, 0, piece);
		samples -= piece;
	}
	return status;
}

/* Channels that nobody named are mixed evenly; libswresample knows how to mix the named ones. */
static int configure(struct kx_audio *audio)
{
	AVChannelLayout mono = AV_CHANNEL_LAYOUT_MONO;
	int code = swr_alloc_set_opts2(&audio->swr, &mono, AV_SAMPLE_FMT_FLT, KX_LOGMEL_RATE, &audio->layout,
				       audio->format, audio->rate, 0, NULL);
	if (code < 0)
		return code;
	/* A mean, not a sum: two equal channels sound as loud as one. */
	code = av_opt_set_double(audio->swr, "rematrix_maxval", 1.0, 0);
	if (code >= 0 && audio->layout.order != AV_CHANNEL_ORDER_NATIVE) {
		double even[CHANNELS_MAX];
		for (int c = 0; c < audio->layout.nb_channels; c++)
			even[c] = 1.0 / audio->layout.nb_channels;
		code = swr_set_matrix(audio->swr, even, audio->layout.nb_channels);
	}
	return code < 0 ? code : swr_init(audio->swr);
}

static int make_converter(struct kx_audio *audio, const AVFrame *frame)
{
	audio->anchor_us = input_end(audio);
	audio->count = 0;
	free_converter(audio);
	audio->rate = frame->sample_rate;
	audio->format = frame->format;
	int code = 0;
	if (frame->ch_layout.order == AV_CHANNEL_ORDER_NATIVE)
		code = av_channel_layout_copy(&audio->layout, &frame->ch_layout);
	else
		av_channel_layout_default(&audio->layout, frame->ch_layout.nb_channels);
	if (code >= 0)
		code = configure(audio);
	if (code < 0)
		return code;
	int channels = audio->layout.nb_channels;
	code = av_samples_alloc_array_and_samples(&audio->silence, NULL, channels, PIECE, audio->format, 0);
	if (code < 0)
		return code;
	av_samples_set_silence(audio->silence, 0, PIECE, channels, audio->format);
	/* Twice what a piece gives: the resampler may still hold as much from before. */
	audio->out_cap = 2 * (PIECE * (int)KX_LOGMEL_RATE / audio->rate + 1024);
	audio->out = malloc((size_t)audio->out_cap * sizeof(float));
	return audio->out ? 0 : AVERROR(ENOMEM);
}

/* The stream may change its rate, format or channels at any frame. */
static kx_status prepare(struct kx_audio *audio, const AVFrame *frame, struct kx_error *error)
{
	bool same_layout = frame->ch_layout.order == AV_CHANNEL_ORDER_NATIVE
				   ? !av_channel_layout_compare(&audio->layout, &frame->ch_layout)
				   : audio->layout.nb_channels == frame->ch_layout.nb_channels;
	if (audio->swr && audio->rate == frame->sample_rate && audio->format == frame->format && same_layout)
		return KX_OK;
	if (audio->swr) {
		kx_status status = convert(audio, NULL, 0);
		if (status)
			return status;
	}
	int code = make_converter(audio, frame);
	if (code == AVERROR(ENOMEM))
		return audio_nomem(audio, error);
	if (code < 0)
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON,
				    "%s: can't resample %d channels at %d Hz: %s",
				    audio->clock->input->name, frame->ch_layout.nb_channels, frame->sample_rate,
				    KX_AV_TEXT(code));
	return KX_OK;
}

/* Puts the frame where its time says. */
static kx_status place(struct kx_audio *audio, const AVFrame *frame)
{
	int64_t end = input_end(audio);
	int64_t pts = kx_packets_time(audio->clock, frame->best_effort_timestamp, audio->base);
	int64_t off = pts == KX_NO_TIME ? 0 : pts - end;
	if (audio->started && llabs(off) <= TOLERANCE_US)
		off = 0;
	if (off > GAP_MAX_US || (off > 0 && audio->filled_us + off > FILLED_MAX_US)) {
		audio->gap = true;
		off = 0;
	}
	int64_t skip = 0;
	if (off > 0) {
		audio->filled_us += off;
		kx_status status = feed_silence(audio, av_rescale(off, audio->rate, 1000000));
		if (status)
			return status;
	} else if (off < 0) {
		skip = av_rescale(-off, audio->rate, 1000000);
	}
	if (skip >= frame->nb_samples)
		return KX_OK;
	audio->started = true;
	return feed(audio, frame->extended_data, (int)skip, frame->nb_samples - (int)skip);
}

static kx_status take_frame(struct kx_audio *audio, const AVFrame *frame, struct kx_error *error)
{
	if (frame->sample_rate < RATE_MIN || frame->sample_rate > RATE_MAX || frame->nb_samples <= 0 ||
	    frame->ch_layout.nb_channels < 1 || frame->ch_layout.nb_channels > CHANNELS_MAX) {
		audio->errors++;
		return KX_OK;
	}
	kx_status status = prepare(audio, frame, error);
	return status ? status : place(audio, frame);
}

static kx_status receive_all(struct kx_audio *audio, struct kx_error *error)
{
	for (;;) {
		int code = avcodec_receive_frame(audio->codec, audio->frame);
		if (code == AVERROR(ENOMEM))
			return audio_nomem(audio, error);
		if (code == AVERROR(EAGAIN) || code == AVERROR_EOF)
			return KX_OK;
		if (code < 0) {
			audio->errors++;
			return KX_OK;
		}
		kx_status status = take_frame(audio, audio->frame, error);
		av_frame_unref(audio->frame);
		if (status)
			return status;
	}
}

kx_status kx_audio_push(struct kx_audio *audio, const AVPacket *packet, struct kx_error *error)
{
	int code = avcodec_send_packet(audio->codec, packet);
	if (code == AVERROR(ENOMEM))
		return audio_nomem(audio, error);
	if (code < 0 && code != AVERROR_EOF)
		audio->errors++;
	kx_status status = receive_all(audio, error);
	if (status || packet)
		return status;
	if (audio->swr)
		status = convert(audio, NULL, 0);
	return status ? status : kx_logmel_finish(audio->logmel);
}
