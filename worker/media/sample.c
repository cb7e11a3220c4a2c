#include "worker/media/sample.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "worker/media/audio.h"
#include "worker/media/gop.h"
#include "worker/media/keys.h"
#include "worker/media/probe.h"
#include "worker/media/scale.h"

#define FPS_MAX 1000.0
#define FPS_MIN 1e-6
#define SIDE_MAX 4096u
#define SPARSE_FPS 0.25 /* a wanted frame in several groups of pictures, as long as these mostly are */

struct sampler {
	const struct kx_decode_request *request;
	const struct kx_media_sink *sink;
	const struct kx_sample_options *options;
	struct kx_decode_end *end;
	struct kx_error *error;
	struct kx_input input;
	struct kx_packets packets;
	struct kx_video video;
	struct kx_picker picker;
	struct kx_gop *gop;   /* of pictures one of the two */
	struct kx_keys *keys;
	struct kx_scaler scaler;
	uint8_t *scaled;      /* a copy of the last frame as it was handed on, once it was asked for twice */
	int64_t scaled_us;    /* when it is presented; KX_NO_TIME: there is no copy */
	int64_t last_us;      /* when the last frame is that was handed on */
	struct kx_audio audio;
	struct kx_logmel *logmel;
	bool want_visual;
	bool want_audio;
	bool sink_failed;
};

static int64_t span_end(const struct sampler *sampler)
{
	uint64_t end = sampler->request->end_us;
	return end && end < (uint64_t)INT64_MAX ? (int64_t)end : INT64_MAX;
}

static kx_status sink_failure(struct sampler *sampler, kx_status status)
{
	sampler->sink_failed = status != KX_OK;
	return status;
}

/* Scales the frame. Where several grid points in a row get the same one, which few do, the second makes a copy for the
 * others. */
static kx_status put_pixels(struct sampler *sampler, const AVFrame *frame, int64_t pts_us, void *memory)
{
	size_t bytes = (size_t)sampler->request->width * sampler->request->height * 3;
	if (sampler->scaled_us == pts_us) {
		memcpy(memory, sampler->scaled, bytes);
		return KX_OK;
	}
	errno = 0;
	kx_status status = kx_scaler_run(&sampler->scaler, frame, memory, sampler->error);
	if (status && errno == ENOMEM) /* libswscale does not tell why it can't */
		return kx_error_nomem(sampler->error);
	if (status)
		return status;
	if (sampler->last_us == pts_us) {
		memcpy(sampler->scaled, memory, bytes);
		sampler->scaled_us = pts_us;
	}
	sampler->last_us = pts_us;
	return KX_OK;
}

static kx_status emit_frame(void *ctx, const AVFrame *frame, uint64_t k, int64_t grid_us, int64_t pts_us)
{
	struct sampler *sampler = ctx;
	void *memory = NULL;
	kx_status status = sampler->sink->acquire(sampler->sink->ctx, &memory);
	if (status)
		return sink_failure(sampler, status);
	status = put_pixels(sampler, frame, pts_us, memory);
	if (status)
		return kx_error_prefix(sampler->error, status, "%s", sampler->input.name);
	struct kx_sample sample = {
		.index = k,
		.pts_us = pts_us > 0 ? (uint64_t)pts_us : 0,
		.error_us = (uint64_t)llabs(grid_us - pts_us),
	};
	status = sampler->sink->frame(sampler->sink->ctx, &sample);
	if (!status)
		sampler->end->frames_sampled++;
	return sink_failure(sampler, status);
}

static kx_status emit_patch(void *ctx, uint64_t index, const float *patch)
{
	struct sampler *sampler = ctx;
	void *memory = NULL;
	kx_status status = sampler->sink->acquire(sampler->sink->ctx, &memory);
	if (status)
		return sink_failure(sampler, status);
	memcpy(memory, patch, KX_PATCH_BYTES);
	struct kx_sample sample = {.index = index, .pts_us = index * KX_PATCH_STEP_US};
	status = sampler->sink->patch(sampler->sink->ctx, &sample);
	if (!status)
		sampler->end->patches++;
	return sink_failure(sampler, status);
}

static kx_status check_request(const struct sampler *sampler)
{
	const struct kx_decode_request *request = sampler->request;
	bool visual = request->tracks & KX_TRACK_VISUAL;
	bool times = request->end_us == 0 || request->end_us > request->start_us;
	bool grid = request->fps >= FPS_MIN && request->fps <= FPS_MAX;
	bool size = request->width && request->height && request->width <= SIDE_MAX && request->height <= SIDE_MAX;
	if (!times || request->start_us > (uint64_t)INT64_MAX / 4 || (visual && (!grid || !size)))
		return kx_error_set(sampler->error, KX_EINVAL, KX_ERROR_FATAL,
				    "decode request out of range: %g frames/s, %ux%u, from %llu to %llu us",
				    request->fps,
				    request->width, request->height, (unsigned long long)request->start_us,
				    (unsigned long long)request->end_us);
	return KX_OK;
}

static kx_status open_visual(struct sampler *sampler)
{
	const struct kx_decode_request *request = sampler->request;
	struct kx_grid grid = {
		.fps = request->fps,
		.end_us = span_end(sampler),
		.tolerance_us = request->decode_mode == KX_DECODE_TOLERANT ? (int64_t)request->decode_tolerance_us : 0,
	};
	/* Without any times only decoding everything tells when the key frames are. */
	bool timed = sampler->packets.has_pts || sampler->packets.has_dts;
	kx_status status = kx_video_open(&sampler->video, &sampler->packets, sampler->error);
	if (status)
		return status;
	sampler->scaled = malloc((size_t)request->width * request->height * 3);
	sampler->scaled_us = KX_NO_TIME;
	sampler->last_us = KX_NO_TIME;
	if (!sampler->scaled ||
	    kx_picker_init(&sampler->picker, grid, kx_grid_from(&grid, (int64_t)request->start_us), emit_frame,
			   sampler) ||
	    kx_scaler_init(&sampler->scaler, request->width, request->height,
			   kx_probe_orientation(sampler->input.video)))
		return kx_error_nomem(sampler->error);
	if (request->decode_mode == KX_DECODE_KEYFRAME && timed)
		return kx_keys_new(&sampler->video, &sampler->picker, &sampler->keys, sampler->error);
	return kx_gop_new(&sampler->video, &sampler->picker, !sampler->options->decode_all, &sampler->gop,
			  sampler->error);
}

static kx_status open_audio(struct sampler *sampler)
{
	if (kx_logmel_new(emit_patch, sampler, &sampler->logmel))
		return kx_error_nomem(sampler->error);
	return kx_audio_open(&sampler->audio, &sampler->packets, sampler->logmel, sampler->error);
}

/* Sound is always decoded from the start, so only a request for pictures alone may jump ahead. */
static kx_status jump_ahead(struct sampler *sampler)
{
	uint64_t start = sampler->request->start_us;
	if (!sampler->want_visual || sampler->want_audio)
		return KX_OK;
	/* Matroska's index is read with the first seek: worth it where most of the file is to be passed over. */
	bool sparse = sampler->keys || sampler->request->fps <= SPARSE_FPS;
	if (!start && sparse && !sampler->options->decode_all && kx_input_is(&sampler->input, "matroska") &&
	    sampler->packets.has_pts)
		return kx_packets_seek(&sampler->packets, 0, sampler->error);
	if (!start)
		return KX_OK;
	bool moved = false;
	bool can = kx_probe_splittable(&sampler->packets, &moved);
	if (!can && !moved)
		return KX_OK;
	return kx_packets_seek(&sampler->packets, can ? (int64_t)start : 0, sampler->error);
}

static kx_status open_streams(struct sampler *sampler)
{
	struct kx_probe_info info = {0};
	struct kx_input *input = &sampler->input;
	kx_status status = kx_packets_open(&sampler->packets, input, sampler->error);
	if (!status)
		status = kx_probe_describe(&sampler->packets, false, &info, sampler->error);
	if (status)
		return status;
	sampler->want_visual = (sampler->request->tracks & KX_TRACK_VISUAL) && input->video;
	sampler->want_audio = (sampler->request->tracks & KX_TRACK_AUDIO) && input->audio;
	kx_input_discard_others(input, sampler->want_visual ? input->video : NULL,
				sampler->want_audio ? input->audio : NULL);
	if (sampler->want_visual)
		status = open_visual(sampler);
	if (!status && sampler->want_audio)
		status = open_audio(sampler);
	if (!status)
		status = sink_failure(sampler, sampler->sink->opened(sampler->sink->ctx, &info));
	if (!status)
		status = jump_ahead(sampler);
	kx_probe_info_done(&info);
	return status;
}

static bool visual_done(const struct sampler *sampler)
{
	if (!sampler->want_visual)
		return true;
	return sampler->keys ? kx_keys_satisfied(sampler->keys) : kx_gop_satisfied(sampler->gop);
}

static kx_status push_picture(struct sampler *sampler, AVPacket *packet)
{
	return sampler->keys ? kx_keys_push(sampler->keys, packet, sampler->error)
			     : kx_gop_push(sampler->gop, packet, sampler->error);
}

static kx_status finish_pictures(struct sampler *sampler)
{
	return sampler->keys ? kx_keys_finish(sampler->keys, sampler->error)
			     : kx_gop_finish(sampler->gop, sampler->error);
}

static kx_status push_packet(struct sampler *sampler, AVPacket *packet)
{
	struct kx_input *input = &sampler->input;
	if (sampler->want_visual && packet->stream_index == input->video->index) {
		kx_status status = push_picture(sampler, packet);
		if (!status && visual_done(sampler))
			kx_input_discard_others(input, NULL, sampler->want_audio ? input->audio : NULL);
		return status;
	}
	if (sampler->want_audio && packet->stream_index == input->audio->index)
		return kx_audio_push(&sampler->audio, packet, sampler->error);
	return KX_OK;
}

/* Over what is not wanted, by the container's index. Sound is read whole, so there is nothing to skip beside it. */
static kx_status skip_ahead(struct sampler *sampler)
{
	if (!sampler->want_visual || sampler->want_audio || sampler->options->decode_all || visual_done(sampler))
		return KX_OK;
	if (sampler->keys)
		return kx_keys_skip(sampler->keys, &sampler->packets, sampler->error);
	bool skipped = false;
	int64_t at;
	int64_t until = kx_gop_idle_until_us(sampler->gop, &at);
	if (until == KX_NO_TIME)
		return KX_OK;
	kx_status status = kx_packets_skip(&sampler->packets, at, until, &skipped, sampler->error);
	if (skipped)
		kx_gop_restart(sampler->gop);
	return status;
}

static kx_status pump(struct sampler *sampler)
{
	AVPacket *packet = av_packet_alloc();
	if (!packet)
		return kx_error_nomem(sampler->error);
	kx_status status = KX_OK;
	while (!status && (sampler->want_audio || !visual_done(sampler))) {
		status = kx_packets_next(&sampler->packets, packet, sampler->error);
		if (status)
			break;
		status = push_packet(sampler, packet);
		av_packet_unref(packet);
		if (!status)
			status = skip_ahead(sampler);
	}
	av_packet_free(&packet);
	if (status && status != KX_ENOTFOUND)
		return status;
	status = KX_OK;
	if (!visual_done(sampler))
		status = finish_pictures(sampler);
	if (!status && sampler->want_audio)
		status = kx_audio_push(&sampler->audio, NULL, sampler->error);
	return status;
}

/* MP4's index says where each sample should be: a file that ends before the last one was cut. */
static bool file_is_cut(const struct sampler *sampler, AVStream *stream)
{
	if (!kx_input_is(&sampler->input, "mov"))
		return false;
	int count = avformat_index_get_entries_count(stream);
	if (count <= 0)
		return false;
	const AVIndexEntry *last = avformat_index_get_entry(stream, count - 1);
	return last->pos > sampler->input.source.size - last->size;
}

static bool ends_early(const struct sampler *sampler, AVStream *stream, int64_t end_us, int64_t until_us)
{
	int64_t duration = kx_probe_duration_us(&sampler->packets, stream);
	int64_t expected = duration < until_us ? duration : until_us;
	int64_t slack = duration / 20 > 1000000 ? duration / 20 : 1000000;
	if (sampler->packets.damaged || file_is_cut(sampler, stream))
		slack = 100000;
	else if (sampler->input.format->duration_estimation_method == AVFMT_DURATION_FROM_BITRATE)
		return false;
	return expected - end_us > slack;
}

static void measure_visual(struct sampler *sampler)
{
	struct kx_decode_end *end = sampler->end;
	int64_t start = (int64_t)sampler->request->start_us;
	int64_t until = span_end(sampler);
	int64_t reached = sampler->keys ? kx_keys_end_us(sampler->keys) : kx_gop_end_us(sampler->gop);
	if (reached < 0) /* also KX_NO_TIME */
		reached = 0;
	int64_t covered = reached < until ? reached : until;
	end->frames_decoded = sampler->video.frames;
	end->visual_us = covered > start ? (uint64_t)(covered - start) : 0;
	if (start == 0 && !sampler->video.frames)
		end->visual_us = 0;
	if (sampler->picker.gap || ends_early(sampler, sampler->input.video, covered, until))
		end->truncated = true;
}

static void measure_audio(struct sampler *sampler)
{
	struct kx_decode_end *end = sampler->end;
	AVStream *stream = sampler->input.audio;
	int64_t reached = av_rescale((int64_t)sampler->audio.samples, 1000000, KX_LOGMEL_RATE);
	end->audio_us = (uint64_t)reached;
	/* A sound track may well be shorter than the picture: only its own duration counts. */
	bool own_duration = stream->duration > 0 || !sampler->input.video;
	if (sampler->audio.gap || (own_duration && ends_early(sampler, stream, reached, INT64_MAX)))
		end->truncated = true;
}

/* Streams that gave nothing at all are a failure; a span after the end of the video is not. */
static kx_status check_something_came(struct sampler *sampler)
{
	if (!sampler->want_visual && !sampler->want_audio)
		return KX_OK;
	bool picture = sampler->want_visual && (sampler->video.frames || sampler->request->start_us);
	bool sound = sampler->want_audio && sampler->audio.samples;
	if (picture || sound)
		return KX_OK;
	AVStream *stream = sampler->want_visual ? sampler->input.video : sampler->input.audio;
	if (sampler->want_visual && kx_video_refused_size(&sampler->video)) {
		sampler->end->reason = KX_REASON_TOO_LARGE;
		return kx_error_set(sampler->error, KX_ETOOBIG, KX_ERROR_POISON,
				    "%s: its pictures are larger than the container says, and over the limit of %d pixels",
				    sampler->input.name, KX_PIXELS_MAX);
	}
	bool cut = file_is_cut(sampler, stream);
	sampler->end->reason = cut ? KX_REASON_TRUNCATED : KX_REASON_NO_FRAMES;
	return kx_error_set(sampler->error, KX_ECORRUPT, KX_ERROR_POISON,
			    cut ? "%s: cut before anything could be decoded; copy or record the file again"
				: "%s: nothing could be decoded",
			    sampler->input.name);
}

/* Pictures that are missing for want of memory must not pass for a damaged file, or for a short one. */
static kx_status check_memory(struct sampler *sampler)
{
	if (!sampler->want_visual || !sampler->video.starved)
		return KX_OK;
	kx_error_nomem(sampler->error);
	return kx_error_prefix(sampler->error, KX_ENOMEM, "%s: decoding needs more than the limit", sampler->input.name);
}

static enum kx_reason reason_for(const struct sampler *sampler, kx_status status)
{
	if (sampler->sink_failed)
		return KX_REASON_INTERNAL;
	switch (status) {
	case KX_ENOMEM:
		return KX_REASON_MEMORY_LIMIT;
	case KX_EIO:
		return sampler->input.source.status ? sampler->input.source.reason : KX_REASON_INTERNAL;
	case KX_EUNSUPPORTED:
		return KX_REASON_UNSUPPORTED;
	case KX_ETOOBIG:
		return KX_REASON_TOO_LARGE;
	default:
		return sampler->input.source.status ? sampler->input.source.reason : KX_REASON_INTERNAL;
	}
}

static kx_status run(struct sampler *sampler)
{
	kx_status status = open_streams(sampler);
	if (!status)
		status = pump(sampler);
	/* Also after a failure: what was sunk stays, and these say how much there was. */
	if (sampler->gop || sampler->keys)
		measure_visual(sampler);
	if (sampler->audio.codec)
		measure_audio(sampler);
	if (!status)
		status = check_memory(sampler);
	return status ? status : check_something_came(sampler);
}

static void sampler_done(struct sampler *sampler)
{
	kx_gop_free(sampler->gop);
	kx_keys_free(sampler->keys);
	kx_picker_done(&sampler->picker);
	kx_scaler_done(&sampler->scaler);
	free(sampler->scaled);
	kx_video_done(&sampler->video);
	kx_audio_done(&sampler->audio);
	kx_logmel_free(sampler->logmel);
	kx_packets_done(&sampler->packets);
	kx_input_done(&sampler->input);
}

kx_status kx_sample_run(int fd, const struct kx_decode_request *request, const struct kx_media_sink *sink,
			const struct kx_sample_options *options, struct kx_decode_end *ret_end, struct kx_error *error)
{
	struct kx_error local = {0};
	struct sampler sampler = {
		.request = request,
		.sink = sink,
		.options = options,
		.end = ret_end,
		.error = error ? error : &local,
	};
	enum kx_reason reason = KX_REASON_NONE;
	*ret_end = (struct kx_decode_end){.reason = KX_REASON_NONE};
	kx_status status = check_request(&sampler);
	if (!status)
		status = kx_input_open(&sampler.input, fd, request->name, &reason, sampler.error);
	ret_end->reason = reason;
	if (!status)
		status = run(&sampler);
	if (status) {
		if (ret_end->reason == KX_REASON_NONE)
			ret_end->reason = reason_for(&sampler, status);
		ret_end->retriable = sampler.sink_failed || sampler.error->class == KX_ERROR_RETRY;
		/* Out of memory leaves NULL, which says no less. */
		ret_end->message = kx_strdup(sampler.error->message);
	}
	sampler_done(&sampler);
	return status;
}
