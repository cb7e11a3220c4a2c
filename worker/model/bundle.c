#include "worker/model/bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/hash.h"
#include "common/base/str.h"
#include "worker/model/manifest.h"

#define MANIFEST_MAX (1u << 20)
#define LABELS_MAX (8u << 20)
#define SPACE_DIGITS 16

void kx_bundle_free(struct kx_bundle *bundle)
{
	if (!bundle)
		return;
	for (size_t i = 0; bundle->labels && i < bundle->class_count; i++)
		free(bundle->labels[i]);
	for (size_t i = 0; i < bundle->golden_count; i++) {
		free(bundle->golden[i].input);
		free(bundle->golden[i].features);
		free(bundle->golden[i].logits);
	}
	free(bundle->labels);
	free(bundle->golden);
	free(bundle->folder);
	free(bundle->name);
	free(bundle->version);
	free(bundle->licence);
	free(bundle->model_path);
	free(bundle->input_name);
	free(bundle->preprocess);
	free(bundle->features_name);
	free(bundle->logits_name);
	free(bundle);
}

void kx_bundle_cleanup(struct kx_bundle **bundle)
{
	kx_bundle_free(*bundle);
}

static kx_status check_hash(const struct kx_manifest_file *file, struct kx_error *error)
{
	uint8_t sha256[KX_SHA_LEN];
	int fd KX_CLEANUP(kx_cleanup_close) = open(file->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return kx_error_from_errno(error, errno, "%s (the bundle is not whole; make it again)", file->path);
	kx_status status = kx_sha256_fd(fd, sha256, error);
	if (status)
		return kx_error_prefix(error, status, "%s", file->path);
	if (memcmp(sha256, file->sha256, sizeof(sha256)) != 0)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL,
				    "%s: its SHA-256 is not the one in bundle.json; delete the bundle's folder and make "
				    "it again (scripts/bundles makes those of Kinodex)",
				    file->path);
	return KX_OK;
}

/* One label a line; the file has been hashed, but its lines may still not fit the model. */
static kx_status split_labels(const char *path, char *text, struct kx_bundle *bundle, struct kx_error *error)
{
	size_t count = 0;

	bundle->labels = calloc(bundle->class_count, sizeof(*bundle->labels));
	if (!bundle->labels)
		return kx_error_nomem(error);
	for (char *line = text, *next; *line; line = next) {
		size_t len = strcspn(line, "\n");

		next = line + len + (line[len] == '\n');
		if (count < bundle->class_count) {
			if (len == 0 || len > KX_TEXT_MAX || !kx_utf8_valid(line, len))
				return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
						    "%s: line %zu is empty, too long or not UTF-8", path, count + 1);
			bundle->labels[count] = kx_strndup(line, len);
			if (!bundle->labels[count])
				return kx_error_nomem(error);
		}
		count++;
	}
	if (count != bundle->class_count)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s: %zu lines for %zu classes", path, count,
				    bundle->class_count);
	return KX_OK;
}

static kx_status read_labels(const char *path, struct kx_bundle *bundle, struct kx_error *error)
{
	struct kx_buf text KX_CLEANUP(kx_buf_done) = {0};
	kx_status status = kx_fs_read(path, LABELS_MAX, &text, error);

	if (status)
		return status;
	return split_labels(path, text.data ? (char *)text.data : (char[]){""}, bundle, error);
}

static kx_status read_manifest(struct kx_bundle *bundle, struct kx_manifest *ret, struct kx_error *error)
{
	struct kx_buf text KX_CLEANUP(kx_buf_done) = {0};
	char *path KX_CLEANUP(kx_cleanup_free) = kx_fs_join(bundle->folder, "bundle.json");

	if (!path)
		return kx_error_nomem(error);
	if (!kx_fs_exists(path))
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_FATAL,
				    "%s: no bundle here (no bundle.json). Run scripts/bundles to make those of Kinodex, or "
				    "give the folder that holds yours",
				    bundle->folder);
	kx_status status = kx_fs_read(path, MANIFEST_MAX, &text, error);
	if (status)
		return status;
	if (kx_sha256_bytes(text.data, text.len, bundle->sha256))
		return kx_error_nomem(error);
	return kx_manifest_parse(path, (const char *)text.data, text.len, bundle, ret, error);
}

kx_status kx_bundle_open(const char *folder, struct kx_bundle **ret, struct kx_error *error)
{
	struct kx_manifest manifest KX_CLEANUP(kx_manifest_done) = {0};
	struct kx_bundle *bundle KX_CLEANUP(kx_bundle_cleanup) = calloc(1, sizeof(*bundle));
	kx_status status;

	if (!bundle || !(bundle->folder = kx_strdup(folder)))
		return kx_error_nomem(error);
	if ((status = read_manifest(bundle, &manifest, error)) || (status = check_hash(&manifest.model, error)) ||
	    (status = check_hash(&manifest.labels, error)) ||
	    (status = read_labels(manifest.labels.path, bundle, error)))
		return status;
	*ret = KX_STEAL(bundle);
	return KX_OK;
}

kx_status kx_bundle_space(const struct kx_bundle *bundle, const char *media_preprocess, const char *precision,
			  char ret_space[KX_SPACE_MAX])
{
	static const char *const KINDS[] = {
		[KX_BUNDLE_VISUAL] = "visual", [KX_BUNDLE_AUDIO] = "audio", [KX_BUNDLE_CLIP] = "clip"};
	char bundle_hex[2 * KX_SHA_LEN + 1], hex[2 * KX_SHA_LEN + 1];
	uint8_t digest[KX_SHA_LEN];

	ret_space[0] = '\0';
	kx_hex_encode(bundle->sha256, sizeof(bundle->sha256), bundle_hex);
	char *recipe KX_CLEANUP(kx_cleanup_free) =
		kx_strf("bundle=%s\npreprocess=%s\nmedia=%s\nprojection=none\npooling=mean\nprecision=%s\n",
			bundle_hex, bundle->preprocess, media_preprocess, precision);
	if (!recipe || kx_sha256_bytes(recipe, strlen(recipe), digest))
		return KX_ENOMEM;
	kx_hex_encode(digest, SPACE_DIGITS / 2, hex);
	snprintf(ret_space, KX_SPACE_MAX, "%s/%s/%zu/%s", KINDS[bundle->kind], bundle->name, bundle->feature_dim, hex);
	return KX_OK;
}
