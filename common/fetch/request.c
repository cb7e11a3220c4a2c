#include "common/fetch/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/clock.h"
#include "common/base/str.h"

#define REDIRECTS_MAX 5L
#define SLOW_BYTES_S 1024L
#define BACKOFF_MAX_MS 10000u
#define RETRY_AFTER_MAX_MS 30000u
#define POLL_MS 100
/* Of no bytes: what S3 wants to be told of the body of a request that has none. */
#define EMPTY_SHA256 "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

void kx_trouble_say(struct kx_trouble *trouble, kx_status status, enum kx_reason reason, bool retriable,
		    const char *format, ...)
{
	va_list args;
	trouble->status = status;
	trouble->reason = reason;
	trouble->retriable = retriable;
	va_start(args, format);
	vsnprintf(trouble->message, sizeof(trouble->message), format, args);
	va_end(args);
}

kx_status kx_trouble_pass(const struct kx_trouble *trouble, enum kx_reason *ret_reason, struct kx_error *error)
{
	if (ret_reason)
		*ret_reason = trouble->reason;
	return kx_error_set(error, trouble->status, trouble->retriable ? KX_ERROR_RETRY : KX_ERROR_POISON, "%s",
			    trouble->message);
}

/* ---- setting up ---- */

static size_t on_head(char *bytes, size_t size, size_t count, void *ctx)
{
	struct kx_request *request = ctx;
	kx_response_line(&request->response, bytes, size * count);
	return size * count;
}

static bool add_header(struct kx_request *request, const char *header)
{
	struct curl_slist *longer = header ? curl_slist_append(request->headers, header) : NULL;
	if (longer)
		request->headers = longer;
	return longer != NULL;
}

/* Takes the header. */
static bool add_made(struct kx_request *request, char *header)
{
	bool good = add_header(request, header);
	free(header);
	return good;
}

static bool add_headers(struct kx_request *request, const struct kx_target *target, const char *etag)
{
	if (!add_header(request, "Accept-Encoding: identity")) /* ranges of the object, not of something packed */
		return false;
	if (kx_etag_is_strong(etag) && !add_made(request, kx_strf("If-Match: %s", etag)))
		return false;
	if (!target->provider)
		return true;
	if (target->aws.token && !add_made(request, kx_strf("x-amz-security-token: %s", target->aws.token)))
		return false;
	return add_header(request, EMPTY_SHA256);
}

static bool set_identity(CURL *easy, const struct kx_target *target)
{
	if (!target->provider)
		return true;
	return curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, target->provider) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_USERNAME, target->aws.key) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_PASSWORD, target->aws.secret) == CURLE_OK;
}

/* An S3 server sends nobody elsewhere but to another region, which the signature would not fit. */
static bool set_reach(CURL *easy, const struct kx_target *target)
{
	bool secure = strncasecmp(target->url, "https:", 6) == 0;
	return curl_easy_setopt(easy, CURLOPT_URL, target->url) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https") == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, target->is_s3 ? 0L : 1L) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_MAXREDIRS, REDIRECTS_MAX) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L) == CURLE_OK;
}

static bool set_limits(CURL *easy, const struct kx_fetch *fetch)
{
	long timeout_s = (long)((fetch->options.timeout_ms + 999) / 1000);
	return curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)fetch->options.timeout_ms) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, SLOW_BYTES_S) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, timeout_s) == CURLE_OK;
}

kx_status kx_request_prepare(struct kx_request *request, const struct kx_fetch *fetch, const struct kx_target *target,
			     const char *etag)
{
	if (!request->easy)
		request->easy = curl_easy_init();
	if (!request->easy)
		return KX_ENOMEM;
	CURL *easy = request->easy;
	curl_easy_reset(easy);
	curl_slist_free_all(request->headers);
	request->headers = NULL;
	request->response = (struct kx_response){0};
	request->detail[0] = '\0';
	request->body_len = 0;
	if (!add_headers(request, target, etag) || !set_reach(easy, target) || !set_limits(easy, fetch) ||
	    !set_identity(easy, target) ||
	    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers) != CURLE_OK ||
	    curl_easy_setopt(easy, CURLOPT_USERAGENT, "kinodex") != CURLE_OK ||
	    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head) != CURLE_OK ||
	    curl_easy_setopt(easy, CURLOPT_HEADERDATA, request) != CURLE_OK ||
	    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->detail) != CURLE_OK)
		return KX_ENOMEM;
	return KX_OK;
}

void kx_request_done(struct kx_request *request)
{
	curl_easy_cleanup(request->easy);
	curl_slist_free_all(request->headers);
	request->easy = NULL;
	request->headers = NULL;
}

void kx_request_keep_body(struct kx_request *request, const char *bytes, size_t len)
{
	size_t room = sizeof(request->body) - request->body_len - 1;
	len = len < room ? len : room;
	memcpy(request->body + request->body_len, bytes, len);
	request->body_len += len;
	request->body[request->body_len] = '\0';
}

/* ---- what a failure means ---- */

/* S3's own word for it: <Code>NoSuchKey</Code>. "" when there is none. */
static void s3_code(const struct kx_request *request, char *out, size_t out_len)
{
	const char *start = request->body_len > 0 ? strstr(request->body, "<Code>") : NULL;
	const char *end = start ? strstr(start, "</Code>") : NULL;
	out[0] = '\0';
	if (end)
		snprintf(out, out_len, " %.*s", (int)(end - start) - 6, start + 6);
	for (char *c = out; *c; c++) {
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
	}
}

static const char *cure_of_refusal(const struct kx_target *target, const char *code)
{
	if (!target->is_s3)
		return "check that it may be read without logging in, or sign the address";
	if (!target->provider)
		return "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE";
	if (strstr(code, "Signature") || strstr(code, "AccessKey") || strstr(code, "Token"))
		return "check the AWS credentials, and this machine's clock";
	return "ask for the right to read the object (s3:GetObject; s3:ListBucket to list)";
}

static bool is_passing(long status)
{
	return status == 408 || status == 425 || status == 429 || status >= 500;
}

static void judge_answer(const struct kx_request *request, const struct kx_target *target, struct kx_trouble *ret)
{
	long status = request->response.status;
	const char *region = request->response.region;
	char code[80];
	s3_code(request, code, sizeof(code));
	if (status >= 200 && status < 300)
		*ret = (struct kx_trouble){.status = KX_OK, .reason = KX_REASON_NONE};
	else if (target->is_s3 && region[0] && strcmp(region, target->aws.region) != 0)
		kx_trouble_say(ret, KX_EINVAL, KX_REASON_READ_FAILED, false,
			       "%.300s: the bucket is in another region: set AWS_REGION=%s", target->name, region);
	else if (status == 404 || status == 410)
		kx_trouble_say(ret, KX_ENOTFOUND, KX_REASON_NOT_FOUND, false,
			       "%.300s: the server has none (%ld%s): check the address%s", target->name, status, code,
			       target->is_s3 ? "; one that means all objects under it ends in '/'" : "");
	else if (status == 401 || status == 403)
		kx_trouble_say(ret, KX_EPERM, KX_REASON_NO_PERMISSION, false, "%.300s: the server refuses it (%ld%s): %s",
			       target->name, status, code, cure_of_refusal(target, code));
	else if (status == 412 || status == 416)
		kx_trouble_say(ret, KX_EIO, KX_REASON_CHANGED, true, "%.300s: it changed while it was read (%ld)",
			       target->name, status);
	else
		kx_trouble_say(ret, KX_EIO, KX_REASON_READ_FAILED, is_passing(status),
			       "%.300s: the server answers %ld%s%s", target->name, status, code,
			       is_passing(status) ? ": try again later" : "");
}

static void judge_failure(const struct kx_request *request, CURLcode code, const struct kx_target *target,
			  struct kx_trouble *ret)
{
	const char *detail = request->detail[0] ? request->detail : curl_easy_strerror(code);
	bool retriable = true;
	switch (code) {
	case CURLE_OUT_OF_MEMORY:
		kx_trouble_say(ret, KX_ENOMEM, KX_REASON_INTERNAL, true, "out of memory");
		return;
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL: /* where a redirect leads */
		kx_trouble_say(ret, KX_EINVAL, KX_REASON_UNSUPPORTED, false,
			       "%.300s: leads to no http or https address, or from https to http, which is not followed",
			       target->name);
		return;
	case CURLE_TOO_MANY_REDIRECTS:
		kx_trouble_say(ret, KX_EIO, KX_REASON_READ_FAILED, false, "%.300s: redirects more than %ld times",
			       target->name, REDIRECTS_MAX);
		return;
	case CURLE_OPERATION_TIMEDOUT:
		kx_trouble_say(ret, KX_ETIMEDOUT, KX_REASON_READ_FAILED, true,
			       "%.300s: nothing came within the time limit (--fetch-timeout)", target->name);
		return;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
		retriable = false;
		break;
	default:
		break;
	}
	kx_trouble_say(ret, KX_EIO, KX_REASON_READ_FAILED, retriable, "%.300s: %.150s", target->name, detail);
}

void kx_request_judge(const struct kx_request *request, CURLcode code, const struct kx_target *target,
		      struct kx_trouble *ret)
{
	if (code == CURLE_OK)
		judge_answer(request, target, ret);
	else
		judge_failure(request, code, target, ret);
}

static uint64_t backoff_ms(struct kx_tries *tries, const struct kx_fetch *fetch, const struct kx_request *request)
{
	uint64_t ms = fetch->options.backoff_ms << (tries->count - 1);
	curl_off_t after_s = 0;
	if (ms > BACKOFF_MAX_MS)
		ms = BACKOFF_MAX_MS;
	if (tries->seed == 0 && getrandom(&tries->seed, sizeof(tries->seed), GRND_NONBLOCK) < 0)
		tries->seed = 1;
	/* Half of it at random, so that workers which failed together do not come back together. */
	ms = ms / 2 + (uint64_t)rand_r(&tries->seed) % (ms / 2 + 1);
	if (curl_easy_getinfo(request->easy, CURLINFO_RETRY_AFTER, &after_s) == CURLE_OK && after_s > 0) {
		uint64_t asked_ms = (uint64_t)after_s > RETRY_AFTER_MAX_MS / 1000 ? RETRY_AFTER_MAX_MS
										   : (uint64_t)after_s * 1000;
		ms = asked_ms > ms ? asked_ms : ms;
	}
	return ms;
}

bool kx_tries_again(struct kx_tries *tries, const struct kx_fetch *fetch, const struct kx_request *request,
		    CURLcode code, const struct kx_trouble *trouble)
{
	tries->count++;
	tries->timeouts += code == CURLE_OPERATION_TIMEDOUT;
	if (!trouble->retriable || trouble->reason == KX_REASON_CHANGED || tries->count >= KX_TRIES_MAX ||
	    tries->timeouts >= KX_TIMEOUTS_MAX)
		return false;
	tries->not_before_us = kx_clock_mono_us() + backoff_ms(tries, fetch, request) * 1000;
	return true;
}

/* ---- a whole request ---- */

struct run {
	struct kx_request *request;
	const struct kx_exchange *exchange;
	kx_status status; /* of taking */
};

static size_t on_body(char *bytes, size_t size, size_t count, void *ctx)
{
	struct run *run = ctx;
	long status = run->request->response.status;
	size_t len = size * count;
	if (status < 200 || status >= 300 || !run->exchange->take) {
		kx_request_keep_body(run->request, bytes, len);
		return len;
	}
	run->status = run->exchange->take(run->exchange->ctx, bytes, len);
	return run->status == KX_OK ? len : 0;
}

static bool is_stopped(const struct kx_fetch *fetch)
{
	return fetch->options.stop && kx_stop_asked(fetch->options.stop);
}

/* CURLE_ABORTED_BY_CALLBACK when it was stopped. */
static CURLcode drive(const struct kx_fetch *fetch, CURLM *multi)
{
	for (;;) {
		int running = 0, left = 0;
		if (curl_multi_perform(multi, &running) != CURLM_OK)
			return CURLE_OUT_OF_MEMORY;
		CURLMsg *message = curl_multi_info_read(multi, &left);
		if (message && message->msg == CURLMSG_DONE)
			return message->data.result;
		if (is_stopped(fetch))
			return CURLE_ABORTED_BY_CALLBACK;
		if (curl_multi_poll(multi, NULL, 0, POLL_MS, NULL) != CURLM_OK)
			return CURLE_OUT_OF_MEMORY;
	}
}

static CURLcode run_once(struct kx_fetch *fetch, CURLM *multi, const struct kx_target *target, struct run *run)
{
	struct kx_request *request = run->request;
	run->status = KX_OK;
	if (kx_request_prepare(request, fetch, target, "") != KX_OK ||
	    curl_easy_setopt(request->easy, CURLOPT_WRITEFUNCTION, on_body) != CURLE_OK ||
	    curl_easy_setopt(request->easy, CURLOPT_WRITEDATA, run) != CURLE_OK)
		return CURLE_OUT_OF_MEMORY;
	if (run->exchange->prepare)
		run->exchange->prepare(run->exchange->ctx, request);
	if (curl_multi_add_handle(multi, request->easy) != CURLM_OK)
		return CURLE_OUT_OF_MEMORY;
	CURLcode code = drive(fetch, multi);
	curl_multi_remove_handle(multi, request->easy);
	return code;
}

/* Waits for the next try; false when it was stopped. */
static bool wait_turn(const struct kx_fetch *fetch, CURLM *multi, const struct kx_tries *tries)
{
	uint64_t now_us;
	while ((now_us = kx_clock_mono_us()) < tries->not_before_us) {
		uint64_t ms = (tries->not_before_us - now_us) / 1000 + 1;
		curl_multi_poll(multi, NULL, 0, ms < POLL_MS ? (int)ms : POLL_MS, NULL);
		if (is_stopped(fetch))
			return false;
	}
	return true;
}

void kx_request_run(struct kx_fetch *fetch, struct kx_request *request, const struct kx_target *target,
		    const struct kx_exchange *exchange, struct kx_trouble *ret)
{
	struct run run = {.request = request, .exchange = exchange};
	struct kx_tries tries = {0};
	CURLcode code;
	CURLM *multi = kx_fetch_take_multi(fetch);
	if (!multi) {
		kx_trouble_say(ret, KX_ENOMEM, KX_REASON_INTERNAL, true, "out of memory");
		return;
	}
	do {
		code = run_once(fetch, multi, target, &run);
		kx_request_judge(request, code, target, ret);
		if (run.status != KX_OK)
			kx_trouble_say(ret, run.status, KX_REASON_READ_FAILED, false,
				       "%.300s: the answer can't be used (%s)", target->name, kx_status_name(run.status));
	} while (ret->status != KX_OK && code != CURLE_ABORTED_BY_CALLBACK &&
		 kx_tries_again(&tries, fetch, request, code, ret) && wait_turn(fetch, multi, &tries));
	if (is_stopped(fetch) && ret->status != KX_OK)
		kx_trouble_say(ret, KX_ECANCELED, KX_REASON_INTERNAL, true, "stopped");
	kx_fetch_give_multi(fetch, multi);
}
