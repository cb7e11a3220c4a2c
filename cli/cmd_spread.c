/* shard spread: the stores of a catalogue made anew as another number of them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/data.h"
#include "cli/json.h"
#include "cli/outdir.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "shard/run/spread.h"

struct spread {
	const struct kx_config *config;
	struct kx_data *data[KX_SPREAD_MAX]; /* locked: nobody writes meanwhile */
	const char *from[KX_SPREAD_MAX];     /* their folders */
	size_t from_count;
	uint32_t parts;
	struct kx_outdir target;
	char *to[KX_SPREAD_MAX]; /* in the target's part */
	struct kx_spread_counts each[KX_SPREAD_MAX], all;
};

static void spread_cleanup(struct spread **spread)
{
	if (*spread == NULL)
		return;
	for (size_t i = 0; i < KX_SPREAD_MAX; i++) {
		kx_data_free((*spread)->data[i]);
		free((*spread)->to[i]);
	}
	kx_outdir_done(&(*spread)->target);
	free(*spread);
}

static kx_status open_source(struct spread *spread, const char *name, struct kx_error *error)
{
	/* To read first: opening to write would make what is not there. */
	struct kx_data *data = NULL;
	kx_status status = kx_data_open(name, KX_DATA_READ, &data, error);
	for (size_t i = 0; status == KX_OK && i < spread->from_count; i++)
		if (strcmp(spread->from[i], data->dir) == 0)
			status = kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s is named twice", data->dir);
	kx_data_free(data);
	if (status != KX_OK)
		return status;
	status = kx_data_open(name, KX_DATA_WRITE, &spread->data[spread->from_count], error);
	if (status == KX_OK) {
		spread->from[spread->from_count] = spread->data[spread->from_count]->dir;
		spread->from_count++;
	}
	return status;
}

static kx_status open_sources(struct spread *spread, struct kx_error *error)
{
	size_t count = kx_config_argc(spread->config);
	kx_status status = KX_OK;
	if (count == 2)
		return open_source(spread, kx_config_text(spread->config, "data"), error);
	for (size_t i = 2; status == KX_OK && i < count; i++)
		status = open_source(spread, kx_config_arg(spread->config, i), error);
	return status;
}

static char *part_dir(const char *dir, uint32_t part, uint32_t parts)
{
	return kx_strf("%s/part-%" PRIu32 "-of-%" PRIu32, dir, part, parts);
}

static bool goes_on(void *ctx)
{
	(void)ctx;
	return !kx_stop_asked(&kx_interrupted);
}

/* The last thing that makes a folder a data directory is its FORMAT. */
static kx_status fill(struct spread *spread, struct kx_error *error)
{
	struct kx_shard_spread options = {.from = spread->from,
					  .from_count = spread->from_count,
					  .to = (const char *const *)spread->to,
					  .parts = spread->parts,
					  .partitions = (uint32_t)kx_config_int(spread->config, "partitions"),
					  .goes_on = goes_on};
	for (uint32_t i = 0; i < spread->parts; i++)
		if ((spread->to[i] = part_dir(spread->target.part, i, spread->parts)) == NULL)
			return kx_error_nomem(error);
	kx_status status = kx_shard_spread(&options, spread->each, &spread->all, error);
	for (uint32_t i = 0; status == KX_OK && i < spread->parts; i++)
		status = kx_data_mark(spread->to[i], error);
	return status == KX_OK ? kx_outdir_keep(&spread->target, error) : status;
}

static kx_status make(struct spread *spread, struct kx_error *error)
{
	kx_status status = fill(spread, error);
	return status == KX_OK ? status : kx_outdir_drop(&spread->target, status, error);
}

static json_t *counts_json(const char *dir, const struct kx_spread_counts *counts)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "data", dir, "videos", (json_int_t)counts->videos, "moments",
			 (json_int_t)counts->moments, "pending", (json_int_t)counts->pending, "deletions",
			 (json_int_t)counts->deletions, "events", (json_int_t)counts->events, "offsets",
			 (json_int_t)counts->offsets);
}

static kx_status print_json(const struct spread *spread, struct kx_error *error)
{
	json_t *out = counts_json(spread->target.dir, &spread->all);
	json_t *parts = json_array();
	for (uint32_t i = 0; i < spread->parts; i++) {
		KX_CLEANUP(kx_cleanup_free) char *dir = part_dir(spread->target.dir, i, spread->parts);
		json_array_append_new(parts, counts_json(dir != NULL ? dir : "", &spread->each[i]));
	}
	json_object_set_new(out, "parts", parts);
	return kx_json_print(out, error);
}

static kx_status print(const struct spread *spread, struct kx_error *error)
{
	if (kx_config_flag(spread->config, "json"))
		return print_json(spread, error);
	for (uint32_t i = 0; i < spread->parts; i++) {
		KX_CLEANUP(kx_cleanup_free) char *dir = part_dir(spread->target.dir, i, spread->parts);
		char bytes[32];
		if (dir == NULL)
			return kx_error_nomem(error);
		kx_format_bytes(kx_fs_tree_bytes(dir), bytes, sizeof(bytes));
		printf("%s: %" PRIu64 " videos, %" PRIu64 " moments, %s\n", dir, spread->each[i].videos, spread->each[i].moments,
		       bytes);
	}
	printf("%" PRIu64 " videos, %" PRIu64 " still arriving and %" PRIu64
	       " deleted: all that was there, each in one place, and read back\n",
	       spread->all.videos, spread->all.pending, spread->all.deletions);
	return KX_OK;
}

int kx_cmd_spread(const struct kx_config *config)
{
	struct kx_error error = {0};
	if (kx_config_argc(config) < 2)
		return kx_usage("spread where to? kinodex shard spread OUT [DIR...] --shards N");
	if (kx_config_argc(config) > 2 + KX_SPREAD_MAX)
		return kx_usage("at most %u stores can be spread", KX_SPREAD_MAX);
	KX_CLEANUP(spread_cleanup) struct spread *spread = calloc(1, sizeof(*spread));
	if (spread == NULL)
		return kx_fail(&(struct kx_error){.status = KX_ENOMEM, .message = "out of memory"});
	spread->config = config;
	spread->parts = (uint32_t)kx_config_int(config, "shards");
	kx_status status = open_sources(spread, &error);
	if (status == KX_OK)
		status = kx_outdir_make(kx_config_arg(config, 1), &spread->target, &error);
	if (status == KX_OK)
		status = make(spread, &error);
	if (status == KX_OK)
		status = print(spread, &error);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}
