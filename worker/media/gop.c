#include "worker/media/gop.h"

#include <stdlib.h>
#include <string.h>

#include "worker/media/links.h"

#define GROUP_BYTES_MAX (32u << 20)
#define MISSES_MAX 3u
#define SPAN_MAX_US (INT64_C(1) << 50) /* a frame that stands for longer than times reach has no duration */

struct group {
	AVPacket *packets[KX_GROUP_PACKETS_MAX]; /* made when first needed, then filled by reference */
	struct kx_select_group select;           /* select.count is the number of packets */
	struct kx_links links;
	size_t bytes;
	bool known;  /* every picture was understood */
	bool sent;   /* over the cap: its packets went to the decoder as they came */
	bool filled; /* there is such a group */
};

struct kx_gop {
	struct kx_video *video;
	struct kx_picker *picker;
	struct group *current; /* complete, to be decoded */
	struct group *next;    /* being collected */
	struct kx_select_group before; /* a copy, while frames of the group before are inside the decoder */
	struct kx_select_plan plan;
	AVFrame *frame;
	bool selective;
	bool unsure_tail;   /* the last packet may be cut without saying so */
	bool ending;        /* `next` is the last group */
	unsigned misses;    /* groups that did not come out as planned */
	int64_t before_us;  /* the latest time of the groups before `next` */
	int64_t latest_us;  /* the latest of all packets so far */
	int64_t end_us;     /* and when its frame ends */
	int64_t decoded_end_us; /* for streams whose packets do not say */
};

static void group_free(struct group *group)
{
	if (!group)
		return;
	for (size_t i = 0; i < KX_GROUP_PACKETS_MAX; i++)
		av_packet_free(&group->packets[i]);
	free(group);
}

static void group_clear(struct group *group)
{
	for (size_t i = 0; i < group->select.count; i++)
		av_packet_unref(group->packets[i]);
	group->select.count = 0;
	group->select.time_count = 0;
	group->select.usable = false;
	group->select.independent = false;
	group->select.linked = false;
	group->select.unit_count = 0;
	group->bytes = 0;
	group->known = true;
	group->sent = false;
	group->filled = false;
}

kx_status kx_gop_new(struct kx_video *video, struct kx_picker *picker, bool selective, struct kx_gop **ret_gop,
		     struct kx_error *error)
{
	struct kx_gop *gop = calloc(1, sizeof(*gop));
	if (!gop)
		return kx_error_nomem(error);
	*gop = (struct kx_gop){
		.video = video,
		.picker = picker,
		.current = calloc(1, sizeof(struct group)),
		.next = calloc(1, sizeof(struct group)),
		.frame = av_frame_alloc(),
		.selective = selective && video->clock->has_pts && video->clock->parser.codec != KX_PICTURE_NONE,
		.unsure_tail = kx_input_is(video->clock->input, "mpegts") || kx_input_is(video->clock->input, "mpeg"),
		.before_us = KX_NO_TIME,
		.latest_us = KX_NO_TIME,
		.end_us = KX_NO_TIME,
		.decoded_end_us = KX_NO_TIME,
	};
	if (!gop->current || !gop->next || !gop->frame) {
		kx_gop_free(gop);
		return kx_error_nomem(error);
	}
	group_clear(gop->current);
	group_clear(gop->next);
	*ret_gop = gop;
	return KX_OK;
}

void kx_gop_free(struct kx_gop *gop)
{
	if (!gop)
		return;
	group_free(gop->current);
	group_free(gop->next);
	av_frame_free(&gop->frame);
	free(gop);
}

static int64_t frame_span(const struct kx_gop *gop, int64_t ticks)
{
	int64_t us = ticks > 0 ? av_rescale_q(ticks, gop->video->base, (AVRational){1, 1000000}) : 0;
	return us > 0 && us < SPAN_MAX_US ? us : gop->video->frame_us;
}

/* Grid points have a tolerance. */
static bool chooses(const struct kx_gop *gop)
{
	return gop->picker->grid.tolerance_us > 0;
}

/* Hands everything that the decoder has ready to the picker. */
static kx_status receive_all(struct kx_gop *gop, struct kx_error *error)
{
	for (;;) {
		int64_t pts = 0;
		kx_status status = kx_video_receive(gop->video, gop->frame, &pts, error);
		if (status == KX_ENOTFOUND)
			return KX_OK;
		if (status)
			return status;
		int64_t end = pts + frame_span(gop, gop->frame->pkt_duration);
		if (end > gop->decoded_end_us)
			gop->decoded_end_us = end;
		status = chooses(gop) && gop->picker->expected ? kx_picker_push_chosen(gop->picker, gop->frame, pts)
							       : kx_picker_push(gop->picker, gop->frame, pts);
		if (status)
			return status;
	}
}

static kx_status send_packet(struct kx_gop *gop, const AVPacket *packet, struct kx_error *error)
{
	/* Without times in the packets only decoding tells how far the video goes. */
	if (kx_picker_satisfied(gop->picker) && gop->video->clock->has_pts)
		return KX_OK;
	kx_status status = kx_video_send(gop->video, packet, error);
	return status ? status : receive_all(gop, error);
}

static kx_status drain(struct kx_gop *gop, struct kx_error *error)
{
	if (!gop->video->dirty)
		return KX_OK;
	kx_status status = send_packet(gop, NULL, error);
	kx_video_flush(gop->video);
	return status;
}

static kx_status send_group(struct kx_gop *gop, const struct group *group, struct kx_error *error)
{
	kx_status status = KX_OK;
	for (size_t i = 0; i < group->select.count && !status; i++)
		status = send_packet(gop, group->packets[i], error);
	return status;
}

/* The packet without the frames that keep[] does not want. */
static kx_status send_stripped(struct kx_gop *gop, const AVPacket *packet, const bool *keep, size_t frames,
			       struct kx_error *error)
{
	AVPacket *part = av_packet_alloc();
	kx_status status = KX_OK;
	if (!part || av_new_packet(part, packet->size) < 0 || av_packet_copy_props(part, packet) < 0) {
		status = kx_error_nomem(error);
	} else {
		size_t size = kx_av1_unit_strip(packet->data, (size_t)packet->size, keep, frames, part->data);
		av_shrink_packet(part, (int)size);
		status = send_packet(gop, part, error);
	}
	av_packet_free(&part);
	return status;
}

/* Packets of a linked group go in frame by frame. */
static kx_status send_linked(struct kx_gop *gop, const struct group *group, struct kx_error *error)
{
	const struct kx_select_group *select = &group->select;
	kx_status status = KX_OK;
	for (size_t i = 0, from = 0, to; i < select->count && !status; i++, from = to) {
		bool all = true;
		for (to = from; to < select->unit_count && select->units[to].packet == i; to++)
			all &= gop->plan.keep_units[to];
		if (all && gop->plan.keep[i])
			status = send_packet(gop, group->packets[i], error);
		else if (gop->plan.keep[i])
			status = send_stripped(gop, group->packets[i], gop->plan.keep_units + from, to - from, error);
	}
	return status;
}

static kx_status send_planned(struct kx_gop *gop, const struct group *group, struct kx_error *error)
{
	kx_status status = KX_OK;
	if (group->select.linked)
		return send_linked(gop, group, error);
	for (size_t i = 0; i < group->select.count && !status; i++)
		if (gop->plan.keep[i])
			status = send_packet(gop, group->packets[i], error);
	return status;
}

/* What ends a group: the frames it still has inside the decoder come out, unless the next one follows on. */
static kx_status end_group(struct kx_gop *gop, const struct group *next, bool follows_on, struct kx_error *error)
{
	kx_status status = KX_OK;
	if (!follows_on)
		status = drain(gop, error);
	if (status)
		return status;
	if (!next)
		return kx_picker_finish(gop->picker, gop->picker->expected ? gop->latest_us : KX_NO_TIME);
	return !follows_on && next->select.usable ? kx_picker_advance(gop->picker, next->select.times[0]) : KX_OK;
}

/* A planned frame did not come out: the packets do not mean what they say. Decodes the group again, all of it. Grid
 * points that have their frame keep it. One such group is the start of a cut recording; several are a stream whose
 * plans can't be trusted. */
static kx_status decode_again(struct kx_gop *gop, const struct group *next, bool next_needs, struct kx_error *error)
{
	if (++gop->misses > MISSES_MAX)
		gop->selective = false;
	gop->picker->expected = NULL;
	gop->picker->before = NULL;
	gop->picker->missed = false;
	kx_picker_forget(gop->picker);
	kx_video_flush(gop->video);
	kx_status status = send_group(gop, gop->current, error);
	return status ? status : end_group(gop, next, next && (!gop->selective || next_needs), error);
}

/* With a tolerance: the chosen frames are all out, or the next group follows on and they come with its. */
static kx_status end_chosen(struct kx_gop *gop, bool follows_on, struct kx_error *error)
{
	kx_status status = follows_on ? KX_OK : drain(gop, error);
	if (!status && !follows_on)
		status = kx_picker_check_chosen(gop->picker);
	gop->picker->before = NULL;
	if (follows_on) {
		gop->before = gop->current->select;
		gop->picker->before = &gop->before;
	}
	return status;
}

/* What a group that was decoded whole left open before this one begins. */
static kx_status close_held(struct kx_gop *gop)
{
	kx_status status = kx_picker_advance(gop->picker, gop->current->select.times[0]);
	kx_picker_forget(gop->picker);
	return status;
}

static kx_status decode_planned(struct kx_gop *gop, const struct group *next, bool next_needs, struct kx_error *error)
{
	kx_status status = chooses(gop) ? close_held(gop) : KX_OK;
	if (status)
		return status;
	kx_select_plan(&gop->current->select, next ? &next->select : NULL, &gop->picker->grid, gop->picker->next,
		       next_needs, &gop->plan);
	gop->picker->expected = &gop->current->select;
	gop->picker->follows = next ? &next->select : NULL;
	status = send_planned(gop, gop->current, error);
	if (!status)
		status = chooses(gop) ? end_chosen(gop, next_needs, error) : end_group(gop, next, next_needs, error);
	gop->picker->expected = NULL;
	return gop->picker->missed ? decode_again(gop, next, next_needs, error) : status;
}

/* Of a cut picture the decoder makes up what is missing out of earlier ones: where it is wanted, or whether there is one
 * at all decides about a grid point, the last two groups have to be decoded whole. */
static bool tail_matters(struct kx_gop *gop, const struct group *last)
{
	const struct kx_select_group *select = &last->select;
	const struct kx_grid *grid = &gop->picker->grid;
	if (!gop->unsure_tail || !select->usable)
		return gop->unsure_tail;
	kx_select_plan(select, NULL, grid, gop->picker->next, false, &gop->plan);
	if (gop->plan.keep[select->count - 1])
		return true;
	int64_t before = select->time_count > 1 ? select->times[select->time_count - 2] : KX_NO_TIME;
	uint64_t k = kx_grid_from(grid, before == KX_NO_TIME ? 0 : before + 1);
	return kx_grid_wants(grid, k) && kx_grid_time(grid, k) <= select->times[select->time_count - 1];
}

/* Decodes the current group, given the one after it (NULL at the end). */
static kx_status decode_group(struct kx_gop *gop, const struct group *next, struct kx_error *error)
{
	struct group *current = gop->current;
	if (!current->filled || kx_picker_satisfied(gop->picker))
		return KX_OK;
	bool next_usable = !next || (next->select.usable && !next->sent);
	bool next_needs = next && (!next_usable ? !next->select.independent
						: kx_select_needs(&next->select, &gop->picker->grid,
								  gop->picker->next));
	bool certain = next && !gop->ending ? true : !tail_matters(gop, next ? next : current);
	if (gop->selective && current->select.usable && next_usable && certain && !current->sent)
		return decode_planned(gop, next, next_needs, error);
	kx_status status = current->sent ? KX_OK : send_group(gop, current, error);
	if (status)
		return status;
	/* All of it went in, so the next may follow on; it must start anew only if it may be left out itself. */
	bool follows_on = next && (!gop->selective || !next_usable || next_needs || !certain);
	return end_group(gop, next, follows_on, error);
}

static void note_time(struct kx_gop *gop, int64_t pts_us, int64_t duration_ticks)
{
	if (pts_us == KX_NO_TIME || pts_us < gop->latest_us)
		return;
	gop->latest_us = pts_us;
	gop->end_us = pts_us + frame_span(gop, duration_ticks);
}

/* `next` is complete: decodes the group before it and makes it the current one. */
static kx_status turn_over(struct kx_gop *gop, bool known, struct kx_error *error)
{
	struct group *next = gop->next;
	kx_select_check(&next->select, gop->before_us, known && next->known);
	kx_status status = decode_group(gop, next, error);
	group_clear(gop->current);
	gop->next = gop->current;
	gop->current = next;
	gop->before_us = gop->latest_us;
	return status;
}

/* A group over the cap goes to the decoder as it comes, and so does the rest of it. */
static kx_status spill(struct kx_gop *gop, struct kx_error *error)
{
	kx_status status = turn_over(gop, false, error);
	if (!status)
		status = send_group(gop, gop->current, error);
	bool independent = gop->current->select.independent;
	group_clear(gop->current);
	gop->current->filled = true;
	gop->current->sent = true;
	gop->current->select.independent = independent;
	return status;
}

/* What the packet's headers say about whom its frames refer to. */
static void add_links(struct kx_gop *gop, const AVPacket *packet, size_t at)
{
	const struct kx_picture_parser *parser = &gop->video->clock->parser;
	struct group *group = gop->next;
	size_t len = (size_t)packet->size;
	if (parser->codec == KX_PICTURE_AV1) {
		struct kx_av1_unit unit = kx_av1_unit_read(&parser->sequence, packet->data, len);
		kx_links_add_unit(&group->links, &unit, at, &group->select);
	} else if (parser->codec == KX_PICTURE_HEVC) {
		struct kx_hevc_picture picture =
			kx_hevc_picture_read(&parser->hevc, packet->data, len, parser->length_size);
		kx_links_add_picture(&group->links, &picture, parser->hevc.poc_bits, at, &group->select);
	}
}

static kx_status add_packet(struct kx_gop *gop, AVPacket *packet, const struct kx_picture *picture, int64_t pts_us,
			    struct kx_error *error)
{
	struct group *group = gop->next;
	AVPacket **kept = &group->packets[group->select.count];
	if (!*kept && !(*kept = av_packet_alloc()))
		return kx_error_nomem(error);
	if (!group->filled) {
		group->filled = true;
		group->select.independent = picture->independent;
		group->known = picture->starts;
	}
	/* Of what was cut or damaged the decoder may make less than its headers say. */
	if (!picture->known || (packet->flags & AV_PKT_FLAG_CORRUPT) ||
	    av_packet_get_side_data(packet, AV_PKT_DATA_NEW_EXTRADATA, NULL))
		group->known = false;
	group->select.packets[group->select.count++] = (struct kx_select_packet){
		.pts_us = pts_us,
		.shown = !(packet->flags & AV_PKT_FLAG_DISCARD),
		.droppable = picture->droppable,
		.params = picture->params,
		.reorders = picture->reorders,
		.layer = picture->layer,
	};
	add_links(gop, packet, group->select.count - 1);
	group->bytes += (size_t)packet->size;
	av_packet_move_ref(*kept, packet);
	return KX_OK;
}

/* No plan is to be made any more: what was collected goes in, and from here on each packet as it comes. */
static kx_status push_direct(struct kx_gop *gop, AVPacket *packet, struct kx_error *error)
{
	kx_status status = KX_OK;
	if (gop->current->filled && !gop->current->sent)
		status = send_group(gop, gop->current, error);
	if (!status && gop->next->filled)
		status = send_group(gop, gop->next, error);
	group_clear(gop->current);
	group_clear(gop->next);
	if (!status)
		status = send_packet(gop, packet, error);
	return status;
}

static kx_status push_grouped(struct kx_gop *gop, AVPacket *packet, int64_t pts_us, struct kx_error *error)
{
	struct kx_picture picture = kx_picture_parse(&gop->video->clock->parser, packet->data, (size_t)packet->size,
						     packet->flags & AV_PKT_FLAG_KEY);
	kx_status status = KX_OK;
	if (picture.starts && gop->next->filled)
		status = turn_over(gop, true, error);
	else if (!picture.starts && gop->current->sent && !gop->next->filled)
		return send_packet(gop, packet, error);
	if (status)
		return status;
	status = add_packet(gop, packet, &picture, pts_us, error);
	if (status)
		return status;
	if (gop->next->select.count == KX_GROUP_PACKETS_MAX || gop->next->bytes > GROUP_BYTES_MAX)
		status = spill(gop, error);
	return status;
}

kx_status kx_gop_push(struct kx_gop *gop, AVPacket *packet, struct kx_error *error)
{
	int64_t pts = kx_packets_time(gop->video->clock, packet->pts, gop->video->base);
	int64_t duration = packet->duration;
	bool shown = !(packet->flags & AV_PKT_FLAG_DISCARD);
	kx_status status = gop->selective ? push_grouped(gop, packet, pts, error) : push_direct(gop, packet, error);
	av_packet_unref(packet);
	if (shown)
		note_time(gop, pts, duration);
	return status;
}

kx_status kx_gop_finish(struct kx_gop *gop, struct kx_error *error)
{
	kx_status status = KX_OK;
	gop->ending = true;
	if (gop->next->filled)
		status = turn_over(gop, true, error);
	if (status || kx_picker_satisfied(gop->picker))
		return status;
	return gop->current->filled ? decode_group(gop, NULL, error) : end_group(gop, NULL, false, error);
}

int64_t kx_gop_idle_until_us(const struct kx_gop *gop, int64_t *ret_at)
{
	const struct group *current = gop->current;
	const struct group *next = gop->next;
	if (!gop->selective || kx_picker_satisfied(gop->picker) || next->select.count != 1 || next->sent ||
	    !current->filled || current->sent || !current->select.usable || !next->known)
		return KX_NO_TIME;
	int64_t t = kx_grid_time(&gop->picker->grid, gop->picker->next) - gop->picker->grid.tolerance_us;
	*ret_at = kx_packets_index_time(gop->video->clock, next->packets[0]);
	return next->select.packets[0].pts_us != KX_NO_TIME && t > next->select.packets[0].pts_us &&
			       *ret_at != AV_NOPTS_VALUE
		       ? t
		       : KX_NO_TIME;
}

void kx_gop_restart(struct kx_gop *gop)
{
	group_clear(gop->current);
	group_clear(gop->next);
	gop->picker->before = NULL;
	kx_picker_forget(gop->picker);
	if (gop->video->dirty)
		kx_video_flush(gop->video);
}

int64_t kx_gop_end_us(const struct kx_gop *gop)
{
	if (!gop->video->clock->has_pts)
		return gop->decoded_end_us;
	/* After damage the packets' word is not enough; frames are decoded at least once between grid points. */
	int64_t slack = 2000000 + (int64_t)(2e6 / gop->picker->grid.fps) + 2 * gop->picker->grid.tolerance_us;
	if (gop->video->errors && gop->end_us != KX_NO_TIME && gop->decoded_end_us < gop->end_us - slack)
		return gop->decoded_end_us;
	return gop->end_us;
}

bool kx_gop_satisfied(const struct kx_gop *gop)
{
	return kx_picker_satisfied(gop->picker) && kx_gop_end_us(gop) >= gop->picker->grid.end_us;
}
