#include "shard/query/testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/testkit.h"
#include "common/learn/learn.h"
#include "shard/store/testkit.h"

void kx_kit_indexed_make(struct kx_kit_indexed *kit)
{
	kit->folder = kx_kit_folder();
	kit->dir = kx_fs_join(kit->folder, "index-0");
	assert_non_null(kit->dir);
}

void kx_kit_indexed_open(struct kx_kit_indexed *kit, bool read_only)
{
	struct kx_store_options options = {.data_dir = kit->folder, .read_only = read_only, .more = kx_index_families,
					   .more_count = KX_INDEX_FAMILIES};
	struct kx_index_options index = {.family = KX_STORE_FAMILIES, .dir = kit->dir, .read_only = read_only,
					 .train_rows = 800, .cell_rows = 60};
	struct kx_error error = {0};

	if (kx_store_open(&options, &kit->store, &error))
		fail_msg("%s", error.message);
	assert_true(kx_store_has_more(kit->store));
	index.kv = kx_store_kv(kit->store);
	if (kx_index_open(&index, &kit->index, &error))
		fail_msg("%s", error.message);
}

void kx_kit_indexed_close(struct kx_kit_indexed *kit)
{
	kx_index_close(KX_STEAL(kit->index));
	kx_store_close(KX_STEAL(kit->store));
}

void kx_kit_indexed_done(struct kx_kit_indexed *kit)
{
	free(kit->dir);
	kx_kit_folder_done(kit->folder);
}

struct kx_query_reply *kx_kit_ask(const struct kx_query_context *context, const struct kx_query_request *request)
{
	struct kx_query_reply *reply = NULL, *travelled = NULL;
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	struct kx_error error = {0};

	assert_int_equal(kx_query_answer(context, request, &reply, NULL), KX_OK);
	assert_int_equal(kx_query_reply_pack(reply, &packed), KX_OK);
	if (kx_query_reply_unpack(packed.data, packed.len, &travelled, &error))
		fail_msg("%s", error.message);
	kx_buf_done(&packed);
	kx_query_reply_free(reply);
	return travelled;
}

float kx_kit_uniform(uint64_t *random)
{
	return (float)(kx_test_random(random) >> 40) / 16777216.0f * 2.0f - 1.0f;
}

void kx_kit_near_vector(uint64_t *random, uint32_t centres, uint32_t tied_in, float *values, uint32_t dim)
{
	uint64_t centre = 1 + kx_test_random(random) % centres;
	bool tied = kx_test_random(random) % tied_in == 0;

	for (uint32_t i = 0; i < dim; i++) {
		float middle = kx_kit_uniform(&centre);

		values[i] = middle + (tied ? 0.0f : 0.7f * kx_kit_uniform(random));
	}
	(void)kx_learn_normalize(values, dim);
}
