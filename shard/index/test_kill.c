/* A process that changes an index is killed at random points, many times over one store. The next one proves the store,
 * finds everything that was acknowledged, and of what was on its way all or nothing. Cells are small, so that folding,
 * splitting and training go on all the time, and beside it a space is built at once, over and over. The parent only starts, kills and keeps the books. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
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
#include "shard/index/testkit.h"

#define DIM 16u
#define NUMBERS 600u
#define BATCH 8u
#define SPIN_US 30000u
#define BUILT 300u
#define BUILD_EVERY 16u /* changes */

/* Version 0 of a number: it is not there. */
struct book {
	uint32_t version[NUMBERS];
	uint32_t next[NUMBERS]; /* on its way; UINT32_MAX: none is */
};

enum { INTENT, ACK, FOUND, READY };

struct message {
	uint32_t kind;
	uint32_t count;
	uint32_t number[BATCH], version[BATCH];
};

/* --- The child ------------------------------------------------------------------------------------------------ */

static void need(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "child: %s\n", what);
	_exit(9);
}

static void say(const struct message *message)
{
	need(write(STDOUT_FILENO, message, sizeof(*message)) == (ssize_t)sizeof(*message), "pipe");
}

static void vector_of(uint32_t number, uint32_t version, float *ret)
{
	uint64_t random = (uint64_t)number * 1000003 + version;

	kx_kit_vector(&random, DIM, 10, ret);
}

/* Whether the index has this version of a number. */
static bool has(struct kx_kit_index *kit, uint32_t number, uint32_t version)
{
	float expected[DIM], kept[DIM];
	char key[16];
	struct kx_error error = {0};
	double product = 0, length = 0;
	kx_status status = kx_index_get(kit->index, 0, key, (size_t)snprintf(key, sizeof(key), "v%u", number), NULL, kept,
					NULL, &error);

	need(!status || status == KX_ENOTFOUND, error.message);
	if (status || !version)
		return status == KX_ENOTFOUND && !version;
	vector_of(number, version, expected);
	for (uint32_t i = 0; i < DIM; i++) {
		product += (double)expected[i] * (double)kept[i];
		length += (double)expected[i] * (double)expected[i];
	}
	return product * product > 0.998 * length;
}

static void find(struct kx_kit_index *kit, uint32_t number, uint32_t version)
{
	struct kx_index_hits hits = {0};
	struct kx_error error = {0};
	float vector[DIM];
	struct kx_index_query query = {.vector = vector, .dim = DIM, .k = 1, .recall = 1};

	vector_of(number, version, vector);
	need(!kx_index_search(kit->index, 0, &query, &hits, &error), error.message);
	need(hits.count == 1 && kx_kit_number(&hits.list[0]) == number, "an acknowledged vector is not found");
	kx_index_hits_done(&hits);
}

/* Tells which of what was on its way is there. */
static void check_book(struct kx_kit_index *kit, const struct book *book)
{
	int came = -1;

	for (uint32_t i = 0; i < NUMBERS; i++) {
		struct message found = {.kind = FOUND, .count = 1, .number = {i}};
		bool is_new;

		if (book->next[i] == UINT32_MAX) {
			need(has(kit, i, book->version[i]), "what was acknowledged is not there");
			if (book->version[i] && i % 16 == 0)
				find(kit, i, book->version[i]);
			continue;
		}
		is_new = has(kit, i, book->next[i]);
		need(is_new || has(kit, i, book->version[i]), "neither the old nor the new is there");
		if (book->next[i] != book->version[i]) {
			need(came < 0 || came == is_new, "half of a batch is there");
			came = is_new;
		}
		found.version[0] = is_new ? book->next[i] : book->version[i];
		say(&found);
	}
}

static void change(struct kx_kit_index *kit, uint64_t *random, uint32_t *version)
{
	struct kx_index_change changes[BATCH] = {0};
	struct message message = {.kind = INTENT, .count = 1 + (uint32_t)kx_test_below(random, BATCH)};
	struct kx_error error = {0};
	float vectors[BATCH][DIM];
	char keys[BATCH][16];
	uint32_t first = (uint32_t)kx_test_below(random, NUMBERS);

	for (uint32_t i = 0; i < message.count; i++) {
		message.number[i] = (first + i * 7) % NUMBERS;
		message.version[i] = kx_test_below(random, 4) ? ++*version : 0;
		vector_of(message.number[i], message.version[i], vectors[i]);
		changes[i] = (struct kx_index_change){
			.key = keys[i], .vector = message.version[i] ? vectors[i] : NULL, .dim = DIM};
		changes[i].key_len = (size_t)snprintf(keys[i], sizeof(keys[i]), "v%u", message.number[i]);
	}
	say(&message);
	need(!kx_index_commit(kit->index, changes, message.count, &error), error.message);
	message.kind = ACK;
	say(&message);
}

static void built_row(void *ctx, size_t i, struct kx_index_change *ret)
{
	char *key = ctx;

	ret->key = key;
	ret->key_len = (size_t)snprintf(key, 16, "v%zu", i);
}

static void empty_built(struct kx_kit_index *kit, uint32_t space)
{
	struct kx_index_change changes[BUILT] = {0};
	char keys[BUILT][16];
	struct kx_index_space_info info;
	struct kx_error error = {0};

	need(!kx_index_space_info(kit->index, space, &info, &error), error.message);
	need(info.rows == BUILT || info.rows == 0, "half of what was built is there");
	for (uint32_t i = 0; i < BUILT; i++) {
		changes[i] = (struct kx_index_change){.space = space, .key = keys[i]};
		changes[i].key_len = (size_t)snprintf(keys[i], sizeof(keys[i]), "v%u", i);
	}
	need(!kx_index_commit(kit->index, changes, BUILT, &error), error.message);
}

static void build(struct kx_kit_index *kit)
{
	float vectors[BUILT][DIM];
	char key[16];
	struct kx_index_build build = {.count = BUILT, .vectors = vectors[0], .row = built_row, .row_ctx = key};
	struct kx_error error = {0};

	need(!kx_index_space(kit->index, "built", DIM, KX_METRIC_COSINE, &build.space, &error), error.message);
	empty_built(kit, build.space);
	for (uint32_t i = 0; i < BUILT; i++)
		vector_of(i, 1, vectors[i]);
	need(!kx_index_build(kit->index, &build, &error), error.message);
}

static _Noreturn void child(const char *folder, const char *seed)
{
	struct kx_kit_index kit = {.options = {.recall_share = -1, .cell_rows = 20, .fold_changes = 6, .train_rows = 150}};
	struct message ready = {.kind = READY};
	KX_CLEANUP(kx_cleanup_free) char *path = kx_strf("%s/book", folder);
	struct kx_buf bytes = {.max = sizeof(struct book)};
	struct kx_index_report report = {0};
	struct kx_error error = {0};
	uint64_t random = strtoull(seed, NULL, 10);
	uint32_t space, version = (uint32_t)random | 1u << 31;

	(void)snprintf(kit.path, sizeof(kit.path), "%s/store", folder);
	(void)snprintf(kit.dir, sizeof(kit.dir), "%s/vectors", folder);
	need(!kx_fs_read(path, sizeof(struct book), &bytes, &error), error.message);
	need(!kx_kit_index_open(&kit, &error), error.message);
	need(!kx_index_space(kit.index, "a", DIM, KX_METRIC_COSINE, &space, &error), error.message);
	check_book(&kit, (const struct book *)(const void *)bytes.data);
	need(!kx_index_verify(kit.index, &report, &error), error.message);
	need(!report.faults, report.first);
	kx_buf_done(&bytes);
	say(&ready);
	for (uint32_t i = (uint32_t)random % BUILD_EVERY;; i++) {
		if (i % BUILD_EVERY == 0)
			build(&kit);
		change(&kit, &random, &version);
	}
}

/* --- The parent ----------------------------------------------------------------------------------------------- */

static void take(struct book *book, const struct message *message)
{
	for (uint32_t i = 0; i < message->count; i++) {
		uint32_t number = message->number[i];

		assert_true(number < NUMBERS);
		if (message->kind == INTENT) {
			book->next[number] = message->version[i];
			continue;
		}
		book->version[number] = message->version[i];
		book->next[number] = UINT32_MAX;
	}
}

static pid_t start(const char *folder, uint64_t seed, int *ret_fd)
{
	char text[24];
	int fds[2];
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)seed);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)dup2(fds[1], STDOUT_FILENO);
		(void)close(fds[0]);
		(void)close(fds[1]);
		(void)execl("/proc/self/exe", "test_index_kill", "--child", folder, text, (char *)NULL);
		_exit(127);
	}
	(void)close(fds[1]);
	*ret_fd = fds[0];
	return pid;
}

/* Kills after so many acknowledgements and a little later still; returns how many came. */
static unsigned run_and_kill(const char *folder, struct book *book, uint64_t *random, bool wait_ready)
{
	unsigned after = (unsigned)kx_test_below(random, 10), acks = 0;
	uint64_t spin = kx_test_below(random, SPIN_US);
	struct message message;
	bool ready = false;
	int fd, status;
	pid_t pid = start(folder, kx_test_random(random) >> 1, &fd);

	while ((wait_ready && !ready) || acks < after) {
		if (read(fd, &message, sizeof(message)) != (ssize_t)sizeof(message))
			break;
		ready = ready || message.kind == READY;
		acks += message.kind == ACK;
		take(book, &message);
	}
	for (uint64_t until = kx_clock_mono_us() + spin; kx_clock_mono_us() < until;)
		continue; /* some point between two changes, not a wait for anything */
	(void)kill(pid, SIGKILL);
	while (read(fd, &message, sizeof(message)) == (ssize_t)sizeof(message))
		take(book, &message);
	(void)close(fd);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* not of its own will */
	return acks;
}

static void nothing_acknowledged_is_lost(void **state)
{
	struct kx_kit_index kit;
	struct book book = {0};
	uint64_t random = kx_test_seed();
	unsigned acks = 0;
	char path[96];

	(void)state;
	kx_kit_index_init(&kit);
	memset(book.next, 0xff, sizeof(book.next));
	(void)snprintf(path, sizeof(path), "%s/book", kit.folder);
	for (int round = 0; round < KILLS; round++) {
		assert_int_equal(kx_fs_write(path, &book, sizeof(book), NULL), KX_OK);
		/* Now and then also in the middle of opening. */
		acks += run_and_kill(kit.folder, &book, &random, round % 8 != 0);
	}
	print_message("%u batches acknowledged\n", acks);
	assert_true(acks > 2 * KILLS);
	kx_kit_index_done(&kit);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_acknowledged_is_lost),
	};

	if (argc == 4 && kx_str_eq(argv[1], "--child"))
		child(argv[2], argv[3]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
