#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/kv/internal.h"
#include "common/kv/kv.h"

struct kx_kv_iter {
	struct kx_kv *kv;
	rocksdb_readoptions_t *options; /* they point at the bounds below */
	rocksdb_iterator_t *rocks;
	uint8_t bounds[]; /* the prefix, then the first key after all that start with it */
};

/* Length of the shortest key after every key that starts with the prefix, written to `after`; 0 when there is none
 * (a prefix of only 0xff). */
static size_t key_after(const uint8_t *prefix, size_t len, uint8_t *after)
{
	while (len > 0 && prefix[len - 1] == 0xff)
		len--;
	if (!len)
		return 0;
	memcpy(after, prefix, len);
	after[len - 1]++;
	return len;
}

static void set_bounds(struct kx_kv_iter *iter, const void *prefix, size_t len)
{
	uint8_t *after = iter->bounds + len;
	size_t after_len;

	if (!len) {
		/* A walk over everything would push out of the cache what look-ups want there. */
		rocksdb_readoptions_set_fill_cache(iter->options, 0);
		return;
	}
	memcpy(iter->bounds, prefix, len);
	rocksdb_readoptions_set_iterate_lower_bound(iter->options, (const char *)iter->bounds, len);
	after_len = key_after(prefix, len, after);
	if (after_len)
		rocksdb_readoptions_set_iterate_upper_bound(iter->options, (const char *)after, after_len);
}

kx_status kx_kv_iter_new(struct kx_kv *kv, size_t family, const void *prefix, size_t prefix_len,
			 struct kx_kv_iter **ret)
{
	struct kx_kv_iter *iter = calloc(1, sizeof(*iter) + 2 * prefix_len);

	assert(family < kv->family_count);
	if (!iter)
		return KX_ENOMEM;
	iter->kv = kv;
	iter->options = rocksdb_readoptions_create();
	set_bounds(iter, prefix, prefix_len);
	iter->rocks = rocksdb_create_iterator_cf(kv->db, iter->options, kv->families[family]);
	atomic_fetch_add(&kv->open_iters, 1);
	rocksdb_iter_seek_to_first(iter->rocks);
	*ret = iter;
	return KX_OK;
}

void kx_kv_iter_free(struct kx_kv_iter *iter)
{
	if (!iter)
		return;
	rocksdb_iter_destroy(iter->rocks);
	rocksdb_readoptions_destroy(iter->options);
	atomic_fetch_sub(&iter->kv->open_iters, 1);
	free(iter);
}

void kx_kv_iter_cleanup(struct kx_kv_iter **iter)
{
	kx_kv_iter_free(*iter);
}

bool kx_kv_iter_valid(const struct kx_kv_iter *iter)
{
	return rocksdb_iter_valid(iter->rocks);
}

void kx_kv_iter_next(struct kx_kv_iter *iter)
{
	rocksdb_iter_next(iter->rocks);
}

const void *kx_kv_iter_key(const struct kx_kv_iter *iter, size_t *ret_len)
{
	return rocksdb_iter_key(iter->rocks, ret_len);
}

const void *kx_kv_iter_value(const struct kx_kv_iter *iter, size_t *ret_len)
{
	return rocksdb_iter_value(iter->rocks, ret_len);
}

kx_status kx_kv_iter_error(struct kx_kv_iter *iter, struct kx_error *error)
{
	char *text = NULL;

	rocksdb_iter_get_error(iter->rocks, &text);
	return text ? kx_kv_fail(iter->kv->path, text, error) : KX_OK;
}
