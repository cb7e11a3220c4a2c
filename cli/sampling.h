/* --fps and --decode as one sampling. Layer: cli. */
#ifndef KX_CLI_SAMPLING_H
#define KX_CLI_SAMPLING_H

#include "common/config/config.h"
#include "worker/pipeline/pipeline.h"

/* "exact", "keyframe" or "tol=SECONDS" into mode and tolerance; fps and moment are left alone. KX_EINVAL, fatal: the
 * message names the option and what would be right. */
kx_status kx_cli_decode(const struct kx_config *config, struct kx_sampling *sampling,
			struct kx_error *error) KX_MUST_CHECK;

#endif
