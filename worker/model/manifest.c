#include "worker/model/manifest.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/str.h"

#define INPUT_BYTES_MAX (256u << 20)
#define CLASSES_MAX 100000
#define GOLDEN_MAX 64
#define NAME_MAX_BYTES 32

struct reader {
	const char *path;
	const char *folder;
	const json_t *root;
	struct kx_error *error;
};

struct word {
	const char *text;
	int value;
};

static const struct word KINDS[] = {
	{"visual", KX_BUNDLE_VISUAL}, {"audio", KX_BUNDLE_AUDIO}, {"clip", KX_BUNDLE_CLIP}};
static const struct word TYPES[] = {{"u8", 1}, {"f32", 0}};
static const struct word ACTIVATIONS[] = {{"softmax", KX_ACTIVATION_SOFTMAX}, {"sigmoid", KX_ACTIVATION_SIGMOID}};

void kx_manifest_done(struct kx_manifest *manifest)
{
	free(manifest->model.path);
	free(manifest->labels.path);
	*manifest = (struct kx_manifest){0};
}

static kx_status wrong(struct reader *r, const char *field, const char *wanted)
{
	return kx_error_set(r->error, KX_EINVAL, KX_ERROR_FATAL, "%s: \"%s\" is missing or is not %s", r->path, field,
			    wanted);
}

/* The value at "outputs.features.dim", or NULL. */
static const json_t *find(const json_t *object, const char *field)
{
	while (object) {
		const char *dot = strchr(field, '.');

		if (!dot)
			return json_object_get(object, field);
		object = json_object_getn(object, field, (size_t)(dot - field));
		field = dot + 1;
	}
	return NULL;
}

static kx_status read_text(struct reader *r, const char *field, char **ret)
{
	const json_t *value = find(r->root, field);
	size_t len = json_string_length(value);

	if (!json_is_string(value) || len == 0 || len > KX_TEXT_MAX)
		return wrong(r, field, "a text of 1 to 4096 bytes");
	*ret = kx_strdup(json_string_value(value));
	return *ret ? KX_OK : kx_error_nomem(r->error);
}

static kx_status read_size(struct reader *r, const char *field, const json_t *value, size_t max, size_t *ret)
{
	json_int_t number = json_integer_value(value);

	if (!json_is_integer(value) || number < 1 || (uint64_t)number > max)
		return kx_error_set(r->error, KX_EINVAL, KX_ERROR_FATAL,
				    "%s: \"%s\" is missing or is not a number from 1 to %zu", r->path, field, max);
	*ret = (size_t)number;
	return KX_OK;
}

static kx_status read_word(struct reader *r, const char *field, const struct word *words, size_t count, int *ret)
{
	const char *text = json_string_value(find(r->root, field));

	for (size_t i = 0; text && i < count; i++) {
		if (kx_str_eq(text, words[i].text)) {
			*ret = words[i].value;
			return KX_OK;
		}
	}
	return kx_error_set(r->error, KX_EINVAL, KX_ERROR_FATAL, "%s: \"%s\" is missing or is not %s, %s%s%s", r->path,
			    field, words[0].text, words[1].text, count > 2 ? " or " : "",
			    count > 2 ? words[2].text : "");
}

/* A bundle comes from anywhere: a path that leaves its folder is refused. */
static bool stays_inside(const char *path)
{
	if (path[0] == '/')
		return false;
	for (const char *part = path; part; part = strchr(part, '/')) {
		part += *part == '/';
		if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
			return false;
	}
	return true;
}

static kx_status read_path(struct reader *r, const char *field, const json_t *value, char **ret)
{
	const char *text = json_string_value(value);

	if (!text || !*text || json_string_length(value) > KX_TEXT_MAX || !stays_inside(text))
		return wrong(r, field, "a path inside the bundle");
	*ret = kx_fs_join(r->folder, text);
	return *ret ? KX_OK : kx_error_nomem(r->error);
}

static kx_status read_file(struct reader *r, const char *file_field, const char *hash_field,
			   struct kx_manifest_file *file)
{
	const char *hex = json_string_value(find(r->root, hash_field));
	kx_status status = read_path(r, file_field, find(r->root, file_field), &file->path);

	if (status)
		return status;
	if (!hex || strlen(hex) != 2 * KX_SHA_LEN || kx_hex_decode(hex, file->sha256, KX_SHA_LEN))
		return wrong(r, hash_field, "a SHA-256 of 64 hex digits");
	return KX_OK;
}

/* The name becomes part of the embedding space's. */
static kx_status read_name(struct reader *r, char **ret)
{
	kx_status status = read_text(r, "name", ret);

	if (status)
		return status;
	size_t len = strlen(*ret);
	if (len > NAME_MAX_BYTES || strspn(*ret, "abcdefghijklmnopqrstuvwxyz0123456789_-.") != len)
		return wrong(r, "name", "1 to 32 of a-z, 0-9, _, - and .");
	return KX_OK;
}

static kx_status check_shape(struct reader *r, const struct kx_bundle *b)
{
	static const size_t RANKS[] = {[KX_BUNDLE_VISUAL] = 3, [KX_BUNDLE_AUDIO] = 2, [KX_BUNDLE_CLIP] = 4};

	if (b->rank != RANKS[b->kind] || (b->kind == KX_BUNDLE_VISUAL && b->shape[2] != 3) ||
	    (b->kind == KX_BUNDLE_CLIP && b->shape[0] != 3))
		return wrong(r, "input.shape", "[H,W,3] (visual), [frames,mels] (audio) or [3,T,H,W] (clip)");
	return KX_OK;
}

static kx_status read_input(struct reader *r, struct kx_bundle *b)
{
	const json_t *shape = find(r->root, "input.shape");
	kx_status status;

	if ((status = read_text(r, "input.name", &b->input_name)) ||
	    (status = read_text(r, "input.preprocess", &b->preprocess)) ||
	    (status = read_word(r, "input.type", TYPES, KX_ARRAY_LEN(TYPES), &b->input_u8)))
		return status;
	b->rank = json_array_size(shape);
	if (b->rank < 1 || b->rank > KX_ARRAY_LEN(b->shape))
		return wrong(r, "input.shape", "a list of 1 to 5 sizes");
	b->input_bytes = b->input_u8 ? 1 : sizeof(float);
	for (size_t i = 0; i < b->rank; i++) {
		/* Each product stays under 2^28 * 2^28 until it is checked. */
		if ((status = read_size(r, "input.shape", json_array_get(shape, i), INPUT_BYTES_MAX, &b->shape[i])))
			return status;
		b->input_bytes *= b->shape[i];
		if (b->input_bytes > INPUT_BYTES_MAX)
			return wrong(r, "input.shape", "small enough (256 MiB an item)");
	}
	return check_shape(r, b);
}

static kx_status read_outputs(struct reader *r, struct kx_bundle *b)
{
	const json_t *features = find(r->root, "outputs.features.dim");
	const json_t *logits = find(r->root, "outputs.logits.dim");
	int activation = 0;
	kx_status status;

	if ((status = read_text(r, "outputs.features.name", &b->features_name)) ||
	    (status = read_size(r, "outputs.features.dim", features, KX_DIM_MAX, &b->feature_dim)) ||
	    (status = read_text(r, "outputs.logits.name", &b->logits_name)) ||
	    (status = read_size(r, "outputs.logits.dim", logits, CLASSES_MAX, &b->class_count)) ||
	    (status = read_word(r, "outputs.logits.activation", ACTIVATIONS, KX_ARRAY_LEN(ACTIVATIONS), &activation)))
		return status;
	b->activation = (enum kx_activation)activation;
	return KX_OK;
}

static kx_status read_golden(struct reader *r, struct kx_bundle *b)
{
	const json_t *pairs = find(r->root, "golden");
	size_t count = json_array_size(pairs);
	kx_status status;

	if (count < 1 || count > GOLDEN_MAX)
		return wrong(r, "golden", "a list of 1 to 64 pairs");
	b->golden = calloc(count, sizeof(*b->golden));
	if (!b->golden)
		return kx_error_nomem(r->error);
	b->golden_count = count;
	for (size_t i = 0; i < count; i++) {
		const json_t *pair = json_array_get(pairs, i);
		struct kx_golden *golden = &b->golden[i];

		if ((status = read_path(r, "golden.input", find(pair, "input"), &golden->input)) ||
		    (status = read_path(r, "golden.features", find(pair, "features"), &golden->features)) ||
		    (status = read_path(r, "golden.logits", find(pair, "logits"), &golden->logits)))
			return status;
	}
	return KX_OK;
}

static kx_status check_format(struct reader *r)
{
	const json_t *format = find(r->root, "format");

	if (!json_is_integer(format))
		return wrong(r, "format", "a number");
	if (json_integer_value(format) != KX_MANIFEST_FORMAT)
		return kx_error_set(r->error, KX_EVERSION, KX_ERROR_FATAL,
				    "%s: bundle format %" JSON_INTEGER_FORMAT ", this program reads %d", r->path,
				    json_integer_value(format), KX_MANIFEST_FORMAT);
	return KX_OK;
}

static kx_status read_all(struct reader *r, struct kx_bundle *b, struct kx_manifest *manifest)
{
	int kind = 0;
	kx_status status;

	if ((status = check_format(r)) || (status = read_name(r, &b->name)) ||
	    (status = read_text(r, "version", &b->version)) || (status = read_text(r, "licence", &b->licence)) ||
	    (status = read_word(r, "kind", KINDS, KX_ARRAY_LEN(KINDS), &kind)) ||
	    (status = read_file(r, "model.file", "model.sha256", &manifest->model)) ||
	    (status = read_file(r, "labels.file", "labels.sha256", &manifest->labels)))
		return status;
	b->kind = (enum kx_bundle_kind)kind;
	if ((status = read_input(r, b)) || (status = read_outputs(r, b)) || (status = read_golden(r, b)))
		return status;
	b->model_path = kx_strdup(manifest->model.path);
	return b->model_path ? KX_OK : kx_error_nomem(r->error);
}

kx_status kx_manifest_parse(const char *path, const char *text, size_t len, struct kx_bundle *bundle,
			    struct kx_manifest *ret, struct kx_error *error)
{
	struct kx_manifest manifest = {0};
	json_error_t where;
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);

	if (!root)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s: line %d: not valid JSON (%s)", path,
				    where.line, where.text);
	struct reader reader = {.path = path, .folder = bundle->folder, .root = root, .error = error};
	kx_status status = read_all(&reader, bundle, &manifest);
	json_decref(root);
	if (status) {
		kx_manifest_done(&manifest);
		return status;
	}
	*ret = manifest;
	return KX_OK;
}
