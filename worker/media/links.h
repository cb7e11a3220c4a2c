/* Who refers to whom among the frames of a group, where headers say it frame by frame: AV1 and HEVC.
 * Layer: worker/media, pure.
 *
 * A frame of AV1 names the seven slots that it refers to and those that it fills. Slots are followed from the key frame
 * that starts a group and fills all of them. A picture of HEVC names order counts. In both each reference is known to be
 * one frame of the group; where one is not, nothing is said of the group. */
#ifndef KX_MEDIA_LINKS_H
#define KX_MEDIA_LINKS_H

#include "worker/media/av1.h"
#include "worker/media/hevc.h"
#include "worker/media/select.h"

struct kx_links {
	uint16_t slots[KX_AV1_SLOTS]; /* the frame in each, by its place among the group's units */
	bool key[KX_AV1_SLOTS];       /* it is a key frame: shown again, it is a new start */
	int32_t anchor;               /* the order count that the next ones are told from */
	int32_t orders[KX_GROUP_UNITS_MAX]; /* of the group's units, from its first picture's on */
};

/* Both add the frames of the group's packet `packet`, which follow those of the packets before it. Where something is not
 * understood, group->linked becomes false and stays so; with packet 0 it starts anew. */
void kx_links_add_picture(struct kx_links *links, const struct kx_hevc_picture *picture, unsigned poc_bits, size_t packet,
			  struct kx_select_group *group);
void kx_links_add_unit(struct kx_links *links, const struct kx_av1_unit *unit, size_t packet,
		       struct kx_select_group *group);

#endif
