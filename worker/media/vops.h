/* MPEG-4 part 2 with B-VOPs as AVI carries it: packets with the time of decoding alone, and often a B-VOP packed behind the
 * VOP that it leans on ("packed bitstream", a placeholder stands where it belongs). Here it becomes one VOP a packet, each with
 * its time of presentation. Layer: worker/media.
 *
 * AVI has one slot a frame, so the times follow from the order alone: a B-VOP is presented when it is decoded, any other
 * ("anchor") when the next one is (ISO/IEC 14496-2, 6.1.3.5). Packets are therefore held until that one has come. The first
 * picture is on screen in the first slot, as players have it, and the sound that goes with it. */
#ifndef KX_MEDIA_VOPS_H
#define KX_MEDIA_VOPS_H

#include <stdbool.h>

#include <libavcodec/bsf.h>

#include "common/base/error.h"

#define KX_VOPS_HELD_MAX 64

struct kx_vops {
	AVBSFContext *unpack; /* NULL: not open */
	/* Made when first needed. While none is ready, the first is an anchor without a time. A packet so short that it may be
	 * a VOP that is not coded, of which no picture comes, never gets one. */
	AVPacket *held[KX_VOPS_HELD_MAX];
	unsigned count;
	unsigned ready; /* of them, in front: to be taken */
	int64_t last_dts;
	int64_t delay; /* slots from the first VOP's decoding to its presentation, taken off all times; -1: not known yet */
};

/* Zeroed memory is one that is not open, which kx_vops_done() takes. KX_ENOMEM;
 * KX_EUNSUPPORTED: this libavcodec lacks the filter that unpacks. */
kx_status kx_vops_open(struct kx_vops *vops, const AVCodecParameters *codec, AVRational time_base) KX_MUST_CHECK;
void kx_vops_done(struct kx_vops *vops);

/* Takes the packet's reference. Only while kx_vops_take() has nothing to give. KX_ENOMEM. */
kx_status kx_vops_put(struct kx_vops *vops, AVPacket *packet) KX_MUST_CHECK;
/* The end: gives the last one its time. */
void kx_vops_finish(struct kx_vops *vops);
/* Moves the next packet with one VOP into *packet, in order of decoding. False: none until more is put. */
bool kx_vops_take(struct kx_vops *vops, AVPacket *packet);

#endif
