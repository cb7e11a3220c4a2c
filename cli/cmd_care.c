/* shard compact|checkpoint|verify: what is done to a store as a whole, by this process or by the one that holds it. */
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
#include "coordinator/ledger/ledger.h"
#include "shard/run/shard.h"

#define DUPLICATES "duplicates.tsv"
#define DUPLICATES_MAX ((size_t)1 << 30)

struct care {
	struct kx_data *data;  /* to write where nobody else does, else to read */
	bool held;             /* by another process, which is asked */
	bool minds_interrupts; /* Ctrl-C ends the wait for it */
	struct kx_care_done done;
};

static kx_status open_care(const char *dir, struct care *care, struct kx_error *error)
{
	/* To read first: opening to write would make what is not there. */
	kx_status status = kx_data_open(dir, KX_DATA_READ, &care->data, error);
	if (status != KX_OK)
		return status;
	care->held = kx_data_busy(care->data);
	if (care->held)
		return KX_OK;
	kx_data_free(KX_STEAL(care->data));
	return kx_data_open(dir, KX_DATA_WRITE, &care->data, error);
}

static bool goes_on(void *ctx)
{
	const struct care *care = ctx;
	return kx_data_busy(care->data) && !(care->minds_interrupts && kx_stop_asked(&kx_interrupted));
}

static kx_status ask_holder(struct care *care, const struct kx_care_order *order, struct kx_error *error)
{
	struct kx_wire *wire = NULL;
	kx_status status = kx_wire_new(&wire, error);
	if (status == KX_OK)
		status = kx_shard_order(wire, care->data->control, order, goes_on, care, &care->done, error);
	kx_wire_free(wire);
	if (status != KX_ECANCELED)
		return status;
	if (kx_data_busy(care->data))
		return kx_error_set(error, status, KX_ERROR_RETRY,
				    "stopped; the process that holds %s goes on with what it was asked for", care->data->dir);
	return kx_error_set(error, KX_EIO, KX_ERROR_RETRY, "the process that held %s ended before it was done. Try again",
			    care->data->dir);
}

static kx_status carry_out(struct care *care, const struct kx_care_order *order, struct kx_error *error)
{
	return care->held ? ask_holder(care, order, error) : kx_shard_care(care->data->dir, order, &care->done, error);
}

/* --- Compact -------------------------------------------------------------------------------------------------- */

static kx_status print_compacted(const struct kx_config *config, const struct care *care, struct kx_error *error)
{
	char before[32], after[32];
	if (kx_config_flag(config, "json"))
		return kx_json_print(json_pack("{s:s, s:I, s:I}", "compacted", care->data->dir, "bytes_before",
					       (json_int_t)care->done.bytes_before, "bytes_after",
					       (json_int_t)care->done.bytes_after),
				     error);
	kx_format_bytes(care->done.bytes_before, before, sizeof(before));
	kx_format_bytes(care->done.bytes_after, after, sizeof(after));
	printf("%s: %s before, %s after\n", care->data->dir, before, after);
	return KX_OK;
}

static int compact(const struct kx_config *config)
{
	struct kx_care_order order = {.work = KX_CARE_COMPACT, .path = (char *)""};
	struct care care = {.minds_interrupts = true};
	struct kx_error error = {0};
	if (kx_config_argc(config) != 1)
		return kx_usage("shard compact takes no arguments: kinodex shard compact [--data DIR]");
	kx_status status = open_care(kx_config_text(config, "data"), &care, &error);
	if (status == KX_OK)
		status = carry_out(&care, &order, &error);
	if (status == KX_OK)
		status = print_compacted(config, &care, &error);
	kx_data_free(care.data);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}

/* --- Checkpoint ----------------------------------------------------------------------------------------------- */

struct copy {
	struct kx_outdir target;
	bool with_ledger;
};

/* First: a ledger may lag behind its store, never the other way round. */
static kx_status copy_ledger(const struct care *care, struct copy *copy, struct kx_error *error)
{
	KX_CLEANUP(kx_ledger_cleanup) struct kx_ledger *ledger = NULL;
	KX_CLEANUP(kx_cleanup_free) char *from = kx_fs_join(care->data->dir, "ledger");
	KX_CLEANUP(kx_cleanup_free) char *to = kx_fs_join(copy->target.part, "ledger");
	if (from == NULL || to == NULL)
		return kx_error_nomem(error);
	if (!kx_fs_exists(from))
		return KX_OK;
	kx_status status = kx_ledger_open(care->data->dir, false, &ledger, error);
	if (status == KX_EBUSY) /* it is left out, which is said */
		return KX_OK;
	if (status == KX_OK)
		status = kx_ledger_checkpoint(ledger, to, error);
	copy->with_ledger = status == KX_OK;
	return status;
}

static kx_status copy_duplicates(const struct care *care, const struct copy *copy, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *from = kx_fs_join(care->data->dir, DUPLICATES);
	KX_CLEANUP(kx_cleanup_free) char *to = kx_fs_join(copy->target.part, DUPLICATES);
	KX_CLEANUP(kx_buf_done) struct kx_buf text = {0};
	if (from == NULL || to == NULL)
		return kx_error_nomem(error);
	if (!kx_fs_exists(from))
		return KX_OK;
	kx_status status = kx_fs_read(from, DUPLICATES_MAX, &text, error);
	return status == KX_OK ? kx_fs_write(to, text.data, text.len, error) : status;
}

static kx_status fill_target(struct care *care, struct copy *copy, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *store = kx_fs_join(copy->target.part, "shard-0");
	if (store == NULL)
		return kx_error_nomem(error);
	kx_status status = care->held ? KX_OK : copy_ledger(care, copy, error);
	if (status == KX_OK)
		status = carry_out(care, &(struct kx_care_order){.work = KX_CARE_CHECKPOINT, .path = store}, error);
	if (status == KX_OK)
		status = copy_duplicates(care, copy, error);
	if (status == KX_OK)
		status = kx_data_mark(copy->target.part, error);
	return status == KX_OK ? kx_outdir_keep(&copy->target, error) : status;
}

static kx_status make_target(struct care *care, struct copy *copy, struct kx_error *error)
{
	kx_status status = fill_target(care, copy, error);
	return status == KX_OK ? status : kx_outdir_drop(&copy->target, status, error);
}

static kx_status print_target(const struct kx_config *config, const struct care *care, const struct copy *copy,
			      struct kx_error *error)
{
	char bytes[32];
	if (kx_config_flag(config, "json"))
		return kx_json_print(json_pack("{s:s, s:s, s:I, s:b}", "checkpoint", copy->target.dir, "of", care->data->dir,
					       "bytes", (json_int_t)care->done.bytes_after, "ledger",
					       (int)copy->with_ledger),
				     error);
	kx_format_bytes(care->done.bytes_after, bytes, sizeof(bytes));
	printf("%s: the store of %s, %s%s\n", copy->target.dir, care->data->dir, bytes,
	       copy->with_ledger ? ", and its ledger" : "; no ledger: indexing into it decodes everything again");
	return KX_OK;
}

static int checkpoint(const struct kx_config *config)
{
	struct care care = {.minds_interrupts = false}; /* what is asked for writes into our folder until it answers */
	struct copy copy = {0};
	struct kx_error error = {0};
	if (kx_config_argc(config) != 2)
		return kx_usage("checkpoint where to? kinodex shard checkpoint DIR [--data DIR]");
	kx_status status = open_care(kx_config_text(config, "data"), &care, &error);
	if (status == KX_OK)
		status = kx_outdir_make(kx_config_arg(config, 1), &copy.target, &error);
	if (status == KX_OK)
		status = make_target(&care, &copy, &error);
	if (status == KX_OK)
		status = print_target(config, &care, &copy, &error);
	kx_outdir_done(&copy.target);
	kx_data_free(care.data);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}

/* -------------------------------------------------------------------------------------------------------------- */

int kx_cmd_care(const struct kx_config *config)
{
	const char *verb = kx_config_arg(config, 0);
	if (strcmp(verb, "compact") == 0)
		return compact(config);
	if (strcmp(verb, "checkpoint") == 0)
		return checkpoint(config);
	if (strcmp(verb, "verify") == 0 && kx_config_argc(config) == 1)
		return kx_cmd_verify_store(config);
	if (strcmp(verb, "spread") == 0)
		return kx_cmd_spread(config);
	return kx_usage("shard %s? It is kinodex shard, to run one, or shard compact, checkpoint DIR, spread OUT or verify", verb);
}
