/* The body of a decoder child: one request, one file, one process. Layer: worker/pipeline, private. */
#ifndef KX_WORKER_PIPELINE_CHILD_H
#define KX_WORKER_PIPELINE_CHILD_H

#include "common/record/media.h"
#include "worker/pipeline/protocol.h"
#include "worker/pipeline/sandbox.h"

/* Runs the request and tells its story over the request's endpoint. fds: the file, and for sampling ring memory and
 * ring wake-up; they end with the process. To be called under kx_confine(). sandbox: entered before the file is read; NULL:
 * none, since the user said so. parent: the host. Returns the exit status. */
enum kx_child_status kx_child_main(const struct kx_decode_request *request, const int *fds,
				   const struct kx_sandbox *sandbox, pid_t parent);

#endif
