/* What the files of common/kv share; nobody else includes it. Layer: kv. */
#ifndef KX_KV_INTERNAL_H
#define KX_KV_INTERNAL_H

#include <rocksdb/c.h>
#include <stdatomic.h>

#include "common/kv/kv.h"

struct kx_kv {
	char *path;
	bool read_only;
	rocksdb_t *db;
	rocksdb_readoptions_t *read;
	rocksdb_writeoptions_t *write;
	rocksdb_writeoptions_t *write_synced;
	/* The caller's families first, in the caller's order; then those that are there besides ("default", and what
	 * another version may have made), because RocksDB opens all or nothing. */
	rocksdb_column_family_handle_t **families;
	size_t family_count; /* the caller's */
	size_t opened_count; /* all */
	bool *compress;      /* of the caller's */
	atomic_ullong bulk_files; /* names them */
	atomic_int open_iters;
	atomic_bool compaction_stopped;
};

/* The same store once more, read-only, every family of it, with no cache: what it reads comes from the files. */
kx_status kx_kv_open_uncached(const char *path, struct kx_kv **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_kv_cleanup(struct kx_kv **kv);

/* How tables are written, for files that are made outside the store. */
rocksdb_options_t *kx_kv_table_options(bool compress);
/* Takes away what a bulk that died left. By whoever has the store open for writing. */
void kx_kv_bulk_sweep(const struct kx_kv *kv);

/* Turns RocksDB's error text into ours and frees it. */
kx_status kx_kv_fail(const char *path, char *text, struct kx_error *error);

#endif
