/* A ledger in a temporary folder, for the tests of this folder. */
#ifndef KX_COORDINATOR_LEDGER_TEST_KIT_H
#define KX_COORDINATOR_LEDGER_TEST_KIT_H

#include "coordinator/ledger/ledger.h"

struct test_ledger {
	char data_dir[96];
	char path[112]; /* data_dir/ledger */
	struct kx_ledger *ledger;
};

int test_ledger_setup(void **state); /* opens one for writing */
int test_ledger_teardown(void **state);
void test_ledger_open(struct test_ledger *test, bool read_only);
void test_ledger_close(struct test_ledger *test);

/* An input and a letter with every field set; the id is the caller's. content 0: none. */
struct kx_input test_input(const char *id, enum kx_input_state state, uint8_t content);
struct kx_dead_letter test_letter(const char *id);

/* Puts such an input, with its letter where there must be one. */
kx_status test_put(struct kx_ledger *ledger, const char *id, enum kx_input_state state, uint8_t content,
		   struct kx_error *error);
/* The same, and fails the test when it fails. */
void test_must_put(struct kx_ledger *ledger, const char *id, enum kx_input_state state, uint8_t content);

/* Id of the input with this content, "" when there is none. The caller frees. */
char *test_by_content(struct kx_ledger *ledger, uint8_t content);

/* Verifies, or fails the test; *ret: how many inputs there are in all. */
uint64_t test_must_verify(struct kx_ledger *ledger);

#endif
