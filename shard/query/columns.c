#include "shard/query/columns.h"

#include <math.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/str.h"

static int compare_keys(const void *a, const void *b)
{
	const struct kx_class_rows *one = a, *two = b;

	return (one->key > two->key) - (one->key < two->key);
}

static void free_class_rows(void *node)
{
	struct kx_class_rows *list = node;

	free(list->rows);
	free(list);
}

kx_status kx_columns_new(struct kx_columns **ret)
{
	struct kx_columns *columns = calloc(1, sizeof(*columns));

	if (!columns || kx_attributes_new(&columns->attributes)) {
		free(columns);
		return KX_ENOMEM;
	}
	columns->column_count = KX_BUILTIN_COUNT + KX_ATTRIBUTES_SEEN_MAX;
	columns->columns = calloc(columns->column_count, sizeof(*columns->columns));
	if (!columns->columns) {
		kx_columns_free(columns);
		return KX_ENOMEM;
	}
	*ret = columns;
	return KX_OK;
}

static void row_clear(struct kx_column_row *row)
{
	free(row->id);
	free(row->title);
	free(row->source);
	free(row->labels);
	free(row->classes);
	*row = (struct kx_column_row){0};
}

void kx_columns_free(struct kx_columns *columns)
{
	if (!columns)
		return;
	kx_columns_kept_free(columns);
	for (uint32_t i = 0; i < columns->rows; i++)
		row_clear(&columns->list[i]);
	for (uint32_t i = 0; columns->columns && i < columns->column_count; i++) {
		free(columns->columns[i].numbers);
		free(columns->columns[i].words);
		free(columns->columns[i].flags);
	}
	free(columns->columns);
	free(columns->list);
	kx_bitmap_done(&columns->live);
	kx_words_done(&columns->words);
	tdestroy(columns->classes, free_class_rows);
	kx_attributes_free(columns->attributes);
	free(columns);
}

/* --- Room ----------------------------------------------------------------------------------------------------- */

static kx_status grow(void *array, size_t size, uint32_t from, uint32_t to)
{
	void *bytes, **at = array;

	if (!*at)
		return KX_OK;
	bytes = realloc(*at, to * size);
	if (!bytes)
		return KX_ENOMEM;
	memset((char *)bytes + from * size, 0, (to - from) * size);
	*at = bytes;
	return KX_OK;
}

static kx_status grow_column(struct kx_column *column, uint32_t from, uint32_t to)
{
	if (grow(&column->numbers, sizeof(double), from, to) || grow(&column->words, sizeof(uint32_t), from, to) ||
	    grow(&column->flags, 1, from, to))
		return KX_ENOMEM;
	for (uint32_t i = from; column->numbers && i < to; i++)
		column->numbers[i] = NAN;
	return KX_OK;
}

static kx_status reserve(struct kx_columns *columns, uint32_t row)
{
	uint32_t rows = columns->rows + columns->rows / 2;
	struct kx_column_row *list;

	if (row < columns->rows)
		return KX_OK;
	rows = rows > row + 64 ? rows : row + 64;
	for (uint32_t i = 0; i < columns->column_count; i++)
		if (grow_column(&columns->columns[i], columns->rows, rows))
			return KX_ENOMEM;
	list = realloc(columns->list, rows * sizeof(*list));
	if (!list)
		return KX_ENOMEM;
	memset(list + columns->rows, 0, (rows - columns->rows) * sizeof(*list));
	columns->list = list;
	if (kx_bitmap_reserve(&columns->live, rows))
		return KX_ENOMEM;
	columns->rows = rows;
	return KX_OK;
}

/* --- Values --------------------------------------------------------------------------------------------------- */

static kx_status set_number(struct kx_columns *columns, uint32_t attribute, uint32_t row, double value)
{
	struct kx_column *column = &columns->columns[attribute];

	if (!column->numbers) {
		column->numbers = malloc(columns->rows * sizeof(double));
		if (!column->numbers)
			return KX_ENOMEM;
		for (uint32_t i = 0; i < columns->rows; i++)
			column->numbers[i] = NAN;
	}
	column->videos += isnan(column->numbers[row]) != 0;
	column->numbers[row] = value;
	return KX_OK;
}

/* "" is absent. */
static kx_status set_word(struct kx_columns *columns, uint32_t attribute, uint32_t row, const char *text)
{
	struct kx_column *column = &columns->columns[attribute];

	if (!text || !text[0])
		return KX_OK;
	if (!column->words) {
		column->words = calloc(columns->rows, sizeof(uint32_t));
		if (!column->words)
			return KX_ENOMEM;
	}
	if (kx_words_take(&columns->words, text, &column->words[row]))
		return KX_ENOMEM;
	column->videos++;
	return KX_OK;
}

static kx_status set_flag(struct kx_columns *columns, uint32_t attribute, uint32_t row, bool value)
{
	struct kx_column *column = &columns->columns[attribute];

	if (!column->flags) {
		column->flags = calloc(columns->rows, 1);
		if (!column->flags)
			return KX_ENOMEM;
	}
	column->videos += !column->flags[row];
	column->flags[row] = value ? 2 : 1;
	return KX_OK;
}

static kx_status set_user(struct kx_columns *columns, uint32_t row, const struct kx_attribute *value)
{
	uint32_t attribute;

	if (kx_attributes_declare(columns->attributes, value->name, value->type, &attribute))
		return KX_ENOMEM;
	if (attribute == KX_ATTRIBUTE_NONE || kx_attributes_type(columns->attributes, attribute) != value->type) {
		if (!columns->told_type)
			kx_log(KX_LOG_WARN,
			       "attribute \"%s\" of a video is no %s, as it is of others, or one too many: filters don't see "
			       "it; declare attributes with --schema",
			       value->name,
			       attribute == KX_ATTRIBUTE_NONE ? "attribute of a catalogue"
							      : kx_attribute_type_name(kx_attributes_type(
									columns->attributes, attribute)));
		columns->told_type = true;
		return KX_OK;
	}
	switch (value->type) {
	case KX_ATTRIBUTE_NUMBER:
		return set_number(columns, attribute, row, value->number);
	case KX_ATTRIBUTE_BOOL:
		return set_flag(columns, attribute, row, value->flag);
	case KX_ATTRIBUTE_TEXT:
		return set_word(columns, attribute, row, value->text);
	case KX_ATTRIBUTE_DURATION:
	case KX_ATTRIBUTE_DATE:
	case KX_ATTRIBUTE_CLASS:
		break;
	}
	return KX_OK;
}

static kx_status set_labels(struct kx_columns *columns, uint32_t row, const struct kx_video_info *info)
{
	struct kx_column_row *to = &columns->list[row];

	if (!info->label_count)
		return KX_OK;
	to->labels = calloc(info->label_count, sizeof(*to->labels));
	if (!to->labels)
		return KX_ENOMEM;
	for (uint32_t i = 0; i < info->label_count; i++) {
		if (kx_words_take(&columns->words, info->labels[i], &to->labels[to->label_count]))
			return KX_ENOMEM;
		to->label_count++;
		if (kx_words_add_row(&columns->words, to->labels[i], row))
			return KX_ENOMEM;
	}
	columns->columns[KX_BUILTIN_LABEL].videos++;
	return KX_OK;
}

static uint32_t place_of(const struct kx_class_rows *list, uint32_t row)
{
	uint32_t low = 0, high = list->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (list->rows[middle] < row)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct kx_class_rows *class_rows(struct kx_columns *columns, uint64_t key)
{
	struct kx_class_rows wanted = {.key = key}, *fresh, **node = tfind(&wanted, &columns->classes, compare_keys);

	if (node)
		return *node;
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return NULL;
	fresh->key = key;
	if (!tsearch(fresh, &columns->classes, compare_keys)) {
		free(fresh);
		return NULL;
	}
	return fresh;
}

static kx_status add_class_row(struct kx_columns *columns, uint64_t key, uint32_t row)
{
	struct kx_class_rows *list = class_rows(columns, key);
	uint32_t at;

	if (!list)
		return KX_ENOMEM;
	at = place_of(list, row);
	if (at < list->count && list->rows[at] == row)
		return KX_OK;
	if (list->count == list->cap) {
		uint32_t cap = list->cap ? list->cap * 2 : 4;
		uint32_t *rows = realloc(list->rows, cap * sizeof(*rows));

		if (!rows)
			return KX_ENOMEM;
		list->rows = rows;
		list->cap = cap;
	}
	memmove(&list->rows[at + 1], &list->rows[at], (list->count - at) * sizeof(*list->rows));
	list->rows[at] = row;
	list->count++;
	return KX_OK;
}

const struct kx_class_rows *kx_columns_class(const struct kx_columns *columns, uint64_t key)
{
	struct kx_class_rows wanted = {.key = key}, **node = tfind(&wanted, &columns->classes, compare_keys);

	return node ? *node : NULL;
}

static void remove_class_row(struct kx_columns *columns, uint64_t key, uint32_t row)
{
	struct kx_class_rows wanted = {.key = key}, **node = tfind(&wanted, &columns->classes, compare_keys);
	uint32_t at = node ? place_of(*node, row) : 0;

	if (!node || at == (*node)->count || (*node)->rows[at] != row)
		return;
	(*node)->count--;
	memmove(&(*node)->rows[at], &(*node)->rows[at + 1], ((*node)->count - at) * sizeof(*(*node)->rows));
}

static kx_status set_classes(struct kx_columns *columns, uint32_t row, const struct kx_video_result *result)
{
	struct kx_column_row *to = &columns->list[row];
	uint32_t count = 0;

	for (uint32_t i = 0; i < result->modality_count; i++)
		count += result->modalities[i].class_count;
	if (!count)
		return KX_OK;
	to->classes = calloc(count, sizeof(*to->classes));
	if (!to->classes)
		return KX_ENOMEM;
	for (uint32_t i = 0; i < result->modality_count; i++) {
		const struct kx_modality_result *part = &result->modalities[i];

		for (uint32_t j = 0; j < part->class_count; j++) {
			uint64_t key = KX_CLASS_KEY(part->modality, part->class_ids[j]);

			to->classes[to->class_count++] = (struct kx_class_score){key, part->class_scores[j]};
			if (add_class_row(columns, key, row))
				return KX_ENOMEM;
		}
	}
	columns->columns[KX_BUILTIN_CLASS].videos++;
	return KX_OK;
}

static kx_status set_texts(struct kx_columns *columns, uint32_t row, const struct kx_video_record *video)
{
	struct kx_column_row *to = &columns->list[row];

	to->id = kx_strdup(video->result.video_id);
	to->title = kx_strdup(video->info.title ? video->info.title : "");
	to->source = kx_strdup(video->info.source ? video->info.source : "");
	if (!to->id || !to->title || !to->source)
		return KX_ENOMEM;
	columns->columns[KX_BUILTIN_TITLE].videos += to->title[0] != '\0';
	columns->columns[KX_BUILTIN_SOURCE].videos += to->source[0] != '\0';
	columns->columns[KX_BUILTIN_ID].videos++;
	if (set_word(columns, KX_BUILTIN_LANGUAGE, row, video->info.extras.language) ||
	    set_word(columns, KX_BUILTIN_VISIBILITY, row, video->info.extras.visibility))
		return KX_ENOMEM;
	return KX_OK;
}

static kx_status set_numbers(struct kx_columns *columns, uint32_t row, const struct kx_video_record *video)
{
	if (set_number(columns, KX_BUILTIN_DURATION, row, (double)video->result.duration_us / 1e6) ||
	    set_number(columns, KX_BUILTIN_ADDED, row, floor((double)video->stored_at_ms / 1e3)))
		return KX_ENOMEM;
	if (video->info.width && (set_number(columns, KX_BUILTIN_WIDTH, row, video->info.width) ||
				  set_number(columns, KX_BUILTIN_HEIGHT, row, video->info.height)))
		return KX_ENOMEM;
	for (uint32_t i = 0; i < video->result.modality_count; i++) {
		bool visual = video->result.modalities[i].modality == KX_VISUAL;

		if (set_flag(columns, visual ? KX_BUILTIN_VISUAL : KX_BUILTIN_AUDIO, row, true))
			return KX_ENOMEM;
	}
	return KX_OK;
}

static kx_status fill(struct kx_columns *columns, uint32_t row, const struct kx_video_record *video)
{
	columns->list[row].live = true;
	kx_bitmap_set(&columns->live, row, true);
	if (set_texts(columns, row, video) || set_numbers(columns, row, video) || set_labels(columns, row, &video->info) ||
	    set_classes(columns, row, &video->result))
		return KX_ENOMEM;
	for (uint32_t i = 0; i < video->info.extras.attribute_count; i++)
		if (set_user(columns, row, &video->info.extras.attributes[i]))
			return KX_ENOMEM;
	return KX_OK;
}

kx_status kx_columns_put(struct kx_columns *columns, uint32_t row, const struct kx_video_record *video)
{
	if (reserve(columns, row))
		return KX_ENOMEM;
	kx_columns_remove(columns, row);
	if (!fill(columns, row, video))
		return KX_OK;
	kx_columns_remove(columns, row);
	return KX_ENOMEM;
}

static void clear_cells(struct kx_columns *columns, uint32_t row)
{
	for (uint32_t i = 0; i < kx_attributes_count(columns->attributes); i++) {
		struct kx_column *column = &columns->columns[i];

		if (column->numbers && !isnan(column->numbers[row])) {
			column->numbers[row] = NAN;
			column->videos--;
		}
		if (column->words && column->words[row]) {
			kx_words_give(&columns->words, column->words[row]);
			column->words[row] = KX_WORD_NONE;
			column->videos--;
		}
		if (column->flags && column->flags[row]) {
			column->flags[row] = 0;
			column->videos--;
		}
	}
}

const uint32_t *kx_columns_labels(const struct kx_columns *columns, uint32_t row, uint32_t *ret_count)
{
	if (row < kx_columns_kept_rows(columns))
		return kx_columns_kept_labels(columns, row, ret_count);
	*ret_count = columns->list[row].label_count;
	return columns->list[row].labels;
}

const struct kx_class_score *kx_columns_classes(const struct kx_columns *columns, uint32_t row, uint32_t *ret_count)
{
	if (row < kx_columns_kept_rows(columns))
		return kx_columns_kept_classes(columns, row, ret_count);
	*ret_count = columns->list[row].class_count;
	return columns->list[row].classes;
}

void kx_columns_remove(struct kx_columns *columns, uint32_t row)
{
	struct kx_column_row *from = row < columns->rows ? &columns->list[row] : NULL;

	if (kx_columns_hide(columns, row) || !from || !from->live)
		return;
	clear_cells(columns, row);
	for (uint32_t i = 0; i < from->label_count; i++) {
		kx_words_remove_row(&columns->words, from->labels[i], row);
		kx_words_give(&columns->words, from->labels[i]);
	}
	for (uint32_t i = 0; i < from->class_count; i++)
		remove_class_row(columns, from->classes[i].key, row);
	columns->columns[KX_BUILTIN_LABEL].videos -= from->label_count > 0;
	columns->columns[KX_BUILTIN_CLASS].videos -= from->class_count > 0;
	columns->columns[KX_BUILTIN_TITLE].videos -= from->title && from->title[0];
	columns->columns[KX_BUILTIN_SOURCE].videos -= from->source && from->source[0];
	columns->columns[KX_BUILTIN_ID].videos--;
	row_clear(from);
	kx_bitmap_set(&columns->live, row, false);
}

kx_status kx_columns_set_duplicate_of(struct kx_columns *columns, uint32_t row, const char *id)
{
	struct kx_column *column = &columns->columns[KX_BUILTIN_DUPLICATE_OF];

	if (column->words && column->words[row]) {
		kx_words_give(&columns->words, column->words[row]);
		column->words[row] = KX_WORD_NONE;
		column->videos--;
	}
	return set_word(columns, KX_BUILTIN_DUPLICATE_OF, row, id);
}

double kx_columns_class_score(const struct kx_columns *columns, const struct kx_filter_node *clause, uint32_t row)
{
	uint32_t count;
	const struct kx_class_score *classes = kx_columns_classes(columns, row, &count);
	float best = 0.0f;

	for (uint32_t i = 0; i < count; i++)
		for (uint32_t j = 0; j < clause->class_count; j++)
			if (classes[i].key == clause->classes[j] && classes[i].score > best)
				best = classes[i].score;
	return (double)best;
}

double kx_columns_number(const struct kx_columns *columns, uint32_t attribute, uint32_t row)
{
	const double *numbers = columns->columns[attribute].numbers;

	return numbers ? numbers[row] : NAN;
}

const char *kx_columns_text(const struct kx_columns *columns, uint32_t attribute, uint32_t row)
{
	const uint32_t *words = columns->columns[attribute].words;
	const bool kept = row < kx_columns_kept_rows(columns);
	const char *text = NULL;

	switch (attribute) {
	case KX_BUILTIN_ID:
		text = kept ? kx_columns_kept_text(columns, attribute, row) : columns->list[row].id;
		return text ? text : "";
	case KX_BUILTIN_TITLE:
		text = kept ? kx_columns_kept_text(columns, attribute, row) : columns->list[row].title;
		return text ? text : "";
	case KX_BUILTIN_SOURCE:
		text = kept ? kx_columns_kept_text(columns, attribute, row) : columns->list[row].source;
		return text ? text : "";
	default:
		return words ? kx_words_text(&columns->words, words[row]) : "";
	}
}

bool kx_columns_has(const struct kx_columns *columns, uint32_t attribute, uint32_t row)
{
	const struct kx_column *column = &columns->columns[attribute];
	uint32_t count;

	if (attribute == KX_BUILTIN_LABEL)
		return kx_columns_labels(columns, row, &count) && count;
	if (attribute == KX_BUILTIN_CLASS)
		return kx_columns_classes(columns, row, &count) && count;
	if (kx_attributes_type(columns->attributes, attribute) == KX_ATTRIBUTE_TEXT)
		return kx_columns_text(columns, attribute, row)[0] != '\0';
	return (column->numbers && !isnan(column->numbers[row])) || (column->flags && column->flags[row]);
}
