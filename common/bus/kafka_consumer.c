/* The Kafka bus: consuming. One librdkafka consumer for each of ours; rebalances run on the thread that receives.
 *
 * Only the contiguous finished offset is stored, and librdkafka commits what is stored: every second, when a
 * partition goes, and on close. Messages are copied out of librdkafka, because one that is worked on for minutes
 * would hold the whole response that it came in. */
#include <errno.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/thread.h"
#include "common/bus/kafka_impl.h"
#include "common/bus/progress.h"

/* At capacity the fetched messages are worth keeping for a moment: pausing throws them away. */
#define PAUSE_AFTER_MS 200
/* For the last commit and the group's leave to go. A broker that is connected and slow finds both in its socket when
 * it comes round, so this is for one that has to be connected to first; where there is none, nobody waits longer. */
#define CLOSE_TIMEOUT_MS 3000
#define CLOSE_POLL_MS 50
#define HEARTBEAT_MS 1000 /* members learn of a rebalance by it */
#define POLL_MS 500 /* the longest wait in librdkafka, so that pausing and waking are never far */

struct share {
	uint64_t epoch; /* 0: not assigned */
	struct kx_bus_progress progress;
};

struct kafka_consumer {
	struct kx_bus_consumer base;
	struct kx_bus_kafka *bus;
	const struct kx_bus_kafka_topic *topic;
	struct kx_bus_subscription subscription; /* its strings are not kept */
	rd_kafka_t *handle;
	rd_kafka_queue_t *queue;
	bool paused; /* the receiving thread's */
	rd_kafka_resp_err_t broken; /* a rebalance that failed: nothing would ever come again. Likewise */
	atomic_bool woken;
	bool left; /* the group knows */
	rd_kafka_topic_partition_list_t *chosen; /* NULL: the group's coordinator assigns */
	bool assigned; /* of those: done, by the receiving thread */

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t acked; /* room after being at capacity, or woken */
	struct share *shares; /* a partition each; grown by the receiving thread when the topic grew */
	int partitions;
	size_t in_flight_bytes, held;
};

static bool at_capacity(const struct kafka_consumer *consumer)
{
	size_t max = consumer->subscription.in_flight_bytes_max;

	return (max && consumer->in_flight_bytes >= max) || consumer->held >= KX_BUS_HELD_MAX;
}

/* A partition beyond those that the topic had at first: Kafka lets a topic grow. */
static kx_status make_room(struct kafka_consumer *consumer, int partition)
{
	struct share *shares;

	if (partition < consumer->partitions)
		return KX_OK;
	shares = realloc(consumer->shares, ((size_t)partition + 1) * sizeof(*shares));
	if (!shares)
		return KX_ENOMEM;
	for (int i = consumer->partitions; i <= partition; i++)
		shares[i] = (struct share){0};
	consumer->shares = shares;
	consumer->partitions = partition + 1;
	return KX_OK;
}

static kx_status begin(struct kafka_consumer *consumer, int partition)
{
	kx_status status;

	pthread_mutex_lock(&consumer->lock);
	status = make_room(consumer, partition);
	if (status == KX_OK) {
		consumer->shares[partition].epoch = atomic_fetch_add(&consumer->bus->epoch, 1) + 1;
		kx_bus_progress_reset(&consumer->shares[partition].progress, -1);
	}
	pthread_mutex_unlock(&consumer->lock);
	return status;
}

/* From now on acknowledgements of this partition's messages change nothing. */
static void fence(struct kafka_consumer *consumer, int partition)
{
	pthread_mutex_lock(&consumer->lock);
	if (partition < consumer->partitions) {
		struct share *share = &consumer->shares[partition];

		share->epoch = 0;
		consumer->in_flight_bytes -= share->progress.in_flight_bytes;
		consumer->held -= share->progress.held;
		kx_bus_progress_reset(&share->progress, -1);
	}
	pthread_mutex_unlock(&consumer->lock);
}

static void consume_error(struct kafka_consumer *consumer, const char *what, rd_kafka_error_t *error)
{
	if (!error)
		return;
	kx_log(KX_LOG_WARN, "Kafka consumer: %s: %s", what, rd_kafka_error_string(error));
	consumer->broken = rd_kafka_error_code(error);
	rd_kafka_error_destroy(error);
}

/* Without the books and the callbacks. */
static void hand_to_librdkafka(struct kafka_consumer *consumer, rd_kafka_topic_partition_list_t *partitions)
{
	rd_kafka_resp_err_t code;

	if (!consumer->chosen) {
		consume_error(consumer, "assigning partitions", rd_kafka_incremental_assign(consumer->handle, partitions));
		return;
	}
	code = rd_kafka_assign(consumer->handle, partitions);
	if (code) {
		kx_log(KX_LOG_WARN, "Kafka consumer: assigning partitions: %s", rd_kafka_err2str(code));
		consumer->broken = code;
	}
}

static void assign(struct kafka_consumer *consumer, rd_kafka_topic_partition_list_t *partitions)
{
	const struct kx_bus_subscription *subscription = &consumer->subscription;

	for (int i = 0; i < partitions->cnt; i++) {
		rd_kafka_topic_partition_t *at = &partitions->elems[i];

		if (begin(consumer, at->partition) != KX_OK)
			consumer->broken = RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE;
		if (subscription->resume) {
			at->offset = subscription->resume(subscription->ctx, at->partition);
			if (at->offset < 0)
				at->offset = RD_KAFKA_OFFSET_BEGINNING;
		}
	}
	hand_to_librdkafka(consumer, partitions);
	if (consumer->paused)
		rd_kafka_pause_partitions(consumer->handle, partitions);
	for (int i = 0; subscription->assigned && i < partitions->cnt; i++)
		subscription->assigned(subscription->ctx, partitions->elems[i].partition);
}

/* Tells whoever works on them that they are gone. */
static void take_away(struct kafka_consumer *consumer, const rd_kafka_topic_partition_list_t *partitions)
{
	const struct kx_bus_subscription *subscription = &consumer->subscription;

	for (int i = 0; i < partitions->cnt; i++) {
		fence(consumer, partitions->elems[i].partition);
		if (subscription->revoked)
			subscription->revoked(subscription->ctx, partitions->elems[i].partition);
	}
}

/* Once a partition is fenced what is stored of it is final; incremental_unassign() commits that before the group
 * hears of anything, and if the partition was lost the broker refuses it. */
static void revoke(struct kafka_consumer *consumer, rd_kafka_topic_partition_list_t *partitions)
{
	take_away(consumer, partitions);
	consume_error(consumer, "returning partitions", rd_kafka_incremental_unassign(consumer->handle, partitions));
}

static void on_rebalance(rd_kafka_t *handle, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t *partitions,
			 void *ctx)
{
	struct kafka_consumer *consumer = ctx;

	if (consumer->chosen) { /* nobody assigns, and closing takes away by itself */
		rd_kafka_assign(handle, NULL);
	} else if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
		assign(consumer, partitions);
	} else if (code == RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) {
		revoke(consumer, partitions);
	} else {
		kx_log(KX_LOG_WARN, "Kafka consumer: rebalance: %s", rd_kafka_err2str(code));
		rd_kafka_assign(handle, NULL);
	}
}

/* A commit that fails costs that messages come again, and the next one makes good for it. */
static void on_commit(rd_kafka_t *handle, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t *offsets,
		      void *ctx)
{
	const struct kafka_consumer *consumer = ctx;

	(void)handle;
	(void)offsets;
	if (code && code != RD_KAFKA_RESP_ERR__NO_OFFSET)
		kx_log(KX_LOG_DEBUG, "Kafka topic '%s': commit: %s", consumer->topic->name, rd_kafka_err2str(code));
}

static kx_status configure(const struct kafka_consumer *consumer, rd_kafka_conf_t *conf, struct kx_error *error)
{
	static const struct {
		const char *key, *value;
	} settings[] = {
		{"enable.auto.commit", "true"},
		{"auto.commit.interval.ms", "1000"},
		{"enable.auto.offset.store", "false"}, /* only what was acknowledged, see kx_bus_kafka_ack() */
		{"auto.offset.reset", "earliest"},
		{"partition.assignment.strategy", "cooperative-sticky"},
		{"fetch.message.max.bytes", "4194304"},
		{"fetch.max.bytes", "33554432"},
		{"receive.message.max.bytes", "50331648"},
		{"queued.max.messages.kbytes", "32768"}, /* fetched ahead */
	};
	int session_ms = consumer->bus->session_timeout_ms;
	int heartbeat_ms = session_ms / 4 < HEARTBEAT_MS ? session_ms / 4 : HEARTBEAT_MS;
	kx_status status = kx_bus_kafka_conf_set(conf, "group.id", consumer->subscription.group, error);

	for (size_t i = 0; status == KX_OK && i < KX_ARRAY_LEN(settings); i++)
		status = kx_bus_kafka_conf_set(conf, settings[i].key, settings[i].value, error);
	if (status == KX_OK)
		status = kx_bus_kafka_conf_set_number(conf, "session.timeout.ms", session_ms, error);
	if (status == KX_OK)
		status = kx_bus_kafka_conf_set_number(conf, "heartbeat.interval.ms", heartbeat_ms, error);
	/* A watchdog for a receiving thread that hangs, no more: jobs run on other threads. */
	if (status == KX_OK)
		status = kx_bus_kafka_conf_set_number(conf, "max.poll.interval.ms", 60000L + session_ms, error);
	rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
	rd_kafka_conf_set_offset_commit_cb(conf, on_commit);
	rd_kafka_conf_set_opaque(conf, (void *)(uintptr_t)consumer);
	return status;
}

static void consumer_free(struct kafka_consumer *consumer)
{
	if (consumer->chosen)
		rd_kafka_topic_partition_list_destroy(consumer->chosen);
	if (consumer->queue)
		rd_kafka_queue_destroy(consumer->queue);
	if (consumer->handle)
		rd_kafka_destroy_flags(consumer->handle, consumer->left ? 0 : RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	for (int i = 0; i < consumer->partitions; i++)
		kx_bus_progress_done(&consumer->shares[i].progress);
	free(consumer->shares);
	pthread_cond_destroy(&consumer->acked);
	pthread_mutex_destroy(&consumer->lock);
	free(consumer);
}

static void consumer_cleanup(struct kafka_consumer **consumer)
{
	if (*consumer)
		consumer_free(*consumer);
}

static struct kafka_consumer *consumer_new(struct kx_bus *bus, const struct kx_bus_subscription *subscription)
{
	struct kafka_consumer *consumer = calloc(1, sizeof(*consumer));

	if (!consumer)
		return NULL;
	if (kx_cond_init(&consumer->acked) != KX_OK) {
		free(consumer);
		return NULL;
	}
	pthread_mutex_init(&consumer->lock, NULL);
	consumer->base.ops = bus->ops;
	consumer->bus = (struct kx_bus_kafka *)bus;
	consumer->topic = kx_bus_kafka_find(consumer->bus, subscription->topic);
	consumer->subscription = *subscription;
	if (subscription->partitions)
		consumer->chosen = rd_kafka_topic_partition_list_new(subscription->partition_count);
	for (int i = 0; consumer->chosen && i < subscription->partition_count; i++)
		rd_kafka_topic_partition_list_add(consumer->chosen, subscription->topic, subscription->partitions[i]);
	return consumer;
}

static kx_status connect_consumer(struct kafka_consumer *consumer, struct kx_error *error)
{
	KX_CLEANUP(kx_bus_kafka_conf_cleanup) rd_kafka_conf_t *conf = NULL;
	char text[256];
	kx_status status = kx_bus_kafka_conf_new(consumer->bus->brokers, &conf, error);

	if (status == KX_OK)
		status = configure(consumer, conf, error);
	if (status != KX_OK)
		return status;
	consumer->handle = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text));
	if (!consumer->handle)
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "Kafka consumer: %s", text);
	(void)KX_STEAL(conf); /* the consumer's now */
	rd_kafka_poll_set_consumer(consumer->handle);
	consumer->queue = rd_kafka_queue_get_consumer(consumer->handle);
	return KX_OK;
}

kx_status kx_bus_kafka_subscribe(struct kx_bus *bus, const struct kx_bus_subscription *subscription,
				 struct kx_bus_consumer **ret, struct kx_error *error)
{
	KX_CLEANUP(consumer_cleanup) struct kafka_consumer *consumer = consumer_new(bus, subscription);
	rd_kafka_topic_partition_list_t *topics;
	rd_kafka_resp_err_t code;
	kx_status status;

	if (!consumer)
		return kx_error_nomem(error);
	status = connect_consumer(consumer, error);
	if (status != KX_OK)
		return status;
	if (consumer->chosen) { /* the receiving thread takes them: resume() and assigned() run there */
		*ret = &KX_STEAL(consumer)->base;
		return KX_OK;
	}
	topics = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_list_add(topics, subscription->topic, RD_KAFKA_PARTITION_UA);
	code = rd_kafka_subscribe(consumer->handle, topics);
	rd_kafka_topic_partition_list_destroy(topics);
	if (code)
		return kx_bus_kafka_error(error, code, "subscribing to topic", subscription->topic);
	*ret = &KX_STEAL(consumer)->base;
	return KX_OK;
}

/* At capacity: waits a moment for an acknowledgement. true: still there. */
static bool wait_room(struct kafka_consumer *consumer, int timeout_ms)
{
	bool full;
	int rc = 0;

	pthread_mutex_lock(&consumer->lock);
	full = at_capacity(consumer);
	if (full && !consumer->paused && timeout_ms > 0) {
		struct timespec deadline = kx_clock_deadline((uint64_t)timeout_ms);

		while (at_capacity(consumer) && !atomic_load(&consumer->woken) && rc != ETIMEDOUT)
			rc = pthread_cond_timedwait(&consumer->acked, &consumer->lock, &deadline);
		full = at_capacity(consumer);
	}
	pthread_mutex_unlock(&consumer->lock);
	return full;
}

/* Pauses or resumes every partition there is. */
static void set_paused(struct kafka_consumer *consumer, bool paused)
{
	rd_kafka_topic_partition_list_t *partitions;

	if (consumer->paused == paused)
		return;
	if (rd_kafka_assignment(consumer->handle, &partitions) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	if (paused)
		rd_kafka_pause_partitions(consumer->handle, partitions);
	else
		rd_kafka_resume_partitions(consumer->handle, partitions);
	rd_kafka_topic_partition_list_destroy(partitions);
	consumer->paused = paused;
}

/* Enters a message into the books. KX_EAGAIN for one that is to be dropped: its partition was taken away meanwhile,
 * or it came before. */
static kx_status enter(struct kafka_consumer *consumer, const struct kx_bus_record *record, int partition,
		       uint64_t *ret_epoch)
{
	kx_status status = KX_EAGAIN;

	pthread_mutex_lock(&consumer->lock);
	if (partition < consumer->partitions && consumer->shares[partition].epoch) {
		struct share *share = &consumer->shares[partition];

		status = kx_bus_progress_received(&share->progress, record->offset, kx_bus_record_bytes(record));
		if (status == KX_OK) {
			consumer->in_flight_bytes += kx_bus_record_bytes(record);
			consumer->held++;
			*ret_epoch = share->epoch;
		}
	}
	pthread_mutex_unlock(&consumer->lock);
	return status == KX_EEXIST ? KX_EAGAIN : status;
}

static kx_status take(struct kafka_consumer *consumer, const rd_kafka_message_t *message, struct kx_bus_message *ret,
		      struct kx_error *error)
{
	KX_CLEANUP(kx_bus_record_cleanup) struct kx_bus_record *record = NULL;
	uint64_t epoch;
	kx_status status;

	record = kx_bus_record_new(&(struct kx_bus_outgoing){
		.topic = consumer->topic->name, .key = message->key, .key_len = message->key_len,
		.payload = message->payload, .len = message->len});
	if (!record)
		return kx_error_nomem(error);
	record->offset = message->offset;
	status = enter(consumer, record, message->partition, &epoch);
	if (status == KX_OK)
		kx_bus_record_lend(record, message->partition, epoch, ret);
	return status == KX_ENOMEM ? kx_error_nomem(error) : status;
}

/* What librdkafka reports in place of a message. Most of it mends itself and is KX_EAGAIN. */
static kx_status trouble(struct kafka_consumer *consumer, const rd_kafka_message_t *message, struct kx_error *error)
{
	kx_status status = kx_bus_kafka_status(message->err);

	if (message->err == RD_KAFKA_RESP_ERR__FATAL || status == KX_EPERM)
		return kx_bus_kafka_error(error, message->err, "receiving from topic", consumer->topic->name);
	kx_log(KX_LOG_DEBUG, "Kafka topic '%s': %s", consumer->topic->name, rd_kafka_message_errstr(message));
	return KX_EAGAIN;
}

static kx_status poll_once(struct kafka_consumer *consumer, int timeout_ms, struct kx_bus_message *ret,
			   struct kx_error *error)
{
	rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer->handle, timeout_ms);
	kx_status status = KX_EAGAIN;

	if (message) {
		status = message->err ? trouble(consumer, message, error) : take(consumer, message, ret, error);
		rd_kafka_message_destroy(message);
	}
	if (status == KX_EAGAIN && consumer->broken)
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "Kafka topic '%s': rebalance failed: %s",
				    consumer->topic->name, rd_kafka_err2str(consumer->broken));
	return status;
}

static int remaining_ms(uint64_t deadline_us, int most)
{
	uint64_t now = kx_clock_mono_us();
	uint64_t left = now < deadline_us ? (deadline_us - now + 999) / 1000 : 0;

	return left < (uint64_t)most ? (int)left : most;
}

kx_status kx_bus_kafka_receive(struct kx_bus_consumer *base, int timeout_ms, struct kx_bus_message *ret,
			       struct kx_error *error)
{
	struct kafka_consumer *consumer = (struct kafka_consumer *)base;
	uint64_t deadline = kx_clock_mono_us() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * 1000;
	kx_status status;

	if (consumer->chosen && !consumer->assigned) {
		consumer->assigned = true;
		assign(consumer, consumer->chosen);
	}
	do {
		bool full = wait_room(consumer, remaining_ms(deadline, PAUSE_AFTER_MS));

		if (atomic_exchange(&consumer->woken, false))
			return KX_EAGAIN;
		set_paused(consumer, full);
		status = poll_once(consumer, remaining_ms(deadline, POLL_MS), ret, error);
	} while (status == KX_EAGAIN && kx_clock_mono_us() < deadline);
	return status;
}

/* With the lock held, so that no rebalance takes the partition away in between. */
static kx_status store(struct kafka_consumer *consumer, int partition, int64_t next)
{
	rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(1);
	rd_kafka_resp_err_t code;

	rd_kafka_topic_partition_list_add(offsets, consumer->topic->name, partition)->offset = next;
	code = rd_kafka_offsets_store(consumer->handle, offsets);
	rd_kafka_topic_partition_list_destroy(offsets);
	return kx_bus_kafka_status(code);
}

kx_status kx_bus_kafka_ack(struct kx_bus_consumer *base, int partition, int64_t offset, uint64_t epoch)
{
	struct kafka_consumer *consumer = (struct kafka_consumer *)base;
	kx_status status = KX_ECANCELED;
	struct share *share;
	bool advanced = false;

	if (partition < 0)
		return KX_EINVAL;
	pthread_mutex_lock(&consumer->lock);
	share = partition < consumer->partitions ? &consumer->shares[partition] : NULL;
	if (share && share->epoch && share->epoch == epoch) {
		bool was_full = at_capacity(consumer);

		consumer->in_flight_bytes -= share->progress.in_flight_bytes;
		consumer->held -= share->progress.held;
		status = kx_bus_progress_finished(&share->progress, offset, &advanced);
		consumer->in_flight_bytes += share->progress.in_flight_bytes;
		consumer->held += share->progress.held;
		if (advanced && !consumer->subscription.resume)
			status = store(consumer, partition, share->progress.next);
		if (was_full && !at_capacity(consumer)) {
			pthread_cond_signal(&consumer->acked);
			rd_kafka_queue_yield(consumer->queue);
		}
	}
	pthread_mutex_unlock(&consumer->lock);
	return status;
}

void kx_bus_kafka_wake(struct kx_bus_consumer *base)
{
	struct kafka_consumer *consumer = (struct kafka_consumer *)base;

	pthread_mutex_lock(&consumer->lock);
	atomic_store(&consumer->woken, true);
	pthread_cond_signal(&consumer->acked);
	pthread_mutex_unlock(&consumer->lock);
	rd_kafka_queue_yield(consumer->queue);
}

/* Commits and leaves the group; on_rebalance() runs in here. Not by rd_kafka_consumer_close(), which waits for as
 * long as no broker is there. false: the group learns by the session's end that this member is gone. */
static bool leave(struct kafka_consumer *consumer)
{
	uint64_t deadline = kx_clock_mono_us() + CLOSE_TIMEOUT_MS * 1000u;
	rd_kafka_error_t *error = rd_kafka_consumer_close_queue(consumer->handle, consumer->queue);

	if (error) {
		consume_error(consumer, "closing", error);
		return false;
	}
	while (!rd_kafka_consumer_closed(consumer->handle) && kx_clock_mono_us() < deadline) {
		rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer->handle, CLOSE_POLL_MS);

		if (message)
			rd_kafka_message_destroy(message);
	}
	return rd_kafka_consumer_closed(consumer->handle);
}

void kx_bus_kafka_close(struct kx_bus_consumer *base)
{
	struct kafka_consumer *consumer = (struct kafka_consumer *)base;

	if (consumer->assigned) {
		take_away(consumer, consumer->chosen);
		(void)rd_kafka_assign(consumer->handle, NULL);
	}
	consumer->left = leave(consumer);
	if (!consumer->left)
		kx_log(KX_LOG_WARN, "Kafka topic '%s': left the group without a word, no broker answered",
		       consumer->topic->name);
	consumer_free(consumer);
}
