#include "gateway/run/metrics.h"

#include <inttypes.h>

#include "common/base/clock.h"

static const unsigned codes[KX_METRIC_CODES] = {0,   200, 204, 206, 304, 400, 404, 405, 409, 413,
						415, 416, 421, 422, 500, 501, 502, 503, 504, 999};
static const char *const code_names[KX_METRIC_CODES] = {"gone", "200", "204", "206", "304", "400", "404",
							"405",  "409", "413", "415", "416", "421", "422",
							"500",  "501", "502", "503", "504", "other"};

static const uint64_t bounds_us[KX_METRIC_BUCKETS - 1] = {250,    500,    1000,   2500,    5000,    10000,  25000,
							  50000,  100000, 250000, 1000000, 2500000, 10000000};

void kx_metrics_request(struct kx_metrics *metrics, enum kx_route route, unsigned code, uint64_t took_us)
{
	size_t at = 0, bucket = 0;

	while (at + 1 < KX_METRIC_CODES && codes[at] != code)
		at++;
	while (bucket + 1 < KX_METRIC_BUCKETS && took_us > bounds_us[bucket])
		bucket++;
	atomic_fetch_add_explicit(&metrics->requests[route][at], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&metrics->buckets[route][bucket], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&metrics->took_us[route], took_us, memory_order_relaxed);
}

kx_status kx_metric_write(struct kx_buf *out, const char *name, const char *type, const char *help, double value)
{
	return kx_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.9g\n", name, help, name, type, name, value);
}

static kx_status write_requests(struct kx_metrics *metrics, struct kx_buf *out)
{
	kx_status status = kx_buf_printf(out, "# HELP kinodex_http_requests_total Requests by route and status; \"gone\": the "
					      "client left first.\n# TYPE kinodex_http_requests_total counter\n");

	for (int route = 0; route < KX_ROUTE_COUNT; route++) {
		for (size_t code = 0; code < KX_METRIC_CODES && status == KX_OK; code++) {
			uint64_t count = atomic_load_explicit(&metrics->requests[route][code], memory_order_relaxed);

			if (count > 0)
				status = kx_buf_printf(out, "kinodex_http_requests_total{route=\"%s\",code=\"%s\"} %" PRIu64 "\n",
						       kx_route_name((enum kx_route)route), code_names[code], count);
		}
	}
	return status;
}

static kx_status write_histogram(struct kx_metrics *metrics, enum kx_route route, struct kx_buf *out)
{
	const char *name = kx_route_name(route);
	uint64_t sum = 0;
	kx_status status = KX_OK;

	for (size_t i = 0; i < KX_METRIC_BUCKETS && status == KX_OK; i++) {
		sum += atomic_load_explicit(&metrics->buckets[route][i], memory_order_relaxed);
		if (i + 1 < KX_METRIC_BUCKETS)
			status = kx_buf_printf(out, "kinodex_http_request_seconds_bucket{route=\"%s\",le=\"%g\"} %" PRIu64 "\n",
					       name, (double)bounds_us[i] / 1e6, sum);
	}
	if (status != KX_OK)
		return status;
	return kx_buf_printf(out,
			     "kinodex_http_request_seconds_bucket{route=\"%s\",le=\"+Inf\"} %" PRIu64 "\n"
			     "kinodex_http_request_seconds_sum{route=\"%s\"} %.6f\n"
			     "kinodex_http_request_seconds_count{route=\"%s\"} %" PRIu64 "\n",
			     name, sum, name,
			     (double)atomic_load_explicit(&metrics->took_us[route], memory_order_relaxed) / 1e6, name, sum);
}

static bool was_asked(struct kx_metrics *metrics, int route)
{
	for (size_t i = 0; i < KX_METRIC_BUCKETS; i++)
		if (atomic_load_explicit(&metrics->buckets[route][i], memory_order_relaxed) > 0)
			return true;
	return false;
}

void kx_metrics_stats(struct kx_metrics *metrics, const struct kx_shard_stats *stats)
{
	atomic_store(&metrics->index_vectors, stats->index_vectors);
	atomic_store(&metrics->live_recall, stats->index_recall);
	atomic_store(&metrics->live_recall_wanted, stats->index_recall_wanted);
	atomic_store(&metrics->live_recall_samples, stats->index_recall_samples);
	atomic_store(&metrics->stats_us, kx_clock_mono_us());
}

static kx_status write_age(struct kx_metrics *metrics, struct kx_buf *out)
{
	uint64_t told_us = atomic_load(&metrics->stats_us), now = kx_clock_mono_us();

	if (told_us == 0)
		return KX_OK;
	return kx_metric_write(out, "kinodex_index_age_seconds", "gauge",
			       "Since the shards told what is said of the index; they are asked every few seconds while this is "
			       "scraped.",
			       now > told_us ? (double)(now - told_us) / 1e6 : 0);
}

static kx_status write_index(struct kx_metrics *metrics, struct kx_buf *out)
{
	unsigned long long samples = atomic_load(&metrics->live_recall_samples);
	kx_status status = kx_metric_write(out, "kinodex_index_vectors", "gauge", "Vectors indexed.",
					   (double)atomic_load(&metrics->index_vectors));

	if (status == KX_OK)
		status = kx_metric_write(out, "kinodex_index_recall_samples", "gauge",
					 "Live queries that were checked against exact answers.",
					 (double)samples);
	if (status == KX_OK && samples)
		status = kx_metric_write(out, "kinodex_index_recall", "gauge", "What those queries found of the true nearest.",
					 atomic_load(&metrics->live_recall));
	if (status == KX_OK && samples)
		status = kx_metric_write(out, "kinodex_index_recall_wanted", "gauge", "What those queries asked for.",
					 atomic_load(&metrics->live_recall_wanted));
	return status;
}

kx_status kx_metrics_write(struct kx_metrics *metrics, struct kx_buf *out)
{
	double recall = atomic_load(&metrics->recall);
	kx_status status = write_requests(metrics, out);

	if (status == KX_OK)
		status = kx_buf_printf(out, "# HELP kinodex_http_request_seconds From the head of a request to the last byte of "
					    "its answer.\n# TYPE kinodex_http_request_seconds histogram\n");
	for (int route = 0; route < KX_ROUTE_COUNT && status == KX_OK; route++)
		if (was_asked(metrics, route))
			status = write_histogram(metrics, (enum kx_route)route, out);
	if (status == KX_OK)
		status = kx_metric_write(out, "kinodex_partial_answers_total", "counter",
					 "Answers in which a shard is missing.", (double)atomic_load(&metrics->partials));
	if (status == KX_OK)
		status = kx_metric_write(out, "kinodex_thumbnails_made_total", "counter", "Thumbnails that were decoded.",
					 (double)atomic_load(&metrics->thumbnails_made));
	if (status == KX_OK)
		status = kx_metric_write(out, "kinodex_thumbnails_kept_total", "counter",
					 "Thumbnails that were still in memory.", (double)atomic_load(&metrics->thumbnails_kept));
	if (status == KX_OK && recall >= 0)
		status = kx_metric_write(out, "kinodex_search_recall", "gauge",
					 "Recall that the last similarity answer promised.", recall);
	if (status == KX_OK)
		status = write_age(metrics, out);
	return status == KX_OK ? write_index(metrics, out) : status;
}
