/* Nearest rows to a query: the seam behind which an approximate index can stand. Layer: shard/ann.
 *
 * A row is a number with at most one unit vector a modality; a modality that it lacks is a state, not zeros. Vectors
 * are typed by their space. Only vectors of one space are ever compared: the score of a row is
 *   sum over m of weight[m] * cosine[m] / sum over m of weight[m]
 * over the modalities m where row and query both have a vector of the same space. Rows that share none are not found.
 *
 * Readers may search at the same time; changes need the index alone (the owner locks).
 */
#ifndef KX_SHARD_ANN_ANN_H
#define KX_SHARD_ANN_ANN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/record/types.h"

#define KX_ANN_MODALITIES 2
#define KX_ANN_SPACES_MAX 64 /* in one index, over time; more is KX_ETOOBIG */
#define KX_ANN_NO_ROW UINT32_MAX

struct kx_ann_vector {
	enum kx_modality modality;
	const char *space;
	uint32_t dim;
	const float *values; /* unit length; borrowed for the call */
};

struct kx_ann_query {
	const struct kx_ann_vector *vectors; /* at most one a modality */
	size_t count;
	double weight[KX_ANN_MODALITIES];    /* visual, audio; not negative */
	uint32_t exclude;                    /* a row that is not to be found, or KX_ANN_NO_ROW */
	size_t k;
	double recall;                       /* wanted; 0 and 1: exact. Exact search gives all that it has */
	const uint64_t *rows;                /* only rows in it are found: bit r % 64 of word r / 64; NULL: all */
	uint32_t row_count;                  /* bits in it, a multiple of 64; rows beyond are not found */
	bool has_ceiling;
	double ceiling;                      /* where it has one: only rows that score no more are found */
};

/* What a search did. */
struct kx_ann_work {
	uint64_t rows;    /* that have a vector the query can be compared with */
	uint64_t cells;
	uint64_t codes;
	uint64_t refined; /* full vectors compared */
	bool exact;       /* nothing could be missing */
};


struct kx_ann_hit {
	uint32_t row;
	double score;
	double share[KX_ANN_MODALITIES]; /* they add up to the score */
	bool has[KX_ANN_MODALITIES];     /* both sides have it, in one space */
};

struct kx_ann;

struct kx_ann_ops {
	kx_status (*put)(struct kx_ann *ann, uint32_t row, const struct kx_ann_vector *vectors, size_t count,
			 struct kx_error *error);
	void (*remove)(struct kx_ann *ann, uint32_t row);
	kx_status (*search)(const struct kx_ann *ann, const struct kx_ann_query *query, struct kx_ann_hit *ret,
			    size_t *ret_count, struct kx_ann_work *work, struct kx_error *error);
	double (*likeness)(const struct kx_ann *ann, uint32_t a, uint32_t b, const double *weight);
	void (*free)(struct kx_ann *ann);
};

/* The head of every implementation. */
struct kx_ann {
	const struct kx_ann_ops *ops;
};

/* Exact: every row is compared. order(ctx, a, b) ranks rows of equal score (a before b: negative); NULL: by number. */
kx_status kx_ann_exact_new(int (*order)(const void *ctx, uint32_t a, uint32_t b), const void *ctx, struct kx_ann **ret)
	KX_MUST_CHECK;
void kx_ann_free(struct kx_ann *ann); /* NULL is nothing */

/* Adds or replaces a row; all or nothing. Rows are small numbers, used again after removal. KX_ENOMEM; KX_EINVAL when
 * the space is known with another dimension. Copies the vectors. */
kx_status kx_ann_put(struct kx_ann *ann, uint32_t row, const struct kx_ann_vector *vectors, size_t count,
		     struct kx_error *error) KX_MUST_CHECK;
void kx_ann_remove(struct kx_ann *ann, uint32_t row); /* one that is not there is nothing */

/* ret[k]: best first. work may be NULL. KX_EINVAL, naming both spaces, when the index has rows of a modality of the query and none of
 * them in the query's space. */
kx_status kx_ann_search(const struct kx_ann *ann, const struct kx_ann_query *query, struct kx_ann_hit *ret,
			size_t *ret_count, struct kx_ann_work *work, struct kx_error *error) KX_MUST_CHECK;

/* For implementations: what a vector of the row (of the query vector's space, [dim]) gives of its score, by one plain sum, so
 * that all of them agree to the last bit; then the score. false: the shared modalities weigh nothing. */
void kx_ann_hit_share(struct kx_ann_hit *hit, const struct kx_ann_query *query, const struct kx_ann_vector *vector,
		      const float *values);
bool kx_ann_hit_score(struct kx_ann_hit *hit, const struct kx_ann_query *query);

/* The score that one row has for the other; 0 when they share no space. */
double kx_ann_likeness(const struct kx_ann *ann, uint32_t a, uint32_t b, const double weight[KX_ANN_MODALITIES]);

#endif
