/* What tests/bench/kx_bench_ann.c measures, behind one door: an engine that holds the vectors of a set. A vector has an
 * id, its number in the set; ids beyond the set are of what was inserted. */
#ifndef KX_TESTS_BENCH_KX_BENCH_ANN_H
#define KX_TESTS_BENCH_KX_BENCH_ANN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "shard/ann/ivf.h"

#define BENCH_K 10u
#define BENCH_MANY 10000u /* queries in one call, at most */
#define BENCH_NO_ID (-1)

/* A file of rows (fbin, ibin): mapped. */
struct bench_rows {
	int32_t count;
	int32_t dim;
	const void *data; /* float or int32_t [count][dim] */
	void *map;
	size_t map_bytes;
};
kx_status bench_rows_map(const char *path, struct bench_rows *ret, struct kx_error *error) KX_MUST_CHECK;
void bench_rows_unmap(struct bench_rows *rows);

static inline const float *bench_row(const struct bench_rows *rows, size_t i)
{
	return (const float *)rows->data + i * (size_t)rows->dim;
}

struct bench_set {
	struct bench_rows base;
	struct bench_rows queries;
	struct bench_rows attributes; /* class, a, b */
	const char *dir;              /* the engine's own */
};

struct bench_work {
	uint64_t cells;
	uint64_t codes;
	uint64_t refined;
};

/* What one thread searches with. */
struct bench_search {
	double recall;
	const void *filter; /* of filter_new, or NULL */
	void *scratch;      /* of scratch_new */
};

struct bench_engine;

struct bench_ops {
	/* cells: 0 for the engine's own choice. */
	kx_status (*build)(const struct bench_set *set, uint32_t cells, struct kx_error *error);
	/* more: vectors that may be inserted. */
	kx_status (*open)(const struct bench_set *set, uint32_t more, struct bench_engine **ret, struct kx_error *error);
	void (*close)(struct bench_engine *engine);
	kx_status (*scratch_new)(struct bench_engine *engine, void **ret);
	void (*scratch_free)(void *scratch);
	/* bits: bit id % 64 of word id / 64; of the set's vectors. */
	kx_status (*filter_new)(struct bench_engine *engine, const uint64_t *bits, void **ret, struct kx_error *error);
	void (*filter_free)(void *filter);
	kx_status (*search)(struct bench_engine *engine, const struct bench_search *how, const float *vector,
			    int32_t ret_ids[BENCH_K], struct bench_work *work, struct kx_error *error);
	/* n queries in one call: vectors [n][dim]; filters: [n], in place of the one of `how`. ret_ids: [n][BENCH_K]. */
	kx_status (*search_many)(struct bench_engine *engine, const struct bench_search *how, const float *vectors,
				 const void *const *filters, size_t n, int32_t *ret_ids, struct bench_work *work,
				 struct kx_error *error);
	/* Durable when the engine is. May run beside searches. */
	kx_status (*insert)(struct bench_engine *engine, uint32_t first, const float *vectors, size_t count,
			    struct kx_error *error);
	kx_status (*remove)(struct bench_engine *engine, const int32_t *ids, size_t count, struct kx_error *error);
	uint64_t (*hot_bytes)(struct bench_engine *engine);
	/* Does what is due, until nothing is. */
	kx_status (*maintain)(struct bench_engine *engine, struct kx_error *error);
};

extern const struct bench_ops bench_ivf_ops;
extern const struct bench_ops bench_index_ops;

#endif
