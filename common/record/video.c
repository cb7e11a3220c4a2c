#include "common/record/video.h"

#include <float.h>

#include "common/record/nested.h"

static Kinodex__V1__ModalityResult *modality_write(struct kx_writer *w, const struct kx_modality_result *result)
{
	Kinodex__V1__ModalityResult *m = KX_WRITER_NEW(w, modality_result);

	if (m == NULL)
		return NULL;
	m->modality = result->modality;
	m->space = result->space;
	m->moments = result->moments;
	m->rows = result->rows;
	m->n_embedding = result->dim;
	m->embedding = result->embedding;
	m->n_class_ids = result->class_count;
	m->class_ids = result->class_ids;
	m->n_class_scores = result->class_count;
	m->class_scores = result->class_scores;
	return m;
}

static void modality_read(struct kx_reader *r, const Kinodex__V1__ModalityResult *m,
			  struct kx_modality_result *result)
{
	result->modality = kx_read_modality(r, m->modality);
	result->space = kx_read_string(r, "space", m->space, 1, KX_SPACE_MAX - 1);
	result->moments = kx_read_u32(r, "moments", m->moments, 1, KX_MOMENTS_MAX);
	result->rows = kx_read_u32(r, "rows", m->rows, 1, UINT32_MAX);
	result->dim = kx_read_dim(r, "embedding", m->n_embedding);
	result->embedding =
		kx_read_floats(r, "embedding", m->embedding, m->n_embedding, result->dim, -FLT_MAX, FLT_MAX);
	kx_read_classes(r, m->class_ids, m->n_class_ids, m->class_scores, m->n_class_scores,
			&result->class_count, &result->class_ids, &result->class_scores);
}

static void modality_clear(struct kx_modality_result *result)
{
	free(result->space);
	free(result->embedding);
	free(result->class_ids);
	free(result->class_scores);
}

static Kinodex__V1__VideoResult *kx_video_result_write(struct kx_writer *w,
						       const struct kx_video_result *result)
{
	Kinodex__V1__VideoResult *m = KX_WRITER_NEW(w, video_result);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->video_id = result->video_id;
	m->n_modalities = result->modality_count;
	m->modalities = kx_writer_list(w, result->modality_count);
	for (uint32_t i = 0; m->modalities != NULL && i < result->modality_count; i++)
		m->modalities[i] = modality_write(w, &result->modalities[i]);
	m->visual_us = result->visual_us;
	m->audio_us = result->audio_us;
	m->duration_us = result->duration_us;
	m->truncated = result->truncated;
	m->decode_mode = result->decode_mode;
	m->decode_tolerance_us = result->decode_tolerance_us;
	m->max_time_error_us = result->max_time_error_us;
	m->moment_us = result->moment_us;
	m->recipe_sha256 = kx_write_sha(result->recipe_sha256);
	return m;
}

static void video_result_read_modalities(struct kx_reader *r, const Kinodex__V1__VideoResult *m,
					 struct kx_video_result *result)
{
	if (m->n_modalities < 1 || m->n_modalities > KX_ARRAY_LEN(result->modalities)) {
		kx_reader_fail(r, KX_ECORRUPT, "modalities", "%zu, a video has one or two", m->n_modalities);
		return;
	}
	result->modality_count = (uint32_t)m->n_modalities;
	for (uint32_t i = 0; i < result->modality_count && kx_reader_enter_item(r, "modalities", i); i++) {
		modality_read(r, m->modalities[i], &result->modalities[i]);
		if (i > 0 && result->modalities[i].modality <= result->modalities[i - 1].modality)
			kx_reader_fail(r, KX_ECORRUPT, "modality", "twice, or audio before visual");
		kx_reader_leave(r);
	}
}

static void kx_video_result_read(struct kx_reader *r, const Kinodex__V1__VideoResult *m,
				 struct kx_video_result *result)
{
	kx_read_version(r, m->version);
	result->video_id = kx_read_string(r, "video_id", m->video_id, 1, KX_ID_MAX);
	video_result_read_modalities(r, m, result);
	result->visual_us = kx_read_us(r, "visual_us", m->visual_us);
	result->audio_us = kx_read_us(r, "audio_us", m->audio_us);
	result->duration_us = kx_read_us(r, "duration_us", m->duration_us);
	result->truncated = m->truncated;
	result->decode_mode = kx_read_decode_mode(r, m->decode_mode);
	result->decode_tolerance_us = kx_read_decode_tolerance(r, result->decode_mode, m->decode_tolerance_us);
	result->max_time_error_us = kx_read_us(r, "max_time_error_us", m->max_time_error_us);
	result->moment_us = kx_read_moment_us(r, m->moment_us);
	kx_read_sha(r, "recipe_sha256", m->recipe_sha256, result->recipe_sha256);
}

static void kx_video_result_clear(struct kx_video_result *result)
{
	free(result->video_id);
	for (size_t i = 0; i < KX_ARRAY_LEN(result->modalities); i++)
		modality_clear(&result->modalities[i]);
}

KX_RECORD_DEFINE(kx_video_result, VideoResult, video_result);

Kinodex__V1__VideoRecord *kx_video_record_write(struct kx_writer *w, const struct kx_video_record *video)
{
	Kinodex__V1__VideoRecord *m = KX_WRITER_NEW(w, video_record);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->generation = video->generation;
	m->stored_at_ms = video->stored_at_ms;
	m->info = kx_video_info_write(w, &video->info);
	m->result = kx_video_result_write(w, &video->result);
	return m;
}

void kx_video_record_read(struct kx_reader *r, const Kinodex__V1__VideoRecord *m, struct kx_video_record *video)
{
	kx_read_version(r, m->version);
	video->generation = m->generation;
	video->stored_at_ms = m->stored_at_ms;
	if (kx_reader_enter(r, "info", m->info)) {
		kx_video_info_read(r, m->info, &video->info);
		kx_reader_leave(r);
	}
	if (kx_reader_enter(r, "result", m->result)) {
		kx_video_result_read(r, m->result, &video->result);
		kx_reader_leave(r);
	}
}

static void kx_video_record_clear(struct kx_video_record *video)
{
	kx_video_info_clear(&video->info);
	kx_video_result_clear(&video->result);
}

KX_RECORD_DEFINE(kx_video_record, VideoRecord, video_record);

static Kinodex__V1__PendingVideo *kx_pending_video_write(struct kx_writer *w,
							 const struct kx_pending_video *pending)
{
	Kinodex__V1__PendingVideo *m = KX_WRITER_NEW(w, pending_video);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->generation = pending->generation;
	if (pending->parts > 0)
		m->plan = kx_plan_write(w, pending->parts, &pending->info);
	m->n_part_ends = pending->part_end_count;
	m->part_ends = kx_writer_list(w, pending->part_end_count);
	for (uint32_t i = 0; m->part_ends != NULL && i < pending->part_end_count; i++)
		m->part_ends[i] = kx_part_end_write(w, &pending->part_ends[i]);
	return m;
}

static void pending_read_part_ends(struct kx_reader *r, const Kinodex__V1__PendingVideo *m,
				   struct kx_pending_video *pending)
{
	uint64_t seen[KX_PARTS_MAX / 64] = {0};

	pending->part_ends = kx_read_list(r, "part_ends", m->n_part_ends, KX_PARTS_MAX,
					  sizeof(*pending->part_ends), &pending->part_end_count);
	for (uint32_t i = 0; i < pending->part_end_count && kx_reader_enter_item(r, "part_ends", i); i++) {
		struct kx_part_end *end = &pending->part_ends[i];
		uint64_t bit;

		kx_part_end_read(r, m->part_ends[i], end);
		bit = UINT64_C(1) << (end->part % 64);
		if ((seen[end->part / 64] & bit) != 0)
			kx_reader_fail(r, KX_ECORRUPT, "part", "%u is there twice", end->part);
		seen[end->part / 64] |= bit;
		kx_reader_leave(r);
	}
}

static void kx_pending_video_read(struct kx_reader *r, const Kinodex__V1__PendingVideo *m,
				  struct kx_pending_video *pending)
{
	kx_read_version(r, m->version);
	pending->generation = m->generation;
	if (m->plan != NULL && kx_reader_enter(r, "plan", m->plan)) {
		kx_plan_read(r, m->plan, &pending->parts, &pending->info);
		kx_reader_leave(r);
	}
	pending_read_part_ends(r, m, pending);
}

static void kx_pending_video_clear(struct kx_pending_video *pending)
{
	kx_video_info_clear(&pending->info);
	free(pending->part_ends);
}

KX_RECORD_DEFINE(kx_pending_video, PendingVideo, pending_video);

static Kinodex__V1__Input *kx_input_write(struct kx_writer *w, const struct kx_input *input)
{
	Kinodex__V1__Input *m = KX_WRITER_NEW(w, input);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->video_id = input->video_id;
	m->root = kx_write_path(input->root);
	m->source = kx_write_path(input->source);
	m->content_bytes = input->content_bytes;
	m->modified_ns = input->modified_ns;
	m->content_sha256 = kx_write_sha(input->content_sha256);
	m->state = input->state;
	m->reason = input->reason;
	m->message = input->message;
	m->generation = input->generation;
	m->duration_us = input->duration_us;
	m->covered_us = input->covered_us;
	m->updated_at_ms = input->updated_at_ms;
	m->recipe_sha256 = kx_write_sha(input->recipe_sha256);
	m->copy_of = input->copy_of;
	m->title = input->title;
	m->n_labels = input->label_count;
	m->labels = input->labels;
	m->attempts = input->attempts;
	m->language = input->extras.language;
	m->visibility = input->extras.visibility;
	m->n_attributes = input->extras.attribute_count;
	m->attributes = kx_attributes_write(w, &input->extras);
	return m;
}

static void kx_input_read(struct kx_reader *r, const Kinodex__V1__Input *m, struct kx_input *input)
{
	kx_read_version(r, m->version);
	input->video_id = kx_read_string(r, "video_id", m->video_id, 1, KX_ID_MAX);
	input->root = kx_read_path(r, "root", m->root, 0);
	input->source = kx_read_path(r, "source", m->source, 1);
	input->content_bytes = m->content_bytes;
	input->modified_ns = m->modified_ns;
	kx_read_optional_sha(r, "content_sha256", m->content_sha256, input->content_sha256);
	input->state =
		(enum kx_input_state)kx_read_u32(r, "state", m->state, KX_INPUT_PLANNED, KX_INPUT_DELETED);
	input->reason = kx_read_reason(r, m->reason, KX_REASON_NONE);
	input->message = kx_read_string(r, "message", m->message, 0, KX_TEXT_MAX);
	input->generation = m->generation;
	input->duration_us = kx_read_us(r, "duration_us", m->duration_us);
	input->covered_us = kx_read_us(r, "covered_us", m->covered_us);
	input->updated_at_ms = m->updated_at_ms;
	kx_read_optional_sha(r, "recipe_sha256", m->recipe_sha256, input->recipe_sha256);
	input->copy_of = kx_read_string(r, "copy_of", m->copy_of, 0, KX_ID_MAX);
	input->title = kx_read_string(r, "title", m->title, 0, KX_TEXT_MAX);
	input->labels = kx_read_labels(r, m->labels, m->n_labels, &input->label_count);
	input->attempts = m->attempts;
	kx_extras_read(r, m->language, m->visibility, m->attributes, m->n_attributes, &input->extras);
}

static void kx_input_clear(struct kx_input *input)
{
	free(input->video_id);
	free(input->root);
	free(input->source);
	free(input->message);
	free(input->copy_of);
	free(input->title);
	kx_clear_strings(input->labels, input->label_count);
	kx_extras_done(&input->extras);
}

KX_RECORD_DEFINE(kx_input, Input, input);
