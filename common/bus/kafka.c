/* The Kafka bus: configuration, connection, topics. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "common/bus/kafka_impl.h"

#define CONNECT_TIMEOUT_MS 10000
#define SESSION_TIMEOUT_MS 10000
#define METADATA_RETRY_MS 50

kx_status kx_bus_kafka_status(rd_kafka_resp_err_t code)
{
	switch (code) {
	case RD_KAFKA_RESP_ERR_NO_ERROR:
		return KX_OK;
	case RD_KAFKA_RESP_ERR__QUEUE_FULL:
		return KX_EAGAIN;
	case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
	case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
		return KX_ETOOBIG;
	case RD_KAFKA_RESP_ERR__TIMED_OUT:
	case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
	case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
		return KX_ETIMEDOUT;
	case RD_KAFKA_RESP_ERR__PURGE_QUEUE:
	case RD_KAFKA_RESP_ERR__PURGE_INFLIGHT:
		return KX_ECANCELED;
	case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR__AUTHENTICATION:
		return KX_EPERM;
	case RD_KAFKA_RESP_ERR_INVALID_PARTITIONS:
	case RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR:
	case RD_KAFKA_RESP_ERR_INVALID_CONFIG:
	case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
	case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
		return KX_EINVAL;
	default:
		return KX_EIO;
	}
}

static enum kx_error_class class_of(rd_kafka_resp_err_t code, kx_status status)
{
	if (status == KX_ETOOBIG)
		return KX_ERROR_POISON;
	if (status == KX_EPERM || status == KX_EINVAL || code == RD_KAFKA_RESP_ERR__FATAL)
		return KX_ERROR_FATAL;
	return KX_ERROR_RETRY;
}

kx_status kx_bus_kafka_error(struct kx_error *error, rd_kafka_resp_err_t code, const char *what, const char *name)
{
	kx_status status = kx_bus_kafka_status(code);

	return kx_error_set(error, status, class_of(code, status), "%s '%s': %s", what, name, rd_kafka_err2str(code));
}

static void on_log(const rd_kafka_t *handle, int level, const char *facility, const char *text)
{
	(void)level; /* librdkafka calls a broker that is away for a moment an error; who waits for it says so */
	kx_log(KX_LOG_DEBUG, "kafka %s %s: %s", rd_kafka_name(handle), facility, text);
}

static void on_error(rd_kafka_t *handle, int code, const char *reason, void *ctx)
{
	char text[512];
	rd_kafka_resp_err_t err = code;

	(void)ctx;
	if (err == RD_KAFKA_RESP_ERR__FATAL) {
		err = rd_kafka_fatal_error(handle, text, sizeof(text));
		kx_log(KX_LOG_ERROR, "Kafka: %s: %s", rd_kafka_err2str(err), text);
	} else if (err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
		kx_log(KX_LOG_WARN, "Kafka: no broker can be reached, trying on: %s", reason);
	} else {
		kx_log(KX_LOG_DEBUG, "Kafka: %s: %s", rd_kafka_err2str(err), reason);
	}
}

kx_status kx_bus_kafka_conf_set(rd_kafka_conf_t *conf, const char *key, const char *value, struct kx_error *error)
{
	char text[256];

	if (rd_kafka_conf_set(conf, key, value, text, sizeof(text)) != RD_KAFKA_CONF_OK)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "Kafka setting %s=%s: %s", key, value, text);
	return KX_OK;
}

kx_status kx_bus_kafka_conf_set_number(rd_kafka_conf_t *conf, const char *key, long value, struct kx_error *error)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", value);
	return kx_bus_kafka_conf_set(conf, key, text, error);
}

void kx_bus_kafka_conf_cleanup(rd_kafka_conf_t **conf)
{
	if (*conf)
		rd_kafka_conf_destroy(*conf);
}

kx_status kx_bus_kafka_conf_new(const char *brokers, rd_kafka_conf_t **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_bus_kafka_conf_cleanup) rd_kafka_conf_t *conf = rd_kafka_conf_new();
	kx_status status;

	if (!conf)
		return kx_error_nomem(error);
	rd_kafka_conf_set_log_cb(conf, on_log);
	rd_kafka_conf_set_error_cb(conf, on_error);
	status = kx_bus_kafka_conf_set(conf, "bootstrap.servers", brokers, error);
	if (status == KX_OK)
		status = kx_bus_kafka_conf_set(conf, "client.id", "kinodex", error);
	/* The default of 10 s would keep a client away long after a broker is back. */
	if (status == KX_OK)
		status = kx_bus_kafka_conf_set(conf, "reconnect.backoff.max.ms", "1000", error);
	if (status == KX_OK)
		status = kx_bus_kafka_conf_set_number(conf, "message.max.bytes", KX_BUS_KAFKA_WIRE_MAX, error);
	if (status == KX_OK)
		*ret = KX_STEAL(conf);
	return status;
}

static struct kx_bus_kafka_topic *find_locked(struct kx_bus_kafka *bus, const char *name)
{
	struct kx_bus_kafka_topic *topic = bus->topics;

	while (topic && strcmp(topic->name, name) != 0)
		topic = topic->next;
	return topic;
}

struct kx_bus_kafka_topic *kx_bus_kafka_find(struct kx_bus_kafka *bus, const char *name)
{
	struct kx_bus_kafka_topic *topic;

	pthread_mutex_lock(&bus->lock);
	topic = find_locked(bus, name);
	pthread_mutex_unlock(&bus->lock);
	return topic;
}

static int kafka_partitions(struct kx_bus *base, const char *name)
{
	const struct kx_bus_kafka_topic *topic = kx_bus_kafka_find((struct kx_bus_kafka *)base, name);

	return topic ? topic->partitions : 0;
}

/* The one result of a CreateTopics request. */
static rd_kafka_resp_err_t created(rd_kafka_event_t *event)
{
	const rd_kafka_topic_result_t **results;
	size_t count = 0;

	if (!event)
		return RD_KAFKA_RESP_ERR__TIMED_OUT;
	if (rd_kafka_event_error(event))
		return rd_kafka_event_error(event);
	results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
	return count == 1 ? rd_kafka_topic_result_error(results[0]) : RD_KAFKA_RESP_ERR__BAD_MSG;
}

static rd_kafka_resp_err_t request_topic(struct kx_bus_kafka *bus, rd_kafka_NewTopic_t *wanted)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_new(bus->producer);
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(bus->producer, RD_KAFKA_ADMIN_OP_CREATETOPICS);
	rd_kafka_event_t *event;
	rd_kafka_resp_err_t code;

	rd_kafka_AdminOptions_set_request_timeout(options, bus->connect_timeout_ms, NULL, 0);
	rd_kafka_AdminOptions_set_operation_timeout(options, bus->connect_timeout_ms, NULL, 0);
	rd_kafka_CreateTopics(bus->producer, &wanted, 1, options, queue);
	event = rd_kafka_queue_poll(queue, bus->connect_timeout_ms + 1000);
	code = created(event);
	if (event)
		rd_kafka_event_destroy(event);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_queue_destroy(queue);
	return code;
}

static kx_status create_topic(struct kx_bus_kafka *bus, const char *name, int partitions, bool compacted,
			      struct kx_error *error)
{
	char text[256], max[32];
	int replication = bus->replication ? bus->replication : -1; /* the broker's default */
	rd_kafka_NewTopic_t *wanted = rd_kafka_NewTopic_new(name, partitions, replication, text, sizeof(text));
	rd_kafka_resp_err_t code;

	if (!wanted)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "topic '%s': %s", name, text);
	snprintf(max, sizeof(max), "%u", KX_BUS_KAFKA_WIRE_MAX);
	code = rd_kafka_NewTopic_set_config(wanted, "max.message.bytes", max);
	if (!code && compacted)
		code = rd_kafka_NewTopic_set_config(wanted, "cleanup.policy", "compact");
	if (!code)
		code = request_topic(bus, wanted);
	rd_kafka_NewTopic_destroy(wanted);
	/* Who may not create topics may still use one that an administrator made: await_leaders() tells. */
	if (!code || code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS || kx_bus_kafka_status(code) == KX_EPERM)
		return KX_OK;
	return kx_bus_kafka_error(error, code, "creating topic", name);
}

/* Partitions of the topic when each has a leader, 0 while not, or an error of the topic's own. */
static int led_partitions(const struct rd_kafka_metadata *metadata, rd_kafka_resp_err_t *ret_code)
{
	const struct rd_kafka_metadata_topic *topic = &metadata->topics[0];

	*ret_code = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
	if (metadata->topic_cnt != 1)
		return 0;
	if (topic->err) {
		*ret_code = topic->err;
		return 0;
	}
	for (int i = 0; i < topic->partition_cnt; i++) {
		if (topic->partitions[i].leader < 0)
			return 0;
	}
	return topic->partition_cnt;
}

/* A new topic is not everywhere at once: asks until every partition can be written. */
static kx_status await_leaders(struct kx_bus_kafka *bus, struct kx_bus_kafka_topic *topic, struct kx_error *error)
{
	uint64_t deadline = kx_clock_mono_us() + (uint64_t)bus->connect_timeout_ms * 1000;
	const struct timespec pause = {.tv_nsec = METADATA_RETRY_MS * 1000000L};

	for (;;) {
		const struct rd_kafka_metadata *metadata = NULL;
		rd_kafka_resp_err_t code =
			rd_kafka_metadata(bus->producer, 0, topic->handle, &metadata, bus->connect_timeout_ms);

		if (!code) {
			topic->partitions = led_partitions(metadata, &code);
			rd_kafka_metadata_destroy(metadata);
		}
		if (topic->partitions)
			return KX_OK;
		if (kx_bus_kafka_status(code) == KX_EPERM || kx_clock_mono_us() >= deadline)
			return kx_bus_kafka_error(error, code, "topic", topic->name);
		nanosleep(&pause, NULL);
	}
}

static void topic_free(struct kx_bus_kafka_topic *topic)
{
	if (!topic)
		return;
	if (topic->handle)
		rd_kafka_topic_destroy(topic->handle);
	free(topic->name);
	free(topic);
}

static void topic_cleanup(struct kx_bus_kafka_topic **topic)
{
	topic_free(*topic);
}

static kx_status topic_open(struct kx_bus_kafka *bus, const char *name, struct kx_bus_kafka_topic **ret,
			    struct kx_error *error)
{
	KX_CLEANUP(topic_cleanup) struct kx_bus_kafka_topic *topic = calloc(1, sizeof(*topic));
	kx_status status;

	if (!topic)
		return kx_error_nomem(error);
	topic->name = kx_strdup(name);
	if (!topic->name)
		return kx_error_nomem(error);
	topic->handle = rd_kafka_topic_new(bus->producer, name, NULL);
	if (!topic->handle)
		return kx_bus_kafka_error(error, rd_kafka_last_error(), "topic", name);
	status = await_leaders(bus, topic, error);
	if (status == KX_OK)
		*ret = KX_STEAL(topic);
	return status;
}

/* Adds a topic, unless another thread was quicker. Returns the one that stays. */
static struct kx_bus_kafka_topic *keep(struct kx_bus_kafka *bus, struct kx_bus_kafka_topic *topic)
{
	struct kx_bus_kafka_topic *kept;

	pthread_mutex_lock(&bus->lock);
	kept = find_locked(bus, topic->name);
	if (!kept) {
		topic->next = bus->topics;
		bus->topics = topic;
		kept = topic;
	}
	pthread_mutex_unlock(&bus->lock);
	if (kept != topic)
		topic_free(topic);
	return kept;
}

static kx_status kafka_topic(struct kx_bus *base, const char *name, int partitions, bool compacted,
			     int *ret_partitions, struct kx_error *error)
{
	struct kx_bus_kafka *bus = (struct kx_bus_kafka *)base;
	struct kx_bus_kafka_topic *topic = kx_bus_kafka_find(bus, name);
	kx_status status = KX_OK;

	if (!topic) {
		status = create_topic(bus, name, partitions, compacted, error);
		if (status == KX_OK)
			status = topic_open(bus, name, &topic, error);
		if (status != KX_OK)
			return status;
		topic = keep(bus, topic);
	}
	*ret_partitions = topic->partitions;
	return status;
}

static void kafka_free(struct kx_bus *base)
{
	struct kx_bus_kafka *bus = (struct kx_bus_kafka *)base;

	kx_bus_kafka_producer_stop(bus);
	while (bus->topics) {
		struct kx_bus_kafka_topic *topic = bus->topics;

		bus->topics = topic->next;
		topic_free(topic);
	}
	if (bus->producer)
		rd_kafka_destroy(bus->producer);
	pthread_cond_destroy(&bus->delivered);
	pthread_mutex_destroy(&bus->lock);
	free(bus->base.identity);
	free(bus->brokers);
	free(bus);
}

static const struct kx_bus_ops kafka_ops = {
	.free = kafka_free,
	.topic = kafka_topic,
	.partitions = kafka_partitions,
	.publish = kx_bus_kafka_publish,
	.wait_room = kx_bus_kafka_wait_room,
	.flush = kx_bus_kafka_flush,
	.subscribe = kx_bus_kafka_subscribe,
	.receive = kx_bus_kafka_receive,
	.ack = kx_bus_kafka_ack,
	.wake = kx_bus_kafka_wake,
	.close = kx_bus_kafka_close,
};

static void bus_cleanup(struct kx_bus_kafka **bus)
{
	if (*bus)
		kafka_free(&(*bus)->base);
}

static struct kx_bus_kafka *bus_new(const struct kx_bus_kafka_options *options)
{
	struct kx_bus_kafka *bus = calloc(1, sizeof(*bus));

	if (!bus)
		return NULL;
	if (kx_cond_init(&bus->delivered) != KX_OK) {
		free(bus);
		return NULL;
	}
	pthread_mutex_init(&bus->lock, NULL);
	bus->base.ops = &kafka_ops;
	bus->queue_bytes_max = options->queue_bytes_max;
	bus->session_timeout_ms = options->session_timeout_ms ? options->session_timeout_ms : SESSION_TIMEOUT_MS;
	bus->connect_timeout_ms = options->connect_timeout_ms ? options->connect_timeout_ms : CONNECT_TIMEOUT_MS;
	bus->replication = options->replication;
	bus->brokers = kx_strdup(options->brokers);
	if (!bus->brokers) {
		kafka_free(&bus->base);
		return NULL;
	}
	return bus;
}

/* The cluster's id comes with the first answer of any broker: knowing it is being connected. */
static kx_status identify(struct kx_bus_kafka *bus, struct kx_error *error)
{
	char *cluster = rd_kafka_clusterid(bus->producer, bus->connect_timeout_ms);

	if (!cluster)
		return kx_error_set(error, KX_ETIMEDOUT, KX_ERROR_RETRY,
				    "no Kafka broker answered at '%s' within %d ms: check that one runs there and that "
				    "the address is right", bus->brokers, bus->connect_timeout_ms);
	bus->base.identity = kx_strdup(cluster);
	rd_kafka_mem_free(bus->producer, cluster);
	return bus->base.identity ? KX_OK : kx_error_nomem(error);
}

kx_status kx_bus_kafka_new(const struct kx_bus_kafka_options *options, struct kx_bus **ret, struct kx_error *error)
{
	KX_CLEANUP(bus_cleanup) struct kx_bus_kafka *bus = NULL;
	kx_status status;

	if (!options->brokers || !options->brokers[0] || options->queue_bytes_max == 0)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "a Kafka bus needs the address of a broker and a limit on its queue");
	bus = bus_new(options);
	if (!bus)
		return kx_error_nomem(error);
	status = kx_bus_kafka_producer_start(bus, error);
	if (status == KX_OK)
		status = identify(bus, error);
	if (status == KX_OK)
		*ret = &KX_STEAL(bus)->base;
	return status;
}
