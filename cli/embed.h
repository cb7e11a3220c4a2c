/* A file to the vectors of a query, without storing anything. Layer: cli. */
#ifndef KX_CLI_EMBED_H
#define KX_CLI_EMBED_H

#include "cli/engine.h"
#include "common/record/query.h"

#define KX_CLI_MOMENT_US 10000000u /* the grid of moments, of what is indexed and of what is asked with */

/* Everything that one file gave. */
struct kx_embedded {
	struct kx_probe_info info;
	uint32_t moment_count;
	struct kx_moment **moments; /* visual and audio, each in order */
};

/* Runs the file through a pipeline of its own. Blocks; ends early when kx_interrupted is asked. */
kx_status kx_embed_file(const struct kx_config *config, struct kx_engine *engine, const char *run_dir,
			const char *path, struct kx_embedded **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_embedded_free(struct kx_embedded *embedded);
void kx_embedded_cleanup(struct kx_embedded **embedded);

#endif
