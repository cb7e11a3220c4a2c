/* What cells have for many queries: those that pass by the leading part of a code, by all of it, then by their vectors. Each step waits
 * for memory, which is asked for while others are at theirs. */
#include "shard/ann/ivf_batch.h"

#define SOME_LEAST 4u                   /* queries for which codes are worth being spread */
#define PIECE_BYTES ((size_t)12 << 10) /* of a cell, spread: so that it stays in the first level */
#define APART 16u                       /* slots between rooms, which would lie in the same sets of the first level otherwise */
#define ROOM_MOST ((size_t)1 << 20)    /* slots of what is looked at at a time, but for one cell */

/* --- Vectors -------------------------------------------------------------------------------------------------- */

static void compare_oldest(struct kx_ivf_batch *batch)
{
	const struct kx_ivf *ivf = batch->ivf;
	const struct kx_ivf_coming *coming = &batch->coming[batch->first_coming++ % KX_IVF_AHEAD];
	struct kx_ivf_one *one = &batch->ones[coming->one];
	float score;

	batch->coming_count--;
	if (coming->bound < kx_ivf_least(&one->best))
		return;
	score = ivf->kernels->dot(kx_ivf_vector_of(ivf, coming->row), one->query->vector, ivf->recipe.dim);
	one->work->refined++;
	kx_ivf_keep(&one->best, (struct kx_ivf_hit){coming->row, score});
}

static void compare_all(struct kx_ivf_batch *batch)
{
	while (batch->coming_count)
		compare_oldest(batch);
}

static void wait_for(struct kx_ivf_batch *batch, const struct kx_ivf_finding *finding, uint32_t row, float bound)
{
	if (row == finding->one->query->exclude)
		return;
	if (batch->coming_count == KX_IVF_AHEAD)
		compare_oldest(batch);
	if (batch->ivf->ahead)
		batch->ivf->ahead(batch->ivf->ahead_ctx, row);
	else
		kx_ivf_fetch_vector(batch->ivf, row);
	batch->coming[(batch->first_coming + batch->coming_count++) % KX_IVF_AHEAD] =
		(struct kx_ivf_coming){finding->number, row, bound};
}

/* --- Codes ---------------------------------------------------------------------------------------------------- */

static void fetch_tails(const struct kx_ivf_batch *batch, const struct kx_ivf_finding *finding, uint32_t from, uint32_t to)
{
	const size_t tail_bytes = kx_ivf_tail_bytes(batch->ivf);

	for (uint32_t i = from; i < to; i++)
		kx_ivf_fetch_tail(&finding->cell->place, tail_bytes, finding->slots[i]);
}

static float bound_by_all(const struct kx_ivf_batch *batch, const struct kx_ivf_finding *finding, uint32_t i)
{
	const struct kx_ivf *ivf = batch->ivf;
	const float *rest = batch->rest + (size_t)finding->number * (ivf->rotation.padded - ivf->lead);

	return kx_ivf_bound_by_all(ivf, &finding->cell->place, &finding->slack, rest, finding->slots[i], finding->bounds[i]);
}

static void take_found(struct kx_ivf_batch *batch, const struct kx_ivf_finding *finding)
{
	const struct kx_ivf_best *best = &finding->one->best;

	for (uint32_t i = finding->some; i < finding->count; i++) {
		float bound;

		if (finding->bounds[i] < kx_ivf_least(best) - finding->slack.product)
			continue;
		bound = bound_by_all(batch, finding, i);
		if (bound >= kx_ivf_least(best))
			wait_for(batch, finding, finding->cell->place.rows[finding->slots[i]], bound);
	}
}

static void take_all(struct kx_ivf_batch *batch, struct kx_ivf_look *look)
{
	for (uint32_t i = 0; i < look->count; i++)
		take_found(batch, &look->findings[i]);
	look->count = 0;
	look->used = 0;
}

/* The errors of estimates are those of the codes and of the query's rounding, which the variance is of. */
static struct kx_ivf_slack slack_of(const struct kx_ivf_one *one, const struct kx_ivf_cell *cell, float product, float variance)
{
	float distance2 = one->norm2 + cell->norm2 - 2.0f * product;

	return kx_ivf_slack_of(one->how.epsilon, sqrtf((distance2 > 0.0f ? distance2 : 0.0f) + variance), product);
}

static uint32_t room_of(uint32_t count)
{
	return (count + KX_IVF_BLOCK - 1) / KX_IVF_BLOCK * KX_IVF_BLOCK;
}

static struct kx_ivf_finding *add_finding(struct kx_ivf_batch *batch, struct kx_ivf_look *look, const struct kx_ivf_cell *cell,
					  const struct kx_ivf_wish *wish, bool by_table)
{
	struct kx_ivf_finding *finding = &look->findings[look->count++];
	struct kx_ivf_one *one = &batch->ones[wish->one];

	*finding = (struct kx_ivf_finding){
		.one = one,
		.number = wish->one,
		.cell = cell,
		.slack = slack_of(one, cell, wish->product, by_table ? one->lut.variance : one->eighth.variance),
		.slots = (uint32_t *)look->slots.data + look->used,
		.bounds = (float *)look->bounds.data + look->used,
	};
	look->used += room_of(cell->count) + APART;
	return finding;
}

static bool reserve_look(struct kx_ivf_look *look, size_t slots)
{
	return kx_ivf_room(&look->slots, slots * sizeof(uint32_t)) && kx_ivf_room(&look->bounds, slots * sizeof(float));
}

static void scan_by_table(struct kx_ivf_batch *batch, struct kx_ivf_finding *finding, const struct kx_ivf_cell *next)
{
	const struct kx_ivf *ivf = batch->ivf;
	const struct kx_ivf_one *one = finding->one;
	const struct kx_ivf_scan scan = {
		.lut = batch->luts + (size_t)finding->number * ivf->lead * 4,
		.code_bytes = ivf->lead / 8,
		.scale = one->lut.scale,
		.offset = one->lut.offset + finding->slack.lead,
		.floor = kx_ivf_least(&one->best) - finding->slack.product,
		.next = next && next->count ? next->place.blocks : NULL,
	};

	finding->count = ivf->kernels->scan(&scan, finding->cell->place.blocks, finding->cell->count, NULL,
					    (struct kx_ivf_found){finding->slots, finding->bounds});
}

static void gather_codes(const struct kx_ivf_batch *batch, const struct kx_ivf_look *look, int8_t *ret)
{
	const uint32_t padded = batch->ivf->rotation.padded, dim = kx_ivf_spread_dim(batch->ivf->lead / 8);

	for (uint32_t i = 0; i < look->count; i++)
		memcpy(ret + (size_t)i * dim, batch->codes + (size_t)look->findings[i].number * padded, dim);
}

/* How many slots are spread at a time. */
static uint32_t piece_of(const struct kx_ivf *ivf)
{
	const size_t bytes = kx_ivf_spread_bytes(ivf->lead / 8);

	return (uint32_t)(bytes < PIECE_BYTES ? PIECE_BYTES / bytes : 1) * KX_IVF_BLOCK;
}

/* What is spread after the piece from `first` on. */
static void fetch_piece(const struct kx_ivf *ivf, const struct kx_ivf_cell *cell, uint32_t first, uint32_t piece)
{
	const uint32_t count = cell->count - first < piece ? cell->count - first : piece;

	kx_ivf_fetch(cell->place.blocks + first / KX_IVF_BLOCK * kx_ivf_lead_block_bytes(ivf),
		     room_of(count) / KX_IVF_BLOCK * kx_ivf_lead_block_bytes(ivf));
}

static void scan_spread(struct kx_ivf_batch *batch, struct kx_ivf_look *look, const struct kx_ivf_cell *cell,
			const struct kx_ivf_cell *next)
{
	const struct kx_ivf *ivf = batch->ivf;
	const uint32_t code_bytes = ivf->lead / 8;
	const uint32_t piece = piece_of(ivf);
	struct kx_ivf_scan_one ones[KX_IVF_TOGETHER];
	struct kx_ivf_scan_some some = {
		.spread = batch->spread.data,
		.code_bytes = code_bytes,
		.codes = batch->gathered.data,
		.n = look->count,
		.ones = ones,
	};

	for (uint32_t i = 0; i < look->count; i++) {
		const struct kx_ivf_finding *finding = &look->findings[i];
		const struct kx_ivf_one *one = finding->one;

		ones[i] = (struct kx_ivf_scan_one){one->eighth.scale, one->eighth.offset + finding->slack.lead,
						   kx_ivf_least(&one->best) - finding->slack.product, 0,
						   {finding->slots, finding->bounds}};
	}
	gather_codes(batch, look, batch->gathered.data);
	for (some.first = 0; some.first < cell->count; some.first += piece) {
		some.count = cell->count - some.first < piece ? cell->count - some.first : piece;
		some.blocks = cell->place.blocks + some.first / KX_IVF_BLOCK * kx_ivf_block_bytes(code_bytes);
		ivf->kernels->spread(some.blocks, code_bytes, some.count, batch->spread.data);
		if (some.first + piece < cell->count)
			fetch_piece(ivf, cell, some.first + piece, piece);
		else if (next)
			fetch_piece(ivf, next, 0, piece);
		ivf->kernels->scan_some(&some);
	}
	for (uint32_t i = 0; i < look->count; i++)
		look->findings[i].count = ones[i].count;
}

static bool reserve_spread(struct kx_ivf_batch *batch)
{
	const uint32_t dim = kx_ivf_spread_dim(batch->ivf->lead / 8);

	return kx_ivf_room(&batch->spread, piece_of(batch->ivf) / KX_IVF_BLOCK * kx_ivf_spread_bytes(batch->ivf->lead / 8)) &&
	       kx_ivf_room(&batch->gathered, (size_t)(KX_IVF_TOGETHER + KX_IVF_SOME) * dim);
}

static kx_status look_together(struct kx_ivf_batch *batch, const struct kx_ivf_cell *cell, const struct kx_ivf_wish *wishes,
			       uint32_t count, const struct kx_ivf_cell *next)
{
	struct kx_ivf_look *look = &batch->looks[batch->turn++ % 2];
	const bool by_table = count < SOME_LEAST || !batch->ivf->kernels->scan_some;

	if (!reserve_look(look, ((size_t)room_of(cell->count) + APART) * count) || (!by_table && !reserve_spread(batch)))
		return KX_ENOMEM;
	for (uint32_t i = 0; i < count; i++)
		(void)add_finding(batch, look, cell, &wishes[i], by_table);
	for (uint32_t i = 0; by_table && i < count; i++)
		scan_by_table(batch, &look->findings[i], i + 1 == count ? next : NULL);
	if (!by_table)
		scan_spread(batch, look, cell, next);
	for (uint32_t i = 0; i < count; i++) {
		fetch_tails(batch, &look->findings[i], 0, look->findings[i].count);
		look->findings[i].one->work->codes += cell->count;
	}
	take_all(batch, &batch->looks[batch->turn % 2]);
	return KX_OK;
}

kx_status kx_ivf_look_into(struct kx_ivf_batch *batch, const struct kx_ivf_cell *cell, const struct kx_ivf_wish *wishes,
			   size_t count, const struct kx_ivf_cell *next)
{
	const size_t fit = ROOM_MOST / (room_of(cell->count) + 1) + 1, most = fit < KX_IVF_TOGETHER ? fit : KX_IVF_TOGETHER;
	kx_status status = KX_OK;

	for (size_t i = 0; !status && cell->count && i < count; i += most) {
		uint32_t some = (uint32_t)(count - i < most ? count - i : most);

		status = look_together(batch, cell, wishes + i, some, i + some == count ? next : NULL);
	}
	return status;
}

void kx_ivf_look_end(struct kx_ivf_batch *batch)
{
	take_all(batch, &batch->looks[batch->turn % 2]);
	take_all(batch, &batch->looks[(batch->turn + 1) % 2]);
	compare_all(batch);
}

/* --- First cells ---------------------------------------------------------------------------------------------- */

/* Until there are k, all pass. */
static void take_foremost(struct kx_ivf_batch *batch, struct kx_ivf_finding *finding)
{
	for (uint32_t i = 0; i < finding->some; i++)
		finding->bounds[i] = bound_by_all(batch, finding, i);
	kx_ivf_select_best(finding->slots, finding->bounds, finding->some, finding->first);
	for (uint32_t i = 0; i < finding->first; i++)
		wait_for(batch, finding, finding->cell->place.rows[finding->slots[i]], INFINITY);
}

/* Of those whose bounds are known the others that pass, and of the rest what may. */
static void take_others(struct kx_ivf_batch *batch, struct kx_ivf_finding *finding)
{
	const float floor = kx_ivf_least(&finding->one->best) - finding->slack.product;
	uint32_t to = finding->some;

	for (uint32_t i = finding->first; i < finding->some; i++)
		if (finding->bounds[i] >= kx_ivf_least(&finding->one->best))
			wait_for(batch, finding, finding->cell->place.rows[finding->slots[i]], finding->bounds[i]);
	for (uint32_t i = finding->some; i < finding->count; i++) {
		finding->bounds[to] = finding->bounds[i];
		finding->slots[to] = finding->slots[i];
		to += finding->bounds[i] >= floor;
	}
	finding->count = to;
	fetch_tails(batch, finding, finding->some, finding->count);
}

/* The findings of a look, each for a query that has too few. */
static void take_firsts(struct kx_ivf_batch *batch, struct kx_ivf_look *look)
{
	for (uint32_t i = 0; i < look->count; i++)
		take_foremost(batch, &look->findings[i]);
	compare_all(batch);
	for (uint32_t i = 0; i < look->count; i++)
		take_others(batch, &look->findings[i]);
	take_all(batch, look);
	compare_all(batch);
}

kx_status kx_ivf_look_first(struct kx_ivf_batch *batch, const struct kx_ivf_pair *pairs, size_t count)
{
	struct kx_ivf_look *look = &batch->looks[0];

	for (size_t from = 0, to = 0; from < count; from = to) {
		size_t slots = 0;

		for (to = from; to < count && to - from < KX_IVF_TOGETHER && (to == from || slots < ROOM_MOST); to++)
			slots += room_of(batch->ivf->cells[pairs[to].slot].count) + APART;
		if (!reserve_look(look, slots))
			return KX_ENOMEM;
		for (size_t i = from; i < to; i++) {
			const struct kx_ivf_cell *cell = &batch->ivf->cells[pairs[i].slot];
			const struct kx_ivf_cell *next = i + 1 < count ? &batch->ivf->cells[pairs[i + 1].slot] : NULL;
			struct kx_ivf_finding *finding = add_finding(batch, look, cell, &pairs[i].wish, true);
			const uint32_t wanted = finding->one->best.k - finding->one->best.count;

			scan_by_table(batch, finding, next);
			finding->one->work->codes += cell->count;
			finding->first = wanted < finding->count ? wanted : finding->count;
			finding->some = kx_ivf_foremost(finding->slots, finding->bounds, finding->count, finding->first);
			fetch_tails(batch, finding, 0, finding->some);
		}
		take_firsts(batch, look);
	}
	return KX_OK;
}
