#include "common/base/clock.h"

#include <sys/resource.h>

/* The clocks read here always exist on Linux, so clock_gettime() can't fail. */
static uint64_t clock_us(clockid_t clock)
{
	struct timespec now = {0};

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t timeval_us(struct timeval time)
{
	return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec;
}

uint64_t kx_clock_mono_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

uint64_t kx_clock_wall_ms(void)
{
	return clock_us(CLOCK_REALTIME) / 1000;
}

uint64_t kx_clock_cpu_us(void)
{
	struct rusage children = {0};

	getrusage(RUSAGE_CHILDREN, &children);
	return clock_us(CLOCK_PROCESS_CPUTIME_ID) + timeval_us(children.ru_utime) + timeval_us(children.ru_stime);
}

struct timespec kx_clock_deadline(uint64_t after_ms)
{
	struct timespec at = {0};

	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += (time_t)(after_ms / 1000);
	at.tv_nsec += (long)(after_ms % 1000) * 1000000;
	if (at.tv_nsec >= 1000000000) {
		at.tv_nsec -= 1000000000;
		at.tv_sec++;
	}
	return at;
}
