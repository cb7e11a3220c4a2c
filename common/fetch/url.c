#include "common/fetch/url.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/buf.h"
#include "common/base/str.h"
#include "common/fetch/fetch.h"
#include "common/record/types.h"

#define URL_MAX ((size_t)4 * KX_PATH_MAX)

static bool has_scheme(const char *source, const char *scheme)
{
	return strncasecmp(source, scheme, strlen(scheme)) == 0;
}

static bool is_s3(const char *source)
{
	return has_scheme(source, "s3://");
}

bool kx_fetch_is_url(const char *source)
{
	return is_s3(source) || has_scheme(source, "http://") || has_scheme(source, "https://");
}

bool kx_fetch_is_prefix(const char *url)
{
	return is_s3(url) && (kx_str_ends(url, "/") || !strchr(url + strlen("s3://"), '/'));
}

/* ---- showing ---- */

/* Parameters of addresses that carry a right to read: S3 (two versions), Google, CloudFront, Azure, and usual names. */
static bool is_secret(const char *name, size_t len)
{
	static const char *const starts[] = {"x-amz-", "x-goog-", "x-oss-"};
	static const char *const names[] = {"awsaccesskeyid", "googleaccessid", "signature", "expires", "policy",
					    "key-pair-id", "sig", "se", "sp", "sv", "sr", "st", "spr", "skoid", "sktid",
					    "skt", "ske", "sks", "skv", "token", "access_token", "auth", "key",
					    "api_key", "apikey", "password", "secret", "hmac", "hash"};
	for (size_t i = 0; i < KX_ARRAY_LEN(starts); i++) {
		size_t start = strlen(starts[i]);
		if (len >= start && strncasecmp(name, starts[i], start) == 0)
			return true;
	}
	for (size_t i = 0; i < KX_ARRAY_LEN(names); i++) {
		if (len == strlen(names[i]) && strncasecmp(name, names[i], len) == 0)
			return true;
	}
	return false;
}

/* Copies the query without what is secret. out has room for all of it. */
static char *copy_query(const char *query, size_t len, char *out)
{
	char between = '?';
	for (size_t at = 0; at < len;) {
		size_t part = 0;
		while (at + part < len && query[at + part] != '&')
			part++;
		const char *equals = memchr(query + at, '=', part);
		if (!is_secret(query + at, equals ? (size_t)(equals - query) - at : part)) {
			*out++ = between;
			memcpy(out, query + at, part);
			out += part;
			between = '&';
		}
		at += part + 1;
	}
	return out;
}

char *kx_fetch_name(const char *url)
{
	if (is_s3(url) || !kx_fetch_is_url(url))
		return kx_strdup(url);
	char *name = malloc(strlen(url) + 1);
	if (!name)
		return NULL;
	const char *host = strstr(url, "://") + 3;
	const char *host_end = host + strcspn(host, "/?#");
	const char *at = memrchr(host, '@', (size_t)(host_end - host));
	char *out = mempcpy(name, url, (size_t)(host - url));
	host = at ? at + 1 : host;
	size_t path_len = (size_t)(host_end - host) + strcspn(host_end, "?#");
	out = mempcpy(out, host, path_len);
	const char *query = host + path_len;
	if (*query == '?')
		out = copy_query(query + 1, strcspn(query + 1, "#"), out);
	*out = '\0';
	return name;
}

char *kx_fetch_file_name(const char *url)
{
	const char *path = strstr(url, "://");
	path = path ? path + 3 : url;
	size_t len = is_s3(url) ? strlen(path) : strcspn(path, "?#");
	while (len > 0 && path[len - 1] == '/')
		len--;
	const char *slash = memrchr(path, '/', len);
	const char *start = slash ? slash + 1 : path;
	KX_CLEANUP(kx_cleanup_free) char *part = kx_strndup(start, (size_t)(path + len - start));
	if (!part)
		return NULL;
	return is_s3(url) ? KX_STEAL(part) : kx_url_decode(part, false);
}

/* ---- encoding ---- */

char *kx_url_encode(const char *text, const char *keep)
{
	static const char digits[] = "0123456789ABCDEF";
	char *encoded = malloc(3 * strlen(text) + 1);
	char *out = encoded;
	if (!encoded)
		return NULL;
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if ((c < 0x80 && isalnum(c)) || strchr("-._~", c) || strchr(keep, c)) {
			*out++ = (char)c;
			continue;
		}
		*out++ = '%';
		*out++ = digits[c >> 4];
		*out++ = digits[c & 15];
	}
	*out = '\0';
	return encoded;
}

char *kx_url_decode(const char *text, bool plus)
{
	char *decoded = kx_strdup(text);
	if (!decoded)
		return NULL;
	char *out = decoded;
	for (const char *in = text; *in; in++, out++) {
		char digits[3] = {0};
		uint8_t byte;
		*out = plus && *in == '+' ? ' ' : *in;
		if (*in != '%')
			continue;
		memcpy(digits, in + 1, strnlen(in + 1, 2));
		if (strlen(digits) != 2 || kx_hex_decode(digits, &byte, 1) != KX_OK || byte == 0)
			continue;
		*out = (char)byte;
		in += 2;
	}
	*out = '\0';
	return decoded;
}

/* ---- what is asked for ---- */

void kx_target_done(struct kx_target *target)
{
	free(target->url);
	free(target->name);
	free(target->provider);
	kx_aws_done(&target->aws);
	*target = (struct kx_target){0};
}

static kx_status invalid(struct kx_error *error, const char *source, const char *what)
{
	KX_CLEANUP(kx_cleanup_free) char *name = kx_fetch_name(source);
	return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%.300s: %s", name ? name : "address", what);
}

kx_status kx_url_split_s3(const char *source, char **ret_bucket, char **ret_key, struct kx_error *error)
{
	const char *bucket = source + strlen("s3://");
	size_t len = strcspn(bucket, "/");
	if (len == 0 || len > 255 ||
	    strspn(bucket, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") < len)
		return invalid(error, source, "an s3 address is s3://BUCKET/KEY, and this names no bucket");
	char *copy = kx_strndup(bucket, len);
	char *key = kx_strdup(bucket[len] ? bucket + len + 1 : "");
	if (!copy || !key) {
		free(copy);
		free(key);
		return kx_error_nomem(error);
	}
	*ret_bucket = copy;
	*ret_key = key;
	return KX_OK;
}

/* Behind an endpoint of one's own the bucket stands in the path, which every server knows. At AWS it stands in the host
 * name, but not with a dot in it, since no certificate covers that. */
static char *s3_url(const struct kx_aws *aws, const char *bucket, const char *path)
{
	if (aws->endpoint)
		return kx_strf("%s%s/%s%s", strstr(aws->endpoint, "://") ? "" : "https://", aws->endpoint, bucket,
			       path);
	if (strchr(bucket, '.'))
		return kx_strf("https://s3.%s.amazonaws.com/%s%s", aws->region, bucket, path);
	return kx_strf("https://%s.s3.%s.amazonaws.com%s", bucket, aws->region, path);
}

/* path: encoded, from the slash after the bucket, with the query. */
static kx_status s3_target(const char *source, const char *bucket, const char *path, struct kx_target *target,
			   struct kx_error *error)
{
	target->is_s3 = true;
	target->name = kx_strdup(source);
	kx_status status = kx_aws_load(&target->aws, error);
	if (status)
		return kx_error_prefix(error, status, "%.300s", source);
	target->url = s3_url(&target->aws, bucket, path);
	if (target->aws.key)
		target->provider = kx_strf("aws:amz:%s:s3", target->aws.region);
	if (!target->name || !target->url || (target->aws.key && !target->provider))
		return kx_error_nomem(error);
	return KX_OK;
}

static kx_status s3_object(const char *source, struct kx_target *target, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *bucket = NULL;
	KX_CLEANUP(kx_cleanup_free) char *key = NULL;
	kx_status status = kx_url_split_s3(source, &bucket, &key, error);
	if (status)
		return status;
	if (!key[0])
		return invalid(error, source, "it names a bucket and no object");
	KX_CLEANUP(kx_cleanup_free) char *encoded = kx_url_encode(key, "/");
	KX_CLEANUP(kx_cleanup_free) char *path = encoded ? kx_strf("/%s", encoded) : NULL;
	return path ? s3_target(source, bucket, path, target, error) : kx_error_nomem(error);
}

static kx_status web_target(const char *source, struct kx_target *target, struct kx_error *error)
{
	const char *host = strstr(source, "://") + 3;
	if (strcspn(host, "/?#") == 0)
		return invalid(error, source, "it names no host");
	for (const unsigned char *c = (const unsigned char *)source; *c; c++) {
		if (*c <= 0x20 || *c >= 0x7f)
			return invalid(error, source, "blanks and characters beyond ASCII are written %20 and so on "
						      "in an address");
	}
	target->url = kx_strndup(source, strcspn(source, "#"));
	target->name = kx_fetch_name(source);
	return target->url && target->name ? KX_OK : kx_error_nomem(error);
}

static kx_status finish(kx_status status, struct kx_target *target, struct kx_target *ret)
{
	if (status)
		kx_target_done(target);
	else
		*ret = *target;
	return status;
}

kx_status kx_target_of(const char *source, struct kx_target *ret, struct kx_error *error)
{
	struct kx_target target = {0};
	if (!kx_fetch_is_url(source) || strlen(source) > URL_MAX)
		return invalid(error, source, "no address of a kind that is read (http, https, s3)");
	return finish(is_s3(source) ? s3_object(source, &target, error) : web_target(source, &target, error), &target,
		      ret);
}

kx_status kx_target_of_bucket(const char *source, const char *query, struct kx_target *ret, struct kx_error *error)
{
	struct kx_target target = {0};
	KX_CLEANUP(kx_cleanup_free) char *bucket = NULL;
	KX_CLEANUP(kx_cleanup_free) char *key = NULL;
	kx_status status = kx_url_split_s3(source, &bucket, &key, error);
	if (status)
		return status;
	KX_CLEANUP(kx_cleanup_free) char *path = kx_strf("/?%s", query);
	if (!path)
		return kx_error_nomem(error);
	return finish(s3_target(source, bucket, path, &target, error), &target, ret);
}
