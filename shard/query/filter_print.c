#include <stdio.h>
#include <string.h>

#include "shard/query/filter.h"

static kx_status put(struct kx_buf *out, const char *text)
{
	return kx_buf_append(out, text, strlen(text));
}

static bool is_plain(const char *text)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-+:*?#@";

	return text[0] && strspn(text, plain) == strlen(text);
}

static const char *escape_of(char c)
{
	switch (c) {
	case '"':
		return "\\\"";
	case '\\':
		return "\\\\";
	case '\n':
		return "\\n";
	case '\r':
		return "\\r";
	case '\t':
		return "\\t";
	default:
		return NULL;
	}
}

static kx_status put_text(struct kx_buf *out, const char *text)
{
	kx_status status = KX_OK;

	if (is_plain(text))
		return put(out, text);
	status = put(out, "\"");
	for (; !status && *text; text++) {
		const char *escape = escape_of(*text);

		status = escape ? put(out, escape) : kx_buf_append(out, text, 1);
	}
	return status ? status : put(out, "\"");
}

static kx_status put_value(struct kx_buf *out, const struct kx_filter_value *value, enum kx_attribute_type type)
{
	char text[32];

	switch (type) {
	case KX_ATTRIBUTE_TEXT:
		return put_text(out, value->text);
	case KX_ATTRIBUTE_BOOL:
		return put(out, value->flag ? "true" : "false");
	case KX_ATTRIBUTE_DATE:
		kx_filter_format_date(value->low, text);
		if (value->high - value->low > 3600.0)
			text[10] = '\0'; /* the day alone */
		else if (value->high - value->low > 1.0)
			text[16] = '\0'; /* to the minute */
		return put(out, text);
	case KX_ATTRIBUTE_NUMBER:
	case KX_ATTRIBUTE_DURATION:
	case KX_ATTRIBUTE_CLASS:
		kx_filter_format_number(value->low, text);
		return put(out, text);
	}
	return KX_OK;
}

static const char *op_text(enum kx_filter_op op)
{
	switch (op) {
	case KX_OP_EQUAL:
		return " = ";
	case KX_OP_NOT_EQUAL:
		return " != ";
	case KX_OP_LESS:
		return " < ";
	case KX_OP_LESS_EQUAL:
		return " <= ";
	case KX_OP_MORE:
		return " > ";
	case KX_OP_MORE_EQUAL:
		return " >= ";
	case KX_OP_CONTAINS:
		return " ~ ";
	case KX_OP_IN:
		return " in ";
	case KX_OP_LIKE:
	case KX_OP_HAS:
		break;
	}
	return ":";
}

static kx_status put_values(struct kx_buf *out, const struct kx_filter_node *clause, enum kx_attribute_type type)
{
	bool list = clause->op == KX_OP_IN;
	kx_status status = list ? put(out, "(") : KX_OK;

	for (uint32_t i = 0; !status && i < clause->value_count; i++) {
		if (i)
			status = put(out, ", ");
		if (!status)
			status = put_value(out, &clause->values[i], type);
	}
	return status || !list ? status : put(out, ")");
}

static kx_status put_clause(struct kx_buf *out, const struct kx_filter_node *clause, const struct kx_attributes *attributes)
{
	const char *name = kx_attributes_name(attributes, clause->attribute);
	bool has = clause->op == KX_OP_HAS, any_score;
	kx_status status;

	if (has)
		return kx_buf_printf(out, "has:%s", name);
	status = put(out, name);
	if (!status && clause->class_text) {
		any_score = clause->op == KX_OP_MORE && clause->values[0].low <= 0.0 && clause->values[0].low >= 0.0;
		status = put(out, ":");
		if (!status)
			status = put_text(out, clause->class_text);
		if (status || any_score)
			return status;
	}
	if (!status)
		status = put(out, op_text(clause->op));
	return status ? status : put_values(out, clause, kx_attributes_type(attributes, clause->attribute));
}

/* Brackets stand where they are needed: around an "or" that is not the whole, and around an "and" behind a "not". */
static bool needs_brackets(const struct kx_filter_node *parent, const struct kx_filter_node *child)
{
	return child->kind == KX_FILTER_OR || (child->kind == KX_FILTER_AND && parent->kind == KX_FILTER_NOT);
}

kx_status kx_filter_print(const struct kx_filter_node *node, const struct kx_attributes *attributes, struct kx_buf *out)
{
	kx_status status = KX_OK;

	if (node->kind == KX_FILTER_CLAUSE)
		return put_clause(out, node, attributes);
	if (node->kind == KX_FILTER_NOT)
		status = put(out, "not ");
	for (uint32_t i = 0; !status && i < node->child_count; i++) {
		bool brackets = needs_brackets(node, node->children[i]);

		if (i)
			status = put(out, node->kind == KX_FILTER_AND ? " and " : " or ");
		if (!status && brackets)
			status = put(out, "(");
		if (!status)
			status = kx_filter_print(node->children[i], attributes, out);
		if (!status && brackets)
			status = put(out, ")");
	}
	return status;
}
