#include "common/config/option.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"

const struct kx_option *kx_option_find(const struct kx_option *table, size_t table_len, unsigned command,
				       const char *key)
{
	const struct kx_option *other = NULL;

	for (size_t i = 0; i < table_len; i++) {
		if (!kx_str_eq(table[i].key, key))
			continue;
		if (table[i].commands & command)
			return &table[i];
		if (!other)
			other = &table[i];
	}
	return other;
}

/* Typing the beginning of a key is as near as one slip. */
static size_t distance_to(const char *written, const char *key)
{
	if (strlen(written) >= 2 && kx_str_starts(key, written))
		return 1;
	return kx_edit_distance(written, key);
}

const char *kx_option_nearest(const struct kx_option *table, size_t table_len, unsigned commands, const char *key)
{
	size_t best_distance = 1 + strlen(key) / 3;
	const char *best = NULL;

	for (size_t i = 0; i < table_len; i++) {
		if (!(table[i].commands & commands))
			continue;
		size_t distance = distance_to(key, table[i].key);
		if (distance < best_distance || (distance == best_distance && !best)) {
			best_distance = distance;
			best = table[i].key;
		}
	}
	return best;
}

const char *kx_option_next_choice(const struct kx_option *option, const char *word, size_t *ret_len)
{
	if (!word)
		word = option->choices;
	else if (*(word += strcspn(word, "|")))
		word++;
	else
		return NULL;
	*ret_len = strcspn(word, "|");
	return word;
}

void kx_option_format_range(const struct kx_option *option, char *out, size_t out_len)
{
	const char *unit = option->unit ? option->unit : "";
	const char *blank = *unit ? " " : "";

	if (!(option->min < option->max) || (isinf(option->min) && isinf(option->max)))
		out[0] = '\0';
	else if (isinf(option->max))
		snprintf(out, out_len, "at least %.15g%s%s", option->min, blank, unit);
	else if (isinf(option->min))
		snprintf(out, out_len, "at most %.15g%s%s", option->max, blank, unit);
	else
		snprintf(out, out_len, "%.15g to %.15g%s%s", option->min, option->max, blank, unit);
}

static kx_status refuse(struct kx_error *error, const char *text, const char *what)
{
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "\"%s\" is %s", text, what);
}

static kx_status check_range(const struct kx_option *option, const char *text, double value, struct kx_error *error)
{
	char range[96];

	kx_option_format_range(option, range, sizeof(range));
	if (!range[0] || (value >= option->min && value <= option->max))
		return KX_OK;
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s is out of range: %s", text, range);
}

static kx_status set_flag(const char *text, bool *ret, struct kx_error *error)
{
	static const char *const ON[] = {"true", "yes", "on", "1"};
	static const char *const OFF[] = {"false", "no", "off", "0"};

	for (size_t i = 0; i < KX_ARRAY_LEN(ON); i++) {
		bool on = kx_str_eq(text, ON[i]);
		if (on || kx_str_eq(text, OFF[i])) {
			*ret = on;
			return KX_OK;
		}
	}
	return refuse(error, text, "neither true nor false");
}

static kx_status set_integer(const struct kx_option *option, const char *text, int64_t *ret, struct kx_error *error)
{
	const char *digits = text + (*text == '-' || *text == '+');
	char *end;

	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (!isdigit((unsigned char)*digits) || *end)
		return refuse(error, text, "not a whole number");
	if (errno)
		return refuse(error, text, "too large a number");
	kx_status status = check_range(option, text, (double)value, error);
	if (status == KX_OK)
		*ret = value;
	return status;
}

static kx_status set_real(const struct kx_option *option, const char *text, double *ret, struct kx_error *error)
{
	double value;

	if (kx_parse_double(text, &value))
		return refuse(error, text, "not a number");
	kx_status status = check_range(option, text, value, error);
	if (status == KX_OK)
		*ret = value;
	return status;
}

static kx_status check_choice(const struct kx_option *option, const char *text, struct kx_error *error)
{
	struct kx_buf list KX_CLEANUP(kx_buf_done) = {.max = 400};
	const char *word = NULL;
	size_t len;

	while ((word = kx_option_next_choice(option, word, &len)))
		if (strlen(text) == len && memcmp(text, word, len) == 0)
			return KX_OK;
	while ((word = kx_option_next_choice(option, word, &len)))
		if (kx_buf_printf(&list, "%s%.*s", list.len ? ", " : "", (int)len, word))
			return kx_error_nomem(error);
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "\"%s\" is none of %s", text, (char *)list.data);
}

static kx_status set_text(const char *text, char **slot, struct kx_error *error)
{
	return kx_str_set(slot, text) ? kx_error_nomem(error) : KX_OK;
}

kx_status kx_option_set(const struct kx_option *option, const char *text, struct kx_option_value *value,
			struct kx_error *error)
{
	kx_status status;

	switch (option->type) {
	case KX_OPTION_FLAG:
		return set_flag(text, &value->flag, error);
	case KX_OPTION_INT:
		return set_integer(option, text, &value->integer, error);
	case KX_OPTION_REAL:
		return set_real(option, text, &value->real, error);
	case KX_OPTION_CHOICE:
		status = check_choice(option, text, error);
		return status ? status : set_text(text, &value->text, error);
	case KX_OPTION_TEXT:
	default:
		return set_text(text, &value->text, error);
	}
}
