/* For scripts/bench serve, and for tests that need shards without a bus: makes stores of made-up videos, answers from one
 * over ZeroMQ, and asks, one way each, as fast as it can.
 *
 *   kx_bench_serve make DIR VIDEOS DIM            a store with its index, one picture moment a video, see factors.h
 *   kx_bench_serve host DIR ENDPOINT              a shard that answers there until standard input ends; says "ready"
 *   kx_bench_serve inprocess DIR  DIM BATCH THREADS SECONDS
 *   kx_bench_serve zeromq ENDPOINT DIM BATCH THREADS SECONDS
 *   kx_bench_serve http HOST:PORT DIM BATCH THREADS SECONDS      a connection a thread, which stays open
 *
 * The last three print a line of JSON: queries a second, the times of requests, CPU time of this process, and recall@10 of some
 * of the answers against exact ones, which are asked for afterwards. BATCH 1 is a single query, more are one request with so
 * many. All ask the same 2,000 queries, of the draw that the videos are of, again and again; once before anything is measured. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/learn/learn.h"
#include "gateway/backend/fanout.h"
#include "shard/run/shard.h"
#include "tests/bench/bench_serve.h"

#define K 10u
#define QUERIES 2000u /* that differ */
#define CHECKED 100u  /* of them against exact answers */
#define TIMES_MAX (1u << 20)
#define RESPONSE_MAX (32u << 20)

void kx_bench_need(kx_status status, const struct kx_error *error)
{
	if (status == KX_OK)
		return;
	fprintf(stderr, "kx_bench_serve: %s: %s\n", kx_status_name(status), error->message);
	exit(1);
}

/* --- A shard without a bus --- */

static int host(const char *dir, const char *endpoint)
{
	struct kx_shard_options options = {.data_dir = dir, .read_only = true, .endpoint = endpoint};
	struct kx_shard *shard = NULL;
	struct kx_error error = {0};
	char end;

	kx_bench_need(kx_wire_new(&options.wire, &error), &error);
	kx_bench_need(kx_shard_start(&options, &shard, &error), &error);
	puts("ready");
	fflush(stdout);
	(void)!read(STDIN_FILENO, &end, 1);
	kx_shard_stop(shard);
	kx_wire_free(options.wire);
	return 0;
}

/* --- Asking --- */

/* A request, and the same as HTTP. */
struct question {
	struct kx_query_request request;
	struct kx_buf text;
};

struct load {
	const char *at;
	uint32_t dim, batch;
	unsigned threads;
	double seconds;
	struct kx_shard *shard;
	struct kx_fanout *fanout;
	struct kx_bench_draw draw;
	struct question *questions;
	uint32_t count;
};

struct client {
	struct load *load;
	unsigned number;
	int fd;
	char *buffer;
	uint64_t *times_us;
	size_t count;
	uint64_t from_us, to_us;
};

static struct kx_similar_query query_of(const struct load *load, uint32_t number, double recall)
{
	struct kx_query_vector *vector = calloc(1, sizeof(*vector));

	*vector = (struct kx_query_vector){.modality = KX_VISUAL, .space = (char *)(uintptr_t)KX_BENCH_SPACE, .dim = load->dim,
					   .values = calloc(load->dim, sizeof(float))};
	kx_bench_draw_query(&load->draw, number, vector->values);
	return (struct kx_similar_query){.vectors = vector, .vector_count = 1, .k = K, .weight_visual = 1, .recall = recall};
}

static uint32_t batch_of(const struct kx_query_request *request)
{
	return request->kind == KX_QUERY_SIMILAR_BATCH ? request->batch_count : 1;
}

static void put(struct kx_buf *out, const char *text)
{
	struct kx_error error = {.message = "a request grows too long"};

	kx_bench_need(kx_buf_append(out, text, strlen(text)), &error);
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
	put(out, query->recall > 0 ? "{\"recall\":1," : "{");
	put(out, "\"k\":10,\"vectors\":[{\"modality\":\"visual\",\"space\":\"" KX_BENCH_SPACE "\",\"f32\":\"");
	put_base64(out, (const uint8_t *)query->vectors->values, query->vectors->dim * sizeof(float));
	put(out, "\"}]}");
}

static void make_text(struct question *question)
{
	const struct kx_query_request *request = &question->request;
	struct kx_buf body = {.max = RESPONSE_MAX};
	char head[256];

	question->text.max = RESPONSE_MAX;
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
	put(&question->text, head);
	put(&question->text, (const char *)body.data);
	kx_buf_done(&body);
}

/* `count` queries from number `first` on. */
static void make_question(const struct load *load, uint32_t first, uint32_t count, double recall, struct question *ret)
{
	struct kx_query_request *request = &ret->request;

	*ret = (struct question){.request.kind = count > 1 ? KX_QUERY_SIMILAR_BATCH : KX_QUERY_SIMILAR};
	if (count > 1) {
		request->batch = calloc(count, sizeof(*request->batch));
		for (; request->batch_count < count; request->batch_count++)
			request->batch[request->batch_count] = query_of(load, first + request->batch_count, recall);
	} else {
		request->similar = query_of(load, first, recall);
	}
	make_text(ret);
}

static void make_questions(struct load *load)
{
	kx_bench_draw_init(&load->draw, load->dim);
	load->count = load->batch < QUERIES ? QUERIES / load->batch : 1;
	load->questions = calloc(load->count, sizeof(*load->questions));
	for (uint32_t i = 0; i < load->count; i++)
		make_question(load, i * load->batch, load->batch, 0.0, &load->questions[i]);
}

static void fail(const char *why)
{
	fprintf(stderr, "kx_bench_serve: an answer that is none: %s\n", why);
	exit(1);
}

/* Which videos were found, K for each query; ret may be NULL. */
static void read_answer(const struct kx_similar_answer *answer, uint64_t *ret)
{
	if (answer->status || answer->hit_count != K)
		fail(answer->status ? answer->message : "too few hits");
	for (uint32_t i = 0; ret && i < K; i++)
		ret[i] = strtoul(answer->hits[i].video_id + strlen("made-"), NULL, 10);
}

static void read_reply(const struct question *question, const struct kx_query_reply *reply, uint64_t *ret)
{
	const uint32_t count = batch_of(&question->request);

	if (reply->status || (count > 1 && reply->answer_count != count))
		fail(reply->message);
	if (count == 1)
		read_answer(&reply->similar, ret);
	for (uint32_t i = 0; i < count && count > 1; i++)
		read_answer(&reply->answers[i], ret ? ret + (size_t)i * K : NULL);
}

static void read_json(const struct question *question, const char *body, uint64_t *ret)
{
	const size_t count = (size_t)batch_of(&question->request) * K;
	size_t found = 0;

	if (!ret)
		return;
	for (const char *at = body; (at = strstr(at, "\"id\":\"made-")) != NULL && found < count; at++)
		ret[found++] = strtoul(at + strlen("\"id\":\"made-"), NULL, 10);
	if (found != count)
		fail(body);
}

static void ask_inprocess(struct client *client, const struct question *question, uint64_t *ret)
{
	struct kx_query_reply *reply = NULL;
	struct kx_error error = {0};

	kx_bench_need(kx_shard_answer(client->load->shard, &question->request, &reply, &error), &error);
	read_reply(question, reply, ret);
	kx_query_reply_free(reply);
}

static void ask_zeromq(struct client *client, const struct question *question, uint64_t *ret)
{
	struct kx_answer answer = {0};
	struct kx_error error = {0};

	kx_bench_need(kx_fanout_ask(client->load->fanout, &question->request, kx_clock_mono_us() + 20000000u, &answer, &error),
		      &error);
	read_reply(question, answer.reply, ret);
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

static void send_text(const struct client *client, const struct kx_buf *text)
{
	for (size_t at = 0; at < text->len;) {
		ssize_t sent = send(client->fd, text->data + at, text->len - at, MSG_NOSIGNAL);

		if (sent <= 0) {
			perror("send");
			exit(1);
		}
		at += (size_t)sent;
	}
}

static void ask_http(struct client *client, const struct question *question, uint64_t *ret)
{
	size_t len = 0, wanted = SIZE_MAX;
	const char *body = NULL;

	send_text(client, &question->text);
	while (len < wanted) {
		ssize_t got = recv(client->fd, client->buffer + len, RESPONSE_MAX - 1 - len, 0);

		if (got <= 0)
			fail("the server ended the connection");
		len += (size_t)got;
		client->buffer[len] = '\0';
		if (body == NULL)
			body = strstr(client->buffer, "\r\n\r\n");
		const char *length = body != NULL && wanted == SIZE_MAX ? strstr(client->buffer, "Content-Length: ") : NULL;
		if (length != NULL)
			wanted = (size_t)(body + 4 - client->buffer) + strtoul(length + 16, NULL, 10);
	}
	if (strncmp(client->buffer, "HTTP/1.1 200", 12) != 0)
		fail(client->buffer);
	read_json(question, body, ret);
}

static void (*ask)(struct client *client, const struct question *question, uint64_t *ret);

static void *warm(void *arg)
{
	struct client *client = arg;

	for (uint32_t i = client->number; i < client->load->count; i += client->load->threads)
		ask(client, &client->load->questions[i], NULL);
	return NULL;
}

static void *run(void *arg)
{
	struct client *client = arg;
	const struct load *load = client->load;
	uint32_t next = client->number * load->count / load->threads;

	client->from_us = kx_clock_mono_us();
	uint64_t end_us = client->from_us + (uint64_t)(load->seconds * 1e6), now = client->from_us;
	while (now < end_us && client->count < TIMES_MAX) {
		ask(client, &load->questions[next++ % load->count], NULL);
		client->times_us[client->count++] = kx_clock_mono_us() - now;
		now = kx_clock_mono_us();
	}
	client->to_us = now;
	return NULL;
}

/* The share of the exact answers that is in those of the first questions. */
static double recall_of(struct client *client)
{
	const struct load *load = client->load;
	uint64_t *are = calloc((size_t)load->batch * K, sizeof(*are)), exact[K];
	uint32_t found = 0, checked = 0;

	for (uint32_t i = 0; i < load->count && checked < CHECKED; i++) {
		ask(client, &load->questions[i], are);
		for (uint32_t q = 0; q < load->batch && checked < CHECKED; q++, checked++) {
			struct question question;

			make_question(load, i * load->batch + q, 1, 1.0, &question);
			ask(client, &question, exact);
			for (uint32_t a = 0; a < K * K; a++)
				found += are[q * K + a / K] == exact[a % K];
			kx_buf_done(&question.text);
			free(question.request.similar.vectors->values);
			free(question.request.similar.vectors);
		}
	}
	free(are);
	return (double)found / (checked * K);
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

static void report(const struct load *load, const struct client *clients, uint64_t cpu_us, double recall)
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
	       "\"cpu_s\": %.4f, \"recall\": %.4f}\n", count,
	       (double)count * load->batch / ((double)(to_us - from_us) / 1e6), ms(all[median]), ms(all[late]),
	       ms(all[count - 1]), (double)cpu_us / 1e6, recall);
	free(all);
}

static void run_all(const struct load *load, struct client *clients, void *(*body)(void *client))
{
	pthread_t *threads = calloc(load->threads, sizeof(*threads));

	for (unsigned i = 0; i < load->threads; i++)
		pthread_create(&threads[i], NULL, body, &clients[i]);
	for (unsigned i = 0; i < load->threads; i++)
		pthread_join(threads[i], NULL);
	free(threads);
}

/* What a script that measures other processes, too, takes for the beginning and the end. */
static void tell(const char *what)
{
	puts(what);
	fflush(stdout);
	(void)!getchar();
}

static int load_up(struct load *load)
{
	struct client *clients = calloc(load->threads, sizeof(*clients));

	make_questions(load);
	for (unsigned i = 0; i < load->threads; i++) {
		clients[i] = (struct client){
			.load = load, .number = i, .fd = -1, .times_us = calloc(TIMES_MAX, sizeof(uint64_t))};
		if (ask == ask_http) {
			clients[i].fd = dial(load->at);
			clients[i].buffer = malloc(RESPONSE_MAX);
		}
	}
	run_all(load, clients, warm);
	tell("begin");
	uint64_t cpu_us = kx_clock_cpu_us();
	run_all(load, clients, run);
	cpu_us = kx_clock_cpu_us() - cpu_us;
	tell("end");
	report(load, clients, cpu_us, recall_of(&clients[0]));
	for (unsigned i = 0; i < load->threads; i++) {
		if (clients[i].fd >= 0)
			close(clients[i].fd);
		free(clients[i].buffer);
		free(clients[i].times_us);
	}
	free(clients);
	return 0;
}

static int load_inprocess(struct load *load)
{
	struct kx_shard_options options = {.data_dir = load->at, .read_only = true};
	struct kx_error error = {0};

	ask = ask_inprocess;
	kx_bench_need(kx_shard_start(&options, &load->shard, &error), &error);
	int status = load_up(load);
	kx_shard_stop(load->shard);
	return status;
}

static int load_zeromq(struct load *load)
{
	struct kx_wire *wire = NULL;
	struct kx_error error = {0};

	ask = ask_zeromq;
	kx_bench_need(kx_wire_new(&wire, &error), &error);
	kx_bench_need(kx_fanout_new_one(wire, load->at, &load->fanout, &error), &error);
	int status = load_up(load);
	kx_fanout_free(load->fanout);
	kx_wire_free(wire);
	return status;
}

int main(int argc, char **argv)
{
	kx_learn_init();
	if (argc == 5 && strcmp(argv[1], "make") == 0)
		return kx_bench_make_store(argv[2], strtoul(argv[3], NULL, 10), (uint32_t)strtoul(argv[4], NULL, 10)), 0;
	if (argc == 4 && strcmp(argv[1], "host") == 0)
		return host(argv[2], argv[3]);
	if (argc != 7) {
		fprintf(stderr, "kx_bench_serve make|host|inprocess|zeromq|http ... (see the head of its source)\n");
		return 2;
	}
	static struct load load;
	if (strtoul(argv[5], NULL, 10) < 1 || strtoul(argv[4], NULL, 10) < 1) {
		fprintf(stderr, "kx_bench_serve: at least one thread and one query\n");
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
