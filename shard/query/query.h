/* Answers queries from the mirror and the store. Layer: shard/query.
 *
 * Thread-safe; blocks on disk only for records and for the moments of the videos that are aligned. */
#ifndef KX_SHARD_QUERY_QUERY_H
#define KX_SHARD_QUERY_QUERY_H

#include "common/base/thread.h"
#include "common/record/query.h"
#include "shard/query/duplicates_file.h"
#include "shard/query/mirror.h"
#include "shard/store/store.h"

#define KX_QUERY_ALIGN_MAX 16384u /* first moments of a video, in each modality, that are aligned */

struct kx_query_context {
	struct kx_store *store;
	struct kx_mirror *mirror;
	struct kx_index *index;                /* for what stats tell of it; NULL: there is none */
	struct kx_duplicates_file *duplicates; /* for groups and duplicate_of; NULL: none are known */
	const struct kx_stop *stop; /* asked: a long answer ends early, KX_ECANCELED. May be NULL */
	uint64_t deadline_us;       /* monotonic; past it a long answer ends early, KX_ETIMEDOUT. 0: none */
};

/* Whether a long answer is to end early; looked at in its loops. */
kx_status kx_query_ended(const struct kx_query_context *context, struct kx_error *error) KX_MUST_CHECK;

/* Whatever is wrong with the query or the store becomes a reply with its status; only without memory for even that
 * is it an error. The caller frees *ret. */
kx_status kx_query_answer(const struct kx_query_context *context, const struct kx_query_request *request,
			  struct kx_query_reply **ret, struct kx_error *error) KX_MUST_CHECK;

/* A reply that says what went wrong. NULL: no memory. */
struct kx_query_reply *kx_query_failure(uint64_t request_id, const struct kx_error *why);

#endif
