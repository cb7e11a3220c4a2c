/* Compiled models, kept in files between runs. Layer: worker/model, private.
 *
 * An entry is what OpenVINO exports of a compiled model and a trailer with its length and a sum over it. Its name is a hash
 * of all that decides it, so that an entry is never wrong, only not wanted any more. Nothing here is an error to the
 * caller: without an entry the model is compiled, which costs a fifth of a second.
 */
#ifndef KX_WORKER_MODEL_CACHE_H
#define KX_WORKER_MODEL_CACHE_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/model/runtime.h"

/* An entry in memory, mapped. Zeroed memory is none. */
struct kx_cached {
	void *bytes;
	size_t len;      /* of what OpenVINO wrote */
	size_t file_len;
};

/* Path of the entry for these, NULL when there can be none; the caller frees. */
char *kx_cache_path(const char *dir, const struct kx_runtime *runtime, const struct kx_bundle *bundle, size_t batch,
		    enum kx_precision precision);
/* False: there is none that is whole and that nobody but this user could have written. */
bool kx_cache_open(const char *path, struct kx_cached *ret);
void kx_cache_close(struct kx_cached *cached);
/* Writes the entry and deletes others that were not used for long, if there are too many; or says in the log why not. */
void kx_cache_save(const char *path, const ov_compiled_model_t *compiled);
/* Of an entry that is of no use. */
void kx_cache_drop(const char *path);

#endif
