#include "gateway/json/writer.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/str.h"

static void put(struct kx_json *json, const char *text, size_t len)
{
	if (json->status == KX_OK)
		json->status = kx_buf_append(json->out, text, len);
}

static void put_escape(struct kx_json *json, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
	static const char letters[] = "\bb\ff\nn\rr\tt\"\"\\\\";
	const char *letter = NULL;

	for (const char *at = letters; *at != '\0' && letter == NULL; at += 2)
		letter = (unsigned char)*at == c ? at + 1 : NULL;
	if (letter == NULL) {
		put(json, escape, sizeof(escape));
	} else {
		put(json, "\\", 1);
		put(json, letter, 1);
	}
}

static void put_quoted(struct kx_json *json, const char *text)
{
	size_t left = strlen(text);

	put(json, "\"", 1);
	for (size_t len; left > 0; text += len, left -= len) {
		unsigned char c = (unsigned char)*text;

		len = 0;
		while (len < left && (unsigned char)text[len] >= 0x20 && (unsigned char)text[len] < 0x7f &&
		       text[len] != '"' && text[len] != '\\')
			len++;
		if (len > 0) {
			put(json, text, len);
			continue;
		}
		len = kx_utf8_step(text, left);
		if (len > 1 || c == 0x7f) {
			put(json, text, len);
		} else if (len == 1) {
			put_escape(json, c);
		} else {
			put(json, "\xef\xbf\xbd", 3);
			len = 1;
		}
	}
	put(json, "\"", 1);
}

static void begin(struct kx_json *json, const char *key)
{
	if (json->comma)
		put(json, ",", 1);
	json->comma = true;
	if (key == NULL)
		return;
	put(json, "\"", 1);
	put(json, key, strlen(key));
	put(json, "\":", 2);
}

void kx_json_open(struct kx_json *json, const char *key, char bracket)
{
	begin(json, key);
	put(json, &bracket, 1);
	json->comma = false;
}

void kx_json_close(struct kx_json *json, char bracket)
{
	put(json, &bracket, 1);
	json->comma = true;
}

void kx_json_text(struct kx_json *json, const char *key, const char *text)
{
	begin(json, key);
	put_quoted(json, text != NULL ? text : "");
}

static void put_number(struct kx_json *json, const char *format, ...) KX_PRINTF(2, 3);
static void put_number(struct kx_json *json, const char *format, ...)
{
	char text[40];
	va_list args;

	va_start(args, format);
	int len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	put(json, text, (size_t)len);
}

void kx_json_integer(struct kx_json *json, const char *key, uint64_t value)
{
	begin(json, key);
	put_number(json, "%" PRIu64, value);
}

void kx_json_bool(struct kx_json *json, const char *key, bool value)
{
	begin(json, key);
	put(json, value ? "true" : "false", value ? 4 : 5);
}

void kx_json_real(struct kx_json *json, const char *key, double value)
{
	begin(json, key);
	if (isfinite(value))
		put_number(json, "%.9g", value);
	else
		put(json, "null", 4);
}

void kx_json_seconds(struct kx_json *json, const char *key, uint64_t us)
{
	begin(json, key);
	put_number(json, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
}
