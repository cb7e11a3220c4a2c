#include <stdlib.h>
#include <string.h>

#include "shard/query/duplicates_internal.h"

struct finding {
	struct kx_dup_set set;
	struct kx_dup_match *matches;
	size_t match_count;
	struct kx_dup_pair *pairs;
	size_t pair_count, pair_cap;
	uint32_t *parent; /* union-find over videos */
	bool *reached;
	struct kx_duplicate *members; /* of the cluster in hand: [videos] */
	uint32_t *queue;
};

static void finding_done(struct finding *finding)
{
	kx_dup_set_done(&finding->set);
	free(finding->matches);
	free(finding->pairs);
	free(finding->parent);
	free(finding->reached);
	free(finding->members);
	free(finding->queue);
}

static uint32_t root_of(uint32_t *parent, uint32_t video)
{
	while (parent[video] != video) {
		parent[video] = parent[parent[video]];
		video = parent[video];
	}
	return video;
}

static kx_status add_pair(struct finding *finding, const struct kx_dup_pair *pair)
{
	uint32_t a = root_of(finding->parent, pair->a), b = root_of(finding->parent, pair->b);

	if (finding->pair_count == finding->pair_cap) {
		size_t cap = finding->pair_cap ? finding->pair_cap * 2 : 256;
		struct kx_dup_pair *pairs = realloc(finding->pairs, cap * sizeof(*pairs));

		if (!pairs)
			return KX_ENOMEM;
		finding->pairs = pairs;
		finding->pair_cap = cap;
	}
	finding->pairs[finding->pair_count++] = *pair;
	finding->parent[a > b ? a : b] = a > b ? b : a;
	return KX_OK;
}

/* matches come by pair: each run of them is two videos. */
static kx_status verify_all(struct finding *finding, struct kx_store *store, const struct kx_duplicates_options *options,
			    struct kx_duplicates_stats *stats, struct kx_error *error)
{
	for (size_t from = 0, to; from < finding->match_count; from = to) {
		const struct kx_dup_match *run = &finding->matches[from];
		struct kx_dup_pair pair;
		bool holds;
		kx_status status;

		for (to = from; to < finding->match_count && finding->matches[to].a == run->a && finding->matches[to].b == run->b;)
			to++;
		if (options->stop && kx_stop_asked(options->stop))
			return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopped");
		status = kx_dup_verify(store, &finding->set, options, run, to - from, &pair, &holds, error);
		if (status)
			return status;
		stats->pairs++;
		if (holds && add_pair(finding, &pair))
			return kx_error_nomem(error);
	}
	return KX_OK;
}

/* The longest of a cluster, by id among equals: videos are in the order of their ids. */
static uint32_t first_of(const struct finding *finding, uint32_t root)
{
	uint32_t best = root;

	for (uint32_t i = 0; i < finding->set.video_count; i++)
		if (root_of(finding->parent, i) == root &&
		    finding->set.videos[i].duration_us > finding->set.videos[best].duration_us)
			best = i;
	return best;
}

static struct kx_duplicate member(const struct finding *finding, uint32_t video)
{
	const struct kx_dup_video *from = &finding->set.videos[video];

	return (struct kx_duplicate){.id = from->id, .duration_us = from->duration_us, .joined_to = "", .score = 1.0,
				     .overlap_us = from->duration_us};
}

/* Members join through the pair that scores best with anyone reached so far (Prim), which carries the offset along. */
static size_t reach_all(struct finding *finding, uint32_t first)
{
	size_t count = 1;

	finding->members[0] = member(finding, first);
	finding->queue[0] = first;
	finding->reached[first] = true;
	for (;;) {
		const struct kx_dup_pair *best = NULL;
		bool from_a;
		size_t at = 0;

		for (size_t i = 0; i < finding->pair_count; i++) {
			const struct kx_dup_pair *pair = &finding->pairs[i];

			if (finding->reached[pair->a] != finding->reached[pair->b] && (!best || pair->score > best->score) &&
			    root_of(finding->parent, pair->a) == root_of(finding->parent, first))
				best = pair;
		}
		if (!best)
			return count;
		from_a = finding->reached[best->a];
		while (finding->queue[at] != (from_a ? best->a : best->b))
			at++;
		finding->queue[count] = from_a ? best->b : best->a;
		finding->members[count] = member(finding, finding->queue[count]);
		finding->members[count].joined_to = finding->members[at].id;
		finding->members[count].score = best->score;
		finding->members[count].overlap_us = best->overlap_us;
		/* offset_us of a pair is where a begins on b's time line. */
		finding->members[count].offset_us =
			finding->members[at].offset_us + (from_a ? -best->offset_us : best->offset_us);
		finding->reached[finding->queue[count]] = true;
		count++;
	}
}

static int by_time(const void *one, const void *two)
{
	const struct kx_duplicate *a = one, *b = two;

	if (a->offset_us != b->offset_us)
		return a->offset_us < b->offset_us ? -1 : 1;
	return strcmp(a->id, b->id);
}

static int by_video(const void *one, const void *two)
{
	const uint32_t *a = one, *b = two;

	return (*a > *b) - (*a < *b);
}

typedef kx_status (*visitor)(void *ctx, const struct kx_duplicate *members, size_t count, struct kx_error *error);

/* Firsts of all clusters of two and more, by id. */
static uint32_t list_firsts(struct finding *finding, uint32_t *firsts)
{
	uint32_t count = 0;

	memset(finding->reached, 0, finding->set.video_count * sizeof(*finding->reached));
	for (size_t i = 0; i < finding->pair_count; i++) {
		uint32_t root = root_of(finding->parent, finding->pairs[i].a);

		if (finding->reached[root])
			continue;
		finding->reached[root] = true;
		firsts[count++] = first_of(finding, root);
	}
	memset(finding->reached, 0, finding->set.video_count * sizeof(*finding->reached));
	qsort(firsts, count, sizeof(*firsts), by_video);
	return count;
}

static kx_status tell_all(struct finding *finding, visitor visit, void *ctx, struct kx_duplicates_stats *stats,
			  struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) uint32_t *firsts = calloc(finding->set.video_count + 1u, sizeof(*firsts));
	uint32_t count;

	if (!firsts)
		return kx_error_nomem(error);
	count = list_firsts(finding, firsts);
	for (uint32_t i = 0; i < count; i++) {
		size_t members = reach_all(finding, firsts[i]);
		kx_status status;

		qsort(finding->members + 1, members - 1, sizeof(*finding->members), by_time);
		stats->clusters++;
		stats->members += members;
		status = visit(ctx, finding->members, members, error);
		if (status)
			return status;
	}
	return KX_OK;
}

static kx_status prepare(struct finding *finding, struct kx_duplicates_stats *stats, struct kx_error *error)
{
	uint32_t count = finding->set.video_count;

	stats->videos = count;
	stats->moments = finding->set.moment_count;
	finding->parent = calloc(count + 1u, sizeof(*finding->parent));
	finding->reached = calloc(count + 1u, sizeof(*finding->reached));
	finding->members = calloc(count + 1u, sizeof(*finding->members));
	finding->queue = calloc(count + 1u, sizeof(*finding->queue));
	if (!finding->parent || !finding->reached || !finding->members || !finding->queue)
		return kx_error_nomem(error);
	for (uint32_t i = 0; i < count; i++)
		finding->parent[i] = i;
	return KX_OK;
}

kx_status kx_duplicates_find(struct kx_store *store, const struct kx_duplicates_options *options, visitor visit, void *ctx,
			     struct kx_duplicates_stats *ret_stats, struct kx_error *error)
{
	struct kx_duplicates_stats stats = {0};
	struct finding finding = {0};
	kx_status status;

	if (!(options->threshold > 0.0 && options->threshold <= 1.0))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "threshold is %g, it must be over 0 and at most 1",
				    options->threshold);
	status = kx_dup_load(store, options, &finding.set, error);
	if (!status)
		status = prepare(&finding, &stats, error);
	if (!status)
		status = kx_dup_match(store, &finding.set, options, &finding.matches, &finding.match_count, &stats.compared, error);
	stats.matches = finding.match_count;
	if (!status)
		status = verify_all(&finding, store, options, &stats, error);
	if (!status)
		status = tell_all(&finding, visit, ctx, &stats, error);
	finding_done(&finding);
	if (!status && ret_stats)
		*ret_stats = stats;
	return status;
}
