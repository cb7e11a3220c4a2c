#include "worker/media/input.h"

#include <errno.h>
#include <string.h>

#include <libavcodec/avcodec.h>
#include <libavutil/avstring.h>
#include <libavutil/opt.h>

#include "common/base/fault.h"

#define IO_BUFFER_BYTES (64 * 1024)
#define PROBE_BYTES (5 * 1000 * 1000)
#define PROBE_US "5000000"
/* libav calls more than its limit "out of memory"; so that we can say what is wrong, it reads some more than we take. */
#define STREAMS_READ_MAX (8 * KX_STREAMS_MAX)
/* What libav itself asks for before it stops reading more to make up its mind. Noise scores 1. */
#define PROBE_SCORE_MIN AVPROBE_SCORE_RETRY

/* Nothing that refers to other files or addresses (hls, dash, concat, image2, sdp). */
static const char demuxers[] = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,"
			       "ogg,asf,wav,w64,mp3,flac,aac,ac3,eac3,aiff,au,caf,yuv4mpegpipe,ivf,mxf,dv,obu";

static const char codecs[] =
	"h264,hevc,mpeg1video,mpeg2video,mpeg4,msmpeg4v1,msmpeg4v2,msmpeg4,vp8,vp9,libdav1d,theora,wmv1,wmv2,wmv3,"
	"vc1,flv,h263,mjpeg,prores,dnxhd,rawvideo,ffv1,huffyuv,ffvhuff,dvvideo,svq1,svq3,cinepak,qtrle,png,vp6,vp6f,"
	"indeo3,rpza,utvideo,"
	"aac,aac_latm,mp1float,mp2float,mp3float,mp1,mp2,mp3,ac3,eac3,dca,opus,vorbis,flac,alac,wmav1,wmav2,wmapro,"
	"pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_u8,pcm_s8,pcm_f32le,pcm_f32be,pcm_f64le,"
	"pcm_alaw,pcm_mulaw,pcm_bluray,pcm_dvd,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,adpcm_swf,amrnb,amrwb,speex";

/* Kinds of source that are lists of other sources: known, and not read on purpose. */
static const char lists[] = "hls,dash,concat,sdp,rtsp,imf";

static int io_read(void *opaque, uint8_t *bytes, int len)
{
	struct kx_input *input = opaque;
	if (kx_fault("media.read")) {
		kx_io_note(&input->source, EIO);
		return AVERROR(EIO);
	}
	ssize_t got = kx_io_read(&input->source, (uint64_t)input->pos, bytes, (size_t)len);
	if (got < 0)
		return AVERROR(EIO);
	input->pos += got;
	return got > 0 ? (int)got : AVERROR_EOF;
}

static int64_t io_seek(void *opaque, int64_t offset, int whence)
{
	struct kx_input *input = opaque;
	int64_t base = 0;
	switch (whence & ~AVSEEK_FORCE) {
	case AVSEEK_SIZE:
		return input->source.size;
	case SEEK_SET:
		break;
	case SEEK_CUR:
		base = input->pos;
		break;
	case SEEK_END:
		base = input->source.size;
		break;
	default:
		return AVERROR(EINVAL);
	}
	if (offset < -base || offset > INT64_MAX - base)
		return AVERROR(EINVAL);
	return input->pos = base + offset;
}

static int refuse_open(AVFormatContext *format, AVIOContext **io, const char *url, int flags, AVDictionary **options)
{
	(void)format;
	(void)url;
	(void)flags;
	(void)options;
	*io = NULL;
	return AVERROR(EPERM);
}

static kx_status fail(enum kx_reason *ret_reason, enum kx_reason reason, struct kx_error *error, kx_status status,
		      const char *name, const char *what)
{
	*ret_reason = reason;
	enum kx_error_class class = reason == KX_REASON_READ_FAILED || status == KX_ENOMEM ? KX_ERROR_RETRY
											   : KX_ERROR_POISON;
	return kx_error_set(error, status, class, "%s: %s", name, what);
}

static kx_status read_failed(const struct kx_input *input, enum kx_reason *ret_reason, struct kx_error *error)
{
	*ret_reason = input->source.reason;
	return kx_io_fail(&input->source, input->name, error);
}

static kx_status open_io(struct kx_input *input, int fd, enum kx_reason *ret_reason, struct kx_error *error)
{
	kx_status status = kx_io_open(&input->source, fd);
	if (input->source.status)
		return read_failed(input, ret_reason, error);
	if (status)
		return fail(ret_reason, KX_REASON_NOT_MEDIA, error, status, input->name, "not a regular file");
	if (input->source.size == 0)
		return fail(ret_reason, KX_REASON_EMPTY_FILE, error, KX_ECORRUPT, input->name, "the file is empty");
	uint8_t *buffer = av_malloc(IO_BUFFER_BYTES);
	if (buffer)
		input->io = avio_alloc_context(buffer, IO_BUFFER_BYTES, 0, input, io_read, NULL, io_seek);
	if (!input->io) {
		av_free(buffer);
		*ret_reason = KX_REASON_MEMORY_LIMIT;
		return kx_error_nomem(error);
	}
	return KX_OK;
}

/* What the commonest files say of themselves in their first bytes, for which libavformat would ask all its 300 demuxers
 * and get this for an answer: 0.15 ms, a twentieth of a short clip. NULL: it has to be asked. */
static const AVInputFormat *known_start(struct kx_input *input)
{
	uint8_t start[12];
	int got = avio_read(input->io, start, sizeof(start));
	if (avio_seek(input->io, 0, SEEK_SET) < 0 || got != (int)sizeof(start))
		return NULL;
	if (memcmp(start, "RIFF", 4) == 0 && memcmp(start + 8, "AVI ", 4) == 0)
		return av_find_input_format("avi");
	/* A file type box of video files; JPEG 2000 has one, too. */
	static const char brands[][5] = {"isom", "iso2", "iso4", "iso5", "iso6", "mp41", "mp42", "avc1", "M4V ", "qt  "};
	for (unsigned i = 0; memcmp(start + 4, "ftyp", 4) == 0 && i < KX_ARRAY_LEN(brands); i++)
		if (memcmp(start + 8, brands[i], 4) == 0)
			return av_find_input_format("mov");
	return NULL;
}

/* Finds the demuxer by content alone: a name says nothing that can be trusted. */
static kx_status detect(struct kx_input *input, const AVInputFormat **ret_demuxer, enum kx_reason *ret_reason,
			struct kx_error *error)
{
	const AVInputFormat *demuxer = known_start(input);
	int score = AVPROBE_SCORE_MAX;
	if (!demuxer && !input->source.status)
		score = av_probe_input_buffer2(input->io, &demuxer, "", NULL, 0, PROBE_BYTES);
	if (input->source.status)
		return read_failed(input, ret_reason, error);
	if (score < PROBE_SCORE_MIN || !demuxer)
		return fail(ret_reason, KX_REASON_NOT_MEDIA, error, KX_ECORRUPT, input->name,
			    "not a video or audio file in any known format");
	if (av_match_list(demuxer->name, demuxers, ',')) {
		*ret_demuxer = demuxer;
		return KX_OK;
	}
	if (av_match_list(demuxer->name, lists, ','))
		return fail(ret_reason, KX_REASON_UNSUPPORTED, error, KX_EUNSUPPORTED, input->name,
			    "a playlist or description that refers to other files, which is not read; give the files");
	return fail(ret_reason, KX_REASON_NOT_MEDIA, error, KX_ECORRUPT, input->name,
		    "not a video or audio file in a format that is read");
}

static AVDictionary *open_options(void)
{
	AVDictionary *options = NULL;
	int failed = av_dict_set(&options, "format_whitelist", demuxers, 0);
	failed |= av_dict_set(&options, "codec_whitelist", codecs, 0);
	failed |= av_dict_set(&options, "protocol_whitelist", "none", 0);
	failed |= av_dict_set_int(&options, "max_streams", STREAMS_READ_MAX, 0);
	failed |= av_dict_set_int(&options, "probesize", PROBE_BYTES, 0);
	failed |= av_dict_set(&options, "analyzeduration", PROBE_US, 0);
	if (failed < 0)
		av_dict_free(&options);
	return options;
}

/* Why the demuxer refused. A file that starts as MP4 and has no moov was cut: the index is written last. */
static kx_status explain_open(struct kx_input *input, const AVInputFormat *demuxer, int code,
			      enum kx_reason *ret_reason, struct kx_error *error)
{
	if (input->source.status)
		return read_failed(input, ret_reason, error);
	if (code == AVERROR(ENOMEM))
		return fail(ret_reason, KX_REASON_MEMORY_LIMIT, error, KX_ENOMEM, input->name,
			    "its headers ask for more memory than is allowed");
	if (code == AVERROR_PATCHWELCOME)
		return fail(ret_reason, KX_REASON_UNSUPPORTED, error, KX_EUNSUPPORTED, input->name,
			    "uses a feature of its format that is not supported");
	if (code == AVERROR_EOF && !av_match_name("mov", demuxer->name))
		return fail(ret_reason, KX_REASON_TRUNCATED, error, KX_ECORRUPT, input->name,
			    "cut short: it ends before its first picture or sound; copy or record the file again");
	if (av_match_name("mov", demuxer->name))
		return fail(ret_reason, KX_REASON_TRUNCATED, error, KX_ECORRUPT, input->name,
			    "cut short: the index (moov) is missing; copy or record the file again");
	*ret_reason = KX_REASON_NOT_MEDIA;
	return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON, "%s: %s headers are damaged (%s)", input->name,
			    demuxer->name, KX_AV_TEXT(code));
}

static kx_status open_format(struct kx_input *input, const AVInputFormat *demuxer, enum kx_reason *ret_reason,
			     struct kx_error *error)
{
	AVDictionary *options = open_options();
	input->format = avformat_alloc_context();
	if (!options || !input->format) {
		av_dict_free(&options);
		*ret_reason = KX_REASON_MEMORY_LIMIT;
		return kx_error_nomem(error);
	}
	input->format->pb = input->io;
	input->format->io_open = refuse_open;
	int code = avformat_open_input(&input->format, "", demuxer, &options);
	av_dict_free(&options);
	return code < 0 ? explain_open(input, demuxer, code, ret_reason, error) : KX_OK;
}

/* Whether the headers alone tell what a decoder has to know. */
static bool headers_suffice(const struct kx_input *input)
{
	const AVFormatContext *format = input->format;
	if (!kx_input_is(input, "mov") && !kx_input_is(input, "matroska"))
		return false;
	for (unsigned i = 0; i < format->nb_streams; i++) {
		const AVStream *stream = format->streams[i];
		const AVCodecParameters *codec = stream->codecpar;
		if (stream->disposition & AV_DISPOSITION_ATTACHED_PIC)
			continue;
		if (codec->codec_type == AVMEDIA_TYPE_VIDEO &&
		    (codec->codec_id == AV_CODEC_ID_NONE || codec->width <= 0 || codec->height <= 0 ||
		     stream->avg_frame_rate.num <= 0))
			return false;
		if (codec->codec_type == AVMEDIA_TYPE_AUDIO &&
		    (codec->codec_id == AV_CODEC_ID_NONE || codec->sample_rate <= 0 ||
		     codec->ch_layout.nb_channels <= 0))
			return false;
	}
	return format->nb_streams > 0;
}

static AVStream *best_stream(AVFormatContext *format, enum AVMediaType type)
{
	int index = av_find_best_stream(format, type, -1, -1, NULL, 0);
	if (index < 0)
		return NULL;
	if (!(format->streams[index]->disposition & AV_DISPOSITION_ATTACHED_PIC))
		return format->streams[index];
	for (unsigned i = 0; i < format->nb_streams; i++) {
		AVStream *stream = format->streams[i];
		if (stream->codecpar->codec_type == type && !(stream->disposition & AV_DISPOSITION_ATTACHED_PIC))
			return stream;
	}
	return NULL;
}

static kx_status unsupported_codec(const struct kx_input *input, const AVStream *stream, enum kx_reason *ret_reason,
				   struct kx_error *error)
{
	*ret_reason = KX_REASON_UNSUPPORTED;
	return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON, "%s: no decoder for %s; convert it to H.264",
			    input->name, avcodec_get_name(stream->codecpar->codec_id));
}

static kx_status choose_streams(struct kx_input *input, enum kx_reason *ret_reason, struct kx_error *error)
{
	input->video = best_stream(input->format, AVMEDIA_TYPE_VIDEO);
	input->audio = best_stream(input->format, AVMEDIA_TYPE_AUDIO);
	if (!input->video && !input->audio)
		return fail(ret_reason, KX_REASON_NO_STREAMS, error, KX_EUNSUPPORTED, input->name,
			    "has neither picture nor sound");
	if (input->video && !kx_input_decoder(input->video))
		return unsupported_codec(input, input->video, ret_reason, error);
	if (input->audio && !kx_input_decoder(input->audio)) {
		if (!input->video)
			return unsupported_codec(input, input->audio, ret_reason, error);
		input->audio = NULL; /* the picture can do without */
	}
	return KX_OK;
}

static kx_status check_streams(const struct kx_input *input, enum kx_reason *ret_reason, struct kx_error *error)
{
	if (input->format->nb_streams <= KX_STREAMS_MAX)
		return KX_OK;
	*ret_reason = KX_REASON_UNSUPPORTED;
	return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON,
			    "%s: %u streams, and %d are the most that are read; keep only those that matter",
			    input->name, input->format->nb_streams, KX_STREAMS_MAX);
}

/* Before anything is decoded, and again when decoding has told more. */
static kx_status check_pixels(const struct kx_input *input, enum kx_reason *ret_reason, struct kx_error *error)
{
	for (unsigned i = 0; i < input->format->nb_streams; i++) {
		const AVCodecParameters *codec = input->format->streams[i]->codecpar;
		if (codec->codec_type != AVMEDIA_TYPE_VIDEO || (int64_t)codec->width * codec->height <= KX_PIXELS_MAX)
			continue;
		*ret_reason = KX_REASON_TOO_LARGE;
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "%s: %dx%d is over the limit of %d pixels a picture; scale it down", input->name,
				    codec->width, codec->height, KX_PIXELS_MAX);
	}
	return KX_OK;
}

/* libav opens decoders of its own for this, to which the limit on pixels is told apart. It does not survive a second time:
 * libavformat 59 goes through a null pointer then. */
kx_status kx_input_look_inside(struct kx_input *input, struct kx_error *error)
{
	if (input->looked_inside)
		return KX_OK;
	input->looked_inside = true;
	unsigned count = input->format->nb_streams;
	AVDictionary **options = av_calloc(count ? count : 1, sizeof(AVDictionary *));
	int failed = options ? 0 : -1;
	for (unsigned i = 0; i < count && failed >= 0; i++)
		failed = av_dict_set_int(&options[i], "max_pixels", KX_PIXELS_MAX, 0);
	if (failed >= 0)
		(void)avformat_find_stream_info(input->format, options);
	for (unsigned i = 0; options && i < count; i++)
		av_dict_free(&options[i]);
	av_free(options);
	return failed < 0 ? kx_error_nomem(error) : KX_OK;
}

/* Decodes a little where the headers leave questions open. */
static kx_status look_inside(struct kx_input *input, enum kx_reason *ret_reason, struct kx_error *error)
{
	if (headers_suffice(input))
		return KX_OK;
	kx_status status = kx_input_look_inside(input, error);
	if (status) {
		*ret_reason = KX_REASON_MEMORY_LIMIT;
		return status;
	}
	if (input->source.status)
		return read_failed(input, ret_reason, error);
	status = check_streams(input, ret_reason, error);
	return status ? status : check_pixels(input, ret_reason, error);
}

static kx_status open_all(struct kx_input *input, int fd, enum kx_reason *ret_reason, struct kx_error *error)
{
	const AVInputFormat *demuxer = NULL;
	kx_status status = open_io(input, fd, ret_reason, error);
	if (!status)
		status = detect(input, &demuxer, ret_reason, error);
	if (!status)
		status = open_format(input, demuxer, ret_reason, error);
	if (!status)
		status = check_streams(input, ret_reason, error);
	if (!status)
		status = check_pixels(input, ret_reason, error);
	if (!status)
		status = look_inside(input, ret_reason, error);
	return status ? status : choose_streams(input, ret_reason, error);
}

kx_status kx_input_open(struct kx_input *input, int fd, const char *name, enum kx_reason *ret_reason,
			struct kx_error *error)
{
	*input = (struct kx_input){.name = name ? name : "input"};
	kx_status status = open_all(input, fd, ret_reason, error);
	if (status)
		kx_input_done(input);
	return status;
}

void kx_input_done(struct kx_input *input)
{
	avformat_close_input(&input->format);
	if (input->io)
		av_freep(&input->io->buffer);
	avio_context_free(&input->io);
	input->video = NULL;
	input->audio = NULL;
}

const AVCodec *kx_input_decoder(const AVStream *stream)
{
	void *iterator = NULL;
	const AVCodec *codec;
	while ((codec = av_codec_iterate(&iterator)))
		if (av_codec_is_decoder(codec) && codec->id == stream->codecpar->codec_id &&
		    av_match_list(codec->name, codecs, ','))
			return codec;
	return NULL;
}

void kx_input_discard_others(struct kx_input *input, const AVStream *video, const AVStream *audio)
{
	for (unsigned i = 0; i < input->format->nb_streams; i++) {
		AVStream *stream = input->format->streams[i];
		stream->discard = stream == video || stream == audio ? AVDISCARD_DEFAULT : AVDISCARD_ALL;
	}
}

bool kx_input_is(const struct kx_input *input, const char *demuxer)
{
	return av_match_name(demuxer, input->format->iformat->name) > 0;
}
