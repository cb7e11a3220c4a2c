/* Times of media for people. Layer: cli. */
#ifndef KX_CLI_TIME_H
#define KX_CLI_TIME_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

/* "1:05" or "1:02:05" on standard output. */
static inline void kx_print_time(uint64_t us)
{
	uint64_t s = us / 1000000;

	if (s >= 3600)
		printf("%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, s / 3600, s / 60 % 60, s % 60);
	else
		printf("%" PRIu64 ":%02" PRIu64, s / 60, s % 60);
}

#endif
