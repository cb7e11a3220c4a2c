/* Errors as application/problem+json (RFC 9457). Pure. Layer: gateway/json. */
#ifndef KX_GATEWAY_JSON_PROBLEM_H
#define KX_GATEWAY_JSON_PROBLEM_H

#include "common/base/buf.h"
#include "common/base/error.h"

#define KX_PROBLEM_TYPE "application/problem+json"

/* The HTTP status for what went wrong: 400, 404, ... */
unsigned kx_problem_code(kx_status status);

/* Replaces what is in out. code: an HTTP status, which gives type ("urn:kinodex:problem:not-found") and title. A detail
 * that says "... offset N ..." of a filter also has it as a number. */
kx_status kx_problem_write(unsigned code, const char *detail, struct kx_buf *out) KX_MUST_CHECK;

#endif
