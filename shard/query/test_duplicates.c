/* Near-duplicates of made-up videos: copies, a clip inside a longer video, and what only resembles. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "shard/index/index.h"
#include "shard/query/duplicates.h"
#include "shard/query/query.h"
#include "shard/store/testkit.h"

#define DIM 64u
#define SECOND UINT64_C(1000000)
#define STILL 500u /* contents from it on show the same frame all the time */

struct fixture {
	char *folder;
	struct kx_store *store;
};

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	fixture->folder = kx_kit_folder();
	fixture->store = kx_kit_open(fixture->folder);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	kx_store_close(fixture->store);
	kx_kit_folder_done(fixture->folder);
	free(fixture);
	return 0;
}

static void apply(struct kx_store_batch *batch, const struct kx_result *result)
{
	struct kx_error error = {0};

	if (kx_store_apply(batch, result, &error))
		fail_msg("%s", error.message);
}

/* One frame a second; frame t of content c is the same wherever it is shown, but for the noise of a re-encode. Frames
 * of one scene (five seconds) resemble one another. */
static void frame(uint64_t content, uint64_t second, double noise, uint64_t seed, uint8_t out[DIM])
{
	uint64_t scene = content * 1000 + second / 5 + 1, one = content * 100000 + second + 7, random = seed * 31 + second + 3;

	for (uint32_t i = 0; i < DIM; i++) {
		double value = (double)(kx_test_random(&scene) % 1000) / 1000.0 * 160.0 +
			       (double)(kx_test_random(&one) % 1000) / 1000.0 * 95.0 +
			       noise * (double)(kx_test_random(&random) % 1000) / 1000.0;

		out[i] = (uint8_t)(value > 255.0 ? 255.0 : value);
	}
}

struct clip {
	const char *id;
	uint64_t content, from, seconds;
	double noise;
};

static void add_moment(struct kx_store_batch *batch, const struct clip *clip, uint32_t index)
{
	uint64_t first = index * 10u, count = clip->seconds - first < 10 ? clip->seconds - first : 10;
	uint8_t features[10 * DIM];
	float lo[10], step[10];
	uint64_t pts[10];
	int8_t embedding[DIM];
	struct kx_result result = {.video_id = (char *)(uintptr_t)clip->id, .generation = 1, .kind = KX_RESULT_MOMENT};

	for (uint64_t i = 0; i < count; i++) {
		frame(clip->content, clip->content >= STILL ? 0 : clip->from + first + i, clip->noise, clip->from + 1, features + i * DIM);
		lo[i] = -0.5f;
		step[i] = 2.0f / 255.0f;
		pts[i] = (first + i) * SECOND;
	}
	result.moment = (struct kx_moment){.modality = KX_VISUAL, .index = index, .space = (char *)"visual/test",
					   .count = (uint32_t)count, .dim = DIM, .pts_us = pts, .features = features, .lo = lo,
					   .step = step, .embedding = embedding};
	assert_int_equal(kx_learn_embed_moment(features, lo, step, count, DIM, embedding, &result.moment.embedding_scale), KX_OK);
	apply(batch, &result);
}

static void add(struct fixture *fixture, const struct clip *clip)
{
	struct kx_result plan = {.video_id = (char *)(uintptr_t)clip->id, .generation = 1, .kind = KX_RESULT_PLAN, .parts = 1,
				 .info = {.source = (char *)"/a", .recipe_sha256 = {1}}};
	struct kx_result end = {.video_id = (char *)(uintptr_t)clip->id, .generation = 1, .kind = KX_RESULT_PART_END,
				.part_end = {.parts = 1, .tracks = KX_TRACK_VISUAL | KX_TRACK_AUDIO,
					     .frames = (uint32_t)clip->seconds, .visual_us = clip->seconds * SECOND,
					     .has_visual = true, .decode_mode = KX_DECODE_EXACT, .moment_us = 10 * SECOND,
					     .recipe_sha256 = {1}}};
	KX_CLEANUP(kx_store_batch_cleanup) struct kx_store_batch *batch = NULL;

	assert_int_equal(kx_store_batch_new(fixture->store, 1, &batch, NULL), KX_OK);
	apply(batch, &plan);
	for (uint32_t i = 0; i * 10 < clip->seconds; i++)
		add_moment(batch, clip, i);
	apply(batch, &end);
	assert_int_equal(kx_store_commit(batch, NULL), KX_OK);
}

struct seen {
	char text[2000];
	size_t clusters;
	struct kx_duplicate last[8]; /* its texts are gone by then, but for: */
	char joined_to[8][16];
};

static kx_status see(void *ctx, const struct kx_duplicate *members, size_t count, struct kx_error *error)
{
	struct seen *seen = ctx;

	(void)error;
	assert_in_range(count, 2, 8);
	assert_true(seen->clusters++ < 100);
	for (size_t i = 0; i < count; i++) {
		size_t len = strlen(seen->text);

		snprintf(seen->text + len, sizeof(seen->text) - len, "%s%s@%.1f", i ? " " : seen->clusters > 1 ? "; " : "",
			 members[i].id, (double)members[i].offset_us / 1e6);
		seen->last[i] = members[i];
		snprintf(seen->joined_to[i], sizeof(seen->joined_to[i]), "%s", members[i].joined_to);
	}
	return KX_OK;
}

static void find(struct fixture *fixture, double threshold, struct seen *seen, struct kx_duplicates_stats *stats)
{
	struct kx_duplicates_options options = {.threshold = threshold};
	struct kx_error error = {0};

	memset(seen, 0, sizeof(*seen));
	if (kx_duplicates_find(fixture->store, &options, see, seen, stats, &error))
		fail_msg("%s", error.message);
}

static void copies_and_clips_are_found_where_they_are(void **state)
{
	struct seen seen;
	struct kx_duplicates_stats stats;

	add(*state, &(struct clip){"clip", 1, 33, 20, 20.0}); /* off the grid, within "film" */
	add(*state, &(struct clip){"copy", 2, 0, 30, 25.0});
	add(*state, &(struct clip){"film", 1, 0, 90, 0.0});
	add(*state, &(struct clip){"original", 2, 0, 30, 0.0});
	add(*state, &(struct clip){"other", 3, 0, 60, 0.0});
	add(*state, &(struct clip){"short", 1, 70, 7, 20.0});
	find(*state, 0.96, &seen, &stats);
	assert_string_equal(seen.text, "copy@0.0 original@0.0; film@0.0 clip@33.0 short@70.0");
	assert_int_equal(stats.videos, 6);
	assert_int_equal(stats.moments, 2 + 3 + 9 + 3 + 6 + 1);
	assert_int_equal(stats.clusters, 2);
	assert_int_equal(stats.members, 5);
	assert_string_equal(seen.joined_to[1], "film");
	assert_true(seen.last[1].score > 0.97 && seen.last[1].score < 1.0);
	assert_true(llabs((int64_t)seen.last[1].overlap_us - 20 * (int64_t)SECOND) <= (int64_t)SECOND);
}

/* Two videos that share a piece each with a third: the offsets go through it. */
static void offsets_go_through_others(void **state)
{
	struct seen seen;

	add(*state, &(struct clip){"a-left", 1, 0, 40, 10.0});
	add(*state, &(struct clip){"b-right", 1, 30, 40, 10.0});
	add(*state, &(struct clip){"c-whole", 1, 0, 70, 0.0});
	find(*state, 0.96, &seen, NULL);
	assert_string_equal(seen.text, "c-whole@0.0 a-left@0.0 b-right@30.0");
}

static void what_is_not_alike_is_not_joined(void **state)
{
	struct seen seen;
	struct kx_duplicates_options bad = {.threshold = 0.0};
	struct kx_error error = {0};

	find(*state, 0.9, &seen, NULL); /* an empty store */
	for (uint64_t i = 1; i < 8; i++) {
		char id[8];

		snprintf(id, sizeof(id), "v%u", (unsigned)i);
		add(*state, &(struct clip){id, i, 0, 25, 0.0});
	}
	find(*state, 0.96, &seen, NULL);
	assert_int_equal(seen.clusters, 0);
	assert_int_equal(kx_duplicates_find(((struct fixture *)*state)->store, &bad, see, &seen, NULL, &error), KX_EINVAL);
	bad.threshold = NAN;
	assert_int_equal(kx_duplicates_find(((struct fixture *)*state)->store, &bad, see, &seen, NULL, &error), KX_EINVAL);
}

/* The file is read when it appears, when it changes and when it goes. */
static void the_file_is_read_again(void **state)
{
	struct fixture *fixture = *state;
	struct kx_mirror *mirror = NULL;
	struct kx_duplicates_file *file = NULL;
	struct kx_similar_query query = {.video_id = (char *)"a", .k = 10, .weight_visual = 1, .group = KX_GROUP_DUPLICATES};
	struct kx_query_request request = {.kind = KX_QUERY_SIMILAR, .similar = query};
	struct kx_query_context context = {.store = fixture->store};
	const struct kx_duplicate_pair pairs[] = {{"b", "a"}, {"c", "a"}}, bad = {"b\tb", "a"};
	const uint32_t want[] = {2, 1, 2, 2};
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(fixture->folder, "duplicates.tsv");

	add(fixture, &(struct clip){"a", 1, 0, 20, 0.0});
	add(fixture, &(struct clip){"b", 1, 0, 20, 9.0});
	add(fixture, &(struct clip){"c", 1, 0, 20, 19.0});
	assert_int_equal(kx_mirror_new(&mirror), KX_OK);
	assert_int_equal(kx_mirror_load(mirror, fixture->store, NULL), KX_OK);
	assert_int_equal(kx_duplicates_file_new(fixture->folder, &file), KX_OK);
	context.mirror = mirror;
	context.duplicates = file;
	for (int i = 0; i < 4; i++) {
		KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;

		if (i == 1 || i == 2)
			assert_int_equal(kx_duplicates_file_write(fixture->folder, pairs, i == 1 ? 2 : 1, NULL), KX_OK);
		if (i == 3)
			assert_int_equal(unlink(path), 0);
		assert_int_equal(kx_query_answer(&context, &request, &reply, NULL), KX_OK);
		assert_int_equal(reply->status, KX_OK);
		assert_int_equal(reply->similar.hit_count, want[i]);
	}
	assert_int_equal(kx_duplicates_file_write(fixture->folder, &bad, 1, NULL), KX_EINVAL);
	assert_int_equal(kx_fs_write(path, "no tab\n", 7, NULL), KX_OK);
	assert_int_equal(kx_duplicates_file_refresh(file, mirror, NULL), KX_ECORRUPT);
	kx_duplicates_file_free(file);
	kx_mirror_free(mirror);
}

/* --- By the index ------------------------------------------------------------------------------------------------ */

#define FILMS 60u
#define COPIES 40u

struct pairs {
	char text[64 * COPIES];
	size_t clusters, members;
};

static kx_status see_pairs(void *ctx, const struct kx_duplicate *members, size_t count, struct kx_error *error)
{
	struct pairs *pairs = ctx;

	(void)error;
	pairs->clusters++;
	pairs->members += count;
	for (size_t i = 1; i < count; i++) {
		size_t len = strlen(pairs->text);

		snprintf(pairs->text + len, sizeof(pairs->text) - len, "%s>%s@%.1f ", members[0].id, members[i].id,
			 (double)members[i].offset_us / 1e6);
	}
	return KX_OK;
}

/* Films of their own; re-encodes of some, whole, or a piece from somewhere in it; one that shows the same all the time. */
static void add_catalogue(struct fixture *fixture, uint32_t from, uint32_t to, uint64_t *random)
{
	for (uint32_t i = from; i < to; i++) {
		uint64_t film = kx_test_random(random) % FILMS, start = kx_test_random(random) % 40;
		char id[16];

		if (i < FILMS) {
			snprintf(id, sizeof(id), "film-%03u", i);
			add(fixture, &(struct clip){id, i + 1, 0, 60 + i % 30, 0.0});
			continue;
		}
		snprintf(id, sizeof(id), "copy-%03u", i);
		if (i % 2)
			add(fixture, &(struct clip){id, film + 1, 0, 60, 20.0});
		else
			add(fixture, &(struct clip){id, film + 1, start, 20, 20.0});
	}
}

static void open_with_index(struct fixture *fixture, struct kx_index **ret)
{
	struct kx_store_options options = {.data_dir = fixture->folder, .more = kx_index_families,
					   .more_count = KX_INDEX_FAMILIES};
	KX_CLEANUP(kx_cleanup_free) char *dir = kx_fs_join(fixture->folder, "index-0");
	struct kx_index_options index = {.family = KX_STORE_FAMILIES, .dir = dir, .manual = true, .train_rows = 200,
					 .cell_rows = 30};

	kx_store_close(fixture->store);
	assert_int_equal(kx_store_open(&options, &fixture->store, NULL), KX_OK);
	index.kv = kx_store_kv(fixture->store);
	assert_int_equal(kx_index_open(&index, ret, NULL), KX_OK);
}

static void put_moments_in(struct fixture *fixture, struct kx_index *index)
{
	struct kx_mirror *mirror = NULL;

	assert_int_equal(kx_mirror_new(&mirror), KX_OK);
	assert_int_equal(kx_mirror_use_moments(mirror, index, fixture->store, false), KX_OK);
	assert_int_equal(kx_mirror_load(mirror, fixture->store, NULL), KX_OK);
	kx_mirror_free(mirror);
}

static void same_by_the_index(struct fixture *fixture, struct kx_index *index, struct kx_duplicates_stats *ret)
{
	struct kx_duplicates_options options = {.threshold = 0.96, .recall = 1.0};
	struct pairs *is = calloc(1, sizeof(*is)), *should = calloc(1, sizeof(*should));
	struct kx_duplicates_stats stats;
	struct kx_error error = {0};

	assert_true(is && should);
	if (kx_duplicates_find(fixture->store, &options, see_pairs, should, &stats, &error))
		fail_msg("%s", error.message);
	assert_int_equal(stats.compared, stats.moments);
	options.index = index;
	if (kx_duplicates_find(fixture->store, &options, see_pairs, is, ret, &error))
		fail_msg("%s", error.message);
	assert_string_equal(is->text, should->text);
	assert_int_equal(ret->moments, stats.moments);
	assert_true(should->clusters > 10 && should->members >= should->clusters + COPIES / 2);
	free(is);
	free(should);
}

/* All of them in the index; then some that it does not know; none. */
static void the_index_finds_the_same(void **state)
{
	struct fixture *fixture = *state;
	struct kx_duplicates_stats stats;
	struct kx_index *index = NULL;
	uint64_t random = kx_test_seed();

	add_catalogue(fixture, 0, FILMS + COPIES, &random);
	open_with_index(fixture, &index);
	same_by_the_index(fixture, index, &stats);
	assert_int_equal(stats.compared, stats.moments);
	put_moments_in(fixture, index);
	same_by_the_index(fixture, index, &stats);
	assert_int_equal(stats.compared, 0);
	add_catalogue(fixture, FILMS + COPIES, FILMS + COPIES + 10, &random);
	same_by_the_index(fixture, index, &stats);
	assert_in_range(stats.compared, 20, 60);
	kx_index_close(index);
}

/* Hundreds of moments of one video that are all alike do not hide the other that shows the same. */
static void a_still_picture_hides_nothing(void **state)
{
	struct fixture *fixture = *state;
	struct kx_duplicates_options options = {.threshold = 0.96};
	struct seen seen = {0};
	struct kx_index *index = NULL;

	for (unsigned i = 0; i < 3; i++) {
		const char *const ids[] = {"a-still", "b-still", "c-other"};

		add(fixture, &(struct clip){ids[i], STILL + i / 2, 0, 2000, 0.0});
	}
	open_with_index(fixture, &index);
	put_moments_in(fixture, index);
	options.index = index;
	assert_int_equal(kx_duplicates_find(fixture->store, &options, see, &seen, NULL, NULL), KX_OK);
	assert_string_equal(seen.text, "a-still@0.0 b-still@0.0");
	kx_index_close(index);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(copies_and_clips_are_found_where_they_are),
		TEST(offsets_go_through_others),
		TEST(what_is_not_alike_is_not_joined),
		TEST(the_file_is_read_again),
		TEST(the_index_finds_the_same),
		TEST(a_still_picture_hides_nothing),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
