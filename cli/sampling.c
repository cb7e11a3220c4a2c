#include "cli/sampling.h"

#include <math.h>
#include <string.h>

#include "common/base/str.h"

static kx_status refuse(const char *text, const char *cure, struct kx_error *error)
{
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "--decode \"%s\": %s", text, cure);
}

static kx_status parse_tolerance(const char *text, const char *seconds, struct kx_sampling *sampling,
				 struct kx_error *error)
{
	double value;
	if (kx_parse_double(seconds, &value) != KX_OK)
		return refuse(text, "the tolerance is a number of seconds, as in tol=0.5", error);
	if (value <= 0)
		return refuse(text, "a tolerance is more than 0 seconds; without one it is --decode exact", error);
	if (value * 1e6 < 1 || value * 1e6 > (double)KX_TOLERANCE_US_MAX)
		return refuse(text, "a tolerance is from 0.000001 to 3600 seconds; for any, it is --decode keyframe", error);
	sampling->mode = KX_DECODE_TOLERANT;
	sampling->tolerance_us = (uint64_t)llround(value * 1e6);
	return KX_OK;
}

kx_status kx_cli_decode(const struct kx_config *config, struct kx_sampling *sampling, struct kx_error *error)
{
	const char *text = kx_config_text(config, "decode");
	sampling->tolerance_us = 0;
	if (kx_str_starts(text, "tol="))
		return parse_tolerance(text, text + strlen("tol="), sampling, error);
	if (strcmp(text, "exact") == 0)
		sampling->mode = KX_DECODE_EXACT;
	else if (strcmp(text, "keyframe") == 0)
		sampling->mode = KX_DECODE_KEYFRAME;
	else if (strcmp(text, "tol") == 0)
		return refuse(text, "it needs the seconds, as in tol=0.5", error);
	else
		return refuse(text, "exact, tol=SECONDS or keyframe", error);
	return KX_OK;
}
