#include "shard/query/bitmap.h"

#include <stdlib.h>
#include <string.h>

void kx_bitmap_done(struct kx_bitmap *bitmap)
{
	free(bitmap->words);
	*bitmap = (struct kx_bitmap){0};
}

kx_status kx_bitmap_reserve(struct kx_bitmap *bitmap, uint32_t rows)
{
	size_t had = kx_bitmap_words(bitmap), need = ((size_t)rows + 63) / 64;
	uint64_t *words;

	if (need <= had)
		return KX_OK;
	words = realloc(bitmap->words, need * sizeof(*words));
	if (!words)
		return KX_ENOMEM;
	memset(words + had, 0, (need - had) * sizeof(*words));
	bitmap->words = words;
	bitmap->rows = (uint32_t)(need * 64);
	return KX_OK;
}

kx_status kx_bitmap_copy(const struct kx_bitmap *from, struct kx_bitmap *to)
{
	if (kx_bitmap_reserve(to, from->rows))
		return KX_ENOMEM;
	if (kx_bitmap_words(to))
		memset(to->words, 0, kx_bitmap_words(to) * sizeof(*to->words));
	if (kx_bitmap_words(from))
		memcpy(to->words, from->words, kx_bitmap_words(from) * sizeof(*to->words));
	return KX_OK;
}

uint64_t kx_bitmap_count(const struct kx_bitmap *bitmap)
{
	uint64_t count = 0;

	for (size_t i = 0; i < kx_bitmap_words(bitmap); i++)
		count += (uint64_t)__builtin_popcountll(bitmap->words[i]);
	return count;
}
