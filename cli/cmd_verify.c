#include <inttypes.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/data.h"
#include "cli/json.h"
#include "common/base/str.h"
#include "coordinator/ledger/ledger.h"
#include "shard/run/shard.h"

struct proof {
	struct kx_shard_verify store;
	bool has_ledger;
	uint64_t counts[KX_INPUT_DELETED + 1];
};

static kx_status verify_ledger(const char *dir, bool needed, struct proof *ret, struct kx_error *error)
{
	KX_CLEANUP(kx_ledger_cleanup) struct kx_ledger *ledger = NULL;
	kx_status status = kx_ledger_open(dir, true, &ledger, error);
	if (status == KX_ENOTFOUND && !needed)
		return KX_OK;
	if (status == KX_OK)
		status = kx_ledger_verify(ledger, ret->counts, error);
	ret->has_ledger = status == KX_OK;
	return status;
}

static kx_status verify(const char *dir, bool needs_ledger, struct proof *ret, struct kx_error *error)
{
	KX_CLEANUP(kx_data_cleanup) struct kx_data *data = NULL;
	kx_status status = kx_data_open(dir, KX_DATA_READ, &data, error);
	if (status == KX_OK)
		status = verify_ledger(data->dir, needs_ledger, ret, error);
	if (status == KX_OK)
		status = kx_shard_verify(data->dir, &ret->store, error);
	if (status != KX_OK)
		return status;
	/* The shard commits first and the ledger follows, so that only the ledger may lag, and only while a run goes on. */
	uint64_t ended = ret->counts[KX_INPUT_DONE] + ret->counts[KX_INPUT_PARTIAL];
	if (ended > ret->store.videos)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL,
				    "the ledger says that %" PRIu64 " videos are indexed, the store holds %" PRIu64
				    ". Index the sources again",
				    ended, ret->store.videos);
	return KX_OK;
}

static kx_status print_proof(const struct kx_config *config, const struct proof *proof, struct kx_error *error)
{
	char digest[2 * KX_SHA_LEN + 1];
	kx_hex_encode(proof->store.digest, KX_SHA_LEN, digest);
	if (kx_config_flag(config, "json"))
		return kx_json_print(json_pack("{s:b, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I}, s:s}", "good", 1, "videos",
					       (json_int_t)proof->store.videos, "moments",
					       (json_int_t)proof->store.moments, "rows", (json_int_t)proof->store.rows,
					       "pending", (json_int_t)proof->store.pending, "index", "vectors",
					       (json_int_t)proof->store.index_rows, "moments",
					       (json_int_t)proof->store.index_moments, "missing",
					       (json_int_t)proof->store.index_missing, "extra",
					       (json_int_t)proof->store.index_extra, "digest", digest),
				     error);
	printf("good: %" PRIu64 " videos, %" PRIu64 " moments, %" PRIu64 " feature rows; %s", proof->store.videos,
	       proof->store.moments, proof->store.rows, proof->has_ledger ? "inputs:" : "no ledger");
	for (int i = KX_INPUT_PLANNED; i <= KX_INPUT_DELETED; i++)
		if (proof->counts[i] > 0)
			printf(" %" PRIu64 " %s", proof->counts[i], kx_input_state_name((enum kx_input_state)i));
	printf("\nindex: %" PRIu64 " vectors, %" PRIu64 " of them of moments, in %" PRIu64 " cells", proof->store.index_rows,
	       proof->store.index_moments, proof->store.index_cells);
	if (proof->store.index_missing || proof->store.index_extra)
		printf(", %" PRIu64 " missing and %" PRIu64 " too many, which the next kinodex index or shard mends",
		       proof->store.index_missing, proof->store.index_extra);
	printf("\ndigest %s\n", digest);
	return KX_OK;
}

static int prove(const struct kx_config *config, bool needs_ledger)
{
	struct proof proof = {0};
	struct kx_error error = {0};
	kx_status status = verify(kx_config_text(config, "data"), needs_ledger, &proof, &error);
	if (status == KX_OK)
		status = print_proof(config, &proof, &error);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}

int kx_cmd_verify(const struct kx_config *config)
{
	return prove(config, true);
}

int kx_cmd_verify_store(const struct kx_config *config)
{
	return prove(config, false);
}
