/* One input of a manifest, field by field, whatever the manifest's format. Internal to coordinator/source. */
#ifndef KX_COORDINATOR_SOURCE_ROW_H
#define KX_COORDINATOR_SOURCE_ROW_H

#include "coordinator/source/lines.h"
#include "coordinator/source/source.h"

#define KX_LINE_MAX ((size_t)1 << 20) /* bytes of a line, of a CSV record with all its lines */

enum kx_field {
	KX_FIELD_ID,
	KX_FIELD_PATH,
	KX_FIELD_URL,
	KX_FIELD_TITLE,
	KX_FIELD_LABELS,
	KX_FIELD_DURATION,
	KX_FIELD_LANGUAGE,
	KX_FIELD_VISIBILITY,
	KX_FIELD_ATTRIBUTES,
	KX_FIELD_COUNT, /* none of them */
};
enum kx_field kx_field_of(const char *name, size_t len);

/* Owns what it points to. path is in item as it was written; strings are NULL until they are set. */
struct kx_row {
	uint64_t line; /* where it starts */
	struct kx_source_item *item;
	char *url;
};
kx_status kx_row_start(struct kx_row *row, uint64_t line) KX_MUST_CHECK; /* KX_ENOMEM */
void kx_row_done(struct kx_row *row);

/* Empty text is as good as none. Errors (KX_EINVAL, KX_ENOMEM) name the field. kx_row_set_text() takes all fields but
 * labels and duration_ms. */
kx_status kx_row_set_text(struct kx_row *row, enum kx_field field, const char *text, struct kx_error *error)
	KX_MUST_CHECK;
kx_status kx_row_add_label(struct kx_row *row, const char *text, size_t len, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_row_set_duration(struct kx_row *row, double milliseconds, struct kx_error *error) KX_MUST_CHECK;
/* Whether all is there that must be; sorts the attributes. */
kx_status kx_row_check(struct kx_row *row, struct kx_error *error) KX_MUST_CHECK;

/* "field: what is wrong"; the same for all formats. */
kx_status kx_row_invalid(struct kx_error *error, enum kx_field field, const char *format, ...) KX_PRINTF(3, 4);

/* A format reads its rows one by one. */
struct kx_rows {
	struct kx_lines *lines;
	const char *name;      /* of the manifest, for the log */
	struct kx_buf text;    /* the row's lines; max is KX_LINE_MAX */
	uint64_t line;         /* where the row starts that was read last, whether it is good or not */
	bool told_unknown;     /* once for a manifest */
	struct kx_csv *csv;
	struct kx_schema *types; /* of attributes, owned: declared, and what the rows have shown */
	bool is_typed;           /* all rows have shown theirs */
};
void kx_rows_done(struct kx_rows *rows);
void kx_rows_unknown(struct kx_rows *rows, const char *name);

/* An attribute as JSON gives it: type says which of the values counts. One of another type than it was declared with, or
 * than it had on a line before, is KX_EINVAL. */
kx_status kx_row_add_attribute(struct kx_rows *rows, struct kx_row *row, const struct kx_attribute *value,
			       struct kx_error *error) KX_MUST_CHECK;
/* As CSV gives it. Until is_typed the type is widened by what the cell holds; then the cell is read as that type. */
kx_status kx_row_add_cell(struct kx_rows *rows, struct kx_row *row, const char *name, char *cell,
			  struct kx_error *error) KX_MUST_CHECK;

/* The next row. KX_ENOTFOUND without a message after the last; rows->line says where an error is. */
kx_status kx_rows_next_json(struct kx_rows *rows, struct kx_row *row, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_rows_next_csv(struct kx_rows *rows, struct kx_row *row, struct kx_error *error) KX_MUST_CHECK;
void kx_csv_free(struct kx_csv *csv);

#endif
