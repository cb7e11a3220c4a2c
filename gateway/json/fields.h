/* Reading the fields of a JSON object: types, ranges, unknown names, and where in the text something is wrong. Private to
 * gateway/json. Layer: gateway/json. */
#ifndef KX_GATEWAY_JSON_FIELDS_H
#define KX_GATEWAY_JSON_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/error.h"

#define KX_FIELDS_MAX 24u

/* After the first failure, which stays in status (here and in those around it), reading gives nothing. */
struct kx_fields {
	struct kx_fields *around;
	json_t *object;
	char path[96]; /* "queries[3]." */
	const char *taken[KX_FIELDS_MAX];
	size_t taken_count;
	kx_status status;
	struct kx_error *error;
};

void kx_fields_begin(struct kx_fields *fields, json_t *object, struct kx_error *error);
/* The object `value`, which is field `name` (its item i, unless that is SIZE_MAX). False: it is none. */
bool kx_fields_enter(struct kx_fields *around, const char *name, size_t i, json_t *value, struct kx_fields *ret);
/* Fails for a field that nobody took. */
void kx_fields_leave(struct kx_fields *fields);
/* name: NULL for the object as a whole. */
void kx_fields_fail(struct kx_fields *fields, const char *name, kx_status status, const char *what);

/* Each takes a field. One that is absent, or null, leaves the output as it was. */
json_t *kx_fields_take(struct kx_fields *fields, const char *name);
json_t *kx_fields_list(struct kx_fields *fields, const char *name, size_t min, size_t max);
const char *kx_fields_text(struct kx_fields *fields, const char *name, size_t min, size_t max);
void kx_fields_copy(struct kx_fields *fields, const char *name, size_t min, size_t max, char **ret);
void kx_fields_texts(struct kx_fields *fields, const char *name, size_t max, size_t text_max, char ***ret, uint32_t *ret_count);
void kx_fields_u32(struct kx_fields *fields, const char *name, uint32_t min, uint32_t max, uint32_t *ret);
bool kx_fields_real(struct kx_fields *fields, const char *name, double min, double max, double *ret);
void kx_fields_bool(struct kx_fields *fields, const char *name, bool *ret);
/* choices ends with NULL; "" can't be chosen. */
void kx_fields_choice(struct kx_fields *fields, const char *name, const char *const *choices, int *ret);

#endif
