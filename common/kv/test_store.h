/* A store in a temporary folder, for the tests of this folder. */
#ifndef KX_KV_TEST_STORE_H
#define KX_KV_TEST_STORE_H

#include "common/kv/kv.h"

enum { FAMILY_A, FAMILY_B, FAMILIES };

struct test_store {
	char folder[96];
	char path[112]; /* folder/store */
	struct kx_kv *kv;
};

int test_store_setup(void **state);
int test_store_teardown(void **state);

struct kx_kv_options test_store_options(void); /* families "a" (compressed) and "b", small buffers, create */
void test_store_open(struct test_store *store);
void test_store_reopen(struct test_store *store);

/* The same value under the same key in both families, in one batch: they must never differ. */
kx_status test_store_put(struct kx_kv *kv, unsigned number, size_t value_len, struct kx_error *error);
/* How many keys both families hold; fails the test when they differ, or when a value is not its key's. */
unsigned test_store_count(struct kx_kv *kv);
bool test_store_has(struct kx_kv *kv, unsigned number);

/* Runs this program again with "--child NAME PATH" and gives its pid; *ret_pipe reads what it prints, of which it holds
 * TEST_STORE_PIPE_BYTES. Not fork alone: RocksDB's threads would be missing in the child. */
#define TEST_STORE_PIPE_BYTES 4096
int test_store_spawn(const char *name, const char *path, int *ret_pipe);
int test_store_wait(int pid); /* its exit status, or -signal */

#endif
