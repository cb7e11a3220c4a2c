/* A prober of one's own, for the commands that look at files without a data directory. Layer: cli. */
#ifndef KX_CLI_PROBER_H
#define KX_CLI_PROBER_H

#include "worker/pipeline/pipeline.h"

struct kx_cli_prober {
	struct kx_prober *prober;
	int fd; /* the file, opened to read; -1: there is none */
	char *scratch;
};

/* Opens the file (NULL: none) and starts a decoder host of its own. */
kx_status kx_cli_prober_open(const char *path, struct kx_cli_prober **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_cli_prober_free(struct kx_cli_prober *prober);
void kx_cli_prober_cleanup(struct kx_cli_prober **prober);

#endif
