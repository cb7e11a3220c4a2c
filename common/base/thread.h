/* Threads, stop tokens. Layer: base. */
#ifndef KX_BASE_THREAD_H
#define KX_BASE_THREAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "common/base/error.h"

/* A condition variable on CLOCK_MONOTONIC; use with kx_clock_deadline(). */
kx_status kx_cond_init(pthread_cond_t *cond) KX_MUST_CHECK;

/* Starts a thread with a name (15 characters) that top and gdb show, all signals blocked. */
kx_status kx_thread_start(pthread_t *ret_thread, const char *name, void *(*body)(void *), void *arg,
			  struct kx_error *error) KX_MUST_CHECK;

/* "Please end": a flag to test and a descriptor to poll (readable once asked, and for ever after). Asking is
 * async-signal-safe, so that a SIGINT handler may. */
struct kx_stop {
	atomic_bool asked;
	int fd;
};

kx_status kx_stop_init(struct kx_stop *stop, struct kx_error *error) KX_MUST_CHECK;
void kx_stop_done(struct kx_stop *stop);
void kx_stop_ask(struct kx_stop *stop);
bool kx_stop_asked(const struct kx_stop *stop);

#endif
