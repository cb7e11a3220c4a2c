/* Nearest videos by the index against comparing with every row: the same hits with the same scores. */
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

#include "common/base/fault.h"
#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "shard/query/indexed.h"
#include "shard/query/indexed_internal.h"
#include "shard/query/testkit.h"
#include "shard/store/testkit.h"

#define VISUAL_DIM 48u
#define AUDIO_DIM 24u
#define VIDEOS 3000u
#define CENTRES 40u
#define QUERIES 60u
#define STABLE 300u

struct fixture {
	struct kx_kit_indexed at;
	struct kx_mirror *exact, *indexed;
	uint64_t random;
	bool stored[2 * VIDEOS];
	uint64_t generation[2 * VIDEOS];
};

static void fill(uint64_t *random, float *values, uint32_t dim)
{
	kx_kit_near_vector(random, CENTRES, 16, values, dim);
}

static void open_store(struct fixture *fixture, bool read_only)
{
	struct kx_error error = {0};

	kx_kit_indexed_open(&fixture->at, read_only);
	assert_int_equal(kx_mirror_new(&fixture->exact), KX_OK);
	assert_int_equal(kx_mirror_new(&fixture->indexed), KX_OK);
	assert_int_equal(kx_mirror_use_index(fixture->indexed, fixture->at.index, fixture->at.store, read_only), KX_OK);
	if (kx_mirror_load(fixture->exact, fixture->at.store, &error) || kx_mirror_load(fixture->indexed, fixture->at.store, &error))
		fail_msg("%s", error.message);
}

static void close_store(struct fixture *fixture)
{
	kx_mirror_free(fixture->exact);
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

/* What a test does to a video: all that the shard does, or the records alone, as one that was killed there. */
enum with { STORE_ONLY, ALL };

/* Record and index in one write, without a sync: thousands of them would take minutes. */
static void write_video(struct fixture *fixture, const char *id, const struct kx_buf *packed,
			const struct kx_indexed_changes *changes)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	struct kx_kv *kv = kx_store_kv(fixture->at.store);
	struct kx_index_staged *staged = NULL;

	assert_int_equal(kx_kv_batch_new(kv, &batch), KX_OK);
	if (packed)
		kx_kv_batch_put(batch, KX_STORE_VIDEOS, id, strlen(id), packed->data, packed->len);
	else
		kx_kv_batch_delete(batch, KX_STORE_VIDEOS, id, strlen(id));
	if (changes->count) {
		kx_mirror_expect(fixture->indexed, id);
		assert_int_equal(kx_index_stage(fixture->at.index, batch, changes->list, changes->count, &staged, NULL), KX_OK);
	}
	assert_int_equal(kx_kv_write(kv, batch, false, NULL), KX_OK);
	if (staged)
		kx_index_apply(fixture->at.index, staged);
}

/* NULL: the video lacks the modality. */
static void put_vectors(struct fixture *fixture, uint32_t number, float *visual, float *audio, enum with with)
{
	char id[32], source[48];
	struct kx_video_record record = {.generation = ++fixture->generation[number]};
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	struct kx_indexed_changes changes = {0};

	name_video(number, id);
	snprintf(source, sizeof(source), "/films/%s", id);
	record.info = (struct kx_video_info){.title = id, .source = source, .run_id = (char *)"run", .duration_us = number};
	record.info.recipe_sha256[0] = record.info.content_sha256[0] = 1;
	record.result = (struct kx_video_result){.video_id = id, .duration_us = 1000000u * (number % 100), .moment_us = 1000000,
						 .decode_mode = KX_DECODE_EXACT};
	record.result.recipe_sha256[0] = 1;
	if (visual)
		record.result.modalities[record.result.modality_count++] = (struct kx_modality_result){
			.modality = KX_VISUAL, .space = (char *)"pictures", .moments = 1, .rows = 1, .dim = VISUAL_DIM, .embedding = visual};
	if (audio)
		record.result.modalities[record.result.modality_count++] = (struct kx_modality_result){
			.modality = KX_AUDIO, .space = (char *)"sounds", .moments = 1, .rows = 1, .dim = AUDIO_DIM, .embedding = audio};
	assert_int_equal(kx_video_record_pack(&record, &packed), KX_OK);
	if (with == ALL)
		assert_int_equal(kx_indexed_change_put(fixture->at.index, &record, &changes, NULL), KX_OK);
	write_video(fixture, id, &packed, &changes);
	kx_buf_done(&packed);
	fixture->stored[number] = true;
	if (with == STORE_ONLY)
		return;
	assert_int_equal(kx_mirror_put(fixture->exact, &record, NULL), KX_OK);
	assert_int_equal(kx_mirror_put(fixture->indexed, &record, NULL), KX_OK);
	kx_indexed_changes_done(&changes);
}

static void put_video(struct fixture *fixture, uint32_t number, enum with with)
{
	uint64_t *random = &fixture->random, kind = kx_test_random(random) % 10;
	float visual[VISUAL_DIM], audio[AUDIO_DIM];

	fill(random, visual, VISUAL_DIM);
	fill(random, audio, AUDIO_DIM);
	if (kind == 2)
		memset(visual, 0, sizeof(visual));
	if (kind == 3)
		memset(audio, 0, sizeof(audio));
	for (uint32_t i = 0; kind == 4 && number % 7 == 0 && i < VISUAL_DIM; i++)
		visual[i] *= 0.5f; /* not as it should be: found all the same */
	put_vectors(fixture, number, kind != 0 ? visual : NULL, kind != 1 ? audio : NULL, with);
}

static void remove_video(struct fixture *fixture, uint32_t number, enum with with)
{
	struct kx_indexed_changes changes = {0};
	char id[32];

	name_video(number, id);
	if (with == ALL)
		assert_int_equal(kx_indexed_change_remove(fixture->at.index, id, &changes, NULL), KX_OK);
	write_video(fixture, id, NULL, &changes);
	fixture->stored[number] = false;
	if (with == STORE_ONLY)
		return;
	kx_mirror_remove(fixture->exact, id);
	kx_mirror_remove(fixture->indexed, id);
	kx_indexed_changes_done(&changes);
}

static void same_answers(const struct kx_similar_answer *is, const struct kx_similar_answer *should)
{
	assert_int_equal(is->hit_count, should->hit_count);
	for (uint32_t i = 0; i < is->hit_count; i++) {
		const struct kx_similar_hit *a = &is->hits[i], *b = &should->hits[i];

		if (strcmp(a->video_id, b->video_id) != 0)
			fail_msg("hit %u is %s with %.9f, it should be %s with %.9f", i, a->video_id, a->score, b->video_id,
				 b->score);
		assert_true(a->score == b->score && a->visual == b->visual && a->audio == b->audio);
		assert_true(a->has_visual == b->has_visual && a->has_audio == b->has_audio);
	}
	assert_int_equal(is->next != NULL, should->next != NULL);
	if (is->next)
		assert_string_equal(is->next, should->next);
	assert_true(is->work.rows == should->work.rows && is->work.matching == should->work.matching);
}

/* One question to both; the next page's cursor goes into query. */
static void compare(struct fixture *fixture, const struct kx_ann_vector *vectors, size_t count, const char *exclude,
		    struct kx_similar_query *query)
{
	struct kx_mirror_query ask = {.vectors = vectors, .count = count, .exclude = exclude, .query = query, .now_s = 1.7e9};
	struct kx_similar_answer is = {0}, should = {0};
	struct kx_error error = {0};

	if (kx_mirror_search(fixture->indexed, &ask, &is, &error) || kx_mirror_search(fixture->exact, &ask, &should, &error))
		fail_msg("%s", error.message);
	assert_true(is.exact && is.recall == 1.0 && should.exact);
	same_answers(&is, &should);
	free(query->cursor);
	query->cursor = is.next;
	is.next = NULL;
	kx_similar_answer_done(&is);
	kx_similar_answer_done(&should);
}

static void ask_both(struct fixture *fixture, const char *filter, uint32_t k, uint32_t pages)
{
	uint64_t *random = &fixture->random;
	float visual[VISUAL_DIM], audio[AUDIO_DIM];
	struct kx_ann_vector vectors[2] = {{KX_VISUAL, "pictures", VISUAL_DIM, visual}, {KX_AUDIO, "sounds", AUDIO_DIM, audio}};
	uint64_t kind = kx_test_random(random) % 6;
	char exclude[32], *not_ids[3];
	char left_out[3][32];
	struct kx_similar_query query = {.k = k, .weight_visual = kind == 4 ? 0.0 : 0.6, .weight_audio = kind == 5 ? 0.0 : 0.4,
					 .filter = (char *)(uintptr_t)filter, .recall = 1.0};

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
	for (uint32_t page = 0; page < pages && (!page || query.cursor); page++)
		compare(fixture, kind == 1 ? vectors + 1 : vectors, kind < 2 ? 1 : 2, exclude, &query);
	free(query.cursor);
}

static void ask_all_sorts(struct fixture *fixture)
{
	static const char *const filters[] = {NULL, NULL, "duration < 50", "duration < 2", "duration < 90", "id = \"a/00003\""};

	for (uint32_t i = 0; i < QUERIES; i++)
		ask_both(fixture, filters[i % KX_ARRAY_LEN(filters)], i % 7 ? 10 : 100, i % 5 ? 2 : 4);
	ask_both(fixture, NULL, 2 * VIDEOS, 1);
}

static void diverse_and_grouped(struct fixture *fixture)
{
	float visual[VISUAL_DIM];
	struct kx_ann_vector vector = {KX_VISUAL, "pictures", VISUAL_DIM, visual};
	struct kx_similar_query diverse = {.k = 10, .weight_visual = 1.0, .weight_audio = 1.0, .recall = 1.0, .diversity = 0.5};
	struct kx_similar_query grouped = {.k = 2, .weight_visual = 1.0, .weight_audio = 1.0, .recall = 1.0,
					   .group = KX_GROUP_SOURCE};

	fill(&fixture->random, visual, VISUAL_DIM);
	compare(fixture, &vector, 1, NULL, &diverse);
	compare(fixture, &vector, 1, NULL, &grouped);
	compare(fixture, &vector, 1, NULL, &grouped);
	free(grouped.cursor);
	free(diverse.cursor);
}

static void verify(struct fixture *fixture)
{
	struct kx_index_report report;

	assert_int_equal(kx_index_verify(fixture->at.index, &report, NULL), KX_OK);
	if (report.faults)
		fail_msg("%s", report.first);
}

static void churn(struct fixture *fixture, uint32_t times, enum with with)
{
	for (uint32_t i = 0; i < times; i++) {
		uint32_t number = (uint32_t)(kx_test_random(&fixture->random) % (VIDEOS + VIDEOS / 4));

		if (fixture->stored[number] && kx_test_random(&fixture->random) % 3 == 0)
			remove_video(fixture, number, with);
		else
			put_video(fixture, number, with);
	}
}

static void same_as_comparing_all(void **state)
{
	struct fixture *fixture = *state;

	ask_both(fixture, NULL, 10, 1); /* nothing is there */
	for (uint32_t i = 0; i < VIDEOS; i++) {
		put_video(fixture, i, ALL);
		if (i == 10 || i == 300)
			ask_both(fixture, NULL, 10, 3);
	}
	ask_all_sorts(fixture);
	diverse_and_grouped(fixture);
	churn(fixture, 800, ALL);
	ask_all_sorts(fixture);
	close_store(fixture);
	open_store(fixture, false);
	ask_all_sorts(fixture);
	verify(fixture);
}

/* What a kill between the records and the index leaves is mended at the next opening, and seen through read-only. */
/* Opens without loading, and asks. */
static void defer(struct fixture *fixture)
{
	struct kx_error error = {0};

	kx_mirror_free(fixture->indexed);
	assert_int_equal(kx_mirror_new(&fixture->indexed), KX_OK);
	assert_int_equal(kx_mirror_use_index(fixture->indexed, fixture->at.index, fixture->at.store, false), KX_OK);
	if (kx_mirror_defer(fixture->indexed, fixture->at.store, fixture->at.index, NULL, &error))
		fail_msg("%s", error.message);
}

static bool is_loaded(const struct fixture *fixture)
{
	return atomic_load(&fixture->indexed->loaded);
}

/* Videos that the index holds wholly, some without picture or sound; opened anew, so that the store has totals of them. */
static void put_whole(struct fixture *fixture, uint32_t count)
{
	float visual[VISUAL_DIM], audio[AUDIO_DIM];

	for (uint32_t i = 0; i < count; i++) {
		fill(&fixture->random, visual, VISUAL_DIM);
		fill(&fixture->random, audio, AUDIO_DIM);
		if (i % 11 == 3)
			memset(visual, 0, sizeof(visual));
		put_vectors(fixture, i, i % 9 != 5 ? visual : NULL, i % 9 != 4 ? audio : NULL, ALL);
	}
	close_store(fixture);
	open_store(fixture, false);
}

static void ask_early(struct fixture *fixture, uint32_t number, uint32_t k, uint32_t pages)
{
	float visual[VISUAL_DIM], audio[AUDIO_DIM];
	struct kx_ann_vector vectors[2] = {{KX_VISUAL, "pictures", VISUAL_DIM, visual}, {KX_AUDIO, "sounds", AUDIO_DIM, audio}};
	struct kx_similar_query query = {.k = k, .weight_visual = 0.6, .weight_audio = 0.4, .recall = 1.0};
	char exclude[32];

	fill(&fixture->random, visual, VISUAL_DIM);
	fill(&fixture->random, audio, AUDIO_DIM);
	name_video(number, exclude);
	for (uint32_t page = 0; page < pages && (!page || query.cursor); page++)
		compare(fixture, vectors + (number % 3 == 0), number % 3 ? 2 : 1, number % 2 ? exclude : NULL, &query);
	free(query.cursor);
}

static void early_is_the_same(void **state)
{
	struct fixture *fixture = *state;
	struct kx_shard_stats stats[2] = {{0}};

	put_whole(fixture, VIDEOS);
	defer(fixture);
	assert_false(is_loaded(fixture));
	kx_mirror_stats(fixture->indexed, &stats[0]);
	kx_mirror_stats(fixture->exact, &stats[1]);
	assert_memory_equal(&stats[0], &stats[1], sizeof(stats[0]));
	assert_int_equal(fixture->indexed->early->epoch, fixture->exact->epoch);
	ask_early(fixture, 1, 5, 1);
	assert_true(fixture->indexed->early->count < VIDEOS / 3); /* by far not all were read */
	for (uint32_t i = 0; i < 12; i++)
		ask_early(fixture, i, i % 4 ? 10 : 40, 3);
	diverse_and_grouped(fixture);
	assert_false(is_loaded(fixture));
	ask_both(fixture, "duration < 10", 10, 2);
	assert_true(is_loaded(fixture));
	ask_all_sorts(fixture);
	churn(fixture, 200, ALL);
	ask_all_sorts(fixture);
	verify(fixture);
}

/* What does not read back, does not add up or is not there is not believed: everything is loaded. */
static void early_only_by_good_totals(void **state)
{
	struct fixture *fixture = *state;
	struct kx_buf totals = {.max = 1 << 20};
	KX_CLEANUP(kx_cleanup_free) struct kx_totals *decoded = calloc(1, sizeof(*decoded));

	assert_non_null(decoded);
	put_whole(fixture, 300);
	assert_int_equal(kx_store_totals(fixture->at.store, &totals, NULL), KX_OK);
	for (size_t at = 0; at < totals.len; at += 7) {
		totals.data[at] ^= 0x10;
		assert_int_not_equal(kx_totals_decode(totals.data, totals.len, decoded), KX_OK);
		totals.data[at] ^= 0x10;
	}
	for (size_t len = 0; len < totals.len; len++)
		assert_int_not_equal(kx_totals_decode(totals.data, len, decoded), KX_OK);
	assert_int_equal(kx_totals_decode(totals.data, totals.len, decoded), KX_OK);
	defer(fixture);
	assert_false(is_loaded(fixture));

	totals.data[40] ^= 1;
	assert_int_equal(kx_store_set_totals(fixture->at.store, totals.data, totals.len, NULL), KX_OK);
	defer(fixture);
	assert_true(is_loaded(fixture)); /* and made anew */
	defer(fixture);
	assert_false(is_loaded(fixture));
	assert_int_equal(kx_store_set_totals(fixture->at.store, NULL, 0, NULL), KX_OK);
	defer(fixture);
	assert_true(is_loaded(fixture));
	ask_all_sorts(fixture);
	kx_buf_done(&totals);
}

/* A read that fails is told, or what needs all is loaded; the next search is right. */
static void early_reads_may_fail(void **state)
{
	struct fixture *fixture = *state;
	struct kx_error error = {0};
	bool whole = false;

	put_whole(fixture, 300);
	for (uint64_t nth = 1; !whole; nth += 3) {
		struct kx_similar_query query = {.k = 5, .weight_visual = 1, .weight_audio = 1, .recall = 1};
		struct kx_similar_answer answer = {0};
		float values[VISUAL_DIM];
		struct kx_ann_vector vector = {KX_VISUAL, "pictures", VISUAL_DIM, values};
		struct kx_mirror_query to = {.vectors = &vector, .count = 1, .query = &query};

		assert_true(nth < 1000);
		defer(fixture);
		fill(&fixture->random, values, VISUAL_DIM);
		kx_fault_arm("kv.read", nth);
		whole = kx_mirror_search(fixture->indexed, &to, &answer, &error) == KX_OK;
		kx_fault_clear();
		kx_similar_answer_done(&answer);
		ask_early(fixture, 1, 10, 1);
	}
}

/* Many records and no index: it is built at once, of what it takes, and the rest is found by its records. */
static void an_older_store(void **state)
{
	struct fixture *fixture = *state;

	for (uint32_t i = 0; i < VIDEOS; i++)
		put_video(fixture, i, STORE_ONLY);
	assert_true(kx_index_is_empty(fixture->at.index));
	close_store(fixture);
	open_store(fixture, false);
	assert_false(kx_index_is_empty(fixture->at.index));
	ask_all_sorts(fixture);
	verify(fixture);
	churn(fixture, 300, ALL);
	ask_all_sorts(fixture);
	verify(fixture);
	close_store(fixture);
	open_store(fixture, false);
	ask_all_sorts(fixture);
}

static void filters_follow_changes(void **state)
{
	struct fixture *fixture = *state;
	const struct indexed *indexed;
	uint64_t made;

	for (uint32_t i = 0; i < VIDEOS; i++)
		put_video(fixture, i, ALL);
	indexed = kx_indexed_of(fixture->indexed->ann);
	made = indexed->filters_made;
	for (uint32_t i = 0; i < 60; i++) {
		const uint32_t number = (uint32_t)(kx_test_random(&fixture->random) % VIDEOS);
		struct kx_similar_query query = {.k = 10, .weight_visual = 1, .weight_audio = 1, .recall = 1,
						 .filter = (char *)(uintptr_t)(i % 2 ? "duration < 50" : "duration < 30")};
		float visual[VISUAL_DIM];
		struct kx_ann_vector vector = {KX_VISUAL, "pictures", VISUAL_DIM, visual};

		if (i % 5 == 4)
			remove_video(fixture, number, ALL);
		else
			put_video(fixture, i % 5 == 3 ? VIDEOS + i : number, ALL); /* new ones, too */
		fill(&fixture->random, visual, VISUAL_DIM);
		compare(fixture, &vector, 1, NULL, &query);
		free(query.cursor);
	}
	assert_true(indexed->filters_made - made <= 2);
}

static void records_ahead_of_the_index(void **state)
{
	struct fixture *fixture = *state;

	for (uint32_t i = 0; i < VIDEOS; i++)
		put_video(fixture, i, i < 1000 ? ALL : STORE_ONLY);
	churn(fixture, 500, STORE_ONLY);
	close_store(fixture);
	open_store(fixture, true);
	ask_all_sorts(fixture);
	close_store(fixture);
	open_store(fixture, false);
	ask_all_sorts(fixture);
	verify(fixture);
	churn(fixture, 100, ALL);
	ask_all_sorts(fixture);
}

/* Between the index's change and the mirror's the new state is found, or the old: a video is never missing. */
static void halfway(void **state)
{
	struct fixture *fixture = *state;
	float visual[VISUAL_DIM];
	struct kx_ann_vector vector = {KX_VISUAL, "pictures", VISUAL_DIM, visual};
	struct kx_similar_query query = {.k = 400, .weight_visual = 1.0, .weight_audio = 1.0, .recall = 1.0,
					 .filter = (char *)"duration < 90"};
	struct kx_mirror_query ask = {.vectors = &vector, .count = 1, .query = &query, .now_s = 1.7e9};
	uint32_t before = 0;

	for (uint32_t i = 0; i < 400; i++)
		put_video(fixture, i, ALL);
	fill(&fixture->random, visual, VISUAL_DIM);
	for (uint32_t i = 0; i < 400; i++) {
		struct kx_similar_answer answer = {0};
		struct kx_index_change change = {.vector = visual, .dim = VISUAL_DIM};
		char id[32];

		name_video(i, id);
		visual[0] = -visual[0];
		change.key = id;
		change.key_len = strlen(id);
		assert_int_equal(kx_index_find_space(fixture->at.index, "visual:pictures", &change.space, NULL), KX_OK);
		kx_mirror_expect(fixture->indexed, id);
		assert_int_equal(kx_index_commit(fixture->at.index, &change, 1, NULL), KX_OK);
		if (i % 50 == 0) {
			assert_int_equal(kx_mirror_search(fixture->indexed, &ask, &answer, NULL), KX_OK);
			assert_true(!before || before == answer.hit_count);
			before = answer.hit_count;
			kx_similar_answer_done(&answer);
		}
	}
}

struct searcher {
	struct fixture *fixture;
	float visual[VISUAL_DIM];
	uint32_t stable;
	atomic_uint asked;
	bool failed;
	atomic_bool stop;
};

/* How many of those that nobody changes are found. */
static uint32_t ask_for_stable(struct searcher *searcher)
{
	struct kx_ann_vector vector = {KX_VISUAL, "pictures", VISUAL_DIM, searcher->visual};
	struct kx_similar_query query = {.k = 1000, .weight_visual = 1.0, .weight_audio = 1.0, .recall = 1.0,
					 .filter = (char *)"duration < 90"};
	struct kx_mirror_query ask = {.vectors = &vector, .count = 1, .query = &query, .now_s = 1.7e9};
	struct kx_similar_answer answer = {0};
	uint32_t count = 0;

	searcher->failed = searcher->failed || kx_mirror_search(searcher->fixture->indexed, &ask, &answer, NULL);
	for (uint32_t i = 0; i < answer.hit_count; i++)
		count += atoi(answer.hits[i].video_id + 2) < (int)STABLE;
	kx_similar_answer_done(&answer);
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

	for (uint32_t i = 0; i < STABLE + 200; i++)
		put_video(fixture, i, ALL);
	fill(&fixture->random, searcher.visual, VISUAL_DIM);
	searcher.stable = ask_for_stable(&searcher);
	assert_true(searcher.stable > STABLE / 2);
	assert_int_equal(pthread_create(&thread, NULL, search_on, &searcher), 0);
	/* Until it has asked beside changes, however late it was given a CPU. */
	for (uint32_t i = 0; i < 1000 || atomic_load(&searcher.asked) < 3; i++) {
		uint32_t number = STABLE + (uint32_t)(kx_test_random(&fixture->random) % 200);

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

/* A vector that has this cosine with the first axis. */
static void aim(uint64_t *random, double cosine, float *values, uint32_t dim)
{
	for (uint32_t i = 0; i < dim; i++)
		values[i] = kx_kit_uniform(random);
	values[0] = 0.0f;
	(void)kx_learn_normalize(values, dim);
	for (uint32_t i = 0; i < dim; i++)
		values[i] *= (float)sqrt(1.0 - cosine * cosine);
	values[0] = (float)cosine;
}

/* Behind the ends of both lists the best is one that has only picture, or only sound: what the mean of the ends allows
 * is less than its score. */
static void best_behind_the_lists(void **state)
{
	struct fixture *fixture = *state;
	float visual[VISUAL_DIM], audio[AUDIO_DIM];
	struct kx_ann_vector vectors[2] = {{KX_VISUAL, "pictures", VISUAL_DIM, visual}, {KX_AUDIO, "sounds", AUDIO_DIM, audio}};
	struct kx_similar_query query = {.k = 10, .recall = 1.0};

	for (int turn = 0; turn < 2; turn++) {
		for (uint32_t i = 0; i < 900; i++) {
			double near = 0.95 - 0.4 * i / 900, far = -0.5 - 0.4 * i / 900;

			aim(&fixture->random, turn ? far : near, visual, VISUAL_DIM);
			aim(&fixture->random, turn ? near : far, audio, AUDIO_DIM);
			put_vectors(fixture, i, visual, audio, ALL);
		}
		aim(&fixture->random, 0.5, visual, VISUAL_DIM);
		aim(&fixture->random, 0.5, audio, AUDIO_DIM);
		put_vectors(fixture, 900, turn ? NULL : visual, turn ? audio : NULL, ALL);
		aim(&fixture->random, 1.0, visual, VISUAL_DIM);
		aim(&fixture->random, 1.0, audio, AUDIO_DIM);
		query.weight_visual = turn ? 0.4 : 0.6;
		query.weight_audio = turn ? 0.6 : 0.4;
		free(query.cursor);
		query.cursor = NULL;
		compare(fixture, vectors, 2, NULL, &query);
	}
	free(query.cursor);
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
		struct kx_similar_query query = {.k = 10, .weight_visual = 0.6, .weight_audio = 0.4, .recall = 0.9};
		struct kx_mirror_query ask = {.vectors = vectors, .count = 2, .query = &query, .now_s = 1.7e9};
		struct kx_similar_answer is = {0}, should = {0};

		fill(&fixture->random, visual, VISUAL_DIM);
		fill(&fixture->random, audio, AUDIO_DIM);
		assert_int_equal(kx_mirror_search(fixture->indexed, &ask, &is, NULL), KX_OK);
		assert_int_equal(kx_mirror_search(fixture->exact, &ask, &should, NULL), KX_OK);
		assert_int_equal(is.hit_count, 10);
		assert_true(is.exact || is.recall == 0.9);
		for (uint32_t a = 0; a < 10; a++)
			for (uint32_t b = 0; b < 10; b++)
				found += strcmp(is.hits[a].video_id, should.hits[b].video_id) == 0;
		all += 10;
		kx_similar_answer_done(&is);
		kx_similar_answer_done(&should);
	}
	if (found * 10 < all * 8)
		fail_msg("%u of %u", found, all);
}

static void another_space_is_refused(void **state)
{
	struct fixture *fixture = *state;
	float visual[VISUAL_DIM];
	struct kx_ann_vector vector = {KX_VISUAL, "other pictures", VISUAL_DIM, visual};
	struct kx_similar_query query = {.k = 10, .weight_visual = 1.0, .weight_audio = 1.0};
	struct kx_mirror_query ask = {.vectors = &vector, .count = 1, .query = &query};
	struct kx_similar_answer answer = {0};
	struct kx_error is = {0}, should = {0};

	fill(&fixture->random, visual, VISUAL_DIM);
	for (uint32_t i = 0; i < 20; i++)
		put_video(fixture, i, ALL);
	assert_int_equal(kx_mirror_search(fixture->indexed, &ask, &answer, &is), KX_EINVAL);
	assert_int_equal(kx_mirror_search(fixture->exact, &ask, &answer, &should), KX_EINVAL);
	assert_string_equal(is.message, should.message);
	assert_non_null(strstr(is.message, "other pictures"));
	assert_non_null(strstr(is.message, "in pictures"));
	kx_similar_answer_done(&answer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(same_as_comparing_all),
		TEST(records_ahead_of_the_index),
		TEST(halfway),
		TEST(beside_changes),
		TEST(best_behind_the_lists),
		TEST(approximately),
		TEST(another_space_is_refused),
		TEST(early_is_the_same),
		TEST(an_older_store),
		TEST(filters_follow_changes),
		TEST(early_only_by_good_totals),
		TEST(early_reads_may_fail),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
