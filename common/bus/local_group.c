/* The in-process bus: consumer groups, who has which partition, and how messages get to consumers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "common/bus/local_impl.h"

void kx_bus_local_announce(struct kx_bus_local_topic *topic, int partition)
{
	for (struct kx_bus_local_group *group = topic->groups; group; group = group->next) {
		if (group->shares[partition].owner)
			pthread_cond_signal(&group->shares[partition].owner->ready);
	}
}

static void group_free(struct kx_bus_local_group *group)
{
	for (int i = 0; group->shares && i < group->topic->partitions; i++)
		kx_bus_progress_done(&group->shares[i].progress);
	free(group->shares);
	free(group->name);
	free(group);
}

void kx_bus_local_groups_free(struct kx_bus_local_topic *topic)
{
	while (topic->groups) {
		struct kx_bus_local_group *group = topic->groups;

		topic->groups = group->next;
		group_free(group);
	}
}

/* Starts at the oldest message that is still held. */
static struct kx_bus_local_group *group_new(struct kx_bus_local_topic *topic, const char *name)
{
	struct kx_bus_local_group *group = calloc(1, sizeof(*group));

	if (!group)
		return NULL;
	group->topic = topic;
	group->name = kx_strdup(name);
	group->shares = calloc((size_t)topic->partitions, sizeof(*group->shares));
	if (!group->name || !group->shares) {
		group_free(group);
		return NULL;
	}
	for (int i = 0; i < topic->partitions; i++)
		kx_bus_progress_reset(&group->shares[i].progress, topic->logs[i].first);
	group->next = topic->groups;
	topic->groups = group;
	return group;
}

static struct kx_bus_local_group *group_get(struct kx_bus_local_topic *topic, const char *name)
{
	struct kx_bus_local_group *group = topic->groups;

	while (group && strcmp(group->name, name) != 0)
		group = group->next;
	return group ? group : group_new(topic, name);
}

static void hand_over(struct kx_bus_local *bus, struct kx_bus_local_share *share)
{
	share->owner = share->heir;
	share->announced = false;
	share->epoch = ++bus->epoch;
	share->cursor = share->progress.next;
	if (share->owner)
		pthread_cond_signal(&share->owner->ready);
}

static struct kx_bus_local_consumer *lightest(const struct kx_bus_local_group *group)
{
	struct kx_bus_local_consumer *best = group->members;

	for (struct kx_bus_local_consumer *member = best; member; member = member->next) {
		if (member->load < best->load)
			best = member;
	}
	return best;
}

static void give(struct kx_bus_local_share *share, struct kx_bus_local_consumer *to)
{
	if (share->heir)
		share->heir->load--;
	share->heir = to;
	to->load++;
}

/* Decides the heirs: partitions spread evenly, as few as possible moved. */
static void choose_heirs(struct kx_bus_local_group *group)
{
	struct kx_bus_local_share *shares = group->shares;
	int partitions = group->topic->partitions;

	for (struct kx_bus_local_consumer *member = group->members; member; member = member->next)
		member->load = 0;
	for (int i = 0; i < partitions; i++) {
		if (shares[i].heir)
			shares[i].heir->load++;
	}
	for (int i = 0; i < partitions; i++) {
		if (!shares[i].heir && !shares[i].unwanted)
			give(&shares[i], lightest(group));
	}
	for (int i = 0; i < partitions; i++) {
		struct kx_bus_local_consumer *to = lightest(group);

		if (shares[i].heir && shares[i].heir->load - to->load > 1)
			give(&shares[i], to);
	}
}

/* After a join or a leave. What nobody has goes to its heir now; the rest when its owner's thread lets go of it. */
static void balance(struct kx_bus_local *bus, struct kx_bus_local_group *group)
{
	if (group->members)
		choose_heirs(group);
	for (int i = 0; i < group->topic->partitions; i++) {
		struct kx_bus_local_share *share = &group->shares[i];

		if (!share->owner)
			hand_over(bus, share);
		else if (share->owner != share->heir)
			pthread_cond_signal(&share->owner->ready);
	}
}

/* With the lock held: makes the consumer a member of its group. */
static kx_status join(struct kx_bus_local *bus, struct kx_bus_local_consumer *consumer, struct kx_error *error)
{
	const struct kx_bus_subscription *wanted = &consumer->subscription;
	struct kx_bus_local_group *group = group_get(kx_bus_local_find(bus, wanted->topic), wanted->group);

	if (!group)
		return kx_error_nomem(error);
	if (wanted->partitions && group->members)
		return kx_error_set(error, KX_EBUSY, KX_ERROR_FATAL, "topic '%s': group '%s' has a consumer", wanted->topic,
				    wanted->group);
	for (int i = 0; i < group->topic->partitions; i++)
		group->shares[i].unwanted = wanted->partitions != NULL;
	for (int i = 0; i < (wanted->partitions ? wanted->partition_count : 0); i++)
		group->shares[wanted->partitions[i]].unwanted = false;
	consumer->group = group;
	consumer->next = group->members;
	group->members = consumer;
	balance(bus, group);
	return KX_OK;
}

kx_status kx_bus_local_subscribe(struct kx_bus *base, const struct kx_bus_subscription *subscription,
				 struct kx_bus_consumer **ret, struct kx_error *error)
{
	struct kx_bus_local *bus = (struct kx_bus_local *)base;
	struct kx_bus_local_consumer *consumer = calloc(1, sizeof(*consumer));
	kx_status status;

	if (!consumer)
		return kx_error_nomem(error);
	if (kx_cond_init(&consumer->ready) != KX_OK) {
		free(consumer);
		return kx_error_nomem(error);
	}
	consumer->base.ops = base->ops;
	consumer->bus = bus;
	consumer->subscription = *subscription;
	pthread_mutex_lock(&bus->lock);
	status = join(bus, consumer, error);
	pthread_mutex_unlock(&bus->lock);
	if (status != KX_OK) {
		pthread_cond_destroy(&consumer->ready);
		free(consumer);
		return status;
	}
	*ret = &consumer->base;
	return KX_OK;
}

/* Gives a partition to its heir. Fenced first: whoever finishes a message of it from now on is told so. */
static void let_go(struct kx_bus_local_consumer *consumer, int partition)
{
	struct kx_bus_local_share *share = &consumer->group->shares[partition];
	const struct kx_bus_subscription *subscription = &consumer->subscription;

	share->epoch = 0;
	consumer->in_flight_bytes -= share->progress.in_flight_bytes;
	consumer->held -= share->progress.held;
	kx_bus_progress_reset(&share->progress, share->progress.next);
	if (share->announced && subscription->revoked) {
		pthread_mutex_unlock(&consumer->bus->lock);
		subscription->revoked(subscription->ctx, partition);
		pthread_mutex_lock(&consumer->bus->lock);
	}
	hand_over(consumer->bus, share);
}

/* Starts on a partition: where the group stands, or where the subscriber says. Like Kafka with an offset out of
 * range, one that is not held starts at the oldest. */
static void take_up(struct kx_bus_local_consumer *consumer, int partition)
{
	struct kx_bus_local_share *share = &consumer->group->shares[partition];
	const struct kx_bus_local_log *log = &consumer->group->topic->logs[partition];
	const struct kx_bus_subscription *subscription = &consumer->subscription;
	int64_t from = share->progress.next;

	pthread_mutex_unlock(&consumer->bus->lock);
	if (subscription->resume)
		from = subscription->resume(subscription->ctx, partition);
	if (subscription->assigned)
		subscription->assigned(subscription->ctx, partition);
	pthread_mutex_lock(&consumer->bus->lock);
	if (from < log->first || from > kx_bus_local_end(log))
		from = log->first;
	kx_bus_progress_reset(&share->progress, from);
	share->cursor = from;
	share->announced = true;
	kx_bus_local_trim(consumer->bus, consumer->group->topic, partition);
}

/* Brings one partition to where the balance wants it. true: callbacks may have run without the lock, look again. */
static bool settle(struct kx_bus_local_consumer *consumer)
{
	struct kx_bus_local_group *group = consumer->group;

	for (int i = 0; i < group->topic->partitions; i++) {
		if (group->shares[i].owner != consumer)
			continue;
		if (group->shares[i].heir != consumer) {
			let_go(consumer, i);
			return true;
		}
		if (!group->shares[i].announced) {
			take_up(consumer, i);
			return true;
		}
	}
	return false;
}

static bool at_capacity(const struct kx_bus_local_consumer *consumer)
{
	size_t max = consumer->subscription.in_flight_bytes_max;

	return (max && consumer->in_flight_bytes >= max) || consumer->held >= KX_BUS_HELD_MAX;
}

/* KX_EAGAIN when there is nothing to hand out, or no room for it. */
static kx_status hand_out(struct kx_bus_local_consumer *consumer, struct kx_bus_message *ret, struct kx_error *error)
{
	const struct kx_bus_local_topic *topic = consumer->group->topic;

	if (at_capacity(consumer))
		return KX_EAGAIN;
	for (int i = 0; i < topic->partitions; i++) {
		int partition = (consumer->turn + i) % topic->partitions;
		struct kx_bus_local_share *share = &consumer->group->shares[partition];
		struct kx_bus_record *record = kx_bus_local_at(&topic->logs[partition], share->cursor);

		if (share->owner != consumer || !record)
			continue;
		if (kx_bus_progress_received(&share->progress, record->offset, kx_bus_record_bytes(record)) != KX_OK)
			return kx_error_nomem(error);
		share->cursor++;
		consumer->turn = partition + 1;
		consumer->held++;
		consumer->in_flight_bytes += kx_bus_record_bytes(record);
		kx_bus_record_lend(record, partition, share->epoch, ret);
		return KX_OK;
	}
	return KX_EAGAIN;
}

kx_status kx_bus_local_receive(struct kx_bus_consumer *base, int timeout_ms, struct kx_bus_message *ret,
			       struct kx_error *error)
{
	struct kx_bus_local_consumer *consumer = (struct kx_bus_local_consumer *)base;
	struct timespec deadline = kx_clock_deadline((uint64_t)(timeout_ms > 0 ? timeout_ms : 0));
	kx_status status = KX_EAGAIN;
	int rc = 0;

	pthread_mutex_lock(&consumer->bus->lock);
	while (rc != ETIMEDOUT) {
		while (settle(consumer))
			;
		if (consumer->woken)
			break;
		status = hand_out(consumer, ret, error);
		if (status != KX_EAGAIN)
			break;
		rc = pthread_cond_timedwait(&consumer->ready, &consumer->bus->lock, &deadline);
	}
	consumer->woken = false;
	pthread_mutex_unlock(&consumer->bus->lock);
	return status;
}

kx_status kx_bus_local_ack(struct kx_bus_consumer *base, int partition, int64_t offset, uint64_t epoch)
{
	struct kx_bus_local_consumer *consumer = (struct kx_bus_local_consumer *)base;
	struct kx_bus_local_group *group = consumer->group;
	struct kx_bus_local_share *share;
	kx_status status = KX_ECANCELED;
	bool advanced = false;

	if (partition < 0 || partition >= group->topic->partitions)
		return KX_EINVAL;
	share = &group->shares[partition];
	pthread_mutex_lock(&consumer->bus->lock);
	if (share->epoch == epoch && share->owner == consumer) {
		bool was_full = at_capacity(consumer);

		consumer->in_flight_bytes -= share->progress.in_flight_bytes;
		consumer->held -= share->progress.held;
		status = kx_bus_progress_finished(&share->progress, offset, &advanced);
		consumer->in_flight_bytes += share->progress.in_flight_bytes;
		consumer->held += share->progress.held;
		if (was_full)
			pthread_cond_signal(&consumer->ready);
	}
	if (advanced)
		kx_bus_local_trim(consumer->bus, group->topic, partition);
	pthread_mutex_unlock(&consumer->bus->lock);
	return status;
}

void kx_bus_local_wake(struct kx_bus_consumer *base)
{
	struct kx_bus_local_consumer *consumer = (struct kx_bus_local_consumer *)base;

	pthread_mutex_lock(&consumer->bus->lock);
	consumer->woken = true;
	pthread_cond_signal(&consumer->ready);
	pthread_mutex_unlock(&consumer->bus->lock);
}

void kx_bus_local_close(struct kx_bus_consumer *base)
{
	struct kx_bus_local_consumer *consumer = (struct kx_bus_local_consumer *)base;
	struct kx_bus_local_group *group = consumer->group;
	struct kx_bus_local_consumer **at = &group->members;

	pthread_mutex_lock(&consumer->bus->lock);
	while (*at != consumer)
		at = &(*at)->next;
	*at = consumer->next;
	for (int i = 0; i < group->topic->partitions; i++) {
		if (group->shares[i].heir == consumer)
			group->shares[i].heir = NULL;
	}
	balance(consumer->bus, group);
	while (settle(consumer))
		;
	pthread_mutex_unlock(&consumer->bus->lock);
	pthread_cond_destroy(&consumer->ready);
	free(consumer);
}
