#include "gateway/backend/merge.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "common/record/cursor.h"

static int by_score(const void *a, const void *b)
{
	const struct kx_similar_hit *x = a, *y = b;

	return kx_hit_order(x->score, x->video_id, x->moment_start_us, y->score, y->video_id, y->moment_start_us);
}

/* Equal for hits that stand for one another: of one video (and moment), or of one group. */
static int by_identity(const void *a, const void *b)
{
	const struct kx_similar_hit *x = *(struct kx_similar_hit *const *)a, *y = *(struct kx_similar_hit *const *)b;
	int by_id = strcmp(x->video_id, y->video_id);

	if (by_id != 0)
		return by_id;
	if (x->moment_start_us != y->moment_start_us)
		return x->moment_start_us > y->moment_start_us ? 1 : -1;
	return (x > y) - (x < y); /* the better one, which stands before it, first */
}

static int by_group(const void *a, const void *b)
{
	const struct kx_similar_hit *x = *(struct kx_similar_hit *const *)a, *y = *(struct kx_similar_hit *const *)b;
	int by_key = strcmp(x->group_key, y->group_key);

	return by_key != 0 ? by_key : (x > y) - (x < y);
}

static bool is_same_video(const struct kx_similar_hit *a, const struct kx_similar_hit *b)
{
	return strcmp(a->video_id, b->video_id) == 0 && a->moment_start_us == b->moment_start_us;
}

/* Marks all but the best of those that stand for one another. order: room for count pointers. */
static void mark_repeats(struct kx_similar_hit *hits, uint32_t count, struct kx_similar_hit **order, bool *repeated)
{
	uint32_t grouped = 0;

	for (uint32_t i = 0; i < count; i++)
		order[i] = &hits[i];
	qsort(order, count, sizeof(*order), by_identity);
	for (uint32_t i = 1; i < count; i++)
		if (is_same_video(order[i - 1], order[i]))
			repeated[order[i] - hits] = true;
	for (uint32_t i = 0; i < count; i++)
		if (hits[i].group_key != NULL && hits[i].group_key[0] != '\0')
			order[grouped++] = &hits[i];
	qsort(order, grouped, sizeof(*order), by_group);
	for (uint32_t i = 1; i < grouped; i++)
		if (strcmp(order[i - 1]->group_key, order[i]->group_key) == 0)
			repeated[order[i] - hits] = true;
}

/* Of the sorted hits keeps the first k that are no repeats. *ret_more: there are others behind. */
static uint32_t choose(struct kx_similar_hit *hits, uint32_t count, uint32_t k, const bool *repeated, bool *ret_more)
{
	uint32_t kept = 0;

	*ret_more = false;
	for (uint32_t i = 0; i < count; i++) {
		*ret_more = *ret_more || (!repeated[i] && kept >= k);
		if (repeated[i] || kept >= k) {
			kx_similar_hit_done(&hits[i]);
		} else if (kept++ != i) {
			hits[kept - 1] = hits[i];
			memset(&hits[i], 0, sizeof(hits[i]));
		}
	}
	return kept;
}

static kx_status choose_hits(struct kx_similar_answer *into, uint32_t k, bool *ret_more)
{
	struct kx_similar_hit **order = calloc((size_t)into->hit_count + 1, sizeof(struct kx_similar_hit *));
	bool *repeated = calloc((size_t)into->hit_count + 1, sizeof(*repeated));
	kx_status status = order != NULL && repeated != NULL ? KX_OK : KX_ENOMEM;

	if (status == KX_OK) {
		qsort(into->hits, into->hit_count, sizeof(*into->hits), by_score);
		mark_repeats(into->hits, into->hit_count, order, repeated);
		into->hit_count = choose(into->hits, into->hit_count, k, repeated, ret_more);
	}
	free(order);
	free(repeated);
	return status;
}

/* Moves the hits out of the answers into one list. */
static kx_status gather(struct kx_similar_answer **answers, unsigned count, struct kx_similar_answer *into)
{
	size_t total = 0;

	for (unsigned i = 0; i < count; i++)
		total += answers[i]->hit_count;
	into->hits = calloc(total + 1, sizeof(*into->hits));
	if (into->hits == NULL)
		return KX_ENOMEM;
	for (unsigned i = 0; i < count; i++) {
		if (answers[i]->hit_count > 0)
			memcpy(into->hits + into->hit_count, answers[i]->hits, answers[i]->hit_count * sizeof(*into->hits));
		into->hit_count += answers[i]->hit_count;
		answers[i]->hit_count = 0;
	}
	return KX_OK;
}

static void add_up(const struct kx_similar_answer *one, struct kx_similar_answer *into)
{
	into->exact = into->exact && one->exact;
	into->recall = one->recall < into->recall ? one->recall : into->recall;
	into->work.rows += one->work.rows;
	into->work.matching += one->work.matching;
	into->work.cells += one->work.cells;
	into->work.codes += one->work.codes;
	into->work.refined += one->work.refined;
	into->work.took_us = one->work.took_us > into->work.took_us ? one->work.took_us : into->work.took_us;
	into->partial = into->partial || one->partial;
	into->changed = into->changed || one->changed;
}

/* What is wrong with a query every shard says alike, and one is enough to tell it. */
static kx_status copy_refusal(struct kx_similar_answer **answers, unsigned count, struct kx_similar_answer *into)
{
	for (unsigned i = 0; i < count && into->status == KX_OK; i++) {
		if (answers[i]->status == KX_OK)
			continue;
		into->status = answers[i]->status;
		return kx_str_set(&into->message, answers[i]->message);
	}
	return KX_OK;
}

/* The cursor behind the last hit; each shard goes on from there. */
static kx_status set_next(const struct kx_similar_query *query, struct kx_similar_answer *into)
{
	const struct kx_similar_hit *last = &into->hits[into->hit_count - 1];
	struct kx_cursor cursor = {.fingerprint = kx_similar_query_fingerprint(query),
				   .score = last->score,
				   .moment_us = last->has_moment ? last->moment_start_us : 0,
				   .video_id = last->video_id};

	free(into->next);
	into->next = kx_cursor_encode(&cursor);
	return into->next != NULL ? KX_OK : KX_ENOMEM;
}

static kx_status merge_hits(const struct kx_similar_query *query, struct kx_similar_answer **answers, unsigned count,
			    struct kx_similar_answer *into)
{
	bool more, theirs_more = false;

	for (unsigned i = 0; i < count; i++) {
		add_up(answers[i], into);
		theirs_more = theirs_more || (answers[i]->next != NULL && answers[i]->next[0] != '\0');
	}
	kx_status status = gather(answers, count, into);
	if (status == KX_OK)
		status = choose_hits(into, query->k, &more);
	if (status != KX_OK || !(more || theirs_more) || into->hit_count == 0 || query->diversity > 0)
		return status;
	return set_next(query, into);
}

static kx_status merge_similar(const struct kx_similar_query *query, struct kx_similar_answer **answers, unsigned count,
			       struct kx_similar_answer *into)
{
	*into = (struct kx_similar_answer){
		.exact = true, .recall = 1.0, .message = kx_strdup(""), .next = kx_strdup("")};
	if (into->message == NULL || into->next == NULL)
		return KX_ENOMEM;
	kx_status status = copy_refusal(answers, count, into);
	if (status != KX_OK || into->status != KX_OK)
		return status;
	return merge_hits(query, answers, count, into);
}

static kx_status merge_single(const struct kx_query_request *request, struct kx_query_reply **replies, unsigned count,
			      struct kx_query_reply *into)
{
	struct kx_similar_answer **answers = calloc(count, sizeof(struct kx_similar_answer *));
	if (answers == NULL)
		return KX_ENOMEM;
	for (unsigned i = 0; i < count; i++)
		answers[i] = &replies[i]->similar;
	kx_status status = merge_similar(&request->similar, answers, count, &into->similar);
	free(KX_STEAL(into->similar.message)); /* of a single answer they stand in the reply */
	free(answers);
	return status;
}

static kx_status merge_batch(const struct kx_query_request *request, struct kx_query_reply **replies, unsigned count,
			     struct kx_query_reply *into)
{
	struct kx_similar_answer **answers = calloc(count, sizeof(struct kx_similar_answer *));
	kx_status status = KX_OK;

	into->answers = calloc(request->batch_count + 1, sizeof(*into->answers));
	if (answers == NULL || into->answers == NULL)
		status = KX_ENOMEM;
	for (uint32_t q = 0; q < request->batch_count && status == KX_OK; q++) {
		unsigned have = 0;

		for (unsigned i = 0; i < count; i++)
			if (q < replies[i]->answer_count)
				answers[have++] = &replies[i]->answers[q];
		status = merge_similar(&request->batch[q], answers, have, &into->answers[q]);
		into->answer_count++;
	}
	free(answers);
	return status;
}

/* A video that moved may be at two shards for a while: the newer one counts. */
static bool is_newer(const struct kx_video_record *video, const struct kx_video_record *than)
{
	return video != NULL && (than == NULL || video->generation > than->generation);
}

static void merge_video(struct kx_query_reply **replies, unsigned count, struct kx_query_reply *into)
{
	struct kx_query_reply *best = replies[0];

	for (unsigned i = 1; i < count; i++)
		if (is_newer(replies[i]->video, best->video))
			best = replies[i];
	into->video = KX_STEAL(best->video);
	into->moments = KX_STEAL(best->moments);
	into->moment_count = best->moment_count;
	best->moment_count = 0;
}

/* What `found` had goes with the reply. */
static void take_found(struct kx_found_video *found, struct kx_found_video *from)
{
	struct kx_found_video had = *found;

	found->video = from->video;
	found->moments = from->moments;
	found->moment_count = from->moment_count;
	from->video = had.video;
	from->moments = had.moments;
	from->moment_count = had.moment_count;
}

static kx_status merge_videos(const struct kx_query_request *request, struct kx_query_reply **replies, unsigned count,
			      struct kx_query_reply *into)
{
	into->found = calloc(request->video_id_count + 1, sizeof(*into->found));
	if (into->found == NULL)
		return KX_ENOMEM;
	for (uint32_t v = 0; v < request->video_id_count; v++) {
		struct kx_found_video *found = &into->found[v];

		found->video_id = kx_strdup(request->video_ids[v]);
		if (found->video_id == NULL)
			return KX_ENOMEM;
		into->found_count++;
		for (unsigned i = 0; i < count; i++) {
			if (v >= replies[i]->found_count || !is_newer(replies[i]->found[v].video, found->video))
				continue;
			take_found(found, &replies[i]->found[v]);
		}
	}
	return KX_OK;
}

/* Live recall: the mean over all samples. */
static void merge_index_stats(const struct kx_shard_stats *from, struct kx_shard_stats *into)
{
	double before = (double)into->index_recall_samples, more = (double)from->index_recall_samples;

	into->index_vectors += from->index_vectors;
	into->index_cells += from->index_cells;
	if (!from->index_recall_samples)
		return;
	into->index_recall = (into->index_recall * before + from->index_recall * more) / (before + more);
	into->index_recall_wanted =
		(into->index_recall_wanted * before + from->index_recall_wanted * more) / (before + more);
	into->index_recall_samples += from->index_recall_samples;
}

static void merge_stats(struct kx_query_reply **replies, unsigned count, struct kx_query_reply *into)
{
	for (unsigned i = 0; i < count; i++) {
		merge_index_stats(&replies[i]->stats, &into->stats);
		into->stats.videos += replies[i]->stats.videos;
		into->stats.pending += replies[i]->stats.pending;
		into->stats.moments += replies[i]->stats.moments;
		into->stats.media_us += replies[i]->stats.media_us;
		into->stats.disk_bytes += replies[i]->stats.disk_bytes;
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct kx_attribute_info *)a)->name, ((const struct kx_attribute_info *)b)->name);
}

static int by_value(const void *a, const void *b)
{
	return strcmp(((const struct kx_attribute_value *)a)->value, ((const struct kx_attribute_value *)b)->value);
}

static int by_frequency(const void *a, const void *b)
{
	const struct kx_attribute_value *x = a, *y = b;

	return x->videos != y->videos ? (x->videos > y->videos ? -1 : 1) : by_value(a, b);
}

static void value_done(struct kx_attribute_value *value)
{
	free(value->value);
	*value = (struct kx_attribute_value){0};
}

/* Sums equal values, the most frequent first, no more than may be told. */
static void settle_values(struct kx_attribute_info *info)
{
	uint32_t kept = 0;

	qsort(info->values, info->value_count, sizeof(*info->values), by_value);
	for (uint32_t i = 0; i < info->value_count; i++) {
		if (kept > 0 && strcmp(info->values[kept - 1].value, info->values[i].value) == 0) {
			info->values[kept - 1].videos += info->values[i].videos;
			value_done(&info->values[i]);
		} else if (kept++ != i) {
			info->values[kept - 1] = info->values[i];
			info->values[i] = (struct kx_attribute_value){0};
		}
	}
	qsort(info->values, kept, sizeof(*info->values), by_frequency);
	for (; kept > KX_QUERY_ATTRIBUTE_VALUES_MAX; kept--)
		value_done(&info->values[kept - 1]);
	info->value_count = kept;
}

/* Takes more's values over. `distinct` is at least the larger of the two: which values both have is not told. */
static kx_status join_attribute(struct kx_attribute_info *info, struct kx_attribute_info *more)
{
	size_t total = (size_t)info->value_count + more->value_count;
	struct kx_attribute_value *values = realloc(info->values, (total + 1) * sizeof(*values));

	if (values == NULL)
		return KX_ENOMEM;
	info->values = values;
	if (more->value_count > 0)
		memcpy(values + info->value_count, more->values, more->value_count * sizeof(*values));
	info->value_count = (uint32_t)total;
	more->value_count = 0;
	info->videos += more->videos;
	info->distinct = more->distinct > info->distinct ? more->distinct : info->distinct;
	if (more->has_range && (!info->has_range || more->min < info->min))
		info->min = more->min;
	if (more->has_range && (!info->has_range || more->max > info->max))
		info->max = more->max;
	info->has_range = info->has_range || more->has_range;
	settle_values(info);
	return KX_OK;
}

static void attribute_done(struct kx_attribute_info *info)
{
	for (uint32_t i = 0; i < info->value_count; i++)
		free(info->values[i].value);
	free(info->values);
	free(info->name);
	*info = (struct kx_attribute_info){0};
}

static kx_status merge_schema(struct kx_query_reply **replies, unsigned count, struct kx_query_reply *into)
{
	uint32_t total = 0, kept = 0;
	kx_status status = KX_OK;

	for (unsigned i = 0; i < count; i++)
		total += replies[i]->attribute_count;
	into->attributes = calloc((size_t)total + 1, sizeof(*into->attributes));
	if (into->attributes == NULL)
		return KX_ENOMEM;
	for (unsigned i = 0; i < count; i++) {
		for (uint32_t a = 0; a < replies[i]->attribute_count; a++)
			into->attributes[into->attribute_count++] = replies[i]->attributes[a];
		replies[i]->attribute_count = 0;
	}
	qsort(into->attributes, total, sizeof(*into->attributes), by_name);
	for (uint32_t i = 0; i < total; i++) {
		struct kx_attribute_info *info = &into->attributes[i];

		if (kept > 0 && status == KX_OK && strcmp(into->attributes[kept - 1].name, info->name) == 0) {
			status = join_attribute(&into->attributes[kept - 1], info);
			attribute_done(info);
		} else if (kept++ != i) {
			into->attributes[kept - 1] = *info;
			*info = (struct kx_attribute_info){0};
		}
	}
	into->attribute_count = kept < KX_QUERY_ATTRIBUTES_MAX ? kept : KX_QUERY_ATTRIBUTES_MAX;
	for (uint32_t i = into->attribute_count; i < kept; i++)
		attribute_done(&into->attributes[i]);
	return status;
}

static kx_status merge(const struct kx_query_request *request, struct kx_query_reply **replies, unsigned count,
		       struct kx_query_reply *into)
{
	switch (request->kind) {
	case KX_QUERY_SIMILAR:
		return merge_single(request, replies, count, into);
	case KX_QUERY_SIMILAR_BATCH:
		return merge_batch(request, replies, count, into);
	case KX_QUERY_VIDEO:
		merge_video(replies, count, into);
		return KX_OK;
	case KX_QUERY_VIDEOS:
		return merge_videos(request, replies, count, into);
	case KX_QUERY_STATS:
		merge_stats(replies, count, into);
		return KX_OK;
	case KX_QUERY_SCHEMA:
		return merge_schema(replies, count, into);
	case KX_QUERY_CARE:
		break; /* nothing that goes to many */
	}
	return KX_EINVAL;
}

kx_status kx_replies_merge(const struct kx_query_request *request, struct kx_query_reply **replies, unsigned count,
			   struct kx_query_reply **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *into = calloc(1, sizeof(*into));

	if (into == NULL)
		return kx_error_nomem(error);
	into->message = kx_strdup("");
	kx_status status = into->message != NULL ? merge(request, replies, count, into) : KX_ENOMEM;
	if (status != KX_OK)
		return status == KX_ENOMEM ? kx_error_nomem(error)
					   : kx_error_set(error, status, KX_ERROR_POISON, "a query of an unknown kind");
	*ret = KX_STEAL(into);
	return KX_OK;
}
