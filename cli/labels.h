/* Class numbers to names. Layer: cli. */
#ifndef KX_CLI_LABELS_H
#define KX_CLI_LABELS_H

#include <jansson.h>

#include "cli/engine.h"

/* The label, or "class 17" written into scratch (at least 32 bytes) where the bundle has no such class. */
const char *kx_label(const struct kx_bundle *bundle, uint32_t class_id, char *scratch);

/* [{"class", "label", "score"}], at most `top`. */
json_t *kx_classes_json(const struct kx_bundle *bundle, uint32_t count, const uint32_t *ids, const float *scores,
			uint32_t top);
/* "soccer ball 0.93, ..." on standard output. */
void kx_classes_print(const struct kx_bundle *bundle, uint32_t count, const uint32_t *ids, const float *scores,
		      uint32_t top);

#endif
