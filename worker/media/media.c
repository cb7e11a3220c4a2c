#include "worker/media/media.h"

#include <errno.h>
#include <iconv.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <libavcodec/avcodec.h>
#include <libavutil/log.h>
#include <libavutil/mem.h>
#include <libswresample/swresample.h>
#include <libswscale/swscale.h>

#include "common/base/macros.h"
#include "worker/media/probe.h"
#include "worker/media/sample.h"

/* One allocation; a 64-megapixel picture of 16 bits a component fits. */
#define ALLOC_MAX ((size_t)512 << 20)
#define KEPT_BYTES (32 << 20) /* the most that glibc takes */

kx_status kx_media_probe(int fd, const char *name, struct kx_probe_info *ret_info, enum kx_reason *ret_reason,
			 struct kx_error *error)
{
	struct kx_input input;
	struct kx_packets packets;
	kx_status status = kx_input_open(&input, fd, name, ret_reason, error);
	if (status)
		return status;
	status = kx_packets_open(&packets, &input, error);
	if (!status) {
		status = kx_probe_describe(&packets, true, ret_info, error);
		kx_packets_done(&packets);
	}
	*ret_reason = KX_REASON_NONE;
	if (status)
		*ret_reason = input.source.status ? input.source.reason : KX_REASON_MEMORY_LIMIT;
	kx_input_done(&input);
	return status;
}

kx_status kx_media_sample(int fd, const struct kx_decode_request *request, const struct kx_media_sink *sink,
			  struct kx_decode_end *ret_end, struct kx_error *error)
{
	return kx_sample_run(fd, request, sink, &(struct kx_sample_options){0}, ret_end, error);
}

void kx_media_end_done(struct kx_decode_end *end)
{
	free(end->message);
	end->message = NULL;
}

/* Instead of the C library's, for libavformat: MPEG-TS names its stations in one of twenty alphabets, and glibc would load
 * a converter from a file for each. A decoder child may open none, we use none of those names, and converters have had
 * holes of their own. libavformat takes the bytes as they are. */
iconv_t iconv_open(const char *to, const char *from)
{
	(void)to;
	(void)from;
	errno = EINVAL;
	return (iconv_t)-1; /* as POSIX has it */
}

void kx_media_init(void)
{
	/* What is wrong with a file is said by our own errors; libav's lines would come by the thousand. */
	av_log_set_level(AV_LOG_QUIET);
	av_max_alloc(ALLOC_MAX);
	/* Demuxers print dates. That reads the time zone's file, which a child may not open: the zone that has none. */
	setenv("TZ", "UTC0", 1);
	tzset();
	/* Decoders give back and ask again for tables and pictures of megabytes at every key frame. Kept, they cost nothing;
	 * from the system, a page fault for every 4 KiB: 4 % of decoding 1080p. This process ends with its file. */
	mallopt(M_MMAP_THRESHOLD, KEPT_BYTES);
	mallopt(M_TRIM_THRESHOLD, 8 * KEPT_BYTES);
}

/* Nothing depends on it: what can't be opened is opened, or refused, where it is wanted. */
static void warm(enum AVCodecID id)
{
	const AVCodec *codec = avcodec_find_decoder(id);
	AVCodecContext *decoder = codec ? avcodec_alloc_context3(codec) : NULL;
	if (!decoder)
		return;
	decoder->thread_count = 1;
	if (codec->type == AVMEDIA_TYPE_AUDIO) {
		decoder->sample_rate = 44100;
		av_channel_layout_default(&decoder->ch_layout, 2);
	}
	(void)avcodec_open2(decoder, codec, NULL);
	avcodec_free_context(&decoder);
}

void kx_media_warm(void)
{
	static const enum AVCodecID common[] = {
		AV_CODEC_ID_H264, AV_CODEC_ID_HEVC, AV_CODEC_ID_VP9, AV_CODEC_ID_AV1, AV_CODEC_ID_MPEG4,
		AV_CODEC_ID_MPEG2VIDEO, AV_CODEC_ID_AAC, AV_CODEC_ID_MP3, AV_CODEC_ID_AC3, AV_CODEC_ID_OPUS,
	};
	for (size_t i = 0; i < KX_ARRAY_LEN(common); i++)
		warm(common[i]);
	/* What was used in between: a page that a child shares costs it twice what a new one does. */
	malloc_trim(0);
}

const char *kx_media_software(void)
{
	static char text[160];
	unsigned codec = avcodec_version();
	unsigned format = avformat_version();
	unsigned scale = swscale_version();
	unsigned resample = swresample_version();
	snprintf(text, sizeof(text),
		 "libavcodec %u.%u.%u libavformat %u.%u.%u libswscale %u.%u.%u libswresample %u.%u.%u",
		 codec >> 16, codec >> 8 & 255, codec & 255, format >> 16, format >> 8 & 255, format & 255,
		 scale >> 16, scale >> 8 & 255, scale & 255, resample >> 16, resample >> 8 & 255, resample & 255);
	return text;
}
