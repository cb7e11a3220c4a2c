/* file: URLs (RFC 8089). Internal to coordinator/source. */
#ifndef KX_COORDINATOR_SOURCE_URL_H
#define KX_COORDINATOR_SOURCE_URL_H

#include "common/base/error.h"

/* The path that a file: URL names, percent-decoded; the caller frees it. KX_EUNSUPPORTED for any other scheme,
 * KX_EINVAL for what is no URL or names no path of this host; the message says what is wrong with it. */
kx_status kx_source_url_path(const char *url, char **ret_path, struct kx_error *error) KX_MUST_CHECK;

#endif
