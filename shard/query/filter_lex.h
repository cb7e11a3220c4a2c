/* Words of the filter language. Internal to shard/query. Pure. Layer: shard/query. */
#ifndef KX_SHARD_QUERY_FILTER_LEX_H
#define KX_SHARD_QUERY_FILTER_LEX_H

#include "shard/query/filter.h"

enum kx_token_kind {
	KX_TOKEN_END,
	KX_TOKEN_NAME,  /* of an attribute, or a word of the language */
	KX_TOKEN_VALUE, /* only where a value is asked for */
	KX_TOKEN_OP,
	KX_TOKEN_COLON,
	KX_TOKEN_COMMA,
	KX_TOKEN_OPEN,
	KX_TOKEN_CLOSE,
	KX_TOKEN_BAD,   /* see lexer's complaint */
};

struct kx_token {
	enum kx_token_kind kind;
	size_t offset, len; /* in the text */
	enum kx_filter_op op;
};

struct kx_lexer {
	const char *text;
	size_t len, at;
	const char *complaint; /* of a KX_TOKEN_BAD */
};

/* The next token where a name, an operator or a bracket may stand. */
struct kx_token kx_lex(struct kx_lexer *lexer);
/* The next token where a value may stand: a word, or a quoted text, whose content is appended to *out either way. */
struct kx_token kx_lex_value(struct kx_lexer *lexer, struct kx_buf *out, kx_status *ret_status);

#endif
