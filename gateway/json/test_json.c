/* Bodies to queries and back: what is taken, what is refused and where it says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "gateway/json/base64.h"
#include "gateway/json/decode.h"
#include "gateway/json/encode.h"
#include "gateway/json/problem.h"

static const struct kx_decode_limits limits = {.k_max = 100, .batch_max = 3};

static struct kx_query_request *takes(enum kx_body body, const char *text)
{
	struct kx_query_request *request = NULL, *again = NULL;
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	struct kx_error error = {0};

	if (kx_decode_body(body, text, strlen(text), &limits, &request, &error) != KX_OK)
		fail_msg("%s: %s", text, error.message);
	/* What was taken, a shard takes. */
	assert_int_equal(kx_query_request_pack(request, &packed), KX_OK);
	if (kx_query_request_unpack(packed.data, packed.len, &again, &error) != KX_OK)
		fail_msg("%s: %s", text, error.message);
	kx_query_request_free(again);
	kx_buf_done(&packed);
	return request;
}

static void refuses(enum kx_body body, const char *text, const char *words)
{
	struct kx_query_request *request = NULL;
	struct kx_error error = {0};
	kx_status status = kx_decode_body(body, text, strlen(text), &limits, &request, &error);

	if ((status != KX_EINVAL && status != KX_ETOOBIG) || request != NULL || strstr(error.message, words) == NULL)
		fail_msg("%s: %d, %s", text, status, error.message);
}

static void test_similar(void **state)
{
	struct kx_query_request *request = takes(
		KX_BODY_SIMILAR,
		"{\"id\": \"a/\\u00e9\", \"k\": 7, \"moments\": true, \"weights\": {\"audio\": 1}, \"filter\": \"duration<3\","
		"\"min_score\": -0.5, \"cursor\": \"c\", \"group\": \"source\", \"diversity\": 0.5, \"not_ids\": [\"x\", \"y\"],"
		"\"level\": \"moments\", \"recall\": 0.9, \"explain\": true}");
	const struct kx_similar_query *query = &request->similar;

	(void)state;
	assert_int_equal(request->kind, KX_QUERY_SIMILAR);
	assert_string_equal(query->video_id, "a/\xc3\xa9");
	assert_int_equal(query->k, 7);
	assert_true(query->with_moments && query->has_min_score && query->explain);
	assert_true(query->weight_visual == 0 && query->weight_audio == 1 && query->min_score == -0.5);
	assert_string_equal(query->filter, "duration<3");
	assert_string_equal(query->cursor, "c");
	assert_int_equal(query->group, KX_GROUP_SOURCE);
	assert_int_equal(query->level, KX_LEVEL_MOMENTS);
	assert_int_equal(query->not_id_count, 2);
	assert_string_equal(query->not_ids[1], "y");
	assert_true(query->diversity == 0.5 && query->recall == 0.9);
	kx_query_request_free(request);

	request = takes(KX_BODY_SIMILAR, "{\"id\": \"a\", \"filter\": null}");
	assert_int_equal(request->similar.k, 10);
	assert_true(request->similar.weight_visual == 0.6 && request->similar.weight_audio == 0.4);
	assert_false(request->similar.has_min_score || request->similar.with_moments);
	kx_query_request_free(request);
}

static void test_search(void **state)
{
	struct kx_query_request *request = takes(
		KX_BODY_SEARCH, "{\"vectors\": [{\"modality\": \"visual\", \"space\": \"s\", \"values\": [1, -0.5]},"
				"{\"modality\": \"audio\", \"space\": \"t\", \"f32\": \"AACAPwAAAMA=\"}], \"k\": 2}");

	(void)state;
	assert_int_equal(request->kind, KX_QUERY_SIMILAR);
	assert_int_equal(request->similar.vector_count, 2);
	assert_int_equal(request->similar.vectors[0].modality, KX_VISUAL);
	assert_true(request->similar.vectors[0].values[1] == -0.5f);
	assert_int_equal(request->similar.vectors[1].dim, 2);
	assert_true(request->similar.vectors[1].values[0] == 1.0f && request->similar.vectors[1].values[1] == -2.0f);
	kx_query_request_free(request);

	request = takes(KX_BODY_SEARCH, "{\"queries\": [{\"id\": \"a\"}, {\"k\": 3, \"vectors\": [{\"modality\": \"audio\","
					"\"space\": \"t\", \"values\": [1]}]}]}");
	assert_int_equal(request->kind, KX_QUERY_SIMILAR_BATCH);
	assert_int_equal(request->batch_count, 2);
	assert_string_equal(request->batch[0].video_id, "a");
	assert_int_equal(request->batch[1].k, 3);
	kx_query_request_free(request);
}

static void test_videos(void **state)
{
	struct kx_query_request *request = takes(KX_BODY_VIDEOS, "{\"ids\": [\"a\", \"b\"]}");

	(void)state;
	assert_int_equal(request->kind, KX_QUERY_VIDEOS);
	assert_int_equal(request->video_id_count, 2);
	kx_query_request_free(request);
}

static void test_refusals_say_where(void **state)
{
	(void)state;
	refuses(KX_BODY_SIMILAR, "", "no JSON");
	refuses(KX_BODY_SIMILAR, "{\"id\": ", "line 1");
	refuses(KX_BODY_SIMILAR, "[]", "object");
	refuses(KX_BODY_SIMILAR, "{}", "id: is missing");
	refuses(KX_BODY_SIMILAR, "{\"id\": 3}", "id: must be text");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"\"}", "id: must be text");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\\u0000b\"}", "no JSON");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"\xff\"}", "no JSON");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"id\": \"b\"}", "duplicate");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"K\": 3}", "K: there is no such field");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"k\": 0}", "k: must be");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"k\": 101}", "k: must be");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"k\": 1.5}", "k: must be");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"k\": 99999999999999999999}", "no JSON");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"moments\": 1}", "moments: must be true or false");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"weights\": 1}", "weights: must be an object");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"weights\": {}}", "weights: one of them");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"weights\": {\"audio\": -1}}", "weights.audio: must be");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"weights\": {\"sound\": 1}}", "weights.sound: there is no such");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"group\": \"x\"}", "group: must be one of none source duplicates");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"recall\": 0}", "recall: must be over 0");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"not_ids\": [\"\"]}", "not_ids: [0]");
	refuses(KX_BODY_SIMILAR, "{\"id\": \"a\", \"vectors\": []}", "vectors: there is no such field");
	refuses(KX_BODY_SEARCH, "{}", "neither an id nor vectors");
	refuses(KX_BODY_SEARCH, "{\"vectors\": []}", "vectors: must be a list of 1 to 2");
	refuses(KX_BODY_SEARCH, "{\"vectors\": [1]}", "vectors[0]: must be an object");
	refuses(KX_BODY_SEARCH, "{\"vectors\": [{\"space\": \"s\", \"values\": [1]}]}", "vectors[0].modality: is missing");
	refuses(KX_BODY_SEARCH, "{\"vectors\": [{\"modality\": \"visual\", \"values\": [1]}]}", "vectors[0].space: is missing");
	refuses(KX_BODY_SEARCH, "{\"vectors\": [{\"modality\": \"visual\", \"space\": \"s\"}]}", "either values or f32");
	refuses(KX_BODY_SEARCH, "{\"vectors\": [{\"modality\": \"\", \"space\": \"s\", \"values\": [1]}]}", "modality: must be");
	refuses(KX_BODY_SEARCH, "{\"vectors\": [{\"modality\": \"visual\", \"space\": \"s\", \"values\": [1, \"2\"]}]}", "values");
	refuses(KX_BODY_SEARCH, "{\"vectors\": [{\"modality\": \"visual\", \"space\": \"s\", \"values\": [1e300]}]}", "values");
	refuses(KX_BODY_SEARCH, "{\"vectors\": [{\"modality\": \"visual\", \"space\": \"s\", \"f32\": \"AAA\"}]}", "f32");
	refuses(KX_BODY_SEARCH, "{\"vectors\": [{\"modality\": \"visual\", \"space\": \"s\", \"f32\": \"AADAfw==\"}]}", "f32");
	refuses(KX_BODY_SEARCH,
		"{\"vectors\": [{\"modality\": \"visual\", \"space\": \"s\", \"values\": [1]},"
		"{\"modality\": \"visual\", \"space\": \"s\", \"values\": [1]}]}",
		"two of one modality");
	refuses(KX_BODY_SEARCH, "{\"queries\": []}", "queries: must be a list of 1 to 3");
	refuses(KX_BODY_SEARCH, "{\"queries\": [{\"id\": \"a\"}, {\"id\": \"a\"}, {\"id\": \"a\"}, {\"id\": \"a\"}]}", "1 to 3");
	refuses(KX_BODY_SEARCH, "{\"queries\": [{\"id\": \"a\"}, {\"id\": \"a\", \"k\": 0}]}", "queries[1].k: must be");
	refuses(KX_BODY_SEARCH, "{\"queries\": [{\"id\": \"a\"}, {}]}", "queries[1]: neither");
	refuses(KX_BODY_SEARCH, "{\"queries\": [{\"id\": \"a\"}], \"k\": 3}", "k: there is no such field");
	refuses(KX_BODY_VIDEOS, "{\"ids\": []}", "ids: is missing or empty");
	refuses(KX_BODY_VIDEOS, "{\"ids\": [\"a\", \"b\", \"c\", \"d\"]}", "ids: must be a list");
}

static void test_depth(void **state)
{
	char text[100] = "{\"id\": ";

	(void)state;
	memset(text + strlen(text), '[', 60);
	refuses(KX_BODY_SIMILAR, text, "deeper than 16");
	/* Brackets in text are none. */
	kx_query_request_free(takes(KX_BODY_SIMILAR, "{\"id\": \"[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[[[\"}"));
}

static void test_arguments_mean_the_same(void **state)
{
	static const struct kx_decode_arg args[] = {{"id", "a b"},        {"k", "3"},        {"moments", "true"},
						    {"visual", "1"},      {"audio", "0.5"},  {"filter", "x=1"},
						    {"not_ids", "p,q"},   {"explain", ""},   {"min_score", "0.25"}};
	static const struct kx_decode_arg bad[][1] = {{{"k", "x"}}, {{"k", "-1"}}, {{"moments", "maybe"}}, {{"nothing", "1"}}};
	struct kx_query_request *request = NULL;
	struct kx_error error = {0};

	(void)state;
	if (kx_decode_similar_args(args, KX_ARRAY_LEN(args), &limits, &request, &error) != KX_OK)
		fail_msg("%s", error.message);
	assert_string_equal(request->similar.video_id, "a b");
	assert_int_equal(request->similar.k, 3);
	assert_true(request->similar.with_moments && request->similar.explain);
	assert_true(request->similar.weight_visual == 1 && request->similar.weight_audio == 0.5);
	assert_int_equal(request->similar.not_id_count, 2);
	assert_true(request->similar.min_score == 0.25);
	kx_query_request_free(request);
	for (size_t i = 0; i < KX_ARRAY_LEN(bad); i++) {
		assert_int_equal(kx_decode_similar_args(bad[i], 1, &limits, &request, &error), KX_EINVAL);
		assert_non_null(strstr(error.message, bad[i][0].name));
	}
	assert_int_equal(kx_decode_similar_args(NULL, 0, &limits, &request, &error), KX_EINVAL);
}

static void test_base64(void **state)
{
	static const struct {
		const char *text, *bytes;
	} cases[] = {{"", ""}, {"Zg==", "f"}, {"Zm8=", "fo"}, {"Zm9v", "foo"}, {"Zm9vYmE=", "fooba"}, {"++//", "\xfb\xef\xff"}};
	static const char *const bad[] = {"Z", "Zg=", "Zg", "Z===", "====", "Zm9v\n", "Zm 9", "Zm9_"};
	uint8_t *out = NULL;
	size_t len;

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(cases); i++) {
		assert_int_equal(kx_base64_decode(cases[i].text, 100, &out, &len), KX_OK);
		assert_int_equal(len, strlen(cases[i].bytes));
		assert_memory_equal(out, cases[i].bytes, len);
		free(out);
	}
	for (size_t i = 0; i < KX_ARRAY_LEN(bad); i++)
		assert_int_equal(kx_base64_decode(bad[i], 100, &out, &len), KX_EINVAL);
	assert_int_equal(kx_base64_decode("Zm9v", 2, &out, &len), KX_ETOOBIG);
}

static void test_writer(void **state)
{
	struct kx_buf out = {.max = 4096};
	struct kx_json json = {.out = &out};

	(void)state;
	kx_json_open(&json, NULL, '{');
	kx_json_text(&json, "t", "a\"\\\b\f\n\r\t\x01\x7f\xc3\xa9\xff\xf0\x9f\x8e\xac");
	kx_json_open(&json, "l", '[');
	kx_json_real(&json, NULL, 0.1);
	kx_json_real(&json, NULL, 1.0 / 0.0);
	kx_json_seconds(&json, NULL, 1500001);
	kx_json_close(&json, ']');
	kx_json_bool(&json, "b", false);
	kx_json_integer(&json, "i", UINT64_MAX);
	kx_json_close(&json, '}');
	assert_int_equal(json.status, KX_OK);
	assert_string_equal((char *)out.data,
			    "{\"t\":\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\x7f\xc3\xa9\xef\xbf\xbd\xf0\x9f\x8e\xac\","
			    "\"l\":[0.1,null,1.500001],\"b\":false,\"i\":18446744073709551615}");
	kx_buf_done(&out);
	out = (struct kx_buf){.max = 8};
	json = (struct kx_json){.out = &out};
	kx_json_text(&json, NULL, "0123456789");
	assert_int_equal(json.status, KX_ETOOBIG);
	kx_buf_done(&out);
}

static void test_problems(void **state)
{
	struct kx_buf out = {.max = 4096};

	(void)state;
	assert_int_equal(kx_problem_write(404, "no \"x\"", &out), KX_OK);
	assert_string_equal((char *)out.data, "{\"type\":\"urn:kinodex:problem:not-found\",\"title\":\"There is no such thing "
					      "here\",\"status\":404,\"detail\":\"no \\\"x\\\"\"}");
	assert_int_equal(kx_problem_write(400, "filter, character 18: a value is missing", &out), KX_OK);
	assert_non_null(strstr((char *)out.data, "\"offset\":17}"));
	kx_buf_done(&out);
	for (int status = KX_EPERM; status < 0; status++)
		assert_true(kx_problem_code((kx_status)status) >= 400 && kx_problem_code((kx_status)status) < 600);
	assert_int_equal(kx_problem_code(KX_EINVAL), 400);
	assert_int_equal(kx_problem_code(KX_ENOTFOUND), 404);
	assert_int_equal(kx_problem_code(KX_ETOOBIG), 413);
	assert_int_equal(kx_problem_code(KX_EBUSY), 503);
	assert_int_equal(kx_problem_code(KX_ETIMEDOUT), 504);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_similar),
		cmocka_unit_test(test_search),
		cmocka_unit_test(test_videos),
		cmocka_unit_test(test_refusals_say_where),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_arguments_mean_the_same),
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_writer),
		cmocka_unit_test(test_problems),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
