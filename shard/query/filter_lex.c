#include "shard/query/filter_lex.h"

#include <string.h>

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool starts_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool in_name(char c)
{
	return starts_name(c) || (c >= '0' && c <= '9') || c == '-' || c == '.';
}

static bool in_value(char c)
{
	return c != '\0' && !is_blank(c) && strchr("(),\"<>=!~", c) == NULL;
}

static void skip_blanks(struct kx_lexer *lexer)
{
	while (lexer->at < lexer->len && is_blank(lexer->text[lexer->at]))
		lexer->at++;
}

static char peek(const struct kx_lexer *lexer, size_t ahead)
{
	return lexer->at + ahead < lexer->len ? lexer->text[lexer->at + ahead] : '\0';
}

static struct kx_token token(struct kx_lexer *lexer, enum kx_token_kind kind, size_t len)
{
	struct kx_token out = {.kind = kind, .offset = lexer->at, .len = len};

	lexer->at += len;
	return out;
}

static struct kx_token bad(struct kx_lexer *lexer, size_t offset, const char *complaint)
{
	lexer->complaint = complaint;
	return (struct kx_token){.kind = KX_TOKEN_BAD, .offset = offset};
}

static struct kx_token operator(struct kx_lexer *lexer)
{
	bool equal = peek(lexer, 1) == '=';
	struct kx_token out = {.kind = KX_TOKEN_OP, .offset = lexer->at, .len = 1};

	switch (peek(lexer, 0)) {
	case '=':
		out.op = KX_OP_EQUAL;
		out.len += equal; /* == is as good */
		break;
	case '~':
		out.op = KX_OP_CONTAINS;
		break;
	case '<':
		out.op = equal ? KX_OP_LESS_EQUAL : KX_OP_LESS;
		out.len += equal;
		break;
	case '>':
		out.op = equal ? KX_OP_MORE_EQUAL : KX_OP_MORE;
		out.len += equal;
		break;
	default:
		if (!equal)
			return bad(lexer, lexer->at, "a ! alone; write != or not");
		out.op = KX_OP_NOT_EQUAL;
		out.len = 2;
	}
	lexer->at += out.len;
	return out;
}

static struct kx_token name(struct kx_lexer *lexer)
{
	size_t len = 1;

	while (in_name(peek(lexer, len)))
		len++;
	return token(lexer, KX_TOKEN_NAME, len);
}

struct kx_token kx_lex(struct kx_lexer *lexer)
{
	char c;

	skip_blanks(lexer);
	if (lexer->at == lexer->len)
		return token(lexer, KX_TOKEN_END, 0);
	c = peek(lexer, 0);
	if (starts_name(c))
		return name(lexer);
	switch (c) {
	case '(':
		return token(lexer, KX_TOKEN_OPEN, 1);
	case ')':
		return token(lexer, KX_TOKEN_CLOSE, 1);
	case ',':
		return token(lexer, KX_TOKEN_COMMA, 1);
	case ':':
		return token(lexer, KX_TOKEN_COLON, 1);
	case '=':
	case '!':
	case '<':
	case '>':
	case '~':
		return operator(lexer);
	default:
		return bad(lexer, lexer->at, "this stands where an attribute's name or \"and\" or \"or\" belongs");
	}
}

/* The character that an escape stands for; 0 when it is none. */
static char unescape(char c)
{
	switch (c) {
	case '"':
	case '\\':
		return c;
	case 'n':
		return '\n';
	case 'r':
		return '\r';
	case 't':
		return '\t';
	default:
		return '\0';
	}
}

static struct kx_token quoted(struct kx_lexer *lexer, struct kx_buf *out, kx_status *ret_status)
{
	size_t start = lexer->at++;

	while (lexer->at < lexer->len && *ret_status == KX_OK) {
		char c = lexer->text[lexer->at++];

		if (c == '"')
			return (struct kx_token){.kind = KX_TOKEN_VALUE, .offset = start, .len = lexer->at - start};
		if (c == '\\') {
			c = unescape(peek(lexer, 0));
			if (!c)
				return bad(lexer, lexer->at - 1, "an escape that is none; there are \\\" \\\\ \\n \\r and \\t");
			lexer->at++;
		}
		*ret_status = kx_buf_append(out, &c, 1);
	}
	return bad(lexer, start, "a quote that is not closed");
}

struct kx_token kx_lex_value(struct kx_lexer *lexer, struct kx_buf *out, kx_status *ret_status)
{
	size_t len = 0;

	*ret_status = KX_OK;
	skip_blanks(lexer);
	if (peek(lexer, 0) == '"')
		return quoted(lexer, out, ret_status);
	while (in_value(peek(lexer, len)))
		len++;
	if (!len)
		return lexer->at == lexer->len ? bad(lexer, lexer->at, "a value is missing")
					       : bad(lexer, lexer->at, "a value belongs here; quote one that holds this");
	*ret_status = kx_buf_append(out, lexer->text + lexer->at, len);
	return token(lexer, KX_TOKEN_VALUE, len);
}
