#include "gateway/run/gateway.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/log.h"
#include "gateway/json/problem.h"
#include "gateway/run/internal.h"

#define HEAD_MAX ((size_t)64 << 10)
#define BODIES_MAX ((size_t)256 << 20)
#define RECEIVE_MS 30000u
#define GRACE_MS 1500u
#define THUMBNAIL_BYTES ((size_t)32 << 20)

static kx_status (*const serve[KX_ROUTE_COUNT])(struct kx_turn *turn) = {
	[KX_ROUTE_STATUS] = kx_serve_status,     [KX_ROUTE_SCHEMA] = kx_serve_schema,
	[KX_ROUTE_SIMILAR] = kx_serve_similar,   [KX_ROUTE_SEARCH] = kx_serve_search,
	[KX_ROUTE_BATCH] = kx_serve_batch,       [KX_ROUTE_CLASSIFY] = kx_serve_classify,
	[KX_ROUTE_VIDEO] = kx_serve_video,       [KX_ROUTE_MEDIA] = kx_serve_media,
	[KX_ROUTE_THUMBNAIL] = kx_serve_thumbnail,
};

/* Headers that every response has. */
static void decorate(const struct kx_gateway *gateway, const struct kx_http_request *request,
		     struct kx_http_response *response)
{
	const char *allowed = gateway->options.allow_origin;

	kx_http_response_header(response, "X-Content-Type-Options", "nosniff");
	if (allowed == NULL || request == NULL || request->origin == NULL)
		return;
	if (strcmp(allowed, "*") == 0 || strcmp(allowed, request->origin) == 0)
		kx_http_response_header(response, "Access-Control-Allow-Origin", "%s", allowed);
	if (strcmp(allowed, "*") != 0)
		kx_http_response_header(response, "Vary", "Origin");
}

static void answer_options(const struct kx_gateway *gateway, enum kx_route route, struct kx_http_response *response)
{
	response->code = 204;
	kx_http_response_header(response, "Allow", "%s", kx_route_methods(route));
	if (gateway->options.allow_origin == NULL)
		return;
	kx_http_response_header(response, "Access-Control-Allow-Methods", "%s", kx_route_methods(route));
	kx_http_response_header(response, "Access-Control-Allow-Headers", "Content-Type, Range, If-Range, If-None-Match");
	kx_http_response_header(response, "Access-Control-Max-Age", "3600");
}

static kx_status write_now(struct kx_http_server *server, struct kx_buf *out)
{
	struct kx_http_now now;

	kx_http_now(server, &now);
	kx_status status = kx_metric_write(out, "kinodex_http_connections", "gauge", "Open connections.", now.connections);
	if (status == KX_OK)
		status = kx_metric_write(out, "kinodex_http_in_flight", "gauge", "Requests that are waiting, worked at or sent.",
					 now.at_work);
	if (status == KX_OK)
		status = kx_metric_write(out, "kinodex_http_queued", "gauge", "Requests that wait for a thread.", now.queued);
	if (status == KX_OK)
		status = kx_metric_write(out, "kinodex_http_body_bytes", "gauge", "Bytes of requests that are held.",
					 (double)now.body_bytes);
	return status;
}

static void answer_metrics(struct kx_gateway *gateway, struct kx_http_server *server, struct kx_http_response *response)
{
	const struct kx_backend *backend = &gateway->options.backend;
	kx_status status = kx_metrics_write(&gateway->metrics, &response->body);

	kx_looker_scraped(gateway->looker);

	if (status == KX_OK)
		status = write_now(server, &response->body);
	if (status == KX_OK && backend->metrics != NULL)
		status = backend->metrics(backend->ctx, &response->body);
	response->code = 200;
	response->type = "text/plain; version=0.0.4; charset=utf-8";
	if (status != KX_OK)
		kx_respond_problem(response, 503, "out of memory");
}

static void answer_text(struct kx_http_response *response, const char *type, const char *text, size_t len)
{
	response->code = 200;
	response->type = type;
	if (kx_buf_append(&response->body, text, len) != KX_OK)
		kx_respond_problem(response, 503, "out of memory");
}

static bool is_json(const char *content_type)
{
	static const char json[] = "application/json";
	size_t len = strlen(json);

	return content_type != NULL && strncasecmp(content_type, json, len) == 0 &&
	       (content_type[len] == '\0' || content_type[len] == ';' || content_type[len] == ' ');
}

static bool answer_quickly(struct kx_gateway *gateway, enum kx_route route, const struct kx_http_request *request,
			   struct kx_http_response *response)
{
	if (route == KX_ROUTE_NONE) {
		kx_respond_problem(response, 404, "no such path; /openapi.yaml says which there are. The slashes of an id are %2F");
	} else if (!kx_route_allows(route, request->method)) {
		kx_respond_problem(response, 405, "not with this method");
		kx_http_response_header(response, "Allow", "%s", kx_route_methods(route));
	} else if (request->method == KX_HTTP_OPTIONS) {
		answer_options(gateway, route, response);
	} else if (request->method == KX_HTTP_POST && !is_json(request->content_type)) {
		kx_respond_problem(response, 415, "the body must be application/json, and say so in Content-Type");
	} else if (route == KX_ROUTE_HEALTH) {
		answer_text(response, "text/plain; charset=utf-8", "ok\n", 3);
	} else if (route == KX_ROUTE_METRICS) {
		answer_metrics(gateway, request->server, response);
	} else if (route == KX_ROUTE_OPENAPI) {
		answer_text(response, "application/yaml", kx_openapi_text, kx_openapi_len);
	} else {
		return false;
	}
	return true;
}

static bool quick(void *ctx, struct kx_http_request *request, struct kx_http_response *response)
{
	const char *id;
	enum kx_route route = kx_route_match(&request->target, &id);

	request->label = route;
	if (!answer_quickly(ctx, route, request, response))
		return false;
	decorate(ctx, request, response);
	return true;
}

static void handle(void *ctx, struct kx_http_request *request, struct kx_http_response *response)
{
	struct kx_turn turn = {.gateway = ctx, .request = request, .response = response};
	kx_status status = serve[kx_route_match(&request->target, &turn.id)](&turn);

	if (status != KX_OK) {
		unsigned code = kx_problem_code(status);

		if (code == 500)
			kx_log(KX_LOG_WARN, "a request failed: %s", turn.error.message);
		kx_respond_problem(response, code, turn.error.message);
	}
	decorate(ctx, request, response);
}

static void refuse(void *ctx, unsigned code, const char *detail, struct kx_http_response *response)
{
	kx_respond_problem(response, code, detail);
	decorate(ctx, NULL, response);
}

static void finished(void *ctx, unsigned label, unsigned code, uint64_t took_us)
{
	struct kx_gateway *gateway = ctx;

	kx_metrics_request(&gateway->metrics, (enum kx_route)label, code, took_us);
}

static kx_status start(struct kx_gateway *gateway, struct kx_error *error)
{
	const struct kx_gateway_options *options = &gateway->options;
	struct kx_http_options http = {
		.listen = options->listen,
		.anywhere = options->anywhere,
		.threads = options->threads,
		.queue_max = options->queue_max,
		.connections_max = options->connections_max,
		.head_max = HEAD_MAX,
		.body_max = options->body_max,
		.bodies_max = BODIES_MAX > options->body_max ? BODIES_MAX : options->body_max,
		.request_ms = options->request_ms,
		.receive_ms = RECEIVE_MS,
		.handler = {gateway, quick, handle, refuse, finished},
	};
	kx_status status = kx_cache_lru_new(THUMBNAIL_BYTES, &gateway->thumbnails, error);

	if (status == KX_OK)
		status = kx_looker_start(&gateway->options.backend, &gateway->metrics, &gateway->looker, error);
	return status == KX_OK ? kx_http_start(&http, &gateway->server, error) : status;
}

kx_status kx_gateway_start(const struct kx_gateway_options *options, struct kx_gateway **ret, struct kx_error *error)
{
	struct kx_gateway *gateway = calloc(1, sizeof(*gateway));

	if (gateway == NULL)
		return kx_error_nomem(error);
	gateway->options = *options;
	gateway->limits = (struct kx_decode_limits){.k_max = options->k_max, .batch_max = options->batch_max};
	gateway->namer = (struct kx_namer){options->backend.ctx, options->backend.classifier, options->backend.label};
	atomic_init(&gateway->metrics.recall, -1.0);
	kx_status status = start(gateway, error);
	if (status == KX_OK)
		*ret = gateway;
	else
		kx_gateway_stop(gateway);
	return status;
}

const char *kx_gateway_address(const struct kx_gateway *gateway)
{
	return kx_http_address(gateway->server);
}

void kx_gateway_stop(struct kx_gateway *gateway)
{
	if (gateway == NULL)
		return;
	kx_http_stop(gateway->server, GRACE_MS, gateway->options.backend.cancel, gateway->options.backend.ctx);
	kx_looker_stop(gateway->looker); /* the server has cancelled what it asks */
	kx_cache_lru_free(gateway->thumbnails);
	free(gateway);
}
