#include "common/record/similar.h"

#include <float.h>

#include "common/record/similar_parts.h"

/* Cosines, with room for the rounding of a float. */
#define COSINE_MAX 1.001
#define WEIGHT_MAX 1e6

static Kinodex__V1__QueryVector *vector_write(struct kx_writer *w, const struct kx_query_vector *vector)
{
	Kinodex__V1__QueryVector *m = KX_WRITER_NEW(w, query_vector);

	if (m == NULL)
		return NULL;
	m->modality = vector->modality;
	m->space = vector->space;
	m->moment = vector->moment;
	m->n_values = vector->dim;
	m->values = vector->values;
	return m;
}

Kinodex__V1__QueryVector **kx_query_vectors_write(struct kx_writer *w, const struct kx_query_vector *vectors,
						  uint32_t count)
{
	Kinodex__V1__QueryVector **list = kx_writer_list(w, count);

	for (uint32_t i = 0; list != NULL && i < count; i++)
		list[i] = vector_write(w, &vectors[i]);
	return list;
}

static void vector_read(struct kx_reader *r, const Kinodex__V1__QueryVector *m, struct kx_query_vector *vector)
{
	vector->modality = kx_read_modality(r, m->modality);
	vector->space = kx_read_string(r, "space", m->space, 1, KX_SPACE_MAX - 1);
	vector->moment = kx_read_u32(r, "moment", m->moment, 0, KX_MOMENTS_MAX - 1);
	vector->dim = kx_read_dim(r, "values", m->n_values);
	vector->values = kx_read_floats(r, "values", m->values, m->n_values, vector->dim, -FLT_MAX, FLT_MAX);
}

struct kx_query_vector *kx_query_vectors_read(struct kx_reader *r, const char *field,
					      Kinodex__V1__QueryVector *const *list, size_t count, size_t max,
					      uint32_t *ret_count)
{
	struct kx_query_vector *vectors = kx_read_list(r, field, count, max, sizeof(*vectors), ret_count);

	for (uint32_t i = 0; i < *ret_count && kx_reader_enter_item(r, field, i); i++) {
		vector_read(r, list[i], &vectors[i]);
		kx_reader_leave(r);
	}
	return vectors;
}

void kx_query_vectors_free(struct kx_query_vector *vectors, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		free(vectors[i].space);
		free(vectors[i].values);
	}
	free(vectors);
}

Kinodex__V1__SimilarQuery *kx_similar_query_write(struct kx_writer *w, const struct kx_similar_query *query)
{
	Kinodex__V1__SimilarQuery *m = KX_WRITER_NEW(w, similar_query);

	if (m == NULL)
		return NULL;
	m->video_id = query->video_id;
	m->n_vectors = query->vector_count;
	m->vectors = kx_query_vectors_write(w, query->vectors, query->vector_count);
	m->n_moments = query->moment_count;
	m->moments = kx_query_vectors_write(w, query->moments, query->moment_count);
	m->k = query->k;
	m->weight_visual = query->weight_visual;
	m->weight_audio = query->weight_audio;
	m->with_moments = query->with_moments;
	m->moment_us = query->moment_us;
	m->filter = query->filter;
	m->has_min_score = query->has_min_score;
	m->min_score = query->min_score;
	m->cursor = query->cursor;
	m->group = query->group;
	m->diversity = query->diversity;
	m->n_not_ids = query->not_id_count;
	m->not_ids = query->not_ids;
	m->level = query->level;
	m->recall = query->recall;
	m->explain = query->explain;
	return m;
}

static void similar_check(struct kx_reader *r, const struct kx_similar_query *query)
{
	if (query->video_id != NULL && query->video_id[0] == '\0' && query->vector_count == 0)
		kx_reader_fail(r, KX_ECORRUPT, "video_id", "absent, and no vectors in its place");
	if (query->vector_count == 2 && query->vectors[0].modality == query->vectors[1].modality)
		kx_reader_fail(r, KX_ECORRUPT, "vectors", "two of one modality");
	if (!(query->weight_visual + query->weight_audio > 0.0))
		kx_reader_fail(r, KX_ECORRUPT, "weight_visual", "both weights are 0");
}

static double read_cosine(struct kx_reader *r, const char *field, double value)
{
	return kx_read_double(r, field, value, -COSINE_MAX, COSINE_MAX);
}

static void options_read(struct kx_reader *r, const Kinodex__V1__SimilarQuery *m, struct kx_similar_query *query)
{
	query->filter = kx_read_string(r, "filter", m->filter, 0, KX_QUERY_FILTER_BYTES_MAX);
	query->has_min_score = m->has_min_score;
	query->min_score = read_cosine(r, "min_score", m->min_score);
	query->cursor = kx_read_string(r, "cursor", m->cursor, 0, KX_QUERY_CURSOR_MAX);
	query->group = (enum kx_query_group)kx_read_u32(r, "group", m->group, KX_GROUP_NONE, KX_GROUP_DUPLICATES);
	query->diversity = kx_read_double(r, "diversity", m->diversity, 0.0, 1.0);
	query->not_ids = kx_read_strings(r, "not_ids", m->not_ids, m->n_not_ids, KX_QUERY_NOT_IDS_MAX, 1,
					 KX_ID_MAX, &query->not_id_count);
	query->level = (enum kx_query_level)kx_read_u32(r, "level", m->level, KX_LEVEL_VIDEOS, KX_LEVEL_MOMENTS);
	query->recall = kx_read_double(r, "recall", m->recall, 0.0, 1.0);
	query->explain = m->explain;
}

void kx_similar_query_read(struct kx_reader *r, const Kinodex__V1__SimilarQuery *m, struct kx_similar_query *query)
{
	query->video_id = kx_read_string(r, "video_id", m->video_id, 0, KX_ID_MAX);
	query->vectors = kx_query_vectors_read(r, "vectors", m->vectors, m->n_vectors, 2, &query->vector_count);
	query->moments = kx_query_vectors_read(r, "moments", m->moments, m->n_moments, KX_QUERY_MOMENTS_MAX,
				      &query->moment_count);
	query->k = kx_read_u32(r, "k", m->k, 1, KX_QUERY_K_MAX);
	query->weight_visual = kx_read_double(r, "weight_visual", m->weight_visual, 0.0, WEIGHT_MAX);
	query->weight_audio = kx_read_double(r, "weight_audio", m->weight_audio, 0.0, WEIGHT_MAX);
	query->with_moments = m->with_moments;
	query->moment_us = query->moment_count > 0 ? kx_read_moment_us(r, m->moment_us) : m->moment_us;
	options_read(r, m, query);
	similar_check(r, query);
}

void kx_similar_query_done(struct kx_similar_query *query)
{
	free(query->video_id);
	kx_query_vectors_free(query->vectors, query->vector_count);
	kx_query_vectors_free(query->moments, query->moment_count);
	free(query->filter);
	free(query->cursor);
	kx_clear_strings(query->not_ids, query->not_id_count);
	*query = (struct kx_similar_query){0};
}

static Kinodex__V1__MomentMatch *match_write(struct kx_writer *w, const struct kx_moment_match *match)
{
	Kinodex__V1__MomentMatch *m = KX_WRITER_NEW(w, moment_match);

	if (m == NULL)
		return NULL;
	m->ours_us = match->ours_us;
	m->theirs_us = match->theirs_us;
	m->score = match->score;
	m->visual = match->visual;
	m->audio = match->audio;
	return m;
}

static void match_read(struct kx_reader *r, const Kinodex__V1__MomentMatch *m, struct kx_moment_match *match)
{
	match->ours_us = kx_read_us(r, "ours_us", m->ours_us);
	match->theirs_us = kx_read_us(r, "theirs_us", m->theirs_us);
	match->score = read_cosine(r, "score", m->score);
	match->visual = read_cosine(r, "visual", m->visual);
	match->audio = read_cosine(r, "audio", m->audio);
}

static Kinodex__V1__FilterClause *clause_write(struct kx_writer *w, const struct kx_filter_clause *clause)
{
	Kinodex__V1__FilterClause *m = KX_WRITER_NEW(w, filter_clause);

	if (m == NULL)
		return NULL;
	m->clause = clause->clause;
	m->passed = clause->passed;
	m->value = clause->value;
	return m;
}

static Kinodex__V1__MomentSpan *span_write(struct kx_writer *w, const struct kx_similar_hit *hit)
{
	Kinodex__V1__MomentSpan *m = KX_WRITER_NEW(w, moment_span);

	if (m == NULL)
		return NULL;
	m->start_us = hit->moment_start_us;
	m->end_us = hit->moment_end_us;
	return m;
}

static Kinodex__V1__SimilarHit *hit_write(struct kx_writer *w, const struct kx_similar_hit *hit)
{
	Kinodex__V1__SimilarHit *m = KX_WRITER_NEW(w, similar_hit);

	if (m == NULL)
		return NULL;
	m->video_id = hit->video_id;
	m->title = hit->title;
	m->score = hit->score;
	m->visual = hit->visual;
	m->audio = hit->audio;
	m->has_visual = hit->has_visual;
	m->has_audio = hit->has_audio;
	m->duration_us = hit->duration_us;
	m->n_matches = hit->match_count;
	m->matches = kx_writer_list(w, hit->match_count);
	for (uint32_t i = 0; m->matches != NULL && i < hit->match_count; i++)
		m->matches[i] = match_write(w, &hit->matches[i]);
	m->source = kx_write_path(hit->source);
	m->n_labels = hit->label_count;
	m->labels = hit->labels;
	m->group_key = hit->group_key;
	m->n_clauses = hit->clause_count;
	m->clauses = kx_writer_list(w, hit->clause_count);
	for (uint32_t i = 0; m->clauses != NULL && i < hit->clause_count; i++)
		m->clauses[i] = clause_write(w, &hit->clauses[i]);
	if (hit->has_moment)
		m->moment = span_write(w, hit);
	return m;
}

static void hit_read_lists(struct kx_reader *r, const Kinodex__V1__SimilarHit *m, struct kx_similar_hit *hit)
{
	hit->matches = kx_read_list(r, "matches", m->n_matches, KX_QUERY_MOMENTS_MAX, sizeof(*hit->matches),
				    &hit->match_count);
	for (uint32_t i = 0; i < hit->match_count && kx_reader_enter_item(r, "matches", i); i++) {
		match_read(r, m->matches[i], &hit->matches[i]);
		kx_reader_leave(r);
	}
	hit->labels = kx_read_labels(r, m->labels, m->n_labels, &hit->label_count);
	hit->clauses = kx_read_list(r, "clauses", m->n_clauses, KX_QUERY_CLAUSES_MAX, sizeof(*hit->clauses),
				    &hit->clause_count);
	for (uint32_t i = 0; i < hit->clause_count && kx_reader_enter_item(r, "clauses", i); i++) {
		hit->clauses[i].clause = kx_read_string(r, "clause", m->clauses[i]->clause, 1, KX_QUERY_FILTER_BYTES_MAX);
		hit->clauses[i].passed = m->clauses[i]->passed;
		hit->clauses[i].value = kx_read_string(r, "value", m->clauses[i]->value, 0, KX_PATH_MAX);
		kx_reader_leave(r);
	}
}

static void hit_read_span(struct kx_reader *r, const Kinodex__V1__MomentSpan *m, struct kx_similar_hit *hit)
{
	if (m == NULL || !kx_reader_enter(r, "moment", m))
		return;
	hit->has_moment = true;
	hit->moment_start_us = kx_read_us(r, "start_us", m->start_us);
	hit->moment_end_us = kx_read_us(r, "end_us", m->end_us);
	if (m->end_us <= m->start_us)
		kx_reader_fail(r, KX_ECORRUPT, "end_us", "not after start_us");
	kx_reader_leave(r);
}

static void hit_read(struct kx_reader *r, const Kinodex__V1__SimilarHit *m, struct kx_similar_hit *hit)
{
	hit->video_id = kx_read_string(r, "video_id", m->video_id, 1, KX_ID_MAX);
	hit->title = kx_read_string(r, "title", m->title, 0, KX_TEXT_MAX);
	hit->score = read_cosine(r, "score", m->score);
	hit->visual = read_cosine(r, "visual", m->visual);
	hit->audio = read_cosine(r, "audio", m->audio);
	hit->has_visual = m->has_visual;
	hit->has_audio = m->has_audio;
	hit->duration_us = kx_read_us(r, "duration_us", m->duration_us);
	hit->source = kx_read_path(r, "source", m->source, 0);
	hit->group_key = kx_read_string(r, "group_key", m->group_key, 0, KX_PATH_MAX);
	hit_read_lists(r, m, hit);
	hit_read_span(r, m->moment, hit);
}

void kx_similar_hit_done(struct kx_similar_hit *hit)
{
	free(hit->video_id);
	free(hit->title);
	free(hit->matches);
	free(hit->source);
	kx_clear_strings(hit->labels, hit->label_count);
	free(hit->group_key);
	for (uint32_t i = 0; i < hit->clause_count; i++) {
		free(hit->clauses[i].clause);
		free(hit->clauses[i].value);
	}
	free(hit->clauses);
	*hit = (struct kx_similar_hit){0};
}

Kinodex__V1__SimilarHit **kx_similar_hits_write(struct kx_writer *w, const struct kx_similar_answer *answer)
{
	Kinodex__V1__SimilarHit **list = kx_writer_list(w, answer->hit_count);

	for (uint32_t i = 0; list != NULL && i < answer->hit_count; i++)
		list[i] = hit_write(w, &answer->hits[i]);
	return list;
}

void kx_similar_hits_read(struct kx_reader *r, Kinodex__V1__SimilarHit *const *hits, size_t count,
			  struct kx_similar_answer *answer)
{
	answer->hits = kx_read_list(r, "hits", count, KX_QUERY_K_MAX, sizeof(*answer->hits), &answer->hit_count);
	for (uint32_t i = 0; i < answer->hit_count && kx_reader_enter_item(r, "hits", i); i++) {
		hit_read(r, hits[i], &answer->hits[i]);
		kx_reader_leave(r);
	}
}

Kinodex__V1__SearchWork *kx_search_work_write(struct kx_writer *w, const struct kx_search_work *work)
{
	Kinodex__V1__SearchWork *m = KX_WRITER_NEW(w, search_work);

	if (m == NULL)
		return NULL;
	m->rows = work->rows;
	m->matching = work->matching;
	m->cells = work->cells;
	m->codes = work->codes;
	m->refined = work->refined;
	m->took_us = work->took_us;
	return m;
}

void kx_search_work_read(const Kinodex__V1__SearchWork *m, struct kx_search_work *work)
{
	if (m == NULL)
		return;
	work->rows = m->rows;
	work->matching = m->matching;
	work->cells = m->cells;
	work->codes = m->codes;
	work->refined = m->refined;
	work->took_us = m->took_us;
}

kx_status kx_read_status(struct kx_reader *r, int32_t value)
{
	if (value > KX_OK || value < KX_EPERM)
		kx_reader_fail(r, KX_ECORRUPT, "status", "%d is no status", value);
	return (kx_status)value;
}

Kinodex__V1__SimilarReply *kx_similar_answer_write(struct kx_writer *w, const struct kx_similar_answer *answer)
{
	Kinodex__V1__SimilarReply *m = KX_WRITER_NEW(w, similar_reply);

	if (m == NULL)
		return NULL;
	m->status = answer->status;
	m->message = answer->message;
	m->n_hits = answer->hit_count;
	m->hits = kx_similar_hits_write(w, answer);
	m->next = answer->next;
	m->exact = answer->exact;
	m->recall = answer->recall;
	m->work = kx_search_work_write(w, &answer->work);
	m->partial = answer->partial;
	m->shards_asked = answer->shards_asked;
	m->shards_answered = answer->shards_answered;
	m->changed = answer->changed;
	return m;
}

void kx_similar_answer_read(struct kx_reader *r, const Kinodex__V1__SimilarReply *m,
			    struct kx_similar_answer *answer)
{
	answer->status = kx_read_status(r, m->status);
	answer->message = kx_read_string(r, "message", m->message, 0, KX_TEXT_MAX);
	kx_similar_hits_read(r, m->hits, m->n_hits, answer);
	answer->next = kx_read_string(r, "next", m->next, 0, KX_QUERY_CURSOR_MAX);
	answer->exact = m->exact;
	answer->recall = kx_read_double(r, "recall", m->recall, 0.0, 1.0);
	kx_search_work_read(m->work, &answer->work);
	answer->partial = m->partial;
	answer->shards_asked = m->shards_asked;
	answer->shards_answered = m->shards_answered;
	answer->changed = m->changed;
}

void kx_similar_answer_done(struct kx_similar_answer *answer)
{
	free(answer->message);
	for (uint32_t i = 0; i < answer->hit_count; i++)
		kx_similar_hit_done(&answer->hits[i]);
	free(answer->hits);
	free(answer->next);
	*answer = (struct kx_similar_answer){0};
}
