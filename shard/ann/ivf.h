/* Approximate nearest vectors of one space: an inverted file of 1-bit codes, refined with full vectors. In memory and
 * pure: whoever owns it keeps the truth on disk and brings it in. Layer: shard/ann.
 *
 * A vector is assigned to the cell of its nearest centroid. A cell holds, for each of its vectors, a code of the
 * rotated residual with one bit a dimension and two factors, from which an unbiased estimate of the inner product and
 * a bound of its error follow (RaBitQ: Gao and Long, SIGMOD 2024). Codes lie in blocks of 32 in the order that the
 * CPU's kernel wants (fast scan: Andre et al., VLDB 2015): their leading three quarters, since a scan waits for memory, and the
 * rest where those pass a bound. What passes by all of a code, too, is compared by its full vector.
 *
 * Threads: searches may run at the same time, each with a scratch of its own; a change needs the index alone (the owner
 * locks). Nothing here blocks, except `load` below.
 */
#ifndef KX_SHARD_ANN_IVF_H
#define KX_SHARD_ANN_IVF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/error.h"

#define KX_IVF_DIM_MIN 8u
#define KX_IVF_DIM_MAX 2048u
#define KX_IVF_NO_ROW UINT32_MAX
#define KX_IVF_NO_CELL UINT32_MAX

enum kx_metric {
	KX_METRIC_COSINE = 1,    /* vectors are of unit length, the owner sees to that */
	KX_METRIC_INNER_PRODUCT, /* of any length */
};

/* What decides every code: two indexes with the same recipe make the same codes of the same vector and centroid. */
struct kx_ivf_recipe {
	uint32_t dim;
	enum kx_metric metric;
	uint64_t seed; /* of the rotation */
};

/* Entries of a cell as the owner has not given them yet (a cell that is cold): appends them to *out in the portable
 * form. May block; may be called by several searches at once. */
typedef kx_status (*kx_ivf_load)(void *ctx, uint32_t cell, struct kx_buf *out, struct kx_error *error);

struct kx_ivf_options {
	struct kx_ivf_recipe recipe;
	kx_ivf_load load; /* NULL: every cell is filled by its owner */
	void *load_ctx;
};

struct kx_ivf;

kx_status kx_ivf_new(const struct kx_ivf_options *options, struct kx_ivf **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_ivf_free(struct kx_ivf *ivf); /* NULL is nothing */
void kx_ivf_cleanup(struct kx_ivf **ivf);

/* Where full vectors are: row r is fp16[dim] at base + r * stride (usually a mapped file; in huge pages searches are about a
 * tenth faster). Borrowed; it must hold every row that a cell names, and may grow in place. */
void kx_ivf_set_vectors(struct kx_ivf *ivf, const void *base, size_t stride);

/* Called with each row whose vector is compared soon, before others are waited for: where reading it may block, it can be asked
 * for here. By searches, several at once. NULL, as at first: nobody is told. */
typedef void (*kx_ivf_ahead)(void *ctx, uint32_t row);
void kx_ivf_set_ahead(struct kx_ivf *ivf, kx_ivf_ahead ahead, void *ctx);

/* --- Centroids and cells ------------------------------------------------------------------------------------- */

/* k-means over a sample, hierarchical where there are many cells, on one thread. sample: [n][dim].
 * ret_centroids: [cells][dim]. n >= cells. The same input gives the same centroids. KX_ENOMEM. */
kx_status kx_ivf_train(const struct kx_ivf_recipe *recipe, const float *sample, size_t n, uint32_t cells,
		       float *ret_centroids, struct kx_error *error) KX_MUST_CHECK;

/* A new cell, empty and warm, or cold: its entries are asked of `load` whenever a search reaches it, until
 * kx_ivf_cell_fill(). The owner chooses ids; one that is there is KX_EINVAL. centroid: [dim], copied. */
kx_status kx_ivf_cell_add(struct kx_ivf *ivf, uint32_t cell, const float *centroid, bool cold) KX_MUST_CHECK;
void kx_ivf_cell_remove(struct kx_ivf *ivf, uint32_t cell);
uint32_t kx_ivf_cell_count(const struct kx_ivf *ivf);
/* To be called after cells were added or removed, before the next search: builds what finds centroids fast. */
kx_status kx_ivf_cells_ready(struct kx_ivf *ivf) KX_MUST_CHECK;
/* The same in less time, for many cells at once: centroids are not put into regions, so finding the near ones takes a little
 * longer, until that is made up for: by another thread while searches run, and changes do not; then put in place, alone.
 * KX_ENOMEM. */
kx_status kx_ivf_cells_ready_soon(struct kx_ivf *ivf) KX_MUST_CHECK;
bool kx_ivf_cells_flat(const struct kx_ivf *ivf); /* that is so, and worth making up for */
struct kx_ivf_arranged;
kx_status kx_ivf_arrange(const struct kx_ivf *ivf, struct kx_ivf_arranged **ret) KX_MUST_CHECK;
void kx_ivf_arrange_apply(struct kx_ivf *ivf, struct kx_ivf_arranged *arranged); /* frees it */

/* The cells of the nearest centroids by Euclidean distance, nearest first; how many, at most n. vector: [dim]. */
size_t kx_ivf_nearest_cells(const struct kx_ivf *ivf, const float *vector, size_t n, uint32_t *ret_cells,
			    float *ret_distance2);
/* The nearest cell of each of n vectors ([n][dim]) and how far it is, centroids being read once for many of them. KX_EINVAL:
 * there is no cell; KX_ENOMEM. */
kx_status kx_ivf_nearest_each(const struct kx_ivf *ivf, const float *vectors, size_t n, uint32_t *ret_cells,
			      float *ret_distance2) KX_MUST_CHECK;

/* --- Entries -------------------------------------------------------------------------------------------------- */

/* The portable form of an entry, little-endian: u32 row, f32 add, f32 mul, code[padded_dim / 8]. */
size_t kx_ivf_entry_bytes(const struct kx_ivf *ivf);

/* Writes the entry of a vector in a cell. Thread-safe beside searches. */
kx_status kx_ivf_encode(const struct kx_ivf *ivf, uint32_t cell, uint32_t row, const float *vector, void *ret_entry)
	KX_MUST_CHECK;

/* Appends entries to a warm cell; all or nothing. A row is in at most one cell, at most once: the owner sees to that. */
kx_status kx_ivf_append(struct kx_ivf *ivf, uint32_t cell, const void *entries, size_t count) KX_MUST_CHECK;
bool kx_ivf_remove(struct kx_ivf *ivf, uint32_t cell, uint32_t row); /* false: it was not there */
/* Replaces all of a cell's entries; the cell is warm then. */
kx_status kx_ivf_cell_fill(struct kx_ivf *ivf, uint32_t cell, const void *entries, size_t count) KX_MUST_CHECK;
void kx_ivf_cell_cool(struct kx_ivf *ivf, uint32_t cell); /* forgets its entries: cold again */
/* Appends a warm cell's entries in the portable form; its rows alone; how many there are. */
kx_status kx_ivf_cell_entries(const struct kx_ivf *ivf, uint32_t cell, struct kx_buf *out) KX_MUST_CHECK;
const uint32_t *kx_ivf_cell_rows(const struct kx_ivf *ivf, uint32_t cell, uint32_t *ret_count);
const float *kx_ivf_cell_centroid(const struct kx_ivf *ivf, uint32_t cell); /* [dim]; NULL: no such cell */

/* Bytes in memory: codes, factors, rows and centroids, without the full vectors. */
uint64_t kx_ivf_hot_bytes(const struct kx_ivf *ivf);

/* --- Search --------------------------------------------------------------------------------------------------- */

/* Which rows may be found: a bitmap over rows, and what searches remember of it: which slots of which cell match.
 * Made by whoever evaluates a filter; used by many searches at once. */
struct kx_ivf_filter;
/* bits: bit r % 64 of word r / 64 is row r; [rows] of them, copied; rows beyond match nothing. */
kx_status kx_ivf_filter_new(const uint64_t *bits, uint32_t rows, struct kx_ivf_filter **ret) KX_MUST_CHECK;
void kx_ivf_filter_free(struct kx_ivf_filter *filter);
/* No search may run. Rows beyond those it was made with may be set, too. KX_ENOMEM, KX_ETOOBIG. */
kx_status kx_ivf_filter_set(struct kx_ivf_filter *filter, uint32_t row, bool matches) KX_MUST_CHECK;
uint64_t kx_ivf_filter_matches(const struct kx_ivf_filter *filter);

struct kx_ivf_query {
	const float *vector; /* [dim]; for cosine of unit length */
	uint32_t k;
	double recall;       /* wanted, 0 < recall <= 1; 1: exact, every vector that may match is compared */
	uint32_t exclude;    /* a row not to be found, or KX_IVF_NO_ROW */
	const struct kx_ivf_filter *filter; /* NULL: all */
};

struct kx_ivf_hit {
	uint32_t row;
	float score; /* inner product, by the full vector */
};

/* What a search did. */
struct kx_ivf_work {
	uint32_t cells;   /* scanned */
	uint32_t codes;   /* estimated */
	uint32_t refined; /* full vectors compared */
	bool exact;       /* every vector that may match was compared, or bounded out */
};

struct kx_ivf_scratch; /* a thread's; grows to the index it is used with */
kx_status kx_ivf_scratch_new(struct kx_ivf_scratch **ret) KX_MUST_CHECK;
void kx_ivf_scratch_free(struct kx_ivf_scratch *scratch);

/* ret: [k], best first, ties by row. How hard it looks follows from `recall` by the tuning; with a filter it goes on
 * until enough matching cells were seen, and compares the matches one by one when they are few. work may be NULL. */
kx_status kx_ivf_search(const struct kx_ivf *ivf, const struct kx_ivf_query *query, struct kx_ivf_scratch *scratch,
			struct kx_ivf_hit *ret, uint32_t *ret_count, struct kx_ivf_work *work, struct kx_error *error)
	KX_MUST_CHECK;

/* The answer to one of many queries. */
struct kx_ivf_answer {
	struct kx_ivf_hit *hits; /* [the query's k], the caller's */
	uint32_t count;
	struct kx_ivf_work work;
};
/* Each of n queries as kx_ivf_search() answers it, to the same recall, what they share being read once for many of them: centroids,
 * and cells where a query wants an eighth of them or more (by what searches with this scratch wanted before). k, recall, exclude
 * and filter are each query's own; hits may differ from a single search's where both look as hard as is asked for. Queries with a
 * filter or of recall 1 are searched one by one, and all are where they are few or there are more than 16,000 cells; cells are not
 * shared by inner product, nor where one is cold. The scratch grows to some 20 MiB. Once it failed (as a search does), what is in ret
 * means nothing. */
kx_status kx_ivf_search_many(const struct kx_ivf *ivf, const struct kx_ivf_query *queries, size_t n,
			     struct kx_ivf_scratch *scratch, struct kx_ivf_answer *ret, struct kx_error *error)
	KX_MUST_CHECK;

/* --- Tuning --------------------------------------------------------------------------------------------------- */

/* How hard to look for which recall: measured, kept by the owner, and moved by what live queries show. */
#define KX_IVF_TUNING_POINTS 16
struct kx_ivf_tuning {
	uint32_t count;
	float recall[KX_IVF_TUNING_POINTS]; /* at k = 10, rising */
	float effort[KX_IVF_TUNING_POINTS]; /* what the search understands: rising with recall */
	float spread; /* by which power of the share that a filter leaves effort grows; 0: not measured */
};
#define KX_IVF_SPREAD_MAX 0.25f
/* Measures with queries ([n][dim]) that are not in the index. What there is to find is known by exact search for some of
 * them; for the others by one that misses nothing of those. Some thousand are worth it: of n queries recall is known to
 * about 0.1 / sqrt(n). */
kx_status kx_ivf_tune(const struct kx_ivf *ivf, const float *queries, size_t n, struct kx_ivf_tuning *ret,
		      struct kx_error *error) KX_MUST_CHECK;
/* With vectors that are in the index: query i does not find rows[i], which is itself. */
kx_status kx_ivf_tune_rows(const struct kx_ivf *ivf, const float *queries, const uint32_t *rows, size_t n,
			   struct kx_ivf_tuning *ret, struct kx_error *error) KX_MUST_CHECK;
/* The same in pieces, for an owner whose index changes meanwhile: one search, as hard as at one of so many points, each harder
 * than the one before, or so hard that next to nothing is missed. The query's recall says nothing. */
#define KX_IVF_PROBE_POINTS 7u
#define KX_IVF_PROBE_THOROUGH UINT32_MAX
kx_status kx_ivf_probe(const struct kx_ivf *ivf, const struct kx_ivf_query *query, uint32_t point,
		       struct kx_ivf_scratch *scratch, struct kx_ivf_hit *ret, uint32_t *ret_count, struct kx_error *error)
	KX_MUST_CHECK;
float kx_ivf_probe_effort(uint32_t point);
/* Of the `there` hits that there are to find, best first, how many a search found: any of equal score is as good. */
uint32_t kx_ivf_found(const struct kx_ivf_hit *truth, uint32_t there, const struct kx_ivf_hit *hits, uint32_t count);
void kx_ivf_set_tuning(struct kx_ivf *ivf, const struct kx_ivf_tuning *tuning); /* without one: a guess on the safe side */

#endif
