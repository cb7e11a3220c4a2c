/* Why a decoder child that did not say END is gone, in the ledger's terms. Pure. Layer: worker/pipeline, private. */
#ifndef KX_WORKER_PIPELINE_VERDICT_H
#define KX_WORKER_PIPELINE_VERDICT_H

#include <stdbool.h>

#include "common/record/media.h"
#include "worker/pipeline/protocol.h"

struct kx_verdict {
	enum kx_reason reason;
	bool retriable;
	char message[192];
};

/* request: the limits that it ran under. wall_killed: we killed it for its time. */
void kx_verdict_of(const struct kx_host_exit *exit, const struct kx_decode_request *request, bool wall_killed,
		   struct kx_verdict *ret);

#endif
