/* What the index promises while nothing goes wrong, and what it refuses. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "shard/index/testkit.h"

#define DIM 16u

static int setup(void **state)
{
	struct kx_kit_index *kit = calloc(1, sizeof(*kit));

	assert_non_null(kit);
	kx_kit_index_init(kit);
	*state = kit;
	return 0;
}

static int teardown(void **state)
{
	kx_kit_index_done(*state);
	free(*state);
	return 0;
}

static void check(kx_status status, const struct kx_error *error)
{
	if (status)
		fail_msg("%s: %s", kx_status_name(status), error->message);
}

static uint32_t open_space(struct kx_kit_index *kit, const char *name)
{
	struct kx_error error = {0};
	uint32_t space;

	if (!kit->index)
		check(kx_kit_index_open(kit, &error), &error);
	check(kx_index_space(kit->index, name, DIM, KX_METRIC_COSINE, &space, &error), &error);
	return space;
}

static void put_many(struct kx_kit_index *kit, uint32_t space, uint32_t from, uint32_t to)
{
	struct kx_error error = {0};
	float vector[DIM];

	for (uint32_t i = from; i < to; i++) {
		uint64_t random = i + 1;

		kx_kit_vector(&random, DIM, 8, vector);
		check(kx_kit_put(kit, space, i, vector, DIM, &error), &error);
	}
}

static void vector_of(uint32_t number, float *ret)
{
	uint64_t random = number + 1;

	kx_kit_vector(&random, DIM, 8, ret);
}

/* The number of the key that is nearest to this number's vector; UINT32_MAX: none is found. */
static uint32_t nearest(struct kx_kit_index *kit, uint32_t space, uint32_t number, const char *exclude)
{
	struct kx_index_hits hits = {0};
	struct kx_error error = {0};
	float vector[DIM];
	struct kx_index_query query = {.vector = vector, .dim = DIM, .k = 1, .recall = 1, .exclude = exclude,
				       .exclude_len = exclude ? strlen(exclude) : 0};
	uint32_t found;

	vector_of(number, vector);
	check(kx_index_search(kit->index, space, &query, &hits, &error), &error);
	found = hits.count ? kx_kit_number(&hits.list[0]) : UINT32_MAX;
	kx_index_hits_done(&hits);
	return found;
}

static void drain(struct kx_kit_index *kit)
{
	struct kx_error error = {0};
	uint32_t done;

	check(kx_index_maintain(kit->index, UINT32_MAX, &done, &error), &error);
}

static struct kx_index_stats stats_of(struct kx_kit_index *kit, uint32_t space)
{
	struct kx_index_stats stats;
	struct kx_error error = {0};

	check(kx_index_stats(kit->index, space, &stats, &error), &error);
	return stats;
}

static void finds_what_was_put(void **state)
{
	struct kx_kit_index *kit = *state;
	uint32_t space = open_space(kit, "a");

	assert_true(kx_index_is_empty(kit->index));
	assert_int_equal(nearest(kit, space, 1, NULL), UINT32_MAX);
	put_many(kit, space, 0, 400);
	assert_false(kx_index_is_empty(kit->index));
	for (uint32_t i = 0; i < 400; i += 37)
		assert_int_equal(nearest(kit, space, i, NULL), i);
	assert_int_not_equal(nearest(kit, space, 74, "v74"), 74);
	drain(kit);
	assert_true(stats_of(kit, space).generation == 1 && stats_of(kit, space).cells >= 15);
	for (uint32_t i = 0; i < 400; i += 37)
		assert_int_equal(nearest(kit, space, i, NULL), i);
	kx_kit_index_close(kit);
	assert_int_equal(open_space(kit, "a"), space);
	for (uint32_t i = 0; i < 400; i += 37)
		assert_int_equal(nearest(kit, space, i, NULL), i);
	assert_int_equal(kx_kit_put(kit, space, 74, NULL, 0, NULL), KX_OK);
	assert_int_equal(kx_kit_put(kit, space, 5000, NULL, 0, NULL), KX_OK); /* not there is nothing */
	assert_int_not_equal(nearest(kit, space, 74, NULL), 74);
	kx_kit_verify(kit);
}

struct walked {
	char text[200];
	struct kx_kit_index *kit;
	uint32_t space;
};

static kx_status walk_key(void *ctx, const void *key, size_t key_len, uint32_t row, struct kx_error *error)
{
	struct walked *walked = ctx;
	size_t len = strlen(walked->text);
	uint32_t is = UINT32_MAX;

	(void)snprintf(walked->text + len, sizeof(walked->text) - len, "%.*s ", (int)key_len, (const char *)key);
	check(kx_index_get(walked->kit->index, walked->space, key, key_len, &is, NULL, NULL, error), error);
	assert_int_equal(is, row);
	return key_len == 5 ? KX_ECANCELED : KX_OK;
}

static void keys_are_walked_by_prefix(void **state)
{
	struct kx_kit_index *kit = *state;
	struct walked walked = {.kit = kit};
	uint32_t other;

	walked.space = open_space(kit, "a");
	other = open_space(kit, "b");
	put_many(kit, walked.space, 0, 130);
	put_many(kit, other, 120, 140);
	assert_int_equal(kx_kit_put(kit, walked.space, 121, NULL, 0, NULL), KX_OK);
	assert_int_equal(kx_index_each_key(kit->index, walked.space, "v12", 3, walk_key, &walked, NULL), KX_OK);
	assert_string_equal(walked.text, "v12 v120 v122 v123 v124 v125 v126 v127 v128 v129 ");
	walked.text[0] = '\0';
	assert_int_equal(kx_index_each_key(kit->index, walked.space, "w", 1, walk_key, &walked, NULL), KX_OK);
	assert_string_equal(walked.text, "");
	put_many(kit, walked.space, 1230, 1240);
	assert_int_equal(kx_index_each_key(kit->index, walked.space, "v123", 4, walk_key, &walked, NULL), KX_ECANCELED);
	assert_string_equal(walked.text, "v123 v1230 ");
	assert_int_equal(kx_index_each_key(kit->index, 7, "v", 1, walk_key, &walked, NULL), KX_ENOTFOUND);
}

static void cells_split_and_dissolve(void **state)
{
	struct kx_kit_index *kit = *state;
	uint32_t space = open_space(kit, "a");
	struct kx_index_stats stats;

	put_many(kit, space, 0, 160);
	drain(kit);
	for (uint32_t i = 160; i < 1000; i += 40) {
		put_many(kit, space, i, i + 40);
		drain(kit);
	}
	stats = stats_of(kit, space);
	assert_true(stats.splits > 10 && stats.folds > 10);
	assert_true(stats.largest_cell <= 40);
	kx_kit_verify(kit);
	for (uint32_t i = 0; i < 1000; i++)
		if (i % 20)
			assert_int_equal(kx_kit_put(kit, space, i, NULL, 0, NULL), KX_OK);
	drain(kit);
	stats = stats_of(kit, space);
	assert_true(stats.merges > 5);
	assert_int_equal(stats.rows, 50);
	kx_kit_verify(kit);
	for (uint32_t i = 0; i < 1000; i += 20)
		assert_int_equal(nearest(kit, space, i, NULL), i);
}

static void copies_of_one_vector_split_too(void **state)
{
	struct kx_kit_index *kit = *state;
	uint32_t space = open_space(kit, "a");
	float vector[DIM];

	put_many(kit, space, 0, 160);
	drain(kit);
	vector_of(7, vector);
	for (uint32_t i = 1000; i < 1200; i++)
		assert_int_equal(kx_kit_put(kit, space, i, vector, DIM, NULL), KX_OK);
	drain(kit);
	assert_int_equal(stats_of(kit, space).rows, 360);
	assert_true(stats_of(kit, space).largest_cell <= 80);
	kx_kit_verify(kit);
}

static void refuses_nonsense(void **state)
{
	struct kx_kit_index *kit = *state;
	uint32_t space = open_space(kit, "a"), other;
	struct kx_error error = {0};
	struct kx_index_hits hits = {0};
	float vector[DIM] = {1};
	struct kx_index_query query = {.vector = vector, .dim = DIM, .k = 1, .recall = 0.9};
	struct kx_index_change change = {.space = space, .key = "k", .key_len = 1, .vector = vector, .dim = DIM};

	assert_int_equal(kx_index_space(kit->index, "a", DIM + 1, KX_METRIC_COSINE, &other, &error), KX_EINVAL);
	assert_int_equal(kx_index_space(kit->index, "b", KX_IVF_DIM_MAX + 1, KX_METRIC_COSINE, &other, &error), KX_EINVAL);
	assert_int_equal(kx_index_space(kit->index, "", DIM, KX_METRIC_COSINE, &other, &error), KX_EINVAL);
	assert_int_equal(kx_index_find_space(kit->index, "nix", &other, &error), KX_ENOTFOUND);
	assert_non_null(strstr(error.message, "nix"));
	assert_int_equal(kx_index_search(kit->index, 9, &query, &hits, &error), KX_ENOTFOUND);
	query.k = 0;
	assert_int_equal(kx_index_search(kit->index, space, &query, &hits, &error), KX_EINVAL);
	query.k = 1000000000;
	assert_int_equal(kx_index_search(kit->index, space, &query, &hits, &error), KX_EINVAL);
	assert_non_null(strstr(error.message, "1000000000"));
	query.k = KX_INDEX_K_MAX;
	assert_int_equal(kx_index_search(kit->index, space, &query, &hits, &error), KX_OK);
	query.recall = 0;
	assert_int_equal(kx_index_search(kit->index, space, &query, &hits, &error), KX_EINVAL);
	query.recall = NAN;
	assert_int_equal(kx_index_search(kit->index, space, &query, &hits, &error), KX_EINVAL);
	query.recall = 1;
	query.dim = DIM - 1;
	assert_int_equal(kx_index_search(kit->index, space, &query, &hits, &error), KX_EINVAL);
	query.dim = DIM;
	vector[3] = NAN;
	assert_int_equal(kx_index_search(kit->index, space, &query, &hits, &error), KX_EINVAL);
	assert_int_equal(kx_index_commit(kit->index, &change, 1, &error), KX_EINVAL);
	vector[3] = INFINITY;
	assert_int_equal(kx_index_commit(kit->index, &change, 1, &error), KX_EINVAL);
	memset(vector, 0, sizeof(vector));
	assert_int_equal(kx_index_search(kit->index, space, &query, &hits, &error), KX_EINVAL);
	assert_int_equal(kx_index_commit(kit->index, &change, 1, &error), KX_EINVAL);
	assert_non_null(strstr(error.message, "zero"));
	vector[0] = 1e30f; /* fits: only its direction is kept */
	assert_int_equal(kx_index_commit(kit->index, &change, 1, &error), KX_OK);
	vector[0] = -1e-42f;
	assert_int_equal(kx_index_search(kit->index, space, &query, &hits, &error), KX_OK);
	assert_true(hits.count == 1 && hits.list[0].score < -0.99f);
	change.dim = 3;
	assert_int_equal(kx_index_commit(kit->index, &change, 1, &error), KX_EINVAL);
	change.dim = DIM;
	change.key_len = 0;
	assert_int_equal(kx_index_commit(kit->index, &change, 1, &error), KX_EINVAL);
	change.key_len = KX_INDEX_KEY_MAX + 1;
	assert_int_equal(kx_index_commit(kit->index, &change, 1, &error), KX_EINVAL);
	change.key_len = 1;
	change.space = 7;
	assert_int_equal(kx_index_commit(kit->index, &change, 1, &error), KX_ENOTFOUND);
	assert_int_equal(kx_index_commit(kit->index, &change, KX_INDEX_CHANGES_MAX + 1, &error), KX_ETOOBIG);
	assert_int_equal(kx_index_get(kit->index, space, "none", 4, NULL, NULL, NULL, &error), KX_ENOTFOUND);
	assert_int_equal(stats_of(kit, space).rows, 1);
	kx_kit_verify(kit);
	kx_index_hits_done(&hits);
}

static void all_or_nothing(void **state)
{
	struct kx_kit_index *kit = *state;
	uint32_t space = open_space(kit, "a");
	float good[DIM] = {1, 2}, bad[DIM] = {NAN};
	struct kx_index_change changes[] = {
		{.space = space, .key = "a", .key_len = 1, .vector = good, .dim = DIM},
		{.space = space, .key = "b", .key_len = 1, .vector = bad, .dim = DIM},
	};

	assert_int_equal(kx_index_commit(kit->index, changes, 2, NULL), KX_EINVAL);
	assert_true(kx_index_is_empty(kit->index));
	kx_kit_verify(kit);
}

static void spaces_are_apart(void **state)
{
	struct kx_kit_index *kit = *state;
	uint32_t a = open_space(kit, "a"), b = open_space(kit, "b");

	put_many(kit, a, 0, 100);
	put_many(kit, b, 100, 200);
	assert_int_equal(nearest(kit, a, 50, NULL), 50);
	assert_int_not_equal(nearest(kit, b, 50, NULL), 50);
	assert_int_equal(kx_kit_put(kit, a, 50, NULL, 0, NULL), KX_OK);
	assert_int_equal(stats_of(kit, a).rows, 99);
	assert_int_equal(stats_of(kit, b).rows, 100);
	kx_kit_index_close(kit);
	assert_int_equal(open_space(kit, "b"), b);
	assert_int_equal(nearest(kit, b, 150, NULL), 150);
	kx_kit_verify(kit);
}

static void attributes_come_back(void **state)
{
	struct kx_kit_index *kit = *state;
	uint32_t space = open_space(kit, "a"), row;
	const float vector[DIM] = {3, 4};
	struct kx_index_change change = {.space = space, .key = "k\0ey", .key_len = 4, .vector = vector, .dim = DIM,
					 .attributes = "red", .attributes_len = 3};
	struct kx_buf out = {.max = 100};
	float back[DIM];

	assert_int_equal(kx_index_commit(kit->index, &change, 1, NULL), KX_OK);
	assert_int_equal(kx_index_get(kit->index, space, "k\0ey", 4, &row, back, &out, NULL), KX_OK);
	assert_string_equal(out.data, "red");
	assert_true(fabsf(back[0] - 0.6f) < 1e-3f && fabsf(back[1] - 0.8f) < 1e-3f);
	kx_buf_done(&out);
}

struct told {
	uint32_t puts, gone;
	struct kx_index_filter *filter;
};

static void row_changed(void *ctx, uint32_t space, uint32_t row, const void *key, size_t key_len,
			const void *attributes, size_t attributes_len)
{
	struct told *told = ctx;
	struct kx_index_hit hit = {.key = key, .key_len = key_len};

	(void)space;
	(void)attributes;
	(void)attributes_len;
	told->puts += key != NULL;
	told->gone += key == NULL;
	if (told->filter)
		assert_int_equal(kx_index_filter_set(told->filter, row, key && kx_kit_number(&hit) % 2 == 0), KX_OK);
}

static void filters_follow_the_rows(void **state)
{
	struct kx_kit_index *kit = *state;
	struct told told = {0};
	struct kx_index_hits hits = {0};
	struct kx_error error = {0};
	float vector[DIM];
	struct kx_index_query query = {.vector = vector, .dim = DIM, .k = 50, .recall = 1};
	uint32_t space;

	kit->options.row_changed = row_changed;
	kit->options.row_changed_ctx = &told;
	space = open_space(kit, "a");
	check(kx_index_filter_new(kit->index, space, NULL, 0, &told.filter, &error), &error);
	put_many(kit, space, 0, 300);
	assert_int_equal(kx_index_filter_matches(told.filter), 150);
	for (uint32_t i = 0; i < 100; i++)
		check(kx_kit_put(kit, space, i, NULL, 0, &error), &error);
	put_many(kit, space, 300, 400); /* take the rows that were freed */
	put_many(kit, space, 200, 210); /* again */
	assert_int_equal(kx_index_filter_matches(told.filter), 150);
	assert_int_equal(told.puts, 410);
	assert_int_equal(told.gone, 110);
	drain(kit);
	vector_of(250, vector);
	query.filter = told.filter;
	check(kx_index_search(kit->index, space, &query, &hits, &error), &error);
	assert_int_equal(hits.count, 50);
	for (uint32_t i = 0; i < hits.count; i++)
		assert_true(kx_kit_number(&hits.list[i]) % 2 == 0);
	assert_int_equal(kx_kit_number(&hits.list[0]), 250);
	kx_index_hits_done(&hits);
	kx_index_filter_free(told.filter);
}

static void bulk_row(void *ctx, size_t i, struct kx_index_change *ret)
{
	static char key[16];

	(void)ctx;
	ret->key = key;
	ret->key_len = (size_t)snprintf(key, sizeof(key), "v%zu", i);
}

static void bulk_twice(void *ctx, size_t i, struct kx_index_change *ret)
{
	bulk_row(ctx, i == 700 ? 5 : i, ret);
}

static void builds_at_once(void **state)
{
	struct kx_kit_index *kit = *state;
	uint32_t space = open_space(kit, "a");
	struct kx_index_build build = {.space = space, .count = 1000, .row = bulk_twice};
	struct kx_error error = {0};
	float *vectors = malloc(1000 * DIM * sizeof(*vectors));

	assert_non_null(vectors);
	for (uint32_t i = 0; i < 1000; i++)
		vector_of(i, vectors + i * DIM);
	build.vectors = vectors;
	put_many(kit, space, 0, 30);
	assert_int_equal(kx_index_build(kit->index, &build, &error), KX_EEXIST);
	for (uint32_t i = 0; i < 30; i++)
		check(kx_kit_put(kit, space, i, NULL, 0, &error), &error);

	assert_int_equal(kx_index_build(kit->index, &build, &error), KX_EINVAL); /* a key twice */
	assert_true(kx_index_is_empty(kit->index));
	kx_kit_verify(kit);
	put_many(kit, space, 0, 1); /* and it goes on */
	check(kx_kit_put(kit, space, 0, NULL, 0, &error), &error);

	build.row = bulk_row;
	check(kx_index_build(kit->index, &build, &error), &error);
	assert_int_equal(stats_of(kit, space).rows, 1000);
	for (uint32_t i = 0; i < 1000; i += 111)
		assert_int_equal(nearest(kit, space, i, NULL), i);
	kx_kit_verify(kit);
	put_many(kit, space, 1000, 1050);
	kx_kit_index_close(kit);
	assert_int_equal(open_space(kit, "a"), space);
	drain(kit);
	assert_int_equal(stats_of(kit, space).rows, 1050);
	kx_kit_verify(kit);
	free(vectors);
}

struct stream {
	uint32_t at, end;
	float vector[DIM];
	char key[16];
	kx_status fails; /* in the place of the end */
};

static kx_status next_row(void *ctx, struct kx_index_change *ret, struct kx_error *error)
{
	struct stream *stream = ctx;

	if (stream->at == stream->end)
		return stream->fails == KX_ENOTFOUND ? KX_ENOTFOUND
						     : kx_error_set(error, stream->fails, KX_ERROR_FATAL, "no more");
	vector_of(stream->at, stream->vector);
	bulk_row(NULL, stream->at++, ret);
	ret->vector = stream->vector;
	ret->dim = DIM;
	return KX_OK;
}

static void builds_from_a_stream(void **state)
{
	struct kx_kit_index *kit = *state;
	uint32_t space = open_space(kit, "a");
	struct stream stream = {.fails = KX_ENOTFOUND};
	struct kx_index_build build = {.space = space, .count = 1000, .next = next_row, .row_ctx = &stream};
	struct kx_error error = {0};

	assert_int_equal(kx_index_build(kit->index, &build, &error), KX_ENOTFOUND);
	assert_true(kx_index_is_empty(kit->index));
	stream = (struct stream){.end = 500, .fails = KX_EIO};
	assert_int_equal(kx_index_build(kit->index, &build, &error), KX_EIO);
	assert_true(kx_index_is_empty(kit->index));
	stream = (struct stream){.end = 700, .fails = KX_ENOTFOUND}; /* fewer than were to come */
	check(kx_index_build(kit->index, &build, &error), &error);
	assert_int_equal(stats_of(kit, space).rows, 700);
	for (uint32_t i = 0; i < 700; i += 99)
		assert_int_equal(nearest(kit, space, i, NULL), i);
	kx_kit_verify(kit);
	for (uint32_t i = 0; i < 700; i++) /* before care has seen its keys */
		check(kx_kit_put(kit, space, i, NULL, 0, &error), &error);
	assert_true(kx_index_is_empty(kit->index));
	stream = (struct stream){.end = 300, .fails = KX_ENOTFOUND};
	check(kx_index_build(kit->index, &build, &error), &error);
	for (uint32_t i = 300; i < 400; i++)
		put_many(kit, space, i, i + 1);
	kx_kit_index_close(kit);
	assert_int_equal(open_space(kit, "a"), space);
	drain(kit);
	assert_int_equal(stats_of(kit, space).rows, 400);
	kx_kit_verify(kit);
}

static void reader_beside_a_writer(void **state)
{
	struct kx_kit_index *kit = *state;
	struct kx_kit_index reader = *kit;
	uint32_t space = open_space(kit, "a");
	struct kx_error error = {0};

	put_many(kit, space, 0, 200);
	drain(kit);
	put_many(kit, space, 200, 210);
	memcpy(reader.path, kit->path, sizeof(reader.path));
	memcpy(reader.dir, kit->dir, sizeof(reader.dir));
	reader.options = kit->options;
	reader.options.read_only = true;
	check(kx_kit_index_open(&reader, &error), &error);
	put_many(kit, space, 300, 310);
	for (uint32_t i = 0; i < 210; i += 13)
		assert_int_equal(nearest(&reader, space, i, NULL), i);
	assert_int_not_equal(nearest(&reader, space, 305, NULL), 305);
	assert_int_equal(kx_kit_put(&reader, space, 1, NULL, 0, &error), KX_EPERM);
	kx_kit_verify(&reader);
	kx_kit_index_close(&reader);
}

static uint32_t open_reader(const struct kx_kit_index *kit, struct kx_kit_index *reader)
{
	struct kx_error error = {0};
	uint32_t space;

	*reader = *kit;
	reader->options.read_only = true;
	check(kx_kit_index_open(reader, &error), &error);
	check(kx_index_find_space(reader->index, "a", &space, &error), &error);
	return space;
}

/* A reader uses the file that a writer left. One that changes it since is noticed: numbers of rows are used again, and
 * the reader still finds what was there when it opened. */
static void reader_of_a_writers_file(void **state)
{
	struct kx_kit_index *kit = *state;
	struct kx_kit_index reader;
	struct kx_error error = {0};
	uint32_t space = open_space(kit, "a");
	bool warm = false;

	put_many(kit, space, 0, 300);
	drain(kit);
	do { /* first of cells that are cold, then of some in memory */
		kx_kit_index_close(kit);
		space = open_reader(kit, &reader);
		for (uint32_t i = 0; i < 300; i += 7)
			assert_int_equal(nearest(&reader, space, i, NULL), i);
		if (warm)
			drain(&reader);
		kx_kit_verify(&reader);
		(void)open_space(kit, "a");
		for (uint32_t i = 0; i < 300; i += 7) /* nothing has changed yet */
			assert_int_equal(nearest(&reader, space, i, NULL), i);
		drain(kit);
		for (uint32_t i = 0; i < 300; i++)
			check(kx_kit_put(kit, space, i, NULL, 0, &error), &error);
		put_many(kit, space, 1000, 1300);
		for (uint32_t i = 0; i < 300; i += 7)
			assert_int_equal(nearest(&reader, space, i, NULL), i);
		drain(&reader);
		kx_kit_verify(&reader);
		for (uint32_t i = 0; i < 300; i += 7)
			assert_int_equal(nearest(&reader, space, i, NULL), i);
		kx_kit_index_close(&reader);
		for (uint32_t i = 1000; i < 1300; i++)
			check(kx_kit_put(kit, space, i, NULL, 0, &error), &error);
		put_many(kit, space, 0, 300);
		warm = !warm;
	} while (warm);
}

static void one_writer_at_a_time(void **state)
{
	struct kx_kit_index *kit = *state;
	struct kx_error error = {0};
	struct kx_kit_index second = *kit;
	int status;
	pid_t pid;

	(void)open_space(kit, "a");
	assert_int_equal(kx_kit_index_open(&second, &error), KX_EBUSY);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)execl("/proc/self/exe", "test_index", "--open", kit->folder, (char *)NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), -KX_EBUSY);
}

static void checkpoint_stands_alone(void **state)
{
	struct kx_kit_index *kit = *state;
	struct kx_kit_index copy;
	uint32_t space = open_space(kit, "a");
	struct kx_error error = {0};

	put_many(kit, space, 0, 300);
	drain(kit);
	kx_kit_index_init(&copy);
	copy.options = kit->options;
	check(kx_index_checkpoint(kit->index, copy.path, &error), &error);
	assert_int_equal(kx_index_checkpoint(kit->index, copy.path, &error), KX_EEXIST);
	put_many(kit, space, 300, 320);
	check(kx_kit_index_open(&copy, &error), &error);
	assert_int_equal(stats_of(&copy, space).rows, 300);
	for (uint32_t i = 0; i < 300; i += 17)
		assert_int_equal(nearest(&copy, space, i, NULL), i);
	drain(&copy);
	kx_kit_verify(&copy);
	kx_kit_index_close(&copy);

	/* The copy comes to stand beside the original's file, which is ahead of it by rows used anew: it must not be believed. */
	for (uint32_t i = 0; i < 20; i++)
		check(kx_kit_put(kit, space, i, NULL, 0, &error), &error);
	put_many(kit, space, 1000, 1020);
	kx_kit_index_close(kit);
	memcpy(copy.dir, kit->dir, sizeof(copy.dir));
	check(kx_kit_index_open(&copy, &error), &error);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(nearest(&copy, space, i, NULL), i);
	drain(&copy);
	kx_kit_verify(&copy);
	kx_kit_index_done(&copy);
}

static void older_store_opens(void **state)
{
	struct kx_kit_index *kit = *state;
	static const struct kx_kv_family other = {"other", false};
	const struct kx_kv_options options = {.families = &other, .family_count = 1, .create = true};
	struct kx_error error = {0};
	uint32_t space;

	check(kx_kv_open(kit->path, &options, &kit->kv, &error), &error);
	kx_kv_close(KX_STEAL(kit->kv));
	check(kx_kit_index_open(kit, &error), &error);
	assert_true(kx_index_is_empty(kit->index));
	assert_int_equal(kx_index_space_count(kit->index), 0);
	space = open_space(kit, "a");
	put_many(kit, space, 0, 5);
	assert_false(kx_index_is_empty(kit->index));
}

static void other_versions_are_refused(void **state)
{
	struct kx_kit_index *kit = *state;
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	struct kx_error error = {0};

	(void)open_space(kit, "a");
	assert_int_equal(kx_kv_batch_new(kit->kv, &batch), KX_OK);
	kx_kv_batch_put(batch, KX_KIT_FIRST, "f", 1, "\x02\0\0\0", 4);
	assert_int_equal(kx_kv_write(kit->kv, batch, true, NULL), KX_OK);
	kx_kv_batch_free(KX_STEAL(batch));
	kx_kit_index_close(kit);
	assert_int_equal(kx_kit_index_open(kit, &error), KX_EVERSION);
}

static void live_recall_steers(void **state)
{
	struct kx_kit_index *kit = *state;
	struct kx_index_hits hits = {0};
	struct kx_error error = {0};
	struct kx_index_stats stats;
	float vector[DIM];
	struct kx_index_query query = {.vector = vector, .dim = DIM, .k = 10, .recall = 0.9};
	uint32_t space;

	kit->options.recall_share = 1e9;
	kit->options.train_rows = 500;
	space = open_space(kit, "a");
	put_many(kit, space, 0, 600);
	drain(kit);
	for (uint32_t i = 0; i < 200; i++) {
		vector_of(10000 + i, vector);
		check(kx_index_search(kit->index, space, &query, &hits, &error), &error);
		drain(kit);
	}
	stats = stats_of(kit, space);
	assert_true(stats.recall_samples >= 150);
	assert_true(stats.recall >= 0.8 && stats.recall <= 1);
	assert_true(fabs(stats.recall_wanted - 0.9) < 1e-9);
	assert_int_equal(stats.recall_filtered_samples, 0);
	kx_index_hits_done(&hits);
}

#define LIVE 20000u
#define K 10u

/* Even numbers match; of the later ones a quarter is deleted. More than are compared one by one are left. */
static bool is_deleted(uint32_t number)
{
	return number >= 2000 && number % 8 == 2;
}

static bool may_be_found(uint32_t number, bool after)
{
	return number % 2 == 0 && !(after && is_deleted(number));
}

/* [LIVE][DIM] of unit length; the caller frees. */
static float *live_vectors(void)
{
	float *vectors = malloc((size_t)LIVE * DIM * sizeof(*vectors));

	assert_non_null(vectors);
	for (uint32_t i = 0; i < LIVE; i++) {
		float *vector = vectors + (size_t)i * DIM, squares = 0.0f;

		vector_of(i, vector);
		for (uint32_t d = 0; d < DIM; d++)
			squares += vector[d] * vector[d];
		for (uint32_t d = 0; d < DIM; d++)
			vector[d] /= sqrtf(squares);
	}
	return vectors;
}

static void delete_some(struct kx_kit_index *kit, uint32_t space)
{
	struct kx_index_change changes[LIVE / 8] = {0};
	static char keys[LIVE / 8][16];
	struct kx_error error = {0};
	size_t count = 0;

	for (uint32_t i = 0; i < LIVE; i++) {
		if (!is_deleted(i))
			continue;
		changes[count] = (struct kx_index_change){.space = space, .key = keys[count]};
		changes[count].key_len = (size_t)snprintf(keys[count], sizeof(keys[count]), "v%u", i);
		count++;
	}
	check(kx_index_commit(kit->index, changes, count, &error), &error);
}

static float dot(const float *a, const float *b)
{
	float sum = 0.0f;

	for (uint32_t d = 0; d < DIM; d++)
		sum += a[d] * b[d];
	return sum;
}

/* The share of the true nearest K that are among the hits: those that fewer than K are nearer than. */
static double share_of(const float *vectors, const float *vector, const struct kx_index_hits *hits, bool after)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < hits->count; i++) {
		uint32_t number = kx_kit_number(&hits->list[i]), nearer = 0;
		float score = dot(vector, vectors + (size_t)number * DIM);

		assert_true(may_be_found(number, after));
		for (uint32_t other = 0; other < LIVE && nearer < K; other++)
			nearer += may_be_found(other, after) && dot(vector, vectors + (size_t)other * DIM) > score;
		found += nearer < K;
	}
	return (double)found / K;
}

static void filter_follows(void *ctx, uint32_t space, uint32_t row, const void *key, size_t key_len, const void *attributes,
			   size_t attributes_len)
{
	struct kx_index_filter **filter = ctx;

	(void)space, (void)key_len, (void)attributes, (void)attributes_len;
	if (*filter && !key)
		assert_int_equal(kx_index_filter_set(*filter, row, false), KX_OK);
}

/* What is told of live recall under filters is what the queries had, also after a part of what they match was deleted. */
static void live_recall_under_filters_is_true(void **state)
{
	struct kx_kit_index *kit = *state;
	KX_CLEANUP(kx_cleanup_free) float *vectors = live_vectors();
	struct kx_index_filter *filter = NULL;
	struct kx_index_hits hits = {0};
	struct kx_error error = {0};
	struct kx_index_stats stats;
	float vector[DIM];
	struct kx_index_build build = {.count = LIVE, .vectors = vectors, .row = bulk_row};
	struct kx_index_query query = {.vector = vector, .dim = DIM, .k = K, .recall = 0.7};
	uint64_t bits[LIVE / 64 + 1] = {0};
	double shares = 0.0;
	uint32_t asked = 0;

	kit->options.recall_share = 1e9;
	kit->options.row_changed = filter_follows;
	kit->options.row_changed_ctx = &filter;
	build.space = open_space(kit, "a");
	check(kx_index_build(kit->index, &build, &error), &error);
	for (uint32_t i = 0; i < LIVE; i += 2) {
		char key[16];
		size_t len = (size_t)snprintf(key, sizeof(key), "v%u", i);
		uint32_t row;

		check(kx_index_get(kit->index, build.space, key, len, &row, NULL, NULL, &error), &error);
		assert_true(row < LIVE);
		bits[row / 64] |= UINT64_C(1) << (row % 64);
	}
	check(kx_index_filter_new(kit->index, build.space, bits, LIVE, &filter, &error), &error);
	drain(kit);
	for (uint32_t i = 0; i < 300; i++) {
		if (i == 100)
			delete_some(kit, build.space);
		vector_of(100000 + i, vector);
		query.filter = i % 4 ? filter : NULL;
		check(kx_index_search(kit->index, build.space, &query, &hits, &error), &error);
		drain(kit);
		shares += query.filter ? share_of(vectors, vector, &hits, i >= 100) : 0.0;
		asked += query.filter != NULL;
	}
	stats = stats_of(kit, build.space);
	assert_int_equal(stats.recall_filtered_samples, asked);
	assert_int_equal(stats.recall_samples, 300);
	if (fabs(stats.recall_filtered - shares / asked) > 0.01)
		fail_msg("%.4f is told, %.4f it was", stats.recall_filtered, shares / asked);
	assert_in_range((int)(1000.0 * shares / asked), 500, 990); /* else any number would do */
	kx_index_hits_done(&hits);
	kx_index_filter_free(filter);
}

/* A flipped bit in a cell's record: the cell is made again. The checksum of the store is right: it wrote the rot. */
static void rotten_cells_are_made_again(void **state)
{
	struct kx_kit_index *kit = *state;
	uint32_t space = open_space(kit, "a");
	struct kx_index_report report;
	struct kx_error error = {0};
	uint32_t rotten;

	put_many(kit, space, 0, 400);
	drain(kit);
	put_many(kit, space, 400, 410); /* in changes */
	rotten = kx_kit_rot_cells(kit);
	check(kx_index_verify(kit->index, &report, &error), &error);
	assert_true(report.faults > 0);
	kx_kit_index_close(kit);
	(void)open_space(kit, "a");
	for (uint32_t i = 0; i < 410; i += 7)
		assert_int_equal(nearest(kit, space, i, NULL), i);
	assert_true(stats_of(kit, space).repairs >= rotten / 3);
	drain(kit);
	kx_kit_verify(kit);
}

static int child_open(const char *folder)
{
	struct kx_kit_index kit = {.options = {.manual = true}};
	struct kx_error error = {0};
	kx_status status;

	(void)snprintf(kit.path, sizeof(kit.path), "%s/store", folder);
	(void)snprintf(kit.dir, sizeof(kit.dir), "%s/vectors", folder);
	status = kx_kit_index_open(&kit, &error);
	kx_kit_index_close(&kit);
	return -status;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(finds_what_was_put, setup, teardown),
		cmocka_unit_test_setup_teardown(keys_are_walked_by_prefix, setup, teardown),
		cmocka_unit_test_setup_teardown(cells_split_and_dissolve, setup, teardown),
		cmocka_unit_test_setup_teardown(copies_of_one_vector_split_too, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(all_or_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(spaces_are_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(attributes_come_back, setup, teardown),
		cmocka_unit_test_setup_teardown(filters_follow_the_rows, setup, teardown),
		cmocka_unit_test_setup_teardown(builds_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(builds_from_a_stream, setup, teardown),
		cmocka_unit_test_setup_teardown(reader_beside_a_writer, setup, teardown),
		cmocka_unit_test_setup_teardown(reader_of_a_writers_file, setup, teardown),
		cmocka_unit_test_setup_teardown(one_writer_at_a_time, setup, teardown),
		cmocka_unit_test_setup_teardown(checkpoint_stands_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(older_store_opens, setup, teardown),
		cmocka_unit_test_setup_teardown(other_versions_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(live_recall_steers, setup, teardown),
		cmocka_unit_test_setup_teardown(live_recall_under_filters_is_true, setup, teardown),
		cmocka_unit_test_setup_teardown(rotten_cells_are_made_again, setup, teardown),
	};

	if (argc == 3 && kx_str_eq(argv[1], "--open"))
		return child_open(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
