/* Kinetics classes by a clip bundle, on demand. Layer: cli.
 *
 * One clip a moment, from its middle: T consecutive frames at 25 a second. The score of the whole is the mean over
 * its moments. Nothing of it is stored.
 */
#ifndef KX_CLI_ACTIONS_H
#define KX_CLI_ACTIONS_H

#include "cli/engine.h"

struct kx_actions_sink {
	void *ctx;
	/* First the whole, then each moment. Best first, at most 20. */
	void (*classes)(void *ctx, const struct kx_bundle *bundle, bool whole, uint32_t moment, uint32_t count,
			const uint32_t *ids, const float *scores);
};

/* Needs the bundle i3d. Blocks for about half of the video's length. */
kx_status kx_actions_run(const struct kx_config *config, const struct kx_engine *engine, const char *run_dir,
			 const char *path, const struct kx_actions_sink *sink, struct kx_error *error) KX_MUST_CHECK;

#endif
