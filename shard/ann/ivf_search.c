/* The way of a query: the table of its codes, its nearest cells, what passes the bound there, and that by its vector. */
#include "shard/ann/ivf_search.h"

#define DIRECT_MATCHES 5000u  /* so few are compared one by one, unless */
#define DIRECT_LEAST 300u     /* there are more than so many, */
#define DIRECT_CELL 6u        /* and so many more for each cell: they crowd in few cells, of which the nearer ones are enough */
#define PATIENCE 3u           /* cells not worth it one after another, after which no other is tried */
#define CELLS_AHEAD 8u
#define SHARE_PRIOR 30.0 /* entries */
#define SHARE_CELLS 4u   /* the share is looked at every so many */
#define COPIES_AHEAD 3u

void kx_ivf_refine(struct kx_ivf_search *search, uint32_t row)
{
	const struct kx_ivf *ivf = search->ivf;
	float score = ivf->kernels->dot(kx_ivf_vector_of(ivf, row), search->query->vector, ivf->recipe.dim);

	search->work.refined++;
	kx_ivf_keep(&search->best, (struct kx_ivf_hit){row, score});
}

static kx_status content_of(struct kx_ivf_search *search, const struct kx_ivf_cell *cell, struct kx_ivf_content *ret)
{
	if (cell->cold)
		return kx_ivf_load_cold(search, cell, ret);
	*ret = (struct kx_ivf_content){cell->place, cell->count};
	return KX_OK;
}

static void refine_waiting(struct kx_ivf_search *search)
{
	struct kx_ivf_scratch *scratch = search->scratch;

	for (uint32_t i = 0; i < scratch->waiting_count; i++)
		if (scratch->waiting_bounds[i] >= kx_ivf_least(&search->best))
			kx_ivf_refine(search, scratch->waiting[i]);
	scratch->waiting_count = 0;
}

static void wait_for(struct kx_ivf_search *search, uint32_t row, float bound)
{
	struct kx_ivf_scratch *scratch = search->scratch;

	if (row == search->query->exclude)
		return;
	if (search->ivf->ahead)
		search->ivf->ahead(search->ivf->ahead_ctx, row);
	else
		kx_ivf_fetch_vector(search->ivf, row);
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

static float distance_to(const struct kx_ivf_search *search, const struct kx_ivf_cell *cell, float product)
{
	float distance2 = search->norm2 + cell->norm2 - 2.0f * product;

	return distance2 > 0.0f ? sqrtf(distance2) : 0.0f;
}

/* What is found of a cell: by the leading part of its codes, then by all of them. */
struct finding {
	const struct kx_ivf_content *content;
	struct kx_ivf_slack slack;
	uint32_t count;
};

static void fetch_tails(const struct kx_ivf_search *search, const struct finding *finding, uint32_t from, uint32_t to)
{
	const size_t tail_bytes = kx_ivf_tail_bytes(search->ivf);

	for (uint32_t i = from; i < to; i++)
		kx_ivf_fetch_tail(&finding->content->place, tail_bytes, search->scratch->slots[i]);
}

static float bound_by_all(const struct kx_ivf_search *search, const struct finding *finding, uint32_t i)
{
	const struct kx_ivf_scratch *scratch = search->scratch;

	return kx_ivf_bound_by_all(search->ivf, &finding->content->place, &finding->slack, scratch->rotated + search->ivf->lead,
				   scratch->slots[i], scratch->bounds[i]);
}

/* Until there are k, all would pass: the best by their bounds first, which tell how good one has to be. Returns how many
 * were dealt with. */
static uint32_t take_first(struct kx_ivf_search *search, const struct finding *finding)
{
	struct kx_ivf_scratch *scratch = search->scratch;
	uint32_t first = search->best.k - search->best.count, some;

	first = first < finding->count ? first : finding->count;
	some = kx_ivf_foremost(scratch->slots, scratch->bounds, finding->count, first);
	fetch_tails(search, finding, 0, some);
	for (uint32_t i = 0; i < some; i++)
		scratch->bounds[i] = bound_by_all(search, finding, i);
	kx_ivf_select_best(scratch->slots, scratch->bounds, some, first);
	for (uint32_t i = 0; i < some; i++) {
		if (i == first)
			refine_waiting(search);
		if (scratch->bounds[i] >= kx_ivf_least(&search->best))
			wait_for(search, finding->content->place.rows[scratch->slots[i]], scratch->bounds[i]);
	}
	refine_waiting(search);
	return some;
}

/* Those from `from` on that still pass, to the place from `from` on; what is needed of them is on its way. */
static void narrow(const struct kx_ivf_search *search, struct finding *finding, uint32_t from)
{
	struct kx_ivf_scratch *scratch = search->scratch;
	float floor = kx_ivf_least(&search->best) - finding->slack.product;
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
static void take_found(struct kx_ivf_search *search, struct finding *finding)
{
	const struct kx_ivf_scratch *scratch = search->scratch;
	uint32_t from = 0;

	if (search->best.count < search->best.k) {
		refine_waiting(search);
		from = take_first(search, finding);
	}
	narrow(search, finding, from);
	refine_waiting(search);
	for (uint32_t i = from; i < finding->count; i++) {
		uint32_t slot = scratch->slots[i];
		float bound = bound_by_all(search, finding, i);

		if (bound >= kx_ivf_least(&search->best))
			wait_for(search, finding->content->place.rows[slot], bound);
	}
}

static void scan(struct kx_ivf_search *search, const struct visit *visit, const struct kx_ivf_content *content, const uint32_t *masks)
{
	struct kx_ivf_scratch *scratch = search->scratch;
	float deviation = sqrtf(visit->distance * visit->distance + search->lut.variance);
	struct finding finding = {
		.content = content,
		.slack = kx_ivf_slack_of(search->how.epsilon, deviation, visit->product),
	};
	struct kx_ivf_scan scan = {
		.lut = scratch->lut,
		.code_bytes = search->ivf->lead / 8,
		.scale = search->lut.scale,
		.offset = search->lut.offset + finding.slack.lead,
		.floor = kx_ivf_least(&search->best) - visit->product,
		.next = visit->next ? visit->next->place.blocks : NULL,
	};

	search->work.codes += content->count;
	finding.count = search->ivf->kernels->scan(&scan, content->place.blocks, content->count, masks,
						   (struct kx_ivf_found){scratch->slots, scratch->bounds});
	take_found(search, &finding);
}

/* Those that match are so few that they are compared without being estimated. */
static void take_named(struct kx_ivf_search *search, const struct kx_ivf_view *view)
{
	refine_waiting(search);
	for (uint32_t i = 0; i < view->count; i++)
		wait_for(search, view->words[i], INFINITY);
}

/* The fewer of the entries around match, the farther the best are spread over cells: by a power of their share, which is
 * measured (ivf_tune.c). What the filter keeps of the whole index stands for the first few. */
static void note_share(struct kx_ivf_search *search, const struct kx_ivf_cell *cell, uint32_t matches)
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

static kx_status look_into(struct kx_ivf_search *search, const struct visit *visit)
{
	struct kx_ivf_scratch *scratch = search->scratch;
	const struct kx_ivf_filter *filter = search->query->filter;
	const struct kx_ivf_view *view = NULL;
	const uint32_t *masks = NULL;
	struct kx_ivf_content content;
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
	if (kx_ivf_reserve_found(scratch, content.count))
		return kx_error_nomem(search->error);
	/* The room of those that wait is taken while nobody does. */
	if (content.count > scratch->waiting_len) {
		refine_waiting(search);
		if (kx_ivf_reserve_waiting(scratch, content.count))
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

static bool is_worth(struct kx_ivf_search *search, const struct visit *visit)
{
	const float key = kx_ivf_norm_weight(search->ivf) * visit->cell->norm2 / 2 - visit->product;
	const struct kx_ivf_judge judge = {search->ivf, search->norm2, search->how.effort * search->wider, search->work.cells,
					   &search->best};

	search->nearest = key < search->nearest ? key : search->nearest;
	return kx_ivf_is_worth(&judge, visit->cell, key - search->nearest, visit->product);
}

static struct visit visit_of(const struct kx_ivf_search *search, uint32_t count, uint32_t at)
{
	const struct kx_ivf *ivf = search->ivf;
	const struct kx_ivf_order *order = &search->scratch->order;
	uint32_t lane = (uint32_t)order->numbers[at];
	struct visit visit = {.cell = &ivf->cells[ivf->centroids.lanes.number[lane]], .product = kx_ivf_order_product(order, lane)};

	visit.distance = distance_to(search, visit.cell, visit.product);
	if (at + 1 < count)
		visit.next = &ivf->cells[ivf->centroids.lanes.number[(uint32_t)order->numbers[at + 1]]];
	if (visit.next && !visit.next->count)
		visit.next = NULL;
	return visit;
}

/* Cells are met in no order of memory: what is known of those that come next is asked for ahead. */
static void fetch_cell(const struct kx_ivf_search *search, uint32_t at)
{
	const struct kx_ivf *ivf = search->ivf;

	uint32_t slot = ivf->centroids.lanes.number[(uint32_t)search->scratch->order.numbers[at]];

	__builtin_prefetch(&ivf->cells[slot]);
	if (search->views)
		kx_ivf_view_fetch(search->views, slot);
}

static void fetch_copy(const struct kx_ivf_search *search, uint32_t at)
{
	const struct kx_ivf *ivf = search->ivf;

	kx_ivf_view_fetch_copy(search->views, ivf,
			       ivf->centroids.lanes.number[(uint32_t)search->scratch->order.numbers[at]]);
}

/* Cells of a batch. */
static kx_status look_into_all(struct kx_ivf_search *search, uint32_t count, bool *ret_enough)
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

static kx_status search_cells(struct kx_ivf_search *search)
{
	const struct kx_ivf *ivf = search->ivf;
	struct kx_ivf_scratch *scratch = search->scratch;
	kx_status status;
	bool enough = false;
	uint32_t count;

	if (search->given)
		memcpy(scratch->rotated, search->given->rotated, ivf->rotation.padded * sizeof(float));
	else
		kx_ivf_rotate(&ivf->rotation, ivf->kernels, search->query->vector, scratch->rotated);
	kx_ivf_lut_make(scratch->rotated, ivf->lead, ivf->kernels, scratch->lut, &search->lut);
	for (uint32_t i = 0; i < ivf->rotation.padded; i++)
		search->norm2 += scratch->rotated[i] * scratch->rotated[i];
	scratch->waiting_count = 0;
	search->nearest = INFINITY;
	if (search->given)
		status = kx_ivf_order_given(&scratch->order, &ivf->centroids, ivf->kernels, kx_ivf_norm_weight(ivf),
					    search->given->keys, search->given->least);
	else
		status = kx_ivf_order_start(&scratch->order, &ivf->centroids, ivf->kernels, scratch->rotated,
					    kx_ivf_norm_weight(ivf), false);
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

/* Whether those that match are compared one by one. */
static bool is_direct(struct kx_ivf_search *search)
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

static kx_status run(struct kx_ivf_search *search, struct kx_ivf_answer *ret)
{
	const struct kx_ivf *ivf = search->ivf;
	struct kx_ivf_scratch *scratch = search->scratch;
	kx_status status = KX_OK;
	bool direct;

	if (ivf->unplaced)
		return kx_error_set(search->error, KX_EINVAL, KX_ERROR_FATAL, "cells were changed and not made ready");
	if (!ivf->vectors && (ivf->entry_count || ivf->cold_count))
		return kx_error_set(search->error, KX_EINVAL, KX_ERROR_FATAL, "the index has no vectors");
	if (kx_ivf_scratch_reserve(scratch, ivf, search->query->k))
		return kx_error_nomem(search->error);
	search->best = (struct kx_ivf_best){.hits = scratch->heap, .k = search->query->k};
	search->wider = 1.0f;
	direct = is_direct(search);
	if (search->query->k)
		status = direct ? kx_ivf_compare(search) : search_cells(search);
	if (status)
		return status;
	if (search->views && !search->map)
		kx_ivf_filter_spent(search->views, direct ? search->work.refined + 1 : search->barren + 1);
	kx_ivf_best_sort(&search->best);
	if (search->best.count)
		memcpy(ret->hits, scratch->heap, search->best.count * sizeof(*ret->hits));
	ret->count = search->best.count;
	ret->work = search->work;
	return KX_OK;
}

kx_status kx_ivf_search_with(const struct kx_ivf *ivf, const struct kx_ivf_query *query, const struct kx_ivf_how *how,
			     struct kx_ivf_scratch *scratch, struct kx_ivf_hit *ret, uint32_t *ret_count,
			     struct kx_ivf_work *work, struct kx_error *error)
{
	struct kx_ivf_search search = {.ivf = ivf, .query = query, .scratch = scratch, .error = error, .how = *how};
	struct kx_ivf_answer answer = {.hits = ret};
	kx_status status = run(&search, &answer);

	if (status)
		return status;
	*ret_count = answer.count;
	if (work)
		*work = answer.work;
	return KX_OK;
}

static kx_status how_of(const struct kx_ivf *ivf, const struct kx_ivf_query *query, struct kx_ivf_how *ret, struct kx_error *error)
{
	if (!(query->recall > 0.0 && query->recall <= 1.0))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "a recall of %g: more than 0 and at most 1 can be",
				    query->recall);
	*ret = kx_ivf_how_of(&ivf->tuning, query->recall);
	return KX_OK;
}

kx_status kx_ivf_search_given(const struct kx_ivf *ivf, const struct kx_ivf_query *query, const struct kx_ivf_given *given,
			      struct kx_ivf_scratch *scratch, struct kx_ivf_answer *ret, struct kx_error *error)
{
	struct kx_ivf_search search = {.ivf = ivf, .query = query, .given = given, .scratch = scratch, .error = error};
	kx_status status = how_of(ivf, query, &search.how, error);

	return status ? status : run(&search, ret);
}

kx_status kx_ivf_search(const struct kx_ivf *ivf, const struct kx_ivf_query *query, struct kx_ivf_scratch *scratch,
			struct kx_ivf_hit *ret, uint32_t *ret_count, struct kx_ivf_work *work, struct kx_error *error)
{
	struct kx_ivf_how how;
	kx_status status = how_of(ivf, query, &how, error);

	return status ? status : kx_ivf_search_with(ivf, query, &how, scratch, ret, ret_count, work, error);
}
