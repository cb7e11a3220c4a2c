/* Who refers to whom: headers of AV1 and HEVC as encoders and the standards write them, links over made-up groups, and
 * plans over them against the definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/macros.h"
#include "worker/media/links.h"

/* ---- AV1 ---- */

/* Of SVT-AV1: its sequence, a frame that nobody needs, and one that is shown again. */
static const uint8_t config[] = {0x81, 0x00, 0x0c, 0x00, 0x0a, 0x0a, 0x00, 0x00, 0x00, 0x03, 0xb4, 0xff, 0x70, 0x0b, 0xe0, 0x01};
static const uint8_t leaf_and_again[] = {0x32, 0x08, 0x32, 0x03, 0x00, 0x0d, 0xb6, 0xb6, 0x95, 0x23, 0x1a, 0x01, 0xe8};
#define LEAF_BYTES 10u

static void test_av1_frames(void **state)
{
	(void)state;
	struct kx_av1_sequence sequence;
	kx_av1_sequence_init(&sequence, config, sizeof(config));
	struct kx_av1_unit unit = kx_av1_unit_read(&sequence, leaf_and_again, sizeof(leaf_and_again));
	assert_false(unit.bad);
	assert_int_equal(unit.frames, 2);
	const uint8_t refs[KX_AV1_REFS] = {6, 6, 6, 6, 5, 5, 5};
	assert_true(unit.frame[0].shown && !unit.frame[0].again && !unit.frame[0].odd);
	assert_int_equal(unit.frame[0].fills, 0);
	assert_int_equal(unit.frame[0].ref_count, KX_AV1_REFS);
	assert_memory_equal(unit.frame[0].refs, refs, sizeof(refs));
	assert_true(unit.frame[1].shown && unit.frame[1].again);
	assert_int_equal(unit.frame[1].refs[0], 6);
}

static void test_av1_strip(void **state)
{
	(void)state;
	uint8_t out[sizeof(leaf_and_again)];
	const bool second[] = {false, true};
	const bool first[] = {true, false};
	assert_int_equal(kx_av1_unit_strip(leaf_and_again, sizeof(out), second, 2, out), sizeof(out) - LEAF_BYTES);
	assert_memory_equal(out, leaf_and_again + LEAF_BYTES, sizeof(out) - LEAF_BYTES);
	assert_int_equal(kx_av1_unit_strip(leaf_and_again, sizeof(out), first, 2, out), LEAF_BYTES);
	assert_memory_equal(out, leaf_and_again, LEAF_BYTES);
}

static struct kx_av1_unit one(struct kx_av1_frame frame)
{
	return (struct kx_av1_unit){.frames = 1, .shown = frame.shown, .frame = {frame}};
}

static void test_av1_links(void **state)
{
	(void)state;
	struct kx_links *links = calloc(1, sizeof(*links));
	struct kx_select_group *group = calloc(1, sizeof(*group));
	assert_true(links && group);
	struct kx_av1_unit key = one((struct kx_av1_frame){.shown = true, .key = true, .fills = 0xff});
	struct kx_av1_unit to_3 = one((struct kx_av1_frame){.fills = 8, .ref_count = 2, .refs = {0, 3}});
	struct kx_av1_unit of_3 = one((struct kx_av1_frame){.shown = true, .again = true, .ref_count = 1, .refs = {3}});
	kx_links_add_unit(links, &key, 0, group);
	kx_links_add_unit(links, &to_3, 1, group);
	kx_links_add_unit(links, &to_3, 2, group);
	kx_links_add_unit(links, &of_3, 3, group);
	assert_true(group->linked);
	assert_int_equal(group->unit_count, 4);
	assert_int_equal(group->units[1].refs[1], 0);
	assert_int_equal(group->units[2].refs[0], 0);
	assert_int_equal(group->units[2].refs[1], 1);
	assert_int_equal(group->units[3].refs[0], 2);
	/* The key frame shown once more would be a new start. */
	of_3.frame[0].refs[0] = 0;
	kx_links_add_unit(links, &of_3, 4, group);
	assert_false(group->linked);
	/* And once lost, it stays so until the next group. */
	kx_links_add_unit(links, &to_3, 5, group);
	assert_false(group->linked);
	kx_links_add_unit(links, &key, 0, group);
	assert_true(group->linked);
	to_3.frame[0].odd = true;
	kx_links_add_unit(links, &to_3, 1, group);
	assert_false(group->linked);
	/* A group that starts with anything else has references from before. */
	to_3.frame[0].odd = false;
	kx_links_add_unit(links, &to_3, 0, group);
	assert_false(group->linked);
	free(links);
	free(group);
}

/* ---- HEVC ---- */

struct writer {
	uint8_t bytes[600];
	size_t at; /* bits */
};

static void put(struct writer *writer, unsigned value, unsigned count)
{
	for (unsigned i = count; i-- > 0; writer->at++) {
		assert_true(writer->at / 8 < sizeof(writer->bytes));
		if (value >> i & 1u)
			writer->bytes[writer->at / 8] |= (uint8_t)(0x80u >> writer->at % 8);
	}
}

static void put_golomb(struct writer *writer, unsigned value)
{
	unsigned bits = 0;
	while ((value + 1) >> (bits + 1))
		bits++;
	put(writer, 0, bits);
	put(writer, value + 1, bits + 1);
}

static void put_golombs(struct writer *writer, const unsigned *values, size_t count)
{
	for (size_t i = 0; i < count; i++)
		put_golomb(writer, values[i]);
}

/* Two negative, one positive, as an explicit set says it; and one derived from it. */
struct sets {
	unsigned steps[3];
	int shift;
	bool used[4];
	bool taken[4];
};

static void put_sets(struct writer *writer, const struct sets *sets)
{
	put_golomb(writer, 2);
	put_golomb(writer, 2);
	put_golomb(writer, 1);
	for (unsigned i = 0; i < 3; i++) {
		put_golomb(writer, sets->steps[i] - 1);
		put(writer, 1, 1);
	}
	put(writer, 1, 1);
	put(writer, sets->shift < 0, 1);
	put_golomb(writer, (unsigned)abs(sets->shift) - 1);
	for (unsigned i = 0; i < 4; i++) {
		put(writer, sets->used[i], 1);
		if (!sets->used[i])
			put(writer, sets->taken[i], 1);
	}
}

static void put_sps(struct writer *writer, const struct sets *sets)
{
	const unsigned size[] = {0, 1, 320, 240};
	const unsigned depths[] = {0, 0, 4};
	const unsigned blocks[] = {4, 2, 0, 0, 3, 0, 3, 0, 0};
	put(writer, 0x4201, 16);
	put(writer, 0, 4 + 3 + 1);
	put(writer, 1, 8); /* profile: Main */
	put(writer, 0x60000000, 32);
	put(writer, 0, 32);
	put(writer, 0, 16);
	put(writer, 93, 8);
	put_golombs(writer, size, KX_ARRAY_LEN(size));
	put(writer, 0, 1);
	put_golombs(writer, depths, KX_ARRAY_LEN(depths));
	put(writer, 1, 1);
	put_golombs(writer, blocks, KX_ARRAY_LEN(blocks));
	put(writer, 0, 1); /* scaling lists */
	put(writer, 3, 2); /* amp, sao */
	put(writer, 0, 1); /* pcm */
	put_sets(writer, sets);
	put(writer, 0, 1); /* long-term */
	put(writer, 1, 1); /* temporal mvp */
	put(writer, 1, 8);
}

static void put_pps(struct writer *writer)
{
	put(writer, 0x4401, 16);
	put_golomb(writer, 0);
	put_golomb(writer, 0);
	put(writer, 0, 1 + 1 + 3 + 1 + 1);
	put_golomb(writer, 0); /* one reference a list */
	put_golomb(writer, 0);
	put_golomb(writer, 0);
	put(writer, 0, 3);
	put_golomb(writer, 0);
	put_golomb(writer, 0);
	put(writer, 0, 4 + 2 + 1 + 1); /* no tiles, no deblocking control */
	put(writer, 0, 2);
	put(writer, 1, 8);
}

/* The unit as it stands in a stream: with a 3 after two zeros where a small byte follows. */
static size_t escape(const struct writer *writer, uint8_t *ret)
{
	size_t len = 0;
	unsigned zeros = 0;
	for (size_t i = 0; i < (writer->at + 7) / 8; i++) {
		if (zeros >= 2 && writer->bytes[i] <= 3) {
			ret[len++] = 3;
			zeros = 0;
		}
		zeros = writer->bytes[i] ? 0 : zeros + 1;
		ret[len++] = writer->bytes[i];
	}
	return len;
}

static size_t put_unit(uint8_t *to, const struct writer *unit, unsigned length_size)
{
	size_t len = escape(unit, to + length_size);
	for (unsigned i = 0; i < length_size; i++)
		to[i] = (uint8_t)(len >> 8 * (length_size - 1 - i));
	return length_size + len;
}

static struct kx_hevc_params *params_of(const struct sets *sets)
{
	struct kx_hevc_params *params = calloc(1, sizeof(*params));
	uint8_t record[2000] = {1};
	struct writer sps = {0};
	struct writer pps = {0};
	size_t at = 23;
	assert_non_null(params);
	put_sps(&sps, sets);
	put_pps(&pps);
	record[22] = 2;
	memcpy(record + at, "\x21\0\1", 3);
	at += 3 + put_unit(record + at + 3, &sps, 2);
	memcpy(record + at, "\x22\0\1", 3);
	at += 3 + put_unit(record + at + 3, &pps, 2);
	kx_hevc_params_init(params, record, at);
	return params;
}

/* A slice that takes set 1 of the parameters and has lists of so many. lists 0: as the parameters say. */
static struct kx_hevc_picture slice_of(const struct kx_hevc_params *params, unsigned type, unsigned lists, unsigned lsb)
{
	struct writer slice = {0};
	uint8_t packet[100];
	put(&slice, 0x0201, 16); /* TRAIL_R */
	put(&slice, 1, 1);
	put_golomb(&slice, 0);
	put_golomb(&slice, type);
	put(&slice, lsb, 8);
	put(&slice, 1, 1);
	put(&slice, 1, 1);
	put(&slice, 1 + 2, 3); /* temporal mvp, sao */
	put(&slice, lists > 0, 1);
	for (unsigned i = 0; lists > 0 && i < (type == 0 ? 2 : 1); i++)
		put_golomb(&slice, lists - 1);
	put(&slice, 0xffff, 16);
	size_t len = put_unit(packet, &slice, 4);
	return kx_hevc_picture_read(params, packet, len, 4);
}

static int compare_nearest(const void *a, const void *b)
{
	int left = *(const int *)a;
	int right = *(const int *)b;
	/* Negative ones first, then by how far they are. */
	if ((left < 0) != (right < 0))
		return left < 0 ? -1 : 1;
	return abs(left) - abs(right);
}

/* What a derived set has used, by its definition: entries of the other and its own picture, moved, in order. */
static size_t defined(const struct sets *sets, int *ret)
{
	const int other[] = {-(int)sets->steps[0], -(int)(sets->steps[0] + sets->steps[1]), (int)sets->steps[2], 0};
	size_t count = 0;
	for (unsigned i = 0; i < 4; i++)
		if (sets->used[i] && other[i] + sets->shift != 0)
			ret[count++] = other[i] + sets->shift;
	qsort(ret, count, sizeof(*ret), compare_nearest);
	return count;
}

static void test_hevc_sets(void **state)
{
	(void)state;
	srand(11);
	for (int round = 0; round < 2000; round++) {
		struct sets sets = {.shift = (rand() % 2 ? 1 : -1) * (1 + rand() % 5)};
		int want[4];
		for (unsigned i = 0; i < 3; i++)
			sets.steps[i] = 1 + (unsigned)rand() % 4;
		for (unsigned i = 0; i < 4; i++) {
			sets.used[i] = rand() % 3 > 0;
			sets.taken[i] = rand() % 2;
		}
		struct kx_hevc_params *params = params_of(&sets);
		assert_true(params->known);
		struct kx_hevc_picture picture = slice_of(params, 1, 15, 7);
		size_t count = defined(&sets, want);
		assert_true(picture.known && picture.anchor && !picture.idr);
		assert_int_equal(picture.lsb, 7);
		assert_int_equal(picture.ref_count, count);
		for (size_t i = 0; i < count; i++)
			assert_int_equal(picture.refs[i], want[i]);
		free(params);
	}
}

static void test_hevc_lists(void **state)
{
	(void)state;
	/* -2, -4 and 3, moved by one: -1, -3, 1 (the picture itself) and 4. */
	struct sets sets = {.steps = {2, 2, 3}, .shift = 1, .used = {1, 1, 1, 1}};
	struct kx_hevc_params *params = params_of(&sets);
	struct kx_hevc_picture picture = slice_of(params, 1, 0, 9);
	assert_int_equal(picture.ref_count, 1);
	assert_int_equal(picture.refs[0], -1);
	picture = slice_of(params, 0, 0, 9);
	assert_int_equal(picture.ref_count, 2);
	assert_int_equal(picture.refs[0], -1);
	assert_int_equal(picture.refs[1], 1);
	picture = slice_of(params, 0, 2, 9);
	assert_int_equal(picture.ref_count, 4);
	picture = slice_of(params, 2, 0, 9);
	assert_true(picture.known);
	assert_int_equal(picture.ref_count, 0);
	params->known = false;
	assert_false(slice_of(params, 1, 0, 9).known);
	free(params);
}

static void test_hevc_refused(void **state)
{
	(void)state;
	struct sets sets = {.steps = {1, 1, 1}, .shift = 1};
	struct kx_hevc_params *params = params_of(&sets);
	struct kx_hevc_params none;
	static const uint8_t cut[] = {0, 0, 0, 9, 2, 1, 0xd0};
	static const uint8_t own_params[] = {0, 0, 0, 3, 0x42, 1, 1, 0, 0, 0, 3, 2, 1, 0xd0};
	assert_false(kx_hevc_picture_read(params, cut, sizeof(cut), 4).known);
	assert_false(kx_hevc_picture_read(params, own_params, sizeof(own_params), 4).known);
	assert_false(kx_hevc_picture_read(params, cut, 0, 4).known);
	kx_hevc_params_init(&none, cut, sizeof(cut));
	assert_false(none.known);
	free(params);
}

/* Headers with a few bits turned, and cut anywhere: whatever they say, under the sanitizers it is read within bounds. */
static void test_hevc_damaged(void **state)
{
	(void)state;
	struct kx_hevc_params *params = calloc(1, sizeof(*params));
	assert_non_null(params);
	srand(3);
	for (int round = 0; round < 20000; round++) {
		struct sets sets = {.steps = {1, 2, 3}, .shift = 1, .used = {1, 0, 1, 0}, .taken = {1, 1, 1, 1}};
		struct writer sps = {0};
		struct writer pps = {0};
		uint8_t record[400] = {1};
		put_sps(&sps, &sets);
		put_pps(&pps);
		record[22] = 2;
		memcpy(record + 23, "\x21\0\1", 3);
		size_t len = 26 + put_unit(record + 26, &sps, 2);
		memcpy(record + len, "\x22\0\1", 3);
		len += 3 + put_unit(record + len + 3, &pps, 2);
		for (int i = rand() % 6; i > 0; i--)
			record[28 + (size_t)rand() % (len - 28)] ^= (uint8_t)(1 << rand() % 8);
		kx_hevc_params_init(params, record, len - (size_t)(rand() % 3 ? 0 : rand() % 40));
		for (unsigned type = 0; type < 3; type++) {
			struct kx_hevc_picture picture = slice_of(params, type, (unsigned)rand() % 16, 9);
			assert_true(picture.ref_count <= KX_HEVC_REFS_MAX);
			assert_true(params->known || !picture.known);
		}
	}
	free(params);
}

static void test_hevc_links(void **state)
{
	(void)state;
	struct kx_links *links = calloc(1, sizeof(*links));
	struct kx_select_group *group = calloc(1, sizeof(*group));
	/* A clean random access picture of order 254 of 256, one shown before it, one after; orders go round. */
	const struct kx_hevc_picture pictures[] = {
		{.known = true, .anchor = true, .lsb = 254},
		{.known = true, .lsb = 252, .ref_count = 2, .refs = {-4, 2}},
		{.known = true, .anchor = true, .lsb = 2, .ref_count = 1, .refs = {-4}},
		{.known = true, .lsb = 0, .ref_count = 2, .refs = {-2, 2}},
		{.known = true, .lsb = 3, .ref_count = 1, .refs = {-2}},
	};
	assert_true(links && group);
	for (size_t i = 0; i < 4; i++)
		kx_links_add_picture(links, &pictures[i], 8, i, group);
	assert_true(group->linked);
	assert_int_equal(group->units[1].ref_count, 1);
	assert_int_equal(group->units[1].refs[0], 0);
	assert_int_equal(group->units[2].refs[0], 0);
	assert_int_equal(group->units[3].refs[0], 0);
	assert_int_equal(group->units[3].refs[1], 2);
	/* One shown after the first that needs what is not there. */
	kx_links_add_picture(links, &pictures[4], 8, 4, group);
	assert_false(group->linked);
	free(links);
	free(group);
}

/* ---- plans ---- */

/* By the definition: a frame is kept when it is wanted, or when a kept one refers to it; and the first. */
static void check_plan(const struct kx_select_group *group, const struct kx_grid *grid,
		       const struct kx_select_plan *plan)
{
	bool keep[40] = {true};
	for (uint64_t k = 0; kx_grid_time(grid, k) <= group->times[group->time_count - 1]; k++)
		for (size_t i = 0; i < group->count; i++)
			keep[i] |= group->packets[i].pts_us == kx_select_expected(group, kx_grid_time(grid, k));
	for (bool more = true; more;) {
		more = false;
		for (size_t i = 0; i < group->count; i++)
			for (unsigned r = 0; r < group->units[i].ref_count; r++) {
				more |= keep[i] && !keep[group->units[i].refs[r]];
				keep[group->units[i].refs[r]] |= keep[i];
			}
	}
	assert_memory_equal(plan->keep, keep, group->count * sizeof(keep[0]));
	assert_memory_equal(plan->keep_units, keep, group->count * sizeof(keep[0]));
}

static void test_linked_plans(void **state)
{
	(void)state;
	struct kx_select_plan *plan = calloc(1, sizeof(*plan));
	struct kx_select_group *group = calloc(1, sizeof(*group));
	assert_true(plan && group);
	srand(5);
	for (int round = 0; round < 3000; round++) {
		group->count = 1 + (size_t)(rand() % 40);
		group->unit_count = group->count;
		group->linked = true;
		for (size_t i = 0; i < group->count; i++) {
			group->packets[i] = (struct kx_select_packet){.pts_us = 40000 * (int64_t)i, .shown = true};
			group->units[i] = (struct kx_select_unit){.packet = (uint16_t)i, .shown = true};
			for (unsigned r = 0; i > 0 && r < 2; r++)
				group->units[i].refs[group->units[i].ref_count++] = (uint16_t)(rand() % (int)i);
		}
		for (size_t i = group->count; i-- > 2;) { /* another order of presentation; the first stays */
			size_t other = 1 + (size_t)rand() % i;
			struct kx_select_packet swap = group->packets[i];
			group->packets[i] = group->packets[other];
			group->packets[other] = swap;
		}
		struct kx_grid grid = {.fps = 0.5 + rand() % 10, .end_us = INT64_MAX};
		kx_select_check(group, KX_NO_TIME, true);
		assert_true(group->usable);
		kx_select_plan(group, NULL, &grid, 0, false, plan);
		check_plan(group, &grid, plan);
		/* What the next group needs stays, whoever refers to it. */
		kx_select_plan(group, NULL, &grid, 0, true, plan);
		for (size_t i = 0; i < group->count; i++)
			assert_true(plan->keep[i] && plan->keep_units[i]);
	}
	free(plan);
	free(group);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_av1_frames), cmocka_unit_test(test_av1_strip),
		cmocka_unit_test(test_av1_links),  cmocka_unit_test(test_hevc_sets),
		cmocka_unit_test(test_hevc_lists), cmocka_unit_test(test_hevc_refused),
		cmocka_unit_test(test_hevc_damaged),
		cmocka_unit_test(test_hevc_links), cmocka_unit_test(test_linked_plans),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
