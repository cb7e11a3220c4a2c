/* What the files of the moments' index share. Internal to shard/query. */
#ifndef KX_SHARD_QUERY_MOMENTS_INDEX_INTERNAL_H
#define KX_SHARD_QUERY_MOMENTS_INDEX_INTERNAL_H

#include <pthread.h>

#include "shard/ann/ann.h"
#include "shard/query/bitmap.h"
#include "shard/query/mirror_internal.h"
#include "shard/query/moments_index.h"

#define KX_MOMENTS_NAME_MAX (16 + KX_SPACE_MAX)
#define KX_MOMENTS_KEY_MORE 6u         /* bytes of a key behind the id */
#define KX_MOMENTS_ATTRIBUTES 9u       /* generation (be64), flags */
#define KX_MOMENTS_FLAG_PAIRED 1u      /* the video's other modality has this moment, too */

/* One moment in the index. */
struct kx_moment_row {
	uint32_t space, row;
	bool paired;
};

/* What a key says. The id ends with a zero byte. */
struct kx_moment_place {
	const char *id;
	enum kx_modality modality;
	uint32_t number;
};
bool kx_moment_place_parse(const void *key, size_t len, struct kx_moment_place *ret);
/* ret: [KX_INDEX_KEY_MAX]; 0: the id is too long to be in the index. */
size_t kx_moment_place_key(const char *id, enum kx_modality modality, uint32_t number, uint8_t *ret);
size_t kx_moment_prefix(const char *id, uint8_t *ret); /* of all keys of a video; ret: [KX_ID_MAX + 1] */

void kx_moments_space_name(enum kx_modality modality, const char *space, char ret[KX_MOMENTS_NAME_MAX]);
/* The index's space of a space of moments. false: it has none with these dimensions. */
bool kx_moments_find_space(struct kx_index *index, enum kx_modality modality, const char *space, uint32_t dim,
			   uint32_t *ret);

/* A space of the index that holds moments, by the index's number. */
struct moments_space {
	uint32_t *row_of;    /* [cap] the mirror's row of each; that of one that is gone means nothing */
	uint32_t cap;
	struct kx_bitmap alone; /* those whose moment has no other modality */
};

struct moments_row {
	bool present;
	uint64_t moment_us;
	uint64_t count; /* moments, of all modalities */
};

/* A filter over the mirror's rows as filters over the moments, for as long as no row changes. */
struct moments_filter {
	uint64_t version, used;
	uint32_t references;
	uint32_t words;
	uint64_t *bits; /* of the mirror's rows; NULL: all */
	struct kx_index_filter *all[KX_INDEX_SPACES_MAX];   /* NULL: no need of one */
	struct kx_index_filter *alone[KX_INDEX_SPACES_MAX];
};
#define KX_MOMENTS_FILTERS 8u

struct kx_moments {
	struct kx_mirror *mirror;
	struct kx_index *index;
	struct kx_store *store;
	bool read_only;
	bool settled;
	struct moments_space spaces[KX_INDEX_SPACES_MAX];
	struct moments_row *rows; /* by the mirror's numbers */
	uint32_t row_count;
	struct kx_bitmap loose;
	uint64_t version;         /* changes with every row that is put or removed */
	pthread_mutex_t lock;     /* of the filters, and of settling late */
	struct moments_filter *filters[KX_MOMENTS_FILTERS];
	uint64_t filter_clock;
};

/* Read-only: settles when it was not done. With the mirror's lock for reading. */
kx_status kx_moments_ready(struct kx_moments *moments, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_moments_set(struct kx_moments *moments, const struct kx_moment_row *at, uint32_t row) KX_MUST_CHECK;

/* bits: of the mirror's rows, NULL: all. Release what was got. */
kx_status kx_moments_filter_get(struct kx_moments *moments, const struct kx_bitmap *bits, struct moments_filter **ret,
				struct kx_error *error) KX_MUST_CHECK;
void kx_moments_filter_release(struct kx_moments *moments, struct moments_filter *filter); /* NULL is nothing */
void kx_moments_filters_done(struct kx_moments *moments);

#endif
