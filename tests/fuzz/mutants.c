/* Damaged files through the worker's own pipeline: a decoder host, a child a job under real limits, models. What may
 * happen to a job is written down in the ledger's terms; nothing may happen to the worker.
 *
 *   kx_mutants run BUNDLES BASES WORK KEPT COUNT SEED [FIRST]
 *   kx_mutants replay BUNDLES WORK FILE
 *
 * Driven by scripts/fuzz. Prints a table; ends with 1 when a promise was broken: an input that ended in no typed reason,
 * a job over its limits, a host that died. Mutants that crashed a child or broke a promise are kept, by seed and number.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mutate.h"
#include "worker/pipeline/pipeline.h"

#define DECODERS 2
#define IN_FLIGHT_MAX 8u
#define BASES_MAX 256u

/* Tight: a good excerpt takes a twentieth of them. */
#define WALL_MS 10000u
#define CPU_MS 2000u
#define MEMORY_BYTES (UINT64_C(384) << 20)
/* What a job may take over its limits. CPU time is counted in whole seconds by the kernel; the wall clock stands while a
 * full ring waits for us, which takes long on a crowded machine, and a killed child has to be buried. What hangs takes
 * longer still. */
#define WALL_SLACK_MS 120000u
#define CPU_SLACK_MS 1500u
#define MEMORY_SLACK_BYTES (UINT64_C(160) << 20) /* the executable, its libraries, the ring */

struct totals {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned in_flight, ended, complete, partial, untyped, crashes;
	unsigned reasons[KX_REASON_COUNT];
	unsigned over_wall, over_cpu, over_memory;
	uint64_t cpu_us, max_cpu_us, max_wall_us, max_rss_bytes;
	const char *kept;
};

/* A mutant on its way. */
struct flight {
	struct totals *totals;
	char *path;
	char *name; /* to keep it by */
};

static _Noreturn void give_up(const char *what)
{
	fprintf(stderr, "kx_mutants: %s\n", what);
	exit(2);
}

static char *path_of(const char *folder, const char *name)
{
	char *path = kx_fs_join(folder, name);

	FUZZ_CHECK(path);
	return path;
}

/* ---- the base files ---- */

static int visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static size_t load_bases(const char *folder, struct base *bases)
{
	struct dirent **names = NULL;
	int count = scandir(folder, &names, visible, alphasort);

	if (count <= 0 || count > (int)BASES_MAX)
		give_up("no base files, or too many");
	for (int i = 0; i < count; i++) {
		char *path = path_of(folder, names[i]->d_name);
		struct kx_error error = {0};

		bases[i].name = kx_strdup(names[i]->d_name);
		if (kx_fs_read(path, MUTANT_MAX, &bases[i].bytes, &error) != KX_OK)
			give_up(error.message);
		FUZZ_CHECK(bases[i].name && bases[i].bytes.len > 0);
		free(path);
		free(names[i]);
	}
	free(names);
	return (size_t)count;
}

/* ---- one job ---- */

static bool over(uint64_t value, uint64_t limit, unsigned *count)
{
	if (value <= limit)
		return false;
	(*count)++;
	return true;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static bool over_limits(struct totals *totals, const struct kx_outcome *outcome)
{
	bool wall = over(outcome->wall_us, (WALL_MS + WALL_SLACK_MS) * UINT64_C(1000), &totals->over_wall);
	bool cpu = over(outcome->decode_cpu_us, (CPU_MS + CPU_SLACK_MS) * UINT64_C(1000), &totals->over_cpu);
	bool memory = over(outcome->decode_rss_bytes, MEMORY_BYTES + MEMORY_SLACK_BYTES, &totals->over_memory);

	totals->cpu_us += outcome->decode_cpu_us;
	totals->max_cpu_us = max_u64(totals->max_cpu_us, outcome->decode_cpu_us);
	totals->max_wall_us = max_u64(totals->max_wall_us, outcome->wall_us);
	totals->max_rss_bytes = max_u64(totals->max_rss_bytes, outcome->decode_rss_bytes);
	return wall || cpu || memory;
}

/* Counts; returns whether the input is to be kept. INTERNAL and MODEL_FAILED blame us, not the file. */
static bool count(struct totals *totals, const struct kx_outcome *outcome)
{
	bool keep = over_limits(totals, outcome);

	if (outcome->reason == KX_REASON_NONE) {
		totals->complete += !outcome->end.truncated;
		totals->partial += outcome->end.truncated;
		return keep;
	}
	if (outcome->reason < KX_REASON_NONE || outcome->reason >= KX_REASON_COUNT) {
		totals->untyped++;
		return true;
	}
	totals->reasons[outcome->reason]++;
	if (outcome->reason == KX_REASON_INTERNAL || outcome->reason == KX_REASON_MODEL_FAILED)
		totals->untyped++;
	else if (outcome->reason != KX_REASON_CRASHED)
		return keep;
	else
		totals->crashes++;
	return true;
}

static void on_moment(void *ctx, const struct kx_job *job, const struct kx_moment *moment)
{
	(void)ctx;
	(void)job;
	(void)moment;
}

/* The work folder is in memory and the other one is not, so a name in the latter will not do. */
static void keep_file(const struct flight *flight, const char *folder)
{
	char *to = path_of(folder, flight->name);
	struct kx_buf bytes = {0};

	if (kx_fs_read(flight->path, MUTANT_MAX, &bytes, NULL) != KX_OK ||
	    kx_fs_write(to, bytes.data, bytes.len, NULL) != KX_OK)
		fprintf(stderr, "kx_mutants: %s could not be kept\n", flight->name);
	kx_buf_done(&bytes);
	free(to);
}

static void on_done(void *ctx, const struct kx_job *job, const struct kx_outcome *outcome)
{
	struct flight *flight = ctx;
	struct totals *totals = flight->totals;

	(void)job;
	pthread_mutex_lock(&totals->lock);
	if (count(totals, outcome)) {
		printf("%s: %s: %s; cpu %" PRIu64 " ms, wall %" PRIu64 " ms, memory %" PRIu64 " MiB\n", flight->name,
		       kx_reason_name(outcome->reason), outcome->message, outcome->decode_cpu_us / 1000,
		       outcome->wall_us / 1000, outcome->decode_rss_bytes >> 20);
		if (totals->kept)
			keep_file(flight, totals->kept);
	}
	if (totals->kept)
		unlink(flight->path);
	totals->in_flight--;
	totals->ended++;
	pthread_cond_broadcast(&totals->changed);
	pthread_mutex_unlock(&totals->lock);
	free(flight->path);
	free(flight->name);
	free(flight);
}

static uint64_t hash_of(const struct kx_buf *bytes)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < bytes->len; i++)
		hash = (hash ^ bytes->data[i]) * UINT64_C(0x100000001b3);
	return hash;
}

/* What is asked of a file follows from its content, so that replay asks the same. The spans keep timestamps that jump
 * from making thousands of frames for the models; without one, frames are rare (a picture may stand for an hour). */
static struct kx_job job_for(const char *path, const struct kx_buf *bytes)
{
	static const struct {
		double fps;
		uint64_t start_us, end_us, moment_us;
		uint32_t tracks;
		enum kx_decode_mode mode;
		uint64_t tolerance_us;
	} requests[] = {
		{1, 0, 10000000, 5000000, KX_TRACK_VISUAL | KX_TRACK_AUDIO, KX_DECODE_EXACT, 0},
		{1, 0, 10000000, 5000000, KX_TRACK_VISUAL | KX_TRACK_AUDIO, KX_DECODE_EXACT, 0},
		{3, 500000, 3000000, 500000, KX_TRACK_VISUAL, KX_DECODE_EXACT, 0},
		{0.001, 0, 0, 5000000, KX_TRACK_VISUAL | KX_TRACK_AUDIO, KX_DECODE_EXACT, 0},
		{3, 0, 3000000, 500000, KX_TRACK_VISUAL, KX_DECODE_TOLERANT, 160000},
		{2, 500000, 10000000, 500000, KX_TRACK_VISUAL, KX_DECODE_TOLERANT, 250000},
		{2, 0, 10000000, 5000000, KX_TRACK_VISUAL, KX_DECODE_KEYFRAME, 0},
		{0.001, 0, 0, 5000000, KX_TRACK_VISUAL, KX_DECODE_TOLERANT, 1000000},
	};
	size_t i = hash_of(bytes) >> 32 & 7u;
	struct kx_job job = {
		.run_id = (char *)"mutants",
		.video_id = (char *)"mutant",
		.generation = 1,
		.parts = 1,
		.tracks = requests[i].tracks,
		.source = (char *)path,
		.content_bytes = bytes->len,
		.start_us = requests[i].start_us,
		.end_us = requests[i].end_us,
		.fps = requests[i].fps,
		.decode_mode = requests[i].mode,
		.decode_tolerance_us = requests[i].tolerance_us,
		.moment_us = requests[i].moment_us,
		.attempt = 1,
		.wall_limit_ms = WALL_MS,
		.cpu_limit_ms = CPU_MS,
		.memory_limit_bytes = MEMORY_BYTES,
	};

	memset(job.content_sha256, 7, sizeof(job.content_sha256));
	memset(job.recipe_sha256, 8, sizeof(job.recipe_sha256));
	return job;
}

/* path and name become the flight's. Waits while too many are under way. */
static void submit(struct kx_pipeline *pipeline, struct totals *totals, char *path, char *name,
		   const struct kx_buf *bytes)
{
	struct flight *flight = malloc(sizeof(*flight));
	struct kx_job job = job_for(path, bytes);
	const struct kx_pipeline_sink sink = {.ctx = flight, .moment = on_moment, .done = on_done};
	struct kx_error error = {0};

	FUZZ_CHECK(flight && path && name);
	*flight = (struct flight){.totals = totals, .path = path, .name = name};
	pthread_mutex_lock(&totals->lock);
	while (totals->in_flight == IN_FLIGHT_MAX)
		pthread_cond_wait(&totals->changed, &totals->lock);
	totals->in_flight++;
	pthread_mutex_unlock(&totals->lock);
	if (kx_pipeline_submit(pipeline, &job, &sink, &error) != KX_OK)
		give_up(error.message);
}

static void wait_for_all(struct totals *totals)
{
	pthread_mutex_lock(&totals->lock);
	while (totals->in_flight > 0)
		pthread_cond_wait(&totals->changed, &totals->lock);
	pthread_mutex_unlock(&totals->lock);
}

static void write_file(const char *path, const struct kx_buf *bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, bytes->data, bytes->len) != (ssize_t)bytes->len || close(fd) != 0)
		give_up("the work folder takes no file");
}

/* ---- the worker ---- */

struct worker {
	struct kx_bundle *bundles[2];
	struct kx_pipeline *pipeline;
	pid_t host;
};

static struct kx_bundle *open_bundle(const char *folder, const char *name)
{
	char *path = path_of(folder, name);
	struct kx_bundle *bundle = NULL;
	struct kx_error error = {0};

	if (kx_bundle_open(path, &bundle, &error) != KX_OK)
		give_up(error.message);
	free(path);
	return bundle;
}

/* The only child that we ever have; 0 when there is none. */
static pid_t child_pid(void)
{
	DIR *threads = opendir("/proc/self/task");
	struct dirent *thread;
	pid_t child = 0;

	FUZZ_CHECK(threads);
	while (child == 0 && (thread = readdir(threads)) != NULL) {
		char *path = kx_strf("/proc/self/task/%s/children", thread->d_name);
		FILE *file = thread->d_name[0] == '.' || !path ? NULL : fopen(path, "re");
		char line[64] = "";

		free(path);
		if (!file)
			continue;
		if (fgets(line, sizeof(line), file))
			child = (pid_t)strtol(line, NULL, 10);
		fclose(file);
	}
	closedir(threads);
	return child;
}

static void worker_start(struct worker *worker, const char *bundles, const char *work)
{
	struct kx_pipeline_options options = {
		.program = "/proc/self/exe",
		.run_dir = work,
		.precision = KX_PRECISION_AUTO,
		.decoders = DECODERS,
		.streams = 1,
		.queue_max = IN_FLIGHT_MAX,
	};
	struct kx_error error = {0};

	worker->bundles[0] = open_bundle(bundles, "lite0");
	worker->bundles[1] = open_bundle(bundles, "yamnet");
	options.visual = worker->bundles[0];
	options.audio = worker->bundles[1];
	if (kx_pipeline_new(&options, &worker->pipeline, &error) != KX_OK)
		give_up(error.message);
	worker->host = child_pid();
	FUZZ_CHECK(worker->host > 0);
}

/* Whether its host is still the one that it started with. */
static bool worker_stop(struct worker *worker)
{
	bool same = child_pid() == worker->host;

	kx_pipeline_free(worker->pipeline);
	kx_bundle_free(worker->bundles[0]);
	kx_bundle_free(worker->bundles[1]);
	return same;
}

/* ---- runs ---- */

static int report(const struct totals *totals, bool host_lived)
{
	printf("\n%u inputs\n  %6u done\n  %6u partial\n", totals->ended, totals->complete, totals->partial);
	for (int i = 0; i < KX_REASON_COUNT; i++) {
		if (i != KX_REASON_NONE && totals->reasons[i] > 0)
			printf("  %6u quarantined: %s\n", totals->reasons[i], kx_reason_name((enum kx_reason)i));
	}
	printf("deaths: worker 0, host %d, children that crashed %u\n", !host_lived, totals->crashes);
	printf("ended without a reason of the file's: %u\n", totals->untyped);
	printf("over their limit: wall %u, cpu %u, memory %u (at most %.2f s, %.2f s, %" PRIu64 " MiB; limits %.0f s, "
	       "%.0f s, %" PRIu64 " MiB)\n",
	       totals->over_wall, totals->over_cpu, totals->over_memory, (double)totals->max_wall_us / 1e6,
	       (double)totals->max_cpu_us / 1e6, totals->max_rss_bytes >> 20, WALL_MS / 1e3, CPU_MS / 1e3,
	       MEMORY_BYTES >> 20);
	printf("cpu: %.1f s, of which decoding %.1f s\n", (double)kx_clock_cpu_us() / 1e6,
	       (double)totals->cpu_us / 1e6);
	return totals->untyped + totals->over_wall + totals->over_cpu + totals->over_memory == 0 && host_lived ? 0 : 1;
}

static void totals_init(struct totals *totals, const char *kept)
{
	*totals = (struct totals){.kept = kept};
	FUZZ_CHECK(pthread_mutex_init(&totals->lock, NULL) == 0 && kx_cond_init(&totals->changed) == KX_OK);
}

/* argv: BUNDLES BASES WORK KEPT COUNT SEED [FIRST] */
static int run(int argc, char **argv)
{
	static struct base bases[BASES_MAX];
	struct worker worker = {0};
	struct totals totals;
	struct kx_buf bytes = {.max = 2 * MUTANT_MAX};
	uint64_t wanted = 0, seed = 0, first = 0;
	size_t base_count, base = 0;
	bool host_lived;

	if (kx_parse_u64(argv[4], &wanted) != KX_OK || kx_parse_u64(argv[5], &seed) != KX_OK ||
	    (argc > 6 && kx_parse_u64(argv[6], &first) != KX_OK))
		give_up("COUNT, SEED and FIRST are numbers");
	base_count = load_bases(argv[1], bases);
	worker_start(&worker, argv[0], argv[2]);
	totals_init(&totals, argv[3]);
	printf("seed %" PRIu64 ": %" PRIu64 " mutants of %zu files\n", seed, wanted, base_count);
	fflush(stdout);
	for (uint64_t i = first; i < first + wanted; i++) {
		char *name, *path;

		mutant_make(bases, base_count, seed, i, &bytes, &base);
		name = kx_strf("%" PRIu64 "-%" PRIu64 "-%s", seed, i, bases[base].name);
		path = name ? kx_fs_join(argv[2], name) : NULL;
		FUZZ_CHECK(path);
		write_file(path, &bytes);
		submit(worker.pipeline, &totals, path, name, &bytes);
	}
	wait_for_all(&totals);
	host_lived = worker_stop(&worker);
	kx_buf_done(&bytes);
	for (size_t i = 0; i < base_count; i++) {
		free(bases[i].name);
		kx_buf_done(&bases[i].bytes);
	}
	return report(&totals, host_lived);
}

/* argv: BUNDLES WORK FILE */
static int replay(char **argv)
{
	struct worker worker = {0};
	struct totals totals;
	struct kx_buf bytes = {0};
	struct kx_error error = {0};
	bool host_lived;

	if (kx_fs_read(argv[2], MUTANT_MAX, &bytes, &error) != KX_OK)
		give_up(error.message);
	worker_start(&worker, argv[0], argv[1]);
	totals_init(&totals, NULL);
	submit(worker.pipeline, &totals, kx_strdup(argv[2]), kx_strdup(argv[2]), &bytes);
	wait_for_all(&totals);
	host_lived = worker_stop(&worker);
	kx_buf_done(&bytes);
	return report(&totals, host_lived) == 0 && totals.crashes == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	if (argc == 2 && kx_str_eq(argv[1], "decoder-host"))
		return kx_decoder_host_main();
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc >= 8 && kx_str_eq(argv[1], "run"))
		return run(argc - 2, argv + 2);
	if (argc == 5 && kx_str_eq(argv[1], "replay"))
		return replay(argv + 2);
	give_up("run BUNDLES BASES WORK KEPT COUNT SEED [FIRST], or replay BUNDLES WORK FILE");
}
