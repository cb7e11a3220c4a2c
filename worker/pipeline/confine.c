#include "worker/pipeline/confine.h"

#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/base/macros.h"

/* The pipeline enforces the wall limit; the child's own timer is for a pipeline that hangs. */
#define WALL_BACKSTOP_MS 2000u

#define KEEP_MAX 8
#define THREAD_STACK_BYTES (1u << 20)

/* Sanitizers reserve terabytes of address space for their shadows: no limit on it can hold there. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMIT_ADDRESS_SPACE 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LIMIT_ADDRESS_SPACE 0
#endif
#endif
#ifndef LIMIT_ADDRESS_SPACE
#define LIMIT_ADDRESS_SPACE 1
#endif

static struct itimerval paused;

kx_status kx_confine_die_with(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
		return KX_EIO;
	/* It may have died before the line above. */
	return getppid() == parent ? KX_OK : KX_ECANCELED;
}

static int compare_fds(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static kx_status close_others(const int *keep, size_t count)
{
	int sorted[KEEP_MAX];
	unsigned from = STDERR_FILENO + 1;

	if (count > KEEP_MAX)
		return KX_EINVAL;
	for (size_t i = 0; i < count; i++)
		sorted[i] = keep[i];
	qsort(sorted, count, sizeof(sorted[0]), compare_fds);
	for (size_t i = 0; i < count; i++) {
		unsigned fd = (unsigned)sorted[i];

		if (fd > from && close_range(from, fd - 1, 0) != 0)
			return KX_EIO;
		if (fd >= from)
			from = fd + 1;
	}
	return close_range(from, UINT_MAX, 0) == 0 ? KX_OK : KX_EIO;
}

static kx_status set_limit(__rlimit_resource_t what, rlim_t soft, rlim_t hard)
{
	struct rlimit limit = {.rlim_cur = soft, .rlim_max = hard};
	struct rlimit old;

	if (getrlimit(what, &old) != 0)
		return KX_EIO;
	if (limit.rlim_max > old.rlim_max)
		limit.rlim_max = old.rlim_max;
	if (limit.rlim_cur > limit.rlim_max)
		limit.rlim_cur = limit.rlim_max;
	return setrlimit(what, &limit) == 0 ? KX_OK : KX_EIO;
}

/* What is mapped already (the executable and its libraries) is not the job's doing. */
static kx_status mapped_bytes(uint64_t *ret_bytes)
{
	KX_CLEANUP(kx_cleanup_fclose) FILE *file = fopen("/proc/self/statm", "re");
	char line[128];

	if (!file || !fgets(line, sizeof(line), file))
		return KX_EIO;
	*ret_bytes = strtoull(line, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
	return *ret_bytes != 0 ? KX_OK : KX_EIO;
}

/* ZeroMQ's threads get 8 MiB of address space each by default: more than some limits, and they use next to nothing. */
static kx_status limit_stacks(void)
{
	pthread_attr_t attributes;
	int error = pthread_attr_init(&attributes);

	if (error != 0)
		return KX_ENOMEM;
	error = pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);
	if (error == 0)
		error = pthread_setattr_default_np(&attributes);
	pthread_attr_destroy(&attributes);
	return error == 0 ? KX_OK : KX_EIO;
}

static kx_status limit_memory(const struct kx_decode_request *request)
{
	uint64_t bytes = 0;
	kx_status status;

	/* One arena: the others reserve 64 MiB of address space each and use little of it. Also, to make another one
	 * malloc() would count processors, in files that the sandbox keeps closed. */
	mallopt(M_ARENA_MAX, 1);
	if (!LIMIT_ADDRESS_SPACE || request->memory_limit_bytes == 0)
		return KX_OK;
	status = mapped_bytes(&bytes);
	if (status != KX_OK)
		return status;
	status = limit_stacks();
	if (status != KX_OK)
		return status;
	bytes += request->memory_limit_bytes + (uint64_t)request->ring_slots * request->slot_bytes;
	return set_limit(RLIMIT_AS, bytes, bytes);
}

static kx_status limit_times(const struct kx_decode_request *request)
{
	kx_status status = KX_OK;

	if (request->cpu_limit_ms > 0) {
		rlim_t seconds = (request->cpu_limit_ms + 999) / 1000;

		status = set_limit(RLIMIT_CPU, seconds, seconds + 1);
	}
	if (status == KX_OK && request->wall_limit_ms > 0) {
		uint64_t ms = request->wall_limit_ms + WALL_BACKSTOP_MS;
		struct itimerval timer = {
			.it_value = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)},
		};

		status = setitimer(ITIMER_REAL, &timer, NULL) == 0 ? KX_OK : KX_EIO;
	}
	return status;
}

kx_status kx_confine(pid_t parent, const struct kx_decode_request *request, const int *keep, size_t keep_count)
{
	kx_status status = kx_confine_die_with(parent);

	if (status == KX_OK)
		status = close_others(keep, keep_count);
	if (status == KX_OK)
		status = set_limit(RLIMIT_CORE, 0, 0);
	if (status == KX_OK)
		status = limit_memory(request);
	if (status == KX_OK)
		status = limit_times(request);
	return status;
}

void kx_confine_pause(void)
{
	const struct itimerval off = {0};

	setitimer(ITIMER_REAL, &off, &paused);
}

void kx_confine_resume(void)
{
	setitimer(ITIMER_REAL, &paused, NULL);
}
