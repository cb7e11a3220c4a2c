/* Which path is what, and by which methods. Pure. Layer: gateway/run. */
#ifndef KX_GATEWAY_RUN_ROUTE_H
#define KX_GATEWAY_RUN_ROUTE_H

#include <stdbool.h>

#include "gateway/http/message.h"

enum kx_route {
	KX_ROUTE_NONE,
	KX_ROUTE_HEALTH,
	KX_ROUTE_METRICS,
	KX_ROUTE_OPENAPI,
	KX_ROUTE_STATUS,
	KX_ROUTE_SCHEMA,
	KX_ROUTE_SIMILAR,
	KX_ROUTE_SEARCH,
	KX_ROUTE_BATCH,
	KX_ROUTE_CLASSIFY,
	KX_ROUTE_VIDEO,
	KX_ROUTE_MEDIA,
	KX_ROUTE_THUMBNAIL,
	KX_ROUTE_COUNT,
};

/* *ret_id: what stands in the place of {id}, or NULL. */
enum kx_route kx_route_match(const struct kx_http_target *target, const char **ret_id);
/* "/v1/videos/{id}"; "none". */
const char *kx_route_name(enum kx_route route);
bool kx_route_allows(enum kx_route route, enum kx_http_method method);
/* "GET, HEAD, OPTIONS", for Allow. */
const char *kx_route_methods(enum kx_route route);

#endif
