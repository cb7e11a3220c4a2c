/* Near-duplicates in a store: which videos show the same, and from when on. Layer: shard/query.
 *
 * Moments of different videos that are alike vote for the difference of their times; the difference that most votes
 * agree on is looked at frame by frame, which also tells it to a second. So a clip inside a longer video is found where it
 * stands. Pairs that hold are joined to clusters. Picture decides; sound where neither has a picture. Which moments are
 * alike the index tells; those that it does not hold are compared with one another.
 */
#ifndef KX_SHARD_QUERY_DUPLICATES_H
#define KX_SHARD_QUERY_DUPLICATES_H

#include "common/base/thread.h"
#include "shard/store/store.h"

#define KX_DUPLICATES_MOMENTS_MAX 10000000u  /* that ask the index; opened to read it holds 2 bytes a dimension of each */
#define KX_DUPLICATES_COMPARED_MAX 2000000u  /* of those that it does not hold, compared with one another: the square of them */
#define KX_DUPLICATES_MATCHES_MAX 20000000u
#define KX_DUPLICATES_INDEX_FROM 20000u /* moments in the index; fewer are sooner compared with one another */

struct kx_index;

struct kx_duplicates_options {
	struct kx_index *index; /* of the store, which holds its moments or some of them; NULL: each is compared with each */
	double recall;          /* of the moments that are like one, by the index; 0: 0.9. Each pair has two chances, and a copy many pairs */
	double threshold; /* least mean cosine of the frames that are shown in both, 0 < threshold <= 1 */
	const struct kx_stop *stop; /* may be NULL */
};

/* One video of a cluster. */
struct kx_duplicate {
	const char *id;
	int64_t offset_us;    /* where it begins on the time line of the first; negative: before it */
	double score;         /* mean cosine of the frames shown in both, with the one that it was joined to */
	uint64_t overlap_us;  /* how long both show the same */
	uint64_t duration_us;
	const char *joined_to; /* id; "" for the first */
};

struct kx_duplicates_stats {
	uint64_t videos, moments;
	uint64_t compared;        /* moments that the index does not hold, each with each */
	uint64_t matches;         /* moments that are alike */
	uint64_t pairs;           /* of videos that were looked at frame by frame */
	uint64_t clusters, members;
};

/* Visits the clusters of two or more: the longest video first, then by time; clusters by the id of their first. Values are
 * valid during the call. KX_ETOOBIG over the maxima above; what visit returns ends the walk. Blocks on disk and computes. */
kx_status kx_duplicates_find(struct kx_store *store, const struct kx_duplicates_options *options,
			     kx_status (*visit)(void *ctx, const struct kx_duplicate *members, size_t count,
						struct kx_error *error),
			     void *ctx, struct kx_duplicates_stats *ret_stats, struct kx_error *error) KX_MUST_CHECK;

#endif
