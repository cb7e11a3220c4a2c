#include "shard/query/page.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#define POOL_FACTOR 10u       /* candidates that diversity chooses from, for each hit wanted */
#define POOL_LEAST 100u
#define PAIRS_MAX 4000000u    /* that diversity compares */

struct pool {
	uint32_t *places;
	uint32_t count, cap;
	void *seen;   /* groups so far */
	bool ended;   /* nothing behind can be in it */
};

static int compare_groups(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Whether the candidate is the first of its group. */
static kx_status is_first(struct pool *pool, const struct kx_page_rules *rules, const struct kx_candidate *candidate,
			  bool *ret)
{
	char *group, **node;

	*ret = true;
	if (!rules->group)
		return KX_OK;
	group = rules->group(rules->ctx, candidate);
	node = group ? tsearch(group, &pool->seen, compare_groups) : NULL;
	if (!node) {
		free(group);
		return KX_ENOMEM;
	}
	*ret = *node == group;
	if (!*ret)
		free(group);
	return KX_OK;
}

static bool is_behind(const struct kx_page_rules *rules, const struct kx_candidate *candidate)
{
	const struct kx_cursor *cursor = rules->cursor;

	return !cursor || kx_hit_order(cursor->score, cursor->video_id, cursor->moment_us, candidate->score, candidate->id,
				       candidate->moment_us) < 0;
}

static kx_status fill(struct pool *pool, const struct kx_page_rules *rules, const struct kx_candidate *candidates,
		      size_t count)
{
	for (size_t i = 0; i < count && pool->count < pool->cap; i++) {
		bool first;

		pool->ended = rules->has_min_score && candidates[i].score < rules->min_score;
		if (pool->ended)
			return KX_OK;
		if (is_first(pool, rules, &candidates[i], &first))
			return KX_ENOMEM;
		if (first && is_behind(rules, &candidates[i]))
			pool->places[pool->count++] = (uint32_t)i;
	}
	return KX_OK;
}

static double gain(const struct kx_page_rules *rules, const struct kx_candidate *candidate, double nearest)
{
	return (1.0 - rules->diversity) * candidate->score - rules->diversity * nearest;
}

/* Maximal marginal relevance (Carbonell and Goldstein 1998): each next hit is the one that is best by its own score less
 * how like it is to the most similar one chosen so far. */
static kx_status choose(const struct kx_page_rules *rules, const struct kx_candidate *candidates, struct pool *pool,
			uint32_t *ret_chosen, uint32_t *ret_count)
{
	KX_CLEANUP(kx_cleanup_free) double *nearest = calloc(pool->count + 1u, sizeof(*nearest));
	uint32_t left = pool->count, count = 0;

	if (!nearest)
		return KX_ENOMEM;
	for (uint32_t i = 0; i < left; i++)
		nearest[i] = -1.0;
	while (left && count < rules->k) {
		uint32_t best = 0, taken;

		for (uint32_t i = 1; i < left; i++)
			if (gain(rules, &candidates[pool->places[i]], count ? nearest[i] : 0.0) >
			    gain(rules, &candidates[pool->places[best]], count ? nearest[best] : 0.0))
				best = i;
		taken = pool->places[best];
		ret_chosen[count++] = taken;
		left--;
		/* Order stays: among equals the better by score goes first. */
		memmove(&pool->places[best], &pool->places[best + 1], (left - best) * sizeof(*pool->places));
		memmove(&nearest[best], &nearest[best + 1], (left - best) * sizeof(*nearest));
		for (uint32_t i = 0; i < left; i++) {
			double like = rules->likeness(rules->ctx, &candidates[taken], &candidates[pool->places[i]]);

			nearest[i] = like > nearest[i] ? like : nearest[i];
		}
	}
	*ret_count = count;
	return KX_OK;
}

static uint32_t pool_size(const struct kx_page_rules *rules)
{
	uint64_t size = (uint64_t)rules->k * POOL_FACTOR;

	if (rules->diversity <= 0.0)
		return rules->k + 1; /* one more, to know whether there is one */
	if (size > PAIRS_MAX / rules->k)
		size = PAIRS_MAX / rules->k;
	if (size < POOL_LEAST)
		size = POOL_LEAST;
	return size > rules->k ? (uint32_t)size : rules->k + 1;
}

kx_status kx_page_take(const struct kx_page_rules *rules, const struct kx_candidate *candidates, size_t count, bool is_all,
		       uint32_t *ret_chosen, uint32_t *ret_count, bool *ret_more, bool *ret_short)
{
	struct pool pool = {.cap = pool_size(rules)};
	kx_status status;

	pool.places = malloc(pool.cap * sizeof(*pool.places));
	status = pool.places ? fill(&pool, rules, candidates, count) : KX_ENOMEM;
	if (!status) {
		*ret_short = pool.count < pool.cap && !pool.ended && !is_all;
		*ret_more = pool.count > rules->k;
		*ret_count = *ret_more ? rules->k : pool.count;
		if (rules->diversity > 0.0)
			status = choose(rules, candidates, &pool, ret_chosen, ret_count);
		else
			memcpy(ret_chosen, pool.places, *ret_count * sizeof(*ret_chosen));
	}
	tdestroy(pool.seen, free);
	free(pool.places);
	return status;
}
