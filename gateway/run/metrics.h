/* Counters of the gateway, told in Prometheus' text form. Thread-safe, no locks. Layer: gateway/run. */
#ifndef KX_GATEWAY_RUN_METRICS_H
#define KX_GATEWAY_RUN_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/record/query.h"
#include "gateway/run/route.h"

#define KX_METRIC_CODES 20u
#define KX_METRIC_BUCKETS 14u

struct kx_metrics {
	atomic_ullong requests[KX_ROUTE_COUNT][KX_METRIC_CODES];
	atomic_ullong buckets[KX_ROUTE_COUNT][KX_METRIC_BUCKETS]; /* not summed up; the last is for all that is longer */
	atomic_ullong took_us[KX_ROUTE_COUNT];
	atomic_ullong partials;
	atomic_ullong thumbnails_kept, thumbnails_made;
	_Atomic double recall; /* that the last similarity answer promised; below 0: none yet */
	/* As the last answer about the store's state told, and when (monotonic; 0: none yet). */
	atomic_ullong stats_us;
	_Atomic double live_recall, live_recall_wanted;
	atomic_ullong live_recall_samples;
	atomic_ullong index_vectors;
};

/* code 0: the client left before there was an answer. */
void kx_metrics_request(struct kx_metrics *metrics, enum kx_route route, unsigned code, uint64_t took_us);
/* The shards told this. */
void kx_metrics_stats(struct kx_metrics *metrics, const struct kx_shard_stats *stats);
kx_status kx_metrics_write(struct kx_metrics *metrics, struct kx_buf *out) KX_MUST_CHECK;
/* A gauge or counter without labels. */
kx_status kx_metric_write(struct kx_buf *out, const char *name, const char *type, const char *help,
			  double value) KX_MUST_CHECK;

#endif
