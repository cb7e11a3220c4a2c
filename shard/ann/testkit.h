/* An index of rows made by chance, and brute force to hold it against. Layer: tests only. */
#ifndef KX_SHARD_ANN_TESTKIT_H
#define KX_SHARD_ANN_TESTKIT_H

#include "shard/ann/ivf_impl.h"

#define KX_WORLD_K 10u

struct kx_world {
	uint64_t random;
	uint32_t dim, rows, cells;
	enum kx_metric metric;
	float *map;       /* [LATENT][dim] */
	float *values;    /* [rows][dim], what the halves stand for */
	uint16_t *halves; /* [rows][dim] */
	uint32_t *cell_of; /* [rows]; KX_IVF_NO_CELL: it is not in the index */
	struct kx_ivf *ivf;
	struct kx_ivf_scratch *scratch;
};

/* The cells are there and empty. */
struct kx_world *kx_world_new(uint32_t dim, uint32_t rows, uint32_t cells, enum kx_metric metric);
struct kx_world *kx_world_full(uint32_t dim, uint32_t rows, uint32_t cells, enum kx_metric metric); /* every row in its cell */
void kx_world_free(struct kx_world *world);

void kx_world_random_vector(struct kx_world *world, float *out); /* of low intrinsic dimension, as embeddings are. out: [dim] */
void kx_world_set_row(struct kx_world *world, uint32_t row, const float *values);
const float *kx_world_row(const struct kx_world *world, uint32_t row);
void kx_world_add_row(struct kx_world *world, uint32_t row); /* to its nearest cell */
/* For cells that are cold; ctx: the world. */
kx_status kx_world_load(void *ctx, uint32_t cell, struct kx_buf *out, struct kx_error *error);

extern const struct kx_ivf_query kx_world_usual, kx_world_exact; /* without a vector */
/* Searches and holds what comes against brute force: only what may be found, with its score, in order. Returns how many
 * of the best it has. */
uint32_t kx_world_check(struct kx_world *world, const struct kx_ivf_query *query, uint32_t *ret_best);
/* The same of what came of a search. */
uint32_t kx_world_check_hits(const struct kx_world *world, const struct kx_ivf_query *query, const struct kx_ivf_hit *hits,
			     uint32_t count, uint32_t *ret_best);
/* Over queries that are not in the index. */
double kx_world_recall(struct kx_world *world, struct kx_ivf_query query, unsigned queries);
void kx_world_tune(struct kx_world *world);
struct kx_ivf_filter *kx_world_random_filter(struct kx_world *world, double share); /* passes that share of the rows */

#endif
