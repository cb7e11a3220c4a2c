/* A bundle is data from anywhere: each way it can be wrong has its own words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/hash.h"
#include "common/base/str.h"
#include "worker/model/bundle.h"

#define MODEL "not really a model"
#define LABELS "cat\ndog\n"

static const char MANIFEST[] =
	"{\"format\": 1, \"name\": \"toy\", \"version\": \"7\", \"kind\": \"visual\", \"licence\": \"MIT\",\n"
	" \"source\": \"made up\",\n"
	" \"model\": {\"file\": \"model.onnx\", \"sha256\": \"@MODEL@\"},\n"
	" \"labels\": {\"file\": \"labels.txt\", \"sha256\": \"@LABELS@\"},\n"
	" \"input\": {\"name\": \"image\", \"type\": \"u8\", \"shape\": [4, 6, 3], \"preprocess\": \"rgb\"},\n"
	" \"outputs\": {\"features\": {\"name\": \"features\", \"dim\": 5},\n"
	"  \"logits\": {\"name\": \"logits\", \"dim\": 2, \"activation\": \"sigmoid\"}},\n"
	" \"golden\": [{\"input\": \"g/0.input\", \"features\": \"g/0.features\", \"logits\": \"g/0.logits\"}]}\n";

static void write_file(const char *folder, const char *name, const char *text)
{
	struct kx_error error = {0};
	char *path KX_CLEANUP(kx_cleanup_free) = kx_fs_join(folder, name);

	assert_non_null(path);
	if (kx_fs_write(path, text, strlen(text), &error))
		fail_msg("%s", error.message);
}

/* `text` with every `from` replaced; `from` must be there. The caller frees. */
static char *replaced(const char *text, const char *from, const char *to)
{
	const char *at = strstr(text, from);

	if (!at)
		fail_msg("\"%s\" is not in the manifest", from);
	char *out = kx_strf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
	assert_non_null(out);
	return out;
}

static char *with_hash(const char *text, const char *mark, const char *content)
{
	uint8_t digest[KX_SHA256_LEN];
	char hex[2 * KX_SHA256_LEN + 1];

	assert_int_equal(kx_sha256_bytes(content, strlen(content), digest), KX_OK);
	kx_hex_encode(digest, sizeof(digest), hex);
	return replaced(text, mark, hex);
}

/* The good bundle's files, with the manifest given (or the good one) and the labels given (or the good ones). */
static void write_bundle(const char *folder, const char *manifest, const char *labels)
{
	char *half KX_CLEANUP(kx_cleanup_free) = with_hash(manifest, "@MODEL@", MODEL);
	char *whole KX_CLEANUP(kx_cleanup_free) = with_hash(half, "@LABELS@", labels);

	write_file(folder, "bundle.json", whole);
	write_file(folder, "model.onnx", MODEL);
	write_file(folder, "labels.txt", labels);
}

static int make_folder(void **state)
{
	char *folder = kx_strf("%s/kx-bundle-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");

	if (!folder || !mkdtemp(folder)) {
		free(folder);
		return -1;
	}
	*state = folder;
	return 0;
}

static int remove_folder(void **state)
{
	kx_status status = kx_fs_remove_tree(*state, NULL);

	free(*state);
	return status;
}

static struct kx_bundle *open_good(const char *folder)
{
	struct kx_error error = {0};
	struct kx_bundle *bundle = NULL;

	if (kx_bundle_open(folder, &bundle, &error))
		fail_msg("%s", error.message);
	return bundle;
}

static void expect_refused(const char *folder, kx_status wanted, const char *words)
{
	struct kx_error error = {0};
	struct kx_bundle *bundle = NULL;
	kx_status status = kx_bundle_open(folder, &bundle, &error);

	if (status != wanted || error.class != KX_ERROR_FATAL || !strstr(error.message, words))
		fail_msg("wanted %s with \"%s\", got %s: %s", kx_status_name(wanted), words, kx_status_name(status),
			 error.message);
	assert_int_equal(error.status, wanted);
	assert_null(bundle);
}

static void opens_a_good_one(void **state)
{
	write_bundle(*state, MANIFEST, LABELS);
	struct kx_bundle *b = open_good(*state);

	assert_string_equal(b->name, "toy");
	assert_string_equal(b->version, "7");
	assert_string_equal(b->licence, "MIT");
	assert_string_equal(b->input_name, "image");
	assert_string_equal(b->features_name, "features");
	assert_string_equal(b->logits_name, "logits");
	assert_int_equal(b->kind, KX_BUNDLE_VISUAL);
	assert_int_equal(b->activation, KX_ACTIVATION_SIGMOID);
	assert_int_equal(b->input_bytes, 72);
	assert_int_equal(b->feature_dim, 5);
	assert_int_equal(b->class_count, 2);
	assert_string_equal(b->labels[1], "dog");
	assert_int_equal(b->golden_count, 1);
	assert_true(kx_str_starts(b->golden[0].logits, *state));
	assert_true(kx_str_ends(b->golden[0].logits, "/g/0.logits"));
	kx_bundle_free(b);
}

static void refuses_each_wrong_manifest(void **state)
{
	static const struct {
		const char *from, *to;
		kx_status status;
		const char *words;
	} CASES[] = {
		{"{\"format\": 1,", "{\"format\": 2,", KX_EVERSION, "bundle format 2, this program reads 1"},
		{"\"format\": 1,", "", KX_EINVAL, "\"format\""},
		{"\"name\": \"toy\",", "", KX_EINVAL, "\"name\""},
		{"\"toy\"", "\"../toy\"", KX_EINVAL, "\"name\""},
		{"\"toy\"", "7", KX_EINVAL, "\"name\""},
		{"\"version\": \"7\",", "", KX_EINVAL, "\"version\""},
		{"\"licence\": \"MIT\",", "", KX_EINVAL, "\"licence\""},
		{"\"visual\"", "\"smell\"", KX_EINVAL, "\"kind\" is missing or is not visual, audio or clip"},
		{"\"visual\"", "\"audio\"", KX_EINVAL, "\"input.shape\""},
		{"model.onnx", "../model.onnx", KX_EINVAL, "\"model.file\""},
		{"model.onnx", "/model.onnx", KX_EINVAL, "\"model.file\""},
		{"model.onnx", "a/..", KX_EINVAL, "\"model.file\""},
		{"@LABELS@", "@LABELS@00", KX_EINVAL, "\"labels.sha256\""},
		{"\"u8\"", "\"f64\"", KX_EINVAL, "\"input.type\" is missing or is not u8, f32"},
		{"[4, 6, 3]", "[4, 6, 4]", KX_EINVAL, "\"input.shape\""},
		{"[4, 6, 3]", "[4, 0, 3]", KX_EINVAL, "\"input.shape\""},
		{"[4, 6, 3]", "[1, 1, 1, 1, 1, 1]", KX_EINVAL, "\"input.shape\""},
		{"[4, 6, 3]", "[60000, 60000, 3]", KX_EINVAL, "\"input.shape\""},
		{"[4, 6, 3]", "[4, -6, 3]", KX_EINVAL, "\"input.shape\""},
		{"\"preprocess\": \"rgb\"", "\"preprocess\": \"\"", KX_EINVAL, "\"input.preprocess\""},
		{"\"dim\": 5", "\"dim\": 5000", KX_EINVAL, "\"outputs.features.dim\""},
		{"\"dim\": 2,", "", KX_EINVAL, "\"outputs.logits.dim\""},
		{"\"dim\": 2,", "\"dim\": 3,", KX_EINVAL, "2 lines for 3 classes"},
		{"\"sigmoid\"", "\"none\"", KX_EINVAL, "\"outputs.logits.activation\""},
		{"\"g/0.input\"", "null", KX_EINVAL, "\"golden.input\""},
		{"[{\"input\"", "[7, {\"input\"", KX_EINVAL, "\"golden.input\""},
		{"\"golden\"", "\"silver\"", KX_EINVAL, "\"golden\""},
		{"\"MIT\",\n", "\"MIT\"\n", KX_EINVAL, "line 2: not valid JSON"},
		{"\"MIT\",\n", "\"MIT\", \"kind\": \"audio\",\n", KX_EINVAL, "not valid JSON"},
	};

	for (size_t i = 0; i < KX_ARRAY_LEN(CASES); i++) {
		char *manifest KX_CLEANUP(kx_cleanup_free) = replaced(MANIFEST, CASES[i].from, CASES[i].to);

		write_bundle(*state, manifest, LABELS);
		expect_refused(*state, CASES[i].status, CASES[i].words);
	}
}

static void says_how_to_make_a_missing_one(void **state)
{
	expect_refused(*state, KX_ENOTFOUND, "scripts/bundles");
}

static void names_the_file_that_changed(void **state)
{
	write_bundle(*state, MANIFEST, LABELS);
	write_file(*state, "model.onnx", MODEL "!");
	expect_refused(*state, KX_ECORRUPT, "model.onnx");
	write_bundle(*state, MANIFEST, LABELS);
	write_file(*state, "labels.txt", "cat\nfox\n");
	expect_refused(*state, KX_ECORRUPT, "labels.txt");
}

static void refuses_labels_that_do_not_fit(void **state)
{
	write_bundle(*state, MANIFEST, "cat\ndog\nfox\n");
	expect_refused(*state, KX_EINVAL, "3 lines for 2 classes");
	write_bundle(*state, MANIFEST, "cat\n\n");
	expect_refused(*state, KX_EINVAL, "line 2 is empty");
	write_bundle(*state, MANIFEST, "cat\n\xff\n");
	expect_refused(*state, KX_EINVAL, "line 2 is empty, too long or not UTF-8");
	write_bundle(*state, MANIFEST, "");
	expect_refused(*state, KX_EINVAL, "0 lines for 2 classes");
}

static void space_changes_with_all_it_is_made_of(void **state)
{
	char first[KX_SPACE_MAX], again[KX_SPACE_MAX], other[KX_SPACE_MAX];

	write_bundle(*state, MANIFEST, LABELS);
	struct kx_bundle *b = open_good(*state);
	assert_int_equal(kx_bundle_space(b, "area", "f32", first), KX_OK);
	assert_int_equal(kx_bundle_space(b, "area", "f32", again), KX_OK);
	assert_string_equal(first, again);
	assert_true(kx_str_starts(first, "visual/toy/5/"));
	assert_int_equal(strlen(first), strlen("visual/toy/5/") + 16);
	assert_int_equal(kx_bundle_space(b, "area", "bf16", other), KX_OK);
	assert_string_not_equal(first, other);
	assert_int_equal(kx_bundle_space(b, "bilinear", "f32", other), KX_OK);
	assert_string_not_equal(first, other);
	kx_bundle_free(b);

	char *manifest KX_CLEANUP(kx_cleanup_free) = replaced(MANIFEST, "\"version\": \"7\"", "\"version\": \"8\"");
	write_bundle(*state, manifest, LABELS);
	b = open_good(*state);
	assert_int_equal(kx_bundle_space(b, "area", "f32", other), KX_OK);
	assert_string_not_equal(first, other);
	kx_bundle_free(b);
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_A_FOLDER(opens_a_good_one),
		IN_A_FOLDER(refuses_each_wrong_manifest),
		IN_A_FOLDER(says_how_to_make_a_missing_one),
		IN_A_FOLDER(names_the_file_that_changed),
		IN_A_FOLDER(refuses_labels_that_do_not_fit),
		IN_A_FOLDER(space_changes_with_all_it_is_made_of),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
