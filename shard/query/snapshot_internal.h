/* How a snapshot's file is laid out: head, sections, table of sections, checksums of blocks. Internal to shard/query. */
#ifndef KX_SHARD_QUERY_SNAPSHOT_INTERNAL_H
#define KX_SHARD_QUERY_SNAPSHOT_INTERNAL_H

#include "shard/query/snapshot.h"

#define KX_SNAPSHOT_MAGIC UINT64_C(0x31524f5252494d4b) /* "KMIRROR1", where the order of bytes is this machine's */
#define KX_SNAPSHOT_FORMAT 1u
#define KX_SNAPSHOT_HEAD 4096u  /* bytes until the first section */
#define KX_SNAPSHOT_BLOCK 4096u /* what one look at a row may have to read */
#define KX_SNAPSHOT_SUFFIX ".mirror"

struct kx_snapshot_head {
	uint64_t magic;
	uint32_t format, section_count;
	uint64_t id;
	uint64_t tables_at;
};

uint64_t kx_snapshot_blocks(uint64_t bytes); /* of a file whose sections end there */
char *kx_snapshot_path(const char *dir, uint64_t id); /* NULL: no memory */

#endif
