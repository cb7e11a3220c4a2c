#include "worker/media/packets.h"

#include <stdlib.h>

#include <libavutil/intreadwrite.h>

#include "worker/media/select.h"

/* No codec reorders by more than 16 pictures, so the earliest of all is among these. */
#define ORIGIN_PACKETS 17u
#define KEYLESS_MAX 512u
#define AHEAD_PACKETS_MAX 4096u
#define AHEAD_BYTES_MAX (64u << 20)
#define ERRORS_IN_ROW_MAX 256u
/* Reading on is cheaper than jumping a shorter way than this. */
#define SKIP_BYTES_MIN (128 << 10)
/* Indices go by times of decoding, which are earlier than those of presentation by some frames. */
#define REORDER_US 1000000
#define TIME_MAX (INT64_C(1) << 50) /* 35 years: anything beyond is not a time */

static const AVRational microseconds = {1, 1000000};

static void list_clear(struct kx_packet_list *list)
{
	for (size_t i = list->first; i < list->first + list->count; i++)
		av_packet_free(&list->packets[i]);
	list->first = 0;
	list->count = 0;
	list->bytes = 0;
}

static void list_free(struct kx_packet_list *list)
{
	list_clear(list);
	free(list->packets);
	*list = (struct kx_packet_list){0};
}

static kx_status list_push(struct kx_packet_list *list, AVPacket *packet)
{
	if (list->first + list->count == list->cap) {
		size_t cap = list->cap ? list->cap * 2 : 64;
		AVPacket **grown = realloc(list->packets, cap * sizeof(*grown));
		if (!grown)
			return KX_ENOMEM;
		list->packets = grown;
		list->cap = cap;
	}
	AVPacket *kept = av_packet_alloc();
	if (!kept)
		return KX_ENOMEM;
	av_packet_move_ref(kept, packet);
	list->packets[list->first + list->count++] = kept;
	list->bytes += (size_t)kept->size;
	return KX_OK;
}

static bool list_shift(struct kx_packet_list *list, AVPacket *packet)
{
	if (!list->count)
		return false;
	av_packet_move_ref(packet, list->packets[list->first]);
	av_packet_free(&list->packets[list->first++]);
	list->bytes -= (size_t)packet->size;
	if (!--list->count)
		list->first = 0;
	return true;
}

static kx_status out_of_memory(struct kx_packets *packets, struct kx_error *error)
{
	kx_error_nomem(error);
	return kx_error_prefix(error, KX_ENOMEM, "%s", packets->input->name);
}

/* Some demuxers find their way again after damage, so errors are passed over, but not for ever. */
static kx_status demux(struct kx_packets *packets, AVPacket *packet, struct kx_error *error)
{
	if (list_shift(&packets->demuxed, packet))
		return KX_OK;
	for (;;) {
		int code = av_read_frame(packets->input->format, packet);
		if (packets->input->source.status) {
			if (code >= 0)
				av_packet_unref(packet);
			return kx_io_fail(&packets->input->source, packets->input->name, error);
		}
		if (code >= 0) {
			packets->errors_in_row = 0;
			/* The demuxers that cannot leave a stream unread return it all the same. */
			if (packets->input->format->streams[packet->stream_index]->discard < AVDISCARD_ALL)
				return KX_OK;
			av_packet_unref(packet);
			continue;
		}
		if (code == AVERROR_EOF)
			return KX_ENOTFOUND;
		if (code == AVERROR(ENOMEM))
			return out_of_memory(packets, error);
		packets->damaged = true;
		if (++packets->errors_in_row > ERRORS_IN_ROW_MAX)
			return KX_ENOTFOUND;
	}
}

/* The next packet; of a picture only when its time is known. */
static kx_status read_packet(struct kx_packets *packets, AVPacket *packet, struct kx_error *error)
{
	if (!packets->vops.unpack)
		return demux(packets, packet, error);
	while (!kx_vops_take(&packets->vops, packet)) {
		kx_status status = demux(packets, packet, error);
		if (status == KX_ENOTFOUND) {
			kx_vops_finish(&packets->vops);
			return kx_vops_take(&packets->vops, packet) ? KX_OK : status;
		}
		if (status || packet->stream_index != packets->input->video->index)
			return status;
		if (kx_vops_put(&packets->vops, packet))
			return out_of_memory(packets, error);
	}
	return KX_OK;
}

struct origin {
	int64_t pts; /* the earliest */
	int64_t dts;
	unsigned seen;
	bool keyed;
	bool timeless; /* a packet without pts */
};

/* When what the packet holds is first presented: encoders of sound need a run-up, which is cut off again. */
static int64_t presented(const AVStream *stream, const AVPacket *packet)
{
	size_t size = 0;
	const uint8_t *skip = av_packet_get_side_data(packet, AV_PKT_DATA_SKIP_SAMPLES, &size);
	if (packet->pts == AV_NOPTS_VALUE || !skip || size < 4 || stream->codecpar->sample_rate <= 0)
		return packet->pts;
	return packet->pts + av_rescale_q(AV_RL32(skip), (AVRational){1, stream->codecpar->sample_rate},
					  stream->time_base);
}

/* A recording may start between key frames: nothing is presented before the first one. */
static void origin_look(struct origin *origin, const AVStream *stream, const AVPacket *packet)
{
	int64_t pts = presented(stream, packet);
	if (!origin->keyed && (packet->flags & AV_PKT_FLAG_KEY))
		*origin = (struct origin){.pts = AV_NOPTS_VALUE, .dts = AV_NOPTS_VALUE, .keyed = true};
	if (packet->flags & AV_PKT_FLAG_DISCARD)
		return;
	origin->seen++;
	if (pts == AV_NOPTS_VALUE)
		origin->timeless = true;
	else if (origin->pts == AV_NOPTS_VALUE || pts < origin->pts)
		origin->pts = pts;
	if (packet->dts != AV_NOPTS_VALUE && (origin->dts == AV_NOPTS_VALUE || packet->dts < origin->dts))
		origin->dts = packet->dts;
}

/* Time 0 is the earliest presentation time of the video, or of the audio where there is no video. */
static kx_status find_origin(struct kx_packets *packets, AVPacket *packet, struct kx_error *error)
{
	const AVStream *stream = packets->input->video ? packets->input->video : packets->input->audio;
	unsigned wanted = packets->input->video ? ORIGIN_PACKETS : 1;
	struct origin origin = {.pts = AV_NOPTS_VALUE, .dts = AV_NOPTS_VALUE};
	while (origin.seen < (origin.keyed ? wanted : KEYLESS_MAX) && packets->ahead.count < AHEAD_PACKETS_MAX &&
	       packets->ahead.bytes < AHEAD_BYTES_MAX) {
		kx_status status = read_packet(packets, packet, error);
		if (status == KX_ENOTFOUND)
			break;
		if (status)
			return status;
		if (packet->stream_index == stream->index)
			origin_look(&origin, stream, packet);
		if (list_push(&packets->ahead, packet)) {
			av_packet_unref(packet);
			return out_of_memory(packets, error);
		}
	}
	packets->has_pts = origin.seen && !origin.timeless;
	packets->has_dts = origin.dts != AV_NOPTS_VALUE;
	packets->origin = packets->has_pts || origin.dts == AV_NOPTS_VALUE ? origin.pts : origin.dts;
	packets->origin_base = stream->time_base;
	if (packets->origin == AV_NOPTS_VALUE)
		packets->origin = 0;
	return KX_OK;
}

static enum kx_picture_codec picture_codec(const AVStream *video)
{
	switch (video->codecpar->codec_id) {
	case AV_CODEC_ID_H264:
		return KX_PICTURE_H264;
	case AV_CODEC_ID_HEVC:
		return KX_PICTURE_HEVC;
	case AV_CODEC_ID_MPEG1VIDEO:
	case AV_CODEC_ID_MPEG2VIDEO:
		return KX_PICTURE_MPEG2;
	case AV_CODEC_ID_MPEG4:
		return KX_PICTURE_MPEG4;
	case AV_CODEC_ID_VP9:
		return KX_PICTURE_VP9;
	case AV_CODEC_ID_AV1:
		return KX_PICTURE_AV1;
	case AV_CODEC_ID_MJPEG:
	case AV_CODEC_ID_PRORES:
	case AV_CODEC_ID_DNXHD:
	case AV_CODEC_ID_DVVIDEO:
	case AV_CODEC_ID_HUFFYUV:
	case AV_CODEC_ID_FFVHUFF:
	case AV_CODEC_ID_UTVIDEO:
	case AV_CODEC_ID_RAWVIDEO:
		return KX_PICTURE_INTRA;
	default:
		return KX_PICTURE_NONE;
	}
}

static bool needs_vops(const struct kx_packets *packets)
{
	return packets->input->video && packets->parser.codec == KX_PICTURE_MPEG4 && kx_input_is(packets->input, "avi") &&
	       !packets->has_pts && packets->has_dts && !packets->damaged;
}

/* What was read is read again, through vops. */
static kx_status begin_vops(struct kx_packets *packets, AVPacket *packet, struct kx_error *error)
{
	const AVStream *video = packets->input->video;
	kx_status status = kx_vops_open(&packets->vops, video->codecpar, video->time_base);
	if (status == KX_EUNSUPPORTED) /* then they have no times, and everything is decoded */
		return KX_OK;
	if (status)
		return out_of_memory(packets, error);
	packets->demuxed = packets->ahead;
	packets->ahead = (struct kx_packet_list){0};
	return find_origin(packets, packet, error);
}

kx_status kx_packets_open(struct kx_packets *packets, struct kx_input *input, struct kx_error *error)
{
	*packets = (struct kx_packets){.input = input};
	if (input->video)
		kx_picture_parser_init(&packets->parser, picture_codec(input->video),
				       input->video->codecpar->extradata,
				       (size_t)input->video->codecpar->extradata_size);
	kx_input_discard_others(input, input->video, input->audio);
	AVPacket *packet = av_packet_alloc();
	if (!packet)
		return out_of_memory(packets, error);
	kx_status status = find_origin(packets, packet, error);
	if (!status && needs_vops(packets))
		status = begin_vops(packets, packet, error);
	av_packet_free(&packet);
	if (status)
		kx_packets_done(packets);
	return status;
}

void kx_packets_done(struct kx_packets *packets)
{
	list_free(&packets->ahead);
	list_free(&packets->demuxed);
	kx_vops_done(&packets->vops);
}

kx_status kx_packets_next(struct kx_packets *packets, AVPacket *packet, struct kx_error *error)
{
	while (list_shift(&packets->ahead, packet)) {
		if (packets->input->format->streams[packet->stream_index]->discard < AVDISCARD_ALL)
			return KX_OK;
		av_packet_unref(packet);
	}
	return read_packet(packets, packet, error);
}

int64_t kx_packets_time(const struct kx_packets *packets, int64_t ticks, AVRational base)
{
	if (ticks == AV_NOPTS_VALUE)
		return KX_NO_TIME;
	int64_t us;
	if (av_cmp_q(base, packets->origin_base) == 0) {
		/* The difference first, so that rounding does not depend on where the file's clock began. */
		int64_t since;
		if (__builtin_sub_overflow(ticks, packets->origin, &since))
			return KX_NO_TIME;
		us = av_rescale_q(since, base, microseconds);
	} else {
		int64_t at = av_rescale_q(ticks, base, microseconds);
		if (__builtin_sub_overflow(at, av_rescale_q(packets->origin, packets->origin_base, microseconds), &us))
			return KX_NO_TIME;
	}
	return us > -TIME_MAX && us < TIME_MAX ? us : KX_NO_TIME;
}

/* Reads up to the first video packet, keeping what came before it too. */
static kx_status first_video(struct kx_packets *packets, AVPacket *packet, const AVPacket **ret_video,
			     struct kx_error *error)
{
	*ret_video = NULL;
	while (!*ret_video && packets->ahead.count < AHEAD_PACKETS_MAX && packets->ahead.bytes < AHEAD_BYTES_MAX) {
		kx_status status = read_packet(packets, packet, error);
		if (status == KX_ENOTFOUND)
			return KX_OK;
		if (status)
			return status;
		if (list_push(&packets->ahead, packet)) {
			av_packet_unref(packet);
			return out_of_memory(packets, error);
		}
		const AVPacket *last = packets->ahead.packets[packets->ahead.first + packets->ahead.count - 1];
		if (last->stream_index == packets->input->video->index)
			*ret_video = last;
	}
	return KX_OK;
}

static bool can_start(const struct kx_packets *packets, const AVPacket *packet, int64_t at_us)
{
	int64_t pts = kx_packets_time(packets, packet->pts, packets->input->video->time_base);
	bool key = packet->flags & AV_PKT_FLAG_KEY;
	if (!key || (packet->flags & AV_PKT_FLAG_DISCARD) || pts == KX_NO_TIME || pts > at_us)
		return false;
	if (packets->parser.codec == KX_PICTURE_NONE)
		return true;
	struct kx_picture picture = kx_picture_parse(&packets->parser, packet->data, (size_t)packet->size, key);
	return picture.known && picture.starts;
}

kx_status kx_packets_seek(struct kx_packets *packets, int64_t at_us, struct kx_error *error)
{
	const AVStream *video = packets->input->video;
	int64_t ticks;
	if (__builtin_add_overflow(packets->origin, av_rescale_q(at_us, microseconds, video->time_base), &ticks))
		ticks = packets->origin;
	AVPacket *packet = av_packet_alloc();
	if (!packet)
		return out_of_memory(packets, error);
	kx_status status = KX_OK;
	for (;;) {
		const AVPacket *first = NULL;
		list_clear(&packets->ahead);
		if (av_seek_frame(packets->input->format, video->index, ticks, AVSEEK_FLAG_BACKWARD) < 0) {
			if (packets->input->source.status)
				status = kx_io_fail(&packets->input->source, packets->input->name, error);
			else
				status = kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON,
						      "%s: seeking failed; index it unsplit", packets->input->name);
			break;
		}
		status = first_video(packets, packet, &first, error);
		if (status || (first && can_start(packets, first, at_us)))
			break;
		/* One key frame further back, or the very start, which is as good as decoding all. */
		int64_t before = first ? (first->dts != AV_NOPTS_VALUE ? first->dts : first->pts) : ticks;
		if (before == AV_NOPTS_VALUE || before > ticks)
			before = ticks;
		const AVIndexEntry *start = avformat_index_get_entry(packets->input->video, 0);
		if (!start || before <= start->timestamp)
			break;
		ticks = before - 1;
	}
	av_packet_free(&packet);
	return status;
}

int64_t kx_packets_index_time(const struct kx_packets *packets, const AVPacket *packet)
{
	return kx_input_is(packets->input, "matroska") ? packet->pts : packet->dts;
}

/* The index entry to go on at; NULL: there is none, or it is not worth the way. */
static const AVIndexEntry *skip_target(const struct kx_packets *packets, int64_t from_time, int64_t at_us)
{
	const struct kx_input *input = packets->input;
	AVStream *video = input->video;
	int from = av_index_search_timestamp(video, from_time, AVSEEK_FLAG_BACKWARD);
	int to;
	if (at_us == INT64_MAX) {
		to = av_index_search_timestamp(video, from_time + 1, 0);
	} else {
		int64_t at = packets->origin + av_rescale_q(at_us - REORDER_US, microseconds, video->time_base);
		to = av_index_search_timestamp(video, at, AVSEEK_FLAG_BACKWARD);
	}
	if (from < 0 || to <= from)
		return NULL;
	const AVIndexEntry *start = avformat_index_get_entry(video, from);
	const AVIndexEntry *entry = avformat_index_get_entry(video, to);
	bool there = entry->pos <= input->source.size - entry->size;
	bool far = entry->timestamp > from_time && entry->pos - start->pos - start->size >= SKIP_BYTES_MIN;
	return there && far && !(entry->flags & AVINDEX_DISCARD_FRAME) ? entry : NULL;
}

/* What to seek for to come out at the key frame decoded at dts: demuxers take it for a time of presentation, which is
 * somewhat later, and go back from there. Half-way to the next key frame is safe from both sides. */
static int64_t seek_time(const struct kx_packets *packets, int64_t dts)
{
	AVStream *video = packets->input->video;
	int64_t most = av_rescale_q(REORDER_US, microseconds, video->time_base);
	int next = av_index_search_timestamp(video, dts + 1, 0);
	int64_t half = next < 0 ? most : (avformat_index_get_entry(video, next)->timestamp - dts) / 2;
	return dts + (half < most ? half : most);
}

/* One seek, and a look at what it led to. */
static kx_status skip_to(struct kx_packets *packets, int64_t dts, AVPacket *packet, const AVPacket **ret_first,
			 struct kx_error *error)
{
	const AVStream *video = packets->input->video;
	*ret_first = NULL;
	list_clear(&packets->ahead);
	if (av_seek_frame(packets->input->format, video->index, seek_time(packets, dts), AVSEEK_FLAG_BACKWARD) < 0)
		return KX_OK;
	return first_video(packets, packet, ret_first, error);
}

kx_status kx_packets_skip(struct kx_packets *packets, int64_t from, int64_t at_us, bool *ret_skipped,
			  struct kx_error *error)
{
	const struct kx_input *input = packets->input;
	*ret_skipped = false;
	if (packets->no_skip || packets->ahead.count || packets->damaged ||
	    (!kx_input_is(input, "mov") && !kx_input_is(input, "matroska")))
		return KX_OK;
	const AVIndexEntry *entry = skip_target(packets, from, at_us);
	if (!entry)
		return KX_OK;
	int64_t at = entry->timestamp; /* reading may move the entries */
	AVPacket *packet = av_packet_alloc();
	if (!packet)
		return out_of_memory(packets, error);
	const AVPacket *first = NULL;
	*ret_skipped = true;
	kx_status status = skip_to(packets, at, packet, &first, error);
	bool there = first && kx_packets_index_time(packets, first) == at && (first->flags & AV_PKT_FLAG_KEY);
	if (!status && there && at_us != INT64_MAX)
		there = can_start(packets, first, at_us);
	if (!status && !there) {
		packets->no_skip = true;
		status = skip_to(packets, from, packet, &first, error);
	}
	av_packet_free(&packet);
	return status;
}
