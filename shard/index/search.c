/* Answering queries; filters; reading rows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shard/index/internal.h"

#define REPAIRS_MOST 3
#define HITS_AT_ONCE (4 * KX_INDEX_K_MAX)
#define ROWS_AT_ONCE (1u << 21) /* compared by exact queries, all together: about what one does of a large space */

/* --- Scratch: one for each search that runs, kept for the next ------------------------------------------------ */

void kx_iscratch_free(struct kx_iscratch *scratch)
{
	if (!scratch)
		return;
	kx_ivf_scratch_free(scratch->ivf);
	free(scratch->vectors);
	free(scratch->hits);
	kx_buf_done(&scratch->value);
	free(scratch);
}

static kx_status reserve(struct kx_iscratch *scratch, size_t hits, size_t floats)
{
	if (hits > scratch->hits_cap) {
		struct kx_ivf_hit *list = realloc(scratch->hits, hits * sizeof(*list));

		if (!list)
			return KX_ENOMEM;
		scratch->hits = list;
		scratch->hits_cap = hits;
	}
	if (floats > scratch->vectors_cap) {
		float *vectors = realloc(scratch->vectors, floats * sizeof(*vectors));

		if (!vectors)
			return KX_ENOMEM;
		scratch->vectors = vectors;
		scratch->vectors_cap = floats;
	}
	return KX_OK;
}

static struct kx_iscratch *scratch_new(void)
{
	struct kx_iscratch *scratch = calloc(1, sizeof(*scratch));

	if (!scratch)
		return NULL;
	scratch->value.max = KX_INDEX_VALUE_MAX;
	if (!reserve(scratch, KX_INDEX_K_MAX, KX_IVF_DIM_MAX) && !kx_ivf_scratch_new(&scratch->ivf))
		return scratch;
	kx_iscratch_free(scratch);
	return NULL;
}

struct kx_iscratch *kx_iscratch_take(struct kx_index *index)
{
	struct kx_iscratch *scratch;

	pthread_mutex_lock(&index->queue_lock);
	scratch = index->scratches;
	if (scratch)
		index->scratches = scratch->next;
	pthread_mutex_unlock(&index->queue_lock);
	return scratch ? scratch : scratch_new();
}

void kx_iscratch_give(struct kx_index *index, struct kx_iscratch *scratch)
{
	pthread_mutex_lock(&index->queue_lock);
	scratch->next = index->scratches;
	index->scratches = scratch;
	pthread_mutex_unlock(&index->queue_lock);
}

/* --- Filters -------------------------------------------------------------------------------------------------- */

kx_status kx_index_filter_new(struct kx_index *index, uint32_t number, const uint64_t *bits, uint32_t rows,
			      struct kx_index_filter **ret, struct kx_error *error)
{
	const size_t words = (rows + 63u) / 64;
	struct kx_index_filter *filter;
	struct kx_ispace *space;
	kx_status status = kx_ispace_get(index, number, &space, error);

	if (status)
		return status;
	if (rows > KX_INDEX_ROWS_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON, "a filter over %u rows; %u are the most", rows,
				    KX_INDEX_ROWS_MAX);
	filter = calloc(1, sizeof(*filter));
	if (!filter)
		return kx_error_nomem(error);
	atomic_store(&filter->references, 1);
	filter->space = space;
	filter->rows = (uint32_t)words * 64;
	filter->bits = malloc((words + 1) * sizeof(*bits));
	if (!filter->bits || kx_ivf_filter_new(bits, rows, &filter->ivf)) {
		kx_index_filter_free(filter);
		return kx_error_nomem(error);
	}
	if (words)
		memcpy(filter->bits, bits, words * sizeof(*bits));
	if (rows % 64)
		filter->bits[words - 1] &= (UINT64_C(1) << rows % 64) - 1;
	*ret = filter;
	return KX_OK;
}

void kx_index_filter_free(struct kx_index_filter *filter)
{
	if (!filter || atomic_fetch_sub(&filter->references, 1) != 1)
		return;
	kx_ivf_filter_free(filter->ivf);
	free(filter->bits);
	free(filter);
}

static kx_status filter_grow(struct kx_index_filter *filter, uint32_t row)
{
	size_t had = filter->rows / 64, words = row / 64 + 1u + had / 2;
	uint64_t *bits = realloc(filter->bits, words * sizeof(*bits));

	if (!bits)
		return KX_ENOMEM;
	memset(bits + had, 0, (words - had) * sizeof(*bits));
	filter->bits = bits;
	filter->rows = (uint32_t)words * 64;
	return KX_OK;
}

kx_status kx_index_filter_set(struct kx_index_filter *filter, uint32_t row, bool matches)
{
	kx_status status = KX_OK;

	if (row >= KX_INDEX_ROWS_MAX)
		return KX_ETOOBIG;
	if (row >= filter->rows && !matches)
		return KX_OK;
	if (row >= filter->rows)
		status = filter_grow(filter, row);
	if (!status)
		status = kx_ivf_filter_set(filter->ivf, row, matches);
	if (status)
		return status;
	filter->bits[row / 64] &= ~(UINT64_C(1) << row % 64);
	filter->bits[row / 64] |= (uint64_t)matches << row % 64;
	return KX_OK;
}

kx_status kx_index_filter_change(struct kx_index_filter *filter, const struct kx_index_filter_row *rows, size_t count)
{
	kx_status status = KX_OK;

	pthread_rwlock_wrlock(&filter->space->lock);
	for (size_t i = 0; !status && i < count; i++)
		status = kx_index_filter_set(filter, rows[i].row, rows[i].matches);
	pthread_rwlock_unlock(&filter->space->lock);
	return status;
}

uint64_t kx_index_filter_matches(const struct kx_index_filter *filter)
{
	return kx_ivf_filter_matches(filter->ivf);
}

/* --- Rows ----------------------------------------------------------------------------------------------------- */

static kx_status key_row(struct kx_ispace *space, const void *key, size_t key_len, uint32_t *ret,
			 struct kx_error *error)
{
	uint8_t bytes[KX_IKEY_KEY_MAX];
	struct kx_buf value = {.max = 64};
	kx_status status;

	if (!key_len || key_len > KX_INDEX_KEY_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "a key of %zu bytes; it can have 1 to %u", key_len,
				    KX_INDEX_KEY_MAX);
	status = kx_kv_get(space->index->options.kv, kx_ifamily(space->index, KX_INDEX_KEYS), bytes,
			   kx_ikey_key(space->number, key, key_len, bytes), &value, error);
	if (!status && value.len != 4)
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "space %s: the row of a key is none",
				      space->record.name);
	if (!status)
		*ret = kx_le32_get(value.data);
	kx_buf_done(&value);
	return status;
}

static kx_status read_row(struct kx_ispace *space, uint32_t row, float *ret_vector, struct kx_buf *ret_attributes,
			  struct kx_error *error)
{
	struct kx_buf value = {.max = KX_INDEX_VALUE_MAX};
	struct kx_ikey key = kx_ikey_row(space->number, row);
	struct kx_row_view view;
	kx_status status = KX_OK;

	if (ret_vector) {
		status = kx_iget(space->index, KX_INDEX_VECTORS, key, &value, error);
		if (!status && value.len != space->vectors.stride)
			status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "space %s: row %u has no vector",
					      space->record.name, row);
		if (!status)
			kx_ihalves_to_floats((const uint16_t *)(const void *)value.data, space->record.recipe.dim,
					     ret_vector);
	}
	kx_buf_clear(&value);
	if (!status && ret_attributes) {
		status = kx_iget(space->index, KX_INDEX_ROWS, key, &value, error);
		if (!status)
			status = kx_row_decode(value.data, value.len, &view, error);
		if (!status && view.attributes_len)
			status = kx_buf_append(ret_attributes, view.attributes, view.attributes_len);
	}
	kx_buf_done(&value);
	return status;
}

kx_status kx_index_get(struct kx_index *index, uint32_t number, const void *key, size_t key_len, uint32_t *ret_row,
		       float *ret_vector, struct kx_buf *ret_attributes, struct kx_error *error)
{
	struct kx_ispace *space;
	uint32_t row = KX_IVF_NO_ROW, again = KX_IVF_NO_ROW;
	kx_status status = kx_ispace_get(index, number, &space, error);

	if (status)
		return status;
	/* Until nobody changed the key in between: its row names what is read. */
	do {
		status = key_row(space, key, key_len, &row, error);
		if (!status && (status = read_row(space, row, ret_vector, ret_attributes, error)) && status != KX_ENOTFOUND)
			return status;
	} while (status == KX_OK ? key_row(space, key, key_len, &again, NULL) == KX_OK && again != row
				 : status == KX_ENOTFOUND && key_row(space, key, key_len, &again, NULL) == KX_OK);
	if (status == KX_ENOTFOUND)
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_POISON, "space %s has no key \"%.*s\"",
				    space->record.name, key_len > 200 ? 200 : (int)key_len, (const char *)key);
	if (!status && ret_row)
		*ret_row = row;
	return status;
}

kx_status kx_index_each(struct kx_index *index, uint32_t number, kx_index_visit visit, void *ctx,
			struct kx_error *error)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	struct kx_ikey prefix = kx_ikey_space(number);
	struct kx_ispace *space;
	kx_status status = kx_ispace_get(index, number, &space, error);

	if (status)
		return status;
	if (kx_kv_iter_new(index->options.kv, kx_ifamily(index, KX_INDEX_ROWS), prefix.bytes, prefix.len, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		struct kx_row_view view;
		size_t key_len, len;
		const void *key = kx_kv_iter_key(iter, &key_len);
		const void *value = kx_kv_iter_value(iter, &len);
		uint32_t in, row;

		if (!kx_ikey_parse_row(key, key_len, &in, &row))
			return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "a key among the rows is none");
		status = kx_row_decode(value, len, &view, error);
		if (!status)
			status = visit(ctx, row, view.key, view.key_len, view.attributes, view.attributes_len, error);
		if (status)
			return status;
	}
	return kx_kv_iter_error(iter, error);
}

kx_status kx_index_each_key(struct kx_index *index, uint32_t number, const void *prefix, size_t prefix_len,
			    kx_index_visit_key visit, void *ctx, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	const size_t head = kx_ikey_space(number).len;
	uint8_t from[KX_IKEY_KEY_MAX];
	struct kx_ispace *space;
	kx_status status = kx_ispace_get(index, number, &space, error);

	if (status || prefix_len > KX_INDEX_KEY_MAX)
		return status;
	if (kx_kv_iter_new(index->options.kv, kx_ifamily(index, KX_INDEX_KEYS), from,
			   kx_ikey_key(number, prefix, prefix_len, from), &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t key_len, len;
		const uint8_t *key = kx_kv_iter_key(iter, &key_len);
		const void *value = kx_kv_iter_value(iter, &len);

		if (len != 4 || key_len < head)
			return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "space %s: the row of a key is none",
					    space->record.name);
		status = visit(ctx, key + head, key_len - head, kx_le32_get(value), error);
		if (status)
			return status;
	}
	return kx_kv_iter_error(iter, error);
}

/* --- Search --------------------------------------------------------------------------------------------------- */

void kx_index_hits_done(struct kx_index_hits *hits)
{
	free(hits->list);
	kx_buf_done(&hits->keys);
	*hits = (struct kx_index_hits){0};
}

static kx_status hits_reserve(struct kx_index_hits *hits, uint32_t k)
{
	struct kx_index_hit *list;

	hits->count = 0;
	hits->keys.max = SIZE_MAX / 2;
	kx_buf_clear(&hits->keys);
	if (k <= hits->cap)
		return KX_OK;
	list = realloc(hits->list, k * sizeof(*list));
	if (!list)
		return KX_ENOMEM;
	hits->list = list;
	hits->cap = k;
	return KX_OK;
}

static kx_status check_query(const struct kx_ispace *space, const struct kx_index_query *query, float *vector,
			     struct kx_error *error)
{
	if (!query->k || query->k > KX_INDEX_K_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "k of %u; it can be 1 to %u", query->k,
				    KX_INDEX_K_MAX);
	if (!(query->recall > 0) || query->recall > 1)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "a recall of %g; it is over 0 and at most 1",
				    query->recall);
	if (query->filter && query->filter->space != space)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "space %s: the filter is another space's",
				    space->record.name);
	return kx_ivector_check(space, query->vector, query->dim, vector, error);
}

/* The key of a row that is live: from memory, or, soon after opening, from the store. */
static kx_status append_key(struct kx_ispace *space, uint32_t row, struct kx_buf *value, struct kx_buf *out,
			    size_t *ret_len, struct kx_error *error)
{
	const struct kx_irow *memory = atomic_load_explicit(&space->keys[row], memory_order_acquire);
	struct kx_row_view view;
	kx_status status;

	if (memory) {
		*ret_len = memory->key_len;
		return kx_buf_append(out, memory->key, memory->key_len) ? kx_error_nomem(error) : KX_OK;
	}
	kx_buf_clear(value);
	status = kx_iget(space->index, KX_INDEX_ROWS, kx_ikey_row(space->number, row), value, error);
	if (!status)
		status = kx_row_decode(value->data, value->len, &view, error);
	if (status)
		return status;
	*ret_len = view.key_len;
	return kx_buf_append(out, view.key, view.key_len) ? kx_error_nomem(error) : KX_OK;
}

/* Keys lie one after another in a buffer that moves while it grows: pointers come last. */
static void point_at_keys(struct kx_index_hits *hits)
{
	const uint8_t *at = hits->keys.data;

	for (uint32_t i = 0; i < hits->count; i++) {
		hits->list[i].key = at;
		at += hits->list[i].key_len;
	}
}

/* Keys lie anywhere: their misses go on side by side. */
static void prefetch_keys(const struct kx_ispace *space, const struct kx_ivf_hit *hits, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		__builtin_prefetch((const void *)&space->keys[hits[i].row]);
	for (uint32_t i = 0; i < count; i++)
		__builtin_prefetch(atomic_load_explicit(&space->keys[hits[i].row], memory_order_relaxed));
}

static kx_status copy_hits(struct kx_ispace *space, struct kx_iscratch *scratch, const struct kx_ivf_answer *answer,
			   struct kx_index_hits *hits, struct kx_error *error)
{
	prefetch_keys(space, answer->hits, answer->count);
	hits->work = answer->work;
	for (uint32_t i = 0; i < answer->count; i++) {
		struct kx_index_hit *hit = &hits->list[hits->count];
		kx_status status;

		hit->row = answer->hits[i].row;
		hit->score = answer->hits[i].score;
		status = append_key(space, hit->row, &scratch->value, &hits->keys, &hit->key_len, error);
		if (status == KX_ENOTFOUND) /* being deleted: the store knows, and this search may, too */
			continue;
		if (status)
			return status;
		hits->count++;
	}
	point_at_keys(hits);
	return KX_OK;
}

static bool is_key_of(struct kx_ispace *space, struct kx_iscratch *scratch, uint32_t row,
		      const struct kx_index_query *query)
{
	struct kx_buf key = {.max = KX_INDEX_VALUE_MAX};
	size_t len = 0;
	bool is = append_key(space, row, &scratch->value, &key, &len, NULL) == KX_OK && len == query->exclude_len &&
		  memcmp(key.data, query->exclude, len) == 0;

	kx_buf_done(&key);
	return is;
}

/* What is asked at once: one or more of a caller's queries. */
struct piece {
	struct kx_ispace *space;
	struct kx_iscratch *scratch;
	const struct kx_index_query *queries;
	struct kx_index_hits *hits;
	size_t count;
};

/* How many of the queries are asked under one hold of the lock, at which every change waits, and behind it every other search:
 * at most as many as share most of what there is to share, less where each is long. Those that compare with everything take
 * a time that grows with the rows, and are bound by these. */
static size_t piece_of(const struct kx_ispace *space, const struct kx_index_query *queries, size_t n)
{
	uint64_t hits = 0, compared = 0;
	size_t count = 0;

	while (count < n && count < KX_INDEX_AT_ONCE) {
		hits += queries[count].k;
		compared += queries[count].recall >= 1 ? atomic_load(&space->rows) : 0;
		if (count && (hits > HITS_AT_ONCE || compared > ROWS_AT_ONCE))
			break;
		count++;
	}
	return count;
}

/* *ret_bad: which of them is wrong, when one is. */
static kx_status prepare(const struct piece *piece, size_t *ret_bad, struct kx_error *error)
{
	struct kx_iscratch *scratch = piece->scratch;
	const size_t dim = piece->space->record.recipe.dim;
	size_t hits = 0;

	for (size_t i = 0; i < piece->count; i++)
		hits += piece->queries[i].k <= KX_INDEX_K_MAX ? piece->queries[i].k : 0;
	if (reserve(scratch, hits, piece->count * dim))
		return kx_error_nomem(error);
	hits = 0;
	for (size_t i = 0; i < piece->count; i++) {
		const struct kx_index_query *query = &piece->queries[i];
		float *vector = scratch->vectors + i * dim;
		kx_status status = check_query(piece->space, query, vector, error);

		if (status) {
			*ret_bad = i;
			return status;
		}
		if (hits_reserve(&piece->hits[i], query->k))
			return kx_error_nomem(error);
		scratch->queries[i] = (struct kx_ivf_query){vector, query->k, query->recall, KX_IVF_NO_ROW,
							    query->filter ? query->filter->ivf : NULL};
		scratch->answers[i].hits = scratch->hits + hits;
		hits += query->k;
	}
	return KX_OK;
}

/* Which rows are not to be found, as the store says; by the time of the search they may be another key's. */
static kx_status find_excluded(const struct piece *piece, struct kx_error *error)
{
	for (size_t i = 0; i < piece->count; i++) {
		const struct kx_index_query *query = &piece->queries[i];
		uint32_t *row = &piece->scratch->queries[i].exclude;
		kx_status status = KX_OK;

		*row = KX_IVF_NO_ROW;
		if (query->exclude)
			status = key_row(piece->space, query->exclude, query->exclude_len, row, error);
		if (status && status != KX_ENOTFOUND)
			return status;
	}
	return KX_OK;
}

static kx_status search_locked(const struct piece *piece, struct kx_error *error)
{
	struct kx_iscratch *scratch = piece->scratch;
	struct kx_ispace *space = piece->space;
	kx_status status = kx_ibroken(space, error);

	for (size_t i = 0; i < piece->count; i++) {
		uint32_t *row = &scratch->queries[i].exclude;

		if (*row != KX_IVF_NO_ROW && !is_key_of(space, scratch, *row, &piece->queries[i]))
			*row = KX_IVF_NO_ROW;
	}
	if (!status)
		status = kx_ivf_search_many(space->gen->ivf, scratch->queries, piece->count, scratch->ivf, scratch->answers,
					    error);
	if (!status && !kx_ivectors_hold(&space->vectors))
		status = KX_EAGAIN;
	for (size_t i = 0; !status && i < piece->count; i++) {
		struct kx_index_hits *hits = &piece->hits[i];

		status = copy_hits(space, scratch, &scratch->answers[i], hits, error);
	}
	return status;
}

static kx_status search_once(const struct piece *piece, struct kx_error *error)
{
	kx_status status = find_excluded(piece, error);

	if (status)
		return status;
	for (size_t i = 0; i < piece->count; i++) {
		piece->hits[i].count = 0;
		kx_buf_clear(&piece->hits[i].keys);
	}
	pthread_rwlock_rdlock(&piece->space->lock);
	status = search_locked(piece, error);
	pthread_rwlock_unlock(&piece->space->lock);
	return status;
}

/* One of them may be looked at closer; not always the same. */
static void offer_sample(const struct piece *piece)
{
	const size_t i = piece->scratch->offered++ % piece->count;

	kx_isample_take(piece->space, &piece->queries[i], piece->scratch->queries[i].vector);
}

static kx_status search_piece(const struct piece *piece, size_t *ret_bad, struct kx_error *error)
{
	struct kx_ispace *space = piece->space;
	kx_status status = prepare(piece, ret_bad, error);

	if (status)
		return status;
	status = search_once(piece, error);
	if (status == KX_EAGAIN) {
		status = kx_ispace_give_up_vectors(space, error);
		if (!status)
			status = search_once(piece, error);
	}
	for (int i = 0; status == KX_ECORRUPT && !space->index->options.read_only && i < REPAIRS_MOST; i++) {
		status = kx_irepair(space, error);
		if (!status)
			status = search_once(piece, error);
	}
	if (!status)
		offer_sample(piece);
	return status;
}

kx_status kx_index_search_many(struct kx_index *index, uint32_t number, const struct kx_index_query *queries, size_t n,
			       struct kx_index_hits *ret, struct kx_error *error)
{
	struct piece piece = {.count = 0};
	kx_status status = kx_ispace_get(index, number, &piece.space, error);

	if (status)
		return status;
	piece.scratch = kx_iscratch_take(index);
	if (!piece.scratch)
		return kx_error_nomem(error);
	for (size_t at = 0; !status && at < n; at += piece.count) {
		size_t bad = SIZE_MAX;

		piece.queries = queries + at;
		piece.hits = ret + at;
		piece.count = piece_of(piece.space, piece.queries, n - at);
		status = search_piece(&piece, &bad, error);
		if (bad != SIZE_MAX && n > 1)
			status = kx_error_prefix(error, status, "query %zu", at + bad);
	}
	kx_iscratch_give(index, piece.scratch);
	for (size_t i = 0; status && i < n; i++)
		ret[i].count = 0;
	return status;
}

kx_status kx_index_search(struct kx_index *index, uint32_t number, const struct kx_index_query *query,
			  struct kx_index_hits *hits, struct kx_error *error)
{
	return kx_index_search_many(index, number, query, 1, hits, error);
}
