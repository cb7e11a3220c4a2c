#include "worker/media/links.h"

#include <string.h>

#define NOBODY UINT16_MAX

static void fill_slots(struct kx_links *links, const struct kx_av1_frame *frame, size_t unit)
{
	for (unsigned slot = 0; slot < KX_AV1_SLOTS; slot++) {
		if (!(frame->fills >> slot & 1u))
			continue;
		links->slots[slot] = (uint16_t)unit;
		links->key[slot] = frame->key;
	}
}

static bool add_frame(struct kx_links *links, const struct kx_av1_frame *frame, size_t packet,
		      struct kx_select_group *group)
{
	struct kx_select_unit unit = {.packet = (uint16_t)packet, .shown = frame->shown};
	if (frame->odd || group->unit_count == KX_GROUP_UNITS_MAX)
		return false;
	for (unsigned i = 0; i < frame->ref_count; i++) {
		unsigned slot = frame->refs[i];
		if (links->slots[slot] == NOBODY || (frame->again && links->key[slot]))
			return false;
		unit.refs[unit.ref_count++] = links->slots[slot];
	}
	fill_slots(links, frame, group->unit_count);
	group->units[group->unit_count++] = unit;
	return true;
}

void kx_links_add(struct kx_links *links, const struct kx_av1_unit *unit, size_t packet, struct kx_select_group *group)
{
	if (packet == 0) {
		memset(links->slots, 0xff, sizeof(links->slots));
		group->unit_count = 0;
		group->linked = true;
	}
	if (unit->bad || unit->frames > KX_AV1_FRAMES_MAX)
		group->linked = false;
	for (unsigned i = 0; i < unit->frames && group->linked; i++)
		group->linked = add_frame(links, &unit->frame[i], packet, group);
}
