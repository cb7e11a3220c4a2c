/* The ledger when things go wrong: failed writes, rotten bytes, a killed writer. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
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
#include "common/base/str.h"
#include "coordinator/ledger/test_ledger_kit.h"

static const struct {
	const char *id;
	enum kx_input_state state;
	uint8_t content;
} story[] = {
	{"a", KX_INPUT_PLANNED, 1},     {"a", KX_INPUT_DONE, 1},    {"b", KX_INPUT_QUARANTINED, 1},
	{"b", KX_INPUT_PLANNED, 1},     {"b", KX_INPUT_PARTIAL, 1}, {"a", KX_INPUT_DONE, 2},
	{"a", KX_INPUT_QUARANTINED, 2}, {"b", KX_INPUT_DELETED, 1}, {"a", KX_INPUT_DONE, 3},
};

/* 0: there is no such input. */
static int state_of(struct kx_ledger *ledger, const char *id)
{
	struct kx_input *input KX_CLEANUP(kx_input_cleanup) = NULL;
	kx_status status = kx_ledger_get(ledger, id, &input, NULL);

	assert_true(status == KX_OK || status == KX_ENOTFOUND);
	return input ? (int)input->state : 0;
}

static void any_write_may_fail(void **state)
{
	struct test_ledger *test = *state;

	for (uint64_t nth = 1; nth <= KX_ARRAY_LEN(story); nth++) {
		unsigned failed = 0;

		for (size_t i = 0; i < KX_ARRAY_LEN(story); i++) {
			struct kx_error error = {0};
			int before = state_of(test->ledger, story[i].id);

			if (i == 0)
				kx_fault_arm("kv.write", nth);
			if (test_put(test->ledger, story[i].id, story[i].state, story[i].content, &error)) {
				failed++;
				assert_int_equal(error.status, KX_EFULL);
				assert_int_equal(error.class, KX_ERROR_FATAL);
				assert_int_equal(state_of(test->ledger, story[i].id), before);
			} else {
				assert_int_equal(state_of(test->ledger, story[i].id), story[i].state);
			}
			(void)test_must_verify(test->ledger);
		}
		assert_int_equal(failed, 1);
		test_ledger_close(test);
		test_ledger_open(test, false);
		(void)test_must_verify(test->ledger);
	}
}

static void any_read_may_fail(void **state)
{
	struct test_ledger *test = *state;
	struct kx_input *input = NULL;
	struct kx_dead_letter *letter = NULL;
	uint64_t counts[KX_INPUT_DELETED + 1];

	test_must_put(test->ledger, "a", KX_INPUT_DONE, 1);
	kx_fault_arm("kv.read", 1);
	assert_int_equal(test_put(test->ledger, "a", KX_INPUT_DELETED, 1, NULL), KX_EIO);
	kx_fault_arm("kv.read", 1);
	assert_int_equal(kx_ledger_get(test->ledger, "a", &input, NULL), KX_EIO);
	kx_fault_arm("kv.read", 1);
	assert_int_equal(kx_ledger_get_dead(test->ledger, "a", &letter, NULL), KX_EIO);
	kx_fault_arm("kv.read", 1);
	assert_int_equal(kx_ledger_verify(test->ledger, counts, NULL), KX_EIO);
	assert_int_equal(state_of(test->ledger, "a"), KX_INPUT_DONE);
	assert_int_equal(test_must_verify(test->ledger), 1);
}

static void opening_may_fail(void **state)
{
	static const char *const points[] = {"kv.open", "kv.read", "kv.write"};
	struct test_ledger *test = *state;

	for (size_t i = 0; i < KX_ARRAY_LEN(points); i++) {
		struct kx_error error = {0};

		test_ledger_close(test);
		assert_int_equal(kx_fs_remove_tree(test->path, NULL), KX_OK);
		kx_fault_arm(points[i], 1);
		assert_true(kx_ledger_open(test->data_dir, false, &test->ledger, &error) != KX_OK);
		assert_non_null(strstr(error.message, test->data_dir));
		kx_fault_clear();
		test_ledger_open(test, false);
		assert_int_equal(test_must_verify(test->ledger), 0);
	}
}

/* The largest table file of the store; the caller frees. */
static char *largest_table(const char *folder, off_t *ret_size)
{
	DIR *dir KX_CLEANUP(kx_cleanup_closedir) = opendir(folder);
	char *largest = NULL;
	off_t size = -1;

	assert_non_null(dir);
	for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
		char *path = kx_fs_join(folder, entry->d_name);
		struct stat info;

		assert_non_null(path);
		if (kx_str_ends(path, ".sst") && !stat(path, &info) && info.st_size > size) {
			free(largest);
			largest = KX_STEAL(path);
			size = info.st_size;
		}
		free(path);
	}
	assert_non_null(largest);
	*ret_size = size;
	return largest;
}

static void flip_a_byte(const char *path, off_t at)
{
	int fd KX_CLEANUP(kx_cleanup_close) = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x40;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static void verify_finds_a_flipped_byte(void **state)
{
	struct test_ledger *test = *state;
	char *table KX_CLEANUP(kx_cleanup_free) = NULL;
	uint64_t counts[KX_INPUT_DELETED + 1];
	struct kx_error error = {0};
	off_t size;

	for (unsigned i = 0; i < 50; i++) {
		char id[16];

		(void)snprintf(id, sizeof(id), "video-%u", i);
		test_must_put(test->ledger, id, KX_INPUT_DONE, (uint8_t)(i + 1));
	}
	test_ledger_close(test);
	test_ledger_open(test, false); /* which moves the log's records to tables */
	assert_int_equal(test_must_verify(test->ledger), 50);
	table = largest_table(test->path, &size);
	flip_a_byte(table, size / 4);
	assert_int_equal(kx_ledger_verify(test->ledger, counts, &error), KX_ECORRUPT);
	assert_non_null(strstr(error.message, test->data_dir));
	flip_a_byte(table, size / 4);
	assert_int_equal(test_must_verify(test->ledger), 50);
}

/* Writes for ever; each number goes to stdout once it is in the ledger. */
static int child_write(const char *data_dir)
{
	struct kx_ledger *ledger = NULL;

	if (kx_ledger_open(data_dir, false, &ledger, NULL))
		return 1;
	for (unsigned number = 0;; number++) {
		char id[16];

		(void)snprintf(id, sizeof(id), "v%u", number);
		if (test_put(ledger, id, number % 3 ? KX_INPUT_DONE : KX_INPUT_QUARANTINED, (uint8_t)(1 + number % 5), NULL))
			return 2;
		if (write(STDOUT_FILENO, &number, sizeof(number)) != sizeof(number))
			return 3;
	}
}

/* This program again, as a writer: RocksDB's threads survive no fork. */
static pid_t spawn_writer(const char *data_dir, int *ret_pipe)
{
	int ends[2];
	pid_t pid;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)dup2(ends[1], STDOUT_FILENO);
		(void)execl("/proc/self/exe", "test_ledger_faults", "--child", data_dir, (char *)NULL);
		_exit(127);
	}
	(void)close(ends[1]);
	*ret_pipe = ends[0];
	return pid;
}

static void a_killed_writer_loses_nothing_it_acknowledged(void **state)
{
	struct test_ledger *test = *state;
	unsigned acknowledged = 0;
	unsigned number;
	int status;
	int output;
	pid_t pid;

	test_ledger_close(test);
	pid = spawn_writer(test->data_dir, &output);
	while (acknowledged < 100 && read(output, &number, sizeof(number)) == sizeof(number))
		acknowledged = number + 1;
	assert_int_equal(kill(pid, SIGKILL), 0);
	while (read(output, &number, sizeof(number)) == sizeof(number))
		acknowledged = number + 1;
	(void)close(output);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));

	assert_true(acknowledged >= 100);
	test_ledger_open(test, false);
	assert_in_range(test_must_verify(test->ledger), acknowledged, acknowledged + 1);
	for (unsigned i = 0; i < acknowledged; i++) {
		char id[16];

		(void)snprintf(id, sizeof(id), "v%u", i);
		assert_int_equal(state_of(test->ledger, id), i % 3 ? KX_INPUT_DONE : KX_INPUT_QUARANTINED);
	}
}

static void readers_of_a_writer_see_a_sum_that_is_right(void **state)
{
	struct test_ledger *test = *state;
	unsigned number;
	int output;
	pid_t pid;

	test_ledger_close(test);
	pid = spawn_writer(test->data_dir, &output);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(read(output, &number, sizeof(number)), sizeof(number));
		test_ledger_open(test, true);
		assert_true(test_must_verify(test->ledger) > number);
		test_ledger_close(test);
	}
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	(void)close(output);
}

int main(int argc, char **argv)
{
#define LEDGER(test) cmocka_unit_test_setup_teardown(test, test_ledger_setup, test_ledger_teardown)
	const struct CMUnitTest tests[] = {
		LEDGER(any_write_may_fail),
		LEDGER(any_read_may_fail),
		LEDGER(opening_may_fail),
		LEDGER(verify_finds_a_flipped_byte),
		LEDGER(a_killed_writer_loses_nothing_it_acknowledged),
		LEDGER(readers_of_a_writer_see_a_sum_that_is_right),
	};

	if (argc == 3 && kx_str_eq(argv[1], "--child"))
		return child_write(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
