/* A batch as its two halves see it; nobody else includes it. Layer: shard/store. */
#ifndef KX_SHARD_STORE_BATCH_H
#define KX_SHARD_STORE_BATCH_H

#include "shard/store/internal.h"

struct kx_store_batch {
	struct kx_store *store;
	struct kx_kv_batch *write;
	uint64_t now_ms;
	const void *totals; /* NULL: not said */
	size_t totals_len;
	bool unsynced; /* parts of it are written and may not be on disk */
	struct kx_entities entities;
	struct kx_store_change *changes;
	size_t change_count, change_cap;
};

/* Writes what is there without a sync, so that it can be read. It is a valid state of the store: all that was
 * written has its offset behind it, and what comes again changes nothing. */
kx_status kx_batch_flush(struct kx_store_batch *batch, struct kx_error *error) KX_MUST_CHECK;

bool kx_batch_is_announced(const struct kx_store_batch *batch, const char *id, uint64_t generation);
/* A video is complete: the change and its event. Takes over the record, also on failure. Its moments are flushed. */
kx_status kx_batch_announce(struct kx_store_batch *batch, struct kx_video_record *record, const char *run_id,
			    struct kx_error *error) KX_MUST_CHECK;
/* Nothing of this generation and older ones is here any more, or never was. */
kx_status kx_batch_deleted(struct kx_store_batch *batch, const char *id, uint64_t generation, bool was_stored,
			   struct kx_error *error) KX_MUST_CHECK;
/* The original of a copy is not here. */
kx_status kx_batch_missing(struct kx_store_batch *batch, const struct kx_result *copy, struct kx_error *error)
	KX_MUST_CHECK;

#endif
