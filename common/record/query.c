#include "common/record/query.h"

#include "common/record/nested.h"
#include "common/record/similar_parts.h"

static Kinodex__V1__VideoQuery *video_write(struct kx_writer *w, const struct kx_query_request *request)
{
	Kinodex__V1__VideoQuery *m = KX_WRITER_NEW(w, video_query);

	if (m == NULL)
		return NULL;
	m->video_id = request->video_id;
	m->with_moments = request->with_moments;
	return m;
}

static Kinodex__V1__SimilarBatch *batch_write(struct kx_writer *w, const struct kx_query_request *request)
{
	Kinodex__V1__SimilarBatch *m = KX_WRITER_NEW(w, similar_batch);

	if (m == NULL)
		return NULL;
	m->n_queries = request->batch_count;
	m->queries = kx_writer_list(w, request->batch_count);
	for (uint32_t i = 0; m->queries != NULL && i < request->batch_count; i++)
		m->queries[i] = kx_similar_query_write(w, &request->batch[i]);
	return m;
}

static Kinodex__V1__VideosQuery *videos_write(struct kx_writer *w, const struct kx_query_request *request)
{
	Kinodex__V1__VideosQuery *m = KX_WRITER_NEW(w, videos_query);

	if (m == NULL)
		return NULL;
	m->n_video_ids = request->video_id_count;
	m->video_ids = request->video_ids;
	m->with_moments = request->with_moments;
	return m;
}

static Kinodex__V1__CareOrder *care_write(struct kx_writer *w, const struct kx_query_request *request)
{
	Kinodex__V1__CareOrder *m = KX_WRITER_NEW(w, care_order);

	if (m == NULL)
		return NULL;
	m->work = request->care.work;
	m->path = request->care.path;
	return m;
}

static void request_write_body(struct kx_writer *w, const struct kx_query_request *request,
			       Kinodex__V1__QueryRequest *m)
{
	switch (request->kind) {
	case KX_QUERY_SIMILAR:
		m->body_case = KINODEX__V1__QUERY_REQUEST__BODY_SIMILAR;
		m->similar = kx_similar_query_write(w, &request->similar);
		return;
	case KX_QUERY_VIDEO:
		m->body_case = KINODEX__V1__QUERY_REQUEST__BODY_VIDEO;
		m->video = video_write(w, request);
		return;
	case KX_QUERY_STATS:
		m->body_case = KINODEX__V1__QUERY_REQUEST__BODY_STATS;
		m->stats = KX_WRITER_NEW(w, stats_query);
		return;
	case KX_QUERY_SIMILAR_BATCH:
		m->body_case = KINODEX__V1__QUERY_REQUEST__BODY_BATCH;
		m->batch = batch_write(w, request);
		return;
	case KX_QUERY_VIDEOS:
		m->body_case = KINODEX__V1__QUERY_REQUEST__BODY_VIDEOS;
		m->videos = videos_write(w, request);
		return;
	case KX_QUERY_SCHEMA:
		m->body_case = KINODEX__V1__QUERY_REQUEST__BODY_SCHEMA;
		m->schema = KX_WRITER_NEW(w, schema_query);
		return;
	case KX_QUERY_CARE:
		m->body_case = KINODEX__V1__QUERY_REQUEST__BODY_CARE;
		m->care = care_write(w, request);
		return;
	}
	kx_writer_fail(w, KX_EINVAL);
}

static Kinodex__V1__QueryRequest *kx_query_request_write(struct kx_writer *w,
							 const struct kx_query_request *request)
{
	Kinodex__V1__QueryRequest *m = KX_WRITER_NEW(w, query_request);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->request_id = request->request_id;
	request_write_body(w, request, m);
	return m;
}

static void video_read(struct kx_reader *r, const Kinodex__V1__VideoQuery *m, struct kx_query_request *request)
{
	request->video_id = kx_read_string(r, "video_id", m->video_id, 1, KX_ID_MAX);
	request->with_moments = m->with_moments;
}

static void batch_read(struct kx_reader *r, const Kinodex__V1__SimilarBatch *m, struct kx_query_request *request)
{
	if (m->n_queries == 0)
		kx_reader_fail(r, KX_ECORRUPT, "queries", "absent");
	request->batch = kx_read_list(r, "queries", m->n_queries, KX_QUERY_BATCH_MAX, sizeof(*request->batch),
				      &request->batch_count);
	for (uint32_t i = 0; i < request->batch_count && kx_reader_enter_item(r, "queries", i); i++) {
		kx_similar_query_read(r, m->queries[i], &request->batch[i]);
		kx_reader_leave(r);
	}
}

static void videos_read(struct kx_reader *r, const Kinodex__V1__VideosQuery *m, struct kx_query_request *request)
{
	if (m->n_video_ids == 0)
		kx_reader_fail(r, KX_ECORRUPT, "video_ids", "absent");
	request->video_ids = kx_read_strings(r, "video_ids", m->video_ids, m->n_video_ids, KX_QUERY_VIDEOS_MAX, 1,
					     KX_ID_MAX, &request->video_id_count);
	request->with_moments = m->with_moments;
}

static void care_read(struct kx_reader *r, const Kinodex__V1__CareOrder *m, struct kx_query_request *request)
{
	bool has_path = m->work == KX_CARE_CHECKPOINT;

	request->care.work = (enum kx_care_work)kx_read_u32(r, "work", m->work, KX_CARE_COMPACT, KX_CARE_CHECKPOINT);
	request->care.path = kx_read_string(r, "path", m->path, has_path, has_path ? KX_TEXT_MAX : 0);
}

static void request_read_body(struct kx_reader *r, const Kinodex__V1__QueryRequest *m,
			      struct kx_query_request *request)
{
	switch (m->body_case) {
	case KINODEX__V1__QUERY_REQUEST__BODY_SIMILAR:
		request->kind = KX_QUERY_SIMILAR;
		kx_similar_query_read(r, m->similar, &request->similar);
		return;
	case KINODEX__V1__QUERY_REQUEST__BODY_VIDEO:
		request->kind = KX_QUERY_VIDEO;
		video_read(r, m->video, request);
		return;
	case KINODEX__V1__QUERY_REQUEST__BODY_STATS:
		request->kind = KX_QUERY_STATS;
		return;
	case KINODEX__V1__QUERY_REQUEST__BODY_BATCH:
		request->kind = KX_QUERY_SIMILAR_BATCH;
		batch_read(r, m->batch, request);
		return;
	case KINODEX__V1__QUERY_REQUEST__BODY_VIDEOS:
		request->kind = KX_QUERY_VIDEOS;
		videos_read(r, m->videos, request);
		return;
	case KINODEX__V1__QUERY_REQUEST__BODY_SCHEMA:
		request->kind = KX_QUERY_SCHEMA;
		return;
	case KINODEX__V1__QUERY_REQUEST__BODY_CARE:
		request->kind = KX_QUERY_CARE;
		care_read(r, m->care, request);
		return;
	default:
		kx_reader_fail(r, KX_ECORRUPT, NULL, "neither similar, batch, video, videos, schema, stats nor care");
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
	kx_similar_query_done(&request->similar);
	for (uint32_t i = 0; i < request->batch_count; i++)
		kx_similar_query_done(&request->batch[i]);
	free(request->batch);
	kx_clear_strings(request->video_ids, request->video_id_count);
	free(request->care.path);
}

KX_RECORD_DEFINE(kx_query_request, QueryRequest, query_request);
