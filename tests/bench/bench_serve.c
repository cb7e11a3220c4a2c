/* For scripts/bench serve, and for tests that need shards without a bus: makes stores of made-up videos, answers from one
 * over ZeroMQ, and asks, one way each, as fast as it can.
 *
 *   kx_bench_serve make DIR VIDEOS DIM            a store of random unit vectors, one picture moment a video
 *   kx_bench_serve host DIR ENDPOINT              a shard that answers there until standard input ends; says "ready"
 *   kx_bench_serve inprocess DIR  DIM BATCH THREADS SECONDS
 *   kx_bench_serve zeromq ENDPOINT DIM BATCH THREADS SECONDS
 *   kx_bench_serve http HOST:PORT DIM BATCH THREADS SECONDS      a connection a thread, which stays open
 *
 * The last three print a line of JSON: queries a second, the times of requests, and CPU time of this process. BATCH 1 is a single query, more are
 * one request with so many. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "gateway/backend/fanout.h"
#include "shard/run/shard.h"
#include "shard/store/store.h"

#define SPACE "visual/made/1"
#define K 10u
#define VARIANTS 16u /* queries that differ */
#define TIMES_MAX (1u << 20)
#define RESPONSE_MAX (32u << 20)
#define APPLY_AT_ONCE 500u

static void need(kx_status status, const struct kx_error *error)
{
	if (status == KX_OK)
		return;
	fprintf(stderr, "kx_bench_serve: %s: %s\n", kx_status_name(status), error->message);
	exit(1);
}

/* --- Making a store --- */

static void fill(uint64_t *random, float *values, uint32_t dim)
{
	for (uint32_t i = 0; i < dim; i++)
		values[i] = (float)(kx_test_random(random) >> 40) / (float)(1 << 23) - 1.0f;
}

static void put_video(struct kx_store_batch *batch, uint64_t number, uint32_t dim)
{
	static uint8_t features[KX_DIM_MAX];
	static int8_t embedding[KX_DIM_MAX];
	uint64_t random = (number + 1) * 0x9e3779b97f4a7c15u, pts = 0;
	float lo = -1.0f, step = 2.0f / 255.0f;
	struct kx_error error = {0};
	char id[32];
	struct kx_result result = {.video_id = id, .generation = 1, .kind = KX_RESULT_PLAN, .parts = 1};

	snprintf(id, sizeof(id), "made-%08llu", (unsigned long long)number);
	result.info = (struct kx_video_info){.title = id, .source = (char *)(uintptr_t)"/made", .run_id = id};
	result.info.content_sha256[0] = result.info.recipe_sha256[0] = 1;
	need(kx_store_apply(batch, &result, &error), &error);
	for (uint32_t i = 0; i < dim; i++)
		features[i] = (uint8_t)(kx_test_random(&random) >> 32);
	result.kind = KX_RESULT_MOMENT;
	result.moment = (struct kx_moment){.modality = KX_VISUAL, .space = (char *)(uintptr_t)SPACE, .count = 1, .dim = dim,
					   .pts_us = &pts, .features = features, .lo = &lo, .step = &step,
					   .embedding = embedding};
	need(kx_learn_embed_moment(features, &lo, &step, 1, dim, embedding, &result.moment.embedding_scale), &error);
	need(kx_store_apply(batch, &result, &error), &error);
	result.kind = KX_RESULT_PART_END;
	result.part_end = (struct kx_part_end){.parts = 1, .tracks = KX_TRACK_VISUAL | KX_TRACK_AUDIO, .frames = 1,
					       .visual_us = 10000000, .has_visual = true, .decode_mode = KX_DECODE_EXACT,
					       .moment_us = 10000000};
	result.part_end.recipe_sha256[0] = 1;
	need(kx_store_apply(batch, &result, &error), &error);
}

static int make(const char *dir, uint64_t videos, uint32_t dim)
{
	struct kx_store_options options = {.data_dir = dir};
	struct kx_store *store = NULL;
	struct kx_error error = {0};

	need(kx_fs_mkdirs(dir, &error), &error);
	need(kx_store_open(&options, &store, &error), &error);
	for (uint64_t i = 0; i < videos;) {
		struct kx_store_batch *batch = NULL;

		need(kx_store_batch_new(store, kx_clock_wall_ms(), &batch, &error), &error);
		for (unsigned j = 0; j < APPLY_AT_ONCE && i < videos; j++)
			put_video(batch, i++, dim);
		need(kx_store_commit(batch, &error), &error);
		kx_store_batch_free(batch);
	}
	kx_store_close(store);
	return 0;
}

/* --- A shard without a bus --- */

static int host(const char *dir, const char *endpoint)
{
	struct kx_shard_options options = {.data_dir = dir, .read_only = true, .endpoint = endpoint};
	struct kx_shard *shard = NULL;
	struct kx_error error = {0};
	char end;

	need(kx_wire_new(&options.wire, &error), &error);
	need(kx_shard_start(&options, &shard, &error), &error);
	puts("ready");
	fflush(stdout);
	(void)!read(STDIN_FILENO, &end, 1);
	kx_shard_stop(shard);
	kx_wire_free(options.wire);
	return 0;
}

/* --- Asking --- */

struct load {
	const char *at;
	uint32_t dim, batch;
	unsigned threads;
	double seconds;
	struct kx_shard *shard;
	struct kx_fanout *fanout;
	struct kx_query_request requests[VARIANTS];
	struct kx_buf texts[VARIANTS]; /* the same as HTTP */
};

struct client {
	struct load *load;
	int fd;
	char *buffer;
	uint64_t *times_us;
	size_t count;
	uint64_t from_us, to_us;
};

static struct kx_query_vector *vectors_of(uint64_t *random, uint32_t dim)
{
	struct kx_query_vector *vector = calloc(1, sizeof(*vector));

	*vector = (struct kx_query_vector){
		.modality = KX_VISUAL, .space = (char *)(uintptr_t)SPACE, .dim = dim, .values = calloc(dim, sizeof(float))};
	fill(random, vector->values, dim);
	return vector;
}

static struct kx_similar_query query_of(uint64_t *random, uint32_t dim)
{
	return (struct kx_similar_query){.vectors = vectors_of(random, dim), .vector_count = 1, .k = K, .weight_visual = 1};
}

static void put(struct kx_buf *out, const char *text)
{
	struct kx_error error = {.message = "a request grows too long"};

	need(kx_buf_append(out, text, strlen(text)), &error);
}

static void put_base64(struct kx_buf *out, const uint8_t *bytes, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < len; i += 3) {
		uint32_t bits = (uint32_t)bytes[i] << 16;
		char four[5] = "====";

		bits |= i + 1 < len ? (uint32_t)bytes[i + 1] << 8 : 0;
		bits |= i + 2 < len ? bytes[i + 2] : 0;
		for (size_t d = 0; d < 4; d++)
			if (d < 2 || i + d - 1 < len)
				four[d] = digits[bits >> (18 - 6 * d) & 63];
		put(out, four);
	}
}

static void put_query(struct kx_buf *out, const struct kx_similar_query *query)
{
	put(out, "{\"k\":10,\"vectors\":[{\"modality\":\"visual\",\"space\":\"" SPACE "\",\"f32\":\"");
	put_base64(out, (const uint8_t *)query->vectors->values, query->vectors->dim * sizeof(float));
	put(out, "\"}]}");
}

static void make_text(struct load *load, unsigned i)
{
	const struct kx_query_request *request = &load->requests[i];
	struct kx_buf body = {.max = RESPONSE_MAX};
	char head[256];

	load->texts[i].max = RESPONSE_MAX;
	if (request->kind == KX_QUERY_SIMILAR)
		put_query(&body, &request->similar);
	for (uint32_t q = 0; q < request->batch_count; q++) {
		put(&body, q > 0 ? "," : "{\"queries\":[");
		put_query(&body, &request->batch[q]);
	}
	if (request->batch_count > 0)
		put(&body, "]}");
	snprintf(head, sizeof(head),
		 "POST /v1/search/vector HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
		 "Content-Length: %zu\r\n\r\n",
		 body.len);
	put(&load->texts[i], head);
	put(&load->texts[i], (const char *)body.data);
	kx_buf_done(&body);
}

static void make_requests(struct load *load)
{
	uint64_t random = 7;

	for (unsigned i = 0; i < VARIANTS; i++) {
		struct kx_query_request *request = &load->requests[i];

		request->kind = load->batch > 1 ? KX_QUERY_SIMILAR_BATCH : KX_QUERY_SIMILAR;
		if (load->batch > 1) {
			request->batch = calloc(load->batch, sizeof(*request->batch));
			for (; request->batch_count < load->batch; request->batch_count++)
				request->batch[request->batch_count] = query_of(&random, load->dim);
		} else {
			request->similar = query_of(&random, load->dim);
		}
		make_text(load, i);
	}
}

static void check(const struct load *load, const struct kx_query_reply *reply)
{
	bool whole = reply->status == KX_OK &&
		     (load->batch > 1 ? reply->answer_count == load->batch && reply->answers[0].hit_count == K
				      : reply->similar.hit_count == K);

	if (whole)
		return;
	fprintf(stderr, "kx_bench_serve: an answer that is none: %s\n", reply->message);
	exit(1);
}

static void ask_inprocess(struct client *client, unsigned variant)
{
	struct kx_query_reply *reply = NULL;
	struct kx_error error = {0};

	need(kx_shard_answer(client->load->shard, &client->load->requests[variant], &reply, &error), &error);
	check(client->load, reply);
	kx_query_reply_free(reply);
}

static void ask_zeromq(struct client *client, unsigned variant)
{
	struct kx_answer answer = {0};
	struct kx_error error = {0};

	need(kx_fanout_ask(client->load->fanout, &client->load->requests[variant], kx_clock_mono_us() + 20000000u, &answer,
			   &error),
	     &error);
	check(client->load, answer.reply);
	kx_answer_done(&answer);
}

static int dial(const char *at)
{
	const char *colon = strrchr(at, ':');
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	uint64_t port = 0;

	to.sin_port = colon != NULL && kx_parse_u64(colon + 1, &port) == KX_OK ? htons((uint16_t)port) : 0;
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
		perror(at);
		exit(1);
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

static void ask_http(struct client *client, unsigned variant)
{
	const struct kx_buf *text = &client->load->texts[variant];
	size_t len = 0, wanted = SIZE_MAX;

	for (size_t at = 0; at < text->len;) {
		ssize_t sent = send(client->fd, text->data + at, text->len - at, MSG_NOSIGNAL);

		if (sent <= 0) {
			perror("send");
			exit(1);
		}
		at += (size_t)sent;
	}
	while (len < wanted) {
		ssize_t got = recv(client->fd, client->buffer + len, RESPONSE_MAX - 1 - len, 0);

		if (got <= 0) {
			fprintf(stderr, "kx_bench_serve: the server ended the connection\n");
			exit(1);
		}
		len += (size_t)got;
		client->buffer[len] = '\0';
		const char *body = wanted == SIZE_MAX ? strstr(client->buffer, "\r\n\r\n") : NULL;
		const char *length = body != NULL ? strstr(client->buffer, "Content-Length: ") : NULL;
		if (length != NULL)
			wanted = (size_t)(body + 4 - client->buffer) + strtoul(length + 16, NULL, 10);
	}
	if (strncmp(client->buffer, "HTTP/1.1 200", 12) != 0) {
		fprintf(stderr, "kx_bench_serve: %s\n", client->buffer);
		exit(1);
	}
}

static void (*ask)(struct client *client, unsigned variant);

static void *run(void *arg)
{
	struct client *client = arg;
	unsigned variant = 0;

	for (unsigned i = 0; i < 3; i++) /* warm */
		ask(client, i);
	client->from_us = kx_clock_mono_us();
	uint64_t end_us = client->from_us + (uint64_t)(client->load->seconds * 1e6), now = client->from_us;
	while (now < end_us && client->count < TIMES_MAX) {
		ask(client, variant++ % VARIANTS);
		client->times_us[client->count++] = kx_clock_mono_us() - now;
		now = kx_clock_mono_us();
	}
	client->to_us = now;
	return NULL;
}

static int by_time(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double ms(uint64_t us)
{
	return (double)us / 1e3;
}

static void report(const struct load *load, const struct client *clients, uint64_t cpu_us)
{
	uint64_t *all = calloc((size_t)load->threads * TIMES_MAX + 1, sizeof(*all));
	uint64_t from_us = UINT64_MAX, to_us = 0;
	size_t count = 0;

	for (unsigned i = 0; i < load->threads; i++) {
		memcpy(all + count, clients[i].times_us, clients[i].count * sizeof(*all));
		count += clients[i].count;
		from_us = clients[i].from_us < from_us ? clients[i].from_us : from_us;
		to_us = clients[i].to_us > to_us ? clients[i].to_us : to_us;
	}
	qsort(all, count, sizeof(*all), by_time);
	size_t median = count / 2, late = count * 99 / 100;
	printf("{\"requests\": %zu, \"queries_s\": %.1f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f, "
	       "\"cpu_s\": %.4f}\n", count,
	       (double)count * load->batch / ((double)(to_us - from_us) / 1e6), ms(all[median]), ms(all[late]),
	       ms(all[count - 1]), (double)cpu_us / 1e6);
	free(all);
}

static int load_up(struct load *load)
{
	struct client *clients = calloc(load->threads + 1, sizeof(*clients));
	pthread_t *threads = calloc(load->threads + 1, sizeof(*threads));

	make_requests(load);
	uint64_t cpu_us = kx_clock_cpu_us();
	for (unsigned i = 0; i < load->threads; i++) {
		clients[i] = (struct client){.load = load, .fd = -1, .times_us = calloc(TIMES_MAX, sizeof(uint64_t))};
		if (ask == ask_http) {
			clients[i].fd = dial(load->at);
			clients[i].buffer = malloc(RESPONSE_MAX);
		}
		pthread_create(&threads[i], NULL, run, &clients[i]);
	}
	for (unsigned i = 0; i < load->threads; i++)
		pthread_join(threads[i], NULL);
	report(load, clients, kx_clock_cpu_us() - cpu_us);
	for (unsigned i = 0; i < load->threads; i++) {
		if (clients[i].fd >= 0)
			close(clients[i].fd);
		free(clients[i].buffer);
		free(clients[i].times_us);
	}
	free(clients);
	free(threads);
	return 0;
}

static int load_inprocess(struct load *load)
{
	struct kx_shard_options options = {.data_dir = load->at, .read_only = true};
	struct kx_error error = {0};

	ask = ask_inprocess;
	need(kx_shard_start(&options, &load->shard, &error), &error);
	int status = load_up(load);
	kx_shard_stop(load->shard);
	return status;
}

static int load_zeromq(struct load *load)
{
	struct kx_wire *wire = NULL;
	struct kx_error error = {0};

	ask = ask_zeromq;
	need(kx_wire_new(&wire, &error), &error);
	need(kx_fanout_new_one(wire, load->at, &load->fanout, &error), &error);
	int status = load_up(load);
	kx_fanout_free(load->fanout);
	kx_wire_free(wire);
	return status;
}

int main(int argc, char **argv)
{
	kx_learn_init();
	if (argc == 5 && strcmp(argv[1], "make") == 0)
		return make(argv[2], strtoul(argv[3], NULL, 10), (uint32_t)strtoul(argv[4], NULL, 10));
	if (argc == 4 && strcmp(argv[1], "host") == 0)
		return host(argv[2], argv[3]);
	if (argc != 7) {
		fprintf(stderr, "kx_bench_serve make|host|inprocess|zeromq|http ... (see the head of its source)\n");
		return 2;
	}
	static struct load load;
	if (strtoul(argv[5], NULL, 10) < 1) {
		fprintf(stderr, "kx_bench_serve: at least one thread\n");
		return 2;
	}
	load = (struct load){.at = argv[2],
			     .dim = (uint32_t)strtoul(argv[3], NULL, 10),
			     .batch = (uint32_t)strtoul(argv[4], NULL, 10),
			     .threads = (unsigned)strtoul(argv[5], NULL, 10),
			     .seconds = strtod(argv[6], NULL)};
	if (strcmp(argv[1], "inprocess") == 0)
		return load_inprocess(&load);
	if (strcmp(argv[1], "zeromq") == 0)
		return load_zeromq(&load);
	ask = ask_http;
	return load_up(&load);
}
