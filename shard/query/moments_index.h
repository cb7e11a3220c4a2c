/* Single moments in the durable index: what of them stands beside the mirror's rows, what a change of the records changes
 * there, and making the two agree. Layer: shard/query.
 *
 * Each space of moments has one of the index's, beside that of the videos. A key is a video's id, a zero byte, the modality and
 * the moment's number (big-endian), so that a video's moments stand together. A video whose moments are not all there in the
 * generation that the mirror knows is loose: its moments are read, so nothing is missed while the two differ.
 */
#ifndef KX_SHARD_QUERY_MOMENTS_INDEX_H
#define KX_SHARD_QUERY_MOMENTS_INDEX_H

#include "common/record/video.h"
#include "shard/index/index.h"
#include "shard/store/store.h"

struct kx_mirror;
struct kx_moments;

/* Whether a space of the index holds moments. */
bool kx_moments_are_in(struct kx_index *index, uint32_t space);

/* All borrowed, and closed after it. KX_ENOMEM. */
kx_status kx_moments_new(struct kx_mirror *mirror, struct kx_index *index, struct kx_store *store, bool read_only,
			 struct kx_moments **ret) KX_MUST_CHECK;
void kx_moments_free(struct kx_moments *moments); /* NULL is nothing */
struct kx_store *kx_moments_store(const struct kx_moments *moments);

/* --- What the mirror tells, with its lock for writing, but for kx_moments_look() -------------------------------- */

/* Where the index has a video's moments: read before the mirror is locked. Zeroed memory is valid. */
struct kx_moments_found {
	struct kx_moment_row *list;
	size_t count, cap;
	bool complete;
};
void kx_moments_found_done(struct kx_moments_found *found);
kx_status kx_moments_look(struct kx_moments *moments, const struct kx_video_record *record,
			  struct kx_moments_found *ret, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_moments_put(struct kx_moments *moments, uint32_t row, const struct kx_video_record *record,
			 const struct kx_moments_found *found) KX_MUST_CHECK; /* KX_ENOMEM */
void kx_moments_remove(struct kx_moments *moments, uint32_t row);
/* The video's moments may change in the index at any time from now on, until it is put or removed. */
void kx_moments_expect(struct kx_moments *moments, uint32_t row);

/* After all rows were put: finds their moments in the index. What it lacks, holds of another generation or of a video that
 * is gone is mended there (read-only: left, and loose); where it has none of a space, that is built at once. Until then
 * all are loose. */
struct kx_moments_settled {
	uint64_t added, removed;
};
kx_status kx_moments_settle(struct kx_moments *moments, struct kx_moments_settled *ret, struct kx_error *error)
	KX_MUST_CHECK;

/* Takes all moments out of the index: for a shard that is to do without. *ret_removed: how many were there. */
kx_status kx_moments_drop(struct kx_index *index, uint64_t *ret_removed, struct kx_error *error) KX_MUST_CHECK;

/* --- Changes of the index that follow from changes of the store ------------------------------------------------ */

/* Zeroed memory is valid. It owns what the changes point at. */
struct kx_moments_changes {
	struct kx_index_change *list;
	void **blocks;
	size_t count, cap;
	size_t bytes; /* of vectors */
};
void kx_moments_changes_done(struct kx_moments_changes *changes);
/* The index is to hold the moments of the record's generation, which the store has, and no others of the video. Spaces are
 * made. What it holds in this generation is left. */
kx_status kx_moments_change_put(struct kx_index *index, struct kx_store *store, const struct kx_video_record *record,
				struct kx_moments_changes *changes, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_moments_change_remove(struct kx_index *index, const char *id, struct kx_moments_changes *changes,
				   struct kx_error *error) KX_MUST_CHECK;
/* Commits them by themselves, some thousand at a time, and empties the list. */
kx_status kx_moments_commit(struct kx_index *index, struct kx_moments_changes *changes, struct kx_error *error)
	KX_MUST_CHECK;

/* How a record's moments stand in the index, all of its modalities. */
struct kx_moments_compared {
	uint64_t held, missing; /* missing: or of another generation */
	double least_cosine;    /* of what is held and what is stored; 1: nothing is held */
};
kx_status kx_moments_compare(struct kx_index *index, struct kx_store *store, const struct kx_video_record *record,
			     struct kx_moments_compared *ret, struct kx_error *error) KX_MUST_CHECK;

#endif
