/* Answers to similar, as text and as JSON. Layer: cli. */
#ifndef KX_CLI_HITS_H
#define KX_CLI_HITS_H

#include <stdbool.h>

#include "common/record/similar.h"

struct kx_hits_style {
	bool json;
	bool with_moments; /* matches were asked for */
	bool explain;
};
kx_status kx_hits_print(const char *name, const struct kx_similar_answer *answer, const struct kx_hits_style *style,
			struct kx_error *error) KX_MUST_CHECK;

#endif
