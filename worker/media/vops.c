#include "worker/media/vops.h"

#include <string.h>

/* A placeholder is at most so long (libavcodec's own measure). Whether a VOP that short is coded at all, only decoding tells. */
#define PLACEHOLDER_BYTES_MAX 19

#define SLOTS_MAX (INT64_C(1) << 50)

enum vop { VOP_NONE, VOP_B, VOP_ANCHOR };

/* Of the first VOP in the packet. */
static enum vop vop_of(const AVPacket *packet)
{
	const uint8_t *bytes = packet->data;
	for (int i = 0; i + 4 < packet->size; i++) {
		if (bytes[i] == 0 && bytes[i + 1] == 0 && bytes[i + 2] == 1 && bytes[i + 3] == 0xb6)
			return bytes[i + 4] >> 6 == 2 ? VOP_B : VOP_ANCHOR;
	}
	return VOP_NONE;
}

kx_status kx_vops_open(struct kx_vops *vops, const AVCodecParameters *codec, AVRational time_base)
{
	*vops = (struct kx_vops){.last_dts = AV_NOPTS_VALUE, .delay = -1};
	const AVBitStreamFilter *filter = av_bsf_get_by_name("mpeg4_unpack_bframes");
	int code = filter ? av_bsf_alloc(filter, &vops->unpack) : AVERROR_BSF_NOT_FOUND;
	if (code >= 0)
		code = avcodec_parameters_copy(vops->unpack->par_in, codec);
	if (code >= 0) {
		vops->unpack->time_base_in = time_base;
		code = av_bsf_init(vops->unpack);
	}
	if (code >= 0)
		return KX_OK;
	kx_vops_done(vops);
	return code == AVERROR(ENOMEM) ? KX_ENOMEM : KX_EUNSUPPORTED;
}

void kx_vops_done(struct kx_vops *vops)
{
	av_bsf_free(&vops->unpack);
	for (unsigned i = 0; i < KX_VOPS_HELD_MAX; i++)
		av_packet_free(&vops->held[i]);
	vops->count = vops->ready = 0;
}

static bool is_short(const AVPacket *packet)
{
	return packet->size <= PLACEHOLDER_BYTES_MAX;
}

/* The anchor that waits in front is presented at `pts`; it and what came after it may go. */
static void release(struct kx_vops *vops, int64_t pts)
{
	if (vops->count > 0 && !is_short(vops->held[0]))
		vops->held[0]->pts = pts;
	if (vops->count > 0 && vops->delay < 0) {
		int64_t dts = vops->held[0]->dts;
		vops->delay = pts != AV_NOPTS_VALUE && dts != AV_NOPTS_VALUE && pts > dts ? pts - dts : 0;
	}
	vops->ready = vops->count;
}

static kx_status keep(struct kx_vops *vops, AVPacket *packet)
{
	AVPacket **slot = &vops->held[vops->count];
	if (!*slot && !(*slot = av_packet_alloc()))
		return KX_ENOMEM;
	av_packet_move_ref(*slot, packet);
	vops->count++;
	return KX_OK;
}

static kx_status put_vop(struct kx_vops *vops, AVPacket *packet)
{
	enum vop vop = vop_of(packet);
	/* A number of a slot is never that large; sums of those that are not can't overflow. */
	int64_t dts = packet->dts > -SLOTS_MAX && packet->dts < SLOTS_MAX ? packet->dts : AV_NOPTS_VALUE;
	packet->dts = dts;
	if (dts != AV_NOPTS_VALUE)
		vops->last_dts = dts;
	if (vop == VOP_NONE) { /* a slot that the encoder left empty while it looked ahead */
		av_packet_unref(packet);
		return KX_OK;
	}
	packet->pts = vop == VOP_B && !is_short(packet) ? dts : AV_NOPTS_VALUE;
	if (vop == VOP_ANCHOR)
		release(vops, dts);
	bool waits = vop == VOP_ANCHOR || vops->count > 0;
	kx_status status = keep(vops, packet);
	if (!status && !waits) /* no anchor is in front */
		vops->ready = 1;
	else if (!status && vops->count == KX_VOPS_HELD_MAX)
		release(vops, AV_NOPTS_VALUE);
	return status;
}

kx_status kx_vops_put(struct kx_vops *vops, AVPacket *packet)
{
	int code = av_bsf_send_packet(vops->unpack, packet);
	if (code < 0)
		av_packet_unref(packet);
	while (code >= 0 && (code = av_bsf_receive_packet(vops->unpack, packet)) >= 0) {
		if (put_vop(vops, packet)) {
			av_packet_unref(packet);
			return KX_ENOMEM;
		}
	}
	return code == AVERROR(ENOMEM) ? KX_ENOMEM : KX_OK;
}

void kx_vops_finish(struct kx_vops *vops)
{
	if (vops->count == 0)
		return;
	int64_t slot = vops->held[0]->duration;
	if (slot <= 0 || slot >= SLOTS_MAX)
		slot = 1;
	release(vops, vops->last_dts == AV_NOPTS_VALUE ? AV_NOPTS_VALUE : vops->last_dts + slot);
}

bool kx_vops_take(struct kx_vops *vops, AVPacket *packet)
{
	if (vops->ready == 0)
		return false;
	AVPacket *first = vops->held[0];
	av_packet_move_ref(packet, first);
	if (packet->pts != AV_NOPTS_VALUE && vops->delay > 0)
		packet->pts -= vops->delay;
	vops->ready--;
	vops->count--;
	memmove(vops->held, vops->held + 1, vops->count * sizeof(vops->held[0]));
	vops->held[vops->count] = first;
	return true;
}
