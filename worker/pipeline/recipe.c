#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/hash.h"
#include "worker/pipeline/internal.h"

/* %.17g tells every double apart. "recipe/1" is what this folder itself decides: moments, pooling of rows, classes. */
void kx_recipe(const char *visual_space, const char *audio_space, const struct kx_sampling *sampling,
	       uint8_t ret[KX_SHA_LEN])
{
	char text[2 * KX_SPACE_MAX + 256];
	char tolerance[48] = "";
	if (sampling->mode == KX_DECODE_TOLERANT)
		snprintf(tolerance, sizeof(tolerance), "tolerance_us=%" PRIu64 "\n", sampling->tolerance_us);
	int len = snprintf(text, sizeof(text),
			   "recipe/1\nvisual=%s\naudio=%s\nfps=%.17g\nmode=%s\n%smoment_us=%" PRIu64 "\nclasses=%u\n",
			   visual_space, audio_space, sampling->fps, kx_decode_mode_name(sampling->mode), tolerance,
			   sampling->moment_us, KX_MOMENT_CLASSES);

	/* Hashing can only fail for memory, a hundred bytes of it. */
	if (kx_sha256_bytes(text, (size_t)len, ret) != KX_OK)
		abort();
}

void kx_pipeline_recipe(const struct kx_pipeline *pipeline, const struct kx_sampling *sampling,
			uint8_t ret[KX_SHA_LEN])
{
	kx_recipe(pipeline->space[0], pipeline->space[1], sampling, ret);
}

struct kx_sampling kx_job_sampling(const struct kx_job *job)
{
	return (struct kx_sampling){
		.fps = job->fps,
		.mode = job->decode_mode,
		.tolerance_us = job->decode_tolerance_us,
		.moment_us = job->moment_us,
	};
}
