/* A model bundle: a folder with model.onnx, labels and a manifest that says exactly what goes in and comes out.
 * Layer: worker/model.
 *
 * bundle.json: { "format": 1, "name", "version", "kind": "visual"|"audio"|"clip", "licence", "source",
 *   "model": {"file", "sha256"}, "labels": {"file", "sha256"},
 *   "input": {"name", "type": "u8"|"f32", "shape": [..] without the batch, "preprocess": "..."},
 *   "outputs": {"features": {"name", "dim"}, "logits": {"name", "dim", "activation": "softmax"|"sigmoid"}},
 *   "golden": [{"input": "file", "features": "file", "logits": "file"}, ...] }
 * Golden files are raw little-endian arrays of one item; they were computed by another runtime when the bundle was made.
 */
#ifndef KX_WORKER_MODEL_BUNDLE_H
#define KX_WORKER_MODEL_BUNDLE_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "common/record/types.h"

enum kx_bundle_kind { KX_BUNDLE_VISUAL = 1, KX_BUNDLE_AUDIO, KX_BUNDLE_CLIP };
enum kx_activation { KX_ACTIVATION_SOFTMAX = 1, KX_ACTIVATION_SIGMOID };

struct kx_golden {
	char *input, *features, *logits; /* paths */
};

/* Read-only after opening; any thread may read it. */
struct kx_bundle {
	char *folder;
	char *name;
	char *version;
	char *licence;
	enum kx_bundle_kind kind;
	char *model_path;
	uint8_t sha256[KX_SHA_LEN]; /* of the manifest, which holds the hashes of everything else */
	char *input_name;
	int input_u8;               /* else f32 */
	size_t rank;
	size_t shape[5];            /* without the batch: visual [H][W][3], audio [96][64], clip [3][T][H][W] */
	size_t input_bytes;         /* of one item */
	char *preprocess;
	char *features_name;
	size_t feature_dim;
	char *logits_name;
	size_t class_count;
	enum kx_activation activation;
	char **labels;              /* [class_count] */
	size_t golden_count;
	struct kx_golden *golden;
};

/* Reads the manifest and checks every hash. KX_ENOTFOUND (says how to make it), KX_ECORRUPT (names the file whose hash
 * is wrong), KX_EVERSION, KX_EINVAL. */
kx_status kx_bundle_open(const char *folder, struct kx_bundle **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_bundle_free(struct kx_bundle *bundle);
void kx_bundle_cleanup(struct kx_bundle **bundle);

/* Name of the typed space of its features under a media preprocessing: "visual/lite0/1280/<16 hex digits>", the digits
 * from SHA-256 over (bundle, preprocessing of bundle and media, projection, pooling, precision). KX_ENOMEM, and an empty
 * name, is the only way to fail. */
kx_status kx_bundle_space(const struct kx_bundle *bundle, const char *media_preprocess, const char *precision,
			  char ret_space[KX_SPACE_MAX]);

#endif
