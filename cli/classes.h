/* Names of classes for filters, from the bundles. Layer: cli. */
#ifndef KX_CLI_CLASSES_H
#define KX_CLI_CLASSES_H

#include "cli/engine.h"
#include "shard/query/attributes.h"

/* Zeroed memory is none. */
struct kx_cli_classes {
	struct kx_bundle *opened[2]; /* owned */
	struct kx_class_names names[2];
	size_t count;
};

/* Of bundles that are open; they must outlive it. */
void kx_cli_classes_of(const struct kx_engine *engine, struct kx_cli_classes *ret);
/* Opens the bundles that the options name. One that can't be opened is logged and left out: a store can be asked without
 * them, though not about classes by name. */
void kx_cli_classes_open(const struct kx_config *config, struct kx_cli_classes *ret);
void kx_cli_classes_done(struct kx_cli_classes *classes);

#endif
