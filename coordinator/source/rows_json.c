/* JSON Lines: an object a line. */
#include <jansson.h>
#include <string.h>

#include "coordinator/source/row.h"

static const char *type_name(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
	case JSON_REAL:
		return "a number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "true or false";
	case JSON_NULL:
		return "null";
	}
	return "unknown";
}

static kx_status set_labels(struct kx_row *row, const json_t *value, struct kx_error *error)
{
	if (!json_is_array(value))
		return kx_row_invalid(error, KX_FIELD_LABELS, "it is %s; write an array of strings", type_name(value));
	for (size_t i = 0; i < json_array_size(value); i++) {
		const json_t *label = json_array_get(value, i);
		kx_status status;

		if (!json_is_string(label))
			return kx_row_invalid(error, KX_FIELD_LABELS, "one is %s; write an array of strings",
					      type_name(label));
		status = kx_row_add_label(row, json_string_value(label), json_string_length(label), error);
		if (status)
			return status;
	}
	return KX_OK;
}

static kx_status set_attribute(struct kx_rows *rows, struct kx_row *row, const char *name, const json_t *value,
			       struct kx_error *error)
{
	struct kx_attribute attribute = {.name = (char *)(uintptr_t)name, .type = KX_ATTRIBUTE_TEXT};

	if (json_is_null(value))
		return KX_OK;
	if (json_is_string(value)) {
		attribute.text = (char *)(uintptr_t)json_string_value(value);
	} else if (json_is_number(value)) {
		attribute.type = KX_ATTRIBUTE_NUMBER;
		attribute.number = json_number_value(value);
	} else if (json_is_boolean(value)) {
		attribute.type = KX_ATTRIBUTE_BOOL;
		attribute.flag = json_is_true(value);
	} else {
		return kx_row_invalid(error, KX_FIELD_ATTRIBUTES, "%.64s is %s; write a string, a number, true or false", name,
				      type_name(value));
	}
	return kx_row_add_attribute(rows, row, &attribute, error);
}

static kx_status set_attributes(struct kx_rows *rows, struct kx_row *row, json_t *value, struct kx_error *error)
{
	const char *name;
	json_t *one;

	if (!json_is_object(value))
		return kx_row_invalid(error, KX_FIELD_ATTRIBUTES, "it is %s; write an object, like {\"season\": 3}",
				      type_name(value));
	json_object_foreach(value, name, one) {
		kx_status status = set_attribute(rows, row, name, one, error);

		if (status)
			return status;
	}
	return KX_OK;
}

static kx_status set_field(struct kx_rows *rows, struct kx_row *row, enum kx_field field, json_t *value,
			   struct kx_error *error)
{
	if (json_is_null(value))
		return KX_OK;
	if (field == KX_FIELD_ATTRIBUTES)
		return set_attributes(rows, row, value, error);
	if (field == KX_FIELD_LABELS)
		return set_labels(row, value, error);
	if (field == KX_FIELD_DURATION) {
		if (!json_is_number(value))
			return kx_row_invalid(error, field, "it is %s; write a number", type_name(value));
		return kx_row_set_duration(row, json_number_value(value), error);
	}
	if (!json_is_string(value))
		return kx_row_invalid(error, field, "it is %s; write a string", type_name(value));
	return kx_row_set_text(row, field, json_string_value(value), error);
}

static kx_status set_fields(struct kx_rows *rows, struct kx_row *row, json_t *object, struct kx_error *error)
{
	const char *key;
	json_t *value;

	if (!json_is_object(object))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "it is %s; write an object, like {\"id\": \"a\", \"path\": \"a.mp4\"}",
				    type_name(object));
	json_object_foreach(object, key, value) {
		enum kx_field field = kx_field_of(key, strlen(key));
		kx_status status;

		if (field == KX_FIELD_COUNT) {
			kx_rows_unknown(rows, key);
			continue;
		}
		status = set_field(rows, row, field, value, error);
		if (status)
			return status;
	}
	return kx_row_check(row, error);
}

static bool is_blank(const struct kx_buf *text)
{
	return strspn((const char *)text->data, " \t\r\n") == text->len;
}

static void json_cleanup(json_t **json)
{
	json_decref(*json);
}

kx_status kx_rows_next_json(struct kx_rows *rows, struct kx_row *row, struct kx_error *error)
{
	json_t *object KX_CLEANUP(json_cleanup) = NULL;
	json_error_t trouble;

	do {
		kx_buf_clear(&rows->text);
		kx_status status = kx_lines_next(rows->lines, &rows->text, error);

		rows->line = rows->lines->number;
		if (status)
			return status;
	} while (is_blank(&rows->text));
	if (kx_row_start(row, rows->line))
		return kx_error_nomem(error);
	/* Any value, so that an array is told what it should be. */
	object = json_loadb((const char *)rows->text.data, rows->text.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY,
			    &trouble);
	if (!object && json_error_code(&trouble) == json_error_out_of_memory)
		return kx_error_nomem(error);
	if (!object && json_error_code(&trouble) == json_error_null_character)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "it has a zero byte (\\u0000); leave it out");
	if (!object)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "not JSON: %s (column %d)", trouble.text,
				    trouble.column);
	return set_fields(rows, row, object, error);
}
