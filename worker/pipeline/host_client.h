/* The near end of a decoder host: starts it, gives it work, hears of exits. Layer: worker/pipeline, private.
 *
 * Embedded; {.fd = -1} is a host that is not there. Used by one thread at a time; nothing blocks but where it says so.
 */
#ifndef KX_WORKER_PIPELINE_HOST_CLIENT_H
#define KX_WORKER_PIPELINE_HOST_CLIENT_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/base/error.h"
#include "common/record/media.h"
#include "worker/pipeline/protocol.h"

struct kx_host {
	pid_t pid;  /* 0: somebody else's, that was joined */
	int fd;     /* control socket; readable when kx_host_recv() has something */
	bool ready;  /* it said so */
	bool unsafe; /* or that it can't lock its children in; it is of no use then */
};

/* `program decoder-host` in a process group of its own, so that a terminal's Ctrl-C reaches only us. */
kx_status kx_host_start(struct kx_host *host, const char *program, struct kx_error *error) KX_MUST_CHECK;
/* Another client of `other`'s host, which must be ready; when that one is stopped, this one's host has died. As after a
 * start, kx_host_wait_ready() comes next. */
kx_status kx_host_join(struct kx_host *host, struct kx_host *other, struct kx_error *error) KX_MUST_CHECK;
/* Blocks until it can take work. KX_ETIMEDOUT; KX_EIO when it died; KX_EUNSUPPORTED, fatal, when the kernel has no sandbox
 * and nobody said to do without. */
kx_status kx_host_wait_ready(struct kx_host *host, int timeout_ms, struct kx_error *error) KX_MUST_CHECK;
/* Kills it, and by that its children; of one that was joined only those that were started from here. */
void kx_host_stop(struct kx_host *host);

/* Starts a child; the descriptors are borrowed. KX_EIO: the host is gone or hangs. */
kx_status kx_host_run(struct kx_host *host, const struct kx_decode_request *request, const int *fds, size_t fd_count,
		      struct kx_error *error) KX_MUST_CHECK;
kx_status kx_host_kill(struct kx_host *host, uint64_t ticket) KX_MUST_CHECK;

/* The next exit. KX_EAGAIN: none now (readiness is noted in passing). KX_EIO: the host is gone. */
kx_status kx_host_recv(struct kx_host *host, struct kx_host_exit *ret) KX_MUST_CHECK;

#endif
