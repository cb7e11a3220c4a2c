#include "common/record/media.h"

#include <float.h>
#include <string.h>

#include "common/base/str.h"
#include "common/record/support.h"
#include "proto/media.pb-c.h"

static Kinodex__V1__DecodeRequest *kx_decode_request_write(struct kx_writer *w,
							   const struct kx_decode_request *request)
{
	Kinodex__V1__DecodeRequest *m = KX_WRITER_NEW(w, decode_request);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->ticket = request->ticket;
	m->purpose = request->purpose;
	m->tracks = request->tracks;
	m->fps = request->fps;
	m->decode_mode = request->decode_mode;
	m->decode_tolerance_us = request->decode_tolerance_us;
	m->start_us = request->start_us;
	m->end_us = request->end_us;
	m->width = request->width;
	m->height = request->height;
	m->ring_slots = request->ring_slots;
	m->slot_bytes = request->slot_bytes;
	m->wall_limit_ms = request->wall_limit_ms;
	m->cpu_limit_ms = request->cpu_limit_ms;
	m->memory_limit_bytes = request->memory_limit_bytes;
	m->endpoint = request->endpoint;
	m->name = request->name;
	return m;
}

/* What to sample and where to put it; a probe has none of it. */
static void request_read_sampling(struct kx_reader *r, const Kinodex__V1__DecodeRequest *m,
				  struct kx_decode_request *request)
{
	request->tracks = kx_read_tracks(r, m->tracks);
	request->fps = kx_read_fps(r, m->fps);
	request->decode_mode = kx_read_decode_mode(r, m->decode_mode);
	request->decode_tolerance_us = kx_read_decode_tolerance(r, request->decode_mode, m->decode_tolerance_us);
	request->start_us = kx_read_us(r, "start_us", m->start_us);
	request->end_us = kx_read_us(r, "end_us", m->end_us);
	if (request->end_us != 0 && request->end_us <= request->start_us)
		kx_reader_fail(r, KX_ECORRUPT, "end_us", "not after start_us");
	request->width = kx_read_u32(r, "width", m->width, 0, KX_FRAME_SIDE_MAX);
	request->height = kx_read_u32(r, "height", m->height, 0, KX_FRAME_SIDE_MAX);
	request->ring_slots = kx_read_u32(r, "ring_slots", m->ring_slots, 1, KX_DECODE_SLOTS_MAX);
	request->slot_bytes = kx_read_u32(r, "slot_bytes", m->slot_bytes, 1, KX_DECODE_SLOT_BYTES_MAX);
}

static void kx_decode_request_read(struct kx_reader *r, const Kinodex__V1__DecodeRequest *m,
				   struct kx_decode_request *request)
{
	kx_read_version(r, m->version);
	request->ticket = m->ticket;
	request->purpose = (enum kx_decode_purpose)kx_read_u32(r, "purpose", m->purpose, KX_DECODE_PROBE,
							       KX_DECODE_INSPECT);
	if (request->purpose == KX_DECODE_SAMPLE)
		request_read_sampling(r, m, request);
	request->wall_limit_ms = m->wall_limit_ms;
	request->cpu_limit_ms = m->cpu_limit_ms;
	request->memory_limit_bytes = m->memory_limit_bytes;
	request->endpoint = kx_read_string(r, "endpoint", m->endpoint, 1, KX_TEXT_MAX);
	request->name = kx_read_string(r, "name", m->name, 0, KX_PATH_MAX);
}

static void kx_decode_request_clear(struct kx_decode_request *request)
{
	free(request->endpoint);
	free(request->name);
}

KX_RECORD_DEFINE(kx_decode_request, DecodeRequest, decode_request);

static Kinodex__V1__ProbeInfo *opened_write(struct kx_writer *w, const struct kx_probe_info *info)
{
	Kinodex__V1__ProbeInfo *m = KX_WRITER_NEW(w, probe_info);

	if (m == NULL)
		return NULL;
	m->container = info->container;
	m->duration_us = info->duration_us;
	m->video_codec = info->video_codec;
	m->width = info->width;
	m->height = info->height;
	m->frame_rate = info->frame_rate;
	m->audio_codec = info->audio_codec;
	m->sample_rate = info->sample_rate;
	m->channels = info->channels;
	m->splittable = info->splittable;
	m->has_visual = info->has_visual;
	m->has_audio = info->has_audio;
	return m;
}

static void opened_read(struct kx_reader *r, const Kinodex__V1__ProbeInfo *m, struct kx_probe_info *info)
{
	info->container = kx_read_string(r, "container", m->container, 0, KX_TEXT_MAX);
	info->duration_us = kx_read_us(r, "duration_us", m->duration_us);
	info->video_codec = kx_read_string(r, "video_codec", m->video_codec, 0, KX_TEXT_MAX);
	info->width = m->width;
	info->height = m->height;
	info->frame_rate = kx_read_double(r, "frame_rate", m->frame_rate, 0.0, DBL_MAX);
	info->audio_codec = kx_read_string(r, "audio_codec", m->audio_codec, 0, KX_TEXT_MAX);
	info->sample_rate = m->sample_rate;
	info->channels = m->channels;
	info->splittable = m->splittable;
	info->has_visual = m->has_visual;
	info->has_audio = m->has_audio;
}

static Kinodex__V1__Sample *sample_write(struct kx_writer *w, const struct kx_sample *sample)
{
	Kinodex__V1__Sample *m = KX_WRITER_NEW(w, sample);

	if (m == NULL)
		return NULL;
	m->index = sample->index;
	m->pts_us = sample->pts_us;
	m->error_us = sample->error_us;
	m->slot = sample->slot;
	return m;
}

static void sample_read(struct kx_reader *r, const Kinodex__V1__Sample *m, struct kx_sample *sample)
{
	sample->index = kx_read_us(r, "index", m->index);
	sample->pts_us = kx_read_us(r, "pts_us", m->pts_us);
	sample->error_us = kx_read_us(r, "error_us", m->error_us);
	sample->slot = kx_read_u32(r, "slot", m->slot, 0, KX_DECODE_SLOTS_MAX - 1);
}

static Kinodex__V1__DecodeEnd *end_write(struct kx_writer *w, const struct kx_decode_end *end)
{
	Kinodex__V1__DecodeEnd *m = KX_WRITER_NEW(w, decode_end);

	if (m == NULL)
		return NULL;
	m->reason = end->reason;
	m->retriable = end->retriable;
	m->message = end->message;
	m->visual_us = end->visual_us;
	m->audio_us = end->audio_us;
	m->truncated = end->truncated;
	m->frames_decoded = end->frames_decoded;
	m->frames_sampled = end->frames_sampled;
	m->patches = end->patches;
	return m;
}

static void end_read(struct kx_reader *r, const Kinodex__V1__DecodeEnd *m, struct kx_decode_end *end)
{
	end->reason = kx_read_reason(r, m->reason, KX_REASON_NONE);
	end->retriable = m->retriable;
	end->message = kx_read_string(r, "message", m->message, 0, KX_TEXT_MAX);
	end->visual_us = kx_read_us(r, "visual_us", m->visual_us);
	end->audio_us = kx_read_us(r, "audio_us", m->audio_us);
	end->truncated = m->truncated;
	end->frames_decoded = m->frames_decoded;
	end->frames_sampled = m->frames_sampled;
	end->patches = m->patches;
}

static Kinodex__V1__ProbeStream *stream_write(struct kx_writer *w, const struct kx_probe_stream *stream)
{
	Kinodex__V1__ProbeStream *m = KX_WRITER_NEW(w, probe_stream);

	if (m == NULL)
		return NULL;
	m->index = stream->index;
	m->kind = stream->kind;
	m->codec = stream->codec;
	m->profile = stream->profile;
	m->chosen = stream->chosen;
	m->note = stream->note;
	m->duration_us = stream->duration_us;
	m->start_us = stream->start_us;
	m->bit_rate = stream->bit_rate;
	m->packets = stream->packets;
	m->key_packets = stream->key_packets;
	m->width = stream->width;
	m->height = stream->height;
	m->aspect_num = stream->aspect_num;
	m->aspect_den = stream->aspect_den;
	m->rotation = stream->rotation;
	m->mirrored = stream->mirrored;
	m->frame_rate = stream->frame_rate;
	m->pixel_format = stream->pixel_format;
	m->range = stream->range;
	m->matrix = stream->matrix;
	m->primaries = stream->primaries;
	m->transfer = stream->transfer;
	m->field_order = stream->field_order;
	m->sample_rate = stream->sample_rate;
	m->channels = stream->channels;
	m->layout = stream->layout;
	m->sample_format = stream->sample_format;
	return m;
}

static void stream_read(struct kx_reader *r, const Kinodex__V1__ProbeStream *m, struct kx_probe_stream *stream)
{
	stream->index = m->index;
	stream->kind = kx_read_string(r, "kind", m->kind, 0, KX_TEXT_MAX);
	stream->codec = kx_read_string(r, "codec", m->codec, 0, KX_TEXT_MAX);
	stream->profile = kx_read_string(r, "profile", m->profile, 0, KX_TEXT_MAX);
	stream->chosen = m->chosen;
	stream->note = kx_read_string(r, "note", m->note, 0, KX_TEXT_MAX);
	stream->duration_us = kx_read_us(r, "duration_us", m->duration_us);
	stream->start_us = m->start_us;
	stream->bit_rate = m->bit_rate;
	stream->packets = m->packets;
	stream->key_packets = m->key_packets;
	stream->width = m->width;
	stream->height = m->height;
	stream->aspect_num = m->aspect_num;
	stream->aspect_den = m->aspect_den;
	stream->rotation = m->rotation;
	stream->mirrored = m->mirrored;
	stream->frame_rate = kx_read_double(r, "frame_rate", m->frame_rate, 0.0, DBL_MAX);
	stream->pixel_format = kx_read_string(r, "pixel_format", m->pixel_format, 0, KX_TEXT_MAX);
	stream->range = kx_read_string(r, "range", m->range, 0, KX_TEXT_MAX);
	stream->matrix = kx_read_string(r, "matrix", m->matrix, 0, KX_TEXT_MAX);
	stream->primaries = kx_read_string(r, "primaries", m->primaries, 0, KX_TEXT_MAX);
	stream->transfer = kx_read_string(r, "transfer", m->transfer, 0, KX_TEXT_MAX);
	stream->field_order = kx_read_string(r, "field_order", m->field_order, 0, KX_TEXT_MAX);
	stream->sample_rate = m->sample_rate;
	stream->channels = m->channels;
	stream->layout = kx_read_string(r, "layout", m->layout, 0, KX_TEXT_MAX);
	stream->sample_format = kx_read_string(r, "sample_format", m->sample_format, 0, KX_TEXT_MAX);
}

static void stream_clear(struct kx_probe_stream *stream)
{
	free(stream->kind);
	free(stream->codec);
	free(stream->profile);
	free(stream->note);
	free(stream->pixel_format);
	free(stream->range);
	free(stream->matrix);
	free(stream->primaries);
	free(stream->transfer);
	free(stream->field_order);
	free(stream->layout);
	free(stream->sample_format);
}

static Kinodex__V1__ProbeDetail *detail_write(struct kx_writer *w, const struct kx_probe_detail *detail)
{
	Kinodex__V1__ProbeDetail *m = KX_WRITER_NEW(w, probe_detail);

	if (m == NULL)
		return NULL;
	m->n_streams = detail->stream_count;
	m->streams = kx_writer_list(w, detail->stream_count);
	for (uint32_t i = 0; m->streams != NULL && i < detail->stream_count; i++)
		m->streams[i] = stream_write(w, &detail->streams[i]);
	m->packets_us = detail->packets_us;
	m->plan = detail->plan;
	return m;
}

static void detail_read(struct kx_reader *r, const Kinodex__V1__ProbeDetail *m, struct kx_probe_detail *detail)
{
	detail->streams = kx_read_list(r, "streams", m->n_streams, KX_PROBE_STREAMS_MAX, sizeof(*detail->streams),
				       &detail->stream_count);
	for (uint32_t i = 0; i < detail->stream_count && kx_reader_enter_item(r, "streams", i); i++) {
		stream_read(r, m->streams[i], &detail->streams[i]);
		kx_reader_leave(r);
	}
	detail->packets_us = kx_read_us(r, "packets_us", m->packets_us);
	detail->plan = kx_read_string(r, "plan", m->plan, 0, KX_TEXT_MAX);
}

static Kinodex__V1__DecodeEvent *kx_decode_event_write(struct kx_writer *w, const struct kx_decode_event *event)
{
	Kinodex__V1__DecodeEvent *m = KX_WRITER_NEW(w, decode_event);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->ticket = event->ticket;
	switch (event->kind) {
	case KX_DECODE_OPENED:
		m->body_case = KINODEX__V1__DECODE_EVENT__BODY_OPENED;
		m->opened = opened_write(w, &event->opened);
		return m;
	case KX_DECODE_FRAME:
		m->body_case = KINODEX__V1__DECODE_EVENT__BODY_FRAME;
		m->frame = sample_write(w, &event->sample);
		return m;
	case KX_DECODE_PATCH:
		m->body_case = KINODEX__V1__DECODE_EVENT__BODY_PATCH;
		m->patch = sample_write(w, &event->sample);
		return m;
	case KX_DECODE_END:
		m->body_case = KINODEX__V1__DECODE_EVENT__BODY_END;
		m->end = end_write(w, &event->end);
		return m;
	case KX_DECODE_DETAIL:
		m->body_case = KINODEX__V1__DECODE_EVENT__BODY_DETAIL;
		m->detail = detail_write(w, &event->detail);
		return m;
	}
	kx_writer_fail(w, KX_EINVAL);
	return m;
}

static void event_read_body(struct kx_reader *r, const Kinodex__V1__DecodeEvent *m,
			    struct kx_decode_event *event)
{
	switch (m->body_case) {
	case KINODEX__V1__DECODE_EVENT__BODY_OPENED:
		event->kind = KX_DECODE_OPENED;
		opened_read(r, m->opened, &event->opened);
		return;
	case KINODEX__V1__DECODE_EVENT__BODY_FRAME:
		event->kind = KX_DECODE_FRAME;
		sample_read(r, m->frame, &event->sample);
		return;
	case KINODEX__V1__DECODE_EVENT__BODY_PATCH:
		event->kind = KX_DECODE_PATCH;
		sample_read(r, m->patch, &event->sample);
		return;
	case KINODEX__V1__DECODE_EVENT__BODY_END:
		event->kind = KX_DECODE_END;
		end_read(r, m->end, &event->end);
		return;
	case KINODEX__V1__DECODE_EVENT__BODY_DETAIL:
		event->kind = KX_DECODE_DETAIL;
		detail_read(r, m->detail, &event->detail);
		return;
	default:
		kx_reader_fail(r, KX_ECORRUPT, NULL, "neither opened, frame, patch, end nor detail");
	}
}

static void kx_decode_event_read(struct kx_reader *r, const Kinodex__V1__DecodeEvent *m,
				 struct kx_decode_event *event)
{
	kx_read_version(r, m->version);
	event->ticket = m->ticket;
	if (kx_reader_enter(r, "body", m)) {
		event_read_body(r, m, event);
		kx_reader_leave(r);
	}
}

static void kx_decode_event_clear(struct kx_decode_event *event)
{
	kx_probe_info_done(&event->opened);
	free(event->end.message);
	kx_probe_detail_done(&event->detail);
}

KX_RECORD_DEFINE(kx_decode_event, DecodeEvent, decode_event);

kx_status kx_probe_info_copy(const struct kx_probe_info *from, struct kx_probe_info *to)
{
	struct kx_probe_info copy = *from;

	copy.container = kx_strdup(from->container != NULL ? from->container : "");
	copy.video_codec = kx_strdup(from->video_codec != NULL ? from->video_codec : "");
	copy.audio_codec = kx_strdup(from->audio_codec != NULL ? from->audio_codec : "");
	if (copy.container == NULL || copy.video_codec == NULL || copy.audio_codec == NULL) {
		kx_probe_info_done(&copy);
		return KX_ENOMEM;
	}
	*to = copy;
	return KX_OK;
}

void kx_probe_info_done(struct kx_probe_info *info)
{
	free(info->container);
	free(info->video_codec);
	free(info->audio_codec);
	memset(info, 0, sizeof(*info));
}

void kx_probe_detail_done(struct kx_probe_detail *detail)
{
	for (uint32_t i = 0; detail->streams != NULL && i < detail->stream_count; i++)
		stream_clear(&detail->streams[i]);
	free(detail->streams);
	free(detail->plan);
	memset(detail, 0, sizeof(*detail));
}
