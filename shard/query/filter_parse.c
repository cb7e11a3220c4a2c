/* Recursive descent; what is nested is bounded, so the stack is too. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/str.h"
#include "shard/query/filter_lex.h"

#define CLASSES_MAX 64u /* that one label may mean */
#define EXCERPT 60u     /* characters told around a mistake */

struct parser {
	struct kx_lexer lexer;
	struct kx_token token; /* the one looked at */
	const struct kx_attributes *attributes;
	double now_s;
	unsigned depth;
	uint32_t clauses, values;
	struct kx_buf value; /* content of the value read last */
	struct kx_error *error;
	size_t offset;       /* of the mistake */
};

static struct kx_filter_node *parse_any(struct parser *p);

static void node_free(struct kx_filter_node *node)
{
	if (!node)
		return;
	for (uint32_t i = 0; i < node->child_count; i++)
		node_free(node->children[i]);
	free(node->children);
	for (uint32_t i = 0; i < node->value_count; i++)
		free(node->values[i].text);
	free(node->values);
	free(node->class_text);
	free(node->classes);
	free(node);
}

/* Where a window of whole characters of at most `most` bytes that holds `at` begins. */
static size_t window_start(const char *text, size_t at, size_t most)
{
	size_t from = at > most / 2 ? at - most / 2 : 0;

	while (from < at && ((unsigned char)text[from] & 0xc0) == 0x80)
		from++;
	return from;
}

static void append_char(char *out, size_t size, char c)
{
	size_t len = strlen(out);

	if (len + 1 < size) {
		out[len] = c;
		out[len + 1] = '\0';
	}
}

/* Two lines: the text around the mistake, and a caret. */
static void render(const char *text, size_t len, size_t offset, char out[4 * EXCERPT])
{
	size_t from = window_start(text, offset, EXCERPT), to = from;

	snprintf(out, 4 * EXCERPT, "\n  %s", from ? "..." : "");
	while (to < len && (to < from + EXCERPT || ((unsigned char)text[to] & 0xc0) == 0x80)) {
		unsigned char c = (unsigned char)text[to++];

		append_char(out, 4 * EXCERPT, c < 0x20 || c == 0x7f ? ' ' : (char)c);
	}
	snprintf(out + strlen(out), 4 * EXCERPT - strlen(out), "%s\n  %s", to < len ? "..." : "", from ? "   " : "");
	for (size_t i = from; i < offset; i++)
		if (((unsigned char)text[i] & 0xc0) != 0x80)
			append_char(out, 4 * EXCERPT, ' ');
	append_char(out, 4 * EXCERPT, '^');
}

static size_t characters(const char *text, size_t len)
{
	size_t count = 0;

	for (size_t i = 0; i < len; i++)
		count += ((unsigned char)text[i] & 0xc0) != 0x80;
	return count;
}

static void *complain(struct parser *p, size_t offset, const char *format, ...) KX_PRINTF(3, 4);
static void *complain(struct parser *p, size_t offset, const char *format, ...)
{
	char what[224], around[4 * EXCERPT];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	p->offset = offset;
	render(p->lexer.text, p->lexer.len, offset, around);
	(void)kx_error_set(p->error, KX_EINVAL, KX_ERROR_POISON, "filter, character %zu: %s%s",
			   characters(p->lexer.text, offset) + 1, what, around);
	return NULL;
}

static void *no_memory(struct parser *p)
{
	(void)kx_error_nomem(p->error);
	return NULL;
}

static void advance(struct parser *p)
{
	p->token = kx_lex(&p->lexer);
}

static bool is_word(const struct parser *p, const char *word)
{
	return p->token.kind == KX_TOKEN_NAME && strlen(word) == p->token.len &&
	       strncasecmp(p->lexer.text + p->token.offset, word, p->token.len) == 0;
}

/* Reads a value; the parser looks at what is behind it afterwards. */
static bool take_value(struct parser *p, size_t *ret_offset)
{
	struct kx_token token;
	kx_status status;

	kx_buf_clear(&p->value);
	token = kx_lex_value(&p->lexer, &p->value, &status);
	*ret_offset = token.offset;
	if (status) {
		no_memory(p);
		return false;
	}
	if (token.kind == KX_TOKEN_BAD) {
		complain(p, token.offset, "%s", p->lexer.complaint);
		return false;
	}
	advance(p);
	return true;
}

static const char *value_text(const struct parser *p)
{
	return p->value.data ? (const char *)p->value.data : "";
}

static struct kx_filter_node *new_node(struct parser *p, enum kx_filter_kind kind)
{
	struct kx_filter_node *node = calloc(1, sizeof(*node));

	if (!node)
		return no_memory(p);
	node->kind = kind;
	return node;
}

/* Takes the child over, also when it fails. */
static bool add_child(struct parser *p, struct kx_filter_node *node, struct kx_filter_node *child)
{
	struct kx_filter_node **children;

	if (!child)
		return false;
	children = reallocarray(node->children, node->child_count + 1u, sizeof(struct kx_filter_node *));
	if (!children) {
		node_free(child);
		no_memory(p);
		return false;
	}
	node->children = children;
	node->children[node->child_count++] = child;
	return true;
}

/* --- Clauses -------------------------------------------------------------------------------------------------- */

static bool bad_value(struct parser *p, size_t offset, const struct kx_filter_node *clause, const char *wanted)
{
	complain(p, offset, "\"%.40s\" is no %s, and %s is one; write %s", value_text(p),
		 kx_attribute_type_name(kx_attributes_type(p->attributes, clause->attribute)),
		 kx_attributes_name(p->attributes, clause->attribute), wanted);
	return false;
}

/* What the value means for the attribute's type. */
static bool read_value(struct parser *p, size_t offset, const struct kx_filter_node *clause,
		       struct kx_filter_value *value)
{
	const char *text = value_text(p);

	switch (kx_attributes_type(p->attributes, clause->attribute)) {
	case KX_ATTRIBUTE_NUMBER:
		if (kx_parse_double(text, &value->low))
			return bad_value(p, offset, clause, "12 or 0.5");
		value->low += 0.0; /* no -0 */
		value->high = value->low;
		return true;
	case KX_ATTRIBUTE_DURATION:
		if (kx_filter_parse_duration(text, &value->low))
			return bad_value(p, offset, clause, "90, 10m or 1h30m");
		value->high = value->low;
		return true;
	case KX_ATTRIBUTE_DATE:
		if (kx_filter_parse_date(text, p->now_s, &value->low, &value->high))
			return bad_value(p, offset, clause, "2026-11-27, 2026-11-27T15:00 or now-7d");
		return true;
	case KX_ATTRIBUTE_BOOL:
		value->flag = strcasecmp(text, "true") == 0;
		return value->flag || strcasecmp(text, "false") == 0 || bad_value(p, offset, clause, "true or false");
	case KX_ATTRIBUTE_TEXT:
	case KX_ATTRIBUTE_CLASS:
		return true;
	}
	return false;
}

static bool add_value(struct parser *p, struct kx_filter_node *clause)
{
	struct kx_filter_value value = {0}, *values;
	size_t offset;

	if (!take_value(p, &offset))
		return false;
	if (p->values++ == KX_FILTER_VALUES_MAX) {
		complain(p, offset, "more than %u values", KX_FILTER_VALUES_MAX);
		return false;
	}
	if (!read_value(p, offset, clause, &value))
		return false;
	value.text = kx_strdup(value_text(p));
	values = reallocarray(clause->values, clause->value_count + 1u, sizeof(*values));
	if (values)
		clause->values = values;
	if (!value.text || !values) {
		free(value.text);
		no_memory(p);
		return false;
	}
	clause->values[clause->value_count++] = value;
	return true;
}

/* Behind "in". */
static bool add_values(struct parser *p, struct kx_filter_node *clause)
{
	if (p->token.kind != KX_TOKEN_OPEN) {
		complain(p, p->token.offset, "\"in\" is followed by values in brackets: (a, b)");
		return false;
	}
	do {
		if (!add_value(p, clause))
			return false;
	} while (p->token.kind == KX_TOKEN_COMMA);
	if (p->token.kind != KX_TOKEN_CLOSE) {
		complain(p, p->token.offset, "a , or a ) belongs here");
		return false;
	}
	advance(p);
	return true;
}

static bool op_fits(const struct parser *p, const struct kx_filter_node *clause)
{
	bool orders = clause->op >= KX_OP_LESS && clause->op <= KX_OP_MORE_EQUAL;

	switch (kx_attributes_type(p->attributes, clause->attribute)) {
	case KX_ATTRIBUTE_TEXT:
		return !orders || clause->attribute != KX_BUILTIN_LABEL;
	case KX_ATTRIBUTE_BOOL:
		return clause->op == KX_OP_EQUAL || clause->op == KX_OP_NOT_EQUAL;
	case KX_ATTRIBUTE_NUMBER:
	case KX_ATTRIBUTE_DURATION:
	case KX_ATTRIBUTE_DATE:
		return clause->op != KX_OP_CONTAINS;
	case KX_ATTRIBUTE_CLASS:
		return false;
	}
	return false;
}

/* Behind the name of an attribute. */
static bool parse_comparison(struct parser *p, struct kx_filter_node *clause)
{
	struct kx_token op = p->token;
	bool in = is_word(p, "in");

	if (op.kind == KX_TOKEN_COLON)
		clause->op = clause->attribute == KX_BUILTIN_SOURCE ? KX_OP_LIKE : KX_OP_EQUAL;
	else if (op.kind == KX_TOKEN_OP || in)
		clause->op = in ? KX_OP_IN : op.op;
	else {
		complain(p, op.offset, "%s", op.kind == KX_TOKEN_BAD ? p->lexer.complaint
								       : "an operator belongs here: one of : = != < <= > >= ~ in");
		return false;
	}
	if (!op_fits(p, clause)) {
		complain(p, op.offset, "%s is a %s, which this operator does not compare",
			 kx_attributes_name(p->attributes, clause->attribute),
			 kx_attribute_type_name(kx_attributes_type(p->attributes, clause->attribute)));
		return false;
	}
	if (!in)
		return add_value(p, clause);
	advance(p);
	return add_values(p, clause);
}

static bool unknown_class(struct parser *p, size_t offset)
{
	const char *near = kx_attributes_nearest_class(p->attributes, value_text(p));

	if (!kx_attributes_knows_classes(p->attributes))
		complain(p, offset, "the names of classes are not known here: name it by its number, class:#712");
	else if (near)
		complain(p, offset, "no class \"%.60s\"; did you mean \"%.80s\"?", value_text(p), near);
	else
		complain(p, offset, "no class \"%.60s\"", value_text(p));
	return false;
}

static bool find_classes(struct parser *p, size_t offset, struct kx_filter_node *clause)
{
	uint64_t keys[CLASSES_MAX];
	size_t count = kx_attributes_classes(p->attributes, value_text(p), keys, CLASSES_MAX);

	if (!count)
		return unknown_class(p, offset);
	clause->class_text = kx_strdup(value_text(p));
	clause->classes = malloc(count * sizeof(*clause->classes));
	clause->values = calloc(1, sizeof(*clause->values));
	if (!clause->class_text || !clause->classes || !clause->values) {
		no_memory(p);
		return false;
	}
	memcpy(clause->classes, keys, count * sizeof(*keys));
	clause->class_count = (uint32_t)count;
	clause->value_count = 1;
	return true;
}

/* Behind "class": a label and, where it says so, a range of its score; else any score over 0. */
static bool parse_class(struct parser *p, struct kx_filter_node *clause)
{
	size_t offset;

	if (p->token.kind != KX_TOKEN_COLON) {
		complain(p, p->token.offset, "write class:NAME, or class:NAME>0.5");
		return false;
	}
	if (!take_value(p, &offset) || !find_classes(p, offset, clause))
		return false;
	clause->op = KX_OP_MORE;
	if (p->token.kind != KX_TOKEN_OP)
		return true;
	clause->op = p->token.op;
	if (clause->op == KX_OP_CONTAINS) {
		complain(p, p->token.offset, "a class has a score: compare it by < <= > >= = or !=");
		return false;
	}
	if (!take_value(p, &offset))
		return false;
	if (kx_parse_double(value_text(p), &clause->values[0].low)) {
		complain(p, offset, "\"%.40s\" is no score; write a number from 0 to 1", value_text(p));
		return false;
	}
	clause->values[0].low += 0.0;
	clause->values[0].high = clause->values[0].low;
	return true;
}

/* Behind "has". */
static bool parse_has(struct parser *p, struct kx_filter_node *clause)
{
	size_t offset;
	const char *near;

	clause->op = KX_OP_HAS;
	if (p->token.kind != KX_TOKEN_COLON) {
		complain(p, p->token.offset, "write has:audio, or has: and the name of an attribute");
		return false;
	}
	if (!take_value(p, &offset))
		return false;
	clause->attribute = kx_attributes_find(p->attributes, value_text(p));
	if (clause->attribute != KX_ATTRIBUTE_NONE)
		return true;
	near = kx_attributes_nearest(p->attributes, value_text(p));
	complain(p, offset, "no attribute \"%.60s\"%s%s%s", value_text(p), near ? "; did you mean \"" : "", near ? near : "",
		 near ? "\"?" : "");
	return false;
}

static bool find_attribute(struct parser *p, struct kx_filter_node *clause)
{
	KX_CLEANUP(kx_cleanup_free) char *name = kx_strndup(p->lexer.text + p->token.offset, p->token.len);
	const char *near;

	if (!name) {
		no_memory(p);
		return false;
	}
	clause->attribute = kx_attributes_find(p->attributes, name);
	if (clause->attribute != KX_ATTRIBUTE_NONE)
		return true;
	near = kx_attributes_nearest(p->attributes, name);
	complain(p, p->token.offset, "no attribute \"%.60s\"%s%s%s", name, near ? "; did you mean \"" : "",
		 near ? near : "", near ? "\"?" : "");
	return false;
}

static bool parse_named(struct parser *p, struct kx_filter_node *clause)
{
	bool has = is_word(p, "has");

	if (!has && !find_attribute(p, clause))
		return false;
	advance(p);
	if (has)
		return parse_has(p, clause);
	return clause->attribute == KX_BUILTIN_CLASS ? parse_class(p, clause) : parse_comparison(p, clause);
}

static struct kx_filter_node *parse_clause(struct parser *p)
{
	struct kx_filter_node *clause;

	if (p->token.kind == KX_TOKEN_BAD)
		return complain(p, p->token.offset, "%s", p->lexer.complaint);
	if (p->token.kind != KX_TOKEN_NAME)
		return complain(p, p->token.offset, "%s",
				p->token.kind == KX_TOKEN_END ? "the filter ends where a clause belongs"
							      : "a clause belongs here: an attribute, an operator, a value");
	if (p->clauses++ == KX_FILTER_CLAUSES_MAX)
		return complain(p, p->token.offset, "more than %u clauses", KX_FILTER_CLAUSES_MAX);
	clause = new_node(p, KX_FILTER_CLAUSE);
	if (clause && !parse_named(p, clause)) {
		node_free(clause);
		return NULL;
	}
	return clause;
}

/* --- Structure ------------------------------------------------------------------------------------------------ */

static bool go_deeper(struct parser *p)
{
	if (p->depth == KX_FILTER_DEPTH_MAX) {
		complain(p, p->token.offset, "more than %u brackets and nots in one another", KX_FILTER_DEPTH_MAX);
		return false;
	}
	p->depth++;
	return true;
}

static struct kx_filter_node *parse_bracket(struct parser *p)
{
	size_t open = p->token.offset;
	struct kx_filter_node *inner;

	if (!go_deeper(p))
		return NULL;
	advance(p);
	inner = parse_any(p);
	p->depth--;
	if (!inner)
		return NULL;
	if (p->token.kind != KX_TOKEN_CLOSE) {
		node_free(inner);
		if (p->token.kind == KX_TOKEN_END)
			return complain(p, open, "a bracket that is not closed");
		return complain(p, p->token.offset, "\"and\", \"or\" or ) belongs here");
	}
	advance(p);
	return inner;
}

/* "not not x" is x. */
static struct kx_filter_node *parse_not(struct parser *p)
{
	struct kx_filter_node *inner, *node;

	if (p->token.kind == KX_TOKEN_OPEN)
		return parse_bracket(p);
	if (!is_word(p, "not"))
		return parse_clause(p);
	if (!go_deeper(p))
		return NULL;
	advance(p);
	inner = parse_not(p);
	p->depth--;
	if (!inner)
		return NULL;
	if (inner->kind == KX_FILTER_NOT) {
		node = inner->children[0];
		inner->child_count = 0;
		node_free(inner);
		return node;
	}
	node = new_node(p, KX_FILTER_NOT);
	if (!node)
		node_free(inner);
	else if (!add_child(p, node, inner)) {
		node_free(node);
		return NULL;
	}
	return node;
}

/* "a and (b and c)" has three children. */
static bool add_flat(struct parser *p, struct kx_filter_node *node, struct kx_filter_node *child)
{
	bool good = true;

	if (!child || child->kind != node->kind)
		return add_child(p, node, child);
	for (uint32_t i = 0; i < child->child_count; i++) {
		if (good)
			good = add_child(p, node, child->children[i]);
		else
			node_free(child->children[i]);
	}
	child->child_count = 0;
	node_free(child);
	return good;
}

static struct kx_filter_node *parse_list(struct parser *p, enum kx_filter_kind kind, const char *word,
					 struct kx_filter_node *(*parse)(struct parser *p))
{
	struct kx_filter_node *first = parse(p), *node;
	bool good;

	if (!first || !is_word(p, word))
		return first;
	node = new_node(p, kind);
	if (!node) {
		node_free(first);
		return NULL;
	}
	good = add_flat(p, node, first);
	while (good && is_word(p, word)) {
		advance(p);
		good = add_flat(p, node, parse(p));
	}
	if (good)
		return node;
	node_free(node);
	return NULL;
}

static struct kx_filter_node *parse_and(struct parser *p)
{
	return parse_list(p, KX_FILTER_AND, "and", parse_not);
}

static struct kx_filter_node *parse_any(struct parser *p)
{
	return parse_list(p, KX_FILTER_OR, "or", parse_and);
}

static struct kx_filter_node *parse_whole(struct parser *p)
{
	struct kx_filter_node *root;

	advance(p);
	if (p->token.kind == KX_TOKEN_END)
		return new_node(p, KX_FILTER_ALL);
	root = parse_any(p);
	if (!root || p->token.kind == KX_TOKEN_END)
		return root;
	node_free(root);
	if (p->token.kind == KX_TOKEN_BAD)
		return complain(p, p->token.offset, "%s", p->lexer.complaint);
	return complain(p, p->token.offset, "%s",
			p->token.kind == KX_TOKEN_CLOSE ? "a ) without its (" : "\"and\" or \"or\" belongs here");
}

static kx_status check_text(const char *text, size_t len, struct kx_error *error)
{
	if (len > KX_FILTER_BYTES_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "the filter has %zu bytes, and at most %u are allowed; leave ids to not_ids", len,
				    KX_FILTER_BYTES_MAX);
	if (!kx_utf8_valid(text, len))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "the filter is no UTF-8 text");
	return KX_OK;
}

static kx_status finish(struct kx_filter_node *root, const struct parser *p, struct kx_filter **ret)
{
	struct kx_buf text = {.max = 16 * (size_t)KX_FILTER_BYTES_MAX};
	struct kx_filter *filter = calloc(1, sizeof(*filter));

	if (!filter || kx_filter_print(root, p->attributes, &text)) {
		free(filter);
		kx_buf_done(&text);
		node_free(root);
		return KX_ENOMEM;
	}
	filter->root = root;
	filter->clause_count = p->clauses;
	filter->canonical = text.data ? (char *)text.data : kx_strdup("");
	if (!filter->canonical) {
		kx_filter_free(filter);
		return KX_ENOMEM;
	}
	*ret = filter;
	return KX_OK;
}

kx_status kx_filter_parse(const char *text, const struct kx_attributes *attributes, double now_s,
			  struct kx_filter **ret, size_t *ret_offset, struct kx_error *error)
{
	struct kx_error why = {0};
	struct parser p = {.lexer = {.text = text, .len = strlen(text)},
			   .attributes = attributes,
			   .now_s = now_s,
			   .value = {.max = KX_FILTER_BYTES_MAX},
			   .error = &why};
	kx_status status = check_text(text, p.lexer.len, error);
	struct kx_filter_node *root;

	if (status)
		return status;
	root = parse_whole(&p);
	kx_buf_done(&p.value);
	if (!root) {
		if (ret_offset)
			*ret_offset = p.offset;
		if (error)
			*error = why;
		return why.status;
	}
	return finish(root, &p, ret) ? kx_error_nomem(error) : KX_OK;
}

void kx_filter_free(struct kx_filter *filter)
{
	if (!filter)
		return;
	node_free(filter->root);
	free(filter->canonical);
	free(filter);
}

void kx_filter_cleanup(struct kx_filter **filter)
{
	kx_filter_free(*filter);
	*filter = NULL;
}

static void each_clause(const struct kx_filter_node *node, void (*visit)(void *ctx, const struct kx_filter_node *clause),
			void *ctx)
{
	if (node->kind == KX_FILTER_CLAUSE)
		visit(ctx, node);
	for (uint32_t i = 0; i < node->child_count; i++)
		each_clause(node->children[i], visit, ctx);
}

void kx_filter_each_clause(const struct kx_filter *filter, void (*visit)(void *ctx, const struct kx_filter_node *clause),
			   void *ctx)
{
	each_clause(filter->root, visit, ctx);
}

bool kx_filter_exact_case(uint32_t attribute)
{
	return attribute == KX_BUILTIN_ID || attribute == KX_BUILTIN_SOURCE || attribute == KX_BUILTIN_DUPLICATE_OF;
}
