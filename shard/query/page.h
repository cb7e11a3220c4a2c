/* Which of the candidates make a page: cursor, least score, groups, diversity. Pure. Internal to shard/query. */
#ifndef KX_SHARD_QUERY_PAGE_H
#define KX_SHARD_QUERY_PAGE_H

#include "common/record/cursor.h"

struct kx_candidate {
	uint32_t row;
	double score;
	uint64_t moment_us; /* at KX_LEVEL_MOMENTS */
	const char *id;     /* borrowed */
};

struct kx_page_rules {
	uint32_t k;
	bool has_min_score;
	double min_score;
	const struct kx_cursor *cursor; /* NULL: the first page */
	/* The group of a candidate, which the page frees; NULL (no memory) ends it. Without groups: NULL. */
	char *(*group)(const void *ctx, const struct kx_candidate *candidate);
	double diversity;
	/* How like two candidates are, for diversity. */
	double (*likeness)(const void *ctx, const struct kx_candidate *a, const struct kx_candidate *b);
	const void *ctx;
};

/* candidates: the best `count` by kx_hit_order(), in that order; is_all: there are no others. ret_chosen: [k], places in
 * candidates. *ret_more: something is behind the page. *ret_short: more candidates are needed to tell. KX_ENOMEM. */
kx_status kx_page_take(const struct kx_page_rules *rules, const struct kx_candidate *candidates, size_t count, bool is_all,
		       uint32_t *ret_chosen, uint32_t *ret_count, bool *ret_more, bool *ret_short) KX_MUST_CHECK;

#endif
