#include <float.h>

#include "common/record/nested.h"
#include "common/record/query.h"
#include "common/record/similar_parts.h"

/* A reply may have both modalities of every moment. */
#define REPLY_MOMENTS_MAX ((size_t)2 * KX_QUERY_MOMENTS_MAX)

static Kinodex__V1__AttributeValue *attribute_value_write(struct kx_writer *w, const struct kx_attribute_value *value)
{
	Kinodex__V1__AttributeValue *m = KX_WRITER_NEW(w, attribute_value);

	if (m == NULL)
		return NULL;
	m->value = value->value;
	m->videos = value->videos;
	return m;
}

static Kinodex__V1__AttributeInfo *attribute_write(struct kx_writer *w, const struct kx_attribute_info *info)
{
	Kinodex__V1__AttributeInfo *m = KX_WRITER_NEW(w, attribute_info);

	if (m == NULL)
		return NULL;
	m->name = info->name;
	m->type = info->type;
	m->user = info->user;
	m->videos = info->videos;
	m->distinct = info->distinct;
	m->has_range = info->has_range;
	m->min = info->min;
	m->max = info->max;
	m->n_values = info->value_count;
	m->values = kx_writer_list(w, info->value_count);
	for (uint32_t i = 0; m->values != NULL && i < info->value_count; i++)
		m->values[i] = attribute_value_write(w, &info->values[i]);
	return m;
}

static void attribute_read(struct kx_reader *r, const Kinodex__V1__AttributeInfo *m, struct kx_attribute_info *info)
{
	info->name = kx_read_string(r, "name", m->name, 1, KX_TEXT_MAX);
	info->type = (enum kx_attribute_type)kx_read_u32(r, "type", m->type, KX_ATTRIBUTE_TEXT, KX_ATTRIBUTE_CLASS);
	info->user = m->user;
	info->videos = m->videos;
	info->distinct = m->distinct;
	info->has_range = m->has_range;
	info->min = kx_read_double(r, "min", m->min, -DBL_MAX, DBL_MAX);
	info->max = kx_read_double(r, "max", m->max, -DBL_MAX, DBL_MAX);
	info->values = kx_read_list(r, "values", m->n_values, KX_QUERY_ATTRIBUTE_VALUES_MAX, sizeof(*info->values),
				    &info->value_count);
	for (uint32_t i = 0; i < info->value_count; i++) {
		info->values[i].value = kx_read_string(r, "values", m->values[i]->value, 0, KX_TEXT_MAX);
		info->values[i].videos = m->values[i]->videos;
	}
}

static void attribute_clear(struct kx_attribute_info *info)
{
	free(info->name);
	for (uint32_t i = 0; i < info->value_count; i++)
		free(info->values[i].value);
	free(info->values);
}

static Kinodex__V1__FoundVideo *found_write(struct kx_writer *w, const struct kx_found_video *found)
{
	Kinodex__V1__FoundVideo *m = KX_WRITER_NEW(w, found_video);

	if (m == NULL)
		return NULL;
	m->video_id = found->video_id;
	if (found->video != NULL)
		m->video = kx_video_record_write(w, found->video);
	m->n_moments = found->moment_count;
	m->moments = kx_query_vectors_write(w, found->moments, found->moment_count);
	return m;
}

static struct kx_video_record *record_read(struct kx_reader *r, const Kinodex__V1__VideoRecord *m)
{
	struct kx_video_record *record = NULL;

	if (m == NULL || !kx_reader_enter(r, "video", m))
		return NULL;
	record = kx_reader_alloc(r, 1, sizeof(*record));
	if (record != NULL)
		kx_video_record_read(r, m, record);
	kx_reader_leave(r);
	return record;
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
	m->index_vectors = stats->index_vectors;
	m->index_cells = stats->index_cells;
	m->index_recall = stats->index_recall;
	m->index_recall_wanted = stats->index_recall_wanted;
	m->index_recall_samples = stats->index_recall_samples;
	m->part = stats->part;
	m->parts = stats->parts;
	return m;
}

static void stats_read(const Kinodex__V1__Stats *m, struct kx_shard_stats *stats)
{
	stats->videos = m->videos;
	stats->pending = m->pending;
	stats->moments = m->moments;
	stats->media_us = m->media_us;
	stats->disk_bytes = m->disk_bytes;
	stats->index_vectors = m->index_vectors;
	stats->index_cells = m->index_cells;
	stats->index_recall = m->index_recall;
	stats->index_recall_wanted = m->index_recall_wanted;
	stats->index_recall_samples = m->index_recall_samples;
	stats->part = m->part;
	stats->parts = m->parts;
}

static Kinodex__V1__CareDone *care_write(struct kx_writer *w, const struct kx_care_done *care)
{
	Kinodex__V1__CareDone *m = KX_WRITER_NEW(w, care_done);

	if (m == NULL)
		return NULL;
	m->bytes_before = care->bytes_before;
	m->bytes_after = care->bytes_after;
	return m;
}

static Kinodex__V1__MomentClasses **moments_write(struct kx_writer *w, const struct kx_query_reply *reply)
{
	Kinodex__V1__MomentClasses **list = kx_writer_list(w, reply->moment_count);

	for (uint32_t i = 0; list != NULL && i < reply->moment_count; i++)
		list[i] = classes_write(w, &reply->moments[i]);
	return list;
}

/* The answer to a single similar query stands flat in the reply. */
static void reply_write_similar(struct kx_writer *w, const struct kx_similar_answer *answer,
				Kinodex__V1__QueryReply *m)
{
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
}

static void reply_write_lists(struct kx_writer *w, const struct kx_query_reply *reply, Kinodex__V1__QueryReply *m)
{
	m->n_answers = reply->answer_count;
	m->answers = kx_writer_list(w, reply->answer_count);
	for (uint32_t i = 0; m->answers != NULL && i < reply->answer_count; i++)
		m->answers[i] = kx_similar_answer_write(w, &reply->answers[i]);
	m->n_videos = reply->found_count;
	m->videos = kx_writer_list(w, reply->found_count);
	for (uint32_t i = 0; m->videos != NULL && i < reply->found_count; i++)
		m->videos[i] = found_write(w, &reply->found[i]);
	m->n_attributes = reply->attribute_count;
	m->attributes = kx_writer_list(w, reply->attribute_count);
	for (uint32_t i = 0; m->attributes != NULL && i < reply->attribute_count; i++)
		m->attributes[i] = attribute_write(w, &reply->attributes[i]);
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
	reply_write_similar(w, &reply->similar, m);
	if (reply->video != NULL)
		m->video = kx_video_record_write(w, reply->video);
	m->n_moments = reply->moment_count;
	m->moments = moments_write(w, reply);
	m->stats = stats_write(w, &reply->stats);
	reply_write_lists(w, reply, m);
	m->care = care_write(w, &reply->care);
	return m;
}

static void reply_read_similar(struct kx_reader *r, const Kinodex__V1__QueryReply *m, struct kx_similar_answer *answer)
{
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

static void reply_read_answers(struct kx_reader *r, const Kinodex__V1__QueryReply *m, struct kx_query_reply *reply)
{
	reply->answers = kx_read_list(r, "answers", m->n_answers, KX_QUERY_BATCH_MAX, sizeof(*reply->answers),
				      &reply->answer_count);
	for (uint32_t i = 0; i < reply->answer_count && kx_reader_enter_item(r, "answers", i); i++) {
		kx_similar_answer_read(r, m->answers[i], &reply->answers[i]);
		kx_reader_leave(r);
	}
}

static void reply_read_found(struct kx_reader *r, const Kinodex__V1__QueryReply *m, struct kx_query_reply *reply)
{
	reply->found = kx_read_list(r, "videos", m->n_videos, KX_QUERY_VIDEOS_MAX, sizeof(*reply->found),
				    &reply->found_count);
	for (uint32_t i = 0; i < reply->found_count && kx_reader_enter_item(r, "videos", i); i++) {
		reply->found[i].video_id = kx_read_string(r, "video_id", m->videos[i]->video_id, 1, KX_ID_MAX);
		reply->found[i].video = record_read(r, m->videos[i]->video);
		reply->found[i].moments =
			kx_query_vectors_read(r, "moments", m->videos[i]->moments, m->videos[i]->n_moments,
					      REPLY_MOMENTS_MAX, &reply->found[i].moment_count);
		kx_reader_leave(r);
	}
}

static void reply_read_attributes(struct kx_reader *r, const Kinodex__V1__QueryReply *m, struct kx_query_reply *reply)
{
	reply->attributes = kx_read_list(r, "attributes", m->n_attributes, KX_QUERY_ATTRIBUTES_MAX,
					 sizeof(*reply->attributes), &reply->attribute_count);
	for (uint32_t i = 0; i < reply->attribute_count && kx_reader_enter_item(r, "attributes", i); i++) {
		attribute_read(r, m->attributes[i], &reply->attributes[i]);
		kx_reader_leave(r);
	}
}

static void kx_query_reply_read(struct kx_reader *r, const Kinodex__V1__QueryReply *m,
				struct kx_query_reply *reply)
{
	kx_read_version(r, m->version);
	reply->request_id = m->request_id;
	reply->status = kx_read_status(r, m->status);
	reply->message = kx_read_string(r, "message", m->message, 0, KX_TEXT_MAX);
	reply_read_similar(r, m, &reply->similar);
	reply->video = record_read(r, m->video);
	reply_read_moments(r, m, reply);
	if (m->stats != NULL)
		stats_read(m->stats, &reply->stats);
	reply_read_answers(r, m, reply);
	reply_read_found(r, m, reply);
	reply_read_attributes(r, m, reply);
	if (m->care != NULL)
		reply->care = (struct kx_care_done){m->care->bytes_before, m->care->bytes_after};
}

static void kx_query_reply_clear(struct kx_query_reply *reply)
{
	free(reply->message);
	kx_similar_answer_done(&reply->similar);
	kx_video_record_free(reply->video);
	for (uint32_t i = 0; i < reply->moment_count; i++) {
		free(reply->moments[i].class_ids);
		free(reply->moments[i].class_scores);
	}
	free(reply->moments);
	for (uint32_t i = 0; i < reply->answer_count; i++)
		kx_similar_answer_done(&reply->answers[i]);
	free(reply->answers);
	for (uint32_t i = 0; i < reply->found_count; i++) {
		free(reply->found[i].video_id);
		kx_video_record_free(reply->found[i].video);
		kx_query_vectors_free(reply->found[i].moments, reply->found[i].moment_count);
	}
	free(reply->found);
	for (uint32_t i = 0; i < reply->attribute_count; i++)
		attribute_clear(&reply->attributes[i]);
	free(reply->attributes);
}

KX_RECORD_DEFINE(kx_query_reply, QueryReply, query_reply);
