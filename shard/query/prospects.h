/* The lists of a search, and what they have named so far, each once: a video's row, or one of its moments. Internal to
 * shard/query. */
#ifndef KX_SHARD_QUERY_PROSPECTS_H
#define KX_SHARD_QUERY_PROSPECTS_H

#include "shard/ann/ann.h"
#include "shard/index/index.h"

struct kx_prospect {
	uint32_t row, number; /* number: of the moment; 0 where videos are looked for */
	bool paired;          /* a moment whose video has both modalities of it */
	bool seen[KX_ANN_MODALITIES]; /* in a list; whoever fills it says what counts lists */
	float near[KX_ANN_MODALITIES];
	bool scored;
	double most, least; /* that its score can be */
};

/* Zeroed memory is none. */
struct kx_prospects {
	struct kx_prospect *list;
	uint32_t count, cap;
	uint32_t *slots; /* [mask + 1]: 1 + a prospect; 0: free */
	uint32_t mask;
};
void kx_prospects_done(struct kx_prospects *prospects);

/* The one that is there or a new one, valid until the next call. NULL: no memory. */
struct kx_prospect *kx_prospect_for(struct kx_prospects *prospects, uint32_t row, uint32_t number);

/* For qsort() over pointers: what can reach most comes first. */
int kx_prospect_order(const void *a, const void *b);

/* kx_index_search() that gives all there are where they are fewer than query->k: a list then ends because nothing follows.
 * What it took is added to work. */
kx_status kx_prospect_list(struct kx_index *index, uint32_t space, const struct kx_index_query *query,
			   struct kx_index_hits *hits, struct kx_ann_work *work, struct kx_error *error) KX_MUST_CHECK;
/* The same, of a query that was asked already. */
kx_status kx_prospect_list_rest(struct kx_index *index, uint32_t space, const struct kx_index_query *query,
				struct kx_index_hits *hits, struct kx_ann_work *work, struct kx_error *error)
	KX_MUST_CHECK;

#endif
