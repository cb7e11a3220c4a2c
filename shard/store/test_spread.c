#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/learn/learn.h"
#include "shard/store/spread.h"
#include "shard/store/testkit.h"

#define VIDEOS 30u
#define PARTITIONS 7u
#define STORES_MAX 6u
#define TOPIC "k.results"

/* Stores of one catalogue, each in a folder of its own. */
struct stores {
	char *folder;
	uint32_t count;
	struct kx_store *at[STORES_MAX];
	const char *names[STORES_MAX];
};

/* Any function of the id will do. */
static int partition_of(const void *id, size_t len, int partitions)
{
	const uint8_t *bytes = id;
	unsigned sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = sum * 31 + bytes[i];
	return (int)(sum % (unsigned)partitions);
}

static void ok(kx_status status, const struct kx_error *error)
{
	if (status)
		fail_msg("%s: %s", kx_status_name(status), error->message);
}

static void open_stores(struct stores *stores, uint32_t count)
{
	static const char *const names[STORES_MAX] = {"a", "b", "c", "d", "e", "f"};

	*stores = (struct stores){.folder = kx_kit_folder(), .count = count};
	for (uint32_t i = 0; i < count; i++) {
		char *path = kx_fs_join(stores->folder, names[i]);

		assert_non_null(path);
		ok(kx_fs_mkdirs(path, NULL), NULL);
		stores->at[i] = kx_kit_open(path);
		stores->names[i] = names[i];
		free(path);
	}
}

static void close_stores(struct stores *stores)
{
	for (uint32_t i = 0; i < stores->count; i++)
		kx_store_close(stores->at[i]);
	kx_kit_folder_done(stores->folder);
}

static void name_video(char name[16], uint32_t i)
{
	(void)snprintf(name, 16, "v%u", i);
}

/* Stored, a third of them twice; every fifth deleted; every seventh is still arriving, newer than what is stored; each with its
 * event still to be told. */
static void stream_of(struct kx_kit_stream *stream, uint32_t i)
{
	char id[16];

	name_video(id, i);
	*stream = (struct kx_kit_stream){0};
	for (uint64_t generation = 1; generation <= (i % 3 ? 1 : 2); generation++)
		kx_kit_stream_add(stream, &(struct kx_kit_video){.id = id, .generation = generation, .parts = 2,
								 .visual_moments = 1 + i % 4, .audio_moments = i % 2,
								 .content = i});
	if (i % 5 == 0)
		kx_kit_stream_delete(stream, id, 2);
	if (i % 7 == 0) {
		kx_kit_stream_add(stream, &(struct kx_kit_video){.id = id, .generation = 3, .parts = 2, .visual_moments = 4,
								 .content = 100 + i});
		stream->count--; /* the last part has not ended */
		kx_buf_done(&stream->messages[stream->count]);
	}
}

static void put_offsets(struct stores *stores)
{
	for (uint32_t i = 0; i < stores->count; i++) {
		KX_CLEANUP(kx_store_batch_cleanup) struct kx_store_batch *batch = NULL;

		ok(kx_store_batch_new(stores->at[i], 1, &batch, NULL), NULL);
		for (uint32_t p = i; p < PARTITIONS; p += stores->count)
			kx_store_batch_offset(batch, "cluster", TOPIC, (int)p, 1000 + p);
		kx_store_batch_offset(batch, "local-0123456789abcdef0123456789abcdef", TOPIC, 0, 5);
		ok(kx_store_commit(batch, NULL), NULL);
	}
}

static void take_in(struct stores *stores)
{
	static const char kit_offset[] = "offset/bus/results/0"; /* of whichever store it was */

	for (uint32_t i = 0; i < VIDEOS; i++) {
		struct kx_kit_stream stream;
		char id[16];

		name_video(id, i);
		stream_of(&stream, i);
		ok(kx_kit_apply(stores->at[(uint32_t)partition_of(id, strlen(id), PARTITIONS) % stores->count], &stream, NULL),
		   NULL);
		kx_kit_stream_done(&stream);
	}
	for (uint32_t i = 0; i < stores->count; i++)
		kx_kit_put(stores->at[i], KX_STORE_META, kit_offset, strlen(kit_offset), NULL, 0);
}

/* As shards leave it that have taken the same messages in. */
static void fill(struct stores *stores)
{
	for (uint32_t i = 0; i < stores->count; i++)
		ok(kx_store_claim(stores->at[i], &(struct kx_store_part){i, stores->count, PARTITIONS}, NULL), NULL);
	take_in(stores);
	put_offsets(stores);
}

/* As a store is that has run for a while: it names a snapshot, and then what changed. */
static void name_snapshots(struct stores *stores)
{
	for (uint32_t i = 0; i < stores->count; i++)
		ok(kx_store_set_snapshot(stores->at[i], "a file of its own", 17, NULL), NULL);
}

static struct kx_spread spread_of(const struct stores *from, uint32_t parts)
{
	return (struct kx_spread){.from = from->at,
				  .names = from->names,
				  .from_count = from->count,
				  .parts = parts,
				  .partitions = from->count == 1 ? PARTITIONS : 0,
				  .partition_of = partition_of};
}

/* The same as if the messages had come to this many shards: in every family, byte for byte. */
static void assert_alike(const struct stores *got, const struct stores *wanted)
{
	for (uint32_t i = 0; i < got->count; i++) {
		uint8_t a[KX_SHA_LEN], b[KX_SHA_LEN];
		struct kx_store_part part, other;
		struct kx_store_audit audit;

		kx_kit_digest(got->at[i], a);
		kx_kit_digest(wanted->at[i], b);
		assert_memory_equal(a, b, sizeof(a));
		for (int family = 0; family < KX_STORE_FAMILIES; family++)
			if (family != KX_STORE_META)
				assert_int_equal(kx_kit_count(got->at[i], (enum kx_store_family)family),
						 kx_kit_count(wanted->at[i], (enum kx_store_family)family));
		ok(kx_store_part(got->at[i], &part, NULL), NULL);
		ok(kx_store_part(wanted->at[i], &other, NULL), NULL);
		assert_memory_equal(&part, &other, sizeof(part));
		ok(kx_store_audit(got->at[i], &audit, NULL), NULL);
		for (uint32_t p = 0; p < PARTITIONS; p++) {
			int64_t offset = 0;

			ok(kx_store_offset(got->at[i], "cluster", TOPIC, (int)p, &offset, NULL), NULL);
			assert_int_equal(offset, p % got->count == i ? 1000 + (int64_t)p : -1);
		}
	}
}

static void check_spread(uint32_t from_count, uint32_t parts)
{
	struct stores from, to, wanted;
	struct kx_spread_counts each[STORES_MAX], all, sum = {0};
	struct kx_error error = {0};

	print_message("%u to %u\n", from_count, parts);
	open_stores(&from, from_count);
	open_stores(&to, parts);
	open_stores(&wanted, parts);
	name_snapshots(&from);
	fill(&from);
	fill(&wanted);
	struct kx_spread spread = spread_of(&from, parts);
	ok(kx_spread_stores(&spread, to.at, each, &all, &error), &error);
	assert_alike(&to, &wanted);
	for (uint32_t i = 0; i < parts; i++) {
		assert_false(kx_store_has_snapshot(to.at[i]));
		sum.videos += each[i].videos;
		assert_int_equal(each[i].videos, kx_kit_count(to.at[i], KX_STORE_VIDEOS));
		assert_int_equal(each[i].pending, kx_kit_count(to.at[i], KX_STORE_PENDING));
	}
	assert_int_equal(all.videos, sum.videos);
	assert_int_equal(all.videos, VIDEOS - VIDEOS / 5);
	assert_int_equal(all.deletions, VIDEOS / 5);
	assert_int_equal(all.offsets, PARTITIONS);
	assert_true(all.moments > all.videos && all.pending > 0 && all.events > 0);
	take_in(&to); /* what was deleted stays deleted: what comes again changes nothing */
	take_in(&wanted);
	assert_alike(&to, &wanted);
	close_stores(&from);
	close_stores(&to);
	close_stores(&wanted);
}

static void any_number_becomes_any_other(void **state)
{
	static const uint32_t pairs[][2] = {{1, 3}, {3, 1}, {2, 5}, {3, 2}, {1, 1}, {4, 4}};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(pairs); i++)
		check_spread(pairs[i][0], pairs[i][1]);
}

static void parts_that_are_no_catalogue(void **state)
{
	static const char *const names[] = {"x", "y", "z"};
	const struct {
		struct kx_store_part from[3];
		uint32_t count, parts, partitions;
		const char *said[2];
	} cases[] = {
		{{{0, 3, 7}, {2, 3, 7}}, 2, 2, 0, {"part 1 of 3", "missing"}},
		{{{0, 2, 7}, {1, 2, 7}, {1, 2, 7}}, 3, 2, 0, {"y and z", "part 1 of 2"}},
		{{{0, 1, 0}, {0, 1, 0}}, 2, 2, 7, {"x and y", "part 0 of 1"}},
		{{{0, 2, 7}, {1, 3, 7}}, 2, 2, 0, {"y", "part 1 of 3"}},
		{{{0, 2, 7}, {1, 2, 8}}, 2, 2, 0, {"y", "8"}},
		{{{0, 2, 7}, {1, 2, 7}}, 2, 8, 0, {"8", "7 partitions"}},
		{{{0, 2, 7}, {1, 2, 7}}, 2, 2, 12, {"7", "12"}},
		{{{0, 1, 0}}, 1, 2, 0, {"x", "partitions"}},
		{{{0, 1, 0}}, 1, 0, 7, {"", ""}},
	};

	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(cases); i++) {
		struct kx_error error = {0};
		uint32_t partitions = cases[i].partitions;

		assert_int_equal(kx_spread_check(cases[i].from, names, cases[i].count, cases[i].parts, &partitions, &error),
				 KX_EINVAL);
		for (size_t j = 0; j < 2; j++)
			if (!strstr(error.message, cases[i].said[j]))
				fail_msg("case %zu: \"%s\" does not say %s", i, error.message, cases[i].said[j]);
	}
	uint32_t partitions = 0;
	ok(kx_spread_check(cases[5].from, names, 2, 7, &partitions, NULL), NULL);
	assert_int_equal(partitions, 7);
}

/* A spread that fails, and what is wrong with it. */
static void expect_refused(const struct stores *from, uint32_t partitions, kx_status wanted, const char *said)
{
	struct kx_spread_counts each[STORES_MAX], all;
	struct kx_spread spread = spread_of(from, 2);
	struct kx_error error = {0};
	struct stores to;

	open_stores(&to, 2);
	spread.partitions = partitions ? partitions : spread.partitions;
	assert_int_equal(kx_spread_stores(&spread, to.at, each, &all, &error), wanted);
	if (!strstr(error.message, said))
		fail_msg("\"%s\" does not say %s", error.message, said);
	close_stores(&to);
}

static void what_is_out_of_place_is_refused(void **state)
{
	static const char stranger[] = "strange/thing";
	struct stores from;
	uint8_t value[8] = {0};
	struct kx_kit_stream stream = {0};
	uint32_t i = 0;
	char id[16];

	(void)state;
	open_stores(&from, 2);
	fill(&from);
	do
		name_video(id, i++);
	while (partition_of(id, strlen(id), PARTITIONS) % 2 != 1);
	kx_kit_stream_add(&stream, &(struct kx_kit_video){.id = id, .generation = 9, .parts = 1, .visual_moments = 1});
	ok(kx_kit_apply(from.at[0], &stream, NULL), NULL);
	kx_kit_stream_done(&stream);
	expect_refused(&from, 0, KX_ECORRUPT, id);
	close_stores(&from);

	open_stores(&from, 1);
	fill(&from);
	expect_refused(&from, PARTITIONS - 1, KX_EINVAL, "partition 6");
	kx_kit_put(from.at[0], KX_STORE_META, stranger, strlen(stranger), value, sizeof(value));
	expect_refused(&from, 0, KX_ECORRUPT, stranger);
	close_stores(&from);
}

static bool never(void *ctx)
{
	(void)ctx;
	return false;
}

/* After any failed write, or when it is stopped: the source is as it was, and nobody takes what was made for a store. */
static void what_is_not_whole_does_not_open(void **state)
{
	uint8_t before[KX_SHA_LEN], after[KX_SHA_LEN];
	struct kx_spread_counts each[STORES_MAX], all;
	struct stores from;
	kx_status status = KX_EFULL;

	(void)state;
	open_stores(&from, 1);
	fill(&from);
	kx_kit_digest(from.at[0], before);
	struct kx_spread spread = spread_of(&from, 2);
	unsigned nth = 0;
	for (; status; nth++) {
		struct kx_error error = {0};
		struct stores to;

		open_stores(&to, 2);
		spread.goes_on = nth ? NULL : never;
		if (nth)
			kx_fault_arm("kv.write", nth);
		status = kx_spread_stores(&spread, to.at, each, &all, &error);
		kx_fault_clear();
		for (uint32_t i = 0; i < 2; i++) {
			char *path = kx_fs_join(to.folder, to.names[i]);
			struct kx_store_options options = {.data_dir = path};
			struct kx_store *again = NULL;
			kx_status opened;

			kx_store_close(KX_STEAL(to.at[i]));
			opened = kx_store_open(&options, &again, &error);
			/* One that no write has reached is empty; the last to be ended may be alone in it. */
			if (opened == KX_OK && status)
				assert_true(nth <= 2 || i == 0);
			if (status == KX_OK)
				assert_int_equal(opened, KX_OK);
			kx_store_close(again);
			free(path);
		}
		close_stores(&to);
		assert_true(nth < 1000);
		if (!nth)
			assert_int_equal(status, KX_ECANCELED);
	}
	assert_true(nth > 20);
	kx_kit_digest(from.at[0], after);
	assert_memory_equal(before, after, sizeof(before));
	close_stores(&from);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parts_that_are_no_catalogue),
		cmocka_unit_test(any_number_becomes_any_other),
		cmocka_unit_test(what_is_out_of_place_is_refused),
		cmocka_unit_test(what_is_not_whole_does_not_open),
	};

	kx_learn_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
