#include "common/fetch/fetch.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/fetch/request.h"
#include "common/fetch/streams.h"

#define TIMEOUT_MS 30000u
#define BACKOFF_MS 200u
#define SPOOL_BYTES_MAX ((uint64_t)8 << 30)

/* Once a process, and never undone: other threads may use what it sets up until the end. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode begun;

static void begin(void)
{
	begun = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static const char *spool_dir(const struct kx_fetch_options *options)
{
	const char *dir = options->spool_dir ? options->spool_dir : getenv("TMPDIR");
	return dir && dir[0] ? dir : "/tmp";
}

kx_status kx_fetch_new(const struct kx_fetch_options *options, struct kx_fetch **ret, struct kx_error *error)
{
	pthread_once(&once, begin);
	struct kx_fetch *fetch = calloc(1, sizeof(*fetch));
	if (begun != CURLE_OK || !fetch || !(fetch->spool_dir = kx_strdup(spool_dir(options)))) {
		free(fetch);
		return kx_error_nomem(error);
	}
	fetch->options = *options;
	fetch->options.spool_dir = fetch->spool_dir;
	if (!fetch->options.timeout_ms)
		fetch->options.timeout_ms = TIMEOUT_MS;
	if (!fetch->options.backoff_ms)
		fetch->options.backoff_ms = BACKOFF_MS;
	if (!fetch->options.spool_bytes_max)
		fetch->options.spool_bytes_max = SPOOL_BYTES_MAX;
	pthread_mutex_init(&fetch->lock, NULL);
	pthread_cond_init(&fetch->idle, NULL);
	*ret = fetch;
	return KX_OK;
}

void kx_fetch_free(struct kx_fetch *fetch)
{
	if (!fetch)
		return;
	kx_streams_end(fetch);
	while (fetch->pooled > 0)
		curl_multi_cleanup(fetch->pool[--fetch->pooled]);
	pthread_cond_destroy(&fetch->idle);
	pthread_mutex_destroy(&fetch->lock);
	free(fetch->spool_dir);
	free(fetch);
}

CURLM *kx_fetch_take_multi(struct kx_fetch *fetch)
{
	CURLM *multi = NULL;
	pthread_mutex_lock(&fetch->lock);
	if (fetch->pooled > 0)
		multi = fetch->pool[--fetch->pooled];
	pthread_mutex_unlock(&fetch->lock);
	return multi ? multi : curl_multi_init();
}

void kx_fetch_give_multi(struct kx_fetch *fetch, CURLM *multi)
{
	pthread_mutex_lock(&fetch->lock);
	if (fetch->pooled < KX_ARRAY_LEN(fetch->pool)) {
		fetch->pool[fetch->pooled++] = multi;
		multi = NULL;
	}
	pthread_mutex_unlock(&fetch->lock);
	if (multi)
		curl_multi_cleanup(multi);
}

/* ---- asking without reading ---- */

static void ask_head(void *ctx, struct kx_request *request)
{
	(void)ctx;
	curl_easy_setopt(request->easy, CURLOPT_NOBODY, 1L);
}

/* For those who refuse HEAD: addresses that are signed for GET, small servers. */
static void ask_first_byte(void *ctx, struct kx_request *request)
{
	(void)ctx;
	curl_easy_setopt(request->easy, CURLOPT_RANGE, "0-0");
}

/* A server without ranges sends all of it; its head is enough. */
static kx_status take_one(void *ctx, const char *bytes, size_t len)
{
	uint64_t *taken = ctx;
	(void)bytes;
	*taken += len;
	return *taken <= 1 ? KX_OK : KX_ETOOBIG;
}

static bool size_of(const struct kx_response *response, uint64_t *ret_size)
{
	*ret_size = response->has_range || response->status == 416 ? response->total : response->length;
	return response->has_range || response->status == 416 ? response->has_total : response->has_length;
}

static bool is_complete(const struct kx_trouble *trouble, const struct kx_response *response, uint64_t *ret_size)
{
	bool answered = trouble->status == KX_OK || trouble->status == KX_ETOOBIG || response->status == 416;
	return answered && size_of(response, ret_size);
}

uint64_t kx_fetch_time_ns(const char *modified)
{
	time_t time = modified[0] ? curl_getdate(modified, NULL) : -1;
	return time > 0 ? (uint64_t)time * 1000000000u : 0;
}

static bool refuses_head(long status)
{
	return status == 400 || status == 401 || status == 403 || status == 405 || status == 501;
}

static kx_status stat_target(struct kx_fetch *fetch, const struct kx_target *target, struct kx_fetch_info *ret_info,
			     struct kx_trouble *trouble)
{
	struct kx_request request = {0};
	uint64_t size = 0, taken = 0;
	const struct kx_exchange head = {.prepare = ask_head};
	const struct kx_exchange byte = {.ctx = &taken, .prepare = ask_first_byte, .take = take_one};
	kx_request_run(fetch, &request, target, &head, trouble);
	bool known = trouble->status == KX_OK && size_of(&request.response, &size);
	if (!known && (trouble->status == KX_OK || refuses_head(request.response.status))) {
		kx_request_run(fetch, &request, target, &byte, trouble);
		known = is_complete(trouble, &request.response, &size);
	}
	if (known && kx_fingerprint(target->name, size, request.response.etag, request.response.modified, ret_info))
		kx_trouble_say(trouble, KX_ENOMEM, KX_REASON_INTERNAL, true, "out of memory");
	else if (known)
		*trouble = (struct kx_trouble){.status = KX_OK, .reason = KX_REASON_NONE};
	else if (trouble->status == KX_OK || trouble->status == KX_ETOOBIG)
		kx_trouble_say(trouble, KX_EUNSUPPORTED, KX_REASON_READ_FAILED, false,
			       "%.300s: the server does not say how large it is", target->name);
	if (known)
		ret_info->modified_ns = kx_fetch_time_ns(request.response.modified);
	kx_request_done(&request);
	return trouble->status;
}

kx_status kx_fetch_stat(struct kx_fetch *fetch, const char *url, struct kx_fetch_info *ret_info,
			enum kx_reason *ret_reason, struct kx_error *error)
{
	struct kx_target target = {0};
	struct kx_trouble trouble = {0};
	struct kx_fetch_info info = {0};
	kx_status status = kx_target_of(url, &target, error);
	if (status) {
		*ret_reason = KX_REASON_UNSUPPORTED;
		return status;
	}
	status = stat_target(fetch, &target, &info, &trouble);
	kx_target_done(&target);
	if (status)
		return kx_trouble_pass(&trouble, ret_reason, error);
	*ret_info = info;
	return KX_OK;
}
