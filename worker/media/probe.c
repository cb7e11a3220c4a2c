#include "worker/media/probe.h"

#include <math.h>
#include <string.h>

#include "common/base/str.h"

/* Each part of a split starts a key frame early: further apart than this, splitting costs more than it gives. */
#define KEY_DISTANCE_MAX_US (60 * INT64_C(1000000))

static const int32_t *display_matrix(const AVStream *video)
{
	size_t size = 0;
	const uint8_t *bytes = av_stream_get_side_data(video, AV_PKT_DATA_DISPLAYMATRIX, &size);
	return bytes && size >= 9 * sizeof(int32_t) ? (const void *)bytes : NULL;
}

struct kx_orientation kx_probe_orientation(const AVStream *video)
{
	return kx_orientation_from_matrix(display_matrix(video));
}

/* What no record can hold is as good as not said. */
static int64_t believable(int64_t duration_us)
{
	return duration_us > 0 && (uint64_t)duration_us <= KX_MEDIA_US_MAX ? duration_us : 0;
}

int64_t kx_probe_duration_us(const struct kx_packets *packets, const AVStream *stream)
{
	const AVFormatContext *format = packets->input->format;
	if (stream && stream->duration > 0)
		return believable(av_rescale_q(stream->duration, stream->time_base, (AVRational){1, 1000000}));
	if (format->duration <= 0) /* AV_NOPTS_VALUE, too */
		return 0;
	int64_t duration = av_rescale(format->duration, 1000000, AV_TIME_BASE);
	/* What Matroska's writers call duration is the time at which the last frame ends. */
	if (kx_input_is(packets->input, "matroska") && packets->origin > 0)
		duration -= av_rescale_q(packets->origin, packets->origin_base, (AVRational){1, 1000000});
	return believable(duration);
}

/* Whether there is enough to jump to, and nothing but the start is left out: other edits repeat or reorder parts of
 * the stream. */
static bool plain_index(AVStream *video, int count, int64_t duration_us)
{
	int keys = 0;
	for (int i = 0; i < count; i++) {
		int flags = avformat_index_get_entry(video, i)->flags;
		if (keys && (flags & AVINDEX_DISCARD_FRAME))
			return false;
		if ((flags & AVINDEX_KEYFRAME) && !(flags & AVINDEX_DISCARD_FRAME))
			keys++;
	}
	return keys > 1 && duration_us / keys <= KEY_DISTANCE_MAX_US;
}

static bool index_reaches_end(const struct kx_packets *packets, AVStream *video, int count)
{
	const AVIndexEntry *first = avformat_index_get_entry(video, 0);
	const AVIndexEntry *last = avformat_index_get_entry(video, count - 1);
	int64_t ticks;
	if (__builtin_sub_overflow(last->timestamp, first->timestamp, &ticks))
		return false;
	int64_t span = av_rescale_q(ticks, video->time_base, (AVRational){1, 1000000});
	return span >= kx_probe_duration_us(packets, video) / 2;
}

static bool codec_splits(const AVStream *video)
{
	switch (video->codecpar->codec_id) {
	case AV_CODEC_ID_H264:
	case AV_CODEC_ID_HEVC:
	case AV_CODEC_ID_MPEG4:
	case AV_CODEC_ID_VP9:
	case AV_CODEC_ID_AV1:
		return true;
	default:
		return false;
	}
}

bool kx_probe_splittable(struct kx_packets *packets, bool *ret_moved)
{
	struct kx_input *input = packets->input;
	AVStream *video = input->video;
	*ret_moved = false;
	if (!video || !packets->has_pts || !codec_splits(video))
		return false;
	if (kx_input_is(input, "matroska")) {
		/* Matroska reads its index on the first seek. */
		*ret_moved = true;
		if (av_seek_frame(input->format, video->index, packets->origin, AVSEEK_FLAG_BACKWARD) < 0)
			return false;
	} else if (!kx_input_is(input, "mov") || video->nb_frames <= 0) {
		return false; /* a fragmented MP4 has its index in pieces, found as it is read */
	}
	int count = avformat_index_get_entries_count(video);
	return count > 1 && plain_index(video, count, kx_probe_duration_us(packets, video)) &&
	       index_reaches_end(packets, video, count);
}

/* Square pixels, turned as shown; the stored height stays, as players do it. */
static void presented_size(struct kx_packets *packets, struct kx_probe_info *info)
{
	AVStream *video = packets->input->video;
	AVRational aspect = av_guess_sample_aspect_ratio(packets->input->format, video, NULL);
	int64_t width = video->codecpar->width;
	int64_t height = video->codecpar->height;
	if (aspect.num > 0 && aspect.den > 0 && width > 0) {
		int64_t stretched = av_rescale(width, aspect.num, aspect.den);
		if (stretched > 0 && stretched <= 1 << 16)
			width = stretched;
	}
	bool transpose = kx_probe_orientation(video).transpose;
	info->width = (uint32_t)(transpose ? height : width);
	info->height = (uint32_t)(transpose ? width : height);
}

static char *container_name(const struct kx_input *input)
{
	/* "mov,mp4,m4a,3gp,3g2,mj2": the family goes by its best-known member. */
	if (kx_input_is(input, "mp4"))
		return kx_strdup("mp4");
	const char *name = input->format->iformat->name;
	return kx_strndup(name, strcspn(name, ","));
}

kx_status kx_probe_describe(struct kx_packets *packets, bool look_for_index, struct kx_probe_info *ret_info,
			    struct kx_error *error)
{
	struct kx_input *input = packets->input;
	AVStream *video = input->video;
	AVStream *audio = input->audio;
	struct kx_probe_info info = {
		.container = container_name(input),
		.video_codec = kx_strdup(video ? avcodec_get_name(video->codecpar->codec_id) : ""),
		.audio_codec = kx_strdup(audio ? avcodec_get_name(audio->codecpar->codec_id) : ""),
		.duration_us = (uint64_t)kx_probe_duration_us(packets, video ? video : audio),
		.has_visual = video != NULL,
		.has_audio = audio != NULL,
	};
	if (video) {
		AVRational rate = av_guess_frame_rate(input->format, video, NULL);
		info.frame_rate = rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0;
		presented_size(packets, &info);
	}
	if (audio) {
		info.sample_rate = (uint32_t)audio->codecpar->sample_rate;
		info.channels = (uint32_t)audio->codecpar->ch_layout.nb_channels;
	}
	if (!info.container || !info.video_codec || !info.audio_codec) {
		kx_probe_info_done(&info);
		return kx_error_nomem(error);
	}
	bool moved = false;
	info.splittable = look_for_index && kx_probe_splittable(packets, &moved);
	*ret_info = info;
	return KX_OK;
}
