/* The filter language: text to a tree of clauses, and back to a canonical text. Pure. Layer: shard/query.
 *
 *   filter  := and { "or" and }
 *   and     := not { "and" not }
 *   not     := "not" not | "(" filter ")" | clause
 *   clause  := "has" ":" name
 *            | "class" ":" value [ op number ]
 *            | name ( ":" | op ) value
 *            | name "in" "(" value { "," value } ")"
 *   op      := "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"
 *   value   := word | '"' characters, with \" \\ \n \r \t '"'
 *
 * Words of the language may be in any case. A word as a value ends at a blank, or one of ( ) , " < > = ! ~. An empty
 * text lets everything through. What a clause means for a video is total: one that lacks the attribute does not match,
 * except by "!=" and "not"; a class that was not kept for a video scores 0. docs/decisions/0011-filters.md says why.
 */
#ifndef KX_SHARD_QUERY_FILTER_H
#define KX_SHARD_QUERY_FILTER_H

#include "common/base/buf.h"
#include "shard/query/attributes.h"

#define KX_FILTER_BYTES_MAX (64u << 10)
#define KX_FILTER_DEPTH_MAX 64u     /* of "(" and "not" in one another */
#define KX_FILTER_CLAUSES_MAX 1024u
#define KX_FILTER_VALUES_MAX 10000u /* of all clauses together */

enum kx_filter_kind { KX_FILTER_ALL, KX_FILTER_AND, KX_FILTER_OR, KX_FILTER_NOT, KX_FILTER_CLAUSE };

enum kx_filter_op {
	KX_OP_EQUAL,
	KX_OP_NOT_EQUAL,
	KX_OP_LESS,
	KX_OP_LESS_EQUAL,
	KX_OP_MORE,
	KX_OP_MORE_EQUAL,
	KX_OP_CONTAINS, /* ~, whatever the case of letters */
	KX_OP_IN,
	KX_OP_LIKE,     /* ":" of a source: how it begins, or a pattern where it has * or ? */
	KX_OP_HAS,
};

/* Numbers, durations (seconds) and dates (seconds since 1970) are a span [low, high]: a date without a time is the
 * whole day, all else is a point. */
struct kx_filter_value {
	char *text;
	double low, high;
	bool flag;
};

struct kx_filter_node {
	enum kx_filter_kind kind;
	uint32_t child_count;
	struct kx_filter_node **children;
	/* Of a clause: */
	uint32_t attribute; /* number in the registry */
	enum kx_filter_op op;
	uint32_t value_count;
	struct kx_filter_value *values;
	char *class_text; /* as the filter names the class */
	uint32_t class_count;
	uint64_t *classes; /* keys; the best score of them counts */
};

/* Immutable once made. */
struct kx_filter {
	struct kx_filter_node *root;
	char *canonical;
	uint32_t clause_count;
};

/* now_s: seconds since 1970, for what is relative to now; it is taken to the minute, so that filters that are asked
 * again and again are the same for a while. KX_EINVAL, KX_ETOOBIG with a message that ends in two lines to be printed:
 * the text around the mistake and a caret under it; *ret_offset (or NULL) is its byte. KX_ENOMEM. */
kx_status kx_filter_parse(const char *text, const struct kx_attributes *attributes, double now_s,
			  struct kx_filter **ret, size_t *ret_offset, struct kx_error *error) KX_MUST_CHECK;
void kx_filter_free(struct kx_filter *filter); /* NULL is nothing */
void kx_filter_cleanup(struct kx_filter **filter);

/* Appends the canonical text of a node: parsed again, it prints the same. */
kx_status kx_filter_print(const struct kx_filter_node *node, const struct kx_attributes *attributes,
			  struct kx_buf *out) KX_MUST_CHECK;

/* Clauses from left to right. */
void kx_filter_each_clause(const struct kx_filter *filter, void (*visit)(void *ctx, const struct kx_filter_node *clause),
			   void *ctx);

/* The only texts that are compared by their bytes are ids and sources; all others whatever the case of ASCII letters. */
bool kx_filter_exact_case(uint32_t attribute);

/* "90 s" style numbers of the language. KX_EINVAL. */
kx_status kx_filter_parse_duration(const char *text, double *ret_s) KX_MUST_CHECK;
kx_status kx_filter_parse_date(const char *text, double now_s, double *ret_low, double *ret_high) KX_MUST_CHECK;
void kx_filter_format_date(double seconds, char out[32]);
/* The shortest decimal that reads back as the same number. */
void kx_filter_format_number(double value, char out[32]);

#endif
