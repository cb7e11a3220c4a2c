/* Whom the gateway asks. cli plugs in the shard of the process and the decoder; fanout.h is the one for shards elsewhere.
 * Layer: gateway/backend. */
#ifndef KX_GATEWAY_BACKEND_BACKEND_H
#define KX_GATEWAY_BACKEND_BACKEND_H

#include "common/base/buf.h"
#include "common/base/error.h"
#include "common/record/query.h"

/* A shard that was asked and did not answer. */
struct kx_shard_failure {
	char *shard; /* where it was asked */
	kx_status status;
	char *message;
};

struct kx_answer {
	struct kx_query_reply *reply; /* its status may be another than KX_OK */
	uint32_t asked, answered;     /* shards */
	uint32_t failure_count;       /* asked - answered */
	struct kx_shard_failure *failures;
};
void kx_answer_done(struct kx_answer *answer); /* zeroed memory is nothing */

struct kx_picture_request {
	const char *name; /* of the file, for messages */
	uint64_t at_us;
	uint32_t width, height;
	uint64_t deadline_us;
};

/* All may be called from any thread and may block; those from picture on may be NULL. */
struct kx_backend {
	void *ctx;
	/* By deadline_us (monotonic) there is an answer, perhaps without that of some shards, or an error: KX_ETIMEDOUT or
	 * KX_EBUSY when no shard answered. A shard that refuses the query is a reply with that status. */
	kx_status (*ask)(void *ctx, const struct kx_query_request *request, uint64_t deadline_us, struct kx_answer *ret,
			 struct kx_error *error);
	/* Asks that run end soon, as do those to come. */
	void (*cancel)(void *ctx);
	/* Appends the frame on screen at at_us, scaled to that size, as PNG. fd is borrowed. KX_EUNSUPPORTED, KX_ECORRUPT: the
	 * file has none there. */
	kx_status (*picture)(void *ctx, int fd, const struct kx_picture_request *request, struct kx_buf *out,
			     struct kx_error *error);
	/* What made a modality's classes, and the name of one; NULL where it is not known. Owned by the backend. */
	const char *(*classifier)(void *ctx, enum kx_modality modality);
	const char *(*label)(void *ctx, enum kx_modality modality, uint32_t class_id);
	/* Appends counters of its own in Prometheus' text form. */
	kx_status (*metrics)(void *ctx, struct kx_buf *out);
};

#endif
