/* The parts that sources are made of: names of a large folder, lines, ids, URLs. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/str.h"
#include "coordinator/source/idset.h"
#include "coordinator/source/internal.h"
#include "coordinator/source/lines.h"
#include "coordinator/source/names.h"
#include "coordinator/source/test_tree.h"
#include "coordinator/source/url.h"

static void names_come_sorted_at_any_window(void **state)
{
	enum { COUNT = 100 };

	(void)state;
	for (unsigned i = 0; i < COUNT; i++) {
		char path[32];

		(void)snprintf(path, sizeof(path), "many/%02u", i * 37 % COUNT);
		test_tree_write(path, "");
	}
	for (size_t window = 1; window < COUNT + 3; window++) {
		struct kx_names names KX_CLEANUP(kx_names_done) = {.window = window};
		DIR *dir KX_CLEANUP(kx_cleanup_closedir) = opendir("many");
		const char *name;

		for (unsigned i = 0; i < COUNT; i++) {
			char expected[16];

			(void)snprintf(expected, sizeof(expected), "%02u", i);
			assert_int_equal(kx_names_next(&names, dir, &name, NULL), KX_OK);
			assert_string_equal(name, expected);
			assert_true(names.count <= 2 * window);
		}
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(kx_names_next(&names, dir, &name, NULL), KX_OK);
			assert_null(name);
		}
	}
}

/* What appears behind the place that the walk has reached is met, and nothing twice. */
static void names_of_a_folder_that_changes(void **state)
{
	struct kx_names names KX_CLEANUP(kx_names_done) = {.window = 2};
	DIR *dir KX_CLEANUP(kx_cleanup_closedir) = NULL;
	const char *name;

	(void)state;
	test_tree_write("many/b", "");
	test_tree_write("many/d", "");
	test_tree_write("many/f", "");
	dir = opendir("many");
	assert_int_equal(kx_names_next(&names, dir, &name, NULL), KX_OK);
	assert_string_equal(name, "b");
	test_tree_write("many/a", "");
	test_tree_write("many/g", "");
	assert_int_equal(unlink("many/f"), 0);
	assert_int_equal(kx_names_next(&names, dir, &name, NULL), KX_OK);
	assert_string_equal(name, "d");
	assert_int_equal(kx_names_next(&names, dir, &name, NULL), KX_OK);
	assert_string_equal(name, "g");
	assert_int_equal(kx_names_next(&names, dir, &name, NULL), KX_OK);
	assert_null(name);
}

static void lines_cross_chunks(void **state)
{
	char *long_line = malloc(3 * KX_LINES_CHUNK);
	struct kx_lines *lines = calloc(1, sizeof(*lines));
	struct kx_buf out = {.max = (size_t)3 * KX_LINES_CHUNK};
	struct kx_error error = {0};

	(void)state;
	memset(long_line, 'x', (size_t)3 * KX_LINES_CHUNK);
	long_line[KX_LINES_CHUNK - 1] = '\n';      /* at a chunk's end */
	long_line[3 * KX_LINES_CHUNK - 2] = '\n';
	test_tree_write_bytes("text", long_line, (size_t)3 * KX_LINES_CHUNK);
	lines->fd = open("text", O_RDONLY | O_CLOEXEC);
	for (unsigned round = 0; round < 2; round++) {
		static const size_t lengths[] = {KX_LINES_CHUNK, 2 * KX_LINES_CHUNK - 1, 1};

		for (size_t i = 0; i < KX_ARRAY_LEN(lengths); i++) {
			kx_buf_clear(&out);
			assert_int_equal(kx_lines_next(lines, &out, NULL), KX_OK);
			assert_int_equal(out.len, lengths[i]);
			assert_int_equal(lines->number, i + 1);
		}
		assert_int_equal(kx_lines_next(lines, &out, &error), KX_ENOTFOUND);
		assert_string_equal(error.message, "");
		kx_lines_rewind(lines);
	}
	kx_buf_done(&out);
	out.max = 10;
	assert_int_equal(kx_lines_next(lines, &out, &error), KX_ETOOBIG);
	assert_string_equal(error.message, "longer than the 10 bytes that a line may have");
	kx_buf_done(&out);
	(void)close(lines->fd);
	free(lines);
	free(long_line);
}

static void ids_are_told_apart(void **state)
{
	enum { COUNT = 20000 };
	struct kx_idset ids KX_CLEANUP(kx_idset_done) = {0};
	uint64_t first = 0;

	(void)state;
	assert_int_equal(kx_idset_find(&ids, "video-0", &first), KX_ENOTFOUND);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < COUNT; i++) {
			char id[32];

			(void)snprintf(id, sizeof(id), "video-%u", i);
			assert_int_equal(kx_idset_add(&ids, id, i + 1, &first), round ? KX_EEXIST : KX_OK);
			if (round)
				assert_int_equal(first, i + 1);
		}
	}
	assert_int_equal(ids.count, COUNT);
	assert_int_equal(kx_idset_find(&ids, "video-7", &first), KX_OK);
	assert_int_equal(first, 8);
	assert_int_equal(kx_idset_find(&ids, "video-", &first), KX_ENOTFOUND);
}

static void long_ids_are_cut_between_characters(void **state)
{
	static const char *const units[] = {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8e\xac", "\xff", "%", "a\xff\xc3\xa9"};
	char path[2 * KX_ID_MAX + 1];

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(units); i++) {
		for (size_t shift = 0; shift < 4; shift++) {
			char *id KX_CLEANUP(kx_cleanup_free) = NULL;
			char *other KX_CLEANUP(kx_cleanup_free) = NULL;
			size_t len = shift;

			memset(path, 'x', shift);
			for (; len + strlen(units[i]) < sizeof(path); len += strlen(units[i]))
				memcpy(path + len, units[i], strlen(units[i]));
			path[len] = '\0';
			id = kx_source_id_of_path(path);
			assert_in_range(strlen(id), KX_ID_MAX - 8, KX_ID_MAX);
			assert_true(kx_utf8_valid(id, strlen(id)));
			/* Paths that differ only behind the cut have other ids. */
			path[len - 1] = 'y';
			other = kx_source_id_of_path(path);
			assert_string_not_equal(id, other);
			if (strchr(units[i], '%') || strchr(units[i], '\xff'))
				assert_true(id[strlen(id) - 66] != '%' && id[strlen(id) - 67] != '%');
		}
	}
}

static void an_id_of_the_longest_length_is_kept(void **state)
{
	char path[KX_ID_MAX + 2];
	char *id KX_CLEANUP(kx_cleanup_free) = NULL;
	char *longer KX_CLEANUP(kx_cleanup_free) = NULL;

	(void)state;
	memset(path, 'x', sizeof(path));
	path[KX_ID_MAX] = '\0';
	id = kx_source_id_of_path(path);
	assert_string_equal(id, path);
	path[KX_ID_MAX] = 'x';
	path[KX_ID_MAX + 1] = '\0';
	longer = kx_source_id_of_path(path);
	assert_int_equal(strlen(longer), KX_ID_MAX);
	assert_non_null(strchr(longer, '~'));
}

static void file_urls(void **state)
{
	static const struct {
		const char *url;
		const char *path;
	} good[] = {
		{"file:///films/a.mp4", "/films/a.mp4"},
		{"file:/films/a.mp4", "/films/a.mp4"},
		{"FILE://LocalHost/films/a.mp4", "/films/a.mp4"},
		{"file:///a%20b%25c%C3%a9%ff", "/a b%c\xc3\xa9\xff"},
		{"file:///a;b:c@d+e", "/a;b:c@d+e"},
	};
	static const struct {
		const char *url;
		kx_status status;
		const char *message;
	} bad[] = {
		{"", KX_EINVAL, "no scheme"},
		{"films/a.mp4", KX_EINVAL, "no scheme"},
		{"/films/a:b.mp4", KX_EINVAL, "no scheme"},
		{"3com:/a", KX_EINVAL, "no scheme"},
		{"https://example.org/a.mp4", KX_EUNSUPPORTED, "only file, http"},
		{"files:/a", KX_EUNSUPPORTED, "only file, http"},
		{"s3://bucket/a.mp4", KX_EUNSUPPORTED, "only file, http"},
		{"file://server/a.mp4", KX_EINVAL, "another host"},
		{"file://localhost", KX_EINVAL, "another host"},
		{"file://", KX_EINVAL, "no absolute path"},
		{"file:a.mp4", KX_EINVAL, "no absolute path"},
		{"file:///a%", KX_EINVAL, "hexadecimal"},
		{"file:///a%4", KX_EINVAL, "hexadecimal"},
		{"file:///a%4g", KX_EINVAL, "hexadecimal"},
		{"file:///a%00b", KX_EINVAL, "%00"},
		{"file:///a?b", KX_EINVAL, "%3F"},
		{"file:///a#b", KX_EINVAL, "%3F"},
	};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(good); i++) {
		char *path KX_CLEANUP(kx_cleanup_free) = NULL;

		assert_int_equal(kx_source_url_path(good[i].url, &path, NULL), KX_OK);
		assert_string_equal(path, good[i].path);
	}
	for (size_t i = 0; i < KX_ARRAY_LEN(bad); i++) {
		struct kx_error error = {0};
		char *path = NULL;

		assert_int_equal(kx_source_url_path(bad[i].url, &path, &error), bad[i].status);
		assert_null(path);
		assert_non_null(strstr(error.message, bad[i].message));
	}
}

int main(void)
{
#define INSIDE(test) cmocka_unit_test_setup_teardown(test, test_tree_setup, test_tree_teardown)
	const struct CMUnitTest tests[] = {
		INSIDE(names_come_sorted_at_any_window),
		INSIDE(names_of_a_folder_that_changes),
		INSIDE(lines_cross_chunks),
		cmocka_unit_test(ids_are_told_apart),
		cmocka_unit_test(long_ids_are_cut_between_characters),
		cmocka_unit_test(an_id_of_the_longest_length_is_kept),
		cmocka_unit_test(file_urls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
