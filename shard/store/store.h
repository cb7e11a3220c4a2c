/* The typed store of a shard over kx_kv: videos, their moments, what is still arriving, consumed offsets.
 * Layer: shard/store.
 *
 * A handle may be read by many threads; batches are made by one. Every batch is one state of the world after some
 * messages together with their offsets: after a crash the store stands as after a prefix of the messages, and those
 * behind the stored offset come again. Applying is idempotent, so it does not matter how often, and the order of a
 * video's messages does not matter either.
 */
#ifndef KX_SHARD_STORE_STORE_H
#define KX_SHARD_STORE_STORE_H

#include "common/base/buf.h"
#include "common/kv/kv.h"
#include "common/record/event.h"
#include "common/record/video.h"
#include "shard/store/keys.h"
#include "shard/store/summary.h"

/* 2 keeps totals, 3 which videos changed since the snapshot. Those before are read, and are 3 once they are opened to write: a
 * program that does not know of these must not leave some behind that are wrong. */
#define KX_STORE_FORMAT 3u

/* Families, in the order that kx_kv knows them by. */
enum kx_store_family {
	KX_STORE_META,     /* format version, part, offsets, tombstones of deleted videos */
	KX_STORE_PENDING,  /* kx_pending_video */
	KX_STORE_VIDEOS,   /* kx_video_record */
	KX_STORE_MOMENTS,  /* kx_summary */
	KX_STORE_FEATURES, /* kx_moment, whole, as it travelled */
	KX_STORE_OUTBOX,   /* kx_event: committed and not yet known to be delivered */
	KX_STORE_FAMILIES,
};

struct kx_store;

struct kx_store_options {
	const char *data_dir; /* the store is data_dir/shard-0 */
	bool read_only;
	/* Families of the caller's that follow the store's own, KX_STORE_FAMILIES the first. A store of before that lacks
	 * them gets them; read-only it is opened without. */
	const struct kx_kv_family *more;
	size_t more_count;
};

/* Makes the store when it is missing, unless read-only: KX_ENOTFOUND. KX_EVERSION for another format, KX_EBUSY when
 * another process writes. */
kx_status kx_store_open(const struct kx_store_options *options, struct kx_store **ret, struct kx_error *error)
	KX_MUST_CHECK;
void kx_store_close(struct kx_store *store); /* NULL is nothing */
void kx_store_cleanup(struct kx_store **store);
struct kx_kv *kx_store_kv(struct kx_store *store); /* borrowed; for what keeps families of its own, and tests that do damage */
bool kx_store_has_more(const struct kx_store *store); /* the caller's families are there */

/* Reads. KX_ENOTFOUND comes without a message. Thread-safe; block on disk. */
kx_status kx_store_video(struct kx_store *store, const char *id, struct kx_video_record **ret, struct kx_error *error)
	KX_MUST_CHECK;
/* Visits in the order of ids until visit returns other than KX_OK, which is then returned. */
kx_status kx_store_each_video(struct kx_store *store,
			      kx_status (*visit)(void *ctx, const struct kx_video_record *video, struct kx_error *error),
			      void *ctx, struct kx_error *error) KX_MUST_CHECK;
/* The moments of one generation: visual first, then by time. summary is valid during the call. */
kx_status kx_store_each_summary(struct kx_store *store, const char *id, uint64_t generation,
				kx_status (*visit)(void *ctx, const struct kx_summary *summary, struct kx_error *error),
				void *ctx, struct kx_error *error) KX_MUST_CHECK;
/* One of them. KX_ENOTFOUND. */
kx_status kx_store_summary(struct kx_store *store, const char *id, uint64_t generation, enum kx_modality modality,
			   uint32_t index, struct kx_summary *ret, struct kx_error *error) KX_MUST_CHECK;
/* The same, whole. bytes: its packed form. */
kx_status kx_store_each_moment(struct kx_store *store, const char *id, uint64_t generation,
			       kx_status (*visit)(void *ctx, const struct kx_moment *moment, const void *bytes,
						  size_t len, struct kx_error *error),
			       void *ctx, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_store_pending_count(struct kx_store *store, uint64_t *ret, struct kx_error *error) KX_MUST_CHECK;
uint64_t kx_store_disk_bytes(struct kx_store *store);

/* What all video records add up to: bytes of the caller's, written in one batch with the records that they count
 * (kx_store_batch_totals()), and taken away by any batch that changes records without saying what they add up to then. So
 * what is there is right, whenever the process died. Appends; KX_ENOTFOUND without a message: none. */
kx_status kx_store_totals(struct kx_store *store, struct kx_buf *out, struct kx_error *error) KX_MUST_CHECK;
/* While no batch is open: sets them, or takes them, and a snapshot, away (len 0): store and index do not agree. Synced. */
kx_status kx_store_set_totals(struct kx_store *store, const void *bytes, size_t len, struct kx_error *error)
	KX_MUST_CHECK;

/* A snapshot of the records stands elsewhere, and the store says which: bytes of the caller's. From then on every write that
 * changes a record, or may change what the index holds of it, also notes its id; so snapshot and ids together are the records
 * as they are, whenever the process died. Appends; KX_ENOTFOUND without a message: there is none. */
kx_status kx_store_snapshot(struct kx_store *store, struct kx_buf *out, struct kx_error *error) KX_MUST_CHECK;
/* While no batch is open: there is this one now, nothing has changed since, and the one before is no more; len 0: there is
 * none. One synced write. */
kx_status kx_store_set_snapshot(struct kx_store *store, const void *bytes, size_t len, struct kx_error *error)
	KX_MUST_CHECK;
/* Every id once, whether the video is still there or not. */
kx_status kx_store_each_changed(struct kx_store *store,
				kx_status (*visit)(void *ctx, const char *id, struct kx_error *error), void *ctx,
				struct kx_error *error) KX_MUST_CHECK;
bool kx_store_has_snapshot(const struct kx_store *store);
/* How many changes were noted since the snapshot, one that changed again counting again. Of a writer. */
uint64_t kx_store_changed(const struct kx_store *store);

/* The next offset to read, or -1 when none is stored. An offset means something only with its bus. */
kx_status kx_store_offset(struct kx_store *store, const char *bus, const char *topic, int partition, int64_t *ret,
			  struct kx_error *error) KX_MUST_CHECK;

/* Forgets how far local buses other than `bus` were read: such a bus ends with its process, and its offsets mean
 * nothing afterwards. Those of Kafka's clusters stay. For whoever writes, before it consumes. */
kx_status kx_store_drop_offsets(struct kx_store *store, const char *bus, struct kx_error *error) KX_MUST_CHECK;

/* The values are part of the outbox's keys: they stay as they are. */
enum kx_store_change_kind {
	KX_STORE_STORED = 1, /* a video is complete; said again when its plan or a part end comes again */
	KX_STORE_REMOVED,    /* a video was deleted */
	KX_STORE_MISSING,    /* a copy was asked for of what this store does not have */
	KX_STORE_ABSENT,     /* a deletion was asked for of what this store does not have, or no more */
};

/* Which videos a store is for: those whose partition of the results topic is `part` modulo `parts`. It does not change. */
struct kx_store_part {
	uint32_t part, parts; /* part < parts; 0 of 1 is the whole catalogue */
	uint32_t partitions;  /* of the topic: another number would send videos elsewhere. Of no meaning to the whole */
};

kx_status kx_store_part(struct kx_store *store, struct kx_store_part *ret, struct kx_error *error) KX_MUST_CHECK;

/* Makes the store that part's, or says that it is another's (KX_EINVAL, naming it and the cure). One that holds videos
 * and says nothing is for the whole. For whoever writes, before it consumes. */
kx_status kx_store_claim(struct kx_store *store, const struct kx_store_part *part, struct kx_error *error) KX_MUST_CHECK;

/* An event that is committed. Views: valid while they are visited, or as long as what they were made of. */
struct kx_store_event {
	const char *id;
	uint64_t generation;
	enum kx_store_change_kind kind; /* what it tells of; with id and generation it names the event */
	const void *bytes;              /* packed kx_event */
	size_t len;
};

/* Committed events whose delivery was not confirmed: to be published again at start. */
kx_status kx_store_each_outbox(struct kx_store *store,
			       kx_status (*visit)(void *ctx, const struct kx_store_event *event, struct kx_error *error),
			       void *ctx, struct kx_error *error) KX_MUST_CHECK;

/* --- Writing ------------------------------------------------------------------------------------------------ */

struct kx_store_change {
	enum kx_store_change_kind kind;
	char *id;
	uint64_t generation;
	struct kx_video_record *record; /* stored; else NULL */
	struct kx_buf event;            /* packed kx_event, in the outbox too */
};

struct kx_store_batch;

/* now_ms goes into the records of videos that this batch completes. */
kx_status kx_store_batch_new(struct kx_store *store, uint64_t now_ms, struct kx_store_batch **ret,
			     struct kx_error *error) KX_MUST_CHECK;
void kx_store_batch_free(struct kx_store_batch *batch); /* what was not committed is dropped. NULL is nothing */
void kx_store_batch_cleanup(struct kx_store_batch **batch);

/* Takes one message in. Class POISON: this message can't be, and the batch is as if it had never come. Any other
 * failure: free the batch. A video whose parts have all ended but whose moments do not fit them stays pending, and
 * that is logged. */
kx_status kx_store_apply(struct kx_store_batch *batch, const struct kx_result *result, struct kx_error *error)
	KX_MUST_CHECK;
/* All messages below next of this partition are applied, or skipped for good. */
void kx_store_batch_offset(struct kx_store_batch *batch, const char *bus, const char *topic, int partition,
			   int64_t next);
/* This event of this generation arrived where it should. */
void kx_store_batch_delivered(struct kx_store_batch *batch, const char *id, uint64_t generation,
			      enum kx_store_change_kind kind);

/* What the commit will write, for whoever keeps families beside the store's: after the last message was applied. */
struct kx_kv_batch *kx_store_batch_write(struct kx_store_batch *batch);

/* What records add up to once this batch is committed; borrowed until then. */
void kx_store_batch_totals(struct kx_store_batch *batch, const void *bytes, size_t len);

/* One synced write. Afterwards the changes are true; they are the batch's and valid until it is freed. */
kx_status kx_store_commit(struct kx_store_batch *batch, struct kx_error *error) KX_MUST_CHECK;
const struct kx_store_change *kx_store_changes(const struct kx_store_batch *batch, size_t *ret_count);

/* --- Audit -------------------------------------------------------------------------------------------------- */

/* Reads everything back: see kx_shard_verify. KX_ECORRUPT names the record. */
struct kx_store_audit {
	uint64_t videos, moments, rows, pending;
	uint8_t digest[KX_SHA_LEN];
};
kx_status kx_store_audit(struct kx_store *store, struct kx_store_audit *ret, struct kx_error *error) KX_MUST_CHECK;

#endif
