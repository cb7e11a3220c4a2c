/* Probe: what is in a file as the decoder sees it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/json.h"
#include "cli/prober.h"
#include "common/base/str.h"

static double seconds(uint64_t us)
{
	return (double)us / 1e6;
}

/* Fields that are not said are left out. */
static void set_text(json_t *row, const char *key, const char *text)
{
	if (*text && kx_utf8_valid(text, strlen(text)))
		json_object_set_new(row, key, json_string(text));
}

static void set_count(json_t *row, const char *key, uint64_t value)
{
	if (value > 0)
		json_object_set_new(row, key, json_integer((json_int_t)value));
}

static json_t *stream_json(const struct kx_probe_stream *stream)
{
	json_t *row = json_pack("{s:I, s:s, s:s, s:b, s:s, s:f}", "index", (json_int_t)stream->index, "kind", stream->kind,
				"codec", stream->codec, "chosen", stream->chosen, "why", stream->note, "start_s",
				(double)stream->start_us / 1e6);
	set_text(row, "profile", stream->profile);
	if (stream->duration_us > 0)
		json_object_set_new(row, "duration_s", json_real(seconds(stream->duration_us)));
	set_count(row, "bit_rate", stream->bit_rate);
	set_count(row, "packets", stream->packets);
	set_count(row, "key_packets", stream->key_packets);
	set_count(row, "width", stream->width);
	set_count(row, "height", stream->height);
	if (stream->aspect_num > 0)
		json_object_set_new(row, "sample_aspect", json_sprintf("%" PRIu32 ":%" PRIu32, stream->aspect_num,
								       stream->aspect_den));
	set_count(row, "rotation", stream->rotation);
	if (stream->mirrored)
		json_object_set_new(row, "mirrored", json_true());
	if (stream->frame_rate > 0)
		json_object_set_new(row, "frame_rate", json_real(stream->frame_rate));
	set_text(row, "pixel_format", stream->pixel_format);
	set_text(row, "range", stream->range);
	set_text(row, "matrix", stream->matrix);
	set_text(row, "primaries", stream->primaries);
	set_text(row, "transfer", stream->transfer);
	set_text(row, "field_order", stream->field_order);
	set_count(row, "sample_rate", stream->sample_rate);
	set_count(row, "channels", stream->channels);
	set_text(row, "layout", stream->layout);
	set_text(row, "sample_format", stream->sample_format);
	return row;
}

static bool is_hdr(const struct kx_probe_stream *stream)
{
	return strcmp(stream->transfer, "smpte2084") == 0 || strcmp(stream->transfer, "arib-std-b67") == 0;
}

static kx_status print_json(const char *path, const struct kx_probe_info *info, const struct kx_probe_detail *detail,
			    struct kx_error *error)
{
	json_t *streams = json_array();
	bool hdr = false;
	for (uint32_t i = 0; i < detail->stream_count; i++) {
		hdr |= detail->streams[i].chosen && is_hdr(&detail->streams[i]);
		json_array_append_new(streams, stream_json(&detail->streams[i]));
	}
	return kx_json_print(
		json_pack("{s:s, s:s, s:f, s:f, s:b, s:b, s:I, s:I, s:f, s:b, s:b, s:s, s:o}", "file", path, "container",
			  info->container, "duration_s", seconds(info->duration_us), "packets_s",
			  seconds(detail->packets_us), "has_visual", info->has_visual, "has_audio", info->has_audio,
			  "width", (json_int_t)info->width, "height", (json_int_t)info->height, "frame_rate",
			  info->frame_rate, "hdr", hdr, "splittable", info->splittable, "plan", detail->plan, "streams",
			  streams),
		error);
}

static void print_colour(const struct kx_probe_stream *stream)
{
	const char *words[] = {stream->pixel_format, stream->range, stream->matrix, stream->primaries, stream->transfer,
			       stream->field_order};
	for (size_t i = 0; i < KX_ARRAY_LEN(words); i++)
		if (*words[i])
			printf(", %s", words[i]);
	printf("%s\n", is_hdr(stream) ? " (HDR)" : "");
}

static void print_stream(const struct kx_probe_stream *stream)
{
	printf("%c %" PRIu32 " %-9s %s%s%s%s\n", stream->chosen ? '*' : ' ', stream->index, stream->kind, stream->codec,
	       *stream->profile ? " (" : "", stream->profile, *stream->profile ? ")" : "");
	printf("      %s\n", stream->note);
	if (stream->width > 0) {
		printf("      %" PRIu32 "x%" PRIu32, stream->width, stream->height);
		if (stream->aspect_num > 0 && stream->aspect_num != stream->aspect_den)
			printf(", samples %" PRIu32 ":%" PRIu32, stream->aspect_num, stream->aspect_den);
		if (stream->mirrored)
			printf(", mirrored");
		if (stream->rotation > 0)
			printf(", turned by %" PRIu32, stream->rotation);
		printf(", %.6g frames/s", stream->frame_rate);
		print_colour(stream);
	}
	if (stream->sample_rate > 0)
		printf("      %" PRIu32 " Hz, %" PRIu32 " channels (%s)%s%s\n", stream->sample_rate, stream->channels,
		       stream->layout, *stream->sample_format ? ", " : "", stream->sample_format);
	printf("      starts at %.3f s", (double)stream->start_us / 1e6);
	if (stream->duration_us > 0)
		printf(", lasts %.3f s as the container says", seconds(stream->duration_us));
	if (stream->packets > 0)
		printf("; %" PRIu64 " packets, %" PRIu64 " of them key", stream->packets, stream->key_packets);
	printf("\n");
}

static kx_status print_text(const char *path, const struct kx_probe_info *info, const struct kx_probe_detail *detail)
{
	printf("%s: %s, %.3f s as the container says, %.3f s by its packets\n", path, info->container,
	       seconds(info->duration_us), seconds(detail->packets_us));
	if (info->has_visual)
		printf("  presented %" PRIu32 "x%" PRIu32 "; %s; %s\n", info->width, info->height,
		       info->splittable ? "can be split into parts" : "one part: a seek is not exact in it", detail->plan);
	for (uint32_t i = 0; i < detail->stream_count; i++)
		print_stream(&detail->streams[i]);
	return KX_OK;
}

static kx_status probe(const struct kx_config *config, const char *path, struct kx_error *error)
{
	KX_CLEANUP(kx_cli_prober_cleanup) struct kx_cli_prober *prober = NULL;
	struct kx_probe_info info = {0};
	struct kx_probe_detail detail = {0};
	enum kx_reason reason;
	kx_status status = kx_cli_prober_open(path, &prober, error);
	if (status == KX_OK)
		status = kx_prober_inspect(prober->prober, prober->fd, path, &info, &detail, &reason, error);
	if (status != KX_OK)
		return status;
	status = kx_config_flag(config, "json") ? print_json(path, &info, &detail, error) : print_text(path, &info, &detail);
	kx_probe_info_done(&info);
	kx_probe_detail_done(&detail);
	return status;
}

int kx_cmd_probe(const struct kx_config *config)
{
	if (kx_config_argc(config) != 1)
		return kx_usage("probe what? Name one file: kinodex probe FILE");
	struct kx_error error = {0};
	kx_status status = probe(config, kx_config_arg(config, 0), &error);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}
