/* A temporary folder with sources in it, for the tests of this folder. The test runs inside it. */
#ifndef KX_COORDINATOR_SOURCE_TEST_TREE_H
#define KX_COORDINATOR_SOURCE_TEST_TREE_H

#include <stddef.h>

#include "coordinator/source/source.h"

int test_tree_setup(void **state);    /* *state: the folder's real path */
int test_tree_teardown(void **state);

/* path is relative; its folders are made. */
void test_tree_write(const char *path, const char *text);
void test_tree_write_bytes(const char *path, const void *bytes, size_t len);

/* Opens, or fails the test. */
struct kx_source *test_tree_open(const char *arg);
/* Walks to the end: a line "id reason" for each item, "id" alone without one. The caller frees. */
char *test_tree_walk(struct kx_source *source);
/* Opens, walks, compares. */
void test_tree_expect(const char *arg, const char *lines);
/* Opening fails with this status and message. */
void test_tree_expect_error(const char *arg, kx_status status, const char *message);

#endif
