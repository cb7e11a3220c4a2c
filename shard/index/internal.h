/* What the files of shard/index share; nobody else includes it. Layer: shard/index.
 *
 * Locks, in this order: `writer` (every change of anything, on disk or in memory: inserts, folds, splits, filling cold
 * cells), then a space's `lock`: searches read under it, and the holder of `writer` takes it for writing, for as long as
 * it takes to change memory. So the holder of `writer` reads everything without `lock`, and no disk write happens
 * under it.
 *
 * A cell that is cold is read from the store by each search that reaches it (kx_icell_read()), beside changes. That is
 * right because a change makes every cell that it touches warm before it is written, and folding, which does not, changes
 * nothing for who reads changes first and the record after them: changes count over the record, and once more upon
 * a record that has them already they do nothing.
 */
#ifndef KX_SHARD_INDEX_INTERNAL_H
#define KX_SHARD_INDEX_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "shard/index/index.h"
#include "shard/index/keys.h"
#include "shard/index/plan.h"
#include "shard/index/record.h"
#include "shard/index/vectors.h"

#define KX_INDEX_VALUE_MAX ((size_t)1 << 30)

struct kx_icell {
	uint32_t rows;    /* when seen */
	uint32_t changes; /* on disk and not folded, or more: one of a row replaces another; when seen */
	uint32_t since;   /* rows that came or went since its centroid was made or looked at, as far as this process knows */
	bool present;
	bool hot;  /* its entries are in memory */
	bool seen; /* where[] knows its rows */
	bool due;  /* in the queue */
};

/* A generation of centroids, and what it makes of the rows. */
struct kx_igen {
	struct kx_ispace *space;
	uint32_t number;
	struct kx_ivf *ivf;
	struct kx_icell *cells;
	uint32_t bound; /* ids are below */
	uint32_t cap;
	uint32_t present;
	uint32_t unseen; /* of those present */
	uint32_t look;   /* where to look for the next unseen one */
	uint64_t changes; /* of all cells seen */
	uint32_t *where; /* [KX_INDEX_ROWS_MAX], reserved: 1 + the cell of a row; 0: in none that was seen */
};

/* A row's key in memory. */
struct kx_irow {
	uint32_t key_len;
	uint8_t key[];
};

/* Keys that may be there; see maybe.c. By the holder of writer. */
struct kx_imaybe {
	uint64_t *words; /* NULL: all may be */
	uint64_t mask;
	uint64_t count, room; /* beyond the room it says little, and is made anew */
	bool whole;           /* every key that is there was added */
};

struct kx_ids {
	uint32_t *list;
	uint32_t count, cap;
};

struct kx_irecall {
	double effort;
	uint64_t samples[2]; /* without and with a filter */
	double hits[2];      /* sums of shares found */
	double wanted;       /* sum */
	double recent_hits, recent_wanted; /* since the effort was last looked at */
	uint32_t recent;
};

/* A tuning anew, on its way; see retune.c. By the holder of writer. */
#define KX_RETUNE_ROWS 256u /* of each kind */
enum kx_iprobed { KX_PROBED_LATE, KX_PROBED_ANY, KX_PROBED_KINDS };
struct kx_iretune {
	uint64_t changes;              /* since it was tuned, as far as this process knows */
	uint32_t late[KX_RETUNE_ROWS]; /* some of the rows put lately */
	uint32_t late_count;
	uint64_t random;
	uint32_t asked[KX_PROBED_KINDS];
	uint64_t there[KX_PROBED_KINDS], found[KX_PROBED_KINDS][KX_IVF_PROBE_POINTS];
};

struct kx_ispace {
	struct kx_index *index;
	uint32_t number;
	struct kx_space_record record;
	uint32_t entry_bytes;
	pthread_rwlock_t lock;
	struct kx_igen *gen;
	struct kx_ivectors vectors;
	_Atomic(struct kx_irow *) *keys; /* [KX_INDEX_ROWS_MAX], reserved; NULL: ask the store */
	atomic_uint rows_bound;
	atomic_ullong rows;
	struct kx_ids free_rows;
	bool free_known; /* rows freed before opening are in free_rows */
	struct kx_ids due; /* cells with something to do */
	bool logging;    /* a generation is being made: rows put meanwhile go into log */
	struct kx_ids log;
	atomic_bool settled; /* all cells were seen, full vectors are in place */
	bool keys_loaded;
	uint32_t keys_next;
	struct kx_imaybe maybe;
	atomic_bool damaged; /* a cell could not be read */
	bool sweep_due;      /* another generation's keys could not be taken out of the store */
	const char *broken;  /* what failed at a point from which only opening again leads; NULL: nothing */
	struct kx_ivf_tuning tuning;
	struct kx_irecall recall;
	struct kx_iretune retune;
	atomic_uint watching;      /* live recall is comparing: rows changed go into watched */
	struct kx_ids watched;
	double recent_distance2;   /* decaying mean of rows put */
	uint64_t measured, placed; /* since training: rows that this is of, those and what splits moved */
	uint64_t folds, splits, refits, merges, moved, trainings, tunings, repairs;
};

struct kx_irequest;
struct kx_isample;

struct kx_index {
	struct kx_index_options options;
	struct kx_plan_limits limits;
	char *dir;
	pthread_mutex_t writer; /* guards the next three, which are the lock */
	pthread_cond_t writer_turn;
	uint64_t writer_next, writer_now;
	pthread_mutex_t spaces_lock; /* for adding one; the list only grows */
	struct kx_ispace *spaces[KX_INDEX_SPACES_MAX];
	atomic_uint space_count;

	pthread_mutex_t queue_lock; /* of commits, of the scratch pool, and of sleeping threads */
	pthread_cond_t queue_moved;
	struct kx_irequest *first, *last;
	bool leading;
	struct kx_kv_batch *batch; /* of whoever leads, kept for its memory; NULL: none yet */
	struct kx_iscratch *scratches;

	pthread_mutex_t wake_lock;
	pthread_cond_t wake;
	bool woken;
	atomic_bool stop;
	atomic_bool crowded; /* a change waited for what care could have done later */
	bool has_care, has_watch;
	pthread_t care, watch;
	pthread_mutex_t care_lock; /* one takes care at a time */
	struct kx_isample *sample; /* a query to check; under queue_lock */
	pthread_cond_t sampled;
	atomic_ullong next_sample_us;
};

/* --- ids.c: small things --- */

/* Whoever comes first is first: care would else starve beside a thread that commits without a pause. */
void kx_iwriter_lock(struct kx_index *index);
void kx_iwriter_unlock(struct kx_index *index);
/* By its holder: another waits for it. */
bool kx_iwriter_wanted(struct kx_index *index);

kx_status kx_ids_add(struct kx_ids *ids, uint32_t id) KX_MUST_CHECK;
kx_status kx_ids_reserve(struct kx_ids *ids, uint32_t more) KX_MUST_CHECK;
void kx_ids_done(struct kx_ids *ids);
/* [count] of halves to floats. */
void kx_ihalves_to_floats(const uint16_t *halves, size_t count, float *ret);
void kx_ifloats_to_halves(const float *floats, size_t count, uint16_t *ret); /* to nearest even */
float kx_idistance2(const float *a, const float *b, uint32_t dim);
/* Checks a vector and writes it as it is compared: unit length for cosine. */
kx_status kx_ivector_check(const struct kx_ispace *space, const float *vector, uint32_t dim, float *ret,
			   struct kx_error *error) KX_MUST_CHECK;
kx_status kx_ispace_get(struct kx_index *index, uint32_t number, struct kx_ispace **ret, struct kx_error *error)
	KX_MUST_CHECK;
size_t kx_ifamily(const struct kx_index *index, enum kx_index_family family);
kx_status kx_ineed_writer(const struct kx_index *index, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_ibroken(const struct kx_ispace *space, struct kx_error *error) KX_MUST_CHECK; /* KX_OK: it is not */
kx_status kx_iget(struct kx_index *index, enum kx_index_family family, struct kx_ikey key, struct kx_buf *out,
		  struct kx_error *error) KX_MUST_CHECK;
void kx_iput(struct kx_index *index, struct kx_kv_batch *batch, enum kx_index_family family, struct kx_ikey key,
	     const void *value, size_t len);
void kx_idelete(struct kx_index *index, struct kx_kv_batch *batch, enum kx_index_family family, struct kx_ikey key);

/* --- maybe.c --- */

void kx_imaybe_restart(struct kx_imaybe *maybe, uint64_t keys); /* empty, not whole, with room for twice as many */
void kx_imaybe_done(struct kx_imaybe *maybe);
void kx_imaybe_add(struct kx_imaybe *maybe, const void *key, size_t key_len);
bool kx_imaybe_has(const struct kx_imaybe *maybe, const void *key, size_t key_len); /* false: surely not */

/* --- gen.c: generations in memory --- */

kx_status kx_igen_new(struct kx_ispace *space, uint32_t number, struct kx_igen **ret, struct kx_error *error)
	KX_MUST_CHECK;
void kx_igen_free(struct kx_igen *gen);
void kx_igen_cleanup(struct kx_igen **gen);
/* Cold cells from the store's centroids. */
kx_status kx_igen_load(struct kx_igen *gen, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_igen_add(struct kx_igen *gen, uint32_t cell, const float *centroid, bool cold) KX_MUST_CHECK;
void kx_igen_remove(struct kx_igen *gen, uint32_t cell);
uint32_t kx_igen_free_id(const struct kx_igen *gen, uint32_t other_than);
/* What a batch does to centroids: sets one, or takes it away (NULL). At most KX_CENTROID_CHANGES. */
#define KX_CENTROID_CHANGES 4u
struct kx_icentroid {
	uint32_t cell;
	const float *centroid;
};
kx_status kx_igen_put_centroids(const struct kx_igen *gen, struct kx_kv_batch *batch, const struct kx_icentroid *changes,
				size_t count, struct kx_error *error) KX_MUST_CHECK;
/* Takes generations other than this one out of the store. */
kx_status kx_igen_sweep(struct kx_ispace *space, uint32_t keep, struct kx_error *error) KX_MUST_CHECK;

/* --- cell.c: cells between store and memory --- */

/* A cell's entries as the store has them; full vectors of their rows are right afterwards. Appends to out. Any thread. */
kx_status kx_icell_read(struct kx_igen *gen, uint32_t cell, struct kx_buf *out, uint32_t *ret_changes,
			struct kx_error *error) KX_MUST_CHECK;
/* Without the vectors: what is wrong then is wrong with the cell. */
kx_status kx_icell_read_codes(struct kx_igen *gen, uint32_t cell, struct kx_buf *out, size_t *ret_changed,
			      uint32_t *ret_changes, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_icell_load(void *gen, uint32_t cell, struct kx_buf *out, struct kx_error *error); /* a kx_ivf_load */
/* The next four: by the holder of writer. */
kx_status kx_icell_see(struct kx_igen *gen, uint32_t cell, bool warm, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_icell_warm(struct kx_igen *gen, uint32_t cell, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_igen_see_all(struct kx_igen *gen, struct kx_error *error) KX_MUST_CHECK;
void kx_icell_cool(struct kx_igen *gen, uint32_t cell);
/* A reader whose borrowed vectors may be wrong: all is read again from the store. Takes writer. */
kx_status kx_ispace_give_up_vectors(struct kx_ispace *space, struct kx_error *error) KX_MUST_CHECK;
/* Entries of a cell, from memory or from the store. */
kx_status kx_icell_entries(struct kx_igen *gen, uint32_t cell, struct kx_buf *out, struct kx_error *error)
	KX_MUST_CHECK;
bool kx_igen_has_room(const struct kx_igen *gen);
/* In the queue when something is due. */
void kx_icell_look(struct kx_igen *gen, uint32_t cell);
/* Deletes of a cell's changes go into the batch. */
kx_status kx_icell_drop_changes(struct kx_igen *gen, uint32_t cell, struct kx_kv_batch *batch, struct kx_error *error)
	KX_MUST_CHECK;
void kx_icell_put_record(struct kx_igen *gen, uint32_t cell, struct kx_kv_batch *batch, const struct kx_buf *record);
kx_status kx_icell_encode_record(struct kx_igen *gen, uint32_t cell, const void *entries, uint32_t count,
				 struct kx_buf *out) KX_MUST_CHECK;
void kx_icell_put_delta(struct kx_igen *gen, uint32_t cell, uint32_t row, const void *entry, struct kx_kv_batch *batch);

/* --- fold.c, split.c, train.c: what care is taken of; none of them is called with a lock but care_lock --- */

#define KX_FOLDS_AT_ONCE 8u
kx_status kx_ifold(struct kx_ispace *space, const uint32_t *cells, uint32_t count, struct kx_error *error)
	KX_MUST_CHECK;
kx_status kx_isplit(struct kx_ispace *space, uint32_t cell, struct kx_error *error) KX_MUST_CHECK;
/* Its centroid becomes the mean of its rows, when that is far enough from where it is. */
kx_status kx_irefit(struct kx_ispace *space, uint32_t cell, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_imerge(struct kx_ispace *space, uint32_t cell, struct kx_error *error) KX_MUST_CHECK;
/* Rows from one cell to others, in one batch with what is in it already; by the holder of writer. */
struct kx_imove {
	uint32_t row, from, to;
};
kx_status kx_imoves_stage(struct kx_igen *gen, const struct kx_imove *moves, uint32_t count, struct kx_kv_batch *batch,
			  struct kx_buf *ret_entries, struct kx_error *error) KX_MUST_CHECK;
void kx_imoves_apply(struct kx_igen *gen, const struct kx_imove *moves, uint32_t count, const uint8_t *entries);

/* held: the caller holds writer, and every row below the bound is live (a building). */
kx_status kx_itrain(struct kx_ispace *space, bool held, struct kx_error *error) KX_MUST_CHECK;

/* --- care.c --- */

void kx_iwake(struct kx_index *index);
/* Everything was seen: which rows are free, and that vectors are right. By the holder of writer. */
kx_status kx_isettle(struct kx_ispace *space, struct kx_error *error) KX_MUST_CHECK;
void *kx_icare_run(void *index);
void kx_iforget_keys(struct kx_ispace *space); /* care brings them into memory anew. By the holder of writer */

/* --- repair.c --- */

/* Cells that can't be read are written anew from vectors. Takes writer. */
kx_status kx_irepair(struct kx_ispace *space, struct kx_error *error) KX_MUST_CHECK;

/* --- recall.c --- */

void *kx_iwatch_run(void *index);
/* Looks at the sample there is, if any; false: there was none. */
bool kx_isample_check(struct kx_index *index);
/* Perhaps takes a copy of a query, to look at how well it was answered. */
void kx_isample_take(struct kx_ispace *space, const struct kx_index_query *query, const float *vector);
void kx_isample_free(struct kx_isample *sample);
/* By the holder of the space's lock. */
void kx_iwatch_row(struct kx_ispace *space, uint32_t row);
void kx_itune(struct kx_ispace *space); /* makes ivf look as hard as tuning and effort say; by the holder of lock */

void kx_ikeep_tuning(struct kx_ispace *space); /* by the holder of writer */

/* --- retune.c --- */

/* A row was put, or (KX_IVF_NO_ROW) taken away. By the holder of writer. */
void kx_iretune_note(struct kx_ispace *space, uint32_t row);
/* Asks some more, when so much changed that the tuning is in doubt; in the end there is another. */
kx_status kx_iretune_step(struct kx_ispace *space, bool *ret_did, struct kx_error *error) KX_MUST_CHECK;

/* --- search.c --- */

#define KX_INDEX_AT_ONCE 128u
struct kx_iscratch {
	struct kx_iscratch *next;
	struct kx_ivf_scratch *ivf;
	/* Of the queries that are asked at once: their vectors as they are compared, one after another, and what was found. */
	float *vectors;
	size_t vectors_cap;
	struct kx_ivf_hit *hits;
	size_t hits_cap;
	struct kx_ivf_query queries[KX_INDEX_AT_ONCE];
	struct kx_ivf_answer answers[KX_INDEX_AT_ONCE];
	size_t offered; /* to live recall */
	struct kx_buf value;
};
struct kx_iscratch *kx_iscratch_take(struct kx_index *index); /* NULL: no memory */
void kx_iscratch_give(struct kx_index *index, struct kx_iscratch *scratch);
void kx_iscratch_free(struct kx_iscratch *scratch);

struct kx_index_filter {
	atomic_uint references;
	struct kx_ispace *space;
	struct kx_ivf_filter *ivf;
	uint64_t *bits;
	uint32_t rows; /* a multiple of 64 */
};

/* --- open.c --- */

kx_status kx_ispace_begin(struct kx_ispace *space, bool anew, struct kx_error *error) KX_MUST_CHECK;
void kx_ispace_put_record(struct kx_ispace *space, struct kx_kv_batch *batch, const struct kx_space_record *record);
void kx_ispace_put_counts(struct kx_ispace *space, struct kx_kv_batch *batch, uint32_t rows_bound, uint64_t rows);
/* Empties a space whose building failed, on disk and in memory; by the holder of writer. */
kx_status kx_ispace_empty(struct kx_ispace *space, struct kx_error *error) KX_MUST_CHECK;

#endif
