/* What is done in the background, step by step: cells are seen and warmed, folded, split, dissolved, cooled; keys come
 * into memory; new centroids are trained. */
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "shard/index/internal.h"

#define SEEN_AT_ONCE 16u
#define SEEN_LEAST 4u     /* so few when a change waits */
#define KEYS_AT_ONCE 1024u
#define KEYS_ALIKE 256u   /* rows whose keys differ in the last byte alone */
#define PAUSE_MS 1000u   /* after a failure, and when nothing is due */
#define REST_MS 5u       /* after what can wait made a change wait */

void kx_iwake(struct kx_index *index)
{
	pthread_mutex_lock(&index->wake_lock);
	index->woken = true;
	pthread_cond_signal(&index->wake);
	pthread_mutex_unlock(&index->wake_lock);
}

static kx_status list_free_rows(struct kx_ispace *space, struct kx_error *error)
{
	const uint32_t bound = atomic_load(&space->rows_bound);
	uint64_t live = 0;

	for (uint32_t row = 0; row < bound; row++)
		live += space->gen->where[row] != 0;
	if (live != atomic_load(&space->rows)) {
		atomic_store(&space->damaged, true);
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "space %s: %llu rows are in cells, not %llu",
				    space->record.name, (unsigned long long)live,
				    (unsigned long long)atomic_load(&space->rows));
	}
	space->free_rows.count = 0;
	if (kx_ids_reserve(&space->free_rows, bound - (uint32_t)live + 1))
		return kx_error_nomem(error);
	for (uint32_t row = bound; row-- > 0;) /* the lowest is taken first */
		if (!space->gen->where[row])
			space->free_rows.list[space->free_rows.count++] = row;
	return KX_OK;
}

kx_status kx_isettle(struct kx_ispace *space, struct kx_error *error)
{
	kx_status status = KX_OK;

	if (space->gen->unseen || atomic_load(&space->settled))
		return KX_OK;
	if (!space->index->options.read_only)
		status = list_free_rows(space, error);
	if (!status)
		status = kx_ivectors_settle(&space->vectors, error);
	if (status)
		return status;
	pthread_rwlock_wrlock(&space->lock);
	kx_ivf_set_ahead(space->gen->ivf, NULL, NULL);
	pthread_rwlock_unlock(&space->lock);
	atomic_store(&space->settled, true);
	return KX_OK;
}

/* What brings into memory what is on disk anyway steps aside for changes, and then comes back less often. */
static bool gives_way(struct kx_index *index)
{
	bool wanted = kx_iwriter_wanted(index);

	if (wanted)
		atomic_store(&index->crowded, true);
	return wanted;
}

static kx_status see_some(struct kx_ispace *space, bool *ret_did, struct kx_error *error)
{
	struct kx_igen *gen;
	kx_status status;

	kx_iwriter_lock(space->index);
	gen = space->gen;
	*ret_did = gen->unseen || !atomic_load(&space->settled) || space->sweep_due;
	status = kx_ibroken(space, error);
	if (!status && space->sweep_due)
		status = kx_igen_sweep(space, gen->number, error);
	space->sweep_due = space->sweep_due && status;
	for (uint32_t seen = 0; !status && gen->unseen && seen < SEEN_AT_ONCE && gen->look < gen->bound; gen->look++) {
		if (seen >= SEEN_LEAST && gives_way(space->index))
			break;
		seen += gen->cells[gen->look].present;
		status = kx_icell_see(gen, gen->look, kx_igen_has_room(gen), error);
	}
	if (gen->look == gen->bound)
		gen->look = 0;
	if (!status)
		status = kx_isettle(space, error);
	kx_iwriter_unlock(space->index);
	return status;
}

/* Takes the next cell from the queue that wants something, and more that want folding along with it. */
static uint32_t take_due(struct kx_ispace *space, uint32_t cells[KX_FOLDS_AT_ONCE], enum kx_plan_step *ret_step)
{
	uint32_t count = 0;

	*ret_step = KX_PLAN_NOTHING;
	while (space->due.count && count < KX_FOLDS_AT_ONCE) {
		struct kx_igen *gen = space->gen;
		uint32_t cell = space->due.list[space->due.count - 1];
		struct kx_icell *at = cell < gen->bound ? &gen->cells[cell] : NULL;
		enum kx_plan_step step = KX_PLAN_NOTHING;

		if (at && at->present)
			step = kx_plan_cell(&space->index->limits, &(struct kx_plan_cell){at->rows, at->changes, at->since},
					    space->record.trained, gen->present);
		if (count && step != KX_PLAN_FOLD && step != KX_PLAN_NOTHING)
			break;
		space->due.count--;
		if (at)
			at->due = false;
		if (step == KX_PLAN_NOTHING)
			continue;
		cells[count++] = cell;
		*ret_step = step;
		if (step != KX_PLAN_FOLD)
			break;
	}
	return count;
}

static kx_status tend_cells(struct kx_ispace *space, bool *ret_did, struct kx_error *error)
{
	uint32_t cells[KX_FOLDS_AT_ONCE], count;
	enum kx_plan_step step;
	kx_status status = KX_OK;

	kx_iwriter_lock(space->index);
	count = take_due(space, cells, &step);
	kx_iwriter_unlock(space->index);
	*ret_did = count != 0;
	if (step == KX_PLAN_FOLD)
		status = kx_ifold(space, cells, count, error);
	else if (step == KX_PLAN_SPLIT)
		status = kx_isplit(space, cells[0], error);
	else if (step == KX_PLAN_REFIT)
		status = kx_irefit(space, cells[0], error);
	else if (step == KX_PLAN_MERGE)
		status = kx_imerge(space, cells[0], error);
	if (!status)
		return KX_OK;
	kx_iwriter_lock(space->index);
	for (uint32_t i = 0; i < count; i++)
		kx_icell_look(space->gen, cells[i]);
	kx_iwriter_unlock(space->index);
	return status;
}

/* Over the bound, cells go out of memory in turn: which are wanted most, nobody counts. */
static void cool_some(struct kx_ispace *space, bool *ret_did)
{
	struct kx_igen *gen;

	if (!space->index->options.memory_bytes)
		return;
	kx_iwriter_lock(space->index);
	gen = space->gen;
	for (uint32_t i = 0; i < gen->bound && !kx_igen_has_room(gen); i++) {
		uint32_t cell = (uint32_t)((i + space->folds * 31) % gen->bound);

		if (gen->cells[cell].present && gen->cells[cell].hot) {
			kx_icell_cool(gen, cell);
			*ret_did = true;
		}
	}
	kx_iwriter_unlock(space->index);
}

/* A key that the store has, unless memory has a newer one or the row is free. By the holder of writer. */
static kx_status remember_key(struct kx_ispace *space, uint32_t row, const void *value, size_t len,
			      struct kx_error *error)
{
	struct kx_row_view view;
	struct kx_irow *memory;
	kx_status status = kx_row_decode(value, len, &view, error);

	if (status || atomic_load_explicit(&space->keys[row], memory_order_relaxed) || !space->gen->where[row])
		return status;
	memory = malloc(sizeof(*memory) + view.key_len);
	if (!memory)
		return kx_error_nomem(error);
	memory->key_len = (uint32_t)view.key_len;
	memcpy(memory->key, view.key, view.key_len);
	atomic_store_explicit(&space->keys[row], memory, memory_order_release);
	return KX_OK;
}

static bool knows_keys(const struct kx_ispace *space, uint32_t from)
{
	for (uint32_t row = from; row < from + KEYS_ALIKE; row++)
		if (space->gen->where[row] && !atomic_load_explicit(&space->keys[row], memory_order_relaxed))
			return false;
	return true;
}

static void add_keys(struct kx_ispace *space, uint32_t from)
{
	for (uint32_t row = from; row < from + KEYS_ALIKE; row++) {
		const struct kx_irow *key = atomic_load_explicit(&space->keys[row], memory_order_relaxed);

		if (key)
			kx_imaybe_add(&space->maybe, key->key, key->key_len);
	}
}

void kx_iforget_keys(struct kx_ispace *space)
{
	space->keys_loaded = space->maybe.whole = false;
	space->keys_next = 0;
}

/* Rows whose numbers begin alike, which lie one after another. The iterator sees the store as it was when it was made:
 * so it is made while nothing changes, and for few rows. */
static kx_status load_some_keys(struct kx_ispace *space, uint32_t from, struct kx_error *error)
{
	struct kx_index *index = space->index;
	struct kx_ikey prefix = kx_ikey_row(space->number, from);
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	kx_status status = KX_OK;

	if (kx_kv_iter_new(index->options.kv, kx_ifamily(index, KX_INDEX_ROWS), prefix.bytes, prefix.len - 1, &iter))
		return kx_error_nomem(error);
	for (; !status && kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t key_len, len;
		const void *key = kx_kv_iter_key(iter, &key_len);
		const void *value = kx_kv_iter_value(iter, &len);
		uint32_t in, row;

		if (kx_ikey_parse_row(key, key_len, &in, &row) && row < KX_INDEX_ROWS_MAX)
			status = remember_key(space, row, value, len, error);
	}
	return status ? status : kx_kv_iter_error(iter, error);
}

static kx_status load_keys_locked(struct kx_ispace *space, struct kx_error *error)
{
	const uint32_t bound = atomic_load(&space->rows_bound);
	kx_status status = KX_OK;

	if (!space->keys_next)
		kx_imaybe_restart(&space->maybe, bound);
	for (uint32_t i = 0; !status && i < KEYS_AT_ONCE && space->keys_next < bound; i += KEYS_ALIKE) {
		if (i && gives_way(space->index))
			break;
		if (!knows_keys(space, space->keys_next))
			status = load_some_keys(space, space->keys_next, error);
		if (status)
			break;
		add_keys(space, space->keys_next);
		space->keys_next += KEYS_ALIKE;
	}
	if (space->keys_next >= bound)
		space->keys_loaded = space->maybe.whole = !status;
	return status;
}

static kx_status load_keys(struct kx_ispace *space, bool *ret_did, struct kx_error *error)
{
	kx_status status;

	kx_iwriter_lock(space->index);
	*ret_did = !space->keys_loaded;
	status = space->keys_loaded ? KX_OK : load_keys_locked(space, error);
	kx_iwriter_unlock(space->index);
	return status;
}

/* What memory has for vectors, after the codes. */
static uint64_t room_for_vectors(struct kx_ispace *space)
{
	const uint64_t most = space->index->options.memory_bytes;
	uint64_t taken;

	kx_iwriter_lock(space->index);
	taken = kx_ivf_hot_bytes(space->gen->ivf);
	kx_iwriter_unlock(space->index);
	return !most ? UINT64_MAX : taken < most ? most - taken : 0;
}

/* Without a lock: nothing is read or written but through the file. */
static bool enlarge_pages(struct kx_ispace *space)
{
	if (!atomic_load(&space->settled))
		return false;
	return kx_ivectors_pages_step(&space->vectors) ||
	       kx_ivectors_pages_begin(&space->vectors, atomic_load(&space->rows_bound), room_for_vectors(space));
}

static kx_status train_when_due(struct kx_ispace *space, bool *ret_did, struct kx_error *error)
{
	struct kx_plan_space plan;

	kx_iwriter_lock(space->index);
	plan = (struct kx_plan_space){
		.trained = space->record.trained,
		.rows = atomic_load(&space->rows),
		.trained_rows = space->record.trained_rows,
		.placed = space->placed,
		.trained_distance2 = space->record.trained_distance2,
		.recent_distance2 = space->recent_distance2,
	};
	kx_iwriter_unlock(space->index);
	*ret_did = kx_plan_train(&space->index->limits, &plan);
	return *ret_did ? kx_itrain(space, false, error) : KX_OK;
}

/* What opening left undone, since it takes longer than an answer may. Searches go on. */
static kx_status arrange_cells(struct kx_ispace *space, bool *ret_did, struct kx_error *error)
{
	struct kx_ivf_arranged *arranged = NULL;
	kx_status status;

	kx_iwriter_lock(space->index); /* or a cell might come or go meanwhile */
	*ret_did = kx_ivf_cells_flat(space->gen->ivf);
	pthread_rwlock_rdlock(&space->lock);
	status = *ret_did ? kx_ivf_arrange(space->gen->ivf, &arranged) : KX_OK;
	pthread_rwlock_unlock(&space->lock);
	if (arranged) {
		pthread_rwlock_wrlock(&space->lock);
		kx_ivf_arrange_apply(space->gen->ivf, arranged);
		pthread_rwlock_unlock(&space->lock);
	}
	kx_iwriter_unlock(space->index);
	return status ? kx_error_nomem(error) : KX_OK;
}

static kx_status tend_space(struct kx_ispace *space, bool *ret_did, struct kx_error *error)
{
	const bool read_only = space->index->options.read_only;
	kx_status status = see_some(space, ret_did, error);

	if (!status && !*ret_did)
		status = arrange_cells(space, ret_did, error);
	if (!status && !*ret_did && !read_only)
		status = tend_cells(space, ret_did, error);
	/* Not the last thing: where cells want something all the time, it is wanted most. */
	if (!status && !read_only) {
		bool tuned = false;

		status = kx_iretune_step(space, &tuned, error);
		*ret_did = *ret_did || tuned;
	}
	if (!status && !*ret_did)
		cool_some(space, ret_did);
	if (!status && !*ret_did)
		status = load_keys(space, ret_did, error);
	if (!status && !*ret_did && !read_only)
		status = train_when_due(space, ret_did, error);
	if (!status && !*ret_did)
		*ret_did = enlarge_pages(space);
	if (status != KX_ECORRUPT || read_only || !atomic_load(&space->damaged))
		return status;
	*ret_did = true;
	return kx_irepair(space, error);
}

static kx_status step(struct kx_index *index, bool *ret_did, struct kx_error *error)
{
	const uint32_t count = atomic_load(&index->space_count);
	kx_status status = KX_OK;

	*ret_did = false;
	for (uint32_t i = 0; !status && !*ret_did && i < count; i++)
		status = tend_space(index->spaces[i], ret_did, error);
	if (!status && !*ret_did && index->options.manual && index->options.recall_share > 0)
		*ret_did = kx_isample_check(index);
	return status;
}

kx_status kx_index_maintain(struct kx_index *index, uint32_t steps, uint32_t *ret_done, struct kx_error *error)
{
	kx_status status = KX_OK;
	uint32_t done = 0;
	bool did = true;

	pthread_mutex_lock(&index->care_lock);
	while (!status && did && done < steps) {
		status = step(index, &did, error);
		done += !status && did;
	}
	pthread_mutex_unlock(&index->care_lock);
	if (!status && ret_done)
		*ret_done = done;
	return status;
}

static void pause_care(struct kx_index *index, uint32_t ms)
{
	struct timespec deadline = kx_clock_deadline(ms);

	pthread_mutex_lock(&index->wake_lock);
	if (!index->woken && !atomic_load(&index->stop))
		(void)pthread_cond_timedwait(&index->wake, &index->wake_lock, &deadline);
	index->woken = false;
	pthread_mutex_unlock(&index->wake_lock);
}

void *kx_icare_run(void *ctx)
{
	struct kx_index *index = ctx;
	kx_status last = KX_OK;

	/* Whoever opens it for one answer has that before all cells are read beside it. */
	pause_care(index, PAUSE_MS);
	while (!atomic_load(&index->stop)) {
		struct kx_error error = {0};
		uint32_t done = 0;
		kx_status status = kx_index_maintain(index, 1, &done, &error);

		if (status && status != last && status != KX_ECANCELED)
			kx_log_failure(&error); /* once, not each second while a disk is full */
		last = status;
		if (status || !done)
			pause_care(index, PAUSE_MS);
		else if (atomic_exchange(&index->crowded, false))
			pause_care(index, REST_MS);
	}
	return NULL;
}

/* --- What callers ask for ------------------------------------------------------------------------------------- */

static kx_status fold_space(struct kx_ispace *space, struct kx_error *error)
{
	kx_status status;
	uint32_t bound;

	kx_iwriter_lock(space->index);
	status = kx_ibroken(space, error);
	if (!status)
		status = kx_igen_see_all(space->gen, error);
	bound = space->gen->bound;
	kx_iwriter_unlock(space->index);
	for (uint32_t cell = 0; !status && cell < bound; cell++) {
		bool changed;

		kx_iwriter_lock(space->index);
		changed = cell < space->gen->bound && space->gen->cells[cell].changes;
		kx_iwriter_unlock(space->index);
		if (changed)
			status = kx_ifold(space, &cell, 1, error);
	}
	return status;
}

kx_status kx_index_fold_all(struct kx_index *index, struct kx_error *error)
{
	const uint32_t count = atomic_load(&index->space_count);
	kx_status status = kx_ineed_writer(index, error);

	pthread_mutex_lock(&index->care_lock);
	for (uint32_t i = 0; !status && i < count; i++)
		status = fold_space(index->spaces[i], error);
	pthread_mutex_unlock(&index->care_lock);
	return status;
}

kx_status kx_index_retrain(struct kx_index *index, uint32_t number, struct kx_error *error)
{
	struct kx_ispace *space;
	kx_status status = kx_ineed_writer(index, error);

	if (!status)
		status = kx_ispace_get(index, number, &space, error);
	if (status)
		return status;
	pthread_mutex_lock(&index->care_lock);
	status = kx_itrain(space, false, error);
	pthread_mutex_unlock(&index->care_lock);
	return status;
}

kx_status kx_index_stats(struct kx_index *index, uint32_t number, struct kx_index_stats *ret, struct kx_error *error)
{
	struct kx_index_stats stats = {0};
	struct kx_ispace *space;
	struct kx_irecall *recall;
	kx_status status = kx_ispace_get(index, number, &space, error);

	if (status)
		return status;
	kx_iwriter_lock(index);
	recall = &space->recall;
	stats = (struct kx_index_stats){
		.rows = atomic_load(&space->rows),
		.cells = space->gen->present,
		.deltas = space->gen->changes,
		.hot_bytes = kx_ivf_hot_bytes(space->gen->ivf),
		.generation = space->gen->number,
		.folds = space->folds,
		.splits = space->splits,
		.refits = space->refits,
		.merges = space->merges,
		.moved = space->moved,
		.trainings = space->trainings,
		.tunings = space->tunings,
		.repairs = space->repairs,
		.drift = kx_plan_drift(&(struct kx_plan_space){.trained = space->record.trained,
							       .trained_distance2 = space->record.trained_distance2,
							       .recent_distance2 = space->recent_distance2}),
		.recall_samples = recall->samples[0] + recall->samples[1],
		.recall_filtered_samples = recall->samples[1],
		.effort = recall->effort,
		.warm = atomic_load(&space->settled),
	};
	if (stats.recall_samples) {
		stats.recall = (recall->hits[0] + recall->hits[1]) / (double)stats.recall_samples;
		stats.recall_wanted = recall->wanted / (double)stats.recall_samples;
	}
	if (recall->samples[1])
		stats.recall_filtered = recall->hits[1] / (double)recall->samples[1];
	for (uint32_t i = 0; i < space->gen->bound; i++) {
		stats.cells_hot += space->gen->cells[i].hot;
		if (space->gen->cells[i].rows > stats.largest_cell)
			stats.largest_cell = space->gen->cells[i].rows;
	}
	kx_iwriter_unlock(index);
	*ret = stats;
	return KX_OK;
}
