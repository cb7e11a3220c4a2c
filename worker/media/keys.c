#include "worker/media/keys.h"

#include <stdlib.h>

/* Behind a decoder's errors the packets' word on how far the video goes is believed for so long. */
#define SLACK_US (INT64_C(60) * 1000000)

struct kx_keys {
	struct kx_video *video;
	struct kx_picker *picker;
	AVPacket *held; /* the latest key frame: the next one says whether it is wanted */
	int64_t held_us;   /* KX_NO_TIME: none is held */
	int64_t before_us; /* the key frame before it */
	bool held_alone;   /* decoding may go on to it without forgetting what came before */
	AVFrame *frame;
	int64_t key_at;    /* in the container's index; AV_NOPTS_VALUE: nothing new to skip from */
	int64_t latest_us;  /* of all packets */
	int64_t end_us;     /* and when its frame ends */
	int64_t decoded_us; /* of the frames that came out */
};

kx_status kx_keys_new(struct kx_video *video, struct kx_picker *picker, struct kx_keys **ret_keys,
		      struct kx_error *error)
{
	struct kx_keys *keys = calloc(1, sizeof(*keys));
	if (!keys)
		return kx_error_nomem(error);
	*keys = (struct kx_keys){
		.video = video,
		.picker = picker,
		.held = av_packet_alloc(),
		.held_us = KX_NO_TIME,
		.before_us = KX_NO_TIME,
		.frame = av_frame_alloc(),
		.key_at = AV_NOPTS_VALUE,
		.latest_us = KX_NO_TIME,
		.end_us = KX_NO_TIME,
		.decoded_us = KX_NO_TIME,
	};
	video->trust_pts = true;
	if (!keys->held || !keys->frame) {
		kx_keys_free(keys);
		return kx_error_nomem(error);
	}
	*ret_keys = keys;
	return KX_OK;
}

void kx_keys_free(struct kx_keys *keys)
{
	if (!keys)
		return;
	av_packet_free(&keys->held);
	av_frame_free(&keys->frame);
	free(keys);
}

static kx_status receive_all(struct kx_keys *keys, struct kx_error *error)
{
	for (;;) {
		int64_t pts = 0;
		kx_status status = kx_video_receive(keys->video, keys->frame, &pts, error);
		if (status == KX_ENOTFOUND)
			return KX_OK;
		if (status)
			return status;
		if (pts > keys->decoded_us)
			keys->decoded_us = pts;
		status = kx_picker_push_nearest(keys->picker, keys->frame, pts);
		if (status)
			return status;
	}
}

static kx_status drain(struct kx_keys *keys, struct kx_error *error)
{
	if (!keys->video->dirty)
		return KX_OK;
	kx_status status = kx_video_send(keys->video, NULL, error);
	if (!status)
		status = receive_all(keys, error);
	kx_video_flush(keys->video);
	return status;
}

/* Half-way between two, the earlier is the nearest: the latest instant that is `from`'s. */
static int64_t middle(int64_t from, int64_t to)
{
	return from + (to - from) / 2;
}

/* Whether the held key frame is the nearest to a grid point that is still open, given the one after it. */
static bool held_wanted(const struct kx_keys *keys, int64_t next_us)
{
	const struct kx_grid *grid = &keys->picker->grid;
	int64_t from = keys->before_us == KX_NO_TIME ? 0 : middle(keys->before_us, keys->held_us) + 1;
	uint64_t k = kx_grid_from(grid, from);
	if (k < keys->picker->next)
		k = keys->picker->next;
	int64_t t = kx_grid_time(grid, k);
	return kx_grid_wants(grid, k) && t <= (next_us == KX_NO_TIME ? keys->latest_us : middle(keys->held_us, next_us));
}

/* Decodes the held key frame if it is wanted. next_us KX_NO_TIME: it is the last one. */
static kx_status settle_held(struct kx_keys *keys, int64_t next_us, struct kx_error *error)
{
	kx_status status = KX_OK;
	if (held_wanted(keys, next_us)) {
		/* Only what forgets by itself may follow what was decoded before: others would refer to it. */
		if (!keys->held_alone)
			status = drain(keys, error);
		if (!status)
			status = kx_video_send(keys->video, keys->held, error);
		if (!status)
			status = receive_all(keys, error);
	}
	av_packet_unref(keys->held);
	keys->before_us = keys->held_us;
	keys->held_us = KX_NO_TIME;
	return status;
}

static void note_time(struct kx_keys *keys, int64_t pts_us, int64_t duration)
{
	if (pts_us == KX_NO_TIME || pts_us < keys->latest_us)
		return;
	int64_t us = duration > 0 ? av_rescale_q(duration, keys->video->base, (AVRational){1, 1000000}) : 0;
	keys->latest_us = pts_us;
	keys->end_us = pts_us + (us > 0 ? us : keys->video->frame_us);
}

/* Once no grid point is nearer to the held key frame than to those before it, nothing more has to be decoded. */
static kx_status end_span(struct kx_keys *keys, struct kx_error *error)
{
	const struct kx_grid *grid = &keys->picker->grid;
	if (keys->before_us == KX_NO_TIME || kx_picker_satisfied(keys->picker) ||
	    kx_grid_wants(grid, kx_grid_from(grid, middle(keys->before_us, keys->held_us) + 1)))
		return KX_OK;
	kx_status status = drain(keys, error);
	return status ? status : kx_picker_advance(keys->picker, grid->end_us);
}

static kx_status push_key(struct kx_keys *keys, AVPacket *packet, int64_t pts_us, struct kx_error *error)
{
	const struct kx_picture_parser *parser = &keys->video->clock->parser;
	struct kx_picture picture = kx_picture_parse(parser, packet->data, (size_t)packet->size, true);
	kx_status status = keys->held_us != KX_NO_TIME ? settle_held(keys, pts_us, error) : KX_OK;
	if (status)
		return status;
	av_packet_unref(keys->held);
	av_packet_move_ref(keys->held, packet);
	keys->key_at = kx_packets_index_time(keys->video->clock, keys->held);
	keys->held_us = pts_us;
	keys->held_alone = picture.known && picture.independent;
	return end_span(keys, error);
}

kx_status kx_keys_push(struct kx_keys *keys, AVPacket *packet, struct kx_error *error)
{
	struct kx_video *video = keys->video;
	if (packet->pts == AV_NOPTS_VALUE || !video->clock->has_pts)
		packet->pts = packet->dts;
	int64_t pts = kx_packets_time(video->clock, packet->pts, video->base);
	kx_status status = KX_OK;
	if (!(packet->flags & AV_PKT_FLAG_DISCARD)) {
		note_time(keys, pts, packet->duration);
		if ((packet->flags & AV_PKT_FLAG_KEY) && pts != KX_NO_TIME && pts > keys->held_us)
			status = push_key(keys, packet, pts, error);
	}
	av_packet_unref(packet);
	return status;
}

kx_status kx_keys_finish(struct kx_keys *keys, struct kx_error *error)
{
	kx_status status = keys->held_us != KX_NO_TIME ? settle_held(keys, KX_NO_TIME, error) : KX_OK;
	if (!status)
		status = drain(keys, error);
	return status ? status : kx_picker_finish(keys->picker, keys->latest_us);
}

kx_status kx_keys_skip(struct kx_keys *keys, struct kx_packets *packets, struct kx_error *error)
{
	int64_t after = keys->key_at;
	keys->key_at = AV_NOPTS_VALUE;
	if (after == AV_NOPTS_VALUE)
		return KX_OK;
	bool skipped = false;
	return kx_packets_skip(packets, after, INT64_MAX, &skipped, error);
}

int64_t kx_keys_end_us(const struct kx_keys *keys)
{
	if (keys->video->errors && keys->end_us != KX_NO_TIME && keys->decoded_us < keys->end_us - SLACK_US)
		return keys->decoded_us;
	return keys->end_us;
}

bool kx_keys_satisfied(const struct kx_keys *keys)
{
	return kx_picker_satisfied(keys->picker) && kx_keys_end_us(keys) >= keys->picker->grid.end_us;
}
