/* The worker role: takes jobs from the bus, runs them, publishes what comes out. Stateless. Layer: worker/run.
 *
 * A job's offset is acknowledged only after the delivery reports of all its results and of its event. One thread only
 * receives from the bus; the rest is the pipeline's.
 */
#ifndef KX_WORKER_RUN_WORKER_H
#define KX_WORKER_RUN_WORKER_H

#include "common/bus/bus.h"
#include "common/base/thread.h"
#include "worker/pipeline/pipeline.h"

struct kx_worker;

struct kx_worker_options {
	struct kx_bus *bus;   /* must outlive the worker */
	const char *ns;       /* namespace of the topics */
	struct kx_pipeline *pipeline; /* must outlive the worker */
	kx_failure_visit *failed; /* told of every job that a child failed at; may be NULL */
	void *failed_ctx;
	size_t jobs_in_flight; /* taken and not finished; 0: twice the decoders */
};

kx_status kx_worker_start(const struct kx_worker_options *options, struct kx_worker **ret, struct kx_error *error)
	KX_MUST_CHECK;
/* Ends: unfinished jobs are not acknowledged and will come again. NULL is nothing. */
void kx_worker_stop(struct kx_worker *worker);

/* KX_OK while it works; else the error that ended it (a bus that failed for good). Thread-safe. */
kx_status kx_worker_health(struct kx_worker *worker, struct kx_error *error);

#endif
