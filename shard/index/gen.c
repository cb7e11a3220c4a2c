/* A generation of centroids in memory, and its centroids in the store. */
#include <stdlib.h>
#include <string.h>

#include "shard/index/internal.h"

#define WHERE_BYTES ((size_t)KX_INDEX_ROWS_MAX * sizeof(uint32_t))

kx_status kx_igen_new(struct kx_ispace *space, uint32_t number, struct kx_igen **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_igen_cleanup) struct kx_igen *gen = calloc(1, sizeof(*gen));
	struct kx_ivf_options options = {.recipe = space->record.recipe, .load = kx_icell_load, .load_ctx = gen};
	kx_status status;

	if (!gen)
		return kx_error_nomem(error);
	gen->space = space;
	gen->number = number;
	gen->where = kx_reserve(WHERE_BYTES);
	if (!gen->where)
		return kx_error_nomem(error);
	status = kx_ivf_new(&options, &gen->ivf, error);
	if (status)
		return status;
	if (space->vectors.map)
		kx_ivf_set_vectors(gen->ivf, kx_ivectors_base(&space->vectors), space->vectors.stride);
	*ret = KX_STEAL(gen);
	return KX_OK;
}

void kx_igen_free(struct kx_igen *gen)
{
	if (!gen)
		return;
	kx_ivf_free(gen->ivf);
	kx_unreserve(gen->where, WHERE_BYTES);
	free(gen->cells);
	free(gen);
}

void kx_igen_cleanup(struct kx_igen **gen)
{
	kx_igen_free(*gen);
}

static kx_status cells_reserve(struct kx_igen *gen, uint32_t bound)
{
	uint32_t cap = gen->cap ? gen->cap : 64;
	struct kx_icell *cells;

	while (cap < bound)
		cap *= 2;
	if (cap == gen->cap)
		return KX_OK;
	cells = realloc(gen->cells, cap * sizeof(*cells));
	if (!cells)
		return KX_ENOMEM;
	memset(cells + gen->cap, 0, (cap - gen->cap) * sizeof(*cells));
	gen->cells = cells;
	gen->cap = cap;
	return KX_OK;
}

kx_status kx_igen_add(struct kx_igen *gen, uint32_t cell, const float *centroid, bool cold)
{
	kx_status status = cells_reserve(gen, cell + 1);

	if (!status)
		status = kx_ivf_cell_add(gen->ivf, cell, centroid, cold);
	if (status)
		return status;
	gen->cells[cell] = (struct kx_icell){.present = true, .hot = !cold, .seen = !cold};
	gen->bound = cell >= gen->bound ? cell + 1 : gen->bound;
	gen->present++;
	gen->unseen += cold;
	return KX_OK;
}

void kx_igen_remove(struct kx_igen *gen, uint32_t cell)
{
	struct kx_icell *at = &gen->cells[cell];

	kx_ivf_cell_remove(gen->ivf, cell);
	gen->present--;
	gen->unseen -= !at->seen;
	gen->changes -= at->changes;
	*at = (struct kx_icell){.due = at->due};
}

uint32_t kx_igen_free_id(const struct kx_igen *gen, uint32_t other_than)
{
	uint32_t id = 0;

	if (gen->present == gen->bound)
		return gen->bound + (gen->bound == other_than);
	while ((id < gen->bound && gen->cells[id].present) || id == other_than)
		id++;
	return id;
}

static kx_status load_chunk(struct kx_igen *gen, uint32_t chunk, const struct kx_chunk_view *view)
{
	const uint32_t dim = gen->space->record.recipe.dim;
	float centroid[KX_IVF_DIM_MAX];
	const uint8_t *from = view->floats;

	for (uint32_t i = 0; i < KX_CHUNK_CELLS; i++) {
		kx_status status;

		if (!(view->mask >> i & 1u))
			continue;
		memcpy(centroid, from, dim * sizeof(float));
		from += dim * sizeof(float);
		status = kx_igen_add(gen, chunk * KX_CHUNK_CELLS + i, centroid, true);
		if (status)
			return status;
	}
	return KX_OK;
}

static kx_status load_next(struct kx_igen *gen, struct kx_kv_iter *iter, struct kx_error *error)
{
	uint32_t space, number, chunk;
	struct kx_chunk_view view;
	size_t key_len, len;
	const void *key = kx_kv_iter_key(iter, &key_len);
	const void *value = kx_kv_iter_value(iter, &len);
	kx_status status;

	if (!kx_ikey_parse_cell(key, key_len, &space, &number, &chunk) ||
	    chunk >= KX_INDEX_ROWS_MAX / KX_CHUNK_CELLS)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "a key among the centroids is none");
	status = kx_chunk_decode(key, key_len, value, len, gen->space->record.recipe.dim, &view, error);
	if (status)
		return status;
	status = load_chunk(gen, chunk, &view);
	return status ? kx_error_set(error, status, KX_ERROR_FATAL, "centroids: %s", kx_status_name(status)) : KX_OK;
}

kx_status kx_igen_load(struct kx_igen *gen, struct kx_error *error)
{
	struct kx_index *index = gen->space->index;
	struct kx_ikey prefix = kx_ikey_generation(gen->space->number, gen->number);
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	kx_status status = kx_kv_iter_new(index->options.kv, kx_ifamily(index, KX_INDEX_CENTROIDS), prefix.bytes,
					  prefix.len, &iter);

	if (status)
		return kx_error_nomem(error);
	for (; !status && kx_kv_iter_valid(iter); kx_kv_iter_next(iter))
		status = load_next(gen, iter, error);
	if (!status)
		status = kx_kv_iter_error(iter, error);
	if (!status && !gen->present)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "generation %u has no centroids", gen->number);
	if (!status && kx_ivf_cells_ready_soon(gen->ivf)) /* care does the rest */
		return kx_error_nomem(error);
	return status;
}

static const float *centroid_after(const struct kx_igen *gen, uint32_t cell, const struct kx_icentroid *changes,
				   size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (changes[i].cell == cell)
			return changes[i].centroid;
	return kx_ivf_cell_centroid(gen->ivf, cell);
}

static kx_status put_chunk(const struct kx_igen *gen, struct kx_kv_batch *batch, uint32_t chunk,
			   const struct kx_icentroid *changes, size_t count, struct kx_error *error)
{
	struct kx_ispace *space = gen->space;
	struct kx_ikey key = kx_ikey_cell(space->number, gen->number, chunk);
	const float *centroids[KX_CHUNK_CELLS];
	struct kx_buf value = {.max = KX_INDEX_VALUE_MAX};
	uint32_t mask = 0;
	kx_status status = KX_OK;

	for (uint32_t i = 0; i < KX_CHUNK_CELLS; i++) {
		centroids[i] = centroid_after(gen, chunk * KX_CHUNK_CELLS + i, changes, count);
		mask |= (uint32_t)(centroids[i] != NULL) << i;
	}
	if (!mask) {
		kx_idelete(space->index, batch, KX_INDEX_CENTROIDS, key);
		return KX_OK;
	}
	status = kx_chunk_encode(key.bytes, key.len, mask, centroids, space->record.recipe.dim, &value);
	if (!status)
		kx_iput(space->index, batch, KX_INDEX_CENTROIDS, key, value.data, value.len);
	kx_buf_done(&value);
	return status ? kx_error_nomem(error) : KX_OK;
}

kx_status kx_igen_put_centroids(const struct kx_igen *gen, struct kx_kv_batch *batch, const struct kx_icentroid *changes,
				size_t count, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (size_t i = 0; !status && i < count; i++) {
		bool done = false;

		for (size_t j = 0; j < i; j++)
			done = done || changes[j].cell / KX_CHUNK_CELLS == changes[i].cell / KX_CHUNK_CELLS;
		if (!done)
			status = put_chunk(gen, batch, changes[i].cell / KX_CHUNK_CELLS, changes, count, error);
	}
	return status;
}

/* Whether the first key of a family with this prefix is there and of another generation. */
static bool has_other(struct kx_ispace *space, enum kx_index_family family, struct kx_ikey prefix, uint32_t keep)
{
	struct kx_index *index = space->index;
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	struct kx_ikey kept = kx_ikey_generation(space->number, keep);
	const void *key;
	size_t len;

	if (kx_kv_iter_new(index->options.kv, kx_ifamily(index, family), prefix.bytes, prefix.len, &iter))
		return true;
	if (!kx_kv_iter_valid(iter))
		return false;
	key = kx_kv_iter_key(iter, &len);
	return len < kept.len || memcmp(key, kept.bytes, kept.len) != 0;
}

static bool has_others(struct kx_ispace *space, uint32_t keep)
{
	static const enum kx_index_family families[] = {KX_INDEX_CELLS, KX_INDEX_DELTA, KX_INDEX_CENTROIDS};

	for (size_t i = 0; i < KX_ARRAY_LEN(families); i++)
		if (has_other(space, families[i], kx_ikey_space(space->number), keep) ||
		    has_other(space, families[i], kx_ikey_generation(space->number, keep + 1), keep))
			return true;
	return false;
}

static void sweep_family(struct kx_ispace *space, enum kx_index_family family, uint32_t keep,
			      struct kx_kv_batch *batch)
{
	struct kx_index *index = space->index;
	struct kx_ikey first = kx_ikey_space(space->number), from = kx_ikey_generation(space->number, keep);
	struct kx_ikey after = kx_ikey_generation(space->number, keep + 1), end = kx_ikey_space(space->number + 1);

	kx_kv_batch_delete_range(batch, kx_ifamily(index, family), first.bytes, first.len, from.bytes, from.len);
	kx_kv_batch_delete_range(batch, kx_ifamily(index, family), after.bytes, after.len, end.bytes, end.len);
}

kx_status kx_igen_sweep(struct kx_ispace *space, uint32_t keep, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;

	if (!has_others(space, keep))
		return KX_OK;
	if (kx_kv_batch_new(space->index->options.kv, &batch))
		return kx_error_nomem(error);
	sweep_family(space, KX_INDEX_CELLS, keep, batch);
	sweep_family(space, KX_INDEX_DELTA, keep, batch);
	sweep_family(space, KX_INDEX_CENTROIDS, keep, batch);
	return kx_kv_write(space->index->options.kv, batch, false, error);
}
