#include "common/fetch/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/fetch/streams.h"

/* What a reader may make us fetch: a demuxer that jumps to and fro gets its object this many times. */
#define BYTES_FACTOR 4u
#define BYTES_EXTRA ((uint64_t)64 << 20)
/* A transfer with more than this to come is broken off when something else is wanted; that costs a connection. */
#define REST_MAX KX_WINDOW_MIN
#define HEADWAY ((uint64_t)64 << 10)

static void nomem(struct kx_trouble *trouble)
{
	kx_trouble_say(trouble, KX_ENOMEM, KX_REASON_INTERNAL, true, "out of memory");
}

kx_status kx_transfer_open(struct kx_transfer *transfer, struct kx_fetch *fetch, const char *url,
			   const uint8_t *expected, struct kx_error *error)
{
	*transfer = (struct kx_transfer){.fetch = fetch, .spool_fd = -1};
	kx_status status = kx_target_of(url, &transfer->target, error);
	if (status)
		return status;
	if (expected) {
		memcpy(transfer->expected, expected, sizeof(transfer->expected));
		transfer->has_expected = true;
	}
	transfer->multi = kx_fetch_take_multi(fetch);
	if (transfer->multi)
		return KX_OK;
	kx_target_done(&transfer->target);
	return kx_error_nomem(error);
}

static void stop(struct kx_transfer *transfer)
{
	if (!transfer->running)
		return;
	curl_multi_remove_handle(transfer->multi, transfer->request.easy);
	transfer->running = false;
	if (transfer->span)
		kx_cache_settle(&transfer->cache, transfer->span);
	transfer->span = NULL;
}

void kx_transfer_done(struct kx_transfer *transfer)
{
	stop(transfer);
	kx_request_done(&transfer->request);
	if (transfer->multi)
		kx_fetch_give_multi(transfer->fetch, transfer->multi);
	kx_cache_done(&transfer->cache);
	kx_target_done(&transfer->target);
	free(transfer->there);
	kx_cleanup_close(&transfer->spool_fd);
	*transfer = (struct kx_transfer){.spool_fd = -1};
}

void kx_transfer_fail(struct kx_transfer *transfer, const struct kx_trouble *trouble)
{
	stop(transfer);
	if (transfer->trouble.status == KX_OK)
		transfer->trouble = *trouble;
}

/* ---- what an answer says of the object ---- */

static bool same_version(const struct kx_transfer *transfer)
{
	const struct kx_response *response = &transfer->request.response;
	if (transfer->etag[0])
		return strcmp(transfer->etag, response->etag) == 0;
	return !transfer->modified[0] || strcmp(transfer->modified, response->modified) == 0;
}

static bool changed(struct kx_transfer *transfer)
{
	kx_trouble_say(&transfer->refused, KX_EIO, KX_REASON_CHANGED, true, "%.300s: it changed while it was read",
		       transfer->target.name);
	return false;
}

static bool refuse(struct kx_transfer *transfer, bool retriable, const char *what)
{
	kx_trouble_say(&transfer->refused, KX_EIO, KX_REASON_READ_FAILED, retriable, "%.300s: %s",
		       transfer->target.name, what);
	return false;
}

static bool learn(struct kx_transfer *transfer, uint64_t size)
{
	const struct kx_response *response = &transfer->request.response;
	memcpy(transfer->etag, response->etag, sizeof(transfer->etag));
	memcpy(transfer->modified, response->modified, sizeof(transfer->modified));
	if (kx_fingerprint(transfer->target.name, size, response->etag, response->modified, &transfer->info)) {
		nomem(&transfer->refused);
		return false;
	}
	transfer->info.modified_ns = kx_fetch_time_ns(response->modified);
	transfer->known = true;
	if (transfer->has_expected && memcmp(transfer->expected, transfer->info.fingerprint, KX_SHA256_LEN) != 0) {
		kx_trouble_say(&transfer->refused, KX_EINVAL, KX_REASON_CHANGED, false,
			       "%.300s: it is not what was planned any more: index again", transfer->target.name);
		return false;
	}
	return true;
}

static bool check_range(struct kx_transfer *transfer)
{
	const struct kx_response *response = &transfer->request.response;
	if (!transfer->span || !response->has_range || !response->has_total ||
	    response->range_first != transfer->span->start)
		return refuse(transfer, false, "the server answers with another range than it was asked for");
	if (!transfer->known)
		return learn(transfer, response->total);
	return (response->total == transfer->info.size && same_version(transfer)) || changed(transfer);
}

static bool open_spool(struct kx_transfer *transfer)
{
	const char *dir = transfer->fetch->options.spool_dir;
	transfer->spool_fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (transfer->spool_fd < 0) {
		kx_trouble_say(&transfer->refused, KX_EIO, KX_REASON_READ_FAILED, true,
			       "%.300s: its server has no ranges, and it can't be put into %s: %s",
			       transfer->target.name, dir, strerrordesc_np(errno));
		return false;
	}
	transfer->spooling = true;
	return true;
}

static bool check_spool_len(struct kx_transfer *transfer, uint64_t len)
{
	char limit[32];
	if (len <= transfer->fetch->options.spool_bytes_max)
		return true;
	kx_format_bytes(transfer->fetch->options.spool_bytes_max, limit, sizeof(limit));
	kx_trouble_say(&transfer->refused, KX_ETOOBIG, KX_REASON_TOO_LARGE, false,
		       "%.300s: its server has no ranges, and over %s it is not downloaded whole",
		       transfer->target.name, limit);
	return false;
}

/* All of the object instead of a range. */
static bool check_whole(struct kx_transfer *transfer)
{
	const struct kx_response *response = &transfer->request.response;
	if (transfer->spooling) {
		transfer->skip = transfer->spool_len;
		return same_version(transfer) || changed(transfer);
	}
	if (transfer->known)
		return same_version(transfer) ? refuse(transfer, true, "the server gives no ranges any more")
					      : changed(transfer);
	if (transfer->span)
		kx_cache_settle(&transfer->cache, transfer->span);
	transfer->span = NULL;
	if (!open_spool(transfer))
		return false;
	/* For the case that its length is not known before its end, and the connection breaks until then. */
	memcpy(transfer->etag, response->etag, sizeof(transfer->etag));
	memcpy(transfer->modified, response->modified, sizeof(transfer->modified));
	return !response->has_length || (check_spool_len(transfer, response->length) &&
					 learn(transfer, response->length));
}

/* Once an answer, before its first byte is taken. */
static bool check_head(struct kx_transfer *transfer)
{
	transfer->checked = transfer->request.response.status == 206 ? check_range(transfer) : check_whole(transfer);
	return transfer->checked;
}

/* ---- what comes in ---- */

static bool take_span(struct kx_transfer *transfer, const char *bytes, size_t len)
{
	struct kx_span *span = transfer->span;
	if (len > span->len - span->filled)
		return refuse(transfer, false, "the server sends more than it was asked for");
	memcpy(span->data + span->filled, bytes, len);
	span->filled += len;
	return true;
}

static bool take_spool(struct kx_transfer *transfer, const char *bytes, size_t len)
{
	if (transfer->skip >= len) {
		transfer->skip -= len;
		return true;
	}
	bytes += transfer->skip;
	len -= (size_t)transfer->skip;
	transfer->skip = 0;
	if (!check_spool_len(transfer, transfer->spool_len + len))
		return false;
	while (len > 0) {
		ssize_t put = pwrite(transfer->spool_fd, bytes, len, (off_t)transfer->spool_len);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0) {
			kx_trouble_say(&transfer->refused, KX_EFULL, KX_REASON_READ_FAILED, true,
				       "%.300s: it can't be put into %s: %s", transfer->target.name,
				       transfer->fetch->options.spool_dir, strerrordesc_np(errno));
			return false;
		}
		bytes += put;
		len -= (size_t)put;
		transfer->spool_len += (uint64_t)put;
	}
	return true;
}

static bool is_within_budget(struct kx_transfer *transfer, size_t len)
{
	transfer->received += len;
	transfer->headway += len;
	if (transfer->headway >= HEADWAY)
		transfer->tries.count = transfer->tries.timeouts = 0;
	if (!transfer->known || transfer->received <= BYTES_FACTOR * transfer->info.size + BYTES_EXTRA)
		return true;
	char name[32];
	kx_format_bytes(transfer->received, name, sizeof(name));
	kx_trouble_say(&transfer->refused, KX_ETOOBIG, KX_REASON_READ_FAILED, false,
		       "%.300s: reading it took %s, over %u times its size: copy it here, or remux it",
		       transfer->target.name, name, BYTES_FACTOR);
	return false;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *ctx)
{
	struct kx_transfer *transfer = ctx;
	size_t len = size * count;
	long status = transfer->request.response.status;
	if (status != 200 && status != 206) {
		kx_request_keep_body(&transfer->request, bytes, len);
		return len;
	}
	bool good = (transfer->checked || check_head(transfer)) && is_within_budget(transfer, len) &&
		    (transfer->spooling ? take_spool(transfer, bytes, len) : take_span(transfer, bytes, len));
	return good ? len : 0;
}

/* ---- beginning and ending a request ---- */

static bool set_range(struct kx_transfer *transfer)
{
	char range[64];
	const struct kx_span *span = transfer->span;
	if (!span) /* all of it */
		return true;
	snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64, span->start, span->start + span->len - 1);
	return curl_easy_setopt(transfer->request.easy, CURLOPT_RANGE, range) == CURLE_OK;
}

static void begin(struct kx_transfer *transfer, uint64_t offset)
{
	struct kx_request *request = &transfer->request;
	uint64_t size = transfer->known ? transfer->info.size : KX_WINDOW_MIN;
	transfer->checked = false;
	transfer->refused = (struct kx_trouble){0};
	if (!transfer->spooling)
		transfer->span = kx_cache_add(&transfer->cache, offset, size);
	bool good = (transfer->spooling || transfer->span) &&
		    kx_request_prepare(request, transfer->fetch, &transfer->target, transfer->etag) == KX_OK &&
		    set_range(transfer) &&
		    curl_easy_setopt(request->easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
		    curl_easy_setopt(request->easy, CURLOPT_WRITEDATA, transfer) == CURLE_OK &&
		    (!transfer->there || curl_easy_setopt(request->easy, CURLOPT_URL, transfer->there) == CURLE_OK) &&
		    curl_multi_add_handle(transfer->multi, request->easy) == CURLM_OK;
	if (good) {
		transfer->running = true;
		return;
	}
	if (transfer->span)
		kx_cache_settle(&transfer->cache, transfer->span);
	transfer->span = NULL;
	nomem(&transfer->trouble);
}

/* An answer that had no body tells as much. */
static void check_end(struct kx_transfer *transfer)
{
	const struct kx_response *response = &transfer->request.response;
	bool good = true;
	/* A range from the first byte on is beyond nothing but an empty object. */
	if (response->status == 416 && !transfer->known && !(response->has_total && response->total > 0)) {
		learn(transfer, 0);
		return;
	}
	if ((response->status == 200 || response->status == 206) && !transfer->checked)
		good = check_head(transfer);
	if (!good || response->status < 200 || response->status >= 300)
		return;
	if (response->status != 200 && response->status != 206) {
		refuse(transfer, false, "the server answers with something else than the object");
	} else if (!transfer->spooling) {
		if (transfer->span->filled == 0)
			refuse(transfer, true, "the server sends nothing");
	} else if (transfer->known && transfer->spool_len != transfer->info.size) {
		refuse(transfer, true, "the server sends another length than it says");
	} else if (transfer->known || learn(transfer, transfer->spool_len)) {
		transfer->spooled = true;
	}
}

/* The next request need not go all the way again. */
static void note_redirect(struct kx_transfer *transfer)
{
	const char *url = NULL;
	long hops = 0;
	if (transfer->there || curl_easy_getinfo(transfer->request.easy, CURLINFO_REDIRECT_COUNT, &hops) != CURLE_OK ||
	    hops == 0 || curl_easy_getinfo(transfer->request.easy, CURLINFO_EFFECTIVE_URL, &url) != CURLE_OK || !url)
		return;
	transfer->there = kx_strdup(url); /* NULL: then all the way */
}

static void finish(struct kx_transfer *transfer, CURLcode code)
{
	struct kx_trouble trouble;
	bool is_empty = false;
	if (code == CURLE_OK) {
		check_end(transfer);
		is_empty = transfer->known && transfer->info.size == 0;
		note_redirect(transfer);
	}
	kx_request_judge(&transfer->request, code, &transfer->target, &trouble);
	if (is_empty && transfer->refused.status == KX_OK)
		trouble = (struct kx_trouble){.status = KX_OK};
	if (transfer->refused.status != KX_OK)
		trouble = transfer->refused;
	stop(transfer);
	if (trouble.status == KX_OK)
		return;
	transfer->headway = 0;
	/* An address that a redirect gave may be good for a while only. */
	if (transfer->there && code == CURLE_OK) {
		free(transfer->there);
		transfer->there = NULL;
		trouble.retriable = true;
	}
	if (!kx_tries_again(&transfer->tries, transfer->fetch, &transfer->request, code, &trouble))
		kx_transfer_fail(transfer, &trouble);
}

void kx_transfer_drive(struct kx_transfer *transfer)
{
	int running = 0, left = 0;
	if (!transfer->running)
		return;
	CURLMcode code = curl_multi_perform(transfer->multi, &running);
	CURLMsg *message = curl_multi_info_read(transfer->multi, &left);
	if (message && message->msg == CURLMSG_DONE)
		finish(transfer, message->data.result);
	else if (code != CURLM_OK)
		finish(transfer, CURLE_OUT_OF_MEMORY);
}

/* ---- what the reader wants ---- */

static bool may_begin(const struct kx_transfer *transfer, uint64_t now_us)
{
	return !transfer->running && transfer->trouble.status == KX_OK && now_us >= transfer->tries.not_before_us;
}

static bool is_coming(const struct kx_transfer *transfer, uint64_t offset)
{
	const struct kx_span *span = transfer->span;
	return transfer->spooling || !transfer->known || !span ||
	       (offset >= span->start && offset - span->start < span->len);
}

void kx_transfer_want(struct kx_transfer *transfer, uint64_t offset, uint64_t now_us)
{
	if (transfer->running && !is_coming(transfer, offset) &&
	    transfer->span->len - transfer->span->filled > REST_MAX)
		stop(transfer);
	if (may_begin(transfer, now_us) && !transfer->spooled)
		begin(transfer, transfer->known ? offset : 0);
}

void kx_transfer_idle(struct kx_transfer *transfer, uint64_t offset, uint64_t now_us)
{
	if (!may_begin(transfer, now_us) || transfer->spooled)
		return;
	if (!transfer->known || transfer->spooling) {
		begin(transfer, 0);
		return;
	}
	uint64_t ahead = kx_cache_ahead(&transfer->cache, offset, transfer->info.size);
	if (ahead != UINT64_MAX)
		begin(transfer, ahead);
}

size_t kx_transfer_read(struct kx_transfer *transfer, uint64_t offset, uint8_t *bytes, size_t len)
{
	size_t there = 0;
	if (transfer->spooling) {
		ssize_t got;
		if (offset >= transfer->spool_len)
			return 0;
		if (len > transfer->spool_len - offset)
			len = (size_t)(transfer->spool_len - offset);
		do {
			got = pread(transfer->spool_fd, bytes, len, (off_t)offset);
		} while (got < 0 && errno == EINTR);
		if (got > 0)
			return (size_t)got;
		refuse(transfer, true, "what was downloaded can't be read back");
		kx_transfer_fail(transfer, &transfer->refused);
		return 0;
	}
	const uint8_t *from = kx_cache_read(&transfer->cache, offset, &there);
	if (!from)
		return 0;
	len = len < there ? len : there;
	memcpy(bytes, from, len);
	return len;
}
