/* Manifests: what they may say, and what is said about bad ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "coordinator/source/row.h"
#include "coordinator/source/test_tree.h"

static struct kx_source_item *next(struct kx_source *source)
{
	struct kx_source_item *item = NULL;
	struct kx_error error = {0};

	if (kx_source_next(source, &item, &error))
		fail_msg("%s", error.message);
	return item;
}

static void check_full_item(struct kx_source *source, const char *folder)
{
	struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = next(source);
	char *path KX_CLEANUP(kx_cleanup_free) = kx_strf("%s/in/films/a.mp4", folder);

	assert_string_equal(item->video_id, "a, the \"first\" 100%");
	assert_string_equal(item->path, path);
	assert_string_equal(item->title, "Two\nlines");
	assert_int_equal(item->label_count, 3);
	assert_string_equal(item->labels[0], "cat");
	assert_string_equal(item->labels[1], "big dog");
	assert_string_equal(item->labels[2], "\xc3\xa9t\xc3\xa9");
	assert_int_equal(item->duration_us, 61500000);
	assert_int_equal(item->reason, KX_REASON_NONE);
	assert_string_equal(item->message, "");
}

static void check_bare_item(struct kx_source *source, const char *folder)
{
	struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = next(source);
	char *path KX_CLEANUP(kx_cleanup_free) = kx_strf("%s/b c.mp4", folder);

	assert_string_equal(item->video_id, "b");
	assert_string_equal(item->path, path);
	assert_string_equal(item->title, "");
	assert_int_equal(item->label_count, 0);
	assert_null(item->labels);
	assert_int_equal(item->duration_us, 0);
}

static void check_manifest(const char *arg, const char *folder)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = test_tree_open(arg);
	struct kx_source_item *item = NULL;
	char *root KX_CLEANUP(kx_cleanup_free) = kx_strf("%s/%s", folder, arg);

	assert_string_equal(kx_source_root(source), root);
	assert_true(kx_source_is_complete(source));
	check_full_item(source, folder);
	check_bare_item(source, folder);
	for (unsigned i = 0; i < 2; i++) {
		struct kx_error error = {0};

		assert_int_equal(kx_source_next(source, &item, &error), KX_ENOTFOUND);
		assert_string_equal(error.message, "");
	}
}

static void json_says_all(void **state)
{
	char *text KX_CLEANUP(kx_cleanup_free) = kx_strf(
		"\xef\xbb\xbf"
		"{\"id\": \"a, the \\\"first\\\" 100%%\", \"path\": \"films/a.mp4\", \"url\": \"https://example.org/a\", "
		"\"title\": \"Two\\nlines\", \"labels\": [\"cat\", \"\", \"big dog\", \"\\u00e9t\\u00e9\"], "
		"\"duration_ms\": 61500, \"views\": {\"all\": [1]}}\r\n"
		"\n  \r\n"
		"{\"url\": \"file://%s/b%%20c.mp4\", \"id\": \"b\", \"title\": null, \"labels\": [], \"path\": \"\"}",
		(char *)*state);

	test_tree_write("in/films/a.mp4", "x");
	test_tree_write("in/list.jsonl", text);
	check_manifest("in/list.jsonl", *state);
}

static void csv_says_all(void **state)
{
	char *text KX_CLEANUP(kx_cleanup_free) = kx_strf(
		"\xef\xbb\xbf"
		"title,views, path ,id,\"labels\",duration_ms,url\r\n"
		"\"Two\nlines\",17,films/a.mp4,\"a, the \"\"first\"\" 100%%\",cat; ;big dog;\xc3\xa9t\xc3\xa9; , 61500.0 ,\r\n"
		"\r\n"
		",\"\",,b,,,\"file://%s/b%%20c.mp4\"",
		(char *)*state);

	test_tree_write("in/films/a.mp4", "x");
	test_tree_write("in/LIST.CSV", text);
	check_manifest("in/LIST.CSV", *state);
}

static void what_cannot_be_read_has_its_reason(void **state)
{
	(void)state;
	test_tree_write("a.mp4", "x");
	assert_int_equal(mkdir("folder", 0777), 0);
	assert_int_equal(symlink("nowhere", "link.mp4"), 0);
	assert_int_equal(mkfifo("pipe", 0666), 0);
	test_tree_write("list.csv", "id,path,url\n"
				    "a,a.mp4,\n"
				    "gone,none/a.mp4,\n"
				    "link,link.mp4,\n"
				    "folder,folder,\n"
				    "pipe,pipe,\n"
				    "https,,https://example.org/a.mp4\n"
				    "s3,,s3://bucket/a b.mp4\n"
				    "ftp,,ftp://example.org/a.mp4\n"
				    "both,a.mp4,s3://bucket/a\n");
	test_tree_expect("list.csv", "a\ngone not-found\nlink not-found\nfolder unsupported\npipe unsupported\n"
				     "https\ns3\nftp unsupported\nboth\n");
}

static void a_url_of_another_scheme_stays_in_sight(void **state)
{
	(void)state;
	test_tree_write("list.jsonl", "{\"id\": \"a\", \"url\": \"ftp://example.org/a.mp4\"}\n");
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = test_tree_open("list.jsonl");
	struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = next(source);

	assert_int_equal(item->reason, KX_REASON_UNSUPPORTED);
	assert_string_equal(item->path, "ftp://example.org/a.mp4");
	assert_string_equal(item->message, "of addresses only file, http, https and s3 are read; fetch it, and give its "
					   "path");
}

static void manifests_without_rows(void **state)
{
	(void)state;
	test_tree_write("empty.jsonl", "");
	test_tree_expect("empty.jsonl", "");
	test_tree_write("blank.jsonl", "\xef\xbb\xbf\n \n");
	test_tree_expect("blank.jsonl", "");
	test_tree_write("header.csv", "id,path");
	test_tree_expect("header.csv", "");
}

struct bad {
	const char *text;
	const char *message;
};

static void expect_bad(const char *name, const struct bad *bad, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		char *message KX_CLEANUP(kx_cleanup_free) = kx_strf("%s:%s", name, bad[i].message);

		test_tree_write(name, bad[i].text);
		test_tree_expect_error(name, KX_EINVAL, message);
	}
}

#define GOOD "{\"id\": \"good\", \"path\": \"a.mp4\"}\n"

static void bad_json_is_named(void **state)
{
	static const struct bad bad[] = {
		{GOOD "{\"id\": \"x\", \"path\": }\n", "2: not JSON: unexpected token near '}' (column 21)"},
		{GOOD GOOD, "2: id: \"good\" is that of line 1 already; give each input its own"},
		{GOOD "\n\n{\"path\": \"a\"}", "4: no id; give each input one of its own"},
		{"{\"id\": \"\", \"path\": \"a\"}", "1: no id; give each input one of its own"},
		{"{\"id\": \"x\"}", "1: no path and no url; give one of them"},
		{"{\"id\": \"x\", \"path\": \"\", \"url\": null}", "1: no path and no url; give one of them"},
		{"{\"id\": 17, \"path\": \"a\"}", "1: id: it is a number; write a string"},
		{"{\"id\": \"x\", \"path\": [\"a\"]}", "1: path: it is an array; write a string"},
		{"{\"id\": \"x\", \"url\": true}", "1: url: it is true or false; write a string"},
		{"{\"id\": \"x\", \"title\": {}}", "1: title: it is an object; write a string"},
		{"{\"id\": \"x\", \"labels\": \"a;b\"}", "1: labels: it is a string; write an array of strings"},
		{"{\"id\": \"x\", \"labels\": [\"a\", null]}", "1: labels: one is null; write an array of strings"},
		{"{\"id\": \"x\", \"duration_ms\": \"12\"}", "1: duration_ms: it is a string; write a number"},
		{"{\"id\": \"x\", \"duration_ms\": -1}",
		 "1: duration_ms: it is not between 0 and 9007199254741 milliseconds"},
		{"{\"id\": \"x\", \"duration_ms\": 1e300}",
		 "1: duration_ms: it is not between 0 and 9007199254741 milliseconds"},
		{"{\"id\": \"a\\tb\", \"path\": \"a\"}",
		 "1: id: it has a control character (a tab, a line's end); leave it out"},
		{"{\"id\": \"a\\u009bb\", \"path\": \"a\"}",
		 "1: id: it has a control character (a tab, a line's end); leave it out"},
		{"{\"id\": \"a\\u0000b\", \"path\": \"a\"}", "1: it has a zero byte (\\u0000); leave it out"},
		{"{\"id\": \"x\", \"id\": \"y\", \"path\": \"a\"}", "1: not JSON: duplicate object key near '\"id\"' (column 16)"},
		{"[\"x\", \"a.mp4\"]", "1: it is an array; write an object, like {\"id\": \"a\", \"path\": \"a.mp4\"}"},
		{"null", "1: it is null; write an object, like {\"id\": \"a\", \"path\": \"a.mp4\"}"},
		{"{\"id\": \"x\", \"path\": \"\xff\"}", "1: it is not UTF-8; save the file as UTF-8 (other bytes of a path can "
							"be given by a file: URL)"},
		{GOOD "{\"id\": \"x\", \"url\": \"films/a.mp4\"}",
		 "2: url: it has no scheme, like file:///films/a.mp4; a path belongs in the field path"},
		{GOOD "{\"id\": \"x\", \"url\": \"file:///a%2\"}",
		 "2: url: a '%' is followed by two hexadecimal digits; write %25 for the character itself"},
	};

	(void)state;
	expect_bad("films.jsonl", bad, KX_ARRAY_LEN(bad));
}

static void bad_csv_is_named(void **state)
{
	static const struct bad bad[] = {
		{"", "1: no header row; the first one names the columns"},
		{"path,title\n",
		 "1: id: no column has this name; the first row names the columns, with commas between"},
		{"id;path\n", "1: id: no column has this name; the first row names the columns, with commas between"},
		{"id,title\n", "1: path: no column has this name, nor url"},
		{"id,path,id\n", "1: id: two columns have this name"},
		{"id,path\na,b\nx\n", "3: it has 1 fields, and the header row has 2"},
		{"id,path\nx,a,b\n", "2: it has 3 fields, and the header row has 2"},
		{"id,path\n,a\n", "2: no id; give each input one of its own"},
		{"id,path\nx,\n", "2: no path and no url; give one of them"},
		{"id,path,title\na,b,\"1\n2\n3\"\na,c,\n", "5: id: \"a\" is that of line 2 already; give each input its own"},
		{"id,path\na,b\nx,a\"b\n", "3: field 2: a quote where none belongs; put quotes around the field and write each "
					   "quote in it twice"},
		{"id,path\n\"x\"y,a\n", "2: field 1: a quote where none belongs; put quotes around the field and write each "
					"quote in it twice"},
		{"id,path\na,b\nx,\"a\n\nb,c\n", "3: a quoted field has no closing quote"},
		{"id,path,duration_ms\nx,a,1 min\n", "2: duration_ms: \"1 min\" is no number"},
		{"id,path,duration_ms\nx,a,-2\n", "2: duration_ms: it is not between 0 and 9007199254741 milliseconds"},
		{"id,path\n\"x\ny\",a\n", "2: id: it has a control character (a tab, a line's end); leave it out"},
		{"id,path\nx,\xe9.mp4\n", "2: it is not UTF-8; save the file as UTF-8 (other bytes of a path can be given by a "
					  "file: URL)"},
		{"id,url\nx,file://host/a\n",
		 "2: url: it names another host; three slashes stand before a path of this one (file:///a)"},
	};

	(void)state;
	expect_bad("films.csv", bad, KX_ARRAY_LEN(bad));
}

static void zero_bytes_are_named(void **state)
{
	static const char json[] = GOOD "{\"id\": \"x\0\", \"path\": \"a\"}\n";
	static const char utf16[] = "i\0d\0,\0p\0a\0t\0h\0\n\0";

	(void)state;
	test_tree_write_bytes("films.jsonl", json, sizeof(json) - 1);
	test_tree_expect_error("films.jsonl", KX_EINVAL, "films.jsonl:2: it has zero bytes; save the file as UTF-8 text");
	test_tree_write_bytes("films.csv", utf16, sizeof(utf16) - 1);
	test_tree_expect_error("films.csv", KX_EINVAL, "films.csv:1: it has zero bytes; save the file as UTF-8 text");
}

/* head, then len times c, then tail. */
static void write_long(const char *path, const char *head, char c, size_t len, const char *tail)
{
	struct kx_buf text KX_CLEANUP(kx_buf_done) = {.max = 4 << 20};
	char *middle KX_CLEANUP(kx_cleanup_free) = malloc(len);

	memset(middle, c, len);
	assert_int_equal(kx_buf_append(&text, head, strlen(head)), KX_OK);
	assert_int_equal(kx_buf_append(&text, middle, len), KX_OK);
	assert_int_equal(kx_buf_append(&text, tail, strlen(tail)), KX_OK);
	test_tree_write_bytes(path, text.data, text.len);
}

static void too_long_is_named(void **state)
{
	static const char tail[] = "\", \"path\": \"a.mp4\"}\n";

	(void)state;
	write_long("a.jsonl", GOOD "{\"id\": \"", 'x', KX_ID_MAX + 1, tail);
	test_tree_expect_error("a.jsonl", KX_EINVAL, "a.jsonl:2: id: 4097 bytes, and at most 4096 are allowed");
	write_long("a.jsonl", GOOD "{\"id\": \"y\", \"title\": \"", 'x', KX_TEXT_MAX + 1, tail);
	test_tree_expect_error("a.jsonl", KX_EINVAL, "a.jsonl:2: title: 4097 bytes, and at most 4096 are allowed");
	write_long("a.jsonl", GOOD "{\"id\": \"y\", \"labels\": [\"", 'x', KX_TEXT_MAX + 1, "\"]}");
	test_tree_expect_error("a.jsonl", KX_EINVAL,
			       "a.jsonl:2: labels: one of 4097 bytes, and at most 4096 are allowed");
	write_long("a.jsonl", "{\"id\": \"y\", \"path\": \"", 'x', KX_PATH_MAX + 1, "\"}");
	test_tree_expect_error("a.jsonl", KX_EINVAL, "a.jsonl:1: path: 16385 bytes, and at most 16384 are allowed");
	write_long("a.jsonl", "{\"id\": \"y\", \"url\": \"", 'x', KX_PATH_MAX + 1, "\"}");
	test_tree_expect_error("a.jsonl", KX_EINVAL, "a.jsonl:1: url: 16385 bytes, and at most 16384 are allowed");
	write_long("a.jsonl", GOOD "{\"note\": \"", 'x', KX_LINE_MAX, tail);
	test_tree_expect_error("a.jsonl", KX_ETOOBIG,
			       "a.jsonl:2: longer than the 1048576 bytes that a line may have");
	write_long("a.csv", "id,path,labels\ny,a,", ';', 10, "\n");
	test_tree_expect("a.csv", "y not-found\n");
	write_long("a.csv", "id,path,labels\ny,a,x", 'y', KX_TEXT_MAX, "\n");
	test_tree_expect_error("a.csv", KX_EINVAL, "a.csv:2: labels: one of 4097 bytes, and at most 4096 are allowed");
	write_long("a.csv", "id,path\ny,\"\n", '\n', KX_LINE_MAX, "\n");
	test_tree_expect_error("a.csv", KX_ETOOBIG, "a.csv:2: a quoted field has no closing quote within 1048576 bytes");
	write_long("a.csv", "id,path", ',', 1100, "\n");
	test_tree_expect_error("a.csv", KX_EINVAL, "a.csv:1: more than 1024 fields");
}

static void a_path_too_long_with_its_folder_is_named(void **state)
{
	char *expected KX_CLEANUP(kx_cleanup_free) = NULL;

	write_long("a.jsonl", "{\"id\": \"y\", \"path\": \"", 'x', KX_PATH_MAX, "\"}");
	expected = kx_strf("a.jsonl:1: path: with the manifest's folder before it, it has %zu bytes, and at most 16384 are "
			   "allowed", KX_PATH_MAX + 1 + strlen(*state));
	test_tree_expect_error("a.jsonl", KX_EINVAL, expected);
	write_long("b.jsonl", "{\"id\": \"y\", \"path\": \"", 'x', 5000, "\"}");
	test_tree_expect("b.jsonl", "y unsupported\n");
}

static void too_many_labels_are_named(void **state)
{
	struct kx_buf text KX_CLEANUP(kx_buf_done) = {.max = 1 << 20};

	(void)state;
	assert_int_equal(kx_buf_printf(&text, "id,path,labels\nx,a,l"), KX_OK);
	for (unsigned i = 0; i < KX_LABELS_MAX; i++)
		assert_int_equal(kx_buf_printf(&text, ";l"), KX_OK);
	test_tree_write("a.csv", (const char *)text.data);
	test_tree_expect_error("a.csv", KX_EINVAL, "a.csv:2: labels: more than 1024");
}

static unsigned log_lines;

static void count_log_line(void *ctx)
{
	(void)ctx;
	log_lines++;
}

static void what_is_not_known_is_told_once(void **state)
{
	(void)state;
	kx_log_set_level(KX_LOG_INFO);
	kx_log_set_hooks(count_log_line, NULL, NULL);
	test_tree_write("a.csv", "id,path,views,likes\na,a,1,2\nb,b,1,2\n");
	test_tree_expect("a.csv", "a not-found\nb not-found\n");
	assert_int_equal(log_lines, 1);
	test_tree_write("a.jsonl", "{\"id\": \"a\", \"path\": \"a\"}\n"
				   "{\"id\": \"b\", \"path\": \"b\", \"views\": 1, \"likes\": 2}\n"
				   "{\"id\": \"c\", \"path\": \"c\", \"more\": 1}\n");
	test_tree_expect("a.jsonl", "a not-found\nb not-found\nc not-found\n");
	assert_int_equal(log_lines, 2);
	kx_log_set_hooks(NULL, NULL, NULL);
	kx_log_set_level(KX_LOG_WARN);
}

static void append_text(const char *path, const char *text)
{
	FILE *file KX_CLEANUP(kx_cleanup_fclose) = fopen(path, "ae");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
}

/* Half of a list that somebody is writing must not make the other half deleted. */
static void a_manifest_that_changes_ends_the_walk(void **state)
{
	(void)state;
	test_tree_write("a.jsonl", GOOD);
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = test_tree_open("a.jsonl");
	struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = next(source);
	struct kx_source_item *none = NULL;
	struct kx_error error = {0};

	assert_string_equal(item->video_id, "good");
	append_text("a.jsonl", "\n");
	assert_int_equal(kx_source_next(source, &none, &error), KX_EIO);
	assert_int_equal(error.class, KX_ERROR_RETRY);
	assert_string_equal(error.message, "a.jsonl: it changed while it was read; run again");
}

static void a_manifest_that_is_replaced_is_read_as_it_was(void **state)
{
	(void)state;
	test_tree_write("a.jsonl", GOOD);
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = test_tree_open("a.jsonl");
	char *walked KX_CLEANUP(kx_cleanup_free) = NULL;

	assert_int_equal(kx_fs_write("a.jsonl", "something else", 14, NULL), KX_OK);
	walked = test_tree_walk(source);
	assert_string_equal(walked, "good not-found\n");
}

static void a_disk_that_fails_is_named(void **state)
{
	(void)state;
	test_tree_write("a.jsonl", GOOD);
	kx_fault_arm("source.read", 1);
	test_tree_expect_error("a.jsonl", KX_EIO, "a.jsonl:1: reading: Input/output error");
}

static void a_relative_manifest_of_this_folder(void **state)
{
	char *path KX_CLEANUP(kx_cleanup_free) = kx_strf("%s/a.mp4", (char *)*state);

	test_tree_write("a.csv", "id,path\na,a.mp4\n");
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = test_tree_open("a.csv");
	struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = next(source);

	assert_string_equal(item->path, path);
}

static void walk_with_fault(const char *arg, uint64_t nth, bool *ret_clean)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
	kx_status status;

	kx_fault_arm("str.alloc", nth);
	status = kx_source_open(arg, &source, NULL);
	while (!status) {
		struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = NULL;

		status = kx_source_next(source, &item, NULL);
	}
	*ret_clean = status == KX_ENOTFOUND;
	assert_true(*ret_clean || status == KX_ENOMEM);
}

static void every_allocation_may_fail(void **state)
{
	static const char *const args[] = {"a.csv", "a.jsonl"};

	(void)state;
	test_tree_write("a.csv", "id,path,url,title,labels\na,a,,t,l;m\nb,,file:///b,,\nc,,http://c,,\n");
	test_tree_write("a.jsonl", "{\"id\": \"a\", \"path\": \"a\", \"title\": \"t\", \"labels\": [\"l\", \"m\"]}\n"
				   "{\"id\": \"b\", \"url\": \"file:///b\"}\n{\"id\": \"c\", \"url\": \"http://c\"}\n");
	for (size_t i = 0; i < KX_ARRAY_LEN(args); i++) {
		bool clean = false;

		for (uint64_t nth = 1; !clean; nth++) {
			assert_true(nth < 1000);
			walk_with_fault(args[i], nth, &clean);
		}
	}
}

int main(void)
{
#define LIST(test) cmocka_unit_test_setup_teardown(test, test_tree_setup, test_tree_teardown)
	const struct CMUnitTest tests[] = {
		LIST(json_says_all),
		LIST(csv_says_all),
		LIST(what_cannot_be_read_has_its_reason),
		LIST(a_url_of_another_scheme_stays_in_sight),
		LIST(manifests_without_rows),
		LIST(bad_json_is_named),
		LIST(bad_csv_is_named),
		LIST(zero_bytes_are_named),
		LIST(too_long_is_named),
		LIST(a_path_too_long_with_its_folder_is_named),
		LIST(too_many_labels_are_named),
		LIST(what_is_not_known_is_told_once),
		LIST(a_manifest_that_changes_ends_the_walk),
		LIST(a_manifest_that_is_replaced_is_read_as_it_was),
		LIST(a_disk_that_fails_is_named),
		LIST(a_relative_manifest_of_this_folder),
		LIST(every_allocation_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
