/* Messages of the results topic. Layer: record. */
#ifndef KX_RECORD_RESULT_H
#define KX_RECORD_RESULT_H

#include "common/record/attribute.h"
#include "common/record/moment.h"
#include "common/record/record.h"

struct kx_video_info {
	char *title;
	uint32_t label_count;
	char **labels;
	char *source;
	uint8_t content_sha256[KX_SHA_LEN];
	uint64_t content_bytes;
	uint64_t duration_us; /* as the container says; 0 when it does not */
	uint32_t width;
	uint32_t height;
	char *container;
	char *video_codec;
	char *audio_codec;
	char *run_id;
	uint64_t planned_at_ms;
	uint8_t recipe_sha256[KX_SHA_LEN];
	struct kx_extras extras;
};

struct kx_part_end {
	uint32_t part;
	uint32_t parts;
	uint32_t tracks;
	uint32_t frames;
	uint32_t patches;
	uint64_t visual_us; /* covered by presented frames */
	uint64_t audio_us;
	bool has_visual;
	bool has_audio;
	bool truncated;
	enum kx_decode_mode decode_mode;
	uint64_t decode_tolerance_us; /* of KX_DECODE_TOLERANT, else 0 */
	uint64_t max_time_error_us;
	uint8_t recipe_sha256[KX_SHA_LEN];
	uint64_t moment_us; /* the grid that its moments stand on */
};

enum kx_result_kind {
	KX_RESULT_PLAN = 1, /* parts, info */
	KX_RESULT_MOMENT,   /* moment */
	KX_RESULT_PART_END, /* part_end */
	KX_RESULT_DELETE,   /* generation: this one and all older */
	KX_RESULT_COPY,     /* copy_from, info */
};

struct kx_result {
	char *video_id;
	uint64_t generation;
	enum kx_result_kind kind;
	uint32_t parts;
	struct kx_video_info info;
	struct kx_moment moment;
	struct kx_part_end part_end;
	char *copy_from;
};

KX_RECORD_FUNCTIONS(kx_result);

#endif
