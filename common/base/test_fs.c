#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/macros.h"
#include "common/base/str.h"

static int enter_folder(void **state)
{
	char *folder = kx_strdup("/tmp/kx-fs-XXXXXX");

	if (!folder || !mkdtemp(folder) || chdir(folder))
		return -1;
	*state = folder;
	return 0;
}

static int leave_folder(void **state)
{
	kx_fault_clear();
	int failed = chdir("/") || kx_fs_remove_tree(*state, NULL) || kx_fs_exists(*state);
	free(*state);
	return failed ? -1 : 0;
}

static size_t count_entries(const char *path)
{
	DIR *dir KX_CLEANUP(kx_cleanup_closedir) = opendir(path);
	size_t count = 0;

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	return count - 2; /* . and .. */
}

static void write_text(const char *path, const char *text)
{
	struct kx_error error = {0};

	if (kx_fs_write(path, text, strlen(text), &error))
		fail_msg("%s", error.message);
}

static void writes_and_reads(void **state)
{
	(void)state;
	struct kx_error error = {0};
	struct kx_buf buf KX_CLEANUP(kx_buf_done) = {0};
	struct stat info;

	umask(027);
	write_text("f", "first");
	write_text("f", "second, longer");
	assert_int_equal(kx_fs_read("f", 14, &buf, &error), KX_OK);
	assert_string_equal((char *)buf.data, "second, longer");
	assert_int_equal(buf.len, 14);
	assert_int_equal(buf.max, 14);
	assert_int_equal(stat("f", &info), 0);
	assert_int_equal(info.st_mode & 0777, 0640);
	assert_int_equal(count_entries("."), 1);
}

static void reads_what_does_not_say_its_size(void **state)
{
	(void)state;
	struct kx_error error = {0};
	struct kx_buf buf KX_CLEANUP(kx_buf_done) = {0};

	assert_int_equal(kx_fs_read("/proc/self/status", 1 << 20, &buf, &error), KX_OK);
	assert_non_null(strstr((char *)buf.data, "Name:"));
	assert_int_equal(kx_fs_read("/proc/self/status", 10, &buf, &error), KX_ETOOBIG);
	assert_int_equal(kx_fs_read("/dev/zero", 100000, &buf, &error), KX_ETOOBIG);
	assert_int_equal(error.class, KX_ERROR_POISON);
}

static void reading_says_what_is_wrong(void **state)
{
	(void)state;
	struct kx_error error = {0};
	struct kx_buf buf = {0};

	write_text("f", "12345");
	write_text("empty", "");
	assert_int_equal(kx_fs_read("f", 4, &buf, &error), KX_ETOOBIG);
	assert_non_null(strstr(error.message, "f: larger than the 4 bytes"));
	assert_int_equal(kx_fs_read("none", 4, &buf, &error), KX_ENOTFOUND);
	assert_string_equal(error.message, "none: No such file or directory");
	assert_int_equal(kx_fs_read(".", 4, &buf, &error), KX_EIO);
	kx_fault_arm("fs.read", 1);
	assert_int_equal(kx_fs_read("f", 5, &buf, &error), KX_EIO);
	kx_fault_arm("buf.grow", 1);
	assert_int_equal(kx_fs_read("f", 5, &buf, &error), KX_ENOMEM);
	assert_null(buf.data);
	assert_int_equal(kx_fs_read("empty", 0, &buf, &error), KX_OK);
	assert_string_equal((char *)buf.data, "");
	kx_buf_done(&buf);
}

static void a_failed_write_leaves_the_old_file(void **state)
{
	(void)state;
	static const char *const POINTS[] = {"fs.write", "fs.fsync", "fs.rename"};

	write_text("f", "old");
	for (size_t i = 0; i < KX_ARRAY_LEN(POINTS); i++) {
		struct kx_error error = {0};
		struct kx_buf buf KX_CLEANUP(kx_buf_done) = {0};

		kx_fault_arm(POINTS[i], 1);
		assert_int_equal(kx_fs_write("f", "new", 3, &error), KX_EIO);
		assert_non_null(strstr(error.message, "f: writing"));
		assert_int_equal(kx_fs_read("f", 3, &buf, &error), KX_OK);
		assert_string_equal((char *)buf.data, "old");
		assert_int_equal(count_entries("."), 1);
	}
}

static void a_write_that_cannot_last_fails(void **state)
{
	(void)state;
	struct kx_error error = {0};

	assert_int_equal(kx_fs_write("none/f", "x", 1, &error), KX_ENOTFOUND);
	kx_fault_arm("fs.fsync", 2); /* the folder's */
	assert_int_equal(kx_fs_write("f", "x", 1, &error), KX_EIO);
	assert_non_null(strstr(error.message, "syncing its folder"));
}

static void makes_folders(void **state)
{
	(void)state;
	struct kx_error error = {0};
	char *absolute KX_CLEANUP(kx_cleanup_free) = kx_fs_join(*state, "x//y/");

	assert_int_equal(kx_fs_mkdirs("a/b/c", &error), KX_OK);
	assert_int_equal(kx_fs_mkdirs("a/b/c", &error), KX_OK);
	assert_true(kx_fs_exists("a/b/c"));
	assert_int_equal(kx_fs_mkdirs(absolute, &error), KX_OK);
	assert_true(kx_fs_exists("x/y"));
	write_text("file", "");
	assert_int_equal(kx_fs_mkdirs("file", &error), KX_EEXIST);
	assert_int_equal(kx_fs_mkdirs("file/sub", &error), KX_EEXIST);
	assert_int_equal(symlink("nowhere", "dangling"), 0);
	assert_int_not_equal(kx_fs_mkdirs("dangling", &error), KX_OK);
	assert_int_not_equal(kx_fs_mkdirs("", &error), KX_OK);
}

static void joins(void **state)
{
	(void)state;
	char *plain KX_CLEANUP(kx_cleanup_free) = kx_fs_join("a", "b");
	char *slash KX_CLEANUP(kx_cleanup_free) = kx_fs_join("/", "b");

	assert_string_equal(plain, "a/b");
	assert_string_equal(slash, "/b");
}

static void removes_links_not_what_they_show(void **state)
{
	(void)state;
	struct kx_error error = {0};

	assert_int_equal(kx_fs_mkdirs("keep", &error), KX_OK);
	write_text("keep/f", "x");
	assert_int_equal(kx_fs_mkdirs("tree/a/b", &error), KX_OK);
	write_text("tree/a/b/f", "x");
	assert_int_equal(symlink("../keep", "tree/link"), 0);
	assert_int_equal(symlink("nowhere", "tree/dangling"), 0);
	assert_int_equal(kx_fs_remove_tree("tree", &error), KX_OK);
	assert_false(kx_fs_exists("tree"));
	assert_true(kx_fs_exists("keep/f"));
	assert_int_equal(kx_fs_remove_tree("tree", &error), KX_OK);
	assert_int_equal(symlink("keep", "link"), 0);
	assert_int_equal(kx_fs_remove_tree("link", &error), KX_OK);
	assert_true(kx_fs_exists("keep/f"));
	assert_int_equal(count_entries("."), 1);
}

static void counts_bytes_on_disk(void **state)
{
	(void)state;
	static const char ZEROES[100000];
	struct kx_error error = {0};

	assert_int_equal(kx_fs_mkdirs("tree/a", &error), KX_OK);
	assert_int_equal(kx_fs_tree_bytes("tree"), 0);
	assert_int_equal(kx_fs_write("tree/a/f", ZEROES, sizeof(ZEROES), &error), KX_OK);
	uint64_t one = kx_fs_tree_bytes("tree");
	assert_true(one >= sizeof(ZEROES) && one < 3 * sizeof(ZEROES));
	assert_int_equal(symlink("f", "tree/a/link"), 0);
	assert_int_equal(kx_fs_tree_bytes("tree"), one);
	assert_int_equal(kx_fs_tree_bytes("none"), 0);
}

static void room_set_aside_is_not_counted(void **state)
{
	(void)state;
	struct kx_error error = {0};

	assert_int_equal(kx_fs_mkdirs("tree", &error), KX_OK);
	assert_int_equal(kx_fs_write("tree/log", "entry", 5, &error), KX_OK);
	uint64_t before = kx_fs_tree_bytes("tree");
	int fd = open("tree/log", O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 1 << 20) && errno == EOPNOTSUPP)
		skip();
	assert_int_equal(close(fd), 0);
	assert_int_equal(kx_fs_tree_bytes("tree"), before);
}

/* Another process tries. Its exit status is the status it got, negated. */
static int lock_in_child(const char *path, pid_t holder)
{
	char needle[64];
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		struct kx_error error = {0};
		int fd = -1;
		kx_status result = kx_fs_lock(path, &fd, &error);

		snprintf(needle, sizeof(needle), "in use by process %d", (int)holder);
		if (result && !strstr(error.message, needle))
			_exit(100);
		_exit(-result);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void one_process_holds_a_lock(void **state)
{
	(void)state;
	struct kx_error error = {0};
	int fd = -1;
	int second = -1;

	assert_false(kx_fs_is_locked("lock"));
	assert_int_equal(kx_fs_lock("lock", &fd, &error), KX_OK);
	assert_true(kx_fs_is_locked("lock"));
	assert_int_equal(lock_in_child("lock", getpid()), -KX_EBUSY);
	assert_int_equal(kx_fs_lock("lock", &second, &error), KX_EBUSY);
	assert_int_equal(error.class, KX_ERROR_FATAL);
	assert_int_equal(second, -1);
	assert_int_equal(ftruncate(fd, 0), 0); /* as if the holder had not got as far as writing its number */
	assert_int_equal(kx_fs_lock("lock", &second, &error), KX_EBUSY);
	assert_non_null(strstr(error.message, "in use by another process"));
	kx_cleanup_close(&fd);
	assert_false(kx_fs_is_locked("lock"));
	assert_int_equal(lock_in_child("lock", 0), 0);
	assert_int_equal(kx_fs_lock("none/lock", &fd, &error), KX_ENOTFOUND);
}

#define FOLDER_TEST(test) cmocka_unit_test_setup_teardown(test, enter_folder, leave_folder)

static void moving(void **state)
{
	static const char *const POINTS[] = {"fs.rename", "fs.fsync"};
	struct kx_error error = {0};

	(void)state;
	assert_int_equal(kx_fs_mkdirs("moved/inside", &error), KX_OK);
	assert_int_equal(kx_fs_mkdirs("full/inside", &error), KX_OK);
	for (size_t i = 0; i < KX_ARRAY_LEN(POINTS); i++) {
		kx_fault_arm(POINTS[i], 1);
		assert_int_equal(kx_fs_move("moved", "to", &error), KX_EIO);
		assert_true(kx_fs_exists("moved/inside"));
		assert_false(kx_fs_exists("to"));
	}
	assert_int_not_equal(kx_fs_move("moved", "full", &error), KX_OK);
	assert_int_equal(kx_fs_move("moved", "to", &error), KX_OK);
	assert_true(kx_fs_exists("to/inside"));
	assert_false(kx_fs_exists("moved"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FOLDER_TEST(writes_and_reads),
		FOLDER_TEST(reads_what_does_not_say_its_size),
		FOLDER_TEST(reading_says_what_is_wrong),
		FOLDER_TEST(a_failed_write_leaves_the_old_file),
		FOLDER_TEST(a_write_that_cannot_last_fails),
		FOLDER_TEST(makes_folders),
		FOLDER_TEST(moving),
		FOLDER_TEST(joins),
		FOLDER_TEST(removes_links_not_what_they_show),
		FOLDER_TEST(counts_bytes_on_disk),
		FOLDER_TEST(room_set_aside_is_not_counted),
		FOLDER_TEST(one_process_holds_a_lock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
