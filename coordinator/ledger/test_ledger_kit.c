#include "coordinator/ledger/test_ledger_kit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/base/testkit.h"

static char *labels[] = {"cat", "big dog"};

int test_ledger_setup(void **state)
{
	struct test_ledger *test = calloc(1, sizeof(*test));

	assert_non_null(test);
	(void)snprintf(test->data_dir, sizeof(test->data_dir), "%s/kx-ledger-XXXXXX", kx_test_tmp());
	assert_non_null(mkdtemp(test->data_dir));
	(void)snprintf(test->path, sizeof(test->path), "%s/ledger", test->data_dir);
	test_ledger_open(test, false);
	*state = test;
	return 0;
}

int test_ledger_teardown(void **state)
{
	struct test_ledger *test = *state;
	struct kx_error error = {0};

	kx_fault_clear();
	kx_ledger_close(test->ledger);
	if (kx_fs_remove_tree(test->data_dir, &error))
		print_message("%s\n", error.message);
	free(test);
	return error.status;
}

void test_ledger_open(struct test_ledger *test, bool read_only)
{
	struct kx_error error = {0};

	if (kx_ledger_open(test->data_dir, read_only, &test->ledger, &error))
		fail_msg("%s", error.message);
}

void test_ledger_close(struct test_ledger *test)
{
	kx_ledger_close(KX_STEAL(test->ledger));
}

struct kx_input test_input(const char *id, enum kx_input_state state, uint8_t content)
{
	struct kx_input input = {
		.video_id = (char *)id,
		.root = "/films",
		.source = "/films/a\xff.mp4",
		.content_bytes = 123456,
		.modified_ns = 1700000000123456789,
		.state = state,
		.reason = state == KX_INPUT_QUARANTINED ? KX_REASON_NOT_MEDIA : KX_REASON_NONE,
		.message = state == KX_INPUT_QUARANTINED ? "no demuxer knows it" : "",
		.generation = 7,
		.duration_us = 61000000,
		.covered_us = 60000000,
		.updated_at_ms = 1700000001000,
		.recipe_sha256 = {9, 8, 7},
		.copy_of = "original",
		.title = "A title",
		.label_count = KX_ARRAY_LEN(labels),
		.labels = labels,
		.attempts = 2,
	};

	memset(input.content_sha256, content, sizeof(input.content_sha256));
	return input;
}

struct kx_dead_letter test_letter(const char *id)
{
	return (struct kx_dead_letter){
		.video_id = (char *)id,
		.source = "/films/a\xff.mp4",
		.reason = KX_REASON_NOT_MEDIA,
		.message = "no demuxer knows it",
		.attempts = 2,
		.generation = 7,
		.at_ms = 1700000000000,
		.run_id = "run-1",
		.software = "kinodex 0.1.0",
	};
}

kx_status test_put(struct kx_ledger *ledger, const char *id, enum kx_input_state state, uint8_t content,
		   struct kx_error *error)
{
	struct kx_input input = test_input(id, state, content);
	struct kx_dead_letter letter = test_letter(id);

	return kx_ledger_put(ledger, &input, state == KX_INPUT_QUARANTINED ? &letter : NULL, error);
}

void test_must_put(struct kx_ledger *ledger, const char *id, enum kx_input_state state, uint8_t content)
{
	struct kx_error error = {0};

	if (test_put(ledger, id, state, content, &error))
		fail_msg("%s", error.message);
}

char *test_by_content(struct kx_ledger *ledger, uint8_t content)
{
	uint8_t sha256[KX_SHA_LEN];
	struct kx_error error = {0};
	char *id = NULL;
	kx_status status;

	memset(sha256, content, sizeof(sha256));
	status = kx_ledger_by_content(ledger, sha256, &id, &error);
	assert_string_equal(error.message, "");
	assert_true(status == KX_OK || status == KX_ENOTFOUND);
	return id ? id : kx_strdup("");
}

uint64_t test_must_verify(struct kx_ledger *ledger)
{
	uint64_t counts[KX_INPUT_DELETED + 1];
	uint64_t sum = 0;
	struct kx_error error = {0};

	if (kx_ledger_verify(ledger, counts, &error))
		fail_msg("%s", error.message);
	for (size_t i = 0; i < KX_ARRAY_LEN(counts); i++)
		sum += counts[i];
	return sum;
}
