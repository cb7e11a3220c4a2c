/* The Kafka bus: publishing. The queue is bounded here and not by librdkafka, which refuses a message for good when
 * it alone is larger than the queue. */
#include <errno.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/thread.h"
#include "common/bus/kafka_impl.h"

#define POLL_MS 1000

/* A message on its way: librdkafka hands it back with the delivery report. */
struct sent {
	kx_bus_delivered *delivered;
	void *ctx;
	size_t bytes;
};

static void settle(struct kx_bus_kafka *bus, size_t bytes)
{
	pthread_mutex_lock(&bus->lock);
	bus->unsent--;
	bus->unsent_bytes -= bytes;
	pthread_cond_broadcast(&bus->delivered);
	pthread_mutex_unlock(&bus->lock);
}

/* The callback runs before the message stops to count, so that a flush returns after it. */
static void on_delivery(rd_kafka_t *handle, const rd_kafka_message_t *message, void *ctx)
{
	struct sent *sent = message->_private;

	(void)handle;
	if (sent->delivered)
		sent->delivered(sent->ctx, kx_bus_kafka_status(message->err));
	settle(ctx, sent->bytes);
	free(sent);
}

static void *poll_deliveries(void *arg)
{
	struct kx_bus_kafka *bus = arg;

	while (!atomic_load(&bus->stopping))
		rd_kafka_poll(bus->producer, POLL_MS);
	return NULL;
}

static kx_status configure(struct kx_bus_kafka *bus, rd_kafka_conf_t *conf, struct kx_error *error)
{
	static const struct {
		const char *key, *value;
	} settings[] = {
		{"enable.idempotence", "true"}, /* implies acks=all and order kept over retries */
		{"acks", "all"},
		{"linger.ms", "5"},
		{"queue.buffering.max.messages", "0"}, /* bounded here, in bytes */
		{"queue.buffering.max.kbytes", "2097151"},
	};
	kx_status status = KX_OK;

	for (size_t i = 0; status == KX_OK && i < KX_ARRAY_LEN(settings); i++)
		status = kx_bus_kafka_conf_set(conf, settings[i].key, settings[i].value, error);
	rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
	rd_kafka_conf_set_opaque(conf, bus);
	return status;
}

kx_status kx_bus_kafka_producer_start(struct kx_bus_kafka *bus, struct kx_error *error)
{
	KX_CLEANUP(kx_bus_kafka_conf_cleanup) rd_kafka_conf_t *conf = NULL;
	char text[256];
	kx_status status = kx_bus_kafka_conf_new(bus->brokers, &conf, error);
	rd_kafka_t *producer;

	if (status == KX_OK)
		status = configure(bus, conf, error);
	if (status != KX_OK)
		return status;
	producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
	if (!producer)
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "Kafka producer: %s", text);
	(void)KX_STEAL(conf); /* the producer's now */
	bus->producer = producer;
	status = kx_thread_start(&bus->poller, "bus-delivery", poll_deliveries, bus, error);
	if (status != KX_OK) {
		rd_kafka_destroy(producer);
		bus->producer = NULL;
	}
	return status;
}

void kx_bus_kafka_producer_stop(struct kx_bus_kafka *bus)
{
	rd_kafka_queue_t *queue;

	if (!bus->producer)
		return;
	atomic_store(&bus->stopping, true);
	queue = rd_kafka_queue_get_main(bus->producer);
	rd_kafka_queue_yield(queue);
	rd_kafka_queue_destroy(queue);
	pthread_join(bus->poller, NULL);
	rd_kafka_purge(bus->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	while (rd_kafka_outq_len(bus->producer) > 0)
		rd_kafka_poll(bus->producer, POLL_MS);
}

/* Counts a message in, unless the queue is full. One may go over the limit: a limit below the largest message must
 * not shut that message out. */
static kx_status admit(struct kx_bus_kafka *bus, size_t bytes, struct kx_error *error)
{
	kx_status status = KX_OK;

	pthread_mutex_lock(&bus->lock);
	if (bus->unsent_bytes >= bus->queue_bytes_max) {
		status = kx_error_set(error, KX_EAGAIN, KX_ERROR_RETRY, "%zu bytes wait to be sent to Kafka",
				      bus->unsent_bytes);
	} else {
		bus->unsent++;
		bus->unsent_bytes += bytes;
	}
	pthread_mutex_unlock(&bus->lock);
	return status;
}

kx_status kx_bus_kafka_publish(struct kx_bus *base, const struct kx_bus_outgoing *out, struct kx_error *error)
{
	struct kx_bus_kafka *bus = (struct kx_bus_kafka *)base;
	struct sent *sent = malloc(sizeof(*sent));
	kx_status status;

	if (!sent)
		return kx_error_nomem(error);
	*sent = (struct sent){.delivered = out->delivered, .ctx = out->ctx,
			      .bytes = sizeof(*sent) + out->key_len + out->len};
	status = admit(bus, sent->bytes, error);
	if (status != KX_OK) {
		free(sent);
		return status;
	}
	if (rd_kafka_produce(kx_bus_kafka_find(bus, out->topic)->handle, out->partition, RD_KAFKA_MSG_F_COPY,
			     (void *)(uintptr_t)out->payload, out->len, out->key, out->key_len, sent) != 0) {
		status = kx_bus_kafka_error(error, rd_kafka_last_error(), "publishing to topic", out->topic);
		settle(bus, sent->bytes);
		free(sent);
	}
	return status;
}

/* Waits until *amount, which the bus's lock guards, is below limit. */
static kx_status wait_below(struct kx_bus_kafka *bus, const size_t *amount, size_t limit, int timeout_ms)
{
	struct timespec deadline = kx_clock_deadline((uint64_t)(timeout_ms > 0 ? timeout_ms : 0));
	kx_status status = KX_OK;
	int rc = 0;

	pthread_mutex_lock(&bus->lock);
	while (*amount >= limit && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&bus->delivered, &bus->lock, &deadline);
	if (*amount >= limit)
		status = KX_ETIMEDOUT;
	pthread_mutex_unlock(&bus->lock);
	return status;
}

kx_status kx_bus_kafka_wait_room(struct kx_bus *base, const char *topic, int timeout_ms)
{
	struct kx_bus_kafka *bus = (struct kx_bus_kafka *)base;

	(void)topic;
	return wait_below(bus, &bus->unsent_bytes, bus->queue_bytes_max, timeout_ms);
}

kx_status kx_bus_kafka_flush(struct kx_bus *base, int timeout_ms, struct kx_error *error)
{
	struct kx_bus_kafka *bus = (struct kx_bus_kafka *)base;

	if (wait_below(bus, &bus->unsent, 1, timeout_ms) != KX_OK)
		return kx_error_set(error, KX_ETIMEDOUT, KX_ERROR_RETRY,
				    "messages are still on their way to Kafka at '%s' after %d ms", bus->brokers,
				    timeout_ms);
	return KX_OK;
}
