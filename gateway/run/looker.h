/* Asks the shards how they are: once at the start, so that a shard which was named wrongly is told in the log, then now
 * and then for /metrics, which itself waits for nobody. Layer: gateway/run.
 *
 * Thread it owns: one. It asks every few seconds for as long as somebody scrapes, and is idle otherwise. */
#ifndef KX_GATEWAY_RUN_LOOKER_H
#define KX_GATEWAY_RUN_LOOKER_H

#include "gateway/backend/backend.h"
#include "gateway/run/metrics.h"

struct kx_looker;

/* backend and metrics are borrowed. */
kx_status kx_looker_start(const struct kx_backend *backend, struct kx_metrics *metrics, struct kx_looker **ret,
			  struct kx_error *error) KX_MUST_CHECK;
void kx_looker_stop(struct kx_looker *looker); /* what it asks has been cancelled, or is waited for. NULL is nothing */
/* Somebody scrapes. Does not block; thread-safe. */
void kx_looker_scraped(struct kx_looker *looker);

#endif
