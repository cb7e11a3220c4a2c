/* A file of arrays that is made once, mapped, and checked piece by piece as it is looked at. Layer: shard/query.
 *
 * Sections have a kind and a number and begin at multiples of 64 bytes. Each 4 KiB has a checksum, and these have one which
 * whoever keeps the file remembers beside its name (struct kx_snapshot_ref): that one is checked at opening, the others
 * before their bytes are shown. In the machine's own byte order: it is never truth, and made anew where it can't be read. */
#ifndef KX_SHARD_QUERY_SNAPSHOT_H
#define KX_SHARD_QUERY_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

/* Which file it is, and that it is as it was made. */
#define KX_SNAPSHOT_REF_BYTES 24u
struct kx_snapshot_ref {
	uint64_t id, bytes;
	uint32_t check;
};
void kx_snapshot_ref_encode(const struct kx_snapshot_ref *ref, uint8_t out[KX_SNAPSHOT_REF_BYTES]);
kx_status kx_snapshot_ref_decode(const void *bytes, size_t len, struct kx_snapshot_ref *ret) KX_MUST_CHECK; /* KX_ECORRUPT */

/* --- Making one ------------------------------------------------------------------------------------------------ */

struct kx_snapshot_writer; /* owned by one thread */

/* Under a name of its own, in dir, which is made when missing. After a failure, which later calls repeat, only free it.
 * Fault points: those of kx_fs_write(). KX_EFULL. */
kx_status kx_snapshot_create(const char *dir, struct kx_snapshot_writer **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_snapshot_begin(struct kx_snapshot_writer *writer, uint32_t kind, uint32_t number);
void kx_snapshot_add(struct kx_snapshot_writer *writer, const void *bytes, size_t len);
/* On disk when it returns. */
kx_status kx_snapshot_finish(struct kx_snapshot_writer *writer, struct kx_snapshot_ref *ret, struct kx_error *error)
	KX_MUST_CHECK;
void kx_snapshot_writer_free(struct kx_snapshot_writer *writer); /* what is not finished goes. NULL is nothing */
void kx_snapshot_writer_cleanup(struct kx_snapshot_writer **writer);

/* Removes all in dir but this one; NULL: all. What can't be removed stays. */
void kx_snapshot_sweep(const char *dir, const struct kx_snapshot_ref *keep);

/* --- Reading one ----------------------------------------------------------------------------------------------- */

struct kx_snapshot; /* owned by one thread at a time */

struct kx_snapshot_section {
	uint32_t kind, number;
	uint64_t at, len; /* bytes */
};

/* KX_ENOTFOUND, KX_ECORRUPT, KX_EVERSION, KX_EIO. */
kx_status kx_snapshot_open(const char *dir, const struct kx_snapshot_ref *ref, struct kx_snapshot **ret,
			   struct kx_error *error) KX_MUST_CHECK;
void kx_snapshot_close(struct kx_snapshot *snapshot); /* NULL is nothing */
/* NULL: it has none. */
const struct kx_snapshot_section *kx_snapshot_find(const struct kx_snapshot *snapshot, uint32_t kind, uint32_t number);
/* Bytes [from, from + len) of a section, valid until it is closed. NULL: they are not there, or not as they were made; the
 * snapshot is then damaged. */
const void *kx_snapshot_see(struct kx_snapshot *snapshot, const struct kx_snapshot_section *section, uint64_t from,
			    uint64_t len);
/* All of it will be looked at soon. */
void kx_snapshot_ahead(const struct kx_snapshot *snapshot, const struct kx_snapshot_section *section);
bool kx_snapshot_is_damaged(const struct kx_snapshot *snapshot);
void kx_snapshot_spoil(struct kx_snapshot *snapshot); /* what stands in it can't be: it is damaged from now on */

#endif
