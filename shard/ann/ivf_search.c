/* The way of a query: the table of its codes, its nearest cells, what passes the bound there, and that by its vector. */
#include "shard/ann/ivf_impl.h"

#include <stdlib.h>

#include "common/base/fault.h"

#define CODE_DEVIATION 0.6f   /* sqrt(1 - a^2) for a = sqrt(2 / pi), the usual cosine of a vector and its signs */
#define LEAD_DEVIATION 0.626f /* sqrt(f (1 - f a^2)) for the leading part f = 3/4 of a code, whose factor is 1/f times as much */
#define LEAD_EPSILON 0.3f     /* by so much wider the bound by the leading part is: what it drops is never looked at again */
#define LEAD_FIRST 4u         /* of those that are best by the leading part, one in so many is compared before all others */
#define DIRECT_MATCHES 5000u  /* so few are compared one by one, unless */
#define DIRECT_LEAST 300u     /* there are more than so many, */
#define DIRECT_CELL 6u        /* and so many more for each cell: they crowd in few cells, of which the nearer ones are enough */
#define LOAD_MAX ((size_t)1 << 30)
#define AHEAD 12u             /* vectors that are fetched before they are needed */
#define LISTED 512u           /* rows that are gathered, then compared */
#define LINE 64u              /* bytes that come from memory at once */
#define PATIENCE 3u           /* cells not worth it one after another, after which no other is tried */
#define PRODUCT_REACH 24.0f
/* How much a centroid's own length counts when cells are ordered. All of it would order by distance; but a centroid that
 * is near because it is short stands for vectors that point everywhere. Half of it needs 40 % fewer cells where those
 * are many (text embeddings), and costs nothing where they are few. */
#define NORM_WEIGHT 0.5f
#define NO_WEIGHT 1e-30f
#define CELLS_AHEAD 8u
#define SHARE_PRIOR 30.0 /* entries */
#define SHARE_CELLS 4u   /* the share is looked at every so many */
#define COPIES_AHEAD 3u
#define APART 128u            /* bytes between what two threads write; processors fetch lines in pairs */

/* What a thread keeps between searches. */
struct kx_ivf_scratch {
	float *rotated; /* [padded] */
	uint8_t *lut;   /* [padded / 4][16] */
	uint32_t padded;
	struct kx_ivf_order order;
	uint32_t *slots, *masks; /* [found_len], [found_len / KX_IVF_BLOCK] */
	float *bounds;
	uint32_t found_len;
	uint32_t *waiting;       /* [waiting_len]: rows whose vectors are on their way */
	float *waiting_bounds;
	uint32_t waiting_len, waiting_count;
	struct kx_ivf_hit *heap; /* [heap_len], the worst on top */
	uint32_t heap_len;
	uint8_t *cold;           /* entries of a cold cell */
	uint32_t cold_len;       /* in blocks */
	struct kx_buf loaded;
};

kx_status kx_ivf_scratch_new(struct kx_ivf_scratch **ret)
{
	size_t bytes = (sizeof(struct kx_ivf_scratch) + APART - 1) / APART * APART;
	struct kx_ivf_scratch *scratch = kx_fault("ann.scratch") ? NULL : aligned_alloc(APART, bytes);

	if (!scratch)
		return KX_ENOMEM;
	memset(scratch, 0, bytes);
	scratch->loaded.max = LOAD_MAX;
	*ret = scratch;
	return KX_OK;
}

void kx_ivf_scratch_free(struct kx_ivf_scratch *scratch)
{
	if (!scratch)
		return;
	kx_ivf_order_done(&scratch->order);
	free(scratch->rotated);
	free(scratch->lut);
	free(scratch->slots);
	free(scratch->masks);
	free(scratch->bounds);
	free(scratch->waiting);
	free(scratch->waiting_bounds);
	free(scratch->heap);
	free(scratch->cold);
	kx_buf_done(&scratch->loaded);
	free(scratch);
}

static bool again(void *array, size_t bytes)
{
	void *memory = kx_fault("ann.scratch") ? NULL : aligned_alloc(64, (bytes + 63) / 64 * 64);

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

/* Nobody waits. */
static kx_status reserve_waiting(struct kx_ivf_scratch *scratch, uint32_t count)
{
	if (count <= scratch->waiting_len)
		return KX_OK;
	scratch->waiting_len = 0;
	if (!again(&scratch->waiting, (size_t)count * 2 * sizeof(uint32_t)) ||
	    !again(&scratch->waiting_bounds, (size_t)count * 2 * sizeof(float)))
		return KX_ENOMEM;
	scratch->waiting_len = count * 2;
	return KX_OK;
}

static kx_status scratch_reserve(struct kx_ivf_scratch *scratch, const struct kx_ivf *ivf, uint32_t k)
{
	uint32_t padded = ivf->rotation.padded;

	if (scratch->padded < padded) {
		scratch->padded = 0;
		if (!again(&scratch->rotated, padded * sizeof(float)) || !again(&scratch->lut, (size_t)padded * 4))
			return KX_ENOMEM;
		scratch->padded = padded;
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
	struct kx_ivf_views *views; /* of the filter, if there is one */
	const struct kx_ivf_map *map; /* and where anything matches, if that is known */
	uint64_t seen, matched; /* entries of cells looked into, and those that match */
	float wider;     /* by what more effort is made */
	uint32_t barren; /* cells passed by because nothing in them matches */
	struct kx_ivf_lut lut;
	float norm2;    /* of the query */
	struct kx_ivf_how how;
	float nearest;  /* the least key of a centroid: half its square less its product */
	uint32_t passed; /* cells in a row that were not worth it */
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
	struct kx_ivf_place place;
	uint32_t count;
};

static kx_status load_cold(struct search *search, const struct kx_ivf_cell *cell, struct content *ret)
{
	struct kx_ivf_scratch *scratch = search->scratch;
	const struct kx_ivf *ivf = search->ivf;
	size_t entry_bytes = kx_ivf_entry_bytes(ivf), count, blocks;
	kx_status status;

	kx_buf_clear(&scratch->loaded);
	status = ivf->load(ivf->load_ctx, cell->id, &scratch->loaded, search->error);
	if (status)
		return status;
	if (scratch->loaded.len % entry_bytes)
		return kx_error_set(search->error, KX_ECORRUPT, KX_ERROR_FATAL,
				    "cell %u: %zu bytes are no entries of %zu", cell->id, scratch->loaded.len, entry_bytes);
	count = scratch->loaded.len / entry_bytes;
	blocks = (count + KX_IVF_BLOCK - 1) / KX_IVF_BLOCK;
	if (blocks > scratch->cold_len) {
		scratch->cold_len = 0;
		if (!again(&scratch->cold, kx_ivf_place_bytes(ivf, blocks * 2)))
			return kx_error_nomem(search->error);
		scratch->cold_len = (uint32_t)blocks * 2;
	}
	*ret = (struct content){kx_ivf_place_at(ivf, scratch->cold, scratch->cold_len), (uint32_t)count};
	kx_ivf_place_write(ivf, cell, &ret->place, 0, scratch->loaded.data, count);
	return KX_OK;
}

static kx_status content_of(struct search *search, const struct kx_ivf_cell *cell, struct content *ret)
{
	if (cell->cold)
		return load_cold(search, cell, ret);
	*ret = (struct content){cell->place, cell->count};
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

static void fetch(const void *at, size_t bytes)
{
	const uint8_t *end = (const uint8_t *)at + bytes;

	for (const uint8_t *line = (const uint8_t *)at - (uintptr_t)at % LINE; line < end; line += LINE)
		__builtin_prefetch(line, 0, 2);
}

static void fetch_vector(const struct search *search, uint32_t row)
{
	fetch(vector_of(search->ivf, row), search->ivf->recipe.dim * sizeof(uint16_t));
}

static void refine_waiting(struct search *search)
{
	struct kx_ivf_scratch *scratch = search->scratch;

	for (uint32_t i = 0; i < scratch->waiting_count; i++)
		if (scratch->waiting_bounds[i] >= least(search))
			refine(search, scratch->waiting[i]);
	scratch->waiting_count = 0;
}

static void wait_for(struct search *search, uint32_t row, float bound)
{
	struct kx_ivf_scratch *scratch = search->scratch;

	if (row == search->query->exclude)
		return;
	if (search->ivf->ahead)
		search->ivf->ahead(search->ivf->ahead_ctx, row);
	else
		fetch_vector(search, row);
	scratch->waiting[scratch->waiting_count] = row;
	scratch->waiting_bounds[scratch->waiting_count++] = bound;
}

/* A cell that is looked at now, and what its surroundings say. */
struct visit {
	const struct kx_ivf_cell *cell;
	const struct kx_ivf_cell *next; /* is probably looked at next; NULL: nobody knows */
	float product;                  /* of the query and the centroid */
	float distance;                 /* between them */
};

static float distance_to(const struct search *search, const struct kx_ivf_cell *cell, float product)
{
	float distance2 = search->norm2 + cell->norm2 - 2.0f * product;

	return distance2 > 0.0f ? sqrtf(distance2) : 0.0f;
}

/* What is found of a cell: by the leading part of its codes, then by all of them. */
struct finding {
	const struct content *content;
	float product;
	float lead_slack, slack; /* what is added to estimates for their errors */
	uint32_t count;
};

/* The bound by all of a code from that by its leading part, whose sum is taken out of it. */
static float bound_by_all(const struct search *search, const struct finding *finding, uint32_t slot, float bound)
{
	const struct kx_ivf *ivf = search->ivf;
	const uint8_t *tail = finding->content->place.tails + slot * kx_ivf_tail_bytes(ivf);
	const uint8_t *block = finding->content->place.blocks + slot / KX_IVF_BLOCK * kx_ivf_lead_block_bytes(ivf);
	const uint16_t *factors = (const uint16_t *)(const void *)block + slot % KX_IVF_BLOCK;
	float mul = kx_ivf_factor(factors[KX_IVF_BLOCK]);
	float sum = mul > 0.0f ? (bound - kx_ivf_factor(factors[0])) / mul - finding->lead_slack : 0.0f;
	struct kx_ivf_tail start;

	memcpy(&start, tail, sizeof(start));
	sum += ivf->kernels->signed_sum(tail + sizeof(start), search->scratch->rotated + ivf->lead,
					ivf->rotation.padded - ivf->lead);
	return finding->product + start.add + start.mul * (sum + finding->slack);
}

/* To the front what is a deviation better than the mean: of many, about the best sixth, without a branch that nobody can
 * foresee. Returns how many. */
static uint32_t gather_good(struct kx_ivf_scratch *scratch, uint32_t count)
{
	float sum = 0.0f, squares = 0.0f, mean, enough;
	uint32_t good = 0;

	for (uint32_t i = 0; i < count; i++) {
		sum += scratch->bounds[i];
		squares += scratch->bounds[i] * scratch->bounds[i];
	}
	mean = sum / (float)count;
	squares = squares / (float)count - mean * mean;
	enough = mean + sqrtf(squares > 0.0f ? squares : 0.0f);
	for (uint32_t i = 0; i < count; i++) {
		float bound = scratch->bounds[i];
		uint32_t slot = scratch->slots[i];

		scratch->bounds[i] = scratch->bounds[good];
		scratch->slots[i] = scratch->slots[good];
		scratch->bounds[good] = bound;
		scratch->slots[good] = slot;
		good += bound >= enough;
	}
	return good;
}

static void fetch_tails(const struct search *search, const struct finding *finding, uint32_t from, uint32_t to)
{
	const size_t tail_bytes = kx_ivf_tail_bytes(search->ivf);

	for (uint32_t i = from; i < to; i++) {
		const uint8_t *tail = finding->content->place.tails + search->scratch->slots[i] * tail_bytes;

		__builtin_prefetch(tail);
		__builtin_prefetch(tail + tail_bytes - 1);
		__builtin_prefetch(&finding->content->place.rows[search->scratch->slots[i]]);
	}
}

/* Until there are k, all would pass: the best by their bounds first, which tell how good one has to be. Returns how many
 * were dealt with. */
static uint32_t take_first(struct search *search, const struct finding *finding)
{
	struct kx_ivf_scratch *scratch = search->scratch;
	uint32_t first = search->query->k - search->count, some = finding->count, good;

	first = first < finding->count ? first : finding->count;
	if (first < finding->count / LEAD_FIRST) {
		good = gather_good(scratch, finding->count);
		some = first * LEAD_FIRST;
		if (good < first || good > some)
			select_best(scratch->slots, scratch->bounds, good < first ? finding->count : good, some);
		else
			some = good;
	}
	fetch_tails(search, finding, 0, some);
	for (uint32_t i = 0; i < some; i++)
		scratch->bounds[i] = bound_by_all(search, finding, scratch->slots[i], scratch->bounds[i]);
	select_best(scratch->slots, scratch->bounds, some, first);
	for (uint32_t i = 0; i < some; i++) {
		if (i == first)
			refine_waiting(search);
		if (scratch->bounds[i] >= least(search))
			wait_for(search, finding->content->place.rows[scratch->slots[i]], scratch->bounds[i]);
	}
	refine_waiting(search);
	return some;
}

/* Those from `from` on that still pass, to the place from `from` on; what is needed of them is on its way. */
static void narrow(const struct search *search, struct finding *finding, uint32_t from)
{
	struct kx_ivf_scratch *scratch = search->scratch;
	float floor = least(search) - finding->product;
	uint32_t to = from;

	for (uint32_t i = from; i < finding->count; i++) {
		scratch->bounds[to] = scratch->bounds[i];
		scratch->slots[to] = scratch->slots[i];
		to += scratch->bounds[i] >= floor;
	}
	finding->count = to;
	fetch_tails(search, finding, from, to);
}

/* Vectors of those that pass are asked for now and looked at later. */
static void take_found(struct search *search, struct finding *finding)
{
	const struct kx_ivf_scratch *scratch = search->scratch;
	uint32_t from = 0;

	if (search->count < search->query->k) {
		refine_waiting(search);
		from = take_first(search, finding);
	}
	narrow(search, finding, from);
	refine_waiting(search);
	for (uint32_t i = from; i < finding->count; i++) {
		uint32_t slot = scratch->slots[i];
		float bound = bound_by_all(search, finding, slot, scratch->bounds[i]);

		if (bound >= least(search))
			wait_for(search, finding->content->place.rows[slot], bound);
	}
}

static void scan(struct search *search, const struct visit *visit, const struct content *content, const uint32_t *masks)
{
	struct kx_ivf_scratch *scratch = search->scratch;
	float deviation = sqrtf(visit->distance * visit->distance + search->lut.variance);
	struct finding finding = {
		.content = content,
		.product = visit->product,
		.lead_slack = (search->how.epsilon + LEAD_EPSILON) * LEAD_DEVIATION * deviation,
		.slack = search->how.epsilon * CODE_DEVIATION * deviation,
	};
	struct kx_ivf_scan scan = {
		.lut = scratch->lut,
		.code_bytes = search->ivf->lead / 8,
		.scale = search->lut.scale,
		.offset = search->lut.offset + finding.lead_slack,
		.floor = least(search) - visit->product,
		.next = visit->next ? visit->next->place.blocks : NULL,
	};

	search->work.codes += content->count;
	finding.count = search->ivf->kernels->scan(&scan, content->place.blocks, content->count, masks,
						   (struct kx_ivf_found){scratch->slots, scratch->bounds});
	take_found(search, &finding);
}

/* Those that match are so few that they are compared without being estimated. */
static void take_named(struct search *search, const struct kx_ivf_view *view)
{
	refine_waiting(search);
	for (uint32_t i = 0; i < view->count; i++)
		wait_for(search, view->words[i], INFINITY);
}

/* The fewer of the entries around match, the farther the best are spread over cells: by a power of their share, which is
 * measured (ivf_tune.c). What the filter keeps of the whole index stands for the first few. */
static void note_share(struct search *search, const struct kx_ivf_cell *cell, uint32_t matches)
{
	double all = (double)kx_ivf_filter_matches(search->query->filter) / (double)(search->ivf->entry_count + 1);
	double share;

	search->seen += cell->count;
	search->matched += matches;
	if (search->work.cells % SHARE_CELLS)
		return;
	share = ((double)search->matched + SHARE_PRIOR * all) / ((double)search->seen + SHARE_PRIOR);
	search->wider = share < 1.0 ? powf((float)share, -search->how.spread) : 1.0f;
}

static kx_status look_into(struct search *search, const struct visit *visit)
{
	struct kx_ivf_scratch *scratch = search->scratch;
	const struct kx_ivf_filter *filter = search->query->filter;
	const struct kx_ivf_view *view = NULL;
	const uint32_t *masks = NULL;
	struct content content;
	kx_status status;

	if (search->views && !visit->cell->cold)
		view = kx_ivf_view_of(search->views, search->ivf, (uint32_t)(visit->cell - search->ivf->cells));
	if (view && !view->count) {
		search->barren++;
		return KX_OK;
	}
	status = content_of(search, visit->cell, &content);
	if (status)
		return status;
	if (filter)
		note_share(search, visit->cell, view ? view->count : visit->cell->count);
	if (view && kx_ivf_view_copy(view, search->ivf, &content.place)) {
		content.count = view->count;
		filter = NULL;
	}
	if (reserve_found(scratch, content.count))
		return kx_error_nomem(search->error);
	/* The room of those that wait is taken while nobody does. */
	if (content.count > scratch->waiting_len) {
		refine_waiting(search);
		if (reserve_waiting(scratch, content.count))
			return kx_error_nomem(search->error);
	}
	if (filter && view && view->named) {
		search->work.cells++;
		take_named(search, view);
		return KX_OK;
	}
	if (filter && !view && !kx_ivf_filter_masks(filter, content.place.rows, content.count, scratch->masks))
		return KX_OK;
	if (filter)
		masks = view ? view->words : scratch->masks;
	search->work.cells++;
	scan(search, visit, &content, masks);
	/* What a cold cell holds is written over by the next. */
	if (visit->cell->cold)
		refine_waiting(search);
	return KX_OK;
}

/* How many deviations of a cell's vectors from its centroid the worst that is kept lies beyond it, in the query's
 * direction, is what tells by inner product whether a cell is worth it. */
static bool is_worth_by_product(const struct search *search, const struct visit *visit)
{
	const struct kx_ivf_cell *cell = visit->cell;
	float spread;

	if (!cell->count)
		return cell->cold;
	spread = visit->distance * (float)(cell->mul_sum / cell->count);
	return least(search) - visit->product <= search->how.effort * search->wider * PRODUCT_REACH * spread;
}

/* By distance, how much farther a cell's centroid is than the nearest one, in squares of the distance of the worst that
 * is kept: the reach of the ball that holds the best grows and shrinks with the data around the query. The more cells
 * were looked into, the less: measured on clustered and on unclustered data, the fourth root of their number needs fewer
 * cells for a recall than either test alone. */
static bool is_worth_by_distance(struct search *search, const struct visit *visit)
{
	float key = NORM_WEIGHT * visit->cell->norm2 / 2 - visit->product;
	float radius2 = search->norm2 + 1.0f - 2.0f * least(search);
	float reach = radius2 > 0.0f ? search->how.effort * search->wider * radius2 : 0.0f;
	float beyond;

	search->nearest = key < search->nearest ? key : search->nearest;
	beyond = key - search->nearest;
	return beyond * beyond * beyond * beyond * (float)search->work.cells <= reach * reach * reach * reach;
}

static bool is_worth(struct search *search, const struct visit *visit)
{
	bool by_distance = search->ivf->recipe.metric == KX_METRIC_COSINE;
	bool worth = by_distance ? is_worth_by_distance(search, visit) : is_worth_by_product(search, visit);

	return worth || search->count < search->query->k;
}

/* Compares rows that nobody has asked for yet: so many ahead that each comes in time. */
static void refine_listed(struct search *search)
{
	struct kx_ivf_scratch *scratch = search->scratch;

	for (uint32_t i = 0; i < scratch->waiting_count && i < AHEAD; i++)
		fetch_vector(search, scratch->waiting[i]);
	for (uint32_t i = 0; i < scratch->waiting_count; i++) {
		if (i + AHEAD < scratch->waiting_count)
			fetch_vector(search, scratch->waiting[i + AHEAD]);
		refine(search, scratch->waiting[i]);
	}
	scratch->waiting_count = 0;
}

/* Everything that may be found is compared by its vector. */
static kx_status compare_all(struct search *search)
{
	const struct kx_ivf *ivf = search->ivf;
	struct kx_ivf_scratch *scratch = search->scratch;
	size_t words = ivf->present_words, filter_words = 0;
	const uint64_t *filter =
		search->query->filter ? kx_ivf_filter_words(search->query->filter, &filter_words) : NULL;

	scratch->waiting_count = 0;
	if (reserve_waiting(scratch, LISTED + 64))
		return kx_error_nomem(search->error);
	words = filter && filter_words < words ? filter_words : words;
	for (size_t i = 0; i < words; i++) {
		uint64_t word = ivf->present[i] & (filter ? filter[i] : UINT64_MAX);

		for (; word; word &= word - 1) {
			uint32_t row = (uint32_t)(i * 64) + (uint32_t)__builtin_ctzll(word);

			if (row != search->query->exclude)
				scratch->waiting[scratch->waiting_count++] = row;
		}
		if (scratch->waiting_count >= LISTED)
			refine_listed(search);
	}
	refine_listed(search);
	return KX_OK;
}

static kx_status compare_cold(struct search *search)
{
	for (uint32_t slot = 0; slot < search->ivf->slot_count; slot++) {
		const struct kx_ivf_cell *cell = &search->ivf->cells[slot];
		struct content content = {0};
		kx_status status;

		if (cell->id == KX_IVF_NO_CELL || !cell->cold)
			continue;
		status = load_cold(search, cell, &content);
		if (status)
			return status;
		for (uint32_t i = 0; i < content.count; i++)
			if (may_be_found(search->query, content.place.rows[i]))
				refine(search, content.place.rows[i]);
	}
	return KX_OK;
}

static kx_status search_all(struct search *search)
{
	kx_status status;

	search->work.exact = true;
	search->work.cells = search->ivf->cell_count;
	status = compare_all(search);
	return status || !search->ivf->cold_count ? status : compare_cold(search);
}

static struct visit visit_of(const struct search *search, uint32_t count, uint32_t at)
{
	const struct kx_ivf *ivf = search->ivf;
	const struct kx_ivf_order *order = &search->scratch->order;
	uint32_t lane = (uint32_t)order->numbers[at];
	struct visit visit = {.cell = &ivf->cells[ivf->centroids.lanes.number[lane]], .product = order->products[lane]};

	visit.distance = distance_to(search, visit.cell, visit.product);
	if (at + 1 < count)
		visit.next = &ivf->cells[ivf->centroids.lanes.number[(uint32_t)order->numbers[at + 1]]];
	if (visit.next && !visit.next->count)
		visit.next = NULL;
	return visit;
}

/* Cells are met in no order of memory: what is known of those that come next is asked for ahead. */
static void fetch_cell(const struct search *search, uint32_t at)
{
	const struct kx_ivf *ivf = search->ivf;

	uint32_t slot = ivf->centroids.lanes.number[(uint32_t)search->scratch->order.numbers[at]];

	__builtin_prefetch(&ivf->cells[slot]);
	if (search->views)
		kx_ivf_view_fetch(search->views, slot);
}

static void fetch_copy(const struct search *search, uint32_t at)
{
	const struct kx_ivf *ivf = search->ivf;

	kx_ivf_view_fetch_copy(search->views, ivf,
			       ivf->centroids.lanes.number[(uint32_t)search->scratch->order.numbers[at]]);
}

/* Cells of a batch. */
static kx_status look_into_all(struct search *search, uint32_t count, bool *ret_enough)
{
	*ret_enough = false;
	for (uint32_t i = 0; i < count && i < CELLS_AHEAD; i++)
		fetch_cell(search, i);
	for (uint32_t i = 0; i < count; i++) {
		struct visit visit = visit_of(search, count, i);
		kx_status status;

		if (i + CELLS_AHEAD < count)
			fetch_cell(search, i + CELLS_AHEAD);
		if (search->views && i + COPIES_AHEAD < count)
			fetch_copy(search, i + COPIES_AHEAD);
		if (!is_worth(search, &visit)) {
			*ret_enough = ++search->passed >= PATIENCE;
			if (*ret_enough)
				break;
			continue;
		}
		search->passed = 0;
		status = look_into(search, &visit);
		if (status)
			return status;
	}
	return KX_OK;
}

static kx_status search_cells(struct search *search)
{
	const struct kx_ivf *ivf = search->ivf;
	struct kx_ivf_scratch *scratch = search->scratch;
	kx_status status;
	bool enough = false;
	uint32_t count;

	kx_ivf_rotate(&ivf->rotation, ivf->kernels, search->query->vector, scratch->rotated);
	kx_ivf_lut_make(scratch->rotated, ivf->lead, ivf->kernels, scratch->lut, &search->lut);
	for (uint32_t i = 0; i < ivf->rotation.padded; i++)
		search->norm2 += scratch->rotated[i] * scratch->rotated[i];
	scratch->waiting_count = 0;
	search->nearest = INFINITY;
	status = kx_ivf_order_start(&scratch->order, &ivf->centroids, ivf->kernels, scratch->rotated,
				    search->ivf->recipe.metric == KX_METRIC_COSINE ? NORM_WEIGHT : NO_WEIGHT, false);
	if (status)
		return kx_error_nomem(search->error);
	if (search->map && search->map->sparse)
		kx_ivf_order_only(&scratch->order, search->map->lanes, search->map->cells);
	while (!status && !enough && (count = kx_ivf_order_next(&scratch->order)) > 0)
		status = look_into_all(search, count, &enough);
	if (!status)
		refine_waiting(search);
	return status;
}

static int by_score(const void *a, const void *b)
{
	return is_better(a, b) ? -1 : 1;
}

/* Whether those that match are compared one by one. */
static bool is_direct(struct search *search)
{
	const struct kx_ivf_filter *filter = search->query->filter;
	uint64_t matches;

	if (search->how.effort <= 0.0f || !filter)
		return search->how.effort <= 0.0f;
	matches = kx_ivf_filter_matches(filter);
	if (matches <= DIRECT_LEAST && !search->ivf->cold_count)
		return true;
	search->views = kx_ivf_filter_views(filter, search->ivf);
	search->map = search->views ? kx_ivf_filter_map(search->views, search->ivf) : NULL;
	if (search->ivf->cold_count || matches > DIRECT_MATCHES)
		return false;
	return !search->map || (double)matches <= DIRECT_LEAST + DIRECT_CELL * search->map->crowd;
}

kx_status kx_ivf_search_with(const struct kx_ivf *ivf, const struct kx_ivf_query *query, const struct kx_ivf_how *how,
			     struct kx_ivf_scratch *scratch, struct kx_ivf_hit *ret, uint32_t *ret_count,
			     struct kx_ivf_work *work, struct kx_error *error)
{
	struct search search = {.ivf = ivf, .query = query, .scratch = scratch, .error = error,
				.how = *how, .wider = 1.0f};
	kx_status status = KX_OK;
	bool direct;

	if (ivf->unplaced)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "cells were changed and not made ready");
	if (!ivf->vectors && (ivf->entry_count || ivf->cold_count))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "the index has no vectors");
	if (scratch_reserve(scratch, ivf, query->k))
		return kx_error_nomem(error);
	direct = is_direct(&search);
	if (query->k)
		status = direct ? search_all(&search) : search_cells(&search);
	if (status)
		return status;
	if (search.views && !search.map)
		kx_ivf_filter_spent(search.views, direct ? search.work.refined + 1 : search.barren + 1);
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
	struct kx_ivf_how how;

	if (!(query->recall > 0.0 && query->recall <= 1.0))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "a recall of %g: more than 0 and at most 1 can be",
				    query->recall);
	how = kx_ivf_how_of(&ivf->tuning, query->recall);
	return kx_ivf_search_with(ivf, query, &how, scratch, ret, ret_count, work, error);
}

kx_status kx_ivf_search_many(const struct kx_ivf *ivf, const struct kx_ivf_query *queries, size_t n,
			     struct kx_ivf_scratch *scratch, struct kx_ivf_answer *ret, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (size_t i = 0; !status && i < n; i++)
		status = kx_ivf_search(ivf, &queries[i], scratch, ret[i].hits, &ret[i].count, &ret[i].work, error);
	return status;
}
