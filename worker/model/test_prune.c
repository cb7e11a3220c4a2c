#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/base/testkit.h"
#include "worker/model/prune.h"

#define NOW 1000000
#define DAY 86400
#define HASH "0123456789abcdef0123456789abcdef"

static int enter(void **state)
{
	char *folder = kx_strf("%s/kx-prune-XXXXXX", kx_test_tmp());

	if (!folder || !mkdtemp(folder) || chdir(folder))
		return -1;
	*state = folder;
	return 0;
}

static int leave(void **state)
{
	int failed = chdir("/") || kx_fs_remove_tree(*state, NULL);

	free(*state);
	return failed;
}

static void put(const char *name, size_t len, int64_t age_s)
{
	const struct timespec times[2] = {{.tv_sec = NOW - age_s}, {.tv_sec = NOW - age_s}};
	char *bytes = calloc(1, len);

	assert_non_null(bytes);
	assert_int_equal(kx_fs_write(name, bytes, len, NULL), KX_OK);
	assert_int_equal(utimensat(AT_FDCWD, name, times, 0), 0);
	free(bytes);
}

static void prune(uint64_t bytes_max)
{
	kx_cache_prune(".", &(struct kx_prune_limits){.bytes_max = bytes_max, .now_s = NOW, .unused_s = DAY});
}

static void longest_unused_go_first(void **state)
{
	(void)state;
	put("a-" HASH, 1000, 3 * DAY);
	put("b-c-" HASH, 1000, 5 * DAY);
	put("d-" HASH, 1000, 4 * DAY);
	prune(3000);
	assert_true(kx_fs_exists("b-c-" HASH));
	prune(2999);
	assert_false(kx_fs_exists("b-c-" HASH));
	assert_true(kx_fs_exists("a-" HASH) && kx_fs_exists("d-" HASH));
	prune(0);
	assert_false(kx_fs_exists("a-" HASH) || kx_fs_exists("d-" HASH));
}

static void what_is_in_use_stays(void **state)
{
	(void)state;
	put("a-" HASH, 1000, DAY - 1);
	put("b-" HASH, 1000, -DAY); /* a clock that went back */
	put("c-" HASH, 1000, DAY);
	put("d-" HASH ".XY12zz", 1000, DAY - 1); /* being written */
	put("e-" HASH ".XY12zz", 1000, DAY);     /* by somebody who was killed */
	prune(0);
	assert_true(kx_fs_exists("a-" HASH) && kx_fs_exists("b-" HASH) && kx_fs_exists("d-" HASH ".XY12zz"));
	assert_false(kx_fs_exists("c-" HASH) || kx_fs_exists("e-" HASH ".XY12zz"));
}

static void other_files_are_not_touched(void **state)
{
	static const char *const others[] = {"notes.txt", HASH, "a-" HASH "0", "a-0123456789ABCDEF0123456789abcdef",
					     "a-" HASH ".txt", "a-" HASH ".longer12", (".a-" HASH)};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(others); i++)
		put(others[i], 1000, 9 * DAY);
	assert_int_equal(mkdir("f-" HASH, 0700), 0);
	assert_int_equal(symlink("notes.txt", "l-" HASH), 0);
	prune(0);
	for (size_t i = 0; i < KX_ARRAY_LEN(others); i++)
		assert_true(kx_fs_exists(others[i]));
	assert_true(kx_fs_exists("f-" HASH) && kx_fs_exists("l-" HASH));
	kx_cache_prune("there/is/none", &(struct kx_prune_limits){.now_s = NOW});
}

static void who_has_it_mapped_keeps_it(void **state)
{
	int fd;
	const char *bytes;

	(void)state;
	put("a-" HASH, 5000, 2 * DAY);
	fd = open("a-" HASH, O_RDONLY | O_CLOEXEC);
	bytes = mmap(NULL, 5000, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_true(bytes != MAP_FAILED);
	close(fd);
	prune(0);
	assert_false(kx_fs_exists("a-" HASH));
	assert_int_equal(bytes[4999], 0);
	munmap((void *)(uintptr_t)bytes, 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(longest_unused_go_first, enter, leave),
		cmocka_unit_test_setup_teardown(what_is_in_use_stays, enter, leave),
		cmocka_unit_test_setup_teardown(other_files_are_not_touched, enter, leave),
		cmocka_unit_test_setup_teardown(who_has_it_mapped_keeps_it, enter, leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
