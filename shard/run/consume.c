/* The thread that takes results in: messages and their offsets in one synced write, then the mirror, then the events,
 * then the acknowledgements. Whatever is lost after the write is done again from what the write holds. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/record/result.h"
#include "shard/run/internal.h"

#define BATCH_MESSAGES 256u
#define BATCH_BYTES ((size_t)8 << 20)
#define BATCH_MS 50
#define IN_FLIGHT_BYTES (2 * BATCH_BYTES + KX_BUS_MESSAGE_MAX)
#define ROOM_WAIT_MS 1000
#define LAST_FLUSH_MS 500

struct taken {
	int partition;
	int64_t offset;
	uint64_t epoch;
};

struct round {
	struct kx_shard *shard;
	struct kx_store_batch *batch;
	struct taken taken[BATCH_MESSAGES];
	size_t count;
	size_t bytes;
};

static int64_t resume(void *ctx, int partition)
{
	struct kx_shard *shard = ctx;
	struct kx_error error = {0};
	int64_t next = -1;

	/* From the oldest if it can't be read: taking in twice changes nothing. */
	if (kx_store_offset(shard->store, kx_bus_identity(shard->bus), shard->topics.name[KX_TOPIC_RESULTS], partition,
			    &next, &error))
		kx_log_failure(&error);
	return next;
}

/* The partitions of a part, [*ret_count]. Every part must have one, or its shard would wait for ever. */
static kx_status choose(const struct kx_store_part *part, const char *topic, int **ret, int *ret_count,
			struct kx_error *error)
{
	int *list;

	if (part->parts > part->partitions)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "%" PRIu32 " shards share the partitions of %s, and it has %" PRIu32
				    ". Use as many at most, or another --namespace with more --partitions",
				    part->parts, topic, part->partitions);
	list = calloc(part->partitions, sizeof(*list));
	if (!list)
		return kx_error_nomem(error);
	for (uint32_t i = part->part; i < part->partitions; i += part->parts)
		list[(*ret_count)++] = (int)i;
	*ret = list;
	return KX_OK;
}

/* Its own group and not one that shares: what a store has read stays read by it, and a shard that comes back need not wait
 * until the group has given up on the one that was killed. */
kx_status kx_shard_subscribe(struct kx_shard *shard, const struct kx_shard_options *options, struct kx_error *error)
{
	const char *topic = shard->topics.name[KX_TOPIC_RESULTS];
	struct kx_store_part part = {.part = options->part, .parts = options->parts ? options->parts : 1};
	KX_CLEANUP(kx_cleanup_free) char *group = kx_strf("%s.shard-%u-of-%u", options->ns, part.part, part.parts);
	KX_CLEANUP(kx_cleanup_free) int *partitions = NULL;
	struct kx_bus_subscription subscription = {
		.group = group,
		.topic = topic,
		.resume = resume,
		.ctx = shard,
		.in_flight_bytes_max = IN_FLIGHT_BYTES,
	};
	int count = 0;
	kx_status status;

	if (!group)
		return kx_error_nomem(error);
	status = kx_bus_topic(shard->bus, topic, 1, 0, &count, error);
	part.partitions = (uint32_t)count;
	if (!status)
		status = choose(&part, topic, &partitions, &subscription.partition_count, error);
	if (!status)
		status = kx_store_claim(shard->store, &part, error);
	subscription.partitions = partitions;
	return status ? status : kx_bus_subscribe(shard->bus, &subscription, &shard->consumer, error);
}

static void skip(struct kx_shard *shard, const struct kx_bus_message *message, const struct kx_error *error)
{
	atomic_fetch_add(&shard->skipped, 1);
	kx_log(KX_LOG_ERROR, "%s, partition %d, offset %" PRId64 ": %s; the message is skipped", message->topic,
	       message->partition, message->offset, error->message);
}

static kx_status take_message(struct round *round, const struct kx_bus_message *message, struct kx_error *error)
{
	KX_CLEANUP(kx_result_cleanup) struct kx_result *result = NULL;
	struct kx_shard *shard = round->shard;
	struct kx_error why = {0};
	kx_status status = kx_result_unpack(message->payload, message->len, &result, &why);

	if (!status)
		status = kx_store_apply(round->batch, result, &why);
	if (status && why.class != KX_ERROR_POISON) {
		if (error)
			*error = why;
		return kx_error_prefix(error, status, "taking in results: ");
	}
	if (status)
		skip(shard, message, &why);
	kx_store_batch_offset(round->batch, kx_bus_identity(shard->bus), message->topic, message->partition,
			      message->offset + 1);
	round->taken[round->count++] = (struct taken){message->partition, message->offset, message->epoch};
	round->bytes += message->len;
	return KX_OK;
}

/* Until the batch is full, its time is over, or the shard is to stop. */
static kx_status take_messages(struct round *round, struct kx_error *error)
{
	struct kx_shard *shard = round->shard;
	uint64_t until = kx_clock_mono_us() + BATCH_MS * 1000u;

	while (round->count < BATCH_MESSAGES && round->bytes < BATCH_BYTES && !kx_stop_asked(&shard->stop)) {
		struct kx_bus_message message = {0};
		uint64_t now = kx_clock_mono_us();
		kx_status status;

		if (now >= until)
			return KX_OK;
		status = kx_bus_receive(shard->consumer, (int)((until - now) / 1000u) + 1, &message, error);
		if (status == KX_EAGAIN)
			return KX_OK;
		if (status)
			return kx_error_prefix(error, status, "receiving results: ");
		status = take_message(round, &message, error);
		kx_bus_message_done(&message);
		if (status)
			return status;
	}
	return KX_OK;
}

static kx_status tell(struct kx_shard *shard, const struct kx_store_change *change, struct kx_error *error)
{
	const struct kx_store_event event = {change->id, change->generation, change->kind, change->event.data,
					     change->event.len};
	kx_status status = KX_OK;

	if (change->kind == KX_STORE_STORED)
		status = kx_mirror_put(shard->mirror, change->record, error);
	else if (change->kind == KX_STORE_REMOVED)
		kx_mirror_remove(shard->mirror, change->id);
	return status ? status : kx_outbox_send(shard->outbox, &event, error);
}

static kx_status finish_round(struct round *round, struct kx_error *error)
{
	struct kx_shard *shard = round->shard;
	const struct kx_store_change *changes;
	size_t count;
	kx_status status = kx_shard_commit(round->batch, shard->index, shard->mirror, error);

	if (status)
		return status;
	changes = kx_store_changes(round->batch, &count);
	for (size_t i = 0; !status && i < count; i++)
		status = tell(shard, &changes[i], error);
	/* Fenced ones are somebody else's by now. */
	for (size_t i = 0; i < round->count; i++)
		(void)kx_bus_ack(shard->consumer, round->taken[i].partition, round->taken[i].offset,
				 round->taken[i].epoch);
	return status;
}

/* Nobody takes events off the bus: taking in more would only pile up more of them. */
static void wait_for_room(struct kx_shard *shard)
{
	if (kx_outbox_waiting(shard->outbox) < KX_OUTBOX_WAITING_MAX)
		return;
	if (kx_bus_wait_room(shard->bus, shard->topics.name[KX_TOPIC_RUNS], ROOM_WAIT_MS) == KX_ETIMEDOUT)
		kx_log(KX_LOG_WARN, "%zu events wait for room on the bus", kx_outbox_waiting(shard->outbox));
}

static kx_status run_round(struct kx_shard *shard, bool receive, struct kx_error *error)
{
	KX_CLEANUP(kx_store_batch_cleanup) struct kx_store_batch *batch = NULL;
	struct round round = {.shard = shard};
	kx_status status = kx_store_batch_new(shard->store, kx_clock_wall_ms(), &batch, error);

	round.batch = batch;
	if (!status)
		status = kx_outbox_settle(shard->outbox, batch, error);
	if (!status && receive)
		status = take_messages(&round, error);
	return status ? status : finish_round(&round, error);
}

static kx_status send_again(void *ctx, const struct kx_store_event *event, struct kx_error *error)
{
	struct kx_shard *shard = ctx;

	return kx_outbox_send(shard->outbox, event, error);
}

/* What was on its way when the rounds ended gets a moment to arrive, so that the next start need not repeat it. */
static kx_status settle_last(struct kx_shard *shard, struct kx_error *error)
{
	if (kx_bus_flush(shard->bus, LAST_FLUSH_MS, NULL))
		kx_log(KX_LOG_DEBUG, "events are still on their way; the next start sends them again");
	return kx_outbox_unsettled(shard->outbox) ? run_round(shard, false, error) : KX_OK;
}

void *kx_shard_consume(void *arg)
{
	struct kx_shard *shard = arg;
	struct kx_error error = {0};
	kx_status status = kx_mirror_need(shard->mirror, &error);

	if (status == KX_ECANCELED && kx_stop_asked(&shard->stop)) {
		kx_bus_consumer_close(KX_STEAL(shard->consumer));
		return NULL;
	}
	if (!status)
		status = kx_store_each_outbox(shard->store, send_again, shard, &error);
	while (!status && !kx_stop_asked(&shard->stop)) {
		if (kx_mirror_keep_due(shard->mirror))
			kx_mirror_keep(shard->mirror);
		wait_for_room(shard);
		status = run_round(shard, true, &error);
	}
	if (!status)
		status = settle_last(shard, &error);
	if (status)
		kx_shard_fail(shard, status, &error);
	kx_bus_consumer_close(KX_STEAL(shard->consumer));
	return NULL;
}
