/* The contract: consumer groups, acknowledgement, redelivery, fencing. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/bus/test_contract.h"

#define SOON_MS 20        /* a look at whether something is there, in a loop */
#define NOTHING_MS 400    /* for what must not come; longer than the pause at capacity takes to begin */

/* What a consumer was told about its partitions. */
struct told {
	struct kx_bus_consumer *consumer;
	int assigned[8], revoked[8];
	int received;
	int64_t resume_at;
	struct kx_bus_message held; /* acknowledged from inside revoked() when it has an owner */
	kx_status ack_in_revoked;
};

static void on_assigned(void *ctx, int partition)
{
	((struct told *)ctx)->assigned[partition]++;
}

static void on_revoked(void *ctx, int partition)
{
	struct told *told = ctx;

	told->revoked[partition]++;
	if (told->held.owner)
		told->ack_in_revoked = kx_bus_ack(told->consumer, partition, told->held.offset, told->held.epoch);
}

static int64_t on_resume(void *ctx, int partition)
{
	(void)partition;
	return ((struct told *)ctx)->resume_at;
}

/* Subscribes with everything that `told` wants to know. */
static void join(struct kx_bus *bus, const char *topic, const char *group, bool resume, struct told *told)
{
	const struct kx_bus_subscription subscription = {.group = group, .topic = topic, .ctx = told,
							 .assigned = on_assigned, .revoked = on_revoked,
							 .resume = resume ? on_resume : NULL};
	struct kx_error error = {0};

	test_ok(kx_bus_subscribe(bus, &subscription, &told->consumer, &error), &error);
}

static int has(const struct told *told)
{
	int sum = 0;

	for (int i = 0; i < 8; i++)
		sum += told->assigned[i] - told->revoked[i];
	return sum;
}

static bool late(uint64_t since_us)
{
	return kx_clock_mono_us() - since_us > (uint64_t)PATIENCE_MS * 1000;
}

static void each_group_sees_all(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 1);
	struct kx_bus_consumer *a = test_subscribe(bus, topic, "a"), *b = test_subscribe(bus, topic, "b"), *c;

	(void)state;
	test_publish(bus, topic, 0, "one");
	test_publish(bus, topic, 0, "two");
	test_expect(a, "one", 1);
	test_expect(b, "one", 0);
	test_expect(a, "two", 1);
	test_expect(b, "two", 0);
	c = test_subscribe(bus, topic, "c"); /* what b has not acknowledged is held for whoever comes later, too */
	test_expect(c, "one", 1);
	test_expect(c, "two", 1);
	kx_bus_consumer_close(a);
	kx_bus_consumer_close(b);
	kx_bus_consumer_close(c);
	kx_bus_free(bus);
}

static void unacknowledged_comes_again(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 1);
	struct kx_bus_consumer *consumer = test_subscribe(bus, topic, "again");

	(void)state;
	test_publish(bus, topic, 0, "0");
	test_publish(bus, topic, 0, "1");
	test_publish(bus, topic, 0, "2");
	test_publish(bus, topic, 0, "3");
	test_expect(consumer, "0", 1);
	test_expect(consumer, "1", 0);
	test_expect(consumer, "2", 1);
	test_expect(consumer, "3", 0);
	kx_bus_consumer_close(consumer);

	consumer = test_subscribe(bus, topic, "again");
	test_expect(consumer, "1", 1); /* where the finished prefix ends, though 2 was finished */
	test_expect(consumer, "2", 1);
	test_expect(consumer, "3", 1);
	kx_bus_consumer_close(consumer);

	consumer = test_subscribe(bus, topic, "again");
	test_publish(bus, topic, 0, "4");
	test_expect(consumer, "4", 1);
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

static void acknowledgements_come_in_any_order(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 1);
	struct kx_bus_consumer *consumer = test_subscribe(bus, topic, "order");
	struct kx_bus_message messages[6];
	static const int order[] = {5, 2, 0, 4, 1, 3};

	(void)state;
	for (int i = 0; i < 6; i++)
		test_publish(bus, topic, 0, "x");
	for (int i = 0; i < 6; i++)
		test_receive(consumer, &messages[i]);
	for (int i = 0; i < 6; i++) {
		struct kx_bus_message *message = &messages[order[i]];

		assert_int_equal(kx_bus_ack(consumer, 0, message->offset, message->epoch), KX_OK);
		assert_int_equal(kx_bus_ack(consumer, 0, message->offset, message->epoch), KX_OK); /* twice is once */
		kx_bus_message_done(message);
	}
	kx_bus_consumer_close(consumer);
	consumer = test_subscribe(bus, topic, "order");
	test_publish(bus, topic, 0, "after");
	test_expect(consumer, "after", 1);
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

static void acknowledging_what_never_came_is_refused(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 1);
	struct kx_bus_consumer *consumer = test_subscribe(bus, topic, "never");
	struct kx_bus_message message;

	(void)state;
	test_publish(bus, topic, 0, "x");
	test_receive(consumer, &message);
	assert_int_equal(kx_bus_ack(consumer, 0, message.offset + 1, message.epoch), KX_EINVAL);
	assert_int_equal(kx_bus_ack(consumer, -1, message.offset, message.epoch), KX_EINVAL);
	assert_int_equal(kx_bus_ack(consumer, 0, message.offset, message.epoch + 1), KX_ECANCELED);
	assert_int_equal(kx_bus_ack(consumer, 0, message.offset, 0), KX_ECANCELED);
	assert_int_equal(kx_bus_ack(consumer, 0, message.offset, message.epoch), KX_OK);
	kx_bus_message_done(&message);
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

static void closing_revokes_and_fences(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 1);
	struct told told = {0};
	struct kx_bus_consumer *consumer;

	(void)state;
	join(bus, topic, "close", false, &told);
	test_publish(bus, topic, 0, "x");
	test_receive(told.consumer, &told.held);
	assert_int_equal(told.assigned[0], 1);
	assert_int_equal(told.revoked[0], 0);
	kx_bus_consumer_close(told.consumer);
	assert_int_equal(told.revoked[0], 1);
	assert_int_equal(told.ack_in_revoked, KX_ECANCELED);
	kx_bus_message_done(&told.held);
	consumer = test_subscribe(bus, topic, "close");
	test_expect(consumer, "x", 1);
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

/* One turn of a receiving loop. What comes is acknowledged and counted. */
static void turn(struct told *told)
{
	struct kx_bus_message message;
	struct kx_error error = {0};
	kx_status status = kx_bus_receive(told->consumer, SOON_MS, &message, &error);

	if (status == KX_EAGAIN)
		return;
	test_ok(status, &error);
	assert_int_equal(kx_bus_ack(told->consumer, message.partition, message.offset, message.epoch), KX_OK);
	told->received++;
	kx_bus_message_done(&message);
}

/* Turns until one has that many partitions; a partition is never with both. */
static void share_out(struct told *a, int a_has, struct told *b, int b_has)
{
	uint64_t start = kx_clock_mono_us();

	while (has(a) != a_has || (b && has(b) != b_has)) {
		assert_false(late(start));
		turn(a);
		if (b)
			turn(b);
		for (int i = 0; b && i < 4; i++)
			assert_true(a->assigned[i] - a->revoked[i] + b->assigned[i] - b->revoked[i] <= 1);
	}
}

static void second_consumer_takes_its_part(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 4);
	struct told a = {0}, b = {0};
	struct kx_bus_message messages[4];
	uint64_t start = kx_clock_mono_us();

	(void)state;
	join(bus, topic, "share", false, &a);
	share_out(&a, 4, NULL, 0);
	for (int i = 0; i < 4; i++)
		test_publish(bus, topic, i, "x");
	for (int i = 0; i < 4; i++)
		test_receive(a.consumer, &messages[i]);

	join(bus, topic, "share", false, &b);
	share_out(&a, 2, &b, 2);
	while (b.received < 2 && !late(start)) /* what a had of these two and did not finish */
		turn(&b);
	assert_int_equal(b.received, 2);
	assert_int_equal(a.received, 0);
	for (int i = 0; i < 4; i++) {
		int partition = messages[i].partition;
		kx_status status = kx_bus_ack(a.consumer, partition, messages[i].offset, messages[i].epoch);

		assert_int_equal(status, a.revoked[partition] ? KX_ECANCELED : KX_OK);
		kx_bus_message_done(&messages[i]);
	}

	kx_bus_consumer_close(b.consumer);
	share_out(&a, 4, NULL, 0);
	assert_int_equal(a.received, 0); /* all four were finished, by one or the other */
	for (int i = 0; i < 4; i++)
		test_publish(bus, topic, i, "y");
	for (int i = 0; i < 4; i++)
		test_expect(a.consumer, "y", 1);
	kx_bus_consumer_close(a.consumer);
	kx_bus_free(bus);
}

static struct kx_bus_consumer *subscribe_capped(struct kx_bus *bus, const char *topic, size_t bytes)
{
	const struct kx_bus_subscription subscription = {.group = "capped", .topic = topic,
							 .in_flight_bytes_max = bytes};
	struct kx_bus_consumer *consumer = NULL;
	struct kx_error error = {0};

	test_ok(kx_bus_subscribe(bus, &subscription, &consumer, &error), &error);
	return consumer;
}

struct acker {
	struct kx_bus_consumer *consumer;
	struct kx_bus_message message;
};

static void *ack_later(void *arg)
{
	struct acker *acker = arg;

	return (void *)(intptr_t)kx_bus_ack(acker->consumer, acker->message.partition, acker->message.offset,
					    acker->message.epoch);
}

static void in_flight_bytes_are_capped(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 1);
	struct kx_bus_consumer *consumer = subscribe_capped(bus, topic, 3000);
	struct kx_bus_message messages[3], more;
	struct acker acker = {.consumer = consumer};
	struct kx_error error = {0};
	char payload[1000] = "x";
	pthread_t thread;
	void *acked;

	(void)state;
	for (int i = 0; i < 8; i++)
		test_ok(kx_bus_publish(bus, topic, 0, NULL, 0, payload, sizeof(payload), NULL, NULL, &error), &error);
	for (int i = 0; i < 3; i++)
		test_receive(consumer, &messages[i]);
	assert_int_equal(kx_bus_receive(consumer, 0, &more, &error), KX_EAGAIN);
	assert_int_equal(kx_bus_receive(consumer, NOTHING_MS, &more, &error), KX_EAGAIN);
	for (int64_t i = 3; i < 8; i++) { /* each is let through by the acknowledgement of one, on another thread */
		acker.message = messages[i % 3];
		assert_int_equal(pthread_create(&thread, NULL, ack_later, &acker), 0);
		test_receive(consumer, &more);
		assert_int_equal(more.offset, i);
		pthread_join(thread, &acked);
		assert_int_equal((intptr_t)acked, KX_OK);
		kx_bus_message_done(&messages[i % 3]);
		messages[i % 3] = more;
		if (i % 2) /* at capacity again, for long enough to pause */
			assert_int_equal(kx_bus_receive(consumer, NOTHING_MS, &more, &error), KX_EAGAIN);
	}
	for (int i = 0; i < 3; i++)
		kx_bus_message_done(&messages[i]);
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

/* Receives the next message and wants it from that offset. */
static void expect_offset(struct told *told, int64_t offset, bool ack)
{
	struct kx_bus_message message;

	test_receive(told->consumer, &message);
	assert_int_equal(message.offset, offset);
	if (ack)
		assert_int_equal(kx_bus_ack(told->consumer, 0, offset, message.epoch), KX_OK);
	kx_bus_message_done(&message);
}

static void subscriber_keeps_its_own_offsets(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 1);
	struct kx_bus_consumer *keeper = test_subscribe(bus, topic, "keeper"); /* so that a local bus holds all */
	static const int64_t from[][2] = {{4, 4}, {2, 2}, {-1, 0}, {100, 0}, {7, 7}}; /* asked, and where it begins */

	(void)state;
	for (int i = 0; i < 10; i++)
		test_publish(bus, topic, 0, "x");
	test_expect(keeper, "x", 0);
	for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
		struct told told = {.resume_at = from[i][0]};

		join(bus, topic, "own", true, &told);
		expect_offset(&told, from[i][1], true);
		expect_offset(&told, from[i][1] + 1, false);
		assert_int_equal(told.assigned[0], 1);
		kx_bus_consumer_close(told.consumer);
		assert_int_equal(told.revoked[0], 1);
	}
	kx_bus_consumer_close(keeper);
	kx_bus_free(bus);
}

/* Takes partitions of its own, and what comes of them. */
static void join_chosen(struct kx_bus *bus, const char *topic, const char *group, const int *partitions, int count,
			struct told *told)
{
	const struct kx_bus_subscription subscription = {.group = group, .topic = topic, .ctx = told,
							 .assigned = on_assigned, .revoked = on_revoked,
							 .resume = on_resume, .partitions = partitions,
							 .partition_count = count};
	struct kx_error error = {0};

	told->resume_at = -1;
	test_ok(kx_bus_subscribe(bus, &subscription, &told->consumer, &error), &error);
}

static void expect_only(struct told *told, const char *const *texts, int count)
{
	uint64_t start = kx_clock_mono_us();

	for (int got = 0; got < count;) {
		struct kx_bus_message message = {0};
		kx_status status = kx_bus_receive(told->consumer, SOON_MS, &message, NULL);
		bool known = false;

		assert_false(late(start));
		if (status == KX_EAGAIN)
			continue;
		for (int i = 0; i < count; i++)
			known |= test_text_is(&message, texts[i]);
		assert_true(known);
		assert_int_equal(kx_bus_ack(told->consumer, message.partition, message.offset, message.epoch), KX_OK);
		kx_bus_message_done(&message);
		got++;
	}
}

static void chosen_partitions_are_ones_own(void **state)
{
	struct kx_bus *bus = test_bus_open(4096);
	const char *topic = test_topic(bus, 4);
	struct told even = {0}, odd = {0};
	const struct kx_bus_subscription beyond = {.group = "x", .topic = topic, .resume = on_resume,
						   .partitions = (const int[]){4}, .partition_count = 1},
					 forgetful = {.group = "x", .topic = topic, .partitions = (const int[]){0},
						      .partition_count = 1};
	struct kx_bus_consumer *none = NULL;
	char filler[400] = "";

	(void)state;
	assert_int_equal(kx_bus_subscribe(bus, &beyond, &none, NULL), KX_EINVAL);
	assert_int_equal(kx_bus_subscribe(bus, &forgetful, &none, NULL), KX_EINVAL);
	join_chosen(bus, topic, "even", (const int[]){0, 2}, 2, &even);
	test_publish(bus, topic, 0, "0");
	test_publish(bus, topic, 1, "1");
	test_publish(bus, topic, 2, "2");
	test_publish(bus, topic, 3, "3");
	expect_only(&even, (const char *const[]){"0", "2"}, 2);
	join_chosen(bus, topic, "odd", (const int[]){1, 3}, 2, &odd); /* nothing of its part was let go */
	expect_only(&odd, (const char *const[]){"1", "3"}, 2);
	memset(filler, 'x', sizeof(filler) - 1);
	for (int i = 0; i < 40; i++) { /* many times what the bus holds: neither keeps what is only the other's */
		test_publish(bus, topic, i % 4, filler);
		expect_only(i % 2 ? &odd : &even, (const char *const[]){filler}, 1);
	}
	assert_int_equal(even.assigned[0] + even.assigned[2], 2);
	assert_int_equal(even.assigned[1] + even.assigned[3], 0);
	kx_bus_consumer_close(even.consumer);
	assert_int_equal(has(&even), 0);
	assert_int_equal(even.revoked[0] + even.revoked[2], 2);
	test_publish(bus, topic, 2, "4"); /* while nobody reads it */
	test_publish(bus, topic, 3, "5");
	expect_only(&odd, (const char *const[]){"5"}, 1);
	join_chosen(bus, topic, "even", (const int[]){2}, 1, &even);
	even.resume_at = 11; /* "2", ten of the filler, then it */
	expect_only(&even, (const char *const[]){"4"}, 1);
	kx_bus_consumer_close(even.consumer);
	kx_bus_consumer_close(odd.consumer);
	kx_bus_free(bus);
}

static void *receive_long(void *arg)
{
	struct kx_bus_message message;

	return (void *)(intptr_t)kx_bus_receive(arg, 10 * PATIENCE_MS, &message, NULL);
}

static void waking_ends_a_wait(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	struct kx_bus_consumer *consumer = test_subscribe(bus, test_topic(bus, 1), "wake");
	uint64_t start = kx_clock_mono_us();
	pthread_t thread;
	void *status;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, receive_long, consumer), 0);
	kx_bus_consumer_wake(consumer);
	pthread_join(thread, &status);
	assert_int_equal((intptr_t)status, KX_EAGAIN);
	assert_false(late(start));

	kx_bus_consumer_wake(consumer); /* before the wait begins counts as well */
	status = receive_long(consumer);
	assert_int_equal((intptr_t)status, KX_EAGAIN);
	assert_false(late(start));
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

/* Many threads, members that come and go: everything is finished at least once, and nothing is lost. */
#define CROWD_MESSAGES 1200

struct crowd {
	struct kx_bus *bus;
	char topic[128];
	atomic_int finished[CROWD_MESSAGES];
	atomic_int left;
	atomic_int failures;
};

static void *crowd_publish(void *arg)
{
	struct crowd *crowd = arg;

	for (int i = 0; i < CROWD_MESSAGES; i++) {
		while (kx_bus_publish(crowd->bus, crowd->topic, KX_BUS_KEYED, &i, sizeof(i), &i, sizeof(i), NULL,
				      NULL, NULL) == KX_EAGAIN) {
			if (kx_bus_wait_room(crowd->bus, crowd->topic, PATIENCE_MS) != KX_OK)
				atomic_fetch_add(&crowd->failures, 1);
		}
	}
	return NULL;
}

/* Receives until it had `most` messages or all are finished by somebody. */
static void crowd_take(struct crowd *crowd, int most)
{
	struct kx_bus_consumer *consumer = test_subscribe(crowd->bus, crowd->topic, "crowd");
	uint64_t start = kx_clock_mono_us();

	for (int count = 0; count < most && atomic_load(&crowd->left) > 0 && !late(start);) {
		struct kx_bus_message message;
		kx_status status = kx_bus_receive(consumer, SOON_MS, &message, NULL);
		int i;

		if (status == KX_EAGAIN)
			continue;
		if (status != KX_OK) {
			atomic_fetch_add(&crowd->failures, 1);
			break;
		}
		memcpy(&i, message.payload, sizeof(i));
		if (kx_bus_ack(consumer, message.partition, message.offset, message.epoch) == KX_OK &&
		    atomic_fetch_add(&crowd->finished[i], 1) == 0)
			atomic_fetch_sub(&crowd->left, 1);
		count++;
		kx_bus_message_done(&message);
	}
	kx_bus_consumer_close(consumer);
}

static void *crowd_stay(void *arg)
{
	crowd_take(arg, INT32_MAX);
	return NULL;
}

static void *crowd_come_and_go(void *arg)
{
	for (int i = 0; i < 3; i++)
		crowd_take(arg, 50);
	return NULL;
}

static void crowd_loses_nothing(void **state)
{
	static struct crowd crowd;
	void *(*const bodies[])(void *) = {crowd_publish, crowd_stay, crowd_stay, crowd_come_and_go};
	pthread_t threads[4];

	(void)state;
	crowd.bus = test_bus_open(4096);
	snprintf(crowd.topic, sizeof(crowd.topic), "%s", test_topic(crowd.bus, 6));
	atomic_store(&crowd.left, CROWD_MESSAGES);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, bodies[i], &crowd), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	kx_bus_free(crowd.bus);
	assert_int_equal(atomic_load(&crowd.failures), 0);
	assert_int_equal(atomic_load(&crowd.left), 0);
}

const struct CMUnitTest test_bus_groups[] = {
	cmocka_unit_test(each_group_sees_all),
	cmocka_unit_test(unacknowledged_comes_again),
	cmocka_unit_test(acknowledgements_come_in_any_order),
	cmocka_unit_test(acknowledging_what_never_came_is_refused),
	cmocka_unit_test(closing_revokes_and_fences),
	cmocka_unit_test(second_consumer_takes_its_part),
	cmocka_unit_test(in_flight_bytes_are_capped),
	cmocka_unit_test(subscriber_keeps_its_own_offsets),
	cmocka_unit_test(chosen_partitions_are_ones_own),
	cmocka_unit_test(waking_ends_a_wait),
	cmocka_unit_test(crowd_loses_nothing),
};
const size_t test_bus_groups_count = sizeof(test_bus_groups) / sizeof(test_bus_groups[0]);
