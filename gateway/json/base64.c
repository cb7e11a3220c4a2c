#include "gateway/json/base64.h"

#include <stdlib.h>
#include <string.h>

#define NONE 0xff /* no digit */

/* A table, as which digit comes next no branch predictor can know. */
static void fill(uint8_t digits[256])
{
	static const char in_order[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	memset(digits, NONE, 256);
	for (uint8_t i = 0; i < 64; i++)
		digits[(uint8_t)in_order[i]] = i;
}

static kx_status decode(const char *text, size_t count, uint8_t *to)
{
	const uint8_t *from = (const uint8_t *)text;
	uint8_t digits[256], wrong = 0;
	size_t i = 0;

	fill(digits);
	for (; i + 4 <= count; i += 4, to += 3) {
		uint8_t a = digits[from[i]], b = digits[from[i + 1]], c = digits[from[i + 2]], d = digits[from[i + 3]];

		wrong |= a | b | c | d;
		to[0] = (uint8_t)(a << 2 | b >> 4);
		to[1] = (uint8_t)(b << 4 | c >> 2);
		to[2] = (uint8_t)(c << 6 | d);
	}
	if (count - i >= 2) {
		uint8_t a = digits[from[i]], b = digits[from[i + 1]], c = count - i == 3 ? digits[from[i + 2]] : 0;

		wrong |= a | b | c;
		to[0] = (uint8_t)(a << 2 | b >> 4);
		if (count - i == 3)
			to[1] = (uint8_t)(b << 4 | c >> 2);
	}
	return wrong < 64 ? KX_OK : KX_EINVAL;
}

kx_status kx_base64_decode(const char *text, size_t max, uint8_t **ret, size_t *ret_len)
{
	size_t len = strlen(text), digits = len;

	while (digits > 0 && len - digits < 2 && text[digits - 1] == '=')
		digits--;
	if (len % 4 != 0 || digits % 4 == 1)
		return KX_EINVAL;
	size_t bytes = digits / 4 * 3 + (digits % 4 > 0 ? digits % 4 - 1 : 0);
	if (bytes > max)
		return KX_ETOOBIG;
	uint8_t *out = malloc(bytes + 1);
	if (out == NULL)
		return KX_ENOMEM;
	kx_status status = decode(text, digits, out);
	if (status != KX_OK) {
		free(out);
		return status;
	}
	*ret = out;
	*ret_len = bytes;
	return KX_OK;
}
