#include "common/kv/test_store.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/testkit.h"

#define VALUE_MAX (64 << 10)

static const struct kx_kv_family families[FAMILIES] = {{"a", true}, {"b", false}};

struct kx_kv_options test_store_options(void)
{
	return (struct kx_kv_options){
		.families = families,
		.family_count = FAMILIES,
		.create = true,
		.write_buffer_bytes = 512 << 10,
		.cache_bytes = 1 << 20,
	};
}

int test_store_setup(void **state)
{
	struct test_store *store = calloc(1, sizeof(*store));

	assert_non_null(store);
	(void)snprintf(store->folder, sizeof(store->folder), "%s/kx-kv-XXXXXX", kx_test_tmp());
	assert_non_null(mkdtemp(store->folder));
	(void)snprintf(store->path, sizeof(store->path), "%s/store", store->folder);
	*state = store;
	return 0;
}

int test_store_teardown(void **state)
{
	struct test_store *store = *state;
	struct kx_error error = {0};

	kx_fault_clear();
	kx_kv_close(store->kv);
	if (kx_fs_remove_tree(store->folder, &error))
		print_message("%s\n", error.message);
	free(store);
	return error.status;
}

void test_store_open(struct test_store *store)
{
	struct kx_kv_options options = test_store_options();
	struct kx_error error = {0};

	if (kx_kv_open(store->path, &options, &store->kv, &error))
		fail_msg("%s", error.message);
}

void test_store_reopen(struct test_store *store)
{
	kx_kv_close(store->kv);
	store->kv = NULL;
	test_store_open(store);
}

/* Bytes that zstd can't shrink, other for each number. */
static void fill(unsigned number, uint8_t *value, size_t len)
{
	uint32_t x = number * 2654435761u + 1;

	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		value[i] = (uint8_t)x;
	}
}

static void key_of(unsigned number, char key[16])
{
	(void)snprintf(key, 16, "%08u", number);
}

kx_status test_store_put(struct kx_kv *kv, unsigned number, size_t value_len, struct kx_error *error)
{
	static uint8_t value[VALUE_MAX];
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	char key[16];

	assert_true(value_len <= sizeof(value));
	fill(number, value, value_len);
	key_of(number, key);
	assert_int_equal(kx_kv_batch_new(kv, &batch), KX_OK);
	kx_kv_batch_put(batch, FAMILY_A, key, 8, value, value_len);
	kx_kv_batch_put(batch, FAMILY_B, key, 8, value, value_len);
	return kx_kv_write(kv, batch, true, error);
}

static void check_value(struct kx_kv_iter *iter)
{
	static uint8_t expected[VALUE_MAX];
	char number[9] = {0};
	size_t key_len, value_len;
	const void *key = kx_kv_iter_key(iter, &key_len);
	const void *value = kx_kv_iter_value(iter, &value_len);

	assert_int_equal(key_len, 8);
	memcpy(number, key, 8);
	assert_true(value_len <= sizeof(expected));
	fill((unsigned)strtoul(number, NULL, 10), expected, value_len);
	assert_memory_equal(value, expected, value_len);
}

static unsigned count_family(struct kx_kv *kv, size_t family)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	struct kx_error error = {0};
	unsigned count = 0;

	assert_int_equal(kx_kv_iter_new(kv, family, NULL, 0, &iter), KX_OK);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		check_value(iter);
		count++;
	}
	if (kx_kv_iter_error(iter, &error))
		fail_msg("%s", error.message);
	return count;
}

unsigned test_store_count(struct kx_kv *kv)
{
	unsigned a = count_family(kv, FAMILY_A);

	assert_int_equal(count_family(kv, FAMILY_B), a);
	return a;
}

bool test_store_has(struct kx_kv *kv, unsigned number)
{
	struct kx_buf value = {.max = VALUE_MAX};
	struct kx_error error = {0};
	kx_status status;
	char key[16];

	key_of(number, key);
	status = kx_kv_get(kv, FAMILY_B, key, 8, &value, &error);
	kx_buf_done(&value);
	if (status && status != KX_ENOTFOUND)
		fail_msg("%s", error.message);
	return status == KX_OK;
}

int test_store_spawn(const char *name, const char *path, int *ret_pipe)
{
	int ends[2];
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	assert_int_equal(fcntl(ends[0], F_SETPIPE_SZ, TEST_STORE_PIPE_BYTES), TEST_STORE_PIPE_BYTES);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)dup2(ends[1], STDOUT_FILENO);
		(void)close(ends[0]);
		(void)close(ends[1]);
		(void)execl("/proc/self/exe", "test_kv", "--child", name, path, (char *)NULL);
		_exit(127);
	}
	(void)close(ends[1]);
	*ret_pipe = ends[0];
	return pid;
}

int test_store_wait(int pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
