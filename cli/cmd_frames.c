/* Frames: the sampled frames as PNG files, for a person to look at. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/json.h"
#include "cli/png.h"
#include "cli/prober.h"
#include "cli/sampling.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "worker/pipeline/frames.h"

struct output {
	const char *folder;
	const char *mode; /* as it was asked for */
	double fps;
	uint32_t width, height;
	FILE *index; /* frames.jsonl */
	uint64_t count;
};

static kx_status note_frame(struct output *output, const struct kx_sample *sample, const char *name,
			    struct kx_error *error)
{
	json_t *row = json_pack("{s:I, s:f, s:f, s:f, s:s, s:s}", "index", (json_int_t)sample->index, "grid_s",
				(double)sample->index / output->fps, "pts_s", (double)sample->pts_us / 1e6, "time_error_s",
				(double)sample->error_us / 1e6, "decode", output->mode, "file", name);
	if (row == NULL)
		return kx_error_nomem(error);
	int failed = json_dumpf(row, output->index, JSON_COMPACT) != 0 || fputc('\n', output->index) == EOF;
	json_decref(row);
	return failed ? kx_error_from_errno(error, errno, "writing %s/frames.jsonl", output->folder) : KX_OK;
}

static kx_status on_frame(void *ctx, const struct kx_sample *sample, const uint8_t *rgb, struct kx_error *error)
{
	struct output *output = ctx;
	char name[96];
	snprintf(name, sizeof(name), "frame-%06" PRIu64 "-%.6fs.png", sample->index, (double)sample->pts_us / 1e6);
	if (kx_stop_asked(&kx_interrupted))
		return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopped");
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(output->folder, name);
	if (path == NULL)
		return kx_error_nomem(error);
	kx_status status = kx_png_write(path, rgb, output->width, output->height, error);
	if (status == KX_OK)
		status = note_frame(output, sample, name, error);
	output->count += status == KX_OK;
	return status;
}

/* "640x360"; NULL leaves both 0, which is the size as presented. */
static bool parse_size(const char *text, uint32_t *ret_width, uint32_t *ret_height)
{
	unsigned width = 0, height = 0;
	int end = 0;
	*ret_width = *ret_height = 0;
	if (text == NULL)
		return true;
	if (sscanf(text, "%5ux%5u%n", &width, &height, &end) != 2 || text[end] != '\0' || width < 1 || height < 1 ||
	    width > KX_FRAME_SIDE_MAX || height > KX_FRAME_SIDE_MAX)
		return false;
	*ret_width = width;
	*ret_height = height;
	return true;
}

static uint32_t scaled(uint32_t side, double by)
{
	double value = (double)side * by + 0.5;
	return value < 1 ? 1 : (uint32_t)value;
}

/* As large as fits into the size that was asked for, or else as presented. */
static void fit(struct output *output, const struct kx_probe_info *info)
{
	double wide = output->width > 0 ? output->width : info->width;
	double high = output->height > 0 ? output->height : info->height;
	double most = KX_FRAME_SIDE_MAX;
	double by = (wide < most ? wide : most) / info->width;
	double by_height = (high < most ? high : most) / info->height;
	by = by < by_height ? by : by_height;
	output->width = scaled(info->width, by);
	output->height = scaled(info->height, by);
}

static kx_status read_frames(struct output *output, const char *path, const struct kx_sampling *sampling,
			     struct kx_error *error)
{
	KX_CLEANUP(kx_cli_prober_cleanup) struct kx_cli_prober *prober = NULL;
	struct kx_probe_info info = {0};
	enum kx_reason reason;
	kx_status status = kx_cli_prober_open(path, &prober, error);
	if (status == KX_OK)
		status = kx_prober_probe(prober->prober, prober->fd, path, &info, &reason, error);
	if (status != KX_OK)
		return status;
	if (!info.has_visual || info.width == 0 || info.height == 0) {
		kx_probe_info_done(&info);
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON, "%s has no picture", path);
	}
	fit(output, &info);
	kx_probe_info_done(&info);
	struct kx_frames_request request = {
		.fps = sampling->fps,
		.mode = sampling->mode,
		.tolerance_us = sampling->tolerance_us,
		.width = output->width,
		.height = output->height,
	};
	return kx_frames_read(prober->prober, prober->fd, path, &request, on_frame, output, NULL, &reason, error);
}

static kx_status frames(struct output *output, const char *path, const struct kx_sampling *sampling,
			struct kx_error *error)
{
	kx_status status = kx_fs_mkdirs(output->folder, error);
	KX_CLEANUP(kx_cleanup_free) char *index = kx_fs_join(output->folder, "frames.jsonl");
	if (status != KX_OK)
		return status;
	if (index == NULL)
		return kx_error_nomem(error);
	output->index = fopen(index, "we");
	if (output->index == NULL)
		return kx_error_from_errno(error, errno, "making %s", index);
	status = read_frames(output, path, sampling, error);
	if (fclose(output->index) != 0 && status == KX_OK)
		status = kx_error_from_errno(error, errno, "writing %s", index);
	return status;
}

int kx_cmd_frames(const struct kx_config *config)
{
	struct kx_error error = {0};
	struct kx_sampling sampling = {.fps = kx_config_real(config, "fps")};
	struct output output = {
		.folder = kx_config_text(config, "out"),
		.mode = kx_config_text(config, "decode"),
		.fps = sampling.fps,
	};
	if (kx_config_argc(config) != 1)
		return kx_usage("frames of what? Name one file: kinodex frames FILE --out DIR");
	if (output.folder == NULL)
		return kx_usage("frames are written as files: say where with --out DIR");
	if (kx_cli_decode(config, &sampling, &error) != KX_OK)
		return kx_usage("%s", error.message);
	const char *size = kx_config_text(config, "size");
	if (!parse_size(size, &output.width, &output.height))
		return kx_usage("--size \"%s\": width and height from 1 to %u, as in 640x360", size, KX_FRAME_SIDE_MAX);
	kx_status status = frames(&output, kx_config_arg(config, 0), &sampling, &error);
	if (status != KX_OK)
		return kx_fail(&error);
	printf("%" PRIu64 " frames of %" PRIu32 "x%" PRIu32 " and frames.jsonl in %s\n", output.count, output.width,
	       output.height, output.folder);
	return KX_EXIT_DONE;
}
