/* Fault injection for tests: the nth time a named point is passed, it fails. Layer: base.
 *
 * Points stand where an outside call can fail: `if (kx_fault("kv.write")) return ...`. Armed through
 * KINODEX_FAULT="kv.write:3,media.read:1" or kx_fault_arm(). Unarmed it is one relaxed atomic load. */
#ifndef KX_BASE_FAULT_H
#define KX_BASE_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* True when the point is to fail now; errno is then EIO, so that the caller's errno path can be used as it is. */
bool kx_fault(const char *point);

/* Names have at most KX_FAULT_NAME_MAX characters; at most KX_FAULT_POINTS are armed at once. */
#define KX_FAULT_NAME_MAX 47
#define KX_FAULT_POINTS 32

/* Fails the nth pass (1 = the next) and no other; 0 disarms. Arming a point again starts
 * it anew. For tests; thread-safe. Clearing also forgets KINODEX_FAULT. */
void kx_fault_arm(const char *point, uint64_t nth);
void kx_fault_clear(void);

#endif
