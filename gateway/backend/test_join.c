/* Joining: who goes alone, who is taken along, and that each gets its own answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "gateway/backend/join.h"

#define LONG_MS 60000u
#define ASKERS 8u

/* Answers each query with one hit of the query's own name; the first waits until the gate opens. */
struct shard {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool open;
	unsigned singles, batches, largest;
	kx_status fails;
};

static void answer_one(const struct kx_similar_query *query, struct kx_similar_answer *answer)
{
	answer->message = kx_strdup(strcmp(query->video_id, "none") == 0 ? "no such video" : "");
	answer->status = strcmp(query->video_id, "none") == 0 ? KX_ENOTFOUND : KX_OK;
	answer->next = kx_strdup("");
	answer->hits = calloc(1, sizeof(*answer->hits));
	answer->hits[0].video_id = kx_strdup(query->video_id);
	answer->hit_count = 1;
}

static void count(struct shard *shard, const struct kx_query_request *request)
{
	struct timespec until = kx_clock_deadline(LONG_MS);

	pthread_mutex_lock(&shard->lock);
	shard->singles += request->kind == KX_QUERY_SIMILAR;
	shard->batches += request->kind == KX_QUERY_SIMILAR_BATCH;
	if (request->batch_count > shard->largest)
		shard->largest = request->batch_count;
	pthread_cond_broadcast(&shard->changed);
	while (!shard->open)
		assert_int_equal(pthread_cond_timedwait(&shard->changed, &shard->lock, &until), 0);
	pthread_mutex_unlock(&shard->lock);
}

static kx_status answer(void *ctx, const struct kx_query_request *request, uint64_t deadline_us, struct kx_answer *ret,
			struct kx_error *error)
{
	struct shard *shard = ctx;

	(void)deadline_us;
	count(shard, request);
	if (shard->fails != KX_OK && request->kind == KX_QUERY_SIMILAR_BATCH)
		return kx_error_set(error, shard->fails, KX_ERROR_RETRY, "no answer");
	*ret = (struct kx_answer){.reply = calloc(1, sizeof(struct kx_query_reply)), .asked = 2, .answered = 1};
	ret->failures = calloc(1, sizeof(*ret->failures));
	ret->failures[ret->failure_count++] =
		(struct kx_shard_failure){.shard = kx_strdup("s"), .message = kx_strdup("down"), .status = KX_EBUSY};
	ret->reply->message = kx_strdup("");
	if (request->kind == KX_QUERY_SIMILAR) {
		answer_one(&request->similar, &ret->reply->similar);
		free(ret->reply->message);
		ret->reply->message = KX_STEAL(ret->reply->similar.message);
		ret->reply->status = ret->reply->similar.status;
		return KX_OK;
	}
	ret->reply->answers = calloc(request->batch_count + 1, sizeof(*ret->reply->answers));
	for (uint32_t i = 0; i < request->batch_count; i++)
		answer_one(&request->batch[i], &ret->reply->answers[i]);
	ret->reply->answer_count = request->batch_count;
	return KX_OK;
}

struct asking {
	struct kx_join *join;
	char id[16];
	unsigned ms;
	kx_status status;
	struct kx_answer answer;
};

static void *ask(void *arg)
{
	struct asking *asking = arg;
	struct kx_query_request request = {.kind = KX_QUERY_SIMILAR, .similar = {.video_id = asking->id, .k = 1}};

	asking->status = kx_join_answer(asking->join, &request, kx_clock_mono_us() + asking->ms * UINT64_C(1000),
					&asking->answer, NULL);
	return NULL;
}

static void start(struct shard *shard, struct kx_join **join)
{
	*shard = (struct shard){.open = false};
	pthread_mutex_init(&shard->lock, NULL);
	assert_int_equal(kx_cond_init(&shard->changed), KX_OK);
	assert_int_equal(kx_join_new(answer, shard, 1, join, NULL), KX_OK);
}

static void wait_singles(struct shard *shard, unsigned singles)
{
	struct timespec until = kx_clock_deadline(LONG_MS);

	pthread_mutex_lock(&shard->lock);
	while (shard->singles < singles)
		assert_int_equal(pthread_cond_timedwait(&shard->changed, &shard->lock, &until), 0);
	pthread_mutex_unlock(&shard->lock);
}

static void wait_waiting(struct kx_join *join, unsigned waiting)
{
	uint64_t begun = kx_clock_mono_us();
	struct kx_join_stats stats;

	do {
		kx_join_stats(join, &stats);
		assert_true(kx_clock_mono_us() - begun < LONG_MS * 1000u);
	} while (stats.waiting != waiting);
}

static void open_gate(struct shard *shard)
{
	pthread_mutex_lock(&shard->lock);
	shard->open = true;
	pthread_cond_broadcast(&shard->changed);
	pthread_mutex_unlock(&shard->lock);
}

static void end(struct shard *shard, struct kx_join *join)
{
	kx_join_free(join);
	pthread_cond_destroy(&shard->changed);
	pthread_mutex_destroy(&shard->lock);
}

static void check(struct asking *asking)
{
	bool none = strcmp(asking->id, "none") == 0;

	assert_int_equal(asking->status, KX_OK);
	assert_int_equal(asking->answer.reply->status, none ? KX_ENOTFOUND : KX_OK);
	assert_string_equal(asking->answer.reply->message, none ? "no such video" : "");
	assert_string_equal(asking->answer.reply->similar.hits[0].video_id, asking->id);
	assert_int_equal(asking->answer.asked, 2);
	assert_string_equal(asking->answer.failures[0].shard, "s");
	kx_answer_done(&asking->answer);
}

static void test_idle_goes_alone(void **state)
{
	struct shard shard;
	struct asking asking = {.id = "a", .ms = LONG_MS};

	(void)state;
	start(&shard, &asking.join);
	open_gate(&shard);
	for (int i = 0; i < 3; i++) {
		ask(&asking);
		check(&asking);
	}
	assert_int_equal(shard.singles, 3);
	assert_int_equal(shard.batches, 0);
	end(&shard, asking.join);
}

/* All that come while the first is out go together; a deadline that passes meanwhile takes only its own out. */
static void run_behind_one(kx_status fails, struct asking *asking, struct shard *shard)
{
	struct kx_join *join;
	pthread_t threads[ASKERS];

	start(shard, &join);
	shard->fails = fails;
	for (unsigned i = 0; i < ASKERS; i++) {
		asking[i].join = join;
		if (asking[i].ms == 0)
			asking[i].ms = LONG_MS;
		if (asking[i].id[0] == '\0')
			sprintf(asking[i].id, "v%u", i);
		assert_int_equal(pthread_create(&threads[i], NULL, ask, &asking[i]), 0);
		wait_singles(shard, 1);
	}
	unsigned left = 0;
	for (unsigned i = 0; i < ASKERS; i++) {
		if (asking[i].ms != LONG_MS)
			pthread_join(threads[i], NULL);
		left += asking[i].ms == LONG_MS;
	}
	wait_waiting(join, left - 1);
	open_gate(shard);
	for (unsigned i = 0; i < ASKERS; i++)
		if (asking[i].ms == LONG_MS)
			pthread_join(threads[i], NULL);
	end(shard, join);
}

static void test_those_behind_go_together(void **state)
{
	struct asking asking[ASKERS] = {[3] = {.id = "none"}};
	struct shard shard;

	(void)state;
	run_behind_one(KX_OK, asking, &shard);
	for (unsigned i = 0; i < ASKERS; i++)
		check(&asking[i]);
	assert_int_equal(shard.singles, 1);
	assert_int_equal(shard.batches, 1);
	assert_int_equal(shard.largest, ASKERS - 1);
}

static void test_one_whose_time_is_over_leaves(void **state)
{
	struct asking asking[ASKERS] = {[2] = {.ms = 20}, [5] = {.ms = 20}};
	struct shard shard;

	(void)state;
	run_behind_one(KX_OK, asking, &shard);
	for (unsigned i = 0; i < ASKERS; i++) {
		if (i == 2 || i == 5)
			assert_int_equal(asking[i].status, KX_ETIMEDOUT);
		else
			check(&asking[i]);
	}
}

static void test_a_batch_that_fails_fails_for_all(void **state)
{
	struct asking asking[ASKERS] = {0};
	struct shard shard;
	unsigned failed = 0;

	(void)state;
	run_behind_one(KX_ETIMEDOUT, asking, &shard);
	for (unsigned i = 0; i < ASKERS; i++) {
		failed += asking[i].status == KX_ETIMEDOUT;
		if (asking[i].status == KX_OK)
			check(&asking[i]);
	}
	assert_int_equal(failed, ASKERS - 1);
}

static void test_a_shard_that_knows_no_batches(void **state)
{
	struct asking asking[ASKERS] = {0};
	struct shard shard;

	(void)state;
	run_behind_one(KX_EINVAL, asking, &shard);
	for (unsigned i = 0; i < ASKERS; i++)
		check(&asking[i]);
	assert_int_equal(shard.singles, ASKERS);
}

static void *ask_often(void *arg)
{
	struct asking *asking = arg;

	for (int i = 0; i < 300; i++) {
		ask(asking);
		if (asking->status != KX_OK || strcmp(asking->answer.reply->similar.hits[0].video_id, asking->id) != 0)
			return "another's answer";
		kx_answer_done(&asking->answer);
	}
	return NULL;
}

static void test_many(void **state)
{
	struct asking asking[ASKERS] = {0};
	struct shard shard;
	struct kx_join *join;
	pthread_t threads[ASKERS];
	void *wrong = NULL;

	(void)state;
	start(&shard, &join);
	open_gate(&shard);
	for (unsigned i = 0; i < ASKERS; i++) {
		asking[i] = (struct asking){.join = join, .ms = LONG_MS};
		sprintf(asking[i].id, "v%u", i);
		assert_int_equal(pthread_create(&threads[i], NULL, ask_often, &asking[i]), 0);
	}
	for (unsigned i = 0; i < ASKERS; i++) {
		pthread_join(threads[i], &wrong);
		assert_null(wrong);
	}
	end(&shard, join);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle_goes_alone),
		cmocka_unit_test(test_those_behind_go_together),
		cmocka_unit_test(test_one_whose_time_is_over_leaves),
		cmocka_unit_test(test_a_batch_that_fails_fails_for_all),
		cmocka_unit_test(test_a_shard_that_knows_no_batches),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
