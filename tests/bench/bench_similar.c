/* Nearest videos through the index and by comparing with every row, on made-up videos of two modalities.
 *
 *   kx_bench_similar FOLDER VIDEOS [QUERIES]
 *
 *   kx_bench_similar open FOLDER VIDEO    opens what the first one left, to read: until the nearest of a video are told,
 *                                         and until those are that pass a filter, which needs all records
 *
 * FOLDER must not be there; it keeps the store. One line a figure. CPU milliseconds of one thread, but for what says wall.
 * Embeddings are random mixtures of 20 factors, half of which picture and sound share. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "shard/query/mirror.h"
#include "shard/run/index.h"
#include "shard/run/shard.h"
#include "tests/bench/factors.h"

#define VISUAL_DIM 1280u
#define AUDIO_DIM 1024u
#define FACTORS 30u /* 0..19 picture, 10..29 sound */
#define USED 20u
#define WRITE_AT_ONCE 500u

static float visual_matrix[USED * VISUAL_DIM], audio_matrix[USED * AUDIO_DIM];

static void need(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "bench_similar: %s\n", what);
	exit(1);
}

static void embed(uint64_t *random, float *visual, float *audio)
{
	float factors[FACTORS];

	for (uint32_t i = 0; i < FACTORS; i++)
		factors[i] = kx_bench_normal(random);
	kx_bench_mix(factors, visual_matrix, USED, VISUAL_DIM, visual);
	kx_bench_mix(factors + FACTORS - USED, audio_matrix, USED, AUDIO_DIM, audio);
	(void)kx_learn_normalize(visual, VISUAL_DIM);
	(void)kx_learn_normalize(audio, AUDIO_DIM);
}

static void put_record(struct kx_kv_batch *batch, uint64_t *random, uint32_t number)
{
	float visual[VISUAL_DIM], audio[AUDIO_DIM];
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	char id[32];
	struct kx_video_record record = {.generation = 1};

	snprintf(id, sizeof(id), "%08u.mp4", number);
	embed(random, visual, audio);
	record.info = (struct kx_video_info){.title = id, .source = id, .run_id = (char *)"run", .duration_us = 1};
	record.info.recipe_sha256[0] = record.info.content_sha256[0] = 1;
	record.result = (struct kx_video_result){.video_id = id, .duration_us = 1000000u * (number % 100), .moment_us = 1000000,
						 .decode_mode = KX_DECODE_EXACT};
	record.result.recipe_sha256[0] = 1;
	record.result.modalities[0] = (struct kx_modality_result){
		.modality = KX_VISUAL, .space = (char *)"pictures", .moments = 1, .rows = 1, .dim = VISUAL_DIM, .embedding = visual};
	record.result.modalities[1] = (struct kx_modality_result){
		.modality = KX_AUDIO, .space = (char *)"sounds", .moments = 1, .rows = 1, .dim = AUDIO_DIM, .embedding = audio};
	record.result.modality_count = number % 10 == 9 ? 1 : 2; /* some are silent */
	need(!kx_video_record_pack(&record, &packed), "packing");
	kx_kv_batch_put(batch, KX_STORE_VIDEOS, id, strlen(id), packed.data, packed.len);
	kx_buf_done(&packed);
}

static void make_store(const char *folder, uint32_t videos, uint64_t *random)
{
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = NULL;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	struct kx_error error = {0};

	need(!kx_fs_mkdirs(folder, &error) && !kx_shard_store_open(folder, false, &store, &error), error.message);
	need(!kx_kv_batch_new(kx_store_kv(store), &batch), "batch");
	for (uint32_t i = 0; i < videos; i++) {
		put_record(batch, random, i);
		if (i % WRITE_AT_ONCE == 0 || i + 1 == videos)
			need(!kx_kv_write(kx_store_kv(store), batch, i + 1 == videos, &error), error.message);
	}
}

static double wall_s(void)
{
	return (double)kx_clock_mono_us() / 1e6;
}

static double thread_ms(void)
{
	struct timespec now;

	need(!clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), "clock");
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static double process_s(void)
{
	struct timespec now;

	need(!clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now), "clock");
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double rss_mib(void)
{
	KX_CLEANUP(kx_cleanup_free) char *line = NULL;
	FILE *file = fopen("/proc/self/status", "r");
	size_t cap = 0;
	double kib = 0;

	while (file && getline(&line, &cap, file) > 0)
		if (sscanf(line, "RssAnon: %lf", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib / 1024;
}

struct asking {
	const char *name;
	const char *filter;
	double recall;
};

/* The ids of the first ten of each question go into *ids; mean and worst time are told. */
static void ask(struct kx_mirror *mirror, const struct asking *asking, uint32_t queries, char (*ids)[32],
		const char (*should)[32])
{
	double all = 0, worst = 0;
	uint64_t random = 99, refined = 0;
	uint32_t found = 0, wanted = 0;

	for (uint32_t q = 0; q < queries; q++) {
		float visual[VISUAL_DIM], audio[AUDIO_DIM];
		struct kx_ann_vector vectors[2] = {{KX_VISUAL, "pictures", VISUAL_DIM, visual},
						   {KX_AUDIO, "sounds", AUDIO_DIM, audio}};
		struct kx_similar_query query = {.k = 10, .weight_visual = 0.6, .weight_audio = 0.4, .recall = asking->recall,
						 .filter = (char *)(uintptr_t)asking->filter};
		struct kx_mirror_query to = {.vectors = vectors, .count = 2, .query = &query, .now_s = 1.7e9};
		struct kx_similar_answer answer = {0};
		struct kx_error error = {0};
		double from, took;

		embed(&random, visual, audio);
		from = thread_ms();
		need(!kx_mirror_search(mirror, &to, &answer, &error), error.message);
		took = thread_ms() - from;
		all += took;
		worst = took > worst ? took : worst;
		refined += answer.work.refined;
		for (uint32_t i = 0; i < answer.hit_count && i < 10; i++) {
			snprintf(ids[q * 10 + i], 32, "%s", answer.hits[i].video_id);
			for (uint32_t j = 0; should && j < 10; j++)
				found += strcmp(should[q * 10 + j], answer.hits[i].video_id) == 0;
		}
		wanted += 10;
		kx_similar_answer_done(&answer);
	}
	printf("%-34s mean %8.3f ms, worst %8.3f ms, vectors read %8.0f", asking->name, all / queries, worst,
	       (double)refined / queries);
	if (should)
		printf(", recall@10 %.4f", (double)found / wanted);
	printf("\n");
	fflush(stdout);
}

static void ask_all(struct kx_mirror *exact, struct kx_mirror *indexed, uint32_t queries)
{
	static const struct asking all[] = {{"every row", NULL, 1.0}, {"every row, filter 10 %", "duration < 10", 1.0}};
	static const struct asking by[][3] = {
		{{"index, exact", NULL, 1.0}, {"index, 0.95", NULL, 0.95}, {"index, 0.99", NULL, 0.99}},
		{{"index, exact, filter 10 %", "duration < 10", 1.0}, {"index, 0.95, filter 10 %", "duration < 10", 0.95},
		 {"index, 0.99, filter 10 %", "duration < 10", 0.99}}};
	char(*should)[32] = calloc(queries * 10u, 32), (*is)[32] = calloc(queries * 10u, 32);

	need(should && is, "memory");
	for (size_t i = 0; i < KX_ARRAY_LEN(all); i++) {
		ask(exact, &all[i], queries, should, NULL);
		for (size_t j = 0; j < KX_ARRAY_LEN(by[i]); j++) {
			ask(indexed, &by[i][j], queries, is, (const char(*)[32])should);
			ask(indexed, &by[i][j], queries, is, (const char(*)[32])should);
		}
	}
	free(should);
	free(is);
}

static struct kx_mirror *load(struct kx_store *store, struct kx_index *index, const char *name)
{
	struct kx_mirror *mirror = NULL;
	double from = wall_s(), cpu = process_s(), rss = rss_mib();
	struct kx_error error = {0};

	need(!kx_mirror_new(&mirror), "mirror");
	need(!index || !kx_mirror_use_index(mirror, index, store, false), "mirror");
	need(!kx_mirror_load(mirror, store, &error), error.message);
	printf("%-34s %8.2f s wall, %8.2f s of CPU, %8.0f MiB more\n", name, wall_s() - from, process_s() - cpu,
	       rss_mib() - rss);
	return mirror;
}

/* From `from` on, in ms. */
static void answer(struct kx_shard *shard, const char *id, const char *filter, double from, const char *name)
{
	struct kx_query_request request = {.kind = KX_QUERY_SIMILAR};
	struct kx_query_reply *reply = NULL;

	request.similar = (struct kx_similar_query){.video_id = (char *)(uintptr_t)id, .k = 10, .weight_visual = 0.6,
						    .weight_audio = 0.4, .filter = (char *)(uintptr_t)filter};
	need(!kx_shard_answer(shard, &request, &reply, NULL) && !reply->status, "asking");
	printf("%-34s %8.1f ms, CPU of the process %8.1f ms, %u hits, the first %s\n", name, (wall_s() - from) * 1e3,
	       process_s() * 1e3, reply->similar.hit_count,
	       reply->similar.hit_count ? reply->similar.hits[0].video_id : "-");
	kx_query_reply_free(reply);
}

static int open_and_ask(const char *folder, const char *id)
{
	struct kx_shard_options options = {.data_dir = folder, .read_only = true};
	struct kx_shard *shard = NULL;
	struct kx_error error = {0};
	double from;

	kx_learn_init();
	from = wall_s();
	need(!kx_shard_start(&options, &shard, &error), error.message);
	printf("%-34s %8.1f ms\n", "opened", (wall_s() - from) * 1e3);
	answer(shard, id, NULL, from, "first answer");
	answer(shard, id, "duration < 10", from, "first answer with a filter");
	kx_shard_stop(shard);
	return 0;
}

int main(int argc, char **argv)
{
	uint32_t videos = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
	uint32_t queries = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 100;
	uint64_t random = 7;
	struct kx_store *store = NULL;
	struct kx_index *index = NULL;
	struct kx_mirror *exact, *indexed;
	struct kx_error error = {0};
	uint32_t done = 1;
	double from, cpu;

	if (argc == 4 && strcmp(argv[1], "open") == 0)
		return open_and_ask(argv[2], argv[3]);
	if (!videos || !queries || kx_fs_exists(argv[1]))
		return fprintf(stderr, "usage: kx_bench_similar NEW_FOLDER VIDEOS [QUERIES]\n"), 2;
	kx_learn_init();
	for (uint32_t i = 0; i < USED * VISUAL_DIM; i++)
		visual_matrix[i] = kx_bench_normal(&random);
	for (uint32_t i = 0; i < USED * AUDIO_DIM; i++)
		audio_matrix[i] = kx_bench_normal(&random);
	make_store(argv[1], videos, &random);
	need(!kx_shard_store_open(argv[1], false, &store, &error), error.message);
	need(!kx_shard_index_open(store, argv[1], false, true, 0, &index, &error), error.message);
	kx_mirror_free(load(store, index, "load, and fill the index"));
	from = wall_s();
	cpu = process_s();
	while (done)
		need(!kx_index_maintain(index, 64, &done, &error), error.message);
	printf("%-34s %8.2f s wall, %8.2f s of CPU\n", "fold, split, train", wall_s() - from, process_s() - cpu);
	indexed = load(store, index, "load with the index");
	exact = load(store, NULL, "load without");
	ask_all(exact, indexed, queries);
	kx_mirror_free(exact);
	kx_mirror_free(indexed);
	kx_index_close(index);
	kx_store_close(store);
	return 0;
}
