#include "shard/query/prospects.h"

#include <stdlib.h>

#define LEAST 512u

void kx_prospects_done(struct kx_prospects *prospects)
{
	free(prospects->list);
	free(prospects->slots);
	*prospects = (struct kx_prospects){0};
}

static uint32_t slot_of(uint32_t row, uint32_t number)
{
	uint32_t at = (row * 0x9e3779b9u) ^ (number * 0x85ebca6bu);

	return at ^ at >> 15;
}

static kx_status reserve(struct kx_prospects *prospects)
{
	uint32_t cap = prospects->cap ? prospects->cap * 2 : LEAST;
	struct kx_prospect *list;
	uint32_t *slots;

	if (prospects->count < prospects->cap)
		return KX_OK;
	list = realloc(prospects->list, cap * sizeof(*list));
	if (!list)
		return KX_ENOMEM;
	prospects->list = list;
	slots = calloc((size_t)cap * 2, sizeof(*slots));
	if (!slots)
		return KX_ENOMEM;
	free(prospects->slots);
	prospects->slots = slots;
	prospects->mask = 2 * cap - 1;
	prospects->cap = cap;
	for (uint32_t i = 0; i < prospects->count; i++) {
		uint32_t at = slot_of(list[i].row, list[i].number);

		while (slots[at & prospects->mask])
			at++;
		slots[at & prospects->mask] = i + 1;
	}
	return KX_OK;
}

struct kx_prospect *kx_prospect_for(struct kx_prospects *prospects, uint32_t row, uint32_t number)
{
	uint32_t at = slot_of(row, number);

	if (reserve(prospects))
		return NULL;
	for (; prospects->slots[at & prospects->mask]; at++) {
		struct kx_prospect *prospect = &prospects->list[prospects->slots[at & prospects->mask] - 1];

		if (prospect->row == row && prospect->number == number)
			return prospect;
	}
	prospects->list[prospects->count] = (struct kx_prospect){.row = row, .number = number};
	prospects->slots[at & prospects->mask] = ++prospects->count;
	return &prospects->list[prospects->count - 1];
}

int kx_prospect_order(const void *a, const void *b)
{
	double one = (*(struct kx_prospect *const *)a)->most, two = (*(struct kx_prospect *const *)b)->most;

	return (one < two) - (one > two);
}

static void add_work(struct kx_ann_work *work, const struct kx_ivf_work *more)
{
	work->cells += more->cells;
	work->codes += more->codes;
	work->refined += more->refined;
	work->exact = work->exact && more->exact;
}

kx_status kx_prospect_list_rest(struct kx_index *index, uint32_t space, const struct kx_index_query *query,
				struct kx_index_hits *hits, struct kx_ann_work *work, struct kx_error *error)
{
	struct kx_index_query all = *query;
	kx_status status = KX_OK;

	if (hits->count < query->k && !hits->work.exact) {
		add_work(work, &hits->work);
		all.recall = 1.0;
		status = kx_index_search(index, space, &all, hits, error);
	}
	if (!status)
		add_work(work, &hits->work);
	return status;
}

kx_status kx_prospect_list(struct kx_index *index, uint32_t space, const struct kx_index_query *query,
			   struct kx_index_hits *hits, struct kx_ann_work *work, struct kx_error *error)
{
	kx_status status = kx_index_search(index, space, query, hits, error);

	return status ? status : kx_prospect_list_rest(index, space, query, hits, work, error);
}
