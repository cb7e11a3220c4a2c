/* Folding: a cell's record is written anew with its changes in it, and they go, in one batch. The batch needs no sync of
 * its own: lost, the changes are still there; and the log keeps its order, so nothing later survives without it. */
#include <stdlib.h>

#include "shard/index/internal.h"

static kx_status fold_one(struct kx_igen *gen, uint32_t cell, struct kx_kv_batch *batch, struct kx_error *error)
{
	struct kx_buf entries = {.max = KX_INDEX_VALUE_MAX}, record = {.max = KX_INDEX_VALUE_MAX};
	kx_status status = kx_icell_entries(gen, cell, &entries, error);

	if (!status && kx_icell_encode_record(gen, cell, entries.data, (uint32_t)(entries.len / gen->space->entry_bytes),
					      &record))
		status = kx_error_nomem(error);
	if (!status)
		status = kx_icell_drop_changes(gen, cell, batch, error);
	if (!status)
		kx_icell_put_record(gen, cell, batch, &record);
	kx_buf_done(&entries);
	kx_buf_done(&record);
	return status;
}

static kx_status fold_locked(struct kx_ispace *space, const uint32_t *cells, uint32_t count, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	struct kx_igen *gen = space->gen;
	kx_status status = kx_ivectors_sync(&space->vectors, error);

	if (!status && kx_kv_batch_new(space->index->options.kv, &batch))
		status = kx_error_nomem(error);
	for (uint32_t i = 0; !status && i < count; i++)
		if (cells[i] < gen->bound && gen->cells[cells[i]].present)
			status = fold_one(gen, cells[i], batch, error);
	if (!status)
		status = kx_kv_write(space->index->options.kv, batch, false, error);
	if (status)
		return status;
	for (uint32_t i = 0; i < count; i++) {
		if (cells[i] >= gen->bound || !gen->cells[cells[i]].present)
			continue;
		gen->changes -= gen->cells[cells[i]].changes;
		gen->cells[cells[i]].changes = 0;
		space->folds++;
	}
	return KX_OK;
}

kx_status kx_ifold(struct kx_ispace *space, const uint32_t *cells, uint32_t count, struct kx_error *error)
{
	/* Most of it here, where nobody waits; what came since under the lock. */
	kx_status status = kx_ivectors_sync(&space->vectors, error);

	if (status)
		return status;
	kx_iwriter_lock(space->index);
	status = kx_ibroken(space, error);
	if (!status)
		status = fold_locked(space, cells, count, error);
	kx_iwriter_unlock(space->index);
	return status;
}
