/* The seam of shard/ann/ann.h over the durable index: what stands in the mirror's rows is found through shard/index, and
 * scored again by the embeddings of the video records, so that scores are those of comparing with every row.
 * Layer: shard/query.
 *
 * A row whose vector the index does not hold in the generation that the mirror knows is loose: every search scores it.
 * So a change may be in one of the two and not yet in the other, and nothing is missed.
 */
#ifndef KX_SHARD_QUERY_INDEXED_H
#define KX_SHARD_QUERY_INDEXED_H

#include "common/record/video.h"
#include "shard/ann/ann.h"
#include "shard/index/index.h"
#include "shard/store/store.h"

struct kx_mirror;

/* All borrowed, and closed after it. Calls need the mirror's lock, as the seam says. KX_ENOMEM. */
kx_status kx_indexed_new(struct kx_mirror *mirror, struct kx_index *index, struct kx_store *store, struct kx_ann **ret)
	KX_MUST_CHECK;

/* The row's vectors may change in the index at any time from now on, until it is put or removed. */
void kx_indexed_expect(struct kx_ann *ann, uint32_t row);

/* One of many questions asked at a time, and how it went. */
struct kx_indexed_asked {
	const struct kx_ann_query *query;
	struct kx_ann_hit *hits; /* [query->k], the caller's */
	size_t count;
	struct kx_ann_work work;
	kx_status status;
	struct kx_error error;
};
/* Each as kx_ann_search() answers it, whatever becomes of the others; the index is asked for all of them at once. */
void kx_indexed_search_many(const struct kx_ann *ann, struct kx_indexed_asked *asked, size_t n);

/* After all rows were put: finds them in the index. What the index lacks, holds of another generation or of a video that
 * is gone is mended there (read-only: left, and loose). Until then every row is loose. */
struct kx_indexed_settled {
	uint64_t added, removed; /* vectors */
};
kx_status kx_indexed_settle(struct kx_ann *ann, bool read_only, struct kx_indexed_settled *ret, struct kx_error *error)
	KX_MUST_CHECK;

/* --- For a mirror of a few videos, see mirror_early.c ------------------------------------------------------------- */

struct kx_totals;
/* All that is there adds up to these, and the index holds every vector; videos are put when a search asks for them. KX_EBUSY:
 * the index lacks one of the spaces. */
kx_status kx_indexed_preset(struct kx_ann *ann, const struct kx_totals *totals) KX_MUST_CHECK;
/* After a search failed with KX_EBUSY: ids that are to be put, each with a zero byte behind it; *ret_all: all are. Appends to
 * out. */
kx_status kx_indexed_missing(struct kx_ann *ann, struct kx_buf *out, bool *ret_all) KX_MUST_CHECK;

/* Spaces, pairs of them, and loose rows. KX_ETOOBIG never. */
void kx_indexed_totals(const struct kx_ann *ann, struct kx_totals *totals);
/* The row's spaces, as numbers of totals that kx_indexed_totals() filled; and whether it is loose. */
struct kx_totals_video;
void kx_indexed_video_totals(const struct kx_ann *ann, uint32_t row, struct kx_totals_video *ret);
/* Whether the index holds every vector of a record, once what kx_indexed_change_put() says is committed. */
bool kx_indexed_takes(struct kx_index *index, const struct kx_video_record *record);

/* --- Changes of the index that follow from changes of the store ------------------------------------------------ */

/* Zeroed memory is valid. Ids and vectors are borrowed until kx_indexed_changes_done(). */
struct kx_indexed_changes {
	struct kx_index_change *list;
	uint8_t *generations; /* [cap][8], what attributes point at */
	size_t count, cap;
};
void kx_indexed_changes_done(struct kx_indexed_changes *changes);
/* The video is as its record says: each embedding that points somewhere into its space, and out of all others. Spaces
 * are made. What the index holds in this generation is left. */
kx_status kx_indexed_change_put(struct kx_index *index, const struct kx_video_record *record,
				struct kx_indexed_changes *changes, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_indexed_change_remove(struct kx_index *index, const char *id, struct kx_indexed_changes *changes,
				   struct kx_error *error) KX_MUST_CHECK;

/* How an embedding of a record stands in the index. */
enum kx_indexed_state {
	KX_INDEXED_NONE = 1, /* it points nowhere, or the index does not take its dimensions */
	KX_INDEXED_MISSING,  /* or of another generation */
	KX_INDEXED_HELD,
};
/* ret_cosine: of what is held and what is stored. */
kx_status kx_indexed_compare(struct kx_index *index, const struct kx_video_record *record,
			     const struct kx_modality_result *of, enum kx_indexed_state *ret_state, double *ret_cosine,
			     struct kx_error *error) KX_MUST_CHECK;

#endif
