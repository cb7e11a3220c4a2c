/* Locks a decoder child in before it reads the first byte of a file. Layer: worker/pipeline, private.
 *
 * The file is a stranger's, and so is whatever a hole in a decoder lets it run. After kx_sandbox_enter() the process can
 * compute, use the descriptors and the memory it has, and end. Any other system call kills it (SIGSYS), which the
 * pipeline reports as KX_REASON_SANDBOX.
 */
#ifndef KX_WORKER_PIPELINE_SANDBOX_H
#define KX_WORKER_PIPELINE_SANDBOX_H

#include <sys/types.h>

#include "common/base/error.h"

struct kx_sandbox;

/* The environment variable (also that of the option --sandbox) which decoder hosts inherit: "off" runs children under
 * their limits only. */
#define KX_SANDBOX_VARIABLE "KINODEX_SANDBOX"

/* In the host: builds the filter once, for all children. KX_EUNSUPPORTED when this kernel or container has no seccomp
 * filters that kill a process. */
kx_status kx_sandbox_new(struct kx_sandbox **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_sandbox_free(struct kx_sandbox *sandbox);

/* In the child, as long as it has one thread, since each change to a credential costs every thread a signal: gives up
 * groups, and capabilities where they don't go with root later on. The user is still needed to reach the pipeline's
 * socket. */
kx_status kx_sandbox_prepare(const struct kx_sandbox *sandbox) KX_MUST_CHECK;

/* In the child, with every descriptor open, every thread made and nothing read. Gives up root, fixes the limits on
 * files, descriptors and processes, and filters the system calls of all threads. Dies with `parent` as before (giving
 * up root forgets that). On failure the process must end. Cannot be undone. */
kx_status kx_sandbox_enter(const struct kx_sandbox *sandbox, pid_t parent) KX_MUST_CHECK;

#endif
