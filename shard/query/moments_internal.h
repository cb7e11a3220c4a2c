/* What the ways of finding single moments share. Internal to shard/query. */
#ifndef KX_SHARD_QUERY_MOMENTS_INTERNAL_H
#define KX_SHARD_QUERY_MOMENTS_INTERNAL_H

#include "shard/query/moments.h"
#include "shard/query/page.h"

struct kx_moment_hit {
	struct kx_candidate at; /* its id is borrowed from whoever lists the hits */
	uint64_t end_us;
	double share[KX_ANN_MODALITIES];
	bool has[KX_ANN_MODALITIES];
};

/* Grows by what is taken. Zeroed memory is valid. */
struct kx_moment_hits {
	struct kx_moment_hit *list;
	size_t count, cap;
};
void kx_moment_hits_done(struct kx_moment_hits *hits);
kx_status kx_moment_hits_add(struct kx_moment_hits *hits, const struct kx_moment_hit *hit) KX_MUST_CHECK;

/* qsort(): as kx_hit_order() has it. */
int kx_moment_hit_compare(const void *a, const void *b);

/* One modality of the video that is being read: its moments in the query's space. */
struct kx_moment_track {
	uint32_t count, cap;
	uint32_t *index;
	float *cosine;
};

/* Compares moments by what is stored of them. */
struct kx_moment_reader {
	struct kx_store *store;
	const struct kx_mirror_query *query;
	const struct kx_cursor *cursor; /* NULL: the first page */
	struct kx_moment_track tracks[KX_ANN_MODALITIES];
	uint64_t read; /* moments */
	float values[KX_DIM_MAX];
};
void kx_moment_reader_done(struct kx_moment_reader *reader);

/* Whether the hit may be on the page: by least score and, where groups do not need those before it, by the cursor. */
bool kx_moment_is_wanted(const struct kx_moment_reader *reader, const struct kx_candidate *at);

/* Appends the moments of a stored video that are wanted, as `row`; only the best of them when `one`. A video that is not
 * there has none. KX_ETOOBIG when the reader has read KX_QUERY_SCAN_MAX. */
kx_status kx_moment_read_video(struct kx_moment_reader *reader, const char *id, uint32_t row, bool one,
			       struct kx_moment_hits *ret, struct kx_error *error) KX_MUST_CHECK;

/* One moment of a generation, without its span. KX_ENOTFOUND, without a message: it is not there, or not comparable. */
kx_status kx_moment_read_one(struct kx_moment_reader *reader, const char *id, uint64_t generation, uint32_t number,
			     struct kx_moment_hit *ret, struct kx_error *error) KX_MUST_CHECK;
void kx_moment_set_span(struct kx_moment_hit *hit, uint32_t number, uint64_t moment_us, uint64_t duration_us);

/* The best `want` wanted moments by the index, in order, under the mirror's lock; their ids are copied to `ids`. */
struct kx_moment_search {
	struct kx_moment_reader *reader;
	const struct kx_stop *stop;
	size_t want;
	struct kx_moment_hits hits;
	struct kx_id_list ids; /* of each hit, and the mirror's epoch */
	struct kx_ann_work work;
	uint64_t matching;     /* videos */
	double recall;         /* that was asked for */
	bool read_all;         /* the index is not the way: read the videos that match */
};
void kx_moment_search_done(struct kx_moment_search *search);
kx_status kx_moment_search(struct kx_mirror *mirror, struct kx_moment_search *search, struct kx_error *error)
	KX_MUST_CHECK;

#endif
