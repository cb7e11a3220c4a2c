/* All roles in one process: what index and dead replay run. Layer: cli. */
#ifndef KX_CLI_INDEXER_H
#define KX_CLI_INDEXER_H

#include "common/config/config.h"
#include "coordinator/run/coordinator.h"
#include "worker/pipeline/pipeline.h"

struct kx_index_request {
	const char *const *sources;    /* or none, with: */
	size_t source_count;
	const char *const *replay_ids; /* inputs of the ledger to try again */
	size_t replay_count;
	const char *schema;            /* file that declares the manifests' attributes, or NULL */
};

struct kx_index_report {
	struct kx_coordinator_report run;
	uint64_t wall_us;
	uint64_t cpu_us;       /* all processes */
	uint64_t peak_rss_bytes; /* the largest process */
	uint64_t disk_bytes;   /* of the whole store */
	uint64_t store_media_us;
	uint64_t store_videos;
};

/* Blocks until every input has ended or Ctrl-C. The report is filled on KX_OK and on KX_ECANCELED. */
kx_status kx_index_run(const struct kx_config *config, const struct kx_index_request *request,
		       struct kx_index_report *ret, struct kx_error *error) KX_MUST_CHECK;

/* The bus that options name, with its topics made. */
kx_status kx_cli_bus(const struct kx_config *config, struct kx_bus **ret, struct kx_error *error) KX_MUST_CHECK;

/* The part of the coordinator's options that comes from ours. recipe: of the pipeline or of the bundles. */
kx_status kx_cli_coordinator_options(const struct kx_config *config, struct kx_coordinator_options *ret,
				     struct kx_error *error) KX_MUST_CHECK;

/* What these options say of sampling. */
struct kx_sampling kx_cli_planned_sampling(const struct kx_coordinator_options *options);

/* Prints the report as a table (stderr) or JSON (stdout) and returns the exit status. */
int kx_index_print(const struct kx_config *config, const struct kx_index_report *report, bool stopped);

#endif
