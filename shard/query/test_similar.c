/* What a similar query can be asked beyond the nearest: filters, pages, groups, diversity, moments, batches. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/str.h"
#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "shard/query/query.h"
#include "shard/query/testkit.h"
#include "shard/store/testkit.h"

#define CLIPS 40u

static const char *const class_names[] = {"zero", "one", "two", "three"};

struct fixture {
	char *folder;
	struct kx_store *store;
	struct kx_mirror *mirror;
	struct kx_query_context context;
};

/* a/00.mp4 .. b/39.mp4: even ones in a, odd ones in b; every fourth silent; 10 to 13 are copies of 00's content. */
static void name_clip(uint32_t i, char id[32])
{
	snprintf(id, 32, "%s/%02u.mp4", i % 2 ? "b" : "a", i % 100u);
}

static void add_clip(struct kx_store *store, uint32_t i)
{
	struct kx_kit_stream stream = {0};
	char id[32];

	name_clip(i, id);
	kx_kit_stream_add(&stream, &(struct kx_kit_video){.id = id, .generation = 1, .parts = 1, .visual_moments = 3,
							  .audio_moments = i % 4 == 3 ? 0 : 3,
							  .content = i >= 10 && i < 14 ? 0 : i});
	assert_int_equal(kx_kit_apply(store, &stream, NULL), KX_OK);
	kx_kit_stream_done(&stream);
}

/* As the catalogue would describe it: labels, language, source, and an attribute. */
static void put_clip(struct fixture *fixture, uint32_t i)
{
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	struct kx_video_record described;
	struct kx_attribute season = {.name = "season", .type = KX_ATTRIBUTE_NUMBER, .number = (double)(i % 5)};
	char *label = i % 3 ? "dog" : "cat", id[32], source[48];

	name_clip(i, id);
	snprintf(source, sizeof(source), "/films/%s", id);
	assert_int_equal(kx_store_video(fixture->store, id, &record, NULL), KX_OK);
	described = *record;
	described.info.labels = &label;
	described.info.label_count = 1;
	described.info.source = source;
	described.info.extras = (struct kx_extras){.language = i % 2 ? "en" : "de", .attribute_count = 1, .attributes = &season};
	assert_int_equal(kx_mirror_put(fixture->mirror, &described, NULL), KX_OK);
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	fixture->folder = kx_kit_folder();
	fixture->store = kx_kit_open(fixture->folder);
	assert_int_equal(kx_mirror_new(&fixture->mirror), KX_OK);
	assert_int_equal(kx_mirror_set_classes(fixture->mirror, &(struct kx_class_names){KX_VISUAL, 4, class_names}), KX_OK);
	for (uint32_t i = 0; i < CLIPS; i++) {
		add_clip(fixture->store, i);
		put_clip(fixture, i);
	}
	fixture->context = (struct kx_query_context){.store = fixture->store, .mirror = fixture->mirror};
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	kx_mirror_free(fixture->mirror);
	kx_store_close(fixture->store);
	kx_kit_folder_done(fixture->folder);
	free(fixture);
	return 0;
}

static struct kx_query_reply *ask_any(struct fixture *fixture, const struct kx_query_request *request)
{
	return kx_kit_ask(&fixture->context, request);
}

static struct kx_query_reply *ask(struct fixture *fixture, const struct kx_similar_query *query)
{
	return ask_any(fixture, &(struct kx_query_request){.request_id = 9, .kind = KX_QUERY_SIMILAR, .similar = *query});
}

static struct kx_query_reply *ask_well(struct fixture *fixture, const struct kx_similar_query *query)
{
	struct kx_query_reply *reply = ask(fixture, query);

	if (reply->status)
		fail_msg("%s", reply->message);
	return reply;
}

static void refused(struct fixture *fixture, const struct kx_similar_query *query, kx_status status, const char *says)
{
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = ask(fixture, query);

	if (reply->status != status || !strstr(reply->message, says))
		fail_msg("%d: %s", reply->status, reply->message);
	assert_int_equal(reply->similar.hit_count, 0);
}

static const struct kx_similar_query nearest = {
	.video_id = (char *)"a/00.mp4", .k = 100, .weight_visual = 0.6, .weight_audio = 0.4};

static void filters_leave_out(void **state)
{
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *all = ask_well(*state, &nearest), *some = NULL;
	struct kx_similar_query query = nearest;
	uint32_t at = 0;

	query.filter = (char *)"language=en and label:cat and season<4 or id:a/02.mp4";
	some = ask_well(*state, &query);
	assert_int_equal(all->similar.hit_count, CLIPS - 1);
	assert_true(all->similar.exact && all->similar.recall == 1.0);
	assert_int_equal(all->similar.work.rows, CLIPS);
	assert_int_equal(all->similar.work.matching, CLIPS - 1);
	/* The same hits in the same order, less those that the filter leaves out. */
	for (uint32_t i = 0; i < all->similar.hit_count; i++) {
		const struct kx_similar_hit *hit = &all->similar.hits[i];
		unsigned number = (unsigned)strtoul(hit->video_id + 2, NULL, 10);

		if (number != 2 && !(number % 2 == 1 && number % 3 == 0 && number % 5 < 4))
			continue;
		assert_true(at < some->similar.hit_count);
		assert_string_equal(some->similar.hits[at].video_id, hit->video_id);
		assert_true(some->similar.hits[at].score == hit->score);
		at++;
	}
	assert_int_equal(at, some->similar.hit_count);
	assert_int_equal(some->similar.work.matching, at);
	assert_string_equal(some->similar.hits[0].labels[0], strcmp(some->similar.hits[0].video_id, "a/02.mp4") ? "cat" : "dog");
	assert_true(kx_str_starts(some->similar.hits[0].source, "/films/"));
}

static void ids_and_scores_leave_out(void **state)
{
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *all = ask_well(*state, &nearest), *some = NULL;
	struct kx_similar_query query = nearest;
	char *ids[] = {all->similar.hits[0].video_id, all->similar.hits[3].video_id, (char *)"nowhere"};

	query.not_ids = ids;
	query.not_id_count = 3;
	query.has_min_score = true;
	query.min_score = all->similar.hits[9].score;
	some = ask_well(*state, &query);
	assert_int_equal(some->similar.hit_count, 8);
	assert_int_equal(some->similar.work.matching, CLIPS - 3);
	assert_string_equal(some->similar.hits[0].video_id, all->similar.hits[1].video_id);
	assert_string_equal(some->similar.hits[7].video_id, all->similar.hits[9].video_id);
	assert_string_equal(some->similar.next, "");
}

/* Page by page it is the same as at once, whatever the page's size. */
static void walk_pages(struct fixture *fixture, const struct kx_similar_query *query, uint32_t k)
{
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *all = ask_well(fixture, query);
	struct kx_similar_query page = *query;
	char *cursor = NULL;
	uint32_t at = 0;

	page.k = k;
	do {
		KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;

		page.cursor = cursor;
		reply = ask_well(fixture, &page);
		assert_false(reply->similar.changed);
		assert_true(reply->similar.hit_count > 0);
		for (uint32_t i = 0; i < reply->similar.hit_count; i++, at++) {
			assert_true(at < all->similar.hit_count);
			assert_string_equal(reply->similar.hits[i].video_id, all->similar.hits[at].video_id);
			assert_true(reply->similar.hits[i].score == all->similar.hits[at].score);
			assert_int_equal(reply->similar.hits[i].moment_start_us, all->similar.hits[at].moment_start_us);
		}
		free(cursor);
		cursor = reply->similar.next[0] ? kx_strdup(reply->similar.next) : NULL;
		assert_int_equal(cursor != NULL, at < all->similar.hit_count);
	} while (cursor);
}

static void pages_add_up(void **state)
{
	struct kx_similar_query query = nearest;

	for (uint32_t k = 1; k < 42; k += 5)
		walk_pages(*state, &query, k);
	query.filter = (char *)"not label:cat";
	walk_pages(*state, &query, 4);
	query.group = KX_GROUP_SOURCE;
	walk_pages(*state, &query, 1);
	query.group = KX_GROUP_NONE;
	query.level = KX_LEVEL_MOMENTS;
	walk_pages(*state, &query, 7);
	query.group = KX_GROUP_SOURCE;
	walk_pages(*state, &query, 7);
}

/* Between any two pages videos come and go: no id comes twice, and nothing breaks. */
static void pages_of_a_store_that_changes(void **state)
{
	struct fixture *fixture = *state;
	struct kx_similar_query page = nearest;
	KX_CLEANUP(kx_cleanup_free) char *cursor = NULL;
	bool seen[CLIPS] = {false}, changed = false;
	uint64_t random = kx_test_seed();

	page.k = 3;
	do {
		KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;

		page.cursor = cursor;
		reply = ask_well(fixture, &page);
		for (uint32_t i = 0; i < reply->similar.hit_count; i++) {
			unsigned number = (unsigned)strtoul(reply->similar.hits[i].video_id + 2, NULL, 10);

			assert_false(seen[number]);
			seen[number] = true;
		}
		changed |= reply->similar.changed;
		free(cursor);
		cursor = reply->similar.next[0] ? kx_strdup(reply->similar.next) : NULL;
		for (int i = 0; i < 3; i++) {
			uint32_t number = 1 + (uint32_t)kx_test_below(&random, CLIPS - 1);
			char id[32];

			name_clip(number, id);
			if (kx_test_below(&random, 2))
				kx_mirror_remove(fixture->mirror, id);
			else
				put_clip(fixture, number);
		}
	} while (cursor);
	assert_true(changed);
}

static void cursors_of_others_are_refused(void **state)
{
	struct kx_similar_query query = nearest, other = nearest;
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;

	query.k = 5;
	reply = ask_well(*state, &query);
	assert_true(reply->similar.next[0] != '\0');
	other.cursor = reply->similar.next;
	other.filter = (char *)"label:dog";
	refused(*state, &other, KX_EINVAL, "another query");
	other.filter = NULL;
	other.cursor = (char *)"00112233";
	refused(*state, &other, KX_EINVAL, "none that an answer gave");
	other.cursor = reply->similar.next;
	other.diversity = 0.5;
	refused(*state, &other, KX_EINVAL, "one page");
}

static void groups_tell_the_best(void **state)
{
	struct fixture *fixture = *state;
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *all = ask_well(fixture, &nearest), *by_source = NULL;
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *by_duplicates = NULL, *alone = NULL;
	const struct kx_duplicate_pair pairs[] = {{"b/11.mp4", "a/10.mp4"}, {"a/12.mp4", "a/10.mp4"}, {"gone", "a/10.mp4"}};
	struct kx_similar_query query = nearest;

	query.group = KX_GROUP_SOURCE;
	by_source = ask_well(fixture, &query);
	assert_int_equal(by_source->similar.hit_count, 2);
	assert_string_equal(by_source->similar.hits[0].video_id, all->similar.hits[0].video_id);
	assert_string_equal(by_source->similar.hits[0].group_key,
			    all->similar.hits[0].video_id[0] == 'a' ? "/films/a/" : "/films/b/");
	assert_int_equal(kx_mirror_set_duplicates(fixture->mirror, pairs, 3), KX_OK);
	query.group = KX_GROUP_DUPLICATES;
	by_duplicates = ask_well(fixture, &query);
	assert_int_equal(by_duplicates->similar.hit_count, CLIPS - 3);
	assert_string_equal(by_duplicates->similar.hits[0].group_key, "a/10.mp4");
	query.group = KX_GROUP_NONE;
	query.filter = (char *)"has:duplicate_of";
	alone = ask_well(fixture, &query);
	assert_int_equal(alone->similar.hit_count, 2);
	assert_int_equal(kx_mirror_set_duplicates(fixture->mirror, NULL, 0), KX_OK);
	refused(fixture, &(struct kx_similar_query){.video_id = (char *)"nowhere", .k = 1, .weight_visual = 1}, KX_ENOTFOUND,
		"no video");
}

/* 10 to 13 are alike: with diversity only one of them is among the first. */
static void diversity_spreads(void **state)
{
	struct kx_similar_query query = nearest;
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *plain = NULL, *spread = NULL;
	unsigned alike = 0, alike_spread = 0;

	query.k = 4;
	plain = ask_well(*state, &query);
	query.diversity = 0.7;
	spread = ask_well(*state, &query);
	assert_int_equal(spread->similar.hit_count, 4);
	assert_string_equal(spread->similar.hits[0].video_id, plain->similar.hits[0].video_id);
	assert_string_equal(spread->similar.next, "");
	for (int i = 0; i < 4; i++) {
		alike += plain->similar.hits[i].score > 0.9;
		alike_spread += spread->similar.hits[i].score > 0.9;
	}
	assert_true(alike >= 3);
	assert_int_equal(alike_spread, 1);
}

static void moments_are_found(void **state)
{
	struct fixture *fixture = *state;
	struct kx_similar_query query = nearest;
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL, *grouped = NULL, *filtered = NULL;

	query.level = KX_LEVEL_MOMENTS;
	query.k = 1000;
	reply = ask_well(fixture, &query);
	assert_int_equal(reply->similar.hit_count, (CLIPS - 1) * 3);
	assert_int_equal(reply->similar.work.rows, (CLIPS - 1) * 6 - 30); /* ten are silent */
	for (uint32_t i = 0; i < reply->similar.hit_count; i++) {
		const struct kx_similar_hit *hit = &reply->similar.hits[i];

		assert_true(hit->has_moment && hit->moment_end_us > hit->moment_start_us);
		assert_true(fabs(hit->visual + hit->audio - hit->score) < 1e-9);
		assert_true(i == 0 || hit->score <= hit[-1].score);
		assert_string_equal(hit->title, "a title");
	}
	query.group = KX_GROUP_SOURCE;
	grouped = ask_well(fixture, &query);
	assert_int_equal(grouped->similar.hit_count, CLIPS - 1);
	assert_string_equal(grouped->similar.hits[0].group_key, grouped->similar.hits[0].video_id);
	assert_true(grouped->similar.hits[0].score == reply->similar.hits[0].score);
	query.filter = (char *)"id:b/11.mp4";
	query.explain = true;
	filtered = ask_well(fixture, &query);
	assert_int_equal(filtered->similar.hit_count, 1);
	assert_int_equal(filtered->similar.hits[0].clause_count, 1);
	query.diversity = 0.5;
	refused(fixture, &query, KX_EINVAL, "group moments by source");
}

/* A moment of a stored video, brought as vectors, finds itself. */
static void a_moment_finds_itself(void **state)
{
	struct fixture *fixture = *state;
	struct kx_similar_query query = {.vector_count = 1, .k = 1, .weight_visual = 1, .level = KX_LEVEL_MOMENTS};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *first = NULL, *again = NULL;
	float values[KX_KIT_VISUAL_DIM] = {0.3f, -0.2f, 0.9f};
	struct kx_query_vector vector = {KX_VISUAL, (char *)KX_KIT_VISUAL_SPACE, 0, KX_KIT_VISUAL_DIM, values};

	query.vectors = &vector;
	first = ask_well(fixture, &query);
	assert_int_equal(first->similar.hit_count, 1);
	assert_false(first->similar.hits[0].has_audio);
	query.has_min_score = true;
	query.min_score = first->similar.hits[0].score;
	query.k = 50;
	again = ask_well(fixture, &query);
	assert_string_equal(again->similar.hits[0].video_id, first->similar.hits[0].video_id);
	assert_true(again->similar.hits[again->similar.hit_count - 1].score == first->similar.hits[0].score);
}

static void hits_are_explained(void **state)
{
	struct kx_similar_query query = nearest;
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;
	const struct kx_filter_clause *clauses;

	query.filter = (char *)"id:a/30.mp4 and (label:dog or season = 0) and not language=en and class:#0 >= 0";
	query.explain = true;
	reply = ask_well(*state, &query);
	assert_int_equal(reply->similar.hit_count, 1);
	clauses = reply->similar.hits[0].clauses;
	assert_int_equal(reply->similar.hits[0].clause_count, 5);
	assert_string_equal(clauses[0].clause, "id = a/30.mp4");
	assert_true(clauses[0].passed);
	assert_string_equal(clauses[1].clause, "label = dog");
	assert_false(clauses[1].passed);
	assert_string_equal(clauses[1].value, "cat");
	assert_string_equal(clauses[2].value, "0");
	assert_true(clauses[2].passed);
	assert_string_equal(clauses[3].clause, "language = en");
	assert_false(clauses[3].passed);
	assert_string_equal(clauses[3].value, "de");
}

static void batches_answer_each(void **state)
{
	struct kx_similar_query queries[] = {nearest, nearest, nearest};
	struct kx_query_request request = {.request_id = 3, .kind = KX_QUERY_SIMILAR_BATCH, .batch_count = 3, .batch = queries};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL, *empty = NULL;

	queries[0].k = 2;
	queries[1].filter = (char *)"seson=3";
	queries[2].filter = (char *)"season=3";
	reply = ask_any(*state, &request);
	assert_int_equal(reply->status, KX_OK);
	assert_int_equal(reply->answer_count, 3);
	assert_int_equal(reply->answers[0].hit_count, 2);
	assert_int_equal(reply->answers[1].status, KX_EINVAL);
	assert_non_null(strstr(reply->answers[1].message, "did you mean \"season\"?"));
	assert_int_equal(reply->answers[2].status, KX_OK);
	assert_int_equal(reply->answers[2].hit_count, CLIPS / 5);
	request.batch_count = 0;
	assert_int_equal(kx_query_answer(&((struct fixture *)*state)->context, &request, &empty, NULL), KX_OK);
	assert_int_equal(empty->status, KX_EINVAL);
}

static void videos_come_by_id(void **state)
{
	char *ids[] = {(char *)"a/00.mp4", (char *)"nowhere", (char *)"b/01.mp4"};
	struct kx_query_request request = {.kind = KX_QUERY_VIDEOS, .video_id_count = 3, .video_ids = ids};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = ask_any(*state, &request), *schema = NULL;

	assert_int_equal(reply->found_count, 3);
	assert_string_equal(reply->found[0].video->result.video_id, "a/00.mp4");
	assert_null(reply->found[1].video);
	assert_string_equal(reply->found[1].video_id, "nowhere");
	assert_non_null(reply->found[2].video);
	request.kind = KX_QUERY_SCHEMA;
	schema = ask_any(*state, &request);
	assert_int_equal(schema->status, KX_OK);
	assert_true(schema->attribute_count > 10);
}

static void bad_queries_are_refused(void **state)
{
	struct kx_similar_query query = nearest;
	char *large = malloc((1 << 20) + 1);

	assert_non_null(large);
	memset(large, 'a', 1 << 20);
	large[1 << 20] = '\0';
	query.filter = large;
	refused(*state, &query, KX_ETOOBIG, "1048576 bytes, and at most 65536");
	memset(large, '(', 1000);
	large[1000] = '\0';
	refused(*state, &query, KX_EINVAL, "more than 64 brackets");
	free(large);
	query.filter = (char *)"class:thre";
	refused(*state, &query, KX_EINVAL, "did you mean \"three\"?");
	query = nearest;
	query.has_min_score = true;
	query.min_score = NAN;
	refused(*state, &query, KX_EINVAL, "min_score is nan");
	query = nearest;
	query.diversity = 2.0;
	refused(*state, &query, KX_EINVAL, "diversity is 2");
	query = nearest;
	query.recall = NAN;
	refused(*state, &query, KX_EINVAL, "recall is nan");
	query = nearest;
	query.k = 0;
	refused(*state, &query, KX_EINVAL, "k is 0");
	query.k = 1000000000;
	refused(*state, &query, KX_EINVAL, "k is 1000000000, it must be 1 to 10000");
	query = nearest;
	query.not_id_count = KX_QUERY_NOT_IDS_MAX + 1;
	refused(*state, &query, KX_EINVAL, "10001 ids to leave out");
	query = nearest;
	query.level = (enum kx_query_level)7;
	refused(*state, &query, KX_EINVAL, "a level that there is not");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(filters_leave_out),
		TEST(ids_and_scores_leave_out),
		TEST(pages_add_up),
		TEST(pages_of_a_store_that_changes),
		TEST(cursors_of_others_are_refused),
		TEST(groups_tell_the_best),
		TEST(diversity_spreads),
		TEST(moments_are_found),
		TEST(a_moment_finds_itself),
		TEST(hits_are_explained),
		TEST(batches_answer_each),
		TEST(videos_come_by_id),
		TEST(bad_queries_are_refused),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
