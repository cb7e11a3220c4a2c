#include "coordinator/core/plan.h"

#include <string.h>

static bool is_split(const struct kx_probe_info *info, uint64_t segment_us)
{
	return info->splittable && info->has_visual && info->duration_us > segment_us;
}

static uint32_t segments(const struct kx_probe_info *info, uint64_t segment_us)
{
	uint64_t count = (info->duration_us + segment_us - 1) / segment_us;
	return count < KX_PARTS_MAX ? (uint32_t)count : KX_PARTS_MAX - 1;
}

uint32_t kx_plan_parts(const struct kx_probe_info *info, uint64_t segment_us)
{
	if (!is_split(info, segment_us))
		return 1;
	return segments(info, segment_us) + (info->has_audio ? 1 : 0);
}

struct kx_span kx_plan_span(const struct kx_probe_info *info, uint64_t segment_us, uint32_t i)
{
	if (!is_split(info, segment_us))
		return (struct kx_span){.tracks = (info->has_visual ? (unsigned)KX_TRACK_VISUAL : 0u) |
						  (info->has_audio ? (unsigned)KX_TRACK_AUDIO : 0u)};
	uint32_t visual = segments(info, segment_us);
	if (i == visual)
		return (struct kx_span){.tracks = KX_TRACK_AUDIO};
	return (struct kx_span){
		.tracks = KX_TRACK_VISUAL,
		.start_us = i * segment_us,
		.end_us = i + 1 < visual ? (i + 1) * segment_us : 0, /* a container may say less than there is */
	};
}

uint64_t kx_plan_span_us(const struct kx_probe_info *info, const struct kx_span *span)
{
	uint64_t end_us = span->end_us != 0 ? span->end_us : info->duration_us;
	return end_us > span->start_us ? end_us - span->start_us : 0;
}

/* Ten minutes are believed of any file, beyond that a second for each kilobyte, which a still picture takes about. What
 * takes less is also decoded far faster than the limits ask for. */
static uint64_t believable_ms(uint64_t content_bytes)
{
	return 600000 + content_bytes;
}

struct kx_limits kx_plan_limits(uint64_t span_us, uint64_t content_bytes)
{
	/* Without a length a job may take what an hour may. Decoding is 20 to 500 times faster than real time; slower than
	 * a quarter of it on a crowded machine is a file that is made to be slow. */
	uint64_t span_ms = (span_us != 0 ? span_us : 3600000000u) / 1000;
	if (span_us != 0 && span_ms > believable_ms(content_bytes))
		span_ms = believable_ms(content_bytes);
	return (struct kx_limits){
		.wall_ms = 300000 + 8 * span_ms,
		.cpu_ms = 120000 + 4 * span_ms,
		.memory_bytes = (uint64_t)2 << 30,
	};
}

/* CPU seconds to decode a megapixel, selective decode at 1 fps included. */
static double megapixel_cost(const char *codec)
{
	if (strcmp(codec, "h264") == 0)
		return 0.0018;
	if (strcmp(codec, "hevc") == 0 || strcmp(codec, "vp9") == 0)
		return 0.0025;
	if (strcmp(codec, "av1") == 0)
		return 0.0040;
	return 0.0014;
}

double kx_plan_cpu_s(const struct kx_probe_info *info, double fps)
{
	const double image_s = 0.007, patch_s = 0.0015, patches_per_s = 1 / 0.48, sound_s = 0.0015;
	double seconds = (double)info->duration_us / 1e6;
	double cost = 0.01;
	if (info->has_visual) {
		double rate = info->frame_rate > 0 ? info->frame_rate : 25;
		double megapixels = (double)info->width * (double)info->height / 1e6;
		cost += seconds * (rate * megapixels * megapixel_cost(info->video_codec) + fps * image_s);
	}
	if (info->has_audio)
		cost += seconds * (patches_per_s * patch_s + sound_s);
	return cost;
}
