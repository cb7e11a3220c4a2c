/* A batch of queries of all sorts: each has, to the byte, the answer that it has alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/str.h"
#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "shard/query/mirror_internal.h"
#include "shard/query/testkit.h"
#include "shard/store/testkit.h"

#define VIDEOS 1200u
#define MOST 300u /* more than are asked at once, some times over */
#define WAYS 3

/* How videos are found. */
enum way { COMPARED, INDEXED, EARLY };

struct fixture {
	struct kx_kit_indexed at;
	struct kx_mirror *mirrors[WAYS];
	uint64_t random;
};

static void name_video(uint32_t number, char id[32])
{
	snprintf(id, 32, "%c/%05u.mp4", 'a' + (char)(number % 3), number);
}

/* Some are silent; one in ten is another's copy, so that scores tie. */
static void put_videos(struct fixture *fixture)
{
	for (uint32_t i = 0; i < VIDEOS;) {
		struct kx_kit_stream stream = {0};

		for (uint32_t j = 0; j < 10 && i < VIDEOS; j++, i++) {
			char id[32];

			name_video(i, id);
			kx_kit_stream_add(&stream, &(struct kx_kit_video){.id = id, .generation = 1, .parts = 1,
									  .visual_moments = 1 + i % 3,
									  .audio_moments = i % 5 == 2 ? 0 : 1 + i % 3,
									  .content = i % 10 ? i : i / 2});
		}
		assert_int_equal(kx_kit_apply(fixture->at.store, &stream, NULL), KX_OK);
		kx_kit_stream_done(&stream);
	}
}

static struct kx_mirror *mirror_new(struct fixture *fixture, enum way way)
{
	struct kx_mirror *mirror = NULL;
	struct kx_error error = {0};
	kx_status status = KX_OK;

	assert_int_equal(kx_mirror_new(&mirror), KX_OK);
	if (way != COMPARED) {
		assert_int_equal(kx_mirror_use_index(mirror, fixture->at.index, fixture->at.store, false), KX_OK);
		assert_int_equal(kx_mirror_use_moments(mirror, fixture->at.index, fixture->at.store, false), KX_OK);
	}
	status = way == EARLY ? kx_mirror_defer(mirror, fixture->at.store, fixture->at.index, NULL, &error)
			      : kx_mirror_load(mirror, fixture->at.store, &error);
	if (status)
		fail_msg("%s", error.message);
	return mirror;
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	fixture->random = kx_test_seed();
	kx_kit_indexed_make(&fixture->at);
	kx_kit_indexed_open(&fixture->at, false);
	put_videos(fixture);
	for (enum way way = COMPARED; way <= EARLY; way++)
		fixture->mirrors[way] = mirror_new(fixture, way);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	for (enum way way = COMPARED; way <= EARLY; way++)
		kx_mirror_free(fixture->mirrors[way]);
	kx_kit_indexed_close(&fixture->at);
	kx_kit_indexed_done(&fixture->at);
	free(fixture);
	return 0;
}

/* --- Queries ------------------------------------------------------------------------------------------------------ */

static char *text(const char *of)
{
	char *copy = kx_strdup(of);

	assert_non_null(copy);
	return copy;
}

static void add_vector(struct kx_similar_query *query, enum kx_modality modality, uint64_t *random)
{
	struct kx_query_vector *vector = &query->vectors[query->vector_count++];
	uint32_t dim = modality == KX_VISUAL ? KX_KIT_VISUAL_DIM : KX_KIT_AUDIO_DIM;

	*vector = (struct kx_query_vector){.modality = modality, .dim = dim};
	vector->space = text(modality == KX_VISUAL ? KX_KIT_VISUAL_SPACE : KX_KIT_AUDIO_SPACE);
	vector->values = calloc(dim, sizeof(float));
	assert_non_null(vector->values);
	for (uint32_t i = 0; i < dim; i++)
		vector->values[i] = kx_kit_uniform(random);
}

/* By a stored video, or by one vector or two. */
static void make_subject(struct kx_similar_query *query, uint64_t *random)
{
	uint64_t kind = kx_test_below(random, 5);
	char id[32];

	if (kind < 2) {
		name_video((uint32_t)kx_test_below(random, VIDEOS), id);
		query->video_id = text(id);
		return;
	}
	query->video_id = text("");
	query->vectors = calloc(2, sizeof(*query->vectors));
	assert_non_null(query->vectors);
	if (kind != 2)
		add_vector(query, KX_VISUAL, random);
	if (kind != 3)
		add_vector(query, KX_AUDIO, random);
}

static void leave_out(struct kx_similar_query *query, uint64_t *random)
{
	char id[32];

	query->not_ids = calloc(3, sizeof(char *));
	assert_non_null(query->not_ids);
	while (query->not_id_count < 3) {
		name_video((uint32_t)kx_test_below(random, 2 * VIDEOS), id);
		query->not_ids[query->not_id_count++] = text(id);
	}
}

/* early: nothing that needs all records. */
static void make_options(struct kx_similar_query *query, bool early, uint64_t *random)
{
	static const char *const filters[] = {"duration < 15", "duration < 25", "id = \"a/00003.mp4\"", "duration < 1"};

	query->k = 1 + (uint32_t)kx_test_below(random, 30);
	query->recall = 1.0;
	query->weight_visual = kx_test_below(random, 8) ? 0.7 : 0.0;
	query->weight_audio = kx_test_below(random, 8) ? 0.3 : 0.0;
	query->has_min_score = kx_test_below(random, 4) == 0;
	query->min_score = 0.4;
	query->diversity = kx_test_below(random, 12) ? 0.0 : 0.5;
	query->with_moments = kx_test_below(random, 6) == 0 && query->video_id[0];
	if (kx_test_below(random, 8) == 0)
		query->group = KX_GROUP_SOURCE;
	if (kx_test_below(random, 30) == 0)
		query->k = 2 * VIDEOS;
	if (early)
		return;
	if (kx_test_below(random, 3) == 0)
		query->filter = text(filters[kx_test_below(random, KX_ARRAY_LEN(filters))]);
	if (kx_test_below(random, 6) == 0)
		leave_out(query, random);
	if (kx_test_below(random, 10) == 0) {
		query->level = KX_LEVEL_MOMENTS;
		query->diversity = 0.0;
	}
	query->explain = query->filter && kx_test_below(random, 2);
}

/* Some of what is refused: by its options, by what is stored, by its filter, by its cursor, by its space. */
static void spoil(struct kx_similar_query *query, bool early, uint64_t *random)
{
	switch (kx_test_below(random, early ? 4 : 6)) {
	case 0:
		query->k = 0;
		break;
	case 1:
		query->weight_visual = NAN;
		break;
	case 2:
		free(query->cursor);
		query->cursor = text("nonsense");
		break;
	case 3:
		for (uint32_t i = 0; i < query->vector_count; i++)
			memset(query->vectors[i].values, 0, query->vectors[i].dim * sizeof(float));
		break;
	case 4:
		free(query->video_id);
		query->video_id = text("a/0000.mp4");
		break;
	default:
		free(query->filter);
		query->filter = text("duration < and");
		break;
	}
}

/* --- Answers ------------------------------------------------------------------------------------------------------ */

static struct kx_query_reply *answer(struct fixture *fixture, enum way way, const struct kx_query_request *request)
{
	const struct kx_query_context context = {.store = fixture->at.store, .mirror = fixture->mirrors[way]};
	struct kx_query_reply *reply = NULL;

	assert_int_equal(kx_query_answer(&context, request, &reply, NULL), KX_OK);
	return reply;
}

static struct kx_query_reply *ask_alone(struct fixture *fixture, enum way way, const struct kx_similar_query *query)
{
	return answer(fixture, way, &(struct kx_query_request){.kind = KX_QUERY_SIMILAR, .similar = *query});
}

/* As it travels, without what it cost. */
static void pack(struct kx_similar_answer of, struct kx_buf *ret)
{
	const struct kx_query_reply reply = {.message = (char *)(uintptr_t)"", .answer_count = 1, .answers = &of};

	of.work.took_us = of.work.cells = of.work.codes = of.work.refined = 0;
	assert_int_equal(kx_query_reply_pack(&reply, ret), KX_OK);
}

static void same_bytes(uint32_t number, const struct kx_similar_answer *is, const struct kx_query_reply *alone)
{
	struct kx_buf one = {.max = KX_RECORD_MAX}, two = {.max = KX_RECORD_MAX};
	struct kx_similar_answer should = alone->similar;

	if (is->status != alone->status || strcmp(is->message ? is->message : "", alone->status ? alone->message : "") != 0)
		fail_msg("query %u: %d %s, alone %d %s", number, (int)is->status, is->message, (int)alone->status, alone->message);
	should.status = alone->status;
	should.message = alone->status ? alone->message : NULL;
	pack(*is, &one);
	pack(should, &two);
	if (one.len != two.len || memcmp(one.data, two.data, one.len) != 0)
		fail_msg("query %u: %u hits, alone %u, or others", number, is->hit_count, should.hit_count);
	kx_buf_done(&one);
	kx_buf_done(&two);
}

struct seen {
	uint32_t failures, pages, hits;
};

/* Queries, of which one in eight asks for a second page, and one in twelve is wrong. */
static struct kx_similar_query *make_queries(struct fixture *fixture, uint32_t count, bool early)
{
	struct kx_similar_query *queries = calloc(count, sizeof(*queries));

	assert_non_null(queries);
	for (uint32_t i = 0; i < count; i++) {
		struct kx_query_reply *first;

		make_subject(&queries[i], &fixture->random);
		make_options(&queries[i], early, &fixture->random);
		if (kx_test_below(&fixture->random, 8) == 0) {
			first = ask_alone(fixture, INDEXED, &queries[i]);
			queries[i].cursor = KX_STEAL(first->similar.next);
			kx_query_reply_free(first);
		}
		if (kx_test_below(&fixture->random, 12) == 0)
			spoil(&queries[i], early, &fixture->random);
	}
	return queries;
}

static void compare(struct fixture *fixture, enum way together, enum way alone, uint32_t count, struct seen *seen)
{
	struct kx_similar_query *queries = make_queries(fixture, count, together == EARLY);
	struct kx_query_reply *reply = answer(
		fixture, together,
		&(struct kx_query_request){.kind = KX_QUERY_SIMILAR_BATCH, .batch = queries, .batch_count = count});

	assert_int_equal(reply->status, KX_OK);
	assert_int_equal(reply->answer_count, count);
	for (uint32_t i = 0; i < count; i++) {
		struct kx_query_reply *one = ask_alone(fixture, alone, &queries[i]);

		same_bytes(i, &reply->answers[i], one);
		seen->failures += one->status != KX_OK;
		seen->pages += one->similar.next != NULL;
		seen->hits += one->similar.hit_count;
		kx_query_reply_free(one);
	}
	kx_query_reply_free(reply);
	for (uint32_t i = 0; i < count; i++)
		kx_similar_query_done(&queries[i]);
	free(queries);
}

static void expect_all_sorts(const struct seen *seen)
{
	assert_true(seen->failures > 5);
	assert_true(seen->pages > 20);
	assert_true(seen->hits > 200);
}

static void by_comparing(void **state)
{
	struct seen seen = {0};

	for (uint32_t count = 1; count <= MOST; count = 2 * count + 1)
		compare(*state, COMPARED, COMPARED, count, &seen);
	expect_all_sorts(&seen);
}

static void by_the_index(void **state)
{
	struct seen seen = {0};

	for (uint32_t count = 1; count <= MOST; count = 2 * count + 1)
		compare(*state, INDEXED, INDEXED, count, &seen);
	compare(*state, INDEXED, INDEXED, MOST, &seen);
	expect_all_sorts(&seen);
}

/* A mirror that reads what searches find: it lacks what several of them want, and what some have found already. */
static void before_all_is_loaded(void **state)
{
	struct fixture *fixture = *state;
	struct seen seen = {0};

	assert_false(atomic_load(&fixture->mirrors[EARLY]->loaded));
	compare(fixture, EARLY, INDEXED, 3, &seen);
	assert_false(atomic_load(&fixture->mirrors[EARLY]->loaded));
	for (uint32_t count = 7; count <= MOST; count = 2 * count + 1)
		compare(fixture, EARLY, INDEXED, count, &seen);
	expect_all_sorts(&seen);
}

static struct kx_similar_query query_by(const char *id, const char *filter)
{
	return (struct kx_similar_query){.video_id = (char *)(uintptr_t)id, .filter = (char *)(uintptr_t)filter,
					 .k = 5, .weight_visual = 1, .weight_audio = 1, .recall = 1};
}

/* One of a batch that needs all records has them loaded; the others do without. */
static void one_needs_all(void **state)
{
	struct fixture *fixture = *state;
	struct kx_similar_query queries[] = {query_by("a/00003.mp4", NULL), query_by("b/00004.mp4", "duration < 25"),
					     query_by("c/00005.mp4", NULL), query_by("c/00006.mp4", NULL)};
	struct kx_query_reply *reply = answer(
		fixture, EARLY, &(struct kx_query_request){.kind = KX_QUERY_SIMILAR_BATCH, .batch = queries, .batch_count = 4});

	for (uint32_t i = 0; i < 4; i++) {
		struct kx_query_reply *one = ask_alone(fixture, INDEXED, &queries[i]);

		same_bytes(i, &reply->answers[i], one);
		kx_query_reply_free(one);
	}
	assert_int_equal(reply->answers[3].status, KX_ENOTFOUND);
	assert_true(atomic_load(&fixture->mirrors[EARLY]->loaded));
	kx_query_reply_free(reply);
}

/* A read that fails fails at most the queries that it was for, or those of its batch that lacked the same; never one that
 * then has hits and a failure, or wrong ones. */
static void reads_may_fail(void **state)
{
	struct fixture *fixture = *state;
	bool whole = false;

	for (uint64_t nth = 1; !whole; nth += 1 + nth / 8) {
		struct kx_similar_query queries[8];
		struct kx_query_reply *reply;

		assert_true(nth < 100000);
		kx_mirror_free(fixture->mirrors[EARLY]);
		fixture->mirrors[EARLY] = mirror_new(fixture, EARLY);
		for (uint32_t i = 0; i < 8; i++)
			queries[i] = query_by(i % 2 ? "a/00003.mp4" : "b/00001.mp4", NULL);
		kx_fault_arm("kv.read", nth);
		reply = answer(fixture, EARLY,
			       &(struct kx_query_request){.kind = KX_QUERY_SIMILAR_BATCH, .batch = queries, .batch_count = 8});
		kx_fault_clear();
		whole = reply->status == KX_OK;
		for (uint32_t i = 0; i < reply->answer_count; i++) {
			whole = whole && reply->answers[i].status == KX_OK;
			assert_int_equal(reply->answers[i].hit_count, reply->answers[i].status ? 0 : 5);
		}
		kx_query_reply_free(reply);
	}
}

/* What a batch does past its time. */
static void time_is_over(void **state)
{
	struct fixture *fixture = *state;
	const struct kx_query_context context = {
		.store = fixture->at.store, .mirror = fixture->mirrors[INDEXED], .deadline_us = kx_clock_mono_us() - 1};
	struct kx_similar_query queries[2] = {query_by("a/00003.mp4", NULL), query_by("b/00001.mp4", NULL)};
	const struct kx_query_request request = {.kind = KX_QUERY_SIMILAR_BATCH, .batch = queries, .batch_count = 2};
	struct kx_query_reply *reply = NULL;

	assert_int_equal(kx_query_answer(&context, &request, &reply, NULL), KX_OK);
	assert_int_equal(reply->status, KX_ETIMEDOUT);
	assert_int_equal(reply->answer_count, 0);
	kx_query_reply_free(reply);
}

/* With less recall than all, a batch finds as much as its queries alone. */
static void approximate_finds_as_much(void **state)
{
	struct fixture *fixture = *state;
	struct kx_similar_query queries[MOST] = {0};
	struct kx_query_request request = {.kind = KX_QUERY_SIMILAR_BATCH, .batch = queries, .batch_count = MOST};
	struct kx_query_reply *reply;
	uint32_t found = 0;

	for (uint32_t i = 0; i < MOST; i++) {
		make_subject(&queries[i], &fixture->random);
		queries[i].k = 10;
		queries[i].recall = 0.9;
		queries[i].weight_visual = queries[i].weight_audio = 1.0;
	}
	reply = answer(fixture, INDEXED, &request);
	for (uint32_t i = 0; i < MOST; i++) {
		struct kx_query_reply *exact;

		queries[i].recall = 1.0;
		exact = ask_alone(fixture, INDEXED, &queries[i]);
		for (uint32_t h = 0; h < exact->similar.hit_count; h++)
			for (uint32_t j = 0; j < reply->answers[i].hit_count; j++)
				found += strcmp(exact->similar.hits[h].video_id, reply->answers[i].hits[j].video_id) == 0;
		assert_int_equal(reply->answers[i].hit_count, 10);
		kx_query_reply_free(exact);
		kx_similar_query_done(&queries[i]);
	}
	assert_true(found >= 10 * MOST * 85 / 100);
	kx_query_reply_free(reply);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(by_comparing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(by_the_index, set_up, tear_down),
		cmocka_unit_test_setup_teardown(before_all_is_loaded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_needs_all, set_up, tear_down),
		cmocka_unit_test_setup_teardown(reads_may_fail, set_up, tear_down),
		cmocka_unit_test_setup_teardown(time_is_over, set_up, tear_down),
		cmocka_unit_test_setup_teardown(approximate_finds_as_much, set_up, tear_down),
	};

	kx_learn_init();
	return cmocka_run_group_tests_name("query_many", tests, NULL, NULL);
}
