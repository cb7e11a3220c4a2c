/* What the parts of the gateway share; nobody else includes it. Layer: gateway/run. */
#ifndef KX_GATEWAY_RUN_INTERNAL_H
#define KX_GATEWAY_RUN_INTERNAL_H

#include "gateway/http/server.h"
#include "gateway/json/decode.h"
#include "gateway/json/encode.h"
#include "gateway/run/cache.h"
#include "gateway/run/gateway.h"
#include "gateway/run/looker.h"
#include "gateway/run/metrics.h"

struct kx_gateway {
	struct kx_gateway_options options;
	struct kx_decode_limits limits;
	struct kx_namer namer;
	struct kx_http_server *server;
	struct kx_metrics metrics;
	struct kx_looker *looker;
	struct kx_cache_lru *thumbnails;
	atomic_uint decoding; /* thumbnails on their way */
};

/* The text of openapi.yaml, in the program. */
extern const char kx_openapi_text[];
extern const size_t kx_openapi_len;

/* One request at work: what its handler needs. */
struct kx_turn {
	struct kx_gateway *gateway;
	const struct kx_http_request *request;
	struct kx_http_response *response;
	const char *id; /* of the path, or NULL */
	struct kx_error error;
};

/* Each fills the response, or fails with an error that becomes a problem. */
kx_status kx_serve_similar(struct kx_turn *turn);
kx_status kx_serve_search(struct kx_turn *turn);
kx_status kx_serve_video(struct kx_turn *turn);
kx_status kx_serve_batch(struct kx_turn *turn);
kx_status kx_serve_classify(struct kx_turn *turn);
kx_status kx_serve_status(struct kx_turn *turn);
kx_status kx_serve_schema(struct kx_turn *turn);
kx_status kx_serve_media(struct kx_turn *turn);
kx_status kx_serve_thumbnail(struct kx_turn *turn);

/* The backend's answer; a reply that is a refusal becomes an error. */
kx_status kx_turn_ask(struct kx_turn *turn, const struct kx_query_request *request, struct kx_answer *ret) KX_MUST_CHECK;
/* KX_EINVAL unless all arguments are among names, which ends with NULL. */
kx_status kx_turn_args(struct kx_turn *turn, const char *const *names) KX_MUST_CHECK;
kx_status kx_turn_bool(struct kx_turn *turn, const char *name, bool *ret) KX_MUST_CHECK;
kx_status kx_turn_u32(struct kx_turn *turn, const char *name, uint32_t min, uint32_t max, uint32_t *ret) KX_MUST_CHECK;
/* The video that the path names. */
kx_status kx_turn_video(struct kx_turn *turn, bool with_moments, struct kx_answer *ret) KX_MUST_CHECK;

/* Replaces what is in the response by a problem. */
void kx_respond_problem(struct kx_http_response *response, unsigned code, const char *detail);

#endif
