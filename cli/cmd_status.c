#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/json.h"
#include "cli/lookup.h"
#include "common/base/str.h"

struct listing {
	const char *state; /* or "all" */
	bool json;
};

static kx_status print_input_json(const struct kx_input *input, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *source = kx_json_source(input->source);
	return kx_json_print(
		json_pack("{s:s, s:s, s:s, s:s, s:s, s:f, s:f, s:I, s:s}", "id", input->video_id, "source",
			  source, "state", kx_input_state_name(input->state), "reason",
			  kx_reason_name(input->reason), "message", input->message, "duration_s",
			  (double)input->duration_us / 1e6, "covered_s", (double)input->covered_us / 1e6, "bytes",
			  (json_int_t)input->content_bytes, "copy_of", input->copy_of),
		error);
}

static kx_status list_input(void *ctx, const struct kx_input *input, struct kx_error *error)
{
	const struct listing *listing = ctx;
	const char *state = kx_input_state_name(input->state);
	if (strcmp(listing->state, "all") != 0 && strcmp(listing->state, state) != 0)
		return KX_OK;
	if (listing->json)
		return print_input_json(input, error);
	printf("%-12s %8.1f s  %s%s%s\n", state, (double)input->covered_us / 1e6, input->video_id,
	       input->reason != KX_REASON_NONE ? "  " : "",
	       input->reason != KX_REASON_NONE ? kx_reason_name(input->reason) : "");
	return KX_OK;
}

static kx_status count_input(void *ctx, const struct kx_input *input, struct kx_error *error)
{
	uint64_t *counts = ctx;
	(void)error;
	counts[input->state]++;
	return KX_OK;
}

static void print_index(const struct kx_shard_stats *stats)
{
	if (stats->index_vectors == 0)
		return;
	printf("  index        %" PRIu64 " vectors in %" PRIu64 " cells", stats->index_vectors, stats->index_cells);
	if (stats->index_recall_samples > 0)
		printf(", recall %.3f of %.3f wanted, by %" PRIu64 " queries", stats->index_recall, stats->index_recall_wanted,
		       stats->index_recall_samples);
	printf("\n");
}

static int print_summary(const struct kx_config *config, struct kx_lookup *lookup)
{
	struct kx_error error = {0};
	uint64_t counts[KX_INPUT_DELETED + 1] = {0};
	struct kx_query_request request = {.kind = KX_QUERY_STATS, .video_id = (char *)""};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;
	struct kx_ledger *ledger;
	if (kx_lookup_ledger(lookup, &ledger, &error) != KX_OK ||
	    kx_ledger_each(ledger, count_input, counts, &error) != KX_OK ||
	    kx_lookup_ask(lookup, &request, &reply, &error) != KX_OK)
		return kx_fail(&error);
	const struct kx_shard_stats *stats = &reply->stats;
	char disk[32], media[32];
	kx_format_bytes(stats->disk_bytes, disk, sizeof(disk));
	kx_format_duration(stats->media_us / 1000, media, sizeof(media));
	if (kx_config_flag(config, "json")) {
		json_t *out = json_object();
		for (int i = KX_INPUT_PLANNED; i <= KX_INPUT_DELETED; i++)
			json_object_set_new(out, kx_input_state_name((enum kx_input_state)i),
					    json_integer((json_int_t)counts[i]));
		json_object_set_new(out, "videos", json_integer((json_int_t)stats->videos));
		json_object_set_new(out, "moments", json_integer((json_int_t)stats->moments));
		json_object_set_new(out, "media_s", json_real((double)stats->media_us / 1e6));
		json_object_set_new(out, "store_bytes", json_integer((json_int_t)stats->disk_bytes));
		json_object_set_new(out, "index", json_pack("{s:I, s:I, s:f, s:f, s:I}", "vectors", (json_int_t)stats->index_vectors,
							    "cells", (json_int_t)stats->index_cells, "recall",
							    stats->index_recall, "recall_wanted", stats->index_recall_wanted,
							    "recall_samples", (json_int_t)stats->index_recall_samples));
		return kx_json_print(out, &error) == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
	}
	printf("%s\n  store        %" PRIu64 " videos, %s, %" PRIu64 " moments, %s\n", kx_lookup_data(lookup)->dir,
	       stats->videos, media, stats->moments, disk);
	for (int i = KX_INPUT_PLANNED; i <= KX_INPUT_DELETED; i++)
		if (counts[i] > 0)
			printf("  %-12s %" PRIu64 "\n", kx_input_state_name((enum kx_input_state)i), counts[i]);
	print_index(stats);
	return KX_EXIT_DONE;
}

int kx_cmd_status(const struct kx_config *config)
{
	struct kx_error error = {0};
	KX_CLEANUP(kx_lookup_cleanup) struct kx_lookup *lookup = NULL;
	if (kx_lookup_open(kx_config_text(config, "data"), &lookup, &error) != KX_OK)
		return kx_fail(&error);
	kx_lookup_patience(lookup, (int)kx_config_int(config, "timeout"));
	struct listing listing = {.state = kx_config_text(config, "state"), .json = kx_config_flag(config, "json")};
	if (listing.state == NULL)
		return print_summary(config, lookup);
	struct kx_ledger *ledger;
	if (kx_lookup_ledger(lookup, &ledger, &error) != KX_OK ||
	    kx_ledger_each(ledger, list_input, &listing, &error) != KX_OK)
		return kx_fail(&error);
	return KX_EXIT_DONE;
}
