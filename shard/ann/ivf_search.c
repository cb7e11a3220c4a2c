/* The way of a query: the table of its codes, its nearest cells, what passes the bound there, and that by its vector. */
#include "shard/ann/ivf_impl.h"

#include <stdlib.h>

#include "common/learn/learn.h"

#define EPSILON 2.2f          /* deviations of an estimate below which one may be and is still looked at */
#define CODE_DEVIATION 0.6f   /* sqrt(1 - a^2) for a = sqrt(2 / pi), the usual cosine of a vector and its signs */
#define DIRECT_MATCHES 5000u  /* so few are compared one by one */
#define LOAD_MAX ((size_t)1 << 30)
#define AHEAD 8u              /* vectors that are fetched before they are needed */

/* What a thread keeps between searches. */
struct kx_ivf_scratch {
	float *rotated;  /* [padded] */
	uint8_t *lut;    /* [padded / 4][16] */
	uint32_t padded;
	struct kx_ivf_near *near; /* [near_len] */
	uint32_t near_len;
	uint32_t *slots, *masks; /* [found_len], in blocks */
	float *bounds;
	uint32_t found_len;
	struct kx_ivf_hit *heap; /* [heap_len], the worst on top */
	uint32_t heap_len;
	uint8_t *blocks; /* of a cold cell */
	uint32_t *rows;
	uint32_t blocks_len;
	struct kx_buf loaded;
};

kx_status kx_ivf_scratch_new(struct kx_ivf_scratch **ret)
{
	struct kx_ivf_scratch *scratch = calloc(1, sizeof(*scratch));

	if (!scratch)
		return KX_ENOMEM;
	scratch->loaded.max = LOAD_MAX;
	*ret = scratch;
	return KX_OK;
}

void kx_ivf_scratch_free(struct kx_ivf_scratch *scratch)
{
	if (!scratch)
		return;
	free(scratch->rotated);
	free(scratch->lut);
	free(scratch->near);
	free(scratch->slots);
	free(scratch->masks);
	free(scratch->bounds);
	free(scratch->heap);
	free(scratch->blocks);
	free(scratch->rows);
	kx_buf_done(&scratch->loaded);
	free(scratch);
}

static bool again(void *array, size_t bytes)
{
	void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);

	if (!memory)
		return false;
	free(*(void **)array);
	*(void **)array = memory;
	return true;
}

static kx_status reserve_found(struct kx_ivf_scratch *scratch, uint32_t count)
{
	uint32_t len = (count + KX_IVF_BLOCK) / KX_IVF_BLOCK * KX_IVF_BLOCK * 2;

	if (count + KX_IVF_BLOCK <= scratch->found_len)
		return KX_OK;
	scratch->found_len = 0;
	if (!again(&scratch->slots, len * sizeof(uint32_t)) || !again(&scratch->bounds, len * sizeof(float)) ||
	    !again(&scratch->masks, len / KX_IVF_BLOCK * sizeof(uint32_t)))
		return KX_ENOMEM;
	scratch->found_len = len;
	return KX_OK;
}

static kx_status scratch_reserve(struct kx_ivf_scratch *scratch, const struct kx_ivf *ivf, uint32_t k)
{
	uint32_t padded = ivf->rotation.padded;

	if (scratch->padded < padded) {
		scratch->padded = 0;
		if (!again(&scratch->rotated, padded * sizeof(float)) || !again(&scratch->lut, padded * 4))
			return KX_ENOMEM;
		scratch->padded = padded;
	}
	if (scratch->near_len < ivf->cell_count) {
		scratch->near_len = 0;
		if (!again(&scratch->near, (size_t)ivf->cell_count * 2 * sizeof(*scratch->near)))
			return KX_ENOMEM;
		scratch->near_len = ivf->cell_count * 2;
	}
	if (scratch->heap_len < k) {
		scratch->heap_len = 0;
		if (!again(&scratch->heap, (size_t)k * sizeof(*scratch->heap)))
			return KX_ENOMEM;
		scratch->heap_len = k;
	}
	return KX_OK;
}

/* A search on its way. */
struct search {
	const struct kx_ivf *ivf;
	const struct kx_ivf_query *query;
	struct kx_ivf_scratch *scratch;
	struct kx_error *error;
	struct kx_ivf_lut lut;
	float norm2;    /* of the query */
	uint32_t count; /* in the heap */
	struct kx_ivf_work work;
};

static bool is_better(const struct kx_ivf_hit *a, const struct kx_ivf_hit *b)
{
	return a->score != b->score ? a->score > b->score : a->row < b->row;
}

static void sift_down(struct kx_ivf_hit *heap, uint32_t len, uint32_t at)
{
	struct kx_ivf_hit item = heap[at];

	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child + 1 < len && is_better(&heap[child], &heap[child + 1]))
			child++;
		if (child >= len || !is_better(&item, &heap[child]))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = item;
}

static void sift_up(struct kx_ivf_hit *heap, uint32_t at)
{
	struct kx_ivf_hit item = heap[at];

	while (at && is_better(&heap[(at - 1) / 2], &item)) {
		heap[at] = heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	heap[at] = item;
}

static void keep(struct search *search, struct kx_ivf_hit hit)
{
	struct kx_ivf_hit *heap = search->scratch->heap;

	if (search->count < search->query->k) {
		heap[search->count] = hit;
		sift_up(heap, search->count++);
	} else if (is_better(&hit, &heap[0])) {
		heap[0] = hit;
		sift_down(heap, search->count, 0);
	}
}

/* What a score must reach. */
static float least(const struct search *search)
{
	return search->count < search->query->k ? -INFINITY : search->scratch->heap[0].score;
}

static const uint8_t *vector_of(const struct kx_ivf *ivf, uint32_t row)
{
	return ivf->vectors + (size_t)row * ivf->stride;
}

static void refine(struct search *search, uint32_t row)
{
	const struct kx_ivf *ivf = search->ivf;
	float score = ivf->kernels->dot(vector_of(ivf, row), search->query->vector, ivf->recipe.dim);

	search->work.refined++;
	keep(search, (struct kx_ivf_hit){row, score});
}

/* A cell's content, wherever it lies. */
struct content {
	const uint8_t *blocks;
	const uint32_t *rows;
	uint32_t count;
};

static kx_status load_cold(struct search *search, const struct kx_ivf_cell *cell, struct content *ret)
{
	struct kx_ivf_scratch *scratch = search->scratch;
	const struct kx_ivf *ivf = search->ivf;
	size_t entry_bytes = kx_ivf_entry_bytes(ivf), count;
	kx_status status;

	kx_buf_clear(&scratch->loaded);
	status = ivf->load(ivf->load_ctx, cell->id, &scratch->loaded, search->error);
	if (status)
		return status;
	if (scratch->loaded.len % entry_bytes)
		return kx_error_set(search->error, KX_ECORRUPT, KX_ERROR_FATAL,
				    "cell %u: %zu bytes are no entries of %zu", cell->id, scratch->loaded.len, entry_bytes);
	count = scratch->loaded.len / entry_bytes;
	if (count > scratch->blocks_len) {
		size_t blocks = (count + KX_IVF_BLOCK - 1) / KX_IVF_BLOCK * 2;

		scratch->blocks_len = 0;
		if (!again(&scratch->blocks, blocks * kx_ivf_block_bytes(ivf->code_bytes)) ||
		    !again(&scratch->rows, blocks * KX_IVF_BLOCK * sizeof(uint32_t)))
			return kx_error_nomem(search->error);
		scratch->blocks_len = (uint32_t)blocks * KX_IVF_BLOCK;
	}
	kx_ivf_blocks_write(ivf, scratch->blocks, scratch->rows, 0, scratch->loaded.data, count);
	*ret = (struct content){scratch->blocks, scratch->rows, (uint32_t)count};
	return KX_OK;
}

static kx_status content_of(struct search *search, const struct kx_ivf_cell *cell, struct content *ret)
{
	if (cell->cold)
		return load_cold(search, cell, ret);
	*ret = (struct content){cell->blocks, cell->rows, cell->count};
	return KX_OK;
}

static bool may_be_found(const struct kx_ivf_query *query, uint32_t row)
{
	return row != query->exclude && (!query->filter || kx_ivf_filter_has(query->filter, row));
}

/* The k largest bounds to the front, in no order (Hoare's selection). */
static void select_best(uint32_t *slots, float *bounds, uint32_t count, uint32_t k)
{
	uint32_t low = 0, high = count;

	while (k < count && high - low > 1) {
		float pivot = bounds[low + (high - low) / 2];
		uint32_t i = low, j = high - 1;

		for (;;) {
			float bound;
			uint32_t slot;

			while (bounds[i] > pivot)
				i++;
			while (bounds[j] < pivot)
				j--;
			if (i >= j)
				break;
			bound = bounds[i];
			slot = slots[i];
			bounds[i] = bounds[j];
			slots[i++] = slots[j];
			bounds[j] = bound;
			slots[j--] = slot;
		}
		if (k <= i)
			high = i;
		else
			low = i;
		if (k == i)
			break;
	}
}

static void refine_found(struct search *search, const struct content *content, uint32_t from, uint32_t to)
{
	struct kx_ivf_scratch *scratch = search->scratch;

	for (uint32_t i = from; i < to; i++) {
		uint32_t row = content->rows[scratch->slots[i]];

		if (scratch->bounds[i] >= least(search) && row != search->query->exclude)
			refine(search, row);
	}
}

static kx_status scan_cell(struct search *search, const struct kx_ivf_near *near)
{
	const struct kx_ivf *ivf = search->ivf;
	const struct kx_ivf_cell *cell = &ivf->cells[near->slot];
	struct kx_ivf_scratch *scratch = search->scratch;
	struct content content;
	float distance2 = search->norm2 + cell->norm2 - 2.0f * near->product;
	float error = EPSILON * CODE_DEVIATION * sqrtf((distance2 > 0.0f ? distance2 : 0.0f) + search->lut.variance);
	struct kx_ivf_scan scan = {scratch->lut, ivf->code_bytes, search->lut.scale, search->lut.offset + error,
				   least(search) - near->product};
	kx_status status = content_of(search, cell, &content);
	uint32_t found, first;

	if (!status)
		status = reserve_found(scratch, content.count);
	if (status)
		return status;
	if (search->query->filter &&
	    !kx_ivf_filter_masks(search->query->filter, content.rows, content.count, scratch->masks))
		return KX_OK;
	search->work.cells++;
	search->work.codes += content.count;
	found = ivf->kernels->scan(&scan, content.blocks, content.count, search->query->filter ? scratch->masks : NULL,
				   (struct kx_ivf_found){scratch->slots, scratch->bounds});
	for (uint32_t i = 0; i < found; i++)
		scratch->bounds[i] += near->product;
	/* Until there are k, all would pass: the best by their bounds first. */
	first = search->query->k - search->count;
	first = first < found ? first : found;
	select_best(scratch->slots, scratch->bounds, found, first);
	refine_found(search, &content, 0, first);
	refine_found(search, &content, first, found);
	return KX_OK;
}

/* Everything that may be found is compared by its vector. */
static void compare_all(struct search *search)
{
	const struct kx_ivf *ivf = search->ivf;
	size_t words = ivf->present_words, filter_words = 0;
	const uint64_t *filter =
		search->query->filter ? kx_ivf_filter_words(search->query->filter, &filter_words) : NULL;
	uint32_t rows[64];

	words = filter && filter_words < words ? filter_words : words;
	for (size_t i = 0; i < words; i++) {
		uint64_t word = ivf->present[i] & (filter ? filter[i] : UINT64_MAX);
		uint32_t count = 0;

		for (; word; word &= word - 1)
			rows[count++] = (uint32_t)(i * 64) + (uint32_t)__builtin_ctzll(word);
		for (uint32_t j = 0; j < count; j++)
			if (rows[j] != search->query->exclude)
				refine(search, rows[j]);
	}
}

static kx_status compare_cold(struct search *search)
{
	for (uint32_t slot = 0; slot < search->ivf->slot_count; slot++) {
		const struct kx_ivf_cell *cell = &search->ivf->cells[slot];
		struct content content;
		kx_status status;

		if (cell->id == KX_IVF_NO_CELL || !cell->cold)
			continue;
		status = load_cold(search, cell, &content);
		if (status)
			return status;
		for (uint32_t i = 0; i < content.count; i++)
			if (may_be_found(search->query, content.rows[i]))
				refine(search, content.rows[i]);
	}
	return KX_OK;
}

static kx_status search_all(struct search *search)
{
	search->work.exact = true;
	search->work.cells = search->ivf->cell_count;
	compare_all(search);
	return search->ivf->cold_count ? compare_cold(search) : KX_OK;
}

static kx_status search_cells(struct search *search, float effort)
{
	const struct kx_ivf *ivf = search->ivf;
	struct kx_ivf_scratch *scratch = search->scratch;
	size_t count;

	kx_ivf_rotate(&ivf->rotation, ivf->kernels, search->query->vector, scratch->rotated);
	kx_ivf_lut_make(scratch->rotated, ivf->rotation.padded, scratch->lut, &search->lut);
	for (uint32_t i = 0; i < ivf->rotation.padded; i++)
		search->norm2 += scratch->rotated[i] * scratch->rotated[i];
	count = kx_ivf_centroids_order(ivf, scratch->rotated, scratch->near, ivf->cell_count);
	for (size_t i = 0; i < count && ((float)search->work.cells < effort || search->count < search->query->k); i++) {
		kx_status status = scan_cell(search, &scratch->near[i]);

		if (status)
			return status;
	}
	return KX_OK;
}

static int by_score(const void *a, const void *b)
{
	return is_better(a, b) ? -1 : 1;
}

kx_status kx_ivf_search_with(const struct kx_ivf *ivf, const struct kx_ivf_query *query, float effort,
			     struct kx_ivf_scratch *scratch, struct kx_ivf_hit *ret, uint32_t *ret_count,
			     struct kx_ivf_work *work, struct kx_error *error)
{
	struct search search = {.ivf = ivf, .query = query, .scratch = scratch, .error = error};
	bool direct = effort <= 0.0f || (query->filter && !ivf->cold_count &&
					 kx_ivf_filter_matches(query->filter) <= DIRECT_MATCHES);
	kx_status status = KX_OK;

	if (!ivf->ready && ivf->cell_count)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "cells were changed and not made ready");
	if (!ivf->vectors && ivf->entry_count)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "the index has no vectors");
	if (scratch_reserve(scratch, ivf, query->k))
		return kx_error_nomem(error);
	if (query->k)
		status = direct ? search_all(&search) : search_cells(&search, effort);
	if (status)
		return status;
	memcpy(ret, scratch->heap, search.count * sizeof(*ret));
	qsort(ret, search.count, sizeof(*ret), by_score);
	*ret_count = search.count;
	if (work)
		*work = search.work;
	return KX_OK;
}

kx_status kx_ivf_search(const struct kx_ivf *ivf, const struct kx_ivf_query *query, struct kx_ivf_scratch *scratch,
			struct kx_ivf_hit *ret, uint32_t *ret_count, struct kx_ivf_work *work, struct kx_error *error)
{
	if (!(query->recall > 0.0 && query->recall <= 1.0))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "a recall of %g: more than 0 and at most 1 can be",
				    query->recall);
	return kx_ivf_search_with(ivf, query, query->recall < 1.0 ? kx_ivf_effort(ivf, query->recall) : 0.0f, scratch,
				  ret, ret_count, work, error);
}
