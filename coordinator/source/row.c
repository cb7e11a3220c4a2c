#include "coordinator/source/row.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/str.h"

static const struct {
	const char *name;
	size_t max; /* bytes */
} fields[KX_FIELD_COUNT] = {
	[KX_FIELD_ID] = {"id", KX_ID_MAX},
	[KX_FIELD_PATH] = {"path", KX_PATH_MAX},
	[KX_FIELD_URL] = {"url", KX_PATH_MAX},
	[KX_FIELD_TITLE] = {"title", KX_TEXT_MAX},
	[KX_FIELD_LABELS] = {"labels", KX_TEXT_MAX}, /* of each */
	[KX_FIELD_DURATION] = {"duration_ms", 0},
	[KX_FIELD_LANGUAGE] = {"language", KX_WORD_MAX},
	[KX_FIELD_VISIBILITY] = {"visibility", KX_WORD_MAX},
	[KX_FIELD_ATTRIBUTES] = {"attributes", 0},
};

enum kx_field kx_field_of(const char *name, size_t len)
{
	for (unsigned i = 0; i < KX_FIELD_COUNT; i++) {
		if (strlen(fields[i].name) == len && memcmp(fields[i].name, name, len) == 0)
			return (enum kx_field)i;
	}
	return KX_FIELD_COUNT;
}

kx_status kx_row_invalid(struct kx_error *error, enum kx_field field, const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%s: %s", fields[field].name, text);
}

void kx_row_done(struct kx_row *row)
{
	kx_source_item_free(row->item);
	free(row->url);
	*row = (struct kx_row){0};
}

kx_status kx_row_start(struct kx_row *row, uint64_t line)
{
	kx_row_done(row);
	row->item = calloc(1, sizeof(*row->item));
	if (!row->item)
		return KX_ENOMEM;
	row->item->reason = KX_REASON_NONE;
	row->line = line;
	return KX_OK;
}

/* An id stands in logs, keys and terminals. */
static bool has_controls(const char *text)
{
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] < 0xa0))
			return true;
	}
	return false;
}

static char **text_of(struct kx_row *row, enum kx_field field)
{
	switch (field) {
	case KX_FIELD_ID:
		return &row->item->video_id;
	case KX_FIELD_PATH:
		return &row->item->path;
	case KX_FIELD_URL:
		return &row->url;
	case KX_FIELD_LANGUAGE:
		return &row->item->extras.language;
	case KX_FIELD_VISIBILITY:
		return &row->item->extras.visibility;
	default:
		return &row->item->title;
	}
}

kx_status kx_row_set_text(struct kx_row *row, enum kx_field field, const char *text, struct kx_error *error)
{
	char **to = text_of(row, field);

	if (!text[0])
		return KX_OK;
	if (strlen(text) > fields[field].max)
		return kx_row_invalid(error, field, "%zu bytes, and at most %zu are allowed", strlen(text),
				      fields[field].max);
	if (field == KX_FIELD_ID && has_controls(text))
		return kx_row_invalid(error, field, "it has a control character (a tab, a line's end); leave it out");
	free(*to);
	*to = kx_strdup(text);
	return *to ? KX_OK : kx_error_nomem(error);
}

kx_status kx_row_add_label(struct kx_row *row, const char *text, size_t len, struct kx_error *error)
{
	struct kx_source_item *item = row->item;
	char **labels;

	if (!len)
		return KX_OK;
	if (len > fields[KX_FIELD_LABELS].max)
		return kx_row_invalid(error, KX_FIELD_LABELS, "one of %zu bytes, and at most %zu are allowed", len,
				      fields[KX_FIELD_LABELS].max);
	if (item->label_count == KX_LABELS_MAX)
		return kx_row_invalid(error, KX_FIELD_LABELS, "more than %u", KX_LABELS_MAX);
	labels = reallocarray(item->labels, item->label_count + 1, sizeof(*labels));
	if (!labels)
		return kx_error_nomem(error);
	item->labels = labels;
	labels[item->label_count] = kx_strndup(text, len);
	if (!labels[item->label_count])
		return kx_error_nomem(error);
	item->label_count++;
	return KX_OK;
}

kx_status kx_row_set_duration(struct kx_row *row, double milliseconds, struct kx_error *error)
{
	if (!(milliseconds >= 0 && milliseconds <= (double)KX_MEDIA_US_MAX / 1000))
		return kx_row_invalid(error, KX_FIELD_DURATION, "it is not between 0 and %.0f milliseconds",
				      (double)KX_MEDIA_US_MAX / 1000);
	row->item->duration_us = (uint64_t)(milliseconds * 1000 + 0.5);
	return KX_OK;
}

static int by_name(const void *a, const void *b)
{
	const struct kx_attribute *one = a, *two = b;

	return strcmp(one->name, two->name);
}

kx_status kx_row_check(struct kx_row *row, struct kx_error *error)
{
	struct kx_extras *extras = &row->item->extras;

	if (extras->attribute_count)
		qsort(extras->attributes, extras->attribute_count, sizeof(*extras->attributes), by_name);
	if (!row->item->video_id)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "no id; give each input one of its own");
	if (!row->item->path && !row->url)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "no path and no url; give one of them");
	return KX_OK;
}

void kx_rows_done(struct kx_rows *rows)
{
	kx_buf_done(&rows->text);
	kx_csv_free(rows->csv);
	rows->csv = NULL;
	kx_schema_free(rows->types);
	rows->types = NULL;
}

void kx_rows_unknown(struct kx_rows *rows, const char *name)
{
	if (rows->told_unknown)
		return;
	rows->told_unknown = true;
	kx_log(KX_LOG_INFO, "%s: \"%s\" and what else is not known is ignored (known: id, path, url, title, labels, "
	       "duration_ms, language, visibility, attributes, attr.NAME)", rows->name, name);
}
