/* Manifests with bytes flipped, cut out, doubled and cut off: opening never crashes, what it refuses it refuses with a
 * line, and what it accepts streams to its end within all limits. KINODEX_TEST_SEED repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/str.h"
#include "common/base/testkit.h"
#include "coordinator/source/test_tree.h"

#define ROUNDS 3000 /* of each sample */

static const struct {
	const char *name;
	const char *text;
} samples[] = {
	{"a.jsonl", "{\"id\": \"a\", \"path\": \"films/a.mp4\", \"title\": \"A \\u00e9 \\\"b\\\"\", \"labels\": [\"x\", \"y\"]}\n"
		    "{\"id\": \"b\", \"url\": \"file:///films/b%20c.mp4\", \"duration_ms\": 61500.5, \"views\": {\"n\": [1]}}\n"
		    "\n{\"id\": \"c\", \"path\": \"/c.mp4\", \"title\": null}\r\n"},
	{"a.csv", "id,path,url,title,labels,duration_ms,views\n"
		  "a,films/a.mp4,,\"A \"\"b\"\", c\",x;y,61500,1\r\n"
		  "\xc3\xa9,,file:///films/b%20c.mp4,\"two\nlines\",,,\n"
		  "\nc,/c.mp4,,,; ;z,12.5,\n"},
};

static void check_item(const struct kx_source_item *item)
{
	assert_in_range(strlen(item->video_id), 1, KX_ID_MAX);
	assert_true(kx_utf8_valid(item->video_id, strlen(item->video_id)));
	assert_in_range(strlen(item->path), 1, KX_PATH_MAX);
	assert_true(item->path[0] == '/' || item->reason == KX_REASON_UNSUPPORTED);
	assert_in_range(strlen(item->title), 0, KX_TEXT_MAX);
	assert_in_range(item->label_count, 0, KX_LABELS_MAX);
	for (uint32_t i = 0; i < item->label_count; i++)
		assert_in_range(strlen(item->labels[i]), 1, KX_TEXT_MAX);
	assert_true(item->duration_us <= KX_MEDIA_US_MAX);
	assert_in_range(item->reason, KX_REASON_NONE, KX_REASON_COUNT - 1);
}

/* True when it was accepted. */
static bool try_manifest(const char *name)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
	struct kx_error error = {0};
	kx_status status = kx_source_open(name, &source, &error);

	if (status) {
		assert_int_equal(status, KX_EINVAL);
		assert_true(kx_str_starts(error.message, name));
		assert_int_equal(error.message[strlen(name)], ':');
		assert_in_range(error.message[strlen(name) + 1], '1', '9');
		return false;
	}
	while (!status) {
		struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = NULL;

		status = kx_source_next(source, &item, &error);
		if (!status)
			check_item(item);
	}
	assert_int_equal(status, KX_ENOTFOUND);
	return true;
}

static void mutated_manifests(void **state)
{
	static const char telling[] = "\"\\,;:{}[]\n\r\0%\xff\xc3 0e-";
	uint64_t random = kx_test_seed();

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(samples); i++) {
		struct kx_buf text KX_CLEANUP(kx_buf_done) = {.max = 1 << 20};
		unsigned accepted = 0;

		test_tree_write(samples[i].name, samples[i].text);
		assert_true(try_manifest(samples[i].name));
		for (unsigned round = 0; round < ROUNDS; round++) {
			kx_buf_clear(&text);
			assert_int_equal(kx_buf_append(&text, samples[i].text, strlen(samples[i].text)), KX_OK);
			for (size_t n = 1 + kx_test_below(&random, 3); n > 0; n--)
				kx_test_mutate(&random, &text, telling, sizeof(telling) - 1);
			test_tree_write_bytes(samples[i].name, text.data, text.len);
			accepted += try_manifest(samples[i].name);
		}
		print_message("%s: %u of %u mutants were accepted\n", samples[i].name, accepted, ROUNDS);
		assert_in_range(accepted, ROUNDS / 50, ROUNDS - ROUNDS / 50); /* else it tests one side only */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(mutated_manifests, test_tree_setup, test_tree_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
