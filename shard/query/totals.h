/* What all of a shard's video records add up to, so that it need not read them to begin with. Pure. Layer: shard/query.
 *
 * Stored in one write with the records that it counts, see kx_store_batch_totals(): what is there is right. */
#ifndef KX_SHARD_QUERY_TOTALS_H
#define KX_SHARD_QUERY_TOTALS_H

#include "common/base/buf.h"
#include "common/record/video.h"
#include "shard/ann/ann.h"

#define KX_TOTALS_NO_SPACE UINT32_MAX

struct kx_totals_space {
	enum kx_modality modality;
	char name[KX_SPACE_MAX];
	uint32_t dim;
	uint64_t rows;
};

struct kx_totals {
	uint64_t videos, moments, media_us;
	uint64_t epoch; /* sum of the videos' marks */
	uint64_t loose; /* videos with a vector that the index does not hold */
	uint32_t space_count;
	struct kx_totals_space spaces[KX_ANN_SPACES_MAX];
	uint64_t both[KX_ANN_SPACES_MAX][KX_ANN_SPACES_MAX]; /* videos with this visual and that audio space */
};

/* A video's share of them. */
struct kx_totals_video {
	uint64_t moments, media_us, mark;
	uint32_t space[KX_ANN_MODALITIES]; /* KX_TOTALS_NO_SPACE: lacks the modality */
	bool loose;
};
/* All but `loose`. Spaces are added where they are missing. KX_ETOOBIG: too many. */
kx_status kx_totals_of_record(struct kx_totals *totals, const struct kx_video_record *record,
			      struct kx_totals_video *ret) KX_MUST_CHECK;
uint64_t kx_totals_mark(const char *id, uint64_t generation);
/* sign: 1 or -1 */
void kx_totals_add(struct kx_totals *totals, const struct kx_totals_video *video, int sign);
/* KX_TOTALS_NO_SPACE: not there. */
uint32_t kx_totals_find_space(const struct kx_totals *totals, enum kx_modality modality, const char *name, uint32_t dim);
/* The same numbers, whatever the order of the spaces; those without rows do not count. */
bool kx_totals_are_same(const struct kx_totals *a, const struct kx_totals *b);

kx_status kx_totals_encode(const struct kx_totals *totals, struct kx_buf *out) KX_MUST_CHECK; /* appends */
/* KX_ECORRUPT, KX_EVERSION. */
kx_status kx_totals_decode(const void *bytes, size_t len, struct kx_totals *ret) KX_MUST_CHECK;

#endif
