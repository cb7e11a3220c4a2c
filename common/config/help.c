#include <stdbool.h>
#include <string.h>

#include "common/base/str.h"
#include "common/config/config.h"
#include "common/config/option.h"

#define MIN_WIDTH 40
#define MAX_LEFT 28 /* a longer name gets a line of its own */
#define GAP 2
#define TEXT_MAX 4096

static const char *placeholder(const struct kx_option *option)
{
	switch (option->type) {
	case KX_OPTION_FLAG:
		return "";
	case KX_OPTION_TEXT:
		return option->unit ? option->unit : "TEXT";
	case KX_OPTION_CHOICE:
		return option->unit ? option->unit : "WORD";
	case KX_OPTION_INT:
	case KX_OPTION_REAL:
	default:
		return "N";
	}
}

static bool on_by_default(const struct kx_option *option)
{
	return option->type == KX_OPTION_FLAG && option->value &&
	       (kx_str_eq(option->value, "true") || kx_str_eq(option->value, "yes") ||
		kx_str_eq(option->value, "on") || kx_str_eq(option->value, "1"));
}

/* "  -k, --count=N" */
static kx_status left_side(const struct kx_option *option, struct kx_buf *out)
{
	const char *holder = placeholder(option);
	char letter[8] = "    ";

	if (option->letter)
		snprintf(letter, sizeof(letter), "-%c, ", option->letter);
	return kx_buf_printf(out, "  %s--%s%s%s%s", letter, on_by_default(option) ? "[no-]" : "", option->key,
			     *holder ? "=" : "", holder);
}

/* "exact, tolerant or keyframe" */
static kx_status list_choices(const struct kx_option *option, struct kx_buf *out)
{
	const char *word = NULL;
	kx_status status = KX_OK;
	size_t len;

	while (!status && (word = kx_option_next_choice(option, word, &len))) {
		const char *before = word == option->choices ? "" : word[len] ? ", " : " or ";
		status = kx_buf_printf(out, "%s%.*s", before, (int)len, word);
	}
	return status;
}

/* What may be written, as far as the help's sentence does not say it: "1 to 60 fps", "in seconds". */
static kx_status allowed_values(const struct kx_option *option, struct kx_buf *out)
{
	char range[96];

	if (option->type == KX_OPTION_CHOICE)
		return list_choices(option, out);
	if (option->type != KX_OPTION_INT && option->type != KX_OPTION_REAL)
		return KX_OK;
	kx_option_format_range(option, range, sizeof(range));
	if (range[0])
		return kx_buf_printf(out, "%s", range);
	return option->unit ? kx_buf_printf(out, "in %s", option->unit) : KX_OK;
}

/* The help's sentence, and in brackets what may be written and the default. */
static kx_status right_side(const struct kx_option *option, struct kx_buf *out)
{
	struct kx_buf notes KX_CLEANUP(kx_buf_done) = {.max = TEXT_MAX};
	kx_status status = kx_buf_reserve(&notes, 0);

	if (!status)
		status = allowed_values(option, &notes);
	if (!status && on_by_default(option))
		status = kx_buf_printf(&notes, "on unless turned off");
	else if (!status && option->value && *option->value && option->type != KX_OPTION_FLAG)
		status = kx_buf_printf(&notes, "%sdefault %s", notes.len ? "; " : "", option->value);
	if (!status)
		status = kx_buf_printf(out, "%s", option->help ? option->help : "");
	if (!status && notes.len)
		status = kx_buf_printf(out, "%s(%s)", out->len ? " " : "", (char *)notes.data);
	return status;
}

/* Columns that text takes: characters, not bytes. */
static size_t columns(const char *text, size_t len)
{
	size_t count = 0;

	for (size_t i = 0; i < len; i++)
		count += ((unsigned char)text[i] & 0xc0) != 0x80;
	return count;
}

/* Writes words into the columns indent to width. at: where the line stands now. Ends the last line. */
static kx_status wrap(const char *text, size_t at, size_t indent, size_t width, struct kx_buf *out)
{
	kx_status status = KX_OK;

	for (bool first = true; !status; first = false) {
		text += strspn(text, " ");
		size_t len = strcspn(text, " ");
		size_t needs = columns(text, len);

		if (!len)
			break;
		if (!first && at + 1 + needs > width) {
			status = kx_buf_append(out, "\n", 1);
			at = 0;
		}
		size_t blanks = at < indent ? indent - at : !first;
		if (!status)
			status = kx_buf_printf(out, "%*s%.*s", (int)blanks, "", (int)len, text);
		at += blanks + needs;
		text += len;
	}
	return status ? status : kx_buf_append(out, "\n", 1);
}

static kx_status write_option(const struct kx_option *option, size_t indent, size_t width, struct kx_buf *out)
{
	struct kx_buf left KX_CLEANUP(kx_buf_done) = {.max = TEXT_MAX};
	struct kx_buf right KX_CLEANUP(kx_buf_done) = {.max = TEXT_MAX};
	kx_status status = left_side(option, &left);

	if (!status)
		status = right_side(option, &right);
	if (!status)
		status = kx_buf_append(out, left.data, left.len);
	if (status)
		return status;

	size_t at = columns((char *)left.data, left.len);
	if (at + GAP > indent && right.len) {
		status = kx_buf_append(out, "\n", 1);
		at = 0;
	}
	return status ? status : wrap((char *)right.data, at, indent, width, out);
}

/* Where the sentences begin: after the widest name that is not too wide. */
static kx_status find_indent(const struct kx_option *table, size_t table_len, unsigned command, size_t *ret_indent)
{
	struct kx_buf left KX_CLEANUP(kx_buf_done) = {.max = TEXT_MAX};
	size_t widest = 0;

	for (size_t i = 0; i < table_len; i++) {
		if (!(table[i].commands & command))
			continue;
		kx_buf_clear(&left);
		kx_status status = left_side(&table[i], &left);
		if (status)
			return status;
		size_t wide = columns((char *)left.data, left.len);
		if (wide > widest && wide <= MAX_LEFT)
			widest = wide;
	}
	*ret_indent = (widest ? widest : MAX_LEFT) + GAP;
	return KX_OK;
}

kx_status kx_config_help(const struct kx_option *table, size_t table_len, unsigned command, size_t width,
			 struct kx_buf *out)
{
	size_t indent;
	kx_status status = find_indent(table, table_len, command, &indent);

	if (width < MIN_WIDTH)
		width = MIN_WIDTH;
	for (size_t i = 0; !status && i < table_len; i++)
		if (table[i].commands & command)
			status = write_option(&table[i], indent, width, out);
	return status;
}
