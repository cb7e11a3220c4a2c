/* Columns that are in part in a snapshot: what filters and hits ask for is brought in when they do. What changed since is put
 * as ever, in rows behind those of the snapshot. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shard/query/kept.h"

struct kx_columns_kept {
	struct kx_snapshot *snapshot; /* borrowed */
	uint32_t rows, words;
	bool has_words;
	bool *has_column; /* [column_count] */
	const struct kx_snapshot_section *text_at, *text, *label_at, *labels, *class_at, *classes, *word_rows_at, *word_rows,
		*class_rows, *class_scores;
	const struct kx_kept_class *keys;
	uint64_t key_count;
};

const void *kx_kept_array(struct kx_snapshot *snapshot, enum kx_kept_kind kind, uint32_t number, uint64_t count, size_t size)
{
	const struct kx_snapshot_section *section = kx_snapshot_find(snapshot, kind, number);

	if (!section || section->len != count * size) {
		kx_snapshot_spoil(snapshot);
		return NULL;
	}
	return count ? kx_snapshot_see(snapshot, section, 0, section->len) : NULL;
}

static kx_status damage(struct kx_snapshot *snapshot)
{
	kx_snapshot_spoil(snapshot);
	return KX_ECORRUPT;
}

/* --- Opening --------------------------------------------------------------------------------------------------- */

static kx_status restore_attributes(struct kx_columns *columns, struct kx_snapshot *snapshot, uint32_t count)
{
	const struct kx_snapshot_section *section = kx_snapshot_find(snapshot, KX_KEPT_ATTRIBUTES, 0);
	const char *bytes = section ? kx_snapshot_see(snapshot, section, 0, section->len) : NULL;
	uint64_t at = 0;

	if (!bytes)
		return damage(snapshot);
	for (uint32_t i = 0; i < count; i++) {
		const char *name = bytes + at + sizeof(uint32_t);
		uint32_t type, number;

		if (section->len - at <= sizeof(type) || !memchr(name, 0, section->len - at - sizeof(type)))
			return damage(snapshot);
		memcpy(&type, bytes + at, sizeof(type));
		at += sizeof(type) + strlen(name) + 1;
		if (kx_attributes_declare(columns->attributes, name, (enum kx_attribute_type)type, &number))
			return KX_ENOMEM;
		if (number != KX_BUILTIN_COUNT + i)
			return damage(snapshot);
	}
	return KX_OK;
}

static kx_status find_sections(struct kx_columns_kept *kept)
{
	const struct {
		const struct kx_snapshot_section **at;
		enum kx_kept_kind kind;
	} all[] = {{&kept->text_at, KX_KEPT_TEXT_AT}, {&kept->text, KX_KEPT_TEXT},
		   {&kept->label_at, KX_KEPT_LABEL_AT}, {&kept->labels, KX_KEPT_LABELS},
		   {&kept->class_at, KX_KEPT_CLASS_AT}, {&kept->classes, KX_KEPT_CLASSES},
		   {&kept->word_rows_at, KX_KEPT_WORD_ROWS_AT}, {&kept->word_rows, KX_KEPT_WORD_ROWS},
		   {&kept->class_rows, KX_KEPT_CLASS_ROWS}, {&kept->class_scores, KX_KEPT_CLASS_SCORES}};
	const struct kx_snapshot_section *keys = kx_snapshot_find(kept->snapshot, KX_KEPT_CLASS_KEYS, 0);

	for (size_t i = 0; i < KX_ARRAY_LEN(all); i++) {
		*all[i].at = kx_snapshot_find(kept->snapshot, all[i].kind, 0);
		if (!*all[i].at)
			return damage(kept->snapshot);
	}
	kept->keys = keys ? kx_snapshot_see(kept->snapshot, keys, 0, keys->len) : NULL;
	kept->key_count = keys ? keys->len / sizeof(*kept->keys) : 0;
	return kept->keys ? KX_OK : damage(kept->snapshot);
}

/* Room at once, in pages that nobody has touched: growing would touch them. */
static kx_status make_room(struct kx_columns *columns, uint32_t rows, uint32_t more)
{
	const uint32_t room = (rows + more + 127) & ~63u;

	columns->list = calloc(room, sizeof(*columns->list));
	if (!columns->list || kx_bitmap_reserve(&columns->live, room))
		return KX_ENOMEM;
	columns->rows = room;
	for (uint32_t row = 0; row < rows; row++)
		if (row % 64 == 0 && row + 64 <= rows) {
			columns->live.words[row / 64] = UINT64_MAX;
			row += 63;
		} else {
			kx_bitmap_set(&columns->live, row, true);
		}
	return KX_OK;
}

kx_status kx_columns_restore(struct kx_columns *columns, struct kx_snapshot *snapshot, const struct kx_kept_head *head,
			     uint32_t more)
{
	struct kx_columns_kept *kept = calloc(1, sizeof(*kept));
	kx_status status;

	if (!kept)
		return KX_ENOMEM;
	columns->kept = kept;
	kept->snapshot = snapshot;
	kept->rows = head->rows;
	kept->words = head->words;
	kept->has_column = calloc(columns->column_count, sizeof(*kept->has_column));
	status = kept->has_column ? find_sections(kept) : KX_ENOMEM;
	if (!status)
		status = restore_attributes(columns, snapshot, head->attributes);
	return status ? status : make_room(columns, head->rows, more);
}

void kx_columns_kept_free(struct kx_columns *columns)
{
	if (!columns->kept)
		return;
	free(columns->kept->has_column);
	free(columns->kept);
	columns->kept = NULL;
}

/* --- Words ----------------------------------------------------------------------------------------------------- */

static kx_status restore_words(struct kx_columns *columns, const char **texts)
{
	struct kx_columns_kept *kept = columns->kept;
	const struct kx_snapshot_section *section = kx_snapshot_find(kept->snapshot, KX_KEPT_WORD_TEXT, 0);
	const char *bytes = section ? kx_snapshot_see(kept->snapshot, section, 0, section->len) : NULL;
	const uint64_t *at = kx_kept_array(kept->snapshot, KX_KEPT_WORD_AT, 0, kept->words + 1ull, sizeof(*at));
	const uint32_t *folds = kx_kept_array(kept->snapshot, KX_KEPT_WORD_FOLD, 0, kept->words, sizeof(*folds));
	kx_status status;

	if (!bytes || !at || kx_snapshot_is_damaged(kept->snapshot))
		return damage(kept->snapshot);
	for (uint32_t i = 0; i < kept->words; i++) {
		if (at[i] >= at[i + 1] || at[i + 1] > section->len || bytes[at[i + 1] - 1])
			return damage(kept->snapshot);
		texts[i] = bytes + at[i];
	}
	status = kx_words_restore(&columns->words, texts, folds, kept->words);
	return status == KX_ECORRUPT ? damage(kept->snapshot) : status;
}

kx_status kx_columns_need_words(const struct kx_columns *columns)
{
	struct kx_columns_kept *kept = columns->kept;
	const char **texts;
	kx_status status;

	if (!kept || kept->has_words)
		return KX_OK;
	texts = calloc(kept->words + 1u, sizeof(char *));
	status = texts ? restore_words((struct kx_columns *)(uintptr_t)columns, texts) : KX_ENOMEM;
	free(texts);
	kept->has_words = !status;
	return status;
}

/* --- Columns --------------------------------------------------------------------------------------------------- */

static void *array_of(void *at, size_t size, uint32_t rows)
{
	void **array = at;

	if (!*array)
		*array = calloc(rows, size);
	return *array;
}

static kx_status bring_numbers(struct kx_columns *columns, struct kx_column *column, uint32_t attribute)
{
	const struct kx_columns_kept *kept = columns->kept;
	const bool fresh = !column->numbers;
	const double *from = kx_kept_array(kept->snapshot, KX_KEPT_NUMBERS, attribute, kept->rows, sizeof(*from));

	if (!from)
		return damage(kept->snapshot);
	if (!array_of(&column->numbers, sizeof(*from), columns->rows))
		return KX_ENOMEM;
	memcpy(column->numbers, from, kept->rows * sizeof(*from));
	for (uint32_t i = kept->rows; fresh && i < columns->rows; i++)
		column->numbers[i] = NAN;
	return KX_OK;
}

static kx_status bring_words(struct kx_columns *columns, struct kx_column *column, uint32_t attribute)
{
	const struct kx_columns_kept *kept = columns->kept;
	const uint32_t *from = kx_kept_array(kept->snapshot, KX_KEPT_WORDS, attribute, kept->rows, sizeof(*from));
	kx_status status = from ? kx_columns_need_words(columns) : damage(kept->snapshot);

	for (uint32_t i = 0; !status && i < kept->rows; i++)
		if (from[i] > kept->words)
			return damage(kept->snapshot);
	if (status)
		return status;
	if (!array_of(&column->words, sizeof(*from), columns->rows))
		return KX_ENOMEM;
	memcpy(column->words, from, kept->rows * sizeof(*from));
	return KX_OK;
}

static kx_status bring_flags(struct kx_columns *columns, struct kx_column *column, uint32_t attribute)
{
	const struct kx_columns_kept *kept = columns->kept;
	const uint8_t *from = kx_kept_array(kept->snapshot, KX_KEPT_FLAGS, attribute, kept->rows, 1);

	if (!from)
		return damage(kept->snapshot);
	if (!array_of(&column->flags, 1, columns->rows))
		return KX_ENOMEM;
	memcpy(column->flags, from, kept->rows);
	return KX_OK;
}

static kx_status bring_column(struct kx_columns *columns, uint32_t attribute)
{
	struct kx_columns_kept *kept = columns->kept;
	struct kx_column *column = &columns->columns[attribute];
	kx_status status = KX_OK;

	if (kept->has_column[attribute] || !kept->rows)
		return KX_OK;
	if (kx_snapshot_find(kept->snapshot, KX_KEPT_NUMBERS, attribute))
		status = bring_numbers(columns, column, attribute);
	if (!status && kx_snapshot_find(kept->snapshot, KX_KEPT_WORDS, attribute))
		status = bring_words(columns, column, attribute);
	if (!status && kx_snapshot_find(kept->snapshot, KX_KEPT_FLAGS, attribute))
		status = bring_flags(columns, column, attribute);
	kept->has_column[attribute] = !status;
	return status;
}

struct needing {
	struct kx_columns *columns;
	kx_status status;
};

/* What is looked at row by row. */
static void read_ahead(const struct kx_columns_kept *kept, const struct kx_filter_node *clause)
{
	switch (clause->attribute) {
	case KX_BUILTIN_ID:
	case KX_BUILTIN_TITLE:
	case KX_BUILTIN_SOURCE:
		kx_snapshot_ahead(kept->snapshot, kept->text_at);
		kx_snapshot_ahead(kept->snapshot, kept->text);
		break;
	case KX_BUILTIN_LABEL:
		if (clause->op == KX_OP_CONTAINS)
			kx_snapshot_ahead(kept->snapshot, kept->labels);
		if (clause->op == KX_OP_CONTAINS || clause->op == KX_OP_HAS)
			kx_snapshot_ahead(kept->snapshot, kept->label_at);
		break;
	case KX_BUILTIN_CLASS:
		if (clause->op == KX_OP_HAS)
			kx_snapshot_ahead(kept->snapshot, kept->class_at);
		break;
	default:
		break;
	}
}

static void need_clause(void *ctx, const struct kx_filter_node *clause)
{
	struct needing *needing = ctx;

	if (!needing->status)
		needing->status = bring_column(needing->columns, clause->attribute);
	read_ahead(needing->columns->kept, clause);
	/* Its values are looked up among them. */
	if (!needing->status && kx_attributes_type(needing->columns->attributes, clause->attribute) == KX_ATTRIBUTE_TEXT &&
	    clause->attribute != KX_BUILTIN_TITLE && !kx_filter_exact_case(clause->attribute))
		needing->status = kx_columns_need_words(needing->columns);
}

kx_status kx_columns_need(const struct kx_columns *columns, const struct kx_filter *filter)
{
	struct needing needing = {.columns = (struct kx_columns *)(uintptr_t)columns};

	if (columns->kept)
		kx_filter_each_clause(filter, need_clause, &needing);
	return needing.status;
}

/* --- Rows ------------------------------------------------------------------------------------------------------ */

bool kx_columns_hide(struct kx_columns *columns, uint32_t row)
{
	if (row >= kx_columns_kept_rows(columns))
		return false;
	kx_bitmap_set(&columns->live, row, false);
	return true;
}

uint32_t kx_columns_kept_rows(const struct kx_columns *columns)
{
	return columns->kept ? columns->kept->rows : 0;
}

/* Where a row's share of a list begins and how much it is, in entries. false: damaged. */
static bool share_of(const struct kx_columns_kept *kept, const struct kx_snapshot_section *at, uint64_t place, uint64_t *ret_from,
		     uint32_t *ret_count)
{
	const uint64_t *bounds = kx_snapshot_see(kept->snapshot, at, place * sizeof(*bounds), 2 * sizeof(*bounds));

	if (!bounds || bounds[0] > bounds[1] || bounds[1] - bounds[0] > UINT32_MAX) {
		kx_snapshot_spoil(kept->snapshot);
		return false;
	}
	*ret_from = bounds[0];
	*ret_count = (uint32_t)(bounds[1] - bounds[0]);
	return true;
}

/* Id, title and source stand one behind another. */
const char *kx_columns_kept_text(const struct kx_columns *columns, uint32_t attribute, uint32_t row)
{
	const struct kx_columns_kept *kept = columns->kept;
	const int skip = attribute == KX_BUILTIN_ID ? 0 : attribute == KX_BUILTIN_TITLE ? 1 : 2;
	uint64_t from;
	uint32_t len;
	const char *text = share_of(kept, kept->text_at, row, &from, &len) ? kx_snapshot_see(kept->snapshot, kept->text, from, len)
									     : NULL;
	const char *end = text ? text + len : NULL;

	for (int i = 0; i <= skip; i++) {
		const char *zero = text && text < end ? memchr(text, 0, (size_t)(end - text)) : NULL;

		if (!zero) {
			kx_snapshot_spoil(kept->snapshot);
			return NULL;
		}
		if (i < skip)
			text = zero + 1;
	}
	return text;
}

const uint32_t *kx_columns_kept_labels(const struct kx_columns *columns, uint32_t row, uint32_t *ret_count)
{
	const struct kx_columns_kept *kept = columns->kept;
	const uint32_t *labels = NULL;
	uint64_t from;
	uint32_t count;

	*ret_count = 0;
	if (!share_of(kept, kept->label_at, row, &from, &count) || !count)
		return NULL;
	labels = kx_snapshot_see(kept->snapshot, kept->labels, from * sizeof(*labels), count * sizeof(*labels));
	for (uint32_t i = 0; labels && i < count; i++)
		if (!labels[i] || labels[i] > kept->words)
			labels = NULL;
	if (!labels || kx_columns_need_words(columns)) {
		kx_snapshot_spoil(kept->snapshot);
		return NULL;
	}
	*ret_count = count;
	return labels;
}

const struct kx_class_score *kx_columns_kept_classes(const struct kx_columns *columns, uint32_t row, uint32_t *ret_count)
{
	const struct kx_columns_kept *kept = columns->kept;
	const struct kx_class_score *classes;
	uint64_t from;
	uint32_t count;

	*ret_count = 0;
	if (!share_of(kept, kept->class_at, row, &from, &count) || !count)
		return NULL;
	classes = kx_snapshot_see(kept->snapshot, kept->classes, from * sizeof(*classes), count * sizeof(*classes));
	*ret_count = classes ? count : 0;
	return classes;
}

/* --- Lists ----------------------------------------------------------------------------------------------------- */

static const uint32_t *see_rows(const struct kx_columns_kept *kept, const struct kx_snapshot_section *section, uint64_t from,
				uint64_t count, uint32_t *ret_count)
{
	const uint32_t *rows = count ? kx_snapshot_see(kept->snapshot, section, from * sizeof(*rows), count * sizeof(*rows)) : NULL;

	*ret_count = 0;
	for (uint64_t i = 0; rows && i < count; i++)
		if (rows[i] >= kept->rows) {
			kx_snapshot_spoil(kept->snapshot);
			return NULL;
		}
	*ret_count = rows ? (uint32_t)count : 0;
	return rows;
}

const uint32_t *kx_columns_kept_label(const struct kx_columns *columns, uint32_t fold, uint32_t *ret_count)
{
	const struct kx_columns_kept *kept = columns->kept;
	uint64_t from;
	uint32_t count;

	*ret_count = 0;
	if (!kept || !fold || fold > kept->words || !share_of(kept, kept->word_rows_at, fold - 1u, &from, &count))
		return NULL;
	return see_rows(kept, kept->word_rows, from, count, ret_count);
}

static int compare_key(const void *key, const void *of)
{
	const uint64_t *wanted = key;
	const struct kx_kept_class *class = of;

	return (*wanted > class->key) - (*wanted < class->key);
}

const uint32_t *kx_columns_kept_class(const struct kx_columns *columns, uint64_t key, const float **ret_scores,
				      uint32_t *ret_count)
{
	const struct kx_columns_kept *kept = columns->kept;
	const struct kx_kept_class *class =
		kept ? bsearch(&key, kept->keys, kept->key_count, sizeof(*kept->keys), compare_key) : NULL;

	*ret_count = 0;
	*ret_scores = NULL;
	if (!class || !class->count || class->count > UINT32_MAX)
		return NULL;
	*ret_scores = kx_snapshot_see(kept->snapshot, kept->class_scores, class->from * sizeof(float), class->count * sizeof(float));
	return *ret_scores ? see_rows(kept, kept->class_rows, class->from, class->count, ret_count) : NULL;
}
