/* The vector index for scripts/bench ann: one process that builds or opens an index and does what it is told, a command a
 * line, each answered by a line of JSON.
 *
 *   kx_bench_ann ivf|index BASE.fbin QUERY.fbin ATTRIBUTES.ibin DIR
 *
 *   build CELLS                               0: as many as the engine wants. What it makes lies in DIR
 *   open MORE                                 MORE: vectors that may be inserted
 *   filter none|below VALUE|class FILE        the rows with attribute a < VALUE; of each query's class, which FILE says
 *   search RECALL FIRST END THREADS OUT       queries [FIRST, END), one at a time on each thread; 10 ids of each to OUT, int32
 *   search_many RECALL FIRST END THREADS EACH OUT   the same, EACH queries a call; a query takes as long as its call
 *   insert FILE COUNT EACH                    the first COUNT rows of FILE, EACH at a time
 *   mixed RECALL SECONDS INSERTS DELETES FILE IDS   queries one after another, while rows of FILE go in and IDS out, so many
 *                                             a second; SECONDS before it without
 *   ask RECALL FILE OUT                       each row of FILE as a query
 *   maintain | resident | close
 *
 * CPU time is the process's, so that threads of the engine count. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/macros.h"
#include "common/base/thread.h"
#include "tests/bench/kx_bench_ann.h"

#define LINE_MAX_BYTES 8192u
#define WORDS_MAX 8u
#define THREADS_MAX 16u
#define LATENCIES_MAX 4000000u
#define SECOND_US 1000000u
#define CHANGES_A_SECOND 10u /* how often a mixed load's changes come */

struct bench {
	const struct bench_ops *ops;
	struct bench_set set;
	struct bench_engine *engine;
	void *filter;             /* NULL: none */
	void **class_filter;      /* [classes], NULL where no query is of it */
	int32_t classes;
	struct bench_rows query_class;
};

static uint64_t clock_ns(clockid_t which)
{
	struct timespec now;

	(void)clock_gettime(which, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t resident_bytes(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long size = 0, resident = 0;

	if (file) {
		if (fscanf(file, "%lu %lu", &size, &resident) != 2)
			resident = 0;
		(void)fclose(file);
	}
	return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* --- Searching ------------------------------------------------------------------------------------------------ */

struct worker {
	struct bench *bench;
	const struct bench_rows *queries;
	double recall;
	int32_t first, end;
	uint32_t each;      /* queries a call; 0: one by one */
	int32_t *ids;       /* [end - first][BENCH_K] */
	uint32_t *took_ns;  /* [end - first] */
	struct bench_work work;
	kx_status status;
	struct kx_error error;
};

static const void *filter_of(const struct bench *bench, int32_t query)
{
	if (!bench->class_filter)
		return bench->filter;
	return bench->class_filter[((const int32_t *)bench->query_class.data)[query]];
}

static kx_status search_each(struct worker *worker, const struct bench_search *how, int32_t at, uint32_t n)
{
	struct bench *bench = worker->bench;
	const void **filters = calloc(n + 1u, sizeof(*filters));
	uint64_t started = clock_ns(CLOCK_MONOTONIC);
	kx_status status = KX_ENOMEM;

	for (uint32_t i = 0; filters && i < n; i++)
		filters[i] = filter_of(bench, at + (int32_t)i);
	if (filters)
		status = bench->ops->search_many(bench->engine, how, bench_row(worker->queries, (size_t)at), filters, n,
						 worker->ids + (size_t)(at - worker->first) * BENCH_K, &worker->work, &worker->error);
	free(filters);
	started = clock_ns(CLOCK_MONOTONIC) - started;
	for (uint32_t i = 0; i < n; i++)
		worker->took_ns[(uint32_t)(at - worker->first) + i] = (uint32_t)(started < UINT32_MAX ? started : UINT32_MAX);
	return status;
}

static void *search_many(void *arg)
{
	struct worker *worker = arg;
	struct bench *bench = worker->bench;
	struct bench_search how = {.recall = worker->recall};
	uint32_t n;

	worker->status = bench->ops->scratch_new(bench->engine, &how.scratch);
	for (int32_t i = worker->first; i < worker->end && !worker->status; i += (int32_t)n) {
		n = (uint32_t)(worker->end - i) < worker->each ? (uint32_t)(worker->end - i) : worker->each;
		worker->status = search_each(worker, &how, i, n);
	}
	bench->ops->scratch_free(how.scratch);
	return NULL;
}

static void *search_some(void *arg)
{
	struct worker *worker = arg;
	struct bench *bench = worker->bench;
	struct bench_search how = {.recall = worker->recall};

	worker->status = bench->ops->scratch_new(bench->engine, &how.scratch);
	for (int32_t i = worker->first; i < worker->end && !worker->status; i++) {
		uint64_t started = clock_ns(CLOCK_MONOTONIC);

		how.filter = filter_of(bench, i);
		worker->status = bench->ops->search(bench->engine, &how, bench_row(worker->queries, (size_t)i),
						    worker->ids + (size_t)(i - worker->first) * BENCH_K, &worker->work,
						    &worker->error);
		worker->took_ns[i - worker->first] = (uint32_t)(clock_ns(CLOCK_MONOTONIC) - started);
	}
	bench->ops->scratch_free(how.scratch);
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Sorts. */
static double percentile_us(uint32_t *took_ns, size_t n, double share)
{
	if (!n)
		return 0.0;
	qsort(took_ns, n, sizeof(*took_ns), by_value);
	return took_ns[(size_t)((double)(n - 1) * share)] / 1000.0;
}

static kx_status write_ids(const char *path, const int32_t *ids, int32_t count, struct kx_error *error)
{
	int32_t head[2] = {count, (int32_t)BENCH_K};
	FILE *file = fopen(path, "wb");
	bool good = file && fwrite(head, sizeof(head), 1, file) == 1 &&
		    fwrite(ids, sizeof(*ids) * BENCH_K, (size_t)count, file) == (size_t)count;

	if (file && fclose(file))
		good = false;
	return good ? KX_OK : kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "can't write %s: %s", path, strerror(errno));
}

static kx_status run_workers(struct worker *workers, size_t threads, struct kx_error *error)
{
	void *(*const search)(void *) = workers->each ? search_many : search_some;
	pthread_t handles[THREADS_MAX];
	kx_status status = KX_OK;
	size_t started = 0;

	while (started + 1 < threads && !status) {
		status = kx_thread_start(&handles[started], "search", search, &workers[started + 1], error);
		started += !status;
	}
	if (!status)
		(void)search(&workers[0]);
	for (size_t i = 0; i < started; i++)
		(void)pthread_join(handles[i], NULL);
	for (size_t i = 0; i < threads && !status; i++) {
		status = workers[i].status;
		if (status && error)
			*error = workers[i].error;
	}
	return status;
}

/* Queries [first, end) of rows. */
struct span {
	int32_t first, end;
	uint32_t threads, each;
};

/* Prints the figures. */
static kx_status search_rows(struct bench *bench, const struct bench_rows *queries, double recall, const struct span *span,
			     const char *out, struct kx_error *error)
{
	const int32_t first = span->first;
	const size_t threads = span->threads;
	size_t n = (size_t)(span->end - first);
	int32_t *ids = calloc(n * BENCH_K, sizeof(*ids));
	uint32_t *took = calloc(n, sizeof(*took));
	struct worker workers[THREADS_MAX] = {0};
	struct bench_work work = {0};
	uint64_t cpu, wall;
	kx_status status = ids && took ? KX_OK : KX_ENOMEM;

	for (size_t i = 0; i < threads; i++) {
		int32_t from = first + (int32_t)(n * i / threads), to = first + (int32_t)(n * (i + 1) / threads);

		workers[i] = (struct worker){.bench = bench, .queries = queries, .recall = recall, .first = from, .end = to,
					     .each = span->each,
					     .ids = ids ? ids + (size_t)(from - first) * BENCH_K : NULL,
					     .took_ns = took ? took + (from - first) : NULL};
	}
	cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	wall = clock_ns(CLOCK_MONOTONIC);
	if (!status)
		status = run_workers(workers, threads, error);
	cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	wall = clock_ns(CLOCK_MONOTONIC) - wall;
	for (size_t i = 0; i < threads; i++) {
		work.cells += workers[i].work.cells;
		work.codes += workers[i].work.codes;
		work.refined += workers[i].work.refined;
	}
	if (!status)
		status = write_ids(out, ids, (int32_t)n, error);
	if (!status)
		printf("{\"cpu_s\": %.9f, \"wall_s\": %.9f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"cells\": %.2f, \"codes\": %.1f, "
		       "\"refined\": %.2f}\n",
		       (double)cpu / 1e9, (double)wall / 1e9, percentile_us(took, n, 0.5), percentile_us(took, n, 0.99),
		       (double)work.cells / (double)n, (double)work.codes / (double)n, (double)work.refined / (double)n);
	free(ids);
	free(took);
	return status;
}

/* --- Filters -------------------------------------------------------------------------------------------------- */

static void filters_drop(struct bench *bench)
{
	for (int32_t i = 0; bench->class_filter && i < bench->classes; i++)
		if (bench->class_filter[i])
			bench->ops->filter_free(bench->class_filter[i]);
	free(bench->class_filter);
	bench->class_filter = NULL;
	bench_rows_unmap(&bench->query_class);
	if (bench->filter)
		bench->ops->filter_free(bench->filter);
	bench->filter = NULL;
}

/* Rows whose attribute `which` is from low to high - 1. */
static kx_status filter_rows(struct bench *bench, int32_t which, int32_t low, int32_t high, void **ret,
			     struct kx_error *error)
{
	const struct bench_rows *about = &bench->set.attributes;
	uint64_t *bits = calloc((size_t)about->count / 64 + 1, sizeof(*bits));
	kx_status status;

	if (!bits)
		return KX_ENOMEM;
	for (int32_t i = 0; i < about->count; i++) {
		int32_t value = ((const int32_t *)about->data)[(size_t)i * (size_t)about->dim + (size_t)which];

		if (value >= low && value < high)
			bits[i / 64] |= UINT64_C(1) << i % 64;
	}
	status = bench->ops->filter_new(bench->engine, bits, ret, error);
	free(bits);
	return status;
}

static kx_status filter_classes(struct bench *bench, const char *path, struct kx_error *error)
{
	kx_status status = bench_rows_map(path, &bench->query_class, error);
	const int32_t *class = bench->query_class.data;

	if (status)
		return status;
	bench->classes = 0;
	for (int32_t i = 0; i < bench->query_class.count; i++)
		bench->classes = class[i] >= bench->classes ? class[i] + 1 : bench->classes;
	bench->class_filter = calloc((size_t)bench->classes + 1, sizeof(*bench->class_filter));
	if (!bench->class_filter)
		return KX_ENOMEM;
	for (int32_t i = 0; i < bench->query_class.count && !status; i++)
		if (!bench->class_filter[class[i]])
			status = filter_rows(bench, 0, class[i], class[i] + 1, &bench->class_filter[class[i]], error);
	return status;
}

/* --- Changing ------------------------------------------------------------------------------------------------- */

static kx_status insert_rows(struct bench *bench, const struct bench_rows *rows, uint32_t count, uint32_t each,
			     struct kx_error *error)
{
	uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), wall = clock_ns(CLOCK_MONOTONIC);
	kx_status status = KX_OK;

	for (uint32_t at = 0; at < count && !status; at += each)
		status = bench->ops->insert(bench->engine, (uint32_t)bench->set.base.count + at, bench_row(rows, at),
					    count - at < each ? count - at : each, error);
	cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	wall = clock_ns(CLOCK_MONOTONIC) - wall;
	if (!status)
		printf("{\"cpu_s\": %.6f, \"wall_s\": %.6f}\n", (double)cpu / 1e9, (double)wall / 1e9);
	return status;
}

struct changer {
	struct bench *bench;
	const struct bench_rows *rows;
	const struct bench_rows *ids;
	uint32_t inserts, deletes, seconds; /* the first two a second */
	uint32_t inserted, deleted;
	uint64_t late_us;  /* the most that a batch began after its time */
	uint64_t spent_us; /* in changes */
	kx_status status;
	struct kx_error error;
	atomic_bool ended;
};

static kx_status change_once(struct changer *changer, uint32_t inserts, uint32_t deletes)
{
	struct bench *bench = changer->bench;
	kx_status status = KX_OK;

	if (changer->inserted + inserts > (uint32_t)changer->rows->count || changer->deleted + deletes > (uint32_t)changer->ids->count)
		return kx_error_set(&changer->error, KX_EINVAL, KX_ERROR_FATAL, "too few rows for so many changes");
	if (inserts)
		status = bench->ops->insert(bench->engine, (uint32_t)bench->set.base.count + changer->inserted,
					    bench_row(changer->rows, changer->inserted), inserts, &changer->error);
	if (!status && deletes)
		status = bench->ops->remove(bench->engine, (const int32_t *)changer->ids->data + changer->deleted, deletes,
					    &changer->error);
	changer->inserted += inserts;
	changer->deleted += deletes;
	return status;
}

static void wait_until(uint64_t when_us)
{
	uint64_t now = kx_clock_mono_us();

	if (when_us > now) {
		struct timespec rest = {(time_t)((when_us - now) / SECOND_US), (long)((when_us - now) % SECOND_US * 1000)};

		(void)nanosleep(&rest, NULL);
	}
}

static void *change_rows(void *arg)
{
	struct changer *changer = arg;
	uint64_t start = kx_clock_mono_us();

	for (uint32_t i = 0; i < changer->seconds * CHANGES_A_SECOND && !changer->status; i++) {
		uint64_t due = start + (uint64_t)i * (SECOND_US / CHANGES_A_SECOND), began;

		wait_until(due);
		began = kx_clock_mono_us();
		changer->late_us = began - due > changer->late_us ? began - due : changer->late_us;
		changer->status = change_once(changer, changer->inserts / CHANGES_A_SECOND, changer->deletes / CHANGES_A_SECOND);
		changer->spent_us += kx_clock_mono_us() - began;
	}
	atomic_store(&changer->ended, true);
	return NULL;
}

struct load {
	uint32_t *took_ns;
	size_t count;
	struct bench_work work;
};

/* Queries in turn until `ended`, or for so long. */
static kx_status query_on(struct bench *bench, double recall, uint64_t for_us, const atomic_bool *ended,
			  struct load *load, struct kx_error *error)
{
	struct bench_search how = {.recall = recall};
	uint64_t stop = kx_clock_mono_us() + for_us;
	int32_t ids[BENCH_K];
	kx_status status = bench->ops->scratch_new(bench->engine, &how.scratch);

	load->count = 0;
	while (!status && load->count < LATENCIES_MAX && (ended ? !atomic_load(ended) : kx_clock_mono_us() < stop)) {
		size_t query = load->count % (size_t)bench->set.queries.count;
		uint64_t started = clock_ns(CLOCK_MONOTONIC);

		status = bench->ops->search(bench->engine, &how, bench_row(&bench->set.queries, query), ids, &load->work,
					    error);
		load->took_ns[load->count++] = (uint32_t)(clock_ns(CLOCK_MONOTONIC) - started);
	}
	bench->ops->scratch_free(how.scratch);
	return status;
}

static void print_load(const char *name, struct load *load)
{
	printf("\"%s\": {\"queries\": %zu, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f}, ", name, load->count,
	       percentile_us(load->took_ns, load->count, 0.5), percentile_us(load->took_ns, load->count, 0.99),
	       percentile_us(load->took_ns, load->count, 0.999));
}

static kx_status mixed_loads(struct bench *bench, double recall, struct changer *changer, struct load loads[2],
			     struct kx_error *error)
{
	pthread_t thread;
	kx_status status = query_on(bench, recall, (uint64_t)changer->seconds * SECOND_US / 4, NULL, &loads[0], error);

	if (!status)
		status = kx_thread_start(&thread, "change", change_rows, changer, error);
	if (status)
		return status;
	status = query_on(bench, recall, 0, &changer->ended, &loads[1], error);
	(void)pthread_join(thread, NULL);
	if (!status && changer->status) {
		status = changer->status;
		if (error)
			*error = changer->error;
	}
	return status;
}

static kx_status mixed(struct bench *bench, double recall, struct changer *changer, struct kx_error *error)
{
	struct load loads[2] = {{0}};
	kx_status status = KX_OK;

	for (size_t i = 0; i < 2 && !status; i++) {
		loads[i].took_ns = calloc(LATENCIES_MAX, sizeof(*loads[i].took_ns));
		status = loads[i].took_ns ? KX_OK : KX_ENOMEM;
	}
	if (!status)
		status = mixed_loads(bench, recall, changer, loads, error);
	if (!status) {
		printf("{");
		print_load("quiet", &loads[0]);
		print_load("loaded", &loads[1]);
		printf("\"inserted\": %u, \"deleted\": %u, \"late_ms\": %.1f, \"change_ms\": %.3f}\n", changer->inserted,
		       changer->deleted, (double)changer->late_us / 1e3,
		       (double)changer->spent_us / 1e3 / (changer->seconds * CHANGES_A_SECOND));
	}
	free(loads[0].took_ns);
	free(loads[1].took_ns);
	return status;
}

/* --- Commands ------------------------------------------------------------------------------------------------- */

typedef kx_status (*command_fn)(struct bench *bench, char **words, struct kx_error *error);

static uint32_t number(const char *word)
{
	return (uint32_t)strtoul(word, NULL, 10);
}

static kx_status on_build(struct bench *bench, char **words, struct kx_error *error)
{
	uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), wall = clock_ns(CLOCK_MONOTONIC);
	kx_status status = bench->ops->build(&bench->set, number(words[1]), error);

	if (!status)
		printf("{\"cpu_s\": %.3f, \"wall_s\": %.3f}\n", (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9,
		       (double)(clock_ns(CLOCK_MONOTONIC) - wall) / 1e9);
	return status;
}

static kx_status first_answer(struct bench *bench, struct kx_error *error)
{
	struct bench_search how = {.recall = 0.98};
	struct bench_work work = {0};
	int32_t ids[BENCH_K];
	kx_status status = bench->ops->scratch_new(bench->engine, &how.scratch);

	if (!status)
		status = bench->ops->search(bench->engine, &how, bench_row(&bench->set.queries, 0), ids, &work, error);
	bench->ops->scratch_free(how.scratch);
	return status;
}

static kx_status on_open(struct bench *bench, char **words, struct kx_error *error)
{
	uint64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), wall = clock_ns(CLOCK_MONOTONIC), before = resident_bytes(), opened;
	kx_status status = bench->ops->open(&bench->set, number(words[1]), &bench->engine, error);

	opened = clock_ns(CLOCK_MONOTONIC) - wall;
	if (!status)
		status = first_answer(bench, error);
	if (!status)
		printf("{\"open_s\": %.4f, \"first_answer_s\": %.4f, \"cpu_s\": %.4f, \"resident_before\": %llu}\n",
		       (double)opened / 1e9, (double)(clock_ns(CLOCK_MONOTONIC) - wall) / 1e9,
		       (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9, (unsigned long long)before);
	return status;
}

static kx_status on_filter(struct bench *bench, char **words, struct kx_error *error)
{
	kx_status status = KX_OK;

	filters_drop(bench);
	if (!strcmp(words[1], "below"))
		status = filter_rows(bench, 1, 0, (int32_t)number(words[2]), &bench->filter, error);
	else if (!strcmp(words[1], "class"))
		status = filter_classes(bench, words[2], error);
	if (!status)
		printf("{}\n");
	return status;
}

static kx_status search_span(struct bench *bench, char **words, uint32_t each, const char *out, struct kx_error *error)
{
	const struct span span = {(int32_t)number(words[2]), (int32_t)number(words[3]), number(words[4]), each};

	if (!span.threads || span.threads > THREADS_MAX || span.first >= span.end || span.end > bench->set.queries.count ||
	    each > BENCH_MANY)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "no such queries, or too many threads or queries a call");
	return search_rows(bench, &bench->set.queries, strtod(words[1], NULL), &span, out, error);
}

static kx_status on_search(struct bench *bench, char **words, struct kx_error *error)
{
	return search_span(bench, words, 0, words[5], error);
}

static kx_status on_search_many(struct bench *bench, char **words, struct kx_error *error)
{
	if (!number(words[5]))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "no queries a call");
	return search_span(bench, words, number(words[5]), words[6], error);
}

static kx_status on_ask(struct bench *bench, char **words, struct kx_error *error)
{
	struct bench_rows rows = {0};
	kx_status status = bench_rows_map(words[2], &rows, error);

	if (!status)
		status = search_rows(bench, &rows, strtod(words[1], NULL), &(struct span){0, rows.count, 1, 0}, words[3], error);
	bench_rows_unmap(&rows);
	return status;
}

static kx_status on_insert(struct bench *bench, char **words, struct kx_error *error)
{
	struct bench_rows rows = {0};
	kx_status status = bench_rows_map(words[1], &rows, error);

	if (!status && number(words[2]) > (uint32_t)rows.count)
		status = kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s has fewer rows", words[1]);
	if (!status)
		status = insert_rows(bench, &rows, number(words[2]), number(words[3]), error);
	bench_rows_unmap(&rows);
	return status;
}

static kx_status on_mixed(struct bench *bench, char **words, struct kx_error *error)
{
	struct bench_rows rows = {0}, ids = {0};
	struct changer changer = {.bench = bench, .rows = &rows, .ids = &ids, .seconds = number(words[2]),
				  .inserts = number(words[3]), .deletes = number(words[4])};
	kx_status status = bench_rows_map(words[5], &rows, error);

	if (!status)
		status = bench_rows_map(words[6], &ids, error);
	if (!status)
		status = mixed(bench, strtod(words[1], NULL), &changer, error);
	bench_rows_unmap(&rows);
	bench_rows_unmap(&ids);
	return status;
}

static kx_status on_maintain(struct bench *bench, char **words, struct kx_error *error)
{
	kx_status status = bench->ops->maintain(bench->engine, error);

	(void)words;
	if (!status)
		printf("{}\n");
	return status;
}

static kx_status on_resident(struct bench *bench, char **words, struct kx_error *error)
{
	(void)words;
	(void)error;
	printf("{\"bytes\": %llu, \"hot_bytes\": %llu}\n", (unsigned long long)resident_bytes(),
	       (unsigned long long)bench->ops->hot_bytes(bench->engine));
	return KX_OK;
}

static const struct command {
	const char *name;
	command_fn run;
	size_t words; /* with the name */
	bool opened;
} commands[] = {
	{"build", on_build, 2, false},   {"open", on_open, 2, false},        {"filter", on_filter, 2, true},
	{"search", on_search, 6, true},  {"search_many", on_search_many, 7, true}, {"insert", on_insert, 4, true},     {"mixed", on_mixed, 7, true},
	{"ask", on_ask, 4, true},        {"maintain", on_maintain, 1, true}, {"resident", on_resident, 1, true},
};

static kx_status obey(struct bench *bench, char *line, struct kx_error *error)
{
	char *words[WORDS_MAX + 1] = {NULL}, *rest = NULL;
	size_t count = 0;

	for (char *word = strtok_r(line, " \n", &rest); word && count < WORDS_MAX; word = strtok_r(NULL, " \n", &rest))
		words[count++] = word;
	for (size_t i = 0; i < KX_ARRAY_LEN(commands) && count; i++) {
		const struct command *command = &commands[i];

		if (strcmp(command->name, words[0]) != 0)
			continue;
		if (count < command->words || command->opened != (bench->engine != NULL))
			return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s wants %zu words and an index that is %s", words[0],
					    command->words, command->opened ? "open" : "not open");
		return command->run(bench, words, error);
	}
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "no such command");
}

static kx_status open_set(char **argv, struct bench_set *set, struct kx_error *error)
{
	kx_status status = bench_rows_map(argv[2], &set->base, error);

	if (!status)
		status = bench_rows_map(argv[3], &set->queries, error);
	if (!status)
		status = bench_rows_map(argv[4], &set->attributes, error);
	if (!status && (set->queries.dim != set->base.dim || set->attributes.count != set->base.count || set->attributes.dim < 2))
		status = kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "the three files are not of one set");
	set->dir = argv[5];
	return status;
}

static const struct bench_ops *engine_named(const char *name)
{
	if (!strcmp(name, "ivf"))
		return &bench_ivf_ops;
	if (!strcmp(name, "index"))
		return &bench_index_ops;
	return NULL;
}

int main(int argc, char **argv)
{
	struct bench bench = {0};
	struct kx_error error = {0};
	char line[LINE_MAX_BYTES];

	bench.ops = argc == 6 ? engine_named(argv[1]) : NULL;
	if (!bench.ops) {
		(void)fprintf(stderr, "kx_bench_ann ivf|index BASE.fbin QUERY.fbin ATTRIBUTES.ibin DIR\n");
		return 2;
	}
	if (open_set(argv, &bench.set, &error)) {
		(void)fprintf(stderr, "kx_bench_ann: %s\n", error.message);
		return 1;
	}
	while (fgets(line, sizeof(line), stdin) && strcmp(line, "close\n") != 0) {
		kx_status status;

		error = (struct kx_error){0};
		status = obey(&bench, line, &error);
		if (status)
			printf("{\"error\": \"%d %s\"}\n", status, error.message);
		(void)fflush(stdout);
	}
	if (bench.engine) {
		filters_drop(&bench);
		bench.ops->close(bench.engine);
	}
	bench_rows_unmap(&bench.set.base);
	bench_rows_unmap(&bench.set.queries);
	bench_rows_unmap(&bench.set.attributes);
	return 0;
}
