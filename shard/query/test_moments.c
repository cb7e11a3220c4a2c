/* Single moments by the index against reading all of them: the same hits with the same scores. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "common/record/cursor.h"
#include "shard/query/moments.h"
#include "shard/query/moments_index.h"
#include "shard/query/testkit.h"
#include "shard/store/testkit.h"

#define VISUAL_DIM 48u
#define AUDIO_DIM 24u
#define VIDEOS 240u
#define MOMENTS 24u /* of a video, at most */
#define CENTRES 60u
#define QUERIES 30u

struct fixture {
	struct kx_kit_indexed at;
	struct kx_mirror *reading, *indexed;
	uint64_t random;
	uint64_t generation[2 * VIDEOS];
	bool stored[2 * VIDEOS];
};

static void fill(uint64_t *random, float *values, uint32_t dim)
{
	kx_kit_near_vector(random, CENTRES, 8, values, dim);
}

static void open_store(struct fixture *fixture, bool read_only)
{
	struct kx_error error = {0};

	kx_kit_indexed_open(&fixture->at, read_only);
	assert_int_equal(kx_mirror_new(&fixture->reading), KX_OK);
	assert_int_equal(kx_mirror_new(&fixture->indexed), KX_OK);
	assert_int_equal(kx_mirror_use_moments(fixture->indexed, fixture->at.index, fixture->at.store, read_only), KX_OK);
	if (kx_mirror_load(fixture->reading, fixture->at.store, &error) || kx_mirror_load(fixture->indexed, fixture->at.store, &error))
		fail_msg("%s", error.message);
}

static void close_store(struct fixture *fixture)
{
	kx_mirror_free(fixture->reading);
	kx_mirror_free(fixture->indexed);
	kx_kit_indexed_close(&fixture->at);
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	kx_kit_indexed_make(&fixture->at);
	fixture->random = kx_test_seed();
	open_store(fixture, false);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	close_store(fixture);
	kx_kit_indexed_done(&fixture->at);
	free(fixture);
	return 0;
}

static void name_video(uint32_t number, char id[32])
{
	snprintf(id, 32, "%c/%05u", 'a' + (char)(number % 3), number);
}

/* --- Videos as they are stored ----------------------------------------------------------------------------------- */

static void put_summary(struct kx_kv_batch *batch, const struct kx_video_record *record, const struct kx_summary *summary)
{
	struct kx_buf packed = {.max = KX_SUMMARY_MAX};
	struct kx_key key;

	assert_int_equal(kx_summary_pack(summary, &packed), KX_OK);
	kx_key_moment(&key, record->result.video_id, record->generation, summary->modality, summary->index);
	kx_kv_batch_put(batch, KX_STORE_MOMENTS, key.bytes, key.len, packed.data, packed.len);
	kx_buf_done(&packed);
}

/* Some point nowhere; some lack one of the modalities; the sound's may end sooner. */
static void put_summaries(struct fixture *fixture, struct kx_kv_batch *batch, const struct kx_video_record *record)
{
	uint64_t *random = &fixture->random;

	for (uint32_t i = 0; i < record->result.modality_count; i++) {
		const struct kx_modality_result *part = &record->result.modalities[i];
		struct kx_summary summary = {.modality = part->modality, .count = 1, .dim = part->dim, .moment_bytes = 1,
					     .scale = 1.0f / 127.0f};

		snprintf(summary.space, sizeof(summary.space), "%s", part->space);
		for (summary.index = 0; summary.index < part->moments; summary.index++) {
			float values[VISUAL_DIM];

			fill(random, values, part->dim);
			for (uint32_t d = 0; d < part->dim; d++)
				summary.embedding[d] = (int8_t)lroundf(values[d] * 127.0f);
			if (kx_test_random(random) % 25 == 0)
				memset(summary.embedding, 0, part->dim);
			put_summary(batch, record, &summary);
		}
	}
}

static void delete_summaries(struct kx_kv_batch *batch, const char *id, uint64_t upto)
{
	struct kx_key first, last;

	kx_key_generation(&first, id, 0);
	kx_key_after_generation(&last, id, upto);
	kx_kv_batch_delete_range(batch, KX_STORE_MOMENTS, first.bytes, first.len, last.bytes, last.len);
}

/* How far a change gets. */
enum upto { RECORDS, ALL };

/* What the index has to change is asked as the shard does: when the new summaries are in the store. */
static void change_index(struct fixture *fixture, const char *id, const struct kx_video_record *record)
{
	struct kx_moments_changes changes = {0};

	kx_mirror_expect(fixture->indexed, id);
	if (record)
		assert_int_equal(kx_moments_change_put(fixture->at.index, fixture->at.store, record, &changes, NULL), KX_OK);
	else
		assert_int_equal(kx_moments_change_remove(fixture->at.index, id, &changes, NULL), KX_OK);
	assert_int_equal(kx_moments_commit(fixture->at.index, &changes, NULL), KX_OK);
}

static void put_video(struct fixture *fixture, uint32_t number, enum upto upto)
{
	uint64_t *random = &fixture->random, kind = kx_test_random(random) % 10;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	float visual[VISUAL_DIM], audio[AUDIO_DIM];
	char id[32], source[48];
	struct kx_video_record record = {.generation = ++fixture->generation[number]};
	uint32_t count = 1 + (uint32_t)(kx_test_random(random) % MOMENTS), sound = count - (kind == 3 && count > 2 ? 2 : 0);
	struct kx_buf packed = {.max = KX_RECORD_MAX};

	name_video(number, id);
	snprintf(source, sizeof(source), "/films/%s", id);
	fill(random, visual, VISUAL_DIM);
	fill(random, audio, AUDIO_DIM);
	record.info = (struct kx_video_info){.title = id, .source = source, .run_id = (char *)"run", .duration_us = number};
	record.info.recipe_sha256[0] = record.info.content_sha256[0] = 1;
	record.result = (struct kx_video_result){.video_id = id, .duration_us = 1000000u * (number % 100) + 1, .moment_us = 500000,
						 .decode_mode = KX_DECODE_EXACT};
	record.result.recipe_sha256[0] = 1;
	if (kind != 0)
		record.result.modalities[record.result.modality_count++] = (struct kx_modality_result){
			.modality = KX_VISUAL, .space = (char *)"pictures", .moments = count, .rows = count, .dim = VISUAL_DIM, .embedding = visual};
	if (kind != 1)
		record.result.modalities[record.result.modality_count++] = (struct kx_modality_result){
			.modality = KX_AUDIO, .space = (char *)"sounds", .moments = sound, .rows = sound, .dim = AUDIO_DIM, .embedding = audio};
	assert_int_equal(kx_video_record_pack(&record, &packed), KX_OK);
	assert_int_equal(kx_kv_batch_new(kx_store_kv(fixture->at.store), &batch), KX_OK);
	if (record.generation > 1)
		delete_summaries(batch, id, record.generation - 1);
	kx_kv_batch_put(batch, KX_STORE_VIDEOS, id, strlen(id), packed.data, packed.len);
	put_summaries(fixture, batch, &record);
	assert_int_equal(kx_kv_write(kx_store_kv(fixture->at.store), batch, false, NULL), KX_OK);
	kx_buf_done(&packed);
	fixture->stored[number] = true;
	if (upto == RECORDS)
		return;
	change_index(fixture, id, &record);
	assert_int_equal(kx_mirror_put(fixture->reading, &record, NULL), KX_OK);
	assert_int_equal(kx_mirror_put(fixture->indexed, &record, NULL), KX_OK);
}

static void remove_video(struct fixture *fixture, uint32_t number, enum upto upto)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	char id[32];

	name_video(number, id);
	assert_int_equal(kx_kv_batch_new(kx_store_kv(fixture->at.store), &batch), KX_OK);
	kx_kv_batch_delete(batch, KX_STORE_VIDEOS, id, strlen(id));
	delete_summaries(batch, id, fixture->generation[number]);
	assert_int_equal(kx_kv_write(kx_store_kv(fixture->at.store), batch, false, NULL), KX_OK);
	fixture->stored[number] = false;
	if (upto == RECORDS)
		return;
	change_index(fixture, id, NULL);
	kx_mirror_remove(fixture->reading, id);
	kx_mirror_remove(fixture->indexed, id);
}

static void churn(struct fixture *fixture, uint32_t times, enum upto upto)
{
	for (uint32_t i = 0; i < times; i++) {
		uint32_t number = (uint32_t)(kx_test_random(&fixture->random) % (VIDEOS + VIDEOS / 4));

		if (fixture->stored[number] && kx_test_random(&fixture->random) % 3 == 0)
			remove_video(fixture, number, upto);
		else
			put_video(fixture, number, upto);
	}
}

/* --- Questions --------------------------------------------------------------------------------------------------- */

static void same_answers(const struct kx_similar_answer *is, const struct kx_similar_answer *should)
{
	for (uint32_t i = 0; i < is->hit_count && i < should->hit_count; i++) {
		const struct kx_similar_hit *a = &is->hits[i], *b = &should->hits[i];

		if (strcmp(a->video_id, b->video_id) != 0 || a->moment_start_us != b->moment_start_us)
			fail_msg("hit %u is %s at %u with %.9f, it should be %s at %u with %.9f", i, a->video_id,
				 (unsigned)a->moment_start_us, a->score, b->video_id, (unsigned)b->moment_start_us, b->score);
		assert_true(a->score == b->score && a->visual == b->visual && a->audio == b->audio);
		assert_true(a->has_visual == b->has_visual && a->has_audio == b->has_audio);
		assert_true(a->has_moment && a->moment_end_us == b->moment_end_us && a->duration_us == b->duration_us);
		assert_string_equal(a->group_key, b->group_key);
	}
	assert_int_equal(is->hit_count, should->hit_count);
	assert_int_equal(is->next != NULL, should->next != NULL);
	if (is->next)
		assert_string_equal(is->next, should->next);
	assert_true(is->work.matching == should->work.matching && is->changed == should->changed);
}

static void answer(struct fixture *fixture, struct kx_mirror *mirror, const struct kx_mirror_query *ask,
		   struct kx_similar_answer *ret)
{
	struct kx_query_context context = {.store = fixture->at.store, .mirror = mirror, .index = fixture->at.index};
	struct kx_error error = {0};

	if (kx_query_moments(&context, ask, ret, &error))
		fail_msg("%s", error.message);
}

/* One question to both; the next page's cursor goes into query. */
static void compare(struct fixture *fixture, const struct kx_ann_vector *vectors, size_t count, const char *exclude,
		    struct kx_similar_query *query)
{
	struct kx_mirror_query ask = {.vectors = vectors, .count = count, .exclude = exclude, .query = query, .now_s = 1.7e9};
	struct kx_similar_answer is = {0}, should = {0};

	answer(fixture, fixture->indexed, &ask, &is);
	answer(fixture, fixture->reading, &ask, &should);
	assert_true(is.exact && is.recall == 1.0 && should.exact);
	same_answers(&is, &should);
	free(query->cursor);
	query->cursor = is.next;
	is.next = NULL;
	kx_similar_answer_done(&is);
	kx_similar_answer_done(&should);
}

static void ask_both(struct fixture *fixture, const char *filter, uint32_t k, uint32_t pages, enum kx_query_group group)
{
	uint64_t *random = &fixture->random;
	float visual[VISUAL_DIM], audio[AUDIO_DIM];
	struct kx_ann_vector vectors[2] = {{KX_VISUAL, "pictures", VISUAL_DIM, visual}, {KX_AUDIO, "sounds", AUDIO_DIM, audio}};
	uint64_t kind = kx_test_random(random) % 6;
	char exclude[32], *not_ids[3];
	char left_out[3][32];
	struct kx_similar_query query = {.k = k, .weight_visual = kind == 4 ? 0.0 : 0.6, .weight_audio = kind == 5 ? 0.0 : 0.4,
					 .filter = (char *)(uintptr_t)filter, .recall = 1.0, .group = group};

	fill(random, visual, VISUAL_DIM);
	fill(random, audio, AUDIO_DIM);
	name_video((uint32_t)(kx_test_random(random) % VIDEOS), exclude);
	for (int i = 0; i < 3; i++) {
		name_video((uint32_t)(kx_test_random(random) % VIDEOS), left_out[i]);
		not_ids[i] = left_out[i];
	}
	if (kx_test_random(random) % 2) {
		query.not_ids = not_ids;
		query.not_id_count = 3;
	}
	query.has_min_score = kx_test_random(random) % 4 == 0;
	query.min_score = 0.6;
	for (uint32_t page = 0; page < pages && (!page || query.cursor); page++)
		compare(fixture, kind == 1 ? vectors + 1 : vectors, kind < 2 ? 1 : 2, exclude, &query);
	free(query.cursor);
}

static void ask_all_sorts(struct fixture *fixture)
{
	static const char *const filters[] = {NULL, NULL, "duration < 50", "duration < 2", "duration < 90", "duration > 96",
					      "id = \"a/00003\""};
	static const enum kx_query_group groups[] = {KX_GROUP_NONE, KX_GROUP_NONE, KX_GROUP_NONE, KX_GROUP_SOURCE,
						     KX_GROUP_DUPLICATES};

	for (uint32_t i = 0; i < QUERIES; i++)
		ask_both(fixture, filters[i % KX_ARRAY_LEN(filters)], i % 8 ? 10 : 100, i % 5 ? 2 : 4,
			 groups[i % KX_ARRAY_LEN(groups)]);
	ask_both(fixture, NULL, 1000, 1, KX_GROUP_SOURCE);
}

/* The index is right in itself, and holds every moment of every record and no other. */
static void verify(struct fixture *fixture)
{
	struct kx_index_report report;
	struct kx_shard_stats stats;
	uint64_t held = 0;

	assert_int_equal(kx_index_verify(fixture->at.index, &report, NULL), KX_OK);
	if (report.faults)
		fail_msg("%s", report.first);
	for (uint32_t i = 0; i < 2 * VIDEOS; i++) {
		KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
		struct kx_moments_compared compared;
		char id[32];

		name_video(i, id);
		if (!fixture->stored[i])
			continue;
		assert_int_equal(kx_store_video(fixture->at.store, id, &record, NULL), KX_OK);
		assert_int_equal(kx_moments_compare(fixture->at.index, fixture->at.store, record, &compared, NULL), KX_OK);
		assert_int_equal(compared.missing, 0);
		assert_true(compared.least_cosine > 0.9999);
		held += compared.held;
	}
	kx_mirror_stats(fixture->indexed, &stats);
	assert_int_equal(report.rows, held);
	assert_in_range(held, stats.moments / 2, stats.moments - 1); /* some point nowhere */
}

/* --- Tests ------------------------------------------------------------------------------------------------------- */

static void same_as_reading_all(void **state)
{
	struct fixture *fixture = *state;

	ask_both(fixture, NULL, 10, 1, KX_GROUP_NONE); /* nothing is there */
	for (uint32_t i = 0; i < VIDEOS; i++) {
		put_video(fixture, i, ALL);
		if (i == 3 || i == 40)
			ask_both(fixture, NULL, 10, 3, KX_GROUP_NONE);
	}
	ask_all_sorts(fixture);
	churn(fixture, 200, ALL);
	ask_all_sorts(fixture);
	close_store(fixture);
	open_store(fixture, false);
	ask_all_sorts(fixture);
	verify(fixture);
}

/* A store of before, or a shard that was killed between the two: read-only it answers all the same, and the next that writes
 * mends it. */
static void records_ahead_of_the_index(void **state)
{
	struct fixture *fixture = *state;

	for (uint32_t i = 0; i < VIDEOS; i++)
		put_video(fixture, i, RECORDS);
	close_store(fixture);
	open_store(fixture, true);
	ask_all_sorts(fixture);
	close_store(fixture);
	open_store(fixture, false); /* all at once */
	ask_all_sorts(fixture);
	verify(fixture);
	churn(fixture, 100, RECORDS);
	close_store(fixture);
	open_store(fixture, true);
	ask_all_sorts(fixture);
	close_store(fixture);
	open_store(fixture, false); /* one by one */
	ask_all_sorts(fixture);
	verify(fixture);
	churn(fixture, 50, ALL);
	ask_all_sorts(fixture);
}

static void without_moments_none_are_left(void **state)
{
	struct fixture *fixture = *state;
	struct kx_index_report report;
	uint64_t removed = 0;

	for (uint32_t i = 0; i < 20; i++)
		put_video(fixture, i, ALL);
	assert_int_equal(kx_index_verify(fixture->at.index, &report, NULL), KX_OK);
	assert_true(report.rows > 0);
	assert_int_equal(kx_moments_drop(fixture->at.index, &removed, NULL), KX_OK);
	assert_int_equal(removed, report.rows);
	assert_int_equal(kx_index_verify(fixture->at.index, &report, NULL), KX_OK);
	assert_int_equal(report.rows + report.faults, 0);
}

/* The index tells of what the store has no more: hits are in order, and none is there twice or of a video that is gone. */
static void ask_too_soon(struct fixture *fixture, const char *gone)
{
	float visual[VISUAL_DIM];
	struct kx_ann_vector vector = {KX_VISUAL, "pictures", VISUAL_DIM, visual};
	struct kx_similar_query query = {.k = 1000, .weight_visual = 1.0, .weight_audio = 1.0, .recall = 1.0};
	struct kx_mirror_query ask = {.vectors = &vector, .count = 1, .query = &query, .now_s = 1.7e9};
	struct kx_similar_answer is = {0};

	fill(&fixture->random, visual, VISUAL_DIM);
	answer(fixture, fixture->indexed, &ask, &is);
	assert_int_equal(is.hit_count, 1000);
	for (uint32_t i = 0; i < is.hit_count; i++) {
		const struct kx_similar_hit *a = &is.hits[i ? i - 1 : 0], *b = &is.hits[i];

		assert_true(!gone || strcmp(b->video_id, gone) != 0);
		assert_true(!i || kx_hit_order(a->score, a->video_id, a->moment_start_us, b->score, b->video_id,
					       b->moment_start_us) < 0);
	}
	kx_similar_answer_done(&is);
}

/* Between the store's change and the index's, and between the index's and the mirror's, which is told that it comes: then a
 * video is found as it is. */
static void halfway(void **state)
{
	struct fixture *fixture = *state;

	for (uint32_t i = 0; i < VIDEOS; i++)
		put_video(fixture, i, ALL);
	for (uint32_t i = 0; i < 60; i++) {
		uint32_t number = (uint32_t)(kx_test_random(&fixture->random) % VIDEOS);
		KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
		char id[32];

		if (!fixture->stored[number])
			continue;
		name_video(number, id);
		if (i % 3 == 0)
			remove_video(fixture, number, RECORDS);
		else
			put_video(fixture, number, RECORDS);
		ask_too_soon(fixture, i % 3 ? NULL : id);
		assert_int_equal(kx_store_video(fixture->at.store, id, &record, NULL), i % 3 ? KX_OK : KX_ENOTFOUND);
		change_index(fixture, id, record);
		ask_both(fixture, i % 4 ? NULL : "duration < 50", 20, 1, KX_GROUP_NONE);
	}
}

struct searcher {
	struct fixture *fixture;
	struct kx_similar_query query;
	struct kx_ann_vector vector;
	float visual[VISUAL_DIM];
	uint32_t stable;
	atomic_uint asked;
	bool failed;
	atomic_bool stop;
};

/* How many moments are found of the videos that nobody changes. */
static uint32_t ask_for_stable(struct searcher *searcher)
{
	struct kx_query_context context = {.store = searcher->fixture->at.store, .mirror = searcher->fixture->indexed};
	struct kx_mirror_query ask = {.vectors = &searcher->vector, .count = 1, .query = &searcher->query, .now_s = 1.7e9};
	struct kx_similar_answer found = {0};
	uint32_t count = 0;

	searcher->failed = searcher->failed || kx_query_moments(&context, &ask, &found, NULL);
	for (uint32_t i = 0; i < found.hit_count; i++)
		count += atoi(found.hits[i].video_id + 2) < 100;
	kx_similar_answer_done(&found);
	atomic_fetch_add(&searcher->asked, 1);
	return count;
}

static void *search_on(void *arg)
{
	struct searcher *searcher = arg;

	while (!atomic_load(&searcher->stop))
		searcher->failed = ask_for_stable(searcher) != searcher->stable || searcher->failed;
	return NULL;
}

static void beside_changes(void **state)
{
	struct fixture *fixture = *state;
	struct searcher searcher = {.fixture = fixture};
	pthread_t thread;

	searcher.query = (struct kx_similar_query){.k = 1000, .weight_visual = 1.0, .weight_audio = 1.0, .recall = 1.0,
						   .filter = (char *)"duration < 90", .has_min_score = true, .min_score = 0.5};
	searcher.vector = (struct kx_ann_vector){KX_VISUAL, "pictures", VISUAL_DIM, searcher.visual};
	for (uint32_t i = 0; i < 200; i++)
		put_video(fixture, i, ALL);
	fill(&fixture->random, searcher.visual, VISUAL_DIM);
	searcher.stable = ask_for_stable(&searcher);
	assert_int_equal(pthread_create(&thread, NULL, search_on, &searcher), 0);
	/* Until it has asked beside changes, however late it was given a CPU. */
	for (uint32_t i = 0; i < 300 || atomic_load(&searcher.asked) < 3; i++) {
		uint32_t number = 100 + (uint32_t)(kx_test_random(&fixture->random) % 100);

		if (fixture->stored[number] && i % 3 == 0)
			remove_video(fixture, number, ALL);
		else
			put_video(fixture, number, ALL);
	}
	atomic_store(&searcher.stop, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_false(searcher.failed);
	ask_all_sorts(fixture);
}

/* Less than exact is told as such, and finds most. */
static void approximately(void **state)
{
	struct fixture *fixture = *state;
	uint32_t found = 0, all = 0;

	for (uint32_t i = 0; i < VIDEOS; i++)
		put_video(fixture, i, ALL);
	for (uint32_t i = 0; i < QUERIES; i++) {
		float visual[VISUAL_DIM], audio[AUDIO_DIM];
		struct kx_ann_vector vectors[2] = {{KX_VISUAL, "pictures", VISUAL_DIM, visual},
						   {KX_AUDIO, "sounds", AUDIO_DIM, audio}};
		struct kx_similar_query query = {.k = 10, .weight_visual = 0.6, .weight_audio = 0.4, .recall = 0.9,
						 .filter = i % 2 ? (char *)"duration < 50" : NULL};
		struct kx_mirror_query ask = {.vectors = vectors, .count = 2, .query = &query, .now_s = 1.7e9};
		struct kx_similar_answer is = {0}, should = {0};

		fill(&fixture->random, visual, VISUAL_DIM);
		fill(&fixture->random, audio, AUDIO_DIM);
		answer(fixture, fixture->indexed, &ask, &is);
		answer(fixture, fixture->reading, &ask, &should);
		assert_int_equal(is.hit_count, 10);
		assert_true(is.exact || is.recall == 0.9);
		for (uint32_t a = 0; a < 10; a++)
			for (uint32_t b = 0; b < 10; b++)
				found += strcmp(is.hits[a].video_id, should.hits[b].video_id) == 0 &&
					 is.hits[a].moment_start_us == should.hits[b].moment_start_us;
		all += 10;
		kx_similar_answer_done(&is);
		kx_similar_answer_done(&should);
	}
	if (found * 10 < all * 8)
		fail_msg("%u of %u", found, all);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(same_as_reading_all), TEST(records_ahead_of_the_index), TEST(without_moments_none_are_left),
		TEST(halfway),		   TEST(beside_changes),	     TEST(approximately),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
