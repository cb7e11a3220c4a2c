/* The names in a folder, sorted bytewise, in bounded memory. Internal to coordinator/source.
 *
 * A folder may have millions of entries. So it is read again for every `window` names: each time the smallest ones
 * after the last that was given are kept. Names that start with a dot are left out.
 */
#ifndef KX_COORDINATOR_SOURCE_NAMES_H
#define KX_COORDINATOR_SOURCE_NAMES_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/base/error.h"

/* Embedded; zeroed memory plus a window is valid. */
struct kx_names {
	size_t window; /* at most twice as many names are in memory */
	char **items;
	size_t count, cap, at;
	bool filled;
	bool more; /* there are names after those in items */
	char *last;
};

void kx_names_done(struct kx_names *names);

/* The next name, valid until the next call; NULL after the last. dir is the names' own: nobody else moves it.
 * KX_EIO when the folder can't be read on. */
kx_status kx_names_next(struct kx_names *names, DIR *dir, const char **ret, struct kx_error *error) KX_MUST_CHECK;

#endif
