/* Questions to a shard and its answers. Layer: record. */
#ifndef KX_RECORD_QUERY_H
#define KX_RECORD_QUERY_H

#include "common/record/similar.h"
#include "common/record/video.h"

#define KX_QUERY_BATCH_MAX 1000u
#define KX_QUERY_VIDEOS_MAX 1000u
#define KX_QUERY_FOUND_BYTES_MAX (24u << 20) /* of moments' vectors told of videos: they have to fit a question, too */
#define KX_QUERY_ATTRIBUTES_MAX 1024u
#define KX_QUERY_ATTRIBUTE_VALUES_MAX 100u /* told of one attribute */

enum kx_query_kind {
	KX_QUERY_SIMILAR = 1, /* similar */
	KX_QUERY_VIDEO,       /* video_id, with_moments */
	KX_QUERY_STATS,
	KX_QUERY_SIMILAR_BATCH, /* batch */
	KX_QUERY_VIDEOS,      /* video_ids, with_moments */
	KX_QUERY_SCHEMA,
	KX_QUERY_CARE,        /* care */
};

/* To be done with a store as a whole. */
enum kx_care_work { KX_CARE_COMPACT = 1, KX_CARE_CHECKPOINT };

struct kx_care_order {
	enum kx_care_work work;
	char *path; /* checkpoint: of the new folder, absolute; else "" */
};

struct kx_care_done {
	uint64_t bytes_before; /* on disk, of the store */
	uint64_t bytes_after;  /* of the store, or of its checkpoint */
};

struct kx_query_request {
	uint64_t request_id;
	enum kx_query_kind kind;
	struct kx_similar_query similar;
	char *video_id;
	bool with_moments;
	uint32_t batch_count; /* at least one */
	struct kx_similar_query *batch;
	uint32_t video_id_count;
	char **video_ids;
	struct kx_care_order care;
};

KX_RECORD_FUNCTIONS(kx_query_request);

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
	uint64_t index_vectors, index_cells;      /* 0: each video is compared */
	double index_recall, index_recall_wanted; /* of live queries that were checked against exact answers */
	uint64_t index_recall_samples;
	uint32_t part, parts; /* that the shard holds of its catalogue; parts 0: not told */
};

struct kx_found_video {
	char *video_id;
	struct kx_video_record *video; /* NULL: not found */
	uint32_t moment_count;
	struct kx_query_vector *moments; /* where asked for, as many as are aligned */
};

struct kx_attribute_value {
	char *value;
	uint64_t videos;
};

/* What a filter may ask about, and what is stored of it. */
struct kx_attribute_info {
	char *name;
	enum kx_attribute_type type;
	bool user;         /* from manifests, not built in */
	uint64_t videos;   /* that have it */
	uint64_t distinct; /* values; 0: not counted */
	bool has_range;
	double min, max;
	uint32_t value_count;
	struct kx_attribute_value *values; /* the most frequent first */
};

struct kx_query_reply {
	uint64_t request_id;
	kx_status status; /* not KX_OK: only message is set */
	char *message;
	struct kx_similar_answer similar; /* its status and message are the two above: unset here */
	struct kx_video_record *video; /* or NULL */
	uint32_t moment_count;
	struct kx_moment_classes *moments;
	struct kx_shard_stats stats;
	uint32_t answer_count;            /* one for each query of the batch */
	struct kx_similar_answer *answers;
	uint32_t found_count;             /* one for each id asked */
	struct kx_found_video *found;
	uint32_t attribute_count;
	struct kx_attribute_info *attributes; /* by name */
	struct kx_care_done care;
};

KX_RECORD_FUNCTIONS(kx_query_reply);

#endif
