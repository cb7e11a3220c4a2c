/* Time. Layer: base. */
#ifndef KX_BASE_CLOCK_H
#define KX_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

uint64_t kx_clock_mono_us(void);   /* for intervals and deadlines */
uint64_t kx_clock_wall_ms(void);   /* Unix time, for records */
uint64_t kx_clock_cpu_us(void);    /* CPU time of this process and of its children that were waited for */

/* A CLOCK_MONOTONIC timespec `after_ms` from now, for condition variables made with kx_cond_init(). */
struct timespec kx_clock_deadline(uint64_t after_ms);

#endif
