/* Bodies and arguments of the API as queries. Pure; what comes out is what common/record takes. Layer: gateway/json. */
#ifndef KX_GATEWAY_JSON_DECODE_H
#define KX_GATEWAY_JSON_DECODE_H

#include "common/record/query.h"

#define KX_JSON_DEPTH_MAX 16u /* brackets in brackets */

/* What a query may ask for at most; and what holds where it says nothing. */
struct kx_decode_limits {
	uint32_t k_max;
	uint32_t batch_max; /* at most KX_QUERY_BATCH_MAX */
};

enum kx_body {
	KX_BODY_SIMILAR, /* {"id", ...options} -> SIMILAR */
	KX_BODY_SEARCH,  /* {"vectors", ...} -> SIMILAR; {"queries": [...], ...} -> SIMILAR_BATCH */
	KX_BODY_VIDEOS,  /* {"ids"} -> VIDEOS */
};

/* text[len] is JSON, followed by a zero byte. KX_EINVAL and KX_ETOOBIG say where in the text what is wrong ("queries[3].k:
 * ..."). Fields that are not known are errors. The caller frees *ret. */
kx_status kx_decode_body(enum kx_body body, const char *text, size_t len, const struct kx_decode_limits *limits,
			 struct kx_query_request **ret, struct kx_error *error) KX_MUST_CHECK;

struct kx_decode_arg {
	const char *name;
	const char *value;
};
/* The same options as of KX_BODY_SIMILAR as arguments: id, k, moments=true, visual, audio, filter, min_score, cursor, group,
 * diversity, not_id (several, separated by commas: ids that hold one need POST), level, recall, explain. */
kx_status kx_decode_similar_args(const struct kx_decode_arg *args, size_t count, const struct kx_decode_limits *limits,
				 struct kx_query_request **ret, struct kx_error *error) KX_MUST_CHECK;

/* "true", "1", "" and "false", "0". */
kx_status kx_decode_bool(const char *text, bool *ret) KX_MUST_CHECK;

#endif
