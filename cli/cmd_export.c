/* Export: a JSON line a video, or numpy arrays. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/data.h"
#include "cli/json.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "shard/run/shard.h"

static json_t *floats_json(const float *values, uint32_t count)
{
	json_t *out = json_array();
	for (uint32_t i = 0; i < count; i++)
		json_array_append_new(out, json_real((double)values[i]));
	return out;
}

static json_t *modality_json(const struct kx_modality_result *result)
{
	json_t *ids = json_array();
	for (uint32_t i = 0; i < result->class_count; i++)
		json_array_append_new(ids, json_integer((json_int_t)result->class_ids[i]));
	return json_pack("{s:s, s:I, s:I, s:o, s:o, s:o}", "space", result->space, "moments",
			 (json_int_t)result->moments, "rows", (json_int_t)result->rows, "class_ids", ids,
			 "class_scores", floats_json(result->class_scores, result->class_count), "embedding",
			 floats_json(result->embedding, result->dim));
}

/* A row's true time, and how far it is from its place on the grid. */
static kx_status print_moment(void *ctx, const struct kx_video_record *video, const struct kx_moment *moment,
			      struct kx_error *error)
{
	(void)ctx;
	json_t *times = json_array(), *errors = json_array();
	for (uint32_t i = 0; i < moment->count; i++) {
		uint64_t off_us = moment->time_error_us != NULL ? moment->time_error_us[i] : 0;
		json_array_append_new(times, json_real((double)moment->pts_us[i] / 1e6));
		json_array_append_new(errors, json_real((double)off_us / 1e6));
	}
	/* Written before rows had errors of their own: only the largest is known. */
	if (moment->time_error_us == NULL && moment->max_time_error_us > 0)
		json_array_clear(errors);
	json_t *out = json_pack("{s:s, s:s, s:I, s:f, s:o, s:o, s:f}", "id", video->result.video_id, "track",
				kx_modality_name(moment->modality), "moment", (json_int_t)moment->index, "from_s",
				(double)moment->index * (double)video->result.moment_us / 1e6, "pts_s", times,
				"time_error_s", errors, "max_time_error_s", (double)moment->max_time_error_us / 1e6);
	kx_status status = kx_json_print(out, error);
	return status == KX_OK ? KX_OK : kx_error_prefix(error, status, "%s", video->result.video_id);
}

static json_t *attribute_json(const struct kx_attribute *attribute)
{
	if (attribute->type == KX_ATTRIBUTE_NUMBER)
		return json_real(attribute->number);
	return attribute->type == KX_ATTRIBUTE_BOOL ? json_boolean(attribute->flag) : json_string(attribute->text);
}

/* What the catalogue said, as far as it said anything. */
static void set_extras(json_t *out, const struct kx_video_info *info)
{
	json_t *labels = json_array(), *attributes = json_object();
	for (uint32_t i = 0; i < info->label_count; i++)
		json_array_append_new(labels, json_string(info->labels[i]));
	for (uint32_t i = 0; i < info->extras.attribute_count; i++)
		json_object_set_new(attributes, info->extras.attributes[i].name, attribute_json(&info->extras.attributes[i]));
	json_object_set_new(out, "labels", labels);
	json_object_set_new(out, "language", json_string(info->extras.language));
	json_object_set_new(out, "visibility", json_string(info->extras.visibility));
	json_object_set_new(out, "attributes", attributes);
}

static kx_status print_video(void *ctx, const struct kx_video_record *video, struct kx_error *error)
{
	(void)ctx;
	char sha[2 * KX_SHA_LEN + 1];
	const struct kx_video_result *result = &video->result;
	kx_hex_encode(video->info.content_sha256, KX_SHA_LEN, sha);
	KX_CLEANUP(kx_cleanup_free) char *source = kx_json_source(video->info.source);
	json_t *out = json_pack("{s:s, s:s, s:s, s:s, s:f, s:f, s:f, s:b, s:I, s:I, s:s, s:f}", "id", result->video_id,
				"title", video->info.title, "source", source, "sha256", sha, "duration_s",
				(double)result->duration_us / 1e6, "visual_s", (double)result->visual_us / 1e6,
				"audio_s", (double)result->audio_us / 1e6, "truncated", result->truncated, "width",
				(json_int_t)video->info.width, "height", (json_int_t)video->info.height, "decode",
				kx_decode_mode_name(result->decode_mode), "max_time_error_s",
				(double)result->max_time_error_us / 1e6);
	if (result->decode_mode == KX_DECODE_TOLERANT)
		json_object_set_new(out, "tolerance_s", json_real((double)result->decode_tolerance_us / 1e6));
	set_extras(out, &video->info);
	for (uint32_t i = 0; i < result->modality_count; i++)
		json_object_set_new(out, kx_modality_name(result->modalities[i].modality),
				    modality_json(&result->modalities[i]));
	kx_status status = kx_json_print(out, error);
	return status == KX_OK ? KX_OK : kx_error_prefix(error, status, "%s", result->video_id);
}

/* One array file: a header that is rewritten when the number of rows is known. */
struct npy {
	FILE *file;
	char *path;
	uint32_t dim; /* 0: nothing written yet */
	uint64_t rows;
};

struct npy_export {
	struct npy arrays[2]; /* visual, audio */
	FILE *index;          /* index.jsonl: id and row in each array, or null */
};

#define NPY_HEADER 128

static int write_npy_header(struct npy *npy)
{
	char header[NPY_HEADER + 1];
	int len = snprintf(header + 10, sizeof(header) - 10,
			   "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRIu64 ", %" PRIu32 "), }",
			   npy->rows, npy->dim);
	memcpy(header, "\x93NUMPY\x01\x00", 8);
	header[8] = NPY_HEADER - 10;
	header[9] = 0;
	memset(header + 10 + len, ' ', (size_t)(NPY_HEADER - 11 - len));
	header[NPY_HEADER - 1] = '\n';
	return fseek(npy->file, 0, SEEK_SET) == 0 && fwrite(header, NPY_HEADER, 1, npy->file) == 1 ? 0 : -1;
}

static kx_status add_row(struct npy *npy, const struct kx_modality_result *result, struct kx_error *error)
{
	if (npy->dim == 0) {
		npy->dim = result->dim;
		if (write_npy_header(npy) != 0)
			return kx_error_from_errno(error, errno, "writing %s", npy->path);
	}
	if (npy->dim != result->dim)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "the store holds two spaces of %s: %" PRIu32 " and %" PRIu32
				    " dimensions. Index everything with one bundle first",
				    kx_modality_name(result->modality), npy->dim, result->dim);
	if (fwrite(result->embedding, sizeof(float), result->dim, npy->file) != result->dim)
		return kx_error_from_errno(error, errno, "writing %s", npy->path);
	npy->rows++;
	return KX_OK;
}

static kx_status add_video(void *ctx, const struct kx_video_record *video, struct kx_error *error)
{
	struct npy_export *out = ctx;
	const struct kx_video_result *result = &video->result;
	json_t *row = json_pack("{s:s, s:n, s:n}", "id", result->video_id, "visual", "audio");
	kx_status status = row != NULL ? KX_OK : kx_error_nomem(error);
	for (uint32_t i = 0; status == KX_OK && i < result->modality_count; i++) {
		const struct kx_modality_result *modality = &result->modalities[i];
		struct npy *npy = &out->arrays[modality->modality == KX_AUDIO];
		json_object_set_new(row, kx_modality_name(modality->modality), json_integer((json_int_t)npy->rows));
		status = add_row(npy, modality, error);
	}
	if (status == KX_OK && (json_dumpf(row, out->index, JSON_COMPACT) != 0 || fputc('\n', out->index) == EOF))
		status = kx_error_from_errno(error, errno, "writing index.jsonl");
	json_decref(row);
	return status;
}

static kx_status open_file(const char *folder, const char *name, FILE **ret, char **ret_path, struct kx_error *error)
{
	char *path = kx_fs_join(folder, name);
	if (path == NULL)
		return kx_error_nomem(error);
	*ret = fopen(path, "wbe");
	if (*ret == NULL) {
		kx_status status = kx_error_from_errno(error, errno, "making %s", path);
		free(path);
		return status;
	}
	*ret_path = path;
	return KX_OK;
}

static kx_status close_array(struct npy *npy, kx_status status, struct kx_error *error)
{
	if (npy->file == NULL)
		return status;
	if (status == KX_OK && write_npy_header(npy) != 0)
		status = kx_error_from_errno(error, errno, "writing %s", npy->path);
	if (fclose(npy->file) != 0 && status == KX_OK)
		status = kx_error_from_errno(error, errno, "writing %s", npy->path);
	free(npy->path);
	return status;
}

static kx_status export_npy(const char *data_dir, const char *folder, struct kx_error *error)
{
	struct npy_export out = {0};
	char *index_path = NULL;
	kx_status status = kx_fs_mkdirs(folder, error);
	if (status == KX_OK)
		status = open_file(folder, "visual.npy", &out.arrays[0].file, &out.arrays[0].path, error);
	if (status == KX_OK)
		status = open_file(folder, "audio.npy", &out.arrays[1].file, &out.arrays[1].path, error);
	if (status == KX_OK)
		status = open_file(folder, "index.jsonl", &out.index, &index_path, error);
	struct kx_shard_visitor visitor = {.ctx = &out, .video = add_video};
	if (status == KX_OK)
		status = kx_shard_each(data_dir, &visitor, error);
	status = close_array(&out.arrays[0], status, error);
	status = close_array(&out.arrays[1], status, error);
	if (out.index != NULL && fclose(out.index) != 0 && status == KX_OK)
		status = kx_error_from_errno(error, errno, "writing %s", index_path);
	free(index_path);
	return status;
}

int kx_cmd_export(const struct kx_config *config)
{
	bool npy = strcmp(kx_config_text(config, "format"), "npy") == 0;
	const char *folder = kx_config_text(config, "out");
	if (npy != (folder != NULL))
		return kx_usage("%s", npy ? "--format npy writes files: say where with --out DIR"
					  : "--out is for --format npy; jsonl goes to standard output");
	if (npy && kx_config_flag(config, "moments"))
		return kx_usage("--moments is for --format jsonl: npy holds whole videos");
	struct kx_error error = {0};
	KX_CLEANUP(kx_data_cleanup) struct kx_data *data = NULL;
	bool moments = kx_config_flag(config, "moments");
	struct kx_shard_visitor visitor = {.video = print_video, .moment = moments ? print_moment : NULL};
	kx_status status = kx_data_open(kx_config_text(config, "data"), KX_DATA_READ, &data, &error);
	if (status == KX_OK)
		status = npy ? export_npy(data->dir, folder, &error) : kx_shard_each(data->dir, &visitor, &error);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}
