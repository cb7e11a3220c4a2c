/* The in-process bus: topics and what they hold. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "common/bus/local_impl.h"

#define LOG_START 64

/* Every message costs its header too, or empty ones would be free and without bound. */
static size_t cost(const struct kx_bus_record *record)
{
	return sizeof(*record) + kx_bus_record_bytes(record);
}

struct kx_bus_local_topic *kx_bus_local_find(struct kx_bus_local *bus, const char *name)
{
	struct kx_bus_local_topic *topic = bus->topics;

	while (topic && strcmp(topic->name, name) != 0)
		topic = topic->next;
	return topic;
}

int64_t kx_bus_local_end(const struct kx_bus_local_log *log)
{
	return log->first + (int64_t)log->count;
}

struct kx_bus_record *kx_bus_local_at(const struct kx_bus_local_log *log, int64_t offset)
{
	if (offset < log->first || offset >= kx_bus_local_end(log))
		return NULL;
	return log->ring[(log->head + (size_t)(offset - log->first)) & (log->cap - 1)];
}

static kx_status log_grow(struct kx_bus_local_log *log)
{
	size_t cap = log->cap ? 2 * log->cap : LOG_START;
	struct kx_bus_record **ring = calloc(cap, sizeof(struct kx_bus_record *));

	if (!ring)
		return KX_ENOMEM;
	for (size_t i = 0; i < log->count; i++)
		ring[i] = log->ring[(log->head + i) & (log->cap - 1)];
	free(log->ring);
	log->ring = ring;
	log->cap = cap;
	log->head = 0;
	return KX_OK;
}

static kx_status log_append(struct kx_bus_local_log *log, struct kx_bus_record *record)
{
	if (log->count == log->cap && log_grow(log) != KX_OK)
		return KX_ENOMEM;
	record->offset = kx_bus_local_end(log);
	log->ring[(log->head + log->count++) & (log->cap - 1)] = record;
	return KX_OK;
}

static struct kx_bus_record *log_shift(struct kx_bus_local_log *log)
{
	struct kx_bus_record *record = log->ring[log->head];

	log->head = (log->head + 1) & (log->cap - 1);
	log->count--;
	log->first++;
	return record;
}

/* Lets go of what every group is done with. Without a group everything is held: the first one is still to come. */
void kx_bus_local_trim(struct kx_bus_local *bus, struct kx_bus_local_topic *topic, int partition)
{
	struct kx_bus_local_log *log = &topic->logs[partition];
	bool was_full = topic->bytes >= bus->topic_bytes_max;
	int64_t keep = log->first;
	bool wanted = false;

	for (struct kx_bus_local_group *group = topic->groups; group; group = group->next) {
		const struct kx_bus_local_share *share = &group->shares[partition];

		if (!share->unwanted && (!wanted || share->progress.next < keep))
			keep = share->progress.next;
		wanted |= !share->unwanted;
	}
	while (log->count && log->first < keep) {
		struct kx_bus_record *record = log_shift(log);

		topic->bytes -= cost(record);
		kx_bus_record_unref(record);
	}
	if (was_full && topic->bytes < bus->topic_bytes_max)
		pthread_cond_broadcast(&topic->room);
}

static void topic_free(struct kx_bus_local_topic *topic)
{
	kx_bus_local_groups_free(topic);
	for (int i = 0; topic->logs && i < topic->partitions; i++) {
		while (topic->logs[i].count)
			kx_bus_record_unref(log_shift(&topic->logs[i]));
		free(topic->logs[i].ring);
	}
	pthread_cond_destroy(&topic->room);
	free(topic->logs);
	free(topic->name);
	free(topic);
}

static struct kx_bus_local_topic *topic_new(const char *name, int partitions)
{
	struct kx_bus_local_topic *topic = calloc(1, sizeof(*topic));

	if (!topic)
		return NULL;
	if (kx_cond_init(&topic->room) != KX_OK) {
		free(topic);
		return NULL;
	}
	topic->partitions = partitions;
	topic->name = kx_strdup(name);
	topic->logs = calloc((size_t)partitions, sizeof(*topic->logs));
	if (!topic->name || !topic->logs) {
		topic_free(topic);
		return NULL;
	}
	return topic;
}

static void local_free(struct kx_bus *base)
{
	struct kx_bus_local *bus = (struct kx_bus_local *)base;

	while (bus->topics) {
		struct kx_bus_local_topic *topic = bus->topics;

		bus->topics = topic->next;
		topic_free(topic);
	}
	pthread_mutex_destroy(&bus->lock);
	free(bus->base.identity);
	free(bus);
}

/* `compacted` asks for nothing here: what every group has read is gone anyway. */
static kx_status local_topic(struct kx_bus *base, const char *name, int partitions, bool compacted,
			     int *ret_partitions, struct kx_error *error)
{
	struct kx_bus_local *bus = (struct kx_bus_local *)base;
	struct kx_bus_local_topic *topic;
	kx_status status = KX_OK;

	(void)compacted;
	pthread_mutex_lock(&bus->lock);
	topic = kx_bus_local_find(bus, name);
	if (!topic) {
		topic = topic_new(name, partitions);
		if (topic) {
			topic->next = bus->topics;
			bus->topics = topic;
		}
	}
	if (topic)
		*ret_partitions = topic->partitions;
	else
		status = kx_error_nomem(error);
	pthread_mutex_unlock(&bus->lock);
	return status;
}

static int local_partitions(struct kx_bus *base, const char *name)
{
	struct kx_bus_local *bus = (struct kx_bus_local *)base;
	const struct kx_bus_local_topic *topic;
	int partitions;

	pthread_mutex_lock(&bus->lock);
	topic = kx_bus_local_find(bus, name);
	partitions = topic ? topic->partitions : 0;
	pthread_mutex_unlock(&bus->lock);
	return partitions;
}

/* Takes over *record when it returns KX_OK. */
static kx_status append(struct kx_bus_local *bus, int partition, struct kx_bus_record *record, struct kx_error *error)
{
	struct kx_bus_local_topic *topic = kx_bus_local_find(bus, record->topic);

	if (topic->bytes >= bus->topic_bytes_max)
		return kx_error_set(error, KX_EAGAIN, KX_ERROR_RETRY, "topic '%s' holds %zu unacknowledged bytes",
				    topic->name, topic->bytes);
	if (log_append(&topic->logs[partition], record) != KX_OK)
		return kx_error_nomem(error);
	topic->bytes += cost(record);
	kx_bus_local_announce(topic, partition);
	return KX_OK;
}

static kx_status local_publish(struct kx_bus *base, const struct kx_bus_outgoing *out, struct kx_error *error)
{
	struct kx_bus_local *bus = (struct kx_bus_local *)base;
	struct kx_bus_record *record = kx_bus_record_new(out); /* outside the lock: it copies megabytes */
	kx_status status;

	if (!record)
		return kx_error_nomem(error);
	pthread_mutex_lock(&bus->lock);
	status = append(bus, out->partition, record, error);
	pthread_mutex_unlock(&bus->lock);
	if (status != KX_OK)
		kx_bus_record_unref(record);
	else if (out->delivered)
		out->delivered(out->ctx, KX_OK);
	return status;
}

static kx_status local_wait_room(struct kx_bus *base, const char *name, int timeout_ms)
{
	struct kx_bus_local *bus = (struct kx_bus_local *)base;
	struct timespec deadline = kx_clock_deadline((uint64_t)(timeout_ms > 0 ? timeout_ms : 0));
	struct kx_bus_local_topic *topic;
	int rc = 0;

	pthread_mutex_lock(&bus->lock);
	topic = kx_bus_local_find(bus, name);
	while (topic->bytes >= bus->topic_bytes_max && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&topic->room, &bus->lock, &deadline);
	rc = topic->bytes >= bus->topic_bytes_max;
	pthread_mutex_unlock(&bus->lock);
	return rc ? KX_ETIMEDOUT : KX_OK;
}

/* A message is delivered when publish returns. */
static kx_status local_flush(struct kx_bus *base, int timeout_ms, struct kx_error *error)
{
	(void)base;
	(void)timeout_ms;
	(void)error;
	return KX_OK;
}

static const struct kx_bus_ops local_ops = {
	.free = local_free,
	.topic = local_topic,
	.partitions = local_partitions,
	.publish = local_publish,
	.wait_room = local_wait_room,
	.flush = local_flush,
	.subscribe = kx_bus_local_subscribe,
	.receive = kx_bus_local_receive,
	.ack = kx_bus_local_ack,
	.wake = kx_bus_local_wake,
	.close = kx_bus_local_close,
};

kx_status kx_bus_local_new(const struct kx_bus_local_options *options, struct kx_bus **ret, struct kx_error *error)
{
	struct kx_bus_local *bus;
	uint64_t nonce[2];

	if (options->topic_bytes_max == 0)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "a local bus needs a limit on what it holds");
	if (getrandom(nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce))
		return kx_error_from_errno(error, errno, "random bytes for the bus's identity");
	bus = calloc(1, sizeof(*bus));
	if (!bus)
		return kx_error_nomem(error);
	bus->base.ops = &local_ops;
	bus->topic_bytes_max = options->topic_bytes_max;
	bus->base.identity = kx_strf("local-%016" PRIx64 "%016" PRIx64, nonce[0], nonce[1]);
	if (!bus->base.identity || pthread_mutex_init(&bus->lock, NULL) != 0) {
		free(bus->base.identity);
		free(bus);
		return kx_error_nomem(error);
	}
	*ret = &bus->base;
	return KX_OK;
}
