#include "gateway/json/fields.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"

void kx_fields_begin(struct kx_fields *fields, json_t *object, struct kx_error *error)
{
	*fields = (struct kx_fields){.object = object, .error = error};
}

bool kx_fields_enter(struct kx_fields *around, const char *name, size_t i, json_t *value, struct kx_fields *ret)
{
	char item[40] = "";

	if (around->status != KX_OK)
		return false;
	if (i != SIZE_MAX)
		snprintf(item, sizeof(item), "[%zu]", i);
	*ret = (struct kx_fields){.around = around, .object = value, .error = around->error};
	snprintf(ret->path, sizeof(ret->path), "%.40s%s%s.", around->path, name, item);
	if (json_is_object(value))
		return true;
	kx_fields_fail(ret, NULL, KX_EINVAL, "must be an object");
	return false;
}

void kx_fields_fail(struct kx_fields *fields, const char *name, kx_status status, const char *what)
{
	size_t path_len = strlen(fields->path);

	if (fields->status != KX_OK)
		return;
	if (name != NULL)
		(void)kx_error_set(fields->error, status, KX_ERROR_POISON, "%s%s: %s", fields->path, name, what);
	else if (path_len > 0)
		(void)kx_error_set(fields->error, status, KX_ERROR_POISON, "%.*s: %s", (int)path_len - 1, fields->path, what);
	else
		(void)kx_error_set(fields->error, status, KX_ERROR_POISON, "%s", what);
	for (struct kx_fields *at = fields; at != NULL; at = at->around)
		at->status = status;
}

void kx_fields_leave(struct kx_fields *fields)
{
	const char *key;
	json_t *value;

	if (fields->status != KX_OK)
		return;
	json_object_foreach(fields->object, key, value) {
		bool known = false;

		for (size_t i = 0; i < fields->taken_count && !known; i++)
			known = strcmp(fields->taken[i], key) == 0;
		if (!known) {
			char name[64];

			snprintf(name, sizeof(name), "%.60s", key);
			kx_fields_fail(fields, name, KX_EINVAL, "there is no such field here");
		}
	}
}

json_t *kx_fields_take(struct kx_fields *fields, const char *name)
{
	assert(fields->taken_count < KX_FIELDS_MAX);
	fields->taken[fields->taken_count++] = name;
	json_t *value = fields->status == KX_OK ? json_object_get(fields->object, name) : NULL;
	return json_is_null(value) ? NULL : value;
}

json_t *kx_fields_list(struct kx_fields *fields, const char *name, size_t min, size_t max)
{
	json_t *list = kx_fields_take(fields, name);
	char what[80];

	if (list == NULL)
		return NULL;
	if (json_is_array(list) && json_array_size(list) >= min && json_array_size(list) <= max)
		return list;
	snprintf(what, sizeof(what), "must be a list of %zu to %zu items", min, max);
	kx_fields_fail(fields, name, json_array_size(list) > max ? KX_ETOOBIG : KX_EINVAL, what);
	return NULL;
}

const char *kx_fields_text(struct kx_fields *fields, const char *name, size_t min, size_t max)
{
	json_t *value = kx_fields_take(fields, name);
	char what[80];

	if (value == NULL)
		return NULL;
	if (json_is_string(value) && json_string_length(value) >= min && json_string_length(value) <= max)
		return json_string_value(value);
	snprintf(what, sizeof(what), "must be text of %zu to %zu bytes", min, max);
	kx_fields_fail(fields, name, KX_EINVAL, what);
	return NULL;
}

void kx_fields_copy(struct kx_fields *fields, const char *name, size_t min, size_t max, char **ret)
{
	const char *text = kx_fields_text(fields, name, min, max);

	if (text != NULL && kx_str_set(ret, text) != KX_OK)
		kx_fields_fail(fields, NULL, KX_ENOMEM, "out of memory");
}

void kx_fields_texts(struct kx_fields *fields, const char *name, size_t max, size_t text_max, char ***ret, uint32_t *ret_count)
{
	json_t *list = kx_fields_list(fields, name, 0, max);
	size_t count = json_array_size(list);

	if (count == 0)
		return;
	*ret = calloc(count, sizeof(**ret));
	if (*ret == NULL) {
		kx_fields_fail(fields, NULL, KX_ENOMEM, "out of memory");
		return;
	}
	for (size_t i = 0; i < count; i++) {
		json_t *value = json_array_get(list, i);
		char what[80];

		snprintf(what, sizeof(what), "[%zu] must be text of 1 to %zu bytes", i, text_max);
		if (!json_is_string(value) || json_string_length(value) < 1 || json_string_length(value) > text_max) {
			kx_fields_fail(fields, name, KX_EINVAL, what);
			return;
		}
		(*ret)[i] = kx_strdup(json_string_value(value));
		if ((*ret)[i] == NULL) {
			kx_fields_fail(fields, NULL, KX_ENOMEM, "out of memory");
			return;
		}
		(*ret_count)++;
	}
}

void kx_fields_u32(struct kx_fields *fields, const char *name, uint32_t min, uint32_t max, uint32_t *ret)
{
	json_t *value = kx_fields_take(fields, name);
	json_int_t number = json_integer_value(value);
	char what[80];

	if (value == NULL)
		return;
	if (json_is_integer(value) && number >= min && number <= max) {
		*ret = (uint32_t)number;
		return;
	}
	snprintf(what, sizeof(what), "must be a whole number from %" PRIu32 " to %" PRIu32, min, max);
	kx_fields_fail(fields, name, KX_EINVAL, what);
}

bool kx_fields_real(struct kx_fields *fields, const char *name, double min, double max, double *ret)
{
	json_t *value = kx_fields_take(fields, name);
	double number = json_number_value(value);
	char what[80];

	if (value == NULL)
		return false;
	if (json_is_number(value) && number >= min && number <= max) {
		*ret = number;
		return true;
	}
	snprintf(what, sizeof(what), "must be a number from %g to %g", min, max);
	kx_fields_fail(fields, name, KX_EINVAL, what);
	return false;
}

void kx_fields_bool(struct kx_fields *fields, const char *name, bool *ret)
{
	json_t *value = kx_fields_take(fields, name);

	if (value == NULL)
		return;
	if (json_is_boolean(value))
		*ret = json_is_true(value);
	else
		kx_fields_fail(fields, name, KX_EINVAL, "must be true or false");
}

void kx_fields_choice(struct kx_fields *fields, const char *name, const char *const *choices, int *ret)
{
	json_t *value = kx_fields_take(fields, name);
	const char *text = json_string_value(value);
	char what[96] = "must be one of";

	if (value == NULL)
		return;
	for (int i = 0; choices[i] != NULL; i++) {
		if (text != NULL && choices[i][0] != '\0' && strcmp(text, choices[i]) == 0) {
			*ret = i;
			return;
		}
		if (choices[i][0] != '\0')
			snprintf(what + strlen(what), sizeof(what) - strlen(what), " %s", choices[i]);
	}
	kx_fields_fail(fields, name, KX_EINVAL, what);
}
