/* The contract of bus.h as tests that every implementation must pass. Linked with one of test_contract_local.c and
 * test_contract_kafka.c, which say what bus to open. */
#ifndef KX_BUS_TEST_CONTRACT_H
#define KX_BUS_TEST_CONTRACT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs those four first */
#include <cmocka.h>

#include "common/bus/bus.h"

#define PATIENCE_MS 120000 /* for what must come */
#define ROOMY (64u << 20) /* a bus that is never full */

/* The implementation's: a bus that holds about this many bytes, and the tests that only it has. */
struct kx_bus *test_bus_open(size_t capacity);
extern const struct CMUnitTest test_bus_own[];
extern const size_t test_bus_own_count;

extern const struct CMUnitTest test_bus_groups[];
extern const size_t test_bus_groups_count;

/* Fails the test with the error's own words. */
void test_ok(kx_status status, const struct kx_error *error);

/* A topic that no other test and no other run has. Valid until the next call. */
const char *test_topic(struct kx_bus *bus, int partitions);

/* To a partition, payload is the text. */
void test_publish(struct kx_bus *bus, const char *topic, int partition, const char *text);
struct kx_bus_consumer *test_subscribe(struct kx_bus *bus, const char *topic, const char *group);

/* The next message, which must come. The caller frees it. */
void test_receive(struct kx_bus_consumer *consumer, struct kx_bus_message *ret);

/* Receives one that must have this text, and acknowledges it or not. Returns its offset. */
int64_t test_expect(struct kx_bus_consumer *consumer, const char *text, int ack);
int test_text_is(const struct kx_bus_message *message, const char *text);

#endif
