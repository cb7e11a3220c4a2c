#include "shard/query/words.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"

static uint32_t hash_of(const char *text)
{
	uint32_t hash = 0x811c9dc5u; /* FNV-1a */

	for (const unsigned char *c = (const unsigned char *)text; *c; c++)
		hash = (hash ^ *c) * 0x01000193u;
	return hash;
}

void kx_words_done(struct kx_words *words)
{
	for (uint32_t i = 0; i < words->count; i++) {
		if (i > words->borrowed)
			free(words->list[i].text);
		free(words->list[i].rows);
	}
	free(words->list);
	free(words->slots);
	*words = (struct kx_words){0};
}

/* Where text is, or where it would go. Slots hold numbers, 0 for empty: numbers start at 1. */
static uint32_t find_slot(const struct kx_words *words, const char *text)
{
	uint32_t mask = words->slot_count - 1, at = hash_of(text) & mask;

	while (words->slots[at] && strcmp(words->list[words->slots[at]].text, text) != 0)
		at = (at + 1) & mask;
	return at;
}

static uint32_t find(const struct kx_words *words, const char *text)
{
	return words->slot_count ? words->slots[find_slot(words, text)] : KX_WORD_NONE;
}

static kx_status grow_slots(struct kx_words *words)
{
	uint32_t count = words->slot_count ? words->slot_count * 2 : 64, *old = words->slots, old_count = words->slot_count;
	uint32_t *slots;

	if ((words->used + 1) * 2 <= words->slot_count)
		return KX_OK;
	slots = calloc(count, sizeof(*slots));
	if (!slots)
		return KX_ENOMEM;
	words->slots = slots;
	words->slot_count = count;
	for (uint32_t i = 0; i < old_count; i++)
		if (old[i])
			slots[find_slot(words, words->list[old[i]].text)] = old[i];
	free(old);
	return KX_OK;
}

static kx_status grow_list(struct kx_words *words)
{
	uint32_t cap = words->cap ? words->cap * 2 : 64;
	struct kx_word *list;

	if (words->free_first || (words->count && words->count < words->cap))
		return KX_OK;
	list = realloc(words->list, cap * sizeof(*list));
	if (!list)
		return KX_ENOMEM;
	words->list = list;
	words->cap = cap;
	if (!words->count)
		list[words->count++] = (struct kx_word){0}; /* KX_WORD_NONE */
	return KX_OK;
}

static kx_status add(struct kx_words *words, const char *text, uint32_t *ret)
{
	char *copy;
	uint32_t number;

	if (grow_slots(words) || grow_list(words))
		return KX_ENOMEM;
	copy = kx_strdup(text);
	if (!copy)
		return KX_ENOMEM;
	number = words->free_first ? words->free_first : words->count++;
	if (words->free_first)
		words->free_first = words->list[number].next_free;
	words->list[number] = (struct kx_word){.text = copy, .fold = number};
	words->slots[find_slot(words, text)] = number;
	words->used++;
	*ret = number;
	return KX_OK;
}

/* Takes the entry out and closes the hole: what was pushed on by it moves back (Knuth, vol. 3, 6.4, algorithm R). */
static void remove_slot(struct kx_words *words, uint32_t at)
{
	uint32_t mask = words->slot_count - 1, next = at;

	for (;;) {
		uint32_t home;

		words->slots[at] = 0;
		do {
			next = (next + 1) & mask;
			if (!words->slots[next])
				return;
			home = hash_of(words->list[words->slots[next]].text) & mask;
		} while (at <= next ? (at < home && home <= next) : (at < home || home <= next));
		words->slots[at] = words->slots[next];
		at = next;
	}
}

static void drop(struct kx_words *words, uint32_t number)
{
	struct kx_word *word = &words->list[number];

	remove_slot(words, find_slot(words, word->text));
	free(word->text);
	free(word->rows);
	*word = (struct kx_word){.next_free = words->free_first};
	words->free_first = number;
	words->used--;
}

static char *fold_text(const char *text)
{
	char *copy = kx_strdup(text);

	for (char *c = copy; c && *c; c++)
		*c = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c;
	return copy;
}

static kx_status add_folded(struct kx_words *words, const char *text, uint32_t *ret)
{
	KX_CLEANUP(kx_cleanup_free) char *folded = fold_text(text);
	uint32_t fold = folded ? find(words, folded) : KX_WORD_NONE, number;

	if (!folded || (!fold && add(words, folded, &fold)))
		return KX_ENOMEM;
	number = fold;
	if (strcmp(folded, text) != 0) {
		if (add(words, text, &number)) {
			if (!words->list[fold].uses)
				drop(words, fold);
			return KX_ENOMEM;
		}
		words->list[number].fold = fold;
		words->list[fold].uses++; /* as long as this form is used */
	}
	*ret = number;
	return KX_OK;
}

kx_status kx_words_take(struct kx_words *words, const char *text, uint32_t *ret)
{
	uint32_t number = find(words, text);

	if (!number && add_folded(words, text, &number))
		return KX_ENOMEM;
	words->list[number].uses++;
	*ret = number;
	return KX_OK;
}

void kx_words_give(struct kx_words *words, uint32_t number)
{
	uint32_t fold;

	if (!number || --words->list[number].uses)
		return;
	fold = words->list[number].fold;
	drop(words, number);
	if (fold != number)
		kx_words_give(words, fold);
}

kx_status kx_words_restore(struct kx_words *words, const char *const *texts, const uint32_t *folds, uint32_t count)
{
	uint32_t slots = 64;

	while (slots < 2 * (uint64_t)count + 2)
		slots *= 2;
	words->list = calloc(count + 64u, sizeof(*words->list));
	words->slots = calloc(slots, sizeof(*words->slots));
	if (!words->list || !words->slots)
		return KX_ENOMEM;
	words->cap = count + 64;
	words->count = count + 1;
	words->slot_count = slots;
	words->used = words->borrowed = count;
	for (uint32_t number = 1; number <= count; number++) {
		uint32_t fold = folds[number - 1];

		if (!fold || fold > count)
			return KX_ECORRUPT;
		words->list[number] = (struct kx_word){.text = (char *)(uintptr_t)texts[number - 1], .uses = 1, .fold = fold};
		words->slots[find_slot(words, texts[number - 1])] = number;
	}
	return KX_OK;
}

uint32_t kx_words_find_fold(const struct kx_words *words, const char *text)
{
	KX_CLEANUP(kx_cleanup_free) char *folded = fold_text(text);

	return folded ? find(words, folded) : KX_WORD_NONE;
}

const char *kx_words_text(const struct kx_words *words, uint32_t number)
{
	return number ? words->list[number].text : "";
}

/* The first place whose row is not below. */
static uint32_t place_of(const struct kx_word *word, uint32_t row)
{
	uint32_t low = 0, high = word->row_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (word->rows[middle] < row)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

kx_status kx_words_add_row(struct kx_words *words, uint32_t number, uint32_t row)
{
	struct kx_word *word = &words->list[words->list[number].fold];
	uint32_t at = place_of(word, row);

	if (at < word->row_count && word->rows[at] == row)
		return KX_OK;
	if (word->row_count == word->row_cap) {
		uint32_t cap = word->row_cap ? word->row_cap * 2 : 4;
		uint32_t *rows = realloc(word->rows, cap * sizeof(*rows));

		if (!rows)
			return KX_ENOMEM;
		word->rows = rows;
		word->row_cap = cap;
	}
	memmove(&word->rows[at + 1], &word->rows[at], (word->row_count - at) * sizeof(*word->rows));
	word->rows[at] = row;
	word->row_count++;
	return KX_OK;
}

void kx_words_remove_row(struct kx_words *words, uint32_t number, uint32_t row)
{
	struct kx_word *word = &words->list[words->list[number].fold];
	uint32_t at = place_of(word, row);

	if (at == word->row_count || word->rows[at] != row)
		return;
	word->row_count--;
	memmove(&word->rows[at], &word->rows[at + 1], (word->row_count - at) * sizeof(*word->rows));
}
