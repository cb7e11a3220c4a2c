/* The durable index (shard/index/index.h) over a store of its own. A vector's key is its id, 4 bytes, little-endian. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/macros.h"
#include "common/kv/kv.h"
#include "shard/index/index.h"
#include "tests/bench/kx_bench_ann.h"

#define SPACE "bench"
#define CACHE_BYTES (64u << 20)

struct bench_engine {
	struct kx_kv *kv;
	struct kx_index *index;
	uint32_t space;
	uint32_t dim;
};

static kx_status open_store(const struct bench_set *set, struct bench_engine *engine, struct kx_error *error)
{
	struct kx_kv_options store = {.families = kx_index_families, .family_count = KX_INDEX_FAMILIES, .create = true,
				      .cache_bytes = CACHE_BYTES};
	struct kx_index_options options = {0};
	char path[4096];
	kx_status status;

	(void)snprintf(path, sizeof(path), "%s/store", set->dir);
	status = kx_kv_open(path, &store, &engine->kv, error);
	if (status)
		return status;
	(void)snprintf(path, sizeof(path), "%s/files", set->dir);
	options.kv = engine->kv;
	options.dir = path;
	options.recall_share = -1.0; /* checks of live queries would be timed as queries */
	status = kx_index_open(&options, &engine->index, error);
	engine->dim = (uint32_t)set->base.dim;
	return status ? status : kx_index_space(engine->index, SPACE, engine->dim, KX_METRIC_COSINE, &engine->space, error);
}

static void close_engine(struct bench_engine *engine)
{
	kx_index_close(engine->index);
	kx_kv_close(engine->kv);
	free(engine);
}

static kx_status open_engine(const struct bench_set *set, uint32_t more, struct bench_engine **ret, struct kx_error *error)
{
	struct bench_engine *engine = calloc(1, sizeof(*engine));
	kx_status status;

	(void)more;
	if (!engine)
		return KX_ENOMEM;
	status = open_store(set, engine, error);
	if (status) {
		close_engine(engine);
		return status;
	}
	*ret = engine;
	return KX_OK;
}

struct builder {
	const struct bench_set *set;
	uint32_t key;
};

static void row_of(void *ctx, size_t i, struct kx_index_change *ret)
{
	struct builder *builder = ctx;

	builder->key = (uint32_t)i;
	ret->key = &builder->key;
	ret->key_len = sizeof(builder->key);
	ret->attributes = (const int32_t *)builder->set->attributes.data + i * (size_t)builder->set->attributes.dim;
	ret->attributes_len = (size_t)builder->set->attributes.dim * sizeof(int32_t);
}

static kx_status build(const struct bench_set *set, uint32_t cells, struct kx_error *error)
{
	struct builder builder = {.set = set};
	struct bench_engine *engine = NULL;
	struct kx_index_build all = {.count = (size_t)set->base.count, .vectors = bench_row(&set->base, 0), .row = row_of,
				     .row_ctx = &builder};
	kx_status status = open_engine(set, 0, &engine, error);

	(void)cells;
	if (status)
		return status;
	all.space = engine->space;
	status = kx_index_build(engine->index, &all, error); /* and tunes: kx_index_tune() would train once more */
	if (!status)
		status = kx_kv_flush(engine->kv, error);
	close_engine(engine);
	return status;
}

/* What is found, by one query or by several in one call. */
struct found {
	struct kx_index_hits one;
	struct kx_index_hits *many;
	struct kx_index_query *queries;
	size_t room;
};

static kx_status scratch_new(struct bench_engine *engine, void **ret)
{
	(void)engine;
	*ret = calloc(1, sizeof(struct found));
	return *ret ? KX_OK : KX_ENOMEM;
}

static void found_drop_many(struct found *found)
{
	for (size_t i = 0; i < found->room; i++)
		kx_index_hits_done(&found->many[i]);
	free(found->many);
	free(found->queries);
	found->many = NULL;
	found->queries = NULL;
	found->room = 0;
}

static void scratch_free(void *scratch)
{
	struct found *found = scratch;

	if (!found)
		return;
	kx_index_hits_done(&found->one);
	found_drop_many(found);
	free(found);
}

static kx_status found_reserve(struct found *found, size_t n)
{
	if (n <= found->room)
		return KX_OK;
	found_drop_many(found);
	found->many = calloc(n, sizeof(*found->many));
	found->queries = calloc(n, sizeof(*found->queries));
	found->room = found->many ? n : 0;
	return found->many && found->queries ? KX_OK : KX_ENOMEM;
}

/* Bits over ids, and the same over rows. */
struct renumber {
	const uint64_t *ids;
	uint64_t *rows;
};

static kx_status visit(void *ctx, uint32_t row, const void *key, size_t key_len, const void *attributes,
		       size_t attributes_len, struct kx_error *error)
{
	struct renumber *renumber = ctx;
	uint32_t id;

	(void)attributes;
	(void)attributes_len;
	if (key_len != sizeof(id))
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "a key of %zu bytes", key_len);
	memcpy(&id, key, sizeof(id));
	if (renumber->ids[id / 64] >> id % 64 & 1)
		renumber->rows[row / 64] |= UINT64_C(1) << row % 64;
	return KX_OK;
}

static kx_status filter_new(struct bench_engine *engine, const uint64_t *bits, void **ret, struct kx_error *error)
{
	struct kx_index_space_info info;
	struct kx_index_filter *filter = NULL;
	struct renumber renumber = {.ids = bits};
	kx_status status = kx_index_space_info(engine->index, engine->space, &info, error);

	if (status)
		return status;
	renumber.rows = calloc(info.rows_bound / 64 + 1, sizeof(*renumber.rows));
	if (!renumber.rows)
		return KX_ENOMEM;
	status = kx_index_each(engine->index, engine->space, visit, &renumber, error);
	if (!status)
		status = kx_index_filter_new(engine->index, engine->space, renumber.rows, info.rows_bound, &filter, error);
	free(renumber.rows);
	*ret = filter;
	return status;
}

static void filter_free(void *filter)
{
	kx_index_filter_free(filter);
}

static struct kx_index_query query_of(const struct bench_engine *engine, const struct bench_search *how, const float *vector,
				      const void *filter)
{
	/* The filter is the caller's, and searches only read it. */
	return (struct kx_index_query){.vector = vector, .dim = engine->dim, .k = BENCH_K, .recall = how->recall, .filter = filter};
}

static void take_hits(const struct kx_index_hits *hits, int32_t ret_ids[BENCH_K], struct bench_work *work)
{
	for (uint32_t i = 0; i < BENCH_K; i++) {
		ret_ids[i] = BENCH_NO_ID;
		if (i < hits->count)
			memcpy(&ret_ids[i], hits->list[i].key, sizeof(ret_ids[i]));
	}
	work->cells += hits->work.cells;
	work->codes += hits->work.codes;
	work->refined += hits->work.refined;
}

static kx_status search(struct bench_engine *engine, const struct bench_search *how, const float *vector,
			int32_t ret_ids[BENCH_K], struct bench_work *work, struct kx_error *error)
{
	const struct kx_index_query query = query_of(engine, how, vector, how->filter);
	struct found *found = how->scratch;
	kx_status status = kx_index_search(engine->index, engine->space, &query, &found->one, error);

	if (!status)
		take_hits(&found->one, ret_ids, work);
	return status;
}

static kx_status search_many(struct bench_engine *engine, const struct bench_search *how, const float *vectors,
			     const void *const *filters, size_t n, int32_t *ret_ids, struct bench_work *work,
			     struct kx_error *error)
{
	struct found *found = how->scratch;
	kx_status status = found_reserve(found, n);

	for (size_t i = 0; i < n && !status; i++)
		found->queries[i] = query_of(engine, how, vectors + i * engine->dim, filters[i]);
	if (!status)
		status = kx_index_search_many(engine->index, engine->space, found->queries, n, found->many, error);
	for (size_t i = 0; i < n && !status; i++)
		take_hits(&found->many[i], ret_ids + i * BENCH_K, work);
	return status;
}

static kx_status commit(struct bench_engine *engine, const uint32_t *keys, const float *vectors, size_t count,
			struct kx_error *error)
{
	static const int32_t none[3] = {-1, -1, -1};
	struct kx_index_change *changes = calloc(count, sizeof(*changes));
	kx_status status;

	if (!changes)
		return KX_ENOMEM;
	for (size_t i = 0; i < count; i++)
		changes[i] = (struct kx_index_change){
			.space = engine->space, .key = &keys[i], .key_len = sizeof(keys[i]), .dim = engine->dim,
			.vector = vectors ? vectors + i * engine->dim : NULL, .attributes = none,
			.attributes_len = sizeof(none),
		};
	status = kx_index_commit(engine->index, changes, count, error);
	free(changes);
	return status;
}

static kx_status insert(struct bench_engine *engine, uint32_t first, const float *vectors, size_t count,
			struct kx_error *error)
{
	uint32_t *keys = calloc(count, sizeof(*keys));
	kx_status status = keys ? KX_OK : KX_ENOMEM;

	for (size_t i = 0; i < count && !status; i++)
		keys[i] = first + (uint32_t)i;
	if (!status)
		status = commit(engine, keys, vectors, count, error);
	free(keys);
	return status;
}

static kx_status remove_ids(struct bench_engine *engine, const int32_t *ids, size_t count, struct kx_error *error)
{
	return commit(engine, (const uint32_t *)ids, NULL, count, error);
}

static uint64_t hot_bytes(struct bench_engine *engine)
{
	struct kx_index_stats stats = {0};

	return kx_index_stats(engine->index, engine->space, &stats, NULL) ? 0 : stats.hot_bytes;
}

static kx_status maintain(struct bench_engine *engine, struct kx_error *error)
{
	uint32_t steps = 100, done = steps;
	kx_status status = KX_OK;

	while (done == steps && !status)
		status = kx_index_maintain(engine->index, steps, &done, error);
	return status;
}

const struct bench_ops bench_index_ops = {
	build, open_engine, close_engine, scratch_new, scratch_free, filter_new,
	filter_free, search, search_many, insert, remove_ids, hot_bytes, maintain,
};
