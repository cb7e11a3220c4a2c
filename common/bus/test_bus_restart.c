/* What a broker that stops, dies and comes back does to the bus, and a consumer that is taken for dead. It has a
 * broker of its own, for it treats it badly. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/bus/bus.h"

#define PATIENCE_MS 120000
#define SESSION_MS 60000 /* of those that nobody is to take for dead */
#define MESSAGES 3000
#define ZOMBIE_SESSION_MS 2000
#define SHORT_SESSION_MS 10000
#define SLOW_MS 5000

static char folder[] = KX_BROKER_DIR;
static char address[128];
static char *program;

static void ok(kx_status status, const struct kx_error *error)
{
	if (status != KX_OK)
		fail_msg("%s: %s", kx_status_name(status), error->message);
}

static int script(const char *verb, const char *option)
{
	char *const argv[] = {"kafka", (char *)(uintptr_t)verb, folder, (char *)(uintptr_t)option, NULL};
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		execv(KX_SOURCE_DIR "/scripts/kafka", argv);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *first_line(const char *name)
{
	char *path = kx_fs_join(folder, name);
	struct kx_buf text = {.max = 4096};
	struct kx_error error = {0};

	ok(kx_fs_read(path, text.max, &text, &error), &error);
	text.data[strcspn((char *)text.data, "\n")] = '\0';
	free(path);
	return (char *)text.data;
}

static pid_t broker_pid(void)
{
	char *text = first_line("pid");
	uint64_t pid = 0;

	assert_int_equal(kx_parse_u64(text, &pid), KX_OK);
	free(text);
	return (pid_t)pid;
}

static int start_broker(void **state)
{
	char *text;

	(void)state;
	assert_int_equal(script("start", NULL), 0);
	text = first_line("bootstrap");
	snprintf(address, sizeof(address), "%s", text);
	free(text);
	return 0;
}

static int begin(void **state)
{
	if (script("stop", "--purge") != 0) /* of a run that was cut short */
		return -1;
	return start_broker(state);
}

static int end(void **state)
{
	(void)state;
	return script("stop", "--purge");
}

static struct kx_bus *open_bus(size_t queue_bytes_max, int session_ms)
{
	const struct kx_bus_kafka_options options = {.brokers = address, .queue_bytes_max = queue_bytes_max,
						     .session_timeout_ms = session_ms,
						     .connect_timeout_ms = PATIENCE_MS};
	struct kx_bus *bus = NULL;
	struct kx_error error = {0};

	ok(kx_bus_kafka_new(&options, &bus, &error), &error);
	return bus;
}

static struct kx_bus *open_topic(const char *topic, size_t queue_bytes_max, int session_ms)
{
	struct kx_bus *bus = open_bus(queue_bytes_max, session_ms);
	struct kx_error error = {0};

	ok(kx_bus_topic(bus, topic, 1, 0, NULL, &error), &error);
	return bus;
}

static struct kx_bus_consumer *subscribe(struct kx_bus *bus, const char *topic, const char *group)
{
	const struct kx_bus_subscription subscription = {.group = group, .topic = topic};
	struct kx_bus_consumer *consumer = NULL;
	struct kx_error error = {0};

	ok(kx_bus_subscribe(bus, &subscription, &consumer, &error), &error);
	return consumer;
}

static void count_status(void *ctx, kx_status status)
{
	atomic_fetch_add(&((atomic_int *)ctx)[status == KX_OK ? 0 : status == KX_ECANCELED ? 1 : 2], 1);
}

static void stopped_broker_fills_the_queue(void **state)
{
	struct kx_bus *bus = open_topic("stopped", 100000, 0);
	struct kx_error error = {0};
	atomic_int counts[3] = {0};
	static char payload[1000];
	kx_status status = KX_OK;
	int sent = 0;

	(void)state;
	assert_int_equal(kill(broker_pid(), SIGSTOP), 0);
	while (status == KX_OK && sent <= 100) {
		status = kx_bus_publish(bus, "stopped", 0, NULL, 0, payload, sizeof(payload), count_status, counts,
					&error);
		sent += status == KX_OK;
	}
	assert_int_equal(status, KX_EAGAIN);
	assert_in_range(sent, 90, 100);
	assert_int_equal(kx_bus_wait_room(bus, "stopped", 100), KX_ETIMEDOUT);
	assert_int_equal(kx_bus_flush(bus, 100, &error), KX_ETIMEDOUT);
	assert_non_null(strstr(error.message, address));
	assert_int_equal(kill(broker_pid(), SIGCONT), 0);
	assert_int_equal(kx_bus_wait_room(bus, "stopped", PATIENCE_MS), KX_OK);
	ok(kx_bus_flush(bus, PATIENCE_MS, &error), &error);
	assert_int_equal(atomic_load(&counts[0]), sent);
	kx_bus_free(bus);
}

static void mark(void *ctx, kx_status status)
{
	if (status == KX_OK)
		atomic_fetch_add((atomic_int *)ctx, 1);
}

static void publish_numbers(struct kx_bus *bus, const char *topic, int from, int to, atomic_int *delivered)
{
	struct kx_error error = {0};

	for (int i = from; i < to; i++)
		ok(kx_bus_publish(bus, topic, 0, NULL, 0, &i, sizeof(i), mark, &delivered[i], &error), &error);
}

/* Reads until every number came; each is new or comes again, and none is skipped. */
static void read_numbers(struct kx_bus_consumer *consumer, int from, int to)
{
	struct kx_error error = {0};
	int expected = from;

	while (expected < to) {
		struct kx_bus_message message;
		int i;

		ok(kx_bus_receive(consumer, PATIENCE_MS, &message, &error), &error);
		memcpy(&i, message.payload, sizeof(i));
		assert_true(i <= expected);
		expected += i == expected;
		assert_int_equal(kx_bus_ack(consumer, 0, message.offset, message.epoch), KX_OK);
		kx_bus_message_done(&message);
	}
}

/* kill -9 while messages are on their way: what was reported delivered is there, each once and in order, and a
 * consumer that lived through it goes on. */
static void killed_broker_loses_nothing(void **state)
{
	static atomic_int delivered[MESSAGES];
	struct kx_bus *bus = open_topic("killed", 64 << 20, SESSION_MS);
	struct kx_bus_consumer *consumer = subscribe(bus, "killed", "through");
	struct kx_error error = {0};

	publish_numbers(bus, "killed", 0, MESSAGES / 3, delivered);
	ok(kx_bus_flush(bus, PATIENCE_MS, &error), &error);
	read_numbers(consumer, 0, MESSAGES / 3);
	publish_numbers(bus, "killed", MESSAGES / 3, 2 * MESSAGES / 3, delivered);
	assert_int_equal(kill(broker_pid(), SIGKILL), 0);
	publish_numbers(bus, "killed", 2 * MESSAGES / 3, MESSAGES, delivered);
	start_broker(state);
	ok(kx_bus_flush(bus, PATIENCE_MS, &error), &error);
	for (int i = 0; i < MESSAGES; i++)
		assert_int_equal(atomic_load(&delivered[i]), 1);
	read_numbers(consumer, MESSAGES / 3, MESSAGES);
	kx_bus_consumer_close(consumer);

	consumer = subscribe(bus, "killed", "fresh");
	read_numbers(consumer, 0, MESSAGES);
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

/* The zombie: this program run again. It receives a message, says so, is stopped for longer than its session, and
 * goes on as if nothing had happened. Exit status 0: its acknowledgement was refused. */
static void note_revoked(void *ctx, int partition)
{
	(void)partition;
	*(bool *)ctx = true;
}

static int be_zombie(const char *brokers)
{
	bool revoked = false;
	const struct kx_bus_kafka_options options = {.brokers = brokers, .queue_bytes_max = 1,
						     .session_timeout_ms = ZOMBIE_SESSION_MS};
	const struct kx_bus_subscription subscription = {.group = "graveyard", .topic = "zombie", .ctx = &revoked,
							 .revoked = note_revoked};
	struct kx_bus_message message, other;
	struct kx_bus_consumer *consumer;
	struct kx_bus *bus;
	int failed;

	if (kx_bus_kafka_new(&options, &bus, NULL) != KX_OK ||
	    kx_bus_topic(bus, "zombie", 1, 0, NULL, NULL) != KX_OK ||
	    kx_bus_subscribe(bus, &subscription, &consumer, NULL) != KX_OK ||
	    kx_bus_receive(consumer, PATIENCE_MS, &message, NULL) != KX_OK || write(STDOUT_FILENO, "!", 1) != 1)
		return 2;
	for (uint64_t start = kx_clock_mono_us(); !revoked && kx_clock_mono_us() - start < PATIENCE_MS * 1000ull;) {
		if (kx_bus_receive(consumer, 100, &other, NULL) == KX_OK)
			kx_bus_message_done(&other);
	}
	failed = !revoked || kx_bus_ack(consumer, message.partition, message.offset, message.epoch) != KX_ECANCELED;
	kx_bus_message_done(&message);
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
	return failed;
}

static pid_t spawn_zombie(int *ret_fd)
{
	int ends[2];
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (pid == 0) {
		dup2(ends[1], STDOUT_FILENO);
		execl(program, program, "zombie", address, (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	*ret_fd = ends[0];
	return pid;
}

static void consumer_taken_for_dead_is_fenced(void **state)
{
	struct kx_bus *bus = open_topic("zombie", 1 << 20, SESSION_MS);
	struct kx_error error = {0};
	struct kx_bus_consumer *consumer;
	struct kx_bus_message message;
	int fd, status = -1;
	char said;
	pid_t zombie;

	(void)state;
	ok(kx_bus_publish(bus, "zombie", 0, NULL, 0, "work", 4, NULL, NULL, &error), &error);
	zombie = spawn_zombie(&fd);
	assert_int_equal(read(fd, &said, 1), 1);
	assert_int_equal(kill(zombie, SIGSTOP), 0);
	consumer = subscribe(bus, "zombie", "graveyard");
	ok(kx_bus_receive(consumer, PATIENCE_MS, &message, &error), &error);
	assert_memory_equal(message.payload, "work", 4);
	assert_int_equal(kx_bus_ack(consumer, 0, message.offset, message.epoch), KX_OK);
	kx_bus_message_done(&message);
	kx_bus_consumer_close(consumer);
	assert_int_equal(kill(zombie, SIGCONT), 0);
	assert_int_equal(waitpid(zombie, &status, 0), zombie);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(fd);
	kx_bus_free(bus);
}

static void *wake_broker_later(void *ctx)
{
	struct pollfd none = {.fd = -1};

	(void)ctx;
	(void)poll(&none, 1, SLOW_MS); /* the fault itself, nobody waits for anything here */
	return (void *)(intptr_t)kill(broker_pid(), SIGCONT);
}

/* It answers nothing while a consumer that has acknowledged closes, and for longer than closing waits. The commit is
 * sent by then, so the work does not come again. */
static void slow_broker_hears_the_last_commit(void **state)
{
	struct kx_bus *bus = open_topic("slow", 1 << 20, SHORT_SESSION_MS);
	struct kx_bus_consumer *consumer = subscribe(bus, "slow", "g");
	struct kx_error error = {0};
	struct kx_bus_message message;
	pthread_t waker;
	void *failed;

	(void)state;
	ok(kx_bus_publish(bus, "slow", 0, NULL, 0, "done", 4, NULL, NULL, &error), &error);
	ok(kx_bus_publish(bus, "slow", 0, NULL, 0, "next", 4, NULL, NULL, &error), &error);
	ok(kx_bus_receive(consumer, PATIENCE_MS, &message, &error), &error);
	assert_int_equal(kill(broker_pid(), SIGSTOP), 0);
	assert_int_equal(pthread_create(&waker, NULL, wake_broker_later, NULL), 0);
	assert_int_equal(kx_bus_ack(consumer, 0, message.offset, message.epoch), KX_OK);
	kx_bus_message_done(&message);
	kx_bus_consumer_close(consumer);
	assert_int_equal(pthread_join(waker, &failed), 0);
	assert_null(failed);

	consumer = subscribe(bus, "slow", "g");
	ok(kx_bus_receive(consumer, PATIENCE_MS, &message, &error), &error);
	assert_memory_equal(message.payload, "next", 4);
	kx_bus_message_done(&message);
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
}

/* Last, for it leaves no broker. What could not be sent is reported, and ending waits for no broker to come back. */
static void ending_without_a_broker_is_quick(void **state)
{
	struct kx_bus *bus = open_topic("dead", 1 << 20, 0);
	struct kx_bus_consumer *consumer = subscribe(bus, "dead", "g");
	struct kx_error error = {0};
	struct kx_bus_message message;
	atomic_int counts[3] = {0};
	uint64_t start;

	(void)state;
	ok(kx_bus_publish(bus, "dead", 0, NULL, 0, "x", 1, NULL, NULL, &error), &error);
	ok(kx_bus_receive(consumer, PATIENCE_MS, &message, &error), &error);
	assert_int_equal(kill(broker_pid(), SIGKILL), 0);
	assert_int_equal(kx_bus_ack(consumer, 0, message.offset, message.epoch), KX_OK);
	kx_bus_message_done(&message);
	for (int i = 0; i < 10; i++)
		ok(kx_bus_publish(bus, "dead", 0, NULL, 0, "x", 1, count_status, counts, &error), &error);
	start = kx_clock_mono_us();
	kx_bus_consumer_close(consumer);
	kx_bus_free(bus);
	print_message("ended in %.1f s\n", (double)(kx_clock_mono_us() - start) / 1e6);
	assert_true(kx_clock_mono_us() - start < PATIENCE_MS / 2 * 1000ull); /* 4 s when the machine is idle */
	assert_int_equal(atomic_load(&counts[1]), 10);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stopped_broker_fills_the_queue),
		cmocka_unit_test(killed_broker_loses_nothing),
		cmocka_unit_test(consumer_taken_for_dead_is_fenced),
		cmocka_unit_test(slow_broker_hears_the_last_commit),
		cmocka_unit_test(ending_without_a_broker_is_quick),
	};

	if (argc == 3)
		return be_zombie(argv[2]);
	program = argv[0];
	return cmocka_run_group_tests(tests, begin, end);
}
