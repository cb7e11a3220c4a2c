/* The centroids of an index, and which are near a query. Layer: shard/ann.
 *
 * They are kept rotated, since rotated ones have no element that towers over the others, and in 8 bits: their order is
 * off only among those that are as good as equally far. They lie in groups of 16; where there are many, groups belong to
 * regions, and a query looks first into the regions near it. */
#ifndef KX_SHARD_ANN_IVF_CENTROIDS_H
#define KX_SHARD_ANN_IVF_CENTROIDS_H

#include <stdbool.h>

#include "common/base/error.h"
#include "shard/ann/ivf_kernels.h"

#define KX_IVF_NO_LANE UINT32_MAX

/* Lanes in groups of 16; one that is not used has an infinite offset. */
struct kx_ivf_lanes {
	uint32_t dim;
	uint32_t groups, capacity;
	uint8_t *codes;   /* [capacity][dim / 4][16][4] */
	float *scale;     /* [capacity * 16] */
	float *offset;    /* [capacity * 16] */
	uint32_t *number; /* [capacity * 16]: whose lane it is */
	uint32_t *next;   /* [capacity]: the region's next group, or KX_IVF_NO_LANE */
	uint8_t *used;    /* [capacity]: lanes */
};

struct kx_ivf_centroids {
	struct kx_ivf_lanes lanes;   /* numbers are slots of cells */
	struct kx_ivf_lanes regions; /* numbers are regions */
	float *values;               /* [region_count][dim], rotated; of the regions */
	uint32_t *first;             /* [region_count]: group */
	uint32_t region_count;
	uint32_t count;              /* of centroids */
	uint32_t built, changed;     /* how many there were when regions were made, and changes since */
	bool flat;                   /* all in one region, though they are many */
};

void kx_ivf_centroids_done(struct kx_ivf_centroids *centroids);
uint64_t kx_ivf_centroids_bytes(const struct kx_ivf_centroids *centroids);

/* Makes regions anew for count centroids, rotated ([count][dim]), with their offsets and slots; their lanes are
 * returned. flat: one of all, which takes no time to make, and more to go through. */
kx_status kx_ivf_centroids_build(struct kx_ivf_centroids *centroids, const float *rotated, const float *offsets,
				 const uint32_t *slots, uint32_t count, uint32_t dim, uint64_t seed, bool flat,
				 uint32_t *ret_lanes) KX_MUST_CHECK;
/* Whether so many have come and gone that regions should be made anew. */
bool kx_ivf_centroids_stale(const struct kx_ivf_centroids *centroids);
kx_status kx_ivf_centroids_add(struct kx_ivf_centroids *centroids, const struct kx_ivf_kernels *kernels,
			       const float *rotated, float offset, uint32_t slot, uint32_t *ret_lane) KX_MUST_CHECK;
void kx_ivf_centroids_remove(struct kx_ivf_centroids *centroids, uint32_t lane);

struct kx_ivf_sixteen kx_ivf_lanes_sixteen(const struct kx_ivf_lanes *lanes, uint32_t group);
/* A rotated vector in 8 bits; codes: [dim], which must outlive it. weight: of the offsets, in (0, 1]. */
struct kx_ivf_eighth kx_ivf_to_eighth(const float *rotated, uint32_t dim, float weight, int8_t *codes);

/* Goes through centroids from near to far, in batches. Embedded; zeroed memory is valid; one query at a time. A batch is
 * in order, and batches are, but for centroids of regions that were not looked into before. */
struct kx_ivf_order {
	const struct kx_ivf_centroids *centroids;
	const struct kx_ivf_kernels *kernels;
	const uint16_t *only;     /* [groups]: a bit for each lane that is looked at; NULL: all are */
	uint32_t count;           /* of centroids that are looked at */
	struct kx_ivf_eighth query;
	int8_t *codes;            /* [dim] */
	float *keys, *products;   /* [lanes] */
	const float *given;       /* keys that somebody made, in place of those and of products; NULL: nobody did */
	const float *given_least;
	float given_below;        /* groups with less are looked at; others, too: INFINITY */
	uint64_t *numbers, *room; /* [lanes + 16] */
	uint32_t *groups;         /* that were looked at; of each: */
	float *above, *least;     /* what was given has keys up to this; the least key that was not */
	uint32_t *order;          /* regions, nearest first */
	uint32_t group_count, dim, capacity;
	uint32_t regions, visited; /* how many there are, and were looked into */
	uint32_t seen, gave;       /* centroids */
	uint32_t give;             /* how many groups' worth comes next */
};

void kx_ivf_order_done(struct kx_ivf_order *order);
/* rotated: [dim]. weight: of the offsets, in (0, 1]. all: regions are all looked into. */
kx_status kx_ivf_order_start(struct kx_ivf_order *order, const struct kx_ivf_centroids *centroids,
			     const struct kx_ivf_kernels *kernels, const float *rotated, float weight, bool all)
	KX_MUST_CHECK;
/* The same with keys of all lanes that are there already, and the least of each group; both are borrowed. */
kx_status kx_ivf_order_given(struct kx_ivf_order *order, const struct kx_ivf_centroids *centroids,
			     const struct kx_ivf_kernels *kernels, float weight, const float *keys, const float *least) KX_MUST_CHECK;
/* Below which the least keys of at most so many groups are; INFINITY where all groups are no more. ret_nearest: the least of all. */
float kx_ivf_least_below(const float *least, uint32_t groups, uint32_t most, float *ret_nearest);
/* The product of the query and a lane's centroid. */
static inline float kx_ivf_order_product(const struct kx_ivf_order *order, uint32_t lane)
{
	return order->given ? order->query.weight * order->centroids->lanes.offset[lane] - order->given[lane]
			    : order->products[lane];
}
/* Between start without `all` and the first next: only those lanes, of which there are count. lanes: [groups], borrowed. */
void kx_ivf_order_only(struct kx_ivf_order *order, const uint16_t *lanes, uint32_t count);
/* The next ones, nearest first: their lanes are the low halves of order->numbers. 0: that was all. */
uint32_t kx_ivf_order_next(struct kx_ivf_order *order);

#endif
