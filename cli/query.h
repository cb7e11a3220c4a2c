/* An embedded file as the vectors of a query, and what its moments say of the whole. Layer: cli. */
#ifndef KX_CLI_QUERY_H
#define KX_CLI_QUERY_H

#include "cli/embed.h"
#include "shard/store/merge.h"

/* The same merge that the shard makes of stored moments. ret's memory is *ret_merge's, which the caller frees. */
kx_status kx_embedded_merge(const struct kx_embedded *embedded, struct kx_merge **ret_merge,
			    struct kx_modality_result ret[2], uint32_t *ret_count,
			    struct kx_error *error) KX_MUST_CHECK;

/* Vectors for a SIMILAR query: one a modality for the whole, and where with_moments one a moment. */
struct kx_vectors {
	uint32_t vector_count;
	struct kx_query_vector *vectors;
	uint32_t moment_count;
	struct kx_query_vector *moments;
};
kx_status kx_vectors_of(const struct kx_embedded *embedded, bool with_moments, struct kx_vectors *ret,
			struct kx_error *error) KX_MUST_CHECK;
void kx_vectors_done(struct kx_vectors *vectors);

#endif
