/* What the files of the indexed search share. Internal to shard/query. */
#ifndef KX_SHARD_QUERY_INDEXED_INTERNAL_H
#define KX_SHARD_QUERY_INDEXED_INTERNAL_H

#include <pthread.h>

#include "shard/query/bitmap.h"
#include "shard/query/indexed.h"
#include "shard/query/mirror_internal.h"
#include "shard/query/totals.h"

#define KX_INDEXED_NO_SPACE UINT8_MAX
#define KX_INDEXED_NAME_MAX (16 + KX_SPACE_MAX)
#define KX_INDEXED_GENERATION_BYTES 8u

/* A space of one modality that a row has or had. */
struct indexed_space {
	enum kx_modality modality;
	char name[KX_SPACE_MAX];
	uint32_t dim;
	bool is_indexed;      /* the index has it, as `number` */
	uint32_t number;
	uint32_t rows;        /* of the mirror, that have a vector in it */
	uint32_t *row_at;     /* [row_at_cap] the mirror's row of each of the index's, or KX_ANN_NO_ROW */
	uint32_t row_at_cap;
};

struct indexed_row {
	bool present;
	uint8_t space[KX_ANN_MODALITIES];      /* KX_INDEXED_NO_SPACE: lacks the modality */
	uint32_t index_row[KX_ANN_MODALITIES]; /* KX_ANN_NO_ROW: not in the index */
};

/* The vectors of a row, as its record says now. */
struct indexed_vectors {
	uint8_t space[KX_ANN_MODALITIES];
	float values[KX_ANN_MODALITIES][KX_DIM_MAX];
};

/* Vectors of rows that were scored lately: a row in its place, until another takes it. */
#define KX_INDEXED_CACHE_SLOTS 8192u
struct indexed_cached {
	uint32_t row;
	uint8_t space[KX_ANN_MODALITIES];
	float *values; /* one after another; NULL: none */
};
struct indexed_cache {
	pthread_mutex_t lock;
	struct indexed_cached *slots;
};

/* A filter over the mirror's rows as filters over the index's. It follows when few rows have changed since its version. */
struct indexed_filter {
	uint64_t version;
	uint64_t used;
	uint32_t references;
	bool broken; /* some of its spaces could not follow */
	uint32_t words;
	uint64_t *bits; /* of the mirror's rows */
	struct kx_index_filter *of_space[KX_ANN_SPACES_MAX];
};
#define KX_INDEXED_FILTERS 8u

/* A row that changed, and where the index had it before. */
#define KX_INDEXED_CHANGES 256u
struct indexed_change {
	uint32_t row;
	struct indexed_row before;
};

struct indexed {
	struct kx_ann ann;
	struct kx_mirror *mirror;
	struct kx_index *index;
	struct kx_store *store;
	bool settled;
	bool partial; /* of few rows; counts are of all */
	struct kx_buf missing; /* of a partial one: ids that the last search wants put */
	bool needs_all;
	struct indexed_space spaces[KX_ANN_SPACES_MAX];
	uint32_t space_count;
	uint32_t both[KX_ANN_SPACES_MAX][KX_ANN_SPACES_MAX]; /* rows with this visual and that audio space */
	struct indexed_row *rows;
	uint32_t row_count;
	uint32_t present;     /* rows that are there */
	struct kx_bitmap loose;
	uint64_t version;     /* counts rows that are put or removed */
	struct indexed_change changes[KX_INDEXED_CHANGES]; /* the last ones; of version v at v % KX_INDEXED_CHANGES */
	struct indexed_cache cache;
	pthread_mutex_t filter_lock;
	struct indexed_filter *filters[KX_INDEXED_FILTERS];
	uint64_t filters_made; /* anew */
	uint64_t filter_clock;
};

static inline struct indexed *kx_indexed_of(const struct kx_ann *ann)
{
	return (struct indexed *)(uintptr_t)ann;
}

/* The index's name of a space. */
void kx_indexed_space_name(enum kx_modality modality, const char *space, char ret[KX_INDEXED_NAME_MAX]);
uint8_t kx_indexed_find_space(const struct indexed *indexed, enum kx_modality modality, const char *space);
/* Asks the index for the space, which it may have made since. */
void kx_indexed_look_up(struct indexed *indexed, struct indexed_space *space);
/* Where the row's vector in this modality is in the index. KX_ENOMEM. */
kx_status kx_indexed_set_row(struct indexed *indexed, uint32_t row, int m, uint32_t index_row) KX_MUST_CHECK;
void kx_indexed_set_loose(struct indexed *indexed, uint32_t row); /* or not, by what is known */

kx_status kx_indexed_cache_init(struct indexed_cache *cache) KX_MUST_CHECK;
void kx_indexed_cache_done(struct indexed_cache *cache);
void kx_indexed_cache_forget(struct indexed *indexed, uint32_t row);
/* KX_ENOTFOUND, without a message: the video was deleted. keep: for the next search. */
kx_status kx_indexed_vectors(struct indexed *indexed, uint32_t row, bool keep, struct indexed_vectors *ret,
			     struct kx_error *error) KX_MUST_CHECK;

/* The filter's rows in a space; release what was got. KX_ENOMEM, and what kx_index_filter_new() may fail with. */
kx_status kx_indexed_filter_get(struct indexed *indexed, const uint64_t *bits, uint32_t rows,
				struct indexed_filter **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_indexed_filter_release(struct indexed *indexed, struct indexed_filter *filter); /* NULL is nothing */
void kx_indexed_filters_done(struct indexed *indexed);

kx_status kx_indexed_search(const struct kx_ann *ann, const struct kx_ann_query *query, struct kx_ann_hit *ret,
			    size_t *ret_count, struct kx_ann_work *work, struct kx_error *error) KX_MUST_CHECK;

#endif
