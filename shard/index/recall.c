/* Live recall: now and then a query is answered again, exactly, in small steps beside everything else; what the index had
 * found of it steers how hard it looks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "shard/ann/ivf_kernels.h"
#include "shard/index/internal.h"

#define ROWS_AT_ONCE 2048u     /* compared under the space's lock: some tens of microseconds */
#define WATCHED_MOST 4096u     /* rows changed while one query is compared */
#define RAISE_AFTER 32u        /* samples until the effort is looked at */
#define LOWER_AFTER 128u
#define EFFORT_MOST 16.0
#define EFFORT_LEAST 0.5

struct kx_isample {
	struct kx_ispace *space;
	struct kx_index_filter *filter;
	uint32_t k;
	double recall;
	float *vector;
	struct kx_ivf_hit *exact; /* [k], a heap, the worst on top; then sorted */
	uint32_t exact_count;
	struct kx_ivf_hit *found; /* [k] */
	uint32_t found_count;
};

void kx_isample_free(struct kx_isample *sample)
{
	if (!sample)
		return;
	kx_index_filter_free(sample->filter);
	free(sample->vector);
	free(sample->exact);
	free(sample->found);
	free(sample);
}

static struct kx_isample *sample_new(struct kx_ispace *space, const struct kx_index_query *query, const float *vector)
{
	const size_t bytes = space->record.recipe.dim * sizeof(float);
	struct kx_isample *sample = calloc(1, sizeof(*sample));

	if (!sample)
		return NULL;
	sample->space = space;
	sample->k = query->k;
	sample->recall = query->recall;
	sample->vector = malloc(bytes);
	sample->exact = malloc(query->k * sizeof(*sample->exact));
	sample->found = malloc(query->k * sizeof(*sample->found));
	if (!sample->vector || !sample->exact || !sample->found) {
		kx_isample_free(sample);
		return NULL;
	}
	memcpy(sample->vector, vector, bytes);
	if (query->filter) {
		sample->filter = (struct kx_index_filter *)(uintptr_t)query->filter;
		atomic_fetch_add(&sample->filter->references, 1);
	}
	return sample;
}

void kx_isample_take(struct kx_ispace *space, const struct kx_index_query *query, const float *vector)
{
	struct kx_index *index = space->index;
	struct kx_isample *sample;

	if (index->options.recall_share < 0 || query->recall >= 1 || !atomic_load(&space->settled) ||
	    kx_clock_mono_us() < atomic_load_explicit(&index->next_sample_us, memory_order_relaxed))
		return;
	if (pthread_mutex_trylock(&index->queue_lock))
		return;
	if (!index->sample) {
		sample = sample_new(space, query, vector);
		index->sample = sample;
		pthread_cond_signal(&index->sampled);
	}
	pthread_mutex_unlock(&index->queue_lock);
}

void kx_iwatch_row(struct kx_ispace *space, uint32_t row)
{
	if (!atomic_load_explicit(&space->watching, memory_order_relaxed))
		return;
	if (space->watched.count >= WATCHED_MOST || kx_ids_add(&space->watched, row))
		atomic_store(&space->watching, 0);
}

static bool is_better(const struct kx_ivf_hit *a, const struct kx_ivf_hit *b)
{
	return a->score != b->score ? a->score > b->score : a->row < b->row;
}

static void keep(struct kx_isample *sample, struct kx_ivf_hit hit)
{
	struct kx_ivf_hit *heap = sample->exact;
	uint32_t at;

	if (sample->exact_count == sample->k && !is_better(&hit, &heap[0]))
		return;
	if (sample->exact_count < sample->k) {
		for (at = sample->exact_count++; at && is_better(&heap[(at - 1) / 2], &hit); at = (at - 1) / 2)
			heap[at] = heap[(at - 1) / 2];
		heap[at] = hit;
		return;
	}
	for (at = 0;;) {
		uint32_t child = 2 * at + 1;

		if (child + 1 < sample->k && is_better(&heap[child], &heap[child + 1]))
			child++;
		if (child >= sample->k || !is_better(&hit, &heap[child]))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = hit;
}

static bool may_be_found(const struct kx_isample *sample, uint32_t row)
{
	const struct kx_index_filter *filter = sample->filter;

	return !filter || (row < filter->rows && filter->bits[row / 64] >> row % 64 & 1u);
}

/* False: the store or the query's filter is such that there is nothing to be said. */
static bool compare_all(struct kx_isample *sample)
{
	struct kx_ispace *space = sample->space;
	const struct kx_ivf_kernels *kernels = kx_ivf_kernels_best();
	const uint32_t bound = atomic_load(&space->rows_bound), dim = space->record.recipe.dim;

	for (uint32_t from = 0; from < bound; from += ROWS_AT_ONCE) {
		const uint32_t to = bound - from < ROWS_AT_ONCE ? bound : from + ROWS_AT_ONCE;

		if (atomic_load(&space->index->stop))
			return false;
		pthread_rwlock_rdlock(&space->lock);
		for (uint32_t row = from; row < to; row++) {
			if (!space->gen->where[row] || !may_be_found(sample, row))
				continue;
			keep(sample, (struct kx_ivf_hit){row, kernels->dot(kx_ivectors_row(&space->vectors, row),
									   sample->vector, dim)});
		}
		pthread_rwlock_unlock(&space->lock);
	}
	return true;
}

static bool find_again(struct kx_isample *sample, struct kx_iscratch *scratch)
{
	struct kx_ispace *space = sample->space;
	const struct kx_ivf_query query = {sample->vector, sample->k, sample->recall, KX_IVF_NO_ROW,
					   sample->filter ? sample->filter->ivf : NULL};

	return kx_ivf_search(space->gen->ivf, &query, scratch->ivf, sample->found, &sample->found_count, NULL, NULL) ==
	       KX_OK;
}

static bool has_changed(const struct kx_ispace *space, uint32_t row)
{
	for (uint32_t i = 0; i < space->watched.count; i++)
		if (space->watched.list[i] == row)
			return true;
	return false;
}

static bool was_found(const struct kx_isample *sample, const struct kx_ivf_hit *hit)
{
	for (uint32_t i = 0; i < sample->found_count; i++)
		if (sample->found[i].row == hit->row)
			return true;
	/* Another of the same score stands in its place. */
	return sample->found_count == sample->k && hit->score <= sample->found[sample->k - 1].score;
}

static int order(const void *a, const void *b)
{
	return is_better(a, b) ? -1 : 1;
}

/* The share of the exact answer that was found; negative: too much changed meanwhile. Rows that did count for
 * nothing, and each that was found pushed another out. By who holds the lock. */
static double share_found(struct kx_isample *sample)
{
	uint32_t most = sample->k, all = 0, found = 0;

	qsort(sample->exact, sample->exact_count, sizeof(*sample->exact), order);
	for (uint32_t i = 0; i < sample->found_count; i++)
		most -= has_changed(sample->space, sample->found[i].row);
	for (uint32_t i = 0; i < sample->exact_count && all < most; i++) {
		if (has_changed(sample->space, sample->exact[i].row))
			continue;
		all++;
		found += was_found(sample, &sample->exact[i]);
	}
	return all ? (double)found / all : -1;
}

void kx_itune(struct kx_ispace *space)
{
	struct kx_ivf_tuning tuning = space->tuning;

	if (!tuning.count)
		return;
	for (uint32_t i = 0; i < tuning.count; i++)
		tuning.effort[i] *= (float)space->recall.effort;
	kx_ivf_set_tuning(space->gen->ivf, &tuning);
}

void kx_ikeep_tuning(struct kx_ispace *space)
{
	struct kx_index *index = space->index;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	uint8_t bytes[KX_TUNING_BYTES];

	if (index->options.read_only || kx_kv_batch_new(index->options.kv, &batch))
		return;
	kx_tuning_encode(&space->tuning, (float)space->recall.effort, bytes);
	kx_iput(index, batch, KX_INDEX_META, kx_ikey_meta(KX_META_TUNING, space->number), bytes, sizeof(bytes));
	(void)!kx_kv_write(index->options.kv, batch, false, NULL); /* a hint: lost, it is measured again */
}

/* By the holder of the lock for writing; true: the effort is another. */
static bool steer(struct kx_ispace *space)
{
	struct kx_irecall *recall = &space->recall;
	double found, wanted, effort = recall->effort;

	if (recall->recent < RAISE_AFTER || !space->tuning.count)
		return false;
	found = recall->recent_hits / recall->recent;
	wanted = recall->recent_wanted / recall->recent;
	if (found < wanted - 0.005)
		effort *= 1.15;
	else if (recall->recent >= LOWER_AFTER && found > wanted + (1 - wanted) / 2)
		effort *= 0.97;
	else if (recall->recent < LOWER_AFTER)
		return false;
	recall->recent = 0;
	recall->recent_hits = recall->recent_wanted = 0;
	effort = effort > EFFORT_MOST ? EFFORT_MOST : effort < EFFORT_LEAST ? EFFORT_LEAST : effort;
	if (effort == recall->effort)
		return false;
	recall->effort = effort;
	kx_itune(space);
	return true;
}

static void account(struct kx_isample *sample, double share)
{
	struct kx_ispace *space = sample->space;
	struct kx_irecall *recall = &space->recall;
	bool steered;

	kx_iwriter_lock(space->index);
	pthread_rwlock_wrlock(&space->lock);
	recall->samples[sample->filter != NULL]++;
	recall->hits[sample->filter != NULL] += share;
	recall->wanted += sample->recall;
	recall->recent_hits += share;
	recall->recent_wanted += sample->recall;
	recall->recent++;
	steered = steer(space);
	pthread_rwlock_unlock(&space->lock);
	if (steered)
		kx_ikeep_tuning(space);
	kx_iwriter_unlock(space->index);
}

static void check(struct kx_isample *sample, struct kx_iscratch *scratch)
{
	struct kx_ispace *space = sample->space;
	double share = -1;

	pthread_rwlock_wrlock(&space->lock);
	space->watched.count = 0;
	atomic_store(&space->watching, 1);
	pthread_rwlock_unlock(&space->lock);
	if (compare_all(sample)) {
		pthread_rwlock_rdlock(&space->lock);
		if (atomic_load(&space->watching) && !space->broken && find_again(sample, scratch))
			share = share_found(sample);
		pthread_rwlock_unlock(&space->lock);
	}
	atomic_store(&space->watching, 0);
	if (share >= 0)
		account(sample, share);
}

bool kx_isample_check(struct kx_index *index)
{
	struct kx_isample *sample;
	struct kx_iscratch *scratch;
	uint64_t began = kx_clock_mono_us(), took;

	pthread_mutex_lock(&index->queue_lock);
	sample = index->sample;
	pthread_mutex_unlock(&index->queue_lock);
	if (!sample)
		return false;
	scratch = kx_iscratch_take(index);
	if (scratch) {
		check(sample, scratch);
		kx_iscratch_give(index, scratch);
	}
	took = kx_clock_mono_us() - began;
	atomic_store(&index->next_sample_us,
		     kx_clock_mono_us() + (uint64_t)((double)took / index->options.recall_share));
	pthread_mutex_lock(&index->queue_lock);
	index->sample = NULL;
	pthread_mutex_unlock(&index->queue_lock);
	kx_isample_free(sample);
	return true;
}

void *kx_iwatch_run(void *ctx)
{
	struct kx_index *index = ctx;

	while (!atomic_load(&index->stop)) {
		pthread_mutex_lock(&index->queue_lock);
		while (!index->sample && !atomic_load(&index->stop))
			pthread_cond_wait(&index->sampled, &index->queue_lock);
		pthread_mutex_unlock(&index->queue_lock);
		if (!atomic_load(&index->stop))
			(void)kx_isample_check(index);
	}
	return NULL;
}
