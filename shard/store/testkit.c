#include "shard/store/testkit.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/base/hash.h"
#include "common/base/str.h"
#include "common/base/testkit.h"
#include "common/learn/learn.h"

#define NOW_MS 1700000000000u

/* A test that can't go on. Unlike assert() it stays in every build. */
static void need(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "testkit: %s\n", what);
	abort();
}

static void push(struct kx_kit_stream *stream, const struct kx_result *result)
{
	struct kx_buf *message = &stream->messages[stream->count++];

	need(stream->count <= KX_KIT_MESSAGES_MAX, "too many messages");
	*message = (struct kx_buf){.max = KX_RECORD_MAX};
	need(!kx_result_pack(result, message), "packing a result");
}

static struct kx_video_info info_of(const struct kx_kit_video *video)
{
	struct kx_video_info info = {
		.title = (char *)"a title", .source = (char *)"/clips/a", .run_id = (char *)"run-1", .duration_us = 60000000};

	memcpy(info.content_sha256, &video->content, sizeof(video->content));
	info.content_sha256[31] = 1;
	info.recipe_sha256[0] = video->recipe ? video->recipe : 1;
	return info;
}

static uint64_t moment_us_of(const struct kx_kit_video *video)
{
	return video->moment_us ? video->moment_us : KX_KIT_MOMENT_US;
}

static void push_moment(struct kx_kit_stream *stream, const struct kx_kit_video *video, enum kx_modality modality,
			uint32_t index, uint64_t time_error_us)
{
	uint64_t random = (video->content + 1) * 0x9e3779b97f4a7c15u + modality * 7919u + index * 104729u + 1;
	uint32_t dim = modality == KX_VISUAL ? KX_KIT_VISUAL_DIM : KX_KIT_AUDIO_DIM;
	uint8_t features[KX_KIT_ROWS * KX_KIT_VISUAL_DIM];
	float lo[KX_KIT_ROWS], step[KX_KIT_ROWS];
	uint64_t pts[KX_KIT_ROWS];
	uint32_t ids[3];
	float scores[3];
	int8_t embedding[KX_KIT_VISUAL_DIM];
	struct kx_result result = {.video_id = (char *)(uintptr_t)video->id, .generation = video->generation,
				   .kind = KX_RESULT_MOMENT};

	for (uint32_t i = 0; i < KX_KIT_ROWS * dim; i++)
		features[i] = (uint8_t)(kx_test_random(&random) >> 32);
	for (uint32_t i = 0; i < KX_KIT_ROWS; i++) {
		pts[i] = index * moment_us_of(video) + i * moment_us_of(video) / KX_KIT_ROWS;
		lo[i] = -1.0f;
		step[i] = 2.0f / 255.0f;
	}
	for (uint32_t i = 0; i < 3; i++) {
		ids[i] = i * 40 + (uint32_t)(kx_test_random(&random) % 40);
		scores[i] = 0.9f - 0.25f * (float)i;
	}
	result.moment = (struct kx_moment){.modality = modality,
					   .index = index,
					   .space = (char *)(modality == KX_VISUAL ? KX_KIT_VISUAL_SPACE : KX_KIT_AUDIO_SPACE),
					   .count = KX_KIT_ROWS,
					   .dim = dim,
					   .pts_us = pts,
					   .features = features,
					   .lo = lo,
					   .step = step,
					   .class_count = 3,
					   .class_ids = ids,
					   .class_scores = scores,
					   .embedding = embedding,
					   .max_time_error_us = time_error_us};
	need(!kx_learn_embed_moment(features, lo, step, KX_KIT_ROWS, dim, embedding, &result.moment.embedding_scale),
	     "embedding");
	push(stream, &result);
}

static void push_part(struct kx_kit_stream *stream, const struct kx_kit_video *video, uint32_t part)
{
	uint32_t from = video->visual_moments * part / video->parts, to = video->visual_moments * (part + 1) / video->parts;
	uint32_t audio = part == 0 ? video->audio_moments : 0;
	uint64_t time_error_us = to > from || audio ? 100 + part : 0;
	struct kx_result end = {.video_id = (char *)(uintptr_t)video->id, .generation = video->generation,
				.kind = KX_RESULT_PART_END};

	for (uint32_t i = from; i < to; i++)
		push_moment(stream, video, KX_VISUAL, i, time_error_us);
	for (uint32_t i = 0; i < audio; i++)
		push_moment(stream, video, KX_AUDIO, i, time_error_us);
	end.part_end = (struct kx_part_end){.part = part,
					    .parts = video->parts,
					    .tracks = part == 0 ? KX_TRACK_VISUAL | KX_TRACK_AUDIO : KX_TRACK_VISUAL,
					    .frames = (to - from) * KX_KIT_ROWS,
					    .patches = audio * KX_KIT_ROWS,
					    .visual_us = (to - from) * moment_us_of(video),
					    .audio_us = audio * moment_us_of(video),
					    .has_visual = to > from,
					    .has_audio = audio > 0,
					    .decode_mode = KX_DECODE_EXACT,
					    .max_time_error_us = time_error_us,
					    .moment_us = moment_us_of(video)};
	end.part_end.recipe_sha256[0] = video->recipe ? video->recipe : 1;
	push(stream, &end);
}

void kx_kit_stream_add(struct kx_kit_stream *stream, const struct kx_kit_video *video)
{
	struct kx_result plan = {.video_id = (char *)(uintptr_t)video->id,
				 .generation = video->generation,
				 .kind = KX_RESULT_PLAN,
				 .parts = video->parts,
				 .info = info_of(video)};

	push(stream, &plan);
	for (uint32_t part = 0; part < video->parts; part++)
		push_part(stream, video, part);
}

void kx_kit_stream_delete(struct kx_kit_stream *stream, const char *id, uint64_t generation)
{
	struct kx_result result = {
		.video_id = (char *)(uintptr_t)id, .generation = generation, .kind = KX_RESULT_DELETE};

	push(stream, &result);
}

void kx_kit_stream_copy(struct kx_kit_stream *stream, const struct kx_kit_video *copy, const char *from)
{
	struct kx_result result = {.video_id = (char *)(uintptr_t)copy->id,
				   .generation = copy->generation,
				   .kind = KX_RESULT_COPY,
				   .info = info_of(copy),
				   .copy_from = (char *)(uintptr_t)from};

	push(stream, &result);
}

void kx_kit_stream_done(struct kx_kit_stream *stream)
{
	for (size_t i = 0; i < stream->count; i++)
		kx_buf_done(&stream->messages[i]);
	stream->count = 0;
}

void kx_kit_stream_shuffle(struct kx_kit_stream *stream, uint64_t *random)
{
	for (size_t i = stream->count; i > 1; i--) {
		size_t j = kx_test_random(random) % i;
		struct kx_buf swap = stream->messages[i - 1];

		stream->messages[i - 1] = stream->messages[j];
		stream->messages[j] = swap;
	}
}

void kx_kit_stream_repeat(struct kx_kit_stream *stream, size_t times, uint64_t *random)
{
	for (size_t i = 0; i < times; i++) {
		const struct kx_buf *from = &stream->messages[kx_test_random(random) % stream->count];
		struct kx_buf *to = &stream->messages[stream->count++];

		need(stream->count <= KX_KIT_MESSAGES_MAX, "too many messages");
		*to = (struct kx_buf){.max = KX_RECORD_MAX};
		need(!kx_buf_append(to, from->data, from->len), "copying a message");
	}
}

kx_status kx_kit_apply(struct kx_store *store, const struct kx_kit_stream *stream, struct kx_error *error)
{
	KX_CLEANUP(kx_store_batch_cleanup) struct kx_store_batch *batch = NULL;
	kx_status status = kx_store_batch_new(store, NOW_MS, &batch, error);

	for (size_t i = 0; !status && i < stream->count; i++) {
		KX_CLEANUP(kx_result_cleanup) struct kx_result *result = NULL;

		status = kx_result_unpack(stream->messages[i].data, stream->messages[i].len, &result, error);
		if (!status)
			status = kx_store_apply(batch, result, error);
		if (!status)
			kx_store_batch_offset(batch, "bus", "results", 0, (int64_t)i + 1);
	}
	return status ? status : kx_store_commit(batch, error);
}

struct kx_store *kx_kit_open(const char *folder)
{
	struct kx_store_options options = {.data_dir = folder};
	struct kx_store *store = NULL;
	struct kx_error error = {0};

	need(!kx_store_open(&options, &store, &error), error.message);
	return store;
}

void kx_kit_put(struct kx_store *store, enum kx_store_family family, const void *key, size_t key_len, const void *value,
		size_t len)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;

	need(!kx_kv_batch_new(kx_store_kv(store), &batch), "batch");
	if (value)
		kx_kv_batch_put(batch, family, key, key_len, value, len);
	else
		kx_kv_batch_delete(batch, family, key, key_len);
	need(!kx_kv_write(kx_store_kv(store), batch, true, NULL), "writing past the store");
}

static void digest_family(struct kx_store *store, enum kx_store_family family, struct kx_sha256 *hash)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;

	need(!kx_kv_iter_new(kx_store_kv(store), family, NULL, 0, &iter), "iterator");
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t len;
		const void *key = kx_kv_iter_key(iter, &len);

		kx_sha256_update(hash, &len, sizeof(len));
		kx_sha256_update(hash, key, len);
		key = kx_kv_iter_value(iter, &len);
		kx_sha256_update(hash, &len, sizeof(len));
		kx_sha256_update(hash, key, len);
	}
	need(!kx_kv_iter_error(iter, NULL), "iterating");
}

void kx_kit_digest(struct kx_store *store, uint8_t ret[KX_SHA_LEN])
{
	KX_CLEANUP(kx_sha256_cleanup) struct kx_sha256 *hash = NULL;

	need(!kx_sha256_new(&hash), "hash");
	digest_family(store, KX_STORE_VIDEOS, hash);
	digest_family(store, KX_STORE_MOMENTS, hash);
	digest_family(store, KX_STORE_FEATURES, hash);
	digest_family(store, KX_STORE_PENDING, hash);
	kx_sha256_final(hash, ret);
}

uint64_t kx_kit_count(struct kx_store *store, enum kx_store_family family)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	uint64_t count = 0;

	need(!kx_kv_iter_new(kx_store_kv(store), family, NULL, 0, &iter), "iterator");
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter))
		count++;
	return count;
}

char *kx_kit_folder(void)
{
	char *folder = kx_fs_join(kx_test_tmp(), "kx-shard-XXXXXX");

	need(folder && mkdtemp(folder), "temporary folder");
	return folder;
}

void kx_kit_folder_done(char *folder)
{
	need(!kx_fs_remove_tree(folder, NULL), "removing the temporary folder");
	free(folder);
}
