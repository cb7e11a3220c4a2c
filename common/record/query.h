/* Questions to a shard and its answers. Layer: record. */
#ifndef KX_RECORD_QUERY_H
#define KX_RECORD_QUERY_H

#include "common/record/video.h"

#define KX_QUERY_K_MAX 10000u
#define KX_QUERY_MOMENTS_MAX 65536u

struct kx_query_vector {
	enum kx_modality modality;
	char *space;
	uint32_t moment; /* index, where it is one moment's */
	uint32_t dim;
	float *values;   /* [dim] */
};

enum kx_query_kind { KX_QUERY_SIMILAR = 1, KX_QUERY_VIDEO, KX_QUERY_STATS };

struct kx_query_request {
	uint64_t request_id;
	enum kx_query_kind kind;
	char *video_id;                  /* similar (or "" with vectors), video */
	uint32_t vector_count;           /* whole video, at most one a modality */
	struct kx_query_vector *vectors;
	uint32_t moment_count;           /* for alignment */
	struct kx_query_vector *moments;
	uint64_t moment_us;              /* the grid of these moments; 0 when there are none */
	uint32_t k;
	double weight_visual;
	double weight_audio;
	bool with_moments;
};

KX_RECORD_FUNCTIONS(kx_query_request);

struct kx_moment_match {
	uint64_t ours_us;
	uint64_t theirs_us;
	double score;
	double visual;
	double audio;
};

struct kx_similar_hit {
	char *video_id;
	char *title;
	double score;  /* weighted mean of cosines over the modalities that both sides have, in [-1, 1] */
	double visual; /* what picture gave of it; visual + audio = score */
	double audio;
	bool has_visual;
	bool has_audio;
	uint64_t duration_us;
	uint32_t match_count;
	struct kx_moment_match *matches; /* best first */
};

struct kx_moment_classes {
	enum kx_modality modality;
	uint32_t index;
	uint32_t class_count;
	uint32_t *class_ids;
	float *class_scores;
};

struct kx_shard_stats {
	uint64_t videos;
	uint64_t pending;
	uint64_t moments;
	uint64_t media_us;
	uint64_t disk_bytes;
};

struct kx_query_reply {
	uint64_t request_id;
	kx_status status; /* not KX_OK: only message is set */
	char *message;
	uint32_t hit_count;
	struct kx_similar_hit *hits; /* best first */
	struct kx_video_record *video; /* or NULL */
	uint32_t moment_count;
	struct kx_moment_classes *moments;
	struct kx_shard_stats stats;
};

KX_RECORD_FUNCTIONS(kx_query_reply);

#endif
