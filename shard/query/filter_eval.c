/* A filter against the columns: all rows at once, or one. */
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "shard/query/columns.h"

#define LABELS_TOLD 20u

/* A clause with its values made ready to be compared with many rows. */
struct ready {
	const struct kx_filter_node *clause;
	enum kx_attribute_type type;
	uint32_t *folds;    /* of the values, as far as they are words here: rising */
	uint32_t fold_count;
	const char **texts; /* of attributes whose case counts: rising */
	bool is_pattern;
};

static int compare_numbers(const void *a, const void *b)
{
	const uint32_t *one = a, *two = b;

	return (*one > *two) - (*one < *two);
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void ready_done(struct ready *ready)
{
	free(ready->folds);
	free(ready->texts);
}

static kx_status ready_init(struct ready *ready, const struct kx_filter_node *clause, const struct kx_columns *columns)
{
	*ready = (struct ready){.clause = clause, .type = kx_attributes_type(columns->attributes, clause->attribute)};
	if (ready->type != KX_ATTRIBUTE_TEXT || !clause->value_count)
		return KX_OK;
	ready->is_pattern = strpbrk(clause->values[0].text, "*?") != NULL;
	ready->folds = malloc(clause->value_count * sizeof(*ready->folds));
	ready->texts = malloc(clause->value_count * sizeof(*ready->texts));
	if (!ready->folds || !ready->texts) {
		ready_done(ready);
		return KX_ENOMEM;
	}
	for (uint32_t i = 0; i < clause->value_count; i++) {
		uint32_t fold = kx_words_find_fold(&columns->words, clause->values[i].text);

		ready->texts[i] = clause->values[i].text;
		if (fold != KX_WORD_NONE)
			ready->folds[ready->fold_count++] = fold;
	}
	qsort(ready->folds, ready->fold_count, sizeof(*ready->folds), compare_numbers);
	qsort(ready->texts, clause->value_count, sizeof(*ready->texts), compare_texts);
	return KX_OK;
}

static bool compare_span(enum kx_filter_op op, double number, const struct kx_filter_value *value)
{
	/* A point holds itself; a day does not hold the next day's first second. */
	bool inside = number >= value->low && (number < value->high || number <= value->low);

	switch (op) {
	case KX_OP_LESS:
		return number < value->low;
	case KX_OP_LESS_EQUAL:
		return number < value->low || inside;
	case KX_OP_MORE:
		return number > value->low && !inside;
	case KX_OP_MORE_EQUAL:
		return number >= value->low;
	default:
		return inside;
	}
}

static bool number_matches(const struct kx_filter_node *clause, double number)
{
	if (clause->op == KX_OP_NOT_EQUAL)
		return isnan(number) || !compare_span(KX_OP_EQUAL, number, &clause->values[0]);
	if (isnan(number))
		return false;
	for (uint32_t i = 0; i < clause->value_count; i++)
		if (compare_span(clause->op, number, &clause->values[i]))
			return true;
	return false;
}

static bool order_matches(enum kx_filter_op op, int order)
{
	switch (op) {
	case KX_OP_LESS:
		return order < 0;
	case KX_OP_LESS_EQUAL:
		return order <= 0;
	case KX_OP_MORE:
		return order > 0;
	default:
		return order >= 0;
	}
}

static bool like(const char *text, const char *pattern, bool is_pattern)
{
	return is_pattern ? fnmatch(pattern, text, 0) == 0 : kx_str_starts(text, pattern);
}

static bool is_one_of(const struct ready *ready, const struct kx_columns *columns, uint32_t row, const char *text)
{
	const struct kx_filter_node *clause = ready->clause;
	const struct kx_column *column = &columns->columns[clause->attribute];
	uint32_t fold;

	if (kx_filter_exact_case(clause->attribute))
		return bsearch(&text, ready->texts, clause->value_count, sizeof(*ready->texts), compare_texts) != NULL;
	if (clause->attribute == KX_BUILTIN_TITLE) {
		for (uint32_t i = 0; i < clause->value_count; i++)
			if (strcasecmp(clause->values[i].text, text) == 0)
				return true;
		return false;
	}
	if (!column->words || !column->words[row])
		return false;
	fold = columns->words.list[column->words[row]].fold;
	return bsearch(&fold, ready->folds, ready->fold_count, sizeof(fold), compare_numbers) != NULL;
}

static bool text_matches(const struct ready *ready, const struct kx_columns *columns, uint32_t row)
{
	const struct kx_filter_node *clause = ready->clause;
	const char *text = kx_columns_text(columns, clause->attribute, row);

	switch (clause->op) {
	case KX_OP_EQUAL:
	case KX_OP_IN:
		return text[0] && is_one_of(ready, columns, row, text);
	case KX_OP_NOT_EQUAL:
		return !text[0] || !is_one_of(ready, columns, row, text);
	case KX_OP_CONTAINS:
		return text[0] && strcasestr(text, clause->values[0].text) != NULL;
	case KX_OP_LIKE:
		return text[0] && like(text, clause->values[0].text, ready->is_pattern);
	default:
		return text[0] && order_matches(clause->op, kx_filter_exact_case(clause->attribute)
								    ? strcmp(text, clause->values[0].text)
								    : strcasecmp(text, clause->values[0].text));
	}
}

static bool label_matches(const struct ready *ready, const struct kx_columns *columns, uint32_t row)
{
	uint32_t count;
	const uint32_t *labels = kx_columns_labels(columns, row, &count);
	const struct kx_filter_node *clause = ready->clause;
	bool any = false;

	for (uint32_t i = 0; !any && i < count; i++) {
		const struct kx_word *word = &columns->words.list[labels[i]];

		if (clause->op == KX_OP_CONTAINS)
			any = strcasestr(word->text, clause->values[0].text) != NULL;
		else
			any = bsearch(&word->fold, ready->folds, ready->fold_count, sizeof(word->fold), compare_numbers) !=
			      NULL;
	}
	return any != (clause->op == KX_OP_NOT_EQUAL);
}

static bool flag_matches(const struct kx_filter_node *clause, const struct kx_columns *columns, uint32_t row)
{
	const uint8_t *flags = columns->columns[clause->attribute].flags;
	uint8_t flag = flags ? flags[row] : 0;
	bool known = flag != 0;

	/* A track that is not there is known not to be. */
	if (clause->attribute == KX_BUILTIN_VISUAL || clause->attribute == KX_BUILTIN_AUDIO)
		known = true;
	return (known && (flag == 2) == clause->values[0].flag) != (clause->op == KX_OP_NOT_EQUAL);
}

static bool ready_matches(const struct ready *ready, const struct kx_columns *columns, uint32_t row)
{
	const struct kx_filter_node *clause = ready->clause;

	if (clause->op == KX_OP_HAS)
		return kx_columns_has(columns, clause->attribute, row);
	switch (ready->type) {
	case KX_ATTRIBUTE_CLASS:
		return number_matches(clause, kx_columns_class_score(columns, clause, row));
	case KX_ATTRIBUTE_NUMBER:
	case KX_ATTRIBUTE_DURATION:
	case KX_ATTRIBUTE_DATE:
		return number_matches(clause, kx_columns_number(columns, clause->attribute, row));
	case KX_ATTRIBUTE_BOOL:
		return flag_matches(clause, columns, row);
	case KX_ATTRIBUTE_TEXT:
		break;
	}
	return clause->attribute == KX_BUILTIN_LABEL ? label_matches(ready, columns, row)
						     : text_matches(ready, columns, row);
}

/* --- All rows ------------------------------------------------------------------------------------------------- */

/* Of those rows of a snapshot that have one of the classes, the best score of each, in an array of all. */
static void best_scores(const struct kx_filter_node *clause, const struct kx_columns *columns, float *best)
{
	for (uint32_t i = 0; i < clause->class_count; i++) {
		const float *scores;
		uint32_t count;
		const uint32_t *rows = kx_columns_kept_class(columns, clause->classes[i], &scores, &count);

		for (uint32_t j = 0; j < count; j++)
			best[rows[j]] = scores[j] > best[rows[j]] ? scores[j] : best[rows[j]];
	}
}

static kx_status kept_class_rows(const struct kx_filter_node *clause, const struct kx_columns *columns, struct kx_bitmap *ret)
{
	KX_CLEANUP(kx_cleanup_free) float *best = calloc(kx_columns_kept_rows(columns) + 1u, sizeof(*best));

	if (!best)
		return KX_ENOMEM;
	best_scores(clause, columns, best);
	for (uint32_t i = 0; i < clause->class_count; i++) {
		const float *scores;
		uint32_t count;
		const uint32_t *rows = kx_columns_kept_class(columns, clause->classes[i], &scores, &count);

		for (uint32_t j = 0; j < count; j++)
			kx_bitmap_set(ret, rows[j], number_matches(clause, (double)best[rows[j]]));
	}
	return KX_OK;
}

/* Scores of 0 are of all rows outside the lists: they match all or not at all. */
static kx_status class_rows(const struct kx_filter_node *clause, const struct kx_columns *columns, struct kx_bitmap *ret)
{
	for (uint32_t i = 0; i < clause->class_count; i++) {
		const struct kx_class_rows *list = kx_columns_class(columns, clause->classes[i]);

		for (uint32_t j = 0; list && j < list->count; j++)
			kx_bitmap_set(ret, list->rows[j],
				      number_matches(clause, kx_columns_class_score(columns, clause, list->rows[j])));
	}
	return columns->kept ? kept_class_rows(clause, columns, ret) : KX_OK;
}

static void label_rows(const struct ready *ready, const struct kx_columns *columns, bool in, struct kx_bitmap *ret)
{
	for (uint32_t i = 0; i < ready->fold_count; i++) {
		const struct kx_word *word = &columns->words.list[ready->folds[i]];
		uint32_t count;
		const uint32_t *kept = kx_columns_kept_label(columns, ready->folds[i], &count);

		for (uint32_t j = 0; j < count; j++)
			kx_bitmap_set(ret, kept[j], in);
		for (uint32_t j = 0; j < word->row_count; j++)
			kx_bitmap_set(ret, word->rows[j], in);
	}
}

static void each_row(const struct ready *ready, const struct kx_columns *columns, struct kx_bitmap *ret)
{
	for (size_t i = 0; i < kx_bitmap_words(&columns->live); i++)
		for (uint64_t left = columns->live.words[i]; left; left &= left - 1) {
			uint32_t row = (uint32_t)(i * 64 + (unsigned)__builtin_ctzll(left));

			if (ready_matches(ready, columns, row))
				kx_bitmap_set(ret, row, true);
		}
}

static kx_status evaluate_clause(const struct kx_filter_node *clause, const struct kx_columns *columns,
				 struct kx_bitmap *ret)
{
	bool label = clause->attribute == KX_BUILTIN_LABEL && (clause->op == KX_OP_EQUAL || clause->op == KX_OP_IN ||
							       clause->op == KX_OP_NOT_EQUAL);
	bool class = clause->attribute == KX_BUILTIN_CLASS && clause->op != KX_OP_HAS;
	bool but = label ? clause->op == KX_OP_NOT_EQUAL : class && number_matches(clause, 0.0);
	struct ready ready;
	kx_status status = ready_init(&ready, clause, columns);

	if (!status && but)
		status = kx_bitmap_copy(&columns->live, ret);
	if (!status && label)
		label_rows(&ready, columns, !but, ret);
	else if (!status && class)
		status = class_rows(clause, columns, ret);
	else if (!status)
		each_row(&ready, columns, ret);
	ready_done(&ready);
	return status;
}

static void combine(enum kx_filter_kind kind, const struct kx_bitmap *one, struct kx_bitmap *ret)
{
	for (size_t i = 0; i < kx_bitmap_words(ret); i++) {
		if (kind == KX_FILTER_AND)
			ret->words[i] &= one->words[i];
		else if (kind == KX_FILTER_OR)
			ret->words[i] |= one->words[i];
		else
			ret->words[i] &= ~one->words[i];
	}
}

/* ret: as long as the columns, and empty. */
static kx_status evaluate(const struct kx_filter_node *node, const struct kx_columns *columns, struct kx_bitmap *ret)
{
	kx_status status = KX_OK;

	if (node->kind == KX_FILTER_CLAUSE)
		return evaluate_clause(node, columns, ret);
	if (node->kind != KX_FILTER_OR)
		status = kx_bitmap_copy(&columns->live, ret);
	for (uint32_t i = 0; !status && i < node->child_count; i++) {
		struct kx_bitmap one = {0};

		status = kx_bitmap_reserve(&one, ret->rows);
		if (!status)
			status = evaluate(node->children[i], columns, &one);
		if (!status)
			combine(node->kind, &one, ret);
		kx_bitmap_done(&one);
	}
	return status;
}

kx_status kx_filter_evaluate(const struct kx_filter *filter, const struct kx_columns *columns, struct kx_bitmap *ret)
{
	kx_status status = kx_columns_need(columns, filter);

	kx_bitmap_done(ret);
	if (!status)
		status = kx_bitmap_reserve(ret, columns->live.rows);
	if (!status)
		status = evaluate(filter->root, columns, ret);
	if (!status && columns->kept) /* its lists may name rows that are no more */
		combine(KX_FILTER_AND, &columns->live, ret);
	return status;
}

static kx_status clause_matches(const struct kx_filter_node *clause, const struct kx_columns *columns, uint32_t row,
				bool *ret)
{
	struct ready ready;
	kx_status status = ready_init(&ready, clause, columns);

	if (status)
		return status;
	*ret = ready_matches(&ready, columns, row);
	ready_done(&ready);
	return KX_OK;
}

kx_status kx_filter_matches(const struct kx_filter_node *node, const struct kx_columns *columns, uint32_t row, bool *ret)
{
	bool all = node->kind != KX_FILTER_OR;

	if (node->kind == KX_FILTER_CLAUSE)
		return clause_matches(node, columns, row, ret);
	for (uint32_t i = 0; i < node->child_count; i++) {
		bool one;

		if (kx_filter_matches(node->children[i], columns, row, &one))
			return KX_ENOMEM;
		one = one != (node->kind == KX_FILTER_NOT);
		all = node->kind == KX_FILTER_OR ? all || one : all && one;
	}
	*ret = all;
	return KX_OK;
}

/* --- What a row has ------------------------------------------------------------------------------------------- */

static char *labels_of(const struct kx_columns *columns, uint32_t row)
{
	uint32_t count;
	const uint32_t *labels = kx_columns_labels(columns, row, &count);
	struct kx_buf text = {.max = KX_PATH_MAX};
	kx_status status = kx_buf_append(&text, "", 0);

	for (uint32_t i = 0; !status && i < count && i < LABELS_TOLD; i++)
		status = kx_buf_printf(&text, "%s%s", i ? ", " : "", kx_words_text(&columns->words, labels[i]));
	if (status == KX_ETOOBIG) /* told as far as there is room */
		status = KX_OK;
	if (status) {
		kx_buf_done(&text);
		return NULL;
	}
	return text.data ? (char *)text.data : kx_strdup("");
}

static char *number_text(double number, enum kx_attribute_type type)
{
	char text[32] = "";

	if (!isnan(number) && type == KX_ATTRIBUTE_DATE)
		kx_filter_format_date(number, text);
	else if (!isnan(number))
		kx_filter_format_number(number, text);
	return kx_strdup(text);
}

static const char *flag_text(const struct kx_columns *columns, uint32_t attribute, uint32_t row)
{
	const uint8_t *flags = columns->columns[attribute].flags;
	uint8_t flag = flags ? flags[row] : 0;

	return flag == 2 ? "true" : flag ? "false" : "";
}

char *kx_filter_value_of(const struct kx_filter_node *clause, const struct kx_columns *columns, uint32_t row)
{
	enum kx_attribute_type type = kx_attributes_type(columns->attributes, clause->attribute);

	if (clause->attribute == KX_BUILTIN_LABEL)
		return labels_of(columns, row);
	switch (type) {
	case KX_ATTRIBUTE_TEXT:
		return kx_strndup(kx_columns_text(columns, clause->attribute, row),
				  strnlen(kx_columns_text(columns, clause->attribute, row), KX_PATH_MAX));
	case KX_ATTRIBUTE_BOOL:
		return kx_strdup(flag_text(columns, clause->attribute, row));
	case KX_ATTRIBUTE_CLASS:
		return number_text(round(kx_columns_class_score(columns, clause, row) * 1e6) / 1e6, type);
	case KX_ATTRIBUTE_NUMBER:
	case KX_ATTRIBUTE_DURATION:
	case KX_ATTRIBUTE_DATE:
		break;
	}
	return number_text(kx_columns_number(columns, clause->attribute, row), type);
}
