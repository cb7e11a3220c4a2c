/* A store of made-up videos, through what the shard does with results, and its index. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/learn/learn.h"
#include "shard/query/mirror.h"
#include "shard/run/index.h"
#include "shard/store/store.h"
#include "tests/bench/bench_serve.h"

#define APPLY_AT_ONCE 500u
#define MAINTAIN_AT_ONCE 64u

/* As what a model gives travels: a byte an element, the greatest one at the end of the range. */
static void quantize(const float *values, uint32_t dim, uint8_t *ret_codes, float *ret_lo, float *ret_step)
{
	float most = 0.0f;

	for (uint32_t i = 0; i < dim; i++)
		most = fmaxf(most, fabsf(values[i]));
	*ret_lo = -most;
	*ret_step = 2.0f * most / 255.0f;
	for (uint32_t i = 0; i < dim; i++)
		ret_codes[i] = (uint8_t)lroundf((values[i] + most) / *ret_step);
}

/* One picture moment, of ten seconds. */
static void put_moment(struct kx_store_batch *batch, struct kx_result *result, const float *values, uint32_t dim)
{
	static uint8_t features[KX_DIM_MAX];
	static int8_t embedding[KX_DIM_MAX];
	struct kx_error error = {0};
	uint64_t pts = 0;
	float lo, step;

	quantize(values, dim, features, &lo, &step);
	result->kind = KX_RESULT_MOMENT;
	result->moment = (struct kx_moment){.modality = KX_VISUAL, .space = (char *)(uintptr_t)KX_BENCH_SPACE, .count = 1,
					    .dim = dim, .pts_us = &pts, .features = features, .lo = &lo, .step = &step,
					    .embedding = embedding};
	kx_bench_need(kx_learn_embed_moment(features, &lo, &step, 1, dim, embedding, &result->moment.embedding_scale), &error);
	kx_bench_need(kx_store_apply(batch, result, &error), &error);
}

static void put_video(struct kx_store_batch *batch, uint64_t number, const float *values, uint32_t dim)
{
	struct kx_error error = {0};
	char id[32];
	struct kx_result result = {.video_id = id, .generation = 1, .kind = KX_RESULT_PLAN, .parts = 1};

	snprintf(id, sizeof(id), KX_BENCH_ID, (unsigned long long)number);
	result.info = (struct kx_video_info){.title = id, .source = (char *)(uintptr_t)"/made", .run_id = id};
	result.info.content_sha256[0] = result.info.recipe_sha256[0] = 1;
	kx_bench_need(kx_store_apply(batch, &result, &error), &error);
	put_moment(batch, &result, values, dim);
	result.kind = KX_RESULT_PART_END;
	result.part_end = (struct kx_part_end){.parts = 1, .tracks = KX_TRACK_VISUAL | KX_TRACK_AUDIO, .frames = 1,
					       .visual_us = 10000000, .has_visual = true, .decode_mode = KX_DECODE_EXACT,
					       .moment_us = 10000000};
	result.part_end.recipe_sha256[0] = 1;
	kx_bench_need(kx_store_apply(batch, &result, &error), &error);
}

static void put_videos(struct kx_store *store, uint64_t videos, uint32_t dim)
{
	static float values[KX_DIM_MAX];
	struct kx_bench_draw draw;
	struct kx_error error = {0};

	kx_bench_draw_init(&draw, dim);
	for (uint64_t i = 0; i < videos;) {
		struct kx_store_batch *batch = NULL;

		kx_bench_need(kx_store_batch_new(store, kx_clock_wall_ms(), &batch, &error), &error);
		for (unsigned j = 0; j < APPLY_AT_ONCE && i < videos; j++) {
			kx_bench_draw_row(&draw, i, values);
			put_video(batch, i++, values, dim);
		}
		kx_bench_need(kx_store_commit(batch, &error), &error);
		kx_store_batch_free(batch);
	}
	kx_bench_draw_done(&draw);
}

/* Loading a mirror fills an index that lacks what is stored. */
static void fill_index(struct kx_store *store, const char *dir)
{
	struct kx_index *index = NULL;
	struct kx_mirror *mirror = NULL;
	struct kx_error error = {0};
	uint32_t done = MAINTAIN_AT_ONCE;

	kx_bench_need(kx_shard_index_open(store, dir, false, true, 0, &index, &error), &error);
	kx_bench_need(kx_mirror_new(&mirror), &error);
	kx_bench_need(kx_mirror_use_index(mirror, index, store, false), &error);
	kx_bench_need(kx_mirror_load(mirror, store, &error), &error);
	while (done == MAINTAIN_AT_ONCE)
		kx_bench_need(kx_index_maintain(index, MAINTAIN_AT_ONCE, &done, &error), &error);
	kx_mirror_free(mirror);
	kx_index_close(index);
}

void kx_bench_make_store(const char *dir, uint64_t videos, uint32_t dim)
{
	struct kx_store *store = NULL;
	struct kx_error error = {0};

	kx_bench_need(kx_fs_mkdirs(dir, &error), &error);
	kx_bench_need(kx_shard_store_open(dir, false, &store, &error), &error);
	put_videos(store, videos, dim);
	fill_index(store, dir);
	kx_store_close(store);
}
