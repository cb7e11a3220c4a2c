/* Plans over groups of packets of any kind. A plan may leave out what it can show that nobody needs, and no more:
 * what is kept can be decoded, and picking from it gives what picking from everything gives. */
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"
#include "worker/media/select.h"

#define GRID_POINTS_MAX 4000u
#define TIME_MAX (INT64_C(1) << 50) /* what worker/media/packets.c lets through as a time */

struct scene {
	struct kx_grid grid;
	uint64_t k; /* the first grid point without a frame */
	bool next_needs;
	struct kx_select_group group, next;
	struct kx_select_plan plan;
};

static int64_t any_time(struct fuzz_input *in, int64_t around)
{
	uint8_t kind = fuzz_u8(in);

	if (kind == 0xff)
		return KX_NO_TIME;
	if (kind == 0xfe)
		return (int64_t)(fuzz_u64(in) % (2 * TIME_MAX)) - TIME_MAX;
	return around + ((int64_t)kind - 64) * 5000;
}

static void read_group(struct fuzz_input *in, struct kx_select_group *group, int64_t from_us)
{
	group->count = 1 + fuzz_u8(in) % 64u;
	for (size_t i = 0; i < group->count; i++) {
		uint8_t flags = fuzz_u8(in);

		group->packets[i] = (struct kx_select_packet){
			.pts_us = any_time(in, from_us + (int64_t)i * 40000),
			.shown = !(flags & 1),
			.droppable = flags & 2,
			.params = (flags & 12) == 12,
			.layer = flags >> 6,
		};
	}
}

/* The last time <= t of a group, by the definition. */
static int64_t last_until(const struct kx_select_group *group, int64_t t)
{
	int64_t best = KX_NO_TIME;

	for (size_t i = 0; i < group->count; i++) {
		int64_t pts = group->packets[i].pts_us;

		if (group->packets[i].shown && pts <= t && pts > best)
			best = pts;
	}
	return best;
}

static void check_times(const struct kx_select_group *group)
{
	FUZZ_CHECK(group->time_count > 0 && group->time_count <= group->count);
	for (size_t i = 0; i < group->time_count; i++) {
		int64_t t = group->times[i];

		FUZZ_CHECK(i == 0 || t > group->times[i - 1]);
		FUZZ_CHECK(kx_select_expected(group, t) == t);
		FUZZ_CHECK(kx_select_expected(group, t - 1) == last_until(group, t - 1));
	}
}

static bool is_kept(const struct scene *scene, int64_t pts_us)
{
	for (size_t i = 0; i < scene->group.count; i++) {
		if (scene->group.packets[i].shown && scene->group.packets[i].pts_us == pts_us)
			return scene->plan.keep[i];
	}
	return false;
}

/* Every open grid point that this group serves gets its frame. */
static void check_picked(const struct scene *scene)
{
	const struct kx_select_group *group = &scene->group;
	int64_t until = scene->next.count > 0 ? scene->next.times[0] : group->times[group->time_count - 1] + 1;
	uint64_t k = kx_grid_from(&scene->grid, group->times[0]);

	k = k > scene->k ? k : scene->k;
	for (uint64_t end = k + GRID_POINTS_MAX; k < end; k++) {
		int64_t t = kx_grid_time(&scene->grid, k);

		if (t >= until || !kx_grid_wants(&scene->grid, k))
			return;
		FUZZ_CHECK(is_kept(scene, last_until(group, t)));
	}
}

/* What is kept has all that it may refer to. */
static void check_closed(const struct scene *scene)
{
	const struct kx_select_group *group = &scene->group;
	uint8_t top = 0;
	size_t last = scene->next_needs ? group->count : 0;

	for (size_t i = 0; i < group->count; i++) {
		if (scene->plan.keep[i])
			last = i + 1 > last ? i + 1 : last;
		if (group->packets[i].layer > top)
			top = group->packets[i].layer;
	}
	for (size_t i = 0; i < last; i++) {
		if (!group->packets[i].droppable || group->packets[i].layer < top)
			FUZZ_CHECK(scene->plan.keep[i]);
	}
	for (size_t i = group->count; i < KX_GROUP_PACKETS_MAX; i++)
		FUZZ_CHECK(!scene->plan.keep[i]);
	FUZZ_CHECK(scene->plan.whole == scene->next_needs);
}

static void check_grid(const struct kx_grid *grid, int64_t t)
{
	uint64_t k = kx_grid_from(grid, t);

	FUZZ_CHECK(kx_grid_time(grid, k) >= t || t <= 0);
	FUZZ_CHECK(k == 0 || kx_grid_time(grid, k - 1) < t);
}

static void plan(struct scene *scene, struct fuzz_input *in)
{
	static const double rates[] = {1, 0.1, 1e-6, 2.5, 23.976, 25, 240, 1000};
	bool known = fuzz_u8(in) != 0xff;
	int64_t after;

	scene->grid.fps = rates[fuzz_u8(in) % 8u];
	scene->grid.end_us = fuzz_u8(in) % 4u ? INT64_MAX : any_time(in, 500000);
	scene->k = kx_grid_from(&scene->grid, any_time(in, 0));
	scene->group.independent = fuzz_u8(in) & 1;
	read_group(in, &scene->group, 0);
	after = any_time(in, -200000);
	kx_select_check(&scene->group, after, known);
	if (!scene->group.usable)
		return;
	FUZZ_CHECK(known && (after == KX_NO_TIME || scene->group.times[0] > after));
	check_times(&scene->group);
	check_grid(&scene->grid, scene->group.times[0]);
	if (fuzz_u8(in) & 1) {
		scene->next.independent = fuzz_u8(in) & 1;
		read_group(in, &scene->next, (int64_t)scene->group.count * 40000);
		kx_select_check(&scene->next, scene->group.times[scene->group.time_count - 1], true);
		if (!scene->next.usable)
			return;
		scene->next_needs = kx_select_needs(&scene->next, &scene->grid, scene->k);
		FUZZ_CHECK(!scene->next_needs || !scene->next.independent);
	}
	kx_select_plan(&scene->group, scene->next.count > 0 ? &scene->next : NULL, &scene->grid, scene->k,
		       scene->next_needs, &scene->plan);
	check_picked(scene);
	check_closed(scene);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct fuzz_input in = {bytes, len};
	struct scene *scene = calloc(1, sizeof(*scene));

	FUZZ_CHECK(scene);
	plan(scene, &in);
	free(scene);
	return 0;
}
