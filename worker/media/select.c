#include "worker/media/select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t kx_grid_time(const struct kx_grid *grid, uint64_t k)
{
	return (int64_t)llround((double)k * 1e6 / grid->fps);
}

uint64_t kx_grid_from(const struct kx_grid *grid, int64_t from_us)
{
	if (from_us <= 0)
		return 0;
	/* The quotient may round to either side of a grid point; step to the right one. */
	uint64_t k = (uint64_t)((double)from_us * grid->fps / 1e6);
	while (k > 0 && kx_grid_time(grid, k - 1) >= from_us)
		k--;
	while (kx_grid_time(grid, k) < from_us)
		k++;
	return k;
}

bool kx_grid_wants(const struct kx_grid *grid, uint64_t k)
{
	return kx_grid_time(grid, k) < grid->end_us;
}

static int compare_times(const void *a, const void *b)
{
	int64_t left = *(const int64_t *)a;
	int64_t right = *(const int64_t *)b;
	return (left > right) - (left < right);
}

/* Some writers put down when pictures are decoded and call it when they are shown. */
static bool times_of_decoding(const struct kx_select_group *group)
{
	bool reorders = false;
	bool rising = true;
	int64_t last = KX_NO_TIME;
	for (size_t i = 0; i < group->count; i++) {
		if (!group->packets[i].shown)
			continue;
		reorders |= group->packets[i].reorders;
		rising &= group->packets[i].pts_us > last;
		last = group->packets[i].pts_us;
	}
	return reorders && rising;
}

void kx_select_check(struct kx_select_group *group, int64_t after_us, bool known)
{
	group->usable = false;
	group->time_count = 0;
	for (size_t i = 0; i < group->count; i++) {
		if (!group->packets[i].shown)
			continue;
		if (group->packets[i].pts_us == KX_NO_TIME)
			known = false;
		else
			group->times[group->time_count++] = group->packets[i].pts_us;
	}
	qsort(group->times, group->time_count, sizeof(group->times[0]), compare_times);
	if (!known || !group->time_count || group->times[0] <= after_us)
		return;
	for (size_t i = 1; i < group->time_count; i++)
		if (group->times[i] == group->times[i - 1])
			return;
	/* Parameter sets after the first packet could be needed by a later group: then none of it may be left out. */
	for (size_t i = 1; i < group->count; i++)
		if (group->packets[i].params)
			return;
	group->usable = !times_of_decoding(group);
}

/* Index of the last time <= t, or time_count when t is before all of them. */
static size_t time_at(const struct kx_select_group *group, int64_t t)
{
	size_t low = 0;
	size_t high = group->time_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (group->times[middle] <= t)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? low - 1 : group->time_count;
}

int64_t kx_select_expected(const struct kx_select_group *group, int64_t t)
{
	size_t i = time_at(group, t);
	return i < group->time_count ? group->times[i] : KX_NO_TIME;
}

/* Whether a wanted grid point lies in [from, to). */
static bool wanted_between(const struct kx_grid *grid, uint64_t k, int64_t from, int64_t to)
{
	uint64_t first = kx_grid_from(grid, from);
	if (first < k)
		first = k;
	return kx_grid_wants(grid, first) && kx_grid_time(grid, first) < to;
}

int64_t kx_select_start(const struct kx_select_group *group)
{
	return group->packets[0].shown ? group->packets[0].pts_us : group->times[0];
}

static uint8_t top_layer(const struct kx_select_group *group)
{
	uint8_t top = 0;
	for (size_t i = 0; i < group->count; i++)
		if (group->packets[i].layer > top)
			top = group->packets[i].layer;
	return top;
}

/* Others may need it, so that it is decoded whenever something after it is. */
static bool part_of_chain(const struct kx_select_packet *packet, uint8_t top)
{
	return !packet->droppable || packet->layer < top;
}

struct candidate {
	int64_t pts_us;
	size_t cost;
	int64_t off;
};

static void consider(struct candidate *best, int64_t t, int64_t pts_us, size_t cost, int64_t tolerance_us)
{
	int64_t off = llabs(pts_us - t);
	if (off > tolerance_us)
		return;
	bool better = best->pts_us == KX_NO_TIME || cost < best->cost ||
		      (cost == best->cost && (off < best->off || (off == best->off && pts_us < best->pts_us)));
	if (better)
		*best = (struct candidate){pts_us, cost, off};
}

static int64_t on_screen(const struct kx_select_group *group, const struct kx_select_group *next, int64_t t)
{
	if (next && next->times[0] <= t)
		return kx_select_expected(next, t);
	int64_t pts = kx_select_expected(group, t);
	return pts != KX_NO_TIME ? pts : group->times[0]; /* the first frame of all stands for what is before it */
}

int64_t kx_select_choice(const struct kx_select_group *group, const struct kx_select_group *next,
			 const struct kx_grid *grid, int64_t t)
{
	struct candidate best = {.pts_us = KX_NO_TIME};
	int64_t start = kx_select_start(group);
	if (next ? t >= kx_select_start(next) : t > group->times[group->time_count - 1])
		return next ? kx_select_start(next) : KX_NO_TIME;
	if (t < start) {
		/* What the group before left to this one: it gave nothing itself, so the choice is small. */
		consider(&best, t, start, 1, grid->tolerance_us);
		return best.pts_us != KX_NO_TIME ? best.pts_us : on_screen(group, NULL, t);
	}
	uint8_t top = top_layer(group);
	size_t chain = 0;
	for (size_t i = 0; i < group->count; i++) {
		const struct kx_select_packet *packet = &group->packets[i];
		/* Pictures shown before the first one may need the group before. */
		if (packet->shown && packet->pts_us >= start)
			consider(&best, t, packet->pts_us, chain + 1, grid->tolerance_us);
		chain += part_of_chain(packet, top);
	}
	if (next)
		consider(&best, t, kx_select_start(next), 1, grid->tolerance_us);
	return best.pts_us != KX_NO_TIME ? best.pts_us : on_screen(group, next, t);
}

/* Keeps the frames that grid points from k on choose. Returns one past the last of them in decoding order. */
static size_t keep_chosen(const struct kx_select_group *group, const struct kx_select_group *next,
			  const struct kx_grid *grid, uint64_t k, bool *keep)
{
	size_t last = 0;
	int64_t kept = KX_NO_TIME;
	for (; kx_grid_wants(grid, k); k++) {
		int64_t pts = kx_select_choice(group, next, grid, kx_grid_time(grid, k));
		if (pts == KX_NO_TIME || pts > group->times[group->time_count - 1])
			break;
		for (size_t i = 0; i < group->count && pts != kept; i++) {
			if (!group->packets[i].shown || group->packets[i].pts_us != pts)
				continue;
			keep[i] = true;
			if (i >= last)
				last = i + 1;
		}
		kept = pts;
	}
	return last;
}

/* With a tolerance: some grid point before the first picture has no frame near enough but those shown before it. */
static bool leading_chosen(const struct kx_select_group *group, const struct kx_grid *grid, uint64_t k)
{
	int64_t until = kx_select_start(group) - grid->tolerance_us;
	return until > group->times[0] && wanted_between(grid, k, group->times[0], until);
}

bool kx_select_needs(const struct kx_select_group *group, const struct kx_grid *grid, uint64_t k)
{
	if (group->independent)
		return false;
	if (!group->usable || !group->packets[0].shown)
		return true;
	if (grid->tolerance_us > 0)
		return leading_chosen(group, grid, k);
	return wanted_between(grid, k, group->times[0], group->packets[0].pts_us);
}

/* The presentation time after `pts`, which ends the span of grid points that pick it. */
static int64_t time_after(const struct kx_select_group *group, const struct kx_select_group *next, int64_t pts)
{
	size_t i = time_at(group, pts);
	if (i + 1 < group->time_count)
		return group->times[i + 1];
	return next ? next->times[0] : pts + 1;
}

static bool picked(const struct kx_select_group *group, const struct kx_select_group *next, const struct kx_grid *grid,
		   uint64_t k, const struct kx_select_packet *packet)
{
	if (!packet->shown)
		return false;
	/* The first frame of all also stands for what comes before it. */
	bool first = k == 0 && packet->pts_us == group->times[0] && packet->pts_us > 0;
	return wanted_between(grid, k, first ? 0 : packet->pts_us, time_after(group, next, packet->pts_us));
}

/* The same for grid points that get the frame on screen. */
static size_t keep_picked(const struct kx_select_group *group, const struct kx_select_group *next,
			  const struct kx_grid *grid, uint64_t k, bool *keep)
{
	size_t last = 0;
	for (size_t i = 0; i < group->count; i++) {
		keep[i] = picked(group, next, grid, k, &group->packets[i]);
		if (keep[i])
			last = i + 1;
	}
	return last;
}

/* From the last frame to the first: a kept one keeps what it refers to, and the group's first, with which decoding starts. */
static void keep_referred(const struct kx_select_group *group, struct kx_select_plan *plan)
{
	bool wanted[KX_GROUP_PACKETS_MAX];
	memcpy(wanted, plan->keep, sizeof(wanted));
	memset(plan->keep, 0, sizeof(plan->keep));
	for (size_t i = group->unit_count; i-- > 0;) {
		const struct kx_select_unit *unit = &group->units[i];
		bool keep = plan->keep_units[i] || (unit->shown && wanted[unit->packet]);
		plan->keep_units[i] = keep;
		plan->keep_units[0] |= keep;
		plan->keep[unit->packet] |= keep;
		for (unsigned r = 0; keep && r < unit->ref_count; r++)
			plan->keep_units[unit->refs[r]] = true;
	}
}

void kx_select_plan(const struct kx_select_group *group, const struct kx_select_group *next,
		    const struct kx_grid *grid, uint64_t k, bool next_needs, struct kx_select_plan *ret_plan)
{
	*ret_plan = (struct kx_select_plan){.whole = next_needs};
	uint8_t top = top_layer(group);
	/* One past the last packet, in decoding order, that has to be decoded. */
	size_t last = grid->tolerance_us > 0 ? keep_chosen(group, next, grid, k, ret_plan->keep)
					     : keep_picked(group, next, grid, k, ret_plan->keep);
	if (group->linked && !next_needs) {
		keep_referred(group, ret_plan);
		return;
	}
	memset(ret_plan->keep_units, true, sizeof(ret_plan->keep_units));
	/* Parameter sets must be seen unless the next group brings its own. */
	bool params = group->packets[0].params && next && !next->packets[0].params;
	if (params && !last)
		last = 1;
	if (next_needs)
		last = group->count;
	for (size_t i = 0; i < last; i++)
		if (part_of_chain(&group->packets[i], top))
			ret_plan->keep[i] = true;
}
