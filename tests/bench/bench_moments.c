/* Single moments through the index and by reading all of them; near-duplicates through it and by comparing each with each.
 *
 *   kx_bench_moments similar FOLDER VIDEOS [QUERIES [VISUAL_DIM AUDIO_DIM]]
 *   kx_bench_moments duplicates FOLDER VIDEOS [both|index [RECALL...]]
 *
 * FOLDER must not be there; it keeps the store. One line a figure; CPU time of the process, all threads. Videos have 5 to 35
 * moments of ten seconds. For similar, moments are random mixtures of 20 factors around those of their video, half of which picture
 * and sound share. For duplicates every fifth video is a re-encode of another or a piece of one from somewhere in it; frames are
 * mixtures of 64 factors, most of which a scene of five seconds shares, and re-encoding adds a tenth of noise. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "shard/query/duplicates.h"
#include "shard/query/moments_index.h"
#include "shard/query/query.h"
#include "shard/run/index.h"
#include "tests/bench/factors.h"

#define FACTORS 64u
#define SHARED 10u /* of the 20 of a modality */
#define USED 20u
#define WRITE_AT_ONCE 200u
#define FRAMES 4u /* of a moment, for duplicates: one in two and a half seconds */
#define FRAME_US 2500000u
#define MOMENT_US 10000000u
#define DUPLICATES_DIM 256u

struct bench {
	const char *folder;
	uint32_t videos, queries;
	uint32_t dim[2]; /* picture, sound; 0: none */
	float *matrix[2]; /* [FACTORS][dim] */
	struct kx_store *store;
	struct kx_index *index;
	struct kx_mirror *mirror;
	uint64_t moments;
};

static void need(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "bench_moments: %s\n", what);
	exit(1);
}

static double cpu_s(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void make_matrices(struct bench *bench)
{
	uint64_t random = 77;

	for (int m = 0; m < 2; m++) {
		bench->matrix[m] = malloc((size_t)FACTORS * (bench->dim[m] + 1) * sizeof(float));
		need(bench->matrix[m], "memory");
		for (uint32_t i = 0; i < FACTORS * bench->dim[m]; i++)
			bench->matrix[m][i] = kx_bench_normal(&random);
	}
}

static void mix(const struct bench *bench, int m, const float *factors, uint32_t from, uint32_t to, float *ret)
{
	kx_bench_mix(factors + from, bench->matrix[m] + (size_t)from * bench->dim[m], to - from, bench->dim[m], ret);
}

/* --- Videos -------------------------------------------------------------------------------------------------------- */

/* The same of the same number, whenever it is asked. */
static uint32_t moments_of(uint32_t video)
{
	uint64_t random = video * UINT64_C(0x9e3779b97f4a7c15) + 1;

	(void)kx_test_random(&random);
	return 5 + (uint32_t)(kx_test_random(&random) % 31);
}

/* moments: of picture, of sound. */
static void put_record(const struct bench *bench, struct kx_kv_batch *batch, uint32_t video, const uint32_t moments[2],
		       float *const values[2])
{
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	char id[32];
	struct kx_video_record record = {.generation = 1};

	snprintf(id, sizeof(id), "%08u.mp4", video);
	record.info = (struct kx_video_info){.title = id, .source = id, .run_id = (char *)"run", .duration_us = 1};
	record.info.recipe_sha256[0] = record.info.content_sha256[0] = 1;
	record.result = (struct kx_video_result){.video_id = id, .duration_us = (uint64_t)moments[0] * MOMENT_US + video % 1000,
						 .moment_us = MOMENT_US, .decode_mode = KX_DECODE_EXACT};
	record.result.recipe_sha256[0] = 1;
	for (int m = 0; m < 2; m++)
		if (moments[m])
			record.result.modalities[record.result.modality_count++] = (struct kx_modality_result){
				.modality = (enum kx_modality)(KX_VISUAL + m), .space = (char *)(uintptr_t)(m ? "sounds" : "pictures"),
				.moments = moments[m], .rows = moments[m], .dim = bench->dim[m], .embedding = values[m]};
	need(!kx_video_record_pack(&record, &packed), "packing a record");
	kx_kv_batch_put(batch, KX_STORE_VIDEOS, id, strlen(id), packed.data, packed.len);
	kx_buf_done(&packed);
}

static void put_summary(struct kx_kv_batch *batch, uint32_t video, const struct kx_summary *summary)
{
	struct kx_buf packed = {.max = KX_SUMMARY_MAX};
	struct kx_key key;
	char id[32];

	snprintf(id, sizeof(id), "%08u.mp4", video);
	need(!kx_summary_pack(summary, &packed), "packing a summary");
	kx_key_moment(&key, id, 1, summary->modality, summary->index);
	kx_kv_batch_put(batch, KX_STORE_MOMENTS, key.bytes, key.len, packed.data, packed.len);
	kx_buf_done(&packed);
}

static void put_unit(struct kx_kv_batch *batch, const struct bench *bench, uint32_t video, uint32_t number, int m, float *values)
{
	struct kx_summary summary = {.modality = (enum kx_modality)(KX_VISUAL + m), .index = number, .count = 1,
				     .dim = bench->dim[m], .moment_bytes = 1};
	float most = 0.0f;

	snprintf(summary.space, sizeof(summary.space), "%s", m ? "sounds" : "pictures");
	for (uint32_t i = 0; i < summary.dim; i++)
		most = fabsf(values[i]) > most ? fabsf(values[i]) : most;
	summary.scale = most / 127.0f;
	for (uint32_t i = 0; i < summary.dim; i++)
		summary.embedding[i] = (int8_t)lroundf(values[i] / summary.scale);
	put_summary(batch, video, &summary);
}

/* Picture uses factors 0 to 19, sound 10 to 29; every ninth video is silent, and sound ends a moment sooner. */
static void put_for_similar(struct bench *bench, struct kx_kv_batch *batch, uint32_t video, float *values[2])
{
	uint64_t random = video * UINT64_C(0xd1342543de82ef95) + 5;
	uint32_t count = moments_of(video), first = 2 * USED - SHARED;
	const uint32_t moments[2] = {count, bench->dim[1] && video % 9 ? count - 1 : 0};
	float own[FACTORS], moment[FACTORS];

	for (uint32_t f = 0; f < first; f++)
		own[f] = kx_bench_normal(&random);
	for (uint32_t i = 0; i < count; i++) {
		for (uint32_t f = 0; f < first; f++)
			moment[f] = own[f] + kx_bench_normal(&random);
		mix(bench, 0, moment, 0, USED, values[0]);
		(void)kx_learn_normalize(values[0], bench->dim[0]);
		put_unit(batch, bench, video, i, 0, values[0]);
		if (i >= moments[1])
			continue;
		mix(bench, 1, moment, USED - SHARED, first, values[1]);
		(void)kx_learn_normalize(values[1], bench->dim[1]);
		put_unit(batch, bench, video, i, 1, values[1]);
	}
	for (int m = 0; m < 2; m++) {
		mix(bench, m, own, m ? USED - SHARED : 0, m ? first : USED, values[m]);
		(void)kx_learn_normalize(values[m], bench->dim[m]);
	}
	put_record(bench, batch, video, moments, values);
	bench->moments += count;
}

/* --- Duplicates ---------------------------------------------------------------------------------------------------- */

/* Whose content a video shows, from which frame on, for how many moments. */
struct shown {
	uint32_t film, from, moments;
	bool noisy;
};

static struct shown shown_by(const struct bench *bench, uint32_t video)
{
	uint64_t random = video * UINT64_C(0xbf58476d1ce4e5b9) + 9;
	struct shown shown = {.film = video, .moments = moments_of(video)};

	if (video % 5 != 4)
		return shown;
	do
		shown.film = (uint32_t)(kx_test_random(&random) % bench->videos);
	while (shown.film % 5 == 4);
	shown.noisy = true;
	shown.moments = moments_of(shown.film);
	if (kx_test_random(&random) % 2 && shown.moments > 8) {
		shown.moments = 4 + (uint32_t)(kx_test_random(&random) % (shown.moments - 6));
		shown.from = (uint32_t)(kx_test_random(&random) % (FRAMES * (moments_of(shown.film) - shown.moments)));
	}
	return shown;
}

static void make_frame(const struct bench *bench, const struct shown *shown, uint32_t frame, uint64_t *noise, float *ret)
{
	uint64_t scene = ((uint64_t)shown->film << 20 | (shown->from + frame) / 2) * UINT64_C(0x9e3779b97f4a7c15) + 3;
	uint64_t one = ((uint64_t)shown->film << 20 | (shown->from + frame)) * UINT64_C(0xd1342543de82ef95) + 7;
	uint64_t film = (uint64_t)shown->film * UINT64_C(0xbf58476d1ce4e5b9) + 11;
	float factors[FACTORS];

	for (uint32_t f = 0; f < FACTORS; f++)
		factors[f] = 0.6f * kx_bench_normal(&film) + 0.7f * kx_bench_normal(&scene) + 0.4f * kx_bench_normal(&one);
	mix(bench, 0, factors, 0, FACTORS, ret);
	for (uint32_t i = 0; shown->noisy && i < bench->dim[0]; i++)
		ret[i] += 0.1f * 8.0f * kx_bench_normal(noise);
}

static void quantize(const float *values, uint32_t dim, uint8_t *codes, float *ret_lo, float *ret_step)
{
	float lo = values[0], hi = values[0];

	for (uint32_t i = 1; i < dim; i++) {
		lo = values[i] < lo ? values[i] : lo;
		hi = values[i] > hi ? values[i] : hi;
	}
	*ret_lo = lo;
	*ret_step = (hi - lo) / 255.0f;
	for (uint32_t i = 0; i < dim; i++)
		codes[i] = (uint8_t)lroundf((values[i] - lo) / *ret_step);
}

static void put_moment(struct kx_kv_batch *batch, uint32_t video, const struct kx_moment *moment)
{
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	struct kx_summary summary = {0};
	struct kx_key key;
	char id[32];

	snprintf(id, sizeof(id), "%08u.mp4", video);
	need(!kx_moment_pack(moment, &packed) && !kx_summary_of(moment, packed.data, packed.len, &summary), "packing a moment");
	kx_key_moment(&key, id, 1, moment->modality, moment->index);
	kx_kv_batch_put(batch, KX_STORE_FEATURES, key.bytes, key.len, packed.data, packed.len);
	kx_buf_done(&packed);
	put_summary(batch, video, &summary);
}

static void put_for_duplicates(struct bench *bench, struct kx_kv_batch *batch, uint32_t video, float *values[2])
{
	struct shown shown = shown_by(bench, video);
	uint64_t noise = video * UINT64_C(0x2545f4914f6cdd1d) + 1;
	uint8_t features[FRAMES * DUPLICATES_DIM];
	float lo[FRAMES], step[FRAMES];
	uint64_t pts[FRAMES];
	int8_t embedding[DUPLICATES_DIM];

	for (uint32_t i = 0; i < shown.moments; i++) {
		struct kx_moment moment = {.modality = KX_VISUAL, .index = i, .space = (char *)"pictures", .count = FRAMES,
					   .dim = DUPLICATES_DIM, .pts_us = pts, .features = features, .lo = lo, .step = step,
					   .embedding = embedding};

		for (uint32_t f = 0; f < FRAMES; f++) {
			make_frame(bench, &shown, i * FRAMES + f, &noise, values[0]);
			quantize(values[0], DUPLICATES_DIM, features + (size_t)f * DUPLICATES_DIM, &lo[f], &step[f]);
			pts[f] = (uint64_t)(i * FRAMES + f) * FRAME_US;
		}
		need(!kx_learn_embed_moment(features, lo, step, FRAMES, DUPLICATES_DIM, embedding, &moment.embedding_scale),
		     "embedding");
		put_moment(batch, video, &moment);
	}
	(void)kx_learn_normalize(values[0], DUPLICATES_DIM);
	put_record(bench, batch, video, (const uint32_t[]){shown.moments, 0}, values);
	bench->moments += shown.moments;
}

/* --- The store ----------------------------------------------------------------------------------------------------- */

static void make_store(struct bench *bench, void (*put)(struct bench *bench, struct kx_kv_batch *batch, uint32_t video,
							 float *values[2]))
{
	struct kx_kv_batch *batch = NULL;
	float *values[2] = {malloc(KX_DIM_MAX * sizeof(float)), malloc(KX_DIM_MAX * sizeof(float))};

	need(values[0] && values[1] && !kx_kv_batch_new(kx_store_kv(bench->store), &batch), "memory");
	for (uint32_t i = 0; i < bench->videos; i++) {
		put(bench, batch, i, values);
		if (i % WRITE_AT_ONCE == WRITE_AT_ONCE - 1 || i + 1 == bench->videos)
			need(!kx_kv_write(kx_store_kv(bench->store), batch, false, NULL), "writing");
	}
	kx_kv_batch_free(batch);
	free(values[0]);
	free(values[1]);
	printf("videos %u, moments %llu\n", bench->videos, (unsigned long long)bench->moments);
	fflush(stdout);
}

static void open_store(struct bench *bench)
{
	struct kx_error error = {0};

	need(!kx_shard_store_open(bench->folder, false, &bench->store, &error), error.message);
	need(!kx_shard_index_open(bench->store, bench->folder, false, false, 0, &bench->index, &error), error.message);
}

/* As a shard does that opens a store of before. */
static void put_moments_in(struct bench *bench)
{
	struct kx_error error = {0};
	double cpu = cpu_s();
	uint64_t begun = kx_clock_mono_us();

	need(!kx_mirror_new(&bench->mirror), "mirror");
	need(!kx_mirror_use_moments(bench->mirror, bench->index, bench->store, false), "moments");
	need(!kx_mirror_load(bench->mirror, bench->store, &error), error.message);
	printf("putting the moments in: CPU s %.1f, wall s %.1f\n", cpu_s() - cpu, (double)(kx_clock_mono_us() - begun) / 1e6);
	kx_mirror_free(bench->mirror);
	cpu = cpu_s();
	need(!kx_mirror_new(&bench->mirror) && !kx_mirror_use_moments(bench->mirror, bench->index, bench->store, false), "mirror");
	need(!kx_mirror_load(bench->mirror, bench->store, &error), error.message);
	printf("opening again, records and moments: CPU s %.2f\n", cpu_s() - cpu);
	fflush(stdout);
}

/* Taking moments out and putting them in, as indexing does: a video's changes in a write of their own, synced. */
static void change_some(struct bench *bench)
{
	struct kx_moments_changes changes = {0};
	double cpu[2];
	uint64_t vectors = 0;
	uint32_t most = bench->videos < 200 ? bench->videos : 200;

	cpu[0] = cpu_s();
	for (uint32_t i = 0; i < most; i++) {
		char id[32];

		snprintf(id, sizeof(id), "%08u.mp4", i);
		need(!kx_moments_change_remove(bench->index, id, &changes, NULL), "removing");
		vectors += changes.count;
		need(!kx_moments_commit(bench->index, &changes, NULL), "removing");
	}
	cpu[1] = cpu_s();
	for (uint32_t i = 0; i < most; i++) {
		KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
		char id[32];

		snprintf(id, sizeof(id), "%08u.mp4", i);
		need(!kx_store_video(bench->store, id, &record, NULL) &&
			     !kx_moments_change_put(bench->index, bench->store, record, &changes, NULL) &&
			     !kx_moments_commit(bench->index, &changes, NULL) && !kx_mirror_put(bench->mirror, record, NULL),
		     "putting");
	}
	printf("by changes, CPU us a vector: out %.0f, in %.0f; %.1f vectors a video\n",
	       (cpu[1] - cpu[0]) * 1e6 / (double)vectors, (cpu_s() - cpu[1]) * 1e6 / (double)vectors, (double)vectors / most);
	fflush(stdout);
}

static void tell_size(const struct bench *bench)
{
	uint64_t hot = 0, rows = 0;

	for (uint32_t i = 0; i < kx_index_space_count(bench->index); i++) {
		struct kx_index_stats stats;

		need(!kx_index_stats(bench->index, i, &stats, NULL), "stats");
		hot += stats.hot_bytes;
		rows += stats.rows;
	}
	printf("vectors %llu, of codes and centroids MiB %.1f, store MiB %.0f\n", (unsigned long long)rows, (double)hot / 1048576.0,
	       (double)kx_store_disk_bytes(bench->store) / 1048576.0);
	fflush(stdout);
}

/* --- Similar ------------------------------------------------------------------------------------------------------- */

struct asked {
	struct kx_similar_answer *answers; /* [queries] */
	double cpu_ms;
};

static void ask(struct bench *bench, struct kx_mirror *mirror, const struct kx_similar_query *query, struct asked *ret)
{
	struct kx_query_context context = {.store = bench->store, .mirror = mirror, .index = bench->index};
	uint64_t random = 4711;
	double cpu;

	ret->answers = calloc(bench->queries, sizeof(*ret->answers));
	need(ret->answers, "memory");
	cpu = cpu_s();
	for (uint32_t i = 0; i < bench->queries; i++) {
		char id[32];
		struct kx_similar_query one = *query;
		struct kx_query_request request = {.kind = KX_QUERY_SIMILAR};
		KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;

		snprintf(id, sizeof(id), "%08u.mp4", (unsigned)(kx_test_random(&random) % bench->videos));
		one.video_id = id;
		request.similar = one;
		need(!kx_query_answer(&context, &request, &reply, NULL) && !reply->status, "query");
		ret->answers[i] = reply->similar;
		reply->similar = (struct kx_similar_answer){0};
	}
	ret->cpu_ms = (cpu_s() - cpu) * 1e3 / bench->queries;
}

static double recall_of(const struct bench *bench, const struct asked *is, const struct asked *should)
{
	uint32_t found = 0, all = 0;

	for (uint32_t i = 0; i < bench->queries; i++)
		for (uint32_t a = 0; a < should->answers[i].hit_count; a++, all++)
			for (uint32_t b = 0; b < is->answers[i].hit_count; b++) {
				const struct kx_similar_hit *one = &should->answers[i].hits[a], *two = &is->answers[i].hits[b];

				found += one->moment_start_us == two->moment_start_us && strcmp(one->video_id, two->video_id) == 0;
			}
	return all ? (double)found / all : 1.0;
}

static void asked_done(const struct bench *bench, struct asked *asked)
{
	for (uint32_t i = 0; i < bench->queries; i++)
		kx_similar_answer_done(&asked->answers[i]);
	free(asked->answers);
}

static void compare(struct bench *bench, struct kx_mirror *reading, const char *name, struct kx_similar_query query)
{
	struct asked should, exact, is, warm;

	query.k = 10;
	query.level = KX_LEVEL_MOMENTS;
	query.recall = 1.0;
	ask(bench, reading, &query, &should);
	query.recall = 0.95;
	ask(bench, bench->mirror, &query, &warm);
	ask(bench, bench->mirror, &query, &is);
	query.recall = 1.0;
	ask(bench, bench->mirror, &query, &exact);
	printf("%-28s reading ms %.1f; index ms %.2f, recall@10 %.4f; exact by the index ms %.1f, recall %.4f\n", name, should.cpu_ms,
	       is.cpu_ms, recall_of(bench, &is, &should), exact.cpu_ms, recall_of(bench, &exact, &should));
	fflush(stdout);
	asked_done(bench, &should);
	asked_done(bench, &exact);
	asked_done(bench, &is);
	asked_done(bench, &warm);
}

static void bench_similar(struct bench *bench)
{
	struct kx_mirror *reading = NULL;
	const struct kx_similar_query both = {.weight_visual = 0.6, .weight_audio = 0.4}, picture = {.weight_visual = 1.0};
	struct kx_similar_query query = both;

	open_store(bench);
	make_store(bench, put_for_similar);
	put_moments_in(bench);
	change_some(bench);
	tell_size(bench);
	need(!kx_mirror_new(&reading) && !kx_mirror_load(reading, bench->store, NULL), "mirror");
	compare(bench, reading, "picture", picture);
	compare(bench, reading, "picture and sound", both);
	query.filter = (char *)"duration < 82";
	compare(bench, reading, "filter, a tenth of videos", query);
	query.filter = (char *)"id in (\"00000001.mp4\",\"00000002.mp4\",\"00000003.mp4\",\"00000004.mp4\",\"00000005.mp4\")";
	compare(bench, reading, "filter, five videos", query);
	query.filter = NULL;
	query.group = KX_GROUP_SOURCE;
	compare(bench, reading, "the best of each video", query);
	kx_mirror_free(reading);
	kx_mirror_free(bench->mirror);
}

/* --- Near-duplicates ----------------------------------------------------------------------------------------------- */

/* Which video each is said to show the same as. */
struct said {
	uint32_t *of; /* [videos] */
	uint64_t members;
};

static kx_status hear(void *ctx, const struct kx_duplicate *members, size_t count, struct kx_error *error)
{
	struct said *said = ctx;

	(void)error;
	for (size_t i = 1; i < count; i++)
		said->of[atoi(members[i].id)] = (uint32_t)atoi(members[0].id) + 1;
	said->members += count - 1;
	return KX_OK;
}

static void find(struct bench *bench, struct kx_index *index, double recall, const char *name, struct said *said)
{
	struct kx_duplicates_options options = {.threshold = 0.8, .index = index, .recall = recall};
	struct kx_duplicates_stats stats;
	struct kx_error error = {0};
	double cpu = cpu_s();
	uint64_t begun = kx_clock_mono_us();

	said->of = calloc(bench->videos, sizeof(*said->of));
	need(said->of, "memory");
	need(!kx_duplicates_find(bench->store, &options, hear, said, &stats, &error), error.message);
	printf("duplicates, %s: CPU s %.1f, wall s %.1f; moments alike %llu, pairs looked at %llu, found %llu in %llu sets\n", name,
	       cpu_s() - cpu, (double)(kx_clock_mono_us() - begun) / 1e6, (unsigned long long)stats.matches,
	       (unsigned long long)stats.pairs, (unsigned long long)said->members, (unsigned long long)stats.clusters);
	fflush(stdout);
}

/* Of the copies that were made, how many are with their film. */
static double found_of(const struct bench *bench, const struct said *said)
{
	uint32_t found = 0, all = 0;

	for (uint32_t i = 0; i < bench->videos; i++) {
		struct shown shown = shown_by(bench, i);

		if (shown.film == i)
			continue;
		all++;
		/* The longest stands for all; of two of one length, the first by id. */
		found += said->of[i] == shown.film + 1 || said->of[shown.film] == i + 1 ||
			 (said->of[i] && said->of[i] == said->of[shown.film]);
	}
	return all ? (double)found / all : 1.0;
}

static void find_by_index(struct bench *bench, double recall, const struct said *should)
{
	struct said is = {0};
	uint32_t same = 0, all = 0;

	find(bench, bench->index, recall, "by the index", &is);
	printf("recall %.2f, copies found: %.4f", recall, found_of(bench, &is));
	for (uint32_t i = 0; should->of && i < bench->videos; i++) {
		all += should->of[i] != 0;
		same += should->of[i] && is.of[i] == should->of[i];
	}
	if (should->of)
		printf("; of what each with each finds: %.4f (%u of %u)", all ? (double)same / all : 1.0, same, all);
	putchar('\n');
	free(is.of);
}

static void bench_duplicates(struct bench *bench, bool quadratic, int recall_count, char **recalls)
{
	struct said should = {0};

	open_store(bench);
	make_store(bench, put_for_duplicates);
	put_moments_in(bench);
	kx_mirror_free(bench->mirror);
	if (quadratic) {
		find(bench, NULL, 0.0, "each with each", &should);
		printf("copies found: %.4f\n", found_of(bench, &should));
	}
	for (int i = 0; i < recall_count; i++)
		find_by_index(bench, atof(recalls[i]), &should);
	if (!recall_count)
		find_by_index(bench, 0.0, &should);
	free(should.of);
}

int main(int argc, char **argv)
{
	struct bench bench = {.queries = 20, .dim = {1280, 1024}};

	if (argc < 4) {
		fprintf(stderr, "usage: kx_bench_moments similar FOLDER VIDEOS [QUERIES [VISUAL_DIM AUDIO_DIM]]\n"
				"       kx_bench_moments duplicates FOLDER VIDEOS [both|index [RECALL...]]\n");
		return 2;
	}
	bench.folder = argv[2];
	bench.videos = (uint32_t)atoi(argv[3]);
	need(bench.videos > 0 && !kx_fs_mkdirs(bench.folder, NULL), "a folder and a number of videos");
	kx_learn_init();
	if (strcmp(argv[1], "duplicates") == 0) {
		bench.dim[0] = DUPLICATES_DIM;
		bench.dim[1] = 0;
		make_matrices(&bench);
		bench_duplicates(&bench, argc < 5 || strcmp(argv[4], "both") == 0, argc > 5 ? argc - 5 : 0, argv + 5);
	} else {
		bench.queries = argc > 4 ? (uint32_t)atoi(argv[4]) : bench.queries;
		bench.dim[0] = argc > 6 ? (uint32_t)atoi(argv[5]) : bench.dim[0];
		bench.dim[1] = argc > 6 ? (uint32_t)atoi(argv[6]) : bench.dim[1];
		make_matrices(&bench);
		bench_similar(&bench);
	}
	kx_index_close(bench.index);
	kx_store_close(bench.store);
	free(bench.matrix[0]);
	free(bench.matrix[1]);
	return 0;
}
