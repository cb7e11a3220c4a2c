/* CSV (RFC 4180) with a header row. Line ends may be those of Unix, too; blank lines are passed over. */
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "coordinator/source/row.h"

#define COLUMNS_MAX 1024
#define ATTRIBUTE_PREFIX "attr."

struct kx_csv {
	size_t count;
	enum kx_field columns[COLUMNS_MAX]; /* KX_FIELD_COUNT: not known */
	char *names[COLUMNS_MAX];           /* of KX_FIELD_ATTRIBUTES; else NULL */
	size_t cell_count;
	char *cells[COLUMNS_MAX];           /* of one record, in rows->text */
};

/* Where a record stands between two of its characters. */
enum place { AT_FIELD, IN_PLAIN, IN_QUOTED, AT_QUOTE };

static enum place move_on(enum place place, const char *text)
{
	for (; *text; text++) {
		if (place == IN_QUOTED)
			place = *text == '"' ? AT_QUOTE : IN_QUOTED;
		else if (*text == ',')
			place = AT_FIELD;
		else if (*text == '"' && place != IN_PLAIN)
			place = IN_QUOTED; /* at a field's start, or the second of two */
		else
			place = IN_PLAIN;
	}
	return place;
}

static void strip_line_end(struct kx_buf *text)
{
	if (text->len && text->data[text->len - 1] == '\n')
		text->len--;
	if (text->len && text->data[text->len - 1] == '\r')
		text->len--;
	text->data[text->len] = '\0';
}

/* Reads the lines of one record: it goes on while a quote is open. */
static kx_status read_record(struct kx_rows *rows, struct kx_error *error)
{
	struct kx_buf *text = &rows->text;
	enum place place = AT_FIELD;

	kx_buf_clear(text);
	do {
		size_t before = text->len;
		kx_status status = kx_lines_next(rows->lines, text, error);

		if (!before)
			rows->line = rows->lines->number;
		if (status == KX_ETOOBIG && before)
			return kx_error_set(error, status, KX_ERROR_POISON,
					    "a quoted field has no closing quote within %zu bytes", text->max);
		if (status == KX_ENOTFOUND && before)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "a quoted field has no closing quote");
		if (status)
			return status;
		if (!before && strspn((const char *)text->data, "\r\n") == text->len)
			kx_buf_clear(text);
		else
			place = move_on(place, (const char *)text->data + before);
	} while (!text->len || place == IN_QUOTED);
	strip_line_end(text);
	return KX_OK;
}

/* Unquotes in place. Returns where the cell ends, at a comma or at the end; NULL when it does not end there. */
static char *unquote(char *cell)
{
	char *out = cell;
	char *in = cell + 1;

	while (*in && (in[0] != '"' || in[1] == '"')) {
		in += *in == '"';
		*out++ = *in++;
	}
	if (*in != '"' || (in[1] && in[1] != ','))
		return NULL;
	*out = '\0';
	return in + 1;
}

static kx_status split(struct kx_csv *csv, char *text, struct kx_error *error)
{
	char *next = text;

	for (csv->cell_count = 0; next; csv->cell_count++) {
		char *cell = next;
		char *end = cell[0] == '"' ? unquote(cell) : cell + strcspn(cell, ",\"");

		if (csv->cell_count == COLUMNS_MAX)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "more than %d fields", COLUMNS_MAX);
		if (!end || *end == '"')
			return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
					    "field %zu: a quote where none belongs; put quotes around the field and "
					    "write each quote in it twice", csv->cell_count + 1);
		next = *end ? end + 1 : NULL;
		*end = '\0';
		csv->cells[csv->cell_count] = cell;
	}
	return KX_OK;
}

static char *trim(char *text)
{
	size_t len;

	text += strspn(text, " \t");
	len = strlen(text);
	while (len && strchr(" \t", text[len - 1]))
		len--;
	text[len] = '\0';
	return text;
}

static bool has_column(const struct kx_csv *csv, enum kx_field field)
{
	for (size_t i = 0; i < csv->count; i++) {
		if (csv->columns[i] == field)
			return true;
	}
	return false;
}

/* "attr.season": the season of the video. */
static kx_status add_attribute_column(struct kx_csv *csv, const char *name, struct kx_error *error)
{
	for (size_t i = 0; i < csv->count; i++)
		if (csv->names[i] && strcmp(csv->names[i], name) == 0)
			return kx_row_invalid(error, KX_FIELD_ATTRIBUTES, "two columns are named " ATTRIBUTE_PREFIX "%.64s", name);
	csv->names[csv->count] = kx_strdup(name);
	if (!csv->names[csv->count])
		return kx_error_nomem(error);
	csv->columns[csv->count++] = KX_FIELD_ATTRIBUTES;
	return KX_OK;
}

static kx_status set_columns(struct kx_rows *rows, struct kx_csv *csv, struct kx_error *error)
{
	for (size_t i = 0; i < csv->cell_count; i++) {
		const char *name = trim(csv->cells[i]);
		enum kx_field field = kx_field_of(name, strlen(name));

		if (kx_str_starts(name, ATTRIBUTE_PREFIX)) {
			kx_status status = add_attribute_column(csv, name + strlen(ATTRIBUTE_PREFIX), error);

			if (status)
				return status;
			continue;
		}
		if (field == KX_FIELD_ATTRIBUTES) /* CSV has a column for each */
			field = KX_FIELD_COUNT;
		if (field != KX_FIELD_COUNT && has_column(csv, field))
			return kx_row_invalid(error, field, "two columns have this name");
		if (field == KX_FIELD_COUNT)
			kx_rows_unknown(rows, name);
		csv->columns[csv->count++] = field;
	}
	if (!has_column(csv, KX_FIELD_ID))
		return kx_row_invalid(error, KX_FIELD_ID,
				      "no column has this name; the first row names the columns, with commas between");
	if (!has_column(csv, KX_FIELD_PATH) && !has_column(csv, KX_FIELD_URL))
		return kx_row_invalid(error, KX_FIELD_PATH, "no column has this name, nor url");
	return KX_OK;
}

void kx_csv_free(struct kx_csv *csv)
{
	for (size_t i = 0; csv && i < csv->count; i++)
		free(csv->names[i]);
	free(csv);
}

static void csv_cleanup(struct kx_csv **csv)
{
	kx_csv_free(*csv);
}

static kx_status read_header(struct kx_rows *rows, struct kx_error *error)
{
	struct kx_csv *csv KX_CLEANUP(csv_cleanup) = calloc(1, sizeof(*csv));
	kx_status status = csv ? read_record(rows, error) : kx_error_nomem(error);

	if (status == KX_ENOTFOUND)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "no header row; the first one names the columns");
	if (!status)
		status = split(csv, (char *)rows->text.data, error);
	if (!status)
		status = set_columns(rows, csv, error);
	if (!status)
		rows->csv = KX_STEAL(csv);
	return status;
}

static kx_status set_labels(struct kx_row *row, char *text, struct kx_error *error)
{
	char *next = text;

	while (next) {
		char *label = strsep(&next, ";");
		kx_status status;

		label = trim(label);
		status = kx_row_add_label(row, label, strlen(label), error);
		if (status)
			return status;
	}
	return KX_OK;
}

static kx_status set_cell(struct kx_row *row, enum kx_field field, char *text, struct kx_error *error)
{
	double milliseconds;

	switch (field) {
	case KX_FIELD_COUNT:
	case KX_FIELD_ATTRIBUTES:
		return KX_OK;
	case KX_FIELD_LABELS:
		return set_labels(row, text, error);
	case KX_FIELD_DURATION:
		text = trim(text);
		if (!text[0])
			return KX_OK;
		if (kx_parse_double(text, &milliseconds))
			return kx_row_invalid(error, field, "\"%.40s\" is no number", text);
		return kx_row_set_duration(row, milliseconds, error);
	default:
		return kx_row_set_text(row, field, text, error);
	}
}

kx_status kx_rows_next_csv(struct kx_rows *rows, struct kx_row *row, struct kx_error *error)
{
	kx_status status = rows->csv ? KX_OK : read_header(rows, error);
	struct kx_csv *csv = rows->csv;

	if (!status)
		status = read_record(rows, error);
	if (status)
		return status;
	if (kx_row_start(row, rows->line))
		return kx_error_nomem(error);
	status = split(csv, (char *)rows->text.data, error);
	if (status)
		return status;
	if (csv->cell_count != csv->count)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "it has %zu fields, and the header row has %zu",
				    csv->cell_count, csv->count);
	for (size_t i = 0; !status && i < csv->count; i++)
		status = csv->names[i] ? kx_row_add_cell(rows, row, csv->names[i], trim(csv->cells[i]), error)
				       : set_cell(row, csv->columns[i], csv->cells[i], error);
	return status ? status : kx_row_check(row, error);
}
