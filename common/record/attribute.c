#include "common/record/attribute.h"

#include <float.h>
#include <string.h>

#include "common/base/str.h"
#include "common/record/nested.h"

const char *kx_attribute_type_name(enum kx_attribute_type type)
{
	switch (type) {
	case KX_ATTRIBUTE_TEXT:
		return "text";
	case KX_ATTRIBUTE_NUMBER:
		return "number";
	case KX_ATTRIBUTE_BOOL:
		return "bool";
	case KX_ATTRIBUTE_DURATION:
		return "duration";
	case KX_ATTRIBUTE_DATE:
		return "date";
	case KX_ATTRIBUTE_CLASS:
		return "class";
	}
	return "unknown";
}

bool kx_attribute_name_ok(const char *name)
{
	static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
	static const char more[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789-.";
	size_t len = strlen(name);

	return len > 0 && len <= KX_ATTRIBUTE_NAME_MAX && strchr(first, name[0]) != NULL && strspn(name, more) == len;
}

static void attributes_free(struct kx_attribute *attributes, uint32_t count)
{
	for (uint32_t i = 0; attributes != NULL && i < count; i++) {
		free(attributes[i].name);
		free(attributes[i].text);
	}
	free(attributes);
}

void kx_extras_done(struct kx_extras *extras)
{
	free(extras->language);
	free(extras->visibility);
	attributes_free(extras->attributes, extras->attribute_count);
	*extras = (struct kx_extras){0};
}

static const char *word(const char *text)
{
	return text != NULL ? text : "";
}

static kx_status attributes_copy(const struct kx_extras *from, struct kx_extras *to)
{
	if (from->attribute_count == 0)
		return KX_OK;
	to->attributes = calloc(from->attribute_count, sizeof(*to->attributes));
	if (to->attributes == NULL)
		return KX_ENOMEM;
	to->attribute_count = from->attribute_count;
	for (uint32_t i = 0; i < from->attribute_count; i++) {
		struct kx_attribute *copy = &to->attributes[i];

		*copy = from->attributes[i];
		copy->name = kx_strdup(from->attributes[i].name);
		copy->text = kx_strdup(word(from->attributes[i].text));
		if (copy->name == NULL || copy->text == NULL) {
			to->attribute_count = i + 1;
			return KX_ENOMEM;
		}
	}
	return KX_OK;
}

kx_status kx_extras_copy(const struct kx_extras *from, struct kx_extras *ret)
{
	*ret = (struct kx_extras){.language = kx_strdup(word(from->language)),
				  .visibility = kx_strdup(word(from->visibility))};
	if (ret->language != NULL && ret->visibility != NULL && attributes_copy(from, ret) == KX_OK)
		return KX_OK;
	kx_extras_done(ret);
	return KX_ENOMEM;
}

static bool attributes_equal(const struct kx_attribute *a, const struct kx_attribute *b)
{
	return strcmp(a->name, b->name) == 0 && a->type == b->type && strcmp(word(a->text), word(b->text)) == 0 &&
	       a->number == b->number && a->flag == b->flag;
}

bool kx_extras_equal(const struct kx_extras *a, const struct kx_extras *b)
{
	if (strcmp(word(a->language), word(b->language)) != 0 || strcmp(word(a->visibility), word(b->visibility)) != 0 ||
	    a->attribute_count != b->attribute_count)
		return false;
	for (uint32_t i = 0; i < a->attribute_count; i++)
		if (!attributes_equal(&a->attributes[i], &b->attributes[i]))
			return false;
	return true;
}

static Kinodex__V1__Attribute *attribute_write(struct kx_writer *w, const struct kx_attribute *attribute)
{
	Kinodex__V1__Attribute *m = KX_WRITER_NEW(w, attribute);

	if (m == NULL)
		return NULL;
	m->name = attribute->name;
	switch (attribute->type) {
	case KX_ATTRIBUTE_TEXT:
		m->value_case = KINODEX__V1__ATTRIBUTE__VALUE_TEXT;
		m->text = attribute->text;
		return m;
	case KX_ATTRIBUTE_NUMBER:
		m->value_case = KINODEX__V1__ATTRIBUTE__VALUE_NUMBER;
		m->number = attribute->number;
		return m;
	case KX_ATTRIBUTE_BOOL:
		m->value_case = KINODEX__V1__ATTRIBUTE__VALUE_FLAG;
		m->flag = attribute->flag;
		return m;
	case KX_ATTRIBUTE_DURATION:
	case KX_ATTRIBUTE_DATE:
	case KX_ATTRIBUTE_CLASS:
		break;
	}
	kx_writer_fail(w, KX_EINVAL);
	return m;
}

Kinodex__V1__Attribute **kx_attributes_write(struct kx_writer *w, const struct kx_extras *extras)
{
	Kinodex__V1__Attribute **list = kx_writer_list(w, extras->attribute_count);

	for (uint32_t i = 0; list != NULL && i < extras->attribute_count; i++)
		list[i] = attribute_write(w, &extras->attributes[i]);
	return list;
}

static void attribute_read(struct kx_reader *r, const Kinodex__V1__Attribute *m, struct kx_attribute *attribute)
{
	attribute->name = kx_read_string(r, "name", m->name, 1, KX_ATTRIBUTE_NAME_MAX);
	if (attribute->name != NULL && !kx_attribute_name_ok(attribute->name))
		kx_reader_fail(r, KX_ECORRUPT, "name", "not of letters, digits, _ - and .");
	attribute->text = kx_read_string(r, "text", m->value_case == KINODEX__V1__ATTRIBUTE__VALUE_TEXT ? m->text : "",
					 0, KX_TEXT_MAX);
	switch (m->value_case) {
	case KINODEX__V1__ATTRIBUTE__VALUE_TEXT:
		attribute->type = KX_ATTRIBUTE_TEXT;
		return;
	case KINODEX__V1__ATTRIBUTE__VALUE_NUMBER:
		attribute->type = KX_ATTRIBUTE_NUMBER;
		attribute->number = kx_read_double(r, "number", m->number, -DBL_MAX, DBL_MAX);
		return;
	case KINODEX__V1__ATTRIBUTE__VALUE_FLAG:
		attribute->type = KX_ATTRIBUTE_BOOL;
		attribute->flag = m->flag;
		return;
	default:
		kx_reader_fail(r, KX_ECORRUPT, "value", "absent");
	}
}

void kx_extras_read(struct kx_reader *r, const char *language, const char *visibility,
		    Kinodex__V1__Attribute *const *list, size_t count, struct kx_extras *extras)
{
	extras->language = kx_read_string(r, "language", language, 0, KX_WORD_MAX);
	extras->visibility = kx_read_string(r, "visibility", visibility, 0, KX_WORD_MAX);
	extras->attributes = kx_read_list(r, "attributes", count, KX_ATTRIBUTES_MAX, sizeof(*extras->attributes),
					  &extras->attribute_count);
	for (uint32_t i = 0; i < extras->attribute_count && kx_reader_enter_item(r, "attributes", i); i++) {
		struct kx_attribute *attribute = &extras->attributes[i];

		attribute_read(r, list[i], attribute);
		if (i > 0 && attribute->name != NULL && strcmp(attribute[-1].name, attribute->name) >= 0)
			kx_reader_fail(r, KX_ECORRUPT, "name", "twice, or out of order");
		kx_reader_leave(r);
	}
}
