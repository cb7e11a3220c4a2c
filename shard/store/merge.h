/* Merges the moments of a video into what is said of the whole. Pure: no I/O, no clock. Layer: shard/store.
 *
 * Embedding of a modality: the mean of its moments' unit vectors weighted by their rows, unit length. Classes: the
 * mean of the moments' class scores weighted likewise, where a class that is not in a moment's list scores 0; the
 * best 20 are kept. Moments are added in the order of time and every sum runs in that order, so that the same
 * moments give the same bytes.
 */
#ifndef KX_SHARD_STORE_MERGE_H
#define KX_SHARD_STORE_MERGE_H

#include "common/record/video.h"
#include "shard/store/summary.h"

#define KX_MERGE_CLASSES 20u
#define KX_MERGE_CLASSES_SEEN_MAX 65536u /* different classes in one video and modality; more is KX_ETOOBIG */

struct kx_merge;

kx_status kx_merge_new(struct kx_merge **ret) KX_MUST_CHECK;
void kx_merge_free(struct kx_merge *merge);
void kx_merge_cleanup(struct kx_merge **merge);

/* Visual before audio, each by rising index: anything else is KX_ECORRUPT, and so is another space or dimension than
 * the modality's first moment has. */
kx_status kx_merge_add(struct kx_merge *merge, const struct kx_summary *moment, struct kx_error *error) KX_MUST_CHECK;

/* What the moments say, once all are added; asked once. ret[]: visual first; their memory is the merge's. */
kx_status kx_merge_modalities(struct kx_merge *merge, struct kx_modality_result ret[2], uint32_t *ret_count,
			      struct kx_error *error) KX_MUST_CHECK;

/* Together with what plan and part ends say. Every part must be there once. ret's memory is the merge's and the
 * source's. KX_EAGAIN when rows are missing, KX_ECORRUPT when there are too many or none, or the parts disagree. */
struct kx_merge_source {
	const char *video_id;
	const struct kx_video_info *info;
	const struct kx_part_end *ends;
	uint32_t end_count;
};
kx_status kx_merge_video(struct kx_merge *merge, const struct kx_merge_source *source, struct kx_video_result *ret,
			 struct kx_error *error) KX_MUST_CHECK;

#endif
