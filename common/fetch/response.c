#include "common/fetch/response.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/str.h"

static bool digits(const char **at, uint64_t *ret)
{
	uint64_t value = 0;
	const char *c = *at;
	for (; isdigit((unsigned char)*c); c++) {
		unsigned digit = (unsigned)(*c - '0');
		if (value > (UINT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	if (c == *at)
		return false;
	*at = c;
	*ret = value;
	return true;
}

/* "bytes 0-99/1000", "bytes 0-99" + "/" + "*", and for what could not be satisfied "bytes *" + "/1000". */
static void content_range(struct kx_response *response, const char *value)
{
	uint64_t last;
	if (strncasecmp(value, "bytes", 5) != 0)
		return;
	value += 5 + strspn(value + 5, " =");
	if (*value == '*') {
		value++;
	} else {
		if (!digits(&value, &response->range_first) || *value++ != '-' || !digits(&value, &last) ||
		    last < response->range_first)
			return;
		response->has_range = true;
	}
	if (*value++ == '/' && digits(&value, &response->total))
		response->has_total = true;
}

static void keep(char *out, size_t out_len, const char *value)
{
	if (strlen(value) < out_len)
		memcpy(out, value, strlen(value) + 1);
}

void kx_response_line(struct kx_response *response, const char *bytes, size_t len)
{
	char line[1024];
	if (len >= sizeof(line)) /* none that matters is so long */
		return;
	memcpy(line, bytes, len);
	line[len] = '\0';
	while (len > 0 && isspace((unsigned char)line[len - 1]))
		line[--len] = '\0';
	if (kx_str_starts(line, "HTTP/")) {
		const char *space = strchr(line, ' ');
		*response = (struct kx_response){.status = space ? strtol(space, NULL, 10) : 0};
		return;
	}
	char *value = strchr(line, ':');
	if (!value)
		return;
	*value++ = '\0';
	value += strspn(value, " \t");
	const char *at = value;
	if (strcasecmp(line, "content-length") == 0)
		response->has_length = digits(&at, &response->length) && *at == '\0';
	else if (strcasecmp(line, "content-range") == 0)
		content_range(response, value);
	else if (strcasecmp(line, "etag") == 0)
		keep(response->etag, sizeof(response->etag), value);
	else if (strcasecmp(line, "last-modified") == 0)
		keep(response->modified, sizeof(response->modified), value);
	else if (strcasecmp(line, "x-amz-bucket-region") == 0)
		keep(response->region, sizeof(response->region), value);
}

bool kx_etag_is_strong(const char *etag)
{
	return etag[0] == '"';
}

/* An ETag tells versions of one address apart, not addresses: nginx makes it of time and size. So the address is part
 * of it. That the digest is turned over makes it no hash of any text that a file could hold. */
kx_status kx_fingerprint(const char *name, uint64_t size, const char *etag, const char *modified,
			 struct kx_fetch_info *ret)
{
	uint8_t digest[KX_SHA256_LEN];
	KX_CLEANUP(kx_cleanup_free) char *text = kx_strf("kinodex object 1\n%s\n%" PRIu64 "\n%s %s\n", name, size,
							 etag[0] ? "etag" : "modified", etag[0] ? etag : modified);
	if (!text || kx_sha256_bytes(text, strlen(text), digest) != KX_OK)
		return KX_ENOMEM;
	ret->size = size;
	ret->versioned = etag[0] || modified[0];
	for (size_t i = 0; i < sizeof(digest); i++)
		ret->fingerprint[i] = (uint8_t)~digest[i];
	return KX_OK;
}
