/* Replies as JSON. Each writes fields into an object that is open; the caller has opened it and closes it. Pure.
 * Layer: gateway/json. */
#ifndef KX_GATEWAY_JSON_ENCODE_H
#define KX_GATEWAY_JSON_ENCODE_H

#include "common/record/query.h"
#include "gateway/json/writer.h"

/* The name of a class and of what made it; either may be NULL, or give NULL. */
struct kx_namer {
	void *ctx;
	const char *(*classifier)(void *ctx, enum kx_modality modality);
	const char *(*label)(void *ctx, enum kx_modality modality, uint32_t class_id);
};

/* "hits", "next", "exact", "recall", "changed", and with `explain` "work". moments: whether hits say which match. */
void kx_encode_similar(struct kx_json *json, const struct kx_similar_answer *answer, bool moments, bool explain);

struct kx_encode_video {
	const struct kx_namer *namer;
	uint32_t top;    /* classes of each modality; 0: none */
	bool embeddings; /* the vectors too */
};
/* "id", "title", ..., "modalities". */
void kx_encode_video(struct kx_json *json, const struct kx_video_record *video, const struct kx_encode_video *how);

/* "video": the classes of each modality; with moments also "moments". */
void kx_encode_classes(struct kx_json *json, const struct kx_video_record *video, const struct kx_moment_classes *moments,
		       uint32_t moment_count, bool with_moments, const struct kx_namer *namer, uint32_t top);

void kx_encode_stats(struct kx_json *json, const struct kx_shard_stats *stats); /* "videos", "moments", ... */
void kx_encode_schema(struct kx_json *json, const struct kx_query_reply *reply); /* "attributes" */

#endif
