#include "coordinator/source/schema.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"

void kx_schema_free(struct kx_schema *schema)
{
	if (!schema)
		return;
	for (size_t i = 0; i < schema->count; i++)
		free(schema->entries[i].name);
	free(schema->entries);
	free(schema);
}

void kx_schema_cleanup(struct kx_schema **schema)
{
	kx_schema_free(*schema);
	*schema = NULL;
}

struct kx_schema_entry *kx_schema_find(const struct kx_schema *schema, const char *name)
{
	for (size_t i = 0; i < schema->count; i++)
		if (strcmp(schema->entries[i].name, name) == 0)
			return &schema->entries[i];
	return NULL;
}

kx_status kx_schema_add(struct kx_schema *schema, const char *name, enum kx_attribute_type type, uint64_t line)
{
	struct kx_schema_entry *entries;
	char *copy;

	if (schema->count == KX_SCHEMA_MAX)
		return KX_EINVAL;
	entries = reallocarray(schema->entries, schema->count + 1, sizeof(*entries));
	if (!entries)
		return KX_ENOMEM;
	schema->entries = entries;
	copy = kx_strdup(name);
	if (!copy)
		return KX_ENOMEM;
	entries[schema->count++] = (struct kx_schema_entry){copy, type, line};
	return KX_OK;
}

kx_status kx_schema_copy(const struct kx_schema *from, struct kx_schema **ret)
{
	KX_CLEANUP(kx_schema_cleanup) struct kx_schema *copy = calloc(1, sizeof(*copy));

	if (!copy)
		return KX_ENOMEM;
	for (size_t i = 0; from && i < from->count; i++)
		if (kx_schema_add(copy, from->entries[i].name, from->entries[i].type, from->entries[i].line))
			return KX_ENOMEM;
	*ret = KX_STEAL(copy);
	return KX_OK;
}

static enum kx_attribute_type type_of(const char *word)
{
	if (strcmp(word, "text") == 0 || strcmp(word, "string") == 0)
		return KX_ATTRIBUTE_TEXT;
	if (strcmp(word, "number") == 0)
		return KX_ATTRIBUTE_NUMBER;
	return strcmp(word, "bool") == 0 ? KX_ATTRIBUTE_BOOL : (enum kx_attribute_type)0;
}

static kx_status add_declared(struct kx_schema *schema, const char *path, const char *name, const json_t *value,
			      struct kx_error *error)
{
	const char *word = json_string_value(value);
	enum kx_attribute_type type = word ? type_of(word) : (enum kx_attribute_type)0;
	kx_status status;

	if (!kx_attribute_name_ok(name))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "%s: \"%.80s\" is no name of an attribute: at most %u letters, digits, _ - and ., a letter or "
				    "_ first",
				    path, name, KX_ATTRIBUTE_NAME_MAX);
	if (!type)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s: %s: write \"text\", \"number\" or \"bool\"", path,
				    name);
	status = kx_schema_add(schema, name, type, 0);
	if (status == KX_EINVAL)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s: more than %u attributes", path, KX_SCHEMA_MAX);
	return status ? kx_error_nomem(error) : KX_OK;
}

static void json_cleanup(json_t **json)
{
	json_decref(*json);
}

kx_status kx_schema_load(const char *path, struct kx_schema **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_schema_cleanup) struct kx_schema *schema = calloc(1, sizeof(*schema));
	json_error_t trouble;
	json_t *object KX_CLEANUP(json_cleanup) = json_load_file(path, JSON_REJECT_DUPLICATES, &trouble);
	const char *name;
	json_t *value;

	if (!schema)
		return kx_error_nomem(error);
	if (!object && trouble.line < 0)
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_FATAL, "%s: it can't be read", path);
	if (!object)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s:%d: not JSON: %s", path, trouble.line, trouble.text);
	if (!json_is_object(object))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "%s: write an object of names and types, like {\"season\": \"number\"}", path);
	json_object_foreach(object, name, value) {
		kx_status status = add_declared(schema, path, name, value, error);

		if (status)
			return status;
	}
	*ret = KX_STEAL(schema);
	return KX_OK;
}
