/* Which moments of two videos match best. Pure. Layer: shard/query. */
#ifndef KX_SHARD_QUERY_ALIGN_H
#define KX_SHARD_QUERY_ALIGN_H

#include "common/record/query.h"
#include "shard/ann/ann.h"

#define KX_ALIGN_MATCHES 5u

/* The moments of one video in one modality, by rising index: vectors of unit length in one space. */
struct kx_align_track {
	char space[KX_SPACE_MAX];
	uint32_t dim;
	uint32_t count, cap;
	uint32_t *index;
	float *values; /* [cap][dim] */
};

struct kx_align_side {
	struct kx_align_track tracks[KX_ANN_MODALITIES];
};
void kx_align_side_done(struct kx_align_side *side); /* zeroed memory is an empty side */

/* Appends a moment; values are copied and brought to unit length, a zero vector is left out. Indices rise within a
 * modality: KX_EINVAL otherwise, and for another space or dimension than before, or values that are not finite. */
kx_status kx_align_add(struct kx_align_side *side, enum kx_modality modality, const char *space, uint32_t dim,
		       uint32_t index, const float *values, struct kx_error *error) KX_MUST_CHECK;

/* The best matches, at most one for each of their moments, best first; ties go to the earlier of theirs, then of
 * ours. Scores are weighted means of cosines over the modalities that both moments have, in spaces that are the same,
 * rounded to 1e-6 so that equal moments tie. KX_ENOMEM. */
kx_status kx_align(const struct kx_align_side *ours, const struct kx_align_side *theirs,
		   const double weight[KX_ANN_MODALITIES], uint64_t ours_moment_us, uint64_t theirs_moment_us,
		   struct kx_moment_match ret[KX_ALIGN_MATCHES], uint32_t *ret_count) KX_MUST_CHECK;

#endif
