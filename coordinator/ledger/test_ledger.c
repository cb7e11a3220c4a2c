#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "common/kv/kv.h"
#include "coordinator/ledger/internal.h"
#include "coordinator/ledger/test_ledger_kit.h"

static void pack_both(const struct kx_input *a, const struct kx_input *b, struct kx_buf out[2])
{
	assert_int_equal(kx_input_pack(a, &out[0]), KX_OK);
	assert_int_equal(kx_input_pack(b, &out[1]), KX_OK);
}

static void assert_same_input(const struct kx_input *a, const struct kx_input *b)
{
	struct kx_buf packed[2] = {{.max = KX_RECORD_MAX}, {.max = KX_RECORD_MAX}};

	pack_both(a, b, packed);
	assert_int_equal(packed[0].len, packed[1].len);
	assert_memory_equal(packed[0].data, packed[1].data, packed[0].len);
	kx_buf_done(&packed[0]);
	kx_buf_done(&packed[1]);
}

static void inputs_come_back(void **state)
{
	struct test_ledger *test = *state;
	struct kx_input *input KX_CLEANUP(kx_input_cleanup) = NULL;
	struct kx_dead_letter *letter KX_CLEANUP(kx_dead_letter_cleanup) = NULL;
	struct kx_input *none = NULL;
	struct kx_input expected = test_input("a \xc3\xa9/%00", KX_INPUT_QUARANTINED, 1);
	struct kx_error error = {0};

	test_must_put(test->ledger, "a \xc3\xa9/%00", KX_INPUT_QUARANTINED, 1);
	test_ledger_close(test);
	test_ledger_open(test, false);
	assert_int_equal(kx_ledger_get(test->ledger, "a \xc3\xa9/%00", &input, &error), KX_OK);
	assert_same_input(input, &expected);
	assert_int_equal(kx_ledger_get_dead(test->ledger, "a \xc3\xa9/%00", &letter, &error), KX_OK);
	assert_string_equal(letter->video_id, "a \xc3\xa9/%00");
	assert_string_equal(letter->run_id, "run-1");
	assert_int_equal(letter->reason, KX_REASON_NOT_MEDIA);
	assert_int_equal(kx_ledger_get(test->ledger, "a", &none, &error), KX_ENOTFOUND);
	assert_int_equal(kx_ledger_get(test->ledger, "", &none, &error), KX_ENOTFOUND);
	assert_string_equal(error.message, "");
	assert_null(none);
}

static void the_index_by_content_follows(void **state)
{
	struct test_ledger *test = *state;
	static const struct {
		const char *id;
		enum kx_input_state state;
		uint8_t content;
		const char *first, *second; /* ids with content 1 and 2 afterwards */
	} steps[] = {
		{"b", KX_INPUT_PLANNED, 1, "", ""},
		{"b", KX_INPUT_DONE, 1, "b", ""},
		{"c", KX_INPUT_PARTIAL, 1, "b", ""},
		{"a", KX_INPUT_DONE, 2, "b", "a"},
		{"b", KX_INPUT_DONE, 2, "c", "a"},   /* other content */
		{"a", KX_INPUT_DELETED, 2, "c", "b"},
		{"b", KX_INPUT_QUARANTINED, 2, "c", ""},
		{"c", KX_INPUT_DONE, 1, "c", ""},    /* once more the same */
		{"c", KX_INPUT_DONE, 0, "", ""},     /* without a hash */
	};

	for (size_t i = 0; i < KX_ARRAY_LEN(steps); i++) {
		char *first KX_CLEANUP(kx_cleanup_free) = NULL;
		char *second KX_CLEANUP(kx_cleanup_free) = NULL;
		char *none KX_CLEANUP(kx_cleanup_free) = NULL;

		test_must_put(test->ledger, steps[i].id, steps[i].state, steps[i].content);
		first = test_by_content(test->ledger, 1);
		second = test_by_content(test->ledger, 2);
		none = test_by_content(test->ledger, 0);
		assert_string_equal(first, steps[i].first);
		assert_string_equal(second, steps[i].second);
		assert_string_equal(none, "");
		(void)test_must_verify(test->ledger);
	}
}

/* The hash before the id has a fixed length, so no id can be taken for the end of another's hash. */
static void hashes_that_share_a_start_are_told_apart(void **state)
{
	struct test_ledger *test = *state;
	struct kx_input input = test_input("a", KX_INPUT_DONE, 0xff);
	char *id KX_CLEANUP(kx_cleanup_free) = NULL;
	char *none KX_CLEANUP(kx_cleanup_free) = NULL;

	input.content_sha256[KX_SHA_LEN - 1] = 0xfe;
	assert_int_equal(kx_ledger_put(test->ledger, &input, NULL, NULL), KX_OK);
	none = test_by_content(test->ledger, 0xff);
	assert_string_equal(none, "");
	assert_int_equal(kx_ledger_by_content(test->ledger, input.content_sha256, &id, NULL), KX_OK);
	assert_string_equal(id, "a");
}

static void dead_letters_come_and_go(void **state)
{
	struct test_ledger *test = *state;
	static const enum kx_input_state after[] = {KX_INPUT_PLANNED, KX_INPUT_DONE, KX_INPUT_PARTIAL, KX_INPUT_DELETED};

	for (size_t i = 0; i < KX_ARRAY_LEN(after); i++) {
		struct kx_dead_letter *letter KX_CLEANUP(kx_dead_letter_cleanup) = NULL;
		struct kx_dead_letter *none = NULL;
		struct kx_error error = {0};

		test_must_put(test->ledger, "a", KX_INPUT_QUARANTINED, 1);
		assert_int_equal(kx_ledger_get_dead(test->ledger, "a", &letter, NULL), KX_OK);
		(void)test_must_verify(test->ledger);
		test_must_put(test->ledger, "a", after[i], 1);
		assert_int_equal(kx_ledger_get_dead(test->ledger, "a", &none, &error), KX_ENOTFOUND);
		assert_string_equal(error.message, "");
		assert_int_equal(test_must_verify(test->ledger), 1);
	}
}

struct list {
	char text[256];
	unsigned left; /* visits until it stops; 0: never */
};

static kx_status add(struct list *list, const char *id, struct kx_error *error)
{
	strncat(list->text, id, sizeof(list->text) - strlen(list->text) - 1);
	strncat(list->text, " ", sizeof(list->text) - strlen(list->text) - 1);
	if (list->left && --list->left == 0)
		return kx_error_set(error, KX_ECANCELED, KX_ERROR_FATAL, "enough");
	return KX_OK;
}

static kx_status add_input(void *ctx, const struct kx_input *input, struct kx_error *error)
{
	return add(ctx, input->video_id, error);
}

static kx_status add_letter(void *ctx, const struct kx_dead_letter *letter, struct kx_error *error)
{
	return add(ctx, letter->video_id, error);
}

static void all_are_visited_in_order(void **state)
{
	struct test_ledger *test = *state;
	struct list all = {0};
	struct list some = {.left = 2};
	struct list dead = {0};
	struct list one = {.left = 1};
	struct kx_error error = {0};

	assert_int_equal(kx_ledger_each(test->ledger, add_input, &all, NULL), KX_OK);
	assert_string_equal(all.text, "");
	test_must_put(test->ledger, "b", KX_INPUT_DONE, 1);
	test_must_put(test->ledger, "\xc3\xa9", KX_INPUT_QUARANTINED, 1);
	test_must_put(test->ledger, "a/x", KX_INPUT_QUARANTINED, 1);
	test_must_put(test->ledger, "a", KX_INPUT_PLANNED, 1);
	test_must_put(test->ledger, "B", KX_INPUT_DELETED, 1);
	assert_int_equal(kx_ledger_each(test->ledger, add_input, &all, NULL), KX_OK);
	assert_string_equal(all.text, "B a a/x b \xc3\xa9 ");
	assert_int_equal(kx_ledger_each(test->ledger, add_input, &some, &error), KX_ECANCELED);
	assert_string_equal(some.text, "B a ");
	assert_string_equal(error.message, "enough");
	assert_int_equal(kx_ledger_each_dead(test->ledger, add_letter, &dead, NULL), KX_OK);
	assert_string_equal(dead.text, "a/x \xc3\xa9 ");
	assert_int_equal(kx_ledger_each_dead(test->ledger, add_letter, &one, NULL), KX_ECANCELED);
	assert_string_equal(one.text, "a/x ");
}

static kx_status forget(void *ctx, const struct kx_input *input, struct kx_error *error)
{
	return test_put(ctx, input->video_id, KX_INPUT_DELETED, 1, error);
}

static void a_visit_may_write(void **state)
{
	struct test_ledger *test = *state;
	uint64_t counts[KX_INPUT_DELETED + 1];

	test_must_put(test->ledger, "a", KX_INPUT_DONE, 1);
	test_must_put(test->ledger, "b", KX_INPUT_QUARANTINED, 1);
	assert_int_equal(kx_ledger_each(test->ledger, forget, test->ledger, NULL), KX_OK);
	assert_int_equal(kx_ledger_verify(test->ledger, counts, NULL), KX_OK);
	assert_int_equal(counts[KX_INPUT_DELETED], 2);
}

static void states_are_counted(void **state)
{
	struct test_ledger *test = *state;
	uint64_t counts[KX_INPUT_DELETED + 1];

	assert_int_equal(test_must_verify(test->ledger), 0);
	for (unsigned s = KX_INPUT_PLANNED; s <= KX_INPUT_DELETED; s++) {
		for (unsigned i = 0; i < s; i++) {
			char id[32];

			(void)snprintf(id, sizeof(id), "%u-%u", s, i);
			test_must_put(test->ledger, id, (enum kx_input_state)s, (uint8_t)(i + 1));
		}
	}
	assert_int_equal(kx_ledger_verify(test->ledger, counts, NULL), KX_OK);
	for (unsigned s = 0; s <= KX_INPUT_DELETED; s++)
		assert_int_equal(counts[s], s);
}

static void expect_refused(struct kx_ledger *ledger, const struct kx_input *input, const struct kx_dead_letter *letter,
			   const char *message)
{
	struct kx_error error = {0};

	assert_int_equal(kx_ledger_put(ledger, input, letter, &error), KX_EINVAL);
	assert_non_null(strstr(error.message, message));
	assert_int_equal(test_must_verify(ledger), 0);
}

static void what_would_not_read_back_is_refused(void **state)
{
	struct test_ledger *test = *state;
	struct kx_input input = test_input("a", KX_INPUT_QUARANTINED, 1);
	struct kx_dead_letter letter = test_letter("a");
	struct kx_dead_letter other = test_letter("b");
	char *longest KX_CLEANUP(kx_cleanup_free) = calloc(1, KX_ID_MAX + 2);

	expect_refused(test->ledger, &input, NULL, "ledger: \"a\" is quarantined and comes without a dead letter");
	expect_refused(test->ledger, &input, &other, "ledger: \"a\" comes with the dead letter of \"b\"");
	letter.reason = KX_REASON_NONE;
	expect_refused(test->ledger, &input, &letter, "ledger: a dead letter that would not read back: ");
	letter.reason = KX_REASON_NOT_MEDIA;
	input.state = KX_INPUT_DONE;
	expect_refused(test->ledger, &input, &letter, "ledger: \"a\" is done and comes with a dead letter");
	input.source = "";
	expect_refused(test->ledger, &input, NULL, "ledger: an input that would not read back: ");
	input.source = "/a";
	input.video_id = "";
	expect_refused(test->ledger, &input, NULL, "video_id");
	input.video_id = NULL;
	expect_refused(test->ledger, &input, NULL, "video_id");
	input.video_id = longest;
	memset(longest, 'x', KX_ID_MAX + 1);
	expect_refused(test->ledger, &input, NULL, "video_id");
	longest[KX_ID_MAX] = '\0';
	assert_int_equal(kx_ledger_put(test->ledger, &input, NULL, NULL), KX_OK);
	assert_int_equal(test_must_verify(test->ledger), 1);
}

static void expect_open_error(const char *data_dir, bool read_only, kx_status status, const char *format)
{
	struct kx_ledger *ledger = NULL;
	struct kx_error error = {0};
	char *message KX_CLEANUP(kx_cleanup_free) = kx_strf("%s: %s", data_dir, format);

	assert_int_equal(kx_ledger_open(data_dir, read_only, &ledger, &error), status);
	assert_null(ledger);
	assert_int_equal(error.class, KX_ERROR_FATAL);
	assert_string_equal(error.message, message);
}

static void a_second_writer_is_refused(void **state)
{
	struct test_ledger *test = *state;

	expect_open_error(test->data_dir, false, KX_EBUSY,
			  "another kinodex is indexing into this directory; wait for it, or use another one");
	test_must_put(test->ledger, "a", KX_INPUT_DONE, 1);
}

static void nothing_there_is_said(void **state)
{
	struct test_ledger *test = *state;
	char *none KX_CLEANUP(kx_cleanup_free) = kx_strf("%s/none", test->data_dir);

	expect_open_error(none, true, KX_ENOTFOUND,
			  "nothing has been indexed into this directory yet; run kinodex index first");
	assert_false(kx_fs_exists(none));
}

static void readers_stand_beside_the_writer(void **state)
{
	struct test_ledger *test = *state;
	struct kx_ledger *reader KX_CLEANUP(kx_ledger_cleanup) = NULL;
	struct kx_ledger *second KX_CLEANUP(kx_ledger_cleanup) = NULL;
	struct kx_error error = {0};

	test_must_put(test->ledger, "a", KX_INPUT_DONE, 1);
	assert_int_equal(kx_ledger_open(test->data_dir, true, &reader, &error), KX_OK);
	test_must_put(test->ledger, "b", KX_INPUT_QUARANTINED, 1);
	assert_int_equal(test_must_verify(reader), 1); /* as it was when it was opened */
	assert_int_equal(kx_ledger_open(test->data_dir, true, &second, &error), KX_OK);
	assert_int_equal(test_must_verify(second), 2);
	assert_int_equal(test_put(second, "c", KX_INPUT_DONE, 1, &error), KX_EPERM);
	assert_int_equal(test_must_verify(test->ledger), 2);
}

static const struct kx_kv_family families[] = {{"inputs", true}, {"content", false}, {"dead", true}, {"meta", false}};

/* Puts a value under a key behind the ledger's back; NULL deletes it. */
static void tamper(struct test_ledger *test, size_t family, const char *key, size_t key_len, const void *value,
		   size_t value_len)
{
	struct kx_kv_options options = {.families = families, .family_count = KX_LEDGER_FAMILIES, .create = true};
	struct kx_kv_batch *batch KX_CLEANUP(kx_kv_batch_cleanup) = NULL;
	struct kx_kv *kv = NULL;

	test_ledger_close(test);
	assert_int_equal(kx_kv_open(test->path, &options, &kv, NULL), KX_OK);
	assert_int_equal(kx_kv_batch_new(kv, &batch), KX_OK);
	if (value)
		kx_kv_batch_put(batch, family, key, key_len, value, value_len);
	else
		kx_kv_batch_delete(batch, family, key, key_len);
	assert_int_equal(kx_kv_write(kv, batch, true, NULL), KX_OK);
	kx_kv_batch_free(KX_STEAL(batch));
	kx_kv_close(kv);
}

static void another_version_is_refused(void **state)
{
	struct test_ledger *test = *state;
	static const char says[] = "its ledger has format 2 and this kinodex reads format 1; use the kinodex that wrote it, "
				   "or another data directory";

	tamper(test, KX_LEDGER_META, "version", 7, "2", 1);
	expect_open_error(test->data_dir, false, KX_EVERSION, says);
	expect_open_error(test->data_dir, true, KX_EVERSION, says);
	tamper(test, KX_LEDGER_META, "version", 7, "1", 1);
	test_ledger_open(test, true);
}

/* Its maker died before it wrote one. */
static void a_ledger_without_a_version_is_new(void **state)
{
	struct test_ledger *test = *state;

	tamper(test, KX_LEDGER_META, "version", 7, NULL, 0);
	test_ledger_open(test, true);
	assert_int_equal(test_must_verify(test->ledger), 0);
	test_ledger_close(test);
	test_ledger_open(test, false);
	test_must_put(test->ledger, "a", KX_INPUT_DONE, 1);
	tamper(test, KX_LEDGER_META, "version", 7, "2", 1);
	expect_open_error(test->data_dir, false, KX_EVERSION,
			  "its ledger has format 2 and this kinodex reads format 1; use the kinodex that wrote it, or another "
			  "data directory");
}

/* The fault is found, and the message names the record and the folder. */
static void expect_corrupt(struct test_ledger *test, const char *says)
{
	uint64_t counts[KX_INPUT_DELETED + 1];
	struct kx_error error = {0};

	test_ledger_open(test, true);
	assert_int_equal(kx_ledger_verify(test->ledger, counts, &error), KX_ECORRUPT);
	assert_non_null(strstr(error.message, test->data_dir));
	if (!strstr(error.message, says))
		fail_msg("\"%s\" does not say: %s", error.message, says);
}

static void a_missing_letter_is_found(void **state)
{
	struct test_ledger *test = *state;

	test_must_put(test->ledger, "a", KX_INPUT_DONE, 1);
	test_must_put(test->ledger, "b", KX_INPUT_QUARANTINED, 1);
	tamper(test, KX_LEDGER_DEAD, "b", 1, NULL, 0);
	expect_corrupt(test, "\"b\" is quarantined and has no dead letter");
}

static void pack_letter(const char *id, struct kx_buf *out)
{
	struct kx_dead_letter letter = test_letter(id);

	assert_int_equal(kx_dead_letter_pack(&letter, out), KX_OK);
}

static void a_letter_too_many_is_found(void **state)
{
	struct test_ledger *test = *state;
	struct kx_buf letter KX_CLEANUP(kx_buf_done) = {.max = KX_RECORD_MAX};

	pack_letter("a", &letter);
	test_must_put(test->ledger, "a", KX_INPUT_DONE, 1);
	tamper(test, KX_LEDGER_DEAD, "a", 1, letter.data, letter.len);
	expect_corrupt(test, "\"a\" is not quarantined and has a dead letter");
}

static void a_letter_of_nobody_is_found(void **state)
{
	struct test_ledger *test = *state;
	struct kx_buf letter KX_CLEANUP(kx_buf_done) = {.max = KX_RECORD_MAX};

	pack_letter("z", &letter);
	tamper(test, KX_LEDGER_DEAD, "z", 1, letter.data, letter.len);
	expect_corrupt(test, "\"z\" has a dead letter and is no input");
}

static void a_letter_under_another_id_is_found(void **state)
{
	struct test_ledger *test = *state;
	struct kx_buf letter KX_CLEANUP(kx_buf_done) = {.max = KX_RECORD_MAX};

	pack_letter("z", &letter);
	test_must_put(test->ledger, "a", KX_INPUT_QUARANTINED, 1);
	tamper(test, KX_LEDGER_DEAD, "a", 1, letter.data, letter.len);
	expect_corrupt(test, "dead letter \"a\": it holds \"z\"");
}

static void a_broken_record_is_found(void **state)
{
	struct test_ledger *test = *state;

	test_must_put(test->ledger, "a", KX_INPUT_DONE, 1);
	tamper(test, KX_LEDGER_INPUTS, "b", 1, "junk", 4);
	expect_corrupt(test, "input \"b\": ");
	test_ledger_close(test);
	tamper(test, KX_LEDGER_INPUTS, "b", 1, "", 0);
	test_ledger_open(test, true);
	struct list all = {0};
	struct kx_error error = {0};

	assert_true(kx_ledger_each(test->ledger, add_input, &all, &error) != KX_OK);
	assert_string_equal(all.text, "a ");
	assert_non_null(strstr(error.message, "input \"b\": "));
}

static void a_gap_in_the_index_is_found(void **state)
{
	struct test_ledger *test = *state;
	char key[KX_SHA_LEN + 1];

	memset(key, 1, KX_SHA_LEN);
	key[KX_SHA_LEN] = 'a';
	test_must_put(test->ledger, "a", KX_INPUT_DONE, 1);
	tamper(test, KX_LEDGER_CONTENT, key, sizeof(key), NULL, 0);
	expect_corrupt(test, "an index that lacks inputs");
}

static void a_stray_key_in_the_index_is_found(void **state)
{
	struct test_ledger *test = *state;
	char key[KX_SHA_LEN + 1];

	memset(key, 2, KX_SHA_LEN);
	key[KX_SHA_LEN] = 'a';
	test_must_put(test->ledger, "a", KX_INPUT_DONE, 1);
	tamper(test, KX_LEDGER_CONTENT, key, sizeof(key), "", 0);
	expect_corrupt(test, "\"a\" stands in the index by content");
	test_ledger_close(test);
	tamper(test, KX_LEDGER_CONTENT, key, sizeof(key), NULL, 0);
	tamper(test, KX_LEDGER_CONTENT, "short", 5, "", 0);
	expect_corrupt(test, "a key that is none");
}

#define WRITERS 4
#define PUTS 40

static void *put_many(void *arg)
{
	static const enum kx_input_state states[] = {KX_INPUT_DONE, KX_INPUT_QUARANTINED, KX_INPUT_PARTIAL};
	struct kx_ledger *ledger = arg;

	for (unsigned i = 0; i < PUTS; i++) {
		char id[16];

		(void)snprintf(id, sizeof(id), "v%u", i % 5); /* all threads write the same */
		if (test_put(ledger, id, states[i % 3], (uint8_t)(1 + i % 7), NULL))
			return "a put failed";
	}
	return NULL;
}

static void many_threads_write(void **state)
{
	struct test_ledger *test = *state;
	pthread_t threads[WRITERS];

	for (unsigned i = 0; i < WRITERS; i++)
		assert_int_equal(kx_thread_start(&threads[i], "writer", put_many, test->ledger, NULL), KX_OK);
	for (unsigned i = 0; i < 10; i++)
		assert_true(test_must_verify(test->ledger) <= 5); /* meanwhile */
	for (unsigned i = 0; i < WRITERS; i++) {
		void *failure;

		assert_int_equal(pthread_join(threads[i], &failure), 0);
		assert_null(failure);
	}
	assert_int_equal(test_must_verify(test->ledger), 5);
}

int main(void)
{
#define LEDGER(test) cmocka_unit_test_setup_teardown(test, test_ledger_setup, test_ledger_teardown)
	const struct CMUnitTest tests[] = {
		LEDGER(inputs_come_back),
		LEDGER(the_index_by_content_follows),
		LEDGER(hashes_that_share_a_start_are_told_apart),
		LEDGER(dead_letters_come_and_go),
		LEDGER(all_are_visited_in_order),
		LEDGER(a_visit_may_write),
		LEDGER(states_are_counted),
		LEDGER(what_would_not_read_back_is_refused),
		LEDGER(a_second_writer_is_refused),
		LEDGER(nothing_there_is_said),
		LEDGER(readers_stand_beside_the_writer),
		LEDGER(another_version_is_refused),
		LEDGER(a_ledger_without_a_version_is_new),
		LEDGER(a_missing_letter_is_found),
		LEDGER(a_letter_too_many_is_found),
		LEDGER(a_letter_of_nobody_is_found),
		LEDGER(a_letter_under_another_id_is_found),
		LEDGER(a_broken_record_is_found),
		LEDGER(a_gap_in_the_index_is_found),
		LEDGER(a_stray_key_in_the_index_is_found),
		LEDGER(many_threads_write),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
