/* Messages: their bytes, their references, and the partition that a key decides. */
#include <stdlib.h>
#include <string.h>

#include "common/bus/bus_impl.h"

struct kx_bus_record *kx_bus_record_new(const struct kx_bus_outgoing *out)
{
	size_t topic_len = strlen(out->topic) + 1;
	struct kx_bus_record *record = malloc(sizeof(*record) + out->len + out->key_len + topic_len);
	uint8_t *to;

	if (!record)
		return NULL;
	to = record->bytes;
	*record = (struct kx_bus_record){.has_key = out->key != NULL, .has_payload = out->payload != NULL,
					 .key_len = out->key_len, .len = out->len, .payload = to,
					 .key = to + out->len, .topic = (char *)to + out->len + out->key_len};
	atomic_init(&record->references, 1);
	if (out->len)
		memcpy(to, out->payload, out->len);
	if (out->key_len)
		memcpy(to + out->len, out->key, out->key_len);
	memcpy(to + out->len + out->key_len, out->topic, topic_len);
	return record;
}

void kx_bus_record_unref(struct kx_bus_record *record)
{
	if (record && atomic_fetch_sub_explicit(&record->references, 1, memory_order_acq_rel) == 1)
		free(record);
}

void kx_bus_record_cleanup(struct kx_bus_record **record)
{
	kx_bus_record_unref(*record);
}

size_t kx_bus_record_bytes(const struct kx_bus_record *record)
{
	return record->key_len + record->len;
}

void kx_bus_record_lend(struct kx_bus_record *record, int partition, uint64_t epoch, struct kx_bus_message *ret)
{
	atomic_fetch_add_explicit(&record->references, 1, memory_order_relaxed);
	*ret = (struct kx_bus_message){
		.topic = record->topic,
		.partition = partition,
		.offset = record->offset,
		.epoch = epoch,
		.key = record->has_key ? record->key : NULL,
		.key_len = record->key_len,
		.payload = record->has_payload ? record->payload : NULL,
		.len = record->len,
		.owner = record,
	};
}

void kx_bus_message_done(struct kx_bus_message *message)
{
	kx_bus_record_unref(message->owner);
	*message = (struct kx_bus_message){0};
}

/* MurmurHash2 (Austin Appleby), 32 bits, with Kafka's seed. */
static uint32_t murmur2(const uint8_t *bytes, size_t len)
{
	const uint32_t m = 0x5bd1e995;
	uint32_t h = 0x9747b28cu ^ (uint32_t)len;

	for (; len >= 4; bytes += 4, len -= 4) {
		uint32_t k = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
			     (uint32_t)bytes[3] << 24;

		k *= m;
		k ^= k >> 24;
		h = h * m ^ k * m;
	}
	if (len) {
		for (size_t i = 0; i < len; i++)
			h ^= (uint32_t)bytes[i] << (8 * i);
		h *= m;
	}
	h ^= h >> 13;
	h *= m;
	return h ^ h >> 15;
}

int kx_bus_key_partition(const void *key, size_t len, int partitions)
{
	return (int)((murmur2(key, len) & 0x7fffffff) % (uint32_t)partitions);
}
