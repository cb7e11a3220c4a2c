/* What queries need of every stored video, in memory: id, title, length, embeddings. Layer: shard/query.
 *
 * Built at open from the video records alone, kept up by whoever commits. Thread-safe: one lock, many readers.
 */
#ifndef KX_SHARD_QUERY_MIRROR_H
#define KX_SHARD_QUERY_MIRROR_H

#include "common/record/query.h"
#include "common/record/video.h"
#include "shard/ann/ann.h"
#include "shard/store/store.h"

struct kx_mirror;

kx_status kx_mirror_new(struct kx_mirror **ret) KX_MUST_CHECK;
void kx_mirror_free(struct kx_mirror *mirror); /* NULL is nothing */

kx_status kx_mirror_load(struct kx_mirror *mirror, struct kx_store *store, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_mirror_put(struct kx_mirror *mirror, const struct kx_video_record *video, struct kx_error *error)
	KX_MUST_CHECK;
void kx_mirror_remove(struct kx_mirror *mirror, const char *id);

/* The k nearest, best first, ids breaking ties. exclude: an id that is not to be found, or NULL. vectors of unit
 * length. The hits have no matches yet; free them with kx_mirror_hits_free(). Errors as kx_ann_search(). */
struct kx_mirror_query {
	const struct kx_ann_vector *vectors;
	size_t count;
	double weight[KX_ANN_MODALITIES];
	const char *exclude;
	size_t k;
};
kx_status kx_mirror_search(struct kx_mirror *mirror, const struct kx_mirror_query *query,
			   struct kx_similar_hit **ret, uint32_t *ret_count, struct kx_error *error) KX_MUST_CHECK;
void kx_mirror_hits_free(struct kx_similar_hit *hits, uint32_t count);

/* Videos, moments and video time; the rest of *ret is left alone. */
void kx_mirror_stats(struct kx_mirror *mirror, struct kx_shard_stats *ret);

/* Stored ids that a person may have meant, best first. Returns how many; the caller frees each. Looks at a bounded
 * number of ids. */
#define KX_MIRROR_SUGGESTIONS 3
size_t kx_mirror_suggest(struct kx_mirror *mirror, const char *id, char *ret[KX_MIRROR_SUGGESTIONS]);

#endif
