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

static void begin(struct kx_links *links, struct kx_select_group *group)
{
	memset(links->slots, 0xff, sizeof(links->slots));
	links->anchor = 0;
	group->unit_count = 0;
	group->linked = true;
}

/* 8.3.1: of all order counts that end so the nearest to the anchor's. */
static int32_t order_of(const struct kx_links *links, const struct kx_hevc_picture *picture, unsigned poc_bits)
{
	int32_t range = (int32_t)1 << poc_bits;
	int32_t low = links->anchor & (range - 1);
	int32_t lsb = (int32_t)picture->lsb;
	int32_t high = links->anchor - low;
	if (lsb < low && low - lsb >= range / 2)
		high += range;
	else if (lsb > low && lsb - low > range / 2)
		high -= range;
	return high + lsb;
}

/* The latest unit of that order count; NOBODY: there is none. */
static uint16_t find_order(const struct kx_links *links, const struct kx_select_group *group, int32_t order)
{
	for (size_t i = group->unit_count; i-- > 0;)
		if (links->orders[i] == order)
			return (uint16_t)i;
	return NOBODY;
}

static bool add_picture(struct kx_links *links, const struct kx_hevc_picture *picture, unsigned poc_bits, size_t packet,
			struct kx_select_group *group)
{
	struct kx_select_unit unit = {.packet = (uint16_t)packet, .shown = true};
	if (!picture->known || group->unit_count == KX_GROUP_UNITS_MAX || (picture->idr && packet > 0))
		return false;
	/* Where a group begins, order counts may begin anew: within it only their differences count. */
	int32_t order = packet == 0 ? (int32_t)picture->lsb : order_of(links, picture, poc_bits);
	/* Pictures shown before the first may refer to the group before. Where one is wanted, all of that is decoded, too. */
	bool leading = packet == 0 || order < links->orders[0];
	for (unsigned i = 0; i < picture->ref_count; i++) {
		uint16_t ref = find_order(links, group, order + picture->refs[i]);
		if (ref == NOBODY && !leading)
			return false;
		if (ref != NOBODY)
			unit.refs[unit.ref_count++] = ref;
	}
	if (picture->anchor)
		links->anchor = order;
	links->orders[group->unit_count] = order;
	group->units[group->unit_count++] = unit;
	return true;
}

void kx_links_add_picture(struct kx_links *links, const struct kx_hevc_picture *picture, unsigned poc_bits, size_t packet,
			  struct kx_select_group *group)
{
	if (packet == 0)
		begin(links, group);
	if (group->linked)
		group->linked = add_picture(links, picture, poc_bits, packet, group);
}

void kx_links_add_unit(struct kx_links *links, const struct kx_av1_unit *unit, size_t packet,
		       struct kx_select_group *group)
{
	if (packet == 0)
		begin(links, group);
	if (unit->bad || unit->frames > KX_AV1_FRAMES_MAX)
		group->linked = false;
	for (unsigned i = 0; i < unit->frames && group->linked; i++)
		group->linked = add_frame(links, &unit->frame[i], packet, group);
}
