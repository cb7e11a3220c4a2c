/* The mapped file of full vectors: rows are what was written, whatever is done about its pages meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/testkit.h"
#include "common/base/thread.h"
#include "shard/index/vectors.h"

#define DIM 1000u     /* rows lie across the bounds of pages */
#define ROWS 12000u   /* 11 huge pages */
#define SESSION 77u

struct world {
	char folder[96];
	char path[112];
	struct kx_ivectors vectors;
	atomic_bool done;
	atomic_uint wrong;
};

static void halves_of(uint32_t row, uint32_t turn, uint16_t *ret)
{
	for (uint32_t i = 0; i < DIM; i++)
		ret[i] = (uint16_t)(row * 31u + turn * 17u + i);
}

static bool holds(struct world *world, uint32_t row, uint32_t turn)
{
	uint16_t wanted[DIM];

	halves_of(row, turn, wanted);
	return memcmp(kx_ivectors_row(&world->vectors, row), wanted, sizeof(wanted)) == 0;
}

static void write_row(struct world *world, uint32_t row, uint32_t turn)
{
	uint16_t halves[DIM];

	halves_of(row, turn, halves);
	assert_int_equal(kx_ivectors_write(&world->vectors, row, 1, halves, NULL), KX_OK);
}

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	assert_non_null(world);
	(void)snprintf(world->folder, sizeof(world->folder), "%s/kx-pages-XXXXXX", kx_test_tmp());
	assert_non_null(mkdtemp(world->folder));
	(void)snprintf(world->path, sizeof(world->path), "%s/vectors", world->folder);
	assert_int_equal(kx_ivectors_open(&world->vectors, world->path, DIM, ROWS, SESSION, NULL), KX_OK);
	for (uint32_t row = 0; row < ROWS; row++)
		write_row(world, row, 0);
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	kx_ivectors_close(&world->vectors);
	(void)!kx_fs_remove_tree(world->folder, NULL);
	free(world);
	return 0;
}

static void *read_on(void *ctx)
{
	struct world *world = ctx;

	while (!atomic_load(&world->done)) {
		for (uint32_t row = 0; row < ROWS; row += 2)
			if (!holds(world, row, 0))
				atomic_fetch_add(&world->wrong, 1);
	}
	return NULL;
}

static void *tend_pages(void *ctx)
{
	struct world *world = ctx;

	for (int i = 0; i < 4; i++) {
		world->vectors.pages = (struct kx_ivectors_pages){0};
		if (!kx_ivectors_pages_begin(&world->vectors, ROWS, UINT64_MAX))
			atomic_fetch_add(&world->wrong, 1);
		while (kx_ivectors_pages_step(&world->vectors)) {
		}
	}
	return NULL;
}

static void rows_stay_what_they_are(void **state)
{
	struct world *world = *state;
	pthread_t reader, tender;

	assert_int_equal(kx_thread_start(&reader, "read", read_on, world, NULL), KX_OK);
	assert_int_equal(kx_thread_start(&tender, "tend", tend_pages, world, NULL), KX_OK);
	for (uint32_t row = 1; row < ROWS; row += 2)
		write_row(world, row, 1);
	assert_int_equal(pthread_join(tender, NULL), 0);
	atomic_store(&world->done, true);
	assert_int_equal(pthread_join(reader, NULL), 0);
	assert_int_equal(atomic_load(&world->wrong), 0);
	for (uint32_t i = 0; i < ROWS; i++)
		assert_true(holds(world, i, i % 2));
}

/* What was written is on disk, not in the map alone. */
static void rows_are_in_the_file(void **state)
{
	struct world *world = *state;
	uint16_t wanted[DIM], found[DIM];
	FILE *file = fopen(world->path, "rb");

	assert_non_null(file);
	for (uint32_t row = 0; row < ROWS; row += 997) {
		halves_of(row, 0, wanted);
		assert_int_equal(fseek(file, (long)kx_ivectors_file_bytes(&world->vectors, row), SEEK_SET), 0);
		assert_int_equal(fread(found, sizeof(found), 1, file), 1);
		assert_memory_equal(found, wanted, sizeof(wanted));
	}
	(void)fclose(file);
}

static void begins_where_it_is_worth_it(void **state)
{
	struct world *world = *state;
	struct kx_ivectors *vectors = &world->vectors;

	assert_false(kx_ivectors_pages_step(vectors));
	assert_false(kx_ivectors_pages_begin(vectors, 100, UINT64_MAX)); /* few */
	assert_false(kx_ivectors_pages_begin(vectors, ROWS - 2000, ROWS)); /* no room */
	assert_false(kx_ivectors_pages_step(vectors));
	assert_false(kx_ivectors_pages_begin(vectors, ROWS - 1999, UINT64_MAX)); /* hardly more than were looked at */
	assert_true(kx_ivectors_pages_begin(vectors, ROWS, UINT64_MAX));
	while (kx_ivectors_pages_step(vectors)) {
	}
	assert_false(kx_ivectors_pages_begin(vectors, ROWS, UINT64_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(rows_stay_what_they_are, setup, teardown),
		cmocka_unit_test_setup_teardown(rows_are_in_the_file, setup, teardown),
		cmocka_unit_test_setup_teardown(begins_where_it_is_worth_it, setup, teardown),
	};

	return cmocka_run_group_tests_name("pages", tests, NULL, NULL);
}
