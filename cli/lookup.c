#include "cli/lookup.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/base/fs.h"
#include "common/base/hash.h"
#include "common/base/str.h"
#include "common/fetch/fetch.h"
#include "shard/run/shard.h"

/* One that has just opened a large store answers a filter only when it has read all records. */
#define PATIENCE_MS 60000

struct kx_lookup {
	struct kx_data *data;
	struct kx_ledger *ledger;
	struct kx_wire *wire;   /* to the process that writes, once it was asked */
	struct kx_shard *shard; /* the store as it stands, once it was asked */
	const struct kx_class_names *classes;
	size_t class_count;
	int patience_ms;
};

static kx_status open_in(struct kx_lookup *lookup, const char *dir, struct kx_error *error)
{
	kx_status status = kx_data_open(dir, KX_DATA_READ, &lookup->data, error);
	if (status == KX_OK)
		status = kx_ledger_open(lookup->data->dir, true, &lookup->ledger, error);
	/* A shard alone has no ledger. */
	return status == KX_ENOTFOUND && lookup->data != NULL ? KX_OK : status;
}

kx_status kx_lookup_open(const char *dir, struct kx_lookup **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_lookup_cleanup) struct kx_lookup *lookup = calloc(1, sizeof(*lookup));
	if (lookup == NULL)
		return kx_error_nomem(error);
	lookup->patience_ms = PATIENCE_MS;
	kx_status status = open_in(lookup, dir, error);
	if (status == KX_OK)
		*ret = KX_STEAL(lookup);
	return status;
}

void kx_lookup_free(struct kx_lookup *lookup)
{
	if (lookup == NULL)
		return;
	kx_shard_stop(lookup->shard);
	kx_wire_free(lookup->wire);
	kx_ledger_close(lookup->ledger);
	kx_data_free(lookup->data);
	free(lookup);
}

void kx_lookup_cleanup(struct kx_lookup **lookup)
{
	kx_lookup_free(*lookup);
}

const struct kx_data *kx_lookup_data(const struct kx_lookup *lookup)
{
	return lookup->data;
}

kx_status kx_lookup_ledger(struct kx_lookup *lookup, struct kx_ledger **ret, struct kx_error *error)
{
	if (lookup->ledger == NULL)
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_FATAL,
				    "%s holds no ledger: nothing was indexed into it yet, or it is a shard's alone",
				    lookup->data->dir);
	*ret = lookup->ledger;
	return KX_OK;
}

void kx_lookup_name_classes(struct kx_lookup *lookup, const struct kx_class_names *names, size_t count)
{
	lookup->classes = names;
	lookup->class_count = count;
}

void kx_lookup_patience(struct kx_lookup *lookup, int timeout_ms)
{
	lookup->patience_ms = timeout_ms;
}

static bool goes_on(void *ctx)
{
	const struct kx_lookup *lookup = ctx;
	return !kx_stop_asked(&kx_interrupted) && kx_data_busy(lookup->data);
}

/* KX_ECANCELED: it ended before it could answer, or we were asked to stop. */
static kx_status ask_writer(struct kx_lookup *lookup, const struct kx_query_request *request, struct kx_query_reply **ret,
			    struct kx_error *error)
{
	kx_status status = lookup->wire != NULL ? KX_OK : kx_wire_new(&lookup->wire, error);
	if (status != KX_OK)
		return status;
	status = kx_shard_ask_while(lookup->wire, lookup->data->endpoint, request, lookup->patience_ms, goes_on, lookup, ret,
				    error);
	if (status == KX_ECANCELED)
		return kx_error_set(error, status, KX_ERROR_RETRY, "stopped, without the answer of the process that has %s open",
				    lookup->data->dir);
	if (status == KX_ETIMEDOUT)
		return kx_error_set(error, status, KX_ERROR_RETRY,
				    "the process that has %s open did not answer within %.3g s at %s. Give it longer with "
				    "--timeout, or end it and ask again",
				    lookup->data->dir, lookup->patience_ms / 1000.0, lookup->data->endpoint);
	return status;
}

static kx_status ask_here(struct kx_lookup *lookup, const struct kx_query_request *request, struct kx_query_reply **ret,
			  struct kx_error *error)
{
	struct kx_shard_options options = {.data_dir = lookup->data->dir,
					   .read_only = true,
					   .classes = lookup->classes,
					   .class_count = lookup->class_count};
	kx_status status = lookup->shard != NULL ? KX_OK : kx_shard_start(&options, &lookup->shard, error);
	return status == KX_OK ? kx_shard_answer(lookup->shard, request, ret, error) : status;
}

kx_status kx_lookup_ask(struct kx_lookup *lookup, const struct kx_query_request *request, struct kx_query_reply **ret,
			struct kx_error *error)
{
	struct kx_query_reply *reply = NULL;
	bool busy = lookup->shard == NULL && kx_data_busy(lookup->data);
	kx_status status = busy ? ask_writer(lookup, request, &reply, error) : ask_here(lookup, request, &reply, error);
	if (busy && (status == KX_ECANCELED || status == KX_ETIMEDOUT) && !kx_stop_asked(&kx_interrupted) &&
	    !kx_data_busy(lookup->data))
		status = ask_here(lookup, request, &reply, error);
	if (status != KX_OK)
		return status;
	if (reply->status != KX_OK) {
		status = kx_error_set(error, reply->status, KX_ERROR_POISON, "%s", reply->message);
		kx_query_reply_free(reply);
		return status;
	}
	*ret = reply;
	return KX_OK;
}

static kx_status resolve_file(struct kx_lookup *lookup, const char *path, char **ret_id, struct kx_error *error)
{
	uint8_t sha[KX_SHA256_LEN];
	if (kx_fetch_is_url(path)) {
		*ret_id = NULL;
		return KX_OK;
	}
	KX_CLEANUP(kx_cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_POISON,
				    "%s is neither an indexed id nor a file that can be read. kinodex status --state all "
				    "--data %s lists ids",
				    path, lookup->data->dir);
	kx_status status = kx_sha256_fd(fd, sha, error);
	if (status != KX_OK)
		return kx_error_prefix(error, status, "%s: ", path);
	status = kx_ledger_by_content(lookup->ledger, sha, ret_id, error);
	if (status == KX_ENOTFOUND) {
		*ret_id = NULL;
		return KX_OK;
	}
	return status;
}

kx_status kx_lookup_resolve(struct kx_lookup *lookup, const char *name, char **ret_id, struct kx_error *error)
{
	struct kx_input *input = NULL;
	if (lookup->ledger == NULL) {
		bool is_file = kx_fetch_is_url(name) || kx_fs_exists(name);
		*ret_id = is_file ? NULL : kx_strdup(name);
		return *ret_id != NULL || is_file ? KX_OK : kx_error_nomem(error);
	}
	kx_status status = kx_ledger_get(lookup->ledger, name, &input, error);
	if (status == KX_ENOTFOUND)
		return resolve_file(lookup, name, ret_id, error);
	if (status != KX_OK)
		return status;
	if (input->state == KX_INPUT_DONE || input->state == KX_INPUT_PARTIAL) {
		*ret_id = kx_strdup(name);
		status = *ret_id != NULL ? KX_OK : kx_error_nomem(error);
	} else {
		status = kx_error_set(error, KX_ENOTFOUND, KX_ERROR_POISON, "%s is not indexed: it is %s%s%s", name,
				      kx_input_state_name(input->state), input->message[0] != '\0' ? ", " : "",
				      input->message);
	}
	kx_input_free(input);
	return status;
}
