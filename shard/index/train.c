/* A new generation of centroids, made beside the one that is used: every row is coded in it, then changes that came
 * meanwhile, then one synced batch says that it counts. A crash before leaves keys that opening sweeps away; after it
 * the old generation is what is swept. */
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "shard/index/internal.h"

#define SAMPLE_A_CELL 48u
#define SAMPLE_LEAST 20000u
#define CHUNK 512u               /* rows copied, assigned and coded at a time */
#define CENTROIDS_A_BATCH 1024u
#define TUNE_QUERIES 10000u      /* at most: recall is known to 0.1 / sqrt of them */
#define TUNE_APART 8u            /* of so many rows at most one is a query, */
#define TUNE_APART_MANY 100u     /* and of so many once there are TUNE_ENOUGH */
#define TUNE_ENOUGH 4000u
#define TUNE_LEAST 200u          /* more of them where they would be fewer */
#define CATCH_UP_LAST 500u       /* so few changes are taken in while others wait */

struct training {
	struct kx_ispace *space;
	struct kx_igen *gen;
	bool held;
	uint32_t *live; /* [rows] as of the beginning */
	uint32_t rows;
	uint32_t cells;
	float *centroids;        /* [cells][dim] */
	struct kx_buf *entries;  /* [cells] */
	struct kx_space_record record;
	struct kx_ivf_tuning tuning;
	uint64_t sample_step; /* of so many rows centroids were found with one */
	float *queries;       /* [query_count][dim]: vectors of rows to tune with, */
	uint32_t *query_rows; /* which none of them finds itself */
	uint32_t query_count;
	uint64_t next_query;  /* the first of live to be one */
	double distance2; /* sum */
	uint64_t coded;
};

static void training_done(struct training *training)
{
	for (uint32_t i = 0; training->entries && i < training->cells; i++)
		kx_buf_done(&training->entries[i]);
	free(training->entries);
	free(training->live);
	free(training->centroids);
	free(training->queries);
	free(training->query_rows);
	kx_igen_free(training->gen);
}

static void lock(const struct training *training)
{
	if (!training->held)
		kx_iwriter_lock(training->space->index);
}

static void unlock(const struct training *training)
{
	if (!training->held)
		kx_iwriter_unlock(training->space->index);
}

static kx_status check_stop(const struct training *training, struct kx_error *error)
{
	if (!atomic_load(&training->space->index->stop))
		return KX_OK;
	return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "space %s: the index is closed while it trains",
			    training->space->record.name);
}

static kx_status list_live(struct training *training, struct kx_error *error)
{
	struct kx_ispace *space = training->space;
	const uint32_t bound = atomic_load(&space->rows_bound);
	kx_status status = training->held ? KX_OK : kx_igen_see_all(space->gen, error);

	if (status)
		return status;
	training->live = malloc(((size_t)bound + 1) * sizeof(*training->live));
	if (!training->live)
		return kx_error_nomem(error);
	for (uint32_t row = 0; row < bound; row++)
		if (training->held || space->gen->where[row])
			training->live[training->rows++] = row;
	space->log.count = 0;
	space->logging = true;
	return KX_OK;
}

static kx_status begin(struct training *training, struct kx_error *error)
{
	kx_status status;

	lock(training);
	status = kx_ibroken(training->space, error);
	if (!status)
		status = list_live(training, error);
	unlock(training);
	return status;
}

/* Vectors of rows at live[from], every step-th, up to `most`; rows that are gone are left out. ret_rows may be NULL. */
static uint32_t copy_rows(const struct training *training, uint64_t from, uint64_t step, uint32_t most, float *ret,
			  uint32_t *ret_rows)
{
	struct kx_ispace *space = training->space;
	const uint32_t dim = space->record.recipe.dim;
	uint32_t count = 0;

	lock(training);
	for (uint32_t i = 0; i < most && from + i * step < training->rows; i++) {
		uint32_t row = training->live[from + i * step];

		if (!training->held && !space->gen->where[row])
			continue;
		kx_ihalves_to_floats(kx_ivectors_row(&space->vectors, row), dim, ret + (size_t)count * dim);
		if (ret_rows)
			ret_rows[count] = row;
		count++;
	}
	unlock(training);
	return count;
}

static void take_mean(const float *sample, uint32_t count, uint32_t dim, float *ret)
{
	memset(ret, 0, dim * sizeof(*ret));
	for (uint32_t i = 0; i < count; i++)
		for (uint32_t j = 0; j < dim; j++)
			ret[j] += sample[(size_t)i * dim + j] / (float)count;
}

static kx_status find_centroids(struct training *training, struct kx_error *error)
{
	struct kx_ispace *space = training->space;
	const uint32_t dim = space->record.recipe.dim;
	uint64_t want = (uint64_t)training->cells * SAMPLE_A_CELL, step;
	KX_CLEANUP(kx_cleanup_free) float *sample = NULL;
	uint32_t count = 0;

	want = want < SAMPLE_LEAST ? SAMPLE_LEAST : want;
	want = want > training->rows ? training->rows : want;
	step = training->sample_step = want ? training->rows / want : 1;
	sample = malloc((want + 1) * dim * sizeof(*sample));
	training->centroids = malloc((size_t)training->cells * dim * sizeof(float));
	if (!sample || !training->centroids)
		return kx_error_nomem(error);
	for (uint64_t i = 0; i < want; i += CHUNK)
		count += copy_rows(training, i * step, step, (uint32_t)(want - i < CHUNK ? want - i : CHUNK),
				   sample + (size_t)count * dim, NULL);
	if (training->cells > count || training->cells == 1) {
		training->cells = 1;
		take_mean(sample, count, dim, training->centroids);
		return KX_OK;
	}
	return kx_ivf_train(&space->record.recipe, sample, count, training->cells, training->centroids, error);
}

static kx_status make_generation(struct training *training, struct kx_error *error)
{
	struct kx_ispace *space = training->space;
	kx_status status = kx_igen_new(space, space->record.generation + 1, &training->gen, error);

	if (status)
		return status;
	training->entries = calloc(training->cells, sizeof(*training->entries));
	if (!training->entries)
		return kx_error_nomem(error);
	for (uint32_t i = 0; !status && i < training->cells; i++) {
		training->entries[i].max = KX_INDEX_VALUE_MAX;
		status = kx_igen_add(training->gen, i, training->centroids + (size_t)i * space->record.recipe.dim, false);
	}
	if (!status)
		status = kx_ivf_cells_ready(training->gen->ivf);
	return status ? kx_error_set(error, status, KX_ERROR_FATAL, "space %s: new centroids: %s", space->record.name,
				     kx_status_name(status))
		      : KX_OK;
}

static uint32_t queries_apart(uint32_t rows)
{
	uint32_t few = rows / TUNE_LEAST, enough = rows / TUNE_ENOUGH, most = rows / TUNE_QUERIES;

	if (few < TUNE_APART)
		return few + !few;
	if (enough < TUNE_APART)
		return TUNE_APART;
	return enough < TUNE_APART_MANY ? enough : most < TUNE_APART_MANY ? TUNE_APART_MANY : most;
}

/* Queries are spread over the rows, and are none of those that centroids were found with where those are not all. */
static bool is_query(const struct training *training)
{
	return training->cells > 1 && training->query_count < TUNE_QUERIES && training->coded >= training->next_query &&
	       (training->sample_step == 1 || training->coded % training->sample_step != 0);
}

static kx_status take_query(struct training *training, uint32_t row, const float *vector)
{
	const uint32_t dim = training->space->record.recipe.dim;

	if (!training->queries) {
		training->queries = malloc((size_t)TUNE_QUERIES * dim * sizeof(float));
		training->query_rows = malloc(TUNE_QUERIES * sizeof(*training->query_rows));
	}
	if (!training->queries || !training->query_rows)
		return KX_ENOMEM;
	memcpy(training->queries + (size_t)training->query_count * dim, vector, dim * sizeof(float));
	training->query_rows[training->query_count++] = row;
	training->next_query += queries_apart(training->rows);
	return KX_OK;
}

/* distance2: of the vector to the cell's centroid. */
static kx_status code_row(struct training *training, uint32_t row, uint32_t cell, const float *vector, float distance2)
{
	struct kx_igen *gen = training->gen;
	uint8_t entry[KX_DELTA_MAX];
	kx_status status = kx_ivf_encode(gen->ivf, cell, row, vector, entry);

	if (!status && is_query(training))
		status = take_query(training, row, vector);
	if (status)
		return status;
	training->coded++;
	training->distance2 += (double)distance2;
	gen->where[row] = cell + 1;
	gen->cells[cell].rows++;
	return kx_buf_append(&training->entries[cell], entry, training->space->entry_bytes);
}

static kx_status code_chunk(struct training *training, uint32_t from, float *vectors, uint32_t *rows, uint32_t *cells)
{
	const uint32_t dim = training->space->record.recipe.dim;
	uint32_t count = copy_rows(training, from, 1, CHUNK, vectors, rows);
	float distances[CHUNK];
	kx_status status = KX_OK;

	if (count)
		status = kx_ivf_nearest_each(training->gen->ivf, vectors, count, cells, distances);
	for (uint32_t i = 0; !status && i < count; i++)
		status = code_row(training, rows[i], cells[i], vectors + (size_t)i * dim, distances[i]);
	return status;
}

static kx_status code_all(struct training *training, struct kx_error *error)
{
	struct kx_ispace *space = training->space;
	KX_CLEANUP(kx_cleanup_free) float *vectors = malloc((size_t)CHUNK * space->record.recipe.dim * sizeof(float));
	uint32_t rows[CHUNK], cells[CHUNK];
	kx_status status = vectors ? KX_OK : kx_error_nomem(error);

	for (uint32_t from = 0; !status && from < training->rows; from += CHUNK) {
		status = check_stop(training, error);
		if (status)
			return status;
		status = code_chunk(training, from, vectors, rows, cells);
		if (status)
			return kx_error_set(error, status, KX_ERROR_FATAL, "space %s: coding anew: %s",
					    space->record.name, kx_status_name(status));
	}
	return status;
}

static kx_status write_records(struct training *training, struct kx_kv_bulk *bulk, struct kx_error *error)
{
	const uint32_t entry_bytes = training->space->entry_bytes;
	struct kx_buf record = {.max = KX_INDEX_VALUE_MAX};
	kx_status status = KX_OK;

	for (uint32_t cell = 0; !status && cell < training->cells; cell++) {
		struct kx_ikey key = kx_ikey_cell(training->space->number, training->gen->number, cell);
		const struct kx_buf *entries = &training->entries[cell];

		if (kx_icell_encode_record(training->gen, cell, entries->data, (uint32_t)(entries->len / entry_bytes), &record))
			status = kx_error_nomem(error);
		else
			status = kx_kv_bulk_put(bulk, key.bytes, key.len, record.data, record.len, error);
	}
	kx_buf_done(&record);
	return status ? status : kx_kv_bulk_finish(bulk, error);
}

static kx_status write_centroids(struct training *training, struct kx_error *error)
{
	struct kx_kv *kv = training->space->index->options.kv;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	kx_status status = kx_kv_batch_new(kv, &batch) ? kx_error_nomem(error) : KX_OK;

	for (uint32_t cell = 0; !status && cell < training->cells; cell += KX_CHUNK_CELLS) {
		const struct kx_icentroid centroid = {cell, kx_ivf_cell_centroid(training->gen->ivf, cell)};

		status = kx_igen_put_centroids(training->gen, batch, &centroid, 1, error);
		if (!status && (cell % CENTROIDS_A_BATCH == 0 || cell + KX_CHUNK_CELLS >= training->cells))
			status = kx_kv_write(kv, batch, false, error);
	}
	return status;
}

static kx_status write_cells(struct training *training, struct kx_error *error)
{
	struct kx_index *index = training->space->index;
	KX_CLEANUP(kx_kv_bulk_cleanup) struct kx_kv_bulk *bulk = NULL;
	kx_status status = kx_kv_bulk_new(index->options.kv, kx_ifamily(index, KX_INDEX_CELLS), &bulk, error);

	if (!status)
		status = write_records(training, bulk, error);
	return status ? status : write_centroids(training, error);
}

static kx_status fill_cells(struct training *training, struct kx_error *error)
{
	struct kx_igen *gen = training->gen;
	kx_status status = KX_OK;

	for (uint32_t cell = 0; !status && cell < training->cells; cell++) {
		if (!kx_igen_has_room(gen)) {
			kx_ivf_cell_cool(gen->ivf, cell);
			gen->cells[cell].hot = false;
			continue;
		}
		status = kx_ivf_cell_fill(gen->ivf, cell, training->entries[cell].data,
					  training->entries[cell].len / training->space->entry_bytes);
		kx_buf_done(&training->entries[cell]);
	}
	return status ? kx_error_nomem(error) : KX_OK;
}

/* Where all of it is in memory. */
static void tune(struct training *training)
{
	struct kx_igen *gen = training->gen;
	struct kx_error why = {0};

	if (!training->query_count || !kx_igen_has_room(gen))
		return;
	if (kx_ivf_tune_rows(gen->ivf, training->queries, training->query_rows, training->query_count, &training->tuning, &why)) {
		training->tuning.count = 0; /* the guess on the safe side holds */
		kx_log(KX_LOG_WARN, "space %s: not tuned: %s", training->space->record.name, why.message);
	}
}

/* --- What changed meanwhile ----------------------------------------------------------------------------------- */

static kx_status take_out(struct kx_igen *gen, uint32_t row, struct kx_kv_batch *batch, struct kx_error *error)
{
	uint32_t cell = gen->where[row] - 1;
	kx_status status = kx_icell_warm(gen, cell, error);

	if (status)
		return status;
	(void)kx_ivf_remove(gen->ivf, cell, row);
	kx_icell_put_delta(gen, cell, row, NULL, batch);
	gen->where[row] = 0;
	gen->cells[cell].rows--;
	gen->cells[cell].changes++;
	gen->changes++;
	return KX_OK;
}

static kx_status take_in(struct kx_igen *gen, uint32_t row, struct kx_kv_batch *batch, struct kx_error *error)
{
	struct kx_ispace *space = gen->space;
	float vector[KX_IVF_DIM_MAX], distance2;
	uint8_t entry[KX_DELTA_MAX];
	uint32_t cell;
	kx_status status;

	kx_ihalves_to_floats(kx_ivectors_row(&space->vectors, row), space->record.recipe.dim, vector);
	if (kx_ivf_nearest_cells(gen->ivf, vector, 1, &cell, &distance2) != 1)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "space %s: row %u is near no cell",
				    space->record.name, row);
	status = kx_icell_warm(gen, cell, error);
	if (!status && (kx_ivf_encode(gen->ivf, cell, row, vector, entry) || kx_ivf_append(gen->ivf, cell, entry, 1)))
		status = kx_error_nomem(error);
	if (status)
		return status;
	kx_icell_put_delta(gen, cell, row, entry, batch);
	gen->where[row] = cell + 1;
	gen->cells[cell].rows++;
	gen->cells[cell].changes++;
	gen->changes++;
	return KX_OK;
}

/* Takes in at most `most` of what is in the log; by the holder of writer. */
static kx_status catch_up(struct training *training, uint32_t most, struct kx_kv_batch *batch, struct kx_error *error)
{
	struct kx_ispace *space = training->space;
	kx_status status = KX_OK;

	while (!status && space->log.count && most--) {
		uint32_t row = space->log.list[--space->log.count];

		if (training->gen->where[row])
			status = take_out(training->gen, row, batch, error);
		if (!status && space->gen->where[row])
			status = take_in(training->gen, row, batch, error);
	}
	if (!status && !space->logging)
		return kx_error_set(error, KX_ENOMEM, KX_ERROR_RETRY, "space %s: too many changes while it trained",
				    space->record.name);
	return status;
}

static kx_status catch_up_mostly(struct training *training, struct kx_error *error)
{
	struct kx_kv *kv = training->space->index->options.kv;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	kx_status status = kx_kv_batch_new(kv, &batch) ? kx_error_nomem(error) : KX_OK;
	bool more = true;

	while (!status && more) {
		status = check_stop(training, error);
		lock(training);
		if (!status)
			status = catch_up(training, CATCH_UP_LAST / 4, batch, error);
		more = training->space->log.count > CATCH_UP_LAST;
		if (!status)
			status = kx_kv_write(kv, batch, false, error);
		unlock(training);
	}
	return status;
}

/* --- It counts ------------------------------------------------------------------------------------------------ */

static void put_tuning(struct training *training, struct kx_kv_batch *batch)
{
	struct kx_ikey key = kx_ikey_meta(KX_META_TUNING, training->space->number);
	uint8_t bytes[KX_TUNING_BYTES];

	kx_tuning_encode(&training->tuning, 1.0f, bytes);
	kx_iput(training->space->index, batch, KX_INDEX_META, key, bytes, sizeof(bytes));
}

static kx_status write_switch(struct training *training, struct kx_error *error)
{
	struct kx_ispace *space = training->space;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	kx_status status = kx_kv_batch_new(space->index->options.kv, &batch) ? kx_error_nomem(error) : KX_OK;

	if (!status)
		status = catch_up(training, UINT32_MAX, batch, error);
	if (!status)
		status = kx_ivectors_sync(&space->vectors, error);
	if (status)
		return status;
	training->record = space->record;
	training->record.generation = training->gen->number;
	training->record.trained = training->cells > 1;
	training->record.filling = false;
	training->record.trained_rows = training->rows;
	training->record.trained_distance2 = training->rows ? training->distance2 / (double)training->rows : 0;
	kx_ispace_put_record(space, batch, &training->record);
	put_tuning(training, batch);
	if (training->held)
		kx_ispace_put_counts(space, batch, atomic_load(&space->rows_bound), training->rows);
	return kx_kv_write(space->index->options.kv, batch, true, error);
}

static struct kx_igen *swap(struct training *training)
{
	struct kx_ispace *space = training->space;
	struct kx_igen *old = space->gen;

	pthread_rwlock_wrlock(&space->lock);
	space->gen = KX_STEAL(training->gen);
	/* Not name and recipe, which anyone reads at any time. */
	space->record.generation = training->record.generation;
	space->record.trained = training->record.trained;
	space->record.filling = training->record.filling;
	space->record.trained_rows = training->record.trained_rows;
	space->record.trained_distance2 = training->record.trained_distance2;
	space->tuning = training->tuning;
	space->recall = (struct kx_irecall){.effort = 1};
	space->retune = (struct kx_iretune){0};
	kx_itune(space);
	pthread_rwlock_unlock(&space->lock);
	if (training->held)
		atomic_store(&space->rows, training->rows);
	space->due.count = 0;
	space->placed = 0;
	space->measured = 0;
	space->recent_distance2 = 0;
	space->trainings++;
	for (uint32_t i = 0; i < space->gen->bound; i++)
		kx_icell_look(space->gen, i);
	return old;
}

static kx_status finish(struct training *training, struct kx_error *error)
{
	struct kx_igen *old = NULL;
	kx_status status;

	lock(training);
	status = write_switch(training, error);
	if (!status)
		old = swap(training);
	training->space->logging = false;
	unlock(training);
	kx_igen_free(old);
	return status;
}

static kx_status train(struct training *training, struct kx_error *error)
{
	kx_status status = begin(training, error);

	if (!status) {
		const struct kx_plan_limits *limits = &training->space->index->limits;

		training->cells = training->rows < limits->train_rows ? 1 : kx_plan_cells(limits, training->rows);
		status = find_centroids(training, error);
	}
	if (!status)
		status = make_generation(training, error);
	if (!status)
		status = code_all(training, error);
	if (!status)
		status = write_cells(training, error);
	if (!status)
		status = fill_cells(training, error);
	if (!status)
		tune(training);
	if (!status && !training->held)
		status = catch_up_mostly(training, error);
	return status ? status : finish(training, error);
}

kx_status kx_itrain(struct kx_ispace *space, bool held, struct kx_error *error)
{
	struct training training = {.space = space, .held = held};
	kx_status status = train(&training, error);

	lock(&training);
	space->logging = false;
	/* What is left of the attempt, or of the generation before. */
	space->sweep_due = kx_igen_sweep(space, space->record.generation, NULL) != KX_OK;
	unlock(&training);
	training_done(&training);
	return status;
}
