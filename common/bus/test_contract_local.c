/* The contract on the in-process bus, and what only that one promises: it keeps nothing for long. */
#include <pthread.h>
#include <string.h>

#include "common/bus/test_contract.h"

struct kx_bus *test_bus_open(size_t capacity)
{
	const struct kx_bus_local_options options = {.topic_bytes_max = capacity};
	struct kx_bus *bus = NULL;
	struct kx_error error = {0};

	test_ok(kx_bus_local_new(&options, &bus, &error), &error);
	return bus;
}

/* A group that comes late sees from the oldest that is held, which is nothing when all others finished. */
static void finished_is_forgotten(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	const char *topic = test_topic(bus, 1);
	struct kx_bus_consumer *a = test_subscribe(bus, topic, "a"), *b;

	(void)state;
	test_publish(bus, topic, 0, "one");
	test_publish(bus, topic, 0, "two");
	test_expect(a, "one", 1);
	b = test_subscribe(bus, topic, "b");
	assert_int_equal(test_expect(b, "two", 1), 1);
	kx_bus_consumer_close(a);
	kx_bus_consumer_close(b);
	kx_bus_free(bus);
}

static void nothing_is_forgotten_before_the_first_group(void **state)
{
	struct kx_bus *bus = test_bus_open(1);
	const char *topic = test_topic(bus, 1);
	struct kx_bus_consumer *consumer;
	struct kx_error error = {0};

	(void)state;
	test_publish(bus, topic, 0, "one");
	assert_int_equal(kx_bus_publish(bus, topic, 0, NULL, 0, "x", 1, NULL, NULL, &error), KX_EAGAIN);
	assert_non_null(strstr(error.message, topic));
	assert_int_equal(kx_bus_wait_room(bus, topic, 20), KX_ETIMEDOUT);
	consumer = test_subscribe(bus, topic, "first");
	test_expect(consumer, "one", 0);
	assert_int_equal(kx_bus_wait_room(bus, topic, 20), KX_ETIMEDOUT);
	kx_bus_consumer_close(consumer);
	consumer = test_subscribe(bus, topic, "first");
	test_expect(consumer, "one", 1);
	assert_int_equal(kx_bus_wait_room(bus, topic, 0), KX_OK);
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

struct waiter {
	struct kx_bus *bus;
	const char *topic;
};

static void *wait_for_room(void *arg)
{
	struct waiter *waiter = arg;

	return (void *)(intptr_t)kx_bus_wait_room(waiter->bus, waiter->topic, PATIENCE_MS);
}

static void waiting_publisher_is_released(void **state)
{
	struct waiter waiter = {.bus = test_bus_open(1)};
	struct kx_bus_consumer *consumer;
	pthread_t thread;
	void *status;

	(void)state;
	waiter.topic = test_topic(waiter.bus, 1);
	consumer = test_subscribe(waiter.bus, waiter.topic, "g");
	test_publish(waiter.bus, waiter.topic, 0, "x");
	assert_int_equal(pthread_create(&thread, NULL, wait_for_room, &waiter), 0);
	test_expect(consumer, "x", 1);
	pthread_join(thread, &status);
	assert_int_equal((intptr_t)status, KX_OK);
	kx_bus_consumer_close(consumer);
	kx_bus_free(waiter.bus);
}

static void two_buses_differ(void **state)
{
	struct kx_bus *a = test_bus_open(1), *b = test_bus_open(1);
	const struct kx_bus_local_options none = {0};
	struct kx_bus *bus = NULL;
	struct kx_error error = {0};

	(void)state;
	assert_string_not_equal(kx_bus_identity(a), kx_bus_identity(b));
	assert_int_equal(kx_bus_local_new(&none, &bus, &error), KX_EINVAL);
	kx_bus_free(a);
	kx_bus_free(b);
}

const struct CMUnitTest test_bus_own[] = {
	cmocka_unit_test(finished_is_forgotten),
	cmocka_unit_test(nothing_is_forgotten_before_the_first_group),
	cmocka_unit_test(waiting_publisher_is_released),
	cmocka_unit_test(two_buses_differ),
};
const size_t test_bus_own_count = sizeof(test_bus_own) / sizeof(test_bus_own[0]);
