/* A bound for the folder of compiled models. Layer: worker/model, private.
 *
 * Each version of OpenVINO, bundle, CPU and option leaves an entry of its own, and none is ever wrong, so somebody has to
 * say that it is not wanted any more. The file's time of change is when it was last used (kx_cache_open() sets it). */
#ifndef KX_WORKER_MODEL_PRUNE_H
#define KX_WORKER_MODEL_PRUNE_H

#include <stdint.h>

struct kx_prune_limits {
	uint64_t bytes_max; /* of all entries */
	int64_t now_s;      /* Unix time */
	int64_t unused_s;   /* what was used less long ago stays whatever it takes, as do files that are being written */
};

/* Deletes entries, those unused for longest first, until the rest is within the limits, and what writers that were killed
 * left. Other files are not touched. Safe beside processes that use the folder: who has an entry open keeps it, and who
 * finds it gone compiles. Blocks on disk. */
void kx_cache_prune(const char *dir, const struct kx_prune_limits *limits);

#endif
