#include "common/fetch/aws.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/str.h"

#define FILE_MAX ((size_t)1 << 20)

struct profile {
	const char *name;
	bool found;
	struct kx_aws *aws;
};

void kx_aws_done(struct kx_aws *aws)
{
	free(aws->key);
	free(aws->secret);
	free(aws->token);
	free(aws->region);
	free(aws->endpoint);
	*aws = (struct kx_aws){0};
}

static const char *env(const char *name)
{
	const char *value = getenv(name);
	return value && value[0] ? value : NULL;
}

/* The first that is said counts. */
static kx_status say(char **at, const char *value)
{
	if (*at || !value || !value[0])
		return KX_OK;
	*at = kx_strdup(value);
	return *at ? KX_OK : KX_ENOMEM;
}

static char *trim(char *text)
{
	while (isspace((unsigned char)*text))
		text++;
	for (size_t len = strlen(text); len > 0 && isspace((unsigned char)text[len - 1]);)
		text[--len] = '\0';
	return text;
}

/* "[name]", in the config file "[profile name]" too. */
static bool opens_profile(char *line, const char *name)
{
	char *end = strchr(line, ']');
	if (!end)
		return false;
	*end = '\0';
	char *section = trim(line + 1);
	if (kx_str_starts(section, "profile "))
		section = trim(section + strlen("profile "));
	return strcmp(section, name) == 0;
}

static kx_status set_key(struct kx_aws *aws, const char *key, const char *value)
{
	if (strcmp(key, "aws_access_key_id") == 0)
		return say(&aws->key, value);
	if (strcmp(key, "aws_secret_access_key") == 0)
		return say(&aws->secret, value);
	if (strcmp(key, "aws_session_token") == 0)
		return say(&aws->token, value);
	if (strcmp(key, "region") == 0)
		return say(&aws->region, value);
	return strcmp(key, "endpoint_url") == 0 ? say(&aws->endpoint, value) : KX_OK;
}

static kx_status read_lines(char *text, struct profile *profile)
{
	bool inside = false;
	char *rest = text;
	for (char *line; (line = strsep(&rest, "\n"));) {
		bool nested = isspace((unsigned char)line[0]); /* a value of several lines, which is none of ours */
		line = trim(line);
		if (line[0] == '[') {
			inside = opens_profile(line, profile->name);
			profile->found |= inside;
		}
		char *equals = strchr(line, '=');
		if (!inside || nested || !equals || line[0] == '#' || line[0] == ';' || line[0] == '[')
			continue;
		*equals = '\0';
		if (set_key(profile->aws, trim(line), trim(equals + 1)) != KX_OK)
			return KX_ENOMEM;
	}
	return KX_OK;
}

/* A file that is not there says nothing. */
static kx_status read_profile(const char *variable, const char *file, struct profile *profile, struct kx_error *error)
{
	const char *named = env(variable);
	const char *home = env("HOME");
	KX_CLEANUP(kx_cleanup_free) char *path = named ? kx_strdup(named) : home ? kx_strf("%s/.aws/%s", home, file)
										  : NULL;
	if (!path || !kx_fs_exists(path))
		return KX_OK;
	struct kx_buf text = {0};
	kx_status status = kx_fs_read(path, FILE_MAX, &text, error);
	if (status == KX_OK && text.len > 0 && read_lines((char *)text.data, profile) != KX_OK)
		status = kx_error_nomem(error);
	kx_buf_done(&text);
	return status;
}

static kx_status read_environment(struct kx_aws *aws)
{
	if (say(&aws->region, env("AWS_REGION")) || say(&aws->region, env("AWS_DEFAULT_REGION")) ||
	    say(&aws->endpoint, env("AWS_ENDPOINT_URL_S3")) || say(&aws->endpoint, env("AWS_ENDPOINT_URL")))
		return KX_ENOMEM;
	if (!env("AWS_ACCESS_KEY_ID") && !env("AWS_SECRET_ACCESS_KEY"))
		return KX_OK;
	return say(&aws->key, env("AWS_ACCESS_KEY_ID")) || say(&aws->secret, env("AWS_SECRET_ACCESS_KEY")) ||
			       say(&aws->token, env("AWS_SESSION_TOKEN"))
		       ? KX_ENOMEM
		       : KX_OK;
}

/* A key of the environment is never completed by the secret of a file. */
static kx_status read_files(struct kx_aws *aws, struct kx_error *error)
{
	const char *named = env("AWS_PROFILE");
	bool from_environment = aws->key || aws->secret;
	struct kx_aws said = {0};
	struct profile profile = {.name = named ? named : "default", .aws = &said};
	kx_status status = read_profile("AWS_SHARED_CREDENTIALS_FILE", "credentials", &profile, error);
	if (status == KX_OK)
		status = read_profile("AWS_CONFIG_FILE", "config", &profile, error);
	if (status == KX_OK && named && !profile.found)
		status = kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				      "AWS_PROFILE names \"%s\", which is neither in the credentials nor in the config "
				      "file of AWS",
				      named);
	if (status == KX_OK && !from_environment) {
		aws->key = KX_STEAL(said.key);
		aws->secret = KX_STEAL(said.secret);
		aws->token = KX_STEAL(said.token);
	}
	if (status == KX_OK && (say(&aws->region, said.region) || say(&aws->endpoint, said.endpoint)))
		status = kx_error_nomem(error);
	kx_aws_done(&said);
	return status;
}

static kx_status load(struct kx_aws *aws, struct kx_error *error)
{
	if (read_environment(aws))
		return kx_error_nomem(error);
	kx_status status = read_files(aws, error);
	if (status)
		return status;
	if (!aws->key != !aws->secret)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "AWS credentials are given by half: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
				    "belong together");
	if (say(&aws->region, "us-east-1"))
		return kx_error_nomem(error);
	size_t len = aws->endpoint ? strlen(aws->endpoint) : 0;
	while (len > 0 && aws->endpoint[len - 1] == '/')
		aws->endpoint[--len] = '\0';
	return KX_OK;
}

kx_status kx_aws_load(struct kx_aws *ret, struct kx_error *error)
{
	struct kx_aws aws = {0};
	kx_status status = load(&aws, error);
	if (status)
		kx_aws_done(&aws);
	else
		*ret = aws;
	return status;
}
