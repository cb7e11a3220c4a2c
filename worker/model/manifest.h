/* bundle.json to struct kx_bundle: the text only, no other file is looked at. Inside worker/model. */
#ifndef KX_WORKER_MODEL_MANIFEST_H
#define KX_WORKER_MODEL_MANIFEST_H

#include "worker/model/bundle.h"

#define KX_MANIFEST_FORMAT 1

/* A file that the manifest names, with the hash it must have. */
struct kx_manifest_file {
	char *path;
	uint8_t sha256[KX_SHA_LEN];
};

struct kx_manifest {
	struct kx_manifest_file model;
	struct kx_manifest_file labels;
};

void kx_manifest_done(struct kx_manifest *manifest);

/* Fills the fields of a zeroed bundle, whose folder is set, from text; labels are left out. Paths come out joined to
 * the folder and stay inside it. On failure the bundle may be half filled: kx_bundle_free() takes it. KX_EINVAL (names
 * the field), KX_EVERSION, KX_ENOMEM. `path` is for messages. */
kx_status kx_manifest_parse(const char *path, const char *text, size_t len, struct kx_bundle *bundle,
			    struct kx_manifest *ret, struct kx_error *error) KX_MUST_CHECK;

#endif
