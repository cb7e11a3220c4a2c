/* The contract: topics, publishing, and what a message carries. */
#include "common/bus/test_contract.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"

void test_ok(kx_status status, const struct kx_error *error)
{
	if (status != KX_OK)
		fail_msg("%s: %s", kx_status_name(status), error ? error->message : "");
}

const char *test_topic(struct kx_bus *bus, int partitions)
{
	static char name[128];
	static int count;
	struct kx_error error = {0};
	int found = 0;

	snprintf(name, sizeof(name), "contract.%d.%lld.%d", (int)getpid(), (long long)kx_clock_wall_ms(), count++);
	test_ok(kx_bus_topic(bus, name, partitions, 0, &found, &error), &error);
	assert_int_equal(found, partitions);
	return name;
}

void test_publish(struct kx_bus *bus, const char *topic, int partition, const char *text)
{
	struct kx_error error = {0};

	test_ok(kx_bus_publish(bus, topic, partition, NULL, 0, text, strlen(text), NULL, NULL, &error), &error);
}

struct kx_bus_consumer *test_subscribe(struct kx_bus *bus, const char *topic, const char *group)
{
	const struct kx_bus_subscription subscription = {.group = group, .topic = topic};
	struct kx_bus_consumer *consumer = NULL;
	struct kx_error error = {0};

	test_ok(kx_bus_subscribe(bus, &subscription, &consumer, &error), &error);
	return consumer;
}

void test_receive(struct kx_bus_consumer *consumer, struct kx_bus_message *ret)
{
	struct kx_error error = {0};

	test_ok(kx_bus_receive(consumer, PATIENCE_MS, ret, &error), &error);
}

int test_text_is(const struct kx_bus_message *message, const char *text)
{
	return message->len == strlen(text) && memcmp(message->payload, text, message->len) == 0;
}

int64_t test_expect(struct kx_bus_consumer *consumer, const char *text, int ack)
{
	struct kx_bus_message message;
	int64_t offset;

	test_receive(consumer, &message);
	if (!test_text_is(&message, text))
		fail_msg("expected '%s', got '%.*s'", text, (int)message.len, (const char *)message.payload);
	if (ack)
		assert_int_equal(kx_bus_ack(consumer, message.partition, message.offset, message.epoch), KX_OK);
	offset = message.offset;
	kx_bus_message_done(&message);
	return offset;
}

static void topic_keeps_its_partitions(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 3);
	int partitions = 0;

	(void)state;
	assert_int_equal(kx_bus_topic(bus, topic, 5, 0, &partitions, NULL), KX_OK);
	assert_int_equal(partitions, 3);
	assert_int_equal(kx_bus_topic(bus, topic, 5, 0, NULL, NULL), KX_OK);
	kx_bus_free(bus);
}

static void bad_names_and_numbers_are_refused(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 2);
	struct kx_bus_subscription subscription = {.group = "", .topic = topic};
	struct kx_bus_consumer *consumer = NULL;
	struct kx_error error = {0};
	char name[300];

	(void)state;
	memset(name, 'a', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(kx_bus_topic(bus, name, 1, 0, NULL, &error), KX_EINVAL);
	assert_int_equal(kx_bus_topic(bus, "", 1, 0, NULL, &error), KX_EINVAL);
	assert_int_equal(kx_bus_topic(bus, "a b", 1, 0, NULL, &error), KX_EINVAL);
	assert_int_equal(kx_bus_topic(bus, NULL, 1, 0, NULL, &error), KX_EINVAL);
	assert_int_equal(kx_bus_topic(bus, "x", 0, 0, NULL, &error), KX_EINVAL);
	assert_int_equal(kx_bus_topic(bus, "x", KX_BUS_PARTITIONS_MAX + 1, 0, NULL, &error), KX_EINVAL);

	assert_int_equal(kx_bus_publish(bus, "nobody.made.it", 0, "k", 1, "p", 1, NULL, NULL, &error), KX_EINVAL);
	assert_non_null(strstr(error.message, "nobody.made.it"));
	assert_int_equal(kx_bus_publish(bus, topic, 2, "k", 1, "p", 1, NULL, NULL, &error), KX_EINVAL);
	assert_int_equal(kx_bus_publish(bus, topic, -2, "k", 1, "p", 1, NULL, NULL, &error), KX_EINVAL);
	assert_int_equal(kx_bus_publish(bus, topic, 0, "k", 1, NULL, 1, NULL, NULL, &error), KX_EINVAL);
	assert_int_equal(kx_bus_wait_room(bus, "nobody.made.it", 0), KX_EINVAL);

	assert_int_equal(kx_bus_subscribe(bus, &subscription, &consumer, &error), KX_EINVAL);
	subscription = (struct kx_bus_subscription){.group = "g", .topic = "nobody.made.it"};
	assert_int_equal(kx_bus_subscribe(bus, &subscription, &consumer, &error), KX_EINVAL);
	assert_null(consumer);
	kx_bus_free(bus);
}

static void null_key_needs_a_partition(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 2);
	struct kx_error error = {0};

	(void)state;
	assert_int_equal(kx_bus_publish(bus, topic, KX_BUS_KEYED, NULL, 0, "p", 1, NULL, NULL, &error), KX_EINVAL);
	assert_int_equal(kx_bus_publish(bus, topic, 1, NULL, 0, "p", 1, NULL, NULL, &error), KX_OK);
	kx_bus_free(bus);
}

/* Hashes that Kafka's own unit tests give for murmur2: keys must land where every other client puts them. */
static void keys_land_where_kafka_puts_them(void **state)
{
	static const struct {
		const char *key;
		int32_t hash;
	} known[] = {
		{"21", -973932308},	   {"foobar", -790332482},	     {"a-little-bit-long-string", -985981536},
		{"abc", 479470107},	   {"a-little-bit-longer-string", -1486304829},
		{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
	};
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 7);
	struct kx_bus_consumer *consumer = test_subscribe(bus, topic, "keys");
	struct kx_error error = {0};
	size_t count = sizeof(known) / sizeof(known[0]);

	(void)state;
	for (size_t i = 0; i < count; i++)
		test_ok(kx_bus_publish(bus, topic, KX_BUS_KEYED, known[i].key, strlen(known[i].key), &i, sizeof(i),
				       NULL, NULL, &error),
			&error);
	for (size_t seen = 0; seen < count; seen++) {
		struct kx_bus_message message;
		size_t i;

		test_receive(consumer, &message);
		assert_int_equal(message.len, sizeof(i));
		memcpy(&i, message.payload, sizeof(i));
		assert_int_equal(message.partition, (known[i].hash & 0x7fffffff) % 7);
		kx_bus_message_done(&message);
	}
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

static void message_carries_all_of_it(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 2);
	struct kx_bus_consumer *consumer = test_subscribe(bus, topic, "all");
	struct kx_bus_message message;
	struct kx_error error = {0};

	(void)state;
	test_ok(kx_bus_publish(bus, topic, 1, "k\0y", 3, "p\0yl", 4, NULL, NULL, &error), &error);
	test_ok(kx_bus_publish(bus, topic, 1, "gone", 4, NULL, 0, NULL, NULL, &error), &error);
	test_ok(kx_bus_publish(bus, topic, 1, NULL, 0, "", 0, NULL, NULL, &error), &error);

	test_receive(consumer, &message);
	assert_string_equal(message.topic, topic);
	assert_int_equal(message.partition, 1);
	assert_int_equal(message.offset, 0);
	assert_true(message.epoch > 0);
	assert_int_equal(message.key_len, 3);
	assert_memory_equal(message.key, "k\0y", 3);
	assert_int_equal(message.len, 4);
	assert_memory_equal(message.payload, "p\0yl", 4);
	kx_bus_message_done(&message);

	test_receive(consumer, &message);
	assert_int_equal(message.offset, 1);
	assert_null(message.payload);
	kx_bus_message_done(&message);

	test_receive(consumer, &message);
	assert_null(message.key);
	assert_non_null(message.payload);
	assert_int_equal(message.len, 0);
	kx_bus_message_done(&message);
	kx_bus_message_done(&message); /* of a message that was done already: nothing */
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

static void message_outlives_consumer_and_bus(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 1);
	struct kx_bus_consumer *consumer = test_subscribe(bus, topic, "held");
	struct kx_bus_message message;

	(void)state;
	test_publish(bus, topic, 0, "still here");
	test_receive(consumer, &message);
	assert_int_equal(kx_bus_ack(consumer, 0, message.offset, message.epoch), KX_OK);
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
	assert_true(test_text_is(&message, "still here"));
	assert_string_equal(message.topic, topic);
	kx_bus_message_done(&message);
}

static void count_delivery(void *ctx, kx_status status)
{
	if (status == KX_OK)
		atomic_fetch_add((atomic_int *)ctx, 1);
}

static void delivery_is_reported_once_each(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 3);
	struct kx_error error = {0};
	atomic_int delivered = 0;

	(void)state;
	for (int i = 0; i < 100; i++)
		test_ok(kx_bus_publish(bus, topic, i % 3, NULL, 0, "x", 1, count_delivery, &delivered, &error),
			&error);
	test_ok(kx_bus_flush(bus, PATIENCE_MS, &error), &error);
	assert_int_equal(atomic_load(&delivered), 100);
	kx_bus_free(bus);
	assert_int_equal(atomic_load(&delivered), 100);
}

static void order_holds_in_a_partition(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 3);
	struct kx_bus_consumer *consumer = test_subscribe(bus, topic, "order");
	struct kx_error error = {0};
	int last[3] = {-1, -1, -1};

	(void)state;
	for (int i = 0; i < 300; i++)
		test_ok(kx_bus_publish(bus, topic, i % 3, NULL, 0, &i, sizeof(i), NULL, NULL, &error), &error);
	for (int seen = 0; seen < 300; seen++) {
		struct kx_bus_message message;
		int i;

		test_receive(consumer, &message);
		memcpy(&i, message.payload, sizeof(i));
		assert_int_equal(message.partition, i % 3);
		assert_int_equal(message.offset, i / 3);
		assert_true(i > last[i % 3]);
		last[i % 3] = i;
		kx_bus_message_done(&message);
	}
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

static void largest_message_passes_and_larger_is_refused(void **state)
{
	struct kx_bus *bus = test_bus_open(1 << 20); /* less than the message: an empty bus takes it all the same */
	const char *topic = test_topic(bus, 1);
	struct kx_bus_consumer *consumer = test_subscribe(bus, topic, "large");
	struct kx_bus_message message;
	struct kx_error error = {0};
	char key[KX_BUS_KEY_MAX] = "k";
	uint8_t *payload = malloc(KX_BUS_MESSAGE_MAX);

	(void)state;
	assert_non_null(payload);
	for (uint32_t i = 0, x = 1; i < KX_BUS_MESSAGE_MAX; i++) { /* noise: nothing may compress it on the way */
		x = x * 1664525 + 1013904223;
		payload[i] = (uint8_t)(x >> 24);
	}
	assert_int_equal(kx_bus_publish(bus, topic, 0, key, 1, payload, KX_BUS_MESSAGE_MAX + 1, NULL, NULL, &error),
			 KX_ETOOBIG);
	assert_int_equal(kx_bus_publish(bus, topic, 0, key, KX_BUS_KEY_MAX + 1, payload, 1, NULL, NULL, &error),
			 KX_ETOOBIG);
	test_ok(kx_bus_publish(bus, topic, KX_BUS_KEYED, key, sizeof(key), payload, KX_BUS_MESSAGE_MAX, NULL, NULL,
			       &error),
		&error);
	test_receive(consumer, &message);
	assert_int_equal(message.len, KX_BUS_MESSAGE_MAX);
	assert_memory_equal(message.payload, payload, KX_BUS_MESSAGE_MAX);
	assert_int_equal(message.key_len, sizeof(key));
	kx_bus_message_done(&message);
	free(payload);
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

/* A bus of one byte takes one message and is full until that is gone. */
static void full_bus_says_so_and_room_comes_back(void **state)
{
	struct kx_bus *bus = test_bus_open(1);
	const char *topic = test_topic(bus, 1);
	struct kx_bus_consumer *consumer = test_subscribe(bus, topic, "full");
	struct kx_error error = {0};
	kx_status status = KX_OK;
	int sent = 0;

	(void)state;
	while (status == KX_OK && sent < 100000) {
		status = kx_bus_publish(bus, topic, 0, NULL, 0, "x", 1, NULL, NULL, &error);
		sent += status == KX_OK;
	}
	assert_int_equal(status, KX_EAGAIN);
	assert_int_equal(error.class, KX_ERROR_RETRY);
	for (int i = 0; i < sent; i++)
		test_expect(consumer, "x", 1);
	assert_int_equal(kx_bus_wait_room(bus, topic, PATIENCE_MS), KX_OK);
	test_publish(bus, topic, 0, "again");
	test_expect(consumer, "again", 1);
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

/* Twenty times what the bus holds goes through it, by its own backpressure. */
static void more_than_fits_flows_through(void **state)
{
	struct kx_bus *bus = test_bus_open(64 << 10);
	const char *topic = test_topic(bus, 2);
	struct kx_bus_consumer *consumer = test_subscribe(bus, topic, "flow");
	struct kx_error error = {0};
	char payload[4096] = "flow";
	int sent = 0, received = 0;

	(void)state;
	while (received < 320) {
		struct kx_bus_message message;
		kx_status status = KX_EAGAIN;

		if (sent < 320)
			status = kx_bus_publish(bus, topic, sent % 2, NULL, 0, payload, sizeof(payload), NULL, NULL,
						&error);
		if (status == KX_OK) {
			sent++;
			continue;
		}
		assert_int_equal(status, KX_EAGAIN);
		if (received == sent) { /* a message may arrive before its delivery is reported */
			assert_int_equal(kx_bus_wait_room(bus, topic, PATIENCE_MS), KX_OK);
			continue;
		}
		test_receive(consumer, &message);
		assert_int_equal(kx_bus_ack(consumer, message.partition, message.offset, message.epoch), KX_OK);
		kx_bus_message_done(&message);
		received++;
	}
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

static void identity_is_there(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);

	(void)state;
	assert_non_null(kx_bus_identity(bus));
	assert_true(strlen(kx_bus_identity(bus)) >= 16);
	kx_bus_free(bus);
	kx_bus_free(NULL);
	kx_bus_consumer_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(topic_keeps_its_partitions),
		cmocka_unit_test(bad_names_and_numbers_are_refused),
		cmocka_unit_test(null_key_needs_a_partition),
		cmocka_unit_test(keys_land_where_kafka_puts_them),
		cmocka_unit_test(message_carries_all_of_it),
		cmocka_unit_test(message_outlives_consumer_and_bus),
		cmocka_unit_test(delivery_is_reported_once_each),
		cmocka_unit_test(order_holds_in_a_partition),
		cmocka_unit_test(largest_message_passes_and_larger_is_refused),
		cmocka_unit_test(full_bus_says_so_and_room_comes_back),
		cmocka_unit_test(more_than_fits_flows_through),
		cmocka_unit_test(identity_is_there),
	};
	int failed = cmocka_run_group_tests_name("publishing", tests, NULL, NULL);

	failed += _cmocka_run_group_tests("groups", test_bus_groups, test_bus_groups_count, NULL, NULL);
	return failed + _cmocka_run_group_tests("own", test_bus_own, test_bus_own_count, NULL, NULL);
}
