/* The contract on Kafka: a real broker, whose address the test finds where scripts/kafka put it. */
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/bus/test_contract.h"

#define SESSION_MS 60000 /* longer than any stall: nobody is to be taken for dead here */

/* DIR/bootstrap of the broker that the ctest fixture started. */
static const char *brokers(void)
{
	static struct kx_buf text = {.max = 256};
	struct kx_error error = {0};

	if (!text.len) {
		test_ok(kx_fs_read(KX_KAFKA_DIR "/bootstrap", text.max, &text, &error), &error);
		text.data[strcspn((char *)text.data, "\n")] = '\0';
	}
	return (char *)text.data;
}

struct kx_bus *test_bus_open(size_t capacity)
{
	const struct kx_bus_kafka_options options = {.brokers = brokers(), .queue_bytes_max = capacity,
						     .session_timeout_ms = SESSION_MS,
						     .connect_timeout_ms = PATIENCE_MS};
	struct kx_bus *bus = NULL;
	struct kx_error error = {0};

	test_ok(kx_bus_kafka_new(&options, &bus, &error), &error);
	return bus;
}

static void identity_is_the_cluster(void **state)
{
	struct kx_bus *a = test_bus_open(1), *b = test_bus_open(1);

	(void)state;
	assert_string_equal(kx_bus_identity(a), kx_bus_identity(b));
	kx_bus_free(a);
	kx_bus_free(b);
}

/* Port 1 is nobody's. */
static void no_broker_is_said_in_time(void **state)
{
	const struct kx_bus_kafka_options options = {.brokers = "127.0.0.1:1", .queue_bytes_max = 1,
						     .connect_timeout_ms = 300};
	const struct kx_bus_kafka_options nothing = {.brokers = "", .queue_bytes_max = 1};
	uint64_t start = kx_clock_mono_us();
	struct kx_bus *bus = NULL;
	struct kx_error error = {0};

	(void)state;
	assert_int_equal(kx_bus_kafka_new(&options, &bus, &error), KX_ETIMEDOUT);
	assert_int_equal(error.class, KX_ERROR_RETRY);
	assert_non_null(strstr(error.message, "127.0.0.1:1"));
	assert_true(kx_clock_mono_us() - start < 1000u * PATIENCE_MS);
	assert_int_equal(kx_bus_kafka_new(&nothing, &bus, &error), KX_EINVAL);
	assert_null(bus);
}

/* A topic that one process made is there for another. */
static void topic_is_found_by_another_bus(void **state)
{
	struct kx_bus *a = test_bus_open(ROOMY), *b = test_bus_open(ROOMY);
	const char *topic = test_topic(a, 3);
	struct kx_bus_consumer *consumer;
	int partitions = 0;

	(void)state;
	assert_int_equal(kx_bus_topic(b, topic, 1, 0, &partitions, NULL), KX_OK);
	assert_int_equal(partitions, 3);
	consumer = test_subscribe(b, topic, "other");
	test_publish(a, topic, 2, "hello");
	test_expect(consumer, "hello", 1);
	kx_bus_consumer_close(consumer);
	kx_bus_free(a);
	kx_bus_free(b);
}

/* Each key's last message is kept by the broker; what can be seen at once is that a keyless one is refused. */
static void keep_status(void *ctx, kx_status status)
{
	*(kx_status *)ctx = status;
}

static void compacted_topic_wants_keys(void **state)
{
	struct kx_bus *bus = test_bus_open(ROOMY);
	struct kx_error error = {0};
	kx_status refused = KX_OK, taken = KX_EIO;
	char topic[64];

	(void)state;
	snprintf(topic, sizeof(topic), "compacted.%lld", (long long)kx_clock_wall_ms());
	test_ok(kx_bus_topic(bus, topic, 1, 1, NULL, &error), &error);
	test_ok(kx_bus_publish(bus, topic, 0, NULL, 0, "x", 1, keep_status, &refused, &error), &error);
	test_ok(kx_bus_flush(bus, PATIENCE_MS, &error), &error);
	assert_int_equal(refused, KX_EIO);
	test_ok(kx_bus_publish(bus, topic, 0, "k", 1, "x", 1, keep_status, &taken, &error), &error);
	test_ok(kx_bus_flush(bus, PATIENCE_MS, &error), &error);
	assert_int_equal(taken, KX_OK);
	kx_bus_free(bus);
}

const struct CMUnitTest test_bus_own[] = {
	cmocka_unit_test(identity_is_the_cluster),
	cmocka_unit_test(no_broker_is_said_in_time),
	cmocka_unit_test(topic_is_found_by_another_bus),
	cmocka_unit_test(compacted_topic_wants_keys),
};
const size_t test_bus_own_count = sizeof(test_bus_own) / sizeof(test_bus_own[0]);
