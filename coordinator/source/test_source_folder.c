/* Walks over folders and single files. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/str.h"
#include "coordinator/source/test_tree.h"

#define NOBODY 65534

static void sorts_bytewise_and_skips_hidden(void **state)
{
	(void)state;
	test_tree_write("films/b.mp4", "x");
	test_tree_write("films/a/z.mp4", "x");
	test_tree_write("films/a/B.mp4", "x");
	test_tree_write("films/a.mp4", "x");
	test_tree_write("films/\xc3\xa9.mp4", "x");
	test_tree_write("films/.hidden.mp4", "x");
	test_tree_write("films/.git/c.mp4", "x");
	test_tree_write("films/sub/deep/er/c.txt", "");
	assert_int_equal(mkdir("films/empty", 0777), 0);
	/* In each folder by name, so "a" with what is in it comes before "a.mp4". */
	test_tree_expect("films", "a/B.mp4\na/z.mp4\na.mp4\nb.mp4\nsub/deep/er/c.txt\n\xc3\xa9.mp4\n");
	test_tree_expect("films/empty", "");
	test_tree_expect("films/.git", "c.mp4\n");
}

static void paths_are_absolute_and_the_root_real(void **state)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
	struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = NULL;
	char *root KX_CLEANUP(kx_cleanup_free) = kx_strf("%s/films", (char *)*state);
	char *path KX_CLEANUP(kx_cleanup_free) = kx_strf("%s/sub/a.mp4", root);

	test_tree_write("films/sub/a.mp4", "x");
	assert_int_equal(symlink("films", "link"), 0);
	source = test_tree_open("./link/../link/");
	assert_string_equal(kx_source_root(source), root);
	assert_int_equal(kx_source_next(source, &item, NULL), KX_OK);
	assert_string_equal(item->video_id, "sub/a.mp4");
	assert_string_equal(item->path, path);
	assert_string_equal(item->title, "");
	assert_int_equal(item->label_count, 0);
	assert_true(kx_source_is_complete(source));
}

static void walks_the_file_system_root(void **state)
{
	(void)state;
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = test_tree_open("/");
	struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = NULL;

	assert_string_equal(kx_source_root(source), "/");
	assert_int_equal(kx_source_next(source, &item, NULL), KX_OK);
	assert_int_equal(item->path[0], '/');
	assert_true(item->path[1] != '/');
	assert_int_equal(item->video_id[0], item->path[1]);
}

static void odd_names_are_escaped(void **state)
{
	(void)state;
	test_tree_write("films/50% off.mp4", "x");
	test_tree_write("films/a\nb\x1b[31m\x7f.mp4", "x");
	test_tree_write("films/latin\xe9.mp4", "x");
	test_tree_write("films/c1\xc2\x9b.mp4", "x");
	test_tree_write("films/\xff\xfe/x.mp4", "x");
	test_tree_expect("films", "50%25 off.mp4\n"
				  "a%0Ab%1B[31m%7F.mp4\n"
				  "c1%C2%9B.mp4\n"
				  "latin%E9.mp4\n"
				  "%FF%FE/x.mp4\n");
}

static void links_and_loops(void **state)
{
	(void)state;
	test_tree_write("films/a/one.mp4", "x");
	test_tree_write("other/two.mp4", "x");
	assert_int_equal(symlink("..", "films/a/up"), 0);
	assert_int_equal(symlink(".", "films/self"), 0);
	assert_int_equal(symlink("../other", "films/there"), 0);
	assert_int_equal(symlink("../films", "other/back"), 0);
	assert_int_equal(symlink("../other/two.mp4", "films/file.mp4"), 0);
	assert_int_equal(symlink("nowhere", "films/dangling.mp4"), 0);
	assert_int_equal(symlink("round", "films/round"), 0);
	test_tree_expect("films", "a/one.mp4\n"
				  "dangling.mp4 not-found\n"
				  "file.mp4\n"
				  "round not-found\n"
				  "there/two.mp4\n");
}

static void no_files_are_named(void **state)
{
	(void)state;
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "films/socket"};
	int fd KX_CLEANUP(kx_cleanup_close) = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	test_tree_write("films/a.mp4", "x");
	assert_int_equal(mkfifo("films/pipe.mp4", 0666), 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(symlink("/dev/null", "films/device"), 0);
	test_tree_expect("films", "a.mp4\ndevice unsupported\npipe.mp4 unsupported\nsocket unsupported\n");
	test_tree_expect_error("films/pipe.mp4", KX_EINVAL,
			       "films/pipe.mp4: a source is a folder, a file or a manifest (.jsonl, .csv), and this is none");
}

/* Runs body as a user without rights, because root has all. */
static void as_nobody(const char *folder, void (*body)(void))
{
	int status;
	pid_t pid;

	assert_int_equal(chmod(folder, 0755), 0);
	(void)fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (geteuid() == 0 && setuid(NOBODY))
			_exit(99);
		body();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* cmocka's asserts jump out of a child, so here they exit. */
#define CHECK(what)                                                                       \
	do {                                                                              \
		if (!(what)) {                                                            \
			(void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);  \
			_exit(1);                                                         \
		}                                                                         \
	} while (0)

static void walk_without_rights(void)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
	char *walked KX_CLEANUP(kx_cleanup_free) = NULL;

	CHECK(kx_source_open("films", &source, NULL) == KX_OK);
	CHECK(kx_source_is_complete(source));
	walked = test_tree_walk(source);
	CHECK(kx_str_eq(walked, "a.mp4\nlocked no-permission\nz.mp4\n"));
	CHECK(!kx_source_is_complete(source)); /* what was indexed from locked may be there still */
}

static void an_unreadable_folder_is_an_item(void **state)
{
	test_tree_write("films/a.mp4", "x");
	test_tree_write("films/locked/b.mp4", "x");
	test_tree_write("films/z.mp4", "x");
	assert_int_equal(chmod("films/locked", 0), 0);
	as_nobody(*state, walk_without_rights);
	assert_int_equal(chmod("films/locked", 0700), 0);
}

static void walk_past_a_locked_file(void)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
	char *walked KX_CLEANUP(kx_cleanup_free) = NULL;

	CHECK(kx_source_open("films", &source, NULL) == KX_OK);
	walked = test_tree_walk(source);
	CHECK(kx_str_eq(walked, "a.mp4\nb.mp4 no-permission\nlist/c.mp4 no-permission\n"));
	CHECK(!kx_source_is_complete(source)); /* list/c.mp4 may be a folder */
}

static void open_locked(void)
{
	struct kx_source *source = NULL;
	struct kx_error error = {0};

	CHECK(kx_source_open("films/b.mp4", &source, &error) == KX_EPERM);
	CHECK(kx_str_eq(error.message, "films/b.mp4: Permission denied"));
	CHECK(kx_source_open("films/list/c.mp4", &source, &error) == KX_EPERM);
	CHECK(kx_source_open("locked", &source, &error) == KX_EPERM);
	CHECK(kx_str_eq(error.message, "locked: Permission denied"));
	CHECK(kx_source_open("locked.csv", &source, &error) == KX_EPERM);
	CHECK(kx_str_eq(error.message, "locked.csv: Permission denied"));
}

static void unreadable_files_are_items(void **state)
{
	test_tree_write("films/a.mp4", "x");
	test_tree_write("films/b.mp4", "x");
	test_tree_write("films/list/c.mp4", "x");
	test_tree_write("locked.csv", "id,path\n");
	assert_int_equal(chmod("films/b.mp4", 0), 0);
	assert_int_equal(chmod("films/list", 0644), 0);
	assert_int_equal(chmod("locked.csv", 0), 0);
	assert_int_equal(mkdir("locked", 0), 0);
	as_nobody(*state, walk_past_a_locked_file);
	as_nobody(*state, open_locked);
	assert_int_equal(chmod("films/list", 0755), 0);
}

/* Makes a chain of folders under parent and leaves the process in its last. */
static void descend(const char *parent, const char *name, unsigned levels)
{
	assert_int_equal(mkdir(parent, 0777), 0);
	assert_int_equal(chdir(parent), 0);
	for (unsigned i = 0; i < levels; i++) {
		assert_int_equal(mkdir(name, 0777), 0);
		assert_int_equal(chdir(name), 0);
	}
}

/* Takes down what descend() made from its end: as a path it is too long to be removed. */
static void ascend(const char *parent, const char *name, unsigned levels)
{
	assert_int_equal(chdir(parent), 0);
	for (unsigned i = 0; i < levels; i++)
		assert_int_equal(chdir(name), 0);
	for (unsigned i = 0; i < levels; i++) {
		assert_int_equal(chdir(".."), 0);
		assert_int_equal(rmdir(name), 0);
	}
}

static void too_deep_is_an_item(void **state)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
	char *walked KX_CLEANUP(kx_cleanup_free) = NULL;

	descend("films", "d", 200);
	test_tree_write("a.mp4", "x");
	assert_int_equal(chdir(*state), 0);
	test_tree_write("films/z.mp4", "x");
	source = test_tree_open("films");
	walked = test_tree_walk(source);
	assert_true(kx_str_starts(walked, "d/d/d/d/"));
	assert_true(kx_str_ends(walked, "/d unsupported\nz.mp4\n"));
	assert_int_equal(strlen(walked), 2 * 128 - 1 + strlen(" unsupported\nz.mp4\n"));
	assert_false(kx_source_is_complete(source));
}

static void too_long_is_an_item(void **state)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
	struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = NULL;
	char name[251];

	memset(name, '\xe9', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	descend("films", name, 20);
	assert_int_equal(chdir(*state), 0);
	source = test_tree_open("films");
	assert_int_equal(kx_source_next(source, &item, NULL), KX_OK);
	assert_int_equal(item->reason, KX_REASON_UNSUPPORTED);
	assert_non_null(strstr(item->message, "too long"));
	assert_in_range(strlen(item->path), 4096, 4096 + 256);
	/* Every byte of it is escaped, so the id was cut, at an escape. */
	assert_in_range(strlen(item->video_id), KX_ID_MAX - 3, KX_ID_MAX);
	assert_true(kx_str_starts(item->video_id, "%E9%E9"));
	assert_int_equal(item->video_id[strlen(item->video_id) - 65], '~');
	assert_int_equal(strspn(item->video_id, "%E9/") + 65, strlen(item->video_id));
	kx_source_item_free(KX_STEAL(item));
	assert_int_equal(kx_source_next(source, &item, NULL), KX_ENOTFOUND);
	assert_false(kx_source_is_complete(source));
	ascend("films", name, 20);
}

static void a_file_is_one_item(void **state)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
	struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = NULL;
	char *path KX_CLEANUP(kx_cleanup_free) = kx_strf("%s/films/link 100%%.mp4", (char *)*state);

	test_tree_write("films/a.mp4", "x");
	assert_int_equal(symlink("a.mp4", "films/link 100%.mp4"), 0);
	source = test_tree_open("films/../films/link 100%.mp4");
	assert_string_equal(kx_source_root(source), path);
	assert_false(kx_source_is_complete(source));
	assert_int_equal(kx_source_next(source, &item, NULL), KX_OK);
	assert_string_equal(item->video_id, "link 100%25.mp4");
	assert_string_equal(item->path, path);
	assert_int_equal(kx_source_next(source, &item, NULL), KX_ENOTFOUND);
	assert_int_equal(chdir("films"), 0);
	test_tree_expect("a.mp4", "a.mp4\n");
}

static void missing_sources_are_named(void **state)
{
	(void)state;
	test_tree_write("a.mp4", "x");
	test_tree_expect_error("nowhere", KX_ENOTFOUND, "nowhere: No such file or directory");
	test_tree_expect_error("nowhere.jsonl", KX_ENOTFOUND, "nowhere.jsonl: No such file or directory");
	test_tree_expect_error("", KX_ENOTFOUND, "a source with an empty name: No such file or directory");
	test_tree_expect_error("a.mp4/b", KX_EIO, "a.mp4/b: Not a directory");
}

static void a_folder_that_fails_is_an_item(void **state)
{
	(void)state;
	test_tree_write("films/a.mp4", "x");
	test_tree_write("films/b/c.mp4", "x");
	test_tree_write("films/d.mp4", "x");
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = test_tree_open("films");
	char *walked KX_CLEANUP(kx_cleanup_free) = NULL;

	/* films: five entries, with . and .., and the end; the seventh is the first in films/b. */
	kx_fault_arm("source.read", 7);
	walked = test_tree_walk(source);
	assert_string_equal(walked, "a.mp4\nb read-failed\nd.mp4\n");
	assert_false(kx_source_is_complete(source));
}

static void an_entry_that_fails_is_an_item(void **state)
{
	(void)state;
	test_tree_write("films/a.mp4", "x");
	test_tree_write("films/b.mp4", "x");
	kx_fault_arm("source.stat", 1);
	test_tree_expect("films", "a.mp4 read-failed\nb.mp4\n");
}

static void a_root_that_fails_ends_the_walk(void **state)
{
	test_tree_write("films/a.mp4", "x");
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = test_tree_open("films");
	struct kx_source_item *item = NULL;
	struct kx_error error = {0};
	char *expected KX_CLEANUP(kx_cleanup_free) =
		kx_strf("%s/films: reading the folder: Input/output error", (char *)*state);

	kx_fault_arm("source.read", 1);
	assert_int_equal(kx_source_next(source, &item, &error), KX_EIO);
	assert_string_equal(error.message, expected);
	assert_null(item);
}

static void a_lack_of_descriptors_ends_the_walk(void **state)
{
	(void)state;
	test_tree_write("films/a/b.mp4", "x");
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = test_tree_open("films");
	struct kx_source_item *item = NULL;
	struct kx_error error = {0};
	struct rlimit limit;
	struct rlimit none;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	kx_status status = kx_source_next(source, &item, &error);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(status, KX_EIO);
	assert_non_null(strstr(error.message, "Too many open files"));
}

static void every_allocation_may_fail(void **state)
{
	(void)state;
	test_tree_write("films/a/b.mp4", "x");
	test_tree_write("films/c.mp4", "x");
	assert_int_equal(symlink("nowhere", "films/d"), 0);
	bool clean = false;

	for (uint64_t nth = 1; !clean; nth++) {
		struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
		kx_status status;

		assert_true(nth < 1000);
		kx_fault_arm("str.alloc", nth);
		status = kx_source_open("films", &source, NULL);
		while (!status) {
			struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = NULL;

			status = kx_source_next(source, &item, NULL);
		}
		clean = status == KX_ENOTFOUND;
		assert_true(clean || status == KX_ENOMEM);
	}
}

int main(void)
{
#define WALK(test) cmocka_unit_test_setup_teardown(test, test_tree_setup, test_tree_teardown)
	const struct CMUnitTest tests[] = {
		WALK(sorts_bytewise_and_skips_hidden),
		WALK(paths_are_absolute_and_the_root_real),
		WALK(walks_the_file_system_root),
		WALK(odd_names_are_escaped),
		WALK(links_and_loops),
		WALK(no_files_are_named),
		WALK(an_unreadable_folder_is_an_item),
		WALK(unreadable_files_are_items),
		WALK(too_deep_is_an_item),
		WALK(too_long_is_an_item),
		WALK(a_file_is_one_item),
		WALK(missing_sources_are_named),
		WALK(a_folder_that_fails_is_an_item),
		WALK(an_entry_that_fails_is_an_item),
		WALK(a_root_that_fails_ends_the_walk),
		WALK(a_lack_of_descriptors_ends_the_walk),
		WALK(every_allocation_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
