/* Which jobs a video becomes, what they may take, and what they will cost. Pure. Layer: coordinator/core. */
#ifndef KX_COORDINATOR_CORE_PLAN_H
#define KX_COORDINATOR_CORE_PLAN_H

#include <stdbool.h>

#include "common/record/media.h"

struct kx_span {
	uint32_t tracks;
	uint64_t start_us;
	uint64_t end_us; /* 0: to the end */
};

/* Number of jobs: 1, or for a longer video that can be split one a segment and one for its sound, which is never split:
 * few audio decoders give the same samples after a seek, and it is cheap (docs/decisions/0002-split.md). */
uint32_t kx_plan_parts(const struct kx_probe_info *info, uint64_t segment_us);

/* The i-th of them. */
struct kx_span kx_plan_span(const struct kx_probe_info *info, uint64_t segment_us, uint32_t i);

/* Length of media that a span holds, in microseconds; 0 when the container does not say. */
uint64_t kx_plan_span_us(const struct kx_probe_info *info, const struct kx_span *span);

/* What a job of that length (0: not said) may take before its child is ended. A container may claim any length, so
 * only as much of it counts as a file of that many bytes can hold. */
struct kx_limits {
	uint64_t wall_ms, cpu_ms, memory_bytes;
};
struct kx_limits kx_plan_limits(uint64_t span_us, uint64_t content_bytes);

/* Predicted CPU seconds of indexing the whole video at fps, on a core of about 2023: a rule of thumb for the plan that
 * index prints, good to a factor of two. */
double kx_plan_cpu_s(const struct kx_probe_info *info, double fps);

#endif
