/* The way without estimates: everything that may be found is compared by its vector. And what of a cold cell is compared. */
#include "shard/ann/ivf_search.h"

#define AHEAD 12u   /* vectors that are fetched before they are needed */
#define LISTED 512u /* rows that are gathered, then compared */

kx_status kx_ivf_load_cold(struct kx_ivf_search *search, const struct kx_ivf_cell *cell, struct kx_ivf_content *ret)
{
	struct kx_ivf_scratch *scratch = search->scratch;
	const struct kx_ivf *ivf = search->ivf;
	size_t entry_bytes = kx_ivf_entry_bytes(ivf), count, blocks;
	kx_status status;

	kx_buf_clear(&scratch->loaded);
	status = ivf->load(ivf->load_ctx, cell->id, &scratch->loaded, search->error);
	if (status)
		return status;
	if (scratch->loaded.len % entry_bytes)
		return kx_error_set(search->error, KX_ECORRUPT, KX_ERROR_FATAL,
				    "cell %u: %zu bytes are no entries of %zu", cell->id, scratch->loaded.len, entry_bytes);
	count = scratch->loaded.len / entry_bytes;
	blocks = (count + KX_IVF_BLOCK - 1) / KX_IVF_BLOCK;
	if (blocks > scratch->cold_len) {
		scratch->cold_len = 0;
		if (!kx_ivf_again(&scratch->cold, kx_ivf_place_bytes(ivf, blocks * 2)))
			return kx_error_nomem(search->error);
		scratch->cold_len = (uint32_t)blocks * 2;
	}
	*ret = (struct kx_ivf_content){kx_ivf_place_at(ivf, scratch->cold, scratch->cold_len), (uint32_t)count};
	kx_ivf_place_write(ivf, cell, &ret->place, 0, scratch->loaded.data, count);
	return KX_OK;
}

static bool may_be_found(const struct kx_ivf_query *query, uint32_t row)
{
	return row != query->exclude && (!query->filter || kx_ivf_filter_has(query->filter, row));
}

/* Compares rows that nobody has asked for yet: so many ahead that each comes in time. */
static void refine_listed(struct kx_ivf_search *search)
{
	struct kx_ivf_scratch *scratch = search->scratch;

	for (uint32_t i = 0; i < scratch->waiting_count && i < AHEAD; i++)
		kx_ivf_fetch_vector(search->ivf, scratch->waiting[i]);
	for (uint32_t i = 0; i < scratch->waiting_count; i++) {
		if (i + AHEAD < scratch->waiting_count)
			kx_ivf_fetch_vector(search->ivf, scratch->waiting[i + AHEAD]);
		kx_ivf_refine(search, scratch->waiting[i]);
	}
	scratch->waiting_count = 0;
}

/* Everything that may be found is compared by its vector. */
static kx_status compare_all(struct kx_ivf_search *search)
{
	const struct kx_ivf *ivf = search->ivf;
	struct kx_ivf_scratch *scratch = search->scratch;
	size_t words = ivf->present_words, filter_words = 0;
	const uint64_t *filter =
		search->query->filter ? kx_ivf_filter_words(search->query->filter, &filter_words) : NULL;

	scratch->waiting_count = 0;
	if (kx_ivf_reserve_waiting(scratch, LISTED + 64))
		return kx_error_nomem(search->error);
	words = filter && filter_words < words ? filter_words : words;
	for (size_t i = 0; i < words; i++) {
		uint64_t word = ivf->present[i] & (filter ? filter[i] : UINT64_MAX);

		for (; word; word &= word - 1) {
			uint32_t row = (uint32_t)(i * 64) + (uint32_t)__builtin_ctzll(word);

			if (row != search->query->exclude)
				scratch->waiting[scratch->waiting_count++] = row;
		}
		if (scratch->waiting_count >= LISTED)
			refine_listed(search);
	}
	refine_listed(search);
	return KX_OK;
}

static kx_status compare_cold(struct kx_ivf_search *search)
{
	for (uint32_t slot = 0; slot < search->ivf->slot_count; slot++) {
		const struct kx_ivf_cell *cell = &search->ivf->cells[slot];
		struct kx_ivf_content content = {0};
		kx_status status;

		if (cell->id == KX_IVF_NO_CELL || !cell->cold)
			continue;
		status = kx_ivf_load_cold(search, cell, &content);
		if (status)
			return status;
		for (uint32_t i = 0; i < content.count; i++)
			if (may_be_found(search->query, content.place.rows[i]))
				kx_ivf_refine(search, content.place.rows[i]);
	}
	return KX_OK;
}

kx_status kx_ivf_compare(struct kx_ivf_search *search)
{
	kx_status status;

	search->work.exact = true;
	search->work.cells = search->ivf->cell_count;
	status = compare_all(search);
	return status || !search->ivf->cold_count ? status : compare_cold(search);
}
