#include "shard/index/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/learn/learn.h"

void kx_kit_index_init(struct kx_kit_index *kit)
{
	*kit = (struct kx_kit_index){
		.options = {.manual = true, .recall_share = -1, .cell_rows = 20, .fold_changes = 6, .train_rows = 150}};
	kx_learn_init();
	/* In memory where that goes: no test here is about the system going down, and syncing takes most of their time. */
	strcpy(kit->folder, "/dev/shm/kx-index-XXXXXX");
	if (!mkdtemp(kit->folder)) {
		strcpy(kit->folder, "/tmp/kx-index-XXXXXX");
		if (!mkdtemp(kit->folder))
			abort();
	}
	(void)snprintf(kit->path, sizeof(kit->path), "%s/store", kit->folder);
	(void)snprintf(kit->dir, sizeof(kit->dir), "%s/vectors", kit->folder);
}

void kx_kit_index_close(struct kx_kit_index *kit)
{
	kx_index_close(KX_STEAL(kit->index));
	kx_kv_close(KX_STEAL(kit->kv));
}

void kx_kit_index_done(struct kx_kit_index *kit)
{
	kx_kit_index_close(kit);
	(void)!kx_fs_remove_tree(kit->folder, NULL);
}

kx_status kx_kit_index_open(struct kx_kit_index *kit, struct kx_error *error)
{
	struct kx_kv_family families[1 + KX_INDEX_FAMILIES] = {{"other", false}};
	const struct kx_kv_options options = {.families = families,
					      .family_count = KX_ARRAY_LEN(families),
					      .read_only = kit->options.read_only,
					      .create = true,
					      .write_buffer_bytes = 1 << 20,
					      .cache_bytes = 1 << 20};
	kx_status status;

	memcpy(&families[KX_KIT_FIRST], kx_index_families, sizeof(kx_index_families));
	status = kx_kv_open(kit->path, &options, &kit->kv, error);
	if (status)
		return status;
	kit->options.kv = kit->kv;
	kit->options.family = KX_KIT_FIRST;
	kit->options.dir = kit->dir;
	status = kx_index_open(&kit->options, &kit->index, error);
	if (status)
		kx_kv_close(KX_STEAL(kit->kv));
	return status;
}

static float unit(uint64_t *random)
{
	return (float)(kx_test_random(random) >> 40) / (float)(1 << 24) - 0.5f;
}

void kx_kit_vector(uint64_t *random, uint32_t dim, uint32_t centers, float *ret)
{
	uint64_t center = kx_test_below(random, centers) * 7919 + 1;

	for (uint32_t i = 0; i < dim; i++)
		ret[i] = 3.0f * unit(&center);
	for (uint32_t i = 0; i < dim; i++)
		ret[i] += unit(random);
}

kx_status kx_kit_put(struct kx_kit_index *kit, uint32_t space, uint32_t number, const float *vector, uint32_t dim,
		     struct kx_error *error)
{
	char key[16];
	struct kx_index_change change = {.space = space, .key = key, .vector = vector, .dim = dim};

	change.key_len = (size_t)snprintf(key, sizeof(key), "v%u", number);
	return kx_index_commit(kit->index, &change, 1, error);
}

uint32_t kx_kit_number(const struct kx_index_hit *hit)
{
	char text[16] = {0};

	memcpy(text, hit->key, hit->key_len < sizeof(text) - 1 ? hit->key_len : sizeof(text) - 1);
	return (uint32_t)strtoul(text + 1, NULL, 10);
}

uint32_t kx_kit_rot_cells(struct kx_kit_index *kit)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *rot = NULL;
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;
	uint32_t cells = 0;

	if (kx_kv_batch_new(kit->kv, &rot) || kx_kv_iter_new(kit->kv, KX_KIT_FIRST + 1, NULL, 0, &iter))
		abort();
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter), cells++) {
		size_t key_len, len;
		const void *key = kx_kv_iter_key(iter, &key_len);
		const void *value = kx_kv_iter_value(iter, &len);
		uint8_t *copy = malloc(len);

		if (!copy)
			abort();
		memcpy(copy, value, len);
		copy[len / 2] ^= 0x10;
		if (cells % 3 == 0)
			kx_kv_batch_put(rot, KX_KIT_FIRST + 1, key, key_len, copy, len);
		free(copy);
	}
	if (kx_kv_write(kit->kv, rot, true, NULL))
		abort();
	return cells;
}

void kx_kit_verify(struct kx_kit_index *kit)
{
	struct kx_index_report report;
	struct kx_error error = {0};

	if (kx_index_verify(kit->index, &report, &error)) {
		fprintf(stderr, "verify: %s\n", error.message);
		abort();
	}
	if (report.faults) {
		fprintf(stderr, "verify: %llu faults: %s\n", (unsigned long long)report.faults, report.first);
		abort();
	}
}
