/* Which rows may be found. */
#include "shard/ann/ivf_impl.h"

#include <stdlib.h>

struct kx_ivf_filter {
	uint64_t *bits;
	uint32_t rows;
	size_t words;
	uint64_t matches;
};

kx_status kx_ivf_filter_new(const uint64_t *bits, uint32_t rows, struct kx_ivf_filter **ret)
{
	struct kx_ivf_filter *filter = calloc(1, sizeof(*filter));

	if (!filter)
		return KX_ENOMEM;
	filter->rows = rows;
	filter->words = (rows + 63u) / 64;
	filter->bits = malloc((filter->words + 1) * sizeof(*bits));
	if (!filter->bits) {
		free(filter);
		return KX_ENOMEM;
	}
	if (rows)
		memcpy(filter->bits, bits, filter->words * sizeof(*bits));
	if (rows % 64)
		filter->bits[filter->words - 1] &= (UINT64_C(1) << rows % 64) - 1;
	for (size_t i = 0; i < filter->words; i++)
		filter->matches += (uint64_t)__builtin_popcountll(filter->bits[i]);
	*ret = filter;
	return KX_OK;
}

void kx_ivf_filter_free(struct kx_ivf_filter *filter)
{
	if (!filter)
		return;
	free(filter->bits);
	free(filter);
}

bool kx_ivf_filter_has(const struct kx_ivf_filter *filter, uint32_t row)
{
	return row < filter->rows && filter->bits[row / 64] >> row % 64 & 1;
}

kx_status kx_ivf_filter_set(struct kx_ivf_filter *filter, uint32_t row, bool matches)
{
	if (row >= KX_IVF_ROW_MAX)
		return KX_ETOOBIG;
	if (kx_ivf_filter_has(filter, row) == matches)
		return KX_OK;
	if (row >= filter->rows) {
		size_t words = row / 64 + 1u > filter->words ? row / 64 + 1u + filter->words / 2 : filter->words;
		uint64_t *bits = words > filter->words ? realloc(filter->bits, words * sizeof(*bits)) : filter->bits;

		if (!bits)
			return KX_ENOMEM;
		memset(bits + filter->words, 0, (words - filter->words) * sizeof(*bits));
		filter->bits = bits;
		filter->words = words;
		filter->rows = (uint32_t)words * 64;
	}
	filter->bits[row / 64] ^= UINT64_C(1) << row % 64;
	filter->matches = matches ? filter->matches + 1 : filter->matches - 1;
	return KX_OK;
}

uint64_t kx_ivf_filter_matches(const struct kx_ivf_filter *filter)
{
	return filter->matches;
}

const uint64_t *kx_ivf_filter_words(const struct kx_ivf_filter *filter, size_t *ret_count)
{
	*ret_count = filter->words;
	return filter->bits;
}

uint32_t kx_ivf_filter_masks(const struct kx_ivf_filter *filter, const uint32_t *rows, uint32_t count, uint32_t *masks)
{
	uint32_t matches = 0;

	for (uint32_t from = 0; from < count; from += KX_IVF_BLOCK, masks++) {
		uint32_t mask = 0;

		for (uint32_t i = 0; i < KX_IVF_BLOCK && from + i < count; i++)
			mask |= (uint32_t)kx_ivf_filter_has(filter, rows[from + i]) << i;
		*masks = mask;
		matches += (uint32_t)__builtin_popcount(mask);
	}
	return matches;
}
