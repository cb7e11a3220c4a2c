/* Puts a freshly forked decoder child under its limits. Layer: worker/pipeline, private. */
#ifndef KX_WORKER_PIPELINE_CONFINE_H
#define KX_WORKER_PIPELINE_CONFINE_H

#include <stddef.h>
#include <sys/types.h>

#include "common/base/error.h"
#include "common/record/media.h"

/* In the child, before anything else. Dies with `parent`; keeps descriptors 0, 1, 2 and `keep`, closes all others;
 * limits CPU time, address space and wall time as the request says (0: no limit). Cannot be undone. */
kx_status kx_confine(pid_t parent, const struct kx_decode_request *request, const int *keep, size_t keep_count)
	KX_MUST_CHECK;

/* The part of it that a change of user undoes: to be killed when `parent` ends. KX_ECANCELED: it has. */
kx_status kx_confine_die_with(pid_t parent) KX_MUST_CHECK;

/* Stops the wall clock while the child waits for its reader, and lets it go on: waiting is not the file's fault. */
void kx_confine_pause(void);
void kx_confine_resume(void);

#endif
