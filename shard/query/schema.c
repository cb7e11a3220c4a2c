/* What there is to ask about, and which values are frequent. */
#include <math.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "shard/query/columns.h"

#define VALUES_TOLD 20u

struct counted {
	uint32_t what; /* number of a word, or place of a class */
	uint64_t videos;
};

/* The most frequent first, by number among equals. */
struct top {
	struct counted list[VALUES_TOLD];
	uint32_t count;
	uint64_t distinct;
};

static void top_add(struct top *top, uint32_t what, uint64_t videos)
{
	uint32_t at = top->count;

	if (!videos)
		return;
	top->distinct++;
	while (at > 0 && top->list[at - 1].videos < videos)
		at--;
	if (at == VALUES_TOLD)
		return;
	if (top->count < VALUES_TOLD)
		top->count++;
	memmove(&top->list[at + 1], &top->list[at], (top->count - 1 - at) * sizeof(*top->list));
	top->list[at] = (struct counted){what, videos};
}

static kx_status add_value(struct kx_attribute_info *info, const char *text, uint64_t videos)
{
	info->values[info->value_count].value = kx_strdup(text);
	info->values[info->value_count].videos = videos;
	return info->values[info->value_count++].value ? KX_OK : KX_ENOMEM;
}

static kx_status tell_words(const struct kx_columns *columns, const struct top *top, struct kx_attribute_info *info)
{
	info->distinct = top->distinct;
	for (uint32_t i = 0; i < top->count; i++)
		if (add_value(info, kx_words_text(&columns->words, top->list[i].what), top->list[i].videos))
			return KX_ENOMEM;
	return KX_OK;
}

static kx_status tell_column(const struct kx_columns *columns, uint32_t attribute, struct kx_attribute_info *info)
{
	const uint32_t *words = columns->columns[attribute].words;
	KX_CLEANUP(kx_cleanup_free) uint64_t *counts = NULL;
	struct top top = {0};

	if (!words)
		return KX_OK;
	counts = calloc(columns->words.count, sizeof(*counts));
	if (!counts)
		return KX_ENOMEM;
	for (uint32_t row = 0; row < columns->rows; row++)
		if (words[row])
			counts[words[row]]++;
	for (uint32_t i = 1; i < columns->words.count; i++)
		top_add(&top, i, counts[i]);
	return tell_words(columns, &top, info);
}

static kx_status tell_labels(const struct kx_columns *columns, struct kx_attribute_info *info)
{
	struct top top = {0};

	for (uint32_t i = 1; i < columns->words.count; i++)
		top_add(&top, i, columns->words.list[i].text ? columns->words.list[i].row_count : 0);
	return tell_words(columns, &top, info);
}

struct class_walk {
	struct top top;
	const struct kx_class_rows **list; /* all of them */
	uint32_t count, cap;
	bool failed;
};

static void visit_class(const void *node, VISIT order, void *ctx)
{
	const struct kx_class_rows *const *list = node;
	struct class_walk *walk = ctx;

	if ((order != postorder && order != leaf) || walk->failed)
		return;
	if (walk->count == walk->cap) {
		uint32_t cap = walk->cap ? walk->cap * 2 : 256;
		const struct kx_class_rows **grown = realloc(walk->list, cap * sizeof(struct kx_class_rows *));

		walk->failed = !grown;
		if (!grown)
			return;
		walk->list = grown;
		walk->cap = cap;
	}
	top_add(&walk->top, walk->count, (*list)->count);
	walk->list[walk->count++] = *list;
}

static kx_status tell_classes(const struct kx_columns *columns, struct kx_attribute_info *info)
{
	struct class_walk walk = {0};
	kx_status status = KX_OK;

	twalk_r(columns->classes, visit_class, &walk);
	info->distinct = walk.top.distinct;
	for (uint32_t i = 0; !status && !walk.failed && i < walk.top.count; i++) {
		uint64_t key = walk.list[walk.top.list[i].what]->key;
		const char *name = kx_attributes_class_name(columns->attributes, key);
		char number[32];

		snprintf(number, sizeof(number), "%s#%u", kx_modality_name((enum kx_modality)(key >> 32)), (uint32_t)key);
		status = add_value(info, name ? name : number, walk.top.list[i].videos);
	}
	free(walk.list);
	return walk.failed ? KX_ENOMEM : status;
}

static void tell_range(const struct kx_columns *columns, uint32_t attribute, struct kx_attribute_info *info)
{
	const double *numbers = columns->columns[attribute].numbers;

	for (uint32_t row = 0; numbers && row < columns->rows; row++) {
		if (isnan(numbers[row]))
			continue;
		info->min = info->has_range && info->min < numbers[row] ? info->min : numbers[row];
		info->max = info->has_range && info->max > numbers[row] ? info->max : numbers[row];
		info->has_range = true;
	}
}

static kx_status tell(const struct kx_columns *columns, uint32_t attribute, struct kx_attribute_info *info)
{
	info->type = kx_attributes_type(columns->attributes, attribute);
	info->user = kx_attributes_is_user(attribute);
	info->videos = columns->columns[attribute].videos;
	info->name = kx_strdup(kx_attributes_name(columns->attributes, attribute));
	info->values = calloc(VALUES_TOLD, sizeof(*info->values));
	if (!info->name || !info->values)
		return KX_ENOMEM;
	tell_range(columns, attribute, info);
	if (attribute == KX_BUILTIN_LABEL)
		return tell_labels(columns, info);
	if (attribute == KX_BUILTIN_CLASS)
		return tell_classes(columns, info);
	return tell_column(columns, attribute, info);
}

static int by_name(const void *a, const void *b)
{
	const struct kx_attribute_info *one = a, *two = b;

	return strcmp(one->name, two->name);
}

kx_status kx_columns_schema(const struct kx_columns *columns, struct kx_query_reply *reply)
{
	uint32_t count = kx_attributes_count(columns->attributes);

	reply->attributes = calloc(count, sizeof(*reply->attributes));
	if (!reply->attributes)
		return KX_ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		reply->attribute_count = i + 1;
		if (tell(columns, i, &reply->attributes[i]))
			return KX_ENOMEM;
	}
	qsort(reply->attributes, count, sizeof(*reply->attributes), by_name);
	return KX_OK;
}
