/* Language, visibility and attributes of manifests, and the types that hold for all rows. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/str.h"
#include "coordinator/source/test_tree.h"

/* "season=3 live=true league=x", by name; then language and visibility. */
static char *tell(const struct kx_source_item *item)
{
	struct kx_buf text = {.max = 1 << 20};

	for (uint32_t i = 0; i < item->extras.attribute_count; i++) {
		const struct kx_attribute *attribute = &item->extras.attributes[i];

		assert_int_equal(kx_buf_printf(&text, "%s=", attribute->name), KX_OK);
		if (attribute->type == KX_ATTRIBUTE_NUMBER)
			assert_int_equal(kx_buf_printf(&text, "%g ", attribute->number), KX_OK);
		else if (attribute->type == KX_ATTRIBUTE_BOOL)
			assert_int_equal(kx_buf_printf(&text, "%s ", attribute->flag ? "true" : "false"), KX_OK);
		else
			assert_int_equal(kx_buf_printf(&text, "'%s' ", attribute->text), KX_OK);
	}
	assert_int_equal(kx_buf_printf(&text, "%s,%s", item->extras.language, item->extras.visibility), KX_OK);
	return (char *)text.data;
}

static void expect_rows(const char *arg, const struct kx_schema *schema, const char *const *rows)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
	struct kx_error error = {0};

	if (kx_source_open_typed(arg, schema, &source, &error))
		fail_msg("%s", error.message);
	for (; *rows; rows++) {
		struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = NULL;
		char *told;

		assert_int_equal(kx_source_next(source, &item, NULL), KX_OK);
		told = tell(item);
		assert_string_equal(told, *rows);
		free(told);
	}
}

static void expect_refused(const char *arg, const struct kx_schema *schema, const char *message)
{
	struct kx_source *source = NULL;
	struct kx_error error = {0};

	assert_int_equal(kx_source_open_typed(arg, schema, &source, &error), KX_EINVAL);
	if (!strstr(error.message, message))
		fail_msg("%s", error.message);
}

static void json_keeps_its_types(void **state)
{
	static const char *const rows[] = {"league='x' live=true season=3 en,public", "season=2.5 ,", ",", NULL};

	(void)state;
	test_tree_write("a.jsonl", "{\"id\": \"a\", \"path\": \"a\", \"language\": \"en\", \"visibility\": \"public\", "
				   "\"attributes\": {\"season\": 3, \"live\": true, \"league\": \"x\", \"none\": null}}\n"
				   "{\"id\": \"b\", \"path\": \"b\", \"attributes\": {\"season\": 2.5}}\n"
				   "{\"id\": \"c\", \"path\": \"c\", \"attributes\": {}, \"language\": null}\n");
	expect_rows("a.jsonl", NULL, rows);
}

static void csv_types_hold_for_all_rows(void **state)
{
	static const char *const rows[] = {"code='007' live=true season=3 de,", "code='x' season=4 ,private", NULL};

	(void)state;
	test_tree_write("a.csv", "id,path,attr.season,attr.code, attr.live ,language,visibility\n"
				 "a,a,3,007,TRUE,de,\nb,b, 4 ,x,,,private\n");
	expect_rows("a.csv", NULL, rows);
}

static void what_is_declared_holds(void **state)
{
	static const char *const rows[] = {"code='7' season=3 ,", NULL};
	struct kx_schema *schema KX_CLEANUP(kx_schema_cleanup) = NULL;
	struct kx_error error = {0};

	(void)state;
	test_tree_write("s.json", "{\"season\": \"number\", \"code\": \"string\", \"live\": \"bool\"}");
	if (kx_schema_load("s.json", &schema, &error))
		fail_msg("%s", error.message);
	test_tree_write("a.csv", "id,path,attr.season,attr.code\na,a,3,7\n");
	expect_rows("a.csv", schema, rows);
	test_tree_write("b.csv", "id,path,attr.season\na,a,3\nb,b,three\n");
	expect_refused("b.csv", schema, "b.csv:3: attributes: season is text, and it is declared as number");
	test_tree_write("b.jsonl", "{\"id\": \"a\", \"path\": \"a\"}\n"
				   "{\"id\": \"b\", \"path\": \"b\", \"attributes\": {\"live\": \"yes\"}}\n");
	expect_refused("b.jsonl", schema, "b.jsonl:2: attributes: live is text, and it is declared as bool");
}

static void mistakes_are_named(void **state)
{
	(void)state;
#define ROW "{\"id\": \"a\", \"path\": \"a\", "
	test_tree_write("a.jsonl", ROW "\"attributes\": {\"x\": 1}}\n{\"id\": \"b\", \"path\": \"b\", \"attributes\": {\"x\": \"1\"}}\n");
	expect_refused("a.jsonl", NULL, "a.jsonl:2: attributes: x is text, and on line 1 it is number");
	test_tree_write("a.jsonl", ROW "\"attributes\": {\"x\": [1]}}\n");
	expect_refused("a.jsonl", NULL, "a.jsonl:1: attributes: x is an array");
	test_tree_write("a.jsonl", ROW "\"attributes\": 5}\n");
	expect_refused("a.jsonl", NULL, "attributes: it is a number; write an object");
	test_tree_write("a.jsonl", ROW "\"attributes\": {\"two words\": 5}}\n");
	expect_refused("a.jsonl", NULL, "attributes: \"two words\" is no name");
	test_tree_write("a.jsonl", ROW "\"language\": 5}\n");
	expect_refused("a.jsonl", NULL, "a.jsonl:1: language: it is a number");
	test_tree_write("a.jsonl", ROW "\"visibility\": \"0123456789012345678901234567890123456789012345678901234567890123456789\"}\n");
	expect_refused("a.jsonl", NULL, "visibility: 70 bytes, and at most 64");
	test_tree_write("a.csv", "id,path,attr.x,attr.x\na,a,1,2\n");
	expect_refused("a.csv", NULL, "two columns are named attr.x");
	test_tree_write("a.csv", "id,path,attr.\na,a,1\n");
	expect_refused("a.csv", NULL, "\"\" is no name");
}

static void too_many_are_refused(void **state)
{
	struct kx_buf text = {.max = 1 << 20};

	(void)state;
	assert_int_equal(kx_buf_printf(&text, ROW "\"attributes\": {\"x\": 1"), KX_OK);
	for (unsigned i = 0; i < KX_ATTRIBUTES_MAX; i++)
		assert_int_equal(kx_buf_printf(&text, ", \"x%u\": 1", i), KX_OK);
	assert_int_equal(kx_buf_printf(&text, "}}\n"), KX_OK);
	test_tree_write("a.jsonl", (char *)text.data);
	expect_refused("a.jsonl", NULL, "attributes: more than 64");
	kx_buf_done(&text);
}

static void bad_schemas_are_refused(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"{\"a\": \"int\"}", "s.json: a: write \"text\", \"number\" or \"bool\""},
		{"{\"a\": 5}", "s.json: a: write"},
		{"[]", "write an object"},
		{"{", "s.json:1: not JSON"},
		{"{\"a b\": \"text\"}", "\"a b\" is no name"},
	};
	struct kx_schema *schema = NULL;
	struct kx_error error = {0};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(cases); i++) {
		test_tree_write("s.json", cases[i].text);
		assert_int_equal(kx_schema_load("s.json", &schema, &error), KX_EINVAL);
		if (!strstr(error.message, cases[i].says))
			fail_msg("%s", error.message);
	}
	assert_int_equal(kx_schema_load("nowhere.json", &schema, &error), KX_ENOTFOUND);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_tree_setup, test_tree_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(json_keeps_its_types),
		TEST(csv_types_hold_for_all_rows),
		TEST(what_is_declared_holds),
		TEST(mistakes_are_named),
		TEST(too_many_are_refused),
		TEST(bad_schemas_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
