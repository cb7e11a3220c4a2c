/* The durable index of nearest vectors, of one or several embedding spaces. RocksDB (through common/kv) is the truth;
 * beside it an inverted file (shard/ann/ivf.h) is what searches look at. Layer: shard/index.
 *
 * It lives in the caller's store, in families of its own, so that a record and its vector change in one batch. A key (a
 * video id) has at most one vector a space, and there a row: a small number, the same for as long as this vector is
 * there, used again once it is gone. Each change takes a new row. docs/decisions/0013-vector-index.md says how it is
 * laid out and why a crash anywhere leaves it right.
 *
 * Threads: everything but open and close may be called from any thread. Searches run at the same time and are never
 * stopped by disk writes; changes wait for one another. A thread of the index folds, splits and trains.
 */
#ifndef KX_SHARD_INDEX_INDEX_H
#define KX_SHARD_INDEX_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/error.h"
#include "common/kv/kv.h"
#include "shard/ann/ivf.h"

#define KX_INDEX_K_MAX 10000u
#define KX_INDEX_KEY_MAX 4096u
#define KX_INDEX_ATTRIBUTES_MAX 65535u
#define KX_INDEX_SPACES_MAX 64u
#define KX_INDEX_SPACE_NAME_MAX 255u
#define KX_INDEX_ROWS_MAX (1u << 27) /* of a space; an insert beyond is KX_ETOOBIG */
#define KX_INDEX_CHANGES_MAX 100000u /* at once */

/* The families, to stand one after another among those that the caller opens its store with. */
#define KX_INDEX_FAMILIES 7
extern const struct kx_kv_family kx_index_families[KX_INDEX_FAMILIES];

/* What became of a row, told while no search of its space runs and before any can see it: for whoever keeps columns or
 * filters beside the index. key NULL: the row is free. Must not call the index, except kx_index_filter_set(). */
typedef void (*kx_index_row_changed)(void *ctx, uint32_t space, uint32_t row, const void *key, size_t key_len,
				     const void *attributes, size_t attributes_len);

/* Zeroes are good defaults, but for kv, family and dir. */
struct kx_index_options {
	struct kx_kv *kv;       /* borrowed; closed after the index */
	size_t family;          /* number of kx_index_families[0] in the store */
	const char *dir;        /* for files that can be made again from the store; made when missing */
	bool read_only;         /* no changes; full vectors are a writer's file until it changes, then the store's */
	bool manual;            /* no threads: kx_index_maintain() does what they would */
	uint64_t memory_bytes;  /* codes kept in memory; beyond it cells are read at each search. What is left of it decides whether
				 * the file of full vectors is cached whole, in huge pages. 0: no bound */
	double recall_share;    /* of one CPU, for checking live queries against exact answers; 0: 0.01, negative: none */
	uint32_t cell_rows;     /* aimed at; 0: 250. A cell of twice as many is split */
	uint32_t fold_changes;  /* of a cell, until its record is written anew; 0: 48 */
	uint32_t train_rows;    /* until then there is one cell; 0: 5000 */
	kx_index_row_changed row_changed;
	void *row_changed_ctx;
};

struct kx_index;

/* Reads what is small; cells are read by the first searches, and in the background. An empty store is an empty index.
 * KX_EVERSION, KX_ECORRUPT, KX_EIO. */
kx_status kx_index_open(const struct kx_index_options *options, struct kx_index **ret, struct kx_error *error)
	KX_MUST_CHECK;
void kx_index_close(struct kx_index *index); /* no call may run. NULL is nothing */
void kx_index_cleanup(struct kx_index **index);

/* --- Spaces --------------------------------------------------------------------------------------------------- */

/* The number of a space, which is made, synced, when missing. KX_EINVAL: it is there with another dimension or metric,
 * or these are out of range; KX_ETOOBIG: too many. Numbers are small, the same after reopening. */
kx_status kx_index_space(struct kx_index *index, const char *name, uint32_t dim, enum kx_metric metric,
			 uint32_t *ret_space, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_index_find_space(struct kx_index *index, const char *name, uint32_t *ret_space, struct kx_error *error)
	KX_MUST_CHECK; /* KX_ENOTFOUND, naming it */

struct kx_index_space_info {
	char name[KX_INDEX_SPACE_NAME_MAX + 1];
	uint32_t dim;
	enum kx_metric metric;
	uint64_t rows;       /* that are there */
	uint32_t rows_bound; /* every row is below: what a bitmap over rows needs */
};
kx_status kx_index_space_info(struct kx_index *index, uint32_t space, struct kx_index_space_info *ret,
			      struct kx_error *error) KX_MUST_CHECK;
uint32_t kx_index_space_count(struct kx_index *index); /* numbers are below it */
/* No space holds a row: what an older store looks like, that is to be indexed from its records. */
bool kx_index_is_empty(struct kx_index *index);

/* --- Changes -------------------------------------------------------------------------------------------------- */

/* Sets the vector of a key, or takes it away (vector NULL; a key that is not there is nothing). Of several changes of a
 * key at once the last counts. For cosine the index scales to unit length; it keeps fp16. */
struct kx_index_change {
	uint32_t space;
	const void *key; /* 1 to KX_INDEX_KEY_MAX bytes */
	size_t key_len;
	const float *vector; /* finite, not all zero (KX_EINVAL) */
	uint32_t dim;
	const void *attributes; /* the caller's own, opaque; NULL: none */
	size_t attributes_len;
};

/* A durable change: synced before it returns, seen by every search that begins afterwards. All or nothing. Threads
 * that come at the same time share one write (group commit). KX_EINVAL, KX_ETOOBIG, KX_EFULL, KX_EPERM, KX_EIO. */
kx_status kx_index_commit(struct kx_index *index, const struct kx_index_change *changes, size_t count,
			  struct kx_error *error) KX_MUST_CHECK;

/* The same in three steps, for a caller with records of its own in the batch: stage, kx_kv_write(), apply (or drop, when
 * writing failed). Between stage and the end of it this thread holds the index: others' changes wait, searches do not.
 * After a failure of stage the batch is as it was, and nothing is held. */
struct kx_index_staged;
kx_status kx_index_stage(struct kx_index *index, struct kx_kv_batch *batch, const struct kx_index_change *changes,
			 size_t count, struct kx_index_staged **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_index_apply(struct kx_index *index, struct kx_index_staged *staged); /* both free it */
void kx_index_drop(struct kx_index *index, struct kx_index_staged *staged);

/* Fills a space that is empty (KX_EEXIST) at once: trains, assigns, tunes, writes past the log. Vectors are checked like
 * changes'; keys are all different (KX_EINVAL). A crash in it leaves the space empty, as any failure does; after it all is
 * synced. Changes wait for it. */
struct kx_index_build {
	uint32_t space;
	size_t count;         /* with `next`: the most that come */
	const float *vectors; /* [count][dim] */
	/* The key, and attributes when there are some, of vector i; called in order. Valid until the next call. */
	void (*row)(void *ctx, size_t i, struct kx_index_change *ret);
	void *row_ctx;
	/* In the place of vectors and row, for more than memory holds: key, vector and attributes of one after another, valid until
	 * the next call. KX_ENOTFOUND: that was all (of the first: then it is what the building returns). */
	kx_status (*next)(void *row_ctx, struct kx_index_change *ret, struct kx_error *error);
};
kx_status kx_index_build(struct kx_index *index, const struct kx_index_build *build, struct kx_error *error)
	KX_MUST_CHECK;

/* --- Rows ----------------------------------------------------------------------------------------------------- */

/* KX_ENOTFOUND, with a message, when the key has no vector in the space. Any ret may be NULL. ret_attributes is
 * appended to; ret_vector: [dim], as kept. */
kx_status kx_index_get(struct kx_index *index, uint32_t space, const void *key, size_t key_len, uint32_t *ret_row,
		       float *ret_vector, struct kx_buf *ret_attributes, struct kx_error *error) KX_MUST_CHECK;

/* Every row of a space by rising number, as of the call. visit's failure ends it and is returned. */
typedef kx_status (*kx_index_visit)(void *ctx, uint32_t row, const void *key, size_t key_len, const void *attributes,
				    size_t attributes_len, struct kx_error *error);
kx_status kx_index_each(struct kx_index *index, uint32_t space, kx_index_visit visit, void *ctx,
			struct kx_error *error) KX_MUST_CHECK;

/* The keys of a space that begin with prefix, in the order of their bytes, and where each is; as of the call. */
typedef kx_status (*kx_index_visit_key)(void *ctx, const void *key, size_t key_len, uint32_t row,
					struct kx_error *error);
kx_status kx_index_each_key(struct kx_index *index, uint32_t space, const void *prefix, size_t prefix_len,
			    kx_index_visit_key visit, void *ctx, struct kx_error *error) KX_MUST_CHECK;

/* Which rows may be found. Made by whoever evaluates a filter; used by many searches at once. Rows that are freed must
 * be taken out, and new ones put in, from kx_index_row_changed(), or the filter be made anew: rows are used again. */
struct kx_index_filter;
/* bits: bit r % 64 of word r / 64 is row r; [rows] of them, copied; rows beyond match nothing. */
kx_status kx_index_filter_new(struct kx_index *index, uint32_t space, const uint64_t *bits, uint32_t rows,
			      struct kx_index_filter **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_index_filter_free(struct kx_index_filter *filter); /* searches that use it are over. NULL is nothing */
/* Only from kx_index_row_changed() of its space. KX_ENOMEM: it matches too little from now on; make it anew. */
kx_status kx_index_filter_set(struct kx_index_filter *filter, uint32_t row, bool matches) KX_MUST_CHECK;
/* At any other time: waits until no search of its space runs. The same failures. */
struct kx_index_filter_row {
	uint32_t row;
	bool matches;
};
kx_status kx_index_filter_change(struct kx_index_filter *filter, const struct kx_index_filter_row *rows,
				 size_t count) KX_MUST_CHECK;
uint64_t kx_index_filter_matches(const struct kx_index_filter *filter);

/* --- Search --------------------------------------------------------------------------------------------------- */

struct kx_index_query {
	const float *vector; /* finite, not all zero; for cosine of any length */
	uint32_t dim;
	uint32_t k;          /* 1 to KX_INDEX_K_MAX */
	double recall;       /* wanted, 0 < recall <= 1; 1: exact */
	const struct kx_index_filter *filter; /* NULL: all */
	const void *exclude; /* a key that is not to be found; NULL: none */
	size_t exclude_len;
};

struct kx_index_hit {
	uint32_t row;
	float score; /* cosine, or inner product */
	const void *key; /* in kx_index_hits.keys */
	size_t key_len;
};

/* Reused from one search to the next without allocating; zeroed memory is valid. Owned by one thread. */
struct kx_index_hits {
	struct kx_index_hit *list; /* best first, ties by row */
	uint32_t count;
	uint32_t cap;
	struct kx_buf keys;
	struct kx_ivf_work work;
};
void kx_index_hits_done(struct kx_index_hits *hits);

/* KX_EINVAL (naming what is wrong: dimension, NaN, zero, k, recall), KX_ENOTFOUND (no such space), KX_ENOMEM, KX_EIO,
 * KX_ECORRUPT (and no way to repair it). May block on disk where cells are cold. */
kx_status kx_index_search(struct kx_index *index, uint32_t space, const struct kx_index_query *query,
			  struct kx_index_hits *hits, struct kx_error *error) KX_MUST_CHECK;
/* Each of n queries as kx_index_search() answers it, to the same recall; what they share is read once for many of them. All or
 * nothing, and of a query that is wrong the error says its number, from 0. Changes are let in after every hundred or so, less
 * where queries are long: not all of them see the same state. ret: [n], each as above. */
kx_status kx_index_search_many(struct kx_index *index, uint32_t space, const struct kx_index_query *queries, size_t n,
			       struct kx_index_hits *ret, struct kx_error *error) KX_MUST_CHECK;

/* --- Care ----------------------------------------------------------------------------------------------------- */

struct kx_index_stats {
	uint64_t rows;
	uint32_t cells, cells_hot;
	uint32_t largest_cell;
	uint64_t deltas;      /* changes not yet folded */
	uint64_t hot_bytes;   /* of codes and centroids in memory */
	uint32_t generation;  /* of centroids */
	uint64_t folds, splits, refits, merges, moved, trainings, tunings, repairs; /* since it was opened */
	double drift;         /* mean squared distance of recent vectors to their centroid, over that at training; 0: unknown */
	double recall;        /* live estimate, over the samples below; 0: none */
	double recall_wanted; /* mean of what those queries asked for */
	uint64_t recall_samples;
	double recall_filtered; /* of those with a filter */
	uint64_t recall_filtered_samples;
	double effort;        /* what the tuning was multiplied by */
	bool warm;            /* every cell was seen, full vectors are in place */
};
kx_status kx_index_stats(struct kx_index *index, uint32_t space, struct kx_index_stats *ret, struct kx_error *error)
	KX_MUST_CHECK;

/* Does what is due (warm, fold, split, merge, move, train), at most `steps` of it; *ret_done: how many were done, fewer
 * than steps: nothing is due. Also beside the threads. */
kx_status kx_index_maintain(struct kx_index *index, uint32_t steps, uint32_t *ret_done, struct kx_error *error)
	KX_MUST_CHECK;
/* Folds everything, whatever is due. */
kx_status kx_index_fold_all(struct kx_index *index, struct kx_error *error) KX_MUST_CHECK;
/* New centroids from what is stored. Searches and changes go on; a crash leaves the old ones or the new. */
kx_status kx_index_retrain(struct kx_index *index, uint32_t space, struct kx_error *error) KX_MUST_CHECK;
/* Measures anew how hard to look for which recall. That wants queries that are not in the index, which only training has:
 * it is kx_index_retrain(). */
kx_status kx_index_tune(struct kx_index *index, uint32_t space, struct kx_error *error) KX_MUST_CHECK;

struct kx_index_report {
	uint64_t rows, cells, deltas;
	uint64_t codes_checked;
	uint64_t file_rows_checked; /* of the mapped file, against the store */
	uint64_t faults;
	char first[256];            /* what the first fault is */
};
/* Proves, from the store: keys and rows are a bijection; every row is in exactly one cell; counts add up; codes follow
 * from vectors; the mapped file says the same. Changes wait for it. KX_OK with faults in the report, else what kept it
 * from looking. */
kx_status kx_index_verify(struct kx_index *index, struct kx_index_report *ret, struct kx_error *error) KX_MUST_CHECK;

/* A copy of the whole store (the caller's records too) in a new folder, as of now; files are linked where they can be.
 * Its index makes its mapped files anew. */
kx_status kx_index_checkpoint(struct kx_index *index, const char *path, struct kx_error *error) KX_MUST_CHECK;

#endif
