/* A request's target taken apart: decoded path segments and arguments. Pure. Layer: gateway/http. */
#ifndef KX_GATEWAY_HTTP_TARGET_H
#define KX_GATEWAY_HTTP_TARGET_H

#include <stddef.h>

#include "common/base/error.h"

#define KX_TARGET_SEGMENTS_MAX 8u
#define KX_TARGET_ARGS_MAX 32u

struct kx_target_arg {
	const char *name;
	const char *value;
};

/* Segments are split before they are decoded, so that an id's slashes travel as %2F. */
struct kx_http_target {
	char *memory; /* of all that follows */
	size_t segment_count;
	const char *segments[KX_TARGET_SEGMENTS_MAX];
	size_t arg_count;
	struct kx_target_arg args[KX_TARGET_ARGS_MAX];
};

/* raw: "/a/b%2Fc?x=1&y", or with http://host before it. All that comes out is UTF-8 without zero bytes.
 * KX_EINVAL for a bad escape, text that is no UTF-8, an argument given twice; KX_ETOOBIG for too many parts. */
kx_status kx_http_target_parse(const char *raw, struct kx_http_target *ret, struct kx_error *error) KX_MUST_CHECK;
void kx_http_target_done(struct kx_http_target *target);

/* NULL when it is not there. */
const char *kx_http_target_arg(const struct kx_http_target *target, const char *name);

#endif
