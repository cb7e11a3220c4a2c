/* The best moments over both modalities, from the lists that the index gives of each.
 *
 * As with videos (indexed_search.c) each modality's list is asked for down to some depth, and what stands in none of them scores
 * at most what the ends of the lists allow. A moment that has only one of the modalities scores by that alone, so it may be
 * better than any that stands at the ends with both: such moments have a list of their own, which is soon deep enough.
 * Moments in the lists are scored by what is stored of them, those that may be best first.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "shard/query/moments_index_internal.h"
#include "shard/query/moments_internal.h"
#include "shard/query/prospects.h"

#define SLACK 7e-4        /* more than rounding a unit vector to fp16, and a share to a millionth, can change */
#define FEW_MATCHES 1024u /* moments: as many are read and compared without asking the index */
#define FEW_MISSING 1024u /* as many that may not be found are passed over in the lists */
#define DEPTH_FIRST_EXACT 256u
#define DEPTH_MORE 64u
#define DEPTH_GROWS 4u
#define EXACT_MOMENTS 20000u /* below it a query that wants no recall in particular gets all */
#define LISTS_MAX (2 * KX_ANN_MODALITIES)

struct list {
	const struct kx_ann_vector *vector;
	uint32_t space; /* of the index */
	int m;
	double weight;
	bool alone;     /* only of moments that lack the other modality */
	bool complete;  /* there is nothing behind it */
	double end;     /* nothing behind it is nearer */
	const struct kx_index_filter *filter;
	struct kx_index_hits hits;
};

struct seek {
	struct kx_moments *moments;
	const struct kx_mirror *mirror;
	const struct kx_mirror_rows *rows;
	struct kx_moment_search *search;
	struct kx_error *error;
	struct kx_bitmap wanted; /* the mirror's rows that may be found by the index */
	struct list lists[LISTS_MAX];
	uint32_t list_count;
	bool both;    /* the query has both modalities */
	bool mixed;   /* a moment with both may have the other in a space that the query does not have */
	bool exact;
	double slack;
	uint64_t missing; /* moments that the lists may have and that are not wanted */
	struct moments_filter *filter;
	struct kx_prospects candidates;
};

static void seek_free(struct seek *seek)
{
	kx_moments_filter_release(seek->moments, seek->filter);
	for (uint32_t i = 0; i < LISTS_MAX; i++)
		kx_index_hits_done(&seek->lists[i].hits);
	kx_bitmap_done(&seek->wanted);
	kx_prospects_done(&seek->candidates);
	free(seek);
}

/* --- The best so far: a heap, the worst first -------------------------------------------------------------------- */

static void swap_hits(struct kx_moment_hit *a, struct kx_moment_hit *b)
{
	struct kx_moment_hit was = *a;

	*a = *b;
	*b = was;
}

static void sift_down(struct kx_moment_hit *heap, size_t count)
{
	for (size_t at = 0, worst;; at = worst) {
		worst = at;
		for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++)
			if (kx_moment_hit_compare(&heap[child], &heap[worst]) > 0)
				worst = child;
		if (worst == at)
			return;
		swap_hits(&heap[at], &heap[worst]);
	}
}

static kx_status take_hit(struct seek *seek, const struct kx_moment_hit *hit)
{
	struct kx_moment_hits *best = &seek->search->hits;

	if (best->count == seek->search->want) {
		if (kx_moment_hit_compare(hit, &best->list[0]) < 0) {
			best->list[0] = *hit;
			sift_down(best->list, best->count);
		}
		return KX_OK;
	}
	if (kx_moment_hits_add(best, hit))
		return kx_error_nomem(seek->error);
	for (size_t at = best->count - 1; at && kx_moment_hit_compare(&best->list[at], &best->list[(at - 1) / 2]) > 0;
	     at = (at - 1) / 2)
		swap_hits(&best->list[at], &best->list[(at - 1) / 2]);
	return KX_OK;
}

/* What a moment has to score to be among the best. */
static double least_score(const struct seek *seek)
{
	const struct kx_similar_query *query = seek->search->reader->query->query;
	double least = query->has_min_score ? query->min_score : -INFINITY;

	if (seek->search->hits.count == seek->search->want)
		least = fmax(least, seek->search->hits.list[0].at.score);
	return least;
}

/* --- Reading ----------------------------------------------------------------------------------------------------- */

static kx_status read_row(struct seek *seek, uint32_t row)
{
	struct kx_moment_hits hits = {0};
	const uint64_t had = seek->search->reader->read;
	const struct mirror_row *video = kx_mirror_at(seek->mirror, row);
	kx_status status;

	if (!video)
		return kx_error_nomem(seek->error);

	if (seek->search->stop && kx_stop_asked(seek->search->stop))
		return kx_error_set(seek->error, KX_ECANCELED, KX_ERROR_RETRY, "the shard is stopping");
	status = kx_moment_read_video(seek->search->reader, video->id, row, false, &hits, seek->error);
	for (size_t i = 0; !status && i < hits.count; i++)
		status = take_hit(seek, &hits.list[i]);
	seek->search->work.refined += seek->search->reader->read - had;
	kx_moment_hits_done(&hits);
	return status;
}

/* Its moments are not those that the index knew: it was replaced, and the mirror is not told yet. It counts as it is now. */
static kx_status read_changed(struct seek *seek, uint32_t row)
{
	struct kx_moment_hits *best = &seek->search->hits;
	size_t kept = 0;

	kx_bitmap_set(&seek->wanted, row, false);
	for (size_t i = 0; i < best->count; i++)
		if (best->list[i].at.row != row)
			best->list[kept++] = best->list[i];
	best->count = kept;
	if (kept)
		qsort(best->list, kept, sizeof(*best->list), kx_moment_hit_compare);
	for (size_t i = 0; i < kept / 2; i++)
		swap_hits(&best->list[i], &best->list[kept - 1 - i]);
	return read_row(seek, row);
}

static kx_status score_candidate(struct seek *seek, struct kx_prospect *candidate)
{
	const struct mirror_row *video = seek->mirror->rows[candidate->row];
	struct kx_moment_hit hit;
	kx_status status = kx_moment_read_one(seek->search->reader, video->id, video->generation, candidate->number, &hit,
					      seek->error);

	candidate->scored = true;
	if (status == KX_ENOTFOUND)
		return read_changed(seek, candidate->row);
	if (status)
		return status;
	seek->search->work.refined++;
	hit.at.row = candidate->row;
	hit.at.id = video->id;
	kx_moment_set_span(&hit, candidate->number, seek->moments->rows[candidate->row].moment_us, video->duration_us);
	return kx_moment_is_wanted(seek->search->reader, &hit.at) ? take_hit(seek, &hit) : KX_OK;
}

/* --- Candidates -------------------------------------------------------------------------------------------------- */

static bool is_video(const struct seek *seek, uint32_t row, const char *id)
{
	const struct mirror_row *video = kx_mirror_at(seek->mirror, row);

	return video && strcmp(id, video->id) == 0;
}

static kx_status gather_list(struct seek *seek, const struct list *list)
{
	const struct moments_space *space = &seek->moments->spaces[list->space];

	for (uint32_t i = 0; i < list->hits.count; i++) {
		const struct kx_index_hit *hit = &list->hits.list[i];
		uint32_t row = hit->row < space->cap ? space->row_of[hit->row] : KX_ANN_NO_ROW;
		struct kx_moment_place place;
		struct kx_prospect *candidate;

		/* What the table does not know is of a video that is changing, and read. */
		if (!kx_bitmap_has(&seek->wanted, row) || !kx_moment_place_parse(hit->key, hit->key_len, &place) ||
		    !is_video(seek, row, place.id))
			continue;
		candidate = kx_prospect_for(&seek->candidates, row, place.number);
		if (!candidate)
			return kx_error_nomem(seek->error);
		candidate->paired = !kx_bitmap_has(&space->alone, hit->row);
		candidate->seen[list->m] = true;
		candidate->near[list->m] = hit->score;
	}
	return KX_OK;
}

static void bound_candidate(const struct seek *seek, struct kx_prospect *candidate)
{
	double most = 0.0, least = 0.0, weights = 0.0, alone_most = -INFINITY, alone_least = INFINITY;

	for (uint32_t i = 0; i < seek->list_count; i++) {
		const struct list *list = &seek->lists[i];
		bool seen = candidate->seen[list->m];
		double near = (double)candidate->near[list->m];

		if (list->alone || (!seen && !(candidate->paired && seek->both)))
			continue;
		most += list->weight * (seen ? near + seek->slack : list->end);
		least += list->weight * (seen ? near - seek->slack : -1.0);
		weights += list->weight;
		alone_most = seen ? fmax(alone_most, near + seek->slack) : alone_most;
		alone_least = seen ? fmin(alone_least, near - seek->slack) : alone_least;
	}
	candidate->most = weights > 0.0 ? most / weights : -INFINITY;
	candidate->least = weights > 0.0 ? least / weights : -INFINITY;
	if (!seek->mixed)
		return;
	candidate->most = fmax(candidate->most, alone_most);
	candidate->least = fmin(candidate->least, alone_least);
}

/* Scores those that may be among the best, in the order of what they can reach. */
static kx_status score_candidates(struct seek *seek)
{
	const struct kx_cursor *cursor = seek->search->reader->query->query->group == KX_GROUP_NONE
						 ? seek->search->reader->cursor
						 : NULL;
	KX_CLEANUP(kx_cleanup_free) struct kx_prospect **order = malloc((seek->candidates.count + 1u) * sizeof(*order));
	uint32_t count = 0;
	kx_status status = KX_OK;

	if (!order)
		return kx_error_nomem(seek->error);
	for (uint32_t i = 0; i < seek->candidates.count; i++) {
		struct kx_prospect *candidate = &seek->candidates.list[i];

		if (candidate->scored)
			continue;
		bound_candidate(seek, candidate);
		if (!cursor || candidate->least <= cursor->score + seek->slack)
			order[count++] = candidate;
	}
	qsort(order, count, sizeof(struct kx_prospect *), kx_prospect_order);
	for (uint32_t i = 0; !status && i < count && order[i]->most + seek->slack >= least_score(seek); i++)
		if (kx_bitmap_has(&seek->wanted, order[i]->row))
			status = score_candidate(seek, order[i]);
	return status;
}

/* --- Lists ------------------------------------------------------------------------------------------------------- */

static kx_status ask_list(struct seek *seek, struct list *list, uint32_t depth)
{
	const struct kx_index_query query = {.vector = list->vector->values,
					     .dim = list->vector->dim,
					     .k = depth,
					     .recall = seek->exact ? 1.0 : seek->search->recall,
					     .filter = list->filter};
	kx_status status = kx_prospect_list(seek->moments->index, list->space, &query, &list->hits, &seek->search->work,
					    seek->error);

	if (status)
		return status;
	list->complete = list->hits.count < depth;
	list->end = list->hits.count ? (double)list->hits.list[list->hits.count - 1].score + seek->slack : 1.0;
	return KX_OK;
}

/* The most that a moment in none of the lists can score. */
static double unseen_score(const struct seek *seek)
{
	double most = -INFINITY, ends = 0.0, weights = 0.0;
	bool may_be_both = seek->both;

	for (uint32_t i = 0; i < seek->list_count; i++) {
		const struct list *list = &seek->lists[i];

		if (!list->complete && (list->alone || !seek->both || seek->mixed))
			most = fmax(most, list->end);
		if (list->alone)
			continue;
		may_be_both = may_be_both && !list->complete;
		ends += list->weight * list->end;
		weights += list->weight;
	}
	return may_be_both ? fmax(most, ends / weights) : most;
}

static kx_status run_round(struct seek *seek, uint32_t depth, bool *ret_done)
{
	double unseen;
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < seek->list_count; i++) {
		status = ask_list(seek, &seek->lists[i], depth);
		if (!status)
			status = gather_list(seek, &seek->lists[i]);
	}
	if (!status)
		status = score_candidates(seek);
	unseen = status ? 0.0 : unseen_score(seek);
	*ret_done = unseen < least_score(seek) || isinf(unseen);
	return status;
}

/* As deep as the index goes it may still not be enough. */
static kx_status run_rounds(struct seek *seek)
{
	uint64_t depth = 2 * seek->search->want + DEPTH_MORE + seek->missing;
	bool done = !seek->list_count;
	kx_status status = KX_OK;

	if (seek->exact && depth < DEPTH_FIRST_EXACT)
		depth = DEPTH_FIRST_EXACT;
	while (!status && !done) {
		depth = depth < KX_INDEX_K_MAX ? depth : KX_INDEX_K_MAX;
		status = run_round(seek, (uint32_t)depth, &done);
		if (depth == KX_INDEX_K_MAX)
			break;
		depth *= DEPTH_GROWS;
	}
	seek->search->read_all =
		!status && !done && (seek->exact || seek->search->hits.count < seek->search->want);
	return status;
}

/* --- The query --------------------------------------------------------------------------------------------------- */

static void make_lists(struct seek *seek)
{
	const struct kx_mirror_query *query = seek->search->reader->query;
	const double weight[KX_ANN_MODALITIES] = {query->query->weight_visual, query->query->weight_audio};

	for (size_t i = 0; i < query->count; i++) {
		const struct kx_ann_vector *vector = &query->vectors[i];
		const int m = (int)vector->modality - KX_VISUAL;
		struct kx_index_space_info info;
		uint32_t space;

		if (weight[m] <= 0.0 ||
		    !kx_moments_find_space(seek->moments->index, vector->modality, vector->space, vector->dim, &space) ||
		    kx_index_space_info(seek->moments->index, space, &info, NULL) || !info.rows)
			continue;
		seek->search->work.rows += info.rows;
		seek->lists[seek->list_count++] =
			(struct list){.vector = vector, .space = space, .m = m, .weight = weight[m]};
	}
	seek->both = seek->list_count == KX_ANN_MODALITIES;
}

static void count_spaces(struct seek *seek)
{
	uint32_t spaces = 0;

	for (uint32_t i = 0; seek->both && i < kx_index_space_count(seek->moments->index); i++) {
		struct kx_index_space_info info;

		spaces += kx_moments_are_in(seek->moments->index, i) &&
			  !kx_index_space_info(seek->moments->index, i, &info, NULL) && info.rows;
	}
	seek->mixed = seek->both && spaces > seek->list_count;
}

static uint64_t moments_of(const struct seek *seek, uint32_t row)
{
	return row < seek->moments->row_count && seek->moments->rows[row].present ? seek->moments->rows[row].count : 0;
}

/* Moments of the rows in a, and not in b (which may be NULL); counted until they are more than few. */
static uint64_t count_moments(const struct seek *seek, const struct kx_bitmap *a, const struct kx_bitmap *b, uint64_t few)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < kx_bitmap_words(a) && count <= few; i++) {
		uint64_t word = a->words[i] & ~(b && i < kx_bitmap_words(b) ? b->words[i] : 0);

		for (; word && count <= few; word &= word - 1)
			count += moments_of(seek, i * 64 + (uint32_t)__builtin_ctzll(word));
	}
	return count;
}

static kx_status set_wanted(struct seek *seek)
{
	const struct kx_mirror_rows *rows = seek->rows;
	struct kx_bitmap given = {(uint64_t *)(uintptr_t)rows->rows, rows->row_count};

	return kx_bitmap_copy(rows->rows ? &given : &seek->mirror->columns->live, &seek->wanted) ? kx_error_nomem(seek->error)
												 : KX_OK;
}

/* Few that may not be found are passed over in the lists; else a filter leaves them out, which is of the rows alone where it
 * can be: the video that is asked about is another in each query. */
static kx_status choose_filter(struct seek *seek, bool *ret_filtered)
{
	const uint32_t exclude = seek->rows->exclude;
	uint64_t missing = count_moments(seek, &seek->mirror->columns->live, &seek->wanted, FEW_MISSING);
	uint64_t own = kx_bitmap_has(&seek->wanted, exclude) ? moments_of(seek, exclude) : 0;
	kx_status status = KX_OK;

	*ret_filtered = missing > FEW_MISSING || own > FEW_MISSING;
	if (own > FEW_MISSING)
		kx_bitmap_set(&seek->wanted, exclude, false);
	seek->missing = (missing > FEW_MISSING ? 0 : missing) + (own > FEW_MISSING ? 0 : own);
	if (*ret_filtered || seek->both)
		status = kx_moments_filter_get(seek->moments, *ret_filtered ? &seek->wanted : NULL, &seek->filter, seek->error);
	if (!status && kx_bitmap_has(&seek->wanted, exclude))
		kx_bitmap_set(&seek->wanted, exclude, false);
	return status;
}

static void use_filter(struct seek *seek, bool filtered)
{
	uint32_t lists = seek->list_count;

	for (uint32_t i = 0; i < lists; i++) {
		struct list *list = &seek->lists[i];
		const struct kx_index_filter *alone = seek->filter ? seek->filter->alone[list->space] : NULL;

		if (filtered)
			list->filter = seek->filter->all[list->space];
		if (!seek->both || !alone || !kx_index_filter_matches(alone))
			continue;
		seek->lists[seek->list_count] = *list;
		seek->lists[seek->list_count].alone = true;
		seek->lists[seek->list_count++].filter = alone;
	}
}

/* Those that the index does not know are read, and no more of the index's business. */
static kx_status read_loose(struct seek *seek)
{
	const struct kx_bitmap *loose = &seek->moments->loose;
	kx_status status = KX_OK;

	for (uint32_t i = 0; i < kx_bitmap_words(loose); i++)
		for (uint64_t word = loose->words[i]; !status && word; word &= word - 1) {
			uint32_t row = i * 64 + (uint32_t)__builtin_ctzll(word);

			if (!kx_bitmap_has(&seek->wanted, row))
				continue;
			kx_bitmap_set(&seek->wanted, row, false);
			status = read_row(seek, row);
		}
	return status;
}

static void set_recall(struct seek *seek)
{
	double recall = seek->rows->recall;

	if (recall <= 0.0)
		recall = seek->mirror->stats.moments < EXACT_MOMENTS ? 1.0 : KX_MIRROR_RECALL;
	seek->exact = recall >= 1.0;
	seek->slack = seek->exact ? SLACK : 0.0;
	seek->search->recall = recall;
}

static kx_status seek_all(struct seek *seek)
{
	bool filtered = false;
	kx_status status = kx_moments_ready(seek->moments, seek->error);

	if (!status)
		status = set_wanted(seek);
	if (status)
		return status;
	set_recall(seek);
	if (seek->rows->rows && count_moments(seek, &seek->wanted, NULL, FEW_MATCHES) <= FEW_MATCHES) {
		seek->search->read_all = true;
		return KX_OK;
	}
	make_lists(seek);
	count_spaces(seek);
	status = choose_filter(seek, &filtered);
	if (status)
		return status;
	use_filter(seek, filtered);
	status = read_loose(seek);
	return status ? status : run_rounds(seek);
}

/* Sorts, and copies the ids: rows are used again once the lock is given back. */
static kx_status keep_hits(struct seek *seek)
{
	struct kx_moment_search *search = seek->search;

	search->ids.ids = calloc(search->hits.count + 1u, sizeof(char *));
	if (!search->ids.ids)
		return kx_error_nomem(seek->error);
	if (search->hits.count)
		qsort(search->hits.list, search->hits.count, sizeof(*search->hits.list), kx_moment_hit_compare);
	for (size_t i = 0; i < search->hits.count; i++) {
		search->ids.ids[i] = kx_strdup(search->hits.list[i].at.id);
		if (!search->ids.ids[i])
			return kx_error_nomem(seek->error);
		search->hits.list[i].at.id = search->ids.ids[i];
		search->ids.count++;
	}
	search->ids.epoch = seek->mirror->epoch;
	return KX_OK;
}

static void start_anew(struct kx_moment_search *search)
{
	search->hits.count = 0;
	kx_id_list_done(&search->ids);
	search->work = (struct kx_ann_work){0};
	search->read_all = false;
}

static kx_status run(void *ctx, const struct kx_mirror_rows *rows, struct kx_error *error)
{
	struct kx_moment_search *search = ctx;
	struct seek *seek = calloc(1, sizeof(*seek));
	kx_status status;

	start_anew(search);
	if (!seek)
		return kx_error_nomem(error);
	seek->moments = rows->mirror->moments;
	seek->mirror = rows->mirror;
	seek->rows = rows;
	seek->search = search;
	seek->error = error;
	search->work.exact = true;
	search->matching = rows->matching;
	search->reader->read = 0;
	status = seek_all(seek);
	if (!status && !search->read_all)
		status = keep_hits(seek);
	seek_free(seek);
	return status;
}

kx_status kx_moment_search(struct kx_mirror *mirror, struct kx_moment_search *search, struct kx_error *error)
{
	return kx_mirror_with_rows(mirror, search->reader->query, run, search, error);
}

void kx_moment_search_done(struct kx_moment_search *search)
{
	kx_moment_hits_done(&search->hits);
	kx_id_list_done(&search->ids);
}
