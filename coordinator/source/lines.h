/* Lines of a text file. Internal to coordinator/source. */
#ifndef KX_COORDINATOR_SOURCE_LINES_H
#define KX_COORDINATOR_SOURCE_LINES_H

#include <stdint.h>
#include <sys/types.h>

#include "common/base/buf.h"

#define KX_LINES_CHUNK (64 << 10)

/* Embedded; zeroed memory plus a descriptor (which stays the caller's) is valid. Reads from the file's start. */
struct kx_lines {
	int fd;
	uint64_t number; /* 1-based, of the line given last */
	off_t offset;
	size_t at, len;
	char chunk[KX_LINES_CHUNK];
};

/* Appends the next line with its newline, which the last may lack; a byte order mark at the start is left out.
 * KX_ENOTFOUND without a message after the last. KX_ETOOBIG when out is full; KX_EINVAL when it is no UTF-8 or has zero
 * bytes. */
kx_status kx_lines_next(struct kx_lines *lines, struct kx_buf *out, struct kx_error *error) KX_MUST_CHECK;
void kx_lines_rewind(struct kx_lines *lines);

#endif
