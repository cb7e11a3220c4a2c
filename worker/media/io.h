/* The bytes of an input, by the descriptor that was handed over: a file is read in place; behind a socket somebody
 * with network answers (common/fetch/stream.h). Layer: worker/media. */
#ifndef KX_MEDIA_IO_H
#define KX_MEDIA_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/error.h"
#include "common/record/types.h"

struct kx_io {
	int fd; /* borrowed */
	bool remote;
	int64_t size;

	/* Why reading failed. */
	kx_status status; /* KX_OK: it did not; else KX_EIO, whatever the reason, so that no 404 passes for an end */
	enum kx_reason reason;
	bool retriable;
	char message[512]; /* of a remote input, names it; else "" */
	int errno_value;   /* of a file */
};

/* What is behind fd, and how much of it. KX_EUNSUPPORTED for what is neither file nor socket, without a failure noted;
 * other failures are, see kx_io_fail(). Blocks on disk, or on whoever answers. */
kx_status kx_io_open(struct kx_io *io, int fd) KX_MUST_CHECK;

/* At most len bytes at offset: how many; 0 at the end, -1 when it failed. Blocks likewise. */
ssize_t kx_io_read(struct kx_io *io, uint64_t offset, uint8_t *bytes, size_t len);

/* A failure in our own terms, as if fd had failed with that errno. */
void kx_io_note(struct kx_io *io, int errno_value);

/* The noted failure as an error, KX_EIO. name: of the input. */
kx_status kx_io_fail(const struct kx_io *io, const char *name, struct kx_error *error);

#endif
