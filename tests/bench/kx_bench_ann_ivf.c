/* The index in memory (shard/ann/ivf.h), with full vectors as fp16 beside it. Rows are ids. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/macros.h"
#include "common/base/str.h"
#include "shard/ann/ivf_half.h"
#include "tests/bench/kx_bench_ann.h"

#define CELL_ROWS 250u
#define SAMPLE_PER_CELL 64u
#define TUNE_QUERIES 4000u
#define AT_ONCE 10000u
#define SEED 20261127u
#define ENTRIES_MAX ((size_t)1 << 32) /* of a cell, bytes */

struct bench_engine {
	struct kx_ivf *ivf;
	pthread_rwlock_t lock; /* a change needs the index alone */
	uint16_t *vectors;
	size_t vectors_bytes;
	uint32_t dim;
	uint32_t rows;     /* of the set */
	uint32_t rows_max; /* with what may be inserted */
	uint32_t *cell_of; /* [rows_max] */
};

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

static struct kx_ivf_options options_of(const struct bench_set *set)
{
	return (struct kx_ivf_options){.recipe = {(uint32_t)set->base.dim, KX_METRIC_COSINE, SEED}};
}

static FILE *file_in(const struct bench_set *set, const char *name, const char *mode, struct kx_error *error)
{
	char path[4096];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", set->dir, name);
	file = fopen(path, mode);
	if (!file)
		(void)kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "can't open %s: %s", path, strerror(errno));
	return file;
}

static kx_status failed_io(struct kx_error *error)
{
	return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "can't read or write the index's file: %s", strerror(errno));
}

static bool put(FILE *file, const void *bytes, size_t len)
{
	return fwrite(bytes, 1, len, file) == len;
}

static bool take(FILE *file, void *bytes, size_t len)
{
	return fread(bytes, 1, len, file) == len;
}

static kx_status write_vectors(const struct bench_set *set, struct kx_error *error)
{
	size_t dim = (size_t)set->base.dim;
	uint16_t row[KX_IVF_DIM_MAX];
	FILE *file = file_in(set, "vectors.f16", "wb", error);
	bool good = true;

	if (!file)
		return KX_EIO;
	for (int32_t i = 0; i < set->base.count && good; i++) {
		const float *from = bench_row(&set->base, (size_t)i);

		for (size_t d = 0; d < dim; d++)
			row[d] = kx_half_of_float(from[d]);
		good = put(file, row, dim * sizeof(*row));
	}
	return fclose(file) || !good ? failed_io(error) : KX_OK;
}

/* Every so many of the set's rows: they come in random order. */
static kx_status train(struct kx_ivf *ivf, const struct bench_set *set, uint32_t cells, struct kx_error *error)
{
	struct kx_ivf_recipe recipe = options_of(set).recipe;
	size_t n = least((size_t)set->base.count, (size_t)cells * SAMPLE_PER_CELL);
	float *centroids = calloc((size_t)cells * recipe.dim, sizeof(*centroids));
	kx_status status = centroids ? KX_OK : KX_ENOMEM;

	if (!status)
		status = kx_ivf_train(&recipe, bench_row(&set->base, 0), n, cells, centroids, error);
	for (uint32_t cell = 0; cell < cells && !status; cell++)
		status = kx_ivf_cell_add(ivf, cell, centroids + (size_t)cell * recipe.dim, false);
	free(centroids);
	return status ? status : kx_ivf_cells_ready(ivf);
}

struct places {
	uint32_t cells[AT_ONCE];
	float distances[AT_ONCE];
};

static kx_status fill_some(struct kx_ivf *ivf, const float *vectors, size_t dim, uint32_t first, size_t n,
			   struct places *places, void *entry)
{
	kx_status status = kx_ivf_nearest_each(ivf, vectors, n, places->cells, places->distances);

	for (size_t i = 0; i < n && !status; i++) {
		status = kx_ivf_encode(ivf, places->cells[i], first + (uint32_t)i, vectors + i * dim, entry);
		if (!status)
			status = kx_ivf_append(ivf, places->cells[i], entry, 1);
	}
	return status;
}

static kx_status fill(struct kx_ivf *ivf, const struct bench_set *set)
{
	struct places *places = calloc(1, sizeof(*places));
	void *entry = malloc(kx_ivf_entry_bytes(ivf));
	kx_status status = places && entry ? KX_OK : KX_ENOMEM;

	for (uint32_t first = 0; first < (uint32_t)set->base.count && !status; first += AT_ONCE)
		status = fill_some(ivf, bench_row(&set->base, first), (size_t)set->base.dim, first,
				   least((size_t)set->base.count - first, AT_ONCE), places, entry);
	free(places);
	free(entry);
	return status;
}

/* With rows of the set itself, which centroids were not found with: the queries that recall is measured with must not be
 * those that it was tuned with. */
static kx_status tune(struct kx_ivf *ivf, const struct bench_set *set, struct kx_ivf_tuning *ret, struct kx_error *error)
{
	uint32_t n = (uint32_t)least((size_t)set->base.count / 2, TUNE_QUERIES), first = (uint32_t)set->base.count - n;
	uint32_t *rows = calloc(n + 1u, sizeof(*rows));
	kx_status status;

	if (!rows)
		return KX_ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		rows[i] = first + i;
	status = kx_ivf_tune_rows(ivf, bench_row(&set->base, first), rows, n, ret, error);
	free(rows);
	return status;
}

static kx_status save(struct kx_ivf *ivf, const struct bench_set *set, uint32_t cells, const struct kx_ivf_tuning *tuning,
		      struct kx_error *error)
{
	KX_CLEANUP(kx_buf_done) struct kx_buf entries = {.max = ENTRIES_MAX};
	FILE *file = file_in(set, "cells.bin", "wb", error);
	kx_status status = KX_OK;
	bool good;

	if (!file)
		return KX_EIO;
	good = put(file, &cells, sizeof(cells)) && put(file, tuning, sizeof(*tuning));
	for (uint32_t cell = 0; cell < cells && good && !status; cell++) {
		uint64_t len;

		kx_buf_clear(&entries);
		status = kx_ivf_cell_entries(ivf, cell, &entries);
		len = entries.len;
		good = put(file, kx_ivf_cell_centroid(ivf, cell), (size_t)set->base.dim * sizeof(float)) &&
		       put(file, &len, sizeof(len)) && put(file, entries.data, entries.len);
	}
	if (fclose(file) || !good)
		return failed_io(error);
	return status;
}

static kx_status build(const struct bench_set *set, uint32_t cells, struct kx_error *error)
{
	struct kx_ivf_options options = options_of(set);
	KX_CLEANUP(kx_ivf_cleanup) struct kx_ivf *ivf = NULL;
	struct kx_ivf_tuning tuning = {0};
	struct bench_rows vectors = {0};
	kx_status status;

	cells = cells ? cells : (uint32_t)set->base.count / CELL_ROWS + 1;
	status = write_vectors(set, error);
	if (!status)
		status = kx_ivf_new(&options, &ivf, error);
	if (!status)
		status = train(ivf, set, cells, error);
	if (!status)
		status = fill(ivf, set);
	if (!status) {
		char path[4096];
		KX_CLEANUP(kx_cleanup_close) int fd = -1;

		(void)snprintf(path, sizeof(path), "%s/vectors.f16", set->dir);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		vectors.map_bytes = (size_t)set->base.count * (size_t)set->base.dim * sizeof(uint16_t);
		vectors.map = fd < 0 ? MAP_FAILED : mmap(NULL, vectors.map_bytes, PROT_READ, MAP_SHARED, fd, 0);
		if (vectors.map == MAP_FAILED)
			return failed_io(error);
		kx_ivf_set_vectors(ivf, vectors.map, (size_t)set->base.dim * sizeof(uint16_t));
		status = tune(ivf, set, &tuning, error);
		bench_rows_unmap(&vectors);
	}
	return status ? status : save(ivf, set, cells, &tuning, error);
}

static kx_status load_cells(struct bench_engine *engine, FILE *file, struct kx_error *error)
{
	KX_CLEANUP(kx_buf_done) struct kx_buf entries = {.max = ENTRIES_MAX};
	size_t entry_bytes = kx_ivf_entry_bytes(engine->ivf);
	float centroid[KX_IVF_DIM_MAX];
	struct kx_ivf_tuning tuning;
	kx_status status = KX_OK;
	uint32_t cells;

	if (!take(file, &cells, sizeof(cells)) || !take(file, &tuning, sizeof(tuning)))
		return failed_io(error);
	kx_ivf_set_tuning(engine->ivf, &tuning);
	for (uint32_t cell = 0; cell < cells && !status; cell++) {
		uint64_t len;

		kx_buf_clear(&entries);
		if (!take(file, centroid, engine->dim * sizeof(float)) || !take(file, &len, sizeof(len)))
			return failed_io(error);
		status = kx_buf_reserve(&entries, len);
		if (!status && !take(file, entries.data, len))
			return failed_io(error);
		if (!status)
			status = kx_ivf_cell_add(engine->ivf, cell, centroid, false);
		if (!status)
			status = kx_ivf_cell_fill(engine->ivf, cell, entries.data, len / entry_bytes);
		if (!status) {
			uint32_t count;
			const uint32_t *rows = kx_ivf_cell_rows(engine->ivf, cell, &count);

			for (uint32_t i = 0; i < count; i++)
				engine->cell_of[rows[i]] = cell;
		}
	}
	return status ? status : kx_ivf_cells_ready(engine->ivf);
}

/* The file, and room behind it for what is inserted. In huge pages, as cells are: each vector that is compared lies in
 * another small one, whose look-up takes as long as the vector does. */
static kx_status read_vectors(struct bench_engine *engine, const struct bench_set *set, struct kx_error *error)
{
	size_t row = engine->dim * sizeof(uint16_t), file_bytes = (size_t)set->base.count * row;
	char path[4096];
	KX_CLEANUP(kx_cleanup_close) int fd = -1;

	(void)snprintf(path, sizeof(path), "%s/vectors.f16", set->dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	engine->vectors_bytes = (size_t)engine->rows_max * row;
	engine->vectors = mmap(NULL, engine->vectors_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (fd < 0 || engine->vectors == MAP_FAILED)
		return failed_io(error);
	(void)madvise(engine->vectors, engine->vectors_bytes, MADV_HUGEPAGE);
	for (size_t at = 0; at < file_bytes;) {
		ssize_t len = read(fd, (uint8_t *)engine->vectors + at, file_bytes - at);

		if (len <= 0)
			return failed_io(error);
		at += (size_t)len;
	}
	kx_ivf_set_vectors(engine->ivf, engine->vectors, row);
	return KX_OK;
}

static void close_engine(struct bench_engine *engine)
{
	kx_ivf_free(engine->ivf);
	if (engine->vectors && engine->vectors != MAP_FAILED)
		munmap(engine->vectors, engine->vectors_bytes);
	pthread_rwlock_destroy(&engine->lock);
	free(engine->cell_of);
	free(engine);
}

static kx_status open_engine(const struct bench_set *set, uint32_t more, struct bench_engine **ret, struct kx_error *error)
{
	struct kx_ivf_options options = options_of(set);
	struct bench_engine *engine = calloc(1, sizeof(*engine));
	kx_status status;
	FILE *file;

	if (!engine)
		return KX_ENOMEM;
	(void)pthread_rwlock_init(&engine->lock, NULL);
	engine->dim = (uint32_t)set->base.dim;
	engine->rows = (uint32_t)set->base.count;
	engine->rows_max = engine->rows + more;
	engine->cell_of = calloc(engine->rows_max, sizeof(*engine->cell_of));
	status = engine->cell_of ? kx_ivf_new(&options, &engine->ivf, error) : KX_ENOMEM;
	if (!status)
		status = read_vectors(engine, set, error);
	file = status ? NULL : file_in(set, "cells.bin", "rb", error);
	if (!status)
		status = file ? load_cells(engine, file, error) : KX_EIO;
	if (file)
		(void)fclose(file);
	if (status) {
		close_engine(engine);
		return status;
	}
	*ret = engine;
	return KX_OK;
}

static kx_status scratch_new(struct bench_engine *engine, void **ret)
{
	struct kx_ivf_scratch *scratch = NULL;
	kx_status status = kx_ivf_scratch_new(&scratch);

	(void)engine;
	*ret = scratch;
	return status;
}

static void scratch_free(void *scratch)
{
	kx_ivf_scratch_free(scratch);
}

static kx_status filter_new(struct bench_engine *engine, const uint64_t *bits, void **ret, struct kx_error *error)
{
	struct kx_ivf_filter *filter = NULL;
	kx_status status = kx_ivf_filter_new(bits, engine->rows, &filter);

	(void)error;
	*ret = filter;
	return status;
}

static void filter_free(void *filter)
{
	kx_ivf_filter_free(filter);
}

static kx_status search(struct bench_engine *engine, const struct bench_search *how, const float *vector,
			int32_t ret_ids[BENCH_K], struct bench_work *work, struct kx_error *error)
{
	struct kx_ivf_query query = {.vector = vector, .k = BENCH_K, .recall = how->recall, .exclude = KX_IVF_NO_ROW,
				     .filter = how->filter};
	struct kx_ivf_hit hits[BENCH_K];
	struct kx_ivf_work done = {0};
	uint32_t count = 0;
	kx_status status;

	(void)pthread_rwlock_rdlock(&engine->lock);
	status = kx_ivf_search(engine->ivf, &query, how->scratch, hits, &count, &done, error);
	(void)pthread_rwlock_unlock(&engine->lock);
	for (uint32_t i = 0; i < BENCH_K; i++)
		ret_ids[i] = i < count && !status ? (int32_t)hits[i].row : BENCH_NO_ID;
	work->cells += done.cells;
	work->codes += done.codes;
	work->refined += done.refined;
	return status;
}

struct asked {
	struct kx_ivf_query *queries;
	struct kx_ivf_answer *answers;
	struct kx_ivf_hit *hits;
};

static kx_status ask_many(struct bench_engine *engine, const struct bench_search *how, const struct asked *asked, size_t n,
			  int32_t *ret_ids, struct bench_work *work, struct kx_error *error)
{
	kx_status status;

	(void)pthread_rwlock_rdlock(&engine->lock);
	status = kx_ivf_search_many(engine->ivf, asked->queries, n, how->scratch, asked->answers, error);
	(void)pthread_rwlock_unlock(&engine->lock);
	for (size_t i = 0; i < n && !status; i++) {
		const struct kx_ivf_answer *answer = &asked->answers[i];

		for (uint32_t j = 0; j < BENCH_K; j++)
			ret_ids[i * BENCH_K + j] = j < answer->count ? (int32_t)answer->hits[j].row : BENCH_NO_ID;
		work->cells += answer->work.cells;
		work->codes += answer->work.codes;
		work->refined += answer->work.refined;
	}
	return status;
}

static kx_status search_many(struct bench_engine *engine, const struct bench_search *how, const float *vectors,
			     const void *const *filters, size_t n, int32_t *ret_ids, struct bench_work *work,
			     struct kx_error *error)
{
	const struct asked asked = {calloc(n + 1, sizeof(*asked.queries)), calloc(n + 1, sizeof(*asked.answers)),
				    calloc((n + 1) * BENCH_K, sizeof(*asked.hits))};
	kx_status status = asked.queries && asked.answers && asked.hits ? KX_OK : KX_ENOMEM;

	for (size_t i = 0; i < n && !status; i++) {
		asked.queries[i] = (struct kx_ivf_query){.vector = vectors + i * engine->dim, .k = BENCH_K, .recall = how->recall,
							 .exclude = KX_IVF_NO_ROW, .filter = filters[i]};
		asked.answers[i].hits = asked.hits + i * BENCH_K;
	}
	if (!status)
		status = ask_many(engine, how, &asked, n, ret_ids, work, error);
	free(asked.queries);
	free(asked.answers);
	free(asked.hits);
	return status;
}

static kx_status insert_one(struct bench_engine *engine, uint32_t id, const float *vector, void *entry)
{
	uint16_t *to = engine->vectors + (size_t)id * engine->dim;
	kx_status status;
	uint32_t cell;
	float distance2;

	for (uint32_t d = 0; d < engine->dim; d++)
		to[d] = kx_half_of_float(vector[d]);
	if (!kx_ivf_nearest_cells(engine->ivf, vector, 1, &cell, &distance2))
		return KX_EINVAL;
	status = kx_ivf_encode(engine->ivf, cell, id, vector, entry);
	if (status)
		return status;
	(void)pthread_rwlock_wrlock(&engine->lock);
	status = kx_ivf_append(engine->ivf, cell, entry, 1);
	engine->cell_of[id] = cell;
	(void)pthread_rwlock_unlock(&engine->lock);
	return status;
}

static kx_status insert(struct bench_engine *engine, uint32_t first, const float *vectors, size_t count,
			struct kx_error *error)
{
	void *entry = malloc(kx_ivf_entry_bytes(engine->ivf));
	kx_status status = entry ? KX_OK : KX_ENOMEM;

	if (first + count > engine->rows_max)
		status = kx_error_set(error, KX_ETOOBIG, KX_ERROR_FATAL, "opened for fewer inserts");
	for (size_t i = 0; i < count && !status; i++)
		status = insert_one(engine, first + (uint32_t)i, vectors + i * engine->dim, entry);
	free(entry);
	return status;
}

static kx_status remove_ids(struct bench_engine *engine, const int32_t *ids, size_t count, struct kx_error *error)
{
	(void)error;
	(void)pthread_rwlock_wrlock(&engine->lock);
	for (size_t i = 0; i < count; i++)
		(void)kx_ivf_remove(engine->ivf, engine->cell_of[ids[i]], (uint32_t)ids[i]);
	(void)pthread_rwlock_unlock(&engine->lock);
	return KX_OK;
}

static uint64_t hot_bytes(struct bench_engine *engine)
{
	return kx_ivf_hot_bytes(engine->ivf);
}

static kx_status maintain(struct bench_engine *engine, struct kx_error *error)
{
	(void)engine;
	(void)error;
	return KX_OK;
}

const struct bench_ops bench_ivf_ops = {
	build, open_engine, close_engine, scratch_new, scratch_free, filter_new,
	filter_free, search, search_many, insert, remove_ids, hot_bytes, maintain,
};
