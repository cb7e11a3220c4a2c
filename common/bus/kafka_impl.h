/* The Kafka bus as its files see it: kafka.c has the connection and topics, kafka_producer.c publishes,
 * kafka_consumer.c receives. librdkafka's types go no further than these. Layer: bus, private to this folder. */
#ifndef KX_BUS_KAFKA_IMPL_H
#define KX_BUS_KAFKA_IMPL_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>

#include "common/bus/bus_impl.h"

/* The largest message on the wire: payload, key and Kafka's own record and batch headers. */
#define KX_BUS_KAFKA_WIRE_MAX (KX_BUS_MESSAGE_MAX + KX_BUS_KEY_MAX + 4096)

struct kx_bus_kafka_topic {
	struct kx_bus_kafka_topic *next;
	char *name;
	int partitions;
	rd_kafka_topic_t *handle; /* the producer's */
};

struct kx_bus_kafka {
	struct kx_bus base;
	rd_kafka_t *producer;
	char *brokers;
	size_t queue_bytes_max;
	int session_timeout_ms, connect_timeout_ms, replication;
	pthread_t poller; /* runs delivery reports */
	atomic_bool stopping;
	atomic_uint_least64_t epoch; /* of the last assignment of any consumer */

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t delivered;
	struct kx_bus_kafka_topic *topics; /* only grows: what was found may be used without the lock */
	size_t unsent, unsent_bytes;       /* published and not yet reported */
};

/* Starts a configuration with what producers and consumers share. The caller owns *ret. */
kx_status kx_bus_kafka_conf_new(const char *brokers, rd_kafka_conf_t **ret, struct kx_error *error);
kx_status kx_bus_kafka_conf_set(rd_kafka_conf_t *conf, const char *key, const char *value, struct kx_error *error);
kx_status kx_bus_kafka_conf_set_number(rd_kafka_conf_t *conf, const char *key, long value, struct kx_error *error);
void kx_bus_kafka_conf_cleanup(rd_kafka_conf_t **conf);

/* What a Kafka error means to the layers above, with "what: Kafka's words". */
kx_status kx_bus_kafka_error(struct kx_error *error, rd_kafka_resp_err_t code, const char *what, const char *name);
kx_status kx_bus_kafka_status(rd_kafka_resp_err_t code);

/* NULL when kx_bus_topic() was not called for it. */
struct kx_bus_kafka_topic *kx_bus_kafka_find(struct kx_bus_kafka *bus, const char *name);

kx_status kx_bus_kafka_producer_start(struct kx_bus_kafka *bus, struct kx_error *error);
void kx_bus_kafka_producer_stop(struct kx_bus_kafka *bus); /* drops what is unsent, reports it as KX_ECANCELED */
kx_status kx_bus_kafka_publish(struct kx_bus *bus, const struct kx_bus_outgoing *out, struct kx_error *error);
kx_status kx_bus_kafka_wait_room(struct kx_bus *bus, const char *topic, int timeout_ms);
kx_status kx_bus_kafka_flush(struct kx_bus *bus, int timeout_ms, struct kx_error *error);

kx_status kx_bus_kafka_subscribe(struct kx_bus *bus, const struct kx_bus_subscription *subscription,
				 struct kx_bus_consumer **ret, struct kx_error *error);
kx_status kx_bus_kafka_receive(struct kx_bus_consumer *consumer, int timeout_ms, struct kx_bus_message *ret,
			       struct kx_error *error);
kx_status kx_bus_kafka_ack(struct kx_bus_consumer *consumer, int partition, int64_t offset, uint64_t epoch);
void kx_bus_kafka_wake(struct kx_bus_consumer *consumer);
void kx_bus_kafka_close(struct kx_bus_consumer *consumer);

#endif
