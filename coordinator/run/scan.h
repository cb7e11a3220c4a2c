/* The coordinator's scanning thread: walks the sources, compares with the ledger, hashes and probes what is new.
 * Internal to coordinator/run. */
#ifndef KX_COORDINATOR_RUN_SCAN_H
#define KX_COORDINATOR_RUN_SCAN_H

#include "coordinator/ledger/ledger.h"
#include "coordinator/run/coordinator.h"

enum kx_find_kind {
	KX_FIND_NEW = 1,   /* to be indexed: input, info */
	KX_FIND_COPY,      /* its content is indexed as input->copy_of */
	KX_FIND_REFUSED,   /* input with reason and message */
	KX_FIND_UNCHANGED,
	KX_FIND_TOUCHED,   /* as indexed, but its time, path or root is another: the ledger is to follow */
};

struct kx_find {
	enum kx_find_kind kind;
	struct kx_input *input;
	struct kx_probe_info info;
};
void kx_find_free(struct kx_find *find);

struct kx_scan;

/* Opens all sources first, so that a bad manifest is told before anything begins; then starts the thread. ledger and
 * options must outlive it. wake is called, from the thread, after each find and at the end. */
kx_status kx_scan_start(const struct kx_coordinator_options *options, struct kx_ledger *ledger,
			void (*wake)(void *ctx),
			void *wake_ctx, struct kx_scan **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_scan_free(struct kx_scan *scan); /* stops the thread and waits for it */

/* The next find: KX_EAGAIN when there is none yet, KX_ENOTFOUND after the last, else what ended the walk. */
kx_status kx_scan_take(struct kx_scan *scan, struct kx_find **ret, struct kx_error *error) KX_MUST_CHECK;

/* Items walked so far. Any thread. */
uint64_t kx_scan_found(const struct kx_scan *scan);

/* After the last find: was this input of the ledger under one of the roots, and not met any more? */
bool kx_scan_lost(const struct kx_scan *scan, const struct kx_input *input);

#endif
