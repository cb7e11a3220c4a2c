/* What index prints when it ends. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/indexer.h"
#include "cli/json.h"
#include "common/base/str.h"

static double ratio(double a, double b)
{
	return b > 0 ? a / b : 0;
}

static double bytes_per_hour(const struct kx_index_report *report)
{
	return ratio((double)report->disk_bytes, (double)report->store_media_us / 3.6e9);
}

static kx_status print_json(const struct kx_index_report *report, bool stopped, struct kx_error *error)
{
	const struct kx_coordinator_report *run = &report->run;
	json_t *reasons = json_object();
	for (int i = KX_REASON_NONE + 1; i < KX_REASON_COUNT; i++)
		if (run->reasons[i] > 0)
			json_object_set_new(reasons, kx_reason_name((enum kx_reason)i),
					    json_integer((json_int_t)run->reasons[i]));
	json_t *out = json_pack(
		"{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:f, s:f, s:f, s:f, s:I, s:I, s:f}", "stopped", stopped,
		"done", (json_int_t)run->done, "partial", (json_int_t)run->partial, "quarantined",
		(json_int_t)run->quarantined, "deleted", (json_int_t)run->deleted, "unchanged",
		(json_int_t)run->unchanged, "copied", (json_int_t)run->copied, "reasons", reasons, "hours",
		(double)run->media_us / 3.6e9, "wall_s", (double)report->wall_us / 1e6, "cpu_s",
		(double)report->cpu_us / 1e6, "decode_cpu_s", (double)run->decode_cpu_us / 1e6, "peak_rss_bytes",
		(json_int_t)report->peak_rss_bytes, "store_bytes", (json_int_t)report->disk_bytes,
		"store_bytes_per_hour", bytes_per_hour(report));
	return kx_json_print(out, error);
}

static void print_ends(const struct kx_coordinator_report *run)
{
	static const char row[] = "  %-12s %" PRIu64 "\n";
	fprintf(stderr, row, "done", run->done);
	if (run->partial > 0)
		fprintf(stderr, row, "partial", run->partial);
	if (run->copied > 0)
		fprintf(stderr, row, "copied", run->copied);
	if (run->unchanged > 0)
		fprintf(stderr, row, "unchanged", run->unchanged);
	if (run->deleted > 0)
		fprintf(stderr, row, "deleted", run->deleted);
	if (run->quarantined > 0)
		fprintf(stderr, row, "quarantined", run->quarantined);
	for (int i = KX_REASON_NONE + 1; i < KX_REASON_COUNT; i++)
		if (run->reasons[i] > 0)
			fprintf(stderr, "    %-16s %" PRIu64 "\n", kx_reason_name((enum kx_reason)i), run->reasons[i]);
}

static void print_speed(const struct kx_index_report *report)
{
	char media[32], wall[32];
	double cpu_s = (double)report->cpu_us / 1e6;
	kx_format_duration(report->run.media_us / 1000, media, sizeof(media));
	kx_format_duration(report->wall_us / 1000, wall, sizeof(wall));
	if (report->run.media_us == 0) {
		fprintf(stderr, "  nothing was decoded, in %s\n", wall);
		return;
	}
	if (report->cpu_us == 0) { /* other processes did the work */
		fprintf(stderr, "  indexed %s of video in %s: %.0fx real time\n", media, wall,
			ratio((double)report->run.media_us, (double)report->wall_us));
		return;
	}
	fprintf(stderr, "  indexed %s of video in %s (%.1f s of CPU, %.0f%% of it decoding): %.0fx real time, "
			"%.0fx per core\n",
		media, wall, cpu_s, 100 * ratio((double)report->run.decode_cpu_us / 1e6, cpu_s),
		ratio((double)report->run.media_us, (double)report->wall_us),
		ratio((double)report->run.media_us / 1e6, cpu_s));
}

static void print_table(const struct kx_index_report *report)
{
	char disk[32], hour[32];
	kx_format_bytes(report->disk_bytes, disk, sizeof(disk));
	kx_format_bytes((uint64_t)bytes_per_hour(report), hour, sizeof(hour));
	print_ends(&report->run);
	print_speed(report);
	if (report->disk_bytes > 0) /* a coordinator alone has none */
		fprintf(stderr, "  the store holds %" PRIu64 " videos in %s, %s a video-hour\n", report->store_videos,
			disk, hour);
}

int kx_index_print(const struct kx_config *config, const struct kx_index_report *report, bool stopped)
{
	struct kx_error error = {0};
	if (kx_config_flag(config, "json") && print_json(report, stopped, &error) != KX_OK)
		return kx_fail(&error);
	if (!kx_config_flag(config, "quiet") && !kx_config_flag(config, "json"))
		print_table(report);
	if (stopped) {
		fprintf(stderr, "kinodex: stopped. What is done is kept; run the same command again to go on\n");
		return KX_EXIT_STOPPED;
	}
	if (report->run.quarantined > 0 && !kx_config_flag(config, "quiet"))
		fprintf(stderr, "  kinodex dead list --data %s says why inputs were quarantined\n",
			kx_config_text(config, "data"));
	return report->run.quarantined > 0 ? KX_EXIT_QUARANTINED : KX_EXIT_DONE;
}
