/* A set of ids, each with the line it came with, in 20 bytes an id however long it is. Internal to coordinator. */
#ifndef KX_COORDINATOR_SOURCE_IDSET_H
#define KX_COORDINATOR_SOURCE_IDSET_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

#define KX_IDSET_MAX ((size_t)1 << 23) /* ids; some 330 MiB */

struct kx_idset_slot;

/* Embedded; zeroed memory is valid. */
struct kx_idset {
	struct kx_idset_slot *slots;
	size_t count, cap;
};

void kx_idset_done(struct kx_idset *set);

/* line from 1 (1 where there are no lines). KX_EEXIST when the id is in it already, with the line it came with;
 * KX_ETOOBIG over KX_IDSET_MAX; and KX_ENOMEM. Two ids are one when the first 128 bits of their SHA-256 are. */
kx_status kx_idset_add(struct kx_idset *set, const char *id, uint64_t line, uint64_t *ret_first_line) KX_MUST_CHECK;
/* KX_ENOTFOUND when the id is not in it; KX_ENOMEM. */
kx_status kx_idset_find(const struct kx_idset *set, const char *id, uint64_t *ret_line) KX_MUST_CHECK;

#endif
