#include "common/record/query.h"

#include <float.h>

#include "common/record/nested.h"
#include "proto/query.pb-c.h"

/* Cosines, with room for the rounding of a float. */
#define COSINE_MAX 1.001
#define WEIGHT_MAX 1e6
/* A reply may have both modalities of every moment. */
#define REPLY_MOMENTS_MAX ((size_t)2 * KX_QUERY_MOMENTS_MAX)

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

static Kinodex__V1__QueryVector **vectors_write(struct kx_writer *w, const struct kx_query_vector *vectors,
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

static struct kx_query_vector *vectors_read(struct kx_reader *r, const char *field,
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

static void vectors_clear(struct kx_query_vector *vectors, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		free(vectors[i].space);
		free(vectors[i].values);
	}
	free(vectors);
}

static Kinodex__V1__SimilarQuery *similar_write(struct kx_writer *w, const struct kx_query_request *request)
{
	Kinodex__V1__SimilarQuery *m = KX_WRITER_NEW(w, similar_query);

	if (m == NULL)
		return NULL;
	m->video_id = request->video_id;
	m->n_vectors = request->vector_count;
	m->vectors = vectors_write(w, request->vectors, request->vector_count);
	m->n_moments = request->moment_count;
	m->moments = vectors_write(w, request->moments, request->moment_count);
	m->k = request->k;
	m->weight_visual = request->weight_visual;
	m->weight_audio = request->weight_audio;
	m->with_moments = request->with_moments;
	m->moment_us = request->moment_us;
	return m;
}

static void similar_check(struct kx_reader *r, const struct kx_query_request *request)
{
	if (request->video_id != NULL && request->video_id[0] == '\0' && request->vector_count == 0)
		kx_reader_fail(r, KX_ECORRUPT, "video_id", "absent, and no vectors in its place");
	if (request->vector_count == 2 && request->vectors[0].modality == request->vectors[1].modality)
		kx_reader_fail(r, KX_ECORRUPT, "vectors", "two of one modality");
	if (!(request->weight_visual + request->weight_audio > 0.0))
		kx_reader_fail(r, KX_ECORRUPT, "weight_visual", "both weights are 0");
}

static void similar_read(struct kx_reader *r, const Kinodex__V1__SimilarQuery *m,
			 struct kx_query_request *request)
{
	request->video_id = kx_read_string(r, "video_id", m->video_id, 0, KX_ID_MAX);
	request->vectors = vectors_read(r, "vectors", m->vectors, m->n_vectors, 2, &request->vector_count);
	request->moments = vectors_read(r, "moments", m->moments, m->n_moments, KX_QUERY_MOMENTS_MAX,
					&request->moment_count);
	request->k = kx_read_u32(r, "k", m->k, 1, KX_QUERY_K_MAX);
	request->weight_visual = kx_read_double(r, "weight_visual", m->weight_visual, 0.0, WEIGHT_MAX);
	request->weight_audio = kx_read_double(r, "weight_audio", m->weight_audio, 0.0, WEIGHT_MAX);
	request->with_moments = m->with_moments;
	request->moment_us = request->moment_count > 0 ? kx_read_moment_us(r, m->moment_us) : m->moment_us;
	similar_check(r, request);
}

static Kinodex__V1__VideoQuery *video_write(struct kx_writer *w, const struct kx_query_request *request)
{
	Kinodex__V1__VideoQuery *m = KX_WRITER_NEW(w, video_query);

	if (m == NULL)
		return NULL;
	m->video_id = request->video_id;
	m->with_moments = request->with_moments;
	return m;
}

static void video_read(struct kx_reader *r, const Kinodex__V1__VideoQuery *m, struct kx_query_request *request)
{
	request->video_id = kx_read_string(r, "video_id", m->video_id, 1, KX_ID_MAX);
	request->with_moments = m->with_moments;
}

static Kinodex__V1__QueryRequest *kx_query_request_write(struct kx_writer *w,
							 const struct kx_query_request *request)
{
	Kinodex__V1__QueryRequest *m = KX_WRITER_NEW(w, query_request);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->request_id = request->request_id;
	switch (request->kind) {
	case KX_QUERY_SIMILAR:
		m->body_case = KINODEX__V1__QUERY_REQUEST__BODY_SIMILAR;
		m->similar = similar_write(w, request);
		return m;
	case KX_QUERY_VIDEO:
		m->body_case = KINODEX__V1__QUERY_REQUEST__BODY_VIDEO;
		m->video = video_write(w, request);
		return m;
	case KX_QUERY_STATS:
		m->body_case = KINODEX__V1__QUERY_REQUEST__BODY_STATS;
		m->stats = KX_WRITER_NEW(w, stats_query);
		return m;
	}
	kx_writer_fail(w, KX_EINVAL);
	return m;
}

static void request_read_body(struct kx_reader *r, const Kinodex__V1__QueryRequest *m,
			      struct kx_query_request *request)
{
	switch (m->body_case) {
	case KINODEX__V1__QUERY_REQUEST__BODY_SIMILAR:
		request->kind = KX_QUERY_SIMILAR;
		similar_read(r, m->similar, request);
		return;
	case KINODEX__V1__QUERY_REQUEST__BODY_VIDEO:
		request->kind = KX_QUERY_VIDEO;
		video_read(r, m->video, request);
		return;
	case KINODEX__V1__QUERY_REQUEST__BODY_STATS:
		request->kind = KX_QUERY_STATS;
		return;
	default:
		kx_reader_fail(r, KX_ECORRUPT, NULL, "neither similar, video nor stats");
	}
}

static void kx_query_request_read(struct kx_reader *r, const Kinodex__V1__QueryRequest *m,
				  struct kx_query_request *request)
{
	kx_read_version(r, m->version);
	request->request_id = m->request_id;
	if (kx_reader_enter(r, "body", m)) {
		request_read_body(r, m, request);
		kx_reader_leave(r);
	}
}

static void kx_query_request_clear(struct kx_query_request *request)
{
	free(request->video_id);
	vectors_clear(request->vectors, request->vector_count);
	vectors_clear(request->moments, request->moment_count);
}

KX_RECORD_DEFINE(kx_query_request, QueryRequest, query_request);

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

static double read_cosine(struct kx_reader *r, const char *field, double value)
{
	return kx_read_double(r, field, value, -COSINE_MAX, COSINE_MAX);
}

static void match_read(struct kx_reader *r, const Kinodex__V1__MomentMatch *m, struct kx_moment_match *match)
{
	match->ours_us = kx_read_us(r, "ours_us", m->ours_us);
	match->theirs_us = kx_read_us(r, "theirs_us", m->theirs_us);
	match->score = read_cosine(r, "score", m->score);
	match->visual = read_cosine(r, "visual", m->visual);
	match->audio = read_cosine(r, "audio", m->audio);
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
	return m;
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
	hit->matches = kx_read_list(r, "matches", m->n_matches, KX_QUERY_MOMENTS_MAX, sizeof(*hit->matches),
				    &hit->match_count);
	for (uint32_t i = 0; i < hit->match_count && kx_reader_enter_item(r, "matches", i); i++) {
		match_read(r, m->matches[i], &hit->matches[i]);
		kx_reader_leave(r);
	}
}

static Kinodex__V1__MomentClasses *classes_write(struct kx_writer *w, const struct kx_moment_classes *classes)
{
	Kinodex__V1__MomentClasses *m = KX_WRITER_NEW(w, moment_classes);

	if (m == NULL)
		return NULL;
	m->modality = classes->modality;
	m->index = classes->index;
	m->n_class_ids = classes->class_count;
	m->class_ids = classes->class_ids;
	m->n_class_scores = classes->class_count;
	m->class_scores = classes->class_scores;
	return m;
}

static void classes_read(struct kx_reader *r, const Kinodex__V1__MomentClasses *m,
			 struct kx_moment_classes *classes)
{
	classes->modality = kx_read_modality(r, m->modality);
	classes->index = kx_read_u32(r, "index", m->index, 0, KX_MOMENTS_MAX - 1);
	kx_read_classes(r, m->class_ids, m->n_class_ids, m->class_scores, m->n_class_scores,
			&classes->class_count, &classes->class_ids, &classes->class_scores);
}

static Kinodex__V1__Stats *stats_write(struct kx_writer *w, const struct kx_shard_stats *stats)
{
	Kinodex__V1__Stats *m = KX_WRITER_NEW(w, stats);

	if (m == NULL)
		return NULL;
	m->videos = stats->videos;
	m->pending = stats->pending;
	m->moments = stats->moments;
	m->media_us = stats->media_us;
	m->disk_bytes = stats->disk_bytes;
	return m;
}

static void stats_read(const Kinodex__V1__Stats *m, struct kx_shard_stats *stats)
{
	stats->videos = m->videos;
	stats->pending = m->pending;
	stats->moments = m->moments;
	stats->media_us = m->media_us;
	stats->disk_bytes = m->disk_bytes;
}

static Kinodex__V1__QueryReply *kx_query_reply_write(struct kx_writer *w, const struct kx_query_reply *reply)
{
	Kinodex__V1__QueryReply *m = KX_WRITER_NEW(w, query_reply);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->request_id = reply->request_id;
	m->status = reply->status;
	m->message = reply->message;
	m->n_hits = reply->hit_count;
	m->hits = kx_writer_list(w, reply->hit_count);
	for (uint32_t i = 0; m->hits != NULL && i < reply->hit_count; i++)
		m->hits[i] = hit_write(w, &reply->hits[i]);
	if (reply->video != NULL)
		m->video = kx_video_record_write(w, reply->video);
	m->n_moments = reply->moment_count;
	m->moments = kx_writer_list(w, reply->moment_count);
	for (uint32_t i = 0; m->moments != NULL && i < reply->moment_count; i++)
		m->moments[i] = classes_write(w, &reply->moments[i]);
	m->stats = stats_write(w, &reply->stats);
	return m;
}

static void reply_read_hits(struct kx_reader *r, const Kinodex__V1__QueryReply *m, struct kx_query_reply *reply)
{
	reply->hits = kx_read_list(r, "hits", m->n_hits, KX_QUERY_K_MAX, sizeof(*reply->hits),
				   &reply->hit_count);
	for (uint32_t i = 0; i < reply->hit_count && kx_reader_enter_item(r, "hits", i); i++) {
		hit_read(r, m->hits[i], &reply->hits[i]);
		kx_reader_leave(r);
	}
}

static void reply_read_moments(struct kx_reader *r, const Kinodex__V1__QueryReply *m,
			       struct kx_query_reply *reply)
{
	reply->moments = kx_read_list(r, "moments", m->n_moments, REPLY_MOMENTS_MAX, sizeof(*reply->moments),
				      &reply->moment_count);
	for (uint32_t i = 0; i < reply->moment_count && kx_reader_enter_item(r, "moments", i); i++) {
		classes_read(r, m->moments[i], &reply->moments[i]);
		kx_reader_leave(r);
	}
}

static void reply_read_video(struct kx_reader *r, const Kinodex__V1__QueryReply *m,
			     struct kx_query_reply *reply)
{
	if (m->video == NULL || !kx_reader_enter(r, "video", m->video))
		return;
	reply->video = kx_reader_alloc(r, 1, sizeof(*reply->video));
	if (reply->video != NULL)
		kx_video_record_read(r, m->video, reply->video);
	kx_reader_leave(r);
}

static void kx_query_reply_read(struct kx_reader *r, const Kinodex__V1__QueryReply *m,
				struct kx_query_reply *reply)
{
	kx_read_version(r, m->version);
	reply->request_id = m->request_id;
	if (m->status > KX_OK || m->status < KX_EPERM)
		kx_reader_fail(r, KX_ECORRUPT, "status", "%d is no status", m->status);
	reply->status = (kx_status)m->status;
	reply->message = kx_read_string(r, "message", m->message, 0, KX_TEXT_MAX);
	reply_read_hits(r, m, reply);
	reply_read_video(r, m, reply);
	reply_read_moments(r, m, reply);
	if (m->stats != NULL)
		stats_read(m->stats, &reply->stats);
}

static void kx_query_reply_clear(struct kx_query_reply *reply)
{
	free(reply->message);
	for (uint32_t i = 0; i < reply->hit_count; i++) {
		free(reply->hits[i].video_id);
		free(reply->hits[i].title);
		free(reply->hits[i].matches);
	}
	free(reply->hits);
	kx_video_record_free(reply->video);
	for (uint32_t i = 0; i < reply->moment_count; i++) {
		free(reply->moments[i].class_ids);
		free(reply->moments[i].class_scores);
	}
	free(reply->moments);
}

KX_RECORD_DEFINE(kx_query_reply, QueryReply, query_reply);
