#include "gateway/backend/lane.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/base/thread.h"

#define QUEUE 64             /* messages that ZeroMQ keeps for the endpoint */
#define PENDING_MAX 1024u    /* queries without reply */
#define TICK_MS 100
#define PROBE_US 1000000u
#define LOST_US 100000u      /* to answer, at least, before a query counts as lost: its own time may be over at once */
#define SAMPLES 64u
#define SAMPLES_MIN 16u

struct kx_packed {
	atomic_uint refs;
	uint64_t id;
	struct kx_buf bytes;
};

struct pending {
	struct pending *next;
	uint64_t id;
	uint64_t asked_us, expires_us;
	struct kx_lane_waiter *waiter; /* NULL: gave up, or a probe */
	struct kx_packed *packed;      /* NULL once sent */
};

struct kx_lane {
	char *endpoint;
	struct kx_wire_socket *socket; /* the thread's */
	pthread_t thread;
	int wake;
	pthread_mutex_t lock;
	bool stopping;
	struct pending *first; /* newest first */
	unsigned pending_count;
	bool down;
	atomic_bool stray;
	uint64_t heard_us;     /* the last reply */
	uint64_t probe_us;     /* the next probe */
	uint64_t samples[SAMPLES];
	uint64_t sample_count;
	uint64_t p95_us;
	struct kx_lane_stats stats;
};

uint64_t kx_ask_id(void)
{
	static atomic_ullong last;

	return atomic_fetch_add(&last, 1) + 1;
}

kx_status kx_packed_new(const struct kx_query_request *request, struct kx_packed **ret, struct kx_error *error)
{
	struct kx_packed *packed = calloc(1, sizeof(*packed));

	if (packed == NULL)
		return kx_error_nomem(error);
	atomic_init(&packed->refs, 1);
	packed->id = request->request_id;
	packed->bytes.max = KX_WIRE_MESSAGE_MAX;
	kx_status status = kx_query_request_pack(request, &packed->bytes);
	if (status == KX_OK) {
		*ret = packed;
		return KX_OK;
	}
	kx_packed_unref(packed);
	return kx_error_set(error, status, KX_ERROR_POISON, "the query can't be sent to a shard: %s",
			    kx_status_name(status));
}

struct kx_packed *kx_packed_ref(struct kx_packed *packed)
{
	atomic_fetch_add(&packed->refs, 1);
	return packed;
}

void kx_packed_unref(struct kx_packed *packed)
{
	if (packed == NULL || atomic_fetch_sub(&packed->refs, 1) != 1)
		return;
	kx_buf_done(&packed->bytes);
	free(packed);
}

static void wake(struct kx_lane *lane)
{
	uint64_t one = 1;

	while (write(lane->wake, &one, sizeof(one)) < 0 && errno == EINTR)
		continue;
}

static void free_pending(struct kx_lane *lane, struct pending **at)
{
	struct pending *gone = *at;

	*at = gone->next;
	lane->pending_count--;
	kx_packed_unref(gone->packed);
	free(gone);
}

static int by_time(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void take_sample(struct kx_lane *lane, uint64_t took_us)
{
	uint64_t sorted[SAMPLES];
	size_t count;

	lane->samples[lane->sample_count++ % SAMPLES] = took_us;
	if (lane->sample_count < SAMPLES_MIN || lane->sample_count % 8 != 0)
		return;
	count = lane->sample_count < SAMPLES ? lane->sample_count : SAMPLES;
	memcpy(sorted, lane->samples, count * sizeof(*sorted));
	qsort(sorted, count, sizeof(*sorted), by_time);
	lane->p95_us = sorted[(count * 95 + 99) / 100 - 1];
}

/* Under the lock. Hands the reply on, or drops it. */
static void settle(struct kx_lane *lane, struct kx_query_reply *reply)
{
	uint64_t now = kx_clock_mono_us();

	if (lane->down)
		kx_log(KX_LOG_WARN, "the shard at %s answers again", lane->endpoint);
	lane->down = false;
	lane->heard_us = now;
	for (struct pending **at = &lane->first; *at != NULL; at = &(*at)->next) {
		struct pending *pending = *at;

		if (pending->id != reply->request_id)
			continue;
		lane->stats.answered++;
		lane->stats.took_us += now - pending->asked_us;
		take_sample(lane, now - pending->asked_us);
		if (pending->waiter != NULL) {
			pending->waiter->answered(pending->waiter, reply);
			reply = NULL;
		} else {
			lane->stats.late++;
		}
		free_pending(lane, at);
		break;
	}
	kx_query_reply_free(reply);
}

static void take_reply(struct kx_lane *lane, const struct kx_wire_message *message)
{
	struct kx_query_reply *reply = NULL;
	struct kx_error error = {0};

	if (kx_query_reply_unpack(message->bytes, message->len, &reply, &error) != KX_OK) {
		kx_log(KX_LOG_WARN, "the shard at %s answers what can't be read: %s", lane->endpoint, error.message);
		return;
	}
	pthread_mutex_lock(&lane->lock);
	settle(lane, reply);
	pthread_mutex_unlock(&lane->lock);
}

/* Oldest first, which stands last. */
static struct pending *next_to_send(struct kx_lane *lane)
{
	struct pending *found = NULL;

	for (struct pending *pending = lane->first; pending != NULL; pending = pending->next)
		if (pending->packed != NULL)
			found = pending;
	return found;
}

static void send_all(struct kx_lane *lane)
{
	for (;;) {
		struct kx_error error = {0};

		pthread_mutex_lock(&lane->lock);
		struct pending *pending = next_to_send(lane);
		struct kx_packed *packed = pending != NULL ? KX_STEAL(pending->packed) : NULL;
		pthread_mutex_unlock(&lane->lock);
		if (packed == NULL)
			return;
		/* What finds no room is lost, and ends with its time: then the endpoint counts as down. */
		kx_status status = kx_wire_send(lane->socket, NULL, packed->bytes.data, packed->bytes.len, 0, &error);
		if (status != KX_OK && status != KX_EAGAIN)
			kx_log(KX_LOG_WARN, "%s", error.message);
		kx_packed_unref(packed);
	}
}

static bool add_pending(struct kx_lane *lane, struct kx_packed *packed, uint64_t expires_us, struct kx_lane_waiter *waiter)
{
	struct pending *pending = calloc(1, sizeof(*pending));
	uint64_t now = kx_clock_mono_us();

	if (pending == NULL)
		return false;
	*pending = (struct pending){.next = lane->first,
				    .id = packed->id,
				    .asked_us = now,
				    .expires_us = expires_us > now + LOST_US ? expires_us : now + LOST_US,
				    .waiter = waiter,
				    .packed = kx_packed_ref(packed)};
	lane->first = pending;
	lane->pending_count++;
	lane->stats.asked++;
	return true;
}

static void probe(struct kx_lane *lane, uint64_t now)
{
	struct kx_query_request request = {.request_id = kx_ask_id(), .kind = KX_QUERY_STATS};
	struct kx_packed *packed = NULL;

	lane->probe_us = now + PROBE_US;
	if (kx_packed_new(&request, &packed, NULL) == KX_OK)
		(void)add_pending(lane, packed, now + PROBE_US, NULL);
	kx_packed_unref(packed);
}

/* Forgets what nobody can answer in time any more, and draws the conclusion. */
static void look_around(struct kx_lane *lane)
{
	uint64_t now = kx_clock_mono_us();

	pthread_mutex_lock(&lane->lock);
	for (struct pending **at = &lane->first; *at != NULL;) {
		struct pending *pending = *at;

		if (now < pending->expires_us || pending->waiter != NULL) {
			at = &pending->next;
			continue;
		}
		lane->stats.lost++;
		if (lane->heard_us < pending->asked_us && !lane->down) {
			lane->down = true;
			kx_log(KX_LOG_WARN, "the shard at %s does not answer; it is left out until it does", lane->endpoint);
		}
		free_pending(lane, at);
	}
	if (lane->down && now >= lane->probe_us)
		probe(lane, now);
	pthread_mutex_unlock(&lane->lock);
}

static bool is_stopping(struct kx_lane *lane)
{
	pthread_mutex_lock(&lane->lock);
	bool stopping = lane->stopping;
	pthread_mutex_unlock(&lane->lock);
	return stopping;
}

static void *run(void *arg)
{
	struct kx_lane *lane = arg;
	uint64_t look_us = 0, count;

	while (!is_stopping(lane)) {
		struct kx_wire_message message = {0};
		struct kx_error error = {0};
		kx_status status = kx_wire_recv(lane->socket, TICK_MS, lane->wake, &message, &error);

		if (status == KX_OK)
			take_reply(lane, &message);
		else if (status == KX_ECANCELED)
			(void)!read(lane->wake, &count, sizeof(count));
		else if (status != KX_EAGAIN)
			kx_log(KX_LOG_ERROR, "%s", error.message);
		kx_wire_message_done(&message);
		if (kx_clock_mono_us() >= look_us) {
			look_us = kx_clock_mono_us() + TICK_MS * 1000u;
			look_around(lane);
		}
		send_all(lane);
	}
	kx_wire_socket_close(KX_STEAL(lane->socket), 0);
	return NULL;
}

static void free_lane(struct kx_lane *lane)
{
	while (lane->first != NULL)
		free_pending(lane, &lane->first);
	if (lane->socket != NULL)
		kx_wire_socket_close(lane->socket, 0);
	if (lane->wake >= 0)
		close(lane->wake);
	pthread_mutex_destroy(&lane->lock);
	free(lane->endpoint);
	free(lane);
}

kx_status kx_lane_start(struct kx_wire *wire, const char *endpoint, struct kx_lane **ret, struct kx_error *error)
{
	struct kx_lane *lane = calloc(1, sizeof(*lane));
	kx_status status = KX_OK;

	if (lane == NULL)
		return kx_error_nomem(error);
	pthread_mutex_init(&lane->lock, NULL);
	lane->endpoint = kx_strdup(endpoint);
	lane->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (lane->endpoint == NULL)
		status = kx_error_nomem(error);
	else if (lane->wake < 0)
		status = kx_error_from_errno(error, errno, "eventfd");
	if (status == KX_OK)
		status = kx_wire_client(wire, endpoint, QUEUE, &lane->socket, error);
	if (status == KX_OK)
		status = kx_thread_start(&lane->thread, "gateway-lane", run, lane, error);
	if (status == KX_OK)
		*ret = lane;
	else
		free_lane(lane);
	return status;
}

void kx_lane_stop(struct kx_lane *lane)
{
	if (lane == NULL)
		return;
	pthread_mutex_lock(&lane->lock);
	lane->stopping = true;
	pthread_mutex_unlock(&lane->lock);
	wake(lane);
	pthread_join(lane->thread, NULL);
	free_lane(lane);
}

kx_status kx_lane_ask(struct kx_lane *lane, struct kx_packed *packed, uint64_t deadline_us, struct kx_lane_waiter *waiter)
{
	kx_status status = KX_EAGAIN;

	pthread_mutex_lock(&lane->lock);
	if (lane->pending_count < PENDING_MAX)
		status = add_pending(lane, packed, deadline_us, waiter) ? KX_OK : KX_ENOMEM;
	pthread_mutex_unlock(&lane->lock);
	if (status == KX_OK)
		wake(lane);
	return status;
}

void kx_lane_forget(struct kx_lane *lane, const struct kx_lane_waiter *waiter)
{
	pthread_mutex_lock(&lane->lock);
	for (struct pending *pending = lane->first; pending != NULL; pending = pending->next)
		if (pending->waiter == waiter)
			pending->waiter = NULL;
	pthread_mutex_unlock(&lane->lock);
}

bool kx_lane_up(struct kx_lane *lane)
{
	pthread_mutex_lock(&lane->lock);
	bool up = !lane->down;
	pthread_mutex_unlock(&lane->lock);
	return up;
}

void kx_lane_set_stray(struct kx_lane *lane, bool stray)
{
	atomic_store(&lane->stray, stray);
}

bool kx_lane_is_stray(struct kx_lane *lane)
{
	return atomic_load(&lane->stray);
}

uint64_t kx_lane_p95_us(struct kx_lane *lane)
{
	pthread_mutex_lock(&lane->lock);
	uint64_t p95_us = lane->p95_us;
	pthread_mutex_unlock(&lane->lock);
	return p95_us;
}

const char *kx_lane_endpoint(const struct kx_lane *lane)
{
	return lane->endpoint;
}

void kx_lane_stats(struct kx_lane *lane, struct kx_lane_stats *ret)
{
	pthread_mutex_lock(&lane->lock);
	*ret = lane->stats;
	ret->up = !lane->down;
	pthread_mutex_unlock(&lane->lock);
}
