/* What the store promises while nothing goes wrong; test_kv_faults.c has the rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/thread.h"
#include "common/kv/test_store.h"

static void put(struct kx_kv *kv, size_t family, const char *key, const char *value)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;

	assert_int_equal(kx_kv_batch_new(kv, &batch), KX_OK);
	kx_kv_batch_put(batch, family, key, strlen(key), value, strlen(value));
	assert_int_equal(kx_kv_write(kv, batch, false, NULL), KX_OK);
}

static void expect(struct kx_kv *kv, size_t family, const char *key, const char *value)
{
	struct kx_buf out = {.max = 1024};
	kx_status status = kx_kv_get(kv, family, key, strlen(key), &out, NULL);

	assert_int_equal(status, value ? KX_OK : KX_ENOTFOUND);
	if (value)
		assert_string_equal(out.data, value);
	kx_buf_done(&out);
}

/* Keys under prefix, in order, one letter each. */
static const char *walk(struct kx_kv *kv, const void *prefix, size_t len)
{
	static char found[64];
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	size_t count = 0;

	assert_int_equal(kx_kv_iter_new(kv, FAMILY_A, prefix, len, &iter), KX_OK);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t value_len;
		const char *value = kx_kv_iter_value(iter, &value_len);

		assert_int_equal(value_len, 1);
		found[count++] = value[0];
	}
	assert_int_equal(kx_kv_iter_error(iter, NULL), KX_OK);
	found[count] = '\0';
	return found;
}

static void reads_what_was_written(void **state)
{
	struct test_store *store = *state;
	struct kx_buf out = {.max = 4};

	test_store_open(store);
	put(store->kv, FAMILY_A, "key", "one");
	put(store->kv, FAMILY_B, "key", "two");
	expect(store->kv, FAMILY_A, "key", "one");
	expect(store->kv, FAMILY_B, "key", "two");
	expect(store->kv, FAMILY_A, "other", NULL);
	test_store_reopen(store);
	expect(store->kv, FAMILY_A, "key", "one");

	/* Appends, and refuses what is over the buffer's maximum. */
	assert_int_equal(kx_buf_append(&out, "+", 1), KX_OK);
	assert_int_equal(kx_kv_get(store->kv, FAMILY_A, "key", 3, &out, NULL), KX_OK);
	assert_string_equal(out.data, "+one");
	assert_int_equal(kx_kv_get(store->kv, FAMILY_A, "key", 3, &out, NULL), KX_ETOOBIG);
	kx_buf_done(&out);
}

static void batch_deletes_and_empties(void **state)
{
	struct test_store *store = *state;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;

	test_store_open(store);
	for (char key[] = "a"; key[0] <= 'f'; key[0]++)
		put(store->kv, FAMILY_A, key, key);
	assert_int_equal(kx_kv_batch_new(store->kv, &batch), KX_OK);
	kx_kv_batch_delete_range(batch, FAMILY_A, "b", 1, "e", 1);
	kx_kv_batch_delete(batch, FAMILY_A, "f", 1);
	kx_kv_batch_put(batch, FAMILY_A, "c", 1, "C", 1);
	assert_int_equal(kx_kv_batch_count(batch), 3);
	assert_string_equal(walk(store->kv, NULL, 0), "abcdef"); /* nothing happens before the write */
	assert_int_equal(kx_kv_write(store->kv, batch, true, NULL), KX_OK);
	assert_int_equal(kx_kv_batch_count(batch), 0);
	assert_string_equal(walk(store->kv, NULL, 0), "aCe");
}

static void walks_a_prefix(void **state)
{
	struct test_store *store = *state;

	test_store_open(store);
	put(store->kv, FAMILY_A, "ab", "0");
	put(store->kv, FAMILY_A, "b", "1");
	put(store->kv, FAMILY_A, "b\x01", "2");
	put(store->kv, FAMILY_A, "b\xff\xff", "3");
	put(store->kv, FAMILY_A, "c", "4");
	put(store->kv, FAMILY_A, "\xff", "5");
	put(store->kv, FAMILY_A, "\xff\xff", "6");
	put(store->kv, FAMILY_A, "\xff\xff\x01", "7");

	assert_string_equal(walk(store->kv, NULL, 0), "01234567");
	assert_string_equal(walk(store->kv, "b", 1), "123");
	assert_string_equal(walk(store->kv, "b\xff", 2), "3");
	assert_string_equal(walk(store->kv, "\xff\xff", 2), "67");
	assert_string_equal(walk(store->kv, "bb", 2), "");
}

static void walk_sees_a_snapshot(void **state)
{
	struct test_store *store = *state;
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;

	test_store_open(store);
	put(store->kv, FAMILY_A, "a", "1");
	assert_int_equal(kx_kv_iter_new(store->kv, FAMILY_A, NULL, 0, &iter), KX_OK);
	put(store->kv, FAMILY_A, "b", "2");
	assert_true(kx_kv_iter_valid(iter));
	kx_kv_iter_next(iter);
	assert_false(kx_kv_iter_valid(iter));
}

static void bulk_is_seen_at_its_end(void **state)
{
	struct test_store *store = *state;
	KX_CLEANUP(kx_kv_bulk_cleanup) struct kx_kv_bulk *bulk = NULL;
	struct kx_error error = {0};

	test_store_open(store);
	put(store->kv, FAMILY_A, "b", "0");
	put(store->kv, FAMILY_A, "c", "1");
	assert_int_equal(kx_kv_bulk_new(store->kv, FAMILY_A, &bulk, NULL), KX_OK);
	assert_int_equal(kx_kv_bulk_put(bulk, "a", 1, "2", 1, NULL), KX_OK);
	assert_int_equal(kx_kv_bulk_put(bulk, "c", 1, "3", 1, NULL), KX_OK);
	assert_string_equal(walk(store->kv, NULL, 0), "01");
	assert_int_equal(kx_kv_bulk_finish(bulk, NULL), KX_OK);
	assert_string_equal(walk(store->kv, NULL, 0), "203"); /* in the place of what was there */
	kx_kv_bulk_free(KX_STEAL(bulk));
	put(store->kv, FAMILY_A, "c", "4");
	test_store_reopen(store);
	assert_string_equal(walk(store->kv, NULL, 0), "204");
	assert_int_equal(kx_kv_verify(store->kv, NULL), KX_OK);

	/* What is not ended, is not in order or has nothing in it. */
	assert_int_equal(kx_kv_bulk_new(store->kv, FAMILY_A, &bulk, NULL), KX_OK);
	assert_int_equal(kx_kv_bulk_put(bulk, "d", 1, "5", 1, NULL), KX_OK);
	assert_int_equal(kx_kv_bulk_put(bulk, "d", 1, "6", 1, &error), KX_EINVAL);
	kx_kv_bulk_free(KX_STEAL(bulk));
	assert_int_equal(kx_kv_bulk_new(store->kv, FAMILY_A, &bulk, NULL), KX_OK);
	assert_int_equal(kx_kv_bulk_finish(bulk, NULL), KX_OK);
	assert_string_equal(walk(store->kv, NULL, 0), "204");
}

static void bulk_left_by_the_dead_goes(void **state)
{
	struct test_store *store = *state;
	KX_CLEANUP(kx_cleanup_free) char *folder = NULL;
	KX_CLEANUP(kx_cleanup_free) char *path = NULL;

	test_store_open(store);
	path = kx_fs_join(store->path, "bulk/7.sst");
	folder = kx_fs_join(store->path, "bulk");
	assert_int_equal(kx_fs_mkdirs(folder, NULL), KX_OK);
	assert_int_equal(kx_fs_write(path, "x", 1, NULL), KX_OK);
	test_store_reopen(store);
	assert_false(kx_fs_exists(path));
}

static void reader_beside_a_writer(void **state)
{
	struct test_store *store = *state;
	struct kx_kv_options options = test_store_options();
	struct kx_kv *reader = NULL;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;

	test_store_open(store);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(test_store_put(store->kv, i, 10000, NULL), KX_OK);
	options.read_only = true;
	assert_int_equal(kx_kv_open(store->path, &options, &reader, NULL), KX_OK);
	for (unsigned i = 100; i < 200; i++)
		assert_int_equal(test_store_put(store->kv, i, 10000, NULL), KX_OK);
	/* Takes the files away that the reader opened. */
	assert_int_equal(kx_kv_compact(store->kv, NULL), KX_OK);
	assert_int_equal(test_store_count(reader), 100);
	assert_int_equal(test_store_count(store->kv), 200);
	assert_int_equal(kx_kv_verify(reader, NULL), KX_OK);

	assert_int_equal(kx_kv_batch_new(reader, &batch), KX_OK);
	kx_kv_batch_put(batch, FAMILY_A, "k", 1, "v", 1);
	assert_int_equal(kx_kv_write(reader, batch, false, NULL), KX_EPERM);
	assert_int_equal(kx_kv_flush(reader, NULL), KX_EPERM);
	assert_int_equal(kx_kv_compact(reader, NULL), KX_EPERM);
	kx_kv_close(reader);
}

static void refuses_a_second_writer(void **state)
{
	struct test_store *store = *state;
	struct kx_kv_options options = test_store_options();
	struct kx_error error = {0};
	struct kx_kv *second = NULL;
	int output;
	int pid;

	test_store_open(store);
	assert_int_equal(kx_kv_open(store->path, &options, &second, &error), KX_EBUSY);
	assert_non_null(strstr(error.message, store->path));
	pid = test_store_spawn("open", store->path, &output);
	assert_int_equal(test_store_wait(pid), -KX_EBUSY);
	(void)close(output);

	kx_kv_close(KX_STEAL(store->kv));
	pid = test_store_spawn("open", store->path, &output);
	assert_int_equal(test_store_wait(pid), 0);
	(void)close(output);
}

static void opens_only_what_is_there(void **state)
{
	struct test_store *store = *state;
	struct kx_kv_options options = test_store_options();
	struct kx_error error = {0};

	options.create = false;
	assert_int_equal(kx_kv_open(store->path, &options, &store->kv, &error), KX_ENOTFOUND);
	assert_non_null(strstr(error.message, store->path));
	options.read_only = options.create = true; /* a reader makes nothing */
	assert_int_equal(kx_kv_open(store->path, &options, &store->kv, &error), KX_ENOTFOUND);
	assert_false(kx_fs_exists(store->path));
}

static void families_come_and_stay(void **state)
{
	struct test_store *store = *state;
	static const struct kx_kv_family more[] = {{"c", true}, {"b", false}};
	struct kx_kv_options options = test_store_options();
	struct kx_error error = {0};

	test_store_open(store);
	put(store->kv, FAMILY_A, "in a", "1");
	put(store->kv, FAMILY_B, "in b", "2");
	kx_kv_close(KX_STEAL(store->kv));

	options.families = more;
	options.create = false;
	assert_int_equal(kx_kv_open(store->path, &options, &store->kv, &error), KX_EVERSION);
	assert_non_null(strstr(error.message, "\"c\""));

	options.create = true; /* "c" is made, "a" left alone, and "b" found under its new number */
	assert_int_equal(kx_kv_open(store->path, &options, &store->kv, &error), KX_OK);
	put(store->kv, 0, "in c", "3");
	expect(store->kv, 1, "in b", "2");
	kx_kv_close(KX_STEAL(store->kv));

	test_store_open(store);
	expect(store->kv, FAMILY_A, "in a", "1");
	expect(store->kv, FAMILY_A, "in c", NULL);
}

static void unfinished_is_none(void **state)
{
	struct test_store *store = *state;
	struct kx_kv_options all = test_store_options(), some = test_store_options();
	struct kx_error error = {0};

	/* As a maker leaves it that dies after the first of its families. */
	some.family_count = 1;
	assert_int_equal(kx_kv_open(store->path, &some, &store->kv, &error), KX_OK);
	kx_kv_close(KX_STEAL(store->kv));
	all.create = false;
	all.read_only = true;
	assert_int_equal(kx_kv_open(store->path, &all, &store->kv, &error), KX_ENOTFOUND);
	assert_non_null(strstr(error.message, store->path));

	all.read_only = false;
	all.create = true;
	assert_int_equal(kx_kv_open(store->path, &all, &store->kv, &error), KX_OK);
	assert_int_equal(test_store_put(store->kv, 1, 100, NULL), KX_OK);
	assert_int_equal(test_store_count(store->kv), 1);
}

static void compaction_gives_space_back(void **state)
{
	struct test_store *store = *state;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	uint64_t full;

	test_store_open(store);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(test_store_put(store->kv, i, 10000, NULL), KX_OK);
	assert_int_equal(kx_kv_flush(store->kv, NULL), KX_OK);
	full = kx_kv_disk_bytes(store->kv);
	assert_true(full >= 2 * 200 * 10000);
	assert_int_equal(kx_kv_batch_new(store->kv, &batch), KX_OK);
	for (size_t family = 0; family < FAMILIES; family++)
		kx_kv_batch_delete_range(batch, family, "00000000", 8, "00000190", 8);
	assert_int_equal(kx_kv_write(store->kv, batch, true, NULL), KX_OK);
	assert_int_equal(kx_kv_compact(store->kv, NULL), KX_OK);
	assert_int_equal(test_store_count(store->kv), 10);
	assert_true(kx_kv_disk_bytes(store->kv) < full / 2);
	assert_int_equal(kx_kv_verify(store->kv, NULL), KX_OK);
}

static void *compact_until_stopped(void *arg)
{
	struct kx_error error = {0};
	kx_status status;

	do
		status = kx_kv_compact(arg, &error);
	while (status == KX_OK);
	assert_int_equal(status, KX_ECANCELED);
	return NULL;
}

static void compaction_ends_when_it_is_stopped(void **state)
{
	struct test_store *store = *state;
	pthread_t thread;

	test_store_open(store);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(test_store_put(store->kv, i, 10000, NULL), KX_OK);
	assert_int_equal(kx_thread_start(&thread, "compact", compact_until_stopped, store->kv, NULL), KX_OK);
	kx_kv_stop_compaction(store->kv);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(kx_kv_compact(store->kv, NULL), KX_ECANCELED);
	assert_int_equal(test_store_count(store->kv), 200);
	assert_int_equal(kx_kv_verify(store->kv, NULL), KX_OK);
}

static void checkpoint_stands_alone(void **state)
{
	struct test_store *store = *state;
	struct kx_kv_options options = test_store_options();
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(store->folder, "copy");
	struct kx_error error = {0};
	struct kx_kv *copy = NULL;

	assert_non_null(path);
	test_store_open(store);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(test_store_put(store->kv, i, 10000, NULL), KX_OK);
	assert_int_equal(kx_kv_checkpoint(store->kv, path, &error), KX_OK);
	for (unsigned i = 100; i < 150; i++)
		assert_int_equal(test_store_put(store->kv, i, 10000, NULL), KX_OK);
	assert_int_equal(kx_kv_checkpoint(store->kv, path, &error), KX_EEXIST);
	assert_non_null(strstr(error.message, path));

	/* Writable at once, beside the original. */
	assert_int_equal(kx_kv_open(path, &options, &copy, &error), KX_OK);
	assert_int_equal(test_store_count(copy), 100);
	assert_int_equal(test_store_put(copy, 100, 10000, NULL), KX_OK);
	assert_int_equal(kx_kv_verify(copy, NULL), KX_OK);
	kx_kv_close(KX_STEAL(copy));
	assert_int_equal(test_store_count(store->kv), 150);

	options.read_only = true;
	assert_int_equal(kx_kv_open(path, &options, &copy, &error), KX_OK);
	assert_int_equal(kx_kv_checkpoint(copy, "/tmp/none", &error), KX_EPERM);
	kx_kv_close(copy);
}

/* Opens for writing and ends at once; the exit status says how it went. */
static int child_open(const char *path)
{
	struct kx_kv_options options = test_store_options();
	struct kx_kv *kv = NULL;
	kx_status status = kx_kv_open(path, &options, &kv, NULL);

	kx_kv_close(kv);
	return -status;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(reads_what_was_written, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(batch_deletes_and_empties, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(walks_a_prefix, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(walk_sees_a_snapshot, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(bulk_is_seen_at_its_end, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(bulk_left_by_the_dead_goes, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(reader_beside_a_writer, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(compaction_ends_when_it_is_stopped, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(refuses_a_second_writer, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(opens_only_what_is_there, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(families_come_and_stay, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(unfinished_is_none, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(compaction_gives_space_back, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(checkpoint_stands_alone, test_store_setup, test_store_teardown),
	};

	if (argc == 4 && strcmp(argv[1], "--child") == 0)
		return child_open(argv[3]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
