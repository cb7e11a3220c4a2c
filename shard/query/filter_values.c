/* Durations, dates and numbers of the filter language, both ways. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/str.h"
#include "shard/query/filter.h"

#define DAY_S 86400.0
#define FIRST_S (-62135596800.0) /* 0001-01-01 */
#define LAST_S 253402300799.0 /* 9999-12-31 */
#define VALUE_MAX 1e15 /* seconds; further than any date or duration that means something */

static double unit_seconds(char unit)
{
	switch (unit) {
	case 's':
		return 1.0;
	case 'm':
		return 60.0;
	case 'h':
		return 3600.0;
	case 'd':
		return DAY_S;
	case 'w':
		return 7 * DAY_S;
	default:
		return 0.0;
	}
}

/* "1h30m", "90", "1.5h": numbers with units, each smaller than the one before; a number alone is seconds. */
kx_status kx_filter_parse_duration(const char *text, double *ret_s)
{
	double total = 0.0, last = INFINITY;
	const char *at = text;

	if (!kx_parse_double(text, &total)) {
		*ret_s = total;
		return total >= 0.0 && total <= VALUE_MAX ? KX_OK : KX_EINVAL;
	}
	total = 0.0;
	while (*at) {
		size_t len = strspn(at, "0123456789.");
		double unit = len < 32 && len ? unit_seconds(at[len]) : 0.0, number;
		char digits[32];

		if (unit <= 0.0 || unit >= last)
			return KX_EINVAL;
		memcpy(digits, at, len);
		digits[len] = '\0';
		if (kx_parse_double(digits, &number))
			return KX_EINVAL;
		total += number * unit;
		last = unit;
		at += len + 1;
	}
	if (at == text || !(total <= VALUE_MAX))
		return KX_EINVAL;
	*ret_s = total;
	return KX_OK;
}

static kx_status relative_date(const char *text, double now_s, double *ret)
{
	double now = floor(now_s / 60.0) * 60.0, far = 0.0;

	if (text[0] && (text[0] != '-' || kx_filter_parse_duration(text + 1, &far)))
		return KX_EINVAL;
	*ret = floor(now - far);
	return *ret >= FIRST_S && *ret <= LAST_S ? KX_OK : KX_EINVAL;
}

/* timegm() takes the 31st of February for the 3rd of March; a filter does not. */
static kx_status check_calendar(struct tm *wanted, double *ret)
{
	struct tm given = *wanted;
	time_t seconds = timegm(wanted);

	if (wanted->tm_year != given.tm_year || wanted->tm_mon != given.tm_mon || wanted->tm_mday != given.tm_mday ||
	    wanted->tm_hour != given.tm_hour || wanted->tm_min != given.tm_min || wanted->tm_sec != given.tm_sec)
		return KX_EINVAL;
	*ret = (double)seconds;
	return KX_OK;
}

kx_status kx_filter_parse_date(const char *text, double now_s, double *ret_low, double *ret_high)
{
	static const struct {
		const char *format;
		double span;
	} forms[] = {{"%Y-%m-%d", DAY_S}, {"%Y-%m-%dT%H:%M", 60.0}, {"%Y-%m-%dT%H:%MZ", 60.0},
		     {"%Y-%m-%dT%H:%M:%S", 1.0}, {"%Y-%m-%dT%H:%M:%SZ", 1.0}};

	if (kx_str_starts(text, "now")) {
		kx_status status = relative_date(text + 3, now_s, ret_low);

		if (!status)
			*ret_high = *ret_low + 1.0;
		return status;
	}
	if (strlen(text) < 10 || text[4] != '-' || text[7] != '-') /* strptime would take "1-2-3" */
		return KX_EINVAL;
	for (size_t i = 0; i < KX_ARRAY_LEN(forms); i++) {
		struct tm parts = {0};
		const char *end = strptime(text, forms[i].format, &parts);

		if (!end || *end)
			continue;
		if (check_calendar(&parts, ret_low))
			return KX_EINVAL;
		*ret_high = *ret_low + forms[i].span;
		return KX_OK;
	}
	return KX_EINVAL;
}

void kx_filter_format_date(double seconds, char out[32])
{
	time_t when = (time_t)seconds;
	struct tm parts;

	if (!gmtime_r(&when, &parts) || parts.tm_year < -1900 || parts.tm_year > 8099)
		snprintf(out, 32, "?");
	else
		snprintf(out, 32, "%04u-%02u-%02uT%02u:%02u:%02uZ", (unsigned)(parts.tm_year + 1900) % 10000u,
			 (unsigned)(parts.tm_mon + 1) % 100u, (unsigned)parts.tm_mday % 100u,
			 (unsigned)parts.tm_hour % 100u, (unsigned)parts.tm_min % 100u, (unsigned)parts.tm_sec % 100u);
}

void kx_filter_format_number(double value, char out[32])
{
	for (int digits = 6; digits <= 17; digits++) {
		double back;

		snprintf(out, 32, "%.*g", digits, value);
		if (!kx_parse_double(out, &back) && back == value)
			return;
	}
}
