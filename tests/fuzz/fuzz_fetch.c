/* What a server on the network can make us read or keep: the head of its answer, addresses, and the cache that holds
 * parts of an object. The first byte says which. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/str.h"
#include "common/fetch/cache.h"
#include "common/fetch/response.h"
#include "common/fetch/url.h"
#include "tests/fuzz/fuzz.h"

#define STEPS_MAX 64u

static uint8_t byte_at(uint64_t offset)
{
	return (uint8_t)((offset * 2654435761u) >> 13);
}

static void read_head(struct fuzz_input in)
{
	struct kx_response response = {0};
	struct kx_fetch_info info = {0};

	while (in.len > 0) {
		const uint8_t *end = memchr(in.bytes, '\n', in.len);
		size_t len = end ? (size_t)(end - in.bytes) + 1 : in.len;

		kx_response_line(&response, (const char *)in.bytes, len);
		in.bytes += len;
		in.len -= len;
	}
	FUZZ_CHECK(strlen(response.etag) < sizeof(response.etag));
	FUZZ_CHECK(strlen(response.modified) < sizeof(response.modified));
	FUZZ_CHECK(strlen(response.region) < sizeof(response.region));
	FUZZ_CHECK(kx_fingerprint("name", response.total, response.etag, response.modified, &info) == KX_OK);
	FUZZ_CHECK(info.size == response.total);
}

static void read_address(struct fuzz_input in)
{
	char *text = kx_strndup((const char *)in.bytes, in.len);
	char *encoded, *decoded, *bucket = NULL, *key = NULL;
	struct kx_target target = {0};

	FUZZ_CHECK(text);
	encoded = kx_url_encode(text, "");
	FUZZ_CHECK(encoded);
	decoded = kx_url_decode(encoded, false);
	FUZZ_CHECK(decoded && strcmp(decoded, text) == 0);
	if (kx_str_starts(text, "s3://") && kx_url_split_s3(text, &bucket, &key, NULL) == KX_OK)
		FUZZ_CHECK(bucket && bucket[0] != '\0' && key);
	if (kx_fetch_is_url(text) && kx_target_of(text, &target, NULL) == KX_OK) {
		FUZZ_CHECK(kx_str_starts(target.url, "http:") || kx_str_starts(target.url, "https:") ||
			   strncasecmp(target.url, "http", 4) == 0);
		FUZZ_CHECK(target.name);
		kx_target_done(&target);
	}
	free(kx_url_decode(text, true));
	free(kx_fetch_name(text));
	free(kx_fetch_file_name(text));
	(void)kx_fetch_is_prefix(text);
	free(decoded);
	free(encoded);
	free(bucket);
	free(key);
	free(text);
}

static void check_cache(const struct kx_cache *cache, uint64_t size)
{
	size_t bytes = 0;
	uint64_t end = 0;

	for (const struct kx_span *span = cache->spans; span; span = span->next) {
		FUZZ_CHECK(span->start >= end && span->len > 0 && span->filled <= span->len);
		end = span->start + span->len;
		FUZZ_CHECK(end <= size);
		bytes += span->len;
	}
	FUZZ_CHECK(bytes == cache->bytes && bytes <= KX_CACHE_MAX);
}

/* Fetches all or a part of what is missing at offset, then reads there. */
static void fetch_and_read(struct kx_cache *cache, uint64_t offset, uint64_t size, struct fuzz_input *in)
{
	struct kx_span *span = kx_cache_at(cache, offset);
	const uint8_t *bytes;
	size_t len = 0;

	if (!span) {
		span = kx_cache_add(cache, offset, size);
		FUZZ_CHECK(span && offset >= span->start && offset - span->start < span->len && span->filled == 0);
		check_cache(cache, size);
		span->filled = span->len / 255 * fuzz_u8(in);
		/* The ends are enough to see that a place is where it should be. */
		if (span->filled > 0) {
			span->data[0] = byte_at(span->start);
			span->data[span->filled - 1] = byte_at(span->start + span->filled - 1);
		}
		kx_cache_settle(cache, span);
		check_cache(cache, size);
	}
	bytes = kx_cache_read(cache, offset, &len);
	if (!bytes)
		return;
	FUZZ_CHECK(len > 0 && offset + len <= size);
	FUZZ_CHECK(bytes[len - 1] == byte_at(offset + len - 1));
	offset = kx_cache_ahead(cache, offset + len, size);
	FUZZ_CHECK(offset == UINT64_MAX || (offset < size && !kx_cache_at(cache, offset)));
}

static void use_cache(struct fuzz_input in)
{
	struct kx_cache cache = {0};
	uint64_t size = 1 + (fuzz_u64(&in) >> (fuzz_u8(&in) % 63u + 1));
	uint64_t offset = 0;

	for (unsigned i = 0; i < STEPS_MAX && in.len > 0; i++) {
		uint8_t step = fuzz_u8(&in);

		offset = step < 128 ? offset + step * UINT64_C(4096) : fuzz_u64(&in);
		offset %= size;
		fetch_and_read(&cache, offset, size, &in);
	}
	kx_cache_done(&cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct fuzz_input in = {bytes, len};

	switch (fuzz_u8(&in) % 3u) {
	case 0:
		read_head(in);
		break;
	case 1:
		read_address(in);
		break;
	default:
		use_cache(in);
	}
	return 0;
}
