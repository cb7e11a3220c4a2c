/* The ids met in a run: 16 bytes each. Internal to coordinator/run. */
#ifndef KX_COORDINATOR_RUN_SEEN_H
#define KX_COORDINATOR_RUN_SEEN_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/error.h"

/* Zeroed memory is an empty set. Holds the first 16 bytes of each id's SHA-256; one thread at a time. */
struct kx_seen {
	unsigned char (*slots)[16]; /* open addressing, all zero: empty */
	size_t count, cap;
};

/* *ret_new: it was not there before. */
kx_status kx_seen_add(struct kx_seen *seen, const char *id, bool *ret_new) KX_MUST_CHECK;
bool kx_seen_has(const struct kx_seen *seen, const char *id);
void kx_seen_done(struct kx_seen *seen);

#endif
