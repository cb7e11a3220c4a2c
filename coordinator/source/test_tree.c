#include "coordinator/source/test_tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/str.h"

int test_tree_setup(void **state)
{
	char made[] = "/tmp/kx-source-XXXXXX";
	char *folder;

	assert_non_null(mkdtemp(made));
	folder = realpath(made, NULL);
	assert_non_null(folder);
	assert_int_equal(chdir(folder), 0);
	*state = folder;
	return 0;
}

int test_tree_teardown(void **state)
{
	struct kx_error error = {0};

	kx_fault_clear();
	if (chdir("/") || kx_fs_remove_tree(*state, &error))
		print_message("%s\n", error.message);
	free(*state);
	return error.status;
}

void test_tree_write_bytes(const char *path, const void *bytes, size_t len)
{
	const char *slash = strrchr(path, '/');
	struct kx_error error = {0};

	if (slash) {
		char *folder KX_CLEANUP(kx_cleanup_free) = kx_strndup(path, (size_t)(slash - path));

		assert_non_null(folder);
		assert_int_equal(kx_fs_mkdirs(folder, &error), KX_OK);
	}
	/* Not kx_fs_write(), which syncs; and a new file, because ext4 syncs one that was cut to nothing. */
	(void)unlink(path);
	FILE *file = fopen(path, "wxe");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
}

void test_tree_write(const char *path, const char *text)
{
	test_tree_write_bytes(path, text, strlen(text));
}

struct kx_source *test_tree_open(const char *arg)
{
	struct kx_source *source = NULL;
	struct kx_error error = {0};

	if (kx_source_open(arg, &source, &error))
		fail_msg("%s", error.message);
	return source;
}

char *test_tree_walk(struct kx_source *source)
{
	struct kx_buf lines = {.max = 1 << 20};
	struct kx_error error = {0};
	kx_status status;

	assert_int_equal(kx_buf_append(&lines, "", 0), KX_OK);
	do {
		struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = NULL;

		status = kx_source_next(source, &item, &error);
		if (status)
			break;
		assert_true(item->path[0] != '\0');
		assert_true((item->reason == KX_REASON_NONE) == (item->message[0] == '\0'));
		assert_true(kx_utf8_valid(item->video_id, strlen(item->video_id)));
		assert_int_equal(kx_buf_printf(&lines, "%s%s%s\n", item->video_id, item->message[0] ? " " : "",
					       item->message[0] ? kx_reason_name(item->reason) : ""), KX_OK);
	} while (!status);
	if (status != KX_ENOTFOUND)
		fail_msg("%s", error.message);
	assert_string_equal(error.message, "");
	return (char *)lines.data;
}

void test_tree_expect(const char *arg, const char *lines)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = test_tree_open(arg);
	char *walked KX_CLEANUP(kx_cleanup_free) = test_tree_walk(source);

	assert_string_equal(walked, lines);
}

void test_tree_expect_error(const char *arg, kx_status status, const char *message)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
	struct kx_error error = {0};

	assert_int_equal(kx_source_open(arg, &source, &error), status);
	assert_null(source);
	assert_int_equal(error.status, status);
	assert_string_equal(error.message, message);
}
