/* Filters against columns: what matches, bitmaps as row by row, and the cache through changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/str.h"
#include "common/base/testkit.h"
#include "shard/query/filter_cache.h"

#define NOW 1795748520.0 /* 2026-11-27T03:02:00Z */
#define ROWS 300u

static const char *const class_names[] = {"cat", "dog", "bird", "soccer ball"};

/* Everything a record may say, from a number. */
struct made {
	struct kx_video_record record;
	char id[32], title[32], source[48];
	char *labels[2];
	uint32_t ids[2][2];
	float scores[2][2];
	struct kx_attribute attributes[3];
	float embedding[2];
};

static void make(struct made *made, uint64_t seed, uint32_t row)
{
	static char *const labels[] = {"cat", "Dog", "a bird"};
	static char *const languages[] = {"", "en", "DE", "fr"};
	uint64_t random = seed * 977u + 1;
	uint64_t r = kx_test_random(&random);

	memset(made, 0, sizeof(*made));
	snprintf(made->id, sizeof(made->id), "v/%03u.mp4", row);
	snprintf(made->title, sizeof(made->title), "%s", r % 3 ? (r % 2 ? "The Big Game" : "a walk") : "");
	snprintf(made->source, sizeof(made->source), "/%s/%03u.mp4", r % 2 ? "films" : "news", row);
	made->labels[0] = labels[r / 8 % 3];
	made->labels[1] = labels[r / 32 % 3];
	made->record = (struct kx_video_record){
		.generation = 1,
		.stored_at_ms = (uint64_t)(1795748520000.0 - (double)(r / 64 % 30) * 86400000.0),
		.info = {.title = made->title, .source = made->source, .labels = made->labels, .label_count = (uint32_t)(r / 128 % 3),
			 .width = r / 512 % 2 ? 1920 : 0, .height = 1080,
			 .extras = {.language = languages[r / 1024 % 4], .visibility = r / 4096 % 2 ? "public" : "private",
				    .attributes = made->attributes}},
		.result = {.video_id = made->id, .duration_us = (r / 8192 % 40) * 30000000u}};
	if (r / 65536 % 2)
		made->attributes[made->record.info.extras.attribute_count++] =
			(struct kx_attribute){.name = "live", .type = KX_ATTRIBUTE_BOOL, .flag = r / 131072 % 2};
	if (r / 262144 % 3)
		made->attributes[made->record.info.extras.attribute_count++] =
			(struct kx_attribute){.name = "season", .type = KX_ATTRIBUTE_NUMBER, .number = (double)(r / 524288 % 9)};
	if (r / 1048576 % 2)
		made->attributes[made->record.info.extras.attribute_count++] =
			(struct kx_attribute){.name = "team", .type = KX_ATTRIBUTE_TEXT, .text = labels[r / 2097152 % 3]};
	for (uint64_t m = 0; m < 1 + r / 4194304 % 2; m++) {
		for (uint64_t c = 0; c < 2; c++) {
			made->ids[m][c] = (uint32_t)(kx_test_random(&random) % 4);
			made->scores[m][c] = (float)(kx_test_random(&random) % 100) / 100.0f;
		}
		made->record.result.modalities[made->record.result.modality_count++] = (struct kx_modality_result){
			.modality = (enum kx_modality)(m + KX_VISUAL), .class_count = 2, .class_ids = made->ids[m],
			.class_scores = made->scores[m], .dim = 2, .embedding = made->embedding};
	}
}

static int set_up(void **state)
{
	struct kx_columns *columns = NULL;

	assert_int_equal(kx_columns_new(&columns), KX_OK);
	assert_int_equal(kx_attributes_set_classes(columns->attributes, &(struct kx_class_names){KX_VISUAL, 4, class_names}), KX_OK);
	for (uint32_t row = 0; row < ROWS; row++) {
		struct made made;

		make(&made, row, row);
		assert_int_equal(kx_columns_put(columns, row, &made.record), KX_OK);
	}
	*state = columns;
	return 0;
}

static int tear_down(void **state)
{
	kx_columns_free(*state);
	return 0;
}

static struct kx_filter *parse(const struct kx_columns *columns, const char *text)
{
	struct kx_filter *filter = NULL;
	struct kx_error error = {0};

	if (kx_filter_parse(text, columns->attributes, NOW, &filter, NULL, &error))
		fail_msg("%s: %s", text, error.message);
	return filter;
}

static const char *const clauses[] = {
	"label:CAT", "label != cat", "label in (cat, \"A Bird\")", "label ~ bir", "language = EN", "lang != en", "lang in (de,fr)",
	"visibility:public", "title ~ game", "title = \"the big game\"", "title > b", "source:/films/", "source:*/0?1.mp4",
	"source ~ news", "id = v/017.mp4", "id in (v/001.mp4, v/002.mp4, nowhere)", "id < v/100.mp4", "duration < 600",
	"duration >= 5m", "duration != 30", "duration in (30, 1m, 90)", "added > now-7d", "added = 2026-11-20", "added <= 2026-11-20",
	"added != 2026-11-20", "width = 1920", "width != 1920", "height > 700", "live = true", "live = false", "live != true",
	"season > 3", "season <= 3", "season = 4", "season != 4", "season in (1,8)", "team:dog", "team != dog", "team ~ at",
	"class:cat", "class:cat > 0.5", "class:cat < 0.5", "class:#1 >= 0.25", "class:audio#1 > 0.1", "class:dog != 0",
	"class:dog = 0", "class:bird <= 0", "has:audio", "has:visual", "audio = false", "has:label", "has:class", "has:title",
	"has:language", "has:season", "has:team", "has:width", "has:duplicate_of",
};

static void assert_as_row_by_row(const struct kx_columns *columns, const struct kx_filter *filter,
				 const struct kx_bitmap *rows)
{
	for (uint32_t row = 0; row < columns->live.rows; row++) {
		bool matches = false;

		if (kx_bitmap_has(&columns->live, row))
			assert_int_equal(kx_filter_matches(filter->root, columns, row, &matches), KX_OK);
		if (kx_bitmap_has(rows, row) != matches)
			fail_msg("%s: row %u", filter->canonical, row);
	}
}

static uint64_t count(const struct kx_columns *columns, const char *text)
{
	KX_CLEANUP(kx_filter_cleanup) struct kx_filter *filter = parse(columns, text);
	struct kx_bitmap rows = {0};
	uint64_t found;

	assert_int_equal(kx_filter_evaluate(filter, columns, &rows), KX_OK);
	assert_as_row_by_row(columns, filter, &rows);
	found = kx_bitmap_count(&rows);
	kx_bitmap_done(&rows);
	return found;
}

static void bitmaps_are_as_row_by_row(void **state)
{
	for (size_t i = 0; i < KX_ARRAY_LEN(clauses); i++) {
		KX_CLEANUP(kx_cleanup_free) char *negated = kx_strf("not %s", clauses[i]);
		uint64_t found = count(*state, clauses[i]);

		assert_int_equal(found + count(*state, negated), ROWS);
		if (strcmp(clauses[i], "has:duplicate_of") != 0 && found == 0)
			fail_msg("%s matches nothing: it shows nothing", clauses[i]);
	}
	assert_int_equal(count(*state, ""), ROWS);
}

static void combinations_are_as_row_by_row(void **state)
{
	uint64_t random = kx_test_seed();

	for (int i = 0; i < 2000; i++) {
		const char *a = clauses[kx_test_below(&random, KX_ARRAY_LEN(clauses))];
		const char *b = clauses[kx_test_below(&random, KX_ARRAY_LEN(clauses))];
		const char *c = clauses[kx_test_below(&random, KX_ARRAY_LEN(clauses))];
		char text[512];

		switch (i % 4) {
		case 0:
			snprintf(text, sizeof(text), "%s and (%s or not %s)", a, b, c);
			break;
		case 1:
			snprintf(text, sizeof(text), "not (%s or %s) and %s", a, b, c);
			break;
		case 2:
			snprintf(text, sizeof(text), "%s or %s and %s", a, b, c);
			break;
		default:
			snprintf(text, sizeof(text), "not (%s and %s and not %s)", a, b, c);
		}
		(void)count(*state, text);
	}
}

/* What the words mean, on one record that is known. */
static void meanings(void **state)
{
	struct kx_columns *columns = *state;
	char *labels[] = {"Ice Hockey"};
	uint32_t id = 2;
	float score = 0.5f;
	struct kx_attribute season = {.name = "season", .type = KX_ATTRIBUTE_TEXT, .text = "three"};
	struct kx_video_record record = {
		.stored_at_ms = 1795737600000, /* 2026-11-27T00:00:00Z */
		.info = {.title = "", .source = "/a/b*c.mp4", .labels = labels, .label_count = 1,
			 .extras = {.attributes = &season, .attribute_count = 1}},
		.result = {.video_id = "known", .duration_us = 600000000, .modality_count = 1,
			   .modalities = {{.modality = KX_VISUAL, .class_count = 1, .class_ids = &id, .class_scores = &score}}}};

	for (uint32_t row = 0; row < ROWS; row++)
		kx_columns_remove(columns, row);
	assert_int_equal(columns->words.used, 0); /* all were given back */
	assert_int_equal(kx_columns_put(columns, 5, &record), KX_OK);
	assert_int_equal(count(columns, "label:\"ice hockey\" and duration=10m and id:known"), 1);
	assert_int_equal(count(columns, "duration<600 or duration>600"), 0);
	assert_int_equal(count(columns, "added=2026-11-27 and added>=2026-11-27 and added<=2026-11-27"), 1);
	assert_int_equal(count(columns, "added>2026-11-27 or added<2026-11-27"), 0);
	assert_int_equal(count(columns, "added>2026-11-26 and added<2026-11-28"), 1);
	assert_int_equal(count(columns, "source:\"/a/b\\\\*c.mp4\""), 1);
	assert_int_equal(count(columns, "source:/a and source=/a/b*c.mp4"), 1);
	assert_int_equal(count(columns, "source=/a"), 0);
	assert_int_equal(count(columns, "class:bird=0.5 and class:cat=0 and class:cat<0.1"), 1);
	assert_int_equal(count(columns, "title=x or title<x or has:title"), 0);
	assert_int_equal(count(columns, "title!=x and not title=x"), 1);
	assert_int_equal(count(columns, "season=3 or has:season"), 0); /* of another type than it has elsewhere */
	assert_int_equal(count(columns, "audio=false and visual=true and audio!=true"), 1);
	assert_int_equal(kx_columns_set_duplicate_of(columns, 5, "other"), KX_OK);
	assert_int_equal(count(columns, "duplicate_of:other"), 1);
}

static void the_cache_follows_changes(void **state)
{
	struct kx_columns *columns = *state;
	struct kx_filter_cache *cache = NULL;
	struct kx_filter_cache_stats stats;
	uint64_t random = kx_test_seed();
	const struct kx_filter_entry *entry;

	assert_int_equal(kx_filter_cache_new(8, 1 << 20, &cache), KX_OK);
	for (int i = 0; i < 1000; i++) {
		uint32_t row = (uint32_t)kx_test_below(&random, 2 * ROWS);
		struct made made;

		make(&made, kx_test_random(&random), row);
		if (kx_test_below(&random, 3))
			assert_int_equal(kx_columns_put(columns, row, &made.record), KX_OK);
		else
			kx_columns_remove(columns, row);
		kx_filter_cache_changed(cache, columns, row);
		assert_int_equal(kx_filter_cache_get(cache, parse(columns, clauses[kx_test_below(&random, 10)]), columns, &entry),
				 KX_OK);
		assert_as_row_by_row(columns, entry->filter, &entry->rows);
		assert_int_equal(entry->count, kx_bitmap_count(&entry->rows));
		kx_filter_cache_release(cache, entry);
	}
	kx_filter_cache_stats(cache, &stats);
	assert_int_equal(stats.count, 8);
	assert_int_equal(stats.hits + stats.misses, 1000);
	assert_true(stats.hits > 500 && stats.misses > 10);
	kx_filter_cache_free(cache);
}

static void the_cache_is_bounded(void **state)
{
	struct kx_filter_cache *small = NULL, *none = NULL;
	struct kx_filter_cache_stats stats;
	const struct kx_filter_entry *entry, *held;

	assert_int_equal(kx_filter_cache_new(100, 2000, &small), KX_OK);
	assert_int_equal(kx_filter_cache_get(small, parse(*state, "label:cat"), *state, &held), KX_OK);
	for (size_t i = 0; i < KX_ARRAY_LEN(clauses); i++) {
		assert_int_equal(kx_filter_cache_get(small, parse(*state, clauses[i]), *state, &entry), KX_OK);
		kx_filter_cache_release(small, entry);
		kx_filter_cache_stats(small, &stats);
		assert_true(stats.bytes <= 2000 && stats.count >= 1);
	}
	assert_string_equal(held->filter->canonical, "label = cat"); /* pushed out, and still good */
	kx_filter_cache_release(small, held);
	kx_filter_cache_free(small);
	assert_int_equal(kx_filter_cache_new(0, 0, &none), KX_OK);
	assert_int_equal(kx_filter_cache_get(none, parse(*state, "label:cat"), *state, &entry), KX_OK);
	kx_filter_cache_release(none, entry);
	kx_filter_cache_free(none);
}

static void the_schema_tells_what_is_there(void **state)
{
	struct kx_query_reply *reply = calloc(1, sizeof(*reply));
	const char *last = "";
	bool season = false, label = false, class = false;

	assert_non_null(reply);
	assert_int_equal(kx_columns_schema(*state, reply), KX_OK);
	assert_int_equal(reply->attribute_count, KX_BUILTIN_COUNT + 3);
	for (uint32_t i = 0; i < reply->attribute_count; i++) {
		const struct kx_attribute_info *info = &reply->attributes[i];

		assert_true(strcmp(last, info->name) < 0);
		last = info->name;
		if (strcmp(info->name, "season") == 0) {
			season = info->user && info->type == KX_ATTRIBUTE_NUMBER && info->has_range && info->min == 0.0 &&
				 info->max == 8.0 && info->videos == count(*state, "has:season");
		} else if (strcmp(info->name, "label") == 0) {
			label = !info->user && info->distinct == 3 && info->value_count == 3 &&
				info->videos == count(*state, "has:label") && info->values[0].videos >= info->values[1].videos;
		} else if (strcmp(info->name, "class") == 0) {
			class = info->distinct == 8 && info->values[0].videos >= info->values[7].videos;
		}
	}
	assert_true(season && label && class);
	kx_query_reply_free(reply);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(bitmaps_are_as_row_by_row),
		TEST(combinations_are_as_row_by_row),
		TEST(meanings),
		TEST(the_cache_follows_changes),
		TEST(the_cache_is_bounded),
		TEST(the_schema_tells_what_is_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
