/* The mirror's own structure, for the files that make it up. Internal to shard/query. */
#ifndef KX_SHARD_QUERY_MIRROR_INTERNAL_H
#define KX_SHARD_QUERY_MIRROR_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "shard/query/filter_cache.h"
#include "shard/query/mirror.h"
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
	double recall;            /* where a query wants none; 0: by how many videos there are */
	struct kx_columns *columns;
	struct kx_filter_cache *cache;
	void *by_id;              /* tree of struct mirror_row, see tsearch(3) */
	struct mirror_row **rows; /* by number; each stays where it is */
	uint32_t count;           /* rows that were ever made */
	uint32_t cap;
	uint32_t *free_rows;      /* [cap] numbers to use again */
	uint32_t free_count;
	uint64_t epoch;           /* sum of the marks: the same for the same videos in the same generations */
	struct kx_shard_stats stats;
};

/* With the lock held. */
struct mirror_row *kx_mirror_row(const struct kx_mirror *mirror, const char *id); /* NULL: no such video */

/* Pages of nearest videos that are in the mirror itself. Takes the lock. */
void kx_mirror_search_here(struct kx_mirror *mirror, struct kx_mirror_asked *const *asked, size_t n);
/* Before everything is loaded. KX_EBUSY: for this one it must be. */
void kx_mirror_search_early(struct kx_mirror *mirror, struct kx_mirror_asked *const *asked, size_t n);
/* Moves those that had KX_EBUSY to `ret` ([n], may be asked itself); how many. */
size_t kx_mirror_still_asked(struct kx_mirror_asked *const *asked, size_t n, struct kx_mirror_asked **ret);

#endif
