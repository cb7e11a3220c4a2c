/* JSON on standard output, for machines. Layer: cli. */
#ifndef KX_CLI_JSON_H
#define KX_CLI_JSON_H

#include <jansson.h>

#include "common/base/error.h"

/* Prints json on a line of its own and takes it over. KX_EINVAL for NULL, which is what jansson gives for text that is
 * no UTF-8 and when memory runs out; KX_EIO. */
kx_status kx_json_print(json_t *json, struct kx_error *error) KX_MUST_CHECK;

/* A source as it may be shown: an address without user, password and signature, "" for a path that is not UTF-8, which JSON
 * must be. The caller frees. NULL: no memory. */
char *kx_json_source(const char *source);

#endif
