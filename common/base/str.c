#include "common/base/str.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fault.h"

char *kx_strf(const char *format, ...)
{
	char *text = NULL;
	va_list args;

	if (kx_fault("str.alloc"))
		return NULL;
	va_start(args, format);
	int len = vasprintf(&text, format, args);
	va_end(args);
	return len < 0 ? NULL : text;
}

char *kx_strdup(const char *text)
{
	return text && !kx_fault("str.alloc") ? strdup(text) : NULL;
}

char *kx_strndup(const char *text, size_t len)
{
	return text && !kx_fault("str.alloc") ? strndup(text, len) : NULL;
}

kx_status kx_str_set(char **at, const char *text)
{
	char *copy = kx_strdup(text ? text : "");

	if (!copy)
		return KX_ENOMEM;
	free(*at);
	*at = copy;
	return KX_OK;
}

bool kx_str_eq(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

bool kx_str_starts(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool kx_str_ends(const char *text, const char *suffix)
{
	size_t text_len = strlen(text);
	size_t suffix_len = strlen(suffix);

	return text_len >= suffix_len && strcmp(text + text_len - suffix_len, suffix) == 0;
}

static bool continues(const unsigned char *bytes, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		if ((bytes[i] & 0xc0) != 0x80)
			return false;
	return true;
}

/* The Unicode standard, table 3-7: what excludes overlong forms, surrogates and codes past U+10FFFF is a narrower
 * range of the second byte after four of the first bytes. */
static bool second_byte_fits(unsigned char first, unsigned char second)
{
	switch (first) {
	case 0xe0:
		return second >= 0xa0;
	case 0xed:
		return second <= 0x9f;
	case 0xf0:
		return second >= 0x90;
	case 0xf4:
		return second <= 0x8f;
	default:
		return true;
	}
}

size_t kx_utf8_step(const char *text, size_t len)
{
	const unsigned char *bytes = (const unsigned char *)text;
	size_t step;

	if (len == 0)
		return 0;
	if (bytes[0] < 0x80)
		return 1;
	if (bytes[0] < 0xc2 || bytes[0] > 0xf4)
		return 0;
	step = bytes[0] < 0xe0 ? 2 : bytes[0] < 0xf0 ? 3 : 4;
	return step <= len && continues(bytes, 1, step) && second_byte_fits(bytes[0], bytes[1]) ? step : 0;
}

bool kx_utf8_valid(const char *text, size_t len)
{
	while (len) {
		size_t step = kx_utf8_step(text, len);
		if (!step)
			return false;
		text += step;
		len -= step;
	}
	return true;
}

kx_status kx_parse_u64(const char *text, uint64_t *ret_value)
{
	char *end;

	if (!isdigit((unsigned char)text[0])) /* strtoull() takes "-1" and " 1" */
		return KX_EINVAL;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno || *end)
		return KX_EINVAL;
	*ret_value = value;
	return KX_OK;
}

kx_status kx_parse_double(const char *text, double *ret_value)
{
	char *end;

	/* strtod() takes blanks, "inf", "nan" and hexadecimal too. */
	if (!*text || strspn(text, "0123456789+-.eE") != strlen(text))
		return KX_EINVAL;
	double value = strtod(text, &end);
	if (end == text || *end || !isfinite(value))
		return KX_EINVAL;
	*ret_value = value;
	return KX_OK;
}

void kx_hex_encode(const void *bytes, size_t len, char *out)
{
	static const char DIGITS[] = "0123456789abcdef";
	const uint8_t *from = bytes;

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = DIGITS[from[i] >> 4];
		out[2 * i + 1] = DIGITS[from[i] & 15];
	}
	out[2 * len] = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

kx_status kx_hex_decode(const char *hex, void *out, size_t out_len)
{
	uint8_t *to = out;

	if (strlen(hex) / 2 != out_len || strlen(hex) % 2 || strspn(hex, "0123456789abcdefABCDEF") != 2 * out_len)
		return KX_EINVAL;
	for (size_t i = 0; i < out_len; i++)
		to[i] = (uint8_t)(hex_digit(hex[2 * i]) * 16 + hex_digit(hex[2 * i + 1]));
	return KX_OK;
}

void kx_format_bytes(uint64_t bytes, char *out, size_t out_len)
{
	static const char *const UNITS[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes / 1024;
	size_t unit = 0;

	if (bytes < 1024) {
		snprintf(out, out_len, "%" PRIu64 " B", bytes);
		return;
	}
	while (value >= 1023.5 && unit + 1 < KX_ARRAY_LEN(UNITS)) { /* what would be printed as 1024 */
		value /= 1024;
		unit++;
	}
	snprintf(out, out_len, "%.*f %s", value < 99.95 ? 1 : 0, value, UNITS[unit]);
}

void kx_format_duration(uint64_t milliseconds, char *out, size_t out_len)
{
	uint64_t seconds = milliseconds / 1000;
	uint64_t minutes = seconds / 60;
	uint64_t hours = minutes / 60;

	if (seconds == 0)
		snprintf(out, out_len, "%" PRIu64 " ms", milliseconds);
	else if (minutes == 0)
		snprintf(out, out_len, "%" PRIu64 ".%" PRIu64 " s", seconds, milliseconds % 1000 / 100);
	else if (hours == 0)
		snprintf(out, out_len, "%" PRIu64 " min %02" PRIu64 " s", minutes, seconds % 60);
	else if (hours < 48)
		snprintf(out, out_len, "%" PRIu64 " h %02" PRIu64 " min", hours, minutes % 60);
	else
		snprintf(out, out_len, "%" PRIu64 " d %02" PRIu64 " h", hours / 24, hours % 24);
}

static size_t min_of(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Wagner and Fischer, one row of the table at a time. Out of memory it calls the texts as unlike as can be: a
 * suggestion is then missing, and nothing else. */
size_t kx_edit_distance(const char *a, const char *b)
{
	size_t a_len = strlen(a);
	size_t b_len = strlen(b);
	size_t *row KX_CLEANUP(kx_cleanup_free) = malloc((b_len + 1) * sizeof(*row));

	if (!row)
		return a_len > b_len ? a_len : b_len;
	for (size_t j = 0; j <= b_len; j++)
		row[j] = j;
	for (size_t i = 1; i <= a_len; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= b_len; j++) {
			size_t above = row[j];
			size_t changed = diagonal + (a[i - 1] != b[j - 1]);
			row[j] = min_of(changed, 1 + min_of(above, row[j - 1]));
			diagonal = above;
		}
	}
	return row[b_len];
}
