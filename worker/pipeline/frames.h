/* Frames of a file at a rate, for those who want the pictures themselves. Layer: worker/pipeline. */
#ifndef KX_WORKER_PIPELINE_FRAMES_H
#define KX_WORKER_PIPELINE_FRAMES_H

#include "worker/pipeline/pipeline.h"

struct kx_frames_request {
	double fps;
	enum kx_decode_mode mode; /* 0: exact */
	uint64_t tolerance_us;    /* of KX_DECODE_TOLERANT */
	uint64_t start_us;
	uint64_t end_us; /* 0: to the end */
	uint32_t width;
	uint32_t height;
	uint64_t wall_limit_ms; /* 0: an hour */
};

/* rgb: [height][width][3] u8, valid during the call. Another status than KX_OK ends the reading and is returned. */
typedef kx_status kx_frames_visit(void *ctx, const struct kx_sample *sample, const uint8_t *rgb,
				  struct kx_error *error);

/* Decodes in a child of the prober's host and visits every sampled frame, in order, on the calling thread. Blocking;
 * thread-safe. fd is borrowed. ret_info may be NULL, else kx_probe_info_done(). On failure *ret_reason says why. */
kx_status kx_frames_read(struct kx_prober *prober, int fd, const char *name, const struct kx_frames_request *request,
			 kx_frames_visit *visit, void *ctx, struct kx_probe_info *ret_info, enum kx_reason *ret_reason,
			 struct kx_error *error) KX_MUST_CHECK;

#endif
