#include "gateway/http/target.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* In place. A zero byte would end the text early, and so is refused. */
static bool decode(char *text, bool plus_is_blank)
{
	char *to = text;

	for (const char *from = text; *from != '\0'; from++) {
		char c = *from;

		if (c == '%') {
			int high = hex_digit(from[1]);
			int low = high < 0 ? -1 : hex_digit(from[2]);

			if (low < 0 || high * 16 + low == 0)
				return false;
			c = (char)(high * 16 + low);
			from += 2;
		} else if (c == '+' && plus_is_blank) {
			c = ' ';
		}
		*to++ = c;
	}
	*to = '\0';
	return kx_utf8_valid(text, strlen(text));
}

static kx_status bad_escape(struct kx_error *error)
{
	return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
			    "the address holds an escape that is none (%%XX), or bytes that are no UTF-8");
}

static kx_status split_path(struct kx_http_target *target, char *path, struct kx_error *error)
{
	for (char *at = path; at != NULL;) {
		char *segment = at + 1; /* behind the slash */

		at = strchr(segment, '/');
		if (at != NULL)
			*at = '\0';
		if (target->segment_count == KX_TARGET_SEGMENTS_MAX)
			return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
					    "the path has more than %u parts; write an id's slashes as %%2F",
					    KX_TARGET_SEGMENTS_MAX);
		if (!decode(segment, false))
			return bad_escape(error);
		target->segments[target->segment_count++] = segment;
	}
	return KX_OK;
}

static kx_status add_arg(struct kx_http_target *target, char *item, struct kx_error *error)
{
	char *value = strchr(item, '=');

	if (value != NULL)
		*value++ = '\0';
	else
		value = item + strlen(item);
	if (target->arg_count == KX_TARGET_ARGS_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON, "more than %u arguments", KX_TARGET_ARGS_MAX);
	if (!decode(item, true) || !decode(value, true))
		return bad_escape(error);
	if (kx_http_target_arg(target, item) != NULL)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "the argument %.64s is there twice", item);
	target->args[target->arg_count++] = (struct kx_target_arg){item, value};
	return KX_OK;
}

static kx_status split_args(struct kx_http_target *target, char *query, struct kx_error *error)
{
	char *rest = NULL;
	kx_status status = KX_OK;

	for (char *item = strtok_r(query, "&", &rest); item != NULL && status == KX_OK; item = strtok_r(NULL, "&", &rest))
		status = add_arg(target, item, error);
	return status;
}

/* The absolute form (RFC 9112, 3.2.2) means the same as what stands behind its host. */
static const char *skip_authority(const char *raw)
{
	if (!kx_str_starts(raw, "http://") && !kx_str_starts(raw, "https://"))
		return raw;
	raw = strstr(raw, "://") + 3;
	return raw + strcspn(raw, "/?#");
}

kx_status kx_http_target_parse(const char *raw, struct kx_http_target *ret, struct kx_error *error)
{
	struct kx_http_target target = {0};
	const char *path = skip_authority(raw);
	kx_status status;

	if (*path != '/')
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "the address does not begin with a slash");
	target.memory = kx_strdup(path);
	if (target.memory == NULL)
		return kx_error_nomem(error);
	target.memory[strcspn(target.memory, "#")] = '\0';
	char *query = strchr(target.memory, '?');
	if (query != NULL)
		*query++ = '\0';
	status = split_path(&target, target.memory, error);
	if (status == KX_OK && query != NULL)
		status = split_args(&target, query, error);
	if (status == KX_OK)
		*ret = target;
	else
		kx_http_target_done(&target);
	return status;
}

void kx_http_target_done(struct kx_http_target *target)
{
	free(target->memory);
	*target = (struct kx_http_target){0};
}

const char *kx_http_target_arg(const struct kx_http_target *target, const char *name)
{
	for (size_t i = 0; i < target->arg_count; i++)
		if (strcmp(target->args[i].name, name) == 0)
			return target->args[i].value;
	return NULL;
}
