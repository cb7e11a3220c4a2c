/* Changes that are on disk, into memory; and group commit. */
#include "shard/index/stage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_AT_ONCE 16u   /* under a space's lock: some microseconds */
#define BATCH_KEPT 1024u    /* changes, a batch for which keeps its memory */
#define RECENT_SHARE 0.0005 /* of a row put, in the mean of those put lately */

static void forget(struct kx_index_staged *staged, struct kx_ispace *space, uint32_t row)
{
	struct kx_irow *memory = atomic_exchange_explicit(&space->keys[row], NULL, memory_order_acq_rel);

	if (memory)
		staged->garbage[staged->garbage_count++] = memory;
}

static void apply_old(struct kx_index_staged *staged, const struct kx_istep *step)
{
	struct kx_ispace *space = step->space;
	struct kx_igen *gen = space->gen;
	kx_index_row_changed changed = space->index->options.row_changed;

	if (step->old_cell != KX_IVF_NO_CELL) {
		(void)kx_ivf_remove(gen->ivf, step->old_cell, step->old_row);
		gen->where[step->old_row] = 0;
		gen->cells[step->old_cell].rows--;
	}
	forget(staged, space, step->old_row);
	kx_iwatch_row(space, step->old_row);
	if (changed)
		changed(space->index->options.row_changed_ctx, space->number, step->old_row, NULL, 0, NULL, 0);
}

static void apply_new(struct kx_index_staged *staged, struct kx_istep *step)
{
	struct kx_ispace *space = step->space;
	struct kx_igen *gen = space->gen;
	const struct kx_index_change *change = step->change;
	kx_index_row_changed changed = space->index->options.row_changed;

	gen->where[step->row] = step->cell + 1;
	gen->cells[step->cell].rows++;
	forget(staged, space, step->row);
	atomic_store_explicit(&space->keys[step->row], KX_STEAL(step->memory), memory_order_release);
	/* Without memory for one more the cell is left to the store, which has it. */
	if (gen->cells[step->cell].hot && kx_ivf_append(gen->ivf, step->cell, staged->entries.data + step->entry, 1)) {
		kx_ivf_cell_cool(gen->ivf, step->cell);
		gen->cells[step->cell].hot = false;
	}
	kx_iwatch_row(space, step->row);
	if (changed)
		changed(space->index->options.row_changed_ctx, space->number, step->row, change->key, change->key_len,
			change->attributes, change->attributes_len);
}

static void note_change(struct kx_igen *gen, uint32_t cell)
{
	gen->cells[cell].changes++;
	gen->cells[cell].since++;
	gen->changes++;
	kx_icell_look(gen, cell);
}

/* What searches do not look at. */
static void account(struct kx_istep *step)
{
	struct kx_ispace *space = step->space;

	if (step->old_cell != KX_IVF_NO_CELL)
		note_change(space->gen, step->old_cell);
	if (step->old_row != KX_IVF_NO_ROW) {
		/* Room was made when the row was taken, or by whoever found it free. */
		if (!kx_ids_reserve(&space->free_rows, 1))
			space->free_rows.list[space->free_rows.count++] = step->old_row;
		atomic_fetch_sub(&space->rows, 1);
		kx_iretune_note(space, KX_IVF_NO_ROW);
	}
	if (step->row == KX_IVF_NO_ROW)
		return;
	note_change(space->gen, step->cell);
	atomic_fetch_add(&space->rows, 1);
	space->placed++;
	kx_iretune_note(space, step->row);
	space->recent_distance2 += ((double)step->distance2 - space->recent_distance2) *
				   fmax(RECENT_SHARE, 1.0 / (double)++space->measured); /* the first ones count alike */
	if (space->logging && kx_ids_add(&space->log, step->row))
		space->logging = false; /* whoever trains sees that it lost track, and gives up */
}

static void log_old(struct kx_istep *step)
{
	struct kx_ispace *space = step->space;

	if (space->logging && step->old_row != KX_IVF_NO_ROW && kx_ids_add(&space->log, step->old_row))
		space->logging = false;
}

static void apply_some(struct kx_index_staged *staged, size_t from, size_t to)
{
	struct kx_ispace *space = NULL;

	for (size_t i = from; i < to; i++) {
		struct kx_istep *step = &staged->steps[i];

		if (!step->counts)
			continue;
		if (step->space != space) {
			if (space)
				pthread_rwlock_unlock(&space->lock);
			space = step->space;
			pthread_rwlock_wrlock(&space->lock);
		}
		if (step->old_row != KX_IVF_NO_ROW)
			apply_old(staged, step);
		if (step->row != KX_IVF_NO_ROW)
			apply_new(staged, step);
	}
	if (space)
		pthread_rwlock_unlock(&space->lock);
}

void kx_index_apply(struct kx_index *index, struct kx_index_staged *staged)
{
	bool due = false;

	for (size_t i = 0; i < staged->count; i += STEPS_AT_ONCE)
		apply_some(staged, i, i + STEPS_AT_ONCE < staged->count ? i + STEPS_AT_ONCE : staged->count);
	for (size_t i = 0; i < staged->count; i++) {
		if (!staged->steps[i].counts)
			continue;
		log_old(&staged->steps[i]);
		account(&staged->steps[i]);
		if (staged->steps[i].space->maybe.count > staged->steps[i].space->maybe.room) {
			kx_iforget_keys(staged->steps[i].space);
			due = true;
		}
		due = due || staged->steps[i].space->due.count;
	}
	kx_iwriter_unlock(index);
	if (due)
		kx_iwake(index);
	kx_istaged_free(staged);
}

/* --- Group commit: the first of those that come leads, and writes for all that came ----------------------------- */

struct kx_irequest {
	struct kx_irequest *next;
	const struct kx_index_change *changes;
	size_t count;
	struct kx_error error;
	kx_status status;
	bool done;
};

static kx_status write_changes(struct kx_index *index, const struct kx_index_change *changes, size_t count,
			       struct kx_error *error)
{
	struct kx_index_staged *staged;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = KX_STEAL(index->batch);
	kx_status status;

	if (!batch && kx_kv_batch_new(index->options.kv, &batch))
		return kx_error_nomem(error);
	status = kx_index_stage(index, batch, changes, count, &staged, error);
	if (status)
		return status;
	status = kx_kv_write(index->options.kv, batch, true, error);
	if (status) {
		kx_index_drop(index, staged);
		return status;
	}
	if (count <= BATCH_KEPT)
		index->batch = KX_STEAL(batch); /* it is empty */
	kx_index_apply(index, staged);
	return KX_OK;
}

static void write_group(struct kx_index *index, struct kx_irequest *first)
{
	struct kx_index_change *all = NULL;
	struct kx_error error = {0};
	size_t count = 0;
	kx_status status;

	if (!first->next) {
		first->status = write_changes(index, first->changes, first->count, &first->error);
		return;
	}
	for (struct kx_irequest *at = first; at; at = at->next)
		count += at->count;
	all = malloc(count * sizeof(*all));
	count = 0;
	for (struct kx_irequest *at = first; all && at; at = at->next) {
		memcpy(all + count, at->changes, at->count * sizeof(*all));
		count += at->count;
	}
	status = all ? write_changes(index, all, count, &error) : kx_error_nomem(&error);
	free(all);
	for (struct kx_irequest *at = first; at; at = at->next) {
		/* One's bad vector is not the others' failure. */
		if (status == KX_EINVAL || status == KX_ENOTFOUND || status == KX_ETOOBIG) {
			at->status = write_changes(index, at->changes, at->count, &at->error);
			continue;
		}
		at->status = status;
		at->error = error;
	}
}

/* Takes those from the queue that go into one write, a list of their own. */
static struct kx_irequest *take_group(struct kx_index *index)
{
	struct kx_irequest *first = index->first, *last = first;
	size_t count = first->count;

	while (last->next && count + last->next->count <= KX_INDEX_CHANGES_MAX) {
		last = last->next;
		count += last->count;
	}
	index->first = last->next;
	if (!last->next)
		index->last = NULL;
	last->next = NULL;
	return first;
}

/* Called with queue_lock; leaves it in between. */
static void lead(struct kx_index *index)
{
	struct kx_irequest *group = take_group(index);

	index->leading = true;
	pthread_mutex_unlock(&index->queue_lock);
	write_group(index, group);
	pthread_mutex_lock(&index->queue_lock);
	for (struct kx_irequest *next; group; group = next) {
		next = group->next; /* done, it is its owner's again */
		group->done = true;
	}
	index->leading = false;
	pthread_cond_broadcast(&index->queue_moved);
}

kx_status kx_index_commit(struct kx_index *index, const struct kx_index_change *changes, size_t count,
			  struct kx_error *error)
{
	struct kx_irequest request = {.changes = changes, .count = count};

	if (!count)
		return kx_ineed_writer(index, error);
	pthread_mutex_lock(&index->queue_lock);
	if (index->last)
		index->last->next = &request;
	else
		index->first = &request;
	index->last = &request;
	while (!request.done) {
		if (index->leading)
			pthread_cond_wait(&index->queue_moved, &index->queue_lock);
		else
			lead(index);
	}
	pthread_mutex_unlock(&index->queue_lock);
	if (request.status && error)
		*error = request.error;
	return request.status;
}
