/* The nearest videos: filter to rows, rows to candidates, candidates to a page, all under one reader's lock. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "shard/query/indexed.h"
#include "shard/query/mirror_internal.h"
#include "shard/query/page.h"

#define AT_ONCE 128u
#define BYTES_AT_ONCE (16u << 20)
#define ROWS_AT_ONCE (1u << 21) /* compared by exact queries, all together */
#define BYTES_A_HIT 512u        /* that a query wants: of the page, of its candidates, in the index's lists */

/* What a query has found. */
struct found {
	struct kx_ann_hit *hits;
	struct kx_candidate *candidates;
	uint32_t *chosen;
	size_t count;
};

struct search {
	const struct kx_mirror *mirror;
	const struct kx_mirror_query *query;
	const struct kx_filter_entry *entry; /* NULL: no filter */
	struct kx_bitmap rows;               /* where not_ids leave something out of the filter's */
	struct kx_ann_query ann;
	struct kx_cursor cursor;
	struct kx_ann_work work;
	struct kx_mirror_asked *asked;
	struct found found;
	uint32_t count;                      /* of hits on the page */
	bool more;                           /* there is another page */
};

static void found_done(struct found *found)
{
	free(found->hits);
	free(found->candidates);
	free(found->chosen);
	*found = (struct found){0};
}

static void search_done(struct search *search)
{
	kx_filter_cache_release(search->mirror->cache, search->entry);
	kx_bitmap_done(&search->rows);
	kx_cursor_done(&search->cursor);
	found_done(&search->found);
}

static bool is_set(const char *text)
{
	return text && text[0];
}

static kx_status use_filter(struct search *search, struct kx_error *error)
{
	const struct kx_mirror *mirror = search->mirror;
	struct kx_filter *filter = NULL;
	kx_status status;

	if (!is_set(search->query->query->filter))
		return KX_OK;
	status = kx_filter_parse(search->query->query->filter, mirror->columns->attributes, search->query->now_s, &filter,
				 NULL, error);
	if (status)
		return status;
	if (kx_filter_cache_get(mirror->cache, filter, mirror->columns, &search->entry))
		return kx_error_nomem(error);
	search->ann.rows = search->entry->rows.words;
	search->ann.row_count = search->entry->rows.rows;
	return KX_OK;
}

static kx_status leave_out_ids(struct search *search, struct kx_error *error)
{
	const struct kx_similar_query *query = search->query->query;
	const struct kx_bitmap *from = search->entry ? &search->entry->rows : &search->mirror->columns->live;

	if (!query->not_id_count)
		return KX_OK;
	if (kx_bitmap_copy(from, &search->rows))
		return kx_error_nomem(error);
	for (uint32_t i = 0; i < query->not_id_count; i++) {
		const struct mirror_row *row = kx_mirror_row(search->mirror, query->not_ids[i]);

		if (row && row->number < search->rows.rows)
			kx_bitmap_set(&search->rows, row->number, false);
	}
	search->ann.rows = search->rows.words;
	search->ann.row_count = search->rows.rows;
	return KX_OK;
}

/* What the query wants, or the shard, or what so many videos afford. */
static double recall_of(const struct kx_mirror *mirror, const struct kx_similar_query *query)
{
	if (query->recall > 0.0)
		return query->recall;
	if (mirror->recall > 0.0)
		return mirror->recall;
	return mirror->stats.videos < KX_MIRROR_EXACT_VIDEOS ? 1.0 : KX_MIRROR_RECALL;
}

/* With the lock held, as all below. */
static kx_status search_init(struct search *search, const struct kx_mirror *mirror, const struct kx_mirror_query *query,
			     struct kx_error *error)
{
	const struct mirror_row *self = query->exclude ? kx_mirror_row(mirror, query->exclude) : NULL;
	kx_status status;

	*search = (struct search){.mirror = mirror, .query = query};
	search->ann = (struct kx_ann_query){.vectors = query->vectors,
					    .count = query->count,
					    .weight = {query->query->weight_visual, query->query->weight_audio},
					    .recall = recall_of(mirror, query->query),
					    .exclude = self ? self->number : KX_ANN_NO_ROW};
	status = use_filter(search, error);
	if (!status)
		status = leave_out_ids(search, error);
	if (!status && is_set(query->query->cursor))
		status = kx_cursor_decode(query->query->cursor, kx_similar_query_fingerprint(query->query), &search->cursor,
					  error);
	return status;
}

static uint64_t matching(const struct search *search)
{
	uint64_t count = search->mirror->stats.videos;

	if (search->rows.words)
		count = kx_bitmap_count(&search->rows);
	else if (search->entry)
		count = search->entry->count;
	if (search->ann.exclude == KX_ANN_NO_ROW)
		return count;
	return count - (search->ann.rows ? search->ann.exclude < search->ann.row_count &&
						   (search->ann.rows[search->ann.exclude / 64] >> (search->ann.exclude % 64) & 1)
					 : 1);
}

/* --- Groups and likeness -------------------------------------------------------------------------------------- */

/* The folder or the address that a source is in, without its last part. */
static char *place_of(const char *source)
{
	const char *slash = strrchr(source, '/');

	return kx_strndup(source, slash ? (size_t)(slash - source) + 1 : 0);
}

static char *group_key(const struct kx_mirror *mirror, enum kx_query_group group, uint32_t row)
{
	const char *of;

	switch (group) {
	case KX_GROUP_SOURCE:
		return place_of(kx_columns_text(mirror->columns, KX_BUILTIN_SOURCE, row));
	case KX_GROUP_DUPLICATES:
		of = kx_columns_text(mirror->columns, KX_BUILTIN_DUPLICATE_OF, row);
		return kx_strdup(of[0] ? of : mirror->rows[row]->id);
	case KX_GROUP_NONE:
		break;
	}
	return kx_strdup("");
}

static char *group_of(const void *ctx, const struct kx_candidate *candidate)
{
	const struct search *search = ctx;

	return group_key(search->mirror, search->query->query->group, candidate->row);
}

static double likeness(const void *ctx, const struct kx_candidate *a, const struct kx_candidate *b)
{
	const struct search *search = ctx;

	return kx_ann_likeness(search->mirror->ann, a->row, b->row, search->ann.weight);
}

/* --- Hits ----------------------------------------------------------------------------------------------------- */

static kx_status copy_labels(const struct kx_columns *columns, uint32_t row, struct kx_similar_hit *hit)
{
	const struct kx_column_row *from = &columns->list[row];

	if (!from->label_count)
		return KX_OK;
	hit->labels = calloc(from->label_count, sizeof(char *));
	if (!hit->labels)
		return KX_ENOMEM;
	for (uint32_t i = 0; i < from->label_count; i++) {
		hit->labels[i] = kx_strdup(kx_words_text(&columns->words, from->labels[i]));
		if (!hit->labels[i])
			return KX_ENOMEM;
		hit->label_count++;
	}
	return KX_OK;
}

struct explaining {
	const struct kx_columns *columns;
	uint32_t row;
	struct kx_similar_hit *hit;
	kx_status status;
};

static void explain_clause(void *ctx, const struct kx_filter_node *clause)
{
	struct explaining *with = ctx;
	struct kx_filter_clause *out = &with->hit->clauses[with->hit->clause_count];
	struct kx_buf text = {.max = KX_QUERY_FILTER_BYTES_MAX};

	if (with->status)
		return;
	with->status = kx_filter_print(clause, with->columns->attributes, &text);
	if (!with->status)
		with->status = kx_filter_matches(clause, with->columns, with->row, &out->passed);
	out->clause = (char *)text.data;
	out->value = kx_filter_value_of(clause, with->columns, with->row);
	with->hit->clause_count++;
	if (!out->clause || !out->value)
		with->status = KX_ENOMEM;
}

static kx_status explain(const struct kx_columns *columns, const struct kx_filter *filter, uint32_t row,
			 struct kx_similar_hit *hit)
{
	struct explaining with = {.columns = columns, .row = row, .hit = hit};

	if (!filter || !filter->clause_count)
		return KX_OK;
	hit->clauses = calloc(filter->clause_count, sizeof(*hit->clauses));
	if (!hit->clauses)
		return KX_ENOMEM;
	kx_filter_each_clause(filter, explain_clause, &with);
	return with.status;
}

static kx_status describe(const struct search *search, uint32_t row, struct kx_similar_hit *hit)
{
	const struct kx_mirror *mirror = search->mirror;
	const struct kx_similar_query *query = search->query->query;

	hit->title = kx_strdup(kx_columns_text(mirror->columns, KX_BUILTIN_TITLE, row));
	hit->source = kx_strdup(kx_columns_text(mirror->columns, KX_BUILTIN_SOURCE, row));
	hit->group_key = group_key(mirror, query->group, row);
	hit->duration_us = mirror->rows[row]->duration_us;
	if (!hit->title || !hit->source || !hit->group_key || copy_labels(mirror->columns, row, hit))
		return KX_ENOMEM;
	return query->explain && search->entry ? explain(mirror->columns, search->entry->filter, row, hit) : KX_OK;
}

static kx_status copy_hit(const struct search *search, const struct kx_ann_hit *found, struct kx_similar_hit *hit)
{
	*hit = (struct kx_similar_hit){
		.video_id = kx_strdup(search->mirror->rows[found->row]->id),
		.score = found->score,
		.visual = found->share[0],
		.audio = found->share[1],
		.has_visual = found->has[0],
		.has_audio = found->has[1],
	};
	return hit->video_id ? describe(search, found->row, hit) : KX_ENOMEM;
}

static kx_status copy_hits(const struct search *search, const struct kx_ann_hit *found, const uint32_t *chosen,
			   uint32_t count, struct kx_similar_answer *answer)
{
	answer->hits = calloc(count ? count : 1, sizeof(*answer->hits));
	if (!answer->hits)
		return KX_ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		answer->hit_count = i + 1;
		if (copy_hit(search, &found[chosen[i]], &answer->hits[i]))
			return KX_ENOMEM;
	}
	return KX_OK;
}

/* --- Pages ---------------------------------------------------------------------------------------------------- */

static kx_status found_reserve(struct search *search, size_t want)
{
	struct found *found = &search->found;

	found_done(found);
	found->hits = calloc(want, sizeof(*found->hits));
	found->candidates = calloc(want, sizeof(*found->candidates));
	found->chosen = calloc(search->query->query->k, sizeof(*found->chosen));
	search->ann.k = want;
	return found->hits && found->candidates && found->chosen ? KX_OK : KX_ENOMEM;
}

/* As many of each as its query wants, by one call where an index answers. */
static void find_each(struct search *const *searches, size_t n, struct kx_indexed_asked *asks)
{
	const struct kx_mirror *mirror = searches[0]->mirror;

	for (size_t i = 0; i < n; i++)
		asks[i] = (struct kx_indexed_asked){.query = &searches[i]->ann, .hits = searches[i]->found.hits};
	if (mirror->indexed)
		kx_indexed_search_many(mirror->ann, asks, n);
	for (size_t i = 0; i < n; i++) {
		struct kx_mirror_asked *asked = searches[i]->asked;

		if (!mirror->indexed)
			asks[i].status = kx_ann_search(mirror->ann, asks[i].query, asks[i].hits, &asks[i].count, &asks[i].work,
						       &asks[i].error);
		searches[i]->found.count = asks[i].count;
		searches[i]->work = asks[i].work;
		asked->status = asks[i].status;
		asked->error = asks[i].error;
	}
}

/* How many candidates are asked for first: a page, and one to know whether there is another. Behind a cursor stand as many
 * more as tie with its hit; groups need those before the page, too, to know which were told. */
static size_t first_want(const struct kx_similar_query *query)
{
	size_t k = query->k;

	if (query->diversity > 0.0)
		return 20 * k + 100;
	if (query->group != KX_GROUP_NONE)
		return 4 * k + 64;
	return is_set(query->cursor) ? k + 16 : k + 1;
}

/* *ret_short: there are too few candidates to tell. */
static kx_status take_page(struct search *search, bool *ret_short)
{
	const struct kx_similar_query *query = search->query->query;
	struct found *found = &search->found;
	const struct kx_page_rules rules = {.k = query->k,
					    .has_min_score = query->has_min_score,
					    .min_score = query->min_score,
					    .cursor = search->cursor.video_id ? &search->cursor : NULL,
					    .group = query->group != KX_GROUP_NONE ? group_of : NULL,
					    .diversity = query->diversity,
					    .likeness = likeness,
					    .ctx = search};

	for (size_t i = 0; i < found->count; i++)
		found->candidates[i] = (struct kx_candidate){.row = found->hits[i].row,
							     .score = found->hits[i].score,
							     .id = search->mirror->rows[found->hits[i].row]->id};
	return kx_page_take(&rules, found->candidates, found->count, found->count < search->ann.k, found->chosen,
			    &search->count, &search->more, ret_short);
}

/* False: it is not to be asked, or not again: it has its page, or failed. want: how many candidates. */
static bool make_room(struct search *search, size_t want)
{
	const size_t rows = search->mirror->stats.videos;
	struct kx_mirror_asked *asked = search->asked;

	if (!asked->status && found_reserve(search, want < rows + 1 ? want : rows + 1))
		asked->status = kx_error_nomem(&asked->error);
	return !asked->status;
}

static bool is_short(struct search *search)
{
	struct kx_mirror_asked *asked = search->asked;
	bool more_needed = false;

	if (!asked->status && take_page(search, &more_needed))
		asked->status = kx_error_nomem(&asked->error);
	return !asked->status && more_needed && make_room(search, 4 * search->ann.k);
}

/* Asks for all of them, then again for more of those that are short of candidates. */
static void find_pages(struct search *searches, size_t n, struct search **open, struct kx_indexed_asked *asks)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++)
		if (make_room(&searches[i], first_want(searches[i].query->query)))
			open[count++] = &searches[i];
	while (count) {
		size_t still = 0;

		find_each(open, count, asks);
		for (size_t i = 0; i < count; i++)
			if (is_short(open[i]))
				open[still++] = open[i];
		count = still;
	}
}

static kx_status set_next(const struct search *search, struct kx_similar_answer *answer)
{
	const struct kx_similar_hit *last = &answer->hits[answer->hit_count - 1];
	struct kx_cursor cursor = {.fingerprint = kx_similar_query_fingerprint(search->query->query),
				   .epoch = search->mirror->epoch,
				   .score = last->score,
				   .video_id = last->video_id};

	answer->next = kx_cursor_encode(&cursor);
	return answer->next ? KX_OK : KX_ENOMEM;
}

static void tell_work(const struct search *search, struct kx_similar_answer *answer)
{
	answer->exact = search->work.exact;
	answer->recall = search->work.exact ? 1.0 : search->ann.recall;
	answer->work.rows = search->work.rows;
	answer->work.matching = matching(search);
	answer->work.cells = search->work.cells;
	answer->work.codes = search->work.codes;
	answer->work.refined = search->work.refined;
	answer->changed = search->cursor.epoch && search->cursor.epoch != search->mirror->epoch;
	answer->shards_asked = answer->shards_answered = 1;
}

static kx_status fill_answer(const struct search *search, struct kx_similar_answer *answer, struct kx_error *error)
{
	if (copy_hits(search, search->found.hits, search->found.chosen, search->count, answer))
		return kx_error_nomem(error);
	if (search->more && search->query->query->diversity <= 0.0 && set_next(search, answer))
		return kx_error_nomem(error);
	tell_work(search, answer);
	return KX_OK;
}

/* --- Many at once --------------------------------------------------------------------------------------------- */

/* What a query may take of memory, roughly: the lists that it is found by, and the bitmap of its filter in the index's rows. */
static uint64_t bytes_for(const struct kx_mirror *mirror, const struct kx_similar_query *query)
{
	bool filters = is_set(query->filter) || query->not_id_count;

	return first_want(query) * (uint64_t)BYTES_A_HIT + (filters ? mirror->stats.videos / 2 : 0);
}

/* How many are asked under one hold of the lock, for which every change waits. */
static size_t piece_of(struct kx_mirror *mirror, struct kx_mirror_asked *const *asked, size_t n)
{
	uint64_t bytes = 0, compared = 0;
	size_t count = 0;

	pthread_rwlock_rdlock(&mirror->lock);
	while (count < n && count < AT_ONCE) {
		const struct kx_similar_query *query = asked[count]->query.query;

		bytes += bytes_for(mirror, query);
		compared += recall_of(mirror, query) >= 1.0 ? mirror->stats.videos : 0;
		if (count && (bytes > BYTES_AT_ONCE || compared > ROWS_AT_ONCE))
			break;
		count++;
	}
	pthread_rwlock_unlock(&mirror->lock);
	return count;
}

struct piece {
	struct search *searches;
	struct search **open;
	struct kx_indexed_asked *asks;
};

static void piece_done(struct piece *piece)
{
	free(piece->searches);
	free(piece->open);
	free(piece->asks);
}

static kx_status piece_init(struct piece *piece, size_t n)
{
	*piece = (struct piece){
		.searches = malloc(n * sizeof(*piece->searches)),
		.open = malloc(n * sizeof(struct search *)),
		.asks = malloc(n * sizeof(*piece->asks)),
	};
	if (piece->searches && piece->open && piece->asks)
		return KX_OK;
	piece_done(piece);
	return KX_ENOMEM;
}

static void search_piece(const struct kx_mirror *mirror, struct kx_mirror_asked *const *asked, size_t n,
			 struct piece *piece)
{
	for (size_t i = 0; i < n; i++) {
		asked[i]->status = search_init(&piece->searches[i], mirror, &asked[i]->query, &asked[i]->error);
		piece->searches[i].asked = asked[i];
	}
	find_pages(piece->searches, n, piece->open, piece->asks);
	for (size_t i = 0; i < n; i++) {
		if (!asked[i]->status)
			asked[i]->status = fill_answer(&piece->searches[i], asked[i]->answer, &asked[i]->error);
		if (asked[i]->status)
			kx_similar_answer_done(asked[i]->answer);
		search_done(&piece->searches[i]);
	}
}

static void fail_all(struct kx_mirror_asked *const *asked, size_t n, kx_status status, const struct kx_error *error)
{
	for (size_t i = 0; i < n; i++) {
		asked[i]->status = status;
		asked[i]->error = *error;
	}
}

void kx_mirror_search_here(struct kx_mirror *mirror, struct kx_mirror_asked *const *asked, size_t n)
{
	struct kx_error error = {0};
	struct piece piece;

	if (piece_init(&piece, n)) {
		fail_all(asked, n, kx_error_nomem(&error), &error);
		return;
	}
	pthread_rwlock_rdlock(&mirror->lock);
	search_piece(mirror, asked, n, &piece);
	pthread_rwlock_unlock(&mirror->lock);
	piece_done(&piece);
}

size_t kx_mirror_still_asked(struct kx_mirror_asked *const *asked, size_t n, struct kx_mirror_asked **ret)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++)
		if (asked[i]->status == KX_EBUSY)
			ret[count++] = asked[i];
	return count;
}

/* Those that could not be answered before all is loaded. */
static kx_status search_loaded(struct kx_mirror *mirror, struct kx_mirror_asked *const *asked, size_t n,
			       struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) struct kx_mirror_asked **open = malloc((n + 1) * sizeof(struct kx_mirror_asked *));
	size_t count;
	kx_status status;

	if (!open)
		return kx_error_nomem(error);
	count = kx_mirror_still_asked(asked, n, open);
	status = count ? kx_mirror_need(mirror, error) : KX_OK;
	if (count && !status)
		kx_mirror_search_here(mirror, open, count);
	return status;
}

size_t kx_mirror_search_many(struct kx_mirror *mirror, struct kx_mirror_asked *const *asked, size_t n)
{
	bool loaded = atomic_load(&mirror->loaded);
	struct kx_error error = {0};
	kx_status status = KX_OK;

	n = piece_of(!loaded && mirror->early ? mirror->early : mirror, asked, n);
	if (loaded) {
		kx_mirror_search_here(mirror, asked, n);
		return n;
	}
	kx_mirror_search_early(mirror, asked, n);
	status = search_loaded(mirror, asked, n, &error);
	for (size_t i = 0; status && i < n; i++)
		if (asked[i]->status == KX_EBUSY)
			fail_all(&asked[i], 1, status, &error);
	return n;
}

kx_status kx_mirror_search(struct kx_mirror *mirror, const struct kx_mirror_query *query, struct kx_similar_answer *answer,
			   struct kx_error *error)
{
	struct kx_mirror_asked one = {.query = *query, .answer = answer}, *asked = &one;

	(void)kx_mirror_search_many(mirror, &asked, 1);
	if (one.status && error)
		*error = one.error;
	return one.status;
}

/* --- For searches that go to the store ------------------------------------------------------------------------ */

static kx_status list_rows(const struct search *search, struct kx_id_list *ret)
{
	const struct kx_mirror *mirror = search->mirror;
	const struct kx_bitmap *rows = search->rows.words ? &search->rows
				       : search->entry	  ? &search->entry->rows
							  : &mirror->columns->live;

	ret->ids = calloc(mirror->count + 1u, sizeof(char *));
	if (!ret->ids)
		return KX_ENOMEM;
	for (uint32_t row = 0; row < mirror->count; row++) {
		if (!kx_bitmap_has(rows, row) || row == search->ann.exclude)
			continue;
		ret->ids[ret->count] = kx_strdup(mirror->rows[row]->id);
		if (!ret->ids[ret->count])
			return KX_ENOMEM;
		ret->count++;
	}
	ret->epoch = mirror->epoch;
	return KX_OK;
}

kx_status kx_mirror_matching(struct kx_mirror *mirror, const struct kx_mirror_query *query, struct kx_id_list *ret,
			     struct kx_error *error)
{
	struct kx_id_list list = {0};
	struct search search;
	kx_status status = kx_mirror_need(mirror, error);

	if (status)
		return status;
	pthread_rwlock_rdlock(&mirror->lock);
	status = search_init(&search, mirror, query, error);
	if (!status && list_rows(&search, &list))
		status = kx_error_nomem(error);
	search_done(&search);
	pthread_rwlock_unlock(&mirror->lock);
	if (status)
		kx_id_list_done(&list);
	else
		*ret = list;
	return status;
}

kx_status kx_mirror_with_rows(struct kx_mirror *mirror, const struct kx_mirror_query *query,
			      kx_status (*run)(void *ctx, const struct kx_mirror_rows *rows, struct kx_error *error),
			      void *ctx, struct kx_error *error)
{
	struct kx_mirror_rows rows = {.mirror = mirror};
	struct search search;
	kx_status status = kx_mirror_need(mirror, error);

	if (status)
		return status;
	pthread_rwlock_rdlock(&mirror->lock);
	status = search_init(&search, mirror, query, error);
	if (!status) {
		rows.rows = search.ann.rows;
		rows.row_count = search.ann.row_count;
		rows.exclude = search.ann.exclude;
		rows.matching = matching(&search);
		rows.recall = query->query->recall > 0.0 ? query->query->recall : mirror->recall;
		status = run(ctx, &rows, error);
	}
	search_done(&search);
	pthread_rwlock_unlock(&mirror->lock);
	return status;
}

void kx_id_list_done(struct kx_id_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->ids[i]);
	free(list->ids);
	*list = (struct kx_id_list){0};
}

kx_status kx_mirror_describe(struct kx_mirror *mirror, const struct kx_mirror_query *query, struct kx_similar_hit *hit,
			     struct kx_error *error)
{
	struct search search = {.mirror = mirror, .query = query};
	kx_status status = kx_mirror_need(mirror, error);

	if (status)
		return status;
	pthread_rwlock_rdlock(&mirror->lock);
	if (query->query->explain) /* all else of the query is of no matter any more */
		status = use_filter(&search, error);
	if (!status) {
		const struct mirror_row *row = kx_mirror_row(mirror, hit->video_id);

		if (row && describe(&search, row->number, hit))
			status = kx_error_nomem(error);
	}
	search_done(&search);
	pthread_rwlock_unlock(&mirror->lock);
	return status;
}

kx_status kx_mirror_set_duplicates(struct kx_mirror *mirror, const struct kx_duplicate_pair *pairs, size_t count)
{
	kx_status status = kx_mirror_need(mirror, NULL);

	if (status)
		return status;
	pthread_rwlock_wrlock(&mirror->lock);
	for (uint32_t row = 0; !status && row < mirror->count; row++)
		if (kx_bitmap_has(&mirror->columns->live, row))
			status = kx_columns_set_duplicate_of(mirror->columns, row, NULL);
	for (size_t i = 0; !status && i < count; i++) {
		const struct mirror_row *row = kx_mirror_row(mirror, pairs[i].id);

		if (row)
			status = kx_columns_set_duplicate_of(mirror->columns, row->number, pairs[i].of);
	}
	for (uint32_t row = 0; row < mirror->count; row++)
		kx_filter_cache_changed(mirror->cache, mirror->columns, row);
	pthread_rwlock_unlock(&mirror->lock);
	return status;
}
