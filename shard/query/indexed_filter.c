/* A filter over the mirror's rows, said in the index's rows of each space. */
#include <stdlib.h>
#include <string.h>

#include "shard/query/indexed_internal.h"

static void filter_free(struct indexed_filter *filter)
{
	if (!filter)
		return;
	for (uint32_t i = 0; i < KX_ANN_SPACES_MAX; i++)
		kx_index_filter_free(filter->of_space[i]);
	free(filter->bits);
	free(filter);
}

void kx_indexed_filters_done(struct indexed *indexed)
{
	for (uint32_t i = 0; i < KX_INDEXED_FILTERS; i++)
		filter_free(indexed->filters[i]);
}

/* With the lock held. */
static struct indexed_filter *find_filter(struct indexed *indexed, const uint64_t *bits, uint32_t words)
{
	for (uint32_t i = 0; i < KX_INDEXED_FILTERS; i++) {
		struct indexed_filter *filter = indexed->filters[i];

		if (filter && filter->version == indexed->version && filter->words == words &&
		    memcmp(filter->bits, bits, words * sizeof(*bits)) == 0)
			return filter;
	}
	return NULL;
}

static uint64_t *bits_in_space(const struct indexed *indexed, uint8_t number, const uint64_t *bits, uint32_t words)
{
	const struct indexed_space *space = &indexed->spaces[number];
	const int m = (int)space->modality - KX_VISUAL;
	uint64_t *out = calloc(space->row_at_cap / 64u + 1u, sizeof(*out));

	for (uint32_t i = 0; out && i < words; i++) {
		for (uint64_t word = bits[i]; word; word &= word - 1) {
			uint32_t row = i * 64 + (uint32_t)__builtin_ctzll(word), index_row;

			if (row >= indexed->row_count || indexed->rows[row].space[m] != number)
				continue;
			index_row = indexed->rows[row].index_row[m];
			if (index_row != KX_ANN_NO_ROW)
				out[index_row / 64] |= UINT64_C(1) << (index_row % 64);
		}
	}
	return out;
}

static kx_status filter_spaces(struct indexed *indexed, struct indexed_filter *filter, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < indexed->space_count; i++) {
		const struct indexed_space *space = &indexed->spaces[i];
		KX_CLEANUP(kx_cleanup_free) uint64_t *bits = NULL;

		if (!space->is_indexed || !space->rows)
			continue;
		bits = bits_in_space(indexed, (uint8_t)i, filter->bits, filter->words);
		status = bits ? kx_index_filter_new(indexed->index, space->number, bits, space->row_at_cap,
						    &filter->of_space[i], error)
			      : kx_error_nomem(error);
	}
	return status;
}

static kx_status filter_new(struct indexed *indexed, const uint64_t *bits, uint32_t words, struct indexed_filter **ret,
			    struct kx_error *error)
{
	struct indexed_filter *filter = calloc(1, sizeof(*filter));
	kx_status status = KX_OK;

	if (!filter)
		return kx_error_nomem(error);
	filter->version = indexed->version;
	filter->words = words;
	filter->references = 1;
	filter->bits = malloc((words + 1u) * sizeof(*bits));
	if (!filter->bits)
		status = kx_error_nomem(error);
	else
		memcpy(filter->bits, bits, words * sizeof(*bits));
	if (!status)
		status = filter_spaces(indexed, filter, error);
	if (status)
		filter_free(filter);
	else
		*ret = filter;
	return status;
}

/* In the place of the one that was used longest ago and that no search uses; with none such it is not kept. */
static void keep_filter(struct indexed *indexed, struct indexed_filter *filter)
{
	uint32_t place = KX_INDEXED_FILTERS;

	for (uint32_t i = 0; i < KX_INDEXED_FILTERS; i++) {
		const struct indexed_filter *other = indexed->filters[i];

		if (!other) {
			place = i;
			break;
		}
		if (other->references == 1 && (place == KX_INDEXED_FILTERS || other->used < indexed->filters[place]->used))
			place = i;
	}
	if (place == KX_INDEXED_FILTERS)
		return;
	filter_free(indexed->filters[place]);
	indexed->filters[place] = filter;
	filter->references++;
}

kx_status kx_indexed_filter_get(struct indexed *indexed, const uint64_t *bits, uint32_t rows,
				struct indexed_filter **ret, struct kx_error *error)
{
	const uint32_t words = rows / 64u;
	struct indexed_filter *filter;
	kx_status status = KX_OK;

	pthread_mutex_lock(&indexed->filter_lock);
	filter = find_filter(indexed, bits, words);
	if (filter)
		filter->references++;
	else
		status = filter_new(indexed, bits, words, &filter, error);
	if (!status) {
		if (filter->references == 1)
			keep_filter(indexed, filter);
		filter->used = ++indexed->filter_clock;
		*ret = filter;
	}
	pthread_mutex_unlock(&indexed->filter_lock);
	return status;
}

void kx_indexed_filter_release(struct indexed *indexed, struct indexed_filter *filter)
{
	if (!filter)
		return;
	pthread_mutex_lock(&indexed->filter_lock);
	if (--filter->references == 0)
		filter_free(filter);
	pthread_mutex_unlock(&indexed->filter_lock);
}
