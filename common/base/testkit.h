/* Chance for tests: one seed a run that is printed and can be given, and bytes spoilt with it; and a place for their
 * files. Layer: base. */
#ifndef KX_BASE_TESTKIT_H
#define KX_BASE_TESTKIT_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"

/* The environment's KINODEX_TEST_SEED: a number, or "new" for one that was never used; without it always the same, so that
 * a run fails for what was changed and not for its luck. Printed. Anything else there ends the program. */
uint64_t kx_test_seed(void);

/* Where a test may make a folder, also for sockets: $TMPDIR, or /tmp where a socket's name would be too long (108 bytes). */
const char *kx_test_tmp(void);

uint64_t kx_test_random(uint64_t *random); /* the state is any number; never stuck */
size_t kx_test_below(uint64_t *random, size_t n);

/* Flips a bit, sets a byte to one of `telling`, cuts off, cuts out or says a part twice. bytes holds at least one byte
 * before and after, and has room for 64 more. */
void kx_test_mutate(uint64_t *random, struct kx_buf *bytes, const void *telling, size_t telling_len);

#endif
