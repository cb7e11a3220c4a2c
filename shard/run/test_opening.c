/* A shard answers before it has read all records, by a snapshot and what changed since: as it does once all are read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/base/testkit.h"
#include "shard/query/mirror_internal.h"
#include "shard/query/query.h"
#include "shard/run/index.h"
#include "shard/store/testkit.h"

#define IDS 90u
#define ROUNDS 14u

struct fixture {
	char *folder, *snapshots;
	struct kx_store *store;
	struct kx_index *index;
	struct kx_mirror *mirror; /* as the shard has it */
	uint64_t random;
	uint64_t generation[IDS];
	uint64_t now_ms;
};

static void check(kx_status status, const struct kx_error *error)
{
	if (status)
		fail_msg("%s", error->message);
}

static struct kx_mirror *new_mirror(struct fixture *fixture, bool read_only)
{
	struct kx_mirror *mirror = NULL;

	assert_int_equal(kx_mirror_new(&mirror), KX_OK);
	assert_int_equal(kx_mirror_use_index(mirror, fixture->index, fixture->store, read_only), KX_OK);
	assert_int_equal(kx_mirror_use_moments(mirror, fixture->index, fixture->store, read_only), KX_OK);
	return mirror;
}

static void open_shard(struct fixture *fixture)
{
	struct kx_error error = {0};

	check(kx_shard_store_open(fixture->folder, false, &fixture->store, &error), &error);
	check(kx_shard_index_open(fixture->store, fixture->folder, false, true, 0, &fixture->index, &error), &error);
	fixture->mirror = new_mirror(fixture, false);
	assert_int_equal(kx_mirror_use_snapshots(fixture->mirror, fixture->snapshots), KX_OK);
	check(kx_mirror_defer(fixture->mirror, fixture->store, fixture->index, NULL, &error), &error);
}

static void close_shard(struct fixture *fixture)
{
	kx_mirror_free(KX_STEAL(fixture->mirror));
	kx_index_close(KX_STEAL(fixture->index));
	kx_store_close(KX_STEAL(fixture->store));
}

static void reopen(struct fixture *fixture)
{
	close_shard(fixture);
	open_shard(fixture);
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	assert_non_null(fixture);
	fixture->folder = kx_kit_folder();
	fixture->snapshots = kx_fs_join(fixture->folder, "mirror-0");
	fixture->random = kx_test_seed();
	fixture->now_ms = 1600000000000u;
	open_shard(fixture);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	kx_fault_clear();
	close_shard(fixture);
	kx_kit_folder_done(fixture->folder);
	free(fixture->snapshots);
	free(fixture);
	return 0;
}

static uint32_t below(struct fixture *fixture, uint32_t bound)
{
	return (uint32_t)(kx_test_random(&fixture->random) % bound);
}

static bool is_loaded(const struct fixture *fixture)
{
	return atomic_load(&fixture->mirror->loaded);
}

static bool has_snapshot(const struct fixture *fixture)
{
	return fixture->mirror->kept != NULL;
}

/* --- Changes --------------------------------------------------------------------------------------------------- */

/* With all that a filter may ask about. */
static void apply_plan(struct fixture *fixture, struct kx_store_batch *batch, struct kx_result *result)
{
	static const char *const languages[] = {"", "de", "En", "fr"}, *const genres[] = {"", "Drama", "drama", "Krimi"},
				 *const words[] = {"nature", "Nature", "city", "night", "sea"};
	const struct kx_video_info was = result->info;
	struct kx_attribute attributes[4] = {
		{.name = (char *)"genre", .type = KX_ATTRIBUTE_TEXT, .text = (char *)(uintptr_t)genres[below(fixture, 4)]},
		{.name = (char *)"rating", .type = KX_ATTRIBUTE_NUMBER, .text = (char *)"", .number = below(fixture, 50) / 10.0},
		{.name = (char *)"restored", .type = KX_ATTRIBUTE_BOOL, .text = (char *)"", .flag = below(fixture, 2)},
		{.name = (char *)"year", .type = KX_ATTRIBUTE_NUMBER, .text = (char *)"", .number = 1950 + below(fixture, 70)}};
	const uint32_t first = below(fixture, 4);
	char *labels[3], title[32], source[48];
	struct kx_error error = {0};
	kx_status status;

	snprintf(title, sizeof(title), "A film %u", below(fixture, 40));
	snprintf(source, sizeof(source), "/films/%c/%s", 'a' + (char)below(fixture, 3), result->video_id);
	result->info.title = below(fixture, 5) ? title : (char *)"";
	result->info.source = source;
	result->info.duration_us = 1000000u * (1 + below(fixture, 100));
	result->info.width = below(fixture, 3) ? 1280 : 0;
	result->info.height = result->info.width ? 720 : 0;
	result->info.label_count = below(fixture, 4);
	for (uint32_t i = 0; i < result->info.label_count; i++)
		labels[i] = (char *)(uintptr_t)words[below(fixture, KX_ARRAY_LEN(words))];
	result->info.labels = labels;
	result->info.extras = (struct kx_extras){.language = (char *)(uintptr_t)languages[below(fixture, 4)],
						 .visibility = (char *)(below(fixture, 2) ? "public" : "")};
	result->info.extras.attributes = attributes + first;
	result->info.extras.attribute_count = below(fixture, 5 - first);
	status = kx_store_apply(batch, result, &error);
	result->info = was;
	check(status, &error);
}

static void apply_stream(struct fixture *fixture, struct kx_store_batch *batch, const struct kx_kit_stream *stream)
{
	for (size_t i = 0; i < stream->count; i++) {
		KX_CLEANUP(kx_result_cleanup) struct kx_result *result = NULL;
		struct kx_error error = {0};

		check(kx_result_unpack(stream->messages[i].data, stream->messages[i].len, &result, &error), &error);
		if (result->kind == KX_RESULT_PLAN)
			apply_plan(fixture, batch, result);
		else
			check(kx_store_apply(batch, result, &error), &error);
	}
}

static void name_video(uint32_t number, char id[32])
{
	snprintf(id, 32, "%c/%03u.mp4", 'a' + (char)(number % 3), number);
}

static void stream_change(struct fixture *fixture, uint32_t number, struct kx_kit_stream *stream)
{
	char id[32];
	struct kx_kit_video video = {.id = id, .parts = 1, .content = kx_test_random(&fixture->random) % 500};

	name_video(number, id);
	if (fixture->generation[number] && below(fixture, 3) == 0) {
		kx_kit_stream_delete(stream, id, fixture->generation[number]);
		return;
	}
	/* Some come again as they are. */
	video.generation = fixture->generation[number] += below(fixture, 5) != 0 || !fixture->generation[number];
	video.visual_moments = below(fixture, 5);
	video.audio_moments = video.visual_moments ? below(fixture, video.visual_moments + 1) : 1 + below(fixture, 3);
	kx_kit_stream_add(stream, &video);
}

/* As the shard's thread does; but for keeping. */
static void change(struct fixture *fixture, uint32_t videos)
{
	KX_CLEANUP(kx_store_batch_cleanup) struct kx_store_batch *batch = NULL;
	const struct kx_store_change *changes;
	struct kx_error error = {0};
	size_t count;

	check(kx_mirror_need(fixture->mirror, &error), &error);
	check(kx_store_batch_new(fixture->store, fixture->now_ms += 86400000u, &batch, &error), &error);
	for (uint32_t i = 0; i < videos; i++) {
		struct kx_kit_stream *stream = calloc(1, sizeof(*stream));

		assert_non_null(stream);
		stream_change(fixture, below(fixture, IDS), stream);
		apply_stream(fixture, batch, stream);
		kx_kit_stream_done(stream);
		free(stream);
	}
	check(kx_shard_commit(batch, fixture->index, fixture->mirror, &error), &error);
	changes = kx_store_changes(batch, &count);
	for (size_t i = 0; i < count; i++)
		if (changes[i].kind == KX_STORE_STORED)
			check(kx_mirror_put(fixture->mirror, changes[i].record, &error), &error);
		else if (changes[i].kind == KX_STORE_REMOVED)
			kx_mirror_remove(fixture->mirror, changes[i].id);
}

/* --- Questions ------------------------------------------------------------------------------------------------- */

static void same_text(const char *is, const char *should)
{
	assert_string_equal(is ? is : "(none)", should ? should : "(none)");
}

static void same_hit(const struct kx_similar_hit *is, const struct kx_similar_hit *should)
{
	same_text(is->video_id, should->video_id);
	assert_true(is->score == should->score && is->visual == should->visual && is->audio == should->audio);
	assert_true(is->duration_us == should->duration_us && is->moment_start_us == should->moment_start_us &&
		    is->moment_end_us == should->moment_end_us);
	same_text(is->title, should->title);
	same_text(is->source, should->source);
	same_text(is->group_key, should->group_key);
	assert_int_equal(is->label_count, should->label_count);
	for (uint32_t i = 0; i < is->label_count; i++)
		same_text(is->labels[i], should->labels[i]);
	assert_int_equal(is->clause_count, should->clause_count);
	for (uint32_t i = 0; i < is->clause_count; i++) {
		same_text(is->clauses[i].clause, should->clauses[i].clause);
		same_text(is->clauses[i].value, should->clauses[i].value);
		assert_int_equal(is->clauses[i].passed, should->clauses[i].passed);
	}
}

static void same_answer(const struct kx_query_reply *is, const struct kx_query_reply *should, const char *filter)
{
	if (is->status != should->status || is->similar.hit_count != should->similar.hit_count)
		fail_msg("%s: status %d and %u hits, not %d and %u (%s)", filter ? filter : "", (int)is->status,
			 is->similar.hit_count, (int)should->status, should->similar.hit_count, is->message);
	same_text(is->message, should->message);
	for (uint32_t i = 0; i < is->similar.hit_count; i++)
		same_hit(&is->similar.hits[i], &should->similar.hits[i]);
	same_text(is->similar.next, should->similar.next);
	assert_true(is->similar.work.matching == should->similar.work.matching &&
		    is->similar.work.rows == should->similar.work.rows && is->similar.exact == should->similar.exact);
}

static struct kx_query_reply *ask(struct fixture *fixture, struct kx_mirror *mirror, const struct kx_query_request *request)
{
	const struct kx_query_context context = {.store = fixture->store, .mirror = mirror, .index = fixture->index};
	struct kx_query_reply *reply = NULL;

	assert_int_equal(kx_query_answer(&context, request, &reply, NULL), KX_OK);
	return reply;
}

static void compare(struct fixture *fixture, struct kx_mirror *all, const char *filter, enum kx_query_level level,
		    uint32_t pages)
{
	static const enum kx_query_group groups[] = {KX_GROUP_NONE, KX_GROUP_NONE, KX_GROUP_SOURCE};
	struct kx_query_request request = {.kind = KX_QUERY_SIMILAR};
	struct kx_similar_query *query = &request.similar;
	char id[32], left_out[2][32], *not_ids[2] = {left_out[0], left_out[1]};
	KX_CLEANUP(kx_cleanup_free) char *cursor = NULL;

	name_video(below(fixture, IDS), id);
	name_video(below(fixture, IDS), left_out[0]);
	name_video(below(fixture, IDS), left_out[1]);
	*query = (struct kx_similar_query){.video_id = id, .k = 1 + below(fixture, 12), .weight_visual = 0.6, .weight_audio = 0.4,
					   .filter = (char *)(uintptr_t)filter, .level = level, .explain = below(fixture, 2),
					   .group = groups[below(fixture, 3)]};
	if (below(fixture, 3) == 0) {
		query->not_ids = not_ids;
		query->not_id_count = 2;
	}
	for (uint32_t page = 0; page < pages; page++) {
		struct kx_query_reply *should = ask(fixture, all, &request), *is;

		if (should->status == KX_ENOTFOUND) { /* no such video: to say so takes all */
			kx_query_reply_free(should);
			return;
		}
		is = ask(fixture, fixture->mirror, &request);
		same_answer(is, should, filter);
		free(cursor);
		cursor = query->cursor = should->similar.next ? kx_strdup(should->similar.next) : NULL;
		kx_query_reply_free(is);
		kx_query_reply_free(should);
		if (!cursor)
			return;
	}
}

static const char *const filters[] = {
	NULL, "duration < 50", "duration < 3", "label = nature", "label != \"NATURE\"", "not label in (city, sea)", "label ~ igh",
	"class:#3", "class:visual#45 > 0.2", "class:audio#7 < 0.5", "has:class", "has:label", "lang = DE", "language != en",
	"visibility = public", "has:year", "year > 1990 and rating >= 2.5", "genre = drama or genre = Krimi", "genre ~ ra",
	"restored = true", "not restored = true", "has:audio", "has:visual and not has:audio", "title ~ \"film 3\"", "title = \"a FILM 7\"",
	"source:/films/a", "source:\"*/b/*\"", "id in (\"a/003.mp4\", \"b/004.mp4\")", "added > 2020-09-20", "width = 1280",
	"(year < 1990 or label = sea) and duration > 20 and not class:#44", "nosuch = 3", "year >", "duplicate_of = x"};

/* All sorts of questions to the shard and to a mirror that has read every record. */
static void ask_all_sorts(struct fixture *fixture, uint32_t pages)
{
	struct kx_mirror *all = new_mirror(fixture, true);
	struct kx_error error = {0};

	check(kx_mirror_load(all, fixture->store, &error), &error);
	for (size_t i = 0; i < KX_ARRAY_LEN(filters); i++) {
		compare(fixture, all, filters[i], KX_LEVEL_VIDEOS, pages);
		compare(fixture, all, filters[i], KX_LEVEL_MOMENTS, pages);
	}
	kx_mirror_free(all);
}

/* --- Tests ----------------------------------------------------------------------------------------------------- */

static void fill(struct fixture *fixture)
{
	for (int i = 0; i < 6; i++)
		change(fixture, 40);
}

static void test_answers_are_the_same(void **state)
{
	struct fixture *fixture = *state;

	fill(fixture);
	kx_mirror_keep(fixture->mirror);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		reopen(fixture);
		assert_false(is_loaded(fixture));
		assert_true(has_snapshot(fixture));
		ask_all_sorts(fixture, 3);
		assert_false(is_loaded(fixture)); /* all by the snapshot */
		change(fixture, 1 + below(fixture, 30)); /* loads */
		assert_false(has_snapshot(fixture));
		ask_all_sorts(fixture, 1);
		if (below(fixture, 2))
			kx_mirror_keep(fixture->mirror); /* else it ends as if killed */
	}
}

/* Moments first, then filters, and the other way round, after changes. */
static void test_moments_come_later(void **state)
{
	struct fixture *fixture = *state;
	struct kx_mirror *all;
	struct kx_error error = {0};

	fill(fixture);
	kx_mirror_keep(fixture->mirror);
	change(fixture, 10);
	for (int first = 0; first < 2; first++) {
		reopen(fixture);
		all = new_mirror(fixture, true);
		check(kx_mirror_load(all, fixture->store, &error), &error);
		for (int i = 0; i < 8; i++)
			compare(fixture, all, "duration < 60", (i < 4) == first ? KX_LEVEL_MOMENTS : KX_LEVEL_VIDEOS, 2);
		assert_false(is_loaded(fixture));
		kx_mirror_free(all);
	}
}

/* Whatever fails in making one: the one before is in force, with what changed since. */
static void test_keeping_may_fail(void **state)
{
	static const char *const points[] = {"fs.write", "fs.fsync", "fs.rename", "kv.write"};
	struct fixture *fixture = *state;

	fill(fixture);
	kx_mirror_keep(fixture->mirror);
	for (size_t i = 0; i < KX_ARRAY_LEN(points); i++)
		for (uint64_t nth = 1; nth < 4; nth++) {
			change(fixture, 4);
			kx_fault_arm(points[i], nth);
			kx_mirror_keep(fixture->mirror);
			kx_fault_clear();
			reopen(fixture);
			assert_true(has_snapshot(fixture));
			ask_all_sorts(fixture, 1);
			assert_false(is_loaded(fixture));
		}
}

static char *snapshot_path(const struct fixture *fixture)
{
	DIR *folder = opendir(fixture->snapshots);
	char *path = NULL;

	assert_non_null(folder);
	for (struct dirent *entry; (entry = readdir(folder));)
		if (kx_str_ends(entry->d_name, ".mirror")) {
			assert_null(path); /* those before are gone */
			path = kx_fs_join(fixture->snapshots, entry->d_name);
		}
	closedir(folder);
	assert_non_null(path);
	return path;
}

static void damage(struct fixture *fixture, const char *path, size_t bytes)
{
	KX_CLEANUP(kx_cleanup_close) int fd = open(path, O_RDWR);
	off_t at = (off_t)(kx_test_random(&fixture->random) % bytes);
	uint8_t byte = 0;

	assert_true(fd >= 0 && pread(fd, &byte, 1, at) == 1);
	byte ^= (uint8_t)(1u << below(fixture, 8));
	assert_true(pwrite(fd, &byte, 1, at) == 1);
}

/* Wherever it is damaged the answers are right, and the next one is made anew. */
static void test_damage_is_seen(void **state)
{
	struct fixture *fixture = *state;

	fill(fixture);
	for (int i = 0; i < 12; i++) {
		KX_CLEANUP(kx_cleanup_free) char *path = NULL;
		struct kx_buf whole = {0};

		kx_mirror_keep(fixture->mirror);
		path = snapshot_path(fixture);
		assert_int_equal(kx_fs_read(path, 1 << 28, &whole, NULL), KX_OK);
		close_shard(fixture);
		if (i == 0)
			assert_int_equal(unlink(path), 0);
		else if (i == 1)
			assert_int_equal(truncate(path, (off_t)whole.len - 1), 0);
		else if (i == 2)
			assert_int_equal(truncate(path, 100), 0);
		else
			damage(fixture, path, whole.len);
		open_shard(fixture);
		ask_all_sorts(fixture, 1);
		kx_buf_done(&whole);
		change(fixture, 2);
	}
}

/* Whoever writes records past the store's batches is found out: the sum of their marks is another. */
static void test_another_program(void **state)
{
	struct fixture *fixture = *state;

	fill(fixture);
	kx_mirror_keep(fixture->mirror);
	change(fixture, 5);
	for (uint32_t i = 0; i < IDS; i++) {
		char id[32], key[48];

		name_video(i, id);
		snprintf(key, sizeof(key), "changed/%s", id);
		kx_kit_put(fixture->store, KX_STORE_META, key, strlen(key), NULL, 0);
	}
	reopen(fixture);
	assert_true(has_snapshot(fixture));
	ask_all_sorts(fixture, 1);
	assert_true(is_loaded(fixture));
	kx_mirror_keep(fixture->mirror);
	reopen(fixture);
	ask_all_sorts(fixture, 1);
	assert_false(is_loaded(fixture));
}

/* A read that fails is told, or everything is read; the next question is answered right. */
static void test_reads_may_fail(void **state)
{
	struct fixture *fixture = *state;
	struct kx_query_request request = {.kind = KX_QUERY_SIMILAR};
	char id[32];
	uint32_t number = 0;

	fill(fixture);
	while (name_video(number, id), !kx_mirror_row(fixture->mirror, id))
		number++;
	kx_mirror_keep(fixture->mirror);
	change(fixture, 8);
	request.similar = (struct kx_similar_query){.video_id = id, .k = 5, .weight_visual = 1, .weight_audio = 1,
						    .filter = (char *)"duration < 70 and label != city"};
	for (uint64_t nth = 1; nth < 40; nth += 3) {
		reopen(fixture);
		request.similar.level = nth % 2 ? KX_LEVEL_VIDEOS : KX_LEVEL_MOMENTS;
		kx_fault_arm("kv.read", nth);
		kx_query_reply_free(ask(fixture, fixture->mirror, &request));
		kx_fault_clear();
		ask_all_sorts(fixture, 1);
	}
}

/* One that is only read is loaded beside the answers, when there are many of them. */
static void test_many_answers_warm_it(void **state)
{
	struct fixture *fixture = *state;
	struct kx_query_request request = {.kind = KX_QUERY_SIMILAR};
	struct kx_error error = {0};
	char id[32];
	uint32_t number = 0;

	fill(fixture);
	while (name_video(number, id), !kx_mirror_row(fixture->mirror, id))
		number++;
	kx_mirror_keep(fixture->mirror);
	request.similar = (struct kx_similar_query){.video_id = id, .k = 5, .weight_visual = 1, .weight_audio = 1,
						    .filter = (char *)"duration < 70"};
	reopen(fixture);
	kx_mirror_warm_after(fixture->mirror, 3);
	for (int i = 0; i < 40; i++) {
		kx_query_reply_free(ask(fixture, fixture->mirror, &request));
		assert_int_equal(fixture->mirror->warming, i >= 2);
	}
	kx_mirror_end_warming(fixture->mirror);
	fixture->mirror->warming = false;
	assert_true(is_loaded(fixture));
	assert_false(has_snapshot(fixture));
	check(kx_mirror_need(fixture->mirror, &error), &error);
	ask_all_sorts(fixture, 1);
}

/* Attributes of one name and several types: which type counts goes by the order of reading, so all are read. */
static void test_types_that_disagree(void **state)
{
	struct fixture *fixture = *state;

	fill(fixture);
	fixture->mirror->columns->told_type = true;
	kx_mirror_keep(fixture->mirror);
	reopen(fixture);
	assert_false(has_snapshot(fixture));
	ask_all_sorts(fixture, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_answers_are_the_same), TEST(test_moments_come_later), TEST(test_keeping_may_fail),
		TEST(test_damage_is_seen),	 TEST(test_another_program),	TEST(test_reads_may_fail),
		TEST(test_types_that_disagree),	 TEST(test_many_answers_warm_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
