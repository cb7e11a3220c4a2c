/* What the two buses share: the calls that bus.c dispatches, and the record that a message lives in.
 * Layer: bus, private to this folder. */
#ifndef KX_BUS_BUS_IMPL_H
#define KX_BUS_BUS_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>

#include "common/bus/bus.h"

/* What may be received and not yet committed by one consumer, in messages. A message that is never acknowledged
 * holds back the commit of all that follow it in its partition: here its consumer stops running ahead. */
#define KX_BUS_HELD_MAX 65536

/* A publish, checked and with its partition decided. */
struct kx_bus_outgoing {
	const char *topic;
	int partition;
	const void *key;
	size_t key_len;
	const void *payload;
	size_t len;
	kx_bus_delivered *delivered;
	void *ctx;
};

/* Arguments were checked by bus.c; errors are set by the implementation. See bus.h for what each does. */
struct kx_bus_ops {
	void (*free)(struct kx_bus *bus);
	kx_status (*topic)(struct kx_bus *bus, const char *topic, int partitions, bool compacted, int *ret_partitions,
			   struct kx_error *error);
	int (*partitions)(struct kx_bus *bus, const char *topic); /* 0: kx_bus_topic() was not called for it */
	kx_status (*publish)(struct kx_bus *bus, const struct kx_bus_outgoing *out, struct kx_error *error);
	kx_status (*wait_room)(struct kx_bus *bus, const char *topic, int timeout_ms);
	kx_status (*flush)(struct kx_bus *bus, int timeout_ms, struct kx_error *error);
	kx_status (*subscribe)(struct kx_bus *bus, const struct kx_bus_subscription *subscription,
			       struct kx_bus_consumer **ret, struct kx_error *error);
	kx_status (*receive)(struct kx_bus_consumer *consumer, int timeout_ms, struct kx_bus_message *ret,
			     struct kx_error *error);
	kx_status (*ack)(struct kx_bus_consumer *consumer, int partition, int64_t offset, uint64_t epoch);
	void (*wake)(struct kx_bus_consumer *consumer);
	void (*close)(struct kx_bus_consumer *consumer);
};

/* First member of each implementation's own struct. */
struct kx_bus {
	const struct kx_bus_ops *ops;
	char *identity;
};

struct kx_bus_consumer {
	const struct kx_bus_ops *ops;
};

/* One message's bytes, counted by references: a message that a consumer holds outlives the log it came from, the
 * consumer and the bus. */
struct kx_bus_record {
	atomic_uint references;
	bool has_key, has_payload;
	int64_t offset;
	size_t key_len, len;
	const char *topic;
	const uint8_t *key, *payload;
	uint8_t bytes[]; /* payload, key, topic */
};

/* Copies everything; one reference, the caller's. NULL when out of memory. */
struct kx_bus_record *kx_bus_record_new(const struct kx_bus_outgoing *out);
void kx_bus_record_unref(struct kx_bus_record *record); /* NULL is nothing */
void kx_bus_record_cleanup(struct kx_bus_record **record);
size_t kx_bus_record_bytes(const struct kx_bus_record *record); /* key and payload: what in-flight limits count */

/* Fills a message that owns one more reference. */
void kx_bus_record_lend(struct kx_bus_record *record, int partition, uint64_t epoch, struct kx_bus_message *ret);

#endif
