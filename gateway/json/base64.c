#include "gateway/json/base64.h"

#include <stdlib.h>
#include <string.h>

/* -1: no digit. */
static int digit_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static kx_status decode(const char *text, size_t digits, uint8_t *to)
{
	uint32_t bits = 0;

	for (size_t i = 0; i < digits; i++) {
		int digit = digit_of(text[i]);

		if (digit < 0)
			return KX_EINVAL;
		bits = bits << 6 | (uint32_t)digit;
		if (i % 4 != 0)
			*to++ = (uint8_t)(bits >> (6 - 2 * (i % 4)));
	}
	return KX_OK;
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
