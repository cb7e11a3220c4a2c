/* The store when things go wrong: killed processes, full disks, rotten bytes. */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/kv/test_store.h"

#define EXIT_SKIPPED 77 /* no right to mount a file system here */
#define ACKS_AHEAD (TEST_STORE_PIPE_BYTES / sizeof(struct ack))

/* What the writing child says of each batch. Its length bounds how far the child can run ahead of its reader: to what the
 * pipe holds, two or three flushes. */
struct ack {
	unsigned number;
	char padding[252];
};
#define BALLAST "/ballast"

/* Writes synced batches for ever; after each, its acknowledgement goes to stdout. */
static int child_write(const char *path)
{
	struct kx_kv_options options = test_store_options();
	struct kx_kv *kv = NULL;

	if (kx_kv_open(path, &options, &kv, NULL))
		return 1;
	for (struct ack ack = {0};; ack.number++) {
		if (test_store_put(kv, ack.number, 5000, NULL))
			return 2;
		if (write(STDOUT_FILENO, &ack, sizeof(ack)) != sizeof(ack))
			return 3;
	}
}

static void killed_writer_keeps_what_it_acknowledged(void **state)
{
	struct test_store *store = *state;
	unsigned acked = 0;
	unsigned count;
	struct ack ack;
	int output;
	int pid = test_store_spawn("write", store->path, &output);

	/* Enough for several memtables, so that flushes and compactions are under way. */
	while (acked < 300 && read(output, &ack, sizeof(ack)) == sizeof(ack))
		acked = ack.number + 1;
	assert_int_equal(kill(pid, SIGKILL), 0);
	while (read(output, &ack, sizeof(ack)) == sizeof(ack))
		acked = ack.number + 1;
	assert_int_equal(test_store_wait(pid), -SIGKILL);
	(void)close(output);

	assert_true(acked >= 300);
	test_store_open(store);
	count = test_store_count(store->kv);
	assert_true(count == acked || count == acked + 1); /* the last may have been written and not said */
	for (unsigned i = 0; i < acked; i++)
		assert_true(test_store_has(store->kv, i));
	assert_int_equal(kx_kv_verify(store->kv, NULL), KX_OK);
}

static void readers_see_whole_batches(void **state)
{
	struct test_store *store = *state;
	struct kx_kv_options options = test_store_options();
	struct ack ack;
	int output;
	int pid = test_store_spawn("write", store->path, &output);

	options.read_only = true;
	for (unsigned i = 0; i < 20; i++) {
		struct kx_error error = {0};

		/* Room for that many more batches, which the child writes while the store is opened here. */
		for (size_t n = 0; n < ACKS_AHEAD; n++)
			assert_int_equal(read(output, &ack, sizeof(ack)), sizeof(ack));
		if (kx_kv_open(store->path, &options, &store->kv, &error))
			fail_msg("%s", error.message);
		assert_true(test_store_count(store->kv) > ack.number);
		kx_kv_close(KX_STEAL(store->kv));
	}
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(test_store_wait(pid), -SIGKILL);
	(void)close(output);
}

/* Moves items from one family to the other, a batch each. True when all went; else one write failed, and was done
 * again after the books were looked at. */
static bool move_all(struct kx_kv *kv, unsigned items)
{
	bool clean = true;

	for (unsigned i = 0; i < items; i++) {
		KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
		struct kx_error error = {0};

		assert_int_equal(kx_kv_batch_new(kv, &batch), KX_OK);
		kx_kv_batch_delete(batch, FAMILY_A, &i, sizeof(i));
		kx_kv_batch_put(batch, FAMILY_B, &i, sizeof(i), "moved", 5);
		if (kx_kv_write(kv, batch, true, &error)) {
			struct kx_buf out = {.max = 16};

			assert_int_equal(error.status, KX_EFULL);
			assert_int_equal(kx_kv_get(kv, FAMILY_A, &i, sizeof(i), &out, NULL), KX_OK);
			assert_int_equal(kx_kv_get(kv, FAMILY_B, &i, sizeof(i), &out, NULL), KX_ENOTFOUND);
			kx_buf_done(&out);
			assert_int_equal(kx_kv_batch_count(batch), 2);
			assert_int_equal(kx_kv_write(kv, batch, true, &error), KX_OK);
			clean = false;
		}
	}
	return clean;
}

static unsigned keys_in(struct kx_kv *kv, size_t family)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	unsigned count = 0;

	assert_int_equal(kx_kv_iter_new(kv, family, NULL, 0, &iter), KX_OK);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter))
		count++;
	assert_int_equal(kx_kv_iter_error(iter, NULL), KX_OK);
	return count;
}

static void any_write_may_fail(void **state)
{
	enum { ITEMS = 12 };
	struct test_store *store = *state;
	bool clean = false;

	test_store_open(store);
	for (uint64_t nth = 1; !clean; nth++) {
		KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;

		assert_true(nth <= ITEMS + 1);
		assert_int_equal(kx_kv_batch_new(store->kv, &batch), KX_OK);
		for (unsigned i = 0; i < ITEMS; i++) {
			kx_kv_batch_put(batch, FAMILY_A, &i, sizeof(i), "here", 4);
			kx_kv_batch_delete(batch, FAMILY_B, &i, sizeof(i));
		}
		assert_int_equal(kx_kv_write(store->kv, batch, true, NULL), KX_OK);
		kx_fault_arm("kv.write", nth);
		clean = move_all(store->kv, ITEMS);
		kx_fault_clear();
		test_store_reopen(store);
		assert_int_equal(keys_in(store->kv, FAMILY_A), 0);
		assert_int_equal(keys_in(store->kv, FAMILY_B), ITEMS);
	}
}

static kx_status put_in_bulk(struct kx_kv *kv, unsigned items, size_t len)
{
	KX_CLEANUP(kx_cleanup_free) uint8_t *value = calloc(1, len);
	KX_CLEANUP(kx_kv_bulk_cleanup) struct kx_kv_bulk *bulk = NULL;
	kx_status status = kx_kv_bulk_new(kv, FAMILY_B, &bulk, NULL);

	assert_non_null(value);
	for (unsigned i = 0; !status && i < items; i++) {
		uint8_t key[2] = {(uint8_t)(i >> 8), (uint8_t)i};

		status = kx_kv_bulk_put(bulk, key, sizeof(key), value, len, NULL);
	}
	return status ? status : kx_kv_bulk_finish(bulk, NULL);
}

static void any_step_of_a_bulk_may_fail(void **state)
{
	struct test_store *store = *state;
	kx_status status = KX_EFULL;

	test_store_open(store);
	for (uint64_t nth = 1; status; nth++) {
		assert_true(nth < 10);
		kx_fault_arm("kv.write", nth);
		status = put_in_bulk(store->kv, 100, 10);
		kx_fault_clear();
		assert_int_equal(keys_in(store->kv, FAMILY_B), status ? 0 : 100);
		test_store_reopen(store);
		assert_int_equal(keys_in(store->kv, FAMILY_B), status ? 0 : 100);
		assert_int_equal(kx_kv_verify(store->kv, NULL), KX_OK);
	}
}

static void injected_failures_are_reported(void **state)
{
	struct test_store *store = *state;
	struct kx_kv_options options = test_store_options();
	struct kx_buf out = {.max = 16};
	struct kx_error error = {0};

	kx_fault_arm("kv.open", 1);
	assert_int_equal(kx_kv_open(store->path, &options, &store->kv, &error), KX_EIO);
	test_store_open(store);
	kx_fault_arm("kv.read", 1);
	assert_int_equal(kx_kv_get(store->kv, FAMILY_A, "k", 1, &out, &error), KX_EIO);
	assert_non_null(strstr(error.message, store->path));
}

/* The path of the largest table file. */
static char *largest_table(const char *folder)
{
	DIR *dir = opendir(folder);
	char *largest = NULL;
	off_t size = -1;

	assert_non_null(dir);
	for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
		char *path = kx_fs_join(folder, entry->d_name);
		struct stat info;

		assert_non_null(path);
		if (kx_str_ends(path, ".sst") && !stat(path, &info) && info.st_size > size) {
			free(largest);
			largest = path;
			size = info.st_size;
		} else {
			free(path);
		}
	}
	(void)closedir(dir);
	assert_non_null(largest);
	return largest;
}

static void flip_a_byte(const char *path, off_t at)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x40;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	(void)close(fd);
}

static void make_tables(struct test_store *store)
{
	test_store_open(store);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(test_store_put(store->kv, i, 10000, NULL), KX_OK);
	assert_int_equal(kx_kv_flush(store->kv, NULL), KX_OK);
}

static void verify_finds_a_flipped_byte(void **state)
{
	struct test_store *store = *state;
	KX_CLEANUP(kx_cleanup_free) char *table = NULL;
	struct kx_error error = {0};

	make_tables(store);
	assert_int_equal(test_store_count(store->kv), 20);
	assert_true(test_store_has(store->kv, 10)); /* now cached */
	assert_int_equal(kx_kv_verify(store->kv, &error), KX_OK);
	table = largest_table(store->path);
	flip_a_byte(table, 100000);
	assert_int_equal(kx_kv_verify(store->kv, &error), KX_ECORRUPT);
	assert_non_null(strstr(error.message, store->path));

	test_store_reopen(store);
	assert_int_equal(kx_kv_verify(store->kv, &error), KX_ECORRUPT);
	flip_a_byte(table, 100000);
	assert_int_equal(kx_kv_verify(store->kv, &error), KX_OK);
}

static void reading_finds_a_flipped_byte(void **state)
{
	struct test_store *store = *state;
	KX_CLEANUP(kx_cleanup_free) char *table = NULL;
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	struct kx_error error = {0};

	make_tables(store);
	table = largest_table(store->path);
	kx_kv_close(KX_STEAL(store->kv));
	flip_a_byte(table, 100000);
	test_store_open(store);
	for (size_t family = 0; family < FAMILIES && !error.status; family++) {
		kx_kv_iter_free(KX_STEAL(iter));
		assert_int_equal(kx_kv_iter_new(store->kv, family, NULL, 0, &iter), KX_OK);
		while (kx_kv_iter_valid(iter))
			kx_kv_iter_next(iter);
		(void)kx_kv_iter_error(iter, &error);
	}
	assert_int_equal(error.status, KX_ECORRUPT);
}

/* The newest file of the write-ahead log. */
static char *find_log(const char *folder)
{
	DIR *dir = opendir(folder);
	char *found = NULL;

	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));) {
		if (!kx_str_ends(entry->d_name, ".log"))
			continue;
		free(found);
		found = kx_fs_join(folder, entry->d_name);
	}
	(void)closedir(dir);
	assert_non_null(found);
	return found;
}

/* What was acknowledged and lies in the log only must not go missing without a word. */
static void rot_in_the_log_is_refused(void **state)
{
	struct test_store *store = *state;
	struct kx_kv_options options = test_store_options();
	struct kx_error error = {0};
	struct kx_kv *kv = NULL;
	char *log;

	test_store_open(store);
	for (unsigned number = 0; number < 10; number++)
		assert_int_equal(test_store_put(store->kv, number, 1000, NULL), KX_OK);
	kx_kv_close(KX_STEAL(store->kv));
	log = find_log(store->path);
	flip_a_byte(log, 5000);
	assert_int_equal(kx_kv_open(store->path, &options, &kv, &error), KX_ECORRUPT);
	assert_non_null(strstr(error.message, store->path));
	flip_a_byte(log, 5000);
	test_store_open(store);
	assert_int_equal(test_store_count(store->kv), 10);
	free(log);
}

/* A crash in the middle of a write leaves a torn tail, which was never acknowledged. */
static void torn_tail_of_the_log_is_dropped(void **state)
{
	struct test_store *store = *state;
	struct stat st;
	char *log;

	test_store_open(store);
	for (unsigned number = 0; number < 10; number++)
		assert_int_equal(test_store_put(store->kv, number, 1000, NULL), KX_OK);
	kx_kv_close(KX_STEAL(store->kv));
	log = find_log(store->path);
	assert_int_equal(stat(log, &st), 0);
	assert_int_equal(truncate(log, st.st_size - 20), 0);
	test_store_open(store);
	assert_int_equal(test_store_count(store->kv), 9);
	free(log);
}

static void damaged_stores_are_refused(void **state)
{
	struct test_store *store = *state;
	struct kx_kv_options options = test_store_options();
	KX_CLEANUP(kx_cleanup_free) char *table = NULL;
	KX_CLEANUP(kx_cleanup_free) char *current = kx_fs_join(store->path, "CURRENT");
	struct kx_error error = {0};

	make_tables(store);
	table = largest_table(store->path);
	kx_kv_close(KX_STEAL(store->kv));
	assert_int_equal(unlink(table), 0);
	assert_int_equal(kx_kv_open(store->path, &options, &store->kv, &error), KX_ECORRUPT);
	options.read_only = true;
	assert_int_equal(kx_kv_open(store->path, &options, &store->kv, &error), KX_ECORRUPT);
	options.read_only = false;
	assert_int_equal(kx_fs_write(current, "junk", 4, &error), KX_OK);
	assert_int_equal(kx_kv_open(store->path, &options, &store->kv, &error), KX_ECORRUPT);
	assert_non_null(strstr(error.message, store->path));
}

/* Mounts a file system of its own of this size on folder, for this process alone. */
static bool mount_small(const char *folder, const char *size)
{
	KX_CLEANUP(kx_cleanup_free) char *options = kx_strf("size=%s", size);

	if (geteuid() != 0 && unshare(CLONE_NEWUSER))
		return false;
	if (!options || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return false;
	return mount("none", folder, "tmpfs", 0, options) == 0;
}

static void fill_disk(const char *folder)
{
	static const uint8_t zeroes[4096];
	KX_CLEANUP(kx_cleanup_free) char *path = kx_strf("%s" BALLAST, folder);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	while (write(fd, zeroes, sizeof(zeroes)) > 0)
		continue;
	(void)close(fd);
}

static void make_room(const char *folder)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_strf("%s" BALLAST, folder);

	assert_int_equal(unlink(path), 0);
}

static unsigned write_until_full(struct kx_kv *kv, unsigned from)
{
	struct kx_error error = {0};

	while (!test_store_put(kv, from, 20000, &error))
		from++;
	assert_int_equal(error.status, KX_EFULL);
	assert_int_equal(error.class, KX_ERROR_FATAL);
	return from;
}

/* The disk fills up; the store is opened again, on the full disk if that goes, else after there is room. */
static int child_full(const char *folder)
{
	struct test_store store = {0};
	struct kx_kv_options options = test_store_options();
	struct kx_error error = {0};
	unsigned written;

	if (!mount_small(folder, "3m"))
		return EXIT_SKIPPED;
	(void)snprintf(store.path, sizeof(store.path), "%s/store", folder);
	test_store_open(&store);
	written = write_until_full(store.kv, 0);
	assert_true(written > 10);
	assert_int_equal(test_store_put(store.kv, written, 20000, &error), KX_EFULL); /* and stays so */
	assert_int_equal(put_in_bulk(store.kv, 300, 20000), KX_EFULL);
	assert_int_equal(test_store_count(store.kv), written);
	assert_int_equal(kx_kv_verify(store.kv, &error), KX_OK);
	kx_kv_close(KX_STEAL(store.kv));

	if (kx_kv_open(store.path, &options, &store.kv, &error) == KX_OK) {
		assert_int_equal(test_store_count(store.kv), written);
		kx_kv_close(KX_STEAL(store.kv));
	} else {
		assert_int_equal(error.status, KX_EFULL);
	}
	assert_int_equal(mount(NULL, folder, NULL, MS_REMOUNT, "size=32m"), 0);
	test_store_open(&store);
	assert_int_equal(test_store_put(store.kv, written, 20000, &error), KX_OK);
	assert_int_equal(test_store_count(store.kv), written + 1);
	assert_int_equal(kx_kv_verify(store.kv, &error), KX_OK);
	kx_kv_close(store.kv);
	return 0;
}

/* Somebody else fills the disk, and makes room again: the same handle writes on. */
static int child_room(const char *folder)
{
	struct test_store store = {0};
	struct kx_error error = {0};
	uint64_t deadline;

	if (!mount_small(folder, "8m"))
		return EXIT_SKIPPED;
	(void)snprintf(store.path, sizeof(store.path), "%s/store", folder);
	test_store_open(&store);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(test_store_put(store.kv, i, 20000, &error), KX_OK);
	fill_disk(folder);
	assert_int_equal(kx_kv_flush(store.kv, &error), KX_EFULL);
	assert_int_equal(test_store_count(store.kv), 5);
	make_room(folder);
	deadline = kx_clock_mono_us() + 120 * 1000000;
	while (test_store_put(store.kv, 5, 20000, &error) && kx_clock_mono_us() < deadline)
		(void)usleep(50000); /* RocksDB looks for room every 5 s */
	for (unsigned i = 6; i < 50; i++)
		assert_int_equal(test_store_put(store.kv, i, 20000, &error), KX_OK);
	test_store_reopen(&store);
	assert_int_equal(test_store_count(store.kv), 50);
	assert_int_equal(kx_kv_verify(store.kv, &error), KX_OK);
	kx_kv_close(store.kv);
	return 0;
}

static void run_on_small_disk(struct test_store *store, const char *name)
{
	int output;
	int pid = test_store_spawn(name, store->folder, &output);
	char text[1024];
	ssize_t len;
	int status;

	while ((len = read(output, text, sizeof(text))) > 0)
		print_message("%.*s", (int)len, text);
	(void)close(output);
	status = test_store_wait(pid);
	if (status == EXIT_SKIPPED) {
		print_message("no right to mount a small disk here\n");
		skip();
	}
	assert_int_equal(status, 0);
}

static void full_disk_leaves_a_good_store(void **state)
{
	run_on_small_disk(*state, "full");
}

static void goes_on_when_there_is_room(void **state)
{
	run_on_small_disk(*state, "room");
}

static int run_child(const char *name, const char *path)
{
	if (kx_str_eq(name, "write"))
		return child_write(path);
	return kx_str_eq(name, "full") ? child_full(path) : child_room(path);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(killed_writer_keeps_what_it_acknowledged, test_store_setup,
						test_store_teardown),
		cmocka_unit_test_setup_teardown(readers_see_whole_batches, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(any_write_may_fail, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(any_step_of_a_bulk_may_fail, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(injected_failures_are_reported, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(verify_finds_a_flipped_byte, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(reading_finds_a_flipped_byte, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(rot_in_the_log_is_refused, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(torn_tail_of_the_log_is_dropped, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(damaged_stores_are_refused, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(full_disk_leaves_a_good_store, test_store_setup, test_store_teardown),
		cmocka_unit_test_setup_teardown(goes_on_when_there_is_room, test_store_setup, test_store_teardown),
	};

	if (argc == 4 && kx_str_eq(argv[1], "--child"))
		return run_child(argv[2], argv[3]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
