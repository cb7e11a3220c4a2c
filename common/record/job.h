/* One unit of work: a span of one video. Layer: record. */
#ifndef KX_RECORD_JOB_H
#define KX_RECORD_JOB_H

#include "common/record/record.h"

struct kx_job {
	char *run_id;
	char *video_id;
	uint64_t generation; /* of the video's plan; a higher one replaces a lower one */
	uint32_t part;       /* 0-based, of `parts` */
	uint32_t parts;
	uint32_t tracks;     /* of enum kx_track */
	char *source;        /* absolute path, or an address (kx_fetch_is_url()); content_sha256 is then its fingerprint */
	uint8_t content_sha256[KX_SHA_LEN];
	uint64_t content_bytes;
	uint64_t start_us;   /* visual span [start, end); audio is never split (docs/decisions) */
	uint64_t end_us;     /* 0: to the end */
	double fps;
	enum kx_decode_mode decode_mode;
	uint64_t decode_tolerance_us; /* of KX_DECODE_TOLERANT, else 0 */
	uint64_t moment_us;
	uint8_t recipe_sha256[KX_SHA_LEN];
	uint32_t attempt;    /* 1-based */
	uint64_t wall_limit_ms;
	uint64_t cpu_limit_ms;
	uint64_t memory_limit_bytes;
};

KX_RECORD_FUNCTIONS(kx_job);

#endif
