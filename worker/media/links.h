/* Who refers to whom among the frames of a group, where headers say it frame by frame: AV1. Layer: worker/media, pure.
 *
 * A frame names the seven slots that it refers to and those that it fills. Slots are followed from the key frame that
 * starts a group and fills all of them, so that each reference is known to be one frame of the group. */
#ifndef KX_MEDIA_LINKS_H
#define KX_MEDIA_LINKS_H

#include "worker/media/av1.h"
#include "worker/media/select.h"

struct kx_links {
	uint16_t slots[KX_AV1_SLOTS]; /* the frame in each, by its place among the group's units */
	bool key[KX_AV1_SLOTS];       /* it is a key frame: shown again, it is a new start */
};

/* Adds the frames of the group's packet `packet`, which follow those of the packets before it. Where something is not
 * understood, group->linked becomes false and stays so; with packet 0 it starts anew. */
void kx_links_add(struct kx_links *links, const struct kx_av1_unit *unit, size_t packet, struct kx_select_group *group);

#endif
