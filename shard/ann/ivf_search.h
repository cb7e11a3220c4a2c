/* What the searches of one query and those of many share. Layer: shard/ann, and nobody outside this folder's ivf files. */
#ifndef KX_SHARD_ANN_IVF_SEARCH_H
#define KX_SHARD_ANN_IVF_SEARCH_H

#include "shard/ann/ivf_impl.h"

#define KX_IVF_CODE_DEVIATION 0.6f   /* sqrt(1 - a^2) for a = sqrt(2 / pi), the usual cosine of a vector and its signs */
#define KX_IVF_LEAD_DEVIATION 0.626f /* sqrt(f (1 - f a^2)) for the leading part f = 3/4 of a code, whose factor is 1/f times as much */
#define KX_IVF_LEAD_EPSILON 0.3f     /* by so much wider the bound by the leading part is: what it drops is never looked at again */
/* How much a centroid's own length counts when cells are ordered. All of it would order by distance; but a centroid that
 * is near because it is short stands for vectors that point everywhere. Half of it needs 40 % fewer cells where those
 * are many (text embeddings), and costs nothing where they are few. */
#define KX_IVF_NORM_WEIGHT 0.5f
#define KX_IVF_NO_WEIGHT 1e-30f

static inline float kx_ivf_norm_weight(const struct kx_ivf *ivf)
{
	return ivf->recipe.metric == KX_METRIC_COSINE ? KX_IVF_NORM_WEIGHT : KX_IVF_NO_WEIGHT;
}

/* --- ivf_scratch.c --- */

struct kx_ivf_batch;

/* What a thread keeps between searches. */
struct kx_ivf_scratch {
	float *rotated; /* [padded] */
	uint8_t *lut;   /* [padded / 4][16] */
	uint32_t padded;
	struct kx_ivf_order order;
	uint32_t *slots, *masks; /* [found_len], [found_len / KX_IVF_BLOCK] */
	float *bounds;
	uint32_t found_len;
	uint32_t *waiting;       /* [waiting_len]: rows whose vectors are on their way */
	float *waiting_bounds;
	uint32_t waiting_len, waiting_count;
	struct kx_ivf_hit *heap; /* [heap_len], the worst on top */
	uint32_t heap_len;
	uint8_t *cold;           /* entries of a cold cell */
	uint32_t cold_len;       /* in blocks */
	struct kx_buf loaded;
	struct kx_ivf_batch *batch; /* NULL: many were never asked at once */
};

/* Another allocation of so many bytes, in lines of their own, for the one at *array; what was there is lost. false: out of memory. */
bool kx_ivf_again(void *array, size_t bytes);
kx_status kx_ivf_reserve_found(struct kx_ivf_scratch *scratch, uint32_t count) KX_MUST_CHECK;
/* Nobody waits. */
kx_status kx_ivf_reserve_waiting(struct kx_ivf_scratch *scratch, uint32_t count) KX_MUST_CHECK;
kx_status kx_ivf_scratch_reserve(struct kx_ivf_scratch *scratch, const struct kx_ivf *ivf, uint32_t k) KX_MUST_CHECK;

/* --- ivf_select.c --- */

/* The best that were found: a heap with the worst on top. */
struct kx_ivf_best {
	struct kx_ivf_hit *hits; /* [k] */
	uint32_t k, count;
};
void kx_ivf_keep(struct kx_ivf_best *best, struct kx_ivf_hit hit);
void kx_ivf_best_sort(struct kx_ivf_best *best); /* best first; a heap no longer */
/* What a score must reach. */
static inline float kx_ivf_least(const struct kx_ivf_best *best)
{
	return best->count < best->k ? -INFINITY : best->hits[0].score;
}

/* The k largest bounds to the front, in no order. */
void kx_ivf_select_best(uint32_t *slots, float *bounds, uint32_t count, uint32_t k);
/* To the front those by whose leading parts the first so many are looked for by all of their codes. Returns how many. */
uint32_t kx_ivf_foremost(uint32_t *slots, float *bounds, uint32_t count, uint32_t first);

/* What estimates of a cell's vectors are put together from. */
struct kx_ivf_slack {
	float product;   /* of the query and the centroid */
	float lead, all; /* what is added to an estimate by the leading part of a code, and by all of it, for its error */
};
/* deviation: of estimates, as long as the residual of the query and what is rounded in it. */
static inline struct kx_ivf_slack kx_ivf_slack_of(float epsilon, float deviation, float product)
{
	return (struct kx_ivf_slack){product, (epsilon + KX_IVF_LEAD_EPSILON) * KX_IVF_LEAD_DEVIATION * deviation,
				     epsilon * KX_IVF_CODE_DEVIATION * deviation};
}
/* The bound by all of a code from that by its leading part, whose sum is taken out of it. rest: of the rotated query, behind the
 * leading part. */
float kx_ivf_bound_by_all(const struct kx_ivf *ivf, const struct kx_ivf_place *place, const struct kx_ivf_slack *slack,
			  const float *rest, uint32_t slot, float bound);

/* By what a query tells whether a cell is worth it. */
struct kx_ivf_judge {
	const struct kx_ivf *ivf;
	float norm2;    /* of the query */
	float effort;
	uint32_t cells; /* that were looked into */
	const struct kx_ivf_best *best;
};
/* beyond: how much more the cell's key is than the least one; product: of the query and the centroid. */
bool kx_ivf_is_worth(const struct kx_ivf_judge *judge, const struct kx_ivf_cell *cell, float beyond, float product);

static inline const uint8_t *kx_ivf_vector_of(const struct kx_ivf *ivf, uint32_t row)
{
	return ivf->vectors + (size_t)row * ivf->stride;
}
void kx_ivf_fetch(const void *at, size_t bytes); /* into the second level */
static inline void kx_ivf_fetch_vector(const struct kx_ivf *ivf, uint32_t row)
{
	kx_ivf_fetch(kx_ivf_vector_of(ivf, row), ivf->recipe.dim * sizeof(uint16_t));
}
/* The tail and the row of a slot, into the first. */
static inline void kx_ivf_fetch_tail(const struct kx_ivf_place *place, size_t tail_bytes, uint32_t slot)
{
	const uint8_t *tail = place->tails + slot * tail_bytes;

	__builtin_prefetch(tail);
	__builtin_prefetch(tail + tail_bytes - 1);
	__builtin_prefetch(&place->rows[slot]);
}

/* What is known of a query before its search begins. */
struct kx_ivf_given {
	const float *rotated;      /* [padded] */
	const float *keys, *least; /* of all lanes, and of each group of them */
};

/* A search on its way. */
struct kx_ivf_search {
	const struct kx_ivf *ivf;
	const struct kx_ivf_query *query;
	const struct kx_ivf_given *given; /* NULL: nothing is */
	struct kx_ivf_scratch *scratch;
	struct kx_error *error;
	struct kx_ivf_views *views; /* of the filter, if there is one */
	const struct kx_ivf_map *map; /* and where anything matches, if that is known */
	uint64_t seen, matched; /* entries of cells looked into, and those that match */
	float wider;     /* by what more effort is made */
	uint32_t barren; /* cells passed by because nothing in them matches */
	struct kx_ivf_lut lut;
	float norm2;    /* of the query */
	struct kx_ivf_how how;
	float nearest;  /* the least key of a centroid: half its square less its product */
	uint32_t passed; /* cells in a row that were not worth it */
	struct kx_ivf_best best;
	struct kx_ivf_work work;
};

void kx_ivf_refine(struct kx_ivf_search *search, uint32_t row);
/* As kx_ivf_search(). */
kx_status kx_ivf_search_given(const struct kx_ivf *ivf, const struct kx_ivf_query *query, const struct kx_ivf_given *given,
			      struct kx_ivf_scratch *scratch, struct kx_ivf_answer *ret, struct kx_error *error) KX_MUST_CHECK;

/* --- ivf_compare.c --- */

/* A cell's content, wherever it lies. */
struct kx_ivf_content {
	struct kx_ivf_place place;
	uint32_t count;
};
/* Into the scratch, where it stays until the next. */
kx_status kx_ivf_load_cold(struct kx_ivf_search *search, const struct kx_ivf_cell *cell, struct kx_ivf_content *ret) KX_MUST_CHECK;
/* Compares everything that may be found. */
kx_status kx_ivf_compare(struct kx_ivf_search *search) KX_MUST_CHECK;

/* --- ivf_batch.c --- */

void kx_ivf_batch_free(struct kx_ivf_batch *batch); /* NULL is nothing */

#endif
