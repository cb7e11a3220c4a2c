#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/thread.h"
#include "common/learn/learn.h"
#include "shard/query/query.h"
#include "shard/query/testkit.h"
#include "shard/store/testkit.h"

#define CLIPS 12u

struct fixture {
	char *folder;
	struct kx_store *store;
	struct kx_mirror *mirror;
	struct kx_query_context context;
};

/* clips/00.mp4 to clips/11.mp4; 07 is silent; 09 has the content of 02. */
static void fill(struct kx_store *store)
{
	struct kx_kit_stream stream = {0};

	for (uint64_t i = 0; i < CLIPS; i++) {
		char id[32];
		struct kx_kit_video video = {.id = id, .generation = 1, .parts = 2, .visual_moments = 5,
					     .audio_moments = i == 7 ? 0 : 5, .content = i == 9 ? 2 : i};

		snprintf(id, sizeof(id), "clips/%02u.mp4", (unsigned)i);
		kx_kit_stream_add(&stream, &video);
	}
	assert_int_equal(kx_kit_apply(store, &stream, NULL), KX_OK);
	kx_kit_stream_done(&stream);
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct kx_store_options options = {0};

	assert_non_null(fixture);
	fixture->folder = kx_kit_folder();
	options.data_dir = fixture->folder;
	assert_int_equal(kx_store_open(&options, &fixture->store, NULL), KX_OK);
	fill(fixture->store);
	assert_int_equal(kx_mirror_new(&fixture->mirror), KX_OK);
	assert_int_equal(kx_mirror_load(fixture->mirror, fixture->store, NULL), KX_OK);
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

static struct kx_query_reply *ask(struct fixture *fixture, const struct kx_query_request *request)
{
	return kx_kit_ask(&fixture->context, request);
}

static struct kx_query_request similar_to(const char *id)
{
	return (struct kx_query_request){.request_id = 5,
					 .kind = KX_QUERY_SIMILAR,
					 .similar = {.video_id = (char *)(uintptr_t)id,
						     .k = 20,
						     .weight_visual = 0.6,
						     .weight_audio = 0.4}};
}

static void test_similar_by_id(void **state)
{
	struct kx_query_request request = similar_to("clips/02.mp4");
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;

	request.similar.with_moments = true;
	reply = ask(*state, &request);
	assert_int_equal(reply->status, KX_OK);
	assert_int_equal(reply->request_id, 5);
	assert_int_equal(reply->similar.hit_count, CLIPS - 1);
	assert_string_equal(reply->similar.hits[0].video_id, "clips/09.mp4");
	assert_string_equal(reply->similar.hits[0].title, "a title");
	assert_true(fabs(reply->similar.hits[0].score - 1.0) < 1e-6);
	assert_true(fabs(reply->similar.hits[0].visual - 0.6) < 1e-6);
	assert_int_equal(reply->similar.hits[0].match_count, 5);
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(reply->similar.hits[0].matches[i].ours_us, i * (uint64_t)KX_KIT_MOMENT_US);
		assert_int_equal(reply->similar.hits[0].matches[i].theirs_us, i * (uint64_t)KX_KIT_MOMENT_US);
	}
	for (uint32_t i = 0; i < reply->similar.hit_count; i++) {
		const struct kx_similar_hit *hit = &reply->similar.hits[i];

		assert_string_not_equal(hit->video_id, "clips/02.mp4");
		assert_true(fabs(hit->visual + hit->audio - hit->score) < 1e-9);
		assert_true(i == 0 || hit->score <= reply->similar.hits[i - 1].score);
		if (strcmp(hit->video_id, "clips/07.mp4") == 0) {
			assert_false(hit->has_audio);
			assert_true(hit->audio == 0.0);
		}
	}
}

static void test_similar_by_vectors_is_as_by_id(void **state)
{
	struct fixture *fixture = *state;
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *by_id = NULL, *by_vectors = NULL;
	struct kx_query_request request = similar_to("clips/04.mp4");
	struct kx_query_vector vectors[2];

	by_id = ask(fixture, &request);
	assert_int_equal(kx_store_video(fixture->store, "clips/04.mp4", &record, NULL), KX_OK);
	for (int i = 0; i < 2; i++) {
		const struct kx_modality_result *part = &record->result.modalities[i];

		vectors[i] = (struct kx_query_vector){part->modality, part->space, 0, part->dim, part->embedding};
		for (uint32_t j = 0; j < part->dim; j++)
			part->embedding[j] *= 7.0f; /* length is no matter */
	}
	request.similar.video_id = NULL;
	request.similar.vectors = vectors;
	request.similar.vector_count = 2;
	by_vectors = ask(fixture, &request);
	assert_int_equal(by_vectors->similar.hit_count, by_id->similar.hit_count + 1);
	assert_string_equal(by_vectors->similar.hits[0].video_id, "clips/04.mp4");
	for (uint32_t i = 0; i < by_id->similar.hit_count; i++) {
		assert_string_equal(by_vectors->similar.hits[i + 1].video_id, by_id->similar.hits[i].video_id);
		assert_true(fabs(by_vectors->similar.hits[i + 1].score - by_id->similar.hits[i].score) < 1e-6);
	}
}

/* Every side's times are on its own grid, whether it is stored or came with the query. */
static void test_times_are_on_their_own_grid(void **state)
{
	struct fixture *fixture = *state;
	struct kx_query_request request = similar_to("clips/02.mp4");
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *by_id = NULL, *back = NULL, *by_vectors = NULL;
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	struct kx_kit_stream stream = {0};
	float values[KX_KIT_VISUAL_DIM] = {[2] = 1.0f};
	struct kx_query_vector vector = {KX_VISUAL, (char *)KX_KIT_VISUAL_SPACE, 0, KX_KIT_VISUAL_DIM, values};
	struct kx_query_vector moment = {KX_VISUAL, (char *)KX_KIT_VISUAL_SPACE, 9, KX_KIT_VISUAL_DIM, values};

	kx_kit_stream_add(&stream, &(struct kx_kit_video){.id = "fine", .generation = 1, .parts = 1, .visual_moments = 5,
							  .audio_moments = 5, .content = 2, .moment_us = 3000000});
	assert_int_equal(kx_kit_apply(fixture->store, &stream, NULL), KX_OK);
	kx_kit_stream_done(&stream);
	assert_int_equal(kx_store_video(fixture->store, "fine", &record, NULL), KX_OK);
	assert_int_equal(kx_mirror_put(fixture->mirror, record, NULL), KX_OK);
	request.similar.with_moments = true;
	request.similar.k = 2;
	by_id = ask(fixture, &request);
	assert_string_equal(by_id->similar.hits[1].video_id, "fine");
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(by_id->similar.hits[1].matches[i].ours_us, i * (uint64_t)KX_KIT_MOMENT_US);
		assert_int_equal(by_id->similar.hits[1].matches[i].theirs_us, i * (uint64_t)3000000);
		assert_int_equal(by_id->similar.hits[0].matches[i].theirs_us, i * (uint64_t)KX_KIT_MOMENT_US);
	}
	request.similar.video_id = (char *)"fine";
	back = ask(fixture, &request);
	assert_int_equal(back->similar.hits[0].matches[4].ours_us, 12000000);
	assert_int_equal(back->similar.hits[0].matches[4].theirs_us, 4 * (uint64_t)KX_KIT_MOMENT_US);
	request.similar.video_id = NULL;
	request.similar.vectors = &vector;
	request.similar.vector_count = 1;
	request.similar.moments = &moment;
	request.similar.moment_count = 1;
	request.similar.moment_us = 2000000;
	by_vectors = ask(fixture, &request);
	assert_int_equal(by_vectors->status, KX_OK);
	assert_int_equal(by_vectors->similar.hits[0].matches[0].ours_us, 18000000);
}

static void refused(struct fixture *fixture, const struct kx_query_request *request, kx_status status,
		    const char *says)
{
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = ask(fixture, request);

	assert_int_equal(reply->status, status);
	assert_int_equal(reply->request_id, request->request_id);
	if (!strstr(reply->message, says))
		fail_msg("\"%s\" does not say \"%s\"", reply->message, says);
}

static void test_unknown_ids(void **state)
{
	struct kx_query_request request = similar_to("04.mp4");

	refused(*state, &request, KX_ENOTFOUND, "did you mean \"clips/04.mp4\"?");
	request.similar.video_id = (char *)"clips/0l.mp4";
	refused(*state, &request, KX_ENOTFOUND, "\"clips/0l.mp4\" is indexed; did you mean \"clips/0");
	request.kind = KX_QUERY_VIDEO;
	request.video_id = (char *)"something else entirely";
	refused(*state, &request, KX_ENOTFOUND, "kinodex status");
}

static void test_bad_numbers(void **state)
{
	struct kx_query_request request = similar_to("clips/04.mp4");

	request.similar.k = 0;
	refused(*state, &request, KX_EINVAL, "k is 0");
	request.similar.k = KX_QUERY_K_MAX + 1;
	refused(*state, &request, KX_EINVAL, "10000");
	request.similar.k = 3;
	request.similar.weight_audio = -0.1;
	refused(*state, &request, KX_EINVAL, "weights");
	request.similar.weight_audio = request.similar.weight_visual = 0.0;
	refused(*state, &request, KX_EINVAL, "weights");
	request.similar.video_id = (char *)"clips/07.mp4";
	request.similar.weight_audio = 1.0;
	refused(*state, &request, KX_EINVAL, "only the visual part");
	request.similar.video_id = (char *)"";
	refused(*state, &request, KX_EINVAL, "names a video or brings vectors");
}

static void test_bad_vectors(void **state)
{
	float values[KX_KIT_VISUAL_DIM] = {0};
	struct kx_query_vector vector = {KX_VISUAL, (char *)KX_KIT_VISUAL_SPACE, 0, KX_KIT_VISUAL_DIM, values};
	struct kx_query_request request = similar_to("");

	request.similar.vectors = &vector;
	request.similar.vector_count = 1;
	refused(*state, &request, KX_EINVAL, "points nowhere");
	values[3] = NAN;
	refused(*state, &request, KX_EINVAL, "no number");
	values[3] = 1.0f;
	vector.dim = KX_KIT_VISUAL_DIM - 1;
	refused(*state, &request, KX_EINVAL, "16 dimensions");
	vector.dim = 0;
	refused(*state, &request, KX_EINVAL, "0 dimensions");
	vector.dim = KX_KIT_VISUAL_DIM;
	vector.space = (char *)"visual/other";
	refused(*state, &request, KX_EINVAL, "visual/other");
	refused(*state, &request, KX_EINVAL, KX_KIT_VISUAL_SPACE);
	vector.space = (char *)KX_KIT_VISUAL_SPACE;
	request.similar.moments = &vector;
	request.similar.moment_count = 1;
	request.similar.with_moments = true;
	refused(*state, &request, KX_EINVAL, "moment_us");
	request.similar.moment_us = KX_MEDIA_US_MAX;
	vector.moment = 2;
	refused(*state, &request, KX_EINVAL, "later than any video");
}

static void test_video(void **state)
{
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;
	struct kx_query_request request = {
		.kind = KX_QUERY_VIDEO, .video_id = (char *)"clips/07.mp4", .with_moments = true};

	reply = ask(*state, &request);
	assert_int_equal(reply->status, KX_OK);
	assert_non_null(reply->video);
	assert_string_equal(reply->video->result.video_id, "clips/07.mp4");
	assert_int_equal(reply->moment_count, 5);
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(reply->moments[i].index, i);
		assert_int_equal(reply->moments[i].modality, KX_VISUAL);
		assert_int_equal(reply->moments[i].class_count, 3);
	}
}

static void test_stats_follow_changes(void **state)
{
	struct fixture *fixture = *state;
	struct kx_query_request request = {.kind = KX_QUERY_STATS};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *before = NULL, *after = NULL;
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;

	before = ask(fixture, &request);
	assert_int_equal(before->stats.videos, CLIPS);
	assert_int_equal(before->stats.moments, CLIPS * 10 - 5);
	assert_int_equal(before->stats.media_us, CLIPS * 5 * (uint64_t)KX_KIT_MOMENT_US);
	assert_int_equal(kx_store_video(fixture->store, "clips/03.mp4", &record, NULL), KX_OK);
	assert_int_equal(kx_mirror_put(fixture->mirror, record, NULL), KX_OK); /* there already */
	kx_mirror_remove(fixture->mirror, "clips/05.mp4");
	kx_mirror_remove(fixture->mirror, "clips/05.mp4");
	after = ask(fixture, &request);
	assert_int_equal(after->stats.videos, CLIPS - 1);
	assert_int_equal(after->stats.moments, CLIPS * 10 - 15);
}

static void *read_on(void *arg)
{
	struct fixture *fixture = arg;

	for (int i = 0; i < 300; i++) {
		struct kx_query_request request = similar_to("clips/02.mp4");
		KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;

		request.similar.with_moments = i % 8 == 0;
		request.similar.filter = i % 3 ? (char *)(i % 2 ? "duration>=0 and not id:x" : "class:#3 or has:visual") : NULL;
		request.similar.group = i % 5 ? KX_GROUP_NONE : KX_GROUP_SOURCE;
		request.similar.diversity = i % 7 ? 0.0 : 0.5;
		request.similar.explain = true;
		if (kx_query_answer(&fixture->context, &request, &reply, NULL) || reply->status)
			return fixture;
	}
	return NULL;
}

static void test_readers_beside_a_writer(void **state)
{
	struct fixture *fixture = *state;
	KX_CLEANUP(kx_video_record_cleanup) struct kx_video_record *record = NULL;
	pthread_t readers[2];

	assert_int_equal(kx_store_video(fixture->store, "clips/03.mp4", &record, NULL), KX_OK);
	for (int i = 0; i < 2; i++)
		assert_int_equal(kx_thread_start(&readers[i], "reader", read_on, fixture, NULL), KX_OK);
	for (int i = 0; i < 300; i++) {
		kx_mirror_remove(fixture->mirror, "clips/03.mp4");
		assert_int_equal(kx_mirror_put(fixture->mirror, record, NULL), KX_OK);
	}
	for (int i = 0; i < 2; i++) {
		void *failed;

		assert_int_equal(pthread_join(readers[i], &failed), 0);
		assert_null(failed);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_similar_by_id),
		TEST(test_similar_by_vectors_is_as_by_id),
		TEST(test_times_are_on_their_own_grid),
		TEST(test_unknown_ids),
		TEST(test_bad_numbers),
		TEST(test_bad_vectors),
		TEST(test_video),
		TEST(test_stats_follow_changes),
		TEST(test_readers_beside_a_writer),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
