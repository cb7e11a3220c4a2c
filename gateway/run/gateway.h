/* The gateway role: answers over HTTP what a backend knows. Layer: gateway/run. */
#ifndef KX_GATEWAY_RUN_GATEWAY_H
#define KX_GATEWAY_RUN_GATEWAY_H

#include "gateway/backend/backend.h"

struct kx_gateway;

struct kx_gateway_options {
	struct kx_backend backend;   /* must outlive the gateway */
	const char *listen;
	bool anywhere;               /* listen also where others can reach it */
	unsigned threads;            /* that answer */
	unsigned queue_max;          /* requests that wait for one */
	unsigned connections_max;
	unsigned request_ms;         /* to answer one */
	size_t body_max;             /* bytes of a request's body */
	uint32_t k_max, batch_max;
	bool media;                  /* serve the files that the store names */
	const char *media_root;      /* of these only what lies below; NULL: any */
	const char *allow_origin;    /* whose pages may ask, "*" for any; NULL: no page of another origin */
};

kx_status kx_gateway_start(const struct kx_gateway_options *options, struct kx_gateway **ret, struct kx_error *error)
	KX_MUST_CHECK;
const char *kx_gateway_address(const struct kx_gateway *gateway); /* host:port; owned by the gateway */
/* Finishes what is in hand, and returns within 2 s unless the backend does not heed cancel. NULL is nothing. */
void kx_gateway_stop(struct kx_gateway *gateway);

#endif
