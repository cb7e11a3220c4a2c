#include "shard/query/moments.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "shard/query/moments_internal.h"

#define TRIM_FACTOR 4u /* how much more than a page is kept before the worst go */

struct scan {
	const struct kx_query_context *context;
	const struct kx_mirror_query *query;
	struct kx_cursor cursor;
	struct kx_moment_reader reader;
	struct kx_moment_search search; /* by the index */
	struct kx_moment_hits hits;
	uint64_t epoch;
	uint64_t matching;
};

static void scan_done(struct scan *scan)
{
	kx_cursor_done(&scan->cursor);
	kx_moment_reader_done(&scan->reader);
	kx_moment_search_done(&scan->search);
	kx_moment_hits_done(&scan->hits);
	free(scan);
}

/* --- By reading -------------------------------------------------------------------------------------------------- */

static void trim(struct scan *scan)
{
	size_t page = scan->query->query->k + 1u;

	if (scan->query->query->group != KX_GROUP_NONE || scan->hits.count < TRIM_FACTOR * page)
		return;
	qsort(scan->hits.list, scan->hits.count, sizeof(*scan->hits.list), kx_moment_hit_compare);
	scan->hits.count = page;
}

static kx_status read_all(struct scan *scan, struct kx_id_list *ids, struct kx_error *error)
{
	bool one = scan->query->query->group != KX_GROUP_NONE;
	kx_status status = kx_mirror_matching(scan->context->mirror, scan->query, ids, error);

	for (size_t i = 0; !status && i < ids->count; i++) {
		if (scan->context->stop && kx_stop_asked(scan->context->stop))
			return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "the shard is stopping");
		status = kx_moment_read_video(&scan->reader, ids->ids[i], (uint32_t)i, one, &scan->hits, error);
		trim(scan);
	}
	if (status)
		return status;
	if (scan->hits.count)
		qsort(scan->hits.list, scan->hits.count, sizeof(*scan->hits.list), kx_moment_hit_compare);
	scan->epoch = ids->epoch;
	scan->matching = ids->count;
	return KX_OK;
}

/* --- The page ---------------------------------------------------------------------------------------------------- */

static char *group_of(const void *ctx, const struct kx_candidate *candidate)
{
	const struct scan *scan = ctx;
	struct kx_similar_hit hit = {.video_id = (char *)(uintptr_t)candidate->id};
	char *key = NULL;

	if (scan->query->query->group == KX_GROUP_SOURCE)
		return kx_strdup(candidate->id);
	if (!kx_mirror_describe(scan->context->mirror, scan->query, &hit, NULL))
		key = kx_strdup(hit.group_key ? hit.group_key : candidate->id);
	hit.video_id = NULL; /* not ours */
	kx_similar_hit_done(&hit);
	return key;
}

static kx_status copy_hit(const struct scan *scan, const struct kx_moment_hit *from, struct kx_similar_hit *hit,
			  struct kx_error *error)
{
	kx_status status;

	*hit = (struct kx_similar_hit){
		.video_id = kx_strdup(from->at.id),
		.score = from->at.score,
		.visual = from->share[0],
		.audio = from->share[1],
		.has_visual = from->has[0],
		.has_audio = from->has[1],
		.has_moment = true,
		.moment_start_us = from->at.moment_us,
		.moment_end_us = from->end_us,
	};
	if (!hit->video_id)
		return kx_error_nomem(error);
	status = kx_mirror_describe(scan->context->mirror, scan->query, hit, error);
	if (!status && scan->query->query->group == KX_GROUP_SOURCE && kx_str_set(&hit->group_key, from->at.id))
		status = kx_error_nomem(error);
	return status;
}

static kx_status set_next(const struct scan *scan, struct kx_similar_answer *answer)
{
	const struct kx_similar_hit *last = &answer->hits[answer->hit_count - 1];
	struct kx_cursor cursor = {.fingerprint = kx_similar_query_fingerprint(scan->query->query),
				   .epoch = scan->epoch,
				   .score = last->score,
				   .moment_us = last->moment_start_us,
				   .video_id = last->video_id};

	answer->next = kx_cursor_encode(&cursor);
	return answer->next ? KX_OK : KX_ENOMEM;
}

/* Which of the hits are on the page. *ret_short: it takes more of them to tell. */
struct page {
	uint32_t *chosen; /* [k] */
	uint32_t count;
	bool more, is_short;
};

static kx_status choose(const struct scan *scan, const struct kx_moment_hits *hits, bool is_all, struct page *page)
{
	const struct kx_similar_query *query = scan->query->query;
	struct kx_page_rules rules = {.k = query->k,
				      .has_min_score = query->has_min_score,
				      .min_score = query->min_score,
				      .cursor = scan->cursor.video_id ? &scan->cursor : NULL,
				      .group = query->group != KX_GROUP_NONE ? group_of : NULL,
				      .ctx = scan};
	struct kx_candidate *candidates = calloc(hits->count + 1u, sizeof(*candidates));
	kx_status status;

	if (!candidates)
		return KX_ENOMEM;
	for (size_t i = 0; i < hits->count; i++)
		candidates[i] = hits->list[i].at;
	status = kx_page_take(&rules, candidates, hits->count, is_all, page->chosen, &page->count, &page->more,
			      &page->is_short);
	free(candidates);
	return status;
}

static kx_status copy_page(struct scan *scan, const struct kx_moment_hits *hits, const struct page *page,
			   struct kx_similar_answer *answer, struct kx_error *error)
{
	kx_status status = KX_OK;

	answer->hits = calloc(page->count ? page->count : 1, sizeof(*answer->hits));
	if (!answer->hits)
		return kx_error_nomem(error);
	for (uint32_t i = 0; !status && i < page->count; i++) {
		answer->hit_count = i + 1;
		status = copy_hit(scan, &hits->list[page->chosen[i]], &answer->hits[i], error);
	}
	if (!status && page->more && set_next(scan, answer))
		status = kx_error_nomem(error);
	answer->work.matching = scan->matching;
	answer->changed = scan->cursor.epoch && scan->cursor.epoch != scan->epoch;
	answer->shards_asked = answer->shards_answered = 1;
	return status;
}

static kx_status answer_by_reading(struct scan *scan, struct page *page, struct kx_similar_answer *answer,
				   struct kx_error *error)
{
	struct kx_id_list ids = {0};
	kx_status status = read_all(scan, &ids, error);

	if (!status && choose(scan, &scan->hits, true, page))
		status = kx_error_nomem(error);
	if (!status)
		status = copy_page(scan, &scan->hits, page, answer, error);
	answer->exact = true;
	answer->recall = 1.0;
	answer->work.rows = answer->work.refined = scan->reader.read;
	kx_id_list_done(&ids);
	return status;
}

/* --- By the index ------------------------------------------------------------------------------------------------ */

/* More and more of the nearest, until the page is full. *ret_read: the index is not the way to it. */
static kx_status answer_by_index(struct scan *scan, struct page *page, struct kx_similar_answer *answer, bool *ret_read,
				 struct kx_error *error)
{
	struct kx_moment_search *search = &scan->search;
	const struct kx_similar_query *query = scan->query->query;
	kx_status status = KX_OK;

	search->reader = &scan->reader;
	search->stop = scan->context->stop;
	search->want = query->group == KX_GROUP_NONE ? query->k + 1u : 4u * query->k + 64u;
	for (page->is_short = true; !status && page->is_short; search->want *= 4) {
		status = kx_moment_search(scan->context->mirror, search, error);
		*ret_read = search->read_all;
		if (status || *ret_read)
			return status;
		if (choose(scan, &search->hits, search->hits.count < search->want, page))
			return kx_error_nomem(error);
	}
	if (status)
		return status;
	scan->epoch = search->ids.epoch;
	scan->matching = search->matching;
	status = copy_page(scan, &search->hits, page, answer, error);
	answer->exact = search->work.exact;
	answer->recall = search->work.exact ? 1.0 : search->recall;
	answer->work.rows = search->work.rows;
	answer->work.cells = search->work.cells;
	answer->work.codes = search->work.codes;
	answer->work.refined = search->work.refined;
	return status;
}

static kx_status answer_query(struct scan *scan, struct kx_similar_answer *answer, struct kx_error *error)
{
	const struct kx_similar_query *query = scan->query->query;
	KX_CLEANUP(kx_cleanup_free) uint32_t *chosen = calloc(query->k, sizeof(*chosen));
	struct page page = {.chosen = chosen};
	bool read = true;
	kx_status status = KX_OK;

	if (!chosen)
		return kx_error_nomem(error);
	if (query->cursor && query->cursor[0])
		status = kx_cursor_decode(query->cursor, kx_similar_query_fingerprint(query), &scan->cursor, error);
	if (scan->cursor.video_id)
		scan->reader.cursor = &scan->cursor;
	if (!status && kx_mirror_moments(scan->context->mirror))
		status = answer_by_index(scan, &page, answer, &read, error);
	scan->reader.read = 0;
	return status || !read ? status : answer_by_reading(scan, &page, answer, error);
}

kx_status kx_query_moments(const struct kx_query_context *context, const struct kx_mirror_query *query,
			   struct kx_similar_answer *answer, struct kx_error *error)
{
	struct scan *scan = calloc(1, sizeof(*scan));
	kx_status status;

	if (!scan)
		return kx_error_nomem(error);
	scan->context = context;
	scan->query = query;
	scan->reader.store = context->store;
	scan->reader.query = query;
	status = answer_query(scan, answer, error);
	scan_done(scan);
	return status;
}
