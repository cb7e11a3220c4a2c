#include "gateway/backend/layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LISTED_MAX 4u /* parts that a gap names one by one */

static const struct kx_shard_stats *part_of(const struct kx_call_result *result)
{
	const struct kx_query_reply *reply = result->reply;

	return reply != NULL && reply->status == KX_OK && reply->stats.parts > 1 ? &reply->stats : NULL;
}

static const struct kx_call_result *find(const struct kx_call_result *results, unsigned count, uint32_t part)
{
	for (unsigned i = 0; i < count; i++)
		if (part_of(&results[i]) != NULL && part_of(&results[i])->part == part)
			return &results[i];
	return NULL;
}

static void refuse(struct kx_call_result *result, kx_status status)
{
	kx_query_reply_free(KX_STEAL(result->reply));
	result->status = status;
}

/* first: the first that told its part. */
static void check_one(struct kx_call_result *results, unsigned at, const struct kx_call_result *first)
{
	struct kx_call_result *result = &results[at];
	const struct kx_shard_stats *has = part_of(result);
	const struct kx_call_result *twin = find(results, at, has->part);

	if (has->parts != part_of(first)->parts) {
		snprintf(result->message, sizeof(result->message),
			 "part %" PRIu32 " of %" PRIu32 ", where %s is one of %" PRIu32 "; name shards of one division only",
			 has->part, has->parts, first->endpoint, part_of(first)->parts);
		refuse(result, KX_EINVAL);
	} else if (twin != NULL) {
		snprintf(result->message, sizeof(result->message),
			 "part %" PRIu32 " of %" PRIu32 ", as %s is; a replica is named behind its shard and a |", has->part,
			 has->parts, twin->endpoint);
		refuse(result, KX_EEXIST);
	}
}

static void find_gap(const struct kx_call_result *results, unsigned count, uint32_t parts, struct kx_layout_gap *gap)
{
	uint32_t missing = parts, listed = 0;
	size_t len = 0;

	for (unsigned i = 0; i < count; i++)
		missing -= part_of(&results[i]) != NULL && part_of(&results[i])->part < parts;
	if (missing == 0)
		return;
	for (uint32_t part = 0; part < parts && listed < LISTED_MAX; part++) {
		if (find(results, count, part) != NULL)
			continue;
		len += (size_t)snprintf(gap->parts + len, sizeof(gap->parts) - len, "%s%" PRIu32,
					listed == 0 ? missing > 1 ? "parts " : "part " : ", ", part);
		listed++;
	}
	snprintf(gap->parts + len, sizeof(gap->parts) - len, "%s of %" PRIu32, missing > listed ? ", ..." : "", parts);
	snprintf(gap->reason, sizeof(gap->reason), "on no shard that was named: its videos are missing from every answer");
}

void kx_layout_check(struct kx_call_result *results, unsigned count, struct kx_layout_gap *ret)
{
	const struct kx_call_result *first = NULL;
	bool silent = false;

	*ret = (struct kx_layout_gap){0};
	for (unsigned i = 0; i < count; i++) {
		silent |= results[i].reply == NULL || results[i].reply->status != KX_OK;
		if (part_of(&results[i]) == NULL)
			continue;
		if (first == NULL)
			first = &results[i];
		else
			check_one(results, i, first);
	}
	if (first != NULL && !silent)
		find_gap(results, count, part_of(first)->parts, ret);
}

static bool is_same(const struct kx_call_copy *one, const struct kx_call_copy *two)
{
	return one->part == two->part && one->parts == two->parts;
}

static void describe(const struct kx_call_copy *copy, const struct kx_call_copy *first, struct kx_layout_stray *ret)
{
	ret->endpoint = copy->endpoint;
	snprintf(ret->reason, sizeof(ret->reason),
		 "part %" PRIu32 " of %" PRIu32 ", where %.90s, whose replica it is named, has part %" PRIu32 " of %" PRIu32
		 "; it is left out",
		 copy->part, copy->parts, first->endpoint, first->part, first->parts);
}

unsigned kx_layout_strays(const struct kx_call_result *results, unsigned count, struct kx_layout_stray *ret)
{
	unsigned found = 0;

	for (unsigned i = 0; i < count; i++) {
		const struct kx_call_copy *first = NULL;

		for (unsigned at = 0; at < KX_FANOUT_COPIES_MAX; at++) {
			const struct kx_call_copy *copy = &results[i].copies[at];

			if (copy->endpoint == NULL)
				continue;
			if (first == NULL) {
				first = copy;
			} else if (!is_same(copy, first)) {
				describe(copy, first, &ret[found]);
				ret[found].shard = i;
				ret[found++].copy = at;
			}
		}
	}
	return found;
}
