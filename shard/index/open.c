/* Opening, closing, spaces. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "shard/index/internal.h"

#define CELL_ROWS 250u
#define FOLD_CHANGES 48u
#define TRAIN_ROWS 5000u
#define LOADERS_MAX 7u
#define RECALL_SHARE 0.01
#define KEYS_BYTES ((size_t)KX_INDEX_ROWS_MAX * sizeof(struct kx_irow *))

const struct kx_kv_family kx_index_families[KX_INDEX_FAMILIES] = {
	[KX_INDEX_META] = {"ann_meta", false},   [KX_INDEX_CELLS] = {"ann_cells", false},
	[KX_INDEX_DELTA] = {"ann_delta", false}, [KX_INDEX_VECTORS] = {"ann_vectors", false},
	[KX_INDEX_ROWS] = {"ann_rows", true},    [KX_INDEX_KEYS] = {"ann_keys", true},
	[KX_INDEX_CENTROIDS] = {"ann_centroids", false},
};

static kx_status random_number(uint64_t *ret, struct kx_error *error)
{
	do {
		if (getrandom(ret, sizeof(*ret), 0) != (ssize_t)sizeof(*ret))
			return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "the system has no random numbers");
	} while (!*ret); /* 0 says none */
	return KX_OK;
}

void kx_ispace_put_record(struct kx_ispace *space, struct kx_kv_batch *batch, const struct kx_space_record *record)
{
	uint8_t bytes[KX_SPACE_RECORD_MAX];
	size_t len = kx_space_encode(record, bytes);

	kx_iput(space->index, batch, KX_INDEX_META, kx_ikey_meta(KX_META_SPACE, space->number), bytes, len);
}

void kx_ispace_put_counts(struct kx_ispace *space, struct kx_kv_batch *batch, uint32_t rows_bound, uint64_t rows)
{
	struct kx_counts_record counts = {rows_bound, rows};
	uint8_t bytes[KX_COUNTS_BYTES];

	kx_counts_encode(&counts, bytes);
	kx_iput(space->index, batch, KX_INDEX_META, kx_ikey_meta(KX_META_COUNTS, space->number), bytes, sizeof(bytes));
}

/* --- One space ------------------------------------------------------------------------------------------------ */

static void free_keys(struct kx_ispace *space)
{
	const uint32_t bound = atomic_load(&space->rows_bound);

	for (uint32_t i = 0; space->keys && i < bound; i++)
		free(atomic_load_explicit(&space->keys[i], memory_order_relaxed));
	kx_unreserve((void *)(uintptr_t)space->keys, KEYS_BYTES);
}

static void space_free(struct kx_ispace *space)
{
	if (!space)
		return;
	kx_igen_free(space->gen);
	kx_ivectors_close(&space->vectors);
	free_keys(space);
	kx_ids_done(&space->free_rows);
	kx_ids_done(&space->due);
	kx_ids_done(&space->log);
	kx_ids_done(&space->watched);
	kx_imaybe_done(&space->maybe);
	pthread_rwlock_destroy(&space->lock);
	free(space);
}

static void space_cleanup(struct kx_ispace **space)
{
	space_free(*space);
}

/* A writer that waits comes before readers that come later: else a stream of searches would keep changes out. */
static kx_status init_lock(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t attr;
	int failed = pthread_rwlockattr_init(&attr);

	if (failed)
		return KX_ENOMEM;
	(void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	failed = pthread_rwlock_init(lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	return failed ? KX_ENOMEM : KX_OK;
}

static kx_status space_alloc(struct kx_index *index, uint32_t number, struct kx_ispace **ret)
{
	struct kx_ispace *space = calloc(1, sizeof(*space));

	if (!space)
		return KX_ENOMEM;
	space->index = index;
	space->number = number;
	space->vectors.fd = -1;
	space->recall.effort = 1;
	if (init_lock(&space->lock)) {
		free(space);
		return KX_ENOMEM;
	}
	space->keys = kx_reserve(KEYS_BYTES);
	if (!space->keys) {
		space_free(space);
		return KX_ENOMEM;
	}
	*ret = space;
	return KX_OK;
}

static kx_status read_session(struct kx_ispace *space, uint64_t *ret, struct kx_error *error)
{
	struct kx_buf value = {.max = 64};
	kx_status status = kx_iget(space->index, KX_INDEX_META, kx_ikey_meta(KX_META_SESSION, space->number), &value,
				   error);

	*ret = !status && value.len == 8 ? kx_le64_get(value.data) : 0;
	kx_buf_done(&value);
	return status == KX_ENOTFOUND ? KX_OK : status;
}

static kx_status open_vectors(struct kx_ispace *space, struct kx_error *error)
{
	const struct kx_index_options *options = &space->index->options;
	KX_CLEANUP(kx_cleanup_free) char *path = NULL;
	uint64_t session;
	kx_status status = read_session(space, &session, error);

	if (status)
		return status;
	path = kx_strf("%s/vectors-%u.f16", space->index->dir, space->number);
	if (!path)
		return kx_error_nomem(error);
	if (options->read_only)
		return kx_ivectors_open_reader(&space->vectors, path, space->record.recipe.dim,
					       atomic_load(&space->rows_bound), session, error);
	return kx_ivectors_open(&space->vectors, path, space->record.recipe.dim, atomic_load(&space->rows_bound),
				session, error);
}

static kx_status read_counts(struct kx_ispace *space, struct kx_error *error)
{
	struct kx_buf value = {.max = 64};
	struct kx_counts_record counts = {0};
	kx_status status = kx_iget(space->index, KX_INDEX_META, kx_ikey_meta(KX_META_COUNTS, space->number), &value,
				   error);

	if (!status)
		status = kx_counts_decode(value.data, value.len, &counts, error);
	atomic_store(&space->rows_bound, counts.rows_bound);
	atomic_store(&space->rows, counts.rows);
	kx_buf_done(&value);
	return status == KX_ENOTFOUND ? KX_OK : status;
}

static kx_status read_tuning(struct kx_ispace *space, struct kx_error *error)
{
	struct kx_buf value = {.max = 4096};
	float scale = 1;
	kx_status status = kx_iget(space->index, KX_INDEX_META, kx_ikey_meta(KX_META_TUNING, space->number), &value,
				   error);

	if (!status)
		status = kx_tuning_decode(value.data, value.len, &space->tuning, &scale, error);
	if (!status) {
		space->recall.effort = (double)scale;
		kx_itune(space);
	}
	kx_buf_done(&value);
	return status == KX_ENOTFOUND ? KX_OK : status;
}

/* All of it but its record. */
static void wipe(struct kx_ispace *space, struct kx_kv_batch *batch)
{
	static const enum kx_index_family families[] = {KX_INDEX_CELLS,	KX_INDEX_DELTA, KX_INDEX_VECTORS,
							KX_INDEX_ROWS,	KX_INDEX_KEYS,	KX_INDEX_CENTROIDS};
	struct kx_ikey from = kx_ikey_space(space->number), to = kx_ikey_space(space->number + 1);

	for (size_t i = 0; i < KX_ARRAY_LEN(families); i++)
		kx_kv_batch_delete_range(batch, kx_ifamily(space->index, families[i]), from.bytes, from.len, to.bytes,
					 to.len);
	kx_idelete(space->index, batch, KX_INDEX_META, kx_ikey_meta(KX_META_COUNTS, space->number));
	kx_idelete(space->index, batch, KX_INDEX_META, kx_ikey_meta(KX_META_TUNING, space->number));
}

/* One empty cell around zero, and the record, in the batch. */
static kx_status stage_empty(struct kx_ispace *space, struct kx_kv_batch *batch, struct kx_error *error)
{
	KX_CLEANUP(kx_igen_cleanup) struct kx_igen *gen = NULL;
	static const float zero[KX_IVF_DIM_MAX];
	const struct kx_icentroid first = {0, zero};
	kx_status status;

	status = kx_igen_new(space, space->record.generation, &gen, error);
	if (!status)
		status = kx_igen_put_centroids(gen, batch, &first, 1, error);
	if (!status)
		kx_ispace_put_record(space, batch, &space->record);
	return status;
}

/* A building that did not end: the space is empty again. */
static kx_status undo_filling(struct kx_ispace *space, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	kx_status status;

	if (kx_kv_batch_new(space->index->options.kv, &batch))
		return kx_error_nomem(error);
	space->record.filling = false;
	space->record.trained = false;
	wipe(space, batch);
	status = stage_empty(space, batch, error);
	return status ? status : kx_kv_write(space->index->options.kv, batch, true, error);
}

kx_status kx_ispace_empty(struct kx_ispace *space, struct kx_error *error)
{
	KX_CLEANUP(kx_igen_cleanup) struct kx_igen *gen = NULL;
	struct kx_igen *old;
	const uint32_t bound = atomic_load(&space->rows_bound);
	kx_status status = undo_filling(space, error);

	if (!status)
		status = kx_igen_new(space, space->record.generation, &gen, error);
	if (!status)
		status = kx_igen_load(gen, error);
	if (status) {
		space->broken = "building";
		return status;
	}
	pthread_rwlock_wrlock(&space->lock);
	for (uint32_t row = 0; row < bound; row++)
		free(atomic_exchange(&space->keys[row], NULL));
	atomic_store(&space->rows_bound, 0);
	space->free_rows.count = 0;
	space->due.count = 0;
	old = space->gen;
	space->gen = KX_STEAL(gen);
	pthread_rwlock_unlock(&space->lock);
	kx_igen_free(old);
	return KX_OK;
}

static kx_status check_filling(struct kx_ispace *space, struct kx_error *error)
{
	if (!space->record.filling)
		return KX_OK;
	if (space->index->options.read_only)
		return kx_error_set(error, KX_EBUSY, KX_ERROR_RETRY, "space %s: it is being built", space->record.name);
	return undo_filling(space, error);
}

static kx_status load_space(struct kx_ispace *space, struct kx_error *error)
{
	kx_status status = check_filling(space, error);

	if (!status)
		status = read_counts(space, error);
	if (!status)
		status = open_vectors(space, error);
	kx_reserve_huge((void *)(uintptr_t)space->keys, atomic_load(&space->rows_bound) * sizeof(*space->keys));
	if (!status)
		status = kx_igen_new(space, space->record.generation, &space->gen, error);
	if (status)
		return status;
	space->entry_bytes = (uint32_t)kx_ivf_entry_bytes(space->gen->ivf);
	if (space->vectors.fd >= 0 || atomic_load(&space->vectors.borrowed))
		kx_ivf_set_ahead(space->gen->ivf, kx_ivectors_ahead, &space->vectors); /* until it is settled */
	status = kx_igen_load(space->gen, error);
	if (!status)
		status = read_tuning(space, error);
	if (!status && !space->index->options.read_only)
		status = kx_igen_sweep(space, space->record.generation, error);
	return status;
}

/* What the store says of it, without what it holds. */
static kx_status read_space(struct kx_index *index, uint32_t number, struct kx_error *error)
{
	KX_CLEANUP(space_cleanup) struct kx_ispace *space = NULL;
	struct kx_buf value = {.max = 4096};
	kx_status status = kx_iget(index, KX_INDEX_META, kx_ikey_meta(KX_META_SPACE, number), &value, error);

	if (!status && space_alloc(index, number, &space))
		status = kx_error_nomem(error);
	if (!status)
		status = kx_space_decode(value.data, value.len, &space->record, error);
	kx_buf_done(&value);
	if (status)
		return status == KX_ENOTFOUND && !space ? status : kx_error_prefix(error, status, "space %u", number);
	index->spaces[number] = KX_STEAL(space);
	return KX_OK;
}

/* Nobody sees it until the count says that it is there. */
static kx_status open_space(struct kx_index *index, uint32_t number, struct kx_error *error)
{
	kx_status status = read_space(index, number, error);

	if (status)
		return status;
	status = load_space(index->spaces[number], error);
	if (status) {
		space_free(KX_STEAL(index->spaces[number]));
		return kx_error_prefix(error, status, "space %u", number);
	}
	atomic_store(&index->space_count, number + 1);
	return KX_OK;
}

kx_status kx_ispace_begin(struct kx_ispace *space, bool anew, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	uint8_t bytes[8];
	uint64_t session;
	kx_status status;

	if (space->vectors.begun && !anew)
		return KX_OK;
	status = random_number(&session, error);
	if (!status && kx_kv_batch_new(space->index->options.kv, &batch))
		status = kx_error_nomem(error);
	if (!status)
		status = kx_ivectors_begin(&space->vectors, session, error);
	if (status)
		return status;
	kx_le64_put(bytes, session);
	kx_iput(space->index, batch, KX_INDEX_META, kx_ikey_meta(KX_META_SESSION, space->number), bytes, sizeof(bytes));
	status = kx_kv_write(space->index->options.kv, batch, true, error);
	return status ? status : kx_ivectors_begun(&space->vectors, session, error);
}

static kx_status make_space(struct kx_index *index, const struct kx_space_record *record, uint32_t number,
			    struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	KX_CLEANUP(space_cleanup) struct kx_ispace *space = NULL;
	uint8_t format[4];
	kx_status status;

	if (space_alloc(index, number, &space) || kx_kv_batch_new(index->options.kv, &batch))
		return kx_error_nomem(error);
	space->record = *record;
	status = stage_empty(space, batch, error);
	if (status)
		return status;
	kx_le32_put(format, KX_RECORD_FORMAT);
	kx_iput(index, batch, KX_INDEX_META, kx_ikey_format(), format, sizeof(format));
	status = kx_kv_write(index->options.kv, batch, true, error);
	return status ? status : open_space(index, number, error);
}

kx_status kx_index_find_space(struct kx_index *index, const char *name, uint32_t *ret_space, struct kx_error *error)
{
	const uint32_t count = atomic_load(&index->space_count);

	for (uint32_t i = 0; i < count; i++) {
		if (kx_str_eq(index->spaces[i]->record.name, name)) {
			*ret_space = i;
			return KX_OK;
		}
	}
	return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_POISON, "the index has no space \"%s\"", name);
}

static kx_status check_space(const char *name, uint32_t dim, enum kx_metric metric, struct kx_error *error)
{
	if (!*name || strlen(name) > KX_INDEX_SPACE_NAME_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "a space's name has 1 to %u bytes",
				    KX_INDEX_SPACE_NAME_MAX);
	if (dim < KX_IVF_DIM_MIN || dim > KX_IVF_DIM_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "space %s: %u dimensions; it can be %u to %u", name,
				    dim, KX_IVF_DIM_MIN, KX_IVF_DIM_MAX);
	if (metric != KX_METRIC_COSINE && metric != KX_METRIC_INNER_PRODUCT)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "space %s: metric %d is none", name, (int)metric);
	return KX_OK;
}

static kx_status space_locked(struct kx_index *index, const struct kx_space_record *wanted, uint32_t *ret,
			      struct kx_error *error)
{
	const uint32_t count = atomic_load(&index->space_count);
	uint32_t found = 0;
	kx_status status;

	if (kx_index_find_space(index, wanted->name, &found, NULL) == KX_OK) {
		const struct kx_ivf_recipe *is = &index->spaces[found]->record.recipe;

		*ret = found;
		if (is->dim == wanted->recipe.dim && is->metric == wanted->recipe.metric)
			return KX_OK;
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "space %s: it is there with %u dimensions and metric %d", wanted->name, is->dim,
				    (int)is->metric);
	}
	status = kx_ineed_writer(index, error);
	if (status)
		return status;
	if (count == KX_INDEX_SPACES_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_FATAL, "an index of more than %u spaces",
				    KX_INDEX_SPACES_MAX);
	status = make_space(index, wanted, count, error);
	if (!status)
		*ret = count;
	return status;
}

kx_status kx_index_space(struct kx_index *index, const char *name, uint32_t dim, enum kx_metric metric,
			 uint32_t *ret_space, struct kx_error *error)
{
	struct kx_space_record record = {.recipe = {dim, metric, 0}};
	kx_status status = check_space(name, dim, metric, error);
	uint32_t number = 0;

	if (!status)
		status = random_number(&record.recipe.seed, error);
	if (status)
		return status;
	memcpy(record.name, name, strlen(name) + 1);
	pthread_mutex_lock(&index->spaces_lock);
	status = space_locked(index, &record, &number, error);
	pthread_mutex_unlock(&index->spaces_lock);
	if (!status)
		*ret_space = number;
	return status;
}

uint32_t kx_index_space_count(struct kx_index *index)
{
	return atomic_load(&index->space_count);
}

bool kx_index_is_empty(struct kx_index *index)
{
	const uint32_t count = atomic_load(&index->space_count);

	for (uint32_t i = 0; i < count; i++)
		if (atomic_load(&index->spaces[i]->rows))
			return false;
	return true;
}

kx_status kx_index_space_info(struct kx_index *index, uint32_t number, struct kx_index_space_info *ret,
			      struct kx_error *error)
{
	struct kx_ispace *space;
	kx_status status = kx_ispace_get(index, number, &space, error);

	if (status)
		return status;
	*ret = (struct kx_index_space_info){
		.dim = space->record.recipe.dim,
		.metric = space->record.recipe.metric,
		.rows = atomic_load(&space->rows),
		.rows_bound = atomic_load(&space->rows_bound),
	};
	memcpy(ret->name, space->record.name, sizeof(ret->name));
	return KX_OK;
}

/* --- The index ------------------------------------------------------------------------------------------------ */

static void set_defaults(struct kx_index *index)
{
	struct kx_index_options *options = &index->options;

	options->cell_rows = options->cell_rows ? options->cell_rows : CELL_ROWS;
	options->fold_changes = options->fold_changes ? options->fold_changes : FOLD_CHANGES;
	options->train_rows = options->train_rows ? options->train_rows : TRAIN_ROWS;
	if (options->recall_share == 0)
		options->recall_share = RECALL_SHARE;
	index->limits = (struct kx_plan_limits){options->cell_rows, options->fold_changes, options->train_rows};
}

static kx_status init_locks(struct kx_index *index)
{
	if (pthread_mutex_init(&index->writer, NULL) || pthread_mutex_init(&index->spaces_lock, NULL) ||
	    pthread_mutex_init(&index->queue_lock, NULL) || pthread_mutex_init(&index->wake_lock, NULL) ||
	    pthread_mutex_init(&index->care_lock, NULL))
		return KX_ENOMEM;
	if (kx_cond_init(&index->writer_turn) || kx_cond_init(&index->queue_moved) || kx_cond_init(&index->wake) || kx_cond_init(&index->sampled))
		return KX_ENOMEM;
	return KX_OK;
}

/* Spaces are loaded side by side: each brings in its centroids, and that is what opening takes. */
struct loading {
	struct kx_index *index;
	atomic_uint next;
	pthread_mutex_t lock; /* of the first failure */
	kx_status status;
	struct kx_error error;
};

static void *load_some(void *arg)
{
	struct loading *loading = arg;
	const uint32_t count = atomic_load(&loading->index->space_count);
	uint32_t number;

	while ((number = atomic_fetch_add(&loading->next, 1)) < count) {
		struct kx_error error = {0};
		kx_status status = load_space(loading->index->spaces[number], &error);

		if (!status)
			continue;
		(void)kx_error_prefix(&error, status, "space %u", number);
		pthread_mutex_lock(&loading->lock);
		if (!loading->status) {
			loading->status = status;
			loading->error = error;
		}
		pthread_mutex_unlock(&loading->lock);
	}
	return NULL;
}

static kx_status load_spaces(struct kx_index *index, struct kx_error *error)
{
	struct loading loading = {.index = index};
	const uint32_t count = atomic_load(&index->space_count);
	pthread_t threads[LOADERS_MAX];
	uint32_t started = 0;

	if (pthread_mutex_init(&loading.lock, NULL))
		return kx_error_nomem(error);
	/* One that can't be started is done without. */
	while (started < LOADERS_MAX && started + 1 < count && started + 1 < (uint32_t)sysconf(_SC_NPROCESSORS_ONLN) &&
	       !kx_thread_start(&threads[started], "index-open", load_some, &loading, NULL))
		started++;
	load_some(&loading);
	for (uint32_t i = 0; i < started; i++)
		(void)pthread_join(threads[i], NULL);
	pthread_mutex_destroy(&loading.lock);
	if (loading.status && error)
		*error = loading.error;
	return loading.status;
}

static kx_status open_spaces(struct kx_index *index, struct kx_error *error)
{
	struct kx_buf value = {.max = 64};
	kx_status status = kx_iget(index, KX_INDEX_META, kx_ikey_format(), &value, error);

	if (!status && (value.len != 4 || kx_le32_get(value.data) != KX_RECORD_FORMAT))
		status = kx_error_set(error, KX_EVERSION, KX_ERROR_FATAL,
				      "the index is of another format than %u, which this program knows",
				      KX_RECORD_FORMAT);
	kx_buf_done(&value);
	for (uint32_t i = 0; !status && i < KX_INDEX_SPACES_MAX; i++) {
		status = read_space(index, i, error);
		if (!status)
			atomic_store(&index->space_count, i + 1);
	}
	if (status && status != KX_ENOTFOUND)
		return status;
	return load_spaces(index, error);
}

static kx_status start_threads(struct kx_index *index, struct kx_error *error)
{
	kx_status status = KX_OK;

	if (index->options.manual)
		return KX_OK;
	status = kx_thread_start(&index->care, "index-care", kx_icare_run, index, error);
	index->has_care = !status;
	if (!status && index->options.recall_share > 0) {
		status = kx_thread_start(&index->watch, "index-watch", kx_iwatch_run, index, error);
		index->has_watch = !status;
	}
	return status;
}

kx_status kx_index_open(const struct kx_index_options *options, struct kx_index **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_index_cleanup) struct kx_index *index = calloc(1, sizeof(*index));
	kx_status status = KX_OK;

	if (!index || init_locks(index))
		return kx_error_nomem(error);
	index->options = *options;
	set_defaults(index);
	index->dir = kx_strdup(options->dir);
	if (!index->dir)
		return kx_error_nomem(error);
	if (!options->read_only)
		status = kx_fs_mkdirs(options->dir, error);
	if (!status)
		status = open_spaces(index, error);
	if (!status)
		status = start_threads(index, error);
	if (status)
		return status;
	*ret = KX_STEAL(index);
	return KX_OK;
}

static void stop_threads(struct kx_index *index)
{
	atomic_store(&index->stop, true);
	kx_iwake(index);
	pthread_mutex_lock(&index->queue_lock);
	pthread_cond_broadcast(&index->sampled);
	pthread_mutex_unlock(&index->queue_lock);
	if (index->has_care)
		(void)pthread_join(index->care, NULL);
	if (index->has_watch)
		(void)pthread_join(index->watch, NULL);
}

void kx_index_close(struct kx_index *index)
{
	if (!index)
		return;
	stop_threads(index);
	if (!index->options.read_only && atomic_load(&index->space_count))
		(void)!kx_kv_flush(index->options.kv, NULL); /* or opening would read the log, which takes seconds */
	kx_isample_free(index->sample);
	kx_kv_batch_free(index->batch);
	for (uint32_t i = 0; i < atomic_load(&index->space_count); i++)
		space_free(index->spaces[i]);
	while (index->scratches) {
		struct kx_iscratch *scratch = index->scratches;

		index->scratches = scratch->next;
		kx_iscratch_free(scratch);
	}
	pthread_mutex_destroy(&index->writer);
	pthread_mutex_destroy(&index->spaces_lock);
	pthread_mutex_destroy(&index->queue_lock);
	pthread_mutex_destroy(&index->wake_lock);
	pthread_mutex_destroy(&index->care_lock);
	pthread_cond_destroy(&index->writer_turn);
	pthread_cond_destroy(&index->queue_moved);
	pthread_cond_destroy(&index->wake);
	pthread_cond_destroy(&index->sampled);
	free(index->dir);
	free(index);
}

void kx_index_cleanup(struct kx_index **index)
{
	kx_index_close(*index);
}
