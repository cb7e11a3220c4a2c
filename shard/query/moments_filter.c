/* A filter over the mirror's rows, said in the moments' rows of each space. */
#include <stdlib.h>
#include <string.h>

#include "shard/query/moments_index_internal.h"

static void filter_free(struct moments_filter *filter)
{
	if (!filter)
		return;
	for (uint32_t i = 0; i < KX_INDEX_SPACES_MAX; i++) {
		kx_index_filter_free(filter->all[i]);
		kx_index_filter_free(filter->alone[i]);
	}
	free(filter->bits);
	free(filter);
}

void kx_moments_filters_done(struct kx_moments *moments)
{
	for (uint32_t i = 0; i < KX_MOMENTS_FILTERS; i++)
		filter_free(moments->filters[i]);
}

static bool is_for(const struct moments_filter *filter, const struct kx_bitmap *bits)
{
	if (!bits || !filter->bits)
		return !bits && !filter->bits;
	return filter->words == kx_bitmap_words(bits) &&
	       memcmp(filter->bits, bits->words, filter->words * sizeof(*filter->bits)) == 0;
}

/* With the lock held. */
static struct moments_filter *find_filter(struct kx_moments *moments, const struct kx_bitmap *bits)
{
	for (uint32_t i = 0; i < KX_MOMENTS_FILTERS; i++) {
		struct moments_filter *filter = moments->filters[i];

		if (filter && filter->version == moments->version && is_for(filter, bits))
			return filter;
	}
	return NULL;
}

/* bits NULL: every row. */
static uint64_t *matching_rows(const struct moments_space *space, const struct kx_bitmap *bits)
{
	uint64_t *out = calloc(space->cap / 64u + 1u, sizeof(*out));

	for (uint32_t word = 0; out && word < space->cap / 64u; word++) {
		const uint32_t *row_of = &space->row_of[(size_t)word * 64];

		for (uint32_t i = 0; bits && i < 64; i++)
			out[word] |= (uint64_t)kx_bitmap_has(bits, row_of[i]) << i;
		if (!bits)
			out[word] = UINT64_MAX;
	}
	return out;
}

static kx_status filter_space(struct kx_moments *moments, struct moments_filter *filter, const struct kx_bitmap *bits,
			      uint32_t number, struct kx_error *error)
{
	const struct moments_space *space = &moments->spaces[number];
	KX_CLEANUP(kx_cleanup_free) uint64_t *rows = matching_rows(space, bits);
	kx_status status = rows ? KX_OK : kx_error_nomem(error);

	if (!status && bits)
		status = kx_index_filter_new(moments->index, number, rows, space->cap, &filter->all[number], error);
	for (uint32_t word = 0; !status && word < space->cap / 64u; word++)
		rows[word] &= space->alone.words[word];
	if (!status)
		status = kx_index_filter_new(moments->index, number, rows, space->cap, &filter->alone[number], error);
	return status;
}

static kx_status filter_new(struct kx_moments *moments, const struct kx_bitmap *bits, struct moments_filter **ret,
			    struct kx_error *error)
{
	struct moments_filter *filter = calloc(1, sizeof(*filter));
	kx_status status = KX_OK;

	if (!filter)
		return kx_error_nomem(error);
	filter->version = moments->version;
	filter->references = 1;
	if (bits) {
		filter->words = (uint32_t)kx_bitmap_words(bits);
		filter->bits = malloc((filter->words + 1u) * sizeof(*filter->bits));
		if (!filter->bits)
			status = kx_error_nomem(error);
		else
			memcpy(filter->bits, bits->words, filter->words * sizeof(*filter->bits));
	}
	for (uint32_t i = 0; !status && i < KX_INDEX_SPACES_MAX; i++)
		if (moments->spaces[i].cap)
			status = filter_space(moments, filter, bits, i, error);
	if (status)
		filter_free(filter);
	else
		*ret = filter;
	return status;
}

/* In the place of the one that was used longest ago and that no search uses; with none such it is not kept. */
static void keep_filter(struct kx_moments *moments, struct moments_filter *filter)
{
	uint32_t place = KX_MOMENTS_FILTERS;

	for (uint32_t i = 0; i < KX_MOMENTS_FILTERS; i++) {
		const struct moments_filter *other = moments->filters[i];

		if (!other) {
			place = i;
			break;
		}
		if (other->references == 1 &&
		    (place == KX_MOMENTS_FILTERS || other->used < moments->filters[place]->used))
			place = i;
	}
	if (place == KX_MOMENTS_FILTERS)
		return;
	filter_free(moments->filters[place]);
	moments->filters[place] = filter;
	filter->references++;
}

kx_status kx_moments_filter_get(struct kx_moments *moments, const struct kx_bitmap *bits, struct moments_filter **ret,
				struct kx_error *error)
{
	struct moments_filter *filter;
	kx_status status = KX_OK;

	pthread_mutex_lock(&moments->lock);
	filter = find_filter(moments, bits);
	if (filter)
		filter->references++;
	else
		status = filter_new(moments, bits, &filter, error);
	if (!status) {
		if (filter->references == 1)
			keep_filter(moments, filter);
		filter->used = ++moments->filter_clock;
		*ret = filter;
	}
	pthread_mutex_unlock(&moments->lock);
	return status;
}

void kx_moments_filter_release(struct kx_moments *moments, struct moments_filter *filter)
{
	if (!filter)
		return;
	pthread_mutex_lock(&moments->lock);
	if (--filter->references == 0)
		filter_free(filter);
	pthread_mutex_unlock(&moments->lock);
}
