#include "coordinator/source/url.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/str.h"

static kx_status invalid(struct kx_error *error, const char *what)
{
	return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%s", what);
}

/* Length of the scheme (RFC 3986, 3.1), 0 when there is none. */
static size_t scheme_len(const char *url)
{
	size_t len = 0;

	if (!isalpha((unsigned char)url[0]))
		return 0;
	while (isalnum((unsigned char)url[len]) || (url[len] && strchr("+-.", url[len])))
		len++;
	return url[len] == ':' ? len : 0;
}

static kx_status decode(const char *text, char **ret, struct kx_error *error)
{
	char *path KX_CLEANUP(kx_cleanup_free) = kx_strdup(text);
	char *out = path;

	if (!path)
		return kx_error_nomem(error);
	for (const char *in = path; *in; in++, out++) {
		char digits[3] = "";

		*out = *in;
		if (*in != '%')
			continue;
		memcpy(digits, in + 1, strnlen(in + 1, 2));
		if (kx_hex_decode(digits, out, 1))
			return invalid(error, "a '%' is followed by two hexadecimal digits; write %25 for the "
					      "character itself");
		if (!*out)
			return invalid(error, "%00 can't be part of a path");
		in += 2;
	}
	*out = '\0';
	*ret = KX_STEAL(path);
	return KX_OK;
}

kx_status kx_source_url_path(const char *url, char **ret_path, struct kx_error *error)
{
	size_t scheme = scheme_len(url);
	const char *path = url + scheme + 1;

	if (!scheme)
		return invalid(error, "it has no scheme, like file:///films/a.mp4; a path belongs in the field path");
	if (scheme != strlen("file") || strncasecmp(url, "file", scheme) != 0)
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON,
				    "of addresses only file, http, https and s3 are read; fetch it, and give its path");
	if (kx_str_starts(path, "//")) {
		const char *host = path + 2;

		path = host + strcspn(host, "/");
		if (path != host && strncasecmp(host, "localhost/", strlen("localhost/")) != 0)
			return invalid(error, "it names another host; three slashes stand before a path of this one "
					      "(file:///a)");
	}
	if (path[0] != '/')
		return invalid(error, "it names no absolute path, like file:///films/a.mp4");
	if (strpbrk(path, "?#"))
		return invalid(error, "'?' and '#' in a path are written %3F and %23");
	return decode(path, ret_path, error);
}
