/* The bus: partitioned, append-only topics with consumer groups, at least once. Layer: bus.
 *
 * Two implementations of one contract: kx_bus_local_new() (in this process, bounded, nothing on disk) and
 * kx_bus_kafka_new() (librdkafka). The contract, which test_contract.c runs on both:
 *  - A topic has a fixed number of partitions. A message goes to the partition that its publisher named, or to the
 *    one that its key hashes to. Order holds within a partition for one publisher.
 *  - Every group sees every message at least once. Within a group a partition belongs to one consumer at a time.
 *  - A message that was received and not acknowledged comes again, to another consumer of the group or to the next
 *    one that joins. Acknowledgements may come in any order; only the contiguous finished prefix is committed.
 *  - When a partition is taken away, acknowledgements of its messages are fenced: KX_ECANCELED, and nothing happens.
 *  - Publishing never blocks for long: a full queue is KX_EAGAIN. A message is safe only when its delivery callback
 *    said KX_OK.
 */
#ifndef KX_BUS_BUS_H
#define KX_BUS_BUS_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

#define KX_BUS_MESSAGE_MAX (16u << 20) /* bytes of payload */
#define KX_BUS_KEY_MAX (4u << 10)      /* bytes */
#define KX_BUS_PARTITIONS_MAX 4096     /* a topic */
#define KX_BUS_KEYED (-1)              /* partition: decided by the key */

struct kx_bus;
struct kx_bus_consumer;

struct kx_bus_local_options {
	size_t topic_bytes_max; /* payload bytes held a topic until every group acknowledged them; then KX_EAGAIN */
};

struct kx_bus_kafka_options {
	const char *brokers;        /* host:port,... */
	size_t queue_bytes_max;     /* unsent messages */
	int session_timeout_ms;     /* 0: 10000 */
	int replication;            /* of topics that are created; 0: the broker's default */
	int connect_timeout_ms;     /* how long kx_bus_kafka_new() waits for a broker; 0: 10000 */
};

kx_status kx_bus_local_new(const struct kx_bus_local_options *options, struct kx_bus **ret, struct kx_error *error)
	KX_MUST_CHECK;
/* Blocks until a broker answered or connect_timeout_ms passed (KX_ETIMEDOUT, names the brokers and the cure). */
kx_status kx_bus_kafka_new(const struct kx_bus_kafka_options *options, struct kx_bus **ret, struct kx_error *error)
	KX_MUST_CHECK;

/* Consumers must be closed first. Unsent messages are dropped: flush before. NULL is nothing. */
void kx_bus_free(struct kx_bus *bus);

/* Names this bus for those who keep offsets elsewhere: an offset means something only with the same identity
 * (Kafka's cluster id; for a local bus unique to the object). Owned by the bus. */
const char *kx_bus_identity(const struct kx_bus *bus);

/* Makes sure the topic is there; one that exists keeps its partitions, *ret_partitions says how many (may be NULL).
 * compacted: keep the last message of each key. Blocks. Thread-safe. */
kx_status kx_bus_topic(struct kx_bus *bus, const char *topic, int partitions, int compacted, int *ret_partitions,
		       struct kx_error *error) KX_MUST_CHECK;

/* The partition that a key belongs to: murmur2 as Kafka's own clients have it, so that keys written by any of them
 * and by either bus land alike. */
int kx_bus_key_partition(const void *key, size_t len, int partitions);

/* Called once for each accepted message, on a thread of the bus or inside publish/flush/receive; must not block or
 * publish. status KX_OK: stored as safely as the bus can. */
typedef void kx_bus_delivered(void *ctx, kx_status status);

/* Copies key and payload. Thread-safe, does not block. KX_EAGAIN when the queue is full (wait with kx_bus_flush or
 * kx_bus_wait_room), KX_ETOOBIG, KX_EINVAL for an unknown topic or partition. key NULL with KX_BUS_KEYED is
 * KX_EINVAL: null keys would all land on few partitions. payload NULL: the key's last message is to be forgotten (a
 * compacted topic). delivered may be NULL. A topic is known after kx_bus_topic() on this bus. Full is at or above the
 * limit: one message may go over it, so that no message is shut out for ever. */
kx_status kx_bus_publish(struct kx_bus *bus, const char *topic, int partition, const void *key, size_t key_len,
			 const void *payload, size_t len, kx_bus_delivered *delivered, void *ctx,
			 struct kx_error *error) KX_MUST_CHECK;

/* Waits until a publish may succeed again, or the time is over (KX_ETIMEDOUT). Thread-safe. */
kx_status kx_bus_wait_room(struct kx_bus *bus, const char *topic, int timeout_ms) KX_MUST_CHECK;

/* Waits until everything published by this process was delivered or failed. Thread-safe. */
kx_status kx_bus_flush(struct kx_bus *bus, int timeout_ms, struct kx_error *error) KX_MUST_CHECK;

struct kx_bus_message {
	const char *topic; /* valid until the message is freed */
	int partition;
	int64_t offset;
	uint64_t epoch;    /* of the assignment it came by */
	const void *key;
	size_t key_len;
	const void *payload;
	size_t len;
	void *owner;       /* the implementation's */
};
/* Frees it and zeroes the struct; on a zeroed one nothing. A message may outlive its consumer and the bus. */
void kx_bus_message_done(struct kx_bus_message *message);

struct kx_bus_subscription {
	const char *group;
	const char *topic;
	/* When set, offsets are kept by the subscriber and not by the bus: called for each partition as it is assigned
	 * (before assigned()), returns the next offset to read, or -1 for the oldest; one that is no longer held, or
	 * not yet there, starts at the oldest, too. kx_bus_ack() then counts bytes in flight, and lets a local bus
	 * forget. */
	int64_t (*resume)(void *ctx, int partition);
	/* Told when a partition comes or goes, on the receiving thread. Either may be NULL. When revoked() is called
	 * the partition's messages are fenced already; kx_bus_consumer_close() calls it for all that are left. */
	void (*assigned)(void *ctx, int partition);
	void (*revoked)(void *ctx, int partition);
	void *ctx;
	/* Received and not acknowledged; at or above it receive() waits (one message may go over). 0: no limit. */
	size_t in_flight_bytes_max;
	/* When not NULL: exactly these, [partition_count], for as long as the consumer lives, whoever else reads them. The
	 * group is then the consumer's own: nobody is waited for, and none takes its place. Needs resume. */
	const int *partitions; /* copied */
	int partition_count;
};

/* Joins the group. KX_EINVAL; KX_EBUSY: of chosen partitions, the group has a consumer (a local bus sees it). The consumer is used by one thread, but for kx_bus_ack(), kx_bus_consumer_wake(). */
kx_status kx_bus_subscribe(struct kx_bus *bus, const struct kx_bus_subscription *subscription,
			   struct kx_bus_consumer **ret, struct kx_error *error) KX_MUST_CHECK;

/* Next message, KX_EAGAIN when none came in time or the consumer was woken. Must be called at least every few
 * seconds, also when busy: it is the sign of life. */
kx_status kx_bus_receive(struct kx_bus_consumer *consumer, int timeout_ms, struct kx_bus_message *ret,
			 struct kx_error *error) KX_MUST_CHECK;

/* The work of this message is finished. Thread-safe, does not block. KX_ECANCELED when fenced, KX_EINVAL when it was
 * never received. Twice is once. */
kx_status kx_bus_ack(struct kx_bus_consumer *consumer, int partition, int64_t offset, uint64_t epoch);

/* Makes a waiting receive return, or the next one when none waits. Thread-safe. */
void kx_bus_consumer_wake(struct kx_bus_consumer *consumer);

/* Commits what can be, leaves the group. Blocks for some seconds at most, also when no broker is there. NULL is
 * nothing. */
void kx_bus_consumer_close(struct kx_bus_consumer *consumer);

#endif
