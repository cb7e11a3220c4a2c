#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/data.h"
#include "cli/json.h"
#include "cli/time.h"
#include "common/base/str.h"
#include "shard/query/duplicates.h"
#include "shard/query/duplicates_file.h"
#include "shard/run/index.h"

struct listing {
	bool json;
	struct kx_duplicate_pair *pairs; /* strings are owned */
	size_t count, cap;
};

static void listing_done(struct listing *listing)
{
	for (size_t i = 0; i < listing->count; i++) {
		free((char *)(uintptr_t)listing->pairs[i].id);
		free((char *)(uintptr_t)listing->pairs[i].of);
	}
	free(listing->pairs);
}

static kx_status remember(struct listing *listing, const char *id, const char *of)
{
	if (listing->count == listing->cap) {
		size_t cap = listing->cap ? listing->cap * 2 : 64;
		struct kx_duplicate_pair *pairs = realloc(listing->pairs, cap * sizeof(*pairs));
		if (pairs == NULL)
			return KX_ENOMEM;
		listing->pairs = pairs;
		listing->cap = cap;
	}
	struct kx_duplicate_pair pair = {kx_strdup(id), kx_strdup(of)};
	listing->pairs[listing->count++] = pair;
	return pair.id != NULL && pair.of != NULL ? KX_OK : KX_ENOMEM;
}

static kx_status print_json(const struct kx_duplicate *members, size_t count, struct kx_error *error)
{
	json_t *list = json_array();
	for (size_t i = 0; i < count; i++)
		json_array_append_new(list, json_pack("{s:s, s:f, s:f, s:f, s:f, s:s}", "id", members[i].id, "offset_s",
						      (double)members[i].offset_us / 1e6, "score", members[i].score,
						      "overlap_s", (double)members[i].overlap_us / 1e6, "duration_s",
						      (double)members[i].duration_us / 1e6, "joined_to",
						      members[i].joined_to));
	return kx_json_print(json_pack("{s:s, s:o}", "key", members[0].id, "members", list), error);
}

static void print_plain(const struct kx_duplicate *members, size_t count)
{
	printf("%s\n", members[0].id);
	for (size_t i = 1; i < count; i++) {
		printf("  %.3f  %-40s  %s%s", members[i].score, members[i].id, members[i].offset_us < 0 ? "begins before it, by " :
									       "from ", "");
		kx_print_time((uint64_t)llabs(members[i].offset_us));
		printf(" on, for ");
		kx_print_time(members[i].overlap_us);
		putchar('\n');
	}
}

static kx_status visit(void *ctx, const struct kx_duplicate *members, size_t count, struct kx_error *error)
{
	struct listing *listing = ctx;
	for (size_t i = 1; i < count; i++)
		if (remember(listing, members[i].id, members[0].id) != KX_OK)
			return kx_error_nomem(error);
	if (listing->json)
		return print_json(members, count, error);
	print_plain(members, count);
	return KX_OK;
}

static kx_status find(const struct kx_config *config, const char *dir, struct kx_error *error)
{
	struct kx_duplicates_options options = {.threshold = kx_config_real(config, "threshold"), .stop = &kx_interrupted};
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = NULL;
	KX_CLEANUP(kx_index_cleanup) struct kx_index *index = NULL;
	struct kx_duplicates_stats stats = {0};
	struct listing listing = {.json = kx_config_flag(config, "json")};
	kx_status status = kx_shard_store_open(dir, true, &store, error);
	if (status == KX_OK)
		status = kx_shard_index_open(store, dir, true, true, 0, &index, error);
	if (index != NULL && kx_shard_index_moments(index) >= KX_DUPLICATES_INDEX_FROM)
		options.index = index;
	if (status == KX_OK)
		status = kx_duplicates_find(store, &options, visit, &listing, &stats, error);
	if (status == KX_OK)
		status = kx_duplicates_file_write(dir, listing.pairs, listing.count, error);
	listing_done(&listing);
	if (status == KX_OK && !kx_config_flag(config, "json"))
		printf("%" PRIu64 " sets of near-duplicates, %" PRIu64 " of %" PRIu64 " videos in them; kept for has:duplicate_of "
		       "and --group duplicates\n", stats.clusters, stats.members, stats.videos);
	return status;
}

int kx_cmd_duplicates(const struct kx_config *config)
{
	struct kx_error error = {0};
	struct kx_data *data = NULL;
	if (kx_config_argc(config) != 0)
		return kx_usage("duplicates takes no argument: it looks at the whole data directory (--data)");
	kx_status status = kx_data_open(kx_config_text(config, "data"), KX_DATA_READ, &data, &error);
	if (status == KX_OK)
		status = find(config, data->dir, &error);
	kx_data_free(data);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}
