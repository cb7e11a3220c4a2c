/* The bus's front: checks arguments once for both implementations, decides partitions, and dispatches. */
#include "common/bus/bus.h"

#include <string.h>

#include "common/bus/bus_impl.h"

#define NAME_MAX_LEN 249 /* Kafka's own limit for topics */

static bool name_valid(const char *name)
{
	size_t len;

	if (!name)
		return false;
	len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
	return len > 0 && len <= NAME_MAX_LEN && !name[len] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static kx_status refuse(struct kx_error *error, const char *what, const char *name)
{
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s '%s': 1 to %d letters, digits, '.', '_' or '-'",
			    what, name ? name : "", NAME_MAX_LEN);
}

void kx_bus_free(struct kx_bus *bus)
{
	if (bus)
		bus->ops->free(bus);
}

const char *kx_bus_identity(const struct kx_bus *bus)
{
	return bus->identity;
}

kx_status kx_bus_topic(struct kx_bus *bus, const char *topic, int partitions, int compacted, int *ret_partitions,
		       struct kx_error *error)
{
	int found;
	kx_status status;

	if (!name_valid(topic))
		return refuse(error, "topic", topic);
	if (partitions < 1 || partitions > KX_BUS_PARTITIONS_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "topic '%s': %d partitions, must be 1 to %d",
				    topic, partitions, KX_BUS_PARTITIONS_MAX);
	status = bus->ops->topic(bus, topic, partitions, compacted, &found, error);
	if (status == KX_OK && ret_partitions)
		*ret_partitions = found;
	return status;
}

static kx_status unknown_topic(struct kx_error *error, const char *topic)
{
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "topic '%s' is unknown to this bus",
			    topic ? topic : "");
}

static kx_status too_big(struct kx_error *error, const char *topic, const char *what, size_t len, size_t max)
{
	return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON, "topic '%s': a %s of %zu bytes, at most %zu", topic,
			    what, len, max);
}

kx_status kx_bus_publish(struct kx_bus *bus, const char *topic, int partition, const void *key, size_t key_len,
			 const void *payload, size_t len, kx_bus_delivered *delivered, void *ctx,
			 struct kx_error *error)
{
	int partitions = topic ? bus->ops->partitions(bus, topic) : 0;

	if (!partitions)
		return unknown_topic(error, topic);
	if (key_len > KX_BUS_KEY_MAX)
		return too_big(error, topic, "key", key_len, KX_BUS_KEY_MAX);
	if (len > KX_BUS_MESSAGE_MAX)
		return too_big(error, topic, "message", len, KX_BUS_MESSAGE_MAX);
	if ((!key && key_len) || (!payload && len))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "topic '%s': a length without bytes", topic);
	if (partition == KX_BUS_KEYED) {
		if (!key)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
					    "topic '%s': a message with neither partition nor key", topic);
		partition = kx_bus_key_partition(key, key_len, partitions);
	}
	if (partition < 0 || partition >= partitions)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "topic '%s' has %d partitions, no partition %d",
				    topic, partitions, partition);
	return bus->ops->publish(bus,
				 &(struct kx_bus_outgoing){.topic = topic, .partition = partition, .key = key,
							   .key_len = key_len, .payload = payload, .len = len,
							   .delivered = delivered, .ctx = ctx},
				 error);
}

kx_status kx_bus_wait_room(struct kx_bus *bus, const char *topic, int timeout_ms)
{
	if (!topic || !bus->ops->partitions(bus, topic))
		return KX_EINVAL;
	return bus->ops->wait_room(bus, topic, timeout_ms);
}

kx_status kx_bus_flush(struct kx_bus *bus, int timeout_ms, struct kx_error *error)
{
	return bus->ops->flush(bus, timeout_ms, error);
}

static kx_status check_chosen(const struct kx_bus_subscription *subscription, int partitions, struct kx_error *error)
{
	if (!subscription->partitions)
		return KX_OK;
	if (!subscription->resume)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "topic '%s': who chooses partitions keeps their offsets", subscription->topic);
	for (int i = 0; i < subscription->partition_count; i++) {
		int partition = subscription->partitions[i];

		if (partition < 0 || partition >= partitions)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
					    "topic '%s' has %d partitions, no partition %d", subscription->topic,
					    partitions, partition);
	}
	return KX_OK;
}

kx_status kx_bus_subscribe(struct kx_bus *bus, const struct kx_bus_subscription *subscription,
			   struct kx_bus_consumer **ret, struct kx_error *error)
{
	if (!name_valid(subscription->group))
		return refuse(error, "consumer group", subscription->group);
	int partitions = subscription->topic ? bus->ops->partitions(bus, subscription->topic) : 0;
	kx_status status;

	if (!partitions)
		return unknown_topic(error, subscription->topic);
	status = check_chosen(subscription, partitions, error);
	return status ? status : bus->ops->subscribe(bus, subscription, ret, error);
}

kx_status kx_bus_receive(struct kx_bus_consumer *consumer, int timeout_ms, struct kx_bus_message *ret,
			 struct kx_error *error)
{
	return consumer->ops->receive(consumer, timeout_ms, ret, error);
}

kx_status kx_bus_ack(struct kx_bus_consumer *consumer, int partition, int64_t offset, uint64_t epoch)
{
	return consumer->ops->ack(consumer, partition, offset, epoch);
}

void kx_bus_consumer_wake(struct kx_bus_consumer *consumer)
{
	consumer->ops->wake(consumer);
}

void kx_bus_consumer_close(struct kx_bus_consumer *consumer)
{
	if (consumer)
		consumer->ops->close(consumer);
}
