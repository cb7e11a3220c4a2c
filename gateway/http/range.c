#include "gateway/http/range.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* Digits at *at, which moves behind them. Numbers past 64 bits count as the largest. False without a digit. */
static bool take_number(const char **at, uint64_t *ret)
{
	const char *from = *at;
	uint64_t value = 0;

	for (; **at >= '0' && **at <= '9'; (*at)++) {
		uint64_t digit = (uint64_t)(**at - '0');

		value = value > (UINT64_MAX - digit) / 10 ? UINT64_MAX : value * 10 + digit;
	}
	*ret = value;
	return *at > from;
}

static const char *skip_blanks(const char *at)
{
	return at + strspn(at, " \t");
}

static enum kx_range_kind last_bytes(uint64_t count, uint64_t size, uint64_t *ret_first, uint64_t *ret_len)
{
	if (count == 0 || size == 0)
		return KX_RANGE_NONE;
	*ret_len = count < size ? count : size;
	*ret_first = size - *ret_len;
	return KX_RANGE_PART;
}

enum kx_range_kind kx_http_range(const char *header, uint64_t size, uint64_t *ret_first, uint64_t *ret_len)
{
	uint64_t first = 0, last = UINT64_MAX;

	if (header == NULL || strncasecmp(header, "bytes=", 6) != 0)
		return KX_RANGE_ALL;
	const char *at = skip_blanks(header + 6);
	bool has_first = take_number(&at, &first);
	if (*at++ != '-')
		return KX_RANGE_ALL;
	bool has_last = take_number(&at, &last);
	if (*skip_blanks(at) != '\0' || (!has_first && !has_last))
		return KX_RANGE_ALL;
	if (!has_first)
		return last_bytes(last, size, ret_first, ret_len);
	if (!has_last)
		last = UINT64_MAX;
	if (first > last)
		return KX_RANGE_ALL;
	if (first >= size)
		return KX_RANGE_NONE;
	if (last >= size)
		last = size - 1;
	*ret_first = first;
	*ret_len = last - first + 1;
	return KX_RANGE_PART;
}
