#include "cli/labels.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *kx_label(const struct kx_bundle *bundle, uint32_t class_id, char *scratch)
{
	if (class_id < bundle->class_count)
		return bundle->labels[class_id];
	snprintf(scratch, 32, "class %" PRIu32, class_id);
	return scratch;
}

json_t *kx_classes_json(const struct kx_bundle *bundle, uint32_t count, const uint32_t *ids, const float *scores,
			uint32_t top)
{
	char scratch[32];
	json_t *out = json_array();
	for (uint32_t i = 0; i < count && i < top; i++)
		json_array_append_new(out, json_pack("{s:I, s:s, s:f}", "class", (json_int_t)ids[i], "label",
						     kx_label(bundle, ids[i], scratch), "score", (double)scores[i]));
	return out;
}

void kx_classes_print(const struct kx_bundle *bundle, uint32_t count, const uint32_t *ids, const float *scores,
		      uint32_t top)
{
	char scratch[32];
	for (uint32_t i = 0; i < count && i < top; i++)
		printf("%s%s %.2f", i > 0 ? ", " : "", kx_label(bundle, ids[i], scratch), (double)scores[i]);
	putchar('\n');
}
