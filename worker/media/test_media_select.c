/* Plans over made-up groups against the definition, and what the headers of coded pictures say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/macros.h"
#include "worker/media/picture.h"
#include "worker/media/select.h"

static struct kx_select_group *group_of(size_t count, const int64_t *pts, const char *kinds)
{
	struct kx_select_group *group = calloc(1, sizeof(*group));
	assert_non_null(group);
	group->count = count;
	group->independent = kinds[0] == 'I';
	for (size_t i = 0; i < count; i++)
		group->packets[i] = (struct kx_select_packet){
			.pts_us = pts[i],
			.shown = kinds[i] != 'x',
			.droppable = kinds[i] == 'b',
			.params = kinds[i] == 'p',
		};
	return group;
}

static void test_grid(void **state)
{
	(void)state;
	struct kx_grid grid = {.fps = 1, .end_us = INT64_MAX};
	assert_int_equal(kx_grid_time(&grid, 3), 3000000);
	assert_int_equal(kx_grid_from(&grid, -5), 0);
	assert_int_equal(kx_grid_from(&grid, 3000000), 3);
	assert_int_equal(kx_grid_from(&grid, 3000001), 4);
	const double rates[] = {0.1, 1, 2.7, 23.976, 29.97, 30, 1000};
	for (size_t r = 0; r < sizeof(rates) / sizeof(rates[0]); r++) {
		grid.fps = rates[r];
		for (uint64_t k = 1; k < 100000; k += 37) {
			int64_t t = kx_grid_time(&grid, k);
			assert_int_equal(kx_grid_from(&grid, t), k);
			assert_int_equal(kx_grid_from(&grid, t + 1), k + 1);
			assert_int_equal(kx_grid_from(&grid, t - 1), k);
		}
	}
	grid = (struct kx_grid){.fps = 1, .end_us = 5000000};
	assert_true(kx_grid_wants(&grid, 4));
	assert_false(kx_grid_wants(&grid, 5));
}

static size_t kept(const struct kx_select_plan *plan)
{
	size_t count = 0;
	for (size_t i = 0; i < KX_ARRAY_LEN(plan->keep); i++)
		count += plan->keep[i];
	return count;
}

/* I0 P4 b1 b2 b3 P8 b5 b6 b7, 250 ms a frame. */
static const int64_t pts9[] = {0, 1000000, 250000, 500000, 750000, 2000000, 1250000, 1500000, 1750000};
static const int64_t pts_next[] = {2250000, 2500000};

static void test_plan(void **state)
{
	(void)state;
	struct kx_select_plan *plan = calloc(1, sizeof(*plan));
	struct kx_select_group *group = group_of(9, pts9, "IPbbbPbbb");
	struct kx_select_group *next = group_of(2, pts_next, "Ib");
	struct kx_grid grid = {.fps = 1, .end_us = INT64_MAX};
	assert_non_null(plan);
	kx_select_check(group, KX_NO_TIME, true);
	kx_select_check(next, 2000000, true);
	assert_true(group->usable && next->usable);
	/* Frames at 0, 1 and 2 s: all of them needed by others; no b. */
	kx_select_plan(group, next, &grid, 0, false, plan);
	const bool expected[9] = {1, 1, 0, 0, 0, 1, 0, 0, 0};
	assert_memory_equal(plan->keep, expected, sizeof(expected));
	assert_int_equal(kept(plan), 3);
	/* Only the one at 1 s is still wanted: nothing after it in decoding order. */
	grid.end_us = 1500000;
	kx_select_plan(group, next, &grid, 1, false, plan);
	assert_int_equal(kept(plan), 2);
	/* Nothing is: nothing is decoded, unless the next group leans on this one. */
	kx_select_plan(group, next, &grid, 2, false, plan);
	assert_int_equal(kept(plan), 0);
	kx_select_plan(group, next, &grid, 2, true, plan);
	assert_int_equal(kept(plan), 3);
	/* A grid point between two frames gets the earlier: 1.6 s, the b at 1.5 s. */
	grid = (struct kx_grid){.fps = 1 / 1.6, .end_us = 1700000};
	kx_select_plan(group, next, &grid, 1, false, plan);
	assert_true(plan->keep[7] && !plan->keep[6] && !plan->keep[8]);
	assert_int_equal(kx_select_expected(group, 1600000), 1500000);
	assert_int_equal(kx_select_expected(group, -1), KX_NO_TIME);
	free(group);
	free(next);
	free(plan);
}

/* Within a tolerance: the first picture of a group before all, then what has least decoded before it, then the nearest;
 * where nothing is near enough the one on screen. */
static void test_choice(void **state)
{
	(void)state;
	static const struct {
		int64_t t, tolerance_us, chosen;
	} cases[] = {
		{0, 1, 0},
		{250000, 300000, 0},        /* the first picture costs one */
		{250000, 100000, 250000},   /* out of its reach: only the b is left */
		{1000000, 300000, 1000000}, /* the P before the b at 0.75 s, which needs it */
		{900000, 50000, 750000},    /* nothing so near: on screen */
		{1800000, 260000, 2000000}, /* P before b again, though the b is nearer */
		{2200000, 300000, 2250000}, /* the next group's first picture */
		{2200000, 20000, 2000000},
		{2249999, 1, 2250000},
		{2400000, 1000, 2250000},   /* the next group's to choose: not before its start */
	};
	struct kx_select_group *group = group_of(9, pts9, "IPbbbPbbb");
	struct kx_select_group *next = group_of(2, pts_next, "Ib");
	struct kx_select_plan *plan = calloc(1, sizeof(*plan));
	assert_non_null(plan);
	kx_select_check(group, KX_NO_TIME, true);
	kx_select_check(next, 2000000, true);
	for (size_t i = 0; i < KX_ARRAY_LEN(cases); i++) {
		struct kx_grid grid = {.fps = 1, .end_us = INT64_MAX, .tolerance_us = cases[i].tolerance_us};
		assert_int_equal(kx_select_choice(group, next, &grid, cases[i].t), cases[i].chosen);
	}
	/* At the end of the file grid points after the last frame get none. */
	struct kx_grid grid = {.fps = 1, .end_us = INT64_MAX, .tolerance_us = 5000000};
	assert_int_equal(kx_select_choice(group, NULL, &grid, 2000000), 0);
	assert_int_equal(kx_select_choice(group, NULL, &grid, 2000001), KX_NO_TIME);
	/* 0 s and 1 s are the first picture's, 2 s is the next group's: one packet of nine. */
	grid.tolerance_us = 1000000;
	kx_select_plan(group, next, &grid, 0, false, plan);
	assert_int_equal(kept(plan), 1);
	assert_true(plan->keep[0]);
	free(group);
	free(next);
	free(plan);
}

/* Pictures that ask for another order of presentation, at times that only rise: these are not times of presentation. */
static void test_times_of_decoding(void **state)
{
	(void)state;
	const int64_t rising[] = {0, 40000, 80000, 120000};
	const int64_t real[] = {0, 80000, 40000, 120000};
	struct kx_select_group *group = group_of(4, rising, "IPbP");
	kx_select_check(group, KX_NO_TIME, true);
	assert_true(group->usable); /* not needed by others is not shown out of order */
	group->packets[2].reorders = true;
	kx_select_check(group, KX_NO_TIME, true);
	assert_false(group->usable);
	free(group);
	group = group_of(4, real, "IPbP");
	group->packets[2].reorders = true;
	kx_select_check(group, KX_NO_TIME, true);
	assert_true(group->usable);
	free(group);
}

/* First bytes of units that SVT-AV1 made, and of VP9 frames made up by the specification. */
static void test_av1_and_vp9(void **state)
{
	(void)state;
	static const uint8_t config[] = {0x81, 0x00, 0x0c, 0x00, 0x0a, 0x0a, 0x00, 0x00, 0x00, 0x03, 0xb4, 0xff, 0x70, 0x0b, 0xe0, 0x01};
	static const uint8_t leaf[] = {0x32, 0x08, 0x32, 0x03, 0x00, 0x0d, 0xb6, 0xb6, 0x95, 0x23};
	static const uint8_t again[] = {0x1a, 0x01, 0xe8};
	static const uint8_t cut[] = {0x32, 0x7f, 0x32};
	struct kx_picture_parser parser;
	kx_picture_parser_init(&parser, KX_PICTURE_AV1, config, sizeof(config));
	struct kx_picture picture = kx_picture_parse(&parser, leaf, sizeof(leaf), false);
	assert_true(picture.known && picture.droppable && !picture.starts);
	picture = kx_picture_parse(&parser, again, sizeof(again), false);
	assert_true(picture.known && !picture.droppable && !picture.starts);
	assert_false(kx_picture_parse(&parser, cut, sizeof(cut), false).known);
	kx_picture_parser_init(&parser, KX_PICTURE_AV1, NULL, 0);
	assert_false(kx_picture_parse(&parser, leaf, sizeof(leaf), false).known);

	static const uint8_t key[] = {0x82, 0x49, 0x83, 0x42, 0x00};
	static const uint8_t inter[] = {0x86, 0x00, 0x40, 0x92};
	static const uint8_t hidden[] = {0x84, 0x00, 0x40, 0x92};
	/* A hidden frame of three bytes, a shown one of two, and the index of both. */
	static const uint8_t both[] = {0x84, 0x00, 0x40, 0x86, 0x00, 0xc1, 3, 2, 0xc1};
	kx_picture_parser_init(&parser, KX_PICTURE_VP9, NULL, 0);
	picture = kx_picture_parse(&parser, key, sizeof(key), true);
	assert_true(picture.known && picture.starts && picture.independent && !picture.droppable);
	picture = kx_picture_parse(&parser, inter, sizeof(inter), false);
	assert_true(picture.known && !picture.starts && !picture.droppable);
	assert_false(kx_picture_parse(&parser, hidden, sizeof(hidden), false).known);
	picture = kx_picture_parse(&parser, both, sizeof(both), false);
	assert_true(picture.known && !picture.starts);
	assert_false(kx_picture_parse(&parser, key, 0, true).known);
}

/* For random groups: picking from the kept frames gives what picking from all gives. */
static void test_plan_random(void **state)
{
	(void)state;
	struct kx_select_plan *plan = calloc(1, sizeof(*plan));
	assert_non_null(plan);
	srand(7);
	for (int round = 0; round < 3000; round++) {
		int64_t pts[40];
		char kinds[41] = "I";
		size_t count = 1 + (size_t)(rand() % 40);
		for (size_t i = 0; i < count; i++)
			pts[i] = 40000 * (int64_t)i + rand() % 30000;
		for (size_t i = 1; i < count; i++) {
			size_t other = 1 + (size_t)rand() % i;
			int64_t swap = pts[i];
			pts[i] = pts[other];
			pts[other] = swap;
			kinds[i] = "Pbb"[rand() % 3];
		}
		int64_t after = 40000 * (int64_t)count + 5000;
		struct kx_select_group *group = group_of(count, pts, kinds);
		struct kx_select_group *next = group_of(1, &after, "I");
		struct kx_grid grid = {.fps = 0.5 + rand() % 40, .end_us = INT64_MAX};
		kx_select_check(group, KX_NO_TIME, true);
		kx_select_check(next, KX_NO_TIME, true);
		assert_true(group->usable);
		kx_select_plan(group, next, &grid, 0, false, plan);
		for (uint64_t k = 0; kx_grid_time(&grid, k) < after; k++) {
			int64_t t = kx_grid_time(&grid, k);
			int64_t of_all = KX_NO_TIME;
			int64_t of_kept = KX_NO_TIME;
			for (size_t i = 0; i < count; i++) {
				if (pts[i] <= t && pts[i] > of_all)
					of_all = pts[i];
				if (plan->keep[i] && pts[i] <= t && pts[i] > of_kept)
					of_kept = pts[i];
			}
			assert_int_equal(of_all, of_kept);
		}
		free(group);
		free(next);
	}
	free(plan);
}

static void test_needs(void **state)
{
	(void)state;
	/* Shown at 1.0 s, but two pictures of it are shown before that. */
	const int64_t pts[] = {1000000, 900000, 950000, 1100000};
	struct kx_select_group *group = group_of(4, pts, "KbbP");
	struct kx_grid grid = {.fps = 1, .end_us = INT64_MAX};
	kx_select_check(group, 850000, true);
	assert_true(group->usable);
	assert_false(kx_select_needs(group, &grid, 1)); /* nothing wanted in [0.9, 1.0) */
	grid.fps = 1 / 0.96;
	assert_true(kx_select_needs(group, &grid, 1));
	assert_false(kx_select_needs(group, &grid, 2));
	group->independent = true;
	assert_false(kx_select_needs(group, &grid, 1));
	free(group);
}

static void test_unusable(void **state)
{
	(void)state;
	const int64_t good[] = {0, 40000, 80000};
	const int64_t twice[] = {0, 40000, 40000};
	const int64_t none[] = {0, KX_NO_TIME, 80000};
	struct {
		const int64_t *pts;
		const char *kinds;
		int64_t after;
		bool known;
		bool usable;
	} cases[] = {
		{good, "IPP", -1, true, true},  {twice, "IPP", -1, true, false}, {none, "IPP", -1, true, false},
		{good, "IPP", 0, true, false},  {good, "IPP", -1, false, false}, {good, "IPp", -1, true, false},
		{twice, "IxP", -1, true, true}, {good, "xxx", -1, true, false},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kx_select_group *group = group_of(3, cases[i].pts, cases[i].kinds);
		kx_select_check(group, cases[i].after, cases[i].known);
		assert_int_equal(group->usable, cases[i].usable);
		free(group);
	}
}

static struct kx_picture parse(enum kx_picture_codec codec, const char *bytes, size_t len)
{
	struct kx_picture_parser parser;
	kx_picture_parser_init(&parser, codec, NULL, 0);
	return kx_picture_parse(&parser, (const uint8_t *)bytes, len, true);
}

static void test_pictures(void **state)
{
	(void)state;
	struct kx_picture p = parse(KX_PICTURE_H264, "\0\0\0\1\x67\x42\0\0\1\x68\1\0\0\1\x65\x88\x80", 17);
	assert_true(p.known && p.starts && p.independent && p.params && !p.droppable);
	p = parse(KX_PICTURE_H264, "\0\0\0\1\x01\x9e\x80", 7);
	assert_true(p.known && p.droppable && !p.starts);
	p = parse(KX_PICTURE_H264, "\0\0\0\1\x05\x88\x80", 7); /* IDR, said to be no reference */
	assert_true(p.known && p.starts && !p.droppable);
	p = parse(KX_PICTURE_H264, "\0\0\0\1\x41\x9e\x80", 7);
	assert_true(p.known && !p.droppable);
	p = parse(KX_PICTURE_HEVC, "\0\0\1\x2a\x01\xaf", 6); /* CRA */
	assert_true(p.known && p.starts && !p.independent);
	p = parse(KX_PICTURE_HEVC, "\0\0\1\x00\x02\xaf", 6); /* TRAIL_N, layer 1 */
	assert_true(p.known && p.droppable && p.layer == 1);
	p = parse(KX_PICTURE_MPEG2, "\0\0\1\xb3\x14\0\0\1\0\0\x0f\xff", 12);
	assert_true(p.known && p.starts && !p.independent);
	p = parse(KX_PICTURE_MPEG2, "\0\0\1\0\0\x1f\xff", 7);
	assert_true(p.known && p.droppable);
	p = parse(KX_PICTURE_MPEG4, "\0\0\1\xb6\x80", 5);
	assert_true(p.known && p.droppable);
	p = parse(KX_PICTURE_MPEG4, "\0\0\1\xb6\x40\0\0\1\xb6\x80", 10); /* packed: two in one */
	assert_false(p.known);
	assert_false(parse(KX_PICTURE_H264, "", 0).known);
	assert_false(parse(KX_PICTURE_HEVC, "\0\0\1\x2a", 4).known);
	/* Lengths before units, one of which reaches past the end. */
	struct kx_picture_parser parser;
	kx_picture_parser_init(&parser, KX_PICTURE_H264, (const uint8_t *)"\1\x64\0\x1f\xff\xe1\0", 7);
	assert_int_equal(parser.length_size, 4);
	assert_true(kx_picture_parse(&parser, (const uint8_t *)"\0\0\0\2\x65\x88", 6, true).independent);
	assert_false(kx_picture_parse(&parser, (const uint8_t *)"\0\0\0\3\x65\x88", 6, true).known);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grid),  cmocka_unit_test(test_plan),
		cmocka_unit_test(test_choice),
		cmocka_unit_test(test_times_of_decoding),
		cmocka_unit_test(test_av1_and_vp9),     cmocka_unit_test(test_plan_random),
		cmocka_unit_test(test_needs), cmocka_unit_test(test_unusable), cmocka_unit_test(test_pictures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
