/* Texts that many videos share, each kept once, and which rows have one as a label. Internal to shard/query. */
#ifndef KX_SHARD_QUERY_WORDS_H
#define KX_SHARD_QUERY_WORDS_H

#include <stdint.h>

#include "common/base/error.h"

#define KX_WORD_NONE 0u

/* Embedded; zeroed memory is empty. A word that no row uses any more is given back. */
struct kx_words {
	struct kx_word *list; /* by number; 0 is none */
	uint32_t count, cap;
	uint32_t *slots;      /* a hash table of numbers */
	uint32_t slot_count;
	uint32_t free_first;  /* numbers to use again, linked through their rows' count */
	uint32_t used;
	uint32_t borrowed;    /* texts of words up to this number are somebody else's, and stay */
};

struct kx_word {
	char *text;       /* NULL: the number is free */
	uint32_t uses;
	uint32_t fold;    /* the word in lower case (ASCII), perhaps itself */
	uint32_t next_free;
	uint32_t row_count, row_cap;
	uint32_t *rows;   /* that have it, in whatever case, as a label: rising; at the fold only */
};

void kx_words_done(struct kx_words *words);
/* The word's number, one use more. KX_ENOMEM. */
kx_status kx_words_take(struct kx_words *words, const char *text, uint32_t *ret) KX_MUST_CHECK;
void kx_words_give(struct kx_words *words, uint32_t number); /* one use less; KX_WORD_NONE is nothing */
/* The lower-case form that text has here, or KX_WORD_NONE. */
uint32_t kx_words_find_fold(const struct kx_words *words, const char *text);
const char *kx_words_text(const struct kx_words *words, uint32_t number); /* "" for none */

/* Into an empty one: words 1 to count, with texts that outlive it (kx_words_take() frees none of them); what words fold to is
 * checked. KX_ENOMEM, KX_ECORRUPT. */
kx_status kx_words_restore(struct kx_words *words, const char *const *texts, const uint32_t *folds, uint32_t count)
	KX_MUST_CHECK;

/* Labels: the rows of a word's fold. Adding a row that is there is nothing. */
kx_status kx_words_add_row(struct kx_words *words, uint32_t number, uint32_t row) KX_MUST_CHECK;
void kx_words_remove_row(struct kx_words *words, uint32_t number, uint32_t row);

#endif
