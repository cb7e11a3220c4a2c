#include "common/base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/fault.h"

kx_status kx_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attributes;

	if (pthread_condattr_init(&attributes))
		return KX_ENOMEM;
	int failed = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	if (!failed)
		failed = pthread_cond_init(cond, &attributes);
	pthread_condattr_destroy(&attributes);
	return failed ? KX_ENOMEM : KX_OK;
}

kx_status kx_thread_start(pthread_t *ret_thread, const char *name, void *(*body)(void *), void *arg,
			  struct kx_error *error)
{
	sigset_t all, before;
	pthread_t thread;
	char short_name[16];

	/* A thread inherits the mask, so there is no moment in which it could be handed a signal. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int failed = kx_fault("thread.start") ? EAGAIN : pthread_create(&thread, NULL, body, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed)
		return kx_error_from_errno(error, failed, "starting thread %s", name);

	snprintf(short_name, sizeof(short_name), "%.15s", name);
	pthread_setname_np(thread, short_name); /* a name is for people: a failure changes nothing */
	*ret_thread = thread;
	return KX_OK;
}

kx_status kx_stop_init(struct kx_stop *stop, struct kx_error *error)
{
	atomic_init(&stop->asked, false);
	stop->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return stop->fd < 0 ? kx_error_from_errno(error, errno, "making a stop descriptor") : KX_OK;
}

void kx_stop_done(struct kx_stop *stop)
{
	kx_cleanup_close(&stop->fd);
	stop->fd = -1;
}

void kx_stop_ask(struct kx_stop *stop)
{
	int saved = errno;
	uint64_t one = 1;

	/* Nobody reads the descriptor, so that it stays readable. Asking again has nothing to add. */
	if (!atomic_exchange(&stop->asked, true))
		while (write(stop->fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
	errno = saved;
}

bool kx_stop_asked(const struct kx_stop *stop)
{
	return atomic_load(&stop->asked);
}
