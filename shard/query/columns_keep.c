/* Columns into a snapshot. */
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "shard/query/kept.h"

struct keeping {
	const struct kx_columns *columns;
	const struct kx_kept_order *order;
	struct kx_snapshot_writer *writer;
	uint32_t *word_now; /* [words.count] */
	uint32_t word_count;
};

static const struct kx_column_row *row_at(const struct keeping *keeping, uint32_t row)
{
	return &keeping->columns->list[keeping->order->order[row]];
}

static void add_u32(const struct keeping *keeping, uint32_t value)
{
	kx_snapshot_add(keeping->writer, &value, sizeof(value));
}

static void add_u64(const struct keeping *keeping, uint64_t value)
{
	kx_snapshot_add(keeping->writer, &value, sizeof(value));
}

static void keep_texts(const struct keeping *keeping)
{
	const uint32_t count = keeping->order->count;
	uint64_t at = 0;

	kx_snapshot_begin(keeping->writer, KX_KEPT_TEXT_AT, 0);
	for (uint32_t i = 0; i < count; i++) {
		const struct kx_column_row *row = row_at(keeping, i);

		add_u64(keeping, at);
		at += strlen(row->id) + strlen(row->title) + strlen(row->source) + 3;
	}
	add_u64(keeping, at);
	kx_snapshot_begin(keeping->writer, KX_KEPT_TEXT, 0);
	for (uint32_t i = 0; i < count; i++) {
		const struct kx_column_row *row = row_at(keeping, i);

		kx_snapshot_add(keeping->writer, row->id, strlen(row->id) + 1);
		kx_snapshot_add(keeping->writer, row->title, strlen(row->title) + 1);
		kx_snapshot_add(keeping->writer, row->source, strlen(row->source) + 1);
	}
}

static uint32_t labels_of(const struct kx_column_row *row)
{
	return row->label_count;
}

static uint32_t classes_of(const struct kx_column_row *row)
{
	return row->class_count;
}

/* Where each row's part of a list begins, and where the last one's ends. */
static void keep_starts(const struct keeping *keeping, enum kx_kept_kind kind, uint32_t (*count_of)(const struct kx_column_row *row))
{
	uint64_t at = 0;

	kx_snapshot_begin(keeping->writer, kind, 0);
	for (uint32_t i = 0; i < keeping->order->count; at += count_of(row_at(keeping, i++)))
		add_u64(keeping, at);
	add_u64(keeping, at);
}

static void keep_labels(const struct keeping *keeping)
{
	keep_starts(keeping, KX_KEPT_LABEL_AT, labels_of);
	kx_snapshot_begin(keeping->writer, KX_KEPT_LABELS, 0);
	for (uint32_t i = 0; i < keeping->order->count; i++)
		for (uint32_t j = 0; j < row_at(keeping, i)->label_count; j++)
			add_u32(keeping, keeping->word_now[row_at(keeping, i)->labels[j]]);
}

static void keep_classes(const struct keeping *keeping)
{
	keep_starts(keeping, KX_KEPT_CLASS_AT, classes_of);
	kx_snapshot_begin(keeping->writer, KX_KEPT_CLASSES, 0);
	for (uint32_t i = 0; i < keeping->order->count; i++)
		for (uint32_t j = 0; j < row_at(keeping, i)->class_count; j++) {
			struct kx_class_score score;

			memset(&score, 0, sizeof(score)); /* what lies between the fields, too */
			score.key = row_at(keeping, i)->classes[j].key;
			score.score = row_at(keeping, i)->classes[j].score;
			kx_snapshot_add(keeping->writer, &score, sizeof(score));
		}
}

static void keep_rows(const struct keeping *keeping, const uint32_t *rows, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		add_u32(keeping, keeping->order->now[rows[i]]);
}

static void keep_words(const struct keeping *keeping)
{
	const struct kx_words *words = &keeping->columns->words;
	uint64_t at = 0;

	kx_snapshot_begin(keeping->writer, KX_KEPT_WORD_AT, 0);
	for (uint32_t i = 1; i < words->count; i++) {
		if (!words->list[i].text)
			continue;
		add_u64(keeping, at);
		at += strlen(words->list[i].text) + 1;
	}
	add_u64(keeping, at);
	kx_snapshot_begin(keeping->writer, KX_KEPT_WORD_TEXT, 0);
	for (uint32_t i = 1; i < words->count; i++)
		if (words->list[i].text)
			kx_snapshot_add(keeping->writer, words->list[i].text, strlen(words->list[i].text) + 1);
	kx_snapshot_begin(keeping->writer, KX_KEPT_WORD_FOLD, 0);
	for (uint32_t i = 1; i < words->count; i++)
		if (words->list[i].text)
			add_u32(keeping, keeping->word_now[words->list[i].fold]);
}

static void keep_word_rows(const struct keeping *keeping)
{
	const struct kx_words *words = &keeping->columns->words;
	uint64_t at = 0;

	kx_snapshot_begin(keeping->writer, KX_KEPT_WORD_ROWS_AT, 0);
	for (uint32_t i = 1; i < words->count; i++) {
		if (!words->list[i].text)
			continue;
		add_u64(keeping, at);
		at += words->list[i].row_count;
	}
	add_u64(keeping, at);
	kx_snapshot_begin(keeping->writer, KX_KEPT_WORD_ROWS, 0);
	for (uint32_t i = 1; i < words->count; i++)
		if (words->list[i].text)
			keep_rows(keeping, words->list[i].rows, words->list[i].row_count);
}

/* Words in use, numbered anew without holes. */
static kx_status number_words(struct keeping *keeping)
{
	const struct kx_words *words = &keeping->columns->words;

	keeping->word_now = calloc(words->count + 1u, sizeof(*keeping->word_now));
	if (!keeping->word_now)
		return KX_ENOMEM;
	for (uint32_t i = 1; i < words->count; i++)
		if (words->list[i].text)
			keeping->word_now[i] = ++keeping->word_count;
	return KX_OK;
}

struct class_lists {
	const struct kx_class_rows **list;
	uint32_t count, cap;
	bool failed;
};

static void add_class(const void *node, VISIT visit, void *ctx)
{
	struct class_lists *lists = ctx;

	if (visit != postorder && visit != leaf)
		return;
	if (lists->count == lists->cap) {
		uint32_t cap = lists->cap ? lists->cap * 2 : 256;
		const struct kx_class_rows **list = realloc(lists->list, cap * sizeof(struct kx_class_rows *));

		lists->failed = lists->failed || !list;
		if (!list)
			return;
		lists->list = list;
		lists->cap = cap;
	}
	lists->list[lists->count++] = *(const struct kx_class_rows *const *)node;
}

static int compare_key(const void *key, const void *of)
{
	const uint64_t *wanted = key;
	const struct kx_class_rows *list = *(const struct kx_class_rows *const *)of;

	return (*wanted > list->key) - (*wanted < list->key);
}

/* Rows come as they stand in the lists, rising: the next of a list is this one, or was when the row says a class twice. */
static void place_scores(const struct keeping *keeping, const struct class_lists *lists, const uint64_t *from, uint32_t *done,
			 float *scores)
{
	for (uint32_t row = 0; row < keeping->order->old_count; row++) {
		const struct kx_column_row *is = &keeping->columns->list[row];

		for (uint32_t i = 0; i < is->class_count; i++) {
			const struct kx_class_rows *const *at = bsearch(&is->classes[i].key, lists->list, lists->count,
									 sizeof(struct kx_class_rows *), compare_key);
			const size_t list = (size_t)(at - lists->list);
			bool again = done[list] && (*at)->rows[done[list] - 1] == row;
			float *score = &scores[from[list] + done[list] - again];

			*score = again && *score > is->classes[i].score ? *score : is->classes[i].score;
			done[list] += !again;
		}
	}
}

static kx_status keep_scores(const struct keeping *keeping, const struct class_lists *lists, const uint64_t *from)
{
	const uint64_t all = lists->count ? from[lists->count - 1] + lists->list[lists->count - 1]->count : 0;
	KX_CLEANUP(kx_cleanup_free) uint32_t *done = calloc(lists->count + 1u, sizeof(*done));
	KX_CLEANUP(kx_cleanup_free) float *scores = calloc(all + 1, sizeof(*scores));

	if (!done || !scores)
		return KX_ENOMEM;
	place_scores(keeping, lists, from, done, scores);
	kx_snapshot_begin(keeping->writer, KX_KEPT_CLASS_SCORES, 0);
	kx_snapshot_add(keeping->writer, scores, all * sizeof(*scores));
	return KX_OK;
}

static kx_status keep_class_lists(const struct keeping *keeping, const struct class_lists *lists)
{
	KX_CLEANUP(kx_cleanup_free) uint64_t *from = calloc(lists->count + 1u, sizeof(*from));

	if (!from)
		return KX_ENOMEM;
	kx_snapshot_begin(keeping->writer, KX_KEPT_CLASS_KEYS, 0);
	for (uint32_t i = 0; i < lists->count; i++) {
		struct kx_kept_class kept = {lists->list[i]->key, from[i], lists->list[i]->count};

		kx_snapshot_add(keeping->writer, &kept, sizeof(kept));
		from[i + 1] = from[i] + kept.count;
	}
	kx_snapshot_begin(keeping->writer, KX_KEPT_CLASS_ROWS, 0);
	for (uint32_t i = 0; i < lists->count; i++)
		keep_rows(keeping, lists->list[i]->rows, lists->list[i]->count);
	return keep_scores(keeping, lists, from);
}

static kx_status keep_class_rows(const struct keeping *keeping)
{
	struct class_lists lists = {0};
	kx_status status;

	twalk_r(keeping->columns->classes, add_class, &lists);
	status = lists.failed ? KX_ENOMEM : keep_class_lists(keeping, &lists);
	free(lists.list);
	return status;
}

static void keep_column(const struct keeping *keeping, uint32_t from, uint32_t number)
{
	const struct kx_column *column = &keeping->columns->columns[from];
	const uint32_t *order = keeping->order->order, count = keeping->order->count;

	if (!column->videos || from == KX_BUILTIN_DUPLICATE_OF) /* which is told anew at each start */
		return;
	if (column->numbers) {
		kx_snapshot_begin(keeping->writer, KX_KEPT_NUMBERS, number);
		for (uint32_t i = 0; i < count; i++)
			kx_snapshot_add(keeping->writer, &column->numbers[order[i]], sizeof(double));
	}
	if (column->words) {
		kx_snapshot_begin(keeping->writer, KX_KEPT_WORDS, number);
		for (uint32_t i = 0; i < count; i++)
			add_u32(keeping, keeping->word_now[column->words[order[i]]]);
	}
	if (column->flags) {
		kx_snapshot_begin(keeping->writer, KX_KEPT_FLAGS, number);
		for (uint32_t i = 0; i < count; i++)
			kx_snapshot_add(keeping->writer, &column->flags[order[i]], 1);
	}
}

/* A catalogue's attribute that no video has any more is forgotten, as it is when all records are read. */
static uint32_t keep_columns(const struct keeping *keeping)
{
	const struct kx_attributes *attributes = keeping->columns->attributes;
	uint32_t number = KX_BUILTIN_COUNT;

	kx_snapshot_begin(keeping->writer, KX_KEPT_ATTRIBUTES, 0);
	for (uint32_t i = KX_BUILTIN_COUNT; i < kx_attributes_count(attributes); i++) {
		const char *name = kx_attributes_name(attributes, i);

		if (!keeping->columns->columns[i].videos)
			continue;
		add_u32(keeping, (uint32_t)kx_attributes_type(attributes, i));
		kx_snapshot_add(keeping->writer, name, strlen(name) + 1);
	}
	for (uint32_t i = 0; i < KX_BUILTIN_COUNT; i++)
		keep_column(keeping, i, i);
	for (uint32_t i = KX_BUILTIN_COUNT; i < kx_attributes_count(attributes); i++)
		if (keeping->columns->columns[i].videos)
			keep_column(keeping, i, number++);
	return number - KX_BUILTIN_COUNT;
}

kx_status kx_columns_keep(const struct kx_columns *columns, const struct kx_kept_order *order, struct kx_kept_head *head,
			  struct kx_snapshot_writer *writer)
{
	struct keeping keeping = {.columns = columns, .order = order, .writer = writer};
	kx_status status = number_words(&keeping);

	if (status)
		return status;
	keep_texts(&keeping);
	keep_labels(&keeping);
	keep_classes(&keeping);
	keep_words(&keeping);
	keep_word_rows(&keeping);
	status = keep_class_rows(&keeping);
	head->words = keeping.word_count;
	head->attributes = keep_columns(&keeping);
	free(keeping.word_now);
	return status;
}
