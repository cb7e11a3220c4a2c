/* The index of nearest vectors as the shard keeps it: in the store's own write, and right when it opens. Layer: shard/run. */
#ifndef KX_SHARD_RUN_INDEX_H
#define KX_SHARD_RUN_INDEX_H

#include "shard/index/index.h"
#include "shard/query/indexed.h"
#include "shard/query/mirror.h"
#include "shard/store/store.h"

/* Opens the shard's store with the index's families behind its own, where it has them. */
kx_status kx_shard_store_open(const char *data_dir, bool read_only, struct kx_store **ret, struct kx_error *error)
	KX_MUST_CHECK;

/* *ret NULL: read-only, and there is none, or none that can be read. To write, one that can't be read is made anew, empty:
 * it follows from the records. manual: no threads. memory_bytes: as struct kx_index_options has it. */
kx_status kx_shard_index_open(struct kx_store *store, const char *data_dir, bool read_only, bool manual,
			      uint64_t memory_bytes, struct kx_index **ret, struct kx_error *error) KX_MUST_CHECK;
uint64_t kx_shard_index_rows(struct kx_index *index); /* videos */
uint64_t kx_shard_index_moments(struct kx_index *index);

/* Commits the batch, and what follows for the index in the same write. Until the mirror was told of the changes, the
 * videos they are of are found by their records. index NULL: the batch alone. */
kx_status kx_shard_commit(struct kx_store_batch *batch, struct kx_index *index, struct kx_mirror *mirror,
			  struct kx_error *error) KX_MUST_CHECK;
/* The same, with no more than about so many changes of moments in that write: the rest follows in writes of its own. */
kx_status kx_shard_commit_most(struct kx_store_batch *batch, struct kx_index *index, struct kx_mirror *mirror,
			       size_t moments_most, struct kx_error *error) KX_MUST_CHECK;

#endif
