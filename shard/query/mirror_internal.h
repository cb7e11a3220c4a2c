/* The mirror's own structure, for the files that make it up. Internal to shard/query. */
#ifndef KX_SHARD_QUERY_MIRROR_INTERNAL_H
#define KX_SHARD_QUERY_MIRROR_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "shard/query/filter_cache.h"
#include "shard/query/mirror.h"
#include "shard/query/snapshot.h"
#include "shard/query/totals.h"

struct mirror_row {
	char *id; /* NULL: the row is free */
	uint64_t duration_us;
	uint64_t media_us;
	uint64_t moments;
	uint64_t mark; /* its share of the epoch */
	uint64_t generation;
	uint32_t number;
};

struct kx_mirror {
	pthread_rwlock_t lock;
	struct kx_ann *ann;
	struct kx_moments *moments; /* NULL: they are not in the index */
	bool indexed;             /* ann is of shard/query/indexed.h, over */
	struct kx_index *index;
	bool read_only;
	bool partial;             /* of a few videos: `stats` and `epoch` are the store's totals */
	struct kx_mirror *early;  /* while not loaded: partial, what is searched until then. NULL: none */
	struct kx_store *store;   /* what is to be loaded */
	const struct kx_stop *stop;
	atomic_bool loaded;       /* or nothing was put off */
	pthread_mutex_t need_lock, early_lock;
	char *keep_dir;           /* where snapshots stand; NULL: none are made, nor used */
	atomic_bool has_snapshot; /* that the store names can be read, as far as is known */
	bool keeping_failed;      /* the last one could not be made */
	uint32_t warm_after;      /* answers by a snapshot, then all is loaded; 0: not for that */
	uint32_t kept_answers;    /* under early_lock */
	bool warming;             /* a thread was started; so is this */
	pthread_t warmer;
	struct kx_mirror *kept;   /* while not loaded: what answers by the snapshot. NULL: none */
	/* Of a mirror that does, see mirror_kept.c: */
	struct kx_snapshot *snapshot;
	const struct kx_snapshot_section *kept_facts;
	uint32_t kept_rows;       /* rows that are the snapshot's */
	bool kept_ready;
	uint64_t kept_videos, kept_epoch; /* what it has to add up to */
	double recall;            /* where a query wants none; 0: by how many videos there are */
	struct kx_columns *columns;
	struct kx_filter_cache *cache;
	void *by_id;              /* tree of struct mirror_row, see tsearch(3) */
	struct mirror_row **rows; /* by number; each stays where it is. By a snapshot: kx_mirror_at() brings it in */
	uint32_t count;           /* rows that were ever made */
	uint32_t cap;
	uint32_t *free_rows;      /* [cap] numbers to use again */
	uint32_t free_count;
	uint64_t epoch;           /* sum of the marks: the same for the same videos in the same generations */
	struct kx_shard_stats stats;
};

/* With the lock held. */
struct mirror_row *kx_mirror_row(const struct kx_mirror *mirror, const char *id); /* NULL: no such video */

struct mirror_row *kx_mirror_bring(const struct kx_mirror *mirror, uint32_t number);
struct mirror_row *kx_mirror_kept_row(const struct kx_mirror *mirror, const char *id);
/* A row that was ever made. NULL: the snapshot that it stands in is damaged, or there is no memory for it. */
static inline struct mirror_row *kx_mirror_at(const struct kx_mirror *mirror, uint32_t number)
{
	struct mirror_row *row = mirror->rows[number];

	return row || !mirror->snapshot ? row : kx_mirror_bring(mirror, number);
}

/* At the start: by the store's snapshot, if there is one that can be used. KX_ENOMEM. */
kx_status kx_mirror_kept_make(struct kx_mirror *mirror, struct kx_index *index, const struct kx_totals *totals,
			      struct kx_error *error) KX_MUST_CHECK;
/* A mirror that answers what needs all videos, as kx_mirror_search_here() does, until kx_mirror_kept_end(), which says what
 * became of the question: KX_EBUSY, and it has to be asked again of what is loaded. NULL: everything is or must be loaded. */
struct kx_mirror *kx_mirror_kept_begin(struct kx_mirror *mirror, bool moments);
void kx_mirror_kept_answered(struct kx_mirror *mirror); /* before that: it was a question of its own */
kx_status kx_mirror_kept_end(struct kx_mirror *mirror, kx_status status) KX_MUST_CHECK;
void kx_mirror_end_warming(struct kx_mirror *mirror); /* waits for it */
void kx_mirror_kept_drop(struct kx_mirror *mirror); /* everything is loaded */

/* Pages of nearest videos that are in the mirror itself. Takes the lock. */
void kx_mirror_search_here(struct kx_mirror *mirror, struct kx_mirror_asked *const *asked, size_t n);
/* Before everything is loaded. KX_EBUSY: for this one it must be. */
void kx_mirror_search_early(struct kx_mirror *mirror, struct kx_mirror_asked *const *asked, size_t n);
/* Moves those that had KX_EBUSY to `ret` ([n], may be asked itself); how many. */
size_t kx_mirror_still_asked(struct kx_mirror_asked *const *asked, size_t n, struct kx_mirror_asked **ret);

#endif
