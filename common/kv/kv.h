/* A durable, ordered key-value store with column families: RocksDB behind a narrow door. Layer: kv.
 *
 * Keys and values are bytes. A handle may be used by many threads. One process at a time opens a store for
 * writing; any number may open it to read (they see it as it was when they opened). Everything here may block on
 * disk. RocksDB's threads survive no fork(): a child that wants a store calls exec first.
 */
#ifndef KX_KV_KV_H
#define KX_KV_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/error.h"

struct kx_kv;
struct kx_kv_batch;
struct kx_kv_iter;
struct kx_kv_bulk;

struct kx_kv_family {
	const char *name;
	bool compress;        /* zstd; off for what does not shrink */
};

struct kx_kv_options {
	const struct kx_kv_family *families; /* index in this array names a family below */
	size_t family_count;
	bool read_only;
	bool create;                 /* when missing; else KX_ENOTFOUND */
	size_t write_buffer_bytes;   /* over all families; 0: 32 MiB */
	size_t cache_bytes;          /* 0: 32 MiB */
};

/* Families that are missing are made when `create` is set, else it is KX_EVERSION, or KX_ENOTFOUND when the store is
 * empty too: its maker is at work, or died over it. Families on disk that `options` doesn't name are left as they are. Errors: KX_EBUSY (another process writes to it), KX_ECORRUPT, KX_ENOTFOUND,
 * KX_EFULL, KX_EPERM; the message names path. */
kx_status kx_kv_open(const char *path, const struct kx_kv_options *options, struct kx_kv **ret,
		     struct kx_error *error) KX_MUST_CHECK;
void kx_kv_close(struct kx_kv *kv); /* batches and iterators first. NULL is nothing */

/* Appends the value to *out. KX_ENOTFOUND without a message when there is none. Checksums are verified. */
kx_status kx_kv_get(struct kx_kv *kv, size_t family, const void *key, size_t key_len, struct kx_buf *out,
		    struct kx_error *error) KX_MUST_CHECK;

/* A set of changes that happen all or none. Owned by one thread; it copies keys and values. */
kx_status kx_kv_batch_new(struct kx_kv *kv, struct kx_kv_batch **ret) KX_MUST_CHECK;
void kx_kv_batch_free(struct kx_kv_batch *batch);
void kx_kv_batch_cleanup(struct kx_kv_batch **batch);
void kx_kv_batch_put(struct kx_kv_batch *batch, size_t family, const void *key, size_t key_len, const void *value,
		     size_t value_len);
void kx_kv_batch_delete(struct kx_kv_batch *batch, size_t family, const void *key, size_t key_len);
void kx_kv_batch_delete_range(struct kx_kv_batch *batch, size_t family, const void *from, size_t from_len,
			      const void *to, size_t to_len); /* [from, to) */
size_t kx_kv_batch_count(const struct kx_kv_batch *batch);

/* Writes and empties the batch. sync: on disk before it returns. After an error the batch still holds its changes and
 * may be written again. KX_EFULL when the disk is: nothing was written, what was is readable, and once there is room
 * writing works again, within some 5 s (RocksDB looks that often) or at once on a new handle. */
kx_status kx_kv_write(struct kx_kv *kv, struct kx_kv_batch *batch, bool sync, struct kx_error *error) KX_MUST_CHECK;

/* Much at once, past the log: into files that the store then takes over, with a fraction of the work. Keys rise
 * (KX_EINVAL). Owned by one thread, freed before the store is closed. Nothing of it is seen before kx_kv_bulk_finish(); after
 * it all is, on disk; when it fails, or the process dies in it, all or nothing. Writers only (KX_EPERM). KX_EFULL. */
kx_status kx_kv_bulk_new(struct kx_kv *kv, size_t family, struct kx_kv_bulk **ret, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_kv_bulk_put(struct kx_kv_bulk *bulk, const void *key, size_t key_len, const void *value, size_t value_len,
			 struct kx_error *error) KX_MUST_CHECK; /* after a failure only free it */
kx_status kx_kv_bulk_finish(struct kx_kv_bulk *bulk, struct kx_error *error) KX_MUST_CHECK;
void kx_kv_bulk_free(struct kx_kv_bulk *bulk); /* NULL is nothing */
void kx_kv_bulk_cleanup(struct kx_kv_bulk **bulk);

/* Ordered walk over keys that start with prefix (NULL, 0: all; copied), over a snapshot, starting at the first. Owned by
 * one thread. Keys and values are valid until the next call. Usage: kx_kv_iter_new(), then for (;
 * kx_kv_iter_valid(it); kx_kv_iter_next(it)) ..., then kx_kv_iter_error(): a walk also ends where reading failed. */
kx_status kx_kv_iter_new(struct kx_kv *kv, size_t family, const void *prefix, size_t prefix_len,
			 struct kx_kv_iter **ret) KX_MUST_CHECK;
void kx_kv_iter_free(struct kx_kv_iter *iter);
void kx_kv_iter_cleanup(struct kx_kv_iter **iter);
bool kx_kv_iter_valid(const struct kx_kv_iter *iter);
void kx_kv_iter_next(struct kx_kv_iter *iter);
const void *kx_kv_iter_key(const struct kx_kv_iter *iter, size_t *ret_len);
const void *kx_kv_iter_value(const struct kx_kv_iter *iter, size_t *ret_len);
kx_status kx_kv_iter_error(struct kx_kv_iter *iter, struct kx_error *error);

/* Writers only (KX_EPERM): memtables to files; and all files to as few as can be, without what was deleted. */
kx_status kx_kv_flush(struct kx_kv *kv, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_kv_compact(struct kx_kv *kv, struct kx_error *error) KX_MUST_CHECK;
/* From another thread: a compaction that runs, and any to come, ends soon with KX_ECANCELED. What it did so far stays. Waits
 * for it; for who is about to close. */
void kx_kv_stop_compaction(struct kx_kv *kv);
/* Reads every block of every family from the files, past all caches, and checks its checksum: KX_ECORRUPT. */
kx_status kx_kv_verify(struct kx_kv *kv, struct kx_error *error) KX_MUST_CHECK;
uint64_t kx_kv_disk_bytes(struct kx_kv *kv); /* of its folder, log included */
/* A copy of the store as it is now, in a folder that must not be there yet (KX_EEXIST); files that do not change any more
 * are linked where the file system can. Writers only (KX_EPERM). */
kx_status kx_kv_checkpoint(struct kx_kv *kv, const char *path, struct kx_error *error) KX_MUST_CHECK;

#endif
