#include "gateway/json/problem.h"

#include <stdlib.h>
#include <string.h>

#include "gateway/json/writer.h"

static const struct kind {
	unsigned code;
	const char *name, *title;
} kinds[] = {
	{400, "bad-request", "The request is wrong"},
	{404, "not-found", "There is no such thing here"},
	{405, "method", "Not with this method"},
	{406, "not-acceptable", "Not to be had in that form"},
	{409, "changed", "The file is not the one that was indexed"},
	{413, "too-large", "The request is too large"},
	{415, "media-type", "The body is of another type"},
	{416, "range", "No byte of it lies in that range"},
	{421, "wrong-host", "Meant for another host"},
	{422, "unusable", "The video can't be used for this"},
	{500, "internal", "Something went wrong here"},
	{501, "not-offered", "Not offered by this server"},
	{502, "shard", "A shard answered what can't be used"},
	{503, "busy", "Not now"},
	{504, "timeout", "No answer in time"},
};

unsigned kx_problem_code(kx_status status)
{
	switch (status) {
	case KX_EINVAL:
		return 400;
	case KX_ETOOBIG:
		return 413;
	case KX_ENOTFOUND:
		return 404;
	case KX_EUNSUPPORTED:
		return 501;
	case KX_ENOMEM:
	case KX_EBUSY:
	case KX_EAGAIN:
	case KX_EFULL:
	case KX_ECANCELED:
		return 503;
	case KX_ETIMEDOUT:
		return 504;
	case KX_ECORRUPT:
	case KX_EVERSION:
		return 502;
	case KX_EPERM:
		return 404; /* whether a file is there is nobody's business who may not read it */
	case KX_OK:
	case KX_EIO:
	case KX_EEXIST:
		break;
	}
	return 500;
}

static const struct kind *kind_of(unsigned code)
{
	for (size_t i = 0; i < KX_ARRAY_LEN(kinds); i++)
		if (kinds[i].code == code)
			return &kinds[i];
	return &kinds[10];
}

/* "filter, character 17: ..." in the words of the filter's parser, which counts from 1. */
static void write_offset(struct kx_json *json, const char *detail)
{
	static const char words[] = "filter, character ";
	const char *at = strstr(detail, words);
	unsigned long character = at != NULL ? strtoul(at + strlen(words), NULL, 10) : 0;

	if (character > 0)
		kx_json_integer(json, "offset", character - 1);
}

kx_status kx_problem_write(unsigned code, const char *detail, struct kx_buf *out)
{
	const struct kind *kind = kind_of(code);
	struct kx_json json = {.out = out};
	char type[64] = "urn:kinodex:problem:";

	strcat(type, kind->name);
	kx_buf_clear(out);
	kx_json_open(&json, NULL, '{');
	kx_json_text(&json, "type", type);
	kx_json_text(&json, "title", kind->title);
	kx_json_integer(&json, "status", code);
	kx_json_text(&json, "detail", detail);
	if (code == 400)
		write_offset(&json, detail);
	kx_json_close(&json, '}');
	return json.status;
}
