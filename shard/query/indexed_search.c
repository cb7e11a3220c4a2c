/* The best rows over both modalities, from the lists that the index gives of each.
 *
 * A row's score is a weighted mean over the modalities that it shares with the query. Each modality's list is asked for
 * down to some depth; what stands in neither list scores at most what the ends of the lists allow (threshold algorithm:
 * Fagin, Lotem and Naor, PODS 2001). Rows in the lists are scored by their records, those that may be best first, until
 * none that is left can be among the best k. While something unseen still could be, the lists are asked for deeper.
 *
 * The index compares halves of floats, the records hold floats: an exact search allows for the difference.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shard/query/indexed_internal.h"
#include "shard/query/prospects.h"

#define SLACK 7e-4        /* more than rounding a unit vector to fp16 can change a cosine */
#define FEW_MATCHES 256u  /* as many rows are read and compared without asking the index */
#define FEW_MISSING 1024u /* as many that a filter leaves out are passed over in the lists */
#define DEPTH_MORE 64u
#define DEPTH_GROWS 4u

struct list {
	const struct kx_ann_vector *vector;
	uint8_t space;
	int m;
	double weight;
	double end;    /* nothing behind it is nearer */
	bool complete; /* there is nothing behind it */
	const struct kx_index_filter *filter;
	struct kx_index_hits hits;
	bool asked;    /* the hits are those of the first round */
};

struct seek {
	struct indexed *indexed;
	const struct kx_ann_query *query;
	struct kx_error *error;
	struct list lists[KX_ANN_MODALITIES];
	uint32_t list_count;
	struct indexed_filter *filter;
	double slack;
	struct kx_prospects candidates;
	struct kx_ann_hit *best; /* heap, the worst first */
	size_t best_count;
	struct kx_ann_work work;
	struct indexed_vectors *vectors; /* of the row that is scored; all seeks' */
	bool few;                        /* the matches are few enough to be read */
	size_t missing;                  /* bytes of indexed->missing when it began */
};

static void seek_done(struct seek *seek)
{
	kx_indexed_filter_release(seek->indexed, seek->filter);
	for (uint32_t i = 0; i < KX_ANN_MODALITIES; i++)
		kx_index_hits_done(&seek->lists[i].hits);
	kx_prospects_done(&seek->candidates);
	free(seek->best);
}

/* --- The best so far ------------------------------------------------------------------------------------------ */

static int compare_hits(const struct seek *seek, const struct kx_ann_hit *one, const struct kx_ann_hit *two)
{
	struct mirror_row *const *rows = seek->indexed->mirror->rows;

	if (one->score != two->score)
		return one->score > two->score ? -1 : 1;
	return strcmp(rows[one->row]->id, rows[two->row]->id);
}

static int order_hits(const void *a, const void *b, void *seek)
{
	return compare_hits(seek, a, b);
}

static void swap_hits(struct kx_ann_hit *a, struct kx_ann_hit *b)
{
	struct kx_ann_hit was = *a;

	*a = *b;
	*b = was;
}

static void sift_down(struct seek *seek)
{
	struct kx_ann_hit *heap = seek->best;

	for (size_t at = 0, worst;; at = worst) {
		worst = at;
		for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < seek->best_count; child++)
			if (compare_hits(seek, &heap[child], &heap[worst]) > 0)
				worst = child;
		if (worst == at)
			return;
		swap_hits(&heap[at], &heap[worst]);
	}
}

static void take_hit(struct seek *seek, const struct kx_ann_hit *hit)
{
	struct kx_ann_hit *heap = seek->best;

	if (seek->query->has_ceiling && hit->score > seek->query->ceiling)
		return;
	if (seek->best_count == seek->query->k) {
		if (compare_hits(seek, hit, &heap[0]) < 0) {
			heap[0] = *hit;
			sift_down(seek);
		}
		return;
	}
	heap[seek->best_count] = *hit;
	for (size_t at = seek->best_count++; at && compare_hits(seek, &heap[at], &heap[(at - 1) / 2]) > 0; at = (at - 1) / 2)
		swap_hits(&heap[at], &heap[(at - 1) / 2]);
}

/* What a row has to score to be among the best. */
static double least_score(const struct seek *seek)
{
	return seek->best_count == seek->query->k ? seek->best[0].score : -INFINITY;
}

/* --- Scores --------------------------------------------------------------------------------------------------- */

static bool may_be_found(const struct seek *seek, uint32_t row)
{
	const struct kx_ann_query *query = seek->query;

	if (row == query->exclude || row >= seek->indexed->row_count || !seek->indexed->rows[row].present)
		return false;
	return !query->rows || (row < query->row_count && (query->rows[row / 64u] >> (row % 64u) & 1u));
}

/* The row's own vectors, as its record says: it may have been replaced since the mirror saw it. */
static kx_status score_row(struct seek *seek, uint32_t row, bool keep)
{
	struct kx_ann_hit hit = {.row = row};
	const struct kx_ann_query *query = seek->query;
	kx_status status = kx_indexed_vectors(seek->indexed, row, keep, seek->vectors, seek->error);

	if (status)
		return status == KX_ENOTFOUND ? KX_OK : status;
	seek->work.refined++;
	for (size_t i = 0; i < query->count; i++) {
		const struct kx_ann_vector *vector = &query->vectors[i];
		int m = (int)vector->modality - KX_VISUAL;
		uint8_t space = seek->vectors->space[m];

		if (space == KX_INDEXED_NO_SPACE || seek->indexed->spaces[space].dim != vector->dim ||
		    strcmp(seek->indexed->spaces[space].name, vector->space) != 0)
			continue;
		kx_ann_hit_share(&hit, query, vector, seek->vectors->values[m]);
	}
	if (kx_ann_hit_score(&hit, query))
		take_hit(seek, &hit);
	return KX_OK;
}

/* Every row that may be found and shares a space with the query. */
static kx_status score_all(struct seek *seek)
{
	kx_status status = KX_OK;

	if (seek->indexed->partial) {
		seek->indexed->needs_all = true;
		return KX_EBUSY;
	}
	seek->best_count = 0;
	seek->work.exact = true;
	for (uint32_t row = 0; !status && row < seek->indexed->row_count; row++) {
		bool shares = kx_bitmap_has(&seek->indexed->loose, row);

		for (uint32_t i = 0; i < seek->list_count; i++)
			shares = shares || seek->indexed->rows[row].space[seek->lists[i].m] == seek->lists[i].space;
		if (shares && may_be_found(seek, row))
			status = score_row(seek, row, false);
	}
	return status;
}

static kx_status score_few(struct seek *seek)
{
	kx_status status = KX_OK;

	seek->work.exact = true;
	for (uint32_t i = 0; i < seek->query->row_count / 64u; i++)
		for (uint64_t word = seek->query->rows[i]; !status && word; word &= word - 1) {
			uint32_t row = i * 64 + (uint32_t)__builtin_ctzll(word);

			if (may_be_found(seek, row))
				status = score_row(seek, row, true);
		}
	return status;
}

static kx_status score_loose(struct seek *seek)
{
	const struct kx_bitmap *loose = &seek->indexed->loose;
	kx_status status = KX_OK;

	for (uint32_t i = 0; i < kx_bitmap_words(loose); i++)
		for (uint64_t word = loose->words[i]; !status && word; word &= word - 1) {
			uint32_t row = i * 64 + (uint32_t)__builtin_ctzll(word);

			if (may_be_found(seek, row))
				status = score_row(seek, row, true);
		}
	return status;
}

/* --- Candidates ----------------------------------------------------------------------------------------------- */

/* Of a mirror of few rows: the search is to be done again once this video is in it. */
static kx_status want_row(struct seek *seek, const struct kx_index_hit *hit)
{
	struct kx_buf *missing = &seek->indexed->missing;

	if (kx_buf_append(missing, hit->key, hit->key_len) || kx_buf_append(missing, "", 1))
		return kx_error_nomem(seek->error);
	return KX_OK;
}

static kx_status gather_list(struct seek *seek, uint32_t number)
{
	const struct list *list = &seek->lists[number];
	const struct indexed *indexed = seek->indexed;
	const struct indexed_space *space = &indexed->spaces[list->space];

	for (uint32_t i = 0; i < list->hits.count; i++) {
		uint32_t index_row = list->hits.list[i].row;
		uint32_t row = index_row < space->row_at_cap ? space->row_at[index_row] : KX_ANN_NO_ROW;
		struct kx_prospect *candidate;

		if (row == KX_ANN_NO_ROW && indexed->partial && want_row(seek, &list->hits.list[i]))
			return KX_ENOMEM;
		/* A row that is changing is loose, and scored anyway; one that the mirror does not have yet is not found. */
		if (row == KX_ANN_NO_ROW || kx_bitmap_has(&indexed->loose, row) || !may_be_found(seek, row))
			continue;
		candidate = kx_prospect_for(&seek->candidates, row, 0);
		if (!candidate)
			return kx_error_nomem(seek->error);
		candidate->seen[number] = true;
		candidate->near[number] = list->hits.list[i].score;
	}
	return KX_OK;
}

static void bound_candidate(const struct seek *seek, struct kx_prospect *candidate)
{
	const struct indexed_row *row = &seek->indexed->rows[candidate->row];
	double most = 0.0, least = 0.0, weights = 0.0;

	for (uint32_t i = 0; i < seek->list_count; i++) {
		const struct list *list = &seek->lists[i];

		if (row->space[list->m] != list->space)
			continue;
		most += list->weight * (candidate->seen[i] ? (double)candidate->near[i] + seek->slack : list->end);
		least += list->weight * (candidate->seen[i] ? (double)candidate->near[i] - seek->slack : -1.0);
		weights += list->weight;
	}
	candidate->most = weights > 0.0 ? most / weights : -INFINITY;
	candidate->least = weights > 0.0 ? least / weights : -INFINITY;
}

/* Scores those that may be among the best, in the order of what they can reach. */
static kx_status score_candidates(struct seek *seek)
{
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
		if (!seek->query->has_ceiling || candidate->least <= seek->query->ceiling)
			order[count++] = candidate;
	}
	qsort(order, count, sizeof(struct kx_prospect *), kx_prospect_order);
	for (uint32_t i = 0; !status && i < count && order[i]->most >= least_score(seek); i++) {
		order[i]->scored = true;
		status = score_row(seek, order[i]->row, true);
	}
	return status;
}

/* --- Lists ---------------------------------------------------------------------------------------------------- */

static struct kx_index_query index_query(const struct seek *seek, const struct list *list, uint32_t depth)
{
	return (struct kx_index_query){.vector = list->vector->values,
				       .dim = list->vector->dim,
				       .k = depth,
				       .recall = seek->query->recall > 0.0 ? seek->query->recall : 1.0,
				       .filter = list->filter};
}

static kx_status ask_list(struct seek *seek, struct list *list, uint32_t depth)
{
	const struct indexed_space *space = &seek->indexed->spaces[list->space];
	const struct kx_index_query query = index_query(seek, list, depth);
	struct kx_index *index = seek->indexed->index;
	kx_status status;

	list->end = 1.0;
	list->complete = !space->is_indexed;
	if (list->complete) { /* its rows are all loose */
		list->hits.count = 0;
		return KX_OK;
	}
	status = list->asked
			 ? kx_prospect_list_rest(index, space->number, &query, &list->hits, &seek->work, seek->error)
			 : kx_prospect_list(index, space->number, &query, &list->hits, &seek->work, seek->error);
	list->asked = false;
	if (status)
		return status;
	list->complete = list->hits.count < depth;
	if (list->hits.count)
		list->end = (double)list->hits.list[list->hits.count - 1].score + seek->slack;
	return KX_OK;
}

/* The most that a row in none of the lists can score. */
static double unseen_score(const struct seek *seek)
{
	const struct list *one = &seek->lists[0], *two = &seek->lists[1];
	const struct indexed *indexed = seek->indexed;
	uint32_t both;
	double most = -INFINITY;

	if (seek->list_count == 1)
		return one->complete ? most : one->end;
	both = one->m == 0 ? indexed->both[one->space][two->space] : indexed->both[two->space][one->space];
	if (both && !one->complete && !two->complete)
		most = (one->weight * one->end + two->weight * two->end) / (one->weight + two->weight);
	if (indexed->spaces[one->space].rows > both && !one->complete)
		most = fmax(most, one->end);
	if (indexed->spaces[two->space].rows > both && !two->complete)
		most = fmax(most, two->end);
	return most;
}

static kx_status run_round(struct seek *seek, uint32_t depth, bool *ret_done)
{
	double unseen;
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < seek->list_count; i++) {
		status = ask_list(seek, &seek->lists[i], depth);
		if (!status)
			status = gather_list(seek, i);
	}
	if (!status && seek->indexed->missing.len > seek->missing)
		return KX_EBUSY;
	if (!status)
		status = score_candidates(seek);
	unseen = status ? 0.0 : unseen_score(seek);
	*ret_done = unseen < least_score(seek) || isinf(unseen);
	return status;
}

static bool is_exact(const struct seek *seek)
{
	return !(seek->query->recall > 0.0 && seek->query->recall < 1.0);
}

static uint32_t first_depth(const struct seek *seek)
{
	uint64_t depth = 2 * (uint64_t)seek->query->k + DEPTH_MORE;

	return depth < KX_INDEX_K_MAX ? (uint32_t)depth : KX_INDEX_K_MAX;
}

/* As deep as the index goes it may still not be enough: then an exact search, or one without k hits, compares all. */
static kx_status run_rounds(struct seek *seek)
{
	uint32_t depth = first_depth(seek);
	bool done = false;
	kx_status status = score_loose(seek);

	if (seek->query->k > KX_INDEX_K_MAX)
		return status ? status : score_all(seek);
	seek->work.exact = true;
	while (!status && !done) {
		status = run_round(seek, depth, &done);
		if (depth == KX_INDEX_K_MAX)
			break;
		depth = depth < KX_INDEX_K_MAX / DEPTH_GROWS ? depth * DEPTH_GROWS : KX_INDEX_K_MAX;
	}
	if (!status && !done && (is_exact(seek) || seek->best_count < seek->query->k))
		status = score_all(seek);
	return status;
}

/* --- The query ------------------------------------------------------------------------------------------------ */

/* No row is in the query's space. That is an error when rows are in another of the same modality. */
static kx_status check_unreached(const struct indexed *indexed, const struct kx_ann_vector *vector,
				 struct kx_error *error)
{
	for (uint32_t i = 0; i < indexed->space_count; i++) {
		const struct indexed_space *other = &indexed->spaces[i];

		if (other->modality == vector->modality && other->rows)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
					    "the query's %s vector is in space %s, what is indexed is in %s: they can't be "
					    "compared; embed the query with the bundle that the index was made with",
					    kx_modality_name(vector->modality), vector->space, other->name);
	}
	return KX_OK;
}

static kx_status make_lists(struct seek *seek)
{
	const struct indexed *indexed = seek->indexed;

	for (size_t i = 0; i < seek->query->count; i++) {
		const struct kx_ann_vector *vector = &seek->query->vectors[i];
		const int m = (int)vector->modality - KX_VISUAL;
		uint8_t space = kx_indexed_find_space(indexed, vector->modality, vector->space);
		kx_status status = KX_OK;

		if (space == KX_INDEXED_NO_SPACE || !indexed->spaces[space].rows)
			status = check_unreached(indexed, vector, seek->error);
		else if (indexed->spaces[space].dim != vector->dim)
			status = kx_error_set(seek->error, KX_EINVAL, KX_ERROR_POISON,
					      "space %s has %u dimensions, the query's vector has %u",
					      indexed->spaces[space].name, indexed->spaces[space].dim, vector->dim);
		else if (seek->query->weight[m] > 0.0)
			seek->lists[seek->list_count++] = (struct list){
				.vector = vector, .space = space, .m = m, .weight = seek->query->weight[m]};
		if (status)
			return status;
	}
	return KX_OK;
}

static void count_rows(struct seek *seek)
{
	const struct indexed *indexed = seek->indexed;
	uint32_t of[KX_ANN_MODALITIES] = {KX_INDEXED_NO_SPACE, KX_INDEXED_NO_SPACE};

	for (uint32_t i = 0; i < seek->list_count; i++) {
		of[seek->lists[i].m] = seek->lists[i].space;
		seek->work.rows += indexed->spaces[seek->lists[i].space].rows;
	}
	if (seek->list_count == KX_ANN_MODALITIES)
		seek->work.rows -= indexed->both[of[0]][of[1]];
}

static uint64_t count_matches(const struct kx_ann_query *query)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < query->row_count / 64u; i++)
		count += (uint64_t)__builtin_popcountll(query->rows[i]);
	return count;
}

static kx_status use_filter(struct seek *seek)
{
	uint64_t matches = seek->query->rows ? count_matches(seek->query) : seek->indexed->present;
	kx_status status;

	seek->few = seek->query->rows && matches <= FEW_MATCHES;
	if (seek->few || matches + FEW_MISSING >= seek->indexed->present)
		return KX_OK;
	status = kx_indexed_filter_get(seek->indexed, seek->query->rows, seek->query->row_count, &seek->filter, seek->error);
	for (uint32_t i = 0; !status && i < seek->list_count; i++)
		seek->lists[i].filter = seek->filter->of_space[seek->lists[i].space];
	return status;
}

/* All that comes before the index is asked. */
static kx_status begin(struct seek *seek)
{
	kx_status status;

	if (!seek->query->k || !seek->indexed->present)
		return KX_OK;
	seek->best = malloc(seek->query->k * sizeof(*seek->best));
	if (!seek->best)
		return kx_error_nomem(seek->error);
	status = make_lists(seek);
	if (status || !seek->list_count)
		return status;
	count_rows(seek);
	return use_filter(seek);
}

static kx_status finish(struct seek *seek)
{
	seek->missing = seek->indexed->missing.len;
	if (!seek->list_count)
		return KX_OK;
	return seek->few ? score_few(seek) : run_rounds(seek);
}

/* --- Many at once --------------------------------------------------------------------------------------------- */

struct seeking {
	struct indexed *indexed;
	struct kx_indexed_asked *asked;
	struct seek *seeks; /* [count] */
	size_t count;
};

/* Lists of one space that many seeks want, and what the index is asked for them. */
struct wanted {
	struct list **lists;
	struct kx_index_query *queries;
	struct kx_index_hits *hits;
	size_t count;
};

static bool asks_index(const struct seek *seek, const struct kx_indexed_asked *asked)
{
	return !asked->status && !seek->few && seek->query->k <= KX_INDEX_K_MAX;
}

static void want_lists(const struct seeking *seeking, uint8_t space, struct wanted *wanted)
{
	wanted->count = 0;
	for (size_t i = 0; i < seeking->count; i++) {
		struct seek *seek = &seeking->seeks[i];

		for (uint32_t l = 0; asks_index(seek, &seeking->asked[i]) && l < seek->list_count; l++) {
			if (seek->lists[l].space != space)
				continue;
			wanted->lists[wanted->count] = &seek->lists[l];
			wanted->queries[wanted->count++] = index_query(seek, &seek->lists[l], first_depth(seek));
		}
	}
}

/* Whatever fails here each seek meets again on its own, and knows then whether it is its own. */
static void ask_space(const struct seeking *seeking, uint8_t number, struct wanted *wanted)
{
	const struct indexed_space *space = &seeking->indexed->spaces[number];

	if (!space->is_indexed)
		return;
	want_lists(seeking, number, wanted);
	if (wanted->count < 2 || kx_index_search_many(seeking->indexed->index, space->number, wanted->queries, wanted->count,
						      wanted->hits, NULL))
		return;
	for (size_t i = 0; i < wanted->count; i++) {
		wanted->lists[i]->hits = wanted->hits[i];
		wanted->lists[i]->asked = true;
		wanted->hits[i] = (struct kx_index_hits){0};
	}
}

/* The first round of all lists. Without memory for it each asks for itself. */
static void ask_together(const struct seeking *seeking)
{
	struct wanted wanted = {
		.lists = calloc(seeking->count, sizeof(struct list *)),
		.queries = calloc(seeking->count, sizeof(*wanted.queries)),
		.hits = calloc(seeking->count, sizeof(*wanted.hits)),
	};

	if (wanted.lists && wanted.queries && wanted.hits)
		for (uint32_t i = 0; i < seeking->indexed->space_count; i++)
			ask_space(seeking, (uint8_t)i, &wanted);
	for (size_t i = 0; wanted.hits && i < seeking->count; i++)
		kx_index_hits_done(&wanted.hits[i]);
	free(wanted.lists);
	free(wanted.queries);
	free(wanted.hits);
}

static void seek_init(const struct seeking *seeking, size_t i, struct indexed_vectors *vectors)
{
	struct kx_indexed_asked *asked = &seeking->asked[i];
	struct seek *seek = &seeking->seeks[i];

	asked->count = 0;
	asked->work = (struct kx_ann_work){.exact = true};
	*seek = (struct seek){.indexed = seeking->indexed, .query = asked->query, .error = &asked->error, .vectors = vectors};
	seek->work.exact = true;
	seek->slack = is_exact(seek) ? SLACK : 0.0;
	asked->status = begin(seek);
}

static void seek_end(const struct seeking *seeking, size_t i)
{
	struct kx_indexed_asked *asked = &seeking->asked[i];
	struct seek *seek = &seeking->seeks[i];

	if (!asked->status)
		asked->status = finish(seek);
	if (asked->status)
		return;
	asked->work = seek->work;
	if (!seek->best_count)
		return;
	qsort_r(seek->best, seek->best_count, sizeof(*seek->best), order_hits, seek);
	memcpy(asked->hits, seek->best, seek->best_count * sizeof(*seek->best));
	asked->count = seek->best_count;
}

void kx_indexed_search_many(const struct kx_ann *ann, struct kx_indexed_asked *asked, size_t n)
{
	KX_CLEANUP(kx_cleanup_free) struct indexed_vectors *vectors = malloc(sizeof(*vectors));
	struct seeking seeking = {.indexed = kx_indexed_of(ann), .asked = asked, .count = n};

	seeking.seeks = calloc(n ? n : 1, sizeof(*seeking.seeks));
	if (!seeking.seeks || !vectors) {
		for (size_t i = 0; i < n; i++)
			asked[i].status = kx_error_nomem(&asked[i].error);
		free(seeking.seeks);
		return;
	}
	for (size_t i = 0; i < n; i++)
		seek_init(&seeking, i, vectors);
	if (n > 1)
		ask_together(&seeking);
	for (size_t i = 0; i < n; i++) {
		seek_end(&seeking, i);
		seek_done(&seeking.seeks[i]);
	}
	free(seeking.seeks);
}

kx_status kx_indexed_search(const struct kx_ann *ann, const struct kx_ann_query *query, struct kx_ann_hit *ret,
			    size_t *ret_count, struct kx_ann_work *work, struct kx_error *error)
{
	struct kx_indexed_asked asked = {.query = query, .hits = ret};

	kx_indexed_search_many(ann, &asked, 1);
	*ret_count = asked.count;
	if (work)
		*work = asked.work;
	if (asked.status && error)
		*error = asked.error;
	return asked.status;
}
