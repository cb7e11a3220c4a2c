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
	group->usable = true;
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

bool kx_select_needs(const struct kx_select_group *group, const struct kx_grid *grid, uint64_t k)
{
	if (group->independent)
		return false;
	if (!group->usable || !group->packets[0].shown)
		return true;
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

void kx_select_plan(const struct kx_select_group *group, const struct kx_select_group *next,
		    const struct kx_grid *grid, uint64_t k, bool next_needs, struct kx_select_plan *ret_plan)
{
	uint8_t top = 0;
	size_t last = 0; /* one past the last packet, in decoding order, that has to be decoded */
	*ret_plan = (struct kx_select_plan){.whole = next_needs};
	for (size_t i = 0; i < group->count; i++) {
		ret_plan->keep[i] = picked(group, next, grid, k, &group->packets[i]);
		if (ret_plan->keep[i])
			last = i + 1;
		if (group->packets[i].layer > top)
			top = group->packets[i].layer;
	}
	/* At the end of the file the last frame says until when grid points exist, so it has to come out. */
	if (last && !next) {
		int64_t end = group->times[group->time_count - 1];
		for (size_t i = 0; i < group->count; i++)
			if (group->packets[i].shown && group->packets[i].pts_us == end)
				ret_plan->keep[i] = true;
		last = group->count;
	}
	/* Parameter sets must be seen unless the next group brings its own. */
	bool params = group->packets[0].params && next && !next->packets[0].params;
	if (params && !last)
		last = 1;
	if (next_needs)
		last = group->count;
	for (size_t i = 0; i < last; i++) {
		const struct kx_select_packet *packet = &group->packets[i];
		if (!packet->droppable || packet->layer < top)
			ret_plan->keep[i] = true;
	}
}
