/* Files and folders. Layer: base. */
#ifndef KX_BASE_FS_H
#define KX_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/error.h"

/* All of these block on disk and may be called from any thread. Fault points: fs.read, fs.write, fs.fsync, fs.rename. */

/* Reads a whole file of at most max bytes (KX_ETOOBIG, poison). ret is overwritten, its max becomes `max`; the caller
 * ends it with kx_buf_done(). */
kx_status kx_fs_read(const char *path, size_t max, struct kx_buf *ret, struct kx_error *error) KX_MUST_CHECK;

/* Writes by a temporary file beside it, fsync, rename, fsync of the folder: whole or not at all. */
kx_status kx_fs_write(const char *path, const void *bytes, size_t len, struct kx_error *error) KX_MUST_CHECK;

kx_status kx_fs_mkdirs(const char *path, struct kx_error *error) KX_MUST_CHECK; /* like mkdir -p */
bool kx_fs_exists(const char *path);
bool kx_fs_is_socket(int fd); /* as the reader's end of a stream over a network is */
char *kx_fs_join(const char *folder, const char *name); /* NULL when out of memory */

/* Renames a folder, and syncs the one that it stands in. Fails where something is there, but for an empty folder;
 * it is then where it was. */
kx_status kx_fs_move(const char *from, const char *to, struct kx_error *error) KX_MUST_CHECK;

/* Like rm -rf: a path that isn't there is no error, and links are removed, not followed. */
kx_status kx_fs_remove_tree(const char *path, struct kx_error *error) KX_MUST_CHECK;

/* Space that what stands in the files under path takes on disk: neither holes nor room set aside past a file's end; a
 * file with several names counts once for each. What vanishes meanwhile or can't be read counts as nothing. */
uint64_t kx_fs_tree_bytes(const char *path);

/* Takes an exclusive advisory lock (of the open file) on path, created when missing, without waiting. KX_EBUSY, fatal,
 * when another holds it; the error names its pid, which the file holds. The lock ends when the descriptor and its copies
 * in forked children are closed; exec closes it. */
kx_status kx_fs_lock(const char *path, int *ret_fd, struct kx_error *error) KX_MUST_CHECK;
/* Whether one holds it. Only looks, so that nobody who takes the lock at that moment finds it taken; needs no right to
 * write. False also when there is no such file. */
bool kx_fs_is_locked(const char *path);

#endif
