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

/* --- Following changes ---------------------------------------------------------------------------------------- */

static const struct indexed_change *change_at(const struct indexed *indexed, uint64_t version)
{
	return &indexed->changes[version % KX_INDEXED_CHANGES];
}

static bool has(const uint64_t *bits, uint32_t words, uint32_t row)
{
	return row / 64u < words && (bits[row / 64u] >> row % 64u & 1u);
}

static void copy_bit(const uint64_t *from, uint64_t *to, uint32_t words, uint32_t row)
{
	if (row / 64u < words)
		to[row / 64u] = (to[row / 64u] & ~(UINT64_C(1) << row % 64u)) |
				(uint64_t)has(from, words, row) << row % 64u;
}

/* The filter's bits with those that may have changed as they are asked for: the same, unless it is another filter. NULL: it
 * is, or there is no memory. */
static uint64_t *bits_since(const struct indexed *indexed, const struct indexed_filter *filter, const uint64_t *bits,
			    uint32_t words)
{
	const uint32_t both = words < filter->words ? words : filter->words;
	uint64_t *now = calloc(words + 1u, sizeof(*now));

	if (!now)
		return NULL;
	memcpy(now, filter->bits, both * sizeof(*now));
	for (uint64_t version = filter->version; version < indexed->version; version++)
		copy_bit(bits, now, words, change_at(indexed, version)->row);
	if (memcmp(now, bits, words * sizeof(*now)) == 0)
		return now;
	free(now);
	return NULL;
}

/* In one space: rows that the index had go, then those that it has come, for a number may have gone from one to another. */
static kx_status follow_space(struct indexed *indexed, struct indexed_filter *filter, uint8_t number)
{
	const int m = (int)indexed->spaces[number].modality - KX_VISUAL;
	struct kx_index_filter_row rows[2 * KX_INDEXED_CHANGES];
	size_t count = 0;

	for (uint64_t version = filter->version; version < indexed->version; version++) {
		const struct indexed_row *before = &change_at(indexed, version)->before;

		if (before->space[m] == number && before->index_row[m] != KX_ANN_NO_ROW)
			rows[count++] = (struct kx_index_filter_row){before->index_row[m], false};
	}
	for (uint64_t version = filter->version; version < indexed->version; version++) {
		const uint32_t row = change_at(indexed, version)->row;
		const struct indexed_row *at = &indexed->rows[row];

		if (at->space[m] == number && at->index_row[m] != KX_ANN_NO_ROW)
			rows[count++] = (struct kx_index_filter_row){at->index_row[m], has(filter->bits, filter->words, row)};
	}
	if (!count)
		return KX_OK;
	return filter->of_space[number] ? kx_index_filter_change(filter->of_space[number], rows, count) : KX_ENOTFOUND;
}

/* False: it must be made anew. */
static bool follow(struct indexed *indexed, struct indexed_filter *filter, const uint64_t *bits, uint32_t words)
{
	uint64_t *now;
	kx_status status = KX_OK;

	if (filter->version == indexed->version)
		return filter->words == words && memcmp(filter->bits, bits, words * sizeof(*bits)) == 0;
	if (indexed->version - filter->version > KX_INDEXED_CHANGES)
		return false;
	now = bits_since(indexed, filter, bits, words);
	if (!now)
		return false;
	free(filter->bits);
	filter->bits = now;
	filter->words = words;
	for (uint32_t i = 0; !status && i < indexed->space_count; i++)
		status = follow_space(indexed, filter, (uint8_t)i);
	filter->broken = status != KX_OK;
	filter->version = indexed->version;
	return !filter->broken;
}

/* With the lock held. */
static struct indexed_filter *find_filter(struct indexed *indexed, const uint64_t *bits, uint32_t words)
{
	for (uint32_t i = 0; i < KX_INDEXED_FILTERS; i++)
		if (indexed->filters[i] && !indexed->filters[i]->broken && follow(indexed, indexed->filters[i], bits, words))
			return indexed->filters[i];
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
	indexed->filters_made++;
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
