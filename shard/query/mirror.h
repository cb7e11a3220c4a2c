/* What queries need of every stored video, in memory: embeddings, and what filters ask about. Layer: shard/query.
 *
 * Built at open from the video records alone, kept up by whoever commits. Thread-safe: one lock, many readers.
 */
#ifndef KX_SHARD_QUERY_MIRROR_H
#define KX_SHARD_QUERY_MIRROR_H

#include "common/base/thread.h"
#include "common/record/query.h"
#include "common/record/video.h"
#include "shard/ann/ann.h"
#include "shard/query/attributes.h"
#include "shard/store/store.h"

struct kx_index;
struct kx_mirror;
struct kx_moments;

kx_status kx_mirror_new(struct kx_mirror **ret) KX_MUST_CHECK;
void kx_mirror_free(struct kx_mirror *mirror); /* NULL is nothing */

/* Reads every record. */
kx_status kx_mirror_load(struct kx_mirror *mirror, struct kx_store *store, struct kx_error *error) KX_MUST_CHECK;
/* Puts that off where it can: when there is an index, and the store has totals that say that it holds every vector, nearest
 * videos are found without, by reading the records of those alone that the index finds. Whatever needs all records (a
 * filter, ids left out, duplicates, single moments, the schema, a name that is unknown) loads them first, and so must
 * whoever is about to change the store: kx_mirror_need(). Without totals it loads at once. index: what answers until then,
 * whether the mirror uses one or not; NULL: none. stop may be NULL; asked, loading ends with KX_ECANCELED. All borrowed. */
kx_status kx_mirror_defer(struct kx_mirror *mirror, struct kx_store *store, struct kx_index *index,
			  const struct kx_stop *stop, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_mirror_need(struct kx_mirror *mirror, struct kx_error *error) KX_MUST_CHECK; /* blocks while another loads */

/* What all records add up to after these changes, for kx_store_batch_totals(). Before the mirror is told of them. Without an
 * index nothing is appended. KX_ENOMEM. */
kx_status kx_mirror_totals_after(struct kx_mirror *mirror, const struct kx_store_change *changes, size_t count,
				 struct kx_buf *out, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_mirror_put(struct kx_mirror *mirror, const struct kx_video_record *video, struct kx_error *error)
	KX_MUST_CHECK;
void kx_mirror_remove(struct kx_mirror *mirror, const char *id);

/* Before anything is put: nearest videos are found through the index, and videos are read from the store where they are
 * compared; both borrowed, and closed after the mirror. Loading makes the index agree with the store, unless read_only.
 * Without it the mirror holds all vectors and compares with each. KX_ENOMEM. */
kx_status kx_mirror_use_index(struct kx_mirror *mirror, struct kx_index *index, struct kx_store *store,
			      bool read_only) KX_MUST_CHECK;
/* Likewise for single moments, with or without the other. */
kx_status kx_mirror_use_moments(struct kx_mirror *mirror, struct kx_index *index, struct kx_store *store,
				bool read_only) KX_MUST_CHECK;
struct kx_moments *kx_mirror_moments(const struct kx_mirror *mirror); /* NULL: they are not in the index */
/* With an index, before it is changed: until the video is put or removed it is found by its record alone. */
void kx_mirror_expect(struct kx_mirror *mirror, const char *id);
/* The recall of queries that want none; 0: 1 below KX_MIRROR_EXACT_VIDEOS, else KX_MIRROR_RECALL. Before any search. */
void kx_mirror_set_recall(struct kx_mirror *mirror, double recall);
#define KX_MIRROR_EXACT_VIDEOS 20000u
#define KX_MIRROR_RECALL 0.95

/* Names of classes for filters, which are copied. Without them classes are named by number. KX_ENOMEM. */
kx_status kx_mirror_set_classes(struct kx_mirror *mirror, const struct kx_class_names *names) KX_MUST_CHECK;
/* Fills the reply's attributes. KX_ENOMEM. */
kx_status kx_mirror_schema(struct kx_mirror *mirror, struct kx_query_reply *reply, struct kx_error *error) KX_MUST_CHECK;

/* Which videos are near-duplicates of which: `of` is the id of the one that stands for all. Those that are not indexed
 * are passed over; all that was known before is forgotten. KX_ENOMEM. */
struct kx_duplicate_pair {
	const char *id, *of;
};
kx_status kx_mirror_set_duplicates(struct kx_mirror *mirror, const struct kx_duplicate_pair *pairs,
				   size_t count) KX_MUST_CHECK;

/* What is compared with the stored videos: vectors of unit length. exclude: an id that is not to be found, or NULL. */
struct kx_mirror_query {
	const struct kx_ann_vector *vectors;
	size_t count;
	const char *exclude;
	const struct kx_similar_query *query; /* k, weights, filter, and all else that decides what is found */
	double now_s;                         /* for filters that are relative to now */
};
/* Fills the answer: hits without matches, best first, ids breaking ties; next, work and the rest. Errors as
 * kx_ann_search(), kx_filter_parse() and kx_cursor_decode(). */
kx_status kx_mirror_search(struct kx_mirror *mirror, const struct kx_mirror_query *query,
			   struct kx_similar_answer *answer, struct kx_error *error) KX_MUST_CHECK;

/* One of many questions asked at a time, its answer, which the caller owns, and how it went. */
struct kx_mirror_asked {
	struct kx_mirror_query query;
	struct kx_similar_answer *answer;
	kx_status status;
	struct kx_error error;
};
/* The first of n (at least one), each as kx_mirror_search() answers it, whatever becomes of the others; what they share is
 * looked at once. How many that were: a hundred or so, less where they take long or much memory, since changes wait
 * meanwhile. */
size_t kx_mirror_search_many(struct kx_mirror *mirror, struct kx_mirror_asked *const *asked, size_t n);

/* Ids that pass filter, not_ids and exclude, in no order: [count], which the caller frees each, and the list. */
struct kx_id_list {
	char **ids;
	size_t count;
	uint64_t epoch; /* of the mirror then */
};
kx_status kx_mirror_matching(struct kx_mirror *mirror, const struct kx_mirror_query *query, struct kx_id_list *ret,
			     struct kx_error *error) KX_MUST_CHECK;
void kx_id_list_done(struct kx_id_list *list);
/* What may be found, as rows, while the mirror is locked for reading. */
struct kx_mirror_rows {
	const struct kx_mirror *mirror;
	const uint64_t *rows;  /* as struct kx_ann_query has it; NULL: all */
	uint32_t row_count;
	uint32_t exclude;      /* a row, or KX_ANN_NO_ROW */
	uint64_t matching;     /* how many are left */
	double recall;         /* what the query wants, or the shard; 0: nobody said */
};
kx_status kx_mirror_with_rows(struct kx_mirror *mirror, const struct kx_mirror_query *query,
			      kx_status (*run)(void *ctx, const struct kx_mirror_rows *rows, struct kx_error *error),
			      void *ctx, struct kx_error *error) KX_MUST_CHECK;

/* Title, source, labels, length, group and explanation of a hit that has an id. One that is gone stays as it is. */
kx_status kx_mirror_describe(struct kx_mirror *mirror, const struct kx_mirror_query *query, struct kx_similar_hit *hit,
			     struct kx_error *error) KX_MUST_CHECK;

/* Videos, moments and video time; the rest of *ret is left alone. */
void kx_mirror_stats(struct kx_mirror *mirror, struct kx_shard_stats *ret);

/* Stored ids that a person may have meant, best first. Returns how many; the caller frees each. Looks at a bounded
 * number of ids. */
#define KX_MIRROR_SUGGESTIONS 3
size_t kx_mirror_suggest(struct kx_mirror *mirror, const char *id, char *ret[KX_MIRROR_SUGGESTIONS]);

#endif
