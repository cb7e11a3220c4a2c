/* Attributes of a row: their names, and types that hold for all rows. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/str.h"
#include "coordinator/source/row.h"

static kx_status check_name(const struct kx_row *row, const char *name, struct kx_error *error)
{
	const struct kx_extras *extras = &row->item->extras;

	if (!kx_attribute_name_ok(name))
		return kx_row_invalid(error, KX_FIELD_ATTRIBUTES,
				      "\"%.80s\" is no name: at most %u letters, digits, _ - and ., a letter or _ first", name,
				      KX_ATTRIBUTE_NAME_MAX);
	if (extras->attribute_count == KX_ATTRIBUTES_MAX)
		return kx_row_invalid(error, KX_FIELD_ATTRIBUTES, "more than %u", KX_ATTRIBUTES_MAX);
	return KX_OK;
}

static kx_status append(struct kx_row *row, const struct kx_attribute *value, struct kx_error *error)
{
	struct kx_extras *extras = &row->item->extras;
	struct kx_attribute copy = *value, *list;

	if (value->type == KX_ATTRIBUTE_TEXT && strlen(value->text) > KX_TEXT_MAX)
		return kx_row_invalid(error, KX_FIELD_ATTRIBUTES, "%.64s has %zu bytes, and at most %u are allowed",
				      value->name, strlen(value->text), KX_TEXT_MAX);
	list = reallocarray(extras->attributes, extras->attribute_count + 1, sizeof(*list));
	if (!list)
		return kx_error_nomem(error);
	extras->attributes = list;
	copy.name = kx_strdup(value->name);
	copy.text = kx_strdup(value->text ? value->text : "");
	list[extras->attribute_count++] = copy;
	return copy.name && copy.text ? KX_OK : kx_error_nomem(error);
}

static kx_status remember(struct kx_rows *rows, const char *name, enum kx_attribute_type type, struct kx_error *error)
{
	kx_status status = kx_schema_add(rows->types, name, type, rows->line);

	if (status == KX_EINVAL)
		return kx_row_invalid(error, KX_FIELD_ATTRIBUTES, "more than %u in one manifest", KX_SCHEMA_MAX);
	return status ? kx_error_nomem(error) : KX_OK;
}

static kx_status other_type(const struct kx_schema_entry *entry, const char *is, struct kx_error *error)
{
	if (!entry->line)
		return kx_row_invalid(error, KX_FIELD_ATTRIBUTES, "%.64s is %s, and it is declared as %s", entry->name, is,
				      kx_attribute_type_name(entry->type));
	return kx_row_invalid(error, KX_FIELD_ATTRIBUTES,
			      "%.64s is %s, and on line %" PRIu64 " it is %s; write one kind, or declare it with --schema",
			      entry->name, is, entry->line, kx_attribute_type_name(entry->type));
}

kx_status kx_row_add_attribute(struct kx_rows *rows, struct kx_row *row, const struct kx_attribute *value,
			       struct kx_error *error)
{
	const struct kx_schema_entry *entry;
	kx_status status = check_name(row, value->name, error);

	if (status)
		return status;
	if (value->type == KX_ATTRIBUTE_NUMBER && !isfinite(value->number))
		return kx_row_invalid(error, KX_FIELD_ATTRIBUTES, "%.64s is no finite number", value->name);
	entry = kx_schema_find(rows->types, value->name);
	if (!entry)
		status = remember(rows, value->name, value->type, error);
	else if (entry->type != value->type)
		status = other_type(entry, kx_attribute_type_name(value->type), error);
	return status ? status : append(row, value, error);
}

/* What the text alone looks like. */
static enum kx_attribute_type look_of(const char *cell, struct kx_attribute *value)
{
	if (!kx_parse_double(cell, &value->number))
		return KX_ATTRIBUTE_NUMBER;
	value->number = 0.0;
	value->flag = strcasecmp(cell, "true") == 0;
	return value->flag || strcasecmp(cell, "false") == 0 ? KX_ATTRIBUTE_BOOL : KX_ATTRIBUTE_TEXT;
}

kx_status kx_row_add_cell(struct kx_rows *rows, struct kx_row *row, const char *name, char *cell, struct kx_error *error)
{
	struct kx_attribute value = {.name = (char *)(uintptr_t)name};
	struct kx_schema_entry *entry;
	kx_status status = check_name(row, name, error);

	if (status || !cell[0])
		return status;
	entry = kx_schema_find(rows->types, name);
	value.type = look_of(cell, &value);
	if (!entry)
		status = remember(rows, name, value.type, error);
	else if (entry->line && entry->type != value.type && !rows->is_typed)
		entry->type = KX_ATTRIBUTE_TEXT;
	else if (entry->type != KX_ATTRIBUTE_TEXT && entry->type != value.type)
		status = other_type(entry, kx_attribute_type_name(value.type), error);
	if (status)
		return status;
	if (entry && entry->type == KX_ATTRIBUTE_TEXT)
		value = (struct kx_attribute){.name = value.name, .type = KX_ATTRIBUTE_TEXT};
	value.text = value.type == KX_ATTRIBUTE_TEXT ? cell : NULL;
	return append(row, &value, error);
}
