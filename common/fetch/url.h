/* Addresses: taking them apart, showing them, and making an s3 one into what is asked for. Pure. Layer: fetch, private. */
#ifndef KX_FETCH_URL_H
#define KX_FETCH_URL_H

#include <stdbool.h>

#include "common/base/error.h"
#include "common/fetch/aws.h"

/* What a request is made of. Zeroed memory is an empty one; the strings are its own. */
struct kx_target {
	char *url;     /* http or https */
	char *name;    /* for messages */
	bool is_s3;
	char *provider; /* for libcurl's signer; NULL: not signed */
	struct kx_aws aws;
};
void kx_target_done(struct kx_target *target);

/* KX_EINVAL says what is wrong with the address. For s3 it reads the environment and the profile files. */
kx_status kx_target_of(const char *source, struct kx_target *ret, struct kx_error *error) KX_MUST_CHECK;
/* The listing of a bucket: query is encoded, its names in order, as the signature wants it. */
kx_status kx_target_of_bucket(const char *source, const char *query, struct kx_target *ret, struct kx_error *error)
	KX_MUST_CHECK;

/* s3://bucket/key: both are the caller's to free; the key may be "". */
kx_status kx_url_split_s3(const char *source, char **ret_bucket, char **ret_key, struct kx_error *error) KX_MUST_CHECK;
/* Percent-encodes all but unreserved characters and those in keep. NULL when out of memory. */
char *kx_url_encode(const char *text, const char *keep);
/* NULL when out of memory; what is no escape stays. plus: '+' is a blank. */
char *kx_url_decode(const char *text, bool plus);

#endif
