/* The shard role: materialises results in RocksDB and answers queries. Layer: shard/run.
 *
 * Threads it owns: one that consumes results (several messages and their offset a WriteBatch, synced, then the event
 * that says so), one that answers queries on a ZeroMQ endpoint, one that takes orders on another. Read-only it has only
 * the second, or none.
 */
#ifndef KX_SHARD_RUN_SHARD_H
#define KX_SHARD_RUN_SHARD_H

#include "common/base/error.h"
#include "common/bus/bus.h"
#include "common/record/query.h"
#include "common/wire/wire.h"
#include "shard/query/attributes.h"

struct kx_shard;

struct kx_shard_options {
	const char *data_dir;  /* the store is data_dir/shard-0 */
	bool read_only;        /* beside a process that writes */
	struct kx_bus *bus;    /* NULL when read-only */
	const char *ns;
	unsigned part, parts;  /* takes the videos whose partition of the results topic is part modulo parts; parts 0: all */
	struct kx_wire *wire;  /* NULL: no query thread, use kx_shard_answer() */
	const char *endpoint;  /* where it answers, e.g. ipc://<data_dir>/shard.sock */
	const char *control;   /* where it also takes orders (KX_QUERY_CARE), on a thread of their own: for the store's owner
				* alone to reach. NULL: it takes none */
	double recall;         /* of queries that want none in particular; 0: exact while videos are few, else a little less */
	uint64_t index_memory_bytes; /* of vector codes; what is beyond is read at each search. 0: no bound */
	bool without_moments;  /* single moments are not in the index: they are read instead */
	const struct kx_class_names *classes; /* [class_count], copied: what filters may call classes */
	size_t class_count;
};

/* The topics of the namespace must be there. Fails as the store does: KX_EVERSION, KX_EBUSY, KX_EFULL, KX_EINVAL (it is
 * another part's, or there are fewer partitions than parts); read-only KX_ENOTFOUND when nothing is indexed yet. Where the
 * store and its index agree it does not wait until all videos are read: nearest videos are answered before, and what needs
 * all (kx_mirror_defer()) waits for that itself. */
kx_status kx_shard_start(const struct kx_shard_options *options, struct kx_shard **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_shard_stop(struct kx_shard *shard); /* finishes the batch in hand */
kx_status kx_shard_health(struct kx_shard *shard, struct kx_error *error); /* thread-safe */
uint64_t kx_shard_skipped(struct kx_shard *shard); /* messages that could not be taken in; each was logged. Thread-safe */

/* The same answer as over the wire. Thread-safe. A failed query is a reply with its status, not an error. */
kx_status kx_shard_answer(struct kx_shard *shard, const struct kx_query_request *request, struct kx_query_reply **ret,
			  struct kx_error *error) KX_MUST_CHECK;

/* The same, but that a long answer ends early once the time (monotonic) is over: a reply of KX_ETIMEDOUT. */
kx_status kx_shard_answer_by(struct kx_shard *shard, const struct kx_query_request *request, uint64_t deadline_us,
			     struct kx_query_reply **ret, struct kx_error *error) KX_MUST_CHECK;
/* Answers that run end early, and those to come at once, with KX_ECANCELED. For who is about to stop it. Thread-safe. */
void kx_shard_cancel(struct kx_shard *shard);

/* Asks a shard that listens at endpoint. KX_ETIMEDOUT when nobody answers. */
kx_status kx_shard_ask(struct kx_wire *wire, const char *endpoint, const struct kx_query_request *request,
		       int timeout_ms, struct kx_query_reply **ret, struct kx_error *error) KX_MUST_CHECK;
/* The same for as long as goes_on(ctx), asked about ten times a second, says so. KX_ECANCELED: it said no. */
kx_status kx_shard_ask_while(struct kx_wire *wire, const char *endpoint, const struct kx_query_request *request,
			     int timeout_ms, bool (*goes_on)(void *ctx), void *ctx, struct kx_query_reply **ret,
			     struct kx_error *error) KX_MUST_CHECK;

/* The same for an order, which may take long: for as long as goes_on(ctx), asked about once a second, says that the shard
 * is there. KX_ECANCELED: it said no. */
kx_status kx_shard_order(struct kx_wire *wire, const char *control, const struct kx_care_order *order,
			 bool (*goes_on)(void *ctx), void *ctx, struct kx_care_done *ret, struct kx_error *error)
	KX_MUST_CHECK;
/* Carries an order out on a store that no process holds: KX_EBUSY. KX_ENOTFOUND: there is none. A checkpoint that fails
 * leaves nothing. KX_EEXIST, KX_EFULL, KX_EIO. Blocks for as long as it takes. */
kx_status kx_shard_care(const char *data_dir, const struct kx_care_order *order, struct kx_care_done *ret,
			struct kx_error *error) KX_MUST_CHECK;

/* Reads the whole store back: block checksums, every record unpacks, every moment's
 * embedding comes out of its features again bit by bit, every video has the moments it says, and its embedding and
 * classes come out of them likewise. digest: SHA-256 over all VideoResult and Moment records in
 * order, the same for the same catalogue and recipe however it was indexed. The vector index is proved too: it is right in
 * itself, and what it holds of a record's generation is that record's vector, or its moment's. So are the totals that a
 * shard opens by. */
struct kx_shard_verify {
	uint64_t videos, moments, rows, pending;
	uint64_t index_rows, index_cells;      /* of the vector index; 0: there is none yet */
	uint64_t index_moments;                /* of the rows */
	uint64_t index_missing, index_extra;   /* vectors that it lacks, or has too many: the next shard that writes mends it */
	uint8_t digest[KX_SHA_LEN];
};
kx_status kx_shard_verify(const char *data_dir, struct kx_shard_verify *ret, struct kx_error *error) KX_MUST_CHECK;

/* Visits every stored video and its moments, for export. moments come in order after their video. */
struct kx_shard_visitor {
	void *ctx;
	kx_status (*video)(void *ctx, const struct kx_video_record *video, struct kx_error *error);
	kx_status (*moment)(void *ctx, const struct kx_video_record *video, const struct kx_moment *moment,
			    struct kx_error *error); /* NULL: moments are not read */
};
kx_status kx_shard_each(const char *data_dir, const struct kx_shard_visitor *visitor, struct kx_error *error) KX_MUST_CHECK;

#endif
