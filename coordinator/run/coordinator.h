/* The coordinator role: scan, probe, plan, publish jobs, keep the ledger until every input has ended.
 * Layer: coordinator/run. */
#ifndef KX_COORDINATOR_RUN_COORDINATOR_H
#define KX_COORDINATOR_RUN_COORDINATOR_H

#include "common/base/thread.h"
#include "common/bus/bus.h"
#include "common/fetch/fetch.h"
#include "common/record/media.h"
#include "common/record/video.h"
#include "coordinator/source/schema.h"

/* Probing needs a decoder, which is the worker's; whoever puts the roles together hands it over. fd: a file, or the
 * reader's end of a kx_fetch_stream. Blocking, called on one thread of the coordinator's. */
struct kx_probe {
	void *ctx;
	kx_status (*probe)(void *ctx, int fd, const char *name, struct kx_probe_info *ret_info,
			   enum kx_reason *ret_reason, struct kx_error *error);
};

struct kx_coordinator_progress {
	uint64_t found;         /* inputs seen so far */
	bool scanning;          /* more may come */
	uint64_t ended;         /* of this run: done, partial, quarantined */
	uint64_t unchanged;
	uint64_t quarantined;
	uint64_t media_us;      /* of video time, parts finished in this run */
	uint64_t media_total_us;/* planned in this run */
	uint64_t elapsed_us;
	uint64_t eta_us;        /* 0: not known yet */
	double predicted_cpu_s; /* of the whole run */
};

struct kx_coordinator_options {
	struct kx_bus *bus;
	const char *ns;
	const char *data_dir;          /* the ledger is data_dir/ledger */
	const char *const *sources;    /* folders, files, manifests (.jsonl, .csv), addresses */
	size_t source_count;
	const struct kx_schema *schema; /* of the manifests' attributes; NULL: none is declared */
	/* Inputs of the ledger to try again, whatever their state; sources may then be empty. */
	const char *const *replay_ids;
	size_t replay_count;
	double fps;
	uint64_t segment_us;           /* longest visual span of one job, a multiple of moment_us */
	uint64_t moment_us;
	enum kx_decode_mode decode_mode;
	uint64_t decode_tolerance_us;
	uint8_t recipe_sha256[KX_SHA_LEN];
	const char *software;          /* for dead letters */
	size_t jobs_ahead;             /* jobs published and not finished; 0: 32 */
	uint32_t attempts_max;         /* 0: 3 */
	uint64_t wall_limit_ms, cpu_limit_ms, memory_limit_bytes; /* of a job; 0: by its length, 1 GiB */
	struct kx_probe probe;
	struct kx_fetch *fetch;        /* NULL: sources that are addresses are refused */
	struct kx_stop *stop;          /* asked: publish nothing more, keep what is done, return KX_ECANCELED */
	/* A few times a second; or NULL. */
	void (*progress)(void *ctx, const struct kx_coordinator_progress *progress);
	/* Asked about once a second: lets the caller end a wait for a role that died. May be NULL. */
	kx_status (*health)(void *ctx, struct kx_error *error);
	void *ctx;
};

struct kx_coordinator_report {
	uint64_t done, partial, quarantined, deleted, unchanged, copied; /* of this run */
	uint64_t reasons[KX_REASON_COUNT];
	uint64_t media_us;       /* video time indexed in this run */
	uint64_t decode_cpu_us;
	uint64_t stored_bytes;
	uint64_t wall_us;
};

/* Blocks until every input of the sources has ended, then fills the report. KX_OK also when inputs were quarantined.
 * On KX_ECANCELED the report says what was done until then. Bad manifests and missing sources are KX_EINVAL or
 * KX_ENOTFOUND before anything is published; the message names the line. */
kx_status kx_coordinator_run(const struct kx_coordinator_options *options, struct kx_coordinator_report *ret,
			     struct kx_error *error) KX_MUST_CHECK;

#endif
