#include "common/record/result.h"

#include "common/record/nested.h"

Kinodex__V1__VideoInfo *kx_video_info_write(struct kx_writer *w, const struct kx_video_info *info)
{
	Kinodex__V1__VideoInfo *m = KX_WRITER_NEW(w, video_info);

	if (m == NULL)
		return NULL;
	m->title = info->title;
	m->n_labels = info->label_count;
	m->labels = info->labels;
	m->source = kx_write_path(info->source);
	m->content_sha256 = kx_write_sha(info->content_sha256);
	m->content_bytes = info->content_bytes;
	m->duration_us = info->duration_us;
	m->width = info->width;
	m->height = info->height;
	m->container = info->container;
	m->video_codec = info->video_codec;
	m->audio_codec = info->audio_codec;
	m->run_id = info->run_id;
	m->planned_at_ms = info->planned_at_ms;
	m->recipe_sha256 = kx_write_sha(info->recipe_sha256);
	m->language = info->extras.language;
	m->visibility = info->extras.visibility;
	m->n_attributes = info->extras.attribute_count;
	m->attributes = kx_attributes_write(w, &info->extras);
	return m;
}

void kx_video_info_read(struct kx_reader *r, const Kinodex__V1__VideoInfo *m, struct kx_video_info *info)
{
	info->title = kx_read_string(r, "title", m->title, 0, KX_TEXT_MAX);
	info->labels = kx_read_labels(r, m->labels, m->n_labels, &info->label_count);
	info->source = kx_read_path(r, "source", m->source, 1);
	kx_read_optional_sha(r, "content_sha256", m->content_sha256, info->content_sha256);
	info->content_bytes = m->content_bytes;
	info->duration_us = kx_read_us(r, "duration_us", m->duration_us);
	info->width = m->width;
	info->height = m->height;
	info->container = kx_read_string(r, "container", m->container, 0, KX_TEXT_MAX);
	info->video_codec = kx_read_string(r, "video_codec", m->video_codec, 0, KX_TEXT_MAX);
	info->audio_codec = kx_read_string(r, "audio_codec", m->audio_codec, 0, KX_TEXT_MAX);
	info->run_id = kx_read_string(r, "run_id", m->run_id, 0, KX_ID_MAX);
	info->planned_at_ms = m->planned_at_ms;
	kx_read_sha(r, "recipe_sha256", m->recipe_sha256, info->recipe_sha256);
	kx_extras_read(r, m->language, m->visibility, m->attributes, m->n_attributes, &info->extras);
}

void kx_video_info_clear(struct kx_video_info *info)
{
	free(info->title);
	kx_clear_strings(info->labels, info->label_count);
	free(info->source);
	free(info->container);
	free(info->video_codec);
	free(info->audio_codec);
	free(info->run_id);
	kx_extras_done(&info->extras);
}

Kinodex__V1__VideoPlan *kx_plan_write(struct kx_writer *w, uint32_t parts, const struct kx_video_info *info)
{
	Kinodex__V1__VideoPlan *m = KX_WRITER_NEW(w, video_plan);

	if (m == NULL)
		return NULL;
	m->parts = parts;
	m->info = kx_video_info_write(w, info);
	return m;
}

void kx_plan_read(struct kx_reader *r, const Kinodex__V1__VideoPlan *m, uint32_t *ret_parts,
		  struct kx_video_info *info)
{
	*ret_parts = kx_read_u32(r, "parts", m->parts, 1, KX_PARTS_MAX);
	if (kx_reader_enter(r, "info", m->info)) {
		kx_video_info_read(r, m->info, info);
		kx_reader_leave(r);
	}
}

Kinodex__V1__PartEnd *kx_part_end_write(struct kx_writer *w, const struct kx_part_end *end)
{
	Kinodex__V1__PartEnd *m = KX_WRITER_NEW(w, part_end);

	if (m == NULL)
		return NULL;
	m->part = end->part;
	m->parts = end->parts;
	m->tracks = end->tracks;
	m->frames = end->frames;
	m->patches = end->patches;
	m->visual_us = end->visual_us;
	m->audio_us = end->audio_us;
	m->has_visual = end->has_visual;
	m->has_audio = end->has_audio;
	m->truncated = end->truncated;
	m->decode_mode = end->decode_mode;
	m->decode_tolerance_us = end->decode_tolerance_us;
	m->max_time_error_us = end->max_time_error_us;
	m->recipe_sha256 = kx_write_sha(end->recipe_sha256);
	m->moment_us = end->moment_us;
	return m;
}

void kx_part_end_read(struct kx_reader *r, const Kinodex__V1__PartEnd *m, struct kx_part_end *end)
{
	end->parts = kx_read_u32(r, "parts", m->parts, 1, KX_PARTS_MAX);
	end->part = kx_read_u32(r, "part", m->part, 0, end->parts - 1);
	end->tracks = kx_read_tracks(r, m->tracks);
	end->frames = m->frames;
	end->patches = m->patches;
	end->visual_us = kx_read_us(r, "visual_us", m->visual_us);
	end->audio_us = kx_read_us(r, "audio_us", m->audio_us);
	end->has_visual = m->has_visual;
	end->has_audio = m->has_audio;
	end->truncated = m->truncated;
	end->decode_mode = kx_read_decode_mode(r, m->decode_mode);
	end->decode_tolerance_us = kx_read_decode_tolerance(r, end->decode_mode, m->decode_tolerance_us);
	end->max_time_error_us = kx_read_us(r, "max_time_error_us", m->max_time_error_us);
	kx_read_sha(r, "recipe_sha256", m->recipe_sha256, end->recipe_sha256);
	end->moment_us = kx_read_moment_us(r, m->moment_us);
}

static Kinodex__V1__VideoDelete *delete_write(struct kx_writer *w, uint64_t generation)
{
	Kinodex__V1__VideoDelete *m = KX_WRITER_NEW(w, video_delete);

	if (m != NULL)
		m->upto_generation = generation;
	return m;
}

static Kinodex__V1__VideoCopy *copy_write(struct kx_writer *w, const struct kx_result *result)
{
	Kinodex__V1__VideoCopy *m = KX_WRITER_NEW(w, video_copy);

	if (m == NULL)
		return NULL;
	m->from_video_id = result->copy_from;
	m->info = kx_video_info_write(w, &result->info);
	return m;
}

static Kinodex__V1__Result *kx_result_write(struct kx_writer *w, const struct kx_result *result)
{
	Kinodex__V1__Result *m = KX_WRITER_NEW(w, result);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->video_id = result->video_id;
	m->generation = result->generation;
	switch (result->kind) {
	case KX_RESULT_PLAN:
		m->body_case = KINODEX__V1__RESULT__BODY_PLAN;
		m->plan = kx_plan_write(w, result->parts, &result->info);
		return m;
	case KX_RESULT_MOMENT:
		m->body_case = KINODEX__V1__RESULT__BODY_MOMENT;
		m->moment = kx_moment_write(w, &result->moment);
		return m;
	case KX_RESULT_PART_END:
		m->body_case = KINODEX__V1__RESULT__BODY_PART_END;
		m->part_end = kx_part_end_write(w, &result->part_end);
		return m;
	case KX_RESULT_DELETE:
		m->body_case = KINODEX__V1__RESULT__BODY_DELETE;
		m->delete_ = delete_write(w, result->generation);
		return m;
	case KX_RESULT_COPY:
		m->body_case = KINODEX__V1__RESULT__BODY_COPY;
		m->copy = copy_write(w, result);
		return m;
	}
	kx_writer_fail(w, KX_EINVAL);
	return m;
}

static void delete_read(struct kx_reader *r, const Kinodex__V1__VideoDelete *m, const struct kx_result *result)
{
	/* The struct has one generation for both. */
	kx_read_u64(r, "upto_generation", m->upto_generation, result->generation, result->generation);
}

static void copy_read(struct kx_reader *r, const Kinodex__V1__VideoCopy *m, struct kx_result *result)
{
	result->copy_from = kx_read_string(r, "from_video_id", m->from_video_id, 1, KX_ID_MAX);
	if (kx_reader_enter(r, "info", m->info)) {
		kx_video_info_read(r, m->info, &result->info);
		kx_reader_leave(r);
	}
}

static void result_read_body(struct kx_reader *r, const Kinodex__V1__Result *m, struct kx_result *result)
{
	switch (m->body_case) {
	case KINODEX__V1__RESULT__BODY_PLAN:
		result->kind = KX_RESULT_PLAN;
		kx_plan_read(r, m->plan, &result->parts, &result->info);
		return;
	case KINODEX__V1__RESULT__BODY_MOMENT:
		result->kind = KX_RESULT_MOMENT;
		kx_moment_read(r, m->moment, &result->moment);
		return;
	case KINODEX__V1__RESULT__BODY_PART_END:
		result->kind = KX_RESULT_PART_END;
		kx_part_end_read(r, m->part_end, &result->part_end);
		return;
	case KINODEX__V1__RESULT__BODY_DELETE:
		result->kind = KX_RESULT_DELETE;
		delete_read(r, m->delete_, result);
		return;
	case KINODEX__V1__RESULT__BODY_COPY:
		result->kind = KX_RESULT_COPY;
		copy_read(r, m->copy, result);
		return;
	default:
		kx_reader_fail(r, KX_ECORRUPT, NULL, "neither plan, moment, part_end, delete nor copy");
	}
}

static void kx_result_read(struct kx_reader *r, const Kinodex__V1__Result *m, struct kx_result *result)
{
	kx_read_version(r, m->version);
	result->video_id = kx_read_string(r, "video_id", m->video_id, 1, KX_ID_MAX);
	result->generation = m->generation;
	if (kx_reader_enter(r, "body", m)) {
		result_read_body(r, m, result);
		kx_reader_leave(r);
	}
}

static void kx_result_clear(struct kx_result *result)
{
	free(result->video_id);
	kx_video_info_clear(&result->info);
	kx_moment_clear(&result->moment);
	free(result->copy_from);
}

KX_RECORD_DEFINE(kx_result, Result, result);
