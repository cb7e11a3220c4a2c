/* Full vectors where a search can reach them without asking the store: a mapped file of fp16 rows, a cache of
 * ann_vectors. Layer: shard/index.
 *
 * Why a row that a search sees is right, whatever happened to the file:
 * 1. A row's number is taken anew for every vector, and its bytes are written before the row can be seen. They change
 *    again only when the row was freed and is used for another vector; nobody sees it then.
 * 2. So a live row's bytes are wrong only if a crash lost them, or the file is not this store's. A crash loses bytes
 *    written after the last fdatasync(). Whoever takes a row's change out of ann_delta (fold, split, merge, training)
 *    calls kx_ivectors_sync() before it commits: a live row that no change names is on disk. Those that a change names
 *    are written again from the store when their cell is first read after an unclean end (state dirty).
 * 3. The file is this store's when its head holds the store's session, a random number that changes at the first change
 *    after each opening and at each checkpoint: first head.next_session, then the store's (synced), then head.session, so
 *    that a crash between them leaves one of the two in the store. A file from before or after a backup, from a copy
 *    that went its own way, of another dimension, cut short or without a good head is foreign: each row is
 *    written again when its cell is first read. Its head holds no session until all are (kx_ivectors_settle()).
 * 4. Who only reads the store borrows the file when its head is clean and holds the session of the store that the reader
 *    sees: all live rows are right then. A writer that comes later makes the head another's before it changes a row. So what
 *    was read is right when the head is still as it was afterwards (kx_ivectors_hold()), and else is read again from the
 *    store, once the file is given up.
 * 5. A search sees a row only through a cell that was read, or by an insert: both have written it.
 */
#ifndef KX_SHARD_INDEX_VECTORS_H
#define KX_SHARD_INDEX_VECTORS_H

#include <pthread.h>
#include <stdatomic.h>

#include "shard/index/record.h"

enum kx_ivectors_state {
	KX_IVECTORS_GOOD,    /* every live row is right */
	KX_IVECTORS_DIRTY,   /* but for those that changes name, and that are not `known` */
	KX_IVECTORS_FOREIGN, /* only rows that are `known` are */
};

#define KX_HUGE_BYTES ((size_t)2 << 20)

/* How far the file's pages were made huge, by who takes care (pages.c). */
struct kx_ivectors_pages {
	uint32_t rows;   /* that there were when it was begun last */
	uint64_t at, to; /* bytes of the file, looked at and to be */
	uint32_t failed; /* in a row */
};

struct kx_ivectors {
	char *path; /* NULL: in memory only */
	int fd;
	uint32_t dim;
	size_t stride;
	uint8_t *map;          /* an address range for all rows there can be; the file takes its start, to be read */
	size_t map_bytes;
	uint8_t *reserved;     /* what map lies in */
	size_t reserved_bytes;
	struct kx_ivectors_pages pages;
	atomic_uint rows;      /* that there is room for */
	_Atomic(uint64_t) *known; /* bits of rows that were written since opening; reserved like map */
	pthread_mutex_t fill;  /* rows are written from the store by one search at a time */
	atomic_int state;
	uint64_t session;      /* the store's */
	bool begun;            /* a session of this opening's was made */
	atomic_bool borrowed;  /* a writer's file, mapped to read */
	atomic_uint_fast64_t written; /* counts rows; and how many of them are on disk */
	atomic_uint_fast64_t synced;
};

/* path NULL: memory. rows: room to begin with. session: the store's, 0: none yet. KX_EFULL, KX_EIO, KX_ENOMEM. */
kx_status kx_ivectors_open(struct kx_ivectors *vectors, const char *path, uint32_t dim, uint32_t rows, uint64_t session,
			   struct kx_error *error) KX_MUST_CHECK;
/* To read: borrows the file at path if it can be believed, and has nothing but memory else. */
kx_status kx_ivectors_open_reader(struct kx_ivectors *vectors, const char *path, uint32_t dim, uint32_t rows,
				  uint64_t session, struct kx_error *error) KX_MUST_CHECK;
/* False: what was read of a borrowed file since it was last true may be wrong. */
bool kx_ivectors_hold(const struct kx_ivectors *vectors);
/* No row is known any more. While nobody reads. */
kx_status kx_ivectors_give_up(struct kx_ivectors *vectors, struct kx_error *error) KX_MUST_CHECK;
void kx_ivectors_close(struct kx_ivectors *vectors); /* marks it clean when it is */

/* Room for this many rows, on the disk too: a full one is told here, not by a signal when a row is written. */
kx_status kx_ivectors_reserve(struct kx_ivectors *vectors, uint32_t rows, struct kx_error *error) KX_MUST_CHECK;
uint64_t kx_ivectors_file_bytes(const struct kx_ivectors *vectors, uint64_t rows);
const uint16_t *kx_ivectors_row(const struct kx_ivectors *vectors, uint32_t row);
/* So many rows, one after another, as seen through kx_ivectors_row() at once. KX_EIO: what is there then, nobody knows. */
kx_status kx_ivectors_write(struct kx_ivectors *vectors, uint32_t row, uint32_t count, const uint16_t *halves,
			    struct kx_error *error) KX_MUST_CHECK;
bool kx_ivectors_ends_page(const struct kx_ivectors *vectors, uint32_t row); /* with it a huge page of the file is whole */
bool kx_ivectors_is_known(const struct kx_ivectors *vectors, uint32_t row);
const void *kx_ivectors_base(const struct kx_ivectors *vectors); /* of row 0 */

/* The steps of a new session: 1 before, 2 after the store has it. */
kx_status kx_ivectors_begin(struct kx_ivectors *vectors, uint64_t session, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_ivectors_begun(struct kx_ivectors *vectors, uint64_t session, struct kx_error *error) KX_MUST_CHECK;

kx_status kx_ivectors_sync(struct kx_ivectors *vectors, struct kx_error *error) KX_MUST_CHECK;
/* Every live row is right now. */
kx_status kx_ivectors_settle(struct kx_ivectors *vectors, struct kx_error *error) KX_MUST_CHECK;

/* --- pages.c: huge pages for the map, where the file system has them (docs/decisions/0013) --- */

/* Begins when there is enough to gain, more than an eighth of it is new, and it fits: into `room` bytes, and into half of
 * what memory the machine has left. False: nothing to be done. By one thread. */
bool kx_ivectors_pages_begin(struct kx_ivectors *vectors, uint32_t rows, uint64_t room);
/* The next few; false: that was all. May block on disk; reads, writes and searches go on. */
bool kx_ivectors_pages_step(struct kx_ivectors *vectors);

/* A kx_ivf_ahead: soon after opening each vector is read from disk, and so all are that are wanted at the same time. */
void kx_ivectors_ahead(void *vectors, uint32_t row);

/* Memory that is zero and costs nothing until it is written. NULL: none to be had. */
void *kx_reserve(size_t bytes);
void kx_reserve_huge(void *memory, size_t bytes); /* so many will be written: in huge pages where they are not yet */
void kx_unreserve(void *memory, size_t bytes);

#endif
