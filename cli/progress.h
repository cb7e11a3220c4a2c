/* The progress bar of index: on a terminal a line that is redrawn, otherwise a JSON line every ten seconds.
 * Layer: cli. */
#ifndef KX_CLI_PROGRESS_H
#define KX_CLI_PROGRESS_H

#include "coordinator/run/coordinator.h"

struct kx_progress;

/* quiet: shows nothing. Hooks into the log, so that messages do not tear the bar; one at a time. */
kx_status kx_progress_new(bool quiet, struct kx_progress **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_progress_free(struct kx_progress *progress); /* wipes the bar */
void kx_progress_show(struct kx_progress *progress, const struct kx_coordinator_progress *now);

#endif
