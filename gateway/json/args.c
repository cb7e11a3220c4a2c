/* Arguments of an address as the object that a body would hold, so that both mean the same. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "gateway/json/decode.h"

enum kind { TEXT, WHOLE, REAL, FLAG, LIST, WEIGHT };

static const struct known {
	const char *name;
	enum kind kind;
	const char *field;
} known[] = {
	{"id", TEXT, "id"},          {"k", WHOLE, "k"},           {"moments", FLAG, "moments"},
	{"visual", WEIGHT, "visual"}, {"audio", WEIGHT, "audio"}, {"filter", TEXT, "filter"},
	{"min_score", REAL, "min_score"}, {"cursor", TEXT, "cursor"}, {"group", TEXT, "group"},
	{"diversity", REAL, "diversity"}, {"not_ids", LIST, "not_ids"}, {"level", TEXT, "level"},
	{"recall", REAL, "recall"},  {"explain", FLAG, "explain"},
};

kx_status kx_decode_bool(const char *text, bool *ret)
{
	bool yes = text[0] == '\0' || strcmp(text, "true") == 0 || strcmp(text, "1") == 0;

	if (!yes && strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
		return KX_EINVAL;
	*ret = yes;
	return KX_OK;
}

static json_t *list_of(const char *text)
{
	KX_CLEANUP(kx_cleanup_free) char *copy = kx_strdup(text);
	json_t *list = json_array();
	char *rest = NULL;

	for (char *item = copy != NULL ? strtok_r(copy, ",", &rest) : NULL; item != NULL; item = strtok_r(NULL, ",", &rest))
		json_array_append_new(list, json_string(item));
	return list;
}

/* NULL: no such value. */
static json_t *value_of(enum kind kind, const char *text)
{
	uint64_t whole;
	double real;
	bool flag;

	switch (kind) {
	case TEXT:
		return json_string(text);
	case WHOLE:
		return kx_parse_u64(text, &whole) == KX_OK && whole <= INT64_MAX ? json_integer((json_int_t)whole) : NULL;
	case REAL:
	case WEIGHT:
		return kx_parse_double(text, &real) == KX_OK ? json_real(real) : NULL;
	case FLAG:
		return kx_decode_bool(text, &flag) == KX_OK ? json_boolean(flag) : NULL;
	case LIST:
		return list_of(text);
	}
	return NULL;
}

static kx_status add(json_t *object, const struct kx_decode_arg *arg, struct kx_error *error)
{
	for (size_t i = 0; i < KX_ARRAY_LEN(known); i++) {
		if (strcmp(known[i].name, arg->name) != 0)
			continue;
		json_t *value = value_of(known[i].kind, arg->value);
		if (value == NULL)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%s: \"%.64s\" is no value for it", arg->name,
					    arg->value);
		if (known[i].kind != WEIGHT)
			return json_object_set_new(object, known[i].field, value) == 0 ? KX_OK : kx_error_nomem(error);
		if (json_object_get(object, "weights") == NULL)
			(void)json_object_set_new(object, "weights", json_object());
		return json_object_set_new(json_object_get(object, "weights"), known[i].field, value) == 0
			       ? KX_OK
			       : kx_error_nomem(error);
	}
	return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "%.64s: there is no such argument here", arg->name);
}

kx_status kx_decode_similar_args(const struct kx_decode_arg *args, size_t count, const struct kx_decode_limits *limits,
				 struct kx_query_request **ret, struct kx_error *error)
{
	json_t *object = json_object();
	kx_status status = object != NULL ? KX_OK : kx_error_nomem(error);

	for (size_t i = 0; i < count && status == KX_OK; i++)
		status = add(object, &args[i], error);
	KX_CLEANUP(kx_cleanup_free) char *text = status == KX_OK ? json_dumps(object, JSON_COMPACT) : NULL;
	if (status == KX_OK && text == NULL)
		status = kx_error_nomem(error);
	json_decref(object);
	if (status != KX_OK)
		return status;
	return kx_decode_body(KX_BODY_SIMILAR, text, strlen(text), limits, ret, error);
}
