/* What RocksDB holds of a video beside its moments, and of an input. Layer: record. */
#ifndef KX_RECORD_VIDEO_H
#define KX_RECORD_VIDEO_H

#include "common/record/result.h"

struct kx_modality_result {
	enum kx_modality modality;
	char *space;
	uint32_t moments;
	uint32_t rows;
	uint32_t dim;
	float *embedding; /* [dim] unit length */
	uint32_t class_count;
	uint32_t *class_ids;
	float *class_scores;
};

/* Depends on the video and the recipe only: byte for byte the same at any number of workers and any split. */
struct kx_video_result {
	char *video_id;
	uint32_t modality_count; /* 1 or 2: visual first. A modality that the video lacks is absent, not zeros */
	struct kx_modality_result modalities[2];
	uint64_t visual_us;
	uint64_t audio_us;
	uint64_t duration_us;
	bool truncated;
	enum kx_decode_mode decode_mode;
	uint64_t decode_tolerance_us; /* of KX_DECODE_TOLERANT, else 0 */
	uint64_t max_time_error_us;
	uint64_t moment_us;
	uint8_t recipe_sha256[KX_SHA_LEN];
};

KX_RECORD_FUNCTIONS(kx_video_result);

struct kx_video_record {
	uint64_t generation;
	uint64_t stored_at_ms;
	struct kx_video_info info;
	struct kx_video_result result;
};

KX_RECORD_FUNCTIONS(kx_video_record);

/* A generation that is still arriving. */
struct kx_pending_video {
	uint64_t generation;
	uint32_t parts;           /* 0 until the plan arrived */
	struct kx_video_info info;
	uint32_t part_end_count;
	struct kx_part_end *part_ends; /* at most one a part */
};

KX_RECORD_FUNCTIONS(kx_pending_video);

/* One line of the coordinator's ledger. */
struct kx_input {
	char *video_id;
	char *root;
	char *source;
	uint64_t content_bytes;
	uint64_t modified_ns;
	uint8_t content_sha256[KX_SHA_LEN];
	enum kx_input_state state;
	enum kx_reason reason;
	char *message;
	uint64_t generation;
	uint64_t duration_us;
	uint64_t covered_us;
	uint64_t updated_at_ms;
	uint8_t recipe_sha256[KX_SHA_LEN];
	char *copy_of; /* id of an earlier input with the same content, or "" */
	char *title;
	uint32_t label_count;
	char **labels;
	uint32_t attempts;
	struct kx_extras extras;
};

KX_RECORD_FUNCTIONS(kx_input);

#endif
