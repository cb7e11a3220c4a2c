#include "gateway/run/route.h"

#include <string.h>

enum methods { GET = 1, POST = 2, GET_POST = GET | POST };

#define ID "{id}"

static const struct {
	const char *name;
	enum methods methods;
	const char *segments[4];
} routes[KX_ROUTE_COUNT] = {
	[KX_ROUTE_NONE] = {"none", GET_POST, {NULL}},
	[KX_ROUTE_HEALTH] = {"/healthz", GET, {"healthz"}},
	[KX_ROUTE_METRICS] = {"/metrics", GET, {"metrics"}},
	[KX_ROUTE_OPENAPI] = {"/openapi.yaml", GET, {"openapi.yaml"}},
	[KX_ROUTE_STATUS] = {"/v1/status", GET, {"v1", "status"}},
	[KX_ROUTE_SCHEMA] = {"/v1/schema", GET, {"v1", "schema"}},
	[KX_ROUTE_SIMILAR] = {"/v1/similar", GET_POST, {"v1", "similar"}},
	[KX_ROUTE_SEARCH] = {"/v1/search/vector", POST, {"v1", "search", "vector"}},
	[KX_ROUTE_BATCH] = {"/v1/videos:batch", POST, {"v1", "videos:batch"}},
	[KX_ROUTE_CLASSIFY] = {"/v1/classify", GET, {"v1", "classify"}},
	[KX_ROUTE_VIDEO] = {"/v1/videos/{id}", GET, {"v1", "videos", ID}},
	[KX_ROUTE_MEDIA] = {"/v1/videos/{id}/media", GET, {"v1", "videos", ID, "media"}},
	[KX_ROUTE_THUMBNAIL] = {"/v1/videos/{id}/thumbnail", GET, {"v1", "videos", ID, "thumbnail"}},
};

static bool matches(const struct kx_http_target *target, enum kx_route route, const char **ret_id)
{
	size_t i = 0;

	for (; i < KX_ARRAY_LEN(routes[route].segments) && routes[route].segments[i] != NULL; i++) {
		const char *wanted = routes[route].segments[i];

		if (i >= target->segment_count)
			return false;
		if (strcmp(wanted, ID) == 0 && target->segments[i][0] != '\0')
			*ret_id = target->segments[i];
		else if (strcmp(wanted, target->segments[i]) != 0)
			return false;
	}
	return i == target->segment_count;
}

enum kx_route kx_route_match(const struct kx_http_target *target, const char **ret_id)
{
	for (int route = KX_ROUTE_NONE + 1; route < KX_ROUTE_COUNT; route++) {
		*ret_id = NULL;
		if (matches(target, (enum kx_route)route, ret_id))
			return (enum kx_route)route;
	}
	*ret_id = NULL;
	return KX_ROUTE_NONE;
}

const char *kx_route_name(enum kx_route route)
{
	return routes[route].name;
}

bool kx_route_allows(enum kx_route route, enum kx_http_method method)
{
	switch (method) {
	case KX_HTTP_GET:
	case KX_HTTP_HEAD:
		return (routes[route].methods & GET) != 0;
	case KX_HTTP_POST:
		return (routes[route].methods & POST) != 0;
	case KX_HTTP_OPTIONS:
		return true;
	case KX_HTTP_OTHER:
		break;
	}
	return false;
}

const char *kx_route_methods(enum kx_route route)
{
	static const char *const words[] = {"OPTIONS", "GET, HEAD, OPTIONS", "POST, OPTIONS", "GET, HEAD, POST, OPTIONS"};

	return words[routes[route].methods];
}
