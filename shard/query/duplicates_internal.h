/* Stages of the search for near-duplicates. Internal to shard/query. */
#ifndef KX_SHARD_QUERY_DUPLICATES_INTERNAL_H
#define KX_SHARD_QUERY_DUPLICATES_INTERNAL_H

#include "shard/query/duplicates.h"

/* A video, and its moments in one modality: [first, first + count) of the set's. */
struct kx_dup_video {
	char *id;
	uint64_t generation;
	uint64_t duration_us;
	uint64_t moment_us;
	enum kx_modality modality;
	char space[KX_SPACE_MAX];
	uint32_t dim;
	uint32_t first, count;
};

struct kx_dup_set {
	struct kx_dup_video *videos;
	uint32_t video_count, video_cap;
	uint32_t moment_count, moment_cap;
	uint32_t *video_of; /* [moment_cap] */
	uint32_t *index;    /* on its video's grid */
	float *scale;
	int8_t **codes;     /* each [dim], owned; NULL: the index has it */
};

/* Two moments that are alike: of video a (the smaller number) and b. */
struct kx_dup_match {
	uint32_t a, b;
	int64_t offset_us; /* where a's start is on b's time line, by these two */
};

/* Two videos that show the same. */
struct kx_dup_pair {
	uint32_t a, b;
	int64_t offset_us;
	double score;
	uint64_t overlap_us;
};

kx_status kx_dup_load(struct kx_store *store, const struct kx_duplicates_options *options, struct kx_dup_set *set,
		   struct kx_error *error) KX_MUST_CHECK;
void kx_dup_set_done(struct kx_dup_set *set);
kx_status kx_dup_keep_codes(struct kx_dup_set *set, uint32_t moment, const struct kx_summary *summary) KX_MUST_CHECK;
kx_status kx_dup_too_many(struct kx_error *error);
/* Two moments of different videos that are alike, by their numbers: a < b. */
struct kx_dup_near {
	uint32_t a, b;
};
struct kx_dup_nears {
	struct kx_dup_near *list;
	size_t count, cap;
};
/* What is not of two videos that can be compared is left out. KX_ETOOBIG over the maximum. */
kx_status kx_dup_near_add(const struct kx_dup_set *set, struct kx_dup_nears *nears, uint32_t i, uint32_t j,
			  struct kx_error *error) KX_MUST_CHECK;
/* Each once. */
void kx_dup_nears_unite(struct kx_dup_nears *nears);

/* The moments that the index has are asked for in it, with what is like them by at least `least`; the others keep their
 * codes for kx_dup_compare(). */
kx_status kx_dup_ask(struct kx_store *store, const struct kx_duplicates_options *options, struct kx_dup_set *set, float least,
		     struct kx_dup_nears *nears, struct kx_error *error) KX_MUST_CHECK;
/* Every moment that has codes with every other. *ret_count: how many have. */
kx_status kx_dup_compare(const struct kx_dup_set *set, const struct kx_duplicates_options *options, float least,
			 struct kx_dup_nears *nears, uint64_t *ret_count, struct kx_error *error) KX_MUST_CHECK;

/* Matches by a, b and offset; the caller frees. *ret_compared: moments that were compared each with each. */
kx_status kx_dup_match(struct kx_store *store, struct kx_dup_set *set, const struct kx_duplicates_options *options,
		       struct kx_dup_match **ret, size_t *ret_count, uint64_t *ret_compared, struct kx_error *error)
	KX_MUST_CHECK;
/* Looks at the offset that most of the matches (all of one pair of videos) agree on; *ret_holds: it holds. */
kx_status kx_dup_verify(struct kx_store *store, const struct kx_dup_set *set, const struct kx_duplicates_options *options,
		     const struct kx_dup_match *matches, size_t count, struct kx_dup_pair *ret, bool *ret_holds,
		     struct kx_error *error) KX_MUST_CHECK;

#endif
