/* Routes, the cache, counters; and the whole gateway over a backend that is made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "gateway/run/cache.h"
#include "gateway/run/gateway.h"
#include "gateway/run/metrics.h"
#include "gateway/run/route.h"

#define PATIENCE_US UINT64_C(60000000)

static void test_routes(void **state)
{
	static const struct {
		const char *path;
		enum kx_route route;
		const char *id;
	} cases[] = {
		{"/healthz", KX_ROUTE_HEALTH, NULL},
		{"/v1/similar", KX_ROUTE_SIMILAR, NULL},
		{"/v1/search/vector", KX_ROUTE_SEARCH, NULL},
		{"/v1/videos:batch", KX_ROUTE_BATCH, NULL},
		{"/v1/videos%3Abatch", KX_ROUTE_BATCH, NULL},
		{"/v1/videos/a%2Fb", KX_ROUTE_VIDEO, "a/b"},
		{"/v1/videos/media", KX_ROUTE_VIDEO, "media"},
		{"/v1/videos/a/media", KX_ROUTE_MEDIA, "a"},
		{"/v1/videos/%7Bid%7D/thumbnail", KX_ROUTE_THUMBNAIL, "{id}"},
		{"/", KX_ROUTE_NONE, NULL},
		{"/v1", KX_ROUTE_NONE, NULL},
		{"/v1/videos", KX_ROUTE_NONE, NULL},
		{"/v1/videos/", KX_ROUTE_NONE, NULL},
		{"/v1/videos//media", KX_ROUTE_NONE, NULL},
		{"/v1/videos/a/b/media", KX_ROUTE_NONE, NULL},
		{"/v1/similar/", KX_ROUTE_NONE, NULL},
		{"/none", KX_ROUTE_NONE, NULL},
	};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(cases); i++) {
		struct kx_http_target target = {0};
		const char *id = "unset";

		assert_int_equal(kx_http_target_parse(cases[i].path, &target, NULL), KX_OK);
		enum kx_route route = kx_route_match(&target, &id);
		if (route != cases[i].route || !kx_str_eq(id, cases[i].id))
			fail_msg("%s: %s, %s", cases[i].path, kx_route_name(route), id != NULL ? id : "-");
		kx_http_target_done(&target);
	}
	assert_true(kx_route_allows(KX_ROUTE_SIMILAR, KX_HTTP_POST) && kx_route_allows(KX_ROUTE_SIMILAR, KX_HTTP_HEAD));
	assert_false(kx_route_allows(KX_ROUTE_SEARCH, KX_HTTP_GET) || kx_route_allows(KX_ROUTE_STATUS, KX_HTTP_POST));
	assert_false(kx_route_allows(KX_ROUTE_STATUS, KX_HTTP_OTHER));
	assert_string_equal(kx_route_methods(KX_ROUTE_SEARCH), "POST, OPTIONS");
}

static kx_status get(struct kx_cache_lru *cache, const char *key, char *ret)
{
	struct kx_buf out = {.max = 1000};
	kx_status status = kx_cache_lru_get(cache, key, &out);

	if (status == KX_OK)
		strcpy(ret, (char *)out.data);
	kx_buf_done(&out);
	return status;
}

static void test_cache(void **state)
{
	struct kx_cache_lru *cache = NULL;
	char text[100];

	(void)state;
	assert_int_equal(kx_cache_lru_new(10, &cache, NULL), KX_OK);
	kx_cache_lru_put(cache, "a", "1234", 4);
	kx_cache_lru_put(cache, "b", "5678", 4);
	assert_int_equal(get(cache, "a", text), KX_OK);
	assert_string_equal(text, "1234");
	kx_cache_lru_put(cache, "c", "xyz", 3); /* no room for three: b was not used for longest */
	assert_int_equal(get(cache, "b", text), KX_ENOTFOUND);
	assert_int_equal(get(cache, "a", text), KX_OK);
	assert_int_equal(get(cache, "c", text), KX_OK);
	kx_cache_lru_put(cache, "a", "9", 1);
	assert_int_equal(get(cache, "a", text), KX_OK);
	assert_string_equal(text, "9");
	kx_cache_lru_put(cache, "large", "12345678901", 11);
	assert_int_equal(get(cache, "large", text), KX_ENOTFOUND);
	for (int i = 0; i < 2000; i++) { /* empty ones have a bound, too */
		sprintf(text, "%d", i);
		kx_cache_lru_put(cache, text, "", 0);
	}
	assert_int_equal(get(cache, "1999", text), KX_OK);
	assert_int_equal(get(cache, "0", text), KX_ENOTFOUND);
	kx_cache_lru_free(cache);
}

static void test_metrics(void **state)
{
	static struct kx_metrics metrics;
	struct kx_buf out = {.max = 1 << 20};

	(void)state;
	atomic_init(&metrics.recall, -1.0);
	kx_metrics_request(&metrics, KX_ROUTE_STATUS, 200, 300);
	kx_metrics_request(&metrics, KX_ROUTE_STATUS, 200, 700);
	kx_metrics_request(&metrics, KX_ROUTE_STATUS, 0, 50000000);
	kx_metrics_request(&metrics, KX_ROUTE_NONE, 418, 1);
	assert_int_equal(kx_metrics_write(&metrics, &out), KX_OK);
	static const char *const lines[] = {
		"kinodex_http_requests_total{route=\"/v1/status\",code=\"200\"} 2\n",
		"kinodex_http_requests_total{route=\"/v1/status\",code=\"gone\"} 1\n",
		"kinodex_http_requests_total{route=\"none\",code=\"other\"} 1\n",
		"kinodex_http_request_seconds_bucket{route=\"/v1/status\",le=\"0.00025\"} 0\n",
		"kinodex_http_request_seconds_bucket{route=\"/v1/status\",le=\"0.0005\"} 1\n",
		"kinodex_http_request_seconds_bucket{route=\"/v1/status\",le=\"10\"} 2\n",
		"kinodex_http_request_seconds_bucket{route=\"/v1/status\",le=\"+Inf\"} 3\n",
		"kinodex_http_request_seconds_sum{route=\"/v1/status\"} 50.001000\n",
	};
	for (size_t i = 0; i < KX_ARRAY_LEN(lines); i++)
		if (strstr((char *)out.data, lines[i]) == NULL)
			fail_msg("no %s in %s", lines[i], (char *)out.data);
	assert_null(strstr((char *)out.data, "kinodex_search_recall"));
	kx_buf_done(&out);
}

/* --- The whole --- */

struct world {
	struct kx_gateway *gateway;
	char file[64];
	uint64_t size; /* of the file, as the store says */
	atomic_uint pictures;
	atomic_bool stuck;     /* no answer about the state, until it is not */
	atomic_uint stats_asked;
};

static struct kx_query_reply *reply_new(void)
{
	struct kx_query_reply *reply = calloc(1, sizeof(*reply));

	reply->message = kx_strdup("");
	return reply;
}

static struct kx_video_record *video_of(const struct world *world, const char *id)
{
	struct kx_video_record record = {.generation = 3}, *copy = NULL;
	struct kx_buf packed = {.max = 1 << 20};
	float embedding[2] = {1, 0};

	record.info = (struct kx_video_info){.source = (char *)(uintptr_t)world->file, .container = (char *)(uintptr_t)"mp4",
					     .content_bytes = world->size, .width = 640, .height = 360};
	record.result = (struct kx_video_result){.video_id = (char *)(uintptr_t)id, .modality_count = 1,
						 .duration_us = 10000000, .visual_us = 10000000,
						 .decode_mode = KX_DECODE_EXACT, .moment_us = 10000000};
	record.result.modalities[0] = (struct kx_modality_result){.modality = KX_VISUAL, .space = (char *)(uintptr_t)"s",
								  .moments = 1, .rows = 1, .dim = 2, .embedding = embedding};
	record.info.recipe_sha256[0] = record.result.recipe_sha256[0] = 1;
	assert_int_equal(kx_video_record_pack(&record, &packed), KX_OK);
	assert_int_equal(kx_video_record_unpack(packed.data, packed.len, &copy, NULL), KX_OK);
	kx_buf_done(&packed);
	return copy;
}

static kx_status ask(void *ctx, const struct kx_query_request *request, uint64_t deadline_us, struct kx_answer *ret,
		     struct kx_error *error)
{
	struct world *world = ctx;
	struct kx_query_reply *reply = reply_new();

	(void)deadline_us;
	*ret = (struct kx_answer){.reply = reply, .asked = 2, .answered = 2};
	if (request->kind == KX_QUERY_SIMILAR && strcmp(request->similar.video_id, "slow") == 0) {
		kx_answer_done(ret);
		return kx_error_set(error, KX_ETIMEDOUT, KX_ERROR_RETRY, "no shard answered");
	}
	if (request->kind == KX_QUERY_SIMILAR && strcmp(request->similar.filter, "bad") == 0) {
		reply->status = KX_EINVAL;
		(void)!kx_str_set(&reply->message, "filter, character 4: what is that?");
	} else if (request->kind == KX_QUERY_SIMILAR) {
		reply->similar.hits = calloc(1, sizeof(struct kx_similar_hit));
		reply->similar.hits[0].video_id = kx_strdup("hit");
		reply->similar.hit_count = 1;
		reply->similar.recall = 0.75;
		ret->answered = 1; /* and one is missing */
	} else if (request->kind == KX_QUERY_VIDEO && strcmp(request->video_id, "none") != 0) {
		reply->video = video_of(world, request->video_id);
	} else if (request->kind == KX_QUERY_VIDEO) {
		reply->status = KX_ENOTFOUND;
	} else if (request->kind == KX_QUERY_STATS) {
		atomic_fetch_add(&world->stats_asked, 1);
		while (atomic_load(&world->stuck))
			sched_yield();
		reply->stats.index_vectors = 40;
		reply->stats.index_recall = 0.875;
		reply->stats.index_recall_wanted = 0.75;
		reply->stats.index_recall_samples = 8;
	}
	return KX_OK;
}

static kx_status picture(void *ctx, int fd, const struct kx_picture_request *request, struct kx_buf *out,
			 struct kx_error *error)
{
	struct world *world = ctx;

	assert_true(fd >= 0);
	if (request->at_us == 1000000)
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON, "no picture there");
	return kx_buf_printf(out, "PNG %u %ux%u", atomic_fetch_add(&world->pictures, 1) + 1, request->width, request->height);
}

static void start_as(struct world *world, bool stuck)
{
	struct kx_gateway_options options = {.backend = {.ctx = world, .ask = ask, .picture = picture},
					     .listen = "127.0.0.1:0",
					     .threads = 4,
					     .queue_max = 64,
					     .connections_max = 64,
					     .request_ms = 60000,
					     .body_max = 1 << 20,
					     .k_max = 100,
					     .batch_max = 100,
					     .media = true};
	struct kx_error error = {0};

	*world = (struct world){.file = "/tmp/kx-run-XXXXXX", .size = 10, .stuck = stuck};
	int fd = mkstemp(world->file);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "0123456789", 10), 10);
	close(fd);
	if (kx_gateway_start(&options, &world->gateway, &error) != KX_OK)
		fail_msg("%s", error.message);
}

static void start(struct world *world)
{
	start_as(world, false);
}

static void stop(struct world *world)
{
	kx_gateway_stop(world->gateway);
	unlink(world->file);
}

/* One request on a connection of its own; what comes until that ends. */
static void talk(const struct world *world, const char *request, char *ret, size_t ret_len)
{
	const char *colon = strrchr(kx_gateway_address(world->gateway), ':');
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t len = 0;

	to.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), (ssize_t)strlen(request));
	for (ssize_t got; len + 1 < ret_len && (got = recv(fd, ret + len, ret_len - 1 - len, 0)) > 0;)
		len += (size_t)got;
	ret[len] = '\0';
	close(fd);
}

static void expect(const struct world *world, const char *method, const char *path, const char *more, unsigned code,
		   const char *words)
{
	char request[1024], reply[65536], line[32];

	snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n", method, path,
		 more);
	talk(world, request, reply, sizeof(reply));
	snprintf(line, sizeof(line), "HTTP/1.1 %u ", code);
	if (!kx_str_starts(reply, line) || strstr(reply, words) == NULL)
		fail_msg("%s %s: wanted %u with %s, got %s", method, path, code, words, reply);
}

static void test_answers(void **state)
{
	struct world world;

	(void)state;
	start(&world);
	expect(&world, "GET", "/healthz", "", 200, "ok\n");
	expect(&world, "GET", "/openapi.yaml", "", 200, "openapi: 3.1.0");
	expect(&world, "GET", "/v1/similar?id=a", "", 200, "{\"hits\":[{\"id\":\"hit\"");
	expect(&world, "GET", "/v1/similar?id=a", "", 200, "\"partial\":true,\"shards\":{\"asked\":2,\"answered\":1}");
	expect(&world, "GET", "/v1/similar?id=slow", "", 504, "urn:kinodex:problem:timeout");
	expect(&world, "GET", "/v1/similar?id=a&filter=bad", "", 400, "\"offset\":3}");
	expect(&world, "GET", "/v1/videos/x%2Fy", "", 200, "\"id\":\"x/y\",\"generation\":3");
	expect(&world, "GET", "/v1/videos/none", "", 404, "application/problem+json");
	expect(&world, "GET", "/v1/status", "", 200, "\"videos\":0");
	expect(&world, "GET", "/v1/status", "", 200,
	       "\"index\":{\"vectors\":40,\"cells\":0,\"recall_samples\":8,\"recall\":0.875,\"recall_wanted\":0.75}");
	expect(&world, "GET", "/metrics", "", 200, "kinodex_index_recall 0.875\n");
	expect(&world, "GET", "/metrics", "", 200, "kinodex_index_age_seconds ");
	expect(&world, "POST", "/v1/similar", "Content-Type: application/json\r\nContent-Length: 0\r\n", 400, "JSON");
	expect(&world, "PUT", "/v1/status", "Content-Length: 0\r\n", 405, "Allow: GET, HEAD, OPTIONS");
	expect(&world, "POST", "/v1/similar", "Content-Length: 0\r\n", 415, "application/json");
	expect(&world, "GET", "/v1/nothing", "", 404, "%2F");
	expect(&world, "GET", "/metrics", "", 200, "kinodex_partial_answers_total 2\n");
	expect(&world, "GET", "/metrics", "", 200, "kinodex_search_recall 0.75\n");
	stop(&world);
}

/* Nobody asks for /v1/status: starting and scraping is enough, and does not wait for shards that do not answer. */
static void test_metrics_ask_by_themselves(void **state)
{
	static const char request[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
	uint64_t begun = kx_clock_mono_us();
	char reply[65536] = "";
	struct world world;

	(void)state;
	start_as(&world, true);
	while (atomic_load(&world.stats_asked) == 0) /* it is out, and gets no answer */
		assert_true(kx_clock_mono_us() - begun < PATIENCE_US);
	expect(&world, "GET", "/metrics", "", 200, "kinodex_index_recall_samples 0\n");
	atomic_store(&world.stuck, false);
	while (strstr(reply, "kinodex_index_recall 0.875\n") == NULL) {
		assert_true(kx_clock_mono_us() - begun < PATIENCE_US);
		talk(&world, request, reply, sizeof(reply));
	}
	/* However often it is scraped. */
	assert_true(atomic_load(&world.stats_asked) <= 1 + (kx_clock_mono_us() - begun) / 5000000);
	stop(&world);
}

static void test_media_and_pictures(void **state)
{
	struct world world;

	(void)state;
	start(&world);
	expect(&world, "GET", "/v1/videos/a/media", "", 200, "\r\n\r\n0123456789");
	expect(&world, "GET", "/v1/videos/a/media", "Range: bytes=2-4\r\n", 206, "\r\n\r\n234");
	expect(&world, "GET", "/v1/videos/a/media", "Range: bytes=10-\r\n", 416, "Content-Range: bytes */10");
	expect(&world, "HEAD", "/v1/videos/a/media", "", 200, "Content-Length: 10");
	expect(&world, "GET", "/v1/videos/a/media", "If-None-Match: *\r\n", 304, "ETag: ");
	expect(&world, "GET", "/v1/videos/a/thumbnail?t=2&w=64", "", 200, "PNG 1 64x36");
	expect(&world, "GET", "/v1/videos/a/thumbnail?t=2&w=64", "", 200, "PNG 1 64x36");
	expect(&world, "GET", "/v1/videos/a/thumbnail?t=2&w=1920", "", 200, "PNG 2 640x360");
	expect(&world, "GET", "/v1/videos/a/thumbnail?t=1", "", 422, "no picture there");
	expect(&world, "GET", "/v1/videos/a/thumbnail?t=10", "", 400, "10.000 s long");
	world.size = 11;
	expect(&world, "GET", "/v1/videos/a/media", "", 409, "another than was indexed");
	world.size = 10;
	unlink(world.file);
	expect(&world, "GET", "/v1/videos/a/media", "", 404, "no longer there");
	assert_int_equal(mkdir(world.file, 0700), 0);
	expect(&world, "GET", "/v1/videos/a/media", "", 404, "no regular file");
	assert_int_equal(rmdir(world.file), 0);
	stop(&world);
}

static void *ask_many(void *arg)
{
	for (int i = 0; i < 25; i++) {
		expect(arg, "GET", "/v1/similar?id=a&k=2", "", 200, "\"hit\"");
		expect(arg, "GET", "/v1/videos/a/media", "Range: bytes=0-3\r\n", 206, "0123");
		expect(arg, "GET", "/metrics", "", 200, "kinodex_http_in_flight");
	}
	return NULL;
}

static void test_many_at_a_time(void **state)
{
	struct world world;
	pthread_t threads[6];

	(void)state;
	start(&world);
	for (size_t i = 0; i < KX_ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask_many, &world), 0);
	for (size_t i = 0; i < KX_ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
	stop(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_metrics),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_media_and_pictures),
		cmocka_unit_test(test_metrics_ask_by_themselves),
		cmocka_unit_test(test_many_at_a_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
