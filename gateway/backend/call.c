#include "gateway/backend/call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/thread.h"

#define NEVER UINT64_MAX
#define HEDGE_MIN_US 1000u

struct call;

/* One question to one copy of a shard. */
struct attempt {
	struct kx_lane_waiter waiter; /* first, so that one is the other's address */
	struct call *call;
	unsigned shard;
	bool asked;
	struct kx_call_copy copy; /* what it told */
};

/* The fan-out's lock guards what a lane's thread may change: reply, failed, fails. */
struct side {
	struct attempt attempts[KX_FANOUT_COPIES_MAX];
	unsigned tried;               /* copies: asked, or found down */
	unsigned asked;
	unsigned replied;             /* of those asked */
	unsigned failed;              /* of those: that they can't */
	uint64_t hedge_at_us;
	struct kx_query_reply *reply; /* that counts */
	unsigned winner;
	struct kx_query_reply *excuse; /* the last that failed */
	bool over;                    /* no copy is left */
};

struct call {
	struct kx_fanout *fanout;
	struct kx_call_wait wait;
	struct kx_packed *const *packed;
	uint64_t deadline_us;
	kx_call_enough *enough;
	bool every;         /* copy is asked */
	uint64_t copies_us; /* until then those that do not count are waited for */
	struct side sides[]; /* [shard_count] */
};

/* A shard that stops or has no memory is no answer: a replica may well have one. */
static bool is_excuse(kx_status status)
{
	return status == KX_ECANCELED || status == KX_ENOMEM || status == KX_EIO || status == KX_EBUSY ||
	       status == KX_EFULL || status == KX_EAGAIN;
}

/* Where every copy is asked, the first one's reply counts, whenever it comes. */
static bool counts(const struct call *call, const struct side *side, unsigned copy)
{
	return side->reply == NULL || (call->every && copy < side->winner);
}

static void answered(struct kx_lane_waiter *waiter, struct kx_query_reply *reply)
{
	struct attempt *attempt = (struct attempt *)waiter;
	struct kx_fanout *fanout = attempt->call->fanout;
	struct side *side = &attempt->call->sides[attempt->shard];
	unsigned copy = (unsigned)(attempt - side->attempts);

	pthread_mutex_lock(&fanout->lock);
	side->replied++;
	if (reply->status == KX_OK && reply->stats.parts != 0)
		attempt->copy = (struct kx_call_copy){kx_lane_endpoint(fanout->shards[attempt->shard].lanes[copy]),
						      reply->stats.part, reply->stats.parts};
	if (is_excuse(reply->status)) {
		kx_query_reply_free(side->excuse);
		side->excuse = KX_STEAL(reply);
		side->failed++;
	} else if (counts(attempt->call, side, copy)) {
		kx_query_reply_free(side->reply);
		side->reply = KX_STEAL(reply);
		side->winner = copy;
	}
	pthread_cond_signal(&attempt->call->wait.changed);
	pthread_mutex_unlock(&fanout->lock);
	kx_query_reply_free(reply);
}

/* How long to wait for a copy before the next is asked too: the shard's usual time, which is its faster copy's. */
static uint64_t hedge_after_us(const struct kx_fanout *fanout, const struct kx_fanout_shard *shard)
{
	uint64_t least = 0;

	for (unsigned i = 0; i < shard->copies; i++) {
		uint64_t p95_us = kx_lane_p95_us(shard->lanes[i]);

		if (p95_us != 0 && (least == 0 || p95_us < least))
			least = p95_us;
	}
	if (least == 0)
		return fanout->hedge_us;
	return least < HEDGE_MIN_US ? HEDGE_MIN_US : least;
}

/* One more question to a shard, which is credit for hedging; or a hedged one, where there is enough of it. */
static bool may_ask(struct kx_fanout *fanout, bool hedged)
{
	bool may = true;

	pthread_mutex_lock(&fanout->lock);
	if (!hedged && fanout->hedge_credit < KX_HEDGE_BURST * KX_HEDGE_EVERY)
		fanout->hedge_credit++;
	if (hedged) {
		may = fanout->hedge_credit >= KX_HEDGE_EVERY;
		fanout->hedge_credit -= may ? KX_HEDGE_EVERY : 0;
	}
	pthread_mutex_unlock(&fanout->lock);
	return may;
}

/* Asks the next copy that is up. Without the lock: a lane's is never taken under it. */
static void ask_next(struct call *call, unsigned index)
{
	struct kx_fanout_shard *shard = &call->fanout->shards[index];
	struct side *side = &call->sides[index];
	/* In the place of one that failed it would be none. */
	bool hedged = !call->every && side->asked > side->failed;

	while (side->tried < shard->copies) {
		unsigned copy = side->tried++;
		struct attempt *attempt = &side->attempts[copy];

		if (!kx_lane_up(shard->lanes[copy]) || (!call->every && kx_lane_is_stray(shard->lanes[copy])))
			continue;
		if (!may_ask(call->fanout, hedged)) {
			atomic_fetch_add(&call->fanout->hedges_denied, 1);
			side->tried--; /* it is there still for when the others fail */
			side->hedge_at_us = NEVER;
			return;
		}
		*attempt = (struct attempt){.waiter.answered = answered, .call = call, .shard = index};
		if (kx_lane_ask(shard->lanes[copy], call->packed[index], call->deadline_us, &attempt->waiter) != KX_OK)
			continue;
		attempt->asked = true;
		side->asked++;
		if (hedged)
			atomic_fetch_add(&call->fanout->hedged, 1);
		side->hedge_at_us = side->tried == shard->copies ? NEVER
				    : call->every		? 0
								: kx_clock_mono_us() + hedge_after_us(call->fanout, shard);
		return;
	}
	side->hedge_at_us = NEVER;
	side->over = true; /* unless one that was asked still answers */
}

/* Its answer is there, and nothing else of it is wanted. */
static bool is_settled(const struct call *call, unsigned index, uint64_t now)
{
	const struct side *side = &call->sides[index];

	if (side->reply == NULL || !call->every)
		return side->reply != NULL;
	return side->tried == call->fanout->shards[index].copies && (side->replied == side->asked || now >= call->copies_us);
}

/* Under the lock. A shard whose next copy is to be asked now, or shard_count; *ret_until_us: when to look again. */
static unsigned due(const struct call *call, bool *ret_waiting, uint64_t *ret_until_us)
{
	uint64_t now = kx_clock_mono_us();

	*ret_waiting = false;
	*ret_until_us = call->every && now < call->copies_us ? call->copies_us : call->deadline_us;
	for (unsigned i = 0; i < call->fanout->shard_count; i++) {
		const struct side *side = &call->sides[i];
		bool failed = side->failed == side->asked;

		if (call->packed[i] == NULL || is_settled(call, i, now) || (side->over && failed))
			continue;
		*ret_waiting = true;
		if (!side->over && (failed || now >= side->hedge_at_us))
			return i;
		if (side->hedge_at_us < *ret_until_us)
			*ret_until_us = side->hedge_at_us;
	}
	return call->fanout->shard_count;
}

static void wait_until(struct call *call, uint64_t until_us)
{
	struct timespec until = {.tv_sec = (time_t)(until_us / 1000000u), .tv_nsec = (long)(until_us % 1000000u) * 1000};

	(void)pthread_cond_timedwait(&call->wait.changed, &call->fanout->lock, &until);
}

static void enter(struct call *call)
{
	struct kx_call_wait *wait = &call->wait;

	wait->next = call->fanout->waits;
	wait->at = &call->fanout->waits;
	if (wait->next != NULL)
		wait->next->at = &wait->next;
	call->fanout->waits = wait;
}

static void leave(struct call *call)
{
	*call->wait.at = call->wait.next;
	if (call->wait.next != NULL)
		call->wait.next->at = call->wait.at;
}

void kx_call_cancel_all(struct kx_fanout *fanout)
{
	pthread_mutex_lock(&fanout->lock);
	fanout->cancelled = true;
	for (struct kx_call_wait *wait = fanout->waits; wait != NULL; wait = wait->next)
		pthread_cond_signal(&wait->changed);
	pthread_mutex_unlock(&fanout->lock);
}

/* Under the lock. */
static bool has_enough(const struct call *call)
{
	const struct kx_query_reply *replies[KX_FANOUT_SHARDS_MAX];

	if (call->enough == NULL)
		return false;
	for (unsigned i = 0; i < call->fanout->shard_count; i++)
		replies[i] = call->sides[i].reply;
	return call->enough(replies, call->fanout->shard_count);
}

static void run(struct call *call)
{
	struct kx_fanout *fanout = call->fanout;
	bool waiting = true;

	pthread_mutex_lock(&fanout->lock);
	enter(call);
	while (waiting && !fanout->cancelled && kx_clock_mono_us() < call->deadline_us && !has_enough(call)) {
		uint64_t until_us;
		unsigned index = due(call, &waiting, &until_us);

		if (index < fanout->shard_count) {
			pthread_mutex_unlock(&fanout->lock);
			ask_next(call, index);
			pthread_mutex_lock(&fanout->lock);
		} else if (waiting) {
			wait_until(call, until_us);
		}
	}
	leave(call);
	pthread_mutex_unlock(&fanout->lock);
	for (unsigned i = 0; i < fanout->shard_count; i++)
		for (unsigned copy = 0; copy < fanout->shards[i].copies; copy++)
			if (call->sides[i].attempts[copy].asked)
				kx_lane_forget(fanout->shards[i].lanes[copy], &call->sides[i].attempts[copy].waiter);
}

static void conclude(struct call *call, unsigned index, bool cancelled, struct kx_call_result *result)
{
	const struct kx_fanout_shard *shard = &call->fanout->shards[index];
	struct side *side = &call->sides[index];
	unsigned last = side->tried > 0 ? side->tried - 1 : 0;

	result->endpoint = kx_lane_endpoint(shard->lanes[side->reply != NULL ? side->winner : last]);
	result->reply = KX_STEAL(side->reply);
	for (unsigned copy = 0; copy < shard->copies; copy++)
		result->copies[copy] = side->attempts[copy].copy;
	if (result->reply != NULL) {
		result->status = KX_OK;
		if (side->winner > 0)
			atomic_fetch_add(&call->fanout->hedges_won, 1);
	} else if (side->excuse != NULL) {
		result->status = side->excuse->status;
		snprintf(result->message, sizeof(result->message), "%s", side->excuse->message);
	} else if (side->asked == 0) {
		result->status = cancelled ? KX_ECANCELED : KX_EBUSY;
		snprintf(result->message, sizeof(result->message), "%s",
			 cancelled ? "stopping" : "it is down, holds another part, or too much waits for it");
	} else {
		result->status = cancelled ? KX_ECANCELED : KX_ETIMEDOUT;
		snprintf(result->message, sizeof(result->message), "%s", cancelled ? "stopping" : "no answer in time");
	}
	kx_query_reply_free(side->excuse);
}

static void give_up(struct kx_fanout *fanout, struct kx_call_result *results)
{
	for (unsigned i = 0; i < fanout->shard_count; i++) {
		results[i].status = KX_ENOMEM;
		strcpy(results[i].message, "out of memory");
		results[i].endpoint = kx_lane_endpoint(fanout->shards[i].lanes[0]);
	}
}

static void call_all(const struct call *asked, struct kx_call_result *results)
{
	struct kx_fanout *fanout = asked->fanout;
	struct call *call = calloc(1, sizeof(*call) + fanout->shard_count * sizeof(struct side));

	memset(results, 0, fanout->shard_count * sizeof(*results));
	if (call != NULL)
		*call = *asked;
	if (call == NULL || kx_cond_init(&call->wait.changed) != KX_OK) {
		free(call);
		give_up(fanout, results);
		return;
	}
	run(call);
	pthread_mutex_lock(&fanout->lock);
	bool cancelled = fanout->cancelled;
	pthread_mutex_unlock(&fanout->lock);
	for (unsigned i = 0; i < fanout->shard_count; i++)
		if (call->packed[i] != NULL)
			conclude(call, i, cancelled, &results[i]);
	pthread_cond_destroy(&call->wait.changed);
	free(call);
}

void kx_call(struct kx_fanout *fanout, struct kx_packed *const *packed, uint64_t deadline_us, kx_call_enough *enough,
	     struct kx_call_result *results)
{
	const struct call call = {.fanout = fanout, .packed = packed, .deadline_us = deadline_us, .enough = enough};

	call_all(&call, results);
}

void kx_call_copies(struct kx_fanout *fanout, struct kx_packed *packed, uint64_t deadline_us,
		    struct kx_call_result *results)
{
	struct kx_packed *all[KX_FANOUT_SHARDS_MAX];
	uint64_t now = kx_clock_mono_us();
	const struct call call = {.fanout = fanout, .packed = all, .deadline_us = deadline_us, .every = true,
				  .copies_us = now < deadline_us ? now + (deadline_us - now) / 2 : deadline_us};

	for (unsigned i = 0; i < fanout->shard_count; i++)
		all[i] = packed;
	call_all(&call, results);
}
