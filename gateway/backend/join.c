#include "gateway/backend/join.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/base/thread.h"

enum state { WAITS, LEADS, SERVED };

/* One that asks, on its own stack. */
struct asker {
	struct asker *next;
	const struct kx_query_request *request;
	uint64_t deadline_us;
	pthread_cond_t turn;
	enum state state;
	kx_status status;
	struct kx_answer answer;
	struct kx_error error;
};

struct kx_join {
	kx_join_ask *ask;
	void *ctx;
	unsigned lanes;
	pthread_mutex_t lock;
	unsigned out;
	struct asker *first, *last; /* that wait */
	struct kx_join_stats stats;
};

kx_status kx_join_new(kx_join_ask *ask, void *ctx, unsigned lanes, struct kx_join **ret, struct kx_error *error)
{
	struct kx_join *join = calloc(1, sizeof(*join));

	if (join == NULL)
		return kx_error_nomem(error);
	*join = (struct kx_join){.ask = ask, .ctx = ctx, .lanes = lanes};
	pthread_mutex_init(&join->lock, NULL);
	*ret = join;
	return KX_OK;
}

void kx_join_free(struct kx_join *join)
{
	if (join == NULL)
		return;
	pthread_mutex_destroy(&join->lock);
	free(join);
}

void kx_join_stats(struct kx_join *join, struct kx_join_stats *ret)
{
	pthread_mutex_lock(&join->lock);
	*ret = join->stats;
	for (const struct asker *at = join->first; at != NULL; at = at->next)
		ret->waiting++;
	pthread_mutex_unlock(&join->lock);
}

static void enqueue(struct kx_join *join, struct asker *asker)
{
	if (join->last != NULL)
		join->last->next = asker;
	else
		join->first = asker;
	join->last = asker;
}

/* Under the lock. True: out of the queue. False: it was not in it any more. */
static bool leave_queue(struct kx_join *join, struct asker *asker)
{
	struct asker *before = NULL;

	for (struct asker *at = join->first; at != NULL; before = at, at = at->next) {
		if (at != asker)
			continue;
		if (before != NULL)
			before->next = at->next;
		else
			join->first = at->next;
		if (join->last == at)
			join->last = before;
		at->next = NULL;
		return true;
	}
	return false;
}

/* Under the lock. Waits for its turn to lead, for its answer, or until its time is over. */
static void wait_turn(struct kx_join *join, struct asker *asker)
{
	struct timespec until = {.tv_sec = (time_t)(asker->deadline_us / 1000000u),
				 .tv_nsec = (long)(asker->deadline_us % 1000000u) * 1000};

	while (asker->state == WAITS) {
		if (pthread_cond_timedwait(&asker->turn, &join->lock, &until) == 0)
			continue;
		if (asker->state == WAITS && leave_queue(join, asker)) {
			asker->status = kx_error_set(&asker->error, KX_ETIMEDOUT, KX_ERROR_RETRY,
						     "the query waited for those before it until its time was over");
			asker->state = SERVED;
		} else {
			/* Somebody took it along, and answers within that one's own time. */
			while (asker->state == WAITS)
				(void)pthread_cond_wait(&asker->turn, &join->lock);
		}
	}
}

/* Under the lock. The first that waits leads those behind it. */
static struct asker *take_group(struct kx_join *join, unsigned *ret_count)
{
	struct asker *group = join->first, *last = group;

	for (*ret_count = 1; *ret_count < KX_JOIN_MAX && last->next != NULL; last = last->next)
		(*ret_count)++;
	join->first = last->next;
	if (join->first == NULL)
		join->last = NULL;
	last->next = NULL;
	return group;
}

static kx_status share_failures(const struct kx_answer *from, struct kx_answer *to, struct kx_error *error)
{
	to->asked = from->asked;
	to->answered = from->answered;
	if (from->failure_count == 0)
		return KX_OK;
	to->failures = calloc(from->failure_count, sizeof(*to->failures));
	if (to->failures == NULL)
		return kx_error_nomem(error);
	for (uint32_t i = 0; i < from->failure_count; i++) {
		struct kx_shard_failure *failure = &to->failures[to->failure_count++];

		failure->shard = kx_strdup(from->failures[i].shard);
		failure->message = kx_strdup(from->failures[i].message);
		failure->status = from->failures[i].status;
		if (failure->shard == NULL || failure->message == NULL)
			return kx_error_nomem(error);
	}
	return KX_OK;
}

/* Moves answer i of the batch to the one that asked for it. */
static kx_status hand_over(struct kx_answer *from, uint32_t i, struct asker *to)
{
	struct kx_query_reply *reply = calloc(1, sizeof(*reply));

	if (reply == NULL)
		return kx_error_nomem(&to->error);
	to->answer.reply = reply;
	reply->similar = from->reply->answers[i];
	from->reply->answers[i] = (struct kx_similar_answer){0};
	reply->status = reply->similar.status;
	reply->message = KX_STEAL(reply->similar.message);
	reply->similar.status = KX_OK;
	if (reply->message == NULL)
		reply->message = kx_strdup("");
	if (reply->message == NULL)
		return kx_error_nomem(&to->error);
	return share_failures(from, &to->answer, &to->error);
}

static void serve_alone(struct kx_join *join, struct asker *asker)
{
	asker->status = join->ask(join->ctx, asker->request, asker->deadline_us, &asker->answer, &asker->error);
}

static kx_status check_batch(const struct kx_answer *answer, uint32_t count, struct kx_error *error)
{
	if (answer->reply->status != KX_OK)
		return kx_error_set(error, answer->reply->status, KX_ERROR_POISON, "%s", answer->reply->message);
	if (answer->reply->answer_count != count)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_RETRY, "a shard answers other queries than it was asked");
	return KX_OK;
}

/* Until the last of their deadlines: they differ by no more than the first one waited. */
static kx_status ask_batch(struct kx_join *join, const struct asker *group, uint32_t count, struct kx_answer *ret,
			   struct kx_error *error)
{
	struct kx_similar_query queries[KX_JOIN_MAX];
	struct kx_query_request batch = {.kind = KX_QUERY_SIMILAR_BATCH, .batch = queries, .batch_count = count};
	uint64_t deadline_us = 0;
	uint32_t i = 0;

	for (const struct asker *at = group; at != NULL; at = at->next) {
		queries[i++] = at->request->similar;
		deadline_us = at->deadline_us > deadline_us ? at->deadline_us : deadline_us;
	}
	kx_status status = join->ask(join->ctx, &batch, deadline_us, ret, error);
	return status == KX_OK ? check_batch(ret, count, error) : status;
}

static void serve_group(struct kx_join *join, struct asker *group, unsigned count)
{
	struct kx_answer answer = {0};
	struct kx_error error = {0};
	kx_status status = ask_batch(join, group, count, &answer, &error);
	/* A batch is refused only as such, by a shard that knows none: each query has a status of its own. */
	bool apart = status == KX_EINVAL || status == KX_EUNSUPPORTED;
	uint32_t i = 0;

	for (struct asker *at = group; at != NULL; at = at->next) {
		if (apart) {
			serve_alone(join, at);
			continue;
		}
		at->error = error;
		at->status = status == KX_OK ? hand_over(&answer, i++, at) : status;
		if (at->status != KX_OK)
			kx_answer_done(&at->answer);
	}
	kx_answer_done(&answer);
}

/* Under the lock: what is in the group has its answer, and the next that waits may lead. */
static void pass_on(struct kx_join *join, struct asker *group, const struct asker *self)
{
	for (struct asker *at = group, *next; at != NULL; at = next) {
		next = at->next; /* once it is served, it may be gone */
		at->state = SERVED;
		if (at != self)
			pthread_cond_signal(&at->turn);
	}
	if (join->first != NULL) {
		join->first->state = LEADS;
		pthread_cond_signal(&join->first->turn);
	} else {
		join->out--;
	}
}

static void lead(struct kx_join *join, struct asker *self)
{
	struct asker *group = self;
	unsigned count = 1;

	if (self->state == LEADS) /* it stands first in the queue */
		group = take_group(join, &count);
	join->stats.batches += count > 1;
	join->stats.joined += count > 1 ? count : 0;
	pthread_mutex_unlock(&join->lock);
	if (count > 1)
		serve_group(join, group, count);
	else
		serve_alone(join, self);
	pthread_mutex_lock(&join->lock);
	pass_on(join, group, self);
}

static void take_turn(struct kx_join *join, struct asker *self)
{
	pthread_mutex_lock(&join->lock);
	if (join->out < join->lanes) {
		join->out++;
		lead(join, self);
	} else {
		enqueue(join, self);
		wait_turn(join, self);
		if (self->state == LEADS)
			lead(join, self);
	}
	pthread_mutex_unlock(&join->lock);
}

/* With moments a query carries all of a video's: one is heavy, many would not fit a message. */
static bool may_join(const struct kx_query_request *request)
{
	return request->kind == KX_QUERY_SIMILAR && !request->similar.with_moments;
}

kx_status kx_join_answer(struct kx_join *join, const struct kx_query_request *request, uint64_t deadline_us,
			 struct kx_answer *ret, struct kx_error *error)
{
	struct asker self = {.request = request, .deadline_us = deadline_us};

	if (!may_join(request))
		return join->ask(join->ctx, request, deadline_us, ret, error);
	if (kx_cond_init(&self.turn) != KX_OK)
		return kx_error_nomem(error);
	take_turn(join, &self);
	pthread_cond_destroy(&self.turn);
	if (self.status == KX_OK)
		*ret = self.answer;
	else if (error != NULL)
		*error = self.error;
	return self.status;
}
