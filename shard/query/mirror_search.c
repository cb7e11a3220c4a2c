/* The nearest videos: filter to rows, rows to candidates, candidates to a page, all under one reader's lock. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "shard/query/mirror_internal.h"
#include "shard/query/page.h"

struct search {
	const struct kx_mirror *mirror;
	const struct kx_mirror_query *query;
	const struct kx_filter_entry *entry; /* NULL: no filter */
	struct kx_bitmap rows;               /* where not_ids leave something out of the filter's */
	struct kx_ann_query ann;
	struct kx_cursor cursor;
	struct kx_ann_work work;
};

static void search_done(struct search *search)
{
	kx_filter_cache_release(search->mirror->cache, search->entry);
	kx_bitmap_done(&search->rows);
	kx_cursor_done(&search->cursor);
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
	uint32_t count;
	const uint32_t *labels = kx_columns_labels(columns, row, &count);

	if (!count)
		return KX_OK;
	hit->labels = calloc(count, sizeof(char *));
	if (!hit->labels)
		return KX_ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		hit->labels[i] = kx_strdup(kx_words_text(&columns->words, labels[i]));
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

struct found {
	struct kx_ann_hit *hits;
	struct kx_candidate *candidates;
	uint32_t *chosen;
	size_t count;
};

static void found_done(struct found *found)
{
	free(found->hits);
	free(found->candidates);
	free(found->chosen);
	*found = (struct found){0};
}

static kx_status find(struct search *search, size_t want, struct found *found, struct kx_error *error)
{
	kx_status status;

	found_done(found);
	found->hits = calloc(want, sizeof(*found->hits));
	found->candidates = calloc(want, sizeof(*found->candidates));
	found->chosen = calloc(search->query->query->k, sizeof(*found->chosen));
	if (!found->hits || !found->candidates || !found->chosen)
		return kx_error_nomem(error);
	search->ann.k = want;
	status = kx_ann_search(search->mirror->ann, &search->ann, found->hits, &found->count, &search->work, error);
	for (size_t i = 0; !status && i < found->count; i++)
		found->candidates[i] = (struct kx_candidate){.row = found->hits[i].row,
							     .score = found->hits[i].score,
							     .id = search->mirror->rows[found->hits[i].row]->id};
	return status;
}

/* How many candidates are asked for first. Groups need those before the page, too, to know which were told. */
static size_t first_want(const struct kx_similar_query *query)
{
	size_t k = query->k;

	if (query->diversity > 0.0)
		return 20 * k + 100;
	return query->group == KX_GROUP_NONE ? k + 16 : 4 * k + 64;
}

static kx_status find_page(struct search *search, struct found *found, uint32_t *ret_count, bool *ret_more,
			   struct kx_error *error)
{
	const struct kx_similar_query *query = search->query->query;
	struct kx_page_rules rules = {.k = query->k,
				      .has_min_score = query->has_min_score,
				      .min_score = query->min_score,
				      .cursor = search->cursor.video_id ? &search->cursor : NULL,
				      .group = query->group != KX_GROUP_NONE ? group_of : NULL,
				      .diversity = query->diversity,
				      .likeness = likeness,
				      .ctx = search};
	size_t rows = search->mirror->stats.videos, want = first_want(query);
	bool more_needed = true;

	search->ann.has_ceiling = rules.cursor && !rules.group;
	search->ann.ceiling = search->cursor.score;
	while (more_needed) {
		kx_status status;

		want = want < rows + 1 ? want : rows + 1;
		status = find(search, want, found, error);
		if (status)
			return status;
		if (kx_page_take(&rules, found->candidates, found->count, found->count < want, found->chosen, ret_count,
				 ret_more, &more_needed))
			return kx_error_nomem(error);
		want *= 4;
	}
	return KX_OK;
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

static kx_status answer_page(struct search *search, struct kx_similar_answer *answer, struct kx_error *error)
{
	struct found found = {0};
	uint32_t count = 0;
	bool more = false;
	kx_status status = find_page(search, &found, &count, &more, error);

	if (!status && copy_hits(search, found.hits, found.chosen, count, answer))
		status = kx_error_nomem(error);
	if (!status && more && search->query->query->diversity <= 0.0 && set_next(search, answer))
		status = kx_error_nomem(error);
	if (!status)
		tell_work(search, answer);
	found_done(&found);
	return status;
}

kx_status kx_mirror_search_here(struct kx_mirror *mirror, const struct kx_mirror_query *query,
				struct kx_similar_answer *answer, struct kx_error *error)
{
	struct search search;
	kx_status status;

	pthread_rwlock_rdlock(&mirror->lock);
	status = search_init(&search, mirror, query, error);
	if (!status)
		status = answer_page(&search, answer, error);
	search_done(&search);
	pthread_rwlock_unlock(&mirror->lock);
	return status;
}

kx_status kx_mirror_search(struct kx_mirror *mirror, const struct kx_mirror_query *query, struct kx_similar_answer *answer,
			   struct kx_error *error)
{
	kx_status status = atomic_load(&mirror->loaded) ? KX_EBUSY : kx_mirror_search_early(mirror, query, answer, error);

	if (status != KX_EBUSY)
		return status;
	status = kx_mirror_need(mirror, error);
	return status ? status : kx_mirror_search_here(mirror, query, answer, error);
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
		const struct mirror_row *is;

		if (!kx_bitmap_has(rows, row) || row == search->ann.exclude)
			continue;
		is = kx_mirror_at(mirror, row);
		ret->ids[ret->count] = is ? kx_strdup(is->id) : NULL;
		if (!ret->ids[ret->count])
			return KX_ENOMEM;
		ret->count++;
	}
	ret->epoch = mirror->epoch;
	return KX_OK;
}

static kx_status matching_here(struct kx_mirror *mirror, const struct kx_mirror_query *query, struct kx_id_list *ret,
			       struct kx_error *error)
{
	struct search search;
	kx_status status;

	pthread_rwlock_rdlock(&mirror->lock);
	status = search_init(&search, mirror, query, error);
	if (!status && list_rows(&search, ret))
		status = kx_error_nomem(error);
	search_done(&search);
	pthread_rwlock_unlock(&mirror->lock);
	if (status)
		kx_id_list_done(ret);
	return status;
}

kx_status kx_mirror_matching(struct kx_mirror *mirror, const struct kx_mirror_query *query, struct kx_id_list *ret,
			     struct kx_error *error)
{
	struct kx_mirror *kept = kx_mirror_kept_begin(mirror, false);
	struct kx_id_list list = {0};
	kx_status status = KX_EBUSY;

	if (kept) {
		status = matching_here(kept, query, &list, error);
		kx_mirror_kept_answered(mirror);
		status = kx_mirror_kept_end(mirror, status);
	}
	if (status == KX_EBUSY) {
		kx_id_list_done(&list);
		status = kx_mirror_need(mirror, error);
		if (!status)
			status = matching_here(mirror, query, &list, error);
	}
	if (!status)
		*ret = list;
	return status;
}

static kx_status with_rows_here(struct kx_mirror *mirror, const struct kx_mirror_query *query,
				kx_status (*run)(void *ctx, const struct kx_mirror_rows *rows, struct kx_error *error),
				void *ctx, struct kx_error *error)
{
	struct kx_mirror_rows rows = {.mirror = mirror};
	struct search search;
	kx_status status;

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

kx_status kx_mirror_with_rows(struct kx_mirror *mirror, const struct kx_mirror_query *query,
			      kx_status (*run)(void *ctx, const struct kx_mirror_rows *rows, struct kx_error *error),
			      void *ctx, struct kx_error *error)
{
	struct kx_mirror *kept = kx_mirror_kept_begin(mirror, true);
	kx_status status = KX_EBUSY;

	if (kept) {
		status = with_rows_here(kept, query, run, ctx, error);
		kx_mirror_kept_answered(mirror);
		status = kx_mirror_kept_end(mirror, status);
	}
	if (status != KX_EBUSY)
		return status;
	status = kx_mirror_need(mirror, error);
	return status ? status : with_rows_here(mirror, query, run, ctx, error);
}

void kx_id_list_done(struct kx_id_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->ids[i]);
	free(list->ids);
	*list = (struct kx_id_list){0};
}

static kx_status describe_here(struct kx_mirror *mirror, const struct kx_mirror_query *query, struct kx_similar_hit *hit,
			       struct kx_error *error)
{
	struct search search = {.mirror = mirror, .query = query};
	kx_status status = KX_OK;

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

kx_status kx_mirror_describe(struct kx_mirror *mirror, const struct kx_mirror_query *query, struct kx_similar_hit *hit,
			     struct kx_error *error)
{
	struct kx_mirror *kept =
		query->query->group == KX_GROUP_DUPLICATES ? NULL : kx_mirror_kept_begin(mirror, false);
	struct kx_similar_hit as_it_was = *hit, said = *hit;
	kx_status status = KX_EBUSY;

	if (kept)
		status = kx_mirror_kept_end(mirror, describe_here(kept, query, &said, error));
	if (status != KX_EBUSY) {
		*hit = said;
		return status;
	}
	if (kept) {
		said.video_id = NULL; /* not ours */
		kx_similar_hit_done(&said);
		*hit = as_it_was;
	}
	status = kx_mirror_need(mirror, error);
	return status ? status : describe_here(mirror, query, hit, error);
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
