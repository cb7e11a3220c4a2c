/* The real bundles through the real runtime: golden pairs, and that an item's result depends on nothing but the item.
 * Needs bundles/lite0 and bundles/yamnet, which scripts/test makes before it runs anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "worker/model/model.h"

#define BATCH 8
#define STREAMS 2

static const char *const BUNDLES[] = {"lite0", "yamnet"};
static const enum kx_precision PRECISIONS[] = {KX_PRECISION_F32, KX_PRECISION_BF16};

/* One compiled bundle and the bits of its golden inputs. */
struct fixture {
	struct kx_runtime *runtime;
	struct kx_bundle *bundle;
	struct kx_model *model;
	struct kx_buf inputs[3];
};

struct outcome {
	float *features, *scores;
};

static struct kx_bundle *open_bundle(const char *name)
{
	struct kx_error error = {0};
	struct kx_bundle *bundle = NULL;
	char *folder KX_CLEANUP(kx_cleanup_free) = kx_strf("%s/bundles/%s", KX_SOURCE_DIR, name);

	assert_non_null(folder);
	if (kx_bundle_open(folder, &bundle, &error))
		fail_msg("%s", error.message);
	return bundle;
}

static kx_status compile_at(struct fixture *f, enum kx_precision precision, size_t batch, struct kx_error *error)
{
	struct kx_model_options options = {.precision = precision, .streams = STREAMS, .batch = batch};

	return kx_model_new(f->runtime, f->bundle, &options, &f->model, error);
}

static void set_up(struct fixture *f, const char *name, enum kx_precision precision, size_t batch)
{
	struct kx_error error = {0};

	*f = (struct fixture){.bundle = open_bundle(name)};
	if (kx_runtime_new(&f->runtime, &error) || compile_at(f, precision, batch, &error))
		fail_msg("%s", error.message);
	assert_true(f->bundle->golden_count >= KX_ARRAY_LEN(f->inputs));
	for (size_t i = 0; i < KX_ARRAY_LEN(f->inputs); i++) {
		if (kx_fs_read(f->bundle->golden[i].input, f->bundle->input_bytes, &f->inputs[i], &error))
			fail_msg("%s", error.message);
		assert_int_equal(f->inputs[i].len, f->bundle->input_bytes);
	}
}

static void tear_down(struct fixture *f)
{
	for (size_t i = 0; i < KX_ARRAY_LEN(f->inputs); i++)
		kx_buf_done(&f->inputs[i]);
	kx_model_free(f->model);
	kx_runtime_free(f->runtime);
	kx_bundle_free(f->bundle);
}

static struct outcome new_outcome(const struct fixture *f, size_t count)
{
	struct outcome out = {.features = calloc(count * f->bundle->feature_dim, sizeof(float)),
			      .scores = calloc(count * f->bundle->class_count, sizeof(float))};

	assert_non_null(out.features);
	assert_non_null(out.scores);
	return out;
}

static void free_outcome(struct outcome *out)
{
	free(out->features);
	free(out->scores);
}

static struct kx_model_stream *new_stream(struct fixture *f)
{
	struct kx_error error = {0};
	struct kx_model_stream *stream = NULL;

	if (kx_model_stream_new(f->model, &stream, &error))
		fail_msg("%s", error.message);
	return stream;
}

static void infer(struct kx_model_stream *stream, const void *const *inputs, size_t count, struct outcome *out)
{
	struct kx_error error = {0};

	if (kx_model_infer(stream, inputs, count, out->features, out->scores, &error))
		fail_msg("%s", error.message);
}

static bool same_bits(const struct fixture *f, const struct outcome *a, size_t at_a, const struct outcome *b,
		      size_t at_b)
{
	size_t dim = f->bundle->feature_dim, classes = f->bundle->class_count;

	return memcmp(a->features + at_a * dim, b->features + at_b * dim, dim * sizeof(float)) == 0 &&
	       memcmp(a->scores + at_a * classes, b->scores + at_b * classes, classes * sizeof(float)) == 0;
}

static void golden_pairs_come_out(void **state)
{
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(BUNDLES) * KX_ARRAY_LEN(PRECISIONS); i++) {
		struct fixture f = {.bundle = open_bundle(BUNDLES[i / KX_ARRAY_LEN(PRECISIONS)])};
		enum kx_precision precision = PRECISIONS[i % KX_ARRAY_LEN(PRECISIONS)];
		struct kx_error error = {0};
		double lowest = 0;

		assert_int_equal(kx_runtime_new(&f.runtime, &error), KX_OK);
		kx_status status = compile_at(&f, precision, 0, &error);
		if (status == KX_EUNSUPPORTED && precision == KX_PRECISION_BF16) {
			print_message("%s bf16: not on this CPU\n", f.bundle->name);
		} else {
			if (status || kx_model_check(f.model, &lowest, &error))
				fail_msg("%s", error.message);
			print_message("%s %s: lowest cosine with ONNX Runtime %.6f\n", f.bundle->name,
				      kx_precision_name(kx_model_precision(f.model)), lowest);
		}
		tear_down(&f);
	}
}

/* Item 0 at each place among changing neighbours, alone with padding, and the same again in another stream. */
static void check_places(struct fixture *f, const struct outcome *alone)
{
	struct kx_model_stream *streams[STREAMS] = {new_stream(f), new_stream(f)};
	struct outcome got = new_outcome(f, BATCH);
	const void *items[BATCH];

	for (size_t run = 0; run < STREAMS * BATCH; run++) {
		size_t place = run / STREAMS, count = run % 3 ? BATCH : place + 1;

		for (size_t i = 0; i < BATCH; i++)
			items[i] = f->inputs[1 + (i + run) % 2].data;
		items[place] = f->inputs[0].data;
		infer(streams[run % STREAMS], items, count, &got);
		if (!same_bits(f, alone, 0, &got, place))
			fail_msg("%s %s: place %zu of %zu gives other bits", f->bundle->name,
				 kx_precision_name(kx_model_precision(f->model)), place, count);
	}
	free_outcome(&got);
	for (size_t i = 0; i < STREAMS; i++)
		kx_model_stream_free(streams[i]);
}

static void place_and_neighbours_change_nothing(void **state)
{
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(BUNDLES); i++) {
		struct fixture f;

		set_up(&f, BUNDLES[i], KX_PRECISION_AUTO, BATCH);
		struct kx_model_stream *stream = new_stream(&f);
		struct outcome alone = new_outcome(&f, 1), other = new_outcome(&f, 1);
		infer(stream, (const void *[]){f.inputs[1].data}, 1, &other);
		infer(stream, (const void *[]){f.inputs[0].data}, 1, &alone);
		assert_false(same_bits(&f, &alone, 0, &other, 0)); /* else the test would see nothing */
		check_places(&f, &alone);
		free_outcome(&alone);
		free_outcome(&other);
		kx_model_stream_free(stream);
		tear_down(&f);
	}
}

struct runner {
	struct fixture *f;
	struct kx_model_stream *stream;
	const struct outcome *wanted;
	bool differed, failed;
};

static void *run_stream(void *arg)
{
	struct runner *r = arg;
	struct outcome got = {.features = calloc(BATCH * r->f->bundle->feature_dim, sizeof(float)),
			      .scores = calloc(BATCH * r->f->bundle->class_count, sizeof(float))};
	const void *items[BATCH];

	for (size_t i = 0; i < BATCH; i++)
		items[i] = r->f->inputs[0].data;
	for (size_t run = 0; run < 4 && got.features && got.scores; run++) {
		r->failed |= kx_model_infer(r->stream, items, BATCH, got.features, got.scores, NULL) != KX_OK;
		for (size_t i = 0; i < BATCH; i++)
			r->differed |= !same_bits(r->f, r->wanted, 0, &got, i);
	}
	r->failed |= !got.features || !got.scores;
	free_outcome(&got);
	return NULL;
}

static void streams_at_once_give_the_same(void **state)
{
	struct runner runners[STREAMS];
	pthread_t threads[STREAMS];
	struct fixture f;

	(void)state;
	set_up(&f, "lite0", KX_PRECISION_AUTO, BATCH);
	struct kx_model_stream *stream = new_stream(&f);
	struct outcome alone = new_outcome(&f, 1);
	infer(stream, (const void *[]){f.inputs[0].data}, 1, &alone);
	for (size_t i = 0; i < STREAMS; i++) {
		runners[i] = (struct runner){.f = &f, .stream = new_stream(&f), .wanted = &alone};
		assert_int_equal(kx_thread_start(&threads[i], "stream", run_stream, &runners[i], NULL), KX_OK);
	}
	for (size_t i = 0; i < STREAMS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_false(runners[i].failed);
		assert_false(runners[i].differed);
		kx_model_stream_free(runners[i].stream);
	}
	free_outcome(&alone);
	kx_model_stream_free(stream);
	tear_down(&f);
}

static void scores_are_probabilities(void **state)
{
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(BUNDLES); i++) {
		struct fixture f;
		double sum = 0;

		set_up(&f, BUNDLES[i], KX_PRECISION_F32, 0);
		struct kx_model_stream *stream = new_stream(&f);
		struct outcome got = new_outcome(&f, 1);
		infer(stream, (const void *[]){f.inputs[0].data}, 1, &got);
		for (size_t c = 0; c < f.bundle->class_count; c++) {
			assert_true(got.scores[c] >= 0 && got.scores[c] <= 1);
			sum += (double)got.scores[c];
		}
		if (f.bundle->activation == KX_ACTIVATION_SOFTMAX)
			assert_true(sum > 0.9999 && sum < 1.0001);
		free_outcome(&got);
		kx_model_stream_free(stream);
		tear_down(&f);
	}
}

static void refuses_what_does_not_fit(void **state)
{
	struct kx_error error = {0};
	struct fixture f;

	(void)state;
	set_up(&f, "yamnet", KX_PRECISION_F32, 2);
	struct kx_model_stream *stream = new_stream(&f);
	const void *items[3] = {f.inputs[0].data, f.inputs[1].data, f.inputs[2].data};
	struct outcome got = new_outcome(&f, 3);
	assert_int_equal(kx_model_batch(f.model), 2);
	assert_int_equal(kx_model_infer(stream, items, 3, got.features, got.scores, &error), KX_EINVAL);
	assert_int_equal(kx_model_infer(stream, items, 0, got.features, got.scores, &error), KX_EINVAL);
	free_outcome(&got);
	kx_model_stream_free(stream);
	kx_model_free(f.model);

	f.model = NULL;
	f.bundle->shape[1] = 63; /* a manifest that does not describe its model */
	assert_int_equal(compile_at(&f, KX_PRECISION_F32, 1, &error), KX_EINVAL);
	assert_non_null(strstr(error.message, "yamnet/model.onnx: \"patch\" of the model does not take input.shape"));
	f.bundle->shape[1] = 64;
	f.bundle->feature_dim--;
	assert_int_equal(compile_at(&f, KX_PRECISION_F32, 1, &error), KX_OK);
	assert_int_equal(kx_model_stream_new(f.model, &stream, &error), KX_EINVAL);
	assert_non_null(strstr(error.message, "features"));
	tear_down(&f);
}

static void a_failed_run_can_be_tried_again(void **state)
{
	struct kx_error error = {0};
	struct fixture f;

	(void)state;
	set_up(&f, "yamnet", KX_PRECISION_F32, 1);
	struct kx_model_stream *stream = new_stream(&f);
	struct outcome got = new_outcome(&f, 1);
	const void *items[] = {f.inputs[0].data};
	kx_fault_arm("model.infer", 1);
	assert_int_equal(kx_model_infer(stream, items, 1, got.features, got.scores, &error), KX_EIO);
	assert_string_equal(error.message, "yamnet: inference: injected fault");
	infer(stream, items, 1, &got);
	kx_fault_clear();
	free_outcome(&got);
	kx_model_stream_free(stream);
	tear_down(&f);
}

static void refuses_a_wrong_golden_pair(void **state)
{
	struct kx_error error = {0};
	struct fixture f;
	double lowest = -1;

	(void)state;
	set_up(&f, "lite0", KX_PRECISION_F32, 0);
	char *features = f.bundle->golden[0].features;
	f.bundle->golden[0].features = f.bundle->golden[1].features;
	assert_int_equal(kx_model_check(f.model, &lowest, &error), KX_ECORRUPT);
	assert_non_null(strstr(error.message, "1.features"));
	assert_true(lowest == -1);
	f.bundle->golden[0].features = f.bundle->golden[0].logits; /* too short */
	assert_int_equal(kx_model_check(f.model, &lowest, &error), KX_ECORRUPT);
	f.bundle->golden[0].features = features;
	assert_int_equal(kx_model_check(f.model, &lowest, &error), KX_OK);
	tear_down(&f);
}

/* ---- the cache ---- */

static char *cache_folder(void)
{
	char *folder = kx_strf("%s/kx-cache-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");

	assert_non_null(folder);
	assert_non_null(mkdtemp(folder));
	return folder;
}

static void compile_cached(struct fixture *f, const char *cache)
{
	struct kx_model_options options = {
		.precision = KX_PRECISION_AUTO, .streams = STREAMS, .batch = BATCH, .cache_dir = cache};
	struct kx_error error = {0};

	kx_model_free(f->model);
	f->model = NULL;
	if (kx_model_new(f->runtime, f->bundle, &options, &f->model, &error))
		fail_msg("%s", error.message);
}

/* The only entry in a folder, "" when there is none; the caller frees. */
static char *only_entry(const char *cache)
{
	DIR *folder = opendir(cache);
	char *path = kx_strdup("");

	assert_non_null(folder);
	for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
		if (entry->d_name[0] == '.')
			continue;
		assert_string_equal(path, "");
		free(path);
		path = kx_fs_join(cache, entry->d_name);
	}
	closedir(folder);
	assert_non_null(path);
	return path;
}

/* The golden inputs in one batch, and then others that begin in the middle of one of them. */
static void infer_all(struct fixture *f, struct outcome *ret)
{
	struct kx_model_stream *stream = new_stream(f);
	const size_t bytes = f->bundle->input_bytes, half = bytes / 8 * 4;
	char *mixed = malloc(bytes);
	const void *inputs[] = {f->inputs[0].data, f->inputs[1].data, f->inputs[2].data, mixed};

	assert_non_null(mixed);
	memcpy(mixed, (const char *)f->inputs[0].data + half, bytes - half);
	memcpy(mixed + bytes - half, f->inputs[1].data, half);
	*ret = new_outcome(f, KX_ARRAY_LEN(inputs));
	infer(stream, inputs, KX_ARRAY_LEN(inputs), ret);
	free(mixed);
	kx_model_stream_free(stream);
}

static void assert_infers(struct fixture *f, const struct outcome *wanted)
{
	struct outcome got;

	infer_all(f, &got);
	for (size_t i = 0; i < 4; i++)
		assert_true(same_bits(f, wanted, i, &got, i));
	free_outcome(&got);
}

/* An entry that is not, because it is damaged or OpenVINO refuses it, is made anew. Either way it was used now. */
static void assert_is_taken(struct fixture *f, const char *cache, const char *entry, bool taken)
{
	static const struct timespec long_ago[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	struct stat before, after;
	char *kept = kx_strf("%s/.kept", cache); /* so that its number is not given to another */

	assert_non_null(kept);
	assert_int_equal(utimensat(AT_FDCWD, entry, long_ago, 0), 0);
	assert_int_equal(stat(entry, &before), 0);
	assert_int_equal(link(entry, kept), 0);
	compile_cached(f, cache);
	assert_int_equal(stat(entry, &after), 0);
	assert_int_equal(before.st_ino == after.st_ino, taken);
	assert_true(after.st_mtim.tv_sec > long_ago[0].tv_sec);
	assert_int_equal(unlink(kept), 0);
	free(kept);
}

static void model_from_the_cache_computes_the_same_bits(void **state)
{
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(BUNDLES); i++) {
		char *cache = cache_folder();
		char *nested = kx_fs_join(cache, "models");
		struct outcome wanted;
		struct fixture f;
		double cosine;

		set_up(&f, BUNDLES[i], KX_PRECISION_AUTO, BATCH);
		infer_all(&f, &wanted);
		compile_cached(&f, nested);
		assert_infers(&f, &wanted);
		char *entry = only_entry(nested);
		assert_is_taken(&f, nested, entry, true);
		assert_infers(&f, &wanted);
		assert_int_equal(kx_model_check(f.model, &cosine, NULL), KX_OK);
		free(entry);
		free_outcome(&wanted);
		tear_down(&f);
		assert_int_equal(kx_fs_remove_tree(cache, NULL), KX_OK);
		free(nested);
		free(cache);
	}
}

/* Changes a byte, and cuts the file too where that is said. */
static void damage(const char *path, long at, bool cut)
{
	FILE *file = fopen(path, "r+b");
	int byte;

	assert_non_null(file);
	assert_int_equal(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
	byte = fgetc(file);
	assert_true(byte != EOF);
	assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
	assert_int_equal(fputc(byte ^ 4, file), byte ^ 4);
	if (cut)
		assert_int_equal(ftruncate(fileno(file), 1000), 0);
	assert_int_equal(fclose(file), 0);
}

static void damaged_entry_is_made_anew(void **state)
{
	const struct {
		long at;
		bool cut;
	} damages[] = {{1000000, false}, {-30, false}, {-20, false}, {-1, false}, {3, true}};
	char *cache = cache_folder();
	struct outcome wanted;
	struct fixture f;

	(void)state;
	set_up(&f, "yamnet", KX_PRECISION_AUTO, BATCH);
	infer_all(&f, &wanted);
	compile_cached(&f, cache);
	char *entry = only_entry(cache);
	for (size_t i = 0; i < KX_ARRAY_LEN(damages); i++) {
		damage(entry, damages[i].at, damages[i].cut);
		assert_is_taken(&f, cache, entry, false);
		assert_infers(&f, &wanted);
		assert_is_taken(&f, cache, entry, true);
	}
	free(entry);
	free_outcome(&wanted);
	tear_down(&f);
	assert_int_equal(kx_fs_remove_tree(cache, NULL), KX_OK);
	free(cache);
}

static void entry_that_others_can_write_is_not_read(void **state)
{
	char *cache = cache_folder();
	struct stat info;
	struct fixture f;

	(void)state;
	set_up(&f, "yamnet", KX_PRECISION_AUTO, BATCH);
	compile_cached(&f, cache);
	char *entry = only_entry(cache);
	assert_int_equal(chmod(entry, 0666), 0);
	assert_is_taken(&f, cache, entry, false);
	assert_int_equal(stat(entry, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0600);
	free(entry);
	tear_down(&f);
	assert_int_equal(kx_fs_remove_tree(cache, NULL), KX_OK);
	free(cache);
}

static void without_a_cache_models_are_compiled(void **state)
{
	char *cache = cache_folder();
	struct fixture f;

	(void)state;
	set_up(&f, "yamnet", KX_PRECISION_AUTO, BATCH);
	kx_fault_arm("model.cache", 1);
	compile_cached(&f, cache);
	kx_fault_clear();
	char *entry = only_entry(cache);
	assert_string_equal(entry, ""); /* nothing half written either */
	free(entry);
	compile_cached(&f, "/proc/no-place/for/models");
	tear_down(&f);
	assert_int_equal(kx_fs_remove_tree(cache, NULL), KX_OK);
	free(cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_pairs_come_out),
		cmocka_unit_test(place_and_neighbours_change_nothing),
		cmocka_unit_test(streams_at_once_give_the_same),
		cmocka_unit_test(scores_are_probabilities),
		cmocka_unit_test(refuses_what_does_not_fit),
		cmocka_unit_test(a_failed_run_can_be_tried_again),
		cmocka_unit_test(model_from_the_cache_computes_the_same_bits),
		cmocka_unit_test(damaged_entry_is_made_anew),
		cmocka_unit_test(entry_that_others_can_write_is_not_read),
		cmocka_unit_test(without_a_cache_models_are_compiled),
		cmocka_unit_test(refuses_a_wrong_golden_pair),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
