/* The sampling grid, and which packets of a group of pictures sampling can do without. Layer: worker/media, pure.
 *
 * Frame k is the last frame with pts <= k/fps. Whether a frame is one of those follows from the presentation times
 * of its neighbours alone, and these stand in the packets; so a group (the packets from one starting picture to the
 * next) is planned before any of it is decoded. A packet is kept when its frame is picked, or when it comes before a
 * picked one in decoding order and other pictures may need it. The sampler then runs over the frames that come out
 * exactly as it does over all of them: the plan can only leave out frames that it would have passed over. Where headers
 * name what each frame refers to, even one that others need goes when none of those is kept.
 *
 * With a tolerance, grid point t gets of the frames within it the one that costs least to decode: the first picture of
 * a group costs one, any other one all that has to be decoded before it in its group. Groups are told apart by when
 * their first pictures are shown, so only the group whose time t falls in and the first picture of the next one count,
 * which is why a split at any place chooses the same. Of frames that cost the same the nearest is taken, then the
 * earlier. Where no frame is near enough, t gets the one on screen.
 */
#ifndef KX_MEDIA_SELECT_H
#define KX_MEDIA_SELECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KX_NO_TIME INT64_MIN
#define KX_GROUP_PACKETS_MAX 1024u

struct kx_grid {
	double fps;
	int64_t end_us; /* the first instant that is not wanted; INT64_MAX: none */
	int64_t tolerance_us; /* 0: each grid point gets the frame on screen then */
};

/* When grid point k is, to the nearest microsecond. */
int64_t kx_grid_time(const struct kx_grid *grid, uint64_t k);
/* The first k at or after an instant (0 for instants before 0). */
uint64_t kx_grid_from(const struct kx_grid *grid, int64_t from_us);
bool kx_grid_wants(const struct kx_grid *grid, uint64_t k); /* k is before the end */

struct kx_select_packet {
	int64_t pts_us; /* KX_NO_TIME: not said */
	bool shown;     /* false: decoded for others only (edit lists) */
	bool droppable;
	bool params;
	bool reorders;
	uint8_t layer;
};

/* A coded frame, of which a packet may hold several; refs are earlier units of the group. */
#define KX_GROUP_UNITS_MAX 2048u
#define KX_UNIT_REFS 16u
struct kx_select_unit {
	uint16_t packet;
	bool shown;
	uint8_t ref_count;
	uint16_t refs[KX_UNIT_REFS];
};

struct kx_select_group {
	struct kx_select_packet packets[KX_GROUP_PACKETS_MAX]; /* in decoding order */
	size_t count;
	bool independent; /* nothing in it needs the group before */
	bool usable;      /* set by kx_select_check() */
	/* Also of kx_select_check(): the shown packets' times in order, which is the order of presentation. */
	int64_t times[KX_GROUP_PACKETS_MAX];
	size_t time_count;
	/* linked: all that a frame refers to is known, for every frame of the group. Then only what wanted frames refer to,
	 * at first or at any other hand, is kept. */
	bool linked;
	struct kx_select_unit units[KX_GROUP_UNITS_MAX]; /* in decoding order */
	size_t unit_count;
};

/* Sorts the times, and tells whether planning may trust them: all there, all different, all after after_us (the
 * latest time of the group before; KX_NO_TIME: none), every picture understood (known), and some shown out of the order
 * of decoding where there are pictures that ask for it: else the times are only those of decoding. */
void kx_select_check(struct kx_select_group *group, int64_t after_us, bool known);

struct kx_select_plan {
	bool keep[KX_GROUP_PACKETS_MAX];
	bool keep_units[KX_GROUP_UNITS_MAX]; /* of a linked group: all of a packet that is not kept are false */
	bool whole; /* all that others may need is kept up to the group's end, so that the next may follow on */
};

/* Plans `group`, whose next wanted grid point is k; next is the group after it, NULL at the end of the file. Both
 * must be usable. next_needs: the following group needs this one's pictures (kx_select_needs()). */
void kx_select_plan(const struct kx_select_group *group, const struct kx_select_group *next,
		    const struct kx_grid *grid, uint64_t k, bool next_needs, struct kx_select_plan *ret_plan);

/* Whether sampling needs `group` to be decoded after the group before it rather than from its own start: it has
 * wanted pictures that are shown before its first one, or it is not understood well enough to say. */
bool kx_select_needs(const struct kx_select_group *group, const struct kx_grid *grid, uint64_t k);

/* When the first picture of a usable group is shown: from then on grid points fall in the group. */
int64_t kx_select_start(const struct kx_select_group *group);

/* For a grid with a tolerance: the time of the frame that instant t is to get, given the group that t falls in (or the
 * first one after it) and the one after that. Later than all of the group's: it is the next group's to give.
 * KX_NO_TIME: t is after the last frame of the file, and gets none. */
int64_t kx_select_choice(const struct kx_select_group *group, const struct kx_select_group *next,
			 const struct kx_grid *grid, int64_t t);

/* The time among the group's that grid instant t is to get: the last one <= t. KX_NO_TIME when t is before all. */
int64_t kx_select_expected(const struct kx_select_group *group, int64_t t);

#endif
