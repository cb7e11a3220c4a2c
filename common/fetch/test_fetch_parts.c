#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/fetch/cache.h"
#include "common/fetch/response.h"
#include "common/fetch/url.h"

static const char *const variables[] = {
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION",
	"AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE",
};

/* A home with nothing in it. */
static int set_up(void **state)
{
	char *home = kx_strdup("/tmp/kx-fetch-XXXXXX");
	for (size_t i = 0; i < KX_ARRAY_LEN(variables); i++)
		unsetenv(variables[i]);
	if (!home || !mkdtemp(home))
		return -1;
	setenv("HOME", home, 1);
	*state = home;
	return 0;
}

static int tear_down(void **state)
{
	kx_status status = kx_fs_remove_tree(*state, NULL);
	free(*state);
	return status;
}

static void write_aws(void **state, const char *name, const char *text)
{
	KX_CLEANUP(kx_cleanup_free) char *folder = kx_strf("%s/.aws", (char *)*state);
	KX_CLEANUP(kx_cleanup_free) char *path = kx_strf("%s/%s", folder, name);
	assert_int_equal(kx_fs_mkdirs(folder, NULL), KX_OK);
	assert_int_equal(kx_fs_write(path, text, strlen(text), NULL), KX_OK);
}

/* ---- addresses ---- */

static void expect_name(const char *url, const char *expected)
{
	KX_CLEANUP(kx_cleanup_free) char *name = kx_fetch_name(url);
	assert_string_equal(name, expected);
}

static void names_tell_no_secrets(void **state)
{
	(void)state;
	expect_name("https://host/a.mp4", "https://host/a.mp4");
	expect_name("https://user:pass@host:8443/a.mp4?id=5#t=3", "https://host:8443/a.mp4?id=5");
	expect_name("https://a@b@host/", "https://host/");
	expect_name("http://host/a@b.mp4", "http://host/a@b.mp4");
	expect_name("https://h/a?X-Amz-Signature=12&v=1&x-amz-credential=q", "https://h/a?v=1");
	expect_name("https://h/a?sig=abc&se=2026", "https://h/a");
	expect_name("https://h?token=1&a&key", "https://h?a");
	expect_name("https://h/a?sign=1&designation=sig", "https://h/a?sign=1&designation=sig");
	expect_name("s3://bucket/a?sig=b", "s3://bucket/a?sig=b"); /* a key, not a query */
	expect_name("/films/a.mp4", "/films/a.mp4");
}

static void expect_file(const char *url, const char *expected)
{
	KX_CLEANUP(kx_cleanup_free) char *name = kx_fetch_file_name(url);
	assert_string_equal(name, expected);
}

static void a_file_name_is_the_last_part(void **state)
{
	(void)state;
	expect_file("https://h/films/a%20b.mp4?x=/y#z", "a b.mp4");
	expect_file("https://h/films/", "films");
	expect_file("https://h", "h");
	expect_file("https://h/%zz%00%4", "%zz%00%4");
	expect_file("s3://b/c/a%20b?.mp4", "a%20b?.mp4");
}

static void kinds_of_address(void **state)
{
	(void)state;
	assert_true(kx_fetch_is_url("http://h/a"));
	assert_true(kx_fetch_is_url("HTTPS://h/a"));
	assert_true(kx_fetch_is_url("s3://b/a"));
	assert_false(kx_fetch_is_url("/http://h"));
	assert_false(kx_fetch_is_url("ftp://h/a"));
	assert_false(kx_fetch_is_url("https:/h"));
	assert_true(kx_fetch_is_prefix("s3://b"));
	assert_true(kx_fetch_is_prefix("s3://b/"));
	assert_true(kx_fetch_is_prefix("s3://b/a/"));
	assert_false(kx_fetch_is_prefix("s3://b/a"));
	assert_false(kx_fetch_is_prefix("https://h/a/"));
}

static void expect_target(const char *source, const char *url)
{
	struct kx_target target = {0};
	assert_int_equal(kx_target_of(source, &target, NULL), KX_OK);
	assert_string_equal(target.url, url);
	kx_target_done(&target);
}

static void what_is_asked_for(void **state)
{
	(void)state;
	expect_target("https://u:p@h/a%20b?c=d#e", "https://u:p@h/a%20b?c=d");
	expect_target("s3://films/a b+c/\xc3\xa9(1)'*~.mp4",
		      "https://films.s3.us-east-1.amazonaws.com/a%20b%2Bc/%C3%A9%281%29%27%2A~.mp4");
	expect_target("s3://my.films/a?b#c%20", "https://s3.us-east-1.amazonaws.com/my.films/a%3Fb%23c%2520");
	setenv("AWS_REGION", "eu-west-3", 1);
	expect_target("s3://films/../a//b", "https://films.s3.eu-west-3.amazonaws.com/../a//b");
	setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000//", 1);
	expect_target("s3://films/a", "http://127.0.0.1:9000/films/a");
	setenv("AWS_ENDPOINT_URL_S3", "minio:9000", 1);
	expect_target("s3://films/a", "https://minio:9000/films/a");
}

static void expect_bad(const char *source, const char *word)
{
	struct kx_target target = {0};
	struct kx_error error = {0};
	assert_int_equal(kx_target_of(source, &target, &error), KX_EINVAL);
	assert_non_null(strstr(error.message, word));
}

static void addresses_that_are_none(void **state)
{
	(void)state;
	expect_bad("https:///a", "no host");
	expect_bad("https://h/a b", "%20");
	expect_bad("https://h/\xc3\xa9", "%20");
	expect_bad("https://h/a\r\nHost: x", "%20");
	expect_bad("s3:///a", "no bucket");
	expect_bad("s3://bucket", "no object");
	expect_bad("s3://bu@cket/a", "no bucket");
	expect_bad("file:///a", "no address");
	struct kx_error error = {0};
	struct kx_target target = {0};
	assert_int_equal(kx_target_of("https://user:geheim@h/a b?token=geheim", &target, &error), KX_EINVAL);
	assert_null(strstr(error.message, "geheim"));
}

/* ---- who we are to S3 ---- */

static void expect_aws(const char *key, const char *secret, const char *token, const char *region,
		       const char *endpoint)
{
	struct kx_aws aws = {0};
	struct kx_error error = {0};
	assert_int_equal(kx_aws_load(&aws, &error), KX_OK);
	assert_true(kx_str_eq(aws.key, key));
	assert_true(kx_str_eq(aws.secret, secret));
	assert_true(kx_str_eq(aws.token, token));
	assert_true(kx_str_eq(aws.region, region));
	assert_true(kx_str_eq(aws.endpoint, endpoint));
	kx_aws_done(&aws);
}

static const char credentials[] = "# mine\n[default]\naws_access_key_id = K1\naws_secret_access_key=S1==\n\n"
				  "[work]\r\naws_access_key_id\t=\tK2\r\naws_secret_access_key = S2\r\n"
				  "aws_session_token = T2\r\n";
static const char config[] = "[default]\nregion = eu-central-1\ns3 =\n  region = nested\n  endpoint_url = nested\n"
			     "[profile work]\nregion=ap-1\nendpoint_url = http://work:1/\naws_access_key_id = other\n";

static void credentials_come_from_where_they_are_usual(void **state)
{
	expect_aws(NULL, NULL, NULL, "us-east-1", NULL);
	write_aws(state, "credentials", credentials);
	write_aws(state, "config", config);
	expect_aws("K1", "S1==", NULL, "eu-central-1", NULL);
	setenv("AWS_PROFILE", "work", 1);
	expect_aws("K2", "S2", "T2", "ap-1", "http://work:1");
	setenv("AWS_ACCESS_KEY_ID", "K3", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "S3", 1);
	expect_aws("K3", "S3", NULL, "ap-1", "http://work:1"); /* no token of another's */
	setenv("AWS_SESSION_TOKEN", "T3", 1);
	setenv("AWS_DEFAULT_REGION", "sa-1", 1);
	expect_aws("K3", "S3", "T3", "sa-1", "http://work:1");
	setenv("AWS_REGION", "us-2", 1);
	expect_aws("K3", "S3", "T3", "us-2", "http://work:1");
	KX_CLEANUP(kx_cleanup_free) char *elsewhere = kx_strf("%s/.aws/config", (char *)*state);
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	setenv("AWS_PROFILE", "default", 1);
	setenv("AWS_SHARED_CREDENTIALS_FILE", elsewhere, 1);
	expect_aws(NULL, NULL, NULL, "us-2", NULL);
}

static void half_credentials_are_told(void **state)
{
	struct kx_aws aws = {0};
	struct kx_error error = {0};
	write_aws(state, "credentials", credentials);
	setenv("AWS_ACCESS_KEY_ID", "K", 1);
	assert_int_equal(kx_aws_load(&aws, &error), KX_EINVAL); /* not with the secret of a file */
	assert_non_null(strstr(error.message, "AWS_SECRET_ACCESS_KEY"));
	unsetenv("AWS_ACCESS_KEY_ID");
	setenv("AWS_PROFILE", "nobody", 1);
	assert_int_equal(kx_aws_load(&aws, &error), KX_EINVAL);
	assert_non_null(strstr(error.message, "nobody"));
}

/* ---- heads of answers ---- */

static struct kx_response read_head(const char *const *lines)
{
	struct kx_response response = {0};
	for (; *lines; lines++)
		kx_response_line(&response, *lines, strlen(*lines));
	return response;
}

static void heads_are_read(void **state)
{
	(void)state;
	const char *const lines[] = {"HTTP/1.1 302 Found\r\n", "ETag: \"no\"\r\n", "Content-Length: 7\r\n", "\r\n",
				     "HTTP/2 206\r\n", "content-LENGTH:  100\r\n",
				     "Content-Range: bytes 5-104/18446744073709551615\r\n", "etag: W/\"a\"\r\n",
				     "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT \r\n", "\r\n", NULL};
	struct kx_response response = read_head(lines);
	assert_int_equal(response.status, 206);
	assert_true(response.has_length && response.has_range && response.has_total);
	assert_int_equal(response.length, 100);
	assert_int_equal(response.range_first, 5);
	assert_true(response.total == UINT64_MAX);
	assert_string_equal(response.etag, "W/\"a\"");
	assert_string_equal(response.modified, "Wed, 21 Oct 2015 07:28:00 GMT");
	assert_false(kx_etag_is_strong(response.etag));
	assert_true(kx_etag_is_strong("\"a\""));
	assert_false(kx_etag_is_strong(""));
}

static void expect_range(const char *line, bool has_range, bool has_total)
{
	struct kx_response response = {0};
	kx_response_line(&response, line, strlen(line));
	assert_int_equal(response.has_range, has_range);
	assert_int_equal(response.has_total, has_total);
}

static void ranges_that_say_nothing(void **state)
{
	(void)state;
	expect_range("Content-Range: bytes 0-9/*", true, false);
	expect_range("Content-Range: bytes */0", false, true);
	expect_range("Content-Range: bytes 9-0/10", false, false);
	expect_range("Content-Range: bytes 0-9", true, false);
	expect_range("Content-Range: bytes -9/10", false, false);
	expect_range("Content-Range: bytes 99999999999999999999-999999999999999999999/1", false, false);
	expect_range("Content-Range: lines 0-9/10", false, false);
	expect_range("Content-Range:", false, false);
	struct kx_response response = {0};
	kx_response_line(&response, "Content-Length: -1", 18);
	assert_false(response.has_length);
	kx_response_line(&response, "Content-Length: 18446744073709551616", 36);
	assert_false(response.has_length);
	char longer[2000];
	memset(longer, 'x', sizeof(longer));
	memcpy(longer, "ETag: \"", 7);
	kx_response_line(&response, longer, sizeof(longer));
	kx_response_line(&response, longer, 900);
	assert_string_equal(response.etag, "");
}

static bool same_print(const char *name_a, uint64_t size_a, const char *etag_a, const char *modified_a,
		       const char *name_b, uint64_t size_b, const char *etag_b, const char *modified_b)
{
	struct kx_fetch_info a = {0}, b = {0};
	assert_int_equal(kx_fingerprint(name_a, size_a, etag_a, modified_a, &a), KX_OK);
	assert_int_equal(kx_fingerprint(name_b, size_b, etag_b, modified_b, &b), KX_OK);
	return memcmp(a.fingerprint, b.fingerprint, sizeof(a.fingerprint)) == 0;
}

static void fingerprints_tell_versions_apart(void **state)
{
	(void)state;
	assert_true(same_print("a", 1, "\"e\"", "Mon", "a", 1, "\"e\"", "Tue")); /* the time counts for nothing then */
	assert_false(same_print("a", 1, "\"e\"", "", "b", 1, "\"e\"", ""));
	assert_false(same_print("a", 1, "\"e\"", "", "a", 2, "\"e\"", ""));
	assert_false(same_print("a", 1, "\"e\"", "", "a", 1, "\"f\"", ""));
	assert_false(same_print("a", 1, "", "Mon", "a", 1, "", "Tue"));
	assert_false(same_print("a", 1, "Mon", "", "a", 1, "", "Mon"));
	struct kx_fetch_info info = {0};
	uint8_t digest[KX_SHA256_LEN];
	static const char text[] = "kinodex object 1\na\n1\netag \"e\"\n";
	assert_int_equal(kx_fingerprint("a", 1, "\"e\"", "", &info), KX_OK);
	assert_true(info.versioned);
	assert_int_equal(kx_sha256_bytes(text, sizeof(text) - 1, digest), KX_OK);
	assert_memory_not_equal(info.fingerprint, digest, sizeof(digest)); /* a file that holds the text is another */
	assert_int_equal(kx_fingerprint("a", 1, "", "", &info), KX_OK);
	assert_false(info.versioned);
}

/* ---- the cache ---- */

#define KIB ((uint64_t)1024)
#define MIB ((uint64_t)1 << 20)

static struct kx_span *fill(struct kx_cache *cache, uint64_t offset, uint64_t size)
{
	struct kx_span *span = kx_cache_add(cache, offset, size);
	assert_non_null(span);
	span->filled = span->len;
	kx_cache_settle(cache, span);
	return span;
}

static void expect_span(const struct kx_span *span, uint64_t start, uint64_t len)
{
	assert_int_equal(span->start, start);
	assert_int_equal(span->len, len);
}

static void windows_grow_where_reading_goes_on(void **state)
{
	(void)state;
	struct kx_cache cache = {0};
	uint64_t size = 100 * MIB, at = 0;
	for (uint64_t window = 256 * KIB; at < 20 * MIB; window = window < 4 * MIB ? 2 * window : window) {
		expect_span(fill(&cache, at, size), at, window);
		at += window;
		assert_true(cache.bytes <= KX_CACHE_MAX);
	}
	expect_span(fill(&cache, 50 * MIB, size), 50 * MIB - 32 * KIB, 256 * KIB); /* elsewhere it begins anew */
	assert_null(kx_cache_at(&cache, 0));                                        /* what was read first is gone */
	kx_cache_done(&cache);
	assert_int_equal(cache.bytes, 0);
}

static void spans_do_not_overlap(void **state)
{
	(void)state;
	struct kx_cache cache = {0};
	uint64_t size = 10 * MIB;
	expect_span(fill(&cache, 0, size), 0, 256 * KIB);
	expect_span(fill(&cache, 260 * KIB, size), 256 * KIB, 256 * KIB); /* not into the one before */
	expect_span(fill(&cache, 800 * KIB, size), 768 * KIB, 256 * KIB);
	expect_span(fill(&cache, 512 * KIB, size), 512 * KIB, 256 * KIB); /* no further than the next */
	expect_span(fill(&cache, size - 300 * KIB, size), size - 332 * KIB, 332 * KIB); /* the rest is taken along */
	expect_span(fill(&cache, size - 400 * KIB, size), size - 432 * KIB, 100 * KIB);
	kx_cache_done(&cache);
}

static void a_span_that_was_cut_keeps_what_came(void **state)
{
	(void)state;
	struct kx_cache cache = {0};
	size_t len = 0;
	struct kx_span *span = kx_cache_add(&cache, 0, MIB);
	assert_null(kx_cache_read(&cache, 0, &len));
	memset(span->data, 7, 1000);
	span->filled = 1000;
	assert_non_null(kx_cache_read(&cache, 999, &len));
	assert_int_equal(len, 1);
	assert_null(kx_cache_read(&cache, 1000, &len));
	kx_cache_settle(&cache, span);
	assert_int_equal(cache.bytes, 1000);
	assert_null(kx_cache_at(&cache, 1000));
	span = kx_cache_add(&cache, 1000, MIB);
	expect_span(span, 1000, 512 * KIB);
	kx_cache_settle(&cache, span); /* nothing came */
	assert_int_equal(cache.bytes, 1000);
	kx_cache_done(&cache);
}

static void reading_ahead(void **state)
{
	(void)state;
	struct kx_cache cache = {0};
	uint64_t size = 10 * MIB;
	fill(&cache, 0, size);
	assert_true(kx_cache_ahead(&cache, 256 * KIB, size) == UINT64_MAX); /* once is no sequence */
	fill(&cache, 256 * KIB, size);
	assert_true(kx_cache_ahead(&cache, 300 * KIB, size) == UINT64_MAX);
	assert_int_equal(kx_cache_ahead(&cache, 512 * KIB, size), 768 * KIB);
	fill(&cache, 768 * KIB, size);
	assert_true(kx_cache_ahead(&cache, 512 * KIB, size) == UINT64_MAX); /* it is there */
	assert_true(kx_cache_ahead(&cache, 0, size) == UINT64_MAX);
	assert_true(kx_cache_ahead(&cache, 2 * 896 * KIB, 768 * KIB + MIB) == UINT64_MAX); /* the end */
	kx_cache_done(&cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_tell_no_secrets),
		cmocka_unit_test(a_file_name_is_the_last_part),
		cmocka_unit_test(kinds_of_address),
		cmocka_unit_test_setup_teardown(what_is_asked_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(addresses_that_are_none, set_up, tear_down),
		cmocka_unit_test_setup_teardown(credentials_come_from_where_they_are_usual, set_up, tear_down),
		cmocka_unit_test_setup_teardown(half_credentials_are_told, set_up, tear_down),
		cmocka_unit_test(heads_are_read),
		cmocka_unit_test(ranges_that_say_nothing),
		cmocka_unit_test(fingerprints_tell_versions_apart),
		cmocka_unit_test(windows_grow_where_reading_goes_on),
		cmocka_unit_test(spans_do_not_overlap),
		cmocka_unit_test(a_span_that_was_cut_keeps_what_came),
		cmocka_unit_test(reading_ahead),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
