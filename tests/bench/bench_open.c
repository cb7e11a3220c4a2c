/* How long a shard takes from being opened to its first answer.
 *
 *   kx_bench_open make FOLDER VIDEOS MOMENTS   a store of made-up videos with so many moments each (0: none), its index, and the
 *                                              snapshot that a shard leaves; FOLDER must not be there
 *   kx_bench_open keep FOLDER MOMENTS          the snapshot anew
 *   kx_bench_open touch FOLDER COUNT           so many videos are noted as changed since, as a shard that is killed leaves it
 *   kx_bench_open ask FOLDER HOW WHAT          opens it to read, in this process, and asks one question
 *
 * HOW: warm, or cold: what the page cache has of its files is dropped first. WHAT: plain, number (a filter), label, class, title,
 * or moments, moments-number. One line: ms until it is open, until the answer, CPU of the process then, memory. Videos
 * are picture in 1280 dimensions and sound in 1024, a tenth of them silent: mixtures of 20 factors, of which picture and sound
 * share ten. */
#include <fcntl.h>
#include <fts.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "shard/query/mirror.h"
#include "shard/run/index.h"
#include "shard/run/shard.h"

#define VISUAL_DIM 1280u
#define AUDIO_DIM 1024u
#define FACTORS 30u /* 0..19 picture, 10..29 sound */
#define USED 20u
#define CLASSES 20u
#define WRITE_AT_ONCE 500u

static float visual_matrix[USED * VISUAL_DIM], audio_matrix[USED * AUDIO_DIM];

static void need(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "bench_open: %s\n", what);
	exit(1);
}

static float normal(uint64_t *random)
{
	double a = (double)(kx_test_random(random) >> 11) / 9007199254740992.0;
	double b = (double)(kx_test_random(random) >> 11) / 9007199254740992.0;

	return (float)(sqrt(-2.0 * log(a + 1e-300)) * cos(6.283185307179586 * b));
}

static void mix(const float *factors, const float *matrix, uint32_t dim, float *ret)
{
	memset(ret, 0, dim * sizeof(*ret));
	for (uint32_t f = 0; f < USED; f++)
		for (uint32_t i = 0; i < dim; i++)
			ret[i] += factors[f] * matrix[f * dim + i];
	(void)kx_learn_normalize(ret, dim);
}

struct made {
	uint32_t number, moments;
	char id[32];
	float factors[FACTORS], visual[VISUAL_DIM], audio[AUDIO_DIM];
};

static void put_moment(struct kx_kv_batch *batch, const struct made *made, enum kx_modality modality, uint32_t number,
		       uint64_t *random)
{
	struct kx_summary summary = {.modality = modality, .index = number, .count = 1, .moment_bytes = 1,
				     .dim = modality == KX_VISUAL ? VISUAL_DIM : AUDIO_DIM};
	struct kx_buf packed = {.max = KX_SUMMARY_MAX};
	float factors[FACTORS], values[VISUAL_DIM], most = 0;
	struct kx_key key;

	for (uint32_t i = 0; i < FACTORS; i++)
		factors[i] = made->factors[i] + 0.5f * normal(random);
	if (modality == KX_VISUAL)
		mix(factors, visual_matrix, VISUAL_DIM, values);
	else
		mix(factors + FACTORS - USED, audio_matrix, AUDIO_DIM, values);
	for (uint32_t i = 0; i < summary.dim; i++)
		most = fmaxf(most, fabsf(values[i]));
	summary.scale = most / 127.0f;
	for (uint32_t i = 0; i < summary.dim; i++)
		summary.embedding[i] = (int8_t)lroundf(values[i] / summary.scale);
	snprintf(summary.space, sizeof(summary.space), "%s", modality == KX_VISUAL ? "pictures" : "sounds");
	need(!kx_summary_pack(&summary, &packed), "packing a summary");
	kx_key_moment(&key, made->id, 1, modality, number);
	kx_kv_batch_put(batch, KX_STORE_MOMENTS, key.bytes, key.len, packed.data, packed.len);
	kx_buf_done(&packed);
}

static void make_classes(uint64_t *random, uint32_t *ids, float *scores)
{
	for (uint32_t i = 0; i < CLASSES; i++) {
		ids[i] = i * 50 + (uint32_t)(kx_test_random(random) % 50);
		scores[i] = 0.9f / (float)(i + 1);
	}
}

static void put_record(struct kx_kv_batch *batch, struct made *made, uint64_t *random)
{
	struct kx_attribute year = {.name = (char *)"year", .type = KX_ATTRIBUTE_NUMBER, .text = (char *)"",
				    .number = 1950 + made->number % 70};
	char title[64], source[80], label[2][16], *labels[2] = {label[0], label[1]};
	uint32_t ids[2][CLASSES];
	float scores[2][CLASSES];
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	struct kx_video_record record = {.generation = 1, .stored_at_ms = 1600000000000u + made->number * 1000ull};

	snprintf(title, sizeof(title), "A film about %u and %u", made->number % 977, made->number % 89);
	snprintf(source, sizeof(source), "/films/collection-%02u/%s", made->number % 50, made->id);
	for (uint32_t i = 0; i < 2; i++)
		snprintf(label[i], sizeof(label[i]), "label-%u", (uint32_t)(kx_test_random(random) % 500));
	make_classes(random, ids[0], scores[0]);
	make_classes(random, ids[1], scores[1]);
	record.info = (struct kx_video_info){.title = title, .source = source, .run_id = (char *)"run", .duration_us = 1,
					     .width = 1280, .height = 720, .label_count = 2, .labels = labels};
	record.info.extras = (struct kx_extras){.language = (char *)(made->number % 3 ? "en" : "de"), .visibility = (char *)"",
						.attribute_count = 1, .attributes = &year};
	record.info.recipe_sha256[0] = record.info.content_sha256[0] = 1;
	record.result = (struct kx_video_result){.video_id = made->id, .duration_us = 1000000u * (made->number % 100),
						 .moment_us = 1000000, .decode_mode = KX_DECODE_EXACT};
	record.result.recipe_sha256[0] = 1;
	record.result.modalities[0] = (struct kx_modality_result){
		.modality = KX_VISUAL, .space = (char *)"pictures", .moments = made->moments, .rows = 1, .dim = VISUAL_DIM,
		.embedding = made->visual, .class_count = CLASSES, .class_ids = ids[0], .class_scores = scores[0]};
	record.result.modalities[1] = (struct kx_modality_result){
		.modality = KX_AUDIO, .space = (char *)"sounds", .moments = made->moments, .rows = 1, .dim = AUDIO_DIM,
		.embedding = made->audio, .class_count = CLASSES, .class_ids = ids[1], .class_scores = scores[1]};
	record.result.modality_count = made->number % 10 == 9 ? 1 : 2;
	for (uint32_t m = 0; m < record.result.modality_count; m++)
		for (uint32_t i = 0; i < made->moments; i++)
			put_moment(batch, made, record.result.modalities[m].modality, i, random);
	if (!made->moments) /* a record has to say one; the store holds none */
		record.result.modalities[0].moments = record.result.modalities[1].moments = 1;
	need(!kx_video_record_pack(&record, &packed), "packing");
	kx_kv_batch_put(batch, KX_STORE_VIDEOS, made->id, strlen(made->id), packed.data, packed.len);
	kx_buf_done(&packed);
}

static void make_records(const char *folder, uint32_t videos, uint32_t moments)
{
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = NULL;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	struct kx_error error = {0};
	uint64_t random = 7;

	for (uint32_t i = 0; i < USED * VISUAL_DIM; i++)
		visual_matrix[i] = normal(&random);
	for (uint32_t i = 0; i < USED * AUDIO_DIM; i++)
		audio_matrix[i] = normal(&random);
	need(!kx_fs_mkdirs(folder, &error) && !kx_shard_store_open(folder, false, &store, &error), error.message);
	need(!kx_kv_batch_new(kx_store_kv(store), &batch), "batch");
	for (uint32_t i = 0; i < videos; i++) {
		struct made made = {.number = i, .moments = moments};

		snprintf(made.id, sizeof(made.id), "%08u.mp4", i);
		for (uint32_t f = 0; f < FACTORS; f++)
			made.factors[f] = normal(&random);
		mix(made.factors, visual_matrix, VISUAL_DIM, made.visual);
		mix(made.factors + FACTORS - USED, audio_matrix, AUDIO_DIM, made.audio);
		put_record(batch, &made, &random);
		if (i % WRITE_AT_ONCE == 0 || i + 1 == videos)
			need(!kx_kv_write(kx_store_kv(store), batch, i + 1 == videos, &error), error.message);
	}
}

static double ms_of(clockid_t clock)
{
	struct timespec now;

	need(!clock_gettime(clock, &now), "clock");
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int keep(const char *folder, uint32_t moments)
{
	KX_CLEANUP(kx_cleanup_free) char *snapshots = kx_fs_join(folder, "mirror-0");
	struct kx_store *store = NULL;
	struct kx_index *index = NULL;
	struct kx_mirror *mirror = NULL;
	struct kx_error error = {0};
	uint32_t done = 1;
	double from;

	need(!kx_shard_store_open(folder, false, &store, &error), error.message);
	need(!kx_shard_index_open(store, folder, false, true, 0, &index, &error), error.message);
	need(!kx_mirror_new(&mirror) && !kx_mirror_use_index(mirror, index, store, false), "mirror");
	need(!moments || !kx_mirror_use_moments(mirror, index, store, false), "mirror");
	need(snapshots && !kx_mirror_use_snapshots(mirror, snapshots), "mirror");
	need(!kx_mirror_load(mirror, store, &error), error.message);
	while (done)
		need(!kx_index_maintain(index, 64, &done, &error), error.message);
	need(!kx_store_set_snapshot(store, NULL, 0, &error), error.message);
	from = ms_of(CLOCK_PROCESS_CPUTIME_ID);
	kx_mirror_keep(mirror);
	printf("snapshot: %.0f ms of CPU, %.1f MiB\n", ms_of(CLOCK_PROCESS_CPUTIME_ID) - from,
	       (double)kx_fs_tree_bytes(snapshots) / 1048576);
	kx_mirror_free(mirror);
	kx_index_close(index);
	kx_store_close(store);
	return 0;
}

static int touch(const char *folder, uint32_t count)
{
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = NULL;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	struct kx_error error = {0};

	need(!kx_shard_store_open(folder, false, &store, &error), error.message);
	need(!kx_kv_batch_new(kx_store_kv(store), &batch), "batch");
	for (uint32_t i = 0; i < count; i++) {
		char key[48];

		snprintf(key, sizeof(key), "changed/%08u.mp4", i * 7);
		kx_kv_batch_put(batch, KX_STORE_META, key, strlen(key), "", 0);
	}
	need(!kx_kv_write(kx_store_kv(store), batch, true, &error), error.message);
	return 0;
}

static void drop_cache(const char *folder)
{
	char *const roots[2] = {(char *)(uintptr_t)folder, NULL};
	FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);

	sync();
	for (FTSENT *entry; walk && (entry = fts_read(walk));) {
		int fd = entry->fts_info == FTS_F ? open(entry->fts_accpath, O_RDONLY | O_CLOEXEC) : -1;

		if (fd < 0)
			continue;
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		(void)close(fd);
	}
	if (walk)
		(void)fts_close(walk);
}

static double rss_mib(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[128];
	double kib = 0;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "RssAnon: %lf", &kib) == 1)
			break;
	if (file)
		(void)fclose(file);
	return kib / 1024;
}

static int ask(const char *folder, const char *how, const char *what)
{
	static const struct {
		const char *what, *filter;
		bool moments;
	} kinds[] = {{"plain", NULL, false}, {"number", "duration < 10", false}, {"label", "label = label-7 or label = label-8", false},
		     {"class", "class:visual#7 > 0.1", false}, {"title", "title ~ \"about 7\"", false},
		     {"moments", NULL, true}, {"moments-number", "duration < 10", true}};
	struct kx_shard_options options = {.data_dir = folder, .read_only = true};
	struct kx_query_request request = {.kind = KX_QUERY_SIMILAR};
	struct kx_query_reply *reply = NULL;
	struct kx_shard *shard = NULL;
	struct kx_error error = {0};
	size_t kind = 0;
	double from, cpu, opened;

	while (kind < KX_ARRAY_LEN(kinds) && strcmp(kinds[kind].what, what) != 0)
		kind++;
	need(kind < KX_ARRAY_LEN(kinds), "no such question");
	if (strcmp(how, "cold") == 0)
		drop_cache(folder);
	request.similar = (struct kx_similar_query){.video_id = (char *)"00000042.mp4", .k = 10, .weight_visual = 0.6,
						    .weight_audio = 0.4, .filter = (char *)(uintptr_t)kinds[kind].filter,
						    .level = kinds[kind].moments ? KX_LEVEL_MOMENTS : KX_LEVEL_VIDEOS};
	kx_learn_init();
	from = ms_of(CLOCK_MONOTONIC);
	cpu = ms_of(CLOCK_PROCESS_CPUTIME_ID);
	need(!kx_shard_start(&options, &shard, &error), error.message);
	opened = ms_of(CLOCK_MONOTONIC);
	need(!kx_shard_answer(shard, &request, &reply, NULL) && !reply->status, reply ? reply->message : "asking");
	printf("%-4s %-14s open %7.1f ms, answer %8.1f ms, CPU %8.1f ms, %6.0f MiB, %u hits, the first %s\n", how, what,
	       opened - from, ms_of(CLOCK_MONOTONIC) - from, ms_of(CLOCK_PROCESS_CPUTIME_ID) - cpu, rss_mib(),
	       reply->similar.hit_count, reply->similar.hit_count ? reply->similar.hits[0].video_id : "-");
	kx_query_reply_free(reply);
	kx_shard_stop(shard);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "ask") == 0)
		return ask(argv[2], argv[3], argv[4]);
	if (argc == 5 && strcmp(argv[1], "make") == 0 && !kx_fs_exists(argv[2]))
		make_records(argv[2], (uint32_t)strtoul(argv[3], NULL, 10), (uint32_t)strtoul(argv[4], NULL, 10));
	if ((argc == 5 && strcmp(argv[1], "make") == 0) || (argc == 4 && strcmp(argv[1], "keep") == 0))
		return keep(argv[2], (uint32_t)strtoul(argv[argc - 1], NULL, 10));
	if (argc == 4 && strcmp(argv[1], "touch") == 0)
		return touch(argv[2], (uint32_t)strtoul(argv[3], NULL, 10));
	return fprintf(stderr, "usage: kx_bench_open make NEW_FOLDER VIDEOS MOMENTS | ask FOLDER warm|cold WHAT\n"), 2;
}
