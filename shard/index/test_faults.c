/* The index when things go wrong: any write, read or file operation fails, the disk is full. After each failure the store
 * opens, verify finds nothing, and what was acknowledged is there. */
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "shard/index/testkit.h"

#define DIM 16u
#define FIRST 170u /* rows that are there before anything fails */
#define NUMBERS 400u
#define EXIT_SKIPPED 77

static void check(kx_status status, const struct kx_error *error)
{
	if (status)
		fail_msg("%s: %s", kx_status_name(status), error->message);
}

static void vector_of(uint32_t number, float *ret)
{
	uint64_t random = number + 1;

	kx_kit_vector(&random, DIM, 6, ret);
}

/* What should be there; where a commit failed, either. */
struct expected {
	bool has[NUMBERS];
	bool either[NUMBERS];
	bool built; /* all of another space, at once */
};

#define BUILT 200u

static uint32_t open_space(struct kx_kit_index *kit)
{
	struct kx_error error = {0};
	uint32_t space;

	check(kx_kit_index_open(kit, &error), &error);
	check(kx_index_space(kit->index, "a", DIM, KX_METRIC_COSINE, &space, &error), &error);
	return space;
}

static bool set(struct kx_kit_index *kit, struct expected *expected, uint32_t number, bool there)
{
	float vector[DIM];

	vector_of(number, vector);
	if (kx_kit_put(kit, 0, number, there ? vector : NULL, DIM, NULL)) {
		expected->either[number] = true;
		return false;
	}
	expected->has[number] = there;
	expected->either[number] = false;
	return true;
}

/* From `from` up to `to`, in one commit. */
static bool set_many(struct kx_kit_index *kit, struct expected *expected, uint32_t from, uint32_t to, bool there)
{
	struct kx_index_change changes[NUMBERS] = {0};
	float vectors[NUMBERS][DIM];
	char keys[NUMBERS][16];
	uint32_t count = 0;
	kx_status status;

	for (uint32_t i = from; i < to; i++, count++) {
		vector_of(i, vectors[count]);
		changes[count] = (struct kx_index_change){.key = keys[count], .vector = there ? vectors[count] : NULL, .dim = DIM};
		changes[count].key_len = (size_t)snprintf(keys[count], sizeof(keys[count]), "v%u", i);
	}
	status = kx_index_commit(kit->index, changes, count, NULL);
	for (uint32_t i = from; i < to; i++) {
		expected->either[i] = status != KX_OK;
		expected->has[i] = status ? expected->has[i] : there;
	}
	return status == KX_OK;
}

/* All of it or nothing. */
static void expect_built(struct kx_kit_index *kit, bool built)
{
	struct kx_index_space_info info;
	uint32_t space;

	if (kx_index_find_space(kit->index, "built", &space, NULL))
		return;
	assert_int_equal(kx_index_space_info(kit->index, space, &info, NULL), KX_OK);
	assert_true(info.rows == BUILT || (!built && info.rows == 0));
}

static void expect(struct kx_kit_index *kit, const struct expected *expected)
{
	struct kx_index_hits hits = {0};
	struct kx_error error = {0};
	float vector[DIM];
	struct kx_index_query query = {.vector = vector, .dim = DIM, .k = 1, .recall = 1};

	for (uint32_t i = 0; i < NUMBERS; i++) {
		char key[16];
		size_t len = (size_t)snprintf(key, sizeof(key), "v%u", i);
		bool has = kx_index_get(kit->index, 0, key, len, NULL, NULL, NULL, NULL) == KX_OK;

		assert_true(expected->either[i] || has == expected->has[i]);
		if (!has || i % 5)
			continue;
		vector_of(i, vector);
		check(kx_index_search(kit->index, 0, &query, &hits, &error), &error);
		assert_int_equal(hits.count, 1);
		assert_int_equal(kx_kit_number(&hits.list[0]), i);
	}
	kx_index_hits_done(&hits);
	expect_built(kit, expected->built);
}

/* What is tried while the nth pass of a point fails; false when something of it failed. */
typedef bool (*attempt)(struct kx_kit_index *kit, struct expected *expected);

static bool insert(struct kx_kit_index *kit, struct expected *expected)
{
	bool whole = true;

	for (uint32_t i = FIRST; i < FIRST + 8; i++)
		whole = set(kit, expected, i, true) && whole;
	return whole;
}

static bool update_and_delete(struct kx_kit_index *kit, struct expected *expected)
{
	bool whole = true;

	for (uint32_t i = 0; i < 8; i++)
		whole = set(kit, expected, i, i % 2) && whole;
	return whole;
}

static bool maintain(struct kx_kit_index *kit)
{
	uint32_t done;

	return kx_index_maintain(kit->index, UINT32_MAX, &done, NULL) == KX_OK;
}

static bool fold(struct kx_kit_index *kit, struct expected *expected)
{
	(void)expected;
	return kx_index_fold_all(kit->index, NULL) == KX_OK;
}

static bool grow_and_split(struct kx_kit_index *kit, struct expected *expected)
{
	bool whole = true;

	for (uint32_t i = FIRST; i < FIRST + 120; i += 40) {
		whole = set_many(kit, expected, i, i + 40, true) && whole;
		whole = maintain(kit) && whole;
	}
	return whole;
}

static bool shrink_and_merge(struct kx_kit_index *kit, struct expected *expected)
{
	bool whole = true;

	for (uint32_t i = 0; i < FIRST; i += 16)
		whole = set_many(kit, expected, i, i + 15, false) && whole;
	return maintain(kit) && whole;
}

static bool retrain(struct kx_kit_index *kit, struct expected *expected)
{
	(void)expected;
	return kx_index_retrain(kit->index, 0, NULL) == KX_OK;
}

static void built_row(void *ctx, size_t i, struct kx_index_change *ret)
{
	char *key = ctx;

	ret->key = key;
	ret->key_len = (size_t)snprintf(key, 16, "v%zu", i);
}

static bool build(struct kx_kit_index *kit, struct expected *expected)
{
	float vectors[BUILT][DIM];
	char key[16];
	struct kx_index_build build = {.count = BUILT, .vectors = vectors[0], .row = built_row, .row_ctx = key};

	for (uint32_t i = 0; i < BUILT; i++)
		vector_of(i, vectors[i]);
	if (kx_index_space(kit->index, "built", DIM, KX_METRIC_COSINE, &build.space, NULL))
		return false;
	expected->built = kx_index_build(kit->index, &build, NULL) == KX_OK;
	return expected->built;
}

static bool reopen(struct kx_kit_index *kit, struct expected *expected)
{
	bool whole;

	(void)expected;
	kx_kit_index_close(kit);
	whole = kx_kit_index_open(kit, NULL) == KX_OK;
	if (!whole)
		(void)open_space(kit); /* the failure was the only one */
	return maintain(kit) && whole;
}

static bool checkpoint(struct kx_kit_index *kit, struct expected *expected)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_strf("%s/copy", kit->folder);

	(void)expected;
	(void)!kx_fs_remove_tree(path, NULL);
	return kx_index_checkpoint(kit->index, path, NULL) == KX_OK;
}

static void fill(struct kx_kit_index *kit, struct expected *expected)
{
	memset(expected, 0, sizeof(*expected));
	(void)open_space(kit);
	assert_true(set_many(kit, expected, 0, FIRST, true));
	assert_true(maintain(kit));
	assert_true(set_many(kit, expected, 0, 20, true)); /* some changes that are not folded */
}

/* Fails the nth pass, looks on without opening anew, then opens anew, also as after a crash: without the file. */
static bool fail_nth(const char *point, uint64_t nth, attempt try)
{
	struct expected expected;
	struct kx_kit_index kit;
	bool whole;

	kx_kit_index_init(&kit);
	fill(&kit, &expected);
	kx_fault_arm(point, nth);
	whole = try(&kit, &expected);
	kx_fault_clear();
	if (kit.index) {
		kx_kit_verify(&kit);
		expect(&kit, &expected);
		assert_true(maintain(&kit));
	}
	kx_kit_index_close(&kit);
	if (nth % 2)
		(void)!kx_fs_remove_tree(kit.dir, NULL);
	(void)open_space(&kit);
	expect(&kit, &expected);
	assert_true(maintain(&kit));
	kx_kit_verify(&kit);
	kx_kit_index_done(&kit);
	return whole;
}

static void fail_each(const char *point, attempt try, uint64_t step)
{
	bool whole = false;

	for (uint64_t nth = 1; !whole; nth += step) {
		assert_true(nth < 5000);
		whole = fail_nth(point, nth, try);
	}
}

static void any_write_may_fail(void **state)
{
	(void)state;
	fail_each("kv.write", insert, 2);
	fail_each("kv.write", update_and_delete, 3);
	fail_each("kv.write", fold, 1);
	fail_each("kv.write", retrain, 1);
	fail_each("kv.write", build, 1);
	fail_each("kv.write", checkpoint, 1);
	fail_each("kv.write", grow_and_split, 13);
	fail_each("kv.write", shrink_and_merge, 23);
}

static void any_file_operation_may_fail(void **state)
{
	(void)state;
	fail_each("index.file", insert, 1);
	fail_each("index.file", fold, 1);
	fail_each("index.file", retrain, 1);
	fail_each("index.file", build, 2);
	fail_each("index.file", checkpoint, 1);
	fail_each("index.file", reopen, 2);
	fail_each("index.file", grow_and_split, 3);
}

static void any_read_may_fail(void **state)
{
	(void)state;
	fail_each("kv.read", insert, 7);
	fail_each("kv.read", fold, 13);
	fail_each("kv.read", reopen, 19);
	fail_each("kv.read", retrain, 23);
}

/* Memory: the index may say that it must be opened anew, and then it must be right. */
static void fail_memory(const char *point, attempt try, uint64_t step)
{
	bool whole = false;

	for (uint64_t nth = 1; !whole; nth += step) {
		struct expected expected;
		struct kx_kit_index kit;

		assert_true(nth < 5000);
		kx_kit_index_init(&kit);
		fill(&kit, &expected);
		kx_fault_arm(point, nth);
		whole = try(&kit, &expected);
		kx_fault_clear();
		kx_kit_index_close(&kit);
		(void)open_space(&kit);
		expect(&kit, &expected);
		assert_true(maintain(&kit));
		kx_kit_verify(&kit);
		kx_kit_index_done(&kit);
	}
}

static void memory_may_run_out(void **state)
{
	(void)state;
	fail_memory("ann.cell", insert, 1);
	fail_memory("ann.cell", grow_and_split, 9);
	fail_memory("ann.grow", grow_and_split, 2);
	fail_memory("ann.cell", retrain, 5);
	fail_memory("ann.cell", build, 37);
}

/* --- A full disk ---------------------------------------------------------------------------------------------- */

static bool mount_small(const char *folder, const char *size)
{
	KX_CLEANUP(kx_cleanup_free) char *options = kx_strf("size=%s", size);

	if (geteuid() != 0 && unshare(CLONE_NEWUSER))
		return false;
	if (!options || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return false;
	return mount("none", folder, "tmpfs", 0, options) == 0;
}

static int child_full(void)
{
	struct expected expected = {0};
	struct kx_kit_index kit;
	float vector[DIM];
	char attributes[4000];
	uint32_t put = 0;
	kx_status status = KX_OK;

	kx_kit_index_init(&kit);
	if (!mount_small(kit.folder, "6m")) {
		kx_kit_index_done(&kit);
		return EXIT_SKIPPED;
	}
	(void)open_space(&kit);
	memset(attributes, 'x', sizeof(attributes));
	while (!status && put < 100000) {
		char key[16];
		struct kx_index_change change = {.key = key, .vector = vector, .dim = DIM};
		struct kx_error error = {0};

		vector_of(put, vector);
		for (size_t i = 0; i < sizeof(attributes); i++) /* that nothing compresses */
			attributes[i] = (char)(vector[i % DIM] * (float)i * 977.0f);
		change.attributes = attributes;
		change.attributes_len = sizeof(attributes);
		change.key_len = (size_t)snprintf(key, sizeof(key), "v%u", put);
		status = kx_index_commit(kit.index, &change, 1, &error);
		if (!status && put < NUMBERS)
			expected.has[put] = true;
		put += !status;
		(void)maintain(&kit);
	}
	assert_int_equal(status, KX_EFULL);
	assert_true(put > 100);
	expect(&kit, &expected);
	kx_kit_index_close(&kit);
	assert_int_equal(mount(NULL, kit.folder, NULL, MS_REMOUNT, "size=64m"), 0);
	(void)open_space(&kit);
	expect(&kit, &expected);
	assert_true(maintain(&kit));
	kx_kit_verify(&kit);
	for (uint32_t i = 0; i < 50; i++)
		assert_true(set(&kit, &expected, i, false));
	expect(&kit, &expected);
	kx_kit_index_close(&kit);
	(void)umount2(kit.folder, MNT_DETACH);
	kx_kit_index_done(&kit);
	return 0;
}

static void full_disk_leaves_a_good_index(void **state)
{
	pid_t pid;
	int status;

	(void)state;
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)execl("/proc/self/exe", "test_index_faults", "--full", (char *)NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == EXIT_SKIPPED)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_write_may_fail),
		cmocka_unit_test(any_file_operation_may_fail),
		cmocka_unit_test(any_read_may_fail),
		cmocka_unit_test(memory_may_run_out),
		cmocka_unit_test(full_disk_leaves_a_good_index),
	};

	if (argc == 2 && kx_str_eq(argv[1], "--full"))
		return child_full();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
