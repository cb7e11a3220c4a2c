#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/hash.h"
#include "worker/pipeline/internal.h"

/* %.17g tells every double apart. "recipe/1" is what this folder itself decides: moments, pooling of rows, classes. */
void kx_recipe(const char *visual_space, const char *audio_space, double fps, enum kx_decode_mode mode,
	       uint64_t moment_us, uint8_t ret[KX_SHA_LEN])
{
	char text[2 * KX_SPACE_MAX + 256];
	int len = snprintf(text, sizeof(text),
			   "recipe/1\nvisual=%s\naudio=%s\nfps=%.17g\nmode=%s\nmoment_us=%" PRIu64 "\nclasses=%u\n",
			   visual_space, audio_space, fps, kx_decode_mode_name(mode), moment_us,
			   KX_MOMENT_CLASSES);

	/* Hashing can only fail for memory, a hundred bytes of it. */
	if (kx_sha256_bytes(text, (size_t)len, ret) != KX_OK)
		abort();
}

void kx_pipeline_recipe(const struct kx_pipeline *pipeline, double fps, enum kx_decode_mode mode, uint64_t moment_us,
			uint8_t ret[KX_SHA_LEN])
{
	kx_recipe(pipeline->space[0], pipeline->space[1], fps, mode, moment_us, ret);
}
