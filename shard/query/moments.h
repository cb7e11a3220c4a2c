/* The nearest single moments: by the index where it holds them, else by reading. Internal to shard/query. */
#ifndef KX_SHARD_QUERY_MOMENTS_H
#define KX_SHARD_QUERY_MOMENTS_H

#include "shard/query/query.h"

#define KX_QUERY_SCAN_MAX 4000000u /* moments that one query reads; about 1 us each, and their bytes off the disk */

/* k moments of the videos that pass, each with the span that it covers. Grouped by source it is the best one of each
 * video, by duplicates the best one of each set of near-duplicates. With the recall that is wanted: 1 is what reading every
 * moment of every such video gives. Where the index has none, or goes not as deep, they are read: KX_ETOOBIG over
 * KX_QUERY_SCAN_MAX. */
kx_status kx_query_moments(const struct kx_query_context *context, const struct kx_mirror_query *query,
			   struct kx_similar_answer *answer, struct kx_error *error) KX_MUST_CHECK;

#endif
