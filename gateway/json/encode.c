#include "gateway/json/encode.h"

#include <stdlib.h>

#include "common/base/hash.h"
#include "common/base/str.h"
#include "common/fetch/fetch.h"

static void encode_texts(struct kx_json *json, const char *key, char *const *texts, uint32_t count)
{
	kx_json_open(json, key, '[');
	for (uint32_t i = 0; i < count; i++)
		kx_json_text(json, NULL, texts[i]);
	kx_json_close(json, ']');
}

static void encode_matches(struct kx_json *json, const struct kx_similar_hit *hit)
{
	kx_json_open(json, "moments", '[');
	for (uint32_t i = 0; i < hit->match_count; i++) {
		const struct kx_moment_match *match = &hit->matches[i];

		kx_json_open(json, NULL, '{');
		kx_json_seconds(json, "ours_s", match->ours_us);
		kx_json_seconds(json, "theirs_s", match->theirs_us);
		kx_json_real(json, "score", match->score);
		kx_json_real(json, "visual", match->visual);
		kx_json_real(json, "audio", match->audio);
		kx_json_close(json, '}');
	}
	kx_json_close(json, ']');
}

static void encode_clauses(struct kx_json *json, const struct kx_similar_hit *hit)
{
	kx_json_open(json, "filter", '[');
	for (uint32_t i = 0; i < hit->clause_count; i++) {
		kx_json_open(json, NULL, '{');
		kx_json_text(json, "clause", hit->clauses[i].clause);
		kx_json_bool(json, "passed", hit->clauses[i].passed);
		kx_json_text(json, "value", hit->clauses[i].value);
		kx_json_close(json, '}');
	}
	kx_json_close(json, ']');
}

static void encode_hit(struct kx_json *json, const struct kx_similar_hit *hit, bool moments, bool explain)
{
	kx_json_open(json, NULL, '{');
	kx_json_text(json, "id", hit->video_id);
	kx_json_text(json, "title", hit->title);
	kx_json_real(json, "score", hit->score);
	kx_json_real(json, "visual", hit->visual);
	kx_json_real(json, "audio", hit->audio);
	kx_json_bool(json, "has_visual", hit->has_visual);
	kx_json_bool(json, "has_audio", hit->has_audio);
	kx_json_seconds(json, "duration_s", hit->duration_us);
	if (hit->label_count > 0)
		encode_texts(json, "labels", hit->labels, hit->label_count);
	if (hit->group_key != NULL && hit->group_key[0] != '\0')
		kx_json_text(json, "group", hit->group_key);
	if (hit->has_moment) {
		kx_json_open(json, "moment", '{');
		kx_json_seconds(json, "from_s", hit->moment_start_us);
		kx_json_seconds(json, "to_s", hit->moment_end_us);
		kx_json_close(json, '}');
	}
	if (moments)
		encode_matches(json, hit);
	if (explain)
		encode_clauses(json, hit);
	kx_json_close(json, '}');
}

static void encode_work(struct kx_json *json, const struct kx_search_work *work)
{
	kx_json_open(json, "work", '{');
	kx_json_integer(json, "rows", work->rows);
	kx_json_integer(json, "matching", work->matching);
	kx_json_integer(json, "cells", work->cells);
	kx_json_integer(json, "codes", work->codes);
	kx_json_integer(json, "refined", work->refined);
	kx_json_seconds(json, "took_s", work->took_us);
	kx_json_close(json, '}');
}

void kx_encode_similar(struct kx_json *json, const struct kx_similar_answer *answer, bool moments, bool explain)
{
	kx_json_open(json, "hits", '[');
	for (uint32_t i = 0; i < answer->hit_count; i++)
		encode_hit(json, &answer->hits[i], moments, explain);
	kx_json_close(json, ']');
	if (answer->next != NULL && answer->next[0] != '\0')
		kx_json_text(json, "next", answer->next);
	kx_json_bool(json, "exact", answer->exact);
	kx_json_real(json, "recall", answer->recall);
	if (answer->changed)
		kx_json_bool(json, "changed", true);
	if (explain)
		encode_work(json, &answer->work);
}

static void encode_class_list(struct kx_json *json, enum kx_modality modality, uint32_t count, const uint32_t *ids,
			      const float *scores, const struct kx_namer *namer, uint32_t top)
{
	kx_json_open(json, "classes", '[');
	for (uint32_t i = 0; i < count && i < top; i++) {
		const char *label = namer != NULL && namer->label != NULL ? namer->label(namer->ctx, modality, ids[i]) : NULL;

		kx_json_open(json, NULL, '{');
		kx_json_integer(json, "class", ids[i]);
		if (label != NULL)
			kx_json_text(json, "label", label);
		kx_json_real(json, "score", (double)scores[i]);
		kx_json_close(json, '}');
	}
	kx_json_close(json, ']');
}

static void encode_maker(struct kx_json *json, enum kx_modality modality, const struct kx_namer *namer)
{
	const char *maker = namer != NULL && namer->classifier != NULL ? namer->classifier(namer->ctx, modality) : NULL;

	kx_json_text(json, "modality", modality == KX_VISUAL ? "visual" : "audio");
	if (maker != NULL)
		kx_json_text(json, "bundle", maker);
}

static void encode_modality(struct kx_json *json, const struct kx_modality_result *part, const struct kx_encode_video *how)
{
	kx_json_open(json, NULL, '{');
	encode_maker(json, part->modality, how->namer);
	kx_json_text(json, "space", part->space);
	kx_json_integer(json, "dim", part->dim);
	kx_json_integer(json, "moments", part->moments);
	kx_json_integer(json, "rows", part->rows);
	if (how->top > 0)
		encode_class_list(json, part->modality, part->class_count, part->class_ids, part->class_scores, how->namer,
				  how->top);
	if (how->embeddings) {
		kx_json_open(json, "embedding", '[');
		for (uint32_t i = 0; i < part->dim; i++)
			kx_json_real(json, NULL, (double)part->embedding[i]);
		kx_json_close(json, ']');
	}
	kx_json_close(json, '}');
}

/* Addresses may have passwords and signatures in them. */
static void encode_source(struct kx_json *json, const char *source)
{
	KX_CLEANUP(kx_cleanup_free) char *shown = kx_fetch_is_url(source) ? kx_fetch_name(source) : kx_strdup(source);

	kx_json_text(json, "source", shown);
}

static void encode_info(struct kx_json *json, const struct kx_video_info *info)
{
	char sha[2 * KX_SHA_LEN + 1];

	kx_json_text(json, "title", info->title);
	encode_texts(json, "labels", info->labels, info->label_count);
	encode_source(json, info->source);
	kx_hex_encode(info->content_sha256, KX_SHA_LEN, sha);
	kx_json_text(json, "content_sha256", sha);
	kx_json_integer(json, "content_bytes", info->content_bytes);
	kx_json_text(json, "container", info->container);
	kx_json_text(json, "video_codec", info->video_codec);
	kx_json_text(json, "audio_codec", info->audio_codec);
	kx_json_integer(json, "width", info->width);
	kx_json_integer(json, "height", info->height);
}

static void encode_extras(struct kx_json *json, const struct kx_extras *extras)
{
	if (extras->language != NULL && extras->language[0] != '\0')
		kx_json_text(json, "language", extras->language);
	if (extras->visibility != NULL && extras->visibility[0] != '\0')
		kx_json_text(json, "visibility", extras->visibility);
	if (extras->attribute_count == 0)
		return;
	kx_json_open(json, "attributes", '{');
	for (uint32_t i = 0; i < extras->attribute_count; i++) {
		const struct kx_attribute *attribute = &extras->attributes[i];

		/* Names are letters, digits, _ - and dots, which need no escape. */
		if (attribute->type == KX_ATTRIBUTE_NUMBER)
			kx_json_real(json, attribute->name, attribute->number);
		else if (attribute->type == KX_ATTRIBUTE_BOOL)
			kx_json_bool(json, attribute->name, attribute->flag);
		else
			kx_json_text(json, attribute->name, attribute->text);
	}
	kx_json_close(json, '}');
}

static void encode_decode(struct kx_json *json, const struct kx_video_result *result)
{
	kx_json_open(json, "decode", '{');
	kx_json_text(json, "mode", kx_decode_mode_name(result->decode_mode));
	if (result->decode_mode == KX_DECODE_TOLERANT)
		kx_json_seconds(json, "tolerance_s", result->decode_tolerance_us);
	kx_json_seconds(json, "max_time_error_s", result->max_time_error_us);
	kx_json_close(json, '}');
}

void kx_encode_video(struct kx_json *json, const struct kx_video_record *video, const struct kx_encode_video *how)
{
	const struct kx_video_result *result = &video->result;

	kx_json_text(json, "id", result->video_id);
	kx_json_integer(json, "generation", video->generation);
	kx_json_integer(json, "stored_at_ms", video->stored_at_ms);
	encode_info(json, &video->info);
	encode_extras(json, &video->info.extras);
	kx_json_seconds(json, "duration_s", result->duration_us);
	kx_json_seconds(json, "visual_s", result->visual_us);
	kx_json_seconds(json, "audio_s", result->audio_us);
	kx_json_bool(json, "truncated", result->truncated);
	kx_json_seconds(json, "moment_s", result->moment_us);
	encode_decode(json, result);
	kx_json_open(json, "modalities", '[');
	for (uint32_t i = 0; i < result->modality_count; i++)
		encode_modality(json, &result->modalities[i], how);
	kx_json_close(json, ']');
}

void kx_encode_classes(struct kx_json *json, const struct kx_video_record *video, const struct kx_moment_classes *moments,
		       uint32_t moment_count, bool with_moments, const struct kx_namer *namer, uint32_t top)
{
	const struct kx_video_result *result = &video->result;

	kx_json_open(json, "video", '[');
	for (uint32_t i = 0; i < result->modality_count; i++) {
		const struct kx_modality_result *part = &result->modalities[i];

		kx_json_open(json, NULL, '{');
		encode_maker(json, part->modality, namer);
		encode_class_list(json, part->modality, part->class_count, part->class_ids, part->class_scores, namer, top);
		kx_json_close(json, '}');
	}
	kx_json_close(json, ']');
	if (!with_moments)
		return;
	kx_json_open(json, "moments", '[');
	for (uint32_t i = 0; i < moment_count; i++) {
		kx_json_open(json, NULL, '{');
		encode_maker(json, moments[i].modality, namer);
		kx_json_seconds(json, "from_s", moments[i].index * result->moment_us);
		kx_json_seconds(json, "to_s", (moments[i].index + 1) * result->moment_us);
		encode_class_list(json, moments[i].modality, moments[i].class_count, moments[i].class_ids,
				  moments[i].class_scores, namer, top);
		kx_json_close(json, '}');
	}
	kx_json_close(json, ']');
}

void kx_encode_stats(struct kx_json *json, const struct kx_shard_stats *stats)
{
	kx_json_integer(json, "videos", stats->videos);
	kx_json_integer(json, "pending", stats->pending);
	kx_json_integer(json, "moments", stats->moments);
	kx_json_seconds(json, "media_s", stats->media_us);
	kx_json_integer(json, "disk_bytes", stats->disk_bytes);
	kx_json_open(json, "index", '{');
	kx_json_integer(json, "vectors", stats->index_vectors);
	kx_json_integer(json, "cells", stats->index_cells);
	kx_json_integer(json, "recall_samples", stats->index_recall_samples);
	if (stats->index_recall_samples) {
		kx_json_real(json, "recall", stats->index_recall);
		kx_json_real(json, "recall_wanted", stats->index_recall_wanted);
	}
	kx_json_close(json, '}');
}

static void encode_values(struct kx_json *json, const struct kx_attribute_info *info)
{
	kx_json_open(json, "values", '[');
	for (uint32_t i = 0; i < info->value_count; i++) {
		kx_json_open(json, NULL, '{');
		kx_json_text(json, "value", info->values[i].value);
		kx_json_integer(json, "videos", info->values[i].videos);
		kx_json_close(json, '}');
	}
	kx_json_close(json, ']');
}

void kx_encode_schema(struct kx_json *json, const struct kx_query_reply *reply)
{
	kx_json_open(json, "attributes", '[');
	for (uint32_t i = 0; i < reply->attribute_count; i++) {
		const struct kx_attribute_info *info = &reply->attributes[i];

		kx_json_open(json, NULL, '{');
		kx_json_text(json, "name", info->name);
		kx_json_text(json, "type", kx_attribute_type_name(info->type));
		kx_json_bool(json, "user", info->user);
		kx_json_integer(json, "videos", info->videos);
		if (info->distinct > 0)
			kx_json_integer(json, "distinct", info->distinct);
		if (info->has_range) {
			kx_json_real(json, "min", info->min);
			kx_json_real(json, "max", info->max);
		}
		if (info->value_count > 0)
			encode_values(json, info);
		kx_json_close(json, '}');
	}
	kx_json_close(json, ']');
}
