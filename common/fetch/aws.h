/* Who we are to S3 and where it is, from the environment and the profile files. Layer: fetch, private. */
#ifndef KX_FETCH_AWS_H
#define KX_FETCH_AWS_H

#include "common/base/error.h"

/* NULL: not said. Zeroed memory is an empty one. */
struct kx_aws {
	char *key, *secret, *token;
	char *region;   /* never NULL once loaded */
	char *endpoint; /* without a slash at its end */
};
void kx_aws_done(struct kx_aws *aws);

/* Environment first, then the profile that AWS_PROFILE names ("default" when none does): the credentials file, then the
 * config file. Read anew each time, since sessions expire and files are refreshed. A profile that was asked for by name
 * and is nowhere is KX_EINVAL, as are half-given credentials. */
kx_status kx_aws_load(struct kx_aws *ret, struct kx_error *error) KX_MUST_CHECK;

#endif
