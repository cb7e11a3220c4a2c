/* Questions to the store, whether or not a process that writes has it open. Layer: cli. */
#ifndef KX_CLI_LOOKUP_H
#define KX_CLI_LOOKUP_H

#include "cli/data.h"
#include "common/record/query.h"
#include "coordinator/ledger/ledger.h"

struct kx_lookup; /* one thread */

/* Opens DIR to read. Where another process writes to it, a question goes to that one over its socket; else the store is
 * opened here, with the first question. */
kx_status kx_lookup_open(const char *dir, struct kx_lookup **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_lookup_free(struct kx_lookup *lookup);
void kx_lookup_cleanup(struct kx_lookup **lookup);

const struct kx_data *kx_lookup_data(const struct kx_lookup *lookup);
/* KX_ENOTFOUND where there is none: of a shard alone, or while the first run begins. */
kx_status kx_lookup_ledger(struct kx_lookup *lookup, struct kx_ledger **ret, struct kx_error *error) KX_MUST_CHECK;

/* Lets filters name classes: [count], borrowed until the first question. */
struct kx_class_names;
void kx_lookup_name_classes(struct kx_lookup *lookup, const struct kx_class_names *names, size_t count);

/* How long a process that writes may take to answer; a minute unless this is called. */
void kx_lookup_patience(struct kx_lookup *lookup, int timeout_ms);

/* Ends early, with KX_ECANCELED, when kx_interrupted is asked. A reply whose status is not KX_OK becomes an error. */
kx_status kx_lookup_ask(struct kx_lookup *lookup, const struct kx_query_request *request, struct kx_query_reply **ret,
			struct kx_error *error) KX_MUST_CHECK;

/* The id that a person's ID or FILE names, or NULL when it is a file that is not indexed. KX_ENOTFOUND when it is
 * neither. Reads the file once for its hash. Without a ledger, what is no file is taken for an id. The caller frees. */
kx_status kx_lookup_resolve(struct kx_lookup *lookup, const char *name, char **ret_id,
			    struct kx_error *error) KX_MUST_CHECK;

#endif
