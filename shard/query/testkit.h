/* What the tests of queries share: a store with its index, a question's way through its
 * wire form, and vectors that have near ones. Layer: tests only. */
#ifndef KX_SHARD_QUERY_TESTKIT_H
#define KX_SHARD_QUERY_TESTKIT_H

#include "shard/index/index.h"
#include "shard/query/query.h"

/* A store and an index of few rows a cell, in a folder of their own. */
struct kx_kit_indexed {
	char *folder, *dir; /* dir: the index's */
	struct kx_store *store;
	struct kx_index *index;
};
void kx_kit_indexed_make(struct kx_kit_indexed *kit); /* the folder alone */
void kx_kit_indexed_open(struct kx_kit_indexed *kit, bool read_only);
void kx_kit_indexed_close(struct kx_kit_indexed *kit); /* what was closed already is nothing */
void kx_kit_indexed_done(struct kx_kit_indexed *kit);

/* The answer, after a trip through its wire form; the caller frees. */
struct kx_query_reply *kx_kit_ask(const struct kx_query_context *context, const struct kx_query_request *request);

float kx_kit_uniform(uint64_t *random); /* from -1 to 1 */
/* Of unit length and around one of so many centres, so that there are near ones; one in `tied_in` lies on it, so that some
 * tie. values: [dim]. */
void kx_kit_near_vector(uint64_t *random, uint32_t centres, uint32_t tied_in, float *values, uint32_t dim);

#endif
