/* What is in a file, told to a person: every stream, which are taken and why, what sampling may do with it. Reads all
 * packets, and decodes only what libav needs to name the formats. */
#include <math.h>
#include <stdlib.h>

#include <libavcodec/avcodec.h>
#include <libavutil/display.h>
#include <libavutil/pixdesc.h>

#include "common/base/str.h"
#include "worker/media/media.h"
#include "worker/media/probe.h"
#include "worker/media/select.h"

static const AVRational microseconds = {1, 1000000};

static char *copy(const char *text)
{
	return kx_strdup(text ? text : "");
}

static const char *kind_of(enum AVMediaType type)
{
	const char *name = av_get_media_type_string(type);
	return name ? name : "other";
}

static const char *field_order_of(enum AVFieldOrder order)
{
	switch (order) {
	case AV_FIELD_PROGRESSIVE:
		return "progressive";
	case AV_FIELD_TT:
	case AV_FIELD_TB:
		return "interlaced, top first";
	case AV_FIELD_BB:
	case AV_FIELD_BT:
		return "interlaced, bottom first";
	default:
		return "";
	}
}

/* av_find_best_stream()'s order, as it applies here; it is what players go by, too. */
static const char *note_of(const struct kx_input *input, const AVStream *stream)
{
	enum AVMediaType type = stream->codecpar->codec_type;
	if (stream->disposition & AV_DISPOSITION_ATTACHED_PIC)
		return "a still picture (cover art), not a video";
	if (type != AVMEDIA_TYPE_VIDEO && type != AVMEDIA_TYPE_AUDIO)
		return "neither picture nor sound";
	if (!kx_input_decoder(stream))
		return "no decoder for it";
	if (stream == input->video || stream == input->audio)
		return "of its kind the best: by the default mark, then most packets found at the start, then bit rate";
	return "another of its kind comes first";
}

static void describe_picture(const struct kx_input *input, AVStream *stream, struct kx_probe_stream *out)
{
	const AVCodecParameters *codec = stream->codecpar;
	AVRational aspect = av_guess_sample_aspect_ratio(input->format, stream, NULL);
	AVRational rate = av_guess_frame_rate(input->format, stream, NULL);
	struct kx_orientation turn = kx_probe_orientation(stream);
	out->width = (uint32_t)(codec->width > 0 ? codec->width : 0);
	out->height = (uint32_t)(codec->height > 0 ? codec->height : 0);
	out->aspect_num = aspect.num > 0 && aspect.den > 0 ? (uint32_t)aspect.num : 0;
	out->aspect_den = out->aspect_num ? (uint32_t)aspect.den : 0;
	out->frame_rate = rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0;
	/* Transposing and flips as a mirror and a turn: transposing alone is a mirror and a quarter to the left. */
	out->mirrored = turn.transpose ^ turn.flip_x ^ turn.flip_y;
	out->rotation = turn.transpose ? (turn.flip_x ? 90 : 270) : (turn.flip_y ? 180 : 0);
	out->pixel_format = copy(av_get_pix_fmt_name(codec->format));
	out->range = copy(codec->color_range ? av_color_range_name(codec->color_range) : "");
	out->matrix = copy(codec->color_space != AVCOL_SPC_UNSPECIFIED ? av_color_space_name(codec->color_space) : "");
	out->primaries = copy(codec->color_primaries != AVCOL_PRI_UNSPECIFIED
				      ? av_color_primaries_name(codec->color_primaries)
				      : "");
	out->transfer = copy(codec->color_trc != AVCOL_TRC_UNSPECIFIED ? av_color_transfer_name(codec->color_trc) : "");
	out->field_order = copy(field_order_of(codec->field_order));
}

static void describe_sound(const AVStream *stream, struct kx_probe_stream *out)
{
	const AVCodecParameters *codec = stream->codecpar;
	char layout[128] = "";
	if (av_channel_layout_describe(&codec->ch_layout, layout, sizeof(layout)) < 0)
		layout[0] = '\0';
	out->sample_rate = (uint32_t)(codec->sample_rate > 0 ? codec->sample_rate : 0);
	out->channels = (uint32_t)(codec->ch_layout.nb_channels > 0 ? codec->ch_layout.nb_channels : 0);
	out->layout = copy(layout);
	out->sample_format = copy(av_get_sample_fmt_name(codec->format));
}

static void describe_stream(const struct kx_input *input, AVStream *stream, struct kx_probe_stream *out)
{
	const AVCodecParameters *codec = stream->codecpar;
	out->index = (uint32_t)stream->index;
	out->kind = copy(kind_of(codec->codec_type));
	out->codec = copy(avcodec_get_name(codec->codec_id));
	out->profile = copy(avcodec_profile_name(codec->codec_id, codec->profile));
	out->chosen = stream == input->video || stream == input->audio;
	out->note = copy(note_of(input, stream));
	int64_t duration = stream->duration > 0 ? av_rescale_q(stream->duration, stream->time_base, microseconds) : 0;
	if (duration > 0 && (uint64_t)duration <= KX_MEDIA_US_MAX)
		out->duration_us = (uint64_t)duration;
	if (stream->start_time != AV_NOPTS_VALUE)
		out->start_us = av_rescale_q(stream->start_time, stream->time_base, microseconds);
	out->bit_rate = codec->bit_rate > 0 ? (uint64_t)codec->bit_rate : 0;
	if (codec->codec_type == AVMEDIA_TYPE_VIDEO)
		describe_picture(input, stream, out);
	else if (codec->codec_type == AVMEDIA_TYPE_AUDIO)
		describe_sound(stream, out);
}

/* What is counted of the packets. */
struct count {
	int64_t end_us;
	uint64_t pictures;
	uint64_t understood;
	uint64_t droppable;
	uint64_t starts;
};

static void count_packet(const struct kx_packets *packets, const AVPacket *packet, struct kx_probe_detail *detail,
			 struct count *count)
{
	const struct kx_input *input = packets->input;
	const AVStream *main_stream = input->video ? input->video : input->audio;
	const AVStream *stream = input->format->streams[packet->stream_index];
	bool key = packet->flags & AV_PKT_FLAG_KEY;
	if ((uint32_t)packet->stream_index < detail->stream_count) {
		detail->streams[packet->stream_index].packets++;
		detail->streams[packet->stream_index].key_packets += key;
	}
	if (stream != main_stream)
		return;
	int64_t ticks = packet->pts != AV_NOPTS_VALUE ? packet->pts : packet->dts;
	int64_t at = kx_packets_time(packets, ticks, stream->time_base);
	if (at != KX_NO_TIME) {
		int64_t end = at + av_rescale_q(packet->duration, stream->time_base, microseconds);
		if (end > count->end_us)
			count->end_us = end;
	}
	if (stream != input->video || packets->parser.codec == KX_PICTURE_NONE)
		return;
	struct kx_picture picture = kx_picture_parse(&packets->parser, packet->data, (size_t)packet->size, key);
	count->pictures++;
	count->understood += picture.known;
	count->droppable += picture.known && picture.droppable;
	count->starts += picture.known && picture.starts;
}

static char *plan_of(const struct kx_packets *packets, const struct count *count)
{
	if (!packets->input->video)
		return copy("no picture");
	if (!packets->has_pts)
		return copy("decodes everything: packets do not say when they are presented");
	if (packets->parser.codec == KX_PICTURE_NONE)
		return copy("decodes everything: it is not known which pictures of this codec others need");
	if (!count->starts || count->understood < count->pictures)
		return kx_strf("decodes everything around what is not understood: %llu of %llu pictures are, %llu of them start "
			       "a group",
			       (unsigned long long)count->understood, (unsigned long long)count->pictures,
			       (unsigned long long)count->starts);
	return kx_strf("selective: %llu groups of pictures, %llu of %llu pictures needed by no other",
		       (unsigned long long)count->starts, (unsigned long long)count->droppable,
		       (unsigned long long)count->pictures);
}

static kx_status read_all(struct kx_packets *packets, struct kx_probe_detail *detail, struct count *count,
			  struct kx_error *error)
{
	AVPacket *packet = av_packet_alloc();
	if (!packet)
		return kx_error_nomem(error);
	kx_status status;
	while (!(status = kx_packets_next(packets, packet, error))) {
		count_packet(packets, packet, detail, count);
		av_packet_unref(packet);
	}
	av_packet_free(&packet);
	return status == KX_ENOTFOUND ? KX_OK : status;
}

static kx_status describe_all(struct kx_packets *packets, struct kx_probe_detail *detail, struct kx_error *error)
{
	struct kx_input *input = packets->input;
	struct count count = {0};
	uint32_t streams = input->format->nb_streams < KX_PROBE_STREAMS_MAX ? input->format->nb_streams : KX_PROBE_STREAMS_MAX;
	detail->streams = calloc(streams ? streams : 1, sizeof(*detail->streams));
	if (!detail->streams)
		return kx_error_nomem(error);
	detail->stream_count = streams;
	for (uint32_t i = 0; i < streams; i++)
		describe_stream(input, input->format->streams[i], &detail->streams[i]);
	kx_status status = read_all(packets, detail, &count, error);
	if (status)
		return status;
	detail->packets_us = count.end_us > 0 ? (uint64_t)count.end_us : 0;
	detail->plan = plan_of(packets, &count);
	return detail->plan ? KX_OK : kx_error_nomem(error);
}

kx_status kx_media_inspect(int fd, const char *name, struct kx_probe_info *ret_info, struct kx_probe_detail *ret_detail,
			   enum kx_reason *ret_reason, struct kx_error *error)
{
	struct kx_input input;
	struct kx_packets packets;
	struct kx_probe_info info = {0};
	struct kx_probe_detail detail = {0};
	/* Splittable is asked first: looking for it moves the reading position, and packets are read once. */
	kx_status status = kx_media_probe(fd, name, &info, ret_reason, error);
	if (!status)
		status = kx_input_open(&input, fd, name, ret_reason, error);
	if (status) {
		kx_probe_info_done(&info);
		return status;
	}
	/* Pixel formats and colours are often in the coded pictures alone. What it can't find out is not said. */
	status = kx_input_look_inside(&input, error);
	if (!status)
		status = kx_packets_open(&packets, &input, error);
	if (!status) {
		status = describe_all(&packets, &detail, error);
		kx_packets_done(&packets);
	}
	*ret_reason = KX_REASON_NONE;
	if (status) {
		*ret_reason = input.source.status ? input.source.reason : KX_REASON_MEMORY_LIMIT;
		kx_probe_info_done(&info);
		kx_probe_detail_done(&detail);
	} else {
		*ret_info = info;
		*ret_detail = detail;
	}
	kx_input_done(&input);
	return status;
}
