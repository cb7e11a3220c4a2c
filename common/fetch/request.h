/* One HTTP request at a time: its options, its answer, and what a failure means. Layer: fetch, private. */
#ifndef KX_FETCH_REQUEST_H
#define KX_FETCH_REQUEST_H

#include <curl/curl.h>

#include "common/fetch/response.h"
#include "common/fetch/url.h"

#define KX_TRIES_MAX 5      /* of a request, the first included */
#define KX_TIMEOUTS_MAX 2   /* of them, how many may end by a time limit */
#define KX_ERROR_BODY_MAX 2048

struct kx_fetch {
	struct kx_fetch_options options; /* its strings are our own */
	char *spool_dir;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t idle;  /* no thread is left */
	CURLM *pool[16];      /* with connections that may be used again */
	size_t pooled;
	struct kx_fetch_stream *streams;
	size_t live;          /* threads of streams */
};

/* A multi handle with its connections, from the pool or new; NULL when out of memory. To be given back without any
 * easy handle in it. */
CURLM *kx_fetch_take_multi(struct kx_fetch *fetch);
void kx_fetch_give_multi(struct kx_fetch *fetch, CURLM *multi);

/* How often and how a request has failed since it last made headway. Zeroed memory is a fresh one. */
struct kx_tries {
	unsigned count, timeouts;
	uint64_t not_before_us; /* when the next may begin */
	unsigned seed;
};

/* What a failure comes to. */
struct kx_trouble {
	kx_status status; /* KX_OK: none */
	enum kx_reason reason;
	bool retriable;
	char message[512];
};
void kx_trouble_say(struct kx_trouble *trouble, kx_status status, enum kx_reason reason, bool retriable,
		    const char *format, ...) KX_PRINTF(5, 6);
kx_status kx_trouble_pass(const struct kx_trouble *trouble, enum kx_reason *ret_reason, struct kx_error *error);

struct kx_request {
	CURL *easy;
	struct curl_slist *headers;
	struct kx_response response;
	char detail[CURL_ERROR_SIZE];
	char body[KX_ERROR_BODY_MAX]; /* of an answer that is an error */
	size_t body_len;
};

/* Makes the easy handle anew for the target. etag: only this version ("": any). Nothing is sent. KX_ENOMEM. */
kx_status kx_request_prepare(struct kx_request *request, const struct kx_fetch *fetch, const struct kx_target *target,
			     const char *etag) KX_MUST_CHECK;
void kx_request_done(struct kx_request *request);

/* Keeps a little of an error's body. */
void kx_request_keep_body(struct kx_request *request, const char *bytes, size_t len);

/* What the end of a request comes to; status KX_OK when it went well (any 2xx). */
void kx_request_judge(const struct kx_request *request, CURLcode code, const struct kx_target *target,
		      struct kx_trouble *ret);
/* Notes a failure. True when it may be tried again, from tries->not_before_us on. */
bool kx_tries_again(struct kx_tries *tries, const struct kx_fetch *fetch, const struct kx_request *request,
		    CURLcode code, const struct kx_trouble *trouble);

/* Runs a whole request, with retries. prepare sets it up anew for each; take gets the body of a 2xx. Blocks, until
 * fetch->options.stop is asked (KX_ECANCELED). */
struct kx_exchange {
	void *ctx;
	void (*prepare)(void *ctx, struct kx_request *request);
	kx_status (*take)(void *ctx, const char *bytes, size_t len); /* KX_ETOOBIG, KX_ENOMEM end it */
};
void kx_request_run(struct kx_fetch *fetch, struct kx_request *request, const struct kx_target *target,
		    const struct kx_exchange *exchange, struct kx_trouble *ret);

#endif
