#include "cli/json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/str.h"
#include "common/fetch/fetch.h"

kx_status kx_json_print(json_t *json, struct kx_error *error)
{
	if (json == NULL)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "no JSON can be made of this: is a name not UTF-8? Try without --json");
	int failed = json_dumpf(json, stdout, JSON_COMPACT) != 0 || putchar('\n') == EOF;
	int saved = errno;
	json_decref(json);
	return failed ? kx_error_from_errno(error, saved, "writing to standard output") : KX_OK;
}

char *kx_json_source(const char *source)
{
	return kx_utf8_valid(source, strlen(source)) ? kx_fetch_name(source) : kx_strdup("");
}
